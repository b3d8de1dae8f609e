package audit

import "fmt"

// Kind says what an event tells of. The numbers are part of the leaf format:
// never re-used.
type Kind uint16

// Kinds of events.
const (
	KindPublished Kind = 1 // a license was made and its content key delivered
	KindReleased  Kind = 2 // a content key was released: the document can be opened
	KindRefused   Kind = 3 // somebody was refused, whatever the method

	KindRead Kind = 4 // somebody read what only a role, or the owner, may read

	KindLicenseEdited   Kind = 10
	KindLicenseRevoked  Kind = 11
	KindLicenseRestored Kind = 12
	// Of all licenses that meet conditions: the rule is the target.
	KindLicensesRevoked  Kind = 13
	KindLicensesRestored Kind = 14

	KindTemplateCreated   Kind = 20
	KindTemplateUpdated   Kind = 21
	KindTemplateDeleted   Kind = 22
	KindTemplateUndeleted Kind = 23

	KindTenantCreated     Kind = 30
	KindSettingsChanged   Kind = 31
	KindPrincipalDisabled Kind = 32
	KindPrincipalEnabled  Kind = 33
	KindSignInChanged     Kind = 34 // the operator's files now trust other issuers, certificates or domains
	KindRoleChanged       Kind = 35 // somebody was given a role, or lost one
	KindGroupChanged      Kind = 36 // a group of the tenant's directory was made, changed or deleted
	KindKeyNoted          Kind = 37 // what a custodian says of a key was written down
	KindKeyClaimed        Kind = 38 // a key custodian looked at a key, and said that its new versions were meant
	KindKeyCompromised    Kind = 39

	KindKeyRegistered       Kind = 40
	KindKeyActivated        Kind = 41
	KindKeySuspended        Kind = 42
	KindKeyResumed          Kind = 43
	KindKeyRetired          Kind = 44
	KindKeyRotated          Kind = 45
	KindGenerationCreated   Kind = 46
	KindGenerationRewrapped Kind = 47
	KindSignerCertified     Kind = 48 // the tenant's root certified a daemon key, checkpoint keys included
	KindBundlePublished     Kind = 49

	KindOperationRequested Kind = 50
	KindOperationApproved  Kind = 51 // by one person; with the last of them it runs
	KindOperationRejected  Kind = 52
	KindOperationResumed   Kind = 53 // it goes on after a pause
	KindOperationSucceeded Kind = 54
	KindOperationFailed    Kind = 55
	KindOperationCancelled Kind = 56
	KindRecoveryAnnounced  Kind = 57 // a license that a recovery may open is told so
	KindOperationPaused    Kind = 58
	KindOperationExpired   Kind = 59 // nobody approved it in time

	KindAlarm        Kind = 60 // something does not add up, outside a call that could be refused
	KindRehearsed    Kind = 61 // the switch was tried on a canary
	KindEvidenceMade Kind = 62 // a bundle of evidence about the tenant's keys was signed

	KindBackupMade       Kind = 63 // a copy of the store was begun: from here on there may be one
	KindBackupChanged    Kind = 64 // what is known of a copy changed: it is whole, or it is no more
	KindRestored         Kind = 65 // the store comes from a backup: what happened between that and this is not in the log
	KindApproversChanged Kind = 66 // who approves what is under dual control, or how many of them
	KindKeyDestroyed     Kind = 67 // a key, a version or a generation may not be used any more, for ever
	// The tenant was frozen for its move to another service, or thawed, or an
	// archive of it was begun or is whole: the detail says which.
	KindTenantFrozen   Kind = 68
	KindTenantImported Kind = 69 // the log goes on at another service, with another custodian

	KindServiceStarted Kind = 70
	KindServiceStopped Kind = 71
)

var kindNames = map[Kind]string{
	KindPublished: "published", KindReleased: "released", KindRefused: "refused", KindRead: "read",
	KindLicenseEdited: "license-edited", KindLicenseRevoked: "license-revoked", KindLicenseRestored: "license-restored",
	KindLicensesRevoked: "licenses-revoked", KindLicensesRestored: "licenses-restored",
	KindTemplateCreated: "template-created", KindTemplateUpdated: "template-updated",
	KindTemplateDeleted: "template-deleted", KindTemplateUndeleted: "template-undeleted",
	KindTenantCreated: "tenant-created", KindSettingsChanged: "settings-changed",
	KindPrincipalDisabled: "principal-disabled", KindPrincipalEnabled: "principal-enabled", KindSignInChanged: "sign-in-changed",
	KindRoleChanged: "role-changed", KindGroupChanged: "group-changed",
	KindKeyNoted: "key-noted", KindKeyClaimed: "key-claimed", KindKeyCompromised: "key-compromised",
	KindKeyRegistered: "key-registered", KindKeyActivated: "key-activated", KindKeySuspended: "key-suspended",
	KindKeyResumed: "key-resumed", KindKeyRetired: "key-retired", KindKeyRotated: "key-rotated",
	KindGenerationCreated: "generation-created", KindGenerationRewrapped: "generation-rewrapped",
	KindSignerCertified: "signer-certified", KindBundlePublished: "bundle-published",
	KindOperationRequested: "operation-requested", KindOperationApproved: "operation-approved",
	KindOperationRejected: "operation-rejected", KindOperationResumed: "operation-resumed",
	KindOperationSucceeded: "operation-succeeded", KindOperationFailed: "operation-failed",
	KindOperationCancelled: "operation-cancelled", KindRecoveryAnnounced: "recovery-announced",
	KindOperationPaused: "operation-paused", KindOperationExpired: "operation-expired",
	KindApproversChanged: "approvers-changed", KindKeyDestroyed: "key-destroyed",
	KindBackupMade: "backup-made", KindBackupChanged: "backup-changed", KindRestored: "restored",
	KindTenantFrozen: "tenant-frozen", KindTenantImported: "tenant-imported",
	KindRehearsed: "rehearsed", KindEvidenceMade: "evidence-made", KindAlarm: "alarm", KindServiceStarted: "service-started", KindServiceStopped: "service-stopped",
}

// String returns the kind's name, such as "license-revoked".
func (k Kind) String() string {
	if n, ok := kindNames[k]; ok {
		return n
	}
	return fmt.Sprintf("kind-%d", uint16(k))
}

// Known reports whether this version knows the kind. Only known kinds are
// appended; others may be read.
func (k Kind) Known() bool { return kindNames[k] != "" }

// ParseKind reads a kind's name.
func ParseKind(s string) (Kind, bool) {
	for k, n := range kindNames {
		if n == s {
			return k, true
		}
	}
	return 0, false
}
