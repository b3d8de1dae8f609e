package rms

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Identifiers. Their text form is the lower-case UUID form.
type (
	// TenantID is a tenant, as it stands in documents.
	TenantID = vocab.TenantID
	// ContentID is a document and its license.
	ContentID = vocab.ContentID
	// EventID is an event of the tenant's log: what a person quotes.
	EventID = vocab.EventID
	// OperationID is an operation: what takes time or a second person.
	OperationID = vocab.OperationID
)

// ParseTenantID reads the text form of a [TenantID].
func ParseTenantID(s string) (TenantID, error) { return vocab.ParseTenantID(s) }

// ParseContentID reads the text form of a [ContentID].
func ParseContentID(s string) (ContentID, error) { return vocab.ParseContentID(s) }

// ParseEventID reads the text form of an [EventID].
func ParseEventID(s string) (EventID, error) { return vocab.ParseEventID(s) }

// ParseOperationID reads the text form of an [OperationID].
func ParseOperationID(s string) (OperationID, error) { return vocab.ParseOperationID(s) }

// Usage rights. OWNER implies all others, nothing else implies anything.
type (
	// Right is one usage right.
	Right = vocab.Right
	// Rights is a set of them; ask it with its method Has.
	Rights = vocab.Rights
)

// The usage rights.
const (
	RightView           = vocab.RightView           // open and see content; the prerequisite for anything
	RightDocEdit        = vocab.RightDocEdit        // change content in the application; not saving
	RightEdit           = vocab.RightEdit           // save in place, protected
	RightComment        = vocab.RightComment        // annotate
	RightExport         = vocab.RightExport         // save unprotected, re-protect with other settings
	RightForward        = vocab.RightForward        // forward a mail; grants new recipients nothing
	RightOwner          = vocab.RightOwner          // everything
	RightPrint          = vocab.RightPrint          // print
	RightReply          = vocab.RightReply          // reply without changing recipients
	RightReplyAll       = vocab.RightReplyAll       // reply to all, no new recipients
	RightExtract        = vocab.RightExtract        // clipboard, screen capture and sharing
	RightViewRightsData = vocab.RightViewRightsData // see the policy
	RightEditRightsData = vocab.RightEditRightsData // change the policy
	RightObjModel       = vocab.RightObjModel       // programmatic access
)

// ParseRight reads the name of a right, such as VIEW; case does not matter.
func ParseRight(s string) (Right, error) { return vocab.ParseRight(s) }

// Level returns the rights of a permission level: viewer, reviewer, co-author
// or co-owner.
func Level(name string) (Rights, error) {
	l, err := policy.ParseLevel(name)
	if err != nil {
		return 0, vocab.Errorf(vocab.ReasonRequestInvalid, "%w", err)
	}
	return l.Rights(), nil
}

// Grant gives rights to a principal: "user:bob@contoso.com",
// "group:finance@contoso.com", "domain:fabrikam.com", "tenant:contoso",
// "service:dlp-scanner" or "anyone". Conditions (Until, Login, Networks) are
// fields of what it returns.
func Grant(to string, rights Rights) *rmsv1.Grant {
	g := &rmsv1.Grant{To: to}
	for _, r := range rights.List() {
		g.Rights = append(g.Rights, protoRight(r))
	}
	return g
}

// AdHoc is a policy made of grants, for one document. Its use licenses may be
// kept as long as the tenant allows; see [Offline].
func AdHoc(grants ...*rmsv1.Grant) *rmsv1.AdHocPolicy {
	return &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: grants}
}

// DoNotForward is the policy by which recipients, named as in [Grant], may read
// and reply, but not forward, print or copy.
func DoNotForward(recipients ...string) *rmsv1.AdHocPolicy {
	return &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_DO_NOT_FORWARD, Recipients: recipients}
}

// EncryptOnly is the policy by which recipients, named as in [Grant], may do
// everything but remove or change the protection.
func EncryptOnly(recipients ...string) *rmsv1.AdHocPolicy {
	return &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_ENCRYPT_ONLY, Recipients: recipients}
}

// Offline limits how long a use license made under the policy may be kept, and
// returns the policy. 0 means asking the service at every open.
func Offline(p *rmsv1.AdHocPolicy, d time.Duration) *rmsv1.AdHocPolicy {
	p.Offline = durationpb.New(d)
	return p
}

// protoRight is the contract's number of a right: one more than ours, whose
// zero is VIEW.
func protoRight(r Right) rmsv1.Right { return rmsv1.Right(r) + 1 }

// trimTenant returns the name of a tenant from its resource name.
func trimTenant(s string) (string, bool) { return strings.CutPrefix(s, tenantPrefix) }
