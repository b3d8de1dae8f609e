package tenant_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// glass has rita ask for a recovery of eight hours.
func (o *house) glass(s tenant.RecoveryScope, notify bool) *tenant.OperationView {
	o.t.Helper()
	time.Sleep(time.Millisecond) // the very same again would be the same operation
	v, _, err := o.RequestRecovery(o.t.Context(), person("rita"), s, time.Now().Add(8*time.Hour), "bob cannot be reached", "CASE-311", notify)
	o.check(err)
	if v.State != operation.AwaitingApproval {
		o.t.Fatalf("nobody approved it, and it is %s", v.State)
	}
	return v
}

// by names a recovery for an item.
func by(i tenant.AcquireItem, v *tenant.OperationView) tenant.AcquireItem {
	i.Recovery = v.ID
	return i
}

// A recovery opens what it covers until it ends: to its requester, when named.
func TestRecoveryFromRequestToEnd(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		p := o.publish("bob", "")
		rita := person("rita")
		o.opens(rita, item(p), vocab.ReasonNoRights)
		v := o.glass(tenant.RecoveryScope{Owner: user("bob")}, false)
		o.opens(rita, by(item(p), v), vocab.ReasonRecoveryInvalid) // nobody approved it
		if v = o.mustApprove(person("ron"), v); v.State != operation.Running {
			t.Fatalf("it is %s", v.State)
		}
		got := o.opens(rita, by(item(p), v), "")
		ul, err := license.ParseUL(got.UseLicense)
		o.check(err)
		if ul.Flags&license.FlagBreakGlass == 0 || ul.Cache != license.CacheMemory || ul.NotAfter.After(time.Now().Add(policy.OnlineWindow)) {
			t.Errorf("the use license has flags %b, cache %d and ends %s", ul.Flags, ul.Cache, ul.NotAfter)
		}
		export := by(item(p), v)
		export.Right, export.Store = vocab.RightExport, true
		if got := o.opens(rita, export, ""); got.Rights != vocab.AllRights {
			t.Errorf("it gives %s", got.Rights)
		}
		if uses, total, err := o.CachedUses(t.Context(), p.License.Record.Content, 10); err != nil || total != 0 {
			t.Errorf("what a recovery opened is kept: %v %v", uses, err)
		}
		// Not named, it opens nothing.
		o.opens(rita, item(p), vocab.ReasonNoRights)

		// Near its end a use license does not outlive it.
		time.Sleep(8*time.Hour - time.Minute)
		if got := o.opens(rita, by(item(p), v), ""); got.NotAfter.After(operation.Time(v.Ends)) {
			t.Errorf("the use license ends %s, the recovery %s", got.NotAfter, operation.Time(v.Ends))
		}
		// The instant ends it, whoever notices when.
		o.ahead.Store(int64(time.Minute))
		o.opens(rita, by(item(p), v), vocab.ReasonRecoveryInvalid)
		if now := o.look(v.ID); now.State != operation.Succeeded || now.Operation.State != operation.Running {
			t.Errorf("at its end it is %s, and %s in the store", now.State, now.Operation.State)
		}
		o.ahead.Store(0)
		time.Sleep(time.Minute)
		if now := o.settled(v.ID); now.Operation.State != operation.Succeeded || !operation.Time(now.Ended).Equal(operation.Time(now.Ends)) {
			t.Errorf("after its end it is %s", now.Operation.State)
		}

		kinds, events := o.events(v.ID)
		want := []string{"operation-requested", "refused", "operation-approved", "released", "released", "released", "refused", "operation-succeeded"}
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Error(diff)
		}
		for i, e := range events {
			if opened := kinds[i] == "released" || kinds[i] == "refused"; e.BreakGlass != opened {
				t.Errorf("%s has the mark: %v", kinds[i], e.BreakGlass)
			}
		}
		if e := events[0]; !strings.Contains(e.Detail, "everything of user:bob@contoso.test") || !strings.Contains(e.Detail, "bob cannot be reached (CASE-311)") {
			t.Errorf("the request says %q", e.Detail)
		}
		o.checkStore()
	})
}

