package server

import (
	"context"
	"slices"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// maxCachedUses bounds how many cached uses an answer names.
const maxCachedUses = 100

// licenses serves LicenseService.
type licenses struct {
	rmsv1.UnimplementedLicenseServiceServer
	s *Server
}

func (l *licenses) GetLicense(ctx context.Context, req *rmsv1.GetLicenseRequest) (*rmsv1.License, error) {
	c := callOf(ctx)
	id, err := contentIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, err := c.tenant.GetLicense(ctx, id, c.owns)
	if err != nil {
		return nil, err
	}
	return protoLicense(c.tenant.Name(), v), nil
}

func (l *licenses) ListLicenses(ctx context.Context, req *rmsv1.ListLicensesRequest) (*rmsv1.ListLicensesResponse, error) {
	c := callOf(ctx)
	f := tenant.LicenseFilter{Title: req.GetTitle()}
	var err error
	if f.Owners, err = listedOwners(c, req.GetOwner(), "licenses"); err != nil {
		return nil, err
	}
	if req.GetTemplate() != "" {
		if f.Template, err = idOf(c.tenant.Name(), "templates", req.GetTemplate()); err != nil {
			return nil, err
		}
	}
	cursor, err := l.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	var before vocab.ContentID
	copy(before[:], cursor)
	page, next, err := c.tenant.ListLicenses(ctx, f, before, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListLicensesResponse{}
	for _, v := range page {
		out.Licenses = append(out.Licenses, protoLicense(c.tenant.Name(), v))
	}
	if n := fitting(out.Licenses); n < len(out.Licenses) {
		out.Licenses, next = out.Licenses[:n], page[n-1].Record.Content
	}
	if !next.IsZero() {
		out.NextPageToken = l.s.pages.next(c, req, next[:])
	}
	return out, nil
}

// listedOwners are the owners whose things a caller lists: the one asked for, or
// all (none). Whoever holds no role lists what they own, and nothing else.
func listedOwners(c *call, asked, what string) (owners []vocab.Principal, err error) {
	if asked != "" {
		owner, err := vocab.ParsePrincipal(asked)
		if err != nil {
			return nil, invalid("%s", err)
		}
		owners = []vocab.Principal{owner}
	}
	if c.byRole {
		return owners, nil
	}
	if len(owners) == 0 {
		owners = ownPrincipals(c.caller)
	}
	owners = slices.DeleteFunc(owners, func(p vocab.Principal) bool { return !c.tenant.Owns(c.caller, p) })
	if len(owners) == 0 {
		return nil, vocab.Errorf(vocab.ReasonRoleRequired, "listing other people's %s needs the role policy-admin or auditor", what)
	}
	return owners, c.owns(owners[0])
}

// ownPrincipals are those under which a caller may own something.
func ownPrincipals(id *vocab.Identity) (out []vocab.Principal) {
	if id.Service != "" {
		return []vocab.Principal{{Kind: vocab.KindService, Value: id.Service}}
	}
	for _, a := range id.Addresses {
		out = append(out, vocab.Principal{Kind: vocab.KindUser, Value: a})
	}
	return out
}

func (l *licenses) UpdateLicense(ctx context.Context, req *rmsv1.UpdateLicenseRequest) (*rmsv1.License, error) {
	c := callOf(ctx)
	id, err := contentIDOf(c.tenant.Name(), req.GetLicense().GetName())
	if err != nil {
		return nil, err
	}
	want, anyRevision, err := revisionOf(req.GetLicense().GetEtag())
	if err != nil {
		return nil, err
	}
	edit, err := licenseEdit(req)
	if err != nil {
		return nil, err
	}
	edit.ByOwner = !c.byRole
	v, event, err := c.tenant.UpdateLicense(ctx, c.domain(nil), id, want, anyRevision, *edit, c.owns)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoLicense(c.tenant.Name(), v), nil
}

// licenseEdit reads the fields the mask names.
func licenseEdit(req *rmsv1.UpdateLicenseRequest) (*tenant.LicenseEdit, error) {
	in, edit := req.GetLicense(), &tenant.LicenseEdit{}
	paths := req.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return nil, invalid("update_mask must name the fields to change: ad_hoc, owner, title, contact, expire_time")
	}
	for _, path := range paths {
		switch path {
		case "ad_hoc":
			if in.GetAdHoc() == nil {
				return nil, invalid("ad_hoc must be set")
			}
			a, err := adHocOf(in.GetAdHoc())
			if err != nil {
				return nil, err
			}
			edit.AdHoc = a
		case "owner":
			p, err := vocab.ParsePrincipal(in.GetOwner())
			if err != nil {
				return nil, invalid("%s", err)
			}
			edit.Owner = &p
		case "title":
			title := in.GetTitle()
			if len(title) > policy.MaxName {
				return nil, invalid("title: at most %d bytes", policy.MaxName)
			}
			edit.Title = &title
		case "contact":
			contact := in.GetContact()
			if contact != "" {
				if _, err := vocab.CanonicalAddress(contact); err != nil {
					return nil, invalid("contact: %s", err)
				}
			}
			edit.Contact = &contact
		case "expire_time":
			at, err := timeOf(in.GetExpireTime())
			if err != nil {
				return nil, err
			}
			edit.NotAfter = &at
		default:
			return nil, invalid("update_mask: %q cannot be changed; ad_hoc, owner, title, contact and expire_time can", path)
		}
	}
	return edit, nil
}

func (l *licenses) RevokeLicense(ctx context.Context, req *rmsv1.RevokeLicenseRequest) (*rmsv1.RevokeLicenseResponse, error) {
	c := callOf(ctx)
	id, err := contentIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.RevokeLicense(ctx, c.domain(nil), id, req.GetReason(), c.owns)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	uses, total, err := c.tenant.CachedUses(ctx, id, maxCachedUses)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.RevokeLicenseResponse{License: protoLicense(c.tenant.Name(), v), CachedUseCount: int32(total)}
	for _, u := range uses {
		out.CachedUses = append(out.CachedUses, protoUse(c.tenant.Name(), id, u))
	}
	return out, nil
}

func (l *licenses) RestoreLicense(ctx context.Context, req *rmsv1.RestoreLicenseRequest) (*rmsv1.License, error) {
	c := callOf(ctx)
	id, err := contentIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.RestoreLicense(ctx, c.domain(nil), id, c.owns)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoLicense(c.tenant.Name(), v), nil
}

func (l *licenses) TransferLicenses(ctx context.Context, req *rmsv1.TransferLicensesRequest) (*rmsv1.TransferLicensesResponse, error) {
	c := callOf(ctx)
	both, err := principalsOf([]string{req.GetFrom(), req.GetTo()})
	if err != nil {
		return nil, err
	}
	from, to := both[0], both[1]
	n, err := c.tenant.CountOwned(ctx, from, to)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.TransferLicensesResponse{Licenses: n}
	if req.GetValidateOnly() {
		c.event, err = c.tenant.RecordRead(ctx, c.caller, c.method)
		return out, err
	}
	v, event, err := c.tenant.TransferLicenses(ctx, c.domain(nil), from, to, req.GetReason())
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	out.Operation, err = protoOperation(ctx, c.tenant, v, false)
	return out, err
}

func (l *licenses) ListLicenseEvents(ctx context.Context, req *rmsv1.ListLicenseEventsRequest) (*rmsv1.ListLicenseEventsResponse, error) {
	c := callOf(ctx)
	id, err := contentIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	if _, err := c.tenant.GetLicense(ctx, id, c.owns); err != nil {
		return nil, err
	}
	events, next, err := l.s.listEvents(ctx, c, req, audit.Filter{Content: id}, req.GetPageSize())
	if err != nil {
		return nil, err
	}
	return &rmsv1.ListLicenseEventsResponse{Events: events, NextPageToken: next}, nil
}
