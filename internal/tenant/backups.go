package tenant

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// A backup set is a resource of every tenant that is in it. It is durable before
// the first byte of the copy leaves the process, so a copy that nobody knows of
// cannot be; one that came to nothing stays until somebody forgets it.

// BackupSet is a copy of the store that was begun and was not forgotten, as one
// tenant's log knows it.
type BackupSet struct {
	ID vocab.BackupID
	record.Backup
}

// Backups lists the tenant's backup sets, newest first, with what must not be
// destroyed while they are to be of use.
func (t *Tenant) Backups(ctx context.Context) (out []BackupSet, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		out = nil
		return record.ListResources(r, t.id, record.PrefixBackups, "", func(s *record.Resource) (bool, error) {
			if s.Gone != 0 || s.Name == record.NameHold {
				return true, nil
			}
			if _, err := verifyState(r, t.id, s.Name, s.LastEvent, s.State); err != nil {
				return false, err
			}
			id, err := vocab.ParseBackupID(s.ID())
			if err != nil {
				return false, contradicts(s.Name)
			}
			b, err := record.DecodeBackup(s.Body)
			if err == nil {
				out = append(out, BackupSet{id, *b})
			}
			return true, err
		})
	})
	slices.Reverse(out)
	return out, err
}

// String says what a backup set is, as an inventory of keys does: backup of
// 2026-10-30 kept to 2027-01-28.
func (b *BackupSet) String() string {
	text := "backup of " + b.Created.Time().Format(time.DateOnly)
	if b.KeepUntil != 0 {
		return text + " kept to " + b.KeepUntil.Time().Format(time.DateOnly)
	}
	return text + " kept until it is forgotten"
}

// needsOf says what must not be destroyed while a copy of a tenant's records as
// they are in r is to be of use: every version of the tenant key that something
// is wrapped by, and every generation.
func needsOf(r store.Reader, t vocab.TenantID) (record.Needs, error) {
	var out record.Needs
	names := map[vocab.CustodianID]string{}
	if err := record.ListKeys(r, t, func(name string, k *record.TenantKey) error {
		names[k.ID] = name
		return nil
	}); err != nil {
		return out, err
	}
	versions := map[record.NeededVersion]struct{}{}
	need := func(c vocab.CustodianID, version uint32) {
		versions[record.NeededVersion{Custodian: c, Key: names[c], Version: version}] = struct{}{}
	}
	if err := record.ListGenerations(r, t, func(g *record.Generation) error {
		if len(g.Wrap) == 0 {
			return nil // destroyed
		}
		w, err := license.ParseWrap(g.Wrap)
		if err != nil {
			return vocab.Errorf(vocab.ReasonStoreDamaged, "the wrapped key of generation g%d cannot be read", g.Number).Because(err)
		}
		signed, err := license.ParseGeneration(g.Signed)
		if err != nil {
			return vocab.Errorf(vocab.ReasonStoreDamaged, "generation g%d cannot be read", g.Number).Because(err)
		}
		need(w.Custodian, w.L0Version)
		out.Generations = append(out.Generations, record.NeededGeneration{Number: g.Number, ID: signed.ID})
		return nil
	}); err != nil {
		return out, err
	}
	slices.SortFunc(out.Generations, func(a, b record.NeededGeneration) int { return cmp.Compare(a.Number, b.Number) })
	strict, err := record.CountStrict(r, t)
	if err != nil {
		return out, err
	}
	for _, s := range strict {
		need(s.Custodian, s.Version)
	}
	for v := range versions {
		out.Versions = append(out.Versions, v)
	}
	slices.SortFunc(out.Versions, func(a, b record.NeededVersion) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), bytes.Compare(a.Custodian[:], b.Custodian[:]), cmp.Compare(a.Version, b.Version))
	})
	return out, nil
}

// Snapshot is what a copy of the store says of a tenant.
type Snapshot struct {
	Size  uint64 // of its log
	Root  [32]byte
	Epoch uint64
	Needs record.Needs
}

