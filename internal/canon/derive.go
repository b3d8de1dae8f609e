package canon

import (
	"crypto/hkdf"
	"crypto/sha256"

	"github.com/openrms/rms/internal/vocab"
)

// ContentSuite1 is the only content suite: Tink AES256-GCM-HKDF with 1 MiB
// segments. 2 is reserved for a suite of random nonces.
const ContentSuite1 uint16 = 1

// Field numbers of derivation inputs that no stored object has a field for.
// The others are the numbers of the object's own fields.
const (
	FieldPurpose    = 24 // of a license key: 1 publishing license, 2 record
	FieldIssuer     = 25
	FieldSubject    = 26
	FieldPolicyHash = 27 // H of the encoded policy
	FieldBinding    = 28 // of an embedded wrap
)

// Fields are the fields of a derivation input by number. Values are unsigned
// integers, strings, byte slices and byte arrays.
type Fields = map[uint64]any

// D returns the derivation input for label: the encoding of [label, {fields}].
// Two different labels or sets of fields never give the same bytes.
//
// The result goes into a hash, a key derivation or associated data, and is
// never parsed; so text in it is taken as it comes, whatever its normal form.
// D panics on a value of another type, which is a programming error.
func D(label string, f Fields) []byte {
	b, err := encMode.Marshal([]any{label, f})
	if err != nil {
		panic("internal error: derivation input: " + err.Error())
	}
	return b
}

// Hash returns the SHA-256 of the concatenation of parts.
func Hash(parts ...[]byte) [32]byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return [32]byte(h.Sum(nil))
}

// KDF returns HKDF-SHA256 (RFC 5869) of ikm, 32 bytes. A nil salt is the
// empty salt. The caller zeroes the result.
func KDF(ikm *vocab.Secret, salt, info []byte) *vocab.Secret {
	b, err := hkdf.Key(sha256.New, ikm.Reveal(), salt, string(info), vocab.SecretSize)
	if err != nil {
		panic("internal error: HKDF: " + err.Error()) // only for absurd lengths
	}
	defer clear(b)
	return vocab.SecretFrom(b)
}

// PrincipalID returns the 32-byte identity of a principal in licenses:
// the hash of issuer and subject, which shows neither.
func PrincipalID(issuer, subject string) [32]byte {
	return Hash(D("rms/v1/principal", Fields{FieldIssuer: issuer, FieldSubject: subject}))
}
