package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// commands are what scripts can do beside testscript's own.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"fill":    fill,
	"exits":   exits,
	"start":   start,
	"launch":  launch,
	"signal":  signalDaemon,
	"end":     endDaemon,
	"crash":   crashDaemon,
	"capture": capture,
	"mode":    mode,
	"protect": protect,
	"open":    open,
	"damage":  damage,
	"flip":    flip,
}

// session is what a script has going on.
type session struct {
	rmsd    string
	idp     *devidp.Provider
	daemons map[string]*process
}

func sessionOf(ts *testscript.TestScript) *session {
	s, _ := ts.Value(sessionKey{}).(*session)
	return s
}

// want checks how a command is called.
func want(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

// fill replaces ${NAME} in files by the variables: fill FILE…
func fill(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "fill FILE…")
	for _, name := range args {
		path := ts.MkAbs(name)
		b, err := os.ReadFile(path)
		ts.Check(err)
		ts.Check(os.WriteFile(path, []byte(os.Expand(string(b), ts.Getenv)), 0o600))
	}
}

// exits runs rmsd and wants an exit code: exits CODE [ARGS…]
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 0, "exits CODE [ARGS…]")
	code, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("rmsd", args[1:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != code {
		ts.Fatalf("exit code %d, want %d", got, code)
	}
}

// process is a running rmsd. What it says is in NAME.log.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}

	more chan struct{} // has an item when more was said
	mu   sync.Mutex
	said string
}

// What rmsd says once it listens, and of each tenant once its custodian answered.
var (
	serving      = regexp.MustCompile(`"msg":"serving".*"listen":"([^"]+)".*"tenants":(\d+)|rmsd \S+ on ([^ ,]+),`)
	tenantServes = regexp.MustCompile(`(?m)"msg":"the tenant serves"|^next  .*rmsctl`)
)

// start starts rmsd and waits until it serves all its tenants; NAME_ADDRESS,
// NAME_PID and, of rmsd dev, NAME_CONTEXTS are set: start NAME ARGS…
func start(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 1, "start NAME ARGS…")
	p := begin(ts, args[0], args[1:])
	p.await(ts, func() bool {
		m := serving.FindStringSubmatch(p.text())
		tenants := len(tenantServes.FindAllString(p.text(), -1))
		return m != nil && (m[3] != "" && tenants == 1 || m[2] == strconv.Itoa(tenants))
	})
	introduce(ts, args[0], p)
}

// launch starts rmsd and waits until it listens and has said what matches:
// launch NAME PATTERN ARGS…
func launch(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) > 2, "launch NAME PATTERN ARGS…")
	p, pattern := begin(ts, args[0], args[2:]), regexp.MustCompile("(?m)"+args[1])
	p.await(ts, func() bool { return pattern.MatchString(p.text()) && serving.MatchString(p.text()) })
	introduce(ts, args[0], p)
}

func begin(ts *testscript.TestScript, name string, args []string) *process {
	s := sessionOf(ts)
	read, write, err := os.Pipe()
	ts.Check(err)
	log, err := os.OpenFile(ts.MkAbs(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	p := &process{cmd: exec.Command(s.rmsd, args...), exited: make(chan struct{}), more: make(chan struct{}, 1)}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = ts.MkAbs("."), write, write
	p.cmd.Env = append(os.Environ(), "TMPDIR="+ts.Getenv("TMPDIR"))
	ts.Check(p.cmd.Start())
	_ = write.Close()
	go func() {
		defer close(p.exited)
		p.read(io.TeeReader(read, log))
		_ = p.cmd.Wait()
		_ = log.Close()
		_ = read.Close()
	}()
	s.daemons[name] = p
	return p
}

// introduce tells the script how to reach a daemon.
func introduce(ts *testscript.TestScript, name string, p *process) {
	m := serving.FindStringSubmatch(p.text())
	ts.Setenv(name+"_ADDRESS", m[1]+m[3])
	ts.Setenv(name+"_PID", strconv.Itoa(p.cmd.Process.Pid))
	if m := regexp.MustCompile(`RMS_CONFIG_DIR=(\S+)`).FindStringSubmatch(p.text()); m != nil {
		ts.Setenv(name+"_CONTEXTS", m[1])
	}
}

func (p *process) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		p.mu.Lock()
		p.said += lines.Text() + "\n"
		p.mu.Unlock()
		select {
		case p.more <- struct{}{}:
		default:
		}
	}
}

// text is all it has said.
func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said
}

// await waits until something is so, which it may be after each line.
func (p *process) await(ts *testscript.TestScript, so func() bool) {
	for {
		select {
		case <-p.more:
			if so() {
				return
			}
		case <-p.exited:
			if !so() {
				ts.Fatalf("rmsd ended:\n%s", p.text())
			}
			return
		}
	}
}

func running(ts *testscript.TestScript, name string) *process {
	p := sessionOf(ts).daemons[name]
	if p == nil {
		ts.Fatalf("there is no daemon %s", name)
	}
	return p
}

// signal sends a signal and waits until the daemon says what matches:
// signal NAME HUP PATTERN
func signalDaemon(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 3 && args[1] == "HUP", "signal NAME HUP PATTERN")
	p := running(ts, args[0])
	before, pattern := len(p.text()), regexp.MustCompile("(?m)"+args[2])
	ts.Check(p.cmd.Process.Signal(syscall.SIGHUP))
	p.await(ts, func() bool { return pattern.MatchString(p.text()[before:]) })
}

