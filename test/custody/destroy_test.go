package custody_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/rmsctl"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
)

// terminal runs rmsctl as the people of a development daemon whose tenant key is
// in a real Vault.
type terminal struct {
	*testing.T
	vault  *realvault.Server
	tenant *realvault.Tenant
	dir    string
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	w := &terminal{T: t, vault: vaulttest.Start(t), dir: t.TempDir()}
	w.tenant = vaulttest.Tenant(t, w.vault, "contoso")
	dir, err := os.MkdirTemp("", "custody-") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d, err := daemon.StartDev(t.Context(), daemon.DevOptions{
		Dir: dir, Log: slog.New(slog.DiscardHandler), SyncEvery: time.Second,
		Custodians: map[string]config.Custodian{"vault": {
			Vault:   &config.Vault{Address: w.vault.Address, CA: w.vault.CAFile, Mount: w.tenant.Mount, ClusterID: w.vault.ClusterID},
			AppRole: &config.AppRole{Role: w.tenant.Role, RoleIDFile: w.tenant.RoleIDFile, SecretIDFile: w.tenant.SecretIDFile, Wrapped: true},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("RMS_CONFIG_DIR", d.ContextsDir())
	t.Setenv("VAULT_CACERT", w.vault.CAFile)
	t.Setenv("XDG_RUNTIME_DIR", "")
	return w
}

// token leaves a Vault token that has one of the shipped policies in a file.
func (w *terminal) token(name, policy string) string {
	w.Helper()
	var out struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	w.ask(http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": policy}, nil)
	w.ask(http.MethodPost, "auth/token/create", map[string]any{"policies": []string{name}, "no_default_policy": true}, &out)
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte(out.Auth.Token), 0o600); err != nil {
		w.Fatal(err)
	}
	return path
}

func (w *terminal) ask(method, path string, in, out any) {
	w.Helper()
	if err := w.vault.Request(w.Context(), method, path, in, out); err != nil {
		w.Fatal(err)
	}
}

// run runs rmsctl as somebody, wants an exit code and every pattern in what it
// prints, and returns that.
func (w *terminal) run(who string, code int, command string, patterns ...string) string {
	w.Helper()
	var out bytes.Buffer
	args := append([]string{"-c", "dev-" + who, "--yes"}, strings.Fields(command)...)
	if got := rmsctl.Run(args, strings.NewReader(""), &out, &out); got != code {
		w.Fatalf("rmsctl %s: exit code %d, want %d\n%s", strings.Join(args, " "), got, code, out.String())
	}
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).Match(out.Bytes()) {
			w.Fatalf("rmsctl %s does not print %s:\n%s", strings.Join(args, " "), p, out.String())
		}
	}
	return out.String()
}

// destroyed asks for a destruction as carla and approves it as dan.
func (w *terminal) approved(what string, patterns ...string) {
	w.Helper()
	said := w.run("carla", 10, "key destroy "+what+" --despite-soak", "bound to inventory [0-9a-f]{64}")
	id, _, _ := strings.Cut(said, " ")
	w.run("dan", 0, "operation approve "+id, patterns...)
}

// TestDestroyInVault is the end of versions of a tenant key on a real Vault: by
// two people in the service, and by the destroyer's own token in Vault.
func TestDestroyInVault(t *testing.T) {
	w := newTerminal(t)
	officer := w.token("officer", vaultpolicy.CustodyOfficer(w.tenant.Mount, w.tenant.Policy))
	destroyer := w.token("destroyer", vaultpolicy.Destroyer(w.tenant.Mount))
	for range 2 {
		w.run("carla", 0, "key rotate --vault-token-file "+officer)
	}
	file := filepath.Join(w.dir, "q3.txt")
	if err := os.WriteFile(file, []byte("the third quarter"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.run("alice", 0, "protect "+file+" --to bob@contoso.test=viewer")
	open := func(code int, patterns ...string) {
		w.Helper()
		w.run("bob", code, "open "+file+".rms --with cat", patterns...)
	}
	open(0)

	w.run("carla", 6, "key destroy root v1 --despite-soak", "1 generation g1.*KEY_IN_USE")
	w.approved("g1", "key-destroy is succeeded")
	w.approved("g2", "key-destroy is succeeded")

	// The middle one first: it is destroyed here at once, and there not yet.
	w.approved("root v2", "key-destroy is running")
	w.run("carla", 0, "key inventory", "^root +v2 +destroyed", "^root +v1 +deactivated")
	w.run("carla", 6, "key destroy root v2 --trim --vault-token-file "+destroyer, "oldest on only, and v1 is not destroyed: v2 stays there")
	w.run("carla", 6, "key destroy root v2 --done", "custodian still has it .*CUSTODIAN_ACTS|still has it")

	w.approved("root v1", "key-destroy is running")
	w.run("carla", 3, "key destroy root v1 --trim --vault-token-file "+officer) // an officer cannot
	w.run("carla", 0, "operation list --kind key-destroy", "running")
	said := w.run("carla", 0, "key destroy root v1 --trim --vault-token-file "+destroyer, "told: key-destroy is succeeded", "keys/root/trim +[0-9a-f-]{36}")
	request := regexp.MustCompile(`keys/root/trim +([0-9a-f-]{36})`).FindStringSubmatch(said)[1]
	log, err := os.ReadFile(w.vault.AuditFile)
	if err != nil || !bytes.Contains(log, []byte(request)) {
		t.Errorf("the act %s is not in Vault's audit file: %v", request, err)
	}
	list := w.run("erin", 0, "operation list --kind key-destroy -o json")
	if !strings.Contains(list, request) || strings.Contains(list, "STATE_RUNNING") && !w.settled() {
		t.Errorf("the operations do not name the act, or one goes on:\n%s", list)
	}
	var key struct {
		Data struct {
			Min uint32 `json:"min_available_version"`
		}
	}
	w.ask(http.MethodGet, w.tenant.Mount+"/keys/root", nil, &key)
	if key.Data.Min != 3 {
		t.Errorf("Vault has the key from version %d, want 3", key.Data.Min)
	}
	w.run("carla", 0, "key list", "root +active")
	open(0)
	w.run("carla", 0, "key inventory --verify", "records agree")
	if alarms := w.run("erin", 0, "audit search --kind alarm"); strings.Contains(alarms, "destroyed") {
		t.Errorf("what was approved is an alarm:\n%s", alarms)
	}

	// A whole key: made, registered, and never used. Its signing key is that of
	// root too, and stays.
	if err := w.tenant.SetPolicy(t.Context(), vaultpolicy.Daemon(w.tenant.Mount, "root", "spare")); err != nil {
		t.Fatal(err)
	}
	w.run("carla", 0, "key create spare --custodian vault --vault-token-file "+officer)
	w.run("carla", 0, "key register spare --custodian vault")
	w.approved("spare", "key-destroy is running")
	w.run("carla", 0, "key inventory", "^spare +v1 +destroyed")
	w.run("carla", 0, "key destroy spare --trim --vault-token-file "+destroyer, "the signing key sign stays: root has it too", "told: key-destroy is succeeded")
	if err := w.vault.Request(t.Context(), http.MethodGet, w.tenant.Mount+"/keys/spare", nil, nil); err == nil {
		t.Error("Vault has the key spare still")
	}
	w.run("carla", 0, "key list", "spare +destroyed", "root +active")
	open(0)
	if alarms := w.run("erin", 0, "audit search --kind alarm"); strings.Contains(alarms, "gone") || strings.Contains(alarms, "deletion") {
		t.Errorf("what was approved is an alarm:\n%s", alarms)
	}

	// What Vault cannot prevent: somebody with its rights turns deletion on, and
	// trims what nobody asked to destroy.
	w.ask(http.MethodPost, w.tenant.Mount+"/keys/root/config", map[string]any{"deletion_allowed": true}, nil)
	w.run("carla", 0, "key sync root")
	w.run("carla", 0, "key show root", "deletion_allowed is on for root")
	w.ask(http.MethodPost, w.tenant.Mount+"/keys/root/config", map[string]any{"deletion_allowed": false}, nil)
	w.run("carla", 0, "key rotate --vault-token-file "+officer)
	w.ask(http.MethodPost, w.tenant.Mount+"/keys/root/config", map[string]any{"min_decryption_version": 4, "min_encryption_version": 4}, nil)
	w.ask(http.MethodPost, w.tenant.Mount+"/keys/root/trim", map[string]any{"min_available_version": 4}, nil)
	w.run("carla", 0, "key sync root")
	w.run("carla", 0, "key show root", "its custodian destroyed v3, and nobody had asked for that here")
	w.run("erin", 0, "audit search --kind alarm -o json", "KEY_ATTRIBUTES_UNSAFE", "destroyed v3 of key root")
	w.run("carla", 0, "key inventory", "^root v3: its custodian does not have it any more")
}

// settled waits until no destruction runs any more: the service sees by itself
// what a trim took along.
func (w *terminal) settled() bool {
	w.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); wait(w.T, 200*time.Millisecond) {
		if !strings.Contains(w.run("erin", 0, "operation list --kind key-destroy"), "running") {
			return true
		}
	}
	return false
}
