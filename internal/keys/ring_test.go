package keys_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/custodiantest"
	"github.com/openrms/rms/internal/vocab"
)

// inTime runs a test on a clock of its own.
func inTime(t *testing.T, l keys.Limits, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, l)) })
}

func TestRecordsInMemory(t *testing.T) {
	custodiantest.RunRecords(t, func(*testing.T) keys.Records { return custodiantest.NewRecords() })
}

func TestOneCallServesTheTTL(t *testing.T) {
	inTime(t, keys.Limits{TTL: time.Minute}, func(t *testing.T, w *world) {
		for range 100 {
			w.want("within the TTL", "")
		}
		w.wantCalls(1)
	})
}

func TestHardStop(t *testing.T) {
	for _, mood := range []error{sealed, outOfReach, vocab.Errorf(vocab.ReasonInternal, "test: broken")} {
		inTime(t, keys.Limits{TTL: time.Minute}, func(t *testing.T, w *world) {
			w.want("at first", "")
			w.cust.set(mood)
			time.Sleep(time.Minute - time.Millisecond)
			w.want("just inside the TTL", "")
			held := w.Held()
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if len(w.Held()) != 0 {
				t.Error("a copy is held beyond its TTL")
			}
			for _, s := range held {
				if !s.Equal(new(vocab.Secret)) {
					t.Error("the copy was not zeroed")
				}
			}
			w.want("at the TTL", vocab.ReasonOf(mood))
			w.cust.set(nil)
			time.Sleep(time.Second)
			w.want("after the custodian came back", "")
		})
	}
}

func TestCopyEndsWithoutAnybodyAsking(t *testing.T) {
	inTime(t, keys.Limits{TTL: time.Minute, Grace: time.Minute}, func(t *testing.T, w *world) {
		w.want("at first", "")
		held := w.Held()[0]
		time.Sleep(2*time.Minute + time.Millisecond)
		synctest.Wait()
		if !held.Equal(new(vocab.Secret)) || len(w.Held()) != 0 {
			t.Error("the copy outlived TTL and grace")
		}
	})
}

func TestOneFlightForMany(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		w.cust.delay = 100 * time.Millisecond
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() { w.want("together", "") })
		}
		all.Wait()
		w.wantCalls(1)
	})
}

func TestCallerMayGiveUp(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		w.cust.delay = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := w.Open(ctx, w.id(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		w.want("the next one gets what the first one asked for", "")
		w.wantCalls(1)
	})
}

func TestEarlyRefresh(t *testing.T) {
	inTime(t, keys.Limits{TTL: time.Minute}, func(t *testing.T, w *world) {
		w.want("at first", "")
		time.Sleep(47 * time.Second)
		w.want("before 80 %", "")
		synctest.Wait()
		w.wantCalls(1)
		time.Sleep(2 * time.Second)
		w.cust.delay = time.Second
		start := time.Now()
		w.want("after 80 %", "")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the early refresh kept a caller waiting for %s", waited)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		w.wantCalls(2)
		w.cust.set(sealed)
		time.Sleep(58 * time.Second)
		w.want("a minute after the refresh was asked for, less a second", "")
		time.Sleep(time.Second)
		w.want("a full minute after the refresh was asked for", vocab.ReasonCustodianSealed)
	})
}

