package tenant

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// work is an operation that goes through many licenses, in the order of its
// scopes' names and in each the oldest first, some of them in each transaction.
type work struct {
	id     vocab.OperationID
	o      *operation.Operation
	scopes []record.LicenseScope
	// left counts what is to be worked on still, of work that takes licenses out
	// of its scopes: these are gone through until only what failed is left,
	// whatever came in late. nil: once is all.
	left func(r store.Reader) (uint64, error)
	// done says what came of it.
	done func(r store.Reader, p *record.Progress) (string, error)
	// more is what it works on besides licenses, for the total.
	more uint64
	// batch is how many licenses are made ready together, at most, and rate how
	// many a second are allowed; 0: any number.
	batch int
	rate  uint32
	pace  *pace
	// ready makes the next revisions of licenses, one for each. Its error is one
	// about all of them, and changes nothing.
	ready func(ctx context.Context, list []*record.License) ([]made, error)
	// kind and detail are those of the licenses' events.
	kind   audit.Kind
	detail string
}

// made is what was made of a license.
type made struct {
	// next is its next revision; nil leaves the license as it is.
	next *record.License
	// key holds what its event says of the key that was used.
	key audit.Event
	// detail, if set, is what its event says instead of the work's.
	detail string
	// recheck, if set, says in the transaction why it may not be written any
	// more: then it is made anew.
	recheck func() error
	// err is why there is none. One that does not pass by itself counts against
	// the license alone.
	err error
	// again says that err is new, and that it must be found out anew what may be
	// done at all.
	again bool
}

// oneByOne is the ready of work that makes each license by itself.
func oneByOne(each func(ctx context.Context, l *record.License, keyUsed *audit.Event) (*record.License, error)) func(context.Context, []*record.License) ([]made, error) {
	return func(ctx context.Context, list []*record.License) ([]made, error) {
		out := make([]made, len(list))
		for i, l := range list {
			m := &out[i]
			if m.next, m.err = each(ctx, l, &m.key); m.err != nil && passes(m.err) {
				return out[:i+1], nil
			}
		}
		return out, nil
	}
}

// readyWithin bounds what making a batch ready takes: a custodian that does not
// answer by then is away.
const readyWithin = 30 * time.Second

// workItem is a license that is worked on.
type workItem struct {
	record.Listed
	made
	known bool // it failed before, and is not tried again
}

// workThrough does the next licenses, and ends the operation if none is left. It
// returns how long to leave it alone. Licenses that others changed in between are
// done again.
func (t *Tenant) workThrough(ctx context.Context, w work) (pause time.Duration, err error) {
	began := time.Now()
	p, items, err := t.nextWork(ctx, &w)
	if err != nil {
		return 0, err
	}
	if len(items) == 0 {
		return betweenBatches, t.endPass(ctx, &w, p)
	}
	items, held := t.makeReady(ctx, &w, items)
	w.pace.rest(ctx, time.Since(began))
	n := 0
	for n < len(items) && ctx.Err() == nil {
		slice := items[n:min(n+w.pace.slice, len(items))]
		start := time.Now()
		next, wrote, err := t.commitWork(ctx, &w, p, slice)
		if err != nil {
			return 0, err
		}
		w.pace.took(ctx, wrote, time.Since(start))
		p = next
		if n += wrote; wrote < len(slice) {
			break // from here on the next time
		}
	}
	return w.pace.pause(n, time.Since(began), w.rate), held
}

