package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

func cancelledBefore(t *testing.T, open Open) {
	s := start(t, open)
	sentinel := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(sentinel)
	err := s.Commit(ctx, func(store.Tx) error { t.Error("Commit ran its function"); return nil })
	if !errors.Is(err, sentinel) {
		t.Errorf("Commit = %v, want the context's cause", err)
	}
	err = s.View(ctx, func(store.Reader) error { t.Error("View ran its function"); return nil })
	if !errors.Is(err, sentinel) {
		t.Errorf("View = %v, want the context's cause", err)
	}

	// One that is cancelled while it waits for its turn does not run either.
	holding, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Commit(t.Context(), func(store.Tx) error { close(holding); <-release; return nil })
	})
	<-holding
	ctx, cancel = context.WithCancelCause(t.Context())
	result := make(chan error, 1)
	wg.Go(func() {
		result <- s.Commit(ctx, func(store.Tx) error { t.Error("a cancelled function ran"); return nil })
	})
	cancel(sentinel)
	if err := <-result; !errors.Is(err, sentinel) {
		t.Errorf("waiting Commit = %v, want the context's cause", err)
	}
	close(release)
	wg.Wait()
	put(t, s, tableA, "k", "v")
}

func cancelledDuring(t *testing.T, open Open) {
	s := start(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Commit(ctx, func(tx store.Tx) error {
		cancel()
		return tx.Put(tableA, []byte("k"), []byte("v"))
	})
	if err != nil {
		t.Errorf("Commit = %v, but the writes took effect", err)
	}
	want(t, s, tableA, "k=v")
}

// linear lets many callers increment one counter and insert a row for the
// value they saw. Any lost update, double or gap shows.
func linear(t *testing.T, open Open) {
	s := start(t, open)
	const callers, each = 16, 25
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		seen = map[uint64]bool{}
	)
	for range callers {
		wg.Go(func() {
			var last uint64
			for range each {
				var mine uint64
				err := s.Commit(t.Context(), func(tx store.Tx) error {
					v, ok, err := tx.Get(tableA, []byte("counter"))
					if err != nil {
						return err
					}
					if ok {
						mine = binary.BigEndian.Uint64(v)
					}
					mine++
					key := binary.BigEndian.AppendUint64(nil, mine)
					if _, taken, err := tx.Get(tableB, key); err != nil || taken {
						return errors.Join(err, fmt.Errorf("row %d is there already", mine))
					}
					return errors.Join(tx.Put(tableA, []byte("counter"), key), tx.Put(tableB, key, nil))
				})
				if err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
				if mine <= last {
					t.Errorf("counter went from %d to %d", last, mine)
				}
				last = mine
				mu.Lock()
				if seen[mine] {
					t.Errorf("two callers got %d", mine)
				}
				seen[mine] = true
				mu.Unlock()
				// A snapshot taken now holds it, whole.
				err = s.View(t.Context(), func(r store.Reader) error {
					v, _, err := r.Get(tableA, []byte("counter"))
					if err != nil {
						return err
					}
					if n := binary.BigEndian.Uint64(v); n < mine {
						return fmt.Errorf("the snapshot shows %d after %d was committed", n, mine)
					}
					_, ok, err := r.Get(tableB, v)
					if !ok {
						return errors.Join(err, errors.New("the snapshot shows half a transaction"))
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	view(t, s, func(r store.Reader) error {
		var n uint64
		for item, err := range r.Scan(tableB, store.Range{}) {
			if err != nil {
				return err
			}
			if n++; binary.BigEndian.Uint64(item.Key) != n {
				t.Fatalf("row %d is missing", n)
			}
		}
		if n != callers*each {
			t.Errorf("%d rows, want %d", n, callers*each)
		}
		return nil
	})
}

func concurrentFailures(t *testing.T, open Open) {
	s := start(t, open)
	const callers = 60
	own := errors.New("own error")
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			key := []byte(fmt.Sprintf("%03d", i))
			err := s.Commit(t.Context(), func(tx store.Tx) error {
				if err := tx.Put(tableA, key, nil); err != nil {
					return err
				}
				switch i % 3 {
				case 1:
					return own
				case 2:
					panic("test panic")
				}
				return nil
			})
			switch i % 3 {
			case 0:
				if err != nil {
					t.Errorf("%d: %v", i, err)
				}
			case 1:
				if !errors.Is(err, own) {
					t.Errorf("%d: %v, want its own error", i, err)
				}
			case 2:
				wantReason(t, fmt.Sprint(i), err, vocab.ReasonInternal)
			}
		})
	}
	wg.Wait()
	var left []string
	for i := 0; i < callers; i += 3 {
		left = append(left, fmt.Sprintf("%03d=", i))
	}
	want(t, s, tableA, left...)
}

func closeDrains(t *testing.T, open Open) {
	dir := t.TempDir()
	s := open(t, dir)
	const callers = 32
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		kept = map[string]bool{}
	)
	first := make(chan struct{}, callers)
	for i := range callers {
		wg.Go(func() {
			key := fmt.Sprintf("%03d", i)
			for n := 0; ; n++ {
				k := fmt.Sprintf("%s-%06d", key, n)
				err := s.Commit(t.Context(), func(tx store.Tx) error { return tx.Put(tableA, []byte(k), nil) })
				if err != nil {
					wantReason(t, "Commit while closing", err, vocab.ReasonInternal)
					return
				}
				mu.Lock()
				kept[k] = true
				mu.Unlock()
				if n == 0 {
					first <- struct{}{}
				}
			}
		})
	}
	<-first
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	s = open(t, dir)
	defer s.Close()
	view(t, s, func(r store.Reader) error {
		for item, err := range r.Scan(tableA, store.Range{}) {
			if err != nil {
				return err
			}
			if !kept[string(item.Key)] {
				t.Errorf("%s is there, but its Commit failed", item.Key)
			}
			delete(kept, string(item.Key))
		}
		return nil
	})
	for k := range kept {
		t.Errorf("%s was acknowledged and is lost", k)
	}
}
