package templatefile_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/policy/templatefile/templatefiletest"
	"github.com/openrms/rms/internal/vocab"
)

const example = `kind: Template
id: finance-internal
names: {en: Finance – internal, de: Finanzen – intern}
state: published                                        # published | archived
grants:
  - {to: "group:finance@contoso.com", rights: co-author}
  - {to: "group:interns@contoso.com", rights: viewer, until: 2026-11-27T18:00:00+01:00}
  - {to: "service:dlp-scanner", rights: [VIEW]}
expires: never
offline: 7d
select: ["group:finance@contoso.com"]
contact: Rights-Help@contoso.com
---
{kind: Template, id: board-secret, names: {en: Board – secret}, state: published, custody: strict, expires: 365d, offline: 0, contact: cosec@contoso.com, grants: [
  {to: "group:board@contoso.com", rights: viewer, login: mfa, networks: [10.20.0.0/16, "2001:db8:20::/48"]},
  {to: "user:cosec@contoso.com", rights: co-owner}]}
---
kind: Template
id: all
names: {pt-BR: Todos}
descriptions: {en: "Everybody who signed in: careful"}
state: archived
grants: [{to: anyone, rights: [view, Print]}]
expires: 2027-06-30T00:00:00Z
offline: max
`

func principal(s string) vocab.Principal {
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		panic(err)
	}
	return p
}

var equal = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

func TestParse(t *testing.T) {
	want := []*policy.Template{
		{
			Slug: "finance-internal", State: policy.StatePublished, Offline: 7 * policy.Day, Contact: "rights-help@contoso.com",
			Names: map[string]string{"en": "Finance – internal", "de": "Finanzen – intern"},
			Grants: []policy.Grant{
				{To: principal("group:finance@contoso.com"), Rights: policy.CoAuthor.Rights()},
				{To: principal("group:interns@contoso.com"), Rights: policy.Viewer.Rights(), Until: time.Date(2026, 11, 27, 17, 0, 0, 0, time.UTC)},
				{To: principal("service:dlp-scanner"), Rights: vocab.RightsOf(vocab.RightView)},
			},
			Select: []vocab.Principal{principal("group:finance@contoso.com")},
		},
		{
			Slug: "board-secret", State: policy.StatePublished, Contact: "cosec@contoso.com", Custody: vocab.CustodyStrict,
			Names:  map[string]string{"en": "Board – secret"},
			Expiry: policy.Expiry{Kind: policy.ExpiryAfter, After: 365 * policy.Day},
			Grants: []policy.Grant{
				{To: principal("group:board@contoso.com"), Rights: policy.Viewer.Rights(), Login: policy.LoginMFA,
					Networks: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16"), netip.MustParsePrefix("2001:db8:20::/48")}},
				{To: principal("user:cosec@contoso.com"), Rights: policy.CoOwner.Rights()},
			},
		},
		{
			Slug: "all", State: policy.StateArchived, Offline: policy.OfflineMax,
			Names: map[string]string{"pt-br": "Todos"}, Descriptions: map[string]string{"en": "Everybody who signed in: careful"},
			Expiry: policy.Expiry{Kind: policy.ExpiryOnDate, At: time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC)},
			Grants: []policy.Grant{{To: principal("anyone"), Rights: vocab.RightsOf(vocab.RightView, vocab.RightPrint)}},
		},
	}
	got, err := templatefile.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, equal); diff != "" {
		t.Error(diff)
	}
}

const good = `kind: Template
id: a
names: {en: A}
state: published
grants:
  - {to: "user:bob@contoso.com", rights: viewer}
expires: never
offline: 7d
`

func insteadOfGrant(s string) [2]string {
	return [2]string{`{to: "user:bob@contoso.com", rights: viewer}`, s}
}

