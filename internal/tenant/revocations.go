package tenant

import (
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// A revocation of more than one license is a rule that decisions read: it
// changes no license's record, and is one resource whose tombstone takes it
// back. What a document's own revocation is, is in its record.

// setRevocation puts a rule into force, or takes it back.
func (l *live) setRevocation(s *record.Resource) error {
	id, err := vocab.ParseEventID(s.ID())
	if err != nil {
		return contradicts(s.Name)
	}
	if s.Gone != 0 {
		l.revocations.Remove(id)
		return nil
	}
	body, err := record.DecodeRevocationRule(s.Body)
	if err == nil {
		l.revocations.Set(id, body.Rule)
	}
	return err
}

// revocable is what of a license rules look at.
func (in *inputs) revocable() policy.Revocable {
	return policy.Revocable{
		Content: in.record.Content, Policy: in.policy, Issued: in.record.Issued.Time(),
		Ancestors: in.lineage.ancestors, MoreAncestors: in.lineage.more,
	}
}

// revocations are all that cover a license and a caller. Rules that came into
// force since the caller was looked up are not told apart here: the epoch of the
// decision is then not the store's any more.
func (in *inputs) revocations(who standing) (out []policy.Revocation) {
	if in.record.Revoked != nil {
		out = append(out, policy.Revocation{Scope: policy.RevokedDocument, Event: in.record.LastEvent})
	}
	return append(out, who.covering(in.revocable())...)
}

// covering are the rules that cover a license and the caller.
func (s standing) covering(l policy.Revocable) []policy.Revocation {
	s.rules.mu.RLock()
	defer s.rules.mu.RUnlock()
	return s.rules.revocations.Covering(l, s.suspect)
}

// ruleOf is the event that made the oldest of the rules; zero if none is one.
func ruleOf(list []policy.Revocation) vocab.EventID {
	for _, r := range list {
		if r.Scope != policy.RevokedDocument {
			return r.Event
		}
	}
	return vocab.EventID{}
}

// rulesOn adds to a license which rules keep everybody from opening it.
func (t *Tenant) rulesOn(r store.Reader, v *LicenseView) (err error) {
	t.live.mu.RLock()
	lineages := t.live.revocations.Lineages()
	v.epoch = t.live.epoch
	t.live.mu.RUnlock()
	if lineages {
		if v.lineage, err = t.lineageOf(r, v.Policy); err != nil {
			return err
		}
	}
	v.Rules = t.rulesFor(v)
	return nil
}

// rulesFor is rulesOn for a license whose lineage is known.
func (t *Tenant) rulesFor(v *LicenseView) (events []vocab.EventID) {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	for _, r := range t.live.revocations.Covering(v.revocable(), nil) {
		events = append(events, r.Event)
	}
	return events
}

func (v *LicenseView) revocable() policy.Revocable {
	in := inputs{record: v.Record, policy: v.Policy, lineage: v.lineage}
	return in.revocable()
}

// mayGiveAway refuses to change whose a license is that is revoked because of
// whose it is: it would open again. That no such rule comes meanwhile, the
// transaction checks.
func (t *Tenant) mayGiveAway(v *LicenseView) error {
	l := v.revocable()
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	v.atEpoch = true
	if len(t.live.revocations.Find(func(r *policy.RevocationRule) bool { return !r.Owner.IsZero() && r.CoversLicense(&l) })) == 0 {
		return nil
	}
	return vocab.Errorf(vocab.ReasonLicenseRevoked, "this document is revoked together with others of its owner, and stays the owner's").
		WithNext("Ask a policy-admin")
}

// RevocationRequest asks to revoke all licenses that meet conditions.
type RevocationRequest struct {
	// Rule has the conditions, but for the template's.
	Rule policy.RevocationRule
	// Template is the slug of the template they follow, "" for no such
	// condition.
	Template string
	// Reason is why; never empty.
	Reason string
	// ByOwner says that the caller acts as the owner, not as an
	// administrator.
	ByOwner bool
	Dry     bool // check everything, change nothing
}

// RevocationView is a revocation by rule as administrators see it.
type RevocationView struct {
	// ID is the event that made it; it is the rule's name too.
	ID vocab.EventID
	record.RevocationRule
	// TemplateSlug names the template; empty if it is no condition.
	TemplateSlug string
	// Made is when.
	Made time.Time
}

// RevokeLicenses revokes all licenses that meet conditions, those to come
// included: on return no decision that begins passes the rule. It touches no
// key, and costs the same for any number of licenses. authorize is asked about
// the owner of the document whose lineage is revoked. The coverage is what
// could be counted.
func (t *Tenant) RevokeLicenses(ctx context.Context, c Call, req RevocationRequest, authorize Authorize) (*RevocationView, *Coverage, vocab.EventID, error) {
	first := t.newEvent(audit.KindLicensesRevoked, c, t.now())
	first.Target = record.PrefixRevocations + first.ID.String()
	out := &RevocationView{ID: first.ID, Made: first.Time, TemplateSlug: req.Template}
	make1 := func(r store.Reader, e *audit.Event) (body []byte, err error) {
		rule, err := t.newRule(r, c, &req, authorize)
		if err != nil {
			return nil, err
		}
		out.RevocationRule = *rule
		e.Template, e.Detail = rule.Rule.Template, rule.Rule.String()+": "+rule.Reason
		if body, err = rule.Encode(); err != nil {
			return nil, err
		}
		// What memory could not take over must not be written.
		_, err = record.DecodeRevocationRule(body)
		return body, err
	}
	if req.Dry {
		err := t.store.View(ctx, func(r store.Reader) error {
			_, err := make1(r, first)
			return err
		})
		if err != nil {
			return nil, nil, vocab.EventID{}, t.refuse(ctx, first, err)
		}
		cover, err := t.coverage(ctx, &out.Rule)
		if err != nil {
			return nil, nil, vocab.EventID{}, err
		}
		// The check is recorded like a read.
		first.Kind, first.Target = audit.KindRead, ""
		return out, cover, first.ID, t.commit(ctx, func(store.Tx) error { return nil }, first)
	}
	_, event, err := t.changeResourceBy(ctx, first, func(r store.Reader, _ *record.Resource, e *audit.Event) ([]byte, error) { return make1(r, e) }, false)
	if err != nil {
		return nil, nil, vocab.EventID{}, err
	}
	cover, err := t.coverage(ctx, &out.Rule)
	if err != nil {
		// The rule is in force: what cannot be counted must not hide that.
		cover = &Coverage{MoreLicenses: true, MoreUses: true}
	}
	return out, cover, event, nil
}

// newRule checks a request and completes its rule.
func (t *Tenant) newRule(r store.Reader, c Call, req *RevocationRequest, authorize Authorize) (*record.RevocationRule, error) {
	out := &record.RevocationRule{Rule: req.Rule, By: c.Caller.Name(), Reason: req.Reason, ByOwner: req.ByOwner}
	if req.Template != "" {
		uid, err := record.FindTemplate(r, t.id, req.Template)
		if err != nil {
			return nil, err
		}
		if uid.IsZero() {
			return nil, noTemplate(req.Template)
		}
		out.Rule.Template = uid
	}
	if err := out.Rule.Validate(); err != nil {
		return nil, err
	}
	if _, err := canon.Marshal(req.Reason); err != nil || req.Reason == "" {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a revocation of more than one license needs a reason, in plain text").Because(err)
	}
	if !out.Rule.Lineage.IsZero() {
		l, err := t.licenseRecord(r, out.Rule.Lineage)
		if err != nil {
			return nil, err
		}
		p, err := l.DecodePolicy()
		if err != nil {
			return nil, err
		}
		if err := authorize(p.Owner); err != nil {
			return nil, err
		}
	}
	t.live.mu.RLock()
	n, same := t.live.revocations.Len(), t.live.revocations.Find(out.Rule.Equal)
	t.live.mu.RUnlock()
	for _, id := range same {
		// Two that say the same would have to be taken back twice. An owner's
		// own is another: an administrator's must not end with it.
		s, err := t.resource(r, record.PrefixRevocations+id.String())
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		body, err := record.DecodeRevocationRule(s.Body)
		if err != nil {
			return nil, err
		}
		if body.ByOwner == req.ByOwner {
			return nil, vocab.Errorf(vocab.ReasonResourceExists, "the revocation %s says the same and is in force", s.Name).
				WithNext("Take that one back when it is time")
		}
	}
	if n >= policy.MaxRevocationRules {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "%d revocations are in force, as many as there may be", n).
			WithNext("Take back what is not needed any more, or revoke single licenses")
	}
	return out, nil
}

