package devidp_test

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o devidp.Options) *devidp.Provider {
	t.Helper()
	p, err := devidp.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

func TestLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", ":0", "localhost:0", "127.0.0.1"} {
		if p, err := devidp.Start(devidp.Options{Address: address}); err == nil {
			_ = p.Close()
			t.Errorf("listens on %s", address)
		}
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "idp.json")
	first := start(t, devidp.Options{StateFile: path})
	if err := first.RotateKey(); err != nil {
		t.Fatal(err)
	}
	token, err := first.MintToken("alice")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, devidp.Options{StateFile: path})
	v, err := identity.NewVerifier(identity.Config{Providers: map[string]identity.Provider{"dev": {
		Issuer: second.Issuer(), Audiences: []string{second.Audience()},
		Addresses: identity.Addresses{Claims: []string{"email"}, Domains: []string{"contoso.test"}},
	}}}, client(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	tenant := identity.Tenant{Name: "contoso", Domains: []string{"contoso.test"}, Providers: []string{"dev"}}
	before, err := v.Token(t.Context(), tenant, token)
	if err != nil {
		t.Fatalf("a token from before the restart: %v", err)
	}
	token, err = second.MintToken("alice")
	if err != nil {
		t.Fatal(err)
	}
	after, err := v.Token(t.Context(), tenant, token)
	if err != nil || after.Subject != before.Subject || after.Issuer != before.Issuer {
		t.Errorf("%v is somebody else after the restart: %+v, was %+v", err, after, before)
	}
}

func TestDamagedStateIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "idp.json")
	for _, content := range []string{"{", `{"keys":[{"kty":"oct","k":"AAAA"}]}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, err := devidp.Start(devidp.Options{StateFile: path}); err == nil {
			_ = p.Close()
			t.Errorf("started from %s", content)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != content {
			t.Errorf("%s became %s (%v)", content, b, err)
		}
	}
}

func TestUnknownUser(t *testing.T) {
	p := start(t, devidp.Options{})
	if _, err := p.MintToken("nobody"); err == nil {
		t.Error("a token for nobody")
	}
	if p.Claims("nobody") != nil {
		t.Error("claims for nobody")
	}
	if err := p.ApproveDevice("AAAA-AAAA", "alice"); err == nil {
		t.Error("approved a code nobody has")
	}
	if err := p.ApproveDevice("AAAA-AAAA", "nobody"); err == nil {
		t.Error("approved for nobody")
	}
}

// TestPagesOfOtherOrigins: the developer's browser must not carry another
// site's requests in.
func TestPagesOfOtherOrigins(t *testing.T) {
	p := start(t, devidp.Options{})
	c := client()
	do := func(method, host, origin, path string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, p.Issuer()+path, strings.NewReader("user_code=A&user=alice"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if host != "" {
			req.Host = host
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	if resp := do(http.MethodGet, "evil.test", "", "/keys"); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("rebound name: %s", resp.Status)
	}
	for _, path := range []string{"/device", "/login", "/oauth/token", "/device_authorization"} {
		if resp := do(http.MethodPost, "", "https://evil.test", path); resp.StatusCode != http.StatusForbidden {
			t.Errorf("form posted from elsewhere to %s: %s", path, resp.Status)
		}
	}
	if resp := do(http.MethodGet, "", "https://evil.test", "/keys"); resp.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("other pages may read answers")
	}
}

// TestPages goes through the pages as a person does.
func TestPages(t *testing.T) {
	p := start(t, devidp.Options{})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := client()
	c.Jar = jar
	read := func(resp *http.Response, err error) (string, int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var b strings.Builder
		if _, err := io.Copy(&b, resp.Body); err != nil {
			t.Fatal(err)
		}
		return b.String(), resp.StatusCode
	}
	for _, path := range []string{"/device", "/device?user_code=%3Cscript%3E", "/login?request=%22%3E%3Cscript%3E"} {
		body, status := read(c.Get(p.Issuer() + path))
		if status != http.StatusOK || strings.Contains(body, "<script>") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	body, _ := read(c.Get(p.Issuer() + "/login?request=x"))
	for _, login := range p.Logins() {
		if !strings.Contains(body, login+"@contoso.test") {
			t.Errorf("%s is not on the page", login)
		}
	}
	for path, form := range map[string]url.Values{
		"/login":  {"request": {"unknown"}, "user": {"alice"}},
		"/device": {"user_code": {"unknown"}, "user": {"alice"}},
	} {
		if _, status := read(c.PostForm(p.Issuer()+path, form)); status != http.StatusBadRequest {
			t.Errorf("%s: status %d", path, status)
		}
	}
}

// TestCodeNeedsPKCE: without it whoever sees the redirect has the session.
func TestCodeNeedsPKCE(t *testing.T) {
	p := start(t, devidp.Options{})
	q := url.Values{"client_id": {p.ClientID()}, "response_type": {"code"}, "scope": {"openid"}, "redirect_uri": {"http://127.0.0.1:1/callback"}, "state": {"s"}}
	if to, err := p.SignInURL(p.Issuer()+"/authorize?"+q.Encode(), "alice"); err == nil {
		t.Errorf("went on to %s", to)
	}
	q.Set("redirect_uri", "https://evil.test/callback")
	if to, err := p.SignInURL(p.Issuer()+"/authorize?"+q.Encode(), "alice"); err == nil {
		t.Errorf("went on to %s", to)
	}
}
