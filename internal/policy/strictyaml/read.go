// Package strictyaml reads and writes files for people in the part of YAML that
// can be meant in one way only. Unknown and doubled keys, anchors and aliases,
// tags and values that YAML could take for something else are refused, with the
// line and what to write instead.
//
// It knows the form of such files and nothing of what they say: that is the
// affair of the packages beside it.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/vocab"
)

// Kind is what the documents of a file are.
type Kind struct {
	// Name stands behind the key kind, as in Template.
	Name string
	// Noun is what errors call one, as in template.
	Noun string
	// MaxBytes and MaxDocuments bound one file.
	MaxBytes, MaxDocuments int
}

// Documents calls read with the root of each document of a file, in order. The
// error is a [vocab.Error] with [vocab.ReasonConfigurationInvalid] that names
// the line; a file without any document is one.
func (k Kind) Documents(file []byte, read func(root *yaml.Node) error) error {
	if len(file) > k.MaxBytes {
		return Fail(0, "the file has %d bytes: at most %d are allowed", len(file), k.MaxBytes)
	}
	dec, n := yaml.NewDecoder(bytes.NewReader(file)), 0
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return Fail(0, "this is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if n++; n > k.MaxDocuments {
			return Fail(doc.Line, "more than %d %ss in one file", k.MaxDocuments, k.Noun)
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
			return Fail(doc.Line, "this is no %s", k.Noun)
		}
		if err := read(doc.Content[0]); err != nil {
			return err
		}
	}
	if n == 0 {
		return Fail(0, "the file holds no %s", k.Noun).WithNext("Begin with: kind: %s", k.Name)
	}
	return nil
}

// Field reads the key kind, which every document has.
func (k Kind) Field() Field {
	return Field{Required: "kind: " + k.Name, Read: Word("kind", func(s string) error {
		if s != k.Name {
			return fmt.Errorf("kind %q is unknown here: write %s", Clip(s), k.Name)
		}
		return nil
	})}
}

// Fail returns the error of a line; 0 is of no line.
func Fail(line int, format string, args ...any) *vocab.Error {
	e := vocab.Errorf(vocab.ReasonConfigurationInvalid, format, args...)
	if line > 0 {
		e.Message = fmt.Sprintf("line %d: %s", line, e.Message)
	}
	return e
}

// Field reads the value of one key of a mapping.
type Field struct {
	Read     func(*yaml.Node) error
	Required string // what to write, if it must be there
}

// Mapping reads a mapping with the given keys and no others. what names it in
// errors, order is the order in which they list its keys.
func Mapping(n *yaml.Node, what string, order []string, fields map[string]Field) error {
	if err := Plain(n, yaml.MappingNode, what, "key: value lines"); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f, ok := fields[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || key.Anchor != "" || !ok:
			return Fail(key.Line, "%s has no key %q", what, Clip(key.Value)).WithNext("The keys are %s", strings.Join(order, ", "))
		case seen[key.Value]:
			return Fail(key.Line, "%s is here twice", key.Value)
		}
		seen[key.Value] = true
		if err := f.Read(value); err != nil {
			return err
		}
	}
	for _, name := range order {
		if hint := fields[name].Required; hint != "" && !seen[name] {
			return Fail(n.Line, "%s lacks %s", what, name).WithNext("Write for example: %s", hint)
		}
	}
	return nil
}

// Plain demands a node of a kind without anchor, alias or tag.
func Plain(n *yaml.Node, kind yaml.Kind, what, want string) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return Fail(n.Line, "anchors and aliases (& and *) are not supported").WithNext("Write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		return Fail(n.Line, "tags (!) are not supported").WithNext("Write the plain value")
	case n.Kind != kind:
		return Fail(n.Line, "%s must be %s", what, want)
	}
	return nil
}

// Scalar returns a value as it is written, whatever YAML takes it for.
func Scalar(n *yaml.Node, what string) (string, error) {
	if err := Plain(n, yaml.ScalarNode, what, "a single value"); err != nil {
		return "", err
	}
	if n.Value == "" || n.Tag == "!!null" {
		return "", Fail(n.Line, "%s is empty", what)
	}
	return n.Value, nil
}

// Text returns a value that YAML takes for text too: an unquoted no, 1.10 or
// 2027 is asked back.
func Text(n *yaml.Node, what string) (string, error) {
	s, err := Scalar(n, what)
	if err == nil && n.Tag != "!!str" {
		return "", Fail(n.Line, "%s could mean something else than text", what).WithNext("Put it in quotes: %q", Clip(s))
	}
	return s, err
}

// List reads a list of at most so many entries.
func List(n *yaml.Node, what string, most int, read func(*yaml.Node) error) error {
	if err := Plain(n, yaml.SequenceNode, what, "a list"); err != nil {
		return err
	}
	if len(n.Content) > most {
		return Fail(n.Line, "%s has %d entries: at most %d are allowed", what, len(n.Content), most)
	}
	for _, e := range n.Content {
		if err := read(e); err != nil {
			return err
		}
	}
	return nil
}

// Word makes a reader of one value whose meaning read knows.
func Word(what string, read func(string) error) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		s, err := Scalar(n, what)
		if err != nil {
			return err
		}
		if err := read(s); err != nil {
			return Fail(n.Line, "%s", Message(err))
		}
		return nil
	}
}

// Message is what an error says, without its reason.
func Message(err error) string {
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// Clip shortens a value for an error.
func Clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
