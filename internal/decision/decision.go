// Package decision is what an event holds of a decision: field 176 of a leaf of
// the log. It is whatever the policy read that neither the event holds
// elsewhere nor the store keeps, and names what the store does keep: revisions,
// and the hash of a license's policy. From the two the decision can be made
// again, and be explained, when the world has long moved on.
//
// The encoding is canonical, small for the usual caller and bounded for any: of
// hundreds of groups it keeps those the policy names, and says that it did.
// docs/audit.md describes it byte for byte.
package decision

import (
	"slices"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// Question is what was decided. The numbers are part of the format.
type Question uint8

// Questions.
const (
	// Acquire: may the caller exercise the event's right on its license?
	Acquire Question = 1
	// Publish: may the caller protect content in the way asked for?
	Publish Question = 2
	// Repeat: may the caller still read what an earlier request published?
	Repeat Question = 3
	// Deliver: may the caller have content keys in the clear?
	Deliver Question = 4
)

// Inputs are what a decision read.
type Inputs struct {
	Question Question
	// Rules is the number of the rules that decided, policy.Rules of then.
	Rules uint32
	// Settings is the revision of the tenant's settings; 0 are the defaults.
	Settings uint32
	Caller   Caller
	// License is the license asked for, or the one that was published; nil if
	// there is none.
	License *License
	// Revocations are those in force that cover the license or the caller.
	Revocations []policy.Revocation
	// Key is how the key of that license stood.
	Key Key
	// Publish is what was asked for; of the question Publish only.
	Publish *Publishing
	// Recovery says the request named a recovery that covers the license.
	Recovery bool
}

// Caller is what was known of the caller beyond the names in the event.
type Caller struct {
	// Addresses are the verified ones, the primary one first.
	Addresses []string
	// Groups are those the identity provider vouched for, Directory those of
	// the tenant's own directory.
	Groups, Directory []string
	GroupsIncomplete  bool
	Member            bool
	Service           string // its name, if the caller is one
	MFA               bool
	Certificate       bool // the connection is the caller's, by a client certificate
	Disabled          bool
	// IssuedAt is when the token was issued, in whole seconds; zero for
	// certificates.
	IssuedAt time.Time
	// Through says that somebody calls for the caller, Actor which service; a
	// person if empty.
	Through bool
	Actor   string
	// Abridged is set if not all names are here.
	Abridged *Abridged
}

// Abridged says what was left out of a caller with too many names.
type Abridged struct {
	// Addresses, Groups and Directory count all there were.
	Addresses, Groups, Directory uint32
	// Hash is SHA-256 of the canonical encoding of the three lists.
	Hash [32]byte
	// Cut says that names the policy names were left out too, so that the
	// decision cannot be made again from what is here.
	Cut bool
}

// License is what was read of a license.
type License struct {
	// Policy is the hash of its encoded policy, license.PolicyHash.
	Policy [32]byte
	// Strict says it was published with custody strict.
	Strict bool
}

// Key is how a license's key stood when the decision was made.
type Key struct {
	// Generation is the number of the tenant's generation, 0 for a
	// document's own.
	Generation uint32
	// Version is that of the tenant key which wraps it.
	Version uint32
	// State and VersionState are theirs, by the numbers of package keys; a
	// version without a state of its own has 0.
	State, VersionState uint8
}

// How says what terms a publish asked for. The numbers are part of the format.
type How uint8

// Ways to ask.
const (
	ByTemplate How = 1
	AdHoc      How = 2
	TakenOver  How = 3 // as the first parent
)

// Publishing is what a publish asked for.
type Publishing struct {
	How How
	// Same says the ad hoc terms asked for are those of the parent that
	// binds.
	Same bool
	// Owner is whose it was to be, zero for the caller.
	Owner vocab.Principal
	// Slug is the name of a template that is not there; the event names one
	// that is.
	Slug string
	// Parents are the documents the content was made from.
	Parents []Parent
}

// Parent is a document that content was made from.
type Parent struct {
	Content vocab.ContentID
	// License is nil if there is no such license.
	License     *License
	Revocations []policy.Revocation
	// Revision is the license's, TemplateRevision that of the template it
	// follows; 0 if none or gone.
	Revision, TemplateRevision uint32
}

// maxRevocations bounds how many revocations of one license are recorded.
const maxRevocations = 32

// few keeps the revocations that decide: with one that is sure and not of the
// document alone, nothing depends on the rest.
func few(list []policy.Revocation, most int) []policy.Revocation {
	if len(list) <= most {
		return list
	}
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b policy.Revocation) int {
		if a.GroupsUnknown != b.GroupsUnknown {
			if a.GroupsUnknown {
				return 1
			}
			return -1
		}
		return int(b.Scope) - int(a.Scope)
	})
	return sorted[:most]
}

// CallerOf is what an event keeps of a caller: the identity with the groups of
// its token, and those of the tenant's directory.
func CallerOf(id *vocab.Identity, directory []string, disabled bool) Caller {
	c := Caller{
		Addresses: id.Addresses, Groups: id.Groups, Directory: directory, GroupsIncomplete: id.GroupsIncomplete,
		Member: id.Member != "", Service: id.Service, MFA: id.MFA, Certificate: id.Certificate, Disabled: disabled,
	}
	if !id.IssuedAt.IsZero() {
		c.IssuedAt = id.IssuedAt.UTC().Truncate(time.Second)
	}
	if id.Actor != nil {
		c.Through, c.Actor = true, id.Actor.Service
	}
	return c
}

// Identity is the caller again: known holds what the event says (issuer,
// subject, provider, peer), tenant is whose member a member is.
func (c *Caller) Identity(known vocab.Identity, tenant string) *vocab.Identity {
	id := known
	id.Addresses, id.Groups = c.Addresses, append(slices.Clip(c.Groups), c.Directory...)
	id.GroupsIncomplete, id.Service, id.MFA, id.Certificate, id.IssuedAt = c.GroupsIncomplete, c.Service, c.MFA, c.Certificate, c.IssuedAt
	if c.Member {
		id.Member = tenant
	}
	if c.Through {
		id.Actor = &vocab.Identity{Service: c.Actor}
	}
	return &id
}
