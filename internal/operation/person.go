package operation

import (
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// Person is who asks or approves, as their sign-in said then. It is kept so
// that a later one can be compared with them, and so that their role can be
// looked up again when they are not there.
type Person struct {
	Issuer    string   `cbor:"1,keyasint"`
	Subject   string   `cbor:"2,keyasint"`
	Provider  string   `cbor:"3,keyasint,omitempty"`
	Name      string   `cbor:"4,keyasint"` // as a person would name them
	Addresses []string `cbor:"5,keyasint,omitempty"`
	Service   string   `cbor:"6,keyasint,omitempty"`
	Member    string   `cbor:"7,keyasint,omitempty"`
	// Groups are those of the groups their identity provider sent that hold a
	// role.
	Groups []string `cbor:"8,keyasint,omitempty"`
}

// PersonOf returns an identity as operations keep it, with those of its groups
// that holds says hold a role; nil: none.
func PersonOf(id *vocab.Identity, holds func(group string) bool) Person {
	p := Person{
		Issuer: id.Issuer, Subject: id.Subject, Provider: id.Provider, Name: id.Name(),
		Addresses: slices.Clone(id.Addresses), Service: id.Service, Member: id.Member,
	}
	if holds != nil {
		for _, g := range id.Groups {
			if holds(g) {
				p.Groups = append(p.Groups, g)
			}
		}
	}
	return p
}

// Identity returns the person as an identity, without anything of the sign-in
// that does not last: no second factor, no network.
func (p *Person) Identity() *vocab.Identity {
	return &vocab.Identity{
		Issuer: p.Issuer, Subject: p.Subject, Provider: p.Provider, Addresses: slices.Clone(p.Addresses),
		Groups: slices.Clone(p.Groups), Service: p.Service, Member: p.Member,
	}
}

// Is reports whether the identity is the person's own: the same subject of the
// same issuer.
func (p *Person) Is(id *vocab.Identity) bool {
	return id != nil && p.Issuer != "" && p.Subject != "" && p.Issuer == id.Issuer && p.Subject == id.Subject
}

// Same reports whether two may be one person: by identity, or because an address
// is verified for both, as with a second account or a second provider.
func (p *Person) Same(q *Person) bool {
	if p.Issuer == q.Issuer && p.Subject == q.Subject {
		return true
	}
	return slices.ContainsFunc(p.Addresses, func(a string) bool { return slices.Contains(q.Addresses, a) }) ||
		p.Service != "" && p.Service == q.Service
}
