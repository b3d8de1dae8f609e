package tenant_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

var carla = person("carla") // keeps keys

var (
	unreachable   = vocab.Errorf(vocab.ReasonCustodianUnreachable, "unreachable by the test")
	refusedByTest = vocab.Errorf(vocab.ReasonCustodianRefused, "refused by the test")
)

// custody sets the custody of the whole tenant.
func (o *house) custody(mode vocab.CustodyMode) {
	o.t.Helper()
	_, _, err := o.UpdateSettings(o.t.Context(), person("alice"), 0, true, func(s *record.Settings) error { s.Custody = mode; return nil })
	o.check(err)
}

// newVersion makes a new version of the first key and returns the rewrap that follows
// from it, zero if none does.
func (o *house) newVersion() vocab.OperationID {
	o.t.Helper()
	time.Sleep(time.Second) // two keys of one millisecond have no order
	_, err := o.ringOf().RotateRoot(o.t.Context())
	o.check(err)
	_, _, err = o.SyncKey(o.t.Context(), carla, "root", nil)
	o.check(err)
	return o.RewrapOf()
}

// set moves a key, a version or a generation to a state.
func (o *house) set(target tenant.KeyTarget, m tenant.Move) {
	o.t.Helper()
	_, err := o.SetKeyState(o.t.Context(), carla, target, m, "a test")
	o.check(err)
}

// row returns a license's record.
func (o *house) row(p *tenant.Published) *record.License {
	o.t.Helper()
	l, err := o.GetLicense(o.t.Context(), p.License.Record.Content, func(vocab.Principal) error { return nil })
	o.check(err)
	return l.Record
}

// version is that of the key which wraps a license's own generation.
func (o *house) version(p *tenant.Published) uint32 {
	o.t.Helper()
	w, err := license.ParseWrap(o.row(p).Wrap)
	o.check(err)
	return w.L0Version
}

// under says which licenses depend on which version, by the inventory.
func (o *house) strictUnder() map[uint32]int64 {
	o.t.Helper()
	inv, err := o.Inventory(o.t.Context())
	o.check(err)
	out := map[uint32]int64{}
	for _, v := range inv.Versions {
		if v.Strict > 0 {
			out[v.Number] += v.Strict
		}
	}
	return out
}

// number is that of the active generation.
func (o *house) number() uint32 {
	o.t.Helper()
	inv, err := o.Inventory(o.t.Context())
	o.check(err)
	for _, g := range inv.Generations {
		if g.State == keys.Active {
			return g.Number
		}
	}
	o.t.Fatal("no generation is active")
	return 0
}

// alarms counts the alarms with a reason.
func (o *house) alarms(r vocab.Reason) (n int) {
	o.t.Helper()
	entries, _, err := o.log.List(o.t.Context(), o.ID(), audit.Filter{Kinds: []audit.Kind{audit.KindAlarm}}, audit.Cursor{}, 1000)
	o.check(err)
	for _, e := range entries {
		if e.Event.Reason == r && e.Event.Alarm {
			n++
		}
	}
	return n
}

// After a rotation everything moves to the new version, whatever the moment the
// daemon dies at: each license once, with an event of its own; and then the old
// version can go.
func TestRotationRewraps(t *testing.T) {
	for n := range int64(9) {
		inOffice(t, func(t *testing.T, o *house) {
			cached := o.publish("bob", "", "dan")
			o.custody(vocab.CustodyStrict)
			o.settled(o.reseal())
			var all []*tenant.Published
			for range 60 {
				all = append(all, o.publish("bob", "", "dan"))
			}
			all = append(all, cached)
			for range 3 { // in the old generations nothing is left, yet they are moved
				o.newVersion()
				o.settle()
			}
			id := o.newVersion()
			if id.IsZero() {
				t.Fatal("a rotation started nothing")
			}
			o.store.kill(n)
			time.Sleep(time.Second)
			o.restart()
			done := o.eventually(id, operation.Succeeded)
			if done.Requester.Name != "carla@contoso.test" || done.Progress.Failures != 0 || done.Progress.Done != done.Progress.Total {
				t.Errorf("killed after %d transactions: %+v", n, done.Progress)
			}
			changes := o.changes(id)
			for _, p := range all {
				if got := o.version(p); got != 5 || changes[p.License.Record.Content] != 1 {
					t.Fatalf("killed after %d transactions: a license is under version %d, written %d times", n, got, changes[p.License.Record.Content])
				}
			}
			plan, err := o.PlanRewrap(t.Context())
			if o.check(err); plan.Generations+int(plan.Licenses)+len(plan.Left) != 0 {
				t.Errorf("killed after %d transactions: %+v is left", n, plan)
			}
			for v := range uint32(4) {
				o.check(o.ringOf().Destroy(t.Context(), v+1))
			}
			o.restart()
			for i, p := range all {
				if i%10 == 0 || p == cached {
					o.opens(person("dan"), item(p), "")
				}
			}
			o.checkStore()
		})
	}
}

