package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/model"
	"github.com/openrms/rms/internal/vocab"
)

// world is a state of policy and caller that a sequence changes step by step,
// in a form that both evaluator and model are asked from.
type world struct {
	adHoc    bool
	template policy.State // 0: gone
	grants   []policy.Grant
	offline  time.Duration
	custody  [3]vocab.CustodyMode // license, template, tenant
	expires  time.Time
	owner    vocab.Principal
	issuer   policy.Issuer
	revoked  []policy.RevocationScope
	perhaps  bool // revoked for a group nobody knows of
	caller   vocab.Identity
	disabled bool
	recovery bool
	right    vocab.Right
	now      time.Time
	settings policy.Settings
}

// The universe is small so that things meet.
var (
	t0        = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	addresses = []string{"bob@contoso.com", "carol@contoso.com", "eve@fabrikam.com", "mallory@evil.example"}
	groups    = []string{"finance@contoso.com", "board@contoso.com"}
	domains   = []string{"contoso.com", "fabrikam.com", "evil.example", "example"}
	networks  = []string{"10.20.0.0/16", "2001:db8:20::/48"}
	peers     = []string{"10.20.1.1", "::ffff:10.20.1.1", "198.51.100.7", "2001:db8:20::9", ""}
	ends      = []time.Duration{0, 1, -time.Hour, time.Minute, time.Hour, 48 * time.Hour, 400 * policy.Day} // 1 is never
	offlines  = []time.Duration{policy.OfflineMax, 0, time.Hour, 7 * policy.Day, 90 * policy.Day}
	scopes    = []policy.RevocationScope{policy.RevokedDocument, policy.RevokedDocument, policy.RevokedLineage, policy.RevokedPrincipal,
		policy.RevokedOwner | policy.RevokedPeriod}
	rightSets = []vocab.Rights{
		policy.Viewer.Rights(), policy.Reviewer.Rights(), policy.CoOwner.Rights(),
		vocab.RightsOf(vocab.RightView), vocab.RightsOf(vocab.RightPrint), vocab.RightsOf(vocab.RightOwner),
		vocab.RightsOf(vocab.RightExport, vocab.RightView),
	}
	rights = []vocab.Right{vocab.RightView, vocab.RightView, vocab.RightPrint, vocab.RightExport, vocab.RightEdit, vocab.RightComment}
)

// draw picks a number below n: from a random source, rapid, or a fuzzer.
type draw func(n int) int

func pick[T any](d draw, from []T) T { return from[d(len(from))] }

func (d draw) until() time.Time {
	if e := pick(d, ends); e != 1 {
		return t0.Add(e)
	}
	return time.Time{}
}

func (d draw) principal() vocab.Principal {
	switch d(6) {
	case 0:
		return vocab.Principal{Kind: vocab.KindUser, Value: pick(d, addresses)}
	case 1:
		return vocab.Principal{Kind: vocab.KindGroup, Value: pick(d, groups)}
	case 2:
		return vocab.Principal{Kind: vocab.KindDomain, Value: pick(d, domains)}
	case 3:
		return vocab.Principal{Kind: vocab.KindTenant, Value: "contoso"}
	case 4:
		return vocab.Principal{Kind: vocab.KindAnyone}
	}
	return vocab.Principal{Kind: vocab.KindService, Value: "dlp"}
}

func (d draw) grant() policy.Grant {
	g := policy.Grant{To: d.principal(), Rights: pick(d, rightSets)}
	if d(2) == 0 {
		g.Until = d.until()
	}
	if d(4) == 0 {
		g.Login = policy.LoginMFA
	}
	if d(4) == 0 {
		g.Networks = []netip.Prefix{netip.MustParsePrefix(pick(d, networks))}
	}
	return g
}

