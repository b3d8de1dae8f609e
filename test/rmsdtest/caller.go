package rmsdtest

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Caller is a person at a connection. It verifies everything it gets as a
// client must, down to the pinned root, and opens the content key.
type Caller struct {
	User string

	site       *Site
	who        daemontest.Who
	protection rmsv1.ProtectionServiceClient
	conn       *grpc.ClientConn
	port       atomic.Int64
}

// Caller signs a test user in on a connection of its own.
func (s *Site) Caller(tb testing.TB, user string) *Caller {
	tb.Helper()
	c := &Caller{}
	conn := s.Connect(tb, func(a net.Addr) { c.port.Store(int64(a.(*net.TCPAddr).Port)) })
	c.at(s, conn, user)
	return c
}

// As returns another user on the same connection.
func (c *Caller) As(user string) *Caller {
	next := &Caller{}
	next.at(c.site, c.conn, user)
	return next
}

func (c *Caller) at(s *Site, conn *grpc.ClientConn, user string) {
	c.User, c.site, c.conn, c.who = user, s, conn, s.people[user]
	c.protection = rmsv1.NewProtectionServiceClient(conn)
}

// Port returns the local TCP port of the connection, 0 before it is there.
func (c *Caller) Port() int { return int(c.port.Load()) }

// Close closes the connection.
func (c *Caller) Close() { _ = c.conn.Close() }

// Conn returns the connection and the option that signs a call on it.
func (c *Caller) Conn() (*grpc.ClientConn, grpc.CallOption) {
	return c.conn, c.who.As()
}

// Document is what a publisher keeps of a document.
type Document struct {
	Content    vocab.ContentID
	Commitment [32]byte
	Suite      uint16
	Key        [32]byte // hash of the content key
	PL         []byte
}

// Outcome says how a call ended, as its caller knows it.
type Outcome int

// Outcomes of a call.
const (
	Unknown  Outcome = iota // no answer came: the call may or may not have happened
	Received                // a content key came
	Refused                 // the daemon said no
)

// Reply is what a caller knows about one call.
type Reply struct {
	Outcome   Outcome
	Recipient [32]byte // hash of the recipient key, made for this call alone
	Publish   bool     // else an acquire
	Content   vocab.ContentID
	Event     vocab.EventID       // zero if the answer names none
	Key       [32]byte            // hash of the content key received
	Leaf      [32]byte            // leaf hash the use license promises
	Reason    vocab.Reason        // why it was refused
	Err       error               // what the call returned
	Document  *Document           // of a publish
	Use       *license.UseLicense // of an acquire, verified
}

// errAnswer is an answer that a client must not accept.
type errAnswer struct{ error }

// BadAnswer returns why an answer was unacceptable, or nil: then the daemon, or
// this client, has a defect.
func (r *Reply) BadAnswer() error {
	if e, ok := errors.AsType[errAnswer](r.Err); ok {
		return e.error
	}
	return nil
}

// Publish protects a document that bob and the caller may open. mode is the
// template, or empty for rights of its own.
func (c *Caller) Publish(ctx context.Context, template string) *Reply {
	r := &Reply{Publish: true}
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		r.Err = errAnswer{err}
		return r
	}
	r.Recipient = key.Hash()
	req := &rmsv1.PublishRequest{Parent: c.site.Parent(), Delivery: daemontest.SealedTo(key)}
	if template != "" {
		req.Policy = &rmsv1.PublishRequest_Template{Template: template}
	} else {
		req.Policy = &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
			Kind:   rmsv1.AdHocPolicy_KIND_GRANTS,
			Grants: []*rmsv1.Grant{{To: "user:bob@" + c.site.Name + ".test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
		}}
	}
	resp, err := c.protection.Publish(ctx, req, c.who.As())
	if err != nil {
		r.refused(err)
		return r
	}
	if err := c.published(r, key, resp); err != nil {
		r.Err = errAnswer{err}
	}
	return r
}

func (c *Caller) published(r *Reply, key *license.RecipientKey, resp *rmsv1.PublishResponse) (err error) {
	pl, err := c.site.Verifier.VerifyPL(resp.GetPublishingLicense())
	if err != nil {
		return err
	}
	sealed := resp.GetContentKey().GetSealed()
	ck, err := key.OpenPublish(license.PublishDelivery{Enc: sealed.GetEnc(), Box: sealed.GetCiphertext()}, c.who.Principal(), pl)
	if err != nil {
		return err
	}
	defer ck.Zero()
	if r.Event, err = vocab.ParseEventID(resp.GetEvent()); err != nil {
		return err
	}
	r.Outcome, r.Content, r.Key = Received, pl.Content, canon.Hash(ck.Reveal())
	r.Document = &Document{Content: pl.Content, Commitment: pl.Commitment, Suite: pl.ContentSuite, Key: r.Key, PL: resp.GetPublishingLicense()}
	return nil
}

