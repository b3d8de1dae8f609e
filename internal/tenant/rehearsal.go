package tenant

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// rehearsalReason is what the events of a rehearsal state as their reason.
const rehearsalReason = "rehearsal of the switch"

// Rehearsal is how trying the service's own switch went.
type Rehearsal struct {
	Generation      uint32 // the canary's
	Suspend, Resume vocab.EventID
	// StoppedAfter is from asking for the suspension to the first look that was
	// refused, OpenedAfter from asking for its end to the first that opened.
	StoppedAfter, OpenedAfter time.Duration
	// Request is the custodian's ID of the call that opened the strict canary
	// while the other one was suspended.
	Request string
}

// RehearseSuspension suspends and resumes the tenant's canary, a generation that
// nothing was ever published under, by the way in which every generation is
// suspended, and looks what opens before, between and after: a canary document
// under it, one in strict custody under the active key, and the active
// generation. It is recorded as rehearsed. A switch that does not do what it must
// is CUSTODY_INTEGRITY, and an alarm; the canary is resumed whatever happens.
func (t *Tenant) RehearseSuspension(ctx context.Context, c Call) (*Rehearsal, vocab.EventID, error) {
	t.rehearsing.Lock()
	defer t.rehearsing.Unlock()
	e := t.newEvent(audit.KindRehearsed, c, t.now())
	out, err := t.rehearse(ctx, c, e)
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	e.Detail = fmt.Sprintf("stopped within %s, opened again within %s; meanwhile the rest opened", shortly(out.StoppedAfter), shortly(out.OpenedAfter))
	e.CustodianRequest = out.Request
	return out, e.ID, t.commit(context.WithoutCancel(ctx), func(store.Tx) error { return nil }, e)
}

// shortly rounds up, so that nothing is said to have taken less than it did.
func shortly(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

func (t *Tenant) rehearse(ctx context.Context, c Call, e *audit.Event) (*Rehearsal, error) {
	if err := t.State().Err; err != nil {
		return nil, err // a canary is never the first generation of a tenant
	}
	canary, err := t.canary(ctx, c)
	if err != nil {
		return nil, err
	}
	target := KeyTarget{Generation: canary.Number}
	e.Target, e.Generation, e.Custodian, e.KeyVersion = record.GenerationName(canary.Number), canary.ID, canary.Version.Custodian, canary.Version.Version
	cached, err := t.canaryDocument(func(vocab.ContentID) (*keys.Key, error) { return t.ring.Open(ctx, canary.ID) })
	if err != nil {
		return nil, err
	}
	strict, err := t.canaryDocument(func(id vocab.ContentID) (*keys.Key, error) { return t.ring.NewDocument(ctx, id) })
	if err != nil {
		return nil, err
	}
	for _, l := range []*record.License{cached, strict} {
		if _, err := t.tryCanary(ctx, l); err != nil {
			return nil, err
		}
	}
	out := &Rehearsal{Generation: canary.Number}
	asked := t.now()
	if out.Suspend, err = t.SetKeyState(ctx, c, target, Suspend, rehearsalReason); err != nil {
		return nil, err
	}
	_, suspended := t.tryCanary(ctx, cached)
	out.StoppedAfter = t.now().Sub(asked)
	out.Request, err = t.restGoesOn(ctx, strict)
	asked = t.now()
	// Nobody's leaving, and no failure before, keeps the canary suspended.
	var resumeErr error
	if out.Resume, resumeErr = t.SetKeyState(context.WithoutCancel(ctx), c, target, Resume, rehearsalReason); resumeErr != nil {
		return nil, resumeErr
	}
	if vocab.ReasonOf(suspended) != vocab.ReasonKeySuspended {
		return nil, vocab.Errorf(vocab.ReasonCustodyIntegrity, "the switch does not work: a generation opened, or failed otherwise, after it was suspended").
			WithNext("Treat it as a defect of this service, and use the switch at the custodian").Because(suspended)
	}
	if err == nil {
		_, err = t.tryCanary(ctx, cached)
	}
	out.OpenedAfter = t.now().Sub(asked)
	return out, err
}

// restGoesOn opens what was not suspended: a document in strict custody, which
// asks the custodian, and the active generation. Whatever is wrong with these has
// its own reason. It returns the custodian's ID of its call.
func (t *Tenant) restGoesOn(ctx context.Context, strict *record.License) (string, error) {
	lent, err := t.tryCanary(ctx, strict)
	if err != nil {
		return "", err
	}
	active, err := t.ring.Active(ctx)
	active.Release()
	return lent.RequestID, err
}

// canary returns the generation that is kept for rehearsals under the active
// key, and makes one if there is none. One that an interrupted rehearsal left
// suspended is resumed.
func (t *Tenant) canary(ctx context.Context, c Call) (keys.Entry, error) {
	active := t.active()
	if active == nil {
		return keys.Entry{}, t.unavailable()
	}
	for _, e := range t.ring.Inventory() {
		if !e.Canary || e.Version.Custodian != active.ID() {
			continue
		}
		if e.State == keys.Suspended {
			if _, err := t.SetKeyState(ctx, c, KeyTarget{Generation: e.Number}, Resume, rehearsalReason); err != nil {
				return e, err
			}
			return e, nil
		}
		if e.Err == nil {
			return e, nil
		}
	}
	return t.ring.NewCanary(ctx)
}

// canaryDocument makes the record of a document that nobody has, with a content
// key of its own under the generation that lend lends. It is kept nowhere.
func (t *Tenant) canaryDocument(lend func(vocab.ContentID) (*keys.Key, error)) (*record.License, error) {
	l := &record.License{Content: vocab.NewContentID(), ContentSuite: canon.ContentSuite1}
	lent, err := lend(l.Content)
	if err != nil {
		return nil, err
	}
	defer lent.Release()
	ck := vocab.NewSecret()
	defer ck.Zero()
	_, _ = rand.Read(l.Salt[:]) // never fails (Go 1.24)
	l.Commitment = canon.Commitment(ck, t.id, l.Content, l.ContentSuite)
	l.Generation = lent.Generation
	if lent.Mode == vocab.CustodyStrict {
		l.Wrap = lent.Wrap.Encode()
	}
	box := l.Box(t.id)
	l.KeyBox, err = box.Seal(lent.Secret, ck)
	return l, err
}

// tryCanary opens a canary document as every document is opened.
func (t *Tenant) tryCanary(ctx context.Context, l *record.License) (*keys.Key, error) {
	ck, lent, err := t.openKeyBox(ctx, l)
	if err != nil {
		return nil, err
	}
	ck.Zero()
	return lent, t.ring.Recheck(lent)
}
