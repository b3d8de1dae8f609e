package tenant_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// addKeyring names another keyring in the tenant's file.
func (o *house) addKeyring(name string) {
	o.custodians.Add(name, keys.KindEmbedded, func(id vocab.CustodianID) (keys.Custodian, error) { return o.keyring(id, name) })
}

func (o *house) register(name, custodian string) *tenant.KeyView {
	o.t.Helper()
	v, _, err := o.RegisterKey(o.t.Context(), person("carla"), tenant.Registration{Name: name, Custodian: custodian})
	o.check(err)
	return v
}

func (o *house) activate(name string) {
	o.t.Helper()
	_, _, err := o.ActivateKey(o.t.Context(), person("carla"), name, false)
	o.check(err)
}

// rotate rotates a keyring's root and says that it was meant.
func (o *house) rotate(name string) {
	o.t.Helper()
	_, _, err := o.RotateKey(o.t.Context(), person("carla"), name)
	o.check(err)
}

func (o *house) states() map[string]keys.State {
	o.t.Helper()
	list, err := o.Keys(o.t.Context())
	o.check(err)
	out := map[string]keys.State{}
	for _, k := range list {
		out[k.Name] = keys.State(k.State)
	}
	return out
}

// eventsOf returns the events of a kind.
func (o *house) eventsOf(kind audit.Kind) (out []*audit.Event) {
	o.t.Helper()
	size, err := o.log.Size(o.t.Context(), o.ID())
	o.check(err)
	for e, err := range o.log.Range(o.t.Context(), o.ID(), 0, size) {
		o.check(err)
		if e.Event.Kind == kind {
			out = append(out, e.Event)
		}
	}
	return out
}

// under says which key, version and generation a published license is under.
func (o *house) under(p *tenant.Published) (key string, version, generation uint32) {
	o.t.Helper()
	inv, err := o.Inventory(o.t.Context())
	o.check(err)
	for _, g := range inv.Generations {
		if g.ID == p.License.Record.Generation {
			return g.Key, g.Version, g.Number
		}
	}
	o.t.Fatal("the license is under no generation")
	return "", 0, 0
}

// TestMoveToAnotherKey is a tenant that moves to another custodian and back:
// registered, nothing is under the new key; activated, all that is new is, and
// what was there goes on.
func TestMoveToAnotherKey(t *testing.T) {
	synctest.Test(t, testMoveToAnotherKey)
}

