package tenant_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// A service that published for somebody may repeat the call for a day. A row of
// the store that says it did so just now does not make that longer.
func TestAnEditedRequestRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, quiet)
		key, err := license.NewRecipientKey(license.XWing)
		if err != nil {
			t.Fatal(err)
		}
		to, err := license.ParseRecipient(license.XWing, key.Public(), k.AllowedKEMs())
		if err != nil {
			t.Fatal(err)
		}
		dms := tenant.Call{Method: "test", Caller: &vocab.Identity{Issuer: "x509", Subject: "spiffe://contoso.test/dms", Service: "dms"}}
		alice := vocab.Principal{Kind: vocab.KindUser, Value: "alice@contoso.test"}
		publish := func(id string) (*tenant.Published, error) {
			return k.Publish(t.Context(), dms, tenant.PublishRequest{
				RequestID: id, Hash: [32]byte{1}, Owner: alice, To: tenant.Recipient{Sealed: to},
				AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants, Grants: []policy.Grant{{To: alice, Rights: policy.Viewer.Rights()}}},
			})
		}
		made, err := publish("one")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		again, err := publish("one")
		if err != nil || again.License.Record.Content != made.License.Record.Content {
			t.Fatalf("within the day: %v", err)
		}
		time.Sleep(2 * time.Hour)
		err = k.store.Commit(t.Context(), func(tx store.Tx) error {
			return record.PutRequest(tx, k.ID(), canon.PrincipalID(dms.Caller.Issuer, dms.Caller.Subject), "two", &record.Request{
				Hash: [32]byte{1}, Content: made.License.Record.Content, PL: made.PublishingLicense, At: record.ToMillis(time.Now()),
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := publish("two"); vocab.ReasonOf(err) != vocab.ReasonNoRights {
			t.Errorf("after the day, by an edited row: %v", err)
		}
	})
}