func TestRefusalEndsAtOnce(t *testing.T) {
	inTime(t, keys.Limits{TTL: time.Minute, Grace: time.Hour}, func(t *testing.T, w *world) {
		if _, err := w.NewGeneration(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.want("at first", "")
		lent, err := w.Open(t.Context(), w.id(1))
		if err != nil {
			t.Fatal(err)
		}
		defer lent.Release()
		if err := w.Recheck(lent); err != nil {
			t.Errorf("Recheck of a good key: %v", err)
		}
		held := w.Held()
		w.cust.set(switchOff)
		time.Sleep(50 * time.Second)
		w.want("the one that triggers the refresh", "")
		synctest.Wait()
		for _, s := range held {
			if !s.Equal(new(vocab.Secret)) {
				t.Error("a copy outlived the refusal")
			}
		}
		w.want("after the refusal", vocab.ReasonCustodianRefused)
		if err := w.Recheck(lent); !errors.Is(err, vocab.ReasonCustodianRefused) {
			t.Errorf("Recheck of a key lent before the refusal: %v", err)
		}
		w.cust.set(sealed)
		time.Sleep(time.Second)
		w.want("an outage after a refusal has no grace", vocab.ReasonCustodianSealed)
	})
}

func TestGrace(t *testing.T) {
	inTime(t, keys.Limits{TTL: time.Minute, Grace: 10 * time.Minute}, func(t *testing.T, w *world) {
		w.want("at first", "")
		w.cust.set(outOfReach)
		w.cust.delay = 3 * time.Second
		time.Sleep(55 * time.Second)
		w.want("the one that finds out", "")
		time.Sleep(10 * time.Second)
		start := time.Now()
		k, err := w.Open(t.Context(), w.id(1))
		if err != nil || !k.Grace || time.Since(start) != 0 {
			t.Errorf("in grace: %v, grace %v, after %s", err, k.Grace, time.Since(start))
		}
		k.Release()
		time.Sleep(11*time.Minute - 65*time.Second - time.Millisecond)
		w.want("at the end of the grace", "")
		time.Sleep(time.Second)
		w.want("after the grace", vocab.ReasonCustodianUnreachable)
	})
	inTime(t, keys.Limits{TTL: time.Minute, Grace: 10 * time.Minute}, func(t *testing.T, w *world) {
		w.want("at first", "")
		w.cust.set(vocab.Errorf(vocab.ReasonInternal, "test: broken"))
		time.Sleep(time.Minute + time.Second)
		w.want("what is not an outage has no grace", vocab.ReasonInternal)
	})
}

func TestMaxUses(t *testing.T) {
	inTime(t, keys.Limits{MaxUses: 10}, func(t *testing.T, w *world) {
		w.want("use 1", "")
		w.cust.set(sealed)
		for range 9 {
			w.want("uses 2 to 10", "")
			synctest.Wait()
		}
		w.want("use 11", vocab.ReasonCustodianSealed)
		w.cust.set(nil)
		time.Sleep(time.Second)
		for range 100 {
			w.want("with the custodian there", "")
		}
	})
}

func TestFailureRestsShortly(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		w.cust.set(sealed)
		for range 20 {
			w.want("sealed", vocab.ReasonCustodianSealed)
		}
		w.wantCalls(1)
		w.cust.set(nil)
		time.Sleep(500 * time.Millisecond)
		w.want("half a second later", "")
	})
}

func TestSuspend(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		k, err := w.Active(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer k.Release()
		held := w.Held()[0]
		if err := w.SetState(1, keys.Suspended); err != nil {
			t.Fatal(err)
		}
		if !held.Equal(new(vocab.Secret)) {
			t.Error("the copy outlived the suspension")
		}
		w.want("suspended", vocab.ReasonKeySuspended)
		if err := w.Recheck(k); !errors.Is(err, vocab.ReasonKeySuspended) {
			t.Errorf("Recheck: %v", err)
		}
		if _, err := w.Active(t.Context()); !errors.Is(err, vocab.ReasonKeyState) {
			t.Errorf("publishing: %v", err)
		}
		w.start()
		w.want("suspended, after a restart", vocab.ReasonKeySuspended)
		if err := w.SetState(1, keys.Active); err != nil {
			t.Fatal(err)
		}
		w.want("resumed", "")
		if _, err := w.Active(t.Context()); err != nil {
			t.Errorf("publishing after the resumption: %v", err)
		}
	})
}

func TestSuspendDuringTheCall(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		w.cust.delay = time.Second
		got := make(chan vocab.Reason)
		go func() { got <- w.try() }()
		time.Sleep(500 * time.Millisecond)
		if err := w.SetState(1, keys.Suspended); err != nil {
			t.Fatal(err)
		}
		if r := <-got; r != vocab.ReasonKeySuspended {
			t.Errorf("a call in flight delivered after the suspension: %q", r)
		}
		if len(w.Held()) != 0 {
			t.Error("its result is held")
		}
	})
}

func TestSuspendedVersion(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		doc := vocab.ContentID{1}
		k, err := w.NewDocument(t.Context(), doc)
		if err != nil {
			t.Fatal(err)
		}
		v := keys.VersionID{Custodian: w.cust.ID(), Version: 1}
		w.want("before", "")
		if err := w.SetVersionState(v, keys.Suspended); err != nil {
			t.Fatal(err)
		}
		w.want("a generation under it", vocab.ReasonKeySuspended)
		if _, err := w.OpenDocument(t.Context(), doc, k.Generation, k.Wrap); !errors.Is(err, vocab.ReasonKeySuspended) {
			t.Errorf("a document under it: %v", err)
		}
		if _, err := w.NewDocument(t.Context(), doc); !errors.Is(err, vocab.ReasonKeySuspended) {
			t.Errorf("a new document while it is the newest: %v", err)
		}
		if err := w.Recheck(k); !errors.Is(err, vocab.ReasonKeySuspended) {
			t.Errorf("Recheck: %v", err)
		}
		if err := w.SetVersionState(v, keys.Deactivated); err != nil {
			t.Fatal(err)
		}
		w.want("resumed", "")
	})
}

