package rmsdtest

import (
	"context"
	"crypto/tls"
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
)

// Tenant is the one tenant of a site, Parent its resource name.
const (
	Tenant = "contoso"
	Parent = "tenants/" + Tenant
)

// Site is what an operator has set up: configuration, certificate, identity
// provider and data directory. It outlives the daemons that run on it.
type Site struct {
	*daemontest.Folder
	Data    string // the daemon's data directory, made by the daemon
	Config  string // rmsd.yaml
	Address string // where it listens
	IdP     *devidp.Provider
	// LogLevel is the least level daemons started from now on log; warn at
	// first.
	LogLevel string

	people map[string]daemontest.Who

	// What callers pinned and verify against, from [Site.Pin] on.
	TenantID vocab.TenantID
	Verifier *license.Verifier
}

// Embedded are a tenant's custodians: the keyring in the data directory alone.
const Embedded = "{keyring: {embedded: {}}}"

// New sets a site up for the life of a test. custodians is that part of the
// tenant's file: in YAML flow style, or a block on lines of its own.
func New(tb testing.TB, custodians string) *Site {
	tb.Helper()
	f := daemontest.NewFolder(tb)
	tb.Cleanup(func() {
		if b, _ := os.ReadFile(filepath.Join(f.Dir, "rmsd.log")); tb.Failed() {
			tb.Logf("the daemons' log ends:\n%s", b[max(0, len(b)-3000):])
		}
	})
	idp, err := devidp.Start(devidp.Options{Lifetime: 12 * time.Hour})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = idp.Close() })
	s := &Site{
		Folder: f, Data: filepath.Join(f.Dir, "data"), Config: filepath.Join(f.Dir, "rmsd.yaml"), Address: freeAddress(tb), IdP: idp, LogLevel: "warn",
		people: map[string]daemontest.Who{},
	}
	s.Write("rmsd.yaml", fmt.Sprintf(`
listen: %s
data_dir: data
operator_socket: operator.sock
tls: {certificate: server.pem, key: server.key}
identity_providers:
  people: {issuer: %q, audiences: [rms], addresses: {claims: [email], domains: [contoso.test]}}
tenants_dir: tenants.d
limits: {per_caller: 1000000, per_tenant: 1000000, connections: 10000}
`, s.Address, idp.Issuer()))
	s.Write("tenants.d/contoso.yaml", fmt.Sprintf(`
id: contoso
domains: [contoso.test]
admins: ["user:alice@contoso.test"]
roles:
  policy-admin: ["user:alice@contoso.test"]
  auditor: ["user:erin@contoso.test"]
providers: [people]
custodians: %s
`, custodians))
	for _, user := range idp.Logins() {
		token, err := idp.MintToken(user)
		if err == nil {
			s.people[user], err = daemontest.Person(token)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return s
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

// On returns the site with another data directory, a copy of this one's: the
// same configuration, identities and pins, at a free address.
func (s *Site) On(tb testing.TB, data string) *Site {
	tb.Helper()
	next := *s
	next.Address, next.Data = freeAddress(tb), data
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
		"tls":         fmt.Sprintf("{certificate: %s, key: %s}", s.Certificate, s.Key),
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
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: s.Authority.Pool, MinVersion: tls.VersionTLS13})))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// pin takes the tenant's identity and root over at first sight, as a person
// does at login, and refuses others from then on.
func (s *Site) pin(ctx context.Context, conn *grpc.ClientConn) error {
	trust, err := daemontest.FetchTrust(ctx, conn, Tenant)
	if err != nil {
		return err
	}
	if len(trust.Certificate) == 0 || len(trust.Bundle) == 0 {
		return errNotServing
	}
	if s.Verifier != nil {
		if trust.TenantID != s.TenantID {
			return fmt.Errorf("the tenant has another identity: it was %s, it is %s", s.TenantID, trust.TenantID)
		}
		trust.Roots = nil
		for _, r := range s.Verifier.Bundle().Roots {
			trust.Roots = append(trust.Roots, r.ID())
		}
	}
	v, err := license.NewVerifier(trust.Bundle, trust.TenantID, trust.Roots, 0)
	if err != nil {
		return err
	}
	s.TenantID, s.Verifier = trust.TenantID, v
	return nil
}
