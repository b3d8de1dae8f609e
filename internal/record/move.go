package record

import (
	"bytes"
	"encoding/binary"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// What a tenant takes along when it moves to another service: its rows as they
// are, under numbers that never change. What follows from them is made anew.

// Carried are the tables that a tenant takes along, by their numbers in an
// archive, in the order in which they are written.
func Carried() []uint64 {
	out := make([]uint64, len(carried))
	for i, c := range carried {
		out[i] = c.number
	}
	return out
}

var carried = []struct {
	number uint64
	table  store.Table
	// keys are the lengths that keys may have behind the tenant; 0: any.
	min, max int
}{
	// Resources first: what is done to them while the archive is being written is
	// then seen in the log.
	{1, tableResources, 1, 0},
	{2, tableEpochs, 0, 0},
	{3, tableSettings, 0, 0},
	{4, tableOldSettings, 4, 4},
	{5, tableBundles, 0, 0},
	{6, tableTemplates, 16, 16},
	{7, tableSlugs, 1, 63},
	{8, tableRevisions, 20, 20},
	{9, tableLicenses, 16, 16},
	{10, tablePolicies, 48, 48},
	{11, tableUses, useKey - 16, useKey - 16},
	{12, tableRequests, 33, 0},
	{13, tableProgress, 16, 16},
	{14, tableTransitions, 8, 8},
	{15, tableKeyUses, 16, 20},
}

// remade are the tables that follow from what is carried.
var remade = []store.Table{
	tableByOwner, tableByTemplate, tableByGeneration, tableByKeyVersion, tableByCustody, tableCounts,
	tableUsesByPrincipal, tableUsesByDay, tableRequestsByTime,
}

// Moved is a row of a tenant's table, its key without the tenant.
type Moved struct{ Key, Value []byte }

// MoveOut returns the rows of a carried table behind a key (nil: from the
// beginning), until they are about budget bytes; none at the end.
func MoveOut(r store.Reader, t vocab.TenantID, number uint64, after []byte, budget int) (rows []Moved, err error) {
	i := indexOf(number)
	if i < 0 {
		return nil, vocab.Errorf(vocab.ReasonInternal, "there is no table %d", number)
	}
	rng := store.Range{Prefix: key(t)}
	if after != nil {
		rng.From = key(t, after)
	}
	for item, err := range r.Scan(carried[i].table, rng) {
		if err != nil {
			return nil, err
		}
		k := item.Key[16:]
		if after != nil && bytes.Equal(k, after) {
			continue
		}
		if len(rows) > 0 && budget < len(k)+len(item.Value) {
			break
		}
		budget -= len(k) + len(item.Value)
		rows = append(rows, Moved{Key: k, Value: item.Value})
	}
	return rows, nil
}

func indexOf(number uint64) int {
	for i := range carried {
		if carried[i].number == number {
			return i
		}
	}
	return -1
}

// MoveIn writes rows of a carried table of a tenant that is not here yet, with
// what follows from them. The error is STORE_DAMAGED if a row cannot be one;
// whether what it says is so, [Check] and the log tell when all of it is here.
func MoveIn(tx store.Tx, t vocab.TenantID, number uint64, rows []Moved) error {
	i := indexOf(number)
	if i < 0 {
		return vocab.Errorf(vocab.ReasonStoreDamaged, "the archive has a table %d, which this version does not know", number).
			WithNext("Import it with the version that wrote it, or a newer one")
	}
	c := &carried[i]
	for _, row := range rows {
		n := len(row.Key)
		if n < c.min || c.max > 0 && n > c.max || c.min == 0 && n > 0 || n > store.MaxKey-16 || len(row.Value) > store.MaxValue {
			return damaged(c.table, nil)
		}
		if err := moveIn(tx, t, c.table, row); err != nil {
			return err
		}
	}
	return nil
}

func moveIn(tx store.Tx, t vocab.TenantID, table store.Table, row Moved) error {
	switch table {
	case tableLicenses:
		l := new(License)
		if err := canon.Unmarshal(row.Value, l); err != nil || l.Content != vocab.ContentID(row.Key) {
			return damaged(table, err)
		}
		return PutLicense(tx, t, l)
	case tableUses:
		end := binary.BigEndian.Uint64(row.Key[16:])
		u, err := decodeUse(row.Value)
		if err != nil {
			return err
		}
		if end > maxTime {
			return damaged(table, nil)
		}
		u.NotAfter = Millis(end).Time()
		return PutUse(tx, t, vocab.ContentID(row.Key[:16]), vocab.EventID(row.Key[24:]), u)
	case tableRequests:
		q := new(Request)
		if err := canon.Unmarshal(row.Value, q); err != nil {
			return damaged(table, err)
		}
		return PutRequest(tx, t, [32]byte(row.Key[:32]), string(row.Key[32:]), q)
	}
	return tx.Put(table, key(t, row.Key), row.Value)
}

// NextOf returns the next licenses behind a content ID, tombstones included, at
// most limit of them, where to go on, and whether there may be more.
func NextOf(r store.Reader, t vocab.TenantID, after vocab.ContentID, limit int) (list []*License, next vocab.ContentID, more bool, err error) {
	next = after
	for item, err := range r.Scan(tableLicenses, store.Range{Prefix: key(t), From: key(t, after[:])}) {
		if err != nil {
			return nil, next, false, err
		}
		if len(item.Key) != 32 {
			return nil, next, false, damaged(tableLicenses, nil)
		}
		c := vocab.ContentID(item.Key[16:])
		if c == after {
			continue
		}
		l := new(License)
		if err := canon.Unmarshal(item.Value, l); err != nil || l.Content != c {
			return nil, next, false, damaged(tableLicenses, err)
		}
		list, next = append(list, l), c
		if len(list) == limit {
			return list, next, true, nil
		}
	}
	return list, next, false, nil
}

// maxTime is the end of the year 9999, in milliseconds.
const maxTime = 253402300799999

// DropTenant deletes up to some hundred rows of a tenant that [ListTenants] does
// not name, and returns how many; there may be more unless it returns 0.
func DropTenant(tx store.Tx, t vocab.TenantID) (n int, err error) {
	all := append([]store.Table{}, remade...)
	for _, c := range carried {
		all = append(all, c.table)
	}
	return store.DropPrefix(tx, key(t), all...)
}
