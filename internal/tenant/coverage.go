package tenant

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

const (
	// MaxCoveredUses bounds how many use licenses a coverage names.
	MaxCoveredUses = 100
	// maxCounted bounds what is looked at for a coverage: licenses, and use
	// licenses.
	maxCounted = 20_000
	// countedAtOnce is how many licenses are looked at in one snapshot.
	countedAtOnce = 500
	// idMargin is how far the time in a content ID may lie from when its
	// license was published. Both are the daemon's clock in the same call.
	idMargin = 24 * time.Hour
)

// Coverage is what a revocation by rule covers now.
type Coverage struct {
	// Licenses is how many licenses meet the conditions, whoever the caller.
	Licenses int64
	// MoreLicenses says that there may be more: not all were looked at.
	MoreLicenses bool
	// Uses are use licenses that may still open, those that end last first:
	// at most MaxCoveredUses of UseCount.
	Uses     []CoveredUse
	UseCount int
	// MoreUses says that there may be more: not all were looked at, or nobody
	// can tell whose they are.
	MoreUses bool
}

// CoveredUse is a use license that was given out to be kept, of a license that
// is covered.
type CoveredUse struct {
	record.Use
	Content vocab.ContentID
}

// coverage counts. Where an index knows how many licenses there are the number
// is exact; otherwise they are looked at, the newest first, up to a bound.
func (t *Tenant) coverage(ctx context.Context, rule *policy.RevocationRule) (*Coverage, error) {
	c := &counting{t: t, rule: rule, now: t.now(), oldest: rule.From}
	if made := rule.Lineage.Time(); !rule.Lineage.IsZero() && made.After(c.oldest) {
		c.oldest = made // what was made from it is not older
	}
	exact, err := c.fromIndex(ctx)
	if err != nil {
		return nil, err
	}
	var visit []func(store.Reader, *record.License) error
	if !exact {
		visit = append(visit, c.license)
	}
	// Licenses lead to their use licenses. Where no index narrows them down,
	// use licenses are fewer than licenses and lead to these.
	byLicense := !rule.Owner.IsZero() || !rule.Template.IsZero()
	if byLicense {
		visit = append(visit, c.uses)
	}
	var cut bool
	if len(visit) > 0 {
		if cut, err = c.walk(ctx, c.licenses, visit...); err != nil {
			return nil, err
		}
		c.MoreLicenses = cut && !exact
	}
	if !byLicense {
		if cut, err = c.walk(ctx, c.used, c.uses); err != nil {
			return nil, err
		}
	}
	c.MoreUses = c.MoreUses || cut
	// People are known to the use licenses by one name, and groups not at all.
	if k := rule.Principal.Kind; !rule.Principal.IsZero() && k != vocab.KindService {
		c.MoreUses = true
	}
	slices.SortStableFunc(c.Uses, func(a, b CoveredUse) int { return b.NotAfter.Compare(a.NotAfter) })
	c.Uses = c.Uses[:min(len(c.Uses), MaxCoveredUses)]
	return &c.Coverage, nil
}

// counting is a coverage in the making.
type counting struct {
	Coverage
	t      *Tenant
	rule   *policy.RevocationRule
	now    time.Time
	oldest time.Time // nothing that was published before is covered; zero: it may be
	rows   int       // use licenses looked at
}

// fromIndex counts the licenses if an index knows how many there are.
func (c *counting) fromIndex(ctx context.Context) (exact bool, err error) {
	owner, template := !c.rule.Owner.IsZero(), !c.rule.Template.IsZero()
	if owner && template || c.rule.Scope()&(policy.RevokedPeriod|policy.RevokedLineage) != 0 {
		return false, nil
	}
	err = c.t.store.View(ctx, func(r store.Reader) (err error) {
		switch {
		case owner:
			c.Licenses, err = record.CountByOwner(r, c.t.id, c.rule.Owner)
		case template:
			c.Licenses, err = record.CountByTemplate(r, c.t.id, c.rule.Template)
		default:
			c.Licenses, err = record.CountLicenses(r, c.t.id)
		}
		return err
	})
	return true, err
}