// refusals change one thing of a good file.
var refusals = []struct {
	name   string
	change [2]string
	want   string
}{
	{"unknown key", [2]string{"expires:", "expirse: never\nexpires:"}, `line 7: a template has no key "expirse". The keys are kind, id,`},
	{"doubled key", [2]string{"offline: 7d", "offline: 7d\noffline: 7d"}, "line 9: offline is here twice"},
	{"missing key", [2]string{"offline: 7d", ""}, "line 1: a template lacks offline. Write for example: offline: 7d"},
	{"another kind", [2]string{"kind: Template", "kind: Group"}, `line 1: kind "Group" is unknown`},
	{"bad id", [2]string{"id: a", "id: A"}, `line 2: id "A": want 1 to 63`},
	{"id is a number", [2]string{"id: a", "id: 7"}, `line 2: id could mean something else than text. Put it in quotes: "7"`},
	{"id is null", [2]string{"id: a", "id: ~"}, "line 2: id is empty"},
	{"id is a list", [2]string{"id: a", "id: [a]"}, "line 2: id must be a single value"},
	{"no names", [2]string{"{en: A}", "{}"}, "the template has no name"},
	{"names as text", [2]string{"{en: A}", "A"}, "line 3: names must be one text for each language"},
	{"bad language", [2]string{"{en: A}", "{e: A}"}, `line 3: "e" is not a language tag`},
	{"language twice", [2]string{"{en: A}", "{en: A, EN: B}"}, "line 3: names has en twice"},
	{"name unquoted no", [2]string{"{en: A}", "{en: 1.10}"}, "line 3: names in en could mean something else than text"},
	{"name too long", [2]string{"{en: A}", "{en: " + strings.Repeat("A", 201) + "}"}, "line 3: names in en has 201 bytes"},
	{"name with control", [2]string{"{en: A}", `{en: "A\u0007"}`}, "not plain text"},
	{"list as language", [2]string{"{en: A}", "{[a]: A}"}, "line 3: names must be one text"},
	{"state deleted", [2]string{"state: published", "state: deleted"}, `line 4: state "deleted" is unknown: write published or archived`},
	{"grants as mapping", [2]string{`  - {to: "user:bob@contoso.com", rights: viewer}`, "  to: anyone"}, "grants must be a list"},
	{"grant without to", insteadOfGrant("{rights: viewer}"), "line 6: a grant lacks to. Write for example: to: user:bob@contoso.com"},
	{"grant without rights", insteadOfGrant("{to: anyone}"), "line 6: a grant lacks rights"},
	{"grant unknown key", insteadOfGrant("{to: anyone, rights: viewer, deny: [VIEW]}"), `line 6: a grant has no key "deny"`},
	{"grant as text", insteadOfGrant("anyone"), "line 6: a grant must be key: value lines"},
	{"bad principal", insteadOfGrant("{to: bob, rights: viewer}"), `line 6: "bob" is not a principal: write user:`},
	{"look-alike address", insteadOfGrant(`{to: "user:bоb@contoso.com", rights: viewer}`), "outside ASCII"},
	{"bad level", insteadOfGrant("{to: anyone, rights: editor}"), `line 6: "editor" is not a level`},
	{"bad right", insteadOfGrant("{to: anyone, rights: [VIEW, DELETE]}"), `line 6: "DELETE" is not a usage right`},
	{"right twice", insteadOfGrant("{to: anyone, rights: [VIEW, view]}"), "line 6: the right VIEW is here twice"},
	{"no right", insteadOfGrant("{to: anyone, rights: []}"), "line 6: rights is empty"},
	{"until without zone", insteadOfGrant("{to: anyone, rights: viewer, until: 2026-11-27T18:00:00}"), "line 6: \"2026-11-27T18:00:00\" is not a time with a zone"},
	{"until a day", insteadOfGrant("{to: anyone, rights: viewer, until: 2026-11-27}"), "is not a time with a zone"},
	{"until too fine", insteadOfGrant("{to: anyone, rights: viewer, until: 2026-11-27T18:00:00.0001Z}"), "finer than a millisecond"},
	{"until before 1970", insteadOfGrant("{to: anyone, rights: viewer, until: 1926-11-27T18:00:00Z}"), "not in the years"},
	{"bad login", insteadOfGrant("{to: anyone, rights: viewer, login: strong}"), `line 6: login "strong" is unknown`},
	{"bad network", insteadOfGrant("{to: anyone, rights: viewer, networks: [10.0.0.1]}"), `line 6: "10.0.0.1" is not a network`},
	{"host bits", insteadOfGrant("{to: anyone, rights: viewer, networks: [10.0.0.1/8]}"), "did you mean 10.0.0.0/8?"},
	{"IPv4 in IPv6", insteadOfGrant(`{to: anyone, rights: viewer, networks: ["::ffff:10.0.0.0/104"]}`), "write the IPv4 form"},
	{"network twice", insteadOfGrant("{to: anyone, rights: viewer, networks: [10.0.0.0/8, 10.0.0.0/8]}"), "is here twice"},
	{"no network", insteadOfGrant("{to: anyone, rights: viewer, networks: []}"), "line 6: networks is empty"},
	{"expires a period without unit", [2]string{"expires: never", "expires: 90"}, "line 7: expires:"},
	{"expires weeks", [2]string{"expires: never", "expires: 3w after protection"}, `line 7: "3w" is not a period`},
	{"expires at once", [2]string{"expires: never", "expires: 0d after protection"}, "line 7: expires"},
	{"offline forever", [2]string{"offline: 7d", "offline: forever"}, "line 8: offline:"},
	{"offline negative", [2]string{"offline: 7d", "offline: -1"}, "line 8: offline:"},
	{"offline too long", [2]string{"offline: 7d", "offline: 65536d"}, "longer than 65535 days"},
	{"offline overflows", [2]string{"offline: 7d", "offline: 999999999999999d"}, "longer than 65535 days"},
	{"bad contact", [2]string{"offline: 7d", "offline: 7d\ncontact: help"}, `line 9: "help" is not an e-mail address`},
	{"bad custody", [2]string{"offline: 7d", "offline: 7d\ncustody: loose"}, `line 9: "loose" is not a custody mode`},
	{"select twice", [2]string{"offline: 7d", "offline: 7d\nselect: [anyone, anyone]"}, "names anyone twice"},
	{"select too long", [2]string{"offline: 7d", "offline: 7d\nselect: [" + strings.Repeat("anyone,", 201) + "]"}, "select has 201 entries"},
	{"anchor", [2]string{"id: a", "id: &x a"}, "line 2: anchors and aliases"},
	{"alias", [2]string{"names: {en: A}", "names: &x {en: A}"}, "line 3: anchors and aliases"},
	{"alias bomb", [2]string{"names: {en: A}", "names: &x [*x, *x]"}, ""},
	{"merge key", [2]string{"id: a", "<<: {id: a}"}, `line 2: a template has no key "<<"`},
	{"tag", [2]string{"id: a", "id: !!str 7"}, "line 2: tags (!) are not supported"},
	{"key is a list", [2]string{"id: a", "[id]: a"}, "a template has no key"},
	{"doubled document", [2]string{"offline: 7d\n", "offline: 7d\n---\n" + good}, "the template a is in the file twice"},
	{"second is no template", [2]string{"offline: 7d\n", "offline: 7d\n---\n42\n"}, "a template must be key: value lines"},
	{"not YAML", [2]string{"id: a", "id: [a"}, "this is not YAML"},
	{"not UTF-8", [2]string{"id: a", "id: \xff"}, "this is not YAML"},
}

