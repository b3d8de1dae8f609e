package attack

import (
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// TestUndeleteAndRollback keeps what was valid once, and uses it after the
// rights were taken away: the publishing license, the request, the etag. The
// live record decides, whatever a file says.
func TestUndeleteAndRollback(t *testing.T) {
	s := newSite(t, nil)
	alice, bob, erin := s.person("alice"), s.person("bob"), s.person("erin")
	view := rmsv1.Right_RIGHT_VIEW
	update := func(t *testing.T, d *document, etag string, grants ...*rmsv1.Grant) (*rmsv1.License, error) {
		t.Helper()
		return alice.licenses().UpdateLicense(alice.ctx(), &rmsv1.UpdateLicenseRequest{
			License:    &rmsv1.License{Name: d.name, Etag: etag, Policy: &rmsv1.License_AdHoc{AdHoc: &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: grants}}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ad_hoc"}},
		})
	}

	t.Run("an old license after the right was taken away", func(t *testing.T) {
		d := alice.publish("", grant("user:bob@contoso.test", view))
		bob.wantOpens(t, d)
		_, err := update(t, d, "*", grant("user:erin@contoso.test", view))
		must(t, err)
		got, err := bob.acquire(d.pl)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
		erin.wantOpens(t, d)
	})
	t.Run("an old edit, sent again", func(t *testing.T) {
		d := alice.publish("", grant("user:bob@contoso.test", view))
		v, err := alice.licenses().GetLicense(alice.ctx(), &rmsv1.GetLicenseRequest{Name: d.name})
		must(t, err)
		_, err = update(t, d, v.GetEtag(), grant("user:erin@contoso.test", view))
		must(t, err)
		_, err = update(t, d, v.GetEtag(), grant("user:bob@contoso.test", view))
		if r := refused(err); r == nil || r.reason != vocab.ReasonEtagMismatch {
			t.Fatalf("an edit based on an older revision: %v", r)
		}
		got, err := bob.acquire(d.pl)
		wantRefused(t, got, err, vocab.ReasonNoRights)
	})
	t.Run("an old license after revocation", func(t *testing.T) {
		d := alice.publish("", grant("user:bob@contoso.test", view))
		bob.wantOpens(t, d)
		_, err := alice.licenses().RevokeLicense(alice.ctx(), &rmsv1.RevokeLicenseRequest{Name: d.name, Reason: "leaked"})
		must(t, err)
		got, err := bob.acquire(d.pl)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonLicenseRevoked), false)
		got, err = bob.acquireByName(d.content)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonLicenseRevoked), false)
		// Nor does whoever lost it take the revocation back.
		_, err = bob.licenses().RestoreLicense(bob.ctx(), &rmsv1.RestoreLicenseRequest{Name: d.name})
		if r := refused(err); r == nil || r.reason != vocab.ReasonNoRights {
			t.Fatalf("restoring somebody else's license: %v", r)
		}
		got, err = bob.acquire(d.pl)
		wantRefused(t, got, err, vocab.ReasonLicenseRevoked)
	})
	t.Run("a revoked document, published again with the old request", func(t *testing.T) {
		key := newKey(t)
		req := func() *rmsv1.PublishRequest {
			return &rmsv1.PublishRequest{RequestId: "again", Delivery: daemontest.SealedTo(key), Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{
				Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{grant("user:bob@contoso.test", view)},
			}}}
		}
		d, err := alice.publishAs(key, req())
		must(t, err)
		_, err = alice.licenses().RevokeLicense(alice.ctx(), &rmsv1.RevokeLicenseRequest{Name: d.name})
		must(t, err)
		_, err = alice.publishAs(key, req())
		r, ok := err.(*refusal) //nolint:errorlint // our own
		if !ok || r.reason != vocab.ReasonLicenseRevoked {
			t.Fatalf("the key of a revoked document was delivered again: %v", err)
		}
		s.recorded(t, r, false)
	})
	t.Run("an old license after its template was narrowed, archived, deleted", func(t *testing.T) {
		createTemplate(t, alice, "shrinking", grant("user:bob@contoso.test", view))
		d := alice.publish("shrinking")
		bob.wantOpens(t, d)
		edit := func(state rmsv1.Template_State, grants ...*rmsv1.Grant) {
			t.Helper()
			tmpl := templateOf("shrinking", grants...)
			tmpl.Name, tmpl.Etag, tmpl.State = alice.parent()+"/templates/shrinking", "*", state
			_, err := alice.policy().UpdateTemplate(alice.ctx(), &rmsv1.UpdateTemplateRequest{Template: tmpl})
			must(t, err)
		}
		edit(rmsv1.Template_STATE_PUBLISHED, grant("user:erin@contoso.test", view))
		got, err := bob.acquire(d.pl)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
		edit(rmsv1.Template_STATE_ARCHIVED, grant("user:bob@contoso.test", view))
		bob.wantOpens(t, d)
		key := newKey(t)
		_, err = alice.publishAs(key, &rmsv1.PublishRequest{Delivery: daemontest.SealedTo(key), Policy: &rmsv1.PublishRequest_Template{Template: "shrinking"}})
		if r, ok := err.(*refusal); !ok || r.reason != vocab.ReasonTemplateArchived { //nolint:errorlint // our own
			t.Fatalf("published under an archived template: %v", err)
		}
		_, err = alice.policy().DeleteTemplate(alice.ctx(), &rmsv1.DeleteTemplateRequest{Name: alice.parent() + "/templates/shrinking", Etag: "*", Force: true})
		must(t, err)
		got, err = bob.acquire(d.pl)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonTemplateDeleted), false)
		alice.wantOpens(t, d) // the issuer
		// A new template of the same name is not the deleted one.
		_, err = alice.policy().CreateTemplate(alice.ctx(), &rmsv1.CreateTemplateRequest{
			Parent: alice.parent(), TemplateId: "shrinking", Template: templateOf("shrinking", grant("user:bob@contoso.test", view)),
		})
		if r := refused(err); r == nil || r.reason != vocab.ReasonResourceExists {
			t.Fatalf("a deleted template's name was taken: %v", r)
		}
	})
}
