package tenant

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
)

// filled is a tenant that has records and nothing else.
func filled(t testing.TB) *Tenant {
	t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Tenant{id: vocab.NewTenantID(), store: s, now: func() time.Time { return filed }}
}

var (
	filed    = time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)
	finance  = vocab.TemplateUID{1}
	personal = vocab.TemplateUID{2}
)

func person(name string) vocab.Principal {
	return vocab.Principal{Kind: vocab.KindUser, Value: name + "@contoso.test"}
}

// filing is a license in a tenant.
type filing struct {
	owner    string
	template vocab.TemplateUID
	ago      time.Duration // when it was published
	parents  []vocab.ContentID
	uses     map[string]int // whose use licenses end in how many days
}

func (f filing) put(tx store.Tx, t *Tenant, n int) (vocab.ContentID, error) {
	issued := filed.Add(-f.ago)
	c := idAfter(issued)
	c[6], c[7], c[14], c[15] = 0x70, 0, byte(n>>8), byte(n)
	p := &policy.Policy{Owner: person(f.owner), Issuer: policy.Issuer{Issuer: "https://idp.test", Subject: f.owner}, Template: f.template, Parents: f.parents}
	if f.template.IsZero() {
		p.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: []policy.Grant{{To: p.Owner, Rights: vocab.AllRights}}}
	}
	b, err := license.EncodePolicy(p)
	if err != nil {
		return c, err
	}
	if err := record.PutLicense(tx, t.id, &record.License{
		Content: c, ContentSuite: 1, Issued: record.ToMillis(issued), Generation: vocab.GenerationID{1}, KeyBox: []byte("TEST-box"), Policy: b,
		Revision: 1, Updated: record.ToMillis(issued), LastEvent: vocab.EventID{1},
	}); err != nil {
		return c, err
	}
	for who, days := range f.uses {
		if err := record.PutUse(tx, t.id, c, vocab.NewEventID(), record.Use{Principal: who, NotAfter: filed.AddDate(0, 0, days)}); err != nil {
			return c, err
		}
	}
	return c, nil
}

// file puts licenses into a tenant, whose IDs of one instant count from a
// number.
func file(t testing.TB, at *Tenant, from int, all ...filing) (ids []vocab.ContentID) {
	t.Helper()
	if err := at.store.Commit(t.Context(), func(tx store.Tx) error {
		ids = nil
		for n, f := range all {
			c, err := f.put(tx, at, from+n)
			if err != nil {
				return err
			}
			ids = append(ids, c)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return ids
}

// shownCoverage is a coverage in one line; + is "or more".
func shownCoverage(c *Coverage) string {
	plus := map[bool]string{true: "+"}
	s := fmt.Sprintf("%d%s licenses, %d%s uses:", c.Licenses, plus[c.MoreLicenses], c.UseCount, plus[c.MoreUses])
	for _, u := range c.Uses {
		s += fmt.Sprintf(" %s %d", u.Principal, int(u.NotAfter.Sub(filed).Hours()/24))
	}
	return s
}

func TestCoverage(t *testing.T) {
	at := filled(t)
	const day = 24 * time.Hour
	root := file(t, at, 0, filing{owner: "alice", template: finance, ago: 30 * day, uses: map[string]int{"bob@contoso.test": 20, "ended@contoso.test": -1}})[0]
	child := file(t, at, 0, filing{owner: "bob", ago: 20 * day, parents: []vocab.ContentID{root}, uses: map[string]int{"carol@contoso.test": 3}})[0]
	ids := file(t, at, 0,
		filing{owner: "bob", template: finance, ago: 10 * day, uses: map[string]int{"service:dms": 5}},
		filing{owner: "bob", template: personal, ago: 9 * day},
		filing{owner: "carol", ago: 8 * day, parents: []vocab.ContentID{child}, uses: map[string]int{"bob@contoso.test": 7}},
		filing{owner: "carol", template: personal, ago: time.Hour, uses: map[string]int{"eve@fabrikam.test": 2}},
	)
	at.parents.of = map[vocab.ContentID][]vocab.ContentID{child: {root}, root: {}} // their records are bound to no log here
	at.live.directory.SetGroup("board@contoso.test", []vocab.Principal{person("carol"), {Kind: vocab.KindService, Value: "dms"}})
	ago := func(d time.Duration) time.Time { return filed.Add(-d) }
	for _, c := range []struct {
		rule policy.RevocationRule
		want string
	}{
		{policy.RevocationRule{Owner: person("bob")}, "3 licenses, 2 uses: service:dms 5 carol@contoso.test 3"},
		{policy.RevocationRule{Owner: person("nobody")}, "0 licenses, 0 uses:"},
		{policy.RevocationRule{Template: finance}, "2 licenses, 2 uses: bob@contoso.test 20 service:dms 5"},
		{policy.RevocationRule{Template: finance, Owner: person("bob")}, "1 licenses, 1 uses: service:dms 5"},
		{policy.RevocationRule{From: ago(10 * day), Until: ago(8 * day)}, "2 licenses, 1 uses: service:dms 5"},
		{policy.RevocationRule{From: ago(8 * day)}, "2 licenses, 2 uses: bob@contoso.test 7 eve@fabrikam.test 2"},
		{policy.RevocationRule{Until: ago(20 * day)}, "1 licenses, 1 uses: bob@contoso.test 20"},
		{policy.RevocationRule{Owner: person("bob"), From: ago(10 * day)}, "2 licenses, 1 uses: service:dms 5"},
		{policy.RevocationRule{Lineage: root}, "3 licenses, 3 uses: bob@contoso.test 20 bob@contoso.test 7 carol@contoso.test 3"},
		{policy.RevocationRule{Lineage: child}, "2 licenses, 2 uses: bob@contoso.test 7 carol@contoso.test 3"},
		{policy.RevocationRule{Lineage: ids[0]}, "1 licenses, 1 uses: service:dms 5"},
		{policy.RevocationRule{Lineage: root, Owner: person("carol")}, "1 licenses, 1 uses: bob@contoso.test 7"},
		{policy.RevocationRule{Principal: person("bob")}, "6 licenses, 2+ uses: bob@contoso.test 20 bob@contoso.test 7"},
		{policy.RevocationRule{Principal: person("bob"), Owner: person("carol")}, "2 licenses, 1+ uses: bob@contoso.test 7"},
		{policy.RevocationRule{Principal: vocab.Principal{Kind: vocab.KindService, Value: "dms"}}, "6 licenses, 1 uses: service:dms 5"},
		{policy.RevocationRule{Principal: vocab.Principal{Kind: vocab.KindDomain, Value: "fabrikam.test"}}, "6 licenses, 1+ uses: eve@fabrikam.test 2"},
		{policy.RevocationRule{Principal: vocab.Principal{Kind: vocab.KindGroup, Value: "board@contoso.test"}}, "6 licenses, 2+ uses: service:dms 5 carol@contoso.test 3"},
	} {
		got, err := at.coverage(t.Context(), &c.rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule.String(), err)
			continue
		}
		if s := shownCoverage(got); s != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.rule.String(), s, c.want)
		}
	}
}

