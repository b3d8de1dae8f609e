package tenant

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// LicenseView is a license as its owner and administrators see it.
type LicenseView struct {
	Record *record.License
	Policy *policy.Policy
	// TemplateSlug names the template the policy follows; empty if ad hoc.
	TemplateSlug string
	// Rules are the revocations of more than one license that keep everybody
	// from opening it, by the events that made them, the oldest first.
	Rules []vocab.EventID

	lineage lineage // known only while a revocation asks for it
	epoch   uint64  // of the resources that Rules was worked out from
	atEpoch bool    // a change of the license rests on them
}

// Authorize lets a caller at a license, or returns the error for one who may
// not know that it is there. The door provides it.
type Authorize func(owner vocab.Principal) error

// license reads a license that is neither missing nor deleted.
func (t *Tenant) license(r store.Reader, c vocab.ContentID) (*LicenseView, error) {
	l, err := t.licenseRecord(r, c)
	if err != nil {
		return nil, err
	}
	return t.view(r, l)
}

// licenseRecord is license without what is shown beside the record.
func (t *Tenant) licenseRecord(r store.Reader, c vocab.ContentID) (*record.License, error) {
	l, err := record.GetLicense(r, t.id, c)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, NoSuchLicense()
	}
	if _, err := t.verifyRecord(r, l); err != nil {
		return nil, err
	}
	if l.Tombstone != 0 {
		return nil, NoSuchLicense()
	}
	return l, nil
}

func (t *Tenant) view(r store.Reader, l *record.License) (*LicenseView, error) {
	p, err := l.DecodePolicy()
	if err != nil {
		return nil, err
	}
	v := &LicenseView{Record: l, Policy: p}
	if !p.Template.IsZero() {
		head, err := record.GetTemplate(r, t.id, p.Template)
		if err != nil {
			return nil, err
		}
		if head != nil {
			v.TemplateSlug = head.Slug
		}
	}
	return v, t.rulesOn(r, v)
}

// GetLicense returns a license to whom authorize lets at it.
func (t *Tenant) GetLicense(ctx context.Context, c vocab.ContentID, authorize Authorize) (v *LicenseView, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		if v, err = t.license(r, c); err != nil {
			return err
		}
		return authorize(v.Policy.Owner)
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// LicenseFilter selects licenses; everything set must hold.
type LicenseFilter struct {
	// Owners are whose licenses; none: everybody's.
	Owners   []vocab.Principal
	Template string // slug
	Title    string // contained, ignoring ASCII case
}

// ListLicenses returns up to limit licenses before a content ID (zero: from
// the newest), newest first, and the ID to go on before, zero at the end.
func (t *Tenant) ListLicenses(ctx context.Context, f LicenseFilter, before vocab.ContentID, limit int) (out []*LicenseView, next vocab.ContentID, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		var wanted vocab.TemplateUID
		if f.Template != "" {
			if wanted, err = record.FindTemplate(r, t.id, f.Template); err != nil {
				return err
			}
			if wanted.IsZero() {
				return noTemplate(f.Template)
			}
		}
		title := strings.ToLower(f.Title)
		var problem error
		match := func(l *record.License) bool {
			if title != "" && !strings.Contains(strings.ToLower(l.Title), title) {
				return false
			}
			p, err := l.DecodePolicy()
			if err != nil {
				problem = err
				return false
			}
			// The owner's index holds a hash: the record says who it is.
			return (wanted.IsZero() || p.Template == wanted) && (len(f.Owners) == 0 || slices.Contains(f.Owners, p.Owner))
		}
		queries := []record.ListQuery{{Template: wanted}}
		if len(f.Owners) > 0 {
			queries = nil
			for _, owner := range f.Owners {
				queries = append(queries, record.ListQuery{Owner: owner})
			}
		}
		for i := range queries {
			queries[i].Before, queries[i].Limit, queries[i].Match = before, limit, match
		}
		page, n, err := listTogether(r, t.id, queries, limit)
		if err := firstError(err, problem); err != nil {
			return err
		}
		next = n
		for _, l := range page {
			v, err := t.view(r, l)
			if err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return out, next, err
}

// listTogether makes one listing of several that share no license: newest first,
// up to limit, and the content ID to go on before.
func listTogether(r store.Reader, t vocab.TenantID, queries []record.ListQuery, limit int) (page []*record.License, next vocab.ContentID, err error) {
	for _, q := range queries {
		found, n, err := record.ListLicenses(r, t, q)
		if err != nil {
			return nil, next, err
		}
		page = append(page, found...)
		// Of this one there may be more before n, so that the others count
		// down to n only.
		if bytes.Compare(n[:], next[:]) > 0 {
			next = n
		}
	}
	slices.SortFunc(page, func(a, b *record.License) int { return bytes.Compare(b.Content[:], a.Content[:]) })
	page = slices.DeleteFunc(page, func(l *record.License) bool { return bytes.Compare(l.Content[:], next[:]) < 0 })
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].Content
	}
	return page, next, nil
}

