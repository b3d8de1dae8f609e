package daemontest

import (
	"crypto/tls"
	"fmt"
	"os"
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
	Dir    string // everything
	Config string // rmsd.yaml
	Data   string // the data directory
	// Certificate and Key are the files of the server's certificate.
	Certificate, Key string
	// People signs in, Authority makes the certificates of the server and of
	// services.
	People    *devidp.Provider
	Authority *Authority

	tb testing.TB
}

// NewSite sets a site up for the life of a test.
func NewSite(tb testing.TB) *Site {
	tb.Helper()
	dir, err := os.MkdirTemp("", "rmsd-*") // short: a socket's path is limited
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Site{
		Dir: dir, Config: filepath.Join(dir, "rmsd.yaml"), Data: filepath.Join(dir, "data"),
		Certificate: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key"), tb: tb,
	}
	if s.People, err = devidp.Start(devidp.Options{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.People.Close() })
	if s.Authority, err = NewAuthority("test authority"); err != nil {
		tb.Fatal(err)
	}
	s.Certify("server")
	s.Write("ca.pem", string(s.Authority.PEM))
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
custodian: {embedded: {}}
`, DLP))
	return s
}

// Write writes a file of the operator's.
func (s *Site) Write(name, text string) {
	s.tb.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

// Certify gives the server a new certificate with this common name.
func (s *Site) Certify(name string) {
	s.tb.Helper()
	pair, err := s.Authority.Server(name)
	if err == nil {
		err = pair.Write(s.Certificate, s.Key)
	}
	if err != nil {
		s.tb.Fatal(err)
	}
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
