package tenant

import (
	"slices"

	"github.com/openrms/rms/internal/vocab"
)

// weight is what of a change decides whether one person may make it.
type weight struct {
	// roles are those that somebody holds after the change and did not before.
	roles []vocab.Role
	// joined are the groups its author is in after the change and was not
	// before.
	joined []string
}

// guarded are the roles that no one person gives away: each can do, or see,
// what a tenant-admin cannot. Granting one is an operation.
var guarded = []vocab.Role{vocab.RoleKeyCustodian, vocab.RoleAuditor, vocab.RoleRecoveryOfficer}

// alone refuses an edit of a group that nobody may make alone. It is asked
// inside the transaction that would make it.
func alone(w weight) error {
	given := slices.DeleteFunc(slices.Clone(w.roles), func(r vocab.Role) bool { return !slices.Contains(guarded, r) })
	if len(given) > 0 {
		return vocab.Errorf(vocab.ReasonSamePerson, "this gives somebody the role %s, which needs a second person", enumerate(given)).
			WithNext("Grant the role itself instead: another tenant-admin then approves it")
	}
	if len(w.joined) > 0 {
		return vocab.Errorf(vocab.ReasonSamePerson, "this would make you yourself a member of %s, which needs a second person", enumerate(w.joined)).
			WithNext("Ask another administrator to add you")
	}
	return nil
}
