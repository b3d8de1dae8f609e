package container

import (
	"fmt"
	"io"

	"github.com/openrms/rms/internal/vocab"
)

// Reader returns the content from r, which must stand at the first byte of the
// content stream, where [ReadHeader] leaves it. It holds about 1 MiB whatever
// the size.
//
// What Read returns is authentic and in its place, but only io.EOF says that
// it is all: until then a caller keeps it in a temporary file that nobody
// uses. Content that was changed, cut, extended or rearranged fails with
// CONTENT_CHANGED and the number of the segment; what came before is a true
// beginning of the content. Every error is final and repeated. Another key
// than the document's is LICENSE_MISMATCH. The reader is not safe for
// concurrent use and does not keep ck.
func (h *Header) Reader(r io.Reader, ck *vocab.Secret) (io.Reader, error) {
	if !h.prefix.Commits(ck) {
		return nil, wrongKey()
	}
	var header [streamHeaderSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if ended(err) {
			return nil, changed(0)
		}
		return nil, fmt.Errorf("read container: %w", err)
	}
	o, err := newOpener(h.prefix, ck, header)
	if err != nil {
		return nil, err
	}
	return &reader{
		src: r, opener: o,
		room: segmentSize - streamHeaderSize,
		buf:  make([]byte, nonceSize+segmentSize),
	}, nil
}

type reader struct {
	src    io.Reader
	opener *opener
	next   int64  // index of the segment to open next
	room   int    // ciphertext bytes it has unless it is the last
	buf    []byte // nonceSize free bytes, then ciphertext; opened in place
	ahead  [1]byte
	carry  int    // how many bytes of the next segment are in ahead: 0 or 1
	plain  []byte // opened and not yet handed out
	err    error
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.plain) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.plain, r.err = r.segment()
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// segment opens the next segment. With the last one it returns io.EOF, which
// is looked at only after the plaintext is handed out.
func (r *reader) segment() ([]byte, error) {
	cipher := r.buf[nonceSize : nonceSize+r.room]
	copy(cipher, r.ahead[:r.carry])
	n, err := io.ReadFull(r.src, cipher[r.carry:])
	n += r.carry
	if err == nil {
		// One more byte tells whether this full segment is the last.
		r.carry, err = io.ReadFull(r.src, r.ahead[:])
	}
	last := false
	if err != nil {
		if !ended(err) {
			return nil, fmt.Errorf("read container: %w", err)
		}
		last = true
	}
	plain, err := r.opener.open(r.buf[:nonceSize+n], r.next, last)
	if err != nil {
		return nil, err
	}
	r.next++
	r.room = segmentSize
	if last {
		return plain, io.EOF
	}
	return plain, nil
}
