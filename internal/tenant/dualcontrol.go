package tenant

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Some kinds of operations are under dual control. While the tenant has no
// approvers, a second person approves them as any other. Once it has, M of N
// approvers do, each with a signature by a key of their own that names the exact
// parameters and what they rest on; and nothing but such an operation changes
// the approvers.
//
// What is counted is counted again in every transaction that rests on it: the
// signatures, who is an approver now, and who of them may act. The operation
// needs the quorum that was in force when it was asked for and the one that is
// in force, so that lowering a quorum lowers it for what is asked for afterwards.

// dualControl is what a kind of operation has to say to be under dual control.
//
// To put another kind under it: give it roles in operationRoles and a case in
// dualControlOf, count it in [operation.Kind.DualControl], and ask for it as for any other, with [Tenant.request] or
// [Tenant.requestApproval]. Approvers sign no kind that rmsctl has no words for:
// give it a case in dualWords there. What carries it out in one transaction has its basis
// and its approvals looked at in that transaction (see carryOut); what takes more
// than one calls stillStands and checkBasis itself, in each of them.
type dualControl struct {
	// basis says what an operation rests on, as a transaction sees it: a hash of
	// all of it, and lines for the people who approve it. It is asked when the
	// operation is asked for, at each approval and when it is done; once it is not
	// the same any more, nothing is done: INVENTORY_CHANGED. An error at the first
	// time is why the operation is not asked for.
	basis func(t *Tenant, r store.Reader, o *operation.Operation) (*operation.Basis, error)
}

// dualControlOf returns what is needed of a kind that is under dual control.
func dualControlOf(k operation.Kind) (dualControl, bool) {
	switch k { //nolint:exhaustive // the others take a second person, or nobody
	case operation.ApproversUpdate:
		return dualControl{basis: (*Tenant).approversBasis}, true
	case operation.CustodyLower:
		return dualControl{basis: (*Tenant).custodyBasis}, true
	case operation.KeyDestroy:
		return dualControl{basis: (*Tenant).destroyBasis}, true
	case operation.TenantExport:
		return dualControl{basis: (*Tenant).moveBasis}, true
	}
	return dualControl{}, false
}

// DualView is how far the signed approvals of an operation are.
type DualView struct {
	*operation.Tally
	// SetAsked is the approver set that was in force when it was asked for, SetNow
	// the one that is, or was when an ended operation was approved.
	SetAsked, SetNow *operation.ApproverSet
	// Left are the approvers, by principal, who can still approve it as far as is
	// known here.
	Left []string
}

// askQuorum makes a new operation of a kind under dual control one that rests on
// what is there now and, if the tenant has approvers, one that they approve.
func (t *Tenant) askQuorum(r store.Reader, id vocab.OperationID, o *operation.Operation) error {
	if !o.Kind.DualControl() {
		return nil
	}
	d, ok := dualControlOf(o.Kind)
	if !ok || o.Needed == 0 {
		return contradicts("an operation under dual control that rests on nothing, or that nobody approves")
	}
	var err error
	if o.Basis, err = d.basis(t, r, o); err != nil {
		return err
	}
	if set := t.approvers(); set != nil {
		return o.Ask(t.id, id, set)
	}
	return nil
}

// decodeOperation reads an operation whose ID is known. What approvers signed of
// it must be what it is.
func (t *Tenant) decodeOperation(id vocab.OperationID, body []byte) (*operation.Operation, error) {
	o, err := operation.Decode(body)
	if err != nil || o.Quorum == nil {
		return o, err
	}
	s, err := operation.StatementOf(t.id, id, o, o.Quorum.Set)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(s.Bytes(), o.Quorum.Signed) {
		return nil, contradicts("operation " + id.String())
	}
	return o, nil
}

