package record

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// compareDependants compares what depends on each generation and version with
// what a model without indexes says; deleted licenses count, for their content ID
// stays taken.
func compareDependants(t fatal, tx store.Reader, tenant vocab.TenantID, m model) {
	t.Helper()
	refs := map[KeyRef]func(shape) bool{}
	for _, g := range generations {
		refs[GenerationRef(g)] = func(s shape) bool { return s.custodian.IsZero() && s.generation == g }
	}
	for _, c := range custodians[1:] {
		for v := uint32(1); v <= 3; v++ {
			refs[VersionRef(c, v)] = func(s shape) bool { return s.custodian == c && s.version == v }
		}
	}
	for ref, match := range refs {
		var want []vocab.ContentID
		for c, s := range m {
			if match(s) {
				want = append(want, c)
			}
		}
		slices.SortFunc(want, func(a, b vocab.ContentID) int { return a.Compare(b) })
		if n, err := CountDependants(tx, tenant, ref); err != nil || n != int64(len(want)) {
			t.Fatal(ref, "has", n, "licenses,", err, "want", len(want))
		}
		first, last, err := EndDependants(tx, tenant, ref)
		if err != nil || len(want) == 0 && (!first.IsZero() || !last.IsZero()) || len(want) > 0 && (first != want[0] || last != want[len(want)-1]) {
			t.Fatal(ref, "is from", first, "to", last, err)
		}
		var got []vocab.ContentID
		for after := (vocab.ContentID{}); ; {
			page, err := NextDependants(tx, tenant, ref, after, 2)
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, page...); len(page) < 2 {
				break
			}
			after = page[len(page)-1]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(ref, "in pages (-want +got):", diff)
		}
	}
}

// When the last license leaves something is written down, and only then.
func TestWhatIsLeft(t *testing.T) {
	tx := memory()
	left := func(ref KeyRef) time.Time {
		u, err := GetKeyUse(tx, tenantA, ref)
		if err != nil {
			t.Fatal(err)
		}
		return u.Left.Time()
	}
	put := func(c byte, s shape, at time.Time) {
		l := licenseOf(t, vocab.ContentID{0: c, 6: 0x70, 15: 1}, s)
		l.Updated = ToMillis(at)
		if err := PutLicense(tx, tenantA, l); err != nil {
			t.Fatal(err)
		}
	}
	g1, v1 := GenerationRef(generations[0]), VersionRef(custodians[1], 1)
	under := shape{owner: "alice", generation: generations[0]}
	strict := shape{owner: "alice", generation: generations[0], custodian: custodians[1], version: 1}
	moved := shape{owner: "alice", generation: generations[1]}
	put(1, under, start)
	put(2, under, start)
	put(1, shape{owner: "bob", generation: generations[0]}, start.Add(time.Hour)) // an edit moves nothing
	put(1, moved, start.Add(2*time.Hour))
	if at := left(g1); !at.IsZero() {
		t.Errorf("one of two left at %s, and that was taken for the last", at)
	}
	put(2, strict, start.Add(3*time.Hour))
	if at := left(g1); !at.Equal(start.Add(3 * time.Hour)) {
		t.Errorf("the last left at %s, want three hours after the start", at)
	}
	put(2, moved, start.Add(4*time.Hour))
	if at := left(v1); !at.Equal(start.Add(4 * time.Hour)) {
		t.Errorf("the last strict license left at %s, want four hours after the start", at)
	}
	// Times only grow.
	for _, at := range []time.Time{start.Add(5 * time.Hour), start} {
		if err := NoteUse(tx, tenantA, v1, at); err != nil {
			t.Fatal(err)
		}
		if err := NoteLeft(tx, tenantA, v1, ToMillis(start)); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := GetKeyUse(tx, tenantA, v1); err != nil || !u.Used.Time().Equal(start.Add(5*time.Hour)) || !u.Left.Time().Equal(start.Add(4*time.Hour)) {
		t.Errorf("%+v, %v", u, err)
	}
	if problems, _ := findings(t, tx, tenantA); len(problems) > 0 {
		t.Errorf("the check finds %q", problems)
	}
}

// What the inventory counts by is compared with the licenses, and each
// difference is said.
func TestCheckDependants(t *testing.T) {
	tx := memory()
	for i := range byte(5) {
		mustPut(t, tx, tenantA, licenseOf(t, vocab.ContentID{0: i + 1, 6: 0x70, 15: 1}, shape{owner: "alice", generation: generations[i%2]}))
	}
	check := func() (problems []string) {
		if _, err := CheckDependants(tx, tenantA, func(err error) { problems = append(problems, err.Error()) }); err != nil {
			t.Fatal(err)
		}
		return problems
	}
	if p := check(); len(p) > 0 {
		t.Fatalf("the check finds %q in what is right", p)
	}
	table, prefix := GenerationRef(generations[0]).table(tenantA)
	for name, spoil := range map[string]func() (undo func()){
		"a count": func() func() {
			k := countKey(table, prefix)
			_ = tx.Put(tableCounts, k, u64(9))
			return func() { _ = tx.Put(tableCounts, k, u64(3)) }
		},
		"a license missing from the index": func() func() {
			k := append(slices.Clone(prefix), content(1)[:]...)
			_ = tx.Delete(table, k)
			return func() { _ = tx.Put(table, k, nil) }
		},
		"a stranger in the index": func() func() {
			k := append(slices.Clone(prefix), content(2)[:]...)
			_ = tx.Put(table, k, nil)
			return func() { _ = tx.Delete(table, k) }
		},
		"a use that cannot be read": func() func() {
			_ = tx.Put(tableKeyUses, prefix, []byte{0xff})
			return func() { _ = tx.Delete(tableKeyUses, prefix) }
		},
	} {
		undo := spoil()
		if len(check()) == 0 {
			t.Errorf("%s is not found", name)
		}
		undo()
	}
	if p := check(); len(p) > 0 {
		t.Errorf("in the end the check finds %q", p)
	}
}

func content(n byte) *vocab.ContentID { return &vocab.ContentID{0: n, 6: 0x70, 15: 1} }
