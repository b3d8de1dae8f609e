package audit

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Tree computes the root hash of a log from its leaves alone, in memory that
// grows with the logarithm of their number. The zero value is the empty tree.
type Tree struct {
	n     uint64
	right []tlog.Hash // roots of the complete subtrees, largest first
}

// Add appends a leaf with the given hash and returns the hashes that a stored
// tree holds for it: its own, and those of the subtrees it completes.
func (t *Tree) Add(leafHash [32]byte) []tlog.Hash {
	h := tlog.Hash(leafHash)
	stored := []tlog.Hash{h}
	for m := t.n; m&1 == 1; m >>= 1 {
		last := len(t.right) - 1
		h = tlog.NodeHash(t.right[last], h)
		t.right = t.right[:last]
		stored = append(stored, h)
	}
	t.right = append(t.right, h)
	t.n++
	return stored
}

// Size returns the number of leaves.
func (t *Tree) Size() uint64 { return t.n }

// Root returns the root hash.
func (t *Tree) Root() [32]byte {
	if t.n == 0 {
		return emptyRoot
	}
	h := t.right[len(t.right)-1]
	for _, left := range slices.Backward(t.right[:len(t.right)-1]) {
		h = tlog.NodeHash(left, h)
	}
	return h
}

// Report is what a verification found.
type Report struct {
	Size uint64   // events looked at
	Root [32]byte // computed from the events; zero if one cannot be read
	// Bad is the first thing that is wrong, nil if nothing is.
	Bad *Finding
}

// Finding is something wrong in the log.
type Finding struct {
	Index   uint64        // position of the first event it may concern
	Event   vocab.EventID // that event; zero if it cannot be read
	Problem string
}

// Verify computes the tenant's whole tree anew from the events and compares it
// with everything that was derived from them: stored hashes, indexes, and the
// given checkpoints, whose signatures it takes as verified. If anything is
// wrong the report names the first, and the error is LOG_DAMAGED. The log may
// be written to meanwhile.
func (l *Log) Verify(ctx context.Context, t vocab.TenantID, checkpoints ...Checkpoint) (Report, error) {
	checkpoints = slices.SortedFunc(slices.Values(checkpoints), func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	v := verification{t: t, checkpoints: checkpoints}
	n, err := l.Size(ctx, t)
	for from := uint64(0); err == nil && v.bad == nil && from < n; from += chunk {
		err = l.store.View(ctx, func(r store.Reader) error { return v.events(r, from, min(from+chunk, n)) })
	}
	if err == nil && v.bad == nil {
		v.compare()
	}
	if err == nil && v.bad == nil {
		err = l.store.View(ctx, func(r store.Reader) error { return v.rows(r) })
	}
	if err == nil && v.bad == nil && len(v.checkpoints) > 0 {
		c := v.checkpoints[0]
		v.found(n, vocab.EventID{}, "the log has %d events, but had %d at %s", n, c.Size, c.Time.Format(time.RFC3339))
	}
	rep := Report{Size: v.tree.Size(), Root: v.tree.Root(), Bad: v.bad}
	if err != nil {
		return rep, err
	}
	if v.bad != nil {
		rep.Root = [32]byte{}
		return rep, damaged("%s", v.bad.Problem)
	}
	return rep, nil
}

// verification is the state of one Verify.
type verification struct {
	t           vocab.TenantID
	tree        Tree
	checkpoints []Checkpoint // not yet reached, by size
	agreed      uint64       // size of the last checkpoint that fits
	licenses    uint64       // events about a license
	targets     uint64       // events that wrote what is no license
	bad         *Finding
}

func (v *verification) found(n uint64, id vocab.EventID, format string, args ...any) {
	if v.bad == nil {
		v.bad = &Finding{Index: n, Event: id, Problem: fmt.Sprintf(format, args...)}
	}
}

// events verifies the events from position from up to to. It returns only
// errors of the store; what is wrong with the log goes into v.bad.
func (v *verification) events(r store.Reader, from, to uint64) error {
	for n := from; n < to && v.bad == nil; n++ {
		v.compare()
		if v.bad != nil {
			return nil
		}
		b, ok, err := r.Get(tableEvents, key(v.t, u64(n)))
		if err != nil {
			return err
		}
		if !ok {
			v.found(n, vocab.EventID{}, "the event at position %d is missing", n)
			return nil
		}
		ent, err := parseEntry(v.t, n, b)
		if err != nil {
			v.found(n, vocab.EventID{}, "the event at position %d cannot be read or is another tenant's", n)
			return nil //nolint:nilerr // it is told; the error of this function is the store's
		}
		if err := v.derived(r, ent); err != nil {
			return err
		}
	}
	return nil
}

// derived compares what is stored beside an event with the event.
func (v *verification) derived(r store.Reader, ent Entry) error {
	n, e := ent.Index, ent.Event
	first := uint64(tlog.StoredHashIndex(0, int64(n)))
	for i, want := range v.tree.Add(ent.LeafHash()) {
		got, _, err := r.Get(tableHashes, key(v.t, u64(first+uint64(i))))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want[:]) {
			v.found(n, e.ID, "event %s at position %d is not the one its stored hash (level %d) was made from", e.ID, n, i)
			return nil
		}
	}
	if got, _, err := r.Get(tableIDs, key(v.t, e.ID[:])); err != nil {
		return err
	} else if !bytes.Equal(got, u64(n)) {
		v.found(n, e.ID, "event %s at position %d is not found by its ID", e.ID, n)
	}
	if _, ok, err := r.Get(tableTimes, key(v.t, u64(millis(e.Time)), u64(n))); err != nil {
		return err
	} else if !ok {
		v.found(n, e.ID, "event %s at position %d is not found by its time", e.ID, n)
	}
	if e.writesTarget() {
		v.targets++
		if _, ok, err := r.Get(tableTargets, key(v.t, targetKey(e.Target), u64(n))); err != nil {
			return err
		} else if !ok {
			v.found(n, e.ID, "event %s at position %d is not found by what it wrote", e.ID, n)
		}
	}
	if e.Content.IsZero() {
		return nil
	}
	v.licenses++
	if _, ok, err := r.Get(tableLicense, key(v.t, e.Content[:], u64(n))); err != nil {
		return err
	} else if !ok {
		v.found(n, e.ID, "event %s at position %d is not found by its license", e.ID, n)
	}
	return nil
}

