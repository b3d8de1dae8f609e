package policy

import "github.com/openrms/rms/internal/vocab"

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
