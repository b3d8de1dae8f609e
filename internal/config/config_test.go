package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/vocab"
)

// A small valid configuration; each case below changes one thing of it.
const (
	validFile = `listen: 127.0.0.1:7443
data_dir: data
tls: {certificate: tls/server.pem, key: tls/server.key}
identity_providers:
  entra:
    issuer: https://login.contoso.test/v2.0
    audiences: [rms]
    addresses: {claims: [upn], domains: [contoso.test]}
  guests:
    issuer: https://accounts.fabrikam.test
    audiences: [rms]
tenants_dir: tenants.d
`
	validTenant = `id: contoso
domains: [contoso.test]
admins: ["user:alice@contoso.test"]
providers: [entra]
custodians: {keyring: {embedded: {}}}
`
	vaultTenant = `id: contoso
domains: [contoso.test]
admins: ["user:alice@contoso.test"]
providers: [entra]
custodians:
  vault:
    vault: {address: "https://vault.contoso.test:8200", mount: transit-contoso}
    token_file: token
`
)

// folder writes rmsd.yaml and tenants.d/NAME and returns the path of the
// first.
func folder(t *testing.T, file string, tenants map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tenants.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range tenants {
		write(filepath.Join(dir, "tenants.d", name), text)
	}
	path := filepath.Join(dir, "rmsd.yaml")
	write(path, file)
	return path
}

func TestLoadFillsInDefaultsAndResolvesPaths(t *testing.T) {
	path := folder(t, validFile, map[string]string{"contoso.yaml": validTenant})
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	data := filepath.Join(dir, "data")
	want := File{
		Listen: "127.0.0.1:7443", PublicName: "127.0.0.1:7443",
		DataDir: data, OperatorSocket: filepath.Join(data, "operator.sock"),
		TLS:        TLS{Certificate: filepath.Join(dir, "tls/server.pem"), Key: filepath.Join(dir, "tls/server.key")},
		TenantsDir: filepath.Join(dir, "tenants.d"),
		Limits:     Limits{PerCaller: DefaultPerCaller, PerTenant: DefaultPerTenant, Connections: DefaultConnections},
	}
	got := c.File
	got.IdentityProviders = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rmsd.yaml (-want +got):\n%s", diff)
	}
	ten := c.Tenants["contoso"]
	wantKeys := &Embedded{Keyring: filepath.Join(data, "keyring-contoso"), KeyFile: filepath.Join(data, "keyring-contoso.key")}
	if diff := cmp.Diff(wantKeys, ten.Custodians["keyring"].Embedded); diff != "" {
		t.Errorf("keyring (-want +got):\n%s", diff)
	}
	view := ten.Identity()
	if view.Name != "contoso" || view.GuestDomain != nil {
		t.Errorf("the identity view is of %q, with guest domains %v; the file admits no guest", view.Name, view.GuestDomain != nil)
	}
}

func TestLoadAcceptsFullTenant(t *testing.T) {
	c, err := Load(folder(t, validFile, map[string]string{"contoso.yaml": `id: contoso
domains: [contoso.test, contoso.example]
admins: ["user:alice@contoso.test", "group:it@contoso.test"]
roles:
  auditor: ["service:siem"]
  key-custodian: ["user:carla@contoso.test"]
providers: [entra]
guest_providers: [guests]
groups: {entra: {0b77-guid: finance@contoso.test}}
services: {siem: "spiffe://contoso.test/siem"}
custodians:
  keyring: {embedded: {}}
  usb: {embedded: {keyring: usb/keyring}}
  contoso-vault:
    vault: {address: "https://vault.contoso.test:8200", ca: ca.pem, mount: transit-contoso, timeout: 2s}
    approle: {role_id_file: role, secret_id_file: secret, wrapped: true, role: rmsd-contoso}
  other-mount:
    vault: {address: "https://vault.contoso.test:8200", mount: transit-contoso-2}
    token_file: token
  other-namespace:
    vault: {address: "https://vault.contoso.test:8200", mount: transit-contoso, namespace: contoso}
    token_file: token
`}))
	if err != nil {
		t.Fatal(err)
	}
	ten := c.Tenants["contoso"]
	vault := ten.Custodians["contoso-vault"]
	if got := vault.Vault.Timeout; got != 2*time.Second {
		t.Errorf("timeout is %s, want 2s", got)
	}
	for _, path := range []string{vault.Vault.CA, vault.AppRole.RoleIDFile, vault.AppRole.SecretIDFile, ten.Custodians["usb"].Embedded.Keyring} {
		if want := c.TenantsDir + string(filepath.Separator); !strings.HasPrefix(path, want) {
			t.Errorf("%s is not relative to the tenant's file in %s", path, want)
		}
	}
	group := ten.Identity().Group
	if address, ok := group("entra", "0b77-guid"); !ok || address != "finance@contoso.test" {
		t.Errorf("group of entra is %q, %v", address, ok)
	}
	if _, ok := group("guests", "0b77-guid"); ok {
		t.Error("a group of one provider was found under the same ID of another")
	}
}

