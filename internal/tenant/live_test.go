package tenant

import (
	"slices"
	"testing"

	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

func groupOf(t *testing.T, address string, members ...string) *record.Resource {
	t.Helper()
	g := record.Group{}
	for _, m := range members {
		p, err := vocab.ParsePrincipal(m)
		if err != nil {
			t.Fatal(err)
		}
		g.Members = append(g.Members, p)
	}
	body, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &record.Resource{Name: record.PrefixGroups + address, Revision: 1, Body: body}
}

// Commits return to their callers in any order; memory follows the order in
// which they became durable, and never says an epoch that it has not all of.
func TestLiveFollowsTheOrderOfCommits(t *testing.T) {
	const finance = "finance@contoso.test"
	bob := vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.test"}
	first, second := groupOf(t, finance, "user:bob@contoso.test"), groupOf(t, finance)
	third := groupOf(t, "board@contoso.test", "user:bob@contoso.test")

	var l live
	l.take(3, third)
	l.take(2, second)
	if l.epoch != 0 || len(l.directory.Groups([]vocab.Principal{bob})) != 0 {
		t.Fatalf("epoch %d before the first change arrived", l.epoch)
	}
	l.take(1, first)
	if l.epoch != 3 || len(l.pending) != 0 {
		t.Fatalf("epoch %d with %d pending, want 3 with none", l.epoch, len(l.pending))
	}
	if got := l.directory.Groups([]vocab.Principal{bob}); !slices.Equal(got, []string{"board@contoso.test"}) {
		t.Errorf("bob is in %v: the older edit of finance won", got)
	}
}
