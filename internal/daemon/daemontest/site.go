package daemontest

import (
	"crypto/tls"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/devidp"
)

// Tenant is the tenant of a [Site], DLP the SPIFFE ID of its service
// dlp-scanner.
const (
	Tenant = "contoso"
	DLP    = "spiffe://contoso.test/dlp"
)

// Site is what an operator has set up: configuration, certificates, an identity
// provider with the test users, and a tenant with its keys in a keyring.
type Site struct {
	*Folder
	Config string // rmsd.yaml
	Data   string // the data directory
	// People signs in.
	People *devidp.Provider
}

// NewSite sets a site up for the life of a test.
func NewSite(tb testing.TB) *Site {
	tb.Helper()
	f := NewFolder(tb)
	s := &Site{Folder: f, Config: filepath.Join(f.Dir, "rmsd.yaml"), Data: filepath.Join(f.Dir, "data")}
	var err error
	if s.People, err = devidp.Start(devidp.Options{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.People.Close() })
	s.Write("rmsd.yaml", fmt.Sprintf(`
listen: 127.0.0.1:0
public_name: localhost:7443
data_dir: data
tls: {certificate: server.pem, key: server.key, client_ca: ca.pem}
identity_providers:
  people: {issuer: %q, audiences: [rms], cli_client_id: rmsctl, addresses: {claims: [email], domains: [contoso.test]}, claims: {groups: groups, group_form: address}}
tenants_dir: tenants.d
limits: {per_caller: 100000, per_tenant: 100000}
`, s.People.Issuer()))
	s.Write("tenants.d/contoso.yaml", fmt.Sprintf(`
id: contoso
domains: [contoso.test]
admins: ["user:alice@contoso.test"]
roles:
  policy-admin: ["user:alice@contoso.test"]
  auditor: ["user:erin@contoso.test"]
providers: [people]
services: {dlp-scanner: %q}
custodians: {keyring: {embedded: {}}}
`, DLP))
	return s
}

// ServiceCertificate makes a client certificate that the site's authority, or
// another, signs.
func ServiceCertificate(tb testing.TB, a *Authority, uri string) tls.Certificate {
	tb.Helper()
	pair, err := a.Service(uri)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := pair.TLS()
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// Client makes a client of the daemon at an address, closed with the test.
func (s *Site) Client(tb testing.TB, address string, certificates ...tls.Certificate) *Client {
	tb.Helper()
	c, err := Dial(address, Tenant, s.Authority.Pool, certificates...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	return c
}

// Person signs a test user in.
func (s *Site) Person(tb testing.TB, login string) Who {
	tb.Helper()
	token, err := s.People.MintToken(login)
	if err != nil {
		tb.Fatal(err)
	}
	who, err := Person(token)
	if err != nil {
		tb.Fatal(err)
	}
	return who
}
