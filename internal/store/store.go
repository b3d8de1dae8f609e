// Package store is the contract between the service and whatever keeps its
// data: ordered key-value tables, consistent snapshots, and transactions that
// are on disk when they are reported done.
//
// The contract is small so that another implementation can stand behind it.
// What an implementation owes is written at each method here and asked by the
// conformance suite in the package storetest. The implementation in use is
// store/bolt: one file, one process.
//
// # Errors
//
// Every error is a [vocab.Error] with one of these reasons, or the error of
// the caller's own function or context:
//
//   - STORE_FULL: there is no room. Nothing was written, unless the message
//     says that the outcome is unknown.
//   - STORE_DAMAGED: the file contradicts itself or the system refused to
//     write it. Writing stops until an operator has looked; reading goes on.
//   - STORE_NEWER: a newer version of the service wrote this store.
//   - OVERLOADED: too many transactions wait. This one did not run and may be
//     retried.
//   - BATCH_TOO_LARGE: one transaction wrote more than [MaxCommit] bytes. It
//     was dropped.
//   - CONFIGURATION_INVALID: another process has the store, or it is not the
//     kind of store that was asked for.
//   - INTERNAL: a bug of the caller, such as an empty key or a panic in its
//     function.
package store

import (
	"context"
	"io"
	"iter"

	"github.com/openrms/rms/internal/vocab"
)

// Limits of what is stored, in bytes. They are far above what the service
// writes; an implementation refuses more.
const (
	MaxKey    = 1 << 10  // one key
	MaxValue  = 8 << 20  // one value
	MaxCommit = 64 << 20 // keys and values written by one transaction
)

// Table names an ordered table: 1 to 63 of a–z, 0–9 and '-'. A table needs
// no creation; one that nobody has written to is empty.
type Table string

// Valid reports whether t can name a table.
func (t Table) Valid() bool { return vocab.ValidSlug(string(t)) }

// Item is a key with its value. Both slices belong to the receiver.
type Item struct{ Key, Value []byte }

// Range selects keys of a table. The zero value selects all, ascending.
type Range struct {
	// Prefix selects the keys that begin with it.
	Prefix []byte
	// From is the whole key to begin at, itself included if it exists: the
	// scan starts at the first key >= From, or in reverse at the last
	// key <= From. Empty begins at the end the direction starts from. A From
	// outside the prefix is legal and never widens the selection.
	From []byte
	// Reverse walks in descending order of keys.
	Reverse bool
}

// Reader reads one consistent state. It is valid until the function it was
// passed to returns, is not safe for concurrent use, and what it returns are
// copies that stay valid.
type Reader interface {
	// Get returns the value of key and whether there is one. The value may
	// be empty.
	Get(table Table, key []byte) ([]byte, bool, error)
	// Scan walks the selected items in byte order of their keys. It shows
	// the state at the moment the iteration begins; writes made while it
	// runs do not change what it shows. After an error it ends.
	Scan(table Table, r Range) iter.Seq2[Item, error]
}

// Tx is a Reader that sees its own writes. Nothing of it is visible to others
// before it has been committed.
type Tx interface {
	Reader
	// Put sets the value of key, which must not be empty. Key and value are
	// copied.
	Put(table Table, key, value []byte) error
	// Delete removes key; it is no error if it is not there.
	Delete(table Table, key []byte) error
	// AfterCommit has fn called once the transaction is durable, before
	// Commit returns and on the goroutine that called it, in the order of the
	// AfterCommit calls. If the transaction is dropped or its outcome is
	// unknown, fn is not called.
	AfterCommit(fn func())
}

// Store keeps tables. It is safe for concurrent use.
type Store interface {
	// View calls fn with a snapshot that holds every transaction whose
	// Commit had returned before View was called, of each transaction all or
	// nothing, and none that is not durable: what fn sees has happened. (Of a
	// store that has failed it may hold what is then unknown.) It runs beside
	// writers and other readers. It returns fn's error, or the context's if
	// that ended before fn ran. fn must be short and must not call the store:
	// an old snapshot keeps space from being re-used.
	View(ctx context.Context, fn func(Reader) error) error

	// Commit calls fn at most once, after every earlier transaction and
	// before every later one, with a Tx that sees all earlier ones: what fn
	// reads is still so when its writes take effect.
	//
	// If Commit returns nil, all writes of fn are durable: they survive the
	// loss of the process and of power. If fn returns an error or panics,
	// its own writes are dropped, nobody else's, and Commit returns the
	// error; a panic comes back as INTERNAL. If the context ends before fn
	// has run, fn will not run and the context's error comes back; once fn
	// runs, Commit waits and reports what really happened.
	//
	// If the store itself fails, the outcome of everything that was being
	// written together is unknown: all of it may or may not be found later,
	// each transaction whole or not at all. The store then takes no more
	// transactions until it has been opened anew, so that nothing can be
	// built on writes that may not be there.
	//
	// Only OVERLOADED, and STORE_FULL that does not say that the outcome is
	// unknown, may be retried as they are. fn must be short, must not block
	// on anything but the Tx and must not call the store: it holds up every
	// writer.
	Commit(ctx context.Context, fn func(Tx) error) error

	// Close finishes the transactions already accepted, refuses new ones,
	// waits for readers and releases the store. Calls after the first do
	// nothing.
	Close() error
}

// Checker is a [Store] that can look for damage below the level of tables.
type Checker interface {
	// Check walks the whole store as one snapshot and reports each finding
	// to found; the store can be in use. It returns an error if it could
	// not finish, not if it found something.
	Check(ctx context.Context, found func(problem error)) error
}

// Copier is a [Store] that can write a consistent copy of itself while it is
// in use.
type Copier interface {
	// CopyTo writes one snapshot to w and returns its size in bytes. The
	// copy can be opened like the store it was taken from. Before the first
	// byte it calls begin, unless that is nil, with this very snapshot and its
	// size; an error of begin's ends the copy and is returned. begin must not
	// call the store.
	//
	// Commits go on meanwhile, however slowly w takes it; what they need is
	// room, for the space of an old snapshot is not re-used. If that becomes
	// too much the copy ends with OVERLOADED.
	CopyTo(ctx context.Context, w io.Writer, begin func(r Reader, size int64) error) (int64, error)
}

// Stamp says what a store is for. A development store holds identities and
// keys that everyone can have and must never be served in production, nor the
// reverse.
type Stamp string

// Stamps.
const (
	Production  Stamp = "production"
	Development Stamp = "development"
)

// Valid reports whether s is a known stamp.
func (s Stamp) Valid() bool { return s == Production || s == Development }

// Schema says which layout of tables a program reads and writes.
type Schema struct {
	// Version is the layout this program writes, from 1.
	Version uint32
	// Migrations lead from each older version that is still supported to
	// the next. The one that leads to version n is Migrations[n].
	Migrations map[uint32]Migration
}

// Migration changes a store of one version into one of the next. All steps
// from the version found to the current one are one transaction.
type Migration func(Tx) error
