package policy

import (
	"strconv"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Role is what the caller is to the content, beyond any grant.
type Role uint8

// Roles. The numbers are recorded in events.
const (
	RoleNone   Role = 0
	RoleOwner  Role = 1
	RoleIssuer Role = 2 // perhaps owner as well
)

// String returns "none", "owner" or "issuer".
func (r Role) String() string {
	switch r {
	case RoleNone:
		return "none"
	case RoleOwner:
		return "owner"
	case RoleIssuer:
		return "issuer"
	}
	return "Role(" + strconv.Itoa(int(r)) + ")"
}

// Cache says whether a use license may be kept. The numbers are field 137 of
// the use license.
type Cache uint8

// Values of Cache.
const (
	CacheOnce   Cache = 0 // in memory, for one open
	CacheStored Cache = 1 // may be stored until it ends
)

// Limit names what ends the validity of a use license, for people.
type Limit string

// What may limit validity.
const (
	LimitTenant  Limit = "tenant maximum"
	LimitGuest   Limit = "tenant maximum for guests"
	LimitPolicy  Limit = "offline period of the policy"
	LimitContent Limit = "content expiry"
	LimitGrant   Limit = "end of a grant"
	LimitOnline  Limit = "must ask at every open"
	LimitCustody Limit = "strict custody: must ask at every open"
)

// Decision is the answer of [Evaluate], with what an event records and what
// explaining it needs. Only [Decision.Err] is for the caller's eyes.
type Decision struct {
	Allowed bool
	// Reason is why not; empty if allowed.
	Reason vocab.Reason
	// Right is what was asked; Time the instant the decision was made for.
	Right vocab.Right
	Time  time.Time

	// Rights are what the use license carries: all the caller has now,
	// OWNER spelled out. Empty if refused.
	Rights vocab.Rights
	// NotAfter is when the use license ends, always after Time. It never
	// outlives a right it carries. Zero if refused.
	NotAfter time.Time
	// Cache says whether the use license may be kept.
	Cache Cache
	// Limit says what set NotAfter.
	Limit Limit
	// Custody is the mode in force: the strictest of license, template and
	// tenant.
	Custody vocab.CustodyMode

	// Role is what the caller is to the content.
	Role Role
	// ExpiryExempt says neither content expiry nor the policy's offline
	// period binds the caller, RevocationExempt that the document is
	// revoked and the caller opens it as its issuer or by a recovery.
	ExpiryExempt, RevocationExempt bool
	// Recovery says that the caller has its rights by a recovery alone.
	Recovery bool
	// ContentNotAfter is when the content expires; zero is never.
	ContentNotAfter time.Time
	// Template and Revision name the template that decided; zero if ad hoc.
	Template vocab.TemplateUID
	Revision uint32
	// Contact is whom a refused caller may ask, if the template says.
	Contact string

	// Matches are the grants the caller is named by, in order, counting or
	// not.
	Matches []Match
	// Revoked says a revocation covers the license, caller or key; not
	// looked at for strangers. GuestNotAdmitted says the caller is a guest
	// of a domain the tenant does not admit. GroupsIncomplete says more
	// groups might have changed the refusal.
	Revoked, GuestNotAdmitted, GroupsIncomplete bool
}

func (d Decision) deny(r vocab.Reason) Decision {
	d.Allowed, d.Reason = false, r
	return d
}

// denyForLack refuses for want of a grant. If the provider held back groups
// nobody knows that, so the refusal says so.
func (d Decision) denyForLack(r vocab.Reason, id *vocab.Identity) Decision {
	if id.GroupsIncomplete {
		d.GroupsIncomplete = true
		r = vocab.ReasonGroupsIncomplete
	}
	return d.deny(r)
}

// Err returns the refusal as the caller may read it, nil if allowed. It says
// nothing the caller could not know: nobody else's rights, no grants, no
// template.
func (d Decision) Err() error {
	if d.Allowed {
		return nil
	}
	return refusal(d.Reason, d.Right, d.Contact)
}

// refusal words a reason for whoever is refused.
func refusal(r vocab.Reason, right vocab.Right, contact string) *vocab.Error {
	var e *vocab.Error
	switch r {
	case vocab.ReasonNoRights:
		e = vocab.Errorf(r, "you have no rights on this document")
	case vocab.ReasonRightNotGranted:
		e = vocab.Errorf(r, "this needs %s, which you do not have", right)
	case vocab.ReasonGrantEnded:
		e = vocab.Errorf(r, "your right to this document has ended")
	case vocab.ReasonLicenseExpired:
		e = vocab.Errorf(r, "this document has expired")
	case vocab.ReasonLicenseRevoked:
		e = vocab.Errorf(r, "this document was revoked")
	case vocab.ReasonTemplateDeleted:
		e = vocab.Errorf(r, "the template that protects this document was deleted")
	case vocab.ReasonPrincipalDisabled:
		e = vocab.Errorf(r, "your access was disabled").WithNext("Ask an administrator")
	case vocab.ReasonGroupsIncomplete:
		e = vocab.Errorf(r, "your identity provider did not send all your groups, so your rights cannot be known").
			WithNext("Ask an administrator to limit the groups it sends to those the policies use")
	case vocab.ReasonStrongerLoginRequired:
		e = vocab.Errorf(r, "this document needs a sign-in with a second factor").WithNext("Sign in again with one")
	case vocab.ReasonNetworkNotAllowed:
		e = vocab.Errorf(r, "this document does not open from your network").WithNext("Connect from a network that is allowed")
	case vocab.ReasonRoleRequired:
		e = vocab.Errorf(r, "only a service may act for somebody else")
	case vocab.ReasonRequestInvalid:
		e = vocab.Errorf(r, "the request names no usage right")
	case vocab.ReasonStoreDamaged:
		e = vocab.Errorf(r, "the policy of this document cannot be understood").WithNext("Ask an administrator to check the store")
	default:
		e = vocab.Errorf(r, "the request could not be decided")
	}
	e.Contact = contact
	switch r {
	case vocab.ReasonNoRights, vocab.ReasonRightNotGranted, vocab.ReasonGrantEnded,
		vocab.ReasonLicenseExpired, vocab.ReasonLicenseRevoked, vocab.ReasonTemplateDeleted:
		// Where a contact is known, what shows the error says to ask there.
		if contact == "" {
			e.Next = "Ask whoever sent you the document"
		}
	}
	return e
}
