package strictyaml_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/policy/strictyaml"
	"github.com/openrms/rms/internal/vocab"
)

// note is a file of a test: a word, a text and some numbers.
type note struct {
	word, text string
	numbers    []string
}

var kind = strictyaml.Kind{Name: "Note", Noun: "note", MaxBytes: 200, MaxDocuments: 3}

func parse(file []byte) (out []note, err error) {
	err = kind.Documents(file, func(root *yaml.Node) error {
		var n note
		err := strictyaml.Mapping(root, "a note", []string{"kind", "word", "text", "numbers"}, map[string]strictyaml.Field{
			"kind": kind.Field(),
			"word": {Required: "word: up", Read: strictyaml.Word("word", func(s string) error {
				if n.word = s; s != "up" && s != "down" {
					return vocab.Errorf(vocab.ReasonInternal, "word %q is unknown", strictyaml.Clip(s))
				}
				return nil
			})},
			"text": {Read: func(v *yaml.Node) (err error) {
				n.text, err = strictyaml.Text(v, "text")
				return err
			}},
			"numbers": {Read: func(v *yaml.Node) error {
				return strictyaml.List(v, "numbers", 3, func(e *yaml.Node) error {
					s, err := strictyaml.Scalar(e, "numbers")
					n.numbers = append(n.numbers, s)
					return err
				})
			}},
		})
		out = append(out, n)
		return err
	})
	return out, err
}

func format(notes []note) ([]byte, error) {
	var roots []*yaml.Node
	for _, n := range notes {
		o := strictyaml.NewObject(0)
		o.Add("kind", strictyaml.Str(kind.Name))
		o.Add("word", strictyaml.Str(n.word))
		if n.text != "" {
			o.Add("text", strictyaml.Str(n.text))
		}
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i, s := range n.numbers {
			if i%2 == 0 {
				list.Content = append(list.Content, strictyaml.Quoted(s))
			} else {
				list.Content = append(list.Content, strictyaml.Str(s))
			}
		}
		o.Add("numbers", list)
		roots = append(roots, o.Node)
	}
	return strictyaml.Encode(roots...)
}

// files are what a reader must tell apart; empty: it is read.
var files = []struct{ name, file, want string }{
	{"one", "kind: Note\nword: up\ntext: some\nnumbers: [1, 2]\n", ""},
	{"two", "kind: Note\nword: up\n---\n{kind: Note, word: down}\n", ""},
	{"nothing", "", "the file holds no note. Begin with: kind: Note"},
	{"only a comment", "# nothing\n", "the file holds no note"},
	{"too many", strings.Repeat("kind: Note\nword: up\n---\n", 4), "more than 3 notes in one file"},
	{"too large", strings.Repeat("#", 201), "the file has 201 bytes: at most 200 are allowed"},
	{"not YAML", "kind: [", "this is not YAML"},
	{"no mapping", "- kind\n", "line 1: a note must be key: value lines"},
	{"another kind", "kind: Song\nword: up\n", `line 1: kind "Song" is unknown here: write Note`},
	{"no kind", "word: up\n", "line 1: a note lacks kind. Write for example: kind: Note"},
	{"unknown key", "kind: Note\nwrod: up\n", `line 2: a note has no key "wrod". The keys are kind, word, text, numbers`},
	{"long unknown key", "kind: Note\n" + strings.Repeat("k", 70) + ": up\n", strings.Repeat("k", 64) + "…"},
	{"a list as key", "kind: Note\n[word]: up\n", "line 2: a note has no key"},
	{"merge key", "kind: Note\n<<: {word: up}\n", "line 2: a note has no key"},
	{"doubled key", "kind: Note\nword: up\nword: up\n", "line 3: word is here twice"},
	{"missing key", "kind: Note\n", "line 1: a note lacks word"},
	{"anchor", "kind: Note\nword: &a up\n", "line 2: anchors and aliases (& and *) are not supported. Write the value out"},
	{"anchored key", "kind: Note\n&a word: up\n", "line 2: a note has no key"},
	{"alias", "kind: Note\nword: up\nnumbers: [&a 1, *a]\n", "line 3: anchors and aliases"},
	{"tag", "kind: Note\nword: !!str up\n", "line 2: tags (!) are not supported. Write the plain value"},
	{"empty", "kind: Note\nword:\n", "line 2: word is empty"},
	{"null", "kind: Note\nword: ~\n", "line 2: word is empty"},
	{"a list for a value", "kind: Note\nword: [up]\n", "line 2: word must be a single value"},
	{"a word nobody knows", "kind: Note\nword: left\n", `line 2: word "left" is unknown`},
	{"a number for text", "kind: Note\nword: up\ntext: 1.10\n", `line 3: text could mean something else than text. Put it in quotes: "1.10"`},
	{"a date for text", "kind: Note\nword: up\ntext: 2027-01-01\n", "line 3: text could mean"},
	{"yes is text", "kind: Note\nword: up\ntext: yes\n", ""},
	{"true is none", "kind: Note\nword: up\ntext: true\n", "line 3: text could mean"},
	{"too many entries", "kind: Note\nword: up\nnumbers: [1, 2, 3, 4]\n", "line 3: numbers has 4 entries: at most 3 are allowed"},
	{"no list", "kind: Note\nword: up\nnumbers: 1\n", "line 3: numbers must be a list"},
	{"an entry that is wrong", "kind: Note\nword: up\nnumbers:\n  - 1\n  - {}\n", "line 5: numbers must be a single value"},
}

func TestFiles(t *testing.T) {
	for _, c := range files {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse([]byte(c.file))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestMessage(t *testing.T) {
	if got := strictyaml.Message(vocab.Errorf(vocab.ReasonInternal, "what happened").WithNext("Do this")); got != "what happened" {
		t.Errorf("%q", got)
	}
	if got := strictyaml.Message(errors.New("something")); got != "something" { //nolint:err113 // a foreign error
		t.Errorf("%q", got)
	}
}

// FuzzDocuments: whatever is read survives writing, and every refusal is one of
// the reader's own.
func FuzzDocuments(f *testing.F) {
	for _, c := range files {
		f.Add([]byte(c.file))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		notes, err := parse(file)
		if err != nil {
			if !errors.Is(err, vocab.ReasonConfigurationInvalid) {
				t.Fatal(err)
			}
			return
		}
		written, err := format(notes)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(written)
		if len(written) > kind.MaxBytes {
			return // it grew by being written
		}
		if err != nil || fmt.Sprintf("%q", notes) != fmt.Sprintf("%q", again) {
			t.Fatalf("%q was written as\n%s\nand read as %q, %v", notes, written, again, err)
		}
	})
}
