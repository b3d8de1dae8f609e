package attack

import (
	"path/filepath"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/storeedit"
)

// TestCustodySwap exchanges wrapped keys in the store, under a daemon whose
// tenants' keys are in a real Vault: between documents, generations, tenants.
// The log's rows are edited to agree, so that what refuses is the custody: the
// binding inside each wrapped key, and Vault's context.
func TestCustodySwap(t *testing.T) {
	vault := vaulttest.Start(t)
	tenants := map[string]*realvault.Tenant{contoso: vaulttest.Tenant(t, vault, contoso), fabrikam: vaulttest.Tenant(t, vault, fabrikam)}
	custodian := func(v *realvault.Tenant) config.Custodian {
		return config.Custodian{
			Vault:   &config.Vault{Address: vault.Address, CA: vault.CAFile, Mount: v.Mount, ClusterID: vault.ClusterID},
			AppRole: &config.AppRole{RoleIDFile: v.RoleIDFile, SecretIDFile: v.SecretIDFile, Wrapped: true, Role: v.Role},
		}
	}
	s := newSite(t, map[string]config.Custodian{contoso: custodian(tenants[contoso]), fabrikam: custodian(tenants[fabrikam])})
	restart := func(t *testing.T) {
		t.Helper()
		for _, v := range tenants {
			must(t, v.Deliver(t.Context()))
		}
		s.start()
	}
	view := rmsv1.Right_RIGHT_VIEW
	alice, frank := s.person("alice"), s.as(fabrikam, "frank")
	strict := func(c *caller, to string) *document {
		tmpl := templateOf("strict", grant(to, view))
		tmpl.CustodyMode = rmsv1.CustodyMode_CUSTODY_MODE_STRICT
		_, err := c.policy().CreateTemplate(c.ctx(), &rmsv1.CreateTemplateRequest{Parent: c.parent(), TemplateId: "strict", Template: tmpl})
		if r := refused(err); r != nil && r.reason != vocab.ReasonResourceExists {
			t.Fatal(r)
		}
		return c.publish("strict")
	}
	a, b := strict(alice, "user:bob@contoso.test"), strict(alice, "user:bob@contoso.test")
	foreign := strict(frank, "user:frank@fabrikam.test")
	cached := alice.publish("", grant("user:bob@contoso.test", view))
	s.person("bob").wantOpens(t, a)
	s.person("bob").wantOpens(t, cached)
	s.stop()
	newest := s.snapshot(t)

	licenseKey := func(tenant string, d *document) []byte {
		return storeedit.Key(s.trust[tenant].TenantID, d.content[:])
	}
	generationWrap := func(t *testing.T, tx *bbolt.Tx, tenant string) cbor.RawMessage {
		return storeedit.BodyOf(t, tx, s.trust[tenant].TenantID, "generations/1")[storeedit.GenerationWrap]
	}
	forgeGeneration := func(t *testing.T, tx *bbolt.Tx, edit func(h header)) {
		storeedit.ForgeBody(t, tx, filepath.Join(s.Dir, "data"), s.trust[contoso].TenantID, "generations/1", edit)
	}
	for name, attack := range map[string]struct {
		edit func(t *testing.T, tx *bbolt.Tx)
		doc  *document
		want vocab.Reason
	}{
		"between two strict documents": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := storeedit.WrapOf(t, tx, tableLicenses, licenseKey(contoso, b), recordWrap)
			s.forgeRecord(t, tx, a, func(h header) { h[recordWrap] = wrap })
		}, a, vocab.ReasonCustodyIntegrity},
		"a document's and the tenant's generation": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := generationWrap(t, tx, contoso)
			s.forgeRecord(t, tx, a, func(h header) { h[recordWrap] = wrap })
		}, a, vocab.ReasonCustodyIntegrity},
		"the tenant's generation and a document's": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := storeedit.WrapOf(t, tx, tableLicenses, licenseKey(contoso, a), recordWrap)
			forgeGeneration(t, tx, func(h header) { h[storeedit.GenerationWrap] = wrap })
		}, cached, vocab.ReasonCustodyIntegrity},
		"with another tenant's document": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := storeedit.WrapOf(t, tx, tableLicenses, licenseKey(fabrikam, foreign), recordWrap)
			s.forgeRecord(t, tx, a, func(h header) { h[recordWrap] = wrap })
		}, a, vocab.ReasonKeyState}, // it names a key that is not the tenant's
		"with another tenant's document, as if under one's own key": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := storeedit.Renamed(t, storeedit.WrapOf(t, tx, tableLicenses, licenseKey(fabrikam, foreign), recordWrap), storeedit.WrapOf(t, tx, tableLicenses, licenseKey(contoso, a), recordWrap))
			s.forgeRecord(t, tx, a, func(h header) { h.Set(t, recordWrap, wrap) })
		}, a, vocab.ReasonCustodyIntegrity},
		"with another tenant's generation": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := generationWrap(t, tx, fabrikam)
			forgeGeneration(t, tx, func(h header) { h[storeedit.GenerationWrap] = wrap })
		}, cached, vocab.ReasonKeyState},
		"with another tenant's generation, as if under one's own key": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := storeedit.Renamed(t, generationWrap(t, tx, fabrikam), generationWrap(t, tx, contoso))
			forgeGeneration(t, tx, func(h header) { h.Set(t, storeedit.GenerationWrap, wrap) })
		}, cached, vocab.ReasonCustodyIntegrity},
		"another version of the key named": {func(t *testing.T, tx *bbolt.Tx) {
			w := storeedit.ParseWrap(t, storeedit.WrapOf(t, tx, tableLicenses, licenseKey(contoso, a), recordWrap))
			w.L0Version = 7
			s.forgeRecord(t, tx, a, func(h header) { h.Set(t, recordWrap, w.Encode()) })
		}, a, vocab.ReasonCustodianChanged},
	} {
		t.Run(name, func(t *testing.T) {
			s.tb = t
			newest()
			s.editStore(t, func(tx *bbolt.Tx) { attack.edit(t, tx) })
			restart(t)
			defer s.stop()
			got, err := s.person("bob").acquire(attack.doc.pl)
			r := wantRefused(t, got, err, attack.want)
			s.recorded(t, r, attack.want != vocab.ReasonKeyState)
		})
	}
	t.Run("untouched, all open", func(t *testing.T) {
		s.tb = t
		newest()
		restart(t)
		defer s.stop()
		for _, d := range []*document{a, b, cached} {
			s.person("bob").wantOpens(t, d)
		}
	})
}

// forgeRecord edits a record of contoso's so that its log agrees.
func (s *site) forgeRecord(t *testing.T, tx *bbolt.Tx, d *document, edit func(h header)) {
	t.Helper()
	storeedit.ForgeRecord(t, tx, filepath.Join(s.Dir, "data"), s.trust[contoso].TenantID, d.content, edit)
}

// forgeTree makes contoso's tree agree with its events.
func (s *site) forgeTree(t *testing.T, tx *bbolt.Tx) {
	t.Helper()
	storeedit.ForgeTree(t, tx, filepath.Join(s.Dir, "data"), s.trust[contoso].TenantID)
}
