package daemon

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/backup"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// registrar keeps a tenant's backup sets: a tenant that is served, or one that
// is not.
type registrar interface {
	RegisterBackup(ctx context.Context, id vocab.BackupID, created, keepUntil time.Time, recipients []string) error
	CompleteBackup(ctx context.Context, id vocab.BackupID, sum [32]byte, size int64, logSize uint64) error
	ForgetBackup(ctx context.Context, id vocab.BackupID, reason string) error
	Backups(ctx context.Context) ([]tenant.BackupSet, error)
}

// keeper makes, lists and forgets backups of a store, whether a daemon serves it
// or not. One at a time.
type keeper struct {
	store       *bolt.Store
	log         *audit.Log
	checkpoints string
	logger      *slog.Logger
	now         func() time.Time
	// served returns the tenant if it is served; nil if it is not.
	served func(vocab.TenantID) *tenant.Tenant
	// opening is held while tenants that are not served are read and written: a
	// reload must not open them meanwhile.
	opening sync.Locker
}

// made is a backup that was written.
type made struct {
	id       vocab.BackupID
	sha256   [32]byte
	bytes    int64
	tenants  []string // lines for people
	warnings []string
}

// names returns the store's tenants by ID.
func (k *keeper) names(ctx context.Context) (out map[vocab.TenantID]string, err error) {
	out = map[vocab.TenantID]string{}
	err = k.store.View(ctx, func(r store.Reader) error {
		known, err := record.ListTenants(r)
		for name, t := range known {
			out[t.ID] = name
		}
		return err
	})
	return out, err
}

// registrar returns what keeps a tenant's backup sets.
func (k *keeper) registrar(ctx context.Context, id vocab.TenantID, name string) (registrar, error) {
	if k.served != nil {
		if t := k.served(id); t != nil {
			return t, nil
		}
	}
	return tenant.OpenUnserved(ctx, k.store, k.log, name, k.logger, k.now)
}

