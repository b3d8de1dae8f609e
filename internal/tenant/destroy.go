package tenant

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Destroying goes in an order in which it can be cut off anywhere. First the
// target is marked destroyed in our own records, in the transaction that looks
// once more at everything it rests on: from then on nothing under it is used,
// whatever its custodian still has. Then the custodian destroys it: the keyring
// because it is told to, Vault because the destroyer does it there. The operation
// ends when a look has found it gone. A generation is destroyed by the mark
// alone: its wrap goes with it.

// Destruction is what somebody wants destroyed.
type Destruction struct {
	Target KeyTarget
	// DespiteSoak does not wait for the soak period, DespiteBackups gives up that
	// backups open.
	DespiteSoak, DespiteBackups bool
	Reason, Ticket              string
}

// RequestDestroy asks that a key, a version or a generation be destroyed, which
// somebody else must approve. Whatever is in the way is the error: KEY_IN_USE,
// with every reason.
func (t *Tenant) RequestDestroy(ctx context.Context, c Call, d Destruction) (*OperationView, vocab.EventID, error) {
	var params *operation.KeyDestroyParams
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		params, err = t.planDestroy(r, d)
		return err
	}); err != nil {
		e := t.newEvent(audit.KindKeyDestroyed, c, t.now())
		e.Target, e.KeyVersion = d.Target.resource(), d.Target.Version
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	return t.request(ctx, c, wish{kind: operation.KeyDestroy, params: params, about: d.Target.String(), reason: d.Reason, ticket: d.Ticket})
}

// resource is the name of the resource that holds it.
func (k KeyTarget) resource() string {
	if k.Generation > 0 {
		return record.GenerationName(k.Generation)
	}
	return record.KeyName(k.Key)
}

// planDestroy looks whether something can be destroyed, and says what that rests
// on.
func (t *Tenant) planDestroy(r store.Reader, d Destruction) (*operation.KeyDestroyParams, error) {
	inv, err := t.survey(r)
	if err != nil {
		return nil, err
	}
	basis, safety, err := inv.destroyBasis(d.Target, t.now())
	if err != nil {
		return nil, err
	}
	left := safety.without(d.DespiteSoak, d.DespiteBackups)
	if len(left) > 0 && left[0].Kind == HindranceDestroyed {
		return nil, vocab.Errorf(vocab.ReasonKeyState, "%s is destroyed already", d.Target).WithNext("See rmsctl key inventory")
	}
	if len(left) > 0 {
		return nil, inUse(d.Target, left)
	}
	p := &operation.KeyDestroyParams{Key: d.Target.Key, Version: d.Target.Version, Generation: d.Target.Generation}
	if d.DespiteSoak {
		p.DespiteSoak = 1
	}
	if d.DespiteBackups {
		p.DespiteBackups = 1
	}
	if p.Inventory, err = basis.hash(); err != nil {
		return nil, err
	}
	p.Shown = basis.lines(d, safety)
	return p, nil
}

// DestructionOf reads what an operation destroys.
func DestructionOf(o *operation.Operation) (*operation.KeyDestroyParams, Destruction, error) {
	p, err := operation.Params[operation.KeyDestroyParams](o)
	if err != nil {
		return nil, Destruction{}, err
	}
	d := Destruction{
		Target:      KeyTarget{Key: p.Key, Version: p.Version, Generation: p.Generation},
		DespiteSoak: p.DespiteSoak != 0, DespiteBackups: p.DespiteBackups != 0,
	}
	if (p.Key == "") == (p.Generation == 0) || p.Generation != 0 && p.Version != 0 {
		return nil, Destruction{}, contradicts("an operation")
	}
	return p, d, nil
}

// destroyBasis is what a destruction rests on, as r has it: what was shown when
// it was asked for, if that is still so.
func (t *Tenant) destroyBasis(r store.Reader, o *operation.Operation) (*operation.Basis, error) {
	p, d, err := DestructionOf(o)
	if err != nil {
		return nil, err
	}
	now, err := t.planDestroy(r, d)
	if err != nil {
		return nil, err
	}
	if now.Inventory != p.Inventory {
		return nil, inventoryChanged()
	}
	return &operation.Basis{Hash: now.Inventory, Text: p.Shown}, nil
}

