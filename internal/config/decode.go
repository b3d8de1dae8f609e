package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/vocab"
)

// maxFile bounds one configuration file, in bytes.
const maxFile = 1 << 20

// decodeFile reads one YAML document into v, strictly.
func decodeFile(path string, v any) error {
	b, err := readBounded(path)
	if err != nil {
		return err
	}
	return inFile(path, decode(b, v))
}

// decode refuses unknown and repeated keys, aliases (whose expansion has no
// bound worth trusting), merge keys (which repeat keys in disguise) and a
// second document.
func decode(b []byte, v any) error {
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return invalid("%w", err)
	}
	if n.IsZero() {
		return invalid("the file is empty")
	}
	if line := aliasLine(&n); line != 0 {
		return invalid("line %d: anchors, aliases and merge keys are not supported", line)
	}
	if err := formerKeys(&n); err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		return invalid("%w", err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return invalid("the file holds more than one document")
	}
	return nil
}

func aliasLine(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Tag == "!!merge" {
		return n.Line
	}
	for _, c := range n.Content {
		if line := aliasLine(c); line != 0 {
			return line
		}
	}
	return 0
}

// formerKeys refuses the keys that tenants' files once had, and says what to
// write instead; they are unknown like any other, but were right once.
func formerKeys(document *yaml.Node) error {
	for key, value := range pairs(document) {
		switch key.Value {
		case "custodian":
			return invalid("line %d: custodian is not a key any more: write the same block under custodians, with a name of yours, as custodians: {NAME: …}", key.Line)
		case "custodians":
			for _, custodian := range pairs(value) {
				for part, vault := range pairs(custodian) {
					for setting := range pairs(vault) {
						if part.Value == "vault" && (setting.Value == "root" || setting.Value == "sign") {
							return invalid("line %d: %s is not a key any more: the names of keys are registered, not configured", setting.Line, setting.Value)
						}
					}
				}
			}
		}
	}
	return nil
}

// pairs are the keys and values of a mapping, or of the one a document holds.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
			n = n.Content[0]
		}
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, invalid("%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, invalid("%w", err)
	}
	if len(b) > maxFile {
		return nil, invalid("%s is larger than %d bytes", path, maxFile)
	}
	return b, nil
}

func invalid(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, format, args...)
}

// inFile puts the file's path before the message.
func inFile(path string, err error) error {
	if err == nil {
		return nil
	}
	message := err.Error()
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		message = e.Message
	}
	e := invalid("%s", fmt.Sprintf("%s: %s", path, message))
	return e.Because(err)
}

func sortedNames(m map[string]Tenant) []string { return slices.Sorted(maps.Keys(m)) }
