package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/license"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/test/rmsdtest"
)

// world is a service with documents, and those who use it.
type world struct {
	site   *rmsdtest.Site
	daemon *rmsdtest.Process // nil if it runs inside

	alice, mallory *client
	bob            []*client
	keys           []*license.RecipientKey
	docs           map[string][]*document // by template
}

// client is a person on a connection.
type client struct {
	rmsv1.ProtectionServiceClient
	conn      *grpc.ClientConn
	sign      grpc.CallOption
	principal [32]byte
}

type document struct {
	pl  []byte
	key [32]byte // hash of the content key
}

// reply is what a call cost on the wire, without gRPC's and TLS's own bytes.
type reply struct{ request, response int }

func (w *world) client(b testing.TB, user string) *client {
	b.Helper()
	c := &client{}
	c.conn, c.sign = w.site.Caller(b, user).Conn()
	c.ProtectionServiceClient = rmsv1.NewProtectionServiceClient(c.conn)
	subject, _ := w.site.IdP.Claims(user)["sub"].(string)
	c.principal = canon.PrincipalID(w.site.IdP.Issuer(), subject)
	return c
}

// prepare makes templates and protects documents.
func (w *world) prepare(b testing.TB) {
	b.Helper()
	w.signIn(b)
	for template, mode := range map[string]rmsv1.CustodyMode{
		"cached": rmsv1.CustodyMode_CUSTODY_MODE_CACHED, "strict": rmsv1.CustodyMode_CUSTODY_MODE_STRICT,
	} {
		if err := w.makeTemplate(b.Context(), template, mode, grants); err != nil {
			b.Fatal(err)
		}
		w.protectAll(b, template, documents)
	}
}

// signIn signs people in and makes recipient keys.
func (w *world) signIn(b testing.TB) {
	b.Helper()
	w.bob, w.keys, w.docs = nil, nil, map[string][]*document{}
	w.alice, w.mallory = w.client(b, "alice"), w.client(b, "mallory")
	for range connections {
		w.bob = append(w.bob, w.client(b, "bob"))
	}
	for range recipients {
		key, err := license.NewRecipientKey(license.XWing)
		if err != nil {
			b.Fatal(err)
		}
		w.keys = append(w.keys, key)
	}
}

// protectAll protects n documents with a template.
func (w *world) protectAll(b testing.TB, template string, n int) {
	b.Helper()
	docs := make([]*document, n)
	each(b, n, func(i int) error {
		d, err := w.protect(b.Context(), byTemplate(template), uint64(i))
		docs[i] = d
		return err
	})
	w.docs[template] = docs
}

// each has callers do n things at the same time.
func each(b testing.TB, n int, do func(i int) error) {
	b.Helper()
	var wg sync.WaitGroup
	next := make(chan int)
	for range callers {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// makeTemplate makes a template with so many grants, [bobsGrants].
func (w *world) makeTemplate(ctx context.Context, id string, mode rmsv1.CustodyMode, grants int) error {
	t := &rmsv1.Template{DisplayNames: map[string]string{"en": id}, State: rmsv1.Template_STATE_PUBLISHED, CustodyMode: mode, Grants: bobsGrants(grants)}
	_, err := rmsv1.NewPolicyServiceClient(w.alice.conn).CreateTemplate(ctx,
		&rmsv1.CreateTemplateRequest{Parent: rmsdtest.Parent, TemplateId: id, Template: t}, w.alice.sign)
	return err
}

// bobsGrants are n grants, of which the last is bob's.
func bobsGrants(n int) (out []*rmsv1.Grant) {
	for i := range n - 1 {
		out = append(out, &rmsv1.Grant{To: fmt.Sprintf("group:team-%d@contoso.test", i), Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}})
	}
	return append(out, &rmsv1.Grant{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}})
}

// byTemplate and adHoc are the policies of a document.
func byTemplate(id string) *rmsv1.PublishRequest {
	return &rmsv1.PublishRequest{Policy: &rmsv1.PublishRequest_Template{Template: id}}
}

func adHoc(grants int) *rmsv1.PublishRequest {
	return &rmsv1.PublishRequest{Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
		Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: bobsGrants(grants),
	}}}
}

func (w *world) document(template string, n uint64) *document {
	docs := w.docs[template]
	return docs[n%uint64(len(docs))]
}

func (w *world) key(n uint64) *license.RecipientKey { return w.keys[n%recipients] }

func (w *world) verifies(n uint64) bool { return w.site.Verifier != nil && n%verifyEvery == 0 }

