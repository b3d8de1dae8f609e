package byok

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/vocab"
)

// The key of most tests: a test value.
var testKey = unhex("9fa36bd3c0e37ab11b7cfdbfc3c8b1e5e0bfa7a7d1e7a9f0b1d35f7a6f2c4d19")

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// testBlob is bytes of the right number; only Vault can tell more.
func testBlob(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		b[i] = sum[0] | 0x80
	}
	return b
}

var (
	b64    = base64.StdEncoding.EncodeToString
	b64url = base64.RawURLEncoding.EncodeToString
)

func azure(blob []byte, kid string) string {
	return `{"schema_version":"1.0.0","header":{"kid":"` + kid + `","alg":"dir","enc":"CKM_RSA_AES_KEY_WRAP"},"ciphertext":"` + b64url(blob) + `","generator":"Tool of a vendor; 1.2"}`
}

func jwk(members string) string { return `{"kty":"oct","k":"` + b64url(testKey) + `"` + members + `}` }

func TestParseTakes(t *testing.T) {
	hexKey := hex.EncodeToString(testKey)
	var colons []string
	for i := range testKey {
		colons = append(colons, hexKey[2*i:2*i+2])
	}
	blob := testBlob(BlobSize)
	for name, c := range map[string]struct {
		in   string
		form Form
	}{
		"32 bytes":                    {string(testKey), FormRaw},
		"hexadecimal":                 {hexKey, FormHex},
		"hexadecimal, upper case":     {strings.ToUpper(hexKey), FormHex},
		"hexadecimal and line break":  {hexKey + "\n", FormHex},
		"hexadecimal with 0x":         {"0x" + hexKey, FormHex},
		"hexadecimal with colons":     {strings.Join(colons, ":") + "\r\n", FormHex},
		"hexadecimal in two lines":    {hexKey[:32] + "\n" + hexKey[32:], FormHex},
		"base64":                      {b64(testKey), FormBase64},
		"base64 without padding":      {strings.TrimRight(b64(testKey), "=") + "\n", FormBase64},
		"base64url":                   {b64url(testKey), FormBase64},
		"base64 after a byte order":   {"\xef\xbb\xbf" + b64(testKey), FormBase64},
		"JSON Web Key":                {jwk(""), FormJWK},
		"JSON Web Key for AES-256":    {jwk(`,"alg":"A256GCM","use":"enc","key_ops":["encrypt","decrypt"],"kid":"2027"`), FormJWK},
		"JSON Web Key, more members":  {" " + jwk(`,"x-vendor":{"a":[1]}`) + "\n", FormJWK},
		"set of one JSON Web Key":     {`{"keys":[` + jwk("") + `]}`, FormJWK},
		"from an HSM":                 {string(blob), FormHSM},
		"from an HSM, in base64":      {b64(blob), FormHSM},
		"from an HSM, in hexadecimal": {hex.EncodeToString(blob), FormHSM},
		"Azure transfer file":         {azure(blob, "https://v.vault.azure.net/keys/KEK/0011"), FormAzure},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if m.Form != c.form {
				t.Errorf("recognised as %s, want %s", m.Form, c.form)
			}
			switch c.form {
			case FormHSM, FormAzure:
				if m.Key != nil || !bytes.Equal(m.Blob, blob) {
					t.Errorf("blob differs, or there is a key")
				}
			default:
				if m.Blob != nil || !bytes.Equal(m.Key.Reveal(), testKey) {
					t.Errorf("key differs, or there is a blob")
				}
			}
			if (m.Hash == SHA1) != (c.form == FormAzure) || c.form == FormHSM && m.Hash != "" {
				t.Errorf("hash function %q", m.Hash)
			}
			if c.form == FormAzure && (m.WrappedFor != "https://v.vault.azure.net/keys/KEK/0011" || m.Generator != "Tool of a vendor; 1.2") {
				t.Errorf("wrapped for %q by %q", m.WrappedFor, m.Generator)
			}
			if strings.Contains(m.Form.Describe(), "unknown") {
				t.Errorf("%s has no description", m.Form)
			}
			m.Zero()
			if m.Key != nil && !bytes.Equal(m.Key.Reveal(), make([]byte, 32)) || len(bytes.Trim(m.Blob, "\x00")) > 0 {
				t.Error("not overwritten")
			}
		})
	}
}