// settle waits until no rewrap goes on.
func (o *house) settle() {
	o.t.Helper()
	for id := o.RewrapOf(); !id.IsZero(); id = o.RewrapOf() {
		o.eventually(id, operation.Succeeded)
	}
}

// reseal is the reseal that goes on or has ended last.
func (o *house) reseal() vocab.OperationID {
	o.t.Helper()
	list, _, err := o.ListOperations(o.t.Context(), person("erin").Caller, tenant.OperationFilter{Kind: operation.Reseal}, vocab.OperationID{}, 1)
	o.check(err)
	if len(list) == 0 {
		o.t.Fatal("there is no reseal")
	}
	return list[0].ID
}

// A rewrap goes on once at a time, goes to wherever the active key is by then,
// and takes along what comes in behind it.
func TestRewrapFollowsTheKey(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.custody(vocab.CustodyStrict)
		for range 40 {
			o.publish("bob", "", "dan")
		}
		first := o.newVersion()
		synctest.Wait() // between two batches
		if now := o.look(first); now.State != operation.Running || now.Progress.Done == 0 {
			t.Fatalf("it is %s, %d done", now.State, now.Progress.Done)
		}
		o.check(o.next(o.PauseOperation(t.Context(), carla, first)))
		if again := o.newVersion(); again != first {
			t.Errorf("there is a second one, %s beside %s", again, first)
		}
		v, _, _, err := o.Rewrap(t.Context(), person("carla"), 5)
		if o.check(err); v.ID != first {
			t.Errorf("asked for, there is a second one, %s", v.ID)
		}
		o.check(o.next(o.ResumeOperation(t.Context(), carla, first)))
		done := o.eventually(first, operation.Succeeded)
		if got := o.strictUnder(); got[3] != 40 || len(got) != 1 {
			t.Errorf("licenses by version: %v (%s)", got, done.Result)
		}
		o.checkStore()
	})
}

func (o *house) next(_ *tenant.OperationView, _ vocab.EventID, err error) error { return err }

// ringOf is the first custodian's keyring.
func (o *house) ringOf() *embedded.Keyring { return o.custodian.Custodian.(*embedded.Keyring) }

// What was being published while the key was rotated is published under the new
// version: nothing comes in behind the rewrap.
func TestRotationWhilePublishing(t *testing.T) {
	for _, mode := range []vocab.CustodyMode{vocab.CustodyStrict, vocab.CustodyCached} {
		inOffice(t, func(t *testing.T, o *house) {
			o.custody(mode)
			o.publish("bob", "", "dan")
			during := func() {
				o.newVersion()
				o.settle()
			}
			o.store.before.Store(&during)
			late := o.publish("bob", "", "dan")
			l := o.row(late)
			if mode == vocab.CustodyStrict && o.version(late) != 2 || mode == vocab.CustodyCached && l.Generation != o.generation(2) {
				t.Errorf("%s: what was being published is under generation %s", mode, l.Generation)
			}
			o.opens(person("dan"), item(late), "")
		})
	}
}

// generation is the ID of a generation by its number.
func (o *house) generation(number uint32) vocab.GenerationID {
	o.t.Helper()
	inv, err := o.Inventory(o.t.Context())
	o.check(err)
	for _, g := range inv.Generations {
		if g.Number == number {
			return g.ID
		}
	}
	o.t.Fatalf("there is no generation g%d", number)
	return vocab.GenerationID{}
}

