package keys

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Limits bound how long an unwrapped generation may be used.
type Limits struct {
	// TTL is the hard end, counted from when the custodian was asked: from 10
	// seconds to 1 hour, 5 minutes if zero.
	TTL time.Duration
	// MaxUses is the hard end in uses, 10,000 if zero.
	MaxUses uint32
	// Grace is how much longer than TTL a copy may be used while the
	// custodian cannot be reached or is sealed: at most 24 hours, 0 by default.
	// It never follows a refusal.
	Grace time.Duration
}

// Bounds and defaults of [Limits].
const (
	DefaultTTL     = 5 * time.Minute
	MinTTL         = 10 * time.Second
	MaxTTL         = time.Hour
	MaxGrace       = 24 * time.Hour
	DefaultMaxUses = 10_000
)

// filled returns l with its defaults, or CONFIGURATION_INVALID.
func (l Limits) filled() (Limits, error) {
	l.TTL = cmp.Or(l.TTL, DefaultTTL)
	l.MaxUses = cmp.Or(l.MaxUses, DefaultMaxUses)
	if l.TTL < MinTTL || l.TTL > MaxTTL {
		return l, vocab.Errorf(vocab.ReasonConfigurationInvalid, "a key TTL of %s is not between %s and %s", l.TTL, MinTTL, MaxTTL)
	}
	if l.Grace < 0 || l.Grace > MaxGrace {
		return l, vocab.Errorf(vocab.ReasonConfigurationInvalid, "an outage grace of %s is not between 0 and %s", l.Grace, MaxGrace)
	}
	return l, nil
}

// EffectiveDelay is how long content may go on opening from this daemon after
// the custodian refuses, and after it stops answering.
func (l Limits) EffectiveDelay() (refusal, outage time.Duration) { return l.TTL, l.TTL + l.Grace }

// RingConfig is what a [Ring] is made of.
type RingConfig struct {
	Tenant vocab.TenantID
	// Custodians are all registered keys of the tenant that can be reached;
	// the first is active: it wraps what is new, the others only open. The
	// Ring does not close them.
	Custodians []Custodian
	Records    Records
	// Roots returns the root public keys the tenant trusts for generation
	// records, current and former, not compromised. It must not block. It is
	// asked by NewRing, [Ring.Reload] and [Ring.NewGeneration]: reload when
	// the roots change.
	Roots  func() []ed25519.PublicKey
	Limits Limits
	// CallTimeout bounds one call of a custodian that the Ring makes on
	// behalf of many; 5 seconds if zero.
	CallTimeout time.Duration
	// Now is the clock, time.Now if nil. Jitter returns a number in [0, 1).
	Now    func() time.Time
	Jitter func() float64
	// Observe, if not nil, hears of every call to a custodian. It must be
	// fast and safe for concurrent use, and must not call the Ring.
	Observe func(Call)
}

// Call is one call of a custodian as the audit log and the metrics see it.
type Call struct {
	Op         string // unwrap, refresh, wrap, rewrap, sign, describe
	Custodian  vocab.CustodianID
	Items      int
	RequestIDs []string
	Start      time.Time
	Duration   time.Duration
	// Err is why the call failed, or an item of it; if several did, one that
	// is about the custodian as a whole goes first.
	Err error
}

const (
	defaultCallTimeout = 5 * time.Second
	// retryAfter is how long a failed unwrap answers for the next caller, so
	// that a dead custodian is not asked once per open.
	retryAfter = 500 * time.Millisecond
)

// Ring holds a tenant's generations and the unwrapped copies of those in use.
// It is safe for concurrent use.
//
// An unwrapped copy lives in memory for at most the limits' TTL and uses. One
// call refreshes it, however many wait; while the custodian answers, that
// happens early, at about 80 % of the TTL. At the TTL the copy is zeroed,
// whether or not anyone asks. A refusal, a suspension and [Ring.Flush] end it
// at once. Keys of documents (custody strict) are never kept.
type Ring struct {
	tenant  vocab.TenantID
	records Records
	roots   func() []ed25519.PublicKey
	timeout time.Duration
	now     func() time.Time
	jitter  func() float64
	observe func(Call)

	// admin serialises what changes records, around slow calls; it is taken
	// before mu and never inside it.
	admin sync.Mutex

	mu         sync.Mutex // guards everything below; held only for memory work
	limits     Limits
	custodians map[vocab.CustodianID]*member
	active     vocab.CustodianID
	byID       map[vocab.GenerationID]*generation
	byNumber   map[uint32]*generation
	states     map[vocab.CustodianID]KeyStates
	used       map[VersionID]time.Time // when something was last opened or sealed through it
	epoch      uint64                  // grows with every act that takes keys away
	closed     bool
}

// member is a registered custodian with the queue of its document keys.
type member struct {
	Custodian
	opens  *coalescer[UnwrapItem, UnwrapResult]
	barred error // why nothing of it may be used, set by Sync
}

