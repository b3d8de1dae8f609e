package tenant_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// disable disables a principal as alice.
func (s *served) disable(t *testing.T, p vocab.Principal, reason string) {
	t.Helper()
	if _, _, err := s.DisablePrincipal(t.Context(), callBy(signedIn("alice")), p, reason); err != nil {
		t.Fatal(err)
	}
}

func program(name string) *vocab.Identity {
	return &vocab.Identity{Issuer: "x509", Subject: "spiffe://contoso.test/" + name, Service: name, Member: "contoso"}
}

func TestDisabledAndEnabledAgain(t *testing.T) {
	s := staffed(t)
	s.group(t, "staff", "group:finance")
	s.group(t, "finance", "bob")
	alice := callBy(signedIn("alice"))
	if _, _, err := s.GrantRole(t.Context(), alice, vocab.RolePolicyAdmin, members(t, "group:staff")[0]); err != nil {
		t.Fatal(err)
	}
	bob := userOf("bob")

	out, event, err := s.DisablePrincipal(t.Context(), alice, bob, "left the company")
	wantNone(t, err)
	if e := s.event(t, event); e.Kind != audit.KindPrincipalDisabled || e.Target != "principals/user:bob@contoso.test" || e.Detail != "left the company" || e.State == [32]byte{} {
		t.Errorf("the event is %+v", e)
	}
	want := &tenant.Principal{
		Principal: bob, Disabled: &record.Disabled{By: "alice@contoso.test", Reason: "left the company"},
		Groups: []string{"finance@contoso.test", "staff@contoso.test"}, Roles: []vocab.Role{vocab.RolePolicyAdmin},
	}
	got, err := s.GetPrincipal(t.Context(), bob)
	wantNone(t, err)
	for _, p := range []*tenant.Principal{out, got} {
		if d := cmp.Diff(want, p, cmpopts.IgnoreFields(tenant.Principal{}, "Written")); d != "" || p.Author != "alice@contoso.test" || p.Time.IsZero() {
			t.Errorf("%+v: %s", p.Written, d)
		}
	}
	wants(t, s.Admit(signedIn("bob")), vocab.ReasonPrincipalDisabled, "you were disabled")
	wantNone(t, s.Admit(signedIn("bobby")))
	// Under whichever of his addresses he signs in.
	twice := signedIn("robert")
	twice.Addresses = append(twice.Addresses, "bob@contoso.test")
	wants(t, s.Admit(twice), vocab.ReasonPrincipalDisabled, "you were disabled")

	_, event, err = s.EnablePrincipal(t.Context(), alice, bob)
	wantNone(t, err)
	if e := s.event(t, event); e.Kind != audit.KindPrincipalEnabled {
		t.Errorf("the event is %s", e.Kind)
	}
	wantNone(t, s.Admit(signedIn("bob")))
	_, _, err = s.EnablePrincipal(t.Context(), alice, bob)
	wants(t, err, vocab.ReasonRequestInvalid, "user:bob@contoso.test is not disabled")
	s.disable(t, bob, "again")
	if got, err := s.GetPrincipal(t.Context(), bob); err != nil || got.Disabled == nil || got.Revision != 3 {
		t.Errorf("disabled again: %+v, %v", got, err)
	}
}