// What may not be opened is left, and named; when it may be again, it is moved
// without being asked for.
func TestRewrapLeavesWhatIsSuspended(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.custody(vocab.CustodyStrict)
		one := o.publish("bob", "", "dan")
		o.newVersion()
		o.settle()
		two := o.publish("bob", "", "dan")
		o.set(tenant.KeyTarget{Key: "root", Version: 2}, tenant.Suspend)
		id := o.newVersion()
		if !id.IsZero() {
			t.Error("there is nothing that may be moved, and yet something goes on")
		}
		plan, err := o.PlanRewrap(t.Context())
		o.check(err)
		if len(plan.Left) != 1 || plan.Left[0].Licenses != 2 || plan.Left[0].Version != 2 || !errors.Is(plan.Left[0].Why, vocab.ReasonKeySuspended) || plan.Licenses != 0 {
			t.Errorf("the plan is %+v", plan)
		}
		three := o.publish("bob", "", "dan")
		v, _, _, err := o.Rewrap(t.Context(), carla, 0)
		if o.check(err); v != nil {
			t.Errorf("asked for, it is %v", v)
		}
		id = o.newVersion()
		done := o.eventually(id, operation.Succeeded)
		if o.version(one) != 2 || o.version(two) != 2 || o.version(three) != 4 {
			t.Errorf("versions %d, %d, %d", o.version(one), o.version(two), o.version(three))
		}
		if want := "left where they are: 2 generations and 2 licenses under version 2 of key root (KEY_SUSPENDED)"; !strings.Contains(done.Result, want) {
			t.Errorf("the result is %q, want it to say %q", done.Result, want)
		}
		o.opens(person("dan"), item(one), vocab.ReasonKeySuspended)
		o.opens(person("dan"), item(three), "")
		o.set(tenant.KeyTarget{Key: "root", Version: 2}, tenant.Resume)
		o.settle()
		for _, p := range []*tenant.Published{one, two, three} {
			if o.version(p) != 4 {
				t.Errorf("after the resumption a license is under version %d", o.version(p))
			}
			o.opens(person("dan"), item(p), "")
		}
		o.checkStore()
	})
}

// Moving to another custodian takes everything along: then the first can go.
func TestActivationRewraps(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		cached := o.publish("bob", "", "dan")
		o.mustWrite(person("grace"), "finance", o.template("finance", vocab.CustodyStrict, user("dan")))
		strict := o.publish("bob", "finance")
		o.custodians.Add("other", keys.KindEmbedded, func(id vocab.CustodianID) (keys.Custodian, error) { return o.keyring(id, "other") })
		_, _, err := o.RegisterKey(t.Context(), carla, tenant.Registration{Name: "next", Custodian: "other"})
		o.check(err)
		_, _, err = o.ActivateKey(t.Context(), carla, "next", false)
		o.check(err)
		id := o.RewrapOf()
		if id.IsZero() {
			t.Fatal("the activation started nothing")
		}
		done := o.eventually(id, operation.Succeeded)
		if done.Progress.Done != 2 || !strings.Contains(done.Result, "1 generation and 1 license moved to version 1 of key next") {
			t.Errorf("%d done: %s", done.Progress.Done, done.Result)
		}
		o.custodian.be(func(c *moody) { c.err = unreachable })
		o.opens(person("dan"), item(strict), "")
		o.opens(person("dan"), item(cached), "")
		fresh := o.publish("bob", "finance")
		w, err := license.ParseWrap(o.row(fresh).Wrap)
		o.check(err)
		if active := o.ActiveKeyID(); w.Custodian != active {
			t.Errorf("what is new is under key %s, want the activated one", w.Custodian)
		}
		o.checkStore()
	})
}

