package tenant

import (
	"context"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Exported is the newest checkpoint of a tenant's log that was kept outside
// the store, and the certificates kept beside it.
type Exported struct {
	// Note is the signed checkpoint; nil if none was ever exported.
	Note []byte
	// Certificates are signed; one is that of the key that signed Note.
	Certificates [][]byte
}

// verifyExported refuses, as LOG_DAMAGED, to serve a log whose exported
// checkpoint was not signed under one of the tenant's roots: who puts an older
// store back can also write a checkpoint that fits it, but cannot sign it.
//
// That the log continues the checkpoint was seen when the daemon started, and
// is looked at again: then nobody knew yet whose checkpoint it is. It is done
// once in the life of the process, before the daemon has a key to sign a new
// checkpoint with, so that nothing takes the place of the evidence.
func (t *Tenant) verifyExported(ctx context.Context) error {
	if t.exported == nil || t.continued {
		return nil
	}
	x, err := t.exported(t.id)
	if err != nil {
		return err
	}
	if x.Note != nil {
		c, err := t.openExported(x)
		if err != nil {
			return err
		}
		if err := t.log.Continues(ctx, c); err != nil {
			return err
		}
	}
	t.continued = true
	return nil
}

// openExported reads the checkpoint with the key whose certificate vouches for
// it.
func (t *Tenant) openExported(x Exported) (c audit.Checkpoint, err error) {
	v := t.trust.verifier.Load()
	if v == nil {
		return c, notServedYet()
	}
	for _, raw := range x.Certificates {
		cert, certErr := license.ParseCertificate(raw)
		if certErr != nil {
			continue // what a crash left, or not ours
		}
		if c, err = audit.OpenCheckpoint(x.Note, t.id, cert.Subject); err != nil {
			continue // another key's
		}
		// The time in the checkpoint is the word of whoever signed it, so it
		// is no use to ask whether the certificate covers it.
		if err = v.VerifyCertificate(cert, license.UsageCheckpoint, cert.NotBefore); err == nil {
			return c, nil
		}
		return c, notOurs(err)
	}
	return c, notOurs(err)
}

func notOurs(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLogDamaged, "the exported checkpoint of the tenant's log is not signed under the tenant's root").
		WithNext("Verify the log with rmsctl against a checkpoint you saved, and find out who could write the data directory; " +
			"when the log is the right one, move the checkpoint's file away").Because(cause)
}
