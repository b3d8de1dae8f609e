package keys_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// rotate makes a new version of the world's key.
func (w *world) rotate() keys.VersionID {
	w.t.Helper()
	if _, err := w.cust.RotateRoot(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return newest(w.t, w.cust)
}

// document makes a document's own generation and says how a rewrap is asked for
// it.
func (w *world) document(c vocab.ContentID) (*keys.Key, keys.UnwrapItem) {
	w.t.Helper()
	k, err := w.NewDocument(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return k, keys.UnwrapItem{Binding: keys.DocumentBinding(tenant, k.Generation, c), Wrap: k.Wrap}
}

func TestRewrap(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		before, err := w.Active(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if rs, err := w.rewrapTo(newest(t, w.cust), 10); err != nil || len(rs) != 0 {
			t.Errorf("with nothing to do: %v, %v", rs, err)
		}
		to := w.rotate()
		if n := w.OldGenerations(to); n != 1 {
			t.Errorf("%d generations to move, want 1", n)
		}
		rs, err := w.rewrapTo(to, 10)
		if err != nil || len(rs) != 1 || rs[0].Err != nil || rs[0].To.Version != 2 || w.OldGenerations(to) != 0 {
			t.Fatalf("Rewrap: %+v, %v", rs, err)
		}
		if err := w.cust.Destroy(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		w.start()
		after, err := w.Active(t.Context())
		if err != nil || !after.Secret.Equal(before.Secret) {
			t.Errorf("without the old version: %v", err)
		}
	})
}

// A thousand generations are moved in batches of two calls each, and none stays
// unwrapped in memory because of it.
func TestRewrapInBatches(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		for range 999 {
			if _, err := w.NewGeneration(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		to := w.rotate()
		w.cust.forget()
		rs, err := w.rewrapTo(to, keys.MoveBatch)
		if err != nil || len(rs) != 1000 {
			t.Fatalf("%d moved: %v", len(rs), err)
		}
		for _, r := range rs {
			if r.Err != nil || r.To != to {
				t.Fatalf("g%d: %+v", r.Number, r)
			}
		}
		w.wantCalls(4) // of Unwrap
		if held := w.Held(); len(held) != 0 {
			t.Errorf("%d generations are held that nobody used", len(held))
		}
	})
}

// What is in use while its wrap is moved goes on being used, and says which call
// it came from.
func TestRewrapOfWhatIsInUse(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		before, err := w.Open(t.Context(), w.id(1))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		to := w.rotate()
		if _, err := w.rewrapTo(to, 10); err != nil {
			t.Fatal(err)
		}
		w.cust.forget()
		after, err := w.Open(t.Context(), w.id(1))
		if err != nil || after.Wrap.L0Version != 2 || !after.Asked.After(before.Asked) || !after.Secret.Equal(before.Secret) {
			t.Errorf("%+v, %v", after, err)
		}
		w.wantCalls(0)
	})
}

// Whatever goes wrong, the old wrap stays in force, the rest is moved, and what
// can only come from an exchange is not tried again by itself.
func TestRewrapThatFails(t *testing.T) {
	failed := errors.New("the records cannot be written")
	for name, c := range map[string]struct {
		prepare func(w *world)
		put     error
		want    vocab.Reason // of the call; item below
		item    map[uint32]vocab.Reason
	}{
		"the custodian is away":       {prepare: func(w *world) { w.cust.set(outOfReach) }, want: vocab.ReasonCustodianUnreachable},
		"it refuses":                  {prepare: func(w *world) { w.cust.set(switchOff) }, want: vocab.ReasonCustodianRefused},
		"the records cannot be had":   {put: failed, want: vocab.ReasonInternal},
		"one answer too few":          {prepare: func(w *world) { w.cust.short = true }, want: vocab.ReasonCustodyIntegrity},
		"another secret for g2":       {prepare: func(w *world) { w.cust.tamper = lieAbout(1) }, item: map[uint32]vocab.Reason{2: vocab.ReasonCustodyIntegrity}},
		"answers in another order":    {prepare: func(w *world) { w.cust.tamper = swap }, item: map[uint32]vocab.Reason{1: vocab.ReasonCustodyIntegrity, 2: vocab.ReasonCustodyIntegrity}},
		"an old wrap comes back":      {prepare: func(w *world) { w.cust.stale = true }, item: map[uint32]vocab.Reason{1: vocab.ReasonCustodyIntegrity, 2: vocab.ReasonCustodyIntegrity, 3: vocab.ReasonCustodyIntegrity}},
		"the newest version is taken": {prepare: func(w *world) { w.suspendVersion(2) }, want: vocab.ReasonKeySuspended},
		"the key is suspended":        {prepare: func(w *world) { w.TakeKey(keys.KeyStates{Key: w.cust.ID(), State: keys.Suspended}) }},
		"the key of the next wrap":    {prepare: func(w *world) { w.Activate(newCustodian(w.t)) }, want: vocab.ReasonKeyState},
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
				for range 2 {
					if _, err := w.NewGeneration(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				w.Flush()
				to := w.rotate()
				if c.prepare != nil {
					c.prepare(w)
				}
				rs, err := w.Rewrap(t.Context(), to, 10, func(uint32) bool { return false }, func(changes []keys.WrapChange) error {
					if c.put != nil {
						return c.put
					}
					return w.put(changes)
				})
				if vocab.ReasonOf(err) != c.want {
					t.Fatalf("%v, want %q", err, c.want)
				}
				moved := map[uint32]bool{}
				for _, r := range rs {
					if got := vocab.ReasonOf(r.Err); got != c.item[r.Number] {
						t.Errorf("g%d: %v, want %q", r.Number, r.Err, c.item[r.Number])
					}
					moved[r.Number] = r.Err == nil
				}
				for _, e := range w.Inventory() {
					want := uint32(1)
					if moved[e.Number] {
						want = 2
					}
					if e.Version.Version != want {
						t.Errorf("g%d is under version %d, want %d", e.Number, e.Version.Version, want)
					}
				}
			})
		})
	}
}

