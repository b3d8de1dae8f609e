package identity_test

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

const sampleConfig = `
identity_providers:
  entra-contoso:
    issuer: https://login.microsoftonline.com/1c0f/v2.0
    audiences: [7f3e0c9a]
    cli_client_id: 0b77
    addresses: {claims: [verified_primary_email, verified_secondary_email, upn], domains: [contoso.com, contoso.de]}
    claims: {groups: groups, mfa: {acrs: [c1]}}
  google-fabrikam:
    issuer: https://accounts.google.com
    token: id
    audiences: [8812-web.apps.googleusercontent.com, 8812-cli.apps.googleusercontent.com]
    require: {hd: [fabrikam.com], email_verified: [true]}
    addresses: {claims: [email], domains: [fabrikam.com]}
    max_token_age: 2h
`

func TestConfigFromYAML(t *testing.T) {
	var c identity.Config
	d := yaml.NewDecoder(strings.NewReader(sampleConfig))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	google := c.Providers["google-fabrikam"]
	want := identity.Provider{
		Issuer: "https://accounts.google.com", Token: identity.TokenID,
		Audiences:   []string{"8812-web.apps.googleusercontent.com", "8812-cli.apps.googleusercontent.com"},
		Require:     map[string][]any{"hd": {"fabrikam.com"}, "email_verified": {true}},
		Addresses:   identity.Addresses{Claims: []string{"email"}, Domains: []string{"fabrikam.com"}},
		MaxTokenAge: 2 * time.Hour,
	}
	if d := cmp.Diff(want, google); d != "" {
		t.Error(d)
	}
	if got := c.Providers["entra-contoso"].Kind(); got != identity.TokenAccess {
		t.Errorf("default kind %q", got)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*identity.Provider)
		word   string
	}{
		{"no audience", func(p *identity.Provider) { p.Audiences = nil }, "audiences"},
		{"empty audience", func(p *identity.Provider) { p.Audiences = []string{""} }, "audiences"},
		{"http issuer", func(p *identity.Provider) { p.Issuer = "http://login.contoso.com" }, "https"},
		{"http issuer that resolves to loopback somewhere", func(p *identity.Provider) { p.Issuer = "http://localhost:80" }, "https"},
		{"issuer with a query", func(p *identity.Provider) { p.Issuer = "https://login.contoso.com?a" }, "query"},
		{"issuer with a fragment", func(p *identity.Provider) { p.Issuer = "https://login.contoso.com#" }, "fragment"},
		{"issuer with a password", func(p *identity.Provider) { p.Issuer = "https://a:b@login.contoso.com" }, "URL"},
		{"issuer no URL", func(p *identity.Provider) { p.Issuer = "login.contoso.com" }, "URL"},
		{"issuer a file", func(p *identity.Provider) { p.Issuer = "file://host/etc" }, "https"},
		{"unknown kind", func(p *identity.Provider) { p.Token = "refresh" }, "access nor id"},
		{"unknown group form", func(p *identity.Provider) { p.Claims.GroupForm = "name" }, "group_form"},
		{"addresses of any domain", func(p *identity.Provider) { p.Addresses.Domains = nil }, "domains"},
		{"domain in upper case", func(p *identity.Provider) { p.Addresses.Domains = []string{"Contoso.com"} }, "lower case"},
		{"domain as a pattern", func(p *identity.Provider) { p.Addresses.Domains = []string{"*.contoso.com"} }, "domain"},
		{"required claim without value", func(p *identity.Provider) { p.Require = map[string][]any{"hd": {}} }, "require.hd"},
		{"required claim of a strange type", func(p *identity.Provider) { p.Require = map[string][]any{"hd": {1.5}} }, "require.hd"},
		{"negative age", func(p *identity.Provider) { p.MaxTokenAge = -1 }, "max_token_age"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := identity.Provider{Issuer: "https://login.contoso.com", Audiences: []string{"rms"},
				Addresses: identity.Addresses{Claims: []string{"email"}, Domains: []string{"contoso.com"}}}
			if err := (identity.Config{Providers: map[string]identity.Provider{"p": p}}).Validate(); err != nil {
				t.Fatal(err)
			}
			tt.change(&p)
			_, err := identity.NewVerifier(identity.Config{Providers: map[string]identity.Provider{"p": p}}, nil, nil)
			if vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || !strings.Contains(err.Error(), tt.word) {
				t.Errorf("%v, want a word about %q", err, tt.word)
			}
		})
	}
	err := identity.Config{Providers: map[string]identity.Provider{"My IdP": {}}}.Validate()
	if vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
		t.Errorf("%v", err)
	}
}

func TestServiceMatchYAML(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want identity.ServiceMatch
		ok   bool
	}{
		{`spiffe://contoso.com/dlp`, identity.ServiceMatch{URI: "spiffe://contoso.com/dlp"}, true},
		{`https://dms.contoso.com/app`, identity.ServiceMatch{URI: "https://dms.contoso.com/app"}, true},
		{`dms.contoso.com`, identity.ServiceMatch{DNS: "dms.contoso.com"}, true},
		{`{provider: entra, subject: "app:5a1d"}`, identity.ServiceMatch{Provider: "entra", Subject: "app:5a1d"}, true},
		{`DMS.contoso.com`, identity.ServiceMatch{}, false},
		{`"*.contoso.com"`, identity.ServiceMatch{}, false},
		{`dms`, identity.ServiceMatch{}, false},
		{`""`, identity.ServiceMatch{}, false},
		{`{provider: entra}`, identity.ServiceMatch{}, false},
		{`{subject: x}`, identity.ServiceMatch{}, false},
		{`{provider: entra, subject: x, role: admin}`, identity.ServiceMatch{}, false},
		{`{provider: entra, subject: x, subject: y}`, identity.ServiceMatch{}, false},
		{`{provider: entra, subject: [x]}`, identity.ServiceMatch{}, false},
		{`[x]`, identity.ServiceMatch{}, false},
	} {
		var got identity.ServiceMatch
		err := yaml.Unmarshal([]byte(tt.in), &got)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%s: %+v, %v", tt.in, got, err)
		}
		if !tt.ok {
			continue
		}
		b, err := yaml.Marshal(tt.want)
		if err != nil {
			t.Fatal(err)
		}
		var again identity.ServiceMatch
		if err := yaml.Unmarshal(b, &again); err != nil || again != tt.want {
			t.Errorf("%s written as %s reads as %+v, %v", tt.in, b, again, err)
		}
	}
}

