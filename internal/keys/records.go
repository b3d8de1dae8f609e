package keys

import (
	"context"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// State is the state of a generation or of a version of the tenant key, by
// the names of NIST SP 800-57 part 1 §7. The numbers are stored.
type State uint8

// States of keys.
const (
	PreActive   State = 1 // exists, not used yet
	Active      State = 2 // seals and opens; at most one generation of a tenant
	Deactivated State = 3 // opens only
	Suspended   State = 4 // neither, and can be resumed
	Compromised State = 5 // neither for users
	Destroyed   State = 6 // neither, for ever
)

var stateNames = [...]string{1: "pre-active", 2: "active", 3: "deactivated", 4: "suspended", 5: "compromised", 6: "destroyed"}

// String returns the state's name in lower case.
func (s State) String() string {
	if s.Valid() {
		return stateNames[s]
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Valid reports whether s is a known state.
func (s State) Valid() bool { return s >= PreActive && s <= Destroyed }

// Opens reports whether content may be opened in this state.
func (s State) Opens() bool { return s == Active || s == Deactivated }

// Seals reports whether content may be published in this state.
func (s State) Seals() bool { return s == Active }

// May reports whether a person can ask for this move. Destroyed has no way
// back, and a compromised key is never trusted again.
func (s State) May(to State) bool {
	switch to {
	case Active:
		return s == PreActive || s == Suspended
	case Deactivated:
		return s == Active || s == Suspended
	case Suspended:
		return s == Active || s == Deactivated
	case Compromised:
		return s != Destroyed && s != Compromised
	case Destroyed:
		return s != Destroyed && s != Active
	case PreActive:
	}
	return false
}

// Record is a tenant generation as kept: the signed record that never changes,
// and beside it what does. The store is not trusted: a [Ring] verifies Signed
// and believes Wrap only if it opens to the commitment in Signed.
type Record struct {
	Number uint32 // 1, 2, 3 … in the order they were made: "g4"
	Signed []byte // the signed generation record
	// Wrap is zero of one that is destroyed.
	Wrap  license.Wrap
	State State
	// Created is when it was made, for the inventory.
	Created time.Time
	// Canary says that it is kept for rehearsals of the switch: it opens, and
	// never seals.
	Canary bool
}

// VersionID names a version of a registered tenant key.
type VersionID struct {
	Custodian vocab.CustodianID
	Version   uint32
}

// KeyStates are the states of a registered tenant key and of those of its
// versions that have one of their own. A version that is not in it is as the
// key is.
type KeyStates struct {
	Key      vocab.CustodianID
	Name     string // among people
	State    State
	Versions map[uint32]State
	// Latest is the newest version ever seen: a custodian that wraps under an
	// older one was set back. 0: none was seen yet.
	Latest uint32
}

// Records is where a [Ring] keeps what must outlive the process. Every method
// that writes is atomic and durable when it returns nil, and changes nothing
// when it returns an error. A Ring may repeat any of them after an error.
//
// States and wraps are not changed through a Ring: whoever changes them in the
// records tells it by [Ring.Take] and [Ring.TakeKey].
type Records interface {
	// Generations returns all generations of the tenant, by number.
	Generations(ctx context.Context) ([]Record, error)
	// AddGeneration stores a new generation. If it is active, every other
	// active one becomes deactivated in the same transaction. It fails with
	// RESOURCE_EXISTS if the number is taken.
	AddGeneration(ctx context.Context, r Record) error
	// Keys returns the states of all registered keys.
	Keys(ctx context.Context) ([]KeyStates, error)
	// Mark returns the high-water mark of a registered key, zero if none.
	Mark(ctx context.Context, c vocab.CustodianID) (Mark, error)
	// SetMark stores the mark that facts left, and what else the facts say of
	// the key.
	SetMark(ctx context.Context, m Mark, f *Facts) error
}
