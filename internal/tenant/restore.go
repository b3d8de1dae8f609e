package tenant

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Unserved is a tenant's records and log while nobody serves the tenant: what a
// backup and a restore need of it. It is for one goroutine, and nothing else may
// write the tenant meanwhile.
type Unserved struct{ t *Tenant }

// OpenUnserved reads and verifies the tenant of a name. What contradicts the log
// is STORE_DAMAGED; a name that the store does not know is RESOURCE_NOT_FOUND.
func OpenUnserved(ctx context.Context, s store.Store, log *audit.Log, name string, logger *slog.Logger, now func() time.Time) (*Unserved, error) {
	t := &Tenant{name: name, store: s, log: log, logger: logger, now: now}
	err := s.View(ctx, func(r store.Reader) error {
		known, err := record.GetTenant(r, name)
		if err != nil {
			return err
		}
		if known == nil {
			return vocab.Errorf(vocab.ReasonResourceNotFound, "the store knows no tenant %s", name)
		}
		t.id = known.ID
		settings, err := record.GetSettings(r, t.id)
		if err != nil {
			return err
		}
		if err := verifySettings(r, t.id, settings); err != nil {
			return err
		}
		t.settings.Store(&settings)
		return t.live.load(r, t.id)
	})
	if err != nil {
		return nil, err
	}
	if err := t.loadTrust(ctx); err != nil {
		return nil, err
	}
	return &Unserved{t}, nil
}

// ID is the tenant's identity.
func (u *Unserved) ID() vocab.TenantID { return u.t.id }

// Name is its name among people.
func (u *Unserved) Name() string { return u.t.name }

// RegisterBackup is [Tenant.RegisterBackup].
func (u *Unserved) RegisterBackup(ctx context.Context, id vocab.BackupID, created, keepUntil time.Time, recipients []string) error {
	return u.t.RegisterBackup(ctx, id, created, keepUntil, recipients)
}

// CompleteBackup is [Tenant.CompleteBackup].
func (u *Unserved) CompleteBackup(ctx context.Context, id vocab.BackupID, sum [32]byte, size int64, logSize uint64) error {
	return u.t.CompleteBackup(ctx, id, sum, size, logSize)
}

// ForgetBackup is [Tenant.ForgetBackup].
func (u *Unserved) ForgetBackup(ctx context.Context, id vocab.BackupID, reason string) error {
	return u.t.ForgetBackup(ctx, id, reason)
}

// Backups is [Tenant.Backups].
func (u *Unserved) Backups(ctx context.Context) ([]BackupSet, error) { return u.t.Backups(ctx) }

// Exported verifies an exported checkpoint with the certificates kept beside it:
// that one of the tenant's roots, as the store knows them, vouches for it. The
// error is LOG_DAMAGED, or CUSTODIAN_UNREACHABLE if the store knows no root.
func (u *Unserved) Exported(x Exported) (audit.Checkpoint, error) { return u.t.openExported(x) }

// Restoration says where a restored store comes from and what is known of what
// is not in it.
type Restoration struct {
	Backup     vocab.BackupID
	BackupTime time.Time
	// Newest is the newest checkpoint of the log that was ever exported, as far
	// as the operator has it; nil if there is none.
	Newest *audit.Checkpoint
	// Lost says that events are or may be missing: the tenant is then held.
	Lost bool
	// Gap is what the missing events say, as far as they are at hand; nil if none
	// are. Some may be missing still: see [Gap.Whole].
	Gap *Gap
	// Reason is why the operator accepts the loss; empty if they had not to.
	Reason string
}

// Restored is what a restore did in a tenant.
type Restored struct {
	// Size is the size of the log in the backup.
	Size uint64
	// Held says that the tenant neither publishes nor opens until it is released.
	Held bool
	// Hold says what was done again and what is left to do; nil if it is not
	// held.
	Hold *record.Hold
}

