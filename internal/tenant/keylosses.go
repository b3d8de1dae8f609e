package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// A custodian can lose what nobody destroyed here: whoever has the rights trims
// or deletes a key in Vault, and no service can prevent it. It is said as soon as
// it is seen, and stays a fault of the key.

// missing reports whether a custodian does not have a version any more that it
// had. Vault does not list those below its floor, which it still has.
func missing(f *keys.KeyFacts, version uint32) bool {
	listed := slices.ContainsFunc(f.Versions, func(v keys.KeyVersion) bool { return v.Version == version })
	return version < f.MinAvailable || !listed && version >= f.MinDecryption && version <= f.Latest
}

// noteText says in words what a look adds to what was known of a key.
func noteText(known, next *record.TenantKey) string {
	var gone []string
	for i := range next.Versions {
		v := &next.Versions[i]
		if was := known.Version(v.Number); v.Gone != 0 && (was == nil || was.Gone == 0) {
			gone = append(gone, fmt.Sprintf("v%d", v.Number))
		}
	}
	if len(gone) == 0 {
		return "found at the custodian"
	}
	return "the custodian does not have " + strings.Join(gone, ", ") + " any more"
}

// lost are the versions of a key that its custodian destroyed on nobody's word
// here.
func lost(k *record.TenantKey) (out []*record.KeyVersion) {
	for i := range k.Versions {
		if v := &k.Versions[i]; v.Gone != 0 && keys.State(v.State) != keys.Destroyed {
			out = append(out, v)
		}
	}
	return out
}

func versionNames(list []*record.KeyVersion) string {
	var names []string
	for _, v := range list {
		names = append(names, fmt.Sprintf("v%d", v.Number))
	}
	return listed(names)
}

// deletable names the keys at the custodian that can be deleted; "" if none.
func deletable(f *keys.Facts) string {
	var names []string
	for _, k := range []*keys.KeyFacts{&f.Root, &f.Sign} {
		if k.DeletionAllowed {
			names = append(names, k.Name)
		}
	}
	return strings.Join(names, ", ")
}

// lossFault is what is wrong with a key whose custodian lost some of it, or may
// lose all of it; nil if nothing is.
func lossFault(k *record.TenantKey, f *keys.Facts) error {
	if l := lost(k); len(l) > 0 {
		return vocab.Errorf(vocab.ReasonCustodianChanged, "its custodian destroyed %s, and nobody had asked for that here: what was under it is lost", versionNames(l)).
			WithNext("Find out who did it, in the custodian's audit log; a snapshot of it may still hold the version")
	}
	if names := deletable(f); names != "" {
		return canBeDeleted(names)
	}
	return nil
}

func canBeDeleted(names string) *vocab.Error {
	return vocab.Errorf(vocab.ReasonKeyAttributesUnsafe, "at its custodian, deletion_allowed is on for %s: one request destroys it and all that is under it", names).
		WithNext("Turn it off there, and find out who turned it on")
}

// alarmLosses raises an alarm for what the last look at the custodians found
// gone, or in danger, once for each.
func (t *Tenant) alarmLosses(ctx context.Context, changes map[vocab.CustodianID]keys.Change) error {
	for name, k := range t.live.registered() {
		if keys.State(k.State) == keys.Destroyed {
			continue
		}
		fresh := slices.DeleteFunc(lost(k), func(v *record.KeyVersion) bool { return v.GoneAlarmed != 0 })
		if len(fresh) > 0 {
			e := t.keyAlarm(name, k, vocab.ReasonCustodianChanged)
			e.Detail = "the custodian destroyed " + versionNames(fresh) + " of key " + name + ", and nobody had asked for that here"
			if err := t.editAlarmed(ctx, e, func(k *record.TenantKey) {
				for _, v := range lost(k) {
					v.GoneAlarmed = 1
				}
			}); err != nil {
				return err
			}
		}
		f := changes[k.ID].Facts
		if f == nil {
			continue
		}
		names := deletable(f)
		switch {
		case names != "" && k.Deletable == 0:
			e := t.keyAlarm(name, k, vocab.ReasonKeyAttributesUnsafe)
			e.Detail = "deletion_allowed is on for " + names + ", of key " + name
			if err := t.editAlarmed(ctx, e, func(k *record.TenantKey) { k.Deletable = 1 }); err != nil {
				return err
			}
		case names == "" && k.Deletable != 0:
			e := t.newEvent(audit.KindKeyNoted, Call{}, t.now())
			e.Target, e.Custodian, e.Detail = record.KeyName(name), k.ID, "deletion_allowed is off again"
			if err := t.editAlarmed(ctx, e, func(k *record.TenantKey) { k.Deletable = 0 }); err != nil {
				return err
			}
		}
	}
	return nil
}

// keyAlarm begins the event of an alarm about a key.
func (t *Tenant) keyAlarm(name string, k *record.TenantKey, why vocab.Reason) *audit.Event {
	e := t.newEvent(audit.KindAlarm, Call{}, t.now())
	e.Target, e.Custodian, e.KeyVersion, e.Alarm, e.Reason = record.KeyName(name), k.ID, k.RootLatest, true, why
	return e
}

// editAlarmed writes an alarm together with the note that it was raised.
func (t *Tenant) editAlarmed(ctx context.Context, e *audit.Event, note func(*record.TenantKey)) error {
	_, _, err := t.tryResource(ctx, e, func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
		return editKey(func(k *record.TenantKey) error {
			k.Versions = slices.Clone(k.Versions)
			note(k)
			return nil
		})(r, now, e)
	}, false)
	return err
}

// vanished says, inside an error, that a custodian answers and has no such key.
var errVanished = errors.New("the custodian has no such key")

// orVanished makes of a failed look at a key that its custodian still answers for
// but does not have any more an alarm that names the key.
func (t *Tenant) orVanished(ctx context.Context, c keys.Custodian, err error) error {
	if vocab.ReasonOf(err) != vocab.ReasonKeyState {
		return err
	}
	h, ok := c.(keys.Holder)
	if !ok {
		return err
	}
	if holds, _, asked := h.HoldsRoot(ctx); asked != nil || holds {
		return err
	}
	return vocab.Errorf(vocab.ReasonKeyState, "the key %s is gone from its custodian, and nobody had asked for that here: what is under it does not open", t.keyNameOf(c.ID())).
		WithNext("Find out who deleted it; only a snapshot of the custodian can bring it back").Because(errors.Join(errVanished, err))
}
