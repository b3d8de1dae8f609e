package tenant

import (
	"context"
	"errors"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Settings returns the settings in force.
func (t *Tenant) Settings() record.Settings { return *t.settings.Load() }

// UpdateSettings changes the settings: edit gets the current ones, more than
// once if somebody else changes them meanwhile. want is the revision the edit
// is based on, unless anyRevision.
//
// What the trust bundle says of the settings it says when the call returns: a
// change of the allowed recipient keys takes effect together with a newly
// signed bundle or, if the custodian cannot sign one now, not at all.
//
// A change that lowers custody is not written: it is under dual control, and
// APPROVAL_REQUIRED names the operation.
func (t *Tenant) UpdateSettings(ctx context.Context, c Call, want uint32, anyRevision bool, edit func(*record.Settings) error) (record.Settings, vocab.EventID, error) {
	e := t.newEvent(audit.KindSettingsChanged, c, t.now())
	e.Target = "settings"
	change := func(r store.Reader) (from, to record.Settings, err error) {
		if from, err = record.GetSettings(r, t.id); err != nil {
			return from, to, err
		}
		if !anyRevision && from.Revision != want {
			return from, to, conflict("settings", "somebody else", from.Revision, want)
		}
		to = from
		if err := edit(&to); err != nil {
			return from, to, err
		}
		to.Revision++
		to.LastEvent = e.ID
		if err := checkSettings(to); err != nil {
			return from, to, err
		}
		if lowers(from, to) {
			return from, to, lowering{from, to}
		}
		return from, to, nil
	}
	var out record.Settings
	err := errStale
	for range maxAttempts {
		if out, err = t.writeSettings(ctx, e, change); err != errStale { //nolint:errorlint // our own sentinel, unwrapped
			break
		}
	}
	if err == errStale { //nolint:errorlint // our own sentinel, unwrapped
		err = tooBusy()
	}
	if l, ok := errors.AsType[lowering](err); ok {
		err = t.requestCustody(ctx, c, l)
	}
	if err != nil {
		return record.Settings{}, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	return out, e.ID, nil
}

// writeSettings makes one attempt at a change. Where the trust bundle must
// follow, it is signed before the transaction, which then finds out whether
// the settings are still those it was signed for.
func (t *Tenant) writeSettings(ctx context.Context, e *audit.Event, change func(store.Reader) (from, to record.Settings, err error)) (record.Settings, error) {
	var from, to record.Settings
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		from, to, err = change(r)
		return err
	}); err != nil {
		return to, err
	}
	var successor *license.Verifier
	if !slices.Equal(suites(from).KEMs, suites(to).KEMs) {
		t.trust.renewing.Lock()
		defer t.trust.renewing.Unlock()
		facts, err := t.look(ctx)
		if err != nil {
			return to, err
		}
		if successor, err = t.nextBundle(ctx, t.active(), facts, to, nil); err != nil {
			return to, err
		}
	}
	base := from.Revision
	err := t.commit(ctx, func(tx store.Tx) (err error) {
		if from, to, err = change(tx); err != nil {
			return err
		}
		if from.Revision != base {
			return errStale
		}
		if err := record.PutSettings(tx, t.id, to); err != nil {
			return err
		}
		if e.State, err = to.State(); err != nil {
			return err
		}
		if err := t.resealEverything(tx, from, to, e.Principal); err != nil {
			return err
		}
		if successor != nil {
			if err := t.putBundle(tx, successor); err != nil {
				return err
			}
		}
		adopted := to
		tx.AfterCommit(func() { t.adopt(adopted) })
		return nil
	}, e)
	return to, err
}

// adopt puts settings into force, unless newer ones are.
func (t *Tenant) adopt(s record.Settings) {
	for {
		current := t.settings.Load()
		if current != nil && current.Revision > s.Revision {
			return
		}
		if t.settings.CompareAndSwap(current, &s) {
			if err := t.ring.SetLimits(keys.Limits{TTL: s.CacheTTL, Grace: s.OutageGrace}); err != nil {
				t.logger.Error("key limits were not taken over", "tenant", t.name, "error", err)
			}
			return
		}
	}
}

func checkSettings(s record.Settings) error {
	bad := func(format string, args ...any) error {
		return vocab.Errorf(vocab.ReasonRequestInvalid, format, args...)
	}
	switch {
	case s.MaxOffline < 0 || s.MaxOffline > policy.MaxPeriod:
		return bad("offline_max must be between 0 and %d days", int(policy.MaxPeriod/policy.Day))
	case s.CacheTTL < record.MinCacheTTL || s.CacheTTL > record.MaxCacheTTL:
		return bad("cache_ttl must be between %s and %s", record.MinCacheTTL, record.MaxCacheTTL)
	case s.OutageGrace < 0 || s.OutageGrace > record.MaxOutageGrace:
		return bad("outage_grace must be between 0 and %s", record.MaxOutageGrace)
	case !s.Custody.Valid():
		return bad("custody_mode must be cached or strict")
	case s.TokenAgeMax < 0:
		return bad("token_age_max must not be negative")
	}
	for _, d := range s.GuestDomains {
		if c, err := vocab.CanonicalDomain(d); err != nil || c != d {
			return bad("guest_domains: %q is not a domain in lower case", d)
		}
	}
	return nil
}
