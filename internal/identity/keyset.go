package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// How the keys of an issuer are kept. Providers publish a new key long before
// they sign with it, so the regular refresh normally sees it first; a token
// with a key nobody has seen may ask for one extra refresh a minute, however
// many such tokens come, so that a stranger cannot turn the daemon on the
// provider.
const (
	refreshEvery    = 10 * time.Minute // regular refresh, in the background
	unknownKeyEvery = time.Minute      // extra refresh for an unknown kid
	retryAfter      = 5 * time.Second  // pause after a failed fetch
	keysUsable      = 24 * time.Hour   // keys stay usable this long without any contact
	fetchTimeout    = 10 * time.Second
	maxDocument     = 1 << 20 // bytes of a discovery or key document
	maxKeys         = 256
	minRSABits      = 2048
)

var (
	errUnknownKey = errors.New("no key of the issuer has this kid and algorithm")
	errClosed     = errors.New("the verifier is closed")
)

// issuerKey is a verification key and the one algorithm it is used with.
type issuerKey struct {
	alg jose.SignatureAlgorithm
	key any
	// seen are tokens whose signature by this key was good.
	seen *seenTokens
}

// keySet holds the current keys of one issuer.
type keySet struct {
	issuer string
	client *http.Client
	now    func() time.Time
	life   context.Context // ends with the verifier
	work   *sync.WaitGroup // fetches under way

	mu        sync.Mutex
	keys      map[string][]issuerKey // by kid
	fetched   time.Time              // last success
	failed    time.Time              // last failure, zero after a success
	failure   error
	lastExtra time.Time     // last refresh for an unknown kid
	underway  chan struct{} // closed when the fetch under way ends
	closed    bool
}

// find returns the key with kid and alg. It returns [errUnknownKey] when the
// issuer answered and has none, and another error when the issuer could not
// be asked and nothing kept fits.
func (s *keySet) find(ctx context.Context, kid string, alg jose.SignatureAlgorithm) (issuerKey, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return issuerKey{}, errClosed
		}
		now := s.now()
		if len(s.keys) > 0 && now.Sub(s.fetched) < keysUsable {
			if k, ok := s.pick(kid, alg); ok {
				if now.Sub(s.fetched) >= refreshEvery && s.underway == nil && s.mayFetch(now) {
					s.start()
				}
				s.mu.Unlock()
				return k, nil
			}
			if s.underway == nil {
				if now.Sub(s.lastExtra) < unknownKeyEvery || !s.mayFetch(now) {
					err := errUnknownKey
					if s.failure != nil {
						err = s.failure
					}
					s.mu.Unlock()
					return issuerKey{}, err
				}
				s.lastExtra = now
				s.start()
			}
		} else if s.underway == nil {
			if !s.mayFetch(now) {
				err := s.failure
				s.mu.Unlock()
				return issuerKey{}, err
			}
			s.start()
		}
		wait := s.underway
		s.mu.Unlock()

		select {
		case <-wait:
		case <-ctx.Done():
			return issuerKey{}, ctx.Err()
		}
	}
}

// close lets no further fetch begin.
func (s *keySet) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

// pick looks kid and alg up. A token without kid is accepted only if there is
// no choice.
func (s *keySet) pick(kid string, alg jose.SignatureAlgorithm) (issuerKey, bool) {
	if kid == "" {
		if len(s.keys) != 1 {
			return issuerKey{}, false
		}
		for only := range s.keys {
			kid = only
		}
	}
	for _, k := range s.keys[kid] {
		if k.alg == alg {
			return k, true
		}
	}
	return issuerKey{}, false
}

// mayFetch reports whether the pause after a failure is over.
func (s *keySet) mayFetch(now time.Time) bool {
	return s.failed.IsZero() || now.Sub(s.failed) >= retryAfter
}

// start fetches on behalf of everybody who waits: its life is the verifier's,
// not that of the caller who happened to be first.
func (s *keySet) start() {
	done := make(chan struct{})
	s.underway = done
	s.work.Go(func() {
		ctx, cancel := context.WithTimeout(s.life, fetchTimeout)
		defer cancel()
		keys, err := s.fetch(ctx)

		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.failed, s.failure = s.now(), err
		} else {
			s.keys, s.fetched = keys, s.now()
			s.failed, s.failure = time.Time{}, nil
		}
		s.underway = nil
		close(done)
	})
}

