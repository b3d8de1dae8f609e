package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// binaries are the real programs, built once.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "rms-bin-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binaries = dir
		build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "github.com/openrms/rms/cmd/rmsd", "github.com/openrms/rms/cmd/rmsctl")
		if out, err := build.CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// TestDemo runs the demonstration and then holds its claims against what it
// left behind: the events it quoted are in the log, who could open still can
// after a restart, who could not still cannot, and neither the content nor its
// key is anywhere in the clear.
func TestDemo(t *testing.T) {
	for _, c := range []struct {
		name  string
		vault bool
		size  int64
	}{
		{name: "embedded"},
		{name: "embedded 50 MB", size: 50 << 20},
		{name: "vault", vault: true},
		{name: "vault 50 MB", vault: true, size: 50 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.vault && testing.Short() {
				t.Skip("a real Vault is left out of short runs")
			}
			dir := t.TempDir()
			o := options{vault: c.vault, keep: true, dir: dir, bin: binaries}
			if c.size > 0 {
				o.file = filepath.Join(dir, "own.bin")
				writeOwnFile(t, o.file, c.size)
			}
			var out bytes.Buffer
			d := &demo{out: &out, options: o}
			t.Cleanup(func() {
				if err := d.close(); err != nil {
					t.Error(err)
				}
				if t.Failed() {
					t.Log(out.String())
				}
			})
			for _, step := range []func(context.Context) error{d.prepare, d.startVault, d.startDaemon, d.show} {
				if err := step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			bar(t, d)
		})
	}
}

// writeOwnFile writes a file whose 32-byte blocks are all different.
func writeOwnFile(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat(reportPDF(), int(size/1_300_000)+1)[:size]); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func bar(t *testing.T, d *demo) {
	ctx := t.Context()
	must := func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if len(d.events) < 3 {
		t.Fatalf("the demo quoted %d events, want one for each refusal", len(d.events))
	}
	for _, e := range d.events {
		must(d.rmsctl(ctx, "erin", exitOK, nil, "audit", "proof", strings.TrimPrefix(e, "event ")))
	}
	protected := filepath.Join(d.dir, filepath.Base(d.report)+".rms")
	must(d.rmsctl(ctx, "alice", exitOK, nil, "license", "restore", protected))
	if err := d.stopDaemon(); err != nil {
		t.Fatal(err)
	}
	if d.tenant != nil {
		// A wrapped secret ID is good for one start.
		if err := d.tenant.Deliver(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.startDaemon(ctx); err != nil {
		t.Fatal(err)
	}
	must(d.rmsctl(ctx, "bob", exitOK, []string{d.sum}, "open", protected, "--with", "sha256sum"))
	clear := filepath.Join(d.dir, "mallory.out")
	must(d.rmsctl(ctx, "mallory", exitRefused, []string{"NO_RIGHTS"}, "unprotect", protected, "-o", clear))
	if _, err := os.Stat(clear); !os.IsNotExist(err) {
		t.Error("a refused unprotect left a file")
	}
	key := contentKey(t, d, protected)
	defer key.Zero()
	if err := d.stopDaemon(); err != nil {
		t.Fatal(err)
	}
	plain, err := os.ReadFile(d.report)
	if err != nil {
		t.Fatal(err)
	}
	searchClear(t, d, plain, key)
}

// contentKey opens the document's content key as bob, with the protocol alone.
func contentKey(t *testing.T, d *demo, protected string) *vocab.Secret {
	t.Helper()
	c, err := contexts.At(filepath.Join(d.rmsdDir(), "contexts")).Read("dev-bob")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(c.CA))
	conn, err := grpc.NewClient(c.Server, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	token, err := os.ReadFile(c.TokenPath())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(protected)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	header, err := container.ReadHeader(f)
	if err != nil {
		t.Fatal(err)
	}
	pl, err := header.License()
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+strings.TrimSpace(string(token)))
	got, err := rmsv1.NewProtectionServiceClient(conn).Acquire(ctx, &rmsv1.AcquireRequest{
		Parent: "tenants/" + c.Tenant, Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: pl}, Right: rmsv1.Right_RIGHT_VIEW,
		Delivery: &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Hpke{Hpke: &rmsv1.HpkePublicKey{Kem: uint32(license.XWing), PublicKey: recipient.Public()}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := c.TrustBundle()
	if err != nil {
		t.Fatal(err)
	}
	var roots []license.KeyID
	for _, r := range c.Roots {
		roots = append(roots, license.KeyID(r))
	}
	verifier, err := license.NewVerifier(bundle, c.TenantID, roots, 0)
	if err != nil {
		t.Fatal(err)
	}
	unverified, err := license.ParseUL(got.GetUseLicense())
	if err != nil {
		t.Fatal(err)
	}
	p := header.Prefix()
	ul, err := verifier.VerifyUL(got.GetUseLicense(), got.GetCertificate(), license.Expect{
		Principal: unverified.Principal, Recipient: recipient.Hash(), Content: p.Content, Commitment: p.Commitment,
		ContentSuite: p.ContentSuite, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	key, err := recipient.OpenUL(got.GetContentKey().GetSealed().GetEnc(), ul)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Commits(key) {
		t.Fatal("the key is not the document's")
	}
	return key
}

// searchClear looks through everything the demo left for 32-byte blocks of the
// content and for the content key.
func searchClear(t *testing.T, d *demo, plain []byte, key *vocab.Secret) {
	t.Helper()
	wanted := map[string]string{string(key.Reveal()): "the content key"}
	step := max(1, len(plain)/32/4096)
	for i := 0; i+32 <= len(plain); i += 32 * step {
		wanted[string(plain[i:i+32])] = "content"
	}
	looked := 0
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || path == d.report || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		looked++
		for i := 0; i+32 <= len(b); i++ {
			if what, ok := wanted[string(b[i:i+32])]; ok {
				t.Errorf("%s holds %s in the clear at %d", path, what, i)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if looked < 5 {
		t.Errorf("only %d files were looked at", looked)
	}
}
