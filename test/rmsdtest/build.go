package rmsdtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var builds struct {
	sync.Mutex
	dir    string
	byTags map[string]string
}

// Build builds cmd/rmsd with the given build tags, at most once for each, and
// returns the path of the binary.
func Build(tb testing.TB, tags string) string {
	tb.Helper()
	return build(tb, "rmsd", tags)
}

// BuildClient builds cmd/rmsctl, at most once.
func BuildClient(tb testing.TB) string {
	tb.Helper()
	return build(tb, "rmsctl", "")
}

func build(tb testing.TB, command, tags string) string {
	tb.Helper()
	builds.Lock()
	defer builds.Unlock()
	if path := builds.byTags[command+"-"+tags]; path != "" {
		return path
	}
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "rmsd-build-")
		if err != nil {
			tb.Fatal(err)
		}
		builds.dir, builds.byTags = dir, map[string]string{}
	}
	path := filepath.Join(builds.dir, command+"-"+tags)
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-tags", tags, "-o", path, "github.com/openrms/rms/cmd/"+command)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("go build: %v\n%s", err, out)
	}
	builds.byTags[command+"-"+tags] = path
	return path
}

// Main runs a package's tests and removes what [Build] built.
func Main(m *testing.M) {
	m.Run() // whose result is the process's, without our doing
	_ = os.RemoveAll(builds.dir)
}