// prepareDestroy is the destruction of a generation, which is one transaction.
func (t *Tenant) prepareDestroy(o *operation.Operation) (effect, error) {
	p, d, err := DestructionOf(o)
	if err != nil {
		return nil, err
	}
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		e := t.effectEvent(audit.KindKeyDestroyed, o, id, now)
		e.Target = d.Target.resource()
		var left keys.Record
		if _, err := t.putResource(tx, e.Target, e, func(r store.Reader, s *record.Resource, e *audit.Event) ([]byte, error) {
			return editGeneration(func(g *record.Generation) (err error) {
				if left, err = ringRecord(g); err != nil {
					return err
				}
				e.Custodian, e.KeyVersion = left.Wrap.Custodian, left.Wrap.L0Version
				e.Detail = moveText(keys.State(g.State), keys.Destroyed, "its wrapped key removed; "+inventoryText(p))
				g.State, g.Since, g.Why, g.Wrap = uint8(keys.Destroyed), record.ToMillis(now), o.Reason, nil
				return nil
			})(r, s, e)
		}); err != nil {
			return "", err
		}
		if err := record.NoteLeft(tx, t.id, record.VersionRef(left.Wrap.Custodian, left.Wrap.L0Version), record.ToMillis(now)); err != nil {
			return "", err
		}
		return d.Target.String() + " is destroyed: its wrapped key was removed", t.log.Append(tx, e)
	}, nil
}

// inventoryText names what a destruction rested on.
func inventoryText(p *operation.KeyDestroyParams) string {
	return "inventory " + hex.EncodeToString(p.Inventory[:])
}

// workDestroy takes the next step of a destruction.
func (t *Tenant) workDestroy(ctx context.Context, id vocab.OperationID, o *operation.Operation) error {
	_, d, err := DestructionOf(o)
	if err != nil {
		return err
	}
	if d.Target.Generation > 0 {
		return t.carryOut(ctx, id, o)
	}
	if marked, err := t.marked(d.Target); err != nil {
		return err
	} else if !marked {
		if err := t.markDestroyed(ctx, id, d.Target); err != nil {
			return err
		}
	}
	// From here on it is destroyed, and only what is left of it can fail.
	err = t.removeDestroyed(ctx, d.Target)
	if err == nil {
		err = t.finishDestroy(ctx, t.newEvent(audit.KindOperationSucceeded, byItself, t.now()), id, d.Target, nil)
	}
	if err != nil && !passes(err) {
		err = vocab.Errorf(vocab.ReasonCustodianUnreachable, "it is marked destroyed, but its custodian could not remove it: %w", err)
	}
	return err
}

// marked reports whether a key or version is marked destroyed.
func (t *Tenant) marked(target KeyTarget) (bool, error) {
	k := t.live.key(target.Key)
	if k == nil {
		return false, noKey()
	}
	s, err := versionState(k, target.Version)
	return s == keys.Destroyed, err
}

// mayCancel refuses to cancel what cannot be taken back.
func (t *Tenant) mayCancel(o *operation.Operation) error {
	if o.Kind != operation.KeyDestroy || o.State != operation.Running {
		return nil
	}
	_, d, err := DestructionOf(o)
	if err != nil || d.Target.Generation > 0 {
		return err
	}
	if marked, err := t.marked(d.Target); err != nil || !marked {
		return err
	}
	return vocab.Errorf(vocab.ReasonOperationState, "%s is destroyed, which cannot be taken back; only its custodian still has it", d.Target).
		WithNext("Destroy it there, with rmsctl key destroy --trim")
}

