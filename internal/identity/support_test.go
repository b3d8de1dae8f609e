package identity_test

import (
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

// world is two real providers, the tenant contoso with fabrikam's people as
// guests, and a verifier with a clock of its own.
type world struct {
	contoso, fabrikam *devidp.Provider
	config            identity.Config
	tenant            identity.Tenant
	verifier          *identity.Verifier
	offset            atomic.Int64 // of the verifier's clock
	fetches           atomic.Int64 // of anything, by the verifier
}

func (w *world) now() time.Time          { return time.Now().Add(time.Duration(w.offset.Load())) }
func (w *world) advance(d time.Duration) { w.offset.Add(int64(d)) }

// RoundTrip counts what the verifier asks for.
func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	w.fetches.Add(1)
	t := &http.Transport{DisableKeepAlives: true}
	return t.RoundTrip(r)
}

func startIDP(t *testing.T, o devidp.Options) *devidp.Provider {
	t.Helper()
	p, err := devidp.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func providerConfig(p *devidp.Provider, domains ...string) identity.Provider {
	return identity.Provider{
		Issuer: p.Issuer(), Audiences: []string{p.Audience()}, CLIClientID: p.ClientID(),
		Addresses: identity.Addresses{Claims: []string{"email", "aliases"}, Domains: domains},
		Claims:    identity.Claims{Groups: "groups", GroupForm: identity.GroupAddress, MFA: identity.MFA{ACRs: []string{"c1"}, AMRs: []string{"mfa"}}},
	}
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	w := &world{
		contoso:  startIDP(t, devidp.Options{}),
		fabrikam: startIDP(t, devidp.Options{Users: devidp.FabrikamUsers()}),
	}
	w.config = identity.Config{Providers: map[string]identity.Provider{
		"contoso": providerConfig(w.contoso, "contoso.test"),
		// Written too widely by the operator: it must not matter.
		"fabrikam": providerConfig(w.fabrikam, "fabrikam.test", "contoso.test"),
	}}
	w.tenant = identity.Tenant{
		Name: "contoso", Domains: []string{"contoso.test"}, Providers: []string{"contoso"}, GuestProviders: []string{"fabrikam"},
		GuestDomain: func(d string) bool { return d == "fabrikam.test" },
	}
	for _, f := range change {
		f(w)
	}
	v, err := identity.NewVerifier(w.config, &http.Client{Transport: w}, w.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	w.verifier = v
	return w
}

func (w *world) setProvider(name string, f func(*identity.Provider)) {
	p := w.config.Providers[name]
	f(&p)
	w.config.Providers[name] = p
}

func sign(t *testing.T, p *devidp.Provider, claims map[string]any) string {
	t.Helper()
	raw, err := p.Sign(claims, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func mint(t *testing.T, p *devidp.Provider, user string) string {
	t.Helper()
	raw, err := p.MintToken(user)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func wantReason(t *testing.T, id *vocab.Identity, err error, want vocab.Reason) {
	t.Helper()
	if got := vocab.ReasonOf(err); got != want {
		t.Fatalf("reason %q, want %q (%v)", got, want, err)
	}
	if (err == nil) != (id != nil) {
		t.Fatalf("identity %v beside error %v", id, err)
	}
}

// publishedKey returns the signing key as the world sees it.
func publishedKey(t *testing.T, p *devidp.Provider) (string, any) {
	t.Helper()
	raw := mint(t, p, p.Logins()[0])
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	kid := jws.Signatures[0].Header.KeyID
	var set jose.JSONWebKeySet
	getJSON(t, p.Issuer()+"/keys", &set)
	keys := set.Key(kid)
	if len(keys) != 1 {
		t.Fatalf("%d keys with kid %s", len(keys), kid)
	}
	return kid, keys[0].Key
}

func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}
