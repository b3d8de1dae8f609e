package rmsctl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/rmsctl"
)

// What the table of cmdlets names is run, in the order of the table, on one
// daemon.
func TestCmdletsRun(t *testing.T) {
	d := startDaemon(t)
	table := rmsctl.ReadCmdlets(t)
	j := &job{dir: t.TempDir(), contexts: d.ContextsDir()}
	for name, text := range table.Files {
		check(t, os.WriteFile(filepath.Join(j.dir, name), []byte(text), 0o600))
	}
	mine := t.TempDir() // where somebody signs in
	t.Setenv("RMS_CONFIG_DIR", mine)
	t.Setenv("MINE", mine)
	j.shell(t, "rmsctl context use dev-alice")
	for _, s := range table.Sections {
		for _, r := range s.Rows {
			for _, line := range r.Run {
				line, want := exitOf(t, line)
				var out string
				var code int
				if args, ok := strings.CutPrefix(line, "rmsctl login "); ok {
					// Somebody has to confirm it.
					expand := strings.NewReplacer("$ADDRESS", d.Addr(), "$CA", d.CAFile(), " --device", "").Replace
					code, out = loginByCode(t, d, "alice", append([]string{"login"}, strings.Fields(expand(args))...)...)
				} else {
					out, code = j.shell(t, line)
				}
				if code != want {
					t.Errorf("%s\n$ %s\nexit %d, want %d: %s", r.Cmdlet, line, code, want, out)
				}
			}
		}
	}
}
