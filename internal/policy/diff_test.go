package policy_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/model"
	"github.com/openrms/rms/internal/vocab"
)

func TestDiff(t *testing.T) {
	before := finance()
	before.Grants = []policy.Grant{
		{To: who("group:finance@contoso.com"), Rights: policy.CoOwner.Rights()},
		{To: who("user:bob@contoso.com"), Rights: policy.Viewer.Rights()},
		{To: who("anyone"), Rights: policy.Viewer.Rights()},
	}
	after := finance()
	after.Grants = []policy.Grant{
		{To: who("anyone"), Rights: policy.Viewer.Rights()}, // only moved
		{To: who("group:finance@contoso.com"), Rights: policy.CoAuthor.Rights()},
		{To: who("group:interns@contoso.com"), Rights: policy.Viewer.Rights(), Until: t0.Add(time.Hour)},
		{To: who("user:bob@contoso.com"), Rights: policy.Viewer.Rights(), Login: policy.LoginMFA},
	}
	after.Offline, after.Names = 0, map[string]string{"en": "Finance", "de": "Finanzen"}
	changes, fields := policy.Diff(before, after, t0)
	want := []policy.Change{
		{To: who("user:bob@contoso.com"), Before: before.Grants[1:2], After: after.Grants[3:], Less: true},
		{To: who("group:finance@contoso.com"), Before: before.Grants[:1], After: after.Grants[1:2], Less: true,
			// OWNER was all rights; COMMENT is in no level but through it.
			Loses: vocab.RightsOf(vocab.RightOwner, vocab.RightExport, vocab.RightEditRightsData, vocab.RightComment)},
		{To: who("group:interns@contoso.com"), After: after.Grants[2:3], Gains: policy.Viewer.Rights(), More: true},
	}
	if d := cmp.Diff(want, changes, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"names", "offline"}, fields); d != "" {
		t.Error(d)
	}
}

func TestDiffOfEachField(t *testing.T) {
	before := finance()
	before.Grants = append(before.Grants, policy.Grant{To: who("anyone"), Rights: policy.Viewer.Rights()})
	for key, change := range map[string]func(*policy.Template){
		"id":           func(t *policy.Template) { t.Slug = "other" },
		"descriptions": func(t *policy.Template) { t.Descriptions = map[string]string{"en": "x"} },
		"state":        func(t *policy.Template) { t.State = policy.StateArchived },
		"expires":      func(t *policy.Template) { t.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate, At: t0.Add(time.Hour)} },
		"select":       func(t *policy.Template) { t.Select = nil },
		"contact":      func(t *policy.Template) { t.Contact = "a@contoso.com" },
		"grants": func(t *policy.Template) {
			t.Grants = []policy.Grant{{To: who("anyone"), Rights: policy.Viewer.Rights()}, t.Grants[0]}
		},
		"custody": func(t *policy.Template) { t.Custody = 0 },
	} {
		after := finance()
		after.Grants = before.Grants
		change(after)
		changes, fields := policy.Diff(before, after, t0)
		if len(changes) != 0 || !cmp.Equal(fields, []string{key}) {
			t.Errorf("%s: %v %v", key, changes, fields)
		}
	}
	if changes, fields := policy.Diff(finance(), finance(), t0); changes != nil || fields != nil {
		t.Errorf("%v %v", changes, fields)
	}
}

