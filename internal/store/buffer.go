package store

import (
	"bytes"
	"iter"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// Buffer is a [Tx] that keeps its writes beside a Reader until they are taken
// with [Buffer.Writes]: dropping a transaction is dropping its buffer. It is
// meant for implementations of [Store].
type Buffer struct {
	base   Reader
	tables map[Table]map[string]write
	size   int
	after  []func()
	closed bool
}

// write is what a transaction did to a key.
type write struct {
	value   []byte
	deleted bool
}

// Write is one change to apply: a value to put, or a deletion.
type Write struct {
	Table   Table
	Key     []byte
	Value   []byte
	Deleted bool
}

// NewBuffer returns an empty buffer over base.
func NewBuffer(base Reader) *Buffer { return &Buffer{base: base} }

// Close ends the transaction: every later use of it is an error. A function
// that keeps its Tx must not read or write someone else's.
func (b *Buffer) Close() { b.closed = true }

// Size returns the bytes of keys and values written so far.
func (b *Buffer) Size() int { return b.size }

// Writes yields the last write to each key, in order of table and key.
func (b *Buffer) Writes() iter.Seq[Write] {
	return func(yield func(Write) bool) {
		tables := make([]Table, 0, len(b.tables))
		for t := range b.tables {
			tables = append(tables, t)
		}
		slices.Sort(tables)
		for _, t := range tables {
			for _, k := range sortedKeys(b.tables[t], Range{}) {
				w := b.tables[t][k]
				if !yield(Write{Table: t, Key: []byte(k), Value: w.value, Deleted: w.deleted}) {
					return
				}
			}
		}
	}
}

// Get implements [Reader].
func (b *Buffer) Get(table Table, key []byte) ([]byte, bool, error) {
	if err := b.check(table, key); err != nil {
		return nil, false, err
	}
	if w, ok := b.tables[table][string(key)]; ok {
		return bytes.Clone(w.value), !w.deleted, nil
	}
	return b.base.Get(table, key)
}

// Put implements [Tx].
func (b *Buffer) Put(table Table, key, value []byte) error {
	if len(value) > MaxValue {
		return vocab.Errorf(vocab.ReasonInternal, "a value of %d bytes is too large for table %s", len(value), table)
	}
	// An empty value is a value: bytes.Clone keeps nil and empty apart, so
	// make both empty.
	return b.write(table, key, write{value: append([]byte{}, value...)})
}

// Delete implements [Tx].
func (b *Buffer) Delete(table Table, key []byte) error {
	return b.write(table, key, write{deleted: true})
}

// AfterCommit implements [Tx]. What is registered after the end is dropped.
func (b *Buffer) AfterCommit(fn func()) {
	if !b.closed {
		b.after = append(b.after, fn)
	}
}

// Committed calls what was registered with AfterCommit. An implementation
// calls it once the writes are durable.
func (b *Buffer) Committed() {
	for _, fn := range b.after {
		fn()
	}
}

func (b *Buffer) write(table Table, key []byte, w write) error {
	if err := b.check(table, key); err != nil {
		return err
	}
	if b.size+len(key)+len(w.value) > MaxCommit {
		return vocab.Errorf(vocab.ReasonBatchTooLarge, "one transaction writes more than %d MiB", MaxCommit>>20)
	}
	b.size += len(key) + len(w.value)
	if b.tables == nil {
		b.tables = make(map[Table]map[string]write)
	}
	if b.tables[table] == nil {
		b.tables[table] = make(map[string]write)
	}
	b.tables[table][string(key)] = w
	return nil
}

// Scan implements [Reader] by merging the buffer's keys into the base's.
func (b *Buffer) Scan(table Table, r Range) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if err := b.checkTable(table); err != nil {
			yield(Item{}, err)
			return
		}
		// The own keys and their values are fixed before the first item, so
		// that the loop's body may write.
		keys := sortedKeys(b.tables[table], r)
		own := make([]write, len(keys))
		for i, k := range keys {
			own[i] = b.tables[table][k]
		}
		i := 0
		// emitOwn yields own items that come before key, and reports whether
		// to go on and whether key itself was overwritten.
		emitOwn := func(key []byte, all bool) (goOn, shadowed bool) {
			for ; i < len(keys); i++ {
				if !all {
					c := strings.Compare(keys[i], string(key))
					if r.Reverse {
						c = -c
					}
					if c > 0 {
						return true, false
					}
					shadowed = c == 0
				}
				if !own[i].deleted && !yield(Item{Key: []byte(keys[i]), Value: bytes.Clone(own[i].value)}, nil) {
					return false, false
				}
				if shadowed {
					i++
					return true, true
				}
			}
			return true, false
		}
		for item, err := range b.base.Scan(table, r) {
			if err == nil && b.closed {
				err = errOver()
			}
			if err != nil {
				yield(Item{}, err)
				return
			}
			goOn, shadowed := emitOwn(item.Key, false)
			if !goOn || !shadowed && !yield(item, nil) {
				return
			}
		}
		emitOwn(nil, true)
	}
}

func (b *Buffer) check(table Table, key []byte) error {
	if err := b.checkTable(table); err != nil {
		return err
	}
	return CheckKey(table, key)
}

func (b *Buffer) checkTable(table Table) error {
	if b.closed {
		return errOver()
	}
	return CheckTable(table)
}

func errOver() error {
	return vocab.Errorf(vocab.ReasonInternal, "the transaction is over")
}

// CheckTable refuses a table name that is not [Table.Valid].
func CheckTable(table Table) error {
	if !table.Valid() {
		return vocab.Errorf(vocab.ReasonInternal, "%q is not a table name", string(table))
	}
	return nil
}

// CheckKey refuses an empty key and one longer than [MaxKey].
func CheckKey(table Table, key []byte) error {
	if len(key) == 0 {
		return vocab.Errorf(vocab.ReasonInternal, "an empty key is not allowed in table %s", table)
	}
	if len(key) > MaxKey {
		return vocab.Errorf(vocab.ReasonInternal, "a key of %d bytes is too long for table %s", len(key), table)
	}
	return nil
}

// sortedKeys returns the keys of m in r, in the order of r.
func sortedKeys(m map[string]write, r Range) []string {
	var keys []string
	for k := range m {
		if r.Contains([]byte(k)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if r.Reverse {
		slices.Reverse(keys)
	}
	return keys
}

// Contains reports whether the range selects key.
func (r Range) Contains(key []byte) bool {
	if !bytes.HasPrefix(key, r.Prefix) {
		return false
	}
	if len(r.From) == 0 {
		return true
	}
	c := bytes.Compare(key, r.From)
	return c == 0 || (c > 0) != r.Reverse
}

// Start returns where a cursor has to be set for an ascending scan: the
// smallest key the range could select.
func (r Range) Start() []byte {
	if bytes.Compare(r.From, r.Prefix) > 0 {
		return r.From
	}
	return r.Prefix
}

// End returns where a cursor has to be set for a descending scan: the scan
// begins at the last key < end, or <= end if inclusive. A nil end means the
// last key of the table.
func (r Range) End() (end []byte, inclusive bool) {
	after := afterPrefix(r.Prefix)
	if len(r.From) > 0 && (after == nil || bytes.Compare(r.From, after) < 0) {
		return r.From, true
	}
	return after, false
}

// afterPrefix returns the smallest key greater than all that begin with p;
// nil if there is none.
func afterPrefix(p []byte) []byte {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i] != 0xff {
			after := bytes.Clone(p[:i+1])
			after[i]++
			return after
		}
	}
	return nil
}
