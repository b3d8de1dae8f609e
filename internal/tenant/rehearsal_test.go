package tenant_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// inventory is how many generations the tenant's inventory shows.
func (o *house) inventory() int {
	o.t.Helper()
	all, err := o.Inventory(o.t.Context())
	o.check(err)
	return len(all.Generations)
}

func TestSuspensionIsRehearsedOnACanaryAlone(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		p := o.publish("bob", "", "dan")
		before := o.inventory()
		r, event, err := o.RehearseSuspension(t.Context(), person("carla"))
		o.check(err)
		if r.Generation == 1 || r.Suspend.IsZero() || r.Resume.IsZero() {
			t.Errorf("%+v", r)
		}
		e, err := o.log.Get(t.Context(), o.ID(), event)
		o.check(err)
		if e.Event.Kind != audit.KindRehearsed || e.Event.Reason != "" || !strings.Contains(e.Event.Detail, "stopped within") {
			t.Errorf("the event is %s %s %s", e.Event.Kind, e.Event.Reason, e.Event.Detail)
		}
		o.opens(person("dan"), item(p), "")
		if o.inventory() != before {
			t.Error("the canary is in the inventory of content")
		}
		// The same canary again, also after a restart.
		o.restart()
		again, _, err := o.RehearseSuspension(t.Context(), person("carla"))
		o.check(err)
		if again.Generation != r.Generation {
			t.Errorf("the canary is g%d, was g%d", again.Generation, r.Generation)
		}
		o.publish("bob", "", "dan")
		o.checkStore()
		v := o.evidence(tenant.EvidenceScope{})
		if got := strings.Join(lines(v, "generation g2"), " "); got != "generation-created key-suspended key-resumed rehearsed key-suspended key-resumed rehearsed" {
			t.Errorf("the evidence says %s", got)
		}
	})
}

// A canary never becomes the generation that documents are published under, not
// even if it is resumed while there is none.
func TestACanaryNeverSeals(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		r, _, err := o.RehearseSuspension(t.Context(), person("carla"))
		o.check(err)
		canary, real := tenant.KeyTarget{Generation: r.Generation}, tenant.KeyTarget{Generation: 1}
		for _, target := range []tenant.KeyTarget{canary, real} {
			_, err := o.SetKeyState(t.Context(), person("carla"), target, tenant.Suspend, "")
			o.check(err)
		}
		_, err = o.SetKeyState(t.Context(), person("carla"), canary, tenant.Resume, "")
		o.check(err)
		if _, err := o.Publish(t.Context(), person("bob"), tenant.PublishRequest{AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax, Grants: []policy.Grant{{To: user("dan"), Rights: vocab.RightsOf(vocab.RightView)}}}, To: o.to}); vocab.ReasonOf(err) != vocab.ReasonKeyState {
			t.Errorf("published without an active generation: %v", err)
		}
		// And what is suspended in earnest is told as what it is.
		_, _, err = o.RehearseSuspension(t.Context(), person("carla"))
		if vocab.ReasonOf(err) != vocab.ReasonKeyState {
			t.Errorf("a rehearsal without an active generation: %v", err)
		}
		_, err = o.SetKeyState(t.Context(), person("carla"), real, tenant.Resume, "")
		o.check(err)
		// A canary that was left suspended is resumed first.
		_, err = o.SetKeyState(t.Context(), person("carla"), canary, tenant.Suspend, "")
		o.check(err)
		_, _, err = o.RehearseSuspension(t.Context(), person("carla"))
		o.check(err)
	})
}

func TestRehearsalNeedsTheCustodian(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.custodian.be(func(m *moody) { m.err = vocab.Errorf(vocab.ReasonCustodianUnreachable, "away") })
		_, _, err := o.RehearseSuspension(t.Context(), person("carla"))
		if e, ok := errors.AsType[*vocab.Error](err); !ok || e.Reason != vocab.ReasonCustodianUnreachable || e.Event.IsZero() {
			t.Errorf("%v", err)
		}
	})
}

// watch rehearses the refusal of the key canary, and has it refused after some
// looks.
func (o *house) watch(ctx context.Context, wait time.Duration, refuse func(n int)) (r *tenant.RefusalRehearsal, looks []tenant.Look, err error) {
	began := false
	r, _, err = o.RehearseRefusal(ctx, person("carla"), "canary", wait, func(vocab.EventID) { began = true }, func(l tenant.Look) error {
		if !began {
			o.t.Error("a look was told before the beginning")
		}
		looks = append(looks, l)
		refuse(len(looks))
		return nil
	})
	return r, looks, err
}

