package tenant

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// trust is what the tenant itself believes of signatures: its roots, as the
// custodian showed them, and the bundle made from them.
//
// Until the custodian has answered once in the life of this process, the roots
// are those last noted in the store. The store is not trusted, but nothing can
// be released in that time: only refusals rest on it.
type trust struct {
	roots    atomic.Pointer[map[license.KeyID]ed25519.PublicKey]
	verifier atomic.Pointer[license.Verifier]
	// renewing is held while a bundle is signed and written, and while
	// settings change that it speaks of: each bundle has the number after the
	// one before, and says what the settings say.
	renewing sync.Mutex
}

// keys is what the ring believes generation records by.
func (t *trust) keys() (out []ed25519.PublicKey) {
	if roots := t.roots.Load(); roots != nil {
		for _, k := range *roots {
			out = append(out, k)
		}
	}
	return out
}

// verifier vouches for this tenant's own signed objects.
func (t *Tenant) verifier() verifier { return verifier{t.trust.verifier.Load()} }

// verifier is a license.Verifier that may not be there yet.
type verifier struct{ v *license.Verifier }

func (v verifier) VerifyPL(b []byte) (*license.PublishingLicense, error) {
	if v.v == nil {
		return nil, notServedYet()
	}
	return v.v.VerifyPL(b)
}

func (v verifier) VerifyTemplate(b []byte) (*license.TemplateRevision, error) {
	if v.v == nil {
		return nil, notServedYet()
	}
	return v.v.VerifyTemplate(b)
}

func notServedYet() error {
	return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the tenant's custodian has not answered since the tenant was made").
		WithNext("Try again when it does")
}

// loadTrust takes over roots and bundle as they were last noted.
func (t *Tenant) loadTrust(ctx context.Context) error {
	t.adoptRoots()
	var raw []byte
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		raw, err = record.GetBundle(r, t.id)
		return err
	}); err != nil || raw == nil {
		return err
	}
	v, err := license.NewVerifier(raw, t.id, t.rootIDs(), 0)
	if err != nil {
		return vocab.Errorf(vocab.ReasonStoreDamaged, "the tenant's trust bundle in the store is not one of its roots'").Because(err)
	}
	t.trust.verifier.Store(v)
	return nil
}

// adoptRoots believes the signing keys that the custodians of the registered
// keys have shown.
func (t *Tenant) adoptRoots() {
	roots := map[license.KeyID]ed25519.PublicKey{}
	for _, k := range t.live.registered() {
		for _, key := range k.SignKeys {
			public := ed25519.PublicKey(key[:])
			roots[license.KeyIDOf(public)] = public
		}
	}
	t.trust.roots.Store(&roots)
}

func (t *Tenant) rootIDs() (ids []license.KeyID) {
	for id := range *t.trust.roots.Load() {
		ids = append(ids, id)
	}
	return ids
}

// suites are the least suites of the tenant's bundle.
func suites(s record.Settings) license.Suites {
	out := license.DefaultSuites()
	if s.AllowX25519 {
		out.KEMs = append(out.KEMs, license.X25519)
	}
	return out
}

// AllowedKEMs returns the recipient keys the tenant takes.
func (t *Tenant) AllowedKEMs() []license.KEM { return suites(*t.settings.Load()).KEMs }

// ensureBundle makes a new trust bundle if there is none, if it says something
// that is no longer so, or if it promised its successor within half its life.
func (t *Tenant) ensureBundle(ctx context.Context, f *keys.Facts) error {
	t.trust.renewing.Lock()
	defer t.trust.renewing.Unlock()
	settings := *t.settings.Load()
	if v := t.trust.verifier.Load(); v != nil {
		prior := v.Bundle()
		root, ok := f.Sign.PublicKey(0)
		current, known := prior.Root(license.KeyIDOf(root))
		if ok && known && current.State == license.RootCurrent && sameKEMs(prior.Suites.KEMs, suites(settings).KEMs) &&
			prior.NextUpdate.Sub(t.now()) > keys.BundleLife/2 {
			return nil
		}
	}
	v, err := t.nextBundle(ctx, t.active(), f, settings, nil)
	if err != nil {
		return err
	}
	return t.store.Commit(ctx, func(tx store.Tx) error { return t.putBundle(tx, v) })
}

