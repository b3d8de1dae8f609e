package identity_test

import (
	"testing"
	"time"

	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

// A signature that was good is remembered; nothing else about the token is.
func TestRememberedTokenIsStillChecked(t *testing.T) {
	w := newWorld(t)
	raw := mint(t, w.contoso, "alice")
	for range 3 {
		if id, err := w.verifier.Token(t.Context(), w.tenant, raw); err != nil || id.Addresses[0] != "alice@contoso.test" {
			t.Fatalf("%+v, %v", id, err)
		}
	}
	id, err := w.verifier.Token(t.Context(), identity.Tenant{Name: "another", Domains: []string{"fabrikam.test"}}, raw)
	wantReason(t, id, err, vocab.ReasonIssuerNotTrusted)
	flipped := []byte(raw)
	flipped[len(flipped)-10] ^= 1
	id, err = w.verifier.Token(t.Context(), w.tenant, string(flipped))
	wantReason(t, id, err, vocab.ReasonTokenInvalid)
	w.advance(30 * 24 * time.Hour)
	id, err = w.verifier.Token(t.Context(), w.tenant, raw)
	if err == nil {
		t.Fatalf("a token of a month ago is %+v", id)
	}
	if r := vocab.ReasonOf(err); r != vocab.ReasonTokenExpired && r != vocab.ReasonIdentityProviderDown {
		t.Errorf("reason %s", r)
	}
}
