package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// DevOptions say how to run a development daemon.
type DevOptions struct {
	// Dir holds everything: configuration, keys, store, contexts. Required.
	Dir string
	// Listen is a loopback address; a free port of 127.0.0.1 if empty.
	Listen string
	// Custodians replace the embedded keyring.
	Custodians map[string]config.Custodian
	// Users are who may sign in at the tenant's own provider; the contoso.test
	// people if nil.
	Users []devidp.User
	Log   *slog.Logger
	// SyncEvery is how often the custodian is looked at; 5 minutes if zero.
	SyncEvery time.Duration
}

// Dev is a development daemon: the real thing, with test identities, on
// loopback, on a store that production refuses.
type Dev struct {
	*Daemon
	// IDP is the tenant's identity provider, Guests that of another
	// organisation whose people may come as guests.
	IDP, Guests *devidp.Provider
	dir         string
	stop        context.CancelFunc
	done        chan struct{}
}

// Names of the development tenant and its guest organisation.
const (
	DevTenant      = "contoso"
	devDomain      = "contoso.test"
	devGuestDomain = "fabrikam.test"
	devLife        = 10 * 365 * 24 * time.Hour // of its certificates
)

// devHeader begins the files that a development daemon writes, and may
// overwrite.
const devHeader = "# Written by rmsd dev"

//go:embed devtemplates/*.yaml
var devTemplates embed.FS

// StartDev makes what is missing in the directory and serves. It returns once
// everything works: templates are there, and contexts dev-NAME for each test
// identity.
func StartDev(ctx context.Context, o DevOptions) (_ *Dev, err error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if host, _, err := net.SplitHostPort(o.Listen); err != nil || !isLoopback(host) {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "a development daemon listens on loopback only, not on %s", o.Listen).
			WithNext("Use rmsd serve for anything others can reach")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := devMayUse(dir); err != nil {
		return nil, err
	}
	d := &Dev{dir: dir, done: make(chan struct{})}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	defer func() {
		if err != nil {
			close(d.done)
			err = errors.Join(err, d.Close(ctx))
		}
	}()
	for _, sub := range []string{"tls", "tenants", "data", "tokens"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%w", err)
		}
	}
	if d.IDP, err = devidp.Start(devidp.Options{StateFile: filepath.Join(dir, "idp.json"), Users: o.Users}); err != nil {
		return nil, err
	}
	if d.Guests, err = devidp.Start(devidp.Options{StateFile: filepath.Join(dir, "idp-fabrikam.json"), Users: devidp.FabrikamUsers()}); err != nil {
		return nil, err
	}
	if err := makeDevTLS(filepath.Join(dir, "tls")); err != nil {
		return nil, err
	}
	if err := d.writeConfig(o); err != nil {
		return nil, err
	}
	cfg, err := config.Load(filepath.Join(dir, "rmsd.yaml"))
	if err != nil {
		return nil, err
	}
	if d.Daemon, err = Start(ctx, cfg, Options{Log: o.Log, Development: true, SyncEvery: o.SyncEvery}); err != nil {
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := d.Ready(ready); err != nil {
		return nil, err
	}
	if err := d.seed(ctx); err != nil {
		return nil, err
	}
	if err := d.writeContexts(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.done)
		d.renewTokens(run)
	}()
	return d, nil
}

// devMayUse refuses a directory that another daemon uses or has made, before
// anything in it is touched.
func devMayUse(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "rmsd.yaml"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "%w", err)
	}
	if err == nil && !bytes.HasPrefix(b, []byte(devHeader)) {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s holds a configuration that rmsd dev did not write", dir).
			WithNext("Use another directory; rmsd serve -c %s/rmsd.yaml serves this one", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", storeFile)); err != nil {
		return nil //nolint:nilerr // there is no store yet
	}
	s, err := openStore(filepath.Join(dir, "data"), true)
	if err != nil {
		return err
	}
	return s.Close()
}

