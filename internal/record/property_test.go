package record

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// model is what licenses a tenant has, without indexes or counts.
type model map[vocab.ContentID]shape

// count counts by going through everything.
func (m model) count(match func(shape) bool) (n int64) {
	for _, s := range m {
		if match(s) {
			n++
		}
	}
	return n
}

// list returns what a listing must show, newest first.
func (m model) list(match func(shape) bool) (out []vocab.ContentID) {
	for c, s := range m {
		if !s.deleted && match(s) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b vocab.ContentID) int { return b.Compare(a) })
	return out
}

var (
	owners      = []string{"alice", "bob", "carla"}
	templates   = []vocab.TemplateUID{{}, {1}, {2}}
	generations = []vocab.GenerationID{{1}, {2}}
	custodians  = []vocab.CustodianID{{}, {1}, {2}}
)

func drawShape(t *rapid.T) shape {
	return shape{
		owner:      rapid.SampledFrom(owners).Draw(t, "owner"),
		template:   rapid.SampledFrom(templates).Draw(t, "template"),
		generation: rapid.SampledFrom(generations).Draw(t, "generation"),
		custodian:  rapid.SampledFrom(custodians).Draw(t, "custodian"),
		version:    rapid.Uint32Range(1, 2).Draw(t, "version"),
		deleted:    rapid.IntRange(0, 4).Draw(t, "deleted") == 0,
	}
}

// TestIndexesFollowLicenses writes, edits, revokes and deletes licenses of two
// tenants in any order. Counts, listings and the check always agree with a
// model that has no index.
func TestIndexesFollowLicenses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tx := memory()
		models := map[vocab.TenantID]model{tenantA: {}, tenantB: {}}
		content := rapid.Custom(func(t *rapid.T) vocab.ContentID {
			return vocab.ContentID{0: byte(rapid.IntRange(0, 9).Draw(t, "content")), 6: 0x70, 15: 1}
		})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			tenant := rapid.SampledFrom([]vocab.TenantID{tenantA, tenantA, tenantB}).Draw(t, "tenant")
			m, c := models[tenant], content.Draw(t, "content")
			s, known := m[c]
			switch op := rapid.SampledFrom([]string{"write", "write", "edit", "revoke", "restore", "delete"}).Draw(t, "op"); {
			case op == "write" || !known:
				s = drawShape(t)
			case op == "edit":
				// One dimension at a time, as the service does.
				next := drawShape(t)
				switch rapid.IntRange(0, 2).Draw(t, "what") {
				case 0:
					s.owner = next.owner
				case 1:
					s.template = next.template
				case 2:
					s.generation, s.custodian, s.version = next.generation, next.custodian, next.version
				}
			case op == "delete":
				s.deleted = true
			}
			l := licenseOf(t, c, s)
			l.Revoked = nil
			if rapid.Bool().Draw(t, "revoked") {
				l.Revoked = &Revocation{At: ToMillis(start), By: "alice@contoso.test"}
			}
			mustPut(t, tx, tenant, l)
			m[c] = s
		}
		for tenant, m := range models {
			problems, records := findings(t, tx, tenant)
			if len(problems) > 0 {
				t.Fatalf("the check finds %q", problems)
			}
			if records != int64(len(m)) {
				t.Fatalf("the check read %d records of %d", records, len(m))
			}
			compareCounts(t, tx, tenant, m)
			compareListings(t, tx, tenant, m)
			compareDependants(t, tx, tenant, m)
		}
	})
}

