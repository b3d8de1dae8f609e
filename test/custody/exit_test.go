package custody_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/test/rmsdtest"
)

// TestExit is a tenant that leaves: from one daemon and its Vault to another
// daemon with a Vault of its own, while the first daemon and its Vault are gone.
// No file is touched; what opened opens, and what did not does not.
func TestExit(t *testing.T) {
	ctx := t.Context()
	from, to := vaulttest.Start(t), vaulttest.Start(t)
	before, err := from.AddTenant(ctx, rmsdtest.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	after, err := to.AddTenant(ctx, rmsdtest.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	binary := rmsdtest.Build(t, "")
	site := rmsdtest.New(t, onlyMount(from, before))
	p := site.Start(t, binary)
	p.AwaitServing(t)
	d := newDesk(t, site)
	for name, custody := range map[string]string{"strict": "custody: strict\noffline: 0\n", "plans": "offline: 0\n"} {
		d.write(name+".yaml", fmt.Appendf(nil, `
kind: Template
id: %s
names: {en: %s}
state: published
%sexpires: never
contact: rights-help@contoso.test
grants: [{to: "user:bob@contoso.test", rights: viewer}]
`, name, name, custody))
		d.run("alice", "template", "apply", "-f", name+".yaml")
	}
	plain := map[string][]byte{}
	protect := func(name string, args ...string) {
		plain[name] = bytes.Repeat([]byte(name+"\n"), 500)
		d.write(name, plain[name])
		d.run("alice", append([]string{"protect", name, "--rm"}, args...)...)
	}
	protect("cached", "--to", "bob@contoso.test=viewer")
	protect("strict", "--template", "strict")
	protect("plan", "--template", "plans")
	protect("revoked", "--to", "bob@contoso.test=viewer")
	protect("not-for-bob", "--to", "carla@contoso.test=viewer")
	if err := before.Rotate(ctx, "root"); err != nil {
		t.Fatal(err)
	}
	d.run("carla", "key", "sync", "root")
	protect("strict-2", "--template", "strict")
	protect("cached-2", "--to", "bob@contoso.test=viewer")
	d.run("alice", "license", "revoke", "revoked.rms", "--reason", "a mistake")
	want := map[string]string{"revoked": "LICENSE_REVOKED", "not-for-bob": "NO_RIGHTS"}
	opens := func(d *desk, when string) {
		t.Helper()
		for name, content := range plain {
			got, talk, code := d.try("bob", "open", name+".rms", "--with", "cat")
			switch {
			case want[name] == "" && (code != 0 || got != string(content)):
				t.Errorf("%s, %s: exit code %d, %d bytes: %s", when, name, code, len(got), talk)
			case want[name] != "" && (code != 3 || !strings.Contains(talk, want[name])):
				t.Errorf("%s, %s: exit code %d: %s", when, name, code, talk)
			}
		}
	}
	opens(d, "at home")
	d.run("erin", "audit", "verify", "--save", "old.checkpoint")
	hashes := d.hashes()

	// Whoever runs the other service makes the key of the move.
	key := filepath.Join(t.TempDir(), "move.key")
	d.write("new-service.pub", []byte(operate(t, binary, "import-key", "-o", key)))

	_, talk, code := d.try("carla", "tenant", "export", "--to", "new-service.pub", "--reason", "we run our own")
	id := regexp.MustCompile(`operation ([0-9a-f-]{36})`).FindStringSubmatch(talk)
	if code != 10 || id == nil {
		t.Fatalf("asked for: exit code %d: %s", code, talk)
	}
	d.ends(6, "OPERATION_STATE", "carla", "tenant", "export", "--operation", id[1], "-o", "contoso.rmx")
	d.ends(3, "SAME_PERSON", "carla", "--yes", "operation", "approve", id[1])
	d.run("alice", "--yes", "operation", "approve", id[1])
	d.ends(3, "TENANT_FROZEN", "bob", "open", "cached.rms", "--with", "cat")
	d.ends(3, "TENANT_FROZEN", "alice", "license", "revoke", "cached.rms")
	out := d.run("carla", "tenant", "export", "--operation", id[1], "-o", "contoso.rmx")
	root := regexp.MustCompile(`signed by root (SHA256:[A-Za-z0-9+/]{43})`).FindStringSubmatch(out)
	if root == nil {
		t.Fatal("no root is named")
	}
	d.run("erin", "tenant", "residence")
	file, err := os.ReadFile(filepath.Join(d.dir, "contoso.rmx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, clear := range []string{"contoso.test", "bob@", "rights-help", "we run our own"} {
		if bytes.Contains(file, []byte(clear)) {
			t.Errorf("the archive shows %q", clear)
		}
	}

	// The first daemon and its Vault are gone.
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	from.Stop()

	next := site.On(t, filepath.Join(t.TempDir(), "data"))
	next.SetCustodians(onlyMount(to, after))
	next.Verifier = nil // people sign in anew, and pin the root that is there
	args := []string{"import", filepath.Join(d.dir, "contoso.rmx"), "-c", next.Config, "--tenant", rmsdtest.Tenant, "--key", key, "--root"}
	refused(t, "TRUST_ROOT_MISMATCH", binary, append(args, "SHA256:"+strings.Repeat("A", 43))...)
	imported := operate(t, binary, append(args, root[1])...)
	t.Logf("$ rmsd import\n%s", imported)
	refused(t, "RESOURCE_EXISTS", binary, append(args, root[1])...)
	// The import has unwrapped the secret ID that was delivered.
	if err := after.Deliver(ctx); err != nil {
		t.Fatal(err)
	}
	next.Start(t, binary).AwaitServing(t)
	there := &desk{t: t, dir: d.dir, config: next.Contexts(t), program: d.program}
	opens(there, "at the other service")
	there.run("erin", "audit", "verify", "--from", "old.checkpoint")
	there.run("erin", "audit", "verify")
	if list := there.run("carla", "key", "list"); strings.Count(list, "left behind where the tenant was") != 1 {
		t.Errorf("the key of the old Vault is not told apart:\n%s", list)
	}
	there.write("new", []byte("a document that was made here"))
	there.run("alice", "protect", "new", "--rm", "--template", "strict")
	there.run("bob", "open", "new.rms", "--with", "cat")
	for name, h := range hashes {
		if d.hashes()[name] != h {
			t.Errorf("%s was changed", name)
		}
	}
	if shown := there.run("erin", "tenant", "residence"); !strings.Contains(shown, "not frozen") || !strings.Contains(shown, root[1]) {
		t.Errorf("it does not show from where it came:\n%s", shown)
	}
}

// onlyMount is a tenant's mount of a Vault as its only custodian.
func onlyMount(v *realvault.Server, m *realvault.Tenant) string {
	return strings.Replace(custodians(v, map[string]*realvault.Tenant{"vault": m}), "keyring: {embedded: {}}, ", "", 1)
}

// operate runs rmsd on the host.
func operate(t *testing.T, binary string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	var talk bytes.Buffer
	cmd.Stderr = &talk
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("rmsd %s: %v\n%s%s", strings.Join(args, " "), err, out, talk.String())
	}
	return string(out)
}

// refused runs rmsd and wants it to fail with a reason.
func refused(t *testing.T, reason, binary string, args ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), reason) {
		t.Errorf("rmsd %s: %v, want %s\n%s", strings.Join(args, " "), err, reason, out)
	}
}
