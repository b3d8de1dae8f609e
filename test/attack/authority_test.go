package attack

import (
	"testing"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// TestAuthorityMix pits a license against the record: well signed, but with
// the identity of one document and the marks of another, of another tenant, of
// a document that was never published. The record is the only authority, and
// none comes into being this way.
func TestAuthorityMix(t *testing.T) {
	s := newSite(t, nil)
	alice, mallory, frank := s.person("alice"), s.person("mallory"), s.as(fabrikam, "frank")
	forMallory := grant("user:mallory@contoso.test", rmsv1.Right_RIGHT_VIEW)
	a := alice.publish("", grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW))
	b := alice.publish("", forMallory)
	foreign := frank.publish("", grant("anyone", rmsv1.Right_RIGHT_VIEW))
	stolen := s.stolen(t, contoso, license.UsagePL)
	root := s.root(t, contoso)
	fresh := vocab.NewContentID()

	for name, attack := range map[string]struct {
		pl     func(t *testing.T) []byte
		want   vocab.Reason
		silent bool // it is no alarm
	}{
		"a document's identity with another's commitment": {func(t *testing.T) []byte {
			return stolen.forgePL(t, a, func(h header, _ *[]byte) { h.Set(t, fieldCommitment, b.parsed.Commitment[:]) })
		}, vocab.ReasonLicenseMismatch, false},
		"the readable document's commitment under the other's identity": {func(t *testing.T) []byte {
			return stolen.forgePL(t, b, func(h header, _ *[]byte) { h.Set(t, fieldContent, a.content[:]) })
		}, vocab.ReasonLicenseMismatch, false},
		"a document that was never published": {func(t *testing.T) []byte {
			return stolen.forgePL(t, b, func(h header, _ *[]byte) { h.Set(t, fieldContent, fresh[:]) })
		}, vocab.ReasonLicenseUnknown, false},
		"a content ID of the offline space": {func(t *testing.T) []byte {
			id := vocab.NewContentID()
			id[6] = id[6]&0x0f | 0x80
			return stolen.forgePL(t, b, func(h header, _ *[]byte) { h.Set(t, fieldContent, id[:]) })
		}, vocab.ReasonSuiteUnsupported, true},
		"another content suite": {func(t *testing.T) []byte {
			return stolen.forgePL(t, b, func(h header, _ *[]byte) { h.Set(t, fieldSuite, 2) })
		}, vocab.ReasonSuiteUnsupported, true},
		"another body suite": {func(t *testing.T) []byte {
			return stolen.forgePL(t, b, func(h header, _ *[]byte) { h.Set(t, fieldBodySuite, 2) })
		}, vocab.ReasonSuiteUnsupported, true},
		"a genuine license of another tenant": {func(*testing.T) []byte { return foreign.pl }, vocab.ReasonLicenseMismatch, false},
		"another tenant's license under one's own tenant's name": {func(t *testing.T) []byte {
			own := s.trust[contoso].TenantID
			return resign(t, foreign.pl, license.KindPL, stolen, func(h header, _ *[]byte) { h.Set(t, fieldTenant, own[:]) })
		}, vocab.ReasonLicenseSignature, false},
		"signed under another tenant's root": {func(t *testing.T) []byte {
			return certify(t, s.root(t, fabrikam), s.trust[contoso].TenantID, license.UsagePL).forgePL(t, b, nil)
		}, vocab.ReasonLicenseSignature, false},
		"signed with a certificate for checkpoints only": {func(t *testing.T) []byte {
			return certify(t, root, s.trust[contoso].TenantID, license.UsageCheckpoint).forgePL(t, b, nil)
		}, vocab.ReasonLicenseSignature, false},
		"signed with another key than the certificate's": {func(t *testing.T) []byte {
			return (&forger{Signer: ownRoot(t), cert: stolen.cert}).forgePL(t, b, nil)
		}, vocab.ReasonLicenseSignature, false},
		"one bit of it changed": {func(*testing.T) []byte {
			changed := append([]byte(nil), b.pl...)
			changed[len(changed)-1] ^= 1
			return changed
		}, vocab.ReasonLicenseSignature, false},
		"a use license in its place": {func(t *testing.T) []byte {
			return mallory.wantOpens(t, b).resp.GetUseLicense()
		}, vocab.ReasonLicenseMalformed, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mallory.acquire(attack.pl(t))
			s.recorded(t, wantRefused(t, got, err, attack.want), !attack.silent)
		})
	}

	t.Run("a license that was offered is not registered", func(t *testing.T) {
		got, err := alice.acquireByName(fresh)
		wantRefused(t, got, err, vocab.ReasonNoRights)
		if _, err := alice.licenses().GetLicense(alice.ctx(), &rmsv1.GetLicenseRequest{Name: alice.parent() + "/licenses/" + fresh.String()}); refused(err) == nil || refused(err).reason != vocab.ReasonNoRights {
			t.Fatalf("there is a record of it now: %v", err)
		}
	})
	t.Run("another tenant's license by its name", func(t *testing.T) {
		got, err := mallory.acquireAs(newKey(t), &rmsv1.AcquireRequest{Document: &rmsv1.AcquireRequest_License{License: foreign.name}})
		wantRefused(t, got, err, vocab.ReasonRequestInvalid)
		got, err = mallory.acquireByName(foreign.content)
		s.recorded(t, wantRefused(t, got, err, vocab.ReasonNoRights), false)
	})
	t.Run("another tenant addressed with one's own sign-in", func(t *testing.T) {
		got, err := mallory.at(fabrikam).acquire(foreign.pl)
		if r := wantRefused(t, got, err, vocab.ReasonIssuerNotTrusted); r.event != "" {
			t.Fatal("a stranger filled another tenant's log")
		}
	})
	t.Run("an administrator of another tenant", func(t *testing.T) {
		for what, call := range map[string]func() error{
			"reads a license": func() error {
				_, err := frank.licenses().GetLicense(frank.ctx(), &rmsv1.GetLicenseRequest{Name: a.name})
				return err
			},
			"revokes it": func() error {
				_, err := frank.licenses().RevokeLicense(frank.ctx(), &rmsv1.RevokeLicenseRequest{Name: a.name})
				return err
			},
			"reads the log": func() error {
				_, err := frank.audit().ListEvents(frank.ctx(), &rmsv1.ListEventsRequest{Parent: "tenants/" + contoso})
				return err
			},
			"changes the settings": func() error {
				_, err := frank.policy().GetSettings(frank.ctx(), &rmsv1.GetSettingsRequest{Name: "tenants/" + contoso + "/settings"})
				return err
			},
		} {
			if r := refused(call()); r == nil || r.reason != vocab.ReasonIssuerNotTrusted {
				t.Errorf("%s: %v", what, r)
			}
		}
	})
	t.Run("a stranger cannot tell a document from none", func(t *testing.T) {
		createTemplate(t, alice, "with-contact", grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW))
		hidden := alice.publish("with-contact")
		got, err := mallory.acquireByName(hidden.content)
		there := wantRefused(t, got, err, vocab.ReasonNoRights)
		got, err = mallory.acquireByName(vocab.NewContentID())
		none := wantRefused(t, got, err, vocab.ReasonNoRights)
		if there.text != none.text || there.contact != none.contact {
			t.Fatalf("the answers differ:\n%s %q\n%s %q", there.text, there.contact, none.text, none.contact)
		}
		for _, name := range []string{hidden.name, mallory.parent() + "/licenses/" + vocab.NewContentID().String()} {
			_, err := mallory.licenses().RevokeLicense(mallory.ctx(), &rmsv1.RevokeLicenseRequest{Name: name})
			if r := refused(err); r == nil || r.reason != vocab.ReasonNoRights || r.text != none.text {
				t.Fatalf("revoking: %v", r)
			}
		}
	})

	mallory.wantOpens(t, b)
	if n := len(s.releases(t, a)); n != 0 {
		t.Fatalf("the document nobody opened was released %d times", n)
	}
}
