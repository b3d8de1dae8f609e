package server

import (
	"context"

	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// people serves PeopleService.
type people struct {
	rmsv1.UnimplementedPeopleServiceServer
	s *Server
}

// Names of resources.

func groupAddressOf(c *call, name string) (string, error) {
	id, err := restOf(c.tenant.Name(), "groups", name)
	if err != nil {
		return "", err
	}
	return canonicalAddress(id)
}

func canonicalAddress(s string) (string, error) {
	address, err := vocab.CanonicalAddress(s)
	if err != nil {
		return "", invalid("%s", err)
	}
	return address, nil
}

func roleOf(c *call, name string) (vocab.Role, error) {
	id, err := idOf(c.tenant.Name(), "roles", name)
	if err != nil {
		return "", err
	}
	role, err := vocab.ParseRole(id)
	if err != nil {
		return "", invalid("%s", err)
	}
	return role, nil
}

func principalNamed(c *call, name string) (vocab.Principal, error) {
	id, err := restOf(c.tenant.Name(), "principals", name)
	if err != nil {
		return vocab.Principal{}, err
	}
	return principalOf(id)
}

func principalOf(s string) (vocab.Principal, error) {
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		return vocab.Principal{}, invalid("%s", err)
	}
	return p, nil
}

func (p *people) GetGroup(ctx context.Context, req *rmsv1.GetGroupRequest) (*rmsv1.Group, error) {
	c := callOf(ctx)
	address, err := groupAddressOf(c, req.GetName())
	if err != nil {
		return nil, err
	}
	g, err := c.tenant.GetGroup(ctx, address)
	if err != nil {
		return nil, err
	}
	return protoGroup(c.tenant.Name(), g), nil
}

