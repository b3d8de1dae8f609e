package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/openrms/rms/internal/vocab"
)

// leeway is how far clocks may differ.
const leeway = 30 * time.Second

// Verifier verifies tokens and certificates. It is safe for concurrent use.
// Close it to end the fetches it may have under way.
type Verifier struct {
	config Config
	now    func() time.Time
	keys   map[string]*keySet // by issuer
	end    context.CancelFunc
	work   sync.WaitGroup
}

// NewVerifier checks the configuration and returns a verifier. No provider is
// contacted before the first token that needs it; see [Verifier.Probe]. A nil
// client is one with Go's defaults; redirects that leave https are refused in
// any case. A nil now is time.Now.
func NewVerifier(c Config, client *http.Client, now func() time.Time) (*Verifier, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	life, end := context.WithCancel(context.Background())
	v := &Verifier{config: c, now: now, keys: map[string]*keySet{}, end: end}
	strict := strictClient(client)
	for _, p := range c.Providers {
		if v.keys[p.Issuer] == nil {
			v.keys[p.Issuer] = &keySet{issuer: p.Issuer, client: strict, now: now, life: life, work: &v.work}
		}
	}
	return v, nil
}

func strictClient(client *http.Client) *http.Client {
	c := http.Client{}
	if client != nil {
		c = *client
	}
	c.Jar = nil
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= 3 {
			return errors.New("more than three redirects")
		}
		return checkURL(req.URL.String(), false)
	}
	return &c
}

// Close ends fetches under way and waits for them. Tokens presented after it
// get IDENTITY_PROVIDER_DOWN.
func (v *Verifier) Close() {
	for _, s := range v.keys {
		s.close()
	}
	v.end()
	v.work.Wait()
}

// Provider returns the configuration of a provider.
func (v *Verifier) Provider(name string) (Provider, bool) {
	p, ok := v.config.Providers[name]
	return p, ok
}

