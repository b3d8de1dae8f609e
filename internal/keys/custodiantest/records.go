package custodiantest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Records is a [keys.Records] in memory, for tests of what stands on a Ring.
// Its duties are those of the real one; nothing outlives the process.
type Records struct {
	// Fail, if set, is asked before every write and makes it fail.
	Fail func(op string) error

	mu     sync.Mutex
	list   []keys.Record
	states map[vocab.CustodianID]keys.KeyStates
	marks  map[vocab.CustodianID]keys.Mark
}

var _ keys.Records = (*Records)(nil)

// NewRecords returns empty records.
func NewRecords() *Records {
	return &Records{states: make(map[vocab.CustodianID]keys.KeyStates), marks: make(map[vocab.CustodianID]keys.Mark)}
}

func (r *Records) write(op string, do func() error) error {
	if r.Fail != nil {
		if err := r.Fail(op); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return do()
}

func (r *Records) find(number uint32) *keys.Record {
	i := slices.IndexFunc(r.list, func(rec keys.Record) bool { return rec.Number == number })
	if i < 0 {
		return nil
	}
	return &r.list[i]
}

func (r *Records) retireActive() {
	for i := range r.list {
		if r.list[i].State == keys.Active {
			r.list[i].State = keys.Deactivated
		}
	}
}

func stale(what string) error {
	return vocab.Errorf(vocab.ReasonEtagMismatch, "the %s was changed by somebody else", what)
}

// Generations implements [keys.Records].
func (r *Records) Generations(context.Context) ([]keys.Record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list), nil
}

// AddGeneration implements [keys.Records].
func (r *Records) AddGeneration(_ context.Context, rec keys.Record) error {
	return r.write("add", func() error {
		if r.find(rec.Number) != nil {
			return vocab.Errorf(vocab.ReasonResourceExists, "generation g%d exists", rec.Number)
		}
		if rec.State == keys.Active {
			r.retireActive()
		}
		r.list = append(r.list, rec)
		slices.SortFunc(r.list, func(a, b keys.Record) int { return int(a.Number) - int(b.Number) })
		return nil
	})
}

// SetState moves a generation to another state and returns its record.
func (r *Records) SetState(number uint32, to keys.State) (out keys.Record, err error) {
	err = r.write("state", func() error {
		rec := r.find(number)
		if rec == nil || !rec.State.May(to) {
			return vocab.Errorf(vocab.ReasonKeyState, "no such move")
		}
		if to == keys.Active {
			r.retireActive()
		}
		rec.State = to
		out = *rec
		return nil
	})
	return out, err
}

// SetWraps replaces the wraps of generations, all or none, and returns them as
// they are then. It fails with ETAG_MISMATCH if one is no longer what it was.
func (r *Records) SetWraps(changes []keys.WrapChange) (out []keys.Record, err error) {
	err = r.write("wrap", func() error {
		for _, c := range changes {
			if rec := r.find(c.Number); rec == nil || string(rec.Wrap.Encode()) != string(c.From.Encode()) {
				return stale("wrap")
			}
		}
		for _, c := range changes {
			rec := r.find(c.Number)
			rec.Wrap = c.To
			out = append(out, *rec)
		}
		return nil
	})
	return out, err
}

// Keys implements [keys.Records].
func (r *Records) Keys(context.Context) (out []keys.KeyStates, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.states {
		k.Versions = maps.Clone(k.Versions)
		out = append(out, k)
	}
	return out, nil
}

// SetVersionState sets the state of one version of a key (0 of the key itself)
// and returns the key's states.
func (r *Records) SetVersionState(v keys.VersionID, to keys.State) (out keys.KeyStates, err error) {
	err = r.write("version", func() error {
		k := r.states[v.Custodian]
		k.Key, k.Versions = v.Custodian, maps.Clone(k.Versions)
		if v.Version == 0 {
			k.State = to
		} else {
			if k.Versions == nil {
				k.Versions = map[uint32]keys.State{}
			}
			k.Versions[v.Version] = to
		}
		r.states[v.Custodian], out = k, k
		return nil
	})
	return out, err
}

// Mark implements [keys.Records].
func (r *Records) Mark(_ context.Context, c vocab.CustodianID) (keys.Mark, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.marks[c], nil
}

