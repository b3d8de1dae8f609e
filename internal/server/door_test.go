package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// noTenants is a daemon without tenants.
type noTenants struct{}

func (noTenants) Find(string) (*tenant.Tenant, *Broken) { return nil, nil }

// host answers the operator as a test wants.
type host struct {
	status func(context.Context) (*rmsv1.StatusResponse, error)
}

func (h *host) Status(ctx context.Context) (*rmsv1.StatusResponse, error) { return h.status(ctx) }
func (*host) Reload(context.Context) ([]string, error)                    { return []string{"nothing"}, nil }
func (*host) CheckStore(context.Context) (*rmsv1.CheckStoreResponse, error) {
	return &rmsv1.CheckStoreResponse{}, nil
}
func (*host) Backup(context.Context, *rmsv1.BackupRequest, func(*rmsv1.BackupResponse) error) error {
	return nil
}
func (*host) ListBackups(context.Context) (*rmsv1.ListBackupsResponse, error) {
	return &rmsv1.ListBackupsResponse{}, nil
}
func (*host) ForgetBackup(context.Context, *rmsv1.ForgetBackupRequest) (*rmsv1.ForgetBackupResponse, error) {
	return &rmsv1.ForgetBackupResponse{}, nil
}

// running is a server without tenants, on two listeners in memory.
type running struct {
	host              *host
	network, operator *grpc.ClientConn
	log               *lockedBuffer
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T) *running {
	t.Helper()
	verifier, err := identity.NewVerifier(identity.Config{Providers: map[string]identity.Provider{
		"contoso": {Issuer: "https://login.contoso.test", Audiences: []string{"rms"}},
	}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	r := &running{host: &host{}, log: &lockedBuffer{}}
	s, err := New(Options{
		Tenants: noTenants{}, Verifier: verifier, Host: r.host, Credentials: insecure.NewCredentials(), Version: "test",
		Log: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	connect := func(g *grpc.Server) *grpc.ClientConn {
		l := bufconn.Listen(1 << 16)
		go func() { _ = g.Serve(l) }()
		c, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	r.network, r.operator = connect(s.Network), connect(s.Operator)
	t.Cleanup(func() { s.Stop(context.Background()) })
	return r
}

func TestTrailersSayTheSameAsTheDetails(t *testing.T) {
	r := start(t)
	event := vocab.NewEventID()
	for _, c := range []struct {
		name         string
		err          error
		code         codes.Code
		reason, said string
		event        string
	}{
		{"a reason", vocab.Errorf(vocab.ReasonStoreFull, "no space"), codes.Unavailable, "STORE_FULL", "no space", ""},
		{"with an event", func() error {
			e := vocab.Errorf(vocab.ReasonStoreDamaged, "damaged")
			e.Event = event
			return e
		}(), codes.DataLoss, "STORE_DAMAGED", "damaged", event.String()},
		{"a defect", errors.New("TEST-secret"), codes.Internal, "INTERNAL", "the service failed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.host.status = func(context.Context) (*rmsv1.StatusResponse, error) { return nil, c.err }
			var trailer metadata.MD
			_, err := rmsv1.NewOperatorServiceClient(r.operator).Status(t.Context(), &rmsv1.StatusRequest{}, grpc.Trailer(&trailer))
			st := status.Convert(err)
			if st.Code() != c.code || !strings.HasPrefix(st.Message(), c.said) || strings.Contains(st.String(), "TEST-secret") {
				t.Errorf("status %v, want %s %q", st, c.code, c.said)
			}
			info, ok := st.Details()[0].(*errdetails.ErrorInfo)
			if !ok || info.GetReason() != c.reason || info.GetMetadata()["event"] != c.event {
				t.Errorf("details %v, want %s and event %q", st.Details(), c.reason, c.event)
			}
			if got := trailer.Get(TrailerReason); len(got) != 1 || got[0] != c.reason {
				t.Errorf("trailer %s is %q, want %s", TrailerReason, got, c.reason)
			}
			if got := strings.Join(trailer.Get(TrailerEvent), ","); got != c.event {
				t.Errorf("trailer %s is %q, want %q", TrailerEvent, got, c.event)
			}
		})
	}
	if !strings.Contains(r.log.String(), "TEST-secret") {
		t.Error("the cause of a defect is not in the operator's log")
	}
}

func TestAPanicEndsOneCall(t *testing.T) {
	r := start(t)
	client := rmsv1.NewOperatorServiceClient(r.operator)
	r.host.status = func(context.Context) (*rmsv1.StatusResponse, error) { panic("TEST-secret") }
	out, err := client.Status(t.Context(), &rmsv1.StatusRequest{})
	if status.Code(err) != codes.Internal || out != nil || strings.Contains(err.Error(), "TEST-secret") {
		t.Errorf("got %v, %v; want INTERNAL that tells nothing", out, err)
	}
	if log := r.log.String(); !strings.Contains(log, "a method panicked") || strings.Contains(log, "TEST-secret") {
		t.Errorf("the log must tell of the panic without its value, which may hold a secret:\n%s", log)
	}
	r.host.status = func(context.Context) (*rmsv1.StatusResponse, error) { return &rmsv1.StatusResponse{}, nil }
	if _, err := client.Status(t.Context(), &rmsv1.StatusRequest{}); err != nil {
		t.Errorf("the next call failed: %v", err)
	}
}

func TestOperatorsMethodsAreNotOnTheNetwork(t *testing.T) {
	r := start(t)
	r.host.status = func(context.Context) (*rmsv1.StatusResponse, error) { return &rmsv1.StatusResponse{}, nil }
	if _, err := rmsv1.NewOperatorServiceClient(r.network).Status(t.Context(), &rmsv1.StatusRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("on the network: %v, want Unimplemented", err)
	}
	if _, err := rmsv1.NewProtectionServiceClient(r.operator).GetTrust(t.Context(), &rmsv1.GetTrustRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("on the socket: %v, want Unimplemented", err)
	}
	if _, err := healthpb.NewHealthClient(r.network).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health needs no sign-in, but: %v", err)
	}
}

// Even if an operator's method were registered on the network by mistake, or
// the reverse, the door would not let anyone through.
func TestDoorsKeepTheirLevels(t *testing.T) {
	table, err := accessTable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, method string
		operator     bool
		reason       vocab.Reason
	}{
		{"an operator's method on the network", "/rms.v1.OperatorService/Status", false, vocab.ReasonRoleRequired},
		{"a network method on the socket", "/rms.v1.ProtectionService/GetTrust", true, vocab.ReasonRoleRequired},
		{"a method without a rule", "/rms.v1.OperatorService/Unknown", true, vocab.ReasonInternal},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &door{access: table, operator: c.operator, log: slog.New(slog.DiscardHandler), now: time.Now, tenants: noTenants{}}
			_, err := d.unary(t.Context(), &rmsv1.StatusRequest{}, &grpc.UnaryServerInfo{FullMethod: c.method}, func(context.Context, any) (any, error) {
				t.Error("the method ran")
				return nil, nil
			})
			if info, ok := status.Convert(err).Details()[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != string(c.reason) {
				t.Errorf("error %v, want %s", err, c.reason)
			}
		})
	}
}

// A method that forgets its duty gives no answer.
func TestAnAnswerWithoutItsDutyIsWithheld(t *testing.T) {
	d := &door{log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		name string
		call call
		ok   bool
	}{
		{"not authorized", call{access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_OWNER}, event: vocab.NewEventID()}, false},
		{"acted without an event", call{access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_SIGNED_IN, Acts: true}, authorized: true}, false},
		{"acted as a role without an event", call{access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_ROLE, Acts: true}, authorized: true}, false},
		{"acted with its event", call{access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_SIGNED_IN, Acts: true}, authorized: true, event: vocab.NewEventID()}, true},
		{"read its own", call{access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_SIGNED_IN}, authorized: true}, true},
		{"read what is public", call{access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_PUBLIC}, authorized: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := d.leave(t.Context(), &c.call)
			if (err == nil) != c.ok || err != nil && vocab.ReasonOf(err) != vocab.ReasonInternal {
				t.Errorf("error %v, want an answer: %v", err, c.ok)
			}
		})
	}
}

