package daemon

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/backup"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

const (
	// pieceSize is how many bytes of a backup one message carries.
	pieceSize = 256 << 10
	// patience is how long a backup waits for its reader to take a piece. A
	// snapshot costs room while it is held.
	patience = 30 * time.Second
)

// keeper returns what makes backups of the daemon's store.
func (d *Daemon) keeper() *keeper {
	return &keeper{
		store: d.store, log: d.log, checkpoints: filepath.Join(d.cfg.DataDir, checkpointDir), logger: d.opts.Log, now: d.opts.Now, served: d.tenants.byID,
		opening: &d.reloading,
	}
}

// backingUp lets one backup, or one change of what is known of them, go on at a
// time.
func (d *Daemon) backingUp() (done func(), err error) {
	if !d.backups.TryLock() {
		return nil, vocab.Errorf(vocab.ReasonOverloaded, "another backup goes on").WithNext("Try again when it is done")
	}
	return d.backups.Unlock, nil
}

// Backup implements [server.Host].
func (d *Daemon) Backup(ctx context.Context, req *rmsv1.BackupRequest, send func(*rmsv1.BackupResponse) error) error {
	to, err := backup.ParseRecipients(req.GetRecipients())
	if err != nil {
		return err
	}
	var until time.Time
	if req.GetKeepUntil() != nil {
		if until = req.GetKeepUntil().AsTime(); !until.After(d.opts.Now()) {
			return vocab.Errorf(vocab.ReasonRequestInvalid, "a backup is kept until some time in the future")
		}
	}
	done, err := d.backingUp()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := newPaced(ctx, send, patience)
	defer p.abandon()
	file := bufio.NewWriterSize(p, pieceSize)
	m, err := d.keeper().write(ctx, to, until, file, func(id vocab.BackupID, about int64) error {
		return p.put(&rmsv1.BackupResponse{Piece: &rmsv1.BackupResponse_Begin_{Begin: &rmsv1.BackupResponse_Begin{Backup: id.String(), AboutBytes: about}}})
	})
	if err != nil {
		return err
	}
	// Before the log is told that it is whole the bytes were only counted, and
	// the last of them are still here.
	if err := file.Flush(); err != nil {
		return err
	}
	if err := p.put(&rmsv1.BackupResponse{Piece: &rmsv1.BackupResponse_End_{End: &rmsv1.BackupResponse_End{
		Sha256: m.sha256[:], Bytes: m.bytes, Tenants: m.tenants, Warnings: m.warnings,
	}}}); err != nil {
		return err
	}
	d.opts.Log.Info("a backup was made", "backup", m.id.String(), "bytes", m.bytes, "warnings", len(m.warnings))
	return p.finish()
}

// ListBackups implements [server.Host].
func (d *Daemon) ListBackups(ctx context.Context) (*rmsv1.ListBackupsResponse, error) {
	return d.keeper().list(ctx)
}

func (k *keeper) list(ctx context.Context) (*rmsv1.ListBackupsResponse, error) {
	out := &rmsv1.ListBackupsResponse{}
	err := k.each(ctx, func(line string) { out.Warnings = append(out.Warnings, line) }, func(_ vocab.TenantID, name string, r registrar) error {
		sets, err := r.Backups(ctx)
		for i := range sets {
			out.Backups = append(out.Backups, protoSet(name, &sets[i]))
		}
		return err
	})
	slices.SortStableFunc(out.GetBackups(), func(a, b *rmsv1.BackupSet) int { return strings.Compare(b.GetBackup(), a.GetBackup()) })
	return out, err
}

func protoSet(name string, s *tenant.BackupSet) *rmsv1.BackupSet {
	out := &rmsv1.BackupSet{
		Backup: s.ID.String(), Tenant: "tenants/" + name, CreateTime: timestamppb.New(s.Created.Time()), Complete: s.Complete == 1,
		LogSize: int64(s.LogSize), Sha256: bytes.Clone(s.SHA256), Bytes: int64(s.Bytes), Recipients: s.Recipients,
	}
	if s.KeepUntil != 0 {
		out.KeepUntil = timestamppb.New(s.KeepUntil.Time())
	}
	for _, v := range s.Needs.Versions {
		out.KeyVersions = append(out.KeyVersions, versionWord(v))
	}
	for _, g := range s.Needs.Generations {
		out.Generations = append(out.Generations, generationWord(g))
	}
	return out
}

