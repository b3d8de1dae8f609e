package daemon_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/backup"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// backupKey is a key that opens backups.
type backupKey struct {
	recipient string
	ids       *backup.Identities
}

func newBackupKey(t *testing.T) backupKey {
	t.Helper()
	file, recipient, _, err := backup.Keygen()
	if err != nil {
		t.Fatal(err)
	}
	ids, err := backup.ReadIdentities(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	return backupKey{recipient, ids}
}

// backUp has a daemon make a backup, keeps it in a file and returns what the
// daemon said of it.
func backUp(t *testing.T, d *daemon.Daemon, key backupKey, until time.Time) (path string, end *rmsv1.BackupResponse_End) {
	t.Helper()
	var file bytes.Buffer
	req := &rmsv1.BackupRequest{Recipients: []string{key.recipient}}
	if !until.IsZero() {
		req.KeepUntil = timestamppb.New(until)
	}
	if err := d.Backup(t.Context(), req, func(r *rmsv1.BackupResponse) error {
		file.Write(r.GetData())
		if r.GetEnd() != nil {
			end = r.GetEnd()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(file.Bytes()); end.GetBytes() != int64(file.Len()) || !bytes.Equal(end.GetSha256(), sum[:]) {
		t.Fatalf("%d bytes came, it says %d", file.Len(), end.GetBytes())
	}
	path = filepath.Join(t.TempDir(), "backup.age")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, end
}

// restore restores and returns what it said.
func restore(t *testing.T, o daemon.RestoreOptions) (string, error) {
	t.Helper()
	var out strings.Builder
	o.Out, o.Log, o.Now = &out, slog.New(slog.DiscardHandler), time.Now
	err := daemon.Restore(t.Context(), o)
	return out.String(), err
}

// logOf is the size and the root of the tenant's log in a data directory, or of
// its first events if there are more than at.
func logOf(t *testing.T, dir string, at uint64) (n uint64, root [32]byte) {
	t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "rms.db"), Stamp: store.Production, Schema: record.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.View(t.Context(), func(r store.Reader) error {
		known, err := record.GetTenant(r, daemontest.Tenant)
		if err != nil {
			return err
		}
		if n, _, err = audit.Head(r, known.ID); err != nil {
			return err
		}
		tree, err := audit.TreeAt(r, known.ID, min(n, at))
		if err == nil {
			root = tree.Root()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n, root
}

// A backup that is made while many protect and open restores to a store in which
// fsck finds nothing, and whose log is a beginning of the one that went on. What
// callers were told before it began is in it.
func TestBackupUnderLoad(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	load := daemontest.StartLoad(t, site, d.Addr(), 32)
	<-load.Underway()
	var files []string
	for range 3 {
		file, end := backUp(t, d, key, time.Time{})
		if len(end.GetWarnings()) > 0 || len(end.GetTenants()) != 1 {
			t.Errorf("%v", end)
		}
		files = append(files, file)
	}
	if n := load.Turned(); n != 0 {
		t.Errorf("%d callers were turned away meanwhile", n)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	load.Wait(t, codes.Unavailable)
	var before uint64
	for i, file := range files {
		to := filepath.Join(t.TempDir(), "data")
		said, err := restore(t, daemon.RestoreOptions{File: file, Identities: key.ids, DataDir: to, AcceptLoss: "a test"})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := daemon.Fsck(t.Context(), to, false, &out); err != nil {
			t.Errorf("backup %d: %v\n%s", i, err, &out)
		}
		n, _ := logOf(t, to, 0)
		n-- // the restore itself
		_, got := logOf(t, to, n)
		all, want := logOf(t, site.Data, n)
		if got != want || n > all || n <= before {
			t.Errorf("backup %d: its %d events are not a beginning of the %d", i, n, all)
		}
		if before = n; !strings.Contains(said, "contoso: HELD") {
			t.Error(said)
		}
	}
}

// The whole way: a backup, events after it, an export of them, the loss of the
// data directory. What was revoked stays revoked.
func TestRestoreWithEvents(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	alice, bob := site.Person(t, "alice"), site.Person(t, "bob")
	c := site.Client(t, d.Addr())
	doc, kept := publish(t, c, alice), publish(t, c, alice)
	file, _ := backUp(t, d, key, time.Now().Add(90*24*time.Hour))
	if _, err := rmsv1.NewLicenseServiceClient(c.Conn).RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: doc.License, Reason: "left"}, alice.As()); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := exportOf(t, site.Data)
	old := filepath.Join(site.Dir, "old")
	if err := os.Rename(site.Data, old); err != nil {
		t.Fatal(err)
	}
	checkpoints := filepath.Join(old, "checkpoints")
	for name, o := range map[string]daemon.RestoreOptions{
		"nothing is known":            {},
		"events are missing":          {Checkpoints: checkpoints},
		"nothing proves the events":   {Events: []string{events}},
		"the events of another log":   {Checkpoints: checkpoints, Events: []string{exportOf(t, otherLog(t))}},
		"a directory with no such":    {Checkpoints: t.TempDir()},
		"checkpoints that others had": {Checkpoints: foreign(t, checkpoints)},
	} {
		o.File, o.Identities, o.DataDir = file, key.ids, site.Data
		if _, err := restore(t, o); vocab.ReasonOf(err) != vocab.ReasonLogDamaged || !strings.Contains(err.Error(), "nothing was restored") {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := filepath.Glob(site.Data + "*"); len(left) > 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
	said, err := restore(t, daemon.RestoreOptions{File: file, Identities: key.ids, DataDir: site.Data, Checkpoints: checkpoints, Events: []string{events}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "contoso: HELD") || !strings.Contains(said, "revoked") || strings.Contains(said, "not known") {
		t.Error(said)
	}
	keyring(t, old, site.Data)
	again := start(t, site, nil)
	c = site.Client(t, again.Addr())
	_, err = c.Acquire(t.Context(), bob, kept.PL, nil)
	wantReason(t, err, vocab.ReasonTenantHeld)
	_, err = c.Acquire(t.Context(), bob, doc.PL, nil)
	wantReason(t, err, vocab.ReasonLicenseRevoked)
	status, err := again.Status(t.Context())
	if err != nil || status.GetTenants()[0].GetServing() || status.GetTenants()[0].GetReason() != string(vocab.ReasonTenantHeld) {
		t.Errorf("%v %v", status, err)
	}
	sets, err := again.ListBackups(t.Context())
	if err != nil || len(sets.GetBackups()) != 1 || sets.GetBackups()[0].GetComplete() || sets.GetBackups()[0].GetKeepUntil() == nil {
		t.Errorf("%v %v", sets, err)
	}
}

// A backup that is made while the daemon is stopped, with its checkpoints: there
// is nothing to lose, and nothing is held.
func TestMove(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	alice, bob := site.Person(t, "alice"), site.Person(t, "bob")
	doc := publish(t, site.Client(t, d.Addr()), alice)
	if err := d.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	to, err := backup.ParseRecipients([]string{key.recipient})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	made, err := daemon.BackupStore(t.Context(), site.Data, to, time.Time{}, &file, slog.New(slog.DiscardHandler))
	if err != nil || made.Bytes != int64(file.Len()) {
		t.Fatalf("%+v %v", made, err)
	}
	path := filepath.Join(t.TempDir(), "moved.age")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := daemon.VerifyBackup(t.Context(), path, key.ids, t.TempDir(), &out); err != nil || !strings.Contains(out.String(), "contoso  ") {
		t.Fatalf("%v\n%s", err, &out)
	}
	old := filepath.Join(site.Dir, "old")
	if err := os.Rename(site.Data, old); err != nil {
		t.Fatal(err)
	}
	said, err := restore(t, daemon.RestoreOptions{File: path, Identities: key.ids, DataDir: site.Data, Checkpoints: filepath.Join(old, "checkpoints")})
	if err != nil || strings.Contains(said, "HELD") {
		t.Fatalf("%v\n%s", err, said)
	}
	keyring(t, old, site.Data)
	again := start(t, site, nil)
	if _, err := site.Client(t, again.Addr()).Acquire(t.Context(), bob, doc.PL, nil); err != nil {
		t.Error(err)
	}
	if err := filepath.WalkDir(site.Data, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && info.Mode()&fs.ModeSocket == 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Whatever is wrong with a backup, nothing stands where the data directory would.
func TestRestoreRefuses(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	publish(t, site.Client(t, d.Addr()), site.Person(t, "alice"))
	file, _ := backUp(t, d, key, time.Time{})
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(good)
	changed[len(changed)/2] ^= 1
	full := filepath.Join(t.TempDir(), "full")
	if err := os.MkdirAll(filepath.Join(full, "something"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file   []byte
		ids    *backup.Identities
		to     string
		reason vocab.Reason
	}{
		"another identity":  {good, newBackupKey(t).ids, "", vocab.ReasonConfigurationInvalid},
		"cut":               {good[:len(good)-20], key.ids, "", vocab.ReasonStoreDamaged},
		"a bit changed":     {changed, key.ids, "", vocab.ReasonStoreDamaged},
		"no backup":         {[]byte("hello"), key.ids, "", vocab.ReasonStoreDamaged},
		"a newer schema":    {remade(t, key, func(m *backup.Manifest) { m.Schema = record.Schema.Version + 1 }), key.ids, "", vocab.ReasonStoreNewer},
		"not a store":       {remade(t, key, func(*backup.Manifest) {}), key.ids, "", vocab.ReasonStoreDamaged},
		"a place with more": {good, key.ids, full, vocab.ReasonConfigurationInvalid},
	} {
		path := filepath.Join(t.TempDir(), "b.age")
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		to := c.to
		if to == "" {
			to = filepath.Join(t.TempDir(), "data")
		}
		_, err := restore(t, daemon.RestoreOptions{File: path, Identities: c.ids, DataDir: to, AcceptLoss: "a test"})
		if vocab.ReasonOf(err) != c.reason {
			t.Errorf("%s: %v, want %s", name, err, c.reason)
		}
		if left, _ := filepath.Glob(to + "*"); c.to == "" && len(left) > 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
}

// remade is a backup by somebody else, of something that is no store.
func remade(t *testing.T, key backupKey, change func(*backup.Manifest)) []byte {
	t.Helper()
	to, err := backup.ParseRecipients([]string{key.recipient})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := backup.NewWriter(&b, to)
	if err != nil {
		t.Fatal(err)
	}
	m := backup.Manifest{ID: vocab.NewBackupID(), Time: time.Now(), Service: "x", Schema: 1, Stamp: "production", StoreBytes: 3}
	change(&m)
	_, err = io.WriteString(writerOf(w, w.Manifest(m), w.Store()), "abc")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writerOf(w io.Writer, errs ...error) io.Writer {
	if errors.Join(errs...) != nil {
		return nil
	}
	return w
}

// What cannot be a backup leaves no trace, one that broke off stays until it is
// forgotten.
func TestBackupRequests(t *testing.T) {
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	key := newBackupKey(t)
	never := func(*rmsv1.BackupResponse) error { return errors.New("test: nothing is to be sent") }
	for name, req := range map[string]*rmsv1.BackupRequest{
		"nobody to encrypt to": {},
		"a classic recipient":  {Recipients: []string{"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}},
		"kept to the past":     {Recipients: []string{key.recipient}, KeepUntil: timestamppb.New(time.Now().Add(-time.Hour))},
	} {
		if err := d.Backup(t.Context(), req, never); vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := d.ListBackups(t.Context())
	if err != nil || len(list.GetBackups()) != 0 {
		t.Errorf("after refused requests: %v %v", list, err)
	}
	// One whose reader breaks off stays, for nobody knows what it has.
	broken := errors.New("test: broken off")
	if err := d.Backup(t.Context(), &rmsv1.BackupRequest{Recipients: []string{key.recipient}}, func(r *rmsv1.BackupResponse) error {
		if r.GetData() != nil {
			return broken
		}
		return nil
	}); !errors.Is(err, broken) {
		t.Errorf("broken off: %v", err)
	}
	if list, err = d.ListBackups(t.Context()); err != nil || len(list.GetBackups()) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	one := list.GetBackups()[0]
	for name, req := range map[string]*rmsv1.ForgetBackupRequest{
		"no ID":       {Backup: "x", Reason: "y"},
		"no reason":   {Backup: one.GetBackup(), Reason: " "},
		"not its own": {Backup: vocab.NewBackupID().String(), Reason: "y"},
	} {
		if _, err := d.ForgetBackup(t.Context(), req); err == nil {
			t.Errorf("forgetting, %s: no error", name)
		}
	}
	if done, err := d.ForgetBackup(t.Context(), &rmsv1.ForgetBackupRequest{Backup: one.GetBackup(), Reason: "broken off"}); err != nil || len(done.GetTenants()) != 1 {
		t.Errorf("%v %v", done, err)
	}
	if list, err = d.ListBackups(t.Context()); err != nil || len(list.GetBackups()) != 0 {
		t.Errorf("%v %v", list, err)
	}
}

// keyring copies what is no part of a backup.
func keyring(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"keyring-contoso", "keyring-contoso.key"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// exportOf writes the log in a data directory as rmsctl audit export does.
func exportOf(t *testing.T, dir string) string {
	t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "rms.db"), Stamp: store.Production, Schema: record.Schema})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var id vocab.TenantID
	if err := s.View(t.Context(), func(r store.Reader) error {
		known, err := record.GetTenant(r, daemontest.Tenant)
		if err == nil {
			id = known.ID
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	log := audit.New(s)
	n, err := log.Size(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "events.jsonl")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for e, err := range log.Range(t.Context(), id, 0, n) {
		if err == nil {
			_, err = io.WriteString(f, exportLine(e))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// otherLog is the data directory of another service.
func otherLog(t *testing.T) string {
	t.Helper()
	site := daemontest.NewSite(t)
	d := start(t, site, nil)
	publish(t, site.Client(t, d.Addr()), site.Person(t, "alice"))
	if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	return site.Data
}

// foreign are checkpoints that were signed by somebody else.
func foreign(t *testing.T, checkpoints string) string {
	t.Helper()
	to := t.TempDir()
	notes, err := filepath.Glob(filepath.Join(checkpoints, "*", "latest"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("%v %v", notes, err)
	}
	dir := filepath.Join(to, filepath.Base(filepath.Dir(notes[0])))
	b, err := os.ReadFile(notes[0])
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "latest"), b, 0o600) // without the certificate
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func exportLine(e audit.Entry) string {
	return fmt.Sprintf(`{"index":%d,"leaf":%q}`+"\n", e.Index, base64.StdEncoding.EncodeToString(e.Leaf))
}
