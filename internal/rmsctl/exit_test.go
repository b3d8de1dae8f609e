package rmsctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/vocab"
)

// Scripts live by exit codes: every reason has one, and no reason that does
// not exist has.
func TestEveryReasonHasAnExitCode(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../vocab/reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[vocab.Reason]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Reason") {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		known[vocab.Reason(text)] = true
		if _, ok := exits[vocab.Reason(text)]; !ok {
			t.Errorf("%s has no exit code", text)
		}
		return true
	})
	for r := range exits {
		if !known[r] {
			t.Errorf("%s is not a reason", r)
		}
	}
}

func TestErrorsAsPeopleSeeThem(t *testing.T) {
	event, err := vocab.ParseEventID("019a8c20-77f1-7a31-8c1e-0123456789ab")
	if err != nil {
		t.Fatal(err)
	}
	refused := vocab.Errorf(vocab.ReasonNoRights, "you have no rights on this document")
	refused.Contact, refused.Event = "rights-help@contoso.com", event

	onTheWire := func(code codes.Code, message string, info *errdetails.ErrorInfo) error {
		st, err := status.New(code, message).WithDetails(info)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Errorf("acquire: %w", st.Err())
	}
	for _, tt := range []struct {
		name string
		err  error
		exit int
		want string
	}{
		{"refused", refused, 3, "rmsctl: refused: you have no rights on this document (NO_RIGHTS). Ask rights-help@contoso.com, quote event 019a8c20-77f1-7a31-8c1e-0123456789ab"},
		{
			"from the wire",
			onTheWire(codes.PermissionDenied, "the document was revoked. Ask its owner", &errdetails.ErrorInfo{
				Domain: "rms", Reason: "LICENSE_REVOKED",
				Metadata: map[string]string{"event": event.String(), "next": "Ask its owner"},
			}),
			3, "rmsctl: refused: the document was revoked (LICENSE_REVOKED). Ask its owner. Event 019a8c20-77f1-7a31-8c1e-0123456789ab",
		},
		{
			"of another domain", onTheWire(codes.PermissionDenied, "no", &errdetails.ErrorInfo{Domain: "proxy", Reason: "LICENSE_REVOKED"}),
			3, "rmsctl: refused: no (NO_RIGHTS)",
		},
		{
			"waits", onTheWire(codes.FailedPrecondition, "two more must agree", &errdetails.ErrorInfo{Domain: "rms", Reason: "APPROVAL_REQUIRED"}),
			10, "rmsctl: waits for approval: two more must agree (APPROVAL_REQUIRED)",
		},
		{
			"an event that is none", onTheWire(codes.PermissionDenied, "no", &errdetails.ErrorInfo{Domain: "rms", Reason: "NO_RIGHTS", Metadata: map[string]string{"event": "\x1b[2J"}}),
			3, "rmsctl: refused: no (NO_RIGHTS)",
		},
		{"transport", status.Error(codes.Unavailable, "connection refused"), 7, "rmsctl: not available: connection refused (SERVER_UNREACHABLE). See: rmsctl doctor"},
		{
			"another's certificate", status.Error(codes.Unavailable, `tls: failed to verify certificate: x509: certificate signed by unknown authority`), 8,
			"rmsctl: refused: the server's TLS certificate is not trusted: tls: failed to verify certificate: x509: certificate signed by unknown authority (TRUST_ROOT_MISMATCH). Ask its operator for the authority's certificate, then: rmsctl login ADDRESS --ca FILE",
		},
		{"too slow", context.DeadlineExceeded, 7, "rmsctl: not available: the server did not answer in time (SERVER_UNREACHABLE). Try again"},
		{"sign in", vocab.Errorf(vocab.ReasonTokenExpired, "your sign-in has expired"), 4, "rmsctl: your sign-in has expired (TOKEN_EXPIRED). Sign in: rmsctl login"},
		{"missing file", fmt.Errorf("open x.rms: %w", fs.ErrNotExist), 5, "rmsctl: open x.rms: file does not exist"},
		{"usage", usagef("--to is needed").withNext("See: --help"), 2, "rmsctl: --to is needed. See: --help"},
		{"log", notVerified("event 7 was changed"), 9, "rmsctl: verification failed: event 7 was changed (LOG_DAMAGED). Keep what you have, and ask the operator and another auditor to look"},
		{"defect", errors.New("boom"), 1, "rmsctl: boom"},
		{
			"hostile message", status.Error(codes.PermissionDenied, "no\x1b]0;owned\a\r\nrmsctl: all is well\u202e"), 3,
			"rmsctl: refused: no\ufffd]0;owned\ufffd\ufffd\ufffdrmsctl: all is well\ufffd (NO_RIGHTS)",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			a := &app{stderr: &stderr}
			if exit := a.fail(tt.err); exit != tt.exit {
				t.Errorf("exit %d, want %d", exit, tt.exit)
			}
			if got := strings.TrimSuffix(stderr.String(), "\n"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
