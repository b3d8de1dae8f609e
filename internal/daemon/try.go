package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

// Try tries everything the configuration points at, and reports all that
// fails before it fails.
func Try(ctx context.Context, cfg *config.Config, out io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	var all error
	report := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(out, "# FAILED  %s: %v%s\n", what, err, causeOf(err))
			all = errors.Join(all, err)
			return
		}
		fmt.Fprintf(out, "# ok      %s\n", what)
	}
	certs, err := loadCertificates(cfg.TLS, log)
	if err == nil {
		err = certs.covers(cfg.PublicName)
	}
	report("tls", err)
	v, err := identity.NewVerifier(cfg.Identity(), nil, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for _, name := range slices.Sorted(maps.Keys(cfg.IdentityProviders)) {
		report("identity provider "+name, v.Probe(ctx, name))
	}
	d := &Daemon{cfg: cfg, opts: Options{Log: log}}
	for _, name := range slices.Sorted(maps.Keys(cfg.Tenants)) {
		file := cfg.Tenants[name]
		c := d.newCustodians(file, cfg.Tenants)
		for _, custodian := range file.CustodianNames() {
			named := file.Custodians[custodian]
			if e := named.Embedded; e != nil {
				// Opening a keyring that is not there would make it. Whether it is
				// lost the store knows, which a running daemon has.
				if _, err := os.Stat(e.Keyring); errors.Is(err, os.ErrNotExist) {
					fmt.Fprintf(out, "# ok      tenant %s: custodian %s: there is no keyring; the first start of its key makes one, a later one does not serve the tenant\n", name, custodian)
					continue
				}
			}
			report("tenant "+name+": custodian "+custodian, d.tryCustodian(ctx, c, custodian, named))
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
	if all != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the configuration does not work").Because(all)
	}
	return nil
}

// tryCustodian tries the keys a tenant's first start registers. Which others
// are registered the store knows, which a running daemon has.
func (d *Daemon) tryCustodian(ctx context.Context, c *custodians, name string, named config.Custodian) error {
	if err := readSecrets(named, false); err != nil {
		return err
	}
	key, err := c.Open(vocab.NewCustodianID(), name, "root", "sign")
	if err != nil {
		return err
	}
	return errors.Join(key.Check(ctx), key.Close())
}

// causeOf is what is behind an error, which its own sentence does not say.
func causeOf(err error) string {
	e, ok := errors.AsType[*vocab.Error](err)
	if !ok || e.Unwrap() == nil || strings.Contains(e.Message, e.Unwrap().Error()) {
		return ""
	}
	return ": " + e.Unwrap().Error()
}

// readSecrets looks whether the files of a custodian's secrets can be read, and
// not by everyone. At a start they may be absent: a wrapped secret is delivered
// once, and its absence is reported when it is needed.
func readSecrets(c config.Custodian, mayBeAbsent bool) error {
	paths := []string{c.TokenFile}
	if a := c.AppRole; a != nil {
		paths = append(paths, a.SecretIDFile) // a role ID is no secret
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); mayBeAbsent && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if _, err := config.SecretFile(path); err != nil {
			return err
		}
	}
	return nil
}