// markDestroyed marks a key, or a version, as destroyed: with the same look at
// everything as at the approval, in the transaction that does it.
func (t *Tenant) markDestroyed(ctx context.Context, id vocab.OperationID, target KeyTarget) error {
	e := t.newEvent(audit.KindKeyDestroyed, byItself, t.now())
	e.Target, e.KeyVersion, e.Operation = target.resource(), target.Version, id
	_, _, err := t.tryResource(ctx, e, func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
		_, o, err := t.operation(r, id)
		if err != nil {
			return nil, err
		}
		if o == nil || o.At(e.Time) != operation.Running {
			return nil, vocab.Errorf(vocab.ReasonOperationState, "it was ended meanwhile")
		}
		if err := t.stillStands(o); err != nil {
			return nil, err
		}
		if err := t.checkBasis(r, o); err != nil {
			return nil, err
		}
		p, _, err := DestructionOf(o)
		if err != nil {
			return nil, err
		}
		byRequester(e, o)
		return editKey(func(k *record.TenantKey) error {
			from, err := versionState(k, target.Version)
			if err != nil {
				return err
			}
			e.Custodian, e.Detail = k.ID, moveText(from, keys.Destroyed, inventoryText(p))
			k.Versions = slices.Clone(k.Versions)
			if target.Version == 0 {
				k.State, k.Since, k.Why = uint8(keys.Destroyed), record.ToMillis(e.Time), o.Reason
			}
			for i := range k.Versions {
				if v := &k.Versions[i]; (target.Version == 0 || v.Number == target.Version) && keys.State(v.State) != keys.Destroyed {
					v.State, v.Since, v.Why = uint8(keys.Destroyed), record.ToMillis(e.Time), o.Reason
				}
			}
			return nil
		})(r, now, e)
	}, false)
	return err
}

// removeDestroyed has a custodian remove what is marked destroyed, if it does
// such things itself, and looks whether it is gone: CUSTODIAN_ACTS if a person
// has to do it.
func (t *Tenant) removeDestroyed(ctx context.Context, target KeyTarget) error {
	k := t.live.key(target.Key)
	if isGone(k, target.Version) {
		return nil
	}
	c := t.openedKey(k.ID)
	if c == nil {
		return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the operator's file does not name custodian %s", k.Custodian).WithNext("Put it back into the tenant's file")
	}
	d, ok := c.(keys.Destroyer)
	if !ok {
		return stillThere(k, target)
	}
	if target.Version == 0 {
		if err := d.DestroyAll(ctx); err != nil {
			return err
		}
	} else if err := d.DestroyRoot(ctx, target.Version); err != nil {
		return err
	}
	return t.seeGone(ctx, target)
}

// seeGone looks at a custodian and notes that a destroyed key or version is
// gone. It is an error if it is not.
func (t *Tenant) seeGone(ctx context.Context, target KeyTarget) error {
	k := t.live.key(target.Key)
	c := t.openedKey(k.ID)
	switch {
	case isGone(k, target.Version):
		return nil
	case c == nil:
		return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the operator's file does not name custodian %s", k.Custodian).WithNext("Put it back into the tenant's file")
	case target.Version == 0:
		gone, err := t.lookGone(ctx, c)
		if err == nil && !gone {
			err = stillThere(k, target)
		}
		return err
	}
	changes, err := t.ring.Sync(ctx, k.ID)
	if err == nil {
		err = changes[k.ID].Err
	}
	if err == nil {
		err = t.alarmLosses(ctx, changes)
	}
	if k = t.live.key(target.Key); err == nil && !isGone(k, target.Version) {
		err = stillThere(k, target)
	}
	return err
}

// isGone reports whether the custodian was seen without a key or version.
func isGone(k *record.TenantKey, version uint32) bool {
	if version == 0 || k.Gone != 0 {
		return k.Gone != 0
	}
	v := k.Version(version)
	return v != nil && v.Gone != 0
}

// stillThere says who has to do what so that what is destroyed is gone.
func stillThere(k *record.TenantKey, target KeyTarget) error {
	e := vocab.Errorf(vocab.ReasonCustodianActs, "%s is destroyed for this service; its custodian %s still has it", target, k.Custodian)
	if older := olderThere(k, target.Version); target.Version > 0 && older != "" {
		return e.WithNext("Vault destroys versions from the oldest on only: first %s must be destroyed", older)
	}
	return e.WithNext("With the destroyer's token: rmsctl key destroy --trim")
}

