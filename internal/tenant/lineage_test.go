package tenant

import (
	"slices"
	"testing"

	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func numbered(n int) vocab.ContentID { return vocab.ContentID{14: byte(n >> 8), 15: byte(n)} }

// family is a tenant that remembers what documents were made from.
func family(of map[int][]int) *Tenant {
	t := &Tenant{}
	t.parents.of = map[vocab.ContentID][]vocab.ContentID{}
	for c, parents := range of {
		list := []vocab.ContentID{}
		for _, p := range parents {
			list = append(list, numbered(p))
		}
		t.parents.of[numbered(c)] = list
	}
	return t
}

// The walk upwards finds every ancestor once, also where lines meet, ends where
// they stand in a circle, which only damage can make, and does not go on for
// ever.
func TestLineage(t *testing.T) {
	chain := func(n int) map[int][]int {
		of := map[int][]int{n: nil}
		for i := range n {
			of[i] = []int{i + 1}
		}
		return of
	}
	for _, c := range []struct {
		name    string
		of      map[int][]int
		parents []int
		want    []int // nil: not compared
		count   int
		more    bool
	}{
		{name: "nothing", parents: nil, count: 0},
		{name: "a chain", of: chain(3), parents: []int{1}, want: []int{1, 2, 3}, count: 3},
		{name: "lines that meet", of: map[int][]int{1: {3}, 2: {3, 4}, 3: {4}, 4: nil}, parents: []int{1, 2}, want: []int{1, 2, 3, 4}, count: 4},
		{name: "a circle", of: map[int][]int{1: {2}, 2: {1, 2}}, parents: []int{1}, want: []int{1, 2}, count: 2},
		{name: "as many as are looked at", of: chain(maxAncestors), parents: []int{1}, count: maxAncestors},
		{name: "one more", of: chain(maxAncestors + 1), parents: []int{1}, count: maxAncestors, more: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p policy.Policy
			for _, n := range c.parents {
				p.Parents = append(p.Parents, numbered(n))
			}
			got, err := family(c.of).lineageOf(nil, &p)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.ancestors) != c.count || got.more != c.more {
				t.Errorf("%d ancestors, more %v; want %d, %v", len(got.ancestors), got.more, c.count, c.more)
			}
			for _, n := range c.want {
				if !slices.Contains(got.ancestors, numbered(n)) {
					t.Errorf("%d is missing from %v", n, got.ancestors)
				}
			}
		})
	}
}

// Who is suspected is in the groups of each address and name, and so is the
// service that calls for them; what the caller may do hangs on none of that.
func TestSuspectsAreInEveryGroup(t *testing.T) {
	user := func(a string) vocab.Principal { return vocab.Principal{Kind: vocab.KindUser, Value: a} }
	group := func(a string) vocab.Principal { return vocab.Principal{Kind: vocab.KindGroup, Value: a} }
	var d directory.Directory
	d.SetGroup("watched@contoso.test", []vocab.Principal{user("eve@evil.test"), group("partners@fabrikam.test")})
	d.SetGroup("above@contoso.test", []vocab.Principal{group("watched@contoso.test")})
	d.SetGroup("programs@contoso.test", []vocab.Principal{{Kind: vocab.KindService, Value: "dms"}})
	watched := []string{"above@contoso.test", "watched@contoso.test"}
	for name, c := range map[string]struct {
		id            vocab.Identity
		groups, actor []string
	}{
		"an address of no account": {vocab.Identity{Addresses: []string{"eve@fabrikam.test", "eve@evil.test"}}, watched, nil},
		"a group of a group":       {vocab.Identity{Groups: []string{"partners@fabrikam.test"}}, append([]string{"partners@fabrikam.test"}, watched...), nil},
		"a service":                {vocab.Identity{Service: "dms"}, []string{"programs@contoso.test"}, nil},
		"a service that acts": {
			vocab.Identity{Addresses: []string{"bob@contoso.test"}, Actor: &vocab.Identity{Service: "dms"}}, nil, []string{"programs@contoso.test"},
		},
	} {
		before := slices.Clone(c.id.Groups)
		got := suspect(&d, &c.id)
		var actor []string
		if got.Actor != nil {
			actor = got.Actor.Groups
		}
		if !slices.Equal(got.Groups, c.groups) || !slices.Equal(actor, c.actor) {
			t.Errorf("%s: in %v, the service in %v", name, got.Groups, actor)
		}
		if !slices.Equal(c.id.Groups, before) || c.id.Actor != nil && len(c.id.Actor.Groups) > 0 {
			t.Errorf("%s: the caller was changed", name)
		}
	}
}
