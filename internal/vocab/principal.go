package vocab

import (
	"cmp"
	"fmt"
	"strings"
)

// PrincipalKind says what a [Principal] names. The numbers are part of the
// stored policy format.
type PrincipalKind uint8

// Kinds of principals.
const (
	KindUser    PrincipalKind = 1 // user:bob@contoso.com, matched by verified address
	KindGroup   PrincipalKind = 2 // group:finance@contoso.com
	KindDomain  PrincipalKind = 3 // domain:fabrikam.com, whoever has a verified address there
	KindTenant  PrincipalKind = 4 // tenant:contoso, every member of that tenant, guests excluded
	KindAnyone  PrincipalKind = 5 // anyone, whoever signed in
	KindService PrincipalKind = 6 // service:dlp-scanner, a service of the tenant's file
)

var kindNames = map[PrincipalKind]string{
	KindUser: "user", KindGroup: "group", KindDomain: "domain",
	KindTenant: "tenant", KindAnyone: "anyone", KindService: "service",
}

// String returns the prefix of the kind's text form.
func (k PrincipalKind) String() string {
	if n, ok := kindNames[k]; ok {
		return n
	}
	return fmt.Sprintf("PrincipalKind(%d)", uint8(k))
}

// Principal names whom a grant is for. The zero value names nobody.
//
// A Principal made by [ParsePrincipal] is canonical: two that mean the same
// are ==. Principals name; who a caller is, is an [Identity].
type Principal struct {
	Kind PrincipalKind
	// Value is the canonical address, domain, tenant or service name;
	// empty for anyone.
	Value string
}

// Limits of the parts of a principal, in bytes (RFC 5321 §4.5.3.1).
const (
	maxAddress = 254
	maxLocal   = 64
)

// ParsePrincipal reads "user:bob@contoso.com", "group:…", "domain:contoso.com",
// "tenant:contoso", "service:dlp-scanner" or "anyone", and returns it in
// canonical form: ASCII letters of addresses and domains in lower case.
// Addresses with characters outside ASCII are refused: until one canonical
// form for them is agreed on, two that look alike must not match.
func ParsePrincipal(s string) (Principal, error) {
	if s == "anyone" {
		return Principal{Kind: KindAnyone}, nil
	}
	prefix, value, ok := strings.Cut(s, ":")
	if !ok {
		return Principal{}, fmt.Errorf("%q is not a principal: write user:NAME@DOMAIN, group:NAME@DOMAIN, domain:DOMAIN, tenant:NAME, service:NAME or anyone", clip(s))
	}
	var (
		p   Principal
		err error
	)
	switch prefix {
	case "user":
		p.Kind = KindUser
		p.Value, err = CanonicalAddress(value)
	case "group":
		p.Kind = KindGroup
		p.Value, err = CanonicalAddress(value)
	case "domain":
		p.Kind = KindDomain
		p.Value, err = CanonicalDomain(value)
	case "tenant":
		p.Kind = KindTenant
		p.Value, err = canonicalName(value)
	case "service":
		p.Kind = KindService
		p.Value, err = canonicalName(value)
	default:
		err = fmt.Errorf("%q is not a principal: unknown kind %q", clip(s), clip(prefix))
	}
	if err != nil {
		return Principal{}, err
	}
	return p, nil
}

// String returns the text form, which [ParsePrincipal] reads back.
func (p Principal) String() string {
	if p.Kind == KindAnyone {
		return "anyone"
	}
	return p.Kind.String() + ":" + p.Value
}

// IsZero reports whether p names nobody.
func (p Principal) IsZero() bool { return p == Principal{} }

// Compare orders principals by kind, then value.
func (p Principal) Compare(q Principal) int {
	return cmp.Or(cmp.Compare(p.Kind, q.Kind), strings.Compare(p.Value, q.Value))
}

// Valid reports whether p is canonical.
func (p Principal) Valid() bool {
	q, err := ParsePrincipal(p.String())
	return err == nil && q == p
}

// MarshalText implements [encoding.TextMarshaler].
func (p Principal) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Principal) UnmarshalText(b []byte) error {
	q, err := ParsePrincipal(string(b))
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// CanonicalAddress returns an e-mail address in the form addresses are
// compared in: ASCII, lower case, one "@", no quoting, no comments.
func CanonicalAddress(s string) (string, error) {
	local, domain, ok := strings.Cut(s, "@")
	if !ok || local == "" || len(local) > maxLocal || len(s) > maxAddress {
		return "", fmt.Errorf("%q is not an e-mail address", clip(s))
	}
	for i := 0; i < len(local); i++ {
		c := local[i]
		if c >= 0x80 {
			return "", fmt.Errorf("%q has characters outside ASCII, which are not supported in addresses", clip(s))
		}
		if !isAlnum(c) && !strings.ContainsRune("!#$%&'*+-/=?^_`{|}~.", rune(c)) {
			return "", fmt.Errorf("%q is not an e-mail address: %q is not allowed before the @", clip(s), c)
		}
	}
	if strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return "", fmt.Errorf("%q is not an e-mail address: misplaced dot", clip(s))
	}
	d, err := CanonicalDomain(domain)
	if err != nil {
		return "", fmt.Errorf("%q is not an e-mail address: %w", clip(s), err)
	}
	return asciiLower(local) + "@" + d, nil
}

// CanonicalDomain returns a DNS name of at least two labels in lower case.
// Internationalised names are written in their A-label form (xn--…).
func CanonicalDomain(s string) (string, error) {
	if !validDomain(s) {
		return "", fmt.Errorf("%q is not a domain: want letters, digits and hyphens in at least two labels (write international names as xn--…)", clip(s))
	}
	return asciiLower(s), nil
}

func validDomain(s string) bool {
	if len(s) > 253 || !strings.Contains(s, ".") {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := 0; i < len(label); i++ {
			if !isAlnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// DomainOf returns the domain of a canonical address.
func DomainOf(address string) string {
	return address[strings.LastIndexByte(address, '@')+1:]
}

// canonicalName accepts the names of tenants and services. They are exact:
// lower case is demanded, not made.
func canonicalName(s string) (string, error) {
	if !ValidSlug(s) {
		return "", fmt.Errorf("%q is not a name: want 1 to 63 of a–z, 0–9 and hyphens, beginning with a letter or digit", clip(s))
	}
	return s, nil
}

// ValidSlug reports whether s can name a tenant, template, service or key:
// 1 to 63 of a–z, 0–9 and '-', beginning and ending with a letter or digit.
func ValidSlug(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// asciiLower lowers ASCII only; Unicode folding would make different
// addresses equal (U+212A KELVIN SIGN folds to k).
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
