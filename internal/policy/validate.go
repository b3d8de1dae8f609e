package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/vocab"
)

// Limits of policies. They bound what a record or a template revision can
// weigh; none is a rule of Azure RMS, which documents no such limits.
const (
	MaxAdHocGrants    = 1_000
	MaxTemplateGrants = 50_000
	MaxNetworks       = 64  // in one grant
	MaxSelect         = 200 // principals that may choose a template, or publish
	MaxParents        = 16
	MaxAppData        = 4 << 10 // bytes
	MaxLanguages      = 64
	MaxName           = 200   // bytes of a template's name
	MaxText           = 2_000 // bytes of a description or comment
	// MaxPeriod bounds offline periods (as Set-AipServiceMaxUseLicenseValidityTime: 65,535 days)
	// and expiry after protection.
	MaxPeriod = 65_535 * Day
)

// invalid is the error of every check here.
func invalid(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, format, args...)
}

// Validate checks one grant: a canonical principal, known and at least one
// right, a plausible end, known conditions.
func (g Grant) Validate() error {
	switch {
	case !g.To.Valid():
		return invalid("the grant names no valid principal")
	case g.Rights == 0:
		return invalid("the grant for %s gives no right", g.To)
	case !g.Rights.Valid():
		return invalid("the grant for %s gives unknown rights", g.To)
	case !storable(g.Until):
		return invalid("the grant for %s ends at an instant that cannot be stored", g.To)
	case g.Login > LoginMFA:
		return invalid("the grant for %s asks for an unknown strength of login", g.To)
	case len(g.Networks) > MaxNetworks:
		return invalid("the grant for %s names %d networks: at most %d are allowed", g.To, len(g.Networks), MaxNetworks)
	}
	for _, n := range g.Networks {
		if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() {
			return invalid("the grant for %s names the network %s, which is not in its plain form", g.To, n)
		}
	}
	return nil
}

// Validate checks an ad hoc policy: 1 to [MaxAdHocGrants] valid grants; the
// rights of Do Not Forward and Encrypt-Only are those and nothing else.
func (a *AdHoc) Validate() error {
	if len(a.Grants) == 0 || len(a.Grants) > MaxAdHocGrants {
		return invalid("the policy has %d grants: 1 to %d are allowed", len(a.Grants), MaxAdHocGrants)
	}
	if !validOffline(a.Offline) {
		return invalid("the offline period is out of bounds")
	}
	var fixed vocab.Rights
	switch a.Kind {
	case AdHocGrants:
	case AdHocDoNotForward:
		fixed = DoNotForward()
	case AdHocEncryptOnly:
		fixed = EncryptOnly()
	default:
		return invalid("the kind of the policy is unknown")
	}
	for _, g := range a.Grants {
		if err := g.Validate(); err != nil {
			return err
		}
		if fixed != 0 && g.Rights != fixed {
			return invalid("the grant for %s gives other rights than its kind of policy does", g.To)
		}
	}
	return nil
}

// Validate checks a whole policy as a license stores it.
func (p *Policy) Validate() error {
	switch {
	case !ownable(p.Owner):
		return invalid("the owner must be a user or a service")
	case p.Issuer.Issuer == "" || p.Issuer.Subject == "":
		return invalid("the issuer is not named")
	case p.Template.IsZero() == (p.AdHoc == nil):
		return invalid("want either a template or an ad hoc policy")
	case !storable(p.NotAfter):
		return invalid("the content expiry cannot be stored")
	case len(p.Parents) > MaxParents:
		return invalid("%d parents: at most %d are allowed", len(p.Parents), MaxParents)
	case len(p.AppData) > MaxAppData:
		return invalid("%d bytes of application data: at most %d are allowed", len(p.AppData), MaxAppData)
	}
	if p.AdHoc != nil {
		return p.AdHoc.Validate()
	}
	return nil
}

// Validate checks the expiry.
func (e Expiry) Validate() error {
	switch e.Kind {
	case ExpiryNever:
		if e.At.IsZero() && e.After == 0 {
			return nil
		}
	case ExpiryOnDate:
		if !e.At.IsZero() && storable(e.At) && e.After == 0 {
			return nil
		}
	case ExpiryAfter:
		if e.At.IsZero() && e.After > 0 && e.After <= MaxPeriod && e.After%time.Millisecond == 0 {
			return nil
		}
	}
	return invalid("the expiry is neither never, nor a date, nor a time after protection")
}

// Validate checks a revision as it will be stored, except UID, revision,
// author and time, which the store gives.
func (t *Template) Validate() error {
	switch {
	case !vocab.ValidSlug(t.Slug):
		return invalid("%q is not an id: want 1 to 63 of a–z, 0–9 and hyphens", clip(t.Slug))
	case t.State < StatePublished || t.State > StateDeleted:
		return invalid("the state is neither published nor archived")
	case len(t.Grants) > MaxTemplateGrants:
		return invalid("%d grants: at most %d are allowed", len(t.Grants), MaxTemplateGrants)
	case !validOffline(t.Offline):
		return invalid("the offline period is out of bounds")
	case t.Custody != 0 && !t.Custody.Valid():
		return invalid("the custody mode is unknown")
	case len(t.Names) == 0:
		return invalid("the template has no name")
	case !PlainText(t.Comment, MaxText):
		return invalid("the comment is too long or not plain text in normal form (NFC)")
	}
	if err := validTexts("name", t.Names, MaxName); err != nil {
		return err
	}
	if err := validTexts("description", t.Descriptions, MaxText); err != nil {
		return err
	}
	for _, g := range t.Grants {
		if err := g.Validate(); err != nil {
			return err
		}
	}
	if err := t.Expiry.Validate(); err != nil {
		return err
	}
	if err := validPrincipals("select", t.Select); err != nil {
		return err
	}
	if t.Contact != "" {
		if c, err := vocab.CanonicalAddress(t.Contact); err != nil || c != t.Contact {
			return invalid("the contact %q is not a canonical e-mail address", clip(t.Contact))
		}
	}
	return nil
}

