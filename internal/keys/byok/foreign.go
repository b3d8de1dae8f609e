package byok

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// What is not taken is named here, so that whoever brought it knows what to do.

const (
	adviseForms = "It must be an AES-256 key: 32 bytes, their hexadecimal or base64, a JSON Web Key of type oct, " +
		"or what an HSM wrapped for Vault's wrapping key"
	adviseAsymmetric = "A tenant's root key is AES-256. Make one for this purpose, in your HSM or with `openssl rand -out FILE 32`, " +
		"and leave this key where it is used"
	adviseHSM = "Let the HSM wrap an AES-256 key under Vault's wrapping key with CKM_RSA_AES_KEY_WRAP: " +
		"RSA-OAEP with SHA-256, a temporary key of 256 bits"
	adviseBackup = "Do not use it: it holds keys in clear. Destroy it, and move keys between Vaults by wrapping them"
)

func refuse(what, next string) error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, "this is %s; no key was taken from it", what).WithNext("%s", next)
}

// isDER reports whether b is one ASN.1 sequence and nothing more.
func isDER(b []byte) bool {
	return len(b) > 4 && b[0] == 0x30 && (b[1] == 0x82 && int(b[2])<<8|int(b[3]) == len(b)-4 || b[1] == 0x81 && int(b[2]) == len(b)-3 ||
		b[1] < 0x80 && int(b[1]) == len(b)-2)
}

// foreign recognises what has its own beginning; nil if b has none.
func foreign(b, text []byte) error {
	begins := func(prefixes ...string) bool {
		for _, p := range prefixes {
			if bytes.HasPrefix(text, []byte(p)) {
				return true
			}
		}
		return false
	}
	switch {
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return foreignPEM(text)
	case begins("<"):
		return foreignXML(text)
	case begins("PuTTY-User-Key-File", "ssh-rsa ", "ssh-ed25519 ", "ecdsa-sha2-"):
		return refuse("an SSH key", adviseAsymmetric)
	case begins("AGE-SECRET-KEY-", "age-encryption.org/"):
		return refuse("a key or file of age", "If the key is inside, decrypt it into a pipe; otherwise make one for this purpose")
	case begins("vault:v"):
		return refuse("something Vault encrypted", "Decrypt it there, or let your HSM wrap the key for Vault")
	case begins("hvs.", "hvb.", "hvr.", "s."):
		return refuse("a Vault token", "Name the file with the key; if this one was shown to anybody, revoke the token")
	case begins("eyJ") && bytes.Count(text, []byte(".")) == 4:
		return refuse("an encrypted JSON object (JWE)", "Decrypt it where its key is, or let your HSM wrap the key for Vault")
	case begins("eyJ") && bytes.Count(text, []byte(".")) == 2:
		return refuse("a signed token (JWT)", adviseForms)
	case bytes.HasPrefix(b, []byte("\xfe\xed\xfe\xed")), bytes.HasPrefix(b, []byte("\xce\xce\xce\xce")):
		return refuse("a Java key store", "Export the AES-256 key from it with a tool of your own, or better make one for this purpose")
	case isDER(b):
		return foreignDER(b)
	}
	return nil
}

func foreignPEM(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil {
		return refuse("a damaged PEM file", adviseForms)
	}
	defer clear(block.Bytes)
	switch kind := block.Type; {
	case kind == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return refuse("an encrypted private key (PEM)", adviseAsymmetric)
	case strings.HasPrefix(kind, "PGP"), kind == "OPENSSH PRIVATE KEY", kind == "AGE ENCRYPTED FILE":
		return refuse("an SSH, PGP or age file", adviseAsymmetric)
	case strings.HasSuffix(kind, "PRIVATE KEY"):
		return refuse(fmt.Sprintf("a private key (PEM, %.30q)", kind), adviseAsymmetric)
	case strings.HasSuffix(kind, "PUBLIC KEY"):
		return refuse("a public key", "If it is Vault's wrapping key, give it to the HSM and bring what that makes with it")
	case strings.Contains(kind, "CERTIFICATE"):
		return refuse("a certificate or a request for one", adviseForms)
	default:
		return refuse(fmt.Sprintf("a PEM file of type %.30q", kind), adviseForms)
	}
}