// LicenseEdit is what may be changed of a license; nil fields stay.
type LicenseEdit struct {
	AdHoc    *policy.AdHoc
	Owner    *vocab.Principal
	NotAfter *time.Time
	Title    *string
	Contact  *string
	// ByOwner says that the caller acts as the owner, not as an
	// administrator.
	ByOwner bool
}

// touchesPolicy reports whether the edit changes what the key box is bound to.
func (e *LicenseEdit) touchesPolicy() bool {
	return e.AdHoc != nil || e.Owner != nil || e.NotAfter != nil
}

// apply returns the policy after the edit.
func (e *LicenseEdit) apply(p *policy.Policy, now time.Time) (*policy.Policy, error) {
	next := *p
	if e.AdHoc != nil {
		if p.AdHoc == nil {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the license follows a template").
				WithNext("Edit the template, or protect the document again")
		}
		next.AdHoc = e.AdHoc
	}
	if e.Owner != nil {
		next.Owner = *e.Owner
	}
	if e.NotAfter != nil {
		if p.AdHoc == nil {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the license expires as its template says").
				WithNext("Edit the template, or protect the document again")
		}
		if !e.NotAfter.IsZero() && !e.NotAfter.After(now) {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the content expiry is not in the future").WithNext("Revoke the license instead")
		}
		next.NotAfter = *e.NotAfter
	}
	return &next, next.Validate()
}

// UpdateLicense changes a license. A change of policy seals the content key
// anew, which for strict licenses needs the custodian. want is the revision
// the edit is based on, unless anyRevision. A change by which somebody who is
// not the owner gains access is not written: it is asked for, and
// APPROVAL_REQUIRED names the operation.
func (t *Tenant) UpdateLicense(ctx context.Context, c Call, id vocab.ContentID, want uint32, anyRevision bool, edit LicenseEdit, authorize Authorize) (*LicenseView, vocab.EventID, error) {
	return t.changeLicense(ctx, c, id, audit.KindLicenseEdited, authorize, func(v *LicenseView, e *audit.Event) (*record.License, error) {
		if !anyRevision && v.Record.Revision != want {
			return nil, conflict("license", "somebody else", v.Record.Revision, want)
		}
		if edit.Owner != nil && edit.ByOwner {
			if err := t.mayGiveAway(v); err != nil {
				return nil, err
			}
		}
		next := *v.Record
		if edit.Title != nil {
			next.Title = *edit.Title
		}
		if edit.Contact != nil {
			next.Contact = *edit.Contact
		}
		if edit.touchesPolicy() {
			p, err := edit.apply(v.Policy, e.Time)
			if err != nil {
				return nil, err
			}
			if next.Policy, err = license.EncodePolicy(p); err != nil {
				return nil, err
			}
			if t.gainsByLicense(c.Caller, v.Policy, p, e.Time) {
				return nil, t.requestLicense(ctx, c, v, &next)
			}
			if err := t.resealKeyBox(ctx, v.Record, &next, e); err != nil {
				return nil, err
			}
		}
		return &next, nil
	})
}

// RevokeLicense stops every further open. It touches no key, so it works while
// the custodian is away. Of one that is revoked already it stays on record who
// did it first, for whoever revoked it may restore it alone.
func (t *Tenant) RevokeLicense(ctx context.Context, c Call, id vocab.ContentID, reason string, authorize Authorize) (*LicenseView, vocab.EventID, error) {
	return t.changeLicense(ctx, c, id, audit.KindLicenseRevoked, authorize, func(v *LicenseView, e *audit.Event) (*record.License, error) {
		next := *v.Record
		e.Detail = reason
		if next.Revoked == nil {
			next.Revoked = &record.Revocation{At: record.ToMillis(e.Time), By: c.Caller.Name(), Reason: reason}
		}
		return &next, nil
	})
}

