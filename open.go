package rms

import (
	"context"
	"io"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// OpenOption changes how a document is opened.
type OpenOption func(*openOptions)

type openOptions struct {
	subject  string
	reason   string
	byID     bool
	recovery OperationID
}

// OnBehalfOf opens for the person whose token it is: a service passes on the
// token of its user, whose rights then apply; both are recorded.
func OnBehalfOf(token string) OpenOption { return func(o *openOptions) { o.subject = token } }

// Because says why, at most 1 KiB. It is recorded and decides nothing.
func Because(reason string) OpenOption { return func(o *openOptions) { o.reason = reason } }

// ByRecovery opens by a recovery, break-glass, that was approved for the caller:
// whatever the document's policy says. Every such open is marked in the tenant's
// log, and the use license is for this one open. A recovery that does not cover
// the document, has ended or is somebody else's refuses with RECOVERY_INVALID.
func ByRecovery(id OperationID) OpenOption { return func(o *openOptions) { o.recovery = id } }

// ByID opens a document by its content ID and does not look at the publishing
// license in it: for a document whose license was damaged by an interrupted
// replacement. It weakens nothing, since the service's record is the only
// authority and the content key fits one document only; but a license somebody
// changed then goes unnoticed.
func ByID() OpenOption { return func(o *openOptions) { o.byID = true } }

// Open opens the document in src, size bytes long, to exercise a right: VIEW to
// show it, EXPORT to save it unprotected. The service decides and records; a
// refusal is an [Error] with its reason.
//
// Everything is checked before the first byte can be read: the document's own
// license against the pinned roots and against the document, before anything is
// sent; the answer's signature, for whom, which key, which document and which
// time it is; the content key against the document; and the end of the
// content, so that its size is the true one. A document of another tenant is
// SERVER_NOT_CONFIGURED: nothing is sent to a server for a document that is not
// its.
//
// The document reads from src until it is closed.
func (c *Client) Open(ctx context.Context, src io.ReaderAt, size int64, right Right, options ...OpenOption) (*Document, error) {
	var o openOptions
	for _, set := range options {
		set(&o)
	}
	if !right.Valid() {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "there is no such right")
	}
	header, err := container.ReadHeader(io.NewSectionReader(src, 0, size))
	if err != nil {
		return nil, err
	}
	request := &rmsv1.AcquireRequest{
		Parent: c.Tenant(), Right: protoRight(right), Reason: o.reason, SubjectToken: o.subject, Client: c.info(),
	}
	if !o.recovery.IsZero() {
		request.Recovery = c.Tenant() + "/operations/" + o.recovery.String()
	}
	d := &Document{License: header.Prefix().Content}
	if err := c.nameDocument(ctx, header, request, d, &o); err != nil {
		return nil, err
	}
	ck, err := c.acquire(ctx, header.Prefix(), request, d, &o)
	if err != nil {
		return nil, err
	}
	defer ck.Zero()
	if !d.Rights.Has(right) {
		return nil, vocab.Errorf(vocab.ReasonUseLicenseRejected, "the server's use license does not give the right that was asked for")
	}
	meta, err := header.Meta(ck)
	if err != nil {
		return nil, err
	}
	d.Name, d.MediaType, d.ModTime = meta.Name, meta.Type, meta.ModTime
	content, err := header.ReaderAt(src, size, ck)
	if err != nil {
		return nil, err
	}
	d.content.Store(content)
	d.Size = content.Size()
	return d, nil
}

