package vocab_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/vocab"
)

func TestParseID(t *testing.T) {
	id := vocab.NewContentID()
	if back, err := vocab.ParseContentID(id.String()); err != nil || back != id {
		t.Errorf("%s reads back as %s, %v", id, back, err)
	}
	if id.Version() != 7 || vocab.NewTenantID().Version() != 4 {
		t.Error("content IDs are UUIDv7 and tenant IDs random")
	}
	s := "019a8c1e-77f1-7a31-8c1e-0123456789ab"
	for _, bad := range []string{
		"", s[:35], s + "0", strings.ToUpper(s), strings.ReplaceAll(s, "-", ""), "{" + s + "}", "urn:uuid:" + s,
		strings.Replace(s, "-", "_", 1), strings.Replace(s, "0", "g", 1), " " + s[1:],
	} {
		if _, err := vocab.ParseContentID(bad); err == nil {
			t.Errorf("%q was taken for an ID", bad)
		}
	}
}

func TestParsePrincipal(t *testing.T) {
	long := strings.Repeat("a", 64)
	for in, want := range map[string]string{
		"user:bob@contoso.com":       "user:bob@contoso.com",
		"user:BoB@CONTOSO.com":       "user:bob@contoso.com",
		"group:all+x@contoso.com":    "group:all+x@contoso.com",
		"domain:Fabrikam.COM":        "domain:fabrikam.com",
		"domain:xn--bcher-kva.test":  "domain:xn--bcher-kva.test",
		"tenant:contoso":             "tenant:contoso",
		"service:dlp-scanner":        "service:dlp-scanner",
		"anyone":                     "anyone",
		"user:" + long + "@a.test":   "user:" + long + "@a.test",
		"":                           "",
		"bob@contoso.com":            "",
		"anyone:":                    "",
		"User:bob@contoso.com":       "",
		"user:":                      "",
		"user:bob":                   "",
		"user:@contoso.com":          "",
		"user:bob@":                  "",
		"user:bob@localhost":         "",
		"user:bob@contoso.com.":      "",
		"user:bob@-contoso.com":      "",
		"user:.bob@contoso.com":      "",
		"user:b..b@contoso.com":      "",
		"user:b b@contoso.com":       "",
		"user:\"bob\"@contoso.com":   "",
		"user:bob@contoso.com@x.com": "",
		"user:bob\n@contoso.com":     "",
		"user:bo\u212a@contoso.com":  "", // KELVIN SIGN folds to k elsewhere
		"user:b\u00f6b@contoso.com":  "",
		"user:" + long + "a@a.test":  "",
		"domain:contoso":             "",
		"tenant:Contoso":             "",
		"tenant:con toso":            "",
		"service:-x":                 "",
		"role:auditor":               "",
	} {
		p, err := vocab.ParsePrincipal(in)
		switch {
		case want == "" && err == nil:
			t.Errorf("%q was taken for %s", in, p)
		case want != "" && (err != nil || p.String() != want || !p.Valid()):
			t.Errorf("%q: got %s, %v, want %s", in, p, err, want)
		}
	}
}

// FuzzParsePrincipal holds that what is accepted has one canonical form.
func FuzzParsePrincipal(f *testing.F) {
	for _, s := range []string{"user:bob@contoso.com", "group:A@b.C", "domain:a.b", "tenant:t", "service:s-1", "anyone", "user:bo\u212a@a.b", "x", "user:a@b@c.d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := vocab.ParsePrincipal(s)
		if err != nil {
			return
		}
		again, err := vocab.ParsePrincipal(p.String())
		if err != nil || again != p || !strings.EqualFold(p.String(), s) {
			t.Errorf("%q became %s, which becomes %s, %v", s, p, again, err)
		}
	})
}

func TestRights(t *testing.T) {
	view, owner := vocab.RightsOf(vocab.RightView), vocab.RightsOf(vocab.RightOwner)
	for r := range vocab.Right(14) {
		if !owner.Has(r) {
			t.Errorf("OWNER does not imply %s", r)
		}
		if view.Has(r) != (r == vocab.RightView) {
			t.Errorf("VIEW and %s: only OWNER implies anything", r)
		}
		if back, err := vocab.ParseRight(strings.ToLower(r.String())); err != nil || back != r {
			t.Errorf("%s reads back as %s, %v", r, back, err)
		}
	}
	if owner.Effective() != vocab.AllRights || len(vocab.AllRights.List()) != 14 {
		t.Error("OWNER amounts to all fourteen")
	}
	if (vocab.AllRights + 1).Valid() || vocab.Right(14).Valid() || owner.Has(14) {
		t.Error("a fifteenth right is none")
	}
	if _, err := vocab.ParseRight("VIEW "); err == nil {
		t.Error("a right with a space was taken")
	}
}

// A secret shows nothing of itself, however it is printed.
func TestSecretDoesNotPrint(t *testing.T) {
	raw := []byte("TEST VALUE: 32 bytes, not secret")
	s := vocab.SecretFrom(raw)
	j, err := json.Marshal(map[string]any{"s": s, "v": *s})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "v", *s)
	for how, text := range map[string]string{
		"%v": fmt.Sprintf("%v %v", s, *s), "%+v": fmt.Sprintf("%+v", s), "%#v": fmt.Sprintf("%#v %#v", s, *s),
		"String": s.String(), "json": string(j), "slog": log.String(),
	} {
		if strings.Contains(text, "TEST VALUE") || strings.Contains(text, "84, 69, 83, 84") || strings.Contains(text, "0x54, 0x45") {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
	if c := s.Clone(); !c.Equal(s) {
		t.Error("a clone differs")
	}
	s.Zero()
	if string(s.Reveal()) != string(make([]byte, vocab.SecretSize)) {
		t.Error("Zero left something")
	}
	if vocab.SecretFrom(raw[:31]) != nil {
		t.Error("31 bytes were taken for a secret")
	}
}

func TestError(t *testing.T) {
	cause := errors.New("for the operator")
	err := fmt.Errorf("around: %w", vocab.Errorf(vocab.ReasonNoRights, "no rights").WithNext("Ask").Because(cause))
	if !errors.Is(err, vocab.ReasonNoRights) || errors.Is(err, vocab.ReasonInternal) || !errors.Is(err, cause) {
		t.Error("an error is its reason and has its cause")
	}
	if strings.Contains(err.Error(), cause.Error()) {
		t.Error("the cause is shown to the caller")
	}
	if vocab.ReasonOf(err) != vocab.ReasonNoRights || vocab.ReasonOf(cause) != vocab.ReasonInternal || vocab.ReasonOf(nil) != "" {
		t.Error("the reason of an error is not its own")
	}
}
