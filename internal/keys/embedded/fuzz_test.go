package embedded

import (
	"testing"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// FuzzParse: no plaintext of a key ring makes the parser panic, and what it
// accepts it encodes back to the same bytes.
func FuzzParse(f *testing.F) {
	now := time.UnixMilli(1_790_000_000_000)
	good := &ring{ID: [16]byte{1}, Root: []version{newVersion(1, now), newVersion(3, now)}, Sign: []version{newVersion(1, now)}}
	for _, r := range []*ring{
		good,
		{},
		{ID: [16]byte{1}, Root: []version{newVersion(2, now), newVersion(1, now)}, Sign: good.Sign},
		{ID: [16]byte{1}, Root: []version{{Number: 1, Created: 1}}, Sign: good.Sign},
	} {
		b, err := canon.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		in := append([]byte(nil), b...)
		r, err := parse(b)
		if err != nil {
			return
		}
		out, err := canon.Marshal(r)
		if err != nil || string(out) != string(in) {
			t.Errorf("accepted %x, encodes as %x (%v)", in, out, err)
		}
	})
}

// FuzzDecode: nothing from outside opens as a key ring.
func FuzzDecode(f *testing.F) {
	key := vocab.NewSecret() // a test value
	f.Add([]byte(magic))
	f.Add([]byte(magic + "0123456789012345678901234567890123456789"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decode(b, key); err == nil {
			t.Error("opened without its key")
		}
	})
}
