package attack

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// rows are contoso's rows in the store of the stopped daemon, its name's too.
func (s *site) rows(t *testing.T) map[string]string {
	t.Helper()
	rows := map[string]string{}
	s.editStore(t, func(tx *bbolt.Tx) {
		must(t, tx.ForEach(func(table []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if bytes.HasPrefix(k, s.of()) || string(k) == contoso {
					rows[fmt.Sprintf("%s/%x", table, k)] = string(v)
				}
				return nil
			})
		}))
	})
	if len(rows) < 10 {
		t.Fatalf("only %d rows of the tenant were found", len(rows))
	}
	return rows
}

// bootBroken starts the daemon, which must not serve contoso for this reason,
// and waits until it serves fabrikam.
func (s *site) bootBroken(t *testing.T, want vocab.Reason) {
	t.Helper()
	must(t, s.boot())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.daemon.Ready(ctx); vocab.ReasonOf(err) != want || !strings.HasPrefix(err.Error(), "tenant contoso: ") {
		t.Fatalf("%v, want that contoso is broken with %s", err, want)
	}
}

// TestBrokenTenant damages what is contoso's alone, behind the daemon's back.
// Fabrikam is served as if nothing were. Contoso is refused by name: nothing of
// it opens and nothing is written, to its log neither, until it is repaired.
func TestBrokenTenant(t *testing.T) {
	s := newSite(t, nil)
	alice, frank := s.person("alice"), s.as(fabrikam, "frank")
	doc := alice.publish("", grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW))
	foreign := frank.publish("", grant("user:frank@fabrikam.test", rmsv1.Right_RIGHT_VIEW))
	changeSettings := func(alice *caller) error {
		_, err := alice.policy().UpdateSettings(alice.ctx(), &rmsv1.UpdateSettingsRequest{
			Settings:   &rmsv1.Settings{Name: alice.parent() + "/settings", Etag: "*", GuestDomains: []string{"partner.test"}},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"guest_domains"}},
		})
		return err
	}
	must(t, changeSettings(alice))
	s.stop()
	sound := s.snapshot(t)
	keyring := filepath.Join(s.Dir, "data", "keyring-"+contoso)
	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		must(t, err)
		return b
	}
	ring, key := read(keyring), read(keyring+".key")
	wrongKey := make([]byte, len(key))
	_, _ = rand.Read(wrongKey)

	for name, c := range map[string]struct {
		damage func(t *testing.T)
		repair func(t *testing.T) // beside the running daemon; nil: it must be stopped
		found  vocab.Reason       // as the operator sees it
		told   vocab.Reason       // as callers do
	}{
		"a keyring that was cut": {
			func(t *testing.T) { must(t, os.Truncate(keyring, int64(len(ring)/2))) },
			func(t *testing.T) { must(t, os.WriteFile(keyring, ring, 0o600)) },
			vocab.ReasonConfigurationInvalid, vocab.ReasonCustodianUnreachable,
		},
		"a keyring that is gone": {
			func(t *testing.T) { must(t, os.Remove(keyring)) },
			func(t *testing.T) { must(t, os.WriteFile(keyring, ring, 0o600)) },
			vocab.ReasonConfigurationInvalid, vocab.ReasonCustodianUnreachable,
		},
		"a key file that is another's": {
			func(t *testing.T) { must(t, os.WriteFile(keyring+".key", wrongKey, 0o600)) },
			func(t *testing.T) { must(t, os.WriteFile(keyring+".key", key, 0o600)) },
			vocab.ReasonConfigurationInvalid, vocab.ReasonCustodianUnreachable,
		},
		"settings that nobody set": {
			func(t *testing.T) {
				s.editStore(t, func(tx *bbolt.Tx) {
					editRow(t, tx, tableSettings, s.of(), func(h header) { h.Set(t, settingsGuests, []string{"partner.test", "guests.test"}) })
				})
			},
			nil, vocab.ReasonStoreDamaged, vocab.ReasonStoreDamaged,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.tb = t
			sound()
			c.damage(t)
			// Its log is due for a checkpoint, which nobody can sign now.
			id := s.trust[contoso].TenantID
			checkpoint := filepath.Join(s.Dir, "data", "checkpoints", id.String())
			must(t, os.RemoveAll(checkpoint))
			before, said := s.rows(t), len(s.log.all())

			s.bootBroken(t, c.found)
			frank := s.as(fabrikam, "frank")
			served := func() {
				t.Helper()
				frank.wantOpens(t, foreign)
				frank.wantOpens(t, frank.publish("", grant("user:frank@fabrikam.test", rmsv1.Right_RIGHT_VIEW)))
			}
			served()
			s.wantRefusedCalls(t, doc, c.told, changeSettings)
			changes, err := s.daemon.Reload(t.Context())
			must(t, err)
			if len(changes) != 1 || !strings.HasPrefix(changes[0], "tenant contoso is still broken: ") || !strings.Contains(changes[0], string(c.found)) {
				t.Errorf("a reload before the repair says %q", changes)
			}
			served()
			s.wantRefusedCalls(t, doc, c.told, changeSettings)

			status, err := s.daemon.Status(t.Context())
			must(t, err)
			for i, want := range []*rmsv1.TenantStatus{
				{Tenant: "tenants/" + contoso, TenantId: id.String(), Reason: string(c.found), Licenses: 1},
				{Tenant: "tenants/" + fabrikam, TenantId: s.trust[fabrikam].TenantID.String(), Serving: true, Licenses: 3},
			} {
				if len(status.GetTenants()) != 2 {
					t.Fatalf("the status has %d tenants", len(status.GetTenants()))
				}
				got := status.GetTenants()[i]
				if got.GetTenant() != want.GetTenant() || got.GetTenantId() != want.GetTenantId() || got.GetServing() != want.GetServing() ||
					got.GetReason() != want.GetReason() || got.GetLicenses() != want.GetLicenses() || got.GetEvents() == 0 ||
					(got.GetMessage() == "") != want.GetServing() || got.GetCustodian() != "embedded" {
					t.Errorf("the status says %v", got)
				}
			}
			s.stop()

			if !maps.Equal(s.rows(t), before) {
				t.Error("rows of the broken tenant were written")
			}
			if _, err := os.Stat(checkpoint); !os.IsNotExist(err) {
				t.Errorf("a checkpoint of the broken tenant's log was exported: %v", err)
			}
			log := string(s.log.all()[said:])
			if !strings.Contains(log, `msg="the tenant is broken and not served" tenant=contoso reason=`+string(c.found)) {
				t.Errorf("the operator's log does not say what is broken:\n%s", log)
			}
			if strings.Contains(log, "a checkpoint was not exported") {
				t.Error("the operator's log complains of a checkpoint that nobody can sign")
			}

			if c.repair == nil {
				sound()
				s.start()
			} else {
				s.bootBroken(t, c.found)
				c.repair(t)
				changes, err := s.daemon.Reload(t.Context())
				must(t, err)
				if !slices.Equal(changes, []string{"tenant contoso is served"}) {
					t.Errorf("a reload after the repair says %q", changes)
				}
				must(t, s.daemon.Ready(t.Context()))
			}
			s.person("bob").wantOpens(t, doc)
			s.as(fabrikam, "frank").wantOpens(t, foreign)
			if found := s.findings(t); found != "" {
				t.Errorf("after the repair the check of the store says %s", found)
			}
			s.stop()
			if _, err := os.Stat(filepath.Join(checkpoint, "latest")); err != nil {
				t.Errorf("the repaired tenant's log has no checkpoint: %v", err)
			}
		})
	}
}