// compare compares the tree so far with the checkpoints of its size.
func (v *verification) compare() {
	for len(v.checkpoints) > 0 && v.checkpoints[0].Size == v.tree.Size() {
		c := v.checkpoints[0]
		v.checkpoints = v.checkpoints[1:]
		if c.Root != v.tree.Root() || c.Tenant != v.t {
			v.found(v.agreed, vocab.EventID{},
				"the events from position %d to %d are not those of the checkpoint of %s", v.agreed, c.Size, c.Time.Format(time.RFC3339))
			return
		}
		v.agreed = c.Size
	}
}

// rows looks for rows that no event accounts for. Events may have been added
// since; the rows of those are left out.
func (v *verification) rows(r store.Reader) error {
	n := v.tree.Size()
	now, err := size(r, v.t)
	if err != nil {
		return err
	}
	for _, end := range []struct {
		table store.Table
		last  uint64 // key of the last row; of an empty log there is none
		what  string
	}{
		{tableEvents, now - 1, "event"},
		{tableHashes, uint64(tlog.StoredHashCount(int64(now))) - 1, "stored hash"},
	} {
		for item, err := range r.Scan(end.table, store.Range{Prefix: key(v.t), Reverse: true}) {
			if err != nil {
				return err
			}
			if now == 0 || !bytes.Equal(item.Key, key(v.t, u64(end.last))) {
				v.found(now, vocab.EventID{}, "there is a %s behind the end of the log at %d", end.what, now)
				return nil
			}
			break
		}
	}
	for _, index := range []struct {
		table store.Table
		want  uint64
		what  string
	}{{tableIDs, n, "IDs"}, {tableTimes, n, "times"}, {tableLicense, v.licenses, "licenses"}, {tableTargets, v.targets, "targets"}} {
		var rows uint64
		for item, err := range r.Scan(index.table, store.Range{Prefix: key(v.t)}) {
			if err != nil {
				return err
			}
			at := item.Key[max(0, len(item.Key)-8):]
			if index.table == tableIDs {
				at = item.Value
			}
			if bytes.Compare(at, u64(n)) < 0 || bytes.Compare(at, u64(now)) >= 0 {
				rows++
			}
		}
		if rows != index.want {
			v.found(n, vocab.EventID{}, "the index of %s has %d rows for %d events", index.what, rows, index.want)
			return nil
		}
	}
	return nil
}
