package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/rmsctl"
)

// The tests run the real programs: this binary, called rmsd or rmsctl.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"rmsd":   main,
		"rmsctl": func() { os.Exit(rmsctl.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// Each script in testdata is a session of an operator with rmsd. Beside the
// usual commands of testscript it has those of [commands], and finds in its
// directory the files of a TLS authority (ca.pem), of a server (server.pem,
// server.key) and of another (other.pem, other.key); ISSUER is an identity
// provider with the test users.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	rmsd, err := exec.LookPath("rmsd")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: func(env *testscript.Env) error { return enter(env, rmsd) },
		Cmds:  commands,
	})
}

// sessionKey finds the session of a script.
type sessionKey struct{}

func enter(env *testscript.Env, rmsd string) error {
	idp, err := devidp.Start(devidp.Options{})
	if err != nil {
		return err
	}
	env.Defer(func() { _ = idp.Close() })
	ca, err := daemontest.NewAuthority("test authority")
	if err != nil {
		return err
	}
	for _, name := range []string{"server", "other"} {
		pair, err := ca.Server(name)
		if err != nil {
			return err
		}
		if err := pair.Write(filepath.Join(env.WorkDir, name+".pem"), filepath.Join(env.WorkDir, name+".key")); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), ca.PEM, 0o600); err != nil {
		return err
	}
	s := &session{rmsd: rmsd, idp: idp, daemons: map[string]*process{}}
	env.Defer(s.killAll)
	env.Values[sessionKey{}] = s
	env.Setenv("ISSUER", idp.Issuer())
	env.Setenv("TMPDIR", env.WorkDir)
	return nil
}
