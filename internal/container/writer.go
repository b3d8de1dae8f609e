package container

import (
	"errors"
	"fmt"
	"io"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Create writes the header of a new container to w and returns the writer of
// its content, which holds about 2 MiB whatever the size. Close writes the
// last segment: a container that was not closed does not open. Close does not
// close w.
//
// The prefix must commit to ck, which must never encrypt another container.
// license is the publishing license, at most [MaxLicense] bytes, which the
// caller has verified and compared with the prefix. Name and type of meta are
// cleaned; a Size of zero or more must be met, else Close fails.
//
// Create refuses with LICENSE_MISMATCH, SUITE_UNSUPPORTED, CONTAINER_MALFORMED
// or REQUEST_INVALID before it writes a byte. After the first error of Write
// or Close the writer returns that error for ever and writes nothing more. It
// is not safe for concurrent use.
func Create(w io.Writer, p Prefix, ck *vocab.Secret, license []byte, meta Meta) (io.WriteCloser, error) {
	if err := p.valid(); err != nil {
		return nil, err
	}
	if !p.Commits(ck) {
		return nil, wrongKey()
	}
	if len(license) == 0 || len(license) > MaxLicense {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a publishing license of %d bytes does not go into an .rms file: 1 to %d do", len(license), MaxLicense)
	}
	plain, err := encodeMeta(meta)
	if err != nil {
		return nil, fmt.Errorf("write container: %w", err)
	}
	key := canon.MetaKey(ck)
	defer key.Zero()
	h := &Header{prefix: p, meta: canon.Seal(key, p.Bytes(), plain), license: license}
	h.offset = streamOffset(len(h.meta), len(license))

	root := canon.StreamKey(ck)
	defer root.Zero()
	stream, err := subtle.NewAESGCMHKDF(root.Reveal(), "SHA256", vocab.SecretSize, segmentSize, 0)
	if err != nil {
		return nil, fmt.Errorf("write container: %w", err)
	}
	if _, err := w.Write(h.encode()); err != nil {
		return nil, fmt.Errorf("write container: %w", err)
	}
	enc, err := stream.NewEncryptingWriter(w, p.Bytes())
	if err != nil {
		return nil, fmt.Errorf("write container: %w", err)
	}
	return &writer{enc: enc, want: meta.Size}, nil
}

var errClosed = errors.New("write container: already closed")

type writer struct {
	enc     io.WriteCloser
	want    int64 // negative: whatever comes
	written int64
	closed  bool
	// err is kept: Tink's writer would seal a segment a second time after a
	// failed write.
	err error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.closed {
		return 0, errClosed
	}
	if w.want >= 0 && int64(len(p)) > w.want-w.written {
		return 0, w.fail(sizeDiffers())
	}
	n, err := w.enc.Write(p)
	w.written += int64(n)
	if err != nil {
		return n, w.fail(fmt.Errorf("write container: %w", err))
	}
	return n, nil
}

func (w *writer) Close() error {
	if w.err != nil || w.closed {
		return w.err
	}
	if w.want >= 0 && w.written != w.want {
		return w.fail(sizeDiffers())
	}
	if err := w.enc.Close(); err != nil {
		return w.fail(fmt.Errorf("write container: %w", err))
	}
	w.closed = true
	return nil
}

func (w *writer) fail(err error) error {
	w.err = err
	return err
}

func sizeDiffers() error {
	return vocab.Errorf(vocab.ReasonRequestInvalid, "the file changed while it was being protected: its size is not what it was").
		WithNext("Try again when nothing writes to it")
}
