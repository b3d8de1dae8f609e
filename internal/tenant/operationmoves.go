package tenant

import (
	"context"
	"errors"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// maxOpen bounds how many operations of a tenant go on at a time.
const maxOpen = 1000

// wish is what somebody asks for.
type wish struct {
	kind   operation.Kind
	params any
	// about says in a few words what it is, for the log.
	about          string
	reason, ticket string
	// ends is when what it allows is over by itself; zero if it does something.
	ends time.Time
	// alone says that nobody else must approve it.
	alone bool
	// once says that it goes on only once at a time, whoever asks.
	once bool
}

// operationFor makes an operation of a wish.
func (t *Tenant) operationFor(by operation.Person, w wish, now time.Time) (*operation.Operation, error) {
	if len(w.reason) > operation.MaxReason || len(w.ticket) > operation.MaxTicket {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a reason has at most %d bytes and a ticket %d", operation.MaxReason, operation.MaxTicket)
	}
	params, err := operation.EncodeParams(w.params)
	if err != nil {
		return nil, err
	}
	o := &operation.Operation{
		Kind: w.kind, Params: params, Requester: by, Reason: w.reason, Ticket: w.ticket, Created: operation.Millis(now),
		Ends: operation.Millis(w.ends), Needed: 1, State: operation.AwaitingApproval,
	}
	expires := now.Add(operation.RequestLife)
	if !w.ends.IsZero() && w.ends.Before(expires) {
		expires = w.ends
	}
	o.Expires = operation.Millis(expires)
	if w.alone {
		o.Needed, o.State, o.Expires = 0, operation.Running, 0
	}
	return o, nil
}

// alreadyAsked says, inside this package, that the same person asks for the
// same thing again while it still goes on, or anybody for what goes on once.
type alreadyAsked struct{ id vocab.OperationID }

func (alreadyAsked) Error() string { return "asked already" }

// request makes what a caller asks for an operation. Whoever asks for the very
// same again while it goes on gets the one that is there: so asking is safe to
// repeat.
func (t *Tenant) request(ctx context.Context, c Call, w wish) (*OperationView, vocab.EventID, error) {
	id := vocab.NewOperationID()
	by := t.asked(c.Caller)
	s, event, err := t.changeResource(ctx, c, audit.KindOperationRequested, record.OperationName(id),
		func(r store.Reader, _ *record.Resource, e *audit.Event) ([]byte, error) {
			o, err := t.operationFor(by, w, e.Time)
			if err != nil {
				return nil, err
			}
			if err := t.askQuorum(r, id, o); err != nil {
				return nil, err
			}
			if err := t.live.mayOpen(o, w.once, e.Time); err != nil {
				return nil, err
			}
			if err := t.frozen(); err != nil && w.kind != operation.TenantExport {
				return nil, err
			}
			e.Detail = wishText(w)
			return o.Encode()
		})
	if there, ok := errors.AsType[alreadyAsked](err); ok {
		v, err := t.GetOperation(ctx, c.Caller, there.id)
		if err != nil {
			return nil, vocab.EventID{}, err
		}
		event, err := t.RecordRead(ctx, c.Caller, c.Method)
		return v, event, err
	}
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	v, err := t.GetOperation(ctx, c.Caller, operationOf(s.Name))
	return v, event, err
}

// wishText is how the log says what is asked for.
func wishText(w wish) string {
	text := w.kind.String() + ": " + w.about
	if w.reason != "" {
		text += "; " + w.reason
	}
	if w.ticket != "" {
		text += " (" + w.ticket + ")"
	}
	return text
}

// mayOpen refuses an operation that goes on already, and one too many.
func (l *live) mayOpen(o *operation.Operation, once bool, now time.Time) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	hash := o.ParamsHash()
	for id, g := range l.operations {
		samePerson := g.Requester.Issuer == o.Requester.Issuer && g.Requester.Subject == o.Requester.Subject
		sameThing := g.hash == hash || o.Kind == operation.Rewrap // whatever its rate
		if g.Kind == o.Kind && sameThing && (samePerson || once) && !g.At(now).Ended() {
			return alreadyAsked{id}
		}
	}
	if len(l.operations) >= maxOpen {
		return vocab.Errorf(vocab.ReasonOverloaded, "%d operations of this tenant go on already, as many as may", len(l.operations)).
			WithNext("Reject or cancel those that nobody needs any more")
	}
	return nil
}

// requestApproval asks for an operation that somebody else must approve and
// returns the refusal that says so: APPROVAL_REQUIRED, with the operation.
func (t *Tenant) requestApproval(ctx context.Context, c Call, w wish) error {
	v, event, err := t.request(ctx, c, w)
	if err != nil {
		return err
	}
	return approvalRequired(v, event)
}

