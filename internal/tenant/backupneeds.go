package tenant

import (
	"fmt"
	"slices"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// BackupNeeds is a copy of the tenant's records that is kept somewhere, and what
// must not be destroyed while it is to be of use.
type BackupNeeds struct {
	ID   string
	Made time.Time
	// KeptUntil is until when copies are kept; zero: until somebody says that
	// none is left.
	KeptUntil   time.Time
	Versions    []keys.VersionID
	Generations []vocab.GenerationID
}

// String says what it is: backup of 2026-10-30 kept to 2027-01-28.
func (b *BackupNeeds) String() string {
	if b.KeptUntil.IsZero() {
		return fmt.Sprintf("backup of %s kept until it is forgotten", b.Made.UTC().Format(time.DateOnly))
	}
	return fmt.Sprintf("backup of %s kept to %s", b.Made.UTC().Format(time.DateOnly), b.KeptUntil.UTC().Format(time.DateOnly))
}

// backupNeeds lists the backups that r knows of.
func (t *Tenant) backupNeeds(r store.Reader) (out []BackupNeeds, err error) {
	if t.backups != nil {
		return t.backups(r, t.id)
	}
	err = record.ListResources(r, t.id, record.PrefixBackups, "", func(s *record.Resource) (bool, error) {
		if s.Gone != 0 || s.Name == record.NameHold {
			return true, nil
		}
		b, err := record.DecodeBackup(s.Body)
		if err != nil {
			return false, err
		}
		n := BackupNeeds{ID: s.ID(), Made: b.Created.Time(), KeptUntil: b.KeepUntil.Time()}
		for _, v := range b.Needs.Versions {
			n.Versions = append(n.Versions, keys.VersionID{Custodian: v.Custodian, Version: v.Version})
		}
		for _, g := range b.Needs.Generations {
			n.Generations = append(n.Generations, g.ID)
		}
		out = append(out, n)
		return true, nil
	})
	return out, err
}

// backupsOf returns those that need a version, and are still kept.
func (inv *Inventory) backupsOf(v keys.VersionID, now time.Time) []BackupNeeds {
	return inv.backupsThat(now, func(b *BackupNeeds) bool { return slices.Contains(b.Versions, v) })
}

// backupsWith returns those that need a generation, and are still kept.
func (inv *Inventory) backupsWith(g vocab.GenerationID, now time.Time) []BackupNeeds {
	return inv.backupsThat(now, func(b *BackupNeeds) bool { return slices.Contains(b.Generations, g) })
}

func (inv *Inventory) backupsThat(now time.Time, need func(*BackupNeeds) bool) (out []BackupNeeds) {
	for i := range inv.backups {
		if b := &inv.backups[i]; (b.KeptUntil.IsZero() || now.Before(b.KeptUntil)) && need(b) {
			out = append(out, *b)
		}
	}
	return out
}
