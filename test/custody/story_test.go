package custody_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openrms/rms"
	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/test/rmsdtest"
)

// story is the life of a tenant's key, played with the real programs: people at
// a desk with rmsctl, one daemon throughout, a real Vault, and readers who open
// documents all the time.
type story struct {
	*desk
	site  *rmsdtest.Site
	vault *realvault.Server
	mount *realvault.Tenant

	readers *readers
	rounds  int
}

// paper is a document at the desk.
type paper struct {
	name   string
	plain  [32]byte // SHA-256 of what was protected
	strict bool
	round  int // after how many rotations it was published
}

// readers open papers one after the other, as many at a time as there are
// clients, and compare what they read.
type readers struct {
	t      *testing.T
	dir    string
	mu     sync.Mutex
	papers []*paper
	stops  map[string]ordered // papers that need not, or must not, open now
	moved  uint64             // grows when stops changes

	opened, refused atomic.Int64
	longest         atomic.Int64 // pause between two opens of anybody, in ms
}

func (r *readers) add(p *paper) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.papers = append(r.papers, p)
}

// ordered is what was ordered about a paper.
type ordered int

const (
	opens   ordered = iota
	either          // the order is being given
	stopped         // must not open
)

// expect says what becomes of some papers from now on; all others open.
func (r *readers) expect(what ordered, papers ...*paper) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stops = map[string]ordered{}
	for _, p := range papers {
		r.stops[p.name] = what
	}
	r.moved++
}

func (r *readers) look(i int) (p *paper, what ordered, moved uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p = r.papers[i%len(r.papers)]
	return p, r.stops[p.name], r.moved
}

// read opens papers until ctx ends.
func (r *readers) read(ctx context.Context, c *rms.Client, from int) {
	for i := from; ctx.Err() == nil; i++ {
		p, what, moved := r.look(i)
		err := r.open(ctx, c, p)
		if _, _, now := r.look(i); now != moved || ctx.Err() != nil {
			continue // another order came meanwhile
		}
		switch {
		case err == nil && what != stopped:
			r.opened.Add(1)
		case what != opens && errors.Is(err, rms.ReasonKeySuspended):
			r.refused.Add(1)
		default:
			r.t.Errorf("%s, of which %d was ordered: %v", p.name, what, err)
			return
		}
	}
}

