package daemon

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
)

// fileOf is a tenant's file with a keyring and a Vault mount.
func fileOf(t *testing.T, s *realvault.Server, tn *realvault.Tenant) config.Tenant {
	t.Helper()
	ring := filepath.Join(t.TempDir(), "keyring")
	return config.Tenant{ID: tn.Name, Custodians: map[string]config.Custodian{
		"keyring": {Embedded: &config.Embedded{Keyring: ring, KeyFile: ring + ".key"}},
		"vault": {
			Vault:   &config.Vault{Address: s.Address + "/", CA: s.CAFile, Mount: tn.Mount, ClusterID: s.ClusterID},
			AppRole: &config.AppRole{RoleIDFile: tn.RoleIDFile, SecretIDFile: tn.SecretIDFile, Wrapped: true, Role: tn.Role},
		},
	}}
}

// with is the file with one custodian changed, or without it.
func with(file config.Tenant, name string, c *config.Custodian) config.Tenant {
	next := map[string]config.Custodian{}
	for n, was := range file.Custodians {
		if n != name {
			next[n] = was
		}
	}
	if c != nil {
		next[name] = *c
	}
	file.Custodians = next
	return file
}

// TestCustodiansOfAFile opens several keys at several custodians, and changes the
// file under them.
func TestCustodiansOfAFile(t *testing.T) {
	s := vaulttest.Start(t)
	contoso, fabrikam := vaulttest.Tenant(t, s, "contoso"), vaulttest.Tenant(t, s, "fabrikam")
	file := fileOf(t, s, contoso)
	d := &Daemon{opts: Options{Log: slog.New(slog.DiscardHandler)}}
	c := d.newCustodians(file, map[string]config.Tenant{"contoso": file})
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	refuses := func(what string, err error, says string) {
		t.Helper()
		if !errors.Is(err, vocab.ReasonConfigurationInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want one that says %q", what, err, says)
		}
	}
	open := func(custodian, root string) keys.Custodian {
		t.Helper()
		k, err := c.Open(vocab.NewCustodianID(), custodian, root, "sign")
		check(err)
		return k
	}

	var names []string
	for _, p := range c.Named() {
		names = append(names, p.Name)
		if p.Name == "vault" && (p.Kind != keys.KindVault || p.Address != s.Address || p.Mount != contoso.Mount || p.ClusterID != s.ClusterID || p.CAFile != s.CAFile) {
			t.Errorf("the place of the Vault is %+v", p)
		}
	}
	if !slices.Equal(names, []string{"keyring", "vault"}) {
		t.Errorf("it names %v", names)
	}
	_, err := c.Open(vocab.NewCustodianID(), "elsewhere", "root", "sign")
	refuses("a custodian that is not named", err, "names no custodian elsewhere")
	_, err = c.Open(vocab.NewCustodianID(), "keyring", "byok", "sign")
	refuses("a keyring's other key", err, "root and sign and no others")

	// Three keys, two custodians, and one secret ID that was wrapped.
	check(contoso.AddRoot(t.Context(), "byok", "root"))
	c.Allow("vault", "root", "byok", "sign")
	ring, old, byok := open("keyring", "root"), open("vault", "root"), open("vault", "byok")
	for _, k := range []keys.Custodian{ring, old, byok} {
		check(k.Check(t.Context()))
	}

	// What a key is at can neither go nor change.
	moved := file.Custodians["vault"]
	elsewhere := *moved.Vault
	elsewhere.Mount = "elsewhere"
	moved.Vault = &elsewhere
	refuses("a used Vault moved", c.mayBecome(with(file, "vault", &moved)), "custodian vault changed, and holds a key")
	refuses("a used keyring gone", c.mayBecome(with(file, "keyring", nil)), "custodian keyring is gone, but holds a key")
	same := *file.Custodians["vault"].Vault
	check(c.mayBecome(with(file, "vault", &config.Custodian{Vault: &same, AppRole: file.Custodians["vault"].AppRole})))

	// One that is added is there at once, and another tenant's mount is apart
	// from when its file is there.
	check(contoso.SetPolicy(t.Context(), vaultpolicy.Daemon(contoso.Mount, "root", "byok")+
		`path "`+fabrikam.Mount+`/decrypt/root" { capabilities = ["update"] }`))
	check(old.Check(t.Context())) // nobody's, as far as is known
	second := filepath.Join(t.TempDir(), "second")
	grown := with(file, "second", &config.Custodian{Embedded: &config.Embedded{Keyring: second, KeyFile: second + ".key"}})
	check(c.mayBecome(grown))
	if unneeded := c.become(grown, map[string]config.Tenant{"contoso": grown, "fabrikam": fileOf(t, s, fabrikam)}); len(unneeded) > 0 {
		t.Error("a connection that is in use was given up")
	}
	check(open("second", "root").Check(t.Context()))
	if err := old.Check(t.Context()); !errors.Is(err, keys.ErrTooMuchPower) {
		t.Errorf("another tenant's mount within reach: %v", err)
	}

	// Without keys a custodian may go, and its login with it.
	check(errors.Join(old.Close(), byok.Close()))
	gone := with(grown, "vault", nil)
	check(c.mayBecome(gone))
	unneeded := c.become(gone, map[string]config.Tenant{"contoso": gone})
	if len(unneeded) != 1 {
		t.Fatalf("%d connections were given up, want 1", len(unneeded))
	}
	check(unneeded[0].Close())
	_, err = c.Open(vocab.NewCustodianID(), "vault", "root", "sign")
	refuses("one that is gone", err, "names no custodian vault")
	check(errors.Join(ring.Close(), c.Close()))
	if _, err := os.Stat(second); err != nil {
		t.Error(err)
	}
}

// A key that is opened while a file is being taken over keeps its custodian.
func TestCustodianIsKeptForAKeyOpenedMeanwhile(t *testing.T) {
	ring := filepath.Join(t.TempDir(), "keyring")
	file := config.Tenant{ID: "contoso", Custodians: map[string]config.Custodian{"keyring": {Embedded: &config.Embedded{Keyring: ring, KeyFile: ring + ".key"}}}}
	d := &Daemon{opts: Options{Log: slog.New(slog.DiscardHandler)}}
	c := d.newCustodians(file, nil)
	gone := with(file, "keyring", nil)
	if err := c.mayBecome(gone); err != nil {
		t.Fatal(err)
	}
	k, err := c.Open(vocab.NewCustodianID(), "keyring", "root", "sign")
	if err != nil {
		t.Fatal(err)
	}
	c.become(gone, nil)
	if n := len(c.Named()); n != 1 {
		t.Errorf("%d custodians, want the one that is in use", n)
	}
	if err := c.mayBecome(gone); err == nil {
		t.Error("it may go while its key is open")
	}
	if err := errors.Join(k.Close(), k.Close()); err != nil { // closing twice counts once
		t.Fatal(err)
	}
	if err := c.mayBecome(gone); err != nil {
		t.Errorf("it may not go after that: %v", err)
	}
}
