package tenant_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// Who may have a tenant frozen, and what is approved is what was asked for.
func TestWhoLetsATenantLeave(t *testing.T) {
	key := newMoveKey(t)
	other := newMoveKey(t)
	for name, c := range map[string]struct {
		by        tenant.Call
		meanwhile func(o *house)
		params    func(v *tenant.OperationView) [32]byte
		want, why vocab.Reason
	}{
		"a tenant-admin":           {by: person("alice")},
		"the requester":            {by: person("carla"), want: vocab.ReasonSamePerson},
		"another key-custodian":    {by: person("dan")},
		"the auditor":              {by: person("erin"), want: vocab.ReasonRoleRequired},
		"nobody":                   {by: person("mallory"), want: vocab.ReasonRoleRequired},
		"of other params":          {by: person("alice"), params: func(*tenant.OperationView) [32]byte { return [32]byte{1} }, want: vocab.ReasonEtagMismatch},
		"a generation more":        {by: person("alice"), meanwhile: func(o *house) { o.rotate("root") }, why: vocab.ReasonInventoryChanged},
		"a generation suspended":   {by: person("alice"), meanwhile: func(o *house) { o.move(tenant.KeyTarget{Generation: 1}, tenant.Suspend) }, why: vocab.ReasonInventoryChanged},
		"frozen for another":       {by: person("alice"), meanwhile: func(o *house) { o.freeze(other) }, why: vocab.ReasonInventoryChanged},
		"a document more":          {by: person("alice"), meanwhile: func(o *house) { o.publish("alice", "", "bob") }},
		"the requester's role":     {by: person("alice"), meanwhile: func(o *house) { o.keepers("dan") }, why: vocab.ReasonRoleRequired},
		"the requester, as admin":  {by: person("carla"), meanwhile: func(o *house) { o.admins("alice", "carla") }, want: vocab.ReasonSamePerson},
		"an admin, role withdrawn": {by: person("alice"), meanwhile: func(o *house) { o.admins("grace") }, want: vocab.ReasonRoleRequired},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				if name == "the requester, as admin" || name == "another key-custodian" {
					o.keepers("carla", "dan")
				}
				v, _, err := o.RequestExport(t.Context(), person("carla"), tenant.ExportRequest{KEM: license.XWing, Recipient: key.Public(), Reason: "we leave"})
				o.check(err)
				if c.meanwhile != nil {
					c.meanwhile(o)
				}
				hash := v.ParamsHash()
				if c.params != nil {
					hash = c.params(v)
				}
				done, _, err := o.ApproveOperation(t.Context(), c.by, v.ID, hash)
				if vocab.ReasonOf(err) != c.want {
					t.Fatalf("approved: %v, want %q", err, c.want)
				}
				frozen := o.Residence().Operation == v.ID
				if frozen != (c.want == "" && c.why == "") || err == nil && done.Why != c.why {
					t.Errorf("frozen %v, failed for %q, want %q", frozen, done.Why, c.why)
				}
				var file bytes.Buffer
				_, err = o.Export(t.Context(), person("carla"), v.ID, "test", &file, func(tenant.Takeout) {})
				if frozen != (err == nil) || err != nil && (!errors.Is(err, vocab.ReasonOperationState) || file.Len() > 0) {
					t.Errorf("an archive of %d bytes: %v", file.Len(), err)
				}
			})
		})
	}
}

// move moves a key or generation.
func (o *house) move(target tenant.KeyTarget, m tenant.Move) {
	o.t.Helper()
	_, err := o.SetKeyState(o.t.Context(), person("carla"), target, m, "a test")
	o.check(err)
}

// keepers and admins make people the only holders of a role.
func (o *house) keepers(names ...string) { o.onlyHolders(vocab.RoleKeyCustodian, names) }
func (o *house) admins(names ...string)  { o.onlyHolders(vocab.RoleTenantAdmin, names) }

func (o *house) onlyHolders(role vocab.Role, names []string) {
	o.t.Helper()
	h := &record.Holders{}
	for _, n := range names {
		h.Principals = append(h.Principals, user(n))
	}
	body, err := h.Encode()
	o.check(err)
	o.check(o.PutResource(o.t.Context(), person("alice"), record.PrefixRoles+string(role), body))
}

