package operation

import (
	"bytes"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
)

// ApprovalNamespace is the namespace of signatures that approve operations:
// ssh-keygen -Y sign -n.
const ApprovalNamespace = "rms-approval-v1"

// MaxApprovals bounds how many approvals an operation keeps: those that no
// longer count are kept too.
const MaxApprovals = 100

// Basis is what an operation rests on, as it was when it was asked for. If it is
// otherwise later, nothing is done.
type Basis struct {
	// Hash is of all of it.
	Hash [32]byte `cbor:"1,keyasint"`
	// Text says it to people, in a few lines: it is approved with the rest.
	Text []string `cbor:"2,keyasint,omitempty"`
}

// Sum is what an approval names a basis by: the hash and what people were told.
func (b *Basis) Sum() ([32]byte, error) {
	enc, err := canon.Marshal(b)
	if err != nil {
		return [32]byte{}, vocab.Errorf(vocab.ReasonRequestInvalid, "what it rests on cannot be written").Because(err)
	}
	return canon.Hash(canon.D("rms/v1/basis", canon.Fields{1: enc})), nil
}

// Quorum is what makes an operation one that signed approvals let run.
type Quorum struct {
	// Set is the approver set that was in force when it was asked for, encoded.
	Set []byte `cbor:"1,keyasint"`
	// Signed is what approvers sign: a [Statement].
	Signed []byte `cbor:"2,keyasint"`
	// Then is the set that was in force when the last approval came, if that is
	// another.
	Then []byte `cbor:"3,keyasint,omitempty"`
}

// Statement is what an approver signs: that this operation, and no other, shall
// be done.
type Statement struct {
	Tenant    vocab.TenantID
	Operation vocab.OperationID
	Kind      Kind
	Params    [32]byte // hash of the parameters
	Basis     [32]byte // [Basis.Sum]
	Requester Person   // Issuer, Subject and Name count
	Reason    string
	Ticket    string
	Needed    uint8
	Set       [32]byte // [SetHash] of the set in force when it was asked for
	Created   uint64
	Expires   uint64 // until when it can be approved
	Ends      uint64
}

// StatementOf is the statement of an operation that has a basis; set is the
// approver set in force when it was asked for, encoded.
func StatementOf(tenant vocab.TenantID, id vocab.OperationID, o *Operation, set []byte) (*Statement, error) {
	if o.Basis == nil {
		return nil, damaged(nil)
	}
	basis, err := o.Basis.Sum()
	if err != nil {
		return nil, err
	}
	return &Statement{
		Tenant: tenant, Operation: id, Kind: o.Kind, Params: o.ParamsHash(), Basis: basis, Requester: o.Requester,
		Reason: o.Reason, Ticket: o.Ticket, Needed: o.Needed, Set: SetHash(set), Created: o.Created, Expires: o.Expires, Ends: o.Ends,
	}, nil
}

// Bytes is the message that is signed: docs/formats.md says how it is built.
func (s *Statement) Bytes() []byte {
	return canon.D("rms/v1/approval", canon.Fields{
		1: s.Tenant[:], 2: s.Operation[:], 3: uint64(s.Kind), 4: s.Params[:], 5: s.Basis[:],
		6: s.Requester.Issuer, 7: s.Requester.Subject, 8: s.Requester.Name, 9: s.Reason, 10: s.Ticket,
		11: uint64(s.Needed), 12: s.Set[:], 13: s.Created, 14: s.Expires, 15: s.Ends,
	})
}

// Ask makes an operation one that the quorum of a set must approve.
func (o *Operation) Ask(tenant vocab.TenantID, id vocab.OperationID, set *ApproverSet) error {
	enc, err := set.Encode()
	if err != nil {
		return err
	}
	o.Needed = set.Threshold
	s, err := StatementOf(tenant, id, o, enc)
	if err != nil {
		return err
	}
	o.Quorum = &Quorum{Set: enc, Signed: s.Bytes()}
	return nil
}

