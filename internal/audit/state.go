package audit

import (
	"bytes"
	"encoding/binary"
	"iter"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Find returns the event with the given ID as it is in r, and checks that its
// leaf is the one the tree was made from. It is for callers that compare a
// record with the event that wrote it, inside one snapshot. The error is
// RESOURCE_NOT_FOUND or LOG_DAMAGED.
func Find(r store.Reader, t vocab.TenantID, id vocab.EventID) (Entry, error) {
	e, err := find(r, t, id)
	if err != nil {
		return Entry{}, err
	}
	stored, _, err := r.Get(tableHashes, key(t, u64(uint64(tlog.StoredHashIndex(0, int64(e.Index))))))
	if err != nil {
		return Entry{}, err
	}
	if hash := e.LeafHash(); !bytes.Equal(stored, hash[:]) {
		return Entry{}, damaged("event %s is not the one its stored hash was made from", id)
	}
	return e, nil
}

// First returns a tenant's first event, proven to be in the tree; nil if its log
// is empty.
func First(r store.Reader, t vocab.TenantID) (*Event, error) {
	n, err := size(r, t)
	if err != nil || n == 0 {
		return nil, err
	}
	e, err := entry(r, t, 0)
	if err == nil {
		err = Prove(r, t, e)
	}
	if err != nil {
		return nil, err
	}
	return e.Event, nil
}

// Prove checks that the entry is in the tree: that its leaf leads to the root
// of the log as it is in r. The first events of the log were compared with a
// checkpoint when the daemon started, so whoever changes one of them and its
// stored hash has to change the root, and is found. The error is LOG_DAMAGED.
func Prove(r store.Reader, t vocab.TenantID, e Entry) error {
	p, err := NewProver(r, t)
	if err != nil {
		return err
	}
	return p.Prove(e)
}

// Prover is [Prove] for many entries of one snapshot. What has been found to
// lead to the root need not be led there again: the path of an entry ends where
// it meets that of an earlier one. It is not safe for concurrent use.
type Prover struct {
	size   int64
	hashes hashReader
	// proven are hashes of the tree, by their place in the table: each is one
	// that the root was made from.
	proven map[int64]tlog.Hash
}

// maxProven bounds what is remembered to about 20 MB.
const maxProven = 200_000

// NewProver returns a prover for a tenant's log as it is in r, where alone it is
// of use. The error is LOG_DAMAGED.
func NewProver(r store.Reader, t vocab.TenantID) (*Prover, error) {
	n, err := size(r, t)
	return &Prover{int64(n), hashReader{r, t}, map[int64]tlog.Hash{}}, err
}

// Prove checks that the entry is in the tree. The error is LOG_DAMAGED.
//
// The tree of a log is made of the largest full trees that its events go into
// from the left (RFC 6962 §2.1); the root is the hash of theirs and of nothing
// else. So a path ends at the latest at the top of one of them.
func (p *Prover) Prove(e Entry) error {
	if e.Index >= uint64(p.size) {
		return damaged("event %s cannot be proven", e.Event.ID)
	}
	type node struct {
		at   int64
		hash tlog.Hash
	}
	var path []node
	h := tlog.Hash(e.LeafHash())
	for level, n := 0, int64(e.Index); ; level, n = level+1, n>>1 {
		at := tlog.StoredHashIndex(level, n)
		want, ends := p.proven[at]
		if top := (n>>1+1)<<(level+1) > p.size; !ends && top {
			var err error
			if want, err = p.hashes.read(at); err != nil {
				return err
			}
			ends = true
		}
		if ends {
			if h != want {
				return damaged("event %s is not in the tree", e.Event.ID)
			}
			break
		}
		beside := node{at: tlog.StoredHashIndex(level, n^1)}
		var err error
		if beside.hash, err = p.hashes.read(beside.at); err != nil {
			return err
		}
		path = append(path, node{at, h}, beside)
		if n&1 == 0 {
			h = tlog.NodeHash(h, beside.hash)
		} else {
			h = tlog.NodeHash(beside.hash, h)
		}
	}
	for _, n := range path {
		if len(p.proven) < maxProven {
			p.proven[n.at] = n.hash
		}
	}
	return nil
}

// maxNewest is how many events LatestRevision looks at.
const maxNewest = 64

// LatestRevision returns the revision of a license that the newest event with
// one tells of, 0 if there is none among the newest. It looks at a bounded
// number; the check of the whole store looks at all.
func LatestRevision(r store.Reader, t vocab.TenantID, c vocab.ContentID) (revision uint32, err error) {
	looked := 0
	for e, err := range ofLicense(r, t, c) {
		if err != nil {
			return 0, err
		}
		// Revisions only grow, so the newest event that names one decides.
		if revision = e.Event.LicenseRevision; revision > 0 {
			break
		}
		if looked++; looked == maxNewest {
			break
		}
	}
	return revision, nil
}

// LastWriter returns the newest event that wrote a license's record, or nil.
func LastWriter(r store.Reader, t vocab.TenantID, c vocab.ContentID) (*Event, error) {
	for e, err := range ofLicense(r, t, c) {
		if err != nil {
			return nil, err
		}
		if e.Event.State != [32]byte{} {
			return e.Event, nil
		}
	}
	return nil, nil
}

// ofLicense walks the events about a license, newest first.
func ofLicense(r store.Reader, t vocab.TenantID, c vocab.ContentID) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		prefix := key(t, c[:])
		for item, err := range r.Scan(tableLicense, store.Range{Prefix: prefix, Reverse: true}) {
			if err == nil && len(item.Key) != len(prefix)+8 {
				err = damaged("the index of licenses cannot be read")
			}
			var e Entry
			if err == nil {
				e, err = entry(r, t, binary.BigEndian.Uint64(item.Key[len(prefix):]))
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// writesTarget reports whether the event wrote a record that its target names:
// settings or a resource.
func (e *Event) writesTarget() bool {
	return e.State != [32]byte{} && e.Target != "" && e.Content.IsZero()
}

// targetKey gives targets index keys of one length whatever their names.
func targetKey(target string) []byte {
	h := canon.Hash([]byte(clean(target, maxTarget)))
	return h[:16]
}

// LastTargetWriter returns the newest event that wrote the record a target
// names, or nil.
func LastTargetWriter(r store.Reader, t vocab.TenantID, target string) (*Event, error) {
	prefix := key(t, targetKey(target))
	for item, err := range r.Scan(tableTargets, store.Range{Prefix: prefix, Reverse: true}) {
		if err != nil {
			return nil, err
		}
		e, err := ofTargetRow(r, t, item.Key, nil)
		if err != nil {
			return nil, err
		}
		return e, nil
	}
	return nil, nil
}

// EachTarget calls fn with the newest event of every target that was ever
// written, in no order, until fn returns an error. Events that the caller has
// from r already, by their index, are not read again.
func EachTarget(r store.Reader, t vocab.TenantID, have map[uint64]*Event, fn func(*Event) error) error {
	var last []byte // the row before, which is its target's newest if the next is another's
	tell := func() error {
		if last == nil {
			return nil
		}
		e, err := ofTargetRow(r, t, last, have)
		if err != nil {
			return err
		}
		return fn(e)
	}
	for item, err := range r.Scan(tableTargets, store.Range{Prefix: key(t)}) {
		if err != nil {
			return err
		}
		if len(item.Key) != targetRow {
			return damaged("the index of targets cannot be read")
		}
		if last != nil && !bytes.Equal(last[:32], item.Key[:32]) {
			if err := tell(); err != nil {
				return err
			}
		}
		last = item.Key
	}
	return tell()
}

// targetRow is the length of a key of the index: tenant, target, position.
const targetRow = 16 + 16 + 8

func ofTargetRow(r store.Reader, t vocab.TenantID, row []byte, have map[uint64]*Event) (*Event, error) {
	if len(row) != targetRow {
		return nil, damaged("the index of targets cannot be read")
	}
	at := binary.BigEndian.Uint64(row[32:])
	e := have[at]
	if e == nil {
		read, err := entry(r, t, at)
		if err != nil {
			return nil, err
		}
		e = read.Event
	}
	if !e.writesTarget() || !bytes.Equal(targetKey(e.Target), row[16:32]) {
		return nil, damaged("the index of targets leads to an event of another")
	}
	return e, nil
}
