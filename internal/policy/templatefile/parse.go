// Package templatefile reads and writes templates as files for people: YAML,
// one document for each template, as `rmsctl template apply` takes them and
// `rmsctl template export` writes them.
//
// Reading is strict. Unknown and doubled keys, anchors and aliases, tags,
// times without a zone and values that could be meant in two ways are refused,
// with the line and what to write instead. What is written reads back as the
// same template.
package templatefile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of one file.
const (
	// MaxBytes is enough for one template with all the grants it may have.
	MaxBytes = 8 << 20
	// MaxTemplates is how many documents a file may hold: the number of
	// templates Azure RMS allows a tenant.
	MaxTemplates = 500
)

// Parse reads all templates of a file. UID, revision, author, comment and time
// are left to the store. It returns a [vocab.Error] with
// [vocab.ReasonConfigurationInvalid] that names the line, and no template, if
// anything in the file is wrong.
func Parse(file []byte) ([]*policy.Template, error) {
	if len(file) > MaxBytes {
		return nil, fail(0, "the file has %d bytes: at most %d are allowed", len(file), MaxBytes)
	}
	var out []*policy.Template
	dec := yaml.NewDecoder(bytes.NewReader(file))
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fail(0, "this is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if len(out) == MaxTemplates {
			return nil, fail(doc.Line, "more than %d templates in one file", MaxTemplates)
		}
		t, err := parseTemplate(&doc)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(u *policy.Template) bool { return u.Slug == t.Slug }) {
			return nil, fail(doc.Line, "the template %s is in the file twice", t.Slug)
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, fail(0, "the file holds no template").WithNext("Begin with: kind: Template")
	}
	return out, nil
}

func fail(line int, format string, args ...any) *vocab.Error {
	e := vocab.Errorf(vocab.ReasonConfigurationInvalid, format, args...)
	if line > 0 {
		e.Message = fmt.Sprintf("line %d: %s", line, e.Message)
	}
	return e
}

// field reads one key of a mapping.
type field struct {
	read     func(*yaml.Node) error
	required string // what to write, if it must be there
}

// mapping reads a mapping node strictly.
func mapping(n *yaml.Node, what string, order []string, fields map[string]field) error {
	if err := plain(n, yaml.MappingNode, what, "key: value lines"); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f, ok := fields[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || key.Anchor != "" || !ok:
			return fail(key.Line, "%s has no key %q", what, clip(key.Value)).WithNext("The keys are %s", strings.Join(order, ", "))
		case seen[key.Value]:
			return fail(key.Line, "%s is here twice", key.Value)
		}
		seen[key.Value] = true
		if err := f.read(value); err != nil {
			return err
		}
	}
	for _, name := range order {
		if hint := fields[name].required; hint != "" && !seen[name] {
			return fail(n.Line, "%s lacks %s", what, name).WithNext("Write for example: %s", hint)
		}
	}
	return nil
}

// plain demands a node of a kind without anchor, alias or tag.
func plain(n *yaml.Node, kind yaml.Kind, what, want string) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return fail(n.Line, "anchors and aliases (& and *) are not supported").WithNext("Write the value out")
	case n.Style&yaml.TaggedStyle != 0:
		return fail(n.Line, "tags (!) are not supported").WithNext("Write the plain value")
	case n.Kind != kind:
		return fail(n.Line, "%s must be %s", what, want)
	}
	return nil
}

// scalar returns a value as it is written, whatever YAML takes it for.
func scalar(n *yaml.Node, what string) (string, error) {
	if err := plain(n, yaml.ScalarNode, what, "a single value"); err != nil {
		return "", err
	}
	if n.Value == "" || n.Tag == "!!null" {
		return "", fail(n.Line, "%s is empty", what)
	}
	return n.Value, nil
}

// text returns a value that YAML takes for text too: an unquoted no, 1.10 or
// 2027 is asked back.
func text(n *yaml.Node, what string) (string, error) {
	s, err := scalar(n, what)
	if err == nil && n.Tag != "!!str" {
		return "", fail(n.Line, "%s could mean something else than text", what).WithNext("Put it in quotes: %q", clip(s))
	}
	return s, err
}

func list(n *yaml.Node, what string, most int, read func(*yaml.Node) error) error {
	if err := plain(n, yaml.SequenceNode, what, "a list"); err != nil {
		return err
	}
	if len(n.Content) > most {
		return fail(n.Line, "%s has %d entries: at most %d are allowed", what, len(n.Content), most)
	}
	for _, e := range n.Content {
		if err := read(e); err != nil {
			return err
		}
	}
	return nil
}

var (
	templateKeys = []string{"kind", "id", "names", "descriptions", "state", "grants", "expires", "offline", "select", "contact", "custody"}
	grantKeys    = []string{"to", "rights", "until", "login", "networks"}
)

