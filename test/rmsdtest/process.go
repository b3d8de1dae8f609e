package rmsdtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
)

var errNotServing = errors.New("the tenant does not serve yet")

// startWithin is how long a daemon may take until it serves, also on a machine
// that is busy with other tests and under a tracer.
const startWithin = 60 * time.Second

// Process is a running rmsd, perhaps under a program that watches it.
type Process struct {
	// PID is the rmsd's own, valid once [Process.AwaitServing] has returned
	// if a program runs it.
	PID int
	// Log is the file that holds what it wrote to stderr.
	Log string

	site   *Site
	exited chan struct{}
	state  error
	signal func(os.Signal) error
}

// Start starts binary on the site and returns at once. prefix, if there is one,
// is the command that runs it.
func (s *Site) Start(tb testing.TB, binary string, prefix ...string) *Process {
	tb.Helper()
	log, err := os.OpenFile(filepath.Join(filepath.Dir(s.Config), "rmsd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer log.Close()
	args := append(append([]string{}, prefix...), binary, "serve", "-c", s.Config, "--log-level", s.LogLevel)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &Process{site: s, Log: log.Name(), exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig follows the thread that started the process.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.state = cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		tb.Fatal(err)
	}
	if len(prefix) == 0 {
		p.PID = cmd.Process.Pid
	}
	p.signal = func(sig os.Signal) error {
		if p.PID != 0 {
			return syscall.Kill(p.PID, sig.(syscall.Signal))
		}
		return cmd.Process.Signal(sig)
	}
	tb.Cleanup(p.Kill)
	return p
}

// LogEnd returns the end of what the daemon wrote to stderr.
func (p *Process) LogEnd() string {
	b, _ := os.ReadFile(p.Log)
	return string(b[max(0, len(b)-3000):])
}

// Kill ends it with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	select {
	case <-p.exited:
		return
	default:
	}
	_ = p.signal(syscall.SIGKILL)
	<-p.exited
}

// Stop ends it in order, waits, and returns an error if that was not success.
func (p *Process) Stop() error {
	_ = p.signal(syscall.SIGTERM)
	<-p.exited
	return p.state
}

// AwaitServing waits until the tenants serve, and pins them; the site's first
// if none is named. It fails the test if the process ends instead.
func (p *Process) AwaitServing(tb testing.TB, tenants ...*Site) {
	tb.Helper()
	if len(tenants) == 0 {
		tenants = []*Site{p.site}
	}
	for _, s := range tenants {
		if err := p.serving(tb, s); err != nil {
			tb.Fatalf("rmsd does not serve %s: %v\n%s", s.Name, err, p.LogEnd())
		}
	}
}

func (p *Process) serving(tb testing.TB, s *Site) error {
	ctx, cancel := context.WithTimeout(tb.Context(), startWithin)
	defer cancel()
	var conn *grpc.ClientConn
	for {
		// gRPC's own pauses between attempts are made for networks; a process
		// that is on its way up is asked more often.
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.Address)
		if err == nil {
			_ = c.Close()
			if conn == nil {
				conn = s.Connect(tb, nil)
			}
			if err = s.pin(ctx, conn); err == nil {
				return conn.Close()
			}
		}
		select {
		case <-p.exited:
			return fmt.Errorf("it ended: %w", p.state)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(3 * time.Millisecond): // there is nothing to wait on
		}
	}
}

// replaceLines replaces top-level "key: value" lines.
func replaceLines(text string, values map[string]string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if key, _, ok := strings.Cut(line, ":"); ok && values[key] != "" {
			lines[i] = key + ": " + values[key]
		}
	}
	return strings.Join(lines, "\n")
}