// wantRefusedCalls checks what everybody is told who calls for contoso while it
// is broken.
func (s *site) wantRefusedCalls(t *testing.T, doc *document, told vocab.Reason, changeSettings func(*caller) error) {
	t.Helper()
	alice, bob, erin := s.person("alice"), s.person("bob"), s.person("erin")
	gina := s.as("guests", "gina")
	view := []*rmsv1.AcquireRequest{{Parent: bob.parent(), Document: &rmsv1.AcquireRequest_PublishingLicense{PublishingLicense: doc.pl}, Right: rmsv1.Right_RIGHT_VIEW}}
	trust := func(parent string) func() error {
		return func() error {
			_, err := bob.protection().GetTrust(t.Context(), &rmsv1.GetTrustRequest{Parent: parent})
			return err
		}
	}
	acquire := func(c *caller) func() error {
		return func() error {
			o, err := c.acquire(doc.pl)
			if o != nil {
				t.Errorf("%s has the key", c.name)
			}
			return err
		}
	}
	for what, c := range map[string]struct {
		call func() error
		want vocab.Reason
	}{
		"bob opens":         {acquire(bob), told},
		"bob opens by name": {func() error { _, err := bob.acquireByName(doc.content); return err }, told},
		"a guest opens":     {acquire(gina), told},
		"a service opens":   {acquire(s.service("dlp", s.clientCertificate("/dlp"))), told},
		"bob opens many": {func() error {
			_, err := bob.protection().BatchAcquire(bob.ctx(), &rmsv1.BatchAcquireRequest{Parent: bob.parent(), Items: view, Delivery: daemontest.SealedTo(newKey(t))})
			return err
		}, told},
		"alice protects": {func() error {
			_, err := alice.publishAs(newKey(t), &rmsv1.PublishRequest{Delivery: daemontest.SealedTo(newKey(t)), Policy: &rmsv1.PublishRequest_AdHoc{AdHoc: &rmsv1.AdHocPolicy{Kind: rmsv1.AdHocPolicy_KIND_GRANTS, Grants: []*rmsv1.Grant{grant("user:bob@contoso.test", rmsv1.Right_RIGHT_VIEW)}}}})
			return err
		}, told},
		"alice revokes": {func() error {
			_, err := alice.licenses().RevokeLicense(alice.ctx(), &rmsv1.RevokeLicenseRequest{Name: doc.name})
			return err
		}, told},
		"alice changes settings": {func() error { return changeSettings(alice) }, told},
		"erin reads the log": {func() error {
			_, err := erin.audit().ListEvents(erin.ctx(), &rmsv1.ListEventsRequest{Parent: erin.parent()})
			return err
		}, told},
		"erin follows the log": {func() error {
			stream, err := erin.audit().TailEvents(erin.ctx(), &rmsv1.TailEventsRequest{Parent: erin.parent()})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, told},
		"anybody asks for its trust": {trust("tenants/" + contoso), told},

		// Who is not contoso's learns no more than while it serves.
		"frank opens":             {acquire(s.as(fabrikam, "frank").at(contoso)), vocab.ReasonIssuerNotTrusted},
		"nobody opens":            {acquire(bob.with("")), vocab.ReasonTokenMissing},
		"somebody with no token":  {acquire(bob.with("not a token")), vocab.ReasonTokenInvalid},
		"a service of no name":    {acquire(s.service("other", s.clientCertificate("/other"))), vocab.ReasonCertificateNotMapped},
		"anybody names no tenant": {trust(""), vocab.ReasonResourceNotFound}, // and gets to no other one
	} {
		err := c.call()
		r, ok := err.(*refusal) //nolint:errorlint // our own
		if !ok {
			r = refused(err)
		}
		switch {
		case r == nil:
			t.Errorf("%s: not refused", what)
		case r.reason != c.want:
			t.Errorf("%s: %v, want %s", what, r, c.want)
		case r.event != "":
			t.Errorf("%s: an event is told of, which cannot be in the log", what)
		case strings.Contains(r.text, s.Dir) || strings.Contains(r.text, "keyring"):
			t.Errorf("%s: the answer holds what is the operator's: %s", what, r.text)
		}
	}
}
