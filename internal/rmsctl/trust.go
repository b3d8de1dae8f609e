package rmsctl

import (
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// trustOf is what a context has pinned, for the SDK.
func trustOf(c *contexts.Context) (rms.Trust, error) {
	bundle, err := c.TrustBundle()
	if err != nil {
		return rms.Trust{}, err
	}
	t := rms.Trust{TenantID: c.TenantID, Bundle: bundle, BundleSeq: c.BundleSeq}
	for _, root := range c.Roots {
		t.RootKeyIDs = append(t.RootKeyIDs, root)
	}
	return t, nil
}

// keepTrust puts what the SDK has verified into a context, unless something
// newer is there already.
func keepTrust(c *contexts.Context, t rms.Trust) {
	if c.Bundle != "" && t.BundleSeq <= c.BundleSeq || len(t.RootKeyIDs) == 0 {
		return
	}
	c.SetTrustBundle(t.Bundle, t.BundleSeq)
	c.Roots = nil
	for _, id := range t.RootKeyIDs {
		c.Roots = append(c.Roots, contexts.KeyID(id))
	}
}

// fetchTrust asks a server, without signing in, what it claims about a tenant.
// Nothing of the answer is to be believed before a pinned root vouches for it.
func fetchTrust(ctx context.Context, c *contexts.Context) (*rms.TrustInfo, error) {
	config, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	info, err := rms.FetchTrust(ctx, c.Server, config, c.Tenant)
	if e, ok := errors.AsType[*rms.Error](err); ok && e.Reason == vocab.ReasonTrustRootMismatch && strings.Contains(e.Message, "TLS") {
		e.Next = "Ask its operator for the authority's certificate, then: rmsctl login ADDRESS --ca FILE"
	}
	return info, err
}

// adopt verifies a server's trust bundle against the context's pins, and
// follows it: roots it adds are pinned, compromised ones no longer.
func adopt(c *contexts.Context, info *rms.TrustInfo) (*license.Verifier, error) {
	if info.TenantID != c.TenantID {
		return nil, vocab.Errorf(vocab.ReasonTrustRootMismatch, "the server now gives tenant %s another identity, %s", c.Tenant, info.TenantID).
			WithNext("Do not go on; ask its operator")
	}
	pins := make([]license.KeyID, len(c.Roots))
	for i, r := range c.Roots {
		pins[i] = license.KeyID(r)
	}
	v, err := license.FollowVerifier(info.Bundle, info.Transitions, c.TenantID, pins, c.BundleSeq)
	if err != nil {
		return nil, err
	}
	trust := rms.Trust{Bundle: info.Bundle, BundleSeq: v.Bundle().Seq}
	for _, r := range c.Roots {
		if root, ok := v.Bundle().Root(license.KeyID(r)); !ok || root.State != license.RootCompromised {
			trust.RootKeyIDs = append(trust.RootKeyIDs, r)
		}
	}
	for _, root := range v.Bundle().Roots {
		if id := [32]byte(root.ID()); root.State != license.RootCompromised && !slices.Contains(trust.RootKeyIDs, id) {
			trust.RootKeyIDs = append(trust.RootKeyIDs, id)
		}
	}
	keepTrust(c, trust)
	return v, nil
}

// verifier returns what vouches for signed objects of a context's tenant, with
// the newest trust bundle the server has.
func (a *app) verifier(ctx context.Context, c *contexts.Context) (v *license.Verifier, err error) {
	info, err := fetchTrust(ctx, c)
	if err != nil {
		return nil, err
	}
	if info.BundleSeq == c.BundleSeq {
		return adopt(c, info)
	}
	return v, a.folder.Update(c.Name, func(stored *contexts.Context) error {
		v, err = adopt(stored, info)
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
