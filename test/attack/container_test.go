package attack

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"testing"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func readHeader(file []byte) (*container.Header, error) {
	return container.ReadHeader(bytes.NewReader(file))
}

// Layout of a file, by docs/formats.md.
const (
	atStreamOffset  = 80
	atMetaLength    = 84
	atLicenseLength = 88
	atMeta          = 96
	segmentSize     = 1 << 20
)

// TestContainer changes a protected file in transit and opens it with the real
// client at the real daemon, as somebody who may read it. Content comes out
// whole and unchanged, or not at all beyond what is authentic.
func TestContainer(t *testing.T) {
	s := newSite(t, nil)
	toBob := grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW)
	content := bytes.Repeat([]byte("TEST 16 bytes ok"), (3*segmentSize)/16)
	small := []byte("TEST a small content")
	big, _ := s.protect(t, "alice", content, rms.ProtectOptions{Name: "report.txt"}, toBob)
	file, _ := s.protect(t, "alice", small, rms.ProtectOptions{Name: "small.txt"}, toBob)
	other, _ := s.protect(t, "alice", small, rms.ProtectOptions{Name: "small.txt"}, toBob)
	bob := s.honest(t, "bob", s.daemon.Addr(), nil)
	u32 := func(f []byte, at int) int { return int(binary.BigEndian.Uint32(f[at:])) }
	stream := u32(file, atStreamOffset)
	licenseAt := atMeta + u32(file, atMetaLength)
	licenseEnd := licenseAt + u32(file, atLicenseLength)

	// attempt opens a changed file. allowed says the change lies where it may
	// do no more than damage the copy of the license.
	attempt := func(t *testing.T, what string, changed, want []byte, allowed bool) {
		t.Helper()
		got, d, err := read(t.Context(), bob, changed)
		if !bytes.HasPrefix(want, got) {
			t.Fatalf("%s: bytes came out that are not the content's", what)
		}
		switch {
		case err == nil && !allowed:
			t.Fatalf("%s: the file opened", what)
		case err == nil && (!bytes.Equal(got, want) || !d.LicenseDamaged):
			t.Fatalf("%s: the file opened without a word of the damage", what)
		case err != nil && vocab.ReasonOf(err) == vocab.ReasonInternal:
			t.Fatalf("%s: refused without a reason: %v", what, err)
		}
	}
	flip := func(f []byte, at int) []byte {
		changed := bytes.Clone(f)
		changed[at] ^= 0x40
		return changed
	}

	t.Run("every byte of the header up to the license", func(t *testing.T) {
		for at := range licenseAt {
			attempt(t, "byte "+itoa(at), flip(file, at), small, at >= atStreamOffset && at < atMeta)
		}
	})
	t.Run("the license and what follows it", func(t *testing.T) {
		for at := licenseAt; at < stream; at += 61 {
			attempt(t, "byte "+itoa(at), flip(file, at), small, true)
		}
		attempt(t, "its last byte", flip(file, licenseEnd-1), small, true)
	})
	t.Run("every byte of the stream", func(t *testing.T) {
		for at := stream; at < len(file); at++ {
			attempt(t, "byte "+itoa(at), flip(file, at), small, false)
		}
	})
	t.Run("cut, lengthened, segments moved", func(t *testing.T) {
		first := u32(big, atStreamOffset)
		// A segment of ciphertext has 1 MiB; the first is shorter by Tink's
		// header.
		borders := []int{first, first + 1, first + segmentSize - 1, first + segmentSize, first + segmentSize + 1, first + 2*segmentSize, first + 3*segmentSize, len(big) - 1}
		for _, at := range borders {
			attempt(t, "cut at "+itoa(at), big[:at], content, false)
		}
		attempt(t, "a byte appended", append(bytes.Clone(big), 0), content, false)
		attempt(t, "itself appended", append(bytes.Clone(big), big[first:]...), content, false)
		a, b := first+segmentSize, first+2*segmentSize
		swapped := bytes.Clone(big)
		copy(swapped[a:b], big[b:b+segmentSize])
		copy(swapped[b:b+segmentSize], big[a:b])
		attempt(t, "two segments exchanged", swapped, content, false)
		attempt(t, "a segment dropped", append(bytes.Clone(big[:a]), big[b:]...), content, false)
		attempt(t, "a segment doubled", append(bytes.Clone(big[:b]), big[a:]...), content, false)
		attempt(t, "one byte of the middle", flip(big, a+17), content, false)
	})
	t.Run("parts of another file of the same reader", func(t *testing.T) {
		splice := func(from, to int) []byte {
			changed := bytes.Clone(file)
			copy(changed[from:to], other[from:to])
			return changed
		}
		attempt(t, "the stream", splice(stream, len(file)), small, false)
		attempt(t, "the metadata", splice(atMeta, licenseAt), small, false)
		attempt(t, "the prefix", splice(0, atStreamOffset), small, false)
		if got, _, err := read(t.Context(), bob, splice(licenseAt, licenseEnd)); vocab.ReasonOf(err) != vocab.ReasonLicenseMismatch || len(got) > 0 {
			t.Fatalf("a file with another file's license: %d bytes, %v", len(got), err)
		}
	})
	t.Run("offsets at their limits", func(t *testing.T) {
		for _, at := range []int{atStreamOffset, atMetaLength, atLicenseLength} {
			for _, v := range []uint32{0, 1, 4096, 8192, 1 << 20, 1<<20 + 4096, 1 << 31, 1<<32 - 1} {
				if int(v) == u32(file, at) {
					continue
				}
				changed := bytes.Clone(file)
				binary.BigEndian.PutUint32(changed[at:], v)
				attempt(t, "offset "+itoa(at)+" = "+itoa(int(v)), changed, small, at != atMetaLength)
			}
		}
	})
	t.Run("a read beyond the authentic end, before it is known", func(t *testing.T) {
		d, err := bob.Open(t.Context(), bytes.NewReader(big[:u32(big, atStreamOffset)+2*segmentSize]), int64(u32(big, atStreamOffset)+2*segmentSize), rms.RightView)
		if err == nil {
			_ = d.Close()
			t.Fatal("a file cut at the border of a segment opened for random access")
		}
	})
	t.Run("names that would write elsewhere", func(t *testing.T) {
		for _, name := range []string{"../../../etc/passwd", `..\..\boot.ini`, "/root/.ssh/authorized_keys", "CON", "-rf", ".bashrc", "gnp.\u202eexe.txt", "a\x00b", "C:evil"} {
			hostile, _ := s.protect(t, "mallory", small, rms.ProtectOptions{Name: name}, toBob)
			_, d, err := read(t.Context(), bob, hostile)
			must(t, err)
			if container.CleanName(d.Name) != d.Name || bytes.ContainsAny([]byte(d.Name), "/\\:\x00\u202e") || d.Name[0] == '.' || d.Name[0] == '-' {
				t.Errorf("%q became %q", name, d.Name)
			}
		}
	})
	if got, _, err := read(t.Context(), bob, file); err != nil || !bytes.Equal(got, small) {
		t.Fatalf("the untouched file does not open: %v", err)
	}
	if got, _, err := read(t.Context(), bob, big); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the untouched large file does not open: %v", err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
