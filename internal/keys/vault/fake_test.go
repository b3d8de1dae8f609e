package vault_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// fake answers as Vault would, for what a real one cannot be made to show. It
// is a transport, so that it runs on a test's own clock.
type fake struct {
	mu     sync.Mutex
	log    []string // method and path of every request
	header http.Header
	logins int
	token  string // that is good now
	lease  int
	// on overrides answers by path.
	on map[string]func(r *http.Request, body []byte) (int, string)
	// down makes every request fail on the way.
	down error
}

func newFake() *fake {
	return &fake{lease: 1200, on: map[string]func(*http.Request, []byte) (int, string){}}
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	f.mu.Lock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	f.log = append(f.log, r.Method+" "+path)
	f.header = r.Header.Clone()
	down, on := f.down, f.on[path]
	f.mu.Unlock()
	if down != nil {
		return nil, down
	}
	if on == nil {
		on = func(r *http.Request, body []byte) (int, string) { return f.answer(r, path, body) }
	}
	status, text := on(r, body)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

func (f *fake) answer(r *http.Request, path string, body []byte) (int, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch path {
	case "sys/health":
		return 200, `{"initialized":true,"sealed":false,"version":"1.21.0","cluster_id":"c"}`
	case "auth/approle/login":
		f.logins++
		f.token = fmt.Sprintf("token-of-a-test-%d", f.logins)
		return 200, fmt.Sprintf(`{"request_id":"l","auth":{"client_token":%q,"lease_duration":%d,"renewable":true}}`, f.token, f.lease)
	}
	if f.token == "" || r.Header.Get("X-Vault-Token") != f.token {
		return 403, `{"errors":["permission denied"]}`
	}
	switch path {
	case "auth/token/renew-self":
		return 200, fmt.Sprintf(`{"request_id":"r","auth":{"client_token":%q,"lease_duration":%d,"renewable":true}}`, f.token, f.lease)
	case "auth/token/revoke-self":
		return 204, ""
	case "m/decrypt/root":
		return 200, results(body, func(string) string { return `"plaintext":"AAAA"` })
	case "m/encrypt/root":
		c := base64.StdEncoding.EncodeToString(make([]byte, 92))
		return 200, results(body, func(string) string { return `"ciphertext":"vault:v1:` + c + `"` })
	}
	return 404, `{"errors":[]}`
}

// results answers a batch, each item by what of gives.
func results(body []byte, of func(reference string) string) string {
	var b struct {
		Items []struct{ Reference string } `json:"batch_input"`
	}
	_ = json.Unmarshal(body, &b)
	var out []string
	for _, it := range b.Items {
		out = append(out, fmt.Sprintf(`{%s,"reference":%q}`, of(it.Reference), it.Reference))
	}
	return `{"request_id":"id","data":{"batch_results":[` + strings.Join(out, ",") + `]}}`
}

func (f *fake) count(request string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.log {
		if l == request {
			n++
		}
	}
	return n
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) open(t *testing.T) *vault.Key {
	t.Helper()
	role, secret := credentials(t)
	return f.key(t, vault.AppRole{RoleIDFile: role, SecretIDFile: secret})
}

// key is the key whose wraps [aWrap] makes, on a connection of its own.
func (f *fake) key(t *testing.T, login vault.AppRole) *vault.Key {
	t.Helper()
	k, err := f.connect(t, login).Key(vocab.CustodianID{1}, "root", "sign")
	must(t, err)
	return k
}

func (f *fake) connect(t *testing.T, login vault.AppRole) *vault.Connection {
	t.Helper()
	return connect(t, vault.Config{Address: "https://vault.test:8200", Mount: "m", Transport: f, AppRole: &login})
}

func aWrap() keys.UnwrapItem {
	return keys.UnwrapItem{Binding: newItem().Binding, Wrap: license.Wrap{Custodian: vocab.CustodianID{1}, L0Type: license.L0AES, L0Version: 1, Ciphertext: make([]byte, 92)}}
}

// payloads answers a decrypt with the right payload of each item.
func payloads(items []keys.WrapItem, body []byte, order func([]string) []string) string {
	var out []string
	for i, it := range items {
		p := base64.StdEncoding.EncodeToString(it.Binding.Payload(it.Secret))
		out = append(out, fmt.Sprintf(`{"plaintext":%q,"reference":"%d"}`, p, i))
	}
	return `{"request_id":"id","data":{"batch_results":[` + strings.Join(order(out), ",") + `]}}`
}

func TestBatchAnswersInAnyOrder(t *testing.T) {
	f := newFake()
	v := f.open(t)
	items := []keys.WrapItem{newItem(), newItem(), newItem()}
	var wraps []keys.UnwrapItem
	for _, it := range items {
		w := aWrap()
		w.Binding = it.Binding
		wraps = append(wraps, w)
	}
	for name, c := range map[string]struct {
		order func([]string) []string
		whole vocab.Reason
	}{
		"as asked":  {func(s []string) []string { return s }, ""},
		"reordered": {func(s []string) []string { return []string{s[2], s[0], s[1]} }, ""},
		"one short": {func(s []string) []string { return s[:2] }, vocab.ReasonCustodyIntegrity},
		"one more":  {func(s []string) []string { return append(s, s[0]) }, vocab.ReasonCustodyIntegrity},
		"one twice": {func(s []string) []string { return []string{s[0], s[0], s[1]} }, vocab.ReasonCustodyIntegrity},
		"no reference": {func(s []string) []string {
			return []string{s[0], s[1], strings.Replace(s[2], `,"reference":"2"`, "", 1)}
		}, vocab.ReasonCustodyIntegrity},
		"strange reference": {func(s []string) []string { return []string{s[0], s[1], strings.Replace(s[2], `"2"`, `"02"`, 1)} }, vocab.ReasonCustodyIntegrity},
	} {
		f.on["m/decrypt/root"] = func(_ *http.Request, body []byte) (int, string) { return 200, payloads(items, body, c.order) }
		us, err := v.Unwrap(t.Context(), wraps)
		want(t, name, vocab.ReasonOf(err), c.whole)
		for i, u := range us {
			if u.Err != nil || !u.Secret.Equal(items[i].Secret) {
				t.Errorf("%s, item %d: %v", name, i, u.Err)
			}
		}
	}
	// References exchanged: the binding inside tells.
	f.on["m/decrypt/root"] = func(_ *http.Request, body []byte) (int, string) {
		return 200, payloads([]keys.WrapItem{items[1], items[0], items[2]}, body, func(s []string) []string { return s })
	}
	us, err := v.Unwrap(t.Context(), wraps)
	must(t, err)
	want(t, "exchanged 0", vocab.ReasonOf(us[0].Err), vocab.ReasonCustodyIntegrity)
	want(t, "exchanged 1", vocab.ReasonOf(us[1].Err), vocab.ReasonCustodyIntegrity)
	want(t, "in its place", vocab.ReasonOf(us[2].Err), "")
}

func TestAnswersThatAreNotAccepted(t *testing.T) {
	good := base64.StdEncoding.EncodeToString(make([]byte, 92))
	whole := func(status int, text string) func(*http.Request, []byte) (int, string) {
		return func(*http.Request, []byte) (int, string) { return status, text }
	}
	item := func(text string) func(*http.Request, []byte) (int, string) {
		return func(_ *http.Request, body []byte) (int, string) {
			return 200, results(body, func(string) string { return text })
		}
	}
	for name, c := range map[string]struct {
		answer func(*http.Request, []byte) (int, string)
		want   vocab.Reason
	}{
		"warning":            {whole(200, `{"request_id":"x","warnings":["Endpoint ignored these unrecognized parameters: [context]"],"data":{"batch_results":[{"ciphertext":"vault:v1:`+good+`","reference":"0"}]}}`), vocab.ReasonCustodyIntegrity},
		"no prefix":          {item(`"ciphertext":"` + good + `"`), vocab.ReasonCustodyIntegrity},
		"version 0":          {item(`"ciphertext":"vault:v0:` + good + `"`), vocab.ReasonCustodyIntegrity},
		"version 01":         {item(`"ciphertext":"vault:v01:` + good + `"`), vocab.ReasonCustodyIntegrity},
		"version +1":         {item(`"ciphertext":"vault:v+1:` + good + `"`), vocab.ReasonCustodyIntegrity},
		"version too large":  {item(`"ciphertext":"vault:v4294967296:` + good + `"`), vocab.ReasonCustodyIntegrity},
		"short ciphertext":   {item(`"ciphertext":"vault:v1:AAAA"`), vocab.ReasonCustodyIntegrity},
		"nothing in it":      {item(`"x":1`), vocab.ReasonCustodyIntegrity},
		"item error":         {item(`"error":"something new"`), vocab.ReasonInternal},
		"not JSON":           {whole(200, `<html>welcome to the hotel network</html>`), vocab.ReasonCustodianUnreachable},
		"two JSON values":    {whole(200, `{"request_id":"x"}{"request_id":"y"}`), vocab.ReasonCustodianUnreachable},
		"no content":         {whole(204, ""), vocab.ReasonCustodyIntegrity},
		"empty object":       {whole(200, "{}"), vocab.ReasonCustodyIntegrity},
		"hostile request ID": {whole(200, `{"request_id":"a\nb"}`), vocab.ReasonCustodianUnreachable},
		"larger than sane":   {whole(200, strings.Repeat(" ", 5<<20)), vocab.ReasonCustodianUnreachable},
		"redirect":           {whole(307, ""), vocab.ReasonCustodianUnreachable},
		"sealed":             {whole(503, `{"errors":["Vault is sealed"]}`), vocab.ReasonCustodianSealed},
		"overloaded":         {whole(503, `{"errors":["overloaded"]}`), vocab.ReasonCustodianUnreachable},
		"quota":              {whole(429, `{"errors":["rate limit"]}`), vocab.ReasonOverloaded},
		"internal":           {whole(500, `{"errors":["1 error occurred:\n\t* internal error"]}`), vocab.ReasonInternal},
		"bad gateway":        {whole(502, "bad"), vocab.ReasonInternal},
		"starting":           {whole(500, `{"errors":["local node not active but active cluster node not found"]}`), vocab.ReasonCustodianUnreachable},
		"bad request":        {whole(400, `{"errors":["unknown"]}`), vocab.ReasonInternal},
		"key missing":        {whole(400, `{"errors":["encryption key not found"]}`), vocab.ReasonKeyState},
		"no such mount":      {whole(404, `{"errors":["no handler for route"]}`), vocab.ReasonKeyState},
		"refused":            {whole(403, `{"errors":["permission denied"]}`), vocab.ReasonCustodianRefused},
	} {
		f := newFake()
		f.on["m/encrypt/root"] = c.answer
		ws, err := f.open(t).Wrap(t.Context(), []keys.WrapItem{newItem()})
		if err == nil {
			err = ws[0].Err
		}
		want(t, name, vocab.ReasonOf(err), c.want)
		if n := f.count("PUT m/encrypt/root") + f.count("POST m/encrypt/root"); n != 1 {
			t.Errorf("%s: asked %d times", name, n)
		}
		var shown string
		if err != nil {
			shown = err.Error()
		}
		if strings.Contains(shown, "hotel") || strings.Contains(shown, "something new") {
			t.Errorf("%s: the caller sees Vault's own text: %s", name, shown)
		}
	}
}

// What is read of the keys is what was asked for, and all of it counts.
func TestFactsThatAreNotAccepted(t *testing.T) {
	const rest = `"deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":1,"exportable":false,"allow_plaintext_backup":false`
	const root = `"name":"root","type":"aes256-gcm96","derived":true,"kdf":"hkdf_sha256",` + rest + `,"keys":{"1":1795364836}`
	const sign = `"name":"sign","type":"ed25519","derived":false,` + rest + `,"keys":{"1":{"creation_time":"2026-11-23T12:50:27Z","public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}`
	for name, c := range map[string]struct {
		root, envelope string
		describes, is  vocab.Reason // of reading, and of judging what was read
	}{
		"good":                  {root, ``, "", ""},
		"warning":               {root, `,"warnings":["something new"]`, vocab.ReasonCustodyIntegrity, ""},
		"another key":           {strings.Replace(root, `"root"`, `"other"`, 1), ``, vocab.ReasonCustodyIntegrity, ""},
		"without exportable":    {strings.Replace(root, `"exportable":false,`, ``, 1), ``, vocab.ReasonCustodyIntegrity, ""},
		"exportable":            {strings.Replace(root, `"exportable":false`, `"exportable":true`, 1), ``, "", vocab.ReasonKeyAttributesUnsafe},
		"plaintext backup":      {strings.Replace(root, `"allow_plaintext_backup":false`, `"allow_plaintext_backup":true`, 1), ``, "", vocab.ReasonKeyAttributesUnsafe},
		"backed up":             {root + `,"backup_info":{"time":"2026-01-01T00:00:00Z","version":1}`, ``, "", vocab.ReasonKeyAttributesUnsafe},
		"restored":              {root + `,"restore_info":{"time":"2026-01-01T00:00:00Z","version":1}`, ``, "", vocab.ReasonKeyAttributesUnsafe},
		"not derived":           {strings.Replace(root, `"derived":true`, `"derived":false`, 1), ``, "", vocab.ReasonKeyAttributesUnsafe},
		"another derivation":    {strings.Replace(root, `hkdf_sha256`, `hmac`, 1), ``, vocab.ReasonCustodyIntegrity, ""},
		"version beyond latest": {strings.Replace(root, `"1":`, `"2":`, 1), ``, vocab.ReasonCustodyIntegrity, ""},
	} {
		f := newFake()
		f.on["m/keys/root"] = func(*http.Request, []byte) (int, string) {
			return 200, `{"request_id":"k","data":{` + c.root + `}` + c.envelope + `}`
		}
		f.on["m/keys/sign"] = func(*http.Request, []byte) (int, string) { return 200, `{"request_id":"k","data":{` + sign + `}}` }
		facts, err := f.open(t).Describe(t.Context())
		want(t, name, vocab.ReasonOf(err), c.describes)
		if err == nil {
			want(t, name, vocab.ReasonOf(facts.Safe()), c.is)
		}
	}
}

func TestSignaturesThatAreNotAccepted(t *testing.T) {
	sig := base64.StdEncoding.EncodeToString(make([]byte, 64))
	for name, c := range map[string]struct {
		text string
		want vocab.Reason
	}{
		"good":            {`{"request_id":"s","data":{"signature":"vault:v2:` + sig + `"}}`, ""},
		"warning":         {`{"request_id":"s","warnings":["x"],"data":{"signature":"vault:v2:` + sig + `"}}`, vocab.ReasonCustodyIntegrity},
		"another version": {`{"request_id":"s","data":{"signature":"vault:v1:` + sig + `"}}`, vocab.ReasonCustodyIntegrity},
		"short":           {`{"request_id":"s","data":{"signature":"vault:v2:AAAA"}}`, vocab.ReasonCustodyIntegrity},
		"none":            {`{"request_id":"s","data":{}}`, vocab.ReasonCustodyIntegrity},
	} {
		f := newFake()
		f.on["m/sign/sign"] = func(*http.Request, []byte) (int, string) { return 200, c.text }
		_, err := f.open(t).Sign(t.Context(), 2, []byte("x"))
		want(t, name, vocab.ReasonOf(err), c.want)
	}
}

func TestEveryItemFailed(t *testing.T) {
	f := newFake()
	f.on["m/decrypt/root"] = func(*http.Request, []byte) (int, string) {
		return 400, `{"request_id":"id","data":{"batch_results":[{"error":"cipher: message authentication failed","reference":"1"},{"error":"ciphertext or signature version is disallowed by policy (too old)","reference":"0"}]}}`
	}
	us, err := f.open(t).Unwrap(t.Context(), []keys.UnwrapItem{aWrap(), aWrap()})
	must(t, err)
	want(t, "withdrawn", vocab.ReasonOf(us[0].Err), vocab.ReasonKeyState)
	want(t, "not authentic", vocab.ReasonOf(us[1].Err), vocab.ReasonCustodyIntegrity)
}

func TestNothingComesFromTheEnvironment(t *testing.T) {
	t.Setenv("VAULT_ADDR", "https://elsewhere.test")
	t.Setenv("VAULT_TOKEN", "token-of-somebody")
	t.Setenv("VAULT_NAMESPACE", "theirs")
	t.Setenv("VAULT_HEADERS", `{"X-Theirs":"1"}`)
	f := newFake()
	host := ""
	f.on["sys/health"] = func(r *http.Request, _ []byte) (int, string) {
		host = r.URL.Host
		for _, h := range []string{"X-Vault-Token", "X-Vault-Namespace", "X-Theirs"} {
			if got := r.Header.Get(h); got != "" {
				t.Errorf("%s: %s", h, got)
			}
		}
		if r.Header.Get("X-Vault-Request") != "true" {
			t.Error("no X-Vault-Request")
		}
		return 200, `{"initialized":true,"sealed":false,"cluster_id":"c"}`
	}
	if h := f.open(t).Health(t.Context()); !h.OK() || host != "vault.test:8200" {
		t.Errorf("%+v at %s", h, host)
	}
}

func TestRefusedTwiceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		v := f.open(t)
		_, err := v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
		must(t, err)
		time.Sleep(time.Minute)
		f.on["m/decrypt/root"] = func(*http.Request, []byte) (int, string) { return 403, `{"errors":["permission denied"]}` }
		before := f.count("POST m/decrypt/root")
		for range 10 {
			_, err = v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
			want(t, "refused", vocab.ReasonOf(err), vocab.ReasonCustodianRefused)
		}
		if n := f.count("POST m/decrypt/root") - before; n != 11 || f.logins != 2 {
			t.Errorf("10 refused calls made %d requests and %d logins, want 11 and 2 in all", n, f.logins)
		}
	})
}

func TestLoginIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		v := f.open(t)
		_, err := v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
		must(t, err)
		time.Sleep(24 * time.Hour)
		if n := f.count("PUT auth/token/renew-self") + f.count("POST auth/token/renew-self"); n < 72 || n > 150 || f.logins != 1 {
			t.Errorf("in a day with a lease of 20 minutes: %d renewals, %d logins", n, f.logins)
		}
	})
}

func TestHoursOfAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		v := f.open(t)
		_, err := v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
		must(t, err)
		f.set(func() { f.down = errors.New("connection refused"); f.log = nil })
		time.Sleep(6 * time.Hour)
		_, err = v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
		want(t, "absent", vocab.ReasonOf(err), vocab.ReasonCustodianUnreachable)
		n := 0
		f.set(func() { n = len(f.log) })
		if n < 100 || n > 2500 {
			t.Errorf("%d requests in six hours of absence", n)
		}
		f.set(func() { f.down = nil; f.token = "" }) // back, and has forgotten the login
		_, err = v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
		want(t, "the first call after it", vocab.ReasonOf(err), "")
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		_, err = v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
		want(t, "a day later", vocab.ReasonOf(err), "")
	})
}

func TestSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		v := f.open(t)
		f.on["m/decrypt/root"] = func(r *http.Request, body []byte) (int, string) {
			select {
			case <-time.After(time.Minute):
			case <-r.Context().Done():
			}
			return 200, "{}"
		}
		start := time.Now()
		_, err := v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()})
		want(t, "no answer", vocab.ReasonOf(err), vocab.ReasonCustodianUnreachable)
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("gave up after %s, want the timeout of 3 s", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Second); cancel() }()
		_, err = v.Unwrap(ctx, []keys.UnwrapItem{aWrap()})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("caller gave up: %v", err)
		}
	})
}

func TestManyCallersLogInOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		v := f.open(t)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if _, err := v.Unwrap(t.Context(), []keys.UnwrapItem{aWrap()}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if f.logins != 1 {
			t.Errorf("%d logins", f.logins)
		}
	})
}

func TestNoSecretInTheRequestLine(t *testing.T) {
	f := newFake()
	it := newItem()
	f.on["m/encrypt/root"] = func(r *http.Request, body []byte) (int, string) {
		if bytes.Contains([]byte(r.URL.String()), it.Secret.Reveal()) || r.URL.RawQuery != "" {
			t.Error("a secret could end up in an access log")
		}
		return 503, `{"errors":["Vault is sealed"]}`
	}
	_, _ = f.open(t).Wrap(t.Context(), []keys.WrapItem{it})
}
