package decision

import (
	"slices"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// MaxSize is the largest encoding, in bytes: what an event takes.
const MaxSize = 8 << 10

const (
	// maxNames is how many bytes of names are kept as they are. Beyond it only
	// those count that the policy names.
	maxNames = 2 << 10
	// mostNames is how many bytes of those.
	mostNames  = 5 << 10
	maxParents = policy.MaxParents
	// maxParentRevocations is how many revocations of one parent are recorded:
	// whatever was revoked begets nothing.
	maxParentRevocations = 2
)

// Bits of field 2.
const (
	flagMember = 1 << iota
	flagMFA
	flagCertificate
	flagGroupsIncomplete
	flagDisabled
	flagRecovery
	flagStrict
	flagNamed   // the first address is the name of the event's principal
	flagThrough // somebody calls for the caller
	flagSame
	flagCut
	allFlags = 1<<iota - 1
)

// form is the encoding: a deterministic CBOR map.
type form struct {
	Question    uint8         `cbor:"1,keyasint"`
	Flags       uint32        `cbor:"2,keyasint,omitempty"`
	Settings    uint32        `cbor:"3,keyasint,omitempty"`
	Policy      []byte        `cbor:"4,keyasint,omitempty"`
	Service     string        `cbor:"5,keyasint,omitempty"`
	Addresses   []string      `cbor:"6,keyasint,omitempty"`
	Groups      []string      `cbor:"7,keyasint,omitempty"`
	Directory   []string      `cbor:"8,keyasint,omitempty"`
	Issued      uint64        `cbor:"9,keyasint,omitempty"` // seconds since 1970
	Actor       string        `cbor:"10,keyasint,omitempty"`
	Revocations []byte        `cbor:"11,keyasint,omitempty"` // scope and event of each
	Key         []uint32      `cbor:"12,keyasint,omitempty"`
	Abridged    *abridgedForm `cbor:"13,keyasint,omitempty"`
	How         uint8         `cbor:"14,keyasint,omitempty"`
	Owner       string        `cbor:"15,keyasint,omitempty"`
	Slug        string        `cbor:"16,keyasint,omitempty"`
	Parents     []parentForm  `cbor:"17,keyasint,omitempty"`
	Rules       uint32        `cbor:"18,keyasint,omitempty"` // 0: the first
}

type abridgedForm struct {
	Addresses uint32   `cbor:"1,keyasint,omitempty"`
	Groups    uint32   `cbor:"2,keyasint,omitempty"`
	Directory uint32   `cbor:"3,keyasint,omitempty"`
	Hash      [32]byte `cbor:"4,keyasint"`
}

type parentForm struct {
	Content          vocab.ContentID `cbor:"1,keyasint"`
	Revision         uint32          `cbor:"2,keyasint,omitempty"`
	Policy           []byte          `cbor:"3,keyasint,omitempty"`
	Strict           uint8           `cbor:"4,keyasint,omitempty"`
	Revocations      []byte          `cbor:"5,keyasint,omitempty"`
	TemplateRevision uint32          `cbor:"6,keyasint,omitempty"`
}

// revocationSize is the size of one revocation: scope and event.
const revocationSize = 1 + 16

// Encode returns the canonical bytes, at most [MaxSize] of them. name is what
// the event calls its principal; named reports whether the policy names a
// principal, and is asked only of callers with many names. The error is
// INTERNAL: names that are not canonical.
func Encode(in *Inputs, name string, named func(vocab.Principal) bool) ([]byte, error) {
	c := in.Caller
	f := form{
		Question: uint8(in.Question), Settings: in.Settings, Service: c.Service, Actor: c.Actor, Revocations: revocations(in.Revocations, maxRevocations),
	}
	if in.Rules > 1 {
		f.Rules = in.Rules
	}
	if !c.IssuedAt.IsZero() {
		f.Issued = uint64(max(c.IssuedAt.Unix(), 0))
	}
	f.setCaller(&c, name, named)
	if k := in.Key; k != (Key{}) {
		f.Key = []uint32{k.Generation, k.Version, uint32(k.State), uint32(k.VersionState)}
	}
	if l := in.License; l != nil {
		f.Policy = l.Policy[:]
	}
	if p := in.Publish; p != nil {
		f.setPublishing(p)
	}
	for _, b := range []struct {
		set bool
		bit uint32
	}{
		{c.Member, flagMember},
		{c.MFA, flagMFA},
		{c.Certificate, flagCertificate},
		{c.GroupsIncomplete, flagGroupsIncomplete},
		{c.Disabled, flagDisabled},
		{in.Recovery, flagRecovery},
		{in.License != nil && in.License.Strict, flagStrict},
		{c.Through, flagThrough},
		{in.Publish != nil && in.Publish.Same, flagSame},
	} {
		if b.set {
			f.Flags |= b.bit
		}
	}
	b, err := canon.Marshal(&f)
	if err == nil && len(b) > MaxSize {
		err = canon.ErrMalformed // the bounds above do not add up: a defect
	}
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonInternal, "the inputs of a decision cannot be encoded").Because(err)
	}
	return b, nil
}