func (d draw) identity() vocab.Identity {
	id := vocab.Identity{Issuer: pick(d, []string{"https://idp.contoso", "https://idp.fabrikam"}),
		Subject: pick(d, []string{"1", "2"}), MFA: d(2) == 0, Peer: pick(d, peers), GroupsIncomplete: d(5) == 0}
	if d(4) == 0 {
		id.Service = "dlp"
	}
	if d(3) != 0 {
		id.Member = "contoso"
	}
	for range d(3) {
		id.Addresses = append(id.Addresses, pick(d, addresses))
	}
	if d(8) == 0 {
		id.Actor = &vocab.Identity{Service: pick(d, []string{"dms", ""})}
	}
	if d(2) == 0 {
		id.Groups = append(id.Groups, pick(d, groups))
	}
	return id
}

func (d draw) world() *world {
	w := &world{
		adHoc: d(3) == 0, template: policy.StatePublished, offline: pick(d, offlines),
		custody: [3]vocab.CustodyMode{vocab.CustodyCached, 0, vocab.CustodyCached},
		owner:   vocab.Principal{Kind: vocab.KindUser, Value: "alice@contoso.com"},
		issuer:  policy.Issuer{Issuer: "https://idp.contoso", Subject: "3"},
		caller:  d.identity(), right: pick(d, rights), now: t0, settings: policy.DefaultSettings(),
	}
	for range 1 + d(4) {
		w.grants = append(w.grants, d.grant())
	}
	return w
}

// step changes one thing.
func (w *world) step(d draw) {
	switch d(19) {
	case 0, 1:
		w.grants = append(slices.Clone(w.grants), d.grant())
	case 2:
		if len(w.grants) > 0 {
			w.grants = slices.Delete(slices.Clone(w.grants), 0, 1)
		}
	case 3:
		w.template = policy.State(d(4))
	case 4:
		w.offline = pick(d, offlines)
	case 5:
		w.custody[d(3)] = vocab.CustodyStrict
	case 6, 7:
		w.expires = d.until()
	case 8:
		w.owner = d.principal()
	case 9:
		w.issuer = policy.Issuer{Issuer: pick(d, []string{"https://idp.contoso", "https://idp.fabrikam"}), Subject: pick(d, []string{"1", "2"})}
		if d(3) != 0 { // a person
			w.issuer.Address = pick(d, addresses)
		}
	case 10:
		w.revoked = append(slices.Clone(w.revoked), pick(d, scopes))
	case 11:
		w.caller = d.identity()
	case 12:
		w.disabled = d(2) == 0
	case 13:
		w.right = pick(d, rights)
	case 14:
		w.now = t0.Add(pick(d, []time.Duration{0, time.Minute, time.Hour, time.Hour + 1, 24 * time.Hour}))
	case 15:
		w.settings.GuestDomains = append(slices.Clone(w.settings.GuestDomains), pick(d, domains))
		w.settings.GuestMaxOffline = pick(d, offlines)
	case 16:
		w.settings.IssuerOpensRevoked = d(2) == 0
		w.settings.MaxOffline = pick(d, offlines[1:])
	case 17:
		w.recovery = !w.recovery
	case 18:
		w.perhaps = !w.perhaps
	}
}

var someTemplate = vocab.TemplateUID{15: 1}

// input asks the evaluator.
func (w *world) input() policy.Input {
	in := policy.Input{
		Policy: &policy.Policy{Owner: w.owner, Issuer: w.issuer, NotAfter: w.expires},
		Caller: &w.caller, Right: w.right, Now: w.now, Settings: w.settings, Disabled: w.disabled, Custody: w.custody[0], Recovery: w.recovery,
	}
	in.Settings.Custody = w.custody[2]
	for _, s := range w.revoked {
		in.Revocations = append(in.Revocations, policy.Revocation{Scope: s})
	}
	if w.perhaps {
		in.Revocations = append(in.Revocations, policy.Revocation{Scope: policy.RevokedPrincipal, GroupsUnknown: true})
	}
	if w.adHoc {
		in.Policy.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: w.grants, Offline: w.offline}
		return in
	}
	in.Policy.Template = someTemplate
	if w.template != 0 {
		t, err := policy.CompileTemplate(&policy.Template{UID: someTemplate, State: w.template, Grants: w.grants,
			Offline: w.offline, Custody: w.custody[1]})
		if err != nil {
			panic(err)
		}
		in.Template = t
	}
	return in
}

