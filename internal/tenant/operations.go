package tenant

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// operationRoles says who may ask for a kind of operation, and which other
// person may approve it.
var operationRoles = map[operation.Kind]struct{ ask, approve []vocab.Role }{
	operation.RoleGrant:      {roles(vocab.RoleTenantAdmin), roles(vocab.RoleTenantAdmin)},
	operation.TemplateUpdate: {roles(vocab.RolePolicyAdmin), roles(vocab.RolePolicyAdmin)},
	operation.LicenseUpdate:  {roles(vocab.RolePolicyAdmin), roles(vocab.RolePolicyAdmin)},
	operation.Recovery:       {roles(vocab.RoleRecoveryOfficer), roles(vocab.RoleRecoveryOfficer, vocab.RoleTenantAdmin)},
	operation.Transfer:       {roles(vocab.RolePolicyAdmin), roles(vocab.RolePolicyAdmin)},
	operation.Reseal:         {roles(vocab.RolePolicyAdmin, vocab.RoleKeyCustodian), roles(vocab.RolePolicyAdmin, vocab.RoleKeyCustodian)},
	operation.Rewrap:         {roles(vocab.RoleKeyCustodian), roles(vocab.RoleKeyCustodian)},
	// Under dual control: see dualControlOf.
	operation.ApproversUpdate: {roles(vocab.RoleTenantAdmin, vocab.RoleKeyCustodian), roles(vocab.RoleTenantAdmin, vocab.RoleKeyCustodian)},
	operation.CustodyLower:    {roles(vocab.RoleTenantAdmin, vocab.RolePolicyAdmin), roles(vocab.RoleTenantAdmin, vocab.RoleKeyCustodian)},
	operation.Release:         {roles(vocab.RoleTenantAdmin), roles(vocab.RoleTenantAdmin)},
	operation.KeyDestroy:      {roles(vocab.RoleKeyCustodian), roles(vocab.RoleTenantAdmin, vocab.RoleKeyCustodian)},
	operation.TenantExport:    {roles(vocab.RoleKeyCustodian), roles(vocab.RoleTenantAdmin, vocab.RoleKeyCustodian)},
}

func roles(r ...vocab.Role) []vocab.Role { return r }

// Approvers returns the roles whose holders may approve operations of a kind.
func Approvers(k operation.Kind) []vocab.Role { return operationRoles[k].approve }

// mayManage are the roles whose holders may hold an operation of a kind up, let
// it go on and end it: whoever could have asked for it, or approved it.
func mayManage(k operation.Kind) []vocab.Role {
	return slices.Concat(operationRoles[k].ask, operationRoles[k].approve)
}

// OperationView is an operation as people see it.
type OperationView struct {
	ID vocab.OperationID
	*operation.Operation
	// State is what it is now, whatever was written down.
	State    operation.State
	Revision uint32
	// Event is that of its last change, at the time Updated.
	Event    vocab.EventID
	Updated  time.Time
	Progress record.Progress
	// Waiting is why it does not go on although it runs, if that is known; it is
	// tried again by itself.
	Waiting error
	// Dual is how far the signed approvals are; nil if it takes none.
	Dual *DualView
}

// goingOn is what memory has of an operation that has not ended.
type goingOn struct {
	operation.Operation // without its parameters, which may be large
	hash                [32]byte
}

// setOperation follows an operation while it goes on.
func (l *live) setOperation(s *record.Resource) error {
	id, err := vocab.ParseOperationID(s.ID())
	if err != nil || s.Gone != 0 {
		return contradicts(s.Name)
	}
	o, err := operation.Decode(s.Body)
	if err != nil {
		return err
	}
	if o.State.Ended() {
		delete(l.operations, id)
		return nil
	}
	if l.operations == nil {
		l.operations = map[vocab.OperationID]goingOn{}
	}
	g := goingOn{Operation: *o, hash: o.ParamsHash()}
	g.Params = nil
	l.operations[id] = g
	return nil
}

