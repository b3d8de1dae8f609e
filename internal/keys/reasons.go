package keys

import (
	"errors"

	"github.com/openrms/rms/internal/vocab"
)

// IsOutage reports whether err says that the custodian could not be reached or
// is sealed. Only these may count towards a tenant's outage grace.
func IsOutage(err error) bool {
	switch vocab.ReasonOf(err) {
	case vocab.ReasonCustodianUnreachable, vocab.ReasonCustodianSealed:
		return true
	}
	return false
}

// IsRefusal reports whether err is an answer of the custodian, or about it,
// that must end the use of what it unwrapped earlier: a refused token or
// policy, a withdrawn version, an unsafe key, another cluster, an answer that
// cannot be the key.
func IsRefusal(err error) bool {
	switch vocab.ReasonOf(err) {
	case vocab.ReasonCustodianRefused, vocab.ReasonKeySuspended, vocab.ReasonKeyState,
		vocab.ReasonKeyAttributesUnsafe, vocab.ReasonCustodianChanged, vocab.ReasonCustodyIntegrity:
		return true
	}
	return false
}

// refusesEverything says that err is about the custodian, not about one wrap:
// then nothing it ever unwrapped may go on being used.
func refusesEverything(err error) bool {
	switch vocab.ReasonOf(err) {
	case vocab.ReasonCustodianRefused, vocab.ReasonKeyAttributesUnsafe, vocab.ReasonCustodianChanged:
		return true
	}
	return false
}

// integrity is the error for an answer that cannot be the key. What exactly
// did not fit is for the operator: callers get one flat sentence.
func integrity(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonCustodyIntegrity, "the custodian's answer does not fit the key that was asked for").
		WithNext("Somebody may have exchanged wrapped keys or the key itself: tell the key custodian before anything else").
		Because(cause)
}

// ErrTooMuchPower is the cause of a [Custodian.Check] that found a login with
// more power than the use of its keys needs: an alarm, for whoever holds the
// login could do what no record of ours would show.
var ErrTooMuchPower = errors.New("the login may do more than use its keys")
