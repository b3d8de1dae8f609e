package container_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/vocab"
)

// Sizes of the stream as the format states them, not as the code computes them.
const (
	segment      = 1048576
	firstPlain   = segment - 40 - 16
	nextPlain    = segment - 16
	streamHeader = 40
)

// document is everything about one test container.
type document struct {
	ck      *vocab.Secret
	prefix  container.Prefix
	license []byte
	meta    container.Meta
	plain   []byte
	file    []byte
}

// testKey is a test value: not a secret.
func testKey(n byte) *vocab.Secret {
	return vocab.SecretFrom(bytes.Repeat([]byte{n}, vocab.SecretSize))
}

// newDocument protects size bytes that no two segments share.
func newDocument(t testing.TB, n byte, size int) *document {
	t.Helper()
	d := &document{
		ck:      testKey(n),
		license: bytes.Repeat([]byte{'L', n}, 570),
		meta: container.Meta{
			Name: fmt.Sprintf("q%d.pdf", n), Type: "application/pdf", Size: int64(size),
			ModTime: time.Date(2026, 11, 22, 9, 12, 1, 5e6, time.UTC),
		},
		plain: make([]byte, size),
	}
	_, _ = rand.NewChaCha8([32]byte{n}).Read(d.plain)
	d.prefix = container.NewPrefix(vocab.TenantID{1, n}, vocab.ContentID{2, n}, d.ck)
	d.file = d.write(t)
	return d
}