// nextBundle has the bundle after the current one signed by a key whose facts
// these are, with what settings say; by previous too, if the current root was
// another custodian's. It is called while renewing is held.
func (t *Tenant) nextBundle(ctx context.Context, c keys.Custodian, f *keys.Facts, s record.Settings, previous license.Signer) (*license.Verifier, error) {
	mark, err := (*keyRecords)(t).Mark(ctx, c.ID())
	if err != nil {
		return nil, err
	}
	var prior *license.Bundle
	template := license.Bundle{Tenant: t.id, Seq: 1, Suites: suites(s)}
	if v := t.trust.verifier.Load(); v != nil {
		prior = v.Bundle()
		template.Seq = prior.Seq + 1
		template.RevokedCertificates = prior.RevokedCertificates
	}
	b, err := keys.NewBundle(ctx, c, f, mark, template, prior, previous, t.now())
	if err != nil {
		return nil, err
	}
	return license.NewVerifier(b.Raw(), t.id, t.rootIDs(), template.Seq)
}

// putBundle writes a bundle and its event in the caller's transaction; it is
// believed when that is durable. It is called while renewing is held.
func (t *Tenant) putBundle(tx store.Tx, v *license.Verifier) error {
	e := t.newEvent(audit.KindBundlePublished, Call{}, t.now())
	_, active := t.live.activeKey()
	if active != nil {
		e.Custodian = active.ID
	}
	if err := record.PutBundle(tx, t.id, v.Bundle().Raw()); err != nil {
		return err
	}
	// Whoever pinned the root before must find the way also when that root signs
	// nothing any more.
	if before := t.trust.verifier.Load(); before != nil && currentRoot(before) != currentRoot(v) {
		if err := record.PutTransition(tx, t.id, v.Bundle().Seq, v.Bundle().Raw()); err != nil {
			return err
		}
	}
	tx.AfterCommit(func() { t.trust.verifier.Store(v) })
	return t.log.Append(tx, e)
}

// currentRoot is the root that signs what is new.
func currentRoot(v *license.Verifier) license.KeyID {
	for _, r := range v.Bundle().Roots {
		if r.State == license.RootCurrent {
			return r.ID()
		}
	}
	return license.KeyID{}
}

// maxTransitions bounds how many changes of root a client is led along.
const maxTransitions = 32

func sameKEMs(a, b []license.KEM) bool {
	set := map[license.KEM]bool{}
	for _, k := range a {
		set[k] = true
	}
	for _, k := range b {
		if !set[k] {
			return false
		}
	}
	return len(set) == len(b)
}

// PublicTrust is what a client must know, and pin, before it signs in.
type PublicTrust struct {
	Roots               []license.KeyID // the current one first
	Bundle, Certificate []byte
	LogKey              string
	LogCertificate      []byte
	// Transitions are the bundles with which the tenant changed its root, oldest
	// first.
	Transitions [][]byte
}

// Trust returns the tenant's public trust material.
func (t *Tenant) Trust(ctx context.Context) (*PublicTrust, error) {
	v := t.trust.verifier.Load()
	if v == nil {
		return nil, t.unavailable()
	}
	b := v.Bundle()
	out := &PublicTrust{Bundle: b.Raw()}
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		out.Transitions, err = record.ListTransitions(r, t.id, maxTransitions)
		return err
	}); err != nil {
		return nil, err
	}
	for _, state := range []license.RootState{license.RootCurrent, license.RootPrevious} {
		for _, r := range b.Roots {
			if r.State == state {
				out.Roots = append(out.Roots, r.ID())
			}
		}
	}
	if s, err := t.chain.Licenses(); err == nil {
		out.Certificate = s.Certificate.Raw()
	}
	if s, err := t.chain.Checkpoints(); err == nil {
		out.LogCertificate = s.Certificate.Raw()
		if key, err := audit.Verifier(t.id, s.Signer.PublicKey()); err == nil {
			out.LogKey = fmt.Sprintf("%s+%08x", key.Name(), key.KeyHash())
		}
	}
	return out, nil
}

