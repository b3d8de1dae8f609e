package tenant

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// keyRecords is the tenant as [keys.Records]: keys and generations are
// resources, each write with its event.
type keyRecords Tenant

func (k *keyRecords) tenant() *Tenant { return (*Tenant)(k) }

// Generations implements [keys.Records].
func (k *keyRecords) Generations(ctx context.Context) (out []keys.Record, err error) {
	err = k.store.View(ctx, func(r store.Reader) error {
		return record.ListGenerations(r, k.id, func(g *record.Generation) error {
			rec, err := ringRecord(g)
			out = append(out, rec)
			return err
		})
	})
	slices.SortFunc(out, func(a, b keys.Record) int { return int(int64(a.Number) - int64(b.Number)) })
	return out, err
}

// ringRecord is a generation as the ring takes it.
func ringRecord(g *record.Generation) (keys.Record, error) {
	if keys.State(g.State) == keys.Destroyed && len(g.Wrap) == 0 {
		return keys.Record{Number: g.Number, Signed: g.Signed, State: keys.Destroyed, Created: g.Created.Time()}, nil
	}
	w, err := license.ParseWrap(g.Wrap)
	if err != nil {
		return keys.Record{}, vocab.Errorf(vocab.ReasonStoreDamaged, "the wrapped key of generation g%d cannot be read", g.Number).Because(err)
	}
	return keys.Record{Number: g.Number, Signed: g.Signed, Wrap: *w, State: keys.State(g.State), Created: g.Created.Time(), Canary: g.Canary == 1}, nil
}

// AddGeneration implements [keys.Records].
func (k *keyRecords) AddGeneration(ctx context.Context, g keys.Record) error {
	t := k.tenant()
	e := t.newEvent(audit.KindGenerationCreated, Call{}, t.now())
	e.Custodian, e.KeyVersion, e.Target = g.Wrap.Custodian, g.Wrap.L0Version, record.GenerationName(g.Number)
	if signed, err := license.ParseGeneration(g.Signed); err == nil {
		e.Generation = signed.ID
	}
	return t.commit(ctx, func(tx store.Tx) error {
		if g.State == keys.Active {
			if err := t.deactivateGenerations(tx, e, g.Number); err != nil {
				return err
			}
		}
		_, err := t.putResource(tx, e.Target, e, func(_ store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
			if now != nil {
				return nil, vocab.Errorf(vocab.ReasonResourceExists, "there is a generation g%d already", g.Number)
			}
			next := &record.Generation{
				Number: g.Number, Signed: g.Signed, Wrap: g.Wrap.Encode(), State: uint8(g.State), Created: record.ToMillis(g.Created),
				Since: record.ToMillis(e.Time), MadeBy: g.Wrap.Custodian, MadeVersion: g.Wrap.L0Version,
			}
			if g.Canary {
				next.Canary, e.Detail = 1, "canary, for rehearsals"
			}
			return next.Encode()
		})
		return err
	}, e)
}

// deactivateGenerations takes the active generation out of use for what is new,
// in the transaction of the event that makes another one active.
func (t *Tenant) deactivateGenerations(tx store.Tx, because *audit.Event, number uint32) error {
	var active []uint32
	if err := record.ListGenerations(tx, t.id, func(g *record.Generation) error {
		if g.Number != number && keys.State(g.State) == keys.Active {
			active = append(active, g.Number)
		}
		return nil
	}); err != nil {
		return err
	}
	for _, n := range active {
		e := t.newEvent(audit.KindKeyRetired, Call{}, because.Time)
		e.Target, e.Parent, e.Detail = record.GenerationName(n), because.ID, keys.Deactivated.String()
		if _, err := t.putResource(tx, e.Target, e, editGeneration(func(g *record.Generation) error {
			g.State, g.Since, g.Why = uint8(keys.Deactivated), record.ToMillis(e.Time), ""
			return nil
		})); err != nil {
			return err
		}
		if err := t.log.Append(tx, e); err != nil {
			return err
		}
	}
	return nil
}

// editGeneration is an edit of a generation that is there.
func editGeneration(edit func(*record.Generation) error) resourceEdit {
	return func(_ store.Reader, now *record.Resource, _ *audit.Event) ([]byte, error) {
		if now == nil {
			return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no such generation").WithNext("See rmsctl key inventory")
		}
		g, err := record.DecodeGeneration(now.Body)
		if err == nil {
			err = edit(g)
		}
		if err != nil {
			return nil, err
		}
		return g.Encode()
	}
}

// Keys implements [keys.Records].
func (k *keyRecords) Keys(ctx context.Context) (out []keys.KeyStates, err error) {
	err = k.store.View(ctx, func(r store.Reader) error {
		return record.ListKeys(r, k.id, func(name string, key *record.TenantKey) error {
			out = append(out, statesOf(name, key))
			return nil
		})
	})
	return out, err
}

// statesOf are a key's states as the ring takes them.
func statesOf(name string, k *record.TenantKey) keys.KeyStates {
	out := keys.KeyStates{Key: k.ID, Name: name, State: keys.State(k.State), Versions: map[uint32]keys.State{}, Latest: k.RootLatest}
	for _, v := range k.Versions {
		if v.State != 0 {
			out.Versions[v.Number] = keys.State(v.State)
		}
	}
	return out
}