// Where a tenant has approvers, it leaves with the signatures of enough of them,
// each of the fingerprint that it goes to.
func TestATenantLeavesUnderDualControl(t *testing.T) {
	inDualControl(t, 2, three, func(t *testing.T, o *house) {
		doc := o.publish("alice", "", "bob")
		key := newMoveKey(t)
		ask := func() *tenant.OperationView {
			v, _, err := o.RequestExport(t.Context(), person("fred"), tenant.ExportRequest{KEM: license.XWing, Recipient: key.Public(), Reason: "we leave"})
			o.check(err)
			return v
		}
		v := ask()
		if _, err := o.approve(person("alice"), v); err == nil {
			t.Error("approved without a signature")
		}
		if first, err := o.signs("carla", v); err != nil || first.State != operation.AwaitingApproval {
			t.Fatalf("the first signature: %v", err)
		}
		o.opens(person("bob"), item(doc), "")
		if _, err := o.signs("carla", v); !errors.Is(err, vocab.ReasonSamePerson) {
			t.Errorf("one person twice: %v", err)
		}
		other := *v
		other.Operation = &operation.Operation{}
		*other.Operation = *v.Operation
		other.Quorum = &operation.Quorum{Signed: append(bytes.Clone(v.Quorum.Signed), 0)}
		if _, err := o.hands(person("dora"), v, sign(&other, "dora")); err == nil {
			t.Error("a signature of something else counts")
		}
		done, err := o.signs("dora", v)
		o.check(err)
		if done.State != operation.Succeeded || o.Residence().Operation != v.ID {
			t.Fatalf("it is %s: %s", done.State, done.Message)
		}
		file, out := o.takeOut(v.ID)
		o.shut()
		n, _ := o.moved(file, key, out.Signer)
		n.opens(person("bob"), item(doc), "")
		// The quorum goes along.
		next, _, err := n.RequestExport(t.Context(), person("fred"), tenant.ExportRequest{KEM: license.XWing, Recipient: key.Public(), Reason: "and on"})
		n.check(err)
		if next.Quorum == nil {
			t.Error("the tenant has no approvers where it went")
		}
	})
}

// What a frozen tenant does not do, and what it goes on doing.
func TestAFrozenTenant(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		ctx := t.Context()
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob")))
		doc := o.publish("alice", "", "bob")
		content := doc.License.Record.Content
		waiting, _, err := o.TransferLicenses(ctx, person("alice"), user("bob"), user("alice"), "bob leaves")
		o.check(err)
		o.freeze(newMoveKey(t))
		yes := func(vocab.Principal) error { return nil }
		for name, act := range map[string]func() error{
			"publish": func() error {
				_, err := o.Publish(ctx, person("alice"), tenant.PublishRequest{AdHoc: &policy.AdHoc{Kind: policy.AdHocDoNotForward}, To: o.to})
				return err
			},
			"acquire": func() error {
				out, err := o.Acquire(ctx, person("bob"), o.to, []tenant.AcquireItem{item(doc)})
				o.check(err)
				return out.Results[0].Err
			},
			"revoke": func() error {
				_, _, err := o.RevokeLicense(ctx, person("alice"), content, "", yes)
				return err
			},
			"a template": func() error {
				_, _, err := o.WriteTemplate(ctx, person("grace"), "finance", o.template("finance", 0, user("dan")), 1, false, false)
				return err
			},
			"settings": func() error {
				_, _, err := o.UpdateSettings(ctx, person("alice"), 0, true, func(r *record.Settings) error { r.AllowX25519 = true; return nil })
				return err
			},
			"a role": func() error {
				_, _, err := o.GrantRole(ctx, person("alice"), vocab.RolePolicyAdmin, user("dan"))
				return err
			},
			"another operation": func() error {
				_, _, err := o.TransferLicenses(ctx, person("alice"), user("dan"), user("erin"), "")
				return err
			},
			"an approval": func() error {
				_, err := o.approve(person("grace"), waiting)
				return err
			},
			"a second export": func() error {
				_, _, err := o.RequestExport(ctx, person("carla"), tenant.ExportRequest{KEM: license.XWing, Recipient: newMoveKey(t).Public(), Reason: "x"})
				return err
			},
		} {
			if err := act(); !errors.Is(err, vocab.ReasonTenantFrozen) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Taking away, reading and looking go on.
		o.move(tenant.KeyTarget{Generation: 1}, tenant.Suspend)
		o.move(tenant.KeyTarget{Generation: 1}, tenant.Resume)
		if _, err := o.Inventory(ctx); err != nil {
			t.Error(err)
		}
		o.checkStore()
		o.restart()
		o.opens(person("bob"), item(doc), vocab.ReasonTenantFrozen)
	})
}

