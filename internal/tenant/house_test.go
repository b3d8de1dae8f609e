package tenant_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/tenant/tenanttest"
	"github.com/openrms/rms/internal/vocab"
)

// house is a tenant with people in every role, on a store that can be opened
// again as after a crash. It lives in a bubble of [synctest].
type house struct {
	*tenant.Tenant
	t         *testing.T
	dir       string
	store     *cutStore
	log       *audit.Log
	custodian *moody
	// custodians are those of the tenant's file; the first is a keyring.
	custodians *tenanttest.Custodians
	file       config.Tenant
	to         tenant.Recipient
	// backups are what copies of the records need; nil: there are none.
	backups func(store.Reader, vocab.TenantID) ([]tenant.BackupNeeds, error)
	// ahead is by how much the tenant's clock is ahead of its timers.
	ahead atomic.Int64
	// cancelled is an operation of the test's own.
	cancelled vocab.OperationID
}

// cutStore is a store whose process is killed after some more transactions:
// those that were committed are there, and no other ever is.
type cutStore struct {
	store.Store
	armed atomic.Bool
	left  atomic.Int64
	cut   chan struct{} // closed when it happens
	// full has every transaction fail for want of room.
	full atomic.Bool
	// before, if set, is called once, before the next transaction.
	before atomic.Pointer[func()]
}

var errKilled = vocab.Errorf(vocab.ReasonStoreDamaged, "killed by the test")

func (s *cutStore) Commit(ctx context.Context, fn func(store.Tx) error) error {
	if f := s.before.Swap(nil); f != nil {
		(*f)()
	}
	if s.full.Load() {
		return vocab.Errorf(vocab.ReasonStoreFull, "full by the test")
	}
	if s.armed.Load() && s.left.Add(-1) < 0 {
		if s.left.Load() == -1 {
			close(s.cut)
		}
		return errKilled
	}
	return s.Store.Commit(ctx, fn)
}

// kill has the store die after n more transactions.
func (s *cutStore) kill(n int64) {
	s.left.Store(n)
	s.armed.Store(true)
}

const contosoIDP = "https://idp.contoso.test"

// person is a call of somebody of the tenant.
func person(name string, groups ...string) tenant.Call {
	return tenant.Call{Method: "test", Caller: &vocab.Identity{
		Issuer: contosoIDP, Subject: name, Provider: "contoso", Addresses: []string{name + "@contoso.test"}, Member: "contoso", Groups: groups,
	}}
}

// newHouse opens a tenant of its own: alice and grace administer people and
// policy, rita and ron are recovery-officers, erin audits, carla keeps keys.
func newHouse(t *testing.T) *house {
	t.Helper()
	o := &house{t: t, dir: t.TempDir(), custodian: new(moody), file: config.Tenant{
		ID: "contoso", Domains: []string{"contoso.test"}, Admins: []vocab.Principal{user("alice"), user("grace")},
		Roles: map[vocab.Role][]vocab.Principal{
			vocab.RolePolicyAdmin:     {user("alice"), user("grace"), {Kind: vocab.KindService, Value: "robot"}},
			vocab.RoleRecoveryOfficer: {user("rita"), user("ron"), {Kind: vocab.KindGroup, Value: "rescue@contoso.test"}},
			vocab.RoleAuditor:         {user("erin")},
			vocab.RoleKeyCustodian:    {user("carla")},
		},
		Services: map[string]identity.ServiceMatch{"robot": {URI: "spiffe://contoso.test/robot"}},
	}}
	o.open()
	t.Cleanup(o.shut)
	key, err := license.NewRecipientKey(license.XWing)
	o.check(err)
	recipient, err := license.ParseRecipient(license.XWing, key.Public(), o.AllowedKEMs())
	o.check(err)
	o.to = tenant.Recipient{Sealed: recipient}
	return o
}

