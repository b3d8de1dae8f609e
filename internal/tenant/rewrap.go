package tenant

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// A rewrap moves what is wrapped by older versions of the active key, and by
// other keys, to the newest version of the active one: the tenant's generations,
// and the own generations of strict licenses. Content keys and key boxes stay as
// they are. Where it goes is looked up at every step, so a rotation while it runs
// makes no second one necessary.

// rewrapGenerations is how many generations one transaction moves.
const rewrapGenerations = 64

// RewrapPlan is what a rewrap would move, and what it would leave.
type RewrapPlan struct {
	// Key is the active key, and To its newest version that is known.
	Key         string
	To          keys.VersionID
	Generations int
	Licenses    int64
	Left        []LeftOver
}

// LeftOver is what stays under a version of a key because it may not be opened.
type LeftOver struct {
	Key         string // its name; empty if it is not registered
	Version     uint32
	Generations int
	Licenses    int64
	Why         error
}

// nothing reports whether there is nothing to move.
func (p *RewrapPlan) nothing() bool { return p.Generations == 0 && p.Licenses == 0 }

// planRewrap finds out what there is to move, and the scopes of the licenses. It
// asks no custodian. The error is one that may pass: that no key is active.
func (t *Tenant) planRewrap(r store.Reader) (*RewrapPlan, []record.LicenseScope, error) {
	name, k := t.live.activeKey()
	if k == nil || k.RootLatest == 0 {
		return nil, nil, vocab.Errorf(vocab.ReasonKeyState, "the tenant has no active key to move anything to").
			WithNext("Activate one, or resume the one that is suspended")
	}
	p := &RewrapPlan{Key: name, To: keys.VersionID{Custodian: k.ID, Version: k.RootLatest}}
	left := map[keys.VersionID]*LeftOver{}
	leave := func(v keys.VersionID, why error) *LeftOver {
		if left[v] == nil {
			left[v] = &LeftOver{Key: t.keyNameOf(v.Custodian), Version: v.Version, Why: why}
		}
		return left[v]
	}
	for _, e := range t.ring.Inventory() {
		switch {
		case !p.old(e.Version) || e.State == keys.Destroyed:
		case e.Err != nil:
			leave(e.Version, e.Err).Generations++
		default:
			p.Generations++
		}
	}
	strict, err := record.CountStrict(r, t.id)
	if err != nil {
		return nil, nil, err
	}
	var scopes []record.LicenseScope
	for _, s := range strict {
		v := keys.VersionID{Custodian: s.Custodian, Version: s.Version}
		if !p.old(v) {
			continue
		}
		if why := t.ring.MayMove(license.Wrap{Custodian: s.Custodian, L0Version: s.Version}); why != nil {
			leave(v, why).Licenses = s.Licenses
			continue
		}
		p.Licenses += s.Licenses
		scopes = append(scopes, record.LicenseScope{Key: s.Custodian, Version: s.Version})
	}
	for _, l := range left {
		p.Left = append(p.Left, *l)
	}
	slices.SortFunc(p.Left, func(a, b LeftOver) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Version, b.Version)) })
	return p, scopes, nil
}

// old reports whether what is wrapped by a version is to be moved.
func (p *RewrapPlan) old(v keys.VersionID) bool {
	return v.Custodian != p.To.Custodian || v.Version < p.To.Version
}

// String says what is left, and why.
func (l LeftOver) String() string {
	var what []string
	if l.Generations > 0 {
		what = append(what, plural(int64(l.Generations), "generation"))
	}
	if l.Licenses > 0 {
		what = append(what, plural(l.Licenses, "license"))
	}
	key := l.Key
	if key == "" {
		key = "that is not registered"
	}
	text := fmt.Sprintf("%s under version %d of key %s", strings.Join(what, " and "), l.Version, key)
	if l.Why != nil {
		text += fmt.Sprintf(" (%s)", vocab.ReasonOf(l.Why))
	}
	return text
}

// PlanRewrap returns what [Tenant.Rewrap] would do. It asks no custodian.
func (t *Tenant) PlanRewrap(ctx context.Context) (p *RewrapPlan, err error) {
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		p, _, err = t.planRewrap(r)
		return err
	})
	return p, err
}

// Rewrap starts moving what is wrapped to the newest version of the active key,
// at most maxRate licenses a second (0: as many as leave others alone), unless it
// goes on already: then that is returned. A rotation and an activation start it
// by themselves. There is no operation, nil, if there is nothing to move.
func (t *Tenant) Rewrap(ctx context.Context, c Call, maxRate uint32) (*OperationView, *RewrapPlan, vocab.EventID, error) {
	p, err := t.PlanRewrap(ctx)
	if err != nil {
		return nil, nil, vocab.EventID{}, t.refuse(ctx, t.newEvent(audit.KindOperationRequested, c, t.now()), err)
	}
	if p.nothing() && t.RewrapOf().IsZero() {
		event, err := t.RecordRead(ctx, c.Caller, c.Method)
		return nil, p, event, err
	}
	v, event, err := t.request(ctx, c, wish{
		kind: operation.Rewrap, params: &operation.RewrapParams{MaxRate: maxRate}, about: "everything to the newest version of the active key",
		alone: true, once: true,
	})
	return v, p, event, err
}