// checkDualBasis refuses what does not rest on what it was asked for on.
func (t *Tenant) checkDualBasis(r store.Reader, o *operation.Operation) error {
	d, ok := dualControlOf(o.Kind)
	if !ok || o.Basis == nil {
		return contradicts("an operation")
	}
	now, err := d.basis(t, r, o)
	switch vocab.ReasonOf(err) {
	case "":
	case vocab.ReasonEtagMismatch, vocab.ReasonResourceNotFound, vocab.ReasonResourceExists, vocab.ReasonRequestInvalid,
		vocab.ReasonKeyInUse, vocab.ReasonKeyState:
		// What would be refused if it were asked for now: something has changed.
		return inventoryChanged().Because(err)
	default:
		return err
	}
	was, err := o.Basis.Sum()
	if err != nil {
		return err
	}
	is, err := now.Sum()
	if err == nil && is != was {
		err = inventoryChanged()
	}
	return err
}

func inventoryChanged() *vocab.Error {
	return vocab.Errorf(vocab.ReasonInventoryChanged, "what this rests on has changed since it was asked for; nothing was done").
		WithNext("Look at what is there now, and ask again")
}

// voidIfStale ends an operation that nobody should approve any more, and reports
// whether it did.
func (t *Tenant) voidIfStale(r store.Reader, o *operation.Operation, e *audit.Event) (bool, error) {
	if o.At(e.Time) != operation.AwaitingApproval {
		return false, nil
	}
	err := t.checkDualBasis(r, o)
	if err == nil && o.Quorum == nil && t.approvers() != nil {
		err = approversSince()
	}
	switch vocab.ReasonOf(err) {
	case "":
		return false, nil
	case vocab.ReasonInventoryChanged, vocab.ReasonApprovalRequired:
		return true, t.failed(o, e, err)
	}
	return false, err
}

// approversSince is why an operation is not done that one other person approved,
// or was to approve, when the tenant has approvers.
func approversSince() *vocab.Error {
	return vocab.Errorf(vocab.ReasonApprovalRequired, "this was asked for before the tenant had approvers, and needs theirs now; nothing was done").
		WithNext("Ask again")
}

// approveSigned adds a caller's signed approval. With the last one that is
// needed the operation runs.
func (t *Tenant) approveSigned(caller *vocab.Identity, o *operation.Operation, params [32]byte, signature []byte, e *audit.Event) error {
	if len(signature) == 0 {
		return operation.Unsigned()
	}
	sig, err := sshsig.Parse(signature)
	if err != nil {
		return err
	}
	set := t.approvers()
	approver := t.approverOf(caller, set, sig.Key().Wire())
	if approver == nil {
		return notAnApprover()
	}
	before, err := t.tally(o)
	if err != nil {
		return err
	}
	a := operation.Approval{
		Person: t.asked(caller), At: operation.Millis(e.Time), Event: e.ID, Params: params, Signature: sig.Bytes(), Approver: approver.Principal,
	}
	if err := o.ApproveSigned(a, before, []*operation.ApproverSet{set}, e.Time); err != nil {
		return err
	}
	// Whoever cannot count is told, rather than kept.
	if err := t.approverStands(o, &a); err != nil {
		return err
	}
	e.Detail = "signed with " + sig.Key().Type() + " " + sig.Key().Fingerprint()
	after, err := t.tally(o)
	if err != nil {
		return err
	}
	if why := after.Why[len(after.Why)-1]; why != nil {
		return why
	}
	if after.Enough() {
		return o.Start(after, set)
	}
	return nil
}

func notAnApprover() error {
	return vocab.Errorf(vocab.ReasonRoleRequired, "this is under dual control, and you are not one of the tenant's approvers").
		WithNext("Ask one of them: rmsctl approver list")
}

// isAsked refuses whoever is not one of the approvers that an operation needs.
func (t *Tenant) isAsked(caller *vocab.Identity, o *operation.Operation) error {
	if o.Quorum != nil && t.approverOf(caller, t.approvers(), nil) == nil {
		return notAnApprover()
	}
	return nil
}