// maxNamed bounds how many grants warnings name.
const maxNamed = 20

// Warnings names what is valid yet probably not meant, one sentence each.
func (t *Template) Warnings(s Settings) []string {
	var out []string
	if t.Offline > s.MaxOffline {
		out = append(out, fmt.Sprintf("offline: the tenant's maximum of %s applies", period(s.MaxOffline)))
	}
	if len(t.Grants) == 0 {
		out = append(out, "grants: there are none, so only owner and issuer can open what this protects")
	}
	blind := 0
	for i, g := range t.Grants {
		if g.Rights.Has(vocab.RightView) {
			continue
		}
		if blind++; blind <= maxNamed {
			out = append(out, fmt.Sprintf("grants[%d]: without VIEW, %s can open nothing unless another grant gives it", i, g.To))
		}
	}
	if blind > maxNamed {
		out = append(out, fmt.Sprintf("grants: %d more are without VIEW", blind-maxNamed))
	}
	return out
}

// period writes a duration as policies do.
func period(d time.Duration) string {
	if d != 0 && d%Day == 0 {
		return fmt.Sprintf("%dd", d/Day)
	}
	return d.String()
}

// Validate checks tenant settings.
func (s Settings) Validate() error {
	switch {
	case s.MaxOffline < 0 || s.MaxOffline > MaxPeriod:
		return invalid("the maximum offline period must be 0 to %d days", MaxPeriod/Day)
	case !validOffline(s.GuestMaxOffline):
		return invalid("the maximum offline period of guests is out of bounds")
	case s.ClearKeys > ClearKeysMTLS:
		return invalid("clear keys are allowed never, or with mtls")
	case !s.Custody.Valid():
		return invalid("the custody mode is neither cached nor strict")
	case len(s.GuestDomains) > MaxSelect:
		return invalid("%d guest domains: at most %d are allowed", len(s.GuestDomains), MaxSelect)
	}
	for _, d := range s.GuestDomains {
		if c, err := vocab.CanonicalDomain(d); err != nil || c != d {
			return invalid("the guest domain %q is not canonical", clip(d))
		}
	}
	return validPrincipals("publishers", s.Publishers)
}

func validPrincipals(what string, ps []vocab.Principal) error {
	if len(ps) > MaxSelect {
		return invalid("%s names %d principals: at most %d are allowed", what, len(ps), MaxSelect)
	}
	for i, p := range ps {
		if !p.Valid() {
			return invalid("%s names no valid principal", what)
		}
		if slices.Contains(ps[:i], p) {
			return invalid("%s names %s twice", what, p)
		}
	}
	return nil
}

func validTexts(what string, texts map[string]string, most int) error {
	if len(texts) > MaxLanguages {
		return invalid("%d %ss: at most %d are allowed", len(texts), what, MaxLanguages)
	}
	for lang, text := range texts {
		if !ValidLanguage(lang) {
			return invalid("%q is not a language tag like en or pt-br", clip(lang))
		}
		if text == "" || !PlainText(text, most) {
			return invalid("the %s in %s is empty, too long, or not plain text in normal form (NFC)", what, lang)
		}
	}
	return nil
}

// ValidLanguage reports whether s is a language tag in the form templates use:
// lower-case subtags of BCP 47 shape, such as "en", "pt-br" or "zh-hant".
func ValidLanguage(s string) bool {
	run, first := 0, true
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '-' {
			if run == 0 || run > 8 || first && (run < 2 || run > 3) {
				return false
			}
			run, first = 0, false
			continue
		}
		c := s[i]
		if (c < 'a' || c > 'z') && (first || c < '0' || c > '9') {
			return false
		}
		run++
	}
	return len(s) <= 35
}

// PlainText reports whether the formats can store a text of at most so many
// bytes: valid, in the normal form NFC, in one line, without control characters.
func PlainText(s string, most int) bool {
	// The formats store text in one normal form and refuse any other.
	if len(s) > most || !utf8.ValidString(s) || !norm.NFC.IsNormalString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return false
		}
	}
	return true
}

func ownable(p vocab.Principal) bool {
	return (p.Kind == vocab.KindUser || p.Kind == vocab.KindService) && p.Valid()
}

func validOffline(d time.Duration) bool {
	return d == OfflineMax || d >= 0 && d <= MaxPeriod && d%time.Millisecond == 0
}

// storable reports whether a time survives the formats' millisecond count
// unchanged and lies in the years 1970 to 9999. Zero (never) does.
func storable(t time.Time) bool {
	return t.IsZero() || t.Equal(t.Truncate(time.Millisecond)) && t.Unix() >= 0 && t.UTC().Year() <= 9999
}

// ParseNetwork reads a CIDR prefix in its plain form, such as 10.20.0.0/16 or
// 2001:db8::/32.
func ParseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a network: write it like 10.20.0.0/16", clip(s))
	}
	if n.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q hides an IPv4 network in IPv6: write the IPv4 form", clip(s))
	}
	if n != n.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set after the prefix: did you mean %s?", clip(s), n.Masked())
	}
	return n, nil
}

// ValidPeer reports whether s is a network address as connections have them.
func ValidPeer(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
