// Package operation is what takes time or a second person: who asked for what,
// who approved it, and in which state it is. It knows the rules by which a
// state follows another, and how all of it is stored; it knows no clock and no
// store, and nothing of what an operation does.
package operation

import (
	"fmt"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Kind says what an operation is for. The numbers are stored: never re-used.
type Kind uint8

// Kinds of operations.
const (
	RoleGrant      Kind = 1 // somebody shall hold a role
	TemplateUpdate Kind = 2 // a template revision by which its author gains access
	LicenseUpdate  Kind = 3 // a change of somebody else's license by which its author gains access
	Recovery       Kind = 4 // break-glass: somebody may open what no grant lets them open
	Transfer       Kind = 5 // all licenses of one owner become another's
	Reseal         Kind = 6 // licenses hold the same content key under another generation
	// ApproversUpdate changes who approves what is under dual control, or how many.
	ApproversUpdate Kind = 7
	// CustodyLower lets content open for longer after the custodian refused.
	CustodyLower Kind = 8
	// Rewrap moves what is wrapped to the newest version of the active key.
	Rewrap Kind = 9
	// KeyDestroy destroys a key, a version of one or a generation for ever.
	KeyDestroy Kind = 10

	Release Kind = 20 // a tenant that was restored from a backup shall publish and open again
	// TenantExport freezes the tenant for its move to another service, or thaws it.
	TenantExport Kind = 11
)

var kindNames = map[Kind]string{
	RoleGrant: "role-grant", TemplateUpdate: "template-update", LicenseUpdate: "license-update",
	Recovery: "recovery", Transfer: "transfer", Reseal: "reseal",
	ApproversUpdate: "approvers-update", CustodyLower: "custody-lower",
	Rewrap: "rewrap", KeyDestroy: "key-destroy", Release: "release",
	TenantExport: "tenant-export",
}

// String returns the kind's name, such as "role-grant".
func (k Kind) String() string {
	if n, ok := kindNames[k]; ok {
		return n
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// DualControl reports whether operations of the kind are approved by the tenant's
// approvers, with signatures, once there are any.
func (k Kind) DualControl() bool {
	return k == ApproversUpdate || k == CustodyLower || k == KeyDestroy || k == TenantExport
}

// Long reports whether operations of the kind work through many licenses: these
// alone can be paused.
func (k Kind) Long() bool { return k == Transfer || k == Reseal || k == Rewrap }

// State is where an operation is. The numbers are stored: never re-used.
type State uint8

// States of operations. The first three go on, the others are ends.
const (
	AwaitingApproval State = 1
	Running          State = 2
	Paused           State = 3
	Succeeded        State = 4
	Failed           State = 5
	Cancelled        State = 6
	Expired          State = 7
	Rejected         State = 8
)

var stateNames = map[State]string{
	AwaitingApproval: "awaiting approval", Running: "running", Paused: "paused", Succeeded: "succeeded",
	Failed: "failed", Cancelled: "cancelled", Expired: "expired", Rejected: "rejected",
}

// String returns the state in words, such as "awaiting approval".
func (s State) String() string {
	if n, ok := stateNames[s]; ok {
		return n
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Ended reports whether nothing follows the state. A state we do not know is
// an end: nothing is done for it.
func (s State) Ended() bool { return s != AwaitingApproval && s != Running && s != Paused }

// Operation is one operation, as it is stored. Times are milliseconds since
// 1970, UTC; zero is none.
type Operation struct {
	Kind Kind `cbor:"1,keyasint"`
	// Params are what it is to do, exactly: the encoding of the kind's own
	// struct. Their hash is what is approved.
	Params    []byte `cbor:"2,keyasint"`
	Requester Person `cbor:"3,keyasint"`
	Reason    string `cbor:"4,keyasint,omitempty"`
	Ticket    string `cbor:"5,keyasint,omitempty"`
	Created   uint64 `cbor:"6,keyasint"`
	// Expires is until when it can be approved.
	Expires uint64 `cbor:"7,keyasint,omitempty"`
	// Ends is when what it allows is over by itself; zero if it does something
	// and is then done.
	Ends uint64 `cbor:"8,keyasint,omitempty"`
	// Needed is how many people other than the requester must approve.
	Needed    uint8      `cbor:"9,keyasint,omitempty"`
	Approvals []Approval `cbor:"10,keyasint,omitempty"`
	State     State      `cbor:"11,keyasint"`
	// Ended is when it came to its end.
	Ended uint64 `cbor:"12,keyasint,omitempty"`
	// Done and Failures are how many of Total licenses were and could not be
	// worked on, set at the end.
	Done     uint64 `cbor:"13,keyasint,omitempty"`
	Failures uint64 `cbor:"14,keyasint,omitempty"`
	// Why and Message are why it failed or was ended: a reason of the closed
	// list, if there is one, and a sentence.
	Why     vocab.Reason `cbor:"15,keyasint,omitempty"`
	Message string       `cbor:"16,keyasint,omitempty"`
	// Result names what came of it, such as a template's revision.
	Result string `cbor:"17,keyasint,omitempty"`
	// Failed are the first of the licenses that could not be worked on.
	Failed []ItemError `cbor:"18,keyasint,omitempty"`
	Total  uint64      `cbor:"19,keyasint,omitempty"`
	// Basis is what it rests on, of kinds under dual control.
	Basis *Basis `cbor:"20,keyasint,omitempty"`
	// Quorum is there if signed approvals are needed: the tenant had approvers
	// when it was asked for. Needed is then their threshold.
	Quorum *Quorum `cbor:"21,keyasint,omitempty"`
}

// ItemError is why one license could not be worked on.
type ItemError struct {
	License vocab.ContentID `cbor:"1,keyasint"`
	Reason  vocab.Reason    `cbor:"2,keyasint"`
}

// MaxItemErrors is how many failures are kept by name; all are counted.
const MaxItemErrors = 100

// Approval is one person's yes.
type Approval struct {
	Person               // fields 1 to 8
	At     uint64        `cbor:"16,keyasint"`
	Event  vocab.EventID `cbor:"17,keyasint"`
	// Params is the hash of what was approved.
	Params [32]byte `cbor:"18,keyasint"`
	// Signature is the SSH signature of the operation's statement, bare, and
	// Approver the principal of the approver set who gave it; both of an
	// operation with a quorum.
	Signature []byte `cbor:"19,keyasint,omitempty"`
	Approver  string `cbor:"20,keyasint,omitempty"`
}

// Limits of what people write, in bytes.
const (
	MaxReason = 1024
	MaxTicket = 128
	// RequestLife is how long a request waits for approval.
	RequestLife = 24 * time.Hour
	// MaxRecovery is how far ahead a recovery may end.
	MaxRecovery = 72 * time.Hour
)

// ParamsHash is SHA-256 of the parameters: what is approved.
func (o *Operation) ParamsHash() [32]byte { return canon.Hash(o.Params) }

// Encode returns the stored form. The error is REQUEST_INVALID: only texts that
// came from outside can be at fault.
func (o *Operation) Encode() ([]byte, error) {
	b, err := canon.Marshal(o)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a text in this request has control characters or is not in Unicode normal form C").Because(err)
	}
	return b, nil
}

// Decode reads the stored form, and nothing else.
func Decode(b []byte) (*Operation, error) {
	o := new(Operation)
	if err := canon.Unmarshal(b, o); err != nil {
		return nil, damaged(err)
	}
	if kindNames[o.Kind] == "" || stateNames[o.State] == "" || o.Quorum == nil && int(o.Needed) < len(o.Approvals) {
		return nil, damaged(nil)
	}
	if err := o.checkQuorum(); err != nil {
		return nil, err
	}
	return o, nil
}

func damaged(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "an operation in the store cannot be read").
		WithNext("Stop the daemon, run rmsd fsck, and restore the store from a backup").Because(cause)
}

// Millis is a time as operations store it.
func Millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

// Time is the time of stored milliseconds; zero for none.
func Time(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}
