// Package storetest asks of an implementation of [store.Store] everything the
// contract promises. An implementation's test is one call of [Run].
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Open opens the store kept in dir, creating it if there is none. Opened again
// after Close it must hold what was committed.
type Open func(tb testing.TB, dir string) store.Store

// Run runs the conformance suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"a table nobody wrote to is empty", emptyTable},
		{"what was put is got", putGet},
		{"an empty value is not an absent one", emptyValue},
		{"tables are separate", tablesSeparate},
		{"keys of every length up to the limit", keySizes},
		{"empty and oversized keys and values are refused", limits},
		{"unknown table names are refused", tableNames},
		{"a transaction over its size is dropped", commitLimit},
		{"big values", bigValues},
		{"what is returned belongs to the caller", copies},
		{"what was put may be changed afterwards", putCopies},
		{"scans select by prefix, start and direction", scanRanges},
		{"scans in a transaction see its own writes", scanOwnWrites},
		{"writing during a scan does not disturb it", writeDuringScan},
		{"a scan can be left early", scanBreak},
		{"an error drops the own writes only", rollbackOwn},
		{"a panic is an error and poisons nothing", panics},
		{"a function that ends its goroutine poisons nothing", goexit},
		{"a transaction used after its end is refused", useAfterEnd},
		{"a snapshot used after its end is refused", viewAfterEnd},
		{"a snapshot does not change", snapshot},
		{"a committed write is seen by the next snapshot", readYourWrites},
		{"a cancelled caller's function does not run", cancelledBefore},
		{"a function that runs is reported truthfully", cancelledDuring},
		{"what waits for a commit hears of it, and of nothing else", afterCommit},
		{"concurrent transactions are linear", linear},
		{"concurrent failures drop nothing else", concurrentFailures},
		{"reopening keeps everything", reopen},
		{"closing finishes what was accepted", closeDrains},
		{"a closed store refuses", closed},
		{"a store behaves like a sorted map", model},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

const (
	tableA store.Table = "alpha"
	tableB store.Table = "beta"
)

func start(t *testing.T, open Open) store.Store {
	t.Helper()
	s := open(t, t.TempDir())
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func commit(t testing.TB, s store.Store, fn func(store.Tx) error) {
	t.Helper()
	if err := s.Commit(t.Context(), fn); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

func put(t testing.TB, s store.Store, table store.Table, kv ...string) {
	t.Helper()
	commit(t, s, func(tx store.Tx) error {
		for i := 0; i < len(kv); i += 2 {
			if err := tx.Put(table, []byte(kv[i]), []byte(kv[i+1])); err != nil {
				return err
			}
		}
		return nil
	})
}

// dump reads the selected items as "key=value".
func dump(r store.Reader, table store.Table, rng store.Range) ([]string, error) {
	var out []string
	for item, err := range r.Scan(table, rng) {
		if err != nil {
			return nil, err
		}
		out = append(out, string(item.Key)+"="+string(item.Value))
	}
	return out, nil
}

func want(t testing.TB, s store.Store, table store.Table, items ...string) {
	t.Helper()
	view(t, s, func(r store.Reader) error {
		got, err := dump(r, table, store.Range{})
		if diff := cmp.Diff(items, got); diff != "" {
			t.Errorf("table %s (-want +got):\n%s", table, diff)
		}
		return err
	})
}

func view(t testing.TB, s store.Store, fn func(store.Reader) error) {
	t.Helper()
	if err := s.View(t.Context(), fn); err != nil {
		t.Fatalf("View: %v", err)
	}
}

func wantReason(t testing.TB, what string, err error, reason vocab.Reason) {
	t.Helper()
	if got := vocab.ReasonOf(err); got != reason {
		t.Errorf("%s: reason %q (%v), want %q", what, got, err, reason)
	}
}

func emptyTable(t *testing.T, open Open) {
	s := start(t, open)
	want(t, s, tableA)
	view(t, s, func(r store.Reader) error {
		v, ok, err := r.Get(tableA, []byte("k"))
		if v != nil || ok || err != nil {
			t.Errorf("Get = %q, %v, %v", v, ok, err)
		}
		return nil
	})
	commit(t, s, func(tx store.Tx) error { return tx.Delete(tableA, []byte("k")) })
	want(t, s, tableA)
}

func putGet(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "k", "v1", "l", "w")
	put(t, s, tableA, "k", "v2")
	want(t, s, tableA, "k=v2", "l=w")
	commit(t, s, func(tx store.Tx) error {
		if err := tx.Delete(tableA, []byte("k")); err != nil {
			return err
		}
		if _, ok, err := tx.Get(tableA, []byte("k")); ok || err != nil {
			t.Errorf("Get of a key deleted in the same transaction = %v, %v", ok, err)
		}
		if err := tx.Put(tableA, []byte("m"), []byte("x")); err != nil {
			return err
		}
		v, ok, err := tx.Get(tableA, []byte("m"))
		if string(v) != "x" || !ok || err != nil {
			t.Errorf("Get of a key put in the same transaction = %q, %v, %v", v, ok, err)
		}
		return nil
	})
	want(t, s, tableA, "l=w", "m=x")
}

func emptyValue(t *testing.T, open Open) {
	s := start(t, open)
	check := func(r store.Reader) error {
		v, ok, err := r.Get(tableA, []byte("k"))
		if len(v) != 0 || !ok || err != nil {
			t.Errorf("Get = %q, %v, %v; want an empty value that is there", v, ok, err)
		}
		return err
	}
	commit(t, s, func(tx store.Tx) error {
		return errors.Join(tx.Put(tableA, []byte("k"), nil), check(tx))
	})
	view(t, s, check)
	want(t, s, tableA, "k=")
}

func tablesSeparate(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "k", "a")
	put(t, s, tableB, "k", "b")
	commit(t, s, func(tx store.Tx) error { return tx.Delete(tableB, []byte("k")) })
	want(t, s, tableA, "k=a")
	want(t, s, tableB)
}

