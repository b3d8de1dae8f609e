// Package storeedit changes the store of a daemon that is stopped, as somebody
// who has its whole data directory and all the time can: rows, and the log made
// to agree with them. It is written against what lies on the disk, not with the
// code that is attacked.
package storeedit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Tables of the store, by the names on disk.
const (
	Licenses  = "licenses"
	Resources = "resources"
	Events    = "audit-events"
	IDs       = "audit-ids"
	Heads     = "audit-heads"
	Hashes    = "audit-hashes"
)

// Fields of stored records.
const (
	RecordWrap      = 8
	GenerationWrap  = 3 // of the body
	GenerationState = 4

	recordEvent   = 16
	resourceEvent = 4
	resourceBody  = 6
	eventState    = 181
)

// Fields is a record, or any CBOR map of numbers, with its values undecoded.
type Fields map[uint64]cbor.RawMessage

// Set puts a value into a field.
func (f Fields) Set(t testing.TB, field uint64, v any) {
	t.Helper()
	b, err := Deterministic(t).Marshal(v)
	must(t, err)
	f[field] = b
}

// Deterministic is how records are encoded.
func Deterministic(t testing.TB) cbor.EncMode {
	t.Helper()
	m, err := cbor.CoreDetEncOptions().EncMode()
	must(t, err)
	return m
}

// Update changes the store in a data directory in one transaction.
func Update(t testing.TB, data string, edit func(tx *bbolt.Tx)) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(data, "rms.db"), 0o600, nil)
	must(t, err)
	defer db.Close()
	must(t, db.Update(func(tx *bbolt.Tx) error {
		edit(tx)
		return nil
	}))
}

// Key is a key of a tenant's in a table.
func Key(tenant vocab.TenantID, parts ...[]byte) []byte {
	key := bytes.Clone(tenant[:])
	for _, p := range parts {
		key = append(key, p...)
	}
	return key
}

// ResourceKey is the key of a tenant's resource, such as generations/1.
func ResourceKey(tenant vocab.TenantID, name string) []byte { return Key(tenant, []byte(name)) }

// Row is a record as it lies in the store.
func Row(t testing.TB, tx *bbolt.Tx, table string, key []byte) []byte {
	t.Helper()
	b := tx.Bucket([]byte(table))
	if b == nil {
		t.Fatalf("there is no table %s", table)
	}
	v := b.Get(key)
	if v == nil {
		t.Fatalf("there is no row %x in %s", key, table)
	}
	return bytes.Clone(v)
}

// Put writes a row.
func Put(t testing.TB, tx *bbolt.Tx, table string, key, value []byte) {
	t.Helper()
	must(t, tx.Bucket([]byte(table)).Put(key, value))
}

// Remove deletes a row that is there.
func Remove(t testing.TB, tx *bbolt.Tx, table string, key []byte) {
	t.Helper()
	Row(t, tx, table, key)
	must(t, tx.Bucket([]byte(table)).Delete(key))
}

// EditRow changes fields of a record that is a CBOR map.
func EditRow(t testing.TB, tx *bbolt.Tx, table string, key []byte, edit func(f Fields)) {
	t.Helper()
	f := Fields{}
	must(t, cbor.Unmarshal(Row(t, tx, table, key), &f))
	edit(f)
	b, err := Deterministic(t).Marshal(f)
	must(t, err)
	Put(t, tx, table, key, b)
}

// WrapOf returns the field of a row that holds a wrapped key, as it lies there.
func WrapOf(t testing.TB, tx *bbolt.Tx, table string, key []byte, field uint64) cbor.RawMessage {
	t.Helper()
	f := Fields{}
	must(t, cbor.Unmarshal(Row(t, tx, table, key), &f))
	return f[field]
}

// Renamed is a wrapped key that says it is under the tenant key of another.
func Renamed(t testing.TB, raw, like cbor.RawMessage) []byte {
	t.Helper()
	w := ParseWrap(t, raw)
	w.Custodian = ParseWrap(t, like).Custodian
	return w.Encode()
}

