// Package backup is the file of a backup: what is in it, how it is written and
// how it is read back. It knows no record and no log; what it says of them is
// what its caller put in.
//
// # Format
//
// A backup is one age file (age-encryption.org/v1), binary, encrypted to one or
// more recipients of the post-quantum kind (mlkem768x25519). What is encrypted
// is a tar archive (POSIX ustar or pax) of regular files in exactly this order:
//
//	manifest.json                        a [Manifest]
//	checkpoints/<tenant>/latest          the tenant's exported checkpoint, if any
//	checkpoints/<tenant>/<hex>.cert      certificates beside it, any number
//	rms.db                               the store
//	end.json                             an [End]
//
// Age authenticates every piece of 64 KiB and that the last one is the last, so
// a file that was cut or changed does not read as a shorter one. Stock age and
// tar read it too.
package backup

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Version is the format this program writes, and the newest it reads.
const Version = 1

// kind is what every manifest says it is.
const kind = "rms backup"

// Limits of what is read, in bytes and numbers.
const (
	maxManifest   = 64 << 20
	maxEnd        = 4 << 10
	maxCheckpoint = 64 << 10
	// maxFiles bounds checkpoints and certificates.
	maxFiles = 1_000_000
	// MaxStore is the largest store a backup may say it holds: 16 TiB.
	MaxStore = 1 << 44
)

// Manifest says what is in a backup.
type Manifest struct {
	Kind    string `json:"kind"`
	Version int    `json:"version"`
	// ID is the backup's, Time when it was begun, KeepUntil until when copies of
	// it are kept; the zero time: nobody said.
	ID        vocab.BackupID `json:"id"`
	Time      time.Time      `json:"time"`
	KeepUntil *time.Time     `json:"keep_until,omitempty"`
	// Service is the version of the program that wrote it, Schema and Stamp are
	// those of the store, StoreBytes its size.
	Service    string   `json:"service"`
	Schema     uint32   `json:"schema"`
	Stamp      string   `json:"stamp"`
	StoreBytes int64    `json:"store_bytes"`
	Tenants    []Tenant `json:"tenants"`
}

// Tenant is what a backup holds of one tenant.
type Tenant struct {
	ID   vocab.TenantID `json:"id"`
	Name string         `json:"name"`
	// LogSize and Root are those of its log.
	LogSize uint64 `json:"log_size"`
	Root    Hash   `json:"root"`
	// Epoch counts the changes of its resources.
	Epoch uint64 `json:"epoch"`
	// KeyVersions and Generations are what must not be destroyed while the
	// backup is to be of use.
	KeyVersions []KeyVersion `json:"key_versions"`
	Generations []Generation `json:"generations"`
}

// KeyVersion is a version of a tenant key.
type KeyVersion struct {
	Custodian vocab.CustodianID `json:"custodian"`
	Key       string            `json:"key"`
	Version   uint32            `json:"version"`
}

// Generation is a generation of a tenant.
type Generation struct {
	Number uint32             `json:"number"`
	ID     vocab.GenerationID `json:"id"`
}

// End ends a backup.
type End struct {
	// Store is SHA-256 of the store, Files how many files came before.
	Store Hash `json:"store_sha256"`
	Files int  `json:"files"`
}

// Hash is 32 bytes, as 64 hexadecimal digits.
type Hash [32]byte

// MarshalText writes the digits.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads them.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != 64 {
		return errors.New("not 64 hexadecimal digits")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// Names of the files.
const (
	manifestName   = "manifest.json"
	storeName      = "rms.db"
	endName        = "end.json"
	checkpointsDir = "checkpoints/"
)

var checkpointName = regexp.MustCompile(`^(latest|[0-9a-f]{16}\.cert)$`)

// validate refuses what no program wrote.
func (m *Manifest) validate() error {
	if m.Kind != kind || m.Version < 1 {
		return damaged("it is something else than a backup of this service")
	}
	if m.Version > Version {
		return newer(m.Version)
	}
	seen := map[vocab.TenantID]bool{}
	for i := range m.Tenants {
		t := &m.Tenants[i]
		if t.ID.IsZero() || seen[t.ID] || !vocab.ValidSlug(t.Name) {
			return damaged("its manifest names a tenant that cannot be")
		}
		seen[t.ID] = true
	}
	if m.ID.Version() != 7 || m.Time.IsZero() || m.StoreBytes <= 0 || m.StoreBytes > MaxStore || m.Schema == 0 {
		return damaged("its manifest cannot be")
	}
	return nil
}

// decodeManifest reads a manifest. The version is looked at before anything
// that it may have changed.
func decodeManifest(b []byte) (*Manifest, error) {
	var first struct {
		Kind    string `json:"kind"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(b, &first); err != nil {
		return nil, damaged("its manifest cannot be read").Because(err)
	}
	if first.Kind == kind && first.Version > Version {
		return nil, newer(first.Version)
	}
	m := new(Manifest)
	if err := strictly(b, m); err != nil {
		return nil, damaged("its manifest cannot be read").Because(err)
	}
	return m, m.validate()
}

// strictly decodes one JSON value without fields that v does not have.
func strictly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows")
	}
	return nil
}

func damaged(what string) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the backup cannot be used: %s", what).
		WithNext("Take another copy of it, or an older backup; compare its SHA-256 with the one in: rmsd backup list")
}

func newer(version int) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreNewer, "a newer version wrote this backup: its format is %d, this program knows %d", version, Version).
		WithNext("Restore it with the version that made it, or a newer one")
}
