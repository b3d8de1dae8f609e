package audit

import (
	"context"
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

var emptyRoot = sha256.Sum256(nil)

// Inclusion proves that an event is in the log of a given size (RFC 6962
// §2.1.1).
type Inclusion struct {
	Index    uint64
	LeafHash [32]byte
	Size     uint64
	Root     [32]byte
	Hashes   [][32]byte // audit path, from the leaf up
}

// Consistency proves that a log continues a smaller one (RFC 6962 §2.1.2).
type Consistency struct {
	From     uint64
	FromRoot [32]byte
	Size     uint64
	Root     [32]byte
	Hashes   [][32]byte
}

// ProveInclusion proves that the event is in the log of the given size; 0
// means its size now. The errors are RESOURCE_NOT_FOUND, and REQUEST_INVALID
// for a size the log does not have or that the event came after.
func (l *Log) ProveInclusion(ctx context.Context, t vocab.TenantID, id vocab.EventID, at uint64) (p Inclusion, err error) {
	err = l.store.View(ctx, func(r store.Reader) error {
		e, err := find(r, t, id)
		if err != nil {
			return err
		}
		if at, err = checkSize(r, t, at); err != nil {
			return err
		}
		if e.Index >= at {
			return vocab.Errorf(vocab.ReasonRequestInvalid, "event %s came after the log had %d events", id, at)
		}
		p, err = InclusionOf(r, t, e, at)
		return err
	})
	return p, err
}

// ProveConsistency proves that the log of size to (0: now) continues the log
// of size from. The error is REQUEST_INVALID if the log has not these sizes.
func (l *Log) ProveConsistency(ctx context.Context, t vocab.TenantID, from, to uint64) (p Consistency, err error) {
	err = l.store.View(ctx, func(r store.Reader) error {
		p, err = ConsistencyOf(r, t, from, to)
		return err
	})
	return p, err
}

// checkSize returns at, or the size now for 0, if the log has had that size.
func checkSize(r store.Reader, t vocab.TenantID, at uint64) (uint64, error) {
	n, err := size(r, t)
	if err != nil {
		return 0, err
	}
	if at > n {
		return 0, vocab.Errorf(vocab.ReasonRequestInvalid, "the log has %d events, not %d", n, at)
	}
	if at == 0 {
		return n, nil
	}
	return at, nil
}

// Verify reports whether the proof holds. It says nothing about whether Root
// is the log's: compare it with a checkpoint.
func (p Inclusion) Verify() bool {
	return p.Size <= maxSize && p.Index < p.Size &&
		tlog.CheckRecord(hashes(p.Hashes), int64(p.Size), p.Root, int64(p.Index), p.LeafHash) == nil
}

// Verify reports whether the proof holds. It says nothing about whether the
// roots are the log's: compare them with checkpoints.
func (p Consistency) Verify() bool {
	if p.From == 0 {
		return len(p.Hashes) == 0 && p.FromRoot == emptyRoot && (p.Size > 0 || p.Root == emptyRoot)
	}
	return p.Size <= maxSize && p.From <= p.Size &&
		tlog.CheckTree(hashes(p.Hashes), int64(p.Size), p.Root, int64(p.From), p.FromRoot) == nil
}

func arrays(in []tlog.Hash) [][32]byte {
	out := make([][32]byte, len(in))
	for i, h := range in {
		out[i] = h
	}
	return out
}

func hashes(in [][32]byte) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = h
	}
	return out
}
