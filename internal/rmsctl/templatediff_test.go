package rmsctl

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func base() *policy.Template {
	group := func(a string) vocab.Principal { return vocab.Principal{Kind: vocab.KindGroup, Value: a} }
	return &policy.Template{
		Slug: "finance-internal", Names: map[string]string{"en": "Finance"}, State: policy.StatePublished,
		Grants: []policy.Grant{
			{To: group("finance@contoso.com"), Rights: policy.CoOwner.Rights()},
			{To: group("audit@contoso.com"), Rights: policy.Viewer.Rights()},
		},
		Offline: 7 * policy.Day, Contact: "help@contoso.com",
	}
}

func TestTemplateDiff(t *testing.T) {
	interns := vocab.Principal{Kind: vocab.KindGroup, Value: "interns@contoso.com"}
	until := time.Date(2026, 11, 27, 17, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		edit func(*policy.Template)
		want []string
	}{
		{"nothing", func(*policy.Template) {}, nil},
		{"only what the server sets", func(t *policy.Template) { t.Revision, t.Author, t.Comment, t.Time = 9, "x", "y", until }, nil},
		{
			"somebody gains", func(t *policy.Template) {
				t.Grants = append(t.Grants, policy.Grant{To: interns, Rights: policy.Viewer.Rights(), Until: until})
			},
			[]string{"+ group:interns@contoso.com  gains viewer until 2026-11-27 17:00:00Z"},
		},
		{"somebody loses", func(t *policy.Template) { t.Grants = t.Grants[:1] }, []string{"- group:audit@contoso.com  loses viewer"}},
		{
			"fewer rights", func(t *policy.Template) { t.Grants[0].Rights = policy.CoAuthor.Rights() },
			// The owner's rights are all; COMMENT is in no level but through OWNER.
			[]string{"- group:finance@contoso.com  co-owner → co-author: loses COMMENT EXPORT OWNER EDITRIGHTSDATA"},
		},
		{
			"more rights", func(t *policy.Template) { t.Grants[1].Rights = policy.Reviewer.Rights() },
			[]string{"+ group:audit@contoso.com  viewer → reviewer: gains DOCEDIT EDIT FORWARD REPLY REPLYALL"},
		},
		{
			"conditions", func(t *policy.Template) {
				t.Grants[1].Login, t.Grants[1].Networks = policy.LoginMFA, []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}
			},
			[]string{"- group:audit@contoso.com  viewer → viewer with a second factor from 10.20.0.0/16"},
		},
		{
			"a second grant", func(t *policy.Template) {
				t.Grants = append(t.Grants, policy.Grant{To: t.Grants[1].To, Rights: policy.CoAuthor.Rights(), Until: until})
			},
			[]string{"+ group:audit@contoso.com  viewer → viewer and co-author until 2026-11-27 17:00:00Z: gains DOCEDIT EDIT FORWARD PRINT REPLY REPLYALL EXTRACT"},
		},
		{
			"many grants", func(t *policy.Template) {
				t.Grants = t.Grants[:1]
				for i := range 6 {
					t.Grants = append(t.Grants, policy.Grant{To: interns, Rights: policy.Viewer.Rights(), Until: until.Add(time.Duration(i) * time.Hour)})
				}
			},
			[]string{
				"- group:audit@contoso.com  loses viewer",
				"+ group:interns@contoso.com  gains viewer until 2026-11-27 17:00:00Z, viewer until 2026-11-27 18:00:00Z, " +
					"viewer until 2026-11-27 19:00:00Z, viewer until 2026-11-27 20:00:00Z and 2 more",
			},
		},
		{
			"an end that has passed", func(t *policy.Template) {
				t.Grants = append(t.Grants, policy.Grant{To: interns, Rights: policy.Viewer.Rights(), Until: noon})
			},
			[]string{"~ group:interns@contoso.com  none → viewer until 2026-11-22 12:00:00Z (ended)"},
		},
		{
			"the order of one's grants", func(t *policy.Template) {
				t.Grants = []policy.Grant{t.Grants[1], t.Grants[0]}
			},
			[]string{"~ grants: the same in another order"},
		},
		{
			"everything else", func(t *policy.Template) {
				t.State, t.Offline, t.Custody, t.Contact = policy.StateArchived, 0, vocab.CustodyStrict, ""
				t.Expiry = policy.Expiry{Kind: policy.ExpiryAfter, After: 90 * policy.Day}
				t.Select = []vocab.Principal{interns}
				t.Names = map[string]string{"en": "Finance – internal", "de": "Finanzen"}
			},
			[]string{
				"~ name (de): none → Finanzen",
				"~ name (en): Finance → Finance – internal",
				"~ state: published → archived",
				"~ expires: never → 90d after protection",
				"~ offline: 7d → 0",
				"~ select: none → group:interns@contoso.com",
				"~ contact: help@contoso.com → none",
				"~ custody: the tenant's → strict",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			edited := base()
			tt.edit(edited)
			if diff := cmp.Diff(tt.want, (&app{now: func() time.Time { return noon }}).templateDiff(base(), edited)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What is sent is what is read back: a template that a file describes is
// unchanged after it was applied.
func TestTemplateTranslatesBothWays(t *testing.T) {
	full := base()
	full.Grants[0].Until = noon
	full.Grants[1].Login = policy.LoginMFA
	full.Grants[1].Networks = []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("2001:db8:20::/48")}
	full.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate, At: noon}
	full.Select = []vocab.Principal{full.Grants[0].To}
	full.Custody = vocab.CustodyStrict
	full.Descriptions = map[string]string{"en": "d"}
	for _, tt := range []*policy.Template{base(), full} {
		got, err := templateFrom(templateProto("tenants/contoso/templates/"+tt.Slug, tt))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("(-sent +read):\n%s", diff)
		}
	}
	for _, offline := range []time.Duration{0, policy.OfflineMax} {
		tt := base()
		tt.Offline = offline
		if got, err := templateFrom(templateProto("x/"+tt.Slug, tt)); err != nil || got.Offline != offline {
			t.Errorf("offline %v comes back as %v, %v", offline, got.Offline, err)
		}
	}
}
