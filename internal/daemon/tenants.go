package daemon

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/server"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// registry holds the tenants that are open, and those that are broken. It is
// safe for concurrent use.
type registry struct {
	mu     sync.RWMutex
	byName map[string]*served
	broken map[string]*broken
}

// served is a tenant and whether calls reach it: a tenant whose file vanished
// stays open, so that it can come back, but is not served.
type served struct {
	*tenant.Tenant
	custodians *custodians
	file       config.Tenant
	serving    bool
}

// Close closes the tenant and gives up its logins.
func (s *served) Close() error { return errors.Join(s.Tenant.Close(), s.custodians.Close()) }

// Find implements [server.Tenants].
func (r *registry) Find(name string) (*tenant.Tenant, *server.Broken) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if name == "" {
		name = r.only()
	}
	if s := r.byName[name]; s != nil && s.serving {
		return s.Tenant, nil
	}
	if b := r.broken[name]; b != nil {
		return nil, b.told()
	}
	return nil, nil
}

// only is the name of the only tenant of the configuration, "" if there are
// more. A broken one counts: whoever means it must not reach another.
func (r *registry) only() string {
	names := slices.Collect(maps.Keys(r.broken))
	for name, s := range r.byName {
		if s.serving {
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		return ""
	}
	return names[0]
}

func (r *registry) byID(id vocab.TenantID) *tenant.Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.byName {
		if s.ID() == id {
			return s.Tenant
		}
	}
	return nil
}

// custodianKinds are the kinds of an open tenant's custodians.
func (r *registry) custodianKinds(name string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s := r.byName[name]; s != nil {
		return kindsOf(s.file)
	}
	return ""
}

// close closes every open tenant.
func (r *registry) close() (all error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.byName {
		all = errors.Join(all, s.Close())
	}
	return all
}

// all returns every open tenant, by name.
func (r *registry) all() (out []*tenant.Tenant) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		out = append(out, r.byName[name].Tenant)
	}
	return out
}

// openTenants opens every tenant of the configuration. One that cannot be
// opened is broken, and does not keep the others from being served.
func (d *Daemon) openTenants(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Tenants)) {
		file := d.cfg.Tenants[name]
		t, err := d.openTenant(ctx, file, d.cfg.Tenants)
		if err != nil && !ownFault(ctx, err) {
			return err
		}
		d.tenants.mu.Lock()
		if err != nil {
			d.tenants.broken[name] = d.breaks(file, err)
		} else {
			d.tenants.byName[name] = t
		}
		d.tenants.mu.Unlock()
	}
	return nil
}

// openTenant opens one of the tenants of a configuration.
func (d *Daemon) openTenant(ctx context.Context, file config.Tenant, among map[string]config.Tenant) (*served, error) {
	c := d.newCustodians(file, among)
	t, err := tenant.Open(ctx, tenant.Deps{
		File: file, Store: d.store, Log: d.log, Custodians: c, Exported: d.exported,
		Instance: instance(), Logger: d.opts.Log, Now: d.opts.Now, SyncEvery: d.opts.SyncEvery,
	})
	if err != nil {
		if closing := c.Close(); closing != nil {
			d.opts.Log.Warn("a connection to a custodian was not closed", "tenant", file.ID, "error", closing)
		}
		return nil, err
	}
	return &served{Tenant: t, custodians: c, file: file, serving: true}, nil
}

// exported reads what the exporter last wrote for a tenant.
func (d *Daemon) exported(t vocab.TenantID) (out tenant.Exported, err error) {
	dir := filepath.Join(d.cfg.DataDir, checkpointDir)
	if out.Note, err = audit.Exported(dir, t); err != nil || out.Note == nil {
		return out, err
	}
	out.Certificates, err = audit.ExportedCertificates(dir, t)
	return out, err
}

// instance names this daemon in certificates.
func instance() string {
	name, err := os.Hostname()
	if err != nil {
		return "rmsd"
	}
	return "rmsd@" + name
}