func TestRefusalIsSeenAtOnceAndInMemoryWithinThePromise(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		second := o.second()
		_, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: "canary", Custodian: "second"})
		o.check(err)
		p := o.publish("bob", "", "dan")
		var during vocab.Reason
		r, looks, err := o.watch(t.Context(), time.Hour, func(n int) {
			if n == 2 {
				_, _, err := o.RehearseRefusal(t.Context(), person("carla"), "canary", 0, func(vocab.EventID) {}, func(tenant.Look) error { return nil })
				during = vocab.ReasonOf(err)
			}
			if n == 5 {
				second.be(func(m *moody) { m.err = vocab.Errorf(vocab.ReasonCustodianRefused, "no") })
			}
		})
		o.check(err)
		if during != vocab.ReasonOverloaded {
			t.Errorf("a second rehearsal at the same time: %q", during)
		}
		if r.Refused.Sub(r.LastUse) != time.Second || !r.Stopped || r.CachedDelay <= 0 || r.CachedDelay > r.Promised || r.Promised != 5*time.Minute {
			t.Errorf("%+v", r)
		}
		for i, l := range looks {
			if refused := i >= 5; (l.Strict != nil) != refused || refused && vocab.ReasonOf(l.Strict) != vocab.ReasonCustodianRefused {
				t.Errorf("look %d: %v", i, l.Strict)
			}
			if last := i == len(looks)-1; (l.Cached != nil) != last {
				t.Errorf("look %d: in memory %v", i, l.Cached)
			}
		}
		// Nothing but the canary was touched.
		o.opens(person("dan"), item(p), "")
		if s := o.State(); s.Err != nil {
			t.Error(s.Err)
		}
		v := o.evidence(tenant.EvidenceScope{})
		var said []string
		for _, l := range v.History() {
			if l.Kind == "rehearsed" {
				said = append(said, l.Detail)
			}
		}
		if len(said) != 2 || !strings.HasPrefix(said[1], "refused within 1s of the last use; held in memory for ") {
			t.Errorf("the log says %q", said)
		}
	})
}

func TestRefusalThatDoesNotCome(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		second := o.second()
		_, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: "canary", Custodian: "second"})
		o.check(err)
		r, looks, err := o.watch(t.Context(), 30*time.Second, func(n int) {
			if n == 3 { // an outage is no refusal
				second.be(func(m *moody) { m.err = vocab.Errorf(vocab.ReasonCustodianUnreachable, "away") })
			}
		})
		o.check(err)
		if !r.Refused.IsZero() || r.Stopped || len(looks) != 31 {
			t.Errorf("%+v after %d looks", r, len(looks))
		}
		second.be(func(m *moody) { m.err = nil })
		// Whoever leaves ends it, and the log says what was seen.
		ctx, leave := context.WithCancel(t.Context())
		if _, looks, err = o.watch(ctx, time.Hour, func(n int) {
			if n == 4 {
				leave()
			}
		}); !errors.Is(err, context.Canceled) || len(looks) != 4 {
			t.Errorf("%d looks, %v", len(looks), err)
		}
		if got := lines(o.evidence(tenant.EvidenceScope{}), "key canary"); strings.Count(strings.Join(got, " "), "rehearsed") != 4 {
			t.Errorf("the log says %v", got)
		}
	})
}

// Only a key that nothing can depend on is a canary.
func TestACanaryKeyWasNeverActivated(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		second := o.second()
		_, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: "hsm", Custodian: "second"})
		o.check(err)
		try := func(name string) error {
			_, _, err := o.RehearseRefusal(t.Context(), person("carla"), name, time.Minute, func(vocab.EventID) {}, func(tenant.Look) error { return nil })
			return err
		}
		second.be(func(m *moody) { m.err = vocab.Errorf(vocab.ReasonCustodianRefused, "no") })
		if err := try("hsm"); vocab.ReasonOf(err) != vocab.ReasonCustodianRefused {
			t.Errorf("a key that is refused already: %v", err)
		}
		second.be(func(m *moody) { m.err = nil })
		_, _, err = o.ActivateKey(t.Context(), person("carla"), "hsm", false)
		o.check(err)
		for name, want := range map[string]vocab.Reason{
			"root": vocab.ReasonKeyState, "hsm": vocab.ReasonKeyState, "nosuch": vocab.ReasonResourceNotFound,
		} {
			if err := try(name); vocab.ReasonOf(err) != want {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
	})
}
