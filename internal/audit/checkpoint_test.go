package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/vocab"
)

// testSigner signs with a key made of a test seed.
type testSigner struct {
	key ed25519.PrivateKey
	err error
	bad bool
}

func newSigner(seed byte) testSigner {
	return testSigner{key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))}
}

func (s testSigner) PublicKey() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

func (s testSigner) Sign(_ context.Context, m []byte) ([]byte, error) {
	sig := ed25519.Sign(s.key, m)
	if s.bad {
		sig[0] ^= 1
	}
	return sig, s.err
}

var testCheckpoint = Checkpoint{Tenant: tenantA, Size: 184467, Root: [32]byte{1, 2, 3, 31: 4}, Time: testTime}

// The note is a format: these bytes can never change.
const vectorNote = `rms/019a8c1e-77a0-7000-8000-0000000000a0
184467
AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAQ=
time 1795338843412

— rms/019a8c1e-77a0-7000-8000-0000000000a0 rTC+ovDXVyAZ6xzJluQMVC/E6dkfdLSdtOB3TCkuY7Yyr5KZsKdKfU8rvNzed1NWfP0IAZMHIK/RFGoguzzUa65FRwI=
`

func TestCheckpointNote(t *testing.T) {
	s := newSigner(7)
	signed, err := testCheckpoint.Sign(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(vectorNote, string(signed)); diff != "" {
		t.Errorf("the note changed (-want +got):\n%s", diff)
	}
	got, err := OpenCheckpoint(signed, tenantA, newSigner(8).PublicKey(), s.PublicKey())
	if diff := cmp.Diff(testCheckpoint, got); diff != "" || err != nil {
		t.Errorf("opened: %v\n%s", err, diff)
	}
	got, err = ReadCheckpoint(signed, tenantA)
	if diff := cmp.Diff(testCheckpoint, got); diff != "" || err != nil {
		t.Errorf("read: %v\n%s", err, diff)
	}
	for name, open := range map[string]func() (Checkpoint, error){
		"another key":          func() (Checkpoint, error) { return OpenCheckpoint(signed, tenantA, newSigner(8).PublicKey()) },
		"no key":               func() (Checkpoint, error) { return OpenCheckpoint(signed, tenantA) },
		"another tenant":       func() (Checkpoint, error) { return OpenCheckpoint(signed, tenantB, s.PublicKey()) },
		"another tenant, read": func() (Checkpoint, error) { return ReadCheckpoint(signed, tenantB) },
		"nothing":              func() (Checkpoint, error) { return ReadCheckpoint(nil, tenantA) },
		"too large": func() (Checkpoint, error) {
			return OpenCheckpoint(append(bytes.Clone(signed), make([]byte, MaxNote)...), tenantA, s.PublicKey())
		},
	} {
		if _, err := open(); !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("%s: %v, want LOG_DAMAGED", name, err)
		}
	}
	for i := range signed {
		bad := bytes.Clone(signed)
		bad[i] ^= 1
		if _, err := OpenCheckpoint(bad, tenantA, s.PublicKey()); err == nil {
			t.Errorf("byte %d changed: opens", i)
		}
		if _, err := OpenCheckpoint(signed[:i], tenantA, s.PublicKey()); err == nil {
			t.Errorf("cut at %d: opens", i)
		}
	}
	if _, err := OpenCheckpoint(signed, tenantA, s.PublicKey()[:31]); !errors.Is(err, vocab.ReasonInternal) {
		t.Errorf("half a key: %v", err)
	}
}

func TestCheckpointSignerFails(t *testing.T) {
	down := errors.New("test: the signer is down")
	s := newSigner(7)
	s.err = down
	if _, err := testCheckpoint.Sign(t.Context(), s); !errors.Is(err, down) {
		t.Errorf("%v, want the signer's error", err)
	}
	s = newSigner(7)
	s.bad = true
	if _, err := testCheckpoint.Sign(t.Context(), s); !errors.Is(err, vocab.ReasonCustodyIntegrity) {
		t.Errorf("a bad signature: %v", err)
	}
}

