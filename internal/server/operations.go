package server

import (
	"context"
	"strings"

	"google.golang.org/grpc"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// operations serves OperationService.
type operations struct {
	rmsv1.UnimplementedOperationServiceServer
	s *Server
}

func operationIDOf(tenant, name string) (vocab.OperationID, error) {
	s, err := idOf(tenant, "operations", name)
	if err != nil {
		return vocab.OperationID{}, err
	}
	id, err := vocab.ParseOperationID(s)
	if err != nil {
		return vocab.OperationID{}, invalid("%s", err)
	}
	return id, nil
}

func (o *operations) GetOperation(ctx context.Context, req *rmsv1.GetOperationRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	id, err := operationIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, err := c.tenant.GetOperation(ctx, c.caller, id)
	if err != nil {
		return nil, err
	}
	return protoOperation(ctx, c.tenant, v, true)
}

func (o *operations) ListOperations(ctx context.Context, req *rmsv1.ListOperationsRequest) (*rmsv1.ListOperationsResponse, error) {
	c := callOf(ctx)
	cursor, err := o.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	var before vocab.OperationID
	copy(before[:], cursor)
	f := tenant.OperationFilter{State: operation.State(req.GetState()), Kind: operation.Kind(req.GetKind())}
	page, next, err := c.tenant.ListOperations(ctx, c.caller, f, before, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListOperationsResponse{}
	for _, v := range page {
		m, err := protoOperation(ctx, c.tenant, v, false)
		if err != nil {
			return nil, err
		}
		out.Operations = append(out.Operations, m)
	}
	if n := fitting(out.Operations); n < len(out.Operations) {
		out.Operations, next = out.Operations[:n], page[n-1].ID
	}
	if !next.IsZero() {
		out.NextPageToken = o.s.pages.next(c, req, next[:])
	}
	return out, nil
}

func (o *operations) ApproveOperation(ctx context.Context, req *rmsv1.ApproveOperationRequest) (*rmsv1.Operation, error) {
	return o.decide(ctx, req.GetName(), func(c *call, id vocab.OperationID) (*tenant.OperationView, vocab.EventID, error) {
		return c.tenant.ApproveSigned(ctx, c.domain(nil), id, [32]byte(req.GetParamsSha256()), req.GetSignature())
	})
}

func (o *operations) RejectOperation(ctx context.Context, req *rmsv1.RejectOperationRequest) (*rmsv1.Operation, error) {
	return o.decide(ctx, req.GetName(), func(c *call, id vocab.OperationID) (*tenant.OperationView, vocab.EventID, error) {
		return c.tenant.RejectOperation(ctx, c.domain(nil), id, req.GetReason())
	})
}

func (o *operations) PauseOperation(ctx context.Context, req *rmsv1.PauseOperationRequest) (*rmsv1.Operation, error) {
	return o.decide(ctx, req.GetName(), func(c *call, id vocab.OperationID) (*tenant.OperationView, vocab.EventID, error) {
		return c.tenant.PauseOperation(ctx, c.domain(nil), id)
	})
}

func (o *operations) ResumeOperation(ctx context.Context, req *rmsv1.ResumeOperationRequest) (*rmsv1.Operation, error) {
	return o.decide(ctx, req.GetName(), func(c *call, id vocab.OperationID) (*tenant.OperationView, vocab.EventID, error) {
		return c.tenant.ResumeOperation(ctx, c.domain(nil), id)
	})
}

func (o *operations) CancelOperation(ctx context.Context, req *rmsv1.CancelOperationRequest) (*rmsv1.Operation, error) {
	return o.decide(ctx, req.GetName(), func(c *call, id vocab.OperationID) (*tenant.OperationView, vocab.EventID, error) {
		return c.tenant.CancelOperation(ctx, c.domain(nil), id, req.GetReason())
	})
}

// decide passes on what a person decides about an operation.
func (o *operations) decide(ctx context.Context, name string, do func(*call, vocab.OperationID) (*tenant.OperationView, vocab.EventID, error)) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	id, err := operationIDOf(c.tenant.Name(), name)
	if err != nil {
		return nil, err
	}
	v, event, err := do(c, id)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoOperation(ctx, c.tenant, v, false)
}

func (o *operations) WatchOperation(req *rmsv1.WatchOperationRequest, stream grpc.ServerStreamingServer[rmsv1.WatchOperationResponse]) error {
	ctx := stream.Context()
	c := callOf(ctx)
	id, err := operationIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return err
	}
	ctx, stop := o.s.whileServing(ctx)
	defer stop()
	err = c.tenant.WatchOperation(ctx, c.caller, id, func(v *tenant.OperationView) error {
		m, err := protoOperation(ctx, c.tenant, v, false)
		if err != nil {
			return err
		}
		return stream.Send(&rmsv1.WatchOperationResponse{Operation: m})
	})
	if err != nil && o.s.serving.Err() != nil {
		return vocab.Errorf(vocab.ReasonOverloaded, "the service is stopping").WithNext("Connect again: the operation goes on when it is back")
	}
	return err
}