func pemOf(kind string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: testBlob(64)}))
}

func der(inner ...byte) string {
	b := append(inner, testBlob(300)...)
	return string(append([]byte{0x30, 0x82, byte(len(b) >> 8), byte(len(b))}, b...))
}

// refused holds every kind that is not taken, what the error calls it, and a
// piece of the advice.
var refused = []struct{ name, in, says, advises string }{
	{"nothing", "", "empty file", "Check how"},
	{"white space", " \n", "unknown kind", "AES-256"},
	{"too large", strings.Repeat("A", MaxInput+1), "more than 65,536", "right file"},
	{"zeros", string(make([]byte, 32)), "32 equal bytes", "openssl rand"},
	{"equal bytes in hexadecimal", strings.Repeat("ab", 32), "32 equal bytes", "openssl rand"},
	{"the example key of many standards", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "count up", "openssl rand"},
	{"AES-128 twice", hex.EncodeToString(append(bytes.Clone(testKey[:16]), testKey[:16]...)), "one half repeated", "openssl rand"},
	{"a passphrase of 32 characters", "correct horse battery staple!!!!", "passphrase", "openssl rand"},
	{"a passphrase of base64 characters", "correcthorsebatterystaplecorrect", "passphrase", "openssl rand"},
	{"a passphrase in hexadecimal", hex.EncodeToString([]byte("correct horse battery staple!!!!")), "passphrase", "openssl rand"},
	{"a passphrase in base64", b64([]byte("correct horse battery staple!!!!")), "passphrase", "openssl rand"},
	{"a passphrase in a JSON Web Key", `{"kty":"oct","k":"` + b64url([]byte("correct horse battery staple!!!!")) + `"}`, "passphrase", "openssl rand"},
	{"some text", "the key is in the safe", "unknown kind", "hexadecimal"},
	{"AES-128", string(testKey[:16]), "AES-128", "32 bytes"},
	{"AES-192 in hexadecimal", hex.EncodeToString(testKey[:24]), "AES-192", "32 bytes"},
	{"AES-128 in hexadecimal", hex.EncodeToString(testKey[:16]), "AES-128", "32 bytes"},
	{"AES-128 in base64", b64(testKey[:16]), "AES-128", "32 bytes"},
	{"AES-128 as JSON Web Key", `{"kty":"oct","k":"` + b64url(testKey[:16]) + `"}`, "AES-128", "32 bytes"},
	{"two keys", string(testBlob(64)), "two keys", "exactly 32"},
	{"a line break too many", string(testKey) + "\n", "line break", "alone"},
	{"a line break of Windows too many", string(testKey) + "\r\n", "line break", "alone"},
	{"33 bytes", string(testBlob(33)), "33 bytes", "nShield"},
	{"wrapped without its RSA part", string(testBlob(40)), "wrapped under another AES key", "CKM_RSA_AES_KEY_WRAP"},
	{"the RSA part alone", string(testBlob(512)), "RSA part", "40 bytes"},
	{"wrapped for RSA-2048", string(testBlob(256 + 40)), "RSA-2048", "under Vault's wrapping key"},
	{"wrapped for RSA-3072", b64(testBlob(384 + 40)), "RSA-3072", "under Vault's wrapping key"},
	{"wrapped AES-128", string(testBlob(512 + 24)), "128 or 192", "AES-256"},
	{"wrapped RSA key", string(testBlob(512 + 1224)), "larger than an AES-256 key", "AES-256"},
	{"wrapped something", string(testBlob(320)), "no wrapped AES-256 key", "CKM_RSA_AES_KEY_WRAP"},
	{"some program", string(testBlob(4096)), "4096 bytes", "nShield"},
	{"PKCS#8", pemOf("PRIVATE KEY"), "private key", "leave this key"},
	{"PKCS#1", pemOf("RSA PRIVATE KEY"), "RSA PRIVATE KEY", "leave this key"},
	{"SEC1", pemOf("EC PRIVATE KEY"), "EC PRIVATE KEY", "leave this key"},
	{"SEC1 after its parameters", pemOf("EC PARAMETERS"), "EC PARAMETERS", "AES-256"},
	{"encrypted PKCS#8", pemOf("ENCRYPTED PRIVATE KEY"), "encrypted private key", "AES-256"},
	{"encrypted as before PKCS#8", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nQUJD\n-----END RSA PRIVATE KEY-----\n", "encrypted private key", "AES-256"},
	{"OpenSSH", pemOf("OPENSSH PRIVATE KEY"), "SSH", "AES-256"},
	{"PGP", pemOf("PGP PRIVATE KEY BLOCK"), "PGP", "AES-256"},
	{"public key", pemOf("PUBLIC KEY"), "public key", "wrapping key"},
	{"certificate", pemOf("CERTIFICATE"), "certificate", "AES-256"},
	{"damaged PEM", "-----BEGIN PRIVATE KEY-----\nxx", "damaged", "AES-256"},
	{"PuTTY", "PuTTY-User-Key-File-3: ssh-rsa\n", "SSH", "AES-256"},
	{"PKCS#12", der(2, 1, 3, 0x30), "PKCS#12", "AES-256"},
	{"PKCS#8 in DER", der(2, 1, 0, 0x30), "private key (DER)", "AES-256"},
	{"short DER", "\x30\x06\x02\x01\x00\x30\x01\x00", "private key (DER)", "AES-256"},
	{"certificate in DER", der(0x30, 0x82), "ASN.1", "AES-256"},
	{"Java key store", "\xfe\xed\xfe\xed" + string(testBlob(100)), "Java", "Export"},
	{"AD RMS", `<?xml version="1.0"?><TrustedPublishingDomain><XrML/></TrustedPublishingDomain>`, "trusted publishing domain", "unprotecting"},
	{"other XML", `<a/>`, "XML", "AES-256"},
	{"age", "AGE-SECRET-KEY-1QQQ", "age", "decrypt it"},
	{"Vault's ciphertext", "vault:v1:QUJD", "Vault encrypted", "HSM"},
	{"a Vault token", "hvs.test-value", "Vault token", "revoke"},
	{"Vault's backup", b64([]byte(`{"policy":{"name":"root","keys":{"1":{"key":"QUJD"}}}}`)), "plaintext backup", "Do not use"},
	{"Vault's backup, decoded", `{"policy":{}}`, "plaintext backup", "Do not use"},
	{"Vault's answer", `{"request_id":"x","data":{}}`, "answer of Vault's", "key itself"},
	{"JWE", "eyJhbGciOiJkaXIifQ.a.b.c.d", "JWE", "Decrypt"},
	{"JWE in JSON", `{"protected":"x","encrypted_key":"y"}`, "JWE", "Decrypt"},
	{"JWT", "eyJhbGciOiJub25lIn0.a.b", "JWT", "AES-256"},
	{"Tink", `{"primaryKeyId":1,"key":[]}`, "Tink", "32 random bytes"},
	{"other JSON", `{"a":1}`, "JSON of an unknown kind", "AES-256"},
	{"cut JSON", `{"kty":"oct"`, "not well-formed", "again"},
	{"JSON after JSON", jwk("") + `{}`, "not well-formed", "again"},
	{"JSON with a member twice", `{"kty":"oct","k":"AAAA","k":"BBBB"}`, "not well-formed", "again"},
	{"broken JSON", `{1:2}`, "not well-formed", "again"},
	{"broken value", `{"a":}`, "not well-formed", "again"},
	{"RSA as JSON Web Key", `{"kty":"RSA","n":"x"}`, "type RSA", "AES-256"},
	{"JSON Web Key without type", `{"kty":7}`, "unknown type", "oct"},
	{"JSON Web Key for HMAC", jwk(`,"alg":"HS256"`), "HS256", "nothing else"},
	{"JSON Web Key for something", jwk(`,"alg":5`), "Web Key for", "nothing else"},
	{"JSON Web Key for signing", jwk(`,"use":"sig"`), "signing", "nothing else"},
	{"JSON Web Key with odd uses", jwk(`,"key_ops":5`), "not well-formed", "again"},
	{"JSON Web Key without key", `{"kty":"oct"}`, "not well-formed", "again"},
	{"JSON Web Key with padding", `{"kty":"oct","k":"` + b64(testKey) + `"}`, "not well-formed", "again"},
	{"JSON Web Key with a star", `{"kty":"oct","k":"****"}`, "not well-formed", "again"},
	{"two JSON Web Keys", `{"keys":[` + jwk("") + `,` + jwk("") + `]}`, "set of 2", "Take the one"},
	{"no JSON Web Key", `{"keys":[]}`, "set of 0", "Take the one"},
	{"keys that are none", `{"keys":5}`, "not well-formed", "again"},
	{"key that is none", `{"keys":[5]}`, "not well-formed", "again"},
	{"Azure, another version", `{"schema_version":"2.0"}`, "version", "1.0.0"},
	{"Azure without header", `{"schema_version":"1.0.0"}`, "not well-formed", "again"},
	{"Azure, other wrapping", `{"schema_version":"1.0.0","header":{"alg":"dir","enc":"A256KW"}}`, "A256KW", "CKM_RSA_AES_KEY_WRAP"},
	{"Azure without key", `{"schema_version":"1.0.0","header":{"alg":"dir","enc":"CKM_RSA_AES_KEY_WRAP"}}`, "not well-formed", "again"},
	{"Azure for RSA-2048", azure(testBlob(256+40), "https://v"), "RSA-2048", "wrapped for something else"},
	{"Azure with an RSA key", azure(testBlob(512+2384), "https://v"), "larger than an AES-256 key", "AES-256"},
}

func TestParseRefuses(t *testing.T) {
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse([]byte(c.in))
			if !errors.Is(err, vocab.ReasonRequestInvalid) {
				t.Fatalf("%+v, %v", m, err)
			}
			e, _ := errors.AsType[*vocab.Error](err)
			if !strings.Contains(e.Message, c.says) || !strings.Contains(e.Next, c.advises) {
				t.Errorf("says %q, advises %q; want %q and %q", e.Message, e.Next, c.says, c.advises)
			}
		})
	}
}

