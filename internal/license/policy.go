package license

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// Bounds of a policy and a template. Together with the size of an envelope
// they keep every reader's work small.
const (
	MaxPolicySize = 48 << 10 // bytes of an encoded policy
	MaxGrants     = 1000     // of an ad hoc policy; templates take policy.MaxTemplateGrants
	MaxNetworks   = 64       // of one grant
	MaxParents    = 64
	MaxAppData    = 4 << 10 // bytes
	maxText       = 4 << 10 // bytes of any one text
	maxMap        = 64      // languages of a template
	maxOffline    = policy.MaxPeriod
)

// policyFields are fields 33 to 38 of a publishing license's body, in a
// record the policy itself.
type policyFields struct {
	Owner    string            `cbor:"33,keyasint"`
	Issuer   issuerFields      `cbor:"34,keyasint"`
	Body     policyBody        `cbor:"35,keyasint"`
	NotAfter uint64            `cbor:"36,keyasint,omitempty"`
	Parents  []vocab.ContentID `cbor:"37,keyasint,omitempty"`
	AppData  []byte            `cbor:"38,keyasint,omitempty"`
}

type issuerFields struct {
	Issuer  string `cbor:"1,keyasint,omitempty"`
	Subject string `cbor:"2,keyasint,omitempty"`
	Address string `cbor:"3,keyasint,omitempty"`
}

// policyBody names a template or is an ad hoc policy.
type policyBody struct {
	Template []byte           `cbor:"1,keyasint,omitempty"`
	Kind     policy.AdHocKind `cbor:"2,keyasint,omitempty"`
	Grants   []grantFields    `cbor:"3,keyasint,omitempty"`
	Offline  uint64           `cbor:"4,keyasint,omitempty"` // milliseconds
	Longest  uint64           `cbor:"5,keyasint,omitempty"` // 1: as long as the tenant allows
}

type grantFields struct {
	To       string       `cbor:"1,keyasint"`
	Rights   vocab.Rights `cbor:"2,keyasint"`
	Until    uint64       `cbor:"3,keyasint,omitempty"`
	Login    policy.Login `cbor:"4,keyasint,omitempty"`
	Networks string       `cbor:"5,keyasint,omitempty"` // CIDR, sorted, one space between
}

const whatPolicy = "policy"

// EncodePolicy returns the canonical bytes of p (fields 33 to 38), which a
// record keeps and [PolicyHash] binds to the key box. It refuses a policy that
// [DecodePolicy] would not read back; the error is REQUEST_INVALID or
// LICENSE_MALFORMED.
func EncodePolicy(p *policy.Policy) ([]byte, error) {
	f, err := toPolicyFields(p)
	if err != nil {
		return nil, err
	}
	return encodePolicyFields(f)
}

func encodePolicyFields(f *policyFields) ([]byte, error) {
	b, err := canon.Marshal(f)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "a text in this policy has control characters or is not in Unicode normal form C").Because(err)
	}
	if len(b) > MaxPolicySize {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "this policy is %d bytes, more than %d", len(b), MaxPolicySize).
			WithNext("Use fewer grants, or a group or template instead")
	}
	return b, nil
}

// DecodePolicy reads what [EncodePolicy] wrote, and nothing else.
func DecodePolicy(b []byte) (*policy.Policy, error) {
	if len(b) > MaxPolicySize {
		return nil, malformed(whatPolicy, "%d bytes, more than %d", len(b), MaxPolicySize)
	}
	var f policyFields
	if err := canon.Unmarshal(b, &f); err != nil {
		return nil, decoding(whatPolicy, err)
	}
	return f.policy()
}

// PolicyHash is what binds an encoded policy to the key box of its record.
func PolicyHash(encoded []byte) [32]byte { return canon.Hash(encoded) }

func toPolicyFields(p *policy.Policy) (*policyFields, error) {
	f := &policyFields{
		Owner:   p.Owner.String(),
		Issuer:  issuerFields(p.Issuer),
		Parents: slices.Compact(slices.SortedFunc(slices.Values(p.Parents), compareIDs)),
		AppData: p.AppData,
	}
	var err error
	if f.NotAfter, err = millis(whatPolicy, "content expiry", p.NotAfter); err != nil {
		return nil, err
	}
	if !p.Template.IsZero() {
		f.Body.Template = p.Template[:]
	}
	if a := p.AdHoc; a != nil {
		f.Body.Kind = a.Kind
		if f.Body.Offline, f.Body.Longest, err = toOffline(whatPolicy, a.Offline); err != nil {
			return nil, err
		}
		if f.Body.Grants, err = toGrants(whatPolicy, a.Grants); err != nil {
			return nil, err
		}
	}
	_, err = f.policy() // one place for the rules
	return f, err
}

