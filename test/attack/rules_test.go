package attack

import (
	"bytes"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// ruleOwner is a field of a revocation by rule, as it lies in the store.
const ruleOwner = 2

// TestTamperedRules gives the attacker the store of a daemon in which a
// revocation of more than one license is in force. Taken out, bent, or put
// back as taken back, it keeps the tenant from being served: without its
// revocations it must not give keys away.
func TestTamperedRules(t *testing.T) {
	s := newSite(t, nil)
	alice, bob := s.person("alice"), s.person("bob")
	view := rmsv1.Right_RIGHT_VIEW
	all := []rmsv1.Right{view, rmsv1.Right_RIGHT_EXPORT}
	parent := alice.publish("", grant("user:bob@contoso.test", all...))
	key := newKey(t)
	child, err := bob.publishAs(key, &rmsv1.PublishRequest{
		Delivery: daemontest.SealedTo(key), ParentLicenses: []string{parent.name},
		Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{grant("user:bob@contoso.test", view)}}},
	})
	must(t, err)
	free := bob.publish("", grant("user:bob@contoso.test", view))
	rule, err := alice.licenses().RevokeLicenses(alice.ctx(), &rmsv1.RevokeLicensesRequest{
		Parent: alice.parent(), Owner: "user:alice@contoso.test", Reason: "a test",
	})
	must(t, err)
	lineage, err := alice.licenses().RevokeLicenses(alice.ctx(), &rmsv1.RevokeLicensesRequest{
		Parent: alice.parent(), Lineage: parent.name, Principal: "user:mallory@contoso.test", Reason: "a test",
	})
	must(t, err)
	got, err := bob.acquire(parent.pl)
	wantRefused(t, got, err, vocab.ReasonLicenseRevoked)
	if found := s.findings(t); found != "" {
		t.Fatalf("an untouched store has findings:\n%s", found)
	}
	s.stop()
	untouched := s.snapshot(t)

	rowOf := func(r *rmsv1.RevokeLicensesResponse) []byte {
		_, name, _ := strings.Cut(r.GetRevocation().GetName(), "tenants/contoso/")
		return s.of([]byte(name))
	}
	for name, edit := range map[string]func(t *testing.T, tx *bbolt.Tx){
		"taken out":      func(t *testing.T, tx *bbolt.Tx) { remove(t, tx, tableResources, rowOf(rule)) },
		"one of several": func(t *testing.T, tx *bbolt.Tx) { remove(t, tx, tableResources, rowOf(lineage)) },
		"turned into a tombstone": func(t *testing.T, tx *bbolt.Tx) {
			editRow(t, tx, tableResources, rowOf(rule), func(h header) {
				delete(h, resourceBody)
				h.Set(t, resourceGone, 1)
			})
		},
		"aimed at another owner": func(t *testing.T, tx *bbolt.Tx) {
			editRow(t, tx, tableResources, rowOf(rule), func(h header) {
				var b []byte
				must(t, cbor.Unmarshal(h[resourceBody], &b))
				body := header{}
				must(t, cbor.Unmarshal(b, &body))
				body.Set(t, ruleOwner, "user:erin@contoso.test")
				b, err := deterministic(t).Marshal(body)
				must(t, err)
				h.Set(t, resourceBody, b)
			})
		},
		"replaced by the other": func(t *testing.T, tx *bbolt.Tx) {
			put(t, tx, tableResources, rowOf(rule), row(t, tx, tableResources, rowOf(lineage)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.tb = t
			untouched()
			s.editStore(t, func(tx *bbolt.Tx) { edit(t, tx) })
			s.bootBroken(t, vocab.ReasonStoreDamaged)
			defer s.stop()
			got, err := s.person("bob").acquire(free.pl)
			wantRefused(t, got, err, vocab.ReasonStoreDamaged)
		})
	}

	t.Run("taken out with all that leads to it", func(t *testing.T) {
		s.tb = t
		untouched()
		s.editStore(t, func(tx *bbolt.Tx) {
			remove(t, tx, tableResources, rowOf(rule))
			c := tx.Bucket([]byte(tableTargets)).Cursor()
			var rows [][]byte
			for k, _ := c.Seek(s.of()); bytes.HasPrefix(k, s.of()); k, _ = c.Next() {
				rows = append(rows, bytes.Clone(k))
			}
			for _, k := range rows {
				remove(t, tx, tableTargets, k)
			}
			remove(t, tx, tableResources, rowOf(lineage))
		})
		s.start()
		defer s.stop()
		if found := s.findings(t); !strings.Contains(found, "is not found by what it wrote") {
			t.Fatalf("the check of the store says %q", found)
		}
	})

	// Who takes the record out that a document was made from hides from what.
	t.Run("an ancestor's record removed", func(t *testing.T) {
		s.tb = t
		untouched()
		s.editStore(t, func(tx *bbolt.Tx) { remove(t, tx, tableLicenses, s.of(parent.content[:])) })
		s.start()
		defer s.stop()
		got, err := s.person("bob").acquire(child.pl)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonStoreDamaged), true)
		s.person("bob").wantOpens(t, free)
	})

	t.Run("what nobody touched", func(t *testing.T) {
		s.tb = t
		untouched()
		s.start()
		defer s.stop()
		got, err := s.person("bob").acquire(parent.pl)
		wantRefused(t, got, err, vocab.ReasonLicenseRevoked)
		s.person("bob").wantOpens(t, child)
	})
}
