package policy

import (
	"net/netip"
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// RemedyKind says what would have to be done.
type RemedyKind string

// Kinds of remedies.
const (
	RemedyEnable       RemedyKind = "enable"        // enable the principal To again
	RemedyAdmit        RemedyKind = "admit-domain"  // admit guests of Domain
	RemedyShare        RemedyKind = "share"         // give To these rights on the license
	RemedyGrant        RemedyKind = "grant"         // give To these rights in the template
	RemedySecondFactor RemedyKind = "second-factor" // the caller signs in with one
	RemedyNetwork      RemedyKind = "network"       // the caller connects from one of Networks
	RemedyRestore      RemedyKind = "restore"       // take the revocation Revocation back
	RemedyUndelete     RemedyKind = "undelete"      // restore the template
	RemedyExtend       RemedyKind = "extend"        // give the content a later expiry
	RemedyPublisher    RemedyKind = "publisher"     // let To protect
	RemedySelect       RemedyKind = "select"        // let To choose the template
	RemedyPublish      RemedyKind = "publish"       // publish the archived template again
)

// Remedy is one thing that would have to be done for a refusal to become a
// permission, as data; how to do it, the reader knows.
type Remedy struct {
	Kind RemedyKind
	// Content is the license it is about, if that is a parent of what was to
	// be published; zero for the license asked for.
	Content vocab.ContentID
	To      vocab.Principal
	Rights  vocab.Rights
	Domain  string
	// Networks are those from one of which the caller's grants would do.
	Networks   []netip.Prefix
	Revocation Revocation
}

// maxRemedies bounds how many things may have to be done: one for each check,
// and some revocations.
const maxRemedies = 24

// remedies asks Evaluate why not, applies what would help, and asks again,
// until it allows. If something does not help, nothing is suggested.
func remedies(in Input) (out []Remedy) {
	for range maxRemedies {
		d := Evaluate(in)
		if d.Allowed {
			return out
		}
		r, ok := in.remedy(d)
		if !ok {
			return nil
		}
		out, in = append(out, r), r.after(in)
	}
	return nil
}

// remedy is what helps against a refusal, if anything does.
func (in *Input) remedy(d Decision) (Remedy, bool) {
	if d.Revoked && d.Reason == vocab.ReasonGroupsIncomplete {
		return Remedy{Kind: RemedyRestore, Revocation: in.Revocations[0]}, true
	}
	switch d.Reason {
	case vocab.ReasonPrincipalDisabled:
		to, ok := in.address()
		return Remedy{Kind: RemedyEnable, To: to}, ok
	case vocab.ReasonNoRights, vocab.ReasonRightNotGranted, vocab.ReasonGrantEnded, vocab.ReasonGroupsIncomplete:
		if d.GuestNotAdmitted {
			if len(in.Caller.Addresses) == 0 {
				return Remedy{}, false
			}
			return Remedy{Kind: RemedyAdmit, Domain: vocab.DomainOf(in.Caller.Addresses[0])}, true
		}
		return in.give()
	case vocab.ReasonStrongerLoginRequired:
		return Remedy{Kind: RemedySecondFactor}, true
	case vocab.ReasonNetworkNotAllowed:
		return in.elsewhere(d)
	case vocab.ReasonLicenseRevoked:
		return Remedy{Kind: RemedyRestore, Revocation: in.Revocations[0]}, true
	case vocab.ReasonTemplateDeleted:
		return Remedy{Kind: RemedyUndelete}, in.Template != nil && in.Template.Template != nil
	case vocab.ReasonLicenseExpired:
		// The expiry of a license that follows a template is the template's.
		return Remedy{Kind: RemedyExtend}, in.Policy.AdHoc != nil
	}
	return Remedy{}, false
}

// address is the principal by which the caller would be named alone.
func (in *Input) address() (vocab.Principal, bool) {
	if in.Caller.Service != "" {
		return vocab.Principal{Kind: vocab.KindService, Value: in.Caller.Service}, true
	}
	guest := in.Caller.Member == ""
	for _, a := range in.Caller.Addresses {
		if !guest || slices.Contains(in.Settings.GuestDomains, vocab.DomainOf(a)) || in.Disabled {
			return vocab.Principal{Kind: vocab.KindUser, Value: a}, true
		}
	}
	return vocab.Principal{}, false
}

// give is the smallest grant to the caller alone that gives the right: a level
// that is less than co-owner, or just what is needed. Rights that grants to the
// same principal give already are kept, for sharing replaces those.
func (in *Input) give() (Remedy, bool) {
	to, ok := in.address()
	if !ok {
		return Remedy{}, false
	}
	x := in.examine()
	r := Remedy{Kind: RemedyGrant, To: to, Rights: smallest(in.Right)}
	for _, m := range x.matches {
		if m.By == to && m.Active() {
			r.Rights |= m.Rights
		}
	}
	if a := in.Policy.AdHoc; a != nil {
		r.Kind = RemedyShare
		if fixed := RecipientGrants(a.Kind, []vocab.Principal{to}); fixed != nil {
			r.Rights = fixed[0].Rights // its recipients all have the same
		}
	}
	return r, r.Rights.Has(vocab.RightView) && r.Rights.Has(in.Right)
}

// smallest returns the smallest level with the right, or, where only co-owner
// has it, the right with VIEW alone.
func smallest(right vocab.Right) vocab.Rights {
	for _, l := range Levels() {
		if r := l.Rights(); r.Contains(right) && !r.Contains(vocab.RightOwner) {
			return r
		}
	}
	if right == vocab.RightOwner {
		return CoOwner.Rights()
	}
	return vocab.RightsOf(vocab.RightView, right)
}

// elsewhere names the networks from one of which alone the caller's grants
// would give what is asked.
func (in *Input) elsewhere(d Decision) (Remedy, bool) {
	x := in.examine()
	r := Remedy{Kind: RemedyNetwork}
	for _, m := range d.Matches {
		if !m.NeedsNetwork || m.Ended || m.NeedsLogin {
			continue
		}
		for _, n := range x.source.grant(int32(m.Grant)).Networks {
			there := x.who
			there.peer = n.Addr()
			if !slices.Contains(r.Networks, n) && missing(x.source.matches(there, x.now), in.Right) == "" {
				r.Networks = append(r.Networks, n)
			}
		}
	}
	return r, len(r.Networks) > 0
}

// after is the question as it would be put once the remedy was applied.
func (r Remedy) after(in Input) Input {
	caller, p := *in.Caller, *in.Policy
	in.Caller, in.Policy = &caller, &p
	switch r.Kind {
	case RemedyEnable:
		in.Disabled = false
	case RemedyAdmit:
		in.Settings.GuestDomains = append(slices.Clone(in.Settings.GuestDomains), r.Domain)
	case RemedyShare, RemedyGrant:
		in.grant(Grant{To: r.To, Rights: r.Rights})
	case RemedySecondFactor:
		caller.MFA = true
	case RemedyNetwork:
		caller.Peer = r.Networks[0].Addr().String()
	case RemedyRestore:
		in.Revocations = slices.DeleteFunc(slices.Clone(in.Revocations), func(v Revocation) bool { return v == r.Revocation })
	case RemedyUndelete:
		t := *in.Template.Template
		t.State = StateArchived
		in.Template = &CompiledTemplate{Template: &t, index: in.Template.index}
	case RemedyExtend:
		p.NotAfter = p.NotAfter.AddDate(100, 0, 0)
	case RemedyPublisher, RemedySelect, RemedyPublish: // about protecting
	}
	return in
}

// grant adds a grant to the policy. Of the others only those that name the
// caller are kept: the decision is the same, whatever their number.
func (in *Input) grant(g Grant) {
	x := in.examine()
	grants := []Grant{g}
	for _, m := range x.matches {
		grants = append(grants, x.source.grant(int32(m.Grant)))
	}
	if a := in.Policy.AdHoc; a != nil {
		next := *a
		next.Grants = grants
		in.Policy.AdHoc = &next
		return
	}
	t := *in.Template.Template
	t.Grants = grants
	if next, err := CompileTemplate(&t); err == nil { // they compiled before
		in.Template = next
	}
}
