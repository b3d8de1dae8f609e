package byok

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the OAEP hash of Azure's transfer files; OAEP does not rest on collisions
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// Sizes of a wrapped key in bytes.
const (
	rsaSize = 512 // RSA-4096, Vault's only wrapping key
	kwpSize = vocab.SecretSize + 8
	// BlobSize is the size of a wrapped AES-256 key.
	BlobSize = rsaSize + kwpSize
)

// Hash names the hash function of RSA-OAEP and its MGF1, as Vault's import
// names it.
type Hash string

// The hash functions Vault's import takes.
const (
	SHA1   Hash = "SHA1"
	SHA224 Hash = "SHA224"
	SHA256 Hash = "SHA256"
	SHA384 Hash = "SHA384"
	SHA512 Hash = "SHA512"
)

// ParseHash reads the name of a hash function, in either case and with or
// without hyphens: sha256, SHA-256.
func ParseHash(s string) (Hash, error) {
	h := Hash(strings.ToUpper(strings.ReplaceAll(s, "-", "")))
	if h.make() == nil {
		return "", vocab.Errorf(vocab.ReasonRequestInvalid, "%.40q is not a hash function that Vault's import takes", s).
			WithNext("It is SHA256 unless your HSM was told otherwise; older transfer tools use SHA1")
	}
	return h, nil
}

func (h Hash) make() func() hash.Hash {
	switch h {
	case SHA1:
		return sha1.New
	case SHA224:
		return sha256.New224
	case SHA256:
		return sha256.New
	case SHA384:
		return sha512.New384
	case SHA512:
		return sha512.New
	}
	return nil
}

// WrappingKey is the public key that Vault's transit mount imports under.
type WrappingKey struct {
	public *rsa.PublicKey
	der    []byte // SubjectPublicKeyInfo
}

// ParseWrappingKey reads the PEM that Vault gives out. It must be RSA-4096.
func ParseWrappingKey(text []byte) (*WrappingKey, error) {
	bad := func(cause error) error {
		return vocab.Errorf(vocab.ReasonCustodyIntegrity, "that is not the wrapping key of a Vault transit mount").
			WithNext("It must be one RSA-4096 public key in PEM form, as `vault read -field=public_key MOUNT/wrapping_key` prints it").
			Because(cause)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, bad(errors.New("not one PEM block of type PUBLIC KEY"))
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, bad(err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok || public.N.BitLen() != 8*rsaSize || public.E < 3 || public.E%2 == 0 {
		return nil, bad(fmt.Errorf("%T is not RSA-4096", parsed))
	}
	return &WrappingKey{public, block.Bytes}, nil
}

// Fingerprint is the SHA-256 of its SubjectPublicKeyInfo in DER, in hexadecimal:
// what `openssl pkey -pubin -outform DER | sha256sum` prints.
func (w *WrappingKey) Fingerprint() string {
	sum := sha256.Sum256(w.der)
	return hex.EncodeToString(sum[:])
}

// Wrap wraps key for Vault's import and returns RSA-OAEP(SHA-256, ephemeral) ‖
// AES-KWP(ephemeral, key), [BlobSize] bytes. The ephemeral key is random and
// zeroed. The result holds the root key under RSA: send it, do not keep it.
func (w *WrappingKey) Wrap(key *vocab.Secret) ([]byte, error) {
	ephemeral := vocab.NewSecret()
	defer ephemeral.Zero()
	blob, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, w.public, ephemeral.Reveal(), nil)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonInternal, "the key could not be wrapped for Vault").Because(err)
	}
	wrapped, err := kwpWrap(ephemeral.Reveal(), key.Reveal())
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonInternal, "the key could not be wrapped for Vault").Because(err)
	}
	// What goes to Vault cannot be taken back, so a fault of this computation is
	// found before.
	back, err := kwpUnwrap(ephemeral.Reveal(), wrapped)
	defer clear(back)
	if err != nil || subtle.ConstantTimeCompare(back, key.Reveal()) != 1 {
		return nil, vocab.Errorf(vocab.ReasonInternal, "the key does not come back out of its wrapping").
			WithNext("This machine computes wrongly; use another").Because(err)
	}
	return append(blob, wrapped...), nil
}

// AES key wrap with padding, RFC 5649, of 1 byte and more.

var errUnwrap = errors.New("AES-KWP: integrity check failed")

func kwpWrap(kek, p []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(p) == 0 || len(p) > 1<<16 {
		return nil, fmt.Errorf("AES-KWP of %d bytes", len(p))
	}
	n := (len(p) + 7) / 8
	out := make([]byte, 8+8*n)
	copy(out, "\xa6\x59\x59\xa6")
	binary.BigEndian.PutUint32(out[4:], uint32(len(p)))
	copy(out[8:], p)
	if n == 1 {
		block.Encrypt(out, out)
		return out, nil
	}
	var b [16]byte
	defer clear(b[:])
	copy(b[:8], out)
	for t := range 6 * n {
		r := out[8+8*(t%n):][:8]
		copy(b[8:], r)
		block.Encrypt(b[:], b[:])
		copy(r, b[8:])
		binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^uint64(t+1))
	}
	copy(out, b[:8])
	return out, nil
}

// kwpUnwrap is the inverse. Every failure is the same error, found in the same
// time.
func kwpUnwrap(kek, c []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	if len(c) < 16 || len(c)%8 != 0 || len(c) > 1<<16 {
		return nil, errUnwrap
	}
	n := len(c)/8 - 1
	out := make([]byte, len(c))
	copy(out, c)
	if n == 1 {
		block.Decrypt(out, out)
	} else {
		var b [16]byte
		defer clear(b[:])
		copy(b[:8], out)
		for t := 6*n - 1; t >= 0; t-- {
			binary.BigEndian.PutUint64(b[:], binary.BigEndian.Uint64(b[:])^uint64(t+1))
			r := out[8+8*(t%n):][:8]
			copy(b[8:], r)
			block.Decrypt(b[:], b[:])
			copy(r, b[8:])
		}
		copy(out, b[:8])
	}
	size := int64(binary.BigEndian.Uint32(out[4:8]))
	good := subtle.ConstantTimeCompare(out[:4], []byte("\xa6\x59\x59\xa6"))
	// 8(n-1) < size <= 8n, and zeros behind it.
	good &= subtle.ConstantTimeLessOrEq(int(min(size, 1<<20)), 8*n)
	good &= subtle.ConstantTimeLessOrEq(8*(n-1)+1, int(min(size, 1<<20)))
	var padding byte
	for i := range 7 {
		at := 8*n - 7 + i
		behind := subtle.ConstantTimeLessOrEq(int(min(size, 1<<20)), at)
		padding |= out[8+at] & byte(-behind)
	}
	good &= subtle.ConstantTimeByteEq(padding, 0)
	if good != 1 {
		clear(out)
		return nil, errUnwrap
	}
	return out[8 : 8+size], nil
}