func TestValidateTenant(t *testing.T) {
	c := identity.Config{Providers: map[string]identity.Provider{"own": {}, "guests": {}}}
	good := identity.Tenant{Name: "contoso", Domains: []string{"contoso.com"}, Providers: []string{"own"}, GuestProviders: []string{"guests"},
		Services: map[string]identity.ServiceMatch{"a": {DNS: "a.contoso.com"}, "b": {Provider: "own", Subject: "b"}}}
	if err := c.ValidateTenant(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*identity.Tenant){
		"name":                   func(t *identity.Tenant) { t.Name = "Contoso!" },
		"domain":                 func(t *identity.Tenant) { t.Domains = []string{"Contoso.com"} },
		"unknown provider":       func(t *identity.Tenant) { t.Providers = []string{"other"} },
		"unknown guest provider": func(t *identity.Tenant) { t.GuestProviders = []string{"other"} },
		"service name":           func(t *identity.Tenant) { t.Services = map[string]identity.ServiceMatch{"A": {DNS: "a.contoso.com"}} },
		"service of nobody":      func(t *identity.Tenant) { t.Services = map[string]identity.ServiceMatch{"a": {}} },
		"service of a URI and a DNS": func(t *identity.Tenant) {
			t.Services = map[string]identity.ServiceMatch{"a": {DNS: "a.b", URI: "x://y"}}
		},
		"service of a guest": func(t *identity.Tenant) {
			t.Services = map[string]identity.ServiceMatch{"a": {Provider: "guests", Subject: "a"}}
		},
		"the same service twice": func(t *identity.Tenant) {
			t.Services = map[string]identity.ServiceMatch{"a": {DNS: "a.contoso.com"}, "b": {DNS: "a.contoso.com"}}
		},
	} {
		tenant := good
		change(&tenant)
		if err := c.ValidateTenant(tenant); vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	v, err := identity.NewVerifier(identity.Config{}, nil, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	tenant := identity.Tenant{Name: "contoso", Services: map[string]identity.ServiceMatch{
		"dlp":  {URI: "spiffe://contoso.com/dlp"},
		"dms":  {DNS: "dms.contoso.com"},
		"scan": {DNS: "scan.contoso.com"},
		"bot":  {Provider: "contoso", Subject: "bot"},
	}}
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for _, tt := range []struct {
		name        string
		change      func(*x509.Certificate)
		want, named string
	}{
		{"a SPIFFE ID", func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://contoso.com/dlp")} }, "dlp", "spiffe://contoso.com/dlp"},
		{"a DNS name in any case", func(c *x509.Certificate) { c.DNSNames = []string{"x.contoso.com", "DMS.contoso.com"} }, "dms", "dms.contoso.com"},
		{"a SPIFFE ID below", func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://contoso.com/dlp/x")} }, "", ""},
		{"a SPIFFE ID of another domain", func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://evil.com/dlp")} }, "", ""},
		{"two SPIFFE IDs", func(c *x509.Certificate) {
			c.URIs = []*url.URL{uri("spiffe://contoso.com/dlp"), uri("spiffe://contoso.com/x")}
		}, "", ""},
		{"a wildcard", func(c *x509.Certificate) { c.DNSNames = []string{"*.contoso.com"} }, "", ""},
		{"the name only as common name", func(c *x509.Certificate) { c.Subject.CommonName = "dms.contoso.com" }, "", ""},
		{"two services at once", func(c *x509.Certificate) { c.DNSNames = []string{"dms.contoso.com", "scan.contoso.com"} }, "", ""},
		{"expired since the connection began", func(c *x509.Certificate) {
			c.DNSNames, c.NotAfter = []string{"dms.contoso.com"}, now.Add(-time.Second)
		}, "", ""},
		{"not yet valid", func(c *x509.Certificate) { c.DNSNames, c.NotBefore = []string{"dms.contoso.com"}, now.Add(time.Second) }, "", ""},
		{"of an authority", func(c *x509.Certificate) { c.DNSNames, c.IsCA = []string{"dms.contoso.com"}, true }, "", ""},
		{"no names", func(*x509.Certificate) {}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
			tt.change(c)
			id, err := v.Certificate(tenant, []*x509.Certificate{c})
			if tt.want == "" {
				wantReason(t, id, err, vocab.ReasonCertificateNotMapped)
				return
			}
			want := &vocab.Identity{Issuer: "x509", Subject: tt.named, Provider: "certificate", Service: tt.want, Certificate: true}
			if d := cmp.Diff(want, id); err != nil || d != "" {
				t.Errorf("%v %s", err, d)
			}
		})
	}
	id, err := v.Certificate(tenant, nil)
	wantReason(t, id, err, vocab.ReasonCertificateNotMapped)
}
