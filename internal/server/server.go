package server

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/openrms/rms/internal/config"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Options are what a server is made of.
type Options struct {
	Tenants     Tenants
	Verifier    Verifier
	Host        Host
	Limits      config.Limits
	Credentials credentials.TransportCredentials
	Version     string
	Development bool
	Log         *slog.Logger
	Now         func() time.Time
}

// Server is the gRPC service on its two listeners: the network's, and the
// operator's socket.
type Server struct {
	Network  *grpc.Server
	Operator *grpc.Server
	Health   *health.Server

	verifier    Verifier
	access      map[string]*rmsv1.Access
	pages       *pages
	now         func() time.Time
	version     string
	development bool
	serving     context.Context
	stopServing context.CancelFunc
}

// New makes a server. It fails if a method of the contract has no access rule
// or a validation rule does not compile: neither is found by a caller first.
func New(o Options) (*Server, error) {
	table, err := accessTable()
	if err != nil {
		return nil, err
	}
	validator, err := newValidator()
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{
		verifier: o.Verifier, access: table, pages: newPages(), now: o.Now, version: o.Version, development: o.Development, Health: health.NewServer(),
	}
	s.serving, s.stopServing = context.WithCancel(context.Background())
	network := &door{
		access: table, tenants: o.Tenants, verifier: o.Verifier, validate: validator, log: o.Log, now: o.Now, serving: s.serving,
		limits: newLimiter(cmp.Or(o.Limits.PerCaller, config.DefaultPerCaller), cmp.Or(o.Limits.PerTenant, config.DefaultPerTenant)),
	}
	s.Network = network.server(grpc.Creds(o.Credentials))
	rmsv1.RegisterProtectionServiceServer(s.Network, &protection{s: s})
	rmsv1.RegisterLicenseServiceServer(s.Network, &licenses{s: s})
	rmsv1.RegisterPolicyServiceServer(s.Network, &policies{s: s})
	rmsv1.RegisterPeopleServiceServer(s.Network, &people{s: s})
	rmsv1.RegisterCustodyServiceServer(s.Network, &custody{s: s})
	rmsv1.RegisterAuditServiceServer(s.Network, &auditing{s: s})
	rmsv1.RegisterOperationServiceServer(s.Network, &operations{s: s})
	rmsv1.RegisterRecoveryServiceServer(s.Network, &recoveries{s: s})
	rmsv1.RegisterHoldServiceServer(s.Network, &holds{s: s})
	rmsv1.RegisterExitServiceServer(s.Network, &exits{s: s})
	healthpb.RegisterHealthServer(s.Network, s.Health)

	local := *network
	local.operator = true
	s.Operator = local.server()
	rmsv1.RegisterOperatorServiceServer(s.Operator, &operators{host: o.Host, s: s})
	return s, nil
}

func (d *door) server(extra ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.UnaryInterceptor(d.unary),
		grpc.StreamInterceptor(d.stream),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(1024),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}, extra...)...)
}

// Stop lets calls under way end, within the context, and then ends the rest.
// Streams that would go on for ever are ended at once.
func (s *Server) Stop(ctx context.Context) {
	s.Health.Shutdown()
	s.stopServing()
	done := make(chan struct{})
	go func() {
		s.Network.GracefulStop()
		s.Operator.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.Network.Stop()
		s.Operator.Stop()
		<-done
	}
}

// whileServing returns ctx, ended also when the server stops.
func (s *Server) whileServing(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.serving, cancel)
	return ctx, func() { stop(); cancel() }
}

// newValidator compiles the rules of every message of the contract, so that a
// rule that does not compile stops the start and the first caller does not
// wait for it.
func newValidator() (protovalidate.Validator, error) {
	v, err := protovalidate.New(protovalidate.WithFailFast())
	if err != nil {
		return nil, err
	}
	var problem error
	protoregistry.GlobalFiles.RangeFilesByPackage("rms.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Messages().Len() {
			m := dynamicpb.NewMessage(f.Messages().Get(i))
			if err := v.Validate(m); err != nil {
				if _, ok := err.(*protovalidate.ValidationError); !ok { //nolint:errorlint // the library returns it unwrapped
					problem = err
					return false
				}
			}
		}
		return true
	})
	return v, problem
}
