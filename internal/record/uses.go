package record

import (
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Use is a use license that was given out to be kept.
type Use struct {
	// Principal is whose it is, as a person names them.
	Principal string
	// Of are those it is found by beside its document: whoever it was given to,
	// under every name, and the service that called for them.
	Of       []vocab.Principal
	NotAfter time.Time
}

// UseOf is a use license found by its principal.
type UseOf struct {
	Content  vocab.ContentID
	NotAfter time.Time
}

// useKey is the length of a key of uses and of uses by principal: tenant,
// document or principal, not after, event.
const useKey = 16 + 16 + 8 + 16

// PutUse notes a use license that may be kept until u.NotAfter.
func PutUse(tx store.Tx, t vocab.TenantID, c vocab.ContentID, e vocab.EventID, u Use) error {
	end := uint64(u.NotAfter.UnixMilli())
	if err := tx.Put(tableUses, key(t, c[:], u64(end), e[:]), u.encode()); err != nil {
		return err
	}
	for _, p := range u.Of {
		if err := tx.Put(tableUsesByPrincipal, key(t, ownerKey(p), u64(end), e[:]), c[:]); err != nil {
			return err
		}
	}
	// One row for all uses of a document that end on the same day: it is
	// there already but for the first, and then costs only a look.
	day := key(t, u32(dayOf(end)), c[:])
	if _, there, err := tx.Get(tableUsesByDay, day); err != nil || there {
		return err
	}
	return tx.Put(tableUsesByDay, day, nil)
}

// encode returns the stored value: the name and, each after a line break, the
// principals.
func (u *Use) encode() []byte {
	lines := append([]string{strings.ReplaceAll(u.Principal, "\n", " ")}, texts(u.Of)...)
	return []byte(strings.Join(lines, "\n"))
}

func decodeUse(value []byte) (u Use, err error) {
	lines := strings.Split(string(value), "\n")
	u.Principal = lines[0]
	if len(lines) > 1 {
		u.Of, err = principals(lines[1:])
	}
	if err != nil {
		err = damaged(tableUses, err)
	}
	return u, err
}

// dayOf counts days since 1970, UTC.
func dayOf(millis uint64) uint32 { return uint32(millis / uint64((24 * time.Hour).Milliseconds())) }

// SweepUses forgets use licenses that ended on a day before now's, which
// nobody can open with any more. It deletes about 1,000 rows and returns how
// many; there may be more unless it returns 0.
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
			if len(use.Key) != useKey {
				return n, damaged(tableUses, nil)
			}
			// Those that end first come first.
			if dayOf(binary.BigEndian.Uint64(use.Key[32:])) > day {
				break
			}
			if n >= maxScan {
				return n, nil // the day's row stays and leads to the rest
			}
			deleted, err := deleteUse(tx, use)
			if err != nil {
				return n, err
			}
			n += deleted
		}
		if n >= maxScan {
			return n, nil
		}
		if err := tx.Delete(tableUsesByDay, item.Key); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// deleteUse deletes a use with what leads to it, and returns how many rows that
// were.
func deleteUse(tx store.Tx, use store.Item) (int, error) {
	u, err := decodeUse(use.Value)
	if err != nil {
		return 0, err
	}
	for _, p := range u.Of {
		if err := tx.Delete(tableUsesByPrincipal, byPrincipal(use.Key, p)); err != nil {
			return 0, err
		}
	}
	return 1 + len(u.Of), tx.Delete(tableUses, use.Key)
}

// byPrincipal is where a use, by its key, is found by a principal.
func byPrincipal(use []byte, p vocab.Principal) []byte {
	return key(vocab.TenantID(use[:16]), ownerKey(p), use[32:])
}

// ListUses returns the use licenses of a document that may still open after
// now, those that end last first: at most limit of them, and how many there
// are in all.
func ListUses(r store.Reader, t vocab.TenantID, c vocab.ContentID, now time.Time, limit int) (uses []Use, total int, err error) {
	err = eachUse(r, tableUses, key(t, c[:]), now, func(end time.Time, value []byte) error {
		if total++; len(uses) == limit {
			return nil
		}
		u, err := decodeUse(value)
		u.NotAfter = end
		uses = append(uses, u)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return uses, total, nil
}

// ListUsesOf returns the use licenses with which a principal may still open
// after now, those that end last first: at most limit of them, and how many
// there are in all.
func ListUsesOf(r store.Reader, t vocab.TenantID, p vocab.Principal, now time.Time, limit int) (uses []UseOf, total int, err error) {
	err = eachUse(r, tableUsesByPrincipal, key(t, ownerKey(p)), now, func(end time.Time, value []byte) error {
		if len(value) != 16 {
			return damaged(tableUsesByPrincipal, nil)
		}
		if total++; len(uses) < limit {
			uses = append(uses, UseOf{Content: vocab.ContentID(value), NotAfter: end})
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	return uses, total, nil
}

// eachUse calls fn with the uses of one document or principal that end after
// now, those that end last first.
func eachUse(r store.Reader, table store.Table, prefix []byte, now time.Time, fn func(end time.Time, value []byte) error) error {
	for item, err := range r.Scan(table, store.Range{Prefix: prefix, Reverse: true}) {
		if err != nil {
			return err
		}
		if len(item.Key) != useKey {
			return damaged(table, nil)
		}
		end := time.UnixMilli(int64(binary.BigEndian.Uint64(item.Key[32:]))).UTC()
		if !end.After(now) {
			break
		}
		if err := fn(end, item.Value); err != nil {
			return err
		}
	}
	return nil
}

// EachUse calls fn with the use licenses of a document that may still open
// after now, those that end last first, until fn returns false.
func EachUse(r store.Reader, t vocab.TenantID, c vocab.ContentID, now time.Time, fn func(Use) bool) error {
	done := errors.New("done")
	err := eachUse(r, tableUses, key(t, c[:]), now, func(end time.Time, value []byte) error {
		u, err := decodeUse(value)
		if u.NotAfter = end; err == nil && !fn(u) {
			err = done
		}
		return err
	})
	if err == done { //nolint:errorlint // our own, unwrapped
		return nil
	}
	return err
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
		if len(item.Key) != useKey {
			return c, damaged(tableUses, nil)
		}
		return vocab.ContentID(item.Key[16:32]), nil
	}
	return c, nil
}
