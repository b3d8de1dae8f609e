package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// MoveBatch is how many wraps one call of a custodian moves.
const MoveBatch = 256

// Moved is a wrap that was moved to another version of a tenant key, or why it
// was not: then the old one is still the only one.
type Moved struct {
	Wrap license.Wrap
	// Secret is what the new wrap was seen to open to. The caller owns and
	// zeroes it. Of a document's generation only the document's key box says
	// whether it is the right one.
	Secret    *vocab.Secret
	RequestID string // of the call that made the new wrap
	Err       error
}

// WrapChange is a new wrap of a generation in the place of another.
type WrapChange struct {
	Number    uint32
	From, To  license.Wrap
	RequestID string
}

// Rewrapped is what became of one wrap in [Ring.Rewrap].
type Rewrapped struct {
	Number    uint32
	From, To  VersionID
	RequestID string
	Err       error // the old wrap is still in place
}

// older reports whether a wrap is to be moved to a version: it is of another
// key, or of an older version of the same. What the custodian wrapped by a
// version that nobody looked for yet is not older.
func (to VersionID) older(w license.Wrap) bool {
	return w.Custodian != to.Custodian || w.L0Version < to.Version
}

// Rewrap moves the wraps of up to limit tenant generations, at most
// [MoveBatch], to a version of the active tenant key or a newer one: inside the
// custodian where it is the same one, by unwrapping and wrapping where the tenant
// moved to another. Each new wrap is opened and checked before put gets it. put
// makes all of them durable, or fails and changes nothing, and tells the Ring by
// [Ring.Take].
//
// What is at that version already, may not be opened, or skip names, is left
// out. Nothing returned and no error is that nothing is left. An error is the
// custodian's about the whole call, or put's; running it again is harmless.
func (r *Ring) Rewrap(ctx context.Context, to VersionID, limit int, skip func(number uint32) bool, put func([]WrapChange) error) ([]Rewrapped, error) {
	r.admin.Lock()
	defer r.admin.Unlock()
	todo := r.oldGenerations(to, skip)
	todo = todo[:min(len(todo), limit, MoveBatch)]
	// One custodian at a time: the others' answers are not this one's.
	if i := slices.IndexFunc(todo, func(g oldGeneration) bool { return g.wrap.Custodian != todo[0].wrap.Custodian }); i >= 0 {
		todo = todo[:i]
	}
	if len(todo) == 0 {
		return nil, nil
	}
	items, commitments := make([]UnwrapItem, len(todo)), make([]*[32]byte, len(todo))
	for i, g := range todo {
		items[i] = UnwrapItem{Binding: g.binding(r.tenant), Wrap: g.wrap}
		commitments[i] = &g.commitment
	}
	asked := r.now()
	moved, err := r.move(ctx, to, items, commitments)
	if err != nil {
		return nil, err
	}
	defer zeroMoved(moved)
	out := make([]Rewrapped, len(todo))
	var changes []WrapChange
	for i, g := range todo {
		m := &moved[i]
		out[i] = Rewrapped{Number: g.Number, From: VersionID{g.wrap.Custodian, g.wrap.L0Version}, RequestID: m.RequestID, Err: m.Err}
		if m.Err == nil {
			out[i].To = VersionID{m.Wrap.Custodian, m.Wrap.L0Version}
			changes = append(changes, WrapChange{Number: g.Number, From: g.wrap, To: m.Wrap, RequestID: m.RequestID})
		}
	}
	if len(changes) > 0 {
		if err := put(changes); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, g := range todo {
		// A copy that is in use is replaced by what the new wrap opened to: what
		// is lent names the call it came from. None is made that nobody needs.
		if m := &moved[i]; m.Err == nil && g.copy != nil && r.usable(g.generation, false) == nil {
			r.keep(g.generation, &unwrapped{secret: m.Secret, asked: asked, requestID: m.RequestID})
			m.Secret = nil
		}
	}
	return out, nil
}

// oldGeneration is a generation whose wrap is to be moved, with the wrap as it
// was found.
type oldGeneration struct {
	*generation
	wrap license.Wrap
}

func (r *Ring) oldGenerations(to VersionID, skip func(uint32) bool) (out []oldGeneration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.byNumber {
		if to.older(g.Wrap) && r.usable(g, false) == nil && !skip(g.Number) {
			out = append(out, oldGeneration{g, g.Wrap})
		}
	}
	slices.SortFunc(out, func(a, b oldGeneration) int {
		return cmp.Or(slices.Compare(a.wrap.Custodian[:], b.wrap.Custodian[:]), cmp.Compare(a.Number, b.Number))
	})
	return out
}

// OldGenerations returns how many generations [Ring.Rewrap] would move.
func (r *Ring) OldGenerations(to VersionID) int {
	return len(r.oldGenerations(to, func(uint32) bool { return false }))
}

// RewrapDocuments moves the wraps of documents' own generations, all of one
// custodian's and at most [MoveBatch], as [Ring.Rewrap] does. The caller checks
// the secrets, and stores a wrap only if the old one is still in place and
// [Ring.MayMove] still says so of both.
func (r *Ring) RewrapDocuments(ctx context.Context, to VersionID, items []UnwrapItem) ([]Moved, error) {
	return r.move(ctx, to, items, make([]*[32]byte, len(items)))
}

// MayMove says why a wrap may not be opened, and so not be moved; nil if it may.
// It does no I/O and does not block.
func (r *Ring) MayMove(w license.Wrap) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.usableWrap(w)
}

