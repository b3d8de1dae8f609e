package main

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/daemon"
)

// The first hour is done as its page says, command by command, and prints what
// the page shows; "…" on the page stands for anything.
func TestFirstHour(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	page, err := os.ReadFile("../../docs/first-hour.md")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.MkdirTemp("", "rmsd-dev-*") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) })
	d, err := daemon.StartDev(t.Context(), daemon.DevOptions{Dir: data, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(t.Context())

	dir, commands := t.TempDir(), 0
	for _, block := range regexp.MustCompile("(?ms)^```(yaml|console)\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		if block[1] == "yaml" {
			name, _, _ := strings.Cut(block[2], "\n")
			if err := os.WriteFile(filepath.Join(dir, strings.TrimPrefix(name, "# ")), []byte(block[2]), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for _, step := range strings.Split("\n"+block[2], "\n$ ")[1:] {
			line, shown, _ := strings.Cut(step, "\n")
			commands++
			if !tryStep(t, dir, d.ContextsDir(), line, shown) {
				return // what follows rests on it
			}
		}
	}
	if commands < 25 {
		t.Errorf("the page has %d commands", commands)
	}
}

// tryStep runs a command line and compares what it prints and how it exits.
func tryStep(t *testing.T, dir, contexts, line, shown string) bool {
	t.Helper()
	want := 0
	if command, code, ok := strings.Cut(line, "    # exit "); ok {
		line = command
		want, _ = strconv.Atoi(code)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "RMS_CONFIG_DIR="+contexts, "LANG=C.UTF-8")
	out, err := cmd.CombinedOutput()
	exit := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		exit = e.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if exit != want {
		t.Errorf("$ %s\nexit %d, want %d:\n%s", line, exit, want, out)
		return false
	}
	for wanted := range strings.Lines(shown) {
		// Columns are as wide as what is in them.
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(wanted)), "…", ".*")
		pattern = "(?m)^ *" + regexp.MustCompile(` +`).ReplaceAllString(pattern, " *") + " *$"
		if !regexp.MustCompile(pattern).Match(out) {
			t.Errorf("$ %s\nnever printed %q:\n%s", line, wanted, out)
			return false
		}
	}
	return true
}
