package tenant

import (
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// inputs are what a decision rests on: enough to tell whether it still holds.
type inputs struct {
	record   *record.License
	policy   *policy.Policy
	head     *record.TemplateHead // of the template that the policy names, if there is one
	template *policy.CompiledTemplate
	settings uint32
	epoch    uint64  // of the tenant's resources
	lineage  lineage // read only while a revocation asks for it
}

// templateUID names the template that is read, zero if there is none.
func (in *inputs) templateUID() vocab.TemplateUID {
	if in.template == nil {
		return vocab.TemplateUID{}
	}
	return in.template.UID
}

// revision is that of the template, 0 if there is none.
func (in *inputs) revision() uint32 {
	if in.template == nil {
		return 0
	}
	return in.template.Revision
}

// hold reports in a transaction whether a decision's inputs are still so. It
// looks at revisions only: reading a template of 50,000 grants anew would hold
// up every writer.
func (t *Tenant) hold(tx store.Tx, c vocab.ContentID, in *inputs, settings record.Settings) (bool, error) {
	now, err := record.GetLicense(tx, t.id, c)
	if err != nil {
		return false, err
	}
	if now == nil || in.record == nil {
		return now == nil && in.record == nil, nil // nobody's standing changes that there is none
	}
	if epoch, err := record.Epoch(tx, t.id); err != nil || epoch != in.epoch {
		return false, err
	}
	if now.Revision != in.record.Revision || now.Tombstone != in.record.Tombstone || settings.Revision != in.settings {
		return false, nil
	}
	if in.policy == nil || in.policy.Template.IsZero() {
		return true, nil // a record of one revision has one policy
	}
	head, err := record.GetTemplate(tx, t.id, in.policy.Template)
	if err != nil || head == nil || in.head == nil {
		return head == nil && in.head == nil, err
	}
	return head.Revision == in.head.Revision, nil
}

// evaluation is the question to the policy.
func (in *inputs) evaluation(who standing, right vocab.Right, now time.Time, settings record.Settings) policy.Input {
	return policy.Input{
		Policy: in.policy, Template: in.template, Caller: who.caller, Disabled: who.disabled, Right: right, Now: now,
		Settings: settings.Settings, Revocations: in.revocations(who), Custody: in.record.Custody(),
	}
}

// readInputs reads a license and its template.
func (t *Tenant) readInputs(r store.Reader, c vocab.ContentID, settings record.Settings) (in inputs, err error) {
	in.settings = settings.Revision
	if in.epoch, err = record.Epoch(r, t.id); err != nil {
		return in, err
	}
	if in.record, err = record.GetLicense(r, t.id, c); err != nil || in.record == nil || in.record.Tombstone != 0 {
		return in, err
	}
	if in.policy, err = in.record.DecodePolicy(); err != nil || in.policy.Template.IsZero() {
		return in, err
	}
	if in.head, err = record.GetTemplate(r, t.id, in.policy.Template); err != nil || in.head == nil {
		return in, err
	}
	in.template, err = t.current(r, in.policy.Template, in.head)
	return in, err
}
