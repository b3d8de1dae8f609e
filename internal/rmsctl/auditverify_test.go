package rmsctl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func TestVerifyGoodLogs(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 100} {
		s := serveLog(t, newFakeLog(n))
		exit, out, talk := s.run("audit", "verify")
		if exit != 0 || !strings.HasPrefix(out, plural(n, "event", "events")+"; checkpoint signed by contoso-log+") {
			t.Errorf("%d events: exit %d, %s%s", n, exit, out, talk)
		}
	}
}

// A log may grow; what was seen of it must stay as it was.
func TestVerifyGoesOnFromTheLastCheckpoint(t *testing.T) {
	for _, from := range []int{0, 1, 5, 8, 13} {
		f := newFakeLog(from)
		s := serveLog(t, f)
		if exit, out, talk := s.run("audit", "verify"); exit != 0 {
			t.Fatalf("exit %d, %s%s", exit, out, talk)
		}
		f.grow(6)
		exit, out, talk := s.run("audit", "verify", "--from", "saved", "--save", filepath.Join(t.TempDir(), "kept"))
		if exit != 0 || !strings.Contains(out, "(6 read)") && from > 0 || !strings.Contains(out, "consistent with checkpoint") {
			t.Errorf("from %d: exit %d, %s%s", from, exit, out, talk)
		}
		f.grow(3)
		if exit, out, talk := s.run("audit", "verify"); exit != 0 || !strings.HasPrefix(out, plural(from+9, "", "events")) {
			t.Errorf("from %d, whole again: exit %d, %s%s", from, exit, out, talk)
		}
	}
}

func TestVerifyNamesTheFirstBadEvent(t *testing.T) {
	changed := func(f *fakeLog, i int) {
		f.sent = slices.Clone(f.honest)
		e, err := audit.ParseEvent(f.sent[i])
		if err != nil {
			t.Fatal(err)
		}
		e.Detail = "another test value"
		if f.sent[i], err = e.Encode(); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		events int
		spoil  func(*fakeLog)
		want   string
	}{
		"first changed":  {20, func(f *fakeLog) { changed(f, 0) }, "event 0 ("},
		"middle changed": {20, func(f *fakeLog) { changed(f, 11) }, "event 11 ("},
		"last changed":   {20, func(f *fakeLog) { changed(f, 19) }, "event 19 ("},
		"only changed":   {1, func(f *fakeLog) { changed(f, 0) }, "event 0 ("},
		"two swapped": {20, func(f *fakeLog) {
			f.sent = slices.Clone(f.honest)
			f.sent[4], f.sent[5] = f.sent[5], f.sent[4]
		}, "event 4 ("},
		"one left out": {20, func(f *fakeLog) { f.sent = append(slices.Clone(f.honest[:7]), f.honest[8:]...) }, "ended at event 19 of 20"},
		"cut":          {20, func(f *fakeLog) { f.sent = f.honest[:18] }, "ended at event 18 of 20"},
		"unreadable":   {20, func(f *fakeLog) { f.sent = slices.Clone(f.honest); f.sent[3] = []byte{0xff} }, "event 3 cannot be read"},
		"shown otherwise": {20, func(f *fakeLog) {
			f.shown = func(e *rmsv1.Event) {
				if e.GetIndex() == 6 {
					e.Outcome = "NO_RIGHTS"
				}
			}
		}, "its outcome is shown as NO_RIGHTS, recorded as OK"},
		"break-glass hidden": {20, func(f *fakeLog) {
			f.shown = func(e *rmsv1.Event) { e.BreakGlass = e.GetIndex() == 4 }
		}, "event 4 ("},
		"another kind shown": {20, func(f *fakeLog) { f.shown = func(e *rmsv1.Event) { e.Kind = "refused" } }, "event 0 ("},
		"another tenant's": {20, func(f *fakeLog) {
			f.sent = slices.Clone(f.honest)
			e := audit.Event{ID: vocab.EventID{7}, Tenant: vocab.TenantID{9}, Time: time.Now(), Kind: audit.KindReleased}
			f.sent[2], _ = e.Encode()
		}, "event 2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLog(tt.events)
			tt.spoil(f)
			s := serveLog(t, f)
			exit, out, talk := s.run("audit", "verify")
			if exit != exitVerification || !strings.Contains(talk, tt.want) || out != "" {
				t.Errorf("exit %d, %s%s; want %q", exit, out, talk, tt.want)
			}
			if _, err := os.Stat(s.folder.CheckpointPath("contoso")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a checkpoint was saved: %v", err)
			}
		})
	}
}

