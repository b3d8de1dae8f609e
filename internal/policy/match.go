package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Match is one grant whose principal is the caller, and what keeps it from
// counting. A caller's matches are the caller's own business only: they never
// speak of anybody else's grants.
type Match struct {
	// Grant is the index into the grants of the template or ad hoc policy.
	Grant int
	// By is the principal the caller was known as.
	By vocab.Principal
	// Rights and Until are the grant's.
	Rights vocab.Rights
	Until  time.Time
	// Conditional says the grant is bound to networks, whether or not the
	// caller is in one.
	Conditional bool
	// Ended, NeedsLogin and NeedsNetwork say what is missing now.
	Ended, NeedsLogin, NeedsNetwork bool
}

// Active reports whether the grant counts now.
func (m Match) Active() bool { return !m.Ended && !m.NeedsLogin && !m.NeedsNetwork }

// Index finds the grants of a caller by look-up: its cost grows with what the
// caller is and with the grants that match, never with the others. It is
// immutable and safe for concurrent use.
type Index struct {
	grants []Grant
	byWhom map[vocab.Principal][]int32
}

// NewIndex checks the grants' rights and principals and indexes them. It keeps
// grants, which must not change afterwards.
func NewIndex(grants []Grant) (*Index, error) {
	if len(grants) > MaxTemplateGrants {
		return nil, fmt.Errorf("%d grants: at most %d are allowed", len(grants), MaxTemplateGrants)
	}
	x := &Index{grants: grants, byWhom: make(map[vocab.Principal][]int32, len(grants))}
	for i, g := range grants {
		if !g.sound() {
			return nil, fmt.Errorf("grant %d cannot be understood", i)
		}
		x.byWhom[g.To] = append(x.byWhom[g.To], int32(i))
	}
	return x, nil
}

// Grants returns the indexed grants; the caller must not change them.
func (x *Index) Grants() []Grant { return x.grants }

// find returns the indexes of the grants for any of the principals, ascending.
func (x *Index) find(known []vocab.Principal) []int32 {
	var out []int32
	for _, p := range known {
		out = append(out, x.byWhom[p]...)
	}
	slices.Sort(out)
	return out
}

// sound reports whether a stored grant can be evaluated at all: a policy with
// one that cannot is refused as a whole, since nobody knows what it meant.
func (g Grant) sound() bool {
	return g.To.Kind >= vocab.KindUser && g.To.Kind <= vocab.KindService &&
		(g.To.Value == "") == (g.To.Kind == vocab.KindAnyone) &&
		g.Rights != 0 && g.Rights.Valid() && g.Login <= LoginMFA
}

// caller is what of an identity takes part in matching.
type caller struct {
	known []vocab.Principal // without doubles
	peer  netip.Addr
	mfa   bool
	guest bool
}

// admit works out whom the identity counts as. It reports false for a guest
// none of whose domains is admitted: such a caller is known as nobody, not even
// as anyone.
func admit(id *vocab.Identity, guestDomains []string) (caller, bool) {
	c := caller{mfa: id.MFA, guest: id.Member == "" && id.Service == ""}
	if a, err := netip.ParseAddr(id.Peer); err == nil {
		c.peer = a.Unmap()
	}
	seen := make(map[vocab.Principal]bool)
	add := func(kind vocab.PrincipalKind, value string) {
		p := vocab.Principal{Kind: kind, Value: value}
		if (value != "" || kind == vocab.KindAnyone) && !seen[p] {
			seen[p] = true
			c.known = append(c.known, p)
		}
	}
	if id.Service != "" {
		// A service is what the tenant's file calls it. It is no person:
		// addresses, domains and "every member" do not reach it.
		add(vocab.KindService, id.Service)
	} else {
		for _, a := range id.Addresses {
			d := vocab.DomainOf(a)
			if c.guest && !slices.Contains(guestDomains, d) {
				continue
			}
			add(vocab.KindUser, a)
			add(vocab.KindDomain, d)
		}
		if c.guest && len(c.known) == 0 {
			return c, false
		}
		add(vocab.KindTenant, id.Member)
	}
	for _, g := range id.Groups {
		add(vocab.KindGroup, g)
	}
	add(vocab.KindAnyone, "")
	return c, true
}

// is reports whether the caller is known as p.
func (c caller) is(p vocab.Principal) bool { return slices.Contains(c.known, p) }

// judge says whether grant i counts for the caller now; the principal is known
// to match.
func (c caller) judge(i int, g Grant, now time.Time) Match {
	return Match{
		Grant:        i,
		By:           g.To,
		Rights:       g.Rights,
		Until:        milli(g.Until),
		Conditional:  len(g.Networks) > 0,
		Ended:        !g.Until.IsZero() && !milli(g.Until).After(now),
		NeedsLogin:   g.Login == LoginMFA && !c.mfa,
		NeedsNetwork: len(g.Networks) > 0 && !c.inside(g.Networks),
	}
}

func (c caller) inside(networks []netip.Prefix) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(c.peer) })
}

// milli cuts a time to the precision the formats store, so that an instant
// means the same before and after it was written down.
func milli(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}
