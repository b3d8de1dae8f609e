// Package archive is the file in which a tenant leaves one service for another:
// how it is framed, sealed, ended and read. What the rows of its tables mean it
// does not know.
//
// An archive is sealed to one recipient key. Its frames open with one key, the
// secrets of generations each with a key of their own, all out of one key
// agreement that is bound to tenant and archive. Each frame says which it is, so
// that none can be left out, doubled or moved; the last one holds the end, which
// the tenant's root signed. docs/formats.md describes every byte.
package archive

import (
	"encoding/binary"
	"hash"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Version is the format that this package writes, and the newest it reads.
const Version = 1

// magic begins every archive: like that of other binary files it shows when a
// file was treated as text.
var magic = [8]byte{0x89, 'R', 'M', 'X', '\r', '\n', 0x1a, '\n'}

// Limits of what is read.
const (
	// maxHead is the largest head, in bytes.
	maxHead = 8 << 10
	// maxFrame is the largest sealed frame, in bytes: a template revision of the
	// largest size must fit.
	maxFrame = canon.MaxSize + canon.BoxOverhead
	// MaxFrames bounds how many there are: random nonces under one key must not
	// meet (NIST SP 800-38D §8.3).
	MaxFrames = 1 << 31
	// frameTarget is how many bytes of rows a writer puts into one frame before
	// it begins another.
	frameTarget = 1 << 20
	// maxRows is how many rows one frame has at most.
	maxRows = 1 << 14
)

// head stands at the beginning in clear: what is needed to open the rest. That
// nothing in it was changed shows when the first frame opens.
type head struct {
	Tenant    vocab.TenantID  `cbor:"2,keyasint"`
	KEM       uint16          `cbor:"130,keyasint"`
	Recipient [32]byte        `cbor:"131,keyasint"`
	ID        vocab.ArchiveID `cbor:"208,keyasint"`
	Enc       []byte          `cbor:"213,keyasint"`
}

// Kinds of frames.
const (
	frameManifest = 1
	frameRows     = 2
	frameEnd      = 3
)

// frame is what a frame holds when it is open.
type frame struct {
	Kind uint64 `cbor:"1,keyasint"`
	// Table and Rows are those of a frame of rows.
	Table uint64 `cbor:"2,keyasint,omitempty"`
	Rows  []Row  `cbor:"3,keyasint,omitempty"`
	// Body is the manifest or the end.
	Body []byte `cbor:"4,keyasint,omitempty"`
}

// Row is a row of a table. Keys only grow within a table.
type Row struct {
	Key   []byte `cbor:"1,keyasint,omitempty"`
	Value []byte `cbor:"2,keyasint,omitempty"`
}

// Manifest says what the archive is of, before anything else.
type Manifest struct {
	// Name is the tenant's name among people, Created when it was made, in
	// milliseconds since 1970.
	Name    string `cbor:"1,keyasint"`
	Created uint64 `cbor:"2,keyasint"`
	// Schema is the layout of the tables' rows.
	Schema uint32 `cbor:"3,keyasint"`
	// Service is the version of the program that wrote it, Source how the
	// service names itself. Both are for people.
	Service string `cbor:"4,keyasint,omitempty"`
	Source  string `cbor:"5,keyasint,omitempty"`
	// Time is when it was begun, in milliseconds.
	Time uint64 `cbor:"6,keyasint"`
	// Operation is what was approved, Frozen and Begun are the events by which
	// the tenant was frozen and the archive begun.
	Operation vocab.OperationID `cbor:"7,keyasint"`
	Frozen    vocab.EventID     `cbor:"8,keyasint"`
	Begun     vocab.EventID     `cbor:"9,keyasint"`
	// Checkpoint is the signed checkpoint of the log in it, Certificate that of
	// the key that signed it, Bundle the tenant's trust bundle.
	Checkpoint  []byte `cbor:"10,keyasint"`
	Certificate []byte `cbor:"11,keyasint"`
	Bundle      []byte `cbor:"12,keyasint"`
}

// aad is what a frame is bound to: the archive, its place and whether it is the
// last.
func aad(id vocab.ArchiveID, n uint64, last bool) []byte {
	end := uint64(0)
	if last {
		end = 1
	}
	return canon.D("rms/v1/archive-frame", canon.Fields{208: id, 214: n, 215: end})
}

// addRow hashes a row of a table: the length of the key as u32,
// the key, the length of the value as u32, the value.
func addRow(h hash.Hash, r Row) {
	var n [4]byte
	for _, b := range [][]byte{r.Key, r.Value} {
		binary.BigEndian.PutUint32(n[:], uint32(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
}

// End is the signed end of an archive.
type End = license.Archive

func damaged(format string, args ...any) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the archive cannot be used: "+format, args...).
		WithNext("Compare its SHA-256 with the one in the source's log, and take the archive again if they differ")
}
