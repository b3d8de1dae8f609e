package custody_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
	"github.com/openrms/rms/test/rmsdtest"
)

const root = "../.."

// TestCustodyGuide does what docs/custody.md says, with the commands as they
// stand there: it sets a tenant up, and publishes and opens under that key;
// turns the key off and on again; and rotates it.
func TestCustodyGuide(t *testing.T) {
	g := openGuide(t)
	g.run("1. A mount of its own", "")
	g.run("2. Policies", "")
	// What the custody officer does must need no more than his policy.
	officer := g.token("rms-contoso-officer")
	g.run("3. Both keys", officer)
	g.run("4. A login for rmsd", "")
	g.run("6. An audit device", "")

	site := rmsdtest.New(t, "\n"+indent(g.only("5. The tenant's file", "yaml")))
	beside := g.only("5. The tenant's file", "sh") // for a key that is added
	site.Start(t, rmsdtest.Build(t, "")).AwaitServing(t)
	o := &outage{site: site, bob: site.Caller(t, "bob")}
	o.setUp(t)
	expect := func(when string, reason vocab.Reason) {
		t.Helper()
		for kind, docs := range map[string][]*rmsdtest.Document{"strict": o.strict, "cached": o.cached} {
			if kind == "cached" && reason != "" {
				continue // opens for its TTL: see TestOutage
			}
			for _, d := range docs {
				if r := o.bob.Acquire(t.Context(), d); r.Reason != reason || (reason == "") != (r.Outcome == rmsdtest.Received) {
					t.Errorf("%s, a %s document gives %q: %v", when, kind, r.Reason, r.Err)
				}
			}
		}
	}
	expect("set up", "")

	// The policy for a second key is no less for the first one.
	g.sh("vault write -f transit-rms-contoso/keys/byok type=aes256-gcm96 derived=true", officer)
	g.sh(beside, "")
	expect("with a second key", "")

	off := g.all("Turning it off", "sh")
	if len(off) != 2 {
		t.Fatalf("turning it off takes %d blocks, want one for off and one for on", len(off))
	}
	g.sh(off[0], officer)
	expect("switched off", vocab.ReasonCustodianRefused)
	g.sh(off[1], "")
	expect("switched on", "")

	canary := g.all("Rehearsing the switch", "sh")
	if len(canary) != 3 {
		t.Fatalf("a rehearsal takes %d blocks, want one for the key, one for its policy and one to take that away", len(canary))
	}
	g.sh(canary[0], officer)
	for when, block := range map[string]string{"with a canary": canary[1], "with a canary refused": canary[2]} {
		g.sh(block, "")
		expect(when, "")
	}
	g.sh(canary[2], "")

	g.run("What happens when", officer)
	o.setUpMore(t)
	expect("rotated", "")
	if reads := strings.TrimSpace(g.sh(g.only("Evidence", "sh"), "")); reads == "" || reads == "0" {
		t.Errorf("Vault's audit file shows %q reads of the key", reads)
	}
}

// setUpMore publishes more strict documents, under the newest version.
func (o *outage) setUpMore(t *testing.T) {
	t.Helper()
	for range 3 {
		r := o.site.Caller(t, "alice").Publish(t.Context(), "strict")
		if r.Outcome != rmsdtest.Received {
			t.Fatal(r.Err)
		}
		o.strict = append(o.strict, r.Document)
	}
}

// guide is docs/custody.md with a Vault for its reader.
type guide struct {
	t      *testing.T
	text   string
	used   map[string]bool
	dir    string
	vault  *realvault.Server
	wanted []string // section and language of each block there is
}

func openGuide(t *testing.T) *guide {
	t.Helper()
	g := &guide{t: t, dir: t.TempDir(), used: map[string]bool{}, vault: vaulttest.Start(t)}
	page, err := os.ReadFile(filepath.Join(root, "docs", "custody.md"))
	if err != nil {
		t.Fatal(err)
	}
	// What the guide leaves to its reader.
	for _, dir := range []string{"etc/rmsd", "run/rmsd", "bin", "deploy"} {
		if err := os.MkdirAll(filepath.Join(g.dir, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	g.text = strings.NewReplacer(
		"https://vault.contoso.example:8200", g.vault.Address,
		"/etc/rmsd/vault-ca.pem", g.vault.CAFile,
		"7c1e0000-0000-4000-8000-000000000000", g.vault.ClusterID,
		"10.0.0.7/32", "127.0.0.1/32", " /var/log/vault/audit.log", " "+g.vault.AuditFile,
		"/etc/rmsd/", g.dir+"/etc/rmsd/", "/run/rmsd/", g.dir+"/run/rmsd/",
	).Replace(string(page))
	binary, err := realvault.Find()
	if err != nil {
		t.Fatal(err)
	}
	policies, err := filepath.Abs(filepath.Join(root, "deploy", "vault"))
	if err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"bin/vault": binary, "deploy/vault": policies} {
		if err := os.Symlink(from, filepath.Join(g.dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range g.blocks() {
		g.wanted = append(g.wanted, b.section+"|"+b.text)
	}
	t.Cleanup(func() {
		for _, b := range g.wanted {
			if !g.used[b] && !t.Failed() {
				t.Errorf("a block of the guide was not tried: %s", b)
			}
		}
	})
	return g
}

type block struct{ section, language, text string }

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$|^#+ ([^\n]*)$")

// blocks returns every block of the guide with its section.
func (g *guide) blocks() (out []block) {
	section := ""
	for _, m := range fence.FindAllStringSubmatch(g.text, -1) {
		if m[3] != "" {
			section = m[3]
			continue
		}
		out = append(out, block{section, m[1], m[2]})
	}
	return out
}

func (g *guide) all(section, language string) (out []string) {
	g.t.Helper()
	for _, b := range g.blocks() {
		if b.section == section && b.language == language {
			g.used[section+"|"+b.text] = true
			out = append(out, b.text)
		}
	}
	return out
}

func (g *guide) only(section, language string) string {
	g.t.Helper()
	found := g.all(section, language)
	if len(found) != 1 {
		g.t.Fatalf("section %q has %d blocks of %s, want 1", section, len(found), language)
	}
	return found[0]
}

func (g *guide) run(section, token string) {
	g.t.Helper()
	g.sh(g.only(section, "sh"), token)
}

// sh runs commands as the Vault's administrator, or with a token.
func (g *guide) sh(commands, token string) string {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), "bash", "-euo", "pipefail", "-c", commands)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), g.vault.Environment()...)
	cmd.Env = append(cmd.Env, "PATH="+filepath.Join(g.dir, "bin")+":"+os.Getenv("PATH"), "HOME="+g.dir)
	if token != "" {
		cmd.Env = append(cmd.Env, "VAULT_TOKEN="+token)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		g.t.Fatalf("%v\n%s\n%s", err, commands, out)
	}
	return string(out)
}

// token makes a token that has one policy and nothing else.
func (g *guide) token(policy string) string {
	g.t.Helper()
	return strings.TrimSpace(g.sh("vault token create -field=token -no-default-policy -policy="+policy, ""))
}

// indent makes a block the value of a key.
func indent(block string) string {
	_, body, _ := strings.Cut(block, "custodians:\n")
	return strings.TrimRight(body, "\n")
}