func TestVerifyRefusesARewrittenLog(t *testing.T) {
	f := newFakeLog(20)
	s := serveLog(t, f)
	if exit, _, talk := s.run("audit", "verify"); exit != 0 {
		t.Fatal(talk)
	}
	old := f.honest

	f.honest = old[:15]
	if exit, _, talk := s.run("audit", "verify"); exit != exitVerification || !strings.Contains(talk, "but had 20") {
		t.Errorf("shorter: exit %d, %s", exit, talk)
	}
	// A whole new log, well signed, that is longer.
	f.honest = nil
	f.grow(30)
	if exit, _, talk := s.run("audit", "verify"); exit != exitVerification || !strings.Contains(talk, "the log was rewritten") {
		t.Errorf("rewritten: exit %d, %s", exit, talk)
	}
	if exit, _, talk := s.run("audit", "verify", "--from", "saved"); exit != exitVerification {
		t.Errorf("rewritten, from saved: exit %d, %s", exit, talk)
	}
	f.honest = old
	if exit, _, talk := s.run("audit", "verify"); exit != 0 {
		t.Errorf("the good log: exit %d, %s", exit, talk)
	}
}

func TestVerifyWantsThePinnedRoot(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*fakeLog)
		exit  int
	}{
		"another root":          {func(f *fakeLog) { f.root = newTestSigner() }, exitDamaged},
		"another tenant":        {func(f *fakeLog) { f.tenant = vocab.TenantID{0xbb} }, exitDamaged},
		"another key's purpose": {func(f *fakeLog) { f.usage = license.UsagePL }, exitVerification},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeLog(3)
			s := serveLog(t, f)
			tt.spoil(f)
			exit, out, talk := s.run("audit", "verify")
			if exit != tt.exit || !strings.Contains(talk, "TRUST_ROOT_MISMATCH") || out != "" {
				t.Errorf("exit %d, %s%s", exit, out, talk)
			}
		})
	}
	t.Run("an ended certificate", func(t *testing.T) {
		s := serveLog(t, newFakeLog(3))
		s.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
		if exit, _, talk := s.run("audit", "verify"); exit != exitVerification {
			t.Errorf("exit %d, %s", exit, talk)
		}
	})
}

// A trust bundle never goes back.
func TestTrustDoesNotGoBack(t *testing.T) {
	f := newFakeLog(3)
	f.seq = 5
	s := serveLog(t, f)
	if exit, _, talk := s.run("audit", "verify"); exit != 0 {
		t.Fatal(talk)
	}
	if c, err := s.folder.Read("contoso"); err != nil || c.BundleSeq != 5 || c.Bundle == "" {
		t.Errorf("the bundle was not kept: %+v, %v", c, err)
	}
	f.seq = 4
	if exit, _, talk := s.run("audit", "verify"); exit != exitVerification {
		t.Errorf("an older bundle: exit %d, %s", exit, talk)
	}
}

func TestProof(t *testing.T) {
	f := newFakeLog(9)
	s := serveLog(t, f)
	e, err := audit.ParseEvent(f.honest[6])
	if err != nil {
		t.Fatal(err)
	}
	exit, out, talk := s.run("audit", "proof", e.ID.String())
	if exit != 0 || !strings.Contains(out, "in the log at position 6 of 9") {
		t.Errorf("exit %d, %s%s", exit, out, talk)
	}
	// An event that is shown but is not in the tree.
	f.sent = slices.Clone(f.honest)
	e.Detail = "another test value"
	if f.sent[6], err = e.Encode(); err != nil {
		t.Fatal(err)
	}
	if exit, out, talk := s.run("audit", "proof", e.ID.String()); exit != exitVerification || out != "" {
		t.Errorf("exit %d, %s%s", exit, out, talk)
	}
}

// What was saved is the user's memory: a damaged one is said to be, and is
// never passed over.
func TestDamagedMemory(t *testing.T) {
	f := newFakeLog(9)
	s := serveLog(t, f)
	if exit, _, talk := s.run("audit", "verify"); exit != 0 {
		t.Fatal(talk)
	}
	path := s.folder.CheckpointPath("contoso")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":           "",
		"not JSON":        "hello",
		"no note":         "{}",
		"another log's":   strings.Replace(string(good), "rms/"+f.tenant.String(), "rms/"+vocab.NewTenantID().String(), 1),
		"a hash changed":  strings.Replace(string(good), `"edge": [`+"\n    \"", `"edge": [`+"\n    \"A", 1),
		"a hash left out": strings.Replace(string(good), `"edge": [`, `"edge": [], "x": [`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			if text == string(good) {
				t.Fatal("the edit changed nothing")
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			exit, out, talk := s.run("audit", "verify", "--from", "saved")
			if exit != exitUsage || !strings.Contains(talk, "CONFIGURATION_INVALID") || out != "" {
				t.Errorf("exit %d, %s%s", exit, out, talk)
			}
		})
	}
}
