package rms_test

import (
	"context"
	"crypto/hpke"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// liar is a server that has a tenant's keys and says whatever a test makes it
// say. Left alone it is honest.
type liar struct {
	rmsv1.UnimplementedProtectionServiceServer
	t      testing.TB
	tenant vocab.TenantID
	now    time.Time // when everything happens

	root, daemon *license.DaemonKey
	cert         *license.Certificate
	address      string
	tls          *tls.Config

	mu     sync.Mutex
	bundle *license.Bundle
	// Of the documents it made: content keys, and licenses by name.
	keys     map[vocab.ContentID]*vocab.Secret
	licenses map[string][]byte
	byID     []string // what was acquired by name alone

	// The lies.
	onPL      func(*license.PLInput)
	onPublish func(context.Context, *rmsv1.PublishRequest, *rmsv1.PublishResponse)
	onUL      func(*ulInput)
	onAcquire func(context.Context, *rmsv1.AcquireRequest, *rmsv1.AcquireResponse)

	trusts, publishes, acquires atomic.Int64
	// sent is what each call carried as authorization, by method.
	sent sync.Map
}

// ulInput is what a use license is made from.
type ulInput struct {
	license.UseLicense
	principal [32]byte
	recipient *license.Recipient
	signer    license.Signer
	cert      *license.Certificate
	key       *vocab.Secret
	// box, if set, is the content key that is sealed in place of key, which
	// the commitment is of.
	box *vocab.Secret
}

const liarIssuer, liarSubject = "https://idp.liar.test", "alice"

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newKey(t testing.TB) *license.DaemonKey {
	return must[*license.DaemonKey](t)(license.NewDaemonKey())
}

func newLiar(t testing.TB) *liar {
	t.Helper()
	l := &liar{
		t: t, tenant: vocab.NewTenantID(), now: time.Now().UTC().Truncate(time.Millisecond),
		root: newKey(t), daemon: newKey(t), keys: map[vocab.ContentID]*vocab.Secret{}, licenses: map[string][]byte{},
	}
	l.cert = l.certify(l.root, l.daemon, license.UsagePL|license.UsageUL)
	l.setBundle(5, l.root)

	// The certificate of httptest is for 127.0.0.1.
	web := httptest.NewUnstartedServer(nil)
	web.StartTLS()
	pool := x509.NewCertPool()
	pool.AddCert(web.Certificate())
	l.tls = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	pair := web.TLS.Certificates[0]
	web.Close()
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	l.address = listener.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})))
	rmsv1.RegisterProtectionServiceServer(server, l)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); served.Wait() })
	return l
}

func (l *liar) certify(root, subject *license.DaemonKey, usage license.Usage) *license.Certificate {
	return must[*license.Certificate](l.t)(license.IssueCertificate(context.Background(), root, license.Certificate{
		Tenant: l.tenant, IssuedAt: l.now.Add(-time.Hour), Subject: subject.PublicKey(), Usage: usage,
		NotBefore: l.now.Add(-time.Hour), NotAfter: l.now.Add(23 * time.Hour), Instance: "liar",
	}))
}

// setBundle makes the bundle the server gives out from now on. The first root
// is the current one, the others are previous ones; the second signs, too.
func (l *liar) setBundle(seq uint64, roots ...*license.DaemonKey) *license.Bundle {
	l.t.Helper()
	b := license.Bundle{
		Tenant: l.tenant, IssuedAt: l.now.Add(-time.Hour), Seq: seq, NextUpdate: l.now.Add(29 * 24 * time.Hour), Suites: license.DefaultSuites(),
	}
	var previous []license.Signer
	for i, r := range roots {
		root := license.Root{Key: r.PublicKey(), Version: uint32(len(roots) - i), State: license.RootPrevious}
		if i == 0 {
			root.State = license.RootCurrent
		} else if i == 1 {
			previous = append(previous, r)
		}
		b.Roots = append(b.Roots, root)
	}
	return l.giveOut(must[*license.Bundle](l.t)(license.SignBundle(context.Background(), b, roots[0], previous...)))
}

func (l *liar) giveOut(b *license.Bundle) *license.Bundle {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bundle = b
	return b
}

