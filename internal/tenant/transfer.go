package tenant

import (
	"context"
	"fmt"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// transferBatch is how many licenses one transaction hands over.
const transferBatch = 32

// TransferLicenses makes everything one owner has another's: an operation, since
// there may be much of it. Whoever would own it then needs another
// policy-admin's approval.
func (t *Tenant) TransferLicenses(ctx context.Context, c Call, from, to vocab.Principal, reason string) (*OperationView, vocab.EventID, error) {
	if err := checkTransfer(from, to); err != nil {
		return nil, vocab.EventID{}, t.refuse(ctx, t.newEvent(audit.KindOperationRequested, c, t.now()), err)
	}
	return t.request(ctx, c, wish{
		kind: operation.Transfer, params: &operation.TransferParams{From: from.String(), To: to.String()},
		about: "everything of " + from.String() + " to " + to.String(), reason: reason, alone: !t.Owns(c.Caller, to),
	})
}

// CountOwned returns how many licenses a transfer would hand over now.
func (t *Tenant) CountOwned(ctx context.Context, from, to vocab.Principal) (n int64, err error) {
	if err := checkTransfer(from, to); err != nil {
		return 0, err
	}
	err = t.store.View(ctx, func(r store.Reader) (err error) {
		n, err = record.CountScope(r, t.id, record.LicenseScope{Owner: from})
		return err
	})
	return n, err
}

func checkTransfer(from, to vocab.Principal) error {
	for _, p := range []vocab.Principal{from, to} {
		if p.Kind != vocab.KindUser && p.Kind != vocab.KindService {
			return vocab.Errorf(vocab.ReasonRequestInvalid, "%s cannot own documents: name a user or a service", p)
		}
	}
	if from == to {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "everything of %s is theirs already", from)
	}
	return nil
}

// workTransfer hands over the next licenses.
func (t *Tenant) workTransfer(ctx context.Context, p *pace, id vocab.OperationID, o *operation.Operation) (time.Duration, error) {
	// Whoever was disabled or lost the role since hands nothing over any more.
	if err := t.stillStands(o); err != nil {
		return 0, err
	}
	params, err := operation.Params[operation.TransferParams](o)
	if err != nil {
		return 0, err
	}
	from, err1 := vocab.ParsePrincipal(params.From)
	to, err2 := vocab.ParsePrincipal(params.To)
	if firstError(err1, err2) != nil {
		return 0, contradicts("operation " + id.String())
	}
	_, err = t.workThrough(ctx, work{
		id: id, o: o, scopes: []record.LicenseScope{{Owner: from}}, batch: transferBatch, pace: p, kind: audit.KindLicenseEdited,
		detail: fmt.Sprintf("transferred from %s to %s", from, to),
		ready: oneByOne(func(ctx context.Context, l *record.License, keyUsed *audit.Event) (*record.License, error) {
			return t.withPolicy(ctx, l, keyUsed, func(p *policy.Policy) { p.Owner = to })
		}),
		done: saying("handed over to " + to.String()),
	})
	return 0, err // small batches: nobody waits for them
}

// withPolicy returns a license with another policy, sealed for it.
func (t *Tenant) withPolicy(ctx context.Context, l *record.License, keyUsed *audit.Event, edit func(*policy.Policy)) (*record.License, error) {
	p, err := l.DecodePolicy()
	if err != nil {
		return nil, err
	}
	edit(p)
	if err := p.Validate(); err != nil {
		return nil, err
	}
	next := *l
	if next.Policy, err = license.EncodePolicy(p); err != nil {
		return nil, err
	}
	return &next, t.resealKeyBox(ctx, l, &next, keyUsed)
}