// lieAbout answers the i-th item with another secret.
func lieAbout(i int) func([]keys.UnwrapResult) {
	return func(rs []keys.UnwrapResult) {
		if len(rs) > i {
			rs[i].Secret = vocab.NewSecret()
		}
	}
}

func swap(rs []keys.UnwrapResult) {
	if len(rs) > 1 {
		rs[0], rs[1] = rs[1], rs[0]
	}
}

func (w *world) suspendVersion(n uint32) {
	w.t.Helper()
	if err := w.SetVersionState(keys.VersionID{Custodian: w.cust.ID(), Version: n}, keys.Suspended); err != nil {
		w.t.Fatal(err)
	}
}

func TestMoveToAnotherCustodian(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		before, _ := w.Active(t.Context())
		doc := vocab.ContentID{5}
		d, item := w.document(doc)
		next := newCustodian(t)
		oldRoots := w.config.Roots
		w.config.Roots = func() (all []ed25519Key) { return append(oldRoots(), rootsOf(t, next.Keyring)...) }
		w.config.Custodians = []keys.Custodian{next, w.cust}
		w.start()
		to := newest(t, next)
		rs, err := w.rewrapTo(to, 10)
		if err != nil || len(rs) != 1 || rs[0].Err != nil || rs[0].To != to {
			t.Fatalf("Rewrap: %+v, %v", rs, err)
		}
		moved, err := w.RewrapDocuments(t.Context(), to, []keys.UnwrapItem{item})
		if err != nil || moved[0].Err != nil || !moved[0].Secret.Equal(d.Secret) {
			t.Fatalf("RewrapDocuments: %+v, %v", moved, err)
		}
		w.cust.set(outOfReach)
		w.start()
		after, err := w.Active(t.Context())
		if err != nil || !after.Secret.Equal(before.Secret) {
			t.Errorf("a generation, without the old custodian: %v", err)
		}
		k, err := w.OpenDocument(t.Context(), doc, d.Generation, moved[0].Wrap)
		if err != nil || !k.Secret.Equal(d.Secret) {
			t.Errorf("a document, without the old custodian: %v", err)
		}
		// Becoming the active one is a state like any other.
		w.cust.set(nil)
		w.TakeKey(keys.KeyStates{Key: w.cust.ID(), Name: "root", State: keys.Active})
		if back, err := w.NewDocument(t.Context(), doc); err != nil || back.Wrap.Custodian != w.cust.ID() {
			t.Errorf("what is new is under %+v (%v), want the key that became active", back, err)
		}
	})
}

// Documents are moved in one call for all, each with an answer of its own.
func TestRewrapDocuments(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		var docs []*keys.Key
		var items []keys.UnwrapItem
		for i := range byte(9) {
			d, item := w.document(vocab.ContentID{i + 1})
			docs, items = append(docs, d), append(items, item)
		}
		to := w.rotate()
		items[4].Binding = items[3].Binding // somebody exchanged two wraps
		items[7].Wrap.Ciphertext = append([]byte("TEST"), items[7].Wrap.Ciphertext[4:]...)
		w.cust.forget()
		moved, err := w.RewrapDocuments(t.Context(), to, items)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range moved {
			if i == 4 || i == 7 {
				if !errors.Is(m.Err, vocab.ReasonCustodyIntegrity) || m.Secret != nil {
					t.Errorf("document %d: %v, want CUSTODY_INTEGRITY", i, m.Err)
				}
				continue
			}
			if m.Err != nil || m.Wrap.L0Version != 2 || !m.Secret.Equal(docs[i].Secret) {
				t.Errorf("document %d: version %d, %v", i, m.Wrap.L0Version, m.Err)
			}
		}
		w.wantCalls(1)
	})
}

