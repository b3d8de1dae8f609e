package byok

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"

	"github.com/openrms/rms/internal/vocab"
)

// MaxInput is how much [Parse] reads, in bytes.
const MaxInput = 64 << 10

// Form is what key material was recognised as.
type Form string

// The forms that are taken.
const (
	FormRaw    Form = "raw"         // 32 bytes
	FormHex    Form = "hex"         // 64 digits
	FormBase64 Form = "base64"      // 43 or 44 characters
	FormJWK    Form = "jwk"         // JSON Web Key, kty oct
	FormHSM    Form = "rsa-aes-kwp" // CKM_RSA_AES_KEY_WRAP, raw, hexadecimal or base64
	FormAzure  Form = "azure-byok"  // Azure key transfer file
)

// Describe says in words what form that is.
func (f Form) Describe() string {
	switch f {
	case FormRaw:
		return "32 raw bytes"
	case FormHex:
		return "64 hexadecimal digits"
	case FormBase64:
		return "base64 of 32 bytes"
	case FormJWK:
		return "a JSON Web Key (oct)"
	case FormHSM:
		return "a key wrapped by an HSM (RSA-OAEP and AES-KWP)"
	case FormAzure:
		return "an Azure key transfer file (.byok)"
	}
	return "unknown"
}

// Material is what somebody brought: a key, or a key wrapped for Vault that
// nobody here can open. Exactly one of Key and Blob is set.
type Material struct {
	Form Form
	// Key is the key itself. [Material.Zero] it.
	Key *vocab.Secret
	// Blob is the wrapped key, [BlobSize] bytes.
	Blob []byte
	// Hash is the one that Blob was made with, "" if the form does not say.
	Hash Hash
	// WrappedFor and Generator are what an Azure file says of itself: the URL of
	// the key it was wrapped for and the tool that did it. They prove nothing:
	// whether Vault can open it shows only when it tries. Never trusted, printable.
	WrappedFor, Generator string
}

// Zero overwrites the key.
func (m *Material) Zero() {
	if m != nil {
		m.Key.Zero()
		clear(m.Blob)
	}
}

// Parse recognises what b is. The caller clears b afterwards. What is not taken
// is REQUEST_INVALID and named; so is a key that is no random one: all bytes the
// same, counting up, one half repeated, or printable text, which happens to a
// random key once in 10^13.
func Parse(b []byte) (*Material, error) {
	switch {
	case len(b) == 0:
		return nil, refuse("an empty file", "Check how it was made")
	case len(b) > MaxInput:
		return nil, refuse("a file of more than 65,536 bytes", "Check that it is the right file")
	case len(b) == vocab.SecretSize && !printable(b):
		return plain(FormRaw, b)
	case len(b) == BlobSize && !printable(b) && !isDER(b):
		return wrapped(FormHSM, b, ""), nil
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	if len(text) > 0 && text[0] == '{' {
		return parseJSON(text)
	}
	if err := foreign(b, text); err != nil {
		return nil, err
	}
	if !printable(text) {
		return nil, wrongBytes(b)
	}
	if decoded := fromHex(text); decoded != nil {
		defer clear(decoded)
		return sized(FormHex, decoded)
	}
	if decoded := fromBase64(text); decoded != nil {
		defer clear(decoded)
		if bytes.HasPrefix(decoded, []byte(`{"policy":`)) {
			return nil, refuse("a plaintext backup of a key in Vault", adviseBackup)
		}
		// A passphrase of the right characters is base64 too.
		if n := len(decoded); n == vocab.SecretSize || n == BlobSize || n < vocab.SecretSize && len(text) != vocab.SecretSize || n > vocab.SecretSize {
			return sized(FormBase64, decoded)
		}
	}
	return nil, wrongText(text)
}

// sized judges what was text by its length.
func sized(form Form, decoded []byte) (*Material, error) {
	switch len(decoded) {
	case vocab.SecretSize:
		return plain(form, decoded)
	case BlobSize:
		return wrapped(FormHSM, decoded, ""), nil
	}
	return nil, wrongSize(len(decoded), " in "+string(form))
}

func wrapped(form Form, blob []byte, h Hash) *Material {
	return &Material{Form: form, Blob: bytes.Clone(blob), Hash: h}
}

func plain(form Form, key []byte) (*Material, error) {
	if what := weak(key); what != "" {
		return nil, refuse("a key of "+what, "Make a random one, in your HSM or with `openssl rand -out FILE 32`")
	}
	return &Material{Form: form, Key: vocab.SecretFrom(key)}, nil
}

// weak names why a key of 32 bytes cannot be a random one, or returns "". None
// of it happens to a random key but by a chance nobody will live to see. The
// time it takes depends on the key only where it is refused.
func weak(key []byte) string {
	var differs, halves byte
	for i := 2; i < len(key); i++ {
		differs |= (key[i] - key[i-1]) ^ (key[1] - key[0])
	}
	for i := range len(key) / 2 {
		halves |= key[i] ^ key[i+len(key)/2]
	}
	switch {
	case differs == 0 && key[0] == key[1]:
		return "32 equal bytes"
	case differs == 0:
		return "bytes that count up, as in published examples"
	case halves == 0:
		return "one half repeated"
	case printable(key):
		return "printable characters: it is a passphrase or text, not random bytes"
	}
	return ""
}

// printable reports whether b is ASCII text.
func printable(b []byte) bool {
	bad := byte(0)
	for _, c := range b {
		if (c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t' {
			bad = 1
		}
	}
	return bad == 0
}

// fromHex decodes digits with nothing, white space, colons or hyphens between
// bytes, nil if it is anything else.
func fromHex(text []byte) []byte {
	text = bytes.TrimPrefix(bytes.TrimPrefix(text, []byte("0x")), []byte("0X"))
	digits := make([]byte, 0, len(text))
	defer func() { clear(digits) }()
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
			digits = append(digits, c)
		case c != ' ' && c != '\t' && c != '\r' && c != '\n' && c != ':' && c != '-', len(digits)%2 != 0:
			return nil
		}
	}
	out := make([]byte, hex.DecodedLen(len(digits)))
	if n, err := hex.Decode(out, digits); err != nil || n == 0 {
		return nil
	}
	return out
}

// fromBase64 decodes either alphabet, with or without padding and line breaks,
// nil if it is anything else.
func fromBase64(text []byte) []byte {
	clean := make([]byte, 0, len(text))
	defer func() { clear(clean) }()
	for _, c := range text {
		switch c {
		case '\r', '\n', ' ', '\t':
		case '-':
			clean = append(clean, '+')
		case '_':
			clean = append(clean, '/')
		default:
			clean = append(clean, c)
		}
	}
	if n := len(clean); n%4 == 0 {
		clean = bytes.TrimSuffix(clean, []byte("="))
		clean = bytes.TrimSuffix(clean, []byte("="))
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(clean)))
	n, err := base64.RawStdEncoding.Strict().Decode(out, clean)
	if err != nil || n == 0 {
		clear(out)
		return nil
	}
	return out[:n]
}
