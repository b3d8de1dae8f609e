package rmsctl

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// Cmdlets is testdata/cmdlets.yaml, for the tests of this package and for the
// page docs/cmdlets.md.
type Cmdlets struct {
	Files    map[string]string
	Sections []struct {
		Title string
		Rows  []Cmdlet
	}
}

// Cmdlet is one cmdlet of the AIPService module and what does its work here.
type Cmdlet struct {
	Cmdlet  string
	Do, Run []string
	Say     string
}

// ReadCmdlets reads the file.
func ReadCmdlets(t *testing.T) *Cmdlets {
	t.Helper()
	b, err := os.ReadFile("testdata/cmdlets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	c := new(Cmdlets)
	if err := d.Decode(c); err != nil {
		t.Fatal(err)
	}
	return c
}

// Every cmdlet is there once, and has a command or a reason why there is none.
func TestCmdletsAreComplete(t *testing.T) {
	want := map[string]int{
		"Session, activation, configuration": 14, "Keys": 5, "Templates": 10,
		"Super users, administrators, onboarding": 14, "Logs, tracking, revocation": 12,
	}
	seen := map[string]bool{}
	for _, s := range ReadCmdlets(t).Sections {
		if len(s.Rows) != want[s.Title] {
			t.Errorf("%s: %d cmdlets, want %d", s.Title, len(s.Rows), want[s.Title])
		}
		for _, r := range s.Rows {
			verb, noun, _ := strings.Cut(r.Cmdlet, "-")
			if seen[r.Cmdlet] || verb == "" || !strings.HasPrefix(noun, "AipService") {
				t.Errorf("%s is there twice, or is no cmdlet", r.Cmdlet)
			}
			seen[r.Cmdlet] = true
			if len(r.Do) == 0 && r.Say == "" {
				t.Errorf("%s has neither a command nor a reason", r.Cmdlet)
			}
			if (len(r.Do) == 0) != (len(r.Run) == 0) {
				t.Errorf("%s: what it names is not run, or what is run not named", r.Cmdlet)
			}
		}
	}
	if len(seen) != 55 {
		t.Errorf("%d cmdlets, want 55", len(seen))
	}
}

// Every command that the table names is in the command tree, with its flags; and
// what is run is what is named.
func TestCmdletsNameCommandsThatExist(t *testing.T) {
	for _, s := range ReadCmdlets(t).Sections {
		for _, r := range s.Rows {
			ran := map[string]bool{}
			for _, line := range r.Run {
				ran[commandOf(t, line)] = true
			}
			for _, line := range r.Do {
				if path := commandOf(t, line); path == "" || !ran[path] {
					t.Errorf("%s: %q is no command, or is not run", r.Cmdlet, line)
				}
			}
		}
	}
}

// commandOf returns the path of the command of a line, "" if the line is none of
// ours, and checks its flags.
func commandOf(t *testing.T, line string) string {
	t.Helper()
	var words []string
	for w := range strings.FieldsSeq(line) {
		if _, _, assignment := strings.Cut(w, "="); !assignment || len(words) > 0 {
			words = append(words, w)
		}
	}
	if len(words) == 0 || words[0] != "rmsctl" {
		return ""
	}
	words = words[1:]
	if len(words) > 1 && words[0] == "-c" {
		words = words[2:]
	}
	cmd, rest, err := (&app{}).root().Find(words)
	if err != nil || cmd.HasSubCommands() {
		t.Errorf("%q is not a command: %v", line, err)
		return ""
	}
	for _, w := range rest {
		name, isFlag := strings.CutPrefix(w, "-")
		if !isFlag || w == "-" {
			continue
		}
		long, isLong := strings.CutPrefix(name, "-")
		if isLong && cmd.Flag(long) == nil || !isLong && cmd.Flags().ShorthandLookup(name) == nil {
			t.Errorf("%q: there is no flag %s", line, w)
		}
	}
	return cmd.CommandPath()
}

// The page is made from the file, and a stale one fails.
func TestCmdletsPageIsCurrent(t *testing.T) {
	const path = "../../docs/cmdlets.md"
	var b strings.Builder
	b.WriteString("# From the AIPService module to rmsctl\n\nFor whoever administered Azure RMS with PowerShell: each of the 55 cmdlets of the module, what does its work here, and what\n" +
		"is different. Made from [`internal/rmsctl/testdata/cmdlets.yaml`](../internal/rmsctl/testdata/cmdlets.yaml) by\n" +
		"`go test ./internal/rmsctl -run TestCmdletsPageIsCurrent -update`; `TestCmdletsRun` runs the commands on a whole daemon.\n")
	for _, s := range ReadCmdlets(t).Sections {
		fmt.Fprintf(&b, "\n## %s\n\n| cmdlet | here | |\n|---|---|---|\n", s.Title)
		for _, r := range s.Rows {
			var here []string
			for _, line := range r.Do {
				here = append(here, "`"+strings.ReplaceAll(line, "|", `\|`)+"`")
			}
			if len(here) == 0 {
				here = []string{"–"}
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.Cmdlet, strings.Join(here, "<br>"), r.Say)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("docs/cmdlets.md is stale: run this test with -update")
	}
}
