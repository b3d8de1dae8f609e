package suitefile

import (
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// Decider decides the cases about a suite's own templates.
type Decider struct {
	tenant    *Tenant
	templates map[string]*policy.CompiledTemplate
}

// NewDecider takes the suite's templates and those of its paths, which the
// caller has read. Two of one name are CONFIGURATION_INVALID.
func (s *Suite) NewDecider(read []*policy.Template) (*Decider, error) {
	d := &Decider{tenant: s.Tenant, templates: map[string]*policy.CompiledTemplate{}}
	for _, list := range [][]*policy.Template{s.Templates, read} {
		for _, t := range list {
			if d.templates[t.Slug] != nil {
				return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the suite has two templates %s", t.Slug)
			}
			// Only what the store gives a template is missing.
			own := *t
			own.UID, own.Revision = vocab.TemplateUID{15: 1}, 1
			c, err := policy.CompileTemplate(&own)
			if err != nil {
				return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "template %s: %s", t.Slug, err)
			}
			d.templates[t.Slug] = c
		}
	}
	return d, nil
}

// Decides reports whether a case is about one of the suite's templates.
func (d *Decider) Decides(c *Case) bool { return c.Template != "" && d.templates[c.Template] != nil }

// Decide answers a case that it decides.
func (d *Decider) Decide(c *Case, now time.Time) (policy.Trace, error) {
	who, err := c.Who.Identity(d.tenant.Name, d.tenant.Domains)
	if err != nil {
		return policy.Trace{}, err
	}
	at := now
	if !c.At.IsZero() {
		at = c.At
	}
	in := policy.Following(d.templates[c.Template], who, at, d.tenant.Settings)
	in.Right = c.Right
	return policy.Explain(in, policy.Listing{}), nil
}
