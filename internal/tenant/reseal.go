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
	return t.alongReseal(tx, author, wish{
		kind: operation.Reseal, params: &operation.ResealParams{Template: draft.UID}, about: "template " + draft.Slug, alone: true,
	})
}

// resealEverything does the same for all of the tenant's licenses, in the
// transaction that raises the custody of the whole tenant.
func (t *Tenant) resealEverything(tx store.Tx, from, to record.Settings, by audit.Principal) error {
	if from.Custody == vocab.CustodyStrict || to.Custody != vocab.CustodyStrict {
		return nil
	}
	params := &operation.ResealParams{Everything: 1}
	n, err := t.countScopes(tx, t.cachedScopes())
	if err != nil || n == 0 || !t.resealOf(params).IsZero() {
		return err
	}
	author := operation.Person{Issuer: by.Issuer, Subject: by.Subject, Provider: by.Provider, Name: by.Name}
	return t.alongReseal(tx, author, wish{kind: operation.Reseal, params: params, about: "every license that is kept cached", alone: true})
}

// alongReseal makes a reseal that follows from what a transaction does.
func (t *Tenant) alongReseal(tx store.Tx, author operation.Person, w wish) error {
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
	return t.resealOf(&operation.ResealParams{Template: uid})
}

func (t *Tenant) resealOf(p *operation.ResealParams) vocab.OperationID {
	params, err := operation.EncodeParams(p)
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

// workReseal seals the next licenses anew. It ends early if what it was for is
// not demanded any more.
func (t *Tenant) workReseal(ctx context.Context, pace *pace, id vocab.OperationID, o *operation.Operation) (time.Duration, error) {
	params, err := operation.Params[operation.ResealParams](o)
	if err != nil {
		return 0, err
	}
	switch {
	case params.Generation > 0 || params.Key != "":
		return t.workAway(ctx, pace, id, o, params)
	case params.Everything == 1:
		return t.workEverything(ctx, pace, id, o, params)
	}
	var tmpl *policy.CompiledTemplate
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		tmpl, err = t.template(r, params.Template)
		return err
	}); err != nil {
		return 0, err
	}
	if tmpl == nil || tmpl.Custody != vocab.CustodyStrict {
		return 0, t.dropReseal(ctx, id, "the template does not demand strict custody any more")
	}
	scopes := []record.LicenseScope{{Template: params.Template, Custody: vocab.CustodyCached}}
	return t.workThrough(ctx, work{
		id: id, o: o, scopes: scopes, left: t.countOf(scopes), batch: maxBatch, rate: params.MaxRate, pace: pace,
		kind: audit.KindLicenseEdited, detail: toStrictDetail, ready: t.resealed(true, false),
		done: saying("every license of the template is strict"),
	})
}

const toStrictDetail = "resealed: cached to strict"

// dropReseal ends a reseal that is no longer wanted.
func (t *Tenant) dropReseal(ctx context.Context, id vocab.OperationID, why string) error {
	_, _, err := t.moveOperation(ctx, t.newEvent(audit.KindOperationCancelled, byItself, t.now()), id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.keepCounts(tx, id, o); err != nil {
			return err
		}
		e.Detail = why
		return o.Cancel(why, e.Time)
	})
	return err
}
