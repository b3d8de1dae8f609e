package audit

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// view runs fn on a snapshot of the log's store.
func view(t *testing.T, l *Log, fn func(r store.Reader) error) {
	t.Helper()
	if err := l.store.View(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// about is an event about a license; revision and state may be zero.
func about(c vocab.ContentID, revision uint32, state byte) *Event {
	e := event(tenantA, 1)
	e.Content, e.LicenseRevision = c, revision
	e.State[0] = state
	return e
}

var licenseA, licenseB = vocab.ContentID(id7(0x41)), vocab.ContentID(id7(0x42))

func TestStateIsInTheLeaf(t *testing.T) {
	e := about(licenseA, 1, 9)
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseEvent(b)
	if diff := cmp.Diff(e, got); diff != "" || err != nil {
		t.Errorf("read back: %v\n%s", err, diff)
	}
	with, _ := e.LeafHash()
	e.State = [32]byte{}
	without, _ := e.LeafHash()
	if with == without {
		t.Error("the record's hash does not change the leaf")
	}
}

func TestFindAndProve(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 9)
	series(t, l, tenantB, 3)
	view(t, l, func(r store.Reader) error {
		for i, want := range es {
			e, err := Find(r, tenantA, want.ID)
			if err != nil || e.Index != uint64(i) || e.Event.ID != want.ID {
				t.Fatalf("event %d: at %d, %v", i, e.Index, err)
			}
			if err := Prove(r, tenantA, e); err != nil {
				t.Errorf("event %d: %v", i, err)
			}
			// What is true of one tree is not of another.
			if err := Prove(r, tenantB, e); !errors.Is(err, vocab.ReasonLogDamaged) {
				t.Errorf("event %d, in another tenant's log: %v", i, err)
			}
			moved := e
			moved.Index = (e.Index + 1) % uint64(len(es))
			if err := Prove(r, tenantA, moved); !errors.Is(err, vocab.ReasonLogDamaged) {
				t.Errorf("event %d, in another's place: %v", i, err)
			}
		}
		for name, in := range map[string]vocab.TenantID{"unknown": tenantA, "another tenant's": tenantB} {
			id := es[0].ID
			if name == "unknown" {
				id = newEventID()
			}
			if _, err := Find(r, in, id); !errors.Is(err, vocab.ReasonResourceNotFound) {
				t.Errorf("%s event: %v, want RESOURCE_NOT_FOUND", name, err)
			}
		}
		return nil
	})
}

// An event that was rewritten is found by its hash; with its hash rewritten
// too, by the tree.
func TestFindAndProveNoticeAChangedEvent(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 9)
	const at = 4
	forged := *es[at]
	forged.Principal.Name = "nobody@contoso.test"
	leaf, err := forged.Encode()
	if err != nil {
		t.Fatal(err)
	}
	change(t, l, func(tx store.Tx) error { return tx.Put(tableEvents, key(tenantA, u64(at)), leaf) })
	view(t, l, func(r store.Reader) error {
		if _, err := Find(r, tenantA, forged.ID); !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("the event alone: %v, want LOG_DAMAGED", err)
		}
		return nil
	})
	hash := HashLeaf(leaf)
	change(t, l, func(tx store.Tx) error {
		return tx.Put(tableHashes, key(tenantA, u64(uint64(tlog.StoredHashIndex(0, at)))), hash[:])
	})
	view(t, l, func(r store.Reader) error {
		e, err := Find(r, tenantA, forged.ID)
		if err != nil {
			t.Fatalf("the event and its hash agree: %v", err)
		}
		if err := Prove(r, tenantA, e); !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("the event and its hash: %v, want LOG_DAMAGED", err)
		}
		return nil
	})
}

func TestLatestRevisionAndLastWriter(t *testing.T) {
	l := newLog(t)
	written := about(licenseA, 1, 1)
	revised := about(licenseA, 3, 2)
	later := about(licenseA, 0, 0) // somebody opened it
	appendAll(t, l, written, about(licenseB, 9, 9), about(licenseA, 1, 0), revised, later)
	other := event(tenantB, 1)
	other.Content, other.LicenseRevision, other.State = licenseA, 8, [32]byte{8}
	appendAll(t, l, other)
	view(t, l, func(r store.Reader) error {
		if n, err := LatestRevision(r, tenantA, licenseA); n != 3 || err != nil {
			t.Errorf("revision %d, %v; want 3", n, err)
		}
		e, err := LastWriter(r, tenantA, licenseA)
		if err != nil || e == nil || e.ID != revised.ID {
			t.Errorf("last writer %+v, %v; want %s", e, err, revised.ID)
		}
		unknown := vocab.ContentID(id7(0x43))
		if n, err := LatestRevision(r, tenantA, unknown); n != 0 || err != nil {
			t.Errorf("of an unknown license: revision %d, %v", n, err)
		}
		if e, err := LastWriter(r, tenantA, unknown); e != nil || err != nil {
			t.Errorf("of an unknown license: %+v, %v", e, err)
		}
		return nil
	})
}

