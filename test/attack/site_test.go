package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// The tenants of a site. Contoso is attacked; fabrikam is a tenant of the same
// daemon whose own administrators are enemies.
const (
	contoso  = "contoso"
	fabrikam = "fabrikam"
)

// site is a daemon with two tenants, each with its own identity provider, and
// a third provider whose people may come to contoso as guests. It outlives
// restarts of the daemon.
type site struct {
	*daemontest.Folder
	tb testing.TB
	// idp has the providers by name: contoso, fabrikam, guests.
	idp    map[string]*devidp.Provider
	daemon *daemon.Daemon
	log    *logBuffer
	conns  map[string]*grpc.ClientConn
	trust  map[string]*trust
}

// trust is what a client pinned of a tenant.
type trust struct {
	*daemontest.Trust
	verifier *license.Verifier
}

// custodians are the custodians of the tenants' files; nil: keyrings.
func newSite(tb testing.TB, custodians map[string]config.Custodian) *site {
	tb.Helper()
	s := &site{Folder: daemontest.NewFolder(tb), tb: tb, idp: map[string]*devidp.Provider{}, log: new(logBuffer)}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the daemon's log ends:\n%s", s.log.tail())
		}
	})
	for name, users := range map[string][]devidp.User{
		contoso:  append(devidp.ContosoUsers(), devidp.User{Email: "zoe@contoso.test", Unverified: true}),
		fabrikam: {{Email: "frank@fabrikam.test", Groups: []string{"finance@contoso.test", "staff@fabrikam.test"}, AMR: []string{"mfa"}}},
		"guests": {{Email: "gina@guests.test"}, {Email: "alice@contoso.test", Groups: []string{"finance@contoso.test"}}},
	} {
		p, err := devidp.Start(devidp.Options{Users: users})
		must(tb, err)
		s.idp[name] = p
		tb.Cleanup(func() { _ = p.Close() })
	}
	s.configure(custodians)
	s.start()
	tb.Cleanup(func() {
		if s.daemon != nil {
			s.stop()
		}
	})
	s.trust = map[string]*trust{contoso: s.pin(contoso), fabrikam: s.pin(fabrikam)}
	return s
}

func (s *site) configure(custodians map[string]config.Custodian) {
	provider := func(name, domain string) identity.Provider {
		p := s.idp[name]
		return identity.Provider{
			Issuer: p.Issuer(), Audiences: []string{p.Audience()}, CLIClientID: p.ClientID(),
			Addresses: identity.Addresses{Claims: []string{"email"}, Domains: []string{domain}},
			Claims:    identity.Claims{Groups: "groups", GroupForm: identity.GroupAddress, MFA: identity.MFA{AMRs: []string{"mfa"}}},
		}
	}
	s.writeYAML("rmsd.yaml", config.File{
		Listen: "127.0.0.1:0", DataDir: "data", TenantsDir: "tenants", OperatorSocket: filepath.Join(s.Dir, "op.sock"),
		TLS:    config.TLS{Certificate: "server.pem", Key: "server.key", ClientCA: "ca.pem"},
		Limits: config.Limits{PerCaller: 1e6, PerTenant: 1e6, Connections: 1000},
		IdentityProviders: map[string]identity.Provider{
			contoso: provider(contoso, "contoso.test"), fabrikam: provider(fabrikam, "fabrikam.test"), "guests": provider("guests", "guests.test"),
		},
	})
	user := func(address string) vocab.Principal { return vocab.Principal{Kind: vocab.KindUser, Value: address} }
	for name, t := range map[string]config.Tenant{
		contoso: {
			Admins: []vocab.Principal{user("alice@contoso.test")}, GuestProviders: []string{"guests"},
			Roles: map[vocab.Role][]vocab.Principal{
				vocab.RolePolicyAdmin: {user("alice@contoso.test")}, vocab.RoleAuditor: {user("erin@contoso.test")},
				vocab.RoleKeyCustodian: {user("carla@contoso.test")},
			},
			Services: map[string]identity.ServiceMatch{"dlp-scanner": {URI: "spiffe://contoso.test/dlp"}},
		},
		fabrikam: {
			Admins: []vocab.Principal{user("frank@fabrikam.test")},
			Roles: map[vocab.Role][]vocab.Principal{
				vocab.RolePolicyAdmin: {user("frank@fabrikam.test")}, vocab.RoleAuditor: {user("frank@fabrikam.test")},
			},
		},
	} {
		t.ID, t.Domains, t.Providers = name, []string{name + ".test"}, []string{name}
		t.Custodians = map[string]config.Custodian{"main": {Embedded: &config.Embedded{}}}
		if c, ok := custodians[name]; ok {
			t.Custodians["main"] = c
		}
		s.writeYAML("tenants/"+name+".yaml", t)
	}
}

func (s *site) writeYAML(name string, v any) {
	s.tb.Helper()
	b, err := yaml.Marshal(v)
	must(s.tb, err)
	s.Write(name, string(b))
}

// boot starts the daemon and returns why it did not start.
func (s *site) boot() error {
	cfg, err := config.Load(filepath.Join(s.Dir, "rmsd.yaml"))
	if err != nil {
		return err
	}
	d, err := daemon.Start(s.tb.Context(), cfg, daemon.Options{Log: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		return err
	}
	s.daemon, s.conns = d, map[string]*grpc.ClientConn{}
	return nil
}

// start starts the daemon and waits until its tenants serve.
func (s *site) start() {
	s.tb.Helper()
	must(s.tb, s.boot())
	ctx, cancel := context.WithTimeout(s.tb.Context(), time.Minute)
	defer cancel()
	must(s.tb, s.daemon.Ready(ctx))
}

// stop ends the daemon in order: its last checkpoint is exported.
func (s *site) stop() {
	s.tb.Helper()
	for _, c := range s.conns {
		_ = c.Close()
	}
	d := s.daemon
	s.daemon = nil
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(s.tb, d.Close(ctx))
}

func (s *site) pin(tenant string) *trust {
	s.tb.Helper()
	told, err := daemontest.FetchTrust(s.tb.Context(), s.conn("", nil), tenant)
	must(s.tb, err)
	t := &trust{Trust: told}
	t.verifier, err = license.NewVerifier(t.Bundle, t.TenantID, t.Roots, 0)
	must(s.tb, err)
	return t
}

// clientTLS is the TLS configuration of a client, with a client certificate if
// one is given.
func (s *site) clientTLS(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: s.Authority.Pool, MinVersion: tls.VersionTLS13, ServerName: "localhost"}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c
}

// conn returns a connection, one for each name.
func (s *site) conn(name string, cert *tls.Certificate) *grpc.ClientConn {
	s.tb.Helper()
	if c := s.conns[name]; c != nil {
		return c
	}
	c, err := grpc.NewClient("passthrough:///"+s.daemon.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(s.clientTLS(cert))))
	must(s.tb, err)
	s.conns[name] = c
	s.tb.Cleanup(func() { _ = c.Close() })
	return c
}

// clientCertificate is a client certificate with a SPIFFE ID below contoso's,
// by the authority the daemon trusts.
func (s *site) clientCertificate(path string) *tls.Certificate {
	c := daemontest.ServiceCertificate(s.tb, s.Authority, "spiffe://contoso.test"+path)
	return &c
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// logBuffer keeps the daemon's log.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) all() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

func (b *logBuffer) tail() []byte {
	all := b.all()
	return all[max(0, len(all)-4000):]
}
