package tenant_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// saved is a backup of a house: the bytes of its store, and how many events.
type saved struct {
	bytes  []byte
	events uint64
}

// save keeps the store as it is now.
func (o *house) save() saved {
	o.t.Helper()
	n, err := o.log.Size(o.t.Context(), o.ID())
	o.check(err)
	o.shut()
	b, err := os.ReadFile(filepath.Join(o.dir, "rms.db"))
	o.check(err)
	o.open()
	return saved{b, n}
}

// lost returns the events since, and a checkpoint of all of them.
func (o *house) lost(s saved) (*tenant.Gap, *audit.Checkpoint) {
	o.t.Helper()
	c, err := o.log.Checkpoint(o.t.Context(), o.ID(), time.Now())
	o.check(err)
	g := tenant.NewGap(s.events)
	for e, err := range o.log.Range(o.t.Context(), o.ID(), s.events, c.Size) {
		o.check(err)
		g.Add(e.Event)
	}
	return g, &c
}

// putBack replaces the store by what was saved, and restores.
func (o *house) putBack(s saved, x tenant.Restoration) *tenant.Restored {
	o.t.Helper()
	o.shut()
	o.check(os.WriteFile(filepath.Join(o.dir, "rms.db"), s.bytes, 0o600))
	db, err := bolt.Open(bolt.Options{Path: filepath.Join(o.dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	o.check(err)
	u, err := tenant.OpenUnserved(o.t.Context(), db, audit.New(db), "contoso", slog.New(slog.DiscardHandler), time.Now)
	o.check(err)
	x.Backup, x.BackupTime = vocab.NewBackupID(), time.Now()
	r, err := u.Restore(o.t.Context(), x)
	o.check(err)
	o.check(db.Close())
	o.open()
	o.checkStore()
	return r
}

// has fails the test unless one of the lines has all words.
func has(t *testing.T, what string, lines []string, words ...string) {
	t.Helper()
	if !slices.ContainsFunc(lines, func(l string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(l, w) })
	}) {
		t.Errorf("%s: no line has %q:\n%s", what, words, strings.Join(lines, "\n"))
	}
}

// What the lost events took away is taken away again, what they gave is not
// given, and the rest is named.
func TestRestoreTakesAwayAgain(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		ctx := t.Context()
		revoked, both, ruled := o.publish("alice", "", "bob"), o.publish("alice", "", "bob"), o.publish("ron", "", "bob")
		free, already := o.publish("alice", "", "bob"), o.publish("alice", "", "bob")
		o.mustWrite(person("alice"), "finance", o.template("finance", vocab.CustodyCached, user("bob")))
		deleted := o.publish("alice", "finance")
		id := func(p *tenant.Published) vocab.ContentID { return p.License.Record.Content }
		_, _, err := o.RevokeLicense(ctx, person("alice"), id(already), "before", anyOwner)
		o.check(err)
		backup := o.save()

		_, _, err = o.RevokeLicense(ctx, person("alice"), id(revoked), "wrong version", anyOwner)
		o.check(err)
		_, _, err = o.RevokeLicense(ctx, person("alice"), id(both), "by mistake", anyOwner)
		o.check(err)
		_, _, err = o.RestoreLicense(ctx, person("alice"), id(both), anyOwner)
		o.check(err)
		_, _, err = o.RestoreLicense(ctx, person("alice"), id(already), anyOwner)
		o.check(err)
		_, _, _, err = o.RevokeLicenses(ctx, person("alice"), tenant.RevocationRequest{
			Rule: policy.RevocationRule{Owner: user("ron")}, Reason: "left: all of it, for good",
		}, anyOwner)
		o.check(err)
		for _, who := range []string{"dora", "dave"} {
			_, _, err = o.DisablePrincipal(ctx, person("alice"), user(who), "left")
			o.check(err)
		}
		_, _, err = o.EnablePrincipal(ctx, person("alice"), user("dave"))
		o.check(err)
		_, _, err = o.DeleteTemplate(ctx, person("alice"), "finance", 0, true, true)
		o.check(err)
		late := o.publish("alice", "", "bob")
		title := "another title"
		_, _, err = o.UpdateLicense(ctx, person("alice"), id(free), 0, true, tenant.LicenseEdit{Title: &title}, anyOwner)
		o.check(err)
		o.group("staff@contoso.test", user("bob"))
		later := vocab.NewBackupID()
		o.check(o.RegisterBackup(ctx, later, time.Now(), time.Time{}, []string{"SHA256:x"}))

		gap, newest := o.lost(backup)
		gap.Prove()
		r := o.putBack(backup, tenant.Restoration{Newest: newest, Lost: true, Gap: gap})
		if !r.Held || r.Size != backup.events || r.Hold.LostSize != newest.Size || r.Hold.Reason != "" {
			t.Errorf("%+v", r)
		}
		has(t, "done again", r.Hold.Reapplied, id(revoked).String(), "revoked")
		has(t, "done again", r.Hold.Reapplied, "user:dora@contoso.test disabled")
		has(t, "done again", r.Hold.Reapplied, "revoked by rule", "owner user:ron@contoso.test")
		has(t, "done again", r.Hold.Reapplied, "revoked by rule", "template ")
		has(t, "done again", r.Hold.Reapplied, "backup "+later.String())
		if len(r.Hold.Reapplied) != 5 {
			t.Errorf("done again:\n%s", strings.Join(r.Hold.Reapplied, "\n"))
		}
		has(t, "to look at", r.Hold.Open, "license-edited", id(free).String(), "alice@contoso.test")
		has(t, "to look at", r.Hold.Open, "groups/staff@contoso.test", "alice@contoso.test")
		has(t, "to look at", r.Hold.Open, "principal-enabled principals/user:dave@contoso.test")
		has(t, "to look at", r.Hold.Open, "license-restored", id(already).String())
		has(t, "to look at", r.Hold.Open, "delete template finance again")
		has(t, "to look at", r.Hold.Open, "documents that were protected", ": 1")
		if slices.ContainsFunc(r.Hold.Open, func(l string) bool { return strings.Contains(l, id(late).String()) || strings.Contains(l, "not known") }) {
			t.Errorf("to look at:\n%s", strings.Join(r.Hold.Open, "\n"))
		}

		// It is held: who has no rights is told that, who has them is told of
		// the hold, and what administrators do, they do.
		o.opens(person("mallory"), item(free), vocab.ReasonNoRights)
		o.opens(person("bob"), item(free), vocab.ReasonTenantHeld)
		o.opens(person("bob"), item(revoked), vocab.ReasonLicenseRevoked)
		if _, err := o.Publish(ctx, person("alice"), tenant.PublishRequest{To: o.to, AdHoc: &policy.AdHoc{}}); vocab.ReasonOf(err) != vocab.ReasonTenantHeld {
			t.Errorf("publishing: %v", err)
		}
		_, _, err = o.DeleteTemplate(ctx, person("alice"), "finance", 0, true, true)
		o.check(err)

		o.release()
		o.opens(person("bob"), item(free), "")
		o.opens(person("bob"), item(both), "")
		o.opens(person("bob"), item(already), vocab.ReasonLicenseRevoked) // it was given back behind the backup
		for _, p := range []*tenant.Published{revoked, ruled, deleted} {
			o.opens(person("bob"), item(p), vocab.ReasonLicenseRevoked)
		}
		o.opens(person("bob"), item(late), vocab.ReasonLicenseUnknown)
		if err := o.Admit(person("dora").Caller); vocab.ReasonOf(err) != vocab.ReasonPrincipalDisabled {
			t.Errorf("dora: %v", err)
		}
		o.check(o.Admit(person("dave").Caller))
		sets, err := o.Backups(ctx)
		o.check(err)
		if len(sets) != 1 || sets[0].ID != later || len(sets[0].Needs.Generations) == 0 {
			t.Errorf("%+v", sets)
		}
		o.restart()
		o.opens(person("bob"), item(free), "")
		o.checkStore()
	})
}