func testMoveToAnotherKey(t *testing.T) {
	o := newHouse(t)
	old := o.publish("alice", "", "bob")
	if _, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: "next", Custodian: "second"}); !errors.Is(err, vocab.ReasonResourceNotFound) {
		t.Errorf("a custodian that the file does not name: %v", err)
	}
	o.addKeyring("second")
	v := o.register("next", "second")
	if keys.State(v.State) != keys.PreActive || v.Facts == nil || v.RootLatest != 1 {
		t.Errorf("registered: %+v", v)
	}
	if key, _, _ := o.under(o.publish("alice", "", "bob")); key != "root" {
		t.Errorf("before the activation something is under %q", key)
	}
	for name, reg := range map[string]tenant.Registration{
		"the name again": {Name: "next", Custodian: "second"}, "the key again": {Name: "other", Custodian: "second"},
	} {
		if _, _, err := o.RegisterKey(t.Context(), person("dan"), reg); !errors.Is(err, vocab.ReasonResourceExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	before, err := o.Trust(t.Context())
	o.check(err)

	o.activate("next")
	if got := o.states(); got["next"] != keys.Active || got["root"] != keys.Deactivated {
		t.Errorf("states %v", got)
	}
	after, err := o.Trust(t.Context())
	o.check(err)
	if len(after.Roots) != 2 || !slices.Contains(after.Roots[1:], before.Roots[0]) || after.Roots[0] == before.Roots[0] {
		t.Errorf("roots were %v and are %v", before.Roots, after.Roots)
	}
	fresh := o.publish("alice", "", "bob")
	if key, _, _ := o.under(fresh); key != "next" {
		t.Errorf("after the activation something new is under %q", key)
	}
	for range 2 {
		o.opens(person("bob"), item(old), "")
		o.opens(person("bob"), item(fresh), "")
		o.restart()
	}
	// And once more. Whoever pinned the first root, which signs no more, is led
	// to the current one along the transitions, and not without.
	o.addKeyring("third")
	o.register("third", "third")
	o.activate("third")
	last, err := o.Trust(t.Context())
	o.check(err)
	pinned := before.Roots[:1]
	if _, err := license.NewVerifier(last.Bundle, o.ID(), pinned, 0); !errors.Is(err, vocab.ReasonTrustRootMismatch) {
		t.Errorf("the first root alone vouches for the newest bundle: %v", err)
	}
	if _, err := license.NewVerifier(last.Bundle, o.ID(), license.Follow(last.Transitions, o.ID(), pinned), 0); err != nil || len(last.Transitions) != 2 {
		t.Errorf("along %d transitions: %v", len(last.Transitions), err)
	}
	for what, chain := range map[string][][]byte{
		"the first left out": last.Transitions[1:], "garbage": {[]byte("x")}, "none": nil,
	} {
		if _, err := license.NewVerifier(last.Bundle, o.ID(), license.Follow(chain, o.ID(), pinned), 0); !errors.Is(err, vocab.ReasonTrustRootMismatch) {
			t.Errorf("%s: %v", what, err)
		}
	}
	o.activate("next") // back again
	// The old custodian is taken out of the file: everything was moved away, so
	// nothing waits for it.
	o.settle()
	o.custodians.Remove("keyring")
	o.restart()
	o.opens(person("bob"), item(fresh), "")
	o.opens(person("bob"), item(old), "")
	if list, err := o.Keys(t.Context()); err != nil || vocab.ReasonOf(list[1].Fault) != vocab.ReasonCustodianUnreachable {
		t.Errorf("the key without custodian: %+v, %v", list, err)
	}
}

// TestActivationNeedsTheRootBefore keeps clients that pinned the old root from
// being cut off by mistake.
func TestActivationNeedsTheRootBefore(t *testing.T) {
	synctest.Test(t, testActivationNeedsTheRootBefore)
}

func testActivationNeedsTheRootBefore(t *testing.T) {
	o := newHouse(t)
	o.addKeyring("second")
	o.register("next", "second")
	o.custodian.be(func(m *moody) { m.err = vocab.Errorf(vocab.ReasonCustodianUnreachable, "test: away") })
	if _, _, err := o.ActivateKey(t.Context(), person("carla"), "next", false); !errors.Is(err, vocab.ReasonCustodianUnreachable) {
		t.Errorf("without the root before: %v", err)
	}
	if got := o.states(); got["next"] != keys.PreActive || got["root"] != keys.Active {
		t.Errorf("states %v", got)
	}
	if _, _, err := o.ActivateKey(t.Context(), person("carla"), "next", true); err != nil {
		t.Errorf("on purpose without it: %v", err)
	}
	if key, _, _ := o.under(o.publish("alice", "", "bob")); key != "next" {
		t.Errorf("something new is under %q", key)
	}
}

// TestRotations: a version that a key custodian claims gets a generation of its
// own; one that nobody claims is written down, used for nothing but what Vault
// itself does with it, and after a quarter of an hour an alarm, once.
func TestRotations(t *testing.T) {
	synctest.Test(t, testRotations)
}

func testRotations(t *testing.T) {
	o := newHouse(t)
	old := o.publish("alice", "", "bob")
	o.rotate("root")
	fresh := o.publish("alice", "", "bob")
	if _, v, g := o.under(fresh); v != 2 || g != 2 {
		t.Errorf("after the rotation something new is under v%d g%d", v, g)
	}
	o.opens(person("bob"), item(old), "")

	// Somebody rotates it behind everybody's back.
	ring, ok := o.custodian.Custodian.(keys.Rotator)
	if !ok {
		t.Fatal("the keyring cannot be rotated")
	}
	_, err := ring.RotateRoot(t.Context())
	o.check(err)
	o.restart()
	if _, _, g := o.under(o.publish("alice", "", "bob")); g != 2 {
		t.Errorf("an unclaimed version has generation g%d", g)
	}
	alarms := func() (n int) {
		for _, e := range o.eventsOf(audit.KindAlarm) {
			if e.Reason == vocab.ReasonRotationUnclaimed && e.Alarm && e.Target == "keys/root" {
				n++
			}
		}
		return n
	}
	if n := alarms(); n != 0 {
		t.Errorf("%d alarms at once", n)
	}
	o.ahead.Store(int64(16 * time.Minute))
	for range 3 {
		o.restart()
	}
	if n := alarms(); n != 1 {
		t.Errorf("%d alarms after a quarter of an hour, want 1", n)
	}
	v, _, err := o.SyncKey(t.Context(), person("dan"), "root", &record.Provenance{Form: "generated", KCV: "8F21C3", Requests: "a b"})
	o.check(err)
	if got := v.Version(3); got == nil || got.Claim != record.Claimed || got.ClaimedBy != "dan@contoso.test" || got.Provenance == nil {
		t.Errorf("claimed: %+v", got)
	}
	if _, v, g := o.under(o.publish("alice", "", "bob")); v != 3 || g != 3 {
		t.Errorf("after the claim something new is under v%d g%d", v, g)
	}
	if _, _, err := o.SyncKey(t.Context(), person("dan"), "root", &record.Provenance{Form: "byok"}); !errors.Is(err, vocab.ReasonResourceExists) {
		t.Errorf("another statement about the same version: %v", err)
	}
}

// TestSuspensionStopsExactlyItsSet suspends, one after the other, a generation,
// a version in the middle and the whole key, and compares what stops with what
// is under it; a restart changes nothing, and resuming brings all of it back.
func TestSuspensionStopsExactlyItsSet(t *testing.T) {
	synctest.Test(t, testSuspensionStopsExactlyItsSet)
}

func testSuspensionStopsExactlyItsSet(t *testing.T) {
	o := newHouse(t)
	o.mustWrite(person("grace"), "strict", o.template("strict", vocab.CustodyStrict, user("bob")))
	type doc struct {
		p          *tenant.Published
		version    uint32
		generation uint32 // 0: strict
	}
	var docs []doc
	o.holdRewraps()
	for v := uint32(2); v <= 4; v++ {
		if v > 2 {
			o.rotate("root")
		}
		cached := o.publish("alice", "", "bob")
		_, _, g := o.under(cached)
		docs = append(docs, doc{cached, v, g}, doc{o.publish("alice", "strict"), v, 0})
	}
	for _, c := range []struct {
		name    string
		target  tenant.KeyTarget
		stops   func(doc) bool
		publish vocab.Reason // how publishing ends
	}{
		{"generation", tenant.KeyTarget{Generation: 3}, func(d doc) bool { return d.generation == 3 }, ""},
		{"active generation", tenant.KeyTarget{Generation: 4}, func(d doc) bool { return d.generation == 4 }, vocab.ReasonKeyState},
		{"version in the middle", tenant.KeyTarget{Key: "root", Version: 3}, func(d doc) bool { return d.version == 3 }, ""},
		{"newest version", tenant.KeyTarget{Key: "root", Version: 4}, func(d doc) bool { return d.version == 4 }, vocab.ReasonKeySuspended},
		{"key", tenant.KeyTarget{Key: "root"}, func(doc) bool { return true }, vocab.ReasonKeySuspended},
	} {
		func() {
			for _, d := range docs {
				o.opens(person("bob"), item(d.p), "")
			}
			look := func(suspended bool) {
				t.Helper()
				for _, d := range docs {
					want := vocab.Reason("")
					if suspended && c.stops(d) {
						want = vocab.ReasonKeySuspended
					}
					o.opens(person("bob"), item(d.p), want)
				}
				want := c.publish
				if !suspended {
					want = ""
				}
				_, err := o.Publish(t.Context(), person("alice"), tenant.PublishRequest{Template: "strict", To: o.to})
				if c.target.Generation == 0 && vocab.ReasonOf(err) != want {
					t.Errorf("%s: publishing a strict document: %v, want %q", c.name, err, want)
				}
			}
			_, err := o.SetKeyState(t.Context(), person("carla"), c.target, tenant.Suspend, "a test")
			o.check(err)
			look(true)
			if _, err := o.SetKeyState(t.Context(), person("carla"), c.target, tenant.Suspend, "again"); !errors.Is(err, vocab.ReasonKeyState) {
				t.Errorf("%s suspended twice: %v", c.name, err)
			}
			o.restart()
			look(true)
			_, err = o.SetKeyState(t.Context(), person("carla"), c.target, tenant.Resume, "")
			o.check(err)
			look(false)
			if _, err := o.SetKeyState(t.Context(), person("carla"), c.target, tenant.Resume, ""); !errors.Is(err, vocab.ReasonKeyState) {
				t.Errorf("%s resumed twice: %v", c.name, err)
			}
		}()
	}
	// What is compromised stays so.
	target := tenant.KeyTarget{Generation: 2}
	_, err := o.SetKeyState(t.Context(), person("carla"), target, tenant.Compromise, "seen elsewhere")
	o.check(err)
	for _, m := range []tenant.Move{tenant.Suspend, tenant.Resume, tenant.Compromise} {
		if _, err := o.SetKeyState(t.Context(), person("carla"), target, m, ""); !errors.Is(err, vocab.ReasonKeyState) {
			t.Errorf("move %d of what is compromised: %v", m, err)
		}
	}
	o.opens(person("bob"), item(docs[0].p), vocab.ReasonKeyState)
	o.opens(person("bob"), item(docs[1].p), "")
}

// TestRotationsBySchedule: what the custodian rotates by itself, as a key
// custodian confirmed that it should, is expected; what comes sooner is not.
func TestRotationsBySchedule(t *testing.T) { synctest.Test(t, testRotationsBySchedule) }

func testRotationsBySchedule(t *testing.T) {
	const period = 30 * 24 * time.Hour
	o := newHouse(t)
	o.custodian.be(func(m *moody) { m.facts = func(f *keys.Facts) { f.Root.AutoRotate = period } })
	claimed := func(version uint32) (claim uint8, by string) {
		t.Helper()
		v, err := o.Key(t.Context(), "root")
		o.check(err)
		got := v.Version(version)
		if got == nil {
			t.Fatalf("v%d was not seen", version)
		}
		return got.Claim, got.ClaimedBy
	}
	rotate := func(after time.Duration) {
		t.Helper()
		time.Sleep(after)
		_, err := o.custodian.RotateRoot(t.Context())
		o.check(err)
		o.restart()
	}
	rotate(period) // nobody confirmed the schedule yet
	if got, _ := claimed(2); got != record.Unclaimed {
		t.Errorf("without a confirmed schedule v2 is %d", got)
	}
	_, _, err := o.SyncKey(t.Context(), person("carla"), "root", nil)
	o.check(err)
	rotate(period)
	if got, by := claimed(3); got != record.Claimed || by != "its schedule" {
		t.Errorf("by schedule v3 is %d by %q", got, by)
	}
	if _, v, _ := o.under(o.publish("alice", "", "bob")); v != 3 {
		t.Errorf("what is new is under v%d", v)
	}
	rotate(period / 2)
	if got, _ := claimed(4); got != record.Unclaimed {
		t.Errorf("too soon, v4 is %d", got)
	}
}
