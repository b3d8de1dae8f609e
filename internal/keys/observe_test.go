package keys_test

import (
	"sync"
	"testing"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// An item's failure is the call's for whoever observes: what a custodian says
// of its own key must not depend on how it was asked.
func TestFailedItemIsObserved(t *testing.T) {
	w := newWorld(t, keys.Limits{})
	var mu sync.Mutex
	var heard []keys.Call
	w.config.Observe = func(c keys.Call) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, c)
	}
	w.start()
	content := vocab.NewContentID()
	k, err := w.NewDocument(t.Context(), content)
	if err != nil {
		t.Fatal(err)
	}
	k.Release()
	open := func() error {
		k, err := w.OpenDocument(t.Context(), content, k.Generation, k.Wrap)
		k.Release()
		return err
	}
	for _, want := range []vocab.Reason{"", vocab.ReasonCustodianChanged, vocab.ReasonKeyState} {
		w.cust.tamper = func(rs []keys.UnwrapResult) {
			if want != "" {
				rs[0].Secret.Zero()
				rs[0] = keys.UnwrapResult{RequestID: rs[0].RequestID, Err: vocab.Errorf(want, "test: of an item")}
			}
		}
		heard = nil
		if got := vocab.ReasonOf(open()); got != want {
			t.Errorf("opening: %q, want %q", got, want)
		}
		mu.Lock()
		if len(heard) != 1 || vocab.ReasonOf(heard[0].Err) != want || heard[0].Op != "unwrap" {
			t.Errorf("an item that fails with %q is observed as %+v", want, heard)
		}
		mu.Unlock()
	}
}
