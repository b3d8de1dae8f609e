package license

import (
	"errors"
	"fmt"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// malformed is the error for bytes that are not a what.
func malformed(what, format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLicenseMalformed, "this is not a valid %s: %s", what, fmt.Sprintf(format, args...))
}

// decoding turns an error of package canon into one for a person.
func decoding(what string, err error) *vocab.Error {
	if errors.Is(err, canon.ErrUnknownKey) {
		return vocab.Errorf(vocab.ReasonLicenseFormatNewer, "this %s has a field that this version does not know and must not ignore", what).
			WithNext("Update this program").Because(err)
	}
	return malformed(what, "%s", canon.ErrMalformed).Because(err)
}

// unsupported is the error for what the formats reserve but this version does
// not do.
func unsupported(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonSuiteUnsupported, format, args...).WithNext("A newer version of this program may support it")
}

func badSignature(what string) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLicenseSignature, "the signature of this %s does not verify: it was changed or forged", what)
}

func untrusted(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonTrustRootMismatch, format, args...)
}

func rejected(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonUseLicenseRejected, format, args...)
}

// misuse is the error for a caller inside this program that breaks a rule of
// this package.
func misuse(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonInternal, "internal error in package license: %s", fmt.Sprintf(format, args...))
}
