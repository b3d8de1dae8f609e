package keys_test

import (
	"context"
	"crypto/ed25519"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/custodiantest"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/vocab"
)

var tenant = vocab.TenantID{0xaa}

// moody is a custodian that can be told to fail, to be slow, and to lie.
type moody struct {
	*embedded.Keyring

	mu     sync.Mutex
	mood   error
	delay  time.Duration
	tamper func([]keys.UnwrapResult)
	short  bool   // Rewrap answers for one item less
	stale  bool   // Rewrap gives back what it was given
	calls  []call // of Unwrap
}

type ed25519Key = ed25519.PublicKey

type call struct {
	at    time.Time
	items int
	err   error
}

var (
	outOfReach = vocab.Errorf(vocab.ReasonCustodianUnreachable, "test: out of reach")
	sealed     = vocab.Errorf(vocab.ReasonCustodianSealed, "test: sealed")
	switchOff  = vocab.Errorf(vocab.ReasonCustodianRefused, "test: refused")
)

func (m *moody) set(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mood = err
}

func (m *moody) take(items int, unwrap bool) (time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if unwrap {
		m.calls = append(m.calls, call{time.Now(), items, m.mood})
	}
	return m.delay, m.mood
}

func (m *moody) log() []call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]call(nil), m.calls...)
}

func (m *moody) Unwrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.UnwrapResult, error) {
	delay, err := m.take(len(items), true)
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, outOfReach
		}
	}
	if err != nil {
		return nil, err
	}
	rs, err := m.Keyring.Unwrap(ctx, items)
	if m.tamper != nil {
		m.tamper(rs)
	}
	return rs, err
}

func (m *moody) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = nil
}

func (m *moody) Rewrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.WrapResult, error) {
	if _, err := m.take(len(items), false); err != nil {
		return nil, err
	}
	rs, err := m.Keyring.Rewrap(ctx, items)
	for i := range rs {
		if m.stale {
			rs[i].Wrap = items[i].Wrap
		}
	}
	if m.short {
		rs = rs[1:]
	}
	return rs, err
}

func (m *moody) Wrap(ctx context.Context, items []keys.WrapItem) ([]keys.WrapResult, error) {
	if _, err := m.take(len(items), false); err != nil {
		return nil, err
	}
	return m.Keyring.Wrap(ctx, items)
}

func (m *moody) Describe(ctx context.Context) (*keys.Facts, error) {
	if _, err := m.take(1, false); err != nil {
		return nil, err
	}
	return m.Keyring.Describe(ctx)
}

func (m *moody) Sign(ctx context.Context, v uint32, message []byte) (*keys.Signature, error) {
	if _, err := m.take(1, false); err != nil {
		return nil, err
	}
	return m.Keyring.Sign(ctx, v, message)
}

// world is a tenant with one custodian, records and a ring.
type world struct {
	*keys.Ring
	t       *testing.T
	cust    *moody
	records *custodiantest.Records
	config  keys.RingConfig
}

func newCustodian(t *testing.T) *moody {
	t.Helper()
	dir := t.TempDir()
	k, err := embedded.Create(embedded.Config{ID: vocab.NewCustodianID(), Path: filepath.Join(dir, "ring"), KeyFile: filepath.Join(dir, "key")})
	if err != nil {
		t.Fatal(err)
	}
	return &moody{Keyring: k}
}

// newWorld has generation g1 active, its copy not in memory.
func newWorld(t *testing.T, l keys.Limits) *world {
	t.Helper()
	c := newCustodian(t)
	w := &world{t: t, cust: c, records: custodiantest.NewRecords()}
	w.config = keys.RingConfig{
		Tenant: tenant, Custodians: []keys.Custodian{c}, Records: w.records, Limits: l,
		Roots:  func() []ed25519.PublicKey { return rootsOf(t, c.Keyring) },
		Jitter: func() float64 { return 0.5 }, // early at 80 %
	}
	w.start()
	if _, err := w.NewGeneration(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	c.mu.Lock()
	c.calls = nil
	c.mu.Unlock()
	return w
}

// start makes the ring anew, as after a restart.
func (w *world) start() {
	w.t.Helper()
	r, err := keys.NewRing(w.t.Context(), w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Ring = r
	w.t.Cleanup(r.Close)
}

func rootsOf(t *testing.T, k *embedded.Keyring) []ed25519.PublicKey {
	f, err := k.Describe(context.Background())
	if err != nil {
		t.Error(err)
		return nil
	}
	var out []ed25519.PublicKey
	for _, v := range f.Sign.Versions {
		out = append(out, v.PublicKey)
	}
	return out
}

// g1 is the ID of a generation by number.
func (w *world) id(number uint32) vocab.GenerationID {
	w.t.Helper()
	for _, e := range w.Inventory() {
		if e.Number == number {
			return e.ID
		}
	}
	w.t.Fatalf("no generation g%d", number)
	return vocab.GenerationID{}
}

// try opens g1 and gives the reason it fails for, "" if it does not.
func (w *world) try() vocab.Reason {
	k, err := w.Open(w.t.Context(), w.id(1))
	k.Release()
	return vocab.ReasonOf(err)
}

func (w *world) want(what string, want vocab.Reason) {
	w.t.Helper()
	if got := w.try(); got != want {
		w.t.Errorf("%s: reason %q, want %q", what, got, want)
	}
}

func (w *world) wantCalls(n int) {
	w.t.Helper()
	if got := len(w.cust.log()); got != n {
		w.t.Errorf("the custodian was asked %d times, want %d", got, n)
	}
}

// SetState moves a generation in the records and tells the ring.
func (w *world) SetState(number uint32, to keys.State) error {
	rec, err := w.records.SetState(number, to)
	if err == nil {
		w.Take(rec)
	}
	return err
}

// SetVersionState does the same for a version of the key.
func (w *world) SetVersionState(v keys.VersionID, to keys.State) error {
	k, err := w.records.SetVersionState(v, to)
	if err == nil {
		w.TakeKey(k)
	}
	return err
}

// newest is the newest version of a key.
func newest(t *testing.T, c keys.Custodian) keys.VersionID {
	t.Helper()
	f, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return keys.VersionID{Custodian: c.ID(), Version: f.Root.Latest}
}

// rewrapTo moves the wraps of generations, as long as there are some to move, and
// returns what became of each, in order of their numbers for one custodian.
func (w *world) rewrapTo(to keys.VersionID, limit int) (out []keys.Rewrapped, err error) {
	tried := map[uint32]bool{}
	for {
		rs, err := w.Rewrap(w.t.Context(), to, limit, func(n uint32) bool { return tried[n] }, w.put)
		for _, r := range rs {
			tried[r.Number] = true
		}
		if out = append(out, rs...); err != nil || len(rs) == 0 {
			return out, err
		}
	}
}

// put writes wraps into the records and tells the ring.
func (w *world) put(changes []keys.WrapChange) error {
	recs, err := w.records.SetWraps(changes)
	for _, rec := range recs {
		w.Take(rec)
	}
	return err
}
