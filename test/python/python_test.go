// Package python_test holds the Python examples to the service: stubs made
// from the committed contract by Debian's protoc, run by Debian's Python with
// Debian's packages against a whole daemon, and files exchanged both ways with
// the Go SDK and rmsctl. No line of the SDK runs in what the examples do.
package python_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/rmsctl"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// python is Debian's own: another one on the PATH may lack its packages.
const python = "/usr/bin/python3"

const examples = "../../examples/python"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// need skips where the programs are not there, except in CI, which installs
// them.
func need(t *testing.T) {
	t.Helper()
	missing := func(what string) {
		t.Helper()
		what += "; apt-get install protobuf-compiler protobuf-compiler-grpc libprotobuf-dev python3-protobuf python3-grpcio python3-cryptography"
		if os.Getenv("CI") != "" {
			t.Fatal(what)
		}
		t.Skip("the Python client was not tested: " + what)
	}
	for _, program := range []string{python, "protoc", "grpc_python_plugin"} {
		if _, err := exec.LookPath(program); err != nil {
			missing("there is no " + program)
		}
	}
	if out, err := exec.Command(python, "-c", "import grpc, cryptography, google.protobuf").CombinedOutput(); err != nil {
		missing("a module is missing: " + string(out))
	}
}

// world is a daemon and the stubs for its contract.
type world struct {
	*rmstest.Service
	stubs string
	dir   string
	env   []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	need(t)
	w := &world{stubs: t.TempDir(), dir: t.TempDir()}
	if out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(examples, "stubs.sh"), w.stubs).CombinedOutput(); err != nil {
		t.Fatalf("stubs: %v\n%s", err, out)
	}
	w.Service = rmstest.Start(t)
	root := w.Trust().RootKeyIDs[0]
	w.env = []string{
		"PYTHONPATH=" + w.stubs, "PYTHONDONTWRITEBYTECODE=1", "RMS_SERVER=" + w.Address(), "RMS_CA=" + w.CAFile(),
		"RMS_TENANT=" + w.Tenant(), "RMS_ROOT=" + hex.EncodeToString(root[:]),
	}
	return w
}

