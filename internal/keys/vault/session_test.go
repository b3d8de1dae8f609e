package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/vocab"
)

// What becomes of a login over hours, on a clock of the test's own: Vault's
// side is the fake's, and each case bends it as Vault was seen to behave.

// refusesLogin answers a login as Vault does when the secret ID is wrong.
func refusesLogin(*http.Request, []byte) (int, string) {
	return 400, `{"errors":["invalid role or secret ID"]}`
}

func unwrap(t *testing.T, k *vault.Key) vocab.Reason {
	t.Helper()
	return reason(t, k, aWrap())
}

// expectUse uses the key, and fails the test if that ends otherwise. What the
// fake decrypts is never the key, so that it ends well with CUSTODY_INTEGRITY.
func expectUse(t *testing.T, what string, k *vault.Key, expected vocab.Reason) {
	t.Helper()
	if expected == "" {
		expected = vocab.ReasonCustodyIntegrity
	}
	want(t, what, unwrap(t, k), expected)
}

// A secret ID that ran out is not tried again and again: Vault would lock the
// role out, and then a new one is refused as well.
func TestWrongSecretIDIsNotTriedUntilLockedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var logins []time.Time
		f.on["auth/approle/login"] = func(*http.Request, []byte) (int, string) {
			logins = append(logins, time.Now())
			return refusesLogin(nil, nil)
		}
		role, secret := credentials(t)
		k := f.key(t, vault.AppRole{RoleIDFile: role, SecretIDFile: secret})
		for end := time.Now().Add(6 * time.Hour); time.Now().Before(end); time.Sleep(2 * time.Second) {
			expectUse(t, "wrong secret ID", k, vocab.ReasonCustodianRefused)
		}
		row := 0 // failures that Vault counts together
		for i, at := range logins {
			if row++; i > 0 && at.Sub(logins[i-1]) > 15*time.Minute {
				row = 1
			}
			if row >= 5 {
				t.Fatalf("login %d of %d is the fifth that Vault counts", i, len(logins))
			}
		}
		if len(logins) < 20 {
			t.Errorf("%d logins in six hours: what is put right on Vault's side is not noticed", len(logins))
		}
		f.set(func() { delete(f.on, "auth/approle/login") })
		must(t, os.WriteFile(secret, []byte("another-secret-of-a-test"), 0o600))
		expectUse(t, "a new one is tried at once", k, "")
	})
}

// A refusal that is not about the credentials, an address that is not allowed
// say, is over soon after Vault's side was put right.
func TestRefusedLoginIsTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.on["auth/approle/login"] = func(*http.Request, []byte) (int, string) { return 403, `{"errors":["permission denied"]}` }
		k := f.open(t)
		for range 100 {
			expectUse(t, "refused", k, vocab.ReasonCustodianRefused)
			time.Sleep(time.Second)
		}
		f.set(func() { delete(f.on, "auth/approle/login") })
		time.Sleep(time.Second)
		expectUse(t, "put right", k, "")
	})
}

// credentials are files with a role ID and a secret ID.
func credentials(t *testing.T) (role, secret string) {
	t.Helper()
	dir := t.TempDir()
	role, secret = filepath.Join(dir, "role"), filepath.Join(dir, "secret")
	must(t, os.WriteFile(role, []byte("role-of-a-test\n"), 0o600))
	must(t, os.WriteFile(secret, []byte("secret-of-a-test\n"), 0o600))
	return role, secret
}

// wrappings is a fake that hands secret IDs out wrapped, and knows until when
// both are good.
type wrappings struct {
	*fake
	wrapped map[string]time.Time // wrapping tokens, until when
	secrets map[string]time.Time // secret IDs, until when
}