func approvalRequired(v *OperationView, event vocab.EventID) *vocab.Error {
	who := "another person"
	for i, r := range Approvers(v.Kind) {
		if i == 0 {
			who = "another " + string(r)
		} else {
			who += " or a " + string(r)
		}
	}
	if v.Dual != nil {
		e := vocab.Errorf(vocab.ReasonApprovalRequired, "this is under dual control, and needs %d signed approvals by the tenant's approvers: operation %s", v.Needed, v.ID).
			WithNext("Ask them to approve it before %s", operation.Time(v.Expires).Format("2006-01-02 15:04Z"))
		e.Event, e.Operation = event, v.ID
		return e
	}
	e := vocab.Errorf(vocab.ReasonApprovalRequired, "this needs approval by %s: operation %s", who, v.ID).
		WithNext("Ask one to approve it before %s", operation.Time(v.Expires).Format("2006-01-02 15:04Z"))
	e.Event, e.Operation = event, v.ID
	return e
}

// move is what becomes of an operation in a transaction: it changes o and may
// write whatever belongs to it.
type move func(tx store.Tx, o *operation.Operation, e *audit.Event) error

// moveOperation changes an operation's state, together with whatever that does,
// in one transaction. It records no refusal.
func (t *Tenant) moveOperation(ctx context.Context, first *audit.Event, id vocab.OperationID, do move) (*OperationView, vocab.EventID, error) {
	name := record.OperationName(id)
	first.Target, first.Operation = name, id
	for range maxAttempts {
		own := *first
		e := &own
		var v *OperationView
		err := t.commit(ctx, func(tx store.Tx) error {
			epoch, err := record.Epoch(tx, t.id)
			if err != nil {
				return err
			}
			if !t.live.at(epoch) {
				return errStale
			}
			var o *operation.Operation
			s, err := t.putResource(tx, name, e, func(_ store.Reader, now *record.Resource, e *audit.Event) (body []byte, err error) {
				if now == nil {
					return nil, noOperation(id)
				}
				if o, err = t.decodeOperation(id, now.Body); err != nil {
					return nil, err
				}
				if err := do(tx, o, e); err != nil {
					return nil, err
				}
				if o.State.Ended() {
					if err := record.DeleteProgress(tx, t.id, id); err != nil {
						return nil, err
					}
				}
				return o.Encode()
			})
			if err != nil {
				return err
			}
			v, err = t.viewOperation(tx, s, o)
			return err
		}, e)
		if err == errStale { //nolint:errorlint // our own sentinel, unwrapped
			if err := t.catchUp(ctx); err != nil {
				return nil, vocab.EventID{}, err
			}
			continue
		}
		if err != nil {
			return nil, vocab.EventID{}, err
		}
		return v, e.ID, nil
	}
	return nil, vocab.EventID{}, tooBusy()
}

// decideOperation is moveOperation for what a person decides: a refusal is an
// event of its own.
func (t *Tenant) decideOperation(ctx context.Context, c Call, kind audit.Kind, id vocab.OperationID, do move) (*OperationView, vocab.EventID, error) {
	e := t.newEvent(kind, c, t.now())
	v, event, err := t.moveOperation(ctx, e, id, do)
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	return v, event, nil
}

// approvalWait is how long an approval waits to see what came of it. What takes
// longer goes on by itself.
const approvalWait = 5 * time.Second

// ApproveOperation says yes to exactly the parameters with the hash params. With
// the last approval that is needed the operation runs, unless its requester
// could not ask for it any more, or what it is based on has changed: then it
// fails, and the view says why. Under dual control it is [Tenant.ApproveSigned].
func (t *Tenant) ApproveOperation(ctx context.Context, c Call, id vocab.OperationID, params [32]byte) (*OperationView, vocab.EventID, error) {
	return t.ApproveSigned(ctx, c, id, params, nil)
}

