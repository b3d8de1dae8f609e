package container_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/vocab"
)

// FuzzReadHeader reads any bytes as a container. What is accepted is one this
// package could have written, byte for byte, apart from the damage a torn
// replacement leaves.
func FuzzReadHeader(f *testing.F) {
	d := newDocument(f, 1, 10)
	f.Add([]byte{})
	f.Add([]byte("%PDF-1.7"))
	f.Add([]byte("\x89RMS\n\x1a\n"))
	for _, n := range []int{5, 79, 80, 95, 96, 200, 8191, 8192, len(d.file)} {
		f.Add(d.file[:n])
	}
	for _, at := range []int{9, 11, 15, 81, 82, 84, 86, 87, 88, 89, 90, 91, 95, 8191} {
		file := bytes.Clone(d.file)
		file[at] ^= 0x11
		f.Add(file)
	}
	noTenant := bytes.Clone(d.file)
	clear(noTenant[16:32])
	f.Add(noTenant)
	f.Fuzz(func(t *testing.T, b []byte) {
		src := bytes.NewReader(b)
		h, err := container.ReadHeader(src)
		if err != nil {
			if vocab.ReasonOf(err) == vocab.ReasonInternal {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		if !bytes.Equal(h.Prefix().Bytes(), b[:container.PrefixSize]) {
			t.Fatal("the prefix does not come back")
		}
		if at := h.StreamOffset(); at > int64(len(b)) || int64(src.Len()) != int64(len(b))-at {
			t.Fatalf("%d bytes left, content begins at %d of %d", src.Len(), at, len(b))
		}
		if l, err := h.License(); err == nil && (len(l) == 0 || len(l) > container.MaxLicense || !bytes.Contains(b, l)) {
			t.Fatalf("a license of %d bytes", len(l))
		}
		if _, err := h.Meta(d.ck); err == nil && h.Prefix() != d.prefix {
			t.Fatal("metadata of a foreign prefix opens")
		}
		disk := &disk{b: bytes.Clone(b)}
		if err := container.ReplaceLicense(disk, []byte("new"), accept); err != nil {
			if !bytes.Equal(disk.b, b) {
				t.Fatal("refused and half applied")
			}
			return
		}
		if l, err := licenseOf(t, disk.b); err != nil || string(l) != "new" {
			t.Fatalf("after a replacement: %q, %v", l, err)
		}
	})
}

// FuzzContent bends the content of a good container: overwrites, cuts and
// extends it. Only the content as it was opens; both readers agree; and what
// comes out before an error is a true beginning.
func FuzzContent(f *testing.F) {
	small, large := newDocument(f, 1, 300), newDocument(f, 1, segment+300)
	f.Add(false, uint32(0), []byte{}, uint32(0), []byte{})
	f.Add(true, uint32(0), []byte{}, uint32(0), []byte{})
	f.Add(false, uint32(0), []byte{0x28}, uint32(0), []byte{})
	f.Add(false, uint32(0), []byte{0x29}, uint32(0), []byte{})
	f.Add(true, uint32(39), []byte{0, 0}, uint32(0), []byte{})
	f.Add(true, uint32(segment), []byte{1}, uint32(0), []byte{})
	f.Add(true, uint32(0), []byte{}, uint32(300), []byte{})
	f.Add(true, uint32(0), []byte{}, uint32(356), []byte{})
	f.Add(false, uint32(0), []byte{}, uint32(300), []byte{})
	f.Add(false, uint32(0), []byte{}, uint32(350), []byte{})
	f.Add(false, uint32(0), []byte{}, uint32(0), []byte{0})
	f.Fuzz(func(t *testing.T, big bool, at uint32, over []byte, cut uint32, tail []byte) {
		d := small
		if big {
			d = large
		}
		const begin = 8192
		file := bytes.Clone(d.file)
		if int(at) < len(file)-begin {
			copy(file[begin+int(at):], over)
		}
		file = file[:len(file)-min(int(cut), len(file)-begin)]
		file = append(file, tail...)
		s, r, err := d.openAll(file)
		if bytes.Equal(file, d.file) != (err == nil) {
			t.Fatalf("opens: %v", err)
		}
		if err != nil && !errors.Is(err, vocab.ReasonContentChanged) {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(d.plain, s) || !bytes.HasPrefix(d.plain, r) {
			t.Fatalf("%d and %d bytes came out that are no beginning of the content", len(s), len(r))
		}
	})
}
