// Package rmstest runs a whole rights management service inside a test: the
// real daemon on a loopback port, with an embedded keyring, a real OpenID
// provider, a tenant with test people, and two templates. Nothing is mocked and
// nothing leaves the machine.
//
//	func TestReportIsProtected(t *testing.T) {
//		svc := rmstest.Start(t)
//		alice := svc.Client("alice")
//		…
//	}
//
// The tenant is contoso, its people are at contoso.test:
//
//	alice    publishes; tenant-admin and policy-admin; finance, board; second factor
//	bob      intern
//	carla    key custodian; second factor
//	dan      key custodian; second factor
//	erin     auditor; second factor
//	mallory  nobody's colleague: no rights on anything
//
// dave and fay are at fabrikam.test, whose people the tenant may let in as
// guests. The service dlp-scanner has a client certificate. The templates are
// finance-internal (finance may edit, interns may read, dlp-scanner may read)
// and board-secret (the board may read with a second factor; strict custody).
//
// Everything is made anew for each [Start] and gone when the test ends. All
// keys, tokens and people are test values.
package rmstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/devidp"
)

// stopWithin bounds how long calls under way may hold the end of a test up.
const stopWithin = 20 * time.Second

// Person is somebody who can sign in.
type Person struct {
	// Email is the address; what stands before the @ is the name to use with
	// [Service.Client]. In the domain contoso.test it is the tenant's.
	Email string
	// Groups are the addresses of the groups the person is in.
	Groups []string
	// MFA says that the person signs in with a second factor.
	MFA bool
}

// Option changes how a service is started.
type Option func(*options)

type options struct {
	people []Person
	log    *slog.Logger
}

// WithPeople adds people of the tenant's own.
func WithPeople(people ...Person) Option {
	return func(o *options) { o.people = append(o.people, people...) }
}

// WithLog shows the daemon's log; without it there is none.
func WithLog(log *slog.Logger) Option { return func(o *options) { o.log = log } }

// Service is a running service. Its methods are for the test that started it and
// its subtests, at once if they like; what goes wrong fails that test.
type Service struct {
	t       testing.TB
	dir     string
	options options

	dev   atomic.Pointer[daemon.Dev] // the last one started
	trust rms.Trust

	mu      sync.Mutex // of starting, stopping and the clients
	stopped bool
	clients map[string]*rms.Client
}

// Start starts a service that ends with the test.
func Start(t testing.TB, with ...Option) *Service {
	t.Helper()
	s := &Service{t: t, stopped: true, clients: map[string]*rms.Client{}, options: options{log: slog.New(slog.DiscardHandler)}}
	for _, set := range with {
		set(&s.options)
	}
	// Not t.TempDir: the operator's socket has a short limit, and the names of
	// tests are long.
	dir, err := os.MkdirTemp("", "rmstest-")
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	t.Cleanup(s.end)
	s.start("")
	info, err := rms.FetchTrust(t.Context(), s.Address(), s.TLS(), s.Tenant())
	if err != nil {
		t.Fatal("rmstest: ", err)
	}
	s.trust = info.Trust()
	return s
}

func (s *Service) start(listen string) {
	s.t.Helper()
	users := devidp.ContosoUsers()
	for _, p := range s.options.people {
		u := devidp.User{Email: p.Email, Name: p.Email, Role: "of the test", Groups: p.Groups, AMR: []string{"pwd"}}
		if p.MFA {
			u.AMR = append(u.AMR, "mfa")
		}
		users = append(users, u)
	}
	dev, err := daemon.StartDev(s.t.Context(), daemon.DevOptions{Dir: s.dir, Listen: listen, Users: users, Log: s.options.log})
	if err != nil {
		s.t.Fatal("rmstest: ", err)
	}
	s.dev.Store(dev)
	s.stopped = false
}

// stop stops the daemon and its identity providers.
func (s *Service) stop() {
	if s.stopped {
		return
	}
	s.stopped = true
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if err := s.dev.Load().Close(ctx); err != nil {
		s.t.Error("rmstest: ", err)
	}
}

// end closes everything at the end of the test.
func (s *Service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		_ = c.Close()
	}
	s.stop()
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Error("rmstest: ", err)
	}
}

