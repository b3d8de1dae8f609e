package tenant

import (
	"context"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// template returns a template as it is in r: its current revision, its
// tombstone, or nil if there is none.
func (t *Tenant) template(r store.Reader, uid vocab.TemplateUID) (*policy.CompiledTemplate, error) {
	head, err := record.GetTemplate(r, t.id, uid)
	if err != nil || head == nil {
		return nil, err
	}
	return t.current(r, uid, head)
}

// current returns the revision of a template that its head in r names.
func (t *Tenant) current(r store.Reader, uid vocab.TemplateUID, head *record.TemplateHead) (*policy.CompiledTemplate, error) {
	return t.templates.get(uid, head.Revision, func() (*policy.CompiledTemplate, error) {
		tmpl, err := t.templateRevision(r, uid, head.Revision)
		if err != nil {
			return nil, err
		}
		if tmpl.Slug != head.Slug {
			return nil, templateDamaged(nil)
		}
		// Revisions are never removed, so one after the current one says that
		// the store was made to point back: every revision is genuine, but only
		// the newest may decide.
		if later, err := record.GetTemplateRevision(r, t.id, uid, head.Revision+1); err != nil || later != nil {
			return nil, firstError(err, templateDamaged(nil))
		}
		compiled, err := policy.CompileTemplate(tmpl)
		if err != nil {
			return nil, templateDamaged(err)
		}
		return compiled, nil
	})
}

// templateRevision reads a revision and verifies that this tenant signed it,
// and as what.
func (t *Tenant) templateRevision(r store.Reader, uid vocab.TemplateUID, revision uint32) (*policy.Template, error) {
	b, err := record.GetTemplateRevision(r, t.id, uid, revision)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, templateDamaged(nil)
	}
	signed, err := t.verifier().VerifyTemplate(b)
	if err != nil {
		return nil, templateDamaged(err)
	}
	if signed.Tenant != t.id || signed.Template.UID != uid || signed.Template.Revision != revision {
		return nil, templateDamaged(nil)
	}
	return signed.Template, nil
}

func templateDamaged(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "a template in the store is not the one that was signed").
		WithNext("Ask an administrator to check the store").Because(cause)
}

// headOf returns which template a slug names, and its current revision; zero if
// there is none.
func (t *Tenant) headOf(r store.Reader, slug string) (uid vocab.TemplateUID, revision uint32, err error) {
	if uid, err = record.FindTemplate(r, t.id, slug); err != nil || uid.IsZero() {
		return uid, 0, err
	}
	head, err := record.GetTemplate(r, t.id, uid)
	if err != nil || head == nil {
		return uid, 0, firstError(err, templateDamaged(nil))
	}
	return uid, head.Revision, nil
}

// findTemplate returns the template of a slug in r, or nil.
func (t *Tenant) findTemplate(r store.Reader, slug string) (*policy.CompiledTemplate, error) {
	uid, err := record.FindTemplate(r, t.id, slug)
	if err != nil || uid.IsZero() {
		return nil, err
	}
	return t.templateAt(r, slug, uid)
}

// templateAt is template for one that was found by its slug: the signed
// revision must say the same name, or somebody who protects under one template
// would protect under another.
func (t *Tenant) templateAt(r store.Reader, slug string, uid vocab.TemplateUID) (*policy.CompiledTemplate, error) {
	tmpl, err := t.template(r, uid)
	if err == nil && (tmpl == nil || tmpl.Slug != slug) {
		return nil, templateDamaged(nil)
	}
	return tmpl, err
}

// UsableTemplates returns the templates the caller may protect with, by slug.
func (t *Tenant) UsableTemplates(ctx context.Context, caller *vocab.Identity) (out []*policy.Template, err error) {
	who := t.standingOf(caller, *t.settings.Load())
	err = t.store.View(ctx, func(r store.Reader) error {
		return record.ListTemplates(r, t.id, "", func(slug string, uid vocab.TemplateUID) (bool, error) {
			tmpl, err := t.templateAt(r, slug, uid)
			if err != nil {
				return false, err
			}
			if tmpl != nil && policy.MayChoose(tmpl.Template, who.caller) {
				out = append(out, tmpl.Template)
			}
			return true, nil
		})
	})
	return out, err
}

// GetTemplate returns a revision of a template; 0 is the current one.
func (t *Tenant) GetTemplate(ctx context.Context, slug string, revision uint32) (out *policy.Template, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		current, err := t.findTemplate(r, slug)
		if err != nil {
			return err
		}
		if current == nil {
			return noTemplate(slug)
		}
		if revision > current.Revision {
			return vocab.Errorf(vocab.ReasonResourceNotFound, "template %q has no revision %d: the newest is %d", slug, revision, current.Revision)
		}
		if out = current.Template; revision != 0 && revision != current.Revision {
			out, err = t.templateRevision(r, current.UID, revision)
		}
		return err
	})
	return out, err
}