// setCaller writes the caller's names: all of them if they are few, else those
// that the policy names.
func (f *form) setCaller(c *Caller, name string, named func(vocab.Principal) bool) {
	f.Addresses, f.Groups, f.Directory = c.Addresses, c.Groups, c.Directory
	if len(c.Addresses) > 0 && c.Addresses[0] == name {
		f.Flags |= flagNamed
		f.Addresses = c.Addresses[1:]
	}
	if size(f.Addresses)+size(f.Groups)+size(f.Directory) <= maxNames {
		return
	}
	all, err := canon.Marshal([][]string{c.Addresses, c.Groups, c.Directory})
	if err != nil {
		return // encoding the form says the same
	}
	f.Abridged = &abridgedForm{
		Addresses: uint32(len(c.Addresses)), Groups: uint32(len(c.Groups)), Directory: uint32(len(c.Directory)), Hash: canon.Hash(all),
	}
	left := mostNames
	keep := func(list []string, is func(string) bool) []string {
		var out []string
		for _, s := range list {
			switch {
			case !is(s):
			case left < len(s)+2:
				f.Flags |= flagCut
			default:
				left -= len(s) + 2
				out = append(out, s)
			}
		}
		return out
	}
	first := ""
	if len(c.Addresses) > 0 {
		first = c.Addresses[0] // who publishes goes by it
	}
	f.Addresses = keep(f.Addresses, func(s string) bool {
		return s == first || named(vocab.Principal{Kind: vocab.KindUser, Value: s}) || named(vocab.Principal{Kind: vocab.KindDomain, Value: vocab.DomainOf(s)})
	})
	inGroup := func(s string) bool { return named(vocab.Principal{Kind: vocab.KindGroup, Value: s}) }
	f.Groups, f.Directory = keep(f.Groups, inGroup), keep(f.Directory, inGroup)
}

// size is how many bytes a list takes, or a few more.
func size(list []string) (n int) {
	for _, s := range list {
		n += len(s) + 2
	}
	return n
}

func (f *form) setPublishing(p *Publishing) {
	f.How, f.Slug = uint8(p.How), p.Slug
	if !p.Owner.IsZero() {
		f.Owner = p.Owner.String()
	}
	for _, parent := range p.Parents[:min(len(p.Parents), maxParents)] {
		q := parentForm{
			Content: parent.Content, Revision: parent.Revision, TemplateRevision: parent.TemplateRevision,
			Revocations: revocations(parent.Revocations, maxParentRevocations),
		}
		if l := parent.License; l != nil {
			if q.Policy = l.Policy[:]; l.Strict {
				q.Strict = 1
			}
		}
		f.Parents = append(f.Parents, q)
	}
}

// groupsUnknown is the bit, beside those of scopes, of a revocation that covers
// the caller only as a member of a group that nobody knows of.
const groupsUnknown = 128

func revocations(list []policy.Revocation, most int) []byte {
	var out []byte
	for _, r := range few(list, most) {
		bits := byte(r.Scope)
		if r.GroupsUnknown {
			bits |= groupsUnknown
		}
		out = append(append(out, bits), r.Event[:]...)
	}
	return out
}

// Decode reads what [Encode] wrote, and nothing else; name is what the event
// calls its principal. The error is LOG_DAMAGED.
func Decode(b []byte, name string) (*Inputs, error) {
	if len(b) > MaxSize {
		return nil, unreadable("too many bytes")
	}
	var f form
	if err := canon.Unmarshal(b, &f); err != nil {
		return nil, unreadable("not in its form").Because(err)
	}
	in := &Inputs{
		Question: Question(f.Question), Rules: max(f.Rules, 1), Settings: f.Settings, Recovery: f.Flags&flagRecovery != 0,
		Caller: Caller{
			Addresses: f.Addresses, Groups: f.Groups, Directory: f.Directory, Service: f.Service, Actor: f.Actor,
			GroupsIncomplete: f.Flags&flagGroupsIncomplete != 0, Member: f.Flags&flagMember != 0, MFA: f.Flags&flagMFA != 0,
			Certificate: f.Flags&flagCertificate != 0, Disabled: f.Flags&flagDisabled != 0, Through: f.Flags&flagThrough != 0,
		},
	}
	if in.Question < Acquire || in.Question > Deliver || f.Flags&^allFlags != 0 || f.Rules == 1 {
		return nil, unreadable("an unknown question, flag or number of rules")
	}
	if f.Flags&flagNamed != 0 {
		in.Caller.Addresses = append([]string{name}, f.Addresses...)
	}
	if err := f.caller(&in.Caller); err != nil {
		return nil, err
	}
	var err error
	if in.License, err = license(f.Policy, f.Flags&flagStrict != 0); err != nil {
		return nil, err
	}
	if in.Revocations, err = readRevocations(f.Revocations, maxRevocations); err != nil {
		return nil, err
	}
	switch {
	case len(f.Key) == 0:
	case len(f.Key) != 4 || f.Key[2] > 255 || f.Key[3] > 255 || slices.Equal(f.Key, []uint32{0, 0, 0, 0}):
		return nil, unreadable("a key that cannot be")
	default:
		in.Key = Key{Generation: f.Key[0], Version: f.Key[1], State: uint8(f.Key[2]), VersionState: uint8(f.Key[3])}
	}
	return in, f.publishing(in)
}

