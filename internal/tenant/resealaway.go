package tenant

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// A reseal moves licenses away from a generation, or from a version of a key,
// that is not to be relied on any more. The content key stays the same; the
// record holds it under the active generation, or if the license is strict, under
// a new one of its own. What it cannot reach is in files: each carries a copy of
// its content key under the generation it was published with.

// ResealPlan is what a reseal would move.
type ResealPlan struct {
	Target KeyTarget
	// Licenses is how many there are to seal anew.
	Licenses int64
	// Generations are the numbers of the tenant's generations they are sealed
	// under, if there are any; else only strict licenses are moved.
	Generations []uint32

	scopes []record.LicenseScope
}

// PlanReseal returns what [Tenant.Reseal] would do. It asks no custodian. What
// may not be resealed, or cannot be moved away from now, is KEY_STATE,
// KEY_SUSPENDED or KEY_IN_USE.
func (t *Tenant) PlanReseal(ctx context.Context, target KeyTarget) (*ResealPlan, error) {
	p, err := t.planReseal(target)
	if err != nil {
		return nil, err
	}
	err = t.store.View(ctx, func(r store.Reader) error {
		n, err := t.countScopes(r, p.scopes)
		p.Licenses = int64(n)
		return err
	})
	return p, err
}

func (t *Tenant) planReseal(target KeyTarget) (*ResealPlan, error) {
	if target.Generation == 0 {
		return t.planResealVersion(target)
	}
	all := t.ring.Inventory()
	i := slices.IndexFunc(all, func(e keys.Entry) bool { return e.Number == target.Generation })
	if i < 0 {
		return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no generation g%d", target.Generation).WithNext("See rmsctl key inventory")
	}
	if all[i].State == keys.Active {
		return nil, vocab.Errorf(vocab.ReasonKeyInUse, "generation g%d is the active one: what is new is sealed under it", target.Generation).
			WithNext("Rotate the key first, which makes another one")
	}
	if err := t.ring.MayReseal(all[i].ID, nil); err != nil {
		return nil, err
	}
	return &ResealPlan{Target: target, Generations: []uint32{target.Generation}, scopes: []record.LicenseScope{{Generation: all[i].ID}}}, nil
}

func (t *Tenant) planResealVersion(target KeyTarget) (*ResealPlan, error) {
	k := t.live.key(target.Key)
	if k == nil {
		return nil, noKey()
	}
	if target.Version == 0 || k.Version(target.Version) == nil {
		return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "the key %s has no version %d", target.Key, target.Version).WithNext("See rmsctl key inventory")
	}
	if keys.State(k.State) == keys.Active && target.Version == k.RootLatest {
		return nil, vocab.Errorf(vocab.ReasonKeyInUse, "version %d of key %s is the newest of the active key: what is new is wrapped by it", target.Version, target.Key).
			WithNext("Rotate the key first")
	}
	own := license.Wrap{Custodian: k.ID, L0Version: target.Version}
	if err := t.ring.MayReseal(vocab.GenerationID{}, &own); err != nil {
		return nil, err
	}
	p := &ResealPlan{Target: target, scopes: []record.LicenseScope{{Key: k.ID, Version: target.Version}}}
	// Whoever had the version had the generations it wraps.
	for _, e := range t.ring.Inventory() {
		if e.Version == (keys.VersionID{Custodian: k.ID, Version: target.Version}) && e.State != keys.Active && t.ring.MayReseal(e.ID, nil) == nil {
			p.Generations = append(p.Generations, e.Number)
			p.scopes = append(p.scopes, record.LicenseScope{Generation: e.ID})
		}
	}
	return p, nil
}

