package container_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

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
	noVersion := bytes.Clone(d.file)
	clear(noVersion[8:10])
	f.Add(noVersion)
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
	f.Add(true, uint32(100), []byte{1, 2, 3, 4}, uint32(0), []byte{})
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
		misuse(t, d, file)
	})
}

// misuse reads the content in ways that can only go wrong: with another key,
// as longer than it is, and outside of it. Errors of the device are not part
// of the format; TestDeviceErrors has them.
func misuse(t *testing.T, d *document, file []byte) {
	h, err := container.ReadHeader(bytes.NewReader(file))
	if err != nil {
		return
	}
	other, content := testKey(99), file[h.StreamOffset():]
	if _, err := h.Reader(bytes.NewReader(content), other); !errors.Is(err, vocab.ReasonLicenseMismatch) {
		t.Fatalf("another key: %v", err)
	}
	if _, err := h.ReaderAt(bytes.NewReader(file), int64(len(file)), other); !errors.Is(err, vocab.ReasonLicenseMismatch) {
		t.Fatalf("another key, at random: %v", err)
	}
	if _, err := h.Meta(other); !errors.Is(err, vocab.ReasonLicenseMismatch) {
		t.Fatalf("another key, metadata: %v", err)
	}
	for _, more := range []int64{1, segment, 1 << 60} {
		if _, err := h.ReaderAt(bytes.NewReader(file), int64(len(file))+more, d.ck); !errors.Is(err, vocab.ReasonContentChanged) {
			t.Fatalf("%d bytes longer than it is: %v", more, err)
		}
	}
	c, err := h.ReaderAt(bytes.NewReader(file), int64(len(file)), d.ck)
	if err != nil {
		return
	}
	if h.PlainSize(int64(len(file))) != c.Size() || h.PlainSize(0) != 0 {
		t.Fatalf("measured %d bytes, %d are in it", h.PlainSize(int64(len(file))), c.Size())
	}
	if _, err := c.ReadAt(make([]byte, 1), -1); err == nil {
		t.Fatal("read before the content")
	}
	if n, err := c.ReadAt(make([]byte, 2), c.Size()-1); n > 1 || err == nil {
		t.Fatalf("read %d bytes over the end: %v", n, err)
	}
}

// TestDeviceErrors: what the device says is passed on as it is. It is not
// taken for a file that was changed, which would blame somebody.
func TestDeviceErrors(t *testing.T) {
	broken := errors.New("the test's disk is broken")
	d := newDocument(t, 1, segment+300)
	at := streamAt(t, d.file)
	h, err := container.ReadHeader(bytes.NewReader(d.file))
	if err != nil {
		t.Fatal(err)
	}
	failsAfter := func(n int) io.Reader {
		return io.MultiReader(bytes.NewReader(d.file[at:at+n]), iotest.ErrReader(broken))
	}
	for _, n := range []int{0, 10, 96, 1000} {
		if _, err := container.ReadHeader(io.MultiReader(bytes.NewReader(d.file[:n]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
			t.Errorf("header, after %d bytes: %v", n, err)
		}
	}
	for _, n := range []int{0, 39, 40, 1000, segment, segment + 100} {
		if _, err := readAll(h, failsAfter(n), d.ck); !errors.Is(err, broken) {
			t.Errorf("content, after %d bytes: %v", n, err)
		}
	}
	whole := int64(len(d.file))
	for name, bad := range map[string]brokenAt{"stream header": {d.file, int64(at), broken}, "last segment": {d.file, whole - 1, broken}} {
		if _, err := h.ReaderAt(bad, whole, d.ck); !errors.Is(err, broken) {
			t.Errorf("%s, at random: %v", name, err)
		}
	}
	c, err := h.ReaderAt(brokenAt{d.file, int64(at) + 1000, broken}, whole, d.ck)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.ReadAt(make([]byte, 10), 0); n != 0 || !errors.Is(err, broken) {
		t.Errorf("first segment, at random: %d bytes, %v", n, err)
	}
	if n, err := c.ReadAt(make([]byte, 10), c.Size()-10); n != 10 || err != nil {
		t.Errorf("last segment, which is whole: %d bytes, %v", n, err)
	}
}

// brokenAt is a file with one byte that cannot be read.
type brokenAt struct {
	b   []byte
	at  int64
	err error
}

func (f brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		return int(f.at - off), f.err
	}
	return bytes.NewReader(f.b).ReadAt(p, off)
}
