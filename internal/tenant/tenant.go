// Package tenant is the service of one tenant: it protects and opens
// documents, and manages licenses, templates and settings. Here the parts
// meet: keys, policy, records and the log.
//
// Three duties hold for every function that acts. It decides on what is in the
// store at the moment its writes take effect: what it read before is compared
// in the transaction, and it starts over if something changed. It makes its
// event durable in the same transaction, before it returns anything. And it
// returns no key that is not in the log as released, and tells nobody of a
// refusal that is not in the log as refused.
package tenant

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// maxAttempts is how often something is decided again because what it rests on
// changed meanwhile.
const maxAttempts = 16

// errStale says, inside this package, that what was read before has changed.
var errStale = errors.New("stale")

// errBehind says, inside this package, that memory is behind the transaction.
var errBehind = errors.New("behind")

func tooBusy() error {
	return vocab.Errorf(vocab.ReasonOverloaded, "what this rests on changes too quickly").WithNext("Try again")
}

// Deps are what a tenant is made of.
type Deps struct {
	// File is the operator's file of the tenant.
	File  config.Tenant
	Store store.Store
	Log   *audit.Log
	// Custodians reaches the tenant's custodians. Whoever made it ends it, after
	// the tenant.
	Custodians Custodians
	// Exported returns the tenant's exported checkpoint; nil means that none
	// are kept.
	Exported func(t vocab.TenantID) (Exported, error)
	// Instance names the daemon in its certificates, for people.
	Instance string
	Logger   *slog.Logger
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Backups lists the backups that a tenant's records are in; nil: those that
	// its records name.
	Backups func(store.Reader, vocab.TenantID) ([]BackupNeeds, error)
	// SyncEvery is how often the custodian is looked at; 5 minutes if zero.
	SyncEvery time.Duration
}

// Tenant serves one tenant. It is safe for concurrent use.
type Tenant struct {
	name      string
	id        vocab.TenantID
	file      atomic.Pointer[config.Tenant]
	settings  atomic.Pointer[record.Settings]
	store     store.Store
	log       *audit.Log
	proven    proven
	logger    *slog.Logger
	now       func() time.Time
	syncEvery time.Duration

	instance  string
	exported  func(vocab.TenantID) (Exported, error)
	continued bool // the exported checkpoint was verified; of run alone

	custodians Custodians
	opened     struct {
		mu   sync.Mutex
		list []keys.Custodian
		// faults are what is wrong with keys other than the active one.
		faults map[vocab.CustodianID]error
	}
	ring      *keys.Ring
	chain     *keys.Chain
	trust     trust
	templates templates
	parents   parents
	live      live
	stuck     stuck
	backups   func(store.Reader, vocab.TenantID) ([]BackupNeeds, error)
	usesNoted time.Time // when what was used was written down last; of run, and of Close after it
	calls     calls
	// provingKeys is held while evidence is made, which reads all of the log.
	provingKeys sync.Mutex
	// rehearsing is held while the switch is tried on the canary.
	rehearsing sync.Mutex
	// watching is held while a canary key's refusal is waited for.
	watching  sync.Mutex
	exporting sync.Mutex // held while an archive of the tenant is made

	stop    context.CancelFunc
	running sync.WaitGroup
	state   atomic.Pointer[State]
	ready   chan struct{}       // closed once the tenant has served or failed its first start
	nudge   chan struct{}       // holds one token when a call of the custodian contradicts state
	alarms  chan custodianAlarm // what calls of a custodian found that nobody waited for
}

// State is whether a tenant can publish and open now.
type State struct {
	// Err is why not; nil if it can.
	Err error
	// Since is when the state began.
	Since time.Time
}

