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

// AcquireItem asks to exercise a right on one document.
type AcquireItem struct {
	// PublishingLicense, or Content alone, names the document.
	PublishingLicense []byte
	Content           vocab.ContentID
	Right             vocab.Right
	// Reason is why, as the caller says; recorded only.
	Reason string
	// Client is what the client says of itself; recorded only.
	Client string
	// Store says the client means to keep the use license.
	Store bool
	// Subject is the person a service opens for, verified; nil otherwise.
	Subject *vocab.Identity
	// Recovery is the recovery the caller means to open it by; zero: by the
	// policy.
	Recovery vocab.OperationID
	// Err is why the item is refused before it is looked at.
	Err error
}

// Acquired is a use license that was given.
type Acquired struct {
	Content  vocab.ContentID
	Event    vocab.EventID
	Rights   vocab.Rights
	NotAfter time.Time
	Custody  vocab.CustodyMode
	// UseLicense and Box are set for sealed delivery, Clear for a clear key,
	// which the receiver zeroes.
	UseLicense []byte
	Box        []byte
	Clear      *vocab.Secret
}

// AcquireResult is one item's outcome: exactly one of the two is set.
type AcquireResult struct {
	Acquired *Acquired
	Err      error
}

// AcquireBatch is the outcome of all items, in their order.
type AcquireBatch struct {
	Results []AcquireResult
	// Certificate signed the use licenses; Enc is the one key agreement all
	// their keys come from. Both empty for clear delivery, and where nothing
	// was given.
	Certificate, Enc []byte
}

// Recipient is how the caller wants the content keys: sealed to a key, or, if
// that is nil, in the clear.
type Recipient struct{ Sealed *license.Recipient }

// Acquire decides each item by itself and makes all their events durable in
// one transaction before it returns any key. Nothing is released that is not
// in the log, and the log says of every item what its caller is told.
func (t *Tenant) Acquire(ctx context.Context, c Call, to Recipient, items []AcquireItem) (*AcquireBatch, error) {
	defer t.calls.begin()()
	d, err := t.newSealer(ctx, c, to, items)
	if err != nil {
		e := t.newEvent(audit.KindRefused, c, t.now())
		t.rememberDelivery(e, c.Caller)
		return nil, t.refuse(ctx, e, err)
	}
	work := make([]*acquisition, len(items))
	for i, item := range items {
		work[i] = t.newAcquisition(c, d, item)
	}
	defer func() {
		for _, a := range work {
			a.forget()
		}
	}()
	if err := t.decideAll(ctx, d, work); err != nil {
		return nil, err
	}
	out := &AcquireBatch{Results: make([]AcquireResult, len(work))}
	if d.delivery != nil {
		out.Certificate, out.Enc = d.cert.Raw(), d.delivery.Enc()
	}
	for i, a := range work {
		out.Results[i] = a.result()
	}
	return out, nil
}

// sealer is how the content keys of one call reach their recipient.
type sealer struct {
	to        *license.Recipient
	principal [32]byte
	delivery  *license.Delivery // the key agreement; nil for clear keys, and until something is given
	signer    license.Signer
	cert      *license.Certificate
	unsigned  error // why there is no certified key to sign with; nil if there is
}

// newSealer says how the call's keys are delivered. It asks for the signing
// certificate, so that nothing is recorded as released that could not be
// signed. For clear keys too: a daemon has no certificate before it has found
// the custodian's keys safe once. Without one the items are decided all the
// same: who has no rights is told that, and only who would be given a key
// learns that the custodian is in the way.
func (t *Tenant) newSealer(ctx context.Context, c Call, to Recipient, items []AcquireItem) (*sealer, error) {
	if err := t.checkDelivery(c.Caller, to); err != nil {
		return nil, err
	}
	who := c.Caller
	if len(items) > 0 && items[0].Subject != nil {
		who = items[0].Subject
	}
	d := &sealer{to: to.Sealed, principal: canon.PrincipalID(who.Issuer, who.Subject)}
	d.signer, d.cert, d.unsigned = t.signer(ctx)
	return d, nil
}

// checkDelivery refuses clear keys to whoever may not have them.
func (t *Tenant) checkDelivery(caller *vocab.Identity, to Recipient) error {
	if to.Sealed != nil || policy.AllPassed(policy.ClearChecks(t.settings.Load().Settings, caller)) {
		return nil
	}
	return vocab.Errorf(vocab.ReasonClearKeyNotAllowed, "content keys are not given in the clear to you").
		WithNext("Send a recipient key; a tenant-admin can allow clear keys to services with a client certificate")
}

