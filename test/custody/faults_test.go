package custody_test

import (
	"slices"
	"testing"
	"time"

	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vocab"
	"github.com/openrms/rms/test/rmsdtest"
)

// How long to wait for what must come, on a machine that is busy.
const (
	lookWithin = 10 * time.Second
	ttlWithin  = ttl + 5*time.Second
	// What was away is back within five seconds, and a custodian that refused
	// is looked at again within half a minute; here there is more to do at once.
	backAgainWithin = 2 * backWithin
	undoneWithin    = 45 * time.Second
)

// fault is a case of TestFaults: what is done to the custody of a tenant's key,
// and how it is undone.
type fault struct {
	own      bool // needs a Vault of its own
	snapshot bool // needs a snapshot of it, from before the daemon first saw it
	do       func(w *world)
	// during, if not nil, looks closer while the fault lasts.
	during func(w *world)
	// undo is nil where nothing undoes it; then only what is not lost opens.
	undo func(w *world)
	// asked is how often Vault may be asked to unwrap one document's key for
	// one opening.
	asked int
}

// TestFaults does to a running daemon every fault of testdata/faults.yaml, on a
// real Vault. Each time:
//
//   - opening and publishing, strict and cached, are refused for the reason of
//     the row, when it says, and for no other; what is not concerned goes on;
//   - Vault is not asked again for what it refused, but once after the daemon
//     signed in anew; never for what does not fit;
//   - every refusal is in the tenant's log, as an alarm if the row says so;
//   - when the fault is undone every document opens with the content key it was
//     published with, but those that the row says are lost;
//   - the daemon is one process throughout, and its other tenant is served.
func TestFaults(t *testing.T) {
	shared, binary := vaulttest.Start(t), rmsdtest.Build(t, "")
	for _, r := range readRows(t) {
		f, ok := faults[r.Name]
		if !ok {
			t.Errorf("row %q has no case", r.Name)
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, shared, binary, r, f)
			f.do(w)
			began := time.Now()
			w.checkStrict(f)
			w.checkCached(f, began)
			w.checkSpared()
			if f.during != nil {
				f.during(w)
			}
			w.checkStatus()
			w.checkEvents()
			if f.undo != nil {
				f.undo(w)
				w.checkUndone()
			}
			w.checkLost()
			if now := status(t, w.site); now != w.life {
				t.Errorf("it was not one process throughout: %v, then %v", w.life, now)
			}
			w.pauseOther()
			if w.otherServed == 0 {
				t.Error("the other tenant was not tried")
			}
		})
	}
}

// early are reasons that may come before a look of the daemon has found out.
var early = []vocab.Reason{
	vocab.ReasonCustodianUnreachable, vocab.ReasonCustodianSealed, vocab.ReasonCustodyIntegrity, vocab.ReasonKeySuspended,
}

// meets tries until the reason comes, or, where the fault is seen by the first
// call, once. A reason that is empty is that it succeeds.
func (w *world) meets(what string, want vocab.Reason, by moment, try func() *rmsdtest.Reply) {
	w.Helper()
	within := map[moment]time.Duration{byCall: 0, byLook: lookWithin, byTTL: ttlWithin}[by]
	for deadline := time.Now().Add(within); ; wait(w.T, 50*time.Millisecond) {
		r := try()
		switch {
		case want == "" && r.Outcome == rmsdtest.Received, want != "" && r.Reason == want:
			return
		case by != byCall && want != "" && time.Now().Before(deadline) &&
			(r.Outcome == rmsdtest.Received || by == byLook && slices.Contains(early, r.Reason)):
		case r.Outcome == rmsdtest.Received:
			w.Errorf("%s succeeds, but must be %s", what, want)
			return
		default:
			w.Errorf("%s must be %q, but is %q: %v", what, want, r.Reason, r.Err)
			return
		}
	}
}

func (w *world) checkStrict(f fault) {
	w.Helper()
	c := w.row.Strict
	once := func() {
		w.meets("opening a strict document", c.Open, c.By, func() *rmsdtest.Reply { return w.open(w.strict[0]) })
	}
	if n := w.asked(once); c.By == byCall && n > f.asked {
		w.Errorf("Vault was asked %d times for one opening of a strict document, want at most %d", n, f.asked)
	}
	for _, d := range w.strict[1:] {
		w.meets("opening another strict document", c.Open, byCall, func() *rmsdtest.Reply { return w.open(d) })
	}
	w.meets("publishing a strict document", c.Publish, byCall, func() *rmsdtest.Reply { return w.publish("strict") })
}

