package tenant

import (
	"context"
	"errors"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// keyRecords is the tenant as [keys.Records]: each write with its event.
type keyRecords Tenant

func (k *keyRecords) tenant() *Tenant { return (*Tenant)(k) }

// Generations implements [keys.Records].
func (k *keyRecords) Generations(ctx context.Context) (out []keys.Record, err error) {
	err = k.store.View(ctx, func(r store.Reader) error {
		rows, err := record.ListGenerations(r, k.id)
		if err != nil {
			return err
		}
		for _, g := range rows {
			w, err := license.ParseWrap(g.Wrap)
			if err != nil {
				return vocab.Errorf(vocab.ReasonStoreDamaged, "the wrapped key of generation g%d cannot be read", g.Number).Because(err)
			}
			out = append(out, keys.Record{Number: g.Number, Signed: g.Signed, Wrap: *w, State: keys.State(g.State), Created: g.Created.Time()})
		}
		return nil
	})
	return out, err
}

// AddGeneration implements [keys.Records].
func (k *keyRecords) AddGeneration(ctx context.Context, g keys.Record) error {
	t := k.tenant()
	e := t.newEvent(audit.KindGenerationCreated, Call{}, t.now())
	e.Custodian, e.KeyVersion, e.Target = g.Wrap.Custodian, g.Wrap.L0Version, generationName(g.Number)
	if signed, err := license.ParseGeneration(g.Signed); err == nil {
		e.Generation = signed.ID
	}
	return t.commit(ctx, func(tx store.Tx) error {
		if there, err := record.GetGeneration(tx, t.id, g.Number); err != nil || there != nil {
			return firstError(err, vocab.Errorf(vocab.ReasonResourceExists, "there is a generation g%d already", g.Number))
		}
		if g.State == keys.Active {
			if err := k.deactivateOthers(tx, g.Number); err != nil {
				return err
			}
		}
		return record.PutGeneration(tx, t.id, &record.Generation{
			Number: g.Number, Signed: g.Signed, Wrap: g.Wrap.Encode(), State: uint8(g.State), Created: record.ToMillis(g.Created),
		})
	}, e)
}

func (k *keyRecords) deactivateOthers(tx store.Tx, number uint32) error {
	rows, err := record.ListGenerations(tx, k.id)
	if err != nil {
		return err
	}
	for _, g := range rows {
		if g.Number != number && keys.State(g.State) == keys.Active {
			g.State = uint8(keys.Deactivated)
			if err := record.PutGeneration(tx, k.id, &g); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetState implements [keys.Records].
func (k *keyRecords) SetState(ctx context.Context, number uint32, from, to keys.State) error {
	t := k.tenant()
	e := t.newEvent(stateKind(to), Call{}, t.now())
	e.Target, e.Detail = generationName(number), to.String()
	return t.commit(ctx, func(tx store.Tx) error {
		g, err := k.generation(tx, number)
		if err != nil {
			return err
		}
		if keys.State(g.State) != from {
			return stateChanged(number)
		}
		if to == keys.Active {
			if err := k.deactivateOthers(tx, number); err != nil {
				return err
			}
		}
		g.State = uint8(to)
		return record.PutGeneration(tx, t.id, g)
	}, e)
}

// SetWrap implements [keys.Records].
func (k *keyRecords) SetWrap(ctx context.Context, number uint32, old, next license.Wrap) error {
	t := k.tenant()
	e := t.newEvent(audit.KindGenerationRewrapped, Call{}, t.now())
	e.Custodian, e.KeyVersion, e.Target = next.Custodian, next.L0Version, generationName(number)
	return t.commit(ctx, func(tx store.Tx) error {
		g, err := k.generation(tx, number)
		if err != nil {
			return err
		}
		if !slices.Equal(g.Wrap, old.Encode()) {
			return stateChanged(number)
		}
		g.Wrap = next.Encode()
		return record.PutGeneration(tx, t.id, g)
	}, e)
}

func (k *keyRecords) generation(tx store.Tx, number uint32) (*record.Generation, error) {
	g, err := record.GetGeneration(tx, k.id, number)
	if err == nil && g == nil {
		err = vocab.Errorf(vocab.ReasonResourceNotFound, "there is no generation g%d", number)
	}
	return g, err
}

func stateChanged(number uint32) error {
	return vocab.Errorf(vocab.ReasonEtagMismatch, "generation g%d changed meanwhile", number).WithNext("Look at it again")
}

// VersionStates implements [keys.Records].
func (k *keyRecords) VersionStates(ctx context.Context) (map[keys.VersionID]keys.State, error) {
	out := map[keys.VersionID]keys.State{}
	err := k.store.View(ctx, func(r store.Reader) error {
		rows, err := record.ListVersionStates(r, k.id)
		for _, v := range rows {
			out[keys.VersionID{Custodian: v.Custodian, Version: v.Version}] = keys.State(v.State)
		}
		return err
	})
	return out, err
}

// SetVersionState implements [keys.Records].
func (k *keyRecords) SetVersionState(ctx context.Context, v keys.VersionID, to keys.State) error {
	t := k.tenant()
	e := t.newEvent(stateKind(to), Call{}, t.now())
	e.Custodian, e.KeyVersion, e.Target, e.Detail = v.Custodian, v.Version, "key version", to.String()
	return t.commit(ctx, func(tx store.Tx) error {
		return record.PutVersionState(tx, t.id, record.VersionState{Custodian: v.Custodian, Version: v.Version, State: uint8(to)})
	}, e)
}

// markForm is the stored form of a [keys.Mark].
type markForm struct {
	Cluster    string              `cbor:"1,keyasint,omitempty"`
	RootLatest uint32              `cbor:"2,keyasint,omitempty"`
	RootMin    uint32              `cbor:"3,keyasint,omitempty"`
	SignLatest uint32              `cbor:"4,keyasint,omitempty"`
	SignMin    uint32              `cbor:"5,keyasint,omitempty"`
	SignKeys   map[uint32][32]byte `cbor:"6,keyasint"`
}

func decodeMark(key *record.Key) (keys.Mark, error) {
	if len(key.Mark) == 0 {
		return keys.Mark{}, nil
	}
	var f markForm
	if err := canon.Unmarshal(key.Mark, &f); err != nil {
		return keys.Mark{}, vocab.Errorf(vocab.ReasonStoreDamaged, "what is known of the tenant's key cannot be read").Because(err)
	}
	return keys.Mark{
		Custodian: key.ID, ClusterID: f.Cluster, RootLatest: f.RootLatest, RootMinAvailable: f.RootMin,
		SignLatest: f.SignLatest, SignMinAvailable: f.SignMin, SignKeys: f.SignKeys,
	}, nil
}

// Mark implements [keys.Records].
func (k *keyRecords) Mark(ctx context.Context, c vocab.CustodianID) (m keys.Mark, err error) {
	err = k.store.View(ctx, func(r store.Reader) error {
		key, err := record.GetKey(r, k.id, c)
		if err != nil || key == nil {
			return err
		}
		m, err = decodeMark(key)
		return err
	})
	return m, err
}

// SetMark implements [keys.Records]. The roots of the mark are believed from
// then on.
func (k *keyRecords) SetMark(ctx context.Context, m keys.Mark) error {
	t := k.tenant()
	b, err := canon.Marshal(&markForm{
		Cluster: m.ClusterID, RootLatest: m.RootLatest, RootMin: m.RootMinAvailable,
		SignLatest: m.SignLatest, SignMin: m.SignMinAvailable, SignKeys: m.SignKeys,
	})
	if err != nil {
		return err
	}
	err = t.store.Commit(ctx, func(tx store.Tx) error {
		key, err := record.GetKey(tx, t.id, m.Custodian)
		if err != nil {
			return err
		}
		if key == nil {
			return vocab.Errorf(vocab.ReasonResourceNotFound, "the key is not registered")
		}
		if slices.Equal(key.Mark, b) {
			return nil
		}
		key.Mark, key.Cluster = b, m.ClusterID
		return record.PutKey(tx, t.id, key)
	})
	if err == nil {
		t.adoptRoots(m)
	}
	return err
}

func stateKind(to keys.State) audit.Kind {
	switch to {
	case keys.Suspended:
		return audit.KindKeySuspended
	case keys.Active, keys.Deactivated:
		return audit.KindKeyResumed
	case keys.PreActive, keys.Compromised, keys.Destroyed:
	}
	return audit.KindKeyRetired
}

func asVocab(err error) (*vocab.Error, bool) { return errors.AsType[*vocab.Error](err) }