// Faults in the middle of it: an outage and a refusal are waited out, nothing is
// skipped; a store that fails ends nothing; and each license is written once.
func TestCampaignsWaitOutFaults(t *testing.T) {
	for name, c := range map[string]struct {
		begin func(o *house, arm func()) vocab.OperationID
		check func(o *house, p *tenant.Published) bool
	}{
		"a rewrap": {(*house).rotateQuietly, func(o *house, p *tenant.Published) bool { return o.version(p) == 2 }},
		"a reseal": {func(o *house, arm func()) vocab.OperationID {
			o.newVersion()
			o.settle()
			o.set(tenant.KeyTarget{Generation: 1}, tenant.Compromise)
			arm()
			o.custody(vocab.CustodyStrict) // so that what is in g1 goes away from it
			return o.reseal()
		}, nil},
		"a reseal away from a version": {func(o *house, arm func()) vocab.OperationID {
			// Suspended while it is rotated, so that nothing is moved before.
			o.set(tenant.KeyTarget{Key: "root", Version: 1}, tenant.Suspend)
			o.newVersion()
			o.set(tenant.KeyTarget{Key: "root", Version: 1}, tenant.Compromise)
			arm()
			v, _, _, err := o.Reseal(o.t.Context(), carla, tenant.KeyTarget{Key: "root", Version: 1}, 0)
			o.check(err)
			return v.ID
		}, func(o *house, p *tenant.Published) bool { return o.version(p) == 2 }},
	} {
		for _, fault := range []struct {
			name  string
			err   error
			calls int
		}{
			{"sealed", sealed, 1}, {"unreachable", unreachable, 2}, {"refused", refusedByTest, 0}, {"refused later", refusedByTest, 3},
		} {
			t.Run(name+" "+fault.name, func(t *testing.T) {
				inOffice(t, func(t *testing.T, o *house) {
					var all []*tenant.Published
					if c.check != nil {
						o.custody(vocab.CustodyStrict)
					}
					for range 40 {
						all = append(all, o.publish("bob", "", "dan"))
					}
					id := c.begin(o, func() {
						left := fault.calls
						o.custodian.be(func(m *moody) { m.err, m.left = fault.err, &left })
					})
					time.Sleep(time.Hour)
					now := o.settled(id)
					if now.State != operation.Running || vocab.ReasonOf(now.Waiting) != vocab.ReasonOf(fault.err) || now.Progress.Failures != 0 || now.Progress.Done == 40 {
						t.Fatalf("it is %s, %d done, %d failed, waiting for %v", now.State, now.Progress.Done, now.Progress.Failures, now.Waiting)
					}
					o.custodian.be(func(m *moody) { m.err, m.left = nil, nil })
					done := o.eventually(id, operation.Succeeded)
					for content, times := range o.changes(id) {
						if times != 1 {
							t.Fatalf("license %s was written %d times", content, times)
						}
					}
					for i, p := range all {
						if c.check != nil && !c.check(o, p) {
							t.Fatalf("a license was not moved: %s", done.Result)
						}
						if i%10 == 0 {
							o.opens(person("dan"), item(p), "")
						}
					}
					o.checkStore()
				})
			})
		}
	}
}

// A store without room holds a rewrap up like a custodian that is away.
func TestCampaignsWaitForRoom(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.custody(vocab.CustodyStrict)
		for range 40 {
			o.publish("bob", "", "dan")
		}
		id := o.rotateQuietly(func() { o.custodian.be(func(m *moody) { m.err = sealed }) })
		o.store.full.Store(true)
		o.custodian.be(func(m *moody) { m.err = nil })
		time.Sleep(time.Hour)
		if now := o.settled(id); now.State != operation.Running || now.Progress.Done != 0 || vocab.ReasonOf(now.Waiting) != vocab.ReasonStoreFull {
			t.Errorf("it is %s, %d done, waiting for %v", now.State, now.Progress.Done, now.Waiting)
		}
		o.store.full.Store(false)
		o.eventually(id, operation.Succeeded)
		if got := o.strictUnder(); got[2] != 40 {
			t.Errorf("licenses by version: %v", got)
		}
		for content, times := range o.changes(id) {
			if times != 1 {
				t.Errorf("license %s was written %d times", content, times)
			}
		}
		o.checkStore()
	})
}

