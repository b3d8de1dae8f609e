package custody_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/byok"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/keys/vaultact"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
)

// A person or service with one of the shipped policies and nothing else, not even
// Vault's default policy.
type role struct {
	policy string // text
	// steps are what it must be able to do, by name. They can be done any number
	// of times.
	steps map[string]func(context.Context) error
	// never are what it must not be able to do. Each would be possible if it
	// were allowed.
	never map[string]request
	// breaks says for each thing that can be taken out of the policy which step
	// that breaks; or, for a restriction, which of never it allows.
	breaks map[string]string
}

type request struct {
	method, path string
	body         map[string]any
}

// TestLeastPrivilege shows on a real Vault that each shipped policy is enough and
// not too much: everything its bearer must do works and everything he must not
// is refused, and with any single path, capability, parameter, value or
// restriction taken out one of both is no longer so.
func TestLeastPrivilege(t *testing.T) {
	s := vaulttest.Start(t)
	for name, prepare := range map[string]func(*testing.T, *stage) *role{"rmsd": asDaemon, "custody-officer": asOfficer, "destroyer": asDestroyer} {
		t.Run(name, func(t *testing.T) {
			g := newStage(t, s, name)
			r := prepare(t, g)
			rules := readPolicy(t, r.policy)
			for what, text := range map[string]string{"as shipped": r.policy, "as read by this test": policyText(rules)} {
				if broken := g.broken(t, text, r.steps); len(broken) > 0 {
					t.Fatalf("the policy %s does not allow: %v", what, broken)
				}
				if allowed := g.allowed(t, r.never); len(allowed) > 0 {
					t.Fatalf("the policy %s allows: %v", what, allowed)
				}
			}
			var names []string
			for _, m := range mutants(rules) {
				m.name = strings.NewReplacer(g.tenant.Mount+"/", "MOUNT/", g.tenant.Policy, "POLICY").Replace(m.name)
				names = append(names, m.name)
				broken := g.broken(t, m.text, r.steps)
				if m.wider {
					broken = g.allowed(t, r.never)
				}
				if want, ok := r.breaks[m.name]; !ok || !slices.Contains(broken, want) {
					t.Errorf("without %q: want %q to change, got %q", m.name, want, broken)
				}
			}
			for m := range r.breaks {
				if !slices.Contains(names, m) {
					t.Errorf("the policy has no %q", m)
				}
			}
		})
	}
}

// stage is a Vault with a tenant on it and the policy under test.
type stage struct {
	*realvault.Server

	tenant *realvault.Tenant
	policy string // name of the policy under test
	token  string // that has it
	count  int
}

func newStage(t *testing.T, s *realvault.Server, name string) *stage {
	t.Helper()
	g := &stage{Server: s, tenant: vaulttest.Tenant(t, s, name), policy: "under-test-" + name}
	g.put(t, "# nothing yet")
	g.token = g.newToken(t.Context())
	must(t, g.Request(t.Context(), http.MethodPost, g.tenant.Mount+"/keys/root/rotate", nil, nil))
	return g
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *stage) put(t *testing.T, text string) {
	t.Helper()
	must(t, g.Request(t.Context(), http.MethodPut, "sys/policies/acl/"+g.policy, map[string]string{"policy": text}, nil))
}

// newToken makes a token that has the policy under test; "" if Vault does not.
func (g *stage) newToken(ctx context.Context) string {
	var out struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	_ = g.Request(ctx, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{g.policy}, "no_default_policy": true, "period": "20m"}, &out)
	return out.Auth.Token
}

// broken puts a policy in force and says which steps fail. A step must fail with
// a refusal: one that fails otherwise is a mistake of this test.
func (g *stage) broken(t *testing.T, text string, steps map[string]func(context.Context) error) (names []string) {
	t.Helper()
	g.put(t, text)
	for _, name := range slices.Sorted(maps.Keys(steps)) {
		err := steps[name](t.Context())
		if err == nil {
			continue
		}
		denied, ok := errors.AsType[*realvault.StatusError](err)
		if r := vocab.ReasonOf(err); !(ok && denied.Status == http.StatusForbidden) && r != vocab.ReasonCustodianRefused && r != vocab.ReasonConfigurationInvalid {
			t.Errorf("%s: %v (%v)", name, err, errors.Unwrap(err))
		}
		names = append(names, name)
	}
	return names
}

