package license

import (
	"bytes"
	"context"
	"crypto/hpke"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// Labels of the two deliveries: what the HPKE info and the exporter context
// begin with.
const (
	labelUL        = "rms/v1/ul"
	labelPublish   = "rms/v1/publish"
	contextUL      = "rms/v1/ul-key"
	contextPublish = "rms/v1/publish-key"
)

func deliveryInfo(label string, t vocab.TenantID, principal [32]byte, kem KEM, recipient [32]byte) []byte {
	return canon.D(label, canon.Fields{
		fieldTenant: t, fieldPrincipal: principal[:], fieldKEM: uint16(kem), fieldRecipient: recipient[:],
	})
}

// exportContext is label ‖ 00 ‖ H(header): a key for this header only.
func exportContext(label string, header []byte) string {
	h := canon.Hash(header)
	return label + "\x00" + string(h[:])
}

// Delivery is one key agreement with one recipient, for one principal of one
// tenant, from which any number of use licenses take their keys. Make one per
// request and drop it at the end. It is safe for concurrent use.
type Delivery struct {
	tenant    vocab.TenantID
	principal [32]byte
	recipient *Recipient
	enc       []byte
	sender    *hpke.Sender
}

// NewDelivery makes a fresh key agreement. principal is
// [canon.PrincipalID] of the caller.
func NewDelivery(r *Recipient, t vocab.TenantID, principal [32]byte) (*Delivery, error) {
	return newDelivery(labelUL, r, t, principal)
}

func newDelivery(label string, r *Recipient, t vocab.TenantID, principal [32]byte) (*Delivery, error) {
	if t.IsZero() || principal == [32]byte{} {
		return nil, misuse("delivery without tenant or principal")
	}
	enc, sender, err := newSender(r, deliveryInfo(label, t, principal, r.kem, r.id))
	if err != nil {
		return nil, err
	}
	return &Delivery{t, principal, r, enc, sender}, nil
}

// newSender makes a fresh key agreement, of which only the exporter is used.
func newSender(r *Recipient, info []byte) ([]byte, *hpke.Sender, error) {
	enc, sender, err := hpke.NewSender(r.key, hpke.HKDFSHA256(), hpke.ExportOnly(), info)
	if err != nil {
		return nil, nil, badRecipient(err)
	}
	return enc, sender, nil
}

// newReceiver is the other side of newSender.
func newReceiver(k *RecipientKey, enc, info []byte) (*hpke.Recipient, error) {
	return hpke.NewRecipient(enc, k.private, hpke.HKDFSHA256(), hpke.ExportOnly(), info)
}

// Enc returns the encapsulated key that travels once with the response.
func (d *Delivery) Enc() []byte { return bytes.Clone(d.enc) }

// UseLicense makes a use license with ck sealed in it. Tenant, Principal, KEM,
// Recipient, EncHash and Certificate of u are filled in; its ID must be new.
// It refuses a key that is not the commitment's.
func (d *Delivery) UseLicense(ctx context.Context, signer Signer, cert *Certificate, u UseLicense, ck *vocab.Secret) (*UseLicense, error) {
	u.Tenant, u.Principal, u.KEM, u.Recipient = d.tenant, d.principal, d.recipient.kem, d.recipient.id
	u.EncHash, u.Certificate = canon.Hash(d.enc), cert.ID
	for _, t := range []*time.Time{&u.IssuedAt, &u.NotBefore, &u.NotAfter, &u.ContentNotAfter} {
		*t = t.UTC().Truncate(time.Millisecond) // what the recipient will read
	}
	if err := cert.mayIssue(UsageUL, signer, u.Tenant, u.IssuedAt); err != nil {
		return nil, err
	}
	if !canon.Commits(u.Commitment, ck, u.Tenant, u.Content, u.ContentSuite) {
		return nil, misuse("delivering a content key that does not match its commitment")
	}
	header, err := u.header()
	if err != nil {
		return nil, err
	}
	key, err := exported(d.sender.Export(exportContext(contextUL, header), vocab.SecretSize))
	if err != nil {
		return nil, misuse("HPKE export: %v", err)
	}
	defer key.Zero()
	u.envelope, err = seal(ctx, KindUL, header, canon.Seal(key, nil, ck.Reveal()), signer)
	if err != nil {
		return nil, err
	}
	return &u, nil
}

// PublishDelivery is a new document's content key on its way to the publisher.
type PublishDelivery struct {
	Enc []byte // encapsulated key
	Box []byte // sealed content key, 60 bytes
}

// DeliverPublish seals the content key of a new publishing license to the
// publisher's recipient key, bound to the license's header.
func DeliverPublish(r *Recipient, principal [32]byte, pl *PublishingLicense, ck *vocab.Secret) (PublishDelivery, error) {
	if !canon.Commits(pl.Commitment, ck, pl.Tenant, pl.Content, pl.ContentSuite) {
		return PublishDelivery{}, misuse("delivering a content key that does not match its commitment")
	}
	d, err := newDelivery(labelPublish, r, pl.Tenant, principal)
	if err != nil {
		return PublishDelivery{}, err
	}
	key, err := exported(d.sender.Export(exportContext(contextPublish, pl.envelope.Header), vocab.SecretSize))
	if err != nil {
		return PublishDelivery{}, misuse("HPKE export: %v", err)
	}
	defer key.Zero()
	return PublishDelivery{Enc: d.enc, Box: canon.Seal(key, nil, ck.Reveal())}, nil
}
