package canon

import (
	"crypto/subtle"

	"github.com/openrms/rms/internal/vocab"
)

// Numbers of a publishing license's fields that a commitment is made of.
const (
	fieldTenant       = 2
	fieldContent      = 16
	fieldContentSuite = 18
)

// Commitment is C of the formats: it ties a content key to its document. It
// stands in the container, the publishing license, the record and every use
// license; a second key with the same commitment would be a SHA-256 collision.
func Commitment(ck *vocab.Secret, t vocab.TenantID, c vocab.ContentID, suite uint16) [32]byte {
	out := KDF(ck, nil, D("rms/v1/ck-commit", Fields{fieldTenant: t, fieldContent: c, fieldContentSuite: suite}))
	defer out.Zero()
	return [32]byte(out.Reveal())
}

// Commits reports, in constant time, whether commitment is that of ck for a
// document. Of no key it never is.
func Commits(commitment [32]byte, ck *vocab.Secret, t vocab.TenantID, c vocab.ContentID, suite uint16) bool {
	if ck == nil {
		return false
	}
	got := Commitment(ck, t, c, suite)
	return subtle.ConstantTimeCompare(got[:], commitment[:]) == 1
}

// StreamKey is the key of the content stream. The caller zeroes it.
func StreamKey(ck *vocab.Secret) *vocab.Secret { return KDF(ck, nil, []byte("rms/v1/stream")) }

// MetaKey is the key of the container's metadata. The caller zeroes it.
func MetaKey(ck *vocab.Secret) *vocab.Secret { return KDF(ck, nil, []byte("rms/v1/meta")) }
