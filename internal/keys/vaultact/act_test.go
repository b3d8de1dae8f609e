package vaultact_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/openrms/rms/internal/keys/byok"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/keys/vaultact"
	"github.com/openrms/rms/internal/vocab"
)

// fake answers what a real Vault cannot be made to. Answers stand by method and
// path; a list is used up one by one, its last stays.
type fake struct {
	mu   sync.Mutex
	on   map[string][]string // "STATUS body", or "" for no answer
	seen []string
	auth []string // tokens that were shown, by request
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	request := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1/")
	f.seen = append(f.seen, request)
	f.auth = append(f.auth, r.Header.Get("X-Vault-Token"))
	answers := f.on[request]
	if len(answers) == 0 {
		answers = []string{`404 {"errors":[]}`}
	}
	if len(answers) > 1 {
		f.on[request] = answers[1:]
	}
	if answers[0] == "" {
		return nil, io.ErrUnexpectedEOF
	}
	status, body, _ := strings.Cut(answers[0], " ")
	var code int
	_, _ = fmt.Sscan(status, &code)
	h := http.Header{"Location": {"https://elsewhere.example/v1/" + strings.TrimPrefix(r.URL.Path, "/v1/")}}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

const healthy = `200 {"initialized":true,"sealed":false,"version":"1.21.0","cluster_id":"c"}`

func keyObject(change string) string {
	o := map[string]any{
		"name": "k", "type": "aes256-gcm96", "derived": true, "kdf": "hkdf_sha256", "exportable": false, "allow_plaintext_backup": false, "deletion_allowed": false,
		"latest_version": 1, "min_decryption_version": 1, "min_encryption_version": 0, "min_available_version": 0, "keys": map[string]int{"1": 1795364836},
	}
	_ = json.Unmarshal([]byte("{"+change+"}"), &o)
	b, _ := json.Marshal(map[string]any{"request_id": "id", "data": o})
	return "200 " + string(b)
}

func (f *fake) client(t *testing.T) *vaultact.Client {
	t.Helper()
	if f.on["GET sys/health"] == nil {
		f.on["GET sys/health"] = []string{healthy}
	}
	token, err := vaultact.TokenFrom([]byte("token-of-a-test"))
	must(t, err)
	c, err := vaultact.Open(vaultact.Config{
		Endpoint: vault.Endpoint{Address: "https://vault.example:8200", ClusterID: "c", Transport: f}, Mount: "m", Token: token,
	})
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

func (f *fake) count(request string) (n int) {
	for _, s := range f.seen {
		if s == request {
			n++
		}
	}
	return n
}

// TestUncertain: what is not answered may have happened. It is said so, and not
// tried again.
func TestUncertain(t *testing.T) {
	for name, answer := range map[string]string{"no answer": "", "not Vault's answer": "200 <html>"} {
		f := &fake{on: map[string][]string{"GET m/keys/k": {keyObject("")}, "POST m/keys/k/rotate": {answer}}}
		d, err := f.client(t).Rotate(t.Context(), "k", false)
		refusedAs(t, err, vocab.ReasonCustodianUnreachable, "may have done it or not", "before you try again")
		if f.count("POST m/keys/k/rotate") != 1 || d.Before == nil || d.Key != nil || len(d.Requests) != 1 {
			t.Errorf("%s: %v, %+v", name, f.seen, d)
		}
	}
	f := &fake{on: map[string][]string{"GET m/keys/k": {""}}}
	_, err := f.client(t).ReadKey(t.Context(), "k")
	refusedAs(t, err, vocab.ReasonCustodianUnreachable, "cannot be reached", "later")
}

// TestAnswers are answers that no honest act gets.
func TestAnswers(t *testing.T) {
	rotated := keyObject(`"latest_version":2`)
	rotate := func(answer string, after ...string) func(*testing.T) error {
		return func(t *testing.T) error {
			f := &fake{on: map[string][]string{"GET m/keys/k": append([]string{keyObject("")}, after...), "POST m/keys/k/rotate": {answer}}}
			_, err := f.client(t).Rotate(t.Context(), "k", false)
			if n := f.count("POST m/keys/k/rotate"); n != 1 {
				t.Errorf("rotated %d times", n)
			}
			for i, request := range f.seen {
				if shown := f.auth[i] != ""; shown == (request == "GET sys/health") {
					t.Errorf("%s was shown token %q", request, f.auth[i])
				}
			}
			return err
		}
	}
	create := func(after string) func(*testing.T) error {
		return func(t *testing.T) error {
			f := &fake{on: map[string][]string{"GET m/keys/k": {`404 {"errors":[]}`, after}, "POST m/keys/k": {`200 {"request_id":"id","data":{}}`}}}
			_, err := f.client(t).Create(t.Context(), vaultact.NewKey{Name: "k", Kind: vaultact.Root})
			return err
		}
	}
	public := func(t *testing.T) string {
		b, err := os.ReadFile(filepath.Join("testdata", "wrapping-key.json"))
		must(t, err)
		return "200 " + string(b)
	}
	bring := func(answer, before, after string) func(*testing.T) error {
		return func(t *testing.T) error {
			f := &fake{on: map[string][]string{
				"GET m/keys/k": {before, after}, "GET m/wrapping_key": {public(t)}, "POST m/keys/k/import": {answer}, "POST m/keys/k/import_version": {answer},
			}}
			m, err := byok.Parse([]byte("9fa36bd3c0e37ab11b7cfdbfc3c8b1e5e0bfa7a7d1e7a9f0b1d35f7a6f2c4d19"))
			must(t, err)
			c := f.client(t)
			if strings.HasPrefix(before, "404") {
				_, err = c.Import(t.Context(), "k", vaultact.Brought{Material: m})
			} else {
				_, err = c.ImportVersion(t.Context(), "k", vaultact.Brought{Material: m})
			}
			return err
		}
	}
	const none, imported = `404 {"errors":[]}`, `"imported_key":true,"imported_key_allow_rotation":true`
	for name, c := range map[string]struct {
		do            func(*testing.T) error
		reason        vocab.Reason
		says, advises string
	}{
		"as it should be":             {rotate(`200 {"request_id":"id"}`, rotated), "", "", ""},
		"a warning":                   {rotate(`200 {"request_id":"id","warnings":["ignored: x"]}`), vocab.ReasonCustodyIntegrity, `warns: ["ignored: x"]`, "Look at the key"},
		"a redirect":                  {rotate(`307 {}`), vocab.ReasonCustodianUnreachable, "", ""},
		"sealed":                      {rotate(`503 {"errors":["Vault is sealed"]}`), vocab.ReasonCustodianSealed, "sealed", ""},
		"too busy":                    {rotate(`429 {"errors":[]}`), vocab.ReasonOverloaded, "", ""},
		"failed":                      {rotate(`500 {"errors":["disk full"]}`), vocab.ReasonInternal, "", ""},
		"words nobody knows":          {rotate(`400 {"errors":["strange"]}`), vocab.ReasonRequestInvalid, `"strange"`, ""},
		"no new version":              {rotate(`200 {"request_id":"id"}`, keyObject("")), vocab.ReasonCustodyIntegrity, "", ""},
		"cannot be read again":        {rotate(`200 {"request_id":"id"}`, `403 {"errors":["permission denied"]}`), vocab.ReasonCustodianRefused, "did it", "before you use it"},
		"gone":                        {rotate(`200 {"request_id":"id"}`, none), vocab.ReasonCustodyIntegrity, "", ""},
		"another name":                {rotate(`200 {"request_id":"id"}`, keyObject(`"name":"other"`)), vocab.ReasonCustodyIntegrity, "", ""},
		"too large":                   {rotate(`200 "` + strings.Repeat("x", 5<<20)), vocab.ReasonCustodianUnreachable, "may have done it", ""},
		"no mount":                    {rotate(`404 {"errors":["no handler for route \"m/keys/k\". route entry not found."]}`), vocab.ReasonKeyState, "no transit mount m", ""},
		"made":                        {create(keyObject("")), "", "", ""},
		"made, and not derived":       {create(keyObject(`"derived":false`)), vocab.ReasonKeyAttributesUnsafe, "not derived", ""},
		"made, and exportable":        {create(keyObject(`"exportable":true`)), vocab.ReasonKeyAttributesUnsafe, "exportable", ""},
		"made, and imported":          {create(keyObject(imported)), vocab.ReasonKeyState, "was imported", "another name"},
		"made, and open to deletion":  {create(keyObject(`"deletion_allowed":true`)), vocab.ReasonKeyState, "may be deleted", "another name"},
		"made, and rotated":           {create(rotated), vocab.ReasonKeyState, "at version 2", "another name"},
		"made, and rotates by itself": {create(keyObject(`"auto_rotate_period":3600`)), vocab.ReasonKeyState, "rotates by itself every 1h0m0s", "another name"},
		"imported":                    {bring("204 ", none, keyObject(imported)), "", "", ""},
		"imported, and not so marked": {bring("204 ", none, keyObject("")), vocab.ReasonKeyState, "not an imported one any more", "who"},
		"imported, and not derived":   {bring("204 ", none, keyObject(imported+`,"derived":false`)), vocab.ReasonKeyAttributesUnsafe, "not derived", ""},
		"imported, never to rotate":   {bring("204 ", none, keyObject(`"imported_key":true`)), vocab.ReasonKeyState, "other attributes", "who"},
		"imported by two at a time":   {bring("204 ", none, keyObject(imported+`,"latest_version":2`)), vocab.ReasonKeyState, "version 2, and 1 was expected", "who"},
		"imported while it is made":   {bring(`500 {"errors":["1 error occurred:\n\t* the import path cannot be used with an existing key; use x\n\n"]}`, none, none), vocab.ReasonResourceExists, "k exists", "another name"},
		"rotated while it is brought": {bring(`500 {"errors":["1 error occurred:\n\t* the import_version endpoint can only be used with an imported key\n\n"]}`, keyObject(imported), none), vocab.ReasonKeyState, "made or rotated", "another name"},
		"brought":                     {bring("204 ", keyObject(imported), keyObject(imported+`,"latest_version":2`)), "", "", ""},
		"brought to an unsafe key":    {bring("204 ", keyObject(imported+`,"exportable":true`), none), vocab.ReasonKeyAttributesUnsafe, "exportable", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.do(t); c.reason == "" {
				must(t, err)
			} else {
				refusedAs(t, err, c.reason, c.says, c.advises)
			}
		})
	}
}

// TestEnvironment: what the Vault command line would take from its environment is
// not taken.
func TestEnvironment(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "token-of-the-environment")
	t.Setenv("VAULT_ADDR", "https://elsewhere.example")
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	f := &fake{on: map[string][]string{"GET m/keys/k": {keyObject("")}}}
	_, err := f.client(t).ReadKey(t.Context(), "k")
	must(t, err)
	if f.auth[0] != "" || f.auth[1] != "token-of-a-test" {
		t.Errorf("tokens shown: %q", f.auth)
	}
}