func noTemplate(slug string) error {
	return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no template %q", slug).WithNext("List the templates")
}

// ListTemplates returns up to limit templates after a slug, by slug, and
// whether there are more.
func (t *Tenant) ListTemplates(ctx context.Context, after string, limit int, deleted bool) (out []*policy.Template, more bool, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		return record.ListTemplates(r, t.id, after, func(slug string, uid vocab.TemplateUID) (bool, error) {
			tmpl, err := t.templateAt(r, slug, uid)
			if err != nil {
				return false, err
			}
			if tmpl == nil || tmpl.State == policy.StateDeleted && !deleted {
				return true, nil
			}
			if len(out) == limit {
				more = true
				return false, nil
			}
			out = append(out, tmpl.Template)
			return true, nil
		})
	})
	return out, more, err
}

// TemplateRevisions returns up to limit revisions of a template before a
// revision (0: from the newest), newest first.
func (t *Tenant) TemplateRevisions(ctx context.Context, slug string, before uint32, limit int) (out []*policy.Template, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		current, err := t.findTemplate(r, slug)
		if err != nil {
			return err
		}
		if current == nil {
			return noTemplate(slug)
		}
		if before == 0 || before > current.Revision {
			before = current.Revision + 1
		}
		for n := before - 1; n >= 1 && len(out) < limit; n-- {
			tmpl, err := t.templateRevision(r, current.UID, n)
			if err != nil {
				return err
			}
			out = append(out, tmpl)
		}
		return nil
	})
	return out, err
}

// WriteTemplate creates a template, or writes a new revision of one. want is
// the revision the caller's edit is based on: 0 creates, and anyRevision
// overwrites whatever is there. With dryRun everything is checked and nothing
// written. On return the new revision is in force for every decision that
// begins.
func (t *Tenant) WriteTemplate(ctx context.Context, c Call, slug string, next *policy.Template, want uint32, anyRevision, dryRun bool) (*policy.Template, vocab.EventID, error) {
	kind := audit.KindTemplateUpdated
	if want == 0 && !anyRevision {
		kind = audit.KindTemplateCreated
	}
	return t.revise(ctx, c, slug, kind, dryRun, func(_ store.Reader, current *policy.Template) (*policy.Template, error) {
		draft := *next
		draft.Slug = slug
		switch {
		case kind == audit.KindTemplateCreated && current != nil:
			e := vocab.Errorf(vocab.ReasonResourceExists, "there is a template %q already", slug)
			if current.State == policy.StateDeleted {
				return nil, e.WithNext("It is deleted; undelete it, or choose another name")
			}
			return nil, e.WithNext("Update it, or choose another name")
		case kind == audit.KindTemplateCreated:
			draft.UID = vocab.NewTemplateUID()
		case current == nil:
			return nil, noTemplate(slug)
		case current.State == policy.StateDeleted:
			return nil, templateDeleted(slug)
		case !anyRevision && current.Revision != want:
			return nil, conflict("template", current.Author, current.Revision, want)
		default:
			draft.UID = current.UID
		}
		return &draft, nil
	})
}

func conflict(what, author string, current, want uint32) error {
	return vocab.Errorf(vocab.ReasonEtagMismatch, "revision %d of the %s was written by %s, and your edit is based on %d; nothing was written",
		current, what, author, want).WithNext("Read it again and repeat your edit")
}

// DeleteTemplate leaves a tombstone. Unless forced it is refused while
// licenses follow the template.
func (t *Tenant) DeleteTemplate(ctx context.Context, c Call, slug string, want uint32, anyRevision, force bool) (*policy.Template, vocab.EventID, error) {
	return t.revise(ctx, c, slug, audit.KindTemplateDeleted, false, func(r store.Reader, current *policy.Template) (*policy.Template, error) {
		if current == nil || current.State == policy.StateDeleted {
			return nil, noTemplate(slug)
		}
		if !anyRevision && current.Revision != want {
			return nil, conflict("template", current.Author, current.Revision, want)
		}
		n, err := record.CountByTemplate(r, t.id, current.UID)
		if err != nil {
			return nil, err
		}
		if n > 0 && !force {
			follow := "licenses follow"
			if n == 1 {
				follow = "license follows"
			}
			return nil, vocab.Errorf(vocab.ReasonTemplateInUse, "%d %s template %q", n, follow, slug).
				WithNext("Archive it instead, so that they still open; or delete it with force, and only owners and issuers open them")
		}
		draft := *current
		draft.State = policy.StateDeleted
		return &draft, nil
	})
}

