package tenant_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// A daemon that cannot sign any more, because its custodian is away for longer
// than a certificate lives, still decides: whoever has no rights is told that,
// and only who would be given a key learns that the custodian is in the way.
func TestRefusalsWithoutASigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, quiet)
		key, err := license.NewRecipientKey(license.XWing)
		if err != nil {
			t.Fatal(err)
		}
		recipient, err := license.ParseRecipient(license.XWing, key.Public(), k.AllowedKEMs())
		if err != nil {
			t.Fatal(err)
		}
		to := tenant.Recipient{Sealed: recipient}
		made, err := k.Publish(t.Context(), k.call, tenant.PublishRequest{
			AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants, Grants: []policy.Grant{{
				To: vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.test"}, Rights: vocab.RightsOf(vocab.RightView),
			}}},
			To: to,
		})
		if err != nil {
			t.Fatal(err)
		}
		open := func(who string) error {
			out, err := k.Acquire(t.Context(), tenant.Call{Method: "test", Caller: &vocab.Identity{
				Issuer: "https://idp.contoso.test", Subject: who, Addresses: []string{who + "@contoso.test"}, Member: "contoso",
			}}, to, []tenant.AcquireItem{{PublishingLicense: made.PublishingLicense, Right: vocab.RightView}})
			if err != nil {
				t.Fatal(err)
			}
			return out.Results[0].Err
		}
		if err := open("bob"); err != nil {
			t.Fatal(err)
		}
		k.custodian.be(func(c *moody) { c.err = sealed })
		time.Sleep(25 * time.Hour)
		for who, want := range map[string]vocab.Reason{
			"mallory": vocab.ReasonNoRights, "bob": vocab.ReasonCustodianSealed, "alice": vocab.ReasonCustodianSealed,
		} {
			err := open(who)
			if got := vocab.ReasonOf(err); got != want {
				t.Errorf("%s was told %q, want %q", who, got, want)
			}
			entries, _, lerr := k.log.List(t.Context(), k.ID(), audit.Filter{Content: made.License.Record.Content}, audit.Cursor{}, 1)
			if lerr != nil {
				t.Fatal(lerr)
			}
			if len(entries) != 1 || entries[0].Event.Reason != want {
				t.Errorf("the log's last word on the document is not %s's %s", who, want)
			}
		}
	})
}
