package rmsctl_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/devidp"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// harness is a whole daemon in the test's process with real sign-in, and a
// folder with a context for each test user.
type harness struct {
	daemon  *daemon.Daemon
	contoso *devidp.Provider
	folder  contexts.Folder
	address string
	ca      string // path of the authority
}

// startDaemon starts it for the test's life.
func startDaemon(t *testing.T) *harness {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmsctl-*") //nolint:usetesting // short: a socket's path is limited
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	contoso, err := devidp.Start(devidp.Options{Lifetime: time.Hour})
	check(t, err)
	t.Cleanup(func() { _ = contoso.Close() })
	fabrikam, err := devidp.Start(devidp.Options{Users: devidp.FabrikamUsers()})
	check(t, err)
	t.Cleanup(func() { _ = fabrikam.Close() })

	ca := writeCertificate(t, dir)
	write := func(name, text string) {
		t.Helper()
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("rmsd.yaml", fmt.Sprintf(`
listen: 127.0.0.1:0
public_name: localhost:7443
data_dir: data
tls: {certificate: server.pem, key: server.key}
identity_providers:
  dev-contoso: {issuer: %q, audiences: [rms], cli_client_id: rmsctl, addresses: {claims: [email], domains: [contoso.test]}, claims: {groups: groups, group_form: address, mfa: {amrs: [mfa]}}}
  dev-fabrikam: {issuer: %q, audiences: [rms], cli_client_id: rmsctl, addresses: {claims: [email], domains: [fabrikam.test]}}
tenants_dir: tenants.d
`, contoso.Issuer(), fabrikam.Issuer()))
	write("tenants.d/contoso.yaml", `
id: contoso
domains: [contoso.test]
admins: ["user:alice@contoso.test"]
roles:
  policy-admin: ["user:alice@contoso.test", "user:carla@contoso.test"]
  key-custodian: ["user:carla@contoso.test"]
  auditor: ["user:erin@contoso.test"]
providers: [dev-contoso]
guest_providers: [dev-fabrikam]
custodian: {embedded: {}}
`)
	cfg, err := config.Load(filepath.Join(dir, "rmsd.yaml"))
	check(t, err)
	d, err := daemon.Start(t.Context(), cfg, daemon.Options{Log: slog.New(slog.DiscardHandler), Development: true})
	check(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	check(t, d.Ready(t.Context()))
	h := &harness{daemon: d, contoso: contoso, folder: contexts.At(filepath.Join(dir, "config")), address: d.Addr(), ca: ca}
	h.writeContexts(t, contoso, fabrikam)
	return h
}

// writeContexts gives every test user a context dev-NAME with a token.
func (h *harness) writeContexts(t *testing.T, providers ...*devidp.Provider) {
	t.Helper()
	pool := x509.NewCertPool()
	pemBytes, err := os.ReadFile(h.ca)
	check(t, err)
	pool.AppendCertsFromPEM(pemBytes)
	conn, err := grpc.NewClient(h.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})))
	check(t, err)
	defer conn.Close()
	trust, err := rmsv1.NewProtectionServiceClient(conn).GetTrust(t.Context(), &rmsv1.GetTrustRequest{})
	check(t, err)
	id, err := vocab.ParseTenantID(trust.GetTenantId())
	check(t, err)
	for _, p := range providers {
		for _, user := range p.Logins() {
			token, err := p.MintToken(user)
			check(t, err)
			check(t, contexts.WritePrivate(filepath.Join(h.folder.Path(), "tokens", user), []byte(token+"\n")))
			check(t, h.folder.Write(&contexts.Context{
				Name: "dev-" + user, Server: h.address, CA: string(pemBytes), Tenant: "contoso", TenantID: id,
				Roots: []contexts.KeyID{contexts.KeyID(trust.GetRootKeyIds()[0])}, TokenFile: "tokens/" + user, Development: true,
			}))
		}
	}
}

func writeCertificate(t *testing.T, dir string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rmsctl test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	check(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	check(t, err)
	path := filepath.Join(dir, "server.pem")
	check(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "server.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return path
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
