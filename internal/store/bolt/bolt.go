// Package bolt keeps the tables of the service in one bbolt file, owned by
// one process.
//
// # Durability
//
// One goroutine writes. It takes whatever transactions wait, runs them one
// after the other inside one bbolt transaction and makes that durable with one
// pair of fdatasync calls, pages first, then the page that makes them count.
// While it waits for the disk the next callers gather, so that the groups grow
// with the load and nobody waits for a timer. A file is created aside and
// moved into place, so that a store is there whole or not at all.
//
// # Owner
//
// The file "<path>.lock" holds the process ID of the owner for as long as it
// is locked (flock). The system lifts the lock when the process ends, however
// it ends; the file itself stays and means nothing.
package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of the writer.
const (
	// queueLength is how many transactions may wait. With fewer than this
	// many callers nobody is ever refused; a caller waits for at most
	// queueLength/batchLength commits.
	queueLength = 4096
	// batchLength and batchBytes bound a group, so that neither the memory
	// held nor the wait of the first one in it grows with the queue.
	batchLength = 1024
	batchBytes  = 32 << 20
	// defaultMinFree is left to the file system by default: enough for an
	// operator to work and for one more group.
	defaultMinFree = 64 << 20
	// fill is how full a page is left by a split. Nearly all keys begin with
	// a time, so pages are filled from the left and rarely opened again.
	fill = 0.85
)

// Options say what to open.
type Options struct {
	// Path is the database file. It is created with mode 0600 if it is not
	// there; its directory must exist.
	Path string
	// Stamp must equal the stamp the store was created with.
	Stamp store.Stamp
	// Schema is the layout the program speaks.
	Schema store.Schema
	// MinFree is the space in bytes below which transactions are refused
	// with STORE_FULL, before the system has to refuse them midway. 0 means
	// 64 MiB; negative means no such limit.
	MinFree int64
}

// Store is an open file. It implements [store.Store], [store.Checker] and
// [store.Copier].
type Store struct {
	db      *bbolt.DB
	path    string
	lock    *lock
	minFree uint64
	// mapped is how much address space was reserved for the file, and copyGrowth
	// how much it may grow during one copy.
	mapped, copyGrowth int64

	// commit and space are what the writer calls; tests put faults there.
	commit func(*bbolt.Tx) error
	space  func(dir string) (uint64, error)

	// flight is the bbolt transaction being made durable, or the last one
	// that was.
	flight atomic.Pointer[flight]

	// failed is set once, when it is no longer known what the file holds.
	failed atomic.Pointer[vocab.Error]

	mu     sync.RWMutex // guards closed, and queue against closing
	closed bool
	queue  chan *request
	idle   chan struct{} // closed when the writer has ended

	closeOnce sync.Once
	closeErr  error
}

// flight is a commit under way.
type flight struct {
	id     int           // of the bbolt transaction
	landed chan struct{} // closed when it is over, either way
}

var _ interface {
	store.Store
	store.Checker
	store.Copier
} = (*Store)(nil)

// The bucket of the store itself. Its name is not a valid [store.Table].
var metaBucket = []byte("_meta")

// Keys of the meta bucket.
var (
	keyFormat = []byte("format") // formatName
	keySchema = []byte("schema") // u32, big-endian
	keyStamp  = []byte("stamp")
)

const formatName = "rms store"

// Open opens the store, creating or migrating it if needed. Another process
// that has it is named in the error. On error nothing has changed, except that
// an empty store may have been created.
func Open(o Options) (*Store, error) {
	if !o.Stamp.Valid() || o.Schema.Version == 0 {
		return nil, vocab.Errorf(vocab.ReasonInternal, "a store needs a stamp and a schema version")
	}
	l, err := acquire(o.Path + ".lock")
	if err != nil {
		return nil, err
	}
	s, err := open(o, l)
	if err != nil {
		l.release()
		return nil, err
	}
	go s.write()
	return s, nil
}

func open(o Options, l *lock) (_ *Store, err error) {
	switch info, err := os.Stat(o.Path); {
	case errors.Is(err, fs.ErrNotExist):
		if err := create(o); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, unreadable(err)
	case !info.Mode().IsRegular():
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the store is not a regular file")
	case info.Mode().Perm()&0o077 != 0:
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid,
			"other users may read or write the store (mode %04o)", info.Mode().Perm()).
			WithNext("If that is a mistake: chmod 600 %s", o.Path)
	}
	mapped := reserve(o.Path)
	db, err := openFile(o.Path, mapped)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	// A process that ended between its write and its fsync leaves pages that
	// this one can see and a power cut could still take away.
	if err := db.Sync(); err != nil {
		return nil, unwritable(err, "the store was not opened")
	}
	if err := prepare(db, o); err != nil {
		return nil, err
	}
	s := &Store{
		db: db, path: o.Path, lock: l, mapped: int64(mapped), copyGrowth: copyGrowth,
		commit: (*bbolt.Tx).Commit,
		space:  freeSpace,
		queue:  make(chan *request, queueLength),
		idle:   make(chan struct{}),
	}
	switch {
	case o.MinFree == 0:
		s.minFree = defaultMinFree
	case o.MinFree > 0:
		s.minFree = uint64(o.MinFree)
	}
	return s, nil
}

// initialMap is how much address space is reserved for the file: 8 GiB, or
// 256 MiB on 32-bit systems, and for a large file twice its size. A file that outgrows it has to be mapped anew, and
// that waits for every reader, so a long copy would hold up the writer.
// Address space that is not used costs nothing.
const initialMap = 1 << (28 + 5*(^uint(0)>>63))

