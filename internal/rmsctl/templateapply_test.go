package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// All pieces of work are done, each once; after an error no more are begun, and
// it is the first that counts.
func TestSeveral(t *testing.T) {
	var done [1000]atomic.Int32
	if err := several(len(done), func(i int) error { done[i].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range done {
		if n := done[i].Load(); n != 1 {
			t.Fatalf("piece %d was done %d times", i, n)
		}
	}
	if err := several(0, func(int) error { return errors.New("nothing to do") }); err != nil {
		t.Error(err)
	}
	var begun atomic.Int32
	err := several(len(done), func(i int) error {
		begun.Add(1)
		return fmt.Errorf("piece %d", i)
	})
	if err == nil || err.Error() != "piece 0" || begun.Load() > 8 {
		t.Errorf("%v after %d pieces", err, begun.Load())
	}
}

// A server that gets too much is asked again later; any other answer is one.
func TestPatiently(t *testing.T) {
	limited := vocab.Errorf(vocab.ReasonRateLimited, "too much")
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		start := time.Now()
		err := patiently(t.Context(), func() error {
			if calls++; calls < 4 {
				return limited
			}
			return vocab.Errorf(vocab.ReasonRoleRequired, "no")
		})
		if vocab.ReasonOf(err) != vocab.ReasonRoleRequired || calls != 4 || time.Since(start) < 3*time.Second {
			t.Errorf("%v after %d calls", err, calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := patiently(ctx, func() error { return limited }); !errors.Is(err, vocab.ReasonRateLimited) {
			t.Errorf("%v when interrupted", err)
		}
	})
}
