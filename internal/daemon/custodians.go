package daemon

import (
	"context"
	"errors"
	"maps"
	"os"
	"reflect"
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

// custodians is what one tenant's file names as custodians. All keys of a Vault
// mount share one connection, which lives from the first key that is opened on
// it until the file no longer names it, or the tenant is closed.
type custodians struct {
	d      *Daemon
	tenant string

	mu      sync.Mutex
	named   map[string]config.Custodian
	foreign map[string][]string // by custodian: other tenants' mounts beside its own
	allowed map[string][]string // by custodian: the registered keys
	reached map[string]*vault.Connection
	used    map[string]int // by custodian: the keys that are open
}

var _ tenant.Custodians = (*custodians)(nil)

// newCustodians returns what the file of one of the tenants of a configuration
// names.
func (d *Daemon) newCustodians(file config.Tenant, among map[string]config.Tenant) *custodians {
	return &custodians{
		d: d, tenant: file.ID, named: file.Custodians, foreign: foreignMounts(file, among),
		allowed: map[string][]string{}, reached: map[string]*vault.Connection{}, used: map[string]int{},
	}
}

// foreignMounts are the other tenants' mounts in the Vaults of a tenant, which
// its logins must not reach.
func foreignMounts(file config.Tenant, among map[string]config.Tenant) map[string][]string {
	out := map[string][]string{}
	for name, c := range file.Custodians {
		if c.Vault == nil {
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(among)) {
			for _, theirs := range among[other].Custodians {
				if other != file.ID && theirs.Vault != nil && theirs.Vault.Beside(c.Vault) {
					out[name] = append(out[name], theirs.Vault.Mount)
				}
			}
		}
	}
	return out
}

func kindOf(c config.Custodian) keys.Kind {
	if c.Embedded != nil {
		return keys.KindEmbedded
	}
	return keys.KindVault
}

// kindsOf are the kinds of custodian that a tenant's file names, for people.
func kindsOf(file config.Tenant) string {
	var kinds []string
	for _, c := range file.Custodians {
		kinds = append(kinds, string(kindOf(c)))
	}
	slices.Sort(kinds)
	return strings.Join(slices.Compact(kinds), "+")
}

// Named implements [tenant.Custodians].
func (c *custodians) Named() (out []tenant.Place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.named)) {
		p := tenant.Place{Name: name, Kind: kindOf(c.named[name])}
		if v := c.named[name].Vault; v != nil {
			p.Address, p.Mount, p.Namespace = strings.TrimRight(v.Address, "/"), strings.Trim(v.Mount, "/"), strings.Trim(v.Namespace, "/")
			p.ClusterID, p.CAFile = v.ClusterID, v.CA
		}
		out = append(out, p)
	}
	return out
}

// Open implements [tenant.Custodians].
func (c *custodians) Open(id vocab.CustodianID, custodian, root, sign string) (keys.Custodian, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	named, ok := c.named[custodian]
	if !ok {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "tenant %s: its file names no custodian %s", c.tenant, custodian).
			WithNext("Add it under custodians and run rmsd reload")
	}
	var key keys.Custodian
	var err error
	if named.Embedded != nil {
		key, err = c.openKeyring(id, named.Embedded, root, sign)
	} else {
		key, err = c.openVault(id, custodian, root, sign)
	}
	if err != nil {
		return nil, err
	}
	c.used[custodian]++
	open := &openKey{Custodian: key, ended: sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.used[custodian]--
	})}
	if o, ok := key.(owner); ok {
		return owned{open, o}, nil
	}
	return open, nil
}

// owner rotates and destroys a key.
type owner interface {
	keys.Rotator
	keys.Destroyer
}

// owned is an open key that the daemon rotates and destroys itself.
type owned struct {
	*openKey
	owner
}

// openKey is a key that keeps its custodian in use.
type openKey struct {
	keys.Custodian
	ended func()
}

// HoldsRoot implements [keys.Holder].
func (k *openKey) HoldsRoot(ctx context.Context) (holds bool, requestID string, err error) {
	if h, ok := k.Custodian.(keys.Holder); ok {
		return h.HoldsRoot(ctx)
	}
	return true, "", nil // as far as anybody can say
}

// Close implements [keys.Custodian].
func (k *openKey) Close() error {
	err := k.Custodian.Close()
	k.ended()
	return err
}