// bell wakes everybody who waits for something to change.
type bell struct {
	mu   sync.Mutex
	rung chan struct{}
}

// heard returns a channel that is closed when the bell rings next. Take it
// before looking at what may change.
func (b *bell) heard() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

func noOperation(id vocab.OperationID) error {
	return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no operation %s", id).WithNext("List the operations")
}

// operationOf returns the operation that a resource's name is of, if it is one.
func operationOf(name string) vocab.OperationID {
	if s, ok := strings.CutPrefix(name, record.PrefixOperations); ok {
		if id, err := vocab.ParseOperationID(s); err == nil {
			return id
		}
	}
	return vocab.OperationID{}
}

// operation reads and verifies an operation; nil if there is none.
func (t *Tenant) operation(r store.Reader, id vocab.OperationID) (*record.Resource, *operation.Operation, error) {
	s, err := t.resource(r, record.OperationName(id))
	if err != nil || s == nil {
		return nil, nil, err
	}
	o, err := t.decodeOperation(id, s.Body)
	return s, o, err
}

func (t *Tenant) viewOperation(r store.Reader, s *record.Resource, o *operation.Operation) (*OperationView, error) {
	v := &OperationView{
		ID: operationOf(s.Name), Operation: o, State: o.At(t.now()), Revision: s.Revision, Event: s.LastEvent, Updated: s.Updated.Time(),
	}
	p, err := record.GetProgress(r, t.id, v.ID)
	if err != nil {
		return nil, err
	}
	if v.Progress = *p; o.State.Ended() {
		v.Progress = record.Progress{Total: o.Total, Done: o.Done, Failures: o.Failures, Failed: o.Failed}
	}
	if v.State == operation.Running {
		v.Waiting = t.stuck.why(v.ID)
	}
	if v.Dual, err = t.viewDual(o, v.State); err != nil {
		return nil, err
	}
	return v, nil
}

// maySee lets a caller at an operation: the requester, whoever may ask for or
// approve its kind, and auditors.
func (t *Tenant) maySee(caller *vocab.Identity, o *operation.Operation) error {
	if o.Requester.Is(caller) || t.HoldsRole(caller, append(mayManage(o.Kind), vocab.RoleAuditor)...) {
		return nil
	}
	return needsRole("this operation", mayManage(o.Kind))
}

func needsRole(what string, needed []vocab.Role) error {
	var names []string
	for _, r := range needed {
		if !slices.Contains(names, string(r)) {
			names = append(names, string(r))
		}
	}
	return vocab.Errorf(vocab.ReasonRoleRequired, "%s needs the role %s", what, strings.Join(names, " or ")).WithNext("Ask a tenant-admin")
}

// GetOperation returns an operation to whom it concerns.
func (t *Tenant) GetOperation(ctx context.Context, caller *vocab.Identity, id vocab.OperationID) (v *OperationView, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		s, o, err := t.operation(r, id)
		if err != nil {
			return err
		}
		if s == nil {
			return noOperation(id)
		}
		if err := t.maySee(caller, o); err != nil {
			return err
		}
		v, err = t.viewOperation(r, s, o)
		return err
	})
	return v, err
}

// OperationFilter selects operations; everything set must hold.
type OperationFilter struct {
	State operation.State
	Kind  operation.Kind
}

// maxLooked bounds how many operations one page looks at.
const maxLooked = 2000

// ListOperations returns up to limit operations that concern the caller, before
// an ID (zero: from the newest), newest first, and the ID to go on before, zero
// at the end. A page may be short, or empty, before the end.
func (t *Tenant) ListOperations(ctx context.Context, caller *vocab.Identity, f OperationFilter, before vocab.OperationID, limit int) (out []*OperationView, next vocab.OperationID, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		looked, last := 0, vocab.OperationID{}
		return record.ListOperations(r, t.id, before, func(s *record.Resource, o *operation.Operation) (bool, error) {
			if len(out) == limit || looked == maxLooked {
				next = last
				return false, nil
			}
			looked++
			last = operationOf(s.Name)
			concerns := t.maySee(caller, o) == nil
			if !concerns || f.State != 0 && o.At(t.now()) != f.State || f.Kind != 0 && o.Kind != f.Kind {
				return true, nil
			}
			if _, err := verifyState(r, t.id, s.Name, s.LastEvent, s.State); err != nil {
				return false, err
			}
			if o, err = t.decodeOperation(last, s.Body); err != nil {
				return false, err
			}
			v, err := t.viewOperation(r, s, o)
			if err == nil {
				out = append(out, v)
			}
			return true, err
		})
	})
	return out, next, err
}

