// Package access_test calls every method of the API as everyone there is, on
// a whole daemon, and compares who gets an answer with a table written by
// hand.
package access_test

import (
	"context"
	"crypto/hpke"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// The people of the test, by what they are. Each holds one role at most.
var people = map[string]string{
	"user": "mallory", "owner": "bob", "tenant-admin": "tessa", "policy-admin": "paul",
	"key-custodian": "carla", "auditor": "erin", "recovery-officer": "rita",
}

// Two tenants of one daemon. dave holds every role of the other.
const (
	contoso = `id: contoso
domains: [contoso.test]
admins: ["user:tessa@contoso.test"]
roles:
  policy-admin: ["user:paul@contoso.test", "user:pat@contoso.test"]
  key-custodian: ["user:carla@contoso.test", "user:pat@contoso.test"]
  auditor: ["user:erin@contoso.test"]
  recovery-officer: ["user:rita@contoso.test"]
providers: [dev-contoso]
services: {dlp-scanner: "spiffe://contoso.test/dlp"}
custodians: {keyring: {embedded: {}}, another: {embedded: {keyring: another.ring, key_file: another.key}}}
`
	fabrikam = `id: fabrikam
domains: [fabrikam.test]
admins: ["user:dave@fabrikam.test"]
roles:
  policy-admin: ["user:dave@fabrikam.test"]
  key-custodian: ["user:dave@fabrikam.test"]
  auditor: ["user:dave@fabrikam.test"]
  recovery-officer: ["user:dave@fabrikam.test"]
providers: [dev-fabrikam]
custodians: {keyring: {embedded: {}}}
`
)

// world is a daemon with two tenants and the connections to it.
type world struct {
	svc                        *rmstest.Service
	network, service, operator *grpc.ClientConn
	recipient                  *rmsv1.KeyDelivery
	made                       int    // names things that are made
	trying                     string // who the next request is for
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{svc: rmstest.Start(t, rmstest.WithPeople(
		rmstest.Person{Email: "tessa@contoso.test"}, rmstest.Person{Email: "paul@contoso.test"},
		rmstest.Person{Email: "pat@contoso.test"}, rmstest.Person{Email: "rita@contoso.test"},
	))}
	dial := func(target string, creds credentials.TransportCredentials) *grpc.ClientConn {
		c, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dir := filepath.Dir(w.svc.ContextsDir())
	w.network = dial(w.svc.Address(), credentials.NewTLS(w.svc.TLS()))
	w.service = dial(w.svc.Address(), credentials.NewTLS(w.svc.ServiceTLS()))
	w.operator = dial("unix://"+filepath.Join(dir, "operator.sock"), insecure.NewCredentials())

	// The operator's files become those above.
	for name, text := range map[string]string{"contoso": contoso, "fabrikam": fabrikam} {
		if err := os.WriteFile(filepath.Join(dir, "tenants", name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rmsv1.NewOperatorServiceClient(w.operator).Reload(t.Context(), &rmsv1.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}

	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	w.recipient = &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Hpke{Hpke: &rmsv1.HpkePublicKey{
		Kem: uint32(key.KEM().ID()), PublicKey: key.PublicKey().Bytes(),
	}}}
	return w
}

// as returns a context and connection of a caller. may is somebody who may
// call the method, for those who come too late.
func (w *world) as(ctx context.Context, caller, may string) (context.Context, *grpc.ClientConn) {
	var token string
	switch caller {
	case "nobody":
		return ctx, w.network
	case "service":
		return ctx, w.service
	case "operator":
		return ctx, w.operator
	case "other-tenant":
		token = w.svc.Token("dave")
	case "expired":
		ended := time.Now().Add(-time.Hour)
		token = w.svc.TokenWith(people[may], map[string]any{"exp": ended.Unix(), "iat": ended.Add(-time.Hour).Unix(), "nbf": nil})
	default:
		token = w.svc.Token(people[caller])
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), w.network
}

// call calls a method as a caller, with whatever the descriptor says comes
// back. Of a stream it waits for the first message, or the end.
func (w *world) call(ctx context.Context, m protoreflect.MethodDescriptor, caller, may string, req proto.Message) (resp proto.Message, trailer metadata.MD, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ctx, conn := w.as(ctx, caller, may)
	full := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	out := dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingServer() {
		err = conn.Invoke(ctx, full, req, out, grpc.Trailer(&trailer))
		return out, trailer, err
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err != nil {
		return nil, nil, err
	}
	if err := stream.SendMsg(req); err != nil {
		return nil, nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, nil, err
	}
	if err = stream.RecvMsg(out); err != nil {
		trailer = stream.Trailer()
		if err == io.EOF { //nolint:errorlint // as RecvMsg documents
			err = nil
		}
	}
	return out, trailer, err
}

// publish makes a license of bob's that anyone may open.
func (w *world) publish(t *testing.T) *rmsv1.PublishResponse {
	t.Helper()
	return w.publishAs(t, w.publishRequest())
}

func (w *world) publishAs(t *testing.T, req *rmsv1.PublishRequest) *rmsv1.PublishResponse {
	t.Helper()
	ctx, conn := w.as(t.Context(), "owner", "")
	out, err := rmsv1.NewProtectionServiceClient(conn).Publish(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (w *world) publishRequest() *rmsv1.PublishRequest {
	return &rmsv1.PublishRequest{
		Parent: "tenants/contoso", Delivery: w.recipient, Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
			Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{{To: "anyone", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
		}},
	}
}

// revoked makes a license that is revoked, of which no administrator is a
// reader: one who is must not take the revocation back.
func (w *world) revoked(t *testing.T) string {
	t.Helper()
	req := w.publishRequest()
	req.GetAdHoc().GetGrants()[0].To = "user:mallory@contoso.test"
	name := w.publishAs(t, req).GetLicense().GetName()
	ctx, conn := w.as(t.Context(), "owner", "")
	if _, err := rmsv1.NewLicenseServiceClient(conn).RevokeLicense(ctx, &rmsv1.RevokeLicenseRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
	return name
}

// revokeRequest revokes one new license of bob's, and nothing that others of
// the tests open.
func (w *world) revokeRequest(t *testing.T) *rmsv1.RevokeLicensesRequest {
	return &rmsv1.RevokeLicensesRequest{
		Parent: "tenants/contoso", Owner: "user:bob@contoso.test", Lineage: w.publish(t).GetLicense().GetName(), Reason: "a test",
	}
}

// revocation makes a revocation of more than one license, by the owner.
func (w *world) revocation(t *testing.T) string {
	t.Helper()
	req := w.revokeRequest(t)
	ctx, conn := w.as(t.Context(), "owner", "")
	out, err := rmsv1.NewLicenseServiceClient(conn).RevokeLicenses(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return out.GetRevocation().GetName()
}

// slug is a new name for a template.
func (w *world) slug() string {
	w.made++
	return fmt.Sprintf("made-%d", w.made)
}

func templateForm() *rmsv1.Template {
	return &rmsv1.Template{
		DisplayNames: map[string]string{"en": "Made by a test"}, State: rmsv1.Template_STATE_PUBLISHED,
		Grants: []*rmsv1.Grant{{To: "tenant:contoso", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}}},
	}
}

// template makes a template.
func (w *world) template(t *testing.T) *rmsv1.Template {
	t.Helper()
	ctx, conn := w.as(t.Context(), "policy-admin", "")
	out, err := rmsv1.NewPolicyServiceClient(conn).CreateTemplate(ctx, &rmsv1.CreateTemplateRequest{
		Parent: "tenants/contoso", TemplateId: w.slug(), Template: templateForm(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// deleted makes a template that is deleted.
func (w *world) deleted(t *testing.T) string {
	t.Helper()
	name := w.template(t).GetName()
	ctx, conn := w.as(t.Context(), "policy-admin", "")
	if _, err := rmsv1.NewPolicyServiceClient(conn).DeleteTemplate(ctx, &rmsv1.DeleteTemplateRequest{Name: name, Etag: "*"}); err != nil {
		t.Fatal(err)
	}
	return name
}

// pat is another policy-admin and key-custodian, who asks for what paul is to approve.
func (w *world) pat(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.svc.Token("pat"))
}

// waiting makes an operation that waits for another policy-admin: pat would own
// everything of somebody who has nothing.
func (w *world) waiting(t *testing.T) *rmsv1.Operation {
	t.Helper()
	out, err := rmsv1.NewLicenseServiceClient(w.network).TransferLicenses(w.pat(t.Context()), &rmsv1.TransferLicensesRequest{
		Parent: "tenants/contoso", From: "user:" + w.slug() + "@contoso.test", To: "user:pat@contoso.test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetOperation()
}

// archived makes a generation that does not seal what is new any more.
func (w *world) archived(t *testing.T) string {
	t.Helper()
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	custody := rmsv1.NewCustodyServiceClient(conn)
	inventory, err := custody.GetInventory(ctx, &rmsv1.GetInventoryRequest{Parent: "tenants/contoso"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := custody.RotateKey(ctx, &rmsv1.RotateKeyRequest{Name: "tenants/contoso/keys/root"}); err != nil {
		t.Fatal(err)
	}
	for _, l := range inventory.GetLines() {
		if l.GetActive() {
			return fmt.Sprintf("tenants/contoso/generations/%d", l.GetNumber())
		}
	}
	t.Fatal("no generation is active")
	return ""
}

// resealing makes an operation that runs for a while: the licenses of a
// generation are sealed anew, one a second.
func (w *world) resealing(t *testing.T) (name, generation string) {
	t.Helper()
	for range 40 {
		w.publish(t)
	}
	generation = w.archived(t)
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	out, err := rmsv1.NewCustodyServiceClient(conn).Reseal(ctx, &rmsv1.ResealRequest{Name: generation, MaxRate: 1})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetOperation().GetName(), generation
}

// paused makes an operation that is paused, and changes nothing when it goes on:
// what it works on is suspended.
func (w *world) paused(t *testing.T) string {
	t.Helper()
	name, generation := w.resealing(t)
	if _, err := rmsv1.NewOperationServiceClient(w.network).PauseOperation(w.pat(t.Context()), &rmsv1.PauseOperationRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	if _, err := rmsv1.NewCustodyServiceClient(conn).SuspendKey(ctx, &rmsv1.SuspendKeyRequest{Name: generation}); err != nil {
		t.Fatal(err)
	}
	return name
}

// oldGeneration makes a new generation and returns the name of the one that was
// active.
func (w *world) oldGeneration(t *testing.T) string {
	t.Helper()
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	custody := rmsv1.NewCustodyServiceClient(conn)
	inv, err := custody.GetInventory(ctx, &rmsv1.GetInventoryRequest{Parent: "tenants/contoso"})
	if err == nil {
		_, err = custody.RotateKey(ctx, &rmsv1.RotateKeyRequest{Name: "tenants/contoso/keys/root"})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range inv.GetLines() {
		if l.GetActive() {
			return fmt.Sprintf("tenants/contoso/generations/%d", l.GetNumber())
		}
	}
	t.Fatal("no generation is active")
	return ""
}

// emptyGeneration returns an old one that nothing was published under.
func (w *world) emptyGeneration(t *testing.T) string {
	t.Helper()
	w.oldGeneration(t)
	return w.oldGeneration(t)
}

// destruction asks for one to be destroyed, which pat approves.
func (w *world) destruction(t *testing.T) string {
	t.Helper()
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	o, err := rmsv1.NewCustodyServiceClient(conn).DestroyKey(ctx, &rmsv1.DestroyKeyRequest{Name: w.emptyGeneration(t), DespiteSoak: true})
	if err == nil {
		_, err = rmsv1.NewOperationServiceClient(w.network).ApproveOperation(w.pat(t.Context()),
			&rmsv1.ApproveOperationRequest{Name: o.GetName(), ParamsSha256: o.GetParamsSha256()})
	}
	if err != nil {
		t.Fatal(err)
	}
	return o.GetName()
}

// suspendedGeneration suspends an old one.
func (w *world) suspendedGeneration(t *testing.T) string {
	t.Helper()
	name := w.oldGeneration(t)
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	if _, err := rmsv1.NewCustodyServiceClient(conn).SuspendKey(ctx, &rmsv1.SuspendKeyRequest{Name: name}); err != nil {
		t.Fatal(err)
	}
	return name
}

// anotherKey is a key that is registered and was never activated.
func (w *world) anotherKey(t *testing.T) string {
	t.Helper()
	ctx, conn := w.as(t.Context(), "key-custodian", "")
	_, err := rmsv1.NewCustodyServiceClient(conn).RegisterKey(ctx, &rmsv1.RegisterKeyRequest{
		Parent: "tenants/contoso", KeyId: "another", Custodian: "another",
	})
	if err != nil && status.Code(err) != codes.AlreadyExists {
		t.Fatal(err)
	}
	return "tenants/contoso/keys/another"
}

// address is a new address of the tenant's domain, of nobody who signs in.
func (w *world) address() string { return w.slug() + "@contoso.test" }

// group makes a group.
func (w *world) group(t *testing.T) *rmsv1.Group {
	t.Helper()
	ctx, conn := w.as(t.Context(), "policy-admin", "")
	out, err := rmsv1.NewPeopleServiceClient(conn).CreateGroup(ctx, &rmsv1.CreateGroupRequest{
		Parent: "tenants/contoso", GroupId: w.address(), Group: &rmsv1.Group{Members: []string{"user:bob@contoso.test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetGroup()
}

// policyAdmin gives somebody the role policy-admin and returns who that is.
func (w *world) policyAdmin(t *testing.T) string {
	t.Helper()
	who := "user:" + w.address()
	ctx, conn := w.as(t.Context(), "tenant-admin", "")
	_, err := rmsv1.NewPeopleServiceClient(conn).GrantRole(ctx, &rmsv1.GrantRoleRequest{Name: "tenants/contoso/roles/policy-admin", Principal: who})
	if err != nil {
		t.Fatal(err)
	}
	return who
}

// disabled disables somebody and returns the name of the principal.
func (w *world) disabled(t *testing.T) string {
	t.Helper()
	ctx, conn := w.as(t.Context(), "tenant-admin", "")
	out, err := rmsv1.NewPeopleServiceClient(conn).DisablePrincipal(ctx, &rmsv1.DisablePrincipalRequest{
		Name: "tenants/contoso/principals/user:" + w.address(), Reason: "a test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetPrincipal().GetName()
}
