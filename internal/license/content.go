package license

import (
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

// licenseKey is L2: the key of one box of one document, from the secret of
// its generation.
func licenseKey(secret *vocab.Secret, salt [32]byte, t vocab.TenantID, c vocab.ContentID, g vocab.GenerationID, purpose uint64) *vocab.Secret {
	return canon.KDF(secret, salt[:], canon.D("rms/v1/license-key", canon.Fields{
		fieldTenant: t, fieldContent: c, fieldGeneration: g, canon.FieldPurpose: purpose,
	}))
}
