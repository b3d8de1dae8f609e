package devidp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Session is what somebody has after signing in.
type Session struct {
	AccessToken, IDToken, RefreshToken string
	// Expires is when AccessToken does.
	Expires time.Time
}

// Session signs a user (a login name) in without a browser, with the same
// result as the sign-in page.
func (p *Provider) Session(ctx context.Context, login string) (*Session, error) {
	u, ok := p.user(login)
	if !ok {
		return nil, fmt.Errorf("there is no test user %q", login)
	}
	c, err := p.store.GetClientByClientID(ctx, p.options.ClientID)
	if err != nil {
		return nil, err
	}
	request := &authRequest{
		id: uuid.NewString(), created: time.Now(), audience: p.options.Audience, user: u, signedIn: time.Now(),
		request: oidc.AuthRequest{
			ClientID: p.options.ClientID, ResponseType: oidc.ResponseTypeCode,
			Scopes: oidc.SpaceDelimitedArray{"openid", "profile", "email", "offline_access"},
		},
	}
	r, err := op.CreateTokenResponse(op.ContextWithIssuer(ctx, p.issuer), request, c, p.op, true, "", "")
	if err != nil {
		return nil, err
	}
	return &Session{
		AccessToken: r.AccessToken, IDToken: r.IDToken, RefreshToken: r.RefreshToken,
		Expires: time.Now().Add(time.Duration(r.ExpiresIn) * time.Second).UTC(),
	}, nil
}

// MintToken returns a new access token of a user (a login name).
func (p *Provider) MintToken(login string) (string, error) {
	s, err := p.Session(context.Background(), login)
	if err != nil {
		return "", err
	}
	return s.AccessToken, nil
}

// Claims returns the claims an access token of a user would have now, for
// tests to change before they [Provider.Sign] them.
func (p *Provider) Claims(login string) map[string]any {
	u, ok := p.user(login)
	if !ok {
		return nil
	}
	now := time.Now().Unix()
	m := accessClaims(u)
	maps.Copy(m, map[string]any{
		"iss": p.issuer, "sub": u.Subject(), "aud": []string{p.options.Audience}, "client_id": p.options.ClientID,
		"iat": now, "nbf": now, "exp": now + int64(p.options.Lifetime/time.Second), "jti": uuid.NewString(),
	})
	return m
}

// Sign signs any claims with the signing key and further header members (nil:
// none), for tests of what a provider must not be believed.
func (p *Provider) Sign(claims, header map[string]any) (string, error) {
	key, err := p.store.SigningKey(context.Background())
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	for k, v := range header {
		options = options.WithHeader(jose.HeaderKey(k), v)
	}
	signer, err := jose.NewSigner(jose.SigningKey{
		Algorithm: key.SignatureAlgorithm(), Key: jose.JSONWebKey{Key: key.Key(), KeyID: key.ID()},
	}, options)
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims).Serialize()
}

// ApproveDevice signs a user (a login name) in on the device that shows a code.
func (p *Provider) ApproveDevice(userCode, login string) error {
	u, ok := p.user(login)
	if !ok {
		return fmt.Errorf("there is no test user %q", login)
	}
	return p.store.answerDevice(userCode, func(d *op.DeviceAuthorizationState) {
		d.Done, d.Subject, d.AMR, d.AuthTime = true, u.Subject(), u.AMR, time.Now()
	})
}

// DenyDevice refuses the device that shows a code.
func (p *Provider) DenyDevice(userCode string) error {
	return p.store.answerDevice(userCode, func(d *op.DeviceAuthorizationState) { d.Denied = true })
}

// SignInURL is the browser's part of a sign-in: it opens the authorization URL
// that a program wants opened, signs user (a login name) in on the page behind
// it, over HTTP as a browser does, and returns the URL the provider then
// sends the browser to.
func (p *Provider) SignInURL(authURL, login string) (string, error) {
	if !strings.HasPrefix(authURL, p.issuer+"/") {
		return "", errors.New("not a URL of this provider")
	}
	browser := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	step := func(resp *http.Response, err error) (*url.URL, error) {
		if err != nil {
			return nil, err
		}
		_ = resp.Body.Close()
		to, err := resp.Location()
		if err != nil {
			return nil, fmt.Errorf("%s answered %s and leads nowhere", resp.Request.URL.Path, resp.Status)
		}
		return to, nil
	}
	to, err := step(browser.Get(authURL))
	if err != nil {
		return "", err
	}
	if to.Path != "/login" {
		return "", errors.New("the URL does not lead to the sign-in page")
	}
	form := url.Values{"request": {to.Query().Get("request")}, "user": {login}}
	if to, err = step(browser.PostForm(p.issuer+"/login", form)); err != nil {
		return "", err
	}
	if to, err = step(browser.Get(to.String())); err != nil {
		return "", err
	}
	return to.String(), nil
}
