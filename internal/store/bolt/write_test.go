package bolt

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"go.etcd.io/bbolt"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// hold keeps the writer in a transaction until release.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	in, out := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.Commit(context.Background(), func(store.Tx) error { close(in); <-out; return nil })
	})
	<-in
	return sync.OnceFunc(func() { close(out); wg.Wait() })
}

// Callers that come while the disk is at work share the next commit.
func TestCallersAreGrouped(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer s.Close()
	var commits atomic.Int32
	s.commit = func(tx *bbolt.Tx) error { commits.Add(1); return tx.Commit() }
	release := hold(t, s)
	const callers = 500
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { putOne(t, s, fmt.Sprintf("%04d", i), "v") })
	}
	for len(s.queue) < callers {
		// They are on their way into the queue; nothing else is.
		yield()
	}
	release()
	wg.Wait()
	if n := commits.Load(); n != 1 {
		t.Errorf("%d callers took %d commits, want 1", callers, n)
	}
}

// A group has a bounded number of members and of bytes.
func TestGroupsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name                 string
		callers, size, least int
	}{
		{"many", batchLength + 200, 1, 2},
		{"large", 20, 4 << 20, 20 * (4 << 20) / (batchBytes + 4<<20)},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openIn(t, t.TempDir())
			defer s.Close()
			var commits atomic.Int32
			s.commit = func(tx *bbolt.Tx) error { commits.Add(1); return tx.Commit() }
			release := hold(t, s)
			var wg sync.WaitGroup
			for i := range c.callers {
				wg.Go(func() {
					err := s.Commit(t.Context(), func(tx store.Tx) error {
						return tx.Put(table, fmt.Appendf(nil, "%04d", i), make([]byte, c.size))
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			for len(s.queue) < c.callers {
				yield()
			}
			release()
			wg.Wait()
			if n := int(commits.Load()); n < c.least {
				t.Errorf("%d commits, want at least %d", n, c.least)
			}
		})
	}
}

// A transaction that writes nothing costs no disk time when it is alone.
func TestNothingWrittenNothingSynced(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer s.Close()
	s.commit = func(*bbolt.Tx) error { t.Error("committed"); return nil }
	if err := s.Commit(t.Context(), func(tx store.Tx) error {
		_, _, err := tx.Get(table, []byte("k"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestOverloaded(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer s.Close()
	release := hold(t, s)
	var wg sync.WaitGroup
	for i := range queueLength {
		wg.Go(func() { putOne(t, s, fmt.Sprintf("%05d", i), "v") })
	}
	for len(s.queue) < queueLength {
		yield()
	}
	err := s.Commit(t.Context(), func(store.Tx) error { t.Error("ran"); return nil })
	wantReason(t, "one too many", err, vocab.ReasonOverloaded, "Try again")
	release()
	wg.Wait()
	putOne(t, s, "after", "v")
}

// When the system does not say that it has written, nobody is told that it
// has, and nothing is built on top of it.
func TestFailStop(t *testing.T) {
	for _, c := range []struct {
		name   string
		cause  error
		reason vocab.Reason
		words  string
	}{
		{"fsync fails", syscall.EIO, vocab.ReasonStoreDamaged, "unknown"},
		{"disk full", fmt.Errorf("write: %w", syscall.ENOSPC), vocab.ReasonStoreFull, "unknown"},
		{"disk full, as text", errors.New("file resize error: truncate rms.db: no space left on device"), vocab.ReasonStoreFull, "unknown"},
		{"file too large", syscall.EFBIG, vocab.ReasonStoreFull, "unknown"},
	} {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, stored %v", c.name, stored), func(t *testing.T) {
				dir := t.TempDir()
				s := openIn(t, dir)
				putOne(t, s, "before", "v")
				s.commit = func(tx *bbolt.Tx) error {
					if stored {
						if err := tx.Commit(); err != nil {
							t.Error(err)
						}
					}
					return c.cause
				}
				release := hold(t, s)
				const callers = 8
				errs := make([]error, callers)
				own := errors.New("own")
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						errs[i] = s.Commit(t.Context(), func(tx store.Tx) error {
							tx.AfterCommit(func() { t.Error("told that it is durable") })
							if err := tx.Put(table, []byte("during"), []byte("v")); err != nil || i > 0 {
								return err
							}
							return own
						})
					})
				}
				for len(s.queue) < callers {
					yield()
				}
				release()
				wg.Wait()
				for _, err := range errs {
					wantReason(t, "in the group", err, c.reason, c.words)
					if !errors.Is(err, c.cause) {
						t.Errorf("the cause is lost: %v", err)
					}
				}
				s.commit = (*bbolt.Tx).Commit
				err := s.Commit(t.Context(), func(store.Tx) error { t.Error("ran"); return nil })
				wantReason(t, "afterwards", err, c.reason)
				if s.Failed() == nil {
					t.Error("Failed reports nothing")
				}
				if got := getOne(t, s, "before"); got != "v" {
					t.Errorf("reading afterwards: %q", got)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openIn(t, dir)
				defer s.Close()
				if s.Failed() != nil {
					t.Error("Failed after opening anew")
				}
				if got := getOne(t, s, "during") == "v"; got != stored {
					t.Errorf("opened anew: written %v, want %v", got, stored)
				}
				putOne(t, s, "after", "v")
			})
		}
	}
}

// A store refuses while there is still room to refuse in, and goes on by
// itself when there is room again.
func TestLowSpace(t *testing.T) {
	o := options(t.TempDir())
	o.MinFree = 1 << 20
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var free atomic.Uint64
	var unknown atomic.Bool
	s.space = func(string) (uint64, error) {
		if unknown.Load() {
			return 0, errors.New("test: cannot tell")
		}
		return free.Load(), nil
	}
	free.Store(1<<20 - 1)
	err = s.Commit(t.Context(), func(store.Tx) error { t.Error("ran"); return nil })
	wantReason(t, "too little", err, vocab.ReasonStoreFull, "nothing was written", "1 MiB")
	if s.Failed() != nil {
		t.Errorf("it stopped for good: %v", s.Failed())
	}
	free.Store(1 << 20)
	putOne(t, s, "k", "v")
	unknown.Store(true)
	putOne(t, s, "l", "v")
	if _, err := freeSpace(t.TempDir()); err != nil {
		t.Errorf("freeSpace: %v", err)
	}
}

// A reader never sees what a power cut could still take away: bbolt shows a
// commit before its last fsync has returned.
func TestReadersWaitForTheDisk(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openIn(t, dir)
		defer s.Close()
		putOne(t, s, "k", "old")
		visible, fsync := make(chan struct{}), make(chan struct{})
		s.commit = func(tx *bbolt.Tx) error {
			err := tx.Commit()
			close(visible)
			<-fsync
			return err
		}
		var wg sync.WaitGroup
		wg.Go(func() { putOne(t, s, "k", "new") })
		<-visible
		var read atomic.Bool
		wg.Go(func() {
			if got := getOne(t, s, "k"); got != "new" {
				t.Errorf("read %q", got)
			}
			read.Store(true)
		})
		left := errors.New("test: left")
		ctx, cancel := context.WithCancelCause(t.Context())
		wg.Go(func() {
			err := s.View(ctx, func(store.Reader) error { t.Error("ran"); return nil })
			if !errors.Is(err, left) {
				t.Errorf("View of one who left: %v", err)
			}
		})
		synctest.Wait()
		if read.Load() {
			t.Error("read before it was durable")
		}
		cancel(left)
		synctest.Wait()
		close(fsync)
		wg.Wait()
	})
}

// A fault inside bbolt while the writer applies a transaction stops the store;
// one inside a reader does not.
func TestFaultInsideTheDatabase(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer s.Close()
	putOne(t, s, "k", "v")
	s.commit = func(*bbolt.Tx) error { panic("test: page 7 already freed") }
	err := s.Commit(t.Context(), func(tx store.Tx) error { return tx.Put(table, []byte("l"), nil) })
	wantReason(t, "Commit", err, vocab.ReasonStoreDamaged)
	if strings.Contains(err.Error(), "page 7") {
		t.Errorf("the fault is shown to the caller: %v", err)
	}
	if s.Failed() == nil {
		t.Error("the store goes on")
	}
	if got := getOne(t, s, "k"); got != "v" {
		t.Errorf("reading afterwards: %q", got)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, callers := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := openIn(b, b.TempDir())
			defer s.Close()
			var n atomic.Int64
			value := make([]byte, 1500)
			b.ResetTimer()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for {
						i := n.Add(1)
						if i > int64(b.N) {
							return
						}
						err := s.Commit(context.Background(), func(tx store.Tx) error {
							return tx.Put(table, fmt.Appendf(nil, "%016d", i), value)
						})
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// yield lets other goroutines run.
func yield() { runtime.Gosched() }
