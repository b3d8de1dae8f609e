package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	// maxToken is the greatest size of a token in bytes. Entra's with 200
	// groups has about 11 KiB.
	maxToken = 32 << 10
	// maxSubject is the greatest length of sub (OpenID Connect Core 1.0
	// §2: 255 ASCII characters).
	maxSubject = 255
)

// token is a token taken apart, not yet verified.
type token struct {
	alg, kid, typ string
	payload       []byte
	claims        claims
}

// claims are the members of a token's payload. JSON names are matched
// exactly and none occurs twice: a parser that is lenient about either can be
// made to see another token than the one that was signed.
type claims map[string]any

// parseToken takes a compact JWS apart. It decides nothing about trust but
// refuses whatever would need a feature that is not supported: a token
// is understood in full or not at all.
func parseToken(raw string) (*token, error) {
	if len(raw) > maxToken {
		return nil, fmt.Errorf("token of %d bytes, more than %d", len(raw), maxToken)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a signed token: want three parts")
	}
	var decoded [3][]byte
	for i, part := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, fmt.Errorf("part %d is not base64url", i+1)
		}
		decoded[i] = b
	}
	header, err := parseObject(decoded[0])
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	t := &token{payload: decoded[1]}
	for name, value := range header {
		switch name {
		case "alg", "kid", "typ":
			s, ok := value.(string)
			if !ok {
				return nil, fmt.Errorf("header %s is not a string", name)
			}
			switch name {
			case "alg":
				t.alg = s
			case "kid":
				t.kid = s
			case "typ":
				// RFC 7515 §4.1.9: media types, the prefix is optional.
				t.typ = strings.TrimPrefix(strings.ToLower(s), "application/")
			}
		case "jwk", "jku", "x5u", "x5c":
			return nil, fmt.Errorf("header %s: a token may not bring its own key", name)
		case "crit", "b64", "zip", "enc", "cty":
			return nil, fmt.Errorf("header %s is not supported", name)
		}
	}
	if !allowedAlgorithm(t.alg) {
		return nil, fmt.Errorf("algorithm %q is not accepted", clip(t.alg))
	}
	if t.claims, err = parseObject(t.payload); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return t, nil
}

func allowedAlgorithm(alg string) bool {
	switch jose.SignatureAlgorithm(alg) {
	case jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA:
		return true
	}
	return false
}

// parseObject reads one JSON object. go-jose's decoder, unlike the standard
// one, refuses repeated names and compares names exactly.
func parseObject(b []byte) (map[string]any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if m == nil {
		return nil, errors.New("not an object")
	}
	return m, nil
}

// text returns a string claim; ok is false if it is missing, empty, not a
// string, or holds control or replacement characters (which is what a lone
// surrogate escape becomes: two subjects must not fall together).
func (c claims) text(name string) (s string, ok bool) {
	s, ok = c[name].(string)
	if !ok || s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == utf8.RuneError }) {
		return "", false
	}
	return s, true
}

// list returns a claim that is a string or a list of strings; ok is false if
// it is there and anything else.
func (c claims) list(name string) (values []string, ok bool) {
	switch v := c[name].(type) {
	case nil:
		return nil, true
	case string:
		return []string{v}, true
	case []any:
		for _, item := range v {
			s, isString := item.(string)
			if !isString {
				return nil, false
			}
			values = append(values, s)
		}
		return values, true
	}
	return nil, false
}

// date returns a NumericDate claim (RFC 7519 §2) to the millisecond. present
// is false if the claim is missing; ok is false if it is there and no date.
func (c claims) date(name string) (t time.Time, present, ok bool) {
	v, there := c[name]
	if !there {
		return time.Time{}, false, true
	}
	f, isNumber := v.(float64)
	if !isNumber || math.IsNaN(f) || f < 0 || f >= 253402300800 { // year 10000
		return time.Time{}, true, false
	}
	return time.UnixMilli(int64(f * 1000)).UTC(), true, true
}

// isTrue reports whether a claim says yes. Some providers send booleans as
// strings or numbers.
func (c claims) isTrue(name string) bool {
	switch v := c[name].(type) {
	case bool:
		return v
	case string:
		return v == "true" || v == "1"
	case float64:
		return v == 1
	}
	return false
}

// matches reports whether a claim, or a member of it if it is a list, equals
// one of the wanted strings, booleans or whole numbers.
func (c claims) matches(name string, wanted []any) bool {
	values, isList := c[name].([]any)
	if !isList {
		values = []any{c[name]}
	}
	for _, v := range values {
		for _, w := range wanted {
			if n, isInt := w.(int); isInt {
				w = float64(n)
			}
			switch v.(type) {
			case string, bool, float64:
				if v == w {
					return true
				}
			}
		}
	}
	return false
}

// has reports whether any of the claims is there.
func (c claims) has(names ...string) bool {
	for _, n := range names {
		if _, ok := c[n]; ok {
			return true
		}
	}
	return false
}

// application returns the client the token was issued to, by the names the
// providers give it.
func (c claims) application() string {
	for _, name := range []string{"azp", "client_id", "appid", "cid"} {
		if s, ok := c.text(name); ok {
			return s
		}
	}
	return ""
}