func TestLoadPassesOverOtherNames(t *testing.T) {
	path := folder(t, validFile, map[string]string{
		"contoso.yaml": validTenant, "contoso.yaml~": "{", ".contoso.yaml": "{", "README": "{", "fabrikam.yaml.off": "{",
	})
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tenants) != 1 {
		t.Errorf("%d tenants, want 1", len(c.Tenants))
	}
}

func TestLoadRefuses(t *testing.T) {
	replace := func(s, old, with string) string {
		if !strings.Contains(s, old) {
			t.Fatalf("the case changes %q, which is not there", old)
		}
		return strings.Replace(s, old, with, 1)
	}
	inFile := func(old, with string) (string, map[string]string) {
		return replace(validFile, old, with), map[string]string{"contoso.yaml": validTenant}
	}
	inTenant := func(old, with string) (string, map[string]string) {
		return validFile, map[string]string{"contoso.yaml": replace(validTenant, old, with)}
	}
	inVault := func(old, with string) (string, map[string]string) {
		return validFile, map[string]string{"contoso.yaml": replace(vaultTenant, old, with)}
	}
	// twoTenants are apart but for what a case changes.
	twoTenants := func(first, second, old, with string) (string, map[string]string) {
		other := strings.ReplaceAll(second, "contoso", "fabrikam")
		return validFile, map[string]string{"contoso.yaml": first, "fabrikam.yaml": replace(other, old, with)}
	}
	type files = func() (string, map[string]string)
	for _, c := range []struct {
		name string
		make files
		want string // in the message
	}{
		{"unknown key", func() (string, map[string]string) { return inFile("listen:", "lisen: x\nlisten:") }, "lisen"},
		{"unknown key inside", func() (string, map[string]string) { return inFile("key: tls/server.key", "keyfile: x") }, "keyfile"},
		{"repeated key", func() (string, map[string]string) {
			return inFile("data_dir: data", "data_dir: data\nlisten: 0.0.0.0:1")
		}, "listen"},
		{"repeated key inside", func() (string, map[string]string) { return inFile("{certificate:", "{key: x, certificate:") }, "key"},
		{"alias", func() (string, map[string]string) {
			return inFile("tls: {certificate: tls/server.pem, key: tls/server.key}", "tls: {certificate: &a tls/server.pem, key: *a}")
		}, "line 3"},
		{"anchor alone", func() (string, map[string]string) { return inFile("data_dir: data", "data_dir: &a data") }, "anchors"},
		{"merge key", func() (string, map[string]string) {
			return inFile("data_dir: data", "<<: {data_dir: other}\ndata_dir: data")
		}, "merge keys"},
		{"two documents", func() (string, map[string]string) { return inFile("listen:", "listen: 127.0.0.1:1\n---\nlisten:") }, ""},
		{"second document at the end", func() (string, map[string]string) {
			return inFile("tenants_dir: tenants.d\n", "tenants_dir: tenants.d\n---\n{}\n")
		}, "more than one document"},
		{"empty", func() (string, map[string]string) { return "", nil }, "empty"},
		{"comments only", func() (string, map[string]string) { return "# nothing\n", nil }, "empty"},
		{"a list", func() (string, map[string]string) { return "- a\n", nil }, ""},
		{"not YAML", func() (string, map[string]string) { return "listen: [", nil }, ""},
		{"not UTF-8", func() (string, map[string]string) { return "listen: \xff\n", nil }, ""},
		{"oversize", func() (string, map[string]string) { return validFile + strings.Repeat("#", maxFile), nil }, "larger than"},
		{"no listen", func() (string, map[string]string) { return inFile("listen: 127.0.0.1:7443\n", "") }, "listen is required"},
		{"listen without port", func() (string, map[string]string) { return inFile("127.0.0.1:7443", "127.0.0.1") }, "listen"},
		{"public name without port", func() (string, map[string]string) {
			return inFile("data_dir", "public_name: rms.contoso.test\ndata_dir")
		}, "public_name"},
		{"no data directory", func() (string, map[string]string) { return inFile("data_dir: data\n", "") }, "data_dir is required"},
		{"no key", func() (string, map[string]string) { return inFile(", key: tls/server.key", "") }, "tls.key is required"},
		{"no tenants directory", func() (string, map[string]string) { return inFile("tenants_dir: tenants.d\n", "") }, "tenants_dir is required"},
		{"tenants directory that is not there", func() (string, map[string]string) { return inFile("tenants.d", "elsewhere") }, "tenants_dir"},
		{"no provider", func() (string, map[string]string) {
			return validFile[:strings.Index(validFile, "identity_providers")] + "tenants_dir: tenants.d\n", nil
		}, "identity_providers"},
		{"provider over http", func() (string, map[string]string) { return inFile("https://login", "http://login") }, "https"},
		{"provider without audience", func() (string, map[string]string) { return inFile("audiences: [rms]", "audiences: []") }, "audiences"},
		{"negative limit", func() (string, map[string]string) { return inFile("listen:", "limits: {per_caller: -1}\nlisten:") }, "per_caller"},
		{"limit that is no number", func() (string, map[string]string) { return inFile("listen:", "limits: {per_tenant: .nan}\nlisten:") }, "per_tenant"},
		{"infinite limit", func() (string, map[string]string) { return inFile("listen:", "limits: {per_tenant: .inf}\nlisten:") }, "per_tenant"},
		{"negative connections", func() (string, map[string]string) { return inFile("listen:", "limits: {connections: -1}\nlisten:") }, "connections"},

		{"ID is not the file's name", func() (string, map[string]string) { return inTenant("id: contoso", "id: fabrikam") }, "fabrikam"},
		{"name that is no name", func() (string, map[string]string) {
			return validFile, map[string]string{"Contoso.yaml": replace(validTenant, "id: contoso", "id: Contoso")}
		}, "not a name"},
		{"unknown key of a tenant", func() (string, map[string]string) { return inTenant("admins:", "administrators: []\nadmins:") }, "administrators"},
		{"alias in a tenant", func() (string, map[string]string) {
			return inTenant("domains: [contoso.test]", "domains: &d [contoso.test]")
		}, "anchors"},
		{"no admins", func() (string, map[string]string) {
			return inTenant("admins: [\"user:alice@contoso.test\"]\n", "")
		}, "required"},
		{"no domains", func() (string, map[string]string) { return inTenant("domains: [contoso.test]\n", "") }, "required"},
		{"no providers", func() (string, map[string]string) { return inTenant("providers: [entra]\n", "") }, "required"},
		{"domain in capitals", func() (string, map[string]string) { return inTenant("[contoso.test]", "[Contoso.test]") }, "domains"},
		{"unknown provider", func() (string, map[string]string) { return inTenant("[entra]", "[okta]") }, "okta"},
		{"unknown guest provider", func() (string, map[string]string) {
			return inTenant("custodians", "guest_providers: [okta]\ncustodians")
		}, "okta"},
		{"anyone is admin", func() (string, map[string]string) { return inTenant("user:alice@contoso.test", "anyone") }, "too wide"},
		{"a domain is admin", func() (string, map[string]string) { return inTenant("user:alice@contoso.test", "domain:contoso.test") }, "too wide"},
		{"a tenant is admin", func() (string, map[string]string) { return inTenant("user:alice@contoso.test", "tenant:contoso") }, "too wide"},
		{"admin that is no principal", func() (string, map[string]string) { return inTenant("user:alice@contoso.test", "alice") }, ""},
		{"anyone is auditor", func() (string, map[string]string) {
			return inTenant("custodians", "roles: {auditor: [anyone]}\ncustodians")
		}, "too wide"},
		{"unknown role", func() (string, map[string]string) {
			return inTenant("custodians", "roles: {root: [\"user:a@contoso.test\"]}\ncustodians")
		}, "root"},
		{"tenant-admin as a role", func() (string, map[string]string) {
			return inTenant("custodians", "roles: {tenant-admin: [\"user:a@contoso.test\"]}\ncustodians")
		}, "admins"},
		{"groups of a foreign provider", func() (string, map[string]string) {
			return inTenant("custodians", "groups: {guests: {g: a@contoso.test}}\ncustodians")
		}, "guests"},
		{"group address in capitals", func() (string, map[string]string) {
			return inTenant("custodians", "groups: {entra: {g: A@contoso.test}}\ncustodians")
		}, "lower case"},
		{"service of a foreign provider", func() (string, map[string]string) {
			return inTenant("custodians", "services: {dms: {provider: guests, subject: s}}\ncustodians")
		}, "guests"},
		{"service of nobody", func() (string, map[string]string) { return inTenant("custodians", "services: {dms: }\ncustodians") }, "dms"},
		{"service of two kinds", func() (string, map[string]string) {
			return inTenant("custodians", "services: {dms: {provider: entra, uri: \"spiffe://x/y\"}}\ncustodians")
		}, "uri"},

		{"no custodians", func() (string, map[string]string) { return inTenant("custodians: {keyring: {embedded: {}}}", "") }, "between 1 and 16"},
		{"no custodian among them", func() (string, map[string]string) { return inTenant("{keyring: {embedded: {}}}", "{}") }, "between 1 and 16"},
		{"seventeen custodians", func() (string, map[string]string) {
			var all []string
			for i := range 17 {
				all = append(all, fmt.Sprintf("k%d: {embedded: {keyring: k%d}}", i, i))
			}
			return inTenant("{keyring: {embedded: {}}}", "{"+strings.Join(all, ", ")+"}")
		}, "not 17"},
		{"custodian as it was written once", func() (string, map[string]string) {
			return inTenant("custodians: {keyring: {embedded: {}}}", "custodian: {embedded: {}}")
		}, "line 5: custodian is not a key any more: write the same block under custodians, with a name of yours, as custodians: {NAME: …}"},
		{"key names as they were written once", func() (string, map[string]string) {
			return inVault("mount: transit-contoso", "mount: transit-contoso, root: mine")
		}, "line 7: root is not a key any more: the names of keys are registered"},
		{"custodian without a name", func() (string, map[string]string) { return inTenant("{keyring:", "{\"\":") }, "not a name"},
		{"custodian named in capitals", func() (string, map[string]string) { return inTenant("{keyring:", "{Keyring:") }, "not a name"},
		{"custodian of no kind", func() (string, map[string]string) { return inTenant("{embedded: {}}", "{}") }, "custodians.keyring: name vault or embedded"},
		{"custodian that is nothing", func() (string, map[string]string) { return inTenant("{embedded: {}}", "") }, "vault or embedded"},
		{"the same mount twice", func() (string, map[string]string) {
			return inVault("  vault:\n", "  again:\n    vault: {address: \"https://Vault.contoso.test:8200/\", mount: /transit-contoso}\n    token_file: token2\n  vault:\n")
		}, "again and vault share the Vault mount"},
		{"the same keyring twice", func() (string, map[string]string) {
			return inTenant("{keyring: {embedded: {}}}", "{keyring: {embedded: {}}, other: {embedded: {}}}")
		}, "keyring and other share the keyring"},
		{"the same key file twice", func() (string, map[string]string) {
			return inTenant("{keyring: {embedded: {}}}", "{keyring: {embedded: {keyring: a, key_file: k}}, other: {embedded: {keyring: b, key_file: ./k}}}")
		}, "keyring and other share the keyring or key file"},
		{"the same wrapped secret ID twice", func() (string, map[string]string) {
			login := "approle: {role_id_file: r, secret_id_file: s, wrapped: true, role: rms}"
			file, tenants := inVault("token_file: token", login)
			tenants["contoso.yaml"] += "  again:\n    vault: {address: \"https://vault.contoso.test:8200\", mount: transit-two}\n    " + login + "\n"
			return file, tenants
		}, "share the wrapped secret ID"},
		{"two custodians", func() (string, map[string]string) { return inVault("token_file: token", "embedded: {}") }, "exclude"},
		{"token beside the keyring", func() (string, map[string]string) { return inTenant("{embedded: {}}", "{embedded: {}, token_file: t}") }, "go with vault"},
		{"keyring and key in one file", func() (string, map[string]string) {
			return inTenant("{embedded: {}}", "{embedded: {keyring: k, key_file: ./k}}")
		}, "same file"},
		{"vault without sign-in", func() (string, map[string]string) { return inVault("    token_file: token\n", "") }, "approle or token_file"},
		{"vault with two sign-ins", func() (string, map[string]string) {
			return inVault("token_file: token", "token_file: token\n    approle: {role_id_file: a, secret_id_file: b}")
		}, "approle or token_file"},
		{"approle without secret", func() (string, map[string]string) { return inVault("token_file: token", "approle: {role_id_file: a}") }, "secret_id_file"},
		{"wrapped without role", func() (string, map[string]string) {
			return inVault("token_file: token", "approle: {role_id_file: a, secret_id_file: b, wrapped: true}")
		}, "role"},
		{"vault without mount", func() (string, map[string]string) { return inVault(", mount: transit-contoso", "") }, "mount"},
		{"vault over http", func() (string, map[string]string) { return inVault("https://vault", "http://vault") }, "https://"},
		{"vault with a password in the address", func() (string, map[string]string) { return inVault("https://", "https://u:p@") }, "of the form"},
		{"negative timeout", func() (string, map[string]string) { return inVault("mount:", "timeout: -1s, mount:") }, "timeout"},

		{"shared domain", func() (string, map[string]string) {
			return twoTenants(validTenant, validTenant, "domains: [fabrikam.test]", "domains: [fabrikam.test, contoso.test]")
		}, "both claim"},
		{"shared mount", func() (string, map[string]string) {
			return twoTenants(vaultTenant, vaultTenant, `"https://vault.fabrikam.test:8200", mount: transit-fabrikam`, `"https://vault.contoso.test:8200", mount: transit-contoso`)
		}, "share the Vault mount"},
		{"shared mount, written otherwise", func() (string, map[string]string) {
			return twoTenants(vaultTenant, vaultTenant, `"https://vault.fabrikam.test:8200", mount: transit-fabrikam`, `"https://VAULT.contoso.test:8200/", mount: transit-contoso/`)
		}, "share the Vault mount"},
		{"shared mount of a second custodian", func() (string, map[string]string) {
			two := "custodians: {keyring: {embedded: {}}, more: {token_file: t, vault: {address: \"https://vault.contoso.test:8200\", mount: transit-contoso}}}"
			return twoTenants(vaultTenant, validTenant, "custodians: {keyring: {embedded: {}}}", two)
		}, "share the Vault mount"},
		{"shared keyring", func() (string, map[string]string) {
			return twoTenants(replace(validTenant, "{}", "{keyring: k}"), validTenant, "{}", "{keyring: ../tenants.d/./k}")
		}, "share"},
		{"shared key file", func() (string, map[string]string) {
			return twoTenants(replace(validTenant, "{}", "{key_file: k}"), validTenant, "{}", "{key_file: k}")
		}, "share"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file, tenants := c.make()
			path := folder(t, file, tenants)
			got, err := Load(path)
			if vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
				t.Fatalf("error %v, want CONFIGURATION_INVALID", err)
			}
			if got != nil {
				t.Error("a configuration came with the error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q does not say %q", err, c.want)
			}
			shared := strings.Contains(c.name, "shared") || strings.Contains(err.Error(), "tenants_dir:")
			if !shared && !strings.Contains(err.Error(), filepath.Dir(path)) {
				t.Errorf("%q does not name the file", err)
			}
		})
	}
}

