package devidp

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// requestLife is how long a sign-in may take; refreshLife how long a refresh
// token is good.
const (
	requestLife = 10 * time.Minute
	refreshLife = 30 * 24 * time.Hour
)

var errNotFound = errors.New("not found, or over")

// storage is what the protocol engine keeps: in memory but for the keys.
type storage struct {
	options Options

	mu       sync.Mutex
	keys     []*signingKey           // the signing one first
	requests map[string]*authRequest // by ID
	codes    map[string]string       // request ID by authorization code
	devices  map[string]*device      // by device code
	refresh  map[string]*grant       // by refresh token
	access   map[string]*grant       // by token ID
}

var (
	_ op.Storage                    = (*storage)(nil)
	_ op.DeviceAuthorizationStorage = (*storage)(nil)
	_ op.CanSetUserinfoFromRequest  = (*storage)(nil)
)

func newStorage(o Options, keys []*signingKey) *storage {
	return &storage{
		options: o, keys: keys,
		requests: map[string]*authRequest{}, codes: map[string]string{}, devices: map[string]*device{},
		refresh: map[string]*grant{}, access: map[string]*grant{},
	}
}

// grant is what a token stands for.
type grant struct {
	subject string
	scopes  []string
	amr     []string
	at      time.Time // when the person signed in
	expires time.Time
}

type device struct {
	userCode string
	state    op.DeviceAuthorizationState
}

// sweep forgets what is over. The caller holds mu.
func (s *storage) sweep() {
	now := time.Now()
	for id, r := range s.requests {
		if now.Sub(r.created) > requestLife {
			delete(s.requests, id)
		}
	}
	for code, id := range s.codes {
		if s.requests[id] == nil {
			delete(s.codes, code)
		}
	}
	for code, d := range s.devices {
		if now.After(d.state.Expires) {
			delete(s.devices, code)
		}
	}
	for _, m := range []map[string]*grant{s.refresh, s.access} {
		for id, g := range m {
			if now.After(g.expires) {
				delete(m, id)
			}
		}
	}
}

func (s *storage) userBy(key func(User) string, value string) (User, bool) {
	i := slices.IndexFunc(s.options.Users, func(u User) bool { return key(u) == value })
	if i < 0 {
		return User{}, false
	}
	return s.options.Users[i], true
}

// Authorization requests.

func (s *storage) CreateAuthRequest(_ context.Context, r *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if slices.Contains(r.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired()
	}
	if r.CodeChallenge == "" || r.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge with method S256 is required")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	request := &authRequest{id: uuid.NewString(), created: time.Now(), request: *r, audience: s.options.Audience}
	s.requests[request.id] = request
	return request, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests[id]
	if r == nil || time.Since(r.created) > requestLife {
		return nil, errNotFound
	}
	return r.clone(), nil
}

func (s *storage) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	id, ok := s.codes[code]
	delete(s.codes, code) // a code is good once (RFC 6749 §4.1.2)
	s.mu.Unlock()
	if !ok {
		return nil, errNotFound
	}
	return s.AuthRequestByID(ctx, id)
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

// signIn says who the person behind an authorization request is.
func (s *storage) signIn(id string, u User) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests[id]
	if r == nil {
		return errNotFound
	}
	r.user, r.signedIn = u, time.Now()
	return nil
}

// Tokens.

func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	id, expires := s.addAccess(grantOf(r))
	return id, expires, nil
}

func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, r op.TokenRequest, current string) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	if current != "" {
		if s.refresh[current] == nil {
			return "", "", time.Time{}, op.ErrInvalidRefreshToken
		}
		delete(s.refresh, current) // each is good once (RFC 9700 §4.14.2)
	}
	g := grantOf(r)
	id, expires := s.addAccess(g)
	token := rand.Text()
	g.expires = time.Now().Add(refreshLife)
	s.refresh[token] = &g
	return id, token, expires, nil
}

func (s *storage) addAccess(g grant) (string, time.Time) {
	id := uuid.NewString()
	g.expires = time.Now().Add(s.options.Lifetime)
	s.access[id] = &g
	return id, g.expires
}

func grantOf(r op.TokenRequest) grant {
	g := grant{subject: r.GetSubject(), scopes: r.GetScopes(), at: time.Now()}
	if r, ok := r.(op.IDTokenRequest); ok {
		g.amr, g.at = r.GetAMR(), r.GetAuthTime()
	}
	return g
}