// publishCall protects as req says; parent and delivery are filled in.
func (w *world) publishCall(ctx context.Context, req *rmsv1.PublishRequest, n uint64) (*rmsv1.PublishResponse, error) {
	req.Parent, req.Delivery = rmsdtest.Parent, daemontest.SealedTo(w.key(n))
	return w.alice.Publish(ctx, req, w.alice.sign)
}

// protect publishes a document and keeps what opening it must give.
func (w *world) protect(ctx context.Context, req *rmsv1.PublishRequest, n uint64) (*document, error) {
	resp, err := w.publishCall(ctx, req, n)
	if err != nil {
		return nil, err
	}
	d := &document{pl: resp.GetPublishingLicense()}
	if w.site.Verifier == nil {
		return d, nil
	}
	pl, err := w.site.Verifier.VerifyPL(d.pl)
	if err != nil {
		return nil, err
	}
	sealed := resp.GetContentKey().GetSealed()
	ck, err := w.key(n).OpenPublish(license.PublishDelivery{Enc: sealed.GetEnc(), Box: sealed.GetCiphertext()}, w.alice.principal, pl)
	if err != nil {
		return nil, err
	}
	defer ck.Zero()
	d.key = canon.Hash(ck.Reveal())
	return d, nil
}

func (w *world) publish(ctx context.Context, template string, n uint64) (reply, error) {
	req := byTemplate(template)
	resp, err := w.publishCall(ctx, req, n)
	return reply{proto.Size(req), proto.Size(resp)}, err
}

func (w *world) acquire(ctx context.Context, template string, n uint64) (reply, error) {
	c, d := w.bob[n%connections], w.document(template, n)
	req := &rmsv1.AcquireRequest{
		Parent: rmsdtest.Parent, Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.pl},
		Right: rmsv1.Right_RIGHT_VIEW, Delivery: daemontest.SealedTo(w.key(n)),
	}
	resp, err := c.Acquire(ctx, req, c.sign)
	if err == nil && w.verifies(n) {
		err = w.verify(c, n, d, resp.GetUseLicense(), resp.GetCertificate(), resp.GetContentKey().GetSealed().GetEnc())
	}
	return reply{proto.Size(req), proto.Size(resp)}, err
}

// refused asks as somebody the template gives nothing.
func (w *world) refused(ctx context.Context, template string, n uint64) (reply, error) {
	req := &rmsv1.AcquireRequest{
		Parent: rmsdtest.Parent, Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: w.document(template, n).pl},
		Right: rmsv1.Right_RIGHT_VIEW, Delivery: daemontest.SealedTo(w.key(n)),
	}
	_, err := w.mallory.Acquire(ctx, req, w.mallory.sign)
	if status.Code(err) != codes.PermissionDenied {
		return reply{}, fmt.Errorf("want a refusal, got %w", errors.Join(err, errors.ErrUnsupported))
	}
	return reply{proto.Size(req), proto.Size(status.Convert(err).Proto())}, nil
}

func (w *world) acquireBatch(ctx context.Context, template string, n uint64) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := w.bob[n%connections]
	req := &rmsv1.BatchAcquireRequest{Parent: rmsdtest.Parent, Delivery: daemontest.SealedTo(w.key(n))}
	for _, d := range w.docs[template] {
		req.Items = append(req.Items, &rmsv1.AcquireRequest{
			Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.pl}, Right: rmsv1.Right_RIGHT_VIEW,
		})
	}
	resp, err := c.BatchAcquire(ctx, req, c.sign)
	if err != nil {
		return reply{}, err
	}
	for i, r := range resp.GetResults() {
		got := r.GetAcquired()
		if got == nil {
			return reply{}, fmt.Errorf("item %d was refused: %s", i, r.GetRefused().GetMessage())
		}
		if w.verifies(uint64(i)) {
			if err := w.verify(c, n, w.docs[template][i], got.GetUseLicense(), resp.GetCertificate(), resp.GetEnc()); err != nil {
				return reply{}, err
			}
		}
	}
	return reply{proto.Size(req), proto.Size(resp)}, nil
}

// verify opens a use license as a client must, down to the pinned root.
func (w *world) verify(c *client, n uint64, d *document, ul, certificate, enc []byte) error {
	pl, err := w.site.Verifier.VerifyPL(d.pl)
	if err != nil {
		return err
	}
	u, err := w.site.Verifier.VerifyUL(ul, certificate, license.Expect{
		Principal: c.principal, Recipient: w.key(n).Hash(), Content: pl.Content, Commitment: pl.Commitment, ContentSuite: pl.ContentSuite, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	ck, err := w.key(n).OpenUL(enc, u)
	if err != nil {
		return err
	}
	defer ck.Zero()
	if canon.Hash(ck.Reveal()) != d.key {
		return errors.New("the content key is not the one the document was published with")
	}
	return nil
}