func (d *document) write(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := container.Create(&out, d.prefix, d.ck, d.license, d.meta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(d.plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// streamAt is where the content of file begins; the file is a good one.
func streamAt(t testing.TB, file []byte) int {
	t.Helper()
	h, err := container.ReadHeader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return int(h.StreamOffset())
}

// openAll opens file as a client does, with the license compared in place of
// verified, and returns what came out before the error, both ways.
func (d *document) openAll(file []byte) (sequential, random []byte, err error) {
	src := bytes.NewReader(file)
	h, err := container.ReadHeader(src)
	if err != nil {
		return nil, nil, err
	}
	if h.Prefix() != d.prefix {
		return nil, nil, vocab.ReasonLicenseMismatch
	}
	l, err := h.License()
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(l, d.license) {
		return nil, nil, vocab.ReasonLicenseSignature
	}
	if _, err := h.Meta(d.ck); err != nil {
		return nil, nil, err
	}
	sequential, errS := readAll(h, src, d.ck)
	random, errR := readAt(h, file, d.ck)
	return sequential, random, both(errS, errR)
}

// both fails unless the two ways agree that there is an error.
func both(a, b error) error {
	if (a == nil) != (b == nil) {
		return fmt.Errorf("the two readers disagree: %v; %v", a, b)
	}
	return a
}

func readAll(h *container.Header, r io.Reader, ck *vocab.Secret) ([]byte, error) {
	cr, err := h.Reader(r, ck)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(cr)
}

func readAt(h *container.Header, file []byte, ck *vocab.Secret) ([]byte, error) {
	c, err := h.ReaderAt(bytes.NewReader(file), int64(len(file)), ck)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
}

// boundaries are sizes around every border of the stream.
func boundaries() []int {
	sizes := []int{0, 1, 15, 16, 17, 39, 40, 41, 4096}
	for _, border := range []int{firstPlain, firstPlain + 16, firstPlain + 40, nextPlain, segment, firstPlain + nextPlain, firstPlain + nextPlain + 16} {
		sizes = append(sizes, border-1, border, border+1)
	}
	return sizes
}

func TestRoundTrip(t *testing.T) {
	for _, size := range boundaries() {
		d := newDocument(t, 1, size)
		h, err := container.ReadHeader(bytes.NewReader(d.file))
		if err != nil {
			t.Fatal(err)
		}
		if h.Prefix() != d.prefix {
			t.Errorf("%d: prefix %+v", size, h.Prefix())
		}
		if got := h.PlainSize(int64(len(d.file))); got != int64(size) {
			t.Errorf("%d: the size is said to be %d", size, got)
		}
		meta, err := h.Meta(d.ck)
		if d := cmp.Diff(d.meta, meta); d != "" || err != nil {
			t.Errorf("%d: meta, %v: %s", size, err, d)
		}
		s, r, err := d.openAll(d.file)
		if err != nil || !bytes.Equal(s, d.plain) || !bytes.Equal(r, d.plain) {
			t.Errorf("%d: %d and %d bytes came back, %v", size, len(s), len(r), err)
		}
	}
}

// The size of a file that was cut is a guess, but never one that cannot be.
func TestPlainSizeOfCutFile(t *testing.T) {
	d := newDocument(t, 1, 100)
	h, err := container.ReadHeader(bytes.NewReader(d.file))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ size, want int64 }{
		{-1, 0}, {0, 0}, {h.StreamOffset(), 0}, {h.StreamOffset() + 1, 0}, {h.StreamOffset() + 55, 0}, {h.StreamOffset() + 56, 0},
		{h.StreamOffset() + 57, 1}, {int64(len(d.file)), 100}, {h.StreamOffset() + segment + 1, segment + 1 - 40 - 2*16},
	} {
		if got := h.PlainSize(c.size); got != c.want {
			t.Errorf("of %d bytes %d are content, want %d", c.size, got, c.want)
		}
	}
}

// TestLayout pins the bytes a second implementation must write, read with
// nothing of this package.
func TestLayout(t *testing.T) {
	d := newDocument(t, 7, 100)
	want := "\x89RMS\r\n\x1a\n" + "\x00\x01" + "\x00\x01" + "\x00\x00\x00\x00" +
		"\x01\x07" + strings.Repeat("\x00", 14) + "\x02\x07" + strings.Repeat("\x00", 14)
	c := canon.KDF(d.ck, nil, canon.D("rms/v1/ck-commit", canon.Fields{2: d.prefix.Tenant, 16: d.prefix.Content, 18: canon.ContentSuite1}))
	want += string(c.Reveal())
	if got := string(d.file[:80]); got != want || !bytes.Equal(d.prefix.Bytes(), d.file[:80]) {
		t.Fatalf("prefix\n%q, want\n%q", got, want)
	}
	metaLen := int(d.file[87]) // below 256 here
	if got := d.file[80:96]; !bytes.Equal(got, []byte{0, 0, 0x20, 0, 0, 0, 0, byte(metaLen), 0, 0, byte(len(d.license) >> 8), byte(len(d.license) & 255), 0, 0, 0, 0}) {
		t.Fatalf("lengths % x", got)
	}
	meta, err := canon.Open(canon.KDF(d.ck, nil, []byte("rms/v1/meta")), d.file[:80], d.file[96:96+metaLen])
	if err != nil {
		t.Fatal(err)
	}
	wantMeta := "\xa4" + "\x18\x70" + "\x66q7.pdf" + "\x18\x71" + "\x6fapplication/pdf" + "\x18\x72" + "\x18\x64" + "\x18\x73" + "\x1b\x00\x00\x01\xa2\x02\x86\xd6\xed"
	if string(meta) != wantMeta {
		t.Errorf("metadata % x, want % x", meta, wantMeta)
	}
	rest := d.file[96+metaLen:]
	if !bytes.HasPrefix(rest, d.license) || len(bytes.Trim(rest[len(d.license):0x2000-96-metaLen], "\x00")) != 0 {
		t.Error("license or zeros are not where they belong")
	}
	if got, want := len(d.file), 0x2000+streamHeader+100+16; got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}

// stockTink is the stream of a document as Tink alone knows it.
func stockTink(t interface{ Fatal(...any) }, ck *vocab.Secret) *subtle.AESGCMHKDF {
	key, err := hkdf.Key(sha256.New, ck.Reveal(), nil, "rms/v1/stream", 32)
	if err != nil {
		t.Fatal(err)
	}
	tink, err := subtle.NewAESGCMHKDF(key, "SHA256", 32, segment, 0)
	if err != nil {
		t.Fatal(err)
	}
	return tink
}

// checkWithTink writes with each and reads with the other.
func checkWithTink(t interface {
	Fatal(...any)
	Errorf(string, ...any)
}, d *document, chunk int) {
	tink := stockTink(t, d.ck)
	h, err := container.ReadHeader(bytes.NewReader(d.file))
	if err != nil {
		t.Fatal(err)
	}
	at := int(h.StreamOffset())
	r, err := tink.NewDecryptingReader(bytes.NewReader(d.file[at:]), d.file[:80])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, d.plain) {
		t.Errorf("Tink reads %d of our %d bytes: %v", len(got), len(d.plain), err)
	}

	theirs := bytes.NewBuffer(bytes.Clone(d.file[:at]))
	w, err := tink.NewEncryptingWriter(theirs, d.file[:80])
	if err != nil {
		t.Fatal(err)
	}
	for b := d.plain; len(b) > 0; {
		n := min(chunk, len(b))
		if _, err := w.Write(b[:n]); err != nil {
			t.Fatal(err)
		}
		b = b[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, ra, err := d.openAll(theirs.Bytes())
	if err != nil || !bytes.Equal(s, d.plain) || !bytes.Equal(ra, d.plain) {
		t.Errorf("we read %d and %d of Tink's %d bytes: %v", len(s), len(ra), len(d.plain), err)
	}
}

func TestTinkAtBoundaries(t *testing.T) {
	for _, size := range boundaries() {
		checkWithTink(t, newDocument(t, 2, size), 1<<30)
	}
}

func TestTinkProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		border := rapid.SampledFrom([]int{0, firstPlain, firstPlain + nextPlain}).Draw(rt, "border")
		size := max(0, border+rapid.IntRange(-64, 64).Draw(rt, "distance"))
		chunk := rapid.SampledFrom([]int{1000, 65536, segment - 1, segment, segment + 1, 1 << 30}).Draw(rt, "chunk")
		checkWithTink(rt, newDocument(t, 3, size), chunk)
	})
}