// Restore writes down that the store comes from a backup. If something is or may
// be lost, what is known of it and takes something away is done again first, and
// the tenant is held.
func (u *Unserved) Restore(ctx context.Context, x Restoration) (*Restored, error) {
	t := u.t
	if !policy.PlainText(x.Reason, policy.MaxText) {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the reason is too long or not plain text in normal form (NFC)")
	}
	e := t.newEvent(audit.KindRestored, Call{Method: methodRestore}, t.now())
	var size uint64
	var root [32]byte
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		size, root, err = audit.Head(r, t.id)
		return err
	}); err != nil {
		return nil, err
	}
	e.Detail = fmt.Sprintf("backup %s of %s, %d events, root %x", x.Backup, x.BackupTime.UTC().Format(time.RFC3339), size, root)
	out := &Restored{Size: size, Held: x.Lost}
	if !x.Lost {
		e.Detail += "; nothing is known to be lost"
		e.Target = "backup " + x.Backup.String()
		return out, t.commit(ctx, func(store.Tx) error { return nil }, e)
	}
	h := &record.Hold{
		Event: e.ID, Restored: record.ToMillis(e.Time), Backup: x.Backup, BackupTime: record.ToMillis(x.BackupTime), BackupSize: size, Reason: x.Reason,
	}
	if c := x.Newest; c != nil {
		h.LostSize = c.Size
		e.Detail += fmt.Sprintf("; the log had %d events, root %x, at %s", c.Size, c.Root, c.Time.Format(time.RFC3339))
	} else {
		e.Detail += "; nobody knows how many events the log had"
	}
	again := &again{t: t, restore: e, hold: h}
	unknown := "what happened after " + x.BackupTime.UTC().Format(time.RFC3339)
	if x.Gap != nil {
		e.Detail += fmt.Sprintf("; of the lost events %d to %d were exported", x.Gap.from, x.Gap.to)
		unknown = fmt.Sprintf("the exported events, which nothing proves, end at %d; what happened after them", x.Gap.to)
		if err := again.all(ctx, x.Gap); err != nil {
			return nil, err
		}
	}
	if !x.Gap.Whole() {
		h.Open = slices.Insert(h.Open, 0, unknown+
			" is not known: revocations, disabled people, changes of roles, groups, templates and settings, states of keys")
	}
	e.Alarm, e.Target = true, record.NameHold
	e.Detail += fmt.Sprintf("; %d facts done again, %d to look at", len(h.Reapplied), uint64(len(h.Open))+h.LeftOut)
	if x.Reason != "" {
		e.Detail += "; loss accepted: " + x.Reason
	}
	out.Hold = h
	return out, t.commit(ctx, func(tx store.Tx) error {
		_, err := t.putResource(tx, record.NameHold, e, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) {
			return h.Encode()
		})
		return err
	}, e)
}

const methodRestore = "restore"

// again does again what the lost events took away.
type again struct {
	t       *Tenant
	restore *audit.Event
	hold    *record.Hold
}

// batchAgain is how many facts one transaction does again.
const batchAgain = 200

// all does everything again, oldest first.
func (a *again) all(ctx context.Context, g *Gap) error {
	facts := g.sorted()
	for len(facts) > 0 {
		batch := facts[:min(len(facts), batchAgain)]
		facts = facts[len(batch):]
		if err := a.t.store.Commit(ctx, func(tx store.Tx) error {
			for _, f := range batch {
				if err := a.one(tx, f); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return a.t.store.View(ctx, func(r store.Reader) error {
		return g.eachLine(func(e *audit.Event) (bool, error) {
			if e.Content.IsZero() {
				return true, nil
			}
			l, err := record.GetLicense(r, a.t.id, e.Content)
			return l != nil, err // one that was made after the backup is counted, not named
		}, a.open)
	})
}

func (a *again) open(line string) { a.add(&a.hold.Open, line) }
func (a *again) done(line string) { a.add(&a.hold.Reapplied, line) }

func (a *again) add(to *[]string, line string) {
	if len(*to) >= record.MaxHoldLines {
		a.hold.LeftOut++
		return
	}
	*to = append(*to, line)
}

// event begins the event of something that is done again.
func (a *again) event(kind audit.Kind, was *audit.Event) *audit.Event {
	e := a.t.newEvent(kind, Call{Method: methodRestore}, a.t.now())
	e.Parent = a.restore.ID
	e.Detail = fmt.Sprintf("again, as in the lost event %s of %s by %s", was.ID, was.Time.UTC().Format(time.RFC3339), byWhom(was))
	if was.Detail != "" {
		e.Detail += ": " + was.Detail
	}
	return e
}

// byWhom names who an event is of.
func byWhom(e *audit.Event) string { return cmp.Or(e.Principal.Name, e.Actor.Name, "the service") }

// one does one fact again. What cannot be done is left to people.
func (a *again) one(tx store.Tx, f *fact) error {
	said, err := f.again(a, tx, f.event)
	switch {
	case errors.Is(err, errLeft):
		a.open(f.text())
	case err != nil:
		return err
	case said != "":
		a.done(said)
	}
	return nil
}

// errLeft says, inside this package, that a fact has to be left to people.
var errLeft = errors.New("left to people")