// Reseal starts moving licenses away from a generation or a version of a key, at
// most maxRate a second (0: as many as leave others alone), unless that goes on
// already: then that operation is returned. What is compromised is opened for
// this alone; what is suspended is not.
func (t *Tenant) Reseal(ctx context.Context, c Call, target KeyTarget, maxRate uint32) (*OperationView, *ResealPlan, vocab.EventID, error) {
	p, err := t.PlanReseal(ctx, target)
	if err == nil {
		err = t.hasActiveGeneration(ctx)
	}
	if err != nil {
		e := t.newEvent(audit.KindOperationRequested, c, t.now())
		e.Detail = operation.Reseal.String() + ": " + target.String()
		return nil, nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	if p.Licenses == 0 {
		event, err := t.RecordRead(ctx, c.Caller, c.Method)
		return nil, p, event, err
	}
	v, event, err := t.request(ctx, c, wish{
		kind: operation.Reseal, about: "away from " + target.String(), alone: true, once: true,
		params: &operation.ResealParams{Generation: target.Generation, Key: target.Key, Version: target.Version, MaxRate: maxRate},
	})
	return v, p, event, err
}

// hasActiveGeneration makes a generation if none is active, as after the active
// one was compromised.
func (t *Tenant) hasActiveGeneration(ctx context.Context) error {
	if slices.ContainsFunc(t.ring.Inventory(), func(e keys.Entry) bool { return e.State == keys.Active }) {
		return nil
	}
	_, err := t.ring.NewGeneration(ctx)
	return err
}

// workAway moves the next licenses away from what is not to be relied on.
func (t *Tenant) workAway(ctx context.Context, pace *pace, id vocab.OperationID, o *operation.Operation, params *operation.ResealParams) (time.Duration, error) {
	plan, err := t.planReseal(KeyTarget{Generation: params.Generation, Key: params.Key, Version: params.Version})
	if err != nil {
		if vocab.ReasonOf(err) == vocab.ReasonKeySuspended {
			return 0, heldUp{err}
		}
		return 0, err
	}
	return t.workThrough(ctx, work{
		id: id, o: o, scopes: plan.scopes, left: t.countOf(plan.scopes), batch: maxBatch, rate: params.MaxRate, pace: pace,
		kind: audit.KindLicenseEdited, detail: "resealed: away from " + plan.Target.String(), ready: t.resealed(false, true),
		done: func(_ store.Reader, p *record.Progress) (string, error) {
			return fmt.Sprintf("%s sealed anew; their files still carry what they were published with, until they are protected anew", plural(int64(p.Done), "license")), nil
		},
	})
}

// cachedScopes are all licenses that are sealed under generations of the tenant
// that may be opened.
func (t *Tenant) cachedScopes() (out []record.LicenseScope) {
	for _, e := range t.ring.Inventory() {
		if t.ring.MayReseal(e.ID, nil) == nil {
			out = append(out, record.LicenseScope{Generation: e.ID})
		}
	}
	return out
}

// workEverything gives the next licenses of the whole tenant generations of their
// own.
func (t *Tenant) workEverything(ctx context.Context, pace *pace, id vocab.OperationID, o *operation.Operation, params *operation.ResealParams) (time.Duration, error) {
	// As the store has them: it starts with the commit that demands strict custody,
	// and memory may follow a moment later.
	var settings record.Settings
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		if settings, err = record.GetSettings(r, t.id); err != nil {
			return err
		}
		return verifySettings(r, t.id, settings)
	})
	if err != nil {
		return 0, err
	}
	if settings.Custody != vocab.CustodyStrict {
		return 0, t.dropReseal(ctx, id, "the tenant does not demand strict custody any more")
	}
	scopes := t.cachedScopes()
	return t.workThrough(ctx, work{
		id: id, o: o, scopes: scopes, left: t.countOf(scopes), batch: maxBatch, rate: params.MaxRate, pace: pace,
		kind: audit.KindLicenseEdited, detail: toStrictDetail, ready: t.resealed(true, true),
		done: saying("every license of the tenant is strict, but for those under what is suspended"),
	})
}

