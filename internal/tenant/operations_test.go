package tenant_test

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// inOffice runs a test in an office of its own, in a bubble where time costs
// nothing.
func inOffice(t *testing.T, fn func(t *testing.T, o *house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newHouse(t)) })
}

// selfTransfer has alice ask for everything of bob's for herself.
func (o *house) selfTransfer() *tenant.OperationView {
	o.t.Helper()
	v, _, err := o.TransferLicenses(o.t.Context(), person("alice"), user("bob"), user("alice"), "bob leaves")
	o.check(err)
	if v.State != operation.AwaitingApproval {
		o.t.Fatalf("what alice gains is %s", v.State)
	}
	return v
}

// The ways to approve without a second person who may, and what each is told.
func TestApprovalCheats(t *testing.T) {
	alias := person("alice.adams")
	alias.Caller.Addresses = append(alias.Caller.Addresses, "alice@contoso.test")
	asService := person("grace")
	asService.Caller.Actor = &vocab.Identity{Service: "robot"}
	robot := tenant.Call{Method: "test", Caller: &vocab.Identity{Issuer: "x509", Subject: "spiffe://contoso.test/robot", Service: "robot", Certificate: true}}
	guest := person("grace")
	guest.Caller.Member = ""
	for _, c := range []struct {
		name    string
		prepare func(o *house, v *tenant.OperationView)
		by      tenant.Call
		params  func(v *tenant.OperationView) [32]byte
		want    vocab.Reason
		state   operation.State
		why     vocab.Reason
	}{
		{"another policy-admin", nil, person("grace"), nil, "", operation.Succeeded, ""},
		{"the requester", nil, person("alice"), nil, vocab.ReasonSamePerson, operation.AwaitingApproval, ""},
		{"the requester's other account, which holds the role", func(o *house, _ *tenant.OperationView) {
			o.policyAdmins("alice", "grace", "alice.adams")
		}, alias, nil, vocab.ReasonSamePerson, operation.AwaitingApproval, ""},
		{"a service that acts for one who may", nil, asService, nil, vocab.ReasonRoleRequired, operation.AwaitingApproval, ""},
		{"a service that holds the role", nil, robot, nil, vocab.ReasonRoleRequired, operation.AwaitingApproval, ""},
		{"one who may, as a guest", nil, guest, nil, vocab.ReasonRoleRequired, operation.AwaitingApproval, ""},
		{"the auditor", nil, person("erin"), nil, vocab.ReasonRoleRequired, operation.AwaitingApproval, ""},
		{"nobody", nil, person("mallory"), nil, vocab.ReasonRoleRequired, operation.AwaitingApproval, ""},
		{"an approver who lost the role", func(o *house, _ *tenant.OperationView) { o.policyAdmins("alice") }, person("grace"), nil, vocab.ReasonRoleRequired, operation.AwaitingApproval, ""},
		{"for a requester who lost the role", func(o *house, _ *tenant.OperationView) { o.policyAdmins("grace") }, person("grace"), nil, "", operation.Failed, vocab.ReasonRoleRequired},
		{"what somebody was shown of another operation", nil, person("grace"), func(v *tenant.OperationView) [32]byte { return [32]byte{1} }, vocab.ReasonEtagMismatch, operation.AwaitingApproval, ""},
		{"after its time", func(*house, *tenant.OperationView) { time.Sleep(24 * time.Hour) }, person("grace"), nil, vocab.ReasonOperationState, operation.Expired, ""},
		{"just in time", func(*house, *tenant.OperationView) { time.Sleep(24*time.Hour - time.Second) }, person("grace"), nil, "", operation.Succeeded, ""},
		{"after a rejection", func(o *house, v *tenant.OperationView) {
			_, _, err := o.RejectOperation(o.t.Context(), person("grace"), v.ID, "no")
			o.check(err)
		}, person("grace"), nil, vocab.ReasonOperationState, operation.Rejected, ""},
		{"after it was taken back", func(o *house, v *tenant.OperationView) {
			_, _, err := o.CancelOperation(o.t.Context(), person("alice"), v.ID, "")
			o.check(err)
		}, person("grace"), nil, vocab.ReasonOperationState, operation.Cancelled, ""},
		{"once more", func(o *house, v *tenant.OperationView) {
			o.mustApprove(person("grace"), v)
		}, person("grace"), nil, vocab.ReasonSamePerson, operation.Succeeded, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				p := o.publish("bob", "")
				v := o.selfTransfer()
				if c.prepare != nil {
					c.prepare(o, v)
				}
				hash := v.ParamsHash()
				if c.params != nil {
					hash = c.params(v)
				}
				_, _, err := o.ApproveOperation(t.Context(), c.by, v.ID, hash)
				if got := vocab.ReasonOf(err); got != c.want {
					t.Fatalf("%v, want %q", err, c.want)
				}
				if e, ok := errors.AsType[*vocab.Error](err); ok && tenant.Recordable(e.Reason) && e.Event.IsZero() {
					t.Error("a refusal without an event")
				}
				now := o.settled(v.ID)
				if now.State != c.state || now.Why != c.why {
					t.Errorf("it is %s (%s %s), want %s (%s)", now.State, now.Why, now.Message, c.state, c.why)
				}
				l, err := o.GetLicense(t.Context(), p.License.Record.Content, func(vocab.Principal) error { return nil })
				o.check(err)
				if got, want := l.Policy.Owner, map[bool]vocab.Principal{true: user("alice"), false: user("bob")}[c.state == operation.Succeeded]; got != want {
					t.Errorf("the document is %s's, want %s", got, want)
				}
				o.checkStore()
			})
		})
	}
}