func TestCheckpointTexts(t *testing.T) {
	good := testCheckpoint.Text()
	if _, err := parseCheckpoint(good+"a later version's line\n", tenantA); err != nil {
		t.Errorf("another line: %v", err)
	}
	for name, text := range map[string]string{
		"no lines":           "",
		"lines missing":      "rms/x\n1\n",
		"leading zero":       strings.Replace(good, "184467", "0184467", 1),
		"plus sign":          strings.Replace(good, "184467", "+184467", 1),
		"negative":           strings.Replace(good, "184467", "-1", 1),
		"size absurd":        strings.Replace(good, "184467", "18446744073709551615", 1),
		"hash short":         strings.Replace(good, "AQID", "", 1),
		"hash not canonical": strings.Replace(good, "AAQ=", "AAR=", 1),
		"time not a number":  strings.Replace(good, "time 1", "time x", 1),
		"time without word":  strings.Replace(good, "time ", "", 1),
		"time too late":      strings.Replace(good, "time ", "time 99999", 1),
		"carriage return":    strings.Replace(good, "184467\n", "184467\r\n", 1),
	} {
		if _, err := parseCheckpoint(text, tenantA); !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("%s: %v, want LOG_DAMAGED", name, err)
		}
	}
}

func FuzzReadCheckpoint(f *testing.F) {
	s := newSigner(7)
	signed, err := testCheckpoint.Sign(context.Background(), s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add([]byte{})
	f.Add(bytes.Replace(signed, []byte("184467"), []byte("0"), 1))
	f.Add(bytes.Replace(signed, []byte("time"), []byte("mite"), 1))
	f.Add(bytes.Replace(signed, []byte("184467"), []byte("0184467"), 1))
	f.Add(bytes.Replace(signed, []byte("rms/"), []byte("rmt/"), 1))
	f.Add(bytes.Replace(signed, []byte("time 1795338843412\n"), nil, 1))
	f.Add(make([]byte, MaxNote+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		read, err := ReadCheckpoint(b, tenantA)
		opened, err2 := OpenCheckpoint(b, tenantA, s.PublicKey())
		if err2 == nil && (opened != testCheckpoint || !bytes.HasPrefix(b, []byte(testCheckpoint.Text()))) {
			t.Errorf("opened what the key never signed: %+v", opened)
		}
		if err == nil && !bytes.HasPrefix(b, []byte(read.Text())) {
			t.Errorf("read %+v from something else", read)
		}
	})
}

func newExporter(t *testing.T, l *Log, dir string) *Exporter {
	return &Exporter{
		Log: l, Dir: dir, Now: func() time.Time { return testTime },
		Signer: func(context.Context, vocab.TenantID) (Signer, []byte, error) {
			return newSigner(7), []byte("test certificate"), nil
		},
		Failed: func(tenant vocab.TenantID, err error) { t.Errorf("export of %s: %v", tenant, err) },
	}
}

func TestExport(t *testing.T) {
	l, dir := newLog(t), filepath.Join(t.TempDir(), "checkpoints")
	x := newExporter(t, l, dir)
	if err := l.CheckExported(t.Context(), dir); err != nil {
		t.Errorf("nothing exported yet: %v", err)
	}
	if b, err := Exported(dir, tenantA); b != nil || err != nil {
		t.Errorf("nothing exported yet: %q, %v", b, err)
	}
	for range 3 {
		series(t, l, tenantA, 3)
		series(t, l, tenantB, 2)
		if err := x.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, tenant := range []vocab.TenantID{tenantA, tenantB} {
			signed, err := Exported(dir, tenant)
			if err != nil {
				t.Fatal(err)
			}
			c, err := OpenCheckpoint(signed, tenant, newSigner(7).PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			if n, err := l.Size(t.Context(), tenant); c.Size != n || err != nil {
				t.Errorf("exported size %d, the log has %d, %v", c.Size, n, err)
			}
		}
		if err := l.CheckExported(t.Context(), dir); err != nil {
			t.Error(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, tenantA.String(), "*"))
	if err != nil || len(files) != 2 {
		t.Errorf("files %v, want the checkpoint and its key's certificate", files)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
}

// An older store, put back, is refused by name; so is an empty one, and one
// that has grown again since.
func TestOlderStorePutBack(t *testing.T) {
	dir := t.TempDir()
	exported := filepath.Join(dir, "checkpoints")
	l := newLog(t)
	es := series(t, l, tenantA, 5)
	old := func(n int) *Log {
		o := newLog(t)
		appendAll(t, o, es[:min(n, len(es))]...)
		if n > len(es) {
			series(t, o, tenantA, n-len(es))
		}
		return o
	}
	before := old(5)
	series(t, l, tenantA, 4)
	if err := newExporter(t, l, exported).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]*Log{"older": before, "empty": newLog(t), "grown again": old(30)} {
		if err := o.CheckExported(t.Context(), exported); !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("%s: %v, want LOG_DAMAGED", name, err)
		}
		// Nor does it overwrite the evidence.
		x := newExporter(t, o, exported)
		if err := x.Export(t.Context(), tenantA); !errors.Is(err, vocab.ReasonLogDamaged) {
			t.Errorf("%s, exported: %v, want LOG_DAMAGED", name, err)
		}
	}
	if err := l.CheckExported(t.Context(), exported); err != nil {
		t.Errorf("the right store: %v", err)
	}
	latestFile := filepath.Join(exported, tenantA.String(), latest)
	if err := os.WriteFile(latestFile, []byte("not a note"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.CheckExported(t.Context(), exported); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("an unreadable checkpoint: %v", err)
	}
	// What is not ours, and what a crash left, is passed over.
	if err := os.Rename(latestFile, latestFile+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(exported, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.CheckExported(t.Context(), exported); err != nil {
		t.Errorf("no checkpoint: %v", err)
	}
}

// What was committed before a crash and not yet exported is exported after
// the next start.
func TestExportAfterRestart(t *testing.T) {
	dir := t.TempDir()
	l := newLog(t)
	series(t, l, tenantA, 3)
	again := New(l.store)
	if err := again.CheckExported(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if err := newExporter(t, again, dir).Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, err := Exported(dir, tenantA); b == nil || err != nil {
		t.Errorf("not exported: %v", err)
	}
}

// A log that nobody writes now is left alone until somebody does.
func TestExportWithoutASigner(t *testing.T) {
	l, dir := newLog(t), t.TempDir()
	series(t, l, tenantA, 3)
	series(t, l, tenantB, 2)
	x := newExporter(t, l, dir)
	signer := x.Signer
	var asked int
	x.Signer = func(ctx context.Context, tenant vocab.TenantID) (Signer, []byte, error) {
		if tenant == tenantA {
			asked++
			return nil, nil, nil
		}
		return signer(ctx, tenant)
	}
	for range 3 {
		if err := x.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := Exported(dir, tenantA)
	b, errB := Exported(dir, tenantB)
	if a != nil || b == nil || errA != nil || errB != nil || asked != 1 {
		t.Errorf("exported %q and %q, %v, %v; asked %d times for a signer", a, b, errA, errB, asked)
	}
	x.Signer = signer
	series(t, l, tenantA, 1)
	if err := x.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a, err := Exported(dir, tenantA); a == nil || err != nil {
		t.Errorf("not exported when it grew: %v", err)
	}
}

func TestExporterRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rms.db")
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, path)
		defer s.Close()
		l := New(s)
		var failures, calls int
		x := newExporter(t, l, dir)
		x.Now = nil
		x.Signer = func(context.Context, vocab.TenantID) (Signer, []byte, error) {
			if calls++; calls == 1 {
				return nil, nil, errors.New("test: no key yet")
			}
			return newSigner(7), nil, nil
		}
		x.Failed = func(vocab.TenantID, error) { failures++ }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { x.Run(ctx); close(ended) }()

		exported := func() uint64 {
			b, err := Exported(dir, tenantA)
			if err != nil || b == nil {
				return 0
			}
			c, err := ReadCheckpoint(b, tenantA)
			if err != nil {
				t.Error(err)
			}
			return c.Size
		}
		series(t, l, tenantA, 1)
		synctest.Wait()
		if failures != 1 || exported() != 0 {
			t.Errorf("first round: %d failures, %d exported", failures, exported())
		}
		time.Sleep(time.Second) // of the bubble's clock: the next round
		synctest.Wait()
		if failures != 1 || exported() != 1 {
			t.Errorf("second round: %d failures, %d exported", failures, exported())
		}
		// Many commits in a moment are one round, or two.
		before := calls
		for range 20 {
			series(t, l, tenantA, 1)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if exported() != 21 || calls-before > 2 {
			t.Errorf("%d exported in %d rounds", exported(), calls-before)
		}
		cancel()
		<-ended
	})
}

func TestExportFailures(t *testing.T) {
	l := newLog(t)
	series(t, l, tenantA, 1)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newExporter(t, l, file).Export(t.Context(), tenantA); err == nil {
		t.Error("exported into a file")
	}
	if err := l.CheckExported(t.Context(), file); !errors.Is(err, vocab.ReasonLogDamaged) {
		t.Errorf("a file in place of the directory: %v", err)
	}
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := newExporter(t, l, t.TempDir()).Export(t.Context(), tenantA); !errors.Is(err, vocab.ReasonInternal) {
		t.Errorf("of a closed store: %v", err)
	}
	if _, err := l.Verify(t.Context(), tenantA); !errors.Is(err, vocab.ReasonInternal) {
		t.Errorf("Verify of a closed store: %v", err)
	}
	for _, err := range l.Tail(t.Context(), tenantA, 0) {
		if !errors.Is(err, vocab.ReasonInternal) {
			t.Errorf("Tail of a closed store: %v", err)
		}
	}
}
