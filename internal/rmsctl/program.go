package rmsctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// program is what shows an open document.
type program struct {
	args []string
	// returns says that the program comes back while the document is still
	// on the screen, as openers of desktops do.
	returns bool
}

// chooseProgram decides what shows a document of a media type.
func (a *app) chooseProgram(with, mediaType string) (*program, error) {
	if with != "" {
		args := strings.Fields(with)
		if len(args) == 0 {
			return nil, usagef("--with names no program")
		}
		return &program{args: args}, nil
	}
	if !isTerminal(a.stdin) || !isTerminal(a.stdout) {
		return nil, usagef("there is no screen to show the document on").withNext("Name a program that takes it: --with PROGRAM")
	}
	switch {
	case strings.HasPrefix(mediaType, "text/"):
		return &program{args: strings.Fields(or(os.Getenv("PAGER"), "less"))}, nil
	case runtime.GOOS == "darwin":
		return &program{args: []string{"open", "-W"}}, nil
	case os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "":
		return &program{args: []string{"xdg-open"}, returns: true}, nil
	}
	return nil, usagef("there is no desktop to show a document of type %s", or(mediaType, "unknown")).
		withNext("Name a program that takes it: --with PROGRAM")
}

// stopGrace is how long a program may take to end when it is told to.
const stopGrace = 5 * time.Second

// show runs a program on a file and waits for it. An interrupt from the
// keyboard reaches the program by itself, and what it means is the program's
// affair; the signals that end us end it first.
func (a *app) show(ctx context.Context, p *program, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ending := make(chan os.Signal, 1)
	signal.Notify(ending, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(ending)
	// Without the context: the interrupt that ends it is the program's to judge.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), p.args[0], append(p.args[1:], path)...) //nolint:gosec // the user's own choice
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	if err := cmd.Start(); err != nil {
		return usagef("%s cannot be run: %v", p.args[0], err)
	}
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = cmd.Wait()
	}()
	select {
	case <-done:
	case <-ending:
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(stopGrace):
			_ = cmd.Process.Kill()
			<-done
		}
		return context.Canceled
	}
	if err != nil {
		return &exitError{code: exitInternal, err: fmt.Errorf("%s: %w", p.args[0], err)}
	}
	if p.returns {
		return a.waitForEnter(ctx, ending)
	}
	return nil
}

// waitForEnter keeps the clear text until its reader is done with it.
func (a *app) waitForEnter(ctx context.Context, ending <-chan os.Signal) error {
	fmt.Fprint(a.stderr, "press Enter when you are done: the clear text is removed then ")
	line := make(chan struct{})
	go func() {
		defer close(line)
		_, _ = bufio.NewReader(a.stdin).ReadString('\n') // its end will do
	}()
	select {
	case <-line:
		return nil
	case <-ending:
	case <-ctx.Done():
	}
	fmt.Fprintln(a.stderr)
	return errors.New("interrupted")
}

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
