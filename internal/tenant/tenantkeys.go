package tenant

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// firstKey is the name of the key that a tenant's first start registers, and of
// the two keys it expects at the custodian.
const firstKey, rootKeyName, signKeyName = "root", "root", "sign"

// setKey puts a registered key into force. mu is held.
func (l *live) setKey(s *record.Resource) error {
	k, err := record.DecodeTenantKey(s.Body)
	if err != nil {
		return err
	}
	if l.keys == nil {
		l.keys = map[string]*record.TenantKey{}
	}
	l.keys[s.ID()] = k
	if l.ring != nil {
		l.ring.TakeKey(statesOf(s.ID(), k))
	}
	return nil
}

// setGeneration puts a generation into force. mu is held.
func (l *live) setGeneration(s *record.Resource) error {
	g, err := record.DecodeGeneration(s.Body)
	if err == nil && record.GenerationName(g.Number) != s.Name {
		err = contradicts(s.Name)
	}
	if err != nil {
		return err
	}
	if l.generations == nil {
		l.generations = map[uint32]*record.Generation{}
	}
	l.generations[g.Number] = g
	if l.ring == nil {
		return nil
	}
	rec, err := ringRecord(g)
	if err == nil {
		l.ring.Take(rec)
	}
	return err
}

// keyByID returns a registered key and its name; nil if there is none. The key
// must not be changed.
func (l *live) keyByID(id vocab.CustodianID) (string, *record.TenantKey) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for name, k := range l.keys {
		if k.ID == id {
			return name, k
		}
	}
	return "", nil
}

// key returns a registered key; nil if there is none. It must not be changed.
func (l *live) key(name string) *record.TenantKey {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.keys[name]
}

// registered returns all registered keys by name.
func (l *live) registered() map[string]*record.TenantKey {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return maps.Clone(l.keys)
}

// activeKey returns the key that wraps what is new; nil if there is none.
func (l *live) activeKey() (string, *record.TenantKey) {
	for name, k := range l.registered() {
		if keys.State(k.State) == keys.Active {
			return name, k
		}
	}
	return "", nil
}

// activeGeneration returns the generation that seals what is new; nil if there is
// none.
func (l *live) activeGeneration() *record.Generation {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, g := range l.generations {
		if keys.State(g.State) == keys.Active {
			return g
		}
	}
	return nil
}

// active is the custodian of the active key.
func (t *Tenant) active() keys.Custodian { return t.ring.ActiveKey() }

// ensureKey registers the first key of a tenant when it is first served, and
// makes it the active one: the keys root and sign at the only custodian that
// its file names. Every other key is registered by a key custodian.
func (t *Tenant) ensureKey(ctx context.Context) error {
	if len(t.live.registered()) > 0 {
		return nil
	}
	named := t.custodians.Named()
	if len(named) != 1 {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "tenant %s has no key yet, and its file names %d custodians", t.name, len(named)).
			WithNext("Name one custodian for the first start; others can be added when the tenant has a key")
	}
	e := t.newEvent(audit.KindKeyRegistered, Call{}, t.now())
	k := &record.TenantKey{
		ID: vocab.NewCustodianID(), Custodian: named[0].Name, Kind: string(named[0].Kind), Root: rootKeyName, Sign: signKeyName,
		State: uint8(keys.Active), Since: record.ToMillis(e.Time), Registered: record.ToMillis(e.Time),
	}
	e.Target, e.Custodian, e.Detail = record.KeyName(firstKey), k.ID, "active; "+placeText(k)
	_, _, err := t.changeResourceBy(ctx, e, func(_ store.Reader, now *record.Resource, _ *audit.Event) ([]byte, error) {
		if now != nil {
			return nil, errStale
		}
		return k.Encode()
	}, false)
	return err
}

// placeText says in words where a key is.
func placeText(k *record.TenantKey) string {
	if keys.Kind(k.Kind) == keys.KindEmbedded {
		return "keyring " + k.Custodian
	}
	return k.Kind + " " + k.Custodian + ", keys " + k.Root + " and " + k.Sign
}

// openKeys opens the custodian of every registered key, the active one first.
// One that cannot be opened, because the file no longer names it, is an error
// for the active key only: documents under another wait for it.
func (t *Tenant) openKeys() ([]keys.Custodian, error) {
	all := t.live.registered()
	var out []keys.Custodian
	for i, name := range sortedKeys(all) {
		k := all[name]
		if !needed(k) {
			continue
		}
		c, err := t.openKey(k)
		switch {
		case err == nil:
			out = append(out, c)
		case i == 0:
			if vocab.ReasonOf(err) == vocab.ReasonConfigurationInvalid && !t.names(k.Custodian) {
				err = vocab.Errorf(vocab.ReasonCustodianChanged, "tenant %s: its active key %s is at custodian %s, which its file does not name", t.name, name, k.Custodian).
					WithNext("Put that custodian back into the file; moving to another is registering a key there and activating it")
			}
			return out, err
		default:
			t.logger.Error("a registered key cannot be reached: documents under it do not open", "tenant", t.name, "key", name, "error", err)
		}
	}
	return out, nil
}

// rank is 0 for the active key, and before the others comes one that was
// suspended: if no key is active, that was.
func rank(k *record.TenantKey) int {
	switch s := keys.State(k.State); {
	case s == keys.Active:
		return 0
	case s == keys.Suspended:
		return 1
	}
	return 2
}

// needed says that something may still have to be asked of a key's custodian.
func needed(k *record.TenantKey) bool {
	return k.Elsewhere == 0 && (keys.State(k.State) != keys.Destroyed || k.Gone == 0)
}

func (t *Tenant) names(custodian string) bool {
	return slices.ContainsFunc(t.custodians.Named(), func(p Place) bool { return p.Name == custodian })
}

// openKey opens a key's custodian and remembers to close it.
func (t *Tenant) openKey(k *record.TenantKey) (keys.Custodian, error) {
	c, err := t.custodians.Open(k.ID, k.Custodian, k.Root, k.Sign)
	if err != nil {
		return nil, err
	}
	t.opened.mu.Lock()
	defer t.opened.mu.Unlock()
	t.opened.list = append(t.opened.list, c)
	t.allow(k.Custodian)
	return c, nil
}

// allow tells a custodian which keys are registered there.
func (t *Tenant) allow(custodian string) {
	var names []string
	for _, k := range t.live.registered() {
		if k.Custodian == custodian && needed(k) {
			names = append(names, k.Root, k.Sign)
		}
	}
	slices.Sort(names)
	t.custodians.Allow(custodian, slices.Compact(names)...)
}

// closeKeys closes every custodian that was opened.
func (t *Tenant) closeKeys() (err error) {
	t.opened.mu.Lock()
	defer t.opened.mu.Unlock()
	for _, c := range t.opened.list {
		err = errors.Join(err, c.Close())
	}
	t.opened.list = nil
	return err
}

// keyNameOf is the name of a registered key; empty if there is none.
func (t *Tenant) keyNameOf(id vocab.CustodianID) string {
	name, _ := t.live.keyByID(id)
	return name
}