// policyAdmins makes these the only ones.
func (o *house) policyAdmins(names ...string) {
	var list []vocab.Principal
	for _, n := range names {
		list = append(list, user(n))
	}
	o.holders(vocab.RolePolicyAdmin, list...)
}

// holders has the operator's file name these holders of a role.
func (o *house) holders(role vocab.Role, list ...vocab.Principal) {
	o.file.Roles = maps.Clone(o.file.Roles)
	o.file.Roles[role] = list
	o.Reconfigure(o.file)
}

// An approval counts for the one operation it was given to, whatever its
// parameters look like.
func TestAnApprovalIsOfOneOperation(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		first := o.selfTransfer()
		other, _, err := o.TransferLicenses(t.Context(), person("alice"), user("carla"), user("alice"), "")
		o.check(err)
		if _, _, err := o.ApproveOperation(t.Context(), person("grace"), other.ID, first.ParamsHash()); !errors.Is(err, vocab.ReasonEtagMismatch) {
			t.Errorf("the approval of one was taken for another: %v", err)
		}
		// The very same once more is the same operation: an answer that was lost
		// makes no second one.
		again := o.selfTransfer()
		if again.ID != first.ID {
			t.Errorf("asked twice there are two operations: %s and %s", first.ID, again.ID)
		}
		// From somebody else it is another.
		theirs, _, err := o.TransferLicenses(t.Context(), person("grace"), user("bob"), user("alice"), "")
		o.check(err)
		if theirs.ID == first.ID {
			t.Error("grace got alice's operation")
		}
		o.mustApprove(person("grace"), first)
		o.eventually(first.ID, operation.Succeeded)
		if v := o.look(other.ID); v.State != operation.AwaitingApproval {
			t.Errorf("the other one is %s", v.State)
		}
		// What has ended is asked for anew.
		if anew := o.selfTransfer(); anew.ID == first.ID {
			t.Error("what has ended was given again")
		}
	})
}