// The pair the cases of two tenants start from must itself be accepted, or
// they would be refused for something else.
func TestLoadAcceptsTwoTenantsApart(t *testing.T) {
	for name, text := range map[string]string{"embedded": validTenant, "vault": vaultTenant} {
		t.Run(name, func(t *testing.T) {
			c, err := Load(folder(t, validFile, map[string]string{
				"contoso.yaml": text, "fabrikam.yaml": strings.ReplaceAll(text, "contoso", "fabrikam"),
			}))
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Tenants) != 2 {
				t.Errorf("%d tenants, want 2", len(c.Tenants))
			}
		})
	}
}

func TestLoadOfNothing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "rmsd.yaml"))
	if vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
		t.Errorf("error %v, want CONFIGURATION_INVALID", err)
	}
}

func TestSecretFile(t *testing.T) {
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		want, refused string
	}{
		{"owner only", "TEST-secret\n", 0o600, "TEST-secret", ""},
		{"group may read", "TEST-secret", 0o640, "TEST-secret", ""},
		{"everyone may read", "TEST-secret", 0o644, "", "chmod 0600"},
		{"everyone may write", "TEST-secret", 0o602, "", "chmod 0600"},
		{"line break of Windows", "TEST-secret\r\n", 0o600, "TEST-secret", ""},
		{"spaces belong to it", " TEST secret ", 0o400, " TEST secret ", ""},
		{"empty", "", 0o600, "", "empty"},
		{"a line break alone", "\n", 0o600, "", "empty"},
		{"too large", strings.Repeat("x", maxFile+1), 0o600, "", "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			got, err := SecretFile(path)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (err != nil) != (c.refused != "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("error %v, want one that says %q", err, c.refused)
			}
			if err != nil && strings.Contains(err.Error(), "TEST") {
				t.Errorf("%q shows the secret", err)
			}
		})
	}
	if _, err := SecretFile(filepath.Join(t.TempDir(), "none")); vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
		t.Errorf("error %v, want CONFIGURATION_INVALID", err)
	}
}
