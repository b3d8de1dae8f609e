package devidp

import (
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// authRequest implements op.AuthRequest.
type authRequest struct {
	id       string
	created  time.Time
	request  oidc.AuthRequest
	audience string

	user     User
	signedIn time.Time // zero until somebody did
}

func (r *authRequest) clone() *authRequest { c := *r; return &c }

func (r *authRequest) GetID() string                      { return r.id }
func (r *authRequest) GetACR() string                     { return "" }
func (r *authRequest) GetAMR() []string                   { return r.user.AMR }
func (r *authRequest) GetAudience() []string              { return []string{r.audience} }
func (r *authRequest) GetAuthTime() time.Time             { return r.signedIn }
func (r *authRequest) GetClientID() string                { return r.request.ClientID }
func (r *authRequest) GetNonce() string                   { return r.request.Nonce }
func (r *authRequest) GetRedirectURI() string             { return r.request.RedirectURI }
func (r *authRequest) GetResponseType() oidc.ResponseType { return r.request.ResponseType }
func (r *authRequest) GetResponseMode() oidc.ResponseMode { return r.request.ResponseMode }
func (r *authRequest) GetScopes() []string                { return r.request.Scopes }
func (r *authRequest) GetState() string                   { return r.request.State }
func (r *authRequest) GetSubject() string                 { return r.user.Subject() }
func (r *authRequest) Done() bool                         { return !r.signedIn.IsZero() }
func (r *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	if r.request.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.request.CodeChallenge, Method: r.request.CodeChallengeMethod}
}

// refreshRequest implements op.RefreshTokenRequest.
type refreshRequest struct {
	grant
	client, audience string
}

func (r *refreshRequest) GetAMR() []string                 { return r.amr }
func (r *refreshRequest) GetAudience() []string            { return []string{r.audience} }
func (r *refreshRequest) GetAuthTime() time.Time           { return r.at }
func (r *refreshRequest) GetClientID() string              { return r.client }
func (r *refreshRequest) GetScopes() []string              { return r.scopes }
func (r *refreshRequest) GetSubject() string               { return r.subject }
func (r *refreshRequest) SetCurrentScopes(scopes []string) { r.scopes = scopes }

// client implements op.Client: a program on somebody's machine.
type client struct {
	id   string
	life time.Duration
}

func (c client) GetID() string { return c.id }

// RedirectURIs are matched without their port (RFC 8252 §7.3).
func (c client) RedirectURIs() []string {
	return []string{"http://127.0.0.1/callback", "http://[::1]/callback"}
}
func (c client) PostLogoutRedirectURIs() []string    { return nil }
func (c client) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }
func (c client) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodNone }
func (c client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c client) LoginURL(id string) string            { return "/login?request=" + id }
func (c client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeJWT }
func (c client) IDTokenLifetime() time.Duration       { return c.life }
func (c client) DevMode() bool                        { return false }
func (c client) IsScopeAllowed(string) bool           { return false }
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c client) ClockSkew() time.Duration             { return 0 }
func (c client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}
func (c client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return keepScopes }
func (c client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return keepScopes }

func keepScopes(scopes []string) []string { return scopes }
