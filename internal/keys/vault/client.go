package vault

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// Endpoint is a Vault and how it is recognised.
type Endpoint struct {
	// Address is https://HOST:PORT. Plain http is accepted on a loopback
	// address only (a Vault Agent).
	Address string
	// CAFile holds the PEM certificates Vault's must chain to; empty is the
	// system's set.
	CAFile string
	// Namespace is for Vault Enterprise. Vault's community edition ignores it
	// and would serve the root namespace instead, so it is refused there.
	Namespace string
	// ClusterID pins the Vault cluster.
	ClusterID string
	// Timeout bounds one request, 3 seconds if zero.
	Timeout time.Duration
	// Transport replaces TLS and dialling in tests.
	Transport http.RoundTripper
}

const (
	defaultTimeout = 3 * time.Second
	maxTimeout     = 30 * time.Second
	// maxAnswer bounds what is read of one answer; a full batch needs 200 KiB.
	maxAnswer = 4 << 20
)

// Vault's own rule for key names; mounts may have several segments of it.
var nameRule = regexp.MustCompile(`^\w(([\w.-]+)?\w)?$`)

func validName(s string) bool { return len(s) <= 128 && nameRule.MatchString(s) }

// CheckMount refuses what cannot be the name of a transit mount.
func CheckMount(mount string) error {
	for segment := range strings.SplitSeq(mount, "/") {
		if !validName(segment) {
			return vocab.Errorf(vocab.ReasonRequestInvalid, "%.140q cannot be the name of a mount in Vault", mount)
		}
	}
	return nil
}

// CheckKeyName refuses what cannot be the name of a key.
func CheckKeyName(name string) error {
	if !validName(name) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "%.140q cannot be the name of a key in Vault", name).
			WithNext("A name has letters, digits, hyphens, dots and underscores, and begins and ends with a letter or digit")
	}
	return nil
}

