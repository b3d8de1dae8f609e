package license

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"io"

	"github.com/veraison/go-cose"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// First bytes of the two tagged COSE forms (RFC 9052 §2): an array of four
// under tag 18 or 98.
var (
	coseSign1 = []byte{0xd2, 0x84}
	coseSign  = []byte{0xd8, 0x62, 0x84}
)

// CBOR major types used by hand here, because COSE algorithm numbers are
// negative and negative numbers are outside our dialect.
const (
	cborBytes = 2 << 5
	cborText  = 3 << 5
)

func appendString(b []byte, major byte, s []byte) []byte {
	switch n := len(s); {
	case n < 24:
		b = append(b, major|byte(n))
	case n < 1<<8:
		b = append(b, major|24, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return append(b, s...)
}

// The protected headers, deterministic: 1 (alg): -8, 3: content type, 4: kid.
func protectedSign1(k Kind, id KeyID) []byte {
	b := appendString([]byte{0xa3, 0x01, 0x27, 0x03}, cborText, []byte(k.contentType()))
	return appendString(append(b, 0x04), cborBytes, id[:])
}

func protectedBody(k Kind) []byte {
	return appendString([]byte{0xa1, 0x03}, cborText, []byte(k.contentType()))
}

func protectedSignature(id KeyID) []byte {
	return appendString([]byte{0xa2, 0x01, 0x27, 0x04}, cborBytes, id[:])
}

// encode returns the one encoding of e: COSE_Sign1 for one signature,
// COSE_Sign for two, tagged, with empty unprotected headers.
func (e *Envelope) encode() []byte {
	const emptyMap = 0xa0
	if len(e.signatures) == 1 {
		b := appendString(append([]byte(nil), coseSign1...), cborBytes, protectedSign1(e.Kind, e.Signers[0]))
		b = appendString(append(b, emptyMap), cborBytes, e.payload)
		return appendString(b, cborBytes, e.signatures[0])
	}
	b := appendString(append([]byte(nil), coseSign...), cborBytes, protectedBody(e.Kind))
	b = appendString(append(b, emptyMap), cborBytes, e.payload)
	b = append(b, 0x80|byte(len(e.signatures)))
	for i, s := range e.signatures {
		b = appendString(append(b, 0x83), cborBytes, protectedSignature(e.Signers[i]))
		b = appendString(append(b, emptyMap), cborBytes, s)
	}
	return b
}

// seal signs hdr and box as an object of kind k, with every signer.
func seal(ctx context.Context, k Kind, header, box []byte, signers ...Signer) (*Envelope, error) {
	payload, err := canon.Marshal([][]byte{header, box})
	if err != nil {
		return nil, misuse("encoding a payload: %v", err)
	}
	e := &Envelope{Kind: k, Header: header, Box: box, payload: payload}
	for _, s := range signers {
		e.Signers = append(e.Signers, KeyIDOf(s.PublicKey()))
	}
	if len(signers) == 1 {
		m := e.sign1()
		if err := m.Sign(nil, k.externalAAD(), coseSigner{ctx, signers[0]}); err != nil {
			return nil, err
		}
		e.signatures = [][]byte{m.Signature}
	} else {
		m := e.signN()
		var adapted []cose.Signer
		for _, s := range signers {
			adapted = append(adapted, coseSigner{ctx, s})
		}
		if err := m.Sign(nil, k.externalAAD(), adapted...); err != nil {
			return nil, err
		}
		for _, s := range m.Signatures {
			e.signatures = append(e.signatures, s.Signature)
		}
	}
	e.raw = e.encode()
	if limit := k.maxSize(); len(e.raw) > limit {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "this %s would be larger than %d bytes", k.what(), limit).
			WithNext("Use fewer grants, or a group or template instead")
	}
	return e, nil
}

// verify checks every signature, in order, over the bytes as they came.
func (e *Envelope) verify(keys ...ed25519.PublicKey) error {
	if len(keys) != len(e.signatures) {
		return badSignature(e.Kind.what())
	}
	var verifiers []cose.Verifier
	for i, key := range keys {
		if len(key) != ed25519.PublicKeySize || KeyIDOf(key) != e.Signers[i] {
			return badSignature(e.Kind.what())
		}
		v, err := cose.NewVerifier(cose.AlgorithmEdDSA, key)
		if err != nil {
			return badSignature(e.Kind.what()).Because(err)
		}
		verifiers = append(verifiers, v)
	}
	var err error
	if len(keys) == 1 {
		m := e.sign1()
		m.Signature = e.signatures[0]
		err = m.Verify(e.Kind.externalAAD(), verifiers[0])
	} else {
		m := e.signN()
		for i, s := range m.Signatures {
			s.Signature = e.signatures[i]
		}
		err = m.Verify(e.Kind.externalAAD(), verifiers...)
	}
	if err != nil {
		return badSignature(e.Kind.what()).Because(err)
	}
	return nil
}

// sign1 and signN give go-cose the headers as the very bytes of the object.
func (e *Envelope) sign1() *cose.Sign1Message {
	m := cose.NewSign1Message()
	m.Headers.RawProtected = appendString(nil, cborBytes, protectedSign1(e.Kind, e.Signers[0]))
	m.Headers.Protected.SetAlgorithm(cose.AlgorithmEdDSA)
	m.Payload = e.payload
	return m
}

func (e *Envelope) signN() *cose.SignMessage {
	m := cose.NewSignMessage()
	m.Headers.RawProtected = appendString(nil, cborBytes, protectedBody(e.Kind))
	m.Payload = e.payload
	for _, id := range e.Signers {
		s := cose.NewSignature()
		s.Headers.RawProtected = appendString(nil, cborBytes, protectedSignature(id))
		s.Headers.Protected.SetAlgorithm(cose.AlgorithmEdDSA)
		m.Signatures = append(m.Signatures, s)
	}
	return m
}

// coseSigner lets a Signer sign for go-cose.
type coseSigner struct {
	ctx context.Context
	s   Signer
}

func (coseSigner) Algorithm() cose.Algorithm { return cose.AlgorithmEdDSA }

func (c coseSigner) Sign(_ io.Reader, content []byte) ([]byte, error) {
	sig, err := c.s.Sign(c.ctx, content)
	if err != nil {
		return nil, err
	}
	if len(sig) != ed25519.SignatureSize {
		return nil, misuse("signature of %d bytes", len(sig))
	}
	return sig, nil
}

// DaemonKey is an Ed25519 key in memory: what a signing certificate is for.
type DaemonKey struct{ private ed25519.PrivateKey }

// NewDaemonKey makes a random key.
func NewDaemonKey() (*DaemonKey, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, misuse("making a key: %v", err)
	}
	return &DaemonKey{private}, nil
}

// DaemonKeyFromSeed returns the key of an RFC 8032 seed, for key rings and
// test vectors.
func DaemonKeyFromSeed(seed *vocab.Secret) *DaemonKey {
	return &DaemonKey{ed25519.NewKeyFromSeed(seed.Reveal())}
}

// PublicKey implements [Signer].
func (k *DaemonKey) PublicKey() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// Sign implements [Signer]. It does not use the context.
func (k *DaemonKey) Sign(_ context.Context, message []byte) ([]byte, error) {
	return ed25519.Sign(k.private, message), nil
}
