// Package suitefile reads suites of cases that a policy must meet, as `rmsctl
// policy test` takes them: who may do what, when and from where, and what the
// answer must be. A suite can bring templates of its own, so that a change is
// tested before it is applied; cases about those are decided here, by the rules
// that the service decides by, and need no service.
package suitefile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/strictyaml"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of one file.
const (
	MaxBytes  = 8 << 20
	MaxCases  = 10_000
	MaxPaths  = 1_000
	maxGroups = 1_000
	maxName   = 200 // bytes of a case's name
	maxPath   = 4 << 10
)

// Suite is a suite of cases.
type Suite struct {
	// Tenant is what the cases about the suite's own templates suppose of the
	// tenant; nil if there are none.
	Tenant *Tenant
	// Paths are the files and folders of templates, as they are written;
	// Templates those that stand in the suite itself.
	Paths     []string
	Templates []*policy.Template
	// Cases are in the order of the file.
	Cases []Case
}

// Tenant is what decisions read of a tenant.
type Tenant struct {
	Name     string
	Domains  []string
	Settings policy.Settings
}

// Case is one question and what its answer must be.
type Case struct {
	Line int
	Name string
	Who  policy.Supposed
	// WithoutDirectory leaves the groups of the tenant's directory out; cases
	// about the suite's own templates know of none.
	WithoutDirectory bool
	// Template is the template a document of somebody else's follows, or
	// Document a file or the ID of a license.
	Template, Document string
	Right              vocab.Right
	// At is when; zero is now.
	At   time.Time
	Want Want
}

// Want is what the answer must be: a refusal with a reason, or permission, with
// exactly these rights unless there are none.
type Want struct {
	Reason vocab.Reason
	Rights vocab.Rights
}

// Meets reports whether an answer is the one that is wanted; reason is empty if
// it allows.
func (w Want) Meets(reason vocab.Reason, rights vocab.Rights) bool {
	return w.Reason == reason && (w.Rights == 0 || w.Rights.Effective() == rights)
}

// String says what is wanted, as the file does.
func (w Want) String() string {
	switch {
	case w.Reason != "":
		return string(w.Reason)
	case w.Rights != 0:
		return policy.Describe(w.Rights)
	}
	return allow
}

// allow is what a suite writes if any rights will do.
const allow = "allow"

// reasons are those a decision to open can have.
var reasons = []vocab.Reason{
	vocab.ReasonNoRights, vocab.ReasonRightNotGranted, vocab.ReasonGrantEnded, vocab.ReasonStrongerLoginRequired, vocab.ReasonNetworkNotAllowed,
	vocab.ReasonLicenseExpired, vocab.ReasonLicenseRevoked, vocab.ReasonTemplateDeleted, vocab.ReasonPrincipalDisabled, vocab.ReasonGroupsIncomplete,
}

var (
	kind       = strictyaml.Kind{Name: "PolicySuite", Noun: "suite", MaxBytes: MaxBytes, MaxDocuments: 1}
	suiteKeys  = []string{"kind", "tenant", "templates", "cases"}
	tenantKeys = []string{"name", "domains", "guests", "offline-max", "guest-offline-max", "issuer-opens-revoked", "custody"}
	caseKeys   = []string{"name", "who", "groups", "without-directory", "mfa", "from", "at", "template", "document", "right", "want"}
)

