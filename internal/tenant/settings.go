package tenant

import (
	"context"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Settings returns the settings in force.
func (t *Tenant) Settings() record.Settings { return *t.settings.Load() }

// UpdateSettings changes the settings: edit gets the current ones. want is the
// revision the edit is based on, unless anyRevision.
func (t *Tenant) UpdateSettings(ctx context.Context, c Call, want uint32, anyRevision bool, edit func(*record.Settings) error) (record.Settings, vocab.EventID, error) {
	e := t.newEvent(audit.KindSettingsChanged, c, t.now())
	e.Target = "settings"
	var out record.Settings
	err := t.commit(ctx, func(tx store.Tx) error {
		s, err := record.GetSettings(tx, t.id)
		if err != nil {
			return err
		}
		if !anyRevision && s.Revision != want {
			return conflict("settings", "somebody else", s.Revision, want)
		}
		if err := edit(&s); err != nil {
			return err
		}
		if err := checkSettings(s); err != nil {
			return err
		}
		s.Revision++
		if err := record.PutSettings(tx, t.id, s); err != nil {
			return err
		}
		out = s
		tx.AfterCommit(func() { t.adopt(s) })
		return nil
	}, e)
	if err != nil {
		return record.Settings{}, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	return out, e.ID, nil
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