// resealed makes the next revisions of licenses, whose content keys are sealed
// anew: strict ones, and all of them if strict is set, each under a new
// generation of its own, the others under the active one. What was sealed was
// opened before it takes the place of what it was made from. again says that the
// work's scopes leave out what is suspended.
func (t *Tenant) resealed(strict, again bool) func(context.Context, []*record.License) ([]made, error) {
	return func(ctx context.Context, list []*record.License) ([]made, error) {
		out := make([]made, len(list))
		opened, err := t.openForReseal(ctx, list, out, again)
		defer func() {
			for _, o := range opened {
				o.key.Zero()
			}
		}()
		if err != nil {
			return nil, err
		}
		var own []vocab.ContentID // that get one of their own
		for i, l := range list {
			if out[i].err == nil && (strict || len(l.Wrap) > 0) {
				own = append(own, l.Content)
			}
		}
		fresh, err := t.ring.NewDocuments(ctx, own)
		defer func() {
			for _, k := range fresh {
				k.Release()
			}
		}()
		if err != nil {
			return nil, holdsUp(err)
		}
		var active *keys.Key
		defer func() { active.Release() }()
		n := 0
		for i, l := range list {
			if out[i].err != nil {
				continue
			}
			under := active
			switch {
			case strict || len(l.Wrap) > 0:
				under = fresh[n]
				n++
			case active == nil:
				if active, err = t.ring.Active(ctx); err != nil {
					return nil, holdsUp(err)
				}
				under = active
			}
			out[i] = t.sealedUnder(l, under, opened[i])
		}
		return out, nil
	}
}

// openedBox is a license's content key, and what says in the transaction that
// what it was sealed under may still be opened.
type openedBox struct {
	key *vocab.Secret
	may func() error
}

// borrowedKey is a generation's key, or why there is none.
type borrowedKey struct {
	key *keys.Key
	err error
}

// openForReseal opens the content keys of licenses; why not, for each that
// cannot be, goes into out. The caller zeroes them, also beside an error.
func (t *Tenant) openForReseal(ctx context.Context, list []*record.License, out []made, again bool) ([]openedBox, error) {
	opened := make([]openedBox, len(list))
	borrowed := map[vocab.GenerationID]borrowedKey{}
	defer func() {
		for _, g := range borrowed {
			g.key.Release()
		}
	}()
	var docs []keys.DocumentKey
	var index []int
	take := func(i int, secret *vocab.Secret, own *license.Wrap) {
		l := list[i]
		box := l.Box(t.id)
		if opened[i].key, out[i].err = box.Open(secret, l.KeyBox); out[i].err == nil {
			opened[i].may = func() error { return t.ring.MayReseal(l.Generation, own) }
		}
	}
	for i, l := range list {
		if len(l.Wrap) > 0 {
			w, err := license.ParseWrap(l.Wrap)
			if err != nil {
				out[i].err = damagedWrap(err)
				continue
			}
			index, docs = append(index, i), append(docs, keys.DocumentKey{Content: l.Content, Generation: l.Generation, Wrap: *w})
			continue
		}
		g, asked := borrowed[l.Generation]
		if !asked {
			g.key, g.err = t.ring.OpenForReseal(ctx, l.Generation)
			borrowed[l.Generation] = g
		}
		switch {
		case g.err == nil:
			take(i, g.key.Secret, nil)
		case passes(g.err):
			return opened, g.err
		default:
			out[i].err, out[i].again = g.err, again && vocab.ReasonOf(g.err) == vocab.ReasonKeySuspended
		}
	}
	if len(docs) == 0 {
		return opened, nil
	}
	rs, err := t.ring.OpenDocumentsForReseal(ctx, docs)
	if err != nil {
		return opened, err
	}
	for j, u := range rs {
		i := index[j]
		if u.Err != nil {
			out[i].err, out[i].again = u.Err, again && vocab.ReasonOf(u.Err) == vocab.ReasonKeySuspended
			continue
		}
		take(i, u.Secret, &docs[j].Wrap)
		u.Secret.Zero()
	}
	return opened, nil
}

// sealedUnder is a license with its content key under another generation.
func (t *Tenant) sealedUnder(l *record.License, under *keys.Key, from openedBox) made {
	next := *l
	next.Generation, next.Wrap = under.Generation, nil
	if under.Mode == vocab.CustodyStrict {
		next.Wrap = under.Wrap.Encode()
	}
	box := next.Box(t.id)
	sealed, err := box.Seal(under.Secret, from.key)
	if err != nil {
		return made{err: err}
	}
	again, err := box.Open(under.Secret, sealed)
	again.Zero()
	if err != nil {
		return made{err: err}
	}
	next.KeyBox = sealed
	out := made{next: &next}
	noteKey(&out.key, under)
	out.recheck = func() error { return firstError(from.may(), t.ring.Recheck(under)) }
	return out
}