// Acquire asks for the right to view a document, once.
func (c *Caller) Acquire(ctx context.Context, d *Document) *Reply { return c.acquire(ctx, d, false) }

// AcquireToKeep asks for a use license that may be kept.
func (c *Caller) AcquireToKeep(ctx context.Context, d *Document) *Reply {
	return c.acquire(ctx, d, true)
}

func (c *Caller) acquire(ctx context.Context, d *Document, keep bool) *Reply {
	r := &Reply{Content: d.Content}
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		r.Err = errAnswer{err}
		return r
	}
	r.Recipient = key.Hash()
	resp, err := c.protection.Acquire(ctx, &rmsv1.AcquireRequest{
		Parent: c.site.Parent(), Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.PL},
		Right: rmsv1.Right_RIGHT_VIEW, Delivery: daemontest.SealedTo(key), Store: keep,
	}, c.who.As())
	if err != nil {
		r.refused(err)
		return r
	}
	if err := c.acquired(r, key, d, resp, resp.GetCertificate(), resp.GetContentKey().GetSealed().GetEnc()); err != nil {
		r.Err = errAnswer{err}
	}
	return r
}

func (c *Caller) acquired(r *Reply, key *license.RecipientKey, d *Document, resp *rmsv1.AcquireResponse, certificate, enc []byte) error {
	ul, err := c.site.Verifier.VerifyUL(resp.GetUseLicense(), certificate, license.Expect{
		Principal: c.who.Principal(), Recipient: r.Recipient, Content: d.Content, Commitment: d.Commitment, ContentSuite: d.Suite, Now: time.Now(),
	})
	if err != nil {
		return err
	}
	ck, err := key.OpenUL(enc, ul)
	if err != nil {
		return err
	}
	defer ck.Zero()
	r.Outcome, r.Event, r.Leaf, r.Key, r.Use = Received, ul.ID, ul.Leaf, canon.Hash(ck.Reveal()), ul
	if r.Key != d.Key {
		return errors.New("the content key is not the one the document was published with")
	}
	if resp.GetEvent() != ul.ID.String() {
		return errors.New("the answer names another event than its use license")
	}
	return nil
}

// AcquireAll opens documents in batches and returns one reply each. All of a
// batch share a recipient key.
func (c *Caller) AcquireAll(ctx context.Context, docs []*Document) ([]*Reply, error) {
	var out []*Reply
	const batch = 500
	for len(docs) > 0 {
		part := docs[:min(batch, len(docs))]
		docs = docs[len(part):]
		key, err := license.NewRecipientKey(license.XWing)
		if err != nil {
			return nil, err
		}
		req := &rmsv1.BatchAcquireRequest{Parent: c.site.Parent(), Delivery: daemontest.SealedTo(key)}
		for _, d := range part {
			req.Items = append(req.Items, &rmsv1.AcquireRequest{
				Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: d.PL}, Right: rmsv1.Right_RIGHT_VIEW,
			})
		}
		resp, err := c.protection.BatchAcquire(ctx, req, c.who.As())
		if err != nil {
			return nil, err
		}
		if len(resp.GetResults()) != len(part) {
			return nil, errors.New("a batch has not as many results as items")
		}
		for i, result := range resp.GetResults() {
			r := &Reply{Content: part[i].Content, Recipient: key.Hash()}
			if got := result.GetAcquired(); got != nil {
				if err := c.acquired(r, key, part[i], got, resp.GetCertificate(), resp.GetEnc()); err != nil {
					r.Err = errAnswer{err}
				}
			} else {
				r.refused(status.FromProto(result.GetRefused()).Err())
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// refused takes an error over.
func (r *Reply) refused(err error) {
	r.Err = err
	if reason, event, ok := Refusal(err); ok {
		r.Outcome, r.Reason, r.Event = Refused, reason, event
	}
}

// Refusal returns the reason of a refusal and its event, zero if it names none.
// Only an error with a reason of the service is its answer; anything else
// leaves open what happened.
func Refusal(err error) (reason vocab.Reason, event vocab.EventID, ok bool) {
	info := daemontest.Refusal(err)
	if info == nil {
		return "", vocab.EventID{}, false
	}
	if id, err := vocab.ParseEventID(info.GetMetadata()["event"]); err == nil {
		event = id
	}
	return vocab.Reason(info.GetReason()), event, true
}