// Asked is the approver set that was in force when the operation was asked for;
// nil if it needs no signatures.
func (o *Operation) Asked() (*ApproverSet, error) {
	if o.Quorum == nil {
		return nil, nil
	}
	return DecodeApprovers(o.Quorum.Set)
}

// check reports whether the quorum's parts can be read.
func (o *Operation) checkQuorum() error {
	if o.Quorum == nil {
		return nil
	}
	set, err := o.Asked()
	if err == nil && (o.Basis == nil || o.Needed != set.Threshold || len(o.Quorum.Signed) == 0 || len(o.Approvals) > MaxApprovals) {
		err = damaged(nil)
	}
	if err == nil && len(o.Quorum.Then) > 0 {
		_, err = DecodeApprovers(o.Quorum.Then)
	}
	return err
}

// Key is the public key that signed an approval, in wire form; nil of one that
// is not signed.
func (a *Approval) Key() []byte {
	s, err := sshsig.Parse(a.Signature)
	if err != nil {
		return nil
	}
	return s.Key().Wire()
}

// verify checks an approval's signature.
func (a *Approval) verify(signed []byte) (key []byte, err error) {
	s, err := sshsig.Parse(a.Signature)
	if err != nil {
		return nil, err
	}
	return s.Key().Wire(), s.Verify(ApprovalNamespace, signed)
}

// Count is how many approvals of a quorum there are, and must be.
type Count struct{ Have, Need int }

// Tally is how far the approvals of an operation under dual control are.
type Tally struct {
	// Why says of each approval why it does not count; nil if it does.
	Why []error
	// Asked is by the approver set that was in force when it was asked for, Now
	// by the one that is in force. Both must have enough: a quorum that is
	// lowered meanwhile lowers nothing.
	Asked, Now Count
}

// Enough reports whether the quorum is there.
func (t *Tally) Enough() bool {
	return t.Now.Need >= MinThreshold && t.Now.Have >= t.Now.Need && t.Asked.Need >= MinThreshold && t.Asked.Have >= t.Asked.Need
}

// Tally counts approvals as they stand. now is the approver set in force. may
// says why an approver does not count as things are now, although they signed:
// disabled, without the role, or the requester after all.
//
// An approval counts if its signature is one of this operation's statement, by a
// key that the set in force names as that approver's, if may has nothing against
// it, and if no approval before it is by the same person, approver or key.
func (o *Operation) Tally(now *ApproverSet, may func(*Approval) error) (*Tally, error) {
	asked, err := o.Asked()
	if err != nil || asked == nil {
		return nil, firstOf(err, damaged(nil))
	}
	t := &Tally{Why: make([]error, len(o.Approvals)), Asked: Count{Need: int(asked.Threshold)}}
	if now != nil {
		t.Now.Need = int(now.Threshold)
	}
	hash := o.ParamsHash()
	keys := make([][]byte, len(o.Approvals))
	for i := range o.Approvals {
		a := &o.Approvals[i]
		key, err := a.verify(o.Quorum.Signed)
		keys[i] = key
		switch {
		case err != nil:
		case a.Params != hash:
			err = vocab.Errorf(vocab.ReasonEtagMismatch, "it is of other parameters")
		case o.Requester.Same(&a.Person):
			err = vocab.Errorf(vocab.ReasonSamePerson, "it is by whoever asked")
		case now.Find(a.Approver) == nil:
			err = vocab.Errorf(vocab.ReasonRoleRequired, "%s is not one of the approvers any more", a.Name)
		case !now.Has(a.Approver, key):
			err = vocab.Errorf(vocab.ReasonRoleRequired, "%s signed with a key that is not theirs any more", a.Name)
		default:
			if err = may(a); err == nil {
				err = o.another(t, keys, i)
			}
		}
		if t.Why[i] = err; err != nil {
			continue
		}
		if t.Now.Have++; asked.Has(a.Approver, key) {
			t.Asked.Have++
		}
	}
	return t, nil
}

