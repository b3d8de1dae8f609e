// Package login is the client's side of signing in: device authorization (RFC
// 8628) for machines without a browser, authorization code with PKCE and a
// loopback redirect (RFC 8252, RFC 7636) for those with one, and a file that
// keeps the session and refreshes it.
//
// It needs the issuer and the client ID, which the service tells before
// anybody signs in. It keeps no client secret: a program on somebody's machine
// cannot have one.
package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/openrms/rms/internal/vocab"
)

const (
	callTimeout = 30 * time.Second
	maxAnswer   = 1 << 20 // bytes
)

// Bearer is a token. It prints and logs as a placeholder; Reveal returns it.
type Bearer string

// Reveal returns the token.
func (b Bearer) Reveal() string { return string(b) }

// String, GoString, MarshalText and LogValue never show the token.
func (Bearer) String() string               { return "[redacted]" }
func (Bearer) GoString() string             { return "[redacted]" }
func (Bearer) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }
func (Bearer) LogValue() slog.Value         { return slog.StringValue("[redacted]") }

// Provider says where and as what to sign in.
type Provider struct {
	Issuer   string
	ClientID string
	// Scopes beside openid and offline_access. Nil: profile and email.
	Scopes []string
	// UseIDToken presents the ID token instead of the access token, for
	// providers whose access tokens are opaque.
	UseIDToken bool
}

// Session is a signed-in person: what the cache keeps.
type Session struct {
	Issuer   string
	ClientID string
	// Token is what is presented to the service.
	Token Bearer
	// Expires is when Token does.
	Expires time.Time
	// Refresh renews the session; empty if the provider gave none.
	Refresh Bearer
	// Subject and Address are what the ID token says of the person, for
	// showing only: the service decides by what it verifies itself.
	Subject, Address string
	Scopes           []string
	UseIDToken       bool
}

// Client signs in at one provider. It is safe for concurrent use.
type Client struct {
	provider Provider
	http     *http.Client
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	wait     func(context.Context, time.Duration) error
	now      func() time.Time
}

// Discover reads the provider's discovery document and returns a client. A nil
// httpClient has Go's defaults. It returns IDENTITY_PROVIDER_DOWN if the
// provider cannot be reached or is not the issuer it should be.
func Discover(ctx context.Context, p Provider, httpClient *http.Client) (*Client, error) {
	if p.ClientID == "" {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the identity provider has no client for signing in from here").
			WithNext("Ask the operator to set cli_client_id")
	}
	if err := checkEndpoint(p.Issuer); err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "issuer: %w", err)
	}
	c := http.Client{}
	if httpClient != nil {
		c = *httpClient
	}
	if c.Timeout == 0 {
		c.Timeout = callTimeout
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error {
		return errors.New("the identity provider redirects; a token request is not sent on")
	}
	discovered, err := oidc.NewProvider(oidc.ClientContext(ctx, &c), p.Issuer)
	if err != nil {
		return nil, providerDown(err)
	}
	endpoint := discovered.Endpoint()
	for _, u := range []string{endpoint.AuthURL, endpoint.TokenURL, endpoint.DeviceAuthURL} {
		if u == "" {
			continue // the flow that needs it says so
		}
		if err := checkEndpoint(u); err != nil {
			return nil, providerDown(err)
		}
	}
	scopes := p.Scopes
	if scopes == nil {
		scopes = []string{"profile", "email"}
	}
	endpoint.AuthStyle = oauth2.AuthStyleInParams // a public client has nothing else to send
	return &Client{
		provider: p, http: &c, now: time.Now, wait: wait,
		oauth: oauth2.Config{ClientID: p.ClientID, Endpoint: endpoint,
			Scopes: slices.Concat([]string{oidc.ScopeOpenID, oidc.ScopeOfflineAccess}, scopes)},
		verifier: discovered.VerifierContext(oidc.ClientContext(context.Background(), &c), &oidc.Config{ClientID: p.ClientID}),
	}, nil
}

// Refresh renews a session with its refresh token. It returns TOKEN_EXPIRED if
// the provider no longer accepts it: the person must sign in again.
func (c *Client) Refresh(ctx context.Context, s *Session) (*Session, error) {
	if s.Issuer != c.provider.Issuer || s.ClientID != c.provider.ClientID {
		return nil, vocab.Errorf(vocab.ReasonInternal, "the session is of another identity provider")
	}
	if s.Refresh == "" {
		return nil, signInAgain(errors.New("no refresh token"))
	}
	a, err := c.exchange(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {s.Refresh.Reveal()}})
	if err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, signInAgain(a.err())
	}
	if a.RefreshToken == "" {
		a.RefreshToken = s.Refresh.Reveal() // RFC 6749 §6: keep the old one
	}
	if a.IDToken == "" && !c.provider.UseIDToken { // OpenID Connect Core 1.0 §12.2 leaves it out
		return c.session(a, s.Subject, s.Address, time.Time{})
	}
	return c.finish(ctx, a, "", s.Subject)
}

