package custody_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/openrms/rms"
	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/test/evidencetest"
	"github.com/openrms/rms/test/rmsdtest"
)

// generate moves the tenant from the service's own keyring to a key that Vault
// makes.
func (s *story) generate() {
	s.site.SetCustodians(custodians(s.vault, map[string]*realvault.Tenant{"contoso-vault": s.mount}))
	operate(s.t, rmsdtest.Build(s.t, ""), "reload", "-c", s.site.Config)
	s.withVault(s.vault, s.token("officer", vaultpolicy.CustodyOfficer(s.mount.Mount, s.mount.Policy)))
	s.run("carla", "key", "create", "root", "--custodian", "contoso-vault")
	s.run("carla", "key", "register", "vault-root", "--custodian", "contoso-vault", "--root-key", "root")
	s.run("carla", "key", "activate", "vault-root")
	s.protect()
}

// newKey leaves a 32-byte AES key, a test value, in a file of hexadecimal text.
func (s *story) newKey(name string) {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	s.write(name, []byte(hex.EncodeToString(key)))
}

// bring moves it to a key that was made outside of Vault.
func (s *story) bring() {
	s.newKey("hsm.hex")
	s.run("carla", "key", "import", "hsm.hex", "--name", "byok", "--custodian", "contoso-vault", "--dry-run")
	s.run("carla", "key", "import", "hsm.hex", "--name", "byok", "--custodian", "contoso-vault")
	s.ends(3, "Give its login the policy", "carla", "key", "register", "byok", "--custodian", "contoso-vault", "--provenance", "byok.provenance.json")
	if err := s.mount.SetPolicy(s.t.Context(), vaultpolicy.Daemon(s.mount.Mount, "root", "byok")); err != nil {
		s.t.Fatal(err)
	}
	s.run("carla", "key", "register", "byok", "--custodian", "contoso-vault", "--provenance", "byok.provenance.json")
	s.run("carla", "key", "prove", "byok", "--with", "hsm.hex")
	s.run("carla", "key", "activate", "byok")
	if shown := s.run("erin", "key", "show", "byok"); !strings.Contains(shown, "imported") || !strings.Contains(shown, "proven") {
		s.t.Errorf("the key is shown without where it comes from:\n%s", shown)
	}
	s.protect()
}

// rotate rotates it three times, and leaves what is wrapped under each version
// where it is.
func (s *story) rotate() {
	s.ends(6, "--generate-in-vault", "carla", "key", "rotate", "byok")
	s.newKey("second.hex")
	s.newKey("third.hex")
	for i, how := range [][]string{{"--import", "second.hex"}, {"--import", "third.hex"}, {"--generate-in-vault"}} {
		s.run("carla", append([]string{"key", "rotate", "byok", "--no-rewrap"}, how...)...)
		papers := s.protect()
		if i == 1 {
			s.middle = papers
		}
	}
	list := s.run("erin", "key", "inventory")
	row := regexp.MustCompile(`(?m)^g(\d+) +\S+ +byok +v3 `).FindStringSubmatch(list)
	if row == nil {
		s.t.Fatalf("no generation is under byok v3:\n%s", list)
	}
	s.generation = row[1]
	s.ends(6, "KEY_IN_USE", "carla", "--yes", "key", "destroy", "byok", "v1", "--despite-soak")
}

// suspend stops what is under the version in the middle, and nothing else. The end
// of it moves what was left where it was to the newest version.
func (s *story) suspend() {
	if set := s.run("erin", "key", "inventory", "byok", "v3"); !strings.Contains(set, "opens 2 documents of 1 owners") {
		s.t.Errorf("the inventory expects another set to stop:\n%s", set)
	}
	s.readers.expect(either, rms.ReasonKeySuspended, s.middle...)
	s.run("dan", "key", "suspend", "byok", "v3", "--reason", "a rehearsal")
	s.refuses(rms.ReasonKeySuspended, s.middle...)
	s.readers.expect(either, rms.ReasonKeySuspended, s.middle...)
	s.run("dan", "key", "resume", "byok", "v3")
	s.readers.expect(opens, nil)
}

// refuses waits until exactly these papers are refused, again and again.
func (s *story) refuses(reason error, papers ...*paper) {
	s.t.Helper()
	s.readers.expect(stopped, reason, papers...)
	before := s.readers.refused.Load()
	s.until("what was ordered to stop is refused", func() bool { return s.readers.refused.Load() > before+10 })
	s.settle()
}

// appoint makes carla, dan and grace approvers, two of whom must sign.
func (s *story) appoint() {
	file := "kind: Approvers\nthreshold: 2\napprovers:\n"
	for _, who := range []string{"carla", "dan", "grace"} {
		path := filepath.Join(s.dir, who+".ssh") // test keys
		if out, err := exec.CommandContext(s.t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path).CombinedOutput(); err != nil {
			s.t.Fatalf("ssh-keygen: %v\n%s", err, out)
		}
		public, err := os.ReadFile(path + ".pub")
		if err != nil {
			s.t.Fatal(err)
		}
		file += "  - {who: " + who + "@contoso.test, keys: [" + strings.TrimSpace(string(public)) + "]}\n"
	}
	s.write("approvers.yaml", []byte(file))
	id := s.asks("alice", "approver", "set", "-f", "approvers.yaml", "--reason", "the custody policy")
	s.ends(3, "SAME_PERSON", "alice", "--yes", "operation", "approve", id)
	s.run("carla", "--yes", "operation", "approve", id)
}