// end ends a daemon in order; it must end with success: end NAME
func endDaemon(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "end NAME")
	p := running(ts, args[0])
	ts.Check(p.cmd.Process.Signal(syscall.SIGTERM))
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		ts.Fatalf("rmsd ended with %d:\n%s", code, p.text())
	}
	delete(sessionOf(ts).daemons, args[0])
}

// crash ends a daemon at once: crash NAME
func crashDaemon(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 1, "crash NAME")
	p := running(ts, args[0])
	_ = p.cmd.Process.Kill()
	<-p.exited
	delete(sessionOf(ts).daemons, args[0])
}

func (s *session) killAll() {
	for _, p := range s.daemons {
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// capture sets a variable to what a pattern's group matches in the last
// output: capture NAME stdout|stderr PATTERN
func capture(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 3, "capture NAME stdout|stderr PATTERN")
	m := regexp.MustCompile("(?m)" + args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(m) != 2 {
		ts.Fatalf("%s does not match", args[2])
	}
	ts.Setenv(args[0], m[1])
}

// mode wants a file to have a mode: mode 0660 FILE
func mode(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "mode 0660 FILE")
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// client speaks to a daemon as a user: of the script's provider, or with the
// token that rmsd dev wrote for them.
func client(ts *testscript.TestScript, name, tenant, user string) (*daemontest.Client, daemontest.Who) {
	ca := ts.MkAbs("ca.pem")
	token, err := sessionOf(ts).idp.MintToken(user)
	ts.Check(err)
	if contexts := ts.Getenv(name + "_CONTEXTS"); contexts != "" {
		dir := filepath.Dir(contexts)
		ca = filepath.Join(dir, "tls", "ca.pem")
		b, err := os.ReadFile(filepath.Join(dir, "tokens", user))
		ts.Check(err)
		token = strings.TrimSpace(string(b))
	}
	b, err := os.ReadFile(ca)
	ts.Check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	c, err := daemontest.Dial(ts.Getenv(name+"_ADDRESS"), tenant, pool)
	ts.Check(err)
	who, err := daemontest.Person(token)
	ts.Check(err)
	return c, who
}

// protect publishes a document that bob may open, and keeps its publishing
// license and its key in FILE and FILE.key; a refusal must have the reason:
// protect NAME TENANT USER FILE, ! protect NAME TENANT USER REASON
func protect(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, len(args) == 4, "[!] protect NAME TENANT USER FILE|REASON")
	c, who := client(ts, args[0], args[1], args[2])
	defer c.Close()
	doc, err := c.Publish(context.Background(), who, &rmsv1.PublishRequest{Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
		Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
	}}})
	if answered(ts, neg, err, args[3]) {
		ts.Check(os.WriteFile(ts.MkAbs(args[3]), doc.PL, 0o600))
		ts.Check(os.WriteFile(ts.MkAbs(args[3]+".key"), doc.Key.Reveal(), 0o600))
	}
}

// open opens what protect made and compares the key:
// open NAME TENANT USER FILE, ! open NAME TENANT USER FILE REASON
func open(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, len(args) == 4 && !neg || len(args) == 5 && neg, "open NAME TENANT USER FILE, ! open NAME TENANT USER FILE REASON")
	c, who := client(ts, args[0], args[1], args[2])
	defer c.Close()
	pl, err := os.ReadFile(ts.MkAbs(args[3]))
	ts.Check(err)
	got, err := c.Acquire(context.Background(), who, pl, nil)
	if answered(ts, neg, err, args[len(args)-1]) && string(got.Key.Reveal()) != ts.ReadFile(args[3]+".key") {
		ts.Fatalf("another content key came")
	}
}

// answered reports success, or checks that the refusal is the one expected.
func answered(ts *testscript.TestScript, neg bool, err error, reason string) bool {
	switch {
	case !neg:
		ts.Check(err)
		return true
	case err == nil:
		ts.Fatalf("not refused")
	case string(daemontest.Reason(err)) != reason:
		ts.Fatalf("refused with %v, want %s", err, reason)
	}
	return false
}

// damage changes the store behind the daemon's back, as a person with a tool
// for its file format could: damage STORE change|delete TABLE changes a bit of
// the last value of a table, in its first byte, or deletes its last row.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 3, "damage STORE change|delete TABLE")
	db, err := bolt.Open(bolt.Options{Path: ts.MkAbs(args[0]), Stamp: store.Production, Schema: record.Schema})
	ts.Check(err)
	table := store.Table(args[2])
	err = db.Commit(context.Background(), func(tx store.Tx) error {
		for last, err := range tx.Scan(table, store.Range{Reverse: true}) {
			if err != nil {
				return err
			}
			k, v := slices.Clone(last.Key), slices.Clone(last.Value)
			if args[1] == "delete" {
				return tx.Delete(table, k)
			}
			v[0] ^= 1
			return tx.Put(table, k, v)
		}
		return fmt.Errorf("%s is empty", table)
	})
	ts.Check(errors.Join(err, db.Close()))
}

// flip changes one bit of a file: flip FILE OFFSET, from the end if negative.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, !neg && len(args) == 2, "flip FILE OFFSET")
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	i, err := strconv.Atoi(args[1])
	ts.Check(err)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	ts.Check(os.WriteFile(path, b, 0o600))
}