func (c *custodians) openKeyring(id vocab.CustodianID, e *config.Embedded, root, sign string) (keys.Custodian, error) {
	if root != "root" || sign != "sign" {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "a keyring has the keys root and sign and no others, not %s and %s", root, sign)
	}
	cfg := embedded.Config{ID: id, Path: e.Keyring, KeyFile: e.KeyFile, Now: c.d.opts.Now}
	used, err := c.d.keyUsed(c.tenant, id)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(cfg.Path); used || !errors.Is(err, os.ErrNotExist) {
		return embedded.Open(cfg)
	}
	return embedded.Create(cfg) // the key's first start
}

// openVault opens a key, over a new connection if there is none. mu is held.
func (c *custodians) openVault(id vocab.CustodianID, custodian, root, sign string) (keys.Custodian, error) {
	conn := c.reached[custodian]
	if conn != nil {
		return conn.Key(id, root, sign)
	}
	named := c.named[custodian]
	if err := readSecrets(named, true); err != nil {
		return nil, err
	}
	v := named.Vault
	cfg := vault.Config{
		Address: v.Address, CAFile: v.CA, Mount: v.Mount, ClusterID: v.ClusterID, Namespace: v.Namespace, Timeout: v.Timeout,
		TokenFile: named.TokenFile, Log: c.d.opts.Log, Now: c.d.opts.Now,
	}
	if a := named.AppRole; a != nil {
		cfg.AppRole = &vault.AppRole{Mount: a.Mount, Role: a.Role, RoleIDFile: a.RoleIDFile, SecretIDFile: a.SecretIDFile, Wrapped: a.Wrapped}
	}
	conn, err := vault.Connect(cfg)
	if err != nil {
		return nil, err
	}
	conn.Allow(c.allowed[custodian]...)
	var key *vault.Key
	if err = conn.KeepApart(c.foreign[custodian]...); err == nil {
		key, err = conn.Key(id, root, sign)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.reached[custodian] = conn
	return key, nil
}

// Allow implements [tenant.Custodians].
func (c *custodians) Allow(custodian string, keys ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowed[custodian] = slices.Clone(keys)
	if conn := c.reached[custodian]; conn != nil {
		conn.Allow(keys...)
	}
}

// mayBecome refuses a file that takes away or changes a custodian of which a
// key is open: that key's wraps depend on it.
func (c *custodians) mayBecome(next config.Tenant) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.named)) {
		after, there := next.Custodians[name]
		switch {
		case c.used[name] == 0:
		case !there:
			return needsRestart("tenant %s: the custodian %s is gone, but holds a key of the tenant", c.tenant, name)
		case !reflect.DeepEqual(c.named[name], after):
			return needsRestart("tenant %s: the custodian %s changed, and holds a key of the tenant", c.tenant, name)
		}
	}
	return nil
}

// become takes a changed file over. It returns the connections that are not
// needed any more, for the caller to close. A custodian of which a key was
// opened since mayBecome stays as it was until the daemon starts anew.
func (c *custodians) become(next config.Tenant, among map[string]config.Tenant) (unneeded []*vault.Connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.named
	c.named = maps.Clone(next.Custodians)
	for name, was := range before {
		after, there := next.Custodians[name]
		switch {
		case there && reflect.DeepEqual(was, after):
		case c.used[name] > 0:
			c.named[name] = was
		case c.reached[name] != nil:
			unneeded = append(unneeded, c.reached[name])
			delete(c.reached, name)
		}
	}
	c.foreign = foreignMounts(next, among)
	for name, conn := range c.reached {
		if err := conn.KeepApart(c.foreign[name]...); err != nil {
			// Its own tenant cannot use a mount of that name either.
			c.d.opts.Log.Warn("other tenants' mounts are not looked at", "tenant", c.tenant, "custodian", name, "error", err)
		}
	}
	return unneeded
}

// Close ends the connections. The tenant's keys must be closed.
func (c *custodians) Close() (all error) {
	c.mu.Lock()
	reached := c.reached
	c.reached, c.named = map[string]*vault.Connection{}, nil
	c.mu.Unlock()
	for _, conn := range reached {
		all = errors.Join(all, conn.Close())
	}
	return all
}
