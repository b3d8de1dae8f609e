package strictyaml

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// Object is a mapping in the order its keys are added.
type Object struct{ Node *yaml.Node }

// NewObject returns an empty mapping.
func NewObject(style yaml.Style) Object {
	return Object{&yaml.Node{Kind: yaml.MappingNode, Style: style}}
}

// Add adds a key that is not there yet.
func (o Object) Add(key string, value *yaml.Node) {
	o.Node.Content = append(o.Node.Content, Str(key), value)
}

// Str is text; the encoder quotes what would read as something else.
func Str(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	// Block text would begin on a line of its own and hide trailing spaces.
	n.Style &^= yaml.LiteralStyle
	return n
}

// Raw is a value written without quotes: our own numbers and times.
func Raw(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// Quoted is for values with colons, which plain YAML reads in surprising ways.
func Quoted(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

// Encode writes documents, one after the other.
func Encode(roots ...*yaml.Node) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	for _, root := range roots {
		if err := enc.Encode(root); err != nil {
			return nil, err
		}
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
