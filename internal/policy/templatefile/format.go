package templatefile

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// Format writes templates as one file that [Parse] reads back as the same
// templates, without UID, revision, author, comment and time: the canonical
// form. The same templates give the same bytes, and lists whose order means
// nothing, of networks and of select, are sorted; grants keep theirs. A deleted
// or invalid template is refused: a file cannot say it.
func Format(templates ...*policy.Template) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	for _, t := range templates {
		if err := t.Validate(); err != nil {
			return nil, err
		}
		if t.State == policy.StateDeleted {
			return nil, vocab.Errorf(vocab.ReasonTemplateDeleted, "the template %s is deleted", t.Slug).
				WithNext("Restore it first: rmsctl template undelete %s", t.Slug)
		}
		if err := enc.Encode(templateNode(t)); err != nil {
			return nil, fmt.Errorf("write template %s: %w", t.Slug, err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write templates: %w", err)
	}
	return out.Bytes(), nil
}

// object is a mapping in the order its keys are added.
type object struct{ n *yaml.Node }

func newObject(style yaml.Style) object {
	return object{&yaml.Node{Kind: yaml.MappingNode, Style: style}}
}

func (o object) add(key string, value *yaml.Node) {
	o.n.Content = append(o.n.Content, str(key), value)
}

// str is text; the encoder quotes what would read as something else.
func str(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	// Block text would begin on a line of its own and hide trailing spaces.
	n.Style &^= yaml.LiteralStyle
	return n
}

// raw is a value written without quotes: our own numbers and times.
func raw(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func templateNode(t *policy.Template) *yaml.Node {
	o := newObject(0)
	o.add("kind", str("Template"))
	o.add("id", str(t.Slug))
	o.add("names", textsNode(t.Names))
	if len(t.Descriptions) > 0 {
		o.add("descriptions", textsNode(t.Descriptions))
	}
	state := "published"
	if t.State == policy.StateArchived {
		state = "archived"
	}
	o.add("state", str(state))
	grants := &yaml.Node{Kind: yaml.SequenceNode}
	if len(t.Grants) == 0 {
		grants.Style = yaml.FlowStyle
	}
	for _, g := range t.Grants {
		grants.Content = append(grants.Content, grantNode(g))
	}
	o.add("grants", grants)
	o.add("expires", raw(FormatExpiry(t.Expiry)))
	o.add("offline", raw(FormatOffline(t.Offline)))
	if len(t.Select) > 0 {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, p := range policy.SortedPrincipals(t.Select) {
			n.Content = append(n.Content, quoted(p.String()))
		}
		o.add("select", n)
	}
	if t.Contact != "" {
		o.add("contact", str(t.Contact))
	}
	if t.Custody != 0 {
		o.add("custody", str(t.Custody.String()))
	}
	return o.n
}

func grantNode(g policy.Grant) *yaml.Node {
	o := newObject(yaml.FlowStyle)
	o.add("to", quoted(g.To.String()))
	if l, ok := policy.LevelOf(g.Rights); ok {
		o.add("rights", str(string(l)))
	} else {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, r := range g.Rights.List() {
			n.Content = append(n.Content, str(r.String()))
		}
		o.add("rights", n)
	}
	if !g.Until.IsZero() {
		o.add("until", quoted(FormatTime(g.Until)))
	}
	if g.Login == policy.LoginMFA {
		o.add("login", str("mfa"))
	}
	if len(g.Networks) > 0 {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, p := range policy.SortedNetworks(g.Networks) {
			n.Content = append(n.Content, quoted(p.String()))
		}
		o.add("networks", n)
	}
	return o.n
}

// quoted is for values with colons, which plain YAML reads in surprising ways.
func quoted(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Style: yaml.DoubleQuotedStyle}
}

func textsNode(texts map[string]string) *yaml.Node {
	o := newObject(0)
	for _, lang := range slices.Sorted(maps.Keys(texts)) {
		o.add(lang, str(texts[lang]))
	}
	return o.n
}

// FormatTime writes an instant in UTC as [ParseTime] reads it.
func FormatTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.999Z") }

// FormatPeriod writes a period in the largest unit that is exact.
func FormatPeriod(d time.Duration) string {
	for _, u := range units {
		if d%u.size == 0 {
			return strconv.FormatInt(int64(d/u.size), 10) + u.name
		}
	}
	return d.String()
}

// FormatOffline writes an offline period as [ParseOffline] reads it.
func FormatOffline(d time.Duration) string {
	switch {
	case d < 0:
		return "max"
	case d == 0:
		return "0"
	}
	return FormatPeriod(d)
}

// FormatExpiry writes an expiry as [ParseExpiry] reads it.
func FormatExpiry(e policy.Expiry) string {
	switch e.Kind {
	case policy.ExpiryOnDate:
		return FormatTime(e.At)
	case policy.ExpiryAfter:
		return FormatPeriod(e.After) + " after protection"
	default:
		return "never"
	}
}