// TestCreateRefuses: nothing is written for what could not be opened.
func TestCreateRefuses(t *testing.T) {
	good := newDocument(t, 1, 0)
	other := good.prefix
	other.Content[5]++
	suite2 := good.prefix
	suite2.ContentSuite = 2
	for _, c := range []struct {
		name    string
		prefix  container.Prefix
		license []byte
		want    vocab.Reason
	}{
		{"prefix that does not commit to the key", other, good.license, vocab.ReasonLicenseMismatch},
		{"reserved suite", suite2, good.license, vocab.ReasonSuiteUnsupported},
		{"no document", container.NewPrefix(vocab.TenantID{1}, vocab.ContentID{}, good.ck), good.license, vocab.ReasonContainerMalformed},
		{"no license", good.prefix, nil, vocab.ReasonRequestInvalid},
		{"license too large", good.prefix, make([]byte, container.MaxLicense+1), vocab.ReasonRequestInvalid},
	} {
		var out bytes.Buffer
		if _, err := container.Create(&out, c.prefix, good.ck, c.license, good.meta); !errors.Is(err, c.want) || out.Len() != 0 {
			t.Errorf("%s: %v after %d bytes, want %s", c.name, err, out.Len(), c.want)
		}
	}
	if _, err := container.Create(io.Discard, good.prefix, nil, good.license, good.meta); !errors.Is(err, vocab.ReasonLicenseMismatch) {
		t.Errorf("no key: %v", err)
	}
}

func TestLargestLicense(t *testing.T) {
	d := newDocument(t, 1, 10)
	d.license = bytes.Repeat([]byte{1}, container.MaxLicense)
	if _, _, err := d.openAll(d.write(t)); err != nil {
		t.Fatal(err)
	}
}

