package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/openrms/rms/internal/vocab"
)

var seedHeaders = []string{
	`{"alg":"ES256","kid":"k","typ":"JWT"}`, `{"alg":"RS256","typ":"application/at+jwt"}`, `{"alg":"none"}`, `{"alg":"HS256"}`,
	`{"alg":7}`, `{"kid":[]}`, `{"alg":"ES256","crit":["x"]}`, `{"alg":"ES256","jku":"https://evil.test"}`, `{"alg":"ES256","jwk":{}}`,
	`{"alg":"ES256","alg":"none"}`, `{"ALG":"ES256"}`, `null`, `[]`, `{`, "{\"alg\":\"\xff\"}", `{"alg":"EdDSA","b64":false}`,
}

var seedPayloads = []string{
	`{"iss":"https://idp.test","sub":"s","aud":["rms"],"exp":1800000500,"iat":1799999500,"nbf":1.5,"email":"a@contoso.test","email_verified":true,"groups":["g","x@contoso.test"],"amr":["mfa"],"client_id":"c"}`,
	`{"iss":"https://idp.test","sub":"\ud800","aud":"rms"}`, `{"aud":[1]}`, `{"aud":{}}`, `{"exp":"x"}`, `{"exp":-1}`, `{"exp":1e400}`, `{"exp":1e300}`,
	`{"groups":[["g"]],"hasgroups":"true"}`, `{"_claim_names":{"groups":"src1"}}`, `{"_claim_names":4}`, `{"cnf":{"jkt":"x"}}`, `{"cnf":{"x5t#S256":1}}`,
	`{"events":{}}`, `{"act":{}}`, `{"typ":"ID"}`, `{"typ":3}`, `{"token_use":"id"}`, `{"nonce":"n"}`, `{"scope":"openid"}`,
	`{"iss":"a","iss":"b"}`, `{"email":"a@contoso.test","email_verified":1}`, `{"email":["a@contoso.test",5],"xms_edov":"1"}`,
	`{"exp":1800000500}`, `{"exp":1800000500,"iat":"x"}`, `{"exp":1800000500,"iat":1799999500,"nbf":"x"}`, `{"exp":1700000000,"iat":1699999500}`,
	`{"exp":1900000500,"iat":1899999500}`, `{"hd":["contoso.test"],"level":3}`, strings.Repeat("[", 5000), strings.Repeat(`{"a":`, 3000), ``, `{}`, `null`,
}

// seedGood is a whole token at the fuzzers' clock; each of seedMembers makes it
// another one that gets past most rules.
const seedGood = `{"iss":"https://idp.test","exp":1800000500,"iat":1799999500,`

var seedMembers = []string{
	`"sub":"s","aud":"rms","client_id":"c","email":"a@fabrikam.test","email_verified":"true","groups":["g","x@contoso.test","x@fabrikam.test"],"amr":["mfa"]`,
	`"sub":"s","aud":["rms","x"],"azp":"c","upn":["a@contoso.test","b@fabrikam.test","c@evil.test","?"],"hasgroups":1,"acrs":["c1"]`,
	`"sub":"s","aud":["rms","x"],"azp":"x"`, `"sub":"u","aud":"rms","azp":"x"`, `"sub":"u","aud":"rms","azp":"c","upn":"a@evil.test"`,
	`"sub":"s","aud":"rms","azp":"c","_claim_names":{"groups":"s1"}`, `"sub":"s","aud":"rms","azp":"c","_claim_names":{}`, `"sub":"s","aud":"rms","azp":"c","_claim_names":1`,
	`"sub":"s","aud":"rms","azp":"c","groups":{}`, `"sub":"s","aud":"rms","azp":"c","hasgroups":[]`,
	`"sub":"s","aud":"rms","azp":"c","cnf":1`, `"sub":"s","aud":"rms","azp":"c","cnf":{"x5t#S256":1}`, `"sub":"s","aud":"rms","azp":"c","cnf":{"x5t#S256":"eA"}`,
	`"sub":"","aud":"rms","azp":"c"`, `"sub":"s","aud":"other","azp":"c"`, `"sub":"s","aud":"rms","azp":"c","token_use":"access"`, `"sub":"s","aud":"rms","azp":"c","typ":"Bearer"`,
	`"sub":"s","aud":"rms","azp":"c","cnf":{"x5t#S256":"` + seedThumbprint + `"},"email":"a@contoso.test","email_verified":true`,
	`"sub":"s","aud":"rms","azp":"c","email_verified":"true","hd":"contoso.test","upn":"a@contoso.test"`, `"sub":"s","aud":"rms","azp":"c","email_verified":true,"hd":"x"`,
	`"sub":"s","aud":"rms","azp":"c","scp":"x","hd":["contoso.test"]`, `"sub":"s","aud":"rms","azp":"c","nbf":9e9`,
}

