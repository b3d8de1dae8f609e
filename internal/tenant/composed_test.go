package tenant

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/model"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// composed is a tenant in two forms: as decisions read it, in t and document,
// and as plain lists, from which the model answers.
type composed struct {
	rand *rand.Rand
	t    *Tenant
	made int

	groups   map[string][]vocab.Principal
	rules    map[vocab.EventID]policy.RevocationRule
	disabled map[vocab.Principal]bool

	state    policy.State
	grants   []policy.Grant
	owner    vocab.Principal
	expires  time.Time
	revoked  bool
	issued   time.Time
	caller   vocab.Identity
	right    vocab.Right
	now      time.Time
	settings record.Settings
}

// The universe is small so that things meet.
var (
	began     = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	template1 = vocab.TemplateUID{15: 1}
	users     = principalsOf("user:bob@contoso.com", "user:carol@contoso.com", "user:eve@fabrikam.com", "user:mallory@evil.example")
	allGroups = principalsOf("group:finance@contoso.com", "group:board@contoso.com", "group:project@contoso.com", "group:partners@fabrikam.com")
	others    = principalsOf("service:dlp", "domain:contoso.com", "domain:fabrikam.com", "tenant:contoso", "anyone")
)

func principalsOf(texts ...string) (out []vocab.Principal) {
	for _, s := range texts {
		p, err := vocab.ParsePrincipal(s)
		if err != nil {
			panic(err)
		}
		out = append(out, p)
	}
	return out
}

func one[T any](w *composed, from []T) T { return from[w.rand.IntN(len(from))] }

func newComposed(r *rand.Rand) *composed {
	w := &composed{
		rand: r, t: &Tenant{}, groups: map[string][]vocab.Principal{}, rules: map[vocab.EventID]policy.RevocationRule{},
		disabled: map[vocab.Principal]bool{}, state: policy.StatePublished, owner: users[0], issued: began, now: began.Add(time.Hour),
		settings: record.DefaultSettings(), right: vocab.RightView,
	}
	w.grants = []policy.Grant{w.grant()}
	w.call()
	return w
}

func (w *composed) grant() policy.Grant {
	g := policy.Grant{To: one(w, slices.Concat(users, allGroups, allGroups, others)), Rights: one(w, []policy.Level{policy.Viewer, policy.CoAuthor, policy.CoOwner}).Rights()}
	if w.rand.IntN(4) == 0 {
		g.Until = began.Add(time.Duration(w.rand.IntN(6)) * time.Hour)
	}
	return g
}

func (w *composed) call() {
	w.caller = vocab.Identity{Issuer: "https://idp", Subject: one(w, []string{"1", "2"}), GroupsIncomplete: w.rand.IntN(6) == 0}
	if w.rand.IntN(3) > 0 {
		w.caller.Member = "contoso"
	}
	for _, u := range users {
		if w.rand.IntN(3) == 0 {
			w.caller.Addresses = append(w.caller.Addresses, u.Value)
		}
	}
	for _, g := range allGroups {
		if w.rand.IntN(5) == 0 {
			w.caller.Groups = append(w.caller.Groups, g.Value)
		}
	}
	if w.rand.IntN(6) == 0 {
		w.caller.Service = "dlp"
	}
	if w.rand.IntN(8) == 0 {
		w.caller.Actor = &vocab.Identity{Issuer: "x509", Subject: "dms", Service: "dms"}
	}
}

// put writes a resource as a commit would.
func (w *composed) put(name string, body []byte, err error) {
	if err != nil {
		panic(err)
	}
	s := &record.Resource{Name: name, Body: body}
	if body == nil {
		s.Gone = 1
	}
	w.t.live.take(w.t.live.epoch+1, s)
}