// unavailable is why the tenant does not serve.
func (t *Tenant) unavailable() error {
	if err := t.State().Err; err != nil {
		return err
	}
	return notServedYet()
}

// bringUp looks at the custodian and makes what is missing: the first
// generation, the trust bundle, the daemon's signing keys. These it makes only
// for a log that is the one it was.
func (t *Tenant) bringUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	facts, err := t.look(ctx)
	if err != nil {
		return err
	}
	if len(t.ring.Inventory()) == 0 {
		if _, err := t.ring.NewGeneration(ctx); err != nil {
			return err
		}
	}
	if err := t.ensureBundle(ctx, facts); err != nil {
		return err
	}
	if err := t.verifyExported(ctx); err != nil {
		return t.alarm(ctx, t.active().ID(), err)
	}
	if err := t.ensureSigner(ctx); err != nil {
		return err
	}
	if t.frozen() != nil {
		return nil // nothing new is made under a newer version
	}
	return t.followKey(ctx)
}

// look asks the custodians what they are and which keys they have now, past
// every cache, and records what changed there. The ring looks first: it is what
// drops and bars the keys of a custodian that refuses, is unsafe or was
// exchanged. The tenant serves if the active key is in order; what is wrong with
// another one is an alarm, and in [Tenant.Keys].
func (t *Tenant) look(ctx context.Context) (*keys.Facts, error) {
	changes, err := t.ring.Sync(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.claimInTime(ctx); err != nil {
		return nil, err
	}
	if err := t.alarmLosses(ctx, changes); err != nil {
		return nil, err
	}
	active := t.active()
	for _, c := range t.openedKeys() {
		if c.ID() == active.ID() {
			continue
		}
		if _, k := t.live.keyByID(c.ID()); k != nil && keys.State(k.State) == keys.Destroyed {
			if _, err := t.lookGone(ctx, c); err != nil {
				t.logger.Info("it is not known whether a destroyed key is still there", "tenant", t.name, "key", t.keyNameOf(c.ID()), "error", err)
			}
			continue
		}
		err := t.orVanished(ctx, c, changes[c.ID()].Err)
		if err == nil {
			err = c.Check(ctx)
		}
		if err := t.noteFault(ctx, c.ID(), err); err != nil {
			return nil, err
		}
	}
	change := changes[active.ID()]
	if change.Err != nil {
		return nil, t.alarm(ctx, active.ID(), t.orVanished(ctx, active, change.Err))
	}
	if err := active.Check(ctx); err != nil {
		if keys.IsRefusal(err) {
			t.ring.Flush() // what may not be used now is not kept for later
		}
		return nil, t.alarm(ctx, active.ID(), err)
	}
	return change.Facts, nil
}

// ensureSigner renews the daemon's signing keys at half their life.
func (t *Tenant) ensureSigner(ctx context.Context) error {
	if s, err := t.chain.Licenses(); err == nil && s.Certificate.NotAfter.Sub(t.now()) > keys.CertificateLife/2 {
		return nil
	}
	if err := t.chain.Renew(ctx); err != nil {
		return err
	}
	e := t.newEvent(audit.KindSignerCertified, Call{}, t.now())
	e.Custodian = t.active().ID()
	if s, err := t.chain.Licenses(); err == nil {
		e.Target, e.NotAfter = "certificate "+s.Certificate.ID.String(), s.Certificate.NotAfter
	}
	return t.commit(ctx, func(store.Tx) error { return nil }, e)
}
