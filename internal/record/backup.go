package record

import (
	"strings"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// PrefixBackups begins the names of backup sets, which go on with the backup's
// ID: [Backup]. A tombstone is one of which nothing is left.
const PrefixBackups = "backups/"

// NameHold is the name of what a restore leaves until somebody has released the
// tenant: [Hold]. A tombstone is one that was released.
const NameHold = PrefixBackups + "hold"

// BackupName is the name of a backup set.
func BackupName(id vocab.BackupID) string { return PrefixBackups + id.String() }

// Backup is the body of a backup set: a copy of the store that was begun. It is
// written before the first byte of the copy leaves, so that there is no copy
// without it.
type Backup struct {
	Created Millis `cbor:"1,keyasint"`
	// KeepUntil is until when copies are kept; zero: nobody said.
	KeepUntil Millis `cbor:"2,keyasint,omitempty"`
	// LogSize is the size of the tenant's log in the copy; of one that was only
	// begun, at least so much.
	LogSize uint64 `cbor:"3,keyasint"`
	// Recipients are fingerprints of the keys that open it.
	Recipients []string `cbor:"4,keyasint"`
	Needs      Needs    `cbor:"5,keyasint"`
	// Complete is 1 once all of it was written, and SHA256 and Bytes are then
	// those of the file.
	Complete uint8  `cbor:"6,keyasint,omitempty"`
	SHA256   []byte `cbor:"7,keyasint,omitempty"`
	Bytes    uint64 `cbor:"8,keyasint,omitempty"`
}

// Needs is what must not be destroyed while a copy of the tenant's records is to
// be of use.
type Needs struct {
	Versions    []NeededVersion    `cbor:"1,keyasint,omitempty"` // sorted
	Generations []NeededGeneration `cbor:"2,keyasint,omitempty"` // by number
}

// NeededVersion is a version of a tenant key.
type NeededVersion struct {
	Custodian vocab.CustodianID `cbor:"1,keyasint"`
	// Key is the key's name among people.
	Key     string `cbor:"2,keyasint"`
	Version uint32 `cbor:"3,keyasint"`
}

// NeededGeneration is a generation, by its number among people and its ID.
type NeededGeneration struct {
	Number uint32             `cbor:"1,keyasint"`
	ID     vocab.GenerationID `cbor:"2,keyasint"`
}

// Hold is the body of what keeps a restored tenant from publishing and opening.
type Hold struct {
	// Event is that of the restore.
	Event    vocab.EventID `cbor:"1,keyasint"`
	Restored Millis        `cbor:"2,keyasint"`
	// Backup is where it came from, made at BackupTime with a log of BackupSize.
	Backup     vocab.BackupID `cbor:"3,keyasint"`
	BackupTime Millis         `cbor:"4,keyasint"`
	BackupSize uint64         `cbor:"5,keyasint"`
	// LostSize is the size that the log is known to have had; zero if nobody
	// knew.
	LostSize uint64 `cbor:"6,keyasint,omitempty"`
	// Reason is why the operator accepted the loss, if they had to.
	Reason string `cbor:"7,keyasint,omitempty"`
	// Reapplied and Open are what of the lost events was done again, and what
	// people have to look at; of either at most MaxHoldLines, and LeftOut more.
	Reapplied []string `cbor:"8,keyasint,omitempty"`
	Open      []string `cbor:"9,keyasint,omitempty"`
	LeftOut   uint64   `cbor:"10,keyasint,omitempty"`
}

// MaxHoldLines is how many lines of either kind a hold has.
const MaxHoldLines = 1000

// Encode returns the stored form.
func (b *Backup) Encode() ([]byte, error) { return encodeBody(b) }

// DecodeBackup reads the stored form; the error is STORE_DAMAGED.
func DecodeBackup(body []byte) (*Backup, error) {
	b := new(Backup)
	if err := canon.Unmarshal(body, b); err != nil {
		return nil, damaged(tableResources, err)
	}
	if b.Complete > 1 || (b.Complete == 1) != (len(b.SHA256) == 32) {
		return nil, damaged(tableResources, nil)
	}
	return b, nil
}

// Encode returns the stored form.
func (h *Hold) Encode() ([]byte, error) { return encodeBody(h) }

// DecodeHold reads the stored form; the error is STORE_DAMAGED.
func DecodeHold(body []byte) (*Hold, error) {
	h := new(Hold)
	if err := canon.Unmarshal(body, h); err != nil {
		return nil, damaged(tableResources, err)
	}
	return h, nil
}

// checkBackup reports whether the body of a resource below backups/ can be read.
func checkBackup(name string, body []byte) (err error) {
	if name == NameHold {
		_, err = DecodeHold(body)
		return err
	}
	if _, err := vocab.ParseBackupID(strings.TrimPrefix(name, PrefixBackups)); err != nil {
		return damaged(tableResources, err)
	}
	_, err = DecodeBackup(body)
	return err
}

// Covers reports whether n has everything that other has.
func (n *Needs) Covers(other *Needs) bool {
	versions, generations := map[NeededVersion]bool{}, map[NeededGeneration]bool{}
	for _, v := range n.Versions {
		versions[v] = true
	}
	for _, g := range n.Generations {
		generations[g] = true
	}
	for _, v := range other.Versions {
		if !versions[v] {
			return false
		}
	}
	for _, g := range other.Generations {
		if !generations[g] {
			return false
		}
	}
	return true
}
