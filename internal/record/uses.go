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

// PutUse notes a use license that may be kept until notAfter.
func PutUse(tx store.Tx, t vocab.TenantID, c vocab.ContentID, e vocab.EventID, u Use) error {
	return tx.Put(tableUses, key(t, c[:], u64(uint64(u.NotAfter.UnixMilli())), e[:]), []byte(u.Principal))
}

// ListUses returns the use licenses of a document that may still open after
// now, those that end last first: at most limit of them, and how many there
// are in all.
func ListUses(r store.Reader, t vocab.TenantID, c vocab.ContentID, now time.Time, limit int) (uses []Use, total int, err error) {
	prefix := key(t, c[:])
	for item, err := range r.Scan(tableUses, store.Range{Prefix: prefix, Reverse: true}) {
		if err != nil {
			return nil, 0, err
		}
		if len(item.Key) != len(prefix)+8+16 {
			return nil, 0, damaged(tableUses, nil)
		}
		end := time.UnixMilli(int64(binary.BigEndian.Uint64(item.Key[len(prefix):]))).UTC()
		if !end.After(now) {
			break
		}
		if total++; len(uses) < limit {
			uses = append(uses, Use{Principal: string(item.Value), NotAfter: end})
		}
	}
	return uses, total, nil
}
