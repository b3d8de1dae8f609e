package record

import (
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// PrefixRevocations begins the names of revocations of more than one license,
// which go on with the ID of the event that made them: [RevocationRule]. A
// tombstone is one that was taken back.
const PrefixRevocations = "revocations/"

// RevocationRule is the body of a revocation of more than one license.
type RevocationRule struct {
	Rule policy.RevocationRule
	// By is who made it, as a person names them, and Reason why.
	By, Reason string
	// ByOwner says that it was made by the owner of what it revokes, who may
	// take it back, and not by an administrator.
	ByOwner bool
}

type revocationForm struct {
	Principal string `cbor:"1,keyasint,omitempty"`
	Owner     string `cbor:"2,keyasint,omitempty"`
	Template  []byte `cbor:"3,keyasint,omitempty"`
	From      Millis `cbor:"4,keyasint,omitempty"`
	Until     Millis `cbor:"5,keyasint,omitempty"`
	Lineage   []byte `cbor:"6,keyasint,omitempty"`
	By        string `cbor:"7,keyasint,omitempty"`
	Reason    string `cbor:"8,keyasint"`
	ByOwner   uint8  `cbor:"9,keyasint,omitempty"`
}

// Encode returns the stored form.
func (r *RevocationRule) Encode() ([]byte, error) {
	f := revocationForm{From: ToMillis(r.Rule.From), Until: ToMillis(r.Rule.Until), By: r.By, Reason: r.Reason}
	if !r.Rule.Principal.IsZero() {
		f.Principal = r.Rule.Principal.String()
	}
	if !r.Rule.Owner.IsZero() {
		f.Owner = r.Rule.Owner.String()
	}
	if !r.Rule.Template.IsZero() {
		f.Template = r.Rule.Template[:]
	}
	if !r.Rule.Lineage.IsZero() {
		f.Lineage = r.Rule.Lineage[:]
	}
	if r.ByOwner {
		f.ByOwner = 1
	}
	return encodeBody(&f)
}

// DecodeRevocationRule reads the stored form; the error is STORE_DAMAGED. A
// condition that cannot be understood makes all of it unreadable: without it
// the rule would be another one.
func DecodeRevocationRule(b []byte) (*RevocationRule, error) {
	var f revocationForm
	if err := canon.Unmarshal(b, &f); err != nil {
		return nil, damaged(tableResources, err)
	}
	r := &RevocationRule{By: f.By, Reason: f.Reason, ByOwner: f.ByOwner == 1}
	r.Rule.From, r.Rule.Until = f.From.Time(), f.Until.Time()
	for _, p := range []struct {
		text string
		into *vocab.Principal
	}{{f.Principal, &r.Rule.Principal}, {f.Owner, &r.Rule.Owner}} {
		if p.text == "" {
			continue
		}
		var err error
		if *p.into, err = vocab.ParsePrincipal(p.text); err != nil {
			return nil, damaged(tableResources, err)
		}
	}
	copy(r.Rule.Template[:], f.Template)
	copy(r.Rule.Lineage[:], f.Lineage)
	ok := f.ByOwner <= 1 && (f.Template == nil || len(f.Template) == 16 && !r.Rule.Template.IsZero()) &&
		(f.Lineage == nil || len(f.Lineage) == 16 && !r.Rule.Lineage.IsZero())
	if err := r.Rule.Validate(); err != nil || !ok {
		return nil, damaged(tableResources, err)
	}
	return r, nil
}
