// Package directory is the tenant's own directory in memory: who is in which
// group, directly or through other groups, who holds which role, and who is
// disabled. It knows nothing of where that is kept.
//
// A look-up costs as much as the caller has groups, not as much as there are.
package directory

import (
	"fmt"
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// Limits of the directory.
const (
	MaxGroups  = 100_000 // in all
	MaxMembers = 50_000  // of one group
	MaxHolders = 1_000   // of one role
	// MaxDepth is how many groups may stand in one another.
	MaxDepth = 16
)

// Directory is one tenant's. The zero value is empty. It is not safe for
// concurrent use.
type Directory struct {
	groups   map[string][]vocab.Principal // by address
	parents  map[vocab.Principal][]string // the groups a member is in directly, sorted
	holders  map[vocab.Role][]vocab.Principal
	disabled map[vocab.Principal]bool
}

// SetGroup makes members the members of a group, which is made if there is
// none. The caller has checked them with [Directory.CheckGroup].
func (d *Directory) SetGroup(address string, members []vocab.Principal) {
	d.RemoveGroup(address)
	if d.groups == nil {
		d.groups, d.parents = map[string][]vocab.Principal{}, map[vocab.Principal][]string{}
	}
	d.groups[address] = slices.Clone(members)
	for _, m := range members {
		in := d.parents[m]
		if i, found := slices.BinarySearch(in, address); !found {
			d.parents[m] = slices.Insert(in, i, address)
		}
	}
}

// RemoveGroup takes a group away. Groups it is a member of keep it among their
// members: it is then a group that nobody is in.
func (d *Directory) RemoveGroup(address string) {
	for _, m := range d.groups[address] {
		in := d.parents[m]
		if i, found := slices.BinarySearch(in, address); found {
			in = slices.Delete(in, i, i+1)
		}
		if len(in) == 0 {
			delete(d.parents, m)
		} else {
			d.parents[m] = in
		}
	}
	delete(d.groups, address)
}

// Members returns the direct members of a group and whether there is one; the
// caller must not change them.
func (d *Directory) Members(address string) ([]vocab.Principal, bool) {
	m, ok := d.groups[address]
	return m, ok
}

// CheckGroup says why a group may not have these members: the wrong kinds, too
// many, or groups that contain the group itself. Its errors are for people.
func (d *Directory) CheckGroup(address string, members []vocab.Principal) error {
	if _, known := d.groups[address]; !known && len(d.groups) >= MaxGroups {
		return fmt.Errorf("there are %d groups already, as many as there may be", len(d.groups))
	}
	if len(members) > MaxMembers {
		return fmt.Errorf("%d members: at most %d are allowed", len(members), MaxMembers)
	}
	below := 0
	for i, m := range members {
		switch m.Kind {
		case vocab.KindUser, vocab.KindService:
		case vocab.KindGroup:
			if m.Value == address || slices.Contains(d.above(address), m.Value) {
				return fmt.Errorf("%s is in %s already, so it cannot contain it: groups would stand in a circle", address, m.Value)
			}
			below = max(below, d.depth(m.Value))
		default:
			return fmt.Errorf("%s cannot be a member: name users, services and groups", m)
		}
		if i > 0 && members[i-1].Compare(m) >= 0 {
			return fmt.Errorf("the members are not in order, or %s is there twice", m)
		}
	}
	if n := d.height(address) + 1 + below; n > MaxDepth {
		return fmt.Errorf("%d groups would stand in one another: at most %d may", n, MaxDepth)
	}
	return nil
}

// above returns every group that a group is in.
func (d *Directory) above(address string) []string {
	return d.Groups([]vocab.Principal{{Kind: vocab.KindGroup, Value: address}})
}

// height is how many groups stand above a group, at most.
func (d *Directory) height(address string) int {
	n := 0
	for _, p := range d.parents[vocab.Principal{Kind: vocab.KindGroup, Value: address}] {
		n = max(n, 1+d.height(p))
	}
	return n
}

// depth is how many groups stand in one another from a group down, itself
// included.
func (d *Directory) depth(address string) int {
	n := 0
	for _, m := range d.groups[address] {
		if m.Kind == vocab.KindGroup {
			n = max(n, d.depth(m.Value))
		}
	}
	return n + 1
}

// Groups returns the addresses of every group that one of the principals is in,
// directly or through other groups, sorted.
func (d *Directory) Groups(known []vocab.Principal) []string {
	var out []string
	seen := map[string]bool{}
	next := slices.Clone(known)
	for len(next) > 0 {
		p := next[len(next)-1]
		next = next[:len(next)-1]
		for _, g := range d.parents[p] {
			if !seen[g] {
				seen[g] = true
				out = append(out, g)
				next = append(next, vocab.Principal{Kind: vocab.KindGroup, Value: g})
			}
		}
	}
	slices.Sort(out)
	return out
}

// SetHolders makes a role's holders those given; none leave the role to the
// operator's file.
func (d *Directory) SetHolders(role vocab.Role, holders []vocab.Principal) {
	if d.holders == nil {
		d.holders = map[vocab.Role][]vocab.Principal{}
	}
	if d.holders[role] = slices.Clone(holders); len(holders) == 0 {
		delete(d.holders, role)
	}
}

// Holders returns who holds a role; the caller must not change them.
func (d *Directory) Holders(role vocab.Role) []vocab.Principal { return d.holders[role] }

// SetDisabled says whether a principal is disabled.
func (d *Directory) SetDisabled(p vocab.Principal, disabled bool) {
	if d.disabled == nil {
		d.disabled = map[vocab.Principal]bool{}
	}
	if d.disabled[p] = disabled; !disabled {
		delete(d.disabled, p)
	}
}

// Disabled reports whether one of the principals is.
func (d *Directory) Disabled(known []vocab.Principal) bool {
	return len(d.disabled) > 0 && slices.ContainsFunc(known, func(p vocab.Principal) bool { return d.disabled[p] })
}
