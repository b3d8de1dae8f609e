package tenant_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// One sweep forgets all that is over, however many small steps that takes,
// and nothing else.
func TestSweepForgetsAllThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, quiet)
		c, caller, now := vocab.NewContentID(), [32]byte{7}, time.Now()
		const many = 2500
		if err := k.store.Commit(t.Context(), func(tx store.Tx) error {
			for i := range many {
				if err := record.PutRequest(tx, k.ID(), caller, fmt.Sprint("old", i), &record.Request{Content: c, At: record.ToMillis(now)}); err != nil {
					return err
				}
				if err := record.PutUse(tx, k.ID(), c, vocab.NewEventID(), record.Use{Principal: "bob", NotAfter: now.Add(time.Hour)}); err != nil {
					return err
				}
			}
			if err := record.PutRequest(tx, k.ID(), caller, "new", &record.Request{Content: c, At: record.ToMillis(now.AddDate(0, 0, 2))}); err != nil {
				return err
			}
			return record.PutUse(tx, k.ID(), c, vocab.NewEventID(), record.Use{Principal: "carla", NotAfter: now.AddDate(0, 0, 30)})
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(48 * time.Hour)
		if err := k.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := k.store.Commit(t.Context(), func(tx store.Tx) error {
			for name, sweep := range map[string]func(store.Tx, vocab.TenantID, time.Time) (int, error){
				"requests": record.SweepRequests, "uses": record.SweepUses,
			} {
				if n, err := sweep(tx, k.ID(), time.Now()); err != nil || n != 0 {
					t.Errorf("%d rows of %s were left (%v)", n, name, err)
				}
			}
			if uses, total, err := record.ListUses(tx, k.ID(), c, now, 10); err != nil || total != 1 || uses[0].Principal != "carla" {
				t.Errorf("the uses left are %v, %d (%v), want carla's", uses, total, err)
			}
			if q, err := record.GetRequest(tx, k.ID(), caller, "new", time.Now()); err != nil || q == nil {
				t.Errorf("the new request is %v (%v)", q, err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}
