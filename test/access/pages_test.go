package access_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// listers are who reads a listing, and who else may.
var listers = map[string][2]string{
	"rms.v1.LicenseService/ListLicenses":         {"policy-admin", "auditor"},
	"rms.v1.LicenseService/ListLicenseEvents":    {"auditor", "owner"},
	"rms.v1.LicenseService/ListRevocations":      {"auditor", "policy-admin"},
	"rms.v1.PolicyService/ListTemplates":         {"policy-admin", "auditor"},
	"rms.v1.PolicyService/ListTemplateRevisions": {"policy-admin", "auditor"},
	"rms.v1.PolicyService/ExplainEvent":          {"auditor", "policy-admin"},
	"rms.v1.PolicyService/EvaluateAccess":        {"policy-admin", "auditor"},
	"rms.v1.PolicyService/ListAccess":            {"policy-admin", "auditor"},
	"rms.v1.OperationService/ListOperations":     {"auditor", "policy-admin"},

	"rms.v1.PeopleService/ListGroups":             {"policy-admin", "auditor"},
	"rms.v1.PeopleService/ListDisabledPrincipals": {"tenant-admin", "auditor"},

	"rms.v1.CustodyService/ListDependants": {"key-custodian", "auditor"},

	"rms.v1.AuditService/ListEvents": {"auditor", ""},
}

func set(m proto.Message, field string, v any) {
	r := m.ProtoReflect()
	r.Set(r.Descriptor().Fields().ByName(protoreflect.Name(field)), protoreflect.ValueOf(v))
}

// page reads the one list of messages and the token of an answer.
func page(m proto.Message) (items []string, next string) {
	r := m.ProtoReflect()
	for i := range r.Descriptor().Fields().Len() {
		f := r.Descriptor().Fields().Get(i)
		switch {
		case f.IsList() && f.Message() != nil:
			for j := range r.Get(f).List().Len() {
				item := r.Get(f).List().Get(j).Message()
				// Whole items: the text form is not stable, so the bytes.
				b, err := proto.MarshalOptions{Deterministic: true}.Marshal(item.Interface())
				if err != nil {
					return []string{err.Error()}, ""
				}
				items = append(items, string(b))
			}
		case f.Name() == "next_page_token":
			next = r.Get(f).String()
		}
	}
	return items, next
}

// TestPagesAreTheListing walks every listing of the contract in small pages
// and compares with one large page; a token serves nobody else and no other
// question.
func TestPagesAreTheListing(t *testing.T) {
	w := newWorld(t)
	names := w.fill(t)
	for _, name := range slices.Sorted(maps.Keys(methods())) {
		m := methods()[name]
		if m.Input().Fields().ByName("page_token") == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			by, ok := listers[name]
			if !ok {
				t.Fatal("the test does not say who reads it")
			}
			request := func(size int32, token string) proto.Message {
				req := proto.Clone(names(name))
				set(req, "page_size", size)
				set(req, "page_token", token)
				return req
			}
			read := func(caller string, req proto.Message) ([]string, string) {
				t.Helper()
				resp, _, err := w.call(t.Context(), m, caller, "", req)
				if err != nil {
					t.Fatalf("%s: %v", prototext.Format(req), err)
				}
				return page(resp)
			}
			want, last := read(by[0], request(1000, ""))
			if len(want) < 5 || last != "" {
				t.Fatalf("the listing has %d items, and goes on: %v", len(want), last != "")
			}
			token := ""
			for _, size := range []int{1, 2, 3, 4} {
				var got []string
				for next := ""; ; {
					items, after := read(by[0], request(int32(size), next))
					if len(items) > size {
						t.Fatalf("a page of %d, %d were asked for", len(items), size)
					}
					got = append(got, items...)
					if next = after; next == "" {
						break
					}
					token = next
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("in pages of %d (-want +got):\n%s", size, diff)
				}
			}
			refuse := func(what, caller string, req proto.Message) {
				t.Helper()
				if _, _, err := w.call(t.Context(), m, caller, "", req); daemontest.Reason(err) != vocab.ReasonPageTokenInvalid {
					t.Errorf("%s: %v, want PAGE_TOKEN_INVALID", what, err)
				}
			}
			if by[1] != "" {
				refuse("another caller", by[1], request(2, token))
			}
			refuse("an altered token", by[0], request(2, flip(token)))
			refuse("a token of nobody", by[0], request(2, strings.Repeat("A", 40)))
		})
	}
}

// flip changes the first letter of a token.
func flip(token string) string {
	if token[0] == 'A' {
		return "B" + token[1:]
	}
	return "A" + token[1:]
}

