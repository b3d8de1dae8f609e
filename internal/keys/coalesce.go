package keys

import (
	"context"
	"sync"
	"time"
)

// coalescer turns concurrent single requests into batch calls, without any
// delay of its own: a request goes out at once if a call slot is free, and
// together with all others that came meanwhile if not.
type coalescer[I, R any] struct {
	call    func(context.Context, []I) ([]R, error)
	discard func(R) // of a result that nobody waits for any more
	timeout time.Duration

	mu      sync.Mutex
	queue   []*request[I, R]
	running int
}

const (
	coalesceCalls = 4   // calls at the same time
	coalesceItems = 256 // items of one call
)

type request[I, R any] struct {
	item I
	done chan struct{}
	// Guarded by the coalescer's mu until done is closed.
	left   bool
	result R
	err    error
}

// do returns the result for item, or the error of the whole call it was part
// of, or ctx's error.
func (c *coalescer[I, R]) do(ctx context.Context, item I) (R, error) {
	q := &request[I, R]{item: item, done: make(chan struct{})}
	c.mu.Lock()
	c.queue = append(c.queue, q)
	if c.running < coalesceCalls {
		c.running++
		go c.work()
	}
	c.mu.Unlock()
	select {
	case <-q.done:
		return q.result, q.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-q.done: // it came in the same moment
		c.discard(q.result)
	default:
		q.left = true
	}
	var none R
	return none, context.Cause(ctx)
}

func (c *coalescer[I, R]) work() {
	for {
		c.mu.Lock()
		batch := c.take()
		if len(batch) == 0 {
			c.running--
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		items := make([]I, len(batch))
		for i, q := range batch {
			items[i] = q.item
		}
		// Not a caller's context: others share the call.
		ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
		results, err := c.call(ctx, items)
		cancel()
		c.deliver(batch, results, err)
	}
}

// take removes the next batch from the queue. mu is held.
func (c *coalescer[I, R]) take() []*request[I, R] {
	var batch []*request[I, R]
	for len(c.queue) > 0 && len(batch) < coalesceItems {
		if q := c.queue[0]; !q.left {
			batch = append(batch, q)
		}
		c.queue[0] = nil
		c.queue = c.queue[1:]
	}
	return batch
}

func (c *coalescer[I, R]) deliver(batch []*request[I, R], results []R, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range batch {
		switch {
		case err != nil:
			q.err = err
		case q.left:
			c.discard(results[i])
		default:
			q.result = results[i]
		}
		close(q.done)
	}
}
