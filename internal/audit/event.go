package audit

import (
	"math/bits"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/text/unicode/norm"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Event is something that happened. Only ID, Tenant, Time and Kind are
// required; a zero field is not in the leaf.
//
// No field may hold a key, a token, a file name or a document's title: the log
// is for ever and for auditors. Texts that come from outside are cleaned (to
// Unicode NFC, without control characters) and cut to their limit rather than
// refused, so that nobody escapes being recorded by sending odd bytes.
type Event struct {
	ID     vocab.EventID  // UUIDv7
	Tenant vocab.TenantID // whose log it is in
	Time   time.Time      // UTC, milliseconds
	Kind   Kind

	// Method is the method called, as in "ProtectionService/Acquire".
	Method string // ≤ 64 bytes
	// Reason is why it was refused or what is wrong; empty if all went well.
	Reason vocab.Reason
	// Alarm marks what can only come from damage, forgery or a bug.
	Alarm bool
	// Parent is the event this one belongs to, such as the publication of a
	// refused document's parent.
	Parent vocab.EventID
	// Operation is the operation this event belongs to: its own changes, and
	// what was done by it or under it.
	Operation vocab.OperationID
	// BreakGlass marks what somebody did, or tried, with a recovery.
	BreakGlass bool

	Principal Principal // who
	Actor     Principal // the service that called for them, if one did
	Peer      string    // network address of the connection, ≤ 64 bytes
	Client    string    // what the client says of itself, ≤ 256 bytes

	Content          vocab.ContentID
	LicenseRevision  uint32 // that decided, or that was made
	Template         vocab.TemplateUID
	TemplateRevision uint32
	// Target names in words what was changed if it is neither: a setting, a
	// principal, a custodian key. ≤ 320 bytes
	Target string

	Asked    vocab.Rights // the right asked for: one, or none
	Granted  vocab.Rights // the rights given
	NotAfter time.Time    // until when the use license lives; UTC, milliseconds
	Cached   bool         // the use license may be kept by the client

	Generation vocab.GenerationID
	Custodian  vocab.CustodianID
	KeyVersion uint32 // L0 version, from 1
	Custody    vocab.CustodyMode
	// CustodianRequest is the custodian's own ID of the request made for this
	// event, which finds it in the custodian's log. ≤ 128 bytes
	CustodianRequest string
	// RecipientKey is H(KEM ‖ public key) of the key the content key was
	// sealed to.
	RecipientKey [32]byte

	// State is SHA-256 of the record that the event wrote, as it is stored. It
	// binds the record to the log: a record that is not what the last event
	// about it says was changed by somebody else than the service.
	State [32]byte

	// Detail is the caller's stated reason, or more about what happened.
	// ≤ 1,024 bytes
	Detail string
	// Decision is how the policy came to it, in the encoding of whoever
	// decided. ≤ 8,192 bytes
	Decision []byte
}

// Principal is a caller as the log names one.
type Principal struct {
	Issuer   string // ≤ 512 bytes
	Subject  string // ≤ 512 bytes
	Name     string // primary address or service name, for people; ≤ 320 bytes
	Provider string // the operator's name of the issuer, ≤ 64 bytes
}

// IsZero reports whether it is nobody.
func (p Principal) IsZero() bool { return p == Principal{} }

// PrincipalOf returns how the log names an identity; of nil, nobody.
func PrincipalOf(i *vocab.Identity) Principal {
	if i == nil {
		return Principal{}
	}
	return Principal{Issuer: i.Issuer, Subject: i.Subject, Name: i.Name(), Provider: i.Provider}
}

// Limits of an event, in bytes.
const (
	MaxDecision = 8 << 10
	// MaxLeaf is the limit of all of it; the limits of the fields keep every
	// event far below.
	MaxLeaf = 32 << 10

	maxMethod    = 64
	maxReason    = 64
	maxIdentity  = 512
	maxName      = 320
	maxProvider  = 64
	maxPeer      = 64
	maxClient    = 256
	maxTarget    = 320
	maxRequestID = 128
	maxDetail    = 1024
)

// Bits of field 178.
const (
	flagAlarm      = 1 << 0
	flagBreakGlass = 1 << 1

	allFlags = flagAlarm | flagBreakGlass
)

// leaf is the encoding of an event: a deterministic CBOR map. Numbers below
// 160 mean what they mean in every object of the service.
type leaf struct {
	Tenant       []byte `cbor:"2,keyasint"`
	Time         uint64 `cbor:"3,keyasint"` // ms since 1970
	Content      []byte `cbor:"16,keyasint,omitempty"`
	Generation   []byte `cbor:"21,keyasint,omitempty"`
	RecipientKey []byte `cbor:"131,keyasint,omitempty"`
	Granted      uint32 `cbor:"133,keyasint,omitempty"`
	NotAfter     uint64 `cbor:"136,keyasint,omitempty"`
	Cache        uint8  `cbor:"137,keyasint,omitempty"`

	ID               []byte   `cbor:"160,keyasint"`
	Kind             uint16   `cbor:"161,keyasint"`
	Method           string   `cbor:"162,keyasint,omitempty"`
	Reason           string   `cbor:"163,keyasint,omitempty"`
	Principal        *leafWho `cbor:"164,keyasint,omitempty"`
	Actor            *leafWho `cbor:"165,keyasint,omitempty"`
	Peer             string   `cbor:"166,keyasint,omitempty"`
	Client           string   `cbor:"167,keyasint,omitempty"`
	LicenseRevision  uint32   `cbor:"168,keyasint,omitempty"`
	Template         []byte   `cbor:"169,keyasint,omitempty"`
	TemplateRevision uint32   `cbor:"170,keyasint,omitempty"`
	Asked            uint32   `cbor:"171,keyasint,omitempty"`
	Custodian        []byte   `cbor:"172,keyasint,omitempty"`
	KeyVersion       uint32   `cbor:"173,keyasint,omitempty"`
	Custody          uint8    `cbor:"174,keyasint,omitempty"`
	CustodianRequest string   `cbor:"175,keyasint,omitempty"`
	Decision         []byte   `cbor:"176,keyasint,omitempty"`
	Parent           []byte   `cbor:"177,keyasint,omitempty"`
	Flags            uint32   `cbor:"178,keyasint,omitempty"`
	Detail           string   `cbor:"179,keyasint,omitempty"`
	Target           string   `cbor:"180,keyasint,omitempty"`
	State            []byte   `cbor:"181,keyasint,omitempty"`
	Operation        []byte   `cbor:"182,keyasint,omitempty"`
}

type leafWho struct {
	Issuer   string `cbor:"1,keyasint,omitempty"`
	Subject  string `cbor:"2,keyasint,omitempty"`
	Name     string `cbor:"3,keyasint,omitempty"`
	Provider string `cbor:"4,keyasint,omitempty"`
}

// Encode returns the canonical bytes of the event, the leaf. It fails only for
// what is the program's own mistake: a missing required field, an unknown kind
// or right, a decision that is too long.
func (e *Event) Encode() ([]byte, error) {
	bad := func(what string) error {
		return vocab.Errorf(vocab.ReasonInternal, "an event cannot be recorded: %s", what)
	}
	switch {
	case e.ID.Version() != 7:
		return nil, bad("its ID is not a UUIDv7")
	case e.Tenant.IsZero():
		return nil, bad("it has no tenant")
	case e.Time.UnixMilli() <= 0:
		return nil, bad("it has no time")
	case !e.Kind.Known():
		return nil, bad("its kind is unknown")
	case !e.Asked.Valid() || bits.OnesCount32(uint32(e.Asked)) > 1 || !e.Granted.Valid():
		return nil, bad("its rights are unknown")
	case e.Custody != 0 && !e.Custody.Valid():
		return nil, bad("its custody mode is unknown")
	case len(e.Decision) > MaxDecision:
		return nil, bad("its decision is too long")
	}
	l := leaf{
		Tenant: e.Tenant[:], Time: millis(e.Time), ID: e.ID[:], Kind: uint16(e.Kind),
		Content: id(e.Content), Generation: id(e.Generation), Template: id(e.Template),
		Custodian: id(e.Custodian), Parent: id(e.Parent), Operation: id(e.Operation),
		Granted: uint32(e.Granted), Asked: uint32(e.Asked), NotAfter: millis(e.NotAfter),
		Method: clean(e.Method, maxMethod), Reason: clean(string(e.Reason), maxReason),
		Principal: who(e.Principal), Actor: who(e.Actor),
		Peer: clean(e.Peer, maxPeer), Client: clean(e.Client, maxClient),
		LicenseRevision: e.LicenseRevision, TemplateRevision: e.TemplateRevision,
		KeyVersion: e.KeyVersion, Custody: uint8(e.Custody),
		CustodianRequest: clean(e.CustodianRequest, maxRequestID),
		Decision:         e.Decision, Detail: clean(e.Detail, maxDetail), Target: clean(e.Target, maxTarget),
	}
	if e.RecipientKey != [32]byte{} {
		l.RecipientKey = e.RecipientKey[:]
	}
	if e.State != [32]byte{} {
		l.State = e.State[:]
	}
	if e.Cached {
		l.Cache = 1
	}
	if e.Alarm {
		l.Flags |= flagAlarm
	}
	if e.BreakGlass {
		l.Flags |= flagBreakGlass
	}
	b, err := canon.Marshal(&l)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonInternal, "an event cannot be encoded").Because(err)
	}
	return b, nil
}