func unreadable(what string) *vocab.Error {
	return vocab.Errorf(vocab.ReasonLogDamaged, "the inputs of a decision cannot be read: %s", what)
}

// maxIssued is the end of the year 9999.
const maxIssued = 253402300799

// caller checks the names and reads what else there is of the caller.
func (f *form) caller(c *Caller) error {
	for _, list := range [][]string{c.Addresses, f.Groups, f.Directory} {
		for _, s := range list {
			if a, err := vocab.CanonicalAddress(s); err != nil || a != s {
				return unreadable("a name that is not canonical")
			}
		}
	}
	if f.Service != "" && !vocab.ValidSlug(f.Service) || f.Actor != "" && (!vocab.ValidSlug(f.Actor) || !c.Through) || f.Issued > maxIssued {
		return unreadable("a service or a time that cannot be")
	}
	if f.Issued > 0 {
		c.IssuedAt = time.Unix(int64(f.Issued), 0).UTC()
	}
	cut := f.Flags&flagCut != 0
	if a := f.Abridged; a != nil {
		c.Abridged = &Abridged{Addresses: a.Addresses, Groups: a.Groups, Directory: a.Directory, Hash: a.Hash, Cut: cut}
	} else if cut {
		return unreadable("names cut out of none")
	}
	return nil
}

// license reads what there is of a license; nil if there is none.
func license(policyHash []byte, strict bool) (*License, error) {
	switch {
	case len(policyHash) == 0 && !strict:
		return nil, nil
	case len(policyHash) != 32:
		return nil, unreadable("a license that cannot be")
	}
	return &License{Policy: [32]byte(policyHash), Strict: strict}, nil
}

func readRevocations(b []byte, most int) (out []policy.Revocation, err error) {
	if len(b)%revocationSize != 0 || len(b) > most*revocationSize {
		return nil, unreadable("revocations that cannot be")
	}
	for ; len(b) > 0; b = b[revocationSize:] {
		scope := policy.RevocationScope(b[0] &^ groupsUnknown)
		if scope == 0 {
			return nil, unreadable("a revocation of nothing that is known")
		}
		out = append(out, policy.Revocation{
			Scope: scope, Event: vocab.EventID(b[1:revocationSize]), GroupsUnknown: b[0]&groupsUnknown != 0,
		})
	}
	return out, nil
}

// publishing reads what was asked of a publish.
func (f *form) publishing(in *Inputs) error {
	same := f.Flags&flagSame != 0
	if in.Question != Publish {
		if f.How != 0 || f.Owner != "" || f.Slug != "" || len(f.Parents) > 0 || same {
			return unreadable("a publish that is none")
		}
		return nil
	}
	p := &Publishing{How: How(f.How), Same: same, Slug: f.Slug}
	if p.How < ByTemplate || p.How > TakenOver || f.Slug != "" && !vocab.ValidSlug(f.Slug) || len(f.Parents) > maxParents {
		return unreadable("a publish that cannot be")
	}
	if f.Owner != "" {
		owner, err := vocab.ParsePrincipal(f.Owner)
		if err != nil || owner.String() != f.Owner {
			return unreadable("an owner who cannot be")
		}
		p.Owner = owner
	}
	for _, q := range f.Parents {
		l, err := license(q.Policy, q.Strict == 1)
		if err != nil {
			return err
		}
		revoked, err := readRevocations(q.Revocations, maxParentRevocations)
		if err != nil {
			return err
		}
		if q.Content.IsZero() || q.Strict > 1 || l == nil && (q.Revision != 0 || q.TemplateRevision != 0 || len(revoked) > 0) {
			return unreadable("a parent that cannot be")
		}
		p.Parents = append(p.Parents, Parent{Content: q.Content, License: l, Revocations: revoked, Revision: q.Revision, TemplateRevision: q.TemplateRevision})
	}
	in.Publish = p
	return nil
}
