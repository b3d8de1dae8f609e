package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

func TestGoodTokens(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name  string
		idp   *devidp.Provider
		login string
		want  vocab.Identity
	}{
		{"a member with a second factor", w.contoso, "alice", vocab.Identity{
			Provider: "contoso", Addresses: []string{"alice@contoso.test"}, Member: "contoso", MFA: true,
			Groups: []string{"all-staff@contoso.test", "board@contoso.test", "finance@contoso.test"}}},
		{"a member without", w.contoso, "bob", vocab.Identity{
			Provider: "contoso", Addresses: []string{"bob@contoso.test"}, Member: "contoso",
			Groups: []string{"all-staff@contoso.test", "interns@contoso.test"}}},
		{"a guest is no member", w.fabrikam, "dave", vocab.Identity{
			Provider: "fabrikam", Addresses: []string{"dave@fabrikam.test"}, Groups: []string{"partners@fabrikam.test"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := w.verifier.Token(t.Context(), w.tenant, mint(t, tt.idp, tt.login))
			if err != nil {
				t.Fatal(err)
			}
			if id.Subject == "" || time.Since(id.IssuedAt) > time.Minute {
				t.Errorf("subject %q, issued at %s", id.Subject, id.IssuedAt)
			}
			tt.want.Issuer = tt.idp.Issuer()
			id.Subject, id.IssuedAt = "", time.Time{}
			if d := cmp.Diff(tt.want, *id); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestTokenTable is the table of attacks and accidents, each made from a good
// token by one change and, where a provider could be made to do so, signed by
// the provider's own key.
func TestTokenTable(t *testing.T) {
	w := newWorld(t)
	leaf := &x509.Certificate{Raw: []byte("test certificate")}
	sum := sha256.Sum256(leaf.Raw)
	thumb := base64.RawURLEncoding.EncodeToString(sum[:])

	set := func(kv ...any) func(map[string]any) {
		return func(m map[string]any) {
			for i := 0; i < len(kv); i += 2 {
				m[kv[i].(string)] = kv[i+1]
			}
		}
	}
	drop := func(keys ...string) func(map[string]any) {
		return func(m map[string]any) {
			for _, k := range keys {
				delete(m, k)
			}
		}
	}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	const ok = vocab.Reason("")
	for _, tt := range []struct {
		name   string
		change func(map[string]any)
		leaf   *x509.Certificate
		want   vocab.Reason
	}{
		{"unchanged", set(), nil, ok},
		{"audience of another service", set("aud", "wiki"), nil, vocab.ReasonTokenInvalid},
		{"audience that begins like ours", set("aud", "rms2"), nil, vocab.ReasonTokenInvalid},
		{"audience in other case", set("aud", "RMS"), nil, vocab.ReasonTokenInvalid},
		{"audience missing", drop("aud"), nil, vocab.ReasonTokenInvalid},
		{"audience empty", set("aud", []string{}), nil, vocab.ReasonTokenInvalid},
		{"audience no string", set("aud", 7), nil, vocab.ReasonTokenInvalid},
		{"audience list with a number", set("aud", []any{"rms", 7}), nil, vocab.ReasonTokenInvalid},
		{"audience as a string", set("aud", "rms"), nil, ok},
		{"several audiences, asked for by our client", set("aud", []string{"rms", "wiki"}), nil, ok},
		{"several audiences, asked for by a stranger", set("aud", []string{"rms", "wiki"}, "client_id", "wiki"), nil, vocab.ReasonTokenInvalid},
		{"several audiences, asked for by nobody", func(m map[string]any) {
			m["aud"], m["scope"] = []string{"rms", "wiki"}, "openid"
			delete(m, "client_id")
		}, nil, vocab.ReasonTokenInvalid},
		{"azp of a stranger wins over our client_id", set("aud", []string{"rms", "wiki"}, "azp", "wiki"), nil, vocab.ReasonTokenInvalid},

		{"issuer of nobody", set("iss", "https://login.example"), nil, vocab.ReasonIssuerNotTrusted},
		{"issuer missing", drop("iss"), nil, vocab.ReasonIssuerNotTrusted},
		{"issuer a list", func(m map[string]any) { m["iss"] = []any{m["iss"]} }, nil, vocab.ReasonIssuerNotTrusted},
		{"issuer with a slash more", func(m map[string]any) { m["iss"] = m["iss"].(string) + "/" }, nil, vocab.ReasonIssuerNotTrusted},

		{"expired", set("exp", in(-2*time.Minute)), nil, vocab.ReasonTokenExpired},
		{"expired within the leeway", set("exp", in(-10*time.Second)), nil, ok},
		{"exp missing", drop("exp"), nil, vocab.ReasonTokenInvalid},
		{"exp a string", set("exp", "9999999999"), nil, vocab.ReasonTokenInvalid},
		{"exp beyond any calendar", set("exp", 1e300), nil, vocab.ReasonTokenInvalid},
		{"not yet valid", set("nbf", in(2*time.Minute)), nil, vocab.ReasonTokenInvalid},
		{"nbf missing", drop("nbf"), nil, ok},
		{"nbf a string", set("nbf", "soon"), nil, vocab.ReasonTokenInvalid},
		{"issued in the future", set("iat", in(2*time.Minute)), nil, vocab.ReasonTokenInvalid},
		{"iat missing", drop("iat"), nil, vocab.ReasonTokenInvalid},
		{"issued yesterday, good for a week", set("iat", in(-25*time.Hour), "exp", in(144*time.Hour)), nil, vocab.ReasonTokenTooOld},

		{"subject missing", drop("sub"), nil, vocab.ReasonTokenInvalid},
		{"subject too long", set("sub", strings.Repeat("s", 256)), nil, vocab.ReasonTokenInvalid},
		{"subject with a control character", set("sub", "al\x00ice"), nil, vocab.ReasonTokenInvalid},
		{"subject a number", set("sub", 12), nil, vocab.ReasonTokenInvalid},

		{"address not verified", set("email_verified", false), nil, vocab.ReasonAddressNotVerified},
		{"address verified as far as anybody says", drop("email_verified"), nil, vocab.ReasonAddressNotVerified},
		{"address verified, as a string", set("email_verified", "true"), nil, ok},
		{"address verified, as Entra says", func(m map[string]any) { delete(m, "email_verified"); m["xms_edov"] = true }, nil, ok},
		{"address outside the provider's domains", set("email", "alice@fabrikam.test"), nil, vocab.ReasonAddressNotVerified},
		{"address in a subdomain", set("email", "alice@mail.contoso.test"), nil, vocab.ReasonAddressNotVerified},
		{"address that only ends like ours", set("email", "alice@evilcontoso.test"), nil, vocab.ReasonAddressNotVerified},
		{"address with two signs", set("email", "alice@contoso.test@evil.test"), nil, vocab.ReasonAddressNotVerified},
		{"address with a letter that folds to k", set("email", "\u212aate@contoso.test"), nil, vocab.ReasonAddressNotVerified},
		{"no address", drop("email"), nil, vocab.ReasonAddressNotVerified},

		{"ID token by its nonce", set("nonce", "n"), nil, vocab.ReasonTokenInvalid},
		{"ID token by its at_hash", set("at_hash", "h"), nil, vocab.ReasonTokenInvalid},
		{"ID token by Keycloak's typ", set("typ", "ID"), nil, vocab.ReasonTokenInvalid},
		{"refresh token by Keycloak's typ", set("typ", "Refresh"), nil, vocab.ReasonTokenInvalid},
		{"access token by Keycloak's typ", set("typ", "Bearer"), nil, ok},
		{"ID token by Cognito's token_use", set("token_use", "id"), nil, vocab.ReasonTokenInvalid},
		{"token of no kind", drop("client_id"), nil, vocab.ReasonTokenInvalid},
		{"logout token", set("events", map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}), nil, vocab.ReasonTokenInvalid},
		{"token for acting as somebody", set("act", map[string]any{"sub": "mallory"}), nil, vocab.ReasonTokenInvalid},

		{"bound to a certificate, shown none", set("cnf", map[string]any{"x5t#S256": thumb}), nil, vocab.ReasonTokenInvalid},
		{"bound to this certificate", set("cnf", map[string]any{"x5t#S256": thumb}), leaf, ok},
		{"bound to another certificate", set("cnf", map[string]any{"x5t#S256": thumb[1:] + "A"}), leaf, vocab.ReasonTokenInvalid},
		{"bound to a key (DPoP)", set("cnf", map[string]any{"jkt": thumb}), leaf, vocab.ReasonTokenInvalid},
		{"bound to both", set("cnf", map[string]any{"x5t#S256": thumb, "jkt": "k"}), leaf, vocab.ReasonTokenInvalid},
		{"bound to nonsense", set("cnf", "x"), leaf, vocab.ReasonTokenInvalid},
		{"not bound, on a connection with a certificate", set(), leaf, ok},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims := w.contoso.Claims("alice")
			tt.change(claims)
			raw := sign(t, w.contoso, claims)
			id, err := w.verifier.BoundToken(t.Context(), w.tenant, raw, tt.leaf)
			wantReason(t, id, err, tt.want)
			if err != nil && strings.Contains(err.Error(), "alice") {
				t.Errorf("the error tells what was in the token: %v", err)
			}
		})
	}
}

// TestForgedSignatures are tokens with the right claims and the wrong proof.
func TestForgedSignatures(t *testing.T) {
	w := newWorld(t)
	good := mint(t, w.contoso, "alice")
	if _, err := w.verifier.Token(t.Context(), w.tenant, good); err != nil {
		t.Fatal(err)
	}
	claims := w.contoso.Claims("alice")
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kid, public := publishedKey(t, w.contoso)
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	dialled := new(atomic.Int64)
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { dialled.Add(1) }))
	t.Cleanup(trap.Close)

	by := func(alg jose.SignatureAlgorithm, key any, kid string, header map[string]any) string {
		o := (&jose.SignerOptions{}).WithType("JWT")
		for k, v := range header {
			o = o.WithHeader(jose.HeaderKey(k), v)
		}
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, o)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jwt.Signed(s).Claims(claims).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	b64 := base64.RawURLEncoding.EncodeToString
	parts := strings.Split(good, ".")
	with := func(header string) string { return b64([]byte(header)) + "." + parts[1] + "." + parts[2] }
	signed := func(header map[string]any) string {
		raw, err := w.contoso.Sign(claims, header)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, raw := range map[string]string{
		"alg none":                      b64([]byte(`{"alg":"none","kid":"`+kid+`"}`)) + "." + parts[1] + ".",
		"alg None":                      with(`{"alg":"None","kid":"` + kid + `"}`),
		"alg missing":                   with(`{"kid":"` + kid + `"}`),
		"HS256 with the public key":     by(jose.HS256, pkix, kid, nil),
		"another algorithm of the key":  with(`{"alg":"RS256","kid":"` + kid + `"}`),
		"a stranger's key, our kid":     by(jose.ES256, stranger, kid, nil),
		"a stranger's key and kid":      by(jose.ES256, stranger, "stranger", nil),
		"kid as a path":                 by(jose.ES256, stranger, "../../../../dev/null", nil),
		"jku to a trap, stranger's key": by(jose.ES256, stranger, "stranger", map[string]any{"jku": trap.URL}),
		"jku to a trap, good signature": signed(map[string]any{"jku": trap.URL}),
		"x5u to a trap":                 signed(map[string]any{"x5u": trap.URL}),
		"jwk in the header":             signed(map[string]any{"jwk": jose.JSONWebKey{Key: stranger.Public()}}),
		"crit":                          signed(map[string]any{"crit": []string{"exp"}, "exp": 1}),
		"b64":                           signed(map[string]any{"b64": false}),
		"a token within":                signed(map[string]any{"cty": "JWT"}),
		"compressed":                    signed(map[string]any{"zip": "DEF"}),
		"typ of another use":            signed(map[string]any{"typ": "logout+jwt"}),
		"alg twice":                     with(`{"alg":"ES256","alg":"none","kid":"` + kid + `"}`),
		"signature cut":                 parts[0] + "." + parts[1] + "." + parts[2][:20],
		"signature empty":               parts[0] + "." + parts[1] + ".",
		"payload of somebody else":      parts[0] + "." + strings.Split(mint(t, w.contoso, "bob"), ".")[1] + "." + parts[2],
		"five parts":                    good + ".x.y",
		"not base64url":                 parts[0] + "." + parts[1] + "!." + parts[2],
		"a line break inside":           parts[0] + "." + parts[1] + "\n." + parts[2],
		"JSON serialization":            `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`,
		"too long":                      good + strings.Repeat("A", 40<<10),
		"a word":                        "token",
	} {
		t.Run(name, func(t *testing.T) {
			id, err := w.verifier.Token(t.Context(), w.tenant, raw)
			wantReason(t, id, err, vocab.ReasonTokenInvalid)
			if got, want := err.Error(), "your sign-in token was not accepted. Sign in again (TOKEN_INVALID)"; got != want {
				t.Errorf("message %q, want %q for whatever cause", got, want)
			}
		})
	}
	if n := dialled.Load(); n != 0 {
		t.Errorf("a URL out of a token was dialled %d times", n)
	}
	id, err := w.verifier.Token(t.Context(), w.tenant, "")
	wantReason(t, id, err, vocab.ReasonTokenMissing)
}

