package license

import (
	"crypto/subtle"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Field numbers that derivation inputs share with the objects.
const (
	fieldTenant       = 2
	fieldContent      = 16
	fieldCommitment   = 17
	fieldContentSuite = 18
	fieldGeneration   = 21
	fieldPrincipal    = 129
	fieldKEM          = 130
	fieldRecipient    = 131
)

// Purposes of a license key.
const (
	purposeLicense uint64 = 1 // the body of a publishing license
	purposeRecord  uint64 = 2 // the key box of a record
)

// Commitment ties a content key to its document. It stands in the container,
// the publishing license, the record and every use license; a second key with
// the same commitment would be a SHA-256 collision.
func Commitment(ck *vocab.Secret, t vocab.TenantID, c vocab.ContentID, suite uint16) [32]byte {
	out := canon.KDF(ck, nil, canon.D("rms/v1/ck-commit", canon.Fields{
		fieldTenant: t, fieldContent: c, fieldContentSuite: suite,
	}))
	defer out.Zero()
	return [32]byte(out.Reveal())
}

// StreamKey is the key of the content stream. The caller zeroes it.
func StreamKey(ck *vocab.Secret) *vocab.Secret { return canon.KDF(ck, nil, []byte("rms/v1/stream")) }

// MetaKey is the key of the container's metadata. The caller zeroes it.
func MetaKey(ck *vocab.Secret) *vocab.Secret { return canon.KDF(ck, nil, []byte("rms/v1/meta")) }

// commits reports, in constant time, whether ck is the key of the commitment.
func commits(ck *vocab.Secret, c [32]byte, t vocab.TenantID, content vocab.ContentID, suite uint16) bool {
	got := Commitment(ck, t, content, suite)
	return subtle.ConstantTimeCompare(got[:], c[:]) == 1
}

// licenseKey is L2: the key of one box of one document, from the secret of
// its generation.
func licenseKey(secret *vocab.Secret, salt [32]byte, t vocab.TenantID, c vocab.ContentID, g vocab.GenerationID, purpose uint64) *vocab.Secret {
	return canon.KDF(secret, salt[:], canon.D("rms/v1/license-key", canon.Fields{
		fieldTenant: t, fieldContent: c, fieldGeneration: g, canon.FieldPurpose: purpose,
	}))
}
