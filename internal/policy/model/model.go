// Package model is a second, naive answer to the question that
// [github.com/openrms/rms/internal/policy.Evaluate] answers, for its tests. It
// is written from the rules of docs/policy.md in another way: one right at a
// time, every grant tried against every name of the caller, its own types,
// times as milliseconds. It shares nothing with the evaluator but the words of
// package vocab, so a mistake in one does not hide in the other.
package model

import (
	"net"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// Never is the end of what has none.
const Never int64 = 1 << 62

// Grant is a grant in the model's form.
type Grant struct {
	To       vocab.Principal
	Rights   []vocab.Right
	Until    int64 // ms, Never for none
	MFA      bool
	Networks []string // CIDR
}

// Person is the caller in the model's form.
type Person struct {
	Issuer, Subject   string
	Addresses, Groups []string
	MoreGroups        bool
	Member, Service   string
	MFA               bool
	Peer              string
	Through           string // "", service, person: who calls for the caller
}

// Question is what is asked, of what state of the world.
type Question struct {
	AdHoc    bool
	Template string // published, archived, deleted, gone; unless AdHoc
	Grants   []Grant
	Offline  int64 // ms, negative: the tenant's maximum
	Strict   bool  // any of license, template, tenant
	Expires  int64 // ms, Never for none

	Owner            vocab.Principal
	IssuedBy         [2]string
	IssuedByService  bool // for itself or for others
	RevokedAlone     bool // the document itself
	RevokedOtherwise bool // anything else that covers it
	RevokedPerhaps   bool // something that covers it if the caller is in a group nobody knows of

	Caller   Person
	Disabled bool
	Recovery bool // an approved recovery of the caller's covers the document
	Right    vocab.Right
	Now      int64

	MaxOffline, GuestOffline int64 // GuestOffline negative: no own limit
	GuestDomains             []string
	IssuerOpensRevoked       bool
}

// Answer is the decision.
type Answer struct {
	Reason vocab.Reason // "" is yes
	Rights []vocab.Right
	Ends   int64
	Kept   bool
}

// OnlineWindow is how long a use license that is not kept lasts, in ms.
const OnlineWindow = 5 * 60 * 1000

func no(r vocab.Reason) Answer { return Answer{Reason: r} }

// Decide answers.
func Decide(q Question) Answer {
	if q.Disabled {
		return no(vocab.ReasonPrincipalDisabled)
	}
	if q.Caller.Through == "person" {
		return no(vocab.ReasonRoleRequired)
	}
	guest := q.Caller.Member == "" && q.Caller.Service == ""
	if guest && !q.admitted() {
		return no(vocab.ReasonNoRights)
	}
	if q.Recovery {
		return q.recovered()
	}
	issuer := q.IssuedBy == [2]string{q.Caller.Issuer, q.Caller.Subject} && !q.IssuedByService
	owner := (q.Owner.Kind == vocab.KindUser || q.Owner.Kind == vocab.KindService) && q.named(q.Owner)
	gone := !q.AdHoc && q.Template == "gone"

	if !issuer && !owner {
		if gone {
			return no(vocab.ReasonTemplateDeleted)
		}
		known := false
		for _, g := range q.Grants {
			if q.named(g.To) {
				known = true
			}
		}
		if !known && q.Caller.MoreGroups {
			return no(vocab.ReasonGroupsIncomplete)
		}
		if !known {
			return no(vocab.ReasonNoRights)
		}
	}
	if q.RevokedPerhaps && !q.RevokedAlone && !q.RevokedOtherwise {
		if q.Caller.MoreGroups {
			return no(vocab.ReasonGroupsIncomplete)
		}
		return no(vocab.ReasonLicenseRevoked)
	}
	pardoned := issuer && q.IssuerOpensRevoked && !q.RevokedOtherwise && !q.RevokedPerhaps
	if (q.RevokedAlone || q.RevokedOtherwise) && !pardoned {
		return no(vocab.ReasonLicenseRevoked)
	}
	if issuer || owner {
		return q.ofOwner(guest)
	}
	if !q.AdHoc && q.Template == "deleted" {
		return no(vocab.ReasonTemplateDeleted)
	}
	if r := q.why(); r != "" {
		return no(r)
	}
	if q.Expires <= q.Now {
		return no(vocab.ReasonLicenseExpired)
	}
	return q.ofGrantee(guest)
}

// recovered: everything, now, and not to be kept.
func (q *Question) recovered() Answer {
	return Answer{Rights: every(), Ends: q.Now + OnlineWindow}
}

func every() (all []vocab.Right) {
	for r := vocab.RightView; r.Valid(); r++ {
		all = append(all, r)
	}
	return all
}

// admitted: a guest counts only through an address of an admitted domain.
func (q *Question) admitted() bool {
	return slices.ContainsFunc(q.Caller.Addresses, q.guestMayBe)
}

func (q *Question) guestMayBe(address string) bool {
	for _, d := range q.GuestDomains {
		if strings.HasSuffix(address, "@"+d) {
			return true
		}
	}
	return false
}

// named: is the caller meant by p?
func (q *Question) named(p vocab.Principal) bool {
	c := q.Caller
	person := c.Service == ""
	member := c.Member != ""
	switch p.Kind {
	case vocab.KindAnyone:
		return true
	case vocab.KindService:
		return !person && p.Value == c.Service
	case vocab.KindGroup:
		return slices.Contains(c.Groups, p.Value)
	case vocab.KindTenant:
		return person && member && p.Value == c.Member
	case vocab.KindUser, vocab.KindDomain:
		for _, a := range c.Addresses {
			hit := a == p.Value
			if p.Kind == vocab.KindDomain {
				hit = strings.HasSuffix(a, "@"+p.Value)
			}
			if hit && person && (member || q.guestMayBe(a)) {
				return true
			}
		}
	}
	return false
}

// relax says which conditions to overlook.
type relax struct{ end, login, network bool }

func (q *Question) counts(g Grant, r relax) bool {
	if !q.named(g.To) {
		return false
	}
	if g.Until <= q.Now && !r.end {
		return false
	}
	if g.MFA && !q.Caller.MFA && !r.login {
		return false
	}
	return len(g.Networks) == 0 || r.network || inside(q.Caller.Peer, g.Networks)
}

func inside(peer string, networks []string) bool {
	ip := net.ParseIP(peer)
	for _, n := range networks {
		if _, block, err := net.ParseCIDR(n); err == nil && ip != nil && block.Contains(ip) {
			return true
		}
	}
	return false
}

func gives(g Grant, right vocab.Right) bool {
	for _, r := range g.Rights {
		if r == right || r == vocab.RightOwner {
			return true
		}
	}
	return false
}

func (q *Question) has(right vocab.Right, r relax) bool {
	for _, g := range q.Grants {
		if q.counts(g, r) && gives(g, right) {
			return true
		}
	}
	return false
}

// why: what is missing for the right asked, in the order a person would want
// to hear it.
func (q *Question) why() vocab.Reason {
	steps := []struct {
		r   relax
		say vocab.Reason
	}{
		{relax{}, ""},
		{relax{login: true}, vocab.ReasonStrongerLoginRequired},
		{relax{network: true}, vocab.ReasonNetworkNotAllowed},
		{relax{login: true, network: true}, vocab.ReasonStrongerLoginRequired},
		{relax{login: true, network: true, end: true}, vocab.ReasonGrantEnded},
	}
	for _, s := range steps {
		if q.has(vocab.RightView, s.r) && q.has(q.Right, s.r) {
			return s.say
		}
	}
	if q.Caller.MoreGroups {
		return vocab.ReasonGroupsIncomplete
	}
	return vocab.ReasonRightNotGranted
}

func (q *Question) tenantLimit(guest bool) int64 {
	if guest && q.GuestOffline >= 0 {
		return min(q.MaxOffline, q.GuestOffline)
	}
	return q.MaxOffline
}

func (q *Question) ofOwner(guest bool) Answer {
	a := Answer{Rights: every()}
	limit := q.tenantLimit(guest)
	if q.Strict || limit == 0 || q.RevokedAlone || q.RevokedOtherwise {
		a.Ends = q.Now + OnlineWindow
		return a
	}
	a.Ends, a.Kept = q.Now+limit, true
	return a
}

func (q *Question) ofGrantee(guest bool) Answer {
	a := Answer{Ends: q.Expires}
	for r := vocab.RightView; r.Valid(); r++ {
		if q.has(r, relax{}) {
			a.Rights = append(a.Rights, r)
		}
	}
	limit := q.tenantLimit(guest)
	if q.Offline >= 0 {
		limit = min(limit, q.Offline)
	}
	a.Kept = limit > 0 && !q.Strict
	// Kept licenses leave our sight: each right needs a grant that does not
	// ask for a network.
	for _, r := range a.Rights {
		if q.end(r, true) == 0 {
			a.Kept = false
		}
	}
	if !a.Kept {
		limit = OnlineWindow
	}
	a.Ends = min(a.Ends, q.Now+limit)
	for _, r := range a.Rights {
		a.Ends = min(a.Ends, q.end(r, a.Kept || q.coveredAnywhere(a.Rights)))
	}
	return a
}

// coveredAnywhere: do the grants that ask for no network give every right?
func (q *Question) coveredAnywhere(rights []vocab.Right) bool {
	for _, r := range rights {
		if q.end(r, true) == 0 {
			return false
		}
	}
	return true
}

// end: when does the last grant that gives r now end? 0 if none gives it.
func (q *Question) end(r vocab.Right, anywhere bool) int64 {
	var last int64
	for _, g := range q.Grants {
		if q.counts(g, relax{}) && gives(g, r) && !(anywhere && len(g.Networks) > 0) {
			last = max(last, g.Until)
		}
	}
	return last
}