func TestAddressesAndMembership(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name      string
		idp       *devidp.Provider
		change    map[string]any
		addresses []string
		member    string
	}{
		{"only what the provider may say counts", w.contoso, map[string]any{"aliases": []string{"A.Adams@Contoso.Test", "alice@evil.test", "not an address", "alice@contoso.test"}},
			[]string{"alice@contoso.test", "a.adams@contoso.test"}, "contoso"},
		{"another claim stands when email does not", w.contoso, map[string]any{"email_verified": false, "aliases": "a.adams@contoso.test"},
			[]string{"a.adams@contoso.test"}, "contoso"},
		{"a guest never speaks for the tenant's domains", w.fabrikam, map[string]any{"aliases": []string{"alice@contoso.test"}},
			[]string{"dave@fabrikam.test"}, ""},
		{"an alias list with anything else in it is nothing", w.contoso, map[string]any{"aliases": []any{"a.adams@contoso.test", 3}},
			[]string{"alice@contoso.test"}, "contoso"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims := tt.idp.Claims(tt.idp.Logins()[0])
			maps.Copy(claims, tt.change)
			id, err := w.verifier.Token(t.Context(), w.tenant, sign(t, tt.idp, claims))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.addresses, id.Addresses); d != "" || id.Member != tt.member {
				t.Errorf("member %q, want %q; addresses %s", id.Member, tt.member, d)
			}
		})
	}
}

