package faults_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	unix "syscall"
	"testing"

	"github.com/openrms/rms/internal/backup"
	"github.com/openrms/rms/internal/daemon/daemontest"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// tool is a run of rmsd that strace does something to.
type tool struct {
	t      *testing.T
	binary string
	dir    string
}

// run runs rmsd with an injected fault, and reports how it ended.
func (x *tool) run(inject string, args ...string) (killed bool, code int, said string) {
	x.t.Helper()
	trace := filepath.Join(x.dir, "trace")
	// With a filter in the kernel, strace injects no signal but at the first call.
	prefix := slices.DeleteFunc(straceCommand(x.t, trace, "-e", "trace="+strings.SplitN(inject, ":", 2)[0], "-e", "inject="+inject), func(s string) bool { return s == "--seccomp-bpf" })
	cmd := exec.CommandContext(x.t.Context(), prefix[0], append(append(prefix[1:], x.binary), args...)...)
	// The count of a fault is of each thread: with one at work it is of all.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	exit, isExit := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return false, 0, string(out)
	case !isExit:
		x.t.Fatalf("%v\n%s", err, out)
	}
	status, _ := exit.Sys().(unix.WaitStatus)
	return status.Signaled(), status.ExitStatus(), string(out)
}

// must runs rmsd, which must succeed.
func (x *tool) must(args ...string) string {
	x.t.Helper()
	out, err := exec.CommandContext(x.t.Context(), x.binary, args...).CombinedOutput()
	if err != nil {
		x.t.Fatalf("rmsd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// saving is a daemon that serves, with something in its store, and a key.
func saving(t *testing.T) (x *tool, site *rmsdtest.Site, key, recipients string) {
	t.Helper()
	x = &tool{t: t, binary: rmsdtest.Build(t, ""), dir: t.TempDir()}
	site = rmsdtest.New(t, rmsdtest.Embedded)
	site.Start(t, x.binary).AwaitServing(t)
	alice := site.Caller(t, "alice")
	defer alice.Close()
	for range 20 {
		if r := alice.Publish(t.Context(), ""); r.Outcome != rmsdtest.Received {
			t.Fatalf("%+v", r)
		}
	}
	key, recipients = filepath.Join(x.dir, "key"), filepath.Join(x.dir, "recipients")
	recipient, err := exec.CommandContext(t.Context(), x.binary, "backup", "keygen", "-o", key).Output()
	if err == nil {
		err = os.WriteFile(recipients, recipient, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x, site, key, recipients
}

// TestBackupKilled ends rmsd backup with SIGKILL at every step that matters: its
// writes, the sync, the moment before and after the file gets its name. What
// stands under the name is a whole backup or nothing, and every copy that may
// exist is in the log.
func TestBackupKilled(t *testing.T) {
	x, site, key, recipients := saving(t)
	kills, whole := 0, 0
	for _, call := range []string{"write", "fsync", "linkat", "unlinkat"} {
		for n := 1; n <= 24; n += 1 + n/6 {
			file := filepath.Join(x.dir, fmt.Sprintf("%s-%d.age", call, n))
			killed, code, said := x.run(fmt.Sprintf("%s:signal=SIGKILL:when=%d", call, n), "backup", "-c", site.Config, "-o", file, "--recipient", recipients)
			if !killed && code != 0 {
				t.Fatalf("%s %d: exit %d\n%s", call, n, code, said)
			}
			if _, err := os.Stat(file); err == nil {
				whole++
				x.must("backup", "verify", file, "--identity", key, "--tmp", x.dir)
			} else if !killed {
				t.Errorf("%s %d: it ended with success and left no file\n%s", call, n, said)
			}
			if killed {
				kills++
			}
		}
	}
	if kills < 10 || whole < 4 {
		t.Errorf("%d kills and %d whole files: the steps were not met", kills, whole)
	}
	if n := strings.Count(x.must("backup", "list", "-c", site.Config), "contoso"); n < whole {
		t.Errorf("the log knows %d backups, there are %d files", n, whole)
	}
	t.Logf("%d kills, %d whole backups", kills, whole)
}

// TestBackupOnAFullDisk refuses the writes of rmsd backup: it fails, says why,
// and leaves nothing that looks like a backup.
func TestBackupOnAFullDisk(t *testing.T) {
	x, site, _, recipients := saving(t)
	for _, fault := range []string{"fsync:error=ENOSPC:when=1", "fsync:error=EIO:when=1", "linkat:error=EIO:when=1"} {
		file := filepath.Join(x.dir, "full.age")
		_, code, said := x.run(fault, "backup", "-c", site.Config, "-o", file, "--recipient", recipients)
		if strings.HasPrefix(fault, "linkat") {
			// A file system without links gets a rename.
			if code != 0 {
				t.Errorf("%s: exit %d\n%s", fault, code, said)
			}
			if err := os.Remove(file); err != nil {
				t.Error(err)
			}
			continue
		}
		if code == 0 || strings.Contains(fault, "ENOSPC") && !strings.Contains(said, "no room") {
			t.Errorf("%s: exit %d\n%s", fault, code, said)
		}
		if left, _ := filepath.Glob(filepath.Join(x.dir, "*full.age*")); len(left) > 0 {
			t.Errorf("%s left %v", fault, left)
		}
		if left, _ := filepath.Glob(filepath.Join(x.dir, ".full.age*")); len(left) > 0 {
			t.Errorf("%s left %v", fault, left)
		}
	}
}

// TestRestoreKilled ends rmsd restore with SIGKILL at every step: the data
// directory is not there, or it is whole.
func TestRestoreKilled(t *testing.T) {
	x, site, key, recipients := saving(t)
	file := filepath.Join(x.dir, "backup.age")
	x.must("backup", "-c", site.Config, "-o", file, "--recipient", recipients)
	kills, whole := 0, 0
	for _, call := range []string{"write", "fsync", "fdatasync", "pwrite64", "renameat", "mkdirat", "unlinkat"} {
		for n := 1; n <= 24; n += 1 + n/6 {
			parent := filepath.Join(x.dir, fmt.Sprintf("%s-%d", call, n))
			if err := os.Mkdir(parent, 0o700); err != nil {
				t.Fatal(err)
			}
			data := filepath.Join(parent, "data")
			killed, code, said := x.run(fmt.Sprintf("%s:signal=SIGKILL:when=%d", call, n),
				"restore", file, "--identity", key, "--data", data, "--accept-loss", "a test")
			if !killed && code != 0 {
				t.Fatalf("%s %d: exit %d\n%s", call, n, code, said)
			}
			if _, err := os.Stat(data); err == nil {
				whole++
				if said := x.must("fsck", "--data", data); !strings.Contains(said, " 0 problems") {
					t.Errorf("%s %d: %s", call, n, said)
				}
			} else if !killed {
				t.Errorf("%s %d: it ended with success and left no directory\n%s", call, n, said)
			}
			if killed {
				kills++
			}
		}
	}
	if kills < 20 || whole < 5 {
		t.Errorf("%d kills and %d whole directories: the steps were not met", kills, whole)
	}
	t.Logf("%d kills, %d whole directories", kills, whole)
}

// TestRestoreOnAFullDisk refuses the writes of rmsd restore: nothing is left.
func TestRestoreOnAFullDisk(t *testing.T) {
	x, site, key, recipients := saving(t)
	file := filepath.Join(x.dir, "backup.age")
	x.must("backup", "-c", site.Config, "-o", file, "--recipient", recipients)
	data := filepath.Join(x.dir, "data")
	for _, fault := range []string{"fsync:error=ENOSPC:when=1", "fdatasync:error=ENOSPC:when=1", "pwrite64:error=ENOSPC:when=1", "renameat:error=EIO:when=1"} {
		_, code, said := x.run(fault, "restore", file, "--identity", key, "--data", data, "--accept-loss", "a test")
		if code == 0 {
			t.Errorf("%s: it succeeded\n%s", fault, said)
		}
		if left, _ := filepath.Glob(data + "*"); len(left) > 0 {
			t.Errorf("%s left %v", fault, left)
		}
	}
}

// TestDaemonKilledDuringBackup ends the daemon with SIGKILL once the first piece
// of a backup is out: whoever took it can tell that it is none, and the log has
// it all the same, for nobody knows how far it came.
func TestDaemonKilledDuringBackup(t *testing.T) {
	binary := rmsdtest.Build(t, "")
	site := rmsdtest.New(t, rmsdtest.Embedded)
	p := site.Start(t, binary)
	p.AwaitServing(t)
	conn, err := daemontest.DialSocket(filepath.Join(site.Dir, "operator.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, recipient, _, err := backup.Keygen()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := rmsv1.NewOperatorServiceClient(conn).Backup(t.Context(), &rmsv1.BackupRequest{Recipients: []string{recipient}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetBegin() == nil {
		t.Fatalf("%v %v", first, err)
	}
	p.Kill()
	ended := false
	for err == nil {
		var r *rmsv1.BackupResponse
		if r, err = stream.Recv(); err == nil {
			ended = r.GetEnd() != nil
		}
	}
	if errors.Is(err, io.EOF) != ended {
		t.Errorf("the stream ended with %v, its last piece came: %v", err, ended)
	}
	p = site.Start(t, binary)
	p.AwaitServing(t)
	again, err := daemontest.DialSocket(filepath.Join(site.Dir, "operator.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	list, err := rmsv1.NewOperatorServiceClient(again).ListBackups(t.Context(), &rmsv1.ListBackupsRequest{})
	if err != nil || len(list.GetBackups()) != 1 || list.GetBackups()[0].GetBackup() != first.GetBegin().GetBackup() {
		t.Errorf("%v %v", list, err)
	}
}
