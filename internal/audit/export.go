package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Exporter keeps the newest checkpoint of every tenant in a file outside the
// store, as <dir>/<tenant>/latest, with the certificate of the key that signed
// it beside it as <dir>/<tenant>/<name>.cert. A store that is put back to an
// earlier state shows by it at the next start. Events of the last moments
// before a crash, at most Interval, may lie behind the newest checkpoint.
type Exporter struct {
	Log *Log
	// Dir is the directory of checkpoints, made with mode 0700 if missing.
	Dir string
	// Signer returns the key to sign the tenant's checkpoints with and the
	// signed certificate that vouches for it. An error leaves the tenant's
	// checkpoint as it is; it is tried again after Interval. No signer and no
	// error says that nobody writes this log now: its checkpoint stays as it
	// is until the log grows.
	Signer func(ctx context.Context, t vocab.TenantID) (s Signer, certificate []byte, err error)
	// Interval is the least time between two rounds of Run. 0 means a second.
	Interval time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Failed is told what Run could not export; nil means nobody.
	Failed func(t vocab.TenantID, err error)

	mu sync.Mutex // one export at a time
}

// latest is the file of the newest checkpoint.
const latest = "latest"

// Run exports the checkpoint of each tenant whose log has grown, until the
// context ends. Call [Exporter.Flush] after the last commit.
func (x *Exporter) Run(ctx context.Context) {
	interval := x.Interval
	if interval == 0 {
		interval = time.Second
	}
	for {
		select {
		case <-x.Log.wake:
		case <-ctx.Done():
			return
		}
		_ = x.round(ctx) // Failed was told, and it is tried again
		pause := time.NewTimer(interval)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// Flush exports the checkpoint of each tenant whose log has grown since its
// last, and returns what failed.
func (x *Exporter) Flush(ctx context.Context) error { return x.round(ctx) }

func (x *Exporter) round(ctx context.Context) error {
	x.Log.mu.Lock()
	var tenants []vocab.TenantID
	for t := range x.Log.dirty {
		tenants = append(tenants, t)
	}
	clear(x.Log.dirty)
	x.Log.mu.Unlock()
	slices.SortFunc(tenants, vocab.TenantID.Compare)
	var all error
	for _, t := range tenants {
		if err := x.Export(ctx, t); err != nil {
			all = errors.Join(all, err)
			x.Log.markDirty(t)
			if x.Failed != nil {
				x.Failed(t, err)
			}
		}
	}
	return all
}

// markDirty has the tenant's checkpoint exported in the next round.
func (l *Log) markDirty(t vocab.TenantID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty[t] = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Export signs a checkpoint of the tenant's log as it is now and puts it in
// place of the last one, durably. It refuses, as LOG_DAMAGED, to replace one
// that the log does not continue.
func (x *Exporter) Export(ctx context.Context, t vocab.TenantID) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now
	if x.Now != nil {
		now = x.Now
	}
	dir := filepath.Join(x.Dir, t.String())
	switch last, err := readExported(dir, t); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := x.Log.Continues(ctx, last); err != nil {
			return err
		}
	}
	c, err := x.Log.Checkpoint(ctx, t, now())
	if err != nil {
		return err
	}
	s, certificate, err := x.Signer(ctx, t)
	if err != nil || s == nil {
		return err
	}
	signed, err := c.Sign(ctx, s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return unwritable(err)
	}
	// The certificate first: a checkpoint is never without the key's proof.
	if len(certificate) > 0 {
		name := CertificateName(certificate)
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			if err := replace(dir, name, certificate); err != nil {
				return unwritable(err)
			}
		}
	}
	if err := replace(dir, latest, signed); err != nil {
		return unwritable(err)
	}
	return nil
}

// CertificateName is the name of the file that a certificate is kept in beside
// the checkpoint that its key signed.
func CertificateName(certificate []byte) string {
	sum := canon.Hash(certificate)
	return hex.EncodeToString(sum[:8]) + ".cert"
}

// CheckExported compares every checkpoint in dir with the log; call it before
// the log is used. It returns LOG_DAMAGED if the log is smaller than one, or
// not a continuation of it, or if one cannot be read. A directory that is not
// there holds none. Logs that have grown since their checkpoint are exported
// in the next round.
func (l *Log) CheckExported(ctx context.Context, dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unreadable(err)
	}
	covered := make(map[vocab.TenantID]uint64)
	for _, name := range names {
		var t vocab.TenantID
		if t.UnmarshalText([]byte(name.Name())) != nil || !name.IsDir() {
			continue // not ours
		}
		c, err := readExported(filepath.Join(dir, name.Name()), t)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the first one was never finished
		}
		if err == nil {
			err = l.Continues(ctx, c)
		}
		if err != nil {
			return err
		}
		covered[t] = c.Size
	}
	sizes, err := l.sizes(ctx)
	for t, n := range sizes {
		if n > covered[t] {
			l.markDirty(t)
		}
	}
	return err
}

// sizes returns the size of every tenant's log.
func (l *Log) sizes(ctx context.Context) (map[vocab.TenantID]uint64, error) {
	sizes := make(map[vocab.TenantID]uint64)
	err := l.store.View(ctx, func(r store.Reader) error {
		for item, err := range r.Scan(tableHeads, store.Range{}) {
			if err != nil {
				return err
			}
			if len(item.Key) != 16 {
				return damaged("a tenant of it cannot be read")
			}
			t := vocab.TenantID(item.Key)
			if sizes[t], err = size(r, t); err != nil {
				return err
			}
		}
		return nil
	})
	return sizes, err
}

// Exported returns the tenant's checkpoint in dir as it was signed, or nil if
// there is none.
func Exported(dir string, t vocab.TenantID) ([]byte, error) {
	b, err := readNote(filepath.Join(dir, t.String()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// maxCertificates is how many certificates beside a checkpoint are looked at:
// two a day, for longer than a log is likely to be written by one machine.
const maxCertificates = 20_000

// ExportedCertificates returns the signed certificates that stand beside the
// tenant's checkpoint in dir, unverified and in no order. One of them is that
// of the key that signed it.
func ExportedCertificates(dir string, t vocab.TenantID) (certificates [][]byte, err error) {
	names, err := filepath.Glob(filepath.Join(dir, t.String(), "*.cert"))
	if err != nil {
		return nil, unreadable(err)
	}
	if len(names) > maxCertificates {
		return nil, unreadable(errors.New("too many certificates"))
	}
	for _, name := range names {
		b, err := readBounded(name)
		if err != nil {
			return nil, unreadable(err)
		}
		certificates = append(certificates, b)
	}
	return certificates, nil
}

func readExported(dir string, t vocab.TenantID) (Checkpoint, error) {
	b, err := readNote(dir)
	if err != nil {
		return Checkpoint{}, err
	}
	return ReadCheckpoint(b, t)
}

func readNote(dir string) ([]byte, error) {
	b, err := readBounded(filepath.Join(dir, latest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, unreadable(err)
	}
	return b, nil
}

// readBounded reads a file; of a larger one just enough to see that it is.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxNote+1))
}

// replace puts a file in place, durably and whole or not at all.
func replace(dir, name string, content []byte) error {
	f, err := os.OpenFile(filepath.Join(dir, name+".new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func unreadable(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLogDamaged, "an exported checkpoint cannot be read").
		WithNext("Look at the permissions of the checkpoint directory").Because(cause)
}

func unwritable(cause error) *vocab.Error {
	return vocab.Errorf(vocab.ReasonStoreFull, "a checkpoint cannot be exported").
		WithNext("Look at the space and the permissions of the checkpoint directory").Because(cause)
}
