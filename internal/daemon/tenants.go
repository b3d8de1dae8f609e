package daemon

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// registry holds the tenants that are open. It is safe for concurrent use.
type registry struct {
	mu     sync.RWMutex
	byName map[string]*served
}

// served is a tenant and whether calls reach it: a tenant whose file vanished
// stays open, so that it can come back, but is not served.
type served struct {
	*tenant.Tenant
	file    config.Tenant
	serving bool
}

// Tenant implements [server.Tenants].
func (r *registry) Tenant(name string) *tenant.Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s := r.byName[name]; s != nil && s.serving {
		return s.Tenant
	}
	return nil
}

// Only implements [server.Tenants].
func (r *registry) Only() *tenant.Tenant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var only *tenant.Tenant
	for _, s := range r.byName {
		if s.serving && only != nil {
			return nil
		}
		if s.serving {
			only = s.Tenant
		}
	}
	return only
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

// all returns every open tenant, by name.
func (r *registry) all() (out []*tenant.Tenant) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		out = append(out, r.byName[name].Tenant)
	}
	return out
}

// openTenants opens every tenant of the configuration.
func (d *Daemon) openTenants(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Tenants)) {
		if err := d.openTenant(ctx, d.cfg.Tenants[name]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) openTenant(ctx context.Context, file config.Tenant) error {
	kind, place, open := d.custodian(file)
	t, err := tenant.Open(ctx, tenant.Deps{
		File: file, Store: d.store, Log: d.log, Custodian: open, CustodianKind: kind, Place: place,
		Instance: instance(), Logger: d.opts.Log, Now: d.opts.Now, SyncEvery: d.opts.SyncEvery,
	})
	if err != nil {
		return err
	}
	d.tenants.mu.Lock()
	defer d.tenants.mu.Unlock()
	d.tenants.byName[file.ID] = &served{Tenant: t, file: file, serving: true}
	return nil
}

// instance names this daemon in certificates.
func instance() string {
	name, err := os.Hostname()
	if err != nil {
		return "rmsd"
	}
	return "rmsd@" + name
}

// custodian returns what a tenant's file says of its key, and how to reach it.
func (d *Daemon) custodian(file config.Tenant) (kind keys.Kind, place string, open func(vocab.CustodianID) (keys.Custodian, error)) {
	c := file.Custodian
	if e := c.Embedded; e != nil {
		return keys.KindEmbedded, "keyring " + file.ID, func(id vocab.CustodianID) (keys.Custodian, error) {
			return openKeyring(embedded.Config{ID: id, Path: e.Keyring, KeyFile: e.KeyFile, Now: d.opts.Now})
		}
	}
	v := c.Vault
	root := v.Root
	if root == "" {
		root = "root"
	}
	place = v.Address + "/" + v.Mount + "/" + root
	return keys.KindVault, place, func(id vocab.CustodianID) (keys.Custodian, error) {
		cfg := vault.Config{
			ID: id, Address: v.Address, CAFile: v.CA, Mount: v.Mount, RootKey: v.Root, SignKey: v.Sign,
			ClusterID: v.ClusterID, Namespace: v.Namespace, Timeout: v.Timeout, TokenFile: c.TokenFile,
			OtherMounts: d.otherMounts(file.ID, v.Address), Log: d.opts.Log, Now: d.opts.Now,
		}
		if a := c.AppRole; a != nil {
			cfg.AppRole = &vault.AppRole{Mount: a.Mount, Role: a.Role, RoleIDFile: a.RoleIDFile, SecretIDFile: a.SecretIDFile, Wrapped: a.Wrapped}
		}
		return vault.Open(cfg)
	}
}

// otherMounts are the other tenants' mounts in the same Vault, which this
// tenant's login must not reach.
func (d *Daemon) otherMounts(name, address string) (out []string) {
	for _, other := range slices.Sorted(maps.Keys(d.cfg.Tenants)) {
		if v := d.cfg.Tenants[other].Custodian.Vault; other != name && v != nil && strings.TrimRight(v.Address, "/") == strings.TrimRight(address, "/") {
			out = append(out, v.Mount)
		}
	}
	return out
}

// openKeyring opens a keyring, or makes it at the tenant's first start.
func openKeyring(c embedded.Config) (keys.Custodian, error) {
	if _, err := os.Stat(c.Path); errors.Is(err, os.ErrNotExist) {
		return embedded.Create(c)
	}
	return embedded.Open(c)
}

// reloadTenants takes over the tenants' files: new ones are opened, changed
// ones reconfigured, vanished ones no longer served. A changed custodian needs
// a restart and is refused.
func (d *Daemon) reloadTenants(ctx context.Context, next map[string]config.Tenant) (changes []string, err error) {
	d.tenants.mu.RLock()
	for name, s := range d.tenants.byName {
		if file, ok := next[name]; ok && !sameCustodian(s.file.Custodian, file.Custodian) {
			d.tenants.mu.RUnlock()
			return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "tenant %s: the custodian changed, which needs a restart", name)
		}
	}
	d.tenants.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(next)) {
		d.tenants.mu.RLock()
		s := d.tenants.byName[name]
		d.tenants.mu.RUnlock()
		if s == nil {
			if err := d.openTenant(ctx, next[name]); err != nil {
				return changes, err
			}
			changes = append(changes, "tenant "+name+" is served")
			continue
		}
		d.tenants.mu.Lock()
		s.Reconfigure(next[name])
		s.file = next[name]
		if !s.serving {
			s.serving = true
			changes = append(changes, "tenant "+name+" is served again")
		}
		d.tenants.mu.Unlock()
	}
	d.tenants.mu.Lock()
	defer d.tenants.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.tenants.byName)) {
		if s := d.tenants.byName[name]; s.serving {
			if _, ok := next[name]; !ok {
				s.serving = false
				changes = append(changes, "tenant "+name+" is no longer served; nothing of it was deleted")
			}
		}
	}
	return changes, nil
}

// sameCustodian compares what the two files say, not the pointers.
func sameCustodian(a, b config.Custodian) bool {
	same := func(x, y any) bool { return x == y }
	deref := func(c config.Custodian) [4]any {
		var out [4]any
		if c.Vault != nil {
			out[0] = *c.Vault
		}
		if c.AppRole != nil {
			out[1] = *c.AppRole
		}
		if c.Embedded != nil {
			out[2] = *c.Embedded
		}
		out[3] = c.TokenFile
		return out
	}
	return same(deref(a), deref(b))
}