// Whoever asks for a tenant that is not there is judged like anyone whom a
// tenant does not know. The other half of the comparison, with a tenant that
// is there, is in test/access.
func TestATenantThatIsNotThereTrustsNobody(t *testing.T) {
	r := start(t)
	client := rmsv1.NewProtectionServiceClient(r.network)
	for _, c := range []struct {
		name          string
		authorization []string
		want          vocab.Reason
	}{
		{"no token", nil, vocab.ReasonTokenMissing},
		{"no bearer", []string{"Basic YTpi"}, vocab.ReasonTokenInvalid},
		{"an empty bearer", []string{"Bearer "}, vocab.ReasonTokenInvalid},
		{"no token in it", []string{"Bearer x"}, vocab.ReasonTokenInvalid},
		{"two tokens", []string{"Bearer x", "Bearer x"}, vocab.ReasonTokenInvalid},
		// {"alg":"RS256","kid":"k"} {"iss":"https://login.contoso.test"}
		{"a token of some issuer", []string{"bearer eyJhbGciOiJSUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2xvZ2luLmNvbnRvc28udGVzdCJ9.AAAA"}, vocab.ReasonIssuerNotTrusted},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": c.authorization})
			_, err := client.ListUsableTemplates(ctx, &rmsv1.ListUsableTemplatesRequest{Parent: "tenants/contoso"})
			st := status.Convert(err)
			if st.Code() != codes.Unauthenticated {
				t.Fatalf("status %v, want Unauthenticated", st)
			}
			if info, ok := st.Details()[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != string(c.want) {
				t.Errorf("details %v, want %s", st.Details(), c.want)
			}
			if strings.Contains(st.Message(), "contoso") {
				t.Errorf("%q repeats the tenant's name", st.Message())
			}
		})
	}
}

