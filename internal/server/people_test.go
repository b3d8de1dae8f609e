package server_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// town is a service and what the tests of people do in it.
type town struct {
	*rmstest.Service
	t *testing.T
}

func newTown(t *testing.T) *town { return &town{rmstest.Start(t), t} }

// document protects one that its grants let read.
func (w *town) document(to ...string) []byte {
	w.t.Helper()
	o := rms.ProtectOptions{AdHoc: &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS}}
	for _, p := range to {
		o.AdHoc.Grants = append(o.AdHoc.Grants, &rmsv1.Grant{To: p, Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}})
	}
	var out bytes.Buffer
	if _, err := w.Client("alice").Protect(w.t.Context(), &out, strings.NewReader("a test value"), o); err != nil {
		w.t.Fatal(err)
	}
	return out.Bytes()
}

// opens returns why a client cannot read a document, "" if it can.
func opens(ctx context.Context, c *rms.Client, doc []byte, options ...rms.OpenOption) vocab.Reason {
	d, err := c.Open(ctx, bytes.NewReader(doc), int64(len(doc)), rms.RightView, options...)
	if err == nil {
		err = d.Close()
	}
	return vocab.ReasonOf(err)
}

// group writes a group over whatever is there, as alice.
func (w *town) group(name string, members ...string) {
	w.t.Helper()
	people, resource := w.Client("alice").People(), "tenants/contoso/groups/"+name+"@contoso.test"
	_, err := people.UpdateGroup(w.t.Context(), &rmsv1.UpdateGroupRequest{Group: &rmsv1.Group{Name: resource, Members: members, Etag: "*"}})
	if vocab.ReasonOf(err) == vocab.ReasonResourceNotFound {
		_, err = people.CreateGroup(w.t.Context(), &rmsv1.CreateGroupRequest{
			Parent: "tenants/contoso", GroupId: name + "@contoso.test", Group: &rmsv1.Group{Members: members},
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *town) disable(principal string) *rmsv1.DisablePrincipalResponse {
	w.t.Helper()
	out, err := w.Client("alice").People().DisablePrincipal(w.t.Context(), &rmsv1.DisablePrincipalRequest{
		Name: "tenants/contoso/principals/" + principal, Reason: "a test",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *town) enable(principal string) {
	w.t.Helper()
	if _, err := w.Client("alice").People().EnablePrincipal(w.t.Context(), &rmsv1.EnablePrincipalRequest{Name: "tenants/contoso/principals/" + principal}); err != nil {
		w.t.Fatal(err)
	}
}

// connections are clients of one person, each on a connection of its own.
func (w *town) connections(name string, n int) (out []*rms.Client) {
	w.t.Helper()
	for range n {
		c, err := rms.Dial(w.t.Context(), w.Config(name))
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { _ = c.Close() })
		out = append(out, c)
	}
	return out
}

// An edit of a group is in force for the next open on every connection, also of
// a group in a group in the one that is granted something.
func TestGroupsDecideAtOnce(t *testing.T) {
	w := newTown(t)
	doc := w.document("group:project@contoso.test")
	bobs := w.connections("bob", 8)
	all := func(want vocab.Reason) {
		t.Helper()
		var wg sync.WaitGroup
		for i, c := range bobs {
			wg.Go(func() {
				if got := opens(t.Context(), c, doc); got != want {
					t.Errorf("connection %d: %q, want %q", i, got, want)
				}
			})
		}
		wg.Wait()
	}
	all(vocab.ReasonNoRights)
	for round := range 5 {
		w.group("project", "user:bob@contoso.test")
		all("")
		w.group("project", "user:carla@contoso.test")
		all(vocab.ReasonNoRights)
		w.group("project", "group:team@contoso.test")
		w.group("team", fmt.Sprintf("group:shift-%d@contoso.test", round))
		all(vocab.ReasonNoRights)
		w.group(fmt.Sprintf("shift-%d", round), "user:bob@contoso.test")
		all("")
		w.group("team", "user:carla@contoso.test")
		all(vocab.ReasonNoRights)
	}
	w.group("project", "user:bob@contoso.test")
	all("")
	if _, err := w.Client("alice").People().DeleteGroup(t.Context(), &rmsv1.DeleteGroupRequest{Name: "tenants/contoso/groups/project@contoso.test", Etag: "*"}); err != nil {
		t.Fatal(err)
	}
	all(vocab.ReasonNoRights)
}

// What a provider says of its groups and what the directory says add up.
func TestProvidersGroupsInTheDirectory(t *testing.T) {
	w := newTown(t)
	bob := w.Client("bob") // of interns, by his provider
	doc := w.document("group:readers@contoso.test")
	if got := opens(t.Context(), bob, doc); got != vocab.ReasonNoRights {
		t.Fatalf("bob: %q", got)
	}
	w.group("readers", "group:interns@contoso.test")
	if got := opens(t.Context(), bob, doc); got != "" {
		t.Errorf("bob, an intern: %q", got)
	}
	if got := opens(t.Context(), w.Client("mallory"), doc); got != vocab.ReasonNoRights {
		t.Errorf("mallory, who is none: %q", got)
	}
	// A group of the directory with a provider's address adds to it.
	w.group("interns", "user:mallory@contoso.test")
	for _, name := range []string{"bob", "mallory"} {
		if got := opens(t.Context(), w.Client(name), doc); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// held is a client whose provider held groups back.
func (w *town) held(name string) *rms.Client {
	w.t.Helper()
	config := w.Config(name)
	config.Token = func(context.Context) (string, error) {
		return w.TokenWith(name, map[string]any{"groups": nil, "hasgroups": true}), nil
	}
	c, err := rms.Dial(w.t.Context(), config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// That a provider held groups back keeps its meaning beside a directory.
func TestGroupsHeldBack(t *testing.T) {
	w := newTown(t)
	doc := w.document("group:readers@contoso.test", "group:interns@contoso.test")
	bob := w.held("bob")
	w.group("readers", "user:carla@contoso.test")
	if got := opens(t.Context(), bob, doc); got != vocab.ReasonGroupsIncomplete {
		t.Errorf("bob, who may be an intern: %q", got)
	}
	w.group("readers", "user:bob@contoso.test")
	if got := opens(t.Context(), bob, doc); got != "" {
		t.Errorf("bob, whom the directory knows: %q", got)
	}
}

func TestGuestsInGroups(t *testing.T) {
	w := newTown(t)
	doc := w.document("group:partners@contoso.test")
	w.group("partners", "user:dave@fabrikam.test")
	dave := w.Client("dave")
	if got := opens(t.Context(), dave, doc); got != vocab.ReasonAddressNotVerified {
		t.Errorf("dave, whose domain is not admitted: %q", got)
	}
	admit := func(domains ...string) {
		t.Helper()
		if _, err := w.Client("alice").Policy().UpdateSettings(t.Context(), &rmsv1.UpdateSettingsRequest{
			Settings:   &rmsv1.Settings{Name: "tenants/contoso/settings", Etag: "*", GuestDomains: domains},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"guest_domains"}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	admit("fabrikam.test")
	if got := opens(t.Context(), dave, doc); got != "" {
		t.Errorf("dave, a guest: %q", got)
	}
	if got := opens(t.Context(), w.Client("fay"), doc); got != vocab.ReasonNoRights {
		t.Errorf("fay, another guest: %q", got)
	}
	// No group makes a guest an administrator.
	if _, err := w.Client("alice").People().GrantRole(t.Context(), &rmsv1.GrantRoleRequest{
		Name: "tenants/contoso/roles/policy-admin", Principal: "group:partners@contoso.test",
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := dave.Policy().ListTemplates(t.Context(), &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso"}); vocab.ReasonOf(err) != vocab.ReasonRoleRequired {
		t.Errorf("dave lists templates: %v", err)
	}
	admit()
	if got := opens(t.Context(), dave, doc); got != vocab.ReasonAddressNotVerified {
		t.Errorf("dave, no guest any more: %q", got)
	}
}

// The instant stop: whatever is called next, on whichever connection, fails.
func TestDisabledOnEveryConnection(t *testing.T) {
	w := newTown(t)
	doc := w.document("user:bob@contoso.test")
	bobs := w.connections("bob", 8)
	calls := map[string]func(c *rms.Client) error{
		"open": func(c *rms.Client) error {
			if r := opens(t.Context(), c, doc); r != "" {
				return r
			}
			return nil
		},
		"protect": func(c *rms.Client) error {
			_, err := c.Protect(t.Context(), &bytes.Buffer{}, strings.NewReader("a test value"), rms.ProtectOptions{Template: "finance-internal"})
			return err
		},
		"list templates": func(c *rms.Client) error {
			_, err := c.Protection().ListUsableTemplates(t.Context(), &rmsv1.ListUsableTemplatesRequest{Parent: "tenants/contoso"})
			return err
		},
		"list licenses": func(c *rms.Client) error {
			_, err := c.Licenses().ListLicenses(t.Context(), &rmsv1.ListLicensesRequest{Parent: "tenants/contoso"})
			return err
		},
	}
	all := func(want vocab.Reason) {
		t.Helper()
		var wg sync.WaitGroup
		for i, c := range bobs {
			for what, call := range calls {
				wg.Go(func() {
					got := vocab.ReasonOf(call(c))
					if got != want && !(want == "" && got == vocab.ReasonTemplateNotInScope) {
						t.Errorf("connection %d, %s: %q, want %q", i, what, got, want)
					}
				})
			}
		}
		wg.Wait()
	}
	all("")
	for range 3 {
		w.disable("user:bob@contoso.test")
		all(vocab.ReasonPrincipalDisabled)
		w.enable("user:bob@contoso.test")
		all("")
	}
}

// The answer says what may still be opened, and until when.
func TestDisablingSaysWhatMayStillOpen(t *testing.T) {
	w := newTown(t)
	none := w.disable("user:mallory@contoso.test")
	if none.GetCachedUseCount() != 0 || len(none.GetCachedUses()) != 0 {
		t.Errorf("mallory, who never opened anything, keeps %v", none.GetCachedUses())
	}
	bob := w.Client("bob")
	doc := w.document("user:bob@contoso.test")
	acquire := func() {
		t.Helper()
		info, err := rms.Inspect(bytes.NewReader(doc), int64(len(doc)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bob.Protection().Acquire(t.Context(), keeping(t, info.License.String())); err != nil {
			t.Fatal(err)
		}
	}
	const kept = 103
	for range kept {
		acquire()
	}
	out := w.disable("user:bob@contoso.test")
	if out.GetCachedUseCount() != kept || len(out.GetCachedUses()) != 100 || out.GetPrincipal().GetState() != rmsv1.Principal_STATE_DISABLED || out.GetPrincipal().GetReason() != "a test" {
		t.Errorf("%d uses, %d listed, of %v", out.GetCachedUseCount(), len(out.GetCachedUses()), out.GetPrincipal())
	}
	for i, u := range out.GetCachedUses() {
		if !strings.HasPrefix(u.GetLicense(), "tenants/contoso/licenses/") || i > 0 && u.GetExpireTime().AsTime().After(out.GetCachedUses()[i-1].GetExpireTime().AsTime()) {
			t.Errorf("use %d: %v", i, u)
		}
	}
}

// A stream ends when its caller is disabled or loses the role; that it did is
// in the log.
func TestStreamsEndWithTheirCaller(t *testing.T) {
	w := newTown(t)
	alice := w.Client("alice")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a stream that does not end must not hold the test up
	defer cancel()
	tail := func(c *rms.Client) func() (*rmsv1.TailEventsResponse, error) {
		t.Helper()
		s, err := c.Audit().TailEvents(ctx, &rmsv1.TailEventsRequest{Parent: "tenants/contoso"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil { // it has begun
			t.Fatal(err)
		}
		return s.Recv
	}
	ends := func(recv func() (*rmsv1.TailEventsResponse, error), want vocab.Reason) *rms.Error {
		t.Helper()
		for {
			_, err := recv()
			if err == nil {
				continue
			}
			e, ok := err.(*rms.Error) //nolint:errorlint // as the client documents
			if !ok || e.Reason != want {
				t.Fatalf("the stream ended with %v, want %s", err, want)
			}
			return e
		}
	}
	recorded := func(e *rms.Error) {
		t.Helper()
		got, err := w.Client("erin").Audit().GetEvent(t.Context(), &rmsv1.GetEventRequest{Name: "tenants/contoso/events/" + e.Event.String()})
		if err != nil || got.GetOutcome() != string(e.Reason) || got.GetMethod() != "AuditService/TailEvents" {
			t.Errorf("the end of the stream is recorded as %v, %v", got, err)
		}
	}
	erin := tail(w.Client("erin"))
	w.disable("user:erin@contoso.test")
	e := ends(erin, vocab.ReasonPrincipalDisabled)
	w.enable("user:erin@contoso.test")
	recorded(e)

	again := tail(w.Client("erin"))
	role := &rmsv1.RevokeRoleRequest{Name: "tenants/contoso/roles/auditor", Principal: "user:erin@contoso.test"}
	if _, err := alice.People().RevokeRole(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	ends(again, vocab.ReasonRoleRequired)
}

// A role is in force for the next call, given and taken.
func TestRolesCountAtOnce(t *testing.T) {
	w := newTown(t)
	bobs := w.connections("bob", 8)
	people := w.Client("alice").People()
	all := func(want vocab.Reason) {
		t.Helper()
		var wg sync.WaitGroup
		for i, c := range bobs {
			wg.Go(func() {
				_, err := c.Policy().ListTemplates(t.Context(), &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso"})
				if got := vocab.ReasonOf(err); got != want {
					t.Errorf("connection %d: %q, want %q", i, got, want)
				}
			})
		}
		wg.Wait()
	}
	all(vocab.ReasonRoleRequired)
	const role, bob = "tenants/contoso/roles/policy-admin", "user:bob@contoso.test"
	for round := range 3 {
		change, err := people.GrantRole(t.Context(), &rmsv1.GrantRoleRequest{Name: role, Principal: bob})
		if err != nil {
			t.Fatal(err)
		}
		if first := round == 0; first != (len(change.GetTakenOver()) > 0) || change.GetRole().GetSource() != rmsv1.RoleHolders_SOURCE_STORE {
			t.Errorf("grant %d says %v", round, change)
		}
		all("")
		if _, err := people.RevokeRole(t.Context(), &rmsv1.RevokeRoleRequest{Name: role, Principal: bob}); err != nil {
			t.Fatal(err)
		}
		all(vocab.ReasonRoleRequired)
	}
	// alice holds it by the file's word, which was taken over, and every role
	// says who names its holders.
	roles, err := people.ListRoles(t.Context(), &rmsv1.ListRolesRequest{Parent: "tenants/contoso"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range roles.GetRoles() {
		got = append(got, fmt.Sprintf("%s %s %s", r.GetRole(), r.GetSource(), strings.Join(r.GetHolders(), " ")))
	}
	want := []string{
		"ROLE_TENANT_ADMIN SOURCE_FILE user:alice@contoso.test user:grace@contoso.test",
		"ROLE_POLICY_ADMIN SOURCE_STORE user:alice@contoso.test user:grace@contoso.test",
		"ROLE_KEY_CUSTODIAN SOURCE_FILE user:carla@contoso.test user:dan@contoso.test",
		"ROLE_AUDITOR SOURCE_FILE user:erin@contoso.test",
		"ROLE_RECOVERY_OFFICER SOURCE_FILE user:heidi@contoso.test",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("roles are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What people are called may hold a slash, which ends no name here.
func TestAddressesWithSlashes(t *testing.T) {
	w := newTown(t)
	people := w.Client("alice").People()
	w.group("r/d", "user:a/b@contoso.test")
	g, err := people.GetGroup(t.Context(), &rmsv1.GetGroupRequest{Name: "tenants/contoso/groups/R/D@contoso.test"})
	if err != nil || g.GetName() != "tenants/contoso/groups/r/d@contoso.test" {
		t.Errorf("%v, %v", g, err)
	}
	w.disable("user:a/b@contoso.test")
	p, err := people.GetPrincipal(t.Context(), &rmsv1.GetPrincipalRequest{Name: "tenants/contoso/principals/user:A/B@contoso.test"})
	if err != nil || p.GetState() != rmsv1.Principal_STATE_DISABLED || len(p.GetGroups()) != 1 {
		t.Errorf("%v, %v", p, err)
	}
	for _, name := range []string{"tenants/contoso/groups/", "tenants/contoso/roles/r@contoso.test", "tenants/contoso/groups/no-address"} {
		if _, err := people.GetGroup(t.Context(), &rmsv1.GetGroupRequest{Name: name}); vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A group with all the members one may have is written, read and listed.
func TestLargestGroup(t *testing.T) {
	w := newTown(t)
	alice := w.Client("alice")
	list := func(n int) (members []string) {
		for i := range n {
			members = append(members, fmt.Sprintf("user:firstname.lastname-%05d@contoso.test", i))
		}
		return members
	}
	create := func(address string, n int) (*rmsv1.GroupChange, error) {
		return alice.People().CreateGroup(t.Context(), &rmsv1.CreateGroupRequest{
			Parent: "tenants/contoso", GroupId: address, Group: &rmsv1.Group{Members: list(n)},
		})
	}
	if _, err := create("more@contoso.test", 50_001); vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
		t.Errorf("one member too many: %v", err)
	}
	for _, address := range []string{"all-a@contoso.test", "all-b@contoso.test"} {
		out, err := create(address, 50_000)
		if err != nil {
			t.Fatal(err)
		}
		if out.GetChangeCount() != 50_000 || len(out.GetChanges()) != 1000 {
			t.Errorf("%d changes, %d told", out.GetChangeCount(), len(out.GetChanges()))
		}
	}
	var listed []string
	for token := ""; ; {
		page, err := alice.People().ListGroups(t.Context(), &rmsv1.ListGroupsRequest{Parent: "tenants/contoso", PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range page.GetGroups() {
			listed = append(listed, fmt.Sprintf("%s %d", g.GetName(), len(g.GetMembers())))
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if got, want := strings.Join(listed, ", "), "tenants/contoso/groups/all-a@contoso.test 50000, tenants/contoso/groups/all-b@contoso.test 50000"; got != want {
		t.Errorf("listed %s, want %s", got, want)
	}
	w.group("all-a", list(49_999)...)
}

// keeping asks for a use license of a document by its ID, to keep.
func keeping(t *testing.T, id string) *rmsv1.AcquireRequest {
	t.Helper()
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	return &rmsv1.AcquireRequest{
		Parent: "tenants/contoso", Right: rmsv1.Right_RIGHT_VIEW, Store: true,
		Delivery: &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Hpke{Hpke: &rmsv1.HpkePublicKey{Kem: uint32(key.KEM()), PublicKey: key.Public()}}},
		Document: &rmsv1.AcquireRequest_License{License: "tenants/contoso/licenses/" + id},
	}
}
