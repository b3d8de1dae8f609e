package policy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Gains reports whether an edit of grants gives its author anything on content
// that is there already: a right, for a longer time, with a weaker sign-in or
// from more networks than before. Whether the grant names the author, a group, a
// domain, the tenant or anyone makes no difference. Where the author's provider
// held groups back, every group counts as one of the author's.
//
// It may say yes although several old grants together give as much as a new
// one; it never says no where the author gains.
func Gains(author *vocab.Identity, guestDomains []string, before, after []Grant, now time.Time) bool {
	who, ok := admit(author, guestDomains)
	if !ok {
		return false // nobody here, whatever the grants say
	}
	mine := make(map[vocab.Principal]bool, len(who.known))
	for _, p := range who.known {
		mine[p] = true
	}
	var certain []Grant                      // what the author had whatever was held back
	perhaps := map[vocab.Principal][]Grant{} // and if the author is in a group
	for _, g := range before {
		switch {
		case mine[g.To]:
			certain = append(certain, g)
		case author.GroupsIncomplete && g.To.Kind == vocab.KindGroup:
			perhaps[g.To] = append(perhaps[g.To], g)
		}
	}
	now = milli(now)
	return slices.ContainsFunc(after, func(g Grant) bool {
		switch {
		case !g.Until.IsZero() && !milli(g.Until).After(now):
			return false
		case mine[g.To]:
			return !covered(g, certain)
		case author.GroupsIncomplete && g.To.Kind == vocab.KindGroup:
			return !covered(g, append(slices.Clip(certain), perhaps[g.To]...))
		}
		return false
	})
}

// GainsByLicense is Gains for an edit of a license: its owner and its content
// expiry count too. Owner and issuer have every right without an end, so they
// gain nothing.
func GainsByLicense(author *vocab.Identity, guestDomains []string, before, after *Policy, now time.Time) bool {
	who, ok := admit(author, guestDomains)
	if !ok || before.roleOf(author, who) != RoleNone {
		return false
	}
	if after.roleOf(author, who) != RoleNone {
		return true
	}
	var had, has []Grant
	if before.AdHoc != nil {
		had = before.AdHoc.Grants
	}
	if after.AdHoc != nil {
		has = after.AdHoc.Grants
	}
	if later := !before.NotAfter.IsZero() && (after.NotAfter.IsZero() || after.NotAfter.After(before.NotAfter)); later {
		had = nil // what ended with the content ends later now
	}
	return Gains(author, guestDomains, had, has, now)
}

// GainsByRestoring reports whether whoever takes the revocation of a document
// back has access to it then. As for Gains, sign-in and network are those that
// the author may have another time, and not those of this call. Template is the
// one that the policy follows, nil if there is none.
func GainsByRestoring(author *vocab.Identity, guestDomains []string, p *Policy, template *CompiledTemplate, now time.Time) bool {
	who, ok := admit(author, guestDomains)
	if !ok {
		return false
	}
	if p.roleOf(author, who) != RoleNone {
		return true
	}
	var grants []Grant
	switch {
	case template != nil:
		grants = template.Grants
	case p.AdHoc != nil:
		grants = p.AdHoc.Grants
	}
	return Gains(author, guestDomains, nil, grants, now)
}

// covered reports whether old grants give all that a new one does.
func covered(g Grant, had []Grant) bool {
	networks := g.Networks
	if len(networks) == 0 {
		networks = []netip.Prefix{{}} // everywhere
	}
	for _, r := range g.Rights.List() {
		for _, n := range networks {
			if !slices.ContainsFunc(had, func(h Grant) bool { return h.gives(r, n, g) }) {
				return false
			}
		}
	}
	return true
}

// gives reports whether the grant gives a right in a network as long as another
// does, to whoever signed in as that one asks. The zero network is everywhere.
func (g Grant) gives(r vocab.Right, n netip.Prefix, as Grant) bool {
	return g.Rights.Has(r) &&
		(g.Until.IsZero() || !as.Until.IsZero() && !milli(as.Until).After(milli(g.Until))) &&
		(g.Login == LoginAny || g.Login == as.Login) &&
		(len(g.Networks) == 0 || slices.ContainsFunc(g.Networks, func(m netip.Prefix) bool { return within(n, m) }))
}

// within reports whether all of network n lies in m.
func within(n, m netip.Prefix) bool {
	return n.IsValid() && m.IsValid() && n.Bits() >= m.Bits() && m.Contains(n.Addr())
}
