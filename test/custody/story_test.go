package custody_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms"
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
	daemon  *rmsdtest.Process
	// Of the version in the middle: two papers, one strict, one not, and the
	// number of the generation that the latter is under.
	middle     []*paper
	generation string
}

// protect publishes papers as alice: one that follows the strict template and
// one of cached custody.
func (s *story) protect() []*paper {
	s.t.Helper()
	write := func(kind string, args ...string) *paper {
		content := make([]byte, 2000)
		_, _ = rand.Read(content)
		name := fmt.Sprintf("%s-%d", kind, len(s.readers.papers))
		s.write(name, content)
		s.run("alice", append([]string{"protect", name, "--rm"}, args...)...)
		p := &paper{name: name + ".rms", plain: sha256.Sum256(content)}
		s.readers.add(p)
		return p
	}
	return []*paper{write("strict", "--template", "strict"), write("cached", "--to", "bob@contoso.test=viewer")}
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
	s := &story{desk: newDesk(t, site), site: site, vault: v, mount: mount, daemon: p}
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
	s.run("erin", "audit", "verify", "--save", "first.checkpoint")
	s.protect()
	first := s.hashes()

	// Everybody reads, until the tenant leaves.
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

	s.chapter("a key in Vault, made there", s.generate)
	s.chapter("a key that is brought", s.bring)
	s.chapter("three rotations", s.rotate)
	s.chapter("a version in the middle is suspended, and resumed", s.suspend)
	s.chapter("two of three approve from now on", s.appoint)
	s.chapter("a generation is compromised, resealed and destroyed", s.compromise)
	s.chapter("the oldest version is destroyed in Vault", s.destroy)
	s.chapter("evidence", s.evidence)

	stop()
	reading.Wait()
	took := time.Since(began)
	if rate := float64(s.readers.opened.Load()) / took.Seconds(); rate < 50 {
		t.Errorf("%.0f opens a second throughout, want 50", rate)
	}
	t.Logf("%d opens and %d ordered refusals in %s", s.readers.opened.Load(), s.readers.refused.Load(), took.Round(time.Second))
	s.vaultSays()
	t.Log("-- the tenant leaves")
	s.leave()

	now := s.hashes()
	for file, h := range first {
		if now[file] != h {
			t.Errorf("%s was changed between the beginning and the end", file)
		}
	}
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
