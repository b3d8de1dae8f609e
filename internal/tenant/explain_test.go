package tenant_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

func named(t *testing.T, s string) vocab.Principal {
	t.Helper()
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// asked is a tenant with people who open and protect, and the events of it.
type asked struct {
	*kept
	t  *testing.T
	to tenant.Recipient
}

func ask(t *testing.T) *asked {
	t.Helper()
	a := &asked{kept: keep(t, quiet), t: t}
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := license.ParseRecipient(license.XWing, key.Public(), a.AllowedKEMs())
	if err != nil {
		t.Fatal(err)
	}
	a.to = tenant.Recipient{Sealed: recipient}
	return a
}

// told is a call of a member in some groups.
func told(who string, groups ...string) tenant.Call {
	return tenant.Call{Method: "test", Caller: &vocab.Identity{
		Issuer: "https://idp.contoso.test", Subject: who, Provider: "contoso", Addresses: []string{who + "@contoso.test"}, Member: "contoso",
		Groups: groups, IssuedAt: time.Now().Add(-12 * time.Minute).Truncate(time.Second), Peer: "10.0.0.1",
	}}
}

func (a *asked) publish(c tenant.Call, req tenant.PublishRequest) (*tenant.Published, vocab.EventID) {
	a.t.Helper()
	req.To = a.to
	made, err := a.Publish(a.t.Context(), c, req)
	if err != nil {
		return nil, eventOf(a.t, err)
	}
	return made, made.Event
}

func eventOf(t *testing.T, err error) vocab.EventID {
	t.Helper()
	var v *vocab.Error
	if e, ok := err.(*vocab.Error); ok { //nolint:errorlint // what the caller is told
		v = e
	}
	if v == nil || v.Event.IsZero() {
		t.Fatalf("no event: %v", err)
	}
	return v.Event
}

func (a *asked) open(c tenant.Call, made *tenant.Published, right vocab.Right) vocab.EventID {
	a.t.Helper()
	out, err := a.Acquire(a.t.Context(), c, a.to, []tenant.AcquireItem{{PublishingLicense: made.PublishingLicense, Right: right, Store: true}})
	if err != nil {
		a.t.Fatal(err)
	}
	return out.Event()
}

func (a *asked) explain(id vocab.EventID) *tenant.Explanation {
	a.t.Helper()
	x, err := a.ExplainEvent(a.t.Context(), id, policy.Listing{})
	if err != nil {
		a.t.Fatal(err)
	}
	if x.Contradiction != "" || !x.Alarm.IsZero() {
		a.t.Fatalf("%s contradicts the event: %s", id, x.Contradiction)
	}
	return x
}

func (a *asked) must(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Fatal(err)
	}
}

func toGrant(p vocab.Principal, level policy.Level) policy.Grant {
	return policy.Grant{To: p, Rights: level.Rights()}
}

func adHoc(grants ...policy.Grant) *policy.AdHoc {
	return &policy.AdHoc{Kind: policy.AdHocGrants, Grants: grants, Offline: policy.OfflineMax}
}

func template(state policy.State, grants ...policy.Grant) *policy.Template {
	return &policy.Template{
		Names: map[string]string{"en": "T"}, State: state, Grants: grants, Offline: 7 * policy.Day, Contact: "help@contoso.test",
		Expiry: policy.Expiry{Kind: policy.ExpiryAfter, After: 90 * policy.Day},
	}
}

