package groupfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/policy/groupfile"
	"github.com/openrms/rms/internal/vocab"
)

const example = `kind: Group
id: Finance@contoso.com
description: who may see figures before they are published
members: [bob@contoso.com, "service:dms", "group:audit@contoso.com", "user:Carla@contoso.com"]
---
{kind: Group, id: interns@contoso.com, members: []}
`

func principal(s string) vocab.Principal {
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		panic(err)
	}
	return p
}

func TestParse(t *testing.T) {
	want := []*groupfile.Group{
		{
			Address: "finance@contoso.com", Description: "who may see figures before they are published",
			Members: []vocab.Principal{
				principal("user:bob@contoso.com"), principal("user:carla@contoso.com"), principal("group:audit@contoso.com"), principal("service:dms"),
			},
		},
		{Address: "interns@contoso.com"},
	}
	got, err := groupfile.Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

const good = `kind: Group
id: a@contoso.com
members:
  - bob@contoso.com
`

// refusals change one thing of a good file.
var refusals = []struct {
	name   string
	change [2]string
	want   string
}{
	{"unknown key", [2]string{"members:", "member: x\nmembers:"}, `line 3: a group has no key "member". The keys are kind, id, members, description`},
	{"doubled key", [2]string{"id: a@contoso.com", "id: a@contoso.com\nid: a@contoso.com"}, "line 3: id is here twice"},
	{"no members", [2]string{"members:\n  - bob@contoso.com\n", ""}, "line 1: a group lacks members. Write for example: members: [bob@contoso.com]"},
	{"no id", [2]string{"id: a@contoso.com\n", ""}, "line 1: a group lacks id"},
	{"another kind", [2]string{"kind: Group", "kind: Template"}, `line 1: kind "Template" is unknown here: write Group`},
	{"id is no address", [2]string{"id: a@contoso.com", "id: finance"}, `line 2: "finance" is not an e-mail address`},
	{"id with a prefix", [2]string{"id: a@contoso.com", `id: "group:a@contoso.com"`}, "line 2:"},
	{"member is no principal", [2]string{"bob@contoso.com", "bob"}, `line 4: "bob" is not a principal`},
	{"member is a domain", [2]string{"bob@contoso.com", `"domain:contoso.com"`}, "line 4: domain:contoso.com cannot be a member. Name users, services and groups"},
	{"member is anyone", [2]string{"bob@contoso.com", "anyone"}, "line 4: anyone cannot be a member"},
	{"member is a number", [2]string{"bob@contoso.com", "7"}, "line 4: members could mean something else than text"},
	{"member is a list", [2]string{"- bob@contoso.com", "- [bob@contoso.com]"}, "line 4: members must be a single value"},
	{"member twice", [2]string{"- bob@contoso.com", "- bob@contoso.com\n  - \"user:Bob@contoso.com\""}, "line 5: user:bob@contoso.com is a member twice: see line 4"},
	{"member of itself", [2]string{"bob@contoso.com", `"group:a@contoso.com"`}, "line 4: a@contoso.com cannot be a member of itself"},
	{"look-alike address", [2]string{"bob@contoso.com", "bоb@contoso.com"}, "outside ASCII"},
	{"members as text", [2]string{"\n  - bob@contoso.com", " bob@contoso.com"}, "line 3: members must be a list"},
	{"description too long", [2]string{"members:", "description: " + strings.Repeat("x", 2001) + "\nmembers:"}, "line 3: the description is longer than 2000 bytes"},
	{"description of two lines", [2]string{"members:", "description: |\n  a\n  b\nmembers:"}, "line 3: the description is longer"},
	{"description unquoted", [2]string{"members:", "description: 1.10\nmembers:"}, "line 3: description could mean something else than text"},
	{"anchor", [2]string{"bob@contoso.com", "&x bob@contoso.com"}, "line 4: anchors and aliases"},
	{"tag", [2]string{"bob@contoso.com", "!!str bob@contoso.com"}, "line 4: tags (!) are not supported"},
	{"doubled group", [2]string{"  - bob@contoso.com\n", "  - bob@contoso.com\n---\n" + good}, "the group a@contoso.com is in the file twice"},
	{"second is no group", [2]string{"  - bob@contoso.com\n", "  - bob@contoso.com\n---\n42\n"}, "a group must be key: value lines"},
	{"not YAML", [2]string{"- bob@contoso.com", "- [bob"}, "this is not YAML"},
}

// TestRefusals: every refusal names the line and helps on, and nothing is read.
func TestRefusals(t *testing.T) {
	if _, err := groupfile.Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			file := strings.Replace(good, c.change[0], c.change[1], 1)
			if file == good {
				t.Fatal("the case changes nothing")
			}
			got, err := groupfile.Parse([]byte(file))
			if err == nil || got != nil {
				t.Fatalf("read:\n%s", file)
			}
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// The limits are those of the directory, of which a client knows nothing else.
func TestLimits(t *testing.T) {
	if groupfile.MaxMembers != directory.MaxMembers {
		t.Errorf("a file may have %d members, a group %d", groupfile.MaxMembers, directory.MaxMembers)
	}
	members := func(n int) []byte {
		var b bytes.Buffer
		b.WriteString("kind: Group\nid: a@contoso.com\nmembers:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - firstname.lastname-%05d@contoso.com\n", i)
		}
		return b.Bytes()
	}
	if got, err := groupfile.Parse(members(groupfile.MaxMembers)); err != nil || len(got[0].Members) != groupfile.MaxMembers {
		t.Errorf("as many as may be: %v", err)
	}
	if _, err := groupfile.Parse(members(groupfile.MaxMembers + 1)); err == nil {
		t.Error("one more was read")
	}
	if _, err := groupfile.Parse(make([]byte, groupfile.MaxBytes+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a file too large: %v", err)
	}
}

func TestCheckApart(t *testing.T) {
	group := func(address string, in ...string) *groupfile.Group {
		g := &groupfile.Group{Address: address + "@x.test"}
		for _, m := range in {
			g.Members = append(g.Members, principal("group:"+m+"@x.test"))
		}
		return g
	}
	for _, c := range []struct {
		name   string
		groups []*groupfile.Group
		want   string
	}{
		{"none", nil, ""},
		{"apart", []*groupfile.Group{group("a"), group("b")}, ""},
		{"one in another, by two ways", []*groupfile.Group{group("a", "b", "c"), group("b", "c"), group("c")}, ""},
		{"of others", []*groupfile.Group{group("a", "z"), group("b", "z")}, ""},
		{"two", []*groupfile.Group{group("a", "b"), group("b", "a")}, "a@x.test contains b@x.test contains a@x.test"},
		{"behind others", []*groupfile.Group{group("x", "a"), group("a", "b"), group("b", "c"), group("c", "z", "a")}, "a@x.test contains b@x.test contains c@x.test contains a@x.test"},
	} {
		err := groupfile.CheckApart(c.groups)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasSuffix(err.Error(), "groups would stand in a circle: "+c.want+" (CONFIGURATION_INVALID)")) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func roundTrip(groups []*groupfile.Group) error {
	file, err := groupfile.Format(groups...)
	if err != nil {
		return err
	}
	back, err := groupfile.Parse(file)
	if err != nil {
		return fmt.Errorf("%w:\n%s", err, file)
	}
	if diff := cmp.Diff(groups, back, cmpopts.EquateEmpty()); diff != "" {
		return fmt.Errorf("reads back otherwise:\n%s\n%s", diff, file)
	}
	again, err := groupfile.Format(back...)
	if err != nil || !bytes.Equal(file, again) {
		return fmt.Errorf("writes otherwise: %v\n%s\n%s", err, file, again)
	}
	return nil
}

func TestRoundTrip(t *testing.T) {
	whom := rapid.SampledFrom([]vocab.Principal{
		principal("user:{x}&y@contoso.com"), principal("user:0x1f@contoso.com"), principal("user:*a@contoso.com"), principal("user:`b`@contoso.com"),
		principal("user:o'brien@contoso.com"), principal("group:f@contoso.com"), principal("service:dlp"), principal("service:7"),
	})
	rapid.Check(t, func(t *rapid.T) {
		g := &groupfile.Group{
			Address:     rapid.SampledFrom([]string{"a@contoso.com", "#x@contoso.com", "!y@contoso.com"}).Draw(t, "address"),
			Description: rapid.StringMatching(`|[ -~äß–"'#:&*!|>%@{}\[\]]{1,40}`).Draw(t, "description"),
			Members:     rapid.SliceOfNDistinct(whom, 0, 6, rapid.ID).Draw(t, "members"),
		}
		slices.SortFunc(g.Members, vocab.Principal.Compare)
		if err := roundTrip([]*groupfile.Group{g}); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzParse: whatever is read survives writing.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	for _, c := range refusals {
		f.Add([]byte(strings.Replace(good, c.change[0], c.change[1], 1)))
	}
	f.Add([]byte{})
	f.Add([]byte("---\n"))
	f.Add([]byte("kind: Group\nid: a@contoso.com\ndescription: [x]\nmembers: [a@contoso.com]"))
	f.Fuzz(func(t *testing.T, file []byte) {
		groups, err := groupfile.Parse(file)
		if err != nil {
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) || groups != nil {
				t.Fatalf("%v, %v", groups, err)
			}
			return
		}
		_ = groupfile.CheckApart(groups)
		if err := roundTrip(groups); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDocumentation: the example of docs/policy.md is a file of groups.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\nkind: Group")
	file, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the page has no example")
	}
	if _, err := groupfile.Parse([]byte("kind: Group" + file)); err != nil {
		t.Error(err)
	}
}
