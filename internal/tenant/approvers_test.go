package tenant_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// The approvers change only by the quorum they are, and never silently by less.
func TestApproversChangeUnderThemselves(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.staffed()
		a, err := o.GetApprovers(t.Context())
		o.check(err)
		if a.Set != nil || a.Revision != 0 {
			t.Fatalf("there are approvers already: %+v", a)
		}
		// Before there are any, what is under dual control takes a second person.
		v := o.lower(person("alice"), 6*time.Minute)
		if v.Quorum != nil || v.Needed != 1 {
			t.Errorf("it needs %d", v.Needed)
		}
		if _, err := o.approve(person("alice"), v); !errors.Is(err, vocab.ReasonSamePerson) {
			t.Errorf("alone: %v", err)
		}
		if _, err := o.hands(person("grace"), v, []byte("x")); !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("with a signature nobody knows: %v", err)
		}
		if out := o.mustApprove(person("grace"), v); out.State != operation.Succeeded || o.Settings().CacheTTL != 6*time.Minute {
			t.Errorf("with a second person it is %s", out.State)
		}
		// So does the first set; what waits when it comes is asked for anew.
		left := o.lower(person("alice"), time.Hour)
		first, err := o.askApprovers(person("carla"), quorumOf(3, "carla", "dora", "emil", "fred", "gina"))
		o.check(err)
		rival, err := o.askApprovers(person("dora"), quorumOf(2, "dora", "emil"))
		o.check(err)
		if _, err := o.approve(person("carla"), first); !errors.Is(err, vocab.ReasonSamePerson) {
			t.Errorf("the first set alone: %v", err)
		}
		if out := o.mustApprove(person("dora"), first); out.State != operation.Succeeded {
			t.Fatalf("the first set is %s: %s", out.State, out.Message)
		}
		if out := o.mustApprove(person("grace"), left); out.State != operation.Failed || out.Why != vocab.ReasonApprovalRequired {
			t.Errorf("what was asked for before the approvers is %s (%s)", out.State, out.Why)
		}
		if out := o.mustApprove(person("alice"), rival); out.State != operation.Failed || out.Why != vocab.ReasonInventoryChanged {
			t.Errorf("another first set is %s (%s)", out.State, out.Why)
		}
		if got := o.Settings().CacheTTL; got != 6*time.Minute {
			t.Errorf("the cache time is %s", got)
		}
		// Taking people out keeps the threshold, or is refused.
		if _, err := o.askApprovers(person("alice"), quorumOf(3, "carla", "dora")); !errors.Is(err, vocab.ReasonRequestInvalid) || !strings.Contains(err.Error(), "never falls by itself") {
			t.Errorf("3 of 2: %v", err)
		}
		v, err = o.askApprovers(person("alice"), quorumOf(2, "carla", "dora", "emil", "fred"))
		o.check(err)
		_, events := o.events(v.ID)
		if want := "lowers the quorum from 3 of 5 to 2 of 4; removes gina@contoso.test (the gina)"; !strings.Contains(events[0].Detail, want) {
			t.Errorf("the log says %q, want %q", events[0].Detail, want)
		}
		for _, name := range []string{"carla", "dora"} {
			out, err := o.signs(name, v)
			o.check(err)
			if out.State != operation.AwaitingApproval {
				t.Errorf("the old quorum is not needed: %s after %s", out.State, name)
			}
		}
		out, err := o.signs("gina", v)
		o.check(err)
		if out.State != operation.Succeeded {
			t.Errorf("it is %s: %s", out.State, out.Message)
		}
		o.restart()
		o.staffed()
		if a, err = o.GetApprovers(t.Context()); err != nil || a.Set.String() != "2 of 4" || a.Revision != 2 || a.Able != 4 {
			t.Errorf("the approvers are %+v: %v", a, err)
		}
		entry, err := o.log.Get(t.Context(), o.ID(), a.Event)
		o.check(err)
		if entry.Event.Kind != audit.KindApproversChanged || entry.Event.Operation != v.ID {
			t.Errorf("its event is %+v", entry.Event)
		}
		o.checkStore()
	})
}

