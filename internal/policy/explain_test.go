package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// contradiction finds where the trace of a world does not agree with the
// decision, or with itself; "" if it does. Paging through the grants, it
// compares only if asked to.
func (w *world) contradiction(paging bool) string {
	in := w.input()
	want, got := policy.Evaluate(in), policy.Explain(in, policy.Listing{})
	describe := func(format string, args ...any) string {
		return fmt.Sprintf("%s\n decision: %+v\n trace: %+v\n world: %+v", fmt.Sprintf(format, args...), want, got, *w)
	}
	if !reflect.DeepEqual(want, got.Decision) {
		return describe("another decision")
	}
	// The reason is that of the first check that failed.
	var first vocab.Reason
	for _, c := range got.Checks {
		switch {
		case (c.Outcome == policy.Failed) != (c.Reason != ""):
			return describe("check %s has outcome %d and reason %q", c.Name, c.Outcome, c.Reason)
		case c.Outcome == policy.Failed && first == "":
			first = c.Reason
		case c.Outcome == policy.Moot && first == "":
			return describe("check %s has no answer though nothing failed before it", c.Name)
		}
	}
	if first != want.Reason {
		return describe("the first check that failed says %q", first)
	}
	if s := w.contradictoryGrants(in, got, paging); s != "" {
		return describe("%s", s)
	}
	if want.Allowed {
		if s := contradictoryBounds(got); s != "" {
			return describe("%s", s)
		}
		return ""
	}
	return w.contradictoryRemedies(in, got, describe)
}

func (w *world) contradictoryGrants(in policy.Input, got policy.Trace, paging bool) string {
	if got.Reason == vocab.ReasonInternal || got.GrantCount == 0 {
		return ""
	}
	all := policy.Explain(in, policy.Listing{All: true})
	if len(all.Grants) != len(w.grants) || all.NextGrant != 0 {
		return fmt.Sprintf("%d grants in all", len(all.Grants))
	}
	var paged []policy.ListedGrant
	for from, more := 0, paging; more; more = from != 0 {
		page := policy.Explain(in, policy.Listing{All: true, From: from, Limit: 2})
		paged, from = append(paged, page.Grants...), page.NextGrant
	}
	if paging && !slices.EqualFunc(all.Grants, paged, sameListed) {
		return "page by page the grants are others"
	}
	var counting vocab.Rights
	named := 0
	for i, g := range all.Grants {
		if g.Index != i {
			return "a grant has another place"
		}
		if g.Named {
			named++
		}
		if g.Counts() {
			counting |= g.Grant.Rights
		}
	}
	if named != got.Matched {
		return fmt.Sprintf("%d grants name the caller, %d matched", named, got.Matched)
	}
	if got.Allowed && got.Role == policy.RoleNone && !got.Recovery && counting.Effective() != got.Rights {
		return fmt.Sprintf("the grants that count give [%s]", counting.Effective())
	}
	for _, g := range got.Grants {
		if g.Named == g.Near {
			return "a listed grant neither names the caller nor is near, or both"
		}
		if !g.Near || g.Grant.To.Kind != vocab.KindGroup || g.NeedsLogin || g.NeedsNetwork || len(got.KnownAs) == 0 {
			continue
		}
		// Whoever is put into a near group is not refused for want of rights.
		joined := in
		caller := *in.Caller
		caller.Groups = append(slices.Clone(caller.Groups), g.Grant.To.Value)
		joined.Caller = &caller
		again := policy.Evaluate(joined)
		if again.Revoked && !again.Allowed {
			continue // perhaps, for a group that nobody knows of
		}
		switch r := again.Reason; r {
		case vocab.ReasonNoRights, vocab.ReasonRightNotGranted, vocab.ReasonGrantEnded, vocab.ReasonGroupsIncomplete,
			vocab.ReasonStrongerLoginRequired, vocab.ReasonNetworkNotAllowed:
			return fmt.Sprintf("grant %d is said to be near, but in its group it is %s", g.Index, r)
		}
	}
	return ""
}

func sameListed(a, b policy.ListedGrant) bool {
	return a.Index == b.Index && a.Named == b.Named && a.Grant.To == b.Grant.To && a.Ended == b.Ended && a.NeedsLogin == b.NeedsLogin && a.NeedsNetwork == b.NeedsNetwork
}