// What an event tells of is explained the same after everything that decided
// has changed.
func TestExplanationOutlivesTheWorld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		ctx := t.Context()
		admin := told("alice")
		bob, interns, local := named(t, "user:bob@contoso.test"), named(t, "group:interns@contoso.test"), named(t, "group:local@contoso.test")
		finance := template(policy.StatePublished, toGrant(interns, policy.Viewer), toGrant(local, policy.CoAuthor))
		_, _, err := a.WriteTemplate(ctx, admin, "finance", finance, 0, false, false)
		a.must(err)
		a.must(a.PutGroup(ctx, admin, "local@contoso.test", named(t, "user:carla@contoso.test")))
		_, _, err = a.UpdateSettings(ctx, admin, 0, true, func(s *record.Settings) error { s.MaxOffline = 24 * time.Hour; return nil })
		a.must(err)

		own, published := a.publish(admin, tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.Viewer))})
		following, byTemplate := a.publish(admin, tenant.PublishRequest{Template: "finance", RequestID: "r1"})
		revoked, _ := a.publish(admin, tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.CoAuthor))})
		_, revocation, err := a.RevokeLicense(ctx, admin, revoked.License.Record.Content, "a mistake", func(vocab.Principal) error { return nil })
		a.must(err)

		events := map[string]vocab.EventID{
			"published": published, "published by template": byTemplate,
			"stranger":      a.open(told("mallory", "all-staff@contoso.test"), own, vocab.RightView),
			"granted":       a.open(told("bob"), own, vocab.RightView),
			"too much":      a.open(told("bob"), own, vocab.RightExport),
			"owner":         a.open(told("alice"), own, vocab.RightOwner),
			"intern":        a.open(told("bob", "interns@contoso.test"), following, vocab.RightView),
			"by directory":  a.open(told("carla"), following, vocab.RightPrint),
			"no intern":     a.open(told("bob"), following, vocab.RightView),
			"revoked":       a.open(told("bob"), revoked, vocab.RightView),
			"issuer passes": a.open(told("alice"), revoked, vocab.RightView),
			"through a service": a.open(func() tenant.Call {
				c := told("mallory")
				c.Caller.Actor = &vocab.Identity{Issuer: "x509", Subject: "spiffe://contoso.test/dms", Service: "dms"}
				return c
			}(), own, vocab.RightView),
		}
		_, events["no template"] = a.publish(told("bob"), tenant.PublishRequest{Template: "no-such"})
		_, events["a viewer's copy"] = a.publish(told("bob"), tenant.PublishRequest{
			AdHoc: adHoc(toGrant(bob, policy.Viewer)), Parents: []vocab.ContentID{own.License.Record.Content},
		})
		_, events["derived"] = a.publish(told("carla"), tenant.PublishRequest{Parents: []vocab.ContentID{following.License.Record.Content}})
		_, events["repeated"] = a.publish(admin, tenant.PublishRequest{Template: "finance", RequestID: "r1"})
		_, events["dry"] = a.publish(admin, tenant.PublishRequest{Template: "finance", Dry: true})
		outsider := told("dave")
		outsider.Caller.Member, outsider.Caller.Addresses = "", []string{"dave@fabrikam.test"}
		_, events["guest"] = a.publish(outsider, tenant.PublishRequest{Template: "finance"})

		for name, want := range map[string]vocab.Reason{
			"published": "", "published by template": "", "stranger": vocab.ReasonNoRights, "granted": "", "too much": vocab.ReasonRightNotGranted, "owner": "",
			"intern": "", "by directory": "", "no intern": vocab.ReasonNoRights, "revoked": vocab.ReasonLicenseRevoked, "issuer passes": "",
			"through a service": vocab.ReasonNoRights, "no template": vocab.ReasonTemplateNotInScope, "a viewer's copy": vocab.ReasonRightNotGranted,
			"derived": "", "repeated": "", "dry": "", "guest": vocab.ReasonNotAPublisher,
		} {
			if x := a.explain(events[name]); x.Event.Event.Reason != want || x.Question == 0 {
				t.Errorf("%s: recorded %q, want %q; question %d", name, x.Event.Event.Reason, want, x.Question)
			}
		}
		before := map[string]*tenant.Explanation{}
		for name, id := range events {
			before[name] = a.explain(id)
		}

		// Everything changes.
		_, _, err = a.WriteTemplate(ctx, admin, "finance", template(policy.StateArchived), 0, true, false)
		a.must(err)
		a.must(a.PutGroup(ctx, admin, "local@contoso.test"))
		for i := range 3 {
			mallory := adHoc(toGrant(named(t, "user:mallory@contoso.test"), policy.Viewer), toGrant(named(t, fmt.Sprintf("user:u%d@contoso.test", i)), policy.Viewer))
			_, _, err = a.UpdateLicense(ctx, admin, own.License.Record.Content, 0, true, tenant.LicenseEdit{AdHoc: mallory, Owner: &bob}, func(vocab.Principal) error { return nil })
			a.must(err)
			_, _, err = a.UpdateSettings(ctx, admin, 0, true, func(s *record.Settings) error {
				s.MaxOffline = time.Duration(i+1) * time.Hour
				s.GuestDomains, s.IssuerOpensRevoked = []string{"fabrikam.test"}, false
				s.Publishers = []vocab.Principal{bob}
				return nil
			})
			a.must(err)
		}
		_, _, err = a.RestoreLicense(ctx, admin, revoked.License.Record.Content, func(vocab.Principal) error { return nil })
		a.must(err)
		a.must(a.Disable(ctx, admin, bob))

		for _, name := range slices.Sorted(maps.Keys(events)) {
			after := a.explain(events[name])
			if d := cmp.Diff(before[name], after, cmpopts.IgnoreUnexported(policy.PublishDecision{}), cmp.Comparer(func(a, b vocab.Principal) bool { return a == b })); d != "" {
				t.Errorf("%s is explained otherwise now:\n%s", name, d)
			}
		}
		x := before["stranger"]
		if x.Known.Groups[0] != "all-staff@contoso.test" || x.Known.IssuedAt.IsZero() || x.Opening.GrantCount != 1 || x.Opening.Matched != 0 || x.Revision != 1 {
			t.Errorf("the stranger: %+v", x)
		}
		if k := x.Key; k == nil || k.Name != "root" || k.Number != 1 || !k.Usable() {
			t.Errorf("the key: %+v", k)
		}
		if r := before["revoked"].Revocations; len(r) != 1 || r[0].By != "alice@contoso.test" || r[0].Reason != "a mistake" || r[0].Event != revocation {
			t.Errorf("the revocation: %+v", r)
		}
		if d := before["by directory"].Known.Directory; !slices.Equal(d, []string{"local@contoso.test"}) {
			t.Errorf("groups of the directory: %v", d)
		}
		if x := before["no template"]; x.NoTemplate != "no-such" || x.Template != nil {
			t.Errorf("%+v", x)
		}
		if x := before["derived"]; !x.Publishing.Derived || x.Policy == nil || x.Policy.Owner != named(t, "user:alice@contoso.test") {
			t.Errorf("derived: %+v", x)
		}
	})
}

