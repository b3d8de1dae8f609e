package attack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// TestIdentity bends tokens, certificates and what they say, to open a document
// as somebody the attacker is not. Nobody unknown fills the tenant's log, and
// no token makes the daemon connect anywhere.
func TestIdentity(t *testing.T) {
	s := newSite(t, nil)
	view := rmsv1.Right_RIGHT_VIEW
	alice := s.person("alice")
	secret := alice.publish("", grant("user:bob@contoso.test", view), grant("group:finance@contoso.test", view), grant("user:gina@guests.test", view))
	idp, guests := s.idp[contoso], s.idp["guests"]
	contacted := listener(t)

	// An identity provider of the attacker's own: its key document is where
	// the tokens point to.
	type claims = map[string]any
	sign := func(t *testing.T, p interface {
		Sign(claims, header map[string]any) (string, error)
	}, c claims, header map[string]any) string {
		t.Helper()
		token, err := p.Sign(c, header)
		must(t, err)
		return token
	}
	bobs := func(edit func(c claims)) claims {
		c := idp.Claims("bob")
		edit(c)
		return c
	}
	publicKey := idpKey(t, idp.Issuer())
	for name, attack := range map[string]struct {
		token func(t *testing.T) string
		want  vocab.Reason
	}{
		"no token":           {func(*testing.T) string { return "" }, vocab.ReasonTokenMissing},
		"no token but words": {func(*testing.T) string { return "let-me-in" }, vocab.ReasonTokenInvalid},
		"a guest provider that calls its user an employee": {func(t *testing.T) string {
			return sign(t, guests, guests.Claims("alice"), nil) // alice@contoso.test, finance@contoso.test
		}, vocab.ReasonAddressNotVerified},
		"a guest provider that takes the tenant's issuer's name": {func(t *testing.T) string {
			return sign(t, guests, bobs(func(claims) {}), nil)
		}, vocab.ReasonTokenInvalid},
		"a guest of a domain that was not let in":         {func(t *testing.T) string { return sign(t, guests, guests.Claims("gina"), nil) }, vocab.ReasonAddressNotVerified},
		"another tenant's employee in the tenant's group": {func(t *testing.T) string { return sign(t, s.idp[fabrikam], s.idp[fabrikam].Claims("frank"), nil) }, vocab.ReasonIssuerNotTrusted},
		"an address that was not verified":                {func(t *testing.T) string { return sign(t, idp, idp.Claims("zoe"), nil) }, vocab.ReasonAddressNotVerified},
		"an address of a foreign domain": {func(t *testing.T) string {
			return sign(t, idp, bobs(func(c claims) { c["email"] = "bob@fabrikam.test" }), nil)
		}, vocab.ReasonAddressNotVerified},
		"signed by nobody": {func(t *testing.T) string { return craft(t, claims{"alg": "none"}, bobs(func(claims) {}), nil) }, vocab.ReasonTokenInvalid},
		"signed with the public key as HMAC key": {func(t *testing.T) string {
			return craft(t, claims{"alg": "HS256", "kid": publicKey.kid}, bobs(func(claims) {}), func(b []byte) []byte {
				m := hmac.New(sha256.New, publicKey.raw)
				m.Write(b)
				return m.Sum(nil)
			})
		}, vocab.ReasonTokenInvalid},
		"its key where the token says": {func(t *testing.T) string {
			return craft(t, claims{"alg": "ES256", "kid": "mine", "jku": contacted.url + "/keys", "x5u": contacted.url + "/cert"}, bobs(func(claims) {}), ecdsaSign(t))
		}, vocab.ReasonTokenInvalid},
		"its key in the token": {func(t *testing.T) string {
			return craft(t, claims{"alg": "ES256", "jwk": claims{"kty": "EC", "crv": "P-256"}}, bobs(func(claims) {}), ecdsaSign(t))
		}, vocab.ReasonTokenInvalid},
		"an issuer that listens": {func(t *testing.T) string {
			return craft(t, claims{"alg": "ES256"}, bobs(func(c claims) { c["iss"] = contacted.url }), ecdsaSign(t))
		}, vocab.ReasonIssuerNotTrusted},
		"a token for signing in to a client": {func(t *testing.T) string {
			session, err := idp.Session(t.Context(), "bob")
			must(t, err)
			return session.IDToken
		}, vocab.ReasonTokenInvalid},
		"made for somebody else": {func(t *testing.T) string { return sign(t, idp, bobs(func(c claims) { c["aud"] = "payroll" }), nil) }, vocab.ReasonTokenInvalid},
		"made for several, asked for by another": {func(t *testing.T) string {
			return sign(t, idp, bobs(func(c claims) { c["aud"], c["client_id"] = []string{"payroll", idp.Audience()}, "payroll" }), nil)
		}, vocab.ReasonTokenInvalid},
		"ended": {func(t *testing.T) string {
			return sign(t, idp, bobs(func(c claims) { c["exp"] = time.Now().Add(-time.Hour).Unix() }), nil)
		}, vocab.ReasonTokenExpired},
		"not begun": {func(t *testing.T) string {
			return sign(t, idp, bobs(func(c claims) { c["nbf"] = time.Now().Add(time.Hour).Unix() }), nil)
		}, vocab.ReasonTokenInvalid},
		"without an end": {func(t *testing.T) string { return sign(t, idp, bobs(func(c claims) { delete(c, "exp") }), nil) }, vocab.ReasonTokenInvalid},
		"bound to a certificate that is not here": {func(t *testing.T) string {
			return sign(t, idp, bobs(func(c claims) { c["cnf"] = claims{"x5t#S256": base64.RawURLEncoding.EncodeToString(make([]byte, 32))} }), nil)
		}, vocab.ReasonTokenInvalid},
		"bound to a key it does not prove": {func(t *testing.T) string {
			return sign(t, idp, bobs(func(c claims) { c["cnf"] = claims{"jkt": "TEST"} }), nil)
		}, vocab.ReasonTokenInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := s.person("bob").with(attack.token(t)).acquire(secret.pl)
			if r := wantRefused(t, got, err, attack.want); r.event != "" {
				t.Error("somebody unknown filled the tenant's log")
			}
		})
	}

	t.Run("two tokens at once", func(t *testing.T) {
		mallory := s.person("mallory")
		ctx := metadata.AppendToOutgoingContext(mallory.ctx(), "authorization", "Bearer "+s.person("bob").token)
		_, err := mallory.protection().Acquire(ctx, &rmsv1.AcquireRequest{
			Parent: mallory.parent(), Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: secret.pl}, Right: view, Delivery: daemontest.SealedTo(newKey(t)),
		})
		if r := refused(err); r == nil || r.reason != vocab.ReasonTokenInvalid {
			t.Fatalf("%v", r)
		}
	})
	t.Run("headers that say who calls", func(t *testing.T) {
		mallory := s.person("mallory")
		var claims []string
		for _, h := range []string{"x-forwarded-user", "x-forwarded-for", "x-forwarded-client-cert", "x-tenant", "grpc-tenant", "x-real-ip"} {
			claims = append(claims, h, "bob@contoso.test")
		}
		ctx := metadata.AppendToOutgoingContext(mallory.ctx(), claims...)
		_, err := mallory.protection().Acquire(ctx, &rmsv1.AcquireRequest{
			Parent: mallory.parent(), Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: secret.pl}, Right: view, Delivery: daemontest.SealedTo(newKey(t)),
		})
		r := refused(err)
		if r == nil || r.reason != vocab.ReasonNoRights {
			t.Fatalf("%v", r)
		}
		e := s.recorded(t, r, false)
		if e.GetPrincipal() != "mallory@contoso.test" || e.GetPeer() != "127.0.0.1" {
			t.Fatalf("the event names %s at %s", e.GetPrincipal(), e.GetPeer())
		}
	})
	t.Run("a guest, let in, with words about the tenant's people", func(t *testing.T) {
		_, err := alice.policy().UpdateSettings(alice.ctx(), &rmsv1.UpdateSettingsRequest{
			Settings:   &rmsv1.Settings{Name: alice.parent() + "/settings", Etag: "*", GuestDomains: []string{"guests.test"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"guest_domains"}},
		})
		must(t, err)
		s.as("guests", "gina").wantOpens(t, secret) // as herself
		byGroup := alice.publish("", grant("group:finance@contoso.test", view), grant("tenant:contoso", view))
		c := guests.Claims("gina")
		c["groups"] = []string{"finance@contoso.test"}
		got, err := s.as("guests", "gina").with(sign(t, guests, c, nil)).acquire(byGroup.pl)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
		c["email"] = "alice@contoso.test"
		got, err = s.as("guests", "gina").with(sign(t, guests, c, nil)).acquire(byGroup.pl)
		wantRefused(t, got, err, vocab.ReasonAddressNotVerified)
	})
	t.Run("an address that was given to somebody else", func(t *testing.T) {
		d := alice.publish("", grant("user:bob@contoso.test", view))
		_, err := alice.licenses().RevokeLicense(alice.ctx(), &rmsv1.RevokeLicenseRequest{Name: d.name})
		must(t, err)
		alice.wantOpens(t, d) // who protected it may
		c := idp.Claims("alice")
		c["sub"] = "TEST the next alice"
		got, err := alice.with(sign(t, idp, c, nil)).acquire(d.pl)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonLicenseRevoked), false)
	})

	t.Run("services", func(t *testing.T) {
		forService := alice.publish("", grant("service:dlp-scanner", view))
		scanner := s.service("dlp-scanner", s.clientCertificate("/dlp"))
		clear := func(c *caller, d *document, subject string) (*opened, error) {
			return c.acquireAs(nil, &rmsv1.AcquireRequest{
				Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.pl}, Delivery: clearDelivery(), SubjectToken: subject,
			})
		}
		got, err := clear(scanner, forService, "")
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonClearKeyNotAllowed), false)
		_, err = alice.policy().UpdateSettings(alice.ctx(), &rmsv1.UpdateSettingsRequest{
			Settings:   &rmsv1.Settings{Name: alice.parent() + "/settings", Etag: "*", ClearKeys: rmsv1.Settings_CLEAR_KEYS_MTLS},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"clear_keys"}},
		})
		must(t, err)
		got, err = clear(scanner, forService, "")
		if err != nil || got.key != forService.key {
			t.Fatalf("the service cannot open what it may: %v", err)
		}
		got, err = clear(s.person("bob"), secret, "")
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonClearKeyNotAllowed), false)
		got, err = clear(scanner, secret, "") // the service itself may not read it
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
		got, err = clear(scanner, forService, s.person("mallory").token) // for somebody who may not
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
		got, err = clear(scanner, secret, s.as(fabrikam, "frank").token)
		wantRefused(t, got, err, vocab.ReasonIssuerNotTrusted)
		// A person does not act for another, and brings no rights by it.
		mallory := s.person("mallory")
		got, err = mallory.acquireAs(newKey(t), &rmsv1.AcquireRequest{
			Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: secret.pl}, SubjectToken: s.person("bob").token,
		})
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonRoleRequired), false)

		got, err = s.service("another", s.clientCertificate("/other")).acquire(forService.pl)
		wantRefused(t, got, err, vocab.ReasonCertificateNotMapped)
		// A certificate by an authority of the attacker's own does not even connect.
		another, err := daemontest.NewAuthority("authority of a test")
		must(t, err)
		forged := daemontest.ServiceCertificate(t, another, "spiffe://contoso.test/dlp")
		rogue := s.service("rogue", &forged)
		if _, err := rogue.acquire(forService.pl); err == nil {
			t.Fatal("a certificate of an unknown authority was believed")
		}
	})

	if n := contacted.count.Load(); n != 0 {
		t.Fatalf("%d connections were made to where tokens pointed", n)
	}
	s.person("bob").wantOpens(t, secret)
}

