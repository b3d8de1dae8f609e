package rmsctl

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// licenseWith is a license with grants, written as --to has them with " until
// HOURS" behind; "-" in front of the hours is the past.
func licenseWith(t *testing.T, kind rmsv1.AdHocPolicy_Kind, grants ...string) *rmsv1.License {
	t.Helper()
	p := &rmsv1.AdHocPolicy{Kind: kind}
	for _, s := range grants {
		to, hours, ends := strings.Cut(s, " until ")
		terms := termsFlags{}
		if !strings.Contains(to, "=") {
			to += "=viewer"
		}
		list, err := terms.grants([]string{to}, noon)
		if err != nil {
			t.Fatal(err)
		}
		if ends {
			d, err := time.ParseDuration(hours)
			if err != nil {
				t.Fatal(err)
			}
			list[0].Until = noon.Add(d)
		}
		if kind != rmsv1.AdHocPolicy_KIND_GRANTS {
			list[0].Rights = policy.DoNotForward()
		}
		p.Grants = append(p.Grants, grantProto(list[0]))
	}
	return &rmsv1.License{ContentId: "ID", Policy: &rmsv1.License_AdHoc{AdHoc: p}}
}

func TestShareAndUnshare(t *testing.T) {
	const grants, equal = rmsv1.AdHocPolicy_KIND_GRANTS, rmsv1.AdHocPolicy_KIND_DO_NOT_FORWARD
	for _, tt := range []struct {
		name       string
		now        *rmsv1.License
		share      []string
		terms      termsFlags
		unshare    []string
		said, undo []string
		exit       int
	}{
		{
			name: "somebody new", now: licenseWith(t, grants, "bob@x.org=viewer"), share: []string{"eve@x.org=reviewer"},
			said: []string{"eve@x.org is reviewer now"}, undo: []string{"rmsctl license unshare ID --to eve@x.org"},
		},
		{
			name: "with conditions", now: licenseWith(t, grants, "bob@x.org=viewer"), share: []string{"group:g@x.org=VIEW+PRINT"},
			terms: termsFlags{until: "+24h", login: "mfa", networks: []string{"10.0.0.0/8"}},
			said:  []string{"group:g@x.org is VIEW PRINT until 2026-11-23 12:00:00Z with a second factor from 10.0.0.0/8 now"},
			undo:  []string{"rmsctl license unshare ID --to group:g@x.org"},
		},
		{
			name: "in place of another grant", now: licenseWith(t, grants, "bob@x.org=VIEW+PRINT until 1h", "carol@x.org=viewer"),
			share: []string{"bob@x.org=co-author,eve@x.org=viewer"},
			said:  []string{"bob@x.org: VIEW PRINT until 2026-11-22 13:00:00Z → co-author", "eve@x.org is viewer now"},
			undo:  []string{"rmsctl license unshare ID --to eve@x.org", "rmsctl license share ID --to bob@x.org=VIEW+PRINT --until 2026-11-22T13:00:00Z"},
		},
		{
			name: "what is there already", now: licenseWith(t, grants, "bob@x.org=viewer"), share: []string{"bob@x.org=viewer"},
			said: []string{"bob@x.org is viewer already"},
		},
		{
			name: "in place of several, which no one command gives again", now: licenseWith(t, grants, "bob@x.org=viewer", "bob@x.org=reviewer until 1h"),
			share: []string{"bob@x.org=co-owner"}, said: []string{"bob@x.org: viewer and reviewer until 2026-11-22 13:00:00Z → co-owner"},
		},
		{name: "twice the same", now: licenseWith(t, grants, "bob@x.org=viewer"), share: []string{"a@x.org=viewer", "a@x.org=co-owner"}, exit: exitUsage},
		{name: "no rights", now: licenseWith(t, grants, "bob@x.org=viewer"), share: []string{"a@x.org"}, exit: exitUsage},
		{
			name: "a recipient", now: licenseWith(t, equal, "bob@x.org"), share: []string{"eve@x.org", "bob@x.org"},
			said: []string{"eve@x.org is " + policy.DoNotForward().String() + " now", "bob@x.org is " + policy.DoNotForward().String() + " already"},
			undo: []string{"rmsctl license unshare ID --to eve@x.org"},
		},
		{name: "a recipient with rights", now: licenseWith(t, equal, "bob@x.org"), share: []string{"eve@x.org=viewer"}, exit: exitUsage},
		{name: "a recipient with an end", now: licenseWith(t, equal, "bob@x.org"), share: []string{"eve@x.org"}, terms: termsFlags{until: "+1d"}, exit: exitUsage},
		{
			name: "take away", now: licenseWith(t, grants, "bob@x.org=viewer until 1h", "carol@x.org=viewer", "group:g@x.org=co-owner until 1h"),
			unshare: []string{"bob@x.org", "group:g@x.org"},
			said: []string{
				"no longer shared with bob@x.org, who was viewer until 2026-11-22 13:00:00Z",
				"no longer shared with group:g@x.org, who was co-owner until 2026-11-22 13:00:00Z",
			},
			undo: []string{"rmsctl license share ID --to bob@x.org=viewer --to group:g@x.org=co-owner --until 2026-11-22T13:00:00Z"},
		},
		{name: "take away from nobody", now: licenseWith(t, grants, "bob@x.org=viewer", "eve@x.org=viewer"), unshare: []string{"carol@x.org"}, exit: exitNotFound},
		{name: "take away all there is", now: licenseWith(t, grants, "bob@x.org=viewer"), unshare: []string{"bob@x.org"}, exit: exitConflict},
		{
			name: "take away a recipient", now: licenseWith(t, equal, "bob@x.org", "o'hara@x.org"), unshare: []string{"o'hara@x.org"},
			said: []string{"no longer shared with o'hara@x.org, who was " + policy.DoNotForward().String()},
			undo: []string{`rmsctl license share ID --to 'o'\''hara@x.org'`},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &app{stderr: io.Discard, now: func() time.Time { return noon }}
			var e *edit
			var err error
			if tt.unshare != nil {
				var people []vocab.Principal
				people, err = parsePrincipals(tt.unshare)
				if err == nil {
					e, err = a.unshare(tt.now, tt.now.GetAdHoc(), people)
				}
			} else {
				var given []policy.Grant
				given, err = sharedWith(tt.now.GetAdHoc(), tt.share, &tt.terms, noon)
				if err == nil {
					e, err = a.share(tt.now, tt.now.GetAdHoc(), given)
				}
			}
			if tt.exit != 0 {
				if describe(err).Exit != tt.exit {
					t.Fatalf("%v, want exit %d", err, tt.exit)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([][]string{tt.said, tt.undo}, [][]string{e.said, e.undo}); diff != "" {
				t.Error(diff)
			}
			if changes := len(e.fields) > 0; changes != slices.ContainsFunc(tt.said, func(s string) bool { return !strings.HasSuffix(s, "already") }) {
				t.Errorf("writes: %v", changes)
			}
		})
	}
}

func TestExtend(t *testing.T) {
	const grants = rmsv1.AdHocPolicy_KIND_GRANTS
	later := noon.Add(48 * time.Hour)
	for _, tt := range []struct {
		name       string
		now        *rmsv1.License
		until      time.Time
		to         []string
		said, undo []string
		exit       int
	}{
		{
			name: "all that end", now: licenseWith(t, grants, "bob@x.org=viewer until 1h", "carol@x.org=viewer", "dan@x.org=reviewer until 2h", "eve@x.org=viewer until 1h"), until: later,
			said: []string{
				"bob@x.org: viewer until 2026-11-22 13:00:00Z → viewer until 2026-11-24 12:00:00Z",
				"dan@x.org: reviewer until 2026-11-22 14:00:00Z → reviewer until 2026-11-24 12:00:00Z",
				"eve@x.org: viewer until 2026-11-22 13:00:00Z → viewer until 2026-11-24 12:00:00Z",
			},
			undo: []string{
				"rmsctl license extend ID --until 2026-11-22T13:00:00Z --to bob@x.org --to eve@x.org",
				"rmsctl license extend ID --until 2026-11-22T14:00:00Z --to dan@x.org",
			},
		},
		{
			name: "of one, for good", now: licenseWith(t, grants, "bob@x.org=viewer until 1h", "eve@x.org=viewer until 1h"), to: []string{"eve@x.org"},
			said: []string{"eve@x.org: viewer until 2026-11-22 13:00:00Z → viewer"},
			undo: []string{"rmsctl license share ID --to eve@x.org=viewer --until 2026-11-22T13:00:00Z"},
		},
		{
			name: "what has ended", now: licenseWith(t, grants, "bob@x.org=viewer until -1h"), until: later,
			said: []string{"bob@x.org: viewer until 2026-11-22 11:00:00Z (ended) → viewer until 2026-11-24 12:00:00Z"},
			undo: []string{"rmsctl license unshare ID --to bob@x.org"},
		},
		{
			name: "one of several", now: licenseWith(t, grants, "bob@x.org=viewer", "bob@x.org=co-owner until 1h"), until: later,
			said: []string{"bob@x.org: co-owner until 2026-11-22 13:00:00Z → co-owner until 2026-11-24 12:00:00Z"},
		},
		{
			name: "already so", now: licenseWith(t, grants, "bob@x.org=viewer until 48h"), until: later,
			said: []string{"bob@x.org is viewer until 2026-11-24 12:00:00Z already"},
		},
		{name: "nothing ends", now: licenseWith(t, grants, "bob@x.org=viewer"), until: later, exit: exitNotFound},
		{name: "of somebody whose rights do not end", now: licenseWith(t, grants, "bob@x.org=viewer", "eve@x.org=viewer until 1h"), to: []string{"bob@x.org"}, until: later, exit: exitNotFound},
		{name: "of recipients", now: licenseWith(t, rmsv1.AdHocPolicy_KIND_DO_NOT_FORWARD, "bob@x.org"), until: later, exit: exitUsage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := &app{stderr: io.Discard, now: func() time.Time { return noon }}
			people, err := parsePrincipals(tt.to)
			if err != nil {
				t.Fatal(err)
			}
			e := &edit{}
			err = a.extendRights(e, tt.now, tt.now.GetAdHoc(), tt.until, people)
			if tt.exit != 0 {
				if describe(err).Exit != tt.exit {
					t.Fatalf("%v, want exit %d", err, tt.exit)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([][]string{tt.said, tt.undo}, [][]string{e.said, e.undo}); diff != "" {
				t.Error(diff)
			}
		})
	}
}
