package server

import (
	"context"

	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Revocations of more than one license, of LicenseService.

func (l *licenses) RevokeLicenses(ctx context.Context, req *rmsv1.RevokeLicensesRequest) (*rmsv1.RevokeLicensesResponse, error) {
	c := callOf(ctx)
	in, err := revocationOf(c.tenant.Name(), req)
	if err != nil {
		return nil, err
	}
	if in.ByOwner = !c.byRole; in.ByOwner {
		if in.Rule.Owner.IsZero() || c.owns(in.Rule.Owner) != nil {
			return nil, vocab.Errorf(vocab.ReasonRoleRequired, "revoking other people's licenses needs the role policy-admin").
				WithNext("Name yourself as the owner to revoke your own")
		}
	}
	v, cover, event, err := c.tenant.RevokeLicenses(ctx, c.domain(nil), *in, c.owns)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	out := &rmsv1.RevokeLicensesResponse{
		Revocation: protoRevocation(c.tenant.Name(), v), LicenseCount: cover.Licenses, MoreLicenses: cover.MoreLicenses,
		CachedUseCount: int32(cover.UseCount), MoreCachedUses: cover.MoreUses,
	}
	for _, u := range cover.Uses {
		out.CachedUses = append(out.CachedUses, protoUse(c.tenant.Name(), u.Content, u.Use))
	}
	return out, nil
}

func revocationOf(tenantID string, req *rmsv1.RevokeLicensesRequest) (*tenant.RevocationRequest, error) {
	in := &tenant.RevocationRequest{Reason: req.GetReason(), Dry: req.GetValidateOnly()}
	for _, p := range []struct {
		text string
		into *vocab.Principal
	}{{req.GetPrincipal(), &in.Rule.Principal}, {req.GetOwner(), &in.Rule.Owner}} {
		if p.text == "" {
			continue
		}
		var err error
		if *p.into, err = vocab.ParsePrincipal(p.text); err != nil {
			return nil, invalid("%s", err)
		}
	}
	var err error
	if req.GetTemplate() != "" {
		if in.Template, err = idOf(tenantID, "templates", req.GetTemplate()); err != nil {
			return nil, err
		}
	}
	if in.Rule.From, err = timeOf(req.GetFromTime()); err != nil {
		return nil, err
	}
	if in.Rule.Until, err = timeOf(req.GetUntilTime()); err != nil {
		return nil, err
	}
	if req.GetLineage() != "" {
		if in.Rule.Lineage, err = contentIDOf(tenantID, req.GetLineage()); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func protoRevocation(t string, v *tenant.RevocationView) *rmsv1.RevocationRule {
	out := &rmsv1.RevocationRule{
		Name: revocationName(t, v.ID), FromTime: protoTime(v.Rule.From), UntilTime: protoTime(v.Rule.Until),
		CreateTime: protoTime(v.Made), CreatedBy: v.By, Reason: v.Reason, ByOwner: v.ByOwner,
	}
	if !v.Rule.Principal.IsZero() {
		out.Principal = v.Rule.Principal.String()
	}
	if !v.Rule.Owner.IsZero() {
		out.Owner = v.Rule.Owner.String()
	}
	if v.TemplateSlug != "" {
		out.Template = resourceName(t, "templates", v.TemplateSlug)
	}
	if !v.Rule.Lineage.IsZero() {
		out.Lineage = resourceName(t, "licenses", v.Rule.Lineage.String())
	}
	return out
}

func revocationName(t string, id vocab.EventID) string {
	return resourceName(t, "revocations", id.String())
}

func protoUse(t string, c vocab.ContentID, u record.Use) *rmsv1.CachedUse {
	return &rmsv1.CachedUse{Principal: u.Principal, ExpireTime: protoTime(u.NotAfter), License: resourceName(t, "licenses", c.String())}
}

func revocationIDOf(tenantID, name string) (vocab.EventID, error) {
	s, err := idOf(tenantID, "revocations", name)
	if err != nil {
		return vocab.EventID{}, err
	}
	id, err := vocab.ParseEventID(s)
	if err != nil {
		return vocab.EventID{}, invalid("%s", err)
	}
	return id, nil
}

// ownsRevocation authorizes the caller for a revocation: by role, or as the
// owner who made it. Of one that is not there anybody else hears the same.
func (c *call) ownsRevocation(r *record.RevocationRule) error {
	if c.byRole {
		return nil // authorized by the door
	}
	if r == nil || !r.ByOwner || c.owns(r.Rule.Owner) != nil {
		return vocab.Errorf(vocab.ReasonRoleRequired, "this revocation is not yours: it needs the role policy-admin")
	}
	return nil
}

func (l *licenses) GetRevocation(ctx context.Context, req *rmsv1.GetRevocationRequest) (*rmsv1.RevocationRule, error) {
	c := callOf(ctx)
	id, err := revocationIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, err := c.tenant.GetRevocation(ctx, id, c.ownsRevocation)
	if err != nil {
		return nil, err
	}
	return protoRevocation(c.tenant.Name(), v), nil
}

func (l *licenses) ListRevocations(ctx context.Context, req *rmsv1.ListRevocationsRequest) (*rmsv1.ListRevocationsResponse, error) {
	c := callOf(ctx)
	owners, err := listedOwners(c, req.GetOwner(), "revocations")
	if err != nil {
		return nil, err
	}
	cursor, err := l.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	var before vocab.EventID
	copy(before[:], cursor)
	page, next, err := c.tenant.ListRevocations(ctx, owners, !c.byRole, before, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListRevocationsResponse{}
	for _, v := range page {
		out.Revocations = append(out.Revocations, protoRevocation(c.tenant.Name(), v))
	}
	if !next.IsZero() {
		out.NextPageToken = l.s.pages.next(c, req, next[:])
	}
	return out, nil
}

func (l *licenses) RestoreLicenses(ctx context.Context, req *rmsv1.RestoreLicensesRequest) (*rmsv1.RevocationRule, error) {
	c := callOf(ctx)
	id, err := revocationIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.RestoreLicenses(ctx, c.domain(nil), id, c.ownsRevocation)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoRevocation(c.tenant.Name(), v), nil
}