// policy checks the fields and returns their meaning.
func (f *policyFields) policy() (*policy.Policy, error) {
	p := &policy.Policy{Issuer: policy.Issuer(f.Issuer), Parents: f.Parents, AppData: f.AppData}
	var err error
	if p.Owner, err = principal(whatPolicy, f.Owner); err != nil {
		return nil, err
	}
	if p.NotAfter, err = instant(whatPolicy, "content expiry", f.NotAfter); err != nil {
		return nil, err
	}
	switch {
	case p.Owner.Kind != vocab.KindUser && p.Owner.Kind != vocab.KindService:
		return nil, malformed(whatPolicy, "its owner is neither a user nor a service")
	case p.Issuer.Issuer == "" || p.Issuer.Subject == "":
		return nil, malformed(whatPolicy, "no issuer")
	case max(len(f.Issuer.Issuer), len(f.Issuer.Subject), len(f.Issuer.Address)) > maxText:
		return nil, malformed(whatPolicy, "its issuer is too long")
	case len(f.Parents) > MaxParents || !sortedUnique(f.Parents, compareIDs) || len(f.Parents) > 0 && f.Parents[0].IsZero():
		return nil, malformed(whatPolicy, "bad list of parents")
	case len(f.AppData) > MaxAppData:
		return nil, malformed(whatPolicy, "application data of %d bytes, more than %d", len(f.AppData), MaxAppData)
	}
	body := &f.Body
	if body.Kind == 0 {
		if len(body.Template) != 16 || len(body.Grants) != 0 || body.Offline != 0 || body.Longest != 0 {
			return nil, malformed(whatPolicy, "neither a template nor an ad hoc policy")
		}
		p.Template = vocab.TemplateUID(body.Template)
		if p.Template.IsZero() {
			return nil, malformed(whatPolicy, "no template")
		}
		return p, nil
	}
	if len(body.Template) != 0 || body.Kind > policy.AdHocEncryptOnly {
		return nil, malformed(whatPolicy, "unknown kind of policy")
	}
	p.AdHoc = &policy.AdHoc{Kind: body.Kind}
	if p.AdHoc.Grants, err = fromGrants(whatPolicy, body.Grants, MaxGrants); err != nil {
		return nil, err
	}
	p.AdHoc.Offline, err = fromOffline(whatPolicy, body.Offline, body.Longest)
	return p, err
}

func principal(what, s string) (vocab.Principal, error) {
	p, err := vocab.ParsePrincipal(s)
	if err != nil || p.String() != s {
		return vocab.Principal{}, malformed(what, "a principal is not canonical")
	}
	return p, nil
}

func toOffline(what string, d time.Duration) (ms, longest uint64, err error) {
	switch {
	case d < 0:
		return 0, 1, nil
	case d%time.Millisecond != 0 || d > maxOffline:
		return 0, 0, malformed(what, "its offline period is not in whole milliseconds up to %d days", maxOffline/policy.Day)
	}
	return uint64(d / time.Millisecond), 0, nil
}

func fromOffline(what string, ms, longest uint64) (time.Duration, error) {
	switch {
	case longest == 1 && ms == 0:
		return policy.OfflineMax, nil
	case longest != 0 || ms > uint64(maxOffline/time.Millisecond):
		return 0, malformed(what, "bad offline period")
	}
	return time.Duration(ms) * time.Millisecond, nil
}

func toGrants(what string, grants []policy.Grant) ([]grantFields, error) {
	var out []grantFields
	for _, g := range grants {
		f := grantFields{To: g.To.String(), Rights: g.Rights, Login: g.Login}
		var err error
		if f.Until, err = millis(what, "the end of a grant", g.Until); err != nil {
			return nil, err
		}
		var networks []string
		for _, n := range g.Networks {
			networks = append(networks, n.String())
		}
		slices.Sort(networks)
		f.Networks = strings.Join(slices.Compact(networks), " ")
		out = append(out, f)
	}
	return out, nil
}

// fromGrants reads at most limit grants.
func fromGrants(what string, fields []grantFields, limit int) ([]policy.Grant, error) {
	if len(fields) > limit {
		return nil, malformed(what, "%d grants, more than %d", len(fields), limit)
	}
	var out []policy.Grant
	for _, f := range fields {
		g := policy.Grant{Rights: f.Rights, Login: f.Login}
		var err error
		if g.To, err = principal(what, f.To); err != nil {
			return nil, err
		}
		if g.Until, err = instant(what, "the end of a grant", f.Until); err != nil {
			return nil, err
		}
		if f.Rights == 0 || !f.Rights.Valid() {
			return nil, malformed(what, "a grant of no or unknown rights")
		}
		if f.Login > policy.LoginMFA {
			return nil, malformed(what, "a grant with an unknown condition")
		}
		if g.Networks, err = networks(what, f.Networks); err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

func networks(what, s string) ([]netip.Prefix, error) {
	if s == "" {
		return nil, nil
	}
	list := strings.SplitN(s, " ", MaxNetworks+1)
	if len(list) > MaxNetworks || !sortedUnique(list, strings.Compare) {
		return nil, malformed(what, "bad list of networks")
	}
	var out []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Masked().String() != text || p.Addr().Is4In6() {
			return nil, malformed(what, "a network is not canonical")
		}
		out = append(out, p)
	}
	return out, nil
}
