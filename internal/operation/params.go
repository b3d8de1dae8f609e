package operation

import (
	"fmt"
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

// ResealParams are those of [Reseal]. Exactly one of Template, Generation, Key
// and Everything is set.
type ResealParams struct {
	// Template has those of its licenses that are kept cached given generations
	// of their own.
	Template vocab.TemplateUID `cbor:"1,keyasint"`
	// Generation is the number of a generation that licenses are moved away
	// from.
	Generation uint32 `cbor:"2,keyasint,omitempty"`
	// Key is the name of a key, of whose Version licenses are moved away from.
	Key     string `cbor:"3,keyasint,omitempty"`
	Version uint32 `cbor:"4,keyasint,omitempty"`
	// Everything is 1 if all licenses that are kept cached are given generations
	// of their own.
	Everything uint8 `cbor:"5,keyasint,omitempty"`
	// MaxRate is how many licenses a second it may do; 0: as many as leave
	// others alone.
	MaxRate uint32 `cbor:"6,keyasint,omitempty"`
}

// RewrapParams are those of [Rewrap].
type RewrapParams struct {
	// MaxRate is as in [ResealParams].
	MaxRate uint32 `cbor:"1,keyasint,omitempty"`
}

// KeyDestroyParams are those of [KeyDestroy]. Exactly one of Key and Generation
// is set.
type KeyDestroyParams struct {
	// Key is a key's name, and Version one of its versions; 0: all of it.
	Key     string `cbor:"1,keyasint,omitempty"`
	Version uint32 `cbor:"2,keyasint,omitempty"`
	// Generation is a generation's number.
	Generation uint32 `cbor:"3,keyasint,omitempty"`
	// DespiteSoak is 1 if nobody waits for the soak period to end, DespiteBackups
	// if backups need the target.
	DespiteSoak    uint8 `cbor:"4,keyasint,omitempty"`
	DespiteBackups uint8 `cbor:"5,keyasint,omitempty"`
	// Inventory is a hash of the target and of everything that depended on it
	// when it was asked for, and Shown says the same to people.
	Inventory [32]byte `cbor:"6,keyasint"`
	Shown     []string `cbor:"7,keyasint"`
}

// Words say what a destruction destroys and in spite of what, by the parameters
// themselves, and then what depended on it, as Shown says.
func (p *KeyDestroyParams) Words() []string {
	what := fmt.Sprintf("destroy version v%d of key %s, for ever", p.Version, p.Key)
	switch {
	case p.Generation > 0:
		what = fmt.Sprintf("destroy generation g%d, for ever", p.Generation)
	case p.Version == 0:
		what = fmt.Sprintf("destroy key %s with all its versions, for ever", p.Key)
	}
	out := []string{what}
	if p.DespiteSoak != 0 {
		out = append(out, "do not wait for its soak period to end")
	}
	if p.DespiteBackups != 0 {
		out = append(out, "although backups may need it")
	}
	return append(append(out, fmt.Sprintf("bound to inventory %x, of which the service says:", p.Inventory)), p.Shown...)
}

// ExportParams are those of [TenantExport].
type ExportParams struct {
	// Thaw is 1 if the tenant shall be thawed; the other fields are then empty.
	Thaw uint8 `cbor:"1,keyasint,omitempty"`
	// KEM and Recipient are the key that archives may be sealed to.
	KEM       uint16 `cbor:"2,keyasint,omitempty"`
	Recipient []byte `cbor:"3,keyasint,omitempty"`
	// WithoutLost is 1 if generations may be left out that cannot be taken along.
	WithoutLost uint8 `cbor:"4,keyasint,omitempty"`
}

// Fingerprint is SHA-256 of the KEM's number and the recipient key: what its
// holder names it by.
func (p *ExportParams) Fingerprint() [32]byte {
	return canon.Hash([]byte{byte(p.KEM >> 8), byte(p.KEM)}, p.Recipient)
}

// Words says what it does, for people.
func (p *ExportParams) Words() string {
	switch {
	case p.Thaw != 0:
		return "thaw the tenant: it publishes and opens here again"
	case p.WithoutLost != 0:
		return fmt.Sprintf("freeze the tenant, and give archives of it to key %x, without what cannot be taken along", p.Fingerprint())
	}
	return fmt.Sprintf("freeze the tenant, and give archives of it to key %x", p.Fingerprint())
}

// ApproversParams are those of [ApproversUpdate].
type ApproversParams struct {
	// Base is the revision of the set that is changed, From that set; 0 and empty
	// for the first one.
	Base uint32 `cbor:"1,keyasint,omitempty"`
	From []byte `cbor:"2,keyasint,omitempty"`
	// To is the set as it shall be.
	To []byte `cbor:"3,keyasint"`
}

// Sets reads both sets; from is nil if there is none yet. The error is
// STORE_DAMAGED.
func (p *ApproversParams) Sets() (from, to *ApproverSet, err error) {
	if len(p.From) > 0 {
		if from, err = DecodeApprovers(p.From); err != nil {
			return nil, nil, err
		}
	}
	to, err = DecodeApprovers(p.To)
	return from, to, err
}

// CustodyParams are those of [CustodyLower]. Exactly one of the two is there.
type CustodyParams struct {
	// Settings is a change of the tenant's settings.
	Settings *CustodySettings `cbor:"1,keyasint,omitempty"`
	// Template is a revision of a template with a lower floor.
	Template *TemplateParams `cbor:"2,keyasint,omitempty"`
}

// CustodySettings is a change of settings that say how long content may still
// open after the custodian refused.
type CustodySettings struct {
	// Base is the revision of the settings that is changed.
	Base uint32       `cbor:"1,keyasint"`
	From CustodyTimes `cbor:"2,keyasint"`
	To   CustodyTimes `cbor:"3,keyasint"`
}

// CustodyTimes are those settings; times are milliseconds.
type CustodyTimes struct {
	Custody     vocab.CustodyMode `cbor:"1,keyasint"`
	CacheTTL    uint64            `cbor:"2,keyasint"`
	OutageGrace uint64            `cbor:"3,keyasint"`
	OfflineMax  uint64            `cbor:"4,keyasint"`
}

// ReleaseParams are those of [Release].
type ReleaseParams struct {
	// Event is that of the restore: a later one is another hold.
	Event vocab.EventID `cbor:"1,keyasint"`
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

// Changes says in words what a change of settings does.
func (p *CustodySettings) Changes() []string {
	var out []string
	if p.From.Custody != p.To.Custody {
		out = append(out, fmt.Sprintf("custody from %s to %s", p.From.Custody, p.To.Custody))
	}
	for _, c := range []struct {
		name     string
		from, to uint64
	}{
		{"cache_ttl", p.From.CacheTTL, p.To.CacheTTL}, {"outage_grace", p.From.OutageGrace, p.To.OutageGrace}, {"offline_max", p.From.OfflineMax, p.To.OfflineMax},
	} {
		if c.from != c.to {
			out = append(out, fmt.Sprintf("%s from %s to %s", c.name, period(c.from), period(c.to)))
		}
	}
	return out
}

// period is a time in milliseconds for people.
func period(ms uint64) string {
	d := time.Duration(ms) * time.Millisecond
	if day := 24 * time.Hour; d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// FloorChange says in words what lowering a template's floor comes to; 0 leaves
// custody to the tenant.
func FloorChange(to vocab.CustodyMode) string {
	if to == 0 {
		return "custody from strict to what the tenant demands"
	}
	return "custody from strict to " + to.String()
}