func contradictoryBounds(got policy.Trace) string {
	var first time.Time
	sets := 0
	for _, b := range got.Bounds {
		if b.Binds && (first.IsZero() || b.End.Before(first)) {
			first = b.End
		}
		if b.Sets {
			sets++
			if !b.Binds || !b.End.Equal(got.NotAfter) || b.Limit != got.Limit {
				return fmt.Sprintf("%s is said to set the end", b.Limit)
			}
		}
	}
	if sets != 1 || !first.Equal(got.NotAfter) {
		return fmt.Sprintf("%d bounds set the end, and the first that binds is %s", sets, first)
	}
	return ""
}

func (w *world) contradictoryRemedies(in policy.Input, got policy.Trace, describe func(string, ...any) string) string {
	if len(got.Remedies) == 0 {
		switch got.Reason {
		case vocab.ReasonRoleRequired, vocab.ReasonInternal, vocab.ReasonRequestInvalid:
			return ""
		}
		hopeless := w.template == 0 && !w.adHoc || // nothing to restore
			!w.adHoc && !w.expires.IsZero() && !w.expires.After(w.now) || // the template's expiry
			throughPerson(in.Caller) || len(in.Caller.Addresses) == 0 && in.Caller.Service == "" || // nobody to name
			w.scattered()
		if !hopeless {
			return describe("nothing is said to help")
		}
		return ""
	}
	fixed := in
	for i, r := range got.Remedies {
		if policy.Evaluate(fixed).Allowed {
			return describe("remedy %d is not needed", i)
		}
		fixed = r.After(fixed)
	}
	if d := policy.Evaluate(fixed); !d.Allowed {
		return describe("after all remedies it is %s", d.Reason)
	}
	return ""
}

func throughPerson(id *vocab.Identity) bool { return id.Actor != nil && id.Actor.Service == "" }

// scattered reports whether grants are bound to different networks, so that no
// single one may do.
func (w *world) scattered() bool {
	seen := map[string]bool{}
	for _, g := range w.grants {
		for _, n := range g.Networks {
			seen[n.String()] = true
		}
	}
	return len(seen) > 1
}

// TestPropertyTraceSequences: over 100,000 random sequences the trace says what
// the decision says.
func TestPropertyTraceSequences(t *testing.T) {
	const sequences = 100_000
	d := draw(rand.New(rand.NewPCG(7, 8)).IntN)
	for i := range sequences {
		w := d.world()
		for range 1 + d(8) {
			w.step(d)
		}
		if s := w.contradiction(i%16 == 0); s != "" {
			t.Fatalf("sequence %d: %s", i, s)
		}
	}
}

// outcomes writes the checks of a trace as a line: a plus for passed, a minus
// for failed, a tilde for exempt, a question mark for moot.
func outcomes(checks []policy.Check) string {
	var out []string
	for _, c := range checks {
		out = append(out, map[policy.Outcome]string{policy.Passed: "+", policy.Failed: "-", policy.Exempt: "~", policy.Moot: "?"}[c.Outcome]+string(c.Name))
	}
	return strings.Join(out, " ")
}

