package tenant

import (
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// Custodians reaches what the operator's file of the tenant names as
// custodians. It is safe for concurrent use. What the file names may change
// while the tenant is open, but not a custodian of which a key is open.
type Custodians interface {
	// Named returns what the file names now, sorted by name.
	Named() []Place
	// Open returns the key with these names at the named custodian as the
	// registered key id. It does not block on the custodian being there. It is
	// CONFIGURATION_INVALID if the file names no such custodian. The custodian
	// stays in use until the key is closed; several keys of it can be open.
	Open(id vocab.CustodianID, custodian, root, sign string) (keys.Custodian, error)
	// Allow says which keys are registered at a custodian, by the names they
	// have there, in place of those named before: the self-check of one does
	// not call the use of another too much power. It holds for keys that are
	// open and for those opened later.
	Allow(custodian string, keys ...string)
}

// Place is a custodian that the file names.
type Place struct {
	Name string
	Kind keys.Kind
	// Of Vault alone. Namespace, ClusterID and CAFile may be empty.
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
