package server

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// custody serves the read side of CustodyService.
type custody struct {
	rmsv1.UnimplementedCustodyServiceServer
	s *Server
}

func (k *custody) ListKeys(ctx context.Context, _ *rmsv1.ListKeysRequest) (*rmsv1.ListKeysResponse, error) {
	c := callOf(ctx)
	rows, err := c.tenant.Keys(ctx)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListKeysResponse{}
	for _, row := range rows {
		out.Keys = append(out.Keys, protoKey(c.tenant.Name(), row))
	}
	return out, nil
}

func (k *custody) GetKey(ctx context.Context, req *rmsv1.GetKeyRequest) (*rmsv1.Key, error) {
	c := callOf(ctx)
	name, err := idOf(c.tenant.Name(), "keys", req.GetName())
	if err != nil {
		return nil, err
	}
	rows, err := c.tenant.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Name == name {
			return protoKey(c.tenant.Name(), row), nil
		}
	}
	return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "there is no key %q", name).WithNext("List the keys")
}

func protoKey(tenantID string, k tenant.Key) *rmsv1.Key {
	out := &rmsv1.Key{
		Name: resourceName(tenantID, "keys", k.Name), State: rmsv1.Key_STATE_DEACTIVATED,
		Location: k.Place, ClusterId: k.Cluster,
	}
	if k.Active == 1 {
		out.State = rmsv1.Key_STATE_ACTIVE
	}
	switch keys.Kind(k.Kind) {
	case keys.KindEmbedded:
		out.Custodian = rmsv1.Key_CUSTODIAN_EMBEDDED
	case keys.KindVault:
		out.Custodian = rmsv1.Key_CUSTODIAN_VAULT
	}
	f := k.Facts
	if f == nil {
		return out
	}
	out.Type, out.Derived, out.Exportable = f.Root.Type, f.Root.Derived, f.Root.Exportable
	out.LatestVersion, out.MinDecryptionVersion, out.Imported = f.Root.Latest, f.Root.MinDecryption, f.Root.Imported
	out.ClusterId = f.ClusterID
	if len(f.RequestIDs) > 0 {
		out.CustodianRequestId = f.RequestIDs[0]
	}
	for _, v := range f.Root.Versions {
		out.Versions = append(out.Versions, &rmsv1.KeyVersion{Version: v.Version, CreateTime: protoTime(v.Created)})
	}
	return out
}

func (k *custody) GetInventory(ctx context.Context, _ *rmsv1.GetInventoryRequest) (*rmsv1.Inventory, error) {
	c := callOf(ctx)
	lines, err := c.tenant.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.Inventory{
		CustodyMode: protoCustody(c.tenant.Settings().Custody), EffectiveDelay: durationpb.New(c.tenant.EffectiveDelay()),
	}
	for _, l := range lines {
		line := &rmsv1.Inventory_Line{
			Key: resourceName(c.tenant.Name(), "keys", "root"), KeyVersion: l.KeyVersion, Number: l.Number,
			Active: l.State == keys.Active, Licenses: l.Licenses, CreateTime: protoTime(l.Created), LastUseTime: protoTime(l.LastUsed),
		}
		if !l.Generation.IsZero() {
			line.Generation = l.Generation.String()
		}
		out.Lines = append(out.Lines, line)
	}
	return out, nil
}
