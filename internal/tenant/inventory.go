package tenant

import (
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Inventory says what depends on which version of which key, and on which
// generation. It costs as many reads as there are versions and generations,
// however many licenses there are.
type Inventory struct {
	// Versions are those of all keys, those of the active key first, newest first;
	// at the end what licenses need and nobody knows.
	Versions []InventoryVersion
	// Generations are the newest first.
	Generations []InventoryGeneration

	keys    map[string]*record.TenantKey
	backups []BackupNeeds
}

// InventoryVersion is a version of a tenant key with what depends on it.
type InventoryVersion struct {
	// Key is its key's name; empty if the key is not registered.
	Key       string
	Custodian vocab.CustodianID
	Kind      keys.Kind
	// KeyVersion is what is known of it; of a version that was never seen, its
	// number.
	record.KeyVersion
	// State is what it is, whether by itself or as its key is; 0 if it was never
	// seen.
	State keys.State
	// Generations are those that it wraps, by number.
	Generations []uint32
	// Strict is how many licenses have a generation of their own that it wraps,
	// Cached how many are under those Generations.
	Strict, Cached int64
	// First and Last are the oldest and the newest of all these licenses.
	First, Last vocab.ContentID
	LastUsed    time.Time
	Safety      Safety
}

// InventoryGeneration is a generation with what depends on it.
type InventoryGeneration struct {
	Number uint32
	ID     vocab.GenerationID
	// Key, Custodian and Version are what wraps it; zero once it is destroyed.
	Key            string
	Custodian      vocab.CustodianID
	Version        uint32
	State          keys.State
	Created, Since time.Time
	Why            string
	Licenses       int64
	First, Last    vocab.ContentID
	LastUsed       time.Time
	Safety         Safety

	left record.Millis
}

// Inventory says what depends on which key version and generation. It asks no
// custodian.
func (t *Tenant) Inventory(ctx context.Context) (inv *Inventory, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		inv, err = t.survey(r)
		return err
	})
	return inv, err
}

// VerifyInventory reads every license and compares with it what the inventory
// counts by. It returns what does not agree and how many records it read.
func (t *Tenant) VerifyInventory(ctx context.Context) (problems []string, records int64, err error) {
	const most = 100
	err = t.store.View(ctx, func(r store.Reader) error {
		problems = nil
		records, err = record.CheckDependants(r, t.id, func(err error) {
			if len(problems) < most {
				problems = append(problems, err.Error())
			}
		})
		return err
	})
	return problems, records, err
}

// survey makes the inventory of what r holds.
func (t *Tenant) survey(r store.Reader) (*Inventory, error) {
	inv := &Inventory{keys: map[string]*record.TenantKey{}}
	if err := record.ListKeys(r, t.id, func(name string, k *record.TenantKey) error {
		inv.keys[name] = k
		return nil
	}); err != nil {
		return nil, err
	}
	var err error
	if inv.backups, err = t.backupNeeds(r); err != nil {
		return nil, err
	}
	if err := t.surveyGenerations(r, inv); err != nil {
		return nil, err
	}
	if err := t.surveyVersions(r, inv); err != nil {
		return nil, err
	}
	inv.judge(t.now())
	return inv, nil
}