// A thaw is quiet while nobody can have imported the tenant, and an alarm after.
func TestThaw(t *testing.T) {
	for name, c := range map[string]struct {
		archive func(o *house, id vocab.OperationID)
		alarm   bool
	}{
		"nothing was exported": {func(*house, vocab.OperationID) {}, false},
		"an archive was broken off": {func(o *house, id vocab.OperationID) {
			_, err := o.Export(o.t.Context(), person("carla"), id, "test", &cutWriter{left: 3000}, func(tenant.Takeout) {})
			if err == nil {
				o.t.Error("it went on without its reader")
			}
		}, false},
		"an archive is whole": {func(o *house, id vocab.OperationID) { o.takeOut(id) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				doc := o.publish("alice", "", "bob")
				if _, _, err := o.RequestThaw(t.Context(), person("carla"), "why not", ""); !errors.Is(err, vocab.ReasonOperationState) {
					t.Errorf("thawed before it was frozen: %v", err)
				}
				c.archive(o, o.freeze(newMoveKey(t)).ID)
				v, _, err := o.RequestThaw(t.Context(), person("carla"), "we stay", "")
				o.check(err)
				if _, err := o.approve(person("carla"), v); !errors.Is(err, vocab.ReasonSamePerson) {
					t.Errorf("alone: %v", err)
				}
				if done := o.mustApprove(person("grace"), v); done.State != operation.Succeeded {
					t.Fatalf("it is %s: %s", done.State, done.Message)
				}
				all := o.eventsOf(audit.KindTenantFrozen)
				last := all[len(all)-1]
				if last.Alarm != c.alarm || !strings.HasPrefix(last.Detail, "thawed") || last.Operation != v.ID || last.Principal.Name != "carla@contoso.test" {
					t.Errorf("the log says %+v", last)
				}
				o.opens(person("bob"), item(doc), "")
				o.publish("alice", "", "bob")
				o.checkStore()
			})
		})
	}
}

// cutWriter is a connection that breaks.
type cutWriter struct{ left int }

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errors.New("the connection is gone")
	}
	return len(p), nil
}

// A thaw that was asked for before another archive was made is not that thaw.
func TestAThawIsOfWhatWasSeen(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		id := o.freeze(newMoveKey(t)).ID
		v, _, err := o.RequestThaw(t.Context(), person("carla"), "we stay", "")
		o.check(err)
		o.takeOut(id)
		if done := o.mustApprove(person("alice"), v); done.Why != vocab.ReasonInventoryChanged || o.Residence().Frozen == 0 {
			t.Errorf("it is %s for %q", done.State, done.Why)
		}
	})
}

// What is written while an archive is being made breaks it off: what it holds
// would not be what the log says.
func TestAnArchiveOfWhatChanges(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.publish("alice", "", "bob")
		id := o.freeze(newMoveKey(t)).ID
		w := &callingWriter{call: func() { o.move(tenant.KeyTarget{Generation: 1}, tenant.Suspend) }}
		if _, err := o.Export(t.Context(), person("carla"), id, "test", w, func(tenant.Takeout) {}); !errors.Is(err, vocab.ReasonEtagMismatch) {
			t.Errorf("got %v", err)
		}
		o.takeOut(id)
		for _, call := range []tenant.Call{person("carla")} {
			ctx, cancel := context.WithCancel(t.Context())
			w := &callingWriter{call: cancel}
			if _, err := o.Export(ctx, call, id, "test", w, func(tenant.Takeout) {}); err == nil {
				t.Error("it went on after its caller had left")
			}
			cancel()
		}
	})
}

// callingWriter calls something once, in the middle.
type callingWriter struct {
	n    int
	call func()
}

func (w *callingWriter) Write(p []byte) (int, error) {
	if w.n++; w.n == 2 {
		w.call()
	}
	return len(p), nil
}

// root is the key ID of the tenant's root.
func (o *house) root() license.KeyID {
	o.t.Helper()
	trust, err := o.Trust(o.t.Context())
	o.check(err)
	return trust.Roots[0]
}

