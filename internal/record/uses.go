package record

import (
	"encoding/binary"
	"time"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Use is a use license that was given out to be kept.
type Use struct {
	Principal string
	NotAfter  time.Time
}

// PutUse notes a use license that may be kept until u.NotAfter.
func PutUse(tx store.Tx, t vocab.TenantID, c vocab.ContentID, e vocab.EventID, u Use) error {
	end := uint64(u.NotAfter.UnixMilli())
	if err := tx.Put(tableUses, key(t, c[:], u64(end), e[:]), []byte(u.Principal)); err != nil {
		return err
	}
	// One row for all uses of a document that end on the same day: it is
	// there already but for the first, and then costs only a look.
	day := key(t, u32(dayOf(end)), c[:])
	if _, there, err := tx.Get(tableUsesByDay, day); err != nil || there {
		return err
	}
	return tx.Put(tableUsesByDay, day, nil)
}

// dayOf counts days since 1970, UTC.
func dayOf(millis uint64) uint32 { return uint32(millis / uint64((24 * time.Hour).Milliseconds())) }

// SweepUses forgets use licenses that ended on a day before now's, which
// nobody can open with any more. It deletes at most 1,000 rows and returns
// how many; there may be more unless it returns 0.
func SweepUses(tx store.Tx, t vocab.TenantID, now time.Time) (int, error) {
	today := dayOf(uint64(now.UnixMilli()))
	n := 0
	for item, err := range tx.Scan(tableUsesByDay, store.Range{Prefix: key(t)}) {
		if err != nil {
			return n, err
		}
		if len(item.Key) != 36 {
			return n, damaged(tableUsesByDay, nil)
		}
		day := binary.BigEndian.Uint32(item.Key[16:])
		if day >= today {
			break
		}
		document := key(t, item.Key[20:])
		for use, err := range tx.Scan(tableUses, store.Range{Prefix: document}) {
			if err != nil {
				return n, err
			}
			if len(use.Key) != 56 {
				return n, damaged(tableUses, nil)
			}
			// Those that end first come first.
			if dayOf(binary.BigEndian.Uint64(use.Key[32:])) > day {
				break
			}
			if n == maxScan {
				return n, nil // the day's row stays and leads to the rest
			}
			if err := tx.Delete(tableUses, use.Key); err != nil {
				return n, err
			}
			n++
		}
		if n == maxScan {
			return n, nil
		}
		if err := tx.Delete(tableUsesByDay, item.Key); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// ListUses returns the use licenses of a document that may still open after
// now, those that end last first: at most limit of them, and how many there
// are in all.
func ListUses(r store.Reader, t vocab.TenantID, c vocab.ContentID, now time.Time, limit int) (uses []Use, total int, err error) {
	err = EachUse(r, t, c, now, func(u Use) bool {
		if total++; len(uses) < limit {
			uses = append(uses, u)
		}
		return true
	})
	if err != nil {
		return nil, 0, err
	}
	return uses, total, nil
}

// EachUse calls fn with the use licenses of a document that may still open
// after now, those that end last first, until fn returns false.
func EachUse(r store.Reader, t vocab.TenantID, c vocab.ContentID, now time.Time, fn func(Use) bool) error {
	prefix := key(t, c[:])
	for item, err := range r.Scan(tableUses, store.Range{Prefix: prefix, Reverse: true}) {
		if err != nil {
			return err
		}
		if len(item.Key) != len(prefix)+8+16 {
			return damaged(tableUses, nil)
		}
		end := time.UnixMilli(int64(binary.BigEndian.Uint64(item.Key[len(prefix):]))).UTC()
		if !end.After(now) || !fn(Use{Principal: string(item.Value), NotAfter: end}) {
			return nil
		}
	}
	return nil
}

// NextUsed returns the newest document before another (zero: the newest) that
// use licenses were given out for, whether or not one may still open; zero if
// there is none. It looks at one row, however many use licenses there are.
func NextUsed(r store.Reader, t vocab.TenantID, before vocab.ContentID) (c vocab.ContentID, err error) {
	rng := store.Range{Prefix: key(t), Reverse: true}
	if !before.IsZero() {
		rng.From = key(t, before[:]) // shorter than every row of that document, so before all of them
	}
	for item, err := range r.Scan(tableUses, rng) {
		if err != nil {
			return c, err
		}
		if len(item.Key) != 56 {
			return c, damaged(tableUses, nil)
		}
		return vocab.ContentID(item.Key[16:32]), nil
	}
	return c, nil
}
