package license

import (
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// KeyBox names everything the content key in a license record is bound to. If
// any of it changes, the box does not open: an edited policy makes a document
// unopenable, not open.
type KeyBox struct {
	Tenant       vocab.TenantID
	Content      vocab.ContentID
	ContentSuite uint16
	Commitment   [32]byte
	Generation   vocab.GenerationID
	Salt         [32]byte // the publishing license's
	PolicyHash   [32]byte // [PolicyHash] of the encoded policy beside the box
}

func (k *KeyBox) aad() []byte {
	return canon.D("rms/v1/record", canon.Fields{
		fieldTenant: k.Tenant, fieldContent: k.Content, fieldCommitment: k.Commitment[:],
		fieldGeneration: k.Generation, canon.FieldPolicyHash: k.PolicyHash[:],
	})
}

// Seal returns the box with ck under the generation's secret. It refuses a key
// that is not the commitment's.
func (k *KeyBox) Seal(secret, ck *vocab.Secret) ([]byte, error) {
	if !canon.Commits(k.Commitment, ck, k.Tenant, k.Content, k.ContentSuite) {
		return nil, misuse("sealing a content key that does not match its commitment")
	}
	key := licenseKey(secret, k.Salt, k.Tenant, k.Content, k.Generation, purposeRecord)
	defer key.Zero()
	return canon.Seal(key, k.aad(), ck.Reveal()), nil
}

// Open returns the content key, checked against the commitment. The caller
// zeroes it. Any failure is STORE_DAMAGED, an integrity alarm: the record was
// changed, or the secret is another generation's.
func (k *KeyBox) Open(secret *vocab.Secret, box []byte) (*vocab.Secret, error) {
	key := licenseKey(secret, k.Salt, k.Tenant, k.Content, k.Generation, purposeRecord)
	defer key.Zero()
	plain, err := canon.Open(key, k.aad(), box)
	if err != nil {
		return nil, keyBoxDamaged()
	}
	defer clear(plain)
	ck := vocab.SecretFrom(plain)
	if !canon.Commits(k.Commitment, ck, k.Tenant, k.Content, k.ContentSuite) {
		ck.Zero()
		return nil, keyBoxDamaged()
	}
	return ck, nil
}

func keyBoxDamaged() *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the stored content key of this document does not match its record")
}
