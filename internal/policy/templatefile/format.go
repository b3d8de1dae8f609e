package templatefile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/strictyaml"
	"github.com/openrms/rms/internal/vocab"
)

// Format writes templates as one file that [Parse] reads back as the same
// templates, without UID, revision, author, comment and time. The same
// templates give the same bytes. A deleted or invalid template is refused: a
// file cannot say it.
func Format(templates ...*policy.Template) ([]byte, error) {
	var roots []*yaml.Node
	for _, t := range templates {
		if err := t.Validate(); err != nil {
			return nil, err
		}
		if t.State == policy.StateDeleted {
			return nil, vocab.Errorf(vocab.ReasonTemplateDeleted, "the template %s is deleted", t.Slug).
				WithNext("Restore it first: rmsctl template undelete %s", t.Slug)
		}
		roots = append(roots, templateNode(t))
	}
	b, err := strictyaml.Encode(roots...)
	if err != nil {
		return nil, fmt.Errorf("write templates: %w", err)
	}
	return b, nil
}

func templateNode(t *policy.Template) *yaml.Node {
	o := strictyaml.NewObject(0)
	o.Add("kind", strictyaml.Str("Template"))
	o.Add("id", strictyaml.Str(t.Slug))
	o.Add("names", textsNode(t.Names))
	if len(t.Descriptions) > 0 {
		o.Add("descriptions", textsNode(t.Descriptions))
	}
	state := "published"
	if t.State == policy.StateArchived {
		state = "archived"
	}
	o.Add("state", strictyaml.Str(state))
	grants := &yaml.Node{Kind: yaml.SequenceNode}
	if len(t.Grants) == 0 {
		grants.Style = yaml.FlowStyle
	}
	for _, g := range t.Grants {
		grants.Content = append(grants.Content, grantNode(g))
	}
	o.Add("grants", grants)
	o.Add("expires", strictyaml.Raw(FormatExpiry(t.Expiry)))
	o.Add("offline", strictyaml.Raw(FormatOffline(t.Offline)))
	if len(t.Select) > 0 {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, p := range t.Select {
			n.Content = append(n.Content, strictyaml.Quoted(p.String()))
		}
		o.Add("select", n)
	}
	if t.Contact != "" {
		o.Add("contact", strictyaml.Str(t.Contact))
	}
	if t.Custody != 0 {
		o.Add("custody", strictyaml.Str(t.Custody.String()))
	}
	return o.Node
}

func grantNode(g policy.Grant) *yaml.Node {
	o := strictyaml.NewObject(yaml.FlowStyle)
	o.Add("to", strictyaml.Quoted(g.To.String()))
	if l, ok := policy.LevelOf(g.Rights); ok {
		o.Add("rights", strictyaml.Str(string(l)))
	} else {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, r := range g.Rights.List() {
			n.Content = append(n.Content, strictyaml.Str(r.String()))
		}
		o.Add("rights", n)
	}
	if !g.Until.IsZero() {
		o.Add("until", strictyaml.Raw(FormatTime(g.Until)))
	}
	if g.Login == policy.LoginMFA {
		o.Add("login", strictyaml.Str("mfa"))
	}
	if len(g.Networks) > 0 {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, p := range g.Networks {
			n.Content = append(n.Content, strictyaml.Quoted(p.String()))
		}
		o.Add("networks", n)
	}
	return o.Node
}

func textsNode(texts map[string]string) *yaml.Node {
	o := strictyaml.NewObject(0)
	for _, lang := range slices.Sorted(maps.Keys(texts)) {
		o.Add(lang, strictyaml.Str(texts[lang]))
	}
	return o.Node
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
