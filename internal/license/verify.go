package license

import (
	"crypto/subtle"
	"slices"
	"sync"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// MaxClockSkew is how far a recipient's clock may be behind the server's. Only
// the beginning of a use license is lenient, never its end.
const MaxClockSkew = 5 * time.Minute

// mayIssue checks that a certificate is for this use by this key now.
func (c *Certificate) mayIssue(u Usage, s Signer, t vocab.TenantID, at time.Time) error {
	switch {
	case c.Tenant != t:
		return misuse("signing for a tenant with another tenant's certificate")
	case c.Usage&u == 0:
		return misuse("the signing certificate does not allow this use")
	case !slices.Equal(c.Subject, s.PublicKey()):
		return misuse("the signing certificate is another key's")
	case !c.Covers(at):
		return misuse("the signing certificate does not cover this time")
	}
	return nil
}

// Verifier vouches for signed objects of one tenant with one verified trust
// bundle. It needs no network, and no clock except for use licenses. What it
// says does not change, and it is safe for concurrent use.
type Verifier struct {
	bundle *Bundle
	// signed remembers certificates whose signature was good, by the hash of
	// all their bytes: a daemon certifies one key a day and signs thousands of
	// licenses with it. Everything else about them is checked each time.
	signed remembered
}

// remembered is a bounded set of hashes.
type remembered struct {
	mu  sync.Mutex
	set map[[32]byte]struct{}
}

// maxRemembered is more certificates than a tenant's daemons get in months.
const maxRemembered = 512

func (m *remembered) has(h [32]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.set[h]
	return ok
}

func (m *remembered) add(h [32]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.set == nil || len(m.set) >= maxRemembered {
		m.set = make(map[[32]byte]struct{})
	}
	m.set[h] = struct{}{}
}

// NewVerifier verifies a bundle with [VerifyBundle] and returns the verifier it
// makes. Keep the bundle's Seq as the next minSeq, and its roots that are not
// compromised beside the pins.
func NewVerifier(bundle []byte, t vocab.TenantID, trusted []KeyID, minSeq uint64) (*Verifier, error) {
	b, err := VerifyBundle(bundle, t, trusted, minSeq)
	if err != nil {
		return nil, err
	}
	return &Verifier{bundle: b}, nil
}

// Follow returns the roots that may be trusted after a tenant went from root to
// root: transitions are the bundles with which it did, oldest first. Each counts
// if a root that is trusted by then has signed it; what does not is passed over.
// That a transition has ended means nothing: it leads to the newest bundle, whose
// time counts.
func Follow(transitions [][]byte, t vocab.TenantID, trusted []KeyID) []KeyID {
	trusted = slices.Clone(trusted)
	for _, raw := range transitions {
		b, err := VerifyBundle(raw, t, trusted, 0)
		if err != nil {
			continue
		}
		for _, r := range b.Roots {
			switch known := slices.Contains(trusted, r.ID()); {
			case r.State == RootCompromised:
				trusted = slices.DeleteFunc(trusted, func(id KeyID) bool { return id == r.ID() })
			case !known:
				trusted = append(trusted, r.ID())
			}
		}
	}
	return trusted
}

// Bundle returns the verified bundle. The caller must not change it.
func (v *Verifier) Bundle() *Bundle { return v.bundle }

// VerifyCertificate checks that cert may be used for u at the given time: its
// root and the root's state, its life, revocation, usage, period, signature.
func (v *Verifier) VerifyCertificate(cert *Certificate, u Usage, at time.Time) error {
	if cert.Tenant != v.bundle.Tenant {
		return untrusted("the signing certificate is another tenant's")
	}
	root, ok := v.bundle.Root(cert.Root)
	if !ok {
		return untrusted("the signing certificate's root is not in the tenant's trust bundle")
	}
	if root.State == RootCompromised {
		return untrusted("the root that issued the signing certificate is compromised").
			WithNext("Open the document online; ask the tenant's administrator")
	}
	// The hash is of the signature too, and the root's key does not change
	// within a bundle: equal bytes verify alike.
	if h := canon.Hash(cert.envelope.raw); !v.signed.has(h) {
		if err := cert.envelope.verify(root.Key); err != nil {
			return err
		}
		v.signed.add(h)
	}
	switch {
	case slices.Contains(v.bundle.RevokedCertificates, cert.ID):
		return untrusted("the signing certificate was revoked")
	case cert.NotAfter.Sub(cert.NotBefore) > MaxCertificateLife:
		return untrusted("the signing certificate lives too long")
	case cert.Usage&u == 0:
		return untrusted("the signing certificate does not allow this use")
	case !cert.Covers(at):
		return untrusted("the signing certificate did not cover the time of issue")
	}
	return nil
}

// VerifyPL reads a publishing license and checks its chain, its signature and
// that its suites are not below the tenant's least.
func (v *Verifier) VerifyPL(b []byte) (*PublishingLicense, error) {
	p, err := ParsePL(b)
	if err != nil {
		return nil, err
	}
	if p.Tenant != v.bundle.Tenant {
		return nil, vocab.Errorf(vocab.ReasonLicenseMismatch, "this publishing license is another tenant's")
	}
	if err := v.VerifyCertificate(p.Certificate, UsagePL, p.IssuedAt); err != nil {
		return nil, err
	}
	if err := p.envelope.verify(p.Certificate.Subject); err != nil {
		return nil, err
	}
	if p.ContentSuite < v.bundle.Suites.Content || p.BodySuite < v.bundle.Suites.Body {
		return nil, vocab.Errorf(vocab.ReasonSuiteUnsupported, "this tenant no longer accepts the suite of this document")
	}
	p.verified = true
	return p, nil
}

// VerifyTemplate reads a template revision and checks its chain and signature.
func (v *Verifier) VerifyTemplate(b []byte) (*TemplateRevision, error) {
	r, err := ParseTemplate(b)
	if err != nil {
		return nil, err
	}
	if r.Tenant != v.bundle.Tenant {
		return nil, vocab.Errorf(vocab.ReasonLicenseMismatch, "this template revision is another tenant's")
	}
	if err := v.VerifyCertificate(r.Certificate, UsageTemplate, r.Template.Time); err != nil {
		return nil, err
	}
	if err := r.envelope.verify(r.Certificate.Subject); err != nil {
		return nil, err
	}
	r.verified = true
	return r, nil
}

// Expect is what a recipient knows by itself about the use license it asked
// for. Every field is compared; none has a default.
type Expect struct {
	Principal    [32]byte // [canon.PrincipalID] of the caller
	Recipient    [32]byte // [RecipientKey.Hash]
	Content      vocab.ContentID
	Commitment   [32]byte // from the container
	ContentSuite uint16
	// Now is the highest time ever seen: a clock set back does not
	// revive a license.
	Now time.Time
}

// VerifyUL reads a use license and checks, in this order: the certificate that
// came with it and its chain, the signature, principal, recipient key,
// document, suites, the age of the trust bundle, the validity and the content's
// expiry.
func (v *Verifier) VerifyUL(b, certificate []byte, want Expect) (*UseLicense, error) {
	u, err := ParseUL(b)
	if err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	if u.Tenant != v.bundle.Tenant {
		return nil, rejected("this use license is another tenant's")
	}
	if u.Certificate != cert.ID {
		return nil, rejected("this use license names another signing certificate")
	}
	if err := v.VerifyCertificate(cert, UsageUL, u.IssuedAt); err != nil {
		return nil, err
	}
	if err := u.envelope.verify(cert.Subject); err != nil {
		return nil, err
	}
	switch {
	case !same(u.Principal, want.Principal):
		return nil, rejected("this use license is for another principal")
	case !same(u.Recipient, want.Recipient):
		return nil, rejected("this use license is for another key")
	case u.Content != want.Content || !same(u.Commitment, want.Commitment) || u.ContentSuite != want.ContentSuite:
		return nil, rejected("this use license is for another document")
	case u.ContentSuite < v.bundle.Suites.Content || !slices.Contains(v.bundle.Suites.KEMs, u.KEM):
		return nil, vocab.Errorf(vocab.ReasonSuiteUnsupported, "this tenant does not accept the suite of this use license")
	case !want.Now.Before(v.bundle.NextUpdate):
		return nil, untrusted("the tenant's trust bundle is out of date").WithNext("Connect to the server to get a new one")
	case want.Now.Before(u.NotBefore.Add(-MaxClockSkew)):
		return nil, rejected("this use license is not valid yet: check this machine's clock")
	case !want.Now.Before(u.NotAfter):
		return nil, rejected("this use license has ended").WithNext("Open the document online")
	case u.Flags&FlagExpiryExempt == 0 && !u.ContentNotAfter.IsZero() && !want.Now.Before(u.ContentNotAfter):
		return nil, vocab.Errorf(vocab.ReasonLicenseExpired, "this document has expired")
	}
	u.verified = true
	return u, nil
}

func same(a, b [32]byte) bool {
	return b != [32]byte{} && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// PrincipalOf is [canon.PrincipalID] for a caller's identity.
func PrincipalOf(id *vocab.Identity) [32]byte { return canon.PrincipalID(id.Issuer, id.Subject) }
