package tenant

import (
	"slices"
	"time"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// IdentityView is what package identity verifies callers of this tenant
// against.
func (t *Tenant) IdentityView() identity.Tenant {
	view := t.file.Load().Identity()
	view.GuestDomain = func(domain string) bool {
		return slices.Contains(t.settings.Load().GuestDomains, domain)
	}
	return view
}

// HoldsRole reports whether the caller holds one of the roles. Guests hold
// none, and a service that acts for a person does not bring that person's.
//
// Until a role is granted or revoked for the first time, the operator's file
// names its holders.
func (t *Tenant) HoldsRole(caller *vocab.Identity, roles ...vocab.Role) bool {
	if caller == nil || caller.Actor != nil || caller.Member == "" && caller.Service == "" {
		return false
	}
	who := t.standingOf(caller, *t.settings.Load())
	return slices.ContainsFunc(roles, func(role vocab.Role) bool {
		holders, _ := t.holders(role)
		return slices.ContainsFunc(holders, func(p vocab.Principal) bool { return policy.Is(who.caller, p, nil) })
	})
}

// holders returns who holds a role, and whether the store says so; otherwise
// the operator's file does.
func (t *Tenant) holders(role vocab.Role) (holders []vocab.Principal, stored bool) {
	t.live.mu.RLock()
	defer t.live.mu.RUnlock()
	if holders, stored = t.live.directory.Holders(role); stored {
		return holders, true
	}
	return firstHolders(t.file.Load(), role), false
}

// firstHolders are those that the operator's file names.
func firstHolders(file *config.Tenant, role vocab.Role) []vocab.Principal {
	if role == vocab.RoleTenantAdmin {
		return file.Admins
	}
	return file.Roles[role]
}

// Owns reports whether the caller is the principal.
func (t *Tenant) Owns(caller *vocab.Identity, owner vocab.Principal) bool {
	return policy.Is(caller, owner, t.settings.Load().GuestDomains)
}

// CheckTokenAge refuses tokens older than the tenant's own limit, which may be
// tighter than the provider's.
func (t *Tenant) CheckTokenAge(caller *vocab.Identity, now time.Time) error {
	limit := t.settings.Load().TokenAgeMax
	if limit == 0 || caller.IssuedAt.IsZero() || now.Sub(caller.IssuedAt) <= limit {
		return nil
	}
	return vocab.Errorf(vocab.ReasonTokenTooOld, "your sign-in is older than this tenant allows").WithNext("Sign in again")
}

// NoSuchLicense is the answer to whoever may not know whether there is such a
// license: the same as for a license without rights.
func NoSuchLicense() *vocab.Error {
	return vocab.Errorf(vocab.ReasonNoRights, "you have no rights on this document").WithNext("Ask whoever sent you the document")
}
