package bolt

import (
	"errors"
	"testing"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/storetest"
	"github.com/openrms/rms/internal/vocab"
)

func TestFaulty(t *testing.T) {
	s := openIn(t, t.TempDir())
	defer s.Close()
	own := errors.New("own error")
	for _, c := range []struct {
		name   string
		fault  storetest.Fault
		err    error
		there  bool
		reason vocab.Reason
		told   bool
	}{
		{"none", storetest.NoFault, nil, true, "", true},
		{"none, own error", storetest.NoFault, own, false, vocab.ReasonInternal, false},
		{"lost", storetest.Lost, nil, false, vocab.ReasonStoreDamaged, false},
		{"lost, own error", storetest.Lost, own, false, vocab.ReasonInternal, false},
		{"stored", storetest.Stored, nil, true, vocab.ReasonStoreDamaged, false},
		{"stored, own error", storetest.Stored, own, false, vocab.ReasonInternal, false},
	} {
		f := &storetest.Faulty{Store: s, Next: func() storetest.Fault { return c.fault }}
		told := false
		err := f.Commit(t.Context(), func(tx store.Tx) error {
			tx.AfterCommit(func() { told = true })
			return errors.Join(tx.Put(table, []byte(c.name), []byte("v")), c.err)
		})
		if vocab.ReasonOf(err) != c.reason || told != c.told {
			t.Errorf("%s: %v, told %v", c.name, err, told)
		}
		if got := getOne(t, s, c.name) == "v"; got != c.there {
			t.Errorf("%s: there %v, want %v", c.name, got, c.there)
		}
	}
	f := &storetest.Faulty{Store: s}
	if err := f.Commit(t.Context(), func(tx store.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
}