// allowed says which requests the policy in force does not refuse.
func (g *stage) allowed(t *testing.T, never map[string]request) (names []string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(never)) {
		r := never[name]
		if denied, ok := errors.AsType[*realvault.StatusError](g.ask(t.Context(), r)); !ok || denied.Status != http.StatusForbidden {
			names = append(names, name)
		}
	}
	return names
}

// ask makes a request with the policy under test. In its path NEW is a name that
// was never used.
func (g *stage) ask(ctx context.Context, r request) error {
	return g.RequestAs(ctx, g.token, r.method, strings.ReplaceAll(r.path, "NEW", g.name()), r.body, nil)
}

func (g *stage) name() string {
	g.count++
	return fmt.Sprintf("key-%d", g.count)
}

// act acts on keys as a person with the policy under test does.
func (g *stage) act(t *testing.T) *vaultact.Client {
	t.Helper()
	token, err := vaultact.TokenFrom([]byte(g.token))
	must(t, err)
	c, err := vaultact.Open(vaultact.Config{
		Endpoint: vault.Endpoint{Address: g.Address, CAFile: g.CAFile, ClusterID: g.ClusterID}, Mount: g.tenant.Mount, Token: token,
	})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// uses are the ways to use keys or to get them out, which only the service has,
// or nobody.
func (g *stage) uses(names ...string) map[string]request {
	m := g.tenant.Mount + "/"
	text, blob := base64.StdEncoding.EncodeToString(make([]byte, 32)), "vault:v1:"+base64.StdEncoding.EncodeToString(make([]byte, 92))
	all := map[string]request{
		"encrypt":                  {"POST", m + "encrypt/root", map[string]any{"plaintext": text, "context": text}},
		"decrypt":                  {"POST", m + "decrypt/root", map[string]any{"ciphertext": blob, "context": text}},
		"rewrap":                   {"POST", m + "rewrap/root", map[string]any{"ciphertext": blob, "context": text}},
		"sign":                     {"POST", m + "sign/sign", map[string]any{"input": text}},
		"make a data key":          {"POST", m + "datakey/plaintext/root", map[string]any{"context": text}},
		"compute an HMAC":          {"POST", m + "hmac/root", map[string]any{"input": text}},
		"export the root key":      {"GET", m + "export/encryption-key/root", nil},
		"export the signing key":   {"GET", m + "export/signing-key/sign", nil},
		"back up a key":            {"GET", m + "backup/root", nil},
		"restore a key":            {"POST", m + "restore/NEW", map[string]any{"backup": text}},
		"let encrypting make keys": {"POST", m + "config/keys", map[string]any{"disable_upsert": false}},
		"write a policy":           {"PUT", "sys/policies/acl/another", map[string]any{"policy": "# x"}},
		"make a token":             {"POST", "auth/token/create", map[string]any{}},
		"make a secret ID":         {"POST", "auth/approle/role/" + g.tenant.Role + "/secret-id", map[string]any{}},
		"remove the mount":         {"DELETE", "sys/mounts/" + g.tenant.Mount, nil},
		"see who may do what":      {"GET", "sys/policies/acl/" + g.policy, nil},
		"read another mount":       {"GET", "elsewhere/keys/root", nil},
	}
	maps.DeleteFunc(all, func(name string, _ request) bool { return slices.Contains(names, name) })
	return all
}

func asDaemon(t *testing.T, g *stage) *role {
	other := vaulttest.Tenant(t, g.Server, "another-tenant")
	ctx := t.Context()
	// The role of the service has the policy under test and no other.
	must(t, g.Request(ctx, http.MethodPost, "auth/approle/role/"+g.tenant.Role, map[string]any{"token_policies": []string{g.policy}}, nil))
	g.put(t, vaultpolicy.Daemon(g.tenant.Mount, "root"))
	binding, secret := keys.TenantBinding(vocab.NewTenantID(), vocab.NewGenerationID()), vocab.NewSecret()
	c, err := vault.Connect(g.tenant.Config())
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.KeepApart(other.Mount))
	v, err := c.Key(vocab.NewCustodianID(), "root", "sign")
	must(t, err)
	must(t, v.Check(ctx))
	wraps, err := v.Wrap(ctx, []keys.WrapItem{{Binding: binding, Secret: secret}})
	must(t, err)
	must(t, wraps[0].Err)
	wrapped := []keys.UnwrapItem{{Binding: binding, Wrap: wraps[0].Wrap}}

	m := g.tenant.Mount + "/"
	never := g.uses("encrypt", "decrypt", "rewrap", "sign")
	text := base64.StdEncoding.EncodeToString(make([]byte, 32))
	maps.Copy(never, map[string]request{
		"make a key":                   {"POST", m + "keys/NEW", map[string]any{"type": "aes256-gcm96"}},
		"make a key by encrypting":     {"POST", m + "encrypt/NEW", map[string]any{"plaintext": text}},
		"rotate":                       {"POST", m + "keys/root/rotate", nil},
		"configure":                    {"POST", m + "keys/root/config", map[string]any{"min_decryption_version": 1}},
		"trim":                         {"POST", m + "keys/root/trim", map[string]any{"min_available_version": 1}},
		"delete a key":                 {"DELETE", m + "keys/root", nil},
		"import a key":                 {"POST", m + "keys/NEW/import", map[string]any{"ciphertext": text}},
		"import a version":             {"POST", m + "keys/root/import_version", map[string]any{"ciphertext": text}},
		"list keys":                    {"GET", m + "keys?list=true", nil},
		"use another tenant's key":     {"POST", other.Mount + "/decrypt/root", map[string]any{"ciphertext": "vault:v1:" + text}},
		"seal for another tenant":      {"POST", other.Mount + "/encrypt/root", map[string]any{"plaintext": text}},
		"sign for another tenant":      {"POST", other.Mount + "/sign/sign", map[string]any{"input": text}},
		"look at another tenant's key": {"GET", other.Mount + "/keys/root", nil},
	})
	one := func(what string, errs ...error) error {
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	}
	return &role{
		policy: vaultpolicy.Daemon(g.tenant.Mount, "root"),
		never:  never,
		steps: map[string]func(context.Context) error{
			"check itself": v.Check,
			"wrap a generation": func(ctx context.Context) error {
				r, err := v.Wrap(ctx, []keys.WrapItem{{Binding: binding, Secret: secret}})
				if err != nil {
					return err
				}
				return one("wrap", r[0].Err)
			},
			"unwrap a generation": func(ctx context.Context) error {
				r, err := v.Unwrap(ctx, wrapped)
				if err != nil {
					return err
				}
				if r[0].Err == nil && !r[0].Secret.Equal(secret) {
					t.Error("another secret came back")
				}
				return one("unwrap", r[0].Err)
			},
			"rewrap a generation": func(ctx context.Context) error {
				r, err := v.Rewrap(ctx, wrapped)
				if err != nil {
					return err
				}
				return one("rewrap", r[0].Err)
			},
			"certify a key of the day": func(ctx context.Context) error {
				_, err := v.Sign(ctx, 0, []byte("a certificate"))
				return err
			},
			"read the root key": func(ctx context.Context) error { return g.ask(ctx, request{"GET", m + "keys/root", nil}) },
			"read the signing key": func(ctx context.Context) error {
				return g.ask(ctx, request{"GET", m + "keys/sign", nil})
			},
			"renew its login": func(ctx context.Context) error {
				return g.ask(ctx, request{"POST", "auth/token/renew-self", map[string]any{}})
			},
			"give its login back": func(ctx context.Context) error {
				return g.RequestAs(ctx, g.newToken(ctx), http.MethodPost, "auth/token/revoke-self", struct{}{}, nil)
			},
		},
		breaks: map[string]string{
			"MOUNT/encrypt/root":     "wrap a generation",
			"MOUNT/decrypt/root":     "unwrap a generation",
			"MOUNT/rewrap/root":      "rewrap a generation",
			"MOUNT/sign/sign":        "certify a key of the day",
			"MOUNT/keys/root":        "read the root key",
			"MOUNT/keys/sign":        "read the signing key",
			"sys/capabilities-self":  "check itself",
			"auth/token/renew-self":  "renew its login",
			"auth/token/revoke-self": "give its login back",
		},
	}
}

