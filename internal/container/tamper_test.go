package container_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/vocab"
)

// refused fails the test unless the file is refused for one of the reasons
// (any, if none is given), and what came out before is a true beginning of the
// content and not all of it when read at random offsets.
func (d *document) refused(t *testing.T, what string, file []byte, reasons ...vocab.Reason) {
	t.Helper()
	s, r, err := d.openAll(file)
	if err == nil || vocab.ReasonOf(err) == vocab.ReasonInternal {
		t.Errorf("%s: %v", what, err)
		return
	}
	if len(reasons) > 0 && !slices.Contains(reasons, vocab.ReasonOf(err)) {
		t.Errorf("%s: %v, want %v", what, err, reasons)
	}
	if !bytes.HasPrefix(d.plain, s) || !bytes.HasPrefix(d.plain, r) {
		t.Errorf("%s: %d and %d bytes came out that are no beginning of the content", what, len(s), len(r))
	}
}

// TestEveryHeaderByte changes each byte before the content, in two ways.
func TestEveryHeaderByte(t *testing.T) {
	d := newDocument(t, 1, 100)
	end := streamAt(t, d.file) + streamHeader
	for i := range end {
		for _, x := range []byte{0x01, 0x80} {
			file := bytes.Clone(d.file)
			file[i] ^= x
			s, r, err := d.openAll(file)
			if err == nil || len(s)+len(r) > 0 {
				t.Fatalf("byte %d xor %#x: %v, %d bytes out", i, x, err, len(s)+len(r))
			}
		}
	}
}

// TestEveryCut cuts a small container everywhere.
func TestEveryCut(t *testing.T) {
	d := newDocument(t, 1, 100)
	for i := range d.file {
		_, _, err := d.openAll(d.file[:i])
		want := vocab.ReasonContainerMalformed
		if i >= streamAt(t, d.file) {
			want = vocab.ReasonContentChanged
		}
		if !errors.Is(err, want) {
			t.Fatalf("cut to %d bytes: %v, want %s", i, err, want)
		}
	}
}

// TestSegments rearranges a content of four segments in every way an enemy
// without the key can.
func TestSegments(t *testing.T) {
	d := newDocument(t, 1, 3*segment+1000)
	at := streamAt(t, d.file)
	head, stream := d.file[:at], d.file[at:]
	var seg [][]byte
	for b := stream; len(b) > 0; {
		n := min(segment, len(b))
		seg = append(seg, b[:n])
		b = b[n:]
	}
	seg[0] = seg[0][streamHeader:]
	build := func(parts ...[]byte) []byte {
		return slices.Concat(append([][]byte{head, stream[:streamHeader]}, parts...)...)
	}
	if _, _, err := d.openAll(build(seg...)); err != nil {
		t.Fatal(err)
	}
	for i := range seg {
		for _, at := range []int{0, len(seg[i]) / 2, len(seg[i]) - 1} {
			bent := slices.Clone(seg)
			bent[i] = bytes.Clone(seg[i])
			bent[i][at] ^= 4
			s, r, err := d.openAll(build(bent...))
			if !errors.Is(err, vocab.ReasonContentChanged) {
				t.Errorf("segment %d changed at %d: %v", i, at, err)
			}
			if want := "segment " + string(rune('1'+i)); err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%v: does not name %s", err, want)
			}
			good := 0
			if i > 0 {
				good = firstPlain + (i-1)*nextPlain
			}
			if !bytes.Equal(s, d.plain[:good]) {
				t.Errorf("segment %d changed: %d bytes released, want %d", i, len(s), good)
			}
			if i == len(seg)-1 {
				good = 0 // the last is looked at first
			}
			if !bytes.Equal(r, d.plain[:good]) {
				t.Errorf("segment %d changed: %d bytes at offsets, want %d", i, len(r), good)
			}
		}
		d.refused(t, "dropped", build(slices.Delete(slices.Clone(seg), i, i+1)...), vocab.ReasonContentChanged)
		d.refused(t, "doubled", build(slices.Insert(slices.Clone(seg), i, seg[i])...), vocab.ReasonContentChanged)
		for j := range i {
			bent := slices.Clone(seg)
			bent[i], bent[j] = bent[j], bent[i]
			d.refused(t, "swapped", build(bent...), vocab.ReasonContentChanged)
		}
	}
	other := newDocument(t, 2, len(d.plain)).file[at:]
	for i := range seg {
		bent := slices.Clone(seg)
		from := i * segment
		if i == 0 {
			from = streamHeader
		}
		bent[i] = other[from : from+len(seg[i])]
		d.refused(t, "taken from another", build(bent...), vocab.ReasonContentChanged)
	}
	d.refused(t, "whole stream of another", slices.Concat(head, other), vocab.ReasonContentChanged)
	again := d.write(t)
	d.refused(t, "first segment of another writing", slices.Concat(again[:at+segment], stream[segment:]), vocab.ReasonContentChanged)
	for _, tail := range [][]byte{{0}, make([]byte, 16), make([]byte, segment), seg[3], d.file, make([]byte, segment-len(seg[3]))} {
		d.refused(t, "appended", append(bytes.Clone(d.file), tail...), vocab.ReasonContentChanged)
	}
	for border := at; border < len(d.file); border += segment {
		for _, cut := range []int{border - 1, border, border + 1, border + 15, border + 16, border + 17} {
			d.refused(t, "cut", d.file[:cut])
		}
	}
	d.refused(t, "last byte cut", d.file[:len(d.file)-1], vocab.ReasonContentChanged)
}

