package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testHTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

func start(t *testing.T, o devidp.Options) (*devidp.Provider, *Client) {
	t.Helper()
	p, err := devidp.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, discover(t, p, Provider{})
}

func discover(t *testing.T, p *devidp.Provider, how Provider) *Client {
	t.Helper()
	how.Issuer, how.ClientID = p.Issuer(), p.ClientID()
	c, err := Discover(t.Context(), how, testHTTP())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// accepted says whom the service takes the bearer of a token for.
func accepted(t *testing.T, p *devidp.Provider, token Bearer, kind identity.TokenKind) string {
	t.Helper()
	audience := p.Audience()
	if kind == identity.TokenID {
		audience = p.ClientID()
	}
	v, err := identity.NewVerifier(identity.Config{Providers: map[string]identity.Provider{"dev": {
		Issuer: p.Issuer(), Audiences: []string{audience}, CLIClientID: p.ClientID(), Token: kind,
		Addresses: identity.Addresses{Claims: []string{"email"}, Domains: []string{"contoso.test"}},
	}}}, testHTTP(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	id, err := v.Token(t.Context(), identity.Tenant{Name: "contoso", Domains: []string{"contoso.test"}, Providers: []string{"dev"}}, token.Reveal())
	if err != nil {
		t.Fatalf("%v, because %v", err, errors.Unwrap(err))
	}
	return id.Name()
}

// browser is a person who signs in as login.
func browser(t *testing.T, p *devidp.Provider, login string) func(string) error {
	return func(url string) error {
		to, err := p.SignInURL(url, login)
		if err != nil {
			return err
		}
		return visit(t, to)
	}
}

func visit(t *testing.T, url string) error {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := testHTTP().Do(req)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the callback answered %s", resp.Status)
	}
	return nil
}

func TestBrowser(t *testing.T) {
	p, c := start(t, devidp.Options{})
	s, err := c.Browser(t.Context(), browser(t, p, "bob"))
	if err != nil {
		t.Fatal(err)
	}
	if got := accepted(t, p, s.Token, identity.TokenAccess); got != "bob@contoso.test" || s.Address != got {
		t.Errorf("signed in as %s, shown %s", got, s.Address)
	}
	if s.Refresh == "" || time.Until(s.Expires) < 50*time.Minute {
		t.Errorf("refresh %t, expires %s", s.Refresh != "", s.Expires)
	}
}

func TestBrowserWithIDToken(t *testing.T) {
	p, _ := start(t, devidp.Options{})
	c := discover(t, p, Provider{UseIDToken: true})
	s, err := c.Browser(t.Context(), browser(t, p, "alice"))
	if err != nil {
		t.Fatal(err)
	}
	// The provider's ID tokens name the service too, which the check of kind
	// is for: one is good where ID tokens are wanted, and only there.
	if got := accepted(t, p, s.Token, identity.TokenID); got != "alice@contoso.test" {
		t.Errorf("signed in as %s", got)
	}
	again, err := c.Refresh(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if got := accepted(t, p, again.Token, identity.TokenID); got != "alice@contoso.test" {
		t.Errorf("renewed as %s", got)
	}
}

// TestBrowserIgnoresOthers: a page that guesses the port gets nowhere, and the
// sign-in under way goes on.
func TestBrowserIgnoresOthers(t *testing.T) {
	p, c := start(t, devidp.Options{})
	s, err := c.Browser(t.Context(), func(url string) error {
		to, err := p.SignInURL(url, "alice")
		if err != nil {
			return err
		}
		base, _, _ := strings.Cut(to, "?")
		for _, forged := range []string{base, base + "?code=stolen", base + "?code=stolen&state=guess", base + "?error=access_denied", strings.Replace(to, "/callback", "/other", 1)} {
			if err := visit(t, forged); err == nil {
				t.Errorf("%s was taken for an answer", strings.TrimPrefix(forged, base))
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
		if err != nil {
			return err
		}
		req.Host = "evil.test"
		resp, err := testHTTP().Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("rebound name: %s", resp.Status)
		}
		return visit(t, to)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := accepted(t, p, s.Token, identity.TokenAccess); got != "alice@contoso.test" {
		t.Errorf("signed in as %s", got)
	}
}

func TestBrowserRefusals(t *testing.T) {
	_, c := start(t, devidp.Options{})
	answer := func(query string) func(string) error {
		return func(url string) error {
			_, after, _ := strings.Cut(url, "redirect_uri=http%3A%2F%2F127.0.0.1%3A")
			port, _, _ := strings.Cut(after, "%2F")
			_, after, _ = strings.Cut(url, "&state=")
			state, _, _ := strings.Cut(after, "&")
			return visit(t, "http://127.0.0.1:"+port+"/callback?state="+state+query)
		}
	}
	for _, tt := range []struct {
		name string
		open func(string) error
		want vocab.Reason
	}{
		{"the person refuses", answer("&error=access_denied"), vocab.ReasonNoRights},
		{"an answer of another issuer", answer("&code=x&iss=https://evil.test"), vocab.ReasonTokenInvalid},
		{"a code nobody gave out", answer("&code=x"), vocab.ReasonTokenInvalid},
		{"no browser", func(string) error { return errors.New("no browser") }, vocab.ReasonInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.Browser(t.Context(), tt.open); vocab.ReasonOf(err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Browser(ctx, func(string) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestAnswerOfAnotherRequest: a code that belongs to another request fails by
// its nonce or its PKCE challenge, whoever injected it.
func TestAnswerOfAnotherRequest(t *testing.T) {
	p, c := start(t, devidp.Options{})
	var other string
	ctx, cancel := context.WithCancel(t.Context())
	_, _ = c.Browser(ctx, func(url string) error {
		to, err := p.SignInURL(url, "mallory")
		other = to
		cancel()
		return err
	})
	_, after, _ := strings.Cut(other, "code=")
	code, _, _ := strings.Cut(after, "&")
	_, err := c.Browser(t.Context(), func(url string) error {
		to, err := p.SignInURL(url, "alice")
		if err != nil {
			return err
		}
		before, after, _ := strings.Cut(to, "code=")
		_, rest, _ := strings.Cut(after, "&")
		return visit(t, before+"code="+code+"&"+rest)
	})
	if vocab.ReasonOf(err) != vocab.ReasonTokenInvalid {
		t.Errorf("%v", err)
	}
}

func TestDevice(t *testing.T) {
	p, c := start(t, devidp.Options{})
	var polls []time.Duration
	var shown DevicePrompt
	c.wait = func(_ context.Context, d time.Duration) error {
		polls = append(polls, d)
		if len(polls) == 3 {
			return p.ApproveDevice(shown.Code, "carla")
		}
		return nil
	}
	s, err := c.Device(t.Context(), func(d DevicePrompt) { shown = d })
	if err != nil {
		t.Fatal(err)
	}
	if got := accepted(t, p, s.Token, identity.TokenAccess); got != "carla@contoso.test" {
		t.Errorf("signed in as %s", got)
	}
	if len(polls) != 3 || polls[0] != time.Second {
		t.Errorf("asked after %v, want three times at the provider's interval", polls)
	}
	if shown.URL != p.Issuer()+"/device" || !strings.HasPrefix(shown.CompleteURL, shown.URL+"?") || shown.Code == "" {
		t.Errorf("shown %+v", shown)
	}
}

func TestDeviceRefusals(t *testing.T) {
	p, c := start(t, devidp.Options{})
	var shown DevicePrompt
	show := func(d DevicePrompt) { shown = d }
	for _, tt := range []struct {
		name string
		wait func(context.Context, time.Duration) error
		now  func() time.Time
		want vocab.Reason
	}{
		{"the person refuses", func(context.Context, time.Duration) error { return p.DenyDevice(shown.Code) }, time.Now, vocab.ReasonNoRights},
		{"nobody answers", func(context.Context, time.Duration) error { return nil }, clock(0, 11*time.Minute), vocab.ReasonTokenExpired},
		{"interrupted", func(context.Context, time.Duration) error { return context.Canceled }, time.Now, vocab.ReasonInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.wait, c.now = tt.wait, tt.now
			if _, err := c.Device(t.Context(), show); vocab.ReasonOf(err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

// clock answers with now plus each step in turn, then the last.
func clock(steps ...time.Duration) func() time.Time {
	i := 0
	return func() time.Time {
		d := steps[min(i, len(steps)-1)]
		i++
		return time.Now().Add(d)
	}
}

func TestDiscoverRefusals(t *testing.T) {
	p, _ := start(t, devidp.Options{})
	for _, tt := range []struct {
		name string
		p    Provider
		want vocab.Reason
	}{
		{"no client", Provider{Issuer: p.Issuer()}, vocab.ReasonConfigurationInvalid},
		{"no TLS", Provider{Issuer: "http://login.example", ClientID: "c"}, vocab.ReasonConfigurationInvalid},
		{"no URL", Provider{Issuer: "login", ClientID: "c"}, vocab.ReasonConfigurationInvalid},
		{"nobody there", Provider{Issuer: "http://127.0.0.1:1", ClientID: "c"}, vocab.ReasonIdentityProviderDown},
		{"another issuer", Provider{Issuer: p.Issuer() + "/", ClientID: "c"}, vocab.ReasonIdentityProviderDown},
	} {
		if _, err := Discover(t.Context(), tt.p, testHTTP()); vocab.ReasonOf(err) != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestRefresh(t *testing.T) {
	p, c := start(t, devidp.Options{})
	s, err := c.Browser(t.Context(), browser(t, p, "alice"))
	if err != nil {
		t.Fatal(err)
	}
	next, err := c.Refresh(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if got := accepted(t, p, next.Token, identity.TokenAccess); got != "alice@contoso.test" || next.Subject != s.Subject {
		t.Errorf("renewed as %s", got)
	}
	if _, err := c.Refresh(t.Context(), s); vocab.ReasonOf(err) != vocab.ReasonTokenExpired {
		t.Errorf("a refresh token used twice: %v", err)
	}
	if _, err := c.Refresh(t.Context(), &Session{Issuer: p.Issuer(), ClientID: p.ClientID()}); vocab.ReasonOf(err) != vocab.ReasonTokenExpired {
		t.Errorf("no refresh token: %v", err)
	}
	if _, err := c.Refresh(t.Context(), &Session{Issuer: "https://other.test", Refresh: "test-refresh"}); err == nil {
		t.Error("sent a refresh token to another provider")
	}
}

// TestAnswersChecked: an ID token must answer this request, be of this person
// and belong to the access token beside it.
func TestAnswersChecked(t *testing.T) {
	p, c := start(t, devidp.Options{})
	s, err := p.Session(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.Session(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	good := func() *answer {
		return &answer{AccessToken: s.AccessToken, IDToken: s.IDToken, TokenType: "Bearer", ExpiresIn: 60}
	}
	session, err := c.finish(t.Context(), good(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name           string
		change         func(*answer)
		nonce, subject string
		want           vocab.Reason
	}{
		{"unchanged", func(*answer) {}, "", session.Subject, ""},
		{"without the nonce of the request", func(*answer) {}, "test-nonce", "", vocab.ReasonTokenInvalid},
		{"another person", func(*answer) {}, "", "somebody", vocab.ReasonTokenInvalid},
		{"another person's access token", func(a *answer) { a.AccessToken = other.AccessToken }, "", "", vocab.ReasonTokenInvalid},
		{"a damaged ID token", func(a *answer) { a.IDToken = "x" + s.IDToken }, "", "", vocab.ReasonTokenInvalid},
		{"no ID token", func(a *answer) { a.IDToken = "" }, "", "", vocab.ReasonIdentityProviderDown},
		{"a token that needs a key", func(a *answer) { a.TokenType = "DPoP" }, "", "", vocab.ReasonTokenInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := good()
			tt.change(a)
			if _, err := c.finish(t.Context(), a, tt.nonce, tt.subject); vocab.ReasonOf(err) != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestCache(t *testing.T) {
	p, c := start(t, devidp.Options{})
	now := time.Now()
	cache := &Cache{Path: filepath.Join(t.TempDir(), "dir", "session.json"), HTTPClient: testHTTP(), Now: func() time.Time { return now }}
	if _, err := cache.Token(t.Context()); vocab.ReasonOf(err) != vocab.ReasonTokenMissing {
		t.Errorf("before signing in: %v", err)
	}
	s, err := c.Browser(t.Context(), browser(t, p, "alice"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cache.Save(s); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(cache.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if got, err := cache.Token(t.Context()); err != nil || got != s.Token {
		t.Errorf("a good token was not used again: %v", err)
	}

	// Many programs find it about to expire at once: one renews.
	now = s.Expires.Add(-30 * time.Second)
	tokens := make([]Bearer, 8)
	errs := make([]error, len(tokens))
	var wg sync.WaitGroup
	for i := range tokens {
		wg.Go(func() { tokens[i], errs[i] = cache.Token(t.Context()) })
	}
	wg.Wait()
	for i := range tokens {
		if errs[i] != nil || tokens[i] != tokens[0] || tokens[i] == s.Token {
			t.Errorf("program %d: renewed %t, %v", i, tokens[i] != s.Token, errs[i])
		}
	}

	renewed, err := cache.Load()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	now = renewed.Expires.Add(-30 * time.Second)
	if got, err := cache.Token(t.Context()); err != nil || got != renewed.Token {
		t.Errorf("the provider is down, the token still good: %v", err)
	}
	now = renewed.Expires
	if _, err := cache.Token(t.Context()); vocab.ReasonOf(err) != vocab.ReasonIdentityProviderDown {
		t.Errorf("the provider is down, the token over: %v", err)
	}
	if err := errors.Join(cache.Delete(), cache.Delete()); err != nil {
		t.Error(err)
	}
	if _, err := cache.Load(); vocab.ReasonOf(err) != vocab.ReasonTokenMissing {
		t.Errorf("after signing out: %v", err)
	}
}

func TestCacheRefusesStrangeFiles(t *testing.T) {
	for name, file := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"readable by others": {`{"version":1,"token":"test-token"}`, 0o644},
		"readable by group":  {`{"version":1,"token":"test-token"}`, 0o640},
		"newer":              {`{"version":2,"token":"test-token"}`, 0o600},
		"empty":              {``, 0o600},
		"without token":      {`{"version":1}`, 0o600},
		"with more":          {`{"version":1,"token":"test-token","other":1}`, 0o600},
	} {
		cache := &Cache{Path: filepath.Join(t.TempDir(), "session.json")}
		if err := os.WriteFile(cache.Path, []byte(file.content), file.mode); err != nil {
			t.Fatal(err)
		}
		if _, err := cache.Load(); vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBearerDoesNotPrint(t *testing.T) {
	s := Session{Token: "test-token", Refresh: "test-refresh"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{s, &s, s.Token} {
			if got := fmt.Sprintf(format, v); strings.Contains(got, "test-") || strings.Contains(got, "746573742d") {
				t.Errorf("%s prints %s", format, got)
			}
		}
	}
}