// move has wraps of one custodian moved and opens each new one.
func (r *Ring) move(ctx context.Context, to VersionID, items []UnwrapItem, commitments []*[32]byte) ([]Moved, error) {
	r.mu.Lock()
	m, err := r.custodians[r.active], r.mayWrap()
	if err == nil && r.active != to.Custodian {
		err = vocab.Errorf(vocab.ReasonKeyState, "another key became the active one meanwhile")
	}
	out := make([]Moved, len(items))
	var old *member
	var index []int // of the items that are asked for
	var ask []UnwrapItem
	for i, it := range items {
		if out[i].Err = r.usableWrap(it.Wrap); out[i].Err == nil {
			old = r.custodians[it.Wrap.Custodian]
			index, ask = append(index, i), append(ask, it)
		}
	}
	r.mu.Unlock()
	if err != nil || len(ask) == 0 {
		return out, err
	}
	wraps, secrets, err := r.wrapAnew(ctx, m, old, ask)
	defer zeroAll(secrets)
	if err != nil {
		return nil, err
	}
	var proven []int
	var prove []UnwrapItem
	for j, w := range wraps {
		o := &out[index[j]]
		o.RequestID = w.RequestID
		if o.Err = w.Err; o.Err != nil {
			continue
		}
		if to.older(w.Wrap) {
			o.Err = integrity(fmt.Errorf("asked for version %d or a newer one, got version %d", to.Version, w.Wrap.L0Version))
			continue
		}
		// The version it chose may be a suspended one: then nothing is moved.
		if err := r.wrapAllowed(w.Wrap); err != nil {
			return nil, err
		}
		o.Wrap = w.Wrap
		proven, prove = append(proven, j), append(prove, UnwrapItem{Binding: ask[j].Binding, Wrap: w.Wrap})
	}
	if len(prove) == 0 {
		return out, nil
	}
	got, err := r.unwrapAll(ctx, m, prove)
	if err != nil {
		return nil, err
	}
	for k, u := range got {
		j := proven[k]
		o := &out[index[j]]
		if u.Err == nil {
			u.Err = checkSecret(prove[k].Binding, u.Secret, commitments[index[j]])
		}
		if u.Err == nil && secrets != nil && !u.Secret.Equal(secrets[j]) {
			u.Err = integrity(errors.New("the new wrap opens to another secret than the old one"))
		}
		if o.Secret, o.Err = u.Secret, u.Err; u.Err != nil {
			u.Secret.Zero()
			o.Secret = nil
		}
	}
	return out, nil
}

// wrapAnew has m make new wraps for items that old wrapped. If that is another
// custodian, it returns what they opened to as well.
func (r *Ring) wrapAnew(ctx context.Context, m, old *member, items []UnwrapItem) ([]WrapResult, []*vocab.Secret, error) {
	if m == old {
		start := r.now()
		rs, err := m.Rewrap(ctx, items)
		rs, err = r.wraps("rewrap", m, len(items), start, rs, err)
		return rs, nil, err
	}
	opened, err := r.unwrapAll(ctx, old, items)
	if err != nil {
		return nil, nil, err
	}
	out, secrets := make([]WrapResult, len(items)), make([]*vocab.Secret, len(items))
	var index []int
	var ask []WrapItem
	for i, u := range opened {
		if secrets[i], out[i].Err = u.Secret, u.Err; u.Err == nil {
			index, ask = append(index, i), append(ask, WrapItem{Binding: items[i].Binding, Secret: u.Secret})
		}
	}
	if len(ask) == 0 {
		return out, secrets, nil
	}
	start := r.now()
	rs, err := m.Wrap(ctx, ask)
	if rs, err = r.wraps("wrap", m, len(ask), start, rs, err); err != nil {
		return nil, secrets, err
	}
	for j, w := range rs {
		out[index[j]] = w
	}
	return out, secrets, nil
}

// wraps checks the answer to a call for n wraps: as many, and each m's own.
func (r *Ring) wraps(op string, m *member, n int, start time.Time, rs []WrapResult, err error) ([]WrapResult, error) {
	if err == nil && len(rs) != n {
		err = integrity(fmt.Errorf("asked for %d wraps, got %d", n, len(rs)))
	}
	var ids []string
	for i := range rs {
		ids = appendNew(ids, rs[i].RequestID)
		if rs[i].Err == nil && rs[i].Wrap.Custodian != m.ID() {
			rs[i].Err = integrity(fmt.Errorf("asked key %s, got a wrap of %s", m.ID(), rs[i].Wrap.Custodian))
		}
	}
	r.saw(op, m.ID(), n, start, err, ids...)
	r.refused(m, err)
	if err != nil {
		return nil, err
	}
	return rs, nil
}

// unwrapAll asks m to open wraps in one call: none is kept, and no other caller's
// are among them.
func (r *Ring) unwrapAll(ctx context.Context, m *member, items []UnwrapItem) ([]UnwrapResult, error) {
	start := r.now()
	rs, err := m.Unwrap(ctx, items)
	if err == nil && len(rs) != len(items) {
		err = integrity(fmt.Errorf("asked for %d keys, got %d", len(items), len(rs)))
	}
	var ids []string
	for _, u := range rs {
		ids = appendNew(ids, u.RequestID)
	}
	r.saw("unwrap", m.ID(), len(items), start, err, ids...)
	r.refused(m, err)
	if err != nil {
		for _, u := range rs {
			u.Secret.Zero()
		}
		return nil, err
	}
	return rs, nil
}

func zeroAll(secrets []*vocab.Secret) {
	for _, s := range secrets {
		s.Zero()
	}
}

func zeroMoved(moved []Moved) {
	for i := range moved {
		moved[i].Secret.Zero()
	}
}
