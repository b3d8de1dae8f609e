package policy

import (
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// Is reports whether an identity is known as a principal, for what hangs on
// who somebody is rather than on grants: roles and ownership. The same rules
// hold as for grants: a guest counts only with addresses in guestDomains.
func Is(id *vocab.Identity, p vocab.Principal, guestDomains []string) bool {
	if id == nil || p.IsZero() {
		return false
	}
	who, ok := admit(id, guestDomains)
	return ok && who.is(p)
}

// RoleOf says what an identity is to a license beyond any grant; none for a guest
// whose domains are not admitted.
func (p *Policy) RoleOf(id *vocab.Identity, guestDomains []string) Role {
	if id == nil {
		return RoleNone
	}
	who, ok := admit(id, guestDomains)
	if !ok {
		return RoleNone
	}
	return p.roleOf(id, who)
}

// KnownAs returns every principal an identity is known as, anyone excepted; none
// for a guest whose domains are not admitted. Memberships that only the
// tenant's directory knows are not among them.
func KnownAs(id *vocab.Identity, guestDomains []string) []vocab.Principal {
	if id == nil {
		return nil
	}
	who, ok := admit(id, guestDomains)
	if !ok {
		return nil
	}
	return slices.DeleteFunc(who.known, func(p vocab.Principal) bool { return p.Kind == vocab.KindAnyone })
}

// Names reports whether the license's policy names a principal: as its owner, or
// as whom a grant is for.
func (in *Input) Names(p vocab.Principal) bool {
	switch {
	case in.Policy == nil:
		return false
	case in.Policy.Owner == p:
		return true
	case in.Policy.AdHoc != nil:
		return slices.ContainsFunc(in.Policy.AdHoc.Grants, func(g Grant) bool { return g.To == p })
	}
	return in.Template != nil && in.Template.index != nil && len(in.Template.index.byWhom[p]) > 0
}

// Names reports whether what decides on a publish names a principal.
func (in *PublishInput) Names(p vocab.Principal) bool {
	return in.Owner == p || slices.Contains(in.Settings.Publishers, p) || in.Template != nil && slices.Contains(in.Template.Select, p) ||
		slices.ContainsFunc(in.Parents, func(q Parent) bool {
			return q.License != nil && (q.License.Names(p) || q.License.Template != nil && q.License.Template.Template != nil && slices.Contains(q.License.Template.Select, p))
		})
}
