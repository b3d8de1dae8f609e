package policy

import (
	"net/netip"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Login is how strongly a caller must have signed in for a grant to count. The
// numbers are part of the stored policy format.
type Login uint8

// Login strengths.
const (
	// LoginAny asks for nothing beyond a valid token or certificate.
	LoginAny Login = 0
	// LoginMFA asks for a second factor the identity provider vouches for.
	LoginMFA Login = 1
)

// Grant gives rights to a principal, with an end and conditions. A grant never
// takes a right away: several that match are united.
type Grant struct {
	// To is whom the grant is for, canonical.
	To vocab.Principal
	// Rights are the rights given; never empty in a valid grant.
	Rights vocab.Rights
	// Until is the instant from which the grant gives nothing any more;
	// zero means no end.
	Until time.Time
	// Login is how strongly the caller must have signed in.
	Login Login
	// Networks, if not empty, are where the connection must come from.
	// Prefixes are masked (no host bits) and never IPv4-in-IPv6.
	Networks []netip.Prefix
}

// Issuer is who protected the content. The identity is (Issuer, Subject). Address
// is a person's primary address at that time, for people to read, and is never
// compared; a service has none.
type Issuer struct {
	Issuer, Subject, Address string
}

// Is reports whether the identity is the issuer's.
func (i Issuer) Is(id *vocab.Identity) bool {
	return i.Issuer != "" && i.Subject != "" && i.Issuer == id.Issuer && i.Subject == id.Subject
}

// Service reports whether it was a service that protected the content. Often it
// did so for somebody else, so it has no rights for having done it.
func (i Issuer) Service() bool { return i.Address == "" }

// AdHocKind says how an ad hoc policy was made. The numbers are part of the
// stored policy format.
type AdHocKind uint8

// Kinds of ad hoc policies.
const (
	// AdHocGrants is a list of grants the publisher wrote.
	AdHocGrants AdHocKind = 1
	// AdHocDoNotForward gives every recipient [DoNotForward].
	AdHocDoNotForward AdHocKind = 2
	// AdHocEncryptOnly gives every recipient [EncryptOnly].
	AdHocEncryptOnly AdHocKind = 3
)

// AdHoc is a policy named at publishing instead of a template. For Do Not
// Forward and Encrypt-Only the grants are made from the recipients with
// [RecipientGrants].
type AdHoc struct {
	Kind   AdHocKind
	Grants []Grant
	// Offline is how long a use license may be kept: 0 asks at every open,
	// negative ([OfflineMax]) is the tenant's maximum.
	Offline time.Duration
}

// OfflineMax as an offline period means "as long as the tenant allows".
const OfflineMax time.Duration = -1

// Policy is what a license says about who may do what: the content of its
// record, and of the sealed body of its publishing license.
type Policy struct {
	// Owner is whose content it is: a user or a service.
	Owner vocab.Principal
	// Issuer is who protected it.
	Issuer Issuer
	// Template names the template that is evaluated live; zero if ad hoc.
	Template vocab.TemplateUID
	// AdHoc is the policy itself if there is no template; nil otherwise.
	AdHoc *AdHoc
	// NotAfter is when the content expires; zero is never.
	NotAfter time.Time
	// Parents are the documents this one was made from.
	Parents []vocab.ContentID
	// AppData belongs to the application and is never interpreted.
	AppData []byte
}

// ExpiryKind says how a template limits the life of content. The numbers are
// part of the stored template format.
type ExpiryKind uint8

// Kinds of expiry.
const (
	ExpiryNever  ExpiryKind = 0
	ExpiryOnDate ExpiryKind = 1 // at an instant
	ExpiryAfter  ExpiryKind = 2 // a time after protection
)

// Expiry is the content expiry a template sets. [Expiry.NotAfter] turns it
// into the instant a license stores.
type Expiry struct {
	Kind  ExpiryKind
	At    time.Time     // ExpiryOnDate
	After time.Duration // ExpiryAfter
}

// NotAfter returns when content protected at the given instant expires, zero
// for never. "After" counts from the instant of protection, in exact hours:
// no calendar and no time zone takes part.
func (e Expiry) NotAfter(protected time.Time) time.Time {
	switch e.Kind {
	case ExpiryOnDate:
		return e.At.UTC().Truncate(time.Millisecond)
	case ExpiryAfter:
		return protected.Add(e.After).UTC().Truncate(time.Millisecond)
	default:
		return time.Time{}
	}
}

// State is where a template is in its life. The numbers are part of the stored
// template format.
type State uint8

// States of a template.
const (
	// StatePublished can be chosen and opened.
	StatePublished State = 1
	// StateArchived cannot be chosen; what it protects still opens.
	StateArchived State = 2
	// StateDeleted is a tombstone that can be restored; until then only
	// owner and issuer open what it protects.
	StateDeleted State = 3
)

// Template is one revision of a template.
type Template struct {
	// UID is the template for ever; Slug its name among people.
	UID      vocab.TemplateUID
	Slug     string
	Revision uint32
	// Names and Descriptions map language tags ("en", "pt-br") to text.
	Names        map[string]string
	Descriptions map[string]string
	State        State
	Grants       []Grant
	Expiry       Expiry
	// Offline is how long a use license may be kept: 0 asks at every open,
	// negative ([OfflineMax]) is the tenant's maximum, which also caps
	// every other value.
	Offline time.Duration
	// Select is who may choose the template; empty is everybody who may
	// publish. It says nothing about who may open.
	Select []vocab.Principal
	// Contact is an address shown to whoever is refused.
	Contact string
	// Custody raises the tenant's custody mode; 0 leaves it.
	Custody vocab.CustodyMode
	// Author, Comment and Time say who made this revision, why and when.
	Author  string
	Comment string
	Time    time.Time
}

// ClearKeys says who may receive content keys in the clear.
type ClearKeys uint8

// Values of the tenant setting clear_keys. The numbers are part of the stored
// settings.
const (
	// ClearKeysNever is the default: keys are always sealed to the recipient.
	ClearKeysNever ClearKeys = 0
	// ClearKeysMTLS lets a service ask for a clear key if the connection
	// itself is authenticated by the service's client certificate. A
	// bearer token never may.
	ClearKeysMTLS ClearKeys = 1
)

// Settings are the tenant settings that decisions read. The zero value is the
// strictest: nothing offline, no guests. [DefaultSettings] is what a new
// tenant has.
type Settings struct {
	// MaxOffline caps how long any use license may be kept; 0 makes every
	// open ask. Default 30 days.
	MaxOffline time.Duration
	// GuestMaxOffline caps it further for guests; negative leaves
	// MaxOffline. Default [OfflineMax].
	GuestMaxOffline time.Duration
	// IssuerOpensRevoked lets the issuer, not the owner, open a document
	// that was revoked. Default true, as in Azure RMS.
	IssuerOpensRevoked bool
	// GuestDomains are the domains whose addresses count for callers who
	// are not members. Empty admits no guest at all.
	GuestDomains []string
	// Publishers is onboarding control: who may protect. Empty is every
	// member and service of the tenant. It never limits opening.
	Publishers []vocab.Principal
	// ClearKeys says who may receive content keys in the clear.
	ClearKeys ClearKeys
	// Custody is the tenant's custody mode, which a template may raise.
	// Default [vocab.CustodyCached].
	Custody vocab.CustodyMode
}

// DefaultSettings returns the settings of a new tenant.
func DefaultSettings() Settings {
	return Settings{
		MaxOffline:         30 * Day,
		GuestMaxOffline:    OfflineMax,
		IssuerOpensRevoked: true,
		Custody:            vocab.CustodyCached,
	}
}

// Day is 24 hours: periods in policies are exact and know no calendar.
const Day = 24 * time.Hour
