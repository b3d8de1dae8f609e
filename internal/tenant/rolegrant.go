package tenant

import (
	"context"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// requestRoleGrant asks for somebody to hold a role that one person alone does
// not give. It always returns an error: APPROVAL_REQUIRED with the operation
// that waits, or why it was not asked for.
func (t *Tenant) requestRoleGrant(ctx context.Context, c Call, role vocab.Role, to vocab.Principal) error {
	return t.requestApproval(ctx, c, wish{
		kind: operation.RoleGrant, params: &operation.RoleGrantParams{Role: string(role), Principal: to.String()},
		about: string(role) + " for " + to.String(),
	})
}

// prepareRoleGrant reads what is to be granted.
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
	return func(tx store.Tx, o *operation.Operation, id vocab.OperationID, now time.Time) (string, error) {
		e := t.effectEvent(audit.KindRoleChanged, o, id, now)
		e.Target = record.PrefixRoles + string(role)
		grant := func(now *RoleHolders, e *audit.Event) ([]vocab.Principal, error) { return granted(now, to, e) }
		switch _, err := t.putResource(tx, e.Target, e, t.roleEdit(role, grant, new(RoleChange))); {
		case vocab.ReasonOf(err) == vocab.ReasonResourceExists:
			return to.String() + " holds it already", nil
		case err != nil:
			return "", err
		}
		return to.String() + " holds " + string(role), t.log.Append(tx, e)
	}, nil
}
