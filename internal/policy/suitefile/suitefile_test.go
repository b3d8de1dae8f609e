package suitefile_test

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/suitefile"
	"github.com/openrms/rms/internal/vocab"
)

const example = `kind: PolicySuite
tenant:
  name: contoso
  domains: [contoso.com]
  guests: [Fabrikam.com]
  offline-max: 14d
  guest-offline-max: 0
  issuer-opens-revoked: false
  custody: strict
templates:
  - templates/
  - kind: Template
    id: board
    names: {en: Board}
    state: published
    grants: [{to: "group:board@contoso.com", rights: viewer, login: mfa}]
    expires: never
    offline: 0
cases:
  - name: the board reads
    who: Carla@contoso.com
    groups: [board@contoso.com, "group:all@contoso.com"]
    without-directory: true
    mfa: true
    from: 10.20.0.7
    at: 2026-11-27T18:00:00+01:00
    template: board
    right: PRINT
    want: [VIEW, PRINT]
  - {name: a service, who: "service:dlp", document: q3.pdf.rms, mfa: false, want: allow}
  - {name: nobody, who: "user:mallory@contoso.com", template: other, want: NO_RIGHTS}
  - {name: a level, who: bob@contoso.com, template: other, want: co-author}
`

func who(s string) vocab.Principal {
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		panic(err)
	}
	return p
}