// fill makes enough of everything to list, and returns the request of each
// listing.
func (w *world) fill(t *testing.T) func(method string) proto.Message {
	t.Helper()
	for range 6 {
		w.publish(t)
		w.template(t)
		w.revocation(t)
		w.waiting(t)
		w.group(t)
		w.disabled(t)
	}
	license := w.publish(t).GetLicense().GetName()
	ctx, conn := w.as(t.Context(), "owner", "")
	for range 3 {
		c := rmsv1.NewLicenseServiceClient(conn)
		if _, err := c.RevokeLicense(ctx, &rmsv1.RevokeLicenseRequest{Name: license}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.RestoreLicense(ctx, &rmsv1.RestoreLicenseRequest{Name: license}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, conn = w.as(t.Context(), "policy-admin", "")
	template := w.template(t)
	for range 5 {
		form := templateForm()
		form.Name, form.Etag, form.Comment = template.GetName(), "*", w.slug()
		if _, err := rmsv1.NewPolicyServiceClient(conn).UpdateTemplate(ctx, &rmsv1.UpdateTemplateRequest{Template: form}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, conn = w.as(t.Context(), "owner", "")
	many := w.publishRequest()
	for i := range 5 {
		many.GetAdHoc().Grants = append(many.GetAdHoc().Grants, &rmsv1.Grant{To: fmt.Sprintf("group:g%d@contoso.test", i), Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}})
	}
	granted, err := rmsv1.NewProtectionServiceClient(conn).Publish(ctx, many)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := rmsv1.NewProtectionServiceClient(conn).Acquire(ctx, &rmsv1.AcquireRequest{
		Parent: "tenants/contoso", Right: rmsv1.Right_RIGHT_VIEW, Delivery: w.recipient,
		Document: &rmsv1.AcquireRequest_License{License: granted.GetLicense().GetName()},
	})
	if err != nil {
		t.Fatal(err)
	}
	bob := &rmsv1.SupposedCaller{Principal: "user:bob@contoso.test"}
	// What the test itself reads becomes events: list those before it began.
	ctx, conn = w.as(t.Context(), "auditor", "")
	newest, err := rmsv1.NewAuditServiceClient(conn).ListEvents(ctx, &rmsv1.ListEventsRequest{Parent: "tenants/contoso", PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	until := timestamppb.New(newest.GetEvents()[0].GetTime().AsTime())
	requests := map[string]proto.Message{
		"rms.v1.LicenseService/ListLicenses":          &rmsv1.ListLicensesRequest{Parent: "tenants/contoso"},
		"rms.v1.LicenseService/ListRevocations":       &rmsv1.ListRevocationsRequest{Parent: "tenants/contoso"},
		"rms.v1.LicenseService/ListLicenseEvents":     &rmsv1.ListLicenseEventsRequest{Name: license},
		"rms.v1.PolicyService/ListTemplates":          &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso"},
		"rms.v1.PeopleService/ListGroups":             &rmsv1.ListGroupsRequest{Parent: "tenants/contoso"},
		"rms.v1.PeopleService/ListDisabledPrincipals": &rmsv1.ListDisabledPrincipalsRequest{Parent: "tenants/contoso"},
		"rms.v1.PolicyService/ListTemplateRevisions":  &rmsv1.ListTemplateRevisionsRequest{Name: template.GetName()},
		"rms.v1.PolicyService/ExplainEvent":           &rmsv1.ExplainEventRequest{Name: "tenants/contoso/events/" + opened.GetEvent(), All: true},
		"rms.v1.PolicyService/EvaluateAccess": &rmsv1.EvaluateAccessRequest{
			Parent: "tenants/contoso", Caller: bob, All: true, Document: &rmsv1.EvaluateAccessRequest_License{License: granted.GetLicense().GetName()},
		},
		"rms.v1.PolicyService/ListAccess": &rmsv1.ListAccessRequest{Parent: "tenants/contoso", Caller: bob, Time: until},
		"rms.v1.AuditService/ListEvents": &rmsv1.ListEventsRequest{
			Parent: "tenants/contoso", Filter: &rmsv1.EventFilter{Until: until},
		},
		"rms.v1.OperationService/ListOperations": &rmsv1.ListOperationsRequest{Parent: "tenants/contoso"},
		"rms.v1.CustodyService/ListDependants":   &rmsv1.ListDependantsRequest{Name: "tenants/contoso/keys/root"},
	}
	return func(method string) proto.Message { return requests[method] }
}
