package keys

import (
	"context"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Key is an unwrapped generation lent to one operation.
type Key struct {
	// Secret belongs to the borrower until [Key.Release].
	Secret     *vocab.Secret
	Mode       vocab.CustodyMode
	Generation vocab.GenerationID
	Number     uint32       // 0 for a document's own generation
	Wrap       license.Wrap // custodian, version and ciphertext it came from
	// RequestID is the custodian's ID of the call that unwrapped it, and
	// Asked when that call was made.
	RequestID string
	Asked     time.Time
	// Grace says the copy is older than the TTL and was lent only because the
	// custodian is out of reach.
	Grace bool

	g     *generation
	epoch uint64
}

// Release zeroes the secret. Further calls do nothing.
func (k *Key) Release() {
	if k != nil {
		k.Secret.Zero()
	}
}

// unwrapped is a copy in memory. A copy is replaced, never refreshed in place.
type unwrapped struct {
	secret    *vocab.Secret
	asked     time.Time // before the custodian was asked: the TTL counts from here
	requestID string
	uses      uint32
	early     float64 // the part of the TTL after which to refresh, 0.75 to 0.85
	timer     *time.Timer
}

// age is how old the copy is by the stricter of the monotonic and the wall
// clock: a machine that slept, or a clock set back, must not lengthen a TTL.
func (u *unwrapped) age(now time.Time) time.Duration {
	return max(now.Sub(u.asked), now.Round(0).Sub(u.asked.Round(0)))
}

// flight is one call of a custodian that any number of callers wait for.
type flight struct {
	done chan struct{}
	err  error // valid after done
}

// Open lends the key of a tenant generation, unwrapping it if there is no copy
// within the limits. Errors: KEY_STATE and KEY_SUSPENDED if there is
// no such generation or its state forbids it, the custodian's own reasons, or ctx's error.
func (r *Ring) Open(ctx context.Context, id vocab.GenerationID) (*Key, error) {
	return r.lend(ctx, func() (*generation, error) {
		g := r.byID[id]
		if g == nil {
			return nil, vocab.Errorf(vocab.ReasonKeyState, "the generation this document needs does not exist here")
		}
		return g, r.usable(g, false)
	})
}

// Active lends the key of the active generation, for publishing.
func (r *Ring) Active(ctx context.Context) (*Key, error) {
	return r.lend(ctx, func() (*generation, error) {
		for _, g := range r.byNumber {
			if g.State == Active {
				return g, r.usable(g, true)
			}
		}
		return nil, vocab.Errorf(vocab.ReasonKeyState, "the tenant has no active generation").
			WithNext("Ask a key custodian to resume one or to make a new one with rmsctl key rotate")
	})
}

// Recheck says whether a lent key may still be used: ask it inside the
// transaction that records the use. It does no I/O and does not block.
func (r *Ring) Recheck(k *Key) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch == k.epoch {
		return nil
	}
	if k.g == nil {
		return r.usableWrap(k.Wrap)
	}
	g := r.byID[k.Generation]
	if g == nil {
		return vocab.Errorf(vocab.ReasonKeyState, "the generation this document needs does not exist here")
	}
	if err := r.usable(g, false); err != nil {
		return err
	}
	// Something was taken away since; what the custodian took does not show
	// in any state, but then the copy this key was lent from is gone.
	if g.copy == nil || g.copy.asked.Before(k.Asked) {
		if g.failed != nil {
			return g.failed
		}
		return vocab.Errorf(vocab.ReasonKeySuspended, "the key was taken back while it was being used").WithNext("Try again")
	}
	return nil
}

// lend runs find under mu until it can lend a copy of what it finds.
func (r *Ring) lend(ctx context.Context, find func() (*generation, error)) (*Key, error) {
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r.mu.Lock()
		g, err := find()
		if err != nil {
			r.mu.Unlock()
			return nil, err
		}
		now := r.now()
		if u := g.copy; u != nil && u.uses < r.limits.MaxUses && u.age(now) < r.limits.TTL {
			k := r.lendCopy(g, now)
			if r.early(g, now) {
				r.start(g, "refresh")
			}
			r.mu.Unlock()
			return k, nil
		}
		if r.resting(g, now) || r.inGrace(g, now) {
			// Either the custodian has just answered, or it is known to be out
			// of reach and the tenant allows it to be: nobody waits for it.
			k, err := r.orGrace(g, now)
			if g.flight == nil && !r.resting(g, now) {
				r.start(g, "refresh")
			}
			r.mu.Unlock()
			return k, err
		}
		f := g.flight
		if f == nil {
			f = r.start(g, "unwrap")
		}
		r.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if f.err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			if g.copy == nil || g.failed == nil { // dropped meanwhile
				return nil, f.err
			}
			if err := r.usable(g, false); err != nil {
				return nil, err
			}
			return r.orGrace(g, r.now())
		}
	}
}