// Sets that nobody should have, and edits of one that has changed.
func TestApproverSetsThatAreRefused(t *testing.T) {
	inDualControl(t, 2, three, func(t *testing.T, o *house) {
		double := quorumOf(2, three...)
		double.Approvers[1].Keys = double.Approvers[0].Keys
		for name, c := range map[string]struct {
			set  *operation.ApproverSet
			want string
		}{
			"one of three":       {quorumOf(1, three...), "must be 2 or more"},
			"three of two":       {quorumOf(3, "carla", "dora"), "is no quorum"},
			"a key of two":       {double, "a key is one person's"},
			"a person twice":     {quorumOf(2, "carla", "carla=other"), "named twice"},
			"the same":           {quorumOf(2, three...), "are these already"},
			"who cannot act":     {quorumOf(2, "carla", "bob"), "bob@contoso.test does not hold the role"},
			"nobody of whom can": {quorumOf(2, "bob", "dan"), "0 of these approvers can act"},
		} {
			if _, err := o.askApprovers(person("alice"), c.set); !errors.Is(err, vocab.ReasonRequestInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
		if _, _, err := o.UpdateApprovers(t.Context(), person("alice"), 7, false, quorumOf(3, three...), "", false); !errors.Is(err, vocab.ReasonEtagMismatch) {
			t.Errorf("of another revision: %v", err)
		}
		// A dry run asks for nothing.
		v, event, err := o.UpdateApprovers(t.Context(), person("alice"), 1, false, quorumOf(3, three...), "", true)
		if err != nil || event.IsZero() || !v.ID.IsZero() || v.Needed != 2 || len(v.Dual.Left) != 3 {
			t.Errorf("a dry run: %v, %+v", err, v)
		}
		list, _, err := o.ListOperations(t.Context(), person("erin").Caller, tenant.OperationFilter{Kind: operation.ApproversUpdate}, vocab.OperationID{}, 10)
		o.check(err)
		if len(list) != 1 {
			t.Errorf("%d operations, want the first set's alone", len(list))
		}
	})
}

// When so many approvers cannot act that there is no quorum, that is an alarm.
func TestShortOfQuorum(t *testing.T) {
	inDualControl(t, 2, three, func(t *testing.T, o *house) {
		alarms := func() (out []string) {
			t.Helper()
			synctest.Wait()
			entries, _, err := o.log.List(t.Context(), o.ID(), audit.Filter{Kinds: []audit.Kind{audit.KindAlarm}}, audit.Cursor{}, 100)
			o.check(err)
			for _, e := range entries {
				if e.Event.Alarm {
					out = append(out, e.Event.Detail)
				}
			}
			return out
		}
		o.disable("carla")
		if got := alarms(); len(got) != 0 {
			t.Errorf("two of three can act, and there are alarms %q", got)
		}
		o.holders(vocab.RoleKeyCustodian, user("dora"))
		got := alarms()
		if len(got) != 1 || !strings.Contains(got[0], "1 approvers can act, and 2 are needed") || !strings.Contains(got[0], "user:carla@contoso.test is disabled") ||
			!strings.Contains(got[0], "user:emil@contoso.test does not hold the role") {
			t.Errorf("the alarms are %q", got)
		}
		a, err := o.GetApprovers(t.Context())
		o.check(err)
		if a.Able != 1 || a.Cannot[1] != "" || a.Cannot[0] != "is disabled" {
			t.Errorf("%d can act: %q", a.Able, a.Cannot)
		}
		o.disable("fred") // nothing new
		if n := len(alarms()); n != 1 {
			t.Errorf("there are %d alarms", n)
		}
		o.staffed()
		synctest.Wait()
		o.holders(vocab.RoleKeyCustodian)
		if n := len(alarms()); n != 2 {
			t.Errorf("short once more there are %d alarms, want another", n)
		}
	})
}

// What lowers custody, and what one person may do.
func TestWhatLowersCustody(t *testing.T) {
	strict := func(s *record.Settings) { s.Custody = vocab.CustodyStrict }
	for name, c := range map[string]struct {
		before, edit func(*record.Settings)
		want         vocab.Reason
	}{
		"strict to cached":              {strict, func(s *record.Settings) { s.Custody = vocab.CustodyCached }, vocab.ReasonApprovalRequired},
		"cached to strict":              {nil, strict, ""},
		"a cache time as usual":         {func(s *record.Settings) { s.CacheTTL = time.Minute }, func(s *record.Settings) { s.CacheTTL = record.DefaultCacheTTL }, ""},
		"a longer one":                  {nil, func(s *record.Settings) { s.CacheTTL = record.DefaultCacheTTL + time.Second }, vocab.ReasonApprovalRequired},
		"a shorter one":                 {nil, func(s *record.Settings) { s.CacheTTL = time.Minute }, ""},
		"any outage grace":              {nil, func(s *record.Settings) { s.OutageGrace = time.Second }, vocab.ReasonApprovalRequired},
		"use licenses kept as usual":    {func(s *record.Settings) { s.MaxOffline = 0 }, func(s *record.Settings) { s.MaxOffline = 30 * policy.Day }, ""},
		"use licenses kept longer":      {nil, func(s *record.Settings) { s.MaxOffline = 31 * policy.Day }, vocab.ReasonApprovalRequired},
		"longer, and something else":    {nil, func(s *record.Settings) { s.CacheTTL = time.Hour; s.AllowX25519 = true }, vocab.ReasonRequestInvalid},
		"longer, and otherwise shorter": {nil, func(s *record.Settings) { s.CacheTTL = time.Hour; s.MaxOffline = 0 }, vocab.ReasonApprovalRequired},
		"something else":                {nil, func(s *record.Settings) { s.IssuerOpensRevoked = false }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inDualControl(t, 2, three, func(t *testing.T, o *house) {
				if c.before != nil {
					_, _, err := o.UpdateSettings(t.Context(), person("alice"), 0, true, func(s *record.Settings) error { c.before(s); return nil })
					o.check(err)
				}
				was := o.Settings()
				_, _, err := o.UpdateSettings(t.Context(), person("alice"), 0, true, func(s *record.Settings) error { c.edit(s); return nil })
				if vocab.ReasonOf(err) != c.want {
					t.Fatalf("%v, want %q", err, c.want)
				}
				if c.want != vocab.ReasonApprovalRequired {
					return
				}
				if diff := cmp.Diff(was, o.Settings()); diff != "" {
					t.Errorf("it is in force before anybody approved:\n%s", diff)
				}
				v := o.waits(err)
				for _, by := range []string{"dora", "emil"} {
					v, err = o.signs(by, v)
					o.check(err)
				}
				want := was
				c.edit(&want)
				want.Revision++
				want.LastEvent = o.Settings().LastEvent
				if diff := cmp.Diff(want, o.Settings(), cmpopts.EquateEmpty()); diff != "" {
					t.Error(diff)
				}
				o.checkStore()
			})
		})
	}
}

// A template's floor is lowered by the quorum, and by an edit that does nothing
// else.
func TestLoweringAFloor(t *testing.T) {
	inDualControl(t, 2, three, func(t *testing.T, o *house) {
		o.mustWrite(person("alice"), "plans", o.template("plans", vocab.CustodyStrict, user("bob")))
		o.publish("bob", "plans")
		write := func(next *policy.Template) error {
			_, _, err := o.WriteTemplate(t.Context(), person("alice"), "plans", next, 0, true, false)
			return err
		}
		if err := write(o.template("plans", vocab.CustodyCached, user("bob"), user("alice"))); !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("with another grant: %v", err)
		}
		v := o.waits(write(o.template("plans", vocab.CustodyCached, user("bob"))))
		if _, err := o.approve(person("grace"), v); !errors.Is(err, vocab.ReasonRoleRequired) && !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("another policy-admin's word: %v", err)
		}
		for _, by := range []string{"dora", "emil"} {
			var err error
			v, err = o.signs(by, v)
			o.check(err)
		}
		tmpl, err := o.GetTemplate(t.Context(), "plans", 0)
		o.check(err)
		if v.State != operation.Succeeded || tmpl.Custody != vocab.CustodyCached || tmpl.Revision != 2 {
			t.Errorf("it is %s; revision %d is %s", v.State, tmpl.Revision, tmpl.Custody)
		}
		// From cached to what the tenant demands is no lowering, nor is raising.
		o.check(write(o.template("plans", 0, user("bob"))))
		o.check(write(o.template("plans", vocab.CustodyStrict, user("bob"))))
		o.checkStore()
	})
}

