package tenant_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// staffed is a tenant whose file names alice tenant-admin, paula and pete
// policy-admins, erin auditor and the group recovery recovery-officer.
func staffed(t *testing.T) *served {
	t.Helper()
	s := serve(t)
	s.Reconfigure(officeFile())
	return s
}

func officeFile() config.Tenant {
	group := func(name string) vocab.Principal {
		return vocab.Principal{Kind: vocab.KindGroup, Value: name + "@contoso.test"}
	}
	return config.Tenant{
		ID: "contoso", Domains: []string{"contoso.test"}, Admins: []vocab.Principal{userOf("alice")},
		Roles: map[vocab.Role][]vocab.Principal{
			vocab.RolePolicyAdmin:     {userOf("pete"), userOf("paula")},
			vocab.RoleAuditor:         {userOf("erin")},
			vocab.RoleRecoveryOfficer: {group("recovery")},
		},
	}
}

func userOf(name string) vocab.Principal {
	return vocab.Principal{Kind: vocab.KindUser, Value: name + "@contoso.test"}
}

// signedIn is somebody who signed in; groups are what the provider says.
func signedIn(name string, groups ...string) *vocab.Identity {
	for i := range groups {
		groups[i] += "@contoso.test"
	}
	return &vocab.Identity{
		Issuer: "https://idp.contoso.test", Subject: name, Addresses: []string{name + "@contoso.test"}, Member: "contoso", Groups: groups,
	}
}

func callBy(who *vocab.Identity) tenant.Call { return tenant.Call{Method: "test", Caller: who} }

