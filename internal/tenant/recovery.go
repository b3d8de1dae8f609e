package tenant

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// RecoveryScope says what a recovery opens. Exactly one field is set.
type RecoveryScope struct {
	License  vocab.ContentID
	Owner    vocab.Principal // everything of one owner
	Template string          // everything that follows a template, by its slug
}

// RequestRecovery asks for a recovery, break-glass: that the caller may open
// what is in the scope, whatever the policies say, until an instant. It counts
// from when another recovery-officer or a tenant-admin approves it.
func (t *Tenant) RequestRecovery(ctx context.Context, c Call, s RecoveryScope, until time.Time, reason, ticket string, notify bool) (*OperationView, vocab.EventID, error) {
	e := t.newEvent(audit.KindOperationRequested, c, t.now())
	params, about, err := t.recoveryParams(ctx, s)
	until = until.UTC().Truncate(time.Millisecond)
	switch {
	case err != nil:
	case strings.TrimSpace(reason) == "" || strings.TrimSpace(ticket) == "":
		err = vocab.Errorf(vocab.ReasonRequestInvalid, "a recovery needs a reason and a ticket")
	case !until.After(e.Time):
		err = vocab.Errorf(vocab.ReasonRequestInvalid, "a recovery ends in the future")
	case until.After(e.Time.Add(operation.MaxRecovery)):
		err = vocab.Errorf(vocab.ReasonRequestInvalid, "a recovery ends at most %d hours ahead", int(operation.MaxRecovery/time.Hour))
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	params.Until = operation.Millis(until)
	if notify {
		params.Notify = 1
	}
	return t.request(ctx, c, wish{
		kind: operation.Recovery, params: params, about: about + " until " + until.Format(time.RFC3339), reason: reason, ticket: ticket, ends: until,
	})
}

func (t *Tenant) recoveryParams(ctx context.Context, s RecoveryScope) (*operation.RecoveryParams, string, error) {
	switch {
	case !s.License.IsZero():
		return &operation.RecoveryParams{License: s.License[:]}, "license " + s.License.String(), nil
	case !s.Owner.IsZero():
		if k := s.Owner.Kind; k != vocab.KindUser && k != vocab.KindService {
			return nil, "", vocab.Errorf(vocab.ReasonRequestInvalid, "%s owns nothing: name a user or a service", s.Owner)
		}
		return &operation.RecoveryParams{Owner: s.Owner.String()}, "everything of " + s.Owner.String(), nil
	}
	var uid vocab.TemplateUID
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		uid, err = record.FindTemplate(r, t.id, s.Template)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if uid.IsZero() {
		return nil, "", noTemplate(s.Template)
	}
	return &operation.RecoveryParams{Template: uid[:]}, "everything under template " + s.Template, nil
}

// recovery is a recovery that a request names, and which its caller may use now.
type recovery struct {
	params *operation.RecoveryParams
}

func recoveryInvalid(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonRecoveryInvalid, format, args...)
}

// unknownRecovery is the answer for a recovery that is not there and for one
// that is somebody else's: the same.
func unknownRecovery() error {
	return recoveryInvalid("there is no such recovery of yours").WithNext("Ask for one: rmsctl recovery request")
}

// recoveryOf returns the recovery an item names, nil if it names none. Whoever
// may not use it learns nothing of the document, not even that there is one.
func (t *Tenant) recoveryOf(r store.Reader, a *acquisition) (*recovery, error) {
	a.event.Operation, a.event.BreakGlass = vocab.OperationID{}, false
	if a.Recovery.IsZero() {
		return nil, nil
	}
	v, err := t.findRecovery(r, a.Recovery, a.caller, a.event)
	if err == nil && a.pl == nil && (a.inputs.record == nil || a.inputs.record.Tombstone != 0) {
		err = v.covers(a.Content, nil) // as for one that is there and not covered
	}
	return v, err
}

// findRecovery returns a recovery if the caller may use it now. The event says
// which it was about, if there is such a one.
func (t *Tenant) findRecovery(r store.Reader, id vocab.OperationID, caller *vocab.Identity, e *audit.Event) (*recovery, error) {
	_, o, err := t.operation(r, id)
	if err != nil {
		return nil, err
	}
	if o == nil || o.Kind != operation.Recovery {
		return nil, unknownRecovery()
	}
	e.Operation, e.BreakGlass = id, true
	if !o.Requester.Is(caller) || caller.Actor != nil {
		return nil, unknownRecovery()
	}
	switch state := o.At(e.Time); {
	case state == operation.AwaitingApproval:
		return nil, recoveryInvalid("the recovery waits for approval").WithNext("Ask another recovery-officer or a tenant-admin to approve it")
	case state != operation.Running:
		return nil, recoveryInvalid("the recovery has ended: it is %s", endWord(state)).WithNext("Ask for another one: rmsctl recovery request")
	case !o.Approved():
		return nil, contradicts("operation " + id.String())
	case !t.HoldsRole(caller, operationRoles[operation.Recovery].ask...):
		return nil, needsRole("a recovery", operationRoles[operation.Recovery].ask)
	}
	params, err := operation.Params[operation.RecoveryParams](o)
	if err != nil {
		return nil, err
	}
	return &recovery{params: params}, nil
}