// another refuses an approval that is not by somebody else than those before it
// that count.
func (o *Operation) another(t *Tally, keys [][]byte, i int) error {
	a := &o.Approvals[i]
	for j := range i {
		b := &o.Approvals[j]
		if t.Why[j] == nil && (a.Same(&b.Person) || a.Approver == b.Approver || bytes.Equal(keys[i], keys[j])) {
			return vocab.Errorf(vocab.ReasonSamePerson, "%s approved it already", a.Name)
		}
	}
	return nil
}

// ApproveSigned adds an approval by signature. by says who, and as which of the
// approvers; before is the tally without it. That the approver may, and whether
// the quorum is there with it, the caller finds out: then it is [Operation.Start].
//
// The error is SAME_PERSON for the requester and for whoever approved already,
// OPERATION_STATE if it does not wait for approval, ETAG_MISMATCH if it was not
// this that was shown or signed, ROLE_REQUIRED if the key is not the
// approver's, and REQUEST_INVALID if the signature is none.
func (o *Operation) ApproveSigned(a Approval, before *Tally, sets []*ApproverSet, now time.Time) error {
	if o.Requester.Same(&a.Person) {
		return vocab.Errorf(vocab.ReasonSamePerson, "who asks for something does not approve it").WithNext("Ask another approver")
	}
	if err := o.waits(now, "approved"); err != nil {
		return err
	}
	if a.Params != o.ParamsHash() {
		return vocab.Errorf(vocab.ReasonEtagMismatch, "the operation is not the one you were shown").WithNext("Look at it again, and approve what you see")
	}
	key, err := a.verify(o.Quorum.Signed)
	if key == nil {
		return err
	}
	theirs := false
	for _, s := range sets {
		theirs = theirs || s.Has(a.Approver, key)
	}
	if !theirs {
		return vocab.Errorf(vocab.ReasonRoleRequired, "the key that signed is not one of yours").
			WithNext("Sign with a key that the approvers name as yours: rmsctl approver list")
	}
	if err != nil {
		return err
	}
	for i := range o.Approvals {
		b := &o.Approvals[i]
		if before.Why[i] == nil && (a.Same(&b.Person) || a.Approver == b.Approver || bytes.Equal(key, b.Key())) {
			return vocab.Errorf(vocab.ReasonSamePerson, "you approved this already").WithNext("Ask another approver")
		}
	}
	if len(o.Approvals) >= MaxApprovals {
		return vocab.Errorf(vocab.ReasonOperationState, "%d approvals were given, most of which do not count any more", MaxApprovals).WithNext("Cancel it and ask again")
	}
	o.Approvals = append(o.Approvals, a)
	return nil
}

// Start lets an operation run whose quorum is there. now is the approver set in
// force.
func (o *Operation) Start(t *Tally, now *ApproverSet) error {
	if o.State != AwaitingApproval || !t.Enough() {
		return damaged(nil)
	}
	enc, err := now.Encode()
	if err != nil {
		return err
	}
	if !bytes.Equal(enc, o.Quorum.Set) {
		o.Quorum.Then = enc
	}
	o.State = Running
	return nil
}

// signedBy reports whether the operation by itself has the signatures that it
// takes: of different people and keys, by the sets that it holds. Whether they
// still count, Tally says.
func (o *Operation) signedBy() bool {
	t, _, err := o.Decided()
	return err == nil && t.Enough()
}

// Decided counts approvals by what the operation itself holds: the sets that
// were in force when it was asked for and when the last approval came, which it
// returns.
func (o *Operation) Decided() (*Tally, *ApproverSet, error) {
	now, err := o.Asked()
	if err == nil && o.Quorum != nil && len(o.Quorum.Then) > 0 {
		now, err = DecodeApprovers(o.Quorum.Then)
	}
	if err != nil {
		return nil, nil, err
	}
	t, err := o.Tally(now, func(*Approval) error { return nil })
	return t, now, err
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
