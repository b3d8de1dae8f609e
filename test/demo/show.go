package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Exit codes of rmsctl.
const (
	exitOK      = 0
	exitRefused = 3
	exitDamaged = 8
)

// rmsctl runs a command as somebody, prints it and its output, and checks its
// exit code and that the output holds some words.
func (d *demo) rmsctl(ctx context.Context, who string, wantExit int, wantWords []string, args ...string) (string, error) {
	args = append([]string{"-c", "dev-" + who}, args...)
	fmt.Fprintf(d.out, "$ rmsctl %s\n", d.shorten(typed(args)))
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "rmsctl"), args...)
	cmd.Env = append(os.Environ(), "RMS_CONFIG_DIR="+filepath.Join(d.rmsdDir(), "contexts"), "NO_COLOR=1")
	cmd.Dir = d.dir
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return "", err
	}
	output := strings.TrimRight(both.String(), "\n")
	for line := range strings.SplitSeq(output, "\n") {
		if line != "" {
			fmt.Fprintf(d.out, "  %s\n", d.shorten(line))
		}
	}
	exit := cmd.ProcessState.ExitCode()
	if exit != exitOK {
		fmt.Fprintf(d.out, "  exit %d\n", exit)
	}
	if exit != wantExit {
		return "", fmt.Errorf("rmsctl %s: exit %d, want %d", strings.Join(args, " "), exit, wantExit)
	}
	for _, w := range wantWords {
		if !strings.Contains(output, w) {
			return "", fmt.Errorf("rmsctl %s: the output does not say %q", strings.Join(args, " "), w)
		}
	}
	d.events = append(d.events, eventID.FindAllString(output, -1)...)
	return output, nil
}

// typed is a command's words as somebody would type them.
func typed(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if words[i] = a; strings.ContainsAny(a, " \t'") {
			words[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// eventID finds what a refusal quotes.
var eventID = regexp.MustCompile(`\bevent [0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b`)

// shorten takes the demo's directory out of what is printed.
func (d *demo) shorten(s string) string {
	return strings.ReplaceAll(s, d.dir+string(filepath.Separator), "")
}

// show is the demonstration.
func (d *demo) show(ctx context.Context) error {
	protected := filepath.Join(d.dir, filepath.Base(d.report)+".rms")
	if _, err := d.rmsctl(ctx, "alice", exitOK, []string{"finance-internal", "board-secret", "strict"}, "template", "list"); err != nil {
		return err
	}
	if _, err := d.rmsctl(ctx, "alice", exitOK, nil, "protect", d.report, "--template", "finance-internal", "-o", protected); err != nil {
		return err
	}
	found, looked, err := clearBlocks(d.report, protected)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  blocks of the original found in it: %d of %d\n", found, looked)
	if found > 0 {
		return errors.New("the protected file holds parts of the original")
	}
	if _, err := d.rmsctl(ctx, "alice", exitOK, []string{"contoso"}, "inspect", protected); err != nil {
		return err
	}
	if _, err := d.rmsctl(ctx, "bob", exitOK, []string{d.sum}, "open", protected, "--with", "sha256sum"); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "  the same as the original (bob is viewer through group:interns)")
	if err := d.showRefusals(ctx, protected); err != nil {
		return err
	}
	if _, err := d.rmsctl(ctx, "erin", exitOK, nil, "audit", "verify"); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "demo passed in %.1f s. Go on by hand:  make run   then   bin/rmsctl -c dev-alice protect FILE --template finance-internal\n",
		time.Since(d.started).Seconds())
	return nil
}

func (d *demo) showRefusals(ctx context.Context, protected string) error {
	clear := filepath.Join(d.dir, "clear")
	for _, refused := range []struct {
		who    string
		reason string
		args   []string
	}{
		{"bob", "RIGHT_NOT_GRANTED", []string{"unprotect", protected, "-o", clear}},
		{"mallory", "NO_RIGHTS", []string{"open", protected, "--with", "sha256sum"}},
	} {
		if _, err := d.rmsctl(ctx, refused.who, exitRefused, []string{refused.reason}, refused.args...); err != nil {
			return err
		}
		if _, err := os.Stat(clear); err == nil {
			return errors.New("a refused command left a file")
		}
	}
	changed := filepath.Join(d.dir, "changed.rms")
	if err := flipByte(protected, changed); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "(one byte of the content changed)")
	if _, err := d.rmsctl(ctx, "bob", exitDamaged, nil, "open", changed, "--with", "sha256sum"); err != nil {
		return err
	}
	if _, err := d.rmsctl(ctx, "alice", exitOK, nil, "license", "revoke", protected, "--reason", "wrong version"); err != nil {
		return err
	}
	if _, err := d.rmsctl(ctx, "bob", exitRefused, []string{"LICENSE_REVOKED"}, "open", protected, "--with", "sha256sum"); err != nil {
		return err
	}
	_, err := d.rmsctl(ctx, "alice", exitOK, []string{"bob@contoso.test", "mallory@contoso.test"}, "license", "track", protected)
	return err
}

// flipByte copies a file with one bit of its last segment changed.
func flipByte(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	b[len(b)-100] ^= 1
	return os.WriteFile(to, b, 0o600)
}
