package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// Imported is what an import did.
type Imported = tenant.Imported

// NewImportKey makes the key of one move. secret is the content of the file that
// opens the archive, which the caller clears; recipient is what the source is
// given; fingerprint is what people name both by.
func NewImportKey() (secret []byte, recipient string, fingerprint [32]byte, err error) {
	key, secret, recipient, err := archive.NewKey()
	if err != nil {
		return nil, "", fingerprint, err
	}
	return secret, recipient, key.Hash(), nil
}

// readImportKey reads a file whose permissions are looked at as those of every
// secret are.
func readImportKey(path string) (*license.RecipientKey, error) {
	text, err := config.SecretFile(path)
	if err != nil {
		return nil, err
	}
	return archive.ReadKey(strings.NewReader(text))
}

// ImportOptions are what an import needs beside a configuration.
type ImportOptions struct {
	// Archive is the file, Tenant the name of the tenant whose file says which
	// custodian it has here, Custodian which of them if it names several.
	Archive, Tenant, Custodian string
	// Key is the file that [NewImportKey] made the content of.
	Key string
	// Root is the key ID of the source's root.
	Root [32]byte
	Log  *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Say is told what is being done.
	Say func(format string, args ...any)
}

// Import brings a tenant into the data directory of a configuration, on which no
// daemon may run: see [tenant.Import].
func Import(ctx context.Context, cfg *config.Config, o ImportOptions) (_ *Imported, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	file, ok := cfg.Tenants[o.Tenant]
	if !ok {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "there is no file of tenant %s in %s", o.Tenant, cfg.TenantsDir).
			WithNext("Write it first: it names the custodian that the tenant has here, and who administers it")
	}
	key, err := readImportKey(o.Key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "data_dir: %w", err)
	}
	d := &Daemon{cfg: cfg, opts: Options{Log: o.Log, Now: o.Now}}
	if d.store, err = openStore(cfg.DataDir, false); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.store.Close()) }()
	d.log = audit.New(d.store)
	checkpoints := filepath.Join(cfg.DataDir, checkpointDir)
	if err := d.log.CheckExported(ctx, checkpoints); err != nil {
		return nil, err
	}
	c := d.newCustodians(file, cfg.Tenants)
	defer func() { err = errors.Join(err, c.Close()) }()
	out, err := tenant.Import(ctx, tenant.ImportConfig{
		File: file, Store: d.store, Log: d.log, Custodians: c, Custodian: o.Custodian,
		Open: func() (io.ReadCloser, error) { return os.Open(o.Archive) }, Key: key, Root: o.Root, Now: o.Now, Say: o.Say,
	})
	if err != nil {
		return nil, err
	}
	if err := audit.KeepExported(checkpoints, out.Tenant, out.Checkpoint, out.Certificates); err != nil {
		return out, fmt.Errorf("the tenant is imported, but its checkpoint was not kept beside the store: %w", err)
	}
	return out, nil
}