func keySizes(t *testing.T, open Open) {
	s := start(t, open)
	commit(t, s, func(tx store.Tx) error {
		for n := 1; n <= store.MaxKey; n = n*2 - n/3 + 1 {
			if err := tx.Put(tableA, bytes.Repeat([]byte{0xff}, n), []byte{byte(n)}); err != nil {
				return err
			}
		}
		return tx.Put(tableA, make([]byte, store.MaxKey), []byte("zeros"))
	})
	view(t, s, func(r store.Reader) error {
		v, ok, err := r.Get(tableA, make([]byte, store.MaxKey))
		if string(v) != "zeros" || !ok {
			t.Errorf("longest key: %q, %v", v, ok)
		}
		return err
	})
}

func limits(t *testing.T, open Open) {
	s := start(t, open)
	for _, c := range []struct {
		name string
		run  func(store.Tx) error
	}{
		{"put empty key", func(tx store.Tx) error { return tx.Put(tableA, nil, []byte("v")) }},
		{"delete empty key", func(tx store.Tx) error { return tx.Delete(tableA, []byte{}) }},
		{"get empty key", func(tx store.Tx) error { _, _, err := tx.Get(tableA, nil); return err }},
		{"key too long", func(tx store.Tx) error { return tx.Put(tableA, make([]byte, store.MaxKey+1), nil) }},
		{"value too large", func(tx store.Tx) error { return tx.Put(tableA, []byte("k"), make([]byte, store.MaxValue+1)) }},
	} {
		wantReason(t, c.name, s.Commit(t.Context(), c.run), vocab.ReasonInternal)
	}
	wantReason(t, "view of an empty key", s.View(t.Context(), func(r store.Reader) error {
		_, _, err := r.Get(tableA, nil)
		return err
	}), vocab.ReasonInternal)
	want(t, s, tableA)
}

func tableNames(t *testing.T, open Open) {
	s := start(t, open)
	for _, name := range []store.Table{"", "_meta", "A", "a b", "a/b", "-a"} {
		wantReason(t, fmt.Sprintf("put %q", name), s.Commit(t.Context(), func(tx store.Tx) error {
			return tx.Put(name, []byte("k"), nil)
		}), vocab.ReasonInternal)
		wantReason(t, fmt.Sprintf("scan %q", name), s.View(t.Context(), func(r store.Reader) error {
			_, err := dump(r, name, store.Range{})
			return err
		}), vocab.ReasonInternal)
	}
}

