package operation

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
)

// Limits of an approver set.
const (
	// MinThreshold: a quorum of one is no quorum.
	MinThreshold = 2
	MaxApprovers = 32
	// MaxApproverKeys is how many keys one approver may have.
	MaxApproverKeys = 4
	// MaxLabel is the length of a label, in bytes.
	MaxLabel = 128
)

// ApproverSet is who approves what a tenant does only under dual control:
// Threshold of these people, each with a signature by a key of their own.
type ApproverSet struct {
	Threshold uint8 `cbor:"1,keyasint"`
	// Approvers are sorted by principal.
	Approvers []Approver `cbor:"2,keyasint"`
}

// Approver is one of them.
type Approver struct {
	// Principal is the person: user:ADDRESS.
	Principal string `cbor:"1,keyasint"`
	// Label says who that is, for people.
	Label string `cbor:"2,keyasint,omitempty"`
	// Keys are the person's SSH public keys in wire form, sorted. Each of them
	// signs.
	Keys [][]byte `cbor:"3,keyasint"`
}

// Sort puts the approvers and their keys in the order of the one encoding.
func (s *ApproverSet) Sort() {
	slices.SortFunc(s.Approvers, func(a, b Approver) int { return strings.Compare(a.Principal, b.Principal) })
	for i := range s.Approvers {
		slices.SortFunc(s.Approvers[i].Keys, bytes.Compare)
	}
}

// Validate says what is wrong with a set that was sorted: REQUEST_INVALID.
func (s *ApproverSet) Validate() error {
	bad := func(format string, args ...any) error {
		return vocab.Errorf(vocab.ReasonRequestInvalid, format, args...)
	}
	n := len(s.Approvers)
	switch {
	case s.Threshold < MinThreshold:
		return bad("the threshold must be %d or more: what one person approves is not under dual control", MinThreshold)
	case n > MaxApprovers:
		return bad("there are at most %d approvers, not %d", MaxApprovers, n)
	case int(s.Threshold) > n:
		return vocab.Errorf(vocab.ReasonRequestInvalid, "%d of %d is no quorum: nobody could approve anything", s.Threshold, n).
			WithNext("Name more approvers, or lower the threshold on purpose; it never falls by itself")
	}
	owners := map[string]string{} // by key
	for i, a := range s.Approvers {
		p, err := vocab.ParsePrincipal(a.Principal)
		switch {
		case err != nil || p.Kind != vocab.KindUser || p.String() != a.Principal:
			return bad("%q is not one person: an approver is a user", a.Principal)
		case i > 0 && a.Principal == s.Approvers[i-1].Principal:
			return bad("%s is named twice: approvers are different people", a.Principal)
		case i > 0 && a.Principal < s.Approvers[i-1].Principal:
			return bad("the approvers are not in order")
		case len(a.Label) > MaxLabel || canon.CheckText(a.Label) != nil:
			return bad("the label of %s is longer than %d bytes, or not one line of plain text", a.Principal, MaxLabel)
		case len(a.Keys) == 0 || len(a.Keys) > MaxApproverKeys:
			return bad("%s has %d keys: 1 to %d are possible", a.Principal, len(a.Keys), MaxApproverKeys)
		}
		for j, wire := range a.Keys {
			key, err := sshsig.ParseKey(wire)
			if err != nil {
				return err
			}
			if owner, taken := owners[string(wire)]; taken {
				return bad("the key %s is named twice, of %s and of %s: a key is one person's", key.Fingerprint(), owner, a.Principal)
			}
			if owners[string(wire)] = a.Principal; j > 0 && bytes.Compare(a.Keys[j-1], wire) > 0 {
				return bad("the keys of %s are not in order", a.Principal)
			}
		}
	}
	return nil
}

// Encode returns the stored form, which [Hash] is of.
func (s *ApproverSet) Encode() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	b, err := canon.Marshal(s)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the approvers cannot be written").Because(err)
	}
	return b, nil
}