// Who sees which operations, and may end and hold up what.
func TestWhoMaySeeAndManage(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		v := o.selfTransfer()
		rec, _, err := o.RequestRecovery(t.Context(), person("rita"), tenant.RecoveryScope{Owner: user("bob")}, time.Now().Add(time.Hour), "lost", "C-1", false)
		o.check(err)
		for name, sees := range map[string][2]bool{
			"alice": {true, true}, // tenant-admin, too
			"erin":  {true, true}, "rita": {false, true}, "ron": {false, true}, "carla": {false, false}, "mallory": {false, false},
		} {
			for i, id := range []vocab.OperationID{v.ID, rec.ID} {
				_, err := o.GetOperation(t.Context(), person(name).Caller, id)
				if want := map[bool]vocab.Reason{true: "", false: vocab.ReasonRoleRequired}[sees[i]]; vocab.ReasonOf(err) != want {
					t.Errorf("%s sees operation %d: %v, want %q", name, i, err, want)
				}
			}
			list, next, err := o.ListOperations(t.Context(), person(name).Caller, tenant.OperationFilter{}, vocab.OperationID{}, 10)
			o.check(err)
			want := 0
			for _, s := range sees {
				if s {
					want++
				}
			}
			if len(list) != want || !next.IsZero() {
				t.Errorf("%s is shown %d operations, want %d", name, len(list), want)
			}
		}
		if _, err := o.GetOperation(t.Context(), person("erin").Caller, vocab.NewOperationID()); !errors.Is(err, vocab.ReasonResourceNotFound) {
			t.Errorf("one that is not there: %v", err)
		}
		if _, _, err := o.CancelOperation(t.Context(), person("erin"), v.ID, ""); !errors.Is(err, vocab.ReasonRoleRequired) {
			t.Errorf("an auditor ends it: %v", err)
		}
		if _, _, err := o.RejectOperation(t.Context(), person("alice"), v.ID, ""); !errors.Is(err, vocab.ReasonSamePerson) {
			t.Errorf("the requester rejects it: %v", err)
		}
		if _, _, err := o.PauseOperation(t.Context(), person("alice"), v.ID); !errors.Is(err, vocab.ReasonOperationState) {
			t.Errorf("what waits is paused: %v", err)
		}
		// The requester ends hers although the role is gone.
		o.policyAdmins("grace")
		if _, _, err := o.CancelOperation(t.Context(), person("alice"), v.ID, "never mind"); err != nil {
			t.Errorf("the requester cannot take it back: %v", err)
		}
		filtered, _, err := o.ListOperations(t.Context(), person("erin").Caller, tenant.OperationFilter{State: operation.Cancelled, Kind: operation.Transfer}, vocab.OperationID{}, 10)
		o.check(err)
		if len(filtered) != 1 || filtered[0].ID != v.ID || filtered[0].Message != "never mind" {
			t.Errorf("the filter finds %d operations", len(filtered))
		}
		none, _, err := o.ListOperations(t.Context(), person("erin").Caller, tenant.OperationFilter{State: operation.Running}, vocab.OperationID{}, 10)
		o.check(err)
		if len(none) != 0 {
			t.Errorf("%d operations run", len(none))
		}
	})
}

// Pages show every operation once, newest first.
func TestOperationsInPages(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		var want []vocab.OperationID
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			v, _, err := o.TransferLicenses(t.Context(), person("alice"), user(name), user("alice"), "")
			o.check(err)
			want = append(want, v.ID)
		}
		slices.Reverse(want)
		var got []vocab.OperationID
		before := vocab.OperationID{}
		for {
			page, next, err := o.ListOperations(t.Context(), person("erin").Caller, tenant.OperationFilter{}, before, 2)
			o.check(err)
			for _, v := range page {
				got = append(got, v.ID)
			}
			if next.IsZero() {
				break
			}
			before = next
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

// A watcher sees every change until the end, and nothing more once it may not.
func TestWatching(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		for range 3 {
			o.publish("bob", "")
		}
		v := o.selfTransfer()
		var states []operation.State
		done := make(chan error, 1)
		go func() {
			done <- o.WatchOperation(t.Context(), person("erin").Caller, v.ID, func(v *tenant.OperationView) error {
				states = append(states, v.State)
				return nil
			})
		}()
		synctest.Wait()
		o.mustApprove(person("grace"), v)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if states[0] != operation.AwaitingApproval || states[len(states)-1] != operation.Succeeded {
			t.Errorf("the watcher saw %v", states)
		}

		v = o.selfTransfer()
		go func() {
			done <- o.WatchOperation(t.Context(), person("grace").Caller, v.ID, func(*tenant.OperationView) error { return nil })
		}()
		synctest.Wait()
		o.policyAdmins("alice")
		_, _, err := o.CancelOperation(t.Context(), person("alice"), v.ID, "")
		o.check(err)
		if err := <-done; !errors.Is(err, vocab.ReasonRoleRequired) {
			t.Errorf("who lost the role goes on watching: %v", err)
		}
	})
}

