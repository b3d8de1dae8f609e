package directory_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/vocab"
)

// model is the directory as one would write it without a thought for its cost:
// nothing but who is directly in what.
type model map[string][]vocab.Principal

// with is the model after an edit.
func (m model) with(e directory.Edit) model {
	next := maps.Clone(m)
	next[e.Address] = e.Members
	return next
}

// groups are all that one of the principals is in: looked for until nothing new
// is found.
func (m model) groups(known []vocab.Principal) []string {
	in := map[string]bool{}
	for grown := true; grown; {
		grown = false
		for address, members := range m {
			if in[address] {
				continue
			}
			for _, p := range members {
				if slices.Contains(known, p) || p.Kind == vocab.KindGroup && in[p.Value] {
					in[address], grown = true, true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(in))
}

// people are the users and services that any of the groups is a group of.
func (m model) people(groups []string) (out []vocab.Principal) {
	for _, members := range m {
		for _, p := range members {
			in := m.groups([]vocab.Principal{p})
			if p.Kind != vocab.KindGroup && !slices.Contains(out, p) && slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(in, g) }) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, vocab.Principal.Compare)
	return out
}

// longest is how many groups stand in one another at most; where that is more
// than may be, as in a circle, it is any number above.
func (m model) longest() int {
	all := map[string]bool{}
	for address, members := range m {
		all[address] = true
		for _, p := range members {
			if p.Kind == vocab.KindGroup {
				all[p.Value] = true
			}
		}
	}
	// level[g] is the longest way down from g that was found so far; each round
	// finds the ways that are one longer.
	level := map[string]int{}
	for g := range all {
		level[g] = 1
	}
	deepest := 0
	for grown := true; grown && deepest <= directory.MaxDepth; {
		grown = false
		for g := range all {
			for _, p := range m[g] {
				if p.Kind == vocab.KindGroup && level[p.Value] >= level[g] {
					level[g], grown = level[p.Value]+1, true
				}
			}
			deepest = max(deepest, level[g])
		}
	}
	return deepest
}

// may reports whether a group may have these members.
func (m model) may(e directory.Edit) bool {
	return m.with(e).longest() <= directory.MaxDepth
}

// draw chooses a number below n.
type draw func(n int) int

// world is a directory and its model, which live through the same.
type world struct {
	d     directory.Directory
	m     model
	count int // groups there may be
}

func (w *world) address(i int) string { return fmt.Sprintf("g%d@x.test", i) }

// someone is a member to be: a user, a service, or a group; groups are often the
// next one, so that they come to stand deep.
func (w *world) someone(d draw, of int) vocab.Principal {
	switch d(6) {
	case 0:
		return vocab.Principal{Kind: vocab.KindService, Value: fmt.Sprintf("s%d", d(3))}
	case 1, 2:
		return vocab.Principal{Kind: vocab.KindUser, Value: fmt.Sprintf("u%d@x.test", d(5))}
	case 3, 4:
		return directory.Group(w.address((of + 1) % w.count))
	}
	return directory.Group(w.address(d(w.count)))
}

func (w *world) edit(d draw) directory.Edit {
	i := d(w.count)
	e := directory.Edit{Address: w.address(i)}
	for range d(5) {
		e.Members = append(e.Members, w.someone(d, i))
	}
	slices.SortFunc(e.Members, vocab.Principal.Compare)
	e.Members = slices.Compact(e.Members)
	return e
}

// step changes both, or shows that they differ.
func (w *world) step(d draw) string {
	if d(5) == 0 {
		address := w.address(d(w.count))
		w.d.RemoveGroup(address)
		delete(w.m, address)
		return ""
	}
	e := w.edit(d)
	err := w.d.CheckGroup(e)
	if may := w.m.may(e); (err == nil) != may {
		return fmt.Sprintf("%s with %v: the check says %v, the model that it may: %v", e.Address, e.Members, err, may)
	}
	if err != nil {
		return ""
	}
	known := []vocab.Principal{w.someone(d, 0)}
	if got, want := w.d.GroupsAfter(e, known), w.m.with(e).groups(known); !slices.Equal(got, want) {
		return fmt.Sprintf("%v after an edit of %s is in %v, by the model in %v", known, e.Address, got, want)
	}
	which := []string{w.address(d(w.count))}
	got := w.d.PeopleAfter(e, which)
	slices.SortFunc(got, vocab.Principal.Compare)
	if want := w.m.with(e).people(which); !slices.Equal(got, want) {
		return fmt.Sprintf("after an edit of %s in %v are %v, by the model %v", e.Address, which, got, want)
	}
	w.set(e)
	return ""
}

func (w *world) set(e directory.Edit) {
	w.d.SetGroup(e.Address, e.Members)
	w.m[e.Address] = e.Members
}

// differs compares what both know of some callers.
func (w *world) differs(d draw) string {
	for range 2 {
		known := []vocab.Principal{w.someone(d, 0), w.someone(d, 1)}
		if got, want := w.d.Groups(known), w.m.groups(known); !slices.Equal(got, want) {
			return fmt.Sprintf("%v is in %v, by the model in %v, of %v", known, got, want, w.m)
		}
		var direct []string
		for address, members := range w.m {
			if slices.Contains(members, known[0]) {
				direct = append(direct, address)
			}
		}
		slices.Sort(direct)
		if got := w.d.DirectGroups(known[0]); !slices.Equal(got, direct) {
			return fmt.Sprintf("%v is directly in %v, by the model in %v", known[0], got, direct)
		}
	}
	return ""
}

func sequence(d draw) string {
	w, steps := &world{m: model{}, count: 1 + d(6)}, 1+d(8)
	if d(20) == 0 { // groups stand nearly as deep as they may
		w.count, steps = 20, 20
		for i := range directory.MaxDepth - 2 {
			w.set(directory.Edit{Address: w.address(i), Members: []vocab.Principal{directory.Group(w.address(i + 1))}})
		}
	}
	for range steps {
		if diff := w.step(d); diff != "" {
			return diff
		}
		if diff := w.differs(d); diff != "" {
			return diff
		}
	}
	return ""
}

// TestPropertyModelSequences compares the directory with the model over 100,000
// random sequences of edits, the same in every run.
func TestPropertyModelSequences(t *testing.T) {
	sequences := 100_000
	if testing.Short() {
		sequences /= 10
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range sequences {
		if diff := sequence(r.IntN); diff != "" {
			t.Fatalf("sequence %d: %s", i, diff)
		}
	}
}

// TestPropertyModelShrinking does the same with other seeds at each run, and
// reduces what it finds to a small example.
func TestPropertyModelShrinking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "draw") }
		if diff := sequence(d); diff != "" {
			t.Fatal(diff)
		}
	})
}

// BenchmarkGroups shows that groups a caller is not in cost nothing.
func BenchmarkGroups(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		var d directory.Directory
		for i := range n {
			d.SetGroup(fmt.Sprintf("g%d@x.test", i), []vocab.Principal{{Kind: vocab.KindUser, Value: fmt.Sprintf("u%d@x.test", i)}})
		}
		known := []vocab.Principal{{Kind: vocab.KindUser, Value: "u1@x.test"}, {Kind: vocab.KindDomain, Value: "x.test"}}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if len(d.Groups(known)) != 1 {
					b.Fatal("not found")
				}
			}
		})
	}
}