func TestWhoCannotBeDisabled(t *testing.T) {
	s := staffed(t)
	for _, who := range []string{"group:x@contoso.test", "domain:contoso.test", "tenant:contoso", "anyone"} {
		p, err := vocab.ParsePrincipal(who)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.DisablePrincipal(t.Context(), callBy(signedIn("alice")), p, "")
		wants(t, err, vocab.ReasonRequestInvalid, "is neither a user nor a service")
		_, _, err = s.EnablePrincipal(t.Context(), callBy(signedIn("alice")), p)
		wants(t, err, vocab.ReasonRequestInvalid, "is neither a user nor a service")
		_, err = s.GetPrincipal(t.Context(), p)
		wants(t, err, vocab.ReasonRequestInvalid, "is neither a user nor a service")
	}
	// Oneself, under any of one's addresses.
	alice := signedIn("alice")
	alice.Addresses = append(alice.Addresses, "a@contoso.test")
	for _, name := range []string{"alice", "a"} {
		_, _, err := s.DisablePrincipal(t.Context(), callBy(alice), userOf(name), "")
		wants(t, err, vocab.ReasonSamePerson, "you cannot disable yourself")
	}
	robot := program("robot")
	_, _, err := s.DisablePrincipal(t.Context(), callBy(robot), vocab.Principal{Kind: vocab.KindService, Value: "robot"}, "")
	wants(t, err, vocab.ReasonSamePerson, "you cannot disable yourself")
	for _, reason := range []string{"two\nlines", "\xff"} {
		_, _, err := s.DisablePrincipal(t.Context(), callBy(alice), userOf("bob"), reason)
		wants(t, err, vocab.ReasonRequestInvalid, "the reason")
	}
	page, more, err := s.ListDisabled(t.Context(), "", 10)
	if err != nil || more || len(page) != 0 {
		t.Errorf("disabled are %v, %v", page, err)
	}
}

