// Package daemon puts the parts of rmsd together: configuration, store, log,
// identity, tenants, server. Only here does one part learn of another's
// implementation. The command that runs it is package rmsd.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/server"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
)

// Options are what a configuration file does not say.
type Options struct {
	Log *slog.Logger
	// Development serves a store that holds identities anyone can have.
	Development bool
	// SyncEvery is how often custodians are looked at; 5 minutes if zero.
	SyncEvery time.Duration
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Daemon is a running rmsd.
type Daemon struct {
	cfg      *config.Config
	opts     Options
	store    *bolt.Store
	log      *audit.Log
	exporter *audit.Exporter
	verifier *identity.Verifier
	certs    *certificates
	tenants  *registry
	server   *server.Server
	listener net.Listener
	started  time.Time

	reloading sync.Mutex // one reload at a time
	backups   sync.Mutex // one backup, or change of what is known of them, at a time

	stop    context.CancelFunc
	running sync.WaitGroup
	failed  chan error // a listener that ended by itself
}

// storeFile and checkpointDir are the daemon's files in its data directory.
const (
	storeFile     = "rms.db"
	checkpointDir = "checkpoints"
)

// Start opens everything and serves. It returns once the daemon listens;
// tenants whose custodians are away come up by themselves. A tenant that cannot
// be opened is not served until it is repaired and a reload opens it.
func Start(ctx context.Context, cfg *config.Config, o Options) (_ *Daemon, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Daemon{cfg: cfg, opts: o, started: o.Now(), failed: make(chan error, 2)}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close(ctx))
		}
	}()
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "data_dir: %w", err)
	}
	if d.store, err = openStore(cfg.DataDir, o.Development); err != nil {
		return nil, err
	}
	d.log = audit.New(d.store)
	checkpoints := filepath.Join(cfg.DataDir, checkpointDir)
	if err := d.log.CheckExported(ctx, checkpoints); err != nil {
		return nil, err
	}
	if d.certs, err = loadCertificates(cfg.TLS, o.Log); err != nil {
		return nil, err
	}
	if d.verifier, err = identity.NewVerifier(cfg.Identity(), nil, o.Now); err != nil {
		return nil, err
	}
	d.tenants = &registry{byName: map[string]*served{}, broken: map[string]*broken{}}
	if err := d.openTenants(ctx); err != nil {
		return nil, err
	}
	d.exporter = &audit.Exporter{
		Log: d.log, Dir: checkpoints, Now: o.Now,
		Signer: func(_ context.Context, t vocab.TenantID) (audit.Signer, []byte, error) {
			served := d.tenants.byID(t)
			if served == nil {
				return nil, nil, nil // it is broken, or not configured any more
			}
			return served.CheckpointSigner()
		},
		Failed: func(t vocab.TenantID, err error) {
			o.Log.Warn("a checkpoint was not exported", "tenant_id", t.String(), "error", err)
		},
	}
	if d.server, err = server.New(server.Options{
		Tenants: d.tenants, Verifier: d.verifier, Host: d, Limits: cfg.Limits, Credentials: credentials.NewTLS(d.certs.config()),
		Version: Version(), Development: o.Development, Log: o.Log, Now: o.Now,
	}); err != nil {
		return nil, err
	}
	if err := d.listen(run); err != nil {
		return nil, err
	}
	d.running.Go(func() { d.export(run) })
	d.running.Go(func() { d.certs.watch(run) })
	d.running.Go(func() { d.sweep(run) })
	d.running.Go(func() { d.reportHealth(run) })
	return d, nil
}

// export exports checkpoints until ctx ends, from when every tenant has had its
// chance to get the keys that sign them.
func (d *Daemon) export(ctx context.Context) {
	for _, t := range d.tenants.all() {
		_ = t.Ready(ctx) // whoever cannot sign is reported then
	}
	d.exporter.Run(ctx)
}

// healthEvery is how often health is worked out anew.
const healthEvery = time.Second

// protectionService is the health service's name for "can publish and open".
const protectionService = "rms.v1.ProtectionService"