// Before a caller is known, what a call may weigh is bounded.
func TestHeadersAreBounded(t *testing.T) {
	r := start(t)
	client := rmsv1.NewProtectionServiceClient(r.network)
	for _, size := range []int{32 << 10, 128 << 10} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+strings.Repeat("x", size))
		_, err := client.ListUsableTemplates(ctx, &rmsv1.ListUsableTemplatesRequest{Parent: "tenants/contoso"})
		if read := status.Code(err) == codes.Unauthenticated; err == nil || read != (size < maxHeaders) {
			t.Errorf("%d bytes: %v; read: want %v", size, err, size < maxHeaders)
		}
	}
}

func TestFieldsOfANewerContractAreRefused(t *testing.T) {
	validator, err := newValidator()
	if err != nil {
		t.Fatal(err)
	}
	d := &door{validate: validator}
	newer := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1)
	publish := func() *rmsv1.PublishRequest {
		return &rmsv1.PublishRequest{
			Parent: "tenants/contoso", Delivery: &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Clear{Clear: &rmsv1.Clear{}}},
			Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
				Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{
					{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}},
					{To: "user:carla@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}},
				},
			}},
		}
	}
	for _, c := range []struct {
		name string
		in   func(*rmsv1.PublishRequest) proto.Message // the message that has one more field
	}{
		{"none", nil},
		{"the request", func(r *rmsv1.PublishRequest) proto.Message { return r }},
		{"a message in it", func(r *rmsv1.PublishRequest) proto.Message { return r.GetDelivery().GetClear() }},
		{"one of a list", func(r *rmsv1.PublishRequest) proto.Message { return r.GetAdHoc().GetGrants()[1] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := publish()
			if c.in != nil {
				c.in(r).ProtoReflect().SetUnknown(newer)
			}
			err := d.checkShape(r)
			if c.in == nil {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if vocab.ReasonOf(err) != vocab.ReasonRequestInvalid || !strings.Contains(err.Error(), "does not know") {
				t.Errorf("error %v, want REQUEST_INVALID", err)
			}
		})
	}
}