// TestRefusals: every refusal names the line and helps on, and nothing is read.
func TestRefusals(t *testing.T) {
	if _, err := templatefile.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			file := strings.Replace(good, c.change[0], c.change[1], 1)
			if file == good {
				t.Fatal("the case changes nothing")
			}
			got, err := templatefile.Parse([]byte(file))
			if err == nil || got != nil {
				t.Fatalf("read:\n%s", file)
			}
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	for name, file := range map[string]string{
		"empty":    "",
		"comment":  "# nothing\n",
		"huge":     strings.Repeat("#", templatefile.MaxBytes+1),
		"deep":     strings.Repeat("[", 20_000),
		"deep map": strings.Repeat("{a: ", 20_000),
	} {
		if _, err := templatefile.Parse([]byte(file)); !errors.Is(err, vocab.ReasonConfigurationInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var many bytes.Buffer
	for i := range templatefile.MaxTemplates + 1 {
		fmt.Fprintf(&many, "---\n{kind: Template, id: t%d, names: {en: A}, state: published, grants: [], expires: never, offline: 0}\n", i)
	}
	if _, err := templatefile.Parse(many.Bytes()); err == nil || !strings.Contains(err.Error(), "more than 500 templates") {
		t.Errorf("501 templates: %v", err)
	}
}

func TestFormatRefusesDeleted(t *testing.T) {
	ts, err := templatefile.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	ts[0].State = policy.StateDeleted
	if _, err := templatefile.Format(ts[0]); !errors.Is(err, vocab.ReasonTemplateDeleted) {
		t.Errorf("deleted: %v", err)
	}
	ts[1].Grants[0].Rights = 0
	if _, err := templatefile.Format(ts[1]); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("invalid: %v", err)
	}
}

// roundTrip writes templates, reads them back and writes them again.
func roundTrip(ts []*policy.Template) error {
	file, err := templatefile.Format(ts...)
	if err != nil {
		return fmt.Errorf("format: %w", err)
	}
	back, err := templatefile.Parse(file)
	if err != nil {
		return fmt.Errorf("parse what was written: %w\n%s", err, file)
	}
	for _, t := range ts {
		// Read back in the order in which they are written.
		t.Select = policy.SortedPrincipals(t.Select)
		for i, g := range t.Grants {
			t.Grants[i].Networks = policy.SortedNetworks(g.Networks)
		}
	}
	if diff := cmp.Diff(ts, back, equal); diff != "" {
		return fmt.Errorf("reads back otherwise:\n%s\n%s", diff, file)
	}
	again, err := templatefile.Format(back...)
	if err != nil || !bytes.Equal(file, again) {
		return fmt.Errorf("writes otherwise: %v\n%s\n%s", err, file, again)
	}
	return nil
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if err := roundTrip([]*policy.Template{templatefiletest.Draw(t)}); err != nil {
			t.Fatal(err)
		}
	})
}