// LeafHash returns the hash under which the event stands in the tree: SHA-256
// of a zero byte and the leaf (RFC 6962 §2.1). It is known before the event is
// appended.
func (e *Event) LeafHash() ([32]byte, error) {
	b, err := e.Encode()
	if err != nil {
		return [32]byte{}, err
	}
	return HashLeaf(b), nil
}

// HashLeaf returns the hash of a leaf's bytes.
func HashLeaf(leaf []byte) [32]byte { return tlog.RecordHash(leaf) }

// ParseEvent reads a leaf. It accepts exactly what [Event.Encode] makes, and
// kinds of later versions. The error is LOG_DAMAGED.
func ParseEvent(b []byte) (*Event, error) {
	if len(b) > MaxLeaf {
		return nil, damaged("an event is larger than any can be")
	}
	var l leaf
	if err := canon.Unmarshal(b, &l); err != nil {
		return nil, damaged("an event cannot be read").Because(err)
	}
	e := Event{
		Time: fromMillis(l.Time), Kind: Kind(l.Kind),
		Method: l.Method, Reason: vocab.Reason(l.Reason), Alarm: l.Flags&flagAlarm != 0, BreakGlass: l.Flags&flagBreakGlass != 0,
		Principal: l.Principal.principal(), Actor: l.Actor.principal(), Peer: l.Peer, Client: l.Client,
		LicenseRevision: l.LicenseRevision, TemplateRevision: l.TemplateRevision,
		Target: l.Target, Asked: vocab.Rights(l.Asked), Granted: vocab.Rights(l.Granted),
		NotAfter: fromMillis(l.NotAfter), Cached: l.Cache == 1,
		KeyVersion: l.KeyVersion, Custody: vocab.CustodyMode(l.Custody),
		CustodianRequest: l.CustodianRequest, Detail: l.Detail, Decision: l.Decision,
	}
	ok := setID(&e.ID, l.ID) && setID(&e.Tenant, l.Tenant) && setID(&e.Content, l.Content) &&
		setID(&e.Generation, l.Generation) && setID(&e.Template, l.Template) &&
		setID(&e.Custodian, l.Custodian) && setID(&e.Parent, l.Parent) && setID(&e.Operation, l.Operation)
	if l.RecipientKey != nil {
		ok = ok && len(l.RecipientKey) == 32
		copy(e.RecipientKey[:], l.RecipientKey)
	}
	if l.State != nil {
		ok = ok && len(l.State) == 32
		copy(e.State[:], l.State)
	}
	ok = ok && e.ID.Version() == 7 && !e.Tenant.IsZero() && validMillis(l.Time) && l.Time > 0 && validMillis(l.NotAfter) &&
		e.Kind != 0 && e.Asked.Valid() && bits.OnesCount32(l.Asked) <= 1 && e.Granted.Valid() &&
		(l.Custody == 0 || e.Custody.Valid()) && l.Cache <= 1 && l.Flags&^allFlags == 0 && len(l.Decision) <= MaxDecision &&
		fits(l.Method, maxMethod) && fits(l.Reason, maxReason) && fits(l.Peer, maxPeer) && fits(l.Client, maxClient) &&
		fits(l.Target, maxTarget) && fits(l.CustodianRequest, maxRequestID) && fits(l.Detail, maxDetail) &&
		l.Principal.valid() && l.Actor.valid()
	if !ok {
		return nil, damaged("an event has a field that cannot be")
	}
	return &e, nil
}

