package license

import (
	"crypto/hpke"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// KEM is an HPKE key encapsulation mechanism, by its IANA number.
type KEM uint16

// KEMs for use licenses. Everything else is refused.
const (
	XWing  KEM = 0x647a // ML-KEM-768 + X25519: the default
	X25519 KEM = 0x0020 // DHKEM(X25519, HKDF-SHA256), where the tenant allows it
)

// sizes of a KEM in bytes: public key and encapsulated key.
func (k KEM) sizes() (public, enc int) {
	switch k {
	case XWing:
		return 1184 + 32, 1088 + 32
	case X25519:
		return 32, 32
	}
	return 0, 0
}

// String returns "X-Wing" or "X25519".
func (k KEM) String() string {
	switch k {
	case XWing:
		return "X-Wing"
	case X25519:
		return "X25519"
	}
	return "unknown KEM"
}

func (k KEM) hpke() (hpke.KEM, error) {
	if pub, _ := k.sizes(); pub == 0 {
		return nil, unsupported("key encapsulation %#04x is not supported", uint16(k))
	}
	return hpke.NewKEM(uint16(k))
}

// Recipient is the public key a content key is sealed to.
type Recipient struct {
	kem KEM
	key hpke.PublicKey
	id  [32]byte
}

// KEM returns the recipient key's KEM.
func (r *Recipient) KEM() KEM { return r.kem }

// Hash returns H(KEM ‖ public key), which use licenses name.
func (r *Recipient) Hash() [32]byte { return r.id }

// ParseRecipient reads a recipient's public key. It refuses a KEM that is not
// in allowed with SUITE_UNSUPPORTED, and a key that has the wrong size, is not
// valid or of low order with REQUEST_INVALID.
func ParseRecipient(kem KEM, public []byte, allowed []KEM) (*Recipient, error) {
	suite, err := kem.hpke()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(allowed, kem) {
		return nil, vocab.Errorf(vocab.ReasonSuiteUnsupported, "this tenant does not allow recipient keys of type %s", kem).
			WithNext("Use a key of a type the tenant's trust bundle names")
	}
	if size, _ := kem.sizes(); len(public) != size {
		return nil, badRecipient(errors.New("wrong size"))
	}
	key, err := suite.NewPublicKey(public)
	if err != nil {
		return nil, badRecipient(err)
	}
	if err := checkX25519(public[len(public)-32:]); err != nil { // X-Wing ends with it
		return nil, badRecipient(err)
	}
	return &Recipient{kem, key, recipientHash(kem, public)}, nil
}

func badRecipient(cause error) error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, "the recipient's public key is not valid").Because(cause)
}

func recipientHash(kem KEM, public []byte) [32]byte {
	return canon.Hash(binary.BigEndian.AppendUint16(nil, uint16(kem)), public)
}

// smallOrder are all u-coordinates of the points of low order on Curve25519 and
// its twist, with the two that are not reduced (RFC 7748 §6.1 and
// https://cr.yp.to/ecdh.html#validate). An agreement with one of them is all
// zero whatever the other key; crypto/ecdh refuses that too, but only after an
// agreement, which this spares every request.
var smallOrder = [...]string{
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	"\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\xda\x09\x8d\xeb\x9c\x32\xb1\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00",
	"\x5f\x9c\x95\xbc\xa3\x50\x8c\x24\xb1\xd0\xb1\x55\x9c\x83\xef\x5b\x04\x44\x5c\xc4\x58\x1c\x8e\x86\xd8\x22\x4e\xdd\xd0\x9f\x11\x57",
	"\xec\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
	"\xed\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
	"\xee\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
}

func checkX25519(point []byte) error {
	u := slices.Clone(point)
	u[31] &= 0x7f // the highest bit is not part of the number (RFC 7748 §5)
	if slices.Contains(smallOrder[:], string(u)) {
		return errors.New("a point of low order")
	}
	return nil
}

// RecipientKey is the private key a recipient opens use licenses with: made
// for one open, or kept by a device for licenses that may be stored.
type RecipientKey struct {
	kem     KEM
	private hpke.PrivateKey
	public  []byte
}

// NewRecipientKey makes a random key.
func NewRecipientKey(kem KEM) (*RecipientKey, error) {
	suite, err := kem.hpke()
	if err != nil {
		return nil, err
	}
	k, err := suite.GenerateKey()
	if err != nil {
		return nil, misuse("making a recipient key: %v", err)
	}
	return &RecipientKey{kem, k, k.PublicKey().Bytes()}, nil
}

