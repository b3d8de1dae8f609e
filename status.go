package rms

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/vocab"
)

// Where the service says why: in details of the status, and the same in two
// trailers, which survive what strips the details.
const (
	errorDomain   = "rms"
	trailerReason = "rms-reason"
	trailerEvent  = "rms-event"
)

// reasonForm bounds what is taken for a reason: a newer server may have more
// than this version knows.
var reasonForm = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// maxSentence bounds what is taken over from a server for a person to read, in
// bytes.
const maxSentence = 4096

// callError turns the error of a call into an [Error]. The gRPC status stays in
// the chain, and so does the caller's own cancellation.
func callError(ctx context.Context, err error, trailer metadata.MD) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	st, ok := statusOf(err)
	if !ok {
		return vocab.Errorf(vocab.ReasonInternal, "the call failed").Because(err)
	}
	e := &Error{Message: clip(st.Message())}
	// Because attaches the cause; the reason is filled in below.
	_ = e.Because(err)
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain && reasonForm.MatchString(info.GetReason()) {
			readInfo(e, info)
			return e
		}
	}
	if said := first(trailer, trailerReason); reasonForm.MatchString(said) {
		e.Reason = Reason(said)
		e.Event, _ = vocab.ParseEventID(first(trailer, trailerEvent))
		return e
	}
	return transportError(ctx, e, st)
}

// statusOf finds the status in a chain. It is not status.FromError, which puts
// the text of what wraps the status into its message.
func statusOf(err error) (*status.Status, bool) {
	carrier, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err)
	if !ok || carrier.GRPCStatus() == nil || carrier.GRPCStatus().Code() == codes.OK {
		return nil, false
	}
	return carrier.GRPCStatus(), true
}

func readInfo(e *Error, info *errdetails.ErrorInfo) {
	md := info.GetMetadata()
	e.Reason = Reason(info.GetReason())
	e.Contact = clip(md["contact"])
	e.Event, _ = vocab.ParseEventID(md["event"])
	e.Operation, _ = vocab.ParseOperationID(md["operation"])
	// The message on the wire ends with the next step and the contact.
	if e.Contact != "" {
		e.Message = strings.TrimSuffix(e.Message, ". Ask "+e.Contact)
	}
	if next := clip(md["next"]); next != "" {
		e.Message = strings.TrimSuffix(e.Message, ". "+next)
		e.Next = next
	}
}

// transportError is what a status without a reason of the service's amounts to:
// it comes from the connection, or from something between us and the server.
func transportError(ctx context.Context, e *Error, st *status.Status) *Error {
	cause := e.Unwrap()
	switch st.Code() {
	case codes.Canceled:
		return vocab.Errorf(vocab.ReasonServerUnreachable, "the call was cancelled").Because(errors.Join(context.Canceled, cause))
	case codes.DeadlineExceeded:
		return vocab.Errorf(vocab.ReasonServerUnreachable, "the server did not answer in time").
			WithNext("Try again").Because(errors.Join(context.DeadlineExceeded, cause))
	case codes.Unavailable:
		if strings.Contains(st.Message(), "authentication handshake failed") && strings.Contains(st.Message(), "certificate") {
			// Trying again does not help: the address may be somebody else's.
			return vocab.Errorf(vocab.ReasonTrustRootMismatch, "the server's TLS certificate is not trusted: %s", clip(st.Message())).
				WithNext("Do not go on before its operator has confirmed the certificate's authority").Because(cause)
		}
		if err := ctx.Err(); err != nil {
			cause = errors.Join(err, cause)
		}
		return vocab.Errorf(vocab.ReasonServerUnreachable, "the server cannot be reached: %s", clip(st.Message())).
			WithNext("Check the network and the server's address, and try again").Because(cause)
	case codes.Unauthenticated:
		e.Reason = vocab.ReasonTokenInvalid
	case codes.PermissionDenied:
		e.Reason = vocab.ReasonNoRights
	case codes.NotFound:
		e.Reason = vocab.ReasonResourceNotFound
	case codes.InvalidArgument, codes.OutOfRange:
		e.Reason = vocab.ReasonRequestInvalid
	case codes.ResourceExhausted:
		if tooLarge(st.Message()) {
			return vocab.Errorf(vocab.ReasonRequestInvalid, "a message of this call is larger than the service or this program takes: %s", clip(st.Message())).
				WithNext("Send less at a time, or ask for less").Because(cause)
		}
		e.Reason = vocab.ReasonOverloaded
	case codes.Aborted:
		e.Reason = vocab.ReasonOverloaded
	default: // Unimplemented among them: not a server of ours, or an older one
		e.Reason = vocab.ReasonInternal
	}
	return e
}

// tooLarge tells gRPC's own refusal of a message, at either end, from a server
// that has too much to do: they share a code, but only one passes by itself.
func tooLarge(message string) bool {
	return strings.Contains(message, "message larger than max") || strings.Contains(message, "message after decompression larger than max")
}

func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

func clip(s string) string {
	if len(s) > maxSentence {
		s = s[:maxSentence]
	}
	return strings.ToValidUTF8(s, "")
}
