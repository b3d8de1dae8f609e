package tenant_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// owned counts an owner's licenses.
func (o *house) owned(name string) int64 {
	o.t.Helper()
	n, err := o.CountOwned(o.t.Context(), user(name), user("zoe"))
	o.check(err)
	return n
}

// changes returns how often each license was written by an operation.
func (o *house) changes(id vocab.OperationID) map[vocab.ContentID]int {
	o.t.Helper()
	out := map[vocab.ContentID]int{}
	_, all := o.events(id)
	for _, e := range all {
		if e.Kind == audit.KindLicenseEdited {
			out[e.Content]++
		}
	}
	return out
}

// Everything of one owner becomes another's, each license with its own event,
// and goes on opening.
func TestTransferHandsOverEverything(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		var all []*tenant.Published
		for range 70 { // more than two transactions' worth
			all = append(all, o.publish("bob", "", "dan"))
		}
		_, _, err := o.UpdateSettings(t.Context(), person("alice"), 0, true, func(s *record.Settings) error { s.Custody = vocab.CustodyStrict; return nil })
		o.check(err)
		strict := o.publish("bob", "", "dan")
		other := o.publish("erin", "", "dan")
		if n := o.owned("bob"); n != 71 {
			t.Fatalf("bob has %d licenses", n)
		}
		v, event, err := o.TransferLicenses(t.Context(), person("alice"), user("bob"), user("carla"), "bob leaves")
		o.check(err)
		if v.State != operation.Running || v.Needed != 0 || event.IsZero() {
			t.Fatalf("nobody gains who asks, and it is %s", v.State)
		}
		done := o.eventually(v.ID, operation.Succeeded)
		if done.Progress.Done != 71 || done.Progress.Failures != 0 || o.owned("bob") != 0 || o.owned("carla") != 71 || o.owned("erin") != 1 {
			t.Errorf("%d done, %d failed; bob has %d, carla %d", done.Progress.Done, done.Progress.Failures, o.owned("bob"), o.owned("carla"))
		}
		changes := o.changes(v.ID)
		for _, p := range append(all, strict) {
			if changes[p.License.Record.Content] != 1 {
				t.Fatalf("a license was written %d times", changes[p.License.Record.Content])
			}
		}
		if len(changes) != 71 || changes[other.License.Record.Content] != 0 {
			t.Errorf("%d licenses were written", len(changes))
		}
		o.opens(person("carla"), item(all[0]), "")
		o.opens(person("dan"), item(all[69]), "")
		o.opens(person("carla"), item(strict), "")
		o.checkStore()
	})
}

// Whoever gets everything needs another's approval, however the owner is named.
func TestTransferToOneselfWaits(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		alias := person("alice")
		alias.Caller.Addresses = append(alias.Caller.Addresses, "a@contoso.test")
		v, _, err := o.TransferLicenses(t.Context(), alias, user("bob"), user("a"), "")
		o.check(err)
		if v.State != operation.AwaitingApproval {
			t.Errorf("to another address of hers it is %s", v.State)
		}
		for name, c := range map[string][2]vocab.Principal{
			"nobody":    {user("bob"), user("bob")},
			"a group":   {user("bob"), {Kind: vocab.KindGroup, Value: "g@contoso.test"}},
			"anyone":    {{Kind: vocab.KindAnyone}, user("bob")},
			"no person": {user("bob"), {}},
		} {
			if _, _, err := o.TransferLicenses(t.Context(), person("alice"), c[0], c[1], ""); !errors.Is(err, vocab.ReasonRequestInvalid) {
				t.Errorf("%s: %v, want REQUEST_INVALID", name, err)
			}
		}
	})
}

// Killed after any transaction, the work goes on where it was: every license is
// written once, and the counts are right.
func TestTransferSurvivesCrashes(t *testing.T) {
	for n := range int64(7) {
		inOffice(t, func(t *testing.T, o *house) {
			for range 70 {
				o.publish("bob", "")
			}
			o.store.kill(n)
			v, _, err := o.TransferLicenses(t.Context(), person("alice"), user("bob"), user("carla"), "")
			time.Sleep(10 * time.Second)
			o.restart()
			if err != nil {
				if n > 0 {
					t.Fatal(err)
				}
				if list, _, err := o.ListOperations(t.Context(), person("erin").Caller, tenant.OperationFilter{}, vocab.OperationID{}, 10); err != nil || len(list) != 0 {
					t.Errorf("a request that was not durable is there: %v %v", list, err)
				}
				return
			}
			done := o.eventually(v.ID, operation.Succeeded)
			if done.Progress.Done != 70 || o.owned("carla") != 70 {
				t.Errorf("killed after %d transactions: %d counted, carla has %d", n, done.Progress.Done, o.owned("carla"))
			}
			for id, times := range o.changes(v.ID) {
				if times != 1 {
					t.Fatalf("killed after %d transactions: license %s was written %d times", n, id, times)
				}
			}
			o.checkStore()
		})
	}
}

