package license

import (
	"context"
	"strings"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Bounds of a manifest of evidence.
const (
	maxEvidenceFiles = 64
	maxEvidenceName  = 64
)

// Evidence is the manifest of a bundle of evidence about a tenant's keys: it
// names every other file of the bundle with its hash. The key that signed it is
// certified for this one manifest.
type Evidence struct {
	Tenant      vocab.TenantID
	IssuedAt    time.Time
	Certificate *Certificate
	// Event is the event in the tenant's log that says the evidence was made.
	Event vocab.EventID
	// Files are in the order in which they stand in the bundle.
	Files []EvidenceFile
	// Since is from when on events are in it; zero: from the beginning.
	Since time.Time
	// Key is the name of the one key it is about; empty: of all.
	Key string

	envelope *Envelope
}

// EvidenceFile names a file by its content.
type EvidenceFile struct {
	Name string   `cbor:"1,keyasint"`
	Size uint64   `cbor:"2,keyasint"`
	Hash [32]byte `cbor:"3,keyasint"` // SHA-256
}

// Raw returns the signed bytes. The caller must not change them.
func (e *Evidence) Raw() []byte { return e.envelope.raw }

type evidenceHeader struct {
	common
	Certificate []byte         `cbor:"4,keyasint"`
	Event       vocab.EventID  `cbor:"200,keyasint"`
	Files       []EvidenceFile `cbor:"201,keyasint"`
	Since       uint64         `cbor:"202,keyasint,omitempty"`
	Key         string         `cbor:"203,keyasint,omitempty"`
}

// SignEvidence signs a manifest with a certified key.
func SignEvidence(ctx context.Context, signer Signer, cert *Certificate, in Evidence) (*Evidence, error) {
	if err := cert.mayIssue(UsageEvidence, signer, in.Tenant, in.IssuedAt); err != nil {
		return nil, err
	}
	head, err := newCommon(KindEvidence, in.Tenant, in.IssuedAt)
	if err != nil {
		return nil, err
	}
	h := evidenceHeader{common: head, Certificate: cert.Raw(), Event: in.Event, Files: in.Files, Key: in.Key}
	if h.Since, err = millis("evidence", "since", in.Since); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	b, err := encodeHeader(KindEvidence, h)
	if err != nil {
		return nil, err
	}
	e, err := seal(ctx, KindEvidence, b, nil, signer)
	if err != nil {
		return nil, err
	}
	return ParseEvidence(e.raw)
}

// ParseEvidence reads a manifest and verifies nothing.
func ParseEvidence(b []byte) (*Evidence, error) {
	var h evidenceHeader
	e, err := open(b, KindEvidence, &h, &h.common)
	if err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	cert, err := ParseCertificate(h.Certificate)
	if err != nil {
		return nil, err
	}
	out := &Evidence{
		Tenant: h.Tenant, IssuedAt: h.issued(), Certificate: cert, Event: h.Event, Files: h.Files, Key: h.Key, envelope: e,
	}
	out.Since, _ = instant("evidence", "since", h.Since)
	return out, nil
}

func (h *evidenceHeader) check() error {
	const what = "evidence"
	switch {
	case h.Event.IsZero():
		return malformed(what, "no event")
	case len(h.Files) == 0 || len(h.Files) > maxEvidenceFiles:
		return malformed(what, "%d files", len(h.Files))
	case h.Since > maxMillis:
		return malformed(what, "bad since")
	case h.Key != "" && !vocab.ValidSlug(h.Key):
		return malformed(what, "bad name of a key")
	}
	seen := map[string]bool{}
	for _, f := range h.Files {
		switch {
		case f.Name == "" || len(f.Name) > maxEvidenceName || strings.Trim(f.Name, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "":
			return malformed(what, "bad name of a file")
		case seen[f.Name]:
			return malformed(what, "two files of one name")
		}
		seen[f.Name] = true
	}
	return nil
}

// VerifyEvidence reads a manifest and checks its chain and its signature. Its
// files are for the caller to compare.
func (v *Verifier) VerifyEvidence(b []byte) (*Evidence, error) {
	e, err := ParseEvidence(b)
	if err != nil {
		return nil, err
	}
	if e.Tenant != v.bundle.Tenant {
		return nil, vocab.Errorf(vocab.ReasonLicenseMismatch, "this evidence is another tenant's")
	}
	if err := v.VerifyCertificate(e.Certificate, UsageEvidence, e.IssuedAt); err != nil {
		return nil, err
	}
	if err := e.envelope.verify(e.Certificate.Subject); err != nil {
		return nil, err
	}
	return e, nil
}

// VerifyGeneration reads a generation record and checks that a root of the
// bundle signed it. A root that is compromised since did sign it; what that is
// worth, the log says.
func (v *Verifier) VerifyGeneration(b []byte) (*Generation, error) {
	g, err := ParseGeneration(b)
	if err != nil {
		return nil, err
	}
	root, ok := v.bundle.Root(g.envelope.Signers[0])
	if g.Tenant != v.bundle.Tenant || !ok {
		return nil, untrusted("the generation is not signed by a root of the tenant")
	}
	return g, g.envelope.verify(root.Key)
}
