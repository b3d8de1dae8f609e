package attack

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/storeedit"
)

// Tables of what administrators manage, and fields of a resource.
const (
	tableResources = "resources"
	tableTargets   = "audit-targets"

	resourceName = 1
	resourceGone = 5
	resourceBody = 6
)

func (c *caller) people() rmsv1.PeopleServiceClient { return rmsv1.NewPeopleServiceClient(c.conn) }

// group makes a group, or writes it over what is there.
func (c *caller) group(name string, members ...string) {
	c.s.tb.Helper()
	g := &rmsv1.Group{Name: c.parent() + "/groups/" + name, Etag: "*", Members: members}
	_, err := c.people().UpdateGroup(c.ctx(), &rmsv1.UpdateGroupRequest{Group: g})
	if r := refused(err); r != nil && r.reason == vocab.ReasonResourceNotFound {
		_, err = c.people().CreateGroup(c.ctx(), &rmsv1.CreateGroupRequest{Parent: c.parent(), GroupId: name, Group: &rmsv1.Group{Members: members}})
	}
	must(c.s.tb, err)
}

func (c *caller) grantRole(role, who string) {
	c.s.tb.Helper()
	_, err := c.people().GrantRole(c.ctx(), &rmsv1.GrantRoleRequest{Name: c.parent() + "/roles/" + role, Principal: who})
	must(c.s.tb, err)
}

// fsck is what the operator's check of the stopped store prints.
func (s *site) fsck(t *testing.T) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := daemon.Fsck(t.Context(), filepath.Join(s.Dir, "data"), false, &out)
	return out.String(), err
}