// checkCached comes after checkStrict: a refusal of the custodian's ends the use
// of all that it unwrapped, and what does not lasts until the TTL.
func (w *world) checkCached(f fault, began time.Time) {
	w.Helper()
	c := w.row.Cached
	n := w.asked(func() {
		w.meets("opening a cached document", c.Open, c.By, func() *rmsdtest.Reply { return w.open(w.cached[0]) })
	})
	// Once by the refresh that nobody waits for, once by whoever waits. What is
	// merely away is asked every half second.
	away := c.Open == vocab.ReasonCustodianUnreachable || c.Open == vocab.ReasonCustodianSealed
	if c.Open != "" && !away && c.By != byLook && n > f.asked+1 {
		w.Errorf("Vault was asked %d times for the key of a generation until the daemon refused it", n)
	}
	if d := time.Since(began); c.By == byTTL && d < time.Second {
		w.Errorf("a cached document was refused %s after the fault", d)
	}
	for _, d := range w.cached[1:] {
		w.meets("opening another cached document", c.Open, byCall, func() *rmsdtest.Reply { return w.open(d) })
	}
	w.meets("publishing a cached document", c.Publish, byCall, func() *rmsdtest.Reply { return w.publish("cached") })
}

func (w *world) checkSpared() {
	w.Helper()
	for _, d := range w.spared {
		w.meets("opening what is not concerned", "", byCall, func() *rmsdtest.Reply { return w.open(d) })
	}
}

func (w *world) checkStatus() {
	w.Helper()
	if w.row.Status == "" {
		return
	}
	w.await("rmsd status says "+string(w.row.Status), lookWithin, func() bool { return w.statusReason() == w.row.Status })
}

// checkEvents finds the event of every refusal, and the alarms.
func (w *world) checkEvents() {
	w.Helper()
	if w.row.alarms("look") {
		w.await("the alarm of a look", lookWithin, func() bool {
			for _, e := range w.events("alarm") {
				if e.GetOutcome() == string(w.row.Strict.Open) && e.GetAlarm() {
					return true
				}
			}
			return false
		})
	}
	recorded, alarms := map[string]bool{}, 0
	for _, e := range w.events() {
		if e.GetAlarm() {
			alarms++
		}
		if e.GetKind() == "refused" {
			recorded[e.GetName()+" "+e.GetOutcome()] = true
			alarming := e.GetOutcome() == string(vocab.ReasonCustodyIntegrity) || e.GetOutcome() == string(vocab.ReasonCustodianChanged)
			if e.GetAlarm() != alarming {
				w.Errorf("event %s, %s: an alarm is %v", e.GetName(), e.GetOutcome(), e.GetAlarm())
			}
		}
	}
	for _, r := range w.refusals {
		if r.Event.IsZero() || !recorded[w.site.Parent()+"/events/"+r.Event.String()+" "+string(r.Reason)] {
			w.Errorf("the log has no event %s of the refusal %s", r.Event, r.Reason)
		}
	}
	if len(w.row.Alarms) == 0 && alarms != 0 {
		w.Errorf("%d events are alarms", alarms)
	}
	if w.row.alarms("refusals") && alarms == 0 {
		w.Error("no event is an alarm")
	}
}

// checkUndone waits until everything opens that is not lost, and publishing
// works.
func (w *world) checkUndone() {
	w.Helper()
	within := undoneWithin
	if w.row.Status == vocab.ReasonCustodianUnreachable || w.row.Status == vocab.ReasonCustodianSealed {
		within = backAgainWithin
	}
	var last *rmsdtest.Reply
	works := func(r *rmsdtest.Reply) bool {
		if err := r.BadAnswer(); err != nil {
			w.Fatalf("after the fault: %v", err)
		}
		if r.Outcome != rmsdtest.Received {
			last = r
		}
		return r.Outcome == rmsdtest.Received
	}
	defer func() {
		if w.Failed() && last != nil {
			w.Logf("last refusal after the fault: %v", last.Err)
		}
	}()
	for _, d := range slices.Concat(w.strict, w.cached, w.spared) {
		if _, gone := w.lost[d]; !gone {
			w.await("a document opens after the fault", within, func() bool { return works(w.bob.Acquire(w.Context(), d)) })
		}
	}
	for _, template := range []string{"strict", ""} {
		w.await("publishing works after the fault", within, func() bool { return works(w.alice.Publish(w.Context(), template)) })
	}
	if w.row.Status != "" {
		w.await("rmsd status says that it serves", within, func() bool { return w.statusReason() == "" })
	}
}

// checkLost expects that nothing else than the documents that are lost is.
func (w *world) checkLost() {
	w.Helper()
	for d, reason := range w.lost {
		w.meets("opening a document that is lost", reason, byCall, func() *rmsdtest.Reply { return w.open(d) })
	}
	w.checkSpared()
}
