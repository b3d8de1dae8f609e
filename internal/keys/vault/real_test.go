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

func wrapOne(t *testing.T, v *vault.Key) (keys.UnwrapItem, *vocab.Secret) {
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
func reason(t *testing.T, v *vault.Key, it keys.UnwrapItem) vocab.Reason {
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
	open := func(t *testing.T, tn *realvault.Tenant) *vault.Key {
		return open(t, tn.Config())
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
		must(t, tn.SetPolicy(t.Context(), vaultpolicy.Daemon(tn.Mount, "root")))
		want(t, "policy given back", reason(t, v, it), "")
		must(t, s.Request(t.Context(), http.MethodDelete, "auth/approle/role/"+tn.Role, nil, nil))
		must(t, s.Request(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/approle/login", nil, nil))
		want(t, "role deleted, tokens revoked", reason(t, v, it), vocab.ReasonCustodianRefused)
	})

	t.Run("LoginAnew", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "login")
		c := tn.Config()
		var ahead atomic.Int64
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		v := keyOf(t, connect(t, c), "root", "sign")
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

		// One that is delivered later and was spent on its way is an alarm; the
		// secret ID that is held goes on being good.
		must(t, tn.Deliver(t.Context()))
		c := tn.Config()
		var ahead atomic.Int64
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		v := keyOf(t, connect(t, c), "root", "sign")
		must(t, v.Check(t.Context()))
		again := func() {
			must(t, s.Request(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/approle/login", nil, nil))
			ahead.Add(int64(time.Minute))
			wrapOne(t, v)
		}
		must(t, tn.Deliver(t.Context()))
		stolen, err := os.ReadFile(tn.SecretIDFile)
		must(t, err)
		must(t, s.RequestAs(t.Context(), strings.TrimSpace(string(stolen)), http.MethodPost, "sys/wrapping/unwrap", nil, nil))
		again()
		want(t, "delivered and spent", vocab.ReasonOf(v.Check(t.Context())), vocab.ReasonCustodyIntegrity)
		must(t, tn.Deliver(t.Context()))
		again()
		must(t, v.Check(t.Context()))
	})

	t.Run("KeysShareALogin", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "shares")
		must(t, tn.AddRoot(t.Context(), "byok", "root"))
		c := connect(t, tn.Config())
		c.Allow("root", "byok", "sign")
		first := keyOf(t, c, "root", "sign")
		old, _ := wrapOne(t, first)
		second := keyOf(t, c, "byok", "sign") // the secret ID is spent by now
		it, _ := wrapOne(t, second)
		want(t, "the other key's", reason(t, second, old), vocab.ReasonCustodyIntegrity)
		must(t, first.Close())
		want(t, "closed", reason(t, first, old), vocab.ReasonCustodianUnreachable)
		if h := first.Health(t.Context()); h.Reason != vocab.ReasonCustodianUnreachable {
			t.Errorf("Health, closed: %+v", h)
		}
		want(t, "beside a closed one", reason(t, second, it), "")
		must(t, second.Close())
		wrapOne(t, keyOf(t, c, "root", "sign")) // also after the last one was closed
	})

	// Vault locks a role out after five failed logins. A service that is asked
	// all the time must not bring that about.
	t.Run("NotLockedOut", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "lockout")
		c := tn.Config()
		var ahead atomic.Int64
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		c.AppRole.Wrapped = false
		must(t, os.WriteFile(tn.SecretIDFile, []byte("ran-out\n"), 0o600))
		v := keyOf(t, connect(t, c), "root", "sign")
		for range 60 {
			_, err := v.Describe(t.Context())
			want(t, "secret ID that ran out", vocab.ReasonOf(err), vocab.ReasonCustodianRefused)
			ahead.Add(int64(5 * time.Second))
		}
		var id struct {
			Data struct {
				SecretID string `json:"secret_id"`
			}
		}
		must(t, s.Request(t.Context(), http.MethodPost, "auth/approle/role/"+tn.Role+"/secret-id", nil, &id))
		must(t, os.WriteFile(tn.SecretIDFile, []byte(id.Data.SecretID), 0o600))
		wrapOne(t, v)
	})

	t.Run("RoleMadeAnew", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "anew")
		c := tn.Config()
		var ahead atomic.Int64
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		v := keyOf(t, connect(t, c), "root", "sign")
		it, _ := wrapOne(t, v)
		must(t, s.Request(t.Context(), http.MethodDelete, "auth/approle/role/"+tn.Role, nil, nil))
		must(t, s.Request(t.Context(), http.MethodPut, "sys/leases/revoke-prefix/auth/approle/login", nil, nil))
		ahead.Add(int64(time.Minute))
		want(t, "role deleted", reason(t, v, it), vocab.ReasonCustodianRefused)
		must(t, tn.MakeRole(t.Context()))
		must(t, tn.Deliver(t.Context()))
		want(t, "role made anew", reason(t, v, it), "")
	})

	t.Run("Pin", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "pin")
		c := tn.Config()
		c.ClusterID = "00000000-0000-0000-0000-000000000000"
		v := keyOf(t, connect(t, c), "root", "sign")
		_, err := v.Describe(t.Context())
		want(t, "another cluster", vocab.ReasonOf(err), vocab.ReasonCustodianChanged)
		if h := v.Health(t.Context()); h.Reason != vocab.ReasonCustodianChanged {
			t.Errorf("Health: %+v", h)
		}
		wrapOne(t, open(t, tn)) // the secret ID was not spent on the wrong cluster
	})

	t.Run("Namespace", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "namespace")
		c := tn.Config()
		c.Namespace = "contoso"
		v := keyOf(t, connect(t, c), "root", "sign")
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
		c := connect(t, tn.Config())
		must(t, c.KeepApart(other.Mount))
		v := keyOf(t, c, "root", "sign")
		shipped := vaultpolicy.Daemon(tn.Mount, "root")
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
			if err == nil || errors.Is(err, keys.ErrTooMuchPower) || vocab.ReasonOf(err) == vocab.ReasonConfigurationInvalid && !strings.Contains(err.Error(), path) {
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
			"a glob":      `path "` + tn.Mount + `/decrypt/root*" { capabilities = ["update"] }`,
			"other names": `path "` + other.Mount + `/sign/sign" { capabilities = ["update"] }`,
		} {
			must(t, tn.SetPolicy(t.Context(), shipped+extra))
			if err := v.Check(t.Context()); vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || !errors.Is(err, keys.ErrTooMuchPower) || !strings.Contains(err.Error(), "too much") {
				t.Errorf("with power over %s: %v", name, err)
			}
		}
		must(t, tn.SetPolicy(t.Context(), shipped))
		must(t, v.Check(t.Context()))
	})

	t.Run("PowerOverSeveralKeys", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "keys")
		must(t, tn.AddRoot(t.Context(), "byok", "root"))
		c := connect(t, tn.Config())
		first, second := keyOf(t, c, "root", "sign"), keyOf(t, c, "byok", "sign")
		c.Allow("root", "byok", "sign")
		both := vaultpolicy.Daemon(tn.Mount, "root", "byok")
		must(t, first.Check(t.Context()))
		must(t, second.Check(t.Context()))
		for name, extra := range map[string]string{
			"rotation of the other":  `path "` + tn.Mount + `/keys/byok/rotate" { capabilities = ["update"] }`,
			"export of the other":    `path "` + tn.Mount + `/export/encryption-key/byok" { capabilities = ["read"] }`,
			"making of the other":    `path "` + tn.Mount + `/encrypt/+" { capabilities = ["create", "update"] }`,
			"deletion of the other":  `path "` + tn.Mount + `/keys/+" { capabilities = ["read", "delete"] }`,
			"a third, by a glob":     `path "` + tn.Mount + `/decrypt/byok*" { capabilities = ["update"] }`,
			"its handing to another": `path "` + tn.Mount + `/byok-export/+/byok" { capabilities = ["read"] }`,
		} {
			must(t, tn.SetPolicy(t.Context(), both+extra))
			for _, k := range []*vault.Key{first, second} {
				if err := k.Check(t.Context()); !errors.Is(err, keys.ErrTooMuchPower) {
					t.Errorf("with %s: %v", name, err)
				}
			}
		}
		// A key that lost its part of the policy is refused; the other goes on.
		must(t, tn.SetPolicy(t.Context(), vaultpolicy.Daemon(tn.Mount, "byok")))
		want(t, "without its part", vocab.ReasonOf(first.Check(t.Context())), vocab.ReasonCustodianRefused)
		must(t, second.Check(t.Context()))
	})

	t.Run("AuditOfVaultMatchesOurs", func(t *testing.T) {
		tn := vaulttest.Tenant(t, s, "audit")
		c, err := vault.Connect(tn.Config())
		must(t, err)
		v := keyOf(t, c, "root", "sign")
		must(t, v.Check(t.Context()))
		var ours []string
		for range 20 {
			it, _ := wrapOne(t, v)
			us, err := v.Unwrap(t.Context(), []keys.UnwrapItem{it})
			must(t, err)
			ours = append(ours, us[0].RequestID)
		}
		must(t, c.Close())
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
		c := tn.Config()
		c.Timeout = 500 * time.Millisecond
		v := keyOf(t, connect(t, c), "root", "sign")
		it, _ := wrapOne(t, v)
		must(t, s.Pause())
		want(t, "no answer", reason(t, v, it), vocab.ReasonCustodianUnreachable)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := v.Unwrap(ctx, []keys.UnwrapItem{it})
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
		return vault.Config{Address: "https://vault.example:8200", Mount: "transit-rms-contoso", AppRole: &vault.AppRole{RoleIDFile: "a", SecretIDFile: "b"}}
	}
	v := connect(t, good())
	for name, spoil := range map[string]func(*vault.Config){
		"plain http":        func(c *vault.Config) { c.Address = "http://vault.example:8200" },
		"no scheme":         func(c *vault.Config) { c.Address = "vault.example:8200" },
		"another scheme":    func(c *vault.Config) { c.Address = "unix:///run/vault.sock" },
		"credentials in it": func(c *vault.Config) { c.Address = "https://a:b@vault.example:8200" },
		"path in it":        func(c *vault.Config) { c.Address = "https://vault.example:8200/v1" },
		"no mount":          func(c *vault.Config) { c.Mount = "" },
		"mount with dots":   func(c *vault.Config) { c.Mount = "../sys" },
		"no login":          func(c *vault.Config) { c.AppRole = nil },
		"two logins":        func(c *vault.Config) { c.TokenFile = "x" },
		"half an approle":   func(c *vault.Config) { c.AppRole.SecretIDFile = "" },
		"timeout of a day":  func(c *vault.Config) { c.Timeout = 24 * time.Hour },
		"CA file missing":   func(c *vault.Config) { c.CAFile = filepath.Join(t.TempDir(), "none") },
	} {
		c := good()
		spoil(&c)
		if _, err := vault.Connect(c); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, k := range map[string]struct {
		id         vocab.CustodianID
		root, sign string
	}{
		"no ID":          {vocab.CustodianID{}, "root", "sign"},
		"key with slash": {vocab.CustodianID{1}, "root/../x", "sign"},
		"no signing key": {vocab.CustodianID{1}, "root", ""},
		"keys the same":  {vocab.CustodianID{1}, "sign", "sign"},
	} {
		if _, err := v.Key(k.id, k.root, k.sign); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := v.KeepApart("transit-rms-fabrikam", "a b"); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
		t.Errorf("other mount hostile: %v", err)
	}
}
