package rms

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync/atomic"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// certificateIssuer stands for the issuer of identities that a client
// certificate proves.
const certificateIssuer = "x509"

// self is who a call is made as: the principals under which the server may
// know the caller. A token has one; a certificate one for each of its names,
// of which the server's operator has mapped one to a service.
type self [][32]byte

// as returns the one of the caller's principals that the server used, or the
// first, which then does not match.
func (s self) as(principal [32]byte) [32]byte {
	for _, p := range s {
		if p == principal {
			return p
		}
	}
	return s[0]
}

// tokenSelf reads from a token, without verifying it, whose it is: the server
// verifies, the caller only has to know itself.
func tokenSelf(token string) (self, error) {
	invalid := func() *Error {
		return vocab.Errorf(vocab.ReasonTokenInvalid, "the token to sign in with does not say whose it is").
			WithNext("Use a JWT with issuer and subject; if the provider's access tokens are opaque, its ID token")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return nil, invalid()
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, invalid()
	}
	// Decoded into a map: a struct would also take names of other case.
	var claims map[string]json.RawMessage
	var issuer, subject string
	if json.Unmarshal(b, &claims) != nil || json.Unmarshal(claims["iss"], &issuer) != nil || json.Unmarshal(claims["sub"], &subject) != nil ||
		issuer == "" || subject == "" {
		return nil, invalid()
	}
	return self{canon.PrincipalID(issuer, subject)}, nil
}

// presenter presents the client certificate of a TLS configuration and
// remembers which it was.
type presenter struct {
	leaf atomic.Pointer[x509.Certificate]
}

// install returns a copy of a TLS configuration that asks the presenter.
func (p *presenter) install(config *tls.Config) *tls.Config {
	next := config.Clone()
	choose := config.GetClientCertificate
	if choose == nil {
		certificates := config.Certificates
		choose = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			for i := range certificates {
				if info.SupportsCertificate(&certificates[i]) == nil {
					return &certificates[i], nil
				}
			}
			return new(tls.Certificate), nil // none: the server answers
		}
	}
	next.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := choose(info)
		if err != nil || cert == nil || len(cert.Certificate) == 0 {
			return cert, err
		}
		leaf := cert.Leaf
		if leaf == nil {
			if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
				return nil, err
			}
		}
		p.leaf.Store(leaf)
		return cert, nil
	}
	return next
}

// self returns the principals of the certificate that was presented
// last.
func (p *presenter) self() (self, error) {
	leaf := p.leaf.Load()
	if leaf == nil {
		return nil, vocab.Errorf(vocab.ReasonTokenMissing, "no client certificate was presented to the server")
	}
	var s self
	for _, u := range leaf.URIs {
		s = append(s, canon.PrincipalID(certificateIssuer, u.String()))
	}
	for _, name := range leaf.DNSNames {
		s = append(s, canon.PrincipalID(certificateIssuer, strings.ToLower(name)))
	}
	if len(s) == 0 {
		return nil, vocab.Errorf(vocab.ReasonCertificateNotMapped, "the client certificate has neither a URI nor a DNS name").
			WithNext("Use a certificate that names the service")
	}
	return s, nil
}

// signIn fixes the identity of the calls that follow with the context, and
// says how to find out whose it is once they were made. subject is the token
// of the person a service acts for, "" if it acts for itself.
func (c *Client) signIn(ctx context.Context, subject string) (context.Context, func() (self, error), error) {
	if c.calls.token != nil {
		token, err := c.calls.fetchToken(ctx)
		if err != nil {
			return nil, nil, err
		}
		ctx = withToken(ctx, token)
		if subject == "" {
			subject = token
		}
	}
	if subject == "" {
		return ctx, c.presenter.self, nil
	}
	who, err := tokenSelf(subject)
	return ctx, func() (self, error) { return who, nil }, err
}