func TestListDisabled(t *testing.T) {
	s := staffed(t)
	for _, p := range []vocab.Principal{userOf("a"), userOf("b"), userOf("c"), {Kind: vocab.KindService, Value: "dms"}} {
		s.disable(t, p, "a test")
	}
	if _, _, err := s.EnablePrincipal(t.Context(), callBy(signedIn("alice")), userOf("b")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for after, more := "", true; more; {
		var page []*tenant.Principal
		var err error
		if page, more, err = s.ListDisabled(t.Context(), after, 2); err != nil {
			t.Fatal(err)
		}
		for _, p := range page {
			got = append(got, p.Principal.String())
		}
		after = got[len(got)-1]
	}
	if want := []string{"service:dms", "user:a@contoso.test", "user:c@contoso.test"}; !slices.Equal(got, want) {
		t.Errorf("disabled are %v, want %v", got, want)
	}
}

// opener opens documents for whoever is asked.
type opener struct {
	*served
	to tenant.Recipient
	pl []byte
}

// opening publishes a document that bob may read and keep.
func opening(t *testing.T, s *served) *opener {
	t.Helper()
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	r, err := license.ParseRecipient(license.XWing, key.Public(), s.AllowedKEMs())
	if err != nil {
		t.Fatal(err)
	}
	o := &opener{served: s, to: tenant.Recipient{Sealed: r}}
	o.publish(t)
	return o
}

func (o *opener) publish(t *testing.T) {
	t.Helper()
	made, err := o.Publish(t.Context(), callBy(signedIn("alice")), tenant.PublishRequest{To: o.to, AdHoc: &policy.AdHoc{
		Kind: policy.AdHocGrants, Offline: policy.OfflineMax, Grants: []policy.Grant{
			{To: userOf("bob"), Rights: vocab.RightsOf(vocab.RightView)},
			{To: userOf("robert"), Rights: vocab.RightsOf(vocab.RightView)},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	o.pl = made.PublishingLicense
}

// open asks for a license to keep; subject is nil unless a service opens for
// somebody.
func (o *opener) open(t *testing.T, caller, subject *vocab.Identity) error {
	t.Helper()
	out, err := o.Acquire(t.Context(), callBy(caller), o.to, []tenant.AcquireItem{{PublishingLicense: o.pl, Right: vocab.RightView, Store: true, Subject: subject}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Results[0].Err
}

// A service that acts for somebody is stopped by disabling either.
func TestAServiceActingForSomebodyDisabled(t *testing.T) {
	o := opening(t, staffed(t))
	dms, bob := program("dms"), signedIn("bob")
	wantNone(t, o.open(t, dms, bob))
	o.disable(t, userOf("bob"), "")
	wants(t, o.open(t, dms, bob), vocab.ReasonPrincipalDisabled, "disabled")
	if _, _, err := o.EnablePrincipal(t.Context(), callBy(signedIn("alice")), userOf("bob")); err != nil {
		t.Fatal(err)
	}
	wantNone(t, o.open(t, dms, bob))
	o.disable(t, vocab.Principal{Kind: vocab.KindService, Value: "dms"}, "")
	wants(t, o.open(t, dms, bob), vocab.ReasonPrincipalDisabled, "disabled")
	wantNone(t, o.open(t, bob, nil)) // by himself
}

// What a principal may still open is found under each of its names.
func TestUsesOfADisabledPrincipal(t *testing.T) {
	o := opening(t, staffed(t))
	bob := signedIn("bob")
	bob.Addresses = append(bob.Addresses, "robert@contoso.test")
	dms := program("dms")
	for range 2 {
		wantNone(t, o.open(t, bob, nil))
		o.publish(t)
	}
	wantNone(t, o.open(t, dms, bob))
	for _, c := range []struct {
		of   vocab.Principal
		want int
	}{
		{userOf("bob"), 3}, {userOf("robert"), 3}, {vocab.Principal{Kind: vocab.KindService, Value: "dms"}, 1}, {userOf("alice"), 0},
	} {
		uses, total, err := o.UsesOf(t.Context(), c.of, 2)
		if err != nil || total != c.want || len(uses) != min(c.want, 2) {
			t.Errorf("%s: %d uses, %d in all (%v), want %d", c.of, len(uses), total, err, c.want)
		}
		for _, u := range uses {
			if u.Content.IsZero() || time.Until(u.NotAfter) < 29*24*time.Hour {
				t.Errorf("%s: a use of %s until %s", c.of, u.Content, u.NotAfter)
			}
		}
	}
}

// admitted is a context as the door makes it.
func admitted(t *testing.T, who *vocab.Identity, roles ...vocab.Role) context.Context {
	return tenant.WithAdmission(t.Context(), tenant.Admission{Caller: who, Roles: roles})
}

// A call that the door let in before writes nothing after its caller was
// disabled, or lost the role.
func TestNothingIsWrittenForWhoWasStoppedMeanwhile(t *testing.T) {
	s := staffed(t)
	pete := signedIn("pete")
	ctx := admitted(t, pete, vocab.RolePolicyAdmin)
	write := map[string]func() error{
		"a template": func() error {
			_, _, err := s.WriteTemplate(ctx, callBy(pete), "plans", &policy.Template{
				Names: map[string]string{"en": "Plans"}, State: policy.StatePublished, Grants: []policy.Grant{{To: userOf("bob"), Rights: vocab.RightsOf(vocab.RightView)}},
			}, 0, false, false)
			return err
		},
		"a group": func() error {
			_, _, err := s.WriteGroup(ctx, callBy(pete), "x@contoso.test", record.Group{Members: members(t, "bob")}, 0, false, false)
			return err
		},
		"a setting": func() error {
			_, _, err := s.UpdateSettings(ctx, callBy(pete), 0, true, func(s *record.Settings) error { s.MaxOffline = time.Hour; return nil })
			return err
		},
		"the event of a read": func() error {
			_, err := s.RecordRead(ctx, pete, "test")
			return err
		},
	}
	check := func(want vocab.Reason) {
		t.Helper()
		before := s.kinds(t)
		for what, do := range write {
			if err := do(); vocab.ReasonOf(err) != want {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		after := s.kinds(t)
		delete(before, audit.KindRefused)
		delete(after, audit.KindRefused)
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("something was written: %s", d)
		}
	}
	s.disable(t, userOf("pete"), "")
	check(vocab.ReasonPrincipalDisabled)
	if _, _, err := s.EnablePrincipal(t.Context(), callBy(signedIn("alice")), userOf("pete")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.RevokeRole(t.Context(), callBy(signedIn("alice")), vocab.RolePolicyAdmin, userOf("pete")); err != nil {
		t.Fatal(err)
	}
	check(vocab.ReasonRoleRequired)
	if _, _, err := s.GrantRole(t.Context(), callBy(signedIn("alice")), vocab.RolePolicyAdmin, userOf("pete")); err != nil {
		t.Fatal(err)
	}
	for what, do := range write {
		if err := do(); err != nil {
			t.Errorf("%s, admitted again: %v", what, err)
		}
	}
}

// Two tenant-admins who disable each other at once: one of them remains.
func TestDisablingEachOther(t *testing.T) {
	s := staffed(t)
	if _, _, err := s.GrantRole(t.Context(), callBy(signedIn("alice")), vocab.RoleTenantAdmin, userOf("bob")); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		var wg sync.WaitGroup
		var errs [2]error
		names := []string{"alice", "bob"}
		for i, name := range names {
			wg.Go(func() {
				_, _, errs[i] = s.DisablePrincipal(admitted(t, signedIn(name), vocab.RoleTenantAdmin), callBy(signedIn(name)), userOf(names[1-i]), "")
			})
		}
		wg.Wait()
		left := slices.IndexFunc(errs[:], func(err error) bool { return err == nil })
		if left < 0 || vocab.ReasonOf(errs[1-left]) != vocab.ReasonPrincipalDisabled {
			t.Fatalf("alice's came to %v, bob's to %v", errs[0], errs[1])
		}
		if _, _, err := s.EnablePrincipal(t.Context(), callBy(signedIn(names[left])), userOf(names[1-left])); err != nil {
			t.Fatal(err)
		}
	}
}

// What goes on for ever ends before whoever stops it has an answer.
func TestWhileAdmitted(t *testing.T) {
	s := staffed(t)
	begin := func(who *vocab.Identity) context.Context {
		ctx, stop := s.WhileAdmitted(admitted(t, who, vocab.RoleAuditor))
		t.Cleanup(stop)
		return ctx
	}
	ended := func(ctx context.Context, want vocab.Reason) {
		t.Helper()
		if got := vocab.ReasonOf(context.Cause(ctx)); got != want {
			t.Errorf("it ended with %q (%v), want %q", got, context.Cause(ctx), want)
		}
	}
	erin := begin(signedIn("erin"))
	s.group(t, "x", "bob") // somebody else's affair
	ended(erin, "")
	s.disable(t, userOf("erin"), "")
	ended(erin, vocab.ReasonPrincipalDisabled)
	ended(begin(signedIn("erin")), vocab.ReasonPrincipalDisabled) // it began too late

	if _, _, err := s.EnablePrincipal(t.Context(), callBy(signedIn("alice")), userOf("erin")); err != nil {
		t.Fatal(err)
	}
	erin = begin(signedIn("erin"))
	if _, _, err := s.RevokeRole(t.Context(), callBy(signedIn("alice")), vocab.RoleAuditor, userOf("erin")); err != nil {
		t.Fatal(err)
	}
	ended(erin, vocab.ReasonRoleRequired)

	// By a group that holds the role, and by the operator's file.
	file := officeFile()
	file.Roles[vocab.RoleKeyCustodian] = members(t, "group:keys")
	s.Reconfigure(file)
	ctx, stop := s.WhileAdmitted(admitted(t, signedIn("carla", "keys"), vocab.RoleKeyCustodian))
	defer stop()
	ended(ctx, "")
	s.Reconfigure(officeFile())
	ended(ctx, vocab.ReasonRoleRequired)

	// Of what the service does by itself there is no admission to lose.
	own, stop := s.WhileAdmitted(t.Context())
	defer stop()
	ended(own, "")
	// What was stopped is no more looked at.
	ctx, stop = s.WhileAdmitted(admitted(t, signedIn("dan")))
	stop()
	s.disable(t, userOf("dan"), "")
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}