// resting says that the last call failed so recently that its answer stands.
func (r *Ring) resting(g *generation, now time.Time) bool {
	since := now.Sub(g.failedAt)
	return g.failed != nil && since >= 0 && since < retryAfter
}

// early says that it is time for a refresh that nobody waits for. Where a copy
// has only a few uses, fetching the next one ahead would keep a key in memory
// that perhaps nobody needs. mu is held.
func (r *Ring) early(g *generation, now time.Time) bool {
	u := g.copy
	if g.flight != nil || r.resting(g, now) {
		return false
	}
	return u.age(now) >= time.Duration(u.early*float64(r.limits.TTL)) ||
		r.limits.MaxUses >= 100 && float64(u.uses) >= u.early*float64(r.limits.MaxUses)
}

// orGrace lends an over-age copy if the tenant allows it and the custodian is
// merely out of reach; else it returns the last failure. mu is held.
func (r *Ring) orGrace(g *generation, now time.Time) (*Key, error) {
	if !r.inGrace(g, now) {
		return nil, g.failed
	}
	k := r.lendCopy(g, now)
	k.Grace = g.copy.age(now) >= r.limits.TTL
	return k, nil
}

// inGrace says that the last call found the custodian out of reach and the
// tenant's grace covers the copy that is left. mu is held.
func (r *Ring) inGrace(g *generation, now time.Time) bool {
	u := g.copy
	return u != nil && IsOutage(g.failed) && u.uses < r.limits.MaxUses && u.age(now) < r.limits.TTL+r.limits.Grace
}

func (r *Ring) lendCopy(g *generation, now time.Time) *Key {
	g.copy.uses++
	g.uses++
	g.lastUsed = now
	r.use(g.Wrap, now)
	return &Key{Secret: g.copy.secret.Clone(), Mode: vocab.CustodyCached, Generation: g.id, Number: g.Number, Wrap: g.Wrap,
		RequestID: g.copy.requestID, Asked: g.copy.asked, g: g, epoch: r.epoch}
}

// start begins the one call for g. It is not bound to any caller: others wait
// for it too. mu is held.
func (r *Ring) start(g *generation, op string) *flight {
	f := &flight{done: make(chan struct{})}
	g.flight = f
	m := r.custodians[g.Wrap.Custodian]
	item := UnwrapItem{Binding: g.binding(r.tenant), Wrap: g.Wrap}
	asked := r.now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
		defer cancel()
		secret, requestID, err := Unwrap(ctx, m, item, &g.commitment)
		r.saw(op, m.ID(), 1, asked, err, requestID)
		r.land(g, f, &unwrapped{secret: secret, asked: asked, requestID: requestID}, err)
	}()
	return f
}

// land takes the result of a flight in, unless the generation was dropped
// meanwhile: then the result is void and the callers look again.
func (r *Ring) land(g *generation, f *flight, u *unwrapped, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer close(f.done)
	if g.flight != f {
		u.secret.Zero()
		return
	}
	g.flight = nil
	if err != nil {
		f.err = err
		switch {
		case refusesEverything(err):
			r.dropAll(&g.Wrap.Custodian)
		case IsRefusal(err):
			r.epoch++
			g.drop()
		}
		g.failed, g.failedAt = err, r.now()
		return
	}
	r.keep(g, u)
}

// keep replaces the copy of g. mu is held.
func (r *Ring) keep(g *generation, u *unwrapped) {
	if old := g.copy; old != nil {
		old.timer.Stop()
		old.secret.Zero()
	}
	u.early = 0.75 + 0.1*r.jitter()
	g.copy, g.failed = u, nil
	r.arm(g, u)
}

// arm sets the timer that zeroes the copy at its hard end. mu is held.
func (r *Ring) arm(g *generation, u *unwrapped) {
	if u.timer != nil {
		u.timer.Stop()
	}
	left := r.limits.TTL + r.limits.Grace - u.age(r.now())
	u.timer = time.AfterFunc(max(left, 0), func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case g.copy != u:
		case u.age(r.now()) >= r.limits.TTL+r.limits.Grace:
			u.secret.Zero()
			g.copy = nil
		default: // the limits or the clock changed
			r.arm(g, u)
		}
	})
}

func (r *Ring) saw(op string, c vocab.CustodianID, items int, start time.Time, err error, requestIDs ...string) {
	ids := requestIDs[:0:0]
	for _, id := range requestIDs {
		if id != "" {
			ids = append(ids, id)
		}
	}
	r.observe(Call{Op: op, Custodian: c, Items: items, RequestIDs: ids, Start: start, Duration: r.now().Sub(start), Err: err})
}