// AuthorizeRevocation lets a caller at a revocation by rule, or returns the
// error for one who may not know that it is there. It is asked about nil if it
// is not. The door provides it.
type AuthorizeRevocation func(*record.RevocationRule) error

// revocation reads a rule in force.
func (t *Tenant) revocation(s *record.Resource, id vocab.EventID, authorize AuthorizeRevocation) (*record.RevocationRule, error) {
	if s == nil {
		if err := authorize(nil); err != nil {
			return nil, err
		}
		return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no revocation %s in force", id).WithNext("List the revocations")
	}
	body, err := record.DecodeRevocationRule(s.Body)
	if err != nil {
		return nil, err
	}
	return body, authorize(body)
}

func (t *Tenant) revocationView(r store.Reader, id vocab.EventID, made time.Time, body *record.RevocationRule) (*RevocationView, error) {
	out := &RevocationView{ID: id, RevocationRule: *body, Made: made}
	if !body.Rule.Template.IsZero() {
		head, err := record.GetTemplate(r, t.id, body.Rule.Template)
		if err != nil || head == nil {
			return nil, firstError(err, templateDamaged(nil))
		}
		out.TemplateSlug = head.Slug
	}
	return out, nil
}

// GetRevocation returns a revocation by rule that is in force.
func (t *Tenant) GetRevocation(ctx context.Context, id vocab.EventID, authorize AuthorizeRevocation) (out *RevocationView, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		s, err := t.resource(r, record.PrefixRevocations+id.String())
		if err != nil {
			return err
		}
		body, err := t.revocation(s, id, authorize)
		if err != nil {
			return err
		}
		out, err = t.revocationView(r, id, s.Updated.Time(), body)
		return err
	})
	return out, err
}

