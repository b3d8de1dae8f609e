package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Reader reads an archive. Nothing that it gave may be used before [Reader.Next]
// has returned [io.EOF] and the end was verified. It holds one frame, at most 8
// MiB. It is not safe for concurrent use.
//
// Errors are STORE_DAMAGED if the file was changed or cut, or is none;
// STORE_NEWER if a newer version wrote it; CONFIGURATION_INVALID if it is sealed
// to another key; and those of the file itself.
type Reader struct {
	r    *source
	head head
	keys *license.ArchiveKeys
	key  *vocab.Secret
	next uint64

	manifest *Manifest
	before   [32]byte // hash of what came before the frame at hand

	table  license.ArchiveTable
	hash   hash.Hash
	last   []byte
	tables []license.ArchiveTable
	end    *End
}

// source counts and hashes what is read, and remembers its error.
type source struct {
	r    io.Reader
	sum  hash.Hash
	size int64
	err  error // of the file, not of what is in it
}

// full fills b. Too little is damage; any other error is the file's.
func (s *source) full(b []byte) error {
	n, err := io.ReadFull(s.r, b)
	s.sum.Write(b[:n])
	s.size += int64(n)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged("it ends too early")
	}
	s.err = err
	return err
}

// NewReader reads the beginning of an archive that is sealed to key. Close it.
func NewReader(r io.Reader, key *license.RecipientKey) (*Reader, error) {
	x := &Reader{r: &source{r: r, sum: sha256.New()}}
	b, err := readHead(x.r)
	if err != nil {
		return nil, err
	}
	if err := canon.Unmarshal(b, &x.head); err != nil || x.head.Tenant.IsZero() || x.head.ID.Version() != 7 {
		return nil, damaged("its head cannot be read").Because(err)
	}
	if x.head.Recipient != key.Hash() || x.head.KEM != uint16(key.KEM()) {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the archive is sealed to another key, with fingerprint %x", x.head.Recipient).
			WithNext("Use the key that was made for this move")
	}
	if x.keys, err = key.ArchiveKeys(x.head.Enc, x.head.Tenant, x.head.ID); err != nil {
		return nil, damaged("its head cannot be read").Because(err)
	}
	if x.key, err = x.keys.Frames(); err != nil {
		return nil, err
	}
	f, err := x.frame()
	if err != nil {
		return nil, err
	}
	m := new(Manifest)
	if f.Kind != frameManifest || f.Table != 0 || len(f.Rows) > 0 {
		return nil, damaged("it does not begin with what it is of")
	}
	if err := canon.Unmarshal(f.Body, m); err != nil {
		return nil, damaged("what it is of cannot be read").Because(err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	x.manifest = m
	return x, nil
}

// readHead reads magic, version and head.
func readHead(r *source) ([]byte, error) {
	var begin [12]byte
	if err := r.full(begin[:]); err != nil {
		return nil, err
	}
	version, n := binary.BigEndian.Uint16(begin[8:]), int(binary.BigEndian.Uint16(begin[10:]))
	switch {
	case !bytes.Equal(begin[:8], magic[:]):
		return nil, damaged("this is no archive of a tenant")
	case version > Version:
		return nil, vocab.Errorf(vocab.ReasonStoreNewer, "a newer version wrote this archive: its format is %d, this program knows %d", version, Version).
			WithNext("Import it with the version that wrote it, or a newer one")
	case version == 0 || n > maxHead:
		return nil, damaged("its head cannot be read")
	}
	b := make([]byte, n)
	return b, r.full(b)
}

func (m *Manifest) check() error {
	if !vocab.ValidSlug(m.Name) || m.Schema == 0 || m.Time == 0 || m.Operation.IsZero() || m.Frozen.IsZero() || m.Begun.IsZero() {
		return damaged("what it is of cannot be")
	}
	return nil
}

// Close zeroes the keys.
func (x *Reader) Close() { x.key.Zero() }

// Tenant is whose archive it is.
func (x *Reader) Tenant() vocab.TenantID { return x.head.Tenant }

// ID is the archive's own.
func (x *Reader) ID() vocab.ArchiveID { return x.head.ID }

// Manifest is what it says of itself.
func (x *Reader) Manifest() *Manifest { return x.manifest }

// Keys are the keys with which secrets of generations open.
func (x *Reader) Keys() *license.ArchiveKeys { return x.keys }

// End is its signed end, after [Reader.Next] has returned [io.EOF]. Whose
// signature that is, is for the caller to verify.
func (x *Reader) End() *End { return x.end }

// SHA256 and Bytes are those of the whole file, after [io.EOF].
func (x *Reader) SHA256() [32]byte { return [32]byte(x.r.sum.Sum(nil)) }

// Bytes is the size of the file, after [io.EOF].
func (x *Reader) Bytes() int64 { return x.r.size }

// frame reads and opens the next frame.
func (x *Reader) frame() (*frame, error) {
	x.before = [32]byte(x.r.sum.Sum(nil))
	var n [4]byte
	if err := x.r.full(n[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(n[:]))
	if size <= canon.BoxOverhead || size > maxFrame || x.next == MaxFrames {
		return nil, damaged("frame %d cannot be", x.next)
	}
	box := make([]byte, size)
	if err := x.r.full(box); err != nil {
		return nil, err
	}
	// Whether it is the last, it says by which of the two it opens as.
	plain, err := canon.Open(x.key, aad(x.head.ID, x.next, false), box)
	last := err != nil
	if last {
		plain, err = canon.Open(x.key, aad(x.head.ID, x.next, true), box)
	}
	if err != nil {
		return nil, damaged("frame %d was changed, or is not where it belongs", x.next)
	}
	f := new(frame)
	if err := canon.Unmarshal(plain, f); err != nil {
		return nil, damaged("frame %d cannot be read", x.next).Because(err)
	}
	if last != (f.Kind == frameEnd) {
		return nil, damaged("frame %d is not what it must be", x.next)
	}
	x.next++
	return f, nil
}

// Next returns the next rows of a table, in the order of the file, and [io.EOF]
// when all of it was read and nothing follows.
func (x *Reader) Next() (table uint64, rows []Row, err error) {
	if x.end != nil {
		return 0, nil, io.EOF
	}
	f, err := x.frame()
	if err != nil {
		return 0, nil, err
	}
	switch {
	case f.Kind == frameRows && len(f.Body) == 0 && len(f.Rows) > 0 && len(f.Rows) <= maxRows:
		return f.Table, f.Rows, x.take(f)
	case f.Kind == frameEnd && f.Table == 0 && len(f.Rows) == 0:
		if err := x.finish(f.Body); err != nil {
			return 0, nil, err
		}
		return 0, nil, io.EOF
	}
	return 0, nil, damaged("frame %d is not what it must be", x.next-1)
}

// take accounts for the rows of a frame.
func (x *Reader) take(f *frame) error {
	if f.Table != x.table.Number {
		if f.Table < x.table.Number {
			return damaged("its tables are out of order")
		}
		x.endTable()
		x.table, x.hash, x.last = license.ArchiveTable{Number: f.Table}, sha256.New(), nil
	}
	for _, r := range f.Rows {
		if x.table.Rows > 0 && string(r.Key) <= string(x.last) {
			return damaged("the rows of table %d are out of order", f.Table)
		}
		x.last = r.Key
		x.table.Rows++
		addRow(x.hash, r)
	}
	return nil
}

func (x *Reader) endTable() {
	if x.table.Rows > 0 {
		x.table.Hash = [32]byte(x.hash.Sum(nil))
		x.tables = append(x.tables, x.table)
	}
	x.table = license.ArchiveTable{}
}

// finish compares the end with all that came before it.
func (x *Reader) finish(body []byte) error {
	x.endTable()
	end, err := license.ParseArchive(body)
	if err != nil {
		return damaged("its end cannot be read").Because(err)
	}
	same := len(end.Tables) == len(x.tables)
	for i := range x.tables {
		same = same && end.Tables[i] == x.tables[i]
	}
	if !same || end.Tenant != x.head.Tenant || end.ID != x.head.ID || end.Recipient != x.head.Recipient || end.Before != x.before {
		return damaged("its end says something else than what came before")
	}
	var more [1]byte
	switch n, err := io.ReadFull(x.r.r, more[:]); {
	case n > 0:
		return damaged("something follows its end")
	case !errors.Is(err, io.EOF):
		return err
	}
	x.end = end
	return nil
}
