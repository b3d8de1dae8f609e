package storetest

import (
	"context"
	"sync"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Fault is what becomes of a commit that is reported as failed.
type Fault int

// Faults. Both look the same to the caller: that is the point.
const (
	NoFault Fault = iota
	Lost          // the function ran, nothing was written
	Stored        // everything was written, and still the commit failed
)

// Faulty passes everything on to a store, and lets chosen commits fail as a
// disk would. Unlike a real store it goes on afterwards, so that a test can
// look at what is there.
type Faulty struct {
	store.Store
	// Next says what becomes of the next commit; nil means nothing. It is
	// called before the function runs, by one commit at a time.
	Next func() Fault

	mu sync.Mutex
}

// Commit implements [store.Store].
func (f *Faulty) Commit(ctx context.Context, fn func(store.Tx) error) error {
	fault := NoFault
	f.mu.Lock()
	if f.Next != nil {
		fault = f.Next()
	}
	f.mu.Unlock()
	if fault == NoFault {
		return f.Store.Commit(ctx, fn)
	}
	failed := vocab.Errorf(vocab.ReasonStoreDamaged, "the system could not write the store; it is unknown whether the last writes are in it")
	err := f.Store.Commit(ctx, func(tx store.Tx) error {
		if err := fn(silent{tx}); err != nil || fault == Stored {
			return err
		}
		return failed
	})
	if err != nil {
		return err
	}
	return failed
}

// silent forgets what was to be done after a commit that will be reported as
// failed.
type silent struct{ store.Tx }

func (silent) AfterCommit(func()) {}
