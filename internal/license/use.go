package license

import (
	"bytes"
	"strings"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Cache says what a recipient may do with a use license.
type Cache uint8

// Cache rules.
const (
	CacheMemory Cache = 0 // memory only, for one open
	CacheStore  Cache = 1 // may be stored until it ends
)

// Flags of a use license.
type Flags uint32

// Flag bits.
const (
	FlagBreakGlass   Flags = 1 << 0 // given by a break-glass operation
	FlagExpiryExempt Flags = 1 << 1 // content expiry does not bind this principal (owner, issuer)

	allFlags = FlagBreakGlass | FlagExpiryExempt
)

// PolicyRef is what decided: a template revision, or with a zero Template the
// revision of the record's ad hoc policy.
type PolicyRef struct {
	Template vocab.TemplateUID
	Revision uint64
}

// Custody is the custody mode of a license and its effective delay: how long
// after a revocation or the custodian's refusal content may still open.
type Custody struct {
	Mode  vocab.CustodyMode
	Delay time.Duration
}

// UseLicense gives one principal the content key of one document, sealed to
// one recipient key, with rights and a validity.
type UseLicense struct {
	Tenant       vocab.TenantID
	IssuedAt     time.Time
	Content      vocab.ContentID
	Commitment   [32]byte
	ContentSuite uint16

	ID                vocab.EventID // the decision's event; unique
	Principal         [32]byte      // [canon.PrincipalID]
	KEM               KEM
	Recipient         [32]byte // H(KEM ‖ recipient public key)
	EncHash           [32]byte // H(encapsulated key)
	Rights            vocab.Rights
	ApplicationRights []string // sorted
	NotBefore         time.Time
	NotAfter          time.Time
	Cache             Cache
	MaxStaleness      time.Duration // whole seconds
	ContentNotAfter   time.Time     // zero: never
	Policy            PolicyRef
	Custody           Custody // delay in whole seconds
	Flags             Flags
	Leaf              [32]byte // audit leaf hash of the event: the receipt
	Certificate       vocab.CertID

	envelope *Envelope
	verified bool
}

// Raw returns the signed bytes. The caller must not change them.
func (u *UseLicense) Raw() []byte { return u.envelope.raw }

// Box returns the sealed content key: 60 bytes, which open with the key that
// [RecipientKey.OpenUL] derives.
func (u *UseLicense) Box() []byte { return bytes.Clone(u.envelope.Box) }

// Verified reports whether a [Verifier] accepted the license.
func (u *UseLicense) Verified() bool { return u.verified }

const (
	maxAppRights   = 32
	maxAppRight    = 64 // bytes
	keyBoxSize     = vocab.SecretSize + canon.BoxOverhead
	maxSeconds     = 10 * 365 * 86400
	whatUseLicense = "use license"
)

type useHeader struct {
	common
	Content           vocab.ContentID `cbor:"16,keyasint"`
	Commitment        [32]byte        `cbor:"17,keyasint"`
	ContentSuite      uint16          `cbor:"18,keyasint"`
	ID                vocab.EventID   `cbor:"128,keyasint"`
	Principal         [32]byte        `cbor:"129,keyasint"`
	KEM               KEM             `cbor:"130,keyasint"`
	Recipient         [32]byte        `cbor:"131,keyasint"`
	EncHash           [32]byte        `cbor:"132,keyasint"`
	Rights            vocab.Rights    `cbor:"133,keyasint"`
	ApplicationRights []string        `cbor:"134,keyasint,omitempty"`
	NotBefore         uint64          `cbor:"135,keyasint"`
	NotAfter          uint64          `cbor:"136,keyasint"`
	Cache             Cache           `cbor:"137,keyasint,omitempty"`
	MaxStaleness      uint64          `cbor:"138,keyasint,omitempty"`
	ContentNotAfter   uint64          `cbor:"139,keyasint,omitempty"`
	Policy            policyRefFields `cbor:"140,keyasint"`
	Custody           custodyFields   `cbor:"141,keyasint"`
	Flags             Flags           `cbor:"142,keyasint,omitempty"`
	Obligations       []uint64        `cbor:"143,keyasint,omitempty"`
	Leaf              [32]byte        `cbor:"144,keyasint"`
	Certificate       vocab.CertID    `cbor:"145,keyasint"`
}

type policyRefFields struct {
	Template []byte `cbor:"1,keyasint,omitempty"`
	Revision uint64 `cbor:"2,keyasint"`
}

type custodyFields struct {
	Mode  vocab.CustodyMode `cbor:"1,keyasint"`
	Delay uint64            `cbor:"2,keyasint,omitempty"` // seconds
}

// header encodes u's header.
func (u *UseLicense) header() ([]byte, error) {
	head, err := newCommon(KindUL, u.Tenant, u.IssuedAt)
	if err != nil {
		return nil, err
	}
	h := useHeader{
		common: head, Content: u.Content, Commitment: u.Commitment, ContentSuite: u.ContentSuite,
		ID: u.ID, Principal: u.Principal, KEM: u.KEM, Recipient: u.Recipient, EncHash: u.EncHash,
		Rights: u.Rights, ApplicationRights: u.ApplicationRights, Cache: u.Cache,
		MaxStaleness: uint64(u.MaxStaleness / time.Second), Flags: u.Flags, Leaf: u.Leaf, Certificate: u.Certificate,
		Policy:  policyRefFields{Revision: u.Policy.Revision},
		Custody: custodyFields{u.Custody.Mode, uint64(u.Custody.Delay / time.Second)},
	}
	if u.MaxStaleness < 0 || u.Custody.Delay < 0 || u.MaxStaleness%time.Second != 0 || u.Custody.Delay%time.Second != 0 {
		return nil, misuse("use license with a period that is not in whole seconds")
	}
	if !u.Policy.Template.IsZero() {
		h.Policy.Template = u.Policy.Template[:]
	}
	if h.NotBefore, err = millis(whatUseLicense, "not_before", u.NotBefore); err != nil {
		return nil, err
	}
	if h.NotAfter, err = millis(whatUseLicense, "not_after", u.NotAfter); err != nil {
		return nil, err
	}
	if h.ContentNotAfter, err = millis(whatUseLicense, "content expiry", u.ContentNotAfter); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	return encodeHeader(KindUL, h)
}

// ParseUL reads a use license and verifies nothing.
func ParseUL(b []byte) (*UseLicense, error) {
	var h useHeader
	e, err := open(b, KindUL, &h, &h.common)
	if err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	if len(e.Box) != keyBoxSize {
		return nil, malformed(whatUseLicense, "sealed key of %d bytes", len(e.Box))
	}
	u := &UseLicense{
		Tenant: h.Tenant, IssuedAt: h.issued(), Content: h.Content, Commitment: h.Commitment, ContentSuite: h.ContentSuite,
		ID: h.ID, Principal: h.Principal, KEM: h.KEM, Recipient: h.Recipient, EncHash: h.EncHash,
		Rights: h.Rights, ApplicationRights: h.ApplicationRights, Cache: h.Cache,
		MaxStaleness: time.Duration(h.MaxStaleness) * time.Second, Flags: h.Flags, Leaf: h.Leaf, Certificate: h.Certificate,
		Policy:   PolicyRef{Revision: h.Policy.Revision},
		Custody:  Custody{h.Custody.Mode, time.Duration(h.Custody.Delay) * time.Second},
		envelope: e,
	}
	if len(h.Policy.Template) == 16 {
		u.Policy.Template = vocab.TemplateUID(h.Policy.Template)
	}
	u.NotBefore, _ = instant(whatUseLicense, "not_before", h.NotBefore)
	u.NotAfter, _ = instant(whatUseLicense, "not_after", h.NotAfter)
	u.ContentNotAfter, _ = instant(whatUseLicense, "content expiry", h.ContentNotAfter)
	return u, nil
}

func (h *useHeader) check() error {
	switch {
	case h.ContentSuite != canon.ContentSuite1:
		return unsupported("content suite %d is not supported", h.ContentSuite)
	case h.KEM != XWing && h.KEM != X25519:
		return unsupported("key encapsulation %#04x is not supported", uint16(h.KEM))
	case len(h.Obligations) != 0:
		return unsupported("this use license has obligations that this version does not know")
	case h.Content.Version() != 7 || h.Content[8]>>6 != 2:
		return malformed(whatUseLicense, "its content ID is not a UUIDv7")
	case h.Principal == [32]byte{} || h.Certificate.IsZero():
		return malformed(whatUseLicense, "no principal or certificate")
	case h.ID.Version() != 7:
		return malformed(whatUseLicense, "its ID is not a UUIDv7")
	case h.Rights == 0 || !h.Rights.Valid():
		return malformed(whatUseLicense, "no or unknown rights")
	case len(h.ApplicationRights) > maxAppRights || !sortedUnique(h.ApplicationRights, strings.Compare):
		return malformed(whatUseLicense, "bad list of application rights")
	case h.NotBefore == 0 || h.NotAfter > maxMillis || h.NotAfter <= h.NotBefore:
		return malformed(whatUseLicense, "its period is empty")
	case h.ContentNotAfter > maxMillis:
		return malformed(whatUseLicense, "bad content expiry")
	case h.Cache > CacheStore:
		return malformed(whatUseLicense, "unknown cache rule")
	case h.MaxStaleness > maxSeconds || h.Custody.Delay > maxSeconds:
		return malformed(whatUseLicense, "a period is too long")
	case len(h.Policy.Template) != 0 && (len(h.Policy.Template) != 16 || vocab.TemplateUID(h.Policy.Template).IsZero()) || h.Policy.Revision == 0:
		return malformed(whatUseLicense, "bad policy reference")
	case !h.Custody.Mode.Valid():
		return malformed(whatUseLicense, "unknown custody mode")
	case h.Flags&^allFlags != 0:
		return malformed(whatUseLicense, "unknown flag")
	}
	for _, r := range h.ApplicationRights {
		if r == "" || len(r) > maxAppRight {
			return malformed(whatUseLicense, "bad application right")
		}
	}
	return nil
}
