package evidencetest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/license"
)

// python is Debian's own: another one on the PATH may lack its packages.
const python = "/usr/bin/python3"

// Verifiers are the service's own verifier and the independent script.
type Verifiers struct {
	tb     testing.TB
	script string // empty where it cannot run
}

// NewVerifiers returns both verifiers; script is the path of the Python one. It is
// left out, and the test says so, where Python or its package is not there, except
// in CI, which installs them.
func NewVerifiers(tb testing.TB, script string) *Verifiers {
	tb.Helper()
	if out, err := exec.CommandContext(tb.Context(), python, "-c", "import cryptography").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("%s; apt-get install python3 python3-cryptography", out)
		}
		tb.Log("the Python script was not tested; apt-get install python3 python3-cryptography")
		script = ""
	}
	return &Verifiers{tb, script}
}

// KeyID is a root's key ID as people write it.
func KeyID(id license.KeyID) string {
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(id[:])
}

// Holds fails the test unless both accept a bundle. It returns what Python
// printed.
func (v *Verifiers) Holds(b []byte, root license.KeyID, saved []byte) string {
	v.tb.Helper()
	out, talk, err := v.run(b, root, saved)
	if err != nil {
		v.tb.Fatalf("rmsctl: %v", err)
	}
	if v.script != "" && (talk != "" || !strings.Contains(out, "the evidence holds")) {
		v.tb.Fatalf("Python: %s", talk)
	}
	return out
}

// Fails fails the test unless both refuse a bundle, the service's own verifier
// with these words.
func (v *Verifiers) Fails(name string, b []byte, root license.KeyID, saved []byte, says string) {
	v.tb.Helper()
	out, talk, err := v.run(b, root, saved)
	if err == nil || !strings.Contains(err.Error(), says) {
		v.tb.Errorf("%s: rmsctl says %v, want %q", name, err, says)
	}
	if v.script != "" && (out != "" || !strings.HasPrefix(talk, "the evidence does not hold: ")) {
		v.tb.Errorf("%s: Python says %s%s", name, out, talk)
	}
}

func (v *Verifiers) run(b []byte, root license.KeyID, saved []byte) (out, talk string, err error) {
	v.tb.Helper()
	var from *audit.Checkpoint
	if saved != nil {
		if bundle, readErr := evidence.Read(b); readErr == nil {
			c, err := audit.ReadCheckpoint(saved, bundle.Tenant())
			check(v.tb, err)
			from = &c
		}
	}
	_, err = evidence.Verify(b, []license.KeyID{root}, from)
	if v.script == "" {
		return "", "", err
	}
	dir := v.tb.TempDir()
	args := []string{"-I", v.script, filepath.Join(dir, "e.zip"), KeyID(root)}
	check(v.tb, os.WriteFile(args[2], b, 0o600))
	if saved != nil {
		args = append(args, filepath.Join(dir, "saved"))
		check(v.tb, os.WriteFile(args[4], saved, 0o600))
	}
	c := exec.CommandContext(v.tb.Context(), python, args...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	runErr := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](runErr); runErr != nil && (!ok || exit.ExitCode() != 9) {
		v.tb.Fatalf("Python: %v %s", runErr, stderr.String())
	}
	return stdout.String(), stderr.String(), err
}

// Attack tries every edit of a genuine bundle on both verifiers, and everything
// that a thief of all the daemon's keys can seal.
func Attack(tb testing.TB, v *Verifiers, genuine []byte, root license.KeyID, saved []byte) {
	tb.Helper()
	f := New(tb, genuine)
	v.Holds(genuine, root, saved)
	v.Holds(f.Thief(""), f.Root(), saved)
	for _, row := range Rows(tb) {
		b, other := f.Plain(row.Edit)
		if other == (license.KeyID{}) {
			other = root
		}
		v.Fails(row.Edit, b, other, saved, row.Plain)
		switch {
		case row.Thief == nil:
		case *row.Thief == "":
			v.Holds(f.Thief(row.Edit), f.Root(), saved)
		default:
			v.Fails(row.Edit+", sealed by a thief", f.Thief(row.Edit), f.Root(), saved, *row.Thief)
		}
	}
}
