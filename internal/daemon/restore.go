package daemon

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/backup"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// RestoreOptions say what to restore, and what is known of what came after it.
type RestoreOptions struct {
	File       string
	Identities *backup.Identities
	// DataDir is the data directory to make. It must not be there, or be empty.
	DataDir string
	// Checkpoints is a directory of exported checkpoints that is newer than the
	// backup; "" if there is none.
	Checkpoints string
	// Events are files of exported events.
	Events []string
	// AcceptLoss is why what is missing may be missing; "" if it may not.
	AcceptLoss string
	Out        io.Writer
	Log        *slog.Logger
	Now        func() time.Time
}

// Restore makes a data directory of a backup: whole, checked and in its place,
// or not at all.
func Restore(ctx context.Context, o RestoreOptions) error {
	target, err := emptyPlace(o.DataDir, o.Out)
	if err != nil {
		return err
	}
	if info, err := os.Stat(o.Checkpoints); o.Checkpoints != "" && (err != nil || !info.IsDir()) {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s is no directory of checkpoints", o.Checkpoints)
	}
	u, err := unpack(ctx, o.File, o.Identities, filepath.Dir(target), filepath.Base(target)+restoring)
	if err != nil {
		return err
	}
	defer u.discard()
	if err := u.check(ctx); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "backup %s of %s, SHA-256 %x: whoever has a recipient can make such a file, so compare that with what the logs have of it\n",
		u.manifest.ID, u.manifest.Time.UTC().Format(time.RFC3339), u.sum)
	if err := u.settle(ctx, &o); err != nil {
		return err
	}
	if _, err := u.fsck(ctx); err != nil {
		return err
	}
	if err := u.place(target); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "restored to %s\n", target)
	return nil
}

// VerifyBackup opens a backup, restores it into a temporary directory below
// tmp, runs the checks of fsck on it, prints what is in it, and removes it.
func VerifyBackup(ctx context.Context, file string, ids *backup.Identities, tmp string, out io.Writer) error {
	u, err := unpack(ctx, file, ids, tmp, "rmsd-verify")
	if err != nil {
		return err
	}
	defer u.discard()
	if err := u.check(ctx); err != nil {
		return err
	}
	r, err := u.fsck(ctx)
	if err != nil {
		return err
	}
	u.describe(out)
	fmt.Fprintf(out, "%d records and %d events read, 0 problems: this backup can be restored\n", r.records, r.events)
	return nil
}

// restoring stands between the name of a data directory and what is random in
// that of one that is being made.
const restoring = ".restoring-"

// emptyPlace returns the absolute path of a data directory that is to be made.
// What an earlier restore left that was killed is named: it holds a copy.
func emptyPlace(dir string, out io.Writer) (string, error) {
	target, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	names, err := os.ReadDir(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", vocab.Errorf(vocab.ReasonConfigurationInvalid, "the data directory: %w", err)
	case len(names) > 0:
		return "", vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s is not empty: it has %s", target, names[0].Name()).
			WithNext("Move what is there away as a whole and keep it: its checkpoints say what is missing in the backup (--checkpoints)")
	}
	if left, _ := filepath.Glob(target + restoring + "*"); len(left) > 0 {
		fmt.Fprintf(out, "left by a restore that did not come to its end, remove it if none runs: %s\n", strings.Join(left, " "))
	}
	return target, nil
}

// unpacked is a backup in a directory of its own.
type unpacked struct {
	dir      string
	manifest *backup.Manifest
	sum      [32]byte // of the file, all of which was read
	store    *bolt.Store
	log      *audit.Log
}