// nextWork reads how far the work is and the licenses that come next; none at the
// end of its scopes.
func (t *Tenant) nextWork(ctx context.Context, w *work) (p *record.Progress, items []workItem, err error) {
	slices.SortFunc(w.scopes, func(a, b record.LicenseScope) int { return bytes.Compare(a.Name(), b.Name()) })
	limit := w.pace.next(w.batch, w.rate)
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		if p, err = record.GetProgress(r, t.id, w.id); err != nil {
			return err
		}
		if p.Total == 0 {
			n, err := t.countScopes(r, w.scopes)
			if err != nil {
				return err
			}
			p.Total = n + w.more
		}
		var list []record.Listed
		for i := range w.scopes {
			name := w.scopes[i].Name()
			switch c := bytes.Compare(name, p.Scope); {
			case c < 0:
				continue
			case c > 0:
				p.Scope, p.After = name, vocab.ContentID{}
			}
			if list, err = record.NextLicenses(r, t.id, w.scopes[i], p.After, limit); err != nil || len(list) > 0 {
				break
			}
		}
		for _, l := range list {
			it := workItem{Listed: l}
			if i := slices.IndexFunc(p.Known, func(e operation.ItemError) bool { return e.License == l.Content }); i >= 0 {
				it.known, it.Err = true, vocab.Errorf(p.Known[i].Reason, "it failed before")
			}
			if it.Err == nil {
				_, it.Err = t.verifyRecordOnce(r, l.License)
			}
			items = append(items, it)
		}
		return err
	})
	return p, items, err
}

func (t *Tenant) countScopes(r store.Reader, scopes []record.LicenseScope) (sum uint64, err error) {
	for _, s := range scopes {
		n, err := record.CountScope(r, t.id, s)
		if err != nil {
			return 0, err
		}
		sum += uint64(n)
	}
	return sum, nil
}

// countOf is the left of work whose scopes do not change.
func (t *Tenant) countOf(scopes []record.LicenseScope) func(store.Reader) (uint64, error) {
	return func(r store.Reader) (uint64, error) { return t.countScopes(r, scopes) }
}

// saying is the done of work that always ends in the same words.
func saying(done string) func(store.Reader, *record.Progress) (string, error) {
	return func(store.Reader, *record.Progress) (string, error) { return done, nil }
}

// endPass ends the work, now that its scopes were gone through. If something came
// in behind, they are gone through again, but for what failed.
func (t *Tenant) endPass(ctx context.Context, w *work, p *record.Progress) error {
	if w.left == nil {
		return t.finishWork(ctx, w)
	}
	var left uint64
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		left, err = w.left(r)
		return err
	}); err != nil {
		return err
	}
	if left <= p.Failures {
		if err := t.finishWork(ctx, w); err != errMore { //nolint:errorlint // our own sentinel, unwrapped
			return err
		}
		return nil // there is more to do since just now
	}
	return t.inWork(ctx, w.id, func(_ store.Tx, p *record.Progress, _ time.Time) error {
		p.Scope, p.After, p.Known, p.Failed = nil, vocab.ContentID{}, p.Failed, nil
		p.Failures = uint64(len(p.FailedGenerations))
		return nil
	})
}

