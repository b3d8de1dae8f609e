package tenant

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

func generationName(number uint32) string { return fmt.Sprintf("generation g%d", number) }

// Key is a registered key with what its custodian says of it now.
type Key struct {
	record.Key
	Facts *keys.Facts
}

// Keys returns the tenant's registered keys. A custodian that does not answer
// is an error: what it would say may not be guessed.
func (t *Tenant) Keys(ctx context.Context) ([]Key, error) {
	var rows []record.Key
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		rows, err = record.ListKeys(r, t.id)
		return err
	}); err != nil {
		return nil, err
	}
	var out []Key
	for _, row := range rows {
		k := Key{Key: row}
		if row.ID == t.custodian.ID() {
			facts, err := t.custodian.Describe(ctx)
			if err != nil {
				return nil, err
			}
			k.Facts = facts
		}
		out = append(out, k)
	}
	return out, nil
}

// InventoryLine is a generation, or all strict licenses under one version of
// the key, with what depends on it.
type InventoryLine struct {
	Generation vocab.GenerationID // zero for the line of strict licenses
	Number     uint32
	Custodian  vocab.CustodianID
	KeyVersion uint32
	State      keys.State
	Licenses   int64
	Created    time.Time
	LastUsed   time.Time
}

// Inventory says what depends on which key version and generation. It asks no
// custodian.
func (t *Tenant) Inventory(ctx context.Context) (lines []InventoryLine, err error) {
	entries, _ := t.ring.Inventory()
	err = t.store.View(ctx, func(r store.Reader) error {
		for _, e := range slices.Backward(entries) {
			n, err := record.CountByGeneration(r, t.id, e.ID)
			if err != nil {
				return err
			}
			lines = append(lines, InventoryLine{
				Generation: e.ID, Number: e.Number, Custodian: e.Version.Custodian, KeyVersion: e.Version.Version,
				State: e.State, Licenses: n, Created: e.Created, LastUsed: e.LastUsed,
			})
		}
		strict, err := record.CountStrict(r, t.id)
		for _, s := range strict {
			lines = append(lines, InventoryLine{Custodian: s.Custodian, KeyVersion: s.Version, Licenses: s.Licenses})
		}
		return err
	})
	return lines, err
}

// EffectiveDelay is how long content may still open after the custodian
// refuses: in this service, and with use licenses that clients may keep.
func (t *Tenant) EffectiveDelay() time.Duration {
	s := t.settings.Load()
	if s.Custody == vocab.CustodyStrict {
		return 0
	}
	return max(s.CacheTTL, s.MaxOffline)
}

// Counts returns how many licenses the tenant has and how many events its log.
func (t *Tenant) Counts(ctx context.Context) (licenses int64, events uint64, err error) {
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		licenses, err = record.CountLicenses(r, t.id)
		return err
	})
	if err == nil {
		events, err = t.log.Size(ctx, t.id)
	}
	return licenses, events, err
}

// Audit returns the log the tenant's events are in.
func (t *Tenant) Audit() *audit.Log { return t.log }

// Sweep forgets what need not be remembered any more: requests whose
// repetition nobody waits for, and use licenses that ended. It is called from
// time to time, works in small steps that others' writes go between, and can
// be called again after a failure.
func (t *Tenant) Sweep(ctx context.Context) error {
	for _, sweep := range []func(store.Tx, vocab.TenantID, time.Time) (int, error){record.SweepRequests, record.SweepUses} {
		for n := -1; n != 0; {
			if err := t.store.Commit(ctx, func(tx store.Tx) (err error) {
				n, err = sweep(tx, t.id, t.now())
				return err
			}); err != nil {
				return err
			}
		}
	}
	return nil
}
