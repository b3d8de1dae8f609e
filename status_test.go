package rms

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

const event = "019a8c20-77f1-7000-8000-0123456789ab"

// info is a status as the service sends it.
func info(t *testing.T, code codes.Code, message string, i *errdetails.ErrorInfo) error {
	t.Helper()
	st, err := status.New(code, message).WithDetails(&errdetails.BadRequest{}, i)
	if err != nil {
		t.Fatal(err)
	}
	return st.Err()
}

func TestCallError(t *testing.T) {
	trailer := metadata.Pairs("rms-reason", "LICENSE_REVOKED", "rms-event", event)
	for _, c := range []struct {
		name    string
		err     error
		trailer metadata.MD
		want    Error
	}{
		{
			"with everything",
			info(t, codes.PermissionDenied, "you have no rights on this document. Ask its owner", &errdetails.ErrorInfo{
				Reason: "NO_RIGHTS", Domain: "rms", Metadata: map[string]string{"event": event, "contact": "help@contoso.com", "next": "Ask its owner"},
			}),
			nil,
			Error{Reason: ReasonNoRights, Message: "you have no rights on this document", Next: "Ask its owner", Contact: "help@contoso.com"},
		},
		{
			"a reason of a newer server",
			info(t, codes.FailedPrecondition, "not on Sundays", &errdetails.ErrorInfo{Reason: "SUNDAY", Domain: "rms"}), nil,
			Error{Reason: "SUNDAY", Message: "not on Sundays"},
		},
		{
			"details of somebody else, trailers of ours",
			info(t, codes.PermissionDenied, "revoked", &errdetails.ErrorInfo{Reason: "BLOCKED", Domain: "proxy.test"}), trailer,
			Error{Reason: ReasonLicenseRevoked, Message: "revoked"},
		},
		{"no details, trailers of ours", status.Error(codes.PermissionDenied, "revoked"), trailer, Error{Reason: ReasonLicenseRevoked, Message: "revoked"}},
		{
			"a reason that is none",
			info(t, codes.PermissionDenied, "x", &errdetails.ErrorInfo{Reason: "\x1b[2J", Domain: "rms"}), metadata.Pairs("rms-reason", "also not"),
			Error{Reason: ReasonNoRights, Message: "x"},
		},
		{
			"an event that is none",
			info(t, codes.PermissionDenied, "x", &errdetails.ErrorInfo{Reason: "NO_RIGHTS", Domain: "rms", Metadata: map[string]string{"event": "<script>"}}), nil,
			Error{Reason: ReasonNoRights, Message: "x"},
		},
		{
			"unavailable, and why",
			info(t, codes.Unavailable, "sealed", &errdetails.ErrorInfo{Reason: "CUSTODIAN_SEALED", Domain: "rms"}), nil,
			Error{Reason: ReasonCustodianSealed, Message: "sealed"},
		},
		{
			"unavailable", status.Error(codes.Unavailable, "connection refused"), nil,
			Error{Reason: ReasonServerUnreachable, Message: "the server cannot be reached: connection refused", Next: "Check the network and the server's address, and try again"},
		},
		{
			"no time left", status.Error(codes.DeadlineExceeded, "deadline"), nil,
			Error{Reason: ReasonServerUnreachable, Message: "the server did not answer in time", Next: "Try again"},
		},
		{
			"a TLS certificate", status.Error(codes.Unavailable, `transport: authentication handshake failed: tls: failed to verify certificate: x509: unknown`), nil,
			Error{
				Reason: ReasonTrustRootMismatch, Message: "the server's TLS certificate is not trusted: transport: authentication handshake failed: tls: failed to verify certificate: x509: unknown",
				Next: "Do not go on before its operator has confirmed the certificate's authority",
			},
		},
		{"unauthenticated", status.Error(codes.Unauthenticated, "x"), nil, Error{Reason: ReasonTokenInvalid, Message: "x"}},
		{"permission denied", status.Error(codes.PermissionDenied, "x"), nil, Error{Reason: ReasonNoRights, Message: "x"}},
		{"not found", status.Error(codes.NotFound, "x"), nil, Error{Reason: ReasonResourceNotFound, Message: "x"}},
		{"invalid", status.Error(codes.InvalidArgument, "x"), nil, Error{Reason: ReasonRequestInvalid, Message: "x"}},
		{"too much to do", status.Error(codes.ResourceExhausted, "x"), nil, Error{Reason: ReasonOverloaded, Message: "x"}},
		{"in another's way", status.Error(codes.Aborted, "x"), nil, Error{Reason: ReasonOverloaded, Message: "x"}},
		{"unimplemented", status.Error(codes.Unimplemented, "x"), nil, Error{Reason: ReasonInternal, Message: "x"}},
		{"internal", status.Error(codes.Internal, "x"), nil, Error{Reason: ReasonInternal, Message: "x"}},
		{"no status", io.ErrUnexpectedEOF, nil, Error{Reason: ReasonInternal, Message: "the call failed"}},
		{"our own", vocab.Errorf(ReasonTokenExpired, "sign in"), nil, Error{Reason: ReasonTokenExpired, Message: "sign in"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := callError(t.Context(), c.err, c.trailer)
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("%#v", err)
			}
			if e.Reason != c.want.Reason || e.Message != c.want.Message || e.Next != c.want.Next || e.Contact != c.want.Contact {
				t.Errorf("got  %#v\nwant %#v", *e, c.want)
			}
			if code := status.Code(c.err); code != codes.Unknown && code != codes.OK && status.Code(err) != code {
				t.Errorf("code %s became %s", code, status.Code(err))
			}
			if c.name == "with everything" && e.Event.String() != event {
				t.Errorf("event %s", e.Event)
			}
		})
	}
	if err := callError(t.Context(), nil, nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}