func who(p Principal) *leafWho {
	w := leafWho{
		Issuer: clean(p.Issuer, maxIdentity), Subject: clean(p.Subject, maxIdentity),
		Name: clean(p.Name, maxName), Provider: clean(p.Provider, maxProvider),
	}
	if w == (leafWho{}) {
		return nil
	}
	return &w
}

func (w *leafWho) principal() Principal {
	if w == nil {
		return Principal{}
	}
	return Principal(*w)
}

func (w *leafWho) valid() bool {
	return w == nil || *w != leafWho{} && fits(w.Issuer, maxIdentity) && fits(w.Subject, maxIdentity) &&
		fits(w.Name, maxName) && fits(w.Provider, maxProvider)
}

// fits asks for what clean returns. That the text is NFC without control
// characters, canon has checked.
func fits(s string, limit int) bool { return len(s) <= limit }

// cut ends a text that was longer than its field.
const cut = "…"

// clean makes any bytes a text the log takes: valid UTF-8 in NFC, control
// characters replaced, at most limit bytes.
func clean(s string, limit int) string {
	// Normalising can lengthen a text, by a factor of three at most; what
	// lies far beyond the limit need not be looked at.
	long := len(s) > 4*limit
	if long {
		s = s[:4*limit]
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '\uFFFD'
		}
		return r
	}, s)
	s = norm.NFC.String(s)
	if len(s) <= limit && !long {
		return s
	}
	end := min(len(s), limit-len(cut))
	for end > 0 && end < len(s) && !utf8.RuneStart(s[end]) {
		end--
	}
	// A cut between a letter and its accent leaves NFC intact: what is left
	// is a prefix of composed text.
	return norm.NFC.String(s[:end]) + cut
}

func id[K any](v vocab.ID[K]) []byte {
	if v.IsZero() {
		return nil
	}
	return v[:]
}

// setID copies a stored identifier: absent, or 16 bytes that are not all zero.
func setID[K any](dst *vocab.ID[K], b []byte) bool {
	if b == nil {
		return true
	}
	copy(dst[:], b)
	return len(b) == 16 && !dst.IsZero()
}

// maxMillis is the end of the year 9999, which every notation of time can
// write.
const maxMillis = 253402300799999

func validMillis(ms uint64) bool { return ms <= maxMillis }

func millis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(min(max(t.UnixMilli(), 0), maxMillis))
}

func fromMillis(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(min(ms, maxMillis))).UTC()
}