func newWrappings() *wrappings {
	w := &wrappings{newFake(), map[string]time.Time{}, map[string]time.Time{}}
	spent := func() (int, string) { return 400, `{"errors":["wrapping token is not valid or does not exist"]}` }
	w.on["sys/wrapping/lookup"] = func(_ *http.Request, body []byte) (int, string) {
		var asked struct{ Token string }
		_ = json.Unmarshal(body, &asked)
		if !time.Now().Before(w.wrapped[asked.Token]) {
			return spent()
		}
		return 200, `{"request_id":"w","data":{"creation_path":"auth/approle/role/rms/secret-id"}}`
	}
	w.on["sys/wrapping/unwrap"] = func(r *http.Request, _ []byte) (int, string) {
		token := r.Header.Get("X-Vault-Token")
		if !time.Now().Before(w.wrapped[token]) {
			return spent()
		}
		delete(w.wrapped, token)
		w.secrets["secret-in-"+token] = time.Now().Add(24 * time.Hour)
		return 200, fmt.Sprintf(`{"request_id":"u","data":{"secret_id":"secret-in-%s"}}`, token)
	}
	w.on["auth/approle/login"] = func(r *http.Request, body []byte) (int, string) {
		var asked struct {
			Secret string `json:"secret_id"`
		}
		_ = json.Unmarshal(body, &asked)
		if !time.Now().Before(w.secrets[asked.Secret]) {
			return refusesLogin(nil, nil)
		}
		return w.answer(r, "auth/approle/login", body)
	}
	return w
}

// deliver writes a wrapping token that is good for 10 minutes.
func (w *wrappings) deliver(t *testing.T, file, token string) {
	t.Helper()
	w.wrapped[token] = time.Now().Add(10 * time.Minute)
	must(t, os.WriteFile(file, []byte(token), 0o600))
}

// A secret ID that lives for a day is delivered anew in time, wrapped for
// minutes, while the old login still has hours: it must be taken before it runs
// out, or the next login finds neither.
func TestDeliveredSecretIDIsTakenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWrappings()
		role, secret := credentials(t)
		w.deliver(t, secret, "wrapping-0")
		k := w.key(t, vault.AppRole{Role: "rms", RoleIDFile: role, SecretIDFile: secret, Wrapped: true})
		expectUse(t, "first", k, "")
		for day := range 5 {
			time.Sleep(20 * time.Hour)
			w.deliver(t, secret, fmt.Sprintf("wrapping-%d", day+1))
			time.Sleep(4*time.Hour + time.Minute) // the one before has run out, and so has this wrapping
			synctest.Wait()
			w.set(func() { w.token = "" })
			expectUse(t, fmt.Sprintf("login on day %d", day+1), k, "")
		}
	})
}

// One that was spent on its way is an alarm, whoever asks about the login, and
// does not take away the one that is held.
func TestSpentDeliveryLeavesTheSecretIDHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWrappings()
		role, secret := credentials(t)
		w.deliver(t, secret, "wrapping-0")
		k := w.key(t, vault.AppRole{Role: "rms", RoleIDFile: role, SecretIDFile: secret, Wrapped: true})
		expectUse(t, "first", k, "")
		must(t, os.WriteFile(secret, []byte("wrapping-spent"), 0o600))
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := w.count("PUT sys/wrapping/lookup") + w.count("POST sys/wrapping/lookup"); n != 2 {
			t.Errorf("%d lookups, want one for each delivery: it is not tried again", n)
		}
		w.set(func() { w.token = "" })
		expectUse(t, "login with the one that is held", k, "")
		// At a start there is none that is held.
		again := w.key(t, vault.AppRole{Role: "rms", RoleIDFile: role, SecretIDFile: secret, Wrapped: true})
		_, err := again.Describe(t.Context())
		want(t, "at a start", vocab.ReasonOf(err), vocab.ReasonCustodyIntegrity)
	})
}

// A login that Vault does not let live longer is replaced before it ends: no
// call meets a token that ran out.
func TestLoginThatCannotBeRenewedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var born time.Time
		const longest = time.Hour
		f.on["auth/approle/login"] = func(r *http.Request, body []byte) (int, string) {
			born = time.Now()
			return f.answer(r, "auth/approle/login", body)
		}
		f.on["auth/token/renew-self"] = func(r *http.Request, _ []byte) (int, string) {
			left := min(20*time.Minute, longest-time.Since(born))
			if left <= 0 {
				return 403, `{"errors":["permission denied"]}`
			}
			return 200, fmt.Sprintf(`{"request_id":"r","auth":{"client_token":%q,"lease_duration":%d,"renewable":true}}`, r.Header.Get("X-Vault-Token"), int(left.Seconds()))
		}
		f.on["m/decrypt/root"] = func(r *http.Request, body []byte) (int, string) {
			if time.Since(born) > longest {
				t.Errorf("a token was used %s after it ran out", time.Since(born)-longest)
				return 403, `{"errors":["permission denied"]}`
			}
			return f.answer(r, "m/decrypt/root", body)
		}
		k := f.open(t)
		for range 24 * 60 {
			expectUse(t, "use", k, "")
			time.Sleep(time.Minute)
		}
		if f.logins < 24 || f.logins > 50 {
			t.Errorf("%d logins in a day of tokens that live an hour", f.logins)
		}
	})
}