func compareCounts(t *rapid.T, tx store.Reader, tenant vocab.TenantID, m model) {
	same := func(what string, got int64, err error, want int64) {
		if err != nil || got != want {
			t.Fatalf("%s: %d (%v), want %d", what, got, err, want)
		}
	}
	n, err := CountLicenses(tx, tenant)
	same("licenses", n, err, int64(len(m)))
	for _, uid := range templates[1:] {
		n, err := CountByTemplate(tx, tenant, uid)
		same("template "+uid.String(), n, err, m.count(func(s shape) bool { return s.template == uid && !s.deleted }))
		for _, mode := range []vocab.CustodyMode{vocab.CustodyCached, vocab.CustodyStrict} {
			n, err := CountByCustody(tx, tenant, uid, mode)
			same("template "+uid.String()+" "+mode.String(), n, err, m.count(func(s shape) bool {
				return s.template == uid && !s.deleted && s.custodian.IsZero() == (mode == vocab.CustodyCached)
			}))
		}
	}
	for _, o := range owners {
		n, err := CountByOwner(tx, tenant, user(t, o))
		same("owner "+o, n, err, m.count(func(s shape) bool { return s.owner == o && !s.deleted }))
	}
	for _, g := range generations {
		n, err := CountByGeneration(tx, tenant, g)
		same("generation "+g.String(), n, err, m.count(func(s shape) bool { return s.generation == g && s.custodian.IsZero() }))
	}
	strict, err := CountStrict(tx, tenant)
	if err != nil {
		t.Fatal(err)
	}
	var want []VersionCount
	for _, c := range custodians[1:] {
		for version := uint32(1); version <= 2; version++ {
			if n := m.count(func(s shape) bool { return s.custodian == c && s.version == version }); n > 0 {
				want = append(want, VersionCount{c, version, n})
			}
		}
	}
	if diff := cmp.Diff(want, strict); diff != "" {
		t.Fatalf("strict licenses (-want +got):\n%s", diff)
	}
}

// compareListings reads every listing page by page, with a page size of any
// kind: the pages together are the listing, each once, and none too large.
func compareListings(t *rapid.T, tx store.Reader, tenant vocab.TenantID, m model) {
	read := func(q ListQuery) (all []vocab.ContentID) {
		for {
			page, next, err := ListLicenses(tx, tenant, q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > q.Limit {
				t.Fatalf("a page of %d, at most %d were asked for", len(page), q.Limit)
			}
			for _, l := range page {
				all = append(all, l.Content)
			}
			if next.IsZero() {
				return all
			}
			if !q.Before.IsZero() && next.Compare(q.Before) >= 0 {
				t.Fatalf("the listing goes on at %s, but came from %s", next, q.Before)
			}
			q.Before = next
		}
	}
	limit := rapid.IntRange(1, 4).Draw(t, "limit")
	same := func(what string, got, want []vocab.ContentID) {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", what, diff)
		}
	}
	same("all", read(ListQuery{Limit: limit}), m.list(func(shape) bool { return true }))
	for _, o := range owners {
		same(o, read(ListQuery{Limit: limit, Owner: user(t, o)}), m.list(func(s shape) bool { return s.owner == o }))
	}
	for _, uid := range templates[1:] {
		same("template", read(ListQuery{Limit: limit, Template: uid}), m.list(func(s shape) bool { return s.template == uid }))
	}
	walk := func(s LicenseScope) (all []vocab.ContentID) {
		n, err := CountScope(tx, tenant, s)
		for after := (vocab.ContentID{}); ; {
			page, nextErr := NextLicenses(tx, tenant, s, after, limit)
			if nextErr != nil || err != nil {
				t.Fatal(nextErr, err)
			}
			for _, l := range page {
				if l.Err != nil || l.License.Content != l.Content {
					t.Fatalf("%s: %v", l.Content, l.Err)
				}
				all, after = append(all, l.Content), l.Content
			}
			if len(page) < limit {
				break
			}
		}
		if int64(len(all)) != n {
			t.Fatalf("a scope has %d licenses, its count says %d", len(all), n)
		}
		slices.Reverse(all) // oldest first
		return all
	}
	for _, o := range owners {
		same(o, walk(LicenseScope{Owner: user(t, o)}), m.list(func(s shape) bool { return s.owner == o }))
	}
	for _, uid := range templates[1:] {
		same("template", walk(LicenseScope{Template: uid}), m.list(func(s shape) bool { return s.template == uid }))
		for _, mode := range []vocab.CustodyMode{vocab.CustodyCached, vocab.CustodyStrict} {
			same("template, "+mode.String(), walk(LicenseScope{Template: uid, Custody: mode}), m.list(func(s shape) bool {
				return s.template == uid && s.custodian.IsZero() == (mode == vocab.CustodyCached)
			}))
		}
	}
	strict := ListQuery{Limit: limit, Match: func(l *License) bool { return l.Custody() == vocab.CustodyStrict }}
	same("strict", read(strict), m.list(func(s shape) bool { return !s.custodian.IsZero() }))
}