// Probe fetches the discovery document and the keys of one provider now, for
// people who check a configuration; what it finds is not kept. It returns
// IDENTITY_PROVIDER_DOWN with the cause in the message.
func (v *Verifier) Probe(ctx context.Context, provider string) error {
	p, ok := v.config.Providers[provider]
	if !ok {
		return invalid("there is no identity provider %q", provider)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	if _, err := v.keys[p.Issuer].fetch(ctx); err != nil {
		return vocab.Errorf(vocab.ReasonIdentityProviderDown, "identity provider %s: %w", provider, err)
	}
	return nil
}

// Token verifies a bearer token for a tenant and returns who it speaks for.
// It refuses tokens that are bound to a key or certificate; see
// [Verifier.BoundToken].
//
// Its errors are TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_TOO_OLD,
// ISSUER_NOT_TRUSTED, ADDRESS_NOT_VERIFIED and, the only one worth a retry,
// IDENTITY_PROVIDER_DOWN. Their text is the same for every cause of one
// reason; the cause, which never holds the token, is wrapped for the
// operator's log.
func (v *Verifier) Token(ctx context.Context, t Tenant, raw string) (*vocab.Identity, error) {
	return v.BoundToken(ctx, t, raw, nil)
}

// BoundToken is [Verifier.Token] on a connection whose client certificate is
// leaf (nil: none). A token with a cnf claim is accepted only if it is bound
// to this certificate (RFC 8705 §3.1).
func (v *Verifier) BoundToken(ctx context.Context, t Tenant, raw string, leaf *x509.Certificate) (*vocab.Identity, error) {
	if raw == "" {
		return nil, vocab.Errorf(vocab.ReasonTokenMissing, "you are not signed in").WithNext("Sign in first")
	}
	tok, err := parseToken(raw)
	if err != nil {
		return nil, tokenInvalid(err)
	}
	issuer, _ := tok.claims.text("iss")
	candidates := v.candidates(t, issuer)
	if len(candidates) == 0 {
		return nil, vocab.Errorf(vocab.ReasonIssuerNotTrusted, "this tenant does not accept sign-ins from the issuer of your token").
			WithNext("Sign in with an identity provider of the tenant").
			Because(fmt.Errorf("issuer %q is not among the providers of tenant %s", clip(issuer), t.Name))
	}
	if err := v.checkSignature(ctx, issuer, tok, raw); err != nil {
		return nil, err
	}
	issued, err := v.checkTimes(tok.claims)
	if err != nil {
		return nil, err
	}
	var first error
	for _, c := range candidates {
		id, err := v.accept(c, t, tok, issued, leaf)
		if err == nil {
			return id, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// candidate is a provider a tenant trusts, and how.
type candidate struct {
	name  string
	own   bool // the tenant's, not its guests'
	trust Provider
}

// candidates returns the tenant's providers with this issuer, its own first.
func (v *Verifier) candidates(t Tenant, issuer string) []candidate {
	var out []candidate
	for i, name := range slices.Concat(t.Providers, t.GuestProviders) {
		p, ok := v.config.Providers[name]
		if ok && issuer != "" && p.Issuer == issuer &&
			!slices.ContainsFunc(out, func(c candidate) bool { return c.name == name }) {
			out = append(out, candidate{name: name, own: i < len(t.Providers), trust: p})
		}
	}
	return out
}

func (v *Verifier) checkSignature(ctx context.Context, issuer string, tok *token, raw string) error {
	key, err := v.keys[issuer].find(ctx, tok.kid, jose.SignatureAlgorithm(tok.alg))
	switch {
	case errors.Is(err, errUnknownKey):
		return tokenInvalid(fmt.Errorf("kid %q, algorithm %s: %w", clip(tok.kid), tok.alg, err))
	case err != nil:
		return vocab.Errorf(vocab.ReasonIdentityProviderDown, "your identity provider cannot be reached, so your sign-in cannot be checked").
			WithNext("Try again in a moment").Because(err)
	}
	if key.seen.has(raw) {
		return nil
	}
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{key.alg})
	if err != nil {
		return tokenInvalid(err)
	}
	signed, err := jws.Verify(key.key)
	if err != nil {
		return tokenInvalid(fmt.Errorf("kid %q: %w", clip(tok.kid), err))
	}
	if !bytes.Equal(signed, tok.payload) {
		return tokenInvalid(errors.New("the signed payload is not the one that was read"))
	}
	key.seen.add(raw)
	return nil
}

// checkTimes checks exp, nbf and iat and returns iat.
func (v *Verifier) checkTimes(c claims) (time.Time, error) {
	now := v.now()
	exp, present, ok := c.date("exp")
	if !present || !ok {
		return time.Time{}, tokenInvalid(errors.New("exp is missing or no date"))
	}
	iat, present, ok := c.date("iat")
	if !present || !ok {
		return time.Time{}, tokenInvalid(errors.New("iat is missing or no date"))
	}
	nbf, _, ok := c.date("nbf")
	if !ok {
		return time.Time{}, tokenInvalid(errors.New("nbf is no date"))
	}
	switch {
	case !now.Before(exp.Add(leeway)):
		return time.Time{}, vocab.Errorf(vocab.ReasonTokenExpired, "your sign-in has expired").WithNext("Sign in again").
			Because(fmt.Errorf("expired at %s", exp))
	case now.Add(leeway).Before(nbf):
		return time.Time{}, tokenInvalid(fmt.Errorf("not valid before %s", nbf))
	case now.Add(leeway).Before(iat):
		return time.Time{}, tokenInvalid(fmt.Errorf("issued in the future, at %s", iat))
	}
	return iat, nil
}

// tokenInvalid is the one answer to everything that is wrong with a token.
func tokenInvalid(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonTokenInvalid, "your sign-in token was not accepted").WithNext("Sign in again").Because(cause)
}