// RestoreLicense takes a revocation back. One that somebody else made is not
// taken back by an administrator who could then open the document: SAME_PERSON.
func (t *Tenant) RestoreLicense(ctx context.Context, c Call, id vocab.ContentID, authorize Authorize) (*LicenseView, vocab.EventID, error) {
	return t.changeLicense(ctx, c, id, audit.KindLicenseRestored, authorize, func(v *LicenseView, _ *audit.Event) (*record.License, error) {
		if v.Record.Revoked == nil && len(v.Rules) > 0 {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the license is not revoked by itself, but together with others").
				WithNext("Take back %s%s", record.PrefixRevocations, v.Rules[0])
		}
		if v.Record.Revoked == nil {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the license is not revoked")
		}
		next := *v.Record
		next.Revoked = nil
		if t.Owns(c.Caller, v.Policy.Owner) || v.Record.Revoked.By == c.Caller.Name() {
			return &next, nil
		}
		gains, err := t.gainsByRestoring(ctx, c.Caller, id)
		if err == nil && gains {
			err = vocab.Errorf(vocab.ReasonSamePerson, "%s revoked this document, and you could open it once it is restored, which needs a second person", v.Record.Revoked.By).
				WithNext("Ask another policy-admin, or whoever revoked it, to restore it")
		}
		return &next, err
	})
}

// changeLicense is the way of every change to a license: read, authorize,
// change, and write with the event if nobody else was faster.
func (t *Tenant) changeLicense(ctx context.Context, c Call, id vocab.ContentID, kind audit.Kind, authorize Authorize,
	change func(v *LicenseView, e *audit.Event) (*record.License, error),
) (*LicenseView, vocab.EventID, error) {
	first := t.newEvent(kind, c, t.now())
	first.Content = id
	for range maxAttempts {
		// An attempt that comes to nothing leaves nothing in the event.
		own := *first
		e := &own
		v, err := t.GetLicense(ctx, id, authorize)
		if err != nil {
			return nil, vocab.EventID{}, t.refuse(ctx, e, err)
		}
		next, err := change(v, e)
		if err != nil {
			return nil, vocab.EventID{}, t.refuse(ctx, e, err)
		}
		next.Revision = v.Record.Revision + 1
		next.Updated, next.LastEvent = record.ToMillis(e.Time), e.ID
		e.LicenseRevision = next.Revision
		if e.State, err = next.State(); err != nil {
			return nil, vocab.EventID{}, err
		}
		err = t.commit(ctx, func(tx store.Tx) error {
			now, err := record.GetLicense(tx, t.id, id)
			if err != nil {
				return err
			}
			epoch, err := record.Epoch(tx, t.id)
			if err != nil {
				return err
			}
			if now == nil || now.Revision != v.Record.Revision || v.atEpoch && v.epoch != epoch {
				return errStale
			}
			return record.PutLicense(tx, t.id, next)
		}, e)
		if err == errStale { //nolint:errorlint // our own sentinel, unwrapped
			if err := t.catchUp(ctx); err != nil {
				return nil, vocab.EventID{}, err
			}
			continue
		}
		if err != nil {
			return nil, vocab.EventID{}, err
		}
		p, err := next.DecodePolicy()
		if err != nil {
			return nil, vocab.EventID{}, err
		}
		out := &LicenseView{Record: next, Policy: p, TemplateSlug: v.TemplateSlug, lineage: v.lineage}
		out.Rules = t.rulesFor(out)
		return out, e.ID, nil
	}
	return nil, vocab.EventID{}, tooBusy()
}

// CachedUses returns the use licenses of a document that may still open.
func (t *Tenant) CachedUses(ctx context.Context, id vocab.ContentID, limit int) (uses []record.Use, total int, err error) {
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		uses, total, err = record.ListUses(r, t.id, id, t.now(), limit)
		return err
	})
	return uses, total, err
}
