package config

import (
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
		"services: {a: {provider: p, provider: q}}", "custodian: {vault: {timeout: 3s}}", "limits: {per_caller: .nan}",
		"custodian: {vault: {timeout: 9999999999h}}", "services: {a: [b]}", "services: {a: }", "groups: {p: {g: a@b.test}}", "\xff", "id: \"\\0\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var file File
		if decode(b, &file) == nil {
			again(t, file)
		}
		var tenant Tenant
		if decode(b, &tenant) == nil {
			_ = tenant.check(&Config{})
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