func (t *Tenant) surveyGenerations(r store.Reader, inv *Inventory) error {
	used := map[uint32]time.Time{}
	if t.ring != nil {
		for _, e := range t.ring.Inventory() {
			used[e.Number] = e.LastUsed
		}
	}
	err := record.ListGenerations(r, t.id, func(g *record.Generation) error {
		if g.Canary == 1 {
			return nil // nothing ever depends on it
		}
		line := InventoryGeneration{
			Number: g.Number, State: keys.State(g.State), Created: g.Created.Time(), Since: g.Since.Time(), Why: g.Why,
		}
		signed, err := license.ParseGeneration(g.Signed)
		if err != nil {
			return vocab.Errorf(vocab.ReasonStoreDamaged, "generation g%d cannot be read", g.Number).Because(err)
		}
		line.ID = signed.ID
		rec, err := ringRecord(g)
		if err != nil {
			return err
		}
		line.Custodian, line.Version = rec.Wrap.Custodian, rec.Wrap.L0Version
		for name, k := range inv.keys {
			if k.ID == line.Custodian {
				line.Key = name
			}
		}
		ref := record.GenerationRef(line.ID)
		if line.Licenses, err = record.CountDependants(r, t.id, ref); err != nil {
			return err
		}
		if line.First, line.Last, err = record.EndDependants(r, t.id, ref); err != nil {
			return err
		}
		use, err := record.GetKeyUse(r, t.id, ref)
		line.LastUsed, line.left = later(use.Used.Time(), used[g.Number]), use.Left
		inv.Generations = append(inv.Generations, line)
		return err
	})
	slices.SortFunc(inv.Generations, func(a, b InventoryGeneration) int { return int(int64(b.Number) - int64(a.Number)) })
	return err
}

func (t *Tenant) surveyVersions(r store.Reader, inv *Inventory) error {
	for _, name := range sortedKeys(inv.keys) {
		k := inv.keys[name]
		for _, v := range slices.Backward(k.Versions) {
			inv.Versions = append(inv.Versions, InventoryVersion{
				Key: name, Custodian: k.ID, Kind: keys.Kind(k.Kind), KeyVersion: v, State: KeyView{TenantKey: k}.VersionState(v.Number),
			})
		}
	}
	// What nobody knows any more may be needed all the same.
	strict, err := record.CountStrict(r, t.id)
	if err != nil {
		return err
	}
	for _, s := range strict {
		inv.version(s.Custodian, s.Version)
	}
	for i := range inv.Generations {
		if g := &inv.Generations[i]; !g.Custodian.IsZero() {
			v := inv.version(g.Custodian, g.Version)
			v.Generations, v.Cached = append(v.Generations, g.Number), v.Cached+g.Licenses
			v.First, v.Last = older(v.First, g.First), newer(v.Last, g.Last)
		}
	}
	used := map[keys.VersionID]time.Time{}
	if t.ring != nil {
		used = t.ring.Uses()
	}
	for i := range inv.Versions {
		v := &inv.Versions[i]
		ref := record.VersionRef(v.Custodian, v.Number)
		if v.Strict, err = record.CountDependants(r, t.id, ref); err != nil {
			return err
		}
		first, last, err := record.EndDependants(r, t.id, ref)
		if err != nil {
			return err
		}
		v.First, v.Last = older(v.First, first), newer(v.Last, last)
		use, err := record.GetKeyUse(r, t.id, ref)
		if err != nil {
			return err
		}
		v.LastUsed = later(use.Used.Time(), used[keys.VersionID{Custodian: v.Custodian, Version: v.Number}])
		v.Safety.left = use.Left
	}
	return nil
}

// version returns the line of a version, and adds one if there is none.
func (inv *Inventory) version(c vocab.CustodianID, number uint32) *InventoryVersion {
	i := slices.IndexFunc(inv.Versions, func(v InventoryVersion) bool { return v.Custodian == c && v.Number == number })
	if i >= 0 {
		return &inv.Versions[i]
	}
	v := InventoryVersion{Custodian: c, KeyVersion: record.KeyVersion{Number: number}}
	for name, k := range inv.keys {
		if k.ID == c {
			v.Key, v.Kind = name, keys.Kind(k.Kind)
		}
	}
	inv.Versions = append(inv.Versions, v)
	return &inv.Versions[len(inv.Versions)-1]
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// older and newer choose among content IDs, which are in the order of their
// licenses' publication; zero is none.
func older(a, b vocab.ContentID) vocab.ContentID {
	if a.IsZero() || !b.IsZero() && slices.Compare(b[:], a[:]) < 0 {
		return b
	}
	return a
}

func newer(a, b vocab.ContentID) vocab.ContentID {
	if slices.Compare(b[:], a[:]) > 0 {
		return b
	}
	return a
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
