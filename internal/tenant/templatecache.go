package tenant

import (
	"sync"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// templates keeps the revision of each template that decisions last asked for,
// verified and compiled. What is current is read from the store in the
// decision's own transaction; the cache only saves the work of reading the
// revision again. It is safe for concurrent use; the zero value is empty.
type templates struct {
	mu      sync.Mutex
	byUID   map[vocab.TemplateUID]*policy.CompiledTemplate
	grants  int // of all that are kept
	loading map[revisionOfTemplate]*loading
}

// Bounds of the cache. A grant takes some 300 bytes, so these are about 600 MB.
const (
	maxTemplates = 20_000
	maxGrants    = 2_000_000
)

type revisionOfTemplate struct {
	uid      vocab.TemplateUID
	revision uint32
}

// loading is a revision that somebody reads for all who ask for it meanwhile.
type loading struct {
	done     chan struct{} // closed when the rest is set
	template *policy.CompiledTemplate
	err      error
}

// get returns a revision of a template; load reads it if it is not kept. Of
// those who ask at the same time one loads and the others wait: after an edit
// of a template with 50,000 grants everybody asks at once, and reading it takes
// a quarter of a second of processor time.
func (c *templates) get(uid vocab.TemplateUID, revision uint32, load func() (*policy.CompiledTemplate, error)) (*policy.CompiledTemplate, error) {
	key := revisionOfTemplate{uid, revision}
	c.mu.Lock()
	if kept := c.byUID[uid]; kept != nil && kept.Revision == revision {
		c.mu.Unlock()
		return kept, nil
	}
	if other := c.loading[key]; other != nil {
		c.mu.Unlock()
		<-other.done
		return other.template, other.err
	}
	own := &loading{done: make(chan struct{}), err: vocab.Errorf(vocab.ReasonInternal, "reading the template failed by a fault of the program")}
	if c.loading == nil {
		c.byUID, c.loading = map[vocab.TemplateUID]*policy.CompiledTemplate{}, map[revisionOfTemplate]*loading{}
	}
	c.loading[key] = own
	c.mu.Unlock()

	defer func() { // also if load panics: nobody waits for ever
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.loading, key)
		close(own.done)
		if own.err == nil {
			c.keep(own.template)
		}
	}()
	own.template, own.err = load()
	return own.template, own.err
}

// keep adds a revision, unless a newer one is there.
func (c *templates) keep(t *policy.CompiledTemplate) {
	if kept := c.byUID[t.UID]; kept != nil {
		if kept.Revision > t.Revision {
			return // somebody looks at the past
		}
		c.grants -= len(kept.Grants)
		delete(c.byUID, t.UID)
	}
	if len(c.byUID) >= maxTemplates || c.grants+len(t.Grants) > maxGrants {
		clear(c.byUID)
		c.grants = 0
	}
	c.byUID[t.UID] = t
	c.grants += len(t.Grants)
}
