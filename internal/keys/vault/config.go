package vault

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/openrms/rms/internal/vocab"
)

// Config is how one tenant reaches one mount of Vault.
type Config struct {
	// Address is https://HOST:PORT. Plain http is accepted on a loopback
	// address only (a Vault Agent).
	Address string
	// CAFile holds the PEM certificates Vault's must chain to; empty is the
	// system's set.
	CAFile string
	// Mount is the tenant's own transit mount.
	Mount string
	// ClusterID pins the Vault cluster; strongly advised.
	ClusterID string
	// Namespace is for Vault Enterprise. Vault's community edition ignores it
	// and would serve the root namespace instead, so it is refused there.
	Namespace string
	// Timeout bounds one request, 3 seconds if zero.
	Timeout time.Duration
	// Exactly one of AppRole and TokenFile.
	AppRole   *AppRole
	TokenFile string
	// Log hears of logins and their failures; nothing secret goes there.
	Log *slog.Logger
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Transport replaces TLS and dialling in tests.
	Transport http.RoundTripper
}

// AppRole is a login by role ID and secret ID. The files are read at each
// login, so that new ones take over without a restart.
type AppRole struct {
	Mount string // "approle" if empty
	// Role is the role's name. If set, a wrapped secret ID must come from it.
	Role                     string
	RoleIDFile, SecretIDFile string
	// Wrapped says that SecretIDFile holds a response-wrapping token instead
	// of the secret ID itself. It is unwrapped once; the secret ID stays in
	// memory for later logins, so the role must allow more than one use.
	Wrapped bool
}

const (
	defaultTimeout = 3 * time.Second
	maxTimeout     = 30 * time.Second
	// maxAnswer bounds what is read of one answer; a full batch needs 200 KiB.
	maxAnswer = 4 << 20
)

// Vault's own rule for key names; mounts may have several segments of it.
var nameRule = regexp.MustCompile(`^\w(([\w.-]+)?\w)?$`)

func bad(format string, args ...any) error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: %s", fmt.Sprintf(format, args...))
}

// checkNames refuses what cannot be the name of a mount's segment or a key.
func checkNames(names ...string) error {
	for _, name := range names {
		if len(name) > 128 || !nameRule.MatchString(name) {
			return bad("%q cannot be the name of a mount or key", name)
		}
	}
	return nil
}

func (c *Config) check() error {
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.Mount = strings.Trim(c.Mount, "/")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return bad("address %q is not of the form https://HOST:8200", c.Address)
	case u.Scheme == "http" && !loopback(u.Hostname()), u.Scheme != "http" && u.Scheme != "https":
		return bad("address %q must begin with https://", c.Address)
	case c.Timeout < 0 || c.Timeout > maxTimeout:
		return bad("timeout %s is not between 0 and %s", c.Timeout, maxTimeout)
	case (c.AppRole == nil) == (c.TokenFile == ""):
		return bad("want either approle or token_file")
	}
	if err := checkNames(strings.Split(c.Mount, "/")...); err != nil {
		return err
	}
	if a := c.AppRole; a != nil {
		a.Mount = cmp.Or(strings.Trim(a.Mount, "/"), "approle")
		if a.RoleIDFile == "" || a.SecretIDFile == "" {
			return bad("approle needs role_id_file and secret_id_file")
		}
		if !nameRule.MatchString(a.Mount) || a.Role != "" && !nameRule.MatchString(a.Role) {
			return bad("%q cannot be an auth mount", a.Mount)
		}
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// newClient makes a Vault client that takes nothing from the environment,
// follows no redirect, repeats no request and reads no unbounded answer.
func (c *Config) newClient() (*api.Client, error) {
	transport := c.Transport
	if transport == nil {
		t := &http.Transport{
			DialContext:         (&net.Dialer{Timeout: c.Timeout}).DialContext,
			TLSHandshakeTimeout: c.Timeout,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     90 * time.Second,
		}
		if c.CAFile != "" {
			pem, err := os.ReadFile(c.CAFile)
			if err != nil {
				return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: reading its CA: %v", err)
			}
			t.TLSClientConfig.RootCAs = x509.NewCertPool()
			if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
				return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: its CA file holds no certificate")
			}
		}
		transport = t
	}
	client, err := api.NewClient(&api.Config{
		Address:          c.Address,
		HttpClient:       &http.Client{Transport: bounded{transport}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		MaxRetries:       0,
		DisableRedirects: true,
	})
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: %v", err)
	}
	client.ClearToken() // NewClient reads VAULT_TOKEN, VAULT_NAMESPACE and VAULT_HEADERS
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	if c.Namespace != "" {
		client.SetNamespace(c.Namespace)
	}
	return client, nil
}

// bounded ends the body of every answer, good or bad, at maxAnswer.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil && resp.Body != nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// CloseIdleConnections lets http.Client reach the transport's.
func (b bounded) CloseIdleConnections() {
	if c, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