// generation is a record and its unwrapped copy, if there is one.
type generation struct {
	Record
	id         vocab.GenerationID
	commitment [32]byte
	broken     error // its record does not verify

	copy     *unwrapped
	flight   *flight
	failed   error     // of the last flight; nil after a success
	failedAt time.Time // when it ended
	lastUsed time.Time
	uses     uint64
}

// NewRing reads and verifies the tenant's generations. A record that does not
// verify does not stop the others: using it fails with STORE_DAMAGED and
// [Ring.Inventory] shows it.
func NewRing(ctx context.Context, c RingConfig) (*Ring, error) {
	limits, err := c.Limits.filled()
	if err != nil {
		return nil, err
	}
	r := &Ring{
		tenant: c.Tenant, records: c.Records, roots: c.Roots, limits: limits,
		timeout: cmp.Or(c.CallTimeout, defaultCallTimeout), now: c.Now, jitter: c.Jitter, observe: c.Observe,
		custodians: make(map[vocab.CustodianID]*member),
		byID:       make(map[vocab.GenerationID]*generation), byNumber: make(map[uint32]*generation),
		used: make(map[VersionID]time.Time),
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.jitter == nil {
		r.jitter = rand.Float64
	}
	if r.observe == nil {
		r.observe = func(Call) {}
	}
	for i, cu := range c.Custodians {
		r.custodians[cu.ID()] = r.member(cu)
		if i == 0 {
			r.active = cu.ID()
		}
	}
	return r, r.Reload(ctx)
}

// Reload reads the records again, after another part of the daemon changed
// them (an import, a restored backup). Unwrapped copies of generations that
// stay as they were are kept.
func (r *Ring) Reload(ctx context.Context) error {
	r.admin.Lock()
	defer r.admin.Unlock()
	rs, err := r.records.Generations(ctx)
	if err != nil {
		return err
	}
	states, err := r.records.Keys(ctx)
	if err != nil {
		return err
	}
	byID, byNumber := make(map[vocab.GenerationID]*generation), make(map[uint32]*generation)
	for _, rec := range rs {
		g := r.verify(rec)
		if other := byID[g.id]; g.broken == nil && other != nil {
			g.broken = vocab.Errorf(vocab.ReasonStoreDamaged, "generations g%d and g%d are the same", other.Number, g.Number)
		}
		byNumber[g.Number] = g
		if g.broken == nil {
			byID[g.id] = g
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, old := range r.byID {
		g := byID[id]
		if g != nil && g.State == old.State && sameWrap(g.Wrap, old.Wrap) {
			g.copy, g.lastUsed, g.uses = old.copy, old.lastUsed, old.uses
			old.copy = nil
			if g.copy != nil {
				r.arm(g, g.copy)
			}
		}
		old.drop()
	}
	r.byID, r.byNumber, r.states = byID, byNumber, make(map[vocab.CustodianID]KeyStates)
	for _, k := range states {
		r.states[k.Key] = k
	}
	r.epoch++
	return nil
}

// verify turns a record into a generation, broken if it is not what a trusted
// root signed for this tenant.
func (r *Ring) verify(rec Record) *generation {
	g := &generation{Record: rec}
	lg, err := license.VerifyGeneration(rec.Signed, r.tenant, r.roots()...)
	if err != nil {
		g.broken = err
		return g
	}
	g.id, g.commitment = lg.ID, lg.Commitment
	if !rec.State.Valid() {
		g.broken = vocab.Errorf(vocab.ReasonStoreDamaged, "generation g%d is in an unknown state", rec.Number)
	}
	return g
}

func (g *generation) binding(t vocab.TenantID) Binding { return TenantBinding(t, g.id) }

// Epoch grows whenever a key was taken away: suspension, refusal, flush,
// reload. Equal epochs before and after mean that nothing was.
func (r *Ring) Epoch() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.epoch
}

// SetLimits changes the limits at once, also for copies held now.
func (r *Ring) SetLimits(l Limits) error {
	l, err := l.filled()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limits = l
	for _, g := range r.byNumber {
		if g.copy != nil {
			r.arm(g, g.copy)
		}
	}
	return nil
}

// Limits returns the limits in force, with defaults filled in.
func (r *Ring) Limits() Limits {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits
}

// Flush drops every unwrapped copy at once. The next use asks the custodian.
func (r *Ring) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropAll(nil)
}

// Close drops everything and makes every later use fail. Calls in flight end
// by their own timeout and their results are zeroed.
func (r *Ring) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropAll(nil)
	r.closed = true
}

// dropAll zeroes copies; of one custodian, or of all. mu is held.
func (r *Ring) dropAll(of *vocab.CustodianID) {
	r.epoch++
	for _, g := range r.byNumber {
		if of == nil || g.Wrap.Custodian == *of {
			g.drop()
		}
	}
}