// acquisition is one item on its way.
type acquisition struct {
	AcquireItem
	caller *vocab.Identity
	event  *audit.Event

	pl       *license.PublishingLicense // nil if named by content ID
	inputs   inputs
	question policy.Input
	decision policy.Decision
	lent     *keys.Key     // the generation, already released
	key      *vocab.Secret // the content key
	ul       *license.UseLicense
	err      error // why it is refused
	done     bool  // its event is durable
}

// forget drops what was worked out for a decision that does not hold.
func (a *acquisition) forget() {
	a.key.Zero()
	a.key, a.ul, a.lent = nil, nil, nil
}

// result is what the caller is told; the event is durable.
func (a *acquisition) result() AcquireResult {
	if a.err != nil {
		if Recordable(vocab.ReasonOf(a.err)) {
			return AcquireResult{Err: withEvent(a.err, a.event.ID)}
		}
		return AcquireResult{Err: a.err}
	}
	got := &Acquired{
		Content: a.Content, Event: a.event.ID, Rights: a.decision.Rights, NotAfter: a.event.NotAfter, Custody: a.decision.Custody,
	}
	if a.ul != nil {
		got.UseLicense, got.Box = a.ul.Raw(), a.ul.Box()
	} else {
		got.Clear = a.key.Clone()
	}
	return AcquireResult{Acquired: got}
}

func (t *Tenant) newAcquisition(c Call, d *sealer, item AcquireItem) *acquisition {
	a := &acquisition{AcquireItem: item, caller: c.Caller, err: item.Err}
	if item.Subject != nil {
		// The subject's rights apply; the service that acts is recorded.
		subject := *item.Subject
		subject.Actor, subject.Peer = c.Caller, c.Caller.Peer
		a.caller = &subject
	}
	if a.err == nil && canon.PrincipalID(a.caller.Issuer, a.caller.Subject) != d.principal {
		a.err = vocab.Errorf(vocab.ReasonRequestInvalid, "the items of a batch are for different people").WithNext("Send one batch for each")
	}
	a.AcquireItem.Err = a.err
	if item.Client != "" {
		c.Client = item.Client
	}
	c.Caller = a.caller
	a.event = t.newEvent(audit.KindReleased, c, t.now())
	a.event.Asked, a.event.Detail = vocab.RightsOf(item.Right), item.Reason
	if d.to != nil {
		a.event.RecipientKey = d.to.Hash()
	}
	return a
}

