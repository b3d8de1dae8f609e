package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/store"
)

// RunCopier runs the part of the suite that is for stores which are a
// [store.Copier]. A copy is one file; put under that name into an empty
// directory, open must open it.
func RunCopier(t *testing.T, open Open, name string) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Open, string)
	}{
		{"a copy is what its beginning saw, whatever is written meanwhile", copyIsOneSnapshot},
		{"an error at the beginning ends a copy before its first byte", copyRefused},
		{"an error of the writer ends a copy and comes back as it is", copyBroken},
		{"a copy ends with its context", copyCancelled},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open, name) })
	}
}

func copier(t *testing.T, s store.Store) store.Copier {
	t.Helper()
	c, ok := s.(store.Copier)
	if !ok {
		t.Fatalf("%T is not a store.Copier", s)
	}
	return c
}

// counter writes the next number everywhere, so that a state that mixes two
// transactions shows.
func counter(t *testing.T, s store.Store, n uint64) {
	t.Helper()
	err := s.Commit(t.Context(), func(tx store.Tx) error {
		for i := range 64 {
			v := append(binary.BigEndian.AppendUint64(nil, n), bytes.Repeat([]byte{byte(n)}, 500)...)
			if err := tx.Put(tableA, fmt.Appendf(nil, "%03d", i), v); err != nil {
				return err
			}
		}
		return tx.Put(tableB, binary.BigEndian.AppendUint64(nil, n), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// counted is the number that a state holds.
func counted(r store.Reader) (n uint64, err error) {
	rows := 0
	for item, err := range r.Scan(tableA, store.Range{}) {
		if err != nil {
			return 0, err
		}
		v := binary.BigEndian.Uint64(item.Value)
		if rows++; rows > 1 && v != n {
			return 0, fmt.Errorf("a state of transactions %d and %d", n, v)
		}
		n = v
	}
	written := uint64(0)
	for _, err := range r.Scan(tableB, store.Range{}) {
		if err != nil {
			return 0, err
		}
		written++
	}
	if rows != 64 || written != n {
		return 0, fmt.Errorf("%d rows, %d transactions of %d", rows, written, n)
	}
	return n, nil
}

func copyIsOneSnapshot(t *testing.T, open Open, name string) {
	s := start(t, open)
	var n uint64
	for range 20 {
		n++
		counter(t, s, n)
	}
	var saw uint64
	var said int64
	var file bytes.Buffer
	written, err := copier(t, s).CopyTo(t.Context(), writerFunc(func(p []byte) (int, error) {
		// Whoever writes need not wait for whoever reads the copy.
		n++
		counter(t, s, n)
		return file.Write(p)
	}), func(r store.Reader, size int64) (err error) {
		said = size
		saw, err = counted(r)
		return err
	})
	if err != nil || written != int64(file.Len()) || said != written {
		t.Fatalf("%d bytes of %d, said %d: %v", written, file.Len(), said, err)
	}
	if saw != 20 || n == 20 {
		t.Fatalf("the copy began at %d, and %d were written in the end", saw, n)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, dir)
	defer c.Close()
	if err := c.View(t.Context(), func(r store.Reader) error {
		got, err := counted(r)
		if err == nil && got != saw {
			err = fmt.Errorf("the copy holds %d, its beginning saw %d", got, saw)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	counter(t, c, saw+1) // and it can be written
}

func copyRefused(t *testing.T, open Open, _ string) {
	s := start(t, open)
	counter(t, s, 1)
	refused := errors.New("test: refused")
	var file bytes.Buffer
	_, err := copier(t, s).CopyTo(t.Context(), &file, func(store.Reader, int64) error { return refused })
	if !errors.Is(err, refused) || file.Len() > 0 {
		t.Errorf("%d bytes, %v", file.Len(), err)
	}
}

func copyBroken(t *testing.T, open Open, _ string) {
	s := start(t, open)
	counter(t, s, 1)
	broken := errors.New("test: broken")
	_, err := copier(t, s).CopyTo(t.Context(), writerFunc(func([]byte) (int, error) { return 0, broken }), nil)
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	counter(t, s, 2) // and the store goes on
}

func copyCancelled(t *testing.T, open Open, _ string) {
	s := start(t, open)
	counter(t, s, 1)
	left := errors.New("test: left")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := copier(t, s).CopyTo(ctx, writerFunc(func(p []byte) (int, error) {
		cancel(left)
		return len(p), nil
	}), nil)
	if !errors.Is(err, left) {
		t.Errorf("one who leaves: %v", err)
	}
	if _, err := copier(t, s).CopyTo(ctx, io.Discard, nil); !errors.Is(err, left) {
		t.Errorf("one who left: %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
