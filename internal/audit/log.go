package audit

import (
	"encoding/binary"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// The tables. Every key begins with the tenant's ID; numbers are u64,
// big-endian, so that keys are ordered like the log.
const (
	tableEvents  store.Table = "audit-events"   // index -> leaf
	tableHashes  store.Table = "audit-hashes"   // stored hash index (tlog) -> hash
	tableHeads   store.Table = "audit-heads"    // nothing -> size
	tableIDs     store.Table = "audit-ids"      // event ID -> index
	tableTimes   store.Table = "audit-times"    // time in ms, index -> nothing
	tableLicense store.Table = "audit-licenses" // content ID, index -> nothing
	tableTargets store.Table = "audit-targets"  // H(target), index -> nothing; of events that wrote what is no license
)

// Log is the audit log of all tenants of one store. It is safe for concurrent
// use.
type Log struct {
	store store.Store

	mu    sync.Mutex
	news  map[vocab.TenantID]chan struct{} // closed when events have been committed
	dirty map[vocab.TenantID]bool          // has events no exported checkpoint covers
	wake  chan struct{}                    // holds one token if dirty is not empty
}

// New returns the log kept in s. It reads nothing: see [Log.CheckExported].
func New(s store.Store) *Log {
	return &Log{
		store: s,
		news:  make(map[vocab.TenantID]chan struct{}),
		dirty: make(map[vocab.TenantID]bool),
		wake:  make(chan struct{}, 1),
	}
}

// Entry is an event at its place in the log.
type Entry struct {
	Index uint64 // position, from 0
	Leaf  []byte // canonical bytes
	Event *Event
}

// LeafHash returns the hash under which the entry stands in the tree.
func (e Entry) LeafHash() [32]byte { return HashLeaf(e.Leaf) }

// Append adds e to its tenant's log as part of tx: it is in the log exactly if
// tx is committed. Readers that wait are woken once that is durable.
//
// The error is LOG_DAMAGED if the log cannot be continued, INTERNAL if the
// event cannot be encoded or its ID is in the log already, or the store's; the
// caller must then drop the transaction.
func (l *Log) Append(tx store.Tx, e *Event) error {
	b, err := e.Encode()
	if err != nil {
		return err
	}
	t := e.Tenant
	if _, ok, err := tx.Get(tableIDs, key(t, e.ID[:])); err != nil || ok {
		if ok {
			return vocab.Errorf(vocab.ReasonInternal, "event %s is in the log already", e.ID)
		}
		return err
	}
	n, err := size(tx, t)
	if err != nil {
		return err
	}
	if _, ok, err := tx.Get(tableEvents, key(t, u64(n))); err != nil || ok {
		if ok {
			return damaged("it says it ends at position %d, but there is an event", n)
		}
		return err
	}
	hashes, err := tlog.StoredHashesForRecordHash(int64(n), tlog.RecordHash(b), hashReader{tx, t})
	if err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, int64(n))
	for i, h := range hashes {
		if err := tx.Put(tableHashes, key(t, u64(uint64(first)+uint64(i))), h[:]); err != nil {
			return err
		}
	}
	if !e.Content.IsZero() {
		if err := tx.Put(tableLicense, key(t, e.Content[:], u64(n)), nil); err != nil {
			return err
		}
	}
	if e.writesTarget() {
		if err := tx.Put(tableTargets, key(t, targetKey(e.Target), u64(n)), nil); err != nil {
			return err
		}
	}
	for _, w := range []struct {
		table      store.Table
		key, value []byte
	}{
		{tableEvents, key(t, u64(n)), b},
		{tableIDs, key(t, e.ID[:]), u64(n)},
		{tableTimes, key(t, u64(millis(e.Time)), u64(n)), nil},
		{tableHeads, key(t), u64(n + 1)},
	} {
		if err := tx.Put(w.table, w.key, w.value); err != nil {
			return err
		}
	}
	tx.AfterCommit(func() { l.announce(t) })
	return nil
}

// announce wakes whoever waits for events of the tenant, and the exporter.
func (l *Log) announce(t vocab.TenantID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.news[t]; c != nil {
		close(c)
		delete(l.news, t)
	}
	l.dirty[t] = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// arrival returns a channel that is closed at the next commit of events of the
// tenant. Take it before looking, so that none falls in between.
func (l *Log) arrival(t vocab.TenantID) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.news[t]
	if c == nil {
		c = make(chan struct{})
		l.news[t] = c
	}
	return c
}

// size returns the number of events in the tenant's log.
func size(r store.Reader, t vocab.TenantID) (uint64, error) {
	b, ok, err := r.Get(tableHeads, key(t))
	if err != nil || !ok {
		return 0, err
	}
	if len(b) != 8 || binary.BigEndian.Uint64(b) > maxSize {
		return 0, damaged("its size cannot be read")
	}
	return binary.BigEndian.Uint64(b), nil
}

// maxSize keeps all arithmetic on positions far from overflow.
const maxSize = 1 << 48

// entry reads the event at a position that the log is known to have.
func entry(r store.Reader, t vocab.TenantID, n uint64) (Entry, error) {
	b, ok, err := r.Get(tableEvents, key(t, u64(n)))
	if err != nil {
		return Entry{}, err
	}
	if !ok {
		return Entry{}, damaged("the event at position %d is missing", n)
	}
	return parseEntry(t, n, b)
}

func parseEntry(t vocab.TenantID, n uint64, b []byte) (Entry, error) {
	e, err := ParseEvent(b)
	if err != nil {
		return Entry{}, damaged("the event at position %d cannot be read", n).Because(err)
	}
	if e.Tenant != t {
		return Entry{}, damaged("the event at position %d is another tenant's", n)
	}
	return Entry{Index: n, Leaf: b, Event: e}, nil
}

// hashReader reads the stored hashes of a tenant's tree.
type hashReader struct {
	r store.Reader
	t vocab.TenantID
}

// ReadHashes implements [tlog.HashReader].
func (h hashReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		var err error
		if out[i], err = h.read(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// read reads one stored hash.
func (h hashReader) read(n int64) (tlog.Hash, error) {
	b, ok, err := h.r.Get(tableHashes, key(h.t, u64(uint64(n))))
	if err != nil {
		return tlog.Hash{}, err
	}
	if !ok || len(b) != tlog.HashSize {
		return tlog.Hash{}, damaged("the stored hash %d is missing", n)
	}
	return tlog.Hash(b), nil
}

// root returns the root hash of the first n events; that of the empty tree is
// SHA-256 of nothing (RFC 6962 §2.1).
func root(r store.Reader, t vocab.TenantID, n uint64) ([32]byte, error) {
	if n == 0 {
		return emptyRoot, nil
	}
	return tlog.TreeHash(int64(n), hashReader{r, t})
}

// Head returns the size and the root hash of a tenant's log as it is in r.
func Head(r store.Reader, t vocab.TenantID) (n uint64, h [32]byte, err error) {
	if n, err = size(r, t); err == nil {
		h, err = root(r, t, n)
	}
	return n, h, err
}

func key(t vocab.TenantID, parts ...[]byte) []byte {
	k := append(make([]byte, 0, 48), t[:]...)
	for _, p := range parts {
		k = append(k, p...)
	}
	return k
}

func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
