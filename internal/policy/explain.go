package policy

import (
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// CheckName names one of the checks that a decision consists of.
type CheckName string

// The checks of [Evaluate] and [MayPublish]. Which come in which order, the
// trace says.
const (
	CheckRequest   CheckName = "request"     // the request has a meaning
	CheckEnabled   CheckName = "enabled"     // neither the caller nor the service acting for them is disabled
	CheckActor     CheckName = "actor"       // nobody but a service acts for another
	CheckAdmitted  CheckName = "admitted"    // a guest is of a domain the tenant admits
	CheckPolicy    CheckName = "policy"      // the policy is there and can be understood
	CheckNamed     CheckName = "named"       // a grant names the caller, or the content is theirs
	CheckRevoked   CheckName = "not-revoked" // no revocation in force covers the license
	CheckTemplate  CheckName = "template"    // the template is not deleted; to publish: it is published
	CheckRight     CheckName = "right"       // the grants that count give VIEW and the right asked
	CheckExpiry    CheckName = "not-expired" // the content has not expired
	CheckPublisher CheckName = "publisher"   // the caller may protect at all
	CheckOwner     CheckName = "owner"       // whose it shall be may own it
	CheckParents   CheckName = "parents"     // every parent can be opened and copied from
	CheckTerms     CheckName = "terms"       // who may only edit a parent keeps its terms
	CheckScope     CheckName = "scope"       // there is such a template and the caller may choose it
)

// Outcome is how a check ended.
type Outcome uint8

// Outcomes. The first check of a trace that failed is the reason of the
// decision; those after it are told all the same, so that whoever repairs one
// thing sees the next.
const (
	Passed Outcome = 1
	Failed Outcome = 2
	Exempt Outcome = 3 // it would have failed, but does not bind the caller
	Moot   Outcome = 4 // it has no answer, since an earlier one failed
)

// Check is a check with how it ended; Reason is set if it failed.
type Check struct {
	Name    CheckName
	Outcome Outcome
	Reason  vocab.Reason
}

// Trace is a decision and how it came about. It speaks of everybody's grants:
// it is for who administers or audits, never for who is refused.
type Trace struct {
	Decision
	// KnownAs are the principals the caller counts as, without doubles; none
	// for a guest who is not admitted. Guest says the caller is neither a
	// member nor a service.
	KnownAs []vocab.Principal
	Guest   bool
	// Checks are all checks in their order.
	Checks []Check
	// GrantCount is how many grants the policy has, Matched how many of them
	// name the caller, counting or not.
	GrantCount, Matched int
	// Grants are those that were asked for, see [Listing]; NextGrant is where
	// the listing goes on, 0 at its end.
	Grants    []ListedGrant
	NextGrant int
	// Bounds are what limits the validity, if the decision allows.
	Bounds []Bound
	// Remedies are what would have to be done, all of it, for the decision to
	// allow: checked with [Evaluate]. None if it allows, or if nothing that
	// an administrator or the caller can do would help.
	Remedies []Remedy
}

// Bound is something that limits how long a use license holds.
type Bound struct {
	Limit Limit
	// End is when a use license given now would end by it.
	End time.Time
	// Binds says that it counts for this caller, Sets that it is the one that
	// set the end.
	Binds, Sets bool
}

// Explain decides as [Evaluate] does and says how that came about. The rules
// are Evaluate's: what is told is worked out with the same functions. Like it,
// it is pure; its cost grows with the number of grants.
func Explain(in Input, l Listing) Trace {
	t := Trace{Decision: Evaluate(in)}
	if in.Caller == nil || in.Policy == nil || in.Now.IsZero() || !in.Right.Valid() {
		t.Checks = []Check{{CheckRequest, Failed, t.Reason}}
		return t
	}
	x := in.examine()
	t.KnownAs, t.Guest = x.who.known, x.who.guest
	t.Checks = x.checks()
	t.GrantCount, t.Matched = x.source.size(), len(x.matches)
	t.Grants, t.NextGrant = x.list(l)
	if t.Allowed {
		t.Bounds = x.bounds(t.Decision)
	} else {
		t.Remedies = remedies(in)
	}
	return t
}

// examination is what Evaluate finds out on its way, all of it: an early
// refusal hides nothing here.
type examination struct {
	*Input
	now      time.Time
	who      caller
	mine     map[vocab.Principal]bool // what the caller is known as
	admitted bool
	source   source
	broken   vocab.Reason // why the policy cannot be understood
	matches  []Match
	role     Role
	expired  bool
}

func (in *Input) examine() examination {
	x := examination{Input: in, now: milli(in.Now), mine: map[vocab.Principal]bool{}}
	d := Decision{Time: x.now, ContentNotAfter: milli(in.Policy.NotAfter)}
	x.who, x.admitted = admit(in.Caller, in.Settings.GuestDomains)
	for _, p := range x.who.known {
		x.mine[p] = true
	}
	x.source, x.broken = in.source(&d)
	x.expired = d.contentExpired()
	if x.admitted && x.broken == "" {
		x.matches = x.source.matches(x.who, x.now)
		x.role = in.Policy.roleOf(in.Caller, x.who)
	}
	return x
}

// recovered reports whether a recovery stands in for everything about the
// policy.
func (x *examination) recovered() bool { return x.Recovery && x.admitted && x.broken == "" }

// checks goes through all checks in the order of Evaluate.
func (x *examination) checks() []Check {
	var out []Check
	add := func(name CheckName, outcome Outcome, r vocab.Reason) {
		if outcome != Failed {
			r = ""
		}
		out = append(out, Check{name, outcome, r})
	}
	failing := func(fails bool) Outcome {
		if fails {
			return Failed
		}
		return Passed
	}
	// exempt is the outcome of what would fail for anybody else.
	exempt := func(fails, pardoned bool) Outcome {
		if fails && pardoned {
			return Exempt
		}
		return failing(fails)
	}
	add(CheckEnabled, failing(x.Disabled), vocab.ReasonPrincipalDisabled)
	add(CheckActor, failing(throughPerson(x.Caller)), vocab.ReasonRoleRequired)
	add(CheckAdmitted, failing(!x.admitted), vocab.ReasonNoRights)
	if x.broken != "" {
		add(CheckPolicy, Failed, x.broken)
		return out
	}
	theirs := x.role != RoleNone || x.recovered() // whom the policy does not bind
	add(CheckPolicy, exempt(x.source.missing, theirs), vocab.ReasonTemplateDeleted)
	add(CheckNamed, x.named(), x.lack(vocab.ReasonNoRights))
	add(CheckRevoked, exempt(len(x.Revocations) > 0, x.recovered() || x.issuerExempt(x.role)), x.revoked())
	if x.Policy.AdHoc == nil && !x.source.missing {
		add(CheckTemplate, exempt(x.source.deleted, theirs), vocab.ReasonTemplateDeleted)
	}
	right, reason := x.right(theirs)
	add(CheckRight, right, reason)
	add(CheckExpiry, exempt(x.expired, theirs), vocab.ReasonLicenseExpired)
	return out
}

// named says whether the caller is anybody to the document.
func (x *examination) named() Outcome {
	switch {
	case x.role != RoleNone || len(x.matches) > 0:
		return Passed
	case x.recovered():
		return Exempt
	case !x.admitted || x.source.missing:
		return Moot
	}
	return Failed
}

// right says whether the caller has the right asked, and what is missing.
func (x *examination) right(theirs bool) (Outcome, vocab.Reason) {
	switch {
	case x.role != RoleNone:
		return Passed, ""
	case len(x.matches) == 0 && !theirs:
		return Moot, ""
	}
	reason := missing(x.matches, x.Right)
	switch {
	case reason == "":
		return Passed, ""
	case theirs:
		return Exempt, ""
	case reason == vocab.ReasonRightNotGranted:
		reason = x.lack(reason)
	}
	return Failed, reason
}

// lack is the reason for a refusal for want of a grant.
func (x *examination) lack(r vocab.Reason) vocab.Reason {
	return Decision{}.denyForLack(r, x.Caller).Reason
}

// revoked is the reason of a refusal for revocations.
func (x *examination) revoked() vocab.Reason {
	if groupsDecide(x.Revocations) {
		return x.lack(vocab.ReasonLicenseRevoked)
	}
	return vocab.ReasonLicenseRevoked
}

// bounds lists what limits the validity of a decision that allows.
func (x *examination) bounds(d Decision) []Bound {
	kept := d.Cache == CacheStored
	var out []Bound
	add := func(l Limit, end time.Time, binds bool) {
		out = append(out, Bound{Limit: l, End: milli(end), Binds: binds, Sets: binds && l == d.Limit})
	}
	add(LimitTenant, d.Time.Add(max(x.Settings.MaxOffline, 0)), kept)
	if g := x.Settings.GuestMaxOffline; x.who.guest && g >= 0 {
		add(LimitGuest, d.Time.Add(g), kept)
	}
	if x.source.offline >= 0 && !x.source.missing {
		add(LimitPolicy, d.Time.Add(x.source.offline), kept && !d.ExpiryExempt)
	}
	if online := d.Time.Add(OnlineWindow); !kept {
		// Which of the two it was that forbids keeping.
		limit := LimitOnline
		if d.Custody != vocab.CustodyCached {
			limit = LimitCustody
		}
		add(limit, online, true)
	}
	if !d.ContentNotAfter.IsZero() {
		add(LimitContent, d.ContentNotAfter, !d.ExpiryExempt)
	}
	if !d.ExpiryExempt {
		if end, _ := ends(d.Matches, d.Rights); !end.IsZero() {
			add(LimitGrant, end, true)
		}
	}
	return out
}
