package container_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/openrms/rms/internal/container"
)

const benchSize = 16 << 20

func BenchmarkWrite(b *testing.B) {
	d := newDocument(b, 1, benchSize)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		w, err := container.Create(io.Discard, d.prefix, d.ck, d.license, d.meta)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(d.plain); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	d := newDocument(b, 1, benchSize)
	b.SetBytes(benchSize)
	b.ReportAllocs()
	for b.Loop() {
		src := bytes.NewReader(d.file)
		h, err := container.ReadHeader(src)
		if err != nil {
			b.Fatal(err)
		}
		r, err := h.Reader(src, d.ck)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != benchSize || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkReadAt(b *testing.B) {
	d := newDocument(b, 1, benchSize)
	h, err := container.ReadHeader(bytes.NewReader(d.file))
	if err != nil {
		b.Fatal(err)
	}
	c, err := h.ReaderAt(bytes.NewReader(d.file), int64(len(d.file)), d.ck)
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if _, err := c.ReadAt(p, off); err != nil {
			b.Fatal(err)
		}
		off = (off + 5<<20 + 777) % (benchSize - int64(len(p)))
	}
}