// The ways to use a recovery one must not, and that the answer tells nothing.
func TestRecoveryAttacks(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		hit, other := o.publish("bob", ""), o.publish("carla", "")
		byID := tenant.AcquireItem{Content: other.License.Record.Content, Right: vocab.RightView}
		never := tenant.AcquireItem{Content: vocab.NewContentID(), Right: vocab.RightView}
		rita := person("rita")
		v := o.mustApprove(person("alice"), o.glass(tenant.RecoveryScope{License: hit.License.Record.Content}, false))
		waiting := o.glass(tenant.RecoveryScope{Owner: user("bob")}, false)
		transfer := o.selfTransfer()
		unknown := &tenant.OperationView{ID: vocab.NewOperationID()}

		answer := func(c tenant.Call, i tenant.AcquireItem) string {
			t.Helper()
			out, err := o.Acquire(t.Context(), c, o.to, []tenant.AcquireItem{i})
			o.check(err)
			e, ok := errors.AsType[*vocab.Error](out.Results[0].Err)
			if !ok || e.Reason != vocab.ReasonRecoveryInvalid || e.Event.IsZero() {
				t.Errorf("%s got %v, want RECOVERY_INVALID with an event", c.Caller.Name(), out.Results[0].Err)
				return ""
			}
			return e.Message + "|" + e.Next + "|" + e.Contact
		}
		same := func(what string, answers ...string) {
			t.Helper()
			for _, a := range answers {
				if a != answers[0] {
					t.Errorf("%s: the answers differ: %q and %q", what, answers[0], a)
				}
			}
		}
		onBehalf := by(item(hit), v)
		onBehalf.Subject = rita.Caller
		robot := tenant.Call{Method: "test", Caller: &vocab.Identity{Issuer: "x509", Subject: "spiffe://contoso.test/robot", Service: "robot"}}
		same("somebody else's, unknown, and not a recovery",
			answer(person("ron"), by(item(hit), v)), answer(person("ron"), by(item(hit), unknown)), answer(person("ron"), by(item(hit), transfer)),
			answer(person("mallory"), by(item(hit), v)), answer(person("mallory"), by(never, v)), answer(person("mallory"), by(never, unknown)),
			answer(robot, onBehalf))
		// The owner's own document, opened with a recovery that is not his: refused,
		// though without it it would open. What is named is never passed over.
		answer(person("bob"), by(item(hit), v))
		o.opens(person("bob"), item(hit), "")
		same("what it does not cover, and what is not there", answer(rita, by(byID, v)), answer(rita, by(never, v)), answer(rita, by(item(other), v)))
		answer(rita, by(item(hit), waiting))

		o.opens(rita, by(item(hit), v), "")
		for name, who := range map[string]tenant.Call{"its requester": rita, "its approver": person("alice"), "another who could have approved it": person("ron")} {
			v = o.mustApprove(person("alice"), o.glass(tenant.RecoveryScope{License: hit.License.Record.Content}, false))
			o.opens(rita, by(item(hit), v), "")
			if _, _, err := o.CancelOperation(t.Context(), who, v.ID, ""); err != nil {
				t.Errorf("%s cannot cancel it: %v", name, err)
			}
			o.opens(rita, by(item(hit), v), vocab.ReasonRecoveryInvalid)
		}

		// It is the officer's: no officer, no recovery.
		v = o.mustApprove(person("alice"), o.glass(tenant.RecoveryScope{License: hit.License.Record.Content}, false))
		o.holders(vocab.RoleRecoveryOfficer, user("ron"))
		o.opens(rita, by(item(hit), v), vocab.ReasonRoleRequired)
		o.holders(vocab.RoleRecoveryOfficer, user("ron"), user("rita"))
		o.opens(rita, by(item(hit), v), "")
		body, err := (&record.Disabled{By: "alice"}).Encode()
		o.check(err)
		o.check(o.PutResource(t.Context(), person("alice"), record.PrefixPrincipals+user("rita").String(), body))
		o.opens(rita, by(item(hit), v), vocab.ReasonPrincipalDisabled)
		o.checkStore()
	})
}

// An officer by a group of the identity provider's, and a document whose license
// somebody forged: the attempt is marked like any other.
func TestRecoveryOfAGroupAndAForgedLicense(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		p := o.publish("bob", "")
		dan := person("dan", "rescue@contoso.test", "other@contoso.test")
		v, _, err := o.RequestRecovery(t.Context(), dan, tenant.RecoveryScope{Owner: user("bob")}, time.Now().Add(time.Hour), "why", "C-1", false)
		o.check(err)
		if diff := cmp.Diff([]string{"rescue@contoso.test"}, v.Requester.Groups); diff != "" {
			t.Errorf("the groups that are kept: %s", diff)
		}
		if v = o.mustApprove(person("rita"), v); v.State != operation.Running {
			t.Fatalf("it is %s: %s", v.State, v.Message)
		}
		o.opens(dan, by(item(p), v), "")
		o.opens(person("dan"), by(item(p), v), vocab.ReasonRoleRequired) // without the group
		forged := by(item(p), v)
		forged.PublishingLicense = append([]byte{}, p.PublishingLicense...)
		forged.PublishingLicense[len(forged.PublishingLicense)-1] ^= 1
		o.opens(dan, forged, vocab.ReasonLicenseSignature)
		_, events := o.events(v.ID)
		if last := events[len(events)-1]; last.Reason != vocab.ReasonLicenseSignature || !last.BreakGlass {
			t.Errorf("the attempt with a forged license is not among the recovery's events: %+v", last)
		}
	})
}

