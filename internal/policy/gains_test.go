package policy_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func principal(t *testing.T, s string) vocab.Principal {
	t.Helper()
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What an author gains by an edit, ruled by hand.
func TestGains(t *testing.T) {
	alice := &vocab.Identity{
		Issuer: "https://idp", Subject: "1", Addresses: []string{"alice@contoso.com", "a@contoso.de"}, Member: "contoso",
		Groups: []string{"finance@contoso.com"},
	}
	grant := func(to string, rights vocab.Rights, more ...func(*policy.Grant)) policy.Grant {
		g := policy.Grant{To: principal(t, to), Rights: rights}
		for _, set := range more {
			set(&g)
		}
		return g
	}
	until := func(d time.Duration) func(*policy.Grant) { return func(g *policy.Grant) { g.Until = t0.Add(d) } }
	mfa := func(g *policy.Grant) { g.Login = policy.LoginMFA }
	from := func(networks ...string) func(*policy.Grant) {
		return func(g *policy.Grant) {
			for _, n := range networks {
				g.Networks = append(g.Networks, netip.MustParsePrefix(n))
			}
		}
	}
	view, viewPrint := vocab.RightsOf(vocab.RightView), vocab.RightsOf(vocab.RightView, vocab.RightPrint)
	type grants []policy.Grant
	for _, c := range []struct {
		name          string
		before, after grants
		incomplete    bool
		want          bool
	}{
		{"somebody else", nil, grants{grant("user:bob@contoso.com", view)}, false, false},
		{"she herself", nil, grants{grant("user:alice@contoso.com", view)}, false, true},
		{"her other address", nil, grants{grant("user:a@contoso.de", view)}, false, true},
		{"her group", nil, grants{grant("group:finance@contoso.com", view)}, false, true},
		{"a group she is not in", nil, grants{grant("group:board@contoso.com", view)}, false, false},
		{"a group she may be in", nil, grants{grant("group:board@contoso.com", view)}, true, true},
		{"a group she may be in, as before", grants{grant("group:board@contoso.com", view)}, grants{grant("group:board@contoso.com", view)}, true, false},
		{"her domain", nil, grants{grant("domain:contoso.de", view)}, false, true},
		{"the tenant", nil, grants{grant("tenant:contoso", view)}, false, true},
		{"anyone", nil, grants{grant("anyone", view)}, false, true},
		{"nothing new", grants{grant("anyone", view)}, grants{grant("anyone", view)}, false, false},
		{"the same by another grant", grants{grant("anyone", view)}, grants{grant("user:alice@contoso.com", view)}, false, false},
		{"one right more", grants{grant("anyone", view)}, grants{grant("anyone", viewPrint)}, false, true},
		{"a right less", grants{grant("anyone", viewPrint)}, grants{grant("anyone", view)}, false, false},
		{"what OWNER gave already", grants{grant("anyone", vocab.RightsOf(vocab.RightOwner))}, grants{grant("anyone", viewPrint)}, false, false},
		{"OWNER", grants{grant("anyone", viewPrint)}, grants{grant("anyone", vocab.RightsOf(vocab.RightOwner))}, false, true},
		{"in two grants what was in one", grants{grant("anyone", viewPrint)}, grants{grant("anyone", view), grant("tenant:contoso", viewPrint)}, false, false},
		{"in one what was in two", grants{grant("anyone", view), grant("tenant:contoso", vocab.RightsOf(vocab.RightPrint))}, grants{grant("anyone", viewPrint)}, false, false},
		{"a later end", grants{grant("anyone", view, until(time.Hour))}, grants{grant("anyone", view, until(2*time.Hour))}, false, true},
		{"no end any more", grants{grant("anyone", view, until(time.Hour))}, grants{grant("anyone", view)}, false, true},
		{"an earlier end", grants{grant("anyone", view, until(2*time.Hour))}, grants{grant("anyone", view, until(time.Hour))}, false, false},
		{"an end for the first time", grants{grant("anyone", view)}, grants{grant("anyone", view, until(time.Hour))}, false, false},
		{"one that has ended", nil, grants{grant("anyone", view, until(0))}, false, false},
		{"one that had ended, anew", grants{grant("anyone", view, until(-time.Hour))}, grants{grant("anyone", view, until(time.Hour))}, false, true},
		{"without the second factor", grants{grant("anyone", view, mfa)}, grants{grant("anyone", view)}, false, true},
		{"with a second factor", grants{grant("anyone", view)}, grants{grant("anyone", view, mfa)}, false, false},
		{"with a second factor as before", grants{grant("anyone", view, mfa)}, grants{grant("anyone", view, mfa)}, false, false},
		{"from everywhere", grants{grant("anyone", view, from("10.0.0.0/8"))}, grants{grant("anyone", view)}, false, true},
		{"from a larger network", grants{grant("anyone", view, from("10.20.0.0/16"))}, grants{grant("anyone", view, from("10.0.0.0/8"))}, false, true},
		{"from a smaller network", grants{grant("anyone", view, from("10.0.0.0/8"))}, grants{grant("anyone", view, from("10.20.0.0/16"))}, false, false},
		{"from one network more", grants{grant("anyone", view, from("10.0.0.0/8"))}, grants{grant("anyone", view, from("10.0.0.0/8", "2001:db8::/32"))}, false, true},
		{"from two networks, one in each grant", grants{grant("anyone", view, from("10.0.0.0/8")), grant("anyone", view, from("2001:db8::/32"))},
			grants{grant("anyone", view, from("10.0.0.0/8", "2001:db8::/32"))}, false, false},
		{"longer with the factor, weaker for less long", grants{grant("anyone", view, mfa), grant("anyone", view, until(time.Hour))},
			grants{grant("anyone", view, until(2*time.Hour))}, false, true},
	} {
		author := *alice
		author.GroupsIncomplete = c.incomplete
		if got := policy.Gains(&author, nil, c.before, c.after, t0); got != c.want {
			t.Errorf("%s: gains %v, want %v", c.name, got, c.want)
		}
	}
	guest := &vocab.Identity{Issuer: "i", Subject: "s", Addresses: []string{"eve@fabrikam.com"}}
	if policy.Gains(guest, nil, nil, grants{grant("anyone", view)}, t0) || !policy.Gains(guest, []string{"fabrikam.com"}, nil, grants{grant("anyone", view)}, t0) {
		t.Error("a guest gains exactly where guests are admitted")
	}
}

func TestGainsByLicense(t *testing.T) {
	alice := &vocab.Identity{Issuer: "https://idp", Subject: "1", Addresses: []string{"alice@contoso.com"}, Member: "contoso"}
	bob, hers := principal(t, "user:bob@contoso.com"), principal(t, "user:alice@contoso.com")
	adHoc := func(to ...vocab.Principal) *policy.AdHoc {
		a := &policy.AdHoc{Kind: policy.AdHocGrants}
		for _, p := range to {
			a.Grants = append(a.Grants, policy.Grant{To: p, Rights: vocab.RightsOf(vocab.RightView)})
		}
		return a
	}
	base := policy.Policy{Owner: bob, Issuer: policy.Issuer{Issuer: "https://idp", Subject: "2", Address: "bob@contoso.com"}, AdHoc: adHoc(bob), NotAfter: t0.Add(time.Hour)}
	with := func(edit func(*policy.Policy)) *policy.Policy { p := base; edit(&p); return &p }
	for _, c := range []struct {
		name          string
		before, after *policy.Policy
		want          bool
	}{
		{"a grant to herself", &base, with(func(p *policy.Policy) { p.AdHoc = adHoc(bob, hers) }), true},
		{"a grant to another", &base, with(func(p *policy.Policy) { p.AdHoc = adHoc(bob, principal(t, "user:eve@x.org")) }), false},
		{"herself as owner", &base, with(func(p *policy.Policy) { p.Owner = hers }), true},
		{"another as owner", &base, with(func(p *policy.Policy) { p.Owner = principal(t, "user:carla@contoso.com") }), false},
		{"longer, for others", &base, with(func(p *policy.Policy) { p.NotAfter = t0.Add(2 * time.Hour) }), false},
		{"longer, for herself too", with(func(p *policy.Policy) { p.AdHoc = adHoc(hers) }), with(func(p *policy.Policy) { p.AdHoc = adHoc(hers); p.NotAfter = time.Time{} }), true},
		{"shorter, for herself too", with(func(p *policy.Policy) { p.AdHoc = adHoc(hers) }), with(func(p *policy.Policy) { p.AdHoc = adHoc(hers); p.NotAfter = t0.Add(time.Minute) }), false},
		{"as its owner", with(func(p *policy.Policy) { p.Owner = hers }), with(func(p *policy.Policy) { p.Owner = hers; p.AdHoc = adHoc(hers); p.NotAfter = time.Time{} }), false},
		{"as its issuer", with(func(p *policy.Policy) { p.Issuer.Subject = "1" }), with(func(p *policy.Policy) { p.Issuer.Subject = "1"; p.Owner = hers }), false},
		{"the owner of one that follows a template", with(func(p *policy.Policy) { p.AdHoc, p.Template = nil, vocab.TemplateUID{1} }),
			with(func(p *policy.Policy) { p.AdHoc, p.Template, p.Owner = nil, vocab.TemplateUID{1}, hers }), true},
	} {
		if got := policy.GainsByLicense(alice, nil, c.before, c.after, t0); got != c.want {
			t.Errorf("%s: gains %v, want %v", c.name, got, c.want)
		}
	}
}

// Where Gains says no, no question that could be asked of the author is answered
// better after the edit than before: with or without a second factor, from any
// network, now or later.
func TestWithoutGainsNothingOpensThatDidNot(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	d := draw(r.IntN)
	said := map[bool]int{}
	for range 30_000 {
		author := d.identity()
		author.Actor = nil
		settings := policy.DefaultSettings()
		if d(2) == 0 {
			settings.GuestDomains = []string{"fabrikam.com"}
		}
		var before, after []policy.Grant
		for range d(4) {
			before = append(before, d.grant())
		}
		after = append(after, before...)
		for range 1 + d(2) { // an edit: one grant more, another, or one less
			switch i := d(len(after) + 1); {
			case i == len(after):
				after = append(after, d.grant())
			case d(2) == 0:
				after[i] = d.grant()
			default:
				after = append(after[:i:i], after[i+1:]...)
			}
		}
		gains := policy.Gains(&author, settings.GuestDomains, before, after, t0)
		said[gains]++
		if gains {
			continue
		}
		for range 20 {
			asks := author
			asks.MFA, asks.Peer = d(2) == 0, pick(d, peers)
			if author.GroupsIncomplete {
				// What was held back may be sent another time.
				asks.Groups = append(slices.Clip(asks.Groups), pick(d, groups))
			}
			in := policy.Input{
				Policy: &policy.Policy{
					Owner: vocab.Principal{Kind: vocab.KindUser, Value: "alice@contoso.com"}, Issuer: policy.Issuer{Issuer: "x", Subject: "y"},
					AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax},
				},
				Caller: &asks, Right: pick(d, rights), Now: t0.Add(max(0, pick(d, ends))), Settings: settings, Custody: vocab.CustodyCached,
			}
			answer := func(grants []policy.Grant) policy.Decision {
				in.Policy.AdHoc.Grants = grants
				return policy.Evaluate(in)
			}
			was, is := answer(before), answer(after)
			if is.Allowed && !was.Allowed || is.Rights&^was.Rights != 0 {
				t.Fatalf("%+v\nhad %+v\nhas %+v\n%s at %s: %v before, %v after", asks, before, after, in.Right, in.Now, was.Rights, is.Rights)
			}
		}
	}
	if said[true] < 3000 || said[false] < 3000 {
		t.Errorf("the edits say nothing: %v", said)
	}
}
