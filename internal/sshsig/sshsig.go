// Package sshsig reads, verifies and makes the signatures of OpenSSH
// (PROTOCOL.sshsig, version 1): those of `ssh-keygen -Y sign`. A signature names
// the namespace it was made for, so that one made for something else is none.
//
// It takes fewer keys and forms than OpenSSH does: no DSA, no RSA below 3072
// bits and none with SHA-1, no certificates, no reserved fields, nothing after
// the end.
//
// All functions are safe for concurrent use.
package sshsig

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/openrms/rms/internal/vocab"
)

const (
	magic    = "SSHSIG"
	version  = 1
	armorTyp = "SSH SIGNATURE"

	// MaxSize is the largest signature Parse looks at, in bytes.
	MaxSize = 16 << 10
	// MaxKeySize is the largest public key, in bytes of the wire form.
	MaxKeySize = 2 << 10
	// MinRSA is the least size of RSA keys, in bits.
	MinRSA = 3072
	// MaxRSA is the largest.
	MaxRSA = 8192
)

// envelope is the blob of PROTOCOL.sshsig after its magic.
type envelope struct {
	Version   uint32
	Key       []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// Signature is one that was read and not yet verified.
type Signature struct {
	key  *Key
	env  envelope
	sig  *ssh.Signature
	blob []byte
}

func invalid(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, format, args...).
		WithNext("Sign with ssh-keygen -Y sign, or let rmsctl sign")
}

// Parse reads a signature, armored as ssh-keygen writes it or bare. The error is
// REQUEST_INVALID.
func Parse(b []byte) (*Signature, error) {
	if len(b) > MaxSize {
		return nil, invalid("an SSH signature has at most %d bytes", MaxSize)
	}
	blob := b
	if !bytes.HasPrefix(b, []byte(magic)) {
		block, rest := pem.Decode(b)
		if block == nil || block.Type != armorTyp || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
			return nil, invalid("this is not an SSH signature")
		}
		blob = block.Bytes
	}
	body, ok := bytes.CutPrefix(blob, []byte(magic))
	if !ok {
		return nil, invalid("this is not an SSH signature")
	}
	s := &Signature{sig: new(ssh.Signature), blob: bytes.Clone(blob)}
	if err := ssh.Unmarshal(body, &s.env); err != nil {
		return nil, invalid("the SSH signature cannot be read").Because(err)
	}
	var err error
	if s.key, err = ParseKey(s.env.Key); err != nil {
		return nil, err
	}
	switch {
	case s.env.Version != version:
		return nil, invalid("the SSH signature has version %d, which is not known", s.env.Version)
	case s.env.Namespace == "":
		return nil, invalid("the SSH signature names no namespace")
	case s.env.Reserved != "":
		return nil, invalid("the SSH signature has fields that are not known")
	case s.env.Hash != "sha256" && s.env.Hash != "sha512":
		return nil, invalid("the SSH signature uses a hash that is not known")
	}
	if err := ssh.Unmarshal(s.env.Signature, s.sig); err != nil {
		return nil, invalid("the SSH signature cannot be read").Because(err)
	}
	if !s.key.signs(s.sig.Format) || !s.key.secured() && len(s.sig.Rest) > 0 {
		return nil, invalid("the signature is not one of the key it names")
	}
	return s, nil
}

// Key is whose signature it says it is.
func (s *Signature) Key() *Key { return s.key }

// Namespace is what it says it was made for.
func (s *Signature) Namespace() string { return s.env.Namespace }

// Bytes is the signature without armor: what [Parse] reads too.
func (s *Signature) Bytes() []byte { return bytes.Clone(s.blob) }

// Armor is the signature as ssh-keygen writes and reads it.
func (s *Signature) Armor() []byte { return armor(s.blob) }

func armor(blob []byte) []byte {
	// OpenSSH breaks lines after 70 characters, and reads any.
	var out strings.Builder
	out.WriteString("-----BEGIN " + armorTyp + "-----\n")
	text := base64.StdEncoding.EncodeToString(blob)
	for len(text) > 70 {
		out.WriteString(text[:70] + "\n")
		text = text[70:]
	}
	out.WriteString(text + "\n-----END " + armorTyp + "-----\n")
	return []byte(out.String())
}

// Verify reports by nil that the key signed the message for the namespace. Of a
// key on a security token it takes that somebody touched it.
func (s *Signature) Verify(namespace string, message []byte) error {
	if s.env.Namespace != namespace {
		return vocab.Errorf(vocab.ReasonEtagMismatch, "the signature was made for %q, not for %q", clip(s.env.Namespace), namespace).
			WithNext("Sign with ssh-keygen -Y sign -n %s", namespace)
	}
	if err := s.key.pub.Verify(toSign(namespace, s.env.Hash, message), s.sig); err != nil {
		return vocab.Errorf(vocab.ReasonEtagMismatch, "the signature is of something else, or was changed").
			WithNext("Look at it again, and sign what you see").Because(err)
	}
	return nil
}