// config is that of a client that pinned the liar's root.
func (l *liar) config() rms.Config {
	return rms.Config{
		Address: l.address, Tenant: "liar", TLS: l.tls.Clone(), Product: "test", Now: func() time.Time { return l.now },
		Token: func(context.Context) (string, error) { return jwt(liarIssuer, liarSubject), nil },
		Trust: rms.Trust{TenantID: l.tenant, RootKeyIDs: [][32]byte{license.KeyIDOf(l.root.PublicKey())}, Bundle: l.bundle.Raw(), BundleSeq: l.bundle.Seq},
	}
}

func dial(t testing.TB, config rms.Config) *rms.Client {
	t.Helper()
	c := must[*rms.Client](t)(rms.Dial(context.Background(), config))
	t.Cleanup(func() { c.Close() })
	return c
}

// jwt is a token as far as a client looks at it: a test value.
func jwt(issuer, subject string) string {
	claims, _ := json.Marshal(map[string]string{"iss": issuer, "sub": subject})
	return "e30." + base64.RawURLEncoding.EncodeToString(claims) + ".c2ln"
}

func (l *liar) GetTrust(ctx context.Context, _ *rmsv1.GetTrustRequest) (*rmsv1.GetTrustResponse, error) {
	l.trusts.Add(1)
	md, _ := metadata.FromIncomingContext(ctx)
	l.sent.Store("GetTrust", len(md.Get("authorization")))
	l.mu.Lock()
	defer l.mu.Unlock()
	root := license.KeyIDOf(l.root.PublicKey())
	return &rmsv1.GetTrustResponse{
		Tenant: "tenants/liar", TenantId: l.tenant.String(), RootKeyIds: [][]byte{root[:]}, TrustBundle: l.bundle.Raw(),
	}, nil
}