func commitLimit(t *testing.T, open Open) {
	s := start(t, open)
	err := s.Commit(t.Context(), func(tx store.Tx) error {
		for i := range store.MaxCommit/store.MaxValue + 1 {
			if err := tx.Put(tableA, []byte{byte(i + 1)}, make([]byte, store.MaxValue)); err != nil {
				return err
			}
		}
		return nil
	})
	wantReason(t, "Commit", err, vocab.ReasonBatchTooLarge)
	want(t, s, tableA)
}

func bigValues(t *testing.T, open Open) {
	s := start(t, open)
	sizes := []int{4095, 4096, 4097, 1 << 20, store.MaxValue}
	commit(t, s, func(tx store.Tx) error {
		for _, n := range sizes {
			if err := tx.Put(tableA, binary.BigEndian.AppendUint32(nil, uint32(n)), bytes.Repeat([]byte{byte(n)}, n)); err != nil {
				return err
			}
		}
		return nil
	})
	view(t, s, func(r store.Reader) error {
		i := 0
		for item, err := range r.Scan(tableA, store.Range{}) {
			if err != nil {
				return err
			}
			if !bytes.Equal(item.Value, bytes.Repeat([]byte{byte(sizes[i])}, sizes[i])) {
				t.Errorf("value of %d bytes came back different (%d bytes)", sizes[i], len(item.Value))
			}
			i++
		}
		if i != len(sizes) {
			t.Errorf("%d values, want %d", i, len(sizes))
		}
		return nil
	})
}

func copies(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "k", "value")
	var kept []byte
	spoil := func(r store.Reader) error {
		v, _, err := r.Get(tableA, []byte("k"))
		if err != nil {
			return err
		}
		clear(v)
		for item, err := range r.Scan(tableA, store.Range{}) {
			if err != nil {
				return err
			}
			kept = item.Value
			clear(item.Key)
		}
		v, _, err = r.Get(tableA, []byte("k"))
		if string(v) != "value" {
			t.Errorf("changing a result changed the store: %q", v)
		}
		return err
	}
	view(t, s, spoil)
	commit(t, s, func(tx store.Tx) error {
		return errors.Join(spoil(tx), tx.Put(tableA, []byte("k"), []byte("value")), spoil(tx), tx.Delete(tableA, []byte("k")))
	})
	if string(kept) != "value" {
		t.Errorf("a kept result changed: %q", kept)
	}
}

func putCopies(t *testing.T, open Open) {
	s := start(t, open)
	commit(t, s, func(tx store.Tx) error {
		k, v := []byte("k"), []byte("v")
		err := tx.Put(tableA, k, v)
		k[0], v[0] = 'x', 'x'
		return err
	})
	want(t, s, tableA, "k=v")
}

func rollbackOwn(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "k", "old", "gone", "no")
	sentinel := errors.New("changed my mind")
	err := s.Commit(t.Context(), func(tx store.Tx) error {
		return errors.Join(
			tx.Put(tableA, []byte("k"), []byte("new")), tx.Put(tableB, []byte("k"), nil), tx.Delete(tableA, []byte("gone")), sentinel)
	})
	if !errors.Is(err, sentinel) {
		t.Errorf("Commit = %v, want the function's own error", err)
	}
	want(t, s, tableA, "gone=no", "k=old")
	want(t, s, tableB)
}

func panics(t *testing.T, open Open) {
	s := start(t, open)
	err := s.Commit(t.Context(), func(tx store.Tx) error {
		if err := tx.Put(tableA, []byte("k"), nil); err != nil {
			return err
		}
		panic("test panic")
	})
	wantReason(t, "Commit", err, vocab.ReasonInternal)
	if err == nil || bytes.Contains([]byte(err.Error()), []byte("test panic")) {
		t.Errorf("the panic must be kept for the operator, not shown: %v", err)
	}
	put(t, s, tableA, "l", "v")
	want(t, s, tableA, "l=v")
}

