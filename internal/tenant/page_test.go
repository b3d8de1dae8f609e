package tenant

import (
	"fmt"
	"testing"

	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/vocab"
)

func TestPagesEndEarly(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit int
		items []int // their bytes
		want  int
		more  bool
	}{
		{"all", 3, []int{1, 2, 3}, 3, false},
		{"as many as asked for", 2, []int{1, 2, 3}, 2, true},
		{"the first whatever its length", 10, []int{10 * maxPageBytes, 1}, 1, true},
		{"no more than fits", 10, []int{maxPageBytes / 2, maxPageBytes / 2, 1}, 2, true},
		{"none", 3, nil, 0, false},
	} {
		p := page{limit: c.limit}
		got := 0
		for _, n := range c.items {
			if !p.fits(n) {
				break
			}
			got++
		}
		if got != c.want || p.more != c.more {
			t.Errorf("%s: %d items, more %v; want %d, %v", c.name, got, p.more, c.want, c.more)
		}
	}
}

// What an edit changes is told up to a length that clients take, however many
// groups there are to name.
func TestChangesToldAreBounded(t *testing.T) {
	tn := new(Tenant)
	bob := vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.test"}
	long := func(i int) string { return fmt.Sprintf("group-with-quite-a-long-name-%05d@department.contoso.test", i) }
	for i := range 5_000 {
		tn.live.directory.SetGroup(long(i), []vocab.Principal{directory.Group("x@contoso.test")})
	}
	var many []vocab.Principal
	for i := range 50 {
		many = append(many, vocab.Principal{Kind: vocab.KindUser, Value: fmt.Sprintf("u%02d@contoso.test", i)})
	}
	e := directory.Edit{Address: "x@contoso.test", Members: many}
	told, bytes := tn.membershipChanges(e, many, nil), 0
	for _, c := range told {
		if len(c.Joins) != 5_001 {
			t.Errorf("%s joins %d groups", c.Principal, len(c.Joins))
		}
		bytes += length(c.Joins)
	}
	if len(told) == 0 || len(told) == len(many) || bytes > maxChangeBytes {
		t.Errorf("%d of %d changes are told in %d bytes", len(told), len(many), bytes)
	}
	tn.live.directory.SetGroup("x@contoso.test", []vocab.Principal{bob})
	if got := named(tn.within(bob)); len(got) != MaxNamed || got[0] != long(0) {
		t.Errorf("%d groups are named, from %s", len(got), got[0])
	}
}