// doing writes remedies as a person would.
func doing(remedies []policy.Remedy) string {
	var out []string
	for _, r := range remedies {
		s := string(r.Kind)
		if !r.To.IsZero() {
			s += " " + r.To.String()
		}
		if r.Rights != 0 {
			s += "=" + policy.Describe(r.Rights)
		}
		if r.Domain != "" {
			s += " " + r.Domain
		}
		for _, n := range r.Networks {
			s += " " + n.String()
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func TestExplain(t *testing.T) {
	grantTo := func(to string, level policy.Level) policy.Grant {
		return policy.Grant{To: who(to), Rights: level.Rights()}
	}
	ten := netip.MustParsePrefix("10.20.0.0/16")
	secret := grantTo("group:board@contoso.com", policy.Viewer)
	secret.Login, secret.Networks = policy.LoginMFA, []netip.Prefix{ten}
	ended := grantTo("user:bob@contoso.com", policy.Reviewer)
	ended.Until = t0.Add(-time.Hour)
	for _, c := range []struct {
		name   string
		caller *vocab.Identity
		grants []policy.Grant
		change func(*policy.Input)
		adHoc  bool
		reason vocab.Reason
		checks string
		listed string // indexes; near ones in brackets
		help   string
	}{
		{
			name: "a stranger", caller: member("mallory", "all-staff@contoso.com"), adHoc: true,
			grants: []policy.Grant{grantTo("user:carol@contoso.com", policy.CoOwner), grantTo("group:partners@fabrikam.com", policy.Viewer), grantTo("group:finance@contoso.com", policy.CoAuthor)},
			reason: vocab.ReasonNoRights, checks: "+enabled +actor +admitted +policy -named +not-revoked ?right +not-expired",
			listed: "(2) (1)", help: "share user:mallory@contoso.com=viewer",
		},
		{
			name: "a stranger to a template that is revoked and expired", caller: member("mallory"),
			grants: []policy.Grant{grantTo("group:finance@contoso.com", policy.CoAuthor)},
			change: func(in *policy.Input) {
				in.Revocations = []policy.Revocation{{Scope: policy.RevokedDocument}}
				in.Policy.NotAfter = t0
			},
			reason: vocab.ReasonNoRights, checks: "+enabled +actor +admitted +policy -named -not-revoked +template ?right -not-expired",
			listed: "(0)", // nothing helps: what follows a template expires as that said
		},
		{
			name: "a right that is missing", caller: member("bob"), adHoc: true,
			grants: []policy.Grant{grantTo("user:bob@contoso.com", policy.Viewer), grantTo("group:finance@contoso.com", policy.CoAuthor)},
			change: func(in *policy.Input) { in.Right = vocab.RightExport },
			reason: vocab.ReasonRightNotGranted, checks: "+enabled +actor +admitted +policy +named +not-revoked -right +not-expired",
			listed: "0", help: "share user:bob@contoso.com=VIEW EXPORT VIEWRIGHTSDATA OBJMODEL",
		},
		{
			name: "a grant that ended, another that needs two things", caller: member("bob", "board@contoso.com"),
			grants: []policy.Grant{ended, secret},
			reason: vocab.ReasonStrongerLoginRequired, checks: "+enabled +actor +admitted +policy +named +not-revoked +template -right +not-expired",
			listed: "0 1", help: "second-factor, network 10.20.0.0/16",
		},
		{
			name: "a deleted template", caller: member("bob"), grants: []policy.Grant{grantTo("anyone", policy.Viewer)},
			change: func(in *policy.Input) {
				t := *in.Template.Template
				t.State = policy.StateDeleted
				in.Template.Template = &t
			},
			reason: vocab.ReasonTemplateDeleted, checks: "+enabled +actor +admitted +policy +named +not-revoked -template +right +not-expired",
			listed: "0", help: "undelete",
		},
		{
			name: "the issuer of a revoked, expired document", caller: member("alice"), grants: []policy.Grant{grantTo("group:finance@contoso.com", policy.Viewer)},
			change: func(in *policy.Input) {
				in.Caller.Issuer, in.Caller.Subject = "https://idp", "alice"
				in.Revocations = []policy.Revocation{{Scope: policy.RevokedDocument}}
				in.Policy.NotAfter = t0
			},
			checks: "+enabled +actor +admitted +policy +named ~not-revoked +template +right ~not-expired",
		},
		{
			name: "a recovery", caller: member("dan"), grants: []policy.Grant{grantTo("group:finance@contoso.com", policy.Viewer)},
			change: func(in *policy.Input) {
				in.Recovery = true
				in.Revocations = []policy.Revocation{{Scope: policy.RevokedTemplate}}
			},
			checks: "+enabled +actor +admitted +policy ~named ~not-revoked +template ~right +not-expired",
			listed: "(0)",
		},
		{
			name: "a guest of a domain that is not admitted", caller: &vocab.Identity{Issuer: "https://idp", Subject: "dave", Addresses: []string{"dave@evil.example"}},
			grants: []policy.Grant{grantTo("anyone", policy.Viewer)},
			reason: vocab.ReasonNoRights, checks: "+enabled +actor -admitted +policy ?named +not-revoked +template ?right +not-expired",
			help: "admit-domain evil.example",
		},
		{
			name: "disabled", caller: member("bob"), grants: []policy.Grant{grantTo("user:bob@contoso.com", policy.Viewer)},
			change: func(in *policy.Input) { in.Disabled = true },
			reason: vocab.ReasonPrincipalDisabled, checks: "-enabled +actor +admitted +policy +named +not-revoked +template +right +not-expired",
			listed: "0", help: "enable user:bob@contoso.com",
		},
		{
			name: "a template of which nothing is left", caller: member("bob"),
			change: func(in *policy.Input) { in.Template = nil },
			reason: vocab.ReasonTemplateDeleted, checks: "+enabled +actor +admitted -policy ?named +not-revoked ?right +not-expired",
		},
		{
			name: "Do Not Forward gives everybody the same", caller: member("mallory"), adHoc: true,
			grants: policy.RecipientGrants(policy.AdHocDoNotForward, []vocab.Principal{who("user:bob@contoso.com")}),
			change: func(in *policy.Input) { in.Policy.AdHoc.Kind = policy.AdHocDoNotForward },
			reason: vocab.ReasonNoRights, checks: "+enabled +actor +admitted +policy -named +not-revoked ?right +not-expired",
			help: "share user:mallory@contoso.com=VIEW DOCEDIT EDIT REPLY REPLYALL VIEWRIGHTSDATA OBJMODEL",
		},
		{
			name: "… and printing to nobody", caller: member("bob"), adHoc: true,
			grants: policy.RecipientGrants(policy.AdHocDoNotForward, []vocab.Principal{who("user:bob@contoso.com")}),
			change: func(in *policy.Input) { in.Policy.AdHoc.Kind, in.Right = policy.AdHocDoNotForward, vocab.RightPrint },
			reason: vocab.ReasonRightNotGranted, checks: "+enabled +actor +admitted +policy +named +not-revoked -right +not-expired",
			listed: "0",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := baseInput()
			caller := *c.caller
			in.Caller = &caller
			if c.adHoc {
				in.Policy.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: c.grants, Offline: policy.OfflineMax}
			} else {
				withTemplate(t, &in, "", policy.OfflineMax, c.grants)
			}
			if c.change != nil {
				c.change(&in)
			}
			got := policy.Explain(in, policy.Listing{})
			if got.Reason != c.reason {
				t.Errorf("reason %q, want %q", got.Reason, c.reason)
			}
			if d := cmp.Diff(c.checks, outcomes(got.Checks)); d != "" {
				t.Errorf("checks: %s", d)
			}
			var listed []string
			for _, g := range got.Grants {
				s := strconv.Itoa(g.Index)
				if g.Near {
					s = "(" + s + ")"
				}
				listed = append(listed, s)
			}
			if d := cmp.Diff(c.listed, strings.Join(listed, " ")); d != "" {
				t.Errorf("grants: %s", d)
			}
			if d := cmp.Diff(c.help, doing(got.Remedies)); d != "" {
				t.Errorf("remedies: %s", d)
			}
		})
	}
}

// A template of 50,000 grants is told in a few lines, and all of it in pages.
func TestExplainManyGrants(t *testing.T) {
	var grants []policy.Grant
	for i := range policy.MaxTemplateGrants {
		grants = append(grants, policy.Grant{To: who(fmt.Sprintf("group:team-%d@contoso.com", i)), Rights: policy.Viewer.Rights()})
	}
	in := baseInput()
	in.Caller = member("bob", "team-49999@contoso.com", "team-7@contoso.com")
	in.Right = vocab.RightPrint
	withTemplate(t, &in, "", policy.OfflineMax, grants)
	got := policy.Explain(in, policy.Listing{})
	if len(got.Grants) != 2 || got.Grants[0].Index != 7 || got.Grants[1].Index != 49999 || got.GrantCount != policy.MaxTemplateGrants || got.Matched != 2 {
		t.Errorf("%d of %d matched, listed: %+v", got.Matched, got.GrantCount, got.Grants)
	}
	if d := cmp.Diff("grant user:bob@contoso.com=co-author", doing(got.Remedies)); d != "" {
		t.Error(d)
	}
	seen, from := 0, 0
	for {
		page := policy.Explain(in, policy.Listing{All: true, From: from, Limit: 20_000})
		seen += len(page.Grants)
		if from = page.NextGrant; from == 0 {
			break
		}
	}
	if seen != policy.MaxTemplateGrants {
		t.Errorf("%d grants in all pages", seen)
	}
}

func TestExplainNonsense(t *testing.T) {
	for name, change := range map[string]func(*policy.Input){
		"no caller": func(in *policy.Input) { in.Caller = nil },
		"no policy": func(in *policy.Input) { in.Policy = nil },
		"no right":  func(in *policy.Input) { in.Right = 99 },
		"no clock":  func(in *policy.Input) { in.Now = time.Time{} },
	} {
		in := baseInput()
		in.Caller = member("bob")
		withTemplate(t, &in, "", 0, nil)
		change(&in)
		if got := policy.Explain(in, policy.Listing{}); got.Allowed || outcomes(got.Checks) != "-request" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// A policy that cannot be understood has no grants to tell of.
	in := baseInput()
	in.Caller = member("bob")
	in.Policy.AdHoc = &policy.AdHoc{Grants: []policy.Grant{{To: who("user:bob@contoso.com")}}}
	if got := policy.Explain(in, policy.Listing{}); got.Reason != vocab.ReasonStoreDamaged || len(got.Grants) != 0 || outcomes(got.Checks) != "+enabled +actor +admitted -policy" {
		t.Errorf("%+v", got)
	}
}

func TestExplainBounds(t *testing.T) {
	in := baseInput()
	in.Caller = member("bob")
	in.Settings.MaxOffline, in.Policy.NotAfter = 30*policy.Day, t0.Add(3*policy.Day)
	withTemplate(t, &in, "", 7*policy.Day, []policy.Grant{{To: who("user:bob@contoso.com"), Rights: policy.Viewer.Rights(), Until: t0.Add(policy.Day)}})
	want := []policy.Bound{
		{Limit: policy.LimitTenant, End: t0.Add(30 * policy.Day), Binds: true},
		{Limit: policy.LimitPolicy, End: t0.Add(7 * policy.Day), Binds: true},
		{Limit: policy.LimitContent, End: t0.Add(3 * policy.Day), Binds: true},
		{Limit: policy.LimitGrant, End: t0.Add(policy.Day), Binds: true, Sets: true},
	}
	if d := cmp.Diff(want, policy.Explain(in, policy.Listing{}).Bounds); d != "" {
		t.Error(d)
	}
	in.Custody = vocab.CustodyStrict
	want[0].Binds, want[1].Binds, want[3].Sets = false, false, false
	want = slices.Insert(want, 2, policy.Bound{Limit: policy.LimitCustody, End: t0.Add(policy.OnlineWindow), Binds: true, Sets: true})
	if d := cmp.Diff(want, policy.Explain(in, policy.Listing{}).Bounds); d != "" {
		t.Error(d)
	}
}

func TestSupposed(t *testing.T) {
	domains := []string{"contoso.com"}
	for _, c := range []struct {
		s    policy.Supposed
		want *vocab.Identity
	}{
		{policy.Supposed{Who: who("user:bob@contoso.com"), Groups: []string{"g@contoso.com"}, MFA: true, Peer: "10.0.0.1"},
			&vocab.Identity{Addresses: []string{"bob@contoso.com"}, Member: "contoso", Groups: []string{"g@contoso.com"}, MFA: true, Peer: "10.0.0.1"}},
		{policy.Supposed{Who: who("user:eve@fabrikam.com")}, &vocab.Identity{Addresses: []string{"eve@fabrikam.com"}}},
		{policy.Supposed{Who: who("service:dlp")}, &vocab.Identity{Service: "dlp"}},
		{policy.Supposed{Who: who("group:finance@contoso.com")}, nil},
		{policy.Supposed{Who: who("anyone")}, nil},
	} {
		got, err := c.s.Identity("contoso", domains)
		if (err == nil) != (c.want != nil) {
			t.Errorf("%s: %v", c.s.Who, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Error(d)
		}
	}
	p := baseInput().Policy
	alice, _ := policy.Supposed{Who: who("user:alice@contoso.com")}.Identity("contoso", domains)
	if !policy.SupposeIssuer(alice, p) || alice.Subject != "alice" {
		t.Errorf("%+v", alice)
	}
	bob, _ := policy.Supposed{Who: who("user:bob@contoso.com")}.Identity("contoso", domains)
	if policy.SupposeIssuer(bob, p) || bob.Subject != "" {
		t.Errorf("%+v", bob)
	}
	// Somebody who did sign in is who they are.
	if signed := member("alice2"); policy.SupposeIssuer(signed, &policy.Policy{Issuer: policy.Issuer{Issuer: "x", Subject: "y", Address: "alice2@contoso.com"}}) {
		t.Error("a signed-in caller became the issuer by an address")
	}
}

// BenchmarkExplain is the cost of telling the path, of few grants and of many.
func BenchmarkExplain(b *testing.B) {
	for _, n := range []int{10, policy.MaxTemplateGrants} {
		var grants []policy.Grant
		for i := range n {
			grants = append(grants, policy.Grant{To: who(fmt.Sprintf("group:team-%d@contoso.com", i)), Rights: policy.Viewer.Rights()})
		}
		c, err := policy.CompileTemplate(&policy.Template{UID: someTemplate, State: policy.StatePublished, Grants: grants, Offline: policy.OfflineMax})
		if err != nil {
			b.Fatal(err)
		}
		in := baseInput()
		in.Policy.Template, in.Template, in.Caller = someTemplate, c, member("bob", "all@contoso.com")
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				if policy.Explain(in, policy.Listing{}).Allowed {
					b.Fatal("allowed")
				}
			}
		})
	}
}
