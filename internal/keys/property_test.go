package keys_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// noDeadline hides T.Deadline, which a bubble does not have.
type noDeadline struct{ rapid.TB }

// TestRingProperties plays random days of a tenant: opens, pauses, a custodian
// that comes and goes and refuses, suspensions, flushes. It judges every open
// by rules of its own, from nothing but what the custodian was asked and
// answered:
//
//	safety    a key is lent only if the custodian gave it less than a TTL ago
//	          (and G more if it was merely out of reach ever since), refused
//	          nothing since, nobody suspended it, and no more than N uses ago
//	liveness  with the custodian there, nothing suspended and half a second
//	          gone since it last failed, a key is lent
//	economy   an open costs at most one call
func TestRingProperties(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(noDeadline{t}, func(rt *rapid.T) {
			l := keys.Limits{
				TTL:     rapid.SampledFrom([]time.Duration{10 * time.Second, time.Minute}).Draw(rt, "ttl"),
				Grace:   rapid.SampledFrom([]time.Duration{0, 0, 30 * time.Second}).Draw(rt, "grace"),
				MaxUses: rapid.SampledFrom([]uint32{1, 5, 10_000}).Draw(rt, "uses"),
			}
			w := newWorld(t, l)
			defer w.Close()
			var (
				mood      error
				suspended bool
				taken     time.Time // of the last flush or suspension
				uses      int       // opens since the custodian last gave the key
			)
			steps := rapid.IntRange(1, 60).Draw(rt, "steps")
			for range steps {
				switch rapid.SampledFrom([]string{"open", "open", "open", "open", "wait", "wait", "mood", "suspend", "flush", "restart"}).Draw(rt, "act") {
				case "wait":
					time.Sleep(rapid.SampledFrom([]time.Duration{time.Millisecond, 400 * time.Millisecond, time.Second, 5 * time.Second, 9 * time.Second,
						10 * time.Second, 25 * time.Second, time.Minute}).Draw(rt, "pause"))
				case "mood":
					mood = rapid.SampledFrom([]error{nil, nil, sealed, outOfReach, switchOff, vocab.Errorf(vocab.ReasonInternal, "test")}).Draw(rt, "mood")
					w.cust.set(mood)
				case "suspend":
					var err error
					if suspended {
						err = w.SetState(1, keys.Active)
					} else {
						err = w.SetState(1, keys.Suspended)
					}
					if err != nil {
						rt.Fatalf("suspend %v: %v", !suspended, err)
					}
					suspended, taken = !suspended, time.Now()
				case "flush":
					w.Flush()
					taken = time.Now()
				case "restart":
					w.Close()
					w.start()
					taken = time.Now()
				case "open":
					before := w.cust.log()
					k, err := w.Open(t.Context(), w.id(1))
					now := time.Now()
					synctest.Wait()
					after := w.cust.log()
					if len(after) > len(before)+1 {
						rt.Fatalf("one open made %d calls", len(after)-len(before))
					}
					// Whether this open was served by the call it made, or made
					// it on the side: a key that is older than the call was not.
					// But of a key beyond its TTL the call may have been the one
					// that found the custodian out of reach, so that it was lent.
					seen := after
					if err == nil && len(after) > len(before) {
						own := after[len(after)-1]
						found := keys.IsOutage(own.err) && now.Sub(k.Asked) >= l.TTL
						if k.Asked.Before(own.at) && !found {
							seen = before
						}
					}
					k.Release()
					switch {
					case err == nil:
						if suspended {
							rt.Fatal("lent while suspended")
						}
						gave := lastGiven(seen)
						if gave < 0 {
							rt.Fatal("lent what the custodian never gave")
						}
						at, age := seen[gave].at, now.Sub(seen[gave].at)
						onlyOutages := true
						for _, c := range seen[gave+1:] {
							if c.err != nil && keys.IsRefusal(c.err) {
								rt.Fatal("lent after a refusal")
							}
							onlyOutages = keys.IsOutage(c.err) // of the last one
						}
						if at.Before(taken) {
							rt.Fatal("lent what was taken away")
						}
						if age >= l.TTL && (age >= l.TTL+l.Grace || len(seen) == gave+1 || !onlyOutages) {
							rt.Fatalf("lent at the age of %s, limits %+v", age, l)
						}
						if gave >= 0 && len(seen) > len(before) && seen[len(seen)-1].err == nil {
							uses = 0
						}
						if uses++; uses > int(l.MaxUses) {
							rt.Fatalf("lent for the %dth time", uses)
						}
						if len(after) > len(seen) && after[len(after)-1].err == nil {
							uses = 0
						}
					case mood == nil && !suspended:
						if last := lastFailed(after); last.IsZero() || now.Sub(last) >= 500*time.Millisecond {
							rt.Fatalf("refused with everything in order: %v", err)
						}
					case suspended && vocab.ReasonOf(err) != vocab.ReasonKeySuspended:
						rt.Fatalf("suspended, but %v", err)
					}
				}
			}
		})
	})
}

func lastGiven(log []call) int {
	for i, c := range slices.Backward(log) {
		if c.err == nil {
			return i
		}
	}
	return -1
}

func lastFailed(log []call) time.Time {
	for _, c := range slices.Backward(log) {
		if c.err != nil {
			return c.at
		}
	}
	return time.Time{}
}
