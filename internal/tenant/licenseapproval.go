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

// A change of somebody else's license by which its author gains access is not
// written: it waits for another policy-admin. Who owns a document, or protected
// it, has all rights on it and gains none.

// gainsByLicense reports whether the author of an edit gains by it.
func (t *Tenant) gainsByLicense(author *vocab.Identity, before, after *policy.Policy, now time.Time) bool {
	settings := t.Settings()
	who := t.standingOf(author, settings)
	return policy.GainsByLicense(who.caller, settings.GuestDomains, before, after, now)
}

// gainsByRestoring reports whether the author could open a document once it is
// revoked no more.
func (t *Tenant) gainsByRestoring(ctx context.Context, author *vocab.Identity, id vocab.ContentID) (gains bool, err error) {
	settings := t.Settings()
	who := t.standingOf(author, settings)
	err = t.store.View(ctx, func(r store.Reader) error {
		in, err := t.readInputs(r, id, settings)
		if err == nil && in.policy != nil {
			gains = policy.GainsByRestoring(who.caller, settings.GuestDomains, in.policy, in.template, t.now())
		}
		return err
	})
	return gains, err
}

// requestLicense asks for a license to be changed to next, which its author must
// not write alone. It always returns an error.
func (t *Tenant) requestLicense(ctx context.Context, c Call, v *LicenseView, next *record.License) error {
	return t.requestApproval(ctx, c, wish{
		kind: operation.LicenseUpdate,
		params: &operation.LicenseParams{
			License: next.Content, Base: v.Record.Revision, Policy: next.Policy, Title: next.Title, Contact: next.Contact,
		},
		about: "license " + next.Content.String(),
	})
}

// LicenseOf returns the change of a license that an operation would write.
func LicenseOf(o *operation.Operation) (*operation.LicenseParams, *policy.Policy, error) {
	params, err := operation.Params[operation.LicenseParams](o)
	if err != nil {
		return nil, nil, err
	}
	p, err := license.DecodePolicy(params.Policy)
	return params, p, err
}

// checkLicenseBasis refuses a change of a revision that is not the current one
// any more.
func (t *Tenant) checkLicenseBasis(r store.Reader, o *operation.Operation) error {
	params, err := operation.Params[operation.LicenseParams](o)
	if err != nil {
		return err
	}
	v, err := t.license(r, params.License)
	if err != nil {
		return err
	}
	if v.Record.Revision != params.Base {
		return conflict("license", "somebody else", v.Record.Revision, params.Base)
	}
	return nil
}

// prepareLicense seals the content key for the policy that was approved.
func (t *Tenant) prepareLicense(ctx context.Context, o *operation.Operation) (effect, error) {
	params, _, err := LicenseOf(o)
	if err != nil {
		return nil, err
	}
	var v *LicenseView
	if err := t.store.View(ctx, func(r store.Reader) (err error) {
		if err = t.checkLicenseBasis(r, o); err == nil {
			v, err = t.license(r, params.License)
		}
		return err
	}); err != nil {
		return nil, err
	}
	next := *v.Record
	next.Policy, next.Title, next.Contact = params.Policy, params.Title, params.Contact
	keyUsed := new(audit.Event)
	if err := t.resealKeyBox(ctx, v.Record, &next, keyUsed); err != nil {
		return nil, err
	}
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		if err := t.checkLicenseBasis(tx, o); err != nil {
			return "", err
		}
		e := t.effectEvent(audit.KindLicenseEdited, o, id, now)
		e.Generation, e.Custodian, e.KeyVersion, e.CustodianRequest = keyUsed.Generation, keyUsed.Custodian, keyUsed.KeyVersion, keyUsed.CustodianRequest
		row := next
		if err := t.putLicense(tx, &row, e); err != nil {
			return "", err
		}
		return fmt.Sprintf("revision %d of license %s", row.Revision, row.Content), nil
	}, nil
}

// putLicense writes the next revision of a license with its event, in a
// transaction that has compared what it was made from.
func (t *Tenant) putLicense(tx store.Tx, next *record.License, e *audit.Event) (err error) {
	next.Revision++
	next.Updated, next.LastEvent = record.ToMillis(e.Time), e.ID
	e.Content, e.LicenseRevision = next.Content, next.Revision
	if e.State, err = next.State(); err != nil {
		return err
	}
	if err := record.PutLicense(tx, t.id, next); err != nil {
		return err
	}
	return t.log.Append(tx, e)
}
