package rms

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/openrms/rms/internal/container"
)

// Document is an open document. Reading is safe for concurrent use; it serves
// only authentic bytes, and never beyond the true end.
//
// Use it for what [Document.Rights] allow.
type Document struct {
	// License is the content ID: the document's and its license's.
	License ContentID
	// Rights are all rights held. ExpireTime is when the use license ends: a
	// document that is open then may stay open, but opening it anew asks the
	// service again.
	Rights     Rights
	ExpireTime time.Time
	// Event records this open, and Receipt is the hash under which it is in
	// the tenant's log.
	Event   EventID
	Receipt [32]byte
	// BreakGlass says that a recovery opened it: see [ByRecovery].
	BreakGlass bool
	// Name is the original's name: no folders, safe to create as a file.
	Name string
	// MediaType is "type/subtype".
	MediaType string
	// ModTime is when the original was last changed; zero if unknown.
	ModTime time.Time
	// Size of the content in bytes.
	Size int64
	// LicenseDamaged says that the publishing license in the file cannot be
	// read, most likely because its replacement was interrupted. The document
	// opens all the same while the service can be reached.
	LicenseDamaged bool

	content atomic.Pointer[container.Content] // nil once closed
}

// copyBuffer is how much [Document.WriteTo] copies at once: a segment and no
// more.
const copyBuffer = 1 << 20

var errClosed = errors.New("read document: it was closed")

// ReadAt implements [io.ReaderAt]. CONTENT_CHANGED says that the part of the
// document it came to is not what was protected; the bytes before it are.
func (d *Document) ReadAt(p []byte, off int64) (int, error) {
	content := d.content.Load()
	if content == nil {
		return 0, errClosed
	}
	return content.ReadAt(p, off)
}

// WriteTo implements [io.WriterTo]: it writes the whole content, in constant
// memory.
func (d *Document) WriteTo(w io.Writer) (written int64, err error) {
	buf := make([]byte, min(copyBuffer, d.Size))
	defer clear(buf)
	for written < d.Size {
		n, err := d.ReadAt(buf[:min(int64(len(buf)), d.Size-written)], written)
		if n > 0 {
			m, err := w.Write(buf[:n])
			written += int64(m)
			if err == nil && m < n {
				err = io.ErrShortWrite
			}
			if err != nil {
				return written, err
			}
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Close ends reading. It does not close what the document was opened from, and
// never fails. The content key was gone before the first byte was read; what
// the cipher keeps of it is given up now.
func (d *Document) Close() error {
	d.content.Store(nil)
	return nil
}
