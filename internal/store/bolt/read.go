package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// View implements [store.Store].
func (s *Store) View(ctx context.Context, fn func(store.Reader) error) error {
	return s.snapshot(ctx, func(tx *bbolt.Tx) error { return fn(reader{tx}) })
}

// begin begins a transaction of the engine's, which the caller rolls back.
func (s *Store) begin(ctx context.Context, writable bool) (tx *bbolt.Tx, err error) {
	if err := usable(ctx); err != nil {
		return nil, err
	}
	err = guard(func() (err error) {
		tx, err = s.db.Begin(writable)
		return err
	})
	switch {
	case errors.Is(err, bolterrors.ErrDatabaseNotOpen):
		return nil, errClosed()
	case vocab.ReasonOf(err) == vocab.ReasonStoreDamaged:
		return nil, err
	case err != nil:
		return nil, damaged(err)
	}
	return tx, nil
}

func (s *Store) snapshot(ctx context.Context, fn func(*bbolt.Tx) error) error {
	tx, err := s.begin(ctx, false)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	// bbolt shows a commit from the moment its last page is written, which is
	// before that page is on disk.
	if f := s.flight.Load(); f != nil && tx.ID() >= f.id {
		select {
		case <-f.landed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return fn(tx)
}

// reader reads the tables of one bbolt transaction. It copies what it returns:
// bbolt's own slices point into the mapped file and must not outlive the
// transaction.
type reader struct{ tx *bbolt.Tx }

// Get implements [store.Reader].
func (r reader) Get(table store.Table, key []byte) (value []byte, ok bool, err error) {
	if err := errors.Join(store.CheckTable(table), store.CheckKey(table, key)); err != nil {
		return nil, false, err
	}
	err = guard(func() error {
		if r.tx.DB() == nil {
			return vocab.Errorf(vocab.ReasonInternal, "the snapshot is over")
		}
		if b := r.tx.Bucket([]byte(table)); b != nil {
			if v := b.Get(key); v != nil {
				value, ok = append([]byte{}, v...), true
			}
		}
		return nil
	})
	return value, ok, err
}

// Scan implements [store.Reader].
func (r reader) Scan(table store.Table, rng store.Range) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		if err := store.CheckTable(table); err != nil {
			yield(store.Item{}, err)
			return
		}
		var c *bbolt.Cursor
		for {
			// Only bbolt is guarded, never the body of the caller's loop.
			var (
				item store.Item
				ok   bool
			)
			err := guard(func() error {
				if r.tx.DB() == nil {
					return vocab.Errorf(vocab.ReasonInternal, "the snapshot is over")
				}
				var k, v []byte
				switch {
				case c == nil:
					b := r.tx.Bucket([]byte(table))
					if b == nil {
						return nil
					}
					c = b.Cursor()
					k, v = first(c, rng)
				case rng.Reverse:
					k, v = c.Prev()
				default:
					k, v = c.Next()
				}
				if k != nil && rng.Contains(k) {
					item, ok = store.Item{Key: bytes.Clone(k), Value: append([]byte{}, v...)}, true
				}
				return nil
			})
			if err != nil {
				yield(store.Item{}, err)
				return
			}
			if !ok || !yield(item, nil) {
				return
			}
		}
	}
}

// first sets the cursor to the first item of the range, if there is one.
func first(c *bbolt.Cursor, r store.Range) (key, value []byte) {
	if !r.Reverse {
		return c.Seek(r.Start())
	}
	end, inclusive := r.End()
	if end == nil {
		return c.Last()
	}
	k, v := c.Seek(end)
	switch {
	case k == nil:
		return c.Last()
	case inclusive && bytes.Equal(k, end):
		return k, v
	}
	return c.Prev()
}

// guard runs fn, which must call nothing but bbolt. bbolt answers a damaged
// file with a panic, and the system answers a shortened one with a fault; both
// become STORE_DAMAGED.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(fmt.Errorf("%v\n%s", p, debug.Stack()))
		}
	}()
	return fn()
}

// Check implements [store.Checker]: page reachability, order of keys, and
// whether every table has a valid name. Commits wait while it runs: bbolt
// compares the pages with its list of free ones, which a writer changes.
func (s *Store) Check(ctx context.Context, found func(problem error)) error {
	tx, err := s.begin(ctx, true)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	err = guard(func() error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if !bytes.Equal(name, metaBucket) && !store.Table(name).Valid() {
				found(fmt.Errorf("unknown table %q", name))
			}
			return context.Cause(ctx)
		})
	})
	if err != nil {
		return err
	}
	for problem := range tx.Check() {
		found(problem)
	}
	return nil
}

// CopyTo implements [store.Copier]. Errors of w come back as they are. It is
// looked at the file's growth at every write to w, so a w that blocks for ever
// has to end the context.
func (s *Store) CopyTo(ctx context.Context, w io.Writer, begin func(r store.Reader, size int64) error) (n int64, err error) {
	err = s.snapshot(ctx, func(tx *bbolt.Tx) (err error) {
		if begin != nil {
			if err := begin(reader{tx}, tx.Size()); err != nil {
				return err
			}
		}
		cw := &copyWriter{ctx: ctx, w: w, grown: s.growth(tx.Size())}
		n, err = tx.WriteTo(cw)
		if cw.err != nil {
			return cw.err // bbolt passes it on as text only
		}
		if err != nil {
			return damaged(err)
		}
		return nil
	})
	return n, err
}

// copyWriter ends a long copy with its context, or when it costs too much, and
// keeps the error that ended it.
type copyWriter struct {
	ctx   context.Context
	w     io.Writer
	grown func() error
	err   error
}

func (c *copyWriter) Write(p []byte) (n int, err error) {
	if c.err = usable(c.ctx); c.err == nil {
		c.err = c.grown()
	}
	if c.err == nil {
		n, c.err = c.w.Write(p)
	}
	return n, c.err
}

// Limits of what a copy may cost while it goes on.
const (
	// copyGrowth is how much the file may grow during one copy, in bytes.
	copyGrowth = 1 << 30
	// mapStep is by how much the engine maps more of a large file, and mapSlack
	// more than one group of commits needs. To map more it waits for every
	// reader: a copy ends before that would hold up the writer.
	mapStep  = 1 << 30
	mapSlack = 4 * batchBytes
)

// growth returns what says, as an error, that the file has grown too much since
// a snapshot of a size was taken.
func (s *Store) growth(size int64) func() error {
	start := s.fileSize()
	limit := start + s.copyGrowth
	room := max(s.mapped, (size+mapStep-1)/mapStep*mapStep) - mapSlack
	return func() error {
		if now := s.fileSize(); now > limit || now > room && now > start {
			return vocab.Errorf(vocab.ReasonOverloaded, "the copy takes so long that the store grows too much meanwhile").
				WithNext("Make the copy on a fast local disk, and when less is going on; a store above 8 GiB has more room after a restart")
		}
		return nil
	}
}

// fileSize is the size of the file in bytes; 0 if that cannot be said.
func (s *Store) fileSize() int64 {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0
	}
	return info.Size()
}
