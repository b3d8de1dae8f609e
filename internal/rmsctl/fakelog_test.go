package rmsctl

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// fakeLog is a server whose log lies in ways a real one cannot be made to:
// it signs what it is told to and sends what it is told to.
type fakeLog struct {
	rmsv1.UnimplementedProtectionServiceServer
	rmsv1.UnimplementedAuditServiceServer

	tenant       vocab.TenantID
	root, daemon testSigner
	seq          uint64
	usage        license.Usage
	life         time.Duration // of the certificate

	honest [][]byte // what the tree was built from
	sent   [][]byte // what is sent; nil: honest
	shown  func(*rmsv1.Event)
	size   int // of the checkpoint; 0: all
}

type testSigner struct{ ed25519.PrivateKey }

func newTestSigner() testSigner {
	_, k, _ := ed25519.GenerateKey(rand.Reader)
	return testSigner{k}
}

func (s testSigner) PublicKey() ed25519.PublicKey { return s.Public().(ed25519.PublicKey) }

func (s testSigner) Sign(_ context.Context, m []byte) ([]byte, error) {
	return ed25519.Sign(s.PrivateKey, m), nil
}

func newFakeLog(events int) *fakeLog {
	f := &fakeLog{
		tenant: vocab.TenantID{0xc0, 1}, root: newTestSigner(), daemon: newTestSigner(), seq: 1,
		usage: license.UsageCheckpoint, life: 24 * time.Hour,
	}
	f.grow(events)
	return f
}

func (f *fakeLog) grow(events int) {
	for range events {
		e := audit.Event{ID: vocab.NewEventID(), Tenant: f.tenant, Time: time.Now(), Kind: audit.KindReleased, Detail: "test value"}
		b, err := e.Encode()
		if err != nil {
			panic(err)
		}
		f.honest = append(f.honest, b)
	}
}

func (f *fakeLog) events() [][]byte {
	if f.sent != nil {
		return f.sent
	}
	return f.honest
}

func (f *fakeLog) hashes() tlog.HashReaderFunc {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	for i, leaf := range f.honest {
		h, err := tlog.StoredHashes(int64(i), leaf, reader)
		if err != nil {
			panic(err)
		}
		stored = append(stored, h...)
	}
	return reader
}

func (f *fakeLog) GetTrust(ctx context.Context, _ *rmsv1.GetTrustRequest) (*rmsv1.GetTrustResponse, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	b, err := license.SignBundle(ctx, license.Bundle{
		Tenant: f.tenant, IssuedAt: now, Seq: f.seq, Suites: license.DefaultSuites(), NextUpdate: now.Add(24 * time.Hour),
		Roots: []license.Root{{Key: f.root.PublicKey(), Version: 1, State: license.RootCurrent}},
	}, f.root)
	if err != nil {
		return nil, err
	}
	id := license.KeyIDOf(f.root.PublicKey())
	return &rmsv1.GetTrustResponse{
		Tenant: "tenants/contoso", TenantId: f.tenant.String(), RootKeyIds: [][]byte{id[:]}, TrustBundle: b.Raw(), ServerVersion: "test",
	}, nil
}

func (f *fakeLog) ListUsableTemplates(context.Context, *rmsv1.ListUsableTemplatesRequest) (*rmsv1.ListUsableTemplatesResponse, error) {
	return &rmsv1.ListUsableTemplatesResponse{}, nil
}

func (f *fakeLog) checkpointSize() int64 {
	if f.size != 0 {
		return int64(f.size)
	}
	return int64(len(f.honest))
}

