package tenant

import (
	"context"
	"slices"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// NeedsSecondPerson reports whether granting a role takes another tenant-admin's
// approval: the roles that hold keys, see everything or open anything.
func NeedsSecondPerson(role vocab.Role) bool {
	switch role {
	case vocab.RoleKeyCustodian, vocab.RoleAuditor, vocab.RoleRecoveryOfficer:
		return true
	case vocab.RoleTenantAdmin, vocab.RolePolicyAdmin:
		return false
	}
	return true
}

// requestRoleGrant asks for somebody to hold a role that one person alone does
// not give. It always returns an error: APPROVAL_REQUIRED with the operation
// that waits, or why it was not asked for.
func (t *Tenant) requestRoleGrant(ctx context.Context, c Call, role vocab.Role, to vocab.Principal, reason string) error {
	if err := mayHold(to); err != nil {
		return err
	}
	return t.requestApproval(ctx, c, wish{
		kind: operation.RoleGrant, params: &operation.RoleGrantParams{Role: string(role), Principal: to.String()},
		about: string(role) + " for " + to.String(), reason: reason,
	})
}

// mayHold refuses principals that are too wide to hold a role.
func mayHold(p vocab.Principal) error {
	switch p.Kind {
	case vocab.KindUser, vocab.KindGroup, vocab.KindService:
		return nil
	case vocab.KindDomain, vocab.KindTenant, vocab.KindAnyone:
	}
	return vocab.Errorf(vocab.ReasonRequestInvalid, "%s cannot hold a role: name users, groups or services", p)
}

// prepareRoleGrant reads what is to be granted. The first grant of a role begins
// from the holders of the operator's file, which count no longer from then on.
func (t *Tenant) prepareRoleGrant(o *operation.Operation) (effect, error) {
	params, err := operation.Params[operation.RoleGrantParams](o)
	if err != nil {
		return nil, err
	}
	role, err := vocab.ParseRole(params.Role)
	if err != nil {
		return nil, contradicts("an operation")
	}
	to, err := vocab.ParsePrincipal(params.Principal)
	if err != nil {
		return nil, contradicts("an operation")
	}
	name := record.PrefixRoles + string(role)
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		holders := t.holders(role)
		if slices.Contains(holders, to) {
			return to.String() + " holds it already", nil
		}
		holders = append(slices.Clone(holders), to)
		slices.SortFunc(holders, vocab.Principal.Compare)
		holders = slices.Compact(holders)
		if len(holders) > directory.MaxHolders {
			return "", vocab.Errorf(vocab.ReasonRequestInvalid, "%d holders of %s: at most %d are allowed", len(holders), role, directory.MaxHolders)
		}
		e := t.effectEvent(audit.KindRoleChanged, o, id, now)
		e.Target, e.Detail = name, "+ "+to.String()
		if _, err := t.putResource(tx, name, e, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) {
			return (&record.Holders{Principals: holders}).Encode()
		}); err != nil {
			return "", err
		}
		return to.String() + " holds " + string(role), t.log.Append(tx, e)
	}, nil
}