// reportHealth keeps the health service true: the daemon as a whole serves,
// even if only refusals and the log; the protection service serves while a
// tenant can publish and open, or none is configured.
func (d *Daemon) reportHealth(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		status := healthpb.HealthCheckResponse_NOT_SERVING
		tenants := d.tenants.all()
		for _, t := range tenants {
			if t.State().Err == nil && t.Hold() == nil {
				status = healthpb.HealthCheckResponse_SERVING
			}
		}
		if len(tenants)+len(d.tenants.allBroken()) == 0 {
			status = healthpb.HealthCheckResponse_SERVING
		}
		d.server.Health.SetServingStatus(protectionService, status)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// openStore opens the store with this version's schema.
func openStore(dir string, development bool) (*bolt.Store, error) {
	stamp := store.Production
	if development {
		stamp = store.Development
	}
	return bolt.Open(bolt.Options{Path: filepath.Join(dir, storeFile), Stamp: stamp, Schema: record.Schema})
}

// listen opens the network's listener and the operator's socket.
func (d *Daemon) listen(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", d.cfg.Listen)
	if err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "listen: %w", err)
	}
	d.listener = l
	socket, err := listenSocket(d.cfg.OperatorSocket)
	if err != nil {
		return err
	}
	d.running.Go(func() { d.ended(d.server.Network.Serve(server.LimitConnections(l, d.cfg.Limits.Connections))) })
	d.running.Go(func() { d.ended(d.server.Operator.Serve(socket)) })
	return nil
}

func (d *Daemon) ended(err error) {
	if err != nil {
		select {
		case d.failed <- err:
		default:
		}
	}
}

// listenSocket makes the operator's socket, for owner and group alone. One
// that was left behind is replaced: the store's lock has shown that no other
// rmsd is there.
func listenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "operator_socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "operator_socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "operator_socket: %w", err).
			WithNext("A socket's path has at most 107 bytes; set operator_socket to a shorter one")
	}
	if err := os.Chmod(path, 0o660); err != nil { //nolint:gosec // owner and group, as documented
		_ = l.Close()
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "operator_socket: %w", err)
	}
	return l, nil
}

// Addr is where the daemon listens.
func (d *Daemon) Addr() string { return d.listener.Addr().String() }

// Failed reports a listener that ended by itself.
func (d *Daemon) Failed() <-chan error { return d.failed }

// Ready waits until every tenant has tried to reach its custodian, and returns
// why one that cannot serve cannot.
func (d *Daemon) Ready(ctx context.Context) error {
	for _, t := range d.tenants.all() {
		if err := t.Ready(ctx); err != nil {
			return fmt.Errorf("tenant %s: %w", t.Name(), err)
		}
	}
	for name, b := range d.tenants.allBroken() {
		return fmt.Errorf("tenant %s: %w", name, b.err)
	}
	return nil
}

// Close stops serving: calls under way end, within the context; the log's
// checkpoints are exported; everything is closed.
func (d *Daemon) Close(ctx context.Context) error { return d.close(ctx) }

func (d *Daemon) close(ctx context.Context) error {
	var all error
	if d.server != nil {
		d.server.Stop(ctx)
	}
	if d.exporter != nil {
		// What cannot be exported now is exported at the next start.
		if err := d.exporter.Flush(context.WithoutCancel(ctx)); err != nil {
			d.opts.Log.Warn("the last checkpoint was not exported", "error", err)
		}
	}
	if d.listener != nil {
		_ = d.listener.Close() // the server has closed it, unless it never served
	}
	d.stop()
	d.running.Wait()
	if d.tenants != nil {
		all = errors.Join(all, d.tenants.close())
	}
	if d.verifier != nil {
		d.verifier.Close()
	}
	if d.store != nil {
		all = errors.Join(all, d.store.Close())
	}
	return all
}

// sweep forgets what need not be remembered, once an hour.
func (d *Daemon) sweep(ctx context.Context) {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, t := range d.tenants.all() {
				if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
					d.opts.Log.Warn("sweeping failed", "tenant", t.Name(), "error", err)
				}
			}
		}
	}
}

// Version is the version of the running program.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "0.1.0-dev"
	}
	return info.Main.Version
}
