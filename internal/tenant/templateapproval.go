package tenant

import (
	"context"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// An edit of a template by which its author gains a right on documents that
// follow it already is not written: it waits for another policy-admin.

// gainsByTemplate reports whether the author of an edit gains by it, if the
// template has followers.
func gainsByTemplate(who standing, settings record.Settings, before, after *policy.Template, now time.Time) bool {
	return policy.Gains(who.caller, settings.GuestDomains, opens(before), opens(after), now)
}

// opens are the grants of a template that open anything.
func opens(t *policy.Template) []policy.Grant {
	if t == nil || t.State != policy.StatePublished && t.State != policy.StateArchived {
		return nil
	}
	return t.Grants
}

// gainsNothing compares, in the transaction that writes a revision, what was
// found out about its author before it: errStale if the author's groups changed
// since, or somebody protected a document with a template by whose edit the
// author gains.
func (t *Tenant) gainsNothing(tx store.Tx, who standing, uid vocab.TemplateUID, gains bool) error {
	epoch, err := record.Epoch(tx, t.id)
	if err != nil {
		return err
	}
	var followers int64
	if gains {
		if followers, err = record.CountByTemplate(tx, t.id, uid); err != nil {
			return err
		}
	}
	if epoch != who.epoch || followers > 0 {
		return errStale
	}
	return nil
}

// NeedsApproval reports whether the caller could write a template only with
// another policy-admin's approval, or with that of the quorum, for it lowers
// custody, as things are now. next is the whole
// template; it is not checked otherwise, but for a lower floor with something else
// beside it: REQUEST_INVALID.
func (t *Tenant) NeedsApproval(ctx context.Context, caller *vocab.Identity, slug string, next *policy.Template) (needed bool, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		settings, err := record.GetSettings(r, t.id)
		if err != nil {
			return err
		}
		current, err := t.findTemplate(r, slug)
		if err != nil || current == nil {
			return err
		}
		if needed = lowersFloor(current.Template, next); needed {
			return onlyFloor(current.Template, next)
		}
		followers, err := record.CountByTemplate(r, t.id, current.UID)
		if err != nil || followers == 0 {
			return err
		}
		needed = gainsByTemplate(t.standingOf(caller, settings), settings, current.Template, next, t.now())
		return nil
	})
	return needed, err
}

// requestTemplate asks for a revision to be written that its author must not
// write alone. It always returns an error.
func (t *Tenant) requestTemplate(ctx context.Context, c Call, kind audit.Kind, base uint32, draft *policy.Template) error {
	b, err := license.EncodeTemplate(draft)
	if err != nil {
		return err
	}
	return t.requestApproval(ctx, c, wish{
		kind:   operation.TemplateUpdate,
		params: &operation.TemplateParams{Slug: draft.Slug, Base: base, Draft: b, Event: uint16(kind)},
		about:  fmt.Sprintf("revision %d of template %s", draft.Revision, draft.Slug), reason: draft.Comment,
	})
}

// DraftOf returns the template revision that an operation would write.
func DraftOf(o *operation.Operation) (*operation.TemplateParams, *policy.Template, error) {
	params, err := templateParams(o)
	if err != nil {
		return nil, nil, err
	}
	draft, err := license.DecodeTemplate(params.Draft)
	return params, draft, err
}

// templateParams reads the template that an operation of one of two kinds would
// write.
func templateParams(o *operation.Operation) (*operation.TemplateParams, error) {
	if o.Kind != operation.CustodyLower {
		return operation.Params[operation.TemplateParams](o)
	}
	params, err := operation.Params[operation.CustodyParams](o)
	if err == nil && params.Template == nil {
		err = contradicts("an operation")
	}
	if err != nil {
		return nil, err
	}
	return params.Template, nil
}

// checkTemplateBasis refuses an edit of a revision that is not the current one
// any more.
func (t *Tenant) checkTemplateBasis(r store.Reader, o *operation.Operation) error {
	params, draft, err := DraftOf(o)
	if err != nil {
		return err
	}
	current, err := t.findTemplate(r, params.Slug)
	if err != nil {
		return err
	}
	if current == nil || current.UID != draft.UID {
		return noTemplate(params.Slug)
	}
	if current.Revision != params.Base {
		return conflict("template", current.Author, current.Revision, params.Base)
	}
	return nil
}

// prepareTemplate signs the revision that was approved.
func (t *Tenant) prepareTemplate(ctx context.Context, o *operation.Operation) (effect, error) {
	params, draft, err := DraftOf(o)
	if err != nil {
		return nil, err
	}
	draft.Time = t.now().UTC().Truncate(time.Millisecond)
	signer, cert, err := t.signer(ctx)
	if err != nil {
		return nil, err
	}
	signed, err := license.SignTemplate(ctx, signer, cert, draft)
	if err != nil {
		return nil, err
	}
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		if err := t.checkTemplateBasis(tx, o); err != nil {
			return "", err
		}
		e := t.effectEvent(audit.Kind(params.Event), o, id, now)
		describeRevision(e, draft)
		if err := t.putRevision(tx, params.Base, draft, signed.Raw(), o.Requester); err != nil {
			return "", err
		}
		return fmt.Sprintf("revision %d of template %s", draft.Revision, draft.Slug), t.log.Append(tx, e)
	}, nil
}

// describeRevision makes an event that of a template's revision.
func describeRevision(e *audit.Event, draft *policy.Template) {
	e.Template, e.TemplateRevision, e.Detail = draft.UID, draft.Revision, draft.Comment
	e.Target = "template " + draft.Slug
}

// putRevision writes a signed revision, in a transaction whose event the caller
// appends, and has licenses that are kept less strictly than it demands sealed
// anew. errStale says that base is not the current revision.
func (t *Tenant) putRevision(tx store.Tx, base uint32, draft *policy.Template, signed []byte, author operation.Person) error {
	uid, err := record.FindTemplate(tx, t.id, draft.Slug)
	if err != nil {
		return err
	}
	var at uint32
	if !uid.IsZero() {
		head, err := record.GetTemplate(tx, t.id, uid)
		if err != nil || head == nil {
			return firstError(err, templateDamaged(nil))
		}
		at = head.Revision
	}
	if at != base || !uid.IsZero() && uid != draft.UID {
		return errStale
	}
	if err := record.PutTemplateRevision(tx, t.id, draft.UID, record.TemplateHead{Slug: draft.Slug, Revision: draft.Revision}, signed); err != nil {
		return err
	}
	return t.resealFollowers(tx, draft, author)
}
