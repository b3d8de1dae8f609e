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
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/strictyaml"
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

var kind = strictyaml.Kind{Name: "Template", Noun: "template", MaxBytes: MaxBytes, MaxDocuments: MaxTemplates}

// Parse reads all templates of a file. UID, revision, author, comment and time
// are left to the store. It returns a [vocab.Error] with
// [vocab.ReasonConfigurationInvalid] that names the line, and no template, if
// anything in the file is wrong.
func Parse(file []byte) ([]*policy.Template, error) {
	var out []*policy.Template
	err := kind.Documents(file, func(root *yaml.Node) error {
		t, err := parseTemplate(root)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(out, func(u *policy.Template) bool { return u.Slug == t.Slug }) {
			return strictyaml.Fail(root.Line, "the template %s is in the file twice", t.Slug)
		}
		out = append(out, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

var (
	templateKeys = []string{"kind", "id", "names", "descriptions", "state", "grants", "expires", "offline", "select", "contact", "custody"}
	grantKeys    = []string{"to", "rights", "until", "login", "networks"}
)

func parseTemplate(root *yaml.Node) (*policy.Template, error) {
	t := &policy.Template{}
	err := strictyaml.Mapping(root, "a template", templateKeys, map[string]strictyaml.Field{
		"kind": kind.Field(),
		"id": {Required: "id: finance-internal", Read: func(n *yaml.Node) (err error) {
			t.Slug, err = strictyaml.Text(n, "id")
			if err == nil && !vocab.ValidSlug(t.Slug) {
				return strictyaml.Fail(n.Line, "id %q: want 1 to 63 of a–z, 0–9 and hyphens, no hyphen at either end", strictyaml.Clip(t.Slug))
			}
			return err
		}},
		"names": {Required: "names: {en: Finance – internal}", Read: func(n *yaml.Node) (err error) {
			t.Names, err = texts(n, "names", policy.MaxName)
			return err
		}},
		"descriptions": {Read: func(n *yaml.Node) (err error) {
			t.Descriptions, err = texts(n, "descriptions", policy.MaxText)
			return err
		}},
		"state": {Required: "state: published", Read: strictyaml.Word("state", func(s string) error {
			switch s {
			case "published":
				t.State = policy.StatePublished
			case "archived":
				t.State = policy.StateArchived
			default:
				return fmt.Errorf("state %q is unknown: write published or archived", strictyaml.Clip(s))
			}
			return nil
		})},
		"grants": {Required: `grants: [{to: "group:finance@contoso.com", rights: viewer}]`, Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "grants", policy.MaxTemplateGrants, func(e *yaml.Node) error {
				g, err := parseGrant(e)
				t.Grants = append(t.Grants, g)
				return err
			})
		}},
		"expires": {Required: "expires: never", Read: strictyaml.Word("expires", func(s string) (err error) {
			t.Expiry, err = ParseExpiry(s)
			return err
		})},
		"offline": {Required: "offline: 7d", Read: strictyaml.Word("offline", func(s string) (err error) {
			t.Offline, err = ParseOffline(s)
			return err
		})},
		"select": {Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "select", policy.MaxSelect, func(e *yaml.Node) error {
				p, err := principal(e, "select")
				t.Select = append(t.Select, p)
				return err
			})
		}},
		"contact": {Read: strictyaml.Word("contact", func(s string) (err error) {
			t.Contact, err = vocab.CanonicalAddress(s)
			return err
		})},
		"custody": {Read: strictyaml.Word("custody", func(s string) (err error) {
			t.Custody, err = vocab.ParseCustodyMode(s)
			return err
		})},
	})
	if err != nil {
		return nil, err
	}
	// What is left are rules over several values, which have no one line.
	if err := t.Validate(); err != nil {
		e := strictyaml.Fail(root.Line, "template %s: %s", t.Slug, strictyaml.Message(err))
		return nil, e
	}
	return t, nil
}

func principal(n *yaml.Node, what string) (vocab.Principal, error) {
	s, err := strictyaml.Text(n, what)
	if err != nil {
		return vocab.Principal{}, err
	}
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		return vocab.Principal{}, strictyaml.Fail(n.Line, "%s", err.Error())
	}
	return p, nil
}