// A policy that allowed does not explain a custodian that refused, but says
// that it did allow; and what holds no inputs explains itself.
func TestExplainWhatThePolicyDidNotDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		admin := told("alice")
		made, _ := a.publish(admin, tenant.PublishRequest{AdHoc: adHoc(toGrant(named(t, "user:bob@contoso.test"), policy.Viewer))})
		a.custodian.be(func(c *moody) { c.err = sealed })
		time.Sleep(time.Hour)
		x := a.explain(a.open(told("bob"), made, vocab.RightView))
		if x.Event.Event.Reason != vocab.ReasonCustodianSealed || !x.Opening.Allowed {
			t.Errorf("%s, allowed %v", x.Event.Event.Reason, x.Opening.Allowed)
		}
		// A license nobody has a record of.
		out, err := a.Acquire(t.Context(), told("bob"), a.to, []tenant.AcquireItem{{Content: vocab.NewContentID(), Right: vocab.RightView}})
		a.must(err)
		if x := a.explain(out.Event()); x.Question != 0 || x.Event.Event.Reason != vocab.ReasonNoRights {
			t.Errorf("%+v", x)
		}
		door, err := a.RecordRefusal(t.Context(), told("bob").Caller, "PolicyService/GetTemplate", vocab.ReasonRoleRequired)
		a.must(err)
		if x := a.explain(door); x.Question != 0 {
			t.Errorf("%+v", x)
		}
		// A clear key that was refused.
		_, err = a.Acquire(t.Context(), told("bob"), tenant.Recipient{}, []tenant.AcquireItem{{Content: made.License.Record.Content}})
		if x := a.explain(eventOf(t, err)); x.Question != decision.Deliver || policy.AllPassed(x.Delivery) || len(x.Delivery) != 3 {
			t.Errorf("%+v", x)
		}
		if _, err := a.ExplainEvent(t.Context(), vocab.NewEventID(), policy.Listing{}); vocab.ReasonOf(err) != vocab.ReasonResourceNotFound {
			t.Errorf("an event that is not there: %v", err)
		}
	})
}

