package rmsdtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Tenant is the one tenant of a site, Parent its resource name.
const (
	Tenant = "contoso"
	Parent = "tenants/" + Tenant
)

// Site is what an operator has set up: configuration, certificate, identity
// provider and data directory. It outlives the daemons that run on it.
type Site struct {
	Dir     string // everything
	Data    string // the daemon's data directory, made by the daemon
	Config  string // rmsd.yaml
	Address string // where it listens
	IdP     *devidp.Provider
	// LogLevel is the least level daemons started from now on log; warn at
	// first.
	LogLevel string

	tb     testing.TB
	pool   *x509.CertPool
	tokens map[string]string

	// What callers pinned and verify against, from [Site.Pin] on.
	TenantID vocab.TenantID
	Verifier *license.Verifier
}

// Embedded is a tenant's custodian part with the keyring in the data directory.
const Embedded = "{embedded: {}}"

// New sets a site up for the life of a test. custodian is that part of the
// tenant's file, in YAML flow style.
func New(tb testing.TB, custodian string) *Site {
	tb.Helper()
	dir, err := os.MkdirTemp("", "rmsd-site-") // short: a socket's path is limited
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if b, _ := os.ReadFile(filepath.Join(dir, "rmsd.log")); tb.Failed() {
			tb.Logf("the daemons' log ends:\n%s", b[max(0, len(b)-3000):])
		}
		_ = os.RemoveAll(dir)
	})
	idp, err := devidp.Start(devidp.Options{Lifetime: 12 * time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = idp.Close() })
	s := &Site{
		Dir: dir, Data: filepath.Join(dir, "data"), Config: filepath.Join(dir, "rmsd.yaml"), Address: freeAddress(tb), IdP: idp, LogLevel: "warn",
		tb: tb, tokens: map[string]string{},
	}
	s.makeCertificate()
	s.write("rmsd.yaml", fmt.Sprintf(`
listen: %s
data_dir: data
operator_socket: operator.sock
tls: {certificate: server.pem, key: server.key}
identity_providers:
  people: {issuer: %q, audiences: [rms], addresses: {claims: [email], domains: [contoso.test]}}
tenants_dir: tenants.d
limits: {per_caller: 1000000, per_tenant: 1000000, connections: 10000}
`, s.Address, idp.Issuer()))
	s.write("tenants.d/contoso.yaml", fmt.Sprintf(`
id: contoso
domains: [contoso.test]
admins: ["user:alice@contoso.test"]
roles:
  policy-admin: ["user:alice@contoso.test"]
  auditor: ["user:erin@contoso.test"]
providers: [people]
custodian: %s
`, custodian))
	for _, user := range idp.Logins() {
		if s.tokens[user], err = idp.MintToken(user); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

func (s *Site) write(name, text string) {
	s.tb.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

// freeAddress returns a loopback address nobody listens on now. Its port is
// below those that the system gives out by itself, to connections among others:
// one of those could be gone before the daemon takes it.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			continue
		case err != nil:
			tb.Fatal(err)
		}
		_ = l.Close()
		return l.Addr().String()
	}
}

func (s *Site) makeCertificate() {
	s.tb.Helper()
	authority, err := daemontest.NewAuthority("authority of a test")
	if err != nil {
		s.tb.Fatal(err)
	}
	server, err := authority.Server("rmsd of a test")
	if err == nil {
		err = server.Write(filepath.Join(s.Dir, "server.pem"), filepath.Join(s.Dir, "server.key"))
	}
	if err != nil {
		s.tb.Fatal(err)
	}
	s.pool = authority.Pool
}

// On returns the site with another data directory, a copy of this one's: the
// same configuration, identities and pins, at a free address.
func (s *Site) On(tb testing.TB, data string) *Site {
	tb.Helper()
	next := *s
	next.tb, next.Address, next.Data = tb, freeAddress(tb), data
	dir, err := os.MkdirTemp("", "rmsd-site-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	old, err := os.ReadFile(s.Config)
	if err != nil {
		tb.Fatal(err)
	}
	next.Config = filepath.Join(dir, "rmsd.yaml")
	// Of a key that is given twice the configuration says no, so the lines are
	// replaced, and paths that were relative name the first site's files.
	text := replaceLines(string(old), map[string]string{
		"listen": next.Address, "data_dir": data, "operator_socket": filepath.Join(dir, "operator.sock"),
		"tls":         fmt.Sprintf("{certificate: %s/server.pem, key: %s/server.key}", s.Dir, s.Dir),
		"tenants_dir": filepath.Join(s.Dir, "tenants.d"),
	})
	if err := os.WriteFile(next.Config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return &next
}

// Connect opens a connection of its own. bound, if not nil, is told the local
// address of every TCP connection behind it.
func (s *Site) Connect(tb testing.TB, bound func(net.Addr)) *grpc.ClientConn {
	tb.Helper()
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil && bound != nil {
			bound(c.LocalAddr())
		}
		return c, err
	}
	conn, err := grpc.NewClient("passthrough:///"+s.Address, grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.pool, MinVersion: tls.VersionTLS13})))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// pin takes the tenant's identity and root over at first sight, as a person
// does at login, and refuses others from then on.
func (s *Site) pin(ctx context.Context, conn *grpc.ClientConn) error {
	trust, err := rmsv1.NewProtectionServiceClient(conn).GetTrust(ctx, &rmsv1.GetTrustRequest{})
	if err != nil {
		return err
	}
	if len(trust.GetCertificate()) == 0 || len(trust.GetTrustBundle()) == 0 {
		return errNotServing
	}
	id, err := vocab.ParseTenantID(trust.GetTenantId())
	if err != nil {
		return err
	}
	if s.Verifier != nil && id != s.TenantID {
		return fmt.Errorf("the tenant has another identity: it was %s, it is %s", s.TenantID, id)
	}
	var roots []license.KeyID
	if s.Verifier == nil {
		for _, r := range trust.GetRootKeyIds() {
			roots = append(roots, license.KeyID(r))
		}
	} else {
		for _, r := range s.Verifier.Bundle().Roots {
			roots = append(roots, r.ID())
		}
	}
	v, err := license.NewVerifier(trust.GetTrustBundle(), id, roots, 0)
	if err != nil {
		return err
	}
	s.TenantID, s.Verifier = id, v
	return nil
}
