package policy

import (
	"cmp"
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// DefaultListing is how many grants are listed unless more are asked for.
const DefaultListing = 100

// maxNear is how many grants are listed that nearly named the caller.
const maxNear = 3

// Listing says which grants of a policy a trace lists: those that name the
// caller and, where none gives what was asked, the nearest that would; or all
// of them, page by page.
type Listing struct {
	All bool
	// From is the index of the first of all grants.
	From int
	// Limit is how many at most; [DefaultListing] if 0.
	Limit int
}

// ListedGrant is a grant of the policy as it stands to the caller.
type ListedGrant struct {
	// Index is its place in the policy.
	Index int
	Grant Grant
	// Named says it is for the caller.
	Named bool
	// Near says it is not, yet would give what was asked if it were.
	Near bool
	// Ended, NeedsLogin and NeedsNetwork say what keeps it from counting,
	// whether or not it names the caller.
	Ended, NeedsLogin, NeedsNetwork bool
}

// Counts reports whether the grant gives its rights to the caller now.
func (g ListedGrant) Counts() bool {
	return g.Named && !g.Ended && !g.NeedsLogin && !g.NeedsNetwork
}

// list returns the grants that were asked for, and where to go on.
func (x *examination) list(l Listing) (out []ListedGrant, next int) {
	limit := l.Limit
	if limit <= 0 {
		limit = DefaultListing
	}
	if !l.All {
		for _, m := range x.matches[:min(len(x.matches), limit)] {
			out = append(out, x.listed(m.Grant))
		}
		return append(out, x.near()...), 0
	}
	size := x.source.size()
	from := min(max(l.From, 0), size)
	end := min(from+limit, size)
	for i := from; i < end; i++ {
		out = append(out, x.listed(i))
	}
	if end < size {
		next = end
	}
	return out, next
}

func (x *examination) listed(i int) ListedGrant {
	g := x.source.grant(int32(i))
	m := x.who.judge(i, g, x.now)
	return ListedGrant{
		Index: i, Grant: g, Named: x.mine[g.To], Ended: m.Ended, NeedsLogin: m.NeedsLogin, NeedsNetwork: m.NeedsNetwork,
	}
}

// near returns the grants that come closest to giving what was asked to a
// caller who does not have it: to groups and domains that the caller is not
// in. Those to other people say nothing about the caller.
func (x *examination) near() []ListedGrant {
	if x.broken != "" || x.role != RoleNone || missing(x.matches, x.Right) == "" {
		return nil
	}
	var out []ListedGrant
	for i := range x.source.size() {
		g := x.source.grant(int32(i))
		switch g.To.Kind {
		case vocab.KindGroup, vocab.KindDomain, vocab.KindTenant:
		default:
			continue
		}
		if !g.Rights.Has(x.Right) || !g.Rights.Has(vocab.RightView) || x.mine[g.To] {
			continue
		}
		near := x.listed(i)
		if near.Near = !near.Ended; near.Near {
			out = append(out, near)
		}
		if len(out) > 64*maxNear {
			out = x.nearest(out)
		}
	}
	return x.nearest(out)
}

// nearest keeps the few that ask for the least: no condition that is not met,
// a group of a domain of the caller's, few rights.
func (x *examination) nearest(list []ListedGrant) []ListedGrant {
	far := func(g ListedGrant) int {
		n := 0
		if g.NeedsLogin {
			n += 8
		}
		if g.NeedsNetwork {
			n += 8
		}
		if g.Grant.To.Kind != vocab.KindGroup {
			n += 4
		} else if !x.mine[vocab.Principal{Kind: vocab.KindDomain, Value: vocab.DomainOf(g.Grant.To.Value)}] {
			n += 2
		}
		return n
	}
	slices.SortStableFunc(list, func(a, b ListedGrant) int {
		return cmp.Or(cmp.Compare(far(a), far(b)), cmp.Compare(len(a.Grant.Rights.List()), len(b.Grant.Rights.List())))
	})
	return list[:min(len(list), maxNear)]
}

// size is the number of grants.
func (s source) size() int {
	if s.index != nil {
		return len(s.index.grants)
	}
	return len(s.grants)
}
