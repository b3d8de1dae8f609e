package tenant

import (
	"context"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

const (
	// resealBatch is how many licenses one transaction seals anew, each with a
	// call of the custodian.
	resealBatch = 8
	// resealPause is how long the custodian is left alone after each batch, so
	// that whoever opens documents does not wait for this.
	resealPause = 200 * time.Millisecond
)

// resealFollowers has the licenses that follow a template and are kept less
// strictly than it demands now sealed anew: an operation that needs nobody's
// approval, made in the transaction that raises the floor. New documents are
// published as the revision says from that transaction on.
func (t *Tenant) resealFollowers(tx store.Tx, draft *policy.Template, author operation.Person) error {
	if draft.Custody != vocab.CustodyStrict || draft.State == policy.StateDeleted {
		return nil
	}
	n, err := record.CountByCustody(tx, t.id, draft.UID, vocab.CustodyCached)
	if err != nil || n == 0 || !t.ResealOf(draft.UID).IsZero() {
		return err
	}
	w := wish{
		kind: operation.Reseal, params: &operation.ResealParams{Template: draft.UID}, about: "template " + draft.Slug, alone: true,
	}
	id := vocab.NewOperationID()
	e := t.newEvent(audit.KindOperationRequested, byItself, t.now())
	e.Target, e.Operation, e.Detail = record.OperationName(id), id, wishText(w)
	o, err := t.operationFor(author, w, e.Time)
	if err != nil {
		return err
	}
	byRequester(e, o)
	if _, err := t.putResource(tx, e.Target, e, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return o.Encode() }); err != nil {
		return err
	}
	return t.log.Append(tx, e)
}

// ResealOf returns the operation that seals a template's licenses anew, zero if
// there is none that goes on.
func (t *Tenant) ResealOf(uid vocab.TemplateUID) vocab.OperationID {
	params, err := operation.EncodeParams(&operation.ResealParams{Template: uid})
	if err != nil {
		return vocab.OperationID{}
	}
	hash := (&operation.Operation{Params: params}).ParamsHash()
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	for id, g := range t.live.operations {
		if g.Kind == operation.Reseal && g.hash == hash {
			return id
		}
	}
	return vocab.OperationID{}
}

// CountFloor returns how many licenses that follow a template are kept less
// strictly than floor: by an older, weaker rule.
func (t *Tenant) CountFloor(ctx context.Context, uid vocab.TemplateUID, floor vocab.CustodyMode) (n int64, err error) {
	if floor != vocab.CustodyStrict {
		return 0, nil
	}
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		n, err = record.CountByCustody(r, t.id, uid, vocab.CustodyCached)
		return err
	})
	return n, err
}

// workReseal gives the next licenses a generation of their own. It ends early if
// the template does not ask for it any more.
func (t *Tenant) workReseal(ctx context.Context, id vocab.OperationID, o *operation.Operation) (time.Duration, error) {
	params, err := operation.Params[operation.ResealParams](o)
	if err != nil {
		return 0, err
	}
	var tmpl *policy.CompiledTemplate
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		tmpl, err = t.template(r, params.Template)
		return err
	}); err != nil {
		return 0, err
	}
	if tmpl == nil || tmpl.Custody != vocab.CustodyStrict {
		return 0, t.dropReseal(ctx, id)
	}
	done, err := t.workThrough(ctx, work{
		id: id, o: o, scope: record.LicenseScope{Template: params.Template, Custody: vocab.CustodyCached}, batch: resealBatch,
		kind: audit.KindLicenseEdited, detail: "resealed: cached to strict", each: t.toStrict,
	})
	if err != nil || !done {
		return resealPause, err
	}
	return 0, t.finishWork(ctx, id, "every license of the template is strict")
}

// toStrict seals a license's content key under a generation of its own.
func (t *Tenant) toStrict(ctx context.Context, l *record.License, keyUsed *audit.Event) (*record.License, error) {
	key, _, err := t.openKeyBox(ctx, l)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	lent, err := t.ring.NewDocument(ctx, l.Content)
	if err != nil {
		return nil, err
	}
	defer lent.Release()
	next := *l
	next.Generation, next.Wrap = lent.Generation, lent.Wrap.Encode()
	box := next.Box(t.id)
	if next.KeyBox, err = box.Seal(lent.Secret, key); err != nil {
		return nil, err
	}
	noteKey(keyUsed, lent)
	return &next, nil
}

// dropReseal ends a reseal that is no longer wanted.
func (t *Tenant) dropReseal(ctx context.Context, id vocab.OperationID) error {
	const why = "the template does not demand strict custody any more"
	_, _, err := t.moveOperation(ctx, t.newEvent(audit.KindOperationCancelled, byItself, t.now()), id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.keepCounts(tx, id, o); err != nil {
			return err
		}
		e.Detail = why
		return o.Cancel(why, e.Time)
	})
	return err
}
