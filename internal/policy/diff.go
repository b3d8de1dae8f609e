package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Change is what a template edit means for one principal.
type Change struct {
	To vocab.Principal
	// Gains and Loses are the rights that the principal's grants give after
	// but not before, and before but not after, all conditions met: OWNER is
	// spelled out, and a grant that has ended gives nothing.
	Gains, Loses vocab.Rights
	// More says that there are situations in which the principal may more
	// afterwards: with a right of Gains, or since a grant ends later or asks
	// for less. Less is the same the other way. It may be both, or neither.
	More, Less bool
	// Before and After are the principal's grants, in order.
	Before, After []Grant
}

// Diff compares two revisions of a template at an instant. The changes are
// those of principals who have other grants, in the order of
// [vocab.Principal.Compare]. Fields names what else differs, by the keys of
// template files; "grants" if they are the same in another order, which means
// nothing but is written down.
//
// No change and no field means that both revisions have the same file.
func Diff(before, after *Template, now time.Time) (changes []Change, fields []string) {
	now = milli(now)
	was, is := byPrincipal(before.Grants), byPrincipal(after.Grants)
	everybody := slices.AppendSeq(slices.Collect(maps.Keys(was)), maps.Keys(is))
	slices.SortFunc(everybody, vocab.Principal.Compare)
	for _, p := range slices.Compact(everybody) {
		gone, come := without(was[p], is[p]), without(is[p], was[p])
		if len(gone) == 0 && len(come) == 0 {
			continue
		}
		old, next := inForce(was[p], now), inForce(is[p], now)
		had, has := rightsNamed(old), rightsNamed(next)
		changes = append(changes, Change{
			To: p, Gains: has &^ had, Loses: had &^ has, Before: was[p], After: is[p],
			More: exceeds(inForce(come, now), old), Less: exceeds(inForce(gone, now), next),
		})
	}
	for _, f := range []struct {
		key  string
		same bool
	}{
		{"id", before.Slug == after.Slug},
		{"names", maps.Equal(before.Names, after.Names)},
		{"descriptions", maps.Equal(before.Descriptions, after.Descriptions)},
		{"state", before.State == after.State},
		{"grants", len(changes) > 0 || slices.EqualFunc(before.Grants, after.Grants, SameGrant)},
		{"expires", sameExpiry(before.Expiry, after.Expiry)},
		{"offline", before.Offline == after.Offline},
		{"select", slices.Equal(SortedPrincipals(before.Select), SortedPrincipals(after.Select))},
		{"contact", before.Contact == after.Contact},
		{"custody", before.Custody == after.Custody},
	} {
		if !f.same {
			fields = append(fields, f.key)
		}
	}
	return changes, fields
}

func byPrincipal(grants []Grant) map[vocab.Principal][]Grant {
	out := make(map[vocab.Principal][]Grant)
	for _, g := range grants {
		out[g.To] = append(out[g.To], g)
	}
	return out
}

// without returns the grants that others has not, each as often as it is there
// more.
func without(grants, others []Grant) (out []Grant) {
	left := make(map[grantKey]int, len(others))
	for _, g := range others {
		left[keyOf(g)]++
	}
	for _, g := range grants {
		if k := keyOf(g); left[k] > 0 {
			left[k]--
		} else {
			out = append(out, g)
		}
	}
	return out
}

// grantKey is the same for grants that mean the same.
type grantKey struct {
	to       vocab.Principal
	rights   vocab.Rights
	until    int64
	login    Login
	networks string
}

func keyOf(g Grant) grantKey {
	k := grantKey{to: g.To, rights: g.Rights, login: g.Login}
	if !g.Until.IsZero() {
		k.until = g.Until.UnixMilli()
	}
	for _, n := range SortedNetworks(g.Networks) {
		k.networks += n.String() + " "
	}
	return k
}

// inForce returns the grants that have not ended.
func inForce(grants []Grant, now time.Time) (out []Grant) {
	for _, g := range grants {
		if g.Until.IsZero() || milli(g.Until).After(now) {
			out = append(out, g)
		}
	}
	return out
}

func rightsNamed(grants []Grant) vocab.Rights {
	var out vocab.Rights
	for _, g := range grants {
		out |= g.Rights
	}
	return out.Effective()
}

// maxCompared bounds how many pairs of one principal's grants are compared.
// Who has more than a handful of grants each way is said to gain and to lose.
const maxCompared = 1_000

// exceeds reports whether one of the grants gives, in some situation, a right
// that no single one of others gives there. Two grants that cover it only
// together are not found to, so the answer may be a yes too much, never too
// little.
func exceeds(grants, others []Grant) bool {
	if len(grants)*len(others) > maxCompared {
		return true
	}
	return slices.ContainsFunc(grants, func(g Grant) bool {
		left := g.Rights.Effective()
		for _, h := range others {
			if h.asWideAs(g) {
				left &^= h.Rights.Effective()
			}
		}
		return left != 0
	})
}

// asWideAs reports whether h counts wherever g does.
func (h Grant) asWideAs(g Grant) bool {
	return h.Login <= g.Login && !before(milli(h.Until), milli(g.Until)) &&
		(len(h.Networks) == 0 || len(g.Networks) > 0 && !slices.ContainsFunc(g.Networks, func(n netip.Prefix) bool {
			return !slices.ContainsFunc(h.Networks, func(m netip.Prefix) bool { return m.Bits() <= n.Bits() && m.Contains(n.Addr()) })
		}))
}

func sameExpiry(a, b Expiry) bool {
	return a.Kind == b.Kind && a.After == b.After && milli(a.At).Equal(milli(b.At))
}

// SameGrant reports whether two grants mean the same.
func SameGrant(a, b Grant) bool { return keyOf(a) == keyOf(b) }

// SortedNetworks returns the networks of a grant as the formats store them, for
// their order means nothing: in the order of their text, doubles once.
func SortedNetworks(networks []netip.Prefix) []netip.Prefix {
	return sorted(networks, func(a, b netip.Prefix) int { return cmp.Compare(a.String(), b.String()) })
}

// SortedPrincipals does the same for lists of principals.
func SortedPrincipals(list []vocab.Principal) []vocab.Principal {
	return sorted(list, func(a, b vocab.Principal) int { return cmp.Compare(a.String(), b.String()) })
}

func sorted[T comparable](list []T, compare func(T, T) int) []T {
	return slices.Compact(slices.SortedFunc(slices.Values(list), compare))
}