// Items of one batch are each by themselves.
func TestRecoveryInABatch(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		hit, other, hers := o.publish("bob", ""), o.publish("carla", ""), o.publish("bob", "", "rita")
		v := o.mustApprove(person("ron"), o.glass(tenant.RecoveryScope{License: hit.License.Record.Content}, false))
		out, err := o.Acquire(t.Context(), person("rita"), o.to, []tenant.AcquireItem{by(item(hit), v), item(hit), by(item(other), v), item(hers)})
		o.check(err)
		want := []vocab.Reason{"", vocab.ReasonNoRights, vocab.ReasonRecoveryInvalid, ""}
		for i, r := range out.Results {
			if got := vocab.ReasonOf(r.Err); got != want[i] {
				t.Errorf("item %d: %q, want %q", i, got, want[i])
			}
		}
		_, events := o.events(v.ID)
		marked := 0
		for _, e := range events {
			if e.BreakGlass {
				marked++
			}
		}
		if marked != 2 {
			t.Errorf("%d events carry the mark, want those of the two items that named it", marked)
		}
	})
}

// It opens what nothing else does: revoked, expired, without a template.
func TestRecoveryOpensWhatNothingElseDoes(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		anyone := func(vocab.Principal) error { return nil }
		rita := person("rita")
		revoked := o.publish("bob", "")
		_, _, err := o.RevokeLicense(t.Context(), person("bob"), revoked.License.Record.Content, "", anyone)
		o.check(err)
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("rita")))
		deleted := o.publish("bob", "finance")
		_, _, err = o.DeleteTemplate(t.Context(), person("grace"), "finance", 1, false, true)
		o.check(err)
		expired := o.publish("bob", "", "rita")
		soon := time.Now().Add(time.Minute)
		_, _, err = o.UpdateLicense(t.Context(), person("bob"), expired.License.Record.Content, 1, false, tenant.LicenseEdit{NotAfter: &soon}, anyone)
		o.check(err)
		time.Sleep(2 * time.Minute)
		v := o.mustApprove(person("ron"), o.glass(tenant.RecoveryScope{Owner: user("bob")}, false))
		byTemplate := o.mustApprove(person("ron"), o.glass(tenant.RecoveryScope{Template: "finance"}, false))
		for _, c := range []struct {
			p       *tenant.Published
			without vocab.Reason
		}{{revoked, vocab.ReasonNoRights}, {deleted, vocab.ReasonTemplateDeleted}, {expired, vocab.ReasonLicenseExpired}} {
			o.opens(rita, item(c.p), c.without)
			o.opens(rita, by(item(c.p), v), "")
		}
		o.opens(rita, by(item(deleted), byTemplate), "")
		o.opens(rita, by(item(revoked), byTemplate), vocab.ReasonRecoveryInvalid)
		// The scope is what is so now: a document that changes hands leaves it.
		carla := user("carla")
		_, _, err = o.UpdateLicense(t.Context(), person("bob"), revoked.License.Record.Content, 2, false, tenant.LicenseEdit{Owner: &carla}, anyone)
		o.check(err)
		o.opens(rita, by(item(revoked), v), vocab.ReasonRecoveryInvalid)
	})
}

