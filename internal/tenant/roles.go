package tenant

import (
	"context"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/directory"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// RoleHolders is who holds a role.
type RoleHolders struct {
	Role    vocab.Role
	Holders []vocab.Principal // sorted
	// Stored says that the store names them; otherwise the operator's file does,
	// and nothing was written yet.
	Stored bool
	Written
}

// RoleChange is a role after somebody was given it or lost it.
type RoleChange struct {
	RoleHolders
	// TakenOver are the holders by the operator's file that the store took over
	// with this change, which was its first.
	TakenOver []vocab.Principal
}

// GetRole returns who holds a role.
func (t *Tenant) GetRole(ctx context.Context, role vocab.Role) (out *RoleHolders, err error) {
	err = t.store.View(ctx, func(r store.Reader) error {
		s, err := t.resource(r, record.PrefixRoles+string(role))
		if err != nil {
			return err
		}
		out, err = t.roleHolders(r, role, s)
		return err
	})
	return out, err
}

// roleHolders reads who holds a role out of its resource; nil leaves it to the
// operator's file.
func (t *Tenant) roleHolders(r store.Reader, role vocab.Role, s *record.Resource) (*RoleHolders, error) {
	if s == nil {
		first := slices.Clone(firstHolders(t.file.Load(), role))
		slices.SortFunc(first, vocab.Principal.Compare)
		return &RoleHolders{Role: role, Holders: slices.Compact(first)}, nil
	}
	h, err := record.DecodeHolders(s.Body)
	if err != nil {
		return nil, err
	}
	by, err := t.written(r, s)
	if err != nil {
		return nil, err
	}
	return &RoleHolders{Role: role, Holders: h.Principals, Stored: true, Written: by}, nil
}

// GrantRole gives a principal a role, which is in force for the next call when
// it returns. The first change of a role takes over the holders that the
// operator's file names, which do not count from then on. A guarded role waits
// for another tenant-admin: APPROVAL_REQUIRED names the operation.
func (t *Tenant) GrantRole(ctx context.Context, c Call, role vocab.Role, p vocab.Principal) (*RoleChange, vocab.EventID, error) {
	grant := func(now *RoleHolders, e *audit.Event) ([]vocab.Principal, error) { return granted(now, p, e) }
	if !slices.Contains(guarded, role) {
		return t.changeRole(ctx, c, role, grant)
	}
	// What could not be granted with approval is not asked for.
	now, err := t.GetRole(ctx, role)
	if err == nil {
		_, err = granted(now, p, new(audit.Event))
	}
	if err == nil {
		err = t.requestRoleGrant(ctx, c, role, p)
	}
	return nil, vocab.EventID{}, err
}

// granted adds a principal to the holders of a role.
func granted(now *RoleHolders, p vocab.Principal, e *audit.Event) ([]vocab.Principal, error) {
	at, found := slices.BinarySearchFunc(now.Holders, p, vocab.Principal.Compare)
	switch {
	case p.Kind != vocab.KindUser && p.Kind != vocab.KindGroup && p.Kind != vocab.KindService:
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "%s is too wide for a role", p).WithNext("Name a user, a group or a service")
	case found:
		return nil, vocab.Errorf(vocab.ReasonResourceExists, "%s holds the role %s already", p, now.Role)
	case len(now.Holders) >= directory.MaxHolders:
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "%d hold the role %s, as many as may", len(now.Holders), now.Role).WithNext("Grant it to a group")
	}
	e.Detail = "granted to " + p.String()
	return slices.Insert(slices.Clone(now.Holders), at, p), nil
}

