package vault_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
)

func newItem() keys.WrapItem {
	return keys.WrapItem{Binding: keys.TenantBinding(vocab.TenantID{1}, vocab.NewGenerationID()), Secret: vocab.NewSecret()}
}

func wrapOne(t *testing.T, v *vault.Vault) (keys.UnwrapItem, *vocab.Secret) {
	t.Helper()
	it := newItem()
	ws, err := v.Wrap(t.Context(), []keys.WrapItem{it})
	if err == nil {
		err = ws[0].Err
	}
	if err != nil {
		t.Fatalf("Wrap: %v (%v)", err, errors.Unwrap(err))
	}
	return keys.UnwrapItem{Binding: it.Binding, Wrap: ws[0].Wrap}, it.Secret
}

// reason unwraps it and says why that fails.
func reason(t *testing.T, v *vault.Vault, it keys.UnwrapItem) vocab.Reason {
	t.Helper()
	us, err := v.Unwrap(t.Context(), []keys.UnwrapItem{it})
	if err != nil {
		return vocab.ReasonOf(err)
	}
	us[0].Secret.Zero()
	return vocab.ReasonOf(us[0].Err)
}

func want(t *testing.T, what string, got, want vocab.Reason) {
	t.Helper()
	if got != want {
		t.Errorf("%s: reason %q, want %q", what, got, want)
	}
}

