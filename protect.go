package rms

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
	"golang.org/x/text/unicode/norm"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Suffix is the file name suffix of a protected document.
const Suffix = container.Suffix

// ProtectOptions say who may open a document and what is remembered of the
// original. At most one of Template and AdHoc is set; neither if the new document
// is to keep what the first of its Parents has.
type ProtectOptions struct {
	// Template is the name of a template. The template as it is at each open
	// decides, not as it is now.
	Template string
	// AdHoc holds the rights themselves: see [AdHoc], [DoNotForward],
	// [EncryptOnly].
	AdHoc *rmsv1.AdHocPolicy
	// ExpireTime is when an ad hoc document expires; zero: never. A template
	// says so itself.
	ExpireTime time.Time

	// Name, MediaType and ModTime are the original's. They go into the
	// document encrypted; the service does not learn them. Name loses
	// folders and whatever is not safe to create as a file.
	Name, MediaType string
	ModTime         time.Time
	// Size is the size of the content in bytes, if it is known: the source
	// must then have exactly that size. Zero: whatever comes.
	Size int64

	// Title is a name for the record, at most 200 characters. The owner and
	// the tenant's administrators can read it at the service; leave it empty
	// to keep it from them.
	Title string
	// Owner is whose the document shall be, such as "user:alice@contoso.com";
	// empty: the caller's. Only services may name somebody else.
	Owner string
	// Parents are the documents this one was made from, an edited document the
	// one that was edited. Its maker needs EDIT on each of them. With EXPORT as
	// well the new document is protected as its maker chooses; without, it is
	// derived: rights, expiry, owner and who protected it are the parent's.
	Parents []ContentID
	// AppData is sealed with the content key, at most 4 KiB.
	AppData []byte
	// RequestID names this publication: a second one by the same caller with
	// the same ID within 24 hours is refused with REQUEST_ID_REUSED. Empty: a
	// random one. Either way the client itself repeats an interrupted call
	// without making a second license.
	RequestID string
}

// Protected is a document that was made.
type Protected struct {
	// License is the content ID: the document's and its license's.
	License ContentID
	// Event records the publication.
	Event EventID
	// Record is what the service keeps of it, as it said.
	Record *rmsv1.License
	// Size of the content and of the document in bytes.
	Size, Written int64
}

// Protect encrypts src into a document and writes it to dst, in constant
// memory. The service makes the license and the content key; before a byte is
// encrypted, the license's signature is verified and the key shown to be the
// license's.
//
// After an error what was written does not open: write into a temporary file and
// rename it. If writing failed, the license is there without a document, gives
// nobody anything, and is returned with the error.
func (c *Client) Protect(ctx context.Context, dst io.Writer, src io.Reader, o ProtectOptions) (*Protected, error) {
	request, err := c.publishRequest(&o)
	if err != nil {
		return nil, err
	}
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		return nil, err
	}
	request.Delivery = delivery(key)
	ctx, who, err := c.signIn(ctx, "")
	if err != nil {
		return nil, err
	}
	answer, err := c.Protection().Publish(ctx, request)
	if err != nil {
		return nil, err
	}
	pl, err := verified(ctx, c.trust, func(v *license.Verifier) (*license.PublishingLicense, error) {
		return v.VerifyPL(answer.GetPublishingLicense())
	})
	if err != nil {
		return nil, err
	}
	if name := answer.GetLicense().GetName(); name != c.licenseName(pl.Content) {
		return nil, vocab.Errorf(vocab.ReasonLicenseMismatch, "the server's record of the new document is another document's")
	}
	me, err := who()
	if err != nil {
		return nil, err
	}
	ck, err := openPublished(key, answer.GetContentKey().GetSealed(), me, pl)
	if err != nil {
		return nil, err
	}
	defer ck.Zero()
	p := &Protected{License: pl.Content, Record: answer.GetLicense()}
	p.Event, _ = vocab.ParseEventID(answer.GetEvent())
	return p, p.write(dst, src, pl, ck, &o)
}

func (c *Client) publishRequest(o *ProtectOptions) (*rmsv1.PublishRequest, error) {
	r := &rmsv1.PublishRequest{
		Parent: c.Tenant(), RequestId: o.RequestID, Owner: o.Owner, Title: norm.NFC.String(o.Title), PrivateMetadata: o.AppData,
	}
	switch {
	case o.Template != "" && o.AdHoc != nil, o.Template == "" && o.AdHoc == nil && len(o.Parents) == 0:
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "name either a template or an ad hoc policy to protect with, or a parent")
	case o.Size < 0:
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the size of the content is negative")
	case o.AdHoc != nil:
		r.Policy = &rmsv1.PublishRequest_AdHoc{AdHoc: o.AdHoc}
	case o.Template != "":
		r.Policy = &rmsv1.PublishRequest_Template{Template: o.Template}
	}
	if r.RequestId == "" {
		r.RequestId = uuid.NewString()
	}
	if !o.ExpireTime.IsZero() {
		r.ExpireTime = timestamppb.New(o.ExpireTime)
	}
	for _, parent := range o.Parents {
		r.ParentLicenses = append(r.ParentLicenses, c.licenseName(parent))
	}
	return r, nil
}

// licenseName is the resource name of a license.
func (c *Client) licenseName(id ContentID) string { return c.Tenant() + "/licenses/" + id.String() }

// delivery asks for a content key sealed to a recipient key.
func delivery(key *license.RecipientKey) *rmsv1.KeyDelivery {
	return &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Hpke{
		Hpke: &rmsv1.HpkePublicKey{Kem: uint32(key.KEM()), PublicKey: key.Public()},
	}}
}

// openPublished opens a new document's content key. The caller zeroes it.
func openPublished(key *license.RecipientKey, sealed *rmsv1.SealedKey, me self, pl *license.PublishingLicense) (*vocab.Secret, error) {
	d := license.PublishDelivery{Enc: sealed.GetEnc(), Box: sealed.GetCiphertext()}
	var first error
	for _, principal := range me {
		ck, err := key.OpenPublish(d, principal, pl)
		if err == nil {
			return ck, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// write writes the document.
func (p *Protected) write(dst io.Writer, src io.Reader, pl *license.PublishingLicense, ck *vocab.Secret, o *ProtectOptions) error {
	prefix := container.Prefix{Tenant: pl.Tenant, Content: pl.Content, ContentSuite: pl.ContentSuite, Commitment: pl.Commitment}
	meta := container.Meta{Name: o.Name, Type: o.MediaType, Size: container.UnknownSize, ModTime: o.ModTime}
	if o.Size > 0 {
		meta.Size = o.Size
	}
	counted := &countingWriter{w: dst}
	w, err := container.Create(counted, prefix, ck, pl.Raw(), meta)
	if err != nil {
		return err
	}
	if p.Size, err = io.Copy(w, src); err != nil {
		return fmt.Errorf("protect: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("protect: %w", err)
	}
	p.Written = counted.n
	return nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