// While renewals fail on Vault's side, the token is used until it ends; then
// there is a new login.
func TestRenewalFails(t *testing.T) {
	for name, answer := range map[string]string{
		"role deleted": `{"errors":["1 error occurred:\n\t* role \"rms\" does not exist during renewal"]}`,
		"defect":       `{"errors":["internal error"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.on["auth/token/renew-self"] = func(r *http.Request, _ []byte) (int, string) {
					f.mu.Lock()
					token := f.token
					f.mu.Unlock()
					if r.Header.Get("X-Vault-Token") != token {
						return 403, `{"errors":["permission denied"]}`
					}
					return 500, answer
				}
				k := f.open(t)
				expectUse(t, "at first", k, "")
				time.Sleep(19 * time.Minute)
				expectUse(t, "until it ends", k, "")
				if f.logins != 1 {
					t.Errorf("%d logins before the token ended", f.logins)
				}
				f.set(func() { f.token = "" })
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if f.logins != 2 {
					t.Errorf("%d logins, want a second one by itself when the token had ended", f.logins)
				}
				expectUse(t, "after it", k, "")
			})
		})
	}
}

// A lease of a second must not make a loop without pause.
func TestTinyLease(t *testing.T) {
	for name, renew := range map[string]func(*http.Request, []byte) (int, string){
		"renewed":       nil,
		"not renewable": func(*http.Request, []byte) (int, string) { return 400, `{"errors":["lease is not renewable"]}` },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.lease = 1
				if renew != nil {
					f.on["auth/token/renew-self"] = renew
				}
				k := f.open(t)
				expectUse(t, "use", k, "")
				time.Sleep(time.Minute)
				n := 0
				f.set(func() { n = len(f.log) })
				if n > 400 {
					t.Errorf("%d requests in a minute", n)
				}
			})
		})
	}
}

// A Vault Agent exchanges the token in its file: the old one is used while it
// is good, the new one at once when it is not.
func TestTokenFileIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.token = "token-one"
		f.on["auth/token/lookup-self"] = func(r *http.Request, _ []byte) (int, string) {
			if r.Header.Get("X-Vault-Token") != f.token {
				return 403, `{"errors":["permission denied"]}`
			}
			return 200, `{"request_id":"t","data":{"ttl":1200,"renewable":false}}`
		}
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte("token-one\n"), 0o600))
		c := connect(t, vault.Config{Address: "https://vault.test:8200", Mount: "m", Transport: f, TokenFile: file})
		k, err := c.Key(vocab.CustodianID{1}, "root", "sign")
		must(t, err)
		expectUse(t, "first", k, "")
		time.Sleep(time.Hour)
		expectUse(t, "an hour later", k, "")
		f.set(func() { f.token = "token-two" })
		expectUse(t, "revoked", k, vocab.ReasonCustodianRefused)
		must(t, os.WriteFile(file, []byte("token-two\n"), 0o600))
		expectUse(t, "exchanged", k, "")
	})
}

// Hours of absence in which the secret ID ran out as well: what is delivered
// afterwards is enough.
func TestAbsenceLongerThanTheSecretID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWrappings()
		role, secret := credentials(t)
		w.deliver(t, secret, "wrapping-0")
		k := w.key(t, vault.AppRole{Role: "rms", RoleIDFile: role, SecretIDFile: secret, Wrapped: true})
		expectUse(t, "first", k, "")
		w.set(func() { w.down = errors.New("connection refused") })
		time.Sleep(30 * time.Hour)
		expectUse(t, "absent", k, vocab.ReasonCustodianUnreachable)
		w.set(func() { w.down, w.token = nil, "" })
		time.Sleep(time.Minute)
		expectUse(t, "back", k, vocab.ReasonCustodianRefused)
		w.deliver(t, secret, "wrapping-1")
		time.Sleep(2 * time.Second)
		expectUse(t, "delivered", k, "")
	})
}
