package server

import (
	"context"
	"os"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Host is what the operator's service asks of the daemon.
type Host interface {
	// Status says how the daemon and its tenants are.
	Status(ctx context.Context) (*rmsv1.StatusResponse, error)
	// Reload reads certificates and tenants' files again and says what
	// changed. Nothing changes if any of it is not valid.
	Reload(ctx context.Context) (changes []string, err error)
	// CheckStore verifies store, indexes and logs.
	CheckStore(ctx context.Context) (*rmsv1.CheckStoreResponse, error)
}

// operators serves OperatorService on the local socket.
type operators struct {
	rmsv1.UnimplementedOperatorServiceServer
	host Host
}

func (o *operators) Status(ctx context.Context, _ *rmsv1.StatusRequest) (*rmsv1.StatusResponse, error) {
	out, err := o.host.Status(ctx)
	if err != nil {
		return nil, err
	}
	out.Pid = int64(os.Getpid())
	return out, nil
}

func (o *operators) Reload(ctx context.Context, _ *rmsv1.ReloadRequest) (*rmsv1.ReloadResponse, error) {
	changes, err := o.host.Reload(ctx)
	if err != nil {
		return nil, err
	}
	return &rmsv1.ReloadResponse{Changes: changes}, nil
}

func (o *operators) CheckStore(ctx context.Context, _ *rmsv1.CheckStoreRequest) (*rmsv1.CheckStoreResponse, error) {
	out, err := o.host.CheckStore(ctx)
	if err != nil && vocab.ReasonOf(err) == vocab.ReasonInternal {
		return nil, err
	}
	return out, err
}
