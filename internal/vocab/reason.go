package vocab

import (
	"errors"
	"fmt"
)

// Reason is why a call was refused or failed: a closed, stable list. On the
// wire it is the proto enum value REASON_<text>; its gRPC status code belongs
// to internal/server.
type Reason string

// Authentication.
const (
	ReasonTokenMissing         Reason = "TOKEN_MISSING"
	ReasonTokenInvalid         Reason = "TOKEN_INVALID"
	ReasonTokenExpired         Reason = "TOKEN_EXPIRED"
	ReasonTokenTooOld          Reason = "TOKEN_TOO_OLD"
	ReasonIssuerNotTrusted     Reason = "ISSUER_NOT_TRUSTED"
	ReasonAddressNotVerified   Reason = "ADDRESS_NOT_VERIFIED"
	ReasonCertificateNotMapped Reason = "CERTIFICATE_NOT_MAPPED"
)

// Refusals: never retry.
const (
	ReasonNoRights              Reason = "NO_RIGHTS" // also the answer for an unknown license name
	ReasonRightNotGranted       Reason = "RIGHT_NOT_GRANTED"
	ReasonGrantEnded            Reason = "GRANT_ENDED"
	ReasonLicenseExpired        Reason = "LICENSE_EXPIRED"
	ReasonLicenseRevoked        Reason = "LICENSE_REVOKED"
	ReasonTemplateDeleted       Reason = "TEMPLATE_DELETED"
	ReasonPrincipalDisabled     Reason = "PRINCIPAL_DISABLED"
	ReasonGroupsIncomplete      Reason = "GROUPS_INCOMPLETE"
	ReasonStrongerLoginRequired Reason = "STRONGER_LOGIN_REQUIRED"
	ReasonNetworkNotAllowed     Reason = "NETWORK_NOT_ALLOWED"
	ReasonNotAPublisher         Reason = "NOT_A_PUBLISHER"
	ReasonTemplateNotInScope    Reason = "TEMPLATE_NOT_IN_SCOPE"
	ReasonRoleRequired          Reason = "ROLE_REQUIRED"
	ReasonSamePerson            Reason = "SAME_PERSON"
	ReasonClearKeyNotAllowed    Reason = "CLEAR_KEY_NOT_ALLOWED"
	ReasonCustodianRefused      Reason = "CUSTODIAN_REFUSED"
	ReasonKeySuspended          Reason = "KEY_SUSPENDED"
	ReasonRecoveryInvalid       Reason = "RECOVERY_INVALID" // the recovery the request names does not open this for this caller now
	ReasonTenantFrozen          Reason = "TENANT_FROZEN"    // the tenant is on its way to another service
)

// States that must change first.
const (
	ReasonLicenseUnknown      Reason = "LICENSE_UNKNOWN" // a valid PL whose record is gone: RECORD_MISSING of the formats
	ReasonTemplateArchived    Reason = "TEMPLATE_ARCHIVED"
	ReasonTemplateInUse       Reason = "TEMPLATE_IN_USE"
	ReasonApprovalRequired    Reason = "APPROVAL_REQUIRED"
	ReasonInventoryChanged    Reason = "INVENTORY_CHANGED"
	ReasonKeyInUse            Reason = "KEY_IN_USE"
	ReasonKeyState            Reason = "KEY_STATE"
	ReasonKeyAttributesUnsafe Reason = "KEY_ATTRIBUTES_UNSAFE"
	ReasonCustodianChanged    Reason = "CUSTODIAN_CHANGED"
	ReasonCustodianActs       Reason = "CUSTODIAN_ACTS"
	ReasonStoreNewer          Reason = "STORE_NEWER"
	ReasonRotationUnclaimed   Reason = "ROTATION_UNCLAIMED" // alarm: a version of a key appeared that no custodian asked for
	ReasonOperationState      Reason = "OPERATION_STATE"    // the operation has ended, or its state does not allow this
	ReasonTenantHeld          Reason = "TENANT_HELD"        // restored from a backup, and nobody has released it yet
)

// Conflicts and things that are not there.
const (
	ReasonEtagMismatch     Reason = "ETAG_MISMATCH"
	ReasonResourceExists   Reason = "RESOURCE_EXISTS"
	ReasonContentIDTaken   Reason = "CONTENT_ID_TAKEN"
	ReasonRequestIDReused  Reason = "REQUEST_ID_REUSED"
	ReasonResourceNotFound Reason = "RESOURCE_NOT_FOUND"
)