func (o *house) check(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// open serves what is in the directory.
func (o *house) open() {
	o.t.Helper()
	o.reopened()
	o.check(o.Ready(o.t.Context()))
}

// reopened is open where the tenant may have nothing to seal under.
func (o *house) reopened() {
	o.t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(o.dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	o.check(err)
	o.store = &cutStore{Store: s, cut: make(chan struct{})}
	o.log = audit.New(o.store)
	if o.custodians == nil {
		o.custodians = tenanttest.Embedded(func(id vocab.CustodianID) (keys.Custodian, error) {
			ring, err := o.keyring(id, "keyring")
			o.custodian.Custodian = ring
			return o.custodian, err
		})
	}
	o.Tenant, err = tenant.Open(o.t.Context(), tenant.Deps{
		File: o.file, Store: o.store, Log: o.log,
		Custodians: o.custodians, Logger: slog.New(slog.DiscardHandler),
		Now:     func() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) },
		Backups: o.backups,
	})
	o.check(err)
	_ = o.Ready(o.t.Context())
}

// keyring opens a keyring in the directory, or makes it.
func (o *house) keyring(id vocab.CustodianID, name string) (*embedded.Keyring, error) {
	c := embedded.Config{ID: id, Path: filepath.Join(o.dir, name), KeyFile: filepath.Join(o.dir, name+".key")}
	ring, err := embedded.Open(c)
	if _, missing := os.Stat(c.Path); missing != nil {
		ring, err = embedded.Create(c)
	}
	return ring, err
}

func (o *house) shut() {
	o.t.Helper()
	if o.Tenant != nil {
		o.check(errors.Join(o.Close(), o.store.Close()))
		o.Tenant = nil
	}
}

// restart opens the tenant again from what is durable.
func (o *house) restart() {
	o.t.Helper()
	o.shut()
	o.open()
}

// publish protects something of the owner's, by a template or for people.
func (o *house) publish(owner, template string, readers ...string) *tenant.Published {
	o.t.Helper()
	req := tenant.PublishRequest{Template: template, To: o.to}
	if template == "" {
		req.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax}
		for _, r := range append(readers, "nobody") {
			req.AdHoc.Grants = append(req.AdHoc.Grants, policy.Grant{To: user(r), Rights: vocab.RightsOf(vocab.RightView)})
		}
	}
	p, err := o.Publish(o.t.Context(), person(owner), req)
	o.check(err)
	return p
}

// item asks to see a document.
func item(p *tenant.Published) tenant.AcquireItem {
	return tenant.AcquireItem{PublishingLicense: p.PublishingLicense, Right: vocab.RightView}
}

// acquire opens a document and returns the reason if that is refused.
func (o *house) acquire(c tenant.Call, i tenant.AcquireItem) (*tenant.Acquired, vocab.Reason) {
	o.t.Helper()
	out, err := o.Acquire(o.t.Context(), c, o.to, []tenant.AcquireItem{i})
	o.check(err)
	return out.Results[0].Acquired, vocab.ReasonOf(out.Results[0].Err)
}

// opens fails the test unless opening ends as wanted; "" is that it opens.
func (o *house) opens(c tenant.Call, i tenant.AcquireItem, want vocab.Reason) *tenant.Acquired {
	o.t.Helper()
	got, reason := o.acquire(c, i)
	if reason != want {
		o.t.Errorf("%s opening: %q, want %q", c.Caller.Name(), reason, want)
	}
	return got
}

// template writes a template of alice's.
func (o *house) template(slug string, custody vocab.CustodyMode, readers ...vocab.Principal) *policy.Template {
	o.t.Helper()
	next := &policy.Template{
		Names: map[string]string{"en": slug}, State: policy.StatePublished, Offline: policy.OfflineMax, Custody: custody,
	}
	for _, r := range readers {
		next.Grants = append(next.Grants, policy.Grant{To: r, Rights: vocab.RightsOf(vocab.RightView)})
	}
	return next
}

func (o *house) mustWrite(c tenant.Call, slug string, next *policy.Template) *policy.Template {
	o.t.Helper()
	current, err := o.GetTemplate(o.t.Context(), slug, 0)
	var base uint32
	if err == nil {
		base = current.Revision
	}
	out, _, err := o.WriteTemplate(o.t.Context(), c, slug, next, base, false, false)
	o.check(err)
	return out
}

// waits fails the test unless an error says that an operation waits, and
// returns the operation.
func (o *house) waits(err error) *tenant.OperationView {
	o.t.Helper()
	e, ok := errors.AsType[*vocab.Error](err)
	if !ok || e.Reason != vocab.ReasonApprovalRequired || e.Operation.IsZero() || e.Event.IsZero() {
		o.t.Fatalf("%v, want APPROVAL_REQUIRED with an operation and an event", err)
	}
	v := o.look(e.Operation)
	if v.State != operation.AwaitingApproval {
		o.t.Fatalf("the operation is %s", v.State)
	}
	return v
}

