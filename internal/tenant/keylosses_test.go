package tenant_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/vocab"
)

// What a custodian loses on nobody's word here is an alarm, once, and a fault.
func TestLossesAreAlarms(t *testing.T) {
	inVault(t, func(t *testing.T, o *vault) {
		o.rotate()
		alarms := func() (out []*audit.Event) {
			entries, _, err := o.log.List(t.Context(), o.ID(), audit.Filter{}, audit.Cursor{}, 1000)
			o.check(err)
			for _, e := range entries {
				if e.Event.Kind == audit.KindAlarm {
					out = append(out, e.Event)
				}
			}
			return out
		}
		fault := func() vocab.Reason {
			k, err := o.Key(t.Context(), "archive")
			o.check(err)
			return vocab.ReasonOf(k.Fault)
		}
		if len(alarms()) != 0 || fault() != "" {
			t.Fatalf("%d alarms, fault %s before anything happened", len(alarms()), fault())
		}

		o.asked.be(func(v *vaulted) { v.facts = func(f *keys.Facts) { f.Root.DeletionAllowed = true } })
		for range 3 {
			o.sync("archive")
		}
		if a := alarms(); len(a) != 1 || a[0].Reason != vocab.ReasonKeyAttributesUnsafe || !a[0].Alarm || !strings.Contains(a[0].Detail, "archive") {
			t.Fatalf("deletion allowed: %v", a)
		}
		if fault() != vocab.ReasonKeyAttributesUnsafe {
			t.Errorf("the fault is %s", fault())
		}
		o.asked.be(func(v *vaulted) { v.facts = nil })
		o.sync("archive")
		if fault() != "" || len(alarms()) != 1 {
			t.Errorf("off again: fault %s", fault())
		}

		o.check(o.ring.Destroy(t.Context(), 1))
		for range 3 {
			o.sync("archive")
		}
		if a := alarms(); len(a) != 2 || a[0].Reason != vocab.ReasonCustodianChanged || !strings.Contains(a[0].Detail, "v1 of key archive") {
			t.Fatalf("a version vanished: %v", a)
		}
		o.restart()
		if fault() != vocab.ReasonCustodianChanged || len(alarms()) != 2 {
			t.Errorf("after a restart: fault %s, %d alarms", fault(), len(alarms()))
		}

		o.asked.be(func(v *vaulted) { v.gone = true })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		a := alarms()
		if len(a) != 3 || !strings.Contains(a[0].Detail, "archive is gone from its custodian") {
			t.Fatalf("the key vanished: %d alarms, %v", len(a), a[0].Detail)
		}
	})
}
