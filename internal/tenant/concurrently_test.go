package tenant

import (
	"sync/atomic"
	"testing"
)

// A panic in one item reaches the caller, who recovers it for the call, and
// only when no other item is still at work.
func TestConcurrentlyPassesPanicsOn(t *testing.T) {
	for _, n := range []int{1, 2, 1000} {
		var ended atomic.Int64
		func() {
			defer func() {
				if p := recover(); p != "the defect" {
					t.Errorf("%d items: recovered %v", n, p)
				}
			}()
			concurrently(n, func(i int) {
				defer ended.Add(1)
				if i == n/2 {
					panic("the defect")
				}
			})
			t.Errorf("%d items: returned as if nothing had been", n)
		}()
		if got := ended.Load(); got != int64(n) {
			t.Errorf("%d of %d items had ended", got, n)
		}
	}
}