func TestWhoMayComeFromWhere(t *testing.T) {
	w := newWorld(t)
	dave, alice := mint(t, w.fabrikam, "dave"), mint(t, w.contoso, "alice")
	for _, tt := range []struct {
		name   string
		change func(*identity.Tenant)
		raw    string
		want   vocab.Reason
	}{
		{"a guest whose domain is let in", func(*identity.Tenant) {}, dave, ""},
		{"a guest whose domain is not", func(t *identity.Tenant) { t.GuestDomain = func(string) bool { return false } }, dave, vocab.ReasonAddressNotVerified},
		{"no guest policy at all", func(t *identity.Tenant) { t.GuestDomain = nil }, dave, vocab.ReasonAddressNotVerified},
		{"an issuer that only another tenant trusts", func(t *identity.Tenant) { t.GuestProviders = nil }, dave, vocab.ReasonIssuerNotTrusted},
		{"a tenant that trusts nobody", func(t *identity.Tenant) { t.Providers, t.GuestProviders = nil, nil }, alice, vocab.ReasonIssuerNotTrusted},
		{"the tenant's own domain, said by a provider that is a guest's here", func(t *identity.Tenant) {
			t.Providers, t.GuestProviders = nil, []string{"contoso"}
			t.GuestDomain = func(string) bool { return true }
		}, alice, vocab.ReasonAddressNotVerified},
		{"a provider that is both counts as the tenant's own", func(t *identity.Tenant) { t.GuestProviders = []string{"contoso"} }, alice, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tenant := w.tenant
			tt.change(&tenant)
			id, err := w.verifier.Token(t.Context(), tenant, tt.raw)
			wantReason(t, id, err, tt.want)
		})
	}
	t.Run("a guest provider's token claiming a tenant address", func(t *testing.T) {
		claims := w.fabrikam.Claims("dave")
		claims["email"] = "alice@contoso.test"
		id, err := w.verifier.Token(t.Context(), w.tenant, sign(t, w.fabrikam, claims))
		wantReason(t, id, err, vocab.ReasonAddressNotVerified)
	})
	t.Run("one provider signing as another", func(t *testing.T) {
		claims := w.contoso.Claims("alice")
		id, err := w.verifier.Token(t.Context(), w.tenant, sign(t, w.fabrikam, claims))
		wantReason(t, id, err, vocab.ReasonTokenInvalid)
	})
}

