package tenant

import (
	"context"
	"errors"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Call is who calls, and how: what the door established.
type Call struct {
	Caller *vocab.Identity
	Method string
	// Client is what the client says of itself; recorded, decides nothing.
	Client string
}

// newEvent begins the event of a call.
func (t *Tenant) newEvent(kind audit.Kind, c Call, now time.Time) *audit.Event {
	e := &audit.Event{
		ID: vocab.NewEventID(), Tenant: t.id, Time: now.UTC().Truncate(time.Millisecond), Kind: kind,
		Method: c.Method, Client: c.Client,
	}
	if c.Caller != nil {
		e.Principal = audit.PrincipalOf(c.Caller)
		e.Actor = audit.PrincipalOf(c.Caller.Actor)
		e.Peer = c.Caller.Peer
	}
	return e
}

// alarming are the reasons that can only come from damage, forgery or a
// defect: their events are alarms.
var alarming = map[vocab.Reason]bool{
	vocab.ReasonLicenseSignature: true,
	vocab.ReasonLicenseMismatch:  true,
	vocab.ReasonLicenseUnknown:   true,
	vocab.ReasonCustodyIntegrity: true,
	vocab.ReasonStoreDamaged:     true,
	vocab.ReasonLogDamaged:       true,
	vocab.ReasonCustodianChanged: true,
}

// unrecorded are the reasons of refusals that leave no event: the request had
// no meaning, nothing was decided, and a caller could fill the log with them.
var unrecorded = map[vocab.Reason]bool{
	vocab.ReasonRequestInvalid:   true,
	vocab.ReasonPageTokenInvalid: true,
	vocab.ReasonRateLimited:      true,
	vocab.ReasonBatchTooLarge:    true,
	vocab.ReasonOverloaded:       true,
	vocab.ReasonStoreFull:        true,
	vocab.ReasonInternal:         true,
	vocab.ReasonResourceNotFound: true,
	vocab.ReasonEtagMismatch:     true,
	vocab.ReasonResourceExists:   true,
}

// Recordable reports whether a refusal with this reason is an event.
func Recordable(r vocab.Reason) bool { return !unrecorded[r] }

// RecordRead makes the event of a read durable.
func (t *Tenant) RecordRead(ctx context.Context, caller *vocab.Identity, method string) (vocab.EventID, error) {
	e := t.newEvent(audit.KindRead, Call{Caller: caller, Method: method}, t.now())
	return e.ID, t.commit(ctx, func(store.Tx) error { return nil }, e)
}

// RecordRefusal makes the event of a refusal durable that was decided outside
// this package.
func (t *Tenant) RecordRefusal(ctx context.Context, caller *vocab.Identity, method string, r vocab.Reason) (vocab.EventID, error) {
	e := t.newEvent(audit.KindRefused, Call{Caller: caller, Method: method}, t.now())
	return e.ID, t.commitRefusal(ctx, func(store.Tx) error { return nil }, e, r)
}

// commit writes what fn writes, and the event, in one durable transaction, if
// the call that ctx is of is still admitted then.
func (t *Tenant) commit(ctx context.Context, fn func(store.Tx) error, e *audit.Event) error {
	a := admissionOf(ctx)
	for range maxAttempts {
		err := t.store.Commit(ctx, func(tx store.Tx) error {
			if err := t.stillAdmitted(tx, a); err != nil {
				return err
			}
			if err := t.mayWrite(tx, e.Kind); err != nil {
				return err
			}
			if err := fn(tx); err != nil {
				return err
			}
			return t.log.Append(tx, e)
		})
		if err != errBehind { //nolint:errorlint // our own sentinel, unwrapped
			return err
		}
		if err := t.catchUp(ctx); err != nil {
			return err
		}
	}
	return tooBusy()
}

// commitRefusal makes a refusal durable, unless fn says that it does not hold.
// If that fails the caller gets the failure: no refusal is told that is not in
// the log.
func (t *Tenant) commitRefusal(ctx context.Context, fn func(store.Tx) error, e *audit.Event, r vocab.Reason) error {
	e.Kind, e.Reason, e.Alarm = audit.KindRefused, r, alarming[r]
	e.Granted, e.NotAfter, e.Cached, e.State = 0, time.Time{}, false, [32]byte{}
	// Whoever is not admitted any more is refused all the same.
	return t.store.Commit(ctx, func(tx store.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return t.log.Append(tx, e)
	})
}

// refuse records a refusal and returns it as the caller gets it, with its
// event. Reasons that are not recorded pass as they are.
func (t *Tenant) refuse(ctx context.Context, e *audit.Event, err error) error {
	return t.refuseIf(ctx, func(store.Tx) error { return nil }, e, err)
}

// refuseIf is refuse for a decision: fn looks in the transaction whether what it
// rests on is still so. If not, its error is returned and nothing recorded.
func (t *Tenant) refuseIf(ctx context.Context, fn func(store.Tx) error, e *audit.Event, err error) error {
	r := vocab.ReasonOf(err)
	if v, ok := asVocab(err); !Recordable(r) || ok && !v.Event.IsZero() {
		return err // without an event, or with one already
	}
	if recErr := t.commitRefusal(context.WithoutCancel(ctx), fn, e, r); recErr != nil {
		return recErr
	}
	return withEvent(err, e.ID)
}

// withEvent returns err with the event a person may quote.
func withEvent(err error, id vocab.EventID) error {
	v, ok := errors.AsType[*vocab.Error](err)
	if !ok {
		v = vocab.Errorf(vocab.ReasonOf(err), "%s", string(vocab.ReasonOf(err))).Because(err)
	}
	with := *v
	with.Event = id
	return &with
}