func parseTemplate(doc *yaml.Node) (*policy.Template, error) {
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, fail(doc.Line, "this is no template")
	}
	t := &policy.Template{}
	root := doc.Content[0]
	err := mapping(root, "a template", templateKeys, map[string]field{
		"kind": {required: "kind: Template", read: word("kind", func(s string) error {
			if s != "Template" {
				return fmt.Errorf("kind %q is unknown here: write Template", clip(s))
			}
			return nil
		})},
		"id": {required: "id: finance-internal", read: func(n *yaml.Node) (err error) {
			t.Slug, err = text(n, "id")
			if err == nil && !vocab.ValidSlug(t.Slug) {
				return fail(n.Line, "id %q: want 1 to 63 of a–z, 0–9 and hyphens, no hyphen at either end", clip(t.Slug))
			}
			return err
		}},
		"names": {required: "names: {en: Finance – internal}", read: func(n *yaml.Node) (err error) {
			t.Names, err = texts(n, "names", policy.MaxName)
			return err
		}},
		"descriptions": {read: func(n *yaml.Node) (err error) {
			t.Descriptions, err = texts(n, "descriptions", policy.MaxText)
			return err
		}},
		"state": {required: "state: published", read: word("state", func(s string) error {
			switch s {
			case "published":
				t.State = policy.StatePublished
			case "archived":
				t.State = policy.StateArchived
			default:
				return fmt.Errorf("state %q is unknown: write published or archived", clip(s))
			}
			return nil
		})},
		"grants": {required: `grants: [{to: "group:finance@contoso.com", rights: viewer}]`, read: func(n *yaml.Node) error {
			return list(n, "grants", policy.MaxTemplateGrants, func(e *yaml.Node) error {
				g, err := parseGrant(e)
				t.Grants = append(t.Grants, g)
				return err
			})
		}},
		"expires": {required: "expires: never", read: word("expires", func(s string) (err error) {
			t.Expiry, err = ParseExpiry(s)
			return err
		})},
		"offline": {required: "offline: 7d", read: word("offline", func(s string) (err error) {
			t.Offline, err = ParseOffline(s)
			return err
		})},
		"select": {read: func(n *yaml.Node) error {
			return list(n, "select", policy.MaxSelect, func(e *yaml.Node) error {
				p, err := principal(e, "select")
				t.Select = append(t.Select, p)
				return err
			})
		}},
		"contact": {read: word("contact", func(s string) (err error) {
			t.Contact, err = vocab.CanonicalAddress(s)
			return err
		})},
		"custody": {read: word("custody", func(s string) (err error) {
			t.Custody, err = vocab.ParseCustodyMode(s)
			return err
		})},
	})
	if err != nil {
		return nil, err
	}
	// What is left are rules over several values, which have no one line.
	if err := t.Validate(); err != nil {
		e := fail(root.Line, "template %s: %s", t.Slug, message(err))
		return nil, e
	}
	return t, nil
}

func message(err error) string {
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

// word makes a reader of one value whose meaning read knows.
func word(what string, read func(string) error) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		s, err := scalar(n, what)
		if err != nil {
			return err
		}
		if err := read(s); err != nil {
			return fail(n.Line, "%s", message(err))
		}
		return nil
	}
}

func principal(n *yaml.Node, what string) (vocab.Principal, error) {
	s, err := text(n, what)
	if err != nil {
		return vocab.Principal{}, err
	}
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		return vocab.Principal{}, fail(n.Line, "%s", err.Error())
	}
	return p, nil
}