// set changes settings of the tenant, as alice.
func (w *world) set(t *testing.T, s *rmsv1.Settings, paths ...string) {
	t.Helper()
	s.Name, s.Etag = "tenants/contoso/settings", "*"
	if _, err := w.Client("alice").Policy().UpdateSettings(t.Context(), &rmsv1.UpdateSettingsRequest{
		Settings: s, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
	}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) allowX25519(t *testing.T) {
	t.Helper()
	w.set(t, &rmsv1.Settings{AllowX25519: true}, "allow_x25519")
}

// file writes a file of the test's own.
func (w *world) file(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// result is what a program did.
type result struct {
	out, talk string
	exit      int
}

// run runs an example.
func (w *world) run(t *testing.T, env []string, stdin []byte, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	args[0] = filepath.Join(examples, args[0])
	c := exec.CommandContext(ctx, python, args...)
	c.Env = append(append(os.Environ(), w.env...), env...)
	c.Stdin = bytes.NewReader(stdin)
	var out, talk bytes.Buffer
	c.Stdout, c.Stderr = &out, &talk
	err := c.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	return result{out.String(), talk.String(), c.ProcessState.ExitCode()}
}

// client runs client.py as a person.
func (w *world) client(t *testing.T, who string, args ...string) result {
	t.Helper()
	token := w.file(t, "token-"+who, []byte(w.Token(who)))
	return w.run(t, []string{"RMS_TOKEN_FILE=" + token}, nil, append([]string{"client.py"}, args...)...)
}

func (r result) done(t *testing.T) result {
	t.Helper()
	if r.exit != 0 {
		t.Fatalf("exit %d: %s", r.exit, r.talk)
	}
	return r
}

var refusal = regexp.MustCompile(`^refused: .* ([A-Z][A-Z0-9_]+) ([0-9a-f-]{36}|)\n$`)

// refused checks that a program was refused with a reason, and that the event
// it names is in the log with that reason.
func (w *world) refused(t *testing.T, r result, reason string) {
	t.Helper()
	m := refusal.FindStringSubmatch(r.talk)
	if r.exit != 3 || m == nil || m[1] != reason {
		t.Fatalf("exit %d, want 3 with %s: %s%s", r.exit, reason, r.out, r.talk)
	}
	if m[2] == "" {
		t.Fatalf("no event: %s", r.talk)
	}
	e, err := w.Client("erin").Audit().GetEvent(t.Context(), &rmsv1.GetEventRequest{Name: "tenants/contoso/events/" + m[2]})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.GetOutcome(); got != reason {
		t.Errorf("event %s says %s", m[2], got)
	}
}

func (w *world) absent(t *testing.T, path string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(w.dir, "tmp*"))
	if _, statErr := os.Stat(path); !errors.Is(statErr, os.ErrNotExist) || err != nil || len(left) > 0 {
		t.Errorf("a file was left: %s %v", path, left)
	}
}

// content returns size bytes that do not repeat.
func content(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(b)
	return b
}

// sizes are around where the segments of a stream end.
var sizes = map[string]int{
	"empty": 0, "small": 1331, "one segment": 1<<20 - 56, "one segment and a byte": 1<<20 - 55,
	"two segments": 2<<20 - 72, "three and a half": 7 << 19,
}

func TestPythonWritesGoReads(t *testing.T) {
	w := newWorld(t)
	w.allowX25519(t)
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			plain := content(size)
			path := w.file(t, strings.ReplaceAll(name, " ", "-")+".bin", plain)
			w.client(t, "alice", "protect", path, "finance-internal").done(t)
			file, err := os.ReadFile(path + ".rms")
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			d, err := w.Client("alice").Unprotect(t.Context(), &out, bytes.NewReader(file), int64(len(file)))
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if !bytes.Equal(out.Bytes(), plain) || d.Name != filepath.Base(path) {
				t.Errorf("%q with %d bytes came back", d.Name, out.Len())
			}
		})
	}
	t.Run("with rmsctl", func(t *testing.T) {
		t.Setenv("RMS_CONFIG_DIR", w.ContextsDir())
		plain := content(2000)
		path := w.file(t, "report.pdf", plain)
		w.client(t, "alice", "protect", path, "finance-internal").done(t)
		out := filepath.Join(w.dir, "report-again.pdf")
		var stdout, stderr bytes.Buffer
		if exit := rmsctl.Run([]string{"-c", "dev-alice", "unprotect", path + ".rms", "-o", out}, strings.NewReader(""), &stdout, &stderr); exit != 0 {
			t.Fatalf("exit %d: %s", exit, stderr.String())
		}
		if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, plain) {
			t.Errorf("%d bytes came back, %v", len(b), err)
		}
		stdout.Reset()
		if exit := rmsctl.Run([]string{"-c", "dev-bob", "open", path + ".rms", "--with", "cat"}, strings.NewReader(""), &stdout, &stderr); exit != 0 {
			t.Fatalf("exit %d: %s", exit, stderr.String())
		}
		if !bytes.Equal(stdout.Bytes(), plain) {
			t.Errorf("%d bytes came back", stdout.Len())
		}
	})
}

// protect has the SDK write a file.
func (w *world) protect(t *testing.T, name string, plain []byte) string {
	t.Helper()
	var out bytes.Buffer
	if _, err := w.Client("alice").Protect(t.Context(), &out, bytes.NewReader(plain), rms.ProtectOptions{Template: "finance-internal", Name: name}); err != nil {
		t.Fatal(err)
	}
	return w.file(t, name+".rms", out.Bytes())
}

func TestGoWritesPythonReads(t *testing.T) {
	w := newWorld(t)
	w.allowX25519(t)
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			plain := content(size)
			original := strings.ReplaceAll(name, " ", "-") + ".bin"
			path := w.protect(t, original, plain)
			out := filepath.Join(w.dir, "clear-"+original)
			r := w.client(t, "alice", "unprotect", path, out).done(t)
			if !strings.HasPrefix(r.out, original+" ") {
				t.Errorf("name: %q", r.out)
			}
			if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, plain) {
				t.Errorf("%d bytes came back, %v", len(b), err)
			}
		})
	}
}

