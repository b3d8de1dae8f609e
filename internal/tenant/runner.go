package tenant

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// The runner carries out what runs, one operation at a time: what is done at
// once before what takes long, and of that the oldest first. All it knows it has
// from the store, so it goes on after a restart where it was, and every step it
// takes is one transaction that says so.

// How long to wait before something that could not be done is tried again.
const (
	firstRetry   = time.Second
	longestRetry = time.Minute
)

// stuck remembers why operations do not go on.
type stuck struct {
	mu  sync.Mutex
	err map[vocab.OperationID]error
}

func (s *stuck) why(id vocab.OperationID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err[id]
}

// set notes why an operation does not go on, nil if it does, and reports
// whether that is news.
func (s *stuck) set(id vocab.OperationID, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = map[vocab.OperationID]error{}
	}
	news := vocab.ReasonOf(s.err[id]) != vocab.ReasonOf(err)
	if s.err[id] = err; err == nil {
		delete(s.err, id)
	}
	return news
}

// runner is the state of [Tenant.operate], its goroutine's alone.
type runner struct {
	t *Tenant
	// next is when an operation may be worked on again, pause how long the next
	// failure makes it wait.
	next  map[vocab.OperationID]time.Time
	pause map[vocab.OperationID]time.Duration
	// pace is how fast each of those goes that work on many licenses.
	pace map[vocab.OperationID]*pace
	// told are the recoveries that nothing is left to do for.
	told map[vocab.OperationID]bool
}

// operate carries out operations until ctx ends.
func (t *Tenant) operate(ctx context.Context) {
	r := &runner{
		t: t, next: map[vocab.OperationID]time.Time{}, pause: map[vocab.OperationID]time.Duration{},
		pace: map[vocab.OperationID]*pace{}, told: map[vocab.OperationID]bool{},
	}
	for {
		news := t.live.bell.heard()
		wait, waits := r.round(ctx)
		var due <-chan time.Time
		timer := time.NewTimer(wait)
		if waits {
			due = timer.C
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-due:
		case <-news:
		}
		timer.Stop()
	}
}

// round does what can be done now and returns how long until there is more by
// itself, if there ever is.
func (r *runner) round(ctx context.Context) (wait time.Duration, waits bool) {
	t := r.t
	for ctx.Err() == nil {
		open := t.live.open()
		r.forget(open)
		wait, waits = 0, false
		later := func(d time.Duration) {
			if d = max(d, 0); !waits || d < wait {
				wait, waits = d, true
			}
		}
		busy := false // something long is being worked on
		for _, o := range open {
			if pause := time.Until(r.next[o.id]); pause > 0 {
				later(pause)
				busy = busy || o.Kind.Long() && o.State == operation.Running && t.stuck.why(o.id) == nil
				continue
			}
			now := t.now()
			due := o.Due()
			if !due.IsZero() {
				later(due.Sub(now))
			}
			switch {
			case !due.IsZero() && !now.Before(due):
				r.after(o.id, 0, t.lapse(ctx, o.id))
			case o.State != operation.Running, r.told[o.id], busy && o.Kind.Long():
				continue
			default:
				pause, err := t.workOn(ctx, r, o.id)
				r.after(o.id, pause, err)
			}
			wait, waits = 0, true
			break // look again: much may have changed
		}
		if !waits || wait > 0 {
			return wait, waits
		}
	}
	return wait, waits
}

// after notes how a step went.
func (r *runner) after(id vocab.OperationID, pause time.Duration, err error) {
	switch {
	case err == nil:
		delete(r.pause, id)
		delete(r.next, id)
		if pause > 0 {
			r.next[id] = time.Now().Add(pause)
		}
	default:
		p := max(r.pause[id], firstRetry)
		r.next[id], r.pause[id] = time.Now().Add(p), min(2*p, longestRetry)
		if errors.Is(err, context.Canceled) {
			return // the tenant is being closed
		}
		if vocab.ReasonOf(err) == vocab.ReasonCustodianActs && vocab.ReasonOf(r.t.stuck.why(id)) == vocab.ReasonCustodianActs {
			return // it waits for a person, perhaps for months, and that was said
		}
		r.t.logger.Info("an operation does not go on now", "tenant", r.t.name, "operation", id.String(), "reason", string(vocab.ReasonOf(err)), "error", err)
	}
	if r.t.stuck.set(id, err) {
		r.t.live.bell.ring()
	}
}