// ListRevocations returns up to limit revocations by rule that are in force,
// before one (zero: from the newest), newest first, and the one to go on
// before, zero at the end. owners, unless there are none, select those with one
// of them as their condition, and byOwner of them those that the owner made.
func (t *Tenant) ListRevocations(ctx context.Context, owners []vocab.Principal, byOwner bool, before vocab.EventID, limit int) (out []*RevocationView, next vocab.EventID, err error) {
	t.live.mu.RLock()
	ids := t.live.revocations.Find(func(r *policy.RevocationRule) bool { return len(owners) == 0 || slices.Contains(owners, r.Owner) })
	t.live.mu.RUnlock()
	err = t.store.View(ctx, func(r store.Reader) error {
		for _, id := range slices.Backward(ids) {
			if !before.IsZero() && id.Compare(before) >= 0 {
				continue
			}
			s, err := t.resource(r, record.PrefixRevocations+id.String())
			if err != nil {
				return err
			}
			if s == nil {
				continue // taken back meanwhile
			}
			body, err := record.DecodeRevocationRule(s.Body)
			if err != nil {
				return err
			}
			if byOwner && !body.ByOwner {
				continue
			}
			if len(out) == limit {
				next = out[limit-1].ID
				return nil
			}
			v, err := t.revocationView(r, id, s.Updated.Time(), body)
			if err != nil {
				return err
			}
			out = append(out, v)
		}
		return nil
	})
	return out, next, err
}

// RestoreLicenses takes a revocation by rule back, and returns what it was.
// What is revoked otherwise as well stays revoked.
func (t *Tenant) RestoreLicenses(ctx context.Context, c Call, id vocab.EventID, authorize AuthorizeRevocation) (out *RevocationView, event vocab.EventID, err error) {
	_, event, err = t.changeResource(ctx, c, audit.KindLicensesRestored, record.PrefixRevocations+id.String(),
		func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
			body, err := t.revocation(now, id, authorize)
			if err != nil {
				return nil, err
			}
			e.Parent, e.Template, e.Detail = id, body.Rule.Template, body.Rule.String()
			out, err = t.revocationView(r, id, now.Updated.Time(), body)
			return nil, err
		})
	return out, event, err
}
