package tenant

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// KeyTarget is a key, a version of one, or a generation.
type KeyTarget struct {
	Key     string
	Version uint32 // 0: the whole key
	// Generation is its number, instead of the others.
	Generation uint32
}

func (k KeyTarget) String() string {
	switch {
	case k.Generation > 0:
		return fmt.Sprintf("generation g%d", k.Generation)
	case k.Version > 0:
		return fmt.Sprintf("version %d of key %s", k.Version, k.Key)
	}
	return "key " + k.Key
}

// Move is a change of state that a key custodian can ask for.
type Move int

// The moves there are. Destroying is an operation.
const (
	Suspend    Move = iota + 1
	Resume          // to what it was before
	Compromise      // for ever; what is under it is opened for reseal only
)

// SetKeyState suspends a key, a version or a generation, resumes it, or marks it
// as compromised. It is in force, in this daemon, when it returns: nothing under
// it opens from then on, and what was unwrapped is zeroed. Moves that make no
// sense are KEY_STATE.
func (t *Tenant) SetKeyState(ctx context.Context, c Call, target KeyTarget, move Move, reason string) (vocab.EventID, error) {
	e := t.newEvent(map[Move]audit.Kind{
		Suspend: audit.KindKeySuspended, Resume: audit.KindKeyResumed, Compromise: audit.KindKeyCompromised,
	}[move], c, t.now())
	var edit resourceEdit
	if target.Generation > 0 {
		e.Target = record.GenerationName(target.Generation)
		edit = t.moveGeneration(target, move, reason)
	} else {
		e.Target, e.KeyVersion = record.KeyName(target.Key), target.Version
		if k := t.live.key(target.Key); k != nil {
			e.Custodian = k.ID
		}
		edit = t.moveKey(target, move, reason)
	}
	_, event, err := t.changeResourceBy(ctx, e, edit, false)
	if err == nil && move == Resume {
		t.followUp(ctx, c) // a rewrap left it where it was
	}
	return event, err
}

func badMove(what string, from, to keys.State) error {
	return vocab.Errorf(vocab.ReasonKeyState, "%s is %s and cannot become %s", what, from, to).WithNext("See rmsctl key inventory")
}

// moveGeneration is the edit of a generation.
func (t *Tenant) moveGeneration(target KeyTarget, move Move, reason string) resourceEdit {
	return func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
		return editGeneration(func(g *record.Generation) error {
			to := map[Move]keys.State{Suspend: keys.Suspended, Compromise: keys.Compromised}[move]
			if move == Resume {
				if to = keys.Active; g.Canary == 1 || anotherActive(r, t.id, g.Number) {
					to = keys.Deactivated
				}
			}
			from := keys.State(g.State)
			if move == Resume && from != keys.Suspended || !from.May(to) {
				return badMove(target.String(), from, to)
			}
			g.State, g.Since, g.Why = uint8(to), record.ToMillis(e.Time), reason
			e.Detail = moveText(from, to, reason)
			return nil
		})(r, now, e)
	}
}

// anotherActive reports whether another generation is the active one.
func anotherActive(r store.Reader, t vocab.TenantID, number uint32) (found bool) {
	_ = record.ListGenerations(r, t, func(g *record.Generation) error {
		found = found || g.Number != number && keys.State(g.State) == keys.Active
		return nil
	})
	return found
}

// moveKey is the edit of a key, or of one of its versions.
func (t *Tenant) moveKey(target KeyTarget, move Move, reason string) resourceEdit {
	return func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
		return editKey(func(k *record.TenantKey) error {
			from, err := versionState(k, target.Version)
			if err != nil {
				return err
			}
			to := map[Move]keys.State{Suspend: keys.Suspended, Compromise: keys.Compromised}[move]
			if move == Resume {
				if to = keys.Active; target.Version > 0 && target.Version != k.RootLatest || target.Version == 0 && t.anotherKeyActive(target.Key) {
					to = keys.Deactivated
				}
			}
			if move == Resume && from != keys.Suspended || !from.May(to) || target.Version == 0 && from == keys.PreActive {
				return badMove(target.String(), from, to)
			}
			e.Detail = moveText(from, to, reason)
			if target.Version == 0 {
				k.State, k.Since, k.Why = uint8(to), record.ToMillis(e.Time), reason
				return nil
			}
			k.Versions = slices.Clone(k.Versions)
			v := k.Version(target.Version)
			v.State, v.Since, v.Why = uint8(to), record.ToMillis(e.Time), reason
			if move == Resume {
				v.State = 0 // as the key is
			}
			return nil
		})(r, now, e)
	}
}

func (t *Tenant) anotherKeyActive(name string) bool {
	active, k := t.live.activeKey()
	return k != nil && active != name
}

// versionState is the state of a version of a key; of version 0, of the key.
func versionState(k *record.TenantKey, version uint32) (keys.State, error) {
	if version == 0 {
		return keys.State(k.State), nil
	}
	v := k.Version(version)
	switch {
	case v == nil:
		return 0, vocab.Errorf(vocab.ReasonResourceNotFound, "the key has no version %d", version).WithNext("See rmsctl key inventory")
	case v.State != 0:
		return keys.State(v.State), nil
	case keys.State(k.State) == keys.Active && version != k.RootLatest:
		return keys.Deactivated, nil
	}
	return keys.State(k.State), nil
}

func moveText(from, to keys.State, reason string) string {
	text := from.String() + " → " + to.String()
	if reason != "" {
		text += "; " + reason
	}
	return text
}

// sortedKeys are the names of keys: the active one, then the newest first.
func sortedKeys(all map[string]*record.TenantKey) []string {
	return slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(all[a]), rank(all[b])), cmp.Compare(all[b].Registered, all[a].Registered), cmp.Compare(a, b))
	})
}