// each calls fn with every tenant, by name. A tenant that is damaged is warned
// of and passed over: that the others can be saved matters the more.
func (k *keeper) each(ctx context.Context, warn func(string), fn func(id vocab.TenantID, name string, r registrar) error) error {
	k.opening.Lock()
	defer k.opening.Unlock()
	names, err := k.names(ctx)
	if err != nil {
		return err
	}
	ids := slices.SortedFunc(maps.Keys(names), func(a, b vocab.TenantID) int { return strings.Compare(names[a], names[b]) })
	for _, id := range ids {
		r, err := k.registrar(ctx, id, names[id])
		if err == nil {
			err = fn(id, names[id], r)
		}
		switch vocab.ReasonOf(err) {
		case vocab.ReasonStoreDamaged, vocab.ReasonLogDamaged:
			warn(fmt.Sprintf("tenant %s is damaged, and its log says nothing of the backup: %v", names[id], err))
		default:
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// errNeedsMore says, inside this package, that the snapshot needs more than was
// written down before it.
var errNeedsMore = errors.New("the snapshot needs more than was registered")

// maxRegister is how often a backup is registered anew because keys were made
// meanwhile.
const maxRegister = 8

// write writes a backup to w. begin is called before the first byte, with about
// how many there will be.
func (k *keeper) write(ctx context.Context, to *backup.Recipients, keepUntil time.Time, w io.Writer, begin func(id vocab.BackupID, about int64) error) (*made, error) {
	out := &made{id: vocab.NewBackupID()}
	created := k.now().UTC().Truncate(time.Second)
	for range maxRegister {
		out.tenants, out.warnings = nil, nil
		damaged := map[vocab.TenantID]bool{}
		known, err := k.names(ctx)
		if err != nil {
			return nil, err
		}
		for id := range known {
			damaged[id] = true
		}
		err = k.each(ctx, out.warn, func(id vocab.TenantID, _ string, r registrar) error {
			err := r.RegisterBackup(ctx, out.id, created, keepUntil, to.Fingerprints())
			if err == nil {
				delete(damaged, id)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		c := &copying{
			keeper: k, made: out, sealed: &summed{w: w, hash: sha256.New()}, sizes: map[vocab.TenantID]uint64{},
			begin: begin, to: to, damaged: damaged,
			manifest: backup.Manifest{ID: out.id, Time: created, Service: Version()},
		}
		if !keepUntil.IsZero() {
			until := keepUntil.UTC().Truncate(time.Second)
			c.manifest.KeepUntil = &until
		}
		if err = c.run(ctx); err == errNeedsMore { //nolint:errorlint // our own sentinel, unwrapped
			continue
		}
		if err != nil {
			return nil, err
		}
		out.sha256, out.bytes = [32]byte(c.sealed.hash.Sum(nil)), c.sealed.n
		// From here on the backup is whole. If this cannot be written down it is
		// one all the same, and stays registered as one that was begun.
		if err := k.each(ctx, out.warn, func(id vocab.TenantID, _ string, r registrar) error {
			if damaged[id] {
				return nil
			}
			return r.CompleteBackup(ctx, out.id, out.sha256, out.bytes, c.sizes[id])
		}); err != nil {
			out.warn(fmt.Sprintf("the backup is whole, but the log could not be told so: %v", err))
		}
		return out, nil
	}
	return nil, vocab.Errorf(vocab.ReasonOverloaded, "the tenants' keys change too quickly for a backup").WithNext("Try again")
}

func (m *made) warn(line string) {
	if !slices.Contains(m.warnings, line) {
		m.warnings = append(m.warnings, line)
	}
}

// copying is one attempt at writing a backup.
type copying struct {
	*keeper
	made     *made
	to       *backup.Recipients
	begin    func(vocab.BackupID, int64) error
	manifest backup.Manifest
	sealed   *summed
	file     *backup.Writer
	damaged  map[vocab.TenantID]bool // no set of it is registered
	sizes    map[vocab.TenantID]uint64
	notes    map[vocab.TenantID][]byte
}

func (c *copying) run(ctx context.Context) error {
	var err error
	var stamp store.Stamp
	if c.manifest.Schema, stamp, err = c.store.Schema(); err != nil {
		return err
	}
	c.manifest.Stamp = string(stamp)
	// A checkpoint that is read before the snapshot is never ahead of it.
	if c.notes, err = c.readNotes(ctx); err != nil {
		return err
	}
	if _, err := c.store.CopyTo(ctx, c, c.head); err != nil {
		return err
	}
	return c.file.Close()
}

// Write writes the store's bytes.
func (c *copying) Write(p []byte) (int, error) { return c.file.Write(p) }

func (c *copying) readNotes(ctx context.Context) (map[vocab.TenantID][]byte, error) {
	names, err := c.names(ctx)
	if err != nil {
		return nil, err
	}
	out := map[vocab.TenantID][]byte{}
	for id := range names {
		note, err := audit.Exported(c.checkpoints, id)
		if err != nil {
			return nil, err
		}
		if note != nil {
			out[id] = note
		}
	}
	return out, nil
}

// head writes everything that comes before the store.
func (c *copying) head(r store.Reader, size int64) error {
	known, err := record.ListTenants(r)
	if err != nil {
		return err
	}
	c.manifest.StoreBytes = size
	for _, name := range slices.Sorted(maps.Keys(known)) {
		id := known[name].ID
		s, err := tenant.SnapshotOf(r, id)
		if err != nil && !c.damaged[id] {
			return err
		}
		if !c.damaged[id] {
			if covered, err := tenant.BackupCovers(r, id, c.made.id, &s); err != nil || !covered {
				return cmp.Or(err, errNeedsMore)
			}
		}
		c.sizes[id] = s.Size
		t := backup.Tenant{ID: id, Name: name, LogSize: s.Size, Root: s.Root, Epoch: s.Epoch}
		for _, v := range s.Needs.Versions {
			t.KeyVersions = append(t.KeyVersions, backup.KeyVersion(v))
		}
		for _, g := range s.Needs.Generations {
			t.Generations = append(t.Generations, backup.Generation(g))
		}
		c.manifest.Tenants = append(c.manifest.Tenants, t)
		c.made.tenants = append(c.made.tenants, tenantLine(&t))
	}
	if err := c.begin(c.made.id, size+size/(64<<10)*16+64<<10); err != nil {
		return err
	}
	if c.file, err = backup.NewWriter(c.sealed, c.to); err != nil {
		return err
	}
	if err := c.file.Manifest(c.manifest); err != nil {
		return err
	}
	for _, t := range c.manifest.Tenants {
		if err := c.checkpointsOf(t.ID); err != nil {
			return err
		}
	}
	return c.file.Store()
}

// checkpointsOf writes a tenant's checkpoint, and the certificates beside it.
func (c *copying) checkpointsOf(id vocab.TenantID) error {
	note := c.notes[id]
	if note == nil {
		return nil
	}
	if err := c.file.Checkpoint(id, "latest", note); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(c.checkpoints, id.String(), "*.cert"))
	if err != nil {
		return err
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return vocab.Errorf(vocab.ReasonLogDamaged, "a certificate beside the exported checkpoint cannot be read").Because(err)
		}
		if err := c.file.Checkpoint(id, filepath.Base(name), b); err != nil {
			return err
		}
	}
	return nil
}

// tenantLine says what a backup holds of a tenant.
func tenantLine(t *backup.Tenant) string {
	var needs []string
	for _, v := range t.KeyVersions {
		needs = append(needs, versionWord(record.NeededVersion(v)))
	}
	for _, g := range t.Generations {
		needs = append(needs, generationWord(record.NeededGeneration(g)))
	}
	line := fmt.Sprintf("%s  %d events, root %x", t.Name, t.LogSize, t.Root[:8])
	if len(needs) > 0 {
		line += ", needs " + strings.Join(needs, ", ")
	}
	return line
}

func versionWord(v record.NeededVersion) string       { return fmt.Sprintf("key %s v%d", v.Key, v.Version) }
func generationWord(g record.NeededGeneration) string { return fmt.Sprintf("g%d", g.Number) }

// summed counts and hashes what is written.
type summed struct {
	w    io.Writer
	hash hash.Hash
	n    int64
}

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.hash.Write(p[:n])
	s.n += int64(n)
	return n, err
}

// BackupStore writes a backup of the store in a data directory, on which no
// daemon may run, to w.
func BackupStore(ctx context.Context, dir string, to *backup.Recipients, keepUntil time.Time, w io.Writer, log *slog.Logger) (*BackupResult, error) {
	k, done, err := openKeeper(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	out := bufio.NewWriterSize(w, pieceSize)
	m, err := k.write(ctx, to, keepUntil, out, func(vocab.BackupID, int64) error { return nil })
	if err = errors.Join(err, done()); err == nil {
		err = out.Flush()
	}
	if err != nil {
		return nil, err
	}
	return &BackupResult{ID: m.id.String(), SHA256: m.sha256, Bytes: m.bytes, Tenants: m.tenants, Warnings: m.warnings}, nil
}

// BackupResult says what was written.
type BackupResult struct {
	ID                string
	SHA256            [32]byte
	Bytes             int64
	Tenants, Warnings []string
}

// openKeeper opens the store of a data directory that no daemon serves.
func openKeeper(ctx context.Context, dir string, log *slog.Logger) (*keeper, func() error, error) {
	s, err := openAny(dir)
	if err != nil {
		return nil, nil, err
	}
	k := &keeper{store: s, log: audit.New(s), checkpoints: filepath.Join(dir, checkpointDir), logger: log, now: time.Now, opening: new(sync.Mutex)}
	if err := k.log.CheckExported(ctx, k.checkpoints); err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	return k, s.Close, nil
}

// openAny opens the store in a data directory, whose ever it is.
func openAny(dir string) (*bolt.Store, error) {
	if _, err := os.Stat(filepath.Join(dir, storeFile)); err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "there is no store: %w", err)
	}
	s, err := openStore(dir, false)
	if vocab.ReasonOf(err) == vocab.ReasonConfigurationInvalid {
		if other, otherErr := openStore(dir, true); otherErr == nil {
			return other, nil
		}
	}
	return s, err
}
