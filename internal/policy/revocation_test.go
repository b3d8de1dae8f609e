package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/model"
	"github.com/openrms/rms/internal/vocab"
)

// The documents of the table: report was made from draft, which was made from
// notes.
var (
	notes, draft, report, other = vocab.ContentID{15: 1}, vocab.ContentID{15: 2}, vocab.ContentID{15: 3}, vocab.ContentID{15: 4}
	otherTemplate               = vocab.TemplateUID{15: 2}
)

func reportOf() policy.Revocable {
	return policy.Revocable{
		Content: report, Issued: t0, Ancestors: []vocab.ContentID{draft, notes},
		Policy: &policy.Policy{Owner: who("user:alice@contoso.com"), Template: someTemplate},
	}
}

// TestTableRevocations rules by hand which rule covers alice's report, under
// someTemplate, published at t0.
func TestTableRevocations(t *testing.T) {
	bob := &vocab.Identity{Member: "contoso", Addresses: []string{"bob@contoso.com", "bob@contoso.de"}, Groups: []string{"finance@contoso.com"}}
	overage := &vocab.Identity{Member: "contoso", Addresses: []string{"bob@contoso.com"}, GroupsIncomplete: true}
	dms := &vocab.Identity{Member: "contoso", Service: "dms", Addresses: []string{"dms@contoso.com"}}
	through := *bob
	through.Actor = dms
	for _, c := range []struct {
		name   string
		rule   policy.RevocationRule
		change func(*policy.Revocable)
		caller *vocab.Identity // bob, unless given
		nobody bool            // asked for everybody
		want   string          // scope, with "?" where groups decide; "" for no
	}{
		{name: "owner", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com")}, want: "owner"},
		{name: "another owner", rule: policy.RevocationRule{Owner: who("user:bob@contoso.com")}},
		{name: "owner of another kind", rule: policy.RevocationRule{Owner: who("service:alice")}},
		{name: "template", rule: policy.RevocationRule{Template: someTemplate}, want: "template"},
		{name: "another template", rule: policy.RevocationRule{Template: otherTemplate}},
		{name: "template, of an ad hoc policy", rule: policy.RevocationRule{Template: someTemplate}, change: func(l *policy.Revocable) {
			l.Policy.Template = vocab.TemplateUID{}
		}},

		{name: "published in a period", rule: policy.RevocationRule{From: t0.Add(-time.Hour), Until: t0.Add(time.Hour)}, want: "period"},
		{name: "the period begins that instant", rule: policy.RevocationRule{From: t0, Until: t0.Add(time.Hour)}, want: "period"},
		{name: "the period ends that instant", rule: policy.RevocationRule{From: t0.Add(-time.Hour), Until: t0}},
		{name: "and a millisecond later", rule: policy.RevocationRule{From: t0.Add(-time.Hour), Until: t0.Add(time.Millisecond)}, want: "period"},
		{name: "before the period", rule: policy.RevocationRule{From: t0.Add(time.Millisecond)}},
		{name: "since", rule: policy.RevocationRule{From: t0}, want: "period"},
		{name: "until", rule: policy.RevocationRule{Until: t0.Add(time.Hour)}, want: "period"},
		{name: "less than a millisecond is cut", rule: policy.RevocationRule{Until: t0.Add(time.Millisecond)}, want: "period", change: func(l *policy.Revocable) {
			l.Issued = l.Issued.Add(999 * time.Microsecond)
		}},

		{name: "the document itself", rule: policy.RevocationRule{Lineage: report}, want: "lineage"},
		{name: "its parent", rule: policy.RevocationRule{Lineage: draft}, want: "lineage"},
		{name: "its parent's parent", rule: policy.RevocationRule{Lineage: notes}, want: "lineage"},
		{name: "another document", rule: policy.RevocationRule{Lineage: other}},
		{name: "so many ancestors that nobody knows", rule: policy.RevocationRule{Lineage: other}, want: "lineage", change: func(l *policy.Revocable) {
			l.MoreAncestors = true
		}},
		{name: "so many ancestors, but of another owner", rule: policy.RevocationRule{Lineage: other, Owner: who("user:bob@contoso.com")}, change: func(l *policy.Revocable) {
			l.MoreAncestors = true
		}},

		{name: "the caller", rule: policy.RevocationRule{Principal: who("user:bob@contoso.com")}, want: "principal"},
		{name: "another address of the caller's", rule: policy.RevocationRule{Principal: who("user:bob@contoso.de")}, want: "principal"},
		{name: "somebody else", rule: policy.RevocationRule{Principal: who("user:mallory@contoso.com")}},
		{name: "the caller's domain", rule: policy.RevocationRule{Principal: who("domain:contoso.de")}, want: "principal"},
		{name: "a domain above it", rule: policy.RevocationRule{Principal: who("domain:contoso.com")}, caller: &vocab.Identity{Addresses: []string{"eve@sub.contoso.com"}}},
		{name: "a guest, by an address that gives nothing", rule: policy.RevocationRule{Principal: who("user:eve@evil.example")}, want: "principal",
			caller: &vocab.Identity{Addresses: []string{"eve@fabrikam.com", "eve@evil.example"}}},
		{name: "the caller's group", rule: policy.RevocationRule{Principal: who("group:finance@contoso.com")}, want: "principal"},
		{name: "another group", rule: policy.RevocationRule{Principal: who("group:board@contoso.com")}},
		{name: "a group, where groups were held back", rule: policy.RevocationRule{Principal: who("group:board@contoso.com")}, caller: overage, want: "principal?"},
		{name: "a person, where groups were held back", rule: policy.RevocationRule{Principal: who("user:mallory@contoso.com")}, caller: overage},
		{name: "a group held back, of another owner", rule: policy.RevocationRule{Principal: who("group:board@contoso.com"), Owner: who("user:bob@contoso.com")}, caller: overage},
		{name: "a service", rule: policy.RevocationRule{Principal: who("service:dms")}, caller: dms, want: "principal"},
		{name: "a service, by an address", rule: policy.RevocationRule{Principal: who("domain:contoso.com")}, caller: dms, want: "principal"},
		{name: "a service that calls for somebody", rule: policy.RevocationRule{Principal: who("service:dms")}, caller: &through, want: "principal"},
		{name: "whom it calls for", rule: policy.RevocationRule{Principal: who("user:bob@contoso.com")}, caller: &through, want: "principal"},
		{name: "for everybody", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com")}, nobody: true, want: "owner"},
		{name: "for some", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com"), Principal: who("user:bob@contoso.com")}, nobody: true},

		{name: "two conditions", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com"), From: t0}, want: "owner, period"},
		{name: "two conditions, the period ends that instant", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com"), Until: t0}},
		{name: "one of two", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com"), From: t0.Add(time.Hour)}},
		{name: "the other of two", rule: policy.RevocationRule{Owner: who("user:bob@contoso.com"), From: t0}},
		{name: "all conditions", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com"), Template: someTemplate, From: t0, Lineage: notes,
			Principal: who("group:finance@contoso.com")}, want: "lineage, template, owner, principal, period"},
		{name: "all but the lineage", rule: policy.RevocationRule{Owner: who("user:alice@contoso.com"), Template: someTemplate, From: t0, Lineage: other,
			Principal: who("group:finance@contoso.com")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.rule.Validate(); err != nil {
				t.Fatal(err)
			}
			var x policy.RevocationIndex
			event := vocab.NewEventID()
			x.Set(event, c.rule)
			l := reportOf()
			if c.change != nil {
				c.change(&l)
			}
			caller := c.caller
			if caller == nil && !c.nobody {
				caller = bob
			}
			if got := shown(x.Covering(l, caller)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			x.Remove(event)
			if got := x.Covering(l, caller); got != nil {
				t.Errorf("taken back, it still covers: %v", got)
			}
		})
	}
}

// TestTablePeriods: periods that lie in one another and side by side are all
// found.
func TestTablePeriods(t *testing.T) {
	var x policy.RevocationIndex
	day := func(n int) time.Time { return t0.Add(time.Duration(n) * policy.Day) }
	names := map[vocab.EventID]string{}
	for i, p := range []struct {
		name        string
		from, until time.Time
	}{
		{"year", day(0), day(365)}, {"first week", day(0), day(7)}, {"second week", day(7), day(14)}, {"a day", day(8), day(9)},
		{"since day 10", day(10), time.Time{}}, {"until day 5", time.Time{}, day(5)},
	} {
		e := vocab.EventID{15: byte(i + 1)}
		names[e] = p.name
		x.Set(e, policy.RevocationRule{From: p.from, Until: p.until})
	}
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{day(-1), "until day 5"},
		{day(0), "year, first week, until day 5"},
		{day(5), "year, first week"},
		{day(7), "year, second week"},
		{day(8), "year, second week, a day"},
		{day(9), "year, second week"},
		{day(13), "year, second week, since day 10"},
		{day(14), "year, since day 10"},
		{day(400), "since day 10"},
	} {
		var got []string
		for _, r := range x.Covering(policy.Revocable{Policy: &policy.Policy{}, Issued: c.at}, nil) {
			got = append(got, names[r.Event])
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %s, want %s", c.at.Format(time.DateOnly), s, c.want)
		}
	}
}

// shown writes revocations as the table does.
func shown(list []policy.Revocation) string {
	var out []string
	for _, r := range list {
		s := r.Scope.String()
		if r.GroupsUnknown {
			s += "?"
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// A rule that is not one is refused, whoever may make it.
func TestRevocationRulesAreChecked(t *testing.T) {
	for name, rule := range map[string]policy.RevocationRule{
		"no condition":                 {},
		"for everybody by name":        {Principal: who("anyone")},
		"for every member":             {Principal: who("tenant:contoso")},
		"for a name that is none":      {Principal: vocab.Principal{Kind: vocab.KindUser, Value: "BOB"}},
		"owned by a group":             {Owner: who("group:finance@contoso.com")},
		"a period that ends at once":   {From: t0, Until: t0},
		"a period that ends before":    {From: t0, Until: t0.Add(-time.Hour)},
		"since the beginning of time":  {From: time.UnixMilli(0)},
		"finer than a millisecond":     {From: t0.Add(time.Microsecond)},
		"a condition beside a bad one": {Template: someTemplate, Principal: who("anyone")},
	} {
		if err := rule.Validate(); vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What would be revoked as soon as it is there is not published.
func TestTableBornRevoked(t *testing.T) {
	for name, c := range map[string]struct {
		covering []policy.Revocation
		want     vocab.Reason
	}{
		"nothing covers it": {nil, ""},
		"a rule covers it":  {[]policy.Revocation{{Scope: policy.RevokedOwner}}, vocab.ReasonLicenseRevoked},
		"a rule may cover it": {
			[]policy.Revocation{{Scope: policy.RevokedPrincipal, GroupsUnknown: true}}, vocab.ReasonGroupsIncomplete,
		},
		"one does and one may": {
			[]policy.Revocation{{Scope: policy.RevokedPrincipal, GroupsUnknown: true}, {Scope: policy.RevokedOwner}}, vocab.ReasonLicenseRevoked,
		},
	} {
		in := policy.PublishInput{
			Caller: member("carol", "finance@contoso.com"), Settings: policy.DefaultSettings(), Now: t0, ByTemplate: true, Template: finance(),
		}
		var asked *policy.Policy
		in.Covering = func(p *policy.Policy) []policy.Revocation {
			asked = p
			return c.covering
		}
		d := policy.MayPublish(in)
		if d.Reason != c.want || d.Allowed != (c.want == "") {
			t.Errorf("%s: %v %q, want %q", name, d.Allowed, d.Reason, c.want)
		}
		if asked == nil || asked.Owner.IsZero() || asked.Template.IsZero() {
			t.Errorf("%s: asked about %+v, which is not all that the license would say", name, asked)
		}
	}
}

// ruled is a set of rules that a sequence changes step by step, in the index
// and in the model's form.
type ruled struct {
	index policy.RevocationIndex
	rules []madeRule // in the order of their events
	made  uint64
}

type madeRule struct {
	event vocab.EventID
	rule  policy.RevocationRule
}

var (
	ruleNames = []string{"user:bob@contoso.com", "user:eve@fabrikam.com", "group:finance@contoso.com", "group:board@contoso.com",
		"domain:contoso.com", "domain:evil.example", "service:dlp", "service:dms"}
	ruleOwners = []string{"user:alice@contoso.com", "user:bob@contoso.com", "service:dlp"}
	ruleTimes  = []time.Duration{-48 * time.Hour, -time.Hour, -time.Millisecond, 0, time.Millisecond, time.Hour, 48 * time.Hour}
	ruleDocs   = []vocab.ContentID{notes, draft, report, other}
	ruleTmpls  = []vocab.TemplateUID{someTemplate, otherTemplate}
)

func (d draw) rule() policy.RevocationRule {
	for {
		var r policy.RevocationRule
		if d(3) == 0 {
			r.Principal = who(pick(d, ruleNames))
		}
		if d(4) == 0 {
			r.Owner = who(pick(d, ruleOwners))
		}
		if d(4) == 0 {
			r.Template = pick(d, ruleTmpls)
		}
		if d(3) == 0 {
			r.From = t0.Add(pick(d, ruleTimes))
		}
		if d(3) == 0 {
			r.Until = t0.Add(pick(d, ruleTimes))
		}
		if d(4) == 0 {
			r.Lineage = pick(d, ruleDocs)
		}
		if r.Scope() == 0 {
			r.Template = someTemplate
		}
		if r.Validate() == nil {
			return r
		}
		r.From = time.Time{}
	}
}

// step makes a rule, takes one back, or changes one.
func (w *ruled) step(d draw) {
	switch {
	case len(w.rules) > 0 && d(4) == 0:
		i := d(len(w.rules))
		w.index.Remove(w.rules[i].event)
		w.rules = slices.Delete(w.rules, i, i+1)
	case len(w.rules) > 0 && d(8) == 0:
		i := d(len(w.rules))
		w.rules[i].rule = d.rule()
		w.index.Set(w.rules[i].event, w.rules[i].rule)
	default:
		w.made++
		m := madeRule{event: vocab.EventID{15: byte(w.made), 14: byte(w.made >> 8)}, rule: d.rule()}
		w.rules = append(w.rules, m)
		w.index.Set(m.event, m.rule)
	}
}

func (d draw) revocable() policy.Revocable {
	l := policy.Revocable{
		Content: pick(d, ruleDocs), Issued: t0.Add(pick(d, ruleTimes)), MoreAncestors: d(12) == 0,
		Policy: &policy.Policy{Owner: who(pick(d, ruleOwners))},
	}
	if d(3) != 0 {
		l.Policy.Template = pick(d, ruleTmpls)
	}
	for range d(3) {
		l.Ancestors = append(l.Ancestors, pick(d, ruleDocs)) // doubles too
	}
	return l
}

func modelPerson(id *vocab.Identity) *model.Person {
	if id == nil {
		return nil
	}
	return &model.Person{Addresses: id.Addresses, Groups: id.Groups, MoreGroups: id.GroupsIncomplete, Service: id.Service}
}

func text[T interface {
	comparable
	String() string
}](v T) string {
	var zero T
	if v == zero {
		return ""
	}
	return v.String()
}

// differs asks index and model about one opening; "" is agreement.
func (w *ruled) differs(l policy.Revocable, caller *vocab.Identity) string {
	doc := model.Document{
		Name: l.Content.String(), Owner: l.Policy.Owner.String(), Template: text(l.Policy.Template), Published: l.Issued.UnixMilli(), TooManyToSay: l.MoreAncestors,
	}
	for _, a := range l.Ancestors {
		doc.MadeFrom = append(doc.MadeFrom, a.String())
	}
	var through *model.Person
	if caller != nil {
		through = modelPerson(caller.Actor)
	}
	var want []string
	for _, m := range w.rules {
		r := model.Rule{
			For: text(m.rule.Principal), Owner: text(m.rule.Owner), Template: text(m.rule.Template), MadeFrom: text(m.rule.Lineage),
			Since: !m.rule.From.IsZero(), From: m.rule.From.UnixMilli(), Before: !m.rule.Until.IsZero(), Until: m.rule.Until.UnixMilli(),
		}
		if v := r.Judge(doc, modelPerson(caller), through); v != model.CoversNone {
			want = append(want, m.event.String()+" "+string(v))
		}
	}
	var got []string
	for _, r := range w.index.Covering(l, caller) {
		v := model.Covers
		if r.GroupsUnknown {
			v = model.MayCover
		}
		got = append(got, r.Event.String()+" "+string(v))
	}
	if slices.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("index %v\nmodel %v\nrules %+v\nlicense %+v of %v\ncaller %+v", got, want, w.rules, l, *l.Policy, caller)
}

func ruledSequence(d draw) string {
	var w ruled
	for range 1 + d(8) {
		w.step(d)
		id := d.identity()
		caller := &id
		if d(8) == 0 {
			caller = nil
		}
		if diff := w.differs(d.revocable(), caller); diff != "" {
			return diff
		}
	}
	if w.index.Len() != len(w.rules) {
		return fmt.Sprintf("the index counts %d rules of %d", w.index.Len(), len(w.rules))
	}
	for _, m := range w.rules {
		w.index.Remove(m.event)
	}
	if w.index.Len() != 0 || w.index.Lineages() {
		return "the index is not empty after all was taken back"
	}
	return ""
}

// TestPropertyModelCovering compares index and model over 100,000 random
// sequences of making, changing and taking back, the same in every run.
func TestPropertyModelCovering(t *testing.T) {
	const sequences = 100_000
	r := rand.New(rand.NewPCG(7, 8))
	for i := range sequences {
		if diff := ruledSequence(r.IntN); diff != "" {
			t.Fatalf("sequence %d: %s", i, diff)
		}
	}
}

// TestPropertyCoveringShrinking does the same with other seeds at each run, and
// reduces what it finds to a small example.
func TestPropertyCoveringShrinking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "draw") }
		if diff := ruledSequence(d); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Many periods, nested and overlapping, in all orders of coming and going.
func TestPropertyPeriods(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 2_000 {
		var w ruled
		for range 40 {
			if len(w.rules) > 0 && r.IntN(3) == 0 {
				i := r.IntN(len(w.rules))
				w.index.Remove(w.rules[i].event)
				w.rules = slices.Delete(w.rules, i, i+1)
				continue
			}
			w.made++
			rule := policy.RevocationRule{From: t0.Add(time.Duration(r.IntN(30)) * time.Hour)}
			if r.IntN(5) > 0 {
				rule.Until = rule.From.Add(time.Duration(1+r.IntN(10)) * time.Hour)
			}
			if r.IntN(5) == 0 {
				rule = policy.RevocationRule{Until: rule.From}
			}
			m := madeRule{event: vocab.EventID{15: byte(w.made)}, rule: rule}
			w.rules = append(w.rules, m)
			w.index.Set(m.event, m.rule)
		}
		for h := range 42 {
			l := policy.Revocable{Content: report, Policy: &policy.Policy{}, Issued: t0.Add(time.Duration(h-1) * time.Hour)}
			if diff := w.differs(l, nil); diff != "" {
				t.Fatal(diff)
			}
		}
	}
}

// BenchmarkCovering shows that rules that do not match cost nothing: 10 and
// 10,000 of them take the same time. Five match in either case.
func BenchmarkCovering(b *testing.B) {
	caller := &vocab.Identity{Member: "contoso", Addresses: []string{"bob@contoso.com"}, Groups: []string{"finance@contoso.com", "board@contoso.com"}}
	for _, n := range []int{10, 1_000, policy.MaxRevocationRules} {
		var x policy.RevocationIndex
		for i := range n {
			name := "u" + strconv.Itoa(i) + "@contoso.com"
			var rule policy.RevocationRule
			switch i % 6 {
			case 0:
				rule.Owner = vocab.Principal{Kind: vocab.KindUser, Value: name}
			case 1:
				rule.Principal = vocab.Principal{Kind: vocab.KindUser, Value: name}
			case 2:
				rule.Principal = vocab.Principal{Kind: vocab.KindGroup, Value: name}
			case 3:
				rule.Template = vocab.TemplateUID{14: byte(i >> 8), 15: byte(i), 0: 1}
			case 4:
				rule.Lineage = vocab.ContentID{14: byte(i >> 8), 15: byte(i), 0: 1}
			case 5:
				rule.From = t0.Add(time.Duration(i) * time.Hour)
				rule.Until = rule.From.Add(30 * time.Minute)
			}
			x.Set(vocab.NewEventID(), rule)
		}
		for _, rule := range []policy.RevocationRule{
			{Owner: who("user:alice@contoso.com")}, {Principal: who("user:bob@contoso.com")}, {Template: someTemplate},
			{Lineage: notes}, {From: t0.Add(-time.Hour), Until: t0.Add(time.Hour)},
		} {
			x.Set(vocab.NewEventID(), rule)
		}
		l := reportOf()
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				if len(x.Covering(l, caller)) != 5 {
					b.Fatal("not the five that match")
				}
			}
		})
	}
}
