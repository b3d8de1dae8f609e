package attack

import (
	"context"
	"crypto/tls"
	"errors"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// caller speaks to the daemon at the level of messages, so that it can say
// what no honest client says. What it is told it checks like one.
type caller struct {
	s         *site
	tenant    string
	name      string
	token     string
	principal [32]byte
	conn      *grpc.ClientConn
}

// as signs a user in: contoso's alice, bob, mallory …, fabrikam's frank, or a
// guest, by "guests/NAME".
func (s *site) as(provider, login string) *caller {
	s.tb.Helper()
	p := s.idp[provider]
	token, err := p.MintToken(login)
	must(s.tb, err)
	subject, _ := p.Claims(login)["sub"].(string)
	c := &caller{s: s, tenant: provider, name: login, token: token, principal: canon.PrincipalID(p.Issuer(), subject), conn: s.conn("", nil)}
	if provider == "guests" {
		c.tenant = contoso
	}
	return c
}

// person is somebody of contoso.
func (s *site) person(login string) *caller { return s.as(contoso, login) }

// service presents a client certificate and no token.
func (s *site) service(name string, cert *tls.Certificate) *caller {
	return &caller{s: s, tenant: contoso, name: name, conn: s.conn("service "+name, cert)}
}

// at is the caller addressing another tenant.
func (c *caller) at(tenant string) *caller {
	next := *c
	next.tenant = tenant
	return &next
}

// with is the caller with another token.
func (c *caller) with(token string) *caller {
	next := *c
	next.token = token
	return &next
}

func (c *caller) parent() string { return "tenants/" + c.tenant }

func (c *caller) ctx() context.Context {
	ctx := c.s.tb.Context()
	if c.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
}

func (c *caller) protection() rmsv1.ProtectionServiceClient {
	return rmsv1.NewProtectionServiceClient(c.conn)
}
func (c *caller) licenses() rmsv1.LicenseServiceClient { return rmsv1.NewLicenseServiceClient(c.conn) }
func (c *caller) policy() rmsv1.PolicyServiceClient    { return rmsv1.NewPolicyServiceClient(c.conn) }
func (c *caller) audit() rmsv1.AuditServiceClient      { return rmsv1.NewAuditServiceClient(c.conn) }

// document is what its publisher has.
type document struct {
	content vocab.ContentID
	pl      []byte
	parsed  *license.PublishingLicense
	key     [32]byte // hash of the content key
	event   string
	name    string // resource name of the license
}

// refusal is how the daemon said no.
type refusal struct {
	reason  vocab.Reason
	event   string
	text    string
	contact string
}

func (r *refusal) Error() string { return string(r.reason) + ": " + r.text }

// refused reads a gRPC error.
func refused(err error) *refusal {
	if err == nil {
		return nil
	}
	return refusedStatus(status.Convert(err))
}

func refusedStatus(st *status.Status) *refusal {
	r := &refusal{reason: vocab.Reason("no reason: " + st.Code().String()), text: st.Message()}
	if info := daemontest.Refusal(st.Err()); info != nil {
		r.reason, r.event, r.contact = vocab.Reason(info.GetReason()), info.GetMetadata()["event"], info.GetMetadata()["contact"]
	}
	return r
}

func clearDelivery() *rmsv1.KeyDelivery {
	return &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Clear{Clear: &rmsv1.Clear{}}}
}

func newKey(tb testing.TB) *license.RecipientKey {
	tb.Helper()
	k, err := license.NewRecipientKey(license.XWing)
	must(tb, err)
	return k
}

// publishAs publishes with any request; key is the recipient key in it.
func (c *caller) publishAs(key *license.RecipientKey, req *rmsv1.PublishRequest) (*document, error) {
	req.Parent = c.parent()
	resp, err := c.protection().Publish(c.ctx(), req)
	if err != nil {
		return nil, refused(err)
	}
	pl, err := c.s.trust[c.tenant].verifier.VerifyPL(resp.GetPublishingLicense())
	if err != nil {
		return nil, err
	}
	d := &document{content: pl.Content, pl: resp.GetPublishingLicense(), parsed: pl, event: resp.GetEvent(), name: resp.GetLicense().GetName()}
	sealed := resp.GetContentKey().GetSealed()
	ck, err := key.OpenPublish(license.PublishDelivery{Enc: sealed.GetEnc(), Box: sealed.GetCiphertext()}, c.principal, pl)
	if err != nil {
		return d, err
	}
	defer ck.Zero()
	d.key = canon.Hash(ck.Reveal())
	return d, nil
}

// publish protects a document under a template, or, if that is "", for the
// given grants.
func (c *caller) publish(template string, grants ...*rmsv1.Grant) *document {
	c.s.tb.Helper()
	key := newKey(c.s.tb)
	req := &rmsv1.PublishRequest{Delivery: daemontest.SealedTo(key), Policy: &rmsv1.PublishRequest_Template{Template: template}}
	if template == "" {
		req.Policy = &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: grants}}
	}
	d, err := c.publishAs(key, req)
	must(c.s.tb, err)
	return d
}

// grant gives a principal rights.
func grant(to string, rights ...rmsv1.Right) *rmsv1.Grant {
	return &rmsv1.Grant{To: to, Rights: rights}
}

