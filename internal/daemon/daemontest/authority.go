// Package daemontest has what tests of a whole daemon need from outside of it,
// here and below test: a folder with an operator's files, an authority that makes
// certificates, and a client that verifies everything it gets and opens the
// content keys.
package daemontest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"time"
)

// Authority makes certificates that live for a day.
type Authority struct {
	// PEM is the authority's own certificate, Pool the same for clients.
	PEM  []byte
	Pool *x509.CertPool

	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority with a new key.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{key: key, Pool: x509.NewCertPool()}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	pair, err := a.sign(a.cert, key)
	if err != nil {
		return nil, err
	}
	a.PEM = pair.Certificate
	a.Pool.AppendCertsFromPEM(a.PEM)
	return a, nil
}

// Pair is a certificate and its key, as the PEM files hold them.
type Pair struct{ Certificate, Key []byte }

// Server makes the certificate of a server on this machine.
func (a *Authority) Server(name string) (*Pair, error) {
	return a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// Service makes the client certificate of a service, by its SPIFFE ID.
func (a *Authority) Service(uri string) (*Pair, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	return a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: uri}, URIs: []*url.URL{u}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (a *Authority) issue(c *x509.Certificate) (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return a.sign(c, key)
}

func (a *Authority) sign(c *x509.Certificate, key *ecdsa.PrivateKey) (*Pair, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}, nil
}

// Write writes the pair to two files.
func (p *Pair) Write(certificate, key string) error {
	if err := os.WriteFile(certificate, p.Certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(key, p.Key, 0o600)
}

// TLS returns the pair for a client to present.
func (p *Pair) TLS() (tls.Certificate, error) { return tls.X509KeyPair(p.Certificate, p.Key) }