func TestGroups(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.tenant.Group = func(provider, id string) (string, bool) {
			if provider == "contoso" && id == "8a1f" {
				return "legal@contoso.test", true
			}
			return "", false
		}
	})
	for _, tt := range []struct {
		name       string
		idp        *devidp.Provider
		change     map[string]any
		want       []string
		incomplete bool
	}{
		{"mapped by provider and id, once", w.contoso, map[string]any{"groups": []string{"8a1f", "8a1f", "unknown"}}, []string{"legal@contoso.test"}, false},
		{"the same id from another provider is another group", w.fabrikam, map[string]any{"groups": []string{"8a1f"}}, nil, false},
		{"a guest's provider names a group of the tenant", w.fabrikam, map[string]any{"groups": []string{"board@contoso.test", "partners@fabrikam.test"}}, []string{"partners@fabrikam.test"}, false},
		{"one group as a string", w.contoso, map[string]any{"groups": "8a1f"}, []string{"legal@contoso.test"}, false},
		{"none sent", w.contoso, map[string]any{"groups": nil}, nil, false},
		{"too many: hasgroups", w.contoso, map[string]any{"groups": nil, "hasgroups": true}, nil, true},
		{"too many: somewhere else", w.contoso, map[string]any{"groups": nil, "_claim_names": map[string]any{"groups": "src1"},
			"_claim_sources": map[string]any{"src1": map[string]any{"endpoint": "http://127.0.0.1:1/groups"}}}, nil, true},
		{"another claim somewhere else", w.contoso, map[string]any{"groups": []string{"8a1f"}, "_claim_names": map[string]any{"photo": "src1"}}, []string{"legal@contoso.test"}, false},
		{"not a list of strings", w.contoso, map[string]any{"groups": []any{"8a1f", 4}}, nil, true},
		{"an object", w.contoso, map[string]any{"groups": map[string]any{"8a1f": true}}, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims := tt.idp.Claims(tt.idp.Logins()[0])
			maps.Copy(claims, tt.change)
			id, err := w.verifier.Token(t.Context(), w.tenant, sign(t, tt.idp, claims))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(id.Groups, tt.want) || id.GroupsIncomplete != tt.incomplete {
				t.Errorf("groups %q incomplete %v, want %q %v", id.Groups, id.GroupsIncomplete, tt.want, tt.incomplete)
			}
		})
	}
}

