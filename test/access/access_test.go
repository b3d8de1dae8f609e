package access_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// row is one method of testdata/access.yaml.
type row struct {
	May    []string     `yaml:"may"`
	Others vocab.Reason `yaml:"others"`
	// Answer is what those who may are told in this world, where the method
	// cannot do what it is for; "": it can.
	Answer vocab.Reason `yaml:"answer"`
}

// onTheNetwork is everyone who can try, in the order they do.
var onTheNetwork = []string{
	"nobody", "expired", "other-tenant", "user", "owner", "service", "tenant-admin", "policy-admin", "key-custodian", "auditor", "recovery-officer",
}

func readTable(t *testing.T) map[string]row {
	t.Helper()
	f, err := os.Open("testdata/access.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	table := map[string]row{}
	if err := d.Decode(&table); err != nil {
		t.Fatal(err)
	}
	for method, r := range table {
		for _, who := range r.May {
			if who != "operator" && !slices.Contains(onTheNetwork, who) {
				t.Fatalf("%s: there is no caller %q", method, who)
			}
		}
	}
	return table
}

// methods returns every method of the contract, by name.
func methods() map[string]protoreflect.MethodDescriptor {
	out := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage("rms.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				out[string(s.FullName())+"/"+string(m.Name())] = m
			}
		}
		return true
	})
	return out
}

// TestEveryMethodAsEveryone is the product of all methods and all callers.
func TestEveryMethodAsEveryone(t *testing.T) {
	table, all := readTable(t), methods()
	for name := range table {
		if all[name] == nil {
			t.Errorf("the table has %s, which the contract has not", name)
		}
	}
	w := newWorld(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			r, listed := table[name]
			if !listed || len(r.May) == 0 {
				t.Fatal("the table does not say who may call it")
			}
			request := requests[name]
			if request == nil {
				t.Fatal("there is no valid request for it")
			}
			if slices.Contains(r.May, "operator") {
				onlyByOperator(t, w, all[name], request(t, w))
				return
			}
			made := 0
			for _, caller := range onTheNetwork {
				if w.trying = caller; slices.Contains(r.May, caller) {
					continue
				}
				req := request(t, w)
				before := w.snapshot(t)
				_, trailer, err := w.call(t.Context(), all[name], caller, r.someone(), req)
				checkRefusal(t, caller, err, trailer, r.refusalOf(caller))
				if after := w.snapshot(t); after != before {
					t.Errorf("%s was refused, but something changed:\n%s\n%s", caller, before, after)
				}
				made++
			}
			for _, caller := range onTheNetwork {
				if w.trying = caller; !slices.Contains(r.May, caller) {
					continue
				}
				resp, _, err := w.call(t.Context(), all[name], caller, r.someone(), request(t, w))
				if (err != nil || r.Answer != "") && daemontest.Reason(err) != r.Answer {
					t.Errorf("%s may, but got %v", caller, err)
				}
				if refused := refusedInside(resp); refused != "" {
					t.Errorf("%s may, but got %s inside the answer", caller, refused)
				}
				made++
			}
			if made != len(onTheNetwork) {
				t.Errorf("%d of %d callers were tried", made, len(onTheNetwork))
			}
		})
	}
}

// someone is a person who may.
func (r row) someone() string {
	for _, caller := range r.May {
		if people[caller] != "" {
			return caller
		}
	}
	return "user"
}

// refusalOf is the reason a caller must get.
func (r row) refusalOf(caller string) vocab.Reason {
	switch caller {
	case "nobody":
		return vocab.ReasonTokenMissing
	case "expired":
		return vocab.ReasonTokenExpired
	case "other-tenant":
		return vocab.ReasonIssuerNotTrusted
	}
	return r.Others
}