func ms(t time.Time) int64 {
	if t.IsZero() {
		return model.Never
	}
	return t.UnixMilli()
}

// question asks the model.
func (w *world) question() model.Question {
	q := model.Question{
		AdHoc: w.adHoc, Offline: w.offline.Milliseconds(), Expires: ms(w.expires), Owner: w.owner,
		Strict: w.custody[0] == vocab.CustodyStrict || w.custody[2] == vocab.CustodyStrict ||
			!w.adHoc && (w.custody[1] == vocab.CustodyStrict || w.template == 0),
		IssuedBy: [2]string{w.issuer.Issuer, w.issuer.Subject}, IssuedByService: w.issuer.Address == "", Disabled: w.disabled, Recovery: w.recovery, Right: w.right, Now: ms(w.now),
		RevokedPerhaps: w.perhaps,
		MaxOffline:     w.settings.MaxOffline.Milliseconds(), GuestOffline: w.settings.GuestMaxOffline.Milliseconds(),
		GuestDomains: w.settings.GuestDomains, IssuerOpensRevoked: w.settings.IssuerOpensRevoked,
		Caller: model.Person{Issuer: w.caller.Issuer, Subject: w.caller.Subject, Addresses: w.caller.Addresses, Groups: w.caller.Groups,
			MoreGroups: w.caller.GroupsIncomplete, Member: w.caller.Member, Service: w.caller.Service, MFA: w.caller.MFA, Peer: w.caller.Peer},
	}
	if a := w.caller.Actor; a != nil {
		q.Caller.Through = "person"
		if a.Service != "" {
			q.Caller.Through = "service"
		}
	}
	if w.offline < 0 {
		q.Offline = -1
	}
	if w.settings.GuestMaxOffline < 0 {
		q.GuestOffline = -1
	}
	q.Template = [...]string{"gone", "published", "archived", "deleted"}[w.template]
	for _, s := range w.revoked {
		if s == policy.RevokedDocument {
			q.RevokedAlone = true
		} else {
			q.RevokedOtherwise = true
		}
	}
	for _, g := range w.grants {
		m := model.Grant{To: g.To, Rights: g.Rights.List(), Until: ms(g.Until), MFA: g.Login == policy.LoginMFA}
		for _, n := range g.Networks {
			m.Networks = append(m.Networks, n.String())
		}
		q.Grants = append(q.Grants, m)
	}
	return q
}

// differs compares the two answers and checks what must hold of any; "" is
// agreement.
func (w *world) differs() string {
	in := w.input()
	got, want := policy.Evaluate(in), model.Decide(w.question())
	describe := func(what string) string {
		return fmt.Sprintf("%s\n policy: allowed %v %s rights [%s] until %v cache %d\n model:  %s rights %v until %v kept %v\n world:  %+v",
			what, got.Allowed, got.Reason, got.Rights, got.NotAfter, got.Cache, want.Reason, want.Rights, time.UnixMilli(want.Ends).UTC(), want.Kept, *w)
	}
	switch {
	case got.Allowed != (want.Reason == "") || got.Reason != want.Reason:
		return describe("another answer")
	case (got.Err() == nil) != got.Allowed:
		return describe("the error does not say what the decision says")
	case !got.Allowed && (got.Rights != 0 || !got.NotAfter.IsZero() || got.Cache != 0):
		return describe("a refusal carries rights")
	case !got.Allowed:
		return ""
	case !slices.Equal(got.Rights.List(), want.Rights):
		return describe("other rights")
	case got.NotAfter.UnixMilli() != want.Ends:
		return describe("another end")
	case (got.Cache == policy.CacheStored) != want.Kept:
		return describe("kept otherwise")
	case !got.Rights.Contains(vocab.RightView) || !got.Rights.Contains(in.Right):
		return describe("allowed without the right")
	case !got.NotAfter.After(got.Time):
		return describe("ends before it begins")
	}
	return ""
}
