package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/vocab"
)

// reloadEvery is how often certificate files are looked at.
const reloadEvery = 10 * time.Second

// certificates holds the server's certificate and the authorities of client
// certificates as they are on disk. A change that does not fit together is
// logged, and what was there is kept.
type certificates struct {
	files   config.TLS
	log     *slog.Logger
	current atomic.Pointer[tls.Config]
	mu      sync.Mutex // guards read, and current against two that take over
	read    [3][]byte
}

func loadCertificates(files config.TLS, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, log: log}
	_, err := c.load()
	return c, err
}

// config is the server's TLS configuration. Each connection takes what is
// current.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil },
	}
}

// load reads the files again and reports whether anything changed.
func (c *certificates) load() (changed bool, err error) {
	take, err := c.prepare()
	return err == nil && take(), err
}

// prepare reads the files again and returns what takes them over, so that a
// reload can look at everything else first. take reports whether anything
// changed.
func (c *certificates) prepare() (take func() (changed bool), err error) {
	bad := func(what string, err error) error {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "tls.%s: %w", what, err)
	}
	var now [3][]byte
	for i, f := range []struct{ what, path string }{
		{"certificate", c.files.Certificate}, {"key", c.files.Key}, {"client_ca", c.files.ClientCA},
	} {
		if f.path == "" {
			continue
		}
		if now[i], err = os.ReadFile(f.path); err != nil {
			return nil, bad(f.what, err)
		}
	}
	pair, err := tls.X509KeyPair(now[0], now[1])
	if err != nil {
		return nil, bad("certificate", err)
	}
	next := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
	if now[2] != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(now[2]) {
			return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "tls.client_ca: %s holds no certificate", c.files.ClientCA)
		}
		next.ClientCAs, next.ClientAuth = pool, tls.VerifyClientCertIfGiven
	}
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.current.Load() != nil && bytes.Equal(now[0], c.read[0]) && bytes.Equal(now[1], c.read[1]) && bytes.Equal(now[2], c.read[2]) {
			return false
		}
		c.current.Store(next)
		c.read = now
		return true
	}, nil
}

// covers reports whether clients that know the server by a public name will
// accept its certificate.
func (c *certificates) covers(publicName string) error {
	host, _, err := net.SplitHostPort(publicName)
	if err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "public_name: %w", err)
	}
	leaf := c.current.Load().Certificates[0].Leaf
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		return nil // public_name was not set, and listen names every address
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the certificate is not for the public name: %w", err).
			WithNext("Get a certificate for %s, or correct public_name", host)
	}
	return nil
}

// watch reloads the files when they change.
func (c *certificates) watch(ctx context.Context) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch changed, err := c.load(); {
		case err != nil:
			c.log.Error("the TLS files cannot be used; the old ones are kept", "error", err)
		case changed:
			c.log.Info("TLS files reloaded")
		}
	}
}
