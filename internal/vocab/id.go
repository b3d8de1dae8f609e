package vocab

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// ID is a 16-byte identifier. The type parameter keeps identifiers of
// different things apart at compile time; it has no value and no cost.
//
// The text form is the lower-case UUID form of RFC 9562
// (019a8c1e-77f1-7a31-8c1e-0123456789ab); nothing else parses. IDs compare
// with ==, and are compared exactly: never case-folded, never shortened.
type ID[K any] [16]byte

type (
	tenantKind     struct{}
	contentKind    struct{}
	generationKind struct{}
	custodianKind  struct{}
	eventKind      struct{}
	templateKind   struct{}
	certKind       struct{}
	operationKind  struct{}
	backupKind     struct{}
	archiveKind    struct{}
)

// The identifiers of the service.
type (
	// TenantID is a tenant: random, minted once when the tenant is first
	// served, never re-used.
	TenantID = ID[tenantKind]
	// ContentID is a document and its license. Online it is a UUIDv7
	// minted by the server, which accepts no other; UUIDv8 is reserved for
	// offline publishing.
	ContentID = ID[contentKind]
	// GenerationID is a generation of a tenant's key-encryption key: random.
	GenerationID = ID[generationKind]
	// CustodianID is a registered custodian key, "custodian_ref" in the formats.
	CustodianID = ID[custodianKind]
	// EventID is whatever happened (UUIDv7): the only ID a person must quote.
	EventID = ID[eventKind]
	// TemplateUID is a template for ever, whatever its slug or revision: random.
	TemplateUID = ID[templateKind]
	// CertID is a daemon's signing certificate: random.
	CertID = ID[certKind]
	// OperationID is something that takes time or a second person (UUIDv7).
	OperationID = ID[operationKind]
	// BackupID is a copy of the store that was begun (UUIDv7).
	BackupID = ID[backupKind]
	// ArchiveID is one archive of a tenant on its way to another service
	// (UUIDv7).
	ArchiveID = ID[archiveKind]
)

// NewRandom returns an identifier of 16 random bytes in UUIDv4 form.
func NewRandom[K any]() ID[K] {
	var id ID[K]
	_, _ = rand.Read(id[:]) // crypto/rand.Read never fails (Go 1.24)
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// NewOrdered returns a UUIDv7 (RFC 9562 §5.7): time-ordered, unique, with a
// monotonic order inside one process. It panics only if the system has no
// randomness.
func NewOrdered[K any]() ID[K] {
	return ID[K](uuid.Must(uuid.NewV7()))
}

// ParseID reads the text form. It refuses anything but the 36-character
// lower-case form.
func ParseID[K any](s string) (ID[K], error) {
	var id ID[K]
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("%q is not an ID: want 36 characters like 019a8c1e-77f1-7a31-8c1e-0123456789ab", clip(s))
	}
	compact := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(id[:], []byte(compact)); err != nil || id.String() != s {
		return ID[K]{}, fmt.Errorf("%q is not an ID: want lower-case hexadecimal digits", clip(s))
	}
	return id, nil
}

// String returns the text form.
func (id ID[K]) String() string { return uuid.UUID(id).String() }

// IsZero reports whether id is the zero value, which names nothing.
func (id ID[K]) IsZero() bool { return id == ID[K]{} }

// Compare orders identifiers by their bytes: for UUIDv7, by time.
func (id ID[K]) Compare(other ID[K]) int { return bytes.Compare(id[:], other[:]) }

// Version returns the UUID version nibble: 4 random, 7 online content and
// events, 8 reserved for offline content.
func (id ID[K]) Version() int { return int(id[6] >> 4) }

// Time returns the millisecond timestamp a UUIDv7 or UUIDv8 of ours begins
// with. It is meaningless for random identifiers.
func (id ID[K]) Time() time.Time {
	ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
	return time.UnixMilli(ms).UTC()
}

// MarshalText implements [encoding.TextMarshaler].
func (id ID[K]) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *ID[K]) UnmarshalText(b []byte) error {
	v, err := ParseID[K](string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
