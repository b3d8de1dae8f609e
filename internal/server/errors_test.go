package server

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// clientSide are the reasons that only a client gives, to itself.
var clientSide = []vocab.Reason{
	vocab.ReasonContainerMalformed, vocab.ReasonContentChanged, vocab.ReasonServerNotConfigured, vocab.ReasonTrustRootMismatch,
	vocab.ReasonUseLicenseRejected, vocab.ReasonOutputExists, vocab.ReasonServerUnreachable,
}

// operatorsOwn is given over the operator's socket alone, about the operator's
// own files, so the contract for callers need not have it.
const operatorsOwn = vocab.ReasonConfigurationInvalid

// allReasons reads the closed list from its source, so that a new reason is
// not forgotten here.
func allReasons(t *testing.T) (out []vocab.Reason) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../vocab/reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Reason" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value) //nolint:forcetypeassert // a constant of text
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, vocab.Reason(text))
		}
		return true
	})
	if len(out) < 60 {
		t.Fatalf("only %d reasons were found", len(out))
	}
	return out
}

// Every reason is either given by the server, and then has a status code and a
// value in the contract, or by clients alone, and then has neither.
func TestEveryReasonHasItsPlace(t *testing.T) {
	contract := map[vocab.Reason]bool{}
	for name, number := range rmsv1.Reason_value {
		text, ok := strings.CutPrefix(name, "REASON_")
		if !ok {
			t.Errorf("the contract's %s does not begin with REASON_", name)
		}
		if number != 0 {
			contract[vocab.Reason(text)] = true
		}
	}
	served := map[vocab.Reason]bool{}
	for _, r := range allReasons(t) {
		if !slices.Contains(clientSide, r) && r != operatorsOwn {
			served[r] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(served)), slices.Sorted(maps.Keys(contract))); diff != "" {
		t.Errorf("the service's reasons and the contract's (-service +contract):\n%s", diff)
	}
	for r := range served {
		if _, ok := statusCodes[r]; !ok && r != vocab.ReasonInternal {
			t.Errorf("%s has no status code", r)
		}
	}
	for r := range statusCodes {
		if !served[r] && r != operatorsOwn {
			t.Errorf("%s has a status code, but the server does not give it", r)
		}
	}
}

// The code says what a client that knows no reasons may do: retry, or not.
func TestRefusalsAreNotRetriedAndOutagesAre(t *testing.T) {
	refusals := []vocab.Reason{
		vocab.ReasonNoRights, vocab.ReasonLicenseRevoked, vocab.ReasonCustodianRefused, vocab.ReasonKeySuspended, vocab.ReasonRoleRequired,
	}
	for _, r := range refusals {
		if got := statusCodes[r]; got != codes.PermissionDenied {
			t.Errorf("%s is %s, want PermissionDenied: clients must not retry it", r, got)
		}
	}
	for _, r := range []vocab.Reason{vocab.ReasonCustodianSealed, vocab.ReasonCustodianUnreachable, vocab.ReasonIdentityProviderDown, vocab.ReasonOverloaded} {
		if got := statusCodes[r]; got != codes.Unavailable {
			t.Errorf("%s is %s, want Unavailable", r, got)
		}
	}
}

func TestStatusOf(t *testing.T) {
	event := vocab.NewEventID()
	secret := errors.New("TEST-secret /etc/rmsd/role-id")
	full := vocab.Errorf(vocab.ReasonNoRights, "you have no rights on this document").WithNext("Wait").Because(secret)
	full.Event, full.Contact = event, "help@contoso.test"
	full.Operation = vocab.OperationID(event)
	for _, c := range []struct {
		name    string
		err     error
		code    codes.Code
		message string
		reason  vocab.Reason
		details map[string]string
		retry   bool
		field   bool
	}{
		{
			name: "a refusal with all it can have", err: full, code: codes.PermissionDenied, reason: vocab.ReasonNoRights,
			message: "you have no rights on this document. Wait. Ask help@contoso.test",
			details: map[string]string{"event": event.String(), "contact": "help@contoso.test", "next": "Wait", "operation": event.String()},
		},
		{
			name: "a wrapped refusal", err: fmt.Errorf("item 3: %w", full), code: codes.PermissionDenied, reason: vocab.ReasonNoRights,
			message: "you have no rights on this document. Wait. Ask help@contoso.test",
			details: map[string]string{"event": event.String(), "contact": "help@contoso.test", "next": "Wait", "operation": event.String()},
		},
		{
			name: "a bad request", err: invalid("title: too long"), code: codes.InvalidArgument, reason: vocab.ReasonRequestInvalid,
			message: "title: too long", field: true,
		},
		{
			name: "an outage", err: vocab.Errorf(vocab.ReasonCustodianSealed, "sealed").Because(secret), code: codes.Unavailable,
			reason: vocab.ReasonCustodianSealed, message: "sealed", retry: true,
		},
		{
			name: "a limit", err: vocab.Errorf(vocab.ReasonRateLimited, "slower"), code: codes.ResourceExhausted,
			reason: vocab.ReasonRateLimited, message: "slower", retry: true,
		},
		{
			name: "a batch that never fits", err: vocab.Errorf(vocab.ReasonBatchTooLarge, "too large"), code: codes.ResourceExhausted,
			reason: vocab.ReasonBatchTooLarge, message: "too large",
		},
		{
			name: "an error of no list", err: secret, code: codes.Internal, reason: vocab.ReasonInternal,
			message: "the service failed. Report the time of the call to the service's operator",
			details: map[string]string{"next": "Report the time of the call to the service's operator"},
		},
		{
			name: "a reason only clients give", err: vocab.Errorf(vocab.ReasonOutputExists, "odd"), code: codes.Internal,
			reason: vocab.ReasonOutputExists, message: "odd",
		},
		{
			name: "the caller's deadline", err: fmt.Errorf("reading: %w", context.DeadlineExceeded), code: codes.DeadlineExceeded,
			reason: vocab.ReasonOverloaded, message: "the call's deadline passed before an answer was there. Try again, with a longer deadline",
			details: map[string]string{"next": "Try again, with a longer deadline"},
		},
		{
			name: "the caller went away", err: context.Canceled, code: codes.Canceled, reason: vocab.ReasonOverloaded,
			message: "the call's deadline passed before an answer was there. Try again, with a longer deadline",
			details: map[string]string{"next": "Try again, with a longer deadline"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := status.FromProto(statusOf(c.err))
			if st.Code() != c.code || st.Message() != c.message {
				t.Errorf("status %s %q, want %s %q", st.Code(), st.Message(), c.code, c.message)
			}
			if strings.Contains(st.Proto().String(), "TEST-secret") {
				t.Error("the status shows the cause")
			}
			var retry, field bool
			for _, d := range st.Details() {
				switch d := d.(type) {
				case *errdetails.ErrorInfo:
					if d.GetReason() != string(c.reason) || d.GetDomain() != "rms" {
						t.Errorf("reason %s of %s, want %s of rms", d.GetReason(), d.GetDomain(), c.reason)
					}
					want := c.details
					if want == nil {
						want = map[string]string{}
					}
					got := d.GetMetadata()
					if got == nil {
						got = map[string]string{}
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("metadata (-want +got):\n%s", diff)
					}
				case *errdetails.RetryInfo:
					retry = d.GetRetryDelay().AsDuration() > 0
				case *errdetails.BadRequest:
					field = true
				}
			}
			if retry != c.retry || field != c.field {
				t.Errorf("with a time to retry: %v, with a field: %v; want %v and %v", retry, field, c.retry, c.field)
			}
		})
	}
}
