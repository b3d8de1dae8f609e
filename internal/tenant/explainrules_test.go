package tenant_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// byRule revokes what meets a rule, as alice.
func (a *asked) byRule(rule policy.RevocationRule, template string) vocab.EventID {
	a.t.Helper()
	v, _, _, err := a.RevokeLicenses(a.t.Context(), told("alice"), tenant.RevocationRequest{Rule: rule, Template: template, Reason: "a test"},
		func(vocab.Principal) error { return nil })
	a.must(err)
	return v.ID
}

func (a *asked) takeBack(id vocab.EventID) {
	a.t.Helper()
	_, _, err := a.RestoreLicenses(a.t.Context(), told("alice"), id, func(*record.RevocationRule) error { return nil })
	a.must(err)
}

// What a rule refused is explained by the rule, also when it was taken back and
// when it covered the caller only perhaps.
func TestExplanationsNameRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		bob := named(t, "user:bob@contoso.test")
		doc, _ := a.publish(told("alice"), tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.Viewer), toGrant(named(t, "user:carla@contoso.test"), policy.Viewer))})

		rule := a.byRule(policy.RevocationRule{Principal: bob}, "")
		refused := a.open(told("bob"), doc, vocab.RightView)
		look := func(id vocab.EventID, reason vocab.Reason, scope policy.RevocationScope, by vocab.EventID) *tenant.Explanation {
			t.Helper()
			x := a.explain(id)
			if x.Opening == nil || x.Opening.Reason != reason || len(x.Revocations) != 1 {
				t.Fatalf("%+v", x)
			}
			if r := x.Revocations[0]; r.Scope != scope || r.Event != by || r.By != "alice@contoso.test" || !strings.HasSuffix(r.Reason, ": a test") {
				t.Errorf("the revocation is %+v", r)
			}
			return x
		}
		x := look(refused, vocab.ReasonLicenseRevoked, policy.RevokedPrincipal, rule)
		if r := x.Opening.Remedies; len(r) != 1 || r[0].Kind != policy.RemedyRestore || r[0].Revocation.Event != rule {
			t.Errorf("to allow it, %+v", r)
		}
		// Nobody else is concerned.
		if x := a.explain(a.open(told("carla"), doc, vocab.RightView)); !x.Opening.Allowed || len(x.Revocations) != 0 {
			t.Errorf("carla: %+v", x.Opening.Decision)
		}
		a.takeBack(rule)
		if x := a.explain(a.open(told("bob"), doc, vocab.RightView)); !x.Opening.Allowed {
			t.Errorf("after it was taken back: %+v", x.Opening.Decision)
		}
		look(refused, vocab.ReasonLicenseRevoked, policy.RevokedPrincipal, rule)

		// A group that the provider may have held back.
		interns := a.byRule(policy.RevocationRule{Principal: named(t, "group:interns@contoso.test")}, "")
		unsure := told("bob")
		unsure.Caller.GroupsIncomplete = true
		x = look(a.open(unsure, doc, vocab.RightView), vocab.ReasonGroupsIncomplete, policy.RevokedPrincipal, interns)
		if !x.Revocations[0].GroupsUnknown {
			t.Error("it is not said that nobody knows of the group")
		}
		look(a.open(told("bob", "interns@contoso.test"), doc, vocab.RightView), vocab.ReasonLicenseRevoked, policy.RevokedPrincipal, interns)
	})
}

