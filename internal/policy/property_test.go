package policy_test

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// sequence walks one world through some changes and compares the answers after
// each.
func sequence(d draw) string {
	w := d.world()
	if diff := w.differs(); diff != "" {
		return diff
	}
	for range 1 + d(8) {
		w.step(d)
		if diff := w.differs(); diff != "" {
			return diff
		}
	}
	return ""
}

// TestPropertyModelSequences compares evaluator and model over 100,000 random
// sequences, the same in every run.
func TestPropertyModelSequences(t *testing.T) {
	const sequences = 100_000
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

// FuzzModel lets the fuzzer choose the changes.
func FuzzModel(f *testing.F) {
	f.Add([]byte("any sequence of choices at all, one for each byte"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31})
	f.Fuzz(func(t *testing.T, choices []byte) {
		d := func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			c := int(choices[0]) % n
			choices = choices[1:]
			return c
		}
		if diff := sequence(d); diff != "" {
			t.Fatal(diff)
		}
	})
}

// TestPropertyMonotone: one more grant never takes anything away, and one less
// never gives anything.
func TestPropertyMonotone(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	d := draw(r.IntN)
	for range 20_000 {
		w := d.world()
		for range d(5) {
			w.step(d)
		}
		less := policy.Evaluate(w.input())
		w.grants = append(w.grants, d.grant())
		more := policy.Evaluate(w.input())
		if less.Allowed && !more.Allowed || less.Rights&^more.Rights != 0 {
			t.Fatalf("a grant took something away: %v %q -> %v %q\n%+v", less.Allowed, less.Rights, more.Allowed, more.Rights, *w)
		}
	}
}

// TestPropertyLookupEqualsWalk: a template, which is looked up, and an ad hoc
// policy of the same grants, which is walked, match the same grants.
func TestPropertyLookupEqualsWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	d := draw(r.IntN)
	for range 20_000 {
		w := d.world()
		w.settings.GuestDomains = []string{"fabrikam.com"}
		w.adHoc, w.template, w.custody = false, policy.StatePublished, [3]vocab.CustodyMode{1, 0, 1}
		looked := policy.Evaluate(w.input())
		w.adHoc = true
		walked := policy.Evaluate(w.input())
		if len(looked.Matches) != len(walked.Matches) || looked.Reason != walked.Reason || looked.Rights != walked.Rights || looked.NotAfter != walked.NotAfter {
			t.Fatalf("looked up %+v\nwalked %+v\n%+v", looked, walked, *w)
		}
		for i := range looked.Matches {
			if looked.Matches[i] != walked.Matches[i] {
				t.Fatalf("match %d: %+v, %+v", i, looked.Matches[i], walked.Matches[i])
			}
		}
	}
}

// BenchmarkEvaluate shows that grants that do not match cost nothing: 10 and
// 50,000 of them take the same time.
func BenchmarkEvaluate(b *testing.B) {
	for _, n := range []int{10, 1_000, 50_000} {
		grants := []policy.Grant{{To: vocab.Principal{Kind: vocab.KindGroup, Value: "finance@contoso.com"}, Rights: policy.CoAuthor.Rights()}}
		for i := range n - 1 {
			name := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + string(rune('a'+i/17576)) + "@contoso.com"
			grants = append(grants, policy.Grant{To: vocab.Principal{Kind: vocab.KindUser, Value: name}, Rights: policy.Viewer.Rights()})
		}
		w := world{template: policy.StatePublished, grants: grants, offline: 7 * policy.Day, custody: [3]vocab.CustodyMode{1, 0, 1},
			caller:   vocab.Identity{Member: "contoso", Addresses: addresses[:2], Groups: groups},
			settings: policy.DefaultSettings(), now: t0.Add(time.Hour)}
		in := w.input()
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				if !policy.Evaluate(in).Allowed {
					b.Fatal("refused")
				}
			}
		})
	}
}