// forget drops what was noted of operations that have ended.
func (r *runner) forget(open []openOperation) {
	goesOn := func(id vocab.OperationID) bool {
		return slices.ContainsFunc(open, func(o openOperation) bool { return o.id == id })
	}
	for id := range r.next {
		if !goesOn(id) {
			delete(r.next, id)
			delete(r.pause, id)
		}
	}
	for id := range r.pace {
		if !goesOn(id) {
			delete(r.pace, id)
		}
	}
	for id := range r.told {
		if !goesOn(id) {
			delete(r.told, id)
		}
	}
}

// paceOf returns how fast an operation goes; at first, slowly.
func (r *runner) paceOf(id vocab.OperationID) *pace {
	if r.pace[id] == nil {
		r.pace[id] = newPace(&r.t.calls)
	}
	return r.pace[id]
}

// openOperation is one that goes on.
type openOperation struct {
	id vocab.OperationID
	goingOn
}

// open returns the operations that go on: those that are done at once first,
// then by age.
func (l *live) open() []openOperation {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]openOperation, 0, len(l.operations))
	for id, g := range l.operations {
		out = append(out, openOperation{id, g})
	}
	slices.SortFunc(out, func(a, b openOperation) int {
		if a.Kind.Long() != b.Kind.Long() {
			if a.Kind.Long() {
				return 1
			}
			return -1
		}
		return bytes.Compare(a.id[:], b.id[:])
	})
	return out
}

// byItself is the call of what nobody does.
var byItself = Call{Method: "operation"}

// lapse writes down what time alone has changed.
func (t *Tenant) lapse(ctx context.Context, id vocab.OperationID) error {
	_, _, err := t.moveOperation(ctx, t.newEvent(audit.KindOperationExpired, byItself, t.now()), id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.keepCounts(tx, id, o); err != nil {
			return err
		}
		if err := o.Lapse(e.Time); err != nil {
			return err
		}
		if o.State == operation.Succeeded {
			e.Kind, e.Detail = audit.KindOperationSucceeded, "its time is over"
		}
		return nil
	})
	return overtaken(err)
}

// overtaken takes it for done when somebody else moved an operation first.
func overtaken(err error) error {
	if vocab.ReasonOf(err) == vocab.ReasonOperationState {
		return nil
	}
	return err
}

// workOn takes the next step of an operation and returns how long to leave it
// alone then. An error is one that may be over by itself; what cannot be done at
// all fails the operation.
func (t *Tenant) workOn(ctx context.Context, r *runner, id vocab.OperationID) (time.Duration, error) {
	var o *operation.Operation
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		_, o, err = t.operation(r, id)
		return err
	})
	if err != nil || o == nil || o.At(t.now()) != operation.Running {
		return 0, err
	}
	if !o.Approved() {
		// It runs without the approvals that make it run: somebody wrote it.
		return 0, t.giveUp(ctx, id, contradicts("operation "+id.String()))
	}
	if err := t.frozen(); err != nil && o.Kind != operation.TenantExport {
		return 0, err
	}
	var pause time.Duration
	switch o.Kind {
	case operation.RoleGrant, operation.TemplateUpdate, operation.LicenseUpdate, operation.ApproversUpdate, operation.CustodyLower,
		operation.Release, operation.TenantExport:
		err = t.carryOut(ctx, id, o)
	case operation.Transfer:
		pause, err = t.workTransfer(ctx, r.paceOf(id), id, o)
	case operation.Reseal:
		pause, err = t.workReseal(ctx, r.paceOf(id), id, o)
	case operation.Rewrap:
		pause, err = t.workRewrap(ctx, r.paceOf(id), id, o)
	case operation.KeyDestroy:
		err = t.workDestroy(ctx, id, o)
	case operation.Recovery:
		var done bool
		if done, err = t.workAnnounce(ctx, id, o); done {
			r.told[id] = true
		}
	default:
		err = contradicts("operation " + id.String())
	}
	if err == nil || passes(err) {
		return pause, overtaken(err)
	}
	return 0, t.giveUp(ctx, id, err)
}

