package server

import (
	"context"
	"encoding/binary"

	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// policies serves PolicyService.
type policies struct {
	rmsv1.UnimplementedPolicyServiceServer
	s *Server
}

func (p *policies) slug(c *call, name string) (string, error) {
	slug, err := idOf(c.tenant.Name(), "templates", name)
	if err == nil && !vocab.ValidSlug(slug) {
		err = invalid("%q is not the name of a template", name)
	}
	return slug, err
}

func (p *policies) GetTemplate(ctx context.Context, req *rmsv1.GetTemplateRequest) (*rmsv1.Template, error) {
	c := callOf(ctx)
	slug, err := p.slug(c, req.GetName())
	if err != nil {
		return nil, err
	}
	t, err := c.tenant.GetTemplate(ctx, slug, req.GetRevision())
	if err != nil {
		return nil, err
	}
	out := protoTemplate(c.tenant.Name(), t)
	if out.LicenseCount, err = c.tenant.CountFollowers(ctx, t.UID); err != nil {
		return nil, err
	}
	return out, p.addFloor(ctx, c, t, out)
}

// addFloor says of a template how many licenses are kept less strictly than it
// demands, and what seals them anew.
func (p *policies) addFloor(ctx context.Context, c *call, t *policy.Template, out *rmsv1.Template) (err error) {
	if id := c.tenant.ResealOf(t.UID); !id.IsZero() {
		out.ResealOperation = resourceName(c.tenant.Name(), "operations", id.String())
	}
	out.BelowFloor, err = c.tenant.CountFloor(ctx, t.UID, t.Custody)
	return err
}

func (p *policies) ListTemplates(ctx context.Context, req *rmsv1.ListTemplatesRequest) (*rmsv1.ListTemplatesResponse, error) {
	c := callOf(ctx)
	cursor, err := p.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	page, more, err := c.tenant.ListTemplates(ctx, string(cursor), pageSize(req.GetPageSize()), req.GetShowDeleted())
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListTemplatesResponse{}
	for _, t := range page {
		out.Templates = append(out.Templates, protoTemplate(c.tenant.Name(), t))
	}
	if n := fitting(out.Templates); n < len(out.Templates) {
		out.Templates, more = out.Templates[:n], true
	}
	if more {
		out.NextPageToken = p.s.pages.next(c, req, []byte(page[len(out.Templates)-1].Slug))
	}
	return out, nil
}

func (p *policies) CreateTemplate(ctx context.Context, req *rmsv1.CreateTemplateRequest) (*rmsv1.Template, error) {
	return p.write(ctx, req.GetTemplate(), req.GetTemplateId(), 0, false, req.GetValidateOnly())
}

func (p *policies) UpdateTemplate(ctx context.Context, req *rmsv1.UpdateTemplateRequest) (*rmsv1.Template, error) {
	slug, err := p.slug(callOf(ctx), req.GetTemplate().GetName())
	if err != nil {
		return nil, err
	}
	want, anyRevision, err := revisionOf(req.GetTemplate().GetEtag())
	if err != nil {
		return nil, err
	}
	if want == 0 && !anyRevision {
		return nil, invalid("etag 0 is no template's")
	}
	return p.write(ctx, req.GetTemplate(), slug, want, anyRevision, req.GetValidateOnly())
}

func (p *policies) write(ctx context.Context, in *rmsv1.Template, slug string, want uint32, anyRevision, dry bool) (*rmsv1.Template, error) {
	c := callOf(ctx)
	next, err := templateOf(in)
	if err != nil {
		return nil, err
	}
	t, event, err := c.tenant.WriteTemplate(ctx, c.domain(nil), slug, next, want, anyRevision, dry)
	out, err := p.answer(ctx, c, t, event, err)
	if err == nil && dry {
		out.NeedsApproval, err = c.tenant.NeedsApproval(ctx, c.caller, slug, next)
	}
	return out, err
}

func (p *policies) answer(ctx context.Context, c *call, t *policy.Template, event vocab.EventID, err error) (*rmsv1.Template, error) {
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	out := protoTemplate(c.tenant.Name(), t)
	return out, p.addFloor(ctx, c, t, out)
}

func (p *policies) DeleteTemplate(ctx context.Context, req *rmsv1.DeleteTemplateRequest) (*rmsv1.Template, error) {
	c := callOf(ctx)
	slug, err := p.slug(c, req.GetName())
	if err != nil {
		return nil, err
	}
	want, anyRevision, err := revisionOf(req.GetEtag())
	if err != nil {
		return nil, err
	}
	t, event, err := c.tenant.DeleteTemplate(ctx, c.domain(nil), slug, want, anyRevision, req.GetForce())
	return p.answer(ctx, c, t, event, err)
}

func (p *policies) UndeleteTemplate(ctx context.Context, req *rmsv1.UndeleteTemplateRequest) (*rmsv1.Template, error) {
	c := callOf(ctx)
	slug, err := p.slug(c, req.GetName())
	if err != nil {
		return nil, err
	}
	t, event, err := c.tenant.UndeleteTemplate(ctx, c.domain(nil), slug)
	return p.answer(ctx, c, t, event, err)
}

func (p *policies) ListTemplateRevisions(ctx context.Context, req *rmsv1.ListTemplateRevisionsRequest) (*rmsv1.ListTemplateRevisionsResponse, error) {
	c := callOf(ctx)
	slug, err := p.slug(c, req.GetName())
	if err != nil {
		return nil, err
	}
	cursor, err := p.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	var before uint32
	if len(cursor) == 4 {
		before = binary.BigEndian.Uint32(cursor)
	}
	page, err := c.tenant.TemplateRevisions(ctx, slug, before, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListTemplateRevisionsResponse{}
	for _, t := range page {
		out.Revisions = append(out.Revisions, protoTemplate(c.tenant.Name(), t))
	}
	out.Revisions = out.Revisions[:fitting(out.Revisions)]
	if n := len(out.Revisions); n > 0 && page[n-1].Revision > 1 {
		out.NextPageToken = p.s.pages.next(c, req, binary.BigEndian.AppendUint32(nil, page[n-1].Revision))
	}
	return out, nil
}

func (p *policies) GetSettings(ctx context.Context, _ *rmsv1.GetSettingsRequest) (*rmsv1.Settings, error) {
	c := callOf(ctx)
	return protoSettings(c.tenant.Name(), c.tenant.Settings()), nil
}

func (p *policies) UpdateSettings(ctx context.Context, req *rmsv1.UpdateSettingsRequest) (*rmsv1.Settings, error) {
	c := callOf(ctx)
	want, anyRevision := uint32(0), false
	if req.GetSettings().GetEtag() != "0" {
		var err error
		if want, anyRevision, err = revisionOf(req.GetSettings().GetEtag()); err != nil {
			return nil, err
		}
	}
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return nil, invalid("update_mask must name the settings to change")
	}
	s, event, err := c.tenant.UpdateSettings(ctx, c.domain(nil), want, anyRevision, func(s *record.Settings) error {
		for _, path := range paths {
			if err := setSetting(s, req.GetSettings(), path); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoSettings(c.tenant.Name(), s), nil
}

// setSetting changes one setting.
func setSetting(s *record.Settings, in *rmsv1.Settings, path string) (err error) {
	switch path {
	case "offline_max":
		s.MaxOffline, err = requiredDuration(in.GetOfflineMax(), path)
	case "issuer_opens_revoked":
		s.IssuerOpensRevoked = in.GetIssuerOpensRevoked()
	case "guest_domains":
		s.GuestDomains = in.GetGuestDomains()
	case "publishers":
		s.Publishers, err = principalsOf(in.GetPublishers())
	case "clear_keys":
		if in.GetClearKeys() == rmsv1.Settings_CLEAR_KEYS_UNSPECIFIED {
			return invalid("clear_keys must be set")
		}
		s.ClearKeys = policy.ClearKeys(in.GetClearKeys() - 1)
	case "custody_mode":
		s.Custody = custodyOf(in.GetCustodyMode())
	case "cache_ttl":
		s.CacheTTL, err = requiredDuration(in.GetCacheTtl(), path)
	case "outage_grace":
		s.OutageGrace, err = requiredDuration(in.GetOutageGrace(), path)
	case "allow_x25519":
		s.AllowX25519 = in.GetAllowX25519()
	case "token_age_max":
		if s.TokenAgeMax = 0; in.GetTokenAgeMax() != nil {
			s.TokenAgeMax, err = durationOf(in.GetTokenAgeMax())
		}
	default:
		return invalid("update_mask: there is no setting %q", path)
	}
	return err
}

func requiredDuration(d *durationpb.Duration, path string) (time.Duration, error) {
	if d == nil {
		return 0, invalid("%s must be set", path)
	}
	return durationOf(d)
}
