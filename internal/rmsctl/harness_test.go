package rmsctl_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/openrms/rms/internal/daemon"
)

// startDaemon starts a whole daemon in the test's process, with the test
// users, their contexts and their real sign-in, for the test's life.
func startDaemon(t *testing.T) *daemon.Dev {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmsctl-") // short: a socket's path is limited
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d, err := daemon.StartDev(t.Context(), daemon.DevOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	check(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
