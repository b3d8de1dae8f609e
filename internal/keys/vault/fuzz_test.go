package vault

import (
	"strconv"
	"testing"
)

// FuzzAnswer gives everything Vault sends, in every role it may come in, to the
// parsers: they must not panic, and what they accept must be what they promise.
// Seeds are answers of a real Vault 1.21.0, whole and spoilt.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{}`, `null`, `[]`, `{"request_id":"x"}{"y":1}`, `{"request_id":"\u0000"}`, `{"data":`,
		`{"request_id":"5b0f","data":{"batch_results":[{"plaintext":"QUJD","reference":"0"},{"error":"x","reference":"1"}]}}`,
		`{"request_id":"5b0f","data":{"batch_results":[{"plaintext":"QUJD","reference":"1"},{"ciphertext":"vault:v1:QUJD","reference":"1"}]}}`,
		`{"request_id":"5b0f","data":{"batch_results":[{"plaintext":"QUJD","reference":"-1"},{"reference":"7"}]}}`,
		`{"request_id":"5b0f","data":{"batch_results":[{"plaintext":"***","reference":"0"}]}}`,
		`{"warnings":["Endpoint ignored these unrecognized parameters: [x]"],"data":{}}`,
		`{"errors":["Vault is sealed"]}`, `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`,
		`{"errors":["ciphertext or signature version is disallowed by policy (too old)"]}`,
		`{"errors":["invalid ciphertext: version is too new"]}`, `{"errors":["cipher: message authentication failed"]}`,
		`{"errors":["encryption key not found"]}`, `{"errors":["local node not active but active cluster node not found"]}`,
		`{"auth":{"client_token":"hvs.x","lease_duration":1200,"renewable":true}}`,
		`{"data":{"signature":"vault:v1:` + sig64 + `"}}`, `{"data":{"signature":"vault:v1:QUJD"}}`,
		`{"initialized":true,"sealed":false,"standby":false,"version":"1.21.0","enterprise":false,"cluster_name":"v","cluster_id":"7c1e"}`,
		`{"initialized":true}`,
		`{"data":{"name":"root","type":"aes256-gcm96","derived":true,"kdf":"hkdf_sha256","convergent_encryption":false,"deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":2,"exportable":false,"allow_plaintext_backup":false,"supports_encryption":true,"auto_rotate_period":3600,"imported_key":false,"keys":{"1":1795364836,"2":1795364990}}}`,
		`{"data":{"name":"sign","type":"ed25519","derived":false,"deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":1,"exportable":false,"allow_plaintext_backup":false,"auto_rotate_period":0,"imported_key":false,"backup_info":{"time":"2026-01-01T00:00:00Z","version":1},"restore_info":null,"keys":{"1":{"creation_time":"2026-11-23T12:50:27.674Z","name":"ed25519","public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}}}`,
		`{"data":{"name":"sign","type":"ed25519","derived":false,"deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":1,"exportable":false,"allow_plaintext_backup":false,"keys":{"1":{"creation_time":"yesterday"}}}}`,
		`{"data":{"name":"sign","type":"ed25519","derived":false,"deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":1,"exportable":false,"allow_plaintext_backup":false,"keys":{"1":{"public_key":"AAAA"}}}}`,
		`{"data":{"name":"root","type":"aes256-gcm96","derived":true,"kdf":"","deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":2,"exportable":false,"allow_plaintext_backup":false,"keys":{"01":1}}}`,
		`{"data":{"name":"root","type":"aes256-gcm96","derived":false,"deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":2,"exportable":false,"allow_plaintext_backup":false,"keys":{"01":1}}}`,
		`{"data":{"name":"root","type":"aes256-gcm96","derived":false,"deletion_allowed":false,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"latest_version":2,"exportable":false,"allow_plaintext_backup":false,"keys":{"1":-5}}}`,
		`{"data":{"a/b":["deny"],"capabilities":["deny"]}}`, `{"data":{"a/b":[]}}`,
		`vault:v1:QUJD`, `vault:v12:`, `vault:v0:QUJD`, `vault:v99999999999:QUJD`, "vault:v1:QU\nJD", `vault:v1`, `vault:vx:QUJD`, `QUJD`,
	} {
		f.Add([]byte(s), 200)
	}
	for _, status := range []int{204, 307, 400, 403, 404, 429, 500, 501, 502, 503} {
		f.Add([]byte(`{"errors":["Vault is sealed"]}`), status)
		f.Add([]byte(`{"errors":["some thing too old not found"]}`), status)
		f.Add([]byte(`{"errors":[]}`), status)
	}
	f.Fuzz(func(t *testing.T, b []byte, status int) {
		if version, raw, err := parseVersioned(string(b)); err == nil && formatVersioned(version, raw) != string(b) {
			t.Errorf("%q has another spelling, %q", b, formatVersioned(version, raw))
		}
		if h, err := parseHealth(b); err == nil && (h.Sealed == nil || h.Initialized == nil) {
			t.Error("health without its state")
		}
		a, err := parseAnswer(b)
		if err != nil {
			return
		}
		_ = a.unwarned()
		if refusal(status, a.Errors) == nil {
			t.Error("an answer that is not a success is no error")
		}
		for _, e := range a.Errors {
			if itemError(e) == nil {
				t.Error("an item's error is none")
			}
		}
		for n := range 3 {
			items, err := parseBatch(a.Data, n)
			if err == nil && len(items) != n {
				t.Errorf("batch of %d has %d items", n, len(items))
			}
			for i := range items {
				if items[i].Reference != strconv.Itoa(i) {
					t.Errorf("item %d is %q", i, items[i].Reference)
				}
			}
		}
		if k, err := parseKey(a.Data); err == nil {
			last := uint32(0)
			for _, v := range k.Versions {
				if v.Version <= last || v.Version > k.Latest || v.PublicKey != nil && len(v.PublicKey) != 32 {
					t.Errorf("version %+v after %d", v, last)
				}
				last = v.Version
			}
		}
		if _, raw, err := parseSignature(a.Data); err == nil && len(raw) != 64 {
			t.Error("signature that is none")
		}
		if caps, err := parseCapabilities(a.Data, []string{"a/b"}); err == nil && len(caps["a/b"]) == 0 {
			t.Error("path without capabilities")
		}
	})
}

// sig64 is 64 zero bytes.
const sig64 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="