// fetch reads the discovery document and the keys it points to (OpenID
// Connect Discovery 1.0 §4).
func (s *keySet) fetch(ctx context.Context) (map[string][]issuerKey, error) {
	var discovery struct {
		Issuer     string   `json:"issuer"`
		JWKSURI    string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	b, err := s.get(ctx, strings.TrimSuffix(s.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &discovery); err != nil {
		return nil, fmt.Errorf("discovery document of %s: %w", s.issuer, err)
	}
	if discovery.Issuer != s.issuer {
		return nil, fmt.Errorf("discovery document of %s names the issuer %q", s.issuer, clip(discovery.Issuer))
	}
	if err := checkURL(discovery.JWKSURI, false); err != nil {
		return nil, fmt.Errorf("jwks_uri of %s: %w", s.issuer, err)
	}
	if b, err = s.get(ctx, discovery.JWKSURI); err != nil {
		return nil, err
	}
	keys, err := parseKeys(b, discovery.Algorithms)
	if err != nil {
		return nil, fmt.Errorf("keys of %s: %w", s.issuer, err)
	}
	return keys, nil
}

func (s *keySet) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("%s answered more than %d bytes", url, maxDocument)
	}
	return b, nil
}

// parseKeys reads a JWK set (RFC 7517). Keys that cannot be used for
// signatures we accept are skipped, as §5 of the RFC asks; a set without any
// usable key is an error, so that a broken answer never replaces good keys.
func parseKeys(b []byte, supported []string) (map[string][]issuerKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, more than %d", len(set.Keys), maxKeys)
	}
	keys := map[string][]issuerKey{}
	for _, raw := range set.Keys {
		var jwk jose.JSONWebKey
		if err := jwk.UnmarshalJSON(raw); err != nil {
			continue
		}
		if jwk.Use != "" && jwk.Use != "sig" {
			continue
		}
		alg, ok := algorithmOf(&jwk, supported)
		if !ok {
			continue
		}
		if slices.ContainsFunc(keys[jwk.KeyID], func(k issuerKey) bool { return k.alg == alg }) {
			continue // two keys by one name: the first counts
		}
		keys[jwk.KeyID] = append(keys[jwk.KeyID], issuerKey{alg: alg, key: jwk.Key, seen: new(seenTokens)})
	}
	if len(keys) == 0 {
		return nil, errors.New("no usable signature key")
	}
	return keys, nil
}

// rsaAlgorithms are those an RSA key may be used with, the usual first.
var rsaAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.RS384, jose.RS512, jose.PS384, jose.PS512}

// algorithmOf fixes the one algorithm of a key: by its type, and for RSA by
// the key's own alg or else by what the issuer announces. The token has no
// say (RFC 8725 §3.1), which leaves no room for none, for HMAC under a public
// key, or for a weaker choice.
func algorithmOf(jwk *jose.JSONWebKey, supported []string) (jose.SignatureAlgorithm, bool) {
	var fixed jose.SignatureAlgorithm
	switch key := jwk.Key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits || key.E < 3 || key.E%2 == 0 {
			return "", false
		}
		if jwk.Algorithm != "" {
			alg := jose.SignatureAlgorithm(jwk.Algorithm)
			return alg, slices.Contains(rsaAlgorithms, alg)
		}
		if len(supported) == 0 {
			return jose.RS256, true
		}
		for _, alg := range rsaAlgorithms {
			if slices.Contains(supported, string(alg)) {
				return alg, true
			}
		}
		return "", false
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			fixed = jose.ES256
		case elliptic.P384():
			fixed = jose.ES384
		case elliptic.P521():
			fixed = jose.ES512
		}
	case ed25519.PublicKey:
		fixed = jose.EdDSA
	}
	if fixed == "" {
		return "", false
	}
	return fixed, jwk.Algorithm == "" || jwk.Algorithm == string(fixed)
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
