package faults_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/openrms/rms/test/rmsdtest"
)

// call is one call as its caller remembers it, outside the process it called.
type call struct {
	*rmsdtest.Reply
	port     int       // of the connection it went over, which nobody shared
	returned time.Time // when its caller had the answer
	batch    bool      // one of many items that share a recipient key
}

// ledger is what all callers remember.
type ledger struct {
	mu    sync.Mutex
	calls []*call
	docs  []*rmsdtest.Document // acknowledged
	acks  int                  // calls that were answered
}

func (l *ledger) add(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, c)
	if c.Outcome != rmsdtest.Unknown {
		l.acks++
	}
	if c.Document != nil {
		l.docs = append(l.docs, c.Document)
	}
}

func (l *ledger) answered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acks
}

// document returns an acknowledged document, nil if there is none.
func (l *ledger) document() *rmsdtest.Document {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.docs) == 0 {
		return nil
	}
	return l.docs[rand.IntN(len(l.docs))]
}

// documentsFrom returns the acknowledged documents from the n-th on.
func (l *ledger) documentsFrom(n int) []*rmsdtest.Document {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.docs[n:len(l.docs):len(l.docs)]
}

// crowd is a number of callers that call as fast as they are answered.
type crowd struct {
	ledger *ledger
	cancel context.CancelFunc
	ended  sync.WaitGroup
	lost   chan struct{} // closed when a caller has lost the daemon
	once   sync.Once
}

// gather has n callers, each on a connection of its own, publish, open and be
// refused until the daemon is lost or [crowd.disperse] is called. Every call
// ends up in the ledger. enough, if not zero, ends it after so many answers.
func gather(t *testing.T, site *rmsdtest.Site, l *ledger, n, enough int) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{ledger: l, cancel: cancel, lost: make(chan struct{})}
	target := l.answered() + enough
	for range n {
		alice := site.Caller(t, "alice")
		mallory := alice.As("mallory")
		c.ended.Go(func() {
			defer alice.Close()
			for ctx.Err() == nil && (enough == 0 || l.answered() < target) {
				r := c.next(ctx, alice, mallory)
				if err := r.BadAnswer(); err != nil {
					t.Errorf("an answer that no client may accept: %v", err)
				}
				if r.Outcome == rmsdtest.Unknown {
					c.once.Do(func() { close(c.lost) })
					return
				}
			}
		})
	}
	return c
}

// next makes a call of a random kind.
func (c *crowd) next(ctx context.Context, alice, mallory *rmsdtest.Caller) *rmsdtest.Reply {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var r *rmsdtest.Reply
	switch d, kind := c.ledger.document(), rand.IntN(10); {
	case d == nil || kind < 5:
		r = alice.Publish(ctx, "")
	case kind < 8:
		r = alice.Acquire(ctx, d)
	default:
		r = mallory.Acquire(ctx, d)
	}
	c.ledger.add(&call{Reply: r, port: alice.Port(), returned: time.Now()})
	return r
}

// done waits until every caller has ended by itself.
func (c *crowd) done() {
	c.ended.Wait()
	c.cancel()
}
