package tenant

import (
	"context"
	"fmt"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// keysOf notes with which keys secrets open in this reading.
func (x *arrival) keysOf(r *archive.Reader) { x.archiveKeys = r.Keys() }

// brought is a secret that came, and what it is of.
type brought struct {
	binding keys.Binding
	secret  *vocab.Secret
	number  uint32          // of a tenant's generation
	license *record.License // of a document's own
}

// bringSecrets opens the secrets of generations, proves each, and has it wrapped
// by the key here.
func (x *arrival) bringSecrets(ctx context.Context, rows []archive.Row) error {
	for len(rows) > 0 {
		n := min(len(rows), keys.MaxBatch)
		if err := x.bringBatch(ctx, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

func (x *arrival) bringBatch(ctx context.Context, rows []archive.Row) error {
	var batch []brought
	defer func() {
		for _, b := range batch {
			b.secret.Zero()
		}
	}()
	for _, row := range rows {
		b, err := x.openSecret(ctx, row)
		if err != nil {
			return err
		}
		if b == nil {
			x.out.Lost++
			continue
		}
		batch = append(batch, *b)
	}
	items := make([]keys.WrapItem, len(batch))
	for i, b := range batch {
		items[i] = keys.WrapItem{Binding: b.binding, Secret: b.secret}
	}
	wraps, err := keys.WrapAll(ctx, x.custodian, items)
	if err != nil {
		return err
	}
	return x.t.store.Commit(ctx, func(tx store.Tx) error {
		for i := range batch {
			if err := x.rewrapped(tx, &batch[i], wraps[i]); err != nil {
				return err
			}
		}
		tx.AfterCommit(func() {
			x.out.Secrets += int64(len(batch))
			for _, b := range batch {
				if b.license == nil {
					x.held[b.binding.Generation] = b.secret.Clone()
				}
			}
		})
		return nil
	})
}

// openSecret opens one secret and checks it against what it must be; nil if the
// archive has none.
func (x *arrival) openSecret(ctx context.Context, row archive.Row) (*brought, error) {
	var a archivedSecret
	if err := canon.Unmarshal(row.Value, &a); err != nil || len(row.Key) != 17 || (len(a.Box) == 0) == (a.Lost == "") {
		return nil, notASecret().Because(err)
	}
	b, commitment, err := x.bindingOf(ctx, row.Key)
	if err != nil || len(a.Box) == 0 {
		return nil, err
	}
	if b.secret, err = b.binding.OpenFrom(x.archiveKeys, a.Box); err != nil {
		return nil, err
	}
	if err := x.prove(b, commitment); err != nil {
		b.secret.Zero()
		return nil, err
	}
	return b, nil
}

func notASecret() *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the archive has a key of a generation that cannot be")
}

// bindingOf finds out what a secret is of.
func (x *arrival) bindingOf(ctx context.Context, key []byte) (*brought, [32]byte, error) {
	t := x.t
	if key[0] == ofTenant {
		if err := x.readGenerations(); err != nil {
			return nil, [32]byte{}, err
		}
		id := vocab.GenerationID(key[1:])
		g, ok := x.generations[id]
		if !ok {
			return nil, [32]byte{}, notASecret()
		}
		return &brought{binding: keys.TenantBinding(t.id, id), number: g.number}, g.commitment, nil
	}
	content := vocab.ContentID(key[1:])
	var l *record.License
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		l, err = record.GetLicense(r, t.id, content)
		return err
	})
	if err == nil && (key[0] != ofDocument || l == nil || len(l.Wrap) == 0) {
		err = notASecret()
	}
	if err != nil {
		return nil, [32]byte{}, err
	}
	return &brought{binding: keys.DocumentBinding(t.id, l.Generation, content), license: l}, [32]byte{}, nil
}

// promised is what a root signed of a generation.
type promised struct {
	number     uint32
	commitment [32]byte
}

// readGenerations verifies the tenant's generations, once.
func (x *arrival) readGenerations() error {
	if x.generations != nil {
		return nil
	}
	all := map[vocab.GenerationID]promised{}
	for _, g := range x.t.live.generationList() {
		signed, err := license.VerifyGeneration(g.Signed, x.t.id, x.t.trust.keys()...)
		if err != nil {
			return err
		}
		all[signed.ID] = promised{g.Number, signed.Commitment}
	}
	x.generations = all
	return nil
}

// prove checks that a secret is the one: of a tenant's generation by its
// commitment, which the source's root signed; of a document's own by the content
// key that it opens, which the document commits to.
func (x *arrival) prove(b *brought, commitment [32]byte) error {
	if b.license != nil {
		x.tryBox(b.license, b.secret)
		return nil
	}
	if b.binding.Commitment(b.secret) != commitment {
		return vocab.Errorf(vocab.ReasonCustodyIntegrity, "the archive has another key for generation %s than its root vouched for", b.binding.Generation)
	}
	return nil
}

// tryBox opens a license's content key and forgets it. One that does not open did
// not open at the source either, and is told.
func (x *arrival) tryBox(l *record.License, secret *vocab.Secret) {
	box := l.Box(x.t.id)
	ck, err := box.Open(secret, l.KeyBox)
	ck.Zero()
	if err == nil {
		return
	}
	if len(x.out.Closed) < maxClosed {
		x.out.Closed = append(x.out.Closed, l.Content)
	} else {
		x.out.ClosedMore++
	}
}

// rewrapped writes a new wrap, with its event.
func (x *arrival) rewrapped(tx store.Tx, b *brought, w keys.WrapResult) error {
	t := x.t
	kind := audit.KindGenerationRewrapped
	if b.license != nil {
		kind = audit.KindLicenseEdited
	}
	e := t.newEvent(kind, importing, t.now())
	e.Parent, e.Operation, e.Detail = x.imported.ID, x.operation, "rewrapped: imported"
	e.Generation, e.Custodian, e.KeyVersion, e.CustodianRequest = b.binding.Generation, w.Wrap.Custodian, w.Wrap.L0Version, w.RequestID
	if b.license != nil {
		next := *b.license
		next.Wrap, e.Custody = w.Wrap.Encode(), next.Custody()
		return t.putLicense(tx, &next, e)
	}
	e.Target = record.GenerationName(b.number)
	states, err := readKeyStates(tx, t.id)
	if err != nil {
		return err
	}
	if _, err := t.putResource(tx, e.Target, e, editGeneration(func(g *record.Generation) error {
		old, err := license.ParseWrap(g.Wrap)
		if err != nil {
			return err
		}
		g.Wrap = w.Wrap.Encode()
		// It leaves a key or version that was taken out of use: from now on that is
		// its own state.
		if state := states.of(*old); state > keys.State(g.State) {
			e.Detail += "; " + moveText(keys.State(g.State), state, "as the key was that it was under")
			g.State, g.Since, g.Why = uint8(state), record.ToMillis(e.Time), "as the key was that it was under"
		}
		return nil
	})); err != nil {
		return err
	}
	return t.log.Append(tx, e)
}

// tryBoxes opens the content key of every license that is under a generation of
// the tenant's.
func (x *arrival) tryBoxes(ctx context.Context) error {
	x.cfg.Say("trying every document's key")
	t := x.t
	for after, more := (vocab.ContentID{}), true; more; {
		var list []*record.License
		if err := t.store.View(ctx, func(r store.Reader) (err error) {
			list, after, more, err = record.NextOf(r, t.id, after, keys.MaxBatch)
			return err
		}); err != nil {
			return err
		}
		for _, l := range list {
			x.out.Licenses++
			if s := x.held[l.Generation]; len(l.Wrap) == 0 && s != nil {
				x.tryBox(l, s)
			}
		}
	}
	if n := int64(len(x.out.Closed)) + x.out.ClosedMore; n > 0 {
		x.cfg.Say("%s", fmt.Sprintf("%d documents do not open; they did not at the source either", n))
	}
	return nil
}

// generationList are the generations of the tenant.
func (l *live) generationList() (out []*record.Generation) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, g := range l.generations {
		out = append(out, g)
	}
	return out
}