// Two templates differ exactly where their files do: an apply that finds
// nothing to write leaves what the file says.
func TestDiffIsEmptyExactlyForTheSameFile(t *testing.T) {
	now := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		a := templatefiletest.Draw(t)
		b := *a
		// One thing of another template, so that most is the same.
		switch other := templatefiletest.Draw(t); rapid.IntRange(0, 11).Draw(t, "thing") {
		case 0:
			b.Slug = other.Slug
		case 1:
			b.Names = other.Names
		case 2:
			b.Descriptions = other.Descriptions
		case 3:
			b.State = other.State
		case 4:
			b.Grants = other.Grants
		case 5:
			b.Grants = rapid.Permutation(a.Grants).Draw(t, "order")
		case 6:
			b.Expiry = other.Expiry
		case 7:
			b.Offline = other.Offline
		case 8:
			b.Select = other.Select
		case 9:
			b.Select = rapid.Permutation(a.Select).Draw(t, "order")
		case 10:
			b.Contact = other.Contact
		case 11:
			b.Custody = other.Custody
		}
		changes, fields := policy.Diff(a, &b, now)
		x, err := templatefile.Format(a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := templatefile.Format(&b)
		if err != nil {
			t.Fatal(err)
		}
		if same := len(changes) == 0 && len(fields) == 0; same != bytes.Equal(x, y) {
			t.Fatalf("changes %+v, fields %v\n%s\n%s", changes, fields, x, y)
		}
	})
}

// FuzzParse: whatever is read is valid and survives writing.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("kind: Template\nid: a\nnames: {en: A}\nstate: published\ngrants: []\nexpires: 90d after protection\noffline: 0\n"))
	for _, c := range refusals {
		f.Add([]byte(strings.Replace(good, c.change[0], c.change[1], 1)))
	}
	for _, c := range [][2]string{{"", "---\n"}, {"grants:", "grants: 1\nx:"}, {"state: ", "state: [a]\nx: "}, {"offline: ", "offline: [a]\nx: "}} {
		f.Add([]byte(strings.Replace(good, c[0], c[1], 1)))
	}
	f.Add([]byte{})
	f.Add([]byte("# nothing but this\n"))
	f.Add([]byte("kind: Template\nid: a\nnames: {en: A}\nstate: published\ngrants: [{to: [a], rights: [VIEW]}]\n"))
	f.Add([]byte("kind: Template\nid: a\nnames: {en: A}\nstate: published\ngrants: [{to: 'user:x@y.zz', rights: [VIEW], login: any}]\n"))
	f.Add([]byte("kind: " + strings.Repeat("x", 100) + "\n"))
	f.Add(bytes.Repeat([]byte("kind: Template\nid: a\n---\n"), templatefile.MaxTemplates+1))
	f.Add([]byte("grants: [{to: user:x@y.zz, rights: [VIEW, VIEW], until: 2026-01-01, networks: [1.2.3.4/8]}]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		ts, err := templatefile.Parse(file)
		if err != nil {
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) || ts != nil {
				t.Fatalf("%v, %v", ts, err)
			}
			return
		}
		for _, tpl := range ts {
			if err := tpl.Validate(); err != nil {
				t.Fatal(err)
			}
		}
		if err := roundTrip(ts); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDocumentation: the example of docs/policy.md is a template.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	file, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page has no example")
	}
	if _, err := templatefile.Parse([]byte(file)); err != nil {
		t.Error(err)
	}
}