// craft makes a token of any header, signed in any way.
func craft(t *testing.T, header, claims map[string]any, sign func([]byte) []byte) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		must(t, err)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(header) + "." + part(claims)
	var signature []byte
	if sign != nil {
		signature = sign([]byte(signed))
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func ecdsaSign(t *testing.T) func([]byte) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return func(b []byte) []byte {
		h := sha256.Sum256(b)
		r, sv, err := ecdsa.Sign(rand.Reader, key, h[:])
		must(t, err)
		return append(r.FillBytes(make([]byte, 32)), sv.FillBytes(make([]byte, 32))...)
	}
}

type publishedKey struct {
	kid string
	raw []byte
}

// idpKey is a provider's published key, as anyone can fetch it.
func idpKey(t *testing.T, issuer string) publishedKey {
	t.Helper()
	get := func(u string, v any) []byte {
		resp, err := http.Get(u) // the test's own provider
		must(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		must(t, err)
		must(t, json.Unmarshal(b, v))
		return b
	}
	var discovery struct {
		Keys string `json:"jwks_uri"`
	}
	get(strings.TrimRight(issuer, "/")+"/.well-known/openid-configuration", &discovery)
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	raw := get(discovery.Keys, &set)
	if len(set.Keys) == 0 {
		t.Fatal("the provider publishes no key")
	}
	return publishedKey{set.Keys[0].ID, raw}
}

// trap counts who connects.
type trap struct {
	url, address string
	count        atomic.Int64
}

func listener(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	x := &trap{url: "http://" + l.Addr().String(), address: l.Addr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			x.count.Add(1)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	// It counts: else that it counted nothing would prove nothing.
	c, err := net.Dial("tcp", x.address)
	must(t, err)
	_, _ = c.Read(make([]byte, 1)) // until it was counted and closed
	_ = c.Close()
	if x.count.Swap(0) != 1 {
		t.Fatal("the listener does not count")
	}
	return x
}
