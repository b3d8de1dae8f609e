package server

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/tenant/tenanttest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// openTenant serves a tenant whose file names alice tenant-admin and bob
// auditor.
func openTenant(t *testing.T) *tenant.Tenant {
	t.Helper()
	dir := t.TempDir()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	user := func(name string) []vocab.Principal {
		return []vocab.Principal{{Kind: vocab.KindUser, Value: name + "@contoso.test"}}
	}
	out, err := tenant.Open(t.Context(), tenant.Deps{
		File: config.Tenant{
			ID: "contoso", Domains: []string{"contoso.test"}, Admins: user("alice"), Roles: map[vocab.Role][]vocab.Principal{vocab.RoleAuditor: user("bob")},
		},
		Store: s, Log: audit.New(s), Logger: slog.New(slog.DiscardHandler),
		Custodians: tenanttest.Embedded(func(id vocab.CustodianID) (keys.Custodian, error) {
			return embedded.Create(embedded.Config{ID: id, Path: filepath.Join(dir, "keyring"), KeyFile: filepath.Join(dir, "keyring.key")})
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return out
}

// What a call read does not leave if its caller was disabled, or lost the role,
// since the door let them in.
func TestWhatWasReadIsWithheldFromWhoWasStopped(t *testing.T) {
	own := openTenant(t)
	person := func(name string) *vocab.Identity {
		return &vocab.Identity{Issuer: "https://idp.contoso.test", Subject: name, Addresses: []string{name + "@contoso.test"}, Member: "contoso"}
	}
	d := &door{log: slog.New(slog.DiscardHandler)}
	calls := map[string]*call{
		"what everyone may": {access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_SIGNED_IN}, authorized: true},
		"what a role may":   {access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_ROLE}, authorized: true, byRole: true, roles: []vocab.Role{vocab.RoleAuditor}},
		"what an owner may": {access: &rmsv1.Access{Level: rmsv1.Access_LEVEL_OWNER}, authorized: true},
	}
	leave := func(want map[string]vocab.Reason) {
		t.Helper()
		for what, c := range calls {
			again := *c
			again.tenant, again.caller = own, person("bob")
			if got := vocab.ReasonOf(d.leave(again.admitted(t.Context()), &again)); got != want[what] {
				t.Errorf("%s: %q, want %q", what, got, want[what])
			}
		}
	}
	alice := tenant.Call{Caller: person("alice"), Method: "test"}
	bob := vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.test"}
	leave(nil)
	if _, _, err := own.DisablePrincipal(t.Context(), alice, bob, ""); err != nil {
		t.Fatal(err)
	}
	disabled := vocab.ReasonPrincipalDisabled
	leave(map[string]vocab.Reason{"what everyone may": disabled, "what a role may": disabled, "what an owner may": disabled})
	if _, _, err := own.EnablePrincipal(t.Context(), alice, bob); err != nil {
		t.Fatal(err)
	}
	if _, _, err := own.RevokeRole(t.Context(), alice, vocab.RoleAuditor, bob); err != nil {
		t.Fatal(err)
	}
	leave(map[string]vocab.Reason{"what a role may": vocab.ReasonRoleRequired})
}