func TestShapes(t *testing.T) {
	validator, err := newValidator()
	if err != nil {
		t.Fatal(err)
	}
	d := &door{validate: validator}
	for _, c := range []struct {
		name string
		req  proto.Message
		want string // in the error; empty: fits
	}{
		{"fits", &rmsv1.GetLicenseRequest{Name: "tenants/contoso/licenses/x"}, ""},
		{"a field is missing", &rmsv1.GetLicenseRequest{}, "name"},
		{"a field is too long", &rmsv1.GetLicenseRequest{Name: strings.Repeat("TEST", 100)}, "name"},
		{"a page is too large", &rmsv1.ListLicensesRequest{Parent: "tenants/contoso", PageSize: 1001}, "page_size"},
		{"a negative page", &rmsv1.ListLicensesRequest{Parent: "tenants/contoso", PageSize: -1}, "page_size"},
		{"neither of two", &rmsv1.PublishRequest{Parent: "tenants/contoso", Delivery: &rmsv1.KeyDelivery{}}, "valid"},
		{"no delivery", &rmsv1.PublishRequest{Parent: "tenants/contoso", Policy: &rmsv1.PublishRequest_Template{Template: "x"}}, "delivery"},
		{"the right of nobody", &rmsv1.AcquireRequest{Document: &rmsv1.AcquireRequest_License{License: "x"}}, "right"},
		{"a right of a newer version", &rmsv1.AcquireRequest{Document: &rmsv1.AcquireRequest_License{License: "x"}, Right: 99}, "right"},
		{"a reason of two lines", &rmsv1.RevokeLicenseRequest{Name: "x", Reason: "sent\nby mistake"}, "control characters"},
		{"an accent beside its letter", &rmsv1.UpdateLicenseRequest{License: &rmsv1.License{Title: "Bu\u0308cher"}, UpdateMask: &fieldmaskpb.FieldMask{}}, "normal form"},
		{"an odd name in a map", &rmsv1.CreateTemplateRequest{Template: &rmsv1.Template{DisplayNames: map[string]string{"en": "a\x07"}}}, "control characters"},
		{"what is only recorded may be odd", &rmsv1.AcquireRequest{
			Document: &rmsv1.AcquireRequest_License{License: "x"}, Right: rmsv1.Right_RIGHT_VIEW, Reason: "a\nb", Client: &rmsv1.ClientInfo{Product: "x\x1b"},
		}, ""},
		{"too large", &rmsv1.RevokeLicenseRequest{Name: "x", Reason: strings.Repeat("x", maxPlainRequest)}, "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := d.checkShape(c.req)
			if c.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if vocab.ReasonOf(err) != vocab.ReasonRequestInvalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want REQUEST_INVALID that says %q", err, c.want)
			}
			if strings.Contains(err.Error(), "TESTTEST") {
				t.Errorf("%q repeats the value", err)
			}
		})
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := func(ctx context.Context) time.Duration {
			ctx, cancel := withDeadline(ctx)
			defer cancel()
			at, ok := ctx.Deadline()
			if !ok {
				t.Fatal("no deadline")
			}
			return time.Until(at)
		}
		if got := left(t.Context()); got != defaultDeadline {
			t.Errorf("a call without a deadline has %s, want %s", got, defaultDeadline)
		}
		caller, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got := left(caller); got != time.Second-explainMargin {
			t.Errorf("a call with a second has %s, want a little less to explain itself", got)
		}
	})
}

// oneMessage is a server stream whose request is already there.
type oneMessage struct {
	grpc.ServerStream
	ctx      context.Context
	received int
	sent     int
}

func (s *oneMessage) Context() context.Context { return s.ctx }
func (s *oneMessage) SendMsg(any) error        { s.sent++; return nil }
func (s *oneMessage) RecvMsg(any) error {
	if s.received++; s.received > 2 {
		return io.EOF
	}
	return nil
}

func TestAStreamSendsNothingBeforeItIsLetIn(t *testing.T) {
	table, err := accessTable()
	if err != nil {
		t.Fatal(err)
	}
	d := &door{
		access: table, log: slog.New(slog.DiscardHandler), now: time.Now, tenants: noTenants{}, verifier: (*identity.Verifier)(nil),
	}
	ss := &oneMessage{ctx: metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Basic x"))}
	err = d.stream(nil, ss, &grpc.StreamServerInfo{FullMethod: "/rms.v1.AuditService/TailEvents"}, func(_ any, stream grpc.ServerStream) error {
		if err := stream.SendMsg(&rmsv1.TailEventsResponse{}); vocab.ReasonOf(err) != vocab.ReasonInternal {
			t.Errorf("sending before the request was read: %v, want INTERNAL", err)
		}
		if err := stream.RecvMsg(&rmsv1.TailEventsRequest{Parent: "tenants/contoso"}); vocab.ReasonOf(err) != vocab.ReasonTokenInvalid {
			t.Errorf("the request of a stranger: %v, want TOKEN_INVALID", err)
		}
		return stream.SendMsg(&rmsv1.TailEventsResponse{})
	})
	if status.Code(err) != codes.Internal || ss.sent != 0 {
		t.Errorf("%d messages were sent, and then %v", ss.sent, err)
	}
}
