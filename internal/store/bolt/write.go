package bolt

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// request is a transaction that waits for the writer.
type request struct {
	fn    func(store.Tx) error
	taken atomic.Bool   // by the writer, or by the caller that gave up
	buf   *store.Buffer // what fn wrote
	err   error         // fn's own error, once it has run
	done  chan error    // receives the outcome, exactly once if the writer took it
}

// Commit implements [store.Store].
func (s *Store) Commit(ctx context.Context, fn func(store.Tx) error) error {
	if err := usable(ctx); err != nil {
		return err
	}
	r := &request{fn: fn, done: make(chan error, 1)}
	if err := s.enqueue(r); err != nil {
		return err
	}
	var err error
	select {
	case err = <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return context.Cause(ctx)
		}
		// It runs or has run: whoever asked must learn what became of it.
		err = <-r.done
	}
	if err == nil {
		r.buf.Committed()
	}
	return err
}

func (s *Store) enqueue(r *request) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errClosed()
	}
	select {
	case s.queue <- r:
		return nil
	default:
		return vocab.Errorf(vocab.ReasonOverloaded, "too many writes are waiting").WithNext("Try again in a moment")
	}
}

// write is the writer: it ends when the queue has been closed and emptied.
func (s *Store) write() {
	defer close(s.idle)
	for r := range s.queue {
		if r.taken.CompareAndSwap(false, true) {
			s.group(r)
		}
	}
}

// next returns a waiting request, or nil if there is none at the moment. It
// yields the processor once before it says so: the callers answered last are
// often just about to come back, and a group of one costs as much disk time as
// a group of a hundred.
func (s *Store) next() *request {
	for tries := 0; tries < 2; {
		select {
		case r := <-s.queue: // nil if closed
			if r == nil {
				return nil
			}
			if r.taken.CompareAndSwap(false, true) {
				return r
			}
		default:
			runtime.Gosched()
			tries++
		}
	}
	return nil
}

// group runs first and whatever waits behind it as one bbolt transaction and
// answers all of them. Nobody is answered earlier, not even with an error of
// his own: it may rest on what another one of the group wrote.
func (s *Store) group(first *request) {
	if err := s.refusal(); err != nil {
		first.done <- err
		return
	}
	var members []*request
	err := guard(func() error {
		tx, err := s.db.Begin(true)
		if err != nil {
			return err
		}
		defer tx.Rollback() // does nothing after Commit
		size, dirty := 0, false
		for r := first; r != nil; r = s.next() {
			members = append(members, r)
			call(tx, r)
			if r.err == nil {
				if err := flush(tx, r.buf); err != nil {
					return err
				}
				size += r.buf.Size()
				dirty = dirty || r.buf.Size() > 0
			}
			if len(members) == batchLength || size >= batchBytes {
				break
			}
		}
		if !dirty {
			return nil
		}
		f := &flight{id: tx.ID(), landed: make(chan struct{})}
		defer close(f.landed)
		s.flight.Store(f)
		return s.commit(tx)
	})
	if err != nil {
		failure := unwritable(err, "it is unknown whether the last writes are in it, and no more are taken")
		s.failed.CompareAndSwap(nil, failure)
		for _, r := range members {
			r.done <- failure
		}
		if len(members) == 0 {
			first.done <- failure
		}
		return
	}
	for _, r := range members {
		r.done <- r.err
	}
}

// refusal returns why nothing may be written now.
func (s *Store) refusal() error {
	if failure := s.failed.Load(); failure != nil {
		return failure
	}
	if s.minFree == 0 {
		return nil
	}
	// If the system does not say, it will when it is written to.
	if free, err := s.space(filepath.Dir(s.path)); err == nil && free < s.minFree {
		return vocab.Errorf(vocab.ReasonStoreFull, "the disk of the store is nearly full; nothing was written").
			WithNext("Make room: writing goes on by itself when %d MiB are free", (s.minFree+1<<20-1)>>20)
	}
	return nil
}

// call runs the request's function on a buffer over tx. It has a goroutine of
// its own so that neither a panic nor runtime.Goexit in it ends the writer.
func call(tx *bbolt.Tx, r *request) {
	r.buf = store.NewBuffer(reader{tx})
	r.err = vocab.Errorf(vocab.ReasonInternal, "the transaction's function ended its goroutine")
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				r.err = vocab.Errorf(vocab.ReasonInternal, "a transaction failed by a fault of the program; it was dropped").
					Because(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			}
		}()
		r.err = r.fn(r.buf)
	}()
	<-done
	r.buf.Close()
}

// flush applies what a transaction wrote.
func flush(tx *bbolt.Tx, buf *store.Buffer) error {
	var (
		table  store.Table
		bucket *bbolt.Bucket
	)
	for w := range buf.Writes() {
		if bucket == nil || w.Table != table {
			table = w.Table
			b, err := tx.CreateBucketIfNotExists([]byte(table))
			if err != nil {
				return err
			}
			b.FillPercent = fill
			bucket = b
		}
		var err error
		if w.Deleted {
			err = bucket.Delete(w.Key)
		} else {
			err = bucket.Put(w.Key, w.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
