package operation

import (
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// The parameters of each kind. All of them are exact: what an approver is shown
// is what is done, or nothing is.

// RoleGrantParams are those of [RoleGrant].
type RoleGrantParams struct {
	Role      string `cbor:"1,keyasint"`
	Principal string `cbor:"2,keyasint"`
}

// TemplateParams are those of [TemplateUpdate].
type TemplateParams struct {
	Slug string `cbor:"1,keyasint"`
	// Base is the revision the edit is based on: it must still be the current
	// one when the draft is written.
	Base uint32 `cbor:"2,keyasint"`
	// Draft is the next revision, as package license encodes it.
	Draft []byte `cbor:"3,keyasint"`
	// Event is the kind of the event that writing it is.
	Event uint16 `cbor:"4,keyasint"`
}

// LicenseParams are those of [LicenseUpdate].
type LicenseParams struct {
	License vocab.ContentID `cbor:"1,keyasint"`
	// Base is the revision the edit is based on.
	Base uint32 `cbor:"2,keyasint"`
	// Policy, Title and Contact are the license's after the edit.
	Policy  []byte `cbor:"3,keyasint"`
	Title   string `cbor:"4,keyasint,omitempty"`
	Contact string `cbor:"5,keyasint,omitempty"`
}

// RecoveryParams are those of [Recovery]. Exactly one of the first three is
// set.
type RecoveryParams struct {
	License  []byte `cbor:"1,keyasint,omitempty"` // a content ID
	Owner    string `cbor:"2,keyasint,omitempty"` // a principal
	Template []byte `cbor:"3,keyasint,omitempty"` // a template's UID
	Until    uint64 `cbor:"4,keyasint"`
	// Notify is 1 if the licenses it covers are told.
	Notify uint8 `cbor:"5,keyasint,omitempty"`
}

// TransferParams are those of [Transfer].
type TransferParams struct {
	From string `cbor:"1,keyasint"`
	To   string `cbor:"2,keyasint"`
}

// ResealParams are those of [Reseal].
type ResealParams struct {
	Template vocab.TemplateUID `cbor:"1,keyasint"`
}

// ExportParams are those of [TenantExport].
type ExportParams struct {
	// Thaw is 1 if the tenant shall be thawed; the other fields but Base are
	// then empty.
	Thaw uint8 `cbor:"1,keyasint,omitempty"`
	// KEM and Recipient are the key that archives may be sealed to.
	KEM       uint16 `cbor:"2,keyasint,omitempty"`
	Recipient []byte `cbor:"3,keyasint,omitempty"`
	// WithoutLost is 1 if generations whose custodian does not give them back for
	// good may be left out.
	WithoutLost uint8 `cbor:"4,keyasint,omitempty"`
	// Base is the hash of what it rests on.
	Base [32]byte `cbor:"5,keyasint"`
}

// EncodeParams returns the canonical bytes of a kind's parameters. The error is
// REQUEST_INVALID.
func EncodeParams(params any) ([]byte, error) {
	b, err := canon.Marshal(params)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a text in this request has control characters or is not in Unicode normal form C").Because(err)
	}
	return b, nil
}

// Params reads an operation's parameters as those of its kind. The error is
// STORE_DAMAGED.
func Params[P any](o *Operation) (*P, error) {
	p := new(P)
	if err := canon.Unmarshal(o.Params, p); err != nil {
		return nil, damaged(err)
	}
	return p, nil
}

// Covers reports whether the recovery's scope has a license in it: its content
// ID, whose it is, and the template it follows.
func (p *RecoveryParams) Covers(license vocab.ContentID, owner vocab.Principal, template vocab.TemplateUID) bool {
	switch {
	case len(p.License) > 0:
		return !license.IsZero() && string(p.License) == string(license[:])
	case p.Owner != "":
		return p.Owner == owner.String()
	case len(p.Template) > 0:
		return !template.IsZero() && string(p.Template) == string(template[:])
	}
	return false
}

// End is when the recovery is over.
func (p *RecoveryParams) End() time.Time { return Time(p.Until) }
