package rmsctl

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// claims is what a token says of its holder. It is read to show the user what
// they hold; nothing is decided by it, so no signature is checked.
type claims struct {
	Issuer   string  `json:"iss"`
	Subject  string  `json:"sub"`
	Email    string  `json:"email"`
	Username string  `json:"preferred_username"`
	UPN      string  `json:"upn"`
	Expiry   float64 `json:"exp"`
}

// readClaims reads a JWT's payload.
func readClaims(token string) (claims, error) {
	var c claims
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, vocab.Errorf(vocab.ReasonTokenInvalid, "the token is not a JWT")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, vocab.Errorf(vocab.ReasonTokenInvalid, "the token is not a JWT").Because(err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, vocab.Errorf(vocab.ReasonTokenInvalid, "the token is not a JWT").Because(err)
	}
	return c, nil
}

// name is how a person would name the holder.
func (c claims) name() string {
	for _, s := range []string{c.Email, c.UPN, c.Username, c.Subject} {
		if s != "" {
			return s
		}
	}
	return "somebody"
}

// expiry is when the token ends; zero if it does not say.
func (c claims) expiry() time.Time {
	const year9999 = 253402300799
	if c.Expiry <= 0 || c.Expiry > year9999 {
		return time.Time{}
	}
	return time.Unix(int64(c.Expiry), 0).UTC()
}
