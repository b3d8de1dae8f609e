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