func (f *fakeLog) GetCheckpoint(ctx context.Context, _ *rmsv1.GetCheckpointRequest) (*rmsv1.Checkpoint, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	cert, err := license.IssueCertificate(ctx, f.root, license.Certificate{
		Tenant: f.tenant, IssuedAt: now, Subject: f.daemon.PublicKey(), Usage: f.usage, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(f.life),
	})
	if err != nil {
		return nil, err
	}
	c := audit.Checkpoint{Tenant: f.tenant, Size: uint64(f.checkpointSize()), Time: now}
	if c.Size == 0 {
		c.Root = (&audit.Tree{}).Root()
	} else {
		root, err := tlog.TreeHash(int64(c.Size), f.hashes())
		if err != nil {
			return nil, err
		}
		c.Root = root
	}
	note, err := c.Sign(ctx, f.daemon)
	if err != nil {
		return nil, err
	}
	return &rmsv1.Checkpoint{Note: string(note), Size: int64(c.Size), RootHash: c.Root[:], Certificate: cert.Raw()}, nil
}

func (f *fakeLog) event(i int64) *rmsv1.Event {
	leaf := f.events()[i]
	out := &rmsv1.Event{Index: i}
	if e, err := audit.ParseEvent(leaf); err == nil {
		out.Name, out.Kind, out.Outcome = "tenants/contoso/events/"+e.ID.String(), e.Kind.String(), "OK"
	}
	if f.shown != nil {
		f.shown(out)
	}
	return out
}

func (f *fakeLog) ExportEvents(r *rmsv1.ExportEventsRequest, stream grpc.ServerStreamingServer[rmsv1.ExportEventsResponse]) error {
	to := r.GetToIndex()
	if to == 0 || to > int64(len(f.events())) {
		to = int64(len(f.events()))
	}
	for i := r.GetFromIndex(); i < to; i++ {
		if err := stream.Send(&rmsv1.ExportEventsResponse{Index: i, Leaf: f.events()[i], Event: f.event(i)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeLog) find(id string) int64 {
	for i, leaf := range f.honest {
		if e, err := audit.ParseEvent(leaf); err == nil && e.ID.String() == id {
			return int64(i)
		}
	}
	return 0
}

func (f *fakeLog) GetEvent(_ context.Context, r *rmsv1.GetEventRequest) (*rmsv1.Event, error) {
	return f.event(f.find(lastPart(r.GetName()))), nil
}

func (f *fakeLog) GetProof(_ context.Context, r *rmsv1.GetProofRequest) (*rmsv1.GetProofResponse, error) {
	out := &rmsv1.GetProofResponse{Size: r.GetSize()}
	var hashes []tlog.Hash
	var err error
	if r.GetEvent() != "" {
		out.Index = f.find(lastPart(r.GetEvent()))
		hashes, err = tlog.ProveRecord(r.GetSize(), out.Index, f.hashes())
	} else {
		hashes, err = tlog.ProveTree(r.GetSize(), r.GetFromSize(), f.hashes())
	}
	for _, h := range hashes {
		out.Hashes = append(out.Hashes, bytes.Clone(h[:]))
	}
	return out, err
}

// session is a user with a folder of contexts, at a server.
type session struct {
	t      *testing.T
	folder contexts.Folder
	now    func() time.Time
}

// serveLog starts the server and returns a user who pinned its root.
func serveLog(t *testing.T, f *fakeLog) *session {
	t.Helper()
	cert, ca := selfSigned(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})))
	rmsv1.RegisterProtectionServiceServer(server, f)
	rmsv1.RegisterAuditServiceServer(server, f)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)

	s := &session{t: t, folder: contexts.At(t.TempDir()), now: time.Now}
	if err := contexts.WritePrivate(s.folder.Path()+"/token", []byte("test-token")); err != nil {
		t.Fatal(err)
	}
	err = s.folder.Write(&contexts.Context{
		Name: "contoso", Server: listener.Addr().String(), CA: ca, Tenant: "contoso", TenantID: f.tenant, TokenFile: "token",
		Roots: []contexts.KeyID{contexts.KeyID(license.KeyIDOf(f.root.PublicKey()))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a command line and returns its exit code and what it printed.
func (s *session) run(args ...string) (exit int, stdout, stderr string) {
	s.t.Helper()
	var out, talk bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &talk, now: s.now, folder: s.folder}
	exit = a.main(s.t.Context(), args)
	return exit, out.String(), talk.String()
}

func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
