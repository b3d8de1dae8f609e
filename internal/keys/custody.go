package keys

import (
	"bytes"
	"context"
	"slices"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// NewGeneration makes a tenant generation, has it wrapped by the active tenant
// key and its record signed by that key's current root, proves once that the
// custodian gives it back, and stores it as the active one. The generation that
// was active only opens from then on. On an error nothing has changed.
func (r *Ring) NewGeneration(ctx context.Context) (Entry, error) {
	return r.newGeneration(ctx, Record{State: Active})
}

// NewCanary is [Ring.NewGeneration] for a generation that only opens from its
// beginning: nothing is ever published under it, so that it can be suspended
// without harm.
func (r *Ring) NewCanary(ctx context.Context) (Entry, error) {
	return r.newGeneration(ctx, Record{State: Deactivated, Canary: true})
}

func (r *Ring) newGeneration(ctx context.Context, rec Record) (Entry, error) {
	r.admin.Lock()
	defer r.admin.Unlock()
	r.mu.Lock()
	m, number := r.custodians[r.active], uint32(1)
	err := r.mayWrap()
	for n := range r.byNumber {
		number = max(number, n+1)
	}
	r.mu.Unlock()
	if err != nil {
		return Entry{}, err
	}
	root, err := CurrentRoot(ctx, m)
	if err != nil {
		r.refused(m, err)
		return Entry{}, err
	}
	secret := vocab.NewSecret()
	defer secret.Zero()
	b := TenantBinding(r.tenant, vocab.NewGenerationID())
	w, err := r.wrap(ctx, m, b, secret)
	if err != nil {
		r.refused(m, err)
		return Entry{}, err
	}
	if err := r.wrapAllowed(w.Wrap); err != nil {
		return Entry{}, err
	}
	now := r.timeNow()
	signed, err := license.SignGeneration(ctx, root, license.Generation{
		Tenant: r.tenant, IssuedAt: now, ID: b.Generation, Scope: b.Scope, Commitment: b.Commitment(secret), UsableFrom: now,
	})
	if err != nil {
		return Entry{}, err
	}
	u, err := r.prove(ctx, m, b, w.Wrap, signed.Commitment)
	if err != nil {
		return Entry{}, err
	}
	rec.Number, rec.Signed, rec.Wrap, rec.Created = number, signed.Raw(), w.Wrap, now
	if broken := r.verify(rec).broken; broken != nil {
		u.secret.Zero()
		return Entry{}, vocab.Errorf(vocab.ReasonKeyState, "the tenant does not trust its custodian's current root yet").
			WithNext("Synchronise the tenant key first").Because(broken)
	}
	if err := r.records.AddGeneration(ctx, rec); err != nil {
		u.secret.Zero()
		return Entry{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.byNumber {
		if rec.State == Active && other.State == Active && other.Number != number {
			other.State = Deactivated // as the records have it
		}
	}
	g := r.take(rec)
	if r.usable(g, false) != nil {
		u.secret.Zero()
	} else {
		r.keep(g, u)
	}
	return Entry{
		Number: number, ID: g.id, State: rec.State, Version: VersionID{w.Wrap.Custodian, w.Wrap.L0Version}, Created: now, Canary: rec.Canary,
	}, nil
}

// prove unwraps what was just wrapped, so that nothing is ever sealed under a
// key that does not come back.
func (r *Ring) prove(ctx context.Context, m *member, b Binding, w license.Wrap, commitment [32]byte) (*unwrapped, error) {
	asked := r.now()
	secret, requestID, err := Unwrap(ctx, m, UnwrapItem{Binding: b, Wrap: w}, &commitment)
	r.saw("unwrap", m.ID(), 1, asked, err, requestID)
	if err != nil {
		r.refused(m, err)
		return nil, err
	}
	return &unwrapped{secret: secret, asked: asked, requestID: requestID}, nil
}

func (r *Ring) wrapAllowed(w license.Wrap) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.usableWrap(w)
}

// Take takes over a generation as the records have it now: one that is new, in
// another state, or with another wrap. When it returns, no key of a generation
// that may not open is held any more, and [Ring.Recheck] refuses those still
// lent. It does no I/O.
func (r *Ring) Take(rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.take(rec)
}

// take is Take; mu is held.
func (r *Ring) take(rec Record) *generation {
	g := r.byNumber[rec.Number]
	if g == nil || !bytes.Equal(g.Signed, rec.Signed) || !rec.State.Valid() {
		if g != nil {
			g.drop()
		}
		g = r.verify(rec)
		r.byNumber[g.Number] = g
		if g.broken == nil {
			r.byID[g.id] = g
		}
	}
	if !sameWrap(g.Wrap, rec.Wrap) {
		g.Wrap, g.flight = rec.Wrap, nil // a flight of the old wrap is void
	}
	g.State = rec.State
	if !g.State.Opens() {
		r.epoch++
		g.drop()
	}
	return g
}

// TakeKey takes over the states of a tenant key and its versions as the records
// have them now. Suspending one version is what Vault itself cannot do. A key that
// is active wraps what is new from then on. All of it is in force for tenant
// generations and documents when it returns; it does no I/O.
func (r *Ring) TakeKey(k KeyStates) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states[k.Key] = k
	if k.State == Active && r.custodians[k.Key] != nil {
		r.active = k.Key
	}
	for _, g := range r.byNumber {
		if g.Wrap.Custodian == k.Key && r.stateError(g.Wrap) != nil {
			g.drop()
		}
	}
	r.epoch++ // lent keys are judged anew
}

// Activate makes a registered custodian the one that wraps what is new, adding
// it if the Ring does not have it. Existing wraps stay until [Ring.Rewrap].
func (r *Ring) Activate(c Custodian) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(c)
	r.active = c.ID()
}