// nameDocument says in the request which document it is about: by its verified
// license, or by its ID if that is damaged.
func (c *Client) nameDocument(ctx context.Context, header *container.Header, request *rmsv1.AcquireRequest, d *Document, o *openOptions) error {
	prefix := header.Prefix()
	if prefix.Tenant != c.config.Trust.TenantID {
		return vocab.Errorf(vocab.ReasonServerNotConfigured, "this document belongs to tenant %s, which is not this client's", prefix.Tenant).
			WithNext("Open it with a client of its own tenant; ask whoever sent it which server that is")
	}
	raw, damage := header.License()
	d.LicenseDamaged = damage != nil
	if d.LicenseDamaged || o.byID {
		request.Document = &rmsv1.AcquireRequest_License{License: c.licenseName(prefix.Content)}
		return nil
	}
	// Before the chain is looked at, which may need a newer trust bundle: a
	// license of another document is refused without asking anybody.
	pl, err := license.ParsePL(raw)
	if err != nil {
		return err
	}
	if err := matches(pl, prefix); err != nil {
		return err
	}
	if _, err := verified(ctx, c.trust, func(v *license.Verifier) (*license.PublishingLicense, error) { return v.VerifyPL(raw) }); err != nil {
		return err
	}
	request.Document = &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: raw}
	return nil
}

// matches compares a publishing license with the document it is in.
func matches(pl *license.PublishingLicense, p container.Prefix) error {
	if pl.Tenant == p.Tenant && pl.Content == p.Content && pl.Commitment == p.Commitment && pl.ContentSuite == p.ContentSuite {
		return nil
	}
	return vocab.Errorf(vocab.ReasonLicenseMismatch, "the license in this document is another document's").
		WithNext("Get the document again from where it came from")
}

// acquire asks for the content key and believes nothing of the answer that is
// not signed. The caller zeroes the key.
func (c *Client) acquire(ctx context.Context, prefix container.Prefix, request *rmsv1.AcquireRequest, d *Document, o *openOptions) (*vocab.Secret, error) {
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		return nil, err
	}
	request.Delivery = delivery(key)
	ctx, who, err := c.signIn(ctx, o.subject)
	if err != nil {
		return nil, err
	}
	answer, err := c.Protection().Acquire(ctx, request)
	if err != nil {
		return nil, err
	}
	me, err := who()
	if err != nil {
		return nil, err
	}
	claimed, err := license.ParseUL(answer.GetUseLicense())
	if err != nil {
		return nil, err
	}
	want := license.Expect{
		Principal: me.as(claimed.Principal), Recipient: key.Hash(),
		Content: prefix.Content, Commitment: prefix.Commitment, ContentSuite: prefix.ContentSuite,
	}
	ul, err := verified(ctx, c.trust, func(v *license.Verifier) (*license.UseLicense, error) {
		want.Now = c.trust.time()
		return v.VerifyUL(answer.GetUseLicense(), answer.GetCertificate(), want)
	})
	if err != nil {
		return nil, err
	}
	c.trust.sawTime(ul.IssuedAt)
	d.Rights, d.ExpireTime, d.Event = ul.Rights.Effective(), ul.NotAfter, ul.ID
	d.Receipt, d.BreakGlass = ul.Leaf, ul.Flags&license.FlagBreakGlass != 0
	if d.BreakGlass != !o.recovery.IsZero() {
		// Neither side may take the one for the other unseen.
		return nil, vocab.Errorf(vocab.ReasonUseLicenseRejected, "the server's use license does not say truly whether it was given by a recovery")
	}
	return key.OpenUL(answer.GetContentKey().GetSealed().GetEnc(), ul)
}

// Unprotect opens a document with the right EXPORT and writes its content to
// dst, in constant memory. A refusal writes nothing. Content that turns out to
// be changed fails where the change is: write into a temporary file, and use it
// only after a nil error. The document it returns is closed.
func (c *Client) Unprotect(ctx context.Context, dst io.Writer, src io.ReaderAt, size int64, options ...OpenOption) (*Document, error) {
	d, err := c.Open(ctx, src, size, RightExport, options...)
	if err != nil {
		return nil, err
	}
	defer d.Close() //nolint:errcheck // it never fails
	if _, err := d.WriteTo(dst); err != nil {
		return nil, err
	}
	return d, nil
}