// makeReady makes the next revisions. held is what keeps the rest of the items,
// which it leaves out, from being done now.
func (t *Tenant) makeReady(ctx context.Context, w *work, items []workItem) (_ []workItem, held error) {
	var list []*record.License
	var index []int
	for i := range items {
		if items[i].Err == nil {
			list, index = append(list, items[i].License), append(index, i)
		}
	}
	if len(list) == 0 {
		return items, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	all, err := w.ready(ctx, list)
	if err != nil {
		return items[:index[0]], err
	}
	for j, m := range all {
		i := index[j]
		switch {
		case m.err == nil:
			items[i].made = m
		case passes(m.err):
			return items[:i], m.err
		case m.again:
			return items[:i], nil
		default:
			items[i].Err = m.err
		}
	}
	return items, nil
}

// commitWork writes what was made ready, with an event for each license, and how
// far that is. wrote is how many of the items it did.
func (t *Tenant) commitWork(ctx context.Context, w *work, p *record.Progress, items []workItem) (next *record.Progress, wrote int, err error) {
	err = t.store.Commit(ctx, func(tx store.Tx) error {
		own := *p
		next, wrote = &own, 0
		// What the rechecks look at must be what tx sees.
		epoch, err := record.Epoch(tx, t.id)
		if err != nil {
			return err
		}
		if !t.live.at(epoch) {
			return errStale
		}
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
		for i := range items {
			stale, err := t.putWork(tx, w, &items[i], next, now)
			if err != nil {
				return err
			}
			if stale {
				break
			}
			next.After = items[i].Content
			wrote++
		}
		if err := record.PutProgress(tx, t.id, w.id, next); err != nil {
			return err
		}
		tx.AfterCommit(t.live.bell.ring)
		return nil
	})
	if err == errStale { //nolint:errorlint // our own sentinel, unwrapped
		return p, 0, t.catchUp(ctx)
	}
	return next, wrote, err
}

// putWork writes one license and counts it. stale says that somebody else
// changed it since it was read, or the keys it is about.
func (t *Tenant) putWork(tx store.Tx, w *work, it *workItem, p *record.Progress, now time.Time) (stale bool, err error) {
	if it.Err != nil {
		reason := vocab.ReasonOf(it.Err)
		p.Failures++
		if len(p.Failed) == operation.MaxItemErrors {
			return false, nil
		}
		p.Failed = append(slices.Clip(p.Failed), operation.ItemError{License: it.Content, Reason: reason})
		if !alarming[reason] || it.known {
			return false, nil
		}
		e := t.newEvent(audit.KindAlarm, byItself, now)
		e.Operation, e.Content, e.Reason, e.Alarm, e.Detail = w.id, it.Content, reason, true, "left as it is by a "+w.o.Kind.String()
		return false, t.log.Append(tx, e)
	}
	current, err := record.GetLicense(tx, t.id, it.Content)
	if err != nil {
		return false, err
	}
	changed := current == nil || current.Revision != it.License.Revision
	if !changed && it.recheck != nil {
		changed = it.recheck() != nil // what the keys are now, the next step finds out
	}
	if changed {
		return true, nil
	}
	p.Done++
	e := t.effectEvent(w.kind, w.o, w.id, now)
	e.Content, e.Detail = it.Content, cmp.Or(it.detail, w.detail)
	if it.next == nil {
		return false, t.log.Append(tx, e)
	}
	e.Generation, e.Custodian, e.KeyVersion, e.CustodianRequest = it.key.Generation, it.key.Custodian, it.key.KeyVersion, it.key.CustodianRequest
	e.Custody = it.next.Custody()
	row := *it.next
	return false, t.putLicense(tx, &row, e)
}

// finishWork ends an operation that went through all of its licenses, unless
// there is more to do by now: errMore.
func (t *Tenant) finishWork(ctx context.Context, w *work) error {
	_, _, err := t.moveOperation(ctx, t.newEvent(audit.KindOperationSucceeded, byItself, t.now()), w.id, func(tx store.Tx, o *operation.Operation, e *audit.Event) error {
		if err := t.keepCounts(tx, w.id, o); err != nil {
			return err
		}
		p, err := record.GetProgress(tx, t.id, w.id)
		if err != nil {
			return err
		}
		if w.left != nil {
			switch left, err := w.left(tx); {
			case err != nil:
				return err
			case left > p.Failures:
				return errMore
			}
		}
		if o.Failures == 0 {
			if e.Detail, err = w.done(tx, p); err != nil {
				return err
			}
			return o.Succeed(e.Detail, e.Time)
		}
		reason := vocab.ReasonStoreDamaged
		if len(o.Failed) > 0 {
			reason = o.Failed[0].Reason
		} else if len(p.FailedGenerations) > 0 {
			reason = vocab.ReasonCustodyIntegrity
		}
		return t.failed(o, e, vocab.Errorf(reason, "%d of %d %s could not be worked on%s; ask again for what is left",
			o.Failures, o.Done+o.Failures, workedOn(p), failedGenerations(p)))
	})
	return err
}

// errMore says, inside this package, that an operation has more to do.
var errMore = errors.New("more to do")

// workedOn says what an operation counts.
func workedOn(p *record.Progress) string {
	if p.Generations > 0 || len(p.FailedGenerations) > 0 {
		return "generations and licenses"
	}
	return "licenses"
}

// failedGenerations names the generations that could not be worked on.
func failedGenerations(p *record.Progress) string {
	const most = 10
	var names []string
	for i, n := range p.FailedGenerations {
		if i == most {
			names = append(names, "…")
			break
		}
		names = append(names, fmt.Sprintf("g%d", n))
	}
	if names == nil {
		return ""
	}
	return ", among them " + strings.Join(names, ", ")
}