// A pause holds the work up, also over a restart; a cancellation ends it.
func TestPauseResumeCancel(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		_, _, err := o.UpdateSettings(t.Context(), person("alice"), 0, true, func(s *record.Settings) error { s.Custody = vocab.CustodyStrict; return nil })
		o.check(err)
		for range 40 {
			o.publish("bob", "")
		}
		o.custodian.be(func(c *moody) { c.err = sealed }) // so that it does not get far
		v, _, err := o.TransferLicenses(t.Context(), person("alice"), user("bob"), user("carla"), "")
		o.check(err)
		if now := o.settled(v.ID); now.State != operation.Running || vocab.ReasonOf(now.Waiting) != vocab.ReasonCustodianSealed {
			t.Errorf("without the custodian it is %s, waiting for %v", now.State, now.Waiting)
		}
		_, _, err = o.PauseOperation(t.Context(), person("grace"), v.ID)
		o.check(err)
		o.custodian.be(func(c *moody) { c.err = nil })
		o.restart()
		time.Sleep(time.Hour)
		if now := o.settled(v.ID); now.State != operation.Paused || o.owned("bob") != 40 {
			t.Errorf("paused it is %s, and bob has %d", now.State, o.owned("bob"))
		}
		if _, _, err := o.PauseOperation(t.Context(), person("grace"), v.ID); !errors.Is(err, vocab.ReasonOperationState) {
			t.Errorf("paused twice: %v", err)
		}
		_, _, err = o.ResumeOperation(t.Context(), person("alice"), v.ID)
		o.check(err)
		o.eventually(v.ID, operation.Succeeded)

		o.custodian.be(func(c *moody) { c.err = sealed })
		back, _, err := o.TransferLicenses(t.Context(), person("alice"), user("carla"), user("bob"), "")
		o.check(err)
		_, _, err = o.CancelOperation(t.Context(), person("alice"), back.ID, "a mistake")
		o.check(err)
		o.custodian.be(func(c *moody) { c.err = nil })
		time.Sleep(time.Hour)
		if now := o.settled(back.ID); now.State != operation.Cancelled || now.Message != "a mistake" || o.owned("carla") != 40 {
			t.Errorf("cancelled it is %s, and carla has %d", now.State, o.owned("carla"))
		}
		o.checkStore()
	})
}

// Who was disabled hands nothing over any more, also in the middle of it.
func TestTransferEndsWithItsRequester(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		_, _, err := o.UpdateSettings(t.Context(), person("alice"), 0, true, func(s *record.Settings) error { s.Custody = vocab.CustodyStrict; return nil })
		o.check(err)
		o.publish("bob", "")
		o.custodian.be(func(c *moody) { c.err = sealed })
		v, _, err := o.TransferLicenses(t.Context(), person("grace"), user("bob"), user("carla"), "")
		o.check(err)
		synctest.Wait()
		o.policyAdmins("alice")
		o.custodian.be(func(c *moody) { c.err = nil })
		if done := o.eventually(v.ID, operation.Failed); done.Why != vocab.ReasonRoleRequired || o.owned("bob") != 1 {
			t.Errorf("it failed for %s, and bob has %d", done.Why, o.owned("bob"))
		}
	})
}

