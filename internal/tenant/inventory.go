package tenant

import (
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// InventoryLine is a generation, or all strict licenses under one version of
// the key, with what depends on it.
type InventoryLine struct {
	Generation vocab.GenerationID // zero for the line of strict licenses
	Number     uint32
	Key        string // its name
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
	entries := t.ring.Inventory()
	err = t.store.View(ctx, func(r store.Reader) error {
		for _, e := range slices.Backward(entries) {
			if e.Canary {
				continue // nothing depends on it
			}
			n, err := record.CountByGeneration(r, t.id, e.ID)
			if err != nil {
				return err
			}
			lines = append(lines, InventoryLine{
				Generation: e.ID, Number: e.Number, Key: t.keyNameOf(e.Version.Custodian), Custodian: e.Version.Custodian, KeyVersion: e.Version.Version,
				State: e.State, Licenses: n, Created: e.Created, LastUsed: e.LastUsed,
			})
		}
		strict, err := record.CountStrict(r, t.id)
		for _, s := range strict {
			line := InventoryLine{Custodian: s.Custodian, KeyVersion: s.Version, Licenses: s.Licenses}
			if name, k := t.live.keyByID(s.Custodian); k != nil {
				line.Key, line.State = name, KeyView{TenantKey: k}.VersionState(s.Version)
			}
			lines = append(lines, line)
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
