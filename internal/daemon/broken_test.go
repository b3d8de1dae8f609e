package daemon_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// A daemon whose only tenant is broken is up, and says that nothing can be
// protected or opened; whoever names no tenant means that one. Beside a healthy
// tenant it is tried in test/attack.
func TestTheOnlyTenantIsBroken(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	alice := site.Person(t, "alice")
	doc := publish(t, site.Client(t, d.Addr()), alice)
	if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	keyring := filepath.Join(site.Data, "keyring-"+daemontest.Tenant)
	away := keyring + ".away"
	if err := os.Rename(keyring, away); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(site.Config)
	if err != nil {
		t.Fatal(err)
	}
	d, err = daemon.Start(t.Context(), cfg, daemon.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	client := site.Client(t, d.Addr())
	health := healthpb.NewHealthClient(client.Conn)
	watch, err := health.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "rms.v1.ProtectionService"})
	if err != nil {
		t.Fatal(err)
	}
	// await waits for the first answer that is one.
	await := func() (status healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for status != healthpb.HealthCheckResponse_SERVING && status != healthpb.HealthCheckResponse_NOT_SERVING {
			got, err := watch.Recv()
			if err != nil {
				t.Fatal(err)
			}
			status = got.GetStatus()
		}
		return status
	}
	if got := await(); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the protection service is %s", got)
	}
	if got, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("the daemon: %v, %v", got, err)
	}
	_, err = rmsv1.NewProtectionServiceClient(client.Conn).GetTrust(t.Context(), &rmsv1.GetTrustRequest{})
	wantReason(t, err, vocab.ReasonCustodianUnreachable)

	if err := os.Rename(away, keyring); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := await(); got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("after the repair the protection service is %s", got)
	}
	if got, err := client.Acquire(t.Context(), site.Person(t, "bob"), doc.PL, nil); err != nil || !got.Key.Equal(doc.Key) {
		t.Errorf("after the repair the document does not open: %v", err)
	}
}
