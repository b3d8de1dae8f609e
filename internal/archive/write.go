package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Writer writes an archive: [NewWriter], then [Writer.Row] for every row, tables
// by ascending number and rows by ascending key, then [Writer.Finish]. What was
// written without that is no archive. After an error nothing more can be
// written. It holds one frame. It is not safe for concurrent use.
type Writer struct {
	w    io.Writer
	id   vocab.ArchiveID
	t    vocab.TenantID
	to   [32]byte
	keys *license.ArchiveKeys
	key  *vocab.Secret
	sum  hash.Hash
	size int64
	next uint64 // number of the next frame

	table  license.ArchiveTable
	hash   hash.Hash
	last   []byte
	rows   []Row
	bytes  int
	tables []license.ArchiveTable
}

// NewWriter begins an archive of a tenant, sealed to a recipient. Close it.
func NewWriter(w io.Writer, to *license.Recipient, t vocab.TenantID, id vocab.ArchiveID, m *Manifest) (*Writer, error) {
	keys, enc, err := license.NewArchiveKeys(to, t, id)
	if err != nil {
		return nil, err
	}
	key, err := keys.Frames()
	if err != nil {
		return nil, err
	}
	x := &Writer{w: w, id: id, t: t, to: to.Hash(), keys: keys, key: key, sum: sha256.New()}
	b, err := canon.Marshal(&head{Tenant: t, KEM: uint16(to.KEM()), Recipient: to.Hash(), ID: id, Enc: enc})
	if err != nil {
		return nil, internal(err)
	}
	begin := append([]byte{}, magic[:]...)
	begin = binary.BigEndian.AppendUint16(begin, Version)
	begin = binary.BigEndian.AppendUint16(begin, uint16(len(b)))
	if err := x.write(append(begin, b...)); err != nil {
		return nil, err
	}
	if b, err = canon.Marshal(m); err != nil {
		return nil, internal(err)
	}
	return x, x.frame(&frame{Kind: frameManifest, Body: b}, false)
}

// Close zeroes the keys.
func (x *Writer) Close() { x.key.Zero() }

// Keys are the keys with which secrets of generations are sealed.
func (x *Writer) Keys() *license.ArchiveKeys { return x.keys }

func internal(err error) error {
	return vocab.Errorf(vocab.ReasonInternal, "a part of the archive cannot be encoded").Because(err)
}

func (x *Writer) write(b []byte) error {
	x.sum.Write(b)
	x.size += int64(len(b))
	_, err := x.w.Write(b)
	return err
}

// seal returns a frame as it stands in the file.
func (x *Writer) seal(f *frame, last bool) ([]byte, error) {
	b, err := canon.Marshal(f)
	if err != nil {
		return nil, internal(err)
	}
	if x.next == MaxFrames {
		return nil, vocab.Errorf(vocab.ReasonInternal, "the tenant is too large for an archive")
	}
	box := canon.Seal(x.key, aad(x.id, x.next, last), b)
	x.next++
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(box))), box...), nil
}

func (x *Writer) frame(f *frame, last bool) error {
	b, err := x.seal(f, last)
	if err != nil {
		return err
	}
	return x.write(b)
}

// Row adds a row.
func (x *Writer) Row(table uint64, r Row) error {
	if table != x.table.Number {
		if table < x.table.Number {
			return vocab.Errorf(vocab.ReasonInternal, "tables of an archive are written out of order")
		}
		if err := x.endTable(); err != nil {
			return err
		}
		x.table, x.hash, x.last = license.ArchiveTable{Number: table}, sha256.New(), nil
	} else if string(r.Key) <= string(x.last) {
		return vocab.Errorf(vocab.ReasonInternal, "rows of an archive are written out of order")
	}
	// One that would not fit beside those that wait goes into the next frame.
	n := len(r.Key) + len(r.Value) + 16
	if len(x.rows) == maxRows || len(x.rows) > 0 && x.bytes+n > frameTarget {
		if err := x.flush(); err != nil {
			return err
		}
	}
	x.rows, x.bytes, x.last = append(x.rows, r), x.bytes+n, r.Key
	x.table.Rows++
	addRow(x.hash, r)
	return nil
}

// flush writes the rows that wait.
func (x *Writer) flush() error {
	if len(x.rows) == 0 {
		return nil
	}
	err := x.frame(&frame{Kind: frameRows, Table: x.table.Number, Rows: x.rows}, false)
	x.rows, x.bytes = nil, 0
	return err
}

func (x *Writer) endTable() error {
	if x.table.Rows == 0 {
		return nil
	}
	if err := x.flush(); err != nil {
		return err
	}
	x.table.Hash = [32]byte(x.hash.Sum(nil))
	x.tables = append(x.tables, x.table)
	return nil
}

// Ending is an archive that is whole but for its last frame.
type Ending struct {
	// SHA256 and Bytes are those of the whole file.
	SHA256 [32]byte
	Bytes  int64

	x    *Writer
	last []byte
}

// Finish has the end signed by the tenant's root. The archive is whole when
// [Ending.Write] has returned.
func (x *Writer) Finish(ctx context.Context, root license.Signer, logSize uint64, logRoot [32]byte, now time.Time) (*Ending, error) {
	if err := x.endTable(); err != nil {
		return nil, err
	}
	end, err := license.SignArchive(ctx, root, license.Archive{
		Tenant: x.t, IssuedAt: now, ID: x.id, Recipient: x.to, Before: [32]byte(x.sum.Sum(nil)), LogSize: logSize, LogRoot: logRoot, Tables: x.tables,
	})
	if err != nil {
		return nil, err
	}
	e := &Ending{x: x}
	if e.last, err = x.seal(&frame{Kind: frameEnd, Body: end.Raw()}, true); err != nil {
		return nil, err
	}
	x.sum.Write(e.last)
	e.SHA256, e.Bytes = [32]byte(x.sum.Sum(nil)), x.size+int64(len(e.last))
	return e, nil
}

// Write writes the last frame.
func (e *Ending) Write() error {
	_, err := e.x.w.Write(e.last)
	return err
}
