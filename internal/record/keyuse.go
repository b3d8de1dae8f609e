package record

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// KeyRef names what licenses depend on: a generation of the tenant's, or, for
// licenses with one of their own, a version of a tenant key. Either Generation
// or the others are set.
type KeyRef struct {
	Generation vocab.GenerationID
	Custodian  vocab.CustodianID
	Version    uint32
}

// VersionRef names a version of a tenant key.
func VersionRef(c vocab.CustodianID, version uint32) KeyRef {
	return KeyRef{Custodian: c, Version: version}
}

// GenerationRef names a generation.
func GenerationRef(g vocab.GenerationID) KeyRef { return KeyRef{Generation: g} }

// table returns the index of the licenses that depend on it.
func (k KeyRef) table(t vocab.TenantID) (store.Table, []byte) {
	if k.Generation.IsZero() {
		return tableByKeyVersion, key(t, k.Custodian[:], u32(k.Version))
	}
	return tableByGeneration, key(t, k.Generation[:])
}

// row is its key in the table of uses; the lengths tell the kinds apart.
func (k KeyRef) row(t vocab.TenantID) []byte {
	_, prefix := k.table(t)
	return prefix
}

// refOf is what a license depends on.
func refOf(l *License) (KeyRef, error) {
	if len(l.Wrap) == 0 {
		return GenerationRef(l.Generation), nil
	}
	w, err := license.ParseWrap(l.Wrap)
	if err != nil {
		return KeyRef{}, damaged(tableLicenses, err)
	}
	return VersionRef(w.Custodian, w.L0Version), nil
}

// KeyUse is when something was needed last. Neither time is bound to the log:
// they say when it is too early to destroy a key, never that it may be.
type KeyUse struct {
	// Used is when it was used last, as far as somebody noted it.
	Used Millis `cbor:"1,keyasint,omitempty"`
	// Left is when the last of what depended on it left it.
	Left Millis `cbor:"2,keyasint,omitempty"`
}

// GetKeyUse returns when something was needed last; zero if it is not known.
func GetKeyUse(r store.Reader, t vocab.TenantID, ref KeyRef) (u KeyUse, err error) {
	_, err = get(r, tableKeyUses, ref.row(t), &u)
	return u, err
}

// NoteUse writes down that something was used. Times only grow.
func NoteUse(tx store.Tx, t vocab.TenantID, ref KeyRef, at time.Time) error {
	return changeUse(tx, t, ref, func(u *KeyUse) { u.Used = max(u.Used, ToMillis(at)) })
}

// NoteLeft writes down that something that depended on it does not any more.
func NoteLeft(tx store.Tx, t vocab.TenantID, ref KeyRef, at Millis) error {
	return changeUse(tx, t, ref, func(u *KeyUse) { u.Left = max(u.Left, at) })
}

func changeUse(tx store.Tx, t vocab.TenantID, ref KeyRef, change func(*KeyUse)) error {
	u, err := GetKeyUse(tx, t, ref)
	if err != nil {
		return err
	}
	was := u
	if change(&u); u == was {
		return nil
	}
	return put(tx, tableKeyUses, ref.row(t), &u)
}

// noteMoved notes that a license was the last to leave what it depended on.
func noteMoved(tx store.Tx, t vocab.TenantID, old, next *License) error {
	from, err := refOf(old)
	if err != nil {
		return err
	}
	if to, err := refOf(next); err != nil || to == from {
		return err
	}
	if n, err := readCount(tx, countKey(from.table(t))); err != nil || n > 0 {
		return err
	}
	return NoteLeft(tx, t, from, next.Updated)
}

// CountDependants returns how many licenses depend on a generation or, with one
// of their own, on a version of a key.
func CountDependants(r store.Reader, t vocab.TenantID, ref KeyRef) (int64, error) {
	return readCount(r, countKey(ref.table(t)))
}

// EndDependants returns the oldest and the newest license that depends on
// something; zero if none does.
func EndDependants(r store.Reader, t vocab.TenantID, ref KeyRef) (first, last vocab.ContentID, err error) {
	table, prefix := ref.table(t)
	for i, id := range []*vocab.ContentID{&first, &last} {
		for item, err := range r.Scan(table, store.Range{Prefix: prefix, Reverse: i == 1}) {
			if err != nil {
				return first, last, err
			}
			*id = vocab.ContentID(item.Key[len(item.Key)-16:])
			break
		}
	}
	return first, last, nil
}

// NextDependants returns up to limit licenses that depend on something, after a
// content ID (zero: from the oldest), oldest first. Fewer than limit are the
// last.
func NextDependants(r store.Reader, t vocab.TenantID, ref KeyRef, after vocab.ContentID, limit int) (out []vocab.ContentID, err error) {
	table, prefix := ref.table(t)
	rng := store.Range{Prefix: prefix}
	if !after.IsZero() {
		rng.From = append(bytes.Clone(prefix), after[:]...)
	}
	for item, err := range r.Scan(table, rng) {
		if err != nil {
			return nil, err
		}
		c := vocab.ContentID(item.Key[len(item.Key)-16:])
		if c == after {
			continue
		}
		if len(out) == limit {
			break
		}
		out = append(out, c)
	}
	return out, nil
}

// CheckDependants reads every license and compares with it what the inventory of
// keys counts by, and every other index on the way. It reports each finding and
// returns how many records it read. The error is one that kept it from finishing.
func CheckDependants(r store.Reader, t vocab.TenantID, found func(error)) (int64, error) {
	c := &checker{r: r, t: t, found: found, counts: map[string]int64{}}
	for _, step := range []func() error{c.licenses, c.indexes, c.countRows, c.keyUses} {
		if err := step(); err != nil {
			return c.records, err
		}
	}
	return c.records, nil
}

// keyUses checks that every row can be read.
func (c *checker) keyUses() error {
	for item, err := range c.r.Scan(tableKeyUses, store.Range{Prefix: key(c.t)}) {
		if err != nil {
			return err
		}
		ref, ok := parseRow(item.Key[16:])
		if !ok {
			c.problem("%s has a key that cannot be", tableKeyUses)
			continue
		}
		if _, err := GetKeyUse(c.r, c.t, ref); err != nil {
			c.problem("when a key was used: %v", err)
		}
	}
	return nil
}

func parseRow(k []byte) (KeyRef, bool) {
	switch len(k) {
	case 16:
		return GenerationRef(vocab.GenerationID(k)), true
	case 20:
		return VersionRef(vocab.CustodianID(k[:16]), binary.BigEndian.Uint32(k[16:])), true
	}
	return KeyRef{}, false
}