func (e *Endpoint) check() error {
	bad := func(format string, args ...any) error {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: %s", fmt.Sprintf(format, args...))
	}
	e.Timeout = cmp.Or(e.Timeout, defaultTimeout)
	u, err := url.Parse(e.Address)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return bad("address %q is not of the form https://HOST:8200", e.Address)
	case u.Scheme == "http" && !loopback(u.Hostname()), u.Scheme != "http" && u.Scheme != "https":
		return bad("address %q must begin with https://", e.Address)
	case e.Timeout < 0 || e.Timeout > maxTimeout:
		return bad("timeout %s is not between 0 and %s", e.Timeout, maxTimeout)
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
func (e *Endpoint) newClient() (*api.Client, error) {
	transport := e.Transport
	if transport == nil {
		t := &http.Transport{
			DialContext:         (&net.Dialer{Timeout: e.Timeout}).DialContext,
			TLSHandshakeTimeout: e.Timeout,
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     90 * time.Second,
		}
		if e.CAFile != "" {
			pem, err := os.ReadFile(e.CAFile)
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
		Address:          e.Address,
		HttpClient:       &http.Client{Transport: bounded{transport}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		MaxRetries:       0,
		DisableRedirects: true,
	})
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: %v", err)
	}
	client.ClearToken() // NewClient reads VAULT_TOKEN, VAULT_NAMESPACE and VAULT_HEADERS
	client.SetHeaders(http.Header{api.RequestHeaderName: {"true"}})
	if e.Namespace != "" {
		client.SetNamespace(e.Namespace)
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

// Client speaks to one Vault and has no login of its own: each call brings
// its token. A [Connection] is built on one; so are the acts of people
// (internal/keys/vaultact), which must speak to Vault by the same rules. It
// takes nothing from the environment, follows no redirect, repeats nothing and
// reads no unbounded answer. It is safe for concurrent use.
type Client struct {
	endpoint Endpoint
	api      *api.Client
}

// NewClient checks e. It does not talk to Vault yet.
func NewClient(e Endpoint) (*Client, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	client, err := e.newClient()
	if err != nil {
		return nil, err
	}
	return &Client{e, client}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.api.CloneConfig().HttpClient.CloseIdleConnections() }

// Cluster recognises the Vault before anybody shows it a credential, and
// returns its cluster ID and version. A sealed Vault, another cluster than the
// pinned one, and one that would ignore the namespace are errors.
func (c *Client) Cluster(ctx context.Context) (id, version string, err error) {
	h, err := c.expected(ctx)
	if err != nil {
		return "", "", err
	}
	return h.ClusterID, h.Version, nil
}

// Answer is what Vault answered to one request.
type Answer struct {
	// RequestID is what Vault's audit log has of it. It is empty where Vault
	// answers with nothing at all (204), as import does.
	RequestID string
	Data      []byte // JSON, empty if there is none
	// Warnings say what Vault did not do, although it answers with success.
	Warnings []string
}

// Refused is an answer of Vault's that is not a success. Found in an error, it
// belongs to the very request that failed.
type Refused struct {
	Status int
	// Text is what Vault said, its messages joined by "; ".
	Text string
	err  error
}

func (r *Refused) Error() string { return r.err.Error() }

// Unwrap returns the error as [Key] would classify it.
func (r *Refused) Unwrap() error { return r.err }

// Call makes one request with token, once. What is not a success is a
// *[Refused]; a success with a warning is CUSTODY_INTEGRITY, and comes with the
// answer, for Vault has done something.
func (c *Client) Call(ctx context.Context, method, path, token string, body any) (*Answer, error) {
	a, err := c.send(ctx, method, path, token, body)
	if r, ok := errors.AsType[*refused](err); ok {
		return nil, &Refused{r.status, strings.Join(r.answer.Errors, "; "), r.err}
	}
	if err != nil {
		return nil, err
	}
	return &Answer{a.RequestID, a.Data, a.Warnings}, a.unwarned()
}

// ReadKey reads a key's attributes.
func (c *Client) ReadKey(ctx context.Context, token, mount, name string) (*keys.KeyFacts, *Answer, error) {
	a, err := c.Call(ctx, http.MethodGet, mount+"/keys/"+name, token, nil)
	if err != nil {
		return nil, a, err
	}
	k, err := parseKey(a.Data)
	if err == nil && k.Name != name {
		err = fmt.Errorf("asked for key %q, got %q", name, k.Name)
	}
	if err != nil {
		return nil, a, keys.Integrity(err)
	}
	return k, a, nil
}

// expected asks for the cluster's health and refuses one that is sealed or is
// not the one that was pinned.
func (c *Client) expected(ctx context.Context) (*health, error) {
	h, err := c.health(ctx)
	switch {
	case err != nil:
		return nil, err
	case !*h.Initialized:
		return nil, refusal(http.StatusNotImplemented, []string{"not initialized"})
	case *h.Sealed:
		return nil, refusal(http.StatusServiceUnavailable, []string{"sealed"})
	case c.endpoint.ClusterID != "" && h.ClusterID != c.endpoint.ClusterID:
		return nil, vocab.Errorf(vocab.ReasonCustodianChanged, "the tenant's Vault is another cluster than the pinned one").
			WithNext("If it was replaced on purpose, change cluster_id; otherwise treat it as an attack").
			Because(fmt.Errorf("cluster ID is %.128q", h.ClusterID))
	case c.endpoint.Namespace != "" && !h.Enterprise:
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: a namespace is configured, but this Vault ignores namespaces").
			WithNext("Remove namespace, or name the right Vault")
	}
	return h, nil
}

func (c *Client) health(ctx context.Context) (*health, error) {
	// Standby nodes forward what they are asked, so they are as good; the
	// codes make Vault put the state into the body.
	q := url.Values{"standbyok": {"true"}, "perfstandbyok": {"true"}, "sealedcode": {"200"}, "uninitcode": {"200"}}
	status, b, err := c.exchange(ctx, http.MethodGet, "sys/health", q, "", nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, refusal(status, nil)
	}
	h, err := parseHealth(b)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonCustodianUnreachable, "the tenant's Vault did not answer as Vault does").Because(err)
	}
	return h, nil
}