// Open starts serving a tenant. It needs the store, but not the custodian: a
// tenant whose custodian is away serves refusals, licenses and its log, and
// begins to publish and open when the custodian answers. Close it.
func Open(ctx context.Context, d Deps) (*Tenant, error) {
	t := &Tenant{
		name: d.File.ID, instance: d.Instance, store: d.Store, log: d.Log, exported: d.Exported, logger: d.Logger, now: d.Now,
		syncEvery: cmp.Or(d.SyncEvery, 5*time.Minute), ready: make(chan struct{}), nudge: make(chan struct{}, 1), alarms: make(chan custodianAlarm, 16),
		custodians: d.Custodians, backups: d.Backups,
	}
	if t.now == nil {
		t.now = time.Now
	}
	t.file.Store(&d.File)
	if err := t.ensureTenant(ctx); err != nil {
		return nil, err
	}
	var settings record.Settings
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		if err := t.verifyName(r); err != nil {
			return err
		}
		if settings, err = record.GetSettings(r, t.id); err != nil {
			return err
		}
		if err := verifySettings(r, t.id, settings); err != nil {
			return err
		}
		return t.live.load(r, t.id)
	}); err != nil {
		return nil, err
	}
	t.settings.Store(&settings)
	if err := t.ensureKey(ctx); err != nil {
		return nil, err
	}
	if err := t.loadTrust(ctx); err != nil {
		return nil, err
	}
	opened, err := t.openKeys()
	if err != nil {
		return nil, errors.Join(err, t.closeKeys())
	}
	t.ring, err = keys.NewRing(ctx, keys.RingConfig{
		Tenant: t.id, Custodians: opened, Records: (*keyRecords)(t), Roots: t.trust.keys, Now: t.now,
		Limits: keys.Limits{TTL: settings.CacheTTL, Grace: settings.OutageGrace}, Observe: t.saw,
	})
	if err != nil {
		return nil, errors.Join(err, t.closeKeys())
	}
	t.live.ring = t.ring
	t.tellUncounted()
	t.chain = keys.NewChain(keys.ChainConfig{
		Tenant: t.id, Instance: d.Instance, Now: t.now,
		Root:    func(ctx context.Context) (license.Signer, error) { return keys.CurrentRoot(ctx, t.active()) },
		OnError: func(err error) { t.logger.Warn("signing keys were not renewed", "tenant", t.name, "error", err) },
	})
	t.setState(vocab.Errorf(vocab.ReasonCustodianUnreachable, "the tenant's custodian has not answered yet").WithNext("Try again in a moment"))
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	t.stop = stop
	t.running.Go(func() { t.run(run) })
	t.running.Go(func() { t.operate(run) })
	t.running.Go(func() { t.watchApprovers(run) })
	return t, nil
}

// Close stops serving. Calls under way must have ended.
func (t *Tenant) Close() error {
	t.stop()
	t.running.Wait()
	t.noteLastUses()
	t.ring.Close()
	return t.closeKeys()
}

// Name is the tenant's name among people.
func (t *Tenant) Name() string { return t.name }

// ID is the tenant's identity, as it stands in documents.
func (t *Tenant) ID() vocab.TenantID { return t.id }

// Reconfigure takes over what may change without a restart from the operator's
// file: everything but a custodian that holds a key of the tenant.
func (t *Tenant) Reconfigure(f config.Tenant) {
	t.file.Store(&f)
	t.tellUncounted()
	t.live.changed()
}

// State returns whether the tenant can publish and open now.
func (t *Tenant) State() State { return *t.state.Load() }

// Ready waits until the first attempt to reach the custodian has ended.
func (t *Tenant) Ready(ctx context.Context) error {
	select {
	case <-t.ready:
		return t.State().Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// setState notes whether the tenant serves and says whether that is news.
func (t *Tenant) setState(err error) bool {
	if old := t.state.Load(); old != nil && sameTrouble(old.Err, err) {
		if err != nil && old.Err.Error() != err.Error() {
			t.state.Store(&State{Err: err, Since: old.Since}) // the same, and more is known of it
		}
		return false
	}
	t.state.Store(&State{Err: err, Since: t.now()})
	return true
}

// signer returns the daemon's certified key for licenses and templates. A
// failure is what keeps the tenant from serving.
func (t *Tenant) signer(context.Context) (license.Signer, *license.Certificate, error) {
	s, err := t.chain.Licenses()
	if state := t.State().Err; err != nil && (keys.IsOutage(state) || keys.IsRefusal(state) || vocab.ReasonOf(state) == vocab.ReasonLogDamaged) {
		err = state // the chain only knows that it has no key, not why nobody could make one
	}
	if err != nil {
		return nil, nil, err
	}
	return s.Signer, s.Certificate, nil
}

// CheckpointSigner returns the daemon's certified key for checkpoints of this
// tenant's log, and the signed certificate.
func (t *Tenant) CheckpointSigner() (audit.Signer, []byte, error) {
	s, err := t.chain.Checkpoints()
	if err != nil {
		return nil, nil, err
	}
	return s.Signer, s.Certificate.Raw(), nil
}

// verifyName refuses data that were another tenant's from the beginning: a name
// that somebody made lead to them.
func (t *Tenant) verifyName(r store.Reader) error {
	first, err := audit.First(r, t.id)
	if err == nil && (first == nil || first.Kind != audit.KindTenantCreated || first.Target != "tenant "+t.name) {
		err = contradicts("the tenant's name")
	}
	return err
}

// ensureTenant gives the tenant its identity when it is first served.
func (t *Tenant) ensureTenant(ctx context.Context) error {
	return t.store.Commit(ctx, func(tx store.Tx) error {
		known, err := record.GetTenant(tx, t.name)
		if err != nil {
			return err
		}
		if known != nil {
			t.id = known.ID
			return nil
		}
		t.id = vocab.NewTenantID()
		e := t.newEvent(audit.KindTenantCreated, Call{}, t.now())
		e.Target = "tenant " + t.name
		if err := record.PutTenant(tx, t.name, &record.Tenant{ID: t.id, Created: record.ToMillis(e.Time)}); err != nil {
			return err
		}
		return t.log.Append(tx, e)
	})
}
