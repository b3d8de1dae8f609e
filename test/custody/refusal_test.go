package custody_test

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/tenant/tenanttest"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
)

// TestRefusalRehearsed has a tenant watch a canary key in a real Vault while its
// policy there is withdrawn: the next use is refused, what is held in memory ends
// within the promise, and Vault's audit file has the refusal under the ID that the
// log names.
func TestRefusalRehearsed(t *testing.T) {
	server := vaulttest.Start(t)
	place := vaulttest.Tenant(t, server, "canary")
	dir := t.TempDir()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	custodians := tenanttest.Embedded(func(id vocab.CustodianID) (keys.Custodian, error) {
		return embedded.Create(embedded.Config{ID: id, Path: filepath.Join(dir, "keyring"), KeyFile: filepath.Join(dir, "key")})
	})
	log := audit.New(s)
	o, err := tenant.Open(t.Context(), tenant.Deps{
		File: config.Tenant{
			ID: "contoso", Domains: []string{"contoso.test"}, Admins: []vocab.Principal{{Kind: vocab.KindUser, Value: "alice@contoso.test"}},
			Roles: map[vocab.Role][]vocab.Principal{vocab.RoleKeyCustodian: {{Kind: vocab.KindUser, Value: "carla@contoso.test"}}},
		},
		Store: s, Log: log, Custodians: custodians, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	if err := o.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	custodians.Add("vault", keys.KindVault, func(id vocab.CustodianID) (keys.Custodian, error) { return vault.Open(place.Config(id)) })
	call := func(name string) tenant.Call {
		return tenant.Call{Method: "test", Caller: &vocab.Identity{
			Issuer: "https://idp.contoso.test", Subject: name, Provider: "contoso", Addresses: []string{name + "@contoso.test"}, Member: "contoso",
		}}
	}
	short := func(s *record.Settings) error { s.CacheTTL = keys.MinTTL; return nil }
	if _, _, err := o.UpdateSettings(t.Context(), call("alice"), 0, true, short); err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.RegisterKey(t.Context(), call("carla"), tenant.Registration{Name: "canary", Custodian: "vault"}); err != nil {
		t.Fatal(err)
	}

	var looks []tenant.Look
	var withdrawn time.Time
	r, event, err := o.RehearseRefusal(t.Context(), call("carla"), "canary", time.Minute, func(vocab.EventID) {}, func(l tenant.Look) error {
		looks = append(looks, l)
		if len(looks) == 3 {
			withdrawn = time.Now()
			return place.SetPolicy(t.Context(), "")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Refused.Before(withdrawn) || r.Refused.Sub(r.LastUse) > 2*time.Second || !r.Stopped || r.CachedDelay > r.Promised || r.Promised != keys.MinTTL {
		t.Errorf("%+v, withdrawn at %s", r, withdrawn)
	}
	for i, l := range looks {
		if got := vocab.ReasonOf(l.Strict); i >= 3 && got != vocab.ReasonCustodianRefused || i < 3 && l.Strict != nil {
			t.Errorf("look %d at the custodian: %v", i, l.Strict)
		}
	}
	e, err := log.Get(t.Context(), o.ID(), event)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := server.ReadAudit()
	if err != nil {
		t.Fatal(err)
	}
	opened := slices.ContainsFunc(entries, func(a realvault.AuditEntry) bool {
		return a.Request.ID == looks[0].Request && a.Request.Path == place.Mount+"/decrypt/root" && a.Error == ""
	})
	if e.Event.Kind != audit.KindRehearsed || !opened {
		t.Errorf("the event is %s %q, and Vault's audit file has the first look: %t", e.Event.Kind, e.Event.Detail, opened)
	}
	// Given back, it can be rehearsed again.
	if err := place.SetPolicy(t.Context(), vaultpolicy.Daemon(place.Mount)); err != nil {
		t.Fatal(err)
	}
	again, _, err := o.RehearseRefusal(t.Context(), call("carla"), "canary", 0, func(vocab.EventID) {}, func(tenant.Look) error { return nil })
	if err != nil || !again.Refused.IsZero() {
		t.Errorf("given back: %+v, %v", again, err)
	}
}
