package license

import (
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"slices"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Scope is what a generation's secret is for.
type Scope uint8

// Scopes of generations.
const (
	ScopeTenant    Scope = 1 // many documents of the tenant
	ScopeDocument  Scope = 2 // one document: has no record, its wrap is in the publishing license
	ScopeLicensing Scope = 3 // reserved: the licensing key of offline publishing
)

// Generation is the immutable record of a generation: that the tenant's root
// vouches for the commitment to its secret. The wrapped secret is kept beside
// it and may change.
type Generation struct {
	Tenant      vocab.TenantID
	IssuedAt    time.Time
	ID          vocab.GenerationID
	Scope       Scope
	Commitment  [32]byte // [GenerationCommitment] of the secret
	UsableFrom  time.Time
	UsableUntil time.Time // zero: no end was set

	envelope *Envelope
}

// Raw returns the signed bytes. The caller must not change them.
func (g *Generation) Raw() []byte { return g.envelope.raw }

type generationHeader struct {
	common
	ID         vocab.GenerationID `cbor:"48,keyasint"`
	Scope      Scope              `cbor:"49,keyasint"`
	ScopeID    [16]byte           `cbor:"50,keyasint"`
	Commitment [32]byte           `cbor:"51,keyasint"`
	PublicKey  []byte             `cbor:"52,keyasint,omitempty"` // scope licensing only
	Usable     []uint64           `cbor:"53,keyasint"`
}

func generationFields(t vocab.TenantID, g vocab.GenerationID, s Scope, scopeID [16]byte) canon.Fields {
	return canon.Fields{fieldTenant: t, 48: g, 49: uint64(s), 50: scopeID}
}

// GenerationCommitment is the commitment to a generation's secret. scopeID is
// the content ID for [ScopeDocument] and zero otherwise.
func GenerationCommitment(secret *vocab.Secret, t vocab.TenantID, g vocab.GenerationID, s Scope, scopeID [16]byte) [32]byte {
	c := canon.KDF(secret, nil, canon.D("rms/v1/gen-commit", generationFields(t, g, s, scopeID)))
	defer c.Zero()
	return [32]byte(c.Reveal())
}

// GenerationBinding is B of the formats: what a custodian gets as context and
// seals beside the secret. It names no tenant key and no version, so rotation
// and a change of custodian keep it.
func GenerationBinding(t vocab.TenantID, g vocab.GenerationID, s Scope, scopeID [16]byte) [32]byte {
	return canon.Hash(canon.D("rms/v1/l0", generationFields(t, g, s, scopeID)))
}

// Matches reports, in constant time, whether secret is the generation's.
func (g *Generation) Matches(secret *vocab.Secret) bool {
	got := GenerationCommitment(secret, g.Tenant, g.ID, g.Scope, [16]byte{})
	return subtle.ConstantTimeCompare(got[:], g.Commitment[:]) == 1
}

// SignGeneration signs g with the tenant's root and checks the signature it
// got (CUSTODY_INTEGRITY).
func SignGeneration(ctx context.Context, root Signer, g Generation) (*Generation, error) {
	head, err := newCommon(KindGeneration, g.Tenant, g.IssuedAt)
	if err != nil {
		return nil, err
	}
	h := generationHeader{common: head, ID: g.ID, Scope: g.Scope, Commitment: g.Commitment}
	from, err := millis("generation record", "usable_from", g.UsableFrom)
	if err != nil {
		return nil, err
	}
	until, err := millis("generation record", "usable_until", g.UsableUntil)
	if err != nil {
		return nil, err
	}
	h.Usable = []uint64{from, until}
	if err := h.check(); err != nil {
		return nil, err
	}
	b, err := encodeHeader(KindGeneration, h)
	if err != nil {
		return nil, err
	}
	e, err := seal(ctx, KindGeneration, b, nil, root)
	if err != nil {
		return nil, err
	}
	if err := e.verify(root.PublicKey()); err != nil {
		return nil, rootSignature(err)
	}
	return ParseGeneration(e.raw)
}

// ParseGeneration reads a generation record and verifies nothing.
func ParseGeneration(b []byte) (*Generation, error) {
	const what = "generation record"
	var h generationHeader
	e, err := open(b, KindGeneration, &h, &h.common)
	if err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	from, _ := instant(what, "usable_from", h.Usable[0])
	until, _ := instant(what, "usable_until", h.Usable[1])
	return &Generation{
		Tenant: h.Tenant, IssuedAt: h.issued(), ID: h.ID, Scope: h.Scope, Commitment: h.Commitment,
		UsableFrom: from, UsableUntil: until, envelope: e,
	}, nil
}

func (h *generationHeader) check() error {
	const what = "generation record"
	switch {
	case h.Scope == ScopeLicensing:
		return unsupported("licensing keys (generation scope 3) are not supported")
	case h.Scope != ScopeTenant:
		return malformed(what, "scope %d has no record", h.Scope)
	case h.ID.IsZero():
		return malformed(what, "no ID")
	case h.ScopeID != [16]byte{} || len(h.PublicKey) != 0:
		return malformed(what, "fields of another scope")
	case len(h.Usable) != 2 || h.Usable[0] == 0 || h.Usable[0] > maxMillis || h.Usable[1] > maxMillis:
		return malformed(what, "bad period")
	case h.Usable[1] != 0 && h.Usable[1] <= h.Usable[0]:
		return malformed(what, "its period is empty")
	}
	return nil
}

// VerifyGeneration reads a record of tenant t signed by one of its roots. What
// does not verify is STORE_DAMAGED, an integrity alarm: records come from the
// store, which is not trusted.
func VerifyGeneration(b []byte, t vocab.TenantID, roots ...ed25519.PublicKey) (*Generation, error) {
	g, err := ParseGeneration(b)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "a stored generation record cannot be read").Because(err)
	}
	if g.Tenant != t {
		return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "a stored generation record is another tenant's")
	}
	i := slices.IndexFunc(roots, func(k ed25519.PublicKey) bool { return KeyIDOf(k) == g.envelope.Signers[0] })
	if i < 0 {
		return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "a stored generation record is not signed by a root of this tenant")
	}
	if err := g.envelope.verify(roots[i]); err != nil {
		return nil, vocab.Errorf(vocab.ReasonStoreDamaged, "a stored generation record was changed").Because(err)
	}
	return g, nil
}
