package audit

import (
	"context"
	"encoding/binary"
	"iter"
	"slices"
	"time"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of reading.
const (
	// MaxPage is the largest page of [Log.List].
	MaxPage = 1000
	// maxLook is how many events List looks at for one page, so that a
	// filter that fits nothing costs no more than one that fits all.
	maxLook = 10_000
	// chunk is how many events a stream reads from one snapshot. Streams
	// hold no snapshot while their consumer is at work.
	chunk = 256
)

// Size returns the number of events in the tenant's log.
func (l *Log) Size(ctx context.Context, t vocab.TenantID) (n uint64, err error) {
	err = l.store.View(ctx, func(r store.Reader) error {
		n, err = size(r, t)
		return err
	})
	return n, err
}

// Get returns the event with the given ID, or RESOURCE_NOT_FOUND.
func (l *Log) Get(ctx context.Context, t vocab.TenantID, id vocab.EventID) (e Entry, err error) {
	err = l.store.View(ctx, func(r store.Reader) error {
		e, err = find(r, t, id)
		return err
	})
	return e, err
}

func find(r store.Reader, t vocab.TenantID, id vocab.EventID) (Entry, error) {
	b, ok, err := r.Get(tableIDs, key(t, id[:]))
	switch {
	case err != nil:
		return Entry{}, err
	case !ok:
		return Entry{}, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no event %s", id)
	case len(b) != 8:
		return Entry{}, damaged("the position of event %s cannot be read", id)
	}
	e, err := entry(r, t, binary.BigEndian.Uint64(b))
	if err == nil && e.Event.ID != id {
		return Entry{}, damaged("the index leads from event %s to %s", id, e.Event.ID)
	}
	return e, err
}

// Filter selects events; the zero value selects all. Everything set must hold.
type Filter struct {
	Content   vocab.ContentID   // about this license
	Principal string            // by this principal, by name, or on its behalf
	Kinds     []Kind            // any of these
	Refused   bool              // only those with a reason: refusals and failures
	Reason    vocab.Reason      // only those with this reason
	Alarm     bool              // only alarms
	Operation vocab.OperationID // only those that belong to this operation
	Since     time.Time         // not before
	Until     time.Time         // before
}

func (f *Filter) matches(e *Event) bool {
	switch {
	case !f.Content.IsZero() && e.Content != f.Content,
		f.Principal != "" && e.Principal.Name != f.Principal && e.Actor.Name != f.Principal,
		f.Refused && e.Reason == "",
		f.Reason != "" && e.Reason != f.Reason,
		f.Alarm && !e.Alarm,
		!f.Operation.IsZero() && e.Operation != f.Operation,
		!f.Since.IsZero() && e.Time.Before(f.Since),
		!f.Until.IsZero() && !e.Time.Before(f.Until):
		return false
	}
	return len(f.Kinds) == 0 || slices.Contains(f.Kinds, e.Kind)
}

// Cursor is a place in a listing. The zero value is its beginning. It says
// nothing about who may read on: whoever hands it out must protect it.
type Cursor struct {
	Time  uint64 // ms; of listings of one license 0
	Index uint64 // the next to look at is before this one
	set   bool
}

// IsZero reports whether it is the beginning.
func (c Cursor) IsZero() bool { return !c.set }

// AppendBinary appends the 16-byte form to b; nothing for the beginning.
func (c Cursor) AppendBinary(b []byte) ([]byte, error) {
	if !c.set {
		return b, nil
	}
	return append(append(b, u64(c.Time)...), u64(c.Index)...), nil
}

// ParseCursor reads the binary form. The error is PAGE_TOKEN_INVALID.
func ParseCursor(b []byte) (Cursor, error) {
	switch len(b) {
	case 0:
		return Cursor{}, nil
	case 16:
		return Cursor{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), true}, nil
	}
	return Cursor{}, vocab.Errorf(vocab.ReasonPageTokenInvalid, "the page token is not one of this listing")
}

// List returns up to limit events (at most [MaxPage]), newest first: in order
// of time, those of one license in order of the log. The cursor leads to the
// next page and is zero after the last. A page may hold fewer events than
// asked for, even none, with more to come: List looks at a bounded number.
func (l *Log) List(ctx context.Context, t vocab.TenantID, f Filter, from Cursor, limit int) (page []Entry, next Cursor, err error) {
	limit = min(max(limit, 1), MaxPage)
	err = l.store.View(ctx, func(r store.Reader) error {
		page, next, err = list(ctx, r, t, f, from, limit)
		return err
	})
	return page, next, err
}

