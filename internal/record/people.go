package record

import (
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Prefixes of the names of resources.
const (
	PrefixGroups     = "groups/"     // by address: [Group]
	PrefixRoles      = "roles/"      // by role: [Holders]
	PrefixPrincipals = "principals/" // by principal: [Disabled]; a tombstone is one that was enabled again
	PrefixOperations = "operations/" // by ID: [operation.Operation]; never deleted
)

// NameApprovers is the name of the one resource that is not among others of its
// kind: who approves what is under dual control, an [operation.ApproverSet].
// Once it is there it is never deleted.
const NameApprovers = "approvers"

// Group is the body of a group of the tenant's own directory.
type Group struct {
	// Members are users, services and groups, sorted, without doubles.
	Members []vocab.Principal
	// Description says what it is for.
	Description string
}

// Holders is the body of a role: who holds it, perhaps nobody. Only of a role
// that has no record the operator's file names the holders.
type Holders struct {
	Principals []vocab.Principal // sorted, without doubles
}

// Disabled is the body of a principal that was disabled.
type Disabled struct {
	By     string `cbor:"1,keyasint"` // who did it, as a person names them
	Reason string `cbor:"2,keyasint,omitempty"`
}

type groupForm struct {
	Members     []string `cbor:"1,keyasint"`
	Description string   `cbor:"2,keyasint,omitempty"`
}

type holdersForm struct {
	Principals []string `cbor:"1,keyasint"`
}

// Encode returns the stored form.
func (g *Group) Encode() ([]byte, error) {
	return encodeBody(&groupForm{Members: texts(g.Members), Description: g.Description})
}

// DecodeGroup reads the stored form; the error is STORE_DAMAGED.
func DecodeGroup(b []byte) (*Group, error) {
	var f groupForm
	if err := canon.Unmarshal(b, &f); err != nil {
		return nil, damaged(tableResources, err)
	}
	members, err := principals(f.Members)
	return &Group{Members: members, Description: f.Description}, err
}

// Encode returns the stored form.
func (h *Holders) Encode() ([]byte, error) {
	return encodeBody(&holdersForm{Principals: texts(h.Principals)})
}

// DecodeHolders reads the stored form; the error is STORE_DAMAGED.
func DecodeHolders(b []byte) (*Holders, error) {
	var f holdersForm
	if err := canon.Unmarshal(b, &f); err != nil {
		return nil, damaged(tableResources, err)
	}
	list, err := principals(f.Principals)
	return &Holders{Principals: list}, err
}

// Encode returns the stored form.
func (d *Disabled) Encode() ([]byte, error) { return encodeBody(d) }

// DecodeDisabled reads the stored form; the error is STORE_DAMAGED.
func DecodeDisabled(b []byte) (*Disabled, error) {
	d := new(Disabled)
	if err := canon.Unmarshal(b, d); err != nil {
		return nil, damaged(tableResources, err)
	}
	return d, nil
}

func encodeBody(v any) ([]byte, error) {
	b, err := canon.Marshal(v)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonInternal, "a resource cannot be encoded").Because(err)
	}
	return b, nil
}

func texts(list []vocab.Principal) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}

func principals(list []string) ([]vocab.Principal, error) {
	out := make([]vocab.Principal, len(list))
	for i, s := range list {
		p, err := vocab.ParsePrincipal(s)
		if err != nil {
			return nil, damaged(tableResources, err)
		}
		out[i] = p
	}
	return out, nil
}
