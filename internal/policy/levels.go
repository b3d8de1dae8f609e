package policy

import (
	"fmt"
	"strings"

	"github.com/openrms/rms/internal/vocab"
)

// Level is a named set of rights.
type Level string

// The permission levels of Azure RMS ("Configure usage rights", section
// "Rights included in permissions levels"). Where that table and Microsoft's
// own portals differ we take what the portals grant, which is never more:
// no REPLY and REPLYALL for viewers, no EXPORT for co-authors.
const (
	Viewer   Level = "viewer"
	Reviewer Level = "reviewer"
	CoAuthor Level = "co-author"
	CoOwner  Level = "co-owner"
)

// The sets behind the levels and the two mail policies.
var (
	viewerRights   = vocab.RightsOf(vocab.RightView, vocab.RightViewRightsData, vocab.RightObjModel)
	reviewerRights = viewerRights | vocab.RightsOf(vocab.RightDocEdit, vocab.RightEdit,
		vocab.RightReply, vocab.RightReplyAll, vocab.RightForward)
	coAuthorRights = reviewerRights | vocab.RightsOf(vocab.RightExtract, vocab.RightPrint)
	coOwnerRights  = coAuthorRights | vocab.RightsOf(vocab.RightExport, vocab.RightEditRightsData, vocab.RightOwner)

	levels = []struct {
		level  Level
		rights vocab.Rights
	}{
		{Viewer, viewerRights},
		{Reviewer, reviewerRights},
		{CoAuthor, coAuthorRights},
		{CoOwner, coOwnerRights},
	}
)

// Rights returns the level's set, empty for an unknown level.
func (l Level) Rights() vocab.Rights {
	for _, e := range levels {
		if e.level == l {
			return e.rights
		}
	}
	return 0
}

// ParseLevel reads "viewer", "reviewer", "co-author" or "co-owner".
func ParseLevel(s string) (Level, error) {
	if l := Level(s); l.Rights() != 0 {
		return l, nil
	}
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return "", fmt.Errorf("%q is not a level: the levels are viewer, reviewer, co-author and co-owner", s)
}

// LevelOf returns the level whose set is exactly rights.
func LevelOf(rights vocab.Rights) (Level, bool) {
	for _, e := range levels {
		if e.rights == rights {
			return e.level, true
		}
	}
	return "", false
}

// Describe names a set of rights for people: the level if it is one, otherwise
// the encoded names.
func Describe(rights vocab.Rights) string {
	if l, ok := LevelOf(rights); ok {
		return string(l)
	}
	return strings.TrimSpace(rights.String())
}

// Levels returns the levels from least to most.
func Levels() []Level {
	out := make([]Level, len(levels))
	for i, e := range levels {
		out[i] = e.level
	}
	return out
}

// DoNotForward returns what every recipient of a Do Not Forward message has:
// read, edit and answer, but not forward, print, copy or save elsewhere.
func DoNotForward() vocab.Rights {
	return vocab.RightsOf(vocab.RightView, vocab.RightViewRightsData, vocab.RightDocEdit,
		vocab.RightEdit, vocab.RightObjModel, vocab.RightReply, vocab.RightReplyAll)
}

// EncryptOnly returns what every recipient of an Encrypt-Only message has:
// everything except removing the protection (EXPORT, OWNER) and changing the
// policy (EDITRIGHTSDATA).
func EncryptOnly() vocab.Rights {
	return vocab.AllRights &^ vocab.RightsOf(vocab.RightExport, vocab.RightOwner, vocab.RightEditRightsData)
}

// RecipientGrants makes the grants of a Do Not Forward or Encrypt-Only policy:
// one for each recipient, in order, doubles once. It returns nil for another
// kind.
func RecipientGrants(kind AdHocKind, recipients []vocab.Principal) []Grant {
	var rights vocab.Rights
	switch kind {
	case AdHocDoNotForward:
		rights = DoNotForward()
	case AdHocEncryptOnly:
		rights = EncryptOnly()
	default:
		return nil
	}
	seen := make(map[vocab.Principal]bool, len(recipients))
	var out []Grant
	for _, p := range recipients {
		if !seen[p] {
			seen[p] = true
			out = append(out, Grant{To: p, Rights: rights})
		}
	}
	return out
}
