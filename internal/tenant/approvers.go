package tenant

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// approverRoles are those of which an approver needs one, for every kind under
// dual control.
var approverRoles = roles(vocab.RoleTenantAdmin, vocab.RoleKeyCustodian)

// ApproversView is who approves what is under dual control.
type ApproversView struct {
	// Set is nil while there are none: then a second person approves.
	Set *operation.ApproverSet
	Written
	// Event is that of the last change.
	Event vocab.EventID
	// Hash is the set's; zero without one.
	Hash [32]byte
	// Cannot says of each approver why they cannot act now, as far as is known
	// here; "" if they can.
	Cannot []string
	// Able is how many can.
	Able int
}

// setApprovers follows the approver set.
func (l *live) setApprovers(s *record.Resource) error {
	if s.Gone != 0 {
		return contradicts(s.Name)
	}
	set, err := operation.DecodeApprovers(s.Body)
	if err == nil {
		l.approvers = set
	}
	return err
}

// approvers returns the approver set in force, nil if there is none. It must not
// be changed.
func (t *Tenant) approvers() *operation.ApproverSet {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	return t.live.approvers
}

// GetApprovers returns who approves what is under dual control.
func (t *Tenant) GetApprovers(ctx context.Context) (out *ApproversView, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		out, err = t.readApprovers(r)
		return err
	})
	return out, err
}

func (t *Tenant) readApprovers(r store.Reader) (*ApproversView, error) {
	s, err := t.resource(r, record.NameApprovers)
	if err != nil || s == nil {
		return &ApproversView{}, err
	}
	set, err := operation.DecodeApprovers(s.Body)
	if err != nil {
		return nil, err
	}
	by, err := t.written(r, s)
	if err != nil {
		return nil, err
	}
	out := &ApproversView{Set: set, Written: by, Event: s.LastEvent, Hash: operation.SetHash(s.Body)}
	for i := range set.Approvers {
		why := t.cannotAct(&set.Approvers[i])
		if out.Cannot = append(out.Cannot, why); why == "" {
			out.Able++
		}
	}
	return out, nil
}

// cannotAct says why an approver cannot act now, as far as is known here: "" if
// they can. Who has a role only through a group of their identity provider is
// not known here.
func (t *Tenant) cannotAct(a *operation.Approver) string {
	p, err := vocab.ParsePrincipal(a.Principal)
	if err != nil {
		return "is no person"
	}
	t.live.mu.RLock()
	disabled := t.live.directory.Disabled([]vocab.Principal{p})
	t.live.mu.RUnlock()
	if disabled {
		return "is disabled"
	}
	groups := t.within(p)
	for _, role := range approverRoles {
		holders, _ := t.holders(role)
		if slices.Contains(holders, p) || slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(holders, directory.Group(g)) }) {
			return ""
		}
	}
	return fmt.Sprintf("does not hold the role %s or %s", approverRoles[0], approverRoles[1])
}

// checkAble refuses a set whose quorum could not come together.
func (t *Tenant) checkAble(set *operation.ApproverSet) error {
	var not []string
	for i := range set.Approvers {
		if why := t.cannotAct(&set.Approvers[i]); why != "" {
			not = append(not, set.Approvers[i].Principal+" "+why)
		}
	}
	if able := len(set.Approvers) - len(not); able < int(set.Threshold) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "%d of these approvers can act, and %d are needed: %s", able, set.Threshold, strings.Join(not, "; ")).
			WithNext("Give them the role by name first: rmsctl role grant key-custodian")
	}
	return nil
}

