package tenant

import (
	"context"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Principal is a user or a service as the tenant's resources know it.
type Principal struct {
	Principal vocab.Principal
	// Disabled says why it was disabled; nil if it is not.
	Disabled *record.Disabled
	// Written is of the disabling.
	Written
	// Groups are those of the tenant's directory that it is in, sorted: the first
	// MaxNamed of them.
	Groups []string
	// Roles are those it holds, by name or through a group of the directory.
	Roles []vocab.Role
}

// GetPrincipal returns what is known of a principal. That an identity provider
// knows somebody of the name, it does not say.
func (t *Tenant) GetPrincipal(ctx context.Context, p vocab.Principal) (out *Principal, err error) {
	if err := canBeDisabled(p); err != nil {
		return nil, err
	}
	err = t.store.View(ctx, func(r store.Reader) error {
		out, err = t.principal(r, p)
		return err
	})
	return out, err
}

func (t *Tenant) principal(r store.Reader, p vocab.Principal) (*Principal, error) {
	out := t.placed(p)
	s, err := t.resource(r, record.PrefixPrincipals+p.String())
	if err != nil || s == nil {
		return out, err
	}
	if out.Disabled, err = record.DecodeDisabled(s.Body); err != nil {
		return nil, err
	}
	out.Written, err = t.written(r, s)
	return out, err
}

// placed says where a principal stands in the directory.
func (t *Tenant) placed(p vocab.Principal) *Principal {
	groups := t.within(p)
	out := &Principal{Principal: p, Groups: named(groups)}
	for _, role := range vocab.Roles() {
		holders, _ := t.holders(role)
		if slices.Contains(holders, p) || slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(holders, directory.Group(g)) }) {
			out.Roles = append(out.Roles, role)
		}
	}
	return out
}

// canBeDisabled refuses principals that are not one person or program.
func canBeDisabled(p vocab.Principal) error {
	if p.Kind != vocab.KindUser && p.Kind != vocab.KindService {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "%s is neither a user nor a service", p).WithNext("Name one person or service")
	}
	return nil
}

// ListDisabled returns up to limit disabled principals after one, in order, and
// whether there are more.
func (t *Tenant) ListDisabled(ctx context.Context, after string, limit int) (out []*Principal, more bool, err error) {
	p := page{limit: limit}
	err = t.store.View(ctx, func(r store.Reader) error {
		return eachThere(r, t.id, record.PrefixPrincipals, after, func(s *record.Resource) (bool, error) {
			who, err := vocab.ParsePrincipal(s.ID())
			if err != nil {
				return false, contradicts(s.Name)
			}
			one, err := t.principal(r, who)
			if err != nil || !p.fits(len(s.Body)+length(one.Groups)) {
				return false, err
			}
			out = append(out, one)
			return true, nil
		})
	})
	return out, p.more, err
}

// DisablePrincipal stops a person or service: when it returns, no call of theirs
// succeeds, on no connection, and their streams have ended. It holds for whoever
// signs in with the address among their verified ones, and for a service also
// when it acts for somebody else.
func (t *Tenant) DisablePrincipal(ctx context.Context, c Call, p vocab.Principal, reason string) (*Principal, vocab.EventID, error) {
	err := canBeDisabled(p)
	if err == nil && !policy.PlainText(reason, policy.MaxText) {
		err = vocab.Errorf(vocab.ReasonRequestInvalid, "the reason is too long or not plain text in normal form (NFC)")
	}
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	out := t.placed(p)
	out.Disabled = &record.Disabled{By: c.Caller.Name(), Reason: reason}
	s, event, err := t.changeResource(ctx, c, audit.KindPrincipalDisabled, record.PrefixPrincipals+p.String(), func(_ store.Reader, _ *record.Resource, e *audit.Event) ([]byte, error) {
		if slices.Contains(names(c.Caller), p) {
			return nil, vocab.Errorf(vocab.ReasonSamePerson, "you cannot disable yourself: there would be no way back").
				WithNext("Ask another tenant-admin")
		}
		e.Detail = reason
		return out.Disabled.Encode()
	})
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	out.Written = Written{Revision: s.Revision, Time: s.Updated.Time(), Author: c.Caller.Name()}
	return out, event, nil
}

// EnablePrincipal takes a disabling back.
func (t *Tenant) EnablePrincipal(ctx context.Context, c Call, p vocab.Principal) (*Principal, vocab.EventID, error) {
	if err := canBeDisabled(p); err != nil {
		return nil, vocab.EventID{}, err
	}
	_, event, err := t.changeResource(ctx, c, audit.KindPrincipalEnabled, record.PrefixPrincipals+p.String(), func(_ store.Reader, now *record.Resource, _ *audit.Event) ([]byte, error) {
		if now == nil {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "%s is not disabled", p)
		}
		return nil, nil
	})
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	return t.placed(p), event, nil
}

// UsesOf returns the use licenses with which a principal may still open what
// they were given for: at most limit of them, those that end last first, and how
// many there are.
func (t *Tenant) UsesOf(ctx context.Context, p vocab.Principal, limit int) (uses []record.UseOf, total int, err error) {
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		uses, total, err = record.ListUsesOf(r, t.id, p, t.now(), limit)
		return err
	})
	return uses, total, err
}