func list(ctx context.Context, r store.Reader, t vocab.TenantID, f Filter, from Cursor, limit int) (page []Entry, next Cursor, err error) {
	table, rng := tableTimes, store.Range{Prefix: key(t), Reverse: true}
	if !f.Content.IsZero() {
		table, rng.Prefix = tableLicense, key(t, f.Content[:])
	}
	switch {
	case from.set && table == tableTimes:
		rng.From = key(t, u64(from.Time), u64(from.Index))
	case from.set:
		rng.From = append(slices.Clip(rng.Prefix), u64(from.Index)...)
	case !f.Until.IsZero() && table == tableTimes:
		// One that is exactly at Until is left out by the filter.
		rng.From = key(t, u64(millis(f.Until)), u64(0))
	}
	looked := 0
	for item, err := range r.Scan(table, rng) {
		if err != nil {
			return nil, Cursor{}, err
		}
		c, ok := cursorOf(table, item.Key)
		if !ok {
			return nil, Cursor{}, damaged("an index of it cannot be read")
		}
		if from.set && c == from {
			continue // where the page before ended
		}
		if table == tableTimes && !f.Since.IsZero() && c.Time < millis(f.Since) {
			return page, Cursor{}, nil
		}
		if len(page) == limit || looked == maxLook {
			return page, next, nil
		}
		if looked++; looked%chunk == 0 && ctx.Err() != nil {
			return nil, Cursor{}, context.Cause(ctx)
		}
		e, err := entry(r, t, c.Index)
		if err != nil {
			return nil, Cursor{}, err
		}
		if f.matches(e.Event) {
			page = append(page, e)
		}
		next = c
	}
	return page, Cursor{}, nil
}

// cursorOf reads the place out of an index key.
func cursorOf(table store.Table, k []byte) (Cursor, bool) {
	want := 32 // tenant, time, index
	if table == tableLicense {
		want = 40 // tenant, content, index
	}
	if len(k) != want {
		return Cursor{}, false
	}
	c := Cursor{Index: binary.BigEndian.Uint64(k[want-8:]), set: true}
	if table == tableTimes {
		c.Time = binary.BigEndian.Uint64(k[16:])
	}
	return c, true
}

// Range yields the events from position from up to but not including to, in
// order. A position behind the end is REQUEST_INVALID. It holds no snapshot
// while the consumer works, and ends after an error.
func (l *Log) Range(ctx context.Context, t vocab.TenantID, from, to uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		n, err := l.Size(ctx, t)
		if err == nil && (from > to || to > n) {
			err = vocab.Errorf(vocab.ReasonRequestInvalid, "the log has %d events: positions %d to %d are not in it", n, from, to)
		}
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for from < to {
			es, err := l.read(ctx, t, from, min(to, from+chunk))
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range es {
				if !yield(e, nil) {
					return
				}
			}
			from += uint64(len(es))
		}
	}
}

// Tail yields every event from position from on, each exactly once and in
// order, as soon as it is durable, until the context ends; it then yields the
// context's cause. A position behind the end waits for it. Slow consumers hold
// up nobody.
func (l *Log) Tail(ctx context.Context, t vocab.TenantID, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			news := l.arrival(t)
			n, err := l.Size(ctx, t)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if from < n {
				for e, err := range l.Range(ctx, t, from, n) {
					if !yield(e, err) || err != nil {
						return
					}
				}
				from = n
				continue
			}
			select {
			case <-news:
			case <-ctx.Done():
				yield(Entry{}, context.Cause(ctx))
				return
			}
		}
	}
}

// read returns the events of positions that the log has.
func (l *Log) read(ctx context.Context, t vocab.TenantID, from, to uint64) (es []Entry, err error) {
	err = l.store.View(ctx, func(r store.Reader) error {
		es = make([]Entry, 0, to-from)
		for n := from; n < to; n++ {
			e, err := entry(r, t, n)
			if err != nil {
				return err
			}
			es = append(es, e)
		}
		return nil
	})
	return es, err
}
