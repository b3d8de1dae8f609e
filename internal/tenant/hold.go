package tenant

import (
	"context"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// A tenant that was restored from a backup behind which something is or may be
// lost is held: a revocation may be among it. Everything but publishing and
// opening is served, for people to look and to do again what is missing.

// setHold follows what keeps the tenant from publishing and opening.
func (l *live) setHold(s *record.Resource) error {
	if s.Gone != 0 {
		l.hold = nil
		return nil
	}
	h, err := record.DecodeHold(s.Body)
	if err == nil {
		l.hold = h
	}
	return err
}

// Hold returns what holds the tenant; nil if nothing does.
func (t *Tenant) Hold() *record.Hold {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	return t.live.hold
}

// held refuses to publish and open in a tenant that is held. A tenant does not
// become held while it is served, so whoever was let through before may go on.
func (t *Tenant) held() error {
	if h := t.Hold(); h != nil {
		return vocab.Errorf(vocab.ReasonTenantHeld, "this tenant was restored from a backup at %s, and nobody has released it yet",
			h.Restored.Time().UTC().Format(time.RFC3339)).
			WithNext("Ask a tenant-admin: rmsctl tenant hold says what to look at")
	}
	return nil
}

// notHeld is the answer to whoever would release what nothing holds.
func notHeld() error {
	return vocab.Errorf(vocab.ReasonOperationState, "the tenant is not held")
}

// RequestRelease asks that the tenant may publish and open again, which another
// tenant-admin has to approve: whoever asks may have lost rights behind the
// backup.
func (t *Tenant) RequestRelease(ctx context.Context, c Call, reason string) (*OperationView, vocab.EventID, error) {
	e := t.newEvent(audit.KindOperationRequested, c, t.now())
	h := t.Hold()
	var err error
	switch {
	case strings.TrimSpace(reason) == "":
		err = vocab.Errorf(vocab.ReasonRequestInvalid, "a release needs a reason: what was looked at")
	case h == nil:
		err = notHeld()
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	return t.request(ctx, c, wish{
		kind: operation.Release, params: &operation.ReleaseParams{Event: h.Event}, about: "the hold of restore " + h.Event.String(), reason: reason,
	})
}

// prepareRelease reads what is to be released.
func (t *Tenant) prepareRelease(o *operation.Operation) (effect, error) {
	params, err := operation.Params[operation.ReleaseParams](o)
	if err != nil {
		return nil, err
	}
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		e := t.effectEvent(audit.KindBackupChanged, o, id, now)
		e.Target, e.Detail = record.NameHold, "released: "+o.Reason
		_, err := t.putResource(tx, e.Target, e, func(_ store.Reader, now *record.Resource, _ *audit.Event) ([]byte, error) {
			if now == nil {
				return nil, notHeld()
			}
			h, err := record.DecodeHold(now.Body)
			if err == nil && h.Event != params.Event {
				err = vocab.Errorf(vocab.ReasonEtagMismatch, "another restore holds the tenant than the one this was asked for")
			}
			return nil, err
		})
		if err != nil {
			return "", err
		}
		return "the tenant publishes and opens again", t.log.Append(tx, e)
	}, nil
}
