package rmsctl

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPrivateFolder(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	base := t.TempDir()
	t.Setenv("TMPDIR", base)
	p, err := newPrivateFolder(1)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(p.path)
	if err != nil || st.Mode().Perm() != 0o700 || filepath.Dir(p.path) != base {
		t.Errorf("%s: %v, %v", p.path, st.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(p.path, "clear.txt"), []byte("test value"), 0o600); err != nil {
		t.Fatal(err)
	}

	// One that is in use is left alone by others.
	q, err := newPrivateFolder(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(p.path, "clear.txt")); err != nil {
		t.Errorf("a folder in use was swept: %v", err)
	}
	if err := q.remove(); err != nil {
		t.Error(err)
	}
	// One whose process is gone, as its lock tells, is removed.
	if err := p.lock.Close(); err != nil {
		t.Fatal(err)
	}
	q, err = newPrivateFolder(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(p.path); !os.IsNotExist(err) {
		t.Errorf("what a killed run left is still there: %v", err)
	}
	if err := q.remove(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(base, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Nothing but what this program made itself is swept.
func TestSweepLeavesOthersAlone(t *testing.T) {
	base := t.TempDir()
	victim := filepath.Join(base, "victim")
	for _, dir := range []string{victim, filepath.Join(base, privatePrefix+"nolock")} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(victim, lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(base, privatePrefix+"link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, privatePrefix+"file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := filepath.Glob(filepath.Join(base, "*"))
	sweep(base)
	if after, _ := filepath.Glob(filepath.Join(base, "*")); len(after) != len(before) {
		t.Errorf("before %v, after %v", before, after)
	}
	if _, err := os.Stat(filepath.Join(victim, lockName)); err != nil {
		t.Error(err)
	}
}

func TestShowRunsTheProgramOnTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a name; with $chars")
	if err := os.WriteFile(file, []byte("test value"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		with, want string
		exit       int
	}{
		{"cat", "test value", 0},
		{"head -c 4", "test", 0},
		{"false", "", exitInternal},
		{"no-such-program-of-mine", "", exitUsage},
		{" ", "", exitUsage},
		{"", "", exitUsage}, // no terminal here
	} {
		var out bytes.Buffer
		a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out}
		p, err := a.chooseProgram(tt.with, "text/plain")
		if err == nil {
			err = a.show(t.Context(), p, file)
		}
		exit := 0
		if err != nil {
			exit = describe(err).Exit
		}
		if out.String() != tt.want || exit != tt.exit {
			t.Errorf("--with %q: exit %d, printed %q, %v", tt.with, exit, out.String(), err)
		}
	}
}

// A signal that ends the command ends the program first.
func TestShowEndsTheProgramOnSignals(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	a := &app{stdin: strings.NewReader(""), stdout: writer, stderr: writer}
	done := make(chan error, 1)
	script := filepath.Join(t.TempDir(), "wait")
	// It says that it runs, and then waits for the end.
	if err := os.WriteFile(script, []byte("echo started; exec sleep 600\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() { done <- a.show(t.Context(), &program{args: []string{"sh"}}, script) }()
	started := make([]byte, 8)
	if _, err := reader.Read(started); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("show returned %v", err)
	}
	_ = writer.Close()
}
