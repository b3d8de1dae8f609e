package tenant

import (
	"context"

	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Admission is what the door found out: who calls, and by which role. It held
// when the door looked. A call may go on for long after that, so nothing it
// writes takes effect unless it still holds in the very transaction that writes
// it, and a stream ends as soon as it does not hold.
type Admission struct {
	Caller *vocab.Identity
	// Roles are those of which one let the caller in; none if no role did.
	Roles []vocab.Role
}

type admissionKey struct{}

// WithAdmission returns a context for what a call does.
func WithAdmission(ctx context.Context, a Admission) context.Context {
	return context.WithValue(ctx, admissionKey{}, &a)
}

// admissionOf returns the admission of the call that ctx is of; nil for what the
// service does by itself.
func admissionOf(ctx context.Context) *Admission {
	a, _ := ctx.Value(admissionKey{}).(*Admission)
	return a
}

// Admit refuses callers who are disabled, whatever they want.
func (t *Tenant) Admit(caller *vocab.Identity) error {
	if t.standingOf(caller, *t.settings.Load()).disabled {
		return vocab.Errorf(vocab.ReasonPrincipalDisabled, "you were disabled in this tenant").WithNext("Ask an administrator")
	}
	return nil
}

// holds refuses what a call was admitted for and would not be any more.
func (t *Tenant) holds(a *Admission) error {
	if err := t.Admit(a.Caller); err != nil {
		return err
	}
	if len(a.Roles) > 0 && !t.HoldsRole(a.Caller, a.Roles...) {
		return vocab.Errorf(vocab.ReasonRoleRequired, "the role that let you do this was taken from you").WithNext("Ask a tenant-admin")
	}
	return nil
}

// stillAdmitted is holds as the transaction sees it; errBehind if memory does
// not have all that it sees yet.
func (t *Tenant) stillAdmitted(tx store.Tx, a *Admission) error {
	if a == nil {
		return nil
	}
	epoch, err := record.Epoch(tx, t.id)
	if err != nil {
		return err
	}
	if !t.live.at(epoch) {
		return errBehind
	}
	return t.holds(a)
}

// WhileAdmitted returns a context that ends, with the refusal as its cause, when
// the admission in ctx does not hold any more: before whoever changed that has
// an answer. Call stop when it is not needed any more.
func (t *Tenant) WhileAdmitted(ctx context.Context) (_ context.Context, stop func()) {
	a := admissionOf(ctx)
	if a == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	look := func() {
		if err := t.holds(a); err != nil {
			cancel(err)
		}
	}
	unwatch := t.live.watch(look)
	look() // what changed since the door looked
	return ctx, func() { unwatch(); cancel(nil) }
}
