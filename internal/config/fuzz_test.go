package config

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/identity"
)

// FuzzDecode looks for panics, and for a file that is accepted but is not the
// same when it is written out and read again: what is read must be all there
// is.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		validFile, validTenant, vaultTenant, "", "null", "{}", "- a", "listen: [", "a: &a b", "<<: {id: x}", "id: a\n---\nid: b",
		"id: a\nid: b", "id: !!binary aGk=", "roles: {auditor: [anyone]}", "services: {a: spiffe://x/y, b: {provider: p, subject: s}}",
		"services: {a: {provider: p, provider: q}}", "custodians: {a: {vault: {timeout: 3s}}}", "custodian: {embedded: {}}", "custodians: {a: {vault: {root: r}}}", "custodians: [a]", "custodians: {a: [b], c: }", "limits: {per_caller: .nan}",
		"custodians: {a: {vault: {timeout: 9999999999h}}}", "services: {a: [b]}", "services: {a: }", "groups: {p: {g: a@b.test}}", "\xff", "id: \"\\0\"",
	} {
		f.Add([]byte(seed))
	}
	for _, c := range [][2]string{
		{"{embedded: {}}", "{}"}, {"{embedded: {}}", "{embedded: {keyring: a, key_file: a}}"}, {"{embedded: {}}", "{embedded: {}, token_file: t}"},
		{"{embedded: {}}", "{embedded: {}, vault: {}}"}, {"{embedded: {}}", "{vault: {address: \"https://v.test\"}}"},
		{"custodians: {keyring: {embedded: {}}}", "custodians: {A: {embedded: {}}}"}, {"custodians: {keyring: {embedded: {}}}", "custodians: {}"},
		{"{embedded: {}}", "{embedded: {keyring: a, key_file: b}}"},
		{"{embedded: {}}", "{embedded: {keyring: a, key_file: b}}, more: {embedded: {keyring: b, key_file: c}}"},
		{"providers: [entra]", "providers: [entra]\nroles: {boss: [\"user:a@contoso.test\"]}"},
		{"providers: [entra]", "providers: [entra]\nroles: {auditor: [\"domain:contoso.test\"]}"},
		{"user:alice@contoso.test", "domain:contoso.test"}, {"providers: [entra]", "providers: [other]"},
		{"providers: [entra]", "providers: [entra]\ngroups: {entra: {g: a@contoso.test}}"},
		{"providers: [entra]", "providers: [entra]\ngroups: {entra: {g: A@contoso.test}}"},
		{"providers: [entra]", "providers: [entra]\ngroups: {guests: {g: a@contoso.test}}"},
	} {
		f.Add([]byte(strings.Replace(validTenant, c[0], c[1], 1)))
	}
	for _, c := range [][2]string{
		{"https://vault", "http://vault"}, {"https://vault.contoso.test:8200", "http://127.0.0.1:8200"}, {"https://vault.contoso.test:8200", "vault"},
		{"token_file: token", "approle: {role_id_file: r, secret_id_file: s}"}, {"token_file: token", "approle: {role_id_file: r}"},
		{"token_file: token", "approle: {role_id_file: r, secret_id_file: s, wrapped: true}"},
		{"token_file: token", "approle: {role_id_file: r, secret_id_file: s, wrapped: true, role: rms}"}, {"    token_file: token\n", ""}, {"mount: ", "timeout: -1s, mount: "},
	} {
		f.Add([]byte(strings.Replace(vaultTenant, c[0], c[1], 1)))
	}
	var known Config
	if err := decode([]byte(validFile), &known.File); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var file File
		if decode(b, &file) == nil {
			again(t, file)
		}
		var tenant Tenant
		if decode(b, &tenant) == nil {
			_ = tenant.check(&known)
			for _, match := range tenant.Services {
				if match == (identity.ServiceMatch{}) {
					return // a service without a value; the check refuses it
				}
			}
			again(t, tenant)
		}
	})
}

func again[T any](t *testing.T, v T) {
	t.Helper()
	written, err := yaml.Marshal(v)
	if err != nil {
		t.Fatalf("what was read cannot be written: %v", err)
	}
	var back T
	if err := decode(written, &back); err != nil {
		t.Fatalf("what was read cannot be read again: %v\n%s", err, written)
	}
	twice, err := yaml.Marshal(back)
	if err != nil || string(twice) != string(written) {
		t.Fatalf("written %q, then %q (%v)", written, twice, err)
	}
}
