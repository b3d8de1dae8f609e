package server

import (
	"context"
	"os"

	"google.golang.org/grpc"

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
	// Backup writes a backup as pieces. send is called from one goroutine at a
	// time; a piece that it does not take in a while ends the backup, and it may
	// then still be running when Backup returns.
	Backup(ctx context.Context, req *rmsv1.BackupRequest, send func(*rmsv1.BackupResponse) error) error
	// ListBackups lists the backups that were not forgotten.
	ListBackups(ctx context.Context) (*rmsv1.ListBackupsResponse, error)
	// ForgetBackup notes that nothing is left of a backup.
	ForgetBackup(ctx context.Context, req *rmsv1.ForgetBackupRequest) (*rmsv1.ForgetBackupResponse, error)
}

// operators serves OperatorService on the local socket.
type operators struct {
	rmsv1.UnimplementedOperatorServiceServer
	host Host
	s    *Server
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

func (o *operators) Backup(req *rmsv1.BackupRequest, stream grpc.ServerStreamingServer[rmsv1.BackupResponse]) error {
	ctx, stop := o.s.whileServing(stream.Context())
	defer stop()
	err := o.host.Backup(ctx, req, stream.Send)
	if err != nil && o.s.serving.Err() != nil {
		return vocab.Errorf(vocab.ReasonOverloaded, "the service is stopping").WithNext("Make the backup when it is back")
	}
	return err
}

func (o *operators) ListBackups(ctx context.Context, _ *rmsv1.ListBackupsRequest) (*rmsv1.ListBackupsResponse, error) {
	return o.host.ListBackups(ctx)
}

func (o *operators) ForgetBackup(ctx context.Context, req *rmsv1.ForgetBackupRequest) (*rmsv1.ForgetBackupResponse, error) {
	return o.host.ForgetBackup(ctx, req)
}