// recoveries serves RecoveryService.
type recoveries struct {
	rmsv1.UnimplementedRecoveryServiceServer
	s *Server
}

func (r *recoveries) RequestRecovery(ctx context.Context, req *rmsv1.RequestRecoveryRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	var scope tenant.RecoveryScope
	var err error
	switch s := req.GetScope().(type) {
	case *rmsv1.RequestRecoveryRequest_License:
		scope.License, err = contentIDOf(c.tenant.Name(), s.License)
	case *rmsv1.RequestRecoveryRequest_Owner:
		if scope.Owner, err = vocab.ParsePrincipal(s.Owner); err != nil {
			err = invalid("%s", err)
		}
	case *rmsv1.RequestRecoveryRequest_Template:
		if scope.Template, err = idOf(c.tenant.Name(), "templates", s.Template); err == nil && !vocab.ValidSlug(scope.Template) {
			err = invalid("%q is not the name of a template", s.Template)
		}
	}
	if err != nil {
		return nil, err
	}
	until, err := timeOf(req.GetUntil())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.RequestRecovery(ctx, c.domain(nil), scope, until, req.GetReason(), req.GetTicket(), req.GetNotify())
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoOperation(ctx, c.tenant, v, false)
}

// protoRole translates a role: policy-admin is the contract's ROLE_POLICY_ADMIN.
func protoRole(r vocab.Role) rmsv1.Role {
	return rmsv1.Role(rmsv1.Role_value["ROLE_"+strings.ToUpper(strings.ReplaceAll(string(r), "-", "_"))])
}

func protoPerson(p *operation.Person) *rmsv1.Issuer {
	return &rmsv1.Issuer{Issuer: p.Issuer, Subject: p.Subject, Address: p.Name}
}

// protoOperation shows an operation; whole: with a template that waits, which
// may be large.
func protoOperation(ctx context.Context, t *tenant.Tenant, v *tenant.OperationView, whole bool) (*rmsv1.Operation, error) {
	hash := v.ParamsHash()
	out := &rmsv1.Operation{
		Name: resourceName(t.Name(), "operations", v.ID.String()), Kind: rmsv1.Operation_Kind(v.Kind), State: rmsv1.Operation_State(v.State),
		NeededApprovals: int32(v.Needed), ParamsSha256: hash[:], ExpireTime: protoTime(operation.Time(v.Expires)), Event: v.Event.String(),
		Etag: etag(v.Revision), Requester: v.Requester.Name, RequesterIdentity: protoPerson(&v.Requester), Reason: v.Reason, Ticket: v.Ticket,
		CreateTime: protoTime(operation.Time(v.Created)), EndTime: protoTime(operation.Time(v.Ended)), Failure: string(v.Why), Message: v.Message,
	}
	if v.Result != "" {
		out.Message = v.Result
	}
	if p := v.Progress; p.Total+p.Done+p.Failures > 0 {
		out.Progress = &rmsv1.Operation_Progress{Total: int64(max(p.Total, p.Done+p.Failures)), Done: int64(p.Done), Failed: int64(p.Failures)}
	}
	for _, f := range v.Progress.Failed {
		out.Errors = append(out.Errors, &rmsv1.Operation_ItemError{
			License: resourceName(t.Name(), "licenses", f.License.String()), Reason: string(f.Reason),
		})
	}
	for i := range v.Approvals {
		a := &v.Approvals[i]
		out.Approvals = append(out.Approvals, &rmsv1.Operation_Approval{
			Approver: a.Name, Identity: protoPerson(&a.Person), ApproveTime: protoTime(operation.Time(a.At)), Event: a.Event.String(),
		})
	}
	if v.Needed > 0 {
		for _, r := range tenant.Approvers(v.Kind) {
			out.ApproverRoles = append(out.ApproverRoles, protoRole(r))
		}
	}
	protoDual(v, out, whole)
	if v.ID.IsZero() {
		out.Name, out.Event, out.Etag = "", "", "" // only checked
	}
	if v.Waiting != nil {
		out.Waiting = string(vocab.ReasonOf(v.Waiting))
	}
	return out, protoParams(ctx, t, v, out, whole)
}