func TestFindToken(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		must(t, os.Chmod(path, mode))
		return path
	}
	named, open := write("named", "token-a\n", 0o600), write("open", "token-b", 0o644)
	home, bare, shared := filepath.Join(dir, "home"), filepath.Join(dir, "bare"), filepath.Join(dir, "shared")
	for _, d := range []string{home, bare, shared} {
		must(t, os.Mkdir(d, 0o700))
	}
	write("home/.vault-token", "token-c", 0o600)
	write("shared/.vault-token", "token-d", 0o640)
	env := func(v string) func(string) string {
		return func(name string) string {
			if name == "VAULT_TOKEN" {
				return v
			}
			return ""
		}
	}
	for name, c := range map[string]struct {
		file, env, home string
		want            string // token, or reason
	}{
		"a named file before all":   {named, "token-e", home, "token-a"},
		"the variable before home":  {"", "token-e", home, "token-e"},
		"what vault login left":     {"", "", home, "token-c"},
		"a file others can read":    {open, "token-e", home, "CONFIGURATION_INVALID"},
		"a named file that is none": {filepath.Join(dir, "none"), "token-e", home, "CONFIGURATION_INVALID"},
		"an empty named file":       {write("empty", "\n", 0o600), "", home, "CONFIGURATION_INVALID"},
		"two lines":                 {write("two", "a\nb", 0o600), "", home, "CONFIGURATION_INVALID"},
		"too long":                  {write("long", strings.Repeat("a", 5000), 0o600), "", home, "CONFIGURATION_INVALID"},
		"a variable of two words":   {"", "token e", home, "CONFIGURATION_INVALID"},
		"home others can read":      {"", "", shared, "CONFIGURATION_INVALID"},
		"none anywhere":             {"", "", bare, "TOKEN_MISSING"},
		"no home":                   {"", "", "", "TOKEN_MISSING"},
	} {
		token, where, err := vaultact.FindToken(c.file, env(c.env), c.home)
		if err != nil {
			if string(vocab.ReasonOf(err)) != c.want || token != nil || strings.Contains(err.Error(), "token-") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		f := &fake{on: map[string][]string{"GET m/keys/k": {keyObject("")}, "GET sys/health": {healthy}}}
		client, err := vaultact.Open(vaultact.Config{Endpoint: vault.Endpoint{Address: "https://v.example", Transport: f}, Mount: "m", Token: token})
		must(t, err)
		_, err = client.ReadKey(t.Context(), "k")
		must(t, err)
		client.Close()
		if f.auth[1] != c.want || where == "" {
			t.Errorf("%s: token %q from %s", name, f.auth[1], where)
		}
		text, _ := json.Marshal(token)
		line := new(strings.Builder)
		slog.New(slog.NewTextHandler(line, nil)).Info("x", "token", token)
		for _, s := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s %x %q", token, *token, token, token, token, *token), string(text), line.String()} {
			if strings.Contains(s, "token-") || strings.Contains(s, fmt.Sprintf("%x", "token-")) {
				t.Errorf("%s: the token prints: %s", name, s)
			}
		}
		token.Zero()
	}
	if _, err := vaultact.Open(vaultact.Config{Endpoint: vault.Endpoint{Address: "https://v.example"}, Mount: "m"}); vocab.ReasonOf(err) != vocab.ReasonTokenMissing {
		t.Errorf("no token: %v", err)
	}
}
