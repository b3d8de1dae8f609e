package vault_test

import (
	"context"
	"testing"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/custodiantest"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
)

// connect makes a connection that ends with the test.
func connect(t *testing.T, c vault.Config) *vault.Connection {
	t.Helper()
	v, err := vault.Connect(c)
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

// keyOf is a newly registered key of a connection.
func keyOf(t *testing.T, c *vault.Connection, root, sign string) *vault.Key {
	t.Helper()
	k, err := c.Key(vocab.NewCustodianID(), root, sign)
	must(t, err)
	t.Cleanup(func() { must(t, k.Close()) })
	return k
}

// open is a key with the usual names on a connection of its own.
func open(t *testing.T, c vault.Config) *vault.Key {
	t.Helper()
	return keyOf(t, connect(t, c), "root", "sign")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The suite, on a key that has the connection for itself and on one that shares
// it with another registered key.
func TestConformance(t *testing.T) {
	s := vaulttest.Start(t)
	n := 0
	subject := func(t *testing.T, of func(*testing.T, *realvault.Tenant, *vault.Connection) (key *vault.Key, root string)) custodiantest.Subject {
		n++
		name := string(rune('a'+n)) + "-tenant"
		ours, theirs := vaulttest.Tenant(t, s, name), vaulttest.Tenant(t, s, name+"-other")
		c := connect(t, ours.Config())
		must(t, c.KeepApart(theirs.Mount))
		key, root := of(t, ours, c)
		rotate := func(name string) func(*testing.T) {
			return func(t *testing.T) { must(t, ours.Rotate(t.Context(), name)) }
		}
		return custodiantest.Subject{
			Custodian: key, Other: open(t, theirs.Config()), RotateRoot: rotate(root), RotateSign: rotate("sign"), RequestIDs: true,
			Withdraw: func(t *testing.T, n uint32) {
				must(t, ours.Configure(t.Context(), root, map[string]any{"min_decryption_version": n}))
			},
		}
	}
	t.Run("Alone", func(t *testing.T) {
		custodiantest.Run(t, func(t *testing.T) custodiantest.Subject {
			return subject(t, func(t *testing.T, _ *realvault.Tenant, c *vault.Connection) (*vault.Key, string) {
				return keyOf(t, c, "root", "sign"), "root"
			})
		})
	})
	t.Run("Shared", func(t *testing.T) {
		custodiantest.Run(t, func(t *testing.T) custodiantest.Subject {
			return subject(t, func(t *testing.T, tn *realvault.Tenant, c *vault.Connection) (*vault.Key, string) {
				must(t, tn.AddRoot(t.Context(), "byok", "root"))
				c.Allow("root", "byok", "sign")
				old := keyOf(t, c, "root", "sign")
				it, _ := wrapOne(t, old)
				key := keyOf(t, c, "byok", "sign")
				t.Cleanup(func() {
					us, err := old.Unwrap(context.WithoutCancel(t.Context()), []keys.UnwrapItem{it})
					if err != nil || us[0].Err != nil {
						t.Errorf("the other key, after all that: %v, %v", err, us)
					}
				})
				return key, "byok"
			})
		})
	})
}
