package rmsctl_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/rmsctl"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"rmsctl": func() { os.Exit(rmsctl.Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// Each script is a session of users at a daemon of its own.
func TestSessions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	check(t, err)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			h := startDaemon(t)
			testscript.Run(t, testscript.Params{
				Files: []string{file},
				Setup: func(env *testscript.Env) error { return enter(env, h) },
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"exits":    exits,
					"capture":  capture,
					"flip":     flip,
					"sshkey":   sshkey,
					"sshagent": sshagent,
				},
			})
		})
	}
}

// enter sets the environment of a script.
func enter(env *testscript.Env, d *daemon.Dev) error {
	env.Setenv("RMS_CONFIG_DIR", d.ContextsDir())
	env.Setenv("ADDRESS", d.Addr())
	env.Setenv("CA", d.CAFile())
	env.Setenv("LANG", "C.UTF-8")
	env.Setenv("GORACE", os.Getenv("GORACE"))
	env.Setenv("XDG_RUNTIME_DIR", "")
	env.Setenv("SSH_AUTH_SOCK", "")
	return nil
}