// SetMark implements [keys.Records].
func (r *Records) SetMark(_ context.Context, m keys.Mark, _ *keys.Facts) error {
	return r.write("mark", func() error { r.marks[m.Custodian] = m; return nil })
}

// Edit changes records behind the Ring's back, as somebody with the database
// would.
func (r *Records) Edit(edit func([]keys.Record)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	edit(r.list)
}

// RunRecords is what every [keys.Records] must do. make returns empty ones.
func RunRecords(t *testing.T, make func(t *testing.T) keys.Records) {
	record := func(n uint32, s keys.State) keys.Record {
		return keys.Record{
			Number: n, Signed: []byte{0xd2, byte(n)}, State: s, Created: time.UnixMilli(1_790_000_000_000 + int64(n)).UTC(),
			Wrap: license.Wrap{Custodian: vocab.CustodianID{9}, L0Type: license.L0AES, L0Version: n, Ciphertext: []byte("a wrap of a test, 29 bytes and more")},
		}
	}
	states := func(t *testing.T, r keys.Records) map[uint32]keys.State {
		t.Helper()
		list, err := r.Generations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out, last := map[uint32]keys.State{}, uint32(0)
		for _, rec := range list {
			if rec.Number <= last {
				t.Errorf("generations out of order: g%d after g%d", rec.Number, last)
			}
			last = rec.Number
			want := record(rec.Number, rec.State)
			if string(rec.Signed) != string(want.Signed) || !rec.Created.Equal(want.Created) {
				t.Errorf("g%d came back changed: %+v", rec.Number, rec)
			}
			out[rec.Number] = rec.State
		}
		return out
	}
	ok := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("OneActive", func(t *testing.T) {
		r := make(t)
		if len(states(t, r)) != 0 {
			t.Fatal("not empty")
		}
		for n := uint32(1); n <= 12; n++ { // 10 sorts after 9
			ok(t, r.AddGeneration(t.Context(), record(n, keys.Active)))
		}
		got := states(t, r)
		for n := uint32(1); n < 12; n++ {
			if got[n] != keys.Deactivated {
				t.Errorf("g%d is %s", n, got[n])
			}
		}
		if got[12] != keys.Active {
			t.Errorf("the newest is %s", got[12])
		}
		if err := r.AddGeneration(t.Context(), record(12, keys.Active)); !errors.Is(err, vocab.ReasonResourceExists) {
			t.Errorf("number taken: %v", err)
		}
	})
	t.Run("Marks", func(t *testing.T) {
		r := make(t)
		id := vocab.CustodianID{9}
		if m, err := r.Mark(t.Context(), id); err != nil || !m.Custodian.IsZero() {
			t.Errorf("mark of an unknown key: %+v, %v", m, err)
		}
		want := keys.Mark{Custodian: id, ClusterID: "c", RootLatest: 3, RootMinAvailable: 1, SignLatest: 2, SignMinAvailable: 1, SignKeys: map[uint32][32]byte{1: {1}, 2: {2}}}
		ok(t, r.SetMark(t.Context(), want, factsOf(want)))
		got, err := r.Mark(t.Context(), id)
		ok(t, err)
		if got.ClusterID != want.ClusterID || got.RootLatest != 3 || got.SignLatest != 2 || got.RootMinAvailable != 1 || got.SignMinAvailable != 1 || !maps.Equal(got.SignKeys, want.SignKeys) {
			t.Errorf("mark %+v, want %+v", got, want)
		}
	})
}

// factsOf are facts that leave a mark.
func factsOf(m keys.Mark) *keys.Facts {
	f := &keys.Facts{
		Custodian: m.Custodian, Kind: keys.KindEmbedded, ClusterID: m.ClusterID,
		Root: keys.KeyFacts{Latest: m.RootLatest, MinAvailable: m.RootMinAvailable},
		Sign: keys.KeyFacts{Latest: m.SignLatest, MinAvailable: m.SignMinAvailable},
	}
	for n := range m.RootLatest {
		f.Root.Versions = append(f.Root.Versions, keys.KeyVersion{Version: n + 1, Created: time.UnixMilli(1_790_000_000_000).UTC()})
	}
	return f
}