// reserve is how much address space to reserve for a file.
func reserve(path string) int {
	info, err := os.Stat(path)
	if err != nil || info.Size() > math.MaxInt/4 {
		return initialMap
	}
	return max(initialMap, 2*int(info.Size()))
}

// openFile opens a bbolt file. bbolt panics on some damaged files; those come
// back as STORE_DAMAGED.
func openFile(path string, mapSize int) (db *bbolt.DB, err error) {
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			// The lock file is held, so only a foreign tool can have the file.
			Timeout:         100 * time.Millisecond,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: mapSize,
			NoSync:          noSync,
			NoStatistics:    true,
		})
		return err
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "another program has the store open").
			WithNext("Close it; a running store must be looked at through its own process")
	case errors.Is(err, fs.ErrPermission):
		return nil, unreadable(err)
	case vocab.ReasonOf(err) == vocab.ReasonStoreDamaged:
		return nil, err
	}
	return nil, damaged(err)
}

// create makes an empty store beside the path and moves it there: a crash
// leaves no half-made store.
func create(o Options) error {
	aside := o.Path + ".new"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unreadable(err)
	}
	db, err := openFile(aside, 0)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		return errors.Join(
			b.Put(keyFormat, []byte(formatName)),
			b.Put(keySchema, binary.BigEndian.AppendUint32(nil, o.Schema.Version)),
			b.Put(keyStamp, []byte(o.Stamp)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return unwritable(err, "nothing was written")
	}
	if err := os.Rename(aside, o.Path); err != nil {
		return unreadable(err)
	}
	return syncDir(filepath.Dir(o.Path))
}

// prepare checks what the file says about itself and migrates it.
func prepare(db *bbolt.DB, o Options) error {
	var version uint32
	err := guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(metaBucket)
			if b == nil || string(b.Get(keyFormat)) != formatName || len(b.Get(keySchema)) != 4 {
				return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the file is a database, but not a store of this service")
			}
			version = binary.BigEndian.Uint32(b.Get(keySchema))
			if stamp := store.Stamp(b.Get(keyStamp)); stamp != o.Stamp {
				return wrongStamp(stamp, o.Stamp)
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return err
	case version == o.Schema.Version:
		return nil
	case version > o.Schema.Version:
		return vocab.Errorf(vocab.ReasonStoreNewer,
			"a newer version wrote this store: its schema is %d, this program knows %d", version, o.Schema.Version).
			WithNext("Run the newer version again, or restore a backup taken before it ran")
	}
	return migrate(db, version, o.Schema)
}

func wrongStamp(found, want store.Stamp) error {
	err := vocab.Errorf(vocab.ReasonConfigurationInvalid, "this is a %s store, not a %s one", found, want)
	if found == store.Development {
		return err.WithNext("Its keys and identities are known to everyone; use another data directory")
	}
	return err.WithNext("Use another data directory")
}

// migrate runs every step from version to the current one in one transaction.
func migrate(db *bbolt.DB, version uint32, schema store.Schema) error {
	for v := version + 1; v <= schema.Version; v++ {
		if schema.Migrations[v] == nil {
			return vocab.Errorf(vocab.ReasonStoreNewer, "the store has schema %d, which this program can no longer read (it knows %d)", version, schema.Version).
				WithNext("Run a version in between first")
		}
	}
	err := guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			for v := version + 1; v <= schema.Version; v++ {
				buf := store.NewBuffer(reader{tx})
				if err := schema.Migrations[v](buf); err != nil {
					return err
				}
				buf.Close()
				if err := flush(tx, buf); err != nil {
					return err
				}
			}
			return tx.Bucket(metaBucket).Put(keySchema, binary.BigEndian.AppendUint32(nil, schema.Version))
		})
	})
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*vocab.Error](err); ok {
		return err
	}
	return unwritable(err, "the store was not migrated")
}

// Schema returns the version and the stamp the file carries.
func (s *Store) Schema() (version uint32, stamp store.Stamp, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(metaBucket)
		version, stamp = binary.BigEndian.Uint32(b.Get(keySchema)), store.Stamp(b.Get(keyStamp))
		return nil
	})
	return version, stamp, err
}

// Close implements [store.Store].
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		close(s.queue)
		s.mu.Unlock()
		<-s.idle
		if err := s.db.Close(); err != nil {
			s.closeErr = damaged(err)
		}
		s.lock.release()
	})
	return s.closeErr
}

// Failed returns the error that stopped writing, or nil.
func (s *Store) Failed() error {
	if e := s.failed.Load(); e != nil {
		return e
	}
	return nil
}

func errClosed() error {
	return vocab.Errorf(vocab.ReasonInternal, "the store is closed")
}

// damaged is the answer to a file that contradicts itself.
func damaged(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the store is damaged").
		WithNext("Stop the service, copy the file aside, run fsck, and restore the last good backup").
		Because(cause)
}

// unwritable is the answer to a system that does not write.
func unwritable(cause error, outcome string) *vocab.Error {
	if isFull(cause) {
		return vocab.Errorf(vocab.ReasonStoreFull, "the disk of the store is full; %s", outcome).
			WithNext("Make room and start the service again").Because(cause)
	}
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the system could not write the store; %s", outcome).
		WithNext("Look at the disk and the system log, then start the service again and run fsck").Because(cause)
}

// isFull also looks at the text: bbolt wraps what truncate says as text.
func isFull(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}

func unreadable(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "cannot open the store: %v", cause)
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return unreadable(err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return unwritable(err, "the store may not have been created")
	}
	return nil
}

// usable refuses a context that has ended.
func usable(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