// release asks for the end of the hold as alice and approves it as grace.
func (o *house) release() {
	o.t.Helper()
	v, event, err := o.RequestRelease(o.t.Context(), person("alice"), "all was looked at")
	o.check(err)
	if event.IsZero() || v.State != operation.AwaitingApproval {
		o.t.Fatalf("%+v", v)
	}
	if _, err := o.approve(person("alice"), v); vocab.ReasonOf(err) != vocab.ReasonSamePerson {
		o.t.Errorf("alice approves her own: %v", err)
	}
	if o.Hold() == nil {
		o.t.Fatal("released by one person")
	}
	v = o.mustApprove(person("grace"), v)
	if v = o.eventually(v.ID, operation.Succeeded); o.Hold() != nil {
		o.t.Fatalf("still held: %+v", v)
	}
}

// If nothing is known of what is missing, the tenant is held all the same, and
// the log says why. Events that nothing proves are done again, and named as such.
func TestRestoreOfUnknown(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		doc := o.publish("alice", "", "bob")
		backup := o.save()
		r := o.putBack(backup, tenant.Restoration{Lost: true, Reason: "the disk died"})
		if !r.Held || len(r.Hold.Reapplied) != 0 || r.Hold.LostSize != 0 || r.Hold.Reason != "the disk died" {
			t.Errorf("%+v", r.Hold)
		}
		has(t, "to look at", r.Hold.Open, "what happened after", "is not known")
		o.opens(person("bob"), item(doc), vocab.ReasonTenantHeld)
		alarms, _, err := o.log.List(t.Context(), o.ID(), audit.Filter{Alarm: true}, audit.Cursor{}, 10)
		o.check(err)
		if len(alarms) != 1 || alarms[0].Event.Kind != audit.KindRestored || !strings.Contains(alarms[0].Event.Detail, "loss accepted: the disk died") {
			t.Fatalf("%d alarms", len(alarms))
		}
		if d := cmp.Diff(alarms[0].Event.ID, o.Hold().Event); d != "" {
			t.Error(d)
		}
		o.release()
		o.opens(person("bob"), item(doc), "")

		// A second restore holds it again, whatever was approved for the first.
		second := o.save()
		_, _, err = o.DisablePrincipal(t.Context(), person("alice"), user("bob"), "left")
		o.check(err)
		gap, newest := o.lost(second)
		r = o.putBack(second, tenant.Restoration{Lost: true, Newest: newest, Gap: gap, Reason: "again"})
		has(t, "done again", r.Hold.Reapplied, "user:bob@contoso.test disabled")
		has(t, "to look at", r.Hold.Open, "which nothing proves")
		o.opens(person("bob"), item(doc), vocab.ReasonPrincipalDisabled)
	})
}

