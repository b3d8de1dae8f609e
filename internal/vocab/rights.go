package vocab

import (
	"fmt"
	"math/bits"
	"strings"
)

// Right is one usage right. Its number is its bit in [Rights] and is part of
// the use license format: numbers are never re-used or reordered.
type Right uint8

// The fourteen usage rights, named by the encoded names of Azure RMS
// ("Configure usage rights for Azure Rights Management", column "Encoded
// name"). Only RightOwner implies others: it implies all.
const (
	RightView           Right = iota // VIEW: open and see content; the prerequisite for anything
	RightDocEdit                     // DOCEDIT: change content in the application; not saving
	RightEdit                        // EDIT: save in place, protected
	RightComment                     // COMMENT: annotate
	RightExport                      // EXPORT: save unprotected, re-protect with other settings
	RightForward                     // FORWARD: forward a mail; grants new recipients nothing
	RightOwner                       // OWNER: everything
	RightPrint                       // PRINT
	RightReply                       // REPLY: reply without changing recipients
	RightReplyAll                    // REPLYALL: reply to all, no new recipients
	RightExtract                     // EXTRACT: clipboard, screen capture and sharing
	RightViewRightsData              // VIEWRIGHTSDATA: see the policy
	RightEditRightsData              // EDITRIGHTSDATA: change the policy
	RightObjModel                    // OBJMODEL: programmatic access, macros

	rightCount = iota
)

var rightNames = [rightCount]string{
	"VIEW", "DOCEDIT", "EDIT", "COMMENT", "EXPORT", "FORWARD", "OWNER", "PRINT",
	"REPLY", "REPLYALL", "EXTRACT", "VIEWRIGHTSDATA", "EDITRIGHTSDATA", "OBJMODEL",
}

// String returns the encoded name.
func (r Right) String() string {
	if int(r) < rightCount {
		return rightNames[r]
	}
	return fmt.Sprintf("Right(%d)", uint8(r))
}

// Valid reports whether r is one of the fourteen.
func (r Right) Valid() bool { return int(r) < rightCount }

// ParseRight reads an encoded name. Like the AIPService cmdlets it ignores
// case; nothing else is tolerated.
func ParseRight(s string) (Right, error) {
	for i, n := range rightNames {
		if strings.EqualFold(n, s) {
			return Right(i), nil
		}
	}
	return 0, fmt.Errorf("%q is not a usage right: the rights are %s", clip(s), strings.Join(rightNames[:], " "))
}

// Rights is a set of usage rights, one bit each; bits 14 and above are never
// set in a valid set.
type Rights uint32

// AllRights is the set of all fourteen: what OWNER amounts to.
const AllRights Rights = 1<<rightCount - 1

// RightsOf returns the set of the given rights.
func RightsOf(rs ...Right) Rights {
	var s Rights
	for _, r := range rs {
		s |= 1 << r
	}
	return s
}

// Has reports whether the set allows r: r is in it, or OWNER is
// (MSIPC "Understanding usage restrictions": an access check for any right
// succeeds for its holder or for OWNER).
func (s Rights) Has(r Right) bool {
	return r.Valid() && (s&(1<<r) != 0 || s&(1<<RightOwner) != 0)
}

// Contains reports whether r itself is a member, without the rule for OWNER.
func (s Rights) Contains(r Right) bool { return r.Valid() && s&(1<<r) != 0 }

// Effective returns what the set amounts to: all rights if it holds OWNER.
func (s Rights) Effective() Rights {
	if s.Contains(RightOwner) {
		return AllRights
	}
	return s
}

// Valid reports whether only known bits are set.
func (s Rights) Valid() bool { return s&^AllRights == 0 }

// List returns the members in bit order.
func (s Rights) List() []Right {
	out := make([]Right, 0, bits.OnesCount32(uint32(s)))
	for r := Right(0); int(r) < rightCount; r++ {
		if s.Contains(r) {
			out = append(out, r)
		}
	}
	return out
}

// String returns the encoded names in bit order, separated by spaces.
func (s Rights) String() string {
	var names []string
	for _, r := range s.List() {
		names = append(names, r.String())
	}
	if !s.Valid() {
		names = append(names, fmt.Sprintf("unknown(%#x)", uint32(s&^AllRights)))
	}
	return strings.Join(names, " ")
}