// A document that would be born revoked is not made, and the event says by what.
func TestExplanationOfWhatWouldBeBornRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		rule := a.byRule(policy.RevocationRule{Owner: named(t, "user:dora@contoso.test"), From: time.Now().Add(-time.Hour)}, "")
		made, id := a.publish(told("dora"), tenant.PublishRequest{AdHoc: adHoc(toGrant(named(t, "user:bob@contoso.test"), policy.Viewer))})
		if made != nil {
			t.Fatal("it was made")
		}
		for range 2 { // before and after the rule is taken back
			x := a.explain(id)
			if x.Question != decision.Publish || x.Publishing.Reason != vocab.ReasonLicenseRevoked {
				t.Fatalf("%+v", x)
			}
			checks := x.Publishing.Checks
			if last := checks[len(checks)-1]; last != (policy.Check{Name: policy.CheckRevoked, Outcome: policy.Failed, Reason: vocab.ReasonLicenseRevoked}) {
				t.Errorf("the last check is %+v", last)
			}
			if len(x.Revocations) != 1 || x.Revocations[0].Event != rule {
				t.Errorf("the revocations are %+v", x.Revocations)
			}
			if x.Event.Event.Parent != rule {
				t.Errorf("the event follows from %s, want the rule", x.Event.Event.Parent)
			}
			if _, err := a.GetRevocation(t.Context(), rule, func(*record.RevocationRule) error { return nil }); err == nil {
				a.takeBack(rule)
			}
		}
	})
}

// What would be is asked of the rules, too.
func TestWhatIfSeesRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := ask(t)
		bob := named(t, "user:bob@contoso.test")
		_, _, err := a.WriteTemplate(t.Context(), told("alice"), "finance", template(policy.StatePublished, toGrant(bob, policy.Viewer)), 0, false, false)
		a.must(err)
		first, _ := a.publish(told("alice"), tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.CoOwner))})
		child, _ := a.publish(told("bob"), tenant.PublishRequest{AdHoc: adHoc(toGrant(bob, policy.Viewer)), Parents: []vocab.ContentID{first.License.Record.Content}})
		who := policy.Supposed{Who: bob}
		reason := func(q tenant.AccessQuestion) vocab.Reason {
			t.Helper()
			q.Who, q.Right = who, vocab.RightView
			x, err := a.EvaluateAccess(t.Context(), q, policy.Listing{})
			a.must(err)
			return x.Opening.Reason
		}
		byTemplate, aboutChild := tenant.AccessQuestion{Template: "finance"}, tenant.AccessQuestion{Content: child.License.Record.Content}
		if r := reason(byTemplate); r != "" {
			t.Fatalf("under the template: %s", r)
		}
		rule := a.byRule(policy.RevocationRule{}, "finance")
		if r := reason(byTemplate); r != vocab.ReasonLicenseRevoked {
			t.Errorf("under the revoked template: %q", r)
		}
		a.takeBack(rule)
		a.byRule(policy.RevocationRule{Lineage: first.License.Record.Content}, "")
		if r := reason(aboutChild); r != vocab.ReasonLicenseRevoked {
			t.Errorf("of the lineage: %q", r)
		}
		page, _, _, err := a.ListAccess(t.Context(), who, false, time.Time{}, tenant.AccessCursor{}, 10)
		a.must(err)
		for _, p := range page {
			if p.License != nil && p.Decision.Allowed {
				t.Errorf("bob is said to open %s, which is of the revoked lineage", p.License.Record.Content)
			}
		}
	})
}

// What was opened under a recovery is explained as that, also where the
// recovery ended before the use license would have.
func TestExplanationsOfRecoveries(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		p := o.publish("bob", "")
		v := o.mustApprove(person("ron"), o.glass(tenant.RecoveryScope{Owner: user("bob")}, false))
		explain := func(id vocab.EventID) {
			t.Helper()
			x, err := o.ExplainEvent(t.Context(), id, policy.Listing{})
			o.check(err)
			if x.Contradiction != "" || x.Opening == nil || !x.Opening.Recovery || !x.Opening.Allowed {
				t.Errorf("%q %+v", x.Contradiction, x.Opening)
			}
		}
		explain(o.opens(person("rita"), by(item(p), v), "").Event)
		time.Sleep(8*time.Hour - time.Minute)
		explain(o.opens(person("rita"), by(item(p), v), "").Event)
	})
}