// RecipientKeyFrom returns the key that [RecipientKey.Secret] gave.
func RecipientKeyFrom(kem KEM, secret *vocab.Secret) (*RecipientKey, error) {
	suite, err := kem.hpke()
	if err != nil {
		return nil, err
	}
	k, err := suite.NewPrivateKey(secret.Reveal())
	if err != nil {
		return nil, badRecipient(err)
	}
	return &RecipientKey{kem, k, k.PublicKey().Bytes()}, nil
}

// Secret returns the 32 bytes of the private key, for a device to keep.
func (k *RecipientKey) Secret() (*vocab.Secret, error) {
	b, err := k.private.Bytes()
	if err != nil {
		return nil, misuse("recipient key: %v", err)
	}
	defer clear(b)
	s := vocab.SecretFrom(b)
	if s == nil {
		return nil, misuse("recipient key of %d bytes", len(b))
	}
	return s, nil
}

// KEM returns the key's KEM.
func (k *RecipientKey) KEM() KEM { return k.kem }

// Public returns the public key: 1,216 bytes for X-Wing, 32 for X25519.
func (k *RecipientKey) Public() []byte { return slices.Clone(k.public) }

// Hash returns H(KEM ‖ public key).
func (k *RecipientKey) Hash() [32]byte { return recipientHash(k.kem, k.public) }

// export decapsulates enc and returns the exporter's secret for a context.
func (k *RecipientKey) export(label string, t vocab.TenantID, principal [32]byte, enc []byte, context string) (*vocab.Secret, error) {
	r, err := newReceiver(k, enc, deliveryInfo(label, t, principal, k.kem, k.Hash()))
	if err != nil {
		return nil, err
	}
	return exported(r.Export(context, vocab.SecretSize))
}

func exported(b []byte, err error) (*vocab.Secret, error) {
	defer clear(b)
	if err != nil {
		return nil, err
	}
	return vocab.SecretFrom(b), nil
}

// OpenUL returns the content key of a use license that a [Verifier] accepted.
// enc is the encapsulated key that came once with the response. The caller
// zeroes the key.
func (k *RecipientKey) OpenUL(enc []byte, ul *UseLicense) (*vocab.Secret, error) {
	h := k.Hash()
	got := canon.Hash(enc)
	switch {
	case !ul.verified:
		return nil, misuse("opening a use license that was not verified")
	case ul.KEM != k.kem || subtle.ConstantTimeCompare(h[:], ul.Recipient[:]) != 1:
		return nil, rejected("this use license is for another key")
	case got != ul.EncHash:
		return nil, rejected("this use license came with another key agreement")
	}
	key, err := k.export(labelUL, ul.Tenant, ul.Principal, enc, exportContext(contextUL, ul.envelope.Header))
	if err != nil {
		return nil, rejected("the key agreement of this use license is not valid").Because(err)
	}
	return openDelivered(key, ul.envelope.Box, ul.Commitment, ul.Tenant, ul.Content, ul.ContentSuite)
}

// OpenPublish returns the content key that came with a new publishing license
// which a [Verifier] accepted: sealed to this key for this principal. The
// caller zeroes the key.
func (k *RecipientKey) OpenPublish(d PublishDelivery, principal [32]byte, pl *PublishingLicense) (*vocab.Secret, error) {
	if !pl.verified {
		return nil, misuse("opening the key of a publishing license that was not verified")
	}
	key, err := k.export(labelPublish, pl.Tenant, principal, d.Enc, exportContext(contextPublish, pl.envelope.Header))
	if err != nil {
		return nil, rejected("the key agreement of this delivery is not valid").Because(err)
	}
	return openDelivered(key, d.Box, pl.Commitment, pl.Tenant, pl.Content, pl.ContentSuite)
}

func openDelivered(key *vocab.Secret, box []byte, c [32]byte, t vocab.TenantID, content vocab.ContentID, suite uint16) (*vocab.Secret, error) {
	defer key.Zero()
	plain, err := canon.Open(key, nil, box)
	if err != nil {
		return nil, rejected("the content key in this license does not open: it is for someone else or was changed")
	}
	defer clear(plain)
	ck := vocab.SecretFrom(plain)
	if !canon.Commits(c, ck, t, content, suite) {
		ck.Zero()
		return nil, rejected("the content key in this license is not this document's")
	}
	return ck, nil
}
