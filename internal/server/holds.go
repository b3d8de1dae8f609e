package server

import (
	"context"

	"github.com/openrms/rms/internal/operation"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// holds serves HoldService.
type holds struct {
	rmsv1.UnimplementedHoldServiceServer
	s *Server
}

func (h *holds) GetHold(ctx context.Context, req *rmsv1.GetHoldRequest) (*rmsv1.Hold, error) {
	t := callOf(ctx).tenant
	if req.GetName() != "tenants/"+t.Name()+"/hold" {
		return nil, invalid("%q is not the name of a tenant's hold: tenants/%s/hold", req.GetName(), t.Name())
	}
	out := &rmsv1.Hold{Name: req.GetName()}
	if held := t.Hold(); held != nil {
		out.Held, out.Event, out.RestoreTime = true, held.Event.String(), protoTime(held.Restored.Time())
		out.Backup, out.BackupTime, out.BackupSize = held.Backup.String(), protoTime(held.BackupTime.Time()), int64(held.BackupSize)
		out.LostSize, out.Reason, out.Reapplied, out.Open, out.LeftOut = int64(held.LostSize), held.Reason, held.Reapplied, held.Open, int64(held.LeftOut)
	}
	return out, nil
}

func (h *holds) ReleaseTenant(ctx context.Context, req *rmsv1.ReleaseTenantRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	v, event, err := c.tenant.RequestRelease(ctx, c.domain(nil), req.GetReason())
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoOperation(ctx, c.tenant, v, false)
}

// protoRelease shows what a release asks for.
func protoRelease(o *operation.Operation) (*rmsv1.Operation_Release_, error) {
	p, err := operation.Params[operation.ReleaseParams](o)
	if err != nil {
		return nil, err
	}
	return &rmsv1.Operation_Release_{Release: &rmsv1.Operation_Release{Event: p.Event.String()}}, nil
}
