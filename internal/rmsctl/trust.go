package rmsctl

import (
	"context"
	"crypto/ed25519"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// getTrust asks a server, without signing in, what it claims about a tenant.
// Nothing of the answer is to be believed before a pinned root vouches for it.
func (a *app) getTrust(ctx context.Context, c *contexts.Context) (*rmsv1.GetTrustResponse, error) {
	config, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("dns:///"+c.Server, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req := &rmsv1.GetTrustRequest{}
	if c.Tenant != "" {
		req.Parent = "tenants/" + c.Tenant
	}
	return rmsv1.NewProtectionServiceClient(conn).GetTrust(ctx, req)
}

// adopt verifies a server's trust bundle against the context's pins, and
// follows it: roots it adds are pinned, compromised ones no longer. It says
// whether the context changed.
func adopt(c *contexts.Context, trust *rmsv1.GetTrustResponse) (*license.Verifier, bool, error) {
	if trust.GetTenantId() != c.TenantID.String() {
		return nil, false, vocab.Errorf(vocab.ReasonTrustRootMismatch, "the server now gives tenant %s another identity, %s", c.Tenant, trust.GetTenantId()).
			WithNext("Do not go on; ask its operator")
	}
	pins := make([]license.KeyID, len(c.Roots))
	for i, r := range c.Roots {
		pins[i] = license.KeyID(r)
	}
	v, err := license.NewVerifier(trust.GetTrustBundle(), c.TenantID, pins, c.BundleSeq)
	if err != nil {
		return nil, false, err
	}
	b := v.Bundle()
	changed := c.Bundle == "" || b.Seq > c.BundleSeq
	c.SetTrustBundle(trust.GetTrustBundle(), b.Seq)
	for _, root := range b.Roots {
		id := contexts.KeyID(root.ID())
		i := slices.Index(c.Roots, id)
		switch {
		case root.State == license.RootCompromised && i >= 0 && len(c.Roots) > 1:
			c.Roots = slices.Delete(c.Roots, i, i+1)
			changed = true
		case root.State != license.RootCompromised && i < 0:
			c.Roots = append(c.Roots, id)
			changed = true
		}
	}
	return v, changed, nil
}

// verifier returns what vouches for signed objects of a context's tenant, with
// the newest trust bundle the server has.
func (a *app) verifier(ctx context.Context, c *contexts.Context) (*license.Verifier, error) {
	trust, err := a.getTrust(ctx, c)
	if err != nil {
		return nil, err
	}
	v, changed, err := adopt(c, trust)
	if err != nil || !changed {
		return v, err
	}
	return v, a.folder.Update(c.Name, func(stored *contexts.Context) error {
		_, _, err := adopt(stored, trust)
		return err
	})
}

// checkpointKey verifies the certificate of a checkpoint key.
func (a *app) checkpointKey(ctx context.Context, s *server, certificate []byte) (ed25519.PublicKey, error) {
	v, err := a.verifier(ctx, s.Context)
	if err != nil {
		return nil, err
	}
	cert, err := license.ParseCertificate(certificate)
	if err != nil {
		return nil, err
	}
	if err := v.VerifyCertificate(cert, license.UsageCheckpoint, a.now()); err != nil {
		return nil, err
	}
	return cert.Subject, nil
}