// What was taken out of use stays so where the tenant goes, and what only was
// suspended can be resumed there.
func TestStatesGoAlong(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "secret", o.template("secret", vocab.CustodyStrict, user("bob")))
		docs := map[string]*tenant.Published{"first": o.publish("alice", "", "bob"), "strict first": o.publish("alice", "secret")}
		o.move(tenant.KeyTarget{Key: "root", Version: 1}, tenant.Suspend) // so that a rotation leaves them where they are
		o.rotate("root")
		docs["second"], docs["strict second"] = o.publish("alice", "", "bob"), o.publish("alice", "secret")
		o.rotate("root")
		docs["third"], docs["strict third"] = o.publish("alice", "", "bob"), o.publish("alice", "secret")
		o.rotate("root")
		docs["fourth"] = o.publish("alice", "", "bob")
		o.move(tenant.KeyTarget{Generation: 2}, tenant.Suspend)
		o.move(tenant.KeyTarget{Generation: 3}, tenant.Compromise)
		want := map[string]vocab.Reason{}
		for name, d := range docs {
			_, want[name] = o.acquire(person("bob"), item(d))
		}
		if want["first"] != vocab.ReasonKeySuspended || want["strict first"] != vocab.ReasonKeySuspended || want["third"] != vocab.ReasonKeyState || want["strict third"] != "" {
			t.Fatalf("the test begins otherwise: %v", want)
		}
		key := newMoveKey(t)
		id := o.freeze(key).ID
		var file bytes.Buffer
		if _, err := o.Export(t.Context(), person("carla"), id, "test", &file, func(tenant.Takeout) {}); !errors.Is(err, vocab.ReasonKeySuspended) {
			t.Fatalf("a document under a suspended version: %v", err)
		}
		o.thaw()
		v, _, err := o.RequestExport(t.Context(), person("carla"), tenant.ExportRequest{KEM: license.XWing, Recipient: key.Public(), WithoutLost: true, Reason: "we leave"})
		o.check(err)
		o.mustApprove(person("alice"), v)
		b, out := o.takeOut(v.ID)
		if out.Lost != 1 {
			t.Errorf("%d are lost, want the one under the suspended version", out.Lost)
		}
		o.shut()
		n, in := o.moved(b, key, out.Signer)
		if in.Lost != 1 {
			t.Errorf("%d are lost", in.Lost)
		}
		for name, d := range docs {
			n.opens(person("bob"), item(d), want[name])
		}
		n.move(tenant.KeyTarget{Generation: 1}, tenant.Resume)
		n.move(tenant.KeyTarget{Generation: 2}, tenant.Resume)
		n.opens(person("bob"), item(docs["first"]), "")
		n.opens(person("bob"), item(docs["second"]), "")
		if _, err := n.SetKeyState(t.Context(), person("carla"), tenant.KeyTarget{Generation: 3}, tenant.Resume, ""); !errors.Is(err, vocab.ReasonKeyState) {
			t.Errorf("what is compromised was resumed: %v", err)
		}
		n.checkStore()
	})
}

// thaw has the tenant thawed.
func (o *house) thaw() {
	o.t.Helper()
	v, _, err := o.RequestThaw(o.t.Context(), person("carla"), "we stay", "")
	o.check(err)
	if done := o.mustApprove(person("alice"), v); done.State != operation.Succeeded {
		o.t.Fatalf("the thaw is %s: %s", done.State, done.Message)
	}
}

// What is destroyed stays destroyed; nobody need accept that it is lost.
func TestWhatIsDestroyedGoesAlong(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.rotate("root")
		doc := o.publish("alice", "", "bob")
		o.idle()
		if v := o.mustApprove(person("alice"), o.mustDestroy(tenant.Destruction{Target: generation(1), DespiteSoak: true})); v.State != operation.Succeeded {
			t.Fatalf("g1 is not destroyed: %s %s", v.State, v.Message)
		}
		key := newMoveKey(t)
		b, out := o.takeOut(o.freeze(key).ID)
		o.shut()
		n, in := o.moved(b, key, out.Signer)
		if out.Lost != 1 || in.Lost != 1 {
			t.Errorf("%d and %d have no secret, want the one that is destroyed", out.Lost, in.Lost)
		}
		n.opens(person("bob"), item(doc), "")
		if g := n.generationLine(1); g.State != keys.Destroyed {
			t.Errorf("at the new service it is %s", g.State)
		}
		n.checkStore()
	})
}