// checkRefusal checks code, reason and event: whoever is known to the tenant
// is in its log, and nobody else can fill it.
func checkRefusal(t *testing.T, caller string, err error, trailer metadata.MD, want vocab.Reason) {
	t.Helper()
	known := want != vocab.ReasonTokenMissing && want != vocab.ReasonTokenExpired && want != vocab.ReasonIssuerNotTrusted
	code := codes.Unauthenticated
	if known {
		code = codes.PermissionDenied
	}
	if status.Code(err) != code || daemontest.Reason(err) != want {
		t.Errorf("%s got %v (%s), want %s %s", caller, err, daemontest.Reason(err), code, want)
	}
	if got := trailer.Get("rms-reason"); !slices.Equal(got, []string{string(want)}) {
		t.Errorf("%s got the trailer rms-reason %q, want %s", caller, got, want)
	}
	if got := len(trailer.Get("rms-event")); (got == 1) != known {
		t.Errorf("%s got %d events; known to the tenant: %v", caller, got, known)
	}
}

// refusedInside finds a refusal of an item of a batch, whose call succeeds.
func refusedInside(resp proto.Message) string {
	b, err := proto.Marshal(resp)
	if err != nil || resp.ProtoReflect().Descriptor().Name() != "BatchAcquireResponse" {
		return ""
	}
	var batch rmsv1.BatchAcquireResponse
	if err := proto.Unmarshal(b, &batch); err != nil {
		return err.Error()
	}
	for _, r := range batch.GetResults() {
		if r.GetAcquired().GetContentKey() == nil {
			return r.GetRefused().String()
		}
	}
	return ""
}

// onlyByOperator shows that a method is on the local socket and nowhere else.
func onlyByOperator(t *testing.T, w *world, m protoreflect.MethodDescriptor, req proto.Message) {
	t.Helper()
	for _, caller := range onTheNetwork {
		if _, _, err := w.call(t.Context(), m, caller, "tenant-admin", req); status.Code(err) != codes.Unimplemented {
			t.Errorf("on the network %s got %v, want no such method", caller, err)
		}
	}
	if _, _, err := w.call(t.Context(), m, "operator", "", req); err != nil {
		t.Errorf("on the socket: %v", err)
	}
}

// The operator's socket serves the operator's methods and no others.
func TestNoOtherMethodOnTheOperatorsSocket(t *testing.T) {
	w := newWorld(t)
	for name, m := range methods() {
		if strings.HasPrefix(name, "rms.v1.OperatorService/") {
			continue
		}
		if _, _, err := w.call(t.Context(), m, "operator", "", requests[name](t, w)); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s on the socket: %v, want no such method", name, err)
		}
	}
}