// TestExactSegments cuts and extends contents that end with a full segment.
func TestExactSegments(t *testing.T) {
	for _, size := range []int{firstPlain, firstPlain + nextPlain} {
		d := newDocument(t, 1, size)
		for _, n := range []int{1, 15, 16, 17, segment - 1, segment} {
			d.refused(t, "cut", d.file[:len(d.file)-n], vocab.ReasonContentChanged)
			d.refused(t, "extended", append(bytes.Clone(d.file), make([]byte, n)...), vocab.ReasonContentChanged)
		}
	}
}

// TestMixedContainers puts the parts of one document into another of the same
// tenant and shape.
func TestMixedContainers(t *testing.T) {
	a, b := newDocument(t, 1, 100), newDocument(t, 2, 100)
	metaLen := int(binary.BigEndian.Uint32(a.file[84:]))
	at := streamAt(t, a.file)
	for _, part := range []struct {
		name     string
		from, to int
		want     vocab.Reason
	}{
		{"prefix", 0, 80, vocab.ReasonLicenseMismatch},
		{"tenant", 16, 32, vocab.ReasonLicenseMismatch},
		{"content ID", 32, 48, vocab.ReasonLicenseMismatch},
		{"commitment", 48, 80, vocab.ReasonLicenseMismatch},
		{"metadata", 96, 96 + metaLen, vocab.ReasonContentChanged},
		{"license", 96 + metaLen, at, vocab.ReasonLicenseSignature},
		{"content", at, len(a.file), vocab.ReasonContentChanged},
	} {
		file := bytes.Clone(a.file)
		copy(file[part.from:part.to], b.file[part.from:part.to])
		a.refused(t, part.name, file, part.want)
	}
	// The license is all of B's and only the content is A's: with B's key
	// and B's prefix A's content does not open, with A's key nothing does.
	file := slices.Concat(b.file[:at], a.file[at:])
	b.refused(t, "content of A in B", file, vocab.ReasonContentChanged)
	a.refused(t, "content of A in B, as A", file, vocab.ReasonLicenseMismatch)
}

// TestForgedPrefix: even where nobody compared the license, a prefix that was
// changed opens nothing.
func TestForgedPrefix(t *testing.T) {
	d := newDocument(t, 1, 10)
	for i := range container.PrefixSize {
		file := bytes.Clone(d.file)
		file[i] ^= 2
		h, err := container.ReadHeader(bytes.NewReader(file))
		if err != nil {
			continue
		}
		if _, err := h.Meta(d.ck); !errors.Is(err, vocab.ReasonLicenseMismatch) {
			t.Errorf("byte %d: meta: %v", i, err)
		}
		if out, err := readAll(h, bytes.NewReader(file[h.StreamOffset():]), d.ck); !errors.Is(err, vocab.ReasonLicenseMismatch) || len(out) > 0 {
			t.Errorf("byte %d: content: %v", i, err)
		}
	}
}