// seedCertificate is what the fuzzers' connection shows of itself; tokens bound
// to it name its thumbprint.
var seedCertificate = &x509.Certificate{Raw: []byte("a test certificate")}

var seedThumbprint = func() string {
	sum := sha256.Sum256(seedCertificate.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}()

// FuzzToken: whatever comes in, taking a token apart and applying every rule
// to it neither panics nor makes more of it than the provider may say.
func FuzzToken(f *testing.F) {
	b64 := base64.RawURLEncoding.EncodeToString
	for i, h := range seedHeaders {
		f.Add(b64([]byte(h)) + "." + b64([]byte(seedPayloads[i%len(seedPayloads)])) + ".c2ln")
	}
	for _, p := range seedPayloads {
		f.Add(b64([]byte(seedHeaders[0])) + "." + b64([]byte(p)) + ".c2ln")
	}
	for _, m := range seedMembers {
		f.Add(b64([]byte(seedHeaders[0])) + "." + b64([]byte(seedGood+m+"}")) + ".c2ln")
	}
	f.Add("")
	f.Add("a.b")
	f.Add("!.!.!")
	f.Add(strings.Repeat("A", maxToken+1))
	f.Fuzz(func(t *testing.T, raw string) {
		tok, err := parseToken(raw)
		if err != nil {
			return
		}
		if len(raw) > maxToken || !allowedAlgorithm(tok.alg) || !utf8.Valid(tok.payload) {
			t.Fatalf("accepted %q", raw)
		}
		checkRules(t, tok)
	})
}

// FuzzClaims is FuzzToken past the encoding, which a fuzzer rarely gets right.
func FuzzClaims(f *testing.F) {
	for _, p := range seedPayloads {
		f.Add([]byte(p))
	}
	for _, m := range seedMembers {
		f.Add([]byte(seedGood + m + "}"))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := parseObject(payload)
		if err != nil {
			return
		}
		for _, typ := range []string{"", "jwt", "at+jwt", "logout+jwt"} {
			checkRules(t, &token{alg: "ES256", typ: typ, payload: payload, claims: c})
		}
	})
}

