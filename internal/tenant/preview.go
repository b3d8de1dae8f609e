package tenant

import (
	"context"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// TemplatePreview is what a write of a template would change.
type TemplatePreview struct {
	// Current is the revision in force; nil: the write makes a new template.
	Current *policy.Template
	// Followers is how many licenses follow the template.
	Followers int64
	// Changes and Fields are those of [policy.Diff].
	Changes []policy.Change
	Fields  []string
	// Warnings are those of [policy.Template.Warnings].
	Warnings []string
}

// Unchanged reports whether the write would change nothing.
func (p *TemplatePreview) Unchanged() bool {
	return p.Current != nil && len(p.Changes) == 0 && len(p.Fields) == 0
}

// PreviewTemplate checks a template as [Tenant.WriteTemplate] would and says
// what writing it would change. It reads one count and no license, however many
// follow the template.
func (t *Tenant) PreviewTemplate(ctx context.Context, slug string, next *policy.Template) (*TemplatePreview, error) {
	draft := *next
	draft.Slug = slug
	if err := draft.Validate(); err != nil {
		return nil, err
	}
	out := &TemplatePreview{Warnings: draft.Warnings(t.settings.Load().Settings)}
	before := &policy.Template{Slug: slug}
	err := t.store.View(ctx, func(r store.Reader) error {
		current, err := t.findTemplate(r, slug)
		if err != nil || current == nil {
			return err
		}
		if current.State == policy.StateDeleted {
			return templateDeleted(slug)
		}
		out.Current, before = current.Template, current.Template
		out.Followers, err = record.CountByTemplate(r, t.id, current.UID)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Changes, out.Fields = policy.Diff(before, &draft, t.now())
	return out, nil
}

func templateDeleted(slug string) error {
	return vocab.Errorf(vocab.ReasonTemplateDeleted, "template %q is deleted", slug).WithNext("Undelete it first")
}
