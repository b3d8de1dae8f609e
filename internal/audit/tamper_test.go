package audit

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// row is a row of the store as someone with the file could change it.
type row struct {
	table      store.Table
	key, value []byte
}

func change(t *testing.T, l *Log, fn func(tx store.Tx) error) {
	t.Helper()
	if err := l.store.Commit(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func rowsOf(t *testing.T, l *Log) (rows []row) {
	t.Helper()
	err := l.store.View(t.Context(), func(r store.Reader) error {
		for _, table := range []store.Table{tableEvents, tableHashes, tableHeads, tableIDs, tableTimes, tableLicense, tableTargets} {
			for item, err := range r.Scan(table, store.Range{Prefix: key(tenantA)}) {
				if err != nil {
					return err
				}
				rows = append(rows, row{table, item.Key, item.Value})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func wantDamage(t *testing.T, l *Log, what string, at uint64, cs ...Checkpoint) {
	t.Helper()
	rep, err := l.Verify(t.Context(), tenantA, cs...)
	if !errors.Is(err, vocab.ReasonLogDamaged) || rep.Bad == nil {
		t.Errorf("%s: not noticed (%v)", what, err)
		return
	}
	if rep.Bad.Index != at {
		t.Errorf("%s: found at position %d, want %d: %s", what, rep.Bad.Index, at, rep.Bad.Problem)
	}
}

func wantSound(t *testing.T, l *Log, cs ...Checkpoint) {
	t.Helper()
	if rep, err := l.Verify(t.Context(), tenantA, cs...); err != nil {
		t.Fatalf("%v: %+v", err, rep.Bad)
	}
}

func checkpoint(t *testing.T, l *Log) Checkpoint {
	t.Helper()
	c, err := l.Checkpoint(t.Context(), tenantA, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Every byte of every event, changed in any of its bits or cut off, is found
// at its place.
func TestEveryEventByte(t *testing.T) {
	l := newLog(t)
	series(t, l, tenantA, 7)
	appendAll(t, l, fullEvent())
	series(t, l, tenantA, 2)
	for _, r := range rowsOf(t, l) {
		if r.table != tableEvents {
			continue
		}
		n := uint64(r.key[len(r.key)-1])
		for i := range r.value {
			for _, v := range [][]byte{flipped(r.value, i), r.value[:i]} {
				err := l.store.Commit(t.Context(), func(tx store.Tx) error {
					if err := tx.Put(r.table, r.key, v); err != nil {
						return err
					}
					// Looked at inside the transaction, which is then
					// dropped: thousands of changes without a disk.
					v := verification{t: tenantA}
					if err := v.events(tx, 0, 10); err != nil {
						return err
					}
					if v.bad == nil || v.bad.Index != n {
						return fmt.Errorf("event %d, byte %d: %+v", n, i, v.bad)
					}
					return errDropped
				})
				if !errors.Is(err, errDropped) {
					t.Fatal(err)
				}
			}
		}
	}
	wantSound(t, l)
}

var errDropped = errors.New("dropped")

func flipped(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 1 << (i % 8)
	return c
}

// Every single row changed or removed is noticed.
func TestEveryRow(t *testing.T) {
	l := newLog(t)
	series(t, l, tenantA, 9)
	c := checkpoint(t, l)
	for _, r := range rowsOf(t, l) {
		what := fmt.Sprintf("%s %x", r.table, r.key[16:])
		change(t, l, func(tx store.Tx) error { return tx.Delete(r.table, r.key) })
		if rep, err := l.Verify(t.Context(), tenantA, c); !errors.Is(err, vocab.ReasonLogDamaged) || rep.Bad == nil {
			t.Errorf("%s removed: not noticed", what)
		}
		if len(r.value) > 0 {
			change(t, l, func(tx store.Tx) error { return tx.Put(r.table, r.key, flipped(r.value, len(r.value)-1)) })
			if _, err := l.Verify(t.Context(), tenantA, c); !errors.Is(err, vocab.ReasonLogDamaged) {
				t.Errorf("%s changed: not noticed", what)
			}
		}
		change(t, l, func(tx store.Tx) error { return tx.Put(r.table, r.key, r.value) })
	}
	wantSound(t, l, c)
}

// Rows that do not belong are noticed.
func TestRowsTooMany(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 6)
	leaf, err := es[0].Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []row{
		{tableEvents, key(tenantA, u64(6)), leaf},
		{tableEvents, key(tenantA, u64(1<<60)), leaf},
		{tableHashes, key(tenantA, u64(1<<40)), make([]byte, 32)},
		{tableIDs, key(tenantA, idBytes(id7(9))), u64(2)},
		{tableIDs, key(tenantA, idBytes(id7(9))), u64(200)},
		{tableTimes, key(tenantA, u64(5), u64(1)), nil},
		{tableLicense, key(tenantA, idBytes(id7(1)), u64(2)), nil},
		{tableTargets, key(tenantA, targetKey("settings"), u64(2)), nil},
	} {
		change(t, l, func(tx store.Tx) error { return tx.Put(r.table, r.key, r.value) })
		wantDamage(t, l, fmt.Sprintf("%s %x", r.table, r.key[16:]), 6)
		change(t, l, func(tx store.Tx) error { return tx.Delete(r.table, r.key) })
	}
	// An empty log, too.
	change(t, l, func(tx store.Tx) error { return tx.Put(tableEvents, key(tenantB, u64(0)), leaf) })
	if _, err := l.Verify(t.Context(), tenantB); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("an event in an empty log: %v", err)
	}
	wantSound(t, l)
}

func TestEventsMoved(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 8)
	leaves := leavesOf(t, es)
	other := series(t, l, tenantB, 1)
	foreign := leavesOf(t, other)
	put := func(n int, b []byte) func(store.Tx) error {
		return func(tx store.Tx) error { return tx.Put(tableEvents, key(tenantA, u64(uint64(n))), b) }
	}
	change(t, l, func(tx store.Tx) error { return errors.Join(put(2, leaves[5])(tx), put(5, leaves[2])(tx)) })
	wantDamage(t, l, "two swapped", 2)
	change(t, l, func(tx store.Tx) error { return errors.Join(put(2, leaves[2])(tx), put(5, leaves[4])(tx)) })
	wantDamage(t, l, "one doubled", 5)
	change(t, l, put(5, foreign[0]))
	wantDamage(t, l, "another tenant's", 5)
	if _, err := l.Get(t.Context(), tenantA, es[5].ID); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("reading it: %v", err)
	}
	change(t, l, put(5, leaves[5]))
	wantSound(t, l)

	// An index that leads to another event is not followed.
	change(t, l, func(tx store.Tx) error { return tx.Put(tableIDs, key(tenantA, es[1].ID[:]), u64(2)) })
	if _, err := l.Get(t.Context(), tenantA, es[1].ID); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("a bent index: %v", err)
	}
	change(t, l, func(tx store.Tx) error { return tx.Put(tableIDs, key(tenantA, es[1].ID[:]), nil) })
	if _, err := l.Get(t.Context(), tenantA, es[1].ID); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("an empty index: %v", err)
	}
}

// Someone who can write the store, and who computes every hash and index anew,
// is caught by any checkpoint taken before.
func TestRewrittenLog(t *testing.T) {
	l := newLog(t)
	es := series(t, l, tenantA, 4)
	early := checkpoint(t, l)
	es = append(es, series(t, l, tenantA, 6)...)
	late := checkpoint(t, l)

	forged := newLog(t)
	for i, e := range es {
		if i == 6 {
			e.Reason, e.Kind = "", KindReleased
			e.Principal.Name = "eve@contoso.test"
		}
		appendAll(t, forged, e)
	}
	wantSound(t, forged)
	if err := forged.Continues(t.Context(), late); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("Continues: %v", err)
	}
	wantSound(t, forged, early)
	wantDamage(t, forged, "one event replaced", 4, late, early)

	// Cut off, and cut off and grown again.
	short := newLog(t)
	appendAll(t, short, es[:5]...)
	if err := short.Continues(t.Context(), late); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("a shorter log continues: %v", err)
	}
	wantDamage(t, short, "cut off", 5, late, early)
	series(t, short, tenantA, 20)
	if err := short.Continues(t.Context(), late); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("a log cut off and grown again continues: %v", err)
	}
	wantDamage(t, short, "cut off and grown again", 4, late, early)
}

// A log that contradicts itself is not continued.
func TestAppendToDamagedLog(t *testing.T) {
	l := newLog(t)
	series(t, l, tenantA, 3)
	for _, c := range []struct {
		name string
		row  row
	}{
		{"size set back", row{tableHeads, key(tenantA), u64(2)}},
		{"size unreadable", row{tableHeads, key(tenantA), []byte{1}}},
		{"size absurd", row{tableHeads, key(tenantA), u64(1 << 60)}},
		{"hash unreadable", row{tableHashes, key(tenantA, u64(uint64(tlog.StoredHashIndex(0, 2)))), []byte{1}}},
	} {
		var old []byte
		change(t, l, func(tx store.Tx) (err error) {
			old, _, err = tx.Get(c.row.table, c.row.key)
			return errors.Join(err, tx.Put(c.row.table, c.row.key, c.row.value))
		})
		err := l.store.Commit(t.Context(), func(tx store.Tx) error { return l.Append(tx, event(tenantA, 1)) })
		if !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("%s: %v, want LOG_DAMAGED", c.name, err)
		}
		change(t, l, func(tx store.Tx) error { return tx.Put(c.row.table, c.row.key, old) })
	}
	appendAll(t, l, event(tenantA, 1))
	wantSound(t, l)
}
