package vault_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/custodiantest"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vocab"
)

// TestHierarchyOnRealVault goes through a tenant key's life as its custodian
// sees it, with the whole of package keys above a real Vault: first generation,
// signing chain, trust bundle, rotation noticed, rewrapped inside Vault, the
// old version withdrawn, the customer's switch.
func TestHierarchyOnRealVault(t *testing.T) {
	s := vaulttest.Start(t)
	tn := vaulttest.Tenant(t, s, "contoso")
	v := open(t, tn.Config())
	must(t, v.Check(t.Context()))
	tenant, records := vocab.NewTenantID(), custodiantest.NewRecords()
	facts, err := v.Describe(t.Context())
	must(t, err)
	var ids []string
	ring, err := keys.NewRing(t.Context(), keys.RingConfig{
		Tenant: tenant, Custodians: []keys.Custodian{v}, Records: records,
		Roots: func() []ed25519.PublicKey { k, _ := facts.Sign.PublicKey(1); return []ed25519.PublicKey{k} },
		Observe: func(c keys.Call) {
			if c.Err == nil && len(c.RequestIDs) == 0 {
				t.Errorf("%s without request ID", c.Op)
			}
			ids = append(ids, c.RequestIDs...)
		},
	})
	must(t, err)
	defer ring.Close()
	_, err = ring.Sync(t.Context())
	must(t, err)
	_, err = ring.NewGeneration(t.Context())
	must(t, err)
	cached, err := ring.Active(t.Context())
	must(t, err)
	doc := vocab.ContentID{1}
	strict, err := ring.NewDocument(t.Context(), doc)
	must(t, err)

	chain := keys.NewChain(keys.ChainConfig{Tenant: tenant, Root: func(ctx context.Context) (license.Signer, error) { return keys.CurrentRoot(ctx, v) }})
	must(t, chain.Renew(t.Context()))
	signing, err := chain.Licenses()
	must(t, err)
	if signing.Certificate.Root != license.KeyIDOf(facts.Sign.Versions[0].PublicKey) {
		t.Error("the daemon's certificate is not the tenant root's")
	}

	must(t, tn.Rotate(t.Context(), "root"))
	must(t, tn.Rotate(t.Context(), "sign"))
	changes, err := ring.Sync(t.Context())
	must(t, err)
	if c := changes[v.ID()]; c.Err != nil || !c.RootRotated || !c.SignRotated {
		t.Errorf("Sync after a rotation: %+v", c)
	}
	mark, _ := records.Mark(t.Context(), v.ID())
	bundle, err := keys.NewBundle(t.Context(), v, changes[v.ID()].Facts, mark, license.Bundle{Tenant: tenant, Seq: 2, Suites: license.DefaultSuites()}, nil, nil, signing.Certificate.NotBefore)
	must(t, err)
	if len(bundle.Signers()) != 2 {
		t.Error("the root before does not vouch for the new one")
	}
	newest := keys.VersionID{Custodian: v.ID(), Version: 2}
	moved, err := ring.Rewrap(t.Context(), newest, 10, func(uint32) bool { return false }, func(changes []keys.WrapChange) error {
		recs, err := records.SetWraps(changes)
		for _, rec := range recs {
			ring.Take(rec)
		}
		return err
	})
	must(t, err)
	if len(moved) != 1 || moved[0].Err != nil || moved[0].To.Version != 2 {
		t.Fatalf("Rewrap: %+v", moved)
	}
	documents, err := ring.RewrapDocuments(t.Context(), newest, []keys.UnwrapItem{{Binding: keys.DocumentBinding(tenant, strict.Generation, doc), Wrap: strict.Wrap}})
	must(t, err)
	docMoved := documents[0]
	if must(t, docMoved.Err); !docMoved.Secret.Equal(strict.Secret) {
		t.Error("a document's new wrap opens to something else")
	}
	must(t, tn.Configure(t.Context(), "root", map[string]any{"min_decryption_version": 2}))
	ring.Flush()
	again, err := ring.Open(t.Context(), cached.Generation)
	must(t, err)
	if !again.Secret.Equal(cached.Secret) {
		t.Error("the generation changed")
	}
	k, err := ring.OpenDocument(t.Context(), doc, strict.Generation, docMoved.Wrap)
	must(t, err)
	if !k.Secret.Equal(strict.Secret) {
		t.Error("the document's generation changed")
	}
	if _, err := ring.OpenDocument(t.Context(), doc, strict.Generation, strict.Wrap); !errors.Is(err, vocab.ReasonKeyState) {
		t.Errorf("a wrap of the withdrawn version: %v", err)
	}

	must(t, tn.SetPolicy(t.Context(), ""))
	if _, err := ring.OpenDocument(t.Context(), doc, strict.Generation, docMoved.Wrap); !errors.Is(err, vocab.ReasonCustodianRefused) {
		t.Errorf("a document after the customer's switch: %v", err)
	}
	// What one document's refusal showed ends the cached generation as well.
	if _, err := ring.Open(t.Context(), cached.Generation); !errors.Is(err, vocab.ReasonCustodianRefused) {
		t.Errorf("a cached generation after the customer's switch: %v", err)
	}
	if err := ring.Recheck(again); err == nil {
		t.Error("a key lent before the switch is still good")
	}

	entries, err := s.ReadAudit()
	must(t, err)
	known := map[string]bool{}
	for _, e := range entries {
		known[e.Request.ID] = true
	}
	for _, id := range ids {
		if !known[id] {
			t.Errorf("Vault's audit does not know our request %s", id)
		}
	}
}
