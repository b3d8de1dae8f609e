package daemon

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
)

// pairs are the server's TLS files and an authority to make new ones.
type pairs struct {
	authority *daemontest.Authority
	files     config.TLS
}

func newPairs(t *testing.T) *pairs {
	t.Helper()
	a, err := daemontest.NewAuthority("TEST authority")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := &pairs{authority: a, files: config.TLS{
		Certificate: filepath.Join(dir, "server.pem"), Key: filepath.Join(dir, "server.key"), ClientCA: filepath.Join(dir, "ca.pem"),
	}}
	p.write(t, p.files.ClientCA, a.PEM)
	p.certify(t, "first")
	return p
}

func (p *pairs) write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certify gives the server a new certificate.
func (p *pairs) certify(t *testing.T, name string) {
	t.Helper()
	pair, err := p.authority.Server(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(p.files.Certificate, p.files.Key); err != nil {
		t.Fatal(err)
	}
}

func (p *pairs) load(t *testing.T, log io.Writer) *certificates {
	t.Helper()
	c, err := loadCertificates(p.files, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shake connects once and returns the server's name and both sides' errors.
func shake(t *testing.T, server *tls.Config, client *tls.Config) (name string, clientErr, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(b, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("."))
		}
		done <- err
		_ = b.Close()
	}()
	client.ServerName = "localhost"
	c := tls.Client(a, client)
	clientErr = c.Handshake()
	if clientErr == nil {
		name = c.ConnectionState().PeerCertificates[0].Subject.CommonName
		// A refusal of the client's certificate comes after its handshake.
		_, clientErr = c.Read(make([]byte, 1))
	}
	_ = a.Close()
	return name, clientErr, <-done
}

func TestNewCertificatesAreTakenOver(t *testing.T) {
	p := newPairs(t)
	c := p.load(t, io.Discard)
	server := c.config() // the one the listener keeps
	served := func() string {
		t.Helper()
		name, err, _ := shake(t, server, &tls.Config{RootCAs: p.authority.Pool, MinVersion: tls.VersionTLS13})
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	reload := func(changed bool) {
		t.Helper()
		if got, err := c.load(); err != nil || got != changed {
			t.Fatalf("reload says changed %v (%v), want %v", got, err, changed)
		}
	}
	if got := served(); got != "first" {
		t.Errorf("the server is %q, want first", got)
	}
	reload(false)
	p.certify(t, "second")
	if got := served(); got != "first" {
		t.Errorf("before the reload the server is %q, want first", got)
	}
	reload(true)
	reload(false)
	if got := served(); got != "second" {
		t.Errorf("the server is %q, want second", got)
	}
}

func TestFilesThatDoNotFitKeepTheOldOnes(t *testing.T) {
	other, err := daemontest.NewAuthority("another TEST authority")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Server("foreign")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, *pairs)
		want   string
	}{
		{"the key of another certificate", func(t *testing.T, p *pairs) { p.write(t, p.files.Key, foreign.Key) }, "tls.certificate"},
		{"the certificate of another key", func(t *testing.T, p *pairs) { p.write(t, p.files.Certificate, foreign.Certificate) }, "tls.certificate"},
		{"a certificate cut short", func(t *testing.T, p *pairs) { p.write(t, p.files.Certificate, foreign.Certificate[:200]) }, "tls.certificate"},
		{"an empty key", func(t *testing.T, p *pairs) { p.write(t, p.files.Key, nil) }, "tls.certificate"},
		{"no certificate", func(t *testing.T, p *pairs) { remove(t, p.files.Certificate) }, "tls.certificate"},
		{"no key", func(t *testing.T, p *pairs) { remove(t, p.files.Key) }, "tls.key"},
		{"no authority", func(t *testing.T, p *pairs) { remove(t, p.files.ClientCA) }, "tls.client_ca"},
		{"an authority without a certificate", func(t *testing.T, p *pairs) { p.write(t, p.files.ClientCA, []byte("TEST")) }, "tls.client_ca"},
		{"an empty authority", func(t *testing.T, p *pairs) { p.write(t, p.files.ClientCA, nil) }, "tls.client_ca"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPairs(t)
			certs := p.load(t, io.Discard)
			server := certs.config()
			c.damage(t, p)
			if _, err := loadCertificates(p.files, slog.New(slog.DiscardHandler)); vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("a start with it: %v, want CONFIGURATION_INVALID that says %s", err, c.want)
			}
			changed, err := certs.load()
			if changed || vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("a reload of it: changed %v, %v; want CONFIGURATION_INVALID that says %s", changed, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Errorf("%q shows the file", err)
			}
			if name, err, _ := shake(t, server, &tls.Config{RootCAs: p.authority.Pool, MinVersion: tls.VersionTLS13}); name != "first" || err != nil {
				t.Errorf("the server is %q (%v), want the old one", name, err)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// A reload looks at everything before it takes anything over.
func TestPreparedFilesAreNotYetServed(t *testing.T) {
	p := newPairs(t)
	c := p.load(t, io.Discard)
	p.certify(t, "second")
	take, err := c.prepare()
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{RootCAs: p.authority.Pool, MinVersion: tls.VersionTLS13}
	if name, _, _ := shake(t, c.config(), client); name != "first" {
		t.Errorf("before it is taken over the server is %q, want first", name)
	}
	if !take() {
		t.Error("taking it over changed nothing")
	}
	if name, _, _ := shake(t, c.config(), client); name != "second" {
		t.Errorf("the server is %q, want second", name)
	}
}

func TestClientCertificates(t *testing.T) {
	other, err := daemontest.NewAuthority("another TEST authority")
	if err != nil {
		t.Fatal(err)
	}
	const dlp = "spiffe://contoso.test/dlp"
	p := newPairs(t)
	ours := daemontest.ServiceCertificate(t, p.authority, dlp)
	theirs := daemontest.ServiceCertificate(t, other, dlp)
	for _, c := range []struct {
		name    string
		present []tls.Certificate
		reload  func(*testing.T, *pairs)
		refused bool
	}{
		{"none", nil, nil, false},
		{"of our authority", []tls.Certificate{ours}, nil, false},
		{"of another authority", []tls.Certificate{theirs}, nil, true},
		{"of an authority that was replaced", []tls.Certificate{ours}, func(t *testing.T, p *pairs) { p.write(t, p.files.ClientCA, other.PEM) }, true},
		{"of an authority that was added", []tls.Certificate{theirs}, func(t *testing.T, p *pairs) {
			p.write(t, p.files.ClientCA, bytes.Join([][]byte{p.authority.PEM, other.PEM}, nil))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.write(t, p.files.ClientCA, p.authority.PEM)
			certs := p.load(t, io.Discard)
			server := certs.config()
			if c.reload != nil {
				c.reload(t, p)
				if changed, err := certs.load(); !changed || err != nil {
					t.Fatalf("reload: %v, %v", changed, err)
				}
			}
			client := &tls.Config{RootCAs: p.authority.Pool, MinVersion: tls.VersionTLS13}
			if c.present != nil {
				// Presented whatever authorities the server names.
				client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.present[0], nil }
			}
			_, clientErr, serverErr := shake(t, server, client)
			if (clientErr != nil) != c.refused || (serverErr != nil) != c.refused {
				t.Errorf("client %v, server %v; refused: want %v", clientErr, serverErr, c.refused)
			}
		})
	}
}

func TestNothingOlderThanTLS13(t *testing.T) {
	p := newPairs(t)
	client := &tls.Config{RootCAs: p.authority.Pool, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	if _, err, _ := shake(t, p.load(t, io.Discard).config(), client); err == nil {
		t.Error("a client with TLS 1.2 was served")
	}
}

func TestTheCertificateIsForThePublicName(t *testing.T) {
	p := newPairs(t)
	c := p.load(t, io.Discard)
	for name, ok := range map[string]bool{
		"localhost:7443": true, "127.0.0.1:7443": true, "[::1]:7443": true, "0.0.0.0:7443": true, "[::]:7443": true, ":7443": true,
		"rms.contoso.test:7443": false, "127.0.0.2:7443": false, "localhost": false,
	} {
		if err := c.covers(name); (err == nil) != ok || err != nil && vocab.ReasonOf(err) != vocab.ReasonConfigurationInvalid {
			t.Errorf("%s: %v, want accepted: %v", name, err, ok)
		}
	}
}

// watch takes new files over by itself, says so, and says what it cannot use.
func TestCertificatesAreWatched(t *testing.T) {
	p := newPairs(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := p.load(t, &log)
		go c.watch(t.Context())
		leaf := func() *x509.Certificate { return c.current.Load().Certificates[0].Leaf }
		pass := func() {
			time.Sleep(reloadEvery)
			synctest.Wait()
		}
		pass()
		if log.Len() > 0 {
			t.Errorf("nothing changed, but the log says %s", &log)
		}
		p.certify(t, "second")
		pass()
		if got := leaf().Subject.CommonName; got != "second" {
			t.Errorf("the server is %q, want second", got)
		}
		if !strings.Contains(log.String(), "TLS files reloaded") {
			t.Errorf("the log does not say so: %s", &log)
		}
		log.Reset()
		p.write(t, p.files.Key, []byte("TEST"))
		pass()
		if got := leaf().Subject.CommonName; got != "second" || !strings.Contains(log.String(), "the old ones are kept") {
			t.Errorf("with a bad key the server is %q, and the log says %s", got, &log)
		}
		p.certify(t, "third")
		pass()
		if got := leaf().Subject.CommonName; got != "third" {
			t.Errorf("the server is %q, want third", got)
		}
	})
}