// keyUsed reports whether a tenant's key has answered before. If its keyring is
// not there then, it is lost or its disk is away, and a new one would only
// stand in its place.
func (d *Daemon) keyUsed(name string, id vocab.CustodianID) (used bool, err error) {
	if d.store == nil {
		return false, nil // the configuration is only being checked
	}
	err = d.store.View(context.Background(), func(r store.Reader) error {
		t, err := record.GetTenant(r, name)
		if err != nil || t == nil {
			return err
		}
		return record.ListKeys(r, t.ID, func(_ string, k *record.TenantKey) error {
			used = used || k.ID == id && k.RootLatest > 0
			return nil
		})
	})
	return used, err
}

// prepareTenants looks at the tenants' files and opens the new tenants. What it
// returns takes everything over: new ones are served, and broken ones that can
// be opened now; changed ones are reconfigured, vanished ones no longer served.
// What needs a restart is refused. So is a new tenant that cannot be opened,
// but one that was broken before and still is holds nothing up.
func (d *Daemon) prepareTenants(ctx context.Context, next map[string]config.Tenant) (take func() []string, err error) {
	d.tenants.mu.RLock()
	known, wasBroken := maps.Clone(d.tenants.byName), maps.Clone(d.tenants.broken)
	d.tenants.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(next)) {
		file := next[name]
		if s := known[name]; s != nil {
			if err := s.custodians.mayBecome(file); err != nil {
				return nil, err
			}
		}
		// The files were checked against rmsd.yaml as it is now; what runs is
		// rmsd.yaml as it was read at the start.
		if err := d.cfg.Identity().ValidateTenant(file.Identity()); err != nil {
			return nil, needsRestart("tenant %s names what rmsd.yaml did not hold when the daemon started", name).Because(err)
		}
	}
	opened, stillBroken := map[string]*served{}, map[string]*broken{}
	defer func() {
		if err != nil {
			for _, s := range opened {
				err = errors.Join(err, s.Close())
			}
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(next)) {
		if known[name] != nil {
			continue
		}
		s, err := d.openTenant(ctx, next[name], next)
		switch {
		case err == nil:
			opened[name] = s
		case wasBroken[name] != nil && ownFault(ctx, err):
			stillBroken[name] = d.breaks(next[name], err)
		default:
			return nil, err
		}
	}
	return func() []string {
		changes, unneeded := d.tenants.take(next, opened, stillBroken)
		for _, conn := range unneeded {
			if err := conn.Close(); err != nil {
				d.opts.Log.Warn("a connection to a custodian was not closed", "error", err)
			}
		}
		return changes
	}, nil
}

func needsRestart(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, format, args...).WithNext("That needs a restart of rmsd, or put the file back")
}

// take makes the registry serve what the files say, with the tenants opened
// for it, and those that are still broken. Connections that are not needed any
// more are the caller's to close.
func (r *registry) take(next map[string]config.Tenant, opened map[string]*served, stillBroken map[string]*broken) (changes []string, unneeded []*vault.Connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.broken)) {
		if b := stillBroken[name]; b != nil {
			changes = append(changes, "tenant "+name+" is still broken: "+b.err.Error())
		} else if opened[name] == nil {
			changes = append(changes, "tenant "+name+", which is broken, is no longer configured; nothing of it was deleted")
		}
	}
	r.broken = stillBroken
	maps.Copy(r.byName, opened)
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		s, file := r.byName[name], next[name]
		_, there := next[name]
		switch {
		case opened[name] != nil:
			changes = append(changes, "tenant "+name+" is served")
			continue
		case !there && s.serving:
			changes = append(changes, "tenant "+name+" is no longer served; nothing of it was deleted")
		case there && !s.serving:
			changes = append(changes, "tenant "+name+" is served again")
		case there && !reflect.DeepEqual(s.file, file):
			changes = append(changes, "tenant "+name+" is served as its changed file says")
		}
		if s.serving = there; there {
			unneeded = append(unneeded, s.custodians.become(file, next)...)
			s.Reconfigure(file)
			s.file = file
		}
	}
	return changes, unneeded
}
