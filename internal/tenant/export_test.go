package tenant

import (
	"context"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
)

// PutResource lets tests write a resource as its management will.
func (t *Tenant) PutResource(ctx context.Context, c Call, name string, body []byte) error {
	_, _, err := t.changeResource(ctx, c, audit.KindRoleChanged, name, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return body, nil })
	return err
}