func endWord(s operation.State) string {
	if s == operation.Succeeded {
		return "over"
	}
	return s.String()
}

// covers refuses a license that is not in the scope. No recovery stands in no
// way.
func (v *recovery) covers(c vocab.ContentID, p *policy.Policy) error {
	if v == nil || p != nil && v.params.Covers(c, p.Owner, p.Template) {
		return nil
	}
	return recoveryInvalid("the recovery does not cover this document").WithNext("Ask for one that does: rmsctl recovery request")
}

// until ends a decision when the recovery it rests on ends.
func (v *recovery) until(d policy.Decision) policy.Decision {
	if v != nil && d.Allowed && v.params.End().Before(d.NotAfter) {
		d.NotAfter = v.params.End()
	}
	return d
}

// announceBatch is how many licenses one transaction tells.
const announceBatch = 64

// workAnnounce tells the next licenses that a recovery covers them, if its
// requester wanted that, and reports whether nothing is left to tell.
func (t *Tenant) workAnnounce(ctx context.Context, id vocab.OperationID, o *operation.Operation) (done bool, err error) {
	params, err := operation.Params[operation.RecoveryParams](o)
	if err != nil || params.Notify == 0 {
		return err == nil, err
	}
	detail := fmt.Sprintf("break-glass until %s: %s (%s)", params.End().Format(time.RFC3339), o.Reason, o.Ticket)
	switch {
	case len(params.License) > 0:
		return t.announceOne(ctx, id, o, vocab.ContentID(params.License), detail)
	case params.Owner != "":
		owner, err := vocab.ParsePrincipal(params.Owner)
		if err != nil {
			return false, contradicts("operation " + id.String())
		}
		return t.announceAll(ctx, id, o, record.LicenseScope{Owner: owner}, detail)
	}
	return t.announceAll(ctx, id, o, record.LicenseScope{Template: vocab.TemplateUID(params.Template)}, detail)
}

// announceOne tells one license, once.
func (t *Tenant) announceOne(ctx context.Context, id vocab.OperationID, o *operation.Operation, c vocab.ContentID, detail string) (bool, error) {
	err := t.store.Commit(ctx, func(tx store.Tx) error {
		p, err := record.GetProgress(tx, t.id, id)
		if err != nil || p.Finished != 0 {
			return err
		}
		if err := t.announce(tx, id, o, c, detail); err != nil {
			return err
		}
		p.Total, p.Done, p.Finished = 1, 1, 1
		tx.AfterCommit(t.live.bell.ring)
		return record.PutProgress(tx, t.id, id, p)
	})
	return err == nil, err
}

// announceAll tells the next licenses of a scope, each once.
func (t *Tenant) announceAll(ctx context.Context, id vocab.OperationID, o *operation.Operation, s record.LicenseScope, detail string) (done bool, err error) {
	err = t.store.Commit(ctx, func(tx store.Tx) error {
		p, err := record.GetProgress(tx, t.id, id)
		if err != nil {
			return err
		}
		if done = p.Finished != 0; done {
			return nil
		}
		if p.Total == 0 {
			n, err := record.CountScope(tx, t.id, s)
			if err != nil {
				return err
			}
			p.Total = uint64(n)
		}
		list, err := record.NextLicenses(tx, t.id, s, p.After, announceBatch)
		if err != nil {
			return err
		}
		for _, l := range list {
			if err := t.announce(tx, id, o, l.Content, detail); err != nil {
				return err
			}
			p.After = l.Content
			p.Done++
		}
		if done = len(list) < announceBatch; done {
			p.Finished = 1
		}
		tx.AfterCommit(t.live.bell.ring)
		return record.PutProgress(tx, t.id, id, p)
	})
	return done, err
}

// announce writes a license's event, unless the recovery has ended meanwhile.
func (t *Tenant) announce(tx store.Tx, id vocab.OperationID, o *operation.Operation, c vocab.ContentID, detail string) error {
	_, now, err := t.operation(tx, id)
	if err != nil {
		return err
	}
	if now == nil || now.At(t.now()) != operation.Running {
		return vocab.Errorf(vocab.ReasonOperationState, "it has ended")
	}
	e := t.effectEvent(audit.KindRecoveryAnnounced, o, id, t.now())
	e.Content, e.Detail = c, detail
	return t.log.Append(tx, e)
}
