package rmsctl

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/vocab"
)

// explain returns an error of the API as the person's error it carries, nil
// if err is neither that nor the status of a call.
func explain(err error) *vocab.Error {
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return vocab.Errorf(vocab.ReasonServerUnreachable, "the server did not answer in time").
			WithNext("Try again").Because(err)
	}
	// Not status.FromError: it puts what wraps the status into its message.
	carrier, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err)
	if !ok || carrier.GRPCStatus().Code() == codes.OK {
		return nil
	}
	st := carrier.GRPCStatus()
	e := vocab.Errorf(reasonOfCode(st.Code()), "%s", st.Message()).Because(err)
	var violations []string
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != "rms" {
				continue
			}
			e.Reason = vocab.Reason(d.GetReason())
			e.Contact = d.GetMetadata()["contact"]
			e.Event, _ = vocab.ParseEventID(d.GetMetadata()["event"])
			if next := d.GetMetadata()["next"]; next != "" {
				// The message on the wire holds the next step, too.
				e.Message = strings.TrimRight(strings.TrimSuffix(strings.TrimRight(e.Message, ". "), strings.TrimRight(next, ". ")), ". ")
				e.Next = next
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				if v.GetField() != "" && !strings.Contains(st.Message(), v.GetField()) {
					violations = append(violations, v.GetField()+": "+v.GetDescription())
				}
			}
		}
	}
	if len(violations) > 0 {
		e.Message += ": " + strings.Join(violations, "; ")
	}
	switch {
	case e.Reason != vocab.ReasonServerUnreachable:
	case strings.Contains(e.Message, "certificate"):
		// Trying again does not help, and the address may be somebody else's.
		e.Reason = vocab.ReasonTrustRootMismatch
		e.Message = "the server's TLS certificate is not trusted: " + e.Message
		e.Next = "Ask its operator for the authority's certificate, then: rmsctl login ADDRESS --ca FILE"
	case e.Next == "":
		e.Next = "See: rmsctl doctor"
	}
	return e
}

// reasonOfCode is what a status without a reason of ours amounts to: it comes
// from the transport, or from something between us and the server.
func reasonOfCode(c codes.Code) vocab.Reason {
	switch c {
	case codes.Unavailable, codes.DeadlineExceeded:
		return vocab.ReasonServerUnreachable
	case codes.Unauthenticated:
		return vocab.ReasonTokenInvalid
	case codes.PermissionDenied:
		return vocab.ReasonNoRights
	case codes.NotFound:
		return vocab.ReasonResourceNotFound
	case codes.InvalidArgument:
		return vocab.ReasonRequestInvalid
	case codes.ResourceExhausted:
		return vocab.ReasonOverloaded
	}
	return vocab.ReasonInternal
}