func asOfficer(t *testing.T, g *stage) *role {
	m, ctx := g.tenant.Mount+"/", t.Context()
	a := g.act(t)
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	material, err := byok.Parse([]byte(hex.EncodeToString(key)))
	must(t, err)
	// The administrator's own doing, for the steps to start from.
	operator := func(ctx context.Context, path string, body any) error {
		return g.Request(ctx, http.MethodPost, m+path, body, nil)
	}
	var wrapping struct {
		Data struct {
			PublicKey string `json:"public_key"`
		}
	}
	must(t, g.Request(ctx, http.MethodGet, m+"wrapping_key", nil, &wrapping))
	public, err := byok.ParseWrappingKey([]byte(wrapping.Data.PublicKey))
	must(t, err)
	blob, err := public.Wrap(material.Key)
	must(t, err)
	imported := func(ctx context.Context) (string, error) {
		name := g.name()
		return name, operator(ctx, "keys/"+name+"/import", map[string]any{"type": "aes256-gcm96", "ciphertext": blob, "derived": true, "allow_rotation": true})
	}
	have, err := imported(ctx)
	must(t, err)

	never := g.uses()
	bring := func(more map[string]any, without ...string) map[string]any {
		b := map[string]any{"type": "aes256-gcm96", "ciphertext": blob, "derived": true, "allow_rotation": true}
		maps.Copy(b, more)
		maps.DeleteFunc(b, func(name string, _ any) bool { return slices.Contains(without, name) })
		return b
	}
	maps.Copy(never, map[string]request{
		"make an exportable key":           {"POST", m + "keys/NEW", map[string]any{"type": "aes256-gcm96", "derived": true, "exportable": true}},
		"make a key open to backup":        {"POST", m + "keys/NEW", map[string]any{"type": "aes256-gcm96", "derived": true, "allow_plaintext_backup": true}},
		"make a convergent key":            {"POST", m + "keys/NEW", map[string]any{"type": "aes256-gcm96", "derived": true, "convergent_encryption": true}},
		"make a key of another type":       {"POST", m + "keys/NEW", map[string]any{"type": "ecdsa-p256"}},
		"make a key that is not derived":   {"POST", m + "keys/NEW", map[string]any{"type": "aes256-gcm96", "derived": false}},
		"import an exportable key":         {"POST", m + "keys/NEW/import", bring(map[string]any{"exportable": true})},
		"import a key open to backup":      {"POST", m + "keys/NEW/import", bring(map[string]any{"allow_plaintext_backup": true})},
		"import a key of another type":     {"POST", m + "keys/NEW/import", bring(map[string]any{"type": "hmac"})},
		"import a key that is not derived": {"POST", m + "keys/NEW/import", bring(map[string]any{"derived": false})},
		"import without a word on derived": {"POST", m + "keys/NEW/import", bring(nil, "derived")},
		"import over a version":            {"POST", m + "keys/" + have + "/import_version", map[string]any{"ciphertext": blob, "version": 1}},
		"let a key be exported":            {"POST", m + "keys/root/config", map[string]any{"exportable": true}},
		"let a key be backed up":           {"POST", m + "keys/root/config", map[string]any{"allow_plaintext_backup": true}},
		"let a key be deleted":             {"POST", m + "keys/root/config", map[string]any{"deletion_allowed": true}},
		"trim":                             {"POST", m + "keys/root/trim", map[string]any{"min_available_version": 1}},
		"delete a key":                     {"DELETE", m + "keys/root", nil},
		"list keys":                        {"GET", m + "keys?list=true", nil},
		"switch the service on":            {"PUT", "sys/policies/acl/" + g.tenant.Policy, map[string]any{"policy": vaultpolicy.Daemon(g.tenant.Mount, "root")}},
		"give the service another policy":  {"PUT", "sys/policies/acl/" + g.tenant.Policy, map[string]any{"policy": "# switched off\npath \"*\" { capabilities = [\"sudo\"] }"}},
		"remove the service's policy":      {"DELETE", "sys/policies/acl/" + g.tenant.Policy, nil},
		"revoke anybody's token":           {"POST", "auth/token/revoke-accessor", map[string]any{"accessor": "x"}},
		"change the service's role":        {"POST", "auth/approle/role/" + g.tenant.Role, map[string]any{"token_policies": []string{"root"}}},
	})
	return &role{
		policy: vaultpolicy.CustodyOfficer(g.tenant.Mount, g.tenant.Policy),
		never:  never,
		steps: map[string]func(context.Context) error{
			"make both keys": func(ctx context.Context) error {
				_, err := a.Create(ctx, vaultact.NewKey{Name: g.name(), Kind: vaultact.Root}, vaultact.NewKey{Name: g.name(), Kind: vaultact.Sign})
				return err
			},
			"make a key that rotates by itself": func(ctx context.Context) error {
				_, err := a.Create(ctx, vaultact.NewKey{Name: g.name(), Kind: vaultact.Root, AutoRotate: 720 * time.Hour})
				return err
			},
			"make the root key with vault write": func(ctx context.Context) error {
				return g.ask(ctx, request{"PUT", m + "keys/NEW", map[string]any{"type": "aes256-gcm96", "derived": "true"}})
			},
			"look at a key": func(ctx context.Context) error {
				_, err := a.ReadKey(ctx, have)
				return err
			},
			"read the wrapping key": func(ctx context.Context) error {
				_, _, err := a.WrappingKey(ctx)
				return err
			},
			"import a key": func(ctx context.Context) error {
				_, err := a.Import(ctx, g.name(), vaultact.Brought{Material: material})
				return err
			},
			"import a key with vault write": func(ctx context.Context) error {
				return g.ask(ctx, request{"PUT", m + "keys/NEW/import", bring(map[string]any{"derived": "true"}, "hash_function")})
			},
			"import a version": func(ctx context.Context) error {
				name, err := imported(ctx)
				if err == nil {
					_, err = a.ImportVersion(ctx, name, vaultact.Brought{Material: material})
				}
				return err
			},
			"rotate": func(ctx context.Context) error {
				_, err := a.Rotate(ctx, "root", false)
				return err
			},
			"say which versions open": func(ctx context.Context) error {
				_, err := a.SetMinVersions(ctx, "root", vaultact.MinVersions{Decryption: 1})
				return err
			},
			"say which versions seal": func(ctx context.Context) error {
				_, err := a.SetMinVersions(ctx, "root", vaultact.MinVersions{Encryption: 2})
				return err
			},
			"say when a key rotates by itself": func(ctx context.Context) error {
				_, err := a.SetAutoRotate(ctx, "root", 720*time.Hour, false)
				return err
			},
			"switch the service off": func(ctx context.Context) error {
				return g.ask(ctx, request{"PUT", "sys/policies/acl/" + g.tenant.Policy, map[string]any{"policy": "# switched off\n"}})
			},
		},
		breaks: map[string]string{
			"MOUNT/wrapping_key":                             "read the wrapping key",
			"MOUNT/keys/+":                                   "look at a key",
			"MOUNT/keys/+ read":                              "look at a key",
			"MOUNT/keys/+ update":                            "make both keys",
			"MOUNT/keys/+ may only":                          "make an exportable key",
			"MOUNT/keys/+ may type":                          "make both keys",
			"MOUNT/keys/+ may type only":                     "make a key of another type",
			"MOUNT/keys/+ may type=\"aes256-gcm96\"":         "make both keys",
			"MOUNT/keys/+ may type=\"ed25519\"":              "make both keys",
			"MOUNT/keys/+ may derived":                       "make both keys",
			"MOUNT/keys/+ may derived only":                  "make a key that is not derived",
			"MOUNT/keys/+ may derived=true":                  "make both keys",
			"MOUNT/keys/+ may derived=\"true\"":              "make the root key with vault write",
			"MOUNT/keys/+ may auto_rotate_period":            "make a key that rotates by itself",
			"MOUNT/keys/+/rotate":                            "rotate",
			"MOUNT/keys/+/import":                            "import a key",
			"MOUNT/keys/+/import must derived":               "import without a word on derived",
			"MOUNT/keys/+/import may only":                   "import an exportable key",
			"MOUNT/keys/+/import may type":                   "import a key",
			"MOUNT/keys/+/import may type only":              "import a key of another type",
			"MOUNT/keys/+/import may derived":                "import a key",
			"MOUNT/keys/+/import may derived only":           "import a key that is not derived",
			"MOUNT/keys/+/import may derived=true":           "import a key",
			"MOUNT/keys/+/import may derived=\"true\"":       "import a key with vault write",
			"MOUNT/keys/+/import may allow_rotation":         "import a key",
			"MOUNT/keys/+/import may ciphertext":             "import a key",
			"MOUNT/keys/+/import may hash_function":          "import a key",
			"MOUNT/keys/+/import_version":                    "import a version",
			"MOUNT/keys/+/import_version may only":           "import over a version",
			"MOUNT/keys/+/import_version may ciphertext":     "import a version",
			"MOUNT/keys/+/import_version may hash_function":  "import a version",
			"MOUNT/keys/+/config":                            "say which versions open",
			"MOUNT/keys/+/config may only":                   "let a key be exported",
			"MOUNT/keys/+/config may min_decryption_version": "say which versions open",
			"MOUNT/keys/+/config may min_encryption_version": "say which versions seal",
			"MOUNT/keys/+/config may auto_rotate_period":     "say when a key rotates by itself",
			"sys/policies/acl/POLICY":                        "switch the service off",
			"sys/policies/acl/POLICY may only":               "give the service another policy",
			"sys/policies/acl/POLICY may policy only":        "give the service another policy",
		},
	}
}

