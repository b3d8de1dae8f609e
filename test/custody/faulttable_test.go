package custody_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/vocab"
)

var update = flag.Bool("update", false, "write the table of faults in docs/custody.md anew")

// row is a fault and what it does; see testdata/faults.yaml.
type row struct {
	Name, When     string
	Strict, Cached cell
	Then           string
	Status         vocab.Reason
	Alarms         []string
}

// cell is what a fault does to documents of one custody mode.
type cell struct {
	Open, Publish vocab.Reason
	By            moment
	Says          string
}

// moment is when a fault is seen.
type moment string

const (
	byCall moment = ""     // by the first call
	byLook moment = "look" // when the daemon looks at its custodian
	byTTL  moment = "ttl"  // when the copy has lived its TTL
)

func (r *row) alarms(what string) bool { return slices.Contains(r.Alarms, what) }

func readRows(t *testing.T) (rows []row) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "faults.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

var reasonName = regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)+\b`)

// TestFaultTable holds the rows, the cases of TestFaults and the table of
// docs/custody.md together.
func TestFaultTable(t *testing.T) {
	rows := readRows(t)
	seen := map[string]bool{}
	for _, r := range rows {
		if _, ok := faults[r.Name]; !ok || seen[r.Name] {
			t.Errorf("row %q has no case of its own", r.Name)
		}
		seen[r.Name] = true
		for kind, c := range map[string]cell{"strict": r.Strict, "cached": r.Cached} {
			want := map[string]bool{}
			for _, reason := range []vocab.Reason{c.Open, c.Publish} {
				if reason != "" {
					want[string(reason)] = true
				}
			}
			if says := reasonName.FindAllString(c.Says, -1); !slices.Equal(slices.Compact(slices.Sorted(slices.Values(says))), slices.Sorted(maps.Keys(want))) {
				t.Errorf("row %q: the cell for %s documents names %v, but what happens is %v", r.Name, kind, says, slices.Sorted(maps.Keys(want)))
			}
			if c.By != byCall && c.By != byLook && c.By != byTTL {
				t.Errorf("row %q: %s documents by %q", r.Name, kind, c.By)
			}
		}
		for _, a := range r.Alarms {
			if a != "refusals" && a != "look" {
				t.Errorf("row %q: alarms %q", r.Name, a)
			}
		}
	}
	for name := range faults {
		if !seen[name] {
			t.Errorf("case %q has no row", name)
		}
	}

	path := filepath.Join(root, "docs", "custody.md")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const heading = "\n## What happens when\n"
	before, section, ok := strings.Cut(string(b), heading)
	begin := strings.Index(section, "| |")
	if !ok || begin < 0 {
		t.Fatal("docs/custody.md has no table of faults")
	}
	old := section[begin:]
	end := strings.Index(old, "\n\n") + 1
	made := table(rows)
	if *update {
		if err := os.WriteFile(path, []byte(before+heading+section[:begin]+made+old[end:]), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if old[:end] != made {
		t.Error("the table in docs/custody.md is stale: run this test with -update")
	}
}

func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| | strict | cached | then |\n|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.When, r.Strict.Says, r.Cached.Says, r.Then)
	}
	return strings.ReplaceAll(b.String(), "|  |", "| |")
}
