package custody_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/test/rmsdtest"
)

// desk is where people work with rmsctl, each in a context of their own.
type desk struct {
	t       *testing.T
	dir     string // what they have at hand, and write
	config  string // the contexts
	program string
	env     []string
}

func newDesk(t *testing.T, site *rmsdtest.Site) *desk {
	t.Helper()
	return &desk{t: t, dir: t.TempDir(), config: site.Contexts(t), program: rmsdtest.BuildClient(t)}
}

// try runs rmsctl as a person and returns what it prints, and how it ends.
func (d *desk) try(who string, args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	cmd := exec.CommandContext(d.t.Context(), d.program, append([]string{"-c", who}, args...)...)
	cmd.Dir = d.dir
	cmd.Env = append([]string{"RMS_CONFIG_DIR=" + d.config, "HOME=" + d.dir, "PATH=" + os.Getenv("PATH")}, d.env...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited { //nolint:errorlint // as os/exec documents it
		d.t.Fatal(err)
	}
	return out.String(), talk.String(), cmd.ProcessState.ExitCode()
}

// run is try for what must succeed; it returns what is printed.
func (d *desk) run(who string, args ...string) string {
	d.t.Helper()
	out, talk, code := d.try(who, args...)
	if code != 0 {
		d.t.Fatalf("%s: rmsctl %s: exit code %d\n%s%s", who, strings.Join(args, " "), code, out, talk)
	}
	d.t.Logf("%s $ rmsctl %s\n%s%s", who, strings.Join(args, " "), out, talk)
	return out
}

// ends is try for what must end with an exit code, and say something.
func (d *desk) ends(code int, says, who string, args ...string) {
	d.t.Helper()
	out, talk, got := d.try(who, args...)
	if got != code || !strings.Contains(out+talk, says) {
		d.t.Errorf("%s: rmsctl %s: exit code %d, want %d and %q\n%s%s", who, strings.Join(args, " "), got, code, says, out, talk)
	}
}

// write writes a file at the desk.
func (d *desk) write(name string, content []byte) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), content, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// hashes are those of all protected files at the desk.
func (d *desk) hashes() map[string][32]byte {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.dir, "*.rms"))
	if err != nil {
		d.t.Fatal(err)
	}
	out := map[string][32]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			d.t.Fatal(err)
		}
		out[filepath.Base(f)] = sha256.Sum256(b)
	}
	return out
}

// withVault lets everybody at the desk act on a Vault with a token of theirs.
func (d *desk) withVault(v *realvault.Server, token string) {
	d.env = []string{"VAULT_TOKEN=" + token, "VAULT_CACERT=" + v.CAFile}
}

// custodians are those of a tenant's file: its keyring, and its mounts of a
// Vault, by name.
func custodians(v *realvault.Server, mounts map[string]*realvault.Tenant) string {
	out := "{keyring: {embedded: {}}"
	for name, m := range mounts {
		out += fmt.Sprintf(
			", %s: {vault: {address: %q, ca: %q, mount: %s, cluster_id: %s}, approle: {role: %s, role_id_file: %q, secret_id_file: %q, wrapped: true}}",
			name, v.Address, v.CAFile, m.Mount, v.ClusterID, m.Role, m.RoleIDFile, m.SecretIDFile)
	}
	return out + "}"
}
