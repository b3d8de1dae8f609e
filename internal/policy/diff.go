package policy

import (
	"maps"
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// Change is what a template edit means for one principal.
type Change struct {
	To vocab.Principal
	// Gains and Loses are the rights the principal's grants name after but
	// not before, and before but not after. Both empty: only ends or
	// conditions changed.
	Gains, Loses vocab.Rights
	// Before and After are the principal's grants, in order.
	Before, After []Grant
}

// Diff compares two revisions of a template. The changes are those of
// principals whose grants differ, in the order of [vocab.Principal.Compare];
// the order of different principals' grants means nothing. Fields names what
// else differs, by the keys of template files.
func Diff(before, after *Template) (changes []Change, fields []string) {
	was, is := byPrincipal(before.Grants), byPrincipal(after.Grants)
	everybody := slices.AppendSeq(slices.Collect(maps.Keys(was)), maps.Keys(is))
	slices.SortFunc(everybody, vocab.Principal.Compare)
	for _, p := range slices.Compact(everybody) {
		if slices.EqualFunc(was[p], is[p], sameGrant) {
			continue
		}
		old, now := rightsNamed(was[p]), rightsNamed(is[p])
		changes = append(changes, Change{To: p, Gains: now &^ old, Loses: old &^ now, Before: was[p], After: is[p]})
	}
	for _, f := range []struct {
		key  string
		same bool
	}{
		{"id", before.Slug == after.Slug},
		{"names", maps.Equal(before.Names, after.Names)},
		{"descriptions", maps.Equal(before.Descriptions, after.Descriptions)},
		{"state", before.State == after.State},
		{"expires", sameExpiry(before.Expiry, after.Expiry)},
		{"offline", before.Offline == after.Offline},
		{"select", slices.Equal(before.Select, after.Select)},
		{"contact", before.Contact == after.Contact},
		{"custody", before.Custody == after.Custody},
	} {
		if !f.same {
			fields = append(fields, f.key)
		}
	}
	return changes, fields
}

func byPrincipal(grants []Grant) map[vocab.Principal][]Grant {
	out := make(map[vocab.Principal][]Grant)
	for _, g := range grants {
		out[g.To] = append(out[g.To], g)
	}
	return out
}

func rightsNamed(grants []Grant) vocab.Rights {
	var out vocab.Rights
	for _, g := range grants {
		out |= g.Rights
	}
	return out
}

func sameExpiry(a, b Expiry) bool {
	return a.Kind == b.Kind && a.After == b.After && milli(a.At).Equal(milli(b.At))
}
