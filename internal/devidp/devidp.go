// Package devidp is an OpenID provider with test users and without passwords,
// for development and tests: whoever reaches it is whoever they choose to be.
// It therefore listens on loopback only.
//
// The protocol is real, served by github.com/zitadel/oidc: discovery, keys,
// authorization code with PKCE, device authorization, refresh tokens. What it
// signs differs from production only in the people.
package devidp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// Defaults of [Options].
const (
	DefaultAudience = "rms"
	DefaultClientID = "rmsctl"
	DefaultLifetime = time.Hour
)

// Options says how to start a provider. The zero value is a provider of the
// contoso.test users on a free port that forgets everything when it ends.
type Options struct {
	// Address is the loopback address to listen on, host:port. Empty: the
	// one of the state file, else a free port of 127.0.0.1. The issuer URL
	// contains it, and with it the identity of everybody, so it must stay
	// the same as long as data made under it is used.
	Address string
	// StateFile keeps address and signing keys across restarts, with mode
	// 0600. Empty: nothing is kept.
	StateFile string
	// Users are who may sign in. Nil: [ContosoUsers].
	Users []User
	// Audience is the aud of access tokens. Default: rms.
	Audience string
	// ClientID is the one public client. Default: rmsctl.
	ClientID string
	// Lifetime of access and ID tokens. Default: one hour.
	Lifetime time.Duration
}

// Provider is a running provider. Its methods are safe for concurrent use.
type Provider struct {
	issuer  string
	options Options
	store   *storage
	op      *op.Provider
	server  *http.Server
	served  sync.WaitGroup
	fetches atomic.Int64
}

// Start listens, loads or makes the signing key, and serves.
func Start(o Options) (*Provider, error) {
	if o.Users == nil {
		o.Users = ContosoUsers()
	}
	if o.Audience == "" {
		o.Audience = DefaultAudience
	}
	if o.ClientID == "" {
		o.ClientID = DefaultClientID
	}
	if o.Lifetime == 0 {
		o.Lifetime = DefaultLifetime
	}
	keys, address, err := loadState(o.StateFile)
	if err != nil {
		return nil, err
	}
	if o.Address == "" {
		o.Address = address
	}
	listener, err := listenLoopback(o.Address)
	if err != nil {
		return nil, fmt.Errorf("development identity provider: %w", err)
	}
	p := &Provider{issuer: "http://" + listener.Addr().String(), options: o}
	p.options.Address = listener.Addr().String()
	p.store = newStorage(p.options, keys)
	if err := p.store.save(); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if p.op, err = newOP(p.issuer, p.store); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	p.server = &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	p.served.Go(func() { _ = p.server.Serve(listener) }) // ends with ErrServerClosed
	return p, nil
}

func listenLoopback(address string) (net.Listener, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().IsLoopback() {
		return nil, fmt.Errorf("%q is not a loopback address and port: it signs anybody in as anybody", address)
	}
	return net.Listen("tcp", address)
}

func newOP(issuer string, s *storage) (*op.Provider, error) {
	config := &op.Config{
		CodeMethodS256:        true,
		GrantTypeRefreshToken: true,
		SupportedScopes:       []string{"openid", "profile", "email", "offline_access"},
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime:     10 * time.Minute,
			PollInterval: time.Second,
			UserFormPath: "/device",
			UserCode:     op.UserCodeBase20,
		},
	}
	_, _ = rand.Read(config.CryptoKey[:]) // seals authorization codes; gone with the process
	// No CORS: no page of another origin has business here.
	return op.NewProvider(config, s, op.StaticIssuer(issuer), op.WithAllowInsecure(), op.WithCORSOptions(nil))
}

// handler adds the pages to the protocol and shuts out pages of other origins,
// which the developer's own browser would carry past the loopback address:
// by name rebinding (Host) and by posting forms (Origin).
func (p *Provider) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", p.op)
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		p.op.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /login", p.loginPage)
	mux.HandleFunc("POST /login", p.login)
	mux.HandleFunc("GET /device", p.devicePage)
	mux.HandleFunc("POST /device", p.device)
	sameOrigin := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != p.options.Address {
			http.Error(w, "wrong host", http.StatusMisdirectedRequest)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		sameOrigin.ServeHTTP(w, r)
	})
}

// Issuer returns the issuer URL.
func (p *Provider) Issuer() string { return p.issuer }

// Audience returns the aud of access tokens.
func (p *Provider) Audience() string { return p.options.Audience }

// ClientID returns the public client people sign in with.
func (p *Provider) ClientID() string { return p.options.ClientID }

// Address returns the address it listens on, host:port.
func (p *Provider) Address() string { return p.options.Address }

// KeyFetches returns how often the key document was asked for, for tests of
// how seldom a verifier does.
func (p *Provider) KeyFetches() int64 { return p.fetches.Load() }

// Close stops serving and waits for requests under way.
func (p *Provider) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := p.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, p.server.Close())
	}
	p.served.Wait()
	return err
}
