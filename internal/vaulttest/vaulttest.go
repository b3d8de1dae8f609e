// Package vaulttest gives tests a real, unmodified HashiCorp Vault.
package vaulttest

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/openrms/rms/internal/vaulttest/realvault"
)

// Start starts a Vault of the test's own and stops it when the test ends. Where
// there is none it is built once, which takes minutes; only `go test -short`
// skips instead, and says so. On a failed test the end of Vault's log is shown.
func Start(tb testing.TB) *realvault.Server {
	tb.Helper()
	binary, err := realvault.Find()
	if errors.Is(err, realvault.ErrNotBuilt) {
		if testing.Short() {
			tb.Skipf("-short: %v", err)
		}
		binary, err = realvault.FindOrBuild(context.Background(), os.Stderr)
	}
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), 60*time.Second)
	defer cancel()
	s, err := realvault.Start(ctx, realvault.Options{Binary: binary, Dir: tb.TempDir()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.Stop()
		if log, err := os.ReadFile(s.LogFile); err == nil && tb.Failed() {
			tb.Logf("vault's log ends:\n%s", log[max(0, len(log)-4000):])
		}
	})
	return s
}

// Tenant adds a tenant to s, or ends the test.
func Tenant(tb testing.TB, s *realvault.Server, name string) *realvault.Tenant {
	tb.Helper()
	t, err := s.AddTenant(tb.Context(), name)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}
