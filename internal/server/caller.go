package server

import (
	"context"
	"crypto/x509"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
)

func (d *door) authenticate(ctx context.Context, c *call) (*vocab.Identity, error) {
	id, err := d.identify(ctx, c, c.tenant.IdentityView())
	if err != nil {
		return nil, err
	}
	if err := c.tenant.CheckTokenAge(id, d.now()); err != nil {
		return nil, err
	}
	id.Peer = c.peer
	return id, nil
}

// identify asks who the caller is to a tenant: by token, or else by the
// connection's certificate.
func (d *door) identify(ctx context.Context, c *call, view identity.Tenant) (*vocab.Identity, error) {
	raw, err := bearer(ctx)
	if err != nil {
		return nil, err
	}
	if raw == "" && c.chain != nil {
		return d.verifier.Certificate(view, c.chain)
	}
	return d.verifier.BoundToken(ctx, view, raw, c.leaf())
}

// bearer returns the one bearer token of the call, "" if it has none.
func bearer(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", vocab.Errorf(vocab.ReasonTokenInvalid, "the call carries more than one token")
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", vocab.Errorf(vocab.ReasonTokenInvalid, "the authorization is not of the form Bearer TOKEN")
	}
	return token, nil
}

func (d *door) readPeer(ctx context.Context, c *call) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		c.peer = host
	}
	c.network = networkOf(p.Addr)
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 && len(info.State.VerifiedChains[0]) > 0 {
		c.chain = info.State.VerifiedChains[0]
	}
}

// leaf is the connection's client certificate, nil if it has none.
func (c *call) leaf() *x509.Certificate {
	if len(c.chain) == 0 {
		return nil
	}
	return c.chain[0]
}
