package tenant_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// place is a data directory in which a tenant is served again and again.
type place struct {
	dir   string
	store store.Store
}

func (p *place) db() string          { return filepath.Join(p.dir, "rms.db") }
func (p *place) checkpoints() string { return filepath.Join(p.dir, "checkpoints") }

// start serves the tenant, with the checkpoints that are there.
func (p *place) start(t *testing.T) *kept {
	t.Helper()
	s, err := bolt.Open(bolt.Options{Path: p.db(), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	p.store = s
	k := &kept{served: &served{log: audit.New(s)}, store: s}
	k.call = tenant.Call{Method: "test", Caller: &vocab.Identity{
		Issuer: "https://idp.contoso.test", Subject: "alice", Addresses: []string{"alice@contoso.test"}, Member: "contoso",
	}}
	// What the daemon looks at before it opens a tenant.
	if err := k.log.CheckExported(t.Context(), p.checkpoints()); err != nil {
		t.Fatal(err)
	}
	k.Tenant, err = tenant.Open(t.Context(), tenant.Deps{
		File: config.Tenant{ID: "contoso", Domains: []string{"contoso.test"}}, Store: s, Log: k.log,
		Custodians: keyring(func(id vocab.CustodianID) (keys.Custodian, error) {
			c := embedded.Config{ID: id, Path: filepath.Join(p.dir, "keyring"), KeyFile: filepath.Join(p.dir, "keyring.key")}
			if _, err := os.Stat(c.Path); err == nil {
				return embedded.Open(c)
			}
			return embedded.Create(c)
		}),
		Exported: func(id vocab.TenantID) (x tenant.Exported, err error) {
			if x.Note, err = audit.Exported(p.checkpoints(), id); err == nil {
				x.Certificates, err = audit.ExportedCertificates(p.checkpoints(), id)
			}
			return x, err
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (p *place) stop(t *testing.T, k *kept) {
	t.Helper()
	if err := errors.Join(k.Close(), p.store.Close()); err != nil {
		t.Fatal(err)
	}
}

// exporter signs with the tenant's key, as the daemon's does.
func (p *place) exporter(k *kept) *audit.Exporter {
	return &audit.Exporter{Log: k.log, Dir: p.checkpoints(), Signer: keySigner(k.CheckpointSigner)}
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forge signs a checkpoint of the log as it is under a root of the attacker's.
func forge(t *testing.T, k *kept) (note, certificate []byte) {
	t.Helper()
	root, err1 := license.NewDaemonKey()
	key, err2 := license.NewDaemonKey()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	cert, err := license.IssueCertificate(t.Context(), root, license.Certificate{
		Tenant: k.ID(), IssuedAt: now, Subject: key.PublicKey(), Usage: license.UsageCheckpoint, NotBefore: now, NotAfter: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := k.log.Checkpoint(t.Context(), k.ID(), now)
	if err != nil {
		t.Fatal(err)
	}
	if note, err = c.Sign(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	return note, cert.Raw()
}

// Who puts an older store back and a checkpoint beside it that fits, but that
// the tenant's root never vouched for, gets a tenant that does not serve, an
// alarm, and no help in covering it up.
func TestExchangedCheckpointIsRefused(t *testing.T) {
	p := &place{dir: t.TempDir()}
	k := p.start(t)
	if err := k.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.expect(t, "")
	forged, forgedCert := forge(t, k)
	p.stop(t, k)
	old := read(t, p.db())

	// Life goes on, and is exported.
	k = p.start(t)
	if err := k.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.expect(t, "")
	if err := p.exporter(k).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(p.checkpoints(), k.ID().String())
	latest := filepath.Join(dir, "latest")
	p.stop(t, k)
	good := read(t, p.db())
	genuine := read(t, latest)

	// The right store with its checkpoint serves.
	k = p.start(t)
	if err := k.Ready(t.Context()); err != nil {
		t.Errorf("the tenant's own checkpoint: %v", err)
	}
	p.stop(t, k)

	for name, certificate := range map[string][]byte{"with a certificate": forgedCert, "with none of its own": nil, "with half of one": forgedCert[:40]} {
		t.Run(name, func(t *testing.T) {
			put(t, p.db(), old)
			put(t, latest, forged)
			at := filepath.Join(dir, "forged.cert")
			_ = os.Remove(at)
			if certificate != nil {
				put(t, at, certificate)
			}
			k := p.start(t)
			defer func() { p.stop(t, k) }()
			if err := k.Ready(t.Context()); !errors.Is(err, vocab.ReasonLogDamaged) {
				t.Fatalf("the tenant's state is %v, want LOG_DAMAGED", err)
			}
			k.expect(t, vocab.ReasonLogDamaged)
			// One for the state; the refused call is another.
			if n := k.kinds(t)[audit.KindAlarm]; n != 1 {
				t.Errorf("%d alarms, want 1", n)
			}
			if err := p.exporter(k).Export(t.Context(), k.ID()); err == nil || !bytes.Equal(read(t, latest), forged) {
				t.Errorf("a new checkpoint took the place of the evidence (%v)", err)
			}
		})
	}

	put(t, p.db(), good)
	put(t, latest, genuine)
	k = p.start(t)
	if err := k.Ready(t.Context()); err != nil {
		t.Errorf("the right store and checkpoint, put back: %v", err)
	}
	p.stop(t, k)
}

// keySigner is the exporter's view of a tenant's key.
func keySigner(signer func() (audit.Signer, []byte, error)) func(context.Context, vocab.TenantID) (audit.Signer, []byte, error) {
	return func(context.Context, vocab.TenantID) (audit.Signer, []byte, error) { return signer() }
}