// What one principal may more and less, ruled by hand.
func TestDiffOfOnePrincipal(t *testing.T) {
	bob := who("user:bob@contoso.com")
	viewer := policy.Grant{To: bob, Rights: policy.Viewer.Rights()}
	with := func(g policy.Grant, change func(*policy.Grant)) policy.Grant { change(&g); return g }
	until := func(d time.Duration) func(*policy.Grant) {
		return func(g *policy.Grant) { g.Until = t0.Add(d) }
	}
	from := func(networks ...string) func(*policy.Grant) {
		return func(g *policy.Grant) {
			g.Networks = nil
			for _, n := range networks {
				g.Networks = append(g.Networks, netip.MustParsePrefix(n))
			}
		}
	}
	mfa := func(g *policy.Grant) { g.Login = policy.LoginMFA }
	printer := func(g *policy.Grant) { g.Rights = vocab.RightsOf(vocab.RightPrint) }
	owner := func(g *policy.Grant) { g.Rights = vocab.RightsOf(vocab.RightOwner) }
	for _, c := range []struct {
		name          string
		before, after []policy.Grant
		gains, loses  vocab.Rights
		more, less    bool
		same          bool
	}{
		{name: "networks in another order", same: true,
			before: []policy.Grant{with(viewer, from("10.0.0.0/8", "192.168.0.0/16"))}, after: []policy.Grant{with(viewer, from("192.168.0.0/16", "10.0.0.0/8"))}},
		{name: "a later end", more: true, before: []policy.Grant{with(viewer, until(time.Hour))}, after: []policy.Grant{with(viewer, until(2*time.Hour))}},
		{name: "an earlier end", less: true, before: []policy.Grant{viewer}, after: []policy.Grant{with(viewer, until(time.Hour))}},
		{name: "a grant that ended is revived", gains: viewer.Rights, more: true, before: []policy.Grant{with(viewer, until(0))}, after: []policy.Grant{viewer}},
		{name: "a grant that ended is removed", before: []policy.Grant{with(viewer, until(-time.Hour))}},
		{name: "a grant that has ended is added", after: []policy.Grant{with(viewer, until(0))}},
		{name: "a second factor", less: true, before: []policy.Grant{viewer}, after: []policy.Grant{with(viewer, mfa)}},
		{name: "a smaller network", less: true, before: []policy.Grant{with(viewer, from("10.0.0.0/8"))}, after: []policy.Grant{with(viewer, from("10.20.0.0/16"))}},
		{name: "a larger network", more: true, before: []policy.Grant{with(viewer, from("10.20.0.0/16"))}, after: []policy.Grant{with(viewer, from("10.0.0.0/8"))}},
		{name: "another network", more: true, less: true, before: []policy.Grant{with(viewer, from("10.20.0.0/16"))}, after: []policy.Grant{with(viewer, from("10.21.0.0/16"))}},
		{name: "anywhere", more: true, before: []policy.Grant{with(viewer, from("0.0.0.0/0"))}, after: []policy.Grant{viewer}},
		{name: "a later end, but a second factor", more: true, less: true,
			before: []policy.Grant{with(viewer, until(time.Hour))}, after: []policy.Grant{with(viewer, mfa)}},
		{name: "what another grant covers goes", before: []policy.Grant{viewer, with(viewer, mfa)}, after: []policy.Grant{viewer}},
		{name: "what another grant covers comes", before: []policy.Grant{viewer}, after: []policy.Grant{viewer, with(viewer, until(time.Hour))}},
		{name: "twice the same", before: []policy.Grant{viewer}, after: []policy.Grant{viewer, viewer}},
		{name: "one right more", gains: vocab.RightsOf(vocab.RightPrint), more: true,
			before: []policy.Grant{viewer}, after: []policy.Grant{viewer, with(viewer, printer)}},
		{name: "owner", gains: vocab.AllRights &^ viewer.Rights, more: true, before: []policy.Grant{viewer}, after: []policy.Grant{with(viewer, owner)}},
		{name: "no longer owner", loses: vocab.AllRights &^ viewer.Rights, less: true, before: []policy.Grant{with(viewer, owner)}, after: []policy.Grant{viewer}},
	} {
		t.Run(c.name, func(t *testing.T) {
			changes, _ := policy.Diff(&policy.Template{Grants: c.before}, &policy.Template{Grants: c.after}, t0)
			if c.same {
				if changes != nil {
					t.Errorf("changes %+v", changes)
				}
				return
			}
			want := []policy.Change{{To: bob, Before: c.before, After: c.after, Gains: c.gains, Loses: c.loses, More: c.more, Less: c.less}}
			if d := cmp.Diff(want, changes, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whoever may more after an edit, at some time, from somewhere, is said to, and
// so is whoever may less. The decisions are the model's.
func TestPropertyDiffHidesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	d := draw(r.IntN)
	for range 20_000 {
		w := d.world()
		w.adHoc, w.expires, w.settings.GuestDomains = false, time.Time{}, []string{"fabrikam.com"}
		to := d.principal()
		some := func() (grants []policy.Grant) {
			for range d(4) {
				g := d.grant()
				g.To, g.Rights = to, g.Rights|vocab.RightsOf(vocab.RightView)
				grants = append(grants, g)
			}
			return grants
		}
		before, after := some(), some()
		changes, _ := policy.Diff(&policy.Template{Grants: before}, &policy.Template{Grants: after}, t0)
		var said policy.Change
		if len(changes) > 0 {
			said = changes[0]
		}
		for range 20 {
			w.caller, w.right = d.identity(), pick(d, rights)
			w.caller.Actor = nil
			w.now = t0.Add(pick(d, []time.Duration{0, time.Minute, time.Hour, 24 * time.Hour, 900 * policy.Day}))
			w.grants = before
			had := model.Decide(w.question()).Reason == ""
			w.grants = after
			has := model.Decide(w.question()).Reason == ""
			if has && !had && !said.More || had && !has && !said.Less {
				t.Fatalf("may %s before: %v, after: %v, and the difference is %+v\n%+v", w.right, had, has, said, *w)
			}
		}
	}
}
