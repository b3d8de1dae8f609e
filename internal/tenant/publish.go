package tenant

import (
	"context"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// PublishRequest asks for a license.
type PublishRequest struct {
	// RequestID makes the call safe to repeat; Hash is of the whole request.
	RequestID string
	Hash      [32]byte
	// Template is the slug of the template, "" for an ad hoc policy. With
	// neither, the terms of the first parent are kept.
	Template string
	AdHoc    *policy.AdHoc
	// NotAfter is when the content expires, for ad hoc policies.
	NotAfter time.Time
	// Owner is whose it shall be, zero for the caller.
	Owner   vocab.Principal
	Parents []vocab.ContentID
	Title   string
	AppData []byte
	Dry     bool // check everything, make nothing
	To      Recipient
}

// Published is a new license and its content key as it was asked for.
type Published struct {
	License           *LicenseView
	PublishingLicense []byte
	Event             vocab.EventID
	// Delivery is set for sealed delivery, Clear for a clear key, which the
	// receiver zeroes.
	Delivery license.PublishDelivery
	Clear    *vocab.Secret
}

// Publish makes a license: content key, content ID, record and publishing
// license. The record and its event are durable before anything is returned.
func (t *Tenant) Publish(ctx context.Context, c Call, req PublishRequest) (*Published, error) {
	defer t.calls.begin()()
	e := t.newEvent(audit.KindPublished, c, t.now())
	if req.To.Sealed != nil {
		e.RecipientKey = req.To.Sealed.Hash()
	}
	if err := t.checkDelivery(c.Caller, req.To); err != nil {
		t.rememberDelivery(e, c.Caller)
		return nil, t.refuse(ctx, e, err)
	}
	if err := firstError(t.held(), t.frozen()); err != nil {
		return nil, t.refuse(ctx, e, err)
	}
	for range maxAttempts {
		// An attempt that comes to nothing leaves nothing in the event.
		own := *e
		p := &publication{req: &req, caller: c.Caller, event: &own}
		out, err := t.publish(ctx, p)
		p.key.Zero()
		switch {
		case err == errStale: //nolint:errorlint // our own sentinel, unwrapped
			if err := t.catchUp(ctx); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			err = t.refuseIf(ctx, func(tx store.Tx) error {
				if p.based && t.sameBasis(tx, p) != nil {
					return errStale // if reading fails only now, the next round says so
				}
				return nil
			}, &own, custodyError(err, p.contact()))
			if err == errStale { //nolint:errorlint // our own sentinel, unwrapped
				if err := t.catchUp(ctx); err != nil {
					return nil, err
				}
				continue
			}
			return nil, err
		}
		return out, nil
	}
	return nil, tooBusy()
}

// publication is one document on its way to becoming protected.
type publication struct {
	req    *PublishRequest
	caller *vocab.Identity
	event  *audit.Event

	basis    basis
	who      standing
	question policy.PublishInput
	// revoking are the revocations that would cover what is made.
	revoking []policy.Revocation
	based    bool // the basis was read whole
	decision policy.PublishDecision
	repeated *record.Request
	key      *vocab.Secret
	record   *record.License
	pl       *license.PublishingLicense
}

func (p *publication) contact() string {
	if t := p.template(); t != nil {
		return t.Contact
	}
	return ""
}

// template is the one the document is to follow: as decided, which may be a
// parent's, or until then as asked for.
func (p *publication) template() *policy.CompiledTemplate {
	decided := p.decision.Policy
	if decided == nil {
		return p.basis.template
	}
	if decided.Template.IsZero() {
		return nil
	}
	if t := p.basis.template; t != nil && t.UID == decided.Template {
		return t
	}
	for i := range p.basis.parents {
		if t := p.basis.parents[i].template; t != nil && t.UID == decided.Template {
			return t
		}
	}
	return nil
}

// basis is what the decision to publish rests on.
type basis struct {
	settings record.Settings
	template *policy.CompiledTemplate
	parents  []inputs
	epoch    uint64 // of the tenant's resources
}

func (t *Tenant) readBasis(r store.Reader, req *PublishRequest) (b basis, err error) {
	if b.settings, err = record.GetSettings(r, t.id); err != nil {
		return b, err
	}
	if b.epoch, err = record.Epoch(r, t.id); err != nil {
		return b, err
	}
	if req.Template != "" {
		if b.template, err = t.findTemplate(r, req.Template); err != nil {
			return b, err
		}
	}
	for _, parent := range req.Parents {
		in, err := t.readInputs(r, parent, b.settings)
		if err != nil {
			return b, err
		}
		b.parents = append(b.parents, in)
	}
	return b, nil
}

// sameBasis returns errStale if what the decision rests on has changed. Like
// hold it looks at revisions only.
func (t *Tenant) sameBasis(tx store.Tx, p *publication) error {
	settings, err := record.GetSettings(tx, t.id)
	if err != nil {
		return err
	}
	epoch, err := record.Epoch(tx, t.id)
	if err != nil {
		return err
	}
	same := settings.Revision == p.basis.settings.Revision && epoch == p.basis.epoch
	if p.req.Template != "" {
		uid, revision, err := t.headOf(tx, p.req.Template)
		if err != nil {
			return err
		}
		if known := p.basis.template; known != nil {
			same = same && uid == known.UID && revision == known.Revision
		} else {
			same = same && uid.IsZero()
		}
	}
	for i, parent := range p.req.Parents {
		ok, err := t.hold(tx, parent, &p.basis.parents[i], settings)
		if err != nil {
			return err
		}
		same = same && ok
	}
	if !same {
		return errStale
	}
	return nil
}

func (t *Tenant) publish(ctx context.Context, p *publication) (*Published, error) {
	caller := canon.PrincipalID(p.caller.Issuer, p.caller.Subject)
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		if p.req.RequestID != "" {
			if p.repeated, err = record.GetRequest(r, t.id, caller, p.req.RequestID, p.event.Time); err != nil {
				return err
			}
		}
		if p.basis, err = t.readBasis(r, p.req); err != nil {
			return err
		}
		p.who = t.standingOf(p.caller, p.basis.settings)
		for i := range p.basis.parents {
			if err := t.verified(r, &p.basis.parents[i]); err != nil {
				return err
			}
			if err := t.readLineage(r, &p.basis.parents[i], p.who); err != nil {
				return err
			}
		}
		p.based = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	if p.repeated != nil {
		return t.repeat(ctx, p)
	}
	if err := t.mayPublish(p); err != nil {
		return nil, err
	}
	if p.req.Dry {
		return t.dryPublish(ctx, p)
	}
	lent, err := t.makeLicense(ctx, p)
	if err != nil {
		return nil, err
	}
	out, err := t.deliverPublish(p)
	if err != nil {
		return nil, err
	}
	err = t.commit(ctx, func(tx store.Tx) error {
		if err := t.sameBasis(tx, p); err != nil {
			return err
		}
		if err := t.ring.Recheck(lent); err != nil {
			return err
		}
		if there, err := record.GetLicense(tx, t.id, p.record.Content); err != nil || there != nil {
			return firstError(err, vocab.Errorf(vocab.ReasonContentIDTaken, "the content ID is taken"))
		}
		if p.req.RequestID != "" {
			again, err := record.GetRequest(tx, t.id, caller, p.req.RequestID, p.event.Time)
			if err != nil {
				return err
			}
			if again != nil {
				return errStale
			}
			if err := record.PutRequest(tx, t.id, caller, p.req.RequestID, &record.Request{
				Hash: p.req.Hash, Content: p.record.Content, PL: p.pl.Raw(), At: record.ToMillis(p.event.Time),
			}); err != nil {
				return err
			}
		}
		return record.PutLicense(tx, t.id, p.record)
	}, p.event)
	if err != nil {
		out.Clear.Zero()
		return nil, err
	}
	return out, nil
}

// mayPublish asks the policy.
func (t *Tenant) mayPublish(p *publication) error {
	who := p.who
	p.basis.epoch = who.epoch
	for i := range p.basis.parents {
		p.basis.parents[i].epoch = who.epoch
	}
	in := policy.PublishInput{
		Caller: who.caller, Disabled: who.disabled, Owner: p.req.Owner, ByTemplate: p.req.Template != "", AdHoc: p.req.AdHoc,
		NotAfter: p.req.NotAfter, AppData: p.req.AppData, Settings: p.basis.settings.Settings, Now: p.event.Time,
	}
	if p.basis.template != nil {
		in.Template = p.basis.template.Template
	}
	var ofParents []policy.Revocation
	for i, id := range p.req.Parents {
		parent := policy.Parent{ID: id}
		if l := p.basis.parents[i].record; l != nil && l.Tombstone == 0 {
			q := p.basis.parents[i].evaluation(who, vocab.RightView, p.event.Time, p.basis.settings)
			parent.License, ofParents = &q, append(ofParents, q.Revocations...)
		}
		in.Parents = append(in.Parents, parent)
	}
	p.revoking = nil
	in.Covering = func(made *policy.Policy) []policy.Revocation {
		l := policy.Revocable{Policy: made, Issued: p.event.Time}
		l.Ancestors, l.MoreAncestors = p.basis.ancestors()
		p.revoking = who.covering(l)
		return p.revoking
	}
	p.question, p.decision = in, policy.MayPublish(in)
	t.rememberPublish(p)
	if p.decision.Reason == vocab.ReasonLicenseRevoked {
		p.event.Parent = ruleOf(append(ofParents, p.revoking...))
	}
	if t := p.template(); t != nil {
		p.event.Template, p.event.TemplateRevision = t.UID, t.Revision
	}
	return p.decision.Err()
}

// dryPublish records the check and makes nothing.
func (t *Tenant) dryPublish(ctx context.Context, p *publication) (*Published, error) {
	p.event.Kind = audit.KindRead
	err := t.commit(ctx, func(store.Tx) error { return nil }, p.event)
	return &Published{Event: p.event.ID}, err
}

// makeLicense makes content key, content ID, record and publishing license.
func (t *Tenant) makeLicense(ctx context.Context, p *publication) (*keys.Key, error) {
	signer, cert, err := t.signer(ctx)
	if err != nil {
		return nil, err
	}
	content := vocab.NewContentID()
	var lent *keys.Key
	if p.decision.Custody == vocab.CustodyStrict {
		lent, err = t.ring.NewDocument(ctx, content)
	} else {
		lent, err = t.ring.Active(ctx)
	}
	if err != nil {
		return nil, err
	}
	defer lent.Release()
	p.key = vocab.NewSecret()
	// The application's data is sealed in the publishing license and kept
	// nowhere else: the record is in the clear.
	kept := *p.decision.Policy
	kept.AppData = nil
	policyBytes, err := license.EncodePolicy(&kept)
	if err != nil {
		return nil, err
	}
	in := license.PLInput{IssuedAt: p.event.Time, Content: content, Seq: 1, Generation: lent.Generation, ContactHint: p.contact()}
	if p.decision.Custody == vocab.CustodyStrict {
		in.Wrap = &lent.Wrap
	}
	made, err := license.MakePL(ctx, signer, cert, in, lent.Secret, p.key, p.decision.Policy)
	if err != nil {
		return nil, err
	}
	if p.pl, err = t.verifier().VerifyPL(made.Raw()); err != nil {
		return nil, err
	}
	l := &record.License{
		Content: content, Commitment: p.pl.Commitment, ContentSuite: p.pl.ContentSuite, Issued: record.ToMillis(p.event.Time),
		Generation: lent.Generation, Salt: p.pl.Salt, Policy: policyBytes, Revision: 1, Updated: record.ToMillis(p.event.Time),
		Title: p.req.Title, LastEvent: p.event.ID,
	}
	if in.Wrap != nil {
		l.Wrap = in.Wrap.Encode()
	}
	box := l.Box(t.id)
	if l.KeyBox, err = box.Seal(lent.Secret, p.key); err != nil {
		return nil, err
	}
	p.record = l
	if p.event.State, err = l.State(); err != nil {
		return nil, err
	}
	p.event.Content, p.event.LicenseRevision = content, l.Revision
	p.event.Custody, p.event.NotAfter = p.decision.Custody, p.decision.Policy.NotAfter
	noteKey(p.event, lent)
	t.rememberPublish(p)
	return lent, nil
}

// deliverPublish seals the content key to whoever asked for it.
func (t *Tenant) deliverPublish(p *publication) (*Published, error) {
	out := &Published{
		License:           &LicenseView{Record: p.record, Policy: p.decision.Policy, TemplateSlug: p.templateSlug()},
		PublishingLicense: p.pl.Raw(), Event: p.event.ID,
	}
	if p.req.To.Sealed == nil {
		out.Clear = p.key.Clone()
		return out, nil
	}
	var err error
	out.Delivery, err = license.DeliverPublish(p.req.To.Sealed, canon.PrincipalID(p.caller.Issuer, p.caller.Subject), p.pl, p.key)
	return out, err
}

func (p *publication) templateSlug() string {
	if t := p.template(); t != nil {
		return t.Slug
	}
	return ""
}

// repeat answers a request that was answered before: the same license, the key
// delivered to the same recipient key, and an event of its own.
func (t *Tenant) repeat(ctx context.Context, p *publication) (*Published, error) {
	if p.repeated.Hash != p.req.Hash {
		return nil, vocab.Errorf(vocab.ReasonRequestIDReused, "the request ID was used for another request in the last 24 hours").
			WithNext("Use a new request ID")
	}
	var v *LicenseView
	var in inputs
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		if v, err = t.license(r, p.repeated.Content); err != nil {
			return err
		}
		if in, err = t.readInputs(r, p.repeated.Content, p.basis.settings); err != nil {
			return err
		}
		p.who = t.standingOf(p.caller, p.basis.settings)
		return t.readLineage(r, &in, p.who)
	})
	if err != nil {
		return nil, err
	}
	if v.Record.Revoked != nil {
		return nil, vocab.Errorf(vocab.ReasonLicenseRevoked, "this document was revoked since it was published")
	}
	if p.pl, err = t.verifier().VerifyPL(p.repeated.PL); err != nil {
		return nil, err
	}
	if p.pl.Content != v.Record.Content || p.pl.Commitment != v.Record.Commitment {
		return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "what the store remembers of this request is another document's").
			WithNext("Ask an administrator to check the store")
	}
	// That this caller published this document is only what the row of the
	// request says. The policy, which the key box is bound to, must let the
	// caller read it, or name it as who protected the document, not longer ago
	// than a request is remembered: an edited row gives nobody a key. A service
	// that publishes for others may not read what it published, and must be able
	// to repeat a call whose answer got lost.
	in.epoch = p.who.epoch
	question := in.evaluation(p.who, vocab.RightView, p.event.Time, p.basis.settings)
	p.event.Content, p.event.LicenseRevision = v.Record.Content, v.Record.Revision
	p.event.Template, p.event.TemplateRevision = in.templateUID(), in.revision()
	t.rememberOpening(p.event, decision.Repeat, &in, &question, p.caller)
	own := v.Policy.Issuer.Is(p.caller) && p.event.Time.Sub(v.Record.Issued.Time()) < record.RequestLife
	revoked := len(question.Revocations) > 0
	switch d := policy.Evaluate(question); {
	case d.Allowed:
	case own && !revoked && !p.who.disabled:
		p.event.Decision = nil // it is not the policy that lets the caller in
	default:
		if revoked {
			p.event.Parent = ruleOf(question.Revocations)
		}
		return nil, d.Err()
	}
	key, lent, err := t.openKeyBox(ctx, v.Record)
	if err != nil {
		return nil, err
	}
	p.key, p.record, p.decision.Policy = key, v.Record, v.Policy
	p.event.Custody, p.event.Parent = v.Record.Custody(), v.Record.LastEvent
	p.event.Detail = "repetition of a request"
	noteKey(p.event, lent)
	out, err := t.deliverPublish(p)
	if err != nil {
		return nil, err
	}
	out.License.TemplateSlug = v.TemplateSlug
	err = t.commit(ctx, func(tx store.Tx) error {
		settings, err := record.GetSettings(tx, t.id)
		if err != nil {
			return err
		}
		ok, err := t.hold(tx, v.Record.Content, &in, settings)
		if err != nil {
			return err
		}
		if !ok {
			return errStale
		}
		return t.ring.Recheck(lent)
	}, p.event)
	if err != nil {
		out.Clear.Zero()
		return nil, err
	}
	return out, nil
}
