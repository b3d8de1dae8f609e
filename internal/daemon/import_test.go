package daemon_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/archive"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// leaving is a site whose tenant has a key-custodian.
func leaving(t *testing.T) *daemontest.Site {
	t.Helper()
	s := daemontest.NewSite(t)
	path := filepath.Join(s.Dir, "tenants.d", "contoso.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Write("tenants.d/contoso.yaml", strings.Replace(string(b), "roles:\n", "roles:\n  key-custodian: [\"user:carla@contoso.test\"]\n", 1))
	return s
}

// beside is another site with the same people and the same tenant's file.
func beside(t *testing.T, s *daemontest.Site) *daemontest.Site {
	t.Helper()
	next := &daemontest.Site{Folder: daemontest.NewFolder(t), People: s.People}
	next.Config, next.Data = filepath.Join(next.Dir, "rmsd.yaml"), filepath.Join(next.Dir, "data")
	for _, name := range []string{"rmsd.yaml", "tenants.d/contoso.yaml"} {
		b, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		next.Write(name, string(b))
	}
	return next
}

// export has the tenant of a daemon frozen, and takes an archive of it.
func export(t *testing.T, s *daemontest.Site, c *daemontest.Client, key *license.RecipientKey) (file string, root license.KeyID) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	carla, alice := s.Person(t, "carla"), s.Person(t, "alice")
	exits := rmsv1.NewExitServiceClient(c.Conn)
	o, err := exits.RequestExport(t.Context(), &rmsv1.RequestExportRequest{
		Parent: parent, Recipient: &rmsv1.HpkePublicKey{Kem: uint32(key.KEM()), PublicKey: key.Public()}, Reason: "we leave",
	}, carla.As())
	check(err)
	h := key.Hash()
	if got := o.GetTenantExport().GetRecipientFingerprint(); !bytes.Equal(got, h[:]) {
		t.Errorf("who approves it is shown key %x, it is %x", got, h)
	}
	o, err = rmsv1.NewOperationServiceClient(c.Conn).ApproveOperation(t.Context(), &rmsv1.ApproveOperationRequest{
		Name: o.GetName(), ParamsSha256: o.GetParamsSha256(),
	}, alice.As())
	check(err)
	if o.GetState() != rmsv1.Operation_STATE_SUCCEEDED {
		t.Fatalf("it is %s: %s", o.GetState(), o.GetMessage())
	}
	stream, err := exits.ExportTenant(t.Context(), &rmsv1.ExportTenantRequest{Name: o.GetName()}, carla.As())
	check(err)
	var all bytes.Buffer
	var end *rmsv1.ExportTenantResponse_End
	for n := 0; ; n++ {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		if (n == 0) != (r.GetBegin() != nil) {
			t.Fatalf("piece %d is %T", n, r.GetPiece())
		}
		all.Write(r.GetData())
		end = r.GetEnd()
	}
	if end == nil || end.GetBytes() != int64(all.Len()) {
		t.Fatalf("%d bytes came, and at the end %v", all.Len(), end)
	}
	where, err := exits.GetResidence(t.Context(), &rmsv1.GetResidenceRequest{Name: parent + "/residence"}, alice.As())
	check(err)
	if len(where.GetArchives()) != 1 || !bytes.Equal(where.GetArchives()[0].GetSha256(), end.GetSha256()) || where.GetFreezeTime() == nil {
		t.Errorf("the tenant says %v", where)
	}
	file = filepath.Join(t.TempDir(), "contoso.rmx")
	check(os.WriteFile(file, all.Bytes(), 0o600))
	return file, license.KeyID(end.GetRootKeyId())
}

// A tenant goes from one daemon to another. The first is gone, and so are its
// store and keyring.
func TestATenantMovesToAnotherDaemon(t *testing.T) {
	site := leaving(t)
	d := start(t, site, nil)
	c := site.Client(t, d.Addr())
	alice, bob := site.Person(t, "alice"), site.Person(t, "bob")
	ctx := t.Context()
	strict := &rmsv1.Template{
		Name: parent + "/templates/strict", DisplayNames: map[string]string{"en": "Strict"}, CustodyMode: rmsv1.CustodyMode_CUSTODY_MODE_STRICT,
		State: rmsv1.Template_STATE_PUBLISHED, Grants: []*rmsv1.Grant{{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
	}
	if _, err := rmsv1.NewPolicyServiceClient(c.Conn).CreateTemplate(ctx, &rmsv1.CreateTemplateRequest{Parent: parent, TemplateId: "strict", Template: strict}, alice.As()); err != nil {
		t.Fatal(err)
	}
	docs := map[string]*daemontest.Document{"cached": publish(t, c, alice), "revoked": publish(t, c, alice)}
	var err error
	if docs["strict"], err = c.Publish(ctx, alice, &rmsv1.PublishRequest{Policy: &rmsv1.PublishRequest_Template{Template: parent + "/templates/strict"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := rmsv1.NewLicenseServiceClient(c.Conn).RevokeLicense(ctx, &rmsv1.RevokeLicenseRequest{Name: docs["revoked"].License}, alice.As()); err != nil {
		t.Fatal(err)
	}
	want := map[string]vocab.Reason{"revoked": vocab.ReasonLicenseRevoked}
	key, secret, _, err := archive.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "move.key")
	if err := os.WriteFile(keyFile, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	file, root := export(t, site, c, key)
	for name, doc := range docs {
		if _, err := c.Acquire(ctx, bob, doc.PL, nil); daemontest.Reason(err) != vocab.ReasonTenantFrozen && want[name] == "" {
			t.Errorf("frozen, %s: %v", name, err)
		}
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(site.Data); err != nil {
		t.Fatal(err)
	}

	next := beside(t, site)
	cfg, err := config.Load(next.Config)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	in, err := daemon.Import(ctx, cfg, daemon.ImportOptions{
		Archive: file, Tenant: "contoso", Key: keyFile, Root: root, Say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) },
	})
	if err != nil {
		t.Fatalf("after %q: %v", said, err)
	}
	if in.Licenses != int64(len(docs)) {
		t.Errorf("%d licenses came of %d", in.Licenses, len(docs))
	}
	if kept, err := os.ReadFile(filepath.Join(next.Data, "checkpoints", in.Tenant.String(), "latest")); err != nil || !bytes.Equal(kept, in.Checkpoint) {
		t.Errorf("its checkpoint is not beside the store: %v", err)
	}
	d = start(t, next, nil)
	c = next.Client(t, d.Addr())
	for name, doc := range docs {
		got, err := c.Acquire(ctx, bob, doc.PL, nil)
		if daemontest.Reason(err) != want[name] || err == nil && !got.Key.Equal(doc.Key) {
			t.Errorf("%s: %v, want %q", name, err, want[name])
		}
	}
	publish(t, c, alice)
	checked, err := d.CheckStore(ctx)
	if err != nil || len(checked.GetProblems()) > 0 {
		t.Errorf("the store: %v %v", err, checked.GetProblems())
	}
}
