package record

import (
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// NameResidence is the name of the resource that says where a tenant lives:
// whether it is frozen for its move to another service, which archives of it
// were made, and from where it came. There is none before the first of it.
const NameResidence = "residence"

// Bounds of what a residence remembers; older ones are in the log.
const (
	maxArchives = 50
	maxArrivals = 50
)

// Residence is the body of [NameResidence].
type Residence struct {
	// Frozen is when the tenant was frozen, zero if it is not; Event is the event
	// of that, Operation what asked for it.
	Frozen    Millis            `cbor:"1,keyasint,omitempty"`
	Event     vocab.EventID     `cbor:"2,keyasint"`
	Operation vocab.OperationID `cbor:"3,keyasint"`
	// Archives are those that were begun here, oldest first.
	Archives []ArchiveMade `cbor:"4,keyasint,omitempty"`
	// Arrivals are the moves that brought the tenant here, oldest first.
	Arrivals []Arrival `cbor:"5,keyasint,omitempty"`
}

// ArchiveMade is an archive that was begun.
type ArchiveMade struct {
	ID        vocab.ArchiveID   `cbor:"1,keyasint"`
	Operation vocab.OperationID `cbor:"2,keyasint"`
	Begun     Millis            `cbor:"3,keyasint"`
	// Recipient is the hash of the key it is sealed to.
	Recipient [32]byte `cbor:"4,keyasint"`
	// Whole is when it was whole, zero if it was broken off: then nobody can
	// import it. SHA256 and Bytes are those of the file.
	Whole  Millis   `cbor:"5,keyasint,omitempty"`
	SHA256 [32]byte `cbor:"6,keyasint"`
	Bytes  uint64   `cbor:"7,keyasint,omitempty"`
	// LogSize and LogRoot are those of the log in it.
	LogSize uint64   `cbor:"8,keyasint"`
	LogRoot [32]byte `cbor:"9,keyasint"`
}

// Arrival is a move that brought the tenant here.
type Arrival struct {
	Archive vocab.ArchiveID `cbor:"1,keyasint"`
	SHA256  [32]byte        `cbor:"2,keyasint"`
	At      Millis          `cbor:"3,keyasint"`
	// Root is the key ID of the root that signed the archive, Source how the
	// service named itself.
	Root   [32]byte `cbor:"4,keyasint"`
	Source string   `cbor:"5,keyasint,omitempty"`
	// LogSize and LogRoot are those of the log when it arrived.
	LogSize uint64   `cbor:"6,keyasint"`
	LogRoot [32]byte `cbor:"7,keyasint"`
}

// Encode returns the stored form.
func (s *Residence) Encode() ([]byte, error) { return encodeBody(s) }

// DecodeResidence reads the stored form; the error is STORE_DAMAGED.
func DecodeResidence(b []byte) (*Residence, error) {
	s := new(Residence)
	if err := canon.Unmarshal(b, s); err != nil {
		return nil, damaged(tableResources, err)
	}
	if (s.Frozen == 0) != s.Operation.IsZero() || (s.Frozen == 0) != s.Event.IsZero() {
		return nil, damaged(tableResources, nil)
	}
	return s, nil
}

// Begin notes an archive that is begun.
func (s *Residence) Begin(a ArchiveMade) {
	s.Archives = append(s.Archives, a)
	s.Archives = s.Archives[max(0, len(s.Archives)-maxArchives):]
}

// Archive returns an archive that was begun here; nil if there is none.
func (s *Residence) Archive(id vocab.ArchiveID) *ArchiveMade {
	for i := range s.Archives {
		if s.Archives[i].ID == id {
			return &s.Archives[i]
		}
	}
	return nil
}

// Whole counts the archives that were made whole since the tenant was frozen:
// those that somebody may have imported.
func (s *Residence) Whole() (n int) {
	for i := range s.Archives {
		if s.Archives[i].Operation == s.Operation && s.Archives[i].Whole != 0 {
			n++
		}
	}
	return n
}

// Arrive notes where the tenant came from, and that it is not frozen here.
func (s *Residence) Arrive(a Arrival) {
	s.Frozen, s.Event, s.Operation, s.Archives = 0, vocab.EventID{}, vocab.OperationID{}, nil
	s.Arrivals = append(s.Arrivals, a)
	s.Arrivals = s.Arrivals[max(0, len(s.Arrivals)-maxArrivals):]
}
