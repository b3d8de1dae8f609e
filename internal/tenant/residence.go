package tenant

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// A tenant that leaves for another service is frozen first, by an operation: it
// neither publishes nor opens, and nothing of it is edited, so that what the
// archive holds is what there is. Its log goes on, and so do reads, the states of
// keys, and what is needed to thaw it.

// setResidence follows where the tenant lives.
func (l *live) setResidence(s *record.Resource) error {
	if s.Gone != 0 {
		return contradicts(s.Name)
	}
	r, err := record.DecodeResidence(s.Body)
	if err == nil {
		l.residence = r
	}
	return err
}

// Residence says whether the tenant is frozen, which archives of it were begun
// and from where it came. It must not be changed.
func (t *Tenant) Residence() *record.Residence {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	if t.live.residence == nil {
		return &record.Residence{}
	}
	return t.live.residence
}

// frozen refuses what a tenant that is on its way does not do. What was decided
// before it was frozen does not hold, for that is another epoch.
func (t *Tenant) frozen() error { return frozenBy(t.Residence()) }

func frozenBy(r *record.Residence) error {
	if r.Frozen == 0 {
		return nil
	}
	return vocab.Errorf(vocab.ReasonTenantFrozen, "this tenant is frozen since %s, for its move to another service",
		r.Frozen.Time().UTC().Format(time.RFC3339)).
		WithNext("Use the service it moves to; a key-custodian can have it thawed")
}

// whileFrozen are the events of what a frozen tenant still does: reading,
// refusing, taking keys away, looking at custodians, deciding on its own move, and
// raising alarms. Everything else it does not do.
var whileFrozen = map[audit.Kind]bool{
	audit.KindRefused: true, audit.KindRead: true, audit.KindAlarm: true, audit.KindRehearsed: true, audit.KindEvidenceMade: true,
	audit.KindTenantCreated: true, audit.KindSignInChanged: true, audit.KindServiceStarted: true, audit.KindServiceStopped: true,
	audit.KindKeyNoted: true, audit.KindKeyClaimed: true, audit.KindKeyRotated: true, audit.KindKeySuspended: true, audit.KindKeyResumed: true,
	audit.KindKeyCompromised: true, audit.KindKeyRetired: true, audit.KindKeyDestroyed: true,
	audit.KindGenerationCreated: true, audit.KindGenerationRewrapped: true, audit.KindSignerCertified: true, audit.KindBundlePublished: true,
	audit.KindOperationRequested: true, audit.KindOperationApproved: true, audit.KindOperationRejected: true, audit.KindOperationPaused: true,
	audit.KindOperationResumed: true, audit.KindOperationSucceeded: true, audit.KindOperationFailed: true, audit.KindOperationCancelled: true,
	audit.KindOperationExpired: true, audit.KindApproversChanged: true,
	audit.KindBackupMade: true, audit.KindBackupChanged: true, audit.KindRestored: true,
	audit.KindTenantFrozen: true, audit.KindTenantImported: true,
}

// mayWrite refuses, in a transaction, what a frozen tenant does not do.
func (t *Tenant) mayWrite(tx store.Tx, kind audit.Kind) error {
	if whileFrozen[kind] {
		return nil
	}
	s, err := record.GetResource(tx, t.id, record.NameResidence)
	if err != nil || s == nil {
		return err
	}
	r, err := record.DecodeResidence(s.Body)
	if err != nil {
		return err
	}
	return frozenBy(r)
}

// ExportRequest asks that the tenant be frozen, and that archives of it may be
// sealed to a recipient.
type ExportRequest struct {
	KEM       license.KEM
	Recipient []byte
	// WithoutLost lets generations be left out that no custodian gives back any
	// more.
	WithoutLost    bool
	Reason, Ticket string
}

// RequestExport asks for an export, which a tenant-admin has to approve: then the
// tenant is frozen, and [Tenant.Export] gives archives of it.
func (t *Tenant) RequestExport(ctx context.Context, c Call, req ExportRequest) (*OperationView, vocab.EventID, error) {
	e := t.newEvent(audit.KindOperationRequested, c, t.now())
	_, err := license.ParseRecipient(req.KEM, req.Recipient, []license.KEM{license.XWing})
	if err == nil {
		err = t.frozen()
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	p := &operation.ExportParams{KEM: uint16(req.KEM), Recipient: req.Recipient}
	if req.WithoutLost {
		p.WithoutLost = 1
	}
	return t.request(ctx, c, wish{kind: operation.TenantExport, params: p, about: p.Words(), reason: req.Reason, ticket: req.Ticket})
}

// RequestThaw asks that a frozen tenant publish and open here again, which a
// tenant-admin has to approve. If an archive of it is whole, somebody may have
// imported it: then two services answer for one tenant, and the log says so as an
// alarm.
func (t *Tenant) RequestThaw(ctx context.Context, c Call, reason, ticket string) (*OperationView, vocab.EventID, error) {
	e := t.newEvent(audit.KindOperationRequested, c, t.now())
	r := t.Residence()
	var err error
	switch {
	case r.Frozen == 0:
		err = notFrozen()
	case strings.TrimSpace(reason) == "":
		err = vocab.Errorf(vocab.ReasonRequestInvalid, "a thaw needs a reason")
	}
	if err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, e, err)
	}
	p := &operation.ExportParams{Thaw: 1}
	return t.request(ctx, c, wish{kind: operation.TenantExport, params: p, about: p.Words(), reason: reason, ticket: ticket})
}