// acquire opens a document by its publishing license for viewing.
func (c *caller) acquire(pl []byte) (*opened, error) {
	return c.acquireAs(newKey(c.s.tb), &rmsv1.AcquireRequest{Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: pl}})
}

// acquireByName opens a document whose content ID is all the caller has.
func (c *caller) acquireByName(id vocab.ContentID) (*opened, error) {
	return c.acquireAs(newKey(c.s.tb), &rmsv1.AcquireRequest{Document: &rmsv1.AcquireRequest_License{License: c.parent() + "/licenses/" + id.String()}})
}

// opened is what an acquire gave.
type opened struct {
	key    [32]byte // hash of the content key
	event  string
	rights []rmsv1.Right
	resp   *rmsv1.AcquireResponse
	ul     *license.UseLicense
}

func (c *caller) acquireAs(key *license.RecipientKey, req *rmsv1.AcquireRequest) (*opened, error) {
	req.Parent = c.parent()
	if req.Right == 0 {
		req.Right = rmsv1.Right_RIGHT_VIEW
	}
	if req.Delivery == nil {
		req.Delivery = daemontest.SealedTo(key)
	}
	resp, err := c.protection().Acquire(c.ctx(), req)
	if err != nil {
		return nil, refused(err)
	}
	return c.open(key, resp, resp.GetCertificate(), resp.GetContentKey().GetSealed().GetEnc())
}

// open checks what an acquire gave as an honest client does.
func (c *caller) open(key *license.RecipientKey, resp *rmsv1.AcquireResponse, certificate, enc []byte) (*opened, error) {
	o := &opened{event: resp.GetEvent(), rights: resp.GetRights(), resp: resp}
	if clear := resp.GetContentKey().GetClear(); clear != nil {
		o.key = canon.Hash(clear)
		return o, nil
	}
	parsed, err := license.ParseUL(resp.GetUseLicense())
	if err != nil {
		return nil, err
	}
	if o.ul, err = c.s.trust[c.tenant].verifier.VerifyUL(resp.GetUseLicense(), certificate, license.Expect{
		Principal: c.principal, Recipient: key.Hash(), Content: parsed.Content, Commitment: parsed.Commitment,
		ContentSuite: parsed.ContentSuite, Now: time.Now(),
	}); err != nil {
		return nil, err
	}
	ck, err := key.OpenUL(enc, o.ul)
	if err != nil {
		return nil, err
	}
	defer ck.Zero()
	o.key = canon.Hash(ck.Reveal())
	return o, nil
}

// wantRefused checks that an attempt was refused for the reason and got
// nothing, and returns the refusal.
func wantRefused(t *testing.T, got *opened, err error, want vocab.Reason) *refusal {
	t.Helper()
	r, _ := errors.AsType[*refusal](err)
	if r == nil {
		if err == nil {
			t.Fatalf("a content key was released (event %s); want %s", got.event, want)
		}
		t.Fatalf("the answer came, and the client refused it: %v; want the daemon to refuse with %s", err, want)
	}
	if r.reason != want {
		t.Fatalf("refused with %s (%s), want %s", r.reason, r.text, want)
	}
	return r
}

// recorded finds an event by its ID through the audit API, as contoso's
// auditor, and checks that it tells of this refusal, and whether as an alarm.
func (s *site) recorded(t *testing.T, r *refusal, alarm bool) *rmsv1.Event {
	t.Helper()
	if r.event == "" {
		t.Fatalf("%s has no event", r)
	}
	erin := s.person("erin")
	e, err := erin.audit().GetEvent(erin.ctx(), &rmsv1.GetEventRequest{Name: erin.parent() + "/events/" + r.event})
	if err != nil {
		t.Fatalf("the event of %s: %v", r, err)
	}
	if e.GetOutcome() != string(r.reason) || e.GetAlarm() != alarm || len(e.GetRights()) != 0 {
		t.Fatalf("the event says %s, alarm %v, rights %v; want %s, alarm %v and no rights", e.GetOutcome(), e.GetAlarm(), e.GetRights(), r.reason, alarm)
	}
	return e
}

// wantOpens checks that a document still opens, with the key it was published
// with: what an attack left behind does no harm.
func (c *caller) wantOpens(t *testing.T, d *document) *opened {
	t.Helper()
	o, err := c.acquire(d.pl)
	if err != nil {
		t.Fatalf("%s cannot open an untouched document: %v", c.name, err)
	}
	if o.key != d.key {
		t.Fatalf("%s got another content key than the document was published with", c.name)
	}
	return o
}

// releases are the events about a document that gave its key away.
func (s *site) releases(t *testing.T, d *document) (ids []string) {
	t.Helper()
	erin := s.person("erin")
	req := &rmsv1.ListEventsRequest{Parent: erin.parent(), PageSize: 1000, Filter: &rmsv1.EventFilter{License: d.name, Kinds: []string{"released"}}}
	resp, err := erin.audit().ListEvents(erin.ctx(), req)
	must(t, err)
	for _, e := range resp.GetEvents() {
		ids = append(ids, e.GetName())
	}
	slices.Sort(ids)
	return ids
}
