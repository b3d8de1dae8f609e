package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// RevocationScope says what a revocation was aimed at: one bit for each
// condition, so that a rule with several has the bits of all. The numbers may be
// recorded, and never change.
type RevocationScope uint8

// Scopes of revocations.
const (
	RevokedDocument  RevocationScope = 1  // this license, and nothing else
	RevokedLineage   RevocationScope = 2  // what was made from a document, and the document
	RevokedTemplate  RevocationScope = 4  // what follows a template
	RevokedOwner     RevocationScope = 8  // what somebody owns
	RevokedPrincipal RevocationScope = 16 // the caller
	RevokedDevice    RevocationScope = 32 // the recipient key
	RevokedPeriod    RevocationScope = 64 // what was published in a time range
)

var scopeNames = []struct {
	scope RevocationScope
	name  string
}{
	{RevokedDocument, "document"}, {RevokedLineage, "lineage"}, {RevokedTemplate, "template"}, {RevokedOwner, "owner"},
	{RevokedPrincipal, "principal"}, {RevokedDevice, "device"}, {RevokedPeriod, "period"},
}

// String returns the names of the bits, as in "owner, period".
func (s RevocationScope) String() string {
	var names []string
	for _, n := range scopeNames {
		if s&n.scope != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, ", ")
}

// Revocation is one revocation in force that covers the license, the caller or
// the recipient key. Finding them is the caller's duty: those of a
// [RevocationIndex], and the document's own.
type Revocation struct {
	Scope RevocationScope
	Event vocab.EventID // that made it
	// GroupsUnknown says that it covers the caller only as a member of a
	// group, and that nobody knows: the provider held groups back.
	GroupsUnknown bool
}

// groupsDecide reports whether all that revokes hangs on groups that nobody
// knows of.
func groupsDecide(list []Revocation) bool {
	return !slices.ContainsFunc(list, func(r Revocation) bool { return !r.GroupsUnknown })
}

// RevocationRule revokes many licenses at once: every one, whenever it is
// published, that meets all the rule's conditions. What is zero is no
// condition.
type RevocationRule struct {
	// Principal is who may not open them: a user, service, group or domain.
	// Without it nobody may.
	Principal vocab.Principal
	// Owner is whose they are.
	Owner vocab.Principal
	// Template is what they follow.
	Template vocab.TemplateUID
	// From and Until bound when they were published: not before From, and
	// before Until. Either may stand alone.
	From, Until time.Time
	// Lineage is a document they were made from, directly or through others;
	// it is one of them itself.
	Lineage vocab.ContentID
}

// Validate checks that there is a condition, and that each makes sense.
func (r *RevocationRule) Validate() error {
	switch {
	case r.Scope() == 0:
		return invalid("a revocation needs a condition: principal, owner, template, period or lineage")
	case r.Scope()&RevokedPrincipal != 0 && !revocable(r.Principal):
		return invalid("a revocation is for a user, service, group or domain")
	case r.Scope()&RevokedOwner != 0 && !ownable(r.Owner):
		return invalid("the owner must be a user or a service")
	case !storablePeriod(r.From) || !storablePeriod(r.Until):
		return invalid("the period has a bound that cannot be stored")
	case !r.From.IsZero() && !r.Until.IsZero() && !r.Until.After(r.From):
		return invalid("the period ends before it begins")
	}
	return nil
}

// storablePeriod: formats write no time as 0, so the beginning of 1970 is none.
func storablePeriod(t time.Time) bool { return storable(t) && (t.IsZero() || t.UnixMilli() > 0) }

func revocable(p vocab.Principal) bool {
	switch p.Kind {
	case vocab.KindUser, vocab.KindService, vocab.KindGroup, vocab.KindDomain:
		return p.Valid()
	default:
		return false
	}
}

// Scope returns a bit for each condition.
func (r *RevocationRule) Scope() RevocationScope {
	var s RevocationScope
	for _, c := range []struct {
		set   bool
		scope RevocationScope
	}{
		{!r.Principal.IsZero(), RevokedPrincipal}, {!r.Owner.IsZero(), RevokedOwner}, {!r.Template.IsZero(), RevokedTemplate},
		{!r.From.IsZero() || !r.Until.IsZero(), RevokedPeriod}, {!r.Lineage.IsZero(), RevokedLineage},
	} {
		if c.set {
			s |= c.scope
		}
	}
	return s
}

// Equal reports whether two rules have the same conditions.
func (r *RevocationRule) Equal(o *RevocationRule) bool {
	return r.Principal == o.Principal && r.Owner == o.Owner && r.Template == o.Template && r.Lineage == o.Lineage &&
		r.From.Equal(o.From) && r.Until.Equal(o.Until)
}

// String says the conditions in words, as events do.
func (r *RevocationRule) String() string {
	var parts []string
	if !r.Principal.IsZero() {
		parts = append(parts, "for "+r.Principal.String())
	}
	if !r.Owner.IsZero() {
		parts = append(parts, "owner "+r.Owner.String())
	}
	if !r.Template.IsZero() {
		parts = append(parts, "template "+r.Template.String())
	}
	if !r.From.IsZero() {
		parts = append(parts, "published from "+r.From.UTC().Format(time.RFC3339Nano))
	}
	if !r.Until.IsZero() {
		parts = append(parts, "published before "+r.Until.UTC().Format(time.RFC3339Nano))
	}
	if !r.Lineage.IsZero() {
		parts = append(parts, "made from "+r.Lineage.String())
	}
	return strings.Join(parts, ", ")
}

// Revocable is what of a license rules look at.
type Revocable struct {
	Content vocab.ContentID
	// Policy is the license's.
	Policy *Policy
	// Issued is when it was published.
	Issued time.Time
	// Ancestors are the documents it was made from, directly or through
	// others. They need be known only while [RevocationIndex.Lineages].
	Ancestors []vocab.ContentID
	// MoreAncestors says that there are so many that not all are named. The
	// license then counts as made from every document.
	MoreAncestors bool
}

// CoversLicense reports whether the license meets the rule's conditions, for
// the callers it is for.
func (r *RevocationRule) CoversLicense(l *Revocable) bool {
	issued := milli(l.Issued)
	switch {
	case l.Policy == nil,
		!r.Owner.IsZero() && l.Policy.Owner != r.Owner,
		!r.Template.IsZero() && l.Policy.Template != r.Template,
		!r.From.IsZero() && issued.Before(r.From),
		!r.Until.IsZero() && !issued.Before(r.Until):
		return false
	}
	return r.Lineage.IsZero() || l.Content == r.Lineage || l.MoreAncestors || slices.Contains(l.Ancestors, r.Lineage)
}

// suspects are all the names an identity goes by where rights are taken away:
// every address that is verified, whether or not its domain counts here, and,
// if a service calls for somebody, the service's too.
func suspects(id *vocab.Identity) (names []vocab.Principal, moreGroups bool) {
	for ; id != nil; id = id.Actor {
		for _, a := range id.Addresses {
			names = append(names, vocab.Principal{Kind: vocab.KindUser, Value: a}, vocab.Principal{Kind: vocab.KindDomain, Value: vocab.DomainOf(a)})
		}
		if id.Service != "" {
			names = append(names, vocab.Principal{Kind: vocab.KindService, Value: id.Service})
		}
		for _, g := range id.Groups {
			names = append(names, vocab.Principal{Kind: vocab.KindGroup, Value: g})
		}
		moreGroups = moreGroups || id.GroupsIncomplete
	}
	return names, moreGroups
}