// A custodian that lies gets nothing replaced: what it lied about is left, named
// and an alarm, and is not asked for again by itself.
func TestCampaignsAreNotLiedTo(t *testing.T) {
	other := func(rs []keys.UnwrapResult) {
		if len(rs) > 3 {
			rs[2].Secret = vocab.NewSecret()
		}
	}
	inOffice(t, func(t *testing.T, o *house) {
		o.custody(vocab.CustodyStrict)
		var all []*tenant.Published
		for range 12 {
			all = append(all, o.publish("bob", "", "dan"))
		}
		o.custodian.be(func(m *moody) { m.lie = other })
		id := o.newVersion()
		done := o.eventually(id, operation.Failed)
		if done.Progress.Done != 12 || done.Progress.Failures != 1 || done.Why != vocab.ReasonCustodyIntegrity || o.alarms(vocab.ReasonCustodyIntegrity) != 1 {
			t.Errorf("%d done, %d failed (%s), %d alarms", done.Progress.Done, done.Progress.Failures, done.Why, o.alarms(vocab.ReasonCustodyIntegrity))
		}
		if f := done.Failed; len(f) != 1 || f[0].License != all[2].License.Record.Content || f[0].Reason != vocab.ReasonCustodyIntegrity {
			t.Errorf("it names %v", f)
		}
		o.custodian.be(func(m *moody) { m.lie = nil })
		time.Sleep(time.Hour)
		if got := o.strictUnder(); got[1] != 1 || got[2] != 11 {
			t.Errorf("licenses by version: %v", got)
		}
		for _, p := range all {
			o.opens(person("dan"), item(p), "")
		}
		v, _, _, err := o.Rewrap(t.Context(), carla, 0)
		o.check(err)
		o.eventually(v.ID, operation.Succeeded)
		if got := o.strictUnder(); got[2] != 12 {
			t.Errorf("asked for again, licenses by version: %v", got)
		}

		// A reseal makes generations: if those do not come back, it ends at once.
		o.set(tenant.KeyTarget{Key: "root", Version: 2}, tenant.Suspend)
		o.newVersion()
		o.set(tenant.KeyTarget{Key: "root", Version: 2}, tenant.Compromise)
		o.custodian.be(func(m *moody) { m.lie = other })
		v, _, _, err = o.Reseal(t.Context(), carla, tenant.KeyTarget{Key: "root", Version: 2}, 0)
		o.check(err)
		done = o.eventually(v.ID, operation.Failed)
		if done.Progress.Done != 0 || done.Why != vocab.ReasonCustodyIntegrity {
			t.Errorf("%d were sealed under what does not come back (%s)", done.Progress.Done, done.Why)
		}
		o.custodian.be(func(m *moody) { m.lie = nil })
		v, _, _, err = o.Reseal(t.Context(), carla, tenant.KeyTarget{Key: "root", Version: 2}, 0)
		o.check(err)
		o.eventually(v.ID, operation.Succeeded)
		for _, p := range all {
			o.opens(person("dan"), item(p), "")
		}
		o.checkStore()
	})
}

// It goes no faster than it was asked to, and can be held up and ended by the
// custodian of keys.
func TestCampaignsCanBeManaged(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.custody(vocab.CustodyStrict)
		for range 100 {
			o.publish("bob", "", "dan")
		}
		o.holdRewraps()
		o.check(o.next(o.CancelOperation(t.Context(), carla, o.RewrapOf(), "a test")))
		v, _, _, err := o.Rewrap(t.Context(), carla, 4)
		o.check(err)
		time.Sleep(10 * time.Second)
		if n := o.look(v.ID).Progress.Done; n < 30 || n > 50 {
			t.Errorf("%d done in 10 seconds at 4 a second", n)
		}
		for name, may := range map[string]bool{"carla": true, "grace": false, "alice": false, "erin": false} {
			_, _, err := o.PauseOperation(t.Context(), person(name), v.ID)
			if may != (err == nil) {
				t.Errorf("%s holds it up: %v", name, err)
			}
			if may {
				o.check(o.next(o.ResumeOperation(t.Context(), carla, v.ID)))
			}
		}
		o.check(o.next(o.CancelOperation(t.Context(), carla, v.ID, "enough")))
		if now := o.look(v.ID); now.State != operation.Cancelled || now.Operation.Done == 0 || now.Operation.Done == 101 {
			t.Errorf("it is %s after %d", now.State, now.Operation.Done)
		}
		o.checkStore()
	})
}

// rotateQuietly makes a new version, and keeps what follows from that from moving
// anything: before what would start it, arm makes sure that it does not come far.
// It returns the rewrap.
func (o *house) rotateQuietly(arm func()) vocab.OperationID {
	o.t.Helper()
	v, err := o.Key(o.t.Context(), "root")
	o.check(err)
	last := tenant.KeyTarget{Key: "root", Version: v.RootLatest}
	o.settle()
	o.set(last, tenant.Suspend)
	if id := o.newVersion(); !id.IsZero() {
		o.t.Fatal("what is suspended is moved")
	}
	arm()
	o.set(last, tenant.Resume)
	return o.RewrapOf()
}

// holdRewraps makes a new version and has nothing moved to it, nor to those after
// it: the rewrap is there, and paused.
func (o *house) holdRewraps() {
	o.t.Helper()
	id := o.rotateQuietly(func() { o.custodian.be(func(m *moody) { m.err = sealed }) })
	o.check(o.next(o.PauseOperation(o.t.Context(), carla, id)))
	o.custodian.be(func(m *moody) { m.err = nil })
	time.Sleep(time.Second) // what it said last stands for a moment
}