// What a reseal may open that nobody else may, and what it may not open either.
func TestOpenForReseal(t *testing.T) {
	type state struct{ generation, version, key keys.State }
	const open, none = vocab.Reason(""), keys.State(0)
	for _, c := range []struct {
		state
		users, reseal vocab.Reason
	}{
		{state{keys.Active, none, none}, open, open},
		{state{keys.Deactivated, none, none}, open, open},
		{state{keys.Suspended, none, none}, vocab.ReasonKeySuspended, vocab.ReasonKeySuspended},
		{state{keys.Compromised, none, none}, vocab.ReasonKeyState, open},
		{state{keys.Destroyed, none, none}, vocab.ReasonKeyState, vocab.ReasonKeyState},
		{state{keys.Deactivated, keys.Compromised, none}, vocab.ReasonKeyState, open},
		{state{keys.Deactivated, keys.Suspended, none}, vocab.ReasonKeySuspended, vocab.ReasonKeySuspended},
		{state{keys.Deactivated, keys.Destroyed, none}, vocab.ReasonKeyState, vocab.ReasonKeyState},
		{state{keys.Deactivated, none, keys.Compromised}, vocab.ReasonKeyState, open},
		{state{keys.Deactivated, none, keys.Suspended}, vocab.ReasonKeySuspended, vocab.ReasonKeySuspended},
		{state{keys.Deactivated, none, keys.Destroyed}, vocab.ReasonKeyState, vocab.ReasonKeyState},
		{state{keys.Compromised, keys.Suspended, none}, vocab.ReasonKeyState, vocab.ReasonKeySuspended},
		{state{keys.Suspended, keys.Compromised, none}, vocab.ReasonKeySuspended, vocab.ReasonKeySuspended},
		{state{keys.Suspended, none, keys.Compromised}, vocab.ReasonKeySuspended, vocab.ReasonKeySuspended},
	} {
		t.Run(fmt.Sprintf("generation %s, version %s, key %s", c.generation, c.version, c.key), func(t *testing.T) {
			inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
				doc := vocab.ContentID{5}
				d, _ := w.document(doc)
				want, err := w.Open(t.Context(), w.id(1))
				if err != nil {
					t.Fatal(err)
				}
				w.take(1, c.generation)
				w.TakeKey(keys.KeyStates{Key: w.cust.ID(), Name: "root", State: c.key, Versions: map[uint32]keys.State{1: c.version}})
				if c.version == none {
					w.TakeKey(keys.KeyStates{Key: w.cust.ID(), Name: "root", State: c.key})
				}
				w.want("users", c.users)
				w.cust.forget()
				k, err := w.OpenForReseal(t.Context(), w.id(1))
				if vocab.ReasonOf(err) != c.reseal || err == nil && !k.Secret.Equal(want.Secret) {
					t.Errorf("a reseal: %v, want %q", err, c.reseal)
				}
				if err := w.MayReseal(w.id(1), nil); vocab.ReasonOf(err) != c.reseal {
					t.Errorf("it may: %v, want %q", err, c.reseal)
				}
				if c.reseal == open && c.users != open && len(w.Held()) != 0 {
					t.Error("what users may not have is held")
				}
				if c.generation != keys.Deactivated {
					return // of documents, only key and version count
				}
				rs, err := w.OpenDocumentsForReseal(t.Context(), []keys.DocumentKey{{Content: doc, Generation: d.Generation, Wrap: d.Wrap}})
				if err != nil || vocab.ReasonOf(rs[0].Err) != c.reseal || rs[0].Err == nil && !rs[0].Secret.Equal(d.Secret) {
					t.Errorf("a document's own: %+v, %v, want %q", rs, err, c.reseal)
				}
				if err := w.MayReseal(d.Generation, &d.Wrap); vocab.ReasonOf(err) != c.reseal {
					t.Errorf("a document's own may: %v, want %q", err, c.reseal)
				}
			})
		})
	}
}

// take gives a generation a state, whatever moves there are.
func (w *world) take(number uint32, s keys.State) {
	w.t.Helper()
	w.records.Edit(func(rs []keys.Record) {
		for i := range rs {
			if rs[i].Number == number {
				rs[i].State = s
				w.Take(rs[i])
			}
		}
	})
}

// New generations of documents are made and proven by two calls for all of them.
func TestNewDocuments(t *testing.T) {
	inTime(t, keys.Limits{}, func(t *testing.T, w *world) {
		docs := []vocab.ContentID{{1}, {2}, {3}}
		w.cust.forget()
		ks, err := w.NewDocuments(t.Context(), docs)
		if err != nil || len(ks) != 3 {
			t.Fatalf("%d keys: %v", len(ks), err)
		}
		w.wantCalls(1)
		for i, k := range ks {
			again, err := w.OpenDocument(t.Context(), docs[i], k.Generation, k.Wrap)
			if err != nil || !again.Secret.Equal(k.Secret) || k.Mode != vocab.CustodyStrict {
				t.Errorf("document %d: %v", i, err)
			}
		}
		for name, prepare := range map[string]func(){
			"another secret": func() { w.cust.tamper = lieAbout(2) }, "another order": func() { w.cust.tamper = swap },
		} {
			prepare()
			if ks, err := w.NewDocuments(t.Context(), docs); !errors.Is(err, vocab.ReasonCustodyIntegrity) || ks != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		w.cust.tamper = nil
		w.cust.set(sealed)
		if _, err := w.NewDocuments(t.Context(), docs); !errors.Is(err, vocab.ReasonCustodianSealed) {
			t.Errorf("sealed: %v", err)
		}
	})
}