// decideAll decides every item and makes its event durable. An item whose
// inputs changed between its decision and the transaction is decided again.
func (t *Tenant) decideAll(ctx context.Context, d *sealer, work []*acquisition) error {
	for range maxAttempts {
		if err := t.decide(ctx, work); err != nil {
			return err
		}
		t.release(ctx, d, work)
		stale := false
		err := t.store.Commit(ctx, func(tx store.Tx) error {
			settings, err := record.GetSettings(tx, t.id)
			if err != nil {
				return err
			}
			for _, a := range work {
				if a.done {
					continue
				}
				if !t.stillHolds(tx, a, settings) {
					stale = true
					continue
				}
				if err := t.record(tx, a); err != nil {
					return err
				}
				tx.AfterCommit(func() { a.done = true })
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !stale {
			return nil
		}
		if err := t.catchUp(ctx); err != nil {
			return err
		}
	}
	return tooBusy()
}

// decide reads what each item rests on and decides it, in one snapshot.
func (t *Tenant) decide(ctx context.Context, work []*acquisition) error {
	var open []*acquisition
	for _, a := range work {
		if !a.done && a.AcquireItem.Err == nil {
			open = append(open, a)
		}
	}
	concurrently(len(open), func(i int) { // signatures: most of a batch's work
		open[i].forget()
		open[i].err = t.identify(open[i])
	})
	return t.store.View(ctx, func(r store.Reader) error {
		settings, err := record.GetSettings(r, t.id)
		if err != nil {
			return err
		}
		for _, a := range work {
			switch {
			case a.done || a.AcquireItem.Err != nil:
			case a.err == nil:
				a.err = t.decideOne(r, a, settings)
			default:
				// Refused already; its event names the recovery all the same.
				_, _ = t.recoveryOf(r, a)
			}
		}
		return nil
	})
}

func (t *Tenant) decideOne(r store.Reader, a *acquisition, settings record.Settings) (err error) {
	a.event.Content, a.event.LicenseRevision, a.event.Parent, a.event.Decision = a.Content, 0, vocab.EventID{}, nil
	if a.inputs, err = t.readInputs(r, a.Content, settings); err != nil {
		return err
	}
	in := &a.inputs
	glass, err := t.recoveryOf(r, a)
	if err != nil {
		return err
	}
	if in.record != nil {
		if a.event.LicenseRevision, err = t.verifyRecord(r, in.record); err != nil {
			return err
		}
	}
	if err := t.matchRecord(a); err != nil {
		return err
	}
	if err := glass.covers(a.Content, in.policy); err != nil {
		return err
	}
	who := t.standingOf(a.caller, settings)
	in.epoch = who.epoch
	if err := t.readLineage(r, in, who); err != nil {
		return err
	}
	a.question = in.evaluation(who, a.Right, a.event.Time, settings)
	a.question.Recovery = glass != nil
	decided := policy.Evaluate(a.question)
	t.rememberOpening(a.event, decision.Acquire, in, &a.question, a.caller)
	a.decision = glass.until(decided)
	if decided.Revoked && !decided.Allowed {
		a.event.Parent = ruleOf(a.question.Revocations)
	}
	a.event.Template, a.event.TemplateRevision = in.templateUID(), in.revision()
	if a.decision.Contact == "" {
		// An ad hoc policy has no contact of its own; the owner may have set one.
		a.decision.Contact = in.record.Contact
	}
	if a.pl == nil && !a.decision.Allowed && a.decision.Role == policy.RoleNone && len(a.decision.Matches) == 0 {
		// Whoever names a document without having it, and is nobody to it,
		// learns nothing from the answer, not even whom to ask.
		return NoSuchLicense()
	}
	return a.decision.Err()
}

// identify finds out which document an item is about, and checks the
// publishing license if there is one.
func (t *Tenant) identify(a *acquisition) error {
	if a.PublishingLicense == nil || a.pl != nil {
		return nil
	}
	pl, err := t.verifier().VerifyPL(a.PublishingLicense)
	if vocab.ReasonOf(err) == vocab.ReasonTrustRootMismatch {
		// What is doubt about the server at a client is forgery at the server:
		// the tenant knows its roots and what it certified.
		return vocab.Errorf(vocab.ReasonLicenseSignature, "this publishing license was not signed by this service").
			WithNext("Use an unchanged copy of the document").Because(err)
	}
	if err != nil {
		return err
	}
	a.pl, a.Content = pl, pl.Content
	return nil
}

// matchRecord checks that there is a record and that the publishing license
// agrees with it.
func (t *Tenant) matchRecord(a *acquisition) error {
	l := a.inputs.record
	switch {
	case l == nil && a.pl != nil:
		return vocab.Errorf(vocab.ReasonLicenseUnknown, "this document's license is genuine, but the service has no record of it").
			WithNext("Ask an administrator: the record may be missing after a restore")
	case l == nil, l.Tombstone != 0:
		return NoSuchLicense()
	case a.pl != nil && (a.pl.Commitment != l.Commitment || a.pl.ContentSuite != l.ContentSuite):
		return vocab.Errorf(vocab.ReasonLicenseMismatch, "this document's license contradicts the service's record of it").
			WithNext("Use an unchanged copy of the document")
	}
	return nil
}

// release unwraps the content keys of the items that were allowed and makes
// their use licenses. They stay here until their events are durable.
func (t *Tenant) release(ctx context.Context, d *sealer, work []*acquisition) {
	var allowed []*acquisition
	for _, a := range work {
		if !a.done && a.err == nil {
			allowed = append(allowed, a)
		}
	}
	if held := firstError(t.held(), t.frozen()); held != nil {
		for _, a := range allowed {
			a.err = held
		}
		return
	}
	if d.unsigned != nil {
		for _, a := range allowed {
			a.err = custodyError(d.unsigned, a.decision.Contact)
		}
		return
	}
	if len(allowed) > 0 && d.to != nil && d.delivery == nil {
		// The call's one key agreement: whoever is refused does not cost one.
		var err error
		if d.delivery, err = license.NewDelivery(d.to, t.id, d.principal); err != nil {
			for _, a := range allowed {
				a.err = err
			}
			return
		}
	}
	concurrently(len(allowed), func(i int) {
		a := allowed[i]
		if a.err = t.releaseOne(ctx, d, a); a.err != nil {
			a.forget()
		}
	})
}

func (t *Tenant) releaseOne(ctx context.Context, d *sealer, a *acquisition) (err error) {
	if a.key, a.lent, err = t.openKeyBox(ctx, a.inputs.record); err != nil {
		return custodyError(err, a.decision.Contact)
	}
	noteKey(a.event, a.lent)
	e, dec := a.event, &a.decision
	e.Kind, e.Granted, e.Custody = audit.KindReleased, dec.Rights, dec.Custody
	e.Cached = a.Store && dec.Cache == policy.CacheStored && d.to != nil
	e.NotAfter = useEnd(dec, e.Cached)
	if d.to == nil {
		return nil
	}
	leaf, err := e.LeafHash()
	if err != nil {
		return err
	}
	l := a.inputs.record
	u := license.UseLicense{
		IssuedAt: e.Time, Content: l.Content, Commitment: l.Commitment, ContentSuite: l.ContentSuite,
		ID: e.ID, Rights: dec.Rights, NotBefore: e.Time, NotAfter: e.NotAfter, ContentNotAfter: dec.ContentNotAfter,
		Policy: policyRef(l, dec), Custody: license.Custody{Mode: dec.Custody, Delay: t.effectiveDelay(dec.Custody, e).Truncate(time.Second)},
		Leaf: leaf,
	}
	if e.Cached {
		u.Cache = license.CacheStore
	}
	if dec.ExpiryExempt {
		u.Flags |= license.FlagExpiryExempt
	}
	if dec.Recovery {
		u.Flags |= license.FlagBreakGlass
	}
	a.ul, err = d.delivery.UseLicense(ctx, d.signer, d.cert, u, a.key)
	return err
}

// useEnd is when a use license ends. One that is not to be kept need not live
// long: time to begin to read.
func useEnd(d *policy.Decision, cached bool) time.Time {
	if end := d.Time.Add(policy.OnlineWindow); !cached && d.NotAfter.After(end) {
		return end
	}
	return d.NotAfter
}

// policyRef names what decided: the template's revision, or the license's own.
func policyRef(l *record.License, d *policy.Decision) license.PolicyRef {
	if d.Revision != 0 {
		return license.PolicyRef{Template: d.Template, Revision: uint64(d.Revision)}
	}
	return license.PolicyRef{Revision: uint64(l.Revision)}
}

// stillHolds reports whether what an item's decision rests on is still so.
func (t *Tenant) stillHolds(tx store.Tx, a *acquisition, settings record.Settings) bool {
	if a.AcquireItem.Err != nil || a.Content.IsZero() {
		return true
	}
	ok, err := t.hold(tx, a.Content, &a.inputs, settings)
	if err != nil {
		// Reading failed before, and the item says so; or it fails only now,
		// and the next round will say so.
		return a.err != nil
	}
	return ok
}

// record completes an item's event and appends it.
func (t *Tenant) record(tx store.Tx, a *acquisition) error {
	if a.err == nil {
		// The last word: the key may have been taken back meanwhile.
		if a.err = t.ring.Recheck(a.lent); a.err != nil {
			t.rememberOpening(a.event, decision.Acquire, &a.inputs, &a.question, a.caller)
		}
	}
	e := a.event
	if a.err != nil {
		r := vocab.ReasonOf(a.err)
		if !Recordable(r) {
			return nil
		}
		e.Kind, e.Reason, e.Alarm = audit.KindRefused, r, alarming[r]
		e.Granted, e.NotAfter, e.Cached = 0, time.Time{}, false
		return t.log.Append(tx, e)
	}
	if e.Cached {
		use := record.Use{Principal: a.caller.Name(), Of: allNames(a.caller), NotAfter: e.NotAfter}
		if err := record.PutUse(tx, t.id, a.Content, e.ID, use); err != nil {
			return err
		}
	}
	return t.log.Append(tx, e)
}

// Event returns an event of the batch: that something was recorded.
func (b *AcquireBatch) Event() vocab.EventID {
	for _, r := range b.Results {
		if r.Acquired != nil {
			return r.Acquired.Event
		}
		if e, ok := asVocab(r.Err); ok && !e.Event.IsZero() {
			return e.Event
		}
	}
	return vocab.EventID{}
}
