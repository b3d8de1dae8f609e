package license

import (
	"bytes"
	"slices"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// common are the fields every header begins with.
type common struct {
	Algorithms []uint16       `cbor:"1,keyasint"`
	Tenant     vocab.TenantID `cbor:"2,keyasint"`
	IssuedAt   uint64         `cbor:"3,keyasint"`
}

func newCommon(k Kind, t vocab.TenantID, issued time.Time) (common, error) {
	if t.IsZero() {
		return common{}, misuse("%s without tenant", k)
	}
	ms, err := millis(k.what(), "issued_at", issued)
	if err == nil && ms == 0 {
		err = misuse("%s without issued_at", k)
	}
	return common{Algorithms: []uint16{SigEd25519}, Tenant: t, IssuedAt: ms}, err
}

// encodeHeader encodes a header struct. What the dialect cannot hold came from
// outside (text that is not NFC, say), so it is the caller's bad input.
func encodeHeader(k Kind, header any) ([]byte, error) {
	b, err := canon.Marshal(header)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a text for this %s has control characters or is not in Unicode normal form C", k.what()).Because(err)
	}
	return b, nil
}

// open parses an envelope of kind k and decodes its header into header, which
// embeds *c. Nothing is verified yet, except that the signatures that are there
// are those the header requires.
func open(b []byte, k Kind, header any, c *common) (*Envelope, error) {
	// Before parsing: what says it is a large template may still be offered
	// as something small.
	if err := checkSize(k.what(), b, k); err != nil {
		return nil, err
	}
	e, err := ParseEnvelope(b)
	if err != nil {
		return nil, err
	}
	if err := e.decode(k, header, c); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Envelope) decode(k Kind, header any, c *common) error {
	if e.Kind == KindCLC {
		return unsupported("licensor certificates (offline publishing) are not supported")
	}
	if e.Kind != k {
		return malformed(k.what(), "it is a %s", e.Kind.what())
	}
	if err := canon.Unmarshal(e.Header, header); err != nil {
		return decoding(k.what(), err)
	}
	if !slices.Equal(c.Algorithms, []uint16{SigEd25519}) {
		if len(c.Algorithms) == 0 || !slices.IsSorted(c.Algorithms) || len(slices.Compact(slices.Clone(c.Algorithms))) != len(c.Algorithms) {
			return malformed(k.what(), "bad list of signature algorithms")
		}
		return unsupported("this %s requires signature algorithms that are not supported", k.what())
	}
	if len(e.Signers) != 1 && k != KindBundle {
		return malformed(k.what(), "more signatures than it requires")
	}
	if len(e.Box) != 0 && k != KindPL && k != KindUL {
		return malformed(k.what(), "it has a sealed part")
	}
	if c.Tenant.IsZero() {
		return malformed(k.what(), "no tenant")
	}
	if c.IssuedAt == 0 || c.IssuedAt > maxMillis {
		return malformed(k.what(), "bad issued_at")
	}
	return nil
}

// issued returns issued_at of a decoded header.
func (c *common) issued() time.Time { return time.UnixMilli(int64(c.IssuedAt)).UTC() }

// sortedUnique reports whether a list is a set in its canonical order.
func sortedUnique[T any](list []T, compare func(a, b T) int) bool {
	for i := range list {
		if i > 0 && compare(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

func compareIDs[K any](a, b vocab.ID[K]) int { return bytes.Compare(a[:], b[:]) }
