package keys

import (
	"context"
	"errors"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// What is here opens keys that users get nothing of: a compromised generation or
// version, so that what is under it can be sealed under another. It is for the
// reseal operation alone. What is suspended stays shut for it as well: nobody
// decided yet what becomes of it.

// resealable says why a reseal may not open a wrap. mu is held.
func (r *Ring) resealable(w license.Wrap) error {
	m, k := r.custodians[w.Custodian], r.states[w.Custodian]
	switch {
	case r.closed:
		return vocab.Errorf(vocab.ReasonKeySuspended, "the tenant is being shut down")
	case m == nil:
		return r.usableWrap(w)
	case m.barred != nil:
		return m.barred
	case k.State == Suspended || k.State == Destroyed || k.State == PreActive:
		return r.stateError(w)
	}
	switch s := k.Versions[w.L0Version]; s {
	case Suspended:
		return suspended("version %d of the tenant key", w.L0Version)
	case Destroyed:
		return vocab.Errorf(vocab.ReasonKeyState, "version %d of the tenant key is %s", w.L0Version, s)
	case PreActive, Active, Deactivated, Compromised:
	}
	return nil
}

// resealableGeneration is resealable for a tenant generation. mu is held.
func (r *Ring) resealableGeneration(g *generation) error {
	switch {
	case g == nil:
		return vocab.Errorf(vocab.ReasonKeyState, "there is no such generation here")
	case g.broken != nil:
		return g.broken
	case g.State == Suspended:
		return suspended("generation g%d", g.Number)
	case !g.State.Opens() && g.State != Compromised:
		return vocab.Errorf(vocab.ReasonKeyState, "generation g%d is %s", g.Number, g.State)
	}
	return r.resealable(g.Wrap)
}

// MayReseal says why what is under a generation may not be moved away by a
// reseal: a tenant generation if own is nil, else a document's own with this
// wrap. It does no I/O and does not block.
func (r *Ring) MayReseal(id vocab.GenerationID, own *license.Wrap) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own != nil {
		return r.resealable(*own)
	}
	return r.resealableGeneration(r.byID[id])
}

// OpenForReseal lends the key of a tenant generation to a reseal: as [Ring.Open]
// does where that may, else by a call of the custodian whose answer is kept
// nowhere. The key is no good for [Ring.Recheck]: ask [Ring.MayReseal].
func (r *Ring) OpenForReseal(ctx context.Context, id vocab.GenerationID) (*Key, error) {
	r.mu.Lock()
	g := r.byID[id]
	err := r.resealableGeneration(g)
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	usable := r.usable(g, false) == nil
	m, w, number, epoch := r.custodians[g.Wrap.Custodian], g.Wrap, g.Number, r.epoch
	item := UnwrapItem{Binding: g.binding(r.tenant), Wrap: w}
	commitment := g.commitment
	r.mu.Unlock()
	if usable {
		return r.Open(ctx, id)
	}
	u, err := r.prove(ctx, m, item.Binding, w, commitment)
	if err != nil {
		return nil, err
	}
	return &Key{
		Secret: u.secret, Mode: vocab.CustodyCached, Generation: id, Number: number, Wrap: w, RequestID: u.requestID, Asked: u.asked, epoch: epoch,
	}, nil
}

// DocumentKey names the own generation of a document and its wrap.
type DocumentKey struct {
	Content    vocab.ContentID
	Generation vocab.GenerationID
	Wrap       license.Wrap
}

// OpenDocumentsForReseal opens the own generations of documents, all wrapped by
// one key and at most [MoveBatch], in one call of the custodian. The caller owns
// and zeroes the secrets.
func (r *Ring) OpenDocumentsForReseal(ctx context.Context, docs []DocumentKey) ([]UnwrapResult, error) {
	out := make([]UnwrapResult, len(docs))
	var index []int
	var ask []UnwrapItem
	r.mu.Lock()
	var m *member
	for i, d := range docs {
		if out[i].Err = r.resealable(d.Wrap); out[i].Err == nil {
			m = r.custodians[d.Wrap.Custodian]
			index = append(index, i)
			ask = append(ask, UnwrapItem{Binding: DocumentBinding(r.tenant, d.Generation, d.Content), Wrap: d.Wrap})
		}
	}
	r.mu.Unlock()
	if len(ask) == 0 {
		return out, nil
	}
	rs, err := r.unwrapAll(ctx, m, ask)
	if err != nil {
		return nil, err
	}
	for j, u := range rs {
		if u.Err == nil {
			u.Err = checkSecret(ask[j].Binding, u.Secret, nil)
		}
		if u.Err != nil {
			u.Secret.Zero()
			u.Secret = nil
		}
		out[index[j]] = u
	}
	return out, nil
}

// NewDocuments makes a generation for each of at most [MoveBatch] documents, as
// [Ring.NewDocument] does for one, and has the custodian open each of them again:
// two calls for all. The caller releases the keys. Either there is an error and
// no key, or a key for each.
func (r *Ring) NewDocuments(ctx context.Context, docs []vocab.ContentID) (out []*Key, err error) {
	if len(docs) == 0 {
		return nil, nil
	}
	r.mu.Lock()
	m, epoch, err := r.custodians[r.active], r.epoch, r.mayWrap()
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, k := range out {
				k.Release()
			}
			out = nil
		}
	}()
	items := make([]WrapItem, len(docs))
	asked := r.now()
	for i, content := range docs {
		k := &Key{Secret: vocab.NewSecret(), Mode: vocab.CustodyStrict, Generation: vocab.NewGenerationID(), Asked: asked, epoch: epoch}
		out = append(out, k)
		items[i] = WrapItem{Binding: DocumentBinding(r.tenant, k.Generation, content), Secret: k.Secret}
	}
	rs, err := m.Wrap(ctx, items)
	if rs, err = r.wraps("wrap", m, len(items), asked, rs, err); err != nil {
		return out, err
	}
	prove := make([]UnwrapItem, len(docs))
	for i, w := range rs {
		if w.Err != nil {
			return out, w.Err // they are all alike, and all new
		}
		if err := r.wrapAllowed(w.Wrap); err != nil { // the version it chose may be a suspended one
			return out, err
		}
		out[i].Wrap, out[i].RequestID = w.Wrap, w.RequestID
		prove[i] = UnwrapItem{Binding: items[i].Binding, Wrap: w.Wrap}
	}
	got, err := r.unwrapAll(ctx, m, prove)
	if err != nil {
		return out, err
	}
	for i, u := range got {
		if u.Err == nil {
			u.Err = checkSecret(prove[i].Binding, u.Secret, nil)
		}
		if u.Err == nil && !u.Secret.Equal(out[i].Secret) {
			u.Err = integrity(errors.New("a new wrap does not open to what was wrapped"))
		}
		u.Secret.Zero()
		if err == nil {
			err = u.Err
		}
	}
	return out, err
}
