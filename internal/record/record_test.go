package record

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

func TestRequestsAreRememberedForADay(t *testing.T) {
	tx := memory()
	if err := PutRequest(tx, tenantA, caller, "r1", &Request{Content: cachedOne, PL: []byte("TEST-pl"), At: ToMillis(start)}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		tenant vocab.TenantID
		caller [32]byte
		id     string
		at     time.Time
		found  bool
	}{
		{"at once", tenantA, caller, "r1", start, true},
		{"just before a day is over", tenantA, caller, "r1", start.Add(RequestLife - time.Millisecond), true},
		{"after a day", tenantA, caller, "r1", start.Add(RequestLife), false},
		{"another ID", tenantA, caller, "r2", start, false},
		{"an ID that begins alike", tenantA, caller, "r", start, false},
		{"another caller", tenantA, [32]byte{8}, "r1", start, false},
		{"another tenant", tenantB, caller, "r1", start, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := GetRequest(tx, c.tenant, c.caller, c.id, c.at)
			if err != nil {
				t.Fatal(err)
			}
			if (q != nil) != c.found {
				t.Errorf("found %v, want %v", q != nil, c.found)
			}
		})
	}
}

func TestSweepForgetsOldRequests(t *testing.T) {
	tx := memory()
	const old = maxScan + 5
	for i := range old {
		at := ToMillis(start.Add(time.Duration(i) * time.Millisecond))
		if err := PutRequest(tx, tenantA, caller, fmt.Sprint("old", i), &Request{Content: cachedOne, At: at}); err != nil {
			t.Fatal(err)
		}
	}
	later := start.Add(12 * time.Hour)
	// One ID is used again after its first life: the second must stay.
	for _, id := range []string{"old0", "new"} {
		if err := PutRequest(tx, tenantA, caller, id, &Request{Content: strictOne, At: ToMillis(later)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := PutRequest(tx, tenantB, caller, "theirs", &Request{Content: cachedOne, At: ToMillis(start)}); err != nil {
		t.Fatal(err)
	}
	now := start.Add(RequestLife + time.Minute)
	for _, want := range []int{maxScan, old - maxScan, 0} {
		n, err := SweepRequests(tx, tenantA, now)
		if err != nil || n != want {
			t.Fatalf("forgot %d (%v), want %d", n, err, want)
		}
	}
	for _, id := range []string{"old0", "new"} {
		if q, err := GetRequest(tx, tenantA, caller, id, now); err != nil || q == nil || q.Content != strictOne {
			t.Errorf("request %s is %v (%v), want the one of later", id, q, err)
		}
	}
	rows := 0
	for _, table := range []store.Table{tableRequests, tableRequestsByTime} {
		for _, err := range tx.Scan(table, store.Range{Prefix: key(tenantA)}) {
			if err != nil {
				t.Fatal(err)
			}
			rows++
		}
	}
	if rows != 4 {
		t.Errorf("%d rows are left, want two requests in two tables", rows)
	}
	if problems, _ := findings(t, tx, tenantA); len(problems) > 0 {
		t.Errorf("the check finds %q", problems)
	}
	if n, err := SweepRequests(tx, tenantB, start.Add(RequestLife)); err != nil || n != 1 {
		t.Errorf("of the other tenant %d were forgotten (%v), want 1", n, err)
	}
}

func TestUses(t *testing.T) {
	tx := memory()
	put := func(c vocab.ContentID, event byte, who string, days int) {
		if err := PutUse(tx, tenantA, c, vocab.EventID{event}, Use{Principal: who, NotAfter: start.AddDate(0, 0, days)}); err != nil {
			t.Fatal(err)
		}
	}
	put(cachedOne, 1, "bob", 7)
	put(cachedOne, 2, "carla", 7) // ends in the same millisecond: both count
	put(cachedOne, 3, "dan", 2)
	put(cachedOne, 4, "erin", 30)
	put(strictOne, 5, "mallory", 30)
	for _, c := range []struct {
		name  string
		days  int
		limit int
		want  []string
		total int
	}{
		{"all, those that end last first", 0, 10, []string{"erin", "carla", "bob", "dan"}, 4},
		{"some of them", 0, 2, []string{"erin", "carla"}, 4},
		{"none of them", 0, 0, nil, 4},
		{"not what has ended", 2, 10, []string{"erin", "carla", "bob"}, 3},
		{"nothing is left", 30, 10, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			uses, total, err := ListUses(tx, tenantA, cachedOne, start.AddDate(0, 0, c.days), c.limit)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, u := range uses {
				got = append(got, u.Principal)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || total != c.total {
				t.Errorf("total %d, want %d (-want +got):\n%s", total, c.total, diff)
			}
		})
	}
	if err := tx.Put(tableUses, key(tenantA, cachedOne[:], []byte{0xff}), nil); err != nil {
		t.Fatal(err)
	}
	_, _, err := ListUses(tx, tenantA, cachedOne, start, 1)
	reasonOf(t, err, vocab.ReasonStoreDamaged)
}

func TestUsesOfAPrincipal(t *testing.T) {
	tx := memory()
	event := byte(0)
	put := func(c vocab.ContentID, days int, of ...string) {
		event++
		u := Use{Principal: of[0], NotAfter: start.AddDate(0, 0, days)}
		for _, name := range of {
			u.Of = append(u.Of, user(t, name))
		}
		if err := PutUse(tx, tenantA, c, vocab.EventID{event}, u); err != nil {
			t.Fatal(err)
		}
	}
	put(cachedOne, 7, "bob", "robert") // one person under two addresses
	put(cachedOne, 7, "bob")           // the same end, and the same document
	put(strictOne, 2, "robert")
	put(gone, 30, "carla")
	for _, c := range []struct {
		who   string
		days  int
		limit int
		want  []vocab.ContentID
		total int
	}{
		{"bob", 0, 10, []vocab.ContentID{cachedOne, cachedOne}, 2},
		{"robert", 0, 10, []vocab.ContentID{cachedOne, strictOne}, 2},
		{"robert", 0, 1, []vocab.ContentID{cachedOne}, 2},
		{"robert", 2, 10, []vocab.ContentID{cachedOne}, 1},
		{"robert", 7, 10, nil, 0},
		{"mallory", 0, 10, nil, 0},
	} {
		uses, total, err := ListUsesOf(tx, tenantA, user(t, c.who), start.AddDate(0, 0, c.days), c.limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []vocab.ContentID
		for _, u := range uses {
			got = append(got, u.Content)
		}
		if diff := cmp.Diff(c.want, got); diff != "" || total != c.total {
			t.Errorf("%s on day %d: total %d, want %d (-want +got):\n%s", c.who, c.days, total, c.total, diff)
		}
	}
	if _, total, err := ListUsesOf(tx, tenantB, user(t, "bob"), start, 10); total != 0 || err != nil {
		t.Errorf("another tenant has %d of bob's (%v)", total, err)
	}
	for _, bad := range []struct{ k, v []byte }{
		{key(tenantA, ownerKey(user(t, "bob")), []byte{0xff}), cachedOne[:]},
		{key(tenantA, ownerKey(user(t, "bob")), u64(uint64(ToMillis(start.AddDate(1, 0, 0)))), make([]byte, 16)), []byte{1}},
	} {
		if err := tx.Put(tableUsesByPrincipal, bad.k, bad.v); err != nil {
			t.Fatal(err)
		}
		_, _, err := ListUsesOf(tx, tenantA, user(t, "bob"), start, 1)
		reasonOf(t, err, vocab.ReasonStoreDamaged)
		if err := tx.Delete(tableUsesByPrincipal, bad.k); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever has no address is named by issuer and subject, of which nobody knows
// what is in them.
func TestNameOfAUseIsNoPrincipal(t *testing.T) {
	tx := memory()
	u := Use{Principal: "https://issuer.test#x\nuser:bob@contoso.test", NotAfter: start}
	if err := PutUse(tx, tenantA, cachedOne, vocab.EventID{1}, u); err != nil {
		t.Fatal(err)
	}
	uses, _, err := ListUses(tx, tenantA, cachedOne, time.UnixMilli(0), 1)
	if err != nil || uses[0].Of != nil || uses[0].Principal != "https://issuer.test#x user:bob@contoso.test" {
		t.Errorf("%+v, %v", uses, err)
	}
}

func TestSweepForgetsUsesThatEnded(t *testing.T) {
	tx := memory()
	event := 0
	put := func(tenant vocab.TenantID, c vocab.ContentID, who string, end time.Time) {
		event++
		e := vocab.EventID{byte(event >> 8), byte(event)}
		if err := PutUse(tx, tenant, c, e, Use{Principal: who, Of: []vocab.Principal{user(t, who)}, NotAfter: end}); err != nil {
			t.Fatal(err)
		}
	}
	const many = maxScan + 5
	for range many {
		put(tenantA, cachedOne, "bob", start)
	}
	put(tenantA, cachedOne, "carla", start.AddDate(0, 0, 1)) // another day of the same document
	put(tenantA, cachedOne, "dan", start.AddDate(0, 0, 30))
	put(tenantA, strictOne, "erin", start.Add(time.Hour))
	put(tenantB, cachedOne, "frank", start)

	sweep := func(tenant vocab.TenantID, now time.Time, want ...int) {
		t.Helper()
		for _, want := range want {
			if n, err := SweepUses(tx, tenant, now); err != nil || n != want {
				t.Fatalf("%d rows were forgotten (%v), want %d", n, err, want)
			}
			if problems := aboutUses(t, tx, tenant); len(problems) > 0 {
				t.Fatalf("between sweeps the check finds %q", problems)
			}
		}
	}
	left := func(tenant vocab.TenantID, c vocab.ContentID, want ...string) {
		t.Helper()
		uses, _, err := ListUses(tx, tenant, c, time.UnixMilli(0), 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range uses {
			got = append(got, u.Principal)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	midnight := start.Truncate(24*time.Hour).AddDate(0, 0, 1)
	sweep(tenantA, midnight.Add(-time.Millisecond), 0)
	// What ended, each with the row of whose it is, and the two rows of its day.
	// A use is never left half forgotten: the first sweep deletes one row more.
	sweep(tenantA, midnight, maxScan+1, maxScan, 2*(many+1)+2-2*maxScan-1, 0)
	left(tenantA, cachedOne, "dan", "carla")
	left(tenantA, strictOne)
	sweep(tenantA, midnight.AddDate(0, 0, 1), 3, 0)
	left(tenantA, cachedOne, "dan")
	left(tenantB, cachedOne, "frank")
	sweep(tenantA, midnight.AddDate(0, 0, 30), 3, 0)
	sweep(tenantB, midnight, 3, 0)
	for _, table := range []store.Table{tableUses, tableUsesByDay, tableUsesByPrincipal} {
		for item, err := range tx.Scan(table, store.Range{}) {
			t.Errorf("%s still has %x (%v)", table, item.Key, err)
		}
	}
}

// aboutUses are the findings about uses that no sweep would reach, or that are
// found from one side alone.
func aboutUses(t *testing.T, r store.Reader, tenant vocab.TenantID) (problems []string) {
	all, _ := findings(t, r, tenant)
	for _, p := range all {
		if strings.Contains(p, "uses-by-") {
			problems = append(problems, p)
		}
	}
	return problems
}

func TestSweepOfUsesReportsDamage(t *testing.T) {
	for _, table := range []store.Table{tableUses, tableUsesByDay} {
		tx := full(t)
		if err := tx.Put(table, key(tenantA, cachedOne[:], []byte{0}), nil); err != nil {
			t.Fatal(err)
		}
		_, err := SweepUses(tx, tenantA, start.AddDate(1, 0, 0))
		reasonOf(t, err, vocab.ReasonStoreDamaged)
	}
}

func TestSettingsComeBackAsWritten(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings Settings
	}{
		{"defaults", DefaultSettings()},
		{"strictest", Settings{Settings: policy.Settings{Custody: vocab.CustodyStrict}, CacheTTL: MinCacheTTL, Revision: 1}},
		{"guests may keep nothing", func() Settings {
			s := DefaultSettings()
			s.GuestMaxOffline = 0
			return s
		}()},
		{"everything set", Settings{
			Settings: policy.Settings{
				MaxOffline: policy.MaxPeriod, GuestMaxOffline: time.Hour, IssuerOpensRevoked: true,
				GuestDomains: []string{"fabrikam.test", "example.test"}, Publishers: []vocab.Principal{user(t, "alice"), user(t, "bob")},
				ClearKeys: policy.ClearKeysMTLS, Custody: vocab.CustodyStrict,
			},
			CacheTTL: MaxCacheTTL, OutageGrace: MaxOutageGrace, AllowX25519: true, TokenAgeMax: time.Minute, Revision: 7,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx := memory()
			if err := PutSettings(tx, tenantA, c.settings); err != nil {
				t.Fatal(err)
			}
			got, err := GetSettings(tx, tenantA)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.settings, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if other, err := GetSettings(tx, tenantB); err != nil || cmp.Diff(DefaultSettings(), other) != "" {
				t.Errorf("the other tenant has %+v (%v), want the defaults", other, err)
			}
		})
	}
}

func TestSettingsThatAreDamaged(t *testing.T) {
	for name, form := range map[string]settingsForm{
		"no custody mode": {},
		"a publisher":     {Custody: 1, Publishers: []string{"root"}},
	} {
		t.Run(name, func(t *testing.T) {
			tx := memory()
			if err := put(tx, tableSettings, key(tenantA), &form); err != nil {
				t.Fatal(err)
			}
			_, err := GetSettings(tx, tenantA)
			reasonOf(t, err, vocab.ReasonStoreDamaged)
		})
	}
}

func TestTenants(t *testing.T) {
	tx := memory()
	if got, err := GetTenant(tx, "contoso"); got != nil || err != nil {
		t.Errorf("an unknown tenant is %v (%v), want nil", got, err)
	}
	want := map[string]Tenant{"contoso": {ID: tenantA, Created: ToMillis(start)}, "fabrikam": {ID: tenantB, Created: ToMillis(start)}}
	for name, tenant := range want {
		if err := PutTenant(tx, name, &tenant); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ListTenants(tx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLicenseComesBackAsWritten(t *testing.T) {
	tx := memory()
	want := licenseOf(t, strictOne, shape{owner: "alice", custodian: custodianOne, version: 3})
	want.Title, want.Contact = "Q3 figures", "help@contoso.test"
	want.Revoked = &Revocation{At: ToMillis(start), By: "alice@contoso.test", Reason: "sent by mistake"}
	mustPut(t, tx, tenantA, want)
	got, err := GetLicense(tx, tenantA, strictOne)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.Custody() != vocab.CustodyStrict {
		t.Errorf("custody is %s, want strict", got.Custody())
	}
	// The key box is bound to the tenant and to the policy as it is stored.
	box, other := got.Box(tenantA), got.Box(tenantB)
	if box == other {
		t.Error("the key box is the same for another tenant")
	}
	changed := *got
	changed.Policy = licenseOf(t, strictOne, shape{owner: "mallory"}).Policy
	if box == changed.Box(tenantA) {
		t.Error("the key box is the same for another policy")
	}
	if l, err := GetLicense(tx, tenantB, strictOne); l != nil || err != nil {
		t.Errorf("another tenant has it: %v (%v)", l, err)
	}
}

// A row that was moved to another document's key must not be taken for that
// document's.
func TestMovedRowsAreDamage(t *testing.T) {
	tx := full(t)
	move := func(table store.Table, from, to []byte) {
		v, _, err := tx.Get(table, from)
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Put(table, to, v); err != nil {
			t.Fatal(err)
		}
	}
	move(tableLicenses, key(tenantA, cachedOne[:]), key(tenantA, strictOne[:]))
	move(tableResources, key(tenantA, []byte(GenerationName(1))), key(tenantA, []byte(GenerationName(9))))
	_, err := GetLicense(tx, tenantA, strictOne)
	reasonOf(t, err, vocab.ReasonStoreDamaged)
	err = ListGenerations(tx, tenantA, func(*Generation) error { return nil })
	reasonOf(t, err, vocab.ReasonStoreDamaged)
	_, _, err = ListLicenses(tx, tenantA, ListQuery{Limit: 10})
	reasonOf(t, err, vocab.ReasonStoreDamaged)
}

func TestListTemplatesGoesOnAfterAName(t *testing.T) {
	tx := memory()
	slugs := []string{"a", "a-1", "b", "finance"}
	for i, slug := range slugs {
		if err := PutTemplateRevision(tx, tenantA, vocab.TemplateUID{byte(i + 1)}, TemplateHead{Slug: slug, Revision: 1}, []byte("TEST")); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		after string
		want  []string
	}{{"", slugs}, {"a", slugs[1:]}, {"aa", slugs[2:]}, {"finance", nil}, {"z", nil}} {
		var got []string
		if err := ListTemplates(tx, tenantA, c.after, func(slug string, _ vocab.TemplateUID) (bool, error) {
			got = append(got, slug)
			return true, nil
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", c.after, diff)
		}
	}
	n := 0
	if err := ListTemplates(tx, tenantA, "", func(string, vocab.TemplateUID) (bool, error) { n++; return n < 2, nil }); err != nil || n != 2 {
		t.Errorf("%d templates were shown (%v), want to stop after 2", n, err)
	}
}

// A listing whose filter matches little looks at no more than ten thousand
// licenses at a time, and says where to go on.
func TestListLicensesIsBounded(t *testing.T) {
	tx := memory()
	const all = 10*maxScan + 3
	form := licenseOf(t, cachedOne, shape{owner: "alice", generation: generationOne})
	for i := range all {
		form.Content = vocab.ContentID{1: byte(i >> 16), 2: byte(i >> 8), 3: byte(i), 6: 0x70}
		// Written without indexes: they are not what is looked at here.
		if err := put(tx, tableLicenses, key(tenantA, form.Content[:]), form); err != nil {
			t.Fatal(err)
		}
	}
	oldest := vocab.ContentID{6: 0x70}
	q := ListQuery{Limit: 5, Match: func(l *License) bool { return l.Content == oldest }}
	page, next, err := ListLicenses(tx, tenantA, q)
	if err != nil || len(page) != 0 || next.IsZero() {
		t.Fatalf("first page has %d licenses and goes on at %s (%v); want none, and more", len(page), next, err)
	}
	q.Before = next
	page, next, err = ListLicenses(tx, tenantA, q)
	if err != nil || len(page) != 1 || page[0].Content != oldest || !next.IsZero() {
		t.Errorf("second page has %d licenses and goes on at %s (%v); want the oldest, and the end", len(page), next, err)
	}
}

func TestMillis(t *testing.T) {
	for _, at := range []time.Time{{}, start, start.Add(time.Millisecond)} {
		if got := ToMillis(at).Time(); !got.Equal(at) {
			t.Errorf("%s came back as %s", at, got)
		}
	}
	if ToMillis(time.Time{}) != 0 {
		t.Error("no time is not zero")
	}
}
