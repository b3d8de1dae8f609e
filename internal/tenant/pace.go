package tenant

import (
	"context"
	"sync/atomic"
	"time"
)

// Work on many licenses gives way to people. Every transaction of it is one that
// a call may have to wait for, so while there are calls, transactions are short
// and the store is left alone for twice the time each of them took: a call seldom
// meets one, and waits no longer than for another call's. While there are none,
// it goes as fast as it can. It begins slowly, because it does not know yet what
// a license costs here.
const (
	firstBatch = 16
	// maxBatch is how many licenses are made ready together, with a call of the
	// custodian for all of them.
	maxBatch = 256
	// quietFor is how long ago the last call must have ended for nobody to be
	// there.
	quietFor = 250 * time.Millisecond
	// shortCommit and longCommit are what a transaction should take while there
	// are calls, and while there are none.
	shortCommit, longCommit = 8 * time.Millisecond, 50 * time.Millisecond
	// restAtMost bounds one rest, so that what an operation waits for is not
	// waited for by the next one as well.
	restAtMost = 200 * time.Millisecond
	// betweenBatches lets others of the same process have their turn.
	betweenBatches = time.Millisecond
)

// calls counts the calls that people wait for.
type calls struct {
	under atomic.Int64
	last  atomic.Int64 // when the last one ended, in nanoseconds since 1970
}

// begin counts a call until end is called.
func (c *calls) begin() (end func()) {
	c.under.Add(1)
	return func() {
		c.last.Store(time.Now().UnixNano())
		c.under.Add(-1)
	}
}

// quiet reports whether nobody calls.
func (c *calls) quiet() bool {
	return c.under.Load() == 0 && time.Since(time.Unix(0, c.last.Load())) > quietFor
}

// pace is how fast an operation goes.
type pace struct {
	calls *calls
	batch int // licenses that are made ready together
	slice int // licenses of one transaction
}

func newPace(c *calls) *pace { return &pace{calls: c, batch: firstBatch, slice: firstBatch} }

// next is how many licenses to make ready, of at most limit, if so many a second
// are allowed; 0: any number.
func (p *pace) next(limit int, rate uint32) int {
	n := min(p.batch, limit)
	p.batch = min(2*p.batch, maxBatch)
	if rate > 0 {
		n = min(n, int(min(rate, maxBatch)))
	}
	return n
}

// took learns from a transaction of n licenses that took d, and rests.
func (p *pace) took(ctx context.Context, n int, d time.Duration) {
	quiet := p.calls.quiet()
	aim := shortCommit
	if quiet {
		aim = longCommit
	}
	// Half of the transaction may be the disk, whatever is in it: never more than
	// twice as many at once, nor fewer than a few.
	fit := 2 * p.slice
	if d > 0 && n > 0 {
		fit = min(fit, int(aim*time.Duration(n)/d))
	}
	p.slice = min(max(fit, firstBatch/2), maxBatch)
	if !quiet {
		p.rest(ctx, d)
	}
}

// rest leaves others alone for twice as long as something took.
func (p *pace) rest(ctx context.Context, d time.Duration) {
	if p.calls.quiet() {
		return
	}
	timer := time.NewTimer(min(2*d, restAtMost))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// pause is how long to wait after n licenses that took d, if so many a second are
// allowed.
func (p *pace) pause(n int, d time.Duration, rate uint32) time.Duration {
	if rate == 0 {
		return betweenBatches
	}
	return max(betweenBatches, time.Duration(n)*time.Second/time.Duration(rate)-d)
}