// TestParseRandom: a random key is taken in each of its forms and is the same
// key in all.
func TestParseRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := vocab.SecretFrom(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		if weak(key.Reveal()) != "" {
			t.Skip("no random key")
		}
		for _, in := range []string{
			string(key.Reveal()), hex.EncodeToString(key.Reveal()), b64(key.Reveal()), b64url(key.Reveal()),
			`{"k":"` + b64url(key.Reveal()) + `","kty":"oct"}`,
		} {
			m, err := Parse([]byte(in))
			if err != nil || !m.Key.Equal(key) {
				t.Fatalf("%q: %+v, %v", in, m, err)
			}
		}
	})
}

func TestKWP(t *testing.T) {
	kek := unhex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	for _, c := range []struct{ plain, wrapped string }{ // RFC 5649 section 6
		{"c37b7e6492584340bed12207808941155068f738", "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{"466f7250617369", "afbeb0f07dfbf5419200f2ccb50bb24f"},
	} {
		got, err := kwpWrap(kek, unhex(c.plain))
		if err != nil || hex.EncodeToString(got) != c.wrapped {
			t.Errorf("wrapped %s is %x, %v", c.plain, got, err)
		}
		back, err := kwpUnwrap(kek, unhex(c.wrapped))
		if err != nil || hex.EncodeToString(back) != c.plain {
			t.Errorf("unwrapped %s is %x, %v", c.wrapped, back, err)
		}
	}
	for name, f := range map[string]func() error{
		"nothing":      func() error { _, err := kwpWrap(kek, nil); return err },
		"a bad key":    func() error { _, err := kwpWrap(kek[:5], kek); return err },
		"a bad key ":   func() error { _, err := kwpUnwrap(kek[:5], kek); return err },
		"eight bytes":  func() error { _, err := kwpUnwrap(kek, kek[:8]); return err },
		"17 bytes":     func() error { _, err := kwpUnwrap(kek, kek[:17]); return err },
		"random bytes": func() error { _, err := kwpUnwrap(kek, testBlob(40)); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestKWPRoundTrip: every length comes back, and no changed bit does.
func TestKWPRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kek := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "kek")
		p := rapid.SliceOfN(rapid.Byte(), 1, 70).Draw(t, "p")
		c, err := kwpWrap(kek, p)
		if err != nil || len(c) != 8+(len(p)+7)/8*8 {
			t.Fatal(len(c), err)
		}
		if back, err := kwpUnwrap(kek, c); err != nil || !bytes.Equal(back, p) {
			t.Fatalf("%x, %v", back, err)
		}
		c[rapid.IntRange(0, len(c)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := kwpUnwrap(kek, c); err == nil {
			t.Fatal("a changed bit unwraps")
		}
	})
}

// TestKWPInside: what decrypts but says a wrong length or has something in its
// padding is refused. Such blocks are made by the loop of RFC 3394 with another
// first block.
func TestKWPInside(t *testing.T) {
	kek := testBlob(32)
	make16 := func(head string, body ...byte) []byte {
		block, _ := aes.NewCipher(kek)
		b := append([]byte(head), body...)
		block.Encrypt(b, b)
		return b
	}
	for name, c := range map[string]struct {
		blob []byte
		good bool
	}{
		"as it should be":   {make16("\xa6\x59\x59\xa6\x00\x00\x00\x07", 1, 2, 3, 4, 5, 6, 7, 0), true},
		"another constant":  {make16("\xa6\xa6\xa6\xa6\x00\x00\x00\x07", 1, 2, 3, 4, 5, 6, 7, 0), false},
		"padding":           {make16("\xa6\x59\x59\xa6\x00\x00\x00\x07", 1, 2, 3, 4, 5, 6, 7, 8), false},
		"more padding":      {make16("\xa6\x59\x59\xa6\x00\x00\x00\x01", 1, 2, 0, 0, 0, 0, 0, 0), false},
		"length zero":       {make16("\xa6\x59\x59\xa6\x00\x00\x00\x00", 0, 0, 0, 0, 0, 0, 0, 0), false},
		"length nine":       {make16("\xa6\x59\x59\xa6\x00\x00\x00\x09", 1, 2, 3, 4, 5, 6, 7, 8), false},
		"length beyond all": {make16("\xa6\x59\x59\xa6\xff\xff\xff\xff", 1, 2, 3, 4, 5, 6, 7, 8), false},
	} {
		if _, err := kwpUnwrap(kek, c.blob); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func pemKey(t *testing.T, public any) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})
}

func TestWrap(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ParseWrappingKey(pemKey(t, private.Public()))
	if err != nil {
		t.Fatal(err)
	}
	key := vocab.SecretFrom(testKey)
	one, err := w.Wrap(key)
	if err != nil || len(one) != BlobSize {
		t.Fatalf("%d bytes, %v", len(one), err)
	}
	two, err := w.Wrap(key)
	if err != nil || bytes.Equal(one[:512], two[:512]) || bytes.Equal(one[512:], two[512:]) {
		t.Error("two wraps share their temporary key")
	}
	temporary, err := rsa.DecryptOAEP(sha256.New(), nil, private, one[:512], nil)
	if err != nil || len(temporary) != 32 {
		t.Fatalf("%d bytes, %v", len(temporary), err)
	}
	if got, err := kwpUnwrap(temporary, one[512:]); err != nil || !bytes.Equal(got, testKey) {
		t.Errorf("comes back as another key: %v", err)
	}
	if m, err := Parse(one); err != nil || m.Form != FormHSM {
		t.Errorf("what is made here is not read here: %v", err)
	}
	if sum := sha256.Sum256(w.der); w.Fingerprint() != fmt.Sprintf("%x", sum) {
		t.Error("fingerprint is not the SHA-256 of the DER")
	}

	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := pemKey(t, private.Public())
	for name, text := range map[string][]byte{
		"nothing": nil, "RSA-2048": pemKey(t, small.Public()), "two keys": append(bytes.Clone(good), good...),
		"a private key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(small)}),
		"rubbish":       pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
	} {
		if _, err := ParseWrappingKey(text); !errors.Is(err, vocab.ReasonCustodyIntegrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckValues(t *testing.T) {
	// FIPS 197 and every HSM's manual: AES-256 under a key of zeros turns zeros
	// into dc95c078…
	if v := KCVOf(vocab.SecretFrom(make([]byte, 32))); v.String() != "DC95C0" {
		t.Errorf("KCV of zeros is %s", v)
	}
	for s, want := range map[string]string{"dc95c0": "DC95C0", "DC 95 C0": "DC95C0", "": "", "DC95C078": "", "DC95CX": ""} {
		if v, err := ParseKCV(s); (err == nil) != (want != "") || err == nil && v.String() != want {
			t.Errorf("%q is read as %s, %v", s, v, err)
		}
	}
	// By hand from docs/formats.md: HKDF-SHA256, salt the CBOR of
	// ["rms/v1/key-check", {}], info empty.
	salt := append([]byte{0x82, 0x70}, "rms/v1/key-check"...)
	want, err := hkdf.Key(sha256.New, testKey, append(salt, 0xa0), "", 32)
	if err != nil {
		t.Fatal(err)
	}
	got := FingerprintOf(vocab.SecretFrom(testKey))
	if got.String() != hex.EncodeToString(want) {
		t.Errorf("fingerprint is %s, want %x", got, want)
	}
	for s, ok := range map[string]bool{"sha256": true, "SHA-1": true, "SHA224": true, "sha384": true, "sha-512": true, "md5": false, "": false} {
		if _, err := ParseHash(s); (err == nil) != ok {
			t.Errorf("hash %q: %v", s, err)
		}
	}
}

func TestVerify(t *testing.T) {
	key := vocab.SecretFrom(testKey)
	context, plaintext := []byte("a context"), []byte("known text")
	derived, err := hkdf.Key(sha256.New, testKey, nil, string(context), 32)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := aes.NewCipher(derived)
	gcm, _ := cipher.NewGCM(block)
	nonce := testBlob(12)
	sealed := gcm.Seal(nonce, nonce, plaintext, nil)
	if err := Verify(key, sealed, context, plaintext); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"another key":       Verify(vocab.SecretFrom(testBlob(32)), sealed, context, plaintext),
		"another context":   Verify(key, sealed, []byte("b context"), plaintext),
		"another plaintext": Verify(key, sealed, context, []byte("known texT")),
		"shorter":           Verify(key, sealed, context, plaintext[:5]),
		"cut":               Verify(key, sealed[:20], context, plaintext),
		"changed":           Verify(key, append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), context, plaintext),
	} {
		if !errors.Is(err, vocab.ReasonCustodyIntegrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParse: nothing panics; what is taken is exactly one of key and blob of the
// right size, never a weak key, and never bytes that are not in the input.
func FuzzParse(f *testing.F) {
	for _, c := range refused {
		if len(c.in) < 10000 {
			f.Add([]byte(c.in))
		}
	}
	blob := testBlob(BlobSize)
	for _, s := range []string{
		string(testKey), hex.EncodeToString(testKey), "0x" + hex.EncodeToString(testKey), b64(testKey), b64url(testKey), b64(testKey) + "\n",
		jwk(""), `{"keys":[` + jwk(`,"alg":"A256GCM","key_ops":["encrypt"]`) + `]}`, string(blob), b64(blob), hex.EncodeToString(blob), azure(blob, "https://v/k"),
		strings.Repeat("A", MaxInput+1),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		m, err := Parse(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			if m != nil || !errors.Is(err, vocab.ReasonRequestInvalid) {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		if (m.Key == nil) == (m.Blob == nil) || m.Blob != nil && len(m.Blob) != BlobSize || !printable([]byte(m.WrappedFor+m.Generator)) {
			t.Fatalf("%+v", m)
		}
		if m.Key != nil && weak(m.Key.Reveal()) != "" || m.Form == FormRaw && !bytes.Equal(m.Key.Reveal(), b) {
			t.Fatalf("%s", m.Form)
		}
	})
}