// step changes one thing, in both forms.
func (w *composed) step() {
	switch w.rand.IntN(12) {
	case 0, 1:
		g := one(w, allGroups)
		var members []vocab.Principal
		for _, m := range slices.Concat(users, allGroups, others[:1]) {
			if w.rand.IntN(4) == 0 {
				members = append(members, m)
			}
		}
		slices.SortFunc(members, vocab.Principal.Compare)
		if w.circular(g, members) {
			return // what the directory refuses is not written; its own tests ask that it does
		}
		body, err := (&record.Group{Members: members}).Encode()
		w.groups[g.Value] = members
		w.put(record.PrefixGroups+g.Value, body, err)
	case 2:
		g := one(w, allGroups)
		delete(w.groups, g.Value)
		w.put(record.PrefixGroups+g.Value, nil, nil)
	case 3:
		w.made++
		id, rule := vocab.EventID{6: 0x70, 15: byte(w.made)}, w.rule()
		body, err := (&record.RevocationRule{Rule: rule, By: "alice", Reason: "a test"}).Encode()
		w.rules[id] = rule
		w.put(record.PrefixRevocations+id.String(), body, err)
	case 4:
		for id := range w.rules {
			delete(w.rules, id)
			w.put(record.PrefixRevocations+id.String(), nil, nil)
			break
		}
	case 5:
		p := one(w, append(slices.Clone(users), others[0]))
		if w.disabled[p] = !w.disabled[p]; w.disabled[p] {
			body, err := (&record.Disabled{By: "alice"}).Encode()
			w.put(record.PrefixPrincipals+p.String(), body, err)
		} else {
			w.put(record.PrefixPrincipals+p.String(), nil, nil)
		}
	case 6:
		if len(w.grants) < 6 && w.rand.IntN(2) == 0 {
			w.grants = append(slices.Clone(w.grants), w.grant())
		} else if len(w.grants) > 0 {
			w.grants = slices.Delete(slices.Clone(w.grants), 0, 1)
		}
	case 7:
		w.state = one(w, []policy.State{policy.StatePublished, policy.StateArchived, policy.StateDeleted})
	case 8:
		w.revoked = !w.revoked
		w.owner = one(w, append(slices.Clone(users), others[0]))
	case 9:
		w.now = began.Add(time.Duration(w.rand.IntN(8)) * time.Hour)
		w.expires = time.Time{}
		if w.rand.IntN(2) == 0 {
			w.expires = began.Add(4 * time.Hour)
		}
	case 10:
		w.call()
		w.right = one(w, []vocab.Right{vocab.RightView, vocab.RightPrint, vocab.RightExport})
	case 11:
		w.settings.GuestDomains = one(w, [][]string{nil, {"fabrikam.com"}, {"fabrikam.com", "evil.example"}})
	}
}

func (w *composed) rule() (r policy.RevocationRule) {
	for r.Scope() == 0 {
		if w.rand.IntN(2) == 0 {
			r.Principal = one(w, slices.Concat(users, allGroups, others[:3]))
		}
		if w.rand.IntN(4) == 0 {
			r.Owner = one(w, append(slices.Clone(users), others[0]))
		}
		if w.rand.IntN(4) == 0 {
			r.Template = one(w, []vocab.TemplateUID{template1, {15: 2}})
		}
		if w.rand.IntN(4) == 0 {
			r.From = began.Add(time.Duration(w.rand.IntN(3)-1) * time.Hour)
		}
		if w.rand.IntN(4) == 0 && r.From.IsZero() {
			r.Until = began.Add(time.Duration(w.rand.IntN(3)) * time.Hour)
		}
	}
	return r
}

// circular looks by itself whether groups would stand in a circle.
func (w *composed) circular(g vocab.Principal, members []vocab.Principal) bool {
	next, seen := slices.Clone(members), map[vocab.Principal]bool{}
	for len(next) > 0 {
		m := next[0]
		next = next[1:]
		if m == g {
			return true
		}
		if !seen[m] {
			seen[m] = true
			next = append(next, w.groups[m.Value]...)
		}
	}
	return false
}

