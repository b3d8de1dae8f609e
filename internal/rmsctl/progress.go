package rmsctl

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress is a line on the terminal that says how far a long piece of work is.
// It is written over again and again, and is gone when the work is done: neither
// data nor a log ever holds it. Without a terminal it is nil, and says nothing.
// It may be used by several goroutines.
type progress struct {
	w     io.Writer
	now   func() time.Time
	what  string // such as "%s of %s templates checked"
	total int

	mu    sync.Mutex
	done  int
	shown time.Time
	drawn bool
}

// progressEvery is how often the line changes. What takes less shows none.
const progressEvery = 100 * time.Millisecond

// progress begins a line; what takes the numbers done and in all.
func (a *app) progress(what string, total int) *progress {
	if !isTerminal(a.stderr) {
		return nil
	}
	return newProgress(a.stderr, a.now, what, total)
}

func newProgress(w io.Writer, now func() time.Time, what string, total int) *progress {
	return &progress{w: w, now: now, what: what, total: total, shown: now()}
}

// step counts one more piece as done.
func (p *progress) step() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if now := p.now(); now.Sub(p.shown) >= progressEvery {
		p.shown, p.drawn = now, true
		fmt.Fprintf(p.w, "\r"+p.what+"\x1b[K", group(int64(p.done)), group(int64(p.total)))
	}
}

// end takes the line away.
func (p *progress) end() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