// A license that cannot be worked on is named and counted, and keeps no other
// from being done.
func TestOneLicenseThatFails(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		var all []*tenant.Published
		for range 40 {
			all = append(all, o.publish("bob", ""))
		}
		hurt := all[17].License.Record.Content
		o.check(o.store.Commit(t.Context(), func(tx store.Tx) error {
			l, err := record.GetLicense(tx, o.ID(), hurt)
			if err != nil {
				return err
			}
			l.KeyBox = []byte("TEST, not a key box")
			return record.PutLicense(tx, o.ID(), l)
		}))
		v, _, err := o.TransferLicenses(t.Context(), person("alice"), user("bob"), user("carla"), "")
		o.check(err)
		done := o.eventually(v.ID, operation.Failed)
		if done.Progress.Done != 39 || done.Progress.Failures != 1 || done.Why != vocab.ReasonStoreDamaged {
			t.Errorf("%d done, %d failed (%s)", done.Progress.Done, done.Progress.Failures, done.Why)
		}
		if f := done.Failed; len(f) != 1 || f[0].License != hurt || f[0].Reason != vocab.ReasonStoreDamaged {
			t.Errorf("it names %v", f)
		}
		if o.owned("carla") != 39 || o.owned("bob") != 1 {
			t.Errorf("carla has %d, bob %d", o.owned("carla"), o.owned("bob"))
		}
	})
}

// What is published while the work goes on is handed over as well, and what
// others change in between is not lost.
func TestTransferAmongOthersWork(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		anyone := func(vocab.Principal) error { return nil }
		var all []*tenant.Published
		for range 40 {
			all = append(all, o.publish("bob", ""))
		}
		v, _, err := o.TransferLicenses(t.Context(), person("alice"), user("bob"), user("carla"), "")
		o.check(err)
		for i, p := range all {
			title := fmt.Sprint("title ", i)
			_, _, err := o.UpdateLicense(t.Context(), person("grace"), p.License.Record.Content, 0, true, tenant.LicenseEdit{Title: &title}, anyone)
			o.check(err)
		}
		o.eventually(v.ID, operation.Succeeded)
		for i, p := range all {
			l, err := o.GetLicense(t.Context(), p.License.Record.Content, anyone)
			o.check(err)
			if want := fmt.Sprint("title ", i); l.Record.Title != want || l.Policy.Owner != user("carla") {
				t.Fatalf("document %d is %q of %s", i, l.Record.Title, l.Policy.Owner)
			}
		}
		o.checkStore()
	})
}

// Two long operations go one after the other, and what is done at once waits for
// neither.
func TestLongWorkOneAtATime(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob")))
		for range 40 {
			o.publish("bob", "finance")
			o.publish("dan", "")
		}
		o.mustWrite(person("grace"), "finance", o.template("finance", vocab.CustodyStrict, user("bob")))
		reseal := o.look(o.ResealOf(o.uid("finance")))
		second, _, err := o.TransferLicenses(t.Context(), person("grace"), user("dan"), user("carla"), "")
		o.check(err)
		synctest.Wait() // the first pauses for the custodian's sake
		if now := o.look(second.ID); now.Progress.Done != 0 || now.State != operation.Running {
			t.Errorf("the second goes on beside the first: %d done, %s", now.Progress.Done, now.State)
		}
		grant := o.waits(o.grant(person("alice"), vocab.RoleAuditor, user("dan")))
		if done := o.mustApprove(person("grace"), grant); done.State != operation.Succeeded {
			t.Errorf("the grant is %s behind long work", done.State)
		}
		if now := o.look(reseal.ID); now.State != operation.Running {
			t.Errorf("the first is %s already", now.State)
		}
		o.eventually(reseal.ID, operation.Succeeded)
		o.eventually(second.ID, operation.Succeeded)
	})
}

func (o *house) uid(slug string) vocab.TemplateUID {
	o.t.Helper()
	tmpl, err := o.GetTemplate(o.t.Context(), slug, 0)
	o.check(err)
	return tmpl.UID
}

func (o *house) below(slug string) int64 {
	o.t.Helper()
	tmpl, err := o.GetTemplate(o.t.Context(), slug, 0)
	o.check(err)
	n, err := o.CountFloor(o.t.Context(), tmpl.UID, tmpl.Custody)
	o.check(err)
	return n
}

