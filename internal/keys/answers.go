package keys

import (
	"fmt"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// What implementations of [Custodian] share: the same mistake has the same
// answer whoever the custodian is.

// Integrity is CUSTODY_INTEGRITY because of cause, which only operators see.
func Integrity(cause error) *vocab.Error { return integrity(cause) }

// CheckBatch refuses empty and oversized batches.
func CheckBatch(n int) error {
	if n < 1 || n > MaxBatch {
		return vocab.Errorf(vocab.ReasonBatchTooLarge, "a batch of %d keys is not between 1 and %d", n, MaxBatch)
	}
	return nil
}

// CheckWrap refuses a wrap that was not made by the registered key id, with
// wraps of the given type.
func CheckWrap(w license.Wrap, id vocab.CustodianID, l0Type uint8) error {
	switch {
	case w.Custodian != id:
		return integrity(fmt.Errorf("wrap of key %s given to key %s", w.Custodian, id))
	case w.L0Type == license.L0RSA:
		return vocab.Errorf(vocab.ReasonSuiteUnsupported, "RSA tenant keys are not supported")
	case w.L0Type != l0Type:
		return integrity(fmt.Errorf("wrap of type %d given to a key of type %d", w.L0Type, l0Type))
	case w.L0Version == 0 || len(w.Ciphertext) == 0:
		return integrity(fmt.Errorf("wrap without version or ciphertext"))
	}
	return nil
}

// VersionGone is KEY_STATE: the custodian has withdrawn a version.
func VersionGone(version uint32) error {
	return vocab.Errorf(vocab.ReasonKeyState, "the custodian has withdrawn version %d of the key", version).
		WithNext("Ask the key custodian; documents that need it open again only if it is given back")
}

// VersionTooNew is CUSTODIAN_CHANGED: a version the custodian never had, which
// is what one restored from an old copy looks like.
func VersionTooNew(version uint32) error {
	return vocab.Errorf(vocab.ReasonCustodianChanged, "the custodian does not know version %d of its own key yet", version).
		WithNext("It may have been restored from an old copy: tell the key custodian")
}

// VersionMissing is CUSTODIAN_CHANGED: a custodian that wraps what is new under
// an older version than the newest it had.
func VersionMissing(had, used uint32) error {
	return vocab.Errorf(vocab.ReasonCustodianChanged, "the custodian had version %d of the key and wraps under version %d again", had, used).
		WithNext("It may have been restored from an old copy: tell the key custodian")
}
