package record

import (
	"encoding/binary"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Counts are kept beside the indexes so that "how many licenses follow this"
// is one read, however many there are.

func countKey(table store.Table, prefix []byte) []byte {
	// The tenant comes first as in every table; the index's name keeps
	// prefixes of different indexes apart.
	k := append([]byte{}, prefix[:16]...)
	k = append(k, table...)
	k = append(k, 0)
	return append(k, prefix[16:]...)
}

func count(tx store.Tx, table store.Table, prefix []byte, delta int64) error {
	k := countKey(table, prefix)
	n, err := readCount(tx, k)
	if err != nil {
		return err
	}
	n += delta
	if n < 0 {
		return damaged(tableCounts, nil)
	}
	return tx.Put(tableCounts, k, u64(uint64(n)))
}

func readCount(r store.Reader, k []byte) (int64, error) {
	b, ok, err := r.Get(tableCounts, k)
	if err != nil || !ok {
		return 0, err
	}
	if len(b) != 8 {
		return 0, damaged(tableCounts, nil)
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// CountByTemplate returns how many licenses follow a template.
func CountByTemplate(r store.Reader, t vocab.TenantID, uid vocab.TemplateUID) (int64, error) {
	return readCount(r, countKey(tableByTemplate, key(t, uid[:])))
}

// CountByOwner returns how many licenses somebody owns.
func CountByOwner(r store.Reader, t vocab.TenantID, owner vocab.Principal) (int64, error) {
	return readCount(r, countKey(tableByOwner, key(t, ownerKey(owner))))
}

// CountByCustody returns how many licenses follow a template and are kept in a
// custody mode.
func CountByCustody(r store.Reader, t vocab.TenantID, uid vocab.TemplateUID, mode vocab.CustodyMode) (int64, error) {
	return readCount(r, countKey(tableByCustody, key(t, uid[:], []byte{byte(mode)})))
}

// CountByGeneration returns how many licenses are wrapped under a generation.
func CountByGeneration(r store.Reader, t vocab.TenantID, g vocab.GenerationID) (int64, error) {
	return readCount(r, countKey(tableByGeneration, key(t, g[:])))
}

// CountLicenses returns how many licenses a tenant has, tombstones included.
func CountLicenses(r store.Reader, t vocab.TenantID) (n int64, err error) {
	for _, table := range []store.Table{tableByGeneration, tableByKeyVersion} {
		err := eachCount(r, t, table, func(_ []byte, k int64) { n += k })
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// VersionCount is how many strict licenses are wrapped under a key version.
type VersionCount struct {
	Custodian vocab.CustodianID
	Version   uint32
	Licenses  int64
}

// CountStrict returns the strict licenses of each key version that has any.
func CountStrict(r store.Reader, t vocab.TenantID) (out []VersionCount, err error) {
	err = eachCount(r, t, tableByKeyVersion, func(suffix []byte, n int64) {
		if len(suffix) == 20 && n > 0 {
			out = append(out, VersionCount{
				Custodian: vocab.CustodianID(suffix[:16]),
				Version:   binary.BigEndian.Uint32(suffix[16:]), Licenses: n,
			})
		}
	})
	return out, err
}

func eachCount(r store.Reader, t vocab.TenantID, table store.Table, fn func(suffix []byte, n int64)) error {
	prefix := countKey(table, key(t))
	for item, err := range r.Scan(tableCounts, store.Range{Prefix: prefix}) {
		if err != nil {
			return err
		}
		if len(item.Value) != 8 {
			return damaged(tableCounts, nil)
		}
		fn(item.Key[len(prefix):], int64(binary.BigEndian.Uint64(item.Value)))
	}
	return nil
}