// What nobody approves ends by itself, durably, also while the daemon is down.
func TestRequestsExpire(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		first := o.selfTransfer()
		time.Sleep(23 * time.Hour)
		second, _, err := o.TransferLicenses(t.Context(), person("alice"), user("carla"), user("alice"), "")
		o.check(err)
		time.Sleep(time.Hour)
		if v := o.settled(first.ID); v.Operation.State != operation.Expired {
			t.Errorf("it is %s in the store", v.Operation.State)
		}
		o.shut()
		time.Sleep(48 * time.Hour)
		o.open()
		v := o.settled(second.ID)
		if v.Operation.State != operation.Expired || !operation.Time(v.Ended).Equal(operation.Time(v.Expires)) {
			t.Errorf("after the restart it is %s, ended %d, was to expire at %d", v.Operation.State, v.Ended, v.Expires)
		}
		kinds, _ := o.events(second.ID)
		if diff := cmp.Diff([]string{"operation-requested", "operation-expired"}, kinds); diff != "" {
			t.Error(diff)
		}
		o.checkStore()
	})
}

// Whoever can write the store cannot make an operation what it is not: its
// state, its parameters and its approvals are bound to the log.
func TestOperationsAreBoundToTheLog(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		v := o.selfTransfer()
		o.tamper(v.ID, func(op *operation.Operation) { op.State = operation.Running })
		defer func() { o.Tenant = nil }()
		if err := o.reopen(); !errors.Is(err, vocab.ReasonStoreDamaged) {
			t.Errorf("the tenant serves an operation that somebody set running: %v", err)
		}
	})
}

// The requester of a template edit is its author, the approver is in the log,
// and all of it is found by the operation.
func TestEventsOfAnOperation(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("alice"), "finance", o.template("finance", 0, user("bob")))
		o.publish("bob", "finance")
		_, _, err := o.WriteTemplate(t.Context(), person("alice"), "finance", o.template("finance", 0, user("bob"), user("alice")), 1, false, false)
		v := o.waits(err)
		o.mustApprove(person("grace"), v)
		kinds, events := o.events(v.ID)
		if diff := cmp.Diff([]string{"operation-requested", "operation-approved", "template-updated", "operation-succeeded"}, kinds); diff != "" {
			t.Fatal(diff)
		}
		for i, want := range []string{"alice@contoso.test", "grace@contoso.test", "alice@contoso.test", ""} {
			if got := events[i].Principal.Name; got != want {
				t.Errorf("%s is %q's, want %q", kinds[i], got, want)
			}
		}
		if e := events[2]; e.TemplateRevision != 2 || e.Target != "template finance" {
			t.Errorf("the edit is %+v", e)
		}
		if events[1].State == [32]byte{} || events[1].State == events[0].State {
			t.Error("the approval is not bound to what it made of the operation")
		}
		if a := v.Approvals; len(a) != 0 {
			t.Error("approvals before any was given")
		}
		if a := o.look(v.ID).Approvals; len(a) != 1 || a[0].Event != events[1].ID || a[0].Name != "grace@contoso.test" {
			t.Errorf("approvals %+v", a)
		}
		tmpl, err := o.GetTemplate(t.Context(), "finance", 0)
		o.check(err)
		if tmpl.Author != "alice@contoso.test" || tmpl.Revision != 2 {
			t.Errorf("revision %d by %s", tmpl.Revision, tmpl.Author)
		}
	})
}