// Nor can they name approvers, or take them out.
func TestTheStoreNamesNoApprovers(t *testing.T) {
	for name, change := range map[string]func(tx store.Tx, tenantID vocab.TenantID, s *record.Resource) error{
		"others": func(tx store.Tx, tenantID vocab.TenantID, s *record.Resource) (err error) {
			if s.Body, err = quorumOf(2, "mallory", "carla").Encode(); err == nil {
				_, err = record.PutResource(tx, tenantID, s)
			}
			return err
		},
		"none": func(tx store.Tx, tenantID vocab.TenantID, s *record.Resource) error {
			s.Body, s.Gone = nil, 1
			_, err := record.PutResource(tx, tenantID, s)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inDualControl(t, 2, three, func(t *testing.T, o *house) {
				tenantID := o.ID()
				o.check(o.Close())
				o.check(o.store.Commit(t.Context(), func(tx store.Tx) error {
					s, err := record.GetResource(tx, tenantID, record.NameApprovers)
					if err != nil {
						return err
					}
					return change(tx, tenantID, s)
				}))
				o.check(o.store.Close())
				defer func() { o.Tenant = nil }()
				if err := o.reopen(); !errors.Is(err, vocab.ReasonStoreDamaged) {
					t.Errorf("the tenant serves them: %v", err)
				}
			})
		})
	}
}

// Whoever can write the store cannot make a quorum, nor take it away.
func TestTheStoreMakesNoQuorum(t *testing.T) {
	for name, change := range map[string]func(*operation.Operation){
		"set running":          func(op *operation.Operation) { op.State = operation.Running },
		"without its quorum":   func(op *operation.Operation) { op.Quorum, op.Needed = nil, 1 },
		"with another basis":   func(op *operation.Operation) { op.Basis.Text = []string{"something else"} },
		"with other bytes":     func(op *operation.Operation) { op.Quorum.Signed[9] ^= 1 },
		"needing fewer people": func(op *operation.Operation) { op.Quorum.Set, _ = quorumOf(2, "carla", "mallory").Encode() },
	} {
		t.Run(name, func(t *testing.T) {
			inDualControl(t, 2, three, func(t *testing.T, o *house) {
				v := o.lower(person("alice"), time.Hour)
				o.tamper(v.ID, change)
				defer func() { o.Tenant = nil }()
				if err := o.reopen(); !errors.Is(err, vocab.ReasonStoreDamaged) {
					t.Errorf("the tenant serves it: %v", err)
				}
			})
		})
	}
}
