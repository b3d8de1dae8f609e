package directory

import (
	"fmt"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// CheckGroup says why a group may not have these members: the wrong kinds, too
// many, or groups that contain the group itself. Its errors are for people.
func (d *Directory) CheckGroup(e Edit) error {
	if _, known := d.groups[e.Address]; !known && len(d.groups) >= MaxGroups {
		return fmt.Errorf("there are %d groups already, as many as there may be", len(d.groups))
	}
	if len(e.Members) > MaxMembers {
		return fmt.Errorf("%d members: at most %d are allowed", len(e.Members), MaxMembers)
	}
	below, depths := 0, map[string]int{}
	ways := d.waysUp(e.Address)
	for i, m := range e.Members {
		switch m.Kind {
		case vocab.KindUser, vocab.KindService:
		case vocab.KindGroup:
			if m.Value == e.Address {
				return fmt.Errorf("%s cannot be a member of itself", m.Value)
			}
			if _, above := ways[m.Value]; above {
				return fmt.Errorf("groups would stand in a circle: %s, which is in %s", circle(ways, e.Address, m.Value), e.Address)
			}
			below = max(below, d.depth(m.Value, depths))
		default:
			return fmt.Errorf("%s cannot be a member: name users, services and groups", m)
		}
		if i > 0 && e.Members[i-1].Compare(m) >= 0 {
			return fmt.Errorf("the members are not in order, or %s is there twice", m)
		}
	}
	if n := d.height(e.Address, map[string]int{}) + 1 + below; n > MaxDepth {
		return fmt.Errorf("%d groups would stand in one another: at most %d may", n, MaxDepth)
	}
	return nil
}

// waysUp returns, for every group that a group is in, the group on a shortest
// way from there that is directly in it.
func (d *Directory) waysUp(address string) map[string]string {
	from := map[string]string{}
	for next := []string{address}; len(next) > 0; next = next[1:] {
		for _, p := range d.parents[Group(next[0])] {
			if _, seen := from[p]; !seen {
				from[p] = next[0]
				next = append(next, p)
			}
		}
	}
	return from
}

// circle tells the way from a group up to another.
func circle(ways map[string]string, from, to string) string {
	way := []string{to}
	for at := to; at != from; {
		at = ways[at]
		way = append(way, at)
	}
	slices.Reverse(way)
	first := way[0] + " is in " + way[1]
	return strings.Join(append([]string{first}, way[2:]...), ", which is in ")
}

// height is how many groups stand above a group, at most. What was found out
// is kept in known: groups may be reached in very many ways.
func (d *Directory) height(address string, known map[string]int) int {
	n, found := known[address]
	if found {
		return n
	}
	for _, p := range d.parents[Group(address)] {
		n = max(n, 1+d.height(p, known))
	}
	known[address] = n
	return n
}

// depth is how many groups stand in one another from a group down, itself
// included.
func (d *Directory) depth(address string, known map[string]int) int {
	n, found := known[address]
	if found {
		return n
	}
	for _, m := range d.groups[address] {
		if m.Kind == vocab.KindGroup {
			n = max(n, d.depth(m.Value, known))
		}
	}
	known[address] = n + 1
	return n + 1
}
