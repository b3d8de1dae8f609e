package identity

import (
	"fmt"
	"maps"
	"net/url"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/vocab"
)

// Tenant is what the verifier must know of the tenant a call is addressed
// to. It is a view the caller makes; the functions are called during
// verification and read the policy that is in force at that moment. They must
// be safe for concurrent use.
type Tenant struct {
	// Name is the tenant's slug.
	Name string
	// Domains are the tenant's own domains, canonical.
	Domains []string
	// Providers are the names of the tenant's own identity providers.
	Providers []string
	// GuestProviders are the names of providers whose people may be let in
	// as guests. One listed in Providers too counts as the tenant's own.
	GuestProviders []string
	// GuestDomain reports whether people of this canonical domain may come
	// as guests. Nil: no domain may.
	GuestDomain func(domain string) bool
	// Group maps a group of a provider to the address of the group,
	// canonical. Nil: no group is known.
	Group func(provider, id string) (address string, ok bool)
	// Services are the services of the tenant's file, by name.
	Services map[string]ServiceMatch
}

// ServiceMatch says who is a service: the holder of a client certificate with
// one URI or DNS name, or one subject of one provider of the tenant.
type ServiceMatch struct {
	// URI is a URI name of the certificate, usually a SPIFFE ID
	// (spiffe://contoso.com/dlp). Compared exactly.
	URI string
	// DNS is a DNS name of the certificate, in lower case, no wildcard.
	DNS string
	// Provider and Subject are the name of a provider and the sub of its
	// tokens for the service.
	Provider, Subject string
}

// UnmarshalYAML reads "spiffe://contoso.com/dlp" (any URI), "dms.contoso.com"
// (a DNS name) or {provider: NAME, subject: SUB}. Unknown and repeated keys
// are refused.
func (m *ServiceMatch) UnmarshalYAML(n *yaml.Node) error {
	*m = ServiceMatch{}
	switch n.Kind {
	case yaml.ScalarNode:
		if u, err := url.Parse(n.Value); err == nil && u.Scheme != "" && u.Host != "" {
			m.URI = n.Value
		} else {
			m.DNS = n.Value
		}
	case yaml.MappingNode:
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if seen[key.Value] {
				return fmt.Errorf("line %d: %s is given twice", key.Line, key.Value)
			}
			seen[key.Value] = true
			if value.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: %s must be a string", value.Line, key.Value)
			}
			switch key.Value {
			case "provider":
				m.Provider = value.Value
			case "subject":
				m.Subject = value.Value
			default:
				return fmt.Errorf("line %d: field %s not found: a service is a certificate name or {provider, subject}", key.Line, key.Value)
			}
		}
	default:
		return fmt.Errorf("line %d: a service is a certificate name or {provider, subject}", n.Line)
	}
	if err := m.validate(); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (m ServiceMatch) MarshalYAML() (any, error) {
	switch {
	case m.URI != "":
		return m.URI, nil
	case m.DNS != "":
		return m.DNS, nil
	}
	return map[string]string{"provider": m.Provider, "subject": m.Subject}, nil
}

func (m ServiceMatch) validate() error {
	switch {
	case m.URI != "" && m.DNS == "" && m.Provider == "" && m.Subject == "":
		if u, err := url.Parse(m.URI); err != nil || u.Scheme == "" || u.Host == "" {
			return fmt.Errorf("%q is not a URI like spiffe://contoso.com/dlp", m.URI)
		}
	case m.DNS != "" && m.URI == "" && m.Provider == "" && m.Subject == "":
		if d, err := vocab.CanonicalDomain(m.DNS); err != nil || d != m.DNS {
			return fmt.Errorf("%q is neither a URI nor a DNS name in lower case", m.DNS)
		}
	case m.Provider != "" && m.Subject != "" && m.URI == "" && m.DNS == "":
	default:
		return fmt.Errorf("a service is one certificate name or a provider and a subject")
	}
	return nil
}

// ValidateTenant checks t against the configured providers and returns
// CONFIGURATION_INVALID with the first thing that is wrong. A domain that two
// tenants claim is for the caller to find, who sees all tenants.
func (c Config) ValidateTenant(t Tenant) error {
	if !vocab.ValidSlug(t.Name) {
		return invalid("tenant %q: not a name", t.Name)
	}
	for _, d := range t.Domains {
		if canonical, err := vocab.CanonicalDomain(d); err != nil || canonical != d {
			return invalid("tenant %s: domains: %q is not a domain in lower case", t.Name, d)
		}
	}
	for _, name := range slices.Concat(t.Providers, t.GuestProviders) {
		if _, ok := c.Providers[name]; !ok {
			return invalid("tenant %s: providers: there is no identity provider %q", t.Name, name)
		}
	}
	owners := map[ServiceMatch]string{}
	for _, name := range sortedKeys(t.Services) {
		m := t.Services[name]
		if !vocab.ValidSlug(name) {
			return invalid("tenant %s: services: %q is not a name", t.Name, name)
		}
		if err := m.validate(); err != nil {
			return invalid("tenant %s: services.%s: %w", t.Name, name, err)
		}
		if m.Provider != "" && !slices.Contains(t.Providers, m.Provider) {
			return invalid("tenant %s: services.%s: %q is not one of the tenant's own providers", t.Name, name, m.Provider)
		}
		if other, taken := owners[m]; taken {
			return invalid("tenant %s: services.%s: the same caller is already %s", t.Name, name, other)
		}
		owners[m] = name
	}
	return nil
}

// service returns the name of the first service, by name, that match accepts.
func (t Tenant) service(match func(ServiceMatch) bool) string {
	for _, name := range sortedKeys(t.Services) {
		if match(t.Services[name]) {
			return name
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
