package vocab

import "fmt"

// Role is what a person of a tenant may administer. Roles are disjoint: none
// implies another.
type Role string

// Roles.
const (
	RoleTenantAdmin     Role = "tenant-admin"     // settings, roles, principals
	RolePolicyAdmin     Role = "policy-admin"     // templates and licenses
	RoleKeyCustodian    Role = "key-custodian"    // tenant keys and generations
	RoleAuditor         Role = "auditor"          // reads; changes nothing
	RoleRecoveryOfficer Role = "recovery-officer" // break-glass
)

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleTenantAdmin, RolePolicyAdmin, RoleKeyCustodian, RoleAuditor, RoleRecoveryOfficer:
		return r, nil
	}
	return "", fmt.Errorf("%q is not a role: the roles are tenant-admin, policy-admin, key-custodian, auditor and recovery-officer", clip(s))
}

// Roles returns every role, in the order of the contract.
func Roles() []Role {
	return []Role{RoleTenantAdmin, RolePolicyAdmin, RoleKeyCustodian, RoleAuditor, RoleRecoveryOfficer}
}