func foreignXML(text []byte) error {
	head := bytes.ToLower(text[:min(len(text), 8<<10)])
	for _, mark := range []string{"xrml", "trustedpublishingdomain", "slc", "drm"} {
		if bytes.Contains(head, []byte(mark)) {
			return refuse("a trusted publishing domain of AD RMS",
				"Its RSA key opens what was protected there and can do nothing here: move that content by unprotecting it with AD RMS, "+
					"and make a new AES-256 key for this service")
		}
	}
	return refuse("XML of an unknown kind", adviseForms)
}

func foreignDER(b []byte) error {
	inner := b[2:]
	if b[1]&0x80 != 0 {
		inner = b[2+int(b[1]&0x7f):]
	}
	begins := func(p ...byte) bool { return bytes.HasPrefix(inner, p) }
	switch {
	case begins(2, 1, 3, 0x30):
		return refuse("a PKCS#12 file (.pfx, .p12)", adviseAsymmetric)
	case begins(2, 1, 0, 0x30), begins(2, 1, 0, 2), begins(2, 1, 1, 4), begins(2, 1, 1, 0x30):
		return refuse("a private key (DER)", adviseAsymmetric)
	default:
		return refuse("an ASN.1 file: a certificate, a public key or an encrypted private key", adviseAsymmetric)
	}
}

// wrongBytes is the error for bytes that are neither text nor of a known size.
func wrongBytes(b []byte) error {
	if n := len(b); n == vocab.SecretSize+1 && b[n-1] == '\n' || n == vocab.SecretSize+2 && b[n-2] == '\r' && b[n-1] == '\n' {
		return refuse("32 bytes and a line break", "Write the 32 bytes alone, or their hexadecimal digits")
	}
	return wrongSize(len(b), "")
}

// wrongSize names bytes by their number.
func wrongSize(n int, in string) error {
	switch {
	case n == 16, n == 24:
		return refuse(fmt.Sprintf("an AES-%d key%s", 8*n, in), "A tenant's root key has 32 bytes: make an AES-256 key")
	case n == 64 || n == 48:
		return refuse(fmt.Sprintf("%d bytes%s, as for two keys or an HMAC key", n, in), "A tenant's root key has exactly 32 bytes")
	case n == kwpSize:
		return refuse(fmt.Sprintf("%d bytes%s, which is an AES-256 key wrapped under another AES key", n, in), adviseHSM)
	case n >= 256 && n <= maxBlob && n%8 == 0:
		return wrongBlob(n, fmt.Sprintf("%d bytes%s", n, in))
	}
	return refuse(fmt.Sprintf("%d bytes%s and none of the forms a key comes in", n, in),
		adviseForms+". If it is a vendor's own file (nShield, Luna, YubiHSM): "+strings.ToLower(adviseHSM[:1])+adviseHSM[1:])
}

// maxBlob is about the size of an RSA-4096 key that is wrapped as Vault wants it.
const maxBlob = 3000

// wrongBlob explains a wrapped key of another size than that of an AES-256 key
// under RSA-4096.
func wrongBlob(n int, what string) error {
	for _, bits := range []int{2048, 3072} {
		if n == bits/8+kwpSize {
			return refuse(fmt.Sprintf("%s with an AES-256 key wrapped for RSA-%d", what, bits),
				"Vault's wrapping key is RSA-4096, so it was wrapped for something else: wrap the key again, under Vault's wrapping key")
		}
	}
	switch n {
	case rsaSize + 24, rsaSize + 32:
		return refuse(what+" with a wrapped AES key of 128 or 192 bits", "Make an AES-256 key and wrap that")
	case rsaSize:
		return refuse(what+", as many as the RSA part of a wrapped key", "Behind it must stand the key under AES-KWP, 40 bytes: "+adviseHSM)
	}
	if n > BlobSize {
		return refuse(what+" with something larger than an AES-256 key wrapped", "An RSA or EC key cannot be a root key: make an AES-256 key and wrap that")
	}
	return refuse(what+" of a size no wrapped AES-256 key has", adviseHSM)
}

// wrongText is the error for text that is neither hexadecimal nor base64 of a
// key.
func wrongText(text []byte) error {
	if len(text) == vocab.SecretSize {
		return refuse("32 printable characters: a passphrase or text, not random bytes",
			"Make a random key, in your HSM or with `openssl rand -out FILE 32`")
	}
	return refuse("text of an unknown kind", adviseForms)
}
