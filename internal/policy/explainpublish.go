package policy

import (
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// PublishTrace is a decision to publish and how it came about; like [Trace] it
// is not for who is refused.
type PublishTrace struct {
	PublishDecision
	KnownAs []vocab.Principal
	Guest   bool
	// Checks are all checks in their order; those about a template or parents
	// only if there are any.
	Checks []Check
	// Parents are the documents the content was made from, in the order of
	// the request.
	Parents  []ParentTrace
	Remedies []Remedy
}

// ParentTrace is what a parent means for the decision.
type ParentTrace struct {
	ID vocab.ContentID
	// Found says there is such a license; nothing else is set if not.
	Found bool
	// Decision is that on opening it.
	Decision Decision
	// Free says the caller may protect a copy under any terms, Binds that
	// the new license must keep this parent's.
	Free, Binds bool
}

// ExplainPublish decides as [MayPublish] does and says how that came about.
func ExplainPublish(in PublishInput) PublishTrace {
	t := PublishTrace{PublishDecision: MayPublish(in)}
	if in.Caller == nil || in.Now.IsZero() {
		t.Checks = []Check{{CheckRequest, Failed, t.Reason}}
		return t
	}
	in.Now = milli(in.Now)
	who, _ := admit(in.Caller, nil)
	t.KnownAs, t.Guest = who.known, who.guest
	t.Parents = in.traceParents()
	t.Checks = in.checks(who)
	if !t.Allowed {
		t.Remedies = publishRemedies(in)
	}
	return t
}

// traceParents says what each parent allows.
func (in *PublishInput) traceParents() (out []ParentTrace) {
	for _, p := range in.Parents {
		t := ParentTrace{ID: p.ID}
		if q, found := in.opening(p, vocab.RightView); found {
			t.Found, t.Decision = true, Evaluate(q)
			t.Free = t.Decision.Rights.Has(vocab.RightExport)
			t.Binds = !t.Free && t.Decision.Rights.Has(vocab.RightEdit)
		}
		out = append(out, t)
	}
	return out
}

// checks goes through the checks in the order of MayPublish.
func (in *PublishInput) checks(who caller) []Check {
	var out []Check
	add := func(name CheckName, err error) {
		c := Check{Name: name, Outcome: Passed}
		if err != nil {
			c.Outcome, c.Reason = Failed, vocab.ReasonOf(err)
		}
		out = append(out, c)
	}
	unless := func(fails bool, r vocab.Reason) error {
		if fails {
			return refusal(r, 0, "")
		}
		return nil
	}
	add(CheckEnabled, unless(in.Disabled, vocab.ReasonPrincipalDisabled))
	add(CheckActor, unless(throughPerson(in.Caller), vocab.ReasonRoleRequired))
	_, err := in.publisher()
	add(CheckPublisher, err)
	owner, err := in.owner(who)
	add(CheckOwner, err)
	err = in.shape()
	add(CheckRequest, err)
	if err != nil {
		return out
	}
	base, derived, err := in.parents()
	if len(in.Parents) > 0 {
		add(CheckParents, err)
	}
	if err != nil {
		return out // what may be chosen depends on them
	}
	made, err := in.policy(base, derived, who)
	switch reason := vocab.ReasonOf(err); {
	case derived:
		add(CheckTerms, err)
	case reason == vocab.ReasonTemplateNotInScope, reason == vocab.ReasonGroupsIncomplete:
		add(CheckScope, err)
	case reason == vocab.ReasonRequestInvalid:
		add(CheckExpiry, err)
	case in.asked(base) != nil:
		add(CheckScope, nil)
		add(CheckTemplate, err)
	}
	if err == nil && in.Covering != nil && in.complete(made, owner, derived) == nil {
		add(CheckRevoked, in.revoked(made))
	}
	return out
}

// asked is the template the new license would follow; nil if none, or if there
// is none of that name.
func (in *PublishInput) asked(base *Input) *Template {
	switch {
	case in.ByTemplate:
		return in.Template
	case in.AdHoc == nil && base != nil && base.Template != nil:
		return base.Template.Template
	}
	return nil
}

// publishRemedies works like remedies: what helps is applied until MayPublish
// allows.
func publishRemedies(in PublishInput) (out []Remedy) {
	for range maxRemedies {
		if MayPublish(in).Allowed {
			return out
		}
		r, ok := in.remedy()
		if !ok {
			return nil
		}
		// What is given last holds what was given before.
		out = append(slices.DeleteFunc(out, func(o Remedy) bool {
			return o.Kind == r.Kind && o.Content == r.Content && o.To == r.To && o.Rights != 0
		}), r)
	}
	return nil
}

// remedy is what helps against a refusal, if anything does. It changes the
// question to what would be asked once it was applied.
func (in *PublishInput) remedy() (Remedy, bool) {
	who, _ := admit(in.Caller, nil)
	self := Input{Caller: in.Caller, Settings: in.Settings, Disabled: in.Disabled}
	to, known := self.address()
	if in.Disabled {
		in.Disabled = false
		return Remedy{Kind: RemedyEnable, To: to}, known
	}
	if throughPerson(in.Caller) || who.guest || !known {
		return Remedy{}, false
	}
	if _, err := in.publisher(); err != nil {
		in.Settings.Publishers = append(slices.Clone(in.Settings.Publishers), to)
		return Remedy{Kind: RemedyPublisher, To: to}, true
	}
	if _, err := in.owner(who); err != nil || in.shape() != nil {
		return Remedy{}, false
	}
	base, derived, err := in.parents()
	if err != nil || derived {
		return in.freeParents()
	}
	template := in.asked(base)
	if template == nil || template.UID.IsZero() {
		return Remedy{}, false
	}
	next, r := *template, Remedy{}
	switch {
	case !selects(template, who):
		r = Remedy{Kind: RemedySelect, To: to}
		next.Select = append(slices.Clone(template.Select), to)
	case template.State == StateArchived:
		r.Kind, next.State = RemedyPublish, StatePublished
	case template.State == StateDeleted:
		r.Kind, next.State = RemedyUndelete, StateArchived
	default:
		return Remedy{}, false
	}
	if in.ByTemplate {
		in.Template = &next
	} else {
		p := *base // the first parent
		p.Template = &CompiledTemplate{Template: &next, index: base.Template.index}
		in.setParent(0, &p)
	}
	return r, true
}

// freeParents helps with the first parent that is in the way: each must open
// and be editable, and if that is not enough, be free of terms.
func (in *PublishInput) freeParents() (Remedy, bool) {
	for _, right := range []vocab.Right{vocab.RightView, vocab.RightEdit, vocab.RightExport} {
		for i, p := range in.Parents {
			q, found := in.opening(p, right)
			if !found {
				return Remedy{}, false
			}
			d := Evaluate(q)
			if d.Allowed {
				continue
			}
			q.Right = vocab.RightExport
			if right == vocab.RightEdit && Evaluate(q).Allowed {
				continue // more than enough
			}
			q.Right = right
			r, ok := q.remedy(d)
			if !ok {
				return r, false
			}
			r.Content = p.ID
			q = r.after(q)
			in.Caller, in.Settings.GuestDomains = q.Caller, q.Settings.GuestDomains
			in.setParent(i, &q)
			return r, true
		}
	}
	return Remedy{}, false
}

func (in *PublishInput) setParent(i int, q *Input) {
	in.Parents = slices.Clone(in.Parents)
	in.Parents[i].License = q
}
