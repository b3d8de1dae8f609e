package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func TestDiff(t *testing.T) {
	before := finance()
	before.Grants = []policy.Grant{
		{To: who("group:finance@contoso.com"), Rights: policy.CoOwner.Rights()},
		{To: who("user:bob@contoso.com"), Rights: policy.Viewer.Rights()},
		{To: who("anyone"), Rights: policy.Viewer.Rights()},
	}
	after := finance()
	after.Grants = []policy.Grant{
		{To: who("anyone"), Rights: policy.Viewer.Rights()}, // only moved
		{To: who("group:finance@contoso.com"), Rights: policy.CoAuthor.Rights()},
		{To: who("group:interns@contoso.com"), Rights: policy.Viewer.Rights(), Until: t0},
		{To: who("user:bob@contoso.com"), Rights: policy.Viewer.Rights(), Login: policy.LoginMFA},
	}
	after.Offline, after.Names = 0, map[string]string{"en": "Finance", "de": "Finanzen"}
	changes, fields := policy.Diff(before, after)
	want := []policy.Change{
		{To: who("user:bob@contoso.com"), Before: before.Grants[1:2], After: after.Grants[3:]},
		{To: who("group:finance@contoso.com"), Before: before.Grants[:1], After: after.Grants[1:2],
			Loses: vocab.RightsOf(vocab.RightOwner, vocab.RightExport, vocab.RightEditRightsData)},
		{To: who("group:interns@contoso.com"), After: after.Grants[2:3], Gains: policy.Viewer.Rights()},
	}
	if d := cmp.Diff(want, changes, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"names", "offline"}, fields); d != "" {
		t.Error(d)
	}
}

func TestDiffOfEachField(t *testing.T) {
	for key, change := range map[string]func(*policy.Template){
		"id":           func(t *policy.Template) { t.Slug = "other" },
		"descriptions": func(t *policy.Template) { t.Descriptions = map[string]string{"en": "x"} },
		"state":        func(t *policy.Template) { t.State = policy.StateArchived },
		"expires":      func(t *policy.Template) { t.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate, At: t0.Add(time.Hour)} },
		"select":       func(t *policy.Template) { t.Select = nil },
		"contact":      func(t *policy.Template) { t.Contact = "a@contoso.com" },
		"custody":      func(t *policy.Template) { t.Custody = 0 },
	} {
		after := finance()
		change(after)
		changes, fields := policy.Diff(finance(), after)
		if len(changes) != 0 || !cmp.Equal(fields, []string{key}) {
			t.Errorf("%s: %v %v", key, changes, fields)
		}
	}
	if changes, fields := policy.Diff(finance(), finance()); changes != nil || fields != nil {
		t.Errorf("%v %v", changes, fields)
	}
}
