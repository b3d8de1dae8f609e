package license

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"slices"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// MaxBundleLife is how far next_update may lie after issued_at.
const MaxBundleLife = 30 * 24 * time.Hour

// Bounds of the lists in a bundle.
const (
	maxRoots   = 16
	maxRevoked = 1024
)

// RootState says what to believe about a root.
type RootState uint8

// States of roots.
const (
	RootCurrent     RootState = 1 // signs now
	RootPrevious    RootState = 2 // signed once; what it signed stays valid
	RootCompromised RootState = 3 // nothing under it is believed
)

// Root is one of a tenant's root signing keys.
type Root struct {
	Key     ed25519.PublicKey
	Version uint32 // the custodian's version of the key
	State   RootState
}

// ID returns the root's key ID: what clients pin.
func (r Root) ID() KeyID { return KeyIDOf(r.Key) }

// Suites are the least suites a tenant accepts; readers refuse below.
type Suites struct {
	Content uint16 // lowest content suite
	Body    uint16 // lowest body suite of publishing licenses
	KEMs    []KEM  // allowed for use licenses
}

// DefaultSuites is what a new tenant has: everything this version does,
// X25519 left out.
func DefaultSuites() Suites {
	return Suites{Content: canon.ContentSuite1, Body: BodySuite1, KEMs: []KEM{XWing}}
}

// Bundle tells clients which roots and certificates to believe. Seq rises by at
// least one with every change and never goes back.
type Bundle struct {
	Tenant              vocab.TenantID
	IssuedAt            time.Time
	Seq                 uint64
	Roots               []Root // at least the current one
	RevokedCertificates []vocab.CertID
	Suites              Suites
	NextUpdate          time.Time // at most [MaxBundleLife] after IssuedAt

	envelope *Envelope
}

// Raw returns the signed bytes. The caller must not change them.
func (b *Bundle) Raw() []byte { return b.envelope.raw }

// Signers returns the key IDs that signed the bundle: the current root, and
// after a rotation the previous one.
func (b *Bundle) Signers() []KeyID { return slices.Clone(b.envelope.Signers) }

// Root returns the root with a key ID.
func (b *Bundle) Root(id KeyID) (Root, bool) {
	i := slices.IndexFunc(b.Roots, func(r Root) bool { return r.ID() == id })
	if i < 0 {
		return Root{}, false
	}
	return b.Roots[i], true
}

type rootFields struct {
	ID      KeyID     `cbor:"1,keyasint"`
	Key     [32]byte  `cbor:"2,keyasint"`
	Version uint32    `cbor:"3,keyasint"`
	State   RootState `cbor:"4,keyasint"`
}

type suiteFields struct {
	Content uint16 `cbor:"1,keyasint"`
	Body    uint16 `cbor:"2,keyasint"`
	KEMs    []KEM  `cbor:"3,keyasint"`
}

type bundleHeader struct {
	common
	Seq        uint64         `cbor:"80,keyasint"`
	Roots      []rootFields   `cbor:"81,keyasint"`
	Revoked    []vocab.CertID `cbor:"82,keyasint,omitempty"`
	Suites     suiteFields    `cbor:"85,keyasint"`
	NextUpdate uint64         `cbor:"86,keyasint"`
	Signers    []KeyID        `cbor:"87,keyasint"`
}

