package license

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"strings"

	"github.com/veraison/go-cose"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Size limits of signed objects, in bytes.
const (
	// MaxEnvelope is the limit of every kind but template revisions.
	MaxEnvelope = 64 << 10
	// MaxTemplateEnvelope is the limit of template revisions. They alone do
	// not travel with documents, and may name 50,000 principals. It is what
	// the store takes as one value, less room for a key beside it.
	MaxTemplateEnvelope = 8<<20 - 64<<10
)

// Kind is a kind of signed object.
type Kind uint8

// Kinds of signed objects.
const (
	KindPL          Kind = 1 // publishing license
	KindUL          Kind = 2 // use license
	KindCertificate Kind = 3 // signing certificate of a daemon key
	KindCLC         Kind = 4 // licensor certificate: reserved, refused
	KindBundle      Kind = 5 // trust bundle
	KindGeneration  Kind = 6 // generation record
	KindTemplate    Kind = 7 // template revision
	KindEvidence    Kind = 8 // manifest of a bundle of evidence
	KindArchive     Kind = 9 // end of an archive of a tenant
)

var kinds = map[Kind]struct{ token, what string }{
	KindPL:          {"pl", "publishing license"},
	KindUL:          {"ul", "use license"},
	KindCertificate: {"cert", "signing certificate"},
	KindCLC:         {"clc", "licensor certificate"},
	KindBundle:      {"bundle", "trust bundle"},
	KindGeneration:  {"generation", "generation record"},
	KindTemplate:    {"template", "template revision"},
	KindEvidence:    {"evidence", "evidence"},
	KindArchive:     {"archive", "archive of a tenant"},
}

// String returns the word in the content type: "pl", "ul", "cert" and so on.
func (k Kind) String() string { return kinds[k].token }

// maxSize is the size limit of objects of the kind.
func (k Kind) maxSize() int {
	if k == KindTemplate {
		return MaxTemplateEnvelope
	}
	return MaxEnvelope
}

// what names the kind to a person.
func (k Kind) what() string { return kinds[k].what }

const typePrefix, typeSuffix = "application/vnd.rms.", "+cbor"

func (k Kind) contentType() string { return typePrefix + k.String() + typeSuffix }

// externalAAD separates the kinds under one key.
func (k Kind) externalAAD() []byte { return []byte("rms/v1/" + k.String()) }

// Signature algorithms as field 1 of every header lists them: ours, not
// COSE's, whose numbers are negative.
const (
	SigEd25519 uint16 = 1 // COSE EdDSA (-8) with Ed25519, pure
	SigMLDSA65 uint16 = 2 // reserved: COSE -49
	SigES256   uint16 = 3 // reserved: COSE -7
)

// KeyID names a public key: H(algorithm u16 ‖ public key).
type KeyID [32]byte

// KeyIDOf returns the key ID of an Ed25519 public key.
func KeyIDOf(pub ed25519.PublicKey) KeyID {
	return canon.Hash(binary.BigEndian.AppendUint16(nil, SigEd25519), pub)
}