// RevokeRole takes a role from a principal that holds it by name.
func (t *Tenant) RevokeRole(ctx context.Context, c Call, role vocab.Role, p vocab.Principal) (*RoleChange, vocab.EventID, error) {
	return t.changeRole(ctx, c, role, func(now *RoleHolders, e *audit.Event) ([]vocab.Principal, error) {
		at, found := slices.BinarySearchFunc(now.Holders, p, vocab.Principal.Compare)
		if !found {
			return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "%s does not hold the role %s by name", p, role).
				WithNext("See who does; a group's members are changed with the group")
		}
		left := slices.Delete(slices.Clone(now.Holders), at, at+1)
		if role == vocab.RoleTenantAdmin {
			if err := t.someoneAdministers(c.Caller, left, directory.Edit{}); err != nil {
				return nil, err
			}
		}
		e.Detail = "revoked from " + p.String()
		return left, nil
	})
}

// roleChange decides who holds a role after a change, from who does now.
type roleChange func(now *RoleHolders, e *audit.Event) ([]vocab.Principal, error)

// changeRole is the way of every change to a role by one person.
func (t *Tenant) changeRole(ctx context.Context, c Call, role vocab.Role, change roleChange) (*RoleChange, vocab.EventID, error) {
	out := &RoleChange{RoleHolders: RoleHolders{Role: role, Stored: true}}
	s, event, err := t.changeResource(ctx, c, audit.KindRoleChanged, record.PrefixRoles+string(role), t.roleEdit(role, change, out))
	if err != nil {
		return nil, vocab.EventID{}, err
	}
	out.Written = Written{Revision: s.Revision, Time: s.Updated.Time(), Author: c.Caller.Name()}
	return out, event, nil
}

// roleEdit is the edit of a role's resource that a change makes; out tells what
// it came to.
func (t *Tenant) roleEdit(role vocab.Role, change roleChange, out *RoleChange) resourceEdit {
	return func(r store.Reader, s *record.Resource, e *audit.Event) ([]byte, error) {
		now, err := t.roleHolders(r, role, s)
		if err != nil {
			return nil, err
		}
		if out.Holders, err = change(now, e); err != nil {
			return nil, err
		}
		if out.TakenOver = nil; !now.Stored {
			out.TakenOver = now.Holders
			e.Detail += "; from now on the operator's file does not count"
			if len(now.Holders) > 0 {
				e.Detail += ", which named " + enumerate(now.Holders)
			}
		}
		return (&record.Holders{Principals: out.Holders}).Encode()
	}
}

// someoneAdministers refuses a change after which nobody could administer the
// tenant: with these tenant-admins, and the directory as it is after an edit.
// The caller can, if they still hold the role; or else somebody can who is
// named, directly or in a group of the directory, and not disabled. That an
// identity provider has people in a group, the service does not know.
func (t *Tenant) someoneAdministers(caller *vocab.Identity, admins []vocab.Principal, e directory.Edit) error {
	known := policy.KnownAs(caller, nil)
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	d := &t.live.directory
	var people []vocab.Principal
	var groups []string
	for _, p := range admins {
		if p.Kind == vocab.KindGroup {
			groups = append(groups, p.Value)
		} else {
			people = append(people, p)
		}
	}
	for _, p := range append(people, d.PeopleAfter(e, groups)...) {
		if !d.Disabled([]vocab.Principal{p}) {
			return nil
		}
	}
	for _, g := range append(d.GroupsAfter(e, known), caller.Groups...) {
		if slices.Contains(groups, g) {
			return nil
		}
	}
	return vocab.Errorf(vocab.ReasonRequestInvalid, "nobody who is known here could administer the tenant after that").
		WithNext("Grant tenant-admin to somebody else by name first")
}

// tellUncounted says in the operator's log which roles of the file do not count
// any more.
func (t *Tenant) tellUncounted() {
	var roles []vocab.Role
	for _, role := range vocab.Roles() {
		if _, stored := t.holders(role); stored && len(firstHolders(t.file.Load(), role)) > 0 {
			roles = append(roles, role)
		}
	}
	if len(roles) > 0 {
		t.logger.Info("holders of roles are in the store; those of the tenant's file do not count", "tenant", t.name, "roles", roles)
	}
}