func TestPythonIsRefused(t *testing.T) {
	w := newWorld(t)
	plain := content(100)
	path := w.protect(t, "report.txt", plain)
	out := filepath.Join(w.dir, "clear.txt")

	r := w.client(t, "alice", "unprotect", path, out)
	if r.exit != 3 || !strings.Contains(r.talk, "SUITE_UNSUPPORTED") {
		t.Errorf("before the tenant allowed X25519: exit %d, %s", r.exit, r.talk)
	}
	w.allowX25519(t)
	w.refused(t, w.client(t, "mallory", "unprotect", path, out), "NO_RIGHTS")
	w.refused(t, w.client(t, "bob", "unprotect", path, out), "RIGHT_NOT_GRANTED")
	w.absent(t, out)
	w.client(t, "alice", "unprotect", path, out).done(t)
	if r := w.client(t, "alice", "unprotect", path, out); r.exit != 1 || !strings.Contains(r.talk, "File exists") {
		t.Errorf("over a file that is there: exit %d, %s", r.exit, r.talk)
	}
}

// What was changed is refused by the program itself, before it asks where it
// can see it, and leaves nothing behind.
func TestPythonRejects(t *testing.T) {
	w := newWorld(t)
	w.allowX25519(t)
	path := w.protect(t, "two-segments.bin", content(3<<19))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(w.protect(t, "other.bin", content(10)))
	if err != nil {
		t.Fatal(err)
	}
	flipped := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	spliced := append(bytes.Clone(good[:80]), other[80:]...)
	meta := 96 + int(good[87])
	for name, b := range map[string][]byte{
		"magic": flipped(0), "tenant": flipped(16), "content ID": flipped(47), "commitment": flipped(50), "offset": flipped(82),
		"metadata": flipped(100), "license": flipped(meta + 300), "signature": flipped(meta + len(bytes.TrimRight(good[meta:8192], "\x00")) - 1),
		"padding": flipped(8191), "stream header": flipped(8192), "salt": flipped(8200), "first segment": flipped(9000),
		"last segment": flipped(len(good) - 1), "cut": good[:len(good)-1], "cut between segments": good[:8192+1<<20],
		"appended": append(bytes.Clone(good), 0), "another license and content": spliced, "empty": nil, "header only": good[:96],
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(w.dir, "clear.bin")
			r := w.client(t, "alice", "unprotect", w.file(t, "bad.rms", b), out)
			if r.exit != 8 || !strings.HasPrefix(r.talk, "rejected: ") || strings.Contains(r.talk, "Traceback") {
				t.Errorf("exit %d: %s%s", r.exit, r.out, r.talk)
			}
			w.absent(t, out)
		})
	}
	t.Run("another root", func(t *testing.T) {
		w.env = append(w.env, "RMS_ROOT="+strings.Repeat("00", 32))
		out := filepath.Join(w.dir, "clear.bin")
		if r := w.client(t, "alice", "unprotect", path, out); r.exit != 8 {
			t.Errorf("exit %d: %s", r.exit, r.talk)
		}
		if r := w.client(t, "alice", "protect", path, "finance-internal"); r.exit != 8 {
			t.Errorf("exit %d: %s", r.exit, r.talk)
		}
		w.absent(t, out)
	})
}