// UndeleteTemplate restores a deleted template, archived.
func (t *Tenant) UndeleteTemplate(ctx context.Context, c Call, slug string) (*policy.Template, vocab.EventID, error) {
	return t.revise(ctx, c, slug, audit.KindTemplateUndeleted, false, func(_ store.Reader, current *policy.Template) (*policy.Template, error) {
		if current == nil {
			return nil, noTemplate(slug)
		}
		if current.State != policy.StateDeleted {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "template %q is not deleted", slug)
		}
		draft := *current
		draft.State = policy.StateArchived
		return &draft, nil
	})
}

// revise makes the next revision of a template: edit returns it from the
// current one (nil: there is none), the rest is the same for all. The revision
// is signed before the transaction, which then finds out whether the current
// one is still the one that was edited; if not, it is all done again. A revision
// by which its author gains access to documents, or which lowers the template's
// floor, is not written: it is asked for, and APPROVAL_REQUIRED names the operation.
func (t *Tenant) revise(ctx context.Context, c Call, slug string, kind audit.Kind, dryRun bool,
	edit func(r store.Reader, current *policy.Template) (*policy.Template, error),
) (*policy.Template, vocab.EventID, error) {
	now := t.now()
	e := t.newEvent(kind, c, now)
	for range maxAttempts {
		var draft, before *policy.Template
		var base uint32
		var followers int64
		var settings record.Settings
		err := t.store.View(ctx, func(r store.Reader) error {
			current, err := t.findTemplate(r, slug)
			if err != nil {
				return err
			}
			if current != nil {
				before, base = current.Template, current.Revision
				if followers, err = record.CountByTemplate(r, t.id, current.UID); err != nil {
					return err
				}
			}
			if settings, err = record.GetSettings(r, t.id); err != nil {
				return err
			}
			draft, err = edit(r, before)
			return err
		})
		if err != nil {
			return nil, vocab.EventID{}, t.refuse(ctx, e, err)
		}
		draft.Revision, draft.Time, draft.Author = base+1, e.Time, c.Caller.Name()
		if err := draft.Validate(); err != nil {
			return nil, vocab.EventID{}, t.refuse(ctx, e, err)
		}
		describeRevision(e, draft)
		if lowersFloor(before, draft) {
			if err := onlyFloor(before, draft); err != nil {
				return nil, vocab.EventID{}, t.refuse(ctx, e, err)
			}
		}
		if dryRun {
			// The check of an edit is recorded like a read.
			e.Kind = audit.KindRead
			return draft, e.ID, t.commit(ctx, func(store.Tx) error { return nil }, e)
		}
		who := t.standingOf(c.Caller, settings)
		if lowersFloor(before, draft) {
			return nil, vocab.EventID{}, t.refuse(ctx, e, t.requestFloor(ctx, c, kind, before, draft))
		}
		gains := gainsByTemplate(who, settings, before, draft, now)
		if gains && followers > 0 {
			return nil, vocab.EventID{}, t.refuse(ctx, e, t.requestTemplate(ctx, c, kind, base, draft))
		}
		signer, cert, err := t.signer(ctx)
		if err != nil {
			return nil, vocab.EventID{}, t.refuse(ctx, e, err)
		}
		signed, err := license.SignTemplate(ctx, signer, cert, draft)
		if err != nil {
			return nil, vocab.EventID{}, t.refuse(ctx, e, err)
		}
		err = t.commit(ctx, func(tx store.Tx) error {
			if err := t.gainsNothing(tx, who, draft.UID, gains); err != nil {
				return err
			}
			if _, err := edit(tx, before); err != nil {
				// What the edit rests on beside the template has changed: a
				// license follows it now.
				return errStale
			}
			return t.putRevision(tx, base, draft, signed.Raw(), t.asked(c.Caller))
		}, e)
		if err == errStale { //nolint:errorlint // our own sentinel, unwrapped
			if err := t.catchUp(ctx); err != nil {
				return nil, vocab.EventID{}, err
			}
			continue
		}
		if err != nil {
			return nil, vocab.EventID{}, err
		}
		return draft, e.ID, nil
	}
	return nil, vocab.EventID{}, tooBusy()
}

// CountFollowers returns how many licenses follow a template.
func (t *Tenant) CountFollowers(ctx context.Context, uid vocab.TemplateUID) (n int64, err error) {
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		n, err = record.CountByTemplate(r, t.id, uid)
		return err
	})
	return n, err
}

func firstError(errs ...error) error {
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// TemplateName returns the slug of a template, or its UID if it has none.
func (t *Tenant) TemplateName(ctx context.Context, uid vocab.TemplateUID) string {
	name := uid.String()
	_ = t.store.View(ctx, func(r store.Reader) error {
		if head, err := record.GetTemplate(r, t.id, uid); err == nil && head != nil {
			name = head.Slug
		}
		return nil
	})
	return name
}
