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

	for _, tt := range []struct {
		name string
		err  error
		exit int
		want string
	}{
		{"refused", refused, 3, "rmsctl: refused: you have no rights on this document (NO_RIGHTS). Ask rights-help@contoso.com, quote event 019a8c20-77f1-7a31-8c1e-0123456789ab"},
		{"waits", vocab.Errorf(vocab.ReasonApprovalRequired, "two more must agree"), 10, "rmsctl: waits for approval: two more must agree (APPROVAL_REQUIRED)"},
		{
			"with a next step", fmt.Errorf("acquire: %w", vocab.Errorf(vocab.ReasonLicenseRevoked, "the document was revoked").WithNext("Ask its owner.")),
			3, "rmsctl: refused: the document was revoked (LICENSE_REVOKED). Ask its owner",
		},
		{"of a newer server", &vocab.Error{Reason: "MOON_TOO_FULL", Message: "not tonight"}, 1, "rmsctl: not tonight (MOON_TOO_FULL)"},
		{"too slow", context.DeadlineExceeded, 7, "rmsctl: not available: the server did not answer in time (SERVER_UNREACHABLE). Try again"},
		{"sign in", vocab.Errorf(vocab.ReasonTokenExpired, "your sign-in has expired"), 4, "rmsctl: your sign-in has expired (TOKEN_EXPIRED). Sign in: rmsctl login"},
		{"missing file", fmt.Errorf("open x.rms: %w", fs.ErrNotExist), 5, "rmsctl: open x.rms: file does not exist"},
		{"usage", usagef("--to is needed").withNext("See: --help"), 2, "rmsctl: --to is needed. See: --help"},
		{"log", notVerified("event 7 was changed"), 9, "rmsctl: verification failed: event 7 was changed (LOG_DAMAGED). Keep what you have, and ask the operator and another auditor to look"},
		{"defect", errors.New("boom"), 1, "rmsctl: boom"},
		{
			"hostile message", vocab.Errorf(vocab.ReasonNoRights, "no\x1b]0;owned\a\r\nrmsctl: all is well\u202e"), 3,
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