// What is looked at has a bound, and the answer says when it was met. Counts
// that an index keeps stay exact.
func TestCoverageIsBounded(t *testing.T) {
	at := filled(t)
	const more = maxCounted + countedAtOnce
	var all []filing
	for range more {
		all = append(all, filing{owner: "bob", template: finance, ago: time.Hour})
	}
	for len(all) > 0 {
		n := min(len(all), 5000)
		file(t, at, more-len(all), all[:n]...)
		all = all[n:]
	}
	for _, c := range []struct {
		name string
		rule policy.RevocationRule
		want string
	}{
		{"owner", policy.RevocationRule{Owner: person("bob")}, fmt.Sprintf("%d licenses, 0+ uses:", more)},
		{"template", policy.RevocationRule{Template: finance}, fmt.Sprintf("%d licenses, 0+ uses:", more)},
		{"all of it, for one service", policy.RevocationRule{Principal: vocab.Principal{Kind: vocab.KindService, Value: "dms"}}, fmt.Sprintf("%d licenses, 0 uses:", more)},
		{"owner and template", policy.RevocationRule{Owner: person("bob"), Template: finance}, fmt.Sprintf("%d+ licenses, 0+ uses:", maxCounted)},
		{"period", policy.RevocationRule{From: filed.Add(-2 * time.Hour)}, fmt.Sprintf("%d+ licenses, 0 uses:", maxCounted)},
		{"a period with nothing in it", policy.RevocationRule{From: filed.AddDate(0, 0, 3)}, "0 licenses, 0 uses:"},
	} {
		got, err := at.coverage(t.Context(), &c.rule)
		if err != nil {
			t.Fatal(err)
		}
		if s := shownCoverage(got); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
	}
	// One document with more use licenses than are looked at.
	uses := map[string]int{}
	for i := range maxCounted + 1 {
		uses[fmt.Sprintf("u%d@contoso.test", i)] = 1 + i%400
	}
	busy := file(t, at, 0, filing{owner: "carol", ago: time.Minute, uses: uses})
	got, err := at.coverage(t.Context(), &policy.RevocationRule{Lineage: busy[0]})
	if err != nil {
		t.Fatal(err)
	}
	if got.Licenses != 1 || got.UseCount != maxCounted || !got.MoreUses || len(got.Uses) != MaxCoveredUses || got.Uses[0].NotAfter.Sub(filed).Hours() != 400*24 {
		t.Errorf("%d licenses, %d uses, more %v, %d named", got.Licenses, got.UseCount, got.MoreUses, len(got.Uses))
	}
}