// protoParams shows what an operation asks for.
func protoParams(ctx context.Context, t *tenant.Tenant, v *tenant.OperationView, out *rmsv1.Operation, whole bool) error {
	license := func(id vocab.ContentID) string { return resourceName(t.Name(), "licenses", id.String()) }
	template := func(slug string) string { return resourceName(t.Name(), "templates", slug) }
	switch v.Kind {
	case operation.RoleGrant:
		p, err := operation.Params[operation.RoleGrantParams](v.Operation)
		if err != nil {
			return err
		}
		out.Params = &rmsv1.Operation_RoleGrant_{RoleGrant: &rmsv1.Operation_RoleGrant{Role: protoRole(vocab.Role(p.Role)), Principal: p.Principal}}
	case operation.TemplateUpdate:
		p, draft, err := tenant.DraftOf(v.Operation)
		if err != nil {
			return err
		}
		m := &rmsv1.Operation_TemplateUpdate{Template: template(p.Slug), BaseRevision: p.Base}
		if whole {
			m.Draft = protoTemplate(t.Name(), draft)
		}
		out.Params = &rmsv1.Operation_TemplateUpdate_{TemplateUpdate: m}
	case operation.LicenseUpdate:
		p, pol, err := tenant.LicenseOf(v.Operation)
		if err != nil {
			return err
		}
		m := &rmsv1.Operation_LicenseUpdate{
			License: license(p.License), BaseRevision: p.Base, Owner: pol.Owner.String(), ContentExpireTime: protoTime(pol.NotAfter),
			Title: p.Title, Contact: p.Contact,
		}
		if pol.AdHoc != nil {
			m.AdHoc = protoAdHoc(pol.AdHoc)
		}
		out.Params = &rmsv1.Operation_LicenseUpdate_{LicenseUpdate: m}
	case operation.Recovery:
		p, err := operation.Params[operation.RecoveryParams](v.Operation)
		if err != nil {
			return err
		}
		m := &rmsv1.Operation_Recovery{Until: protoTime(p.End()), Notify: p.Notify != 0}
		switch {
		case len(p.License) == 16:
			m.Scope = &rmsv1.Operation_Recovery_License{License: license(vocab.ContentID(p.License))}
		case p.Owner != "":
			m.Scope = &rmsv1.Operation_Recovery_Owner{Owner: p.Owner}
		case len(p.Template) == 16:
			m.Scope = &rmsv1.Operation_Recovery_Template{Template: template(t.TemplateName(ctx, vocab.TemplateUID(p.Template)))}
		}
		out.Params = &rmsv1.Operation_Recovery_{Recovery: m}
	case operation.Transfer:
		p, err := operation.Params[operation.TransferParams](v.Operation)
		if err != nil {
			return err
		}
		out.Params = &rmsv1.Operation_Transfer_{Transfer: &rmsv1.Operation_Transfer{From: p.From, To: p.To}}
	case operation.Reseal:
		p, err := operation.Params[operation.ResealParams](v.Operation)
		if err != nil {
			return err
		}
		out.Params = &rmsv1.Operation_Reseal_{Reseal: protoReseal(ctx, t, p)}
	case operation.Rewrap:
		p, err := operation.Params[operation.RewrapParams](v.Operation)
		if err != nil {
			return err
		}
		out.Params = &rmsv1.Operation_Rewrap_{Rewrap: &rmsv1.Operation_Rewrap{MaxRate: int32(p.MaxRate)}}
	case operation.Release:
		p, err := protoRelease(v.Operation)
		if err != nil {
			return err
		}
		out.Params = p
	case operation.KeyDestroy:
		m, err := protoKeyDestroy(t.Name(), v.Operation)
		if err != nil {
			return err
		}
		out.Params = &rmsv1.Operation_KeyDestroy_{KeyDestroy: m}
	case operation.TenantExport:
		m, err := protoExport(t, v.Operation)
		if err != nil {
			return err
		}
		out.Params = m
	default:
		return protoDualParams(t, v, out)
	}
	return nil
}