// A service without our file format and without a sealed key.
func TestPythonOneCallEachWay(t *testing.T) {
	w := newWorld(t)
	cert, key := w.ServiceCertificate()
	env := []string{"RMS_CERT=" + cert, "RMS_KEY=" + key}
	seal := func() result {
		return w.run(t, env, []byte("the row"), "one_call.py", "seal", "user:alice@contoso.test", "finance-internal")
	}
	w.refused(t, seal(), "CLEAR_KEY_NOT_ALLOWED")

	w.set(t, &rmsv1.Settings{ClearKeys: rmsv1.Settings_CLEAR_KEYS_MTLS}, "clear_keys")
	row := []byte(seal().done(t).out)
	if bytes.Contains(row, []byte("the row")) {
		t.Error("the row is in the clear")
	}
	open := func(who string) result {
		args := []string{"one_call.py", "open"}
		if who != "" {
			args = append(args, w.file(t, "token-"+who, []byte(w.Token(who))))
		}
		return w.run(t, env, row, args...)
	}
	for _, who := range []string{"", "alice", "bob"} {
		if r := open(who).done(t); r.out != "the row" {
			t.Errorf("%q opens %q", who, r.out)
		}
	}
	w.refused(t, open("mallory"), "NO_RIGHTS")

	// The template names the service. Without such a grant it cannot open what
	// it sealed, but for its users.
	row = []byte(w.run(t, env, []byte("the row"), "one_call.py", "seal", "user:alice@contoso.test", "board-secret").done(t).out)
	w.refused(t, open(""), "NO_RIGHTS")
	if r := open("alice").done(t); r.out != "the row" {
		t.Errorf("the owner opens %q", r.out)
	}
}

// After a rotation two roots sign a bundle. Whoever pinned either one follows,
// and both signatures must be good.
func TestPythonFollowsARotation(t *testing.T) {
	need(t)
	key := func(b byte) *license.DaemonKey {
		return license.DaemonKeyFromSeed(vocab.SecretFrom(bytes.Repeat([]byte{b}, 32))) // test values
	}
	tenant, before, now := vocab.NewTenantID(), key(1), key(2)
	b, err := license.SignBundle(t.Context(), license.Bundle{
		Tenant: tenant, IssuedAt: time.Now().Truncate(time.Millisecond), Seq: 7, NextUpdate: time.Now().Add(time.Hour),
		Roots: []license.Root{
			{Key: now.PublicKey(), Version: 2, State: license.RootCurrent}, {Key: before.PublicKey(), Version: 1, State: license.RootPrevious},
		},
		Suites: license.DefaultSuites(),
	}, now, before)
	if err != nil {
		t.Fatal(err)
	}
	believed := func(bundle []byte, tenant vocab.TenantID, pin *license.DaemonKey, leastSeq int) bool {
		id := license.KeyIDOf(pin.PublicKey())
		program := fmt.Sprintf(`
import sys; sys.path.insert(0, %q)
import formats, licenses
try:
    assert licenses.Trust(bytes.fromhex("%x"), bytes.fromhex("%x"), [bytes.fromhex("%x")], %d).seq == 7
except formats.Rejected as e:
    sys.exit(8)
`, examples, bundle, tenant[:], id[:], leastSeq)
		out, err := exec.CommandContext(t.Context(), python, "-B", "-c", program).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 8) {
			t.Fatalf("%v: %s", err, out)
		}
		return err == nil
	}
	first, second := bytes.Clone(b.Raw()), bytes.Clone(b.Raw())
	second[len(second)-1] ^= 1
	first[bytes.LastIndex(first, []byte{0x83, 0x58})-1] ^= 1 // ends before the second signature's array
	for name, c := range map[string]struct {
		bundle   []byte
		tenant   vocab.TenantID
		pin      *license.DaemonKey
		leastSeq int
		want     bool
	}{
		"new root pinned":      {b.Raw(), tenant, now, 1, true},
		"old root pinned":      {b.Raw(), tenant, before, 7, true},
		"neither":              {b.Raw(), tenant, key(3), 1, false},
		"newer one seen":       {b.Raw(), tenant, now, 8, false},
		"another tenant's":     {b.Raw(), vocab.NewTenantID(), now, 1, false},
		"bad first signature":  {first, tenant, now, 1, false},
		"bad second signature": {second, tenant, now, 1, false},
	} {
		if got := believed(c.bundle, c.tenant, c.pin, c.leastSeq); got != c.want {
			t.Errorf("%s: believed %v", name, got)
		}
	}
}
