package rms_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

const reviewers = "reviewers" // a template under which bob may edit

func level(t *testing.T, name string) rms.Rights {
	t.Helper()
	r, err := rms.Level(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// makeTemplate makes a template that gives principals rights.
func makeTemplate(t *testing.T, admin *rms.Client, id string, grants ...*rmsv1.Grant) *rmsv1.Template {
	t.Helper()
	made, err := admin.Policy().CreateTemplate(t.Context(), &rmsv1.CreateTemplateRequest{Parent: admin.Tenant(), TemplateId: id, Template: &rmsv1.Template{
		DisplayNames: map[string]string{"en": id}, State: rmsv1.Template_STATE_PUBLISHED, Grants: grants,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Whoever may edit a document and not export it makes new ones under the old
// terms, for the old owner: editing never becomes owning.
func TestDerived(t *testing.T) {
	svc := rmstest.Start(t)
	alice, bob := svc.Client("alice"), svc.Client("bob")
	end := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	_, original := protect(t, alice, []byte("figures"), rms.ProtectOptions{
		AdHoc:      rms.AdHoc(rms.Grant("user:bob@contoso.test", level(t, "reviewer")), rms.Grant("service:dlp-scanner", level(t, "reviewer"))),
		ExpireTime: end,
	})
	template := makeTemplate(t, alice, reviewers, rms.Grant("user:bob@contoso.test", level(t, "reviewer")))
	_, byTemplate := protect(t, alice, []byte("figures"), rms.ProtectOptions{Template: reviewers})

	for _, c := range []struct {
		name   string
		editor *rms.Client
		parent *rms.Protected
	}{
		{"a person", bob, original},
		{"a service", svc.ServiceClient(), original},
		{"of a template", bob, byTemplate},
	} {
		t.Run(c.name, func(t *testing.T) {
			edited, made := protect(t, c.editor, []byte("edited"), rms.ProtectOptions{Parents: []rms.ContentID{c.parent.License}})
			was, is := c.parent.Record, made.Record
			if is.GetOwner() != "user:alice@contoso.test" || is.GetIssuer().GetAddress() != "alice@contoso.test" ||
				is.GetTemplate() != was.GetTemplate() || !is.GetExpireTime().AsTime().Equal(was.GetExpireTime().AsTime()) ||
				len(is.GetAdHoc().GetGrants()) != len(was.GetAdHoc().GetGrants()) ||
				len(is.GetParents()) != 1 || is.GetParents()[0] != was.GetName() {
				t.Errorf("made %v\nfrom %v", is, was)
			}
			_, d, err := open(t, c.editor, edited)
			if err != nil || d.Rights != level(t, "reviewer") {
				t.Errorf("the editor has %v, %v", d, err)
			}
			if _, err := c.editor.Licenses().RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: is.GetName()}); !errors.Is(err, rms.ReasonNoRights) {
				t.Errorf("the editor revokes: %v", err)
			}
			if _, d, err := open(t, alice, edited); err != nil || !d.Rights.Has(rms.RightExport) {
				t.Errorf("the owner has %v, %v", d, err)
			}
		})
	}

	refused := func(what string, who *rms.Client, o rms.ProtectOptions, want rms.Reason) {
		t.Helper()
		if _, err := who.Protect(t.Context(), discard{}, nothing{}, o); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	parent := []rms.ContentID{original.License}
	refused("other rights", bob, rms.ProtectOptions{Parents: parent, AdHoc: rms.AdHoc(rms.Grant("user:bob@contoso.test", level(t, "co-owner")))}, rms.ReasonRightNotGranted)
	refused("a template", bob, rms.ProtectOptions{Parents: parent, Template: "finance-internal"}, rms.ReasonRightNotGranted)
	refused("another owner", svc.ServiceClient(), rms.ProtectOptions{Parents: parent, Owner: "service:dlp-scanner"}, rms.ReasonRightNotGranted)
	refused("of a stranger", svc.Client("mallory"), rms.ProtectOptions{Parents: parent}, rms.ReasonNoRights)
	refused("of nothing there is", bob, rms.ProtectOptions{Parents: []rms.ContentID{{1}}}, rms.ReasonNoRights)
	refused("no parent, no policy", bob, rms.ProtectOptions{}, rms.ReasonRequestInvalid)
	_, viewed := protect(t, alice, []byte("x"), rms.ProtectOptions{AdHoc: rms.AdHoc(rms.Grant("user:bob@contoso.test", level(t, "viewer")))})
	refused("who may only view", bob, rms.ProtectOptions{Parents: []rms.ContentID{viewed.License}}, rms.ReasonRightNotGranted)

	// A template that cannot be chosen any more still protects what is edited.
	template.State = rmsv1.Template_STATE_ARCHIVED
	if _, err := alice.Policy().UpdateTemplate(t.Context(), &rmsv1.UpdateTemplateRequest{Template: template}); err != nil {
		t.Fatal(err)
	}
	_, made := protect(t, bob, []byte("edited"), rms.ProtectOptions{Parents: []rms.ContentID{byTemplate.License}})
	if made.Record.GetTemplate() != alice.Tenant()+"/templates/"+reviewers {
		t.Errorf("it follows %q", made.Record.GetTemplate())
	}
	refused("choosing it", bob, rms.ProtectOptions{Template: reviewers}, rms.ReasonTemplateArchived)

	// Whoever may export could have chosen other terms: keeping these makes the
	// document their own.
	if _, err := alice.Licenses().UpdateLicense(t.Context(), &rmsv1.UpdateLicenseRequest{
		License: &rmsv1.License{Name: original.Record.GetName(), Etag: "*", Policy: &rmsv1.License_AdHoc{
			AdHoc: rms.AdHoc(rms.Grant("user:bob@contoso.test", level(t, "co-owner"))),
		}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ad_hoc"}},
	}); err != nil {
		t.Fatal(err)
	}
	_, own := protect(t, bob, []byte("edited"), rms.ProtectOptions{Parents: parent})
	if own.Record.GetOwner() != "user:bob@contoso.test" || !own.Record.GetExpireTime().AsTime().Equal(end) {
		t.Errorf("a co-owner's: %v", own.Record)
	}
	if _, err := alice.Licenses().RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: original.Record.GetName()}); err != nil {
		t.Fatal(err)
	}
	refused("of what was revoked", bob, rms.ProtectOptions{Parents: parent}, rms.ReasonLicenseRevoked)
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

type nothing struct{}

func (nothing) Read([]byte) (int, error) {
	return 0, errors.New("nothing should be read before the license is there")
}