// DecodeApprovers reads the stored form; the error is STORE_DAMAGED.
func DecodeApprovers(b []byte) (*ApproverSet, error) {
	s := new(ApproverSet)
	if err := canon.Unmarshal(b, s); err != nil {
		return nil, damaged(err)
	}
	if err := s.Validate(); err != nil {
		return nil, damaged(err)
	}
	return s, nil
}

// SetHash is what an approval names an approver set by; b is its stored form.
func SetHash(b []byte) [32]byte { return canon.Hash(canon.D("rms/v1/approvers", canon.Fields{1: b})) }

// Find returns the approver who is a principal, nil if there is none.
func (s *ApproverSet) Find(principal string) *Approver {
	if s == nil {
		return nil
	}
	for i := range s.Approvers {
		if s.Approvers[i].Principal == principal {
			return &s.Approvers[i]
		}
	}
	return nil
}

// Has reports whether a key is one of an approver's.
func (s *ApproverSet) Has(principal string, wire []byte) bool {
	a := s.Find(principal)
	return a != nil && slices.ContainsFunc(a.Keys, func(k []byte) bool { return bytes.Equal(k, wire) })
}

// String is how many of how many: "2 of 3", or "no approvers" of none.
func (s *ApproverSet) String() string {
	if s == nil {
		return "no approvers"
	}
	return fmt.Sprintf("%d of %d", s.Threshold, len(s.Approvers))
}

// Who names an approver for people: "anna@contoso.com (Anna, security)".
func (a *Approver) Who() string {
	who := strings.TrimPrefix(a.Principal, "user:")
	if a.Label != "" {
		who += " (" + a.Label + ")"
	}
	return who
}

// Changes says in words what another set would change, its quorum first. from
// is nil where there is none yet.
func (s *ApproverSet) Changes(from *ApproverSet) []string {
	var out []string
	switch {
	case from == nil:
		out = append(out, "sets the first quorum: "+s.String())
	case s.Threshold < from.Threshold:
		out = append(out, fmt.Sprintf("lowers the quorum from %s to %s", from, s))
	case s.Threshold > from.Threshold:
		out = append(out, fmt.Sprintf("raises the quorum from %s to %s", from, s))
	case s.String() != from.String():
		out = append(out, fmt.Sprintf("keeps the threshold; the quorum is %s after %s", s, from))
	default:
		out = append(out, "keeps the quorum of "+s.String())
	}
	if from == nil {
		from = &ApproverSet{}
	}
	for i := range from.Approvers {
		if a := &from.Approvers[i]; s.Find(a.Principal) == nil {
			out = append(out, "removes "+a.Who())
		}
	}
	for i := range s.Approvers {
		a := &s.Approvers[i]
		old := from.Find(a.Principal)
		if old == nil {
			out = append(out, "adds "+a.Who()+keyList(": ", a.Keys))
			continue
		}
		if a.Label != old.Label {
			out = append(out, "calls "+old.Who()+" "+a.Who())
		}
		gone := slices.DeleteFunc(slices.Clone(old.Keys), func(k []byte) bool { return s.Has(a.Principal, k) })
		more := slices.DeleteFunc(slices.Clone(a.Keys), func(k []byte) bool { return from.Has(a.Principal, k) })
		if len(gone) > 0 {
			out = append(out, "takes from "+a.Who()+keyList(" ", gone))
		}
		if len(more) > 0 {
			out = append(out, "gives "+a.Who()+keyList(" ", more))
		}
	}
	return out
}

// keyList names keys by their fingerprints.
func keyList(before string, keys [][]byte) string {
	var out []string
	for _, wire := range keys {
		if k, err := sshsig.ParseKey(wire); err == nil {
			out = append(out, k.Type()+" "+k.Fingerprint())
		}
	}
	return before + strings.Join(out, ", ")
}
