package vocab

import (
	"crypto/rand"
	"crypto/subtle"
	"log/slog"
)

// SecretSize is the size of every symmetric secret: 32 bytes.
const SecretSize = 32

const redacted = "[redacted]"

// Secret is a 32-byte key: a content key, a generation, a subkey. It does
// not print, marshal or log; the one way to its bytes is [Secret.Reveal],
// so that a reviewer finds every use with one search. Pass it by pointer
// and call [Secret.Zero] when done. It is not safe for concurrent use with
// Zero.
type Secret struct{ b [SecretSize]byte }

// NewSecret returns a random secret.
func NewSecret() *Secret {
	s := new(Secret)
	_, _ = rand.Read(s.b[:]) // never fails (Go 1.24)
	return s
}

// SecretFrom copies b, which must be 32 bytes; it returns nil otherwise.
// The caller should clear b.
func SecretFrom(b []byte) *Secret {
	if len(b) != SecretSize {
		return nil
	}
	s := new(Secret)
	copy(s.b[:], b)
	return s
}

// Reveal returns the bytes themselves, not a copy: they are gone after Zero.
func (s *Secret) Reveal() []byte { return s.b[:] }

// Clone returns an independent copy.
func (s *Secret) Clone() *Secret { return SecretFrom(s.b[:]) }

// Equal compares in constant time.
func (s *Secret) Equal(t *Secret) bool {
	return subtle.ConstantTimeCompare(s.b[:], t.b[:]) == 1
}

// Zero overwrites the secret. Zero of nil does nothing.
func (s *Secret) Zero() {
	if s != nil {
		clear(s.b[:])
	}
}

// String, GoString, MarshalText, MarshalJSON and LogValue never show a byte.
func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
