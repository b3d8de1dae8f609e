package tenant

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// lookEvery is how often a canary key is used while its custodian's refusal is
// waited for.
const lookEvery = time.Second

// Look is one use of a canary key.
type Look struct {
	Time time.Time
	// Strict is why the custodian did not open what it wrapped, Cached why
	// nothing was lent from memory; nil: it was.
	Strict, Cached error
	// Request is the custodian's ID of the strict one.
	Request string
}

// RefusalRehearsal is how the customer's own switch was seen to work.
type RefusalRehearsal struct {
	// LastUse is the last strict look that opened, Refused the first that the
	// custodian refused; zero: it refused none in time.
	LastUse, Refused time.Time
	// CachedDelay is from there to the first refusal of what was held in memory;
	// Stopped says that there was one.
	CachedDelay time.Duration
	Stopped     bool
	// Promised is what the tenant promises for CachedDelay.
	Promised time.Duration
}

// text says in a sentence what was seen.
func (r *RefusalRehearsal) text(waited time.Duration) string {
	switch {
	case r.Refused.IsZero():
		return fmt.Sprintf("the custodian refused nothing within %s", shortly(waited))
	case !r.Stopped:
		return fmt.Sprintf("refused within %s of the last use; what was held in memory still opened when the rehearsal ended", shortly(r.Refused.Sub(r.LastUse)))
	}
	return fmt.Sprintf("refused within %s of the last use; held in memory for %s more, at most %s are promised",
		shortly(r.Refused.Sub(r.LastUse)), shortly(r.CachedDelay), r.Promised)
}

// RehearseRefusal watches the customer's own switch on a canary: a key that is
// registered and was never activated, so that nothing depends on it. It uses the
// key every second, in strict custody by the custodian and in cached custody by a
// ring of its own with the tenant's limits, until both are refused or the time is
// over. It changes nothing at the custodian. Began is called when the beginning is
// recorded, tell with each look.
func (t *Tenant) RehearseRefusal(
	ctx context.Context, c Call, name string, wait time.Duration, began func(vocab.EventID), tell func(Look) error,
) (*RefusalRehearsal, vocab.EventID, error) {
	k := t.live.key(name)
	if k == nil {
		return nil, vocab.EventID{}, noKey()
	}
	if !t.watching.TryLock() {
		return nil, vocab.EventID{}, oneAtATime("somebody else rehearses a refusal")
	}
	defer t.watching.Unlock()
	first := t.newEvent(audit.KindRehearsed, c, t.now())
	first.Target, first.Custodian = record.KeyName(name), k.ID
	probe, err := t.newProbe(ctx, name, k)
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, first, err)
	}
	defer probe.ring.Close()
	first.Detail = "began to watch for the custodian's refusal"
	if err := t.commit(ctx, func(store.Tx) error { return nil }, first); err != nil {
		return nil, vocab.EventID{}, err
	}
	began(first.ID)
	out, err := probe.watch(ctx, wait, tell)
	e := t.newEvent(audit.KindRehearsed, c, t.now())
	e.Target, e.Custodian, e.Parent, e.CustodianRequest = first.Target, k.ID, first.ID, probe.refusedBy
	e.Detail = out.text(e.Time.Sub(first.Time))
	if out.CachedDelay > out.Promised+lookEvery {
		e.Alarm, e.Reason = true, vocab.ReasonCustodyIntegrity
	}
	// What was seen is written down even if the caller left.
	if recErr := t.commit(context.WithoutCancel(ctx), func(store.Tx) error { return nil }, e); recErr != nil {
		return nil, vocab.EventID{}, recErr
	}
	return out, e.ID, err
}

// probe is a canary key in use.
type probe struct {
	custodian keys.Custodian
	item      keys.UnwrapItem
	ring      *keys.Ring
	entry     keys.Entry
	promised  time.Duration
	now       func() time.Time
	refusedBy string
}

