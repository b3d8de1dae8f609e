package directory_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/vocab"
)

func principal(t *testing.T, s string) vocab.Principal {
	t.Helper()
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func principals(t *testing.T, list ...string) []vocab.Principal {
	t.Helper()
	var out []vocab.Principal
	for _, s := range list {
		out = append(out, principal(t, s))
	}
	slices.SortFunc(out, vocab.Principal.Compare)
	return out
}

// edit is a group of a test; addresses alone are users.
func edit(t *testing.T, address string, members ...string) directory.Edit {
	t.Helper()
	for i, m := range members {
		if strings.Contains(m, "@") && !strings.Contains(m, ":") {
			members[i] = "user:" + m
		}
	}
	return directory.Edit{Address: address, Members: principals(t, members...)}
}

// built is a directory of groups that were checked.
func built(t *testing.T, groups ...directory.Edit) *directory.Directory {
	t.Helper()
	d := new(directory.Directory)
	for _, g := range groups {
		if err := d.CheckGroup(g); err != nil {
			t.Fatal(err)
		}
		d.SetGroup(g.Address, g.Members)
	}
	return d
}

func TestWhyAGroupCannotBe(t *testing.T) {
	nested := func(t *testing.T) *directory.Directory {
		return built(t,
			edit(t, "interns@x.test", "bob@x.test"),
			edit(t, "staff@x.test", "group:interns@x.test"),
			edit(t, "all@x.test", "group:staff@x.test"))
	}
	many := func(n int) directory.Edit {
		e := directory.Edit{Address: "many@x.test"}
		for i := range n {
			e.Members = append(e.Members, vocab.Principal{Kind: vocab.KindUser, Value: fmt.Sprintf("u%07d@x.test", i)})
		}
		return e
	}
	for _, c := range []struct {
		name string
		edit directory.Edit
		want string // empty: it can
	}{
		{"people and services", edit(t, "new@x.test", "bob@x.test", "service:dms", "group:all@x.test"), ""},
		{"nobody", edit(t, "new@x.test"), ""},
		{"a group nobody made", edit(t, "new@x.test", "group:elsewhere@x.test"), ""},
		{"itself", edit(t, "new@x.test", "group:new@x.test"), "new@x.test cannot be a member of itself"},
		{
			"a circle of two", edit(t, "interns@x.test", "group:staff@x.test"),
			"groups would stand in a circle: interns@x.test is in staff@x.test, which is in interns@x.test",
		},
		{
			"a circle of three", edit(t, "interns@x.test", "group:all@x.test"),
			"groups would stand in a circle: interns@x.test is in staff@x.test, which is in all@x.test, which is in interns@x.test",
		},
		{"a domain", edit(t, "new@x.test", "domain:x.test"), "domain:x.test cannot be a member: name users, services and groups"},
		{"a tenant", edit(t, "new@x.test", "tenant:contoso"), "tenant:contoso cannot be a member"},
		{"anyone", edit(t, "new@x.test", "anyone"), "anyone cannot be a member"},
		{"the same twice", edit(t, "new@x.test", "bob@x.test", "bob@x.test"), "user:bob@x.test is there twice"},
		{"as many as may be", many(directory.MaxMembers), ""},
		{"one too many", many(directory.MaxMembers + 1), "50001 members: at most 50000 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := nested(t).CheckGroup(c.edit)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// A circle is found also through a group that is not there yet.
func TestCircleThroughAGroupToCome(t *testing.T) {
	d := built(t, edit(t, "a@x.test", "group:b@x.test"))
	if err := d.CheckGroup(edit(t, "b@x.test", "group:a@x.test")); err == nil {
		t.Error("a and b contain each other")
	}
	d.SetGroup("b@x.test", principals(t, "user:bob@x.test"))
	d.RemoveGroup("b@x.test")
	if err := d.CheckGroup(edit(t, "b@x.test", "group:a@x.test")); err == nil {
		t.Error("a and b contain each other after b was there and gone")
	}
}

func TestHowDeepGroupsStand(t *testing.T) {
	address := func(i int) string { return fmt.Sprintf("g%d@x.test", i) }
	chain := func(t *testing.T, from, to int) (out []directory.Edit) { // from contains from+1 …
		for i := to; i >= from; i-- {
			e := edit(t, address(i), "bob@x.test")
			if i < to {
				e = edit(t, address(i), "group:"+address(i+1))
			}
			out = append(out, e)
		}
		return out
	}
	d := built(t, chain(t, 1, directory.MaxDepth)...)
	if err := d.CheckGroup(edit(t, "top@x.test", "group:"+address(1))); err == nil {
		t.Errorf("%d groups stand in one another", directory.MaxDepth+1)
	}
	if err := d.CheckGroup(edit(t, address(directory.MaxDepth), "group:below@x.test")); err == nil {
		t.Error("one more below the last")
	}
	// In the middle both sides count.
	d = built(t, append(chain(t, 1, 8), chain(t, 11, 18)...)...)
	if err := d.CheckGroup(edit(t, address(8), "group:"+address(11))); err != nil {
		t.Errorf("eight in eight: %v", err)
	}
	if err := d.CheckGroup(edit(t, address(8), "group:middle@x.test", "group:"+address(11))); err != nil {
		t.Errorf("eight in eight, and another: %v", err)
	}
	if err := d.CheckGroup(edit(t, "middle@x.test", "group:"+address(11))); err != nil {
		t.Fatal(err)
	}
	d.SetGroup("middle@x.test", principals(t, "group:"+address(11)))
	if err := d.CheckGroup(edit(t, address(8), "group:middle@x.test")); err == nil || !strings.Contains(err.Error(), "17 groups would stand in one another: at most 16 may") {
		t.Errorf("eight in one in eight: %v", err)
	}
}

// Groups that reach each other in very many ways are looked at once each: this
// test would not end otherwise.
func TestManyWays(t *testing.T) {
	d := new(directory.Directory)
	const wide = 20
	address := func(level, i int) string { return fmt.Sprintf("l%02d-%02d@x.test", level, i) }
	for level := range directory.MaxDepth {
		for i := range wide {
			members := []string{"bob@x.test"}
			if level > 0 {
				members = nil
				for j := range wide {
					members = append(members, "group:"+address(level-1, j))
				}
			}
			e := edit(t, address(level, i), members...)
			if err := d.CheckGroup(e); err != nil {
				t.Fatal(err)
			}
			d.SetGroup(e.Address, e.Members)
		}
	}
	if got := len(d.Groups(principals(t, "user:bob@x.test"))); got != wide*directory.MaxDepth {
		t.Errorf("bob is in %d groups, want %d", got, wide*directory.MaxDepth)
	}
	if err := d.CheckGroup(edit(t, address(0, 0), "bob@x.test")); err != nil {
		t.Error(err)
	}
	if people := d.PeopleAfter(directory.Edit{}, []string{address(directory.MaxDepth-1, 0)}); len(people) != 1 {
		t.Errorf("in the topmost group are %v", people)
	}
}

func TestWhatTheDirectoryKnowsOfRoles(t *testing.T) {
	var d directory.Directory
	if _, known := d.Holders(vocab.RoleAuditor); known {
		t.Error("an empty directory knows a role")
	}
	erin := principals(t, "user:erin@x.test")
	d.SetHolders(vocab.RoleAuditor, erin)
	if got, known := d.Holders(vocab.RoleAuditor); !known || !slices.Equal(got, erin) {
		t.Errorf("%v, %v", got, known)
	}
	d.SetHolders(vocab.RoleAuditor, nil)
	if got, known := d.Holders(vocab.RoleAuditor); !known || len(got) != 0 {
		t.Errorf("of a role that is nobody's: %v, %v", got, known)
	}
	d.RemoveHolders(vocab.RoleAuditor)
	if _, known := d.Holders(vocab.RoleAuditor); known {
		t.Error("a removed role is known")
	}
}

func TestDisabled(t *testing.T) {
	var d directory.Directory
	bob, both := principals(t, "user:bob@x.test"), principals(t, "user:bob@x.test", "user:robert@x.test")
	d.SetDisabled(principal(t, "user:robert@x.test"), true)
	if d.Disabled(bob) || !d.Disabled(both) {
		t.Error("one disabled address is enough, and no other counts")
	}
	d.SetDisabled(principal(t, "user:robert@x.test"), false)
	if d.Disabled(both) {
		t.Error("enabled again, and still disabled")
	}
}

func TestDiff(t *testing.T) {
	joined, left := directory.Diff(principals(t, "user:a@x.test", "user:b@x.test", "group:b@x.test"), principals(t, "user:b@x.test", "user:c@x.test", "service:dms"))
	if diff := cmp.Diff(principals(t, "user:c@x.test", "service:dms"), joined); diff != "" {
		t.Errorf("joined: %s", diff)
	}
	if diff := cmp.Diff(principals(t, "user:a@x.test", "group:b@x.test"), left); diff != "" {
		t.Errorf("left: %s", diff)
	}
}
