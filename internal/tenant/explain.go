package tenant

import (
	"context"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Explanation says how a decision came about, or would. It speaks of
// everybody's grants and is for who administers or audits.
type Explanation struct {
	// Event is what is explained; nil if nobody really asked.
	Event *audit.Entry
	// Question is what was decided; 0 if the event holds nothing of it, and
	// then nothing below is set: its reason says all there is.
	Question decision.Question
	// Caller is who asked, Known what was known of them, the groups of the
	// token apart from those of the tenant's directory.
	Caller *vocab.Identity
	Known  decision.Caller
	// One of these is set: the decision to open, to publish, or to give a
	// clear key.
	Opening    *policy.Trace
	Publishing *policy.PublishTrace
	Delivery   []policy.Check
	// Content, Revision and Policy are of the license that was asked for or
	// made; nil if there is none. Template is what decided.
	Content  vocab.ContentID
	Revision uint32
	Policy   *policy.Policy
	Template *policy.Template
	// NoTemplate is the name of a template that was asked for and was not
	// there.
	NoTemplate string
	// Settings is the revision of the settings that decided.
	Settings uint32
	// Revocations say who revoked, as far as the log knows.
	Revocations []RevocationFact
	// Key is how the license's key stood; nil if there is none.
	Key *KeyFact
	// Abridged says that the event does not hold all names the policy needs,
	// so that what is told may differ from what was decided.
	Abridged bool
	// OtherRules says that a version with other rules decided.
	OtherRules bool
	// Contradiction says in what the decision made again differs from the one
	// that was recorded: somebody changed history. Alarm is the event that
	// says so.
	Contradiction string
	Alarm         vocab.EventID
	// Supposed is what was assumed where nobody really asked.
	Supposed []Supposition
}

// RevocationFact is a revocation with who, when and why, if its event says.
type RevocationFact struct {
	policy.Revocation
	At         time.Time
	By, Reason string
}

// KeyFact is how a license's key stood.
type KeyFact struct {
	Name string // of the tenant key; "" if it is not registered any more
	keys.Standing
}

// ExplainEvent makes the decision of an event again, from what the event holds
// and the store kept, and says how it came about. If it comes out otherwise
// than recorded, or what decided is not what it was, the store was changed:
// that is an alarm in the log, and STORE_DAMAGED or a contradiction in the
// answer. The error is RESOURCE_NOT_FOUND if there is no such event.
func (t *Tenant) ExplainEvent(ctx context.Context, id vocab.EventID, l policy.Listing) (*Explanation, error) {
	var x *Explanation
	err := t.store.View(ctx, func(r store.Reader) (err error) {
		x, err = t.explainEvent(r, id, l)
		return err
	})
	switch reason := vocab.ReasonOf(err); {
	case reason == vocab.ReasonStoreDamaged, reason == vocab.ReasonLogDamaged:
		what := err.Error()
		if v, ok := asVocab(err); ok {
			what = v.Message
		}
		alarm, recErr := t.alarmHistory(ctx, id, reason, what)
		if recErr != nil {
			return nil, recErr
		}
		return nil, withEvent(err, alarm)
	case err != nil:
		return nil, err
	case x.Contradiction != "":
		if x.Alarm, err = t.alarmHistory(ctx, id, vocab.ReasonStoreDamaged, x.Contradiction); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// alarmHistory records that what an event tells of was changed.
func (t *Tenant) alarmHistory(ctx context.Context, about vocab.EventID, r vocab.Reason, what string) (vocab.EventID, error) {
	e := t.newEvent(audit.KindAlarm, Call{}, t.now())
	e.Parent, e.Reason, e.Alarm, e.Detail = about, r, true, what
	t.logger.Error("history was changed", "tenant", t.name, "event", about.String(), "alarm", e.ID.String(), "detail", what)
	return e.ID, t.commit(ctx, func(store.Tx) error { return nil }, e)
}

func (t *Tenant) explainEvent(r store.Reader, id vocab.EventID, l policy.Listing) (*Explanation, error) {
	entry, err := audit.Find(r, t.id, id)
	if err != nil {
		return nil, err
	}
	if err := audit.Prove(r, t.id, entry); err != nil {
		return nil, err
	}
	e := entry.Event
	x := &Explanation{Event: &entry, Content: e.Content, Revision: e.LicenseRevision}
	if len(e.Decision) == 0 {
		return x, nil
	}
	in, err := decision.Decode(e.Decision, e.Principal.Name)
	if err != nil {
		return nil, err
	}
	settings, err := t.settingsAt(r, in.Settings)
	if err != nil {
		return nil, err
	}
	x.Question, x.Known, x.Settings = in.Question, in.Caller, in.Settings
	x.Caller = in.Caller.Identity(vocab.Identity{
		Issuer: e.Principal.Issuer, Subject: e.Principal.Subject, Provider: e.Principal.Provider, Peer: e.Peer,
	}, t.name)
	x.Abridged = in.Caller.Abridged != nil && in.Caller.Abridged.Cut
	if x.Key, err = t.keyFact(r, in.Key, e.Custodian); err != nil {
		return nil, err
	}
	switch in.Question {
	case decision.Acquire, decision.Repeat:
		err = t.explainOpening(r, x, in, settings, l)
	case decision.Publish:
		err = t.explainPublish(r, x, in, settings)
	case decision.Deliver:
		x.Delivery = policy.ClearChecks(settings.Settings, x.Caller)
		if policy.AllPassed(x.Delivery) {
			x.Contradiction = "the caller may have keys in the clear"
		}
	}
	if x.OtherRules = in.Rules != policy.Rules; x.OtherRules || x.Abridged {
		x.Contradiction = "" // what decided is not all here
	}
	return x, err
}

// settingsAt returns the settings of a revision, verified.
func (t *Tenant) settingsAt(r store.Reader, revision uint32) (record.Settings, error) {
	s, known, err := record.GetSettingsRevision(r, t.id, revision)
	switch {
	case err != nil:
		return s, err
	case !known:
		return s, contradicts(fmt.Sprintf("revision %d of the settings, which is missing,", revision))
	}
	return s, verifySettings(r, t.id, s)
}

// policyAt returns the policy a license had, by its hash.
func (t *Tenant) policyAt(r store.Reader, c vocab.ContentID, hash [32]byte) (*policy.Policy, error) {
	b, err := record.GetPolicy(r, t.id, c, hash)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, contradicts("the policy that license " + c.String() + " had, which is missing,")
	}
	return license.DecodePolicy(b)
}

// templateOf returns the revision of a template that decided; nil if there was
// none.
func (t *Tenant) templateOf(r store.Reader, uid vocab.TemplateUID, revision uint32) (*policy.CompiledTemplate, error) {
	if revision == 0 {
		return nil, nil
	}
	tmpl, err := t.templateRevision(r, uid, revision)
	if err != nil {
		return nil, err
	}
	c, err := policy.CompileTemplate(tmpl)
	if err != nil {
		return nil, templateDamaged(err)
	}
	return c, nil
}

// opening is the question that was put about a license.
func (t *Tenant) opening(r store.Reader, x *Explanation, in *decision.Inputs, of decision.Parent) (*policy.Input, error) {
	p, err := t.policyAt(r, of.Content, of.License.Policy)
	if err != nil {
		return nil, err
	}
	q := &policy.Input{
		Policy: p, Caller: x.Caller, Right: vocab.RightView, Now: x.Event.Event.Time, Revocations: of.Revocations,
		Disabled: in.Caller.Disabled, Custody: vocab.CustodyCached, Recovery: in.Recovery,
	}
	if of.License.Strict {
		q.Custody = vocab.CustodyStrict
	}
	q.Template, err = t.templateOf(r, p.Template, of.TemplateRevision)
	return q, err
}

func (t *Tenant) explainOpening(r store.Reader, x *Explanation, in *decision.Inputs, settings record.Settings, l policy.Listing) error {
	e := x.Event.Event
	if in.License == nil {
		return contradicts("event " + e.ID.String())
	}
	q, err := t.opening(r, x, in, decision.Parent{
		Content: e.Content, License: in.License, Revocations: in.Revocations, TemplateRevision: e.TemplateRevision,
	})
	if err != nil {
		return err
	}
	q.Settings = settings.Settings
	if asked := e.Asked.List(); in.Question == decision.Acquire && len(asked) == 1 {
		q.Right = asked[0]
	}
	trace := policy.Explain(*q, l)
	x.Opening, x.Policy = &trace, q.Policy
	if q.Template != nil {
		x.Template = q.Template.Template
	}
	if x.Revocations, err = t.revocationFacts(r, q.Revocations); err != nil {
		return err
	}
	x.Contradiction = differs(e, &trace.Decision)
	return nil
}

// ruled are the reasons that come from the policy and from nothing else: an
// event with one tells of what the policy said. All other reasons came after
// it had allowed.
var ruled = map[vocab.Reason]bool{
	vocab.ReasonPrincipalDisabled: true, vocab.ReasonRoleRequired: true, vocab.ReasonNoRights: true, vocab.ReasonGroupsIncomplete: true,
	vocab.ReasonLicenseRevoked: true, vocab.ReasonTemplateDeleted: true, vocab.ReasonRightNotGranted: true, vocab.ReasonGrantEnded: true,
	vocab.ReasonStrongerLoginRequired: true, vocab.ReasonNetworkNotAllowed: true, vocab.ReasonLicenseExpired: true,
	vocab.ReasonNotAPublisher: true, vocab.ReasonAddressNotVerified: true, vocab.ReasonTemplateNotInScope: true, vocab.ReasonTemplateArchived: true,
}

// differsInReason compares what the policy says now with what was recorded; ""
// if they agree.
func differsInReason(e *audit.Event, allowed bool, reason vocab.Reason) string {
	recorded := e.Reason
	if !ruled[recorded] && (allowed || recorded != reason) {
		recorded = "" // the policy had allowed
	}
	if recorded == reason {
		return ""
	}
	say := func(r vocab.Reason) string {
		if r == "" {
			return "allowed"
		}
		return string(r)
	}
	return fmt.Sprintf("recorded was %s, decided again it is %s", say(recorded), say(reason))
}

// differs compares a decision made again with the event of the one that was
// made; "" if they agree.
func differs(e *audit.Event, d *policy.Decision) string {
	if s := differsInReason(e, d.Allowed, d.Reason); s != "" || e.Kind != audit.KindReleased {
		return s
	}
	switch {
	case e.Granted != d.Rights:
		return fmt.Sprintf("recorded are the rights %s, decided again they are %s", e.Granted, d.Rights)
	case e.NotAfter.After(useEnd(d, e.Cached)), e.Cached && d.Cache != policy.CacheStored,
		// What a recovery gives also ends with the recovery.
		!d.Recovery && !e.NotAfter.Equal(useEnd(d, e.Cached)):
		return "the use license that is recorded holds for another time"
	case e.Custody != d.Custody:
		return fmt.Sprintf("recorded is custody %s, decided again it is %s", e.Custody, d.Custody)
	}
	return ""
}

func (t *Tenant) explainPublish(r store.Reader, x *Explanation, in *decision.Inputs, settings record.Settings) (err error) {
	e, asked := x.Event.Event, in.Publish
	q := policy.PublishInput{
		Caller: x.Caller, Disabled: in.Caller.Disabled, Owner: asked.Owner, ByTemplate: asked.How == decision.ByTemplate,
		Settings: settings.Settings, Now: e.Time,
		Covering: func(*policy.Policy) []policy.Revocation { return in.Revocations },
	}
	if x.Revocations, err = t.revocationFacts(r, in.Revocations); err != nil {
		return err
	}
	x.NoTemplate = asked.Slug
	if q.ByTemplate && !e.Template.IsZero() {
		if q.Template, err = t.templateRevision(r, e.Template, e.TemplateRevision); err != nil {
			return err
		}
		x.Template = q.Template
	}
	for _, p := range asked.Parents {
		parent := policy.Parent{ID: p.Content}
		if p.License != nil {
			if parent.License, err = t.opening(r, x, in, p); err != nil {
				return err
			}
		}
		q.Parents = append(q.Parents, parent)
	}
	if in.License != nil {
		if x.Policy, err = t.policyAt(r, e.Content, in.License.Policy); err != nil {
			return err
		}
	}
	if asked.How == decision.AdHoc {
		q.AdHoc, q.NotAfter = adHocAsked(x.Policy, asked.Same, q)
	}
	trace := policy.ExplainPublish(q)
	x.Publishing = &trace
	x.Contradiction = differsInReason(e, trace.Allowed, trace.Reason)
	if x.Contradiction == "" && in.License != nil && e.Reason == "" {
		x.Contradiction, err = differsInLicense(e, &trace, in.License)
	}
	return err
}

// differsInLicense compares the license that is decided again with the one that
// was made; "" if they agree.
func differsInLicense(e *audit.Event, d *policy.PublishTrace, made *decision.License) (string, error) {
	b, err := license.EncodePolicy(d.Policy)
	if err != nil {
		return "", err
	}
	if license.PolicyHash(b) != made.Policy || e.Custody != d.Custody {
		return "the license that is recorded has another policy than the one decided again", nil
	}
	return "", nil
}

// adHocAsked is the ad hoc policy of a request: the one that was made, or that
// of the parent which binds; where none was made, nobody knows it any more, and
// one stands in for it that is no parent's.
func adHocAsked(made *policy.Policy, same bool, q policy.PublishInput) (*policy.AdHoc, time.Time) {
	if made != nil && made.AdHoc != nil {
		return made.AdHoc, made.NotAfter
	}
	for i, p := range policy.ExplainPublish(q).Parents {
		if same && p.Binds {
			return q.Parents[i].License.Policy.AdHoc, q.Parents[i].License.Policy.NotAfter
		}
	}
	return &policy.AdHoc{Kind: policy.AdHocGrants, Offline: time.Millisecond, Grants: []policy.Grant{{
		To: vocab.Principal{Kind: vocab.KindAnyone}, Rights: vocab.RightsOf(vocab.RightView),
	}}}, time.Time{}
}

// revocationFacts looks up who revoked.
func (t *Tenant) revocationFacts(r store.Reader, list []policy.Revocation) (out []RevocationFact, err error) {
	for _, v := range list {
		f := RevocationFact{Revocation: v}
		entry, err := audit.Find(r, t.id, v.Event)
		if err != nil && vocab.ReasonOf(err) != vocab.ReasonResourceNotFound {
			return nil, err
		}
		if err == nil && entry.Event.Kind != audit.KindLicenseEdited {
			f.At, f.By, f.Reason = entry.Event.Time, entry.Event.Principal.Name, entry.Event.Detail
		}
		out = append(out, f)
	}
	return out, nil
}

// keyFact names the key that stood so.
func (t *Tenant) keyFact(r store.Reader, k decision.Key, custodian vocab.CustodianID) (*KeyFact, error) {
	if k == (decision.Key{}) {
		return nil, nil
	}
	f := &KeyFact{Standing: keys.Standing{
		Number: k.Generation, Version: k.Version, State: keys.State(k.State), VersionState: keys.State(k.VersionState),
	}}
	registered := t.live.registered()
	for name, key := range registered {
		if key.ID == custodian || custodian.IsZero() && len(registered) == 1 {
			f.Name = name
		}
	}
	return f, nil
}