// An approval is of one hold: another restore needs another.
func TestReleaseIsOfOneRestore(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		if _, _, err := o.RequestRelease(t.Context(), person("alice"), "x"); vocab.ReasonOf(err) != vocab.ReasonOperationState {
			t.Errorf("not held: %v", err)
		}
		backup := o.save()
		o.putBack(backup, tenant.Restoration{Lost: true, Reason: "one"})
		if _, _, err := o.RequestRelease(t.Context(), person("alice"), " "); vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Errorf("without a reason: %v", err)
		}
		v, _, err := o.RequestRelease(t.Context(), person("alice"), "first")
		o.check(err)
		with := o.save()
		o.putBack(with, tenant.Restoration{Lost: true, Reason: "two"})
		// alice's request came back with the backup; it is not of this restore.
		v = o.mustApprove(person("grace"), o.look(v.ID))
		if v = o.eventually(v.ID, operation.Failed); v.Why != vocab.ReasonEtagMismatch || o.Hold() == nil {
			t.Errorf("%s %s, held: %v", v.Why, v.Message, o.Hold() != nil)
		}
	})
}

// Nothing is known to be lost: nothing is held, and the log says so.
func TestPlainRestore(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		doc := o.publish("alice", "", "bob")
		backup := o.save()
		if r := o.putBack(backup, tenant.Restoration{}); r.Held || r.Hold != nil {
			t.Errorf("%+v", r)
		}
		o.opens(person("bob"), item(doc), "")
		all, _, err := o.log.List(t.Context(), o.ID(), audit.Filter{Kinds: []audit.Kind{audit.KindRestored}}, audit.Cursor{}, 10)
		o.check(err)
		if len(all) != 1 || all[0].Event.Alarm {
			t.Errorf("%+v", all)
		}
	})
}