// Restart stops the service, as an operator would, and starts it again on the
// same data, address and identities. Clients connect again by themselves.
func (s *Service) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	listen := s.Address()
	s.stop()
	s.start(listen)
}

// Address is where the service listens, HOST:PORT.
func (s *Service) Address() string { return s.dev.Load().Addr() }

// Tenant is the tenant's name, contoso.
func (s *Service) Tenant() string { return daemon.DevTenant }

// Trust is what a client pins.
func (s *Service) Trust() rms.Trust { return s.trust }

// TLS trusts the service's certificate.
func (s *Service) TLS() *tls.Config {
	s.t.Helper()
	pem, err := os.ReadFile(s.CAFile())
	if err != nil {
		s.t.Fatal("rmstest: ", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		s.t.Fatal("rmstest: the authority's file holds no certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// CAFile is the authority of the service's certificate, in PEM.
func (s *Service) CAFile() string { return s.dev.Load().CAFile() }

// ServiceCertificate returns the files of dlp-scanner's client certificate and
// key, in PEM.
func (s *Service) ServiceCertificate() (certificate, key string) {
	return s.dev.Load().ServiceCertificate()
}

// ServiceTLS is [Service.TLS] with dlp-scanner's client certificate.
func (s *Service) ServiceTLS() *tls.Config {
	s.t.Helper()
	pair, err := tls.LoadX509KeyPair(s.ServiceCertificate())
	if err != nil {
		s.t.Fatal("rmstest: ", err)
	}
	config := s.TLS()
	config.Certificates = []tls.Certificate{pair}
	return config
}

// ContextsDir is a folder of rmsctl's with a context dev-NAME for each person:
// what RMS_CONFIG_DIR is set to.
func (s *Service) ContextsDir() string { return s.dev.Load().ContextsDir() }

// Config is what a person's client is made of.
func (s *Service) Config(name string) rms.Config {
	return rms.Config{
		Address: s.Address(), Tenant: s.Tenant(), TLS: s.TLS(), Trust: s.Trust(), Product: "rmstest",
		Token: func(context.Context) (string, error) { return s.mint(name) },
	}
}

// Client returns a person's client. It is made once and closed with the test.
func (s *Service) Client(name string) *rms.Client {
	s.t.Helper()
	return s.client("user "+name, func() rms.Config { return s.Config(name) })
}

// ServiceClient returns the client of the service dlp-scanner, which signs in
// with its certificate. It is made once and closed with the test.
func (s *Service) ServiceClient() *rms.Client {
	s.t.Helper()
	return s.client("service", func() rms.Config {
		config := s.Config("")
		config.Token, config.TLS = nil, s.ServiceTLS()
		return config
	})
}

func (s *Service) client(key string, config func() rms.Config) *rms.Client {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.clients[key]; c != nil {
		return c
	}
	c, err := rms.Dial(context.Background(), config())
	if err != nil {
		s.t.Fatal("rmstest: ", err)
	}
	s.clients[key] = c
	return c
}

// Token returns a new access token of a person.
func (s *Service) Token(name string) string {
	s.t.Helper()
	token, err := s.mint(name)
	if err != nil {
		s.t.Fatal("rmstest: ", err)
	}
	return token
}

// TokenWith returns an access token of a person with some claims changed, and
// those that are nil left out: for what a service must not accept.
func (s *Service) TokenWith(name string, changes map[string]any) string {
	s.t.Helper()
	p := s.provider(name)
	if p == nil {
		s.t.Fatalf("rmstest: there is nobody called %q", name)
	}
	claims := p.Claims(name)
	for k, v := range changes {
		if v == nil {
			delete(claims, k)
		} else {
			claims[k] = v
		}
	}
	token, err := p.Sign(claims, nil)
	if err != nil {
		s.t.Fatal("rmstest: ", err)
	}
	return token
}

func (s *Service) mint(name string) (string, error) {
	p := s.provider(name)
	if p == nil {
		return "", fmt.Errorf("there is nobody called %q", name)
	}
	return p.MintToken(name)
}

// provider is where a person signs in; nil if nowhere.
func (s *Service) provider(name string) *devidp.Provider {
	dev := s.dev.Load()
	for _, p := range []*devidp.Provider{dev.IDP, dev.Guests} {
		if p.Claims(name) != nil {
			return p
		}
	}
	return nil
}