func notFrozen() error {
	return vocab.Errorf(vocab.ReasonOperationState, "the tenant is not frozen")
}

// moveBasis is what a move rests on: where the tenant lives, and every key,
// version and generation with its state. Whoever approves a move approves that
// these leave; not how many licenses and events there are, for that changes with
// every call until the tenant is frozen.
func (t *Tenant) moveBasis(r store.Reader, _ *operation.Operation) (*operation.Basis, error) {
	var parts []string
	residence, revision := &record.Residence{}, uint32(0)
	if s, err := t.resource(r, record.NameResidence); err != nil {
		return nil, err
	} else if s != nil {
		if residence, err = record.DecodeResidence(s.Body); err != nil {
			return nil, err
		}
		revision = s.Revision
	}
	registered, generations := 0, 0
	if err := record.ListKeys(r, t.id, func(name string, k *record.TenantKey) error {
		registered++
		parts = append(parts, fmt.Sprintf("key %s %s %d", name, k.ID, k.State))
		for _, v := range k.Versions {
			parts = append(parts, fmt.Sprintf("version %s/%d %d", name, v.Number, v.State))
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := record.ListGenerations(r, t.id, func(g *record.Generation) error {
		generations++
		parts = append(parts, fmt.Sprintf("generation g%d %d %x", g.Number, g.State, canon.Hash(g.Signed)))
		return nil
	}); err != nil {
		return nil, err
	}
	slices.Sort(parts)
	text := []string{fmt.Sprintf("%d keys and %d generations as they are", registered, generations), "the tenant is not frozen"}
	if residence.Frozen != 0 {
		text[1] = "the tenant is frozen since " + residence.Frozen.Time().UTC().Format(time.RFC3339)
		switch n := residence.Whole(); n {
		case 0:
			text = append(text, "no archive of it is whole")
		default:
			text = append(text, fmt.Sprintf("%d archives of it are whole: another service may answer for it already", n))
		}
	}
	return &operation.Basis{
		Hash: canon.Hash(canon.D("rms/v1/basis/move", canon.Fields{1: uint64(revision), 2: strings.Join(parts, "\n")})), Text: text,
	}, nil
}

// prepareMove freezes the tenant, or thaws it.
func (t *Tenant) prepareMove(o *operation.Operation) (effect, error) {
	params, err := operation.Params[operation.ExportParams](o)
	if err != nil {
		return nil, err
	}
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		e := t.effectEvent(audit.KindTenantFrozen, o, id, now)
		e.Target = record.NameResidence
		result := ""
		_, err := t.putResource(tx, e.Target, e, editResidence(func(r *record.Residence) (err error) {
			if params.Thaw != 0 {
				result, err = thaw(r, o, e)
			} else {
				result, err = freeze(r, id, o, e)
			}
			return err
		}))
		if err != nil {
			return "", err
		}
		return result, t.log.Append(tx, e)
	}, nil
}

// freeze is the edit that freezes.
func freeze(r *record.Residence, id vocab.OperationID, o *operation.Operation, e *audit.Event) (string, error) {
	if err := frozenBy(r); err != nil {
		return "", err
	}
	r.Frozen, r.Event, r.Operation = record.ToMillis(e.Time), e.ID, id
	e.Detail = withReason("frozen", o.Reason)
	return "the tenant is frozen; archives of it can be taken", nil
}

// thaw is the edit that thaws.
func thaw(r *record.Residence, o *operation.Operation, e *audit.Event) (string, error) {
	if r.Frozen == 0 {
		return "", notFrozen()
	}
	text := "thawed; no archive was whole"
	if n := r.Whole(); n > 0 {
		last := r.Archives[len(r.Archives)-1]
		for _, a := range r.Archives {
			if a.Whole != 0 {
				last = a
			}
		}
		e.Alarm = true
		text = fmt.Sprintf("thawed although %d archives are whole, the last %s, SHA-256 %x: another service may answer for this tenant", n, last.ID, last.SHA256)
	}
	r.Frozen, r.Event, r.Operation = 0, vocab.EventID{}, vocab.OperationID{}
	e.Detail = withReason(text, o.Reason)
	return text, nil
}

func withReason(text, reason string) string {
	if reason != "" {
		text += "; " + reason
	}
	return text
}

// editResidence is an edit of where the tenant lives.
func editResidence(edit func(*record.Residence) error) resourceEdit {
	return func(_ store.Reader, now *record.Resource, _ *audit.Event) ([]byte, error) {
		r := &record.Residence{}
		if now != nil {
			var err error
			if r, err = record.DecodeResidence(now.Body); err != nil {
				return nil, err
			}
		}
		if err := edit(r); err != nil {
			return nil, err
		}
		return r.Encode()
	}
}