// unpack opens a backup into a new directory.
func unpack(ctx context.Context, file string, ids *backup.Identities, parent, pattern string) (_ *unpacked, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the backup: %w", err)
	}
	defer f.Close()
	dir, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "no directory can be made: %w", err)
	}
	u := &unpacked{dir: dir}
	sum := sha256.New()
	defer func() {
		if err != nil {
			u.discard()
		}
	}()
	var db *os.File
	u.manifest, err = backup.Read(io.TeeReader(&contextReader{ctx, f}, sum), ids, backup.Sink{
		Manifest: func(m *backup.Manifest) error {
			if m.Schema > record.Schema.Version {
				return vocab.Errorf(vocab.ReasonStoreNewer, "a newer version wrote this backup: the schema of its store is %d, this program knows %d",
					m.Schema, record.Schema.Version).WithNext("Restore it with rmsd %s or newer", m.Service)
			}
			return nil
		},
		Checkpoint: func(t vocab.TenantID, name string, b []byte) error {
			return u.write(filepath.Join(checkpointDir, t.String(), name), b)
		},
		Store: func(int64) (w io.Writer, err error) {
			db, err = os.OpenFile(filepath.Join(dir, storeFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			return db, err
		},
	})
	if db != nil {
		err = errors.Join(err, db.Sync(), db.Close())
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case isFull(err):
		return nil, vocab.Errorf(vocab.ReasonStoreFull, "there is no room for what is in the backup").WithNext("Make room in %s", parent).Because(err)
	case err != nil:
		return nil, err
	}
	u.sum = [32]byte(sum.Sum(nil))
	return u, nil
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// contextReader ends a long reading with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// write writes a file below the directory, durably.
func (u *unpacked) write(name string, b []byte) error {
	path := filepath.Join(u.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// discard removes the directory, if it was not moved to its place.
func (u *unpacked) discard() {
	if u.store != nil {
		_ = u.store.Close()
		u.store = nil
	}
	_ = os.RemoveAll(u.dir)
}

// check opens the store and compares it with the manifest, and runs fsck.
func (u *unpacked) check(ctx context.Context) (err error) {
	if u.store, err = openStore(u.dir, u.manifest.Stamp == string(store.Development)); err != nil {
		return err
	}
	u.log = audit.New(u.store)
	if err := u.store.View(ctx, func(r store.Reader) error {
		known, err := record.ListTenants(r)
		if err != nil {
			return err
		}
		if len(known) != len(u.manifest.Tenants) {
			return notWhatItSays("its store has other tenants than its manifest names")
		}
		for _, t := range u.manifest.Tenants {
			n, root, err := audit.Head(r, t.ID)
			if err != nil {
				return err
			}
			if known[t.Name].ID != t.ID || n != t.LogSize || root != t.Root {
				return notWhatItSays("the log of tenant " + t.Name + " is not the one its manifest names")
			}
		}
		return nil
	}); err != nil {
		return err
	}
	_, err = u.fsck(ctx)
	return err
}

func notWhatItSays(what string) error {
	return vocab.Errorf(vocab.ReasonStoreDamaged, "the backup cannot be used: %s", what).WithNext("Use an older backup")
}

// fsck runs the checks of fsck and fails on any finding.
func (u *unpacked) fsck(ctx context.Context) (*checked, error) {
	r, err := checkStore(ctx, u.store, u.log, filepath.Join(u.dir, checkpointDir))
	if err != nil {
		return nil, err
	}
	if len(r.problems) > 0 {
		return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "the restored store is damaged: %s", strings.Join(r.problems[:min(len(r.problems), 5)], "; ")).
			WithNext("Use an older backup")
	}
	return r, nil
}

// describe prints what is in the backup.
func (u *unpacked) describe(out io.Writer) {
	m := u.manifest
	fmt.Fprintf(out, "backup %s of %s, by rmsd %s, %s store of %d bytes, schema %d\n",
		m.ID, m.Time.UTC().Format(time.RFC3339), m.Service, m.Stamp, m.StoreBytes, m.Schema)
	if m.KeepUntil != nil {
		fmt.Fprintf(out, "kept to %s\n", m.KeepUntil.UTC().Format(time.DateOnly))
	}
	for i := range m.Tenants {
		fmt.Fprintln(out, tenantLine(&m.Tenants[i]))
	}
}

// place makes everything durable and moves it to where it belongs.
func (u *unpacked) place(target string) error {
	err := u.store.Close()
	u.store = nil
	if err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(u.dir, storeFile+".lock"))
	// From the innermost directory out: whoever finds the target finds all of it.
	// What takes the place of an empty directory belongs to whom that belonged.
	owned, _ := os.Stat(target)
	var dirs []string
	if err := filepath.WalkDir(u.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if err == nil && owned != nil {
			err = sameOwner(path, owned)
		}
		return err
	}); err != nil {
		return err
	}
	slices.Reverse(dirs)
	for _, dir := range dirs {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	// The system's own rename takes the place of an empty directory, and of no
	// other; that of package os refuses both.
	if err := syscall.Rename(u.dir, target); err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the restored directory could not be moved to its place: %w", err).
			WithNext("%s must not be there, or be an empty directory that is no mount point", target)
	}
	return syncDir(filepath.Dir(target))
}

// sameOwner gives a file to the owner of another.
func sameOwner(path string, other os.FileInfo) error {
	want, ok := other.Sys().(*syscall.Stat_t)
	if !ok || int(want.Uid) == os.Geteuid() && int(want.Gid) == os.Getegid() {
		return nil
	}
	if err := os.Lchown(path, int(want.Uid), int(want.Gid)); err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the restored files cannot be given to the owner of the data directory: %w", err).
			WithNext("Restore as that user, or as root")
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}

// outcome is what is known of one tenant's log after the backup.
type outcome struct {
	t      *tenant.Unserved
	size   uint64 // in the backup
	newest *audit.Checkpoint
	x      tenant.Exported // what newest was read from
	lost   bool
	gap    *tenant.Gap // nil: nothing is known of what is missing
	why    string      // for people: what is or may be missing
}

// settle compares the logs with what is known of later ones and writes down, in
// each, that it was restored.
func (u *unpacked) settle(ctx context.Context, o *RestoreOptions) error {
	var all []*outcome
	var refused []string
	for _, m := range u.manifest.Tenants {
		t, err := tenant.OpenUnserved(ctx, u.store, u.log, m.Name, o.Log, o.Now)
		if err != nil {
			return err
		}
		w := &outcome{t: t, size: m.LogSize}
		if err := u.compare(ctx, o, w); err != nil {
			return err
		}
		all = append(all, w)
		if w.lost && !w.gap.Whole() && o.AcceptLoss == "" {
			refused = append(refused, m.Name+": "+w.why)
		}
	}
	if len(refused) > 0 {
		return vocab.Errorf(vocab.ReasonLogDamaged, "something is or may be missing in this backup, revocations perhaps, and nothing was restored: %s",
			strings.Join(refused, ". ")).
			WithNext("Give what is there of the old data directory's checkpoints (--checkpoints) and of exported events (--events); " +
				"if that is all, say why the loss is accepted (--accept-loss): the tenants are then held until a tenant-admin releases them")
	}
	for _, w := range all {
		reason := o.AcceptLoss
		if !w.lost || w.gap.Whole() {
			reason = ""
		}
		r, err := w.t.Restore(ctx, tenant.Restoration{
			Backup: u.manifest.ID, BackupTime: u.manifest.Time, Newest: w.newest, Lost: w.lost, Gap: w.gap, Reason: reason,
		})
		if err != nil {
			return err
		}
		if err := u.keepCheckpoint(w); err != nil {
			return err
		}
		w.report(o.Out, r)
	}
	return nil
}

// report says what became of a tenant.
func (w *outcome) report(out io.Writer, r *tenant.Restored) {
	if !r.Held {
		fmt.Fprintf(out, "%s: %d events, nothing is known to be lost\n", w.t.Name(), w.size)
		return
	}
	fmt.Fprintf(out, "%s: HELD. %s\n", w.t.Name(), w.why)
	for _, line := range r.Hold.Reapplied {
		fmt.Fprintf(out, "  done again: %s\n", line)
	}
	for _, line := range r.Hold.Open {
		fmt.Fprintf(out, "  look at:    %s\n", line)
	}
	if r.Hold.LeftOut > 0 {
		fmt.Fprintf(out, "  and %d more\n", r.Hold.LeftOut)
	}
	fmt.Fprintln(out, "  it neither publishes nor opens until a tenant-admin releases it and another approves: rmsctl tenant hold, rmsctl tenant release")
}

// compare finds out what is known of a tenant's log after the backup.
func (u *unpacked) compare(ctx context.Context, o *RestoreOptions, w *outcome) (err error) {
	unknown := func(why string) error {
		w.lost, w.why, w.newest, w.x = true, why, nil, tenant.Exported{}
		return u.readGap(ctx, o.Events, w)
	}
	if o.Checkpoints == "" {
		return unknown("no newer checkpoint was given, so nobody knows what came after the backup")
	}
	note, err := audit.Exported(o.Checkpoints, w.t.ID())
	if err != nil {
		return err
	}
	if note == nil {
		return unknown("there is no checkpoint of it in " + o.Checkpoints)
	}
	w.x.Note = note
	if w.x.Certificates, err = audit.ExportedCertificates(o.Checkpoints, w.t.ID()); err != nil {
		return err
	}
	c, err := w.t.Exported(w.x)
	if err != nil {
		return unknown("the checkpoint in " + o.Checkpoints + " is not signed under a root that the backup knows")
	}
	if c.Size <= w.size {
		err := u.store.View(ctx, func(r store.Reader) error { return audit.CheckRoot(r, c) })
		if vocab.ReasonOf(err) == vocab.ReasonLogDamaged {
			return unknown(fmt.Sprintf("its checkpoint of %s, of %d events, is of another log than the backup's: one of them was restored before",
				c.Time.Format(time.RFC3339), c.Size))
		}
		w.newest = &c
		return err
	}
	w.lost, w.newest = true, &c
	w.x = tenant.Exported{} // the restored log does not continue it
	w.why = fmt.Sprintf("%d events after the backup are missing: it has %d, and the checkpoint of %s has %d",
		c.Size-w.size, w.size, c.Time.Format(time.RFC3339), c.Size)
	return u.readGap(ctx, o.Events, w)
}

// readGap reads the missing events of a tenant from the files that were given,
// as far as they follow the backup's log one by one. If they lead to the newest
// checkpoint they are proven to be all; otherwise some are missing still, and
// nothing proves those that are there.
func (u *unpacked) readGap(ctx context.Context, files []string, w *outcome) error {
	if len(files) == 0 {
		return nil
	}
	var tree *audit.Tree
	if err := u.store.View(ctx, func(r store.Reader) (err error) {
		tree, err = audit.TreeAt(r, w.t.ID(), w.size)
		return err
	}); err != nil {
		return err
	}
	gap := tenant.NewGap(w.size)
	proven := func() bool { return w.newest != nil && tree.Size() == w.newest.Size && tree.Root() == w.newest.Root }
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the exported events: %w", err)
		}
		for e, err := range audit.ReadExport(&contextReader{ctx, f}) {
			if err != nil {
				_ = f.Close()
				return err
			}
			if e.Event.Tenant == w.t.ID() && e.Index == tree.Size() && !proven() {
				tree.Add(e.LeafHash())
				gap.Add(e.Event)
			}
		}
		_ = f.Close()
	}
	switch {
	case tree.Size() == w.size:
		w.why += fmt.Sprintf("; the exported events do not go on from event %d", w.size)
		return nil
	case proven():
		gap.Prove()
		w.why += "; the exported events are those"
	case w.newest != nil && tree.Size() >= w.newest.Size:
		w.why += "; the exported events are not those of the checkpoint"
		return nil
	default:
		w.why += fmt.Sprintf("; the exported events lead from %d to %d, and nothing proves them", w.size, tree.Size())
	}
	w.gap = gap
	return nil
}

// keepCheckpoint puts a tenant's newest checkpoint that the restored log
// continues beside it: the one that was given, or that in the backup.
func (u *unpacked) keepCheckpoint(w *outcome) error {
	if w.x.Note == nil {
		return nil
	}
	dir := filepath.Join(checkpointDir, w.t.ID().String())
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, cert := range w.x.Certificates {
		if err := u.write(in(audit.CertificateName(cert)), cert); err != nil {
			return err
		}
	}
	if w.newest == nil || !u.newer(w) {
		return nil
	}
	return u.write(in("latest"), w.x.Note)
}

// newer reports whether the checkpoint that was given is newer than that in the
// backup.
func (u *unpacked) newer(w *outcome) bool {
	note, err := audit.Exported(filepath.Join(u.dir, checkpointDir), w.t.ID())
	if err != nil || note == nil {
		return true
	}
	c, err := audit.ReadCheckpoint(note, w.t.ID())
	return err != nil || c.Size < w.newest.Size
}