// drop zeroes the copy and disowns the flight, whose result will be discarded.
func (g *generation) drop() {
	if g.copy != nil {
		g.copy.timer.Stop()
		g.copy.secret.Zero()
		g.copy = nil
	}
	g.flight, g.failed = nil, nil
}

// usable says why content of g may not be touched, or nil. mu is held.
func (r *Ring) usable(g *generation, sealing bool) error {
	switch {
	case r.closed:
		return vocab.Errorf(vocab.ReasonKeySuspended, "the tenant is being shut down")
	case g.broken != nil:
		return g.broken
	case g.State == Suspended:
		return suspended("generation g%d", g.Number)
	case !g.State.Opens(), sealing && !g.State.Seals():
		return vocab.Errorf(vocab.ReasonKeyState, "generation g%d is %s", g.Number, g.State)
	}
	return r.usableWrap(g.Wrap)
}

// usableWrap says why a wrap may not be opened. mu is held.
func (r *Ring) usableWrap(w license.Wrap) error {
	m := r.custodians[w.Custodian]
	if m == nil {
		if err := r.stateError(w); err != nil {
			return err // as it was where the key is
		}
		return vocab.Errorf(vocab.ReasonKeyState, "the tenant key this document needs is not registered here").
			WithNext("Register the key again with rmsctl key register")
	}
	if m.barred != nil {
		return m.barred
	}
	return r.stateError(w)
}

// stateError says why the states of the key and version of a wrap forbid its
// use. mu is held.
func (r *Ring) stateError(w license.Wrap) error {
	k := r.states[w.Custodian]
	switch s := k.State; {
	case s == Suspended:
		return suspended("the tenant key %s", k.Name)
	case s != 0 && !s.Opens():
		return vocab.Errorf(vocab.ReasonKeyState, "the tenant key %s is %s", k.Name, s)
	}
	switch s, ok := k.Versions[w.L0Version]; {
	case !ok || s.Opens():
		return nil
	case s == Suspended:
		return suspended("version %d of the tenant key", w.L0Version)
	default:
		return vocab.Errorf(vocab.ReasonKeyState, "version %d of the tenant key is %s", w.L0Version, s)
	}
}

// mayWrap says why nothing new can be wrapped. mu is held.
func (r *Ring) mayWrap() error {
	m := r.custodians[r.active]
	switch {
	case r.closed:
		return vocab.Errorf(vocab.ReasonKeySuspended, "the tenant is being shut down")
	case m == nil:
		return vocab.Errorf(vocab.ReasonKeyState, "the tenant has no active key")
	case m.barred != nil:
		return m.barred
	}
	return r.stateError(license.Wrap{Custodian: r.active})
}

func suspended(format string, args ...any) error {
	return vocab.Errorf(vocab.ReasonKeySuspended, "%s is suspended", fmt.Sprintf(format, args...)).
		WithNext("Ask a key custodian; rmsctl key inventory shows who suspended it")
}

// Entry is a generation as an inventory lists it.
type Entry struct {
	Number    uint32
	ID        vocab.GenerationID
	State     State
	Version   VersionID // of the tenant key that wraps it
	Created   time.Time
	LastUsed  time.Time // by this process; zero if never
	Uses      uint64    // by this process
	HeldUntil time.Time // hard end of the copy in memory; zero if none
	Err       error     // why it cannot be used, if it cannot
	Canary    bool      // kept for rehearsals; nothing depends on it
}

// Uses returns when, in the life of this process, something was last opened or
// sealed through each version of a tenant key, by a copy in memory or not.
func (r *Ring) Uses() map[VersionID]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.used)
}

// use notes that a wrap's version is used. mu is held.
func (r *Ring) use(w license.Wrap, now time.Time) { r.used[VersionID{w.Custodian, w.L0Version}] = now }

// Remove forgets a custodian whose keys were destroyed. The caller closes it.
func (r *Ring) Remove(id vocab.CustodianID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropAll(&id)
	delete(r.custodians, id)
}

// Inventory lists all generations by number.
func (r *Ring) Inventory() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var es []Entry
	for _, g := range r.byNumber {
		e := Entry{Number: g.Number, ID: g.id, State: g.State, Version: VersionID{g.Wrap.Custodian, g.Wrap.L0Version},
			Created: g.Created, LastUsed: g.lastUsed, Uses: g.uses, Err: r.usable(g, false), Canary: g.Canary}
		if g.copy != nil {
			e.HeldUntil = g.copy.asked.Add(r.limits.TTL + r.limits.Grace)
		}
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b Entry) int { return cmp.Compare(a.Number, b.Number) })
	return es
}

func sameWrap(a, b license.Wrap) bool { return string(a.Encode()) == string(b.Encode()) }