// What must be said, and how far ahead a recovery may end.
func TestRecoveryRequestsThatCannotBe(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("rita")))
		scope := tenant.RecoveryScope{Owner: user("bob")}
		for name, c := range map[string]struct {
			scope          tenant.RecoveryScope
			ahead          time.Duration
			reason, ticket string
			want           vocab.Reason
		}{
			"no reason":           {scope, time.Hour, " ", "C-1", vocab.ReasonRequestInvalid},
			"no ticket":           {scope, time.Hour, "why", "", vocab.ReasonRequestInvalid},
			"it has ended":        {scope, 0, "why", "C-1", vocab.ReasonRequestInvalid},
			"too far ahead":       {scope, 72*time.Hour + time.Millisecond, "why", "C-1", vocab.ReasonRequestInvalid},
			"as far as may be":    {scope, 72 * time.Hour, "why", "C-1", ""},
			"an owner who is all": {tenant.RecoveryScope{Owner: vocab.Principal{Kind: vocab.KindAnyone}}, time.Hour, "why", "C-1", vocab.ReasonRequestInvalid},
			"no such template":    {tenant.RecoveryScope{Template: "none"}, time.Hour, "why", "C-1", vocab.ReasonResourceNotFound},
			"a long reason":       {scope, time.Hour, strings.Repeat("x", operation.MaxReason+1), "C-1", vocab.ReasonRequestInvalid},
			"a line break":        {scope, time.Hour, "two\nlines", "C-1", vocab.ReasonRequestInvalid},
		} {
			v, _, err := o.RequestRecovery(t.Context(), person("rita"), c.scope, time.Now().Add(c.ahead), c.reason, c.ticket, false)
			if vocab.ReasonOf(err) != c.want {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
			if err == nil && v.Expires > v.Ends {
				t.Errorf("%s: it can be approved after its end", name)
			}
		}
		// Who asks for little time has little time to have it approved.
		short, _, err := o.RequestRecovery(t.Context(), person("rita"), scope, time.Now().Add(time.Hour), "why", "C-1", false)
		o.check(err)
		time.Sleep(time.Hour)
		if _, err := o.approve(person("ron"), short); !errors.Is(err, vocab.ReasonOperationState) {
			t.Errorf("approved after its end: %v", err)
		}
		if _, err := o.approve(person("erin"), o.glass(scope, false)); !errors.Is(err, vocab.ReasonRoleRequired) {
			t.Errorf("an auditor approves it: %v", err)
		}
		late := o.glass(scope, false)
		o.holders(vocab.RoleRecoveryOfficer, user("ron"))
		if done := o.mustApprove(person("ron"), late); done.State != operation.Failed || done.Why != vocab.ReasonRoleRequired {
			t.Errorf("for somebody who is no officer any more it is %s (%s)", done.State, done.Why)
		}
		if kinds, events := o.events(late.ID); len(kinds) != 2 || kinds[1] != "operation-failed" || events[1].Principal.Name != "ron@contoso.test" {
			t.Errorf("events %v", kinds)
		}
	})
}

// With a notice, every license it covers has an event of it, once, whatever the
// moment the daemon died at.
func TestRecoveryNotices(t *testing.T) {
	for n := range int64(5) {
		inOffice(t, func(t *testing.T, o *house) {
			o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("carla")))
			var mine []*tenant.Published
			for range 100 {
				mine = append(mine, o.publish("bob", "finance"))
			}
			other := o.publish("carla", "")
			scope := tenant.RecoveryScope{Owner: user("bob")}
			if n%2 == 1 {
				scope = tenant.RecoveryScope{Template: "finance"}
			}
			v := o.mustApprove(person("ron"), o.glass(scope, true))
			one := o.mustApprove(person("ron"), o.glass(tenant.RecoveryScope{License: mine[0].License.Record.Content}, true))
			o.store.kill(n)
			time.Sleep(time.Minute)
			o.restart()
			if p := o.settled(v.ID).Progress; p.Done != 100 || p.Total != 100 {
				t.Errorf("told %d of %d licenses", p.Done, p.Total)
			}
			announced := func(p *tenant.Published, id vocab.OperationID) (n int) {
				entries, _, err := o.log.List(t.Context(), o.ID(), audit.Filter{Content: p.License.Record.Content, Kinds: []audit.Kind{audit.KindRecoveryAnnounced}, Operation: id}, audit.Cursor{}, 10)
				o.check(err)
				for _, e := range entries {
					if !strings.Contains(e.Event.Detail, "bob cannot be reached (CASE-311)") || e.Event.BreakGlass {
						t.Errorf("a notice says %q", e.Event.Detail)
					}
				}
				return len(entries)
			}
			for i, p := range mine {
				if got := announced(p, v.ID); got != 1 {
					t.Fatalf("document %d was told %d times", i, got)
				}
			}
			if got := announced(mine[0], one.ID); got != 1 {
				t.Errorf("the one document was told %d times", got)
			}
			if got := announced(other, vocab.OperationID{}); got != 0 {
				t.Error("a document that is not covered was told")
			}
			o.restart()
			time.Sleep(9 * time.Hour)
			if now := o.settled(v.ID); now.State != operation.Succeeded || now.Progress.Done != 100 {
				t.Errorf("at its end it is %s, told %d", now.State, now.Progress.Done)
			}
			if got := announced(mine[99], v.ID); got != 1 {
				t.Errorf("after another restart a document was told %d times", got)
			}
			o.checkStore()
		})
	}
}