// look reads an operation as erin, the auditor.
func (o *house) look(id vocab.OperationID) *tenant.OperationView {
	o.t.Helper()
	v, err := o.GetOperation(o.t.Context(), person("erin").Caller, id)
	o.check(err)
	return v
}

// approve approves what can be seen.
func (o *house) approve(c tenant.Call, v *tenant.OperationView) (*tenant.OperationView, error) {
	o.t.Helper()
	out, event, err := o.ApproveOperation(o.t.Context(), c, v.ID, v.ParamsHash())
	if err == nil && event.IsZero() {
		o.t.Error("an approval without an event")
	}
	return out, err
}

func (o *house) mustApprove(c tenant.Call, v *tenant.OperationView) *tenant.OperationView {
	o.t.Helper()
	out, err := o.approve(c, v)
	o.check(err)
	return out
}

// settled waits until nothing moves by itself and reads an operation.
func (o *house) settled(id vocab.OperationID) *tenant.OperationView {
	o.t.Helper()
	synctest.Wait()
	return o.look(id)
}

// eventually waits until an operation is in a state, at most a day.
func (o *house) eventually(id vocab.OperationID, want operation.State) *tenant.OperationView {
	o.t.Helper()
	for range 24 * 60 * 60 {
		if v := o.settled(id); v.State == want || v.Operation.State.Ended() {
			if v.State != want {
				o.t.Fatalf("it is %s (%s %s), want %s", v.State, v.Why, v.Message, want)
			}
			return v
		}
		time.Sleep(time.Second)
	}
	o.t.Fatalf("after a day it is %s", o.look(id).State)
	return nil
}

// events returns the kinds of the events of an operation, in order.
func (o *house) events(id vocab.OperationID) (kinds []string, all []*audit.Event) {
	o.t.Helper()
	entries, _, err := o.log.List(o.t.Context(), o.ID(), audit.Filter{Operation: id}, audit.Cursor{}, 1000)
	o.check(err)
	slices.Reverse(entries)
	for _, e := range entries {
		kinds, all = append(kinds, e.Event.Kind.String()), append(all, e.Event)
	}
	return kinds, all
}

// checkStore compares everything with its indexes and with the log.
func (o *house) checkStore() {
	o.t.Helper()
	o.check(o.store.View(o.t.Context(), func(r store.Reader) error {
		_, err := record.Check(r, o.ID(), func(err error) { o.t.Error(err) })
		return err
	}))
	o.check(tenant.CheckBinding(o.t.Context(), o.store, o.log, o.ID(), func(err error) { o.t.Error(err) }))
}

// tamper changes an operation in the store behind the service's back, after
// the tenant was closed.
func (o *house) tamper(id vocab.OperationID, change func(*operation.Operation)) {
	o.t.Helper()
	tenantID := o.ID()
	o.check(o.Close())
	o.check(o.store.Commit(o.t.Context(), func(tx store.Tx) error {
		s, err := record.GetResource(tx, tenantID, record.OperationName(id))
		if err != nil {
			return err
		}
		op, err := operation.Decode(s.Body)
		if err != nil {
			return err
		}
		change(op)
		if s.Body, err = op.Encode(); err != nil {
			return err
		}
		_, err = record.PutResource(tx, tenantID, s)
		return err
	}))
	o.check(o.store.Close())
}

// reopen opens the tenant's store and returns how serving it fails.
func (o *house) reopen() error {
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(o.dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	o.check(err)
	defer s.Close()
	served, err := tenant.Open(o.t.Context(), tenant.Deps{
		File: o.file, Store: s, Log: audit.New(s),
		Custodians: tenanttest.Embedded(func(vocab.CustodianID) (keys.Custodian, error) { return o.custodian, nil }),
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err == nil {
		o.check(served.Close())
	}
	return err
}

// grant grants a role, or asks for it.
func (o *house) grant(c tenant.Call, role vocab.Role, to vocab.Principal) error {
	_, _, err := o.GrantRole(o.t.Context(), c, role, to)
	return err
}
