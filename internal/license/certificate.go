package license

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// MaxCertificateLife is the longest life of a signing certificate that a
// verifier accepts. Daemons use 24 hours.
const MaxCertificateLife = 7 * 24 * time.Hour

// Usage is what a certified key may sign, one bit each.
type Usage uint32

// Usage bits.
const (
	UsagePL         Usage = 1 << 0
	UsageUL         Usage = 1 << 1
	UsageCLC        Usage = 1 << 2
	UsageTemplate   Usage = 1 << 3
	UsageCheckpoint Usage = 1 << 4
	UsageEvidence   Usage = 1 << 5

	allUsages = UsagePL | UsageUL | UsageCLC | UsageTemplate | UsageCheckpoint | UsageEvidence
)

// Certificate says that a tenant root vouches for a daemon's key for a short
// time.
type Certificate struct {
	Tenant    vocab.TenantID
	IssuedAt  time.Time
	ID        vocab.CertID
	Subject   ed25519.PublicKey
	Usage     Usage
	NotBefore time.Time
	NotAfter  time.Time
	Instance  string // of the daemon, for people
	Root      KeyID

	envelope *Envelope
}

// Raw returns the signed bytes. The caller must not change them.
func (c *Certificate) Raw() []byte { return c.envelope.raw }

type certificateHeader struct {
	common
	ID        vocab.CertID `cbor:"96,keyasint"`
	Subject   [32]byte     `cbor:"97,keyasint"`
	Usage     Usage        `cbor:"98,keyasint"`
	NotBefore uint64       `cbor:"99,keyasint"`
	NotAfter  uint64       `cbor:"100,keyasint"`
	Instance  string       `cbor:"101,keyasint,omitempty"`
	Root      KeyID        `cbor:"102,keyasint"`
}

const maxInstance = 200

// IssueCertificate signs c with the tenant's root: one call of the custodian.
// ID and Root are filled in. It checks the signature it got, so that a
// custodian that signs with another key is noticed here: CUSTODY_INTEGRITY.
func IssueCertificate(ctx context.Context, root Signer, c Certificate) (*Certificate, error) {
	if c.ID.IsZero() {
		newID(&c.ID)
	}
	c.Root = KeyIDOf(root.PublicKey())
	head, err := newCommon(KindCertificate, c.Tenant, c.IssuedAt)
	if err != nil {
		return nil, err
	}
	if len(c.Subject) != ed25519.PublicKeySize {
		return nil, misuse("certificate for a key of %d bytes", len(c.Subject))
	}
	h := certificateHeader{common: head, ID: c.ID, Subject: [32]byte(c.Subject), Usage: c.Usage, Instance: c.Instance, Root: c.Root}
	if h.NotBefore, err = millis("signing certificate", "not_before", c.NotBefore); err != nil {
		return nil, err
	}
	if h.NotAfter, err = millis("signing certificate", "not_after", c.NotAfter); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	b, err := encodeHeader(KindCertificate, h)
	if err != nil {
		return nil, err
	}
	e, err := seal(ctx, KindCertificate, b, nil, root)
	if err != nil {
		return nil, err
	}
	if err := e.verify(root.PublicKey()); err != nil {
		return nil, rootSignature(err)
	}
	return ParseCertificate(e.raw)
}

func rootSignature(err error) error {
	return vocab.Errorf(vocab.ReasonCustodyIntegrity, "the custodian returned a signature that is not the tenant root's").Because(err)
}

// ParseCertificate reads a certificate and verifies nothing.
func ParseCertificate(b []byte) (*Certificate, error) {
	var h certificateHeader
	e, err := open(b, KindCertificate, &h, &h.common)
	if err != nil {
		return nil, err
	}
	if e.Signers[0] != h.Root {
		return nil, malformed("signing certificate", "its root is not its signer")
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	return &Certificate{
		Tenant: h.Tenant, IssuedAt: h.issued(), ID: h.ID, Subject: bytes.Clone(h.Subject[:]), Usage: h.Usage,
		NotBefore: time.UnixMilli(int64(h.NotBefore)).UTC(), NotAfter: time.UnixMilli(int64(h.NotAfter)).UTC(),
		Instance: h.Instance, Root: h.Root, envelope: e,
	}, nil
}

func (h *certificateHeader) check() error {
	const what = "signing certificate"
	switch {
	case h.ID.IsZero():
		return malformed(what, "no ID")
	case h.Usage == 0 || h.Usage&^allUsages != 0:
		return malformed(what, "unknown usage")
	case h.NotBefore == 0 || h.NotAfter > maxMillis || h.NotAfter <= h.NotBefore:
		return malformed(what, "its period is empty")
	case h.NotAfter-h.NotBefore > uint64(MaxCertificateLife/time.Millisecond):
		return malformed(what, "it lives longer than %s", MaxCertificateLife)
	case len(h.Instance) > maxInstance:
		return malformed(what, "instance name of %d bytes", len(h.Instance))
	}
	return nil
}

// Covers reports whether t is inside the certificate's period: from NotBefore
// up to, not including, NotAfter.
func (c *Certificate) Covers(t time.Time) bool {
	return !t.Before(c.NotBefore) && t.Before(c.NotAfter)
}

func newID[K any](id *vocab.ID[K]) { *id = vocab.NewRandom[K]() }