// lookGone asks the custodian of a destroyed key whether it still has it, and
// notes it if not. Nobody asks that custodian anything then.
func (t *Tenant) lookGone(ctx context.Context, c keys.Custodian) (gone bool, err error) {
	h, ok := c.(keys.Holder)
	if !ok {
		return false, nil
	}
	holds, request, err := h.HoldsRoot(ctx)
	if err != nil || holds {
		return false, err
	}
	name, k := t.live.keyByID(c.ID())
	e := t.newEvent(audit.KindKeyNoted, Call{}, t.now())
	e.Target, e.Custodian, e.CustodianRequest = record.KeyName(name), c.ID(), request
	e.Detail = "the custodian does not have the key any more"
	if err := t.editAlarmed(ctx, e, func(k *record.TenantKey) {
		k.Gone = record.ToMillis(e.Time)
		for i := range k.Versions {
			if v := &k.Versions[i]; v.Gone == 0 {
				v.Gone = k.Gone
			}
		}
	}); err != nil {
		return false, err
	}
	t.opened.mu.Lock()
	t.opened.list = slices.DeleteFunc(t.opened.list, func(o keys.Custodian) bool { return o.ID() == c.ID() })
	delete(t.opened.faults, c.ID())
	t.opened.mu.Unlock()
	t.ring.Remove(c.ID())
	t.allow(k.Custodian)
	if err := c.Close(); err != nil {
		t.logger.Warn("the custodian of a destroyed key was not closed", "tenant", t.name, "key", name, "error", err)
	}
	return true, nil
}

// finishDestroy ends a destruction that is complete. asked are the custodian's
// IDs of what the destroyer asked of it.
func (t *Tenant) finishDestroy(ctx context.Context, e *audit.Event, id vocab.OperationID, target KeyTarget, asked []string) error {
	k := t.live.key(target.Key)
	e.Custodian, e.KeyVersion = k.ID, target.Version
	if len(asked) > 0 {
		e.CustodianRequest = asked[0]
	}
	_, _, err := t.moveOperation(ctx, e, id, func(_ store.Tx, o *operation.Operation, e *audit.Event) error {
		result := target.String() + " is destroyed, and its custodian does not have it any more"
		if len(asked) > 0 {
			result += "; requests " + strings.Join(asked, ", ")
		}
		e.Detail = result
		return o.Succeed(result, e.Time)
	})
	return err
}

// FinishDestroy is told that the destroyer acted at the custodian. It looks, and
// ends the operation: CUSTODIAN_ACTS if what was to be destroyed is still there.
// asked are the custodian's IDs of the acts. An operation that did all it was for
// is returned as it is.
func (t *Tenant) FinishDestroy(ctx context.Context, c Call, id vocab.OperationID, asked []string) (*OperationView, vocab.EventID, error) {
	e := t.newEvent(audit.KindOperationSucceeded, c, t.now())
	e.Target, e.Operation = record.OperationName(id), id
	for _, a := range asked {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool { return r < '!' || r > '~' }) {
			return nil, vocab.EventID{}, vocab.Errorf(vocab.ReasonRequestInvalid, "%q is not the ID of a custodian's request", a)
		}
	}
	v, err := t.GetOperation(ctx, c.Caller, id)
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	if v.Kind == operation.KeyDestroy && v.State == operation.Succeeded { // somebody, or a look, was faster
		event, err := t.RecordRead(ctx, c.Caller, c.Method)
		return v, event, err
	}
	if err := t.finishing(ctx, e, v, asked); err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	v, err = t.GetOperation(ctx, c.Caller, id)
	return v, e.ID, err
}

func (t *Tenant) finishing(ctx context.Context, e *audit.Event, v *OperationView, asked []string) error {
	wrong := func(why string) error {
		return vocab.Errorf(vocab.ReasonOperationState, "there is nothing to finish: %s", why).WithNext("See rmsctl operation show %s", v.ID)
	}
	if v.Kind != operation.KeyDestroy {
		return wrong("it destroys no key")
	}
	_, d, err := DestructionOf(v.Operation)
	if err != nil {
		return err
	}
	if v.State != operation.Running || d.Target.Generation > 0 {
		return wrong("the operation is " + v.State.String())
	}
	if marked, err := t.marked(d.Target); err != nil || !marked {
		if err == nil {
			err = wrong("it is not marked destroyed yet")
		}
		return err
	}
	if err := t.seeGone(ctx, d.Target); err != nil {
		return err
	}
	return t.finishDestroy(ctx, e, v.ID, d.Target, asked)
}
