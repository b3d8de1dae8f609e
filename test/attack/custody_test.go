package attack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
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
		id := s.trust[tenant].TenantID
		return append(bytes.Clone(id[:]), d.content[:]...)
	}
	wrapOf := func(t *testing.T, tx *bbolt.Tx, table string, key []byte, field uint64) cbor.RawMessage {
		h := header{}
		must(t, cbor.Unmarshal(row(t, tx, table, key), &h))
		return h[field]
	}
	generation := func(tenant string, number uint32) []byte {
		id := s.trust[tenant].TenantID
		return binary.BigEndian.AppendUint32(bytes.Clone(id[:]), number)
	}
	for name, attack := range map[string]struct {
		edit func(t *testing.T, tx *bbolt.Tx)
		doc  *document
		want vocab.Reason
	}{
		"between two strict documents": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := wrapOf(t, tx, tableLicenses, licenseKey(contoso, b), recordWrap)
			s.forgeRecord(t, tx, a, func(h header) { h[recordWrap] = wrap })
		}, a, vocab.ReasonCustodyIntegrity},
		"a document's and the tenant's generation": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := wrapOf(t, tx, tableGens, generation(contoso, 1), generationWrap)
			s.forgeRecord(t, tx, a, func(h header) { h[recordWrap] = wrap })
		}, a, vocab.ReasonCustodyIntegrity},
		"the tenant's generation and a document's": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := wrapOf(t, tx, tableLicenses, licenseKey(contoso, a), recordWrap)
			editRow(t, tx, tableGens, generation(contoso, 1), func(h header) { h[generationWrap] = wrap })
		}, cached, vocab.ReasonCustodyIntegrity},
		"with another tenant's document": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := wrapOf(t, tx, tableLicenses, licenseKey(fabrikam, foreign), recordWrap)
			s.forgeRecord(t, tx, a, func(h header) { h[recordWrap] = wrap })
		}, a, vocab.ReasonKeyState}, // it names a key that is not the tenant's
		"with another tenant's document, as if under one's own key": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := renamed(t, wrapOf(t, tx, tableLicenses, licenseKey(fabrikam, foreign), recordWrap), wrapOf(t, tx, tableLicenses, licenseKey(contoso, a), recordWrap))
			s.forgeRecord(t, tx, a, func(h header) { h.set(t, recordWrap, wrap) })
		}, a, vocab.ReasonCustodyIntegrity},
		"with another tenant's generation": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := wrapOf(t, tx, tableGens, generation(fabrikam, 1), generationWrap)
			editRow(t, tx, tableGens, generation(contoso, 1), func(h header) { h[generationWrap] = wrap })
		}, cached, vocab.ReasonKeyState},
		"with another tenant's generation, as if under one's own key": {func(t *testing.T, tx *bbolt.Tx) {
			wrap := renamed(t, wrapOf(t, tx, tableGens, generation(fabrikam, 1), generationWrap), wrapOf(t, tx, tableGens, generation(contoso, 1), generationWrap))
			editRow(t, tx, tableGens, generation(contoso, 1), func(h header) { h.set(t, generationWrap, wrap) })
		}, cached, vocab.ReasonCustodyIntegrity},
		"another version of the key named": {func(t *testing.T, tx *bbolt.Tx) {
			raw := wrapOf(t, tx, tableLicenses, licenseKey(contoso, a), recordWrap)
			var encoded []byte
			must(t, cbor.Unmarshal(raw, &encoded))
			w, err := license.ParseWrap(encoded)
			must(t, err)
			w.L0Version = 7
			s.forgeRecord(t, tx, a, func(h header) { h.set(t, recordWrap, w.Encode()) })
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

// renamed is a wrapped key that says it is under the key of another.
func renamed(t *testing.T, raw, like cbor.RawMessage) []byte {
	t.Helper()
	parse := func(raw cbor.RawMessage) *license.Wrap {
		var encoded []byte
		must(t, cbor.Unmarshal(raw, &encoded))
		w, err := license.ParseWrap(encoded)
		must(t, err)
		return w
	}
	w := parse(raw)
	w.Custodian = parse(like).Custodian
	return w.Encode()
}

// tableHashes is the stored tree.
const tableHashes = "audit-hashes"

// forgeRecord edits a license's record as somebody who has the whole data
// directory and all the time: the event that wrote the record gets its hash,
// the tree is made anew from the events, and the checkpoints are removed.
func (s *site) forgeRecord(t *testing.T, tx *bbolt.Tx, d *document, edit func(h header)) {
	t.Helper()
	var event []byte
	key := s.of(d.content[:])
	editRow(t, tx, tableLicenses, key, func(h header) {
		edit(h)
		must(t, cbor.Unmarshal(h[16], &event))
	})
	state := sha256.Sum256(row(t, tx, tableLicenses, key))
	editRow(t, tx, tableEvents, s.of(row(t, tx, tableIDs, s.of(event))), func(h header) { h.set(t, 181, state[:]) })
	s.forgeTree(t, tx)
}

// forgeTree makes the tree anew from the events as they are, and removes the
// checkpoints.
func (s *site) forgeTree(t *testing.T, tx *bbolt.Tx) {
	t.Helper()
	number := func(n int64) []byte { return s.of(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	hashes := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, n := range indexes {
			out = append(out, tlog.Hash(row(t, tx, tableHashes, number(n))))
		}
		return out, nil
	})
	for n := range int64(binary.BigEndian.Uint64(row(t, tx, tableHeads, s.of()))) {
		made, err := tlog.StoredHashes(n, row(t, tx, tableEvents, number(n)), hashes)
		must(t, err)
		for i, h := range made {
			put(t, tx, tableHashes, number(tlog.StoredHashIndex(0, n)+int64(i)), h[:])
		}
	}
	must(t, os.RemoveAll(filepath.Join(s.Dir, "data", "checkpoints")))
}
