package license

import (
	"bytes"
	"context"
	"crypto/rand"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// Body suites of publishing licenses.
const (
	BodySuite1 uint16 = 1 // under the generation's secret
	BodySuite2 uint16 = 2 // reserved: sealed to a licensing key, refused
)

// maxHint bounds each of the display-only fields, in bytes.
const maxHint = 200

// bodyBlock is what a body's length is padded to a multiple of.
const bodyBlock = 256

// PublishingLicense travels with the document and names its record. Its header
// is readable by whoever has the file; its body is a recovery copy.
type PublishingLicense struct {
	Tenant       vocab.TenantID
	IssuedAt     time.Time
	Certificate  *Certificate // of the daemon key that signed it
	Content      vocab.ContentID
	Commitment   [32]byte
	ContentSuite uint16
	Seq          uint32 // of re-issues; informative, the record decides
	BodySuite    uint16
	Generation   vocab.GenerationID
	Salt         [32]byte
	Wrap         *Wrap // of the document's own generation (custody strict), else nil
	// Hints are for display. A program never connects to what they say.
	ServiceHint, ContactHint, Descriptor string

	envelope *Envelope
	verified bool
}

// Raw returns the signed bytes. The caller must not change them.
func (p *PublishingLicense) Raw() []byte { return p.envelope.raw }

// HeaderHash returns H(hdr): what a delivered content key is bound to.
func (p *PublishingLicense) HeaderHash() [32]byte { return canon.Hash(p.envelope.Header) }

// Verified reports whether a [Verifier] accepted the license.
func (p *PublishingLicense) Verified() bool { return p.verified }

// KeyBox returns what the record's key box is bound to, given the hash of the
// record's policy.
func (p *PublishingLicense) KeyBox(policyHash [32]byte) *KeyBox {
	return &KeyBox{
		Tenant: p.Tenant, Content: p.Content, ContentSuite: p.ContentSuite, Commitment: p.Commitment,
		Generation: p.Generation, Salt: p.Salt, PolicyHash: policyHash,
	}
}

type publishingHeader struct {
	common
	Certificate  []byte             `cbor:"4,keyasint"`
	Content      vocab.ContentID    `cbor:"16,keyasint"`
	Commitment   [32]byte           `cbor:"17,keyasint"`
	ContentSuite uint16             `cbor:"18,keyasint"`
	Seq          uint32             `cbor:"19,keyasint,omitempty"`
	BodySuite    uint16             `cbor:"20,keyasint"`
	Generation   vocab.GenerationID `cbor:"21,keyasint"`
	Salt         []byte             `cbor:"22,keyasint"`
	Wrap         []byte             `cbor:"23,keyasint,omitempty"`
	ServiceHint  string             `cbor:"32816,keyasint,omitempty"` // 0x8030
	ContactHint  string             `cbor:"32817,keyasint,omitempty"` // 0x8031
	Descriptor   string             `cbor:"32818,keyasint,omitempty"` // 0x8032
}

// PLInput is what the publisher of a license decides.
type PLInput struct {
	IssuedAt   time.Time
	Content    vocab.ContentID
	Seq        uint32
	Generation vocab.GenerationID
	Wrap       *Wrap // custody strict only

	ServiceHint, ContactHint, Descriptor string
}

// MakePL makes and signs a publishing license for ck in the tenant of cert.
// secret is the generation's. The salt is new, the commitment computed.
func MakePL(ctx context.Context, signer Signer, cert *Certificate, in PLInput, secret, ck *vocab.Secret, pol *policy.Policy) (*PublishingLicense, error) {
	if err := cert.mayIssue(UsagePL, signer, cert.Tenant, in.IssuedAt); err != nil {
		return nil, err
	}
	head, err := newCommon(KindPL, cert.Tenant, in.IssuedAt)
	if err != nil {
		return nil, err
	}
	fields, err := toPolicyFields(pol)
	if err != nil {
		return nil, err
	}
	if _, err := encodePolicyFields(fields); err != nil { // its size
		return nil, err
	}
	var salt [32]byte
	_, _ = rand.Read(salt[:]) // never fails (Go 1.24)
	h := publishingHeader{
		common: head, Certificate: cert.Raw(),
		Content: in.Content, Commitment: canon.Commitment(ck, cert.Tenant, in.Content, canon.ContentSuite1), ContentSuite: canon.ContentSuite1,
		Seq: in.Seq, BodySuite: BodySuite1, Generation: in.Generation, Salt: salt[:],
		ServiceHint: in.ServiceHint, ContactHint: in.ContactHint, Descriptor: in.Descriptor,
	}
	if in.Wrap != nil {
		if err := in.Wrap.check(); err != nil {
			return nil, err
		}
		h.Wrap = in.Wrap.Encode()
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	header, err := encodeHeader(KindPL, h)
	if err != nil {
		return nil, err
	}
	plain, err := encodeBody(ck, fields)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	key := licenseKey(secret, salt, cert.Tenant, in.Content, in.Generation, purposeLicense)
	defer key.Zero()
	e, err := seal(ctx, KindPL, header, canon.Seal(key, header, plain), signer)
	if err != nil {
		return nil, err
	}
	return ParsePL(e.raw)
}

// ParsePL reads a publishing license and verifies nothing: for people to look
// at, and for [Verifier.VerifyPL].
func ParsePL(b []byte) (*PublishingLicense, error) {
	var h publishingHeader
	e, err := open(b, KindPL, &h, &h.common)
	if err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	if len(e.Box) < bodyBlock+canon.BoxOverhead || (len(e.Box)-canon.BoxOverhead)%bodyBlock != 0 {
		return nil, malformed("publishing license", "its body has a wrong size")
	}
	p := &PublishingLicense{
		Tenant: h.Tenant, IssuedAt: h.issued(), Content: h.Content, Commitment: h.Commitment, ContentSuite: h.ContentSuite,
		Seq: h.Seq, BodySuite: h.BodySuite, Generation: h.Generation, Salt: [32]byte(h.Salt),
		ServiceHint: h.ServiceHint, ContactHint: h.ContactHint, Descriptor: h.Descriptor, envelope: e,
	}
	signer, err := ParseEnvelope(h.Certificate)
	if err != nil {
		return nil, err
	}
	if signer.Kind == KindCLC {
		return nil, unsupported("publishing licenses made offline are not supported")
	}
	if p.Certificate, err = ParseCertificate(h.Certificate); err != nil {
		return nil, err
	}
	if len(h.Wrap) > 0 {
		if p.Wrap, err = ParseWrap(h.Wrap); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (h *publishingHeader) check() error {
	const what = "publishing license"
	switch {
	case h.BodySuite != BodySuite1:
		return unsupported("publishing licenses with body suite %d are not supported", h.BodySuite)
	case h.ContentSuite != canon.ContentSuite1:
		return unsupported("content suite %d is not supported", h.ContentSuite)
	case h.Content.Version() == 8:
		return unsupported("content IDs made offline are not supported")
	case h.Content.Version() != 7 || h.Content[8]>>6 != 2:
		return malformed(what, "its content ID is not a UUIDv7")
	case h.Generation.IsZero():
		return malformed(what, "no generation")
	case len(h.Salt) != 32:
		return malformed(what, "salt of %d bytes", len(h.Salt))
	case max(len(h.ServiceHint), len(h.ContactHint), len(h.Descriptor)) > maxHint:
		return malformed(what, "a hint is longer than %d bytes", maxHint)
	}
	return nil
}

type bodyFields struct {
	ContentKey []byte `cbor:"32,keyasint"`
	policyFields
	Padding []byte `cbor:"39,keyasint"`
}

// encodeBody encodes the body with the least padding that makes its length a
// multiple of 256. The caller clears it.
func encodeBody(ck *vocab.Secret, f *policyFields) ([]byte, error) {
	body := bodyFields{ContentKey: ck.Reveal(), policyFields: *f}
	b, err := canon.Marshal(body)
	if err != nil {
		return nil, misuse("encoding a license body")
	}
	n := 0
	for (len(b)+n+longerHead(n))%bodyBlock != 0 {
		n++
	}
	clear(b)
	body.Padding = make([]byte, n)
	if b, err = canon.Marshal(body); err != nil || len(b)%bodyBlock != 0 {
		return nil, misuse("padding a license body")
	}
	return b, nil
}

// longerHead is how much longer the head of a byte string of n bytes is than
// that of an empty one.
func longerHead(n int) int {
	switch {
	case n < 24:
		return 0
	case n < 256:
		return 1
	}
	return 2
}

// OpenBody opens the recovery copy in a license with its generation's secret:
// only for recovery, a record that exists is the authority. It checks the
// content key against the commitment. The caller zeroes the key. Failures are
// LICENSE_MISMATCH, an integrity alarm.
func (p *PublishingLicense) OpenBody(secret *vocab.Secret) (*vocab.Secret, *policy.Policy, error) {
	mismatch := vocab.Errorf(vocab.ReasonLicenseMismatch, "the sealed body of this publishing license does not belong to it")
	key := licenseKey(secret, p.Salt, p.Tenant, p.Content, p.Generation, purposeLicense)
	defer key.Zero()
	plain, err := canon.Open(key, p.envelope.Header, p.envelope.Box)
	if err != nil {
		return nil, nil, mismatch
	}
	defer clear(plain)
	var body bodyFields
	if err := canon.Unmarshal(plain, &body); err != nil {
		return nil, nil, decoding("license body", err)
	}
	defer clear(body.ContentKey)
	ck := vocab.SecretFrom(body.ContentKey)
	if !canon.Commits(p.Commitment, ck, p.Tenant, p.Content, p.ContentSuite) {
		ck.Zero()
		return nil, nil, mismatch
	}
	again, err := encodeBody(ck, &body.policyFields)
	if err != nil || !bytes.Equal(again, plain) {
		ck.Zero()
		return nil, nil, malformed("license body", "bad padding")
	}
	clear(again)
	pol, err := body.policy()
	if err != nil {
		ck.Zero()
		return nil, nil, err
	}
	return ck, pol, nil
}
