package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/license"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// honest is the client of the SDK for a person of contoso, as people use it,
// at an address: the daemon's, or that of whoever is in between.
func (s *site) honest(t *testing.T, login, address string, now func() time.Time) *rms.Client {
	t.Helper()
	token, err := s.idp[contoso].MintToken(login)
	must(t, err)
	pinned := s.trust[contoso]
	trust := rms.Trust{TenantID: pinned.TenantID, Bundle: pinned.Bundle}
	for _, r := range pinned.Roots {
		trust.RootKeyIDs = append(trust.RootKeyIDs, r)
	}
	tlsConfig := s.clientTLS(nil)
	c, err := rms.Dial(t.Context(), rms.Config{
		Address: address, Tenant: contoso, TLS: tlsConfig, Trust: trust, Now: now,
		Token: func(context.Context) (string, error) { return token, nil },
	})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// protect makes a document for the given people with the SDK and returns the
// file.
func (s *site) protect(t *testing.T, login string, content []byte, o rms.ProtectOptions, grants ...*rmsv1.Grant) (file []byte, id rms.ContentID) {
	t.Helper()
	var b bytes.Buffer
	if o.Template == "" {
		o.AdHoc = rms.AdHoc(grants...)
	}
	p, err := s.honest(t, login, s.daemon.Addr(), nil).Protect(t.Context(), &b, bytes.NewReader(content), o)
	must(t, err)
	return b.Bytes(), p.License
}

// read opens a file with the SDK and returns what it gave before any error.
func read(ctx context.Context, c *rms.Client, file []byte, options ...rms.OpenOption) ([]byte, *rms.Document, error) {
	d, err := c.Open(ctx, bytes.NewReader(file), int64(len(file)), rms.RightView, options...)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	var out bytes.Buffer
	_, err = d.WriteTo(&out)
	return out.Bytes(), d, err
}

// between is a server in the middle: it has a certificate the client accepts,
// passes calls on to the daemon with the client's own token, and changes what
// it likes.
type between struct {
	rmsv1.UnimplementedProtectionServiceServer
	daemon rmsv1.ProtectionServiceClient
	// request and answer change what passes; nil: nothing.
	request func(*rmsv1.AcquireRequest)
	answer  func(*rmsv1.AcquireResponse)
	// token replaces the client's.
	token string
}

// inBetween starts one and returns its address.
func (s *site) inBetween(t *testing.T) (*between, string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	b := &between{daemon: rmsv1.NewProtectionServiceClient(s.conn("", nil))}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})))
	rmsv1.RegisterProtectionServiceServer(server, b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return b, l.Addr().String()
}

func (b *between) forward(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	token := md.Get("authorization")
	if b.token != "" {
		token = []string{"Bearer " + b.token}
	}
	if len(token) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", token[0])
}

func (b *between) GetTrust(ctx context.Context, req *rmsv1.GetTrustRequest) (*rmsv1.GetTrustResponse, error) {
	return b.daemon.GetTrust(ctx, req)
}

func (b *between) Acquire(ctx context.Context, req *rmsv1.AcquireRequest) (*rmsv1.AcquireResponse, error) {
	if b.request != nil {
		b.request(req)
	}
	resp, err := b.daemon.Acquire(b.forward(ctx), req)
	if err == nil && b.answer != nil {
		b.answer(resp)
	}
	return resp, err
}

// licenseIn is the publishing license in a file.
func licenseIn(t *testing.T, file []byte) *document {
	t.Helper()
	h, err := readHeader(file)
	must(t, err)
	raw, err := h.License()
	must(t, err)
	pl, err := license.ParsePL(raw)
	must(t, err)
	return &document{content: pl.Content, pl: raw, parsed: pl, name: "tenants/" + contoso + "/licenses/" + pl.Content.String()}
}
