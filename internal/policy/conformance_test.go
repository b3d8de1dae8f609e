package policy_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
)

var update = flag.Bool("update", false, "write docs/conformance.md anew")

// semantics is how many of them each section of the table has, counted by
// hand: no row goes or comes unseen.
var semantics = []struct {
	section string
	rows    int
}{
	{"1.7", 15}, {"2.1", 16}, {"2.2", 6}, {"2.3", 18}, {"2.4", 11}, {"2.5", 12}, {"3.2", 10}, {"5.1", 8}, {"7", 21},
}

// conformance is testdata/conformance.yaml. It feeds the test and
// docs/conformance.md alike.
type conformance struct {
	People   map[string]person
	Sections []struct {
		Section, Title string
		Rows           []conformanceRow
	}
}

// conformanceRow is one semantic of Azure RMS and what we make of it.
type conformanceRow struct {
	ID, Azure, Rule, Why string
	// Cases are decisions about opening, Publishes about protecting.
	Cases     []decisionCase
	Publishes []publishCase
	// ShownBy are tests elsewhere that show what no decision of this package
	// can.
	ShownBy []shownBy `yaml:"shown_by"`
}

// What a row's rule may be.
const (
	ruleSame          = "same"
	ruleOurs          = "ours"
	ruleNotApplicable = "not-applicable"
)

// shownBy names a test: the package's folder, the function, and perhaps the
// case or script of it.
type shownBy struct{ Package, Test, Case string }

// publishCase is one decision about protecting content. Without template,
// grants and kind the terms of the parent are taken over.
type publishCase struct {
	Name, As string
	Owner    vocab.Principal
	// Template is the state of the template that is named, or "unknown".
	Template        string
	Select          []vocab.Principal
	TemplateExpires string `yaml:"template-expires"`
	// Kind is do-not-forward or encrypt-only.
	Kind    string
	Grants  []grantText
	Expires string
	// Parent are bob's rights on the document this one is made from. That is
	// alice's and expires in an hour.
	Parent     rightsText
	Publishers []vocab.Principal
	Want       publishWant
}

// publishWant is the answer; owner, issuer and expiry if it is allowed.
type publishWant struct {
	Reason  vocab.Reason
	Owner   vocab.Principal
	Issuer  string
	Expires string
	Derived bool
}

func loadConformance(t *testing.T) *conformance {
	t.Helper()
	c := load[conformance](t, "testdata/conformance.yaml")
	for name, p := range loadDecisions(t).People {
		if _, twice := c.People[name]; twice {
			t.Fatalf("%s is somebody of decisions.yaml", name)
		}
		c.People[name] = p
	}
	return c
}

// TestConformance holds the package to what the table says of Azure RMS and of
// us, one subtest a row.
func TestConformance(t *testing.T) {
	c := loadConformance(t)
	if len(c.Sections) != len(semantics) {
		t.Fatalf("%d sections, want %d", len(c.Sections), len(semantics))
	}
	names := make(map[string]bool)
	for i, want := range semantics {
		s := c.Sections[i]
		if s.Section != want.section || len(s.Rows) != want.rows || s.Title == "" {
			t.Errorf("section %s (%q) has %d rows, want section %s with %d", s.Section, s.Title, len(s.Rows), want.section, want.rows)
		}
		for j, row := range s.Rows {
			if id := fmt.Sprintf("%s-%d", s.Section, j+1); row.ID != id {
				t.Errorf("the row %q stands where %s should", row.ID, id)
			}
			for _, name := range row.names() {
				if name == "" || names[name] {
					t.Errorf("%s: the name %q is there twice, or none", row.ID, name)
				}
				names[name] = true
			}
			t.Run(row.ID, func(t *testing.T) { row.check(t, c.People) })
		}
	}
}

func (r *conformanceRow) names() (out []string) {
	for _, c := range r.Cases {
		out = append(out, c.Name)
	}
	for _, c := range r.Publishes {
		out = append(out, c.Name)
	}
	return out
}

