package rms_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/license"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
	"github.com/openrms/rms/rmstest"
)

// A service that protects for somebody has nothing of it: it names the owner, is
// named as who did it, and may afterwards what a grant says and no more.
func TestServiceProtectsForOthers(t *testing.T) {
	svc := rmstest.Start(t)
	dlp, alice, bob := svc.ServiceClient(), svc.Client("alice"), svc.Client("bob")
	document, made := protect(t, dlp, []byte("report"), rms.ProtectOptions{
		AdHoc: rms.AdHoc(rms.Grant("user:bob@contoso.test", level(t, "viewer"))), Owner: "user:alice@contoso.test",
	})
	name := made.Record.GetName()
	if i := made.Record.GetIssuer(); made.Record.GetOwner() != "user:alice@contoso.test" || i.GetIssuer() != "x509" || i.GetSubject() == "" || i.GetAddress() != "" {
		t.Errorf("the record: %v", made.Record)
	}
	for what, call := range map[string]func() error{
		"opens it":     func() error { _, _, err := open(t, dlp, document); return err },
		"opens its ID": func() error { _, _, err := open(t, dlp, document, rms.ByID()); return err },
		"reads it": func() error {
			_, err := dlp.Licenses().GetLicense(t.Context(), &rmsv1.GetLicenseRequest{Name: name})
			return err
		},
		"revokes it": func() error {
			_, err := dlp.Licenses().RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: name})
			return err
		},
		"tracks it": func() error {
			_, err := dlp.Licenses().ListLicenseEvents(t.Context(), &rmsv1.ListLicenseEventsRequest{Name: name})
			return err
		},
		"derives of it": func() error {
			_, err := dlp.Protect(t.Context(), discard{}, nothing{}, rms.ProtectOptions{Parents: []rms.ContentID{made.License}})
			return err
		},
	} {
		if err := call(); !errors.Is(err, rms.ReasonNoRights) {
			t.Errorf("the service %s: %v, want NO_RIGHTS", what, err)
		}
	}
	list, err := dlp.Licenses().ListLicenses(t.Context(), &rmsv1.ListLicensesRequest{Parent: dlp.Tenant()})
	if err != nil || len(list.GetLicenses()) != 0 {
		t.Errorf("the service lists %v, %v", list.GetLicenses(), err)
	}
	if _, d, err := open(t, alice, document); err != nil || !d.Rights.Has(rms.RightExport) {
		t.Errorf("the owner has %v, %v", d, err)
	}
	if _, d, err := open(t, bob, document); err != nil || d.Rights != level(t, "viewer") {
		t.Errorf("bob has %v, %v", d, err)
	}
	if _, _, err := open(t, dlp, document, rms.OnBehalfOf(svc.Token("bob"))); err != nil {
		t.Errorf("for bob it opens with his rights: %v", err)
	}

	// What a grant gives, it has until the grant is taken away.
	template := makeTemplate(t, alice, "scanned", rms.Grant("service:dlp-scanner", level(t, "viewer")))
	scanned, _ := protect(t, dlp, []byte("report"), rms.ProtectOptions{Template: "scanned", Owner: "user:alice@contoso.test"})
	if _, d, err := open(t, dlp, scanned); err != nil || d.Rights != level(t, "viewer") {
		t.Errorf("by its grant the service has %v, %v", d, err)
	}
	template.Grants = nil
	if _, err := alice.Policy().UpdateTemplate(t.Context(), &rmsv1.UpdateTemplateRequest{Template: template}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(t, dlp, scanned); !errors.Is(err, rms.ReasonNoRights) {
		t.Errorf("without its grant: %v", err)
	}

	// What it protects for itself is its own, as an owner's.
	own, mine := protect(t, dlp, []byte("own"), rms.ProtectOptions{AdHoc: rms.AdHoc(rms.Grant("user:bob@contoso.test", level(t, "viewer")))})
	if _, d, err := open(t, dlp, own); err != nil || mine.Record.GetOwner() != "service:dlp-scanner" || !d.Rights.Has(rms.RightOwner) {
		t.Errorf("its own: %v, %v", d, err)
	}
	if _, err := dlp.Licenses().RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: mine.Record.GetName()}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(t, dlp, own); !errors.Is(err, rms.ReasonLicenseRevoked) {
		t.Errorf("its own, revoked: %v", err)
	}

	for what, o := range map[string]rms.ProtectOptions{
		"for somebody else": {Template: "finance-internal", Owner: "user:alice@contoso.test"},
		"for a service":     {Template: "finance-internal", Owner: "service:dlp-scanner"},
	} {
		if _, err := bob.Protect(t.Context(), discard{}, nothing{}, o); !errors.Is(err, rms.ReasonRoleRequired) {
			t.Errorf("a person protects %s: %v", what, err)
		}
	}
}

// An answer that got lost on its way to a service that publishes for others is
// given again, to the same request.
func TestServiceRepeatsWhatItPublishedForOthers(t *testing.T) {
	svc := rmstest.Start(t)
	dlp, alice := svc.ServiceClient(), svc.Client("alice")
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	request := &rmsv1.PublishRequest{
		Parent: dlp.Tenant(), RequestId: "job 4711", Owner: "user:alice@contoso.test",
		Policy:   &rmsv1.PublishRequest_AdHoc{AdHoc: rms.AdHoc(rms.Grant("user:bob@contoso.test", level(t, "viewer")))},
		Delivery: &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Hpke{Hpke: &rmsv1.HpkePublicKey{Kem: uint32(key.KEM()), PublicKey: key.Public()}}},
	}
	first, err := dlp.Protection().Publish(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	again, err := dlp.Protection().Publish(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.GetPublishingLicense(), again.GetPublishingLicense()); diff != "" || again.GetContentKey().GetSealed() == nil || first.GetEvent() == again.GetEvent() {
		t.Errorf("the repetition: %v", again)
	}
	other, _ := proto.Clone(request).(*rmsv1.PublishRequest)
	other.Owner = "user:bob@contoso.test"
	if _, err := dlp.Protection().Publish(t.Context(), other); !errors.Is(err, rms.ReasonRequestIDReused) {
		t.Errorf("another request: %v", err)
	}
	if _, err := alice.Licenses().RevokeLicense(t.Context(), &rmsv1.RevokeLicenseRequest{Name: first.GetLicense().GetName()}); err != nil {
		t.Fatal(err)
	}
	if _, err := dlp.Protection().Publish(t.Context(), request); !errors.Is(err, rms.ReasonLicenseRevoked) {
		t.Errorf("once its owner has revoked it: %v", err)
	}
}
