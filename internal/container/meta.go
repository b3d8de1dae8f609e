package container

import (
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Meta is what a container remembers of the original file, readable only with
// the content key.
type Meta struct {
	// Name is the file name without folders, safe to create (see [CleanName]).
	Name string
	// Type is the media type, "type/subtype" without parameters.
	Type string
	// Size is the size of the content in bytes when it was known before it
	// was written, else negative. The stream itself is what counts:
	// [Content.Size].
	Size int64
	// ModTime is when the original was last changed, to the millisecond;
	// zero when unknown.
	ModTime time.Time
}

// UnknownSize is the Size of a [Meta] made before the content is known.
const UnknownSize int64 = -1

// metaFields is the encoded form.
type metaFields struct {
	Name    string  `cbor:"112,keyasint"`
	Type    string  `cbor:"113,keyasint"`
	Size    *uint64 `cbor:"114,keyasint,omitempty"`
	ModTime uint64  `cbor:"115,keyasint,omitempty"` // ms since 1970, UTC
}

// Latest time in the format: the last millisecond of the year 9999.
const maxModTime = 253402300799999

// encodeMeta cleans m as reading would, so that both sides agree.
func encodeMeta(m Meta) ([]byte, error) {
	f := metaFields{Name: CleanName(m.Name), Type: cleanType(m.Type)}
	if m.Size >= 0 {
		size := uint64(m.Size)
		f.Size = &size
	}
	if ms := m.ModTime.UnixMilli(); !m.ModTime.IsZero() && ms > 0 && ms <= maxModTime {
		f.ModTime = uint64(ms)
	}
	return canon.Marshal(f)
}

// decodeMeta reads what encodeMeta wrote, or what an enemy who had the content
// key did: what the canonical encoding forbids is refused, a name or type that
// is merely hostile is neutralised.
func decodeMeta(b []byte) (Meta, error) {
	var f metaFields
	if err := canon.Unmarshal(b, &f); err != nil {
		return Meta{}, malformed("the name and type it keeps are not readable").Because(err)
	}
	m := Meta{Name: CleanName(f.Name), Type: cleanType(f.Type), Size: UnknownSize}
	if f.Size != nil {
		if *f.Size > maxPlaintext {
			return Meta{}, malformed("the size it keeps is impossible")
		}
		m.Size = int64(*f.Size)
	}
	if f.ModTime > maxModTime {
		return Meta{}, malformed("the time it keeps is impossible")
	}
	if f.ModTime > 0 {
		m.ModTime = time.UnixMilli(int64(f.ModTime)).UTC()
	}
	return m, nil
}

// Meta opens the metadata. Errors have the reason LICENSE_MISMATCH (the key is
// not this file's), CONTENT_CHANGED or CONTAINER_MALFORMED.
func (h *Header) Meta(ck *vocab.Secret) (Meta, error) {
	if !h.prefix.Commits(ck) {
		return Meta{}, wrongKey()
	}
	key := canon.MetaKey(ck)
	defer key.Zero()
	b, err := canon.Open(key, h.prefix.Bytes(), h.meta)
	if err != nil {
		return Meta{}, vocab.Errorf(vocab.ReasonContentChanged, "this .rms file was changed after it was protected: its name and type do not authenticate").
			WithNext("Get the file again from where it came from")
	}
	return decodeMeta(b)
}