func TestDocumentsAreNeverKept(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		doc := vocab.ContentID{1}
		made, err := w.NewDocument(t.Context(), doc)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			k, err := w.OpenDocument(t.Context(), doc, made.Generation, made.Wrap)
			if err != nil || !k.Secret.Equal(made.Secret) {
				t.Fatalf("open %d: %v", i, err)
			}
			k.Release()
			w.wantCalls(i + 1)
		}
		if _, err := w.OpenDocument(t.Context(), vocab.ContentID{2}, made.Generation, made.Wrap); !errors.Is(err, vocab.ReasonCustodyIntegrity) {
			t.Errorf("as another document: %v", err)
		}
		if _, err := w.OpenDocument(t.Context(), doc, vocab.NewGenerationID(), made.Wrap); !errors.Is(err, vocab.ReasonCustodyIntegrity) {
			t.Errorf("as another generation: %v", err)
		}
		w.cust.set(sealed)
		if _, err := w.OpenDocument(t.Context(), doc, made.Generation, made.Wrap); !errors.Is(err, vocab.ReasonCustodianSealed) {
			t.Errorf("sealed: %v", err)
		}
	})
}

func TestOpensAreCoalesced(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		type doc struct {
			id  vocab.ContentID
			key *keys.Key
		}
		var docs []doc
		for i := range 300 {
			id := vocab.ContentID{1, byte(i), byte(i >> 8)}
			k, err := w.NewDocument(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			docs = append(docs, doc{id, k})
		}
		w.cust.delay = 10 * time.Millisecond
		start := time.Now()
		var all sync.WaitGroup
		for i, d := range docs {
			all.Go(func() {
				if i%100 == 7 { // a damaged one must not hurt the others
					bad := d.key.Wrap
					bad.Ciphertext = append([]byte{^bad.Ciphertext[0]}, bad.Ciphertext[1:]...)
					if _, err := w.OpenDocument(t.Context(), d.id, d.key.Generation, bad); !errors.Is(err, vocab.ReasonCustodyIntegrity) {
						t.Errorf("damaged: %v", err)
					}
					return
				}
				k, err := w.OpenDocument(t.Context(), d.id, d.key.Generation, d.key.Wrap)
				if err != nil || !k.Secret.Equal(d.key.Secret) {
					t.Errorf("document %d: %v", i, err)
				}
				k.Release()
			})
		}
		all.Wait()
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("300 opens of 10 ms took %s of the test's clock", took)
		}
		items := 0
		for _, c := range w.cust.log() {
			items += c.items
		}
		if items != 300 || len(w.cust.log()) > 10 {
			t.Errorf("%d items in %d calls, want one decrypt per open in few calls", items, len(w.cust.log()))
		}
	})
}

func TestCustodianThatLies(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		for name, lie := range map[string]func([]keys.UnwrapResult){
			"another secret": func(rs []keys.UnwrapResult) { rs[0].Secret = vocab.NewSecret() },
			"nothing":        func(rs []keys.UnwrapResult) { rs[0].Secret = nil },
		} {
			w.cust.tamper = lie
			w.want(name, vocab.ReasonCustodyIntegrity)
			time.Sleep(time.Second)
		}
		w.cust.tamper = nil
		w.want("the truth", "")
	})
}

func TestEditedRecords(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		if _, err := w.NewGeneration(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.records.Edit(func(rs []keys.Record) { rs[0].Wrap, rs[1].Wrap = rs[1].Wrap, rs[0].Wrap })
		w.start()
		w.want("wraps exchanged", vocab.ReasonCustodyIntegrity)
		w.records.Edit(func(rs []keys.Record) {
			rs[0].Wrap, rs[1].Wrap = rs[1].Wrap, rs[0].Wrap
			rs[0].Signed[len(rs[0].Signed)-1] ^= 1
		})
		w.start()
		es := w.Inventory()
		if !errors.Is(es[0].Err, vocab.ReasonStoreDamaged) || es[1].Err != nil {
			t.Errorf("a changed record and a good one: %v, %v", es[0].Err, es[1].Err)
		}
	})
}

func TestGenerationsRollOver(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		old, err := w.Active(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		e, err := w.NewGeneration(t.Context())
		if err != nil || e.Number != 2 {
			t.Fatalf("%+v, %v", e, err)
		}
		now, err := w.Active(t.Context())
		if err != nil || now.Generation != e.ID || now.Secret.Equal(old.Secret) {
			t.Errorf("active after a new generation: %+v, %v", now, err)
		}
		if again, err := w.Open(t.Context(), old.Generation); err != nil || !again.Secret.Equal(old.Secret) {
			t.Errorf("the old one: %v", err)
		}
		w.start()
		if again, err := w.Open(t.Context(), old.Generation); err != nil || !again.Secret.Equal(old.Secret) {
			t.Errorf("the old one after a restart: %v", err)
		}
	})
}

