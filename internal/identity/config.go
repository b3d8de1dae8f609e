package identity

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// TokenKind says which token of a provider callers present.
type TokenKind string

// Kinds of tokens.
const (
	// TokenAccess is an access token in JWT form, made for this service
	// (RFC 9068 and what providers issued before it). The default.
	TokenAccess TokenKind = "access"
	// TokenID is an OpenID Connect ID token, for providers whose access
	// tokens are opaque (Google).
	TokenID TokenKind = "id"
)

// DefaultMaxTokenAge is how old a token may be when its provider's
// configuration does not say.
const DefaultMaxTokenAge = 24 * time.Hour

// Provider is one entry of identity_providers in rmsd.yaml: an OpenID provider
// and what it may say. Entries may share an issuer (two Google customers): a
// token is then accepted by the first entry of the tenant whose require
// matches.
type Provider struct {
	// Issuer is the provider's issuer URL, exactly as it stands in its
	// tokens. https, or http on a loopback address.
	Issuer string `yaml:"issuer"`
	// Audiences are the accepted values of aud, compared exactly. At least
	// one is required: a token made for another service is not for us.
	Audiences []string `yaml:"audiences"`
	// Token says which token is presented: access (default) or id.
	Token TokenKind `yaml:"token,omitempty"`
	// Clients, if not empty, are the only applications (azp, client_id,
	// appid or cid) whose tokens are accepted. When a token names several
	// audiences its application must be one of these, CLIClientID or
	// Audiences.
	Clients []string `yaml:"clients,omitempty"`
	// CLIClientID is the public client that rmsctl signs in with. It is
	// handed out to anyone who asks.
	CLIClientID string `yaml:"cli_client_id,omitempty"`
	// CLIScopes are the scopes rmsctl asks for beside openid and
	// offline_access. Default: profile and email.
	CLIScopes []string `yaml:"cli_scopes,omitempty"`
	// Addresses says where addresses come from and how far they count.
	Addresses Addresses `yaml:"addresses,omitempty"`
	// Claims says where groups and second factors come from.
	Claims Claims `yaml:"claims,omitempty"`
	// Require lists claims that must be present with one of the given
	// values: strings, booleans or whole numbers. A list claim matches if
	// one of its members does.
	Require map[string][]any `yaml:"require,omitempty"`
	// MaxTokenAge is the greatest age of a token, by its iat. Default 24h.
	MaxTokenAge time.Duration `yaml:"max_token_age,omitempty"`
}

// Addresses says which claims of a provider hold e-mail addresses and for
// which domains it may speak.
type Addresses struct {
	// Claims are read in order; the first address found is the primary
	// one. A claim is a string or a list of strings. The claim "email"
	// counts only when email_verified (or Entra's xms_edov) is true; for
	// any other claim its being listed here is the operator's word that
	// the provider verifies it and that users cannot change it.
	Claims []string `yaml:"claims,omitempty"`
	// Domains are the domains the provider may speak for. An address in
	// any other domain, subdomains included, is ignored.
	Domains []string `yaml:"domains,omitempty"`
}

// Claims names the claims that hold groups and authentication strength.
type Claims struct {
	// Groups is the claim with the caller's groups; empty: none are read.
	Groups string `yaml:"groups,omitempty"`
	// GroupForm says what its values are: id (default), mapped to an
	// address by the tenant's groups, or address, taken as it is within
	// Addresses.Domains.
	GroupForm GroupForm `yaml:"group_form,omitempty"`
	// MFA says what proves a second factor; empty: nothing does.
	MFA MFA `yaml:"mfa,omitempty"`
}

// GroupForm says what the values of a groups claim are.
type GroupForm string

// Forms of groups.
const (
	GroupID      GroupForm = "id"
	GroupAddress GroupForm = "address"
)

// MFA lists the values that prove a second factor; one match is enough.
type MFA struct {
	// ACRs are values of the claims acrs (Entra authentication contexts)
	// and acr.
	ACRs []string `yaml:"acrs,omitempty"`
	// AMRs are values of amr (RFC 8176), such as mfa, otp, hwk.
	AMRs []string `yaml:"amrs,omitempty"`
}

// Config is the identity part of rmsd.yaml.
type Config struct {
	// Providers by name. Names are slugs, for people and tenant files.
	Providers map[string]Provider `yaml:"identity_providers"`
}

// Validate checks the configuration and returns CONFIGURATION_INVALID with
// the first thing that is wrong, in order of the providers' names.
func (c Config) Validate() error {
	for _, name := range sortedKeys(c.Providers) {
		if !vocab.ValidSlug(name) {
			return invalid("identity_providers: %q is not a name: want 1 to 63 of a–z, 0–9 and hyphens", name)
		}
		if err := c.Providers[name].validate(); err != nil {
			return invalid("identity_providers.%s: %w", name, err)
		}
	}
	return nil
}

func (p Provider) validate() error {
	if err := checkURL(p.Issuer, true); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if len(p.Audiences) == 0 || slices.Contains(p.Audiences, "") {
		return fmt.Errorf("audiences: name at least one, none of them empty; a provider without audiences would let tokens of other services in")
	}
	switch p.Token {
	case "", TokenAccess, TokenID:
	default:
		return fmt.Errorf("token: %q is neither access nor id", p.Token)
	}
	switch p.Claims.GroupForm {
	case "", GroupID, GroupAddress:
	default:
		return fmt.Errorf("claims.group_form: %q is neither id nor address", p.Claims.GroupForm)
	}
	if len(p.Addresses.Claims) > 0 && len(p.Addresses.Domains) == 0 {
		return fmt.Errorf("addresses.domains: name the domains the provider may speak for")
	}
	for _, d := range p.Addresses.Domains {
		if c, err := vocab.CanonicalDomain(d); err != nil || c != d {
			return fmt.Errorf("addresses.domains: %q is not a domain in lower case", d)
		}
	}
	for _, claim := range sortedKeys(p.Require) {
		if len(p.Require[claim]) == 0 {
			return fmt.Errorf("require.%s: name at least one value", claim)
		}
		for _, v := range p.Require[claim] {
			switch v.(type) {
			case string, bool, int:
			default:
				return fmt.Errorf("require.%s: %v is not a string, a boolean or a whole number", claim, v)
			}
		}
	}
	if p.MaxTokenAge < 0 {
		return fmt.Errorf("max_token_age: must not be negative")
	}
	return nil
}

// Kind returns Token or its default.
func (p Provider) Kind() TokenKind {
	if p.Token == "" {
		return TokenAccess
	}
	return p.Token
}

func (p Provider) maxAge() time.Duration {
	if p.MaxTokenAge == 0 {
		return DefaultMaxTokenAge
	}
	return p.MaxTokenAge
}

// checkURL accepts https, and http on a literal loopback address, where
// nobody is in between. Issuers carry neither query nor fragment (OpenID
// Connect Discovery 1.0 §3).
func checkURL(s string, issuer bool) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return fmt.Errorf("%q is not a URL like https://login.example.com", s)
	}
	if issuer && (u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#")) {
		return fmt.Errorf("%q must have no query and no fragment", s)
	}
	switch u.Scheme {
	case "https":
		return nil
	case "http":
		if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() {
			return nil
		}
		return fmt.Errorf("%q must be https: anyone on the way could sign tokens", s)
	}
	return fmt.Errorf("%q must be https", s)
}

func invalid(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, format, args...)
}