// RewrapOf returns the rewrap that goes on, zero if none does.
func (t *Tenant) RewrapOf() vocab.OperationID {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	for id, g := range t.live.operations {
		if g.Kind == operation.Rewrap {
			return id
		}
	}
	return vocab.OperationID{}
}

// followUp starts a rewrap after an act on a key, if there is something to move.
// What the caller asked for is done; that this could not be started can be made
// good by asking for it.
func (t *Tenant) followUp(ctx context.Context, c Call) {
	p, err := t.PlanRewrap(ctx)
	if err == nil && !p.nothing() {
		_, _, _, err = t.Rewrap(ctx, c, 0)
	}
	if err != nil {
		t.logger.Warn("what is wrapped by older versions is not being moved: ask for it with rmsctl key rewrap", "tenant", t.name, "error", err)
	}
}

// workRewrap moves the next generations or, when none is left, licenses.
func (t *Tenant) workRewrap(ctx context.Context, pace *pace, id vocab.OperationID, o *operation.Operation) (time.Duration, error) {
	params, err := operation.Params[operation.RewrapParams](o)
	if err != nil {
		return 0, err
	}
	var plan *RewrapPlan
	var scopes []record.LicenseScope
	var p *record.Progress
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		if p, err = record.GetProgress(r, t.id, id); err != nil {
			return err
		}
		plan, scopes, err = t.planRewrap(r)
		return err
	}); err != nil {
		return 0, holdsUp(err)
	}
	began := time.Now()
	moved, err := t.rewrapGenerations(ctx, id, o, plan, p)
	if err != nil || moved > 0 {
		return pace.pause(moved, time.Since(began), params.MaxRate), err
	}
	return t.workThrough(ctx, work{
		id: id, o: o, scopes: scopes, batch: maxBatch, rate: params.MaxRate, pace: pace,
		more: uint64(plan.Generations), kind: audit.KindLicenseEdited, ready: t.rewrapLicenses(plan),
		left: func(r store.Reader) (uint64, error) { // wherever everything is to go by then
			now, _, err := t.planRewrap(r)
			if err != nil {
				return 0, holdsUp(err)
			}
			return uint64(now.Generations) + uint64(now.Licenses), nil
		},
		done: func(r store.Reader, p *record.Progress) (string, error) {
			now, _, err := t.planRewrap(r)
			if err != nil {
				return "", holdsUp(err)
			}
			return now.result(p), nil
		},
	})
}

// result says what came of a rewrap that found nothing left to move.
func (p *RewrapPlan) result(done *record.Progress) string {
	text := fmt.Sprintf("%s and %s moved to version %d of key %s",
		plural(int64(done.Generations), "generation"), plural(int64(done.Done-done.Generations), "license"), p.To.Version, p.Key)
	if len(p.Left) == 0 {
		return text
	}
	var left []string
	for _, l := range p.Left {
		left = append(left, l.String())
	}
	return text + "; left where they are: " + strings.Join(left, ", ")
}