func checkRules(t *testing.T, tok *token) {
	v := &Verifier{now: func() time.Time { return time.Unix(1_800_000_000, 0) }}
	tenant := Tenant{
		Name: "contoso", Domains: []string{"contoso.test"},
		GuestDomain: func(d string) bool { return d == "fabrikam.test" },
		Group:       func(provider, id string) (string, bool) { return provider + "@groups.test", id == "g" },
		Services:    map[string]ServiceMatch{"svc": {Provider: "p", Subject: "s"}},
	}
	issued, err := v.checkTimes(tok.claims)
	if err != nil {
		wantKnown(t, err)
	}
	for _, kind := range []TokenKind{TokenAccess, TokenID} {
		for i := range 4 {
			own, demanding := i%2 == 0, i >= 2
			c := candidate{name: "p", own: own, trust: Provider{
				Issuer: "https://idp.test", Audiences: []string{"rms"}, Token: kind, CLIClientID: "c",
				Addresses: Addresses{Claims: []string{"email", "upn"}, Domains: []string{"contoso.test", "fabrikam.test"}},
				Claims:    Claims{Groups: "groups", GroupForm: GroupAddress, MFA: MFA{ACRs: []string{"c1"}, AMRs: []string{"mfa"}}},
			}}
			var leaf *x509.Certificate
			if demanding {
				c.trust.Clients = []string{"c"}
				c.trust.Require = map[string][]any{"email_verified": {true}, "hd": {"contoso.test"}}
				leaf = seedCertificate
			}
			id, err := v.accept(c, tenant, tok, issued, leaf)
			if err != nil {
				wantKnown(t, err)
				continue
			}
			if leaf == nil && tok.claims.has("cnf") {
				t.Fatalf("bound to a key and taken from anybody: %+v", id)
			}
			if id.Subject == "" || len(id.Subject) > maxSubject || (id.Member != "" || id.Service != "") && !own {
				t.Fatalf("%+v", id)
			}
			if len(id.Addresses) == 0 && id.Service == "" {
				t.Fatalf("nobody: %+v", id)
			}
			for _, a := range id.Addresses {
				canonical, err := vocab.CanonicalAddress(a)
				if d := vocab.DomainOf(a); err != nil || canonical != a || d != "fabrikam.test" && (d != "contoso.test" || !own) {
					t.Fatalf("address %q of own=%v", a, own)
				}
			}
		}
	}
	_ = tok.claims.matches("hd", []any{"contoso.test", 3, true})
}

func wantKnown(t *testing.T, err error) {
	switch vocab.ReasonOf(err) {
	case vocab.ReasonTokenInvalid, vocab.ReasonTokenExpired, vocab.ReasonTokenTooOld, vocab.ReasonAddressNotVerified:
	default:
		t.Fatalf("reason %s: %v", vocab.ReasonOf(err), err)
	}
}

// FuzzKeys: a key document never panics and never yields a key that is used
// with more than one algorithm or with a symmetric one.
func FuzzKeys(f *testing.F) {
	ed := `{"kty":"OKP","crv":"Ed25519","kid":"e","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"%s}`
	ec := `{"kty":"EC","crv":"P-256","kid":"c","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	rsa := `{"kty":"RSA","kid":"r","e":"AQAB","n":"` + strings.Repeat("v", 342) + `"%s}`
	for _, s := range []string{
		fmt.Sprintf(ed, ""), fmt.Sprintf(ed, `,"alg":"EdDSA","use":"sig"`), fmt.Sprintf(ed, `,"alg":"HS256"`), fmt.Sprintf(ed, `,"use":"enc"`), ec,
		fmt.Sprintf(rsa, ""), fmt.Sprintf(rsa, `,"alg":"PS256"`), fmt.Sprintf(rsa, `,"alg":"RSA-OAEP"`), strings.Replace(fmt.Sprintf(rsa, ""), "AQAB", "Ag", 1),
		`{"kty":"oct","k":"AAAA"}`, `4`, ec + "," + ec,
	} {
		f.Add([]byte(`{"keys":[`+s+`]}`), "RS256")
		f.Add([]byte(`{"keys":[`+s+`]}`), "")
	}
	f.Add([]byte(`{"keys":[`+fmt.Sprintf(rsa, "")+`]}`), "HS256")
	f.Add([]byte(`{"keys":[`+strings.Repeat("1,", maxKeys)+`1]}`), "")
	f.Add([]byte(`{`), "")
	f.Fuzz(func(t *testing.T, doc []byte, supported string) {
		var algorithms []string
		if supported != "" {
			algorithms = []string{supported}
		}
		keys, err := parseKeys(doc, algorithms)
		if err != nil {
			return
		}
		for kid, list := range keys {
			for _, k := range list {
				if !allowedAlgorithm(string(k.alg)) {
					t.Fatalf("kid %q with algorithm %s", kid, k.alg)
				}
			}
		}
	})
}
