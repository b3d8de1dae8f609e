package tenant

import (
	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
)

// What a decision read goes into its event, so that it can be made again and
// explained when licenses, templates, settings and people have changed: see
// package decision, and explain.go.

// remember writes what a decision read into its event. An event without it is
// better than none: a failure, which only a defect can cause, is logged.
func (t *Tenant) remember(e *audit.Event, in *decision.Inputs, named func(vocab.Principal) bool) {
	in.Rules = policy.Rules
	b, err := decision.Encode(in, e.Principal.Name, named)
	if err != nil {
		t.logger.Error("what a decision read was not recorded", "tenant", t.name, "event", e.ID.String(), "error", err)
	}
	e.Decision = b
}

// rememberOpening writes what a decision on a license read. caller is the
// identity as it came through the door; the question holds it with the groups
// of the tenant's directory.
func (t *Tenant) rememberOpening(e *audit.Event, q decision.Question, in *inputs, put *policy.Input, caller *vocab.Identity) {
	t.remember(e, &decision.Inputs{
		Question: q, Settings: in.settings, Caller: callerInputs(put.Caller, caller, put.Disabled),
		License: licenseInputs(in.record, put.Custody), Revocations: put.Revocations, Key: t.keyInputs(in.record), Recovery: put.Recovery,
	}, put.Names)
}

// callerInputs keeps the groups of the token and those of the directory apart:
// the latter were appended by standingOf.
func callerInputs(with, token *vocab.Identity, disabled bool) decision.Caller {
	return decision.CallerOf(token, with.Groups[min(len(token.Groups), len(with.Groups)):], disabled)
}

func licenseInputs(l *record.License, mode vocab.CustodyMode) *decision.License {
	return &decision.License{Policy: license.PolicyHash(l.Policy), Strict: mode == vocab.CustodyStrict}
}

// keyInputs is how a license's key stands now.
func (t *Tenant) keyInputs(l *record.License) decision.Key {
	var own *license.Wrap
	if len(l.Wrap) > 0 {
		var err error
		if own, err = license.ParseWrap(l.Wrap); err != nil {
			return decision.Key{} // using it will say so
		}
	}
	s := t.ring.Standing(l.Generation, own)
	return decision.Key{Generation: s.Number, Version: s.Version, State: uint8(s.State), VersionState: uint8(s.VersionState)}
}

// rememberDelivery writes what the refusal of a clear key read.
func (t *Tenant) rememberDelivery(e *audit.Event, caller *vocab.Identity) {
	t.remember(e, &decision.Inputs{
		Question: decision.Deliver, Settings: t.settings.Load().Revision, Caller: decision.CallerOf(caller, nil, false),
	}, func(vocab.Principal) bool { return false })
}

// rememberPublish writes what the decision to publish read and, once there is
// one, which policy and key the license has.
func (t *Tenant) rememberPublish(p *publication) {
	in := &p.question
	asked := &decision.Publishing{How: decision.TakenOver, Owner: in.Owner}
	switch {
	case in.ByTemplate:
		asked.How = decision.ByTemplate
		if in.Template == nil && vocab.ValidSlug(p.req.Template) {
			asked.Slug = p.req.Template
		}
	case in.AdHoc != nil:
		asked.How, asked.Same = decision.AdHoc, p.decision.Allowed && p.decision.Derived
	}
	for i, parent := range in.Parents {
		q := decision.Parent{Content: parent.ID}
		if parent.License != nil {
			from := &p.basis.parents[i]
			q.License, q.Revocations = licenseInputs(from.record, parent.License.Custody), parent.License.Revocations
			q.Revision, q.TemplateRevision = from.record.Revision, from.revision()
		}
		asked.Parents = append(asked.Parents, q)
	}
	inputs := &decision.Inputs{
		Question: decision.Publish, Settings: p.basis.settings.Revision, Publish: asked,
		Caller: callerInputs(in.Caller, p.caller, in.Disabled), Revocations: p.revoking,
	}
	if p.record != nil {
		inputs.License = licenseInputs(p.record, p.record.Custody())
		inputs.Key = t.keyInputs(p.record)
	}
	t.remember(p.event, inputs, in.Names)
}