// Parse reads a suite. It returns a [vocab.Error] with
// [vocab.ReasonConfigurationInvalid] that names the line, and no suite, if
// anything in the file is wrong.
func Parse(file []byte) (*Suite, error) {
	s := &Suite{}
	if err := kind.Documents(file, s.read); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Suite) read(root *yaml.Node) error {
	err := strictyaml.Mapping(root, "a suite", suiteKeys, map[string]strictyaml.Field{
		"kind": kind.Field(),
		"tenant": {Read: func(n *yaml.Node) (err error) {
			s.Tenant, err = readTenant(n)
			return err
		}},
		"templates": {Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "templates", MaxPaths, s.readTemplate)
		}},
		"cases": {Required: "cases: [{name: bob reads, who: bob@contoso.com, template: finance-internal, want: viewer}]", Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "cases", MaxCases, s.readCase)
		}},
	})
	switch {
	case err != nil:
		return err
	case len(s.Cases) == 0:
		return strictyaml.Fail(root.Line, "the suite has no cases")
	case s.Tenant == nil && len(s.Paths)+len(s.Templates) > 0:
		return strictyaml.Fail(root.Line, "a suite with templates of its own lacks tenant").
			WithNext("Write for example: tenant: {name: contoso, domains: [contoso.com]}")
	}
	return nil
}

