package identity_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

// TestKeyRotatedUnderLoad: good tokens never fail while the provider changes
// keys, and the keys are asked for as often as they change and no more.
func TestKeyRotatedUnderLoad(t *testing.T) {
	w := newWorld(t)
	const rotations, callers = 3, 16
	var tokens atomic.Pointer[string]
	renew := func() {
		raw := mint(t, w.contoso, "alice")
		tokens.Store(&raw)
	}
	renew()
	ctx, stop := context.WithCancel(t.Context())
	failed := make(chan error, callers)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := w.verifier.Token(context.Background(), w.tenant, *tokens.Load()); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	more := func() {
		for range 100 {
			if _, err := w.verifier.Token(t.Context(), w.tenant, *tokens.Load()); err != nil {
				t.Errorf("a good token failed: %v, because %v", err, errors.Unwrap(err))
			}
		}
	}
	more()
	for range rotations {
		w.advance(time.Minute) // the limit is one refresh a minute
		if err := w.contoso.RotateKey(); err != nil {
			t.Fatal(err)
		}
		renew()
		more()
	}
	stop()
	wg.Wait()
	select {
	case err := <-failed:
		t.Fatalf("a good token failed: %v, because %v", err, errors.Unwrap(err))
	default:
	}
	if n := w.contoso.KeyFetches(); n != 1+rotations {
		t.Errorf("%d fetches for %d callers and %d rotations, want %d", n, callers, rotations, 1+rotations)
	}
}

// TestUnknownKeysCannotDriveFetches: whatever strangers send, the provider is
// asked once a minute.
func TestUnknownKeysCannotDriveFetches(t *testing.T) {
	w := newWorld(t)
	good := mint(t, w.contoso, "alice")
	if _, err := w.verifier.Token(t.Context(), w.tenant, good); err != nil {
		t.Fatal(err)
	}
	stranger := startIDP(t, devidp.Options{})
	forge := func() string { return sign(t, stranger, w.contoso.Claims("alice")) }
	for range 3 { // minutes
		for range 20 {
			if err := stranger.RotateKey(); err != nil {
				t.Fatal(err)
			}
			id, err := w.verifier.Token(t.Context(), w.tenant, forge())
			wantReason(t, id, err, vocab.ReasonTokenInvalid)
		}
		w.advance(time.Minute)
	}
	if n := w.contoso.KeyFetches(); n != 4 {
		t.Errorf("%d fetches, want the first and one a minute", n)
	}
	if _, err := w.verifier.Token(t.Context(), w.tenant, good); err != nil {
		t.Errorf("a good token in between: %v", err)
	}
}

// TestWithdrawnKey: a key the provider withdrew is refused from the next
// regular refresh on.
func TestWithdrawnKey(t *testing.T) {
	w := newWorld(t)
	old := mint(t, w.contoso, "alice")
	if _, err := w.verifier.Token(t.Context(), w.tenant, old); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.contoso.RotateKey(), w.contoso.RetireKeys()); err != nil {
		t.Fatal(err)
	}
	w.advance(10 * time.Minute)
	// The call that starts the refresh does not wait for it; no later call
	// brings news of another key, and still one of them is the first refused.
	id, err := w.verifier.Token(t.Context(), w.tenant, old)
	wantReason(t, id, err, "")
	for err == nil {
		runtime.Gosched()
		id, err = w.verifier.Token(t.Context(), w.tenant, old)
	}
	wantReason(t, id, err, vocab.ReasonTokenInvalid)
	if _, err := w.verifier.Token(t.Context(), w.tenant, mint(t, w.contoso, "alice")); err != nil {
		t.Error(err)
	}
}

// TestProviderDownAndBack: keys that are known stay good for a day without the
// provider; what is not known waits for it and is told so.
func TestProviderDownAndBack(t *testing.T) {
	state := filepath.Join(t.TempDir(), "idp.json")
	first := startIDP(t, devidp.Options{StateFile: state, Lifetime: 48 * time.Hour})
	w := newWorld(t, func(w *world) {
		w.contoso = first
		p := providerConfig(first, "contoso.test")
		p.MaxTokenAge = 48 * time.Hour
		w.config.Providers["contoso"] = p
	})
	check := func(raw string, want vocab.Reason) {
		t.Helper()
		id, err := w.verifier.Token(t.Context(), w.tenant, raw)
		wantReason(t, id, err, want)
	}
	known := mint(t, first, "alice")
	check(known, "")
	if err := first.RotateKey(); err != nil {
		t.Fatal(err)
	}
	unknown := mint(t, first, "alice")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	check(known, "")
	check(unknown, vocab.ReasonIdentityProviderDown)
	w.advance(23 * time.Hour)
	check(known, "")
	w.advance(time.Hour + time.Second)
	check(known, vocab.ReasonIdentityProviderDown)

	back := startIDP(t, devidp.Options{StateFile: state})
	if back.Issuer() != first.Issuer() {
		t.Fatalf("it came back as %s, was %s", back.Issuer(), first.Issuer())
	}
	w.advance(5 * time.Second) // the pause after a failure
	check(known, "")
	check(unknown, "")
}

func TestProviderNeverReached(t *testing.T) {
	w := newWorld(t)
	raw := mint(t, w.contoso, "alice")
	if err := w.contoso.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := w.verifier.Token(t.Context(), w.tenant, raw)
	wantReason(t, id, err, vocab.ReasonIdentityProviderDown)
	before := w.fetches.Load()
	for range 10 {
		id, err := w.verifier.Token(t.Context(), w.tenant, raw)
		wantReason(t, id, err, vocab.ReasonIdentityProviderDown)
	}
	if n := w.fetches.Load(); n != before {
		t.Errorf("%d attempts within the pause after a failure", n-before)
	}
	if err := w.verifier.Probe(t.Context(), "contoso"); vocab.ReasonOf(err) != vocab.ReasonIdentityProviderDown {
		t.Errorf("Probe: %v", err)
	}
	if err := w.verifier.Probe(t.Context(), "fabrikam"); err != nil {
		t.Errorf("Probe of the other provider: %v", err)
	}
}

