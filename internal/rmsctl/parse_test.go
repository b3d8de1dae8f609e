package rmsctl

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestPeriodsAndTimes(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"0": 0, "7d": 7 * day, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute, "10s": 10 * time.Second,
		"": -1, "7": -1, "d": -1, "-1d": -1, "-5h": -1, "99999999d": -1, "1w": -1, "1.5d": -1,
	} {
		got, err := parseDuration(in)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("parseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
		if err == nil {
			if again, err := parseDuration(showDuration(got)); err != nil || again != got {
				t.Errorf("showDuration(%v) = %q does not read back", got, showDuration(got))
			}
		}
	}
	for in, want := range map[string]string{
		"+30d":                      "2026-12-22T12:00:00Z",
		"2027-06-30T18:00:00+02:00": "2027-06-30T16:00:00Z",
		"2027-06-30T18:00:00":       "", // no zone
		"2027-06-30":                "",
		"30d":                       "", // ago or ahead?
		"+0":                        "",
		"":                          "",
	} {
		got, err := parseInstant(in, noon)
		if (err != nil) != (want == "") || err == nil && got.Format(time.RFC3339) != want {
			t.Errorf("parseInstant(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	if got, err := parseSince("7d", noon); err != nil || !got.Equal(noon.Add(-7*day)) {
		t.Errorf("parseSince(7d) = %v, %v", got, err)
	}
}

func TestGrantsOnTheCommandLine(t *testing.T) {
	user := func(a string) vocab.Principal { return vocab.Principal{Kind: vocab.KindUser, Value: a} }
	for _, tt := range []struct {
		in   []string
		want []policy.Grant // nil: refused
	}{
		{[]string{"Bob@Fabrikam.com=viewer"}, []policy.Grant{{To: user("bob@fabrikam.com"), Rights: policy.Viewer.Rights(), Until: noon}}},
		{[]string{"a@x.org=reviewer, user:b@x.org=view+PRINT", "group:g@x.org=co-owner"}, []policy.Grant{
			{To: user("a@x.org"), Rights: policy.Reviewer.Rights(), Until: noon},
			{To: user("b@x.org"), Rights: vocab.RightsOf(vocab.RightView, vocab.RightPrint), Until: noon},
			{To: vocab.Principal{Kind: vocab.KindGroup, Value: "g@x.org"}, Rights: policy.CoOwner.Rights(), Until: noon},
		}},
		{[]string{"a=b@x.org=viewer"}, []policy.Grant{{To: user("a=b@x.org"), Rights: policy.Viewer.Rights(), Until: noon}}},
		{[]string{"anyone=viewer"}, []policy.Grant{{To: vocab.Principal{Kind: vocab.KindAnyone}, Rights: policy.Viewer.Rights(), Until: noon}}},
		{[]string{"bob@fabrikam.com"}, nil},
		{[]string{"bob@fabrikam.com="}, nil},
		{[]string{"bob=viewer"}, nil},
		{[]string{"bob@fabrikam.com=reader"}, nil},
		{[]string{"bob@fabrikam.com=VIEW+FLY"}, nil},
	} {
		terms := termsFlags{until: "2026-11-22T12:00:00Z"} // noon
		got, err := terms.grants(tt.in, noon)
		if (err != nil) != (tt.want == nil) {
			t.Errorf("--to %q: %v", tt.in, err)
		}
		if diff := cmp.Diff(tt.want, got); err == nil && diff != "" {
			t.Errorf("--to %q (-want +got):\n%s", tt.in, diff)
		}
		if err != nil && describe(err).Exit != exitUsage {
			t.Errorf("--to %q exits %d", tt.in, describe(err).Exit)
		}
	}
}

func TestTermsOfGrants(t *testing.T) {
	bob := policy.Grant{To: vocab.Principal{Kind: vocab.KindUser, Value: "bob@x.org"}, Rights: policy.Viewer.Rights()}
	with := func(change func(*policy.Grant)) *policy.Grant { g := bob; change(&g); return &g }
	for _, tt := range []struct {
		terms termsFlags
		want  *policy.Grant // nil: refused
	}{
		{termsFlags{}, &bob},
		{termsFlags{login: "any"}, &bob},
		{termsFlags{login: "mfa"}, with(func(g *policy.Grant) { g.Login = policy.LoginMFA })},
		{termsFlags{until: "+1d"}, with(func(g *policy.Grant) { g.Until = noon.Add(24 * time.Hour) })},
		{termsFlags{networks: []string{"192.168.0.0/16, 10.20.0.0/16", "10.20.0.0/16"}}, with(func(g *policy.Grant) {
			g.Networks = []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("192.168.0.0/16")}
		})},
		{termsFlags{login: "strong"}, nil},
		{termsFlags{until: "tomorrow"}, nil},
		{termsFlags{networks: []string{"10.0.0.1/8"}}, nil},
		{termsFlags{networks: []string{"office"}}, nil},
	} {
		got, err := tt.terms.grants([]string{"bob@x.org=viewer"}, noon)
		if tt.want == nil {
			if describe(err).Exit != exitUsage {
				t.Errorf("%+v: %v, %v", tt.terms, got, err)
			}
			continue
		}
		if err != nil || len(got) != 1 || !policy.SameGrant(got[0], *tt.want) {
			t.Errorf("%+v: %v, %v", tt.terms, got, err)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for in, want := range map[int64]string{0: "0", 12: "12", 999: "999", 1000: "1,000", 311204: "311,204", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := group(in); got != want {
			t.Errorf("group(%d) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[int64]string{0: "0 B", 999: "999 B", 1300000: "1.3 MB", 41_200_000: "41.2 MB"} {
		if got := showSize(in); got != want {
			t.Errorf("showSize(%d) = %q, want %q", in, got, want)
		}
	}
}

// The API's numbers of rights are one higher than the formats'.
func TestRightsTranslateBothWays(t *testing.T) {
	if got := rightsOf(rightsProto(vocab.AllRights)); got != vocab.AllRights {
		t.Errorf("there and back: %v", got)
	}
	for _, r := range rightsProto(vocab.AllRights) {
		if want := "RIGHT_" + vocab.Right(r-1).String(); r.String() != want {
			t.Errorf("%v is translated as %s", r, want)
		}
	}
	if got := rightsOf(append(rightsProto(vocab.RightsOf(vocab.RightView)), 0, 15, -1, 400)); got != vocab.RightsOf(vocab.RightView) {
		t.Errorf("unknown rights count: %v", got)
	}
}