func (r *readers) open(ctx context.Context, c *rms.Client, p *paper) error {
	f, err := os.Open(filepath.Join(r.dir, p.name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	d, err := c.Open(ctx, f, info.Size(), rms.RightView)
	if err != nil {
		return err
	}
	defer d.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(d, 0, d.Size)); err != nil {
		return err
	}
	if [32]byte(h.Sum(nil)) != p.plain {
		return errors.New("the plaintext is another")
	}
	return nil
}

// protect publishes papers as alice: one that follows the strict template and
// one of cached custody.
func (s *story) protect() (strict, cached *paper) {
	s.t.Helper()
	write := func(kind string, args ...string) *paper {
		content := make([]byte, 2000)
		_, _ = rand.Read(content)
		name := fmt.Sprintf("%s-%d-%d", kind, s.rounds, len(s.readers.papers))
		s.write(name, content)
		s.run("alice", append([]string{"protect", name, "--rm"}, args...)...)
		p := &paper{name: name + ".rms", plain: sha256.Sum256(content), strict: kind == "strict", round: s.rounds}
		s.readers.add(p)
		return p
	}
	return write("strict", "--template", "strict"), write("cached", "--to", "bob@contoso.test=viewer")
}

func (s *story) client(user string) *rms.Client {
	s.t.Helper()
	c, err := s.site.Client(s.t, user)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// token makes a token that has one policy and no other.
func (s *story) token(policy, text string) string {
	s.t.Helper()
	ctx := s.t.Context()
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	err := s.vault.Request(ctx, http.MethodPut, "sys/policies/acl/"+policy, map[string]string{"policy": text}, nil)
	if err == nil {
		err = s.vault.Request(ctx, http.MethodPost, "auth/token/create", map[string]any{
			"policies": []string{policy}, "no_default_policy": true, "ttl": "1h",
		}, &made)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return made.Auth.Token
}

// TestStory is the whole of it, with nothing in between that a key custodian
// could not do: no document is touched, and nothing fails to open that was not
// ordered to.
func TestStory(t *testing.T) {
	v := vaulttest.Start(t)
	mount, err := v.AddMount(t.Context(), rmsdtest.Tenant)
	if err != nil {
		t.Fatal(err)
	}
	site := rmsdtest.New(t, rmsdtest.Embedded)
	p := site.Start(t, rmsdtest.Build(t, ""))
	p.AwaitServing(t)
	s := &story{desk: newDesk(t, site), site: site, vault: v, mount: mount}
	s.readers = &readers{t: t, dir: s.dir}
	s.write("strict.yaml", []byte(`
kind: Template
id: strict
names: {en: Strict}
state: published
custody: strict
expires: never
offline: 0
contact: rights-help@contoso.test
grants: [{to: "user:bob@contoso.test", rights: viewer}]
`))
	s.run("alice", "template", "apply", "-f", "strict.yaml")
	first, _ := s.protect()

	// Everybody reads, from here to the end.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var reading sync.WaitGroup
	began := time.Now()
	for i := range 4 {
		c := s.client("bob")
		reading.Go(func() { s.readers.read(ctx, c, i) })
	}
	defer reading.Wait()
	defer stop()

	s.chapter("a key in Vault, made there", func() {
		s.site.SetCustodians(custodians(v, map[string]*realvault.Tenant{"contoso-vault": mount}))
		s.operator("reload")
		s.withVault(v, s.token("officer", vaultpolicy.CustodyOfficer(mount.Mount, mount.Policy)))
		s.run("carla", "key", "create", "root", "--custodian", "contoso-vault")
		s.run("carla", "key", "register", "vault-root", "--custodian", "contoso-vault", "--root-key", "root")
		s.run("carla", "key", "activate", "vault-root")
		s.protect()
	})

	brought := make([]byte, 32)
	_, _ = rand.Read(brought) // a test value
	s.chapter("a key that is brought", func() {
		s.write("hsm.hex", []byte(hex.EncodeToString(brought)))
		s.run("carla", "key", "import", "hsm.hex", "--name", "byok", "--custodian", "contoso-vault", "--dry-run")
		s.run("carla", "key", "import", "hsm.hex", "--name", "byok", "--custodian", "contoso-vault")
		s.ends(3, "Give its login the policy", "carla", "key", "register", "byok", "--custodian", "contoso-vault", "--provenance", "byok.provenance.json")
		if err := mount.SetPolicy(t.Context(), vaultpolicy.Daemon(mount.Mount, "root", "byok")); err != nil {
			t.Fatal(err)
		}
		s.run("carla", "key", "register", "byok", "--custodian", "contoso-vault", "--provenance", "byok.provenance.json")
		s.run("carla", "key", "prove", "byok", "--with", "hsm.hex")
		s.write("other.hex", bytes.Repeat([]byte("0123456789abcdef"), 4))
		s.run("carla", "key", "activate", "byok")
		if shown := s.run("erin", "key", "show", "byok"); !strings.Contains(shown, "imported") || !strings.Contains(shown, "proven") {
			t.Errorf("the key is shown without where it comes from:\n%s", shown)
		}
		s.protect()
	})

	var middle []*paper
	s.chapter("three rotations", func() {
		s.ends(6, "--generate-in-vault", "carla", "key", "rotate", "byok")
		for n := range 3 {
			next := make([]byte, 32)
			_, _ = rand.Read(next) // a test value
			s.write("next.hex", []byte(hex.EncodeToString(next)))
			if n < 2 {
				s.run("carla", "key", "rotate", "byok", "--import", "next.hex")
			} else {
				s.run("carla", "key", "rotate", "byok", "--generate-in-vault")
			}
			s.rounds++
			strict, cached := s.protect()
			if s.rounds == 2 {
				middle = append(middle, strict, cached)
			}
		}
	})

	s.chapter("a version in the middle is suspended, and resumed", func() {
		s.readers.expect(either, middle...)
		s.run("dan", "key", "suspend", "byok", "v3", "--reason", "a rehearsal")
		s.readers.expect(stopped, middle...) // exactly these
		before := s.readers.refused.Load()
		s.until("the suspended version refuses", func() bool { return s.readers.refused.Load() > before+10 })
		s.readers.expect(either, middle...)
		s.run("dan", "key", "resume", "byok", "v3")
		s.readers.expect(opens)
	})

	s.settle()
	stop()
	reading.Wait()
	if rate := float64(s.readers.opened.Load()) / time.Since(began).Seconds(); rate < 50 {
		t.Errorf("%.0f opens a second throughout, want 50", rate)
	}
	t.Logf("%d opens and %d ordered refusals in %s", s.readers.opened.Load(), s.readers.refused.Load(), time.Since(began).Round(time.Second))
	_ = first
}

// chapter is a part of the story, between two looks at the files.
func (s *story) chapter(name string, fn func()) {
	s.t.Helper()
	s.t.Logf("-- %s", name)
	before := s.hashes()
	fn()
	s.settle()
	for file, h := range s.hashes() {
		if old, there := before[file]; there && old != h {
			s.t.Errorf("%s: %s was changed", name, file)
		}
	}
}

// settle lets the readers open every paper once more.
func (s *story) settle() {
	s.t.Helper()
	s.readers.mu.Lock()
	n := int64(len(s.readers.papers))
	s.readers.mu.Unlock()
	before := s.readers.opened.Load()
	s.until("the readers go on", func() bool { return s.readers.opened.Load() >= before+2*n })
}

// until waits for something that comes by itself.
func (s *story) until(what string, fn func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !fn() {
		if s.t.Failed() || time.Now().After(deadline) {
			s.t.Fatalf("waiting until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// operator runs rmsd on the host.
func (s *story) operator(args ...string) string {
	s.t.Helper()
	out, err := exec.CommandContext(s.t.Context(), rmsdtest.Build(s.t, ""), slices.Concat(args, []string{"-c", s.site.Config})...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("rmsd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