func TestParse(t *testing.T) {
	got, err := suitefile.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	settings := policy.DefaultSettings()
	settings.GuestDomains, settings.MaxOffline, settings.GuestMaxOffline = []string{"fabrikam.com"}, 14*policy.Day, 0
	settings.IssuerOpensRevoked, settings.Custody = false, vocab.CustodyStrict
	want := &suitefile.Suite{
		Tenant: &suitefile.Tenant{Name: "contoso", Domains: []string{"contoso.com"}, Settings: settings},
		Paths:  []string{"templates/"},
		Templates: []*policy.Template{{
			Slug: "board", Names: map[string]string{"en": "Board"}, State: policy.StatePublished,
			Grants: []policy.Grant{{To: who("group:board@contoso.com"), Rights: policy.Viewer.Rights(), Login: policy.LoginMFA}},
		}},
		Cases: []suitefile.Case{
			{
				Line: 20, Name: "the board reads", WithoutDirectory: true, Template: "board", Right: vocab.RightPrint,
				Who: policy.Supposed{Who: who("user:carla@contoso.com"), Groups: []string{"board@contoso.com", "all@contoso.com"}, MFA: true, Peer: "10.20.0.7"},
				At:  time.Date(2026, 11, 27, 17, 0, 0, 0, time.UTC), Want: suitefile.Want{Rights: vocab.RightsOf(vocab.RightView, vocab.RightPrint)},
			},
			{Line: 30, Name: "a service", Who: policy.Supposed{Who: who("service:dlp")}, Document: "q3.pdf.rms"},
			{Line: 31, Name: "nobody", Who: policy.Supposed{Who: who("user:mallory@contoso.com")}, Template: "other", Want: suitefile.Want{Reason: vocab.ReasonNoRights}},
			{Line: 32, Name: "a level", Who: policy.Supposed{Who: who("user:bob@contoso.com")}, Template: "other", Want: suitefile.Want{Rights: policy.CoAuthor.Rights()}},
		},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	for i, w := range []string{"VIEW PRINT", "allow", "NO_RIGHTS", "co-author"} {
		if got.Cases[i].Want.String() != w {
			t.Errorf("%s is shown as %s", w, got.Cases[i].Want)
		}
	}
}

const good = `kind: PolicySuite
tenant: {name: contoso, domains: [contoso.com]}
templates: [a.yaml]
cases:
  - {name: x, who: bob@contoso.com, template: a, want: viewer}
`

// refusals change one thing of a good file.
var refusals = []struct {
	name   string
	change [2]string
	want   string
}{
	{"unknown key", [2]string{"cases:", "case: []\ncases:"}, `line 4: a suite has no key "case"`},
	{"no cases", [2]string{"  - {name: x, who: bob@contoso.com, template: a, want: viewer}\n", "  []\n"}, "line 1: the suite has no cases"},
	{"cases missing", [2]string{"cases:\n  - {name: x, who: bob@contoso.com, template: a, want: viewer}\n", ""}, "line 1: a suite lacks cases"},
	{"another kind", [2]string{"PolicySuite", "Template"}, `kind "Template" is unknown here: write PolicySuite`},
	{"two documents", [2]string{"kind:", "---\n" + "kind: PolicySuite\ncases: [{name: x, who: bob@contoso.com, template: a, want: viewer}]\n---\nkind:"}, "more than 1 suites in one file"},
	{"templates without a tenant", [2]string{"tenant: {name: contoso, domains: [contoso.com]}\n", ""}, "line 1: a suite with templates of its own lacks tenant"},
	{"tenant without domains", [2]string{", domains: [contoso.com]", ""}, "line 2: tenant lacks domains"},
	{"tenant's name", [2]string{"name: contoso", "name: Contoso"}, `line 2: "Contoso" is not the name of a tenant`},
	{"a domain", [2]string{"[contoso.com]", "[contoso]"}, `line 2: "contoso" is not a domain`},
	{"guests", [2]string{"domains:", "guests: [x], domains:"}, `line 2: "x" is not a domain`},
	{"offline-max", [2]string{"domains:", "offline-max: soon, domains:"}, `line 2: "soon" is not a period`},
	{"guest-offline-max", [2]string{"domains:", "guest-offline-max: soon, domains:"}, "line 2: offline"},
	{"issuer-opens-revoked", [2]string{"domains:", "issuer-opens-revoked: perhaps, domains:"}, `line 2: "perhaps" is neither true nor false`},
	{"custody", [2]string{"domains:", "custody: loose, domains:"}, "is not a custody mode"},
	{"a template in the suite", [2]string{"[a.yaml]", "[{kind: Template, id: a}]"}, "line 3: a template lacks names"},
	{"a template twice", [2]string{"[a.yaml]", "[{kind: Template, id: a, names: {en: A}, state: published, grants: [], expires: never, offline: 0}, {kind: Template, id: a, names: {en: A}, state: published, grants: [], expires: never, offline: 0}]"}, "line 3: the template a is in the suite twice"},
	{"a path that is a number", [2]string{"a.yaml", "7"}, "line 3: templates could mean something else than text"},
	{"a path that is too long", [2]string{"a.yaml", strings.Repeat("x", 5000)}, "line 3: the path is too long"},
	{"no name", [2]string{"name: x, ", ""}, "line 5: a case lacks name"},
	{"a long name", [2]string{"name: x", "name: " + strings.Repeat("x", 201)}, "line 5: the name has 201 bytes"},
	{"two of one name", [2]string{"cases:\n", "cases:\n  - {name: x, who: bob@contoso.com, template: a, want: viewer}\n"}, `line 6: there are two cases "x"`},
	{"no who", [2]string{"who: bob@contoso.com, ", ""}, "line 5: a case lacks who"},
	{"who is a group", [2]string{"who: bob@contoso.com", "who: group:a@contoso.com"}, "line 5: group:a@contoso.com cannot open anything"},
	{"who is nobody", [2]string{"who: bob@contoso.com", "who: bob"}, "line 5:"},
	{"groups", [2]string{"template: a", "groups: [finance], template: a"}, "line 5:"},
	{"mfa", [2]string{"template: a", "mfa: yes, template: a"}, `line 5: "yes" is neither true nor false`},
	{"from", [2]string{"template: a", "from: office, template: a"}, `line 5: "office" is not a network address`},
	{"at without a zone", [2]string{"template: a", "at: 2026-11-27T18:00:00, template: a"}, "is not a time with a zone"},
	{"a template's id", [2]string{"template: a", "template: A B"}, `line 5: "A B" is not the id of a template`},
	{"neither template nor document", [2]string{"template: a, ", ""}, "line 5: a case is about a template or a document"},
	{"template and document", [2]string{"template: a", "template: a, document: b"}, "line 5: a case is about a template or a document"},
	{"a document that is too long", [2]string{"template: a", "document: " + strings.Repeat("x", 5000)}, "line 5: the path is too long"},
	{"right", [2]string{"template: a", "right: FLY, template: a"}, `line 5: "FLY" is not a usage right`},
	{"no want", [2]string{", want: viewer", ""}, "line 5: a case lacks want"},
	{"want is no answer", [2]string{"want: viewer", "want: perhaps"}, `line 5: want "perhaps": write allow, a level, a list of rights, or a reason`},
	{"want is a reason of something else", [2]string{"want: viewer", "want: STORE_FULL"}, `line 5: want "STORE_FULL"`},
	{"want is no list of rights", [2]string{"want: viewer", "want: [FLY]"}, "is not a usage right"},
	{"want is empty", [2]string{"want: viewer", "want: []"}, "rights is empty"},
	{"anchor", [2]string{"who: bob", "who: &x bob"}, "anchors and aliases"},
	{"not YAML", [2]string{"[a.yaml]", "[a"}, "this is not YAML"},
}

// TestRefusals: every refusal names the line and helps on, and nothing is read.
func TestRefusals(t *testing.T) {
	if _, err := suitefile.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			file := strings.Replace(good, c.change[0], c.change[1], 1)
			if file == good {
				t.Fatal("the case changes nothing")
			}
			got, err := suitefile.Parse([]byte(file))
			if err == nil || got != nil {
				t.Fatalf("read:\n%s", file)
			}
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestDecide(t *testing.T) {
	s, err := suitefile.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	other := &policy.Template{Slug: "other", Names: map[string]string{"en": "O"}, State: policy.StatePublished, Grants: []policy.Grant{
		{To: who("tenant:contoso"), Rights: policy.CoAuthor.Rights()}, {To: who("domain:fabrikam.com"), Rights: policy.CoOwner.Rights()},
	}}
	d, err := s.NewDecider([]*policy.Template{other})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		c    suitefile.Case
		want string // reason, or rights
	}{
		{s.Cases[0], "RIGHT_NOT_GRANTED"},
		{suitefile.Case{Who: policy.Supposed{Who: who("user:bob@contoso.com")}, Template: "other"}, "co-author"},
		{suitefile.Case{Who: policy.Supposed{Who: who("user:eve@fabrikam.com")}, Template: "other"}, policy.Describe(vocab.AllRights)},
		{suitefile.Case{Who: policy.Supposed{Who: who("user:eve@evil.example")}, Template: "other"}, "NO_RIGHTS"},
		{suitefile.Case{Who: policy.Supposed{Who: who("service:dlp")}, Template: "other"}, "NO_RIGHTS"},
	} {
		if !d.Decides(&c.c) {
			t.Fatalf("%s is not decided here", c.c.Template)
		}
		got, err := d.Decide(&c.c, now)
		if err != nil {
			t.Fatal(err)
		}
		said := policy.Describe(got.Rights)
		if !got.Allowed {
			said = string(got.Reason)
		}
		if said != c.want {
			t.Errorf("%s on %s: %s, want %s", c.c.Who.Who, c.c.Template, said, c.want)
		}
		if c.c.At.IsZero() && !got.Time.Equal(now) || !c.c.At.IsZero() && !got.Time.Equal(c.c.At) {
			t.Errorf("decided for %s", got.Time)
		}
	}
	if d.Decides(&s.Cases[1]) || d.Decides(&suitefile.Case{Template: "third"}) {
		t.Error("what the suite does not have is decided here")
	}
	if _, err := s.NewDecider([]*policy.Template{{Slug: "board"}}); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
		t.Errorf("two templates of one name: %v", err)
	}
}