// pager reads the next licenses before one, newest first, and returns where to
// go on: zero at the end.
type pager func(r store.Reader, before vocab.ContentID) ([]*record.License, vocab.ContentID, error)

// walk visits the licenses that are covered, and says whether it ended before
// all were looked at.
func (c *counting) walk(ctx context.Context, page pager, visit ...func(store.Reader, *record.License) error) (cut bool, err error) {
	var before vocab.ContentID
	if !c.rule.Until.IsZero() {
		before = idAfter(c.rule.Until.Add(idMargin))
	}
	for looked := 0; looked < maxCounted; looked += countedAtOnce {
		err := c.t.store.View(ctx, func(r store.Reader) error {
			list, next, err := page(r, before)
			if err != nil {
				return err
			}
			before = next
			for _, l := range list {
				covered, err := c.covers(r, l)
				if err != nil {
					return err
				}
				for i := 0; covered && i < len(visit); i++ {
					if err := visit[i](r, l); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		if before.IsZero() || !c.oldest.IsZero() && before.Time().Before(c.oldest.Add(-idMargin)) {
			return false, nil
		}
	}
	return true, nil
}

// idAfter is greater than every content ID that was made before an instant.
func idAfter(t time.Time) (c vocab.ContentID) {
	binary.BigEndian.PutUint64(c[:], uint64(t.UnixMilli())<<16)
	return c
}

// licenses reads licenses, by owner or template where the rule names one.
func (c *counting) licenses(r store.Reader, before vocab.ContentID) ([]*record.License, vocab.ContentID, error) {
	q := record.ListQuery{Owner: c.rule.Owner, Before: before, Limit: countedAtOnce}
	if q.Owner.IsZero() {
		q.Template = c.rule.Template
	}
	return record.ListLicenses(r, c.t.id, q)
}

// used reads licenses that use licenses were given out for.
func (c *counting) used(r store.Reader, before vocab.ContentID) (list []*record.License, next vocab.ContentID, err error) {
	for range countedAtOnce {
		if before, err = record.NextUsed(r, c.t.id, before); err != nil || before.IsZero() {
			return list, before, err
		}
		l, err := record.GetLicense(r, c.t.id, before)
		if err != nil {
			return nil, before, err
		}
		if l != nil && l.Tombstone == 0 {
			list = append(list, l)
		}
	}
	return list, before, nil
}

func (c *counting) covers(r store.Reader, l *record.License) (bool, error) {
	p, err := l.DecodePolicy()
	if err != nil {
		return false, err
	}
	in := inputs{record: l, policy: p}
	if !c.rule.Lineage.IsZero() {
		if in.lineage, err = c.t.lineageOf(r, p); err != nil {
			return false, err
		}
	}
	what := in.revocable()
	return c.rule.CoversLicense(&what), nil
}

// license counts one.
func (c *counting) license(store.Reader, *record.License) error {
	c.Licenses++
	return nil
}

// uses counts the use licenses of a license that the revocation is for.
func (c *counting) uses(r store.Reader, l *record.License) error {
	return record.EachUse(r, c.t.id, l.Content, c.now, func(u record.Use) bool {
		if c.rows == maxCounted {
			c.MoreUses = true
			return false
		}
		c.rows++
		if c.t.isFor(c.rule.Principal, u.Principal) {
			c.UseCount++
			c.Uses = append(c.Uses, CoveredUse{Use: u, Content: l.Content})
		}
		return true
	})
}

// isFor reports whether somebody, as a use license names them, is a principal;
// everybody is none. It knows the groups of the tenant's directory alone.
func (t *Tenant) isFor(p vocab.Principal, name string) bool {
	who := vocab.Principal{Kind: vocab.KindUser, Value: name}
	if service, ok := strings.CutPrefix(name, "service:"); ok {
		who = vocab.Principal{Kind: vocab.KindService, Value: service}
	}
	switch p.Kind {
	case vocab.KindGroup:
		t.live.mu.RLock()
		defer t.live.mu.RUnlock()
		return slices.Contains(t.live.directory.Groups([]vocab.Principal{who}), p.Value)
	case vocab.KindDomain:
		return who.Kind == vocab.KindUser && vocab.DomainOf(name) == p.Value
	default:
		return p.IsZero() || p == who
	}
}
