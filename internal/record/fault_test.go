package record

import (
	"errors"
	"iter"
	"testing"

	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

var errDisk = errors.New("TEST: the disk fails")

// failing is a transaction whose nth step fails.
type failing struct {
	store.Tx
	n     int
	steps int
}

func (f *failing) step() error {
	if f.steps++; f.steps == f.n {
		return errDisk
	}
	return nil
}

func (f *failing) Get(table store.Table, k []byte) ([]byte, bool, error) {
	if err := f.step(); err != nil {
		return nil, false, err
	}
	return f.Tx.Get(table, k)
}

func (f *failing) Scan(table store.Table, r store.Range) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		for item, err := range f.Tx.Scan(table, r) {
			if err == nil {
				err = f.step()
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

func (f *failing) Put(table store.Table, k, v []byte) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Tx.Put(table, k, v)
}

func (f *failing) Delete(table store.Table, k []byte) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.Tx.Delete(table, k)
}

// TestAFailureOfTheStoreIsTheCallsFailure lets each step of each function fail
// in turn: none may pass for "there is nothing", or for done.
func TestAFailureOfTheStoreIsTheCallsFailure(t *testing.T) {
	later := start.Add(2 * RequestLife)
	for name, fn := range map[string]func(store.Tx) error{
		"GetLicense":   func(tx store.Tx) error { _, err := GetLicense(tx, tenantA, cachedOne); return err },
		"ListLicenses": func(tx store.Tx) error { _, _, err := ListLicenses(tx, tenantA, ListQuery{Limit: 10}); return err },
		"PutLicense": func(tx store.Tx) error {
			return PutLicense(tx, tenantA, licenseOf(t, strictOne, shape{owner: "carla", generation: generationOne}))
		},
		"CountLicenses":       func(tx store.Tx) error { _, err := CountLicenses(tx, tenantA); return err },
		"CountByTemplate":     func(tx store.Tx) error { _, err := CountByTemplate(tx, tenantA, uidOne); return err },
		"CountByGeneration":   func(tx store.Tx) error { _, err := CountByGeneration(tx, tenantA, generationOne); return err },
		"CountStrict":         func(tx store.Tx) error { _, err := CountStrict(tx, tenantA); return err },
		"GetTemplate":         func(tx store.Tx) error { _, err := GetTemplate(tx, tenantA, uidOne); return err },
		"FindTemplate":        func(tx store.Tx) error { _, err := FindTemplate(tx, tenantA, "finance"); return err },
		"GetTemplateRevision": func(tx store.Tx) error { _, err := GetTemplateRevision(tx, tenantA, uidOne, 1); return err },
		"PutTemplateRevision": func(tx store.Tx) error {
			return PutTemplateRevision(tx, tenantA, uidOne, TemplateHead{Slug: "finance", Revision: 4}, []byte("TEST"))
		},
		"ListTemplates": func(tx store.Tx) error {
			return ListTemplates(tx, tenantA, "", func(string, vocab.TemplateUID) (bool, error) { return true, nil })
		},
		"GetRequest":    func(tx store.Tx) error { _, err := GetRequest(tx, tenantA, caller, "r1", start); return err },
		"PutRequest":    func(tx store.Tx) error { return PutRequest(tx, tenantA, caller, "r2", &Request{At: ToMillis(start)}) },
		"SweepRequests": func(tx store.Tx) error { _, err := SweepRequests(tx, tenantA, later); return err },
		"PutUse": func(tx store.Tx) error {
			return PutUse(tx, tenantA, cachedOne, vocab.EventID{2}, Use{Of: []vocab.Principal{user(t, "bob")}, NotAfter: start})
		},
		"SweepUses": func(tx store.Tx) error { _, err := SweepUses(tx, tenantA, later); return err },
		"ListUsesOf": func(tx store.Tx) error {
			_, _, err := ListUsesOf(tx, tenantA, user(t, "bob"), start.AddDate(0, 0, -1), 1)
			return err
		},
		"ListUses": func(tx store.Tx) error {
			_, _, err := ListUses(tx, tenantA, cachedOne, start.AddDate(0, 0, -1), 1)
			return err
		},
		"GetPolicy": func(tx store.Tx) error {
			_, err := GetPolicy(tx, tenantA, cachedOne, [32]byte{1})
			return err
		},
		"GetSettingsRevision": func(tx store.Tx) error { _, _, err := GetSettingsRevision(tx, tenantA, 1); return err },
		"GetSettings":         func(tx store.Tx) error { _, err := GetSettings(tx, tenantA); return err },
		"PutSettings":         func(tx store.Tx) error { return PutSettings(tx, tenantA, Settings{Revision: 3}) },
		"GetTenant":           func(tx store.Tx) error { _, err := GetTenant(tx, "contoso"); return err },
		"ListTenants":         func(tx store.Tx) error { _, err := ListTenants(tx); return err },
		"ListGenerations": func(tx store.Tx) error {
			return ListGenerations(tx, tenantA, func(*Generation) error { return nil })
		},
		"ListKeys": func(tx store.Tx) error {
			return ListKeys(tx, tenantA, func(string, *TenantKey) error { return nil })
		},
		"GetBundle": func(tx store.Tx) error { _, err := GetBundle(tx, tenantA); return err },
		"EachLicense": func(tx store.Tx) error {
			return EachLicense(tx, tenantA, func(_ *License, err error) error { return err })
		},
		// A check reports what it cannot read and goes on, or ends.
		"Check": func(tx store.Tx) error {
			var found error
			_, err := Check(tx, tenantA, func(error) { found = errDisk })
			return errors.Join(err, found)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				tx := &failing{Tx: full(t), n: n}
				err := fn(tx)
				if tx.steps < n { // nothing was left to fail
					if err != nil {
						t.Errorf("without a failure: %v", err)
					}
					if n == 1 {
						t.Error("the store was not asked at all")
					}
					return
				}
				if !errors.Is(err, errDisk) {
					t.Errorf("step %d failed, and the call ended with %v", n, err)
				}
			}
		})
	}
}
