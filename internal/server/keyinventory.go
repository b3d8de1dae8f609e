package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (k *custody) GetInventory(ctx context.Context, req *rmsv1.GetInventoryRequest) (*rmsv1.Inventory, error) {
	c := callOf(ctx)
	inv, err := c.tenant.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.Inventory{
		CustodyMode: protoCustody(c.tenant.Settings().Custody), EffectiveDelay: durationpb.New(c.tenant.EffectiveDelay()),
	}
	for i := range inv.Generations {
		g := &inv.Generations[i]
		out.Lines = append(out.Lines, &rmsv1.Inventory_Line{
			Key: keyResource(c.tenant.Name(), g.Key), KeyVersion: g.Version, Generation: g.ID.String(), Number: g.Number, State: protoKeyState(g.State),
			Active: g.State == keys.Active, Licenses: g.Licenses, CreateTime: protoTime(g.Created), LastUseTime: protoTime(g.LastUsed),
			StateTime: protoTime(g.Since), StateReason: g.Why, FirstLicenseTime: published(g.First), LastLicenseTime: published(g.Last),
			Destruction: protoSafety(&g.Safety),
		})
	}
	for i := range inv.Versions {
		v := &inv.Versions[i]
		out.Versions = append(out.Versions, &rmsv1.Inventory_Version{
			Key: keyResource(c.tenant.Name(), v.Key), Version: protoVersion(&v.KeyVersion, v.State), Generations: v.Generations,
			StrictLicenses: v.Strict, CachedLicenses: v.Cached, FirstLicenseTime: published(v.First), LastLicenseTime: published(v.Last),
			LastUseTime: protoTime(v.LastUsed), GoneTime: protoTime(v.Gone.Time()), Destruction: protoSafety(&v.Safety),
		})
		if v.Strict > 0 {
			out.Lines = append(out.Lines, &rmsv1.Inventory_Line{
				Key: keyResource(c.tenant.Name(), v.Key), KeyVersion: v.Number, State: protoKeyState(v.State), Licenses: v.Strict,
			})
		}
	}
	if req.GetVerify() {
		if out.Problems, out.VerifiedRecords, err = c.tenant.VerifyInventory(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func keyResource(tenantID, key string) string {
	if key == "" {
		return ""
	}
	return resourceName(tenantID, "keys", key)
}

// published is when a license was: its ID says so.
func published(id vocab.ContentID) *timestamppb.Timestamp {
	if id.IsZero() {
		return nil
	}
	return protoTime(id.Time())
}

func protoSafety(s *tenant.Safety) *rmsv1.Inventory_Destruction {
	out := &rmsv1.Inventory_Destruction{Safe: s.Safe(), Note: s.Note}
	if from := s.From(); !from.IsZero() {
		out.SafeTime = protoTime(from)
	}
	for _, h := range s.Hindrances {
		m := &rmsv1.Inventory_Hindrance{Kind: rmsv1.Inventory_Hindrance_Kind(h.Kind), Text: h.Text, CanDespite: h.Kind.Despite()}
		if !h.Until.IsZero() {
			m.Until = protoTime(h.Until.Truncate(time.Millisecond))
		}
		out.Hindrances = append(out.Hindrances, m)
	}
	return out
}

func (k *custody) ListDependants(ctx context.Context, req *rmsv1.ListDependantsRequest) (*rmsv1.ListDependantsResponse, error) {
	c := callOf(ctx)
	target, err := keyTarget(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	cursor, err := k.s.pages.cursor(c, req)
	if err != nil {
		return nil, err
	}
	var after vocab.ContentID
	copy(after[:], cursor)
	page, next, err := c.tenant.ListDependants(ctx, target, after, pageSize(req.GetPageSize()))
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListDependantsResponse{}
	for _, d := range page {
		m := &rmsv1.ListDependantsResponse_Dependant{
			License: resourceName(c.tenant.Name(), "licenses", d.Content.String()), Owner: d.Owner.String(), PublishTime: published(d.Content),
			Generation: d.Generation, Revoked: d.Revoked,
		}
		if d.Key != "" {
			m.KeyVersion = targetResource(c.tenant.Name(), tenant.KeyTarget{Key: d.Key, Version: d.Version})
		}
		out.Dependants = append(out.Dependants, m)
	}
	if !next.IsZero() {
		out.NextPageToken = k.s.pages.next(c, req, next[:])
	}
	return out, nil
}

func (k *custody) DestroyKey(ctx context.Context, req *rmsv1.DestroyKeyRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	target, err := keyTarget(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.RequestDestroy(ctx, c.domain(nil), tenant.Destruction{
		Target: target, DespiteSoak: req.GetDespiteSoak(), DespiteBackups: req.GetDespiteBackups(), Reason: req.GetReason(), Ticket: req.GetTicket(),
	})
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoOperation(ctx, c.tenant, v, false)
}

func (k *custody) FinishDestroyKey(ctx context.Context, req *rmsv1.FinishDestroyKeyRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	id, err := operationIDOf(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.FinishDestroy(ctx, c.domain(nil), id, req.GetRequestIds())
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoOperation(ctx, c.tenant, v, false)
}

// targetResource is the name of a key, a version or a generation.
func targetResource(tenantID string, k tenant.KeyTarget) string {
	switch {
	case k.Generation > 0:
		return resourceName(tenantID, "generations", fmt.Sprint(k.Generation))
	case k.Version > 0:
		return fmt.Sprintf("%s/versions/%d", resourceName(tenantID, "keys", k.Key), k.Version)
	}
	return resourceName(tenantID, "keys", k.Key)
}

func protoKeyDestroy(tenantID string, o *operation.Operation) (*rmsv1.Operation_KeyDestroy, error) {
	p, d, err := tenant.DestructionOf(o)
	if err != nil {
		return nil, err
	}
	return &rmsv1.Operation_KeyDestroy{
		Target: targetResource(tenantID, d.Target), DespiteSoak: d.DespiteSoak, DespiteBackups: d.DespiteBackups,
		InventorySha256: p.Inventory[:], Inventory: p.Shown,
	}, nil
}
