package license

import (
	"encoding/binary"

	"github.com/openrms/rms/internal/vocab"
)

// Ways a custodian wraps a generation: the l0_type of a [Wrap].
const (
	L0AES      uint8 = 1 // Vault transit, aes256-gcm96, derived
	L0RSA      uint8 = 2 // reserved for RSA-OAEP-SHA256, refused
	L0Embedded uint8 = 3 // the daemon's own key ring
)

// Bounds of a wrap's ciphertext in bytes. AES wraps of 64 bytes are 92 long.
const (
	minCiphertext = 29
	maxCiphertext = 1024
)

const wrapHead = 16 + 1 + 4 + 2

// Wrap is a generation's secret sealed by a custodian. It needs no checksum of
// its own: what comes out must match a signed commitment.
type Wrap struct {
	Custodian  vocab.CustodianID
	L0Type     uint8
	L0Version  uint32 // of the tenant key, from 1
	Ciphertext []byte // raw, without the custodian's own framing
}

// Encode returns custodian 16 ‖ type u8 ‖ version u32 ‖ length u16 ‖
// ciphertext, numbers big-endian. It does not validate: [ParseWrap] does.
func (w *Wrap) Encode() []byte {
	b := make([]byte, 0, wrapHead+len(w.Ciphertext))
	b = append(b, w.Custodian[:]...)
	b = append(b, w.L0Type)
	b = binary.BigEndian.AppendUint32(b, w.L0Version)
	b = binary.BigEndian.AppendUint16(b, uint16(len(w.Ciphertext)))
	return append(b, w.Ciphertext...)
}

// ParseWrap reads what [Wrap.Encode] wrote. The ciphertext is a copy.
func ParseWrap(b []byte) (*Wrap, error) {
	if len(b) < wrapHead || len(b) > wrapHead+maxCiphertext {
		return nil, malformed("wrapped key", "%d bytes", len(b))
	}
	w := &Wrap{
		Custodian: vocab.CustodianID(b[:16]),
		L0Type:    b[16],
		L0Version: binary.BigEndian.Uint32(b[17:]),
	}
	n := int(binary.BigEndian.Uint16(b[21:]))
	w.Ciphertext = append([]byte(nil), b[wrapHead:]...)
	if n != len(w.Ciphertext) {
		return nil, malformed("wrapped key", "length field does not match")
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Wrap) check() error {
	switch {
	case w.L0Type == L0RSA:
		return unsupported("RSA tenant keys (l0_type 2) are not supported")
	case w.L0Type != L0AES && w.L0Type != L0Embedded:
		return unsupported("tenant keys of type %d are not supported", w.L0Type)
	case w.Custodian.IsZero():
		return malformed("wrapped key", "no custodian")
	case w.L0Version == 0:
		return malformed("wrapped key", "no key version")
	case len(w.Ciphertext) < minCiphertext || len(w.Ciphertext) > maxCiphertext:
		return malformed("wrapped key", "ciphertext of %d bytes", len(w.Ciphertext))
	}
	return nil
}
