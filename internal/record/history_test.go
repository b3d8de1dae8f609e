package record

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Every policy a license ever had is found by its hash, and each is kept once
// however often the license changes otherwise.
func TestEarlierPoliciesAreKept(t *testing.T) {
	tx := memory()
	owned := func(owner string, revision uint32) *License {
		l := licenseOf(t, cachedOne, shape{owner: owner, generation: generationOne})
		l.Revision = revision
		return l
	}
	first, second := owned("alice", 1), owned("bob", 2)
	mustPut(t, tx, tenantA, first)
	mustPut(t, tx, tenantA, second)
	renamed := owned("bob", 3)
	renamed.Title = "another title"
	mustPut(t, tx, tenantA, renamed)
	mustPut(t, tx, tenantA, owned("alice", 4))
	for _, l := range []*License{first, second} {
		got, err := GetPolicy(tx, tenantA, cachedOne, license.PolicyHash(l.Policy))
		if err != nil || !bytes.Equal(got, l.Policy) {
			t.Errorf("the policy of revision %d is lost: %v", l.Revision, err)
		}
	}
	if got, err := GetPolicy(tx, tenantA, cachedOne, [32]byte{1}); got != nil || err != nil {
		t.Errorf("a policy that never was: %x, %v", got, err)
	}
	if got, err := GetPolicy(tx, tenantB, cachedOne, license.PolicyHash(first.Policy)); got != nil || err != nil {
		t.Errorf("another tenant has it too: %x, %v", got, err)
	}
	if got, err := GetPolicy(tx, tenantA, strictOne, license.PolicyHash(first.Policy)); got != nil || err != nil {
		t.Errorf("another license has it too: %x, %v", got, err)
	}
	n := 0
	for range tx.Scan(tablePolicies, store.Range{Prefix: key(tenantA)}) {
		n++
	}
	if n != 2 {
		t.Errorf("%d policies are kept of two", n)
	}
	hash := license.PolicyHash(second.Policy)
	if err := tx.Put(tablePolicies, key(tenantA, cachedOne[:], hash[:]), first.Policy); err != nil {
		t.Fatal(err)
	}
	if _, err := GetPolicy(tx, tenantA, cachedOne, hash); vocab.ReasonOf(err) != vocab.ReasonStoreDamaged {
		t.Errorf("another policy under the hash: %v", err)
	}
}

func TestEarlierSettingsAreKept(t *testing.T) {
	tx := memory()
	revision := func(n uint32) Settings {
		s := DefaultSettings()
		s.Revision, s.LastEvent, s.TokenAgeMax = n, vocab.EventID{byte(n)}, MinCacheTTL
		s.GuestDomains = []string{"fabrikam.com"}[:n%2]
		s.Publishers = []vocab.Principal{}
		return s
	}
	for n := range uint32(3) {
		if err := PutSettings(tx, tenantA, revision(n+1)); err != nil {
			t.Fatal(err)
		}
	}
	for n := uint32(1); n <= 3; n++ {
		got, known, err := GetSettingsRevision(tx, tenantA, n)
		want := revision(n)
		if err != nil || !known || got.Revision != want.Revision || got.LastEvent != want.LastEvent || len(got.GuestDomains) != len(want.GuestDomains) {
			t.Errorf("revision %d: %+v, %v", n, got, err)
		}
		a, _ := got.State()
		b, _ := want.State()
		if a != b {
			t.Errorf("revision %d has another state", n)
		}
	}
	got, known, err := GetSettingsRevision(tx, tenantA, 0)
	if d := cmp.Diff(DefaultSettings(), got); d != "" || !known || err != nil {
		t.Errorf("the defaults: %s %v", d, err)
	}
	if _, known, err := GetSettingsRevision(tx, tenantA, 4); known || err != nil {
		t.Errorf("revision 4 is known: %v", err)
	}
	b, _, _ := tx.Get(tableOldSettings, key(tenantA, u32(1)))
	if err := tx.Put(tableOldSettings, key(tenantA, u32(2)), b); err != nil {
		t.Fatal(err)
	}
	if _, _, err := GetSettingsRevision(tx, tenantA, 2); vocab.ReasonOf(err) != vocab.ReasonStoreDamaged {
		t.Errorf("revision 1 in the place of 2: %v", err)
	}
}
