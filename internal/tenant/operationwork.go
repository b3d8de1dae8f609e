package tenant

import (
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// work is an operation that goes through many licenses, oldest first, some of
// them in each transaction.
type work struct {
	id    vocab.OperationID
	o     *operation.Operation
	scope record.LicenseScope
	// batch is how many licenses one transaction takes.
	batch int
	// each makes the next revision of a license, and what its event says of the
	// key that was used; nil leaves the license as it is. An error that does not
	// pass by itself counts against the license alone.
	each func(ctx context.Context, l *record.License, keyUsed *audit.Event) (*record.License, error)
	// kind and detail are those of the licenses' events.
	kind   audit.Kind
	detail string
}

// changed is a license that an operation is about to write.
type changed struct {
	base uint32
	next *record.License
	key  audit.Event
}

// workThrough does the next transaction's worth and reports whether nothing is
// left. Licenses that others changed in between are done again.
func (t *Tenant) workThrough(ctx context.Context, w work) (done bool, err error) {
	var p *record.Progress
	var list []record.Listed
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		if p, err = record.GetProgress(r, t.id, w.id); err != nil {
			return err
		}
		if p.Total == 0 {
			n, err := record.CountScope(r, t.id, w.scope)
			if err != nil {
				return err
			}
			p.Total = uint64(n)
		}
		list, err = record.NextLicenses(r, t.id, w.scope, p.After, w.batch)
		for i := range list {
			if l := &list[i]; l.Err == nil {
				_, l.Err = t.verifyRecord(r, l.License)
			}
		}
		return err
	}); err != nil {
		return false, err
	}
	ready := make([]*changed, len(list))
	var held error // what keeps the rest from being done now
	for i := range list {
		l := &list[i]
		if l.Err != nil {
			continue
		}
		c := &changed{base: l.License.Revision}
		if c.next, l.Err = w.each(ctx, l.License, &c.key); l.Err == nil {
			ready[i] = c
			continue
		}
		if passes(l.Err) {
			held, list = l.Err, list[:i]
			break
		}
	}
	all := true
	if len(list) > 0 {
		if all, err = t.commitWork(ctx, w, p, list, ready); err != nil {
			return false, err
		}
	}
	return all && held == nil && len(list) < w.batch, held
}

// commitWork writes what was made ready, with an event for each license, and how
// far that is. all says that it wrote everything.
func (t *Tenant) commitWork(ctx context.Context, w work, p *record.Progress, list []record.Listed, ready []*changed) (all bool, err error) {
	err = t.store.Commit(ctx, func(tx store.Tx) error {
		all = true
		_, o, err := t.operation(tx, w.id)
		if err != nil {
			return err
		}
		now := t.now()
		if o == nil || o.At(now) != operation.Running {
			return vocab.Errorf(vocab.ReasonOperationState, "it was held up meanwhile")
		}
		if err := t.mayWrite(tx, w.kind); err != nil {
			return err
		}
		next := *p
		for i, l := range list {
			stale, err := t.putWork(tx, w, l, ready[i], &next, now)
			if err != nil {
				return err
			}
			if stale {
				all = false
				break // from here on the next time
			}
			next.After = l.Content
		}
		if err := record.PutProgress(tx, t.id, w.id, &next); err != nil {
			return err
		}
		tx.AfterCommit(t.live.bell.ring)
		return nil
	})
	return all, err
}

// putWork writes one license and counts it. stale says that somebody else
// changed it since it was read.
func (t *Tenant) putWork(tx store.Tx, w work, l record.Listed, c *changed, p *record.Progress, now time.Time) (stale bool, err error) {
	if l.Err != nil {
		p.Failures++
		if len(p.Failed) < operation.MaxItemErrors {
			p.Failed = append(slices.Clip(p.Failed), operation.ItemError{License: l.Content, Reason: vocab.ReasonOf(l.Err)})
		}
		return false, nil
	}
	current, err := record.GetLicense(tx, t.id, l.Content)
	if err != nil {
		return false, err
	}
	if current == nil || current.Revision != c.base {
		return true, nil
	}
	p.Done++
	e := t.effectEvent(w.kind, w.o, w.id, now)
	e.Content, e.Detail = l.Content, w.detail
	if c.next == nil {
		return false, t.log.Append(tx, e)
	}
	e.Generation, e.Custodian, e.KeyVersion, e.CustodianRequest = c.key.Generation, c.key.Custodian, c.key.KeyVersion, c.key.CustodianRequest
	e.Custody = c.next.Custody()
	row := *c.next
	return false, t.putLicense(tx, &row, e)
}

// finishWork ends an operation that went through all of its licenses.
func (t *Tenant) finishWork(ctx context.Context, id vocab.OperationID, done string) error {
	_, _, err := t.moveOperation(ctx, t.newEvent(audit.KindOperationSucceeded, byItself, t.now()), id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.keepCounts(tx, id, o); err != nil {
			return err
		}
		if o.Failures == 0 {
			e.Detail = done
			return o.Succeed(done, e.Time)
		}
		reason := vocab.ReasonStoreDamaged
		if len(o.Failed) > 0 {
			reason = o.Failed[0].Reason
		}
		return t.failed(o, e, vocab.Errorf(reason, "%d of %d licenses could not be worked on; ask again for what is left",
			o.Failures, o.Done+o.Failures))
	})
	return err
}