// A backup set is there before the copy, needs what the copy needs, and is there
// until somebody says that it is no more.
func TestBackupSets(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		ctx := t.Context()
		o.publish("alice", "", "bob")
		o.mustWrite(person("alice"), "board", o.template("board", vocab.CustodyStrict, user("bob")))
		o.publish("alice", "board")
		id, created := vocab.NewBackupID(), time.Date(2026, 10, 30, 3, 0, 0, 0, time.UTC)
		o.check(o.RegisterBackup(ctx, id, created, time.Date(2027, 1, 28, 0, 0, 0, 0, time.UTC), []string{"SHA256:x"}))
		sets, err := o.Backups(ctx)
		o.check(err)
		if len(sets) != 1 || sets[0].Complete != 0 || sets[0].String() != "backup of 2026-10-30 kept to 2027-01-28" {
			t.Fatalf("%+v", sets)
		}
		if n := sets[0].Needs; len(n.Generations) != 1 || len(n.Versions) != 1 || n.Versions[0].Version != 1 || n.Versions[0].Key != "root" {
			t.Errorf("%+v", n)
		}
		o.check(o.store.View(ctx, func(r store.Reader) error {
			s, err := tenant.SnapshotOf(r, o.ID())
			o.check(err)
			for _, c := range []struct {
				id   vocab.BackupID
				more func(*record.Needs)
				want bool
			}{
				{id, func(*record.Needs) {}, true},
				{vocab.NewBackupID(), func(*record.Needs) {}, false},
				{id, func(n *record.Needs) { n.Generations = append(n.Generations, record.NeededGeneration{Number: 2}) }, false},
				{id, func(n *record.Needs) { n.Versions = append(n.Versions, record.NeededVersion{Key: "root", Version: 2}) }, false},
			} {
				with := s
				with.Needs.Versions, with.Needs.Generations = slices.Clone(s.Needs.Versions), slices.Clone(s.Needs.Generations)
				c.more(&with.Needs)
				if got, err := tenant.BackupCovers(r, o.ID(), c.id, &with); err != nil || got != c.want {
					t.Errorf("%+v covered: %v %v", with.Needs, got, err)
				}
			}
			return nil
		}))
		o.check(o.CompleteBackup(ctx, id, [32]byte{1}, 4711, 12))
		o.restart()
		sets, err = o.Backups(ctx)
		o.check(err)
		if len(sets) != 1 || sets[0].Complete != 1 || sets[0].Bytes != 4711 || sets[0].LogSize != 12 {
			t.Fatalf("%+v", sets)
		}
		if err := o.ForgetBackup(ctx, vocab.NewBackupID(), "x"); vocab.ReasonOf(err) != vocab.ReasonResourceNotFound {
			t.Errorf("forgetting another: %v", err)
		}
		o.check(o.ForgetBackup(ctx, id, "shredded"))
		if sets, err = o.Backups(ctx); err != nil || len(sets) != 0 {
			t.Errorf("%+v %v", sets, err)
		}
		if err := o.CompleteBackup(ctx, id, [32]byte{1}, 1, 1); vocab.ReasonOf(err) != vocab.ReasonResourceNotFound {
			t.Errorf("completing one that is forgotten: %v", err)
		}
		o.checkStore()
		page, _, err := o.log.List(ctx, o.ID(), audit.Filter{Kinds: []audit.Kind{audit.KindBackupMade, audit.KindBackupChanged}}, audit.Cursor{}, 10)
		o.check(err)
		var details []string
		for _, e := range slices.Backward(page) {
			details = append(details, e.Event.Kind.String()+" "+e.Event.Detail)
		}
		want := []string{"backup-made begun, kept to 2027-01-28", "backup-changed complete: 12 events, 4711 bytes, SHA-256 01" + strings.Repeat("00", 31), "backup-changed forgotten: shredded"}
		if d := cmp.Diff(want, details); d != "" {
			t.Error(d)
		}
	})
}