// SnapshotOf returns what r says of a tenant.
func SnapshotOf(r store.Reader, t vocab.TenantID) (s Snapshot, err error) {
	if s.Size, s.Root, err = audit.Head(r, t); err != nil {
		return s, err
	}
	if s.Epoch, err = record.Epoch(r, t); err != nil {
		return s, err
	}
	s.Needs, err = needsOf(r, t)
	return s, err
}

// BackupCovers reports whether a tenant's backup set, as it is in r, names
// everything that r needs. If not, a key could be destroyed that this copy needs.
func BackupCovers(r store.Reader, t vocab.TenantID, id vocab.BackupID, s *Snapshot) (bool, error) {
	res, err := record.GetResource(r, t, record.BackupName(id))
	if err != nil || res == nil || res.Gone != 0 {
		return false, err
	}
	b, err := record.DecodeBackup(res.Body)
	if err != nil {
		return false, err
	}
	return b.Needs.Covers(&s.Needs), nil
}

// methodBackup and the like are what events of the operator name as the method.
const (
	methodBackup = "OperatorService/Backup"
	methodForget = "OperatorService/ForgetBackup"
)

// RegisterBackup writes down that there may be a copy of the store as it is now
// or a little later. Called again for the same backup it notes what the copy
// needs beyond that.
func (t *Tenant) RegisterBackup(ctx context.Context, id vocab.BackupID, created, keepUntil time.Time, recipients []string) error {
	_, _, err := t.changeResource(ctx, Call{Method: methodBackup}, audit.KindBackupMade, record.BackupName(id),
		func(r store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
			b := record.Backup{Created: record.ToMillis(created), KeepUntil: record.ToMillis(keepUntil), Recipients: recipients}
			if now != nil {
				e.Kind = audit.KindBackupChanged
			}
			var err error
			if b.LogSize, _, err = audit.Head(r, t.id); err != nil {
				return nil, err
			}
			if b.Needs, err = needsOf(r, t.id); err != nil {
				return nil, err
			}
			e.Detail = "begun, kept to " + b.KeepUntil.Time().Format(time.DateOnly)
			if b.KeepUntil == 0 {
				e.Detail = "begun, kept until it is forgotten"
			}
			return b.Encode()
		})
	return err
}

// CompleteBackup writes down that all of a backup was written, with the SHA-256
// and the size in bytes of the file, and the size of the tenant's log in it.
func (t *Tenant) CompleteBackup(ctx context.Context, id vocab.BackupID, sum [32]byte, size int64, logSize uint64) error {
	_, _, err := t.changeResource(ctx, Call{Method: methodBackup}, audit.KindBackupChanged, record.BackupName(id),
		func(_ store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
			if now == nil {
				return nil, noBackup(id)
			}
			b, err := record.DecodeBackup(now.Body)
			if err != nil {
				return nil, err
			}
			b.Complete, b.SHA256, b.Bytes, b.LogSize = 1, sum[:], uint64(size), logSize
			e.Detail = fmt.Sprintf("complete: %d events, %d bytes, SHA-256 %x", logSize, size, sum)
			return b.Encode()
		})
	return err
}

// ForgetBackup writes down that nothing is left of a backup: it does not keep a
// key from being destroyed any more. The error is RESOURCE_NOT_FOUND if the
// tenant knows no such backup.
func (t *Tenant) ForgetBackup(ctx context.Context, id vocab.BackupID, reason string) error {
	_, _, err := t.changeResource(ctx, Call{Method: methodForget}, audit.KindBackupChanged, record.BackupName(id),
		func(_ store.Reader, now *record.Resource, e *audit.Event) ([]byte, error) {
			if now == nil {
				return nil, noBackup(id)
			}
			e.Detail = "forgotten: " + reason
			return nil, nil
		})
	return err
}

func noBackup(id vocab.BackupID) error {
	return vocab.Errorf(vocab.ReasonResourceNotFound, "there is no backup %s", id).WithNext("See: rmsd backup list")
}
