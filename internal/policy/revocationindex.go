package policy

import (
	"math"
	"slices"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// MaxRevocationRules is how many rules one tenant may have in force.
const MaxRevocationRules = 10_000

// RevocationIndex finds the rules that cover a license and a caller. What a
// look-up costs grows with what the caller is, with the license's ancestors and
// with the rules that have an owner, template, document or name in common with
// them, never with the others. (If a caller's provider held groups back, the
// rules for groups count among the former.)
//
// The zero value is empty. Look-ups may run at once, but not beside a change.
type RevocationIndex struct {
	rules map[vocab.EventID]*indexedRule
	// Each rule is found in one place, by the condition that fewest licenses
	// and callers meet.
	byLineage   map[vocab.ContentID][]*indexedRule
	byPrincipal map[vocab.Principal][]*indexedRule
	byGroup     map[vocab.Principal][]*indexedRule
	byOwner     map[vocab.Principal][]*indexedRule
	byTemplate  map[vocab.TemplateUID][]*indexedRule
	byPeriod    periods // rules that have no other condition
}

type indexedRule struct {
	RevocationRule
	event vocab.EventID
}

// Len is the number of rules.
func (x *RevocationIndex) Len() int { return len(x.rules) }

// Lineages reports whether a rule asks what a license was made from.
func (x *RevocationIndex) Lineages() bool { return len(x.byLineage) > 0 }

// Find returns the rules that match accepts, by the events that made them, the
// oldest first. It looks at all.
func (x *RevocationIndex) Find(match func(*RevocationRule) bool) (events []vocab.EventID) {
	for event, r := range x.rules {
		if match(&r.RevocationRule) {
			events = append(events, event)
		}
	}
	slices.SortFunc(events, vocab.EventID.Compare)
	return events
}

// Set puts a valid rule into force, in place of what the same event made
// before.
func (x *RevocationIndex) Set(event vocab.EventID, rule RevocationRule) {
	x.Remove(event)
	if x.rules == nil {
		*x = RevocationIndex{
			rules: map[vocab.EventID]*indexedRule{}, byLineage: map[vocab.ContentID][]*indexedRule{},
			byPrincipal: map[vocab.Principal][]*indexedRule{}, byGroup: map[vocab.Principal][]*indexedRule{},
			byOwner: map[vocab.Principal][]*indexedRule{}, byTemplate: map[vocab.TemplateUID][]*indexedRule{},
		}
	}
	r := &indexedRule{RevocationRule: rule, event: event}
	x.rules[event] = r
	switch {
	case !r.Lineage.IsZero():
		x.byLineage[r.Lineage] = append(x.byLineage[r.Lineage], r)
	case r.Principal.Kind == vocab.KindGroup:
		x.byGroup[r.Principal] = append(x.byGroup[r.Principal], r)
	case !r.Principal.IsZero():
		x.byPrincipal[r.Principal] = append(x.byPrincipal[r.Principal], r)
	case !r.Owner.IsZero():
		x.byOwner[r.Owner] = append(x.byOwner[r.Owner], r)
	case !r.Template.IsZero():
		x.byTemplate[r.Template] = append(x.byTemplate[r.Template], r)
	default:
		x.byPeriod.add(r)
	}
}

// Remove takes the rule that an event made out of force.
func (x *RevocationIndex) Remove(event vocab.EventID) {
	r := x.rules[event]
	if r == nil {
		return
	}
	delete(x.rules, event)
	switch {
	case !r.Lineage.IsZero():
		take(x.byLineage, r.Lineage, r)
	case r.Principal.Kind == vocab.KindGroup:
		take(x.byGroup, r.Principal, r)
	case !r.Principal.IsZero():
		take(x.byPrincipal, r.Principal, r)
	case !r.Owner.IsZero():
		take(x.byOwner, r.Owner, r)
	case !r.Template.IsZero():
		take(x.byTemplate, r.Template, r)
	default:
		x.byPeriod.remove(r)
	}
}

func take[K comparable](m map[K][]*indexedRule, k K, r *indexedRule) {
	if m[k] = slices.DeleteFunc(m[k], func(other *indexedRule) bool { return other == r }); len(m[k]) == 0 {
		delete(m, k)
	}
}

// Covering returns the revocations by rule that keep the caller from opening
// the license, the oldest first. Without a caller it returns those that keep
// everybody from it.
func (x *RevocationIndex) Covering(l Revocable, caller *vocab.Identity) []Revocation {
	if len(x.rules) == 0 || l.Policy == nil { // what has no policy opens for nobody
		return nil
	}
	names, moreGroups := suspects(caller)
	var out []Revocation
	for _, r := range x.candidates(&l, names, moreGroups) {
		named := r.Principal.IsZero() || slices.Contains(names, r.Principal)
		unknown := !named && moreGroups && r.Principal.Kind == vocab.KindGroup
		if (named || unknown) && r.CoversLicense(&l) {
			out = append(out, Revocation{Scope: r.Scope(), Event: r.event, GroupsUnknown: unknown})
		}
	}
	slices.SortFunc(out, func(a, b Revocation) int { return a.Event.Compare(b.Event) })
	return slices.CompactFunc(out, func(a, b Revocation) bool { return a.Event == b.Event })
}

// candidates returns every rule that may cover, some perhaps twice.
func (x *RevocationIndex) candidates(l *Revocable, names []vocab.Principal, moreGroups bool) (out []*indexedRule) {
	if l.MoreAncestors {
		for _, rules := range x.byLineage {
			out = append(out, rules...)
		}
	} else if len(x.byLineage) > 0 {
		out = append(out, x.byLineage[l.Content]...)
		for _, a := range l.Ancestors {
			out = append(out, x.byLineage[a]...)
		}
	}
	if moreGroups {
		for _, rules := range x.byGroup {
			out = append(out, rules...)
		}
	}
	for _, n := range names {
		if n.Kind != vocab.KindGroup {
			out = append(out, x.byPrincipal[n]...)
		} else if !moreGroups {
			out = append(out, x.byGroup[n]...)
		}
	}
	out = append(out, x.byOwner[l.Policy.Owner]...)
	out = append(out, x.byTemplate[l.Policy.Template]...)
	return x.byPeriod.at(l.Issued, out)
}

// periods are rules by when they begin, with what makes them a search tree:
// the middle of every part of the array is the root of that part.
type periods struct {
	rules []*indexedRule
	// last is when the last rule of the part ends whose root this is, in ms.
	last []int64
}

// begins and ends are a rule's bounds in ms, the end excluded.
func (r *indexedRule) begins() int64 {
	if r.From.IsZero() {
		return math.MinInt64
	}
	return r.From.UnixMilli()
}

func (r *indexedRule) ends() int64 {
	if r.Until.IsZero() {
		return math.MaxInt64
	}
	return r.Until.UnixMilli()
}

func (p *periods) add(r *indexedRule) {
	i, _ := slices.BinarySearchFunc(p.rules, r.begins(), func(o *indexedRule, from int64) int {
		if o.begins() < from {
			return -1
		}
		return 1
	})
	p.rules = slices.Insert(p.rules, i, r)
	p.build()
}

func (p *periods) remove(r *indexedRule) {
	p.rules = slices.DeleteFunc(p.rules, func(o *indexedRule) bool { return o == r })
	p.build()
}

func (p *periods) build() {
	p.last = slices.Grow(p.last[:0], len(p.rules))[:len(p.rules)]
	p.lastOf(0, len(p.rules))
}

// lastOf works out when the rules from low up to high end, for this part and
// all within.
func (p *periods) lastOf(low, high int) int64 {
	if low == high {
		return math.MinInt64
	}
	root := (low + high) / 2
	p.last[root] = max(p.rules[root].ends(), p.lastOf(low, root), p.lastOf(root+1, high))
	return p.last[root]
}

// at appends the rules whose period an instant is in.
func (p *periods) at(t time.Time, out []*indexedRule) []*indexedRule {
	return p.find(t.UnixMilli(), 0, len(p.rules), out)
}

func (p *periods) find(t int64, low, high int, out []*indexedRule) []*indexedRule {
	if low == high {
		return out
	}
	root := (low + high) / 2
	if p.last[root] <= t {
		return out // all of this part is over
	}
	out = p.find(t, low, root, out)
	if r := p.rules[root]; r.begins() <= t {
		if t < r.ends() {
			out = append(out, r)
		}
		out = p.find(t, root+1, high, out)
	}
	return out
}