// testTamperedPeople is the part of TestTamperedStore about groups, roles and
// disabled principals. Some of them take rights away, so a row that is missing
// weighs as much as one that was altered: the tenant is not served, and the
// check of the store says which it is.
func testTamperedPeople(t *testing.T, s *site, untouched func()) {
	s.tb = t
	untouched()
	s.start()
	alice, frank := s.person("alice"), s.as(fabrikam, "frank")
	alice.group("payroll@contoso.test", "user:erin@contoso.test", "user:mallory@contoso.test")
	alice.group("canteen@contoso.test", "user:mallory@contoso.test")
	alice.grantRole("policy-admin", "user:carla@contoso.test")
	frank.grantRole("policy-admin", "user:mallory@fabrikam.test")
	secret := alice.publish("", grant("group:payroll@contoso.test", rmsv1.Right_RIGHT_VIEW))
	carla := s.person("carla")
	custody := rmsv1.NewCustodyServiceClient(carla.conn)
	rotate := func() {
		_, err := custody.RotateKey(carla.ctx(), &rmsv1.RotateKeyRequest{Name: carla.parent() + "/keys/root"})
		must(t, err)
	}
	rotate()
	stopped := alice.publish("", grant("user:erin@contoso.test", rmsv1.Right_RIGHT_VIEW))
	rotate()
	s.stop()

	contosos := func(name string) []byte { return s.of([]byte(name)) }
	fabrikams := func(name string) []byte {
		id := s.trust[fabrikam].TenantID
		return append(id[:], name...)
	}
	const payroll, canteen = "groups/payroll@contoso.test", "groups/canteen@contoso.test"
	const policyAdmins, dan = "roles/policy-admin", "principals/user:dan@contoso.test"
	const second, key = "generations/2", "keys/root"
	var older, usable []byte
	s.editStore(t, func(tx *bbolt.Tx) {
		older, usable = row(t, tx, tableResources, contosos(payroll)), row(t, tx, tableResources, contosos(second))
	})
	s.start()
	alice, carla = s.person("alice"), s.person("carla")
	_, err := rmsv1.NewCustodyServiceClient(carla.conn).SuspendKey(carla.ctx(), &rmsv1.SuspendKeyRequest{Name: carla.parent() + "/" + second})
	must(t, err)
	alice.group("payroll@contoso.test", "user:erin@contoso.test")
	_, err = alice.people().DisablePrincipal(alice.ctx(), &rmsv1.DisablePrincipalRequest{Name: alice.parent() + "/" + dan})
	must(t, err)
	if found := s.findings(t); found != "" {
		t.Fatalf("an untouched store has findings:\n%s", found)
	}
	s.stop()
	newest := s.snapshot(t)

	for name, attack := range map[string]struct {
		edit func(t *testing.T, tx *bbolt.Tx)
		says string // part of what the check of the store says
	}{
		"a group with other members": {func(t *testing.T, tx *bbolt.Tx) {
			from := header{}
			editRow(t, tx, tableResources, contosos(canteen), func(h header) { from = h })
			editRow(t, tx, tableResources, contosos(payroll), func(h header) { h[resourceBody] = from[resourceBody] })
		}, payroll + " is not what the log says was written"},
		"a group as it was before": {func(t *testing.T, tx *bbolt.Tx) {
			put(t, tx, tableResources, contosos(payroll), older)
		}, payroll + ", which is an older one,"},
		"a group in another's place": {func(t *testing.T, tx *bbolt.Tx) {
			put(t, tx, tableResources, contosos(payroll), row(t, tx, tableResources, contosos(canteen)))
		}, payroll},
		"a group nobody made": {func(t *testing.T, tx *bbolt.Tx) {
			put(t, tx, tableResources, contosos("groups/board@contoso.test"), row(t, tx, tableResources, contosos(canteen)))
			editRow(t, tx, tableResources, contosos("groups/board@contoso.test"), func(h header) { h.Set(t, resourceName, "groups/board@contoso.test") })
		}, "groups/board@contoso.test"},
		"a disabled principal taken out": {func(t *testing.T, tx *bbolt.Tx) {
			remove(t, tx, tableResources, contosos(dan))
		}, dan + ", which is missing,"},
		"a disabled principal enabled": {func(t *testing.T, tx *bbolt.Tx) {
			editRow(t, tx, tableResources, contosos(dan), func(h header) {
				delete(h, resourceBody)
				h.Set(t, resourceGone, 1)
			})
		}, dan + " is not what the log says was written"},
		"a suspension lifted": {func(t *testing.T, tx *bbolt.Tx) {
			storeedit.EditBody(t, tx, s.trust[contoso].TenantID, second, func(h header) { h.Set(t, storeedit.GenerationState, 3) })
		}, second + " is not what the log says was written"},
		"a generation as it was before its suspension": {func(t *testing.T, tx *bbolt.Tx) {
			put(t, tx, tableResources, contosos(second), usable)
		}, second + ", which is an older one,"},
		"a key taken out": {func(t *testing.T, tx *bbolt.Tx) {
			remove(t, tx, tableResources, contosos(key))
		}, key + ", which is missing,"},
		"a role as another tenant has it": {func(t *testing.T, tx *bbolt.Tx) {
			put(t, tx, tableResources, contosos(policyAdmins), row(t, tx, tableResources, fabrikams(policyAdmins)))
		}, policyAdmins},
		"a role's holders for another role": {func(t *testing.T, tx *bbolt.Tx) {
			put(t, tx, tableResources, contosos("roles/auditor"), row(t, tx, tableResources, contosos(policyAdmins)))
			editRow(t, tx, tableResources, contosos("roles/auditor"), func(h header) { h.Set(t, resourceName, "roles/auditor") })
		}, "roles/auditor"},
		"a role taken out, which brings the file's holders back": {func(t *testing.T, tx *bbolt.Tx) {
			remove(t, tx, tableResources, contosos(policyAdmins))
		}, policyAdmins + ", which is missing,"},
	} {
		t.Run(name, func(t *testing.T) {
			s.tb = t
			newest()
			s.editStore(t, func(tx *bbolt.Tx) { attack.edit(t, tx) })
			s.bootBroken(t, vocab.ReasonStoreDamaged)
			got, err := s.person("erin").acquire(secret.pl)
			wantRefused(t, got, err, vocab.ReasonStoreDamaged)
			s.stop()
			said, err := s.fsck(t)
			if vocab.ReasonOf(err) != vocab.ReasonStoreDamaged || !strings.Contains(said, attack.says) {
				t.Errorf("the check of the store says nothing of %q (%v):\n%s", attack.says, err, said)
			}
		})
	}

	// Whoever takes the log's own index along is found by the check of the whole
	// log, and not at the start; SECURITY.md says so.
	t.Run("a disabled principal taken out of store and index", func(t *testing.T) {
		s.tb = t
		newest()
		s.editStore(t, func(tx *bbolt.Tx) {
			remove(t, tx, tableResources, contosos(dan))
			target := canon.Hash([]byte(dan))
			c := tx.Bucket([]byte(tableTargets)).Cursor()
			for k, _ := c.Seek(s.of(target[:16])); bytes.HasPrefix(k, s.of(target[:16])); k, _ = c.Next() {
				must(t, c.Delete())
			}
		})
		if said, err := s.fsck(t); vocab.ReasonOf(err) != vocab.ReasonStoreDamaged || !strings.Contains(said, "is not found by what it wrote") {
			t.Errorf("the check of the store says %q (%v)", said, err)
		}
	})

	t.Run("what nobody touched decides", func(t *testing.T) {
		s.tb = t
		newest()
		s.start()
		defer s.stop()
		s.person("erin").wantOpens(t, secret)
		got, err := s.person("mallory").acquire(secret.pl)
		wantRefused(t, got, err, vocab.ReasonNoRights)
		got, err = s.person("dan").acquire(secret.pl)
		wantRefused(t, got, err, vocab.ReasonPrincipalDisabled)
		got, err = s.person("erin").acquire(stopped.pl)
		wantRefused(t, got, err, vocab.ReasonKeySuspended)
		if said := s.findings(t); said != "" {
			t.Errorf("the check of the store says %q", said)
		}
	})
}