func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.refresh[token]
	if g == nil || time.Now().After(g.expires) {
		return nil, op.ErrInvalidRefreshToken
	}
	return &refreshRequest{grant: *g, client: s.options.ClientID, audience: s.options.Audience}, nil
}

func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.refresh[token]; g != nil {
		return g.subject, token, nil
	}
	return "", "", op.ErrInvalidRefreshToken
}

func (s *storage) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.access, token)
	delete(s.refresh, token)
	return nil
}

func (s *storage) TerminateSession(_ context.Context, subject, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range []map[string]*grant{s.refresh, s.access} {
		for id, g := range m {
			if g.subject == subject {
				delete(m, id)
			}
		}
	}
	return nil
}

// Keys.

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[0], nil
}

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.ES256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []op.Key
	for _, k := range s.keys {
		out = append(out, publicKey{k})
	}
	return out, nil
}

// The one client: public, without a secret, with PKCE.

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.options.ClientID {
		return nil, errNotFound
	}
	return client{id: id, life: s.options.Lifetime}, nil
}

func (s *storage) AuthorizeClientIDSecret(context.Context, string, string) error {
	return errors.New("no client has a secret")
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotFound
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("not supported")
}

// Claims.

func (s *storage) GetPrivateClaimsFromScopes(_ context.Context, subject, _ string, _ []string) (map[string]any, error) {
	u, ok := s.userBy(User.Subject, subject)
	if !ok {
		return nil, errNotFound
	}
	return accessClaims(u), nil
}

// accessClaims are the claims of an access token beside the registered ones.
func accessClaims(u User) map[string]any {
	m := map[string]any{"email": u.Email, "email_verified": !u.Unverified, "name": u.Name}
	if len(u.Groups) > 0 {
		m["groups"] = u.Groups
	}
	if len(u.AMR) > 0 {
		m["amr"] = u.AMR
	}
	maps.Copy(m, u.Claims)
	return m
}

func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil // superseded by SetUserinfoFromRequest
}

func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, _ []string) error {
	return s.setUserinfo(info, r.GetSubject())
}

func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, tokenID, subject, _ string) error {
	s.mu.Lock()
	g := s.access[tokenID]
	s.mu.Unlock()
	if g == nil || g.subject != subject {
		return errNotFound
	}
	return s.setUserinfo(info, subject)
}

func (s *storage) setUserinfo(info *oidc.UserInfo, subject string) error {
	u, ok := s.userBy(User.Subject, subject)
	if !ok {
		return errNotFound
	}
	info.Subject = subject
	info.Name, info.PreferredUsername = u.Name, u.Login()
	info.Email, info.EmailVerified = u.Email, oidc.Bool(!u.Unverified)
	return nil
}

func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errors.New("not supported")
}

func (s *storage) Health(context.Context) error { return nil }

// Device authorization (RFC 8628).

func (s *storage) StoreDeviceAuthorization(_ context.Context, clientID, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	if s.deviceBy(userCode) != nil {
		return op.ErrDuplicateUserCode
	}
	s.devices[deviceCode] = &device{userCode: userCode, state: op.DeviceAuthorizationState{
		ClientID: clientID, Audience: []string{s.options.Audience}, Scopes: scopes, Expires: expires,
	}}
	return nil
}

func (s *storage) GetDeviceAuthorizatonState(_ context.Context, clientID, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devices[deviceCode]
	if d == nil || d.state.ClientID != clientID {
		return nil, errNotFound
	}
	state := d.state
	state.Audience = slices.Clone(state.Audience)
	if state.Done || state.Denied {
		delete(s.devices, deviceCode) // answered once
	}
	return &state, nil
}

// deviceBy returns the device with a user code. The caller holds mu.
func (s *storage) deviceBy(userCode string) *device {
	for _, d := range s.devices {
		if d.userCode == userCode && time.Now().Before(d.state.Expires) {
			return d
		}
	}
	return nil
}

func (s *storage) answerDevice(userCode string, answer func(*op.DeviceAuthorizationState)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.deviceBy(userCode)
	if d == nil {
		return errNotFound
	}
	answer(&d.state)
	return nil
}
