package record

import (
	"time"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// RequestLife is how long a request ID is remembered.
const RequestLife = 24 * time.Hour

// Request is a publish that was answered, kept so that its repetition gives
// the same license.
type Request struct {
	Hash    [32]byte        `cbor:"1,keyasint"` // of the whole request
	Content vocab.ContentID `cbor:"2,keyasint"`
	PL      []byte          `cbor:"3,keyasint"`
	At      Millis          `cbor:"4,keyasint"`
}

// GetRequest returns the request a caller made under id in the last 24 hours,
// or nil.
func GetRequest(r store.Reader, t vocab.TenantID, caller [32]byte, id string, now time.Time) (*Request, error) {
	q := new(Request)
	ok, err := get(r, tableRequests, key(t, caller[:], []byte(id)), q)
	if err != nil || !ok || now.Sub(q.At.Time()) >= RequestLife {
		return nil, err
	}
	return q, nil
}

// PutRequest remembers a request.
func PutRequest(tx store.Tx, t vocab.TenantID, caller [32]byte, id string, q *Request) error {
	if err := tx.Put(tableRequestsByTime, key(t, u64(uint64(q.At)), caller[:], []byte(id)), nil); err != nil {
		return err
	}
	return put(tx, tableRequests, key(t, caller[:], []byte(id)), q)
}

// SweepRequests forgets up to 1,000 requests older than [RequestLife] and
// returns how many it forgot.
func SweepRequests(tx store.Tx, t vocab.TenantID, now time.Time) (int, error) {
	oldest := u64(uint64(now.Add(-RequestLife).UnixMilli()))
	n := 0
	for item, err := range tx.Scan(tableRequestsByTime, store.Range{Prefix: key(t)}) {
		if err != nil {
			return n, err
		}
		suffix := item.Key[16:]
		if len(suffix) < 40 || string(suffix[:8]) > string(oldest) || n == maxScan {
			break
		}
		// The ID may have been used again since.
		q := new(Request)
		k := key(t, suffix[8:])
		ok, err := get(tx, tableRequests, k, q)
		if err != nil {
			return n, err
		}
		if ok && string(u64(uint64(q.At))) == string(suffix[:8]) {
			if err := tx.Delete(tableRequests, k); err != nil {
				return n, err
			}
		}
		if err := tx.Delete(tableRequestsByTime, item.Key); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
