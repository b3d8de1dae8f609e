package store

// maxDrop is how many rows DropPrefix deletes at a time.
const maxDrop = 2000

// DropPrefix deletes rows whose keys begin with prefix from tables, up to 2,000
// of them, and returns how many: there may be more unless it returns 0.
func DropPrefix(tx Tx, prefix []byte, tables ...Table) (n int, err error) {
	for _, table := range tables {
		for item, err := range tx.Scan(table, Range{Prefix: prefix}) {
			if err != nil {
				return n, err
			}
			if n == maxDrop {
				return n, nil
			}
			if err := tx.Delete(table, item.Key); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}