func TestCallerGivesUpButTheFetchGoesOn(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{}, 1)
	w := newWorld(t)
	proxy := roundTripper(func(r *http.Request) (*http.Response, error) {
		select {
		case arrived <- struct{}{}:
		default:
		}
		<-release
		return w.RoundTrip(r)
	})
	v, err := identity.NewVerifier(w.config, &http.Client{Transport: proxy}, w.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	raw := mint(t, w.contoso, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := v.Token(ctx, w.tenant, raw)
		done <- err
	}()
	<-arrived
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(release)
	if _, err := v.Token(t.Context(), w.tenant, raw); err != nil {
		t.Error(err)
	}
	if n := w.contoso.KeyFetches(); n != 1 {
		t.Errorf("%d fetches, want the one that went on", n)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestLyingDiscovery: what a provider's documents say is checked too.
func TestLyingDiscovery(t *testing.T) {
	var doc, keys any
	var status int
	mux := http.NewServeMux()
	answer := func(v *any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if status != 0 {
				w.Header().Set("Location", "http://login.example/")
				w.WriteHeader(status)
				return
			}
			if s, ok := (*v).(string); ok {
				_, _ = fmt.Fprint(w, s)
				return
			}
			_ = json.NewEncoder(w).Encode(*v)
		}
	}
	mux.HandleFunc("/.well-known/openid-configuration", answer(&doc))
	mux.HandleFunc("/keys", answer(&keys))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	discovery := func(issuer, jwks string) map[string]any {
		return map[string]any{"issuer": issuer, "jwks_uri": jwks}
	}
	ed := map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
	good := map[string]any{"keys": []any{ed}}
	for _, tt := range []struct {
		name      string
		doc, keys any
		status    int
		ok        bool
	}{
		{"good", discovery(srv.URL, srv.URL+"/keys"), good, 0, true},
		{"good, among keys of no use", discovery(srv.URL, srv.URL+"/keys"), map[string]any{"keys": []any{
			map[string]any{"kty": "oct", "k": "c2VjcmV0", "kid": "hmac"}, map[string]any{"kty": "??"}, "no key", ed}}, 0, true},
		{"another issuer", discovery("https://login.example", srv.URL+"/keys"), good, 0, false},
		{"issuer with a slash", discovery(srv.URL+"/", srv.URL+"/keys"), good, 0, false},
		{"keys without TLS", discovery(srv.URL, "http://login.example/keys"), good, 0, false},
		{"keys in a file", discovery(srv.URL, "file:///etc/passwd"), good, 0, false},
		{"no keys", discovery(srv.URL, srv.URL+"/keys"), map[string]any{"keys": []any{}}, 0, false},
		{"only a secret for HMAC", discovery(srv.URL, srv.URL+"/keys"), map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "c2VjcmV0"}}}, 0, false},
		{"only a private key", discovery(srv.URL, srv.URL+"/keys"), map[string]any{"keys": []any{map[string]any{
			"kty": "OKP", "crv": "Ed25519", "x": ed["x"], "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}}}, 0, false},
		{"only a key for encryption", discovery(srv.URL, srv.URL+"/keys"), map[string]any{"keys": []any{map[string]any{
			"kty": "OKP", "crv": "Ed25519", "x": ed["x"], "use": "enc"}}}, 0, false},
		{"a key with the wrong algorithm", discovery(srv.URL, srv.URL+"/keys"), map[string]any{"keys": []any{map[string]any{
			"kty": "OKP", "crv": "Ed25519", "x": ed["x"], "alg": "HS256"}}}, 0, false},
		{"a short RSA key", discovery(srv.URL, srv.URL+"/keys"), map[string]any{"keys": []any{map[string]any{"kty": "RSA", "n": "wQ", "e": "AQAB"}}}, 0, false},
		{"no JSON", "<html>", good, 0, false},
		{"keys are no JSON", discovery(srv.URL, srv.URL+"/keys"), "<html>", 0, false},
		{"an error", discovery(srv.URL, srv.URL+"/keys"), good, http.StatusInternalServerError, false},
		{"a redirect off https", discovery(srv.URL, srv.URL+"/keys"), good, http.StatusFound, false},
		{"too much", discovery(srv.URL, srv.URL+"/keys"), string(make([]byte, 2<<20)), 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			doc, keys, status = tt.doc, tt.keys, tt.status
			v, err := identity.NewVerifier(identity.Config{Providers: map[string]identity.Provider{"p": {Issuer: srv.URL, Audiences: []string{"rms"}}}},
				&http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
					if !strings.HasPrefix(r.URL.String(), srv.URL) {
						t.Errorf("dialled %s", r.URL)
					}
					return (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
				})}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if err := v.Probe(t.Context(), "p"); (err == nil) != tt.ok {
				t.Errorf("Probe: %v", err)
			}
		})
	}
}

func TestClosedVerifier(t *testing.T) {
	w := newWorld(t)
	raw := mint(t, w.contoso, "alice")
	w.verifier.Close()
	w.verifier.Close()
	id, err := w.verifier.Token(t.Context(), w.tenant, raw)
	wantReason(t, id, err, vocab.ReasonIdentityProviderDown)
}