// texts reads {language: text}, in the normal form the formats store.
func texts(n *yaml.Node, what string, most int) (map[string]string, error) {
	if err := strictyaml.Plain(n, yaml.MappingNode, what, "one text for each language, like {en: Finance}"); err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if err := strictyaml.Plain(key, yaml.ScalarNode, what, "one text for each language, like {en: Finance}"); err != nil {
			return nil, err
		}
		lang := strings.ToLower(key.Value)
		if !policy.ValidLanguage(lang) {
			return nil, strictyaml.Fail(key.Line, "%q is not a language tag", strictyaml.Clip(key.Value)).WithNext("Write one like en or pt-br")
		}
		if _, ok := out[lang]; ok {
			return nil, strictyaml.Fail(key.Line, "%s has %s twice", what, lang)
		}
		s, err := strictyaml.Text(value, what+" in "+lang)
		if err != nil {
			return nil, err
		}
		if len(s) > most {
			return nil, strictyaml.Fail(value.Line, "%s in %s has %d bytes: at most %d are allowed", what, lang, len(s), most)
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
	err := strictyaml.Mapping(n, "a grant", grantKeys, map[string]strictyaml.Field{
		"to": {Required: "to: user:bob@contoso.com", Read: func(n *yaml.Node) (err error) {
			g.To, err = principal(n, "to")
			return err
		}},
		"rights": {Required: "rights: viewer", Read: func(n *yaml.Node) (err error) {
			g.Rights, err = parseRights(n)
			return err
		}},
		"until": {Read: strictyaml.Word("until", func(s string) (err error) {
			g.Until, err = ParseTime(s)
			return err
		})},
		"login": {Read: strictyaml.Word("login", func(s string) error {
			switch s {
			case "any":
				g.Login = policy.LoginAny
			case "mfa":
				g.Login = policy.LoginMFA
			default:
				return fmt.Errorf("login %q is unknown: write any or mfa", strictyaml.Clip(s))
			}
			return nil
		})},
		"networks": {Read: func(n *yaml.Node) error {
			if len(n.Content) == 0 && n.Kind == yaml.SequenceNode {
				return strictyaml.Fail(n.Line, "networks is empty").WithNext("Leave it out to allow every network")
			}
			return strictyaml.List(n, "networks", policy.MaxNetworks, strictyaml.Word("networks", func(s string) error {
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
		s, err := strictyaml.Scalar(n, "rights")
		if err != nil {
			return 0, err
		}
		l, err := policy.ParseLevel(s)
		if err != nil {
			return 0, strictyaml.Fail(n.Line, "%s", err.Error()).WithNext("Write a level, or a list of rights like [VIEW, PRINT]")
		}
		return l.Rights(), nil
	}
	var out vocab.Rights
	err := strictyaml.List(n, "rights", len(vocab.AllRights.List()), strictyaml.Word("rights", func(s string) error {
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
		err = strictyaml.Fail(n.Line, "rights is empty").WithNext("Write a level, or a list of rights like [VIEW, PRINT]")
	}
	return out, err
}

// ParseTime reads an instant with its zone, to the millisecond, such as
// 2026-11-27T18:00:00+01:00, and returns it in UTC.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%q is not a time with a zone: write it like 2026-11-27T18:00:00+01:00 or 2026-11-27T17:00:00Z", strictyaml.Clip(s))
	case !t.Equal(t.Truncate(time.Millisecond)):
		return time.Time{}, fmt.Errorf("%q is finer than a millisecond", strictyaml.Clip(s))
	case t.Unix() < 0 || t.UTC().Year() > 9999:
		return time.Time{}, fmt.Errorf("%q is not in the years 1970 to 9999", strictyaml.Clip(s))
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
		return 0, fmt.Errorf("%q is not a period: write it in days or hours, like 7d or 12h", strictyaml.Clip(s))
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
	return 0, fmt.Errorf("%q is longer than %d days", strictyaml.Clip(s), policy.MaxPeriod/policy.Day)
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
			err = fmt.Errorf("expires %q: nothing could be opened at all", strictyaml.Clip(s))
		}
		return policy.Expiry{Kind: policy.ExpiryAfter, After: d}, err
	}
	at, err := ParseTime(s)
	if err != nil {
		return policy.Expiry{}, fmt.Errorf("expires: %w, or never, or like 90d after protection", err)
	}
	return policy.Expiry{Kind: policy.ExpiryOnDate, At: at}, nil
}
