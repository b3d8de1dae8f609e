// Package tenanttest helps tests to open tenants.
package tenanttest

import (
	"maps"
	"slices"
	"sync"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// Custodians is what a tenant's file would name: by name, how to open a key
// there. It is safe for concurrent use.
type Custodians struct {
	mu   sync.Mutex
	kind map[string]keys.Kind
	open map[string]func(vocab.CustodianID) (keys.Custodian, error)
}

// Embedded returns the only custodian of a tenant, a keyring.
func Embedded(open func(vocab.CustodianID) (keys.Custodian, error)) *Custodians {
	c := &Custodians{kind: map[string]keys.Kind{}, open: map[string]func(vocab.CustodianID) (keys.Custodian, error){}}
	c.Add("keyring", keys.KindEmbedded, open)
	return c
}

// Add names another custodian, as an operator does who edits the file.
func (c *Custodians) Add(name string, kind keys.Kind, open func(vocab.CustodianID) (keys.Custodian, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kind[name], c.open[name] = kind, open
}

// Remove takes a custodian out of the file.
func (c *Custodians) Remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.kind, name)
	delete(c.open, name)
}

// Named implements [tenant.Custodians].
func (c *Custodians) Named() (out []tenant.Place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.kind)) {
		out = append(out, tenant.Place{Name: name, Kind: c.kind[name]})
	}
	return out
}

// Open implements [tenant.Custodians].
func (c *Custodians) Open(id vocab.CustodianID, custodian, _, _ string) (keys.Custodian, error) {
	c.mu.Lock()
	open := c.open[custodian]
	c.mu.Unlock()
	if open == nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the file names no custodian %q", custodian)
	}
	return open(id)
}

// Allow implements [tenant.Custodians].
func (c *Custodians) Allow(string, ...string) {}
