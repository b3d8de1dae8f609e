package rmsctl_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// exits runs rmsctl and wants an exit code: exits CODE [ARGS…]
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE [ARGS…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec("rmsctl", args[1:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// capture sets a variable to what a pattern's group matches in the last
// output: capture NAME stdout|stderr PATTERN
func capture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: capture NAME stdout|stderr PATTERN")
	}
	re, err := regexp.Compile("(?m)" + args[2])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile(args[1]))
	if len(m) != 2 {
		ts.Fatalf("%s does not match", args[2])
	}
	ts.Setenv(args[0], m[1])
}

// flip changes one bit of a file: flip FILE OFFSET, from the end if negative.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
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

// sshkey writes a person's SSH key, made of the name, as ssh-keygen would: NAME
// and NAME.pub. All of them are test values: sshkey NAME…
func sshkey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: sshkey NAME…")
	}
	for _, name := range args {
		seed := sha256.Sum256([]byte("a test value: " + name))
		key := ed25519.NewKeyFromSeed(seed[:])
		block, err := ssh.MarshalPrivateKey(key, "a test value")
		ts.Check(err)
		public, err := ssh.NewPublicKey(key.Public())
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(name), pem.EncodeToMemory(block), 0o600))
		ts.Check(os.WriteFile(ts.MkAbs(name+".pub"), ssh.MarshalAuthorizedKey(public), 0o600))
	}
}

// sshagent starts an agent that has the keys of sshkey: sshagent NAME…
func sshagent(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: sshagent NAME…")
	}
	ring := agent.NewKeyring()
	for _, name := range args {
		key, err := ssh.ParseRawPrivateKey([]byte(ts.ReadFile(name)))
		ts.Check(err)
		ts.Check(ring.Add(agent.AddedKey{PrivateKey: key}))
	}
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	ts.Check(err)
	path := filepath.Join(dir, "s")
	l, err := new(net.ListenConfig).Listen(context.Background(), "unix", path)
	ts.Check(err)
	ts.Defer(func() {
		_ = l.Close()
		_ = os.RemoveAll(dir)
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = agent.ServeAgent(ring, conn)
				_ = conn.Close()
			}()
		}
	}()
	ts.Setenv("SSH_AUTH_SOCK", path)
}