// Behind many events that name no revision, the search for one ends; that for
// the writer does not, since it is for the check of the whole store.
func TestLatestRevisionIsBounded(t *testing.T) {
	for _, c := range []struct {
		after int
		want  uint32
	}{{maxNewest - 1, 5}, {maxNewest, 0}} {
		l := newLog(t)
		wrote := about(licenseA, 5, 1)
		appendAll(t, l, wrote)
		for range c.after {
			appendAll(t, l, about(licenseA, 0, 0))
		}
		view(t, l, func(r store.Reader) error {
			if n, err := LatestRevision(r, tenantA, licenseA); n != c.want || err != nil {
				t.Errorf("%d events later: revision %d, %v; want %d", c.after, n, err, c.want)
			}
			if e, err := LastWriter(r, tenantA, licenseA); err != nil || e == nil || e.ID != wrote.ID {
				t.Errorf("%d events later: last writer %+v, %v", c.after, e, err)
			}
			return nil
		})
	}
}

func TestDamagedIndexOfLicenses(t *testing.T) {
	for name, bad := range map[string][]byte{
		"a row of another length":     key(tenantA, licenseA[:], []byte{1}),
		"a row of an event not there": key(tenantA, licenseA[:], u64(99)),
	} {
		l := newLog(t)
		appendAll(t, l, about(licenseA, 1, 1))
		change(t, l, func(tx store.Tx) error { return tx.Put(tableLicense, bad, nil) })
		view(t, l, func(r store.Reader) error {
			if _, err := LatestRevision(r, tenantA, licenseA); !errors.Is(err, vocab.ReasonLogDamaged) {
				t.Errorf("%s: revision: %v, want LOG_DAMAGED", name, err)
			}
			if _, err := LastWriter(r, tenantA, licenseA); !errors.Is(err, vocab.ReasonLogDamaged) {
				t.Errorf("%s: writer: %v, want LOG_DAMAGED", name, err)
			}
			return nil
		})
	}
}

// One prover proves every event, in any order, in logs of every small size, and
// no other: neither before it has proven the true one nor after.
func TestProverProvesMany(t *testing.T) {
	for n := 1; n <= 17; n++ {
		l := newLog(t)
		es := series(t, l, tenantA, n)
		view(t, l, func(r store.Reader) error {
			p, err := NewProver(r, tenantA)
			if err != nil {
				t.Fatal(err)
			}
			for i := range es {
				e, err := Find(r, tenantA, es[i*19%n].ID)
				if err != nil {
					t.Fatal(err)
				}
				forged, beyond := e, e
				forged.Leaf = append(slices.Clone(e.Leaf), 0)
				beyond.Index = uint64(n)
				refused := func() {
					t.Helper()
					if err := p.Prove(forged); !errors.Is(err, vocab.ReasonLogDamaged) {
						t.Errorf("event %d of %d, altered: %v, want LOG_DAMAGED", e.Index, n, err)
					}
					if err := p.Prove(beyond); !errors.Is(err, vocab.ReasonLogDamaged) {
						t.Errorf("event %d of %d, beyond the end: %v, want LOG_DAMAGED", e.Index, n, err)
					}
				}
				refused()
				if err := p.Prove(e); err != nil {
					t.Errorf("event %d of %d: %v", e.Index, n, err)
				}
				refused()
			}
			return nil
		})
	}
}

// TestProverNoticesEveryChangedHash alters every stored hash in turn and proves
// all events, from the first to the last and the other way: in one of the two
// orders the hash is one that an event's path needs, and then the event is
// refused. Whatever is refused or not, an altered event never passes.
func TestProverNoticesEveryChangedHash(t *testing.T) {
	const n = 11
	l := newLog(t)
	es := series(t, l, tenantA, n)
	view(t, l, func(r store.Reader) error {
		for at := range tlog.StoredHashCount(n) {
			k := key(tenantA, u64(uint64(at)))
			stored, _, err := r.Get(tableHashes, k)
			if err != nil {
				t.Fatal(err)
			}
			stored[0] ^= 1
			noticed := false
			for _, order := range [][]*Event{es, reversed(es)} {
				p, err := NewProver(altered{r, string(k), stored}, tenantA)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range order {
					e, err := Find(r, tenantA, want.ID)
					if err != nil {
						t.Fatal(err)
					}
					if err := p.Prove(e); errors.Is(err, vocab.ReasonLogDamaged) {
						noticed = true
					} else if err != nil {
						t.Fatal(err)
					}
					e.Leaf = append(slices.Clone(e.Leaf), 0)
					if err := p.Prove(e); !errors.Is(err, vocab.ReasonLogDamaged) {
						t.Errorf("with the stored hash %d altered, event %d passes altered: %v", at, e.Index, err)
					}
				}
			}
			if !noticed {
				t.Errorf("nothing rests on the stored hash %d", at)
			}
		}
		return nil
	})
}

func reversed(es []*Event) []*Event {
	out := slices.Clone(es)
	slices.Reverse(out)
	return out
}

// altered is a snapshot in which one stored hash is another.
type altered struct {
	store.Reader
	key  string
	hash []byte
}

func (a altered) Get(table store.Table, key []byte) ([]byte, bool, error) {
	if table == tableHashes && string(key) == a.key {
		return a.hash, true, nil
	}
	return a.Reader.Get(table, key)
}