// TestRealVault is what only a real Vault can show. Each case has a tenant of
// its own; the ones that stop the Vault come last.
func TestRealVault(t *testing.T) {
	s := vaulttest.Start(t)
	open := func(t *testing.T, tn *realvault.Tenant) *vault.Vault {
		return open(t, tn.Config(vocab.NewCustodianID()))
	}

	t.Run("CustomerSwitch", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "switch")
		v := open(t, tn)
		it, _ := wrapOne(t, v)
		must(t, tn.SetPolicy(t.Context(), ""))
		want(t, "policy emptied", reason(t, v, it), vocab.ReasonCustodianRefused)
		_, err := v.Wrap(t.Context(), []keys.WrapItem{newItem()})
		want(t, "publishing, policy emptied", vocab.ReasonOf(err), vocab.ReasonCustodianRefused)
		_, err = v.Sign(t.Context(), 0, []byte("x"))
		want(t, "signing, policy emptied", vocab.ReasonOf(err), vocab.ReasonCustodianRefused)
		must(t, tn.SetPolicy(t.Context(), vaultpolicy.Daemon(tn.Mount)))
		want(t, "policy given back", reason(t, v, it), "")
		must(t, s.Request(t.Context(), http.MethodDelete, "auth/approle/role/"+tn.Role, nil, nil))
		must(t, s.Request(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/approle/login", nil, nil))
		want(t, "role deleted, tokens revoked", reason(t, v, it), vocab.ReasonCustodianRefused)
	})

	t.Run("LoginAnew", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "login")
		c := tn.Config(vocab.NewCustodianID())
		var ahead atomic.Int64
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		v, err := vault.Open(c)
		must(t, err)
		defer v.Close()
		it, _ := wrapOne(t, v)
		must(t, s.Request(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/approle/login", nil, nil))
		want(t, "a login made this moment is not made again", reason(t, v, it), vocab.ReasonCustodianRefused)
		ahead.Store(int64(time.Minute))
		want(t, "token revoked: logs in and goes on", reason(t, v, it), "")
	})

	t.Run("WrappedSecretID", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "wrapped")
		wrapOne(t, open(t, tn))
		_, err := open(t, tn).Describe(t.Context())
		want(t, "wrapping token used a second time", vocab.ReasonOf(err), vocab.ReasonCustodyIntegrity)
		must(t, tn.Deliver(t.Context()))
		wrapOne(t, open(t, tn))

		other := vaulttest.Tenant(t, s, "wrapped-other")
		token, err := os.ReadFile(other.SecretIDFile)
		must(t, err)
		must(t, os.WriteFile(tn.SecretIDFile, token, 0o600))
		_, err = open(t, tn).Describe(t.Context())
		want(t, "another role's secret ID", vocab.ReasonOf(err), vocab.ReasonCustodyIntegrity)
		wrapOne(t, open(t, other)) // and it was not used up by that
	})

	t.Run("Pin", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "pin")
		c := tn.Config(vocab.NewCustodianID())
		c.ClusterID = "00000000-0000-0000-0000-000000000000"
		v, err := vault.Open(c)
		must(t, err)
		defer v.Close()
		_, err = v.Describe(t.Context())
		want(t, "another cluster", vocab.ReasonOf(err), vocab.ReasonCustodianChanged)
		if h := v.Health(t.Context()); h.Reason != vocab.ReasonCustodianChanged {
			t.Errorf("Health: %+v", h)
		}
		wrapOne(t, open(t, tn)) // the secret ID was not spent on the wrong cluster
	})

	t.Run("Namespace", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "namespace")
		c := tn.Config(vocab.NewCustodianID())
		c.Namespace = "contoso"
		v, err := vault.Open(c)
		must(t, err)
		defer v.Close()
		want(t, "namespace on the community edition", vocab.ReasonOf(v.Check(t.Context())), vocab.ReasonConfigurationInvalid)
	})

	t.Run("UnsafeKeys", func(t *testing.T) {
		good := map[string]any{"type": "aes256-gcm96", "derived": true}
		for name, k := range map[string]struct{ root, sign map[string]any }{
			"not-derived":    {root: map[string]any{"type": "aes256-gcm96"}},
			"aes128":         {root: map[string]any{"type": "aes128-gcm96", "derived": true}},
			"chacha":         {root: map[string]any{"type": "chacha20-poly1305", "derived": true}},
			"convergent":     {root: map[string]any{"type": "aes256-gcm96", "derived": true, "convergent_encryption": true}},
			"exportable":     {root: map[string]any{"type": "aes256-gcm96", "derived": true, "exportable": true}},
			"backup-allowed": {root: map[string]any{"type": "aes256-gcm96", "derived": true, "allow_plaintext_backup": true}},
			"rsa":            {root: map[string]any{"type": "rsa-2048"}},
			"sign-derived":   {sign: map[string]any{"type": "ed25519", "derived": true}},
			"sign-export":    {sign: map[string]any{"type": "ed25519", "exportable": true}},
			"sign-ecdsa":     {sign: map[string]any{"type": "ecdsa-p256"}},
		} {
			t.Run(name, func(t *testing.T) {
				tn, err := s.AddMount(t.Context(), "unsafe-"+name)
				must(t, err)
				if k.root == nil {
					k.root = good
				}
				if k.sign == nil {
					k.sign = map[string]any{"type": "ed25519"}
				}
				must(t, tn.CreateKey(t.Context(), "root", k.root))
				must(t, tn.CreateKey(t.Context(), "sign", k.sign))
				v := open(t, tn)
				want(t, "Check", vocab.ReasonOf(v.Check(t.Context())), vocab.ReasonKeyAttributesUnsafe)
				if _, err := keys.CurrentRoot(t.Context(), v); vocab.ReasonOf(err) != vocab.ReasonKeyAttributesUnsafe && vocab.ReasonOf(err) != vocab.ReasonCustodyIntegrity {
					t.Errorf("CurrentRoot: %v", err)
				}
			})
		}
	})

	t.Run("SwapWhereVaultIgnoresTheContext", func(t *testing.T) {
		tn, err := s.AddMount(t.Context(), "ignores")
		must(t, err)
		must(t, tn.CreateKey(t.Context(), "root", map[string]any{"type": "aes256-gcm96"}))
		v := open(t, tn)
		one, _ := wrapOne(t, v)
		two, _ := wrapOne(t, v)
		want(t, "as itself", reason(t, v, one), "")
		want(t, "exchanged", reason(t, v, keys.UnwrapItem{Binding: two.Binding, Wrap: one.Wrap}), vocab.ReasonCustodyIntegrity)
		// Vault itself moves it under the wrong context without a word; the
		// binding inside still tells.
		rs, err := v.Rewrap(t.Context(), []keys.UnwrapItem{{Binding: two.Binding, Wrap: one.Wrap}})
		must(t, err)
		if rs[0].Err == nil {
			want(t, "exchanged by a rewrap", reason(t, v, keys.UnwrapItem{Binding: two.Binding, Wrap: rs[0].Wrap}), vocab.ReasonCustodyIntegrity)
		}
	})

	t.Run("RSA", func(t *testing.T) {
		tn, err := s.AddMount(t.Context(), "rsa")
		must(t, err)
		must(t, tn.CreateKey(t.Context(), "root", map[string]any{"type": "rsa-2048"}))
		v := open(t, tn)
		ws, err := v.Wrap(t.Context(), []keys.WrapItem{newItem()})
		if err == nil {
			err = ws[0].Err
		}
		if err == nil {
			t.Error("an RSA key wrapped")
		}
		// A blob anyone can mint from the public key alone.
		minted := keys.UnwrapItem{Binding: newItem().Binding, Wrap: license.Wrap{Custodian: v.ID(), L0Type: license.L0AES, L0Version: 1, Ciphertext: make([]byte, 256)}}
		want(t, "minted from the public key", reason(t, v, minted), vocab.ReasonCustodyIntegrity)
		minted.Wrap.L0Type = license.L0RSA
		want(t, "minted, as RSA", reason(t, v, minted), vocab.ReasonSuiteUnsupported)
	})

	t.Run("Power", func(t *testing.T) {
		tn, other := vaulttest.Tenant(t, s, "power"), vaulttest.Tenant(t, s, "power-other")
		c := tn.Config(vocab.NewCustodianID())
		c.OtherMounts = []string{other.Mount}
		v, err := vault.Open(c)
		must(t, err)
		defer v.Close()
		shipped := vaultpolicy.Daemon(tn.Mount)
		must(t, v.Check(t.Context()))

		// Every line of the shipped policy is needed: without it, Check fails
		// and names it.
		for line := range strings.SplitSeq(shipped, "\n") {
			if !strings.HasPrefix(line, "path") {
				continue
			}
			path := strings.Split(line, `"`)[1]
			must(t, tn.SetPolicy(t.Context(), strings.Replace(shipped, line, "", 1)))
			err := v.Check(t.Context())
			if err == nil || vocab.ReasonOf(err) == vocab.ReasonConfigurationInvalid && !strings.Contains(err.Error(), path) {
				t.Errorf("without %s: %v", path, err)
			}
		}
		for name, extra := range map[string]string{
			"rotate":      `path "` + tn.Mount + `/keys/root/rotate" { capabilities = ["update"] }`,
			"any key":     `path "` + tn.Mount + `/keys/*" { capabilities = ["read", "update"] }`,
			"export":      `path "` + tn.Mount + `/export/encryption-key/root" { capabilities = ["read"] }`,
			"backup":      `path "` + tn.Mount + `/backup/+" { capabilities = ["read"] }`,
			"upsert":      `path "` + tn.Mount + `/encrypt/+" { capabilities = ["create", "update"] }`,
			"data key":    `path "` + tn.Mount + `/datakey/plaintext/root" { capabilities = ["update"] }`,
			"everything":  `path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`,
			"policies":    `path "sys/policies/*" { capabilities = ["update"] }`,
			"other mount": `path "` + other.Mount + `/decrypt/root" { capabilities = ["update"] }`,
			"own role":    `path "auth/approle/role/+/secret-id" { capabilities = ["update"] }`,
		} {
			must(t, tn.SetPolicy(t.Context(), shipped+extra))
			if err := v.Check(t.Context()); vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || !strings.Contains(err.Error(), "too much") {
				t.Errorf("with power over %s: %v", name, err)
			}
		}
		must(t, tn.SetPolicy(t.Context(), shipped))
		must(t, v.Check(t.Context()))
	})

	t.Run("AuditOfVaultMatchesOurs", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "audit")
		v := open(t, tn)
		must(t, v.Check(t.Context()))
		var ours []string
		for range 20 {
			it, _ := wrapOne(t, v)
			us, err := v.Unwrap(t.Context(), []keys.UnwrapItem{it})
			must(t, err)
			ours = append(ours, us[0].RequestID)
		}
		must(t, v.Close())
		entries, err := s.ReadAudit()
		must(t, err)
		theirs := map[string]string{}
		allowed := []string{"encrypt/root", "decrypt/root", "rewrap/root", "sign/sign", "keys/root", "keys/sign"}
		for _, e := range entries {
			if e.Type != "response" || !slices.Contains(e.Auth.Policies, tn.Policy) {
				continue
			}
			theirs[e.Request.ID] = e.Request.Path
			under, inMount := strings.CutPrefix(e.Request.Path, tn.Mount+"/")
			if inMount && !slices.Contains(allowed, under) || !inMount && !strings.HasPrefix(e.Request.Path, "auth/") && e.Request.Path != "sys/capabilities-self" {
				t.Errorf("the service's token on %s", e.Request.Path)
			}
			if slices.Contains(e.Auth.Policies, "default") {
				t.Error("the service's token has Vault's default policy")
			}
		}
		for _, id := range ours {
			if theirs[id] != tn.Mount+"/decrypt/root" {
				t.Errorf("request %s is %q in Vault's audit", id, theirs[id])
			}
		}
	})

	t.Run("SealAndUnseal", func(t *testing.T) {
		v := open(t, vaulttest.Tenant(t, s, "seal"))
		it, _ := wrapOne(t, v)
		must(t, s.Seal(t.Context()))
		want(t, "sealed", reason(t, v, it), vocab.ReasonCustodianSealed)
		_, err := v.Describe(t.Context())
		want(t, "Describe, sealed", vocab.ReasonOf(err), vocab.ReasonCustodianSealed)
		if h := v.Health(t.Context()); h.Reason != vocab.ReasonCustodianSealed {
			t.Errorf("Health, sealed: %+v", h)
		}
		must(t, s.Unseal(t.Context()))
		want(t, "unsealed", reason(t, v, it), "")
	})

	t.Run("SilentAndGone", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "silent")
		c := tn.Config(vocab.NewCustodianID())
		c.Timeout = 500 * time.Millisecond
		v, err := vault.Open(c)
		must(t, err)
		defer v.Close()
		it, _ := wrapOne(t, v)
		must(t, s.Pause())
		want(t, "no answer", reason(t, v, it), vocab.ReasonCustodianUnreachable)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err = v.Unwrap(ctx, []keys.UnwrapItem{it})
		want(t, "no answer before the caller's deadline", vocab.ReasonOf(err), vocab.ReasonCustodianUnreachable)
		must(t, s.Resume())
		want(t, "answering again", reason(t, v, it), "")
		s.Kill()
		want(t, "gone", reason(t, v, it), vocab.ReasonCustodianUnreachable)
		must(t, s.Run(t.Context()))
		want(t, "back and sealed", reason(t, v, it), vocab.ReasonCustodianSealed)
		must(t, s.Unseal(t.Context()))
		want(t, "back", reason(t, v, it), "")
	})
}

