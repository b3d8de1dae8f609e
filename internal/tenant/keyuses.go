package tenant

import (
	"context"
	"time"

	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
)

// usesEvery is how often what was used is written down at most. An inventory
// reads memory too, so that this counts only after a crash: of what was used
// since, it then knows nothing.
const usesEvery = 5 * time.Minute

// noteUses writes down when generations and versions of keys were last used, if
// that is due. It is not an event: the events of what was opened are.
func (t *Tenant) noteUses(ctx context.Context) {
	now := t.now()
	if since := now.Sub(t.usesNoted); !t.usesNoted.IsZero() && since >= 0 && since < usesEvery {
		return
	}
	used := map[record.KeyRef]time.Time{}
	for _, e := range t.ring.Inventory() {
		if !e.LastUsed.IsZero() && !e.LastUsed.Before(t.usesNoted) && !e.ID.IsZero() {
			used[record.GenerationRef(e.ID)] = e.LastUsed
		}
	}
	for v, at := range t.ring.Uses() {
		if !at.Before(t.usesNoted) {
			used[record.VersionRef(v.Custodian, v.Version)] = at
		}
	}
	if len(used) > 0 {
		if err := t.store.Commit(ctx, func(tx store.Tx) error {
			for ref, at := range used {
				if err := record.NoteUse(tx, t.id, ref, at); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.logger.Warn("when keys were last used was not written down", "tenant", t.name, "error", err)
			return
		}
	}
	t.usesNoted = now
}

// noteLastUses is noteUses at the end of serving.
func (t *Tenant) noteLastUses() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if !t.usesNoted.IsZero() { // what came since then, however little
		t.usesNoted = t.usesNoted.Add(-usesEvery)
	}
	t.noteUses(ctx)
}