func (r *conformanceRow) check(t *testing.T, people map[string]person) {
	shown := len(r.Cases) + len(r.Publishes) + len(r.ShownBy)
	switch {
	case r.Azure == "":
		t.Error("the row does not say what Azure does")
	case r.Rule != ruleSame && r.Rule != ruleOurs && r.Rule != ruleNotApplicable:
		t.Errorf("the rule is %q", r.Rule)
	case r.Rule != ruleSame && r.Why == "":
		t.Error("the row does not say why")
	case (shown == 0) != (r.Rule == ruleNotApplicable):
		t.Errorf("%d cases and tests show a row that is %s", shown, r.Rule)
	}
	for _, c := range r.Cases {
		if (c.Want.Reason == "") != (c.Want.Limit != "") {
			t.Errorf("%s: want either a reason or a validity and what limits it", c.Name)
		}
		got := policy.Evaluate(c.input(t, people))
		if diff := c.Want.differs(t, got); diff != "" {
			t.Errorf("%s: %s", c.Name, diff)
		}
		if got.Recovery != c.Want.Marked {
			t.Errorf("%s: marked as a recovery %v", c.Name, got.Recovery)
		}
	}
	for _, c := range r.Publishes {
		if diff := c.Want.differs(t, policy.MayPublish(c.input(t, people))); diff != "" {
			t.Errorf("%s: %s", c.Name, diff)
		}
	}
	for _, s := range r.ShownBy {
		if err := s.exists(); err != nil {
			t.Error(err)
		}
	}
}

// input is what the decision about protecting is made from.
func (c *publishCase) input(t *testing.T, people map[string]person) policy.PublishInput {
	t.Helper()
	p, ok := people[c.As]
	if !ok {
		t.Fatalf("%s: nobody is called %q", c.Name, c.As)
	}
	in := policy.PublishInput{Caller: p.identity(), Owner: c.Owner, NotAfter: at(t, c.Expires), Settings: baseInput().Settings, Now: t0}
	in.Settings.Publishers = c.Publishers
	if c.Parent != 0 {
		in.Parents = []policy.Parent{parent(1, vocab.Rights(c.Parent))}
	}
	kinds := map[string]policy.AdHocKind{"": policy.AdHocGrants, "do-not-forward": policy.AdHocDoNotForward, "encrypt-only": policy.AdHocEncryptOnly}
	kind, ok := kinds[c.Kind]
	if !ok {
		t.Fatalf("%s: kind %q", c.Name, c.Kind)
	}
	if len(c.Grants) > 0 {
		in.AdHoc = &policy.AdHoc{Kind: kind, Grants: grantsOf(t, c.Grants), Offline: policy.OfflineMax}
	}
	if in.ByTemplate = c.Template != ""; in.ByTemplate && c.Template != "unknown" {
		in.Template = c.template(t)
	}
	return in
}

func (c *publishCase) template(t *testing.T) *policy.Template {
	t.Helper()
	out := finance()
	state, ok := templateStates[c.Template]
	if !ok {
		t.Fatalf("%s: template %q", c.Name, c.Template)
	}
	out.State, out.Select, out.Expiry = state, c.Select, policy.Expiry{}
	if c.TemplateExpires != "" {
		var err error
		if out.Expiry, err = templatefile.ParseExpiry(c.TemplateExpires); err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
	}
	return out
}

// differs compares the answer with what is wanted; "" is agreement.
func (w *publishWant) differs(t *testing.T, got policy.PublishDecision) string {
	t.Helper()
	if got.Reason != w.Reason || got.Allowed != (w.Reason == "") {
		return fmt.Sprintf("got allowed %v, reason %q; want reason %q", got.Allowed, got.Reason, w.Reason)
	}
	if !got.Allowed {
		return ""
	}
	describe := func(owner vocab.Principal, issuer string, expires time.Time, derived bool) string {
		return fmt.Sprintf("owner %s issuer %s expires %s derived %v", owner, issuer, expires.Format(time.RFC3339Nano), derived)
	}
	p := got.Policy
	g := describe(p.Owner, p.Issuer.Issuer+"/"+p.Issuer.Subject, p.NotAfter, got.Derived)
	if want := describe(w.Owner, w.Issuer, at(t, w.Expires), w.Derived); g != want {
		return fmt.Sprintf("got  %s\nwant %s", g, want)
	}
	return ""
}

