package rms

import (
	"io"
	"time"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Inspection is what a document says of itself to whoever has it, without a
// key and without a server.
type Inspection struct {
	// TenantID and License say whose and which document it is.
	TenantID TenantID
	License  ContentID
	// ContentSuite says how the content is encrypted.
	ContentSuite uint16
	// ContentOffset is where the encrypted content begins, in bytes, and
	// ContentSize how long the clear content is, if nothing was cut off.
	ContentOffset, ContentSize int64

	// LicenseError is why there is no readable publishing license of this
	// document in it; nil otherwise. The fields below are then zero.
	LicenseError error
	// IssuedAt is when the publishing license was made.
	IssuedAt time.Time
	// Strict says that the document has a key generation of its own.
	Strict bool
	// Generation is the key generation, in UUID text form.
	Generation string
	// Service, Contact and Descriptor are hints for people. A program never
	// connects to what they say.
	Service, Contact, Descriptor string
	// Signer is the daemon whose key signed the license, as its certificate
	// names it, and RootKeyID the root that certified it.
	Signer    string
	RootKeyID [32]byte

	// Verified says that a pinned root vouches for the license. If not,
	// VerifyError says why, nil meaning that there was nothing to verify
	// with.
	Verified    bool
	VerifyError error
}

// Inspect reads what a document says of itself. It needs no key and speaks to
// nobody. With the trust of the document's tenant, its bundle included, it also
// verifies the license; everything else in the result is only claimed.
func Inspect(src io.ReaderAt, size int64, trust *Trust) (*Inspection, error) {
	header, err := container.ReadHeader(io.NewSectionReader(src, 0, size))
	if err != nil {
		return nil, err
	}
	p := header.Prefix()
	i := &Inspection{
		TenantID: p.Tenant, License: p.Content, ContentSuite: p.ContentSuite,
		ContentOffset: header.StreamOffset(), ContentSize: header.PlainSize(size),
	}
	i.readLicense(header, trust)
	return i, nil
}

// readLicense reads the publishing license, or says why there is none.
func (i *Inspection) readLicense(header *container.Header, trust *Trust) {
	raw, err := header.License()
	if err != nil {
		i.LicenseError = err
		return
	}
	pl, err := license.ParsePL(raw)
	if err == nil {
		err = matches(pl, header.Prefix())
	}
	if err != nil {
		i.LicenseError = err
		return
	}
	i.IssuedAt, i.Strict, i.Generation = pl.IssuedAt, pl.Wrap != nil, pl.Generation.String()
	i.Service, i.Contact, i.Descriptor = pl.ServiceHint, pl.ContactHint, pl.Descriptor
	i.Signer, i.RootKeyID = pl.Certificate.Instance, pl.Certificate.Root
	if trust != nil && len(trust.Bundle) > 0 {
		i.VerifyError = verifyWith(trust, raw)
		i.Verified = i.VerifyError == nil
	}
}

func verifyWith(t *Trust, raw []byte) error {
	if t.TenantID.IsZero() {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the trust names no tenant")
	}
	v, err := license.NewVerifier(t.Bundle, t.TenantID, pins(t.RootKeyIDs), t.BundleSeq)
	if err != nil {
		return err
	}
	_, err = v.VerifyPL(raw)
	return err
}
