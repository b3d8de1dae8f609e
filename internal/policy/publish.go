package policy

import (
	"slices"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// PublishInput is everything the decision to publish rests on.
type PublishInput struct {
	// Caller is the verified identity; it becomes the issuer.
	Caller *vocab.Identity
	// Disabled says the caller, or the service acting for it, was disabled.
	Disabled bool
	// Owner is whose the content shall be; zero is the caller. Only a
	// service may name somebody else.
	Owner vocab.Principal
	// ByTemplate says the request names a template; Template is that
	// template, nil if there is none of that name.
	ByTemplate bool
	Template   *Template
	// AdHoc is the policy itself if the request names no template. With
	// neither, the policy of the first parent is taken over.
	AdHoc *AdHoc
	// NotAfter is the content expiry asked for with an ad hoc policy; zero
	// is never. A template brings its own.
	NotAfter time.Time
	// Parents are the documents the content was made from.
	Parents []Parent
	// AppData is stored as it is.
	AppData []byte
	// Covering returns the revocations that would cover a license with this
	// policy and these parents, issued now, and the caller; nil: none.
	Covering func(*Policy) []Revocation
	// Settings are the tenant's, Now the server's clock.
	Settings Settings
	Now      time.Time
}

// Parent is a document the new one is made from.
type Parent struct {
	ID vocab.ContentID
	// License is what [Evaluate] needs to know of it (policy, template,
	// revocations, custody); nil if there is no such license. Caller,
	// right, clock, settings and Disabled are those of the publish.
	License *Input
}

// PublishDecision is the answer of [MayPublish].
type PublishDecision struct {
	Allowed bool
	// Reason is why not; empty if allowed.
	Reason vocab.Reason
	// Policy is what the license must store, complete; nil if refused.
	Policy *Policy
	// Revision is that of the template, 0 if ad hoc.
	Revision uint32
	// Custody is the mode to publish with: the stricter of tenant and
	// template.
	Custody vocab.CustodyMode
	// Derived says the caller may not re-protect a parent, so the new
	// license keeps that parent's owner, issuer and policy.
	Derived bool

	err error
}

// Err returns the refusal as the caller may read it, nil if allowed.
func (d PublishDecision) Err() error {
	if d.Allowed {
		return nil
	}
	return d.err
}

func refuse(err error) PublishDecision {
	return PublishDecision{Reason: vocab.ReasonOf(err), err: err}
}

// MayPublish decides whether the caller may protect content in the way asked
// for and, if so, what the license says. Order: principal, onboarding control,
// delegation, shape, parents, template, revocations.
func MayPublish(in PublishInput) PublishDecision {
	if in.Caller == nil || in.Now.IsZero() {
		return refuse(refusal(vocab.ReasonInternal, 0, ""))
	}
	in.Now = milli(in.Now)
	if in.Disabled {
		return refuse(refusal(vocab.ReasonPrincipalDisabled, 0, ""))
	}
	if throughPerson(in.Caller) {
		return refuse(refusal(vocab.ReasonRoleRequired, 0, ""))
	}
	who, err := in.publisher()
	if err != nil {
		return refuse(err)
	}
	owner, err := in.owner(who)
	if err != nil {
		return refuse(err)
	}
	if err := in.shape(); err != nil {
		return refuse(err)
	}
	base, derived, err := in.parents()
	if err != nil {
		return refuse(err)
	}
	d := PublishDecision{Derived: derived}
	if d.Policy, err = in.policy(base, derived, who); err != nil {
		return refuse(err)
	}
	if err := in.complete(d.Policy, owner, derived); err != nil {
		return refuse(err)
	}
	if err := in.revoked(d.Policy); err != nil {
		return refuse(err)
	}
	t := in.templateOf(d.Policy, base)
	d.Custody = strictest(vocab.CustodyCached, 0, in.Settings.Custody)
	if t != nil {
		d.Revision = t.Revision
		d.Custody = strictest(vocab.CustodyCached, t.Custody, in.Settings.Custody)
	}
	d.Allowed = true
	return d
}

// publisher applies onboarding control: guests never publish, and if the
// tenant names publishers the caller must be one.
func (in *PublishInput) publisher() (caller, error) {
	refusedPublisher := vocab.Errorf(vocab.ReasonNotAPublisher, "you may not protect documents in this tenant").
		WithNext("Ask an administrator to let you publish")
	who, ok := admit(in.Caller, nil)
	if !ok || who.guest {
		return who, refusedPublisher
	}
	if len(in.Settings.Publishers) > 0 && !slices.ContainsFunc(in.Settings.Publishers, who.is) {
		if in.Caller.GroupsIncomplete {
			return who, refusal(vocab.ReasonGroupsIncomplete, 0, "")
		}
		return who, refusedPublisher
	}
	return who, nil
}

// owner works out whose the content is.
func (in *PublishInput) owner(who caller) (vocab.Principal, error) {
	switch {
	case in.Owner.IsZero() && in.Caller.Service != "":
		return vocab.Principal{Kind: vocab.KindService, Value: in.Caller.Service}, nil
	case in.Owner.IsZero() && len(in.Caller.Addresses) > 0:
		return vocab.Principal{Kind: vocab.KindUser, Value: in.Caller.Addresses[0]}, nil
	case in.Owner.IsZero():
		return vocab.Principal{}, vocab.Errorf(vocab.ReasonAddressNotVerified,
			"your identity provider vouches for no e-mail address of yours, so nobody could own the document")
	case !ownable(in.Owner):
		return vocab.Principal{}, invalid("the owner must be a user or a service")
	case !who.is(in.Owner) && in.Caller.Service == "":
		return vocab.Principal{}, vocab.Errorf(vocab.ReasonRoleRequired, "only a service may protect on behalf of somebody else")
	}
	return in.Owner, nil
}

// shape checks the request by itself.
func (in *PublishInput) shape() error {
	notAfter := milli(in.NotAfter)
	switch {
	case in.ByTemplate && in.AdHoc != nil:
		return invalid("want either a template or an ad hoc policy, not both")
	case !in.ByTemplate && in.AdHoc == nil && len(in.Parents) == 0:
		return invalid("want a template or an ad hoc policy")
	case in.AdHoc == nil && !notAfter.IsZero():
		return invalid("a content expiry goes with an ad hoc policy only")
	case !notAfter.IsZero() && !notAfter.After(in.Now):
		return invalid("the content expiry is not in the future")
	case !storable(notAfter):
		return invalid("the content expiry cannot be stored")
	case len(in.AppData) > MaxAppData:
		return invalid("%d bytes of application data: at most %d are allowed", len(in.AppData), MaxAppData)
	case len(in.Parents) > MaxParents:
		return invalid("%d parents: at most %d are allowed", len(in.Parents), MaxParents)
	}
	for i, p := range in.Parents {
		if slices.ContainsFunc(in.Parents[:i], func(q Parent) bool { return q.ID == p.ID }) {
			return invalid("a parent is named twice")
		}
	}
	if in.AdHoc != nil {
		return in.AdHoc.Validate()
	}
	return nil
}

// parents checks every parent and returns the one whose policy counts: the
// first that binds the caller (derived), else the first.
func (in *PublishInput) parents() (base *Input, derived bool, err error) {
	for _, p := range in.Parents {
		q, found := in.opening(p, vocab.RightView)
		if !found {
			// The same answer as for a license the caller has no rights on.
			return nil, false, refusal(vocab.ReasonNoRights, 0, "")
		}
		d := Evaluate(q)
		if !d.Allowed {
			return nil, false, d.Err()
		}
		free := d.Rights.Has(vocab.RightExport)
		switch {
		case !free && !d.Rights.Has(vocab.RightEdit):
			return nil, false, refusal(vocab.ReasonRightNotGranted, vocab.RightEdit, d.Contact)
		case !free && derived && !sameTerms(base.Policy, q.Policy):
			return nil, false, vocab.Errorf(vocab.ReasonRightNotGranted,
				"the documents are protected differently, and joining them needs EXPORT")
		case !free && !derived:
			base, derived = &q, true
		case base == nil:
			base = &q
		}
	}
	return base, derived, nil
}

// opening is the question whether the caller may exercise a right on a parent;
// found is false if there is no such license.
func (in *PublishInput) opening(p Parent, right vocab.Right) (q Input, found bool) {
	if p.License == nil || p.License.Policy == nil {
		return q, false
	}
	q = *p.License
	q.Caller, q.Now, q.Settings, q.Disabled, q.Right = in.Caller, in.Now, in.Settings, in.Disabled, right
	// What was revoked begets nothing, not even for its issuer.
	q.Settings.IssuerOpensRevoked = false
	return q, true
}

// policy is what the license says, but for owner and issuer.
func (in *PublishInput) policy(base *Input, derived bool, who caller) (*Policy, error) {
	switch {
	case derived:
		return in.inherit(base)
	case in.ByTemplate || in.AdHoc != nil:
		return in.chosen(who)
	}
	return in.takenOver(base, who)
}

// inherit is a derived publish: whoever may edit but not re-protect makes a
// new document under the old terms. Owner and issuer stay the parent's, since
// either would otherwise hand the caller OWNER.
func (in *PublishInput) inherit(base *Input) (*Policy, error) {
	p := base.Policy
	other := vocab.Errorf(vocab.ReasonRightNotGranted, "protecting an edited document in another way needs EXPORT").
		WithNext("Keep the protection of the original")
	switch {
	case !in.Owner.IsZero() && in.Owner != p.Owner,
		in.ByTemplate && (in.Template == nil || in.Template.UID != p.Template),
		in.AdHoc != nil && (p.AdHoc == nil || !sameAdHoc(in.AdHoc, p.AdHoc) || !milli(in.NotAfter).Equal(milli(p.NotAfter))):
		return nil, other
	}
	return terms(p), nil
}

// chosen is the policy the request asks for.
func (in *PublishInput) chosen(who caller) (*Policy, error) {
	if !in.ByTemplate {
		return &Policy{AdHoc: in.AdHoc, NotAfter: milli(in.NotAfter)}, nil
	}
	t := in.Template
	if t == nil || t.UID.IsZero() || !selects(t, who) {
		if t != nil && in.Caller.GroupsIncomplete {
			return nil, refusal(vocab.ReasonGroupsIncomplete, 0, "")
		}
		return nil, vocab.Errorf(vocab.ReasonTemplateNotInScope, "there is no template of this name that you may choose").
			WithNext("List the templates you may choose")
	}
	if err := choosable(t); err != nil {
		return nil, err
	}
	notAfter := t.Expiry.NotAfter(in.Now)
	if !notAfter.IsZero() && !notAfter.After(in.Now) {
		return nil, invalid("the content expiry of this template has passed, so nobody could open the document").
			WithNext("Choose another template")
	}
	return &Policy{Template: t.UID, NotAfter: notAfter}, nil
}

// takenOver is the policy of the first parent, for a caller who could have
// chosen another one. It is a choice like any other.
func (in *PublishInput) takenOver(base *Input, who caller) (*Policy, error) {
	p := terms(base.Policy)
	if p.AdHoc == nil {
		choice := *in
		choice.ByTemplate, choice.Template = true, nil
		if base.Template != nil {
			choice.Template = base.Template.Template
		}
		return choice.chosen(who)
	}
	if e := milli(p.NotAfter); !e.IsZero() && !e.After(in.Now) {
		return nil, invalid("the original has expired, so nobody could open the document").
			WithNext("Name a policy")
	}
	return p, nil
}

// complete adds to the terms of a new license whose it is, and from what it was
// made.
func (in *PublishInput) complete(p *Policy, owner vocab.Principal, derived bool) error {
	if !derived {
		p.Owner = owner
		p.Issuer = Issuer{Issuer: in.Caller.Issuer, Subject: in.Caller.Subject}
		if in.Caller.Service == "" && len(in.Caller.Addresses) > 0 {
			p.Issuer.Address = in.Caller.Addresses[0]
		}
	}
	for _, parent := range in.Parents {
		p.Parents = append(p.Parents, parent.ID)
	}
	p.AppData = in.AppData
	return p.Validate()
}

// revoked refuses what would be born revoked, before somebody removes the
// original and cannot open what took its place.
func (in *PublishInput) revoked(p *Policy) error {
	if in.Covering == nil {
		return nil
	}
	list := in.Covering(p)
	switch {
	case len(list) == 0:
		return nil
	case groupsDecide(list):
		return refusal(vocab.ReasonGroupsIncomplete, 0, "")
	}
	return vocab.Errorf(vocab.ReasonLicenseRevoked, "documents protected like this are revoked, so you could not open it").
		WithNext("Ask an administrator")
}

// choosable refuses templates that are not published.
func choosable(t *Template) error {
	switch t.State {
	case StatePublished:
		return nil
	case StateArchived:
		return vocab.Errorf(vocab.ReasonTemplateArchived, "this template is archived and cannot be chosen any more").
			WithNext("List the templates you may choose")
	default:
		return vocab.Errorf(vocab.ReasonTemplateDeleted, "this template was deleted").
			WithNext("List the templates you may choose")
	}
}

// templateOf returns the template a decided policy names.
func (in *PublishInput) templateOf(p *Policy, base *Input) *Template {
	switch {
	case p.Template.IsZero():
		return nil
	case in.Template != nil && in.Template.UID == p.Template:
		return in.Template
	case base != nil && base.Template != nil && base.Policy.Template == p.Template:
		return base.Template.Template
	}
	return nil
}

// MayChoose reports whether the caller could publish with the template as far
// as the template says: it is published and the caller in its scope. Whether
// the caller may publish at all is onboarding control ([MayPublish]).
func MayChoose(t *Template, id *vocab.Identity) bool {
	if t == nil || id == nil {
		return false
	}
	who, ok := admit(id, nil)
	return ok && !who.guest && t.State == StatePublished && selects(t, who)
}

func selects(t *Template, who caller) bool {
	return len(t.Select) == 0 || slices.ContainsFunc(t.Select, who.is)
}

// terms copies what a derived document keeps.
func terms(p *Policy) *Policy {
	return &Policy{Owner: p.Owner, Issuer: p.Issuer, Template: p.Template, AdHoc: p.AdHoc, NotAfter: milli(p.NotAfter)}
}

func sameTerms(p, q *Policy) bool {
	return p.Owner == q.Owner && p.Issuer == q.Issuer && p.Template == q.Template &&
		milli(p.NotAfter).Equal(milli(q.NotAfter)) && sameAdHoc(p.AdHoc, q.AdHoc)
}

func sameAdHoc(a, b *AdHoc) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.Offline == b.Offline && slices.EqualFunc(a.Grants, b.Grants, SameGrant)
}