// exists looks for the test in the tree, and for its case in the same file or
// as a script of the package.
func (s *shownBy) exists() error {
	folder := filepath.Join("../..", filepath.FromSlash(s.Package))
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		return err
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if !strings.Contains(string(source), "\nfunc "+s.Test+"(t *testing.T) {") {
			continue
		}
		if s.Case == "" || strings.Contains(string(source), strconv.Quote(s.Case)) {
			return nil
		}
		if _, err := os.Stat(filepath.Join(folder, "testdata", s.Case+".txtar")); err == nil {
			return nil
		}
		return fmt.Errorf("%s of %s has no case %q", s.Test, s.Package, s.Case)
	}
	return fmt.Errorf("there is no %s in %s", s.Test, s.Package)
}

// TestShownByNeedsTheTest: a row cannot lean on what is not there.
func TestShownByNeedsTheTest(t *testing.T) {
	for _, c := range []struct {
		name string
		by   shownBy
		want string
	}{
		{"a test", shownBy{Package: "internal/policy", Test: "TestMayPublish"}, ""},
		{"a case of it", shownBy{Package: "internal/policy", Test: "TestMayPublish", Case: "a guest never publishes"}, ""},
		{"a script", shownBy{Package: "internal/rmsctl", Test: "TestSessions", Case: "templates"}, ""},
		{"no such test", shownBy{Package: "internal/policy", Test: "TestMay"}, "there is no TestMay"},
		{"no such package", shownBy{Package: "internal/none", Test: "TestMayPublish"}, "there is no TestMayPublish"},
		{"no such case", shownBy{Package: "internal/policy", Test: "TestMayPublish", Case: "a guest publishes"}, "no case"},
	} {
		switch err := c.by.exists(); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

// TestConformancePageIsCurrent: the page for people is made from the table, and
// a stale one fails.
func TestConformancePageIsCurrent(t *testing.T) {
	const path = "../../docs/conformance.md"
	page := loadConformance(t).page()
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Error("docs/conformance.md is stale: run this test with -update")
	}
}

func (c *conformance) page() string {
	var b strings.Builder
	counts := make(map[string]int)
	cases := 0
	for _, s := range c.Sections {
		for _, r := range s.Rows {
			counts[r.Rule]++
			cases += len(r.names())
		}
	}
	fmt.Fprintf(&b, conformanceIntro, counts[ruleSame]+counts[ruleOurs]+counts[ruleNotApplicable], counts[ruleSame], counts[ruleOurs], counts[ruleNotApplicable], cases)
	for _, s := range c.Sections {
		fmt.Fprintf(&b, "\n## %s %s\n\n| | Azure RMS | | Why, or how ours differs | Shown by |\n|---|---|---|---|---|\n", s.Section, s.Title)
		for _, r := range s.Rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.ID, cell(r.Azure), strings.ReplaceAll(r.Rule, "-", " "), cell(r.Why), cell(r.shown()))
		}
	}
	return b.String()
}

func (r *conformanceRow) shown() string {
	out := r.names()
	for _, s := range r.ShownBy {
		text := fmt.Sprintf("`%s` in `%s`", s.Test, s.Package)
		if s.Package == "." {
			text = fmt.Sprintf("`%s` of the SDK", s.Test)
		}
		if s.Case != "" {
			text += " (" + s.Case + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, " · ")
}

// cell writes a text into a cell of a Markdown table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

const conformanceIntro = `# Conformance with Azure Rights Management

What the public documentation of Azure Rights Management (Azure RMS) says its service does, point by point and in our words,
and whether we do the same. [policy.md](policy.md) states our rules as a whole; this page is for whoever comes from Azure and
wants to know what changes.

*Same* means: as documented for Azure. *Ours* is our own rule, with the reason. *Not applicable* is what has no counterpart
here. The numbers are names and stay what they are. "Shown by" lists the decisions, ruled by hand, that hold the evaluator to
the point, and the tests elsewhere for what the evaluator does not decide.

%d points: %d same, %d ours, %d not applicable; %d decisions. This page is made from
` + "`internal/policy/testdata/conformance.yaml`" + `, and ` + "`go test ./internal/policy -run TestConformance`" + ` holds the code
to that file; with ` + "`-update`" + ` it writes this page anew.
`