func TestRequiredClaims(t *testing.T) {
	w := newWorld(t, func(w *world) {
		// One issuer, two customers, as with Google.
		w.setProvider("contoso", func(p *identity.Provider) { p.Require = map[string][]any{"hd": {"contoso.test"}} })
		other := w.config.Providers["contoso"]
		other.Require = map[string][]any{"hd": {"partner.test"}, "email_verified": {true}, "level": {3, "high"}}
		other.Addresses.Domains = []string{"partner.test"}
		w.config.Providers["partner"] = other
		w.tenant.GuestProviders = append(w.tenant.GuestProviders, "partner")
		w.tenant.GuestDomain = func(d string) bool { return d == "partner.test" }
	})
	for _, tt := range []struct {
		name     string
		change   map[string]any
		provider string
		want     vocab.Reason
	}{
		{"the tenant's own", map[string]any{"hd": "contoso.test"}, "contoso", ""},
		{"its partner", map[string]any{"hd": "partner.test", "email": "p@partner.test", "level": 3}, "partner", ""},
		{"a list with the value", map[string]any{"hd": []string{"x.test", "contoso.test"}}, "contoso", ""},
		{"another customer of the same issuer", map[string]any{"hd": "evil.test"}, "", vocab.ReasonTokenInvalid},
		{"no customer", nil, "", vocab.ReasonTokenInvalid},
		{"the partner cannot say the tenant's address", map[string]any{"hd": "partner.test", "level": "high"}, "", vocab.ReasonTokenInvalid},
		{"a number is no string", map[string]any{"hd": "partner.test", "email": "p@partner.test", "level": "3"}, "", vocab.ReasonTokenInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			claims := w.contoso.Claims("alice")
			maps.Copy(claims, tt.change)
			id, err := w.verifier.Token(t.Context(), w.tenant, sign(t, w.contoso, claims))
			wantReason(t, id, err, tt.want)
			if id != nil && id.Provider != tt.provider {
				t.Errorf("provider %s, want %s", id.Provider, tt.provider)
			}
		})
	}
}

