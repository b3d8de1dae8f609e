package rmsctl_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const jobsPage = "../../docs/admin-jobs.md"

// The jobs of the guide are done as their page says, each at a daemon of its
// own, and print what the page shows, to the letter but for times. IDs are other
// ones, but the same where the page has the same. With -update the page shows
// what they print.
func TestJobs(t *testing.T) {
	b, err := os.ReadFile(jobsPage)
	check(t, err)
	sections := strings.SplitAfter(string(b), "\n## ")
	for i, text := range sections[1:] {
		name, _, _ := strings.Cut(text, "\n")
		t.Run(name, func(t *testing.T) {
			j := &job{dir: t.TempDir(), contexts: startDaemon(t).ContextsDir(), real: map[string]string{}}
			j.shell(t, "rmsctl context use dev-grace")
			sections[i+1] = j.section(t, text)
		})
	}
	if flag.Lookup("update").Value.String() == "true" {
		check(t, os.WriteFile(jobsPage, []byte(strings.Join(sections, "")), 0o644))
	}
}

// job is one section of the page on its way.
type job struct {
	dir, contexts string
	commands      int
	// real are the IDs that were printed, by those that the page shows in their
	// place. So a command can name what an earlier one printed.
	real map[string]string
}

var (
	blocks = regexp.MustCompile("(?ms)^```(yaml|console)\n(.*?)^```$")
	// instants are the times people write: the page's lie ahead when it is read
	// and in the past when it is tested, so they are tested a century later.
	instants = regexp.MustCompile(`\b20(\d\d-\d\d-\d\d)T`)
	century  = regexp.MustCompile(`\b21(\d\d-\d\d-\d\d)`)
)

// section does the commands of a section and returns it with what they printed.
func (j *job) section(t *testing.T, text string) string {
	t.Helper()
	out := blocks.ReplaceAllStringFunc(text, func(block string) string {
		m := blocks.FindStringSubmatch(block)
		if m[1] == "yaml" {
			j.file(t, m[2])
			return block
		}
		return "```console\n" + j.console(t, m[2]) + "```"
	})
	if j.commands == 0 {
		t.Error("the section has no commands")
	}
	return out
}

// file writes a file that the page shows; its first line is its name.
func (j *job) file(t *testing.T, text string) {
	t.Helper()
	name, _, _ := strings.Cut(text, "\n")
	path := filepath.Join(j.dir, strings.TrimPrefix(name, "# "))
	check(t, os.MkdirAll(filepath.Dir(path), 0o700))
	check(t, os.WriteFile(path, []byte(later(text)), 0o600))
}

// console does the commands of a block and returns the block as they printed it.
func (j *job) console(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	for _, step := range strings.Split("\n"+text, "\n$ ")[1:] {
		line, shown, _ := strings.Cut(strings.TrimSuffix(step, "\n"), "\n")
		command, exit := exitOf(t, line)
		j.commands++
		printed, code := j.shell(t, later(ids.ReplaceAllStringFunc(command, func(id string) string { return cmp.Or(j.real[id], id) })))
		printed = j.asShown(printed, shown)
		if code != exit {
			t.Errorf("$ %s\nexit %d, want %d:\n%s", line, code, exit, printed)
		}
		if plain(printed) == plain(shown) {
			printed = shown // it is the same but for times
		} else if flag.Lookup("update").Value.String() != "true" {
			t.Errorf("$ %s\nthe page shows:\n%s\nprinted:\n%s", line, shown, printed)
		}
		fmt.Fprintf(&out, "$ %s\n", line)
		if printed != "" {
			out.WriteString(printed + "\n")
		}
	}
	return out.String()
}

// asShown returns what was printed with the page's IDs: those that it shows at the
// same place, or showed where the same ID was printed before.
func (j *job) asShown(printed, shown string) string {
	page := map[string]string{}
	for p, r := range j.real {
		page[r] = p
	}
	there := ids.FindAllString(shown, -1)
	for i, r := range ids.FindAllString(printed, -1) {
		if page[r] == "" && i < len(there) && j.real[there[i]] == "" {
			page[r], j.real[there[i]] = there[i], r
		}
	}
	return ids.ReplaceAllStringFunc(printed, func(r string) string { return cmp.Or(page[r], r) })
}

// exitOf returns a command and the exit code it is to have: 0 unless the line
// ends with another.
func exitOf(t *testing.T, line string) (string, int) {
	t.Helper()
	command, text, ok := strings.Cut(line, "    # exit ")
	if !ok {
		return line, 0
	}
	code, err := strconv.Atoi(text)
	check(t, err)
	return command, code
}

// shell runs a command line and returns what a terminal would show, and the exit
// code.
func (j *job) shell(t *testing.T, line string) (string, int) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-c", line)
	c.Dir, c.Env = j.dir, append(os.Environ(), "RMS_CONFIG_DIR="+j.contexts, "LC_ALL=C.UTF-8", "XDG_RUNTIME_DIR=")
	out, err := c.CombinedOutput()
	code := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	text := century.ReplaceAllString(string(out), "20$1")
	return strings.TrimSuffix(strings.ReplaceAll(text, "\n\n", "\n"), "\n"), code
}

func later(text string) string { return instants.ReplaceAllString(text, "21${1}T") }

var (
	ids      = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	underway = regexp.MustCompile(`(?m)^TIME  running  .*\n`)
	times    = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?Z|\d\d:\d\d:\d\d\.\d+Z|\d+\.\d\d s\b|\b\d+ (s|min) old\b`)
)

// plain is an output without what is another at every run: times, and how far
// work was when somebody looked.
func plain(s string) string { return underway.ReplaceAllString(times.ReplaceAllString(s, "TIME"), "") }
