package attack

import (
	"errors"
	"testing"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// TestTransplant moves sealed bytes to where they might open for somebody
// else: the body of one document's license into another's, a key sealed for
// one person to another, a publication of one to another.
func TestTransplant(t *testing.T) {
	s := newSite(t, nil)
	alice, bob, mallory := s.person("alice"), s.person("bob"), s.person("mallory")
	secret := alice.publish("", grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW))
	own := mallory.publish("", grant("user:mallory@contoso.test", rmsv1.Right_RIGHT_VIEW))
	stolen := s.stolen(t, contoso, license.UsagePL)
	boxOf := func(d *document) []byte {
		e, err := license.ParseEnvelope(d.pl)
		must(t, err)
		return e.Box
	}

	t.Run("the sealed body of another document, in place of one's own", func(t *testing.T) {
		spliced := resign(t, own.pl, license.KindPL, stolen, func(_ header, box *[]byte) { *box = boxOf(secret) })
		got, err := mallory.acquire(spliced)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonLicenseSignature), true)
	})
	t.Run("the same, signed with a key the root certified: only the record counts", func(t *testing.T) {
		got, err := mallory.acquire(stolen.forgePL(t, own, func(_ header, box *[]byte) { *box = boxOf(secret) }))
		must(t, err)
		if got.key != own.key {
			t.Fatal("the sealed body of a document decided which key was released")
		}
	})
	t.Run("one's own body under the name of another document, well signed", func(t *testing.T) {
		got, err := mallory.acquire(stolen.forgePL(t, secret, func(_ header, box *[]byte) { *box = boxOf(own) }))
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
	})
	t.Run("a license under a root of one's own", func(t *testing.T) {
		mine := certify(t, ownRoot(t), s.trust[contoso].TenantID, license.UsagePL)
		got, err := mallory.acquire(mine.forgePL(t, secret, nil))
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonLicenseSignature), true)
	})
	t.Run("a key sealed for somebody else, captured on the way", func(t *testing.T) {
		key := newKey(t)
		got, err := bob.acquireAs(key, &rmsv1.AcquireRequest{Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: secret.pl}})
		must(t, err)
		resp := got.resp
		if _, err := mallory.open(newKey(t), resp, resp.GetCertificate(), resp.GetContentKey().GetSealed().GetEnc()); vocab.ReasonOf(err) != vocab.ReasonUseLicenseRejected {
			t.Fatalf("another person opened a captured answer: %v", err)
		}
		// Even with the recipient's own key, somebody else is not whom it is for.
		if _, err := mallory.open(key, resp, resp.GetCertificate(), resp.GetContentKey().GetSealed().GetEnc()); vocab.ReasonOf(err) != vocab.ReasonUseLicenseRejected {
			t.Fatalf("a use license opened for another principal: %v", err)
		}
	})
	t.Run("a key asked for on behalf of somebody else's recipient key", func(t *testing.T) {
		got, err := mallory.acquireAs(newKey(t), &rmsv1.AcquireRequest{
			Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: secret.pl}, Delivery: daemontest.SealedTo(newKey(t)),
		})
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
	})

	t.Run("a publication of somebody else, sent again", func(t *testing.T) {
		key := newKey(t)
		req := func() *rmsv1.PublishRequest {
			return &rmsv1.PublishRequest{RequestId: "quarterly-report", Delivery: daemontest.SealedTo(key), Policy: &rmsv1.PublishRequest_Template{Template: "finance-internal"}}
		}
		createTemplate(t, alice, "finance-internal", grant("group:finance@contoso.test", rmsv1.Right_RIGHT_VIEW))
		first, err := alice.publishAs(key, req())
		must(t, err)
		again, err := alice.publishAs(key, req())
		must(t, err)
		if again.content != first.content || again.key != first.key {
			t.Fatal("a repeated publication is not the same one: the attack proves nothing")
		}
		got, err := mallory.publishAs(key, req())
		must(t, err)
		if got.content == first.content || got.key == first.key {
			t.Fatal("a request ID of somebody else's led to their document")
		}
		// With the recipient key changed it is another request.
		if _, err := alice.publishAs(newKey(t), &rmsv1.PublishRequest{RequestId: "quarterly-report", Delivery: daemontest.SealedTo(newKey(t)), Policy: req().Policy}); err == nil {
			t.Fatal("a repeated publication was delivered to another key")
		} else if r, ok := errors.AsType[*refusal](err); !ok || r.reason != vocab.ReasonRequestIDReused {
			t.Fatalf("refused with %s", r)
		}
	})

	bob.wantOpens(t, secret)
	mallory.wantOpens(t, own)
}

// createTemplate makes a template with the given grants.
func createTemplate(t *testing.T, c *caller, slug string, grants ...*rmsv1.Grant) *rmsv1.Template {
	t.Helper()
	out, err := c.policy().CreateTemplate(c.ctx(), &rmsv1.CreateTemplateRequest{Parent: c.parent(), TemplateId: slug, Template: templateOf(slug, grants...)})
	must(t, err)
	return out
}

func templateOf(name string, grants ...*rmsv1.Grant) *rmsv1.Template {
	return &rmsv1.Template{DisplayNames: map[string]string{"en": name}, State: rmsv1.Template_STATE_PUBLISHED, Grants: grants, Contact: "help@contoso.test"}
}
