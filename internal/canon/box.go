package canon

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"

	"github.com/openrms/rms/internal/vocab"
)

// BoxOverhead is how much longer a box is than its plaintext: a nonce of 12
// bytes before it and a tag of 16 after.
const BoxOverhead = 12 + 16

// ErrBox says that a box does not open: another key, other associated data or
// changed bytes. It does not say which.
var ErrBox = errors.New("sealed data does not authenticate")

// Seal returns nonce ‖ ciphertext ‖ tag of plaintext under AES-256-GCM with a
// random nonce. One key may seal at most 2³² times.
func Seal(key *vocab.Secret, aad, plaintext []byte) []byte {
	return gcm(key).Seal(nil, nil, plaintext, aad)
}

// Open returns the plaintext of a box made by [Seal] with the same key and
// associated data, or [ErrBox].
func Open(key *vocab.Secret, aad, box []byte) ([]byte, error) {
	if len(box) < BoxOverhead {
		return nil, ErrBox
	}
	plaintext, err := gcm(key).Open(nil, nil, box, aad)
	if err != nil {
		return nil, ErrBox
	}
	return plaintext, nil
}

func gcm(key *vocab.Secret) cipher.AEAD {
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		panic("internal error: AES: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("internal error: GCM: " + err.Error())
	}
	return aead
}