func TestConfigRefuses(t *testing.T) {
	good := func() vault.Config {
		return vault.Config{ID: vocab.NewCustodianID(), Address: "https://vault.example:8200", Mount: "transit-rms-contoso", AppRole: &vault.AppRole{RoleIDFile: "a", SecretIDFile: "b"}}
	}
	v, err := vault.Open(good())
	must(t, err)
	must(t, v.Close())
	for name, spoil := range map[string]func(*vault.Config){
		"plain http":          func(c *vault.Config) { c.Address = "http://vault.example:8200" },
		"no scheme":           func(c *vault.Config) { c.Address = "vault.example:8200" },
		"another scheme":      func(c *vault.Config) { c.Address = "unix:///run/vault.sock" },
		"credentials in it":   func(c *vault.Config) { c.Address = "https://a:b@vault.example:8200" },
		"path in it":          func(c *vault.Config) { c.Address = "https://vault.example:8200/v1" },
		"no ID":               func(c *vault.Config) { c.ID = vocab.CustodianID{} },
		"no mount":            func(c *vault.Config) { c.Mount = "" },
		"mount with dots":     func(c *vault.Config) { c.Mount = "../sys" },
		"key with slash":      func(c *vault.Config) { c.RootKey = "root/../x" },
		"keys the same":       func(c *vault.Config) { c.SignKey = "root" },
		"no login":            func(c *vault.Config) { c.AppRole = nil },
		"two logins":          func(c *vault.Config) { c.TokenFile = "x" },
		"half an approle":     func(c *vault.Config) { c.AppRole.SecretIDFile = "" },
		"timeout of a day":    func(c *vault.Config) { c.Timeout = 24 * time.Hour },
		"CA file missing":     func(c *vault.Config) { c.CAFile = filepath.Join(t.TempDir(), "none") },
		"other mount hostile": func(c *vault.Config) { c.OtherMounts = []string{"a b"} },
	} {
		c := good()
		spoil(&c)
		if _, err := vault.Open(c); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