// ParseWrap reads a field that holds a wrapped key.
func ParseWrap(t testing.TB, raw cbor.RawMessage) *license.Wrap {
	t.Helper()
	var encoded []byte
	must(t, cbor.Unmarshal(raw, &encoded))
	w, err := license.ParseWrap(encoded)
	must(t, err)
	return w
}

// ForgeRecord edits a license's record so that the log agrees: the event that
// wrote the record gets its hash, the tree is made anew from the events, and
// the checkpoints are removed.
func ForgeRecord(t testing.TB, tx *bbolt.Tx, data string, tenant vocab.TenantID, content vocab.ContentID, edit func(f Fields)) {
	t.Helper()
	var event []byte
	key := Key(tenant, content[:])
	EditRow(t, tx, Licenses, key, func(f Fields) {
		edit(f)
		must(t, cbor.Unmarshal(f[recordEvent], &event))
	})
	state := sha256.Sum256(Row(t, tx, Licenses, key))
	EditRow(t, tx, Events, Key(tenant, Row(t, tx, IDs, Key(tenant, event))), func(f Fields) { f.Set(t, eventState, state[:]) })
	ForgeTree(t, tx, data, tenant)
}

// BodyOf returns what a resource says.
func BodyOf(t testing.TB, tx *bbolt.Tx, tenant vocab.TenantID, name string) Fields {
	t.Helper()
	f, body, raw := Fields{}, Fields{}, []byte(nil)
	must(t, cbor.Unmarshal(Row(t, tx, Resources, ResourceKey(tenant, name)), &f))
	must(t, cbor.Unmarshal(f[resourceBody], &raw))
	must(t, cbor.Unmarshal(raw, &body))
	return body
}

// EditBody changes what a resource says, and leaves the log as it is.
func EditBody(t testing.TB, tx *bbolt.Tx, tenant vocab.TenantID, name string, edit func(f Fields)) {
	t.Helper()
	body := BodyOf(t, tx, tenant, name)
	edit(body)
	raw, err := Deterministic(t).Marshal(body)
	must(t, err)
	EditRow(t, tx, Resources, ResourceKey(tenant, name), func(f Fields) { f.Set(t, resourceBody, raw) })
}

// ForgeBody is EditBody so that the log agrees, as [ForgeRecord] does.
func ForgeBody(t testing.TB, tx *bbolt.Tx, data string, tenant vocab.TenantID, name string, edit func(f Fields)) {
	t.Helper()
	EditBody(t, tx, tenant, name, edit)
	var event []byte
	f, row := Fields{}, Row(t, tx, Resources, ResourceKey(tenant, name))
	must(t, cbor.Unmarshal(row, &f))
	must(t, cbor.Unmarshal(f[resourceEvent], &event))
	state := sha256.Sum256(row)
	EditRow(t, tx, Events, Key(tenant, Row(t, tx, IDs, Key(tenant, event))), func(f Fields) { f.Set(t, eventState, state[:]) })
	ForgeTree(t, tx, data, tenant)
}

// ForgeTree makes the tree anew from the events as they are, and removes the
// checkpoints.
func ForgeTree(t testing.TB, tx *bbolt.Tx, data string, tenant vocab.TenantID) {
	t.Helper()
	number := func(n int64) []byte { return Key(tenant, binary.BigEndian.AppendUint64(nil, uint64(n))) }
	hashes := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, n := range indexes {
			out = append(out, tlog.Hash(Row(t, tx, Hashes, number(n))))
		}
		return out, nil
	})
	for n := range int64(binary.BigEndian.Uint64(Row(t, tx, Heads, Key(tenant)))) {
		made, err := tlog.StoredHashes(n, Row(t, tx, Events, number(n)), hashes)
		must(t, err)
		for i, h := range made {
			Put(t, tx, Hashes, number(tlog.StoredHashIndex(0, n)+int64(i)), h[:])
		}
	}
	must(t, os.RemoveAll(filepath.Join(data, "checkpoints")))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
