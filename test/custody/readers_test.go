package custody_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openrms/rms"
)

// paper is a document at the desk.
type paper struct {
	name  string
	plain [32]byte // SHA-256 of what was protected
}

// readers open papers one after the other, as many at a time as there are
// clients, and compare what they read.
type readers struct {
	t      *testing.T
	dir    string
	mu     sync.Mutex
	papers []*paper
	stops  map[string]ordered // papers that need not, or must not, open now
	reason error              // what refuses those
	moved  uint64             // grows when stops changes

	opened, refused atomic.Int64
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

// expect says what becomes of some papers from now on, and for which reason; all
// others open.
func (r *readers) expect(what ordered, reason error, papers ...*paper) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stops, r.reason = map[string]ordered{}, reason
	for _, p := range papers {
		r.stops[p.name] = what
	}
	r.moved++
}

// order is what was ordered of a paper at a time.
type order struct {
	what   ordered
	reason error
	moved  uint64
}

func (r *readers) look(i int) (*paper, order) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.papers[i%len(r.papers)]
	return p, order{r.stops[p.name], r.reason, r.moved}
}

// read opens papers until ctx ends.
func (r *readers) read(ctx context.Context, c *rms.Client, from int) {
	for i := from; ctx.Err() == nil; i++ {
		p, was := r.look(i)
		err := r.open(ctx, c, p)
		if _, now := r.look(i); now.moved != was.moved || ctx.Err() != nil {
			continue // another order came meanwhile
		}
		switch {
		case err == nil && was.what != stopped:
			r.opened.Add(1)
		case was.what != opens && errors.Is(err, was.reason):
			r.refused.Add(1)
		default:
			r.t.Errorf("%s, of which %d was ordered: %v", p.name, was.what, err)
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
