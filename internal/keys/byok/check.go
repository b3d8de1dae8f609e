package byok

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// KCV is the check value that HSMs show: the first three bytes of one block of
// zeros encrypted with AES in ECB mode. It finds a mistake, and proves nothing:
// one key in 16 million has the same. HSMs that follow GlobalPlatform or use
// CMAC show another value for the same key.
type KCV [3]byte

// KCVOf returns the check value of key.
func KCVOf(key *vocab.Secret) (v KCV) {
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		panic("internal error: AES: " + err.Error()) // only for other sizes
	}
	var b [aes.BlockSize]byte
	block.Encrypt(b[:], b[:])
	copy(v[:], b[:])
	return v
}

// ParseKCV reads six hexadecimal digits, as an HSM shows them.
func ParseKCV(s string) (v KCV, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil || len(b) != len(v) {
		return KCV{}, vocab.Errorf(vocab.ReasonRequestInvalid, "a key check value has six hexadecimal digits").
			WithNext("Write it as the HSM shows it, for instance DC95C0; of a longer one, the first six digits")
	}
	return KCV(b), nil
}

// String returns six upper-case digits, the way HSMs write it.
func (v KCV) String() string { return strings.ToUpper(hex.EncodeToString(v[:])) }

// Fingerprint tells keys apart for good and does not tell the key:
// KDF(key, D("rms/v1/key-check", {}), ∅) of docs/formats.md. The label is the
// salt, where Vault has none, so it is not a key that Vault could be made to
// derive.
type Fingerprint [32]byte

// FingerprintOf returns the fingerprint of key.
func FingerprintOf(key *vocab.Secret) Fingerprint {
	s := canon.KDF(key, canon.D("rms/v1/key-check", canon.Fields{}), nil)
	defer s.Zero()
	return Fingerprint(s.Reveal())
}

// String returns 64 lower-case hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Verify shows that Vault holds this very key, without taking it out: it opens
// what Vault's transit engine encrypted under a derived aes256-gcm96 key, here
// and alone. ciphertext is what follows vault:vN: in Vault's answer, without the
// base64: nonce 12, ciphertext, tag 16. The key's version N, context and plaintext
// must be those of that call. A key that Vault does not hold is CUSTODY_INTEGRITY.
func Verify(key *vocab.Secret, ciphertext, context, plaintext []byte) error {
	derived := canon.KDF(key, nil, context)
	defer derived.Zero()
	block, err := aes.NewCipher(derived.Reveal())
	if err != nil {
		return keys.Integrity(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return keys.Integrity(err)
	}
	if len(ciphertext) < gcm.NonceSize()+gcm.Overhead() {
		return keys.Integrity(errors.New("ciphertext is shorter than a nonce and a tag"))
	}
	got, err := gcm.Open(nil, ciphertext[:gcm.NonceSize()], ciphertext[gcm.NonceSize():], nil)
	defer clear(got)
	if err != nil || subtle.ConstantTimeCompare(got, plaintext) != 1 {
		return vocab.Errorf(vocab.ReasonCustodyIntegrity, "Vault holds another key than this one").
			WithNext("Compare the check values with those of the key ceremony; do not activate this key").
			Because(errors.New("what Vault encrypted does not open under the key"))
	}
	return nil
}
