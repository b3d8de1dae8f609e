package server

import (
	"context"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// custody serves CustodyService.
type custody struct {
	rmsv1.UnimplementedCustodyServiceServer
	s *Server
}

func (k *custody) ListCustodians(ctx context.Context, _ *rmsv1.ListCustodiansRequest) (*rmsv1.ListCustodiansResponse, error) {
	c := callOf(ctx)
	out := &rmsv1.ListCustodiansResponse{}
	for _, p := range c.tenant.Custodians() {
		out.Custodians = append(out.Custodians, &rmsv1.Custodian{
			Name: p.Name, Kind: protoKind(p.Kind), Address: p.Address, Mount: p.Mount, Namespace: p.Namespace, ClusterId: p.ClusterID,
		})
	}
	return out, nil
}

func (k *custody) ListKeys(ctx context.Context, _ *rmsv1.ListKeysRequest) (*rmsv1.ListKeysResponse, error) {
	c := callOf(ctx)
	rows, err := c.tenant.Keys(ctx)
	if err != nil {
		return nil, err
	}
	out := &rmsv1.ListKeysResponse{}
	for i := range rows {
		out.Keys = append(out.Keys, protoKey(c.tenant, &rows[i]))
	}
	return out, nil
}

func (k *custody) GetKey(ctx context.Context, req *rmsv1.GetKeyRequest) (*rmsv1.Key, error) {
	c := callOf(ctx)
	name, err := idOf(c.tenant.Name(), "keys", req.GetName())
	if err != nil {
		return nil, err
	}
	v, err := c.tenant.Key(ctx, name)
	if err != nil {
		return nil, err
	}
	return protoKey(c.tenant, v), nil
}

func (k *custody) RegisterKey(ctx context.Context, req *rmsv1.RegisterKeyRequest) (*rmsv1.Key, error) {
	c := callOf(ctx)
	stated, err := provenanceOf(req.GetProvenance())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.RegisterKey(ctx, c.domain(nil), tenant.Registration{
		Name: req.GetKeyId(), Custodian: req.GetCustodian(), Root: req.GetRootKey(), Sign: req.GetSignKey(), Provenance: stated,
	})
	return acted(c, v, event, err)
}

func (k *custody) ActivateKey(ctx context.Context, req *rmsv1.ActivateKeyRequest) (*rmsv1.Key, error) {
	c := callOf(ctx)
	name, err := idOf(c.tenant.Name(), "keys", req.GetName())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.ActivateKey(ctx, c.domain(nil), name, req.GetWithoutPrevious(), req.GetWithoutRewrap())
	return acted(c, v, event, err)
}

func (k *custody) SyncKey(ctx context.Context, req *rmsv1.SyncKeyRequest) (*rmsv1.Key, error) {
	c := callOf(ctx)
	name, err := idOf(c.tenant.Name(), "keys", req.GetName())
	if err != nil {
		return nil, err
	}
	stated, err := provenanceOf(req.GetProvenance())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.SyncKey(ctx, c.domain(nil), name, stated, req.GetWithoutRewrap())
	return acted(c, v, event, err)
}

func (k *custody) RotateKey(ctx context.Context, req *rmsv1.RotateKeyRequest) (*rmsv1.Key, error) {
	c := callOf(ctx)
	name, err := idOf(c.tenant.Name(), "keys", req.GetName())
	if err != nil {
		return nil, err
	}
	v, event, err := c.tenant.RotateKey(ctx, c.domain(nil), name, req.GetWithoutRewrap())
	return acted(c, v, event, err)
}

func (k *custody) ProbeKey(ctx context.Context, req *rmsv1.ProbeKeyRequest) (*rmsv1.ProbeKeyResponse, error) {
	c := callOf(ctx)
	name, err := idOf(c.tenant.Name(), "keys", req.GetName())
	if err != nil {
		return nil, err
	}
	p, event, err := c.tenant.ProbeKey(ctx, c.domain(nil), name)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return &rmsv1.ProbeKeyResponse{
		Version: p.Version, Context: p.Context, Plaintext: p.Plaintext, Ciphertext: p.Ciphertext, CustodianRequestId: p.RequestID,
	}, nil
}

// acted answers with a key that somebody acted on.
func acted(c *call, v *tenant.KeyView, event vocab.EventID, err error) (*rmsv1.Key, error) {
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return protoKey(c.tenant, v), nil
}

func (k *custody) SuspendKey(ctx context.Context, req *rmsv1.SuspendKeyRequest) (*rmsv1.KeyStateResponse, error) {
	return k.move(ctx, req.GetName(), tenant.Suspend, req.GetReason())
}

func (k *custody) ResumeKey(ctx context.Context, req *rmsv1.ResumeKeyRequest) (*rmsv1.KeyStateResponse, error) {
	return k.move(ctx, req.GetName(), tenant.Resume, req.GetReason())
}

func (k *custody) CompromiseKey(ctx context.Context, req *rmsv1.CompromiseKeyRequest) (*rmsv1.KeyStateResponse, error) {
	return k.move(ctx, req.GetName(), tenant.Compromise, req.GetReason())
}

func (k *custody) move(ctx context.Context, name string, m tenant.Move, reason string) (*rmsv1.KeyStateResponse, error) {
	c := callOf(ctx)
	target, err := keyTarget(c.tenant.Name(), name)
	if err != nil {
		return nil, err
	}
	event, err := c.tenant.SetKeyState(ctx, c.domain(nil), target, m, reason)
	if err != nil {
		return nil, err
	}
	c.recorded(event)
	return &rmsv1.KeyStateResponse{Event: event.String()}, nil
}

// keyTarget reads the name of a key, a version or a generation.
func keyTarget(tenantID, name string) (out tenant.KeyTarget, err error) {
	number := func(s string) uint32 {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != s {
			return 0
		}
		return uint32(n)
	}
	if strings.HasPrefix(name, resourceName(tenantID, "generations", "")) {
		s, err := idOf(tenantID, "generations", name)
		if out.Generation = number(s); err == nil && out.Generation == 0 {
			err = invalid("%q is not the number of a generation", s)
		}
		return out, err
	}
	key, version, versioned := strings.Cut(name, "/versions/")
	if out.Key, err = idOf(tenantID, "keys", key); err != nil {
		return out, err
	}
	if out.Version = number(version); versioned && out.Version == 0 {
		return out, invalid("%q is not the number of a version", version)
	}
	return out, nil
}

func provenanceOf(p *rmsv1.Provenance) (*record.Provenance, error) {
	if p == nil {
		return nil, nil
	}
	for name, b := range map[string][]byte{
		"fingerprint": p.GetFingerprint(), "wrapping_key_sha256": p.GetWrappingKeySha256(), "blob_sha256": p.GetBlobSha256(),
	} {
		if n := len(b); n != 0 && n != 32 {
			return nil, invalid("provenance.%s has %d bytes, not 32", name, n)
		}
	}
	for _, id := range p.GetRequestIds() {
		if id == "" || strings.ContainsFunc(id, func(r rune) bool { return r < '!' || r > '~' }) {
			return nil, invalid("%q is not the ID of a custodian's request", id)
		}
	}
	at, err := timeOf(p.GetTime())
	if err != nil {
		return nil, err
	}
	out := &record.Provenance{
		Fingerprint: p.GetFingerprint(), KCV: p.GetKcv(), Form: p.GetForm(), WrappingKey: p.GetWrappingKeySha256(), Blob: p.GetBlobSha256(),
		Requests: strings.Join(p.GetRequestIds(), " "), At: record.ToMillis(at),
	}
	if p.GetProven() {
		out.Proven = 1
	}
	return out, nil
}

func protoProvenance(p *record.Provenance) *rmsv1.Provenance {
	if p == nil {
		return nil
	}
	return &rmsv1.Provenance{
		Fingerprint: p.Fingerprint, Kcv: p.KCV, Form: p.Form, WrappingKeySha256: p.WrappingKey, BlobSha256: p.Blob,
		RequestIds: strings.Fields(p.Requests), Time: protoTime(p.At.Time()), Proven: p.Proven == 1,
	}
}

func protoKind(k keys.Kind) rmsv1.Key_Custodian {
	switch k {
	case keys.KindEmbedded:
		return rmsv1.Key_CUSTODIAN_EMBEDDED
	case keys.KindVault:
		return rmsv1.Key_CUSTODIAN_VAULT
	}
	return rmsv1.Key_CUSTODIAN_UNSPECIFIED
}

func protoKeyState(s keys.State) rmsv1.Key_State {
	return map[keys.State]rmsv1.Key_State{
		keys.PreActive: rmsv1.Key_STATE_PRE_ACTIVE, keys.Active: rmsv1.Key_STATE_ACTIVE, keys.Deactivated: rmsv1.Key_STATE_DEACTIVATED,
		keys.Suspended: rmsv1.Key_STATE_SUSPENDED, keys.Compromised: rmsv1.Key_STATE_COMPROMISED, keys.Destroyed: rmsv1.Key_STATE_DESTROYED,
	}[s]
}

func protoVersion(v *record.KeyVersion, state keys.State) *rmsv1.KeyVersion {
	return &rmsv1.KeyVersion{
		Version: v.Number, CreateTime: protoTime(v.Created.Time()), SeenTime: protoTime(v.Seen.Time()),
		State: protoKeyState(state), StateTime: protoTime(v.Since.Time()), StateReason: v.Why,
		Origin: rmsv1.KeyVersion_Origin(v.Origin), ClaimedBy: v.ClaimedBy, Alarmed: v.Claim == record.Alarmed,
		Provenance: protoProvenance(v.Provenance),
	}
}

// locationOf says where a key is, for people.
func locationOf(k *tenant.KeyView) string {
	if k.Elsewhere != 0 {
		return "left behind where the tenant was until " + k.Elsewhere.Time().UTC().Format(time.DateOnly)
	}
	return k.Place.Text()
}

func protoKey(t *tenant.Tenant, k *tenant.KeyView) *rmsv1.Key {
	out := &rmsv1.Key{
		Name: resourceName(t.Name(), "keys", k.Name), Custodian: protoKind(keys.Kind(k.Kind)), State: protoKeyState(keys.State(k.State)),
		Location: locationOf(k), ClusterId: k.Cluster, CustodianName: k.TenantKey.Custodian, RootKey: k.Root, SignKey: k.Sign,
		StateTime: protoTime(k.Since.Time()), StateReason: k.Why, RegisterTime: protoTime(k.Registered.Time()), LatestVersion: k.RootLatest,
		Rewrap: rewrapName(t, k),
	}
	if k.Rotates > 0 {
		out.RotationPeriod = durationpb.New(time.Duration(k.Rotates) * time.Millisecond)
	}
	for i := range k.Versions {
		v := &k.Versions[i]
		out.Versions = append(out.Versions, protoVersion(v, k.VersionState(v.Number)))
	}
	if k.Fault != nil {
		out.Fault, out.FaultMessage = string(vocab.ReasonOf(k.Fault)), k.Fault.Error()
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
	return out
}