// members reads "bob", "group:x" and "service:dms".
func members(t *testing.T, list ...string) (out []vocab.Principal) {
	t.Helper()
	for _, m := range list {
		switch {
		case strings.HasPrefix(m, "group:"):
			m += "@contoso.test"
		case !strings.Contains(m, ":"):
			m = "user:" + m + "@contoso.test"
		}
		p, err := vocab.ParsePrincipal(m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// group writes a group over whatever is there, as pete.
func (s *served) group(t *testing.T, name string, list ...string) *tenant.GroupChange {
	t.Helper()
	out, err := s.writeGroup(t, signedIn("pete"), name, list...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *served) writeGroup(t *testing.T, who *vocab.Identity, name string, list ...string) (*tenant.GroupChange, error) {
	t.Helper()
	address, want, anyRevision := name+"@contoso.test", uint32(0), false
	if _, err := s.GetGroup(t.Context(), address); err == nil {
		anyRevision = true
	}
	out, _, err := s.WriteGroup(t.Context(), callBy(who), address, record.Group{Members: members(t, list...)}, want, anyRevision, false)
	return out, err
}

// wants checks a refusal by its reason and part of its message.
func wants(t *testing.T, err error, reason vocab.Reason, says string) {
	t.Helper()
	if vocab.ReasonOf(err) != reason || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v (%s), want %s with %q", err, vocab.ReasonOf(err), reason, says)
	}
}

func wantNone(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// event reads the event of an answer.
func (s *served) event(t *testing.T, id vocab.EventID) *audit.Event {
	t.Helper()
	e, err := s.log.Get(t.Context(), s.ID(), id)
	if err != nil {
		t.Fatal(err)
	}
	return e.Event
}

func TestGroupsComeAndGo(t *testing.T) {
	s := staffed(t)
	const finance = "finance@contoso.test"
	pete := callBy(signedIn("pete"))
	write := func(want uint32, anyRevision, dry bool, list ...string) (*tenant.GroupChange, vocab.EventID, error) {
		return s.WriteGroup(t.Context(), pete, finance, record.Group{Members: members(t, list...), Description: "who counts"}, want, anyRevision, dry)
	}
	_, err := s.GetGroup(t.Context(), finance)
	wants(t, err, vocab.ReasonResourceNotFound, "there is no group finance@contoso.test")
	_, _, err = write(1, false, false, "bob")
	wants(t, err, vocab.ReasonResourceNotFound, "there is no group")
	_, _, err = write(0, true, false, "bob")
	wants(t, err, vocab.ReasonResourceNotFound, "there is no group")

	tried, event, err := write(0, false, true, "bob")
	wantNone(t, err)
	if e := s.event(t, event); e.Kind != audit.KindRead || e.State != [32]byte{} || tried.Revision != 1 || tried.Total != 1 {
		t.Errorf("a check is recorded as %s with state %x, and would be %+v", e.Kind, e.State, tried)
	}
	_, err = s.GetGroup(t.Context(), finance)
	wants(t, err, vocab.ReasonResourceNotFound, "there is no group")

	made, event, err := write(0, false, false, "service:dms", "bob", "group:interns")
	wantNone(t, err)
	if e := s.event(t, event); e.Kind != audit.KindGroupChanged || e.Target != "groups/"+finance || e.State == [32]byte{} ||
		e.Detail != "created; 3 joined: user:bob@contoso.test, group:interns@contoso.test, service:dms" {
		t.Errorf("the event is %+v", e)
	}
	if made.Revision != 1 || made.Author != "pete@contoso.test" {
		t.Errorf("made as %+v", made)
	}
	_, _, err = write(0, false, false, "bob")
	wants(t, err, vocab.ReasonResourceExists, "there is a group finance@contoso.test already")
	_, _, err = write(2, false, false, "carla")
	wants(t, err, vocab.ReasonEtagMismatch, "revision 1 of the group was written by pete@contoso.test, and your edit is based on 2")

	second, _, err := write(1, false, false, "carla", "service:dms")
	wantNone(t, err)
	if d := cmp.Diff([]tenant.MembershipChange{
		{Principal: userOf("carla"), Joins: []string{finance}},
		{Principal: userOf("bob"), Leaves: []string{finance}},
		{Principal: members(t, "group:interns")[0], Leaves: []string{finance}},
	}, second.Changes, cmpopts.EquateEmpty()); d != "" || second.Total != 3 {
		t.Errorf("%d changes (-want +got):\n%s", second.Total, d)
	}
	got, err := s.GetGroup(t.Context(), finance)
	wantNone(t, err)
	if d := cmp.Diff(members(t, "carla", "service:dms"), got.Members); d != "" || got.Revision != 2 || got.Description != "who counts" {
		t.Errorf("revision %d: %s", got.Revision, d)
	}

	_, _, err = s.DeleteGroup(t.Context(), pete, finance, 1, false, false)
	wants(t, err, vocab.ReasonEtagMismatch, "revision 2")
	_, _, err = s.DeleteGroup(t.Context(), pete, finance, 2, false, true)
	wantNone(t, err)
	gone, event, err := s.DeleteGroup(t.Context(), pete, finance, 2, false, false)
	wantNone(t, err)
	if e := s.event(t, event); e.Detail != "deleted; 2 left: user:carla@contoso.test, service:dms" || gone.Revision != 3 {
		t.Errorf("deleted as revision %d: %q", gone.Revision, e.Detail)
	}
	_, _, err = s.DeleteGroup(t.Context(), pete, finance, 3, false, false)
	wants(t, err, vocab.ReasonResourceNotFound, "there is no group")
	// The address can be used again, and no revision repeats.
	again, _, err := write(0, false, false, "bob")
	wantNone(t, err)
	if again.Revision != 4 {
		t.Errorf("made again as revision %d", again.Revision)
	}
}

func TestWhatAGroupCannotBe(t *testing.T) {
	s := staffed(t)
	s.group(t, "staff", "group:interns")
	for _, c := range []struct {
		group string
		list  []string
		says  string
	}{
		{"interns", []string{"group:staff"}, "groups would stand in a circle: interns@contoso.test is in staff@contoso.test, which is in interns@contoso.test"},
		{"interns", []string{"domain:contoso.test"}, "domain:contoso.test cannot be a member"},
		{"interns", []string{"bob", "bob"}, "is there twice"},
	} {
		_, err := s.writeGroup(t, signedIn("pete"), c.group, c.list...)
		wants(t, err, vocab.ReasonRequestInvalid, c.says)
	}
	for _, text := range []string{"two\nlines", strings.Repeat("x", 2001), "u\u0308ber", "\xff"} {
		_, _, err := s.WriteGroup(t.Context(), callBy(signedIn("pete")), "x@contoso.test", record.Group{Description: text}, 0, false, false)
		wants(t, err, vocab.ReasonRequestInvalid, "the description")
	}
}

// What joining and leaving means beyond the group itself.
func TestEffectiveMembership(t *testing.T) {
	s := staffed(t)
	s.group(t, "staff", "group:finance", "carla")
	s.group(t, "all", "group:staff")
	out := s.group(t, "finance", "bob", "carla")
	if d := cmp.Diff([]tenant.MembershipChange{
		{Principal: userOf("bob"), Joins: []string{"all@contoso.test", "finance@contoso.test", "staff@contoso.test"}},
		{Principal: userOf("carla"), Joins: []string{"finance@contoso.test"}},
	}, out.Changes, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"all@contoso.test", "staff@contoso.test"}, out.Within); d != "" {
		t.Error(d)
	}
	out = s.group(t, "finance", "bob")
	if d := cmp.Diff([]tenant.MembershipChange{{Principal: userOf("carla"), Leaves: []string{"finance@contoso.test"}}}, out.Changes, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	// Who leaves a group may be in it still, through another.
	s.group(t, "managers", "bob")
	s.group(t, "finance", "bob", "group:managers")
	out = s.group(t, "finance", "group:managers")
	if len(out.Changes) != 1 || len(out.Changes[0].Leaves) > 0 {
		t.Errorf("bob leaves %+v and is still in finance through managers", out.Changes)
	}
}

func TestListGroups(t *testing.T) {
	s := staffed(t)
	for _, g := range []string{"a", "b", "c", "d"} {
		s.group(t, g, "bob")
	}
	s.group(t, "b", "carla")
	if _, _, err := s.DeleteGroup(t.Context(), callBy(signedIn("pete")), "c@contoso.test", 0, true, false); err != nil {
		t.Fatal(err)
	}
	list := func(member, after string, limit int) (out []string, more bool) {
		var p vocab.Principal
		if member != "" {
			p = members(t, member)[0]
		}
		page, more, err := s.ListGroups(t.Context(), p, after, limit)
		wantNone(t, err)
		for _, g := range page {
			out = append(out, strings.TrimSuffix(g.Address, "@contoso.test"))
		}
		return out, more
	}
	for _, c := range []struct {
		member, after string
		limit         int
		want          string
		more          bool
	}{
		{"", "", 10, "a b d", false},
		{"", "", 2, "a b", true},
		{"", "b@contoso.test", 2, "d", false},
		{"", "c@contoso.test", 2, "d", false},
		{"bob", "", 10, "a d", false},
		{"bob", "", 1, "a", true},
		{"bob", "a@contoso.test", 1, "d", false},
		{"carla", "", 10, "b", false},
		{"mallory", "", 10, "", false},
		{"group:a", "", 10, "", false},
	} {
		got, more := list(c.member, c.after, c.limit)
		if strings.Join(got, " ") != c.want || more != c.more {
			t.Errorf("of %q after %q, at most %d: %v, more %v", c.member, c.after, c.limit, got, more)
		}
	}
}

// No edit makes its author a member of more groups, whichever way.
func TestNobodyJoinsAGroupAlone(t *testing.T) {
	s := staffed(t)
	s.group(t, "editors", "paula")
	s.group(t, "staff", "bob")
	paula := func() *vocab.Identity { return signedIn("paula") }
	alone := func(err error, group string) {
		t.Helper()
		wants(t, err, vocab.ReasonSamePerson, "this would make you yourself a member of "+group+"@contoso.test, which needs a second person")
		if e, _ := errors.AsType[*vocab.Error](err); e == nil || e.Event.IsZero() || s.event(t, e.Event).Reason != vocab.ReasonSamePerson {
			t.Errorf("the refusal is not in the log: %v", err)
		}
	}
	_, err := s.writeGroup(t, paula(), "staff", "bob", "paula")
	alone(err, "staff")
	_, err = s.writeGroup(t, paula(), "new", "paula")
	alone(err, "new")
	// Through a group of the directory, or one that the provider vouches for.
	_, err = s.writeGroup(t, paula(), "staff", "bob", "group:editors")
	alone(err, "staff")
	_, err = s.writeGroup(t, signedIn("paula", "writers"), "staff", "bob", "group:writers")
	alone(err, "staff")
	// Under another of her addresses.
	twice := paula()
	twice.Addresses = append(twice.Addresses, "p@contoso.test")
	_, err = s.writeGroup(t, twice, "staff", "bob", "p")
	alone(err, "staff")
	// By way of a group above.
	s.group(t, "all", "group:staff")
	_, err = s.writeGroup(t, paula(), "staff", "bob", "paula")
	alone(err, "all@contoso.test, staff")
	// If the provider held groups back, she may be in any.
	some := paula()
	some.GroupsIncomplete = true
	_, err = s.writeGroup(t, some, "staff", "bob", "group:unknown")
	alone(err, "staff")

	// What she may: others join, whatever she is in already, and leaving.
	_, err = s.writeGroup(t, paula(), "staff", "bob", "carla", "group:unknown")
	wantNone(t, err)
	_, err = s.writeGroup(t, some, "staff", "bob", "dan")
	wantNone(t, err)
	_, err = s.writeGroup(t, signedIn("paula", "board"), "board", "paula", "bob")
	wantNone(t, err) // she is in it by her provider's word
	s.group(t, "staff", "bob", "paula")
	_, err = s.writeGroup(t, paula(), "staff", "bob", "paula", "group:editors")
	wantNone(t, err)
	_, err = s.writeGroup(t, paula(), "staff", "bob")
	wantNone(t, err)
	if _, _, err := s.DeleteGroup(t.Context(), callBy(paula()), "editors@contoso.test", 0, true, false); err != nil {
		t.Error(err)
	}
	// A check says the same as the edit would.
	_, _, err = s.WriteGroup(t.Context(), callBy(paula()), "staff@contoso.test", record.Group{Members: members(t, "paula")}, 0, true, true)
	alone(err, "all@contoso.test, staff")
}

// A group that holds a role is as hard to join as the role is to get.
func TestGroupsThatHoldRoles(t *testing.T) {
	s := staffed(t)
	alice := func() *vocab.Identity { return signedIn("alice") }
	s.group(t, "interns", "bob")
	if _, _, err := s.GrantRole(t.Context(), callBy(alice()), vocab.RolePolicyAdmin, members(t, "group:editors")[0]); err != nil {
		t.Fatal(err)
	}

	_, err := s.writeGroup(t, signedIn("pete"), "editors", "mallory")
	wants(t, err, vocab.ReasonRoleRequired, "the members of editors@contoso.test hold the role policy-admin: changing them needs the role tenant-admin")
	_, err = s.writeGroup(t, alice(), "editors", "bob", "group:interns")
	wantNone(t, err)
	if !s.HoldsRole(signedIn("bob"), vocab.RolePolicyAdmin) {
		t.Error("a member of a group that holds a role does not hold it")
	}
	// Whoever is in a group in it, too.
	_, err = s.writeGroup(t, signedIn("pete"), "interns", "bob", "mallory")
	wants(t, err, vocab.ReasonRoleRequired, "the members of interns@contoso.test hold the role policy-admin")
	_, err = s.writeGroup(t, signedIn("pete"), "interns")
	wants(t, err, vocab.ReasonRoleRequired, "policy-admin")
	_, _, err = s.DeleteGroup(t.Context(), callBy(signedIn("pete")), "editors@contoso.test", 0, true, false)
	wants(t, err, vocab.ReasonRoleRequired, "policy-admin")
	// What changes no member is no tenant-admin's affair.
	_, _, err = s.WriteGroup(t.Context(), callBy(signedIn("pete")), "interns@contoso.test",
		record.Group{Members: members(t, "bob"), Description: "until autumn"}, 0, true, false)
	wantNone(t, err)

	// The guarded roles need two, whoever begins, also by the operator's file.
	_, err = s.writeGroup(t, signedIn("pete"), "recovery", "mallory")
	wants(t, err, vocab.ReasonRoleRequired, "recovery-officer")
	_, err = s.writeGroup(t, alice(), "recovery", "mallory")
	wants(t, err, vocab.ReasonSamePerson, "this gives somebody the role recovery-officer, which needs a second person")
	// To take them needs one.
	s.group(t, "keys", "bob", "carla")
	file := officeFile()
	file.Roles[vocab.RoleKeyCustodian] = members(t, "group:keys")
	s.Reconfigure(file)
	_, err = s.writeGroup(t, alice(), "keys", "bob", "mallory")
	wants(t, err, vocab.ReasonSamePerson, "the role key-custodian")
	_, err = s.writeGroup(t, alice(), "keys", "bob")
	wantNone(t, err)
}

func TestRolesMoveIntoTheStore(t *testing.T) {
	s := staffed(t)
	alice := callBy(signedIn("alice"))
	role := func(r vocab.Role) *tenant.RoleHolders {
		t.Helper()
		out, err := s.GetRole(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := role(vocab.RolePolicyAdmin); got.Stored || !slices.Equal(got.Holders, members(t, "paula", "pete")) || got.Revision != 0 {
		t.Errorf("before any change: %+v", got)
	}
	if got := role(vocab.RoleKeyCustodian); got.Stored || len(got.Holders) != 0 {
		t.Errorf("a role of nobody: %+v", got)
	}

	out, event, err := s.GrantRole(t.Context(), alice, vocab.RolePolicyAdmin, userOf("bob"))
	wantNone(t, err)
	if !out.Stored || !slices.Equal(out.Holders, members(t, "bob", "paula", "pete")) || !slices.Equal(out.TakenOver, members(t, "paula", "pete")) {
		t.Errorf("the first grant: %+v", out)
	}
	const detail = "granted to user:bob@contoso.test; from now on the operator's file does not count, which named user:paula@contoso.test, user:pete@contoso.test"
	if e := s.event(t, event); e.Kind != audit.KindRoleChanged || e.Target != "roles/policy-admin" || e.Detail != detail {
		t.Errorf("the event is %s of %s: %s", e.Kind, e.Target, e.Detail)
	}
	for _, name := range []string{"bob", "paula", "pete"} {
		if !s.HoldsRole(signedIn(name), vocab.RolePolicyAdmin) {
			t.Errorf("%s is no policy-admin", name)
		}
	}
	second, event, err := s.RevokeRole(t.Context(), alice, vocab.RolePolicyAdmin, userOf("pete"))
	wantNone(t, err)
	if second.TakenOver != nil || s.event(t, event).Detail != "revoked from user:pete@contoso.test" || second.Revision != 2 {
		t.Errorf("the second change: %+v", second)
	}
	if s.HoldsRole(signedIn("pete"), vocab.RolePolicyAdmin) {
		t.Error("pete, whom the file names, is still policy-admin")
	}
	// The last one may go, and the file does not come back.
	for _, name := range []string{"bob", "paula"} {
		if _, _, err := s.RevokeRole(t.Context(), alice, vocab.RolePolicyAdmin, userOf(name)); err != nil {
			t.Fatal(err)
		}
	}
	s.Reconfigure(officeFile())
	if got := role(vocab.RolePolicyAdmin); !got.Stored || len(got.Holders) != 0 || s.HoldsRole(signedIn("paula"), vocab.RolePolicyAdmin) {
		t.Errorf("after all were revoked: %+v", got)
	}
	// The first change may be a revocation, too.
	revoked, _, err := s.RevokeRole(t.Context(), alice, vocab.RoleAuditor, userOf("erin"))
	wantNone(t, err)
	if !slices.Equal(revoked.TakenOver, members(t, "erin")) || len(revoked.Holders) != 0 || s.HoldsRole(signedIn("erin"), vocab.RoleAuditor) {
		t.Errorf("erin's role was revoked: %+v", revoked)
	}
}

func TestWhatCannotBeDoneToRoles(t *testing.T) {
	s := staffed(t)
	alice := callBy(signedIn("alice"))
	grant := func(role vocab.Role, who string) error {
		p, err := vocab.ParsePrincipal(who)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.GrantRole(t.Context(), alice, role, p)
		return err
	}
	for _, wide := range []string{"anyone", "domain:contoso.test", "tenant:contoso"} {
		wants(t, grant(vocab.RolePolicyAdmin, wide), vocab.ReasonRequestInvalid, "too wide for a role")
	}
	wants(t, grant(vocab.RolePolicyAdmin, "user:paula@contoso.test"), vocab.ReasonResourceExists, "holds the role policy-admin already")
	for _, role := range []vocab.Role{vocab.RoleKeyCustodian, vocab.RoleAuditor, vocab.RoleRecoveryOfficer} {
		wants(t, grant(role, "user:mallory@contoso.test"), vocab.ReasonApprovalRequired, "needs approval by another tenant-admin")
		if s.HoldsRole(signedIn("mallory"), role) {
			t.Errorf("mallory is %s", role)
		}
	}
	_, _, err := s.RevokeRole(t.Context(), alice, vocab.RolePolicyAdmin, userOf("mallory"))
	wants(t, err, vocab.ReasonResourceNotFound, "does not hold the role policy-admin by name")
	if got, err := s.GetRole(t.Context(), vocab.RoleAuditor); err != nil || got.Stored {
		t.Errorf("what was refused left something: %+v, %v", got, err)
	}
}

// Somebody can always administer.
func TestTheLastTenantAdmin(t *testing.T) {
	const nobody = "nobody who is known here could administer the tenant after that"
	admin := vocab.RoleTenantAdmin
	t.Run("by name", func(t *testing.T) {
		s := staffed(t)
		alice := callBy(signedIn("alice"))
		_, _, err := s.RevokeRole(t.Context(), alice, admin, userOf("alice"))
		wants(t, err, vocab.ReasonRequestInvalid, nobody)
		if _, _, err := s.GrantRole(t.Context(), alice, admin, userOf("bob")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.DisablePrincipal(t.Context(), alice, userOf("bob"), ""); err != nil {
			t.Fatal(err)
		}
		_, _, err = s.RevokeRole(t.Context(), alice, admin, userOf("alice"))
		wants(t, err, vocab.ReasonRequestInvalid, nobody)
		if _, _, err := s.EnablePrincipal(t.Context(), alice, userOf("bob")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.RevokeRole(t.Context(), alice, admin, userOf("alice")); err != nil {
			t.Fatal(err)
		}
		if s.HoldsRole(signedIn("alice"), admin) || !s.HoldsRole(signedIn("bob"), admin) {
			t.Error("bob is not the only one")
		}
	})
	t.Run("in a group", func(t *testing.T) {
		s := staffed(t)
		alice := callBy(signedIn("alice"))
		s.group(t, "admins", "group:leads")
		if _, _, err := s.GrantRole(t.Context(), alice, admin, members(t, "group:admins")[0]); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.RevokeRole(t.Context(), alice, admin, userOf("alice"))
		wants(t, err, vocab.ReasonRequestInvalid, nobody) // nobody is in the group
		if _, err := s.writeGroup(t, signedIn("alice"), "leads", "bob"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.RevokeRole(t.Context(), alice, admin, userOf("alice")); err != nil {
			t.Fatal(err)
		}
		bob := signedIn("bob")
		for _, list := range [][]string{{}, {"group:elsewhere"}} {
			_, err := s.writeGroup(t, bob, "leads", list...)
			wants(t, err, vocab.ReasonRequestInvalid, nobody)
		}
		_, _, err = s.DeleteGroup(t.Context(), callBy(bob), "admins@contoso.test", 0, true, false)
		wants(t, err, vocab.ReasonRequestInvalid, nobody)
		if _, err := s.writeGroup(t, bob, "leads", "bob", "carla"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.writeGroup(t, bob, "leads", "carla"); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("in a group that the provider vouches for", func(t *testing.T) {
		s := staffed(t)
		if _, _, err := s.GrantRole(t.Context(), callBy(signedIn("alice")), admin, members(t, "group:it")[0]); err != nil {
			t.Fatal(err)
		}
		_, _, err := s.RevokeRole(t.Context(), callBy(signedIn("alice")), admin, userOf("alice"))
		wants(t, err, vocab.ReasonRequestInvalid, nobody)
		if _, _, err := s.RevokeRole(t.Context(), callBy(signedIn("alice", "it")), admin, userOf("alice")); err != nil {
			t.Error(err)
		}
	})
}

// Once a role is the store's, the operator is told that the file does not count.
func TestTheOperatorIsToldWhoseRolesCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, quiet)
		k.Reconfigure(officeFile())
		if strings.Contains(k.logged.String(), "do not count") {
			t.Error("said before it is so")
		}
		if _, _, err := k.GrantRole(t.Context(), callBy(signedIn("alice")), vocab.RolePolicyAdmin, userOf("bob")); err != nil {
			t.Fatal(err)
		}
		k.Reconfigure(officeFile())
		if log := k.logged.String(); !strings.Contains(log, "holders of roles are in the store; those of the tenant's file do not count") || !strings.Contains(log, "roles=[policy-admin]") {
			t.Errorf("the operator's log says nothing of it:\n%s", log)
		}
	})
}