// Add makes a registered custodian known, which opens what it wrapped.
func (r *Ring) Add(c Custodian) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(c)
}

func (r *Ring) add(c Custodian) {
	if m := r.custodians[c.ID()]; m == nil || m.Custodian != c {
		r.custodians[c.ID()] = r.member(c)
	}
}

// ActiveKey returns the custodian that wraps what is new; nil if there is none.
func (r *Ring) ActiveKey() Custodian {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.custodians[r.active]; m != nil {
		return m.Custodian
	}
	return nil
}

// Change is what [Ring.Sync] found at one custodian.
type Change struct {
	Facts *Facts
	// Rotations since the last Sync; the first Sync reports none.
	RootRotated, SignRotated bool
	// Err is why the custodian is barred, or could not be asked.
	Err error
}

// Sync looks at the custodians of these keys, or of all of them: facts, safety,
// marks. One that became unsafe or another is barred, with all it unwrapped,
// until a later Sync finds it in order; one that refuses loses what it
// unwrapped. What is merely out of reach stays as it is. Call it at start, when
// told that somebody acted on the key, and every few minutes. The error is that
// of the records; each custodian's own is in its Change.
func (r *Ring) Sync(ctx context.Context, only ...vocab.CustodianID) (map[vocab.CustodianID]Change, error) {
	r.admin.Lock()
	defer r.admin.Unlock()
	r.mu.Lock()
	var members []*member
	for id, m := range r.custodians {
		if len(only) == 0 || slices.Contains(only, id) {
			members = append(members, m)
		}
	}
	r.mu.Unlock()
	changes := make(map[vocab.CustodianID]Change)
	for _, m := range members {
		c, err := r.syncOne(ctx, m)
		if err != nil {
			return changes, err
		}
		changes[m.ID()] = c
	}
	return changes, nil
}

func (r *Ring) syncOne(ctx context.Context, m *member) (Change, error) {
	mark, err := r.records.Mark(ctx, m.ID())
	if err != nil {
		return Change{}, err
	}
	start := r.now()
	f, err := m.Describe(ctx)
	var ids []string
	if f != nil {
		ids = f.RequestIDs
	}
	r.saw("describe", m.ID(), 1, start, err, ids...)
	if err == nil {
		err = f.Safe()
	}
	if err == nil {
		err = f.Since(mark)
	}
	r.mu.Lock()
	switch {
	case err == nil:
		m.barred = nil
	case IsRefusal(err):
		if f != nil { // else it would not say: it is asked again at the next use
			m.barred = err
		}
		id := m.ID()
		r.dropAll(&id)
	}
	r.mu.Unlock()
	c := Change{Facts: f, Err: err}
	if err != nil {
		return c, nil //nolint:nilerr // the custodian's error is in c; the other one is the records'
	}
	if !mark.Custodian.IsZero() {
		c.RootRotated = f.Root.Latest > mark.RootLatest
		c.SignRotated = f.Sign.Latest > mark.SignLatest
	}
	return c, r.records.SetMark(ctx, f.MarkOf(mark), f)
}