// A tenant moves on from where it went, and its log is the one it always was.
func TestATenantMovesTwice(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		doc := o.publish("alice", "", "bob")
		early, err := o.log.Checkpoint(t.Context(), o.ID(), o.eventsOf(audit.KindTenantCreated)[0].Time)
		o.check(err)
		at := o
		for range 2 {
			key := newMoveKey(t)
			file, out := at.takeOut(at.freeze(key).ID)
			at.shut()
			var in *tenant.Imported
			at, in = at.moved(file, key, out.Signer)
			at.opens(person("bob"), item(doc), "")
			doc2 := at.publish("alice", "", "bob")
			at.opens(person("bob"), item(doc2), "")
			at.check(at.log.Continues(t.Context(), early))
			first, err := at.log.Get(t.Context(), at.ID(), in.Event)
			at.check(err)
			if first.Index != in.Size || first.Event.Kind != audit.KindTenantImported || !strings.Contains(first.Event.Detail, fmt.Sprintf("%x", in.SHA256)) {
				t.Errorf("the first event here: %+v", first.Event)
			}
			at.checkStore()
		}
		if n := len(at.Residence().Arrivals); n != 2 || at.Residence().Frozen != 0 {
			t.Errorf("%d arrivals, frozen %v", n, at.Residence().Frozen)
		}
		active := 0
		for name, s := range at.states() {
			if s == keys.Active {
				active++
			} else if s != keys.Deactivated {
				t.Errorf("key %s is %s", name, s)
			}
		}
		if active != 1 || len(at.states()) != 3 {
			t.Errorf("keys %v", at.states())
		}
	})
}

// What no custodian gives back any more stops an export, unless whoever approves
// it accepts that; the rest goes, and what is lost is refused as it was.
func TestWhatIsLostStaysBehind(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "secret", o.template("secret", vocab.CustodyStrict, user("bob")))
		docs := map[string]*tenant.Published{"cached": o.publish("alice", "", "bob"), "strict": o.publish("alice", "secret")}
		o.addKeyring("second")
		o.register("next", "second")
		// The first key does not answer any more: nothing under it can be moved.
		o.custodian.be(func(c *moody) {
			c.err = vocab.Errorf(vocab.ReasonCustodianUnreachable, "it does not answer")
		})
		_, _, err := o.ActivateKey(t.Context(), person("carla"), "next", true, true)
		o.check(err)
		docs["cached, next key"], docs["strict, next key"] = o.publish("alice", "", "bob"), o.publish("alice", "secret")
		o.custodians.Remove("keyring")
		o.restart()
		want := map[string]vocab.Reason{}
		for name, d := range docs {
			_, want[name] = o.acquire(person("bob"), item(d))
		}
		if want["cached"] != vocab.ReasonKeyState || want["strict"] != vocab.ReasonKeyState || want["strict, next key"] != "" {
			t.Fatalf("the test begins otherwise: %v", want)
		}
		key := newMoveKey(t)
		id := o.freeze(key).ID
		var file bytes.Buffer
		if _, err := o.Export(t.Context(), person("carla"), id, "test", &file, func(tenant.Takeout) {}); !errors.Is(err, vocab.ReasonKeyState) {
			t.Fatalf("the first key is gone: %v", err)
		}
		if _, err := (&house{t: t, dir: t.TempDir(), file: o.file}).arrive(file.Bytes(), key, o.root()); !errors.Is(err, vocab.ReasonStoreDamaged) {
			t.Errorf("what was broken off: %v", err)
		}
		o.thaw()
		v, _, err := o.RequestExport(t.Context(), person("carla"), tenant.ExportRequest{KEM: license.XWing, Recipient: key.Public(), WithoutLost: true, Reason: "we leave"})
		o.check(err)
		o.mustApprove(person("alice"), v)
		b, out := o.takeOut(v.ID)
		if out.Lost != 2 {
			t.Errorf("%d are lost, want a generation and a document", out.Lost)
		}
		o.shut()
		n, in := o.moved(b, key, out.Signer)
		if in.Lost != out.Lost || len(in.Closed) != 0 {
			t.Errorf("%+v", in)
		}
		for name, d := range docs {
			n.opens(person("bob"), item(d), want[name])
		}
		n.checkStore()
	})
}
