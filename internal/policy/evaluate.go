package policy

import (
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// CompiledTemplate is a template with its grants indexed: make one for each
// revision and keep it. It is immutable and safe for concurrent use.
type CompiledTemplate struct {
	*Template
	index *Index
}

// CompileTemplate indexes a template, which must not change afterwards. The
// error says which grant cannot be understood.
func CompileTemplate(t *Template) (*CompiledTemplate, error) {
	x, err := NewIndex(t.Grants)
	if err != nil {
		return nil, err
	}
	return &CompiledTemplate{Template: t, index: x}, nil
}

// Input is everything a decision rests on. Nothing else takes part.
type Input struct {
	// Policy is the license's.
	Policy *Policy
	// Template is the current revision of the template the policy names,
	// its tombstone if it was deleted; nil if the policy is ad hoc or the
	// template is gone.
	Template *CompiledTemplate
	// Caller is the verified identity whose rights count: the user's, if a
	// service acts for one.
	Caller *vocab.Identity
	// Right is what the caller is about to do.
	Right vocab.Right
	// Now is the server's clock.
	Now time.Time
	// Settings are the tenant's.
	Settings Settings
	// Revocations are all that cover the license, caller or recipient key.
	Revocations []Revocation
	// Disabled says the caller, or the service acting for it, was disabled.
	Disabled bool
	// Custody is the mode the license was published with.
	Custody vocab.CustodyMode
	// Recovery says that the request names a recovery that was approved,
	// has not ended, is the caller's and covers the license (break-glass).
	Recovery bool
}

// Rules is the number of the rules that [Evaluate] and [MayPublish] follow. It
// grows by one whenever the same input can be decided otherwise than before, so
// that an earlier decision is not taken for one that somebody changed.
const Rules = 1

// OnlineWindow is how long a use license that must not be kept stays valid: the
// time between the server's decision and the client's beginning to read.
const OnlineWindow = 5 * time.Minute

// Evaluate decides whether the caller may exercise the right now, and for how
// long the answer holds. It follows, in this order: principal, revocation,
// template, grants, content expiry, validity; docs/policy.md has the order of
// reasons. Whoever has no grant at all gets NO_RIGHTS whatever else is true of
// the license, so a stranger learns nothing.
func Evaluate(in Input) Decision {
	d := Decision{Right: in.Right}
	if in.Caller == nil || in.Policy == nil || in.Now.IsZero() {
		return d.deny(vocab.ReasonInternal)
	}
	if !in.Right.Valid() {
		return d.deny(vocab.ReasonRequestInvalid)
	}
	now := milli(in.Now)
	d.Time = now
	d.ContentNotAfter = milli(in.Policy.NotAfter)
	if t := in.Template; t != nil && t.Template != nil {
		d.Contact = t.Contact
	}
	if in.Disabled {
		return d.deny(vocab.ReasonPrincipalDisabled)
	}
	if throughPerson(in.Caller) {
		return d.deny(vocab.ReasonRoleRequired)
	}
	who, ok := admit(in.Caller, in.Settings.GuestDomains)
	if !ok {
		d.GuestNotAdmitted = true
		return d.deny(vocab.ReasonNoRights)
	}
	p, reason := in.source(&d)
	if reason != "" {
		return d.deny(reason)
	}
	d.Matches = p.matches(who, now)
	d.Role = in.Policy.roleOf(in.Caller, who)
	if in.Recovery {
		// A second person has weighed it: neither grants nor expiry nor a
		// revocation count, and what is opened is not kept.
		d.Recovery, d.Rights, d.ExpiryExempt = true, vocab.AllRights, true
		d.Revoked = len(in.Revocations) > 0
		d.RevocationExempt = d.Revoked
		return in.validity(d, p, who)
	}
	if d.Role == RoleNone {
		if p.missing {
			return d.deny(vocab.ReasonTemplateDeleted)
		}
		if len(d.Matches) == 0 {
			return d.denyForLack(vocab.ReasonNoRights, in.Caller)
		}
	}

	d.Revoked = len(in.Revocations) > 0
	if d.Revoked {
		if groupsDecide(in.Revocations) {
			return d.denyForLack(vocab.ReasonLicenseRevoked, in.Caller)
		}
		if !in.issuerExempt(d.Role) {
			return d.deny(vocab.ReasonLicenseRevoked)
		}
		d.RevocationExempt = true
	}
	if d.Role != RoleNone {
		// Owner and issuer have their rights from the license itself, so
		// neither the template nor expiry touches them.
		d.Rights = vocab.AllRights
		d.ExpiryExempt = true
		return in.validity(d, p, who)
	}
	if p.deleted {
		return d.deny(vocab.ReasonTemplateDeleted)
	}
	if reason := missing(d.Matches, in.Right); reason != "" {
		if reason == vocab.ReasonRightNotGranted {
			return d.denyForLack(reason, in.Caller)
		}
		return d.deny(reason)
	}
	if d.contentExpired() {
		return d.deny(vocab.ReasonLicenseExpired)
	}
	d.Rights = united(d.Matches, Match.Active).Effective()
	return in.validity(d, p, who)
}

// throughPerson reports whether a person acts for the caller, which only a
// service may.
func throughPerson(id *vocab.Identity) bool {
	return id.Actor != nil && id.Actor.Service == ""
}

// contentExpired reports whether the content has expired by now.
func (d Decision) contentExpired() bool {
	return !d.ContentNotAfter.IsZero() && !d.ContentNotAfter.After(d.Time)
}

// source is where the grants of a license come from.
type source struct {
	index   *Index  // by template
	grants  []Grant // ad hoc
	offline time.Duration
	custody vocab.CustodyMode
	deleted bool // the template is a tombstone
	missing bool // there is not even a tombstone
}

// source finds the grants, and what refuses the license altogether.
func (in *Input) source(d *Decision) (source, vocab.Reason) {
	byTemplate, adHoc := !in.Policy.Template.IsZero(), in.Policy.AdHoc
	if byTemplate == (adHoc != nil) {
		return source{}, vocab.ReasonStoreDamaged
	}
	if adHoc != nil {
		if in.Template != nil {
			return source{}, vocab.ReasonInternal
		}
		for _, g := range adHoc.Grants {
			if !g.sound() {
				return source{}, vocab.ReasonStoreDamaged
			}
		}
		return source{grants: adHoc.Grants, offline: adHoc.Offline}, ""
	}
	t := in.Template
	if t == nil || t.Template == nil || t.index == nil {
		// Nobody knows how careful it was, so what it protects is not kept.
		return source{missing: true, custody: vocab.CustodyStrict}, ""
	}
	if t.UID != in.Policy.Template {
		return source{}, vocab.ReasonInternal
	}
	d.Template, d.Revision = t.UID, t.Revision
	s := source{index: t.index, offline: t.Offline, custody: t.Custody}
	// A state we do not know is not one that opens.
	s.deleted = t.State != StatePublished && t.State != StateArchived
	return s, ""
}

// find returns the caller's grants. Ad hoc policies are short and freshly
// decoded, so they are walked; templates are looked up.
func (s source) find(known []vocab.Principal) []int32 {
	if s.index != nil {
		return s.index.find(known)
	}
	if len(s.grants) == 0 {
		return nil
	}
	mine := make(map[vocab.Principal]bool, len(known))
	for _, p := range known {
		mine[p] = true
	}
	var out []int32
	for i, g := range s.grants {
		if mine[g.To] {
			out = append(out, int32(i))
		}
	}
	return out
}

func (s source) grant(i int32) Grant {
	if s.index != nil {
		return s.index.grants[i]
	}
	return s.grants[i]
}

// matches judges every grant that names the caller.
func (s source) matches(who caller, now time.Time) (out []Match) {
	for _, i := range s.find(who.known) {
		out = append(out, who.judge(int(i), s.grant(i), now))
	}
	return out
}

// roleOf says whether the caller is issuer or owner; issuer if both, since it
// may more. The issuer is compared by identity, the owner by principal. To be the
// issuer is a role of people: a service is the owner of what it protected for
// itself, and nobody to what it protected for others.
func (p *Policy) roleOf(id *vocab.Identity, who caller) Role {
	if !p.Issuer.Service() && p.Issuer.Is(id) {
		return RoleIssuer
	}
	if k := p.Owner.Kind; (k == vocab.KindUser || k == vocab.KindService) && who.is(p.Owner) {
		return RoleOwner
	}
	return RoleNone
}

// issuerExempt reports whether the role passes the revocations: the issuer
// does, by tenant option, if all that was revoked is this one document.
func (in *Input) issuerExempt(role Role) bool {
	if role != RoleIssuer || !in.Settings.IssuerOpensRevoked {
		return false
	}
	for _, r := range in.Revocations {
		if r.Scope != RevokedDocument {
			return false
		}
	}
	return true
}

// united returns the union of the rights of the matches that count.
func united(ms []Match, counts func(Match) bool) vocab.Rights {
	var out vocab.Rights
	for _, m := range ms {
		if counts(m) {
			out |= m.Rights
		}
	}
	return out
}

// missing says why the matches do not give the right, "" if they do. VIEW must
// be among them in any case: no key is released to somebody who may not see.
//
// If conditions are in the way, the reason is the first single thing that
// would help: a stronger login, another network, both (login is named), and
// only then a grant that ended.
func missing(ms []Match, right vocab.Right) vocab.Reason {
	gives := func(counts func(Match) bool) bool {
		rights := united(ms, counts)
		return rights.Has(vocab.RightView) && rights.Has(right)
	}
	switch {
	case gives(Match.Active):
		return ""
	case gives(func(m Match) bool { return !m.Ended && !m.NeedsNetwork }):
		return vocab.ReasonStrongerLoginRequired
	case gives(func(m Match) bool { return !m.Ended && !m.NeedsLogin }):
		return vocab.ReasonNetworkNotAllowed
	case gives(func(m Match) bool { return !m.Ended }):
		return vocab.ReasonStrongerLoginRequired
	case gives(func(Match) bool { return true }):
		return vocab.ReasonGrantEnded
	}
	return vocab.ReasonRightNotGranted
}

// validity fills in how long the answer holds and whether it may be kept.
func (in *Input) validity(d Decision, s source, who caller) Decision {
	d.Allowed = true
	d.Custody = strictest(in.Custody, s.custody, in.Settings.Custody)
	offline, limit := max(in.Settings.MaxOffline, 0), LimitTenant
	if g := in.Settings.GuestMaxOffline; who.guest && g >= 0 && g < offline {
		offline, limit = g, LimitGuest
	}
	if !d.ExpiryExempt && s.offline >= 0 && s.offline < offline {
		offline, limit = s.offline, LimitPolicy
	}
	end, keepable := time.Time{}, true
	if !d.ExpiryExempt {
		end, keepable = ends(d.Matches, d.Rights)
	}
	d.Cache = CacheStored
	switch {
	case d.Custody != vocab.CustodyCached:
		d.Cache, offline, limit = CacheOnce, OnlineWindow, LimitCustody
	case offline == 0 || d.RevocationExempt || d.Recovery || !keepable:
		d.Cache, offline, limit = CacheOnce, OnlineWindow, LimitOnline
	}
	d.NotAfter, d.Limit = milli(d.Time.Add(offline)), limit
	if !d.ExpiryExempt && before(d.ContentNotAfter, d.NotAfter) {
		d.NotAfter, d.Limit = d.ContentNotAfter, LimitContent
	}
	if before(end, d.NotAfter) {
		d.NotAfter, d.Limit = end, LimitGrant
	}
	return d
}

// ends returns when the first of the rights ends (zero is never) and whether a
// use license with them may be kept. A kept license is used out of our sight,
// so only grants not bound to a network count towards keeping: if they cover
// every right, they alone say when it ends.
func ends(ms []Match, rights vocab.Rights) (time.Time, bool) {
	unbound := func(m Match) bool { return m.Active() && !m.Conditional }
	keepable := united(ms, unbound).Effective() == rights
	counts := Match.Active
	if keepable {
		counts = unbound
	}
	var first time.Time
	for _, r := range rights.List() {
		if e := lastEnd(ms, r, counts); before(e, first) {
			first = e
		}
	}
	return first, keepable
}

// lastEnd returns when the last of the grants that give the right ends, zero
// for never.
func lastEnd(ms []Match, r vocab.Right, counts func(Match) bool) time.Time {
	var last time.Time
	for _, m := range ms {
		if !counts(m) || !m.Rights.Has(r) {
			continue
		}
		if m.Until.IsZero() {
			return time.Time{}
		}
		if m.Until.After(last) {
			last = m.Until
		}
	}
	return last
}

// before compares ends, of which zero is never.
func before(a, b time.Time) bool {
	return !a.IsZero() && (b.IsZero() || a.Before(b))
}

// strictest returns the highest mode. What is no mode counts as strict, except
// that a template may say nothing.
func strictest(license, template, tenant vocab.CustodyMode) vocab.CustodyMode {
	if template == 0 {
		template = vocab.CustodyCached
	}
	for _, m := range []vocab.CustodyMode{license, template, tenant} {
		if m != vocab.CustodyCached {
			return vocab.CustodyStrict
		}
	}
	return vocab.CustodyCached
}
