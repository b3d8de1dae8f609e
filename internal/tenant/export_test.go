package tenant

import (
	"context"
	"maps"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// PutResource lets tests write a resource as its management will.
func (t *Tenant) PutResource(ctx context.Context, c Call, name string, body []byte) error {
	_, _, err := t.changeResource(ctx, c, audit.KindRoleChanged, name, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return body, nil })
	return err
}

// PutGroups lets tests write many groups in few transactions.
func (t *Tenant) PutGroups(ctx context.Context, c Call, groups map[string]record.Group) error {
	for batch := range slices.Chunk(slices.Sorted(maps.Keys(groups)), 500) {
		if err := t.store.Commit(ctx, func(tx store.Tx) error {
			for _, address := range batch {
				g := groups[address]
				body, err := g.Encode()
				if err != nil {
					return err
				}
				e := t.newEvent(audit.KindGroupChanged, c, t.now())
				e.Target = record.PrefixGroups + address
				if _, err := t.putResource(tx, e.Target, e, func(store.Reader, *record.Resource, *audit.Event) ([]byte, error) { return body, nil }); err != nil {
					return err
				}
				if err := t.log.Append(tx, e); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// Load reads and verifies every resource, as opening the tenant does.
func (t *Tenant) Load(ctx context.Context) error {
	return t.store.View(ctx, func(r store.Reader) error { return new(live).load(r, t.id) })
}

// ActiveKeyID is the key that wraps what is new.
func (t *Tenant) ActiveKeyID() vocab.CustodianID { return t.active().ID() }

// ChangeInStore changes a resource's body behind the service's back.
func (t *Tenant) ChangeInStore(ctx context.Context, name string, change func([]byte) []byte) error {
	return t.store.Commit(ctx, func(tx store.Tx) error {
		s, err := record.GetResource(tx, t.id, name)
		if err != nil {
			return err
		}
		s.Body = change(s.Body)
		_, err = record.PutResource(tx, t.id, s)
		return err
	})
}