// snapshot is the state that methods change: every license, template and
// setting of the tenant by its etag, every revocation in force, every group, role
// and disabled principal.
func (w *world) snapshot(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	ctx, conn := w.as(t.Context(), "policy-admin", "")
	page := &rmsv1.ListLicensesRequest{Parent: "tenants/contoso", PageSize: 1000}
	licenses, err := rmsv1.NewLicenseServiceClient(conn).ListLicenses(ctx, page)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range licenses.GetLicenses() {
		out.WriteString(l.GetName() + " " + l.GetEtag() + "\n")
	}
	revocations, err := rmsv1.NewLicenseServiceClient(conn).ListRevocations(ctx, &rmsv1.ListRevocationsRequest{Parent: "tenants/contoso", PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range revocations.GetRevocations() {
		out.WriteString(r.GetName() + "\n")
	}
	templates, err := rmsv1.NewPolicyServiceClient(conn).ListTemplates(ctx, &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso", PageSize: 1000, ShowDeleted: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, tmpl := range templates.GetTemplates() {
		out.WriteString(tmpl.GetName() + " " + tmpl.GetEtag() + "\n")
	}
	settings, err := rmsv1.NewPolicyServiceClient(conn).GetSettings(ctx, &rmsv1.GetSettingsRequest{Name: "tenants/contoso/settings"})
	if err != nil {
		t.Fatal(err)
	}
	if licenses.GetNextPageToken() != "" || revocations.GetNextPageToken() != "" || templates.GetNextPageToken() != "" {
		t.Fatal("a page is too small for the test")
	}
	out.WriteString("settings " + settings.GetEtag() + "\n")
	ctx, conn = w.as(t.Context(), "tenant-admin", "")
	people := rmsv1.NewPeopleServiceClient(conn)
	groups, err := people.ListGroups(ctx, &rmsv1.ListGroupsRequest{Parent: "tenants/contoso", PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.GetGroups() {
		out.WriteString(g.GetName() + " " + g.GetEtag() + "\n")
	}
	roles, err := people.ListRoles(ctx, &rmsv1.ListRolesRequest{Parent: "tenants/contoso"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roles.GetRoles() {
		out.WriteString(r.GetName() + " " + r.GetSource().String() + " " + strings.Join(r.GetHolders(), " ") + "\n")
	}
	stopped, err := people.ListDisabledPrincipals(ctx, &rmsv1.ListDisabledPrincipalsRequest{Parent: "tenants/contoso", PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range stopped.GetPrincipals() {
		out.WriteString(p.GetName() + "\n")
	}
	if groups.GetNextPageToken() != "" || stopped.GetNextPageToken() != "" {
		t.Fatal("a page is too small for the test")
	}
	return out.String()
}

// elsewhere is a request with another tenant's name in the place of contoso's.
func elsewhere(t *testing.T, req proto.Message, tenant string) proto.Message {
	t.Helper()
	b, err := protojson.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	out := req.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(strings.ReplaceAll(string(b), "tenants/contoso", "tenants/"+tenant)), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestStrangersCannotTellWhichTenantsExist compares, for every method, the
// whole answer of a tenant that is there and of one that is not.
func TestStrangersCannotTellWhichTenantsExist(t *testing.T) {
	w := newWorld(t)
	for name, m := range methods() {
		if strings.HasPrefix(name, "rms.v1.OperatorService/") || name == "rms.v1.ProtectionService/GetTrust" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			for caller, authorization := range map[string]string{
				"nobody":       "",
				"a bad token":  "Bearer TEST",
				"no bearer":    "Basic VEVTVA==",
				"other tenant": "Bearer " + w.svc.Token("dave"),
			} {
				req := requests[name](t, w)
				ctx := t.Context()
				if authorization != "" {
					ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
				}
				_, hereTrailer, here := w.call(ctx, m, "nobody", "", req)
				_, thereTrailer, there := w.call(ctx, m, "nobody", "", elsewhere(t, req, "nowhere"))
				if here == nil || there == nil {
					t.Fatalf("%s got an answer", caller)
				}
				if a, b := status.Convert(here).Proto(), status.Convert(there).Proto(); !proto.Equal(a, b) {
					t.Errorf("%s can tell:\n%v\n%v", caller, a, b)
				}
				if a, b := hereTrailer.Get("rms-event"), thereTrailer.Get("rms-event"); len(a)+len(b) > 0 {
					t.Errorf("%s left events %q and %q", caller, a, b)
				}
			}
		})
	}
}

// TestAnotherTenantsLicenseIsNotThere has the administrator of one tenant ask
// for a license of another under the own tenant's name: the answer is that of
// a license that never was.
func TestAnotherTenantsLicenseIsNotThere(t *testing.T) {
	w := newWorld(t)
	theirs := w.publish(t).GetLicense().GetContentId()
	never := vocab.NewContentID().String()
	for name, m := range methods() {
		if !strings.HasPrefix(name, "rms.v1.LicenseService/") || !namesLicense(requests[name](t, w)) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			ask := func(id string) *status.Status {
				req := elsewhere(t, requests[name](t, w), "fabrikam")
				withID(req, id)
				_, _, err := w.call(t.Context(), m, "other-tenant", "", req)
				if daemontest.Reason(err) != vocab.ReasonNoRights {
					t.Errorf("got %v, want NO_RIGHTS", err)
				}
				return status.Convert(err)
			}
			a, b := ask(theirs), ask(never)
			if a.Code() != b.Code() || a.Message() != b.Message() {
				t.Errorf("the answers differ: %v and %v", a, b)
			}
		})
	}
}

// namesLicense reports whether a request is about one license.
func namesLicense(req proto.Message) bool {
	if r, ok := req.(interface{ GetName() string }); ok {
		return strings.Contains(r.GetName(), "/licenses/")
	}
	_, ok := req.(*rmsv1.UpdateLicenseRequest)
	return ok
}

// TestRevocationsAreTheirMakersAlone: whoever made no revocation, administers
// another tenant, or is the owner of what an administrator revoked, finds none;
// and nobody can tell one that is not theirs from one that is not there.
func TestRevocationsAreTheirMakersAlone(t *testing.T) {
	w := newWorld(t)
	ctx, conn := w.as(t.Context(), "policy-admin", "")
	admins, err := rmsv1.NewLicenseServiceClient(conn).RevokeLicenses(ctx, w.revokeRequest(t))
	if err != nil {
		t.Fatal(err)
	}
	theirs, never := admins.GetRevocation().GetName(), "tenants/contoso/revocations/"+vocab.NewEventID().String()
	for _, method := range []string{"GetRevocation", "RestoreLicenses"} {
		m := methods()["rms.v1.LicenseService/"+method]
		for caller, want := range map[string]vocab.Reason{
			"owner": vocab.ReasonRoleRequired, "user": vocab.ReasonRoleRequired, "tenant-admin": vocab.ReasonRoleRequired,
			"other-tenant": vocab.ReasonResourceNotFound,
		} {
			ask := func(name string) *status.Status {
				if caller == "other-tenant" {
					name = strings.Replace(name, "contoso", "fabrikam", 1)
				}
				req := m.Input().Name()
				var in proto.Message = &rmsv1.GetRevocationRequest{Name: name}
				if req == "RestoreLicensesRequest" {
					in = &rmsv1.RestoreLicensesRequest{Name: name}
				}
				_, _, err := w.call(t.Context(), m, caller, "", in)
				if daemontest.Reason(err) != want {
					t.Errorf("%s as %s: %v, want %s", method, caller, err, want)
				}
				return status.Convert(err)
			}
			a, b := ask(theirs), ask(never)
			if a.Code() != b.Code() || strings.ReplaceAll(a.Message(), lastPart(theirs), "") != strings.ReplaceAll(b.Message(), lastPart(never), "") {
				t.Errorf("%s as %s: %v, and of one that never was %v", method, caller, a, b)
			}
		}
	}
	ctx, conn = w.as(t.Context(), "owner", "")
	list, err := rmsv1.NewLicenseServiceClient(conn).ListRevocations(ctx, &rmsv1.ListRevocationsRequest{Parent: "tenants/contoso"})
	if err != nil || len(list.GetRevocations()) != 0 {
		t.Errorf("the owner lists %v (%v)", list.GetRevocations(), err)
	}
	// Nor does the owner revoke by an owner's condition what others own.
	for name, change := range map[string]func(*rmsv1.RevokeLicensesRequest){
		"somebody else's":          func(r *rmsv1.RevokeLicensesRequest) { r.Owner = "user:mallory@contoso.test" },
		"whoever's":                func(r *rmsv1.RevokeLicensesRequest) { r.Owner = "" },
		"the lineage of another's": func(r *rmsv1.RevokeLicensesRequest) { r.Lineage = "" },
	} {
		req := w.revokeRequest(t)
		want := vocab.ReasonRoleRequired
		if change(req); req.Lineage == "" {
			otherCtx, otherConn := w.as(t.Context(), "user", "")
			made, err := rmsv1.NewProtectionServiceClient(otherConn).Publish(otherCtx, w.publishRequest())
			if err != nil {
				t.Fatal(err)
			}
			req.Lineage, want = made.GetLicense().GetName(), vocab.ReasonNoRights
		}
		if _, err := rmsv1.NewLicenseServiceClient(conn).RevokeLicenses(ctx, req); daemontest.Reason(err) != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// withID puts a license's ID into a request.
func withID(req proto.Message, id string) {
	name := "tenants/fabrikam/licenses/" + id
	switch r := req.(type) {
	case *rmsv1.UpdateLicenseRequest:
		r.License.Name = name
	default:
		m := r.ProtoReflect()
		m.Set(m.Descriptor().Fields().ByName("name"), protoreflect.ValueOfString(name))
	}
}
