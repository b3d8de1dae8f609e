package tenant

import (
	"slices"
	"time"

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
// The operator's file names the first holders. The store knows none yet:
// granting roles over the network needs a second person, and that is an
// operation.
func (t *Tenant) HoldsRole(caller *vocab.Identity, roles ...vocab.Role) bool {
	if caller == nil || caller.Actor != nil || caller.Member == "" && caller.Service == "" {
		return false
	}
	file := t.file.Load()
	for _, role := range roles {
		holders := file.Roles[role]
		if role == vocab.RoleTenantAdmin {
			holders = file.Admins
		}
		if slices.ContainsFunc(holders, func(p vocab.Principal) bool { return policy.Is(caller, p, nil) }) {
			return true
		}
	}
	return false
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
