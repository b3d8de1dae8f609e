package tenant

import (
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// Custodians reaches what the operator's file of the tenant names as
// custodians. It is safe for concurrent use.
type Custodians interface {
	// Named returns what the file names, sorted by name.
	Named() []Place
	// Open returns the key with these names at the named custodian as the
	// registered key id. It must not block on the custodian being there. It
	// fails with CONFIGURATION_INVALID if the file names no such custodian.
	Open(id vocab.CustodianID, custodian, root, sign string) (keys.Custodian, error)
	// Allow tells which root keys are registered at a custodian, so that its
	// self-check does not call the use of one of them too much power.
	Allow(custodian string, keys ...string)
}

// Place is a custodian that the file names.
type Place struct {
	Name                                 string
	Kind                                 keys.Kind
	Address, Mount, Namespace, ClusterID string
	CAFile                               string
}

// Text says in words where it is: address and mount, or the keyring.
func (p Place) Text() string {
	switch p.Kind {
	case keys.KindVault:
		return p.Address + " " + p.Mount
	case keys.KindEmbedded:
		return "keyring " + p.Name
	}
	return ""
}