// UpdateApprovers asks for another approver set, which an operation sets: the
// first with a second person's approval, each further one with that of the
// quorum it replaces. want is the revision it is based on (0: there is none
// yet), unless anyRevision. With dryRun nothing is asked for, and the view has no
// ID.
func (t *Tenant) UpdateApprovers(ctx context.Context, c Call, want uint32, anyRevision bool, next *operation.ApproverSet, reason string, dryRun bool) (*OperationView, vocab.EventID, error) {
	e := t.newEvent(audit.KindOperationRequested, c, t.now())
	next.Sort()
	to, err := next.Encode()
	if err == nil {
		err = t.checkAble(next)
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	params := &operation.ApproversParams{To: to}
	var changes []string
	err = t.store.View(ctx, func(r store.Reader) error {
		now, err := t.readApprovers(r)
		if err != nil {
			return err
		}
		if !anyRevision && now.Revision != want {
			return conflict("approvers", now.Author, now.Revision, want)
		}
		if now.Set != nil {
			if params.From, err = now.Set.Encode(); err != nil {
				return err
			}
			params.Base = now.Revision
		}
		if bytes.Equal(params.From, to) {
			return vocab.Errorf(vocab.ReasonRequestInvalid, "the approvers are these already")
		}
		changes = next.Changes(now.Set)
		return nil
	})
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	w := wish{kind: operation.ApproversUpdate, params: params, about: detailOf(changes), reason: reason}
	if !dryRun {
		return t.request(ctx, c, w)
	}
	var v *OperationView
	if err := t.store.View(ctx, func(r store.Reader) error {
		o, err := t.operationFor(t.asked(c.Caller), w, e.Time)
		if err != nil {
			return err
		}
		if err := t.askQuorum(r, vocab.OperationID{}, o); err != nil {
			return err
		}
		v = &OperationView{Operation: o, State: operation.AwaitingApproval}
		v.Dual, err = t.viewDual(o, v.State)
		return err
	}); err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	event, err := t.RecordRead(ctx, c.Caller, c.Method)
	return v, event, err
}

// approversBasis: a change of approvers rests on the approvers it changes.
func (t *Tenant) approversBasis(r store.Reader, o *operation.Operation) (*operation.Basis, error) {
	params, err := operation.Params[operation.ApproversParams](o)
	if err != nil {
		return nil, err
	}
	now, err := t.readApprovers(r)
	if err != nil {
		return nil, err
	}
	if now.Revision != params.Base {
		return nil, conflict("approvers", now.Author, now.Revision, params.Base)
	}
	text := "there are no approvers yet"
	if now.Set != nil {
		text = fmt.Sprintf("revision %d of the approvers: %s", now.Revision, now.Set)
	}
	return &operation.Basis{
		Hash: canon.Hash(canon.D("rms/v1/basis/approvers", canon.Fields{1: uint64(now.Revision), 2: now.Hash[:]})), Text: []string{text},
	}, nil
}

// prepareApprovers reads the set that was approved.
func (t *Tenant) prepareApprovers(o *operation.Operation) (effect, error) {
	params, err := operation.Params[operation.ApproversParams](o)
	if err != nil {
		return nil, err
	}
	from, to, err := params.Sets()
	if err != nil {
		return nil, err
	}
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		if err := t.checkAble(to); err != nil {
			return "", err
		}
		e := t.effectEvent(audit.KindApproversChanged, o, id, now)
		e.Target, e.Detail = record.NameApprovers, detailOf(to.Changes(from))
		set := func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return params.To, nil }
		if _, err := t.putResource(tx, e.Target, e, set); err != nil {
			return "", err
		}
		return "the quorum is " + to.String(), t.log.Append(tx, e)
	}, nil
}

// shortOfQuorum says why the quorum cannot come together now, "" if it can.
func (t *Tenant) shortOfQuorum() string {
	set := t.approvers()
	if set == nil {
		return ""
	}
	var not []string
	for i := range set.Approvers {
		if why := t.cannotAct(&set.Approvers[i]); why != "" {
			not = append(not, set.Approvers[i].Principal+" "+why)
		}
	}
	if len(set.Approvers)-len(not) >= int(set.Threshold) {
		return ""
	}
	return detailOf(append([]string{
		fmt.Sprintf("%d approvers can act, and %d are needed: nothing under dual control can be done", len(set.Approvers)-len(not), set.Threshold),
	}, not...))
}

// watchApprovers raises an alarm each time the quorum can no longer come
// together, until ctx ends.
func (t *Tenant) watchApprovers(ctx context.Context) {
	news := make(chan struct{}, 1)
	stop := t.live.watch(func() {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	defer stop()
	for short := ""; ; {
		now := t.shortOfQuorum()
		if now != "" && short == "" {
			t.logger.Warn("the quorum cannot come together", "tenant", t.name, "detail", now)
			e := t.newEvent(audit.KindAlarm, byItself, t.now())
			e.Alarm, e.Detail = true, now
			if err := t.commit(ctx, func(store.Tx) error { return nil }, e); err != nil && ctx.Err() == nil {
				t.logger.Error("an alarm was not recorded", "tenant", t.name, "error", err)
				now = "" // the next change tries again
			}
		}
		short = now
		select {
		case <-ctx.Done():
			return
		case <-news:
		}
	}
}
