package faults_test

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms/internal/vocab"
	"github.com/openrms/rms/test/rmsdtest"
)

// TestDiskFault has the system refuse the daemon's writes and syncs in the
// middle of its work. From the first failure on no content key leaves and
// nobody is told that anything happened: callers are told what is wrong with
// the store. What they had been told before is there when the disk is well.
func TestDiskFault(t *testing.T) {
	for _, c := range []struct {
		name, inject string
		reason       vocab.Reason
	}{
		// The count is of each thread, so that the daemon gets through its start.
		{"a sync fails", "fdatasync:error=EIO:when=60+", vocab.ReasonStoreDamaged},
		{"a write fails", "pwrite64:error=EIO:when=900+", vocab.ReasonStoreDamaged},
		{"the disk is full", "pwrite64:error=ENOSPC:when=900+", vocab.ReasonStoreFull},
		{"the quota is used up at a sync", "fdatasync:error=EDQUOT:when=60+", vocab.ReasonStoreFull},
	} {
		t.Run(c.name, func(t *testing.T) {
			site := rmsdtest.New(t, rmsdtest.Embedded)
			trace := filepath.Join(site.Dir, "trace")
			p := site.Start(t, rmsdtest.Build(t, ""), straceCommand(t, trace, "-e", "trace=execve,fdatasync,pwrite64", "-s", "0", "-e", "inject="+c.inject)...)
			p.AwaitServing(t)
			p.PID = traceePID(t, trace)
			l := &ledger{}
			failAll(t, site, l, c.reason)
			p.Kill()
			if err := os.Remove(trace); err != nil {
				t.Fatal(err)
			}
			acknowledged := func(c *call) bool {
				return c.Outcome == rmsdtest.Received || c.Outcome == rmsdtest.Refused && !c.Event.IsZero()
			}
			if err := examine(t.Context(), site.Data, site.TenantID, l.calls, acknowledged).err(); err != nil {
				t.Fatal(err)
			}
			p = site.Start(t, rmsdtest.Build(t, ""))
			p.AwaitServing(t)
			checks := &rechecks{}
			checks.open(t, site, "bob", l.documentsFrom(0))
			if err := p.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := examine(t.Context(), site.Data, site.TenantID, append(l.calls, checks.calls...), acknowledged).err(); err != nil {
				t.Error(err)
			}
			t.Logf("%d calls, %d documents survived", len(l.calls), len(l.docs))
		})
	}
}

// failAll has callers call until each has been told reason, and then some more:
// none of those calls may succeed.
func failAll(t *testing.T, site *rmsdtest.Site, l *ledger, reason vocab.Reason) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for range 32 {
		alice := site.Caller(t, "alice")
		mallory := alice.As("mallory")
		wg.Go(func() {
			defer alice.Close()
			for failed := 0; failed < 10; {
				who := alice
				if rand.IntN(4) == 0 {
					who = mallory
				}
				var r *rmsdtest.Reply
				if d := l.document(); d == nil || who == alice && rand.IntN(2) == 0 {
					r = alice.Publish(ctx, "")
				} else {
					r = who.Acquire(ctx, d)
				}
				l.add(&call{Reply: r})
				switch {
				case r.BadAnswer() != nil || r.Outcome == rmsdtest.Unknown:
					t.Errorf("%v", r.Err)
					return
				case r.Reason == reason:
					failed++
					if !r.Event.IsZero() {
						t.Errorf("an answer that nothing could be recorded names event %s", r.Event)
					}
				case failed > 0:
					t.Errorf("after the store had failed a call ended otherwise: %v", r.Err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