// rewrapGenerations moves the next generations of the tenant and returns how many
// it looked at.
func (t *Tenant) rewrapGenerations(ctx context.Context, id vocab.OperationID, o *operation.Operation, plan *RewrapPlan, p *record.Progress) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	skip := func(n uint32) bool { return slices.Contains(p.FailedGenerations, n) }
	rs, err := t.ring.Rewrap(ctx, plan.To, rewrapGenerations, skip, func(changes []keys.WrapChange) error {
		return t.inWork(ctx, id, func(tx store.Tx, p *record.Progress, now time.Time) error {
			if p.Total == 0 {
				p.Total = uint64(plan.Generations) + uint64(plan.Licenses)
			}
			for _, c := range changes {
				if err := t.putWrap(tx, id, o, plan, c, now); err != nil {
					return err
				}
			}
			p.Done += uint64(len(changes))
			p.Generations += uint64(len(changes))
			return nil
		})
	})
	if err != nil {
		return 0, holdsUp(err)
	}
	var failed []keys.Rewrapped
	for _, r := range rs {
		if r.Err != nil && vocab.ReasonOf(r.Err) != vocab.ReasonKeySuspended {
			failed = append(failed, r)
		}
	}
	if len(failed) == 0 {
		return len(rs), nil
	}
	return len(rs), t.inWork(ctx, id, func(tx store.Tx, p *record.Progress, now time.Time) error {
		for _, r := range failed {
			p.Failures++
			p.FailedGenerations = append(slices.Clip(p.FailedGenerations), r.Number)
			reason := vocab.ReasonOf(r.Err)
			if !alarming[reason] {
				continue
			}
			e := t.newEvent(audit.KindAlarm, byItself, now)
			e.Operation, e.Custodian, e.KeyVersion, e.CustodianRequest = id, r.From.Custodian, r.From.Version, r.RequestID
			e.Reason, e.Alarm, e.Detail = reason, true, fmt.Sprintf("generation g%d is left as it is by a rewrap", r.Number)
			if err := t.log.Append(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// putWrap writes a generation's new wrap with its event.
func (t *Tenant) putWrap(tx store.Tx, id vocab.OperationID, o *operation.Operation, plan *RewrapPlan, c keys.WrapChange, now time.Time) error {
	e := t.effectEvent(audit.KindGenerationRewrapped, o, id, now)
	e.Custodian, e.KeyVersion, e.CustodianRequest, e.Target = c.To.Custodian, c.To.L0Version, c.RequestID, record.GenerationName(c.Number)
	e.Detail = t.moveOf(plan, c.From, c.To)
	if _, err := t.putResource(tx, e.Target, e, editGeneration(func(g *record.Generation) error {
		if !slices.Equal(g.Wrap, c.From.Encode()) {
			return vocab.Errorf(vocab.ReasonEtagMismatch, "generation g%d changed meanwhile", c.Number).WithNext("Look at it again")
		}
		g.Wrap = c.To.Encode()
		return nil
	})); err != nil {
		return err
	}
	if err := record.NoteLeft(tx, t.id, record.VersionRef(c.From.Custodian, c.From.L0Version), record.ToMillis(now)); err != nil {
		return err
	}
	return t.log.Append(tx, e)
}

// moveOf says where a wrap was moved from and to.
func (t *Tenant) moveOf(plan *RewrapPlan, from, to license.Wrap) string {
	if from.Custodian == to.Custodian {
		return fmt.Sprintf("rewrapped: version %d to %d of key %s", from.L0Version, to.L0Version, plan.Key)
	}
	return fmt.Sprintf("rewrapped: version %d of key %s to version %d of key %s", from.L0Version, t.keyNameOf(from.Custodian), to.L0Version, plan.Key)
}

// inWork writes in a transaction what an operation that still runs does, with
// how far it is.
func (t *Tenant) inWork(ctx context.Context, id vocab.OperationID, do func(tx store.Tx, p *record.Progress, now time.Time) error) error {
	return t.store.Commit(ctx, func(tx store.Tx) error {
		now := t.now()
		_, o, err := t.operation(tx, id)
		if err != nil {
			return err
		}
		if o == nil || o.At(now) != operation.Running {
			return vocab.Errorf(vocab.ReasonOperationState, "it was held up meanwhile")
		}
		p, err := record.GetProgress(tx, t.id, id)
		if err != nil {
			return err
		}
		if err := do(tx, p, now); err != nil {
			return err
		}
		tx.AfterCommit(t.live.bell.ring)
		return record.PutProgress(tx, t.id, id, p)
	})
}

// rewrapLicenses makes the next revisions of strict licenses, whose own
// generations are wrapped anew. The new wrap opened the key box before it takes
// the place of the old one.
func (t *Tenant) rewrapLicenses(plan *RewrapPlan) func(context.Context, []*record.License) ([]made, error) {
	return func(ctx context.Context, list []*record.License) ([]made, error) {
		out := make([]made, len(list))
		var items []keys.UnwrapItem
		var index []int
		for i, l := range list {
			w, err := license.ParseWrap(l.Wrap)
			if err != nil {
				out[i].err = damagedWrap(err)
				continue
			}
			index = append(index, i)
			items = append(items, keys.UnwrapItem{Binding: keys.DocumentBinding(t.id, l.Generation, l.Content), Wrap: *w})
		}
		moved, err := t.ring.RewrapDocuments(ctx, plan.To, items)
		if err != nil {
			return nil, holdsUp(err)
		}
		for j := range moved {
			m, i := &moved[j], index[j]
			out[i] = t.rewrapped(plan, list[i], items[j].Wrap, m)
			m.Secret.Zero()
		}
		return out, nil
	}
}

func damagedWrap(err error) error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the wrapped key of this document cannot be read").Because(err)
}

// rewrapped is a license with a new wrap.
func (t *Tenant) rewrapped(plan *RewrapPlan, l *record.License, from license.Wrap, m *keys.Moved) made {
	if m.Err != nil {
		return made{err: m.Err, again: vocab.ReasonOf(m.Err) == vocab.ReasonKeySuspended}
	}
	box := l.Box(t.id)
	key, err := box.Open(m.Secret, l.KeyBox)
	key.Zero()
	if err != nil {
		// The record is what the log says it is: what came back is another key.
		return made{err: keys.Integrity(err)}
	}
	next := *l
	next.Wrap = m.Wrap.Encode()
	out := made{next: &next, detail: t.moveOf(plan, from, m.Wrap)}
	out.key.Generation, out.key.Custodian, out.key.KeyVersion = l.Generation, m.Wrap.Custodian, m.Wrap.L0Version
	out.key.CustodianRequest = m.RequestID
	to := m.Wrap
	out.recheck = func() error { return firstError(t.ring.MayMove(from), t.ring.MayMove(to)) }
	return out
}