var operationID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`)

// asks runs what others must approve, and returns the operation.
func (s *story) asks(who string, args ...string) string {
	s.t.Helper()
	out, talk, code := s.try(who, append([]string{"--yes"}, args...)...)
	id := operationID.FindString(out + talk)
	if code != 10 || id == "" {
		s.t.Fatalf("%s: rmsctl %s: exit code %d, want 10 and an operation\n%s%s", who, strings.Join(args, " "), code, out, talk)
	}
	s.t.Logf("%s $ rmsctl %s\n%s%s", who, strings.Join(args, " "), out, talk)
	return id
}

// approve has people sign an operation that carla asked for, which she cannot.
func (s *story) approve(id string, people ...string) {
	s.t.Helper()
	s.ends(3, "SAME_PERSON", "carla", "--yes", "operation", "approve", id, "--sign", "carla.ssh")
	for i, who := range people {
		s.run(who, "--yes", "operation", "approve", id, "--sign", who+".ssh")
		if i == 0 {
			s.ends(3, "SAME_PERSON", who, "--yes", "operation", "approve", id, "--sign", who+".ssh")
		}
	}
}

// compromise ends the generation of the paper in the middle that is not strict.
func (s *story) compromise() {
	cached := s.middle[1]
	g := s.generation
	s.readers.expect(either, rms.ReasonKeyState, cached)
	s.run("carla", "--yes", "key", "compromise", "g"+g, "--reason", "seen in a core dump")
	s.refuses(rms.ReasonKeyState, cached)
	s.ends(6, "KEY_IN_USE", "carla", "--yes", "key", "destroy", "g"+g, "--despite-soak")
	s.readers.expect(either, rms.ReasonKeyState, cached)
	s.run("carla", "key", "reseal", "--generation", g)
	s.readers.expect(opens, nil)
	s.settle()

	id := s.asks("carla", "key", "destroy", "g"+g, "--despite-soak", "--reason", "compromised, and resealed")
	s.approve(id, "dan")
	s.ends(0, "awaiting approval", "erin", "operation", "show", id)
	s.ends(3, "ROLE_REQUIRED", "erin", "--yes", "operation", "approve", id, "--sign", "grace.ssh")
	s.run("grace", "--yes", "operation", "approve", id, "--sign", "grace.ssh")
	if list := s.run("erin", "key", "inventory"); !regexp.MustCompile(`(?m)^g` + g + ` +destroyed`).MatchString(list) {
		s.t.Errorf("g%s is not destroyed:\n%s", g, list)
	}
}

// destroy ends the first version of the key that was brought, here and in Vault.
func (s *story) destroy() {
	s.run("carla", "key", "rewrap")
	id := s.asks("carla", "key", "destroy", "byok", "v1", "--despite-soak", "--ticket", "CASE-77")
	s.approve(id, "grace", "dan")
	s.ends(3, "CUSTODIAN_REFUSED", "carla", "--yes", "key", "destroy", "byok", "v1", "--trim")
	s.write("destroyer", []byte(s.token("destroyer", vaultpolicy.Destroyer(s.mount.Mount))))
	s.run("carla", "--yes", "key", "destroy", "byok", "v1", "--trim", "--vault-token-file", "destroyer")
}

// evidence has all of it proven to somebody who trusts the root alone.
func (s *story) evidence() {
	s.run("erin", "key", "evidence", "-o", "story.zip", "--from", "first.checkpoint")
	s.run("erin", "key", "evidence", "verify", "story.zip", "--from", "first.checkpoint")
	bundle, err := os.ReadFile(filepath.Join(s.dir, "story.zip"))
	if err != nil {
		s.t.Fatal(err)
	}
	saved, err := os.ReadFile(filepath.Join(s.dir, "first.checkpoint"))
	if err != nil {
		s.t.Fatal(err)
	}
	var checkpoint struct {
		Note string `json:"note"`
	}
	if err := json.Unmarshal(saved, &checkpoint); err != nil {
		s.t.Fatal(err)
	}
	trust, err := daemontest.FetchTrust(s.t.Context(), s.site.Connect(s.t, nil), s.site.Name)
	if err != nil {
		s.t.Fatal(err)
	}
	evidencetest.Attack(s.t, evidencetest.NewVerifiers(s.t, verifier), bundle, trust.Roots[0], []byte(checkpoint.Note))
}

// vaultSays compares with what Vault has, and with its record of who did what.
func (s *story) vaultSays() {
	s.t.Helper()
	var key struct {
		Data struct {
			Exportable bool   `json:"exportable"`
			Derived    bool   `json:"derived"`
			Plain      bool   `json:"allow_plaintext_backup"`
			Deletion   bool   `json:"deletion_allowed"`
			Imported   bool   `json:"imported_key"`
			Type       string `json:"type"`
			Latest     int    `json:"latest_version"`
			Available  int    `json:"min_available_version"`
		} `json:"data"`
	}
	if err := json.Unmarshal(s.vaultCLI("read", "-format=json", s.mount.Mount+"/keys/byok"), &key); err != nil {
		s.t.Fatal(err)
	}
	if k := key.Data; k.Exportable || k.Plain || k.Deletion || !k.Derived || k.Type != "aes256-gcm96" || k.Latest != 4 || k.Available != 2 {
		s.t.Errorf("Vault has the key as %+v", k)
	}

	acts := regexp.MustCompile(`^` + s.mount.Mount + `/(keys/\w+/(rotate|config|trim|import|import_version)|export/.*|backup/.*|restore.*)$`)
	entries, err := s.vault.ReadAudit()
	if err != nil {
		s.t.Fatal(err)
	}
	did, daemon := map[string]int{}, 0
	for _, e := range entries {
		if e.Type != "response" || e.Error != "" {
			continue
		}
		if e.Auth.DisplayName == "approle" {
			daemon++
		}
		if m := acts.FindStringSubmatch(e.Request.Path); m != nil {
			did[strings.TrimPrefix(e.Request.Path, s.mount.Mount+"/")+" by "+strings.Join(e.Auth.Policies, ",")+" as "+e.Auth.DisplayName]++
		}
	}
	for act, n := range did {
		s.t.Logf("Vault's audit file: %d %s", n, act)
		if strings.HasSuffix(act, " as approle") {
			s.t.Errorf("the service did %s", act)
		}
	}
	for act, n := range map[string]int{
		"keys/byok/import by officer as token": 1, "keys/byok/import_version by officer as token": 2,
		"keys/byok/rotate by officer as token": 1, "keys/byok/trim by destroyer as token": 1,
	} {
		if did[act] != n {
			s.t.Errorf("Vault's audit file has %d times %s, want %d", did[act], act, n)
		}
	}
	if daemon == 0 {
		s.t.Error("Vault's audit file has nothing of the service")
	}
}

// vaultCLI runs Vault's own client, with a token that reads keys.
func (s *story) vaultCLI(args ...string) []byte {
	s.t.Helper()
	binary, err := realvault.Find()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), binary, args...)
	cmd.Env = []string{
		"HOME=" + s.dir, "VAULT_ADDR=" + s.vault.Address, "VAULT_CACERT=" + s.vault.CAFile,
		"VAULT_TOKEN=" + s.token("reader", `path "`+s.mount.Mount+`/keys/*" { capabilities = ["read"] }`),
	}
	var talk bytes.Buffer
	cmd.Stderr = &talk
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("vault %s: %v\n%s", strings.Join(args, " "), err, talk.Bytes())
	}
	return out
}

// leave takes the tenant to another daemon with a Vault of its own. The first
// daemon and its mount are gone when the first documents are opened there. At the
// end the hashes are those of all files.
func (s *story) leave() {
	t, binary := s.t, rmsdtest.Build(s.t, "")
	to := vaulttest.Start(t)
	place := vaulttest.Tenant(t, to, rmsdtest.Tenant)

	key := filepath.Join(t.TempDir(), "move.key")
	s.write("new-service.pub", []byte(operate(t, binary, "import-key", "-o", key)))
	id := s.asks("carla", "tenant", "export", "--to", "new-service.pub", "--reason", "we run our own")
	s.approve(id, "dan", "grace")
	s.ends(3, "TENANT_FROZEN", "bob", "open", s.readers.papers[0].name, "--with", "cat")
	out := s.run("carla", "tenant", "export", "--operation", id, "-o", "contoso.rmx")
	root := regexp.MustCompile(`signed by root (SHA256:[A-Za-z0-9+/]{43})`).FindStringSubmatch(out)
	if root == nil {
		t.Fatal("no root is named")
	}
	if err := s.daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := s.vault.Request(t.Context(), http.MethodDelete, "sys/mounts/"+s.mount.Mount, nil, nil); err != nil {
		t.Fatal(err)
	}

	next := s.site.On(t, filepath.Join(t.TempDir(), "data"))
	next.SetCustodians(onlyMount(to, place))
	next.Verifier = nil // people sign in anew, and pin the root that is there
	t.Logf("$ rmsd import\n%s", operate(t, binary, "import", filepath.Join(s.dir, "contoso.rmx"),
		"-c", next.Config, "--tenant", rmsdtest.Tenant, "--key", key, "--root", root[1]))
	if err := place.Deliver(t.Context()); err != nil { // the import unwrapped the first secret ID
		t.Fatal(err)
	}
	next.Start(t, binary).AwaitServing(t)
	bob, err := next.Client(t, "bob")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.readers.papers {
		if err := s.readers.open(t.Context(), bob, p); err != nil {
			t.Errorf("at the other service: %s: %v", p.name, err)
		}
	}
	there := &desk{t: t, dir: s.dir, config: next.Contexts(t), program: s.program}
	there.run("erin", "audit", "verify", "--from", "first.checkpoint")
}
