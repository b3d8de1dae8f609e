package rmsctl_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/policy/templatefile/templatefiletest"
	"github.com/openrms/rms/internal/rmsctl"
	"github.com/openrms/rms/internal/vocab"
)

// run runs rmsctl as alice at a daemon and returns what it printed.
func run(t *testing.T, d *daemon.Dev, args ...string) []byte {
	t.Helper()
	t.Setenv("RMS_CONFIG_DIR", d.ContextsDir())
	var out, errs bytes.Buffer
	if code := rmsctl.Run(append([]string{"-c", "dev-alice"}, args...), strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("%q: exit %d\n%s", args, code, errs.String())
	}
	return out.Bytes()
}

// Templates go through files and tenants and come back byte for byte: whatever
// they say, the export of what was applied is the canonical file, applying it
// changes nothing, and another tenant that it is applied to exports the same.
func TestExportIsWhatWasApplied(t *testing.T) {
	const batches, inBatch = 6, 15
	here, there := startDaemon(t), startDaemon(t)
	dir, random := t.TempDir(), rapid.Custom(templatefiletest.Draw)
	file := func(templates ...*policy.Template) (string, []byte) {
		b, err := templatefile.Format(templates...)
		check(t, err)
		return write(t, dir, b), b
	}
	made := 0
	for range batches {
		var templates []*policy.Template
		var ids []string
		for range inBatch {
			made++
			tpl := random.Example(made)
			tpl.Slug = fmt.Sprintf("t%d", made)
			templates, ids = append(templates, tpl), append(ids, tpl.Slug)
		}
		export := append([]string{"template", "export"}, ids...)
		applied, want := file(templates...)
		run(t, here, "template", "apply", "-f", applied)
		got := run(t, here, export...)
		if !bytes.Equal(got, want) {
			t.Fatalf("applied:\n%s\nexported:\n%s", want, got)
		}
		again := run(t, here, "template", "apply", "-f", write(t, dir, got))
		if n := strings.Count(string(again), "revision 1, unchanged"); n != inBatch {
			t.Fatalf("%d of %d are unchanged by their export:\n%s", n, inBatch, again)
		}
		run(t, there, "template", "apply", "-f", write(t, dir, got))
		if elsewhere := run(t, there, export...); !bytes.Equal(elsewhere, want) {
			t.Fatalf("here:\n%s\nthere:\n%s", want, elsewhere)
		}

		// An edit of any kind comes back too.
		for i, id := range ids {
			custody := templates[i].Custody
			templates[i] = random.Example(1000 + made + i)
			if custody == vocab.CustodyStrict {
				templates[i].Custody = custody // lowering it is an edit of its own
			}
			templates[i].Slug = id
		}
		applied, want = file(templates...)
		run(t, here, "template", "apply", "-f", applied)
		if got := run(t, here, export...); !bytes.Equal(got, want) {
			t.Fatalf("edited:\n%s\nexported:\n%s", want, got)
		}
	}
}

func write(t *testing.T, dir string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, "templates.yaml")
	check(t, os.WriteFile(path, b, 0o600))
	return path
}
