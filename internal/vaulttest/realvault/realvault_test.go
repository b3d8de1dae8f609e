package realvault_test

import (
	"os"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/vaulttest/realvault"
)

// TestRaft: a Vault on raft storage starts, is killed, and comes back with what
// it had. Vault on file storage is what internal/keys/vault's tests use.
func TestRaft(t *testing.T) {
	binary, err := realvault.Find()
	if err != nil {
		t.Skip(err) // the tests of internal/keys/vault build it
	}
	s, err := realvault.Start(t.Context(), realvault.Options{Binary: binary, Dir: t.TempDir(), Raft: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	tn, err := s.AddTenant(t.Context(), "contoso")
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tn.Rotate(t.Context(), "root"); err != nil {
		t.Errorf("the tenant's key after a crash: %v", err)
	}
	entries, err := s.ReadAudit()
	if err != nil || len(entries) == 0 {
		t.Errorf("audit: %d entries, %v", len(entries), err)
	}
}

func TestFindBelievesTheEnvironment(t *testing.T) {
	t.Setenv("VAULT_BIN", "/nonexistent/vault")
	if path, err := realvault.Find(); err == nil || !strings.Contains(err.Error(), "VAULT_BIN") {
		t.Errorf("a VAULT_BIN that is not there: %q, %v", path, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("VAULT_BIN", self)
	if path, err := realvault.Find(); err != nil || path != self {
		t.Errorf("VAULT_BIN: %q, %v", path, err)
	}
}
