package container

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/openrms/rms/internal/vocab"
)

// slots is how many opened segments a [Content] keeps, and so how many callers
// it serves at once: at most 4 MiB.
const slots = 4

// Content is the content of a container at random offsets. It is safe for
// concurrent use.
type Content struct {
	src      io.ReaderAt
	opener   *opener
	offset   int64 // of the stream in src
	length   int64 // of the stream
	segments int64
	size     int64 // of the plaintext

	mu   sync.Mutex
	idle sync.Cond // signalled when a slot is given back
	slot [slots]slot
	tick uint64
}

// slot is one opened segment. Whoever sets busy owns the rest until it is unset.
type slot struct {
	busy  bool
	used  uint64 // tick of the last use, for the choice of the next victim
	index int64  // of the segment, valid when plain is not nil
	plain []byte // the opened segment, within buf
	buf   []byte
}

// ReaderAt returns the content of the container that src holds, size bytes
// long, at random offsets. Before it returns it authenticates the last
// segment, which fixes the length: nothing was cut off or added. Each other
// segment is authenticated when it is first touched, and nothing of a segment
// is served before all of it is.
//
// A container that was cut, extended or changed is CONTENT_CHANGED, another
// key than the document's LICENSE_MISMATCH. It does not keep ck.
func (h *Header) ReaderAt(src io.ReaderAt, size int64, ck *vocab.Secret) (*Content, error) {
	if !h.prefix.Commits(ck) {
		return nil, wrongKey()
	}
	c := &Content{src: src, offset: h.offset, length: size - h.offset}
	c.idle.L = &c.mu
	if size < h.offset || c.length < streamHeaderSize+tagSize {
		return nil, changed(0)
	}
	if c.segments, c.size = measure(c.length); c.segments > maxSegments {
		return nil, changed(maxSegments)
	}

	var header [streamHeaderSize]byte
	if err := readFull(src, header[:], h.offset, 0); err != nil {
		return nil, err
	}
	var err error
	if c.opener, err = newOpener(h.prefix, ck, header); err != nil {
		return nil, err
	}
	s := c.take(c.segments - 1)
	defer c.giveBack(s)
	if err := c.load(s, c.segments-1); err != nil {
		return nil, err
	}
	return c, nil
}

// Size returns the true size of the content in bytes.
func (c *Content) Size() int64 { return c.size }

// ReadAt implements [io.ReaderAt]. After CONTENT_CHANGED the bytes counted by
// n are authentic.
func (c *Content) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read container: negative offset")
	}
	for n < len(p) {
		at := off + int64(n) // no overflow: off < size here, or the loop ends at once
		if off >= c.size || at >= c.size {
			return n, io.EOF
		}
		// Counted with the stream header in front, all segments are alike.
		i, within := (at+streamHeaderSize)/(segmentSize-tagSize), (at+streamHeaderSize)%(segmentSize-tagSize)
		if i == 0 {
			within -= streamHeaderSize
		}
		m, err := c.copySegment(p[n:], i, within)
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// copySegment copies from offset within of segment i.
func (c *Content) copySegment(p []byte, i, within int64) (int, error) {
	s := c.take(i)
	defer c.giveBack(s)
	if err := c.load(s, i); err != nil {
		return 0, err
	}
	return copy(p, s.plain[within:]), nil
}

// take returns an idle slot: one that holds segment i, else the least recently
// used. It waits while all are busy.
func (c *Content) take(i int64) *slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		var best *slot
		for k := range c.slot {
			s := &c.slot[k]
			if s.busy {
				continue
			}
			if s.plain != nil && s.index == i {
				best = s
				break
			}
			if best == nil || s.used < best.used {
				best = s
			}
		}
		if best != nil {
			c.tick++
			best.used = c.tick
			best.busy = true
			return best
		}
		c.idle.Wait()
	}
}

func (c *Content) giveBack(s *slot) {
	c.mu.Lock()
	s.busy = false
	c.mu.Unlock()
	c.idle.Signal()
}

// load makes s hold segment i.
func (c *Content) load(s *slot, i int64) error {
	if s.plain != nil && s.index == i {
		return nil
	}
	start, end := i*segmentSize, min((i+1)*segmentSize, c.length)
	if i == 0 {
		start = streamHeaderSize
	}
	s.plain, s.index = nil, i
	if n := int(min(c.length, segmentSize)); s.buf == nil {
		s.buf = make([]byte, nonceSize+n)
	}
	b := s.buf[:nonceSize+end-start]
	if err := readFull(c.src, b[nonceSize:], c.offset+start, i); err != nil {
		return err
	}
	plain, err := c.opener.open(b, i, i == c.segments-1)
	if err != nil {
		return err
	}
	s.plain = plain
	return nil
}

// readFull fills b from offset off. A file that ends before is one that was
// cut since its size was taken.
func readFull(src io.ReaderAt, b []byte, off, segment int64) error {
	n, err := src.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case ended(err):
		return changed(segment)
	}
	return fmt.Errorf("read container: %w", err)
}