// groupsOf adds, one round after the other, every group that has somebody in it
// who is known.
func (w *composed) groupsOf(token []string, names []vocab.Principal) []string {
	in := map[string]bool{}
	for _, g := range token {
		in[g] = true
	}
	for range allGroups {
		for g, members := range w.groups {
			for _, m := range members {
				if slices.Contains(names, m) || m.Kind == vocab.KindGroup && in[m.Value] {
					in[g] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(in))
}

// namesOf are the caller's, those of domains that are not admitted only if all
// is asked.
func (w *composed) namesOf(all bool) (out []vocab.Principal) {
	if w.caller.Service != "" {
		out = append(out, vocab.Principal{Kind: vocab.KindService, Value: w.caller.Service})
	}
	for _, a := range w.caller.Addresses {
		person := w.caller.Service == "" && (w.caller.Member != "" || slices.ContainsFunc(w.settings.GuestDomains, func(d string) bool { return strings.HasSuffix(a, "@"+d) }))
		if all || person {
			out = append(out, vocab.Principal{Kind: vocab.KindUser, Value: a})
		}
	}
	return out
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return model.Never
	}
	return t.UnixMilli()
}

// ask is the model's question.
func (w *composed) ask() model.Question {
	q := model.Question{
		Template: map[policy.State]string{policy.StatePublished: "published", policy.StateArchived: "archived", policy.StateDeleted: "deleted"}[w.state],
		Offline:  -1, Expires: millis(w.expires), Owner: w.owner, IssuedBy: [2]string{"https://idp", "1"},
		RevokedAlone: w.revoked, Right: w.right, Now: w.now.UnixMilli(),
		MaxOffline: w.settings.MaxOffline.Milliseconds(), GuestOffline: -1, GuestDomains: w.settings.GuestDomains, IssuerOpensRevoked: true,
		Caller: model.Person{
			Issuer: w.caller.Issuer, Subject: w.caller.Subject, Addresses: w.caller.Addresses, MoreGroups: w.caller.GroupsIncomplete,
			Member: w.caller.Member, Service: w.caller.Service, Groups: w.groupsOf(w.caller.Groups, w.namesOf(false)),
		},
	}
	if w.caller.Member == "" && w.caller.Service == "" && len(w.namesOf(false)) == 0 {
		q.Caller.Groups = w.caller.Groups // nobody is in no group
	}
	suspect, through := q.Caller, (*model.Person)(nil)
	suspect.Groups = w.groupsOf(w.caller.Groups, w.namesOf(true))
	if w.caller.Actor != nil {
		q.Caller.Through = "service"
		through = &model.Person{Service: "dms"}
	}
	for p, off := range w.disabled {
		q.Disabled = q.Disabled || off && slices.Contains(w.namesOf(true), p)
	}
	d := model.Document{Name: "d", Owner: w.owner.String(), Template: template1.String(), Published: w.issued.UnixMilli()}
	for _, r := range w.rules {
		m := model.Rule{
			From: r.From.UnixMilli(), Until: r.Until.UnixMilli(), Since: !r.From.IsZero(), Before: !r.Until.IsZero(),
		}
		if !r.Principal.IsZero() {
			m.For = r.Principal.String()
		}
		if !r.Owner.IsZero() {
			m.Owner = r.Owner.String()
		}
		if !r.Template.IsZero() {
			m.Template = r.Template.String()
		}
		switch m.Judge(d, &suspect, through) {
		case model.Covers:
			q.RevokedOtherwise = true
		case model.MayCover:
			q.RevokedPerhaps = true
		case model.CoversNone:
		}
	}
	for _, g := range w.grants {
		q.Grants = append(q.Grants, model.Grant{To: g.To, Rights: g.Rights.List(), Until: millis(g.Until)})
	}
	return q
}

// decide is the tenant's own way from what is in memory to a decision.
func (w *composed) decide(t *testing.T) policy.Decision {
	t.Helper()
	template, err := policy.CompileTemplate(&policy.Template{UID: template1, State: w.state, Grants: w.grants, Offline: policy.OfflineMax})
	if err != nil {
		t.Fatal(err)
	}
	l := &record.License{Content: vocab.ContentID{15: 1}, Issued: record.ToMillis(w.issued)}
	if w.revoked {
		l.Revoked = &record.Revocation{}
	}
	in := inputs{record: l, template: template, policy: &policy.Policy{
		Owner: w.owner, Issuer: policy.Issuer{Issuer: "https://idp", Subject: "1", Address: "somebody@contoso.com"}, Template: template1, NotAfter: w.expires,
	}}
	return policy.Evaluate(in.evaluation(w.t.standingOf(&w.caller, w.settings), w.right, w.now, w.settings))
}

// TestPropertyTheWholeTenant: over 100,000 random sequences of edits of grants,
// groups, rules, disabled people, states and owners, of clock steps and other
// callers, the tenant decides as the model does, which knows no index, no cache
// and no closure.
func TestPropertyTheWholeTenant(t *testing.T) {
	const sequences = 100_000
	r := rand.New(rand.NewPCG(11, 12))
	allowed := 0
	for i := range sequences {
		w := newComposed(r)
		for range 2 + r.IntN(10) {
			w.step()
		}
		got, want := w.decide(t), model.Decide(w.ask())
		if got.Reason != want.Reason || got.Allowed != (want.Reason == "") || got.Allowed && !slices.Equal(got.Rights.List(), want.Rights) {
			t.Fatalf("sequence %d: the tenant says %q %s, the model %q %v\n%s", i, got.Reason, got.Rights, want.Reason, want.Rights, w)
		}
		if got.Allowed {
			allowed++
		}
	}
	if allowed < sequences/10 || allowed > sequences*9/10 {
		t.Errorf("%d of %d were allowed: the world is too easy", allowed, sequences)
	}
}

func (w *composed) String() string {
	return fmt.Sprintf("caller %+v\ngroups %v\nrules %+v\ndisabled %v\nstate %d grants %v owner %s revoked %v guests %v",
		w.caller, w.groups, w.rules, w.disabled, w.state, w.grants, w.owner, w.revoked, w.settings.GuestDomains)
}
