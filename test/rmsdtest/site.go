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
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Tenant is the first tenant of a site, Parent its resource name.
const (
	Tenant = "contoso"
	Parent = "tenants/" + Tenant
)

// Site is what an operator has set up: configuration, certificate, identity
// provider and data directory. It outlives the daemons that run on it.
//
// It is the site as people of one of its tenants see it.
type Site struct {
	*daemontest.Folder
	Name    string // the tenant's
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
	s := &Site{
		Folder: f, Name: Tenant, Data: filepath.Join(f.Dir, "data"), Config: filepath.Join(f.Dir, "rmsd.yaml"), Address: freeAddress(tb), LogLevel: "warn",
	}
	s.signIn(tb, nil)
	s.Write("rmsd.yaml", fmt.Sprintf(`
listen: %s
data_dir: data
operator_socket: operator.sock
tls: {certificate: server.pem, key: server.key}
identity_providers:
%s
tenants_dir: tenants.d
limits: {per_caller: 1000000, per_tenant: 1000000, connections: 10000}
`, s.Address, s.providerText()))
	s.SetCustodians(custodians)
	return s
}

// AddTenant adds another tenant with people of its own, alice, bob and erin,
// who have there the roles that those of the first tenant have.
func (s *Site) AddTenant(tb testing.TB, name, custodians string) *Site {
	tb.Helper()
	next := *s
	next.Name, next.TenantID, next.Verifier = name, vocab.TenantID{}, nil
	var users []devidp.User
	for _, user := range []string{"alice", "bob", "erin"} {
		users = append(users, devidp.User{Email: user + "@" + name + ".test", AMR: []string{"mfa"}})
	}
	next.signIn(tb, users)
	text, err := os.ReadFile(s.Config)
	if err != nil {
		tb.Fatal(err)
	}
	s.Write("rmsd.yaml", strings.Replace(string(text), "\ntenants_dir:", "\n"+next.providerText()+"\ntenants_dir:", 1))
	next.SetCustodians(custodians)
	return &next
}

// signIn gives the tenant a provider, and everybody there a token.
func (s *Site) signIn(tb testing.TB, users []devidp.User) {
	tb.Helper()
	idp, err := devidp.Start(devidp.Options{Lifetime: 12 * time.Hour, Users: users})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = idp.Close() })
	s.IdP, s.people = idp, map[string]daemontest.Who{}
	for _, user := range idp.Logins() {
		token, err := idp.MintToken(user)
		if err == nil {
			s.people[user], err = daemontest.Person(token)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func (s *Site) providerText() string {
	return fmt.Sprintf("  people-of-%s: {issuer: %q, audiences: [rms], addresses: {claims: [email], domains: [%s.test]}}", s.Name, s.IdP.Issuer(), s.Name)
}

// SetCustodians writes the tenant's file, which the next daemon reads. custodians
// is as for [New].
func (s *Site) SetCustodians(custodians string) {
	s.Write("tenants.d/"+s.Name+".yaml", strings.ReplaceAll(`
id: NAME
domains: [NAME.test]
admins: ["user:alice@NAME.test"]
roles:
  policy-admin: ["user:alice@NAME.test"]
  auditor: ["user:erin@NAME.test"]
  key-custodian: ["user:carla@NAME.test", "user:dan@NAME.test", "user:grace@NAME.test"]
providers: [people-of-NAME]
custodians: `, "NAME", s.Name)+custodians+"\n")
}

// Parent is the tenant's resource name.
func (s *Site) Parent() string { return "tenants/" + s.Name }

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

// Contexts writes a context of rmsctl for each person of the tenant, named as
// they are, with the root pinned that the daemon has now, and returns the folder.
func (s *Site) Contexts(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	trust, err := daemontest.FetchTrust(tb.Context(), s.Connect(tb, nil), s.Name)
	if err != nil {
		tb.Fatal(err)
	}
	for user, who := range s.people {
		name := user
		c := &contexts.Context{Name: name, Server: s.Address, CA: string(s.Authority.PEM), Tenant: s.Name, TenantID: trust.TenantID, TokenFile: name + ".token"}
		for _, root := range trust.Roots {
			c.Roots = append(c.Roots, contexts.KeyID(root))
		}
		text, err := c.Encode()
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, "contexts"), 0o700)
		}
		if err == nil {
			err = contexts.WritePrivate(filepath.Join(dir, "contexts", name+".yaml"), text)
		}
		if err == nil {
			err = contexts.WritePrivate(filepath.Join(dir, c.TokenFile), []byte(who.Token()+"\n"))
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// Client is a person as the public SDK has them, with the root pinned that the
// daemon has now.
func (s *Site) Client(tb testing.TB, user string) (*rms.Client, error) {
	tb.Helper()
	trust, err := daemontest.FetchTrust(tb.Context(), s.Connect(tb, nil), s.Name)
	if err != nil {
		return nil, err
	}
	who := s.people[user]
	config := rms.Config{
		Address: s.Address, Tenant: s.Name, TLS: &tls.Config{RootCAs: s.Authority.Pool},
		Token: func(context.Context) (string, error) { return who.Token(), nil },
		Trust: rms.Trust{TenantID: trust.TenantID, Bundle: trust.Bundle},
	}
	for _, root := range trust.Roots {
		config.Trust.RootKeyIDs = append(config.Trust.RootKeyIDs, root)
	}
	c, err := rms.Dial(tb.Context(), config)
	if err == nil {
		tb.Cleanup(func() { _ = c.Close() })
	}
	return c, err
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
	trust, err := daemontest.FetchTrust(ctx, conn, s.Name)
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
