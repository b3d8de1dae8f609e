package faults_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/test/rmsdtest"
)

// TestKill ends the daemon with SIGKILL 200 times under 32 callers, at moments
// nobody chose, some of them on its way up, and holds what is left against more
// than 20,000 answers that its callers remember. With -short a tenth.
func TestKill(t *testing.T) {
	lives, callers, answers := 200, 32, 20_000
	if testing.Short() {
		lives, answers = lives/10, answers/10
		t.Logf("-short: %d kills and %d answers instead of ten times as many", lives, answers)
	}
	binary := rmsdtest.Build(t, "")
	site := rmsdtest.New(t, rmsdtest.Embedded)
	l := &ledger{}
	exported := checkpoints{dir: filepath.Join(site.Data, "checkpoints"), site: site}
	seen := 0 // documents that a later life has opened
	began := time.Now()
	checks := &rechecks{}
	for life := range lives {
		p := site.Start(t, binary)
		if life%8 == 7 {
			// Once it has served, it starts in well under this time here, so
			// most of these kills hit it while it opens its store.
			time.Sleep(time.Duration(rand.Int64N(int64(300 * time.Millisecond))))
			p.Kill()
			continue
		}
		p.AwaitServing(t)
		// What the lives before acknowledged is there for everyone.
		docs := l.documentsFrom(seen)
		seen += len(docs)
		checks.open(t, site, "alice", docs)
		left := answers - l.answered()
		mean := max(left/(lives-life), 10)
		target := l.answered() + 1 + rand.IntN(2*mean)
		crowd := gather(t, site, l, callers, 0)
		for reached := false; !reached; {
			select {
			case <-crowd.lost:
				t.Fatalf("the daemon was lost before it was killed: %s", p.LogEnd())
			case <-time.After(time.Millisecond):
				reached = l.answered() >= target
			}
		}
		p.Kill()
		crowd.done()
		exported.read(t)
		if t.Failed() {
			t.FailNow()
		}
	}
	// One more life answers whatever chance left open, opens everything for
	// somebody else too, and ends in order.
	p := site.Start(t, binary)
	p.AwaitServing(t)
	gather(t, site, l, callers, max(answers-l.answered(), 100)).done()
	checks.open(t, site, "alice", l.documentsFrom(seen))
	checks.open(t, site, "bob", l.documentsFrom(0))
	if err := p.Stop(); err != nil {
		t.Fatalf("rmsd did not end well: %v\n%s", err, p.LogEnd())
	}
	exported.read(t)
	calls := append(l.calls, checks.calls...)
	f := examine(t.Context(), site.Data, site.TenantID, calls, func(c *call) bool { return c.Outcome != rmsdtest.Unknown }, exported.all...)
	if err := f.err(); err != nil {
		t.Error(err)
	}
	received, refused := 0, 0
	for _, c := range l.calls {
		switch c.Outcome {
		case rmsdtest.Received:
			received++
		case rmsdtest.Refused:
			refused++
		case rmsdtest.Unknown:
		}
	}
	if l.acks < answers {
		t.Errorf("only %d answers", l.acks)
	}
	t.Logf("%d kills in %s: %d calls, %d keys received, %d refused, %d documents; %d events, %d of them of released keys; %d checkpoints continued",
		lives, time.Since(began).Round(time.Second), len(l.calls), received, refused, len(l.docs), f.events, f.released, len(exported.all))
}

// rechecks are the openings by which a test looks at what is there, in batches.
type rechecks struct{ calls []*call }

// open opens every document, or fails the test.
func (r *rechecks) open(t *testing.T, site *rmsdtest.Site, user string, docs []*rmsdtest.Document) {
	t.Helper()
	if len(docs) == 0 {
		return
	}
	c := site.Caller(t, user)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	replies, err := c.AcquireAll(ctx, docs)
	if err != nil {
		t.Fatalf("opening %d documents as %s: %v", len(docs), user, err)
	}
	for _, reply := range replies {
		if reply.Outcome != rmsdtest.Received {
			t.Errorf("%s cannot open %s, which was acknowledged: %v", user, reply.Content, reply.Err)
		}
		r.calls = append(r.calls, &call{Reply: reply, batch: true})
	}
}

// checkpoints collects what the daemon exported over its lives.
type checkpoints struct {
	dir  string
	site *rmsdtest.Site
	all  []audit.Checkpoint
}

// read takes the newest over. None may be older than the one before.
func (x *checkpoints) read(t *testing.T) {
	t.Helper()
	b, err := audit.Exported(x.dir, x.site.TenantID)
	if err != nil {
		t.Fatal(err)
	}
	if b == nil {
		return
	}
	c, err := audit.ReadCheckpoint(b, x.site.TenantID)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(x.all); n > 0 {
		switch last := x.all[n-1]; {
		case c.Size < last.Size:
			t.Errorf("a checkpoint of %d events replaced one of %d", c.Size, last.Size)
		case c.Size == last.Size:
			return
		}
	}
	x.all = append(x.all, c)
}
