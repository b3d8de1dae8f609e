package keys

import (
	"context"
	"fmt"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// TakeOut unwraps generations for a tenant that leaves, whatever state its
// service has them in: what is suspended may be resumed where the tenant goes,
// and what is compromised may be resealed there. Nothing is kept. Each result is
// a secret that the caller zeroes, or why there is none; the error is one for
// the call as a whole, after which there are no secrets.
//
// commitment returns what the secret of an item must match; nil for a document's
// own generation.
func (r *Ring) TakeOut(ctx context.Context, items []UnwrapItem, commitment func(i int) *[32]byte) (out []UnwrapResult, err error) {
	out = make([]UnwrapResult, len(items))
	defer func() {
		if err != nil {
			ZeroAll(out)
			out = nil
		}
	}()
	byKey := map[vocab.CustodianID][]int{}
	for i, item := range items {
		byKey[item.Wrap.Custodian] = append(byKey[item.Wrap.Custodian], i)
	}
	for id, places := range byKey {
		r.mu.Lock()
		m := r.custodians[id]
		var barred error
		if m != nil {
			barred = m.barred
		}
		r.mu.Unlock()
		switch {
		case m == nil:
			for _, i := range places {
				out[i].Err = vocab.Errorf(vocab.ReasonKeyState, "its tenant key is not registered here, or its custodian not named")
			}
			continue
		case barred != nil:
			return out, barred
		}
		for len(places) > 0 {
			n := min(len(places), MaxBatch)
			if err := r.takeOut(ctx, m, items, places[:n], out); err != nil {
				return out, err
			}
			places = places[n:]
		}
	}
	for i := range out {
		if out[i].Err == nil {
			out[i].Err = checkSecret(items[i].Binding, out[i].Secret, commitment(i))
		}
		if out[i].Err != nil {
			out[i].Secret.Zero()
			out[i].Secret = nil
		}
	}
	return out, nil
}

// takeOut unwraps some of the items, all of one custodian.
func (r *Ring) takeOut(ctx context.Context, m *member, items []UnwrapItem, places []int, out []UnwrapResult) error {
	batch := make([]UnwrapItem, len(places))
	for i, at := range places {
		batch[i] = items[at]
	}
	asked := r.now()
	rs, err := m.Unwrap(ctx, batch)
	if err == nil && len(rs) != len(batch) {
		ZeroAll(rs)
		err = integrity(fmt.Errorf("asked for %d keys, got %d", len(batch), len(rs)))
	}
	var ids []string
	for _, u := range rs {
		ids = appendNew(ids, u.RequestID)
	}
	r.saw("unwrap", m.ID(), len(batch), asked, err, ids...)
	if err != nil {
		r.refused(m, err)
		return err
	}
	for i, at := range places {
		out[at] = rs[i]
	}
	return nil
}

// ZeroAll zeroes the secrets of results.
func ZeroAll(rs []UnwrapResult) {
	for _, u := range rs {
		u.Secret.Zero()
	}
}

// WrapAll has secrets wrapped by a custodian, in batches, and proves of each wrap
// that it comes back as the same secret under the same binding. The caller still
// owns the secrets. On an error there are no wraps.
func WrapAll(ctx context.Context, c Custodian, items []WrapItem) ([]WrapResult, error) {
	var out []WrapResult
	for from := 0; from < len(items); from += MaxBatch {
		batch := items[from:min(from+MaxBatch, len(items))]
		ws, err := c.Wrap(ctx, batch)
		if err == nil && len(ws) != len(batch) {
			err = integrity(fmt.Errorf("asked for %d wraps, got %d", len(batch), len(ws)))
		}
		if err != nil {
			return nil, err
		}
		back := make([]UnwrapItem, len(batch))
		for i, w := range ws {
			if w.Err != nil {
				return nil, w.Err
			}
			if w.Wrap.Custodian != c.ID() {
				return nil, integrity(fmt.Errorf("asked key %s, got a wrap of %s", c.ID(), w.Wrap.Custodian))
			}
			back[i] = UnwrapItem{Binding: batch[i].Binding, Wrap: w.Wrap}
		}
		if err := comeBack(ctx, c, batch, back); err != nil {
			return nil, err
		}
		out = append(out, ws...)
	}
	return out, nil
}

// comeBack unwraps what was just wrapped.
func comeBack(ctx context.Context, c Custodian, items []WrapItem, back []UnwrapItem) error {
	us, err := c.Unwrap(ctx, back)
	if err != nil {
		return err
	}
	defer ZeroAll(us)
	if len(us) != len(items) {
		return integrity(fmt.Errorf("asked for %d keys, got %d", len(items), len(us)))
	}
	for i, u := range us {
		if u.Err != nil {
			return u.Err
		}
		if u.Secret == nil || !u.Secret.Equal(items[i].Secret) {
			return integrity(fmt.Errorf("generation %s does not come back as it was wrapped", items[i].Binding.Generation))
		}
	}
	return nil
}

// Of the scope of a binding: the document of scope document, zero otherwise.
func (b Binding) scopeID() [16]byte {
	if b.Scope == license.ScopeDocument {
		return b.Content
	}
	return [16]byte{}
}

// SealFor seals a secret with the keys of an archive, bound as b says.
func (b Binding) SealFor(k *license.ArchiveKeys, secret *vocab.Secret) ([]byte, error) {
	return k.SealGeneration(secret, b.Generation, b.Scope, b.scopeID())
}

// OpenFrom opens what [Binding.SealFor] sealed. The caller zeroes the secret.
func (b Binding) OpenFrom(k *license.ArchiveKeys, box []byte) (*vocab.Secret, error) {
	return k.OpenGeneration(box, b.Generation, b.Scope, b.scopeID())
}
