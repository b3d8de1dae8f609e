package audit

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// AppendLeaf adds the next event of a log that comes from another service, as
// it was recorded there: the log has n events and gets this one at position n.
// The error is LOG_DAMAGED if that cannot be its place, or it is not an event of
// the tenant that this version would have recorded in these bytes.
func (l *Log) AppendLeaf(tx store.Tx, t vocab.TenantID, n uint64, leaf []byte) error {
	now, err := size(tx, t)
	if err != nil {
		return err
	}
	if now != n || n > maxSize {
		return damaged("it has %d events where the one at position %d is due", now, n)
	}
	e, err := parseEntry(t, n, leaf)
	if err != nil {
		return err
	}
	if again, err := e.Event.Encode(); err != nil || !bytes.Equal(again, leaf) {
		return damaged("the event at position %d is none that this version records", n).Because(err)
	}
	return l.Append(tx, e.Event)
}

// DropTenant deletes up to some hundred rows of the log of a tenant that is not
// served, and returns how many; there may be more unless it returns 0.
func DropTenant(tx store.Tx, t vocab.TenantID) (int, error) {
	return store.DropPrefix(tx, key(t), tableHeads, tableEvents, tableHashes, tableIDs, tableTimes, tableLicense, tableTargets)
}

// KeepExported puts a checkpoint that another service signed, and certificates
// from beside it, where this one keeps its own: so that the log is compared with
// it from the first start on. It replaces none that is there.
func KeepExported(dir string, t vocab.TenantID, note []byte, certificates [][]byte) error {
	dir = filepath.Join(dir, t.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return unwritable(err)
	}
	if _, err := os.Stat(filepath.Join(dir, latest)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, c := range certificates {
		if err := replace(dir, CertificateName(c), c); err != nil {
			return unwritable(err)
		}
	}
	if err := replace(dir, latest, note); err != nil {
		return unwritable(err)
	}
	return nil
}
