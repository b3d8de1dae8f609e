package bench

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// What BenchmarkScale has few and many of.
const (
	fewGrants     = 10
	manyGrants    = policy.MaxTemplateGrants
	manyTemplates = 10_000
	manyGroups    = 10_000
	scaleDocs     = 64 // of each template that is measured
	turn          = 64 // calls on one side before the next has its turn
	rounds        = 8  // in which every side has its turn, at the least
)

// side is one side of a comparison: a template in a world, and what each turn of
// calls about it has cost.
type side struct {
	name      string // without blanks
	world     *world
	template  string
	calls     uint64
	cpu, took []time.Duration
}

// BenchmarkScale opens, refuses and protects where there is much that does not
// match: 50,000 grants instead of 10, 10,000 templates instead of two, 10,000
// groups beside the caller's three. The sides take turns within one run, so that what the machine does meanwhile
// happens to all of them; the ratios to the first are what it is about.
//
// An ad hoc policy has no such promise: it is part of the document's record,
// which is read and verified whole. What that costs is measured beside it.
func BenchmarkScale(b *testing.B) {
	_ = syncTime(b) // ends it where nothing is durable
	var sides, adHoc []*side
	for _, c := range []struct {
		name  string
		sides *[]*side // made for the first case that is asked for
		make  func(testing.TB) []*side
		call  func(*world, context.Context, string, uint64) (reply, error)
	}{
		{"acquire", &sides, scaleSides, (*world).acquire},
		{"refused", &sides, scaleSides, (*world).refused},
		{"publish", &sides, scaleSides, (*world).publish},
		{"acquire-ad-hoc", &adHoc, adHocSides, (*world).acquire},
	} {
		b.Run(c.name, func(inner *testing.B) {
			if *c.sides == nil {
				*c.sides = c.make(b)
			}
			compare(inner, *c.sides, func(ctx context.Context, s *side, n uint64) error {
				_, err := c.call(s.world, ctx, s.template, n)
				return err
			})
		})
	}
	for _, s := range sides {
		say("%-40s peak memory of rmsd: %s", s.name, s.world.peakMemory())
	}
}

// scaleSides makes what is compared. Whatever else there can be much of becomes
// another side here.
func scaleSides(b testing.TB) []*side {
	b.Helper()
	var sides []*side
	for _, others := range []struct{ templates, groups int }{{0, 0}, {manyTemplates, 0}, {0, manyGroups}} {
		if others.groups > 0 && *inprocess {
			say("no sides with %d groups: their store is made while the service is stopped", others.groups)
			continue
		}
		w := start(b, rmsdtest.Embedded)
		w.signIn(b)
		w.makeBobsGroups(b)
		if others.groups > 0 {
			w.restartWith(b, func(s store.Store) error { return seedGroups(b.Context(), s, w.site.TenantID, others.groups) })
		}
		each(b, others.templates, func(i int) error {
			return w.makeTemplate(b.Context(), fmt.Sprintf("other-%d", i), rmsv1.CustodyMode_CUSTODY_MODE_CACHED, fewGrants)
		})
		// Now all are kept compiled, as they are where all are in use.
		if _, err := w.alice.ListUsableTemplates(b.Context(), &rmsv1.ListUsableTemplatesRequest{Parent: rmsdtest.Parent}, w.alice.sign); err != nil {
			b.Fatal(err)
		}
		for _, grants := range []int{fewGrants, manyGrants} {
			template := fmt.Sprintf("with-%d", grants)
			if err := w.makeTemplate(b.Context(), template, rmsv1.CustodyMode_CUSTODY_MODE_CACHED, grants); err != nil {
				b.Fatal(err)
			}
			w.protectAll(b, template, scaleDocs)
			sides = append(sides, &side{
				name: fmt.Sprintf("%d-grants-%d-templates-%d-groups", grants, 2+others.templates, 3+others.groups), world: w, template: template,
			})
		}
	}
	return sides
}

// adHocSides are documents with rights of their own instead of a template.
func adHocSides(b testing.TB) []*side {
	b.Helper()
	w := start(b, rmsdtest.Embedded)
	w.signIn(b)
	var sides []*side
	for _, n := range []int{fewGrants, grants, policy.MaxAdHocGrants} {
		name := fmt.Sprintf("%d-grants", n)
		for i := range uint64(scaleDocs) {
			d, err := w.protect(b.Context(), adHoc(n), i)
			if err != nil {
				b.Fatal(err)
			}
			w.docs[name] = append(w.docs[name], d)
		}
		sides = append(sides, &side{name: name, world: w, template: name})
	}
	return sides
}

// compare has the sides take turns and reports what a call costs on each, as a
// ratio to the first: processor time of rmsd, and time on the clock. Of all
// turns the median counts.
func compare(b *testing.B, sides []*side, call func(ctx context.Context, s *side, n uint64) error) {
	b.Helper()
	once := func(s *side) {
		cpu, began := s.world.cpu(), time.Now()
		each(b, turn, func(i int) error { return call(b.Context(), s, s.calls+uint64(i)) })
		s.calls += turn
		s.cpu, s.took = append(s.cpu, s.world.cpu()-cpu), append(s.took, time.Since(began))
	}
	for _, s := range sides {
		once(s) // so that whatever is kept is there
		s.cpu, s.took = nil, nil
	}
	for b.Loop() {
		for round := range rounds {
			for i := range sides { // not always the same one after the same
				once(sides[(round+i)%len(sides)])
			}
		}
	}
	b.ReportMetric(0, "ns/op") // of all sides together: says nothing
	first := sides[0]
	micros := func(of []time.Duration) float64 { return float64(median(of).Microseconds()) / turn }
	say("%s", b.Name())
	say("%-40s %.0f µs of processor and %.0f µs on the clock a call, in %d turns of %d calls: 1", first.name, micros(first.cpu), micros(first.took), len(first.took), turn)
	for _, s := range sides[1:] {
		took := micros(s.took) / micros(first.took)
		b.ReportMetric(took, "clock-"+s.name)
		if *inprocess { // then the processor's time is the callers' too
			say("%-40s %.2f on the clock", s.name, took)
			continue
		}
		cpu := micros(s.cpu) / micros(first.cpu)
		b.ReportMetric(cpu, "cpu-"+s.name)
		say("%-40s %.2f of the processor, %.2f on the clock", s.name, cpu, took)
	}
}

func median(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}
