package archive_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// pieces are an archive's parts before they are sealed, as a fuzzer changes
// them: the head, then frames that each begin with whether they are sealed as
// the last, and their length.
type pieces struct {
	keys *license.ArchiveKeys
	key  *vocab.Secret
	head []byte
	id   vocab.ArchiveID
}

// seal makes the file of frames that anybody may have written: whoever has the
// recipient's public key can seal to it.
func (p *pieces) seal(frames []byte) []byte {
	file := bytes.Clone(p.head)
	for n := uint64(0); len(frames) >= 5; n++ {
		last, size := frames[0]&1, int(binary.BigEndian.Uint32(frames[1:]))
		frames = frames[5:]
		size = min(size, len(frames))
		aad := canon.D("rms/v1/archive-frame", canon.Fields{208: p.id, 214: n, 215: uint64(last)})
		box := canon.Seal(p.key, aad, frames[:size])
		file = append(binary.BigEndian.AppendUint32(file, uint32(len(box))), box...)
		frames = frames[size:]
	}
	return file
}

// open takes an archive apart again.
func (p *pieces) open(tb testing.TB, m *made) (out []byte) {
	tb.Helper()
	x, err := archive.NewReader(bytes.NewReader(m.file), m.key)
	if err != nil {
		tb.Fatal(err)
	}
	p.keys, p.id, p.head = x.Keys(), x.ID(), m.file[:frames(m.file)[0][0]]
	if p.key, err = p.keys.Frames(); err != nil {
		tb.Fatal(err)
	}
	at := frames(m.file)
	for n, f := range at {
		last := byte(0)
		if n == len(at)-1 {
			last = 1
		}
		aad := canon.D("rms/v1/archive-frame", canon.Fields{208: p.id, 214: uint64(n), 215: uint64(last)})
		plain, err := canon.Open(p.key, aad, m.file[f[0]+4:f[1]])
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, last)
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(plain))), plain...)
	}
	return out
}

// FuzzRead gives the reader what somebody sealed who may not: it never panics,
// names one of its reasons, and what it takes for whole is what was ended.
func FuzzRead(f *testing.F) {
	rows := map[uint64][]archive.Row{1: {{Value: []byte("only")}}, 2: {{Key: []byte("a"), Value: []byte("b")}, {Key: []byte("c")}}}
	m := write(f, rows)
	p := &pieces{}
	plain := p.open(f, m)
	f.Add(false, plain)
	f.Add(true, m.file)
	for n := 0; n < len(plain); n += 1 + len(plain)/97 {
		changed := bytes.Clone(plain)
		changed[n] ^= 1
		f.Add(false, changed)
		f.Add(false, plain[:n])
	}
	for n := 0; n < len(m.file); n += 1 + len(m.file)/97 {
		changed := bytes.Clone(m.file)
		changed[n] ^= 1
		f.Add(true, changed)
	}
	f.Add(true, append(bytes.Clone(m.file), 0))
	for _, version := range []byte{0, archive.Version + 1} {
		other := bytes.Clone(m.file)
		other[9] = version
		f.Add(true, other)
	}
	for n := range 14 {
		f.Add(true, m.file[:n])
	}
	frame := func(last byte, v any) []byte {
		b, err := canon.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint32([]byte{last}, uint32(len(b))), b...)
	}
	first := plain[:5+binary.BigEndian.Uint32(plain[1:])]
	type row struct {
		Key   []byte `cbor:"1,keyasint,omitempty"`
		Value []byte `cbor:"2,keyasint,omitempty"`
	}
	type rowFrame struct {
		Kind  uint64 `cbor:"1,keyasint"`
		Table uint64 `cbor:"2,keyasint,omitempty"`
		Rows  []row  `cbor:"3,keyasint,omitempty"`
		Body  []byte `cbor:"4,keyasint,omitempty"`
	}
	for _, odd := range [][]byte{
		frame(0, rowFrame{Kind: 2, Table: 2, Rows: []row{{Key: []byte("b")}, {Key: []byte("a")}}}),
		append(frame(0, rowFrame{Kind: 2, Table: 2, Rows: []row{{Key: []byte("b")}}}), frame(0, rowFrame{Kind: 2, Table: 1, Rows: []row{{Key: []byte("b")}}})...),
		frame(0, rowFrame{Kind: 3, Body: []byte("x")}), frame(1, rowFrame{Kind: 3, Body: []byte("x")}), frame(1, rowFrame{Kind: 2, Table: 1, Rows: []row{{}}}),
		frame(0, rowFrame{Kind: 2}), frame(0, rowFrame{Kind: 7}), frame(0, rowFrame{Kind: 1}), frame(1, rowFrame{Kind: 3, Table: 1}),
	} {
		f.Add(false, append(bytes.Clone(first), odd...))
	}
	f.Add(false, frame(0, rowFrame{Kind: 1, Body: []byte("x")}))
	f.Add(false, frame(0, rowFrame{Kind: 1, Table: 1}))
	f.Add(false, frame(0, rowFrame{Kind: 1, Body: must(canon.Marshal(&archive.Manifest{Name: "No"}))}))
	f.Fuzz(func(t *testing.T, sealed bool, b []byte) {
		if !sealed {
			b = p.seal(b)
		}
		x, rows, err := read(bytes.NewReader(b), m.key)
		switch vocab.ReasonOf(err) {
		case "":
			defer x.Close()
			total := uint64(0)
			for _, table := range x.End().Tables {
				total += table.Rows
			}
			n := uint64(0)
			for _, some := range rows {
				n += uint64(len(some))
			}
			if n != total || x.Bytes() != int64(len(b)) {
				t.Errorf("%d rows of %d, %d bytes of %d", n, total, x.Bytes(), len(b))
			}
		case vocab.ReasonStoreDamaged, vocab.ReasonStoreNewer, vocab.ReasonConfigurationInvalid:
		default:
			t.Errorf("%v", err)
		}
	})
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// FuzzKeyFiles: what is read as a key is one.
func FuzzKeyFiles(f *testing.F) {
	_, secret, public, err := archive.NewKey()
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(secret), public, "", "# nothing", "rms-import-key-v1 ???", "rms-import-key-v1 AAAA", public + public, "x\n", "rms-import-recipient-v1 AAAA"} {
		f.Add([]byte(s))
	}
	f.Add(bytes.Repeat([]byte("#"), 80<<10))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := archive.ReadKey(bytes.NewReader(b)); err != nil && !errors.Is(err, vocab.ReasonConfigurationInvalid) || err == nil && k.KEM() != license.XWing {
			t.Errorf("a key: %v", err)
		}
		if _, raw, err := archive.ReadRecipient(bytes.NewReader(b)); err != nil && !errors.Is(err, vocab.ReasonConfigurationInvalid) || err == nil && len(raw) != 1216 {
			t.Errorf("a recipient: %v", err)
		}
	})
}
