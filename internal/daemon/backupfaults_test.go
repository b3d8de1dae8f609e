package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openrms/rms/internal/backup"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// What takes the place of an empty directory belongs to whom that belonged: an
// operator who restores as root leaves a directory that the daemon can open.
func TestRestoredBelongsToTheDaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	file, _ := backUp(t, d, key, time.Time{})
	to := filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.Mkdir(to, 0o700), os.Chown(to, 4711, 4712)); err != nil {
		t.Fatal(err)
	}
	if _, err := restore(t, daemon.RestoreOptions{File: file, Identities: key.ids, DataDir: to, AcceptLoss: "a test"}); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); !ok || owner.Uid != 4711 || owner.Gid != 4712 {
			t.Errorf("%s: %+v", path, owner)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Whoever reads slowly holds up nobody: others protect and open while a piece is
// not taken, and the backup is still one state, from before.
func TestSlowReader(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	alice, bob := site.Person(t, "alice"), site.Person(t, "bob")
	c := site.Client(t, d.Addr())
	publish(t, c, alice)
	var file bytes.Buffer
	stuck, go1 := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		pieces := 0
		ended <- d.Backup(t.Context(), &rmsv1.BackupRequest{Recipients: []string{key.recipient}}, func(r *rmsv1.BackupResponse) error {
			if pieces++; pieces == 2 {
				close(stuck)
				<-go1
			}
			file.Write(r.GetData())
			return nil
		})
	}()
	<-stuck
	for range 50 {
		doc := publish(t, c, alice)
		if _, err := c.Acquire(t.Context(), bob, doc.PL, nil); err != nil {
			t.Fatal(err)
		}
	}
	// Another backup waits for its turn, and says so.
	err := d.Backup(t.Context(), &rmsv1.BackupRequest{Recipients: []string{key.recipient}}, func(*rmsv1.BackupResponse) error { return nil })
	wantOverloaded(t, err)
	close(go1)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "slow.age")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := daemon.VerifyBackup(t.Context(), path, key.ids, t.TempDir(), &out); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}

func wantOverloaded(t *testing.T, err error) {
	t.Helper()
	if vocab.ReasonOf(err) != vocab.ReasonOverloaded {
		t.Errorf("%v, want OVERLOADED", err)
	}
}

// A tenant whose records contradict its log does not keep the others from being
// saved. The operator is told that its log says nothing, and that copy does not
// restore.
func TestBackupOfADamagedTenant(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	backUp(t, d, key, time.Time{}) // a resource, whose row is then taken out
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(site.Data, "rms.db"), Stamp: store.Production, Schema: record.Schema})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Commit(t.Context(), func(tx store.Tx) error {
		for item, err := range tx.Scan("resources", store.Range{}) {
			if err != nil {
				return err
			}
			return tx.Delete("resources", item.Key)
		}
		return errors.New("test: there is no resource")
	}), s.Close()); err != nil {
		t.Fatal(err)
	}
	to, err := backup.ParseRecipients([]string{key.recipient})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	made, err := daemon.BackupStore(t.Context(), site.Data, to, time.Time{}, &file, slog.New(slog.DiscardHandler))
	if err != nil || len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], "tenant contoso is damaged, and its log says nothing of the backup") {
		t.Fatalf("%+v %v", made, err)
	}
	path := filepath.Join(t.TempDir(), "damaged.age")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := restore(t, daemon.RestoreOptions{File: path, Identities: key.ids, DataDir: filepath.Join(t.TempDir(), "data"), AcceptLoss: "a test"}); vocab.ReasonOf(err) != vocab.ReasonStoreDamaged {
		t.Errorf("restoring it: %v", err)
	}
}

// A tenant that cannot be opened, because its keyring is away, is in the backup
// and knows of it when it is back.
func TestBackupOfABrokenTenant(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	doc := publish(t, site.Client(t, d.Addr()), site.Person(t, "alice"))
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	ring := filepath.Join(site.Data, "keyring-contoso")
	if err := os.Rename(ring, ring+".away"); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(site.Config)
	if err != nil {
		t.Fatal(err)
	}
	d, err = daemon.Start(t.Context(), cfg, daemon.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	if _, end := backUp(t, d, key, time.Time{}); len(end.GetWarnings()) > 0 {
		t.Errorf("%v", end)
	}
	if err := os.Rename(ring+".away", ring); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list, err := d.ListBackups(t.Context()); err != nil || len(list.GetBackups()) != 1 || !list.GetBackups()[0].GetComplete() {
		t.Errorf("%v %v", list, err)
	}
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := site.Client(t, d.Addr()).Acquire(t.Context(), site.Person(t, "bob"), doc.PL, nil); err != nil {
		t.Error(err)
	}
}