func asDestroyer(t *testing.T, g *stage) *role {
	m := g.tenant.Mount + "/"
	a := g.act(t)
	prepared := func(ctx context.Context) (string, error) {
		name := g.name()
		return name, errors.Join(
			g.Request(ctx, http.MethodPost, m+"keys/"+name, map[string]any{"type": "aes256-gcm96", "derived": true}, nil),
			g.Request(ctx, http.MethodPost, m+"keys/"+name+"/rotate", nil, nil))
	}
	never := g.uses()
	maps.Copy(never, map[string]request{
		"make a key":              {"POST", m + "keys/NEW", map[string]any{"type": "aes256-gcm96"}},
		"rotate":                  {"POST", m + "keys/root/rotate", nil},
		"import a key":            {"POST", m + "keys/NEW/import", map[string]any{"ciphertext": "AAAA"}},
		"import a version":        {"POST", m + "keys/root/import_version", map[string]any{"ciphertext": "AAAA"}},
		"let a key be exported":   {"POST", m + "keys/sign/config", map[string]any{"exportable": true}},
		"let a key be backed up":  {"POST", m + "keys/sign/config", map[string]any{"allow_plaintext_backup": true}},
		"have Vault rotate a key": {"POST", m + "keys/sign/config", map[string]any{"auto_rotate_period": "1h"}},
		"list keys":               {"GET", m + "keys?list=true", nil},
		"read the wrapping key":   {"GET", m + "wrapping_key", nil},
		"switch the service off":  {"PUT", "sys/policies/acl/" + g.tenant.Policy, map[string]any{"policy": "# switched off\n"}},
	})
	return &role{
		policy: vaultpolicy.Destroyer(g.tenant.Mount),
		never:  never,
		steps: map[string]func(context.Context) error{
			"look at a key": func(ctx context.Context) error {
				_, err := a.ReadKey(ctx, "root")
				return err
			},
			"destroy old versions": func(ctx context.Context) error {
				name, err := prepared(ctx)
				if err == nil {
					_, err = a.Trim(ctx, name, 2)
				}
				return err
			},
			"destroy a key": func(ctx context.Context) error {
				name, err := prepared(ctx)
				if err == nil {
					_, err = a.Delete(ctx, name)
				}
				return err
			},
		},
		breaks: map[string]string{
			"MOUNT/keys/+":                                   "look at a key",
			"MOUNT/keys/+ read":                              "look at a key",
			"MOUNT/keys/+ delete":                            "destroy a key",
			"MOUNT/keys/+/trim":                              "destroy old versions",
			"MOUNT/keys/+/config":                            "destroy old versions",
			"MOUNT/keys/+/config may only":                   "let a key be exported",
			"MOUNT/keys/+/config may deletion_allowed":       "destroy a key",
			"MOUNT/keys/+/config may min_decryption_version": "destroy old versions",
			"MOUNT/keys/+/config may min_encryption_version": "destroy old versions",
		},
	}
}
