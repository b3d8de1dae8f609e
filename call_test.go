package rms

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func TestRepetition(t *testing.T) {
	away := status.Error(codes.Unavailable, "connection reset")
	busy := info(t, codes.Unavailable, "busy", &errdetails.ErrorInfo{Reason: "OVERLOADED", Domain: "rms"})
	sealed := info(t, codes.Unavailable, "sealed", &errdetails.ErrorInfo{Reason: "CUSTODIAN_SEALED", Domain: "rms"})
	no := info(t, codes.PermissionDenied, "no", &errdetails.ErrorInfo{Reason: "NO_RIGHTS", Domain: "rms"})
	const (
		get, list     = rmsv1.LicenseService_GetLicense_FullMethodName, rmsv1.AuditService_ListEvents_FullMethodName
		revoke        = rmsv1.LicenseService_RevokeLicense_FullMethodName
		publish       = rmsv1.ProtectionService_Publish_FullMethodName
		acquire       = rmsv1.ProtectionService_Acquire_FullMethodName
		create, write = rmsv1.PolicyService_CreateTemplate_FullMethodName, rmsv1.PolicyService_UpdateSettings_FullMethodName
	)
	for _, c := range []struct {
		name, method string
		req          any
		errs         []error // of the calls in turn; then success
		want         Reason  // "" is success
		calls        int
	}{
		{"the connection breaks", get, nil, []error{away}, "", 2},
		{"it breaks three times", acquire, &rmsv1.AcquireRequest{}, []error{away, busy, away}, "", 4},
		{"it stays away", list, nil, []error{away, away, away, away, away}, ReasonServerUnreachable, 4},
		{"the server is busy", acquire, &rmsv1.AcquireRequest{}, []error{busy}, "", 2},
		{"a batch", acquire, &rmsv1.BatchAcquireRequest{}, []error{away}, "", 2},
		{"a refusal is final", acquire, &rmsv1.AcquireRequest{}, []error{no, away}, ReasonNoRights, 1},
		{"a sealed custodian is said at once", acquire, &rmsv1.AcquireRequest{}, []error{sealed}, ReasonCustodianSealed, 1},
		{"a publication with an ID", publish, &rmsv1.PublishRequest{RequestId: "x"}, []error{away}, "", 2},
		{"one that makes nothing", publish, &rmsv1.PublishRequest{ValidateOnly: true}, []error{away}, "", 2},
		{"one without", publish, &rmsv1.PublishRequest{}, []error{away}, ReasonServerUnreachable, 1},
		{"a revocation", revoke, nil, []error{away}, ReasonServerUnreachable, 1},
		{"a creation", create, nil, []error{away}, ReasonServerUnreachable, 1},
		{"an update", write, nil, []error{away}, ReasonServerUnreachable, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var calls int
			var pauses []time.Duration
			cc := &caller{pause: func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil }}
			err := cc.unary(t.Context(), c.method, c.req, nil, nil, func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				if _, ok := ctx.Deadline(); !ok {
					t.Error("a call without a deadline")
				}
				calls++
				if calls <= len(c.errs) {
					return c.errs[calls-1]
				}
				return nil
			})
			if ReasonOf(err) != c.want || calls != c.calls || len(pauses) != calls-1 {
				t.Errorf("%v after %d calls and %d pauses; want %q after %d", err, calls, len(pauses), c.want, c.calls)
			}
			for i, p := range pauses {
				if limit := firstPause << i; p < 0 || p >= limit {
					t.Errorf("pause %d is %s, not below %s", i, p, limit)
				}
			}
		})
	}
}

func TestRepetitionEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cc := &caller{pause: sleep}
	calls := 0
	err := cc.unary(ctx, rmsv1.LicenseService_GetLicense_FullMethodName, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		calls++
		cancel()
		return status.Error(codes.Unavailable, "away")
	})
	if !errors.Is(err, ReasonServerUnreachable) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestBearerNeedsTLS(t *testing.T) {
	if !(bearer{}).RequireTransportSecurity() {
		t.Error("a token may leave without TLS")
	}
	for _, c := range []struct {
		ctx  context.Context
		want string
	}{{t.Context(), ""}, {withToken(t.Context(), ""), ""}, {withToken(t.Context(), "t"), "Bearer t"}} {
		md, err := (bearer{}).GetRequestMetadata(c.ctx)
		if err != nil || md["authorization"] != c.want {
			t.Errorf("%v, %v; want %q", md, err, c.want)
		}
	}
}
