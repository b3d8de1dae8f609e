package tenant

import (
	"context"
	"fmt"
	"strings"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
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

// The names of a tenant's first key at its custodian.
const rootName, signName = "root", "sign"

// key says, for records and people, which key of the place it is.
func (p Place) key(root string) string {
	if p.Kind == keys.KindVault {
		return p.Address + "/" + p.Mount + "/" + root
	}
	return "keyring " + p.Name
}

func (p Place) String() string { return fmt.Sprintf("%s (%s)", p.key(rootName), p.Kind) }

// ensureKey registers the custodian's key when it is first seen, and makes it
// the active one. It returns the name of the custodian in the file beside it. A
// tenant of which the file does not name the key's custodian is refused: moving
// is an act of a key custodian.
func (t *Tenant) ensureKey(ctx context.Context, named []Place) (out *record.Key, custodian string, err error) {
	err = t.store.Commit(ctx, func(tx store.Tx) error {
		known, err := record.ListKeys(tx, t.id)
		if err != nil {
			return err
		}
		for _, k := range known {
			for _, p := range named {
				if k.Kind == string(p.Kind) && k.Place == p.key(rootName) {
					out, custodian = &k, p.Name
					return nil
				}
			}
		}
		if len(known) > 0 {
			var places []string
			for _, p := range named {
				places = append(places, p.String())
			}
			return vocab.Errorf(vocab.ReasonCustodianChanged, "tenant %s: its file names %s, but its registered key is %s (%s)",
				t.name, strings.Join(places, ", "), known[0].Place, known[0].Kind).
				WithNext("Put that custodian back into the tenant's file")
		}
		if len(named) != 1 {
			return vocab.Errorf(vocab.ReasonConfigurationInvalid, "tenant %s: its file names %d custodians; at its first start it must be the one that gets the first key", t.name, len(named)).
				WithNext("Leave one, and add the others when the tenant serves")
		}
		p := named[0]
		out, custodian = &record.Key{
			ID: vocab.NewCustodianID(), Name: rootName, Kind: string(p.Kind), Place: p.key(rootName),
			Registered: record.ToMillis(t.now()), Active: 1,
		}, p.Name
		e := t.newEvent(audit.KindKeyRegistered, Call{}, t.now())
		e.Custodian, e.Target = out.ID, "key root"
		e.Detail = string(p.Kind) + " " + out.Place
		if err := record.PutKey(tx, t.id, out); err != nil {
			return err
		}
		return t.log.Append(tx, e)
	})
	return out, custodian, err
}