// texts reads {language: text}, in the normal form the formats store.
func texts(n *yaml.Node, what string, most int) (map[string]string, error) {
	if err := plain(n, yaml.MappingNode, what, "one text for each language, like {en: Finance}"); err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if err := plain(key, yaml.ScalarNode, what, "one text for each language, like {en: Finance}"); err != nil {
			return nil, err
		}
		lang := strings.ToLower(key.Value)
		if !policy.ValidLanguage(lang) {
			return nil, fail(key.Line, "%q is not a language tag", clip(key.Value)).WithNext("Write one like en or pt-br")
		}
		if _, ok := out[lang]; ok {
			return nil, fail(key.Line, "%s has %s twice", what, lang)
		}
		s, err := text(value, what+" in "+lang)
		if err != nil {
			return nil, err
		}
		if len(s) > most {
			return nil, fail(value.Line, "%s in %s has %d bytes: at most %d are allowed", what, lang, len(s), most)
		}
		out[lang] = norm.NFC.String(s)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

func parseGrant(n *yaml.Node) (policy.Grant, error) {
	var g policy.Grant
	err := mapping(n, "a grant", grantKeys, map[string]field{
		"to": {required: "to: user:bob@contoso.com", read: func(n *yaml.Node) (err error) {
			g.To, err = principal(n, "to")
			return err
		}},
		"rights": {required: "rights: viewer", read: func(n *yaml.Node) (err error) {
			g.Rights, err = parseRights(n)
			return err
		}},
		"until": {read: word("until", func(s string) (err error) {
			g.Until, err = ParseTime(s)
			return err
		})},
		"login": {read: word("login", func(s string) error {
			switch s {
			case "any":
				g.Login = policy.LoginAny
			case "mfa":
				g.Login = policy.LoginMFA
			default:
				return fmt.Errorf("login %q is unknown: write any or mfa", clip(s))
			}
			return nil
		})},
		"networks": {read: func(n *yaml.Node) error {
			if len(n.Content) == 0 && n.Kind == yaml.SequenceNode {
				return fail(n.Line, "networks is empty").WithNext("Leave it out to allow every network")
			}
			return list(n, "networks", policy.MaxNetworks, word("networks", func(s string) error {
				p, err := policy.ParseNetwork(s)
				if err == nil && slices.Contains(g.Networks, p) {
					err = fmt.Errorf("the network %s is here twice", p)
				}
				g.Networks = append(g.Networks, p)
				return err
			}))
		}},
	})
	return g, err
}

// parseRights reads a level or a list of rights.
func parseRights(n *yaml.Node) (vocab.Rights, error) {
	if n.Kind == yaml.ScalarNode {
		s, err := scalar(n, "rights")
		if err != nil {
			return 0, err
		}
		l, err := policy.ParseLevel(s)
		if err != nil {
			return 0, fail(n.Line, "%s", err.Error()).WithNext("Write a level, or a list of rights like [VIEW, PRINT]")
		}
		return l.Rights(), nil
	}
	var out vocab.Rights
	err := list(n, "rights", len(vocab.AllRights.List()), word("rights", func(s string) error {
		r, err := vocab.ParseRight(s)
		if err == nil && out.Contains(r) {
			err = fmt.Errorf("the right %s is here twice", r)
		}
		if err == nil {
			out |= vocab.RightsOf(r)
		}
		return err
	}))
	if err == nil && out == 0 {
		err = fail(n.Line, "rights is empty").WithNext("Write a level, or a list of rights like [VIEW, PRINT]")
	}
	return out, err
}

// ParseTime reads an instant with its zone, to the millisecond, such as
// 2026-11-27T18:00:00+01:00, and returns it in UTC.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%q is not a time with a zone: write it like 2026-11-27T18:00:00+01:00 or 2026-11-27T17:00:00Z", clip(s))
	case !t.Equal(t.Truncate(time.Millisecond)):
		return time.Time{}, fmt.Errorf("%q is finer than a millisecond", clip(s))
	case t.Unix() < 0 || t.UTC().Year() > 9999:
		return time.Time{}, fmt.Errorf("%q is not in the years 1970 to 9999", clip(s))
	}
	return t.UTC(), nil
}

var periodForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,14})(d|h|m|s|ms)$`)

var units = []struct {
	name string
	size time.Duration
}{{"d", policy.Day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// ParsePeriod reads a whole number of days or hours such as 90d or 12h; m, s
// and ms are understood too. A day is 24 hours.
func ParsePeriod(s string) (time.Duration, error) {
	m := periodForm.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("%q is not a period: write it in days or hours, like 7d or 12h", clip(s))
	}
	n, _ := strconv.ParseInt(m[1], 10, 64) // at most 15 digits
	for _, u := range units {
		if u.name == m[2] {
			if n > int64(policy.MaxPeriod/u.size) {
				break
			}
			return time.Duration(n) * u.size, nil
		}
	}
	return 0, fmt.Errorf("%q is longer than %d days", clip(s), policy.MaxPeriod/policy.Day)
}

// ParseOffline reads an offline period: 0, max, or a period.
func ParseOffline(s string) (time.Duration, error) {
	switch s {
	case "0":
		return 0, nil
	case "max":
		return policy.OfflineMax, nil
	}
	d, err := ParsePeriod(s)
	if err != nil {
		return 0, fmt.Errorf("offline: %w (or 0 to ask at every open, or max for the tenant's maximum)", err)
	}
	return d, nil
}

// ParseExpiry reads never, a time with a zone, or a period after protection:
// "90d after protection", or "90d" for short.
func ParseExpiry(s string) (policy.Expiry, error) {
	if s == "never" {
		return policy.Expiry{}, nil
	}
	if after := strings.TrimSuffix(s, " after protection"); after != s || periodForm.MatchString(s) {
		d, err := ParsePeriod(after)
		if err == nil && d == 0 {
			err = fmt.Errorf("expires %q: nothing could be opened at all", clip(s))
		}
		return policy.Expiry{Kind: policy.ExpiryAfter, After: d}, err
	}
	at, err := ParseTime(s)
	if err != nil {
		return policy.Expiry{}, fmt.Errorf("expires: %w, or never, or like 90d after protection", err)
	}
	return policy.Expiry{Kind: policy.ExpiryOnDate, At: at}, nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
