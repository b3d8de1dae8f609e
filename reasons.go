package rms

import "github.com/openrms/rms/internal/vocab"

// Error is a refusal or failure: a stable [Reason], a sentence for the person,
// what to do next, whom to ask, and the event that records it. errors.Is(err,
// reason) matches on the reason; the wrapped cause of a call is its gRPC
// status.
type Error = vocab.Error

// Reason is why: one of a closed list. A newer server may send one that is not
// listed here.
type Reason = vocab.Reason

// ReasonOf returns the reason of an error, [ReasonInternal] for one without, and
// "" for nil.
func ReasonOf(err error) Reason { return vocab.ReasonOf(err) }

// Authentication.
const (
	ReasonTokenMissing         = vocab.ReasonTokenMissing
	ReasonTokenInvalid         = vocab.ReasonTokenInvalid
	ReasonTokenExpired         = vocab.ReasonTokenExpired
	ReasonTokenTooOld          = vocab.ReasonTokenTooOld
	ReasonIssuerNotTrusted     = vocab.ReasonIssuerNotTrusted
	ReasonAddressNotVerified   = vocab.ReasonAddressNotVerified
	ReasonCertificateNotMapped = vocab.ReasonCertificateNotMapped
)

// Refusals: never retry.
const (
	ReasonNoRights              = vocab.ReasonNoRights // also the answer for an unknown license name
	ReasonRightNotGranted       = vocab.ReasonRightNotGranted
	ReasonGrantEnded            = vocab.ReasonGrantEnded
	ReasonLicenseExpired        = vocab.ReasonLicenseExpired
	ReasonLicenseRevoked        = vocab.ReasonLicenseRevoked
	ReasonTemplateDeleted       = vocab.ReasonTemplateDeleted
	ReasonPrincipalDisabled     = vocab.ReasonPrincipalDisabled
	ReasonGroupsIncomplete      = vocab.ReasonGroupsIncomplete
	ReasonStrongerLoginRequired = vocab.ReasonStrongerLoginRequired
	ReasonNetworkNotAllowed     = vocab.ReasonNetworkNotAllowed
	ReasonNotAPublisher         = vocab.ReasonNotAPublisher
	ReasonTemplateNotInScope    = vocab.ReasonTemplateNotInScope
	ReasonRoleRequired          = vocab.ReasonRoleRequired
	ReasonSamePerson            = vocab.ReasonSamePerson
	ReasonClearKeyNotAllowed    = vocab.ReasonClearKeyNotAllowed
	ReasonCustodianRefused      = vocab.ReasonCustodianRefused
	ReasonKeySuspended          = vocab.ReasonKeySuspended
	ReasonRecoveryInvalid       = vocab.ReasonRecoveryInvalid // the recovery that was named does not open this
	ReasonTenantFrozen          = vocab.ReasonTenantFrozen    // the tenant is on its way to another service
)

// States that must change first.
const (
	ReasonLicenseUnknown      = vocab.ReasonLicenseUnknown // a valid PL whose record is gone: RECORD_MISSING of the formats
	ReasonTemplateArchived    = vocab.ReasonTemplateArchived
	ReasonTemplateInUse       = vocab.ReasonTemplateInUse
	ReasonApprovalRequired    = vocab.ReasonApprovalRequired
	ReasonInventoryChanged    = vocab.ReasonInventoryChanged
	ReasonKeyInUse            = vocab.ReasonKeyInUse
	ReasonKeyState            = vocab.ReasonKeyState
	ReasonKeyAttributesUnsafe = vocab.ReasonKeyAttributesUnsafe
	ReasonCustodianChanged    = vocab.ReasonCustodianChanged
	ReasonCustodianActs       = vocab.ReasonCustodianActs
	ReasonStoreNewer          = vocab.ReasonStoreNewer
	ReasonRotationUnclaimed   = vocab.ReasonRotationUnclaimed // of an alarm: nobody asked for a version of a key
	ReasonOperationState      = vocab.ReasonOperationState    // the operation has ended, or its state does not allow this
	ReasonTenantHeld          = vocab.ReasonTenantHeld        // restored from a backup, and nobody has released it yet
)

// Conflicts and things that are not there.
const (
	ReasonEtagMismatch     = vocab.ReasonEtagMismatch
	ReasonResourceExists   = vocab.ReasonResourceExists
	ReasonContentIDTaken   = vocab.ReasonContentIDTaken
	ReasonRequestIDReused  = vocab.ReasonRequestIDReused
	ReasonResourceNotFound = vocab.ReasonResourceNotFound
)

// Bad input.
const (
	ReasonRequestInvalid       = vocab.ReasonRequestInvalid
	ReasonLicenseMalformed     = vocab.ReasonLicenseMalformed
	ReasonLicenseSignature     = vocab.ReasonLicenseSignature
	ReasonLicenseMismatch      = vocab.ReasonLicenseMismatch // the PL contradicts the record or the container
	ReasonLicenseFormatNewer   = vocab.ReasonLicenseFormatNewer
	ReasonSuiteUnsupported     = vocab.ReasonSuiteUnsupported
	ReasonPageTokenInvalid     = vocab.ReasonPageTokenInvalid
	ReasonContainerMalformed   = vocab.ReasonContainerMalformed   // client side: not an .rms file, or cut short
	ReasonContentChanged       = vocab.ReasonContentChanged       // client side: a segment does not authenticate
	ReasonServerNotConfigured  = vocab.ReasonServerNotConfigured  // client side: the tenant is not in the caller's contexts
	ReasonTrustRootMismatch    = vocab.ReasonTrustRootMismatch    // client side: the pinned root does not vouch for this
	ReasonUseLicenseRejected   = vocab.ReasonUseLicenseRejected   // client side: the UL is not for me, this key, this document or this time
	ReasonOutputExists         = vocab.ReasonOutputExists         // client side: refuses to overwrite
	ReasonConfigurationInvalid = vocab.ReasonConfigurationInvalid // the operator's or the user's own file
)

// Retry, or damage.
const (
	ReasonCustodianUnreachable = vocab.ReasonCustodianUnreachable
	ReasonCustodianSealed      = vocab.ReasonCustodianSealed
	ReasonIdentityProviderDown = vocab.ReasonIdentityProviderDown
	ReasonServerUnreachable    = vocab.ReasonServerUnreachable // client side
	ReasonStoreFull            = vocab.ReasonStoreFull
	ReasonOverloaded           = vocab.ReasonOverloaded
	ReasonRateLimited          = vocab.ReasonRateLimited
	ReasonBatchTooLarge        = vocab.ReasonBatchTooLarge
	ReasonStoreDamaged         = vocab.ReasonStoreDamaged
	ReasonLogDamaged           = vocab.ReasonLogDamaged
	ReasonCustodyIntegrity     = vocab.ReasonCustodyIntegrity // the custodian returned something that cannot be the key
	ReasonInternal             = vocab.ReasonInternal
)
