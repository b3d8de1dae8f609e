package server

import (
	"context"
	"crypto/sha256"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Limits of a batch: items, and bytes of all of it.
const (
	maxBatch      = 1000
	maxBatchBytes = 3 << 20
)

// protection serves ProtectionService.
type protection struct {
	rmsv1.UnimplementedProtectionServiceServer
	s *Server
}

func (p *protection) GetTrust(ctx context.Context, _ *rmsv1.GetTrustRequest) (*rmsv1.GetTrustResponse, error) {
	t := callOf(ctx).tenant
	if t == nil {
		return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no such tenant here").
			WithNext("Name the tenant; ask your administrator for its name")
	}
	trust, err := t.Trust(ctx)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.GetTrustResponse{
		Tenant: tenantName(t.Name()), TenantId: t.ID().String(), TrustBundle: trust.Bundle, Certificate: trust.Certificate,
		LogKey: trust.LogKey, LogCertificate: trust.LogCertificate, TrustTransitions: trust.Transitions, ServerVersion: p.s.version, Development: p.s.development,
	}
	for _, id := range trust.Roots {
		out.RootKeyIds = append(out.RootKeyIds, id[:])
	}
	view := t.IdentityView()
	add := func(names []string, guest bool) {
		for _, name := range names {
			cfg, ok := p.s.verifier.Provider(name)
			if !ok {
				continue
			}
			out.IdentityProviders = append(out.IdentityProviders, &rmsv1.IdentityProvider{
				Name: name, Issuer: cfg.Issuer, ClientId: cfg.CLIClientID, Scopes: cfg.CLIScopes, Guest: guest, IdToken: cfg.Kind() == "id",
			})
		}
	}
	add(view.Providers, false)
	add(view.GuestProviders, true)
	return out, nil
}

func (p *protection) ListUsableTemplates(ctx context.Context, _ *rmsv1.ListUsableTemplatesRequest) (*rmsv1.ListUsableTemplatesResponse, error) {
	c := callOf(ctx)
	templates, err := c.tenant.UsableTemplates(ctx, c.caller)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListUsableTemplatesResponse{}
	own := c.tenant.Settings()
	for _, t := range templates {
		out.Templates = append(out.Templates, &rmsv1.UsableTemplate{
			Name: resourceName(c.tenant.Name(), "templates", t.Slug), DisplayNames: t.Names, Descriptions: t.Descriptions,
			CustodyMode: protoCustody(max(t.Custody, own.Custody)), Offline: protoOffline(t.Offline),
		})
	}
	return out, nil
}

func (p *protection) Publish(ctx context.Context, req *rmsv1.PublishRequest) (*rmsv1.PublishResponse, error) {
	c := callOf(ctx)
	in, err := publishOf(c.tenant, req)
	if err != nil {
		return nil, err
	}
	out, err := c.tenant.Publish(ctx, c.domain(nil), *in)
	if err != nil {
		return nil, err
	}
	c.recorded(out.Event)
	defer out.Clear.Zero()
	resp := &rmsv1.PublishResponse{PublishingLicense: out.PublishingLicense, Event: out.Event.String()}
	if out.License != nil {
		resp.License = protoLicense(c.tenant.Name(), out.License)
		resp.ContentKey = deliveredKey(in.To, out.Delivery.Enc, out.Delivery.Box, out.Clear)
	}
	return resp, nil
}

func publishOf(t *tenant.Tenant, req *rmsv1.PublishRequest) (*tenant.PublishRequest, error) {
	in := &tenant.PublishRequest{
		RequestID: req.GetRequestId(), Title: req.GetTitle(), AppData: req.GetPrivateMetadata(), Dry: req.GetValidateOnly(),
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, invalid("the request cannot be read")
	}
	in.Hash = sha256.Sum256(b)
	if in.To, err = recipientOf(t, req.GetDelivery()); err != nil {
		return nil, err
	}
	switch pol := req.GetPolicy().(type) {
	case *rmsv1.PublishRequest_Template:
		if pol.Template == "" {
			return nil, invalid("the template has no name")
		}
		if in.Template, err = idOf(t.Name(), "templates", pol.Template); err != nil {
			return nil, err
		}
	case *rmsv1.PublishRequest_AdHoc:
		if in.AdHoc, err = adHocOf(pol.AdHoc); err != nil {
			return nil, err
		}
	}
	if in.NotAfter, err = timeOf(req.GetExpireTime()); err != nil {
		return nil, err
	}
	if req.GetOwner() != "" {
		if in.Owner, err = vocab.ParsePrincipal(req.GetOwner()); err != nil {
			return nil, invalid("%s", err)
		}
	}
	for _, name := range req.GetParentLicenses() {
		id, err := contentIDOf(t.Name(), name)
		if err != nil {
			return nil, err
		}
		in.Parents = append(in.Parents, id)
	}
	return in, nil
}

// recipientOf reads how the caller wants the key.
func recipientOf(t *tenant.Tenant, d *rmsv1.KeyDelivery) (tenant.Recipient, error) {
	switch how := d.GetHow().(type) {
	case *rmsv1.KeyDelivery_Hpke:
		kem := how.Hpke.GetKem()
		if kem > 0xffff {
			return tenant.Recipient{}, vocab.Errorf(vocab.ReasonSuiteUnsupported, "there is no such KEM")
		}
		r, err := license.ParseRecipient(license.KEM(kem), how.Hpke.GetPublicKey(), t.AllowedKEMs())
		return tenant.Recipient{Sealed: r}, err
	case *rmsv1.KeyDelivery_Clear:
		return tenant.Recipient{}, nil
	}
	return tenant.Recipient{}, invalid("delivery must say how the content key is wanted")
}

func deliveredKey(to tenant.Recipient, enc, box []byte, clear *vocab.Secret) *rmsv1.DeliveredKey {
	if to.Sealed == nil {
		// The one place where a content key leaves in the clear: the tenant
		// allowed it, and the connection is the service's own.
		return &rmsv1.DeliveredKey{How: &rmsv1.DeliveredKey_Clear{Clear: append([]byte(nil), clear.Reveal()...)}}
	}
	return &rmsv1.DeliveredKey{How: &rmsv1.DeliveredKey_Sealed{
		Sealed: &rmsv1.SealedKey{Kem: uint32(to.Sealed.KEM()), Enc: enc, Ciphertext: box},
	}}
}

func (p *protection) Acquire(ctx context.Context, req *rmsv1.AcquireRequest) (*rmsv1.AcquireResponse, error) {
	c := callOf(ctx)
	if req.GetDelivery() == nil {
		return nil, invalid("delivery must say how the content key is wanted")
	}
	to, err := recipientOf(c.tenant, req.GetDelivery())
	if err != nil {
		return nil, err
	}
	item := p.itemOf(ctx, c, req)
	out, err := c.tenant.Acquire(ctx, c.domain(req.GetClient()), to, []tenant.AcquireItem{item})
	if err != nil {
		return nil, err
	}
	result := out.Results[0]
	if result.Err != nil {
		return nil, result.Err
	}
	c.recorded(result.Acquired.Event)
	resp := acquireResponse(c.tenant.Name(), to, result.Acquired, out.Enc)
	resp.Certificate = out.Certificate
	return resp, nil
}

func (p *protection) BatchAcquire(ctx context.Context, req *rmsv1.BatchAcquireRequest) (*rmsv1.BatchAcquireResponse, error) {
	c := callOf(ctx)
	if len(req.GetItems()) > maxBatch || proto.Size(req) > maxBatchBytes {
		return nil, vocab.Errorf(vocab.ReasonBatchTooLarge, "a batch holds at most %d items and %d MiB", maxBatch, maxBatchBytes>>20).
			WithNext("Send several batches")
	}
	to, err := recipientOf(c.tenant, req.GetDelivery())
	if err != nil {
		return nil, err
	}
	items := make([]tenant.AcquireItem, len(req.GetItems()))
	for i, r := range req.GetItems() {
		items[i] = p.itemOf(ctx, c, r)
	}
	out, err := c.tenant.Acquire(ctx, c.domain(nil), to, items)
	if err != nil {
		return nil, err
	}
	if c.event = out.Event(); c.event.IsZero() {
		// Nothing in the batch had a meaning; that it came is recorded.
		if c.event, err = c.tenant.RecordRefusal(ctx, c.caller, c.method, vocab.ReasonRequestInvalid); err != nil {
			return nil, err
		}
	}
	resp := &rmsv1.BatchAcquireResponse{Certificate: out.Certificate, Enc: out.Enc}
	for _, r := range out.Results {
		result := &rmsv1.BatchAcquireResponse_Result{}
		if r.Err != nil {
			result.Outcome = &rmsv1.BatchAcquireResponse_Result_Refused{Refused: statusOf(r.Err)}
		} else {
			result.Outcome = &rmsv1.BatchAcquireResponse_Result_Acquired{Acquired: acquireResponse(c.tenant.Name(), to, r.Acquired, nil)}
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}

// itemOf reads one item; what is wrong with it is the item's own outcome.
func (p *protection) itemOf(ctx context.Context, c *call, req *rmsv1.AcquireRequest) tenant.AcquireItem {
	item := tenant.AcquireItem{
		PublishingLicense: req.GetPublishingLicense(), Right: rightOf(req.GetRight()), Reason: req.GetReason(),
		Client: clientText(req.GetClient()), Store: req.GetStore(),
	}
	if req.GetLicense() != "" {
		item.Content, item.Err = contentIDOf(c.tenant.Name(), req.GetLicense())
	}
	if item.Err == nil && req.GetRecovery() != "" {
		item.Recovery, item.Err = operationIDOf(c.tenant.Name(), req.GetRecovery())
	}
	if item.Err == nil && req.GetSubjectToken() != "" {
		item.Subject, item.Err = p.subject(ctx, c, req.GetSubjectToken())
	}
	return item
}

// subject verifies the token of the person a service opens for.
func (p *protection) subject(ctx context.Context, c *call, token string) (*vocab.Identity, error) {
	if c.caller.Service == "" {
		return nil, vocab.Errorf(vocab.ReasonRoleRequired, "only a service may act for somebody else")
	}
	id, err := p.s.verifier.BoundToken(ctx, c.tenant.IdentityView(), token, nil)
	if err != nil {
		return nil, err
	}
	if id.Service != "" {
		return nil, vocab.Errorf(vocab.ReasonTokenInvalid, "a subject token must be a person's")
	}
	return id, c.tenant.CheckTokenAge(id, p.s.now())
}

func acquireResponse(tenantID string, to tenant.Recipient, a *tenant.Acquired, enc []byte) *rmsv1.AcquireResponse {
	defer a.Clear.Zero()
	return &rmsv1.AcquireResponse{
		UseLicense: a.UseLicense, Rights: protoRights(a.Rights), ExpireTime: protoTime(a.NotAfter),
		ContentKey: deliveredKey(to, enc, a.Box, a.Clear), Event: a.Event.String(), CustodyMode: protoCustody(a.Custody),
		License: resourceName(tenantID, "licenses", a.Content.String()),
	}
}

// clientText is what a client says of itself, in one text.
func clientText(c *rmsv1.ClientInfo) string {
	return strings.TrimSpace(c.GetProduct() + " " + c.GetPlatform())
}

// domain is the call as package tenant knows it.
func (c *call) domain(client *rmsv1.ClientInfo) tenant.Call {
	return tenant.Call{Caller: c.caller, Method: c.method, Client: clientText(client)}
}