// A message that gRPC does not carry is the caller's to make smaller: trying
// again would be refused again. Each end of a real connection refuses once.
func TestMessageTooLarge(t *testing.T) {
	const big = 1 << 16
	for _, c := range []struct {
		name   string
		server []grpc.ServerOption
		client []grpc.CallOption
		send   int
	}{
		{name: "the server receives", server: []grpc.ServerOption{grpc.MaxRecvMsgSize(big / 2)}, send: big},
		{name: "the server answers", server: []grpc.ServerOption{grpc.MaxSendMsgSize(big / 2)}},
		{name: "the client sends", client: []grpc.CallOption{grpc.MaxCallSendMsgSize(big / 2)}, send: big},
		{name: "the client receives", client: []grpc.CallOption{grpc.MaxCallRecvMsgSize(big / 2)}},
		{
			name: "the server receives what is packed", server: []grpc.ServerOption{grpc.MaxRecvMsgSize(big / 2)},
			client: []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, send: big,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := grpc.NewServer(append(c.server, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				m := new(wrapperspb.BytesValue)
				if err := stream.RecvMsg(m); err != nil {
					return err
				}
				return stream.SendMsg(wrapperspb.Bytes(make([]byte, big)))
			}))...)
			served := make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			defer func() { s.Stop(); <-served }()
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(c.client...))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = conn.Invoke(t.Context(), "/test.Service/Method", wrapperspb.Bytes(make([]byte, c.send)), new(wrapperspb.BytesValue))
			if got := ReasonOf(callError(t.Context(), err, nil)); got != ReasonRequestInvalid {
				t.Errorf("%v gave %q", err, got)
			}
		})
	}
}

func TestCallErrorBoundsText(t *testing.T) {
	e, _ := errors.AsType[*Error](callError(t.Context(), status.Error(codes.Internal, strings.Repeat("é", 1<<16)), nil))
	if len(e.Message) > maxSentence {
		t.Errorf("%d bytes", len(e.Message))
	}
}

// Every reason of the vocabulary can be named by those who use the package.
func TestReasonsAreComplete(t *testing.T) {
	ours, theirs := constants(t, "reasons.go"), constants(t, "internal/vocab/reason.go")
	for name := range theirs {
		if !ours[name] {
			t.Errorf("%s is not exported", name)
		}
	}
	if len(theirs) < 50 || len(ours) != len(theirs) {
		t.Errorf("%d of %d", len(ours), len(theirs))
	}
}

func constants(t *testing.T, path string) map[string]bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				for _, n := range s.(*ast.ValueSpec).Names {
					if strings.HasPrefix(n.Name, "Reason") {
						names[n.Name] = true
					}
				}
			}
		}
	}
	return names
}

func TestProtoRight(t *testing.T) {
	for r := RightView; r.Valid(); r++ {
		if got, want := protoRight(r).String(), "RIGHT_"+r.String(); got != want {
			t.Errorf("%s on the wire is %s", r, got)
		}
	}
	if n := len(rmsv1.Right_name) - 1; n != len(vocab.AllRights.List()) {
		t.Errorf("the contract has %d rights", n)
	}
}

func TestCancelledCallIsTheCallers(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := callError(ctx, status.FromContextError(ctx.Err()).Err(), nil)
	if !errors.Is(err, context.Canceled) || passing(err) {
		t.Errorf("%v", err)
	}
}
