package vault_test

import (
	"testing"

	"github.com/openrms/rms/internal/keys/custodiantest"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
)

func open(t *testing.T, c vault.Config) *vault.Vault {
	t.Helper()
	v, err := vault.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	s := vaulttest.Start(t)
	n := 0
	custodiantest.Run(t, func(t *testing.T) custodiantest.Subject {
		n++
		name := string(rune('a'+n)) + "-tenant"
		ours, theirs := vaulttest.Tenant(t, s, name), vaulttest.Tenant(t, s, name+"-other")
		c := ours.Config(vocab.NewCustodianID())
		c.OtherMounts = []string{theirs.Mount}
		rotate := func(tn *realvault.Tenant, key string) func(*testing.T) {
			return func(t *testing.T) { must(t, tn.Rotate(t.Context(), key)) }
		}
		return custodiantest.Subject{
			Custodian: open(t, c), Other: open(t, theirs.Config(vocab.NewCustodianID())),
			RotateRoot: rotate(ours, "root"), RotateSign: rotate(ours, "sign"), RequestIDs: true,
			Withdraw: func(t *testing.T, n uint32) {
				must(t, ours.Configure(t.Context(), "root", map[string]any{"min_decryption_version": n}))
			},
		}
	})
}