func (p *people) ListGroups(ctx context.Context, req *rmsv1.ListGroupsRequest) (*rmsv1.ListGroupsResponse, error) {
	c := callOf(ctx)
	var member vocab.Principal
	var err error
	if req.GetMember() != "" {
		if member, err = principalOf(req.GetMember()); err != nil {
			return nil, err
		}
	}
	cursor, err := p.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	page, more, err := c.tenant.ListGroups(ctx, member, string(cursor), pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListGroupsResponse{}
	for _, g := range page {
		out.Groups = append(out.Groups, protoGroup(c.tenant.Name(), g))
	}
	if more {
		out.NextPageToken = p.s.pages.next(c, req, []byte(page[len(page)-1].Address))
	}
	return out, nil
}

func (p *people) CreateGroup(ctx context.Context, req *rmsv1.CreateGroupRequest) (*rmsv1.GroupChange, error) {
	address, err := canonicalAddress(req.GetGroupId())
	if err != nil {
		return nil, err
	}
	return p.writeGroup(ctx, address, req.GetGroup(), 0, false, req.GetValidateOnly())
}

func (p *people) UpdateGroup(ctx context.Context, req *rmsv1.UpdateGroupRequest) (*rmsv1.GroupChange, error) {
	address, err := groupAddressOf(callOf(ctx), req.GetGroup().GetName())
	if err != nil {
		return nil, err
	}
	want, anyRevision, err := revisionOf(req.GetGroup().GetEtag())
	if err != nil {
		return nil, err
	}
	if want == 0 && !anyRevision {
		return nil, invalid("etag 0 is no group's")
	}
	return p.writeGroup(ctx, address, req.GetGroup(), want, anyRevision, req.GetValidateOnly())
}

func (p *people) writeGroup(ctx context.Context, address string, in *rmsv1.Group, want uint32, anyRevision, dry bool) (*rmsv1.GroupChange, error) {
	c := callOf(ctx)
	next := record.Group{Description: in.GetDescription()}
	var err error
	if next.Members, err = principalsOf(in.GetMembers()); err != nil {
		return nil, err
	}
	change, event, err := c.tenant.WriteGroup(ctx, c.domain(nil), address, next, want, anyRevision, dry)
	return groupChanged(c, change, event, err)
}

func (p *people) DeleteGroup(ctx context.Context, req *rmsv1.DeleteGroupRequest) (*rmsv1.GroupChange, error) {
	c := callOf(ctx)
	address, err := groupAddressOf(c, req.GetName())
	if err != nil {
		return nil, err
	}
	want, anyRevision, err := revisionOf(req.GetEtag())
	if err != nil {
		return nil, err
	}
	change, event, err := c.tenant.DeleteGroup(ctx, c.domain(nil), address, want, anyRevision, req.GetValidateOnly())
	return groupChanged(c, change, event, err)
}

func groupChanged(c *call, change *tenant.GroupChange, event vocab.EventID, err error) (*rmsv1.GroupChange, error) {
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	out := &rmsv1.GroupChange{Group: protoGroup(c.tenant.Name(), &change.Group), ChangeCount: int32(change.Total)}
	for _, m := range change.Changes {
		out.Changes = append(out.Changes, &rmsv1.MembershipChange{Principal: m.Principal.String(), Joins: m.Joins, Leaves: m.Leaves})
	}
	return out, nil
}

func protoGroup(tenantID string, g *tenant.Group) *rmsv1.Group {
	return &rmsv1.Group{
		Name: resourceName(tenantID, "groups", g.Address), Members: protoPrincipals(g.Members), Description: g.Description,
		Revision: g.Revision, Author: g.Author, UpdateTime: protoTime(g.Time), Within: g.Within, Etag: etag(g.Revision),
	}
}

func (p *people) GetRole(ctx context.Context, req *rmsv1.GetRoleRequest) (*rmsv1.RoleHolders, error) {
	c := callOf(ctx)
	role, err := roleOf(c, req.GetName())
	if err != nil {
		return nil, err
	}
	h, err := c.tenant.GetRole(ctx, role)
	if err != nil {
		return nil, err
	}
	return protoRoleHolders(c.tenant.Name(), h), nil
}

func (p *people) ListRoles(ctx context.Context, _ *rmsv1.ListRolesRequest) (*rmsv1.ListRolesResponse, error) {
	c := callOf(ctx)
	out := &rmsv1.ListRolesResponse{}
	for _, role := range vocab.Roles() {
		h, err := c.tenant.GetRole(ctx, role)
		if err != nil {
			return nil, err
		}
		out.Roles = append(out.Roles, protoRoleHolders(c.tenant.Name(), h))
	}
	return out, nil
}

func (p *people) GrantRole(ctx context.Context, req *rmsv1.GrantRoleRequest) (*rmsv1.RoleChange, error) {
	return changeRole(ctx, req, (*tenant.Tenant).GrantRole)
}

func (p *people) RevokeRole(ctx context.Context, req *rmsv1.RevokeRoleRequest) (*rmsv1.RoleChange, error) {
	return changeRole(ctx, req, (*tenant.Tenant).RevokeRole)
}

func changeRole(ctx context.Context, req interface {
	GetName() string
	GetPrincipal() string
}, change func(*tenant.Tenant, context.Context, tenant.Call, vocab.Role, vocab.Principal) (*tenant.RoleChange, vocab.EventID, error),
) (*rmsv1.RoleChange, error) {
	c := callOf(ctx)
	role, err := roleOf(c, req.GetName())
	if err != nil {
		return nil, err
	}
	who, err := principalOf(req.GetPrincipal())
	if err != nil {
		return nil, err
	}
	out, event, err := change(c.tenant, ctx, c.domain(nil), role, who)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return &rmsv1.RoleChange{Role: protoRoleHolders(c.tenant.Name(), &out.RoleHolders), TakenOver: protoPrincipals(out.TakenOver)}, nil
}

func protoRoleHolders(tenantID string, h *tenant.RoleHolders) *rmsv1.RoleHolders {
	out := &rmsv1.RoleHolders{
		Name: resourceName(tenantID, "roles", string(h.Role)), Role: protoRole(h.Role), Holders: protoPrincipals(h.Holders),
		Source: rmsv1.RoleHolders_SOURCE_FILE, Revision: h.Revision, Author: h.Author, UpdateTime: protoTime(h.Time),
	}
	if h.Stored {
		out.Source = rmsv1.RoleHolders_SOURCE_STORE
	}
	return out
}

func (p *people) GetPrincipal(ctx context.Context, req *rmsv1.GetPrincipalRequest) (*rmsv1.Principal, error) {
	c := callOf(ctx)
	who, err := principalNamed(c, req.GetName())
	if err != nil {
		return nil, err
	}
	out, err := c.tenant.GetPrincipal(ctx, who)
	if err != nil {
		return nil, err
	}
	return protoPrincipal(c.tenant.Name(), out), nil
}

func (p *people) ListDisabledPrincipals(ctx context.Context, req *rmsv1.ListDisabledPrincipalsRequest) (*rmsv1.ListDisabledPrincipalsResponse, error) {
	c := callOf(ctx)
	cursor, err := p.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	page, more, err := c.tenant.ListDisabled(ctx, string(cursor), pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListDisabledPrincipalsResponse{}
	for _, one := range page {
		out.Principals = append(out.Principals, protoPrincipal(c.tenant.Name(), one))
	}
	if more {
		out.NextPageToken = p.s.pages.next(c, req, []byte(page[len(page)-1].Principal.String()))
	}
	return out, nil
}

func (p *people) DisablePrincipal(ctx context.Context, req *rmsv1.DisablePrincipalRequest) (*rmsv1.DisablePrincipalResponse, error) {
	c := callOf(ctx)
	who, err := principalNamed(c, req.GetName())
	if err != nil {
		return nil, err
	}
	out, event, err := c.tenant.DisablePrincipal(ctx, c.domain(nil), who, req.GetReason())
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	uses, total, err := c.tenant.UsesOf(ctx, who, maxCachedUses)
	if err != nil {
		return nil, err
	}
	resp := &rmsv1.DisablePrincipalResponse{Principal: protoPrincipal(c.tenant.Name(), out), CachedUseCount: int32(total)}
	for _, u := range uses {
		resp.CachedUses = append(resp.CachedUses, &rmsv1.PrincipalUse{
			License: resourceName(c.tenant.Name(), "licenses", u.Content.String()), ExpireTime: protoTime(u.NotAfter),
		})
	}
	return resp, nil
}

func (p *people) EnablePrincipal(ctx context.Context, req *rmsv1.EnablePrincipalRequest) (*rmsv1.Principal, error) {
	c := callOf(ctx)
	who, err := principalNamed(c, req.GetName())
	if err != nil {
		return nil, err
	}
	out, event, err := c.tenant.EnablePrincipal(ctx, c.domain(nil), who)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoPrincipal(c.tenant.Name(), out), nil
}

func protoPrincipal(tenantID string, p *tenant.Principal) *rmsv1.Principal {
	out := &rmsv1.Principal{
		Name: resourceName(tenantID, "principals", p.Principal.String()), Principal: p.Principal.String(),
		State: rmsv1.Principal_STATE_ENABLED, Groups: p.Groups,
	}
	if d := p.Disabled; d != nil {
		out.State, out.Reason, out.DisabledBy, out.DisableTime = rmsv1.Principal_STATE_DISABLED, d.Reason, d.By, protoTime(p.Time)
	}
	for _, role := range p.Roles {
		out.Roles = append(out.Roles, protoRole(role))
	}
	return out
}
