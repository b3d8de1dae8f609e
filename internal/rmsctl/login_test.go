package rmsctl_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/rmsctl"
)

// ctl runs rmsctl in this process.
func ctl(args ...string) (exit int, stdout, stderr string) {
	var out, talk bytes.Buffer
	exit = rmsctl.Run(args, strings.NewReader(""), &out, &talk)
	return exit, out.String(), talk.String()
}

// loginByCode signs a user in with a code, as somebody at a phone would
// confirm it.
func loginByCode(t *testing.T, h *daemon.Dev, user string, args ...string) (exit int, stderr string) {
	t.Helper()
	reader, writer := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- rmsctl.Run(append(args, "--device"), strings.NewReader(""), io.Discard, writer)
		_ = writer.Close()
	}()
	code := regexp.MustCompile(`enter the code (\S+) `)
	var talk strings.Builder
	for lines := bufio.NewScanner(reader); lines.Scan(); {
		talk.WriteString(lines.Text() + "\n")
		if m := code.FindStringSubmatch(lines.Text()); m != nil {
			check(t, h.IDP.ApproveDevice(m[1], user))
		}
	}
	return <-done, talk.String()
}

func TestLogin(t *testing.T) {
	h := startDaemon(t)
	mine := contexts.At(filepath.Join(t.TempDir(), "rmsctl"))
	t.Setenv(contexts.FolderVariable, mine.Path())

	// The daemon's certificate is not a public authority's.
	exit, _, talk := ctl("login", h.Addr(), "--device")
	if exit != 8 || !strings.Contains(talk, "--ca FILE") {
		t.Fatalf("without --ca: exit %d, %s", exit, talk)
	}
	// A root that is not the one I was told.
	other := contexts.KeyID{1}.String()
	exit, _, talk = ctl("login", h.Addr(), "--ca", h.CAFile(), "--device", "--root", other)
	if exit != 8 || !strings.Contains(talk, "TRUST_ROOT_MISMATCH") {
		t.Fatalf("with another root: exit %d, %s", exit, talk)
	}
	if names, err := mine.Names(); err != nil || len(names) != 0 {
		t.Fatalf("a refused login left contexts: %v, %v", names, err)
	}

	exit, talk = loginByCode(t, h, "alice", "login", h.Addr(), "--ca", h.CAFile())
	want := regexp.MustCompile(`signed in as alice@contoso.test \(dev-contoso, \d+ min\), tenant contoso; root key SHA256:\S{43} saved in context contoso\n`)
	if exit != 0 || !want.MatchString(talk) {
		t.Fatalf("exit %d, %s", exit, talk)
	}
	c, err := mine.Read("contoso")
	check(t, err)
	if c.Bundle == "" || len(c.Roots) != 1 || c.SignIn == nil || c.SignIn.Account != "alice@contoso.test" {
		t.Errorf("the context: %+v", c)
	}
	for _, path := range []string{mine.SignInPath("contoso"), filepath.Join(mine.Path(), "contexts", "contoso.yaml")} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	if exit, out, talk := ctl("tenant", "show"); exit != 0 || !strings.Contains(out, "offline-max") {
		t.Errorf("as alice: exit %d, %s%s", exit, out, talk)
	}
	if exit, out, _ := ctl("whoami"); exit != 0 || !strings.Contains(out, "alice@contoso.test (dev-contoso)") {
		t.Errorf("whoami: exit %d, %s", exit, out)
	}

	// A root that is not the one pinned here.
	for _, where := range [][]string{{}, {h.Addr()}} {
		exit, _, talk := ctl(append([]string{"login", "--device", "--root", other}, where...)...)
		if exit != 8 || !strings.Contains(talk, "has another root pinned") {
			t.Errorf("again at %v with another root: exit %d, %s", where, exit, talk)
		}
	}

	// Sign out and in again: the pin stays, the person may change.
	if exit, _, talk := ctl("logout"); exit != 0 {
		t.Errorf("logout: exit %d, %s", exit, talk)
	}
	if exit, _, talk := ctl("tenant", "show"); exit != 4 || !strings.Contains(talk, "Sign in: rmsctl -c contoso login") {
		t.Errorf("signed out: exit %d, %s", exit, talk)
	}
	if exit, talk := loginByCode(t, h, "bob", "login"); exit != 0 || !strings.Contains(talk, "bob@contoso.test") {
		t.Errorf("again: exit %d, %s", exit, talk)
	}
	if exit, _, talk := ctl("tenant", "show"); exit != 3 {
		t.Errorf("as bob: exit %d, %s", exit, talk)
	}
}

// Somebody else's server at the same address does not get a token of ours.
func TestLoginKeepsToThePinnedTenant(t *testing.T) {
	h := startDaemon(t)
	mine := contexts.At(filepath.Join(t.TempDir(), "rmsctl"))
	t.Setenv(contexts.FolderVariable, mine.Path())
	if exit, talk := loginByCode(t, h, "alice", "login", h.Addr(), "--ca", h.CAFile()); exit != 0 {
		t.Fatal(talk)
	}
	impostor := startDaemon(t) // of the same tenant name, with other keys
	exit, _, talk := ctl("login", impostor.Addr(), "--ca", impostor.CAFile(), "--device")
	if exit != 6 || !strings.Contains(talk, "RESOURCE_EXISTS") {
		t.Errorf("another tenant of that name: exit %d, %s", exit, talk)
	}
	// The address now leads to the impostor, whose certificate is taken.
	pem, err := os.ReadFile(impostor.CAFile())
	check(t, err)
	check(t, mine.Update("contoso", func(c *contexts.Context) error {
		c.Server, c.CA = impostor.Addr(), string(pem)
		return nil
	}))
	exit, _, talk = ctl("login", "--device")
	if exit != 8 || !strings.Contains(talk, "TRUST_ROOT_MISMATCH") || strings.Contains(talk, "enter the code") {
		t.Errorf("the impostor: exit %d, %s", exit, talk)
	}
	if exit, out, _ := ctl("doctor"); exit != 8 || !strings.Contains(out, "✗ trust") {
		t.Errorf("doctor: exit %d, %s", exit, out)
	}
}

// The program itself, as it is installed.
func TestMainProgram(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "rmsctl")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", bin, "../../cmd/rmsctl")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, "frobnicate")
	err := cmd.Run()
	if err == nil || cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("%v", err)
	}
}