func TestHeaderRefuses(t *testing.T) {
	d := newDocument(t, 1, 10)
	put := func(at int, v ...byte) []byte {
		f := bytes.Clone(d.file)
		copy(f[at:], v)
		return f
	}
	for _, c := range []struct {
		name, says string
		file       []byte
		want       vocab.Reason
	}{
		{"empty", "it is empty", nil, vocab.ReasonContainerMalformed},
		{"PDF", "does not begin like one", []byte("%PDF-1.7\n" + strings.Repeat("x", 9000)), vocab.ReasonContainerMalformed},
		{"short other", "does not begin like one", []byte("hi"), vocab.ReasonContainerMalformed},
		{"line ends rewritten", "treated it as text", append([]byte("\x89RMS\n\x1a\n"), d.file[8:]...), vocab.ReasonContainerMalformed},
		{"eighth bit lost", "treated it as text", put(0, 0x09), vocab.ReasonContainerMalformed},
		{"taken for Latin-1", "treated it as text", append([]byte("\xc2"), d.file...), vocab.ReasonContainerMalformed},
		{"taken for UTF-8", "treated it as text", append([]byte("\xef\xbf\xbd"), d.file[1:]...), vocab.ReasonContainerMalformed},
		{"part of the magic", "cut short", d.file[:5], vocab.ReasonContainerMalformed},
		{"part of the prefix", "cut short", d.file[:79], vocab.ReasonContainerMalformed},
		{"part of the lengths", "cut short", d.file[:95], vocab.ReasonContainerMalformed},
		{"newer version", "newer version of the program", put(8, 0, 2), vocab.ReasonLicenseFormatNewer},
		{"version 0", "version is 0", put(8, 0, 0), vocab.ReasonContainerMalformed},
		{"suite 2", "suite 2", put(10, 0, 2), vocab.ReasonSuiteUnsupported},
		{"suite 0", "suite 0", put(10, 0, 0), vocab.ReasonSuiteUnsupported},
		{"reserved in the prefix", "reserved", put(15, 1), vocab.ReasonContainerMalformed},
		{"no tenant", "no tenant", put(16, make([]byte, 16)...), vocab.ReasonContainerMalformed},
		{"no document", "no document", put(32, make([]byte, 16)...), vocab.ReasonContainerMalformed},
		{"content too early", "start of the content", put(80, 0, 0, 0x10, 0), vocab.ReasonContainerMalformed},
		{"content too late", "start of the content", put(80, 0, 0x10, 0x10, 0), vocab.ReasonContainerMalformed},
		{"content at 4 GiB", "start of the content", put(80, 0xff, 0xff, 0xf0, 0), vocab.ReasonContainerMalformed},
		{"content not aligned", "start of the content", put(80, 0, 0, 0x28, 0), vocab.ReasonContainerMalformed},
		{"content beyond the file", "cut short", put(80, 0, 0x10, 0, 0), vocab.ReasonContainerMalformed},
		{"metadata shorter than a box", "metadata", put(84, 0, 0, 0, 27), vocab.ReasonContainerMalformed},
		{"metadata too long", "metadata", put(84, 0, 0, 0x10, 1), vocab.ReasonContainerMalformed},
		{"metadata of 4 GiB", "metadata", put(84, 0xff, 0xff, 0xff, 0xff), vocab.ReasonContainerMalformed},
		{"reserved after the lengths", "reserved", put(95, 1), vocab.ReasonContainerMalformed},
		{"no license", "damaged", put(88, 0, 0, 0, 0), vocab.ReasonLicenseMalformed},
		{"license beyond the content", "damaged", put(88, 0, 0, 0x20, 0), vocab.ReasonLicenseMalformed},
		{"license of 4 GiB", "damaged", put(88, 0xff, 0xff, 0xff, 0xff), vocab.ReasonLicenseMalformed},
		{"bytes after the license", "damaged", put(8191, 1), vocab.ReasonLicenseMalformed},
	} {
		_, _, err := d.openAll(c.file)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s with %q", c.name, err, c.want, c.says)
		}
	}
}

// broken reads like file until it fails at byte n.
type broken struct {
	file []byte
	n    int64
	at   int64
}

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.n {
		return 0, errDisk
	}
	return copy(p, b.file[off:]), nil
}

func (b *broken) Read(p []byte) (int, error) {
	if b.at >= b.n {
		return 0, errDisk
	}
	n := copy(p, b.file[b.at:b.n])
	b.at += int64(n)
	return n, nil
}

// TestSourceFails: a disk that fails is not reported as an attack.
func TestSourceFails(t *testing.T) {
	d := newDocument(t, 1, 2*segment)
	for _, n := range []int64{0, 50, 100, 8191, 8192, 8200, 9000, 8192 + segment, 8192 + segment + 1, int64(len(d.file)) - 1} {
		src := &broken{file: d.file, n: n}
		h, err := container.ReadHeader(src)
		if err == nil {
			_, err = readAll(h, src, d.ck)
		}
		if !errors.Is(err, errDisk) || vocab.ReasonOf(err) != vocab.ReasonInternal {
			t.Errorf("failing at %d: %v", n, err)
		}
	}
	h, err := container.ReadHeader(bytes.NewReader(d.file))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.ReaderAt(&broken{file: d.file, n: 9000}, int64(len(d.file)), d.ck); !errors.Is(err, errDisk) {
		t.Errorf("ReaderAt: %v", err)
	}
}