// WatchOperation calls fn with an operation as it is, and again whenever it has
// changed, until it has ended, fn returns an error or ctx ends. Each time it
// looks whether the caller may still see it.
func (t *Tenant) WatchOperation(ctx context.Context, caller *vocab.Identity, id vocab.OperationID, fn func(*OperationView) error) error {
	var last OperationView
	for first := true; ; first = false {
		news := t.live.bell.heard()
		if err := t.Admit(caller); err != nil {
			return err
		}
		v, err := t.GetOperation(ctx, caller, id)
		if err != nil {
			return err
		}
		if first || v.Revision != last.Revision || v.State != last.State || v.Progress.Done != last.Progress.Done ||
			v.Progress.Failures != last.Progress.Failures || vocab.ReasonOf(v.Waiting) != vocab.ReasonOf(last.Waiting) {
			if err := fn(v); err != nil {
				return err
			}
		}
		if last = *v; v.State.Ended() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// holdsARole reports whether a group holds a role.
func (t *Tenant) holdsARole(group string) bool {
	p := vocab.Principal{Kind: vocab.KindGroup, Value: group}
	return slices.ContainsFunc(vocab.Roles(), func(r vocab.Role) bool {
		holders, _ := t.holders(r)
		return slices.Contains(holders, p)
	})
}

// asked is how an operation keeps who asks or approves.
func (t *Tenant) asked(id *vocab.Identity) operation.Person {
	return operation.PersonOf(id, t.holdsARole)
}

// mayApprove refuses whoever may not say yes or no to a kind of operation. That
// it is somebody else than the requester, the operation sees to.
func (t *Tenant) mayApprove(caller *vocab.Identity, k operation.Kind) error {
	if caller.Actor != nil || caller.Service != "" {
		return vocab.Errorf(vocab.ReasonRoleRequired, "an approval is a person's own: no service gives it").WithNext("Sign in yourself")
	}
	if !t.HoldsRole(caller, operationRoles[k].approve...) {
		return needsRole("approving a "+k.String(), operationRoles[k].approve)
	}
	return nil
}

// stillStands says why what was asked for and approved does not count any more:
// because one of those people was disabled, or lost the role it took.
func (t *Tenant) stillStands(o *operation.Operation) error {
	if err := t.standsFor(&o.Requester, "asked for", operationRoles[o.Kind].ask); err != nil {
		return err
	}
	if o.Kind.DualControl() && (o.Quorum != nil || t.approvers() != nil) {
		return t.quorumStands(o)
	}
	for i := range o.Approvals {
		if err := t.standsFor(&o.Approvals[i].Person, "approved", operationRoles[o.Kind].approve); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tenant) standsFor(p *operation.Person, did string, needed []vocab.Role) error {
	who := p.Identity()
	if t.Admit(who) != nil {
		return vocab.Errorf(vocab.ReasonPrincipalDisabled, "%s, who %s it, was disabled", p.Name, did)
	}
	if !t.HoldsRole(who, needed...) {
		return vocab.Errorf(vocab.ReasonRoleRequired, "%s, who %s it, no longer holds the role that takes", p.Name, did)
	}
	return nil
}

// byRequester makes an event the requester's: what an operation does, it does
// in their name.
func byRequester(e *audit.Event, o *operation.Operation) {
	r := &o.Requester
	e.Principal = audit.Principal{Issuer: r.Issuer, Subject: r.Subject, Name: r.Name, Provider: r.Provider}
}
