package container

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"math"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Sizes of the stream, in bytes: a header of its own length, salt and nonce
// prefix, then segments. The header counts as part of the first segment, so
// that segment i begins at i·segmentSize of the stream.
const (
	segmentSize      = 1 << 20
	streamHeaderSize = 1 + saltSize + noncePrefixSize
	saltSize         = 32
	noncePrefixSize  = 7
	nonceSize        = 12
	tagSize          = 16

	// maxSegments is what Tink's counter of 32 bits reaches.
	maxSegments  = math.MaxUint32
	maxPlaintext = maxSegments*(segmentSize-tagSize) - streamHeaderSize
)

// measure returns how many segments a stream of length bytes has, at least one,
// and how much plaintext they hold. That is negative for a stream too short to
// be one.
func measure(length int64) (segments, plain int64) {
	segments = (length-1)/segmentSize + 1
	return segments, length - streamHeaderSize - segments*tagSize
}

// opener opens the segments of one stream. It is safe for concurrent use.
type opener struct {
	aead        cipher.AEAD
	noncePrefix [noncePrefixSize]byte
}

// newOpener derives the stream's key from the content key, the salt in the
// stream header and the prefix as Tink does.
func newOpener(p Prefix, ck *vocab.Secret, header [streamHeaderSize]byte) (*opener, error) {
	if header[0] != streamHeaderSize {
		return nil, changed(0)
	}
	root := canon.StreamKey(ck)
	defer root.Zero()
	key, err := hkdf.Key(sha256.New, root.Reveal(), header[1:1+saltSize], string(p.Bytes()), vocab.SecretSize)
	if err != nil {
		panic("internal error: HKDF: " + err.Error())
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("internal error: AES: " + err.Error())
	}
	// Opening does not choose a nonce. This form of GCM takes it from before
	// the ciphertext and runs where FIPS 140 alone is allowed, which the one
	// with a nonce argument does not.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("internal error: GCM: " + err.Error())
	}
	return &opener{aead, [noncePrefixSize]byte(header[1+saltSize:])}, nil
}

// open opens segment i in place. b has nonceSize free bytes before the
// ciphertext; the plaintext returned begins at b[0]. b holds nothing of use
// after an error.
func (o *opener) open(b []byte, i int64, last bool) ([]byte, error) {
	if i >= maxSegments || len(b) < nonceSize+tagSize {
		return nil, changed(i)
	}
	copy(b, o.noncePrefix[:])
	binary.BigEndian.PutUint32(b[noncePrefixSize:], uint32(i))
	b[nonceSize-1] = 0
	if last {
		b[nonceSize-1] = 1
	}
	plain, err := o.aead.Open(b[:0], nil, b, nil)
	if err != nil {
		return nil, changed(i)
	}
	return plain, nil
}

// changed is the one answer to content that does not authenticate: what
// exactly was done to it cannot be told. People count segments from 1.
func changed(segment int64) error {
	return vocab.Errorf(vocab.ReasonContentChanged, "the content of this .rms file was changed or cut after it was protected: segment %d does not authenticate", segment+1).
		WithNext("Get the file again from where it came from")
}