// toSign is what the key itself signs.
func toSign(namespace, hash string, message []byte) []byte {
	var sum []byte
	if hash == "sha256" {
		h := sha256.Sum256(message)
		sum = h[:]
	} else {
		h := sha512.Sum512(message)
		sum = h[:]
	}
	return append([]byte(magic), ssh.Marshal(struct {
		Namespace, Reserved, Hash string
		Sum                       []byte
	}{namespace, "", hash, sum})...)
}

// Key is a public key that may sign.
type Key struct {
	pub  ssh.PublicKey
	wire []byte
}

// ParseKey reads a public key in SSH's wire form. The error is REQUEST_INVALID.
func ParseKey(wire []byte) (*Key, error) {
	if len(wire) > MaxKeySize {
		return nil, invalidKey("a public key has at most %d bytes", MaxKeySize)
	}
	pub, err := ssh.ParsePublicKey(wire)
	if err != nil {
		return nil, invalidKey("this is not an SSH public key").Because(err)
	}
	if !bytes.Equal(pub.Marshal(), wire) {
		return nil, invalidKey("the public key is not in its usual form")
	}
	switch pub.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
	case ssh.KeyAlgoRSA:
		p, ok := pub.(ssh.CryptoPublicKey)
		if !ok {
			return nil, invalidKey("this is not an SSH public key")
		}
		k, ok := p.CryptoPublicKey().(*rsa.PublicKey)
		if bits := 0; !ok || k.N.BitLen() < MinRSA || k.N.BitLen() > MaxRSA {
			if ok {
				bits = k.N.BitLen()
			}
			return nil, invalidKey("an RSA key has %d to %d bits, not %d", MinRSA, MaxRSA, bits)
		}
	default:
		return nil, invalidKey("keys of type %s are not taken", clip(pub.Type()))
	}
	return &Key{pub: pub, wire: bytes.Clone(wire)}, nil
}

// ParseAuthorizedKey reads a public key as a .pub file has it: type, base64, and
// perhaps a comment, on one line and without options. The error is
// REQUEST_INVALID.
func ParseAuthorizedKey(line string) (*Key, error) {
	fields := strings.Fields(line)
	if strings.ContainsAny(strings.TrimSpace(line), "\r\n") || len(fields) < 2 {
		return nil, invalidKey("this is not an SSH public key: a line of a .pub file is")
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return nil, invalidKey("this is not an SSH public key: a line of a .pub file is").Because(err)
	}
	k, err := ParseKey(wire)
	if err != nil {
		return nil, err
	}
	if k.Type() != fields[0] {
		return nil, invalidKey("the public key is not of the type it says")
	}
	return k, nil
}

func invalidKey(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, format, args...).
		WithNext("Use a key of type ed25519, ecdsa, ed25519-sk or ecdsa-sk, or RSA of %d bits or more", MinRSA)
}

// Wire is the key in SSH's wire form.
func (k *Key) Wire() []byte { return bytes.Clone(k.wire) }

// Type is the key's type, such as ssh-ed25519.
func (k *Key) Type() string { return k.pub.Type() }

// String is the key as a .pub file has it, without a comment.
func (k *Key) String() string { return k.Type() + " " + base64.StdEncoding.EncodeToString(k.wire) }

// Fingerprint is the key's SHA-256 as ssh-keygen -l prints it.
func (k *Key) Fingerprint() string { return ssh.FingerprintSHA256(k.pub) }

// Equal reports whether two keys are the same.
func (k *Key) Equal(o *Key) bool { return bytes.Equal(k.wire, o.wire) }

// signs reports whether a key makes signatures of a format.
func (k *Key) signs(format string) bool {
	if k.Type() == ssh.KeyAlgoRSA {
		return format == ssh.KeyAlgoRSASHA256 || format == ssh.KeyAlgoRSASHA512
	}
	return format == k.Type()
}

// secured reports whether the key lives on a security token, whose signatures
// say more than others.
func (k *Key) secured() bool {
	return k.Type() == ssh.KeyAlgoSKED25519 || k.Type() == ssh.KeyAlgoSKECDSA256
}

// clip makes a foreign text short enough to show.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s), "")
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

// marshal returns the bare form of a signature.
func (e *envelope) marshal() []byte {
	out := append([]byte(magic), binary.BigEndian.AppendUint32(nil, e.Version)...)
	for _, f := range [][]byte{e.Key, []byte(e.Namespace), []byte(e.Reserved), []byte(e.Hash), e.Signature} {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(f))), f...)
	}
	return out
}
