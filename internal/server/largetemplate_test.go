package server_test

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	rms "github.com/openrms/rms"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// A template with all the grants one may have is written, read, listed and
// decided by, through a whole daemon. What clients could not read back is not
// taken.
func TestLargestTemplate(t *testing.T) {
	svc := rmstest.Start(t)
	alice := svc.Client("alice")
	template := func(slug string, n int, pattern string) *rmsv1.CreateTemplateRequest {
		r := &rmsv1.CreateTemplateRequest{Parent: "tenants/contoso", TemplateId: slug, Template: &rmsv1.Template{
			DisplayNames: map[string]string{"en": slug}, State: rmsv1.Template_STATE_PUBLISHED, Offline: durationpb.New(0),
		}}
		for i := range n - 1 {
			r.Template.Grants = append(r.Template.Grants, &rmsv1.Grant{
				To: fmt.Sprintf(pattern, i), Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW, rmsv1.Right_RIGHT_PRINT, rmsv1.Right_RIGHT_OBJMODEL},
			})
		}
		r.Template.Grants = append(r.Template.Grants, &rmsv1.Grant{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW}})
		return r
	}
	const usual = "user:firstname.lastname-%05d@contoso.test"
	for _, slug := range []string{"everyone-a", "everyone-b"} {
		if _, err := alice.Policy().CreateTemplate(t.Context(), template(slug, policy.MaxTemplateGrants, usual)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := alice.Policy().CreateTemplate(t.Context(), template("too-many", policy.MaxTemplateGrants+1, usual))
	if vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
		t.Errorf("one grant too many: %v", err)
	}
	const long = "user:%05d.firstname-middlename-lastname-lastname-lastname@department.contoso.test"
	if _, err := alice.Policy().CreateTemplate(t.Context(), template("too-large", policy.MaxTemplateGrants, long)); err == nil {
		t.Errorf("a request of more than 4 MiB was taken")
	}

	got, err := alice.Policy().GetTemplate(t.Context(), &rmsv1.GetTemplateRequest{Name: "tenants/contoso/templates/everyone-b"})
	if err != nil || len(got.GetGrants()) != policy.MaxTemplateGrants {
		t.Errorf("%d grants, %v", len(got.GetGrants()), err)
	}
	var listed []string
	for token := ""; ; {
		page, err := alice.Policy().ListTemplates(t.Context(), &rmsv1.ListTemplatesRequest{Parent: "tenants/contoso", PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, tmpl := range page.GetTemplates() {
			listed = append(listed, tmpl.GetName())
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(listed) != 4 { // board-secret, finance-internal and these two
		t.Errorf("listed %q", listed)
	}

	// A preview of what concerns everybody says how many they are, and names as
	// many as a client takes; also where all the grants are one person's.
	next := template("everyone-a", policy.MaxTemplateGrants, "user:other.lastname-%05d@contoso.test").GetTemplate()
	next.Name = "tenants/contoso/templates/everyone-a"
	preview, err := alice.Policy().PreviewTemplate(t.Context(), &rmsv1.PreviewTemplateRequest{Template: next})
	if err != nil {
		t.Fatal(err)
	}
	if n := int(preview.GetChangeCount()); n != 2*(policy.MaxTemplateGrants-1) || len(preview.GetChanges()) >= n || len(preview.GetChanges()) < 1000 {
		t.Errorf("%d of %d changes", len(preview.GetChanges()), n)
	}
	next.Grants = next.Grants[:1]
	for i := range policy.MaxTemplateGrants - 1 {
		next.Grants = append(next.Grants, &rmsv1.Grant{To: "user:bob@contoso.test", Rights: []rmsv1.Right{rmsv1.Right(1 + i%14)}})
	}
	preview, err = alice.Policy().PreviewTemplate(t.Context(), &rmsv1.PreviewTemplateRequest{Template: next})
	if err != nil || int(preview.GetChangeCount()) != policy.MaxTemplateGrants+1 {
		t.Errorf("%d changes, %v", preview.GetChangeCount(), err)
	}

	plain := []byte("for everyone")
	var file, out bytes.Buffer
	if _, err := alice.Protect(t.Context(), &file, bytes.NewReader(plain), rms.ProtectOptions{Template: "everyone-b"}); err != nil {
		t.Fatal(err)
	}
	d, err := svc.Client("bob").Open(t.Context(), bytes.NewReader(file.Bytes()), int64(file.Len()), rms.RightView)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.WriteTo(&out); err != nil || !bytes.Equal(out.Bytes(), plain) {
		t.Errorf("bob reads %q, %v", out.Bytes(), err)
	}
	_, err = svc.Client("mallory").Open(t.Context(), bytes.NewReader(file.Bytes()), int64(file.Len()), rms.RightView)
	if vocab.ReasonOf(err) != vocab.ReasonNoRights {
		t.Errorf("mallory: %v", err)
	}
}

// A listing of documents, or of edits that wait, whose ad hoc policies are nearly as large as they may be goes
// over several answers, none larger than clients take, and leaves none out.
func TestListingLargePolicies(t *testing.T) {
	svc := rmstest.Start(t)
	bob := svc.Client("bob")
	p := &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS}
	for i := range 600 { // some 42 kB: 48 are allowed
		p.Grants = append(p.Grants, &rmsv1.Grant{
			To: fmt.Sprintf("user:%05d.firstname-middlename-lastname@department.contoso.test", i), Rights: []rmsv1.Right{rmsv1.Right_RIGHT_VIEW},
		})
	}
	const documents = 120 // some 5 MB
	for range documents {
		if _, err := bob.Protect(t.Context(), io.Discard, strings.NewReader("for many"), rms.ProtectOptions{AdHoc: p}); err != nil {
			t.Fatal(err)
		}
	}
	ids := everyPage(t, func(token string) (names []string, next string, err error) {
		page, err := bob.Licenses().ListLicenses(t.Context(), &rmsv1.ListLicensesRequest{Parent: "tenants/contoso", PageSize: 1000, PageToken: token})
		for _, l := range page.GetLicenses() {
			names = append(names, l.GetName())
		}
		return names, page.GetNextPageToken(), err
	})
	if len(ids) != documents {
		t.Errorf("%d documents, want %d", len(ids), documents)
	}

	// So do as many edits of them that wait.
	alice := svc.Client("alice")
	p.Grants[0].To = "user:alice@contoso.test"
	for _, id := range ids {
		_, err := alice.Licenses().UpdateLicense(t.Context(), &rmsv1.UpdateLicenseRequest{
			License: &rmsv1.License{Name: id, Policy: &rmsv1.License_AdHoc{AdHoc: p}, Etag: "*"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ad_hoc"}},
		})
		if vocab.ReasonOf(err) != vocab.ReasonApprovalRequired {
			t.Fatal(err)
		}
	}
	operations := everyPage(t, func(token string) (names []string, next string, err error) {
		page, err := alice.Operations().ListOperations(t.Context(), &rmsv1.ListOperationsRequest{Parent: "tenants/contoso", PageSize: 1000, PageToken: token})
		for _, o := range page.GetOperations() {
			names = append(names, o.GetName())
		}
		return names, page.GetNextPageToken(), err
	})
	if len(operations) != documents {
		t.Errorf("%d operations, want %d", len(operations), documents)
	}
}

// everyPage reads a listing to its end, which must take more than one page and
// tell nothing twice.
func everyPage(t *testing.T, list func(token string) (names []string, next string, err error)) (all []string) {
	t.Helper()
	for token, pages := "", 1; ; pages++ {
		names, next, err := list(token)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
		if token = next; token == "" {
			if once := slices.Compact(slices.Sorted(slices.Values(all))); len(once) != len(all) || pages < 2 {
				t.Errorf("%d pages with %d things, %d different ones", pages, len(all), len(once))
			}
			return all
		}
	}
}