// A version of the key that was suspended is suspended again; what this version
// does not know is named, and no reason ever makes it guess.
func TestRestoreOfKeysAndOfTheUnknown(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		doc := o.publish("alice", "", "bob")
		backup := o.save()
		sets, err := o.Keys(t.Context())
		o.check(err)
		g := tenant.NewGap(backup.events)
		event := func(kind audit.Kind, change func(*audit.Event)) {
			e := &audit.Event{ID: vocab.NewEventID(), Tenant: o.ID(), Time: time.Now().UTC(), Kind: kind, Principal: audit.Principal{Name: "carla@contoso.test"}}
			change(e)
			g.Add(e)
		}
		event(audit.KindKeySuspended, func(e *audit.Event) { e.Custodian, e.KeyVersion, e.Target = sets[0].ID, 1, "keys/root" })
		event(audit.KindKeySuspended, func(e *audit.Event) { e.Custodian, e.KeyVersion, e.Target = sets[0].ID, 2, "keys/root" })
		event(audit.KindKeyDestroyed, func(e *audit.Event) { e.Target = "generations/1" })
		event(audit.KindKeyResumed, func(e *audit.Event) { e.Custodian, e.KeyVersion, e.Target = sets[0].ID, 2, "keys/root" })
		event(audit.KindKeySuspended, func(e *audit.Event) { e.Target = "a key of another making" })
		event(audit.Kind(999), func(e *audit.Event) { e.Target = "what comes later" })
		event(audit.KindLicensesRevoked, func(e *audit.Event) {
			e.Target, e.Detail, e.State = "revocations/x", "owner user:ron@contoso.test: not the rule that was written", [32]byte{1}
		})
		event(audit.KindPrincipalDisabled, func(e *audit.Event) { e.Target = "principals/nobody at all" })
		event(audit.KindRefused, func(e *audit.Event) { e.Reason = vocab.ReasonRoleRequired })
		event(audit.KindPrincipalDisabled, func(e *audit.Event) { e.Target, e.Reason = "principals/user:bob@contoso.test", vocab.ReasonSamePerson })
		r := o.putBack(backup, tenant.Restoration{Lost: true, Gap: g, Reason: "a test"})
		if d := cmp.Diff([]string{"version 1 of key root suspended", "generations/1 destroyed"}, r.Hold.Reapplied); d != "" {
			t.Error(d)
		}
		has(t, "to look at", r.Hold.Open, "key-resumed keys/root v2")
		has(t, "to look at", r.Hold.Open, "key-suspended a key of another making")
		has(t, "to look at", r.Hold.Open, "kind-999 what comes later", "carla@contoso.test")
		has(t, "to look at", r.Hold.Open, "licenses-revoked", "not the rule that was written")
		has(t, "to look at", r.Hold.Open, "principal-disabled", "nobody at all")
		if len(r.Hold.Open) != 6 {
			t.Errorf("%s", strings.Join(r.Hold.Open, "\n"))
		}
		o.release()
		o.opens(person("bob"), item(doc), vocab.ReasonKeyState)
	})
}

// What is lost may be much: a hold names the first of it and counts the rest.
func TestHoldIsBounded(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		backup := o.save()
		g := tenant.NewGap(backup.events)
		for i := range record.MaxHoldLines + 500 {
			g.Add(&audit.Event{
				ID: vocab.NewEventID(), Tenant: o.ID(), Time: time.Now().UTC(), Kind: audit.KindGroupChanged,
				Target: "groups/" + strings.Repeat("x", 200) + strconv.Itoa(i), Detail: strings.Repeat("y", 1000),
			})
			g.Add(&audit.Event{
				ID: vocab.NewEventID(), Tenant: o.ID(), Time: time.Now().UTC(), Kind: audit.KindPrincipalDisabled,
				Target: "principals/user:u" + strconv.Itoa(i) + "@contoso.test", Principal: audit.Principal{Name: "alice@contoso.test"},
			})
		}
		r := o.putBack(backup, tenant.Restoration{Lost: true, Gap: g, Reason: "a test"})
		if len(r.Hold.Reapplied) != record.MaxHoldLines || len(r.Hold.Open) != record.MaxHoldLines+1 || r.Hold.LeftOut != 1000 {
			t.Errorf("%d done again, %d to look at, %d left out", len(r.Hold.Reapplied), len(r.Hold.Open), r.Hold.LeftOut)
		}
		last := vocab.Principal{Kind: vocab.KindUser, Value: "u" + strconv.Itoa(record.MaxHoldLines+499) + "@contoso.test"}
		if p, err := o.GetPrincipal(t.Context(), last); err != nil || p.Disabled == nil {
			t.Errorf("the last of them: %+v %v", p, err)
		}
	})
}
