package server

import (
	"context"
	"errors"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

const approversID = "approvers"

func isApprovers(c *call, name string) error {
	if name != tenantName(c.tenant.Name())+"/"+approversID {
		return invalid("the name is not tenants/%s/%s", c.tenant.Name(), approversID)
	}
	return nil
}

func (k *custody) GetApprovers(ctx context.Context, req *rmsv1.GetApproversRequest) (*rmsv1.Approvers, error) {
	c := callOf(ctx)
	if err := isApprovers(c, req.GetName()); err != nil {
		return nil, err
	}
	a, err := c.tenant.GetApprovers(ctx)
	if err != nil {
		return nil, err
	}
	out := protoApprovers(c.tenant.Name(), a.Set)
	out.Etag, out.Able = etag(a.Revision), int32(a.Able)
	if a.Set != nil {
		out.UpdateTime, out.Author, out.Event, out.Sha256 = protoTime(a.Time), a.Author, a.Event.String(), a.Hash[:]
		for i, why := range a.Cannot {
			out.Approvers[i].CannotAct = why
		}
	}
	return out, nil
}

func (k *custody) UpdateApprovers(ctx context.Context, req *rmsv1.UpdateApproversRequest) (*rmsv1.Operation, error) {
	c := callOf(ctx)
	in := req.GetApprovers()
	if err := isApprovers(c, in.GetName()); err != nil {
		return nil, err
	}
	want, anyRevision := uint32(0), false
	if e := in.GetEtag(); e != "" && e != "0" {
		var err error
		if want, anyRevision, err = revisionOf(e); err != nil {
			return nil, err
		}
	}
	set, err := approversOf(in)
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.UpdateApprovers(ctx, c.domain(nil), want, anyRevision, set, req.GetReason(), req.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoOperation(ctx, c.tenant, v, true)
}

// approversOf reads an approver set; what it may be, the tenant decides.
func approversOf(in *rmsv1.Approvers) (*operation.ApproverSet, error) {
	out := &operation.ApproverSet{Threshold: uint8(in.GetThreshold())}
	for _, a := range in.GetApprovers() {
		next := operation.Approver{Principal: a.GetPrincipal(), Label: a.GetLabel()}
		for _, line := range a.GetKeys() {
			key, err := sshsig.ParseAuthorizedKey(line)
			if err != nil {
				return nil, err
			}
			next.Keys = append(next.Keys, key.Wire())
		}
		out.Approvers = append(out.Approvers, next)
	}
	return out, nil
}

// protoApprovers shows an approver set; nil is that there is none.
func protoApprovers(tenantID string, s *operation.ApproverSet) *rmsv1.Approvers {
	out := &rmsv1.Approvers{Name: tenantName(tenantID) + "/" + approversID}
	if s == nil {
		return out
	}
	out.Threshold = int32(s.Threshold)
	for _, a := range s.Approvers {
		next := &rmsv1.Approvers_Approver{Principal: a.Principal, Label: a.Label}
		for _, wire := range a.Keys {
			if k, err := sshsig.ParseKey(wire); err == nil { // as it was when it was written
				next.Keys = append(next.Keys, k.String())
			}
		}
		out.Approvers = append(out.Approvers, next)
	}
	return out
}

// protoDual shows what an operation under dual control rests on, and how far
// its signatures are.
func protoDual(v *tenant.OperationView, out *rmsv1.Operation, whole bool) {
	if v.Basis == nil {
		return
	}
	out.BasisSha256, out.Basis = v.Basis.Hash[:], v.Basis.Text
	if whole {
		out.Parameters = v.Params
	}
	if v.Quorum == nil || v.Dual == nil {
		return
	}
	q := &rmsv1.Operation_Quorum{
		Signed: v.Quorum.Signed, Namespace: operation.ApprovalNamespace, Left: v.Dual.Left,
		Counting: int32(v.Dual.Asked.Have), CountingNow: int32(v.Dual.Now.Have), NeededNow: int32(v.Dual.Now.Need),
	}
	if whole {
		q.ApproverSet = v.Quorum.Set
	}
	out.Quorum = q
	for i, m := range out.GetApprovals() {
		a := &v.Approvals[i]
		m.Signature, m.ApproverPrincipal = a.Signature, a.Approver
		if k, err := sshsig.ParseKey(a.Key()); err == nil {
			m.Key, m.KeyFingerprint = k.String(), k.Fingerprint()
		}
		if why := v.Dual.Why[i]; why != nil {
			m.Void = sentence(why)
		}
	}
}

// protoDualParams shows what a kind under dual control asks for.
func protoDualParams(t *tenant.Tenant, v *tenant.OperationView, out *rmsv1.Operation) error {
	switch v.Kind { //nolint:exhaustive // the others are not under dual control
	case operation.ApproversUpdate:
		p, err := operation.Params[operation.ApproversParams](v.Operation)
		if err != nil {
			return err
		}
		from, to, err := p.Sets()
		if err != nil {
			return err
		}
		out.Params = &rmsv1.Operation_ApproversUpdate_{ApproversUpdate: &rmsv1.Operation_ApproversUpdate{
			BaseRevision: p.Base, Approvers: protoApprovers(t.Name(), to), Changes: to.Changes(from),
		}}
	case operation.CustodyLower:
		p, err := operation.Params[operation.CustodyParams](v.Operation)
		if err != nil {
			return err
		}
		m := &rmsv1.Operation_CustodyLower{}
		switch {
		case p.Settings != nil:
			m.BaseRevision, m.Changes = p.Settings.Base, p.Settings.Changes()
		case p.Template != nil:
			draft, err := license.DecodeTemplate(p.Template.Draft)
			if err != nil {
				return err
			}
			m.Template, m.BaseRevision = resourceName(t.Name(), "templates", p.Template.Slug), p.Template.Base
			m.Changes = []string{operation.FloorChange(draft.Custody)}
		}
		out.Params = &rmsv1.Operation_CustodyLower_{CustodyLower: m}
	}
	return nil
}

// sentence is an error's, without reason and next step.
func sentence(err error) string {
	if v, ok := errors.AsType[*vocab.Error](err); ok {
		return v.Message
	}
	return string(vocab.ReasonOf(err))
}
