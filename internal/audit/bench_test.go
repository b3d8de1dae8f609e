package audit

import (
	"testing"

	"github.com/openrms/rms/internal/store"
)

// BenchmarkAppend appends to a log of a hundred thousand events, so that the
// cost shown is not that of a small tree.
func BenchmarkAppend(b *testing.B) {
	l := newLog(b)
	n := 0
	batch := func(count int) {
		err := l.store.Commit(b.Context(), func(tx store.Tx) error {
			for range count {
				e := fullEvent()
				e.ID = newEventID()
				if err := l.Append(tx, e); err != nil {
					return err
				}
				n++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for n < 100_000 {
		batch(5000)
	}
	const group = 100 // events of one commit, as under load
	for b.Loop() {
		batch(group)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*group), "µs/event")
}