// ForgetBackup implements [server.Host].
func (d *Daemon) ForgetBackup(ctx context.Context, req *rmsv1.ForgetBackupRequest) (*rmsv1.ForgetBackupResponse, error) {
	done, err := d.backingUp()
	if err != nil {
		return nil, err
	}
	defer done()
	return d.keeper().forget(ctx, req.GetBackup(), req.GetReason())
}

func (k *keeper) forget(ctx context.Context, word, reason string) (*rmsv1.ForgetBackupResponse, error) {
	id, err := vocab.ParseBackupID(strings.TrimSpace(word))
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "%q is not the ID of a backup", word).WithNext("See: rmsd backup list")
	}
	if strings.TrimSpace(reason) == "" {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "why the backup is no more has to be said").WithNext("Add --reason")
	}
	out := &rmsv1.ForgetBackupResponse{}
	var missing error
	err = k.each(ctx, func(string) {}, func(_ vocab.TenantID, name string, r registrar) error {
		err := r.ForgetBackup(ctx, id, reason)
		if vocab.ReasonOf(err) == vocab.ReasonResourceNotFound {
			missing = err
			return nil
		}
		if err == nil {
			out.Tenants = append(out.Tenants, "tenants/"+name)
		}
		return err
	})
	if err == nil && len(out.GetTenants()) == 0 {
		err = missing
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ListBackupsOf is ListBackups for a data directory that no daemon serves.
func ListBackupsOf(ctx context.Context, dir string, log *slog.Logger) (*rmsv1.ListBackupsResponse, error) {
	k, done, err := openKeeper(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	defer done() //nolint:errcheck // it was only read
	return k.list(ctx)
}

// ForgetBackupOf is ForgetBackup for a data directory that no daemon serves.
func ForgetBackupOf(ctx context.Context, dir, id, reason string, log *slog.Logger) (out *rmsv1.ForgetBackupResponse, err error) {
	k, done, err := openKeeper(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	out, err = k.forget(ctx, id, reason)
	if closed := done(); err == nil {
		err = closed
	}
	return out, err
}

// paced sends pieces on a goroutine of its own and gives up when one is not
// taken in time: whoever reads slowly must not keep a snapshot for ever.
type paced struct {
	ctx      context.Context
	pieces   chan *rmsv1.BackupResponse
	sent     chan error // the outcome, once the pieces have ended or one failed
	patience time.Duration
	closed   bool
}

func newPaced(ctx context.Context, send func(*rmsv1.BackupResponse) error, patience time.Duration) *paced {
	p := &paced{ctx: ctx, pieces: make(chan *rmsv1.BackupResponse), sent: make(chan error, 1), patience: patience}
	go func() {
		for m := range p.pieces {
			if err := send(m); err != nil {
				p.sent <- err
				return
			}
		}
		p.sent <- nil
	}()
	return p
}

// Write sends bytes of the file.
func (p *paced) Write(b []byte) (int, error) {
	if err := p.put(&rmsv1.BackupResponse{Piece: &rmsv1.BackupResponse_Data{Data: bytes.Clone(b)}}); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *paced) put(m *rmsv1.BackupResponse) error {
	timer := time.NewTimer(p.patience)
	defer timer.Stop()
	select {
	case p.pieces <- m:
		return nil
	case err := <-p.sent:
		p.sent <- err
		return err
	case <-timer.C:
		return notTaken(p.patience)
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// finish waits until everything was taken.
func (p *paced) finish() error {
	p.abandon()
	timer := time.NewTimer(p.patience)
	defer timer.Stop()
	select {
	case err := <-p.sent:
		return err
	case <-timer.C:
		return notTaken(p.patience)
	}
}

// abandon ends the sending after what was put.
func (p *paced) abandon() {
	if !p.closed {
		p.closed = true
		close(p.pieces)
	}
}

func notTaken(d time.Duration) error {
	return vocab.Errorf(vocab.ReasonOverloaded, "nobody took the next piece of the backup for %s", d).
		WithNext("Write it to a faster disk; what was written is no backup")
}
