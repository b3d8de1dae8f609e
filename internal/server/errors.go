package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms/internal/vocab"
)

// Domain is the domain of every ErrorInfo of this service.
const Domain = "rms"

// Trailers that carry the same as the error details, for clients without a
// library for them.
const (
	TrailerReason = "rms-reason"
	TrailerEvent  = "rms-event"
)

// statusCodes is the one place where a reason gets its gRPC status code. A
// reason that is not here is INTERNAL.
var statusCodes = map[vocab.Reason]codes.Code{
	vocab.ReasonTokenMissing:         codes.Unauthenticated,
	vocab.ReasonTokenInvalid:         codes.Unauthenticated,
	vocab.ReasonTokenExpired:         codes.Unauthenticated,
	vocab.ReasonTokenTooOld:          codes.Unauthenticated,
	vocab.ReasonIssuerNotTrusted:     codes.Unauthenticated,
	vocab.ReasonAddressNotVerified:   codes.Unauthenticated,
	vocab.ReasonCertificateNotMapped: codes.Unauthenticated,

	vocab.ReasonNoRights:              codes.PermissionDenied,
	vocab.ReasonRightNotGranted:       codes.PermissionDenied,
	vocab.ReasonGrantEnded:            codes.PermissionDenied,
	vocab.ReasonLicenseExpired:        codes.PermissionDenied,
	vocab.ReasonLicenseRevoked:        codes.PermissionDenied,
	vocab.ReasonTemplateDeleted:       codes.PermissionDenied,
	vocab.ReasonPrincipalDisabled:     codes.PermissionDenied,
	vocab.ReasonGroupsIncomplete:      codes.PermissionDenied,
	vocab.ReasonStrongerLoginRequired: codes.PermissionDenied,
	vocab.ReasonNetworkNotAllowed:     codes.PermissionDenied,
	vocab.ReasonNotAPublisher:         codes.PermissionDenied,
	vocab.ReasonTemplateNotInScope:    codes.PermissionDenied,
	vocab.ReasonRoleRequired:          codes.PermissionDenied,
	vocab.ReasonSamePerson:            codes.PermissionDenied,
	vocab.ReasonClearKeyNotAllowed:    codes.PermissionDenied,
	vocab.ReasonCustodianRefused:      codes.PermissionDenied,
	vocab.ReasonKeySuspended:          codes.PermissionDenied,
	vocab.ReasonRecoveryInvalid:       codes.PermissionDenied,
	vocab.ReasonTenantFrozen:          codes.PermissionDenied,

	vocab.ReasonLicenseUnknown:      codes.FailedPrecondition,
	vocab.ReasonTemplateArchived:    codes.FailedPrecondition,
	vocab.ReasonTemplateInUse:       codes.FailedPrecondition,
	vocab.ReasonApprovalRequired:    codes.FailedPrecondition,
	vocab.ReasonInventoryChanged:    codes.FailedPrecondition,
	vocab.ReasonKeyInUse:            codes.FailedPrecondition,
	vocab.ReasonKeyState:            codes.FailedPrecondition,
	vocab.ReasonKeyAttributesUnsafe: codes.FailedPrecondition,
	vocab.ReasonCustodianChanged:    codes.FailedPrecondition,
	vocab.ReasonCustodianActs:       codes.FailedPrecondition,
	vocab.ReasonStoreNewer:          codes.FailedPrecondition,
	vocab.ReasonOperationState:      codes.FailedPrecondition,
	vocab.ReasonRotationUnclaimed:   codes.FailedPrecondition,
	vocab.ReasonTenantHeld:          codes.FailedPrecondition,
	// A reload of files that are not valid: the operator's socket only.
	vocab.ReasonConfigurationInvalid: codes.FailedPrecondition,

	vocab.ReasonEtagMismatch:     codes.Aborted,
	vocab.ReasonResourceExists:   codes.AlreadyExists,
	vocab.ReasonContentIDTaken:   codes.AlreadyExists,
	vocab.ReasonRequestIDReused:  codes.AlreadyExists,
	vocab.ReasonResourceNotFound: codes.NotFound,

	vocab.ReasonRequestInvalid:     codes.InvalidArgument,
	vocab.ReasonLicenseMalformed:   codes.InvalidArgument,
	vocab.ReasonLicenseSignature:   codes.InvalidArgument,
	vocab.ReasonLicenseMismatch:    codes.InvalidArgument,
	vocab.ReasonLicenseFormatNewer: codes.InvalidArgument,
	vocab.ReasonSuiteUnsupported:   codes.InvalidArgument,
	vocab.ReasonPageTokenInvalid:   codes.InvalidArgument,

	vocab.ReasonCustodianUnreachable: codes.Unavailable,
	vocab.ReasonCustodianSealed:      codes.Unavailable,
	vocab.ReasonIdentityProviderDown: codes.Unavailable,
	vocab.ReasonStoreFull:            codes.Unavailable,
	vocab.ReasonOverloaded:           codes.Unavailable,
	vocab.ReasonRateLimited:          codes.ResourceExhausted,
	vocab.ReasonBatchTooLarge:        codes.ResourceExhausted,
	vocab.ReasonStoreDamaged:         codes.DataLoss,
	vocab.ReasonLogDamaged:           codes.DataLoss,
	vocab.ReasonCustodyIntegrity:     codes.DataLoss,
}

// retryDelay is how long a caller is asked to wait before trying again what
// may come to another end by itself.
const retryDelay = time.Second

// toVocab makes an error of the closed list out of any: what is not one is a
// defect, or the caller's own deadline. The original stays as the cause, for
// the operator's log only.
func toVocab(err error) *vocab.Error {
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return vocab.Errorf(vocab.ReasonOverloaded, "the call's deadline passed before an answer was there").
			WithNext("Try again, with a longer deadline").Because(err)
	}
	return vocab.Errorf(vocab.ReasonInternal, "the service failed").
		WithNext("Report the time of the call to the service's operator").Because(err)
}

// statusOf returns the status with its details.
func statusOf(err error) *spb.Status {
	e := toVocab(err)
	code, ok := statusCodes[e.Reason]
	if !ok {
		code = codes.Internal
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded) && e.Reason == vocab.ReasonOverloaded:
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled) && e.Reason == vocab.ReasonOverloaded:
		code = codes.Canceled
	}
	message := e.Message
	if e.Next != "" {
		message += ". " + e.Next
	}
	if e.Contact != "" {
		message += ". Ask " + e.Contact
	}
	st := status.New(code, message)
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: Domain, Metadata: map[string]string{}}
	if !e.Event.IsZero() {
		info.Metadata["event"] = e.Event.String()
	}
	if e.Contact != "" {
		info.Metadata["contact"] = e.Contact
	}
	if e.Next != "" {
		info.Metadata["next"] = e.Next
	}
	if !e.Operation.IsZero() {
		info.Metadata["operation"] = e.Operation.String()
	}
	details := []protoadapt.MessageV1{info}
	if e.Reason == vocab.ReasonRequestInvalid {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Description: e.Message}}})
	}
	if code == codes.Unavailable || e.Reason == vocab.ReasonRateLimited {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
	}
	if with, err := st.WithDetails(details...); err == nil {
		st = with
	}
	return st.Proto()
}

// answer turns err into what the caller gets: status, details and trailers.
func answer(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	e := toVocab(err)
	md := metadata.Pairs(TrailerReason, string(e.Reason))
	if !e.Event.IsZero() {
		md.Append(TrailerEvent, e.Event.String())
	}
	_ = grpc.SetTrailer(ctx, md) // fails only outside a call
	return status.FromProto(statusOf(err)).Err()
}
