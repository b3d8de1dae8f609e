package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Whoever does not take a piece for half a minute loses the backup, and so its
// snapshot; whoever is only slow gets all of it.
func TestPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		defer close(stuck)
		p := newPaced(t.Context(), func(*rmsv1.BackupResponse) error { <-stuck; return nil }, patience)
		defer p.abandon()
		began := time.Now()
		var err error
		for range 3 {
			if _, err = p.Write([]byte("piece")); err != nil {
				break
			}
		}
		if took := time.Since(began); vocab.ReasonOf(err) != vocab.ReasonOverloaded || took != patience {
			t.Errorf("after %s: %v", took, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var got int
		p := newPaced(t.Context(), func(r *rmsv1.BackupResponse) error {
			time.Sleep(patience - time.Second)
			got += len(r.GetData())
			return nil
		}, patience)
		for range 10 {
			if _, err := p.Write([]byte("piece")); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.finish(); err != nil || got != 50 {
			t.Errorf("%d bytes, %v", got, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("test: broken")
		p := newPaced(t.Context(), func(*rmsv1.BackupResponse) error { return broken }, patience)
		_, first := p.Write([]byte("piece"))
		synctest.Wait()
		_, second := p.Write([]byte("piece"))
		if err := p.finish(); first != nil || !errors.Is(second, broken) || !errors.Is(err, broken) {
			t.Errorf("%v, %v, %v", first, second, err)
		}
	})
}
