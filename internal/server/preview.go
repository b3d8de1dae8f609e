package server

import (
	"context"

	"github.com/openrms/rms/internal/policy"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (p *policies) PreviewTemplate(ctx context.Context, req *rmsv1.PreviewTemplateRequest) (*rmsv1.PreviewTemplateResponse, error) {
	c := callOf(ctx)
	slug, err := p.slug(c, req.GetTemplate().GetName())
	if err != nil {
		return nil, err
	}
	next, err := templateOf(req.GetTemplate())
	if err != nil {
		return nil, err
	}
	preview, err := c.tenant.PreviewTemplate(ctx, slug, next)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.PreviewTemplateResponse{
		Revision: 1, ChangeCount: int32(len(preview.Changes)), Fields: preview.Fields, Warnings: preview.Warnings,
	}
	if now := preview.Current; now != nil {
		head := *now
		head.Grants = nil
		out.Current = protoTemplate(c.tenant.Name(), &head)
		out.Current.LicenseCount = preview.Followers
		out.Revision = now.Revision
		if !preview.Unchanged() {
			out.Revision++
		}
	}
	if out.NeedsApproval, err = c.tenant.NeedsApproval(ctx, c.caller, slug, next); err != nil {
		return nil, err
	}
	for _, change := range preview.Changes {
		out.Changes = append(out.Changes, protoChange(change))
	}
	out.Changes = out.Changes[:fitting(out.Changes)]
	return out, nil
}

// maxShownGrants bounds the grants of one principal in an answer.
const maxShownGrants = 100

func protoChange(c policy.Change) *rmsv1.TemplateChange {
	return &rmsv1.TemplateChange{
		Principal: c.To.String(), Gains: protoRights(c.Gains), Loses: protoRights(c.Loses), More: c.More, Less: c.Less,
		Before: protoGrants(c.Before[:min(len(c.Before), maxShownGrants)]), After: protoGrants(c.After[:min(len(c.After), maxShownGrants)]),
	}
}
