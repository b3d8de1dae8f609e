package tenant

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// borrow lends the generation a license's key box is sealed under.
func (t *Tenant) borrow(ctx context.Context, l *record.License) (*keys.Key, error) {
	if len(l.Wrap) == 0 {
		return t.ring.Open(ctx, l.Generation)
	}
	w, err := license.ParseWrap(l.Wrap)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "the wrapped key of this document cannot be read").Because(err)
	}
	return t.ring.OpenDocument(ctx, l.Content, l.Generation, *w)
}

// openKeyBox returns a license's content key, which the caller zeroes, and the
// key it came from, which is released already and good for a recheck.
func (t *Tenant) openKeyBox(ctx context.Context, l *record.License) (*vocab.Secret, *keys.Key, error) {
	lent, err := t.borrow(ctx, l)
	if err != nil {
		return nil, nil, err
	}
	defer lent.Release()
	box := l.Box(t.id)
	key, err := box.Open(lent.Secret, l.KeyBox)
	return key, lent, err
}

// resealKeyBox seals the content key of old for the policy of next.
func (t *Tenant) resealKeyBox(ctx context.Context, old, next *record.License, e *audit.Event) error {
	lent, err := t.borrow(ctx, old)
	if err != nil {
		return custodyError(err, "")
	}
	defer lent.Release()
	box := old.Box(t.id)
	key, err := box.Open(lent.Secret, old.KeyBox)
	if err != nil {
		return err
	}
	defer key.Zero()
	box = next.Box(t.id)
	next.KeyBox, err = box.Seal(lent.Secret, key)
	noteKey(e, lent)
	return err
}

// noteKey writes into an event which key was used, and the custodian's own ID
// of the request that unwrapped it.
func noteKey(e *audit.Event, k *keys.Key) {
	e.Generation, e.Custodian, e.KeyVersion = k.Generation, k.Wrap.Custodian, k.Wrap.L0Version
	e.CustodianRequest = k.RequestID
}

// custodyError tells the caller whom to ask when the custodian is in the way.
func custodyError(err error, contact string) error {
	v, ok := errors.AsType[*vocab.Error](err)
	if !ok || v.Contact != "" || contact == "" {
		return err
	}
	with := *v
	with.Contact = contact
	return &with
}

// effectiveDelay is how long content may still open after a revocation or a
// refusal of the custodian, as far as this use license goes.
func (t *Tenant) effectiveDelay(mode vocab.CustodyMode, e *audit.Event) time.Duration {
	var delay time.Duration
	if mode == vocab.CustodyCached {
		s := t.settings.Load()
		delay = s.CacheTTL + s.OutageGrace
	}
	if e.Cached {
		delay = max(delay, e.NotAfter.Sub(e.Time))
	}
	return delay
}

// maxConcurrent bounds how many items of one batch are worked on at a time:
// enough for the ring to join the strict ones into full calls of the
// custodian.
const maxConcurrent = 64

// concurrently calls fn(0) to fn(n-1), some at a time, and waits for all. If
// one panics, so does the caller, when all have ended: a defect fails a call,
// not the daemon.
func concurrently(n int, fn func(i int)) {
	if n == 1 {
		fn(0)
		return
	}
	var wg sync.WaitGroup
	var panicked atomic.Pointer[any]
	slots := make(chan struct{}, maxConcurrent)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					panicked.CompareAndSwap(nil, &p)
				}
				<-slots
			}()
			fn(i)
		})
	}
	wg.Wait()
	if p := panicked.Load(); p != nil {
		panic(*p)
	}
}
