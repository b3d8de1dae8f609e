// Package directory is the tenant's own directory in memory: who is in which
// group, directly or through other groups, who holds which role, and who is
// disabled. It knows nothing of where that is kept.
//
// A look-up costs as much as the caller has groups, not as much as there are.
package directory

import (
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

// Edit is a group as it would be after an edit; without members also as after
// its deletion. The zero Edit changes nothing.
type Edit struct {
	Address string
	Members []vocab.Principal // sorted, without doubles
}

// SetGroup makes members the members of a group, which is made if there is
// none. The caller has checked them with [Directory.CheckGroup].
func (d *Directory) SetGroup(address string, members []vocab.Principal) {
	if d.groups == nil {
		d.groups, d.parents = map[string][]vocab.Principal{}, map[vocab.Principal][]string{}
	}
	d.relink(address, members)
	d.groups[address] = slices.Clone(members)
}

// RemoveGroup takes a group away. Groups it is a member of keep it among their
// members: it is then a group that nobody is in.
func (d *Directory) RemoveGroup(address string) {
	d.relink(address, nil)
	delete(d.groups, address)
}

// relink makes the parents of those who join and leave a group follow.
func (d *Directory) relink(address string, members []vocab.Principal) {
	joined, left := Diff(d.groups[address], members)
	for _, m := range left {
		in := d.parents[m]
		if i, found := slices.BinarySearch(in, address); found {
			in = slices.Delete(in, i, i+1)
		}
		if d.parents[m] = in; len(in) == 0 {
			delete(d.parents, m)
		}
	}
	for _, m := range joined {
		in := d.parents[m]
		if i, found := slices.BinarySearch(in, address); !found {
			d.parents[m] = slices.Insert(in, i, address)
		}
	}
}

// Diff returns who is only in the second list, and who only in the first, both
// in order. The lists must be sorted and without doubles.
func Diff(before, after []vocab.Principal) (joined, left []vocab.Principal) {
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(before) == 0 || len(after) > 0 && after[0].Compare(before[0]) < 0:
			joined, after = append(joined, after[0]), after[1:]
		case len(after) == 0 || before[0].Compare(after[0]) < 0:
			left, before = append(left, before[0]), before[1:]
		default:
			before, after = before[1:], after[1:]
		}
	}
	return joined, left
}

// Members returns the direct members of a group and whether there is one; the
// caller must not change them.
func (d *Directory) Members(address string) ([]vocab.Principal, bool) {
	m, ok := d.groups[address]
	return m, ok
}

// DirectGroups returns the groups that a principal is a member of by itself,
// sorted; the caller must not change them.
func (d *Directory) DirectGroups(p vocab.Principal) []string { return d.parents[p] }

// Groups returns the addresses of every group that one of the principals is in,
// directly or through other groups, sorted.
func (d *Directory) Groups(known []vocab.Principal) []string { return d.GroupsAfter(Edit{}, known) }

// GroupsAfter is [Directory.Groups] as it would be after an edit.
func (d *Directory) GroupsAfter(e Edit, known []vocab.Principal) []string {
	var out []string
	seen := map[string]bool{}
	next := slices.Clone(known)
	add := func(g string) {
		if !seen[g] {
			seen[g] = true
			out = append(out, g)
			next = append(next, Group(g))
		}
	}
	for len(next) > 0 {
		p := next[len(next)-1]
		next = next[:len(next)-1]
		for _, g := range d.parents[p] {
			if g != e.Address {
				add(g)
			}
		}
		if _, in := slices.BinarySearchFunc(e.Members, p, vocab.Principal.Compare); in {
			add(e.Address)
		}
	}
	slices.Sort(out)
	return out
}

// PeopleAfter returns the users and services that are in one of the groups
// after an edit, directly or through other groups, in no order.
func (d *Directory) PeopleAfter(e Edit, groups []string) (people []vocab.Principal) {
	seen := map[vocab.Principal]bool{}
	next := slices.Clone(groups)
	for len(next) > 0 {
		g := next[len(next)-1]
		next = next[:len(next)-1]
		members := d.groups[g]
		if g == e.Address {
			members = e.Members
		}
		for _, m := range members {
			switch {
			case seen[m]:
				continue
			case m.Kind == vocab.KindGroup:
				next = append(next, m.Value)
			default:
				people = append(people, m)
			}
			seen[m] = true
		}
	}
	return people
}

// Group is the principal of a group.
func Group(address string) vocab.Principal {
	return vocab.Principal{Kind: vocab.KindGroup, Value: address}
}

// SetHolders makes a role's holders those given, which may be nobody.
func (d *Directory) SetHolders(role vocab.Role, holders []vocab.Principal) {
	if d.holders == nil {
		d.holders = map[vocab.Role][]vocab.Principal{}
	}
	d.holders[role] = slices.Clone(holders)
}

// RemoveHolders forgets a role, so that the directory knows nothing of it.
func (d *Directory) RemoveHolders(role vocab.Role) { delete(d.holders, role) }

// Holders returns who holds a role, and whether the directory knows the role:
// one it knows may be nobody's. The caller must not change them.
func (d *Directory) Holders(role vocab.Role) (holders []vocab.Principal, known bool) {
	holders, known = d.holders[role]
	return holders, known
}

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