// Raising a template's floor gives every license that follows it a generation of
// its own, whatever the moment the daemon dies at; all of them go on opening,
// and then the custodian is asked each time.
func TestRaisingTheFloorReseals(t *testing.T) {
	for n := range int64(8) {
		inOffice(t, func(t *testing.T, o *house) {
			o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("dan")))
			var all []*tenant.Published
			for range 20 {
				all = append(all, o.publish("bob", "finance"))
			}
			if got := o.below("finance"); got != 0 || !o.ResealOf(o.uid("finance")).IsZero() {
				t.Fatalf("%d licenses are below a floor that nobody set", got)
			}
			o.mustWrite(person("grace"), "finance", o.template("finance", vocab.CustodyStrict, user("dan")))
			id := o.ResealOf(o.uid("finance"))
			o.store.kill(n)
			if id.IsZero() {
				t.Fatal("raising the floor started nothing")
			}
			time.Sleep(time.Second)
			o.restart()
			o.publish("bob", "finance") // strict from the start
			done := o.eventually(id, operation.Succeeded)
			if done.Progress.Done != 20 || o.below("finance") != 0 || done.Requester.Name != "grace@contoso.test" {
				t.Errorf("killed after %d transactions: %d done, %d below the floor", n, done.Progress.Done, o.below("finance"))
			}
			generations := map[vocab.GenerationID]bool{}
			for _, p := range all {
				l, err := o.GetLicense(t.Context(), p.License.Record.Content, func(vocab.Principal) error { return nil })
				o.check(err)
				if l.Record.Custody() != vocab.CustodyStrict || l.Record.Revision != 2 {
					t.Fatalf("a license is %s at revision %d", l.Record.Custody(), l.Record.Revision)
				}
				generations[l.Record.Generation] = true
				if got := o.opens(person("dan"), item(p), ""); got.Custody != vocab.CustodyStrict {
					t.Errorf("it opens as %s", got.Custody)
				}
			}
			if len(generations) != 20 {
				t.Errorf("20 documents have %d generations", len(generations))
			}
			o.custodian.be(func(c *moody) { c.err = sealed })
			o.opens(person("dan"), item(all[3]), vocab.ReasonCustodianSealed)
			o.custodian.be(func(c *moody) { c.err = nil })
			kinds, _ := o.events(id)
			if kinds[0] != "operation-requested" || kinds[len(kinds)-1] != "operation-succeeded" || len(kinds) != 22 {
				t.Errorf("events %v", kinds)
			}
			o.checkStore()
		})
	}
}

// The custodian is left alone between batches, waits are waited out, and a floor
// that is lowered again ends the work.
func TestResealIsGentle(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("dan")))
		for range 50 {
			o.publish("bob", "finance")
		}
		var before int
		o.custodian.be(func(c *moody) { before = c.asked })
		o.mustWrite(person("grace"), "finance", o.template("finance", vocab.CustodyStrict, user("dan")))
		id := o.ResealOf(o.uid("finance"))
		synctest.Wait()
		o.custodian.be(func(c *moody) {
			if n := c.asked - before; n > 10 {
				t.Errorf("the custodian was asked %d times at once", n)
			}
			c.err = sealed
		})
		time.Sleep(time.Hour)
		if now := o.settled(id); now.State != operation.Running || vocab.ReasonOf(now.Waiting) != vocab.ReasonCustodianSealed || now.Progress.Total != 50 {
			t.Errorf("without the custodian it is %s, %d of %d, waiting for %v", now.State, now.Progress.Done, now.Progress.Total, now.Waiting)
		}
		if got := o.below("finance"); got == 0 || got == 50 {
			t.Errorf("%d licenses are below the floor", got)
		}
		// Writing the template again starts no second one.
		o.mustWrite(person("grace"), "finance", o.template("finance", vocab.CustodyStrict, user("dan"), user("carla")))
		if again := o.ResealOf(o.uid("finance")); again != id {
			t.Errorf("there is a second operation %s", again)
		}
		// Lowering the floor takes somebody else, and the signing key that is
		// there without the custodian.
		_, _, err := o.WriteTemplate(t.Context(), person("grace"), "finance", o.template("finance", 0, user("dan"), user("carla")), 3, false, false)
		o.mustApprove(person("alice"), o.waits(err))
		o.custodian.be(func(c *moody) { c.err = nil })
		done := o.eventually(id, operation.Cancelled)
		if done.Message != "the template does not demand strict custody any more" || done.Progress.Total != 50 || done.Progress.Done == 50 {
			t.Errorf("it was cancelled after %d of %d: %s", done.Progress.Done, done.Progress.Total, done.Message)
		}
		// Raised again, what is left is done.
		o.mustWrite(person("grace"), "finance", o.template("finance", vocab.CustodyStrict, user("dan")))
		o.eventually(o.ResealOf(o.uid("finance")), operation.Succeeded)
		if o.below("finance") != 0 {
			t.Error("licenses are left below the floor")
		}
		o.checkStore()
	})
}