// Signer signs with a key it holds: a daemon key in memory, or a tenant root
// in its custodian. Sign returns the 64-byte pure Ed25519 signature of exactly
// message; it may be called concurrently, and its errors are passed on.
type Signer interface {
	PublicKey() ed25519.PublicKey
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// Envelope is a signed object taken apart and not yet verified.
type Envelope struct {
	Kind Kind
	// Signers are the key IDs of the signatures, in order.
	Signers []KeyID
	// Header is the encoded field map, Box the sealed bytes or empty.
	Header, Box []byte

	raw        []byte
	payload    []byte
	signatures [][]byte
}

// ParseEnvelope takes a signed object apart. It reads only the one encoding
// that signing produces and checks no signature.
func ParseEnvelope(b []byte) (*Envelope, error) {
	const what = "signed object"
	if err := checkSize(what, b, likelyKind(b)); err != nil {
		return nil, err
	}
	e := &Envelope{raw: bytes.Clone(b)}
	var err error
	if bytes.HasPrefix(b, coseSign) {
		err = e.parseSign()
	} else {
		err = e.parseSign1()
	}
	if err != nil {
		return nil, err
	}
	// The library reads more forms than the one we write. What it read must
	// be exactly what we would have written.
	if !bytes.Equal(e.encode(), b) {
		return nil, malformed(what, "%s", canon.ErrMalformed)
	}
	var parts [][]byte
	if err := canon.Unmarshal(e.payload, &parts); err != nil {
		return nil, decoding(what, err)
	}
	if len(parts) != 2 {
		return nil, malformed(what, "%d parts instead of 2", len(parts))
	}
	e.Header, e.Box = parts[0], parts[1]
	return e, nil
}

func checkSize(what string, b []byte, k Kind) error {
	if limit := k.maxSize(); len(b) > limit {
		return malformed(what, "%d bytes, more than %d", len(b), limit)
	}
	return nil
}

// templateStart is what every template revision begins with: all bytes before
// the key ID.
var templateStart = func() []byte {
	b := appendString(bytes.Clone(coseSign1), cborBytes, protectedSign1(KindTemplate, KeyID{}))
	return b[:len(b)-len(KeyID{})]
}()

// likelyKind tells template revisions from everything else by their first
// bytes, so that the size limit is known before anything is parsed.
func likelyKind(b []byte) Kind {
	if bytes.HasPrefix(b, templateStart) {
		return KindTemplate
	}
	return 0
}

func (e *Envelope) parseSign1() error {
	var m cose.Sign1Message
	if err := m.UnmarshalCBOR(e.raw); err != nil {
		return malformed("signed object", "not COSE").Because(err)
	}
	e.payload, e.signatures = m.Payload, [][]byte{m.Signature}
	if err := e.readType(m.Headers.Protected); err != nil {
		return err
	}
	return e.readSigner(m.Headers.Protected)
}

func (e *Envelope) parseSign() error {
	var m cose.SignMessage
	if err := m.UnmarshalCBOR(e.raw); err != nil {
		return malformed("signed object", "not COSE").Because(err)
	}
	e.payload = m.Payload
	if err := e.readType(m.Headers.Protected); err != nil {
		return err
	}
	if len(m.Signatures) != 2 {
		return malformed(e.Kind.what(), "%d signatures", len(m.Signatures))
	}
	for _, s := range m.Signatures {
		e.signatures = append(e.signatures, s.Signature)
		if err := e.readSigner(s.Headers.Protected); err != nil {
			return err
		}
	}
	return nil
}

func (e *Envelope) readType(h cose.ProtectedHeader) error {
	t, _ := h[cose.HeaderLabelContentType].(string)
	name, begins := strings.CutPrefix(t, typePrefix)
	name, ends := strings.CutSuffix(name, typeSuffix)
	if !begins || !ends {
		return malformed("signed object", "another content type")
	}
	for k, n := range kinds {
		if n.token == name {
			e.Kind = k
			return nil
		}
	}
	return vocab.Errorf(vocab.ReasonLicenseFormatNewer, "this is a signed object of a kind that this version does not know").
		WithNext("Update this program")
}

func (e *Envelope) readSigner(h cose.ProtectedHeader) error {
	switch alg, err := h.Algorithm(); {
	case err != nil:
		return malformed(e.Kind.what(), "no signature algorithm")
	case alg != cose.AlgorithmEdDSA:
		return unsupported("signatures of COSE algorithm %d are not supported", int64(alg))
	}
	kid, _ := h[cose.HeaderLabelKeyID].([]byte)
	if len(kid) != len(KeyID{}) {
		return malformed(e.Kind.what(), "no key ID")
	}
	e.Signers = append(e.Signers, KeyID(kid))
	return nil
}
