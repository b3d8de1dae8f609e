package tenant

import (
	"context"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// PutGroup gives a group of the directory these members.
func (t *Tenant) PutGroup(ctx context.Context, c Call, address string, members ...vocab.Principal) error {
	g := record.Group{Members: members}
	_, _, err := t.changeResource(ctx, c, audit.KindSettingsChanged, record.PrefixGroups+address,
		func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return g.Encode() })
	return err
}

// Disable disables a principal.
func (t *Tenant) Disable(ctx context.Context, c Call, p vocab.Principal) error {
	d := record.Disabled{By: "a test"}
	_, _, err := t.changeResource(ctx, c, audit.KindPrincipalDisabled, record.PrefixPrincipals+p.String(),
		func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return d.Encode() })
	return err
}
