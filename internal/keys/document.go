package keys

import (
	"context"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// member gives a custodian its queue.
func (r *Ring) member(c Custodian) *member {
	return &member{
		Custodian: c,
		opens: &coalescer[UnwrapItem, UnwrapResult]{
			timeout: r.timeout,
			discard: func(u UnwrapResult) { u.Secret.Zero() },
			call: func(ctx context.Context, items []UnwrapItem) ([]UnwrapResult, error) {
				asked := r.now()
				rs, err := c.Unwrap(ctx, items)
				if err == nil && len(rs) != len(items) {
					for _, u := range rs {
						u.Secret.Zero()
					}
					rs, err = nil, integrity(fmt.Errorf("asked for %d keys, got %d", len(items), len(rs)))
				}
				var ids []string
				heard := err
				for _, u := range rs {
					ids = appendNew(ids, u.RequestID)
					// Of several the one that says most of the custodian.
					if u.Err != nil && (heard == nil || !refusesEverything(heard)) {
						heard = u.Err
					}
				}
				r.saw("unwrap", c.ID(), len(items), asked, heard, ids...)
				return rs, err
			},
		},
	}
}

func appendNew(ids []string, id string) []string {
	if len(ids) > 0 && ids[len(ids)-1] == id {
		return ids
	}
	return append(ids, id)
}

// NewDocument makes a generation for one document (custody strict), wrapped by
// the active tenant key: one call of the custodian. Key.Wrap goes into the publishing license and the
// record; the secret is kept nowhere.
func (r *Ring) NewDocument(ctx context.Context, content vocab.ContentID) (*Key, error) {
	r.mu.Lock()
	m, epoch, err := r.custodians[r.active], r.epoch, r.mayWrap()
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	id := vocab.NewGenerationID()
	secret := vocab.NewSecret()
	asked := r.now()
	w, err := r.wrap(ctx, m, DocumentBinding(r.tenant, id, content), secret)
	if err == nil {
		r.mu.Lock()
		if err = r.usableWrap(w.Wrap); err == nil { // the version it chose may be a suspended one
			r.use(w.Wrap, asked)
		}
		r.mu.Unlock()
	}
	if err != nil {
		secret.Zero()
		r.refused(m, err)
		return nil, err
	}
	return &Key{Secret: secret, Mode: vocab.CustodyStrict, Generation: id, Wrap: w.Wrap, RequestID: w.RequestID, Asked: asked, epoch: epoch}, nil
}

// OpenDocument unwraps the generation of one document (custody strict): always
// a call of the custodian, in one batch with whoever asks at the same time.
// That the secret is the document's is for the caller to see by the content
// key's commitment.
func (r *Ring) OpenDocument(ctx context.Context, content vocab.ContentID, id vocab.GenerationID, w license.Wrap) (*Key, error) {
	r.mu.Lock()
	err := r.usableWrap(w)
	if r.closed {
		err = vocab.Errorf(vocab.ReasonKeySuspended, "the tenant is being shut down")
	}
	m, epoch := r.custodians[w.Custodian], r.epoch
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	asked := r.now()
	b := DocumentBinding(r.tenant, id, content)
	u, err := m.opens.do(ctx, UnwrapItem{Binding: b, Wrap: w})
	if err == nil {
		err = u.Err
	}
	if err == nil {
		err = checkSecret(b, u.Secret, nil)
	}
	if err != nil {
		u.Secret.Zero()
		r.refused(m, err)
		return nil, err
	}
	k := &Key{Secret: u.Secret, Mode: vocab.CustodyStrict, Generation: id, Wrap: w, RequestID: u.RequestID, Asked: asked, epoch: epoch}
	if err := r.Recheck(k); err != nil {
		k.Release()
		return nil, err
	}
	r.mu.Lock()
	r.use(w, asked)
	r.mu.Unlock()
	return k, nil
}

// wrap has one secret wrapped by m and checks what came back.
func (r *Ring) wrap(ctx context.Context, m *member, b Binding, secret *vocab.Secret) (WrapResult, error) {
	start := r.now()
	rs, err := m.Wrap(ctx, []WrapItem{{Binding: b, Secret: secret}})
	w, err := m.onlyWrap(rs, err)
	if err == nil {
		err = r.notSetBack(w.Wrap)
	}
	r.saw("wrap", m.ID(), 1, start, err, w.RequestID)
	return w, err
}

// notSetBack refuses a new wrap under an older version than was ever seen.
func (r *Ring) notSetBack(w license.Wrap) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if latest := r.states[w.Custodian].Latest; w.L0Version < latest {
		return VersionMissing(latest, w.L0Version)
	}
	return nil
}

// onlyWrap is the answer to a call for one wrap. What is not m's own wrap is
// an error, beside which only the custodian's ID of the call is left.
func (m *member) onlyWrap(rs []WrapResult, err error) (WrapResult, error) {
	var failed WrapResult
	if len(rs) == 1 {
		failed.RequestID = rs[0].RequestID
	}
	switch {
	case err != nil:
		return failed, err
	case len(rs) != 1:
		return failed, integrity(fmt.Errorf("asked for 1 wrap, got %d", len(rs)))
	case rs[0].Err != nil:
		return failed, rs[0].Err
	case rs[0].Wrap.Custodian != m.ID():
		return failed, integrity(fmt.Errorf("asked key %s, got a wrap of %s", m.ID(), rs[0].Wrap.Custodian))
	}
	return rs[0], nil
}

// refused drops every copy a custodian ever unwrapped once it refuses.
func (r *Ring) refused(m *member, err error) {
	if !refusesEverything(err) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := m.ID()
	r.dropAll(&id)
}

// timeNow is UTC to the millisecond, as everything that is stored.
func (r *Ring) timeNow() time.Time { return r.now().UTC().Truncate(time.Millisecond) }