// Close stops the daemon and its identity providers.
func (d *Dev) Close(ctx context.Context) error {
	d.stop()
	<-d.done
	var all error
	if d.Daemon != nil {
		all = d.Daemon.Close(ctx)
	}
	for _, p := range []*devidp.Provider{d.IDP, d.Guests} {
		if p != nil {
			all = errors.Join(all, p.Close())
		}
	}
	return all
}

// Dir is the directory that holds everything.
func (d *Dev) Dir() string { return d.dir }

// ContextsDir is the folder of the contexts: what RMS_CONFIG_DIR is set to.
func (d *Dev) ContextsDir() string { return filepath.Join(d.dir, "contexts") }

// CAFile is the authority of the server's certificate.
func (d *Dev) CAFile() string { return filepath.Join(d.dir, "tls", "ca.pem") }

// ServiceCertificate returns the files of the client certificate of the
// service dlp-scanner.
func (d *Dev) ServiceCertificate() (certificate, key string) {
	return filepath.Join(d.dir, "tls", "dlp.pem"), filepath.Join(d.dir, "tls", "dlp.key")
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// writeConfig writes the operator's files: what a person would write, so that
// they are an example too.
func (d *Dev) writeConfig(o DevOptions) error {
	provider := func(p *devidp.Provider, domain string) identity.Provider {
		return identity.Provider{
			Issuer: p.Issuer(), Audiences: []string{p.Audience()}, CLIClientID: p.ClientID(),
			Addresses: identity.Addresses{Claims: []string{"email"}, Domains: []string{domain}},
			Claims:    identity.Claims{Groups: "groups", GroupForm: identity.GroupAddress, MFA: identity.MFA{AMRs: []string{"mfa"}}},
		}
	}
	file := config.File{
		Listen: o.Listen, DataDir: "data", TenantsDir: "tenants", OperatorSocket: operatorSocket(d.dir),
		TLS:    config.TLS{Certificate: "tls/server.pem", Key: "tls/server.key", ClientCA: "tls/ca.pem"},
		Limits: config.Limits{PerCaller: 100_000, PerTenant: 100_000, Connections: 4096},
		IdentityProviders: map[string]identity.Provider{
			"dev-contoso": provider(d.IDP, devDomain), "dev-fabrikam": provider(d.Guests, devGuestDomain),
		},
	}
	user := func(name string) vocab.Principal {
		return vocab.Principal{Kind: vocab.KindUser, Value: name + "@" + devDomain}
	}
	t := config.Tenant{
		ID: DevTenant, Domains: []string{devDomain}, Admins: []vocab.Principal{user("alice"), user("grace")},
		Roles: map[vocab.Role][]vocab.Principal{
			vocab.RolePolicyAdmin: {user("alice"), user("grace")}, vocab.RoleKeyCustodian: {user("carla"), user("dan")},
			vocab.RoleAuditor: {user("erin")}, vocab.RoleRecoveryOfficer: {user("heidi")},
		},
		Providers: []string{"dev-contoso"}, GuestProviders: []string{"dev-fabrikam"},
		Services:   map[string]identity.ServiceMatch{"dlp-scanner": {URI: "spiffe://" + devDomain + "/dlp"}},
		Custodians: map[string]config.Custodian{"keyring": {Embedded: &config.Embedded{}}},
	}
	if o.Custodians != nil {
		t.Custodians = o.Custodians
	}
	if err := writeYAML(filepath.Join(d.dir, "rmsd.yaml"), file); err != nil {
		return err
	}
	return writeYAML(filepath.Join(d.dir, "tenants", DevTenant+".yaml"), t)
}

// operatorSocket keeps the socket's path within the system's limit. Elsewhere
// its name is the directory's alone, so that no two daemons take it from each
// other.
func operatorSocket(dir string) string {
	const limit = 100
	if p := filepath.Join(dir, "operator.sock"); len(p) < limit {
		return p
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(os.TempDir(), "rmsd-dev-"+hex.EncodeToString(sum[:8])+".sock")
}

func writeYAML(path string, v any) error {
	var b bytes.Buffer
	b.WriteString(devHeader + " at each start. DEVELOPMENT: test identities, nothing is protected.\n")
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(v); err != nil {
		return err
	}
	return contexts.WritePrivate(path, b.Bytes())
}

// seed makes the two templates of the demo, once.
func (d *Dev) seed(ctx context.Context) error {
	t, _ := d.tenants.Find(DevTenant)
	alice := &vocab.Identity{
		Issuer: d.IDP.Issuer(), Subject: "dev", Provider: "dev-contoso", Addresses: []string{"alice@" + devDomain}, Member: DevTenant,
	}
	entries, err := devTemplates.ReadDir("devtemplates")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		b, err := devTemplates.ReadFile("devtemplates/" + entry.Name())
		if err != nil {
			return err
		}
		templates, err := templatefile.Parse(b)
		if err != nil {
			return err
		}
		for _, tmpl := range templates {
			if _, err := t.GetTemplate(ctx, tmpl.Slug, 0); err == nil {
				continue
			}
			tmpl.Comment = "made by rmsd dev"
			if _, _, err := t.WriteTemplate(ctx, tenant.Call{Caller: alice, Method: "rmsd dev"}, tmpl.Slug, tmpl, 0, false, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeContexts writes a context and a token for each test identity.
func (d *Dev) writeContexts() error {
	t, _ := d.tenants.Find(DevTenant)
	trust, err := t.Trust(context.Background())
	if err != nil {
		return err
	}
	bundle, err := license.ParseBundle(trust.Bundle)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(d.CAFile())
	if err != nil {
		return err
	}
	if err := d.writeTokens(); err != nil {
		return err
	}
	folder := contexts.At(d.ContextsDir())
	for _, p := range []*devidp.Provider{d.IDP, d.Guests} {
		for _, login := range p.Logins() {
			c := &contexts.Context{
				Name: "dev-" + login, Server: d.Addr(), CA: string(ca), Tenant: DevTenant, TenantID: t.ID(),
				TokenFile: d.tokenFile(login), Development: true,
			}
			for _, root := range trust.Roots {
				c.Roots = append(c.Roots, contexts.KeyID(root))
			}
			c.SetTrustBundle(trust.Bundle, bundle.Seq)
			if err := folder.Write(c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Dev) tokenFile(login string) string { return filepath.Join(d.dir, "tokens", login) }

func (d *Dev) writeTokens() error {
	for _, p := range []*devidp.Provider{d.IDP, d.Guests} {
		for _, login := range p.Logins() {
			token, err := p.MintToken(login)
			if err != nil {
				return err
			}
			if err := contexts.WritePrivate(d.tokenFile(login), []byte(token+"\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

// renewTokens keeps the tokens of the contexts fresh.
func (d *Dev) renewTokens(ctx context.Context) {
	tick := time.NewTicker(devidp.DefaultLifetime / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := d.writeTokens(); err != nil {
				d.opts.Log.Error("development tokens were not renewed", "error", err)
			}
		}
	}
}

// makeDevTLS makes an authority, the server's certificate and that of the
// service dlp-scanner, once.
func makeDevTLS(dir string) error {
	if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")); err == nil {
		return nil
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "rmsd dev authority (DEVELOPMENT)"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if err := writeCertificate(dir, "ca", ca, ca, caKey, caKey); err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "rmsd dev"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	uri := &url.URL{Scheme: "spiffe", Host: devDomain, Path: "/dlp"}
	service := &x509.Certificate{
		Subject: pkix.Name{CommonName: "dlp-scanner"}, URIs: []*url.URL{uri}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for name, cert := range map[string]*x509.Certificate{"dlp": service, "server": server} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		if err := writeCertificate(dir, name, cert, ca, key, caKey); err != nil {
			return err
		}
	}
	return nil
}

// writeCertificate signs a certificate and writes it with its key.
func writeCertificate(dir, name string, cert, ca *x509.Certificate, key, caKey *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	cert.SerialNumber, cert.NotBefore, cert.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(devLife)
	der, err := x509.CreateCertificate(rand.Reader, cert, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := contexts.WritePrivate(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})); err != nil {
		return err
	}
	return contexts.WritePrivate(filepath.Join(dir, name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
