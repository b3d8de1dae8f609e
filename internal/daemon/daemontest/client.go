package daemontest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Client is a connection to a daemon on which people and services call. What it
// gets it verifies down to the root that it saw first.
type Client struct {
	Conn   *grpc.ClientConn
	Tenant string

	verifier *license.Verifier
}

// Dial makes a client of a tenant, with an optional client certificate. It
// connects at the first call.
func Dial(address, tenant string, pool *x509.CertPool, certificates ...tls.Certificate) (*Client, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(
		credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13, Certificates: certificates})))
	if err != nil {
		return nil, err
	}
	return &Client{Conn: conn, Tenant: tenant}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.Conn.Close() }

// Who makes a call: the holder of a token, or of the connection's certificate.
type Who struct {
	token     string
	principal [32]byte
}

// Person is whoever holds an access token.
func Person(token string) (Who, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Who{}, errors.New("not a token")
	}
	var claims struct{ Iss, Sub string }
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(b, &claims)
	}
	return Who{token, canon.PrincipalID(claims.Iss, claims.Sub)}, err
}

// Service is a service that presents its certificate, by its SPIFFE ID.
func Service(uri string) Who { return Who{principal: canon.PrincipalID("x509", uri)} }

// Token returns the token, "" of a service.
func (w Who) Token() string { return w.token }

// Principal is whom licenses and deliveries are made for.
func (w Who) Principal() [32]byte { return w.principal }

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (w Who) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if w.token == "" {
		return nil, nil
	}
	return map[string]string{"authorization": "Bearer " + w.token}, nil
}

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (w Who) RequireTransportSecurity() bool { return true }

// As is the call option that signs a call.
func (w Who) As() grpc.CallOption { return grpc.PerRPCCredentials(w) }

// Document is what a client knows of a document.
type Document struct {
	PL      []byte
	License string // its resource name
	Key     *vocab.Secret
	Event   string
}

// pin takes the tenant's root over at first sight.
func (c *Client) pin(ctx context.Context) error {
	if c.verifier != nil {
		return nil
	}
	trust, err := FetchTrust(ctx, c.Conn, c.Tenant)
	if err != nil {
		return err
	}
	c.verifier, err = license.NewVerifier(trust.Bundle, trust.TenantID, trust.Roots, 0)
	return err
}

// Trust is what a daemon says of a tenant to whoever has pinned nothing yet.
type Trust struct {
	TenantID vocab.TenantID
	Roots    []license.KeyID
	// Bundle is unverified, and so is Certificate; the latter is empty while the
	// daemon has no key to sign licenses with.
	Bundle, Certificate []byte
}

// FetchTrust asks a daemon for the trust of a tenant.
func FetchTrust(ctx context.Context, conn grpc.ClientConnInterface, tenant string) (*Trust, error) {
	resp, err := rmsv1.NewProtectionServiceClient(conn).GetTrust(ctx, &rmsv1.GetTrustRequest{Parent: "tenants/" + tenant})
	if err != nil {
		return nil, err
	}
	t := &Trust{Bundle: resp.GetTrustBundle(), Certificate: resp.GetCertificate()}
	for _, r := range resp.GetRootKeyIds() {
		t.Roots = append(t.Roots, license.KeyID(r))
	}
	t.TenantID, err = vocab.ParseTenantID(resp.GetTenantId())
	return t, err
}

// Publish protects a document as the request says; parent and delivery are
// filled in.
func (c *Client) Publish(ctx context.Context, who Who, req *rmsv1.PublishRequest) (*Document, error) {
	if err := c.pin(ctx); err != nil {
		return nil, err
	}
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		return nil, err
	}
	req.Parent, req.Delivery = "tenants/"+c.Tenant, SealedTo(key)
	resp, err := rmsv1.NewProtectionServiceClient(c.Conn).Publish(ctx, req, who.As())
	if err != nil {
		return nil, err
	}
	pl, err := c.verifier.VerifyPL(resp.GetPublishingLicense())
	if err != nil {
		return nil, err
	}
	sealed := resp.GetContentKey().GetSealed()
	ck, err := key.OpenPublish(license.PublishDelivery{Enc: sealed.GetEnc(), Box: sealed.GetCiphertext()}, who.principal, pl)
	return &Document{PL: resp.GetPublishingLicense(), License: resp.GetLicense().GetName(), Key: ck, Event: resp.GetEvent()}, err
}

// Opened is what a client got for a document.
type Opened struct {
	Key    *vocab.Secret
	Rights []rmsv1.Right
	Event  string
}

// Acquire asks for the right to view a document. subject is the person a
// service acts for; nobody if nil.
func (c *Client) Acquire(ctx context.Context, who Who, pl []byte, subject *Who) (*Opened, error) {
	if err := c.pin(ctx); err != nil {
		return nil, err
	}
	doc, err := c.verifier.VerifyPL(pl)
	if err != nil {
		return nil, err
	}
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		return nil, err
	}
	req := &rmsv1.AcquireRequest{
		Parent: "tenants/" + c.Tenant, Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: pl},
		Right: rmsv1.Right_RIGHT_VIEW, Delivery: SealedTo(key),
	}
	principal := who.principal
	if subject != nil {
		req.SubjectToken, principal = subject.token, subject.principal
	}
	resp, err := rmsv1.NewProtectionServiceClient(c.Conn).Acquire(ctx, req, who.As())
	if err != nil {
		return nil, err
	}
	ul, err := c.verifier.VerifyUL(resp.GetUseLicense(), resp.GetCertificate(), license.Expect{
		Principal: principal, Recipient: key.Hash(), Content: doc.Content, Commitment: doc.Commitment, ContentSuite: doc.ContentSuite, Now: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	ck, err := key.OpenUL(resp.GetContentKey().GetSealed().GetEnc(), ul)
	return &Opened{Key: ck, Rights: resp.GetRights(), Event: resp.GetEvent()}, err
}

// SomeDelivery is a delivery to a key that nobody has.
func SomeDelivery() *rmsv1.KeyDelivery {
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		panic(err)
	}
	return SealedTo(key)
}

// SealedTo is the delivery to a recipient key.
func SealedTo(key *license.RecipientKey) *rmsv1.KeyDelivery {
	return &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Hpke{Hpke: &rmsv1.HpkePublicKey{Kem: uint32(key.KEM()), PublicKey: key.Public()}}}
}

// Refusal is what the service itself says of a failed call; nil, of which the
// getters return nothing, if that is not its answer.
func Refusal(err error) *errdetails.ErrorInfo {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "rms" {
			return info
		}
	}
	return nil
}

// Reason returns the reason a call was refused with, "" if the service named
// none.
func Reason(err error) vocab.Reason { return vocab.Reason(Refusal(err).GetReason()) }

// DialSocket makes a connection to an operator's socket.
func DialSocket(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
}
