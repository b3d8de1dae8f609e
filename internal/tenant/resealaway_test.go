package tenant_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// Licenses are moved away from a generation whatever its state, but for one that
// is suspended; a compromised one opens for nobody else.
func TestResealAwayFromAGeneration(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		var all []*tenant.Published
		for range 50 {
			all = append(all, o.publish("bob", "", "dan"))
		}
		first := tenant.KeyTarget{Generation: o.number()}
		refused := func(why vocab.Reason, target tenant.KeyTarget) {
			t.Helper()
			if _, err := o.PlanReseal(t.Context(), target); !errors.Is(err, why) {
				t.Errorf("%s, looked at: %v, want %s", target, err, why)
			}
			_, _, _, err := o.Reseal(t.Context(), carla, target, 0)
			if e, ok := errors.AsType[*vocab.Error](err); !ok || e.Reason != why || tenant.Recordable(why) && e.Event.IsZero() {
				t.Errorf("%s: %v, want %s with an event", target, err, why)
			}
		}
		refused(vocab.ReasonKeyInUse, first)
		refused(vocab.ReasonKeyInUse, tenant.KeyTarget{Key: "root", Version: 1})
		refused(vocab.ReasonResourceNotFound, tenant.KeyTarget{Generation: 77})
		refused(vocab.ReasonResourceNotFound, tenant.KeyTarget{Key: "root", Version: 77})
		refused(vocab.ReasonResourceNotFound, tenant.KeyTarget{Key: "other", Version: 1})
		o.newVersion()
		o.settle()
		o.set(first, tenant.Suspend)
		refused(vocab.ReasonKeySuspended, first)
		o.set(first, tenant.Compromise)
		o.opens(person("dan"), item(all[0]), vocab.ReasonKeyState)
		plan, err := o.PlanReseal(t.Context(), first)
		if o.check(err); plan.Licenses != 50 || !slices.Equal(plan.Generations, []uint32{1}) {
			t.Errorf("the plan is %+v", plan)
		}
		v, _, event, err := o.Reseal(t.Context(), carla, first, 0)
		if o.check(err); event.IsZero() || v.Needed != 0 {
			t.Error("it needs somebody's approval, or left no event")
		}
		if again, _, _, err := o.Reseal(t.Context(), carla, first, 0); err != nil || again.ID != v.ID {
			t.Errorf("asked for again: %v", err)
		}
		done := o.eventually(v.ID, operation.Succeeded)
		if done.Progress.Done != 50 || !strings.Contains(done.Result, "50 licenses sealed anew; their files still carry") {
			t.Errorf("%d done: %s", done.Progress.Done, done.Result)
		}
		changes := o.changes(v.ID)
		for _, p := range all {
			if changes[p.License.Record.Content] != 1 {
				t.Fatal("a license has no event of its own")
			}
			o.opens(person("dan"), item(p), "")
		}
		v, plan, event, err = o.Reseal(t.Context(), carla, first, 0)
		if o.check(err); v != nil || plan.Licenses != 0 || event.IsZero() {
			t.Errorf("with nothing to do: %v, %+v", v, plan)
		}
		o.checkStore()
	})
}

// If the active generation is compromised, a reseal makes the one it moves to.
func TestResealMakesAGeneration(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		p := o.publish("bob", "", "dan")
		first := tenant.KeyTarget{Generation: 1}
		o.set(first, tenant.Compromise)
		v, _, _, err := o.Reseal(t.Context(), carla, first, 0)
		o.check(err)
		o.eventually(v.ID, operation.Succeeded)
		o.opens(person("dan"), item(p), "")
		if n := o.number(); n != 2 {
			t.Errorf("generation g%d is active", n)
		}
	})
}

// A suspension in the middle of it stops it between two transactions: nothing is
// moved away from what is suspended.
func TestSuspensionHoldsAResealUp(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		for range 100 {
			o.publish("bob", "", "dan")
		}
		first := tenant.KeyTarget{Generation: 1}
		o.newVersion()
		o.settle()
		v, _, _, err := o.Reseal(t.Context(), carla, first, 10)
		o.check(err)
		time.Sleep(2500 * time.Millisecond)
		o.set(first, tenant.Suspend)
		before := o.look(v.ID).Progress.Done
		time.Sleep(time.Hour)
		now := o.settled(v.ID)
		if now.Progress.Done != before || before < 20 || before > 30 || !errors.Is(now.Waiting, vocab.ReasonKeySuspended) {
			t.Errorf("%d were done at the suspension, %d later; it waits for %v", before, now.Progress.Done, now.Waiting)
		}
		o.set(first, tenant.Resume)
		if done := o.eventually(v.ID, operation.Succeeded); done.Progress.Done != 100 {
			t.Errorf("%d done", done.Progress.Done)
		}
	})
}