// SignBundle signs b with the current root, and after a rotation also with
// the previous one, so that clients that pinned that one follow. It checks the
// signatures it got (CUSTODY_INTEGRITY). Lists are sorted.
func SignBundle(ctx context.Context, b Bundle, current Signer, previous ...Signer) (*Bundle, error) {
	head, err := newCommon(KindBundle, b.Tenant, b.IssuedAt)
	if err != nil {
		return nil, err
	}
	h := bundleHeader{
		common: head, Seq: b.Seq,
		Suites: suiteFields{b.Suites.Content, b.Suites.Body, slices.Compact(slices.Sorted(slices.Values(b.Suites.KEMs)))},
	}
	for _, r := range b.Roots {
		if len(r.Key) != ed25519.PublicKeySize {
			return nil, misuse("root key of %d bytes", len(r.Key))
		}
		h.Roots = append(h.Roots, rootFields{r.ID(), [32]byte(r.Key), r.Version, r.State})
	}
	slices.SortFunc(h.Roots, compareRoots)
	h.Revoked = slices.SortedFunc(slices.Values(b.RevokedCertificates), compareIDs)
	h.Revoked = slices.Compact(h.Revoked)
	if h.NextUpdate, err = millis("trust bundle", "next_update", b.NextUpdate); err != nil {
		return nil, err
	}
	signers := append([]Signer{current}, previous...)
	var keys []ed25519.PublicKey
	for _, s := range signers {
		keys = append(keys, s.PublicKey())
		h.Signers = append(h.Signers, KeyIDOf(s.PublicKey()))
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	header, err := encodeHeader(KindBundle, h)
	if err != nil {
		return nil, err
	}
	e, err := seal(ctx, KindBundle, header, nil, signers...)
	if err != nil {
		return nil, err
	}
	if err := e.verify(keys...); err != nil {
		return nil, rootSignature(err)
	}
	return ParseBundle(e.raw)
}

func compareRoots(a, b rootFields) int { return bytes.Compare(a.ID[:], b.ID[:]) }

// ParseBundle reads a bundle and verifies nothing.
func ParseBundle(raw []byte) (*Bundle, error) {
	const what = "trust bundle"
	var h bundleHeader
	e, err := open(raw, KindBundle, &h, &h.common)
	if err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	if !slices.Equal(h.Signers, e.Signers) {
		return nil, malformed(what, "its signatures are not the ones it requires")
	}
	b := &Bundle{
		Tenant: h.Tenant, IssuedAt: h.issued(), Seq: h.Seq, RevokedCertificates: h.Revoked,
		Suites:   Suites{h.Suites.Content, h.Suites.Body, h.Suites.KEMs},
		envelope: e,
	}
	b.NextUpdate, _ = instant(what, "next_update", h.NextUpdate)
	for _, r := range h.Roots {
		b.Roots = append(b.Roots, Root{bytes.Clone(r.Key[:]), r.Version, r.State})
	}
	return b, nil
}

func (h *bundleHeader) check() error {
	const what = "trust bundle"
	switch {
	case h.Seq == 0:
		return malformed(what, "no sequence number")
	case len(h.Roots) == 0 || len(h.Roots) > maxRoots:
		return malformed(what, "%d roots", len(h.Roots))
	case !sortedUnique(h.Roots, compareRoots):
		return malformed(what, "roots out of order")
	case len(h.Revoked) > maxRevoked:
		return malformed(what, "%d revoked certificates", len(h.Revoked))
	case !sortedUnique(h.Revoked, compareIDs):
		return malformed(what, "revoked certificates out of order")
	case h.Suites.Content == 0 || h.Suites.Body == 0 || len(h.Suites.KEMs) == 0:
		return malformed(what, "no suites")
	case !sortedUnique(h.Suites.KEMs, cmp.Compare[KEM]):
		return malformed(what, "KEMs out of order")
	case h.NextUpdate <= h.IssuedAt || h.NextUpdate-h.IssuedAt > uint64(MaxBundleLife/time.Millisecond):
		return malformed(what, "next_update is not within %s of issued_at", MaxBundleLife)
	case len(h.Signers) == 0 || len(h.Signers) > 2:
		return malformed(what, "%d signers", len(h.Signers))
	case len(h.Signers) == 2 && h.Signers[0] == h.Signers[1]:
		return malformed(what, "the same signer twice")
	}
	current := 0
	for _, r := range h.Roots {
		switch {
		case KeyIDOf(r.Key[:]) != r.ID:
			return malformed(what, "a root's ID is not its key's")
		case r.State < RootCurrent || r.State > RootCompromised:
			return malformed(what, "root in unknown state %d", r.State)
		case r.State == RootCurrent:
			current++
			if r.ID != h.Signers[0] {
				return malformed(what, "not signed by its current root")
			}
		}
	}
	if current != 1 {
		return malformed(what, "%d current roots", current)
	}
	for _, id := range h.Signers[1:] {
		if !slices.ContainsFunc(h.Roots, func(r rootFields) bool { return r.ID == id && r.State == RootPrevious }) {
			return malformed(what, "signed by a root that is not the previous one")
		}
	}
	return nil
}

// VerifyBundle reads a bundle of tenant t and believes it if one of its signers
// is in trusted: the pins a person accepted, or the roots of a bundle that was
// verified before. All its signatures must verify, and its seq must not be
// below minSeq, the newest that was ever seen. It does not look at the clock:
// see [Bundle.NextUpdate].
func VerifyBundle(raw []byte, t vocab.TenantID, trusted []KeyID, minSeq uint64) (*Bundle, error) {
	b, err := ParseBundle(raw)
	if err != nil {
		return nil, err
	}
	if b.Tenant != t {
		return nil, untrusted("this trust bundle is another tenant's")
	}
	if !slices.ContainsFunc(b.envelope.Signers, func(id KeyID) bool { return slices.Contains(trusted, id) }) {
		return nil, untrusted("no root that this program trusts has signed the server's trust bundle").
			WithNext("Ask the tenant's administrator for the root's fingerprint and pin it anew")
	}
	var keys []ed25519.PublicKey
	for _, id := range b.envelope.Signers {
		r, _ := b.Root(id)
		keys = append(keys, r.Key)
	}
	if err := b.envelope.verify(keys...); err != nil {
		return nil, err
	}
	if b.Seq < minSeq {
		return nil, untrusted("this trust bundle is older than one seen before (%d after %d)", b.Seq, minSeq)
	}
	return b, nil
}