// newProbe wraps one key for each custody mode. The error is why the canary is
// none, or its custodian's.
func (t *Tenant) newProbe(ctx context.Context, name string, k *record.TenantKey) (*probe, error) {
	if s := keys.State(k.State); s != keys.PreActive {
		return nil, vocab.Errorf(vocab.ReasonKeyState, "the key %s is %s, and a canary must never have been activated: documents may depend on it", name, s).
			WithNext("Make a key for this at the custodian, and register it: rmsctl key register")
	}
	custodian := t.openedKey(k.ID)
	if custodian == nil {
		return nil, t.viewKey(ctx, name, k).Fault
	}
	limits := t.ring.Limits()
	p := &probe{custodian: custodian, now: t.now}
	p.promised, _ = limits.EffectiveDelay()
	ring, err := keys.NewRing(ctx, keys.RingConfig{
		Tenant: t.id, Custodians: []keys.Custodian{custodian}, Records: &canaryRecords{}, Limits: limits, Now: t.now, Observe: t.logCustodian,
		Roots: func() (out []ed25519.PublicKey) {
			for _, key := range k.SignKeys {
				out = append(out, key[:])
			}
			return out
		},
	})
	if err != nil {
		return nil, err
	}
	p.ring = ring
	if p.entry, err = ring.NewGeneration(ctx); err == nil {
		p.item, err = p.wrap(ctx, t.id)
	}
	if err != nil {
		ring.Close()
		return nil, err
	}
	return p, nil
}

// wrap has the custodian wrap a key for a document that there is not.
func (p *probe) wrap(ctx context.Context, t vocab.TenantID) (keys.UnwrapItem, error) {
	secret := vocab.NewSecret()
	defer secret.Zero()
	b := keys.DocumentBinding(t, vocab.NewGenerationID(), vocab.NewContentID())
	rs, err := p.custodian.Wrap(ctx, []keys.WrapItem{{Binding: b, Secret: secret}})
	if err == nil {
		err = rs[0].Err
	}
	if err != nil {
		return keys.UnwrapItem{}, err
	}
	return keys.UnwrapItem{Binding: b, Wrap: rs[0].Wrap}, nil
}

// watch looks every second, until both looks are refused or the time is over.
func (p *probe) watch(ctx context.Context, wait time.Duration, tell func(Look) error) (*RefusalRehearsal, error) {
	out := &RefusalRehearsal{Promised: p.promised}
	begin := p.now()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		look := p.look(ctx)
		if err := context.Cause(ctx); err != nil {
			return out, err
		}
		switch {
		case look.Strict == nil && out.Refused.IsZero():
			out.LastUse = look.Time
		case keys.IsRefusal(look.Strict) && out.Refused.IsZero():
			out.Refused, p.refusedBy = look.Time, look.Request
		}
		if !out.Refused.IsZero() {
			out.CachedDelay, out.Stopped = look.Time.Sub(out.Refused), keys.IsRefusal(look.Cached)
		}
		if err := tell(look); err != nil || out.Stopped || look.Time.Sub(begin) >= wait {
			return out, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return out, context.Cause(ctx)
		}
	}
}

// look uses the key once in each way. The strict look goes past the ring, whose
// memory a refusal would empty.
func (p *probe) look(ctx context.Context) Look {
	l := Look{Time: p.now()}
	secret, request, err := keys.Unwrap(ctx, p.custodian, p.item, nil)
	secret.Zero()
	l.Strict, l.Request = err, request
	lent, err := p.ring.Open(ctx, p.entry.ID)
	lent.Release()
	l.Cached = err
	return l
}

// canaryRecords keeps the generation of a canary key for one rehearsal.
type canaryRecords struct{ list []keys.Record }

// Generations implements [keys.Records].
func (c *canaryRecords) Generations(context.Context) ([]keys.Record, error) { return c.list, nil }

// AddGeneration implements [keys.Records].
func (c *canaryRecords) AddGeneration(_ context.Context, r keys.Record) error {
	c.list = append(c.list, r)
	return nil
}

// SetWrap implements [keys.Records]; nothing is rewrapped here.
func (c *canaryRecords) SetWrap(context.Context, uint32, license.Wrap, license.Wrap) error {
	return vocab.Errorf(vocab.ReasonInternal, "a canary is not rewrapped")
}

// Keys implements [keys.Records].
func (c *canaryRecords) Keys(context.Context) ([]keys.KeyStates, error) { return nil, nil }

// Mark implements [keys.Records].
func (c *canaryRecords) Mark(context.Context, vocab.CustodianID) (keys.Mark, error) {
	return keys.Mark{}, nil
}

// SetMark implements [keys.Records].
func (c *canaryRecords) SetMark(context.Context, keys.Mark, *keys.Facts) error { return nil }
