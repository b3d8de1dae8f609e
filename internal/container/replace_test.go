package container_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/vocab"
)

// disk is a file that records its writes and can lose part of one.
type disk struct {
	b      []byte
	writes int
	synced bool
	fail   error
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(d.b).ReadAt(p, off) }
func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if d.fail != nil {
		return 0, d.fail
	}
	d.writes++
	d.synced = false
	return copy(d.b[off:], p), nil
}

func (d *disk) Sync() error {
	d.synced = true
	return nil
}

func accept(container.Prefix, []byte) error { return nil }

func licenseOf(t *testing.T, file []byte) ([]byte, error) {
	t.Helper()
	h, err := container.ReadHeader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return h.License()
}

func TestReplaceLicense(t *testing.T) {
	d := newDocument(t, 1, 1000)
	at := streamAt(t, d.file)
	for _, n := range []int{1, len(d.license) - 1, len(d.license), len(d.license) + 1, 2 * len(d.license)} {
		f := &disk{b: bytes.Clone(d.file)}
		license := bytes.Repeat([]byte{'N'}, n)
		if err := container.ReplaceLicense(f, license, func(p container.Prefix, l []byte) error {
			if p != d.prefix || !bytes.Equal(l, license) {
				t.Errorf("match called with %v and %d bytes", p, len(l))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if f.writes != 1 || !f.synced {
			t.Errorf("%d bytes: %d writes, synced %v", n, f.writes, f.synced)
		}
		if !bytes.Equal(f.b[:88], d.file[:88]) || !bytes.Equal(f.b[at:], d.file[at:]) {
			t.Errorf("%d bytes: more than the license changed", n)
		}
		d := *d
		d.license = license
		if s, r, err := d.openAll(f.b); err != nil || !bytes.Equal(s, d.plain) || !bytes.Equal(r, d.plain) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if err := container.ReplaceLicense(f, license, accept); err != nil || f.writes != 1 {
			t.Errorf("the same again: %v, %d writes", err, f.writes)
		}
	}
}

func TestReplaceLicenseOnDisk(t *testing.T) {
	d := newDocument(t, 1, 1000)
	path := filepath.Join(t.TempDir(), "q.rms")
	if err := os.WriteFile(path, d.file, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := container.ReplaceLicense(f, []byte("new"), accept); err != nil {
		t.Fatal(err)
	}
	h, err := container.ReadHeader(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := h.License(); err != nil || string(l) != "new" {
		t.Fatalf("%q, %v", l, err)
	}
}

// TestReplaceLicenseRefuses: whatever is refused leaves every byte as it was.
func TestReplaceLicenseRefuses(t *testing.T) {
	d := newDocument(t, 1, 1000)
	mismatch := func(container.Prefix, []byte) error { return vocab.ReasonLicenseMismatch }
	metaLen := int(d.file[87])
	fits := streamAt(t, d.file) - 96 - metaLen
	for _, c := range []struct {
		name    string
		license []byte
		match   func(container.Prefix, []byte) error
		want    error
	}{
		{"another document's", []byte("x"), mismatch, vocab.ReasonLicenseMismatch},
		{"empty", nil, accept, vocab.ReasonRequestInvalid},
		{"one byte too many", make([]byte, fits+1), accept, vocab.ReasonRequestInvalid},
		{"over the limit", make([]byte, container.MaxLicense+1), accept, vocab.ReasonRequestInvalid},
	} {
		f := &disk{b: bytes.Clone(d.file)}
		if err := container.ReplaceLicense(f, c.license, c.match); !errors.Is(err, c.want) || !bytes.Equal(f.b, d.file) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	f := &disk{b: bytes.Clone(d.file)}
	if err := container.ReplaceLicense(f, []byte("x"), nil); err == nil || f.writes > 0 {
		t.Errorf("unverified: %v", err)
	}
	if err := container.ReplaceLicense(f, bytes.Repeat([]byte{1}, fits), accept); err != nil {
		t.Errorf("exactly as much as fits: %v", err)
	}
	if err := container.ReplaceLicense(&disk{b: []byte("%PDF-")}, []byte("x"), accept); !errors.Is(err, vocab.ReasonContainerMalformed) {
		t.Errorf("not a container: %v", err)
	}
	f.fail = errDisk
	if err := container.ReplaceLicense(f, []byte("x"), accept); !errors.Is(err, errDisk) {
		t.Errorf("write fails: %v", err)
	}
}

// TestTornReplacement stops a replacement after each sector, in both orders of
// arrival: the content opens, the license is the old one, the new one or
// recognisably neither, and a second replacement repairs the file.
func TestTornReplacement(t *testing.T) {
	d := newDocument(t, 1, 1000)
	at := streamAt(t, d.file)
	for _, n := range []int{10, 400, 1140, 2000} {
		license := bytes.Repeat([]byte{'N'}, n)
		full := &disk{b: bytes.Clone(d.file)}
		if err := container.ReplaceLicense(full, license, accept); err != nil {
			t.Fatal(err)
		}
		for k := 0; k <= at; k += 512 {
			for _, torn := range [][]byte{
				append(bytes.Clone(full.b[:k]), d.file[k:]...),
				append(bytes.Clone(d.file[:k]), full.b[k:]...),
			} {
				l, err := licenseOf(t, torn)
				whole := err == nil && (bytes.Equal(l, license) || bytes.Equal(l, d.license))
				mixed := err == nil && !whole // its signature fails where it is verified
				if err != nil && !(errors.Is(err, container.ErrLicenseDamaged) && errors.Is(err, vocab.ReasonLicenseMalformed)) {
					t.Fatalf("torn at %d: %v", k, err)
				}
				if mixed && len(l) != n && len(l) != len(d.license) {
					t.Fatalf("torn at %d: a license of %d bytes", k, len(l))
				}
				h, err := container.ReadHeader(bytes.NewReader(torn))
				if err != nil {
					t.Fatal(err)
				}
				if h.Prefix() != d.prefix {
					t.Fatalf("torn at %d: another document", k)
				}
				if _, err := h.Meta(d.ck); err != nil {
					t.Fatalf("torn at %d: %v", k, err)
				}
				if got, err := readAll(h, bytes.NewReader(torn[at:]), d.ck); err != nil || !bytes.Equal(got, d.plain) {
					t.Fatalf("torn at %d: content: %v", k, err)
				}
				f := &disk{b: torn}
				if err := container.ReplaceLicense(f, license, accept); err != nil || !bytes.Equal(f.b, full.b) {
					t.Fatalf("torn at %d: not repaired: %v", k, err)
				}
			}
		}
	}
}