// TestErrorsAreFinal: a reader that failed does not start to deliver.
func TestErrorsAreFinal(t *testing.T) {
	d := newDocument(t, 1, 2*segment)
	file := bytes.Clone(d.file)
	file[8192+segment+5]++
	src := bytes.NewReader(file)
	h, err := container.ReadHeader(src)
	if err != nil {
		t.Fatal(err)
	}
	r, err := h.Reader(src, d.ck)
	if err != nil {
		t.Fatal(err)
	}
	_, first := io.Copy(io.Discard, r)
	if n, again := r.Read(make([]byte, 10)); n != 0 || !errors.Is(again, first) || first == nil {
		t.Errorf("%v, then %d bytes and %v", first, n, again)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("empty Read: %d, %v", n, err)
	}
}

func TestReadAtOffsets(t *testing.T) {
	d := newDocument(t, 1, 2*segment+500)
	h, err := container.ReadHeader(bytes.NewReader(d.file))
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.ReaderAt(bytes.NewReader(d.file), int64(len(d.file)), d.ck)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(d.plain))
	if c.Size() != size {
		t.Fatalf("Size %d, want %d", c.Size(), size)
	}
	plain := bytes.NewReader(d.plain)
	offsets := []int64{0, 1, size - 1, size, size + 1, math.MaxInt64 - 1, math.MaxInt64}
	for _, border := range []int64{firstPlain, firstPlain + 16, segment, firstPlain + nextPlain} {
		offsets = append(offsets, border-1, border, border+1)
	}
	for _, off := range offsets {
		for _, n := range []int{0, 1, 2, 100, nextPlain + 3, 3 * segment} {
			got, want := make([]byte, n), make([]byte, n)
			gotN, gotErr := c.ReadAt(got, off)
			wantN, wantErr := plain.ReadAt(want, off)
			if n == 0 {
				wantErr = nil
			}
			if gotN != wantN || !errors.Is(gotErr, wantErr) || !bytes.Equal(got, want) {
				t.Errorf("ReadAt(%d bytes, %d) = %d, %v, want %d, %v", n, off, gotN, gotErr, wantN, wantErr)
			}
		}
	}
	for _, off := range []int64{-1, math.MinInt64} {
		if n, err := c.ReadAt(make([]byte, 1), off); n != 0 || err == nil || errors.Is(err, io.EOF) {
			t.Errorf("offset %d: %d, %v", off, n, err)
		}
	}
	for _, size := range []int64{math.MinInt64, -1, 0, 8191, 8192, 8192 + 55, int64(len(d.file)) + 1, math.MaxInt64} {
		if _, err := h.ReaderAt(bytes.NewReader(d.file), size, d.ck); !errors.Is(err, vocab.ReasonContentChanged) {
			t.Errorf("file size given as %d: %v", size, err)
		}
	}
}

// TestReadAtConcurrently reads from more callers than segments are kept.
func TestReadAtConcurrently(t *testing.T) {
	d := newDocument(t, 1, 6*segment)
	h, err := container.ReadHeader(bytes.NewReader(d.file))
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.ReaderAt(bytes.NewReader(d.file), int64(len(d.file)), d.ck)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			got := make([]byte, 70_001)
			for i := range 12 {
				off := (g*999_983 + i*1_299_709) % (len(d.plain) - len(got))
				if _, err := c.ReadAt(got, int64(off)); err != nil || !bytes.Equal(got, d.plain[off:off+len(got)]) {
					t.Errorf("at %d: %v", off, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCutAfterOpening: the file shrinks or changes under an open reader.
func TestCutAfterOpening(t *testing.T) {
	d := newDocument(t, 1, 6*segment)
	path := filepath.Join(t.TempDir(), "q.rms")
	if err := os.WriteFile(path, d.file, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := container.ReadHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.ReaderAt(f, int64(len(d.file)), d.ck)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 3*segment); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(d.plain))
	n, err := c.ReadAt(got, 0)
	if !errors.Is(err, vocab.ReasonContentChanged) || !bytes.Equal(got[:n], d.plain[:n]) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if !bytes.Equal(got[n:], make([]byte, len(got)-n)) {
		t.Error("bytes beyond n were written")
	}
}