// approverOf returns which approver a caller is: the one who has the key, if the
// caller is several; nil if none.
func (t *Tenant) approverOf(caller *vocab.Identity, set *operation.ApproverSet, key []byte) *operation.Approver {
	if set == nil {
		return nil
	}
	var found *operation.Approver
	for i := range set.Approvers {
		if a := &set.Approvers[i]; t.isApprover(caller, a.Principal) && (found == nil || set.Has(a.Principal, key)) {
			found = a
		}
	}
	return found
}

// isApprover reports whether somebody is the person that an approver set names.
func (t *Tenant) isApprover(id *vocab.Identity, principal string) bool {
	p, err := vocab.ParsePrincipal(principal)
	return err == nil && policy.Is(id, p, t.settings.Load().GuestDomains)
}

// tally counts an operation's approvals as things are now.
func (t *Tenant) tally(o *operation.Operation) (*operation.Tally, error) {
	return o.Tally(t.approvers(), func(a *operation.Approval) error { return t.approverStands(o, a) })
}

// approverStands says why somebody who signed does not count as things are now.
func (t *Tenant) approverStands(o *operation.Operation, a *operation.Approval) error {
	if err := t.standsFor(&a.Person, "approved", operationRoles[o.Kind].approve); err != nil {
		return err
	}
	switch {
	case !t.isApprover(a.Identity(), a.Approver):
		return vocab.Errorf(vocab.ReasonRoleRequired, "%s is not the approver %s", a.Name, a.Approver)
	case t.isApprover(o.Requester.Identity(), a.Approver):
		return vocab.Errorf(vocab.ReasonSamePerson, "who asks for something does not approve it").WithNext("Ask another approver")
	}
	return nil
}

// quorumStands says why an operation has not the quorum, or not any more.
func (t *Tenant) quorumStands(o *operation.Operation) error {
	if o.Quorum == nil {
		return approversSince()
	}
	tally, err := t.tally(o)
	if err != nil || tally.Enough() {
		return err
	}
	why := fmt.Sprintf("%d of %d approvals that it needs count", tally.Now.Have, tally.Now.Need)
	if tally.Now.Have >= tally.Now.Need {
		why = fmt.Sprintf("it was asked for when %d approvals were needed, of which %d count", tally.Asked.Need, tally.Asked.Have)
	}
	for _, err := range tally.Why {
		if v, ok := asVocab(err); ok {
			why += "; " + v.Message
		}
	}
	return vocab.Errorf(vocab.ReasonApprovalRequired, "%s; nothing was done", why).WithNext("Ask again")
}

// viewDual says how far the signed approvals of an operation are; nil if it
// takes none.
func (t *Tenant) viewDual(o *operation.Operation, state operation.State) (*DualView, error) {
	if o.Quorum == nil {
		return nil, nil
	}
	asked, err := o.Asked()
	if err != nil {
		return nil, err
	}
	v := &DualView{SetAsked: asked, SetNow: t.approvers()}
	if state.Ended() {
		// What became of people afterwards changes nothing of what was decided.
		v.Tally, v.SetNow, err = o.Decided()
		return v, err
	}
	if v.Tally, err = t.tally(o); err != nil {
		return nil, err
	}
	if state != operation.AwaitingApproval || v.SetNow == nil {
		return v, nil
	}
	gave := map[string]bool{}
	for i, a := range o.Approvals {
		gave[a.Approver] = gave[a.Approver] || v.Why[i] == nil
	}
	for i := range v.SetNow.Approvers {
		a := &v.SetNow.Approvers[i]
		if !gave[a.Principal] && t.cannotAct(a) == "" && !t.isApprover(o.Requester.Identity(), a.Principal) {
			v.Left = append(v.Left, a.Principal)
		}
	}
	return v, nil
}

// detailOf joins lines to what an event's detail can hold.
func detailOf(lines []string) string {
	const most = 900
	s := strings.Join(lines, "; ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + " …"
	}
	return s
}
