package byok

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// object takes a JSON object apart. Names are compared exactly and may occur
// once: what one reader takes for the key, no other must take for something else.
func object(b []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	o := make(map[string]json.RawMessage)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		s, _ := name.(string)
		if _, twice := o[s]; twice {
			return nil, fmt.Errorf("member %.40q occurs twice", s)
		}
		o[s] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the JSON value")
	}
	return o, nil
}

// clearObject overwrites the values, one of which may be a key.
func clearObject(o map[string]json.RawMessage) {
	for _, v := range o {
		clear(v)
	}
}

// word returns a member that is short printable text, "" if it is not there or
// is something else.
func word(o map[string]json.RawMessage, name string) string {
	var s string
	if json.Unmarshal(o[name], &s) != nil || len(s) > 512 || !printable([]byte(s)) {
		return ""
	}
	return s
}

func badJSON(what string, cause error) error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, "this is meant to be %s and is not well-formed", what).
		WithNext("Export it again; do not edit it by hand").Because(cause)
}

func parseJSON(text []byte) (*Material, error) {
	o, err := object(text)
	if err != nil {
		return nil, badJSON("JSON", err)
	}
	defer clearObject(o)
	has := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { _, ok := o[n]; return ok })
	}
	switch {
	case has("schema_version"):
		return parseAzure(o)
	case has("kty"):
		return parseJWK(o)
	case has("primaryKeyId", "encryptedKeyset"):
		return nil, refuse("a Tink keyset", "Bring a key that was made for this, as 32 random bytes")
	case has("policy", "archived_keys"):
		return nil, refuse("a plaintext backup of a key in Vault", adviseBackup)
	case has("request_id", "lease_id", "client_token", "root_token", "unseal_keys_b64"):
		return nil, refuse("an answer of Vault's", "Bring the key itself, or what your HSM wrapped for Vault")
	case has("protected", "recipients", "encrypted_key"):
		return nil, refuse("an encrypted JSON object (JWE)", "Decrypt it where its key is, or let your HSM wrap the key for Vault")
	case has("keys"):
		var set []json.RawMessage
		if err := json.Unmarshal(o["keys"], &set); err != nil {
			return nil, badJSON("a set of JSON Web Keys", err)
		}
		defer func() {
			for _, k := range set {
				clear(k)
			}
		}()
		if len(set) != 1 {
			return nil, refuse(fmt.Sprintf("a set of %d JSON Web Keys", len(set)), "Take the one that is meant out of it")
		}
		key, err := object(set[0])
		if err != nil {
			return nil, badJSON("a JSON Web Key", err)
		}
		defer clearObject(key)
		return parseJWK(key)
	}
	return nil, refuse("JSON of an unknown kind", adviseForms)
}

// parseJWK reads a key of type oct (RFC 7518 section 6.4) for AES-256. One that
// says it is used for something else stays there: a key has one use.
func parseJWK(o map[string]json.RawMessage) (*Material, error) {
	switch kty := word(o, "kty"); kty {
	case "oct":
	case "RSA", "EC", "OKP":
		return nil, refuse("a JSON Web Key of type "+kty, adviseAsymmetric)
	default:
		return nil, refuse("a JSON Web Key of an unknown type", "It must be of type oct")
	}
	if _, ok := o["alg"]; ok && !slices.Contains([]string{"A256GCM", "A256GCMKW", "A256KW", "dir"}, word(o, "alg")) {
		return nil, refuse(fmt.Sprintf("a JSON Web Key for %.20q", word(o, "alg")), "Bring a key that is used for nothing else")
	}
	var ops []string
	if raw, ok := o["key_ops"]; ok {
		if err := json.Unmarshal(raw, &ops); err != nil {
			return nil, badJSON("a JSON Web Key", err)
		}
	}
	if word(o, "use") == "sig" || slices.Contains(ops, "sign") || slices.Contains(ops, "verify") {
		return nil, refuse("a JSON Web Key for signing", "Bring a key that is used for nothing else")
	}
	decoded, err := base64URL(o["k"])
	if err != nil {
		return nil, badJSON("a JSON Web Key", err)
	}
	defer clear(decoded)
	if len(decoded) != vocab.SecretSize {
		return nil, wrongSize(len(decoded), " in a JSON Web Key")
	}
	return plain(FormJWK, decoded)
}

// base64URL decodes a JSON string of base64url without padding, without making
// a string of it.
func base64URL(raw json.RawMessage) ([]byte, error) {
	if len(raw) < 3 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return nil, errors.New("no base64url text")
	}
	inner := raw[1 : len(raw)-1]
	if bytes.ContainsAny(inner, "+/=\\ \t\r\n") {
		return nil, errors.New("not base64url without padding")
	}
	decoded := fromBase64(inner)
	if decoded == nil {
		return nil, errors.New("not base64url")
	}
	return decoded, nil
}

// parseAzure reads a key transfer blob of Azure Key Vault's BYOK specification:
// the same construction as Vault's, with SHA-1 in OAEP. Made with Vault's
// wrapping key as the key exchange key, it can be imported; made for Azure it
// can be opened in Azure's HSMs only, which nobody can see from here.
func parseAzure(o map[string]json.RawMessage) (*Material, error) {
	const what = "an Azure key transfer file"
	if v := word(o, "schema_version"); v != "1.0.0" {
		return nil, refuse(fmt.Sprintf("%s of version %.20q", what, v), "This reads version 1.0.0")
	}
	h, err := object(o["header"])
	if err != nil {
		return nil, badJSON(what, fmt.Errorf("header: %w", err))
	}
	if word(h, "alg") != "dir" || word(h, "enc") != "CKM_RSA_AES_KEY_WRAP" {
		return nil, refuse(fmt.Sprintf("%s with wrapping %.40q", what, word(h, "enc")), "It must be made with CKM_RSA_AES_KEY_WRAP")
	}
	blob, err := base64URL(o["ciphertext"])
	if err != nil {
		return nil, badJSON(what, fmt.Errorf("ciphertext: %w", err))
	}
	if len(blob) != BlobSize {
		return nil, wrongBlob(len(blob), what)
	}
	m := wrapped(FormAzure, blob, SHA1)
	m.WrappedFor, m.Generator = word(h, "kid"), word(o, "generator")
	return m, nil
}