func TestNewGenerationFailsWhole(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		for _, mood := range []error{sealed, switchOff} {
			w.cust.set(mood)
			if _, err := w.NewGeneration(t.Context()); vocab.ReasonOf(err) != vocab.ReasonOf(mood) {
				t.Errorf("got %v, want %v", err, mood)
			}
		}
		w.cust.set(nil)
		w.records.Fail = func(string) error { return vocab.Errorf(vocab.ReasonStoreFull, "test: full") }
		if _, err := w.NewGeneration(t.Context()); !errors.Is(err, vocab.ReasonStoreFull) {
			t.Errorf("got %v", err)
		}
		if es := w.Inventory(); len(es) != 1 || es[0].State != keys.Active {
			t.Errorf("a failed generation left %+v", es)
		}
		w.records.Fail = nil
		w.want("the one before", "")
	})
}

func TestSync(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		sync := func() keys.Change {
			t.Helper()
			cs, err := w.Sync(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return cs[w.cust.ID()]
		}
		if c := sync(); c.Err != nil || c.RootRotated || c.SignRotated {
			t.Errorf("first: %+v", c)
		}
		if _, err := w.cust.Rotate(t.Context(), "root"); err != nil {
			t.Fatal(err)
		}
		if c := sync(); c.Err != nil || !c.RootRotated || c.SignRotated {
			t.Errorf("after a rotation: %+v", c)
		}
		w.want("before", "")
		w.cust.set(sealed)
		if c := sync(); !errors.Is(c.Err, vocab.ReasonCustodianSealed) {
			t.Errorf("sealed: %+v", c)
		}
		w.want("an outage takes nothing", "")
		w.cust.set(switchOff)
		if c := sync(); !errors.Is(c.Err, vocab.ReasonCustodianRefused) {
			t.Errorf("refused: %+v", c)
		}
		if len(w.Held()) != 0 {
			t.Error("a refusal found by Sync left a copy")
		}
		w.cust.set(nil)
		w.want("after it", "")
		// Versions that were there are gone: restored from an old copy.
		id := w.cust.ID()
		m, _ := w.records.Mark(t.Context(), id)
		m.RootLatest = 9
		_ = w.records.SetMark(t.Context(), m, nil)
		if c := sync(); !errors.Is(c.Err, vocab.ReasonCustodianChanged) {
			t.Errorf("gone back: %+v", c)
		}
		w.want("barred", vocab.ReasonCustodianChanged)
		m.RootLatest = 2
		_ = w.records.SetMark(t.Context(), m, nil)
		sync()
		w.want("in order again", "")
	})
}

func TestLimitsAreBounded(t *testing.T) {
	for _, l := range []keys.Limits{{TTL: time.Second}, {TTL: 2 * time.Hour}, {Grace: -1}, {Grace: 25 * time.Hour}} {
		c := keys.RingConfig{Tenant: tenant, Records: custodiantest.NewRecords(), Limits: l}
		if _, err := keys.NewRing(t.Context(), c); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestShorterTTLAppliesToWhatIsHeld(t *testing.T) {
	inTime(t, keys.Limits{TTL: time.Hour}, func(t *testing.T, w *world) {
		w.want("at first", "")
		time.Sleep(time.Minute)
		w.cust.set(sealed)
		if err := w.SetLimits(keys.Limits{TTL: 30 * time.Second}); err != nil {
			t.Fatal(err)
		}
		w.want("over the new TTL", vocab.ReasonCustodianSealed)
		synctest.Wait()
		if len(w.Held()) != 0 {
			t.Error("the copy is held beyond the new TTL")
		}
	})
}

// A custodian that was set back to an older copy wraps under a version that was
// not the newest any more. Nothing is published under it, and what it unwrapped
// is dropped.
func TestNothingIsWrappedByOneThatWasSetBack(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		w.want("before", "")
		w.TakeKey(keys.KeyStates{Key: w.cust.ID(), State: keys.Active, Latest: 2})
		if _, err := w.NewDocument(t.Context(), vocab.ContentID{1}); !errors.Is(err, vocab.ReasonCustodianChanged) {
			t.Errorf("a document: %v", err)
		}
		if _, err := w.NewGeneration(t.Context()); !errors.Is(err, vocab.ReasonCustodianChanged) {
			t.Errorf("a generation: %v", err)
		}
		if len(w.Held()) != 0 {
			t.Error("what it unwrapped is held")
		}
		w.TakeKey(keys.KeyStates{Key: w.cust.ID(), State: keys.Active, Latest: 1})
		if _, err := w.NewDocument(t.Context(), vocab.ContentID{1}); err != nil {
			t.Errorf("in order again: %v", err)
		}
	})
}