func readTenant(n *yaml.Node) (*Tenant, error) {
	t := &Tenant{Settings: policy.DefaultSettings()}
	err := strictyaml.Mapping(n, "tenant", tenantKeys, map[string]strictyaml.Field{
		"name": {Required: "name: contoso", Read: strictyaml.Word("name", func(s string) error {
			if t.Name = s; !vocab.ValidSlug(s) {
				return fmt.Errorf("%q is not the name of a tenant", strictyaml.Clip(s))
			}
			return nil
		})},
		"domains": {Required: "domains: [contoso.com]", Read: func(n *yaml.Node) (err error) {
			t.Domains, err = readDomains(n, "domains")
			return err
		}},
		"guests": {Read: func(n *yaml.Node) (err error) {
			t.Settings.GuestDomains, err = readDomains(n, "guests")
			return err
		}},
		"offline-max": {Read: strictyaml.Word("offline-max", func(s string) (err error) {
			t.Settings.MaxOffline, err = templatefile.ParsePeriod(s)
			return err
		})},
		"guest-offline-max": {Read: strictyaml.Word("guest-offline-max", func(s string) (err error) {
			t.Settings.GuestMaxOffline, err = templatefile.ParseOffline(s)
			return err
		})},
		"issuer-opens-revoked": {Read: strictyaml.Word("issuer-opens-revoked", yesNo(&t.Settings.IssuerOpensRevoked))},
		"custody": {Read: strictyaml.Word("custody", func(s string) (err error) {
			t.Settings.Custody, err = vocab.ParseCustodyMode(s)
			return err
		})},
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func readDomains(n *yaml.Node, what string) (out []string, err error) {
	err = strictyaml.List(n, what, policy.MaxSelect, strictyaml.Word(what, func(s string) error {
		d, err := vocab.CanonicalDomain(s)
		out = append(out, d)
		return err
	}))
	return out, err
}

// yesNo makes a reader of true and false.
func yesNo(into *bool) func(string) error {
	return func(s string) error {
		switch s {
		case "true":
			*into = true
		case "false":
			*into = false
		default:
			return fmt.Errorf("%q is neither true nor false", strictyaml.Clip(s))
		}
		return nil
	}
}

// readTemplate reads a path, or a template as its file has it.
func (s *Suite) readTemplate(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		t, err := templatefile.ParseNode(n)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(s.Templates, func(u *policy.Template) bool { return u.Slug == t.Slug }) {
			return strictyaml.Fail(n.Line, "the template %s is in the suite twice", t.Slug)
		}
		s.Templates = append(s.Templates, t)
		return nil
	}
	path, err := strictyaml.Text(n, "templates")
	if err == nil && len(path) > maxPath {
		err = strictyaml.Fail(n.Line, "the path is too long")
	}
	s.Paths = append(s.Paths, path)
	return err
}

func (s *Suite) readCase(n *yaml.Node) error {
	c := Case{Line: n.Line}
	err := strictyaml.Mapping(n, "a case", caseKeys, map[string]strictyaml.Field{
		"name": {Required: "name: interns may read", Read: func(n *yaml.Node) (err error) {
			if c.Name, err = strictyaml.Text(n, "name"); err == nil && len(c.Name) > maxName {
				err = strictyaml.Fail(n.Line, "the name has %d bytes: at most %d are allowed", len(c.Name), maxName)
			}
			return err
		}},
		"who": {Required: "who: bob@contoso.com", Read: strictyaml.Word("who", func(s string) (err error) {
			c.Who.Who, err = readWho(s)
			return err
		})},
		"groups": {Read: func(n *yaml.Node) error {
			return strictyaml.List(n, "groups", maxGroups, strictyaml.Word("groups", func(s string) error {
				g, err := vocab.CanonicalAddress(strings.TrimPrefix(s, "group:"))
				c.Who.Groups = append(c.Who.Groups, g)
				return err
			}))
		}},
		"without-directory": {Read: strictyaml.Word("without-directory", yesNo(&c.WithoutDirectory))},
		"mfa":               {Read: strictyaml.Word("mfa", yesNo(&c.Who.MFA))},
		"from": {Read: strictyaml.Word("from", func(s string) error {
			if c.Who.Peer = s; !policy.ValidPeer(s) {
				return fmt.Errorf("%q is not a network address: write one like 10.20.0.7", strictyaml.Clip(s))
			}
			return nil
		})},
		"at": {Read: strictyaml.Word("at", func(s string) (err error) {
			c.At, err = templatefile.ParseTime(s)
			return err
		})},
		"template": {Read: strictyaml.Word("template", func(s string) error {
			if c.Template = s; !vocab.ValidSlug(s) {
				return fmt.Errorf("%q is not the id of a template", strictyaml.Clip(s))
			}
			return nil
		})},
		"document": {Read: func(n *yaml.Node) (err error) {
			if c.Document, err = strictyaml.Text(n, "document"); err == nil && len(c.Document) > maxPath {
				err = strictyaml.Fail(n.Line, "the path is too long")
			}
			return err
		}},
		"right": {Read: strictyaml.Word("right", func(s string) (err error) {
			c.Right, err = vocab.ParseRight(s)
			return err
		})},
		"want": {Required: "want: viewer", Read: func(n *yaml.Node) (err error) {
			c.Want, err = readWant(n)
			return err
		}},
	})
	switch {
	case err != nil:
		return err
	case (c.Template == "") == (c.Document == ""):
		return strictyaml.Fail(n.Line, "a case is about a template or a document").
			WithNext("Write for example: template: finance-internal")
	case slices.ContainsFunc(s.Cases, func(d Case) bool { return d.Name == c.Name }):
		return strictyaml.Fail(n.Line, "there are two cases %q", c.Name)
	}
	s.Cases = append(s.Cases, c)
	return nil
}

// readWho reads a user or service; an address alone is a user's.
func readWho(s string) (vocab.Principal, error) {
	if !strings.Contains(s, ":") && strings.Contains(s, "@") {
		s = "user:" + s
	}
	p, err := vocab.ParsePrincipal(s)
	if err == nil && p.Kind != vocab.KindUser && p.Kind != vocab.KindService {
		err = fmt.Errorf("%s cannot open anything: name a person or a service", p)
	}
	return p, err
}

// readWant reads allow, a level, a list of rights, or a reason.
func readWant(n *yaml.Node) (w Want, err error) {
	if n.Kind == yaml.SequenceNode {
		if w.Rights, err = templatefile.ParseRights(n); err != nil {
			return w, err
		}
		return w, nil
	}
	return w, strictyaml.Word("want", func(s string) error {
		if s == allow {
			return nil
		}
		if level, err := policy.ParseLevel(s); err == nil {
			w.Rights = level.Rights()
			return nil
		}
		if w.Reason = vocab.Reason(s); !slices.Contains(reasons, w.Reason) {
			return fmt.Errorf("want %q: write allow, a level, a list of rights, or a reason like NO_RIGHTS", strictyaml.Clip(s))
		}
		return nil
	})(n)
}