func (l *liar) Publish(ctx context.Context, req *rmsv1.PublishRequest) (*rmsv1.PublishResponse, error) {
	l.publishes.Add(1)
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		l.sent.Store("Publish", len(md.Get("authorization")))
	}
	ck := vocab.NewSecret() // test value
	in := license.PLInput{IssuedAt: l.now, Content: vocab.NewContentID(), Generation: vocab.NewGenerationID(), Seq: 1}
	if l.onPL != nil {
		l.onPL(&in)
	}
	pl, err := license.MakePL(ctx, l.daemon, l.cert, in, vocab.NewSecret(), ck, &policy.Policy{
		Owner: vocab.Principal{Kind: vocab.KindUser, Value: "alice@liar.test"}, Issuer: policy.Issuer{Issuer: liarIssuer, Subject: liarSubject},
		Template: vocab.NewTemplateUID(),
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.keys[pl.Content] = ck
	l.licenses["tenants/liar/licenses/"+pl.Content.String()] = pl.Raw()
	l.mu.Unlock()
	to, err := recipientOf(req.GetDelivery())
	if err != nil {
		return nil, err
	}
	d, err := license.DeliverPublish(to, canon.PrincipalID(liarIssuer, liarSubject), pl, ck)
	if err != nil {
		return nil, err
	}
	resp := &rmsv1.PublishResponse{
		License: &rmsv1.License{Name: req.GetParent() + "/licenses/" + pl.Content.String()}, PublishingLicense: pl.Raw(), Event: vocab.NewEventID().String(),
		ContentKey: sealed(d.Enc, d.Box),
	}
	if l.onPublish != nil {
		l.onPublish(ctx, req, resp)
	}
	return resp, nil
}

func (l *liar) Acquire(ctx context.Context, req *rmsv1.AcquireRequest) (*rmsv1.AcquireResponse, error) {
	l.acquires.Add(1)
	raw := req.GetPublishingLicense()
	if id := req.GetLicense(); id != "" {
		l.mu.Lock()
		l.byID = append(l.byID, id)
		raw = l.licenses[id]
		l.mu.Unlock()
	}
	pl, err := license.ParsePL(raw)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	key := l.keys[pl.Content]
	l.mu.Unlock()
	to, err := recipientOf(req.GetDelivery())
	if err != nil {
		return nil, err
	}
	in := &ulInput{
		UseLicense: license.UseLicense{
			IssuedAt: l.now, Content: pl.Content, Commitment: pl.Commitment, ContentSuite: pl.ContentSuite, ID: vocab.NewEventID(),
			Rights: vocab.RightsOf(vocab.RightView, vocab.RightExport), NotBefore: l.now, NotAfter: l.now.Add(time.Hour),
			Policy: license.PolicyRef{Revision: 1}, Custody: license.Custody{Mode: vocab.CustodyCached}, Leaf: [32]byte{1},
		},
		principal: canon.PrincipalID(liarIssuer, liarSubject), recipient: to, signer: l.daemon, cert: l.cert, key: key,
	}
	if l.onUL != nil {
		l.onUL(in)
	}
	d, err := license.NewDelivery(in.recipient, in.cert.Tenant, in.principal)
	if err != nil {
		return nil, err
	}
	ul, err := d.UseLicense(ctx, in.signer, in.cert, in.UseLicense, in.key)
	if err != nil {
		return nil, err
	}
	resp := &rmsv1.AcquireResponse{
		UseLicense: ul.Raw(), Certificate: in.cert.Raw(), ContentKey: sealed(d.Enc(), ul.Box()), Rights: []rmsv1.Right{rmsv1.Right_RIGHT_OWNER},
	}
	if in.box != nil {
		if err := l.reseal(resp, req.GetDelivery().GetHpke(), in); err != nil {
			return nil, err
		}
	}
	if l.onAcquire != nil {
		l.onAcquire(ctx, req, resp)
	}
	return resp, nil
}

// reseal seals another content key under a use license whose header keeps the
// true commitment, and signs that. Its own code, since package license refuses
// to make such a thing.
func (l *liar) reseal(resp *rmsv1.AcquireResponse, to *rmsv1.HpkePublicKey, in *ulInput) error {
	suite, err := hpke.NewKEM(uint16(to.GetKem()))
	if err != nil {
		return err
	}
	public, err := suite.NewPublicKey(to.GetPublicKey())
	if err != nil {
		return err
	}
	hash := in.recipient.Hash()
	info := canon.D("rms/v1/ul", canon.Fields{2: l.tenant, 129: in.principal[:], 130: uint16(to.GetKem()), 131: hash[:]})
	enc, sender, err := hpke.NewSender(public, hpke.HKDFSHA256(), hpke.ExportOnly(), info)
	if err != nil {
		return err
	}
	e, err := license.ParseEnvelope(resp.GetUseLicense())
	if err != nil {
		return err
	}
	var fields map[uint64]cbor.RawMessage
	if err := cbor.Unmarshal(e.Header, &fields); err != nil {
		return err
	}
	encHash := canon.Hash(enc)
	if fields[132], err = canon.Marshal(encHash[:]); err != nil {
		return err
	}
	header, err := canon.Marshal(fields)
	if err != nil {
		return err
	}
	headerHash := canon.Hash(header)
	exported, err := sender.Export("rms/v1/ul-key\x00"+string(headerHash[:]), 32)
	if err != nil {
		return err
	}
	box := canon.Seal(vocab.SecretFrom(exported), nil, in.box.Reveal())
	payload, err := canon.Marshal([][]byte{header, box})
	if err != nil {
		return err
	}
	m := cose.NewSign1Message()
	kid := license.KeyIDOf(in.signer.PublicKey())
	m.Headers.Protected = cose.ProtectedHeader{
		cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA, cose.HeaderLabelContentType: "application/vnd.rms.ul+cbor", cose.HeaderLabelKeyID: kid[:],
	}
	m.Payload = payload
	if err := m.Sign(nil, []byte("rms/v1/ul"), signWith{in.signer}); err != nil {
		return err
	}
	raw, err := m.MarshalCBOR()
	if err != nil {
		return err
	}
	resp.UseLicense, resp.ContentKey = raw, sealed(enc, box)
	return nil
}

func recipientOf(d *rmsv1.KeyDelivery) (*license.Recipient, error) {
	return license.ParseRecipient(license.KEM(d.GetHpke().GetKem()), d.GetHpke().GetPublicKey(), []license.KEM{license.XWing})
}

func sealed(enc, box []byte) *rmsv1.DeliveredKey {
	return &rmsv1.DeliveredKey{How: &rmsv1.DeliveredKey_Sealed{Sealed: &rmsv1.SealedKey{Kem: uint32(license.XWing), Enc: enc, Ciphertext: box}}}
}

// signWith lets a license.Signer sign for go-cose.
type signWith struct{ s license.Signer }

func (signWith) Algorithm() cose.Algorithm { return cose.AlgorithmEdDSA }

func (w signWith) Sign(_ io.Reader, content []byte) ([]byte, error) {
	return w.s.Sign(context.Background(), content)
}
