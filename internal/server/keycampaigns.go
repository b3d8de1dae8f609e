package server

import (
	"context"
	"fmt"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (k *custody) Rewrap(ctx context.Context, req *rmsv1.RewrapRequest) (*rmsv1.RewrapResponse, error) {
	c := callOf(ctx)
	var v *tenant.OperationView
	var plan *tenant.RewrapPlan
	var event vocab.EventID
	var err error
	if req.GetValidateOnly() {
		if plan, err = c.tenant.PlanRewrap(ctx); err == nil {
			event, err = c.tenant.RecordRead(ctx, c.caller, c.domain(nil).Method)
		}
	} else {
		v, plan, event, err = c.tenant.Rewrap(ctx, c.domain(nil), uint32(req.GetMaxRate()))
	}
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	out := &rmsv1.RewrapResponse{
		KeyVersion: versionName(c.tenant.Name(), plan.Key, plan.To.Version), Generations: int32(plan.Generations), Licenses: plan.Licenses,
	}
	for _, l := range plan.Left {
		out.Left = append(out.Left, &rmsv1.RewrapResponse_LeftOver{
			KeyVersion: versionName(c.tenant.Name(), l.Key, l.Version), Generations: int32(l.Generations), Licenses: l.Licenses,
			Reason: string(vocab.ReasonOf(l.Why)),
		})
	}
	out.Operation, err = protoStarted(ctx, c, v)
	return out, err
}

func (k *custody) Reseal(ctx context.Context, req *rmsv1.ResealRequest) (*rmsv1.ResealResponse, error) {
	c := callOf(ctx)
	target, err := keyTarget(c.tenant.Name(), req.GetName())
	if err != nil {
		return nil, err
	}
	if target.Generation == 0 && target.Version == 0 {
		return nil, invalid("name a generation or a version of a key: a whole key is moved away from by activating another one")
	}
	var v *tenant.OperationView
	var plan *tenant.ResealPlan
	var event vocab.EventID
	if req.GetValidateOnly() {
		if plan, err = c.tenant.PlanReseal(ctx, target); err == nil {
			event, err = c.tenant.RecordRead(ctx, c.caller, c.domain(nil).Method)
		}
	} else {
		v, plan, event, err = c.tenant.Reseal(ctx, c.domain(nil), target, uint32(req.GetMaxRate()))
	}
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	out := &rmsv1.ResealResponse{Licenses: plan.Licenses}
	for _, n := range plan.Generations {
		out.Generations = append(out.Generations, generationName(c.tenant.Name(), n))
	}
	out.Operation, err = protoStarted(ctx, c, v)
	return out, err
}

// protoStarted is an operation that a call started, if it did.
func protoStarted(ctx context.Context, c *call, v *tenant.OperationView) (*rmsv1.Operation, error) {
	if v == nil {
		return nil, nil
	}
	return protoOperation(ctx, c.tenant, v, false)
}

func versionName(tenantID, key string, version uint32) string {
	return fmt.Sprintf("%s/versions/%d", resourceName(tenantID, "keys", key), version)
}

func generationName(tenantID string, number uint32) string {
	return resourceName(tenantID, "generations", fmt.Sprint(number))
}

// protoReseal shows what a reseal is about.
func protoReseal(ctx context.Context, t *tenant.Tenant, p *operation.ResealParams) *rmsv1.Operation_Reseal {
	m := &rmsv1.Operation_Reseal{Everything: p.Everything == 1, MaxRate: int32(p.MaxRate)}
	switch {
	case p.Generation > 0:
		m.Generation = generationName(t.Name(), p.Generation)
	case p.Key != "":
		m.KeyVersion = versionName(t.Name(), p.Key, p.Version)
	case !p.Template.IsZero():
		m.Template = resourceName(t.Name(), "templates", t.TemplateName(ctx, p.Template))
	}
	return m
}

// rewrapName names the operation that moves things to a key, while it goes on.
func rewrapName(t *tenant.Tenant, k *tenant.KeyView) string {
	if id := t.RewrapOf(); keys.State(k.State) == keys.Active && !id.IsZero() {
		return resourceName(t.Name(), "operations", id.String())
	}
	return ""
}
