package vault

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// Everything Vault sends is read here and nowhere else. What does not have
// exactly the expected shape is an error, never a default.

// answer is the envelope of an answer.
type answer struct {
	RequestID string          `json:"request_id"`
	Data      json.RawMessage `json:"data"`
	Warnings  []string        `json:"warnings"`
	Auth      *authAnswer     `json:"auth"`
	Errors    []string        `json:"errors"` // of an answer that is not a success
}

type authAnswer struct {
	ClientToken   string `json:"client_token"`
	LeaseDuration int64  `json:"lease_duration"` // seconds, 0: no end
	Renewable     bool   `json:"renewable"`
}

// maxRequestID bounds what is believed to be an ID and ends up in logs.
const maxRequestID = 64

// decodeOne decodes exactly one JSON value.
func decodeOne(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON value")
	}
	return nil
}

func parseAnswer(b []byte) (*answer, error) {
	a := new(answer)
	if len(bytes.TrimSpace(b)) == 0 { // 204
		return a, nil
	}
	if err := decodeOne(b, a); err != nil {
		return nil, fmt.Errorf("answer is not Vault's: %w", err)
	}
	if len(a.RequestID) > maxRequestID || strings.ContainsFunc(a.RequestID, func(r rune) bool { return r < '!' || r > '~' }) {
		return nil, errors.New("answer with a request ID that is none")
	}
	return a, nil
}

// unwarned refuses an answer that says something was ignored.
func (a *answer) unwarned() error {
	if len(a.Warnings) > 0 {
		return keys.Integrity(fmt.Errorf("not all that Vault was asked was done: %q", a.Warnings))
	}
	return nil
}

// parseVersioned takes vault:vN:BASE64 apart: N from 1, standard base64 with
// padding, no other spelling of either.
func parseVersioned(s string) (uint32, []byte, error) {
	rest, ok := strings.CutPrefix(s, "vault:v")
	if !ok {
		return 0, nil, errors.New("no vault:v prefix")
	}
	number, encoded, ok := strings.Cut(rest, ":")
	if !ok || number == "" || number[0] < '1' || number[0] > '9' || strings.Trim(number, "0123456789") != "" {
		return 0, nil, errors.New("no version after vault:v")
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, nil, errors.New("version out of range")
	}
	if strings.ContainsAny(encoded, "\r\n") {
		return 0, nil, errors.New("line break in base64")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) == 0 {
		return 0, nil, errors.New("not base64 after the version")
	}
	return uint32(n), raw, nil
}

func formatVersioned(version uint32, raw []byte) string {
	return "vault:v" + strconv.FormatUint(uint64(version), 10) + ":" + base64.StdEncoding.EncodeToString(raw)
}

// batchItem is one result of a batch.
type batchItem struct {
	Plaintext  []byte `json:"plaintext"` // the decoder takes the base64 off; never a string, so that it can be cleared
	Ciphertext string `json:"ciphertext"`
	Reference  string `json:"reference"`
	Error      string `json:"error"`
}

// parseBatch returns the n results of a batch in the order of the requests,
// whatever their order here, by the reference each request carried.
func parseBatch(data json.RawMessage, n int) ([]batchItem, error) {
	var d struct {
		Results []batchItem `json:"batch_results"`
	}
	if err := decodeOne(data, &d); err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	if len(d.Results) != n {
		return nil, fmt.Errorf("batch of %d has %d results", n, len(d.Results))
	}
	items, seen := make([]batchItem, n), make([]bool, n)
	for _, r := range d.Results {
		i, err := strconv.Atoi(r.Reference)
		if err != nil || i < 0 || i >= n || seen[i] || strconv.Itoa(i) != r.Reference {
			return nil, fmt.Errorf("batch result with reference %.20q", r.Reference)
		}
		items[i], seen[i] = r, true
	}
	return items, nil
}