// Bad input.
const (
	ReasonRequestInvalid       Reason = "REQUEST_INVALID"
	ReasonLicenseMalformed     Reason = "LICENSE_MALFORMED"
	ReasonLicenseSignature     Reason = "LICENSE_SIGNATURE"
	ReasonLicenseMismatch      Reason = "LICENSE_MISMATCH" // the PL contradicts the record or the container
	ReasonLicenseFormatNewer   Reason = "LICENSE_FORMAT_NEWER"
	ReasonSuiteUnsupported     Reason = "SUITE_UNSUPPORTED"
	ReasonPageTokenInvalid     Reason = "PAGE_TOKEN_INVALID"
	ReasonContainerMalformed   Reason = "CONTAINER_MALFORMED"   // client side: not an .rms file, or cut short
	ReasonContentChanged       Reason = "CONTENT_CHANGED"       // client side: a segment does not authenticate
	ReasonServerNotConfigured  Reason = "SERVER_NOT_CONFIGURED" // client side: the tenant is not in the caller's contexts
	ReasonTrustRootMismatch    Reason = "TRUST_ROOT_MISMATCH"   // client side: the pinned root does not vouch for this
	ReasonUseLicenseRejected   Reason = "USE_LICENSE_REJECTED"  // client side: the UL is not for me, this key, this document or this time
	ReasonOutputExists         Reason = "OUTPUT_EXISTS"         // client side: refuses to overwrite
	ReasonConfigurationInvalid Reason = "CONFIGURATION_INVALID" // the operator's or the user's own file
)

// Retry, or damage.
const (
	ReasonCustodianUnreachable Reason = "CUSTODIAN_UNREACHABLE"
	ReasonCustodianSealed      Reason = "CUSTODIAN_SEALED"
	ReasonIdentityProviderDown Reason = "IDENTITY_PROVIDER_DOWN"
	ReasonServerUnreachable    Reason = "SERVER_UNREACHABLE" // client side
	ReasonStoreFull            Reason = "STORE_FULL"
	ReasonOverloaded           Reason = "OVERLOADED"
	ReasonRateLimited          Reason = "RATE_LIMITED"
	ReasonBatchTooLarge        Reason = "BATCH_TOO_LARGE"
	ReasonStoreDamaged         Reason = "STORE_DAMAGED"
	ReasonLogDamaged           Reason = "LOG_DAMAGED"
	ReasonCustodyIntegrity     Reason = "CUSTODY_INTEGRITY" // the custodian returned something that cannot be the key
	ReasonInternal             Reason = "INTERNAL"
)

// Error is a refusal or failure for the person who gets it: what happened
// and what to do next, with a stable [Reason] for programs. Detail that only
// an operator may see travels in the wrapped error and never leaves the
// process.
type Error struct {
	Reason Reason
	// Message is one sentence without secrets, file names or other people's
	// rights.
	Message string
	// Next says what to do next; may be empty.
	Next string
	// Event is the event that records it, if one does.
	Event EventID
	// Contact is whom to ask, if the policy names somebody.
	Contact string
	// Operation is what waits for approval, if something does.
	Operation OperationID

	err error
}

// Errorf returns an [Error] with a formatted message. A wrapped error (%w) is
// kept for [errors.Is] and the operator's log but is printed only if the
// format prints it: use [Error.Because] to keep a cause out of the message.
func Errorf(r Reason, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: r, Message: err.Error(), err: errors.Unwrap(err)}
}

// Because attaches a cause that is not shown to the caller, and returns e.
func (e *Error) Because(cause error) *Error {
	e.err = cause
	return e
}

// WithNext sets the next step and returns e.
func (e *Error) WithNext(format string, args ...any) *Error {
	e.Next = fmt.Sprintf(format, args...)
	return e
}

// Error returns message, next step and reason, without the cause.
func (e *Error) Error() string {
	s := e.Message
	if e.Next != "" {
		s += ". " + e.Next
	}
	return s + " (" + string(e.Reason) + ")"
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.err }

// Is makes errors.Is(err, vocab.ReasonX) work: a Reason is an error target.
func (e *Error) Is(target error) bool {
	r, ok := target.(Reason)
	return ok && r == e.Reason
}

// Error lets a Reason stand as an [errors.Is] target and a bare error.
func (r Reason) Error() string { return string(r) }

// ReasonOf returns the reason of the first [Error] or Reason in err's chain,
// ReasonInternal for any other error, and "" for nil.
func ReasonOf(err error) Reason {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	if r, ok := errors.AsType[Reason](err); ok {
		return r
	}
	return ReasonInternal
}
