package tenant_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// Whoever owns under several addresses has one listing, newest first, whatever
// the pages.
func TestOwnersOfSeveralNamesHaveOneListing(t *testing.T) {
	o := newWatchedTenant(t)
	who := func(name string) vocab.Principal {
		return vocab.Principal{Kind: vocab.KindUser, Value: name + "@contoso.test"}
	}
	dms := tenant.Call{Method: "test", Caller: &vocab.Identity{Issuer: "x509", Subject: "dms", Service: "dms"}}
	mine := []vocab.Principal{who("alice"), who("a.adams"), who("nothing.here")}
	var want []string
	for i := range 40 {
		owner := []vocab.Principal{who("alice"), who("bob"), who("a.adams"), who("a.adams"), who("carol")}[(7*i+i/3)%5]
		made, err := o.Publish(t.Context(), dms, tenant.PublishRequest{
			To: o.to, Owner: owner,
			AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants, Grants: []policy.Grant{{To: who("bob"), Rights: policy.Viewer.Rights()}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(mine, owner) {
			want = append(want, made.License.Record.Content.String())
		}
	}
	slices.Sort(want)
	slices.Reverse(want)
	if len(want) < 10 {
		t.Fatalf("only %d to list", len(want))
	}
	for _, size := range []int{1, 2, 3, 7, 100} {
		var got []string
		var before vocab.ContentID
		for {
			page, next, err := o.ListLicenses(t.Context(), tenant.LicenseFilter{Owners: mine}, before, size)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > size {
				t.Fatalf("a page of %d holds %d", size, len(page))
			}
			for _, v := range page {
				got = append(got, v.Record.Content.String())
			}
			if before = next; next.IsZero() {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in pages of %d (-want +got):\n%s", size, diff)
		}
	}
}
