package tenant

import (
	"sync"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// maxAncestors is how many documents are looked at to find out what one was
// made from. A license with more counts as made from every document.
const maxAncestors = 1000

// lineage is what a document was made from.
type lineage struct {
	ancestors []vocab.ContentID
	more      bool // than are named
}

// parents remembers what documents were made from, of records that were
// verified. A document's parents never change, and nobody else can write the
// store while the daemon has it.
type parents struct {
	mu sync.RWMutex
	of map[vocab.ContentID][]vocab.ContentID
}

// maxParents bounds it; a document takes about 100 bytes.
const maxParents = 200_000

// readLineage adds to what readInputs read what the document was made from, if
// a revocation asks for it.
func (t *Tenant) readLineage(r store.Reader, in *inputs, who standing) (err error) {
	if who.lineages && in.policy != nil {
		in.lineage, err = t.lineageOf(r, in.policy)
	}
	return err
}

// lineageOf walks from a document's parents upwards.
func (t *Tenant) lineageOf(r store.Reader, p *policy.Policy) (out lineage, err error) {
	seen := map[vocab.ContentID]bool{}
	for next := p.Parents; len(next) > 0; {
		var above []vocab.ContentID
		for _, c := range next {
			if seen[c] {
				continue
			}
			seen[c] = true
			if len(out.ancestors) == maxAncestors {
				out.more = true
				return out, nil
			}
			out.ancestors = append(out.ancestors, c)
			of, err := t.parentsOf(r, c)
			if err != nil {
				return out, err
			}
			above = append(above, of...)
		}
		next = above
	}
	return out, nil
}

// parentsOf returns what a document was made from. One without a record is
// damage: records are never removed, and what came before it is unknown.
func (t *Tenant) parentsOf(r store.Reader, c vocab.ContentID) ([]vocab.ContentID, error) {
	t.parents.mu.RLock()
	known, ok := t.parents.of[c]
	t.parents.mu.RUnlock()
	if ok {
		return known, nil
	}
	l, err := record.GetLicense(r, t.id, c)
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, contradicts("the record of a document that this one was made from, which is missing,")
	}
	if _, err := t.verifyRecord(r, l); err != nil {
		return nil, err
	}
	p, err := l.DecodePolicy()
	if err != nil {
		return nil, err
	}
	t.parents.mu.Lock()
	defer t.parents.mu.Unlock()
	if t.parents.of == nil || len(t.parents.of) >= maxParents {
		t.parents.of = map[vocab.ContentID][]vocab.ContentID{}
	}
	t.parents.of[c] = p.Parents
	return p.Parents, nil
}

// ancestors are those of a document made from the parents of a publication.
func (b *basis) ancestors() (all []vocab.ContentID, more bool) {
	for i := range b.parents {
		if in := &b.parents[i]; in.record != nil {
			all = append(append(all, in.record.Content), in.lineage.ancestors...)
			more = more || in.lineage.more
		}
	}
	return all, more
}
