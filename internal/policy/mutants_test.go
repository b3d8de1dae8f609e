package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutants breaks one line of the evaluator at a time and demands that the
// tables and the comparison with the model each notice; of what an author gains,
// its table and its property. A patch that does not
// apply or compile any more fails too: it says nothing about the tests.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the tests once for each mutant")
	}
	patches, err := filepath.Glob("testdata/mutants/*.patch")
	if err != nil || len(patches) < 20 {
		t.Fatalf("%d mutants: %v", len(patches), err)
	}
	for _, patch := range patches {
		t.Run(strings.TrimSuffix(filepath.Base(patch), ".patch"), func(t *testing.T) {
			t.Parallel()
			binary := compileMutant(t, patch)
			suites := []string{"^TestTable", "^TestPropertyModel(Sequences|Covering)$"}
			if b, err := os.ReadFile(patch); err == nil && strings.Contains(string(b), "+++ b/internal/policy/gains.go\n") {
				suites = []string{"^TestGains", "^TestWithoutGains"}
			}
			for _, suite := range suites {
				out, err := runTests(t, binary, suite)
				exit, failed := errors.AsType[*exec.ExitError](err)
				switch {
				case err == nil:
					t.Errorf("%s does not notice", suite)
				case !failed || exit.ExitCode() != 1 || !strings.Contains(out, "--- FAIL: "+suite[1:5]):
					t.Errorf("%s did not run: %v\n%.2000s", suite, err, out)
				}
			}
		})
	}
}

func runTests(t *testing.T, binary, pattern string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "-test.run", pattern)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// compileMutant builds this package's tests with the patched file laid over
// the real one, which stays untouched.
func compileMutant(t *testing.T, patch string) string {
	t.Helper()
	b, err := os.ReadFile(patch)
	if err != nil {
		t.Fatal(err)
	}
	name, old, changed, err := readPatch(string(b))
	if err != nil {
		t.Fatal(err)
	}
	original, err := filepath.Abs(filepath.Base(name))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), old); n != 1 {
		t.Fatalf("the patched lines occur %d times in %s", n, name)
	}
	dir := t.TempDir()
	mutant := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(mutant, []byte(strings.Replace(string(source), old, changed, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "mutant.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not compile: %v\n%s", err, out)
	}
	return binary
}

// readPatch reads a unified diff of one file and one hunk that changes one
// line: the lines before and after the change, context included.
func readPatch(patch string) (name, old, changed string, err error) {
	var before, after strings.Builder
	hunks, minus, plus := 0, 0, 0
	for line := range strings.Lines(patch) {
		switch {
		case strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "+++ b/"):
			name = strings.TrimSpace(strings.TrimPrefix(line, "+++ b/"))
		case strings.HasPrefix(line, "@@ "):
			hunks++
		case strings.HasPrefix(line, "-"):
			minus++
			before.WriteString(line[1:])
		case strings.HasPrefix(line, "+"):
			plus++
			after.WriteString(line[1:])
		case strings.HasPrefix(line, " "):
			before.WriteString(line[1:])
			after.WriteString(line[1:])
		default:
			return "", "", "", fmt.Errorf("unexpected line %q", line)
		}
	}
	if name == "" || hunks != 1 || minus != 1 || plus != 1 {
		return "", "", "", fmt.Errorf("want one hunk that changes one line: %d hunks, -%d +%d", hunks, minus, plus)
	}
	return name, before.String(), after.String(), nil
}