func goexit(t *testing.T, open Open) {
	s := start(t, open)
	inner := make(chan error, 1)
	go func() {
		inner <- s.Commit(context.Background(), func(tx store.Tx) error {
			if err := tx.Put(tableA, []byte("k"), nil); err != nil {
				return err
			}
			exit()
			return nil
		})
	}()
	wantReason(t, "Commit", <-inner, vocab.ReasonInternal)
	put(t, s, tableA, "l", "v")
	want(t, s, tableA, "l=v")
}

func useAfterEnd(t *testing.T, open Open) {
	s := start(t, open)
	var kept store.Tx
	commit(t, s, func(tx store.Tx) error { kept = tx; return nil })
	_, _, err := kept.Get(tableA, []byte("k"))
	wantReason(t, "Get", err, vocab.ReasonInternal)
	wantReason(t, "Put", kept.Put(tableA, []byte("k"), nil), vocab.ReasonInternal)
	wantReason(t, "Delete", kept.Delete(tableA, []byte("k")), vocab.ReasonInternal)
	_, err = dump(kept, tableA, store.Range{})
	wantReason(t, "Scan", err, vocab.ReasonInternal)
	want(t, s, tableA)
}

func viewAfterEnd(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "k", "v")
	var kept store.Reader
	view(t, s, func(r store.Reader) error { kept = r; return nil })
	_, _, err := kept.Get(tableA, []byte("k"))
	wantReason(t, "Get", err, vocab.ReasonInternal)
	_, err = dump(kept, tableA, store.Range{})
	wantReason(t, "Scan", err, vocab.ReasonInternal)
}

func snapshot(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, tableA, "k", "old", "m", "m")
	view(t, s, func(r store.Reader) error {
		// The writes come from another goroutine: a function must not call
		// the store it reads.
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Commit(t.Context(), func(tx store.Tx) error {
				return errors.Join(tx.Put(tableA, []byte("k"), []byte("new")), tx.Put(tableA, []byte("l"), nil), tx.Delete(tableA, []byte("m")))
			}); err != nil {
				t.Errorf("Commit beside a snapshot: %v", err)
			}
		})
		wg.Wait()
		got, err := dump(r, tableA, store.Range{})
		if diff := cmp.Diff([]string{"k=old", "m=m"}, got); diff != "" {
			t.Errorf("the snapshot changed (-want +got):\n%s", diff)
		}
		return err
	})
	want(t, s, tableA, "k=new", "l=")
}

func readYourWrites(t *testing.T, open Open) {
	s := start(t, open)
	for i := range 20 {
		put(t, s, tableA, "k", fmt.Sprint(i))
		want(t, s, tableA, fmt.Sprintf("k=%d", i))
	}
}

func afterCommit(t *testing.T, open Open) {
	s := start(t, open)
	var heard []string
	hear := func(what string) func() { return func() { heard = append(heard, what) } }
	commit(t, s, func(tx store.Tx) error {
		tx.AfterCommit(hear("first"))
		tx.AfterCommit(func() {
			// It is on disk: another snapshot holds it.
			want(t, s, tableA, "k=v")
			hear("second")()
		})
		return tx.Put(tableA, []byte("k"), []byte("v"))
	})
	_ = s.Commit(t.Context(), func(tx store.Tx) error {
		tx.AfterCommit(hear("of a dropped one"))
		return errors.New("dropped")
	})
	_ = s.Commit(t.Context(), func(tx store.Tx) error {
		tx.AfterCommit(hear("of one that panicked"))
		panic("test panic")
	})
	if diff := cmp.Diff([]string{"first", "second"}, heard); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

func reopen(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, tableA, "a", "1", "b", "2")
	put(t, s, tableB, "c", "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	defer s.Close()
	want(t, s, tableA, "a=1", "b=2")
	want(t, s, tableB, "c=")
}

func closed(t *testing.T, open Open) {
	s := open(t, t.TempDir())
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	ran := func(what string) { t.Errorf("%s ran its function on a closed store", what) }
	wantReason(t, "Commit", s.Commit(t.Context(), func(store.Tx) error { ran("Commit"); return nil }), vocab.ReasonInternal)
	wantReason(t, "View", s.View(t.Context(), func(store.Reader) error { ran("View"); return nil }), vocab.ReasonInternal)
}
