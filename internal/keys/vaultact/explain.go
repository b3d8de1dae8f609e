package vaultact

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/vocab"
)

// sentence is an error without its next step and reason.
func sentence(err error) string {
	if e, ok := errors.AsType[*vocab.Error](err); ok {
		return e.Message
	}
	return err.Error()
}

func noKey(name string) *vocab.Error {
	return vocab.Errorf(vocab.ReasonKeyState, "there is no key %s in Vault", name).WithNext("Check mount and name, or make the key first")
}

// explain turns what Vault answered into an error for the person at the
// terminal, who can read Vault's own words and knows the keys.
func (a *act) explain(ans *vault.Answer, err error, method, path, doing string) error {
	if err == nil {
		return nil
	}
	changes := method != http.MethodGet
	r, refused := errors.AsType[*vault.Refused](err)
	switch {
	case refused:
		return a.refused(r, method, path, doing)
	case ans != nil && len(ans.Warnings) > 0:
		return vocab.Errorf(vocab.ReasonCustodyIntegrity, "Vault was asked to %s and warns: %.300q", doing, ans.Warnings).
			WithNext("Look at the key in Vault before you use it; if in doubt, do not").Because(err)
	case changes && (errors.Is(err, vocab.ReasonCustodianUnreachable) || errors.Is(err, context.Canceled)):
		return vocab.Errorf(vocab.ReasonCustodianUnreachable, "Vault did not answer when asked to %s: it may have done it or not", doing).
			WithNext("Look at the key in Vault before you try again").Because(err)
	}
	return err
}

// words in Vault's errors, and what they mean. Vault answers 500 to several of
// them; all are the same when tried again.
var words = []struct {
	has    string
	reason vocab.Reason
	says   string // %s: the key
	next   string
}{
	{
		"import path cannot be used with an existing key", vocab.ReasonResourceExists, "key %s exists already",
		"Choose another name; a new version of an imported key is imported as a version",
	},
	{
		"can only be used with an imported key", vocab.ReasonKeyState, "key %s was made or rotated in Vault, which then takes no version from outside",
		"Import yours under another name, register and activate it",
	},
	{"does not allow rotation within vault", vocab.ReasonKeyState, "key %s was imported without leave to be rotated", "Import a new version of it"},
	{"no key found", vocab.ReasonKeyState, "there is no key %s in Vault", "Check mount and name, or import it as a new key"},
	{"key not found", vocab.ReasonKeyState, "there is no key %s in Vault", "Check mount and name"},
	{"no existing key", vocab.ReasonKeyState, "there is no key %s in Vault", "Check mount and name"},
	{"could not delete key; not found", vocab.ReasonKeyState, "there is no key %s in Vault", "Check mount and name"},
	{"deletion is not allowed", vocab.ReasonKeyState, "Vault does not let key %s be deleted", "Somebody took the leave back meanwhile: ask who"},
	{
		"crypto/rsa: decryption error", vocab.ReasonRequestInvalid, "Vault cannot open what was wrapped for key %s",
		"It was wrapped for another key than this mount's wrapping key, or with another hash function than was named: compare the wrapping key's fingerprint, then wrap again",
	},
	{
		"unwrap failed integrity check", vocab.ReasonRequestInvalid, "Vault opens the RSA part for key %s, but not what follows it",
		"It is damaged, or not AES key wrap with padding (RFC 5649): wrap again with CKM_RSA_AES_KEY_WRAP",
	},
	{"invalid key size", vocab.ReasonRequestInvalid, "what was wrapped for key %s is not 32 bytes", "Make an AES-256 key and wrap that"},
	{"ciphertext is too short", vocab.ReasonRequestInvalid, "what was wrapped for key %s is cut short", "Bring the whole file"},
}

func (a *act) refused(r *vault.Refused, method, path, doing string) error {
	text := strings.ToLower(r.Text)
	name, _, _ := strings.Cut(strings.TrimPrefix(path, "keys/"), "/")
	switch {
	case r.Status == http.StatusForbidden && strings.Contains(text, "invalid token"):
		return vocab.Errorf(vocab.ReasonCustodianRefused, "Vault does not know your token: it has expired, was revoked, or is another Vault's").
			WithNext("Log in again with `vault login`").Because(r)
	case r.Status == http.StatusForbidden:
		return vocab.Errorf(vocab.ReasonCustodianRefused, "your Vault token may not %s", doing).
			WithNext("It needs from %s: %s, with the parameters that stand there", a.policy, policyLine(a.c.cfg.Mount, method, path)).Because(r)
	case r.Status == http.StatusNotFound && strings.Contains(text, "no handler for route"):
		return vocab.Errorf(vocab.ReasonKeyState, "there is no transit mount %s in this Vault", a.c.cfg.Mount).
			WithNext("Check the mount, or have the Vault administrator make it").Because(r)
	case r.Status == http.StatusNotFound:
		return noKey(name).Because(r)
	case r.Status == http.StatusBadRequest || strings.Contains(text, "1 error occurred"):
		for _, w := range words {
			if strings.Contains(text, w.has) {
				return vocab.Errorf(w.reason, w.says, name).WithNext("%s", w.next).Because(r)
			}
		}
		return vocab.Errorf(vocab.ReasonRequestInvalid, "Vault does not %s: it says %.300q", doing, r.Text).Because(r)
	}
	return r.Unwrap()
}

// policyLine is what would allow a request, as it stands in deploy/vault.
func policyLine(mount, method, path string) string {
	capability := map[string]string{http.MethodGet: "read", http.MethodPost: "update", http.MethodDelete: "delete"}[method]
	if rest, ok := strings.CutPrefix(path, "keys/"); ok {
		_, act, more := strings.Cut(rest, "/")
		path = "keys/+"
		if more {
			path += "/" + act
		}
	}
	return fmt.Sprintf(`path "%s/%s" { capabilities = ["%s"] }`, mount, path, capability)
}