func TestIDTokens(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.setProvider("fabrikam", func(p *identity.Provider) { p.Token = identity.TokenID; p.Audiences = []string{"rmsctl"} })
	})
	session := func(p *devidp.Provider, login string) *devidp.Session {
		s, err := p.Session(t.Context(), login)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	dave, alice := session(w.fabrikam, "dave"), session(w.contoso, "alice")
	change := func(p *devidp.Provider, change map[string]any) string {
		claims := p.Claims("dave")
		claims["aud"] = []string{"rmsctl"}
		maps.Copy(claims, change)
		return sign(t, p, claims)
	}
	for _, tt := range []struct {
		name, raw string
		want      vocab.Reason
	}{
		{"an ID token where they are wanted", dave.IDToken, ""},
		{"an ID token where access tokens are", alice.IDToken, vocab.ReasonTokenInvalid},
		{"an ID token of another client", change(w.fabrikam, map[string]any{"azp": "wiki", "aud": []string{"wiki"}}), vocab.ReasonTokenInvalid},
		{"an ID token of another client for us too", change(w.fabrikam, map[string]any{"azp": "wiki", "aud": []string{"wiki", "rmsctl"}}), vocab.ReasonTokenInvalid},
		{"an ID token for us, asked for by another client", change(w.fabrikam, map[string]any{"azp": "wiki"}), vocab.ReasonTokenInvalid},
		{"an access token where ID tokens are wanted", change(w.fabrikam, map[string]any{"scope": "openid"}), vocab.ReasonTokenInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := w.verifier.Token(t.Context(), w.tenant, tt.raw)
			wantReason(t, id, err, tt.want)
		})
	}
}

func TestClientsOnlyAsConfigured(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.setProvider("contoso", func(p *identity.Provider) { p.Clients = []string{"dms"} })
	})
	for app, want := range map[string]vocab.Reason{"dms": "", "rmsctl": "", "wiki": vocab.ReasonTokenInvalid} {
		claims := w.contoso.Claims("alice")
		claims["client_id"] = app
		id, err := w.verifier.Token(t.Context(), w.tenant, sign(t, w.contoso, claims))
		wantReason(t, id, err, want)
	}
}

func TestServiceByToken(t *testing.T) {
	w := newWorld(t, func(w *world) {
		w.tenant.Services = map[string]identity.ServiceMatch{
			"dms":  {Provider: "contoso", Subject: "app:5a1d"},
			"fake": {Provider: "fabrikam", Subject: "app:5a1d"},
		}
	})
	token := func(p *devidp.Provider, login string) string {
		claims := p.Claims(login)
		claims["sub"] = "app:5a1d"
		delete(claims, "email")
		return sign(t, p, claims)
	}
	id, err := w.verifier.Token(t.Context(), w.tenant, token(w.contoso, "alice"))
	wantReason(t, id, err, "")
	if id.Service != "dms" || id.Member != "" || id.Certificate {
		t.Errorf("%+v", id)
	}
	id, err = w.verifier.Token(t.Context(), w.tenant, token(w.fabrikam, "dave"))
	wantReason(t, id, err, vocab.ReasonAddressNotVerified) // a guest's provider names no services

	// The same subject at another provider of the tenant is somebody else.
	w.tenant.Providers = []string{"contoso", "fabrikam"}
	w.tenant.Services = map[string]identity.ServiceMatch{"dms": {Provider: "contoso", Subject: "app:5a1d"}}
	id, err = w.verifier.Token(t.Context(), w.tenant, token(w.fabrikam, "dave"))
	wantReason(t, id, err, vocab.ReasonAddressNotVerified)
}