// health is the answer of sys/health, which has no envelope.
type health struct {
	Initialized *bool  `json:"initialized"`
	Sealed      *bool  `json:"sealed"`
	Version     string `json:"version"`
	Enterprise  bool   `json:"enterprise"`
	ClusterID   string `json:"cluster_id"`
}

func parseHealth(b []byte) (*health, error) {
	h := new(health)
	if err := decodeOne(b, h); err != nil {
		return nil, err
	}
	if h.Initialized == nil || h.Sealed == nil || len(h.ClusterID) > 128 || len(h.Version) > 128 {
		return nil, errors.New("answer is not Vault's health")
	}
	return h, nil
}

// parseKey reads a key object. Every attribute that makes a key safe must be
// there: an absent one is not taken for false.
func parseKey(data json.RawMessage) (*keys.KeyFacts, error) {
	var d struct {
		Name            string                     `json:"name"`
		Type            string                     `json:"type"`
		Derived         *bool                      `json:"derived"`
		Exportable      *bool                      `json:"exportable"`
		PlaintextBackup *bool                      `json:"allow_plaintext_backup"`
		DeletionAllowed *bool                      `json:"deletion_allowed"`
		Convergent      bool                       `json:"convergent_encryption"`
		Imported        bool                       `json:"imported_key"`
		ImportRotates   bool                       `json:"imported_key_allow_rotation"`
		KDF             string                     `json:"kdf"`
		Latest          *uint32                    `json:"latest_version"`
		MinDecryption   *uint32                    `json:"min_decryption_version"`
		MinEncryption   *uint32                    `json:"min_encryption_version"`
		MinAvailable    *uint32                    `json:"min_available_version"`
		AutoRotate      int64                      `json:"auto_rotate_period"`
		BackupInfo      json.RawMessage            `json:"backup_info"`
		RestoreInfo     json.RawMessage            `json:"restore_info"`
		Keys            map[string]json.RawMessage `json:"keys"`
	}
	if err := decodeOne(data, &d); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if d.Name == "" || d.Type == "" || d.Derived == nil || d.Exportable == nil || d.PlaintextBackup == nil || d.DeletionAllowed == nil ||
		d.Latest == nil || d.MinDecryption == nil || d.MinEncryption == nil || d.MinAvailable == nil || d.Keys == nil {
		return nil, errors.New("key without an attribute it must have")
	}
	if *d.Derived && d.KDF != "hkdf_sha256" {
		return nil, fmt.Errorf("derived key with KDF %.40q", d.KDF)
	}
	k := &keys.KeyFacts{
		Name: d.Name, Type: d.Type, Derived: *d.Derived, Convergent: d.Convergent, Exportable: *d.Exportable,
		PlaintextBackup: *d.PlaintextBackup, DeletionAllowed: *d.DeletionAllowed,
		Imported: d.Imported, ImportRotates: d.ImportRotates,
		BackedUp: present(d.BackupInfo), Restored: present(d.RestoreInfo),
		Latest: *d.Latest, MinDecryption: *d.MinDecryption, MinEncryption: *d.MinEncryption, MinAvailable: *d.MinAvailable,
		AutoRotate: time.Duration(min(max(d.AutoRotate, 0), 1<<32)) * time.Second,
	}
	for number, raw := range d.Keys {
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != number || uint32(n) > k.Latest {
			return nil, fmt.Errorf("key with version %.20q", number)
		}
		v, err := parseKeyVersion(raw, d.Type == "ed25519" && !k.Derived)
		if err != nil {
			return nil, fmt.Errorf("key version %d: %w", n, err)
		}
		v.Version = uint32(n)
		k.Versions = append(k.Versions, *v)
	}
	slices.SortFunc(k.Versions, func(a, b keys.KeyVersion) int { return int(int64(a.Version) - int64(b.Version)) })
	return k, nil
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// parseKeyVersion reads a creation time in seconds (symmetric keys) or an
// object with public key and creation time.
func parseKeyVersion(raw json.RawMessage, signs bool) (*keys.KeyVersion, error) {
	var seconds int64
	if json.Unmarshal(raw, &seconds) == nil {
		if seconds <= 0 || seconds > 253402300799 {
			return nil, errors.New("creation time out of range")
		}
		return &keys.KeyVersion{Created: time.Unix(seconds, 0).UTC()}, nil
	}
	var d struct {
		PublicKey string    `json:"public_key"`
		Created   time.Time `json:"creation_time"`
	}
	if err := decodeOne(raw, &d); err != nil {
		return nil, err
	}
	v := &keys.KeyVersion{Created: d.Created.UTC()}
	if signs { // other keys show a PEM or nothing, and are refused by their attributes
		public, err := base64.StdEncoding.Strict().DecodeString(d.PublicKey)
		if err != nil || len(public) != ed25519.PublicKeySize {
			return nil, errors.New("public key is not one of Ed25519")
		}
		v.PublicKey = public
	}
	return v, nil
}

// refusal classifies an answer that is not a success.
func refusal(status int, errs []string) error {
	text := strings.ToLower(strings.Join(errs, "; "))
	cause := fmt.Errorf("answer of Vault: HTTP %d: %.500s", status, text)
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case status == 403:
		return vocab.Errorf(vocab.ReasonCustodianRefused, "the tenant's key custodian refuses the use of the key").
			WithNext("This is the customer's own switch: ask the key custodian").Because(cause)
	case status == 503 && has("sealed"):
		return vocab.Errorf(vocab.ReasonCustodianSealed, "the tenant's Vault is sealed").
			WithNext("Try again after it was unsealed").Because(cause)
	case status == 503, status == 501, status == 472, status == 473, status == 307, status == 301, status == 302,
		status == 500 && has("active cluster node not found"), status == 500 && has("node not active"):
		return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the tenant's Vault is not available").
			WithNext("Try again later").Because(cause)
	case status == 429:
		return vocab.Errorf(vocab.ReasonOverloaded, "the tenant's Vault has too much to do").WithNext("Try again later").Because(cause)
	case status == 404:
		return vocab.Errorf(vocab.ReasonKeyState, "the tenant's key or mount does not exist in Vault").
			WithNext("Check mount and key names with the key custodian").Because(cause)
	case status == 400 || status == 200 || has("1 error occurred"):
		if err := refusedItem(text); err != nil {
			return err.Because(cause)
		}
	}
	if status >= 500 {
		return vocab.Errorf(vocab.ReasonInternal, "the tenant's Vault failed").WithNext("The log of Vault says why").Because(cause)
	}
	return vocab.Errorf(vocab.ReasonInternal, "the tenant's Vault did not accept a request").Because(cause)
}

// refusedItem classifies the text of an error about one ciphertext or
// signature; nil if it is none of those that are known.
func refusedItem(text string) *vocab.Error {
	text = strings.ToLower(text)
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("too old"):
		return vocab.Errorf(vocab.ReasonKeyState, "the custodian has withdrawn the version of the key that this needs").
			WithNext("Ask the key custodian; documents that need it open again only if it is given back")
	case has("too new"):
		return vocab.Errorf(vocab.ReasonCustodianChanged, "the custodian does not know a version of its own key yet").
			WithNext("It may have been restored from an old copy: tell the key custodian")
	case has("not found"):
		return vocab.Errorf(vocab.ReasonKeyState, "the tenant's key does not exist in Vault").
			WithNext("Check the key names with the key custodian")
	case has("message authentication failed"), has("invalid ciphertext"), has("unable to decrypt"):
		return keys.Integrity(errors.New(text))
	}
	return nil
}

// itemError is the error of one result of a batch.
func itemError(text string) error {
	cause := fmt.Errorf("answer of Vault: %.500s", text)
	if err := refusedItem(text); err != nil {
		return err.Because(cause)
	}
	return vocab.Errorf(vocab.ReasonInternal, "the tenant's Vault could not process one of its keys").Because(cause)
}
