package tenant

import (
	"context"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// RequestRoleGrant lets tests ask for what the management of roles will.
func (t *Tenant) RequestRoleGrant(ctx context.Context, c Call, role vocab.Role, to vocab.Principal, reason string) error {
	return t.requestRoleGrant(ctx, c, role, to, reason)
}

// PutResource lets tests write a resource as its management will.
func (t *Tenant) PutResource(ctx context.Context, c Call, name string, body []byte) error {
	_, _, err := t.changeResource(ctx, c, audit.KindRoleChanged, name, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return body, nil })
	return err
}