// TestAnnouncedSize: a file that changes while it is read is not protected in
// part.
func TestAnnouncedSize(t *testing.T) {
	d := newDocument(t, 1, 10)
	for _, write := range []string{"123456789", "12345678901"} {
		var out bytes.Buffer
		w, err := container.Create(&out, d.prefix, d.ck, d.license, d.meta)
		if err != nil {
			t.Fatal(err)
		}
		_, err1 := io.WriteString(w, write)
		err2 := w.Close()
		if !errors.Is(errors.Join(err1, err2), vocab.ReasonRequestInvalid) {
			t.Errorf("%d of 10 bytes: %v, %v", len(write), err1, err2)
		}
		if _, _, err := d.openAll(out.Bytes()); !errors.Is(err, vocab.ReasonContentChanged) {
			t.Errorf("%d of 10 bytes: the file opens: %v", len(write), err)
		}
	}
	d.meta.Size = container.UnknownSize
	if _, _, err := d.openAll(d.write(t)); err != nil {
		t.Errorf("unknown size: %v", err)
	}
}

// failing takes n bytes and then fails.
type failing struct{ n int }

var errDisk = errors.New("disk full")

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

// TestWriterFailsForGood: after an error nothing more reaches the file, so no
// segment is sealed twice.
func TestWriterFailsForGood(t *testing.T) {
	d := newDocument(t, 1, 3*segment)
	for _, room := range []int{0, 8192, 8192 + streamHeader, 8192 + segment, 8192 + 2*segment} {
		f := &failing{room}
		w, err := container.Create(f, d.prefix, d.ck, d.license, d.meta)
		if err == nil {
			_, err = w.Write(d.plain)
		}
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, errDisk) {
			t.Fatalf("room for %d: %v", room, err)
		}
		if w == nil {
			continue
		}
		f.n = 1 << 40
		if _, again := w.Write(d.plain); !errors.Is(again, err) {
			t.Errorf("second Write: %v", again)
		}
		if again := w.Close(); !errors.Is(again, err) {
			t.Errorf("Close: %v", again)
		}
		if f.n != 1<<40 {
			t.Errorf("room for %d: written after an error", room)
		}
	}
	w, err := container.Create(io.Discard, d.prefix, d.ck, d.license, container.Meta{Size: container.UnknownSize})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Error(err)
	}
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("Write after Close")
	}
}

// TestWrongKey: a key that some license delivered is not taken on its word.
func TestWrongKey(t *testing.T) {
	d := newDocument(t, 1, 10)
	src := bytes.NewReader(d.file)
	h, err := container.ReadHeader(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, ck := range []*vocab.Secret{testKey(9), nil} {
		_, errMeta := h.Meta(ck)
		_, errReader := h.Reader(src, ck)
		_, errAt := h.ReaderAt(src, src.Size(), ck)
		for _, err := range []error{errMeta, errReader, errAt} {
			if !errors.Is(err, vocab.ReasonLicenseMismatch) {
				t.Errorf("wrong key: %v", err)
			}
		}
	}
}

// TestConstantMemory writes and reads 64 MiB with less than 8 MiB allocated.
func TestConstantMemory(t *testing.T) {
	const size = 64 << 20
	d := newDocument(t, 1, 0)
	d.meta.Size = size
	block := make([]byte, 32<<10)
	per := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			pr, pw := io.Pipe()
			go func() {
				w, err := container.Create(pw, d.prefix, d.ck, d.license, d.meta)
				for i := 0; i < size && err == nil; i += len(block) {
					_, err = w.Write(block)
				}
				if err == nil {
					err = w.Close()
				}
				pw.CloseWithError(err)
			}()
			h, err := container.ReadHeader(pr)
			if err != nil {
				b.Fatal(err)
			}
			r, err := h.Reader(pr, d.ck)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, struct{ io.Reader }{r}); n != size || err != nil {
				b.Fatal(n, err)
			}
		}
	})
	if got := per.AllocedBytesPerOp(); got > 8<<20 || got == 0 {
		t.Errorf("%d bytes allocated for a content of %d", got, size)
	}
}