// ApproveSigned is [Tenant.ApproveOperation] with the SSH signature that an
// operation under dual control takes, armored or bare.
func (t *Tenant) ApproveSigned(ctx context.Context, c Call, id vocab.OperationID, params [32]byte, signature []byte) (*OperationView, vocab.EventID, error) {
	v, event, err := t.decideOperation(ctx, c, audit.KindOperationApproved, id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.mayApprove(c.Caller, o.Kind); err != nil {
			return err
		}
		if err := t.frozen(); err != nil && o.Kind != operation.TenantExport {
			return err
		}
		if o.Kind.DualControl() {
			if done, err := t.voidIfStale(tx, o, e); done || err != nil {
				return err
			}
		}
		var err error
		switch {
		case o.Quorum != nil:
			err = t.approveSigned(c.Caller, o, params, signature, e)
		case len(signature) > 0:
			err = vocab.Errorf(vocab.ReasonRequestInvalid, "this takes no signature").WithNext("Approve it without one")
		default:
			err = o.Approve(t.asked(c.Caller), params, e.ID, e.Time)
		}
		if err != nil {
			return err
		}
		if o.State != operation.Running {
			return nil
		}
		err = t.stillStands(o)
		if err == nil {
			err = t.checkBasis(tx, o)
		}
		if err != nil {
			return t.failed(o, e, err)
		}
		return nil
	})
	if err != nil || v.State != operation.Running || v.Kind.Long() || v.Kind == operation.Recovery {
		return v, event, err
	}
	done, err := t.awaitEnd(ctx, c.Caller, id)
	if err != nil {
		return v, event, nil //nolint:nilerr // it was approved; how it ends can be looked up
	}
	return done, event, nil
}

// failed ends an operation and makes the event say so.
func (t *Tenant) failed(o *operation.Operation, e *audit.Event, why error) error {
	r := vocab.ReasonOf(why)
	message := string(r)
	if v, ok := asVocab(why); ok {
		message = v.Message
	}
	e.Kind, e.Reason, e.Alarm, e.Detail = audit.KindOperationFailed, r, alarming[r], message
	if o.At(e.Time) == operation.AwaitingApproval {
		return o.Void(r, message, e.Time)
	}
	return o.Fail(r, message, e.Time)
}

// awaitEnd waits a little for an operation to end, or to be held up.
func (t *Tenant) awaitEnd(ctx context.Context, caller *vocab.Identity, id vocab.OperationID) (*OperationView, error) {
	ctx, cancel := context.WithTimeout(ctx, approvalWait)
	defer cancel()
	for {
		news := t.live.bell.heard()
		v, err := t.GetOperation(ctx, caller, id)
		if err != nil || v.State.Ended() || v.Waiting != nil {
			return v, err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// RejectOperation ends a request, for whoever could approve it.
func (t *Tenant) RejectOperation(ctx context.Context, c Call, id vocab.OperationID, why string) (*OperationView, vocab.EventID, error) {
	return t.decideOperation(ctx, c, audit.KindOperationRejected, id, func(_ store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.mayApprove(c.Caller, o.Kind); err != nil {
			return err
		}
		if err := t.isAsked(c.Caller, o); err != nil {
			return err
		}
		by := t.asked(c.Caller)
		e.Detail = why
		return o.Reject(by, why, e.Time)
	})
}

// CancelOperation ends an operation before it is done: for its requester, and
// whoever could have asked for it or approved it.
func (t *Tenant) CancelOperation(ctx context.Context, c Call, id vocab.OperationID, why string) (*OperationView, vocab.EventID, error) {
	return t.manage(ctx, c, audit.KindOperationCancelled, id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.keepCounts(tx, id, o); err != nil {
			return err
		}
		if err := t.mayCancel(o); err != nil {
			return err
		}
		e.Detail = why
		return o.Cancel(why, e.Time)
	})
}

// PauseOperation holds long work up.
func (t *Tenant) PauseOperation(ctx context.Context, c Call, id vocab.OperationID) (*OperationView, vocab.EventID, error) {
	return t.manage(ctx, c, audit.KindOperationPaused, id, func(_ store.Tx, o *operation.Operation, e *audit.Event) error { return o.Pause(e.Time) })
}

// ResumeOperation lets paused work go on.
func (t *Tenant) ResumeOperation(ctx context.Context, c Call, id vocab.OperationID) (*OperationView, vocab.EventID, error) {
	return t.manage(ctx, c, audit.KindOperationResumed, id, func(_ store.Tx, o *operation.Operation, e *audit.Event) error { return o.Resume(e.Time) })
}

// manage is decideOperation for those who may hold up and end what runs.
func (t *Tenant) manage(ctx context.Context, c Call, kind audit.Kind, id vocab.OperationID, do move) (*OperationView, vocab.EventID, error) {
	return t.decideOperation(ctx, c, kind, id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if !o.Requester.Is(c.Caller) && !t.HoldsRole(c.Caller, mayManage(o.Kind)...) {
			return needsRole("this operation", mayManage(o.Kind))
		}
		return do(tx, o, e)
	})
}

// keepCounts takes over into an operation that ends how far it came.
func (t *Tenant) keepCounts(r store.Reader, id vocab.OperationID, o *operation.Operation) error {
	p, err := record.GetProgress(r, t.id, id)
	if err == nil {
		o.Total, o.Done, o.Failures, o.Failed = p.Total, p.Done, p.Failures, p.Failed
	}
	return err
}