func TestWant(t *testing.T) {
	owner := suitefile.Want{Rights: policy.CoOwner.Rights()}
	for _, c := range []struct {
		want   suitefile.Want
		reason vocab.Reason
		rights vocab.Rights
		meets  bool
	}{
		{suitefile.Want{}, "", policy.Viewer.Rights(), true},
		{suitefile.Want{}, vocab.ReasonNoRights, 0, false},
		{suitefile.Want{Rights: policy.Viewer.Rights()}, "", policy.Viewer.Rights(), true},
		{suitefile.Want{Rights: policy.Viewer.Rights()}, "", policy.Reviewer.Rights(), false},
		{suitefile.Want{Rights: policy.Viewer.Rights()}, vocab.ReasonNoRights, 0, false},
		{owner, "", vocab.AllRights, true}, // OWNER is spelled out in answers
		{suitefile.Want{Reason: vocab.ReasonNoRights}, vocab.ReasonNoRights, 0, true},
		{suitefile.Want{Reason: vocab.ReasonNoRights}, vocab.ReasonGrantEnded, 0, false},
		{suitefile.Want{Reason: vocab.ReasonNoRights}, "", policy.Viewer.Rights(), false},
	} {
		if c.want.Meets(c.reason, c.rights) != c.meets {
			t.Errorf("%s, got %q [%s]: want %v", c.want, c.reason, c.rights, c.meets)
		}
	}
}

// FuzzParse: whatever is read can be decided.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(good))
	for _, c := range refusals {
		f.Add([]byte(strings.Replace(good, c.change[0], c.change[1], 1)))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := suitefile.Parse(file)
		if err != nil {
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) || s != nil {
				t.Fatalf("%v, %v", s, err)
			}
			return
		}
		d, err := s.NewDecider(nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Cases {
			c := &s.Cases[i]
			if (c.Template == "") == (c.Document == "") || c.Want.String() == "" {
				t.Fatalf("%+v", c)
			}
			if d.Decides(c) {
				if _, err := d.Decide(c, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestDocumentation: the example of docs/policy.md is a suite.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```yaml\n(kind: PolicySuite.*?)```").FindSubmatch(page)
	if m == nil {
		t.Fatal("docs/policy.md shows no suite")
	}
	if _, err := suitefile.Parse(m[1]); err != nil {
		t.Error(err)
	}
}