// markOf is the high-water mark of a registered key; zero if its custodian has
// not answered yet.
func markOf(k *record.TenantKey) keys.Mark {
	if k.Cluster == "" && k.RootLatest == 0 {
		return keys.Mark{}
	}
	return keys.Mark{
		Custodian: k.ID, ClusterID: k.Cluster, RootLatest: k.RootLatest, RootMinAvailable: k.RootMin,
		SignLatest: k.SignLatest, SignMinAvailable: k.SignMin, SignKeys: k.SignKeys,
	}
}

// Mark implements [keys.Records].
func (k *keyRecords) Mark(_ context.Context, c vocab.CustodianID) (keys.Mark, error) {
	if _, key := k.live.keyByID(c); key != nil {
		return markOf(key), nil
	}
	return keys.Mark{}, nil
}

// SetMark implements [keys.Records]: what a look at the custodian found is
// written down if it is new. The roots of the mark are believed from then on.
func (k *keyRecords) SetMark(ctx context.Context, m keys.Mark, f *keys.Facts) error {
	t := k.tenant()
	name, known := t.live.keyByID(m.Custodian)
	if known == nil {
		return vocab.Errorf(vocab.ReasonResourceNotFound, "the key is not registered")
	}
	if next := noted(known, m, f, t.now()); sameNote(known, next) {
		t.adoptRoots()
		return nil
	}
	e := t.newEvent(audit.KindKeyNoted, Call{}, t.now())
	e.Target, e.Custodian, e.KeyVersion = record.KeyName(name), m.Custodian, m.RootLatest
	var found []string
	if known.RootLatest > 0 && m.RootLatest > known.RootLatest {
		e.Kind = audit.KindKeyRotated
		found = append(found, fmt.Sprintf("root key v%d", m.RootLatest))
	}
	if known.SignLatest > 0 && m.SignLatest > known.SignLatest {
		e.Kind = audit.KindKeyRotated
		found = append(found, fmt.Sprintf("signing key v%d", m.SignLatest))
	}
	if f != nil && len(f.RequestIDs) > 0 {
		e.CustodianRequest = f.RequestIDs[0]
	}
	if e.Detail = strings.Join(append(found, "found at the custodian"), ", "); len(found) == 0 {
		e.Detail = noteText(known, noted(known, m, f, e.Time))
	}
	err := t.commit(ctx, func(tx store.Tx) error {
		_, err := t.putResource(tx, e.Target, e, editKey(func(k *record.TenantKey) error {
			*k = *noted(k, m, f, e.Time)
			return nil
		}))
		return err
	}, e)
	if err == nil {
		t.adoptRoots()
	}
	return err
}

// sameNote says that what was found is what is known.
func sameNote(a, b *record.TenantKey) bool {
	x, err := a.Encode()
	y, err2 := b.Encode()
	return err == nil && err2 == nil && slices.Equal(x, y)
}

// tickOfVault is how often Vault looks for keys that are due to be rotated.
const tickOfVault = time.Hour

// noted is a key with what facts of its custodian add.
func noted(k *record.TenantKey, m keys.Mark, f *keys.Facts, now time.Time) *record.TenantKey {
	next := *k
	next.Cluster, next.RootLatest, next.RootMin = m.ClusterID, m.RootLatest, m.RootMinAvailable
	next.SignLatest, next.SignMin, next.SignKeys = m.SignLatest, m.SignMinAvailable, maps.Clone(m.SignKeys)
	next.Versions = slices.Clone(k.Versions)
	if f == nil {
		return &next
	}
	for i := range next.Versions {
		if v := &next.Versions[i]; v.Gone == 0 && missing(&f.Root, v.Number) {
			v.Gone = record.ToMillis(now)
		}
	}
	for _, v := range f.Root.Versions {
		if next.Version(v.Version) != nil {
			continue
		}
		add := record.KeyVersion{Number: v.Version, Created: record.ToMillis(v.Created), Seen: record.ToMillis(now), Origin: record.OriginGenerated}
		if f.Root.Imported { // Vault says so until it rotates the key itself
			add.Origin = record.OriginImported
		}
		switch before := next.Version(v.Version - 1); {
		case k.RootLatest == 0:
			add.Claim, add.ClaimedBy = record.Claimed, "its registration"
		case k.Rotates > 0 && before != nil && v.Created.Sub(before.Created.Time())+tickOfVault >= time.Duration(k.Rotates)*time.Millisecond:
			add.Claim, add.ClaimedBy = record.Claimed, "its schedule"
		}
		next.Versions = append(next.Versions, add)
	}
	slices.SortFunc(next.Versions, func(a, b record.KeyVersion) int { return int(int64(a.Number) - int64(b.Number)) })
	return &next
}

// editKey is an edit of a registered key.
func editKey(edit func(*record.TenantKey) error) resourceEdit {
	return func(_ store.Reader, now *record.Resource, _ *audit.Event) ([]byte, error) {
		if now == nil {
			return nil, noKey()
		}
		k, err := record.DecodeTenantKey(now.Body)
		if err == nil {
			err = edit(k)
		}
		if err != nil {
			return nil, err
		}
		return k.Encode()
	}
}

func noKey() error {
	return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no such key").WithNext("See rmsctl key list")
}

func asVocab(err error) (*vocab.Error, bool) { return errors.AsType[*vocab.Error](err) }