// heldUp is an error that an operation waits out, though another would end for it:
// that of a key which somebody suspended, and may resume.
type heldUp struct{ error }

func (h heldUp) Unwrap() error { return h.error }

// holdsUp has an operation wait while keys are suspended, or none is active.
func holdsUp(err error) error {
	switch vocab.ReasonOf(err) {
	case vocab.ReasonKeySuspended, vocab.ReasonKeyState:
		return heldUp{err}
	}
	return err
}

// passes reports whether an error may be over by itself: then an operation
// waits; any other ends it.
func passes(err error) bool {
	if _, ok := errors.AsType[heldUp](err); ok {
		return true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || keys.IsOutage(err) {
		return true
	}
	switch vocab.ReasonOf(err) {
	case vocab.ReasonCustodianRefused, vocab.ReasonCustodianChanged, vocab.ReasonKeyAttributesUnsafe, vocab.ReasonStoreFull,
		vocab.ReasonOverloaded, vocab.ReasonLogDamaged, vocab.ReasonOperationState, vocab.ReasonCustodianActs,
		vocab.ReasonTenantFrozen:
		return true
	}
	return false
}

// giveUp fails an operation.
func (t *Tenant) giveUp(ctx context.Context, id vocab.OperationID, why error) error {
	_, _, err := t.moveOperation(ctx, t.newEvent(audit.KindOperationFailed, byItself, t.now()), id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.keepCounts(tx, id, o); err != nil {
			return err
		}
		return t.failed(o, e, why)
	})
	return overtaken(err)
}

// carryOut does what is done in one transaction, together with its end.
func (t *Tenant) carryOut(ctx context.Context, id vocab.OperationID, o *operation.Operation) error {
	effect, err := t.prepare(ctx, o)
	if err != nil {
		return err
	}
	_, _, err = t.moveOperation(ctx, t.newEvent(audit.KindOperationSucceeded, byItself, t.now()), id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if o.At(e.Time) != operation.Running {
			return vocab.Errorf(vocab.ReasonOperationState, "it was ended meanwhile")
		}
		if err := t.stillStands(o); err != nil {
			return err
		}
		if err := t.frozen(); err != nil && o.Kind != operation.TenantExport {
			return err
		}
		if err := t.checkBasis(tx, o); err != nil {
			return err
		}
		result, err := effect(tx, o, id, e.Time)
		if err != nil {
			return err
		}
		e.Detail = result
		return o.Succeed(result, e.Time)
	})
	return err
}

// effect is what an operation does, with its own event, in a transaction. It
// returns what came of it, in words.
type effect func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (result string, err error)

// prepare does what must be done before the transaction.
func (t *Tenant) prepare(ctx context.Context, o *operation.Operation) (effect, error) {
	switch o.Kind { //nolint:exhaustive // the others take more than one transaction
	case operation.RoleGrant:
		return t.prepareRoleGrant(o)
	case operation.TemplateUpdate:
		return t.prepareTemplate(ctx, o)
	case operation.LicenseUpdate:
		return t.prepareLicense(ctx, o)
	case operation.KeyDestroy:
		return t.prepareDestroy(o)
	case operation.ApproversUpdate:
		return t.prepareApprovers(o)
	case operation.CustodyLower:
		return t.prepareCustody(ctx, o)
	case operation.Release:
		return t.prepareRelease(o)
	case operation.TenantExport:
		return t.prepareMove(o)
	}
	return nil, contradicts("an operation")
}

// effectEvent begins the event of what an operation does, in its requester's
// name.
func (t *Tenant) effectEvent(kind audit.Kind, o *operation.Operation, id vocab.OperationID, now time.Time) *audit.Event {
	e := t.newEvent(kind, byItself, now)
	byRequester(e, o)
	e.Operation = id
	return e
}

// checkBasis says why what an operation would do is not what was asked for any
// more: it is based on something that has changed.
func (t *Tenant) checkBasis(r store.Reader, o *operation.Operation) error {
	switch o.Kind { //nolint:exhaustive // the others rest on nothing that changes
	case operation.TemplateUpdate:
		return t.checkTemplateBasis(r, o)
	case operation.LicenseUpdate:
		return t.checkLicenseBasis(r, o)
	}
	if o.Kind.DualControl() {
		return t.checkDualBasis(r, o)
	}
	return nil
}