// A caller in more groups than an event takes is decided on as any other, and
// what is kept is enough to decide again.
func TestExplainManyGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		var groups []string
		for i := range 400 {
			groups = append(groups, fmt.Sprintf("a-group-with-a-long-name-%03d@contoso.test", i))
		}
		made, _ := a.publish(told("alice"), tenant.PublishRequest{AdHoc: adHoc(toGrant(named(t, "group:"+groups[399]), policy.Viewer))})
		x := a.explain(a.open(told("bob", groups...), made, vocab.RightView))
		if !x.Opening.Allowed || x.Known.Abridged == nil || x.Known.Abridged.Groups != 400 || len(x.Known.Groups) != 1 || x.Abridged {
			t.Errorf("%+v", x.Known)
		}
		if n := len(x.Event.Event.Decision); n > 300 {
			t.Errorf("the event holds %d bytes of it", n)
		}
	})
}

func TestEvaluateAccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		ctx, admin := t.Context(), told("alice")
		bob := named(t, "user:bob@contoso.test")
		secret := toGrant(named(t, "group:board@contoso.test"), policy.Viewer)
		secret.Login = policy.LoginMFA
		tmpl := template(policy.StatePublished, secret, toGrant(named(t, "group:local@contoso.test"), policy.CoAuthor))
		tmpl.Grants[1].Until = time.Now().Add(48 * time.Hour).Truncate(time.Second)
		_, _, err := a.WriteTemplate(ctx, admin, "finance", tmpl, 0, false, false)
		a.must(err)
		a.must(a.PutGroup(ctx, admin, "local@contoso.test", named(t, "user:carla@contoso.test")))
		made, _ := a.publish(admin, tenant.PublishRequest{Template: "finance"})
		own, _ := a.publish(admin, tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.Viewer))})
		_, _, err = a.RevokeLicense(ctx, admin, own.License.Record.Content, "", func(vocab.Principal) error { return nil })
		a.must(err)

		on := func(made *tenant.Published) func(*tenant.AccessQuestion) {
			return func(q *tenant.AccessQuestion) { q.Content = made.License.Record.Content }
		}
		with := func(changes ...func(*tenant.AccessQuestion)) func(*tenant.AccessQuestion) {
			return func(q *tenant.AccessQuestion) {
				for _, c := range changes {
					c(q)
				}
			}
		}
		byTemplate := func(q *tenant.AccessQuestion) { q.Template = "finance" }
		board := func(q *tenant.AccessQuestion) { q.Who.Groups = []string{"board@contoso.test"} }
		mfa := func(q *tenant.AccessQuestion) { q.Who.MFA = true }
		later := func(q *tenant.AccessQuestion) { q.At = time.Now().Add(72 * time.Hour) }
		for _, c := range []struct {
			name, who string
			ask       func(*tenant.AccessQuestion)
			want      vocab.Reason
			assumed   string
		}{
			{"a stranger", "user:mallory@contoso.test", on(made), vocab.ReasonNoRights, "groups login member directory"},
			{"a guest", "user:eve@fabrikam.test", on(made), vocab.ReasonNoRights, "groups login guest directory"},
			{"in the board", "user:bob@contoso.test", with(on(made), board), vocab.ReasonStrongerLoginRequired, "groups login member directory"},
			{"in the board with a second factor", "user:bob@contoso.test", with(on(made), board, mfa), "", "groups login member directory"},
			{"by the directory", "user:carla@contoso.test", on(made), "", "groups login member directory"},
			{"by the directory, by template", "user:carla@contoso.test", byTemplate, "", "groups login member directory document"},
			{"without the directory", "user:carla@contoso.test", with(on(made), func(q *tenant.AccessQuestion) { q.WithoutDirectory = true }), vocab.ReasonNoRights, "groups login member"},
			{"after the grant's end", "user:carla@contoso.test", with(on(made), later), vocab.ReasonGrantEnded, "groups login member directory policy"},
			{"revoked", "user:bob@contoso.test", on(own), vocab.ReasonLicenseRevoked, "groups login member directory"},
			{"revoked, but the issuer's", "user:alice@contoso.test", on(own), "", "groups login member directory issuer"},
			{"a service", "service:dlp", on(made), vocab.ReasonResourceNotFound, ""},
			{"a group", "group:board@contoso.test", on(made), vocab.ReasonRequestInvalid, ""},
			{"no such license", "user:bob@contoso.test", func(q *tenant.AccessQuestion) { q.Content = vocab.NewContentID() }, vocab.ReasonResourceNotFound, ""},
			{"no such template", "user:bob@contoso.test", func(q *tenant.AccessQuestion) { q.Template = "no-such" }, vocab.ReasonResourceNotFound, ""},
		} {
			q := tenant.AccessQuestion{Who: policy.Supposed{Who: named(t, c.who)}, Right: vocab.RightView}
			c.ask(&q)
			x, err := a.EvaluateAccess(ctx, q, policy.Listing{})
			if err != nil {
				if vocab.ReasonOf(err) != c.want {
					t.Errorf("%s: %v", c.name, err)
				}
				continue
			}
			var assumed []string
			for _, s := range x.Supposed {
				assumed = append(assumed, string(s))
			}
			if x.Opening.Reason != c.want || strings.Join(assumed, " ") != c.assumed {
				t.Errorf("%s: %q assuming %q, want %q assuming %q", c.name, x.Opening.Reason, assumed, c.want, c.assumed)
			}
		}
		// The answer is the one that a real caller gets.
		q := tenant.AccessQuestion{Who: policy.Supposed{Who: named(t, "user:carla@contoso.test")}, Right: vocab.RightView, Content: made.License.Record.Content}
		x, err := a.EvaluateAccess(ctx, q, policy.Listing{})
		a.must(err)
		real := a.explain(a.open(told("carla"), made, vocab.RightView))
		if d := cmp.Diff(real.Opening.Rights, x.Opening.Rights); d != "" || !real.Opening.NotAfter.Equal(x.Opening.NotAfter) || x.Key == nil || x.Revision != 1 {
			t.Errorf("supposed %+v, real %+v", x.Opening, real.Opening)
		}
	})
}

func TestListAccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		ctx, admin := t.Context(), told("alice")
		bob, carla := named(t, "user:bob@contoso.test"), named(t, "user:carla@contoso.test")
		for slug, g := range map[string]policy.Grant{
			"a-open": toGrant(bob, policy.Reviewer), "b-closed": toGrant(carla, policy.Viewer), "c-mfa": {To: bob, Rights: policy.Viewer.Rights(), Login: policy.LoginMFA},
		} {
			_, _, err := a.WriteTemplate(ctx, admin, slug, template(policy.StatePublished, g), 0, false, false)
			a.must(err)
		}
		for range 3 {
			a.publish(admin, tenant.PublishRequest{Template: "a-open"})
			a.publish(admin, tenant.PublishRequest{AdHoc: adHoc(toGrant(carla, policy.Viewer))})
		}
		shared, _ := a.publish(admin, tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.Viewer))})
		own, _ := a.publish(told("bob"), tenant.PublishRequest{Template: "b-closed"})
		gone, _ := a.publish(admin, tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.Viewer))})
		_, _, err := a.RevokeLicense(ctx, admin, gone.License.Record.Content, "", func(vocab.Principal) error { return nil })
		a.must(err)

		for _, limit := range []int{1, 2, 100} {
			var got []string
			for from, first := (tenant.AccessCursor{}), true; first || !from.IsZero(); first = false {
				page, next, assumed, err := a.ListAccess(ctx, policy.Supposed{Who: bob}, false, time.Time{}, from, limit)
				a.must(err)
				if len(assumed) == 0 || len(page) > limit {
					t.Fatalf("%d entries, assuming %v", len(page), assumed)
				}
				for _, e := range page {
					what := "license " + fmt.Sprint(map[vocab.ContentID]string{
						shared.License.Record.Content: "shared", own.License.Record.Content: "own", gone.License.Record.Content: "gone",
					}[contentOf(e)])
					if e.Template != nil {
						what = fmt.Sprintf("%s ×%d", e.Template.Slug, e.Followers)
					}
					got = append(got, fmt.Sprintf("%s: %s%s", what, policy.Describe(e.Decision.Rights), e.Decision.Reason))
				}
				from = next
			}
			want := []string{
				"a-open ×3: reviewer", "c-mfa ×0: STRONGER_LOGIN_REQUIRED",
				"license gone: LICENSE_REVOKED", "license own: " + policy.Describe(vocab.AllRights), "license shared: viewer",
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%d at a time: %s", limit, d)
			}
		}
	})
}

func contentOf(a tenant.Access) vocab.ContentID {
	if a.License == nil {
		return vocab.ContentID{}
	}
	return a.License.Record.Content
}

// The field of an event takes what is put into it.
func TestInputsFitTheEvent(t *testing.T) {
	if decision.MaxSize != audit.MaxDecision {
		t.Errorf("inputs of %d bytes for a field of %d", decision.MaxSize, audit.MaxDecision)
	}
}
