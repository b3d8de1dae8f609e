package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of the header, in bytes.
const (
	fixedSize = 96 // the prefix and four lengths

	blockSize       = 4096
	minStreamOffset = 8 << 10
	maxStreamOffset = 1 << 20

	maxMeta = 4096
	// MaxLicense is the largest publishing license a container takes: the
	// limit of every signed object.
	MaxLicense = 64 << 10
)

// ErrLicenseDamaged says that the publishing license area of a container is
// not as any write leaves it, most likely because a [ReplaceLicense] was
// interrupted. The content is untouched: the service finds the record by the
// content ID of the [Prefix], and ReplaceLicense repairs the file.
var ErrLicenseDamaged = errors.New("publishing license area is damaged")

// Header is the part of a container before the content. It is immutable and
// safe for concurrent use.
type Header struct {
	prefix  Prefix
	offset  int64 // of the stream
	meta    []byte
	license []byte // nil when the area is damaged
}

// ReadHeader reads the header of a container and leaves r at the first byte of
// the content stream, ready for [Header.Reader]. It reads at most 1 MiB.
//
// It checks form, not authenticity: the prefix is shown to be genuine by the
// publishing license, which the caller verifies, and by the content key. A
// damaged license alone does not fail ReadHeader, see [Header.License].
//
// Errors have the reason CONTAINER_MALFORMED, LICENSE_FORMAT_NEWER or
// SUITE_UNSUPPORTED; an error of r itself is wrapped as it is.
func ReadHeader(r io.Reader) (*Header, error) {
	var fixed [fixedSize]byte
	n, err := io.ReadFull(r, fixed[:])
	if err != nil && !ended(err) {
		return nil, fmt.Errorf("read container header: %w", err)
	}
	h := new(Header)
	if h.prefix, err = parsePrefix(fixed[:n]); err != nil {
		return nil, err
	}
	if n < fixedSize {
		return nil, cutShort()
	}
	streamOffset := binary.BigEndian.Uint32(fixed[80:])
	metaLen := binary.BigEndian.Uint32(fixed[84:])
	licenseLen := binary.BigEndian.Uint32(fixed[88:])
	switch {
	case streamOffset%blockSize != 0 || streamOffset < minStreamOffset || streamOffset > maxStreamOffset:
		return nil, malformed("its header gives an impossible start of the content")
	case metaLen < canon.BoxOverhead || metaLen > maxMeta:
		return nil, malformed("its header gives an impossible length of the metadata")
	case binary.BigEndian.Uint32(fixed[92:]) != 0:
		return nil, malformed("reserved bytes of its header are not zero")
	}
	h.offset = int64(streamOffset)

	rest := make([]byte, streamOffset-fixedSize)
	if _, err := io.ReadFull(r, rest); err != nil {
		if ended(err) {
			return nil, cutShort()
		}
		return nil, fmt.Errorf("read container header: %w", err)
	}
	h.meta = bytes.Clone(rest[:metaLen])
	area := rest[metaLen:]
	if licenseLen > 0 && licenseLen <= MaxLicense && int(licenseLen) <= len(area) && allZero(area[licenseLen:]) {
		h.license = bytes.Clone(area[:licenseLen])
	}
	return h, nil
}

// Prefix says which document it is.
func (h *Header) Prefix() Prefix { return h.prefix }

// StreamOffset is where the content stream begins, in bytes from the start of
// the file.
func (h *Header) StreamOffset() int64 { return h.offset }

// PlainSize is how long the content of a container of size bytes is, in bytes,
// if nothing was cut off or added; only [Header.ReaderAt] says that it was not.
// It is 0 where size leaves no room for content.
func (h *Header) PlainSize(size int64) int64 {
	if size <= h.offset {
		return 0
	}
	_, plain := measure(size - h.offset)
	return max(0, plain)
}

// License returns a copy of the publishing license as it is in the file. The
// caller verifies it and compares it with the prefix; a license that does not
// parse or verify may be one whose replacement was interrupted, just as the
// error of this method: reason LICENSE_MALFORMED, wrapping
// [ErrLicenseDamaged]. Either way the document can be opened by its content ID.
func (h *Header) License() ([]byte, error) {
	if h.license == nil {
		return nil, vocab.Errorf(vocab.ReasonLicenseMalformed, "the publishing license in this .rms file is damaged").
			WithNext("Open the file while the service can be reached: it knows the document by its ID").
			Because(ErrLicenseDamaged)
	}
	return bytes.Clone(h.license), nil
}

// encode returns the header's bytes, up to the stream.
func (h *Header) encode() []byte {
	b := make([]byte, 0, h.offset)
	b = append(b, h.prefix.Bytes()...)
	b = binary.BigEndian.AppendUint32(b, uint32(h.offset))
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.meta)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(h.license)))
	b = binary.BigEndian.AppendUint32(b, 0)
	b = append(b, h.meta...)
	b = append(b, h.license...)
	return b[:h.offset] // the rest of the capacity is zero
}

// streamOffset leaves room for a license of twice the size, so that a later
// one with more grants still fits in place.
func streamOffset(meta, license int) int64 {
	need := fixedSize + meta + 2*license
	return int64(max(minStreamOffset, (need+blockSize-1)/blockSize*blockSize))
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// ended tells the end of the file from a failure to read it.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