// answer is what the token endpoint says.
type answer struct {
	AccessToken  string `json:"access_token"`
	IDToken      string `json:"id_token"`
	RefreshToken string `json:"refresh_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	Error        string `json:"error"`
	Description  string `json:"error_description"`
}

func (a *answer) err() error {
	return fmt.Errorf("the identity provider answered %q %q", clip(a.Error), clip(a.Description))
}

// exchange asks the token endpoint. An answer with Error set is an answer.
func (c *Client) exchange(ctx context.Context, form url.Values) (*answer, error) {
	a := new(answer)
	form.Set("client_id", c.provider.ClientID)
	if err := c.post(ctx, c.oauth.Endpoint.TokenURL, form, a); err != nil {
		return nil, err
	}
	if a.Error == "" && a.AccessToken == "" {
		return nil, providerDown(errors.New("an answer without access token"))
	}
	return a, nil
}

// post sends a form and reads the JSON answer, of success or of OAuth error.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return providerDown(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return providerDown(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return providerDown(err)
	}
	if resp.StatusCode/100 != 2 && resp.StatusCode/100 != 4 {
		return providerDown(fmt.Errorf("answered %s", resp.Status))
	}
	if err := json.Unmarshal(b, into); err != nil {
		return providerDown(fmt.Errorf("answered %s without JSON", resp.Status))
	}
	return nil
}

// finish verifies the ID token of an answer and makes the session. nonce is
// the one of the request, empty for flows without. subject, if not empty, must
// be the same person's.
func (c *Client) finish(ctx context.Context, a *answer, nonce, subject string) (*Session, error) {
	if a.IDToken == "" {
		return nil, providerDown(errors.New("an answer without ID token"))
	}
	id, err := c.verifier.Verify(oidc.ClientContext(ctx, c.http), a.IDToken)
	if err != nil {
		return nil, badAnswer(err)
	}
	if id.Nonce != nonce {
		return nil, badAnswer(errors.New("the ID token answers another request (nonce)"))
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(a.AccessToken); err != nil {
			return nil, badAnswer(err)
		}
	}
	if subject != "" && id.Subject != subject {
		return nil, badAnswer(errors.New("the ID token is another person's"))
	}
	var claims struct {
		Email string `json:"email"`
		UPN   string `json:"preferred_username"`
	}
	_ = id.Claims(&claims) // for showing only
	address := claims.Email
	if address == "" {
		address = claims.UPN
	}
	return c.session(a, id.Subject, printable(address), id.Expiry)
}

func (c *Client) session(a *answer, subject, address string, idExpiry time.Time) (*Session, error) {
	s := &Session{
		Issuer: c.provider.Issuer, ClientID: c.provider.ClientID, Subject: subject, Address: address,
		Token: Bearer(a.AccessToken), Refresh: Bearer(a.RefreshToken),
		Scopes: c.provider.Scopes, UseIDToken: c.provider.UseIDToken,
		Expires: c.now().Add(time.Duration(a.ExpiresIn) * time.Second).UTC().Truncate(time.Second),
	}
	if c.provider.UseIDToken {
		s.Token, s.Expires = Bearer(a.IDToken), idExpiry.UTC()
	} else if !strings.EqualFold(a.TokenType, "bearer") {
		return nil, badAnswer(fmt.Errorf("a token of type %q", clip(a.TokenType)))
	}
	return s, nil
}

// checkEndpoint accepts https, and http on a literal loopback address.
func checkEndpoint(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is not a URL", clip(s))
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "https" || u.Scheme == "http" && ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%q is not https", clip(s))
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func providerDown(cause error) error {
	return vocab.Errorf(vocab.ReasonIdentityProviderDown, "the identity provider did not answer as it should: %w", cause).
		WithNext("Try again in a moment")
}

func badAnswer(cause error) error {
	return vocab.Errorf(vocab.ReasonTokenInvalid, "the identity provider's answer was not accepted: %w", cause).WithNext("Sign in again")
}

func signInAgain(cause error) error {
	return vocab.Errorf(vocab.ReasonTokenExpired, "your sign-in has expired").WithNext("Sign in again").Because(cause)
}

// printable drops what could drive a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x21 || r > 0x7e {
			return -1
		}
		return r
	}, clip(s))
}

func clip(s string) string {
	if len(s) > 254 {
		return s[:254]
	}
	return s
}
