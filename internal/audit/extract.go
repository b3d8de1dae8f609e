package audit

import (
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// At returns the event at a position that the log has in r.
func At(r store.Reader, t vocab.TenantID, n uint64) (Entry, error) {
	size, err := size(r, t)
	if err != nil {
		return Entry{}, err
	}
	if n >= size {
		return Entry{}, damaged("there is no position %d", n)
	}
	return entry(r, t, n)
}

// CheckpointOf returns what the log is in r, unsigned, with the time now.
func CheckpointOf(r store.Reader, t vocab.TenantID, now time.Time) (c Checkpoint, err error) {
	n, err := size(r, t)
	if err != nil {
		return c, err
	}
	h, err := root(r, t, n)
	return Checkpoint{Tenant: t, Size: n, Root: h, Time: fromMillis(millis(now))}, err
}

// InclusionOf proves that an entry of the log in r is in its first at events,
// of which it must be one.
func InclusionOf(r store.Reader, t vocab.TenantID, e Entry, at uint64) (p Inclusion, err error) {
	hashes, err := tlog.ProveRecord(int64(at), int64(e.Index), hashReader{r, t})
	if err != nil {
		return p, err
	}
	p = Inclusion{Index: e.Index, LeafHash: e.LeafHash(), Size: at, Hashes: arrays(hashes)}
	p.Root, err = root(r, t, at)
	return p, err
}

// ConsistencyOf proves that the log of size to in r (0: all of it) continues
// the log of size from. The error is REQUEST_INVALID if the log has not these
// sizes.
func ConsistencyOf(r store.Reader, t vocab.TenantID, from, to uint64) (p Consistency, err error) {
	if to, err = checkSize(r, t, to); err != nil {
		return p, err
	}
	if from > to {
		return p, vocab.Errorf(vocab.ReasonRequestInvalid, "a log of %d events does not continue one of %d", to, from)
	}
	p = Consistency{From: from, Size: to}
	if from > 0 {
		hashes, err := tlog.ProveTree(int64(to), int64(from), hashReader{r, t})
		if err != nil {
			return p, err
		}
		p.Hashes = arrays(hashes)
	}
	if p.FromRoot, err = root(r, t, from); err != nil {
		return p, err
	}
	p.Root, err = root(r, t, to)
	return p, err
}
