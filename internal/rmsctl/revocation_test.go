package rmsctl

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// What a revocation cannot reach is said as far as it is known, and never less
// than that.
func TestWhatMayStillOpen(t *testing.T) {
	end := timestamppb.New(time.Date(2026, 12, 3, 9, 14, 3, 0, time.UTC))
	uses := func(names ...string) (out []*rmsv1.CachedUse) {
		for _, n := range names {
			out = append(out, &rmsv1.CachedUse{Principal: n, ExpireTime: end})
		}
		return out
	}
	for _, c := range []struct {
		r    *rmsv1.RevokeLicensesResponse
		want string
	}{
		{&rmsv1.RevokeLicensesResponse{}, "Nobody holds a use license that could still open one."},
		{&rmsv1.RevokeLicensesResponse{MoreCachedUses: true}, "No use license is known that could still open one, but there may be some."},
		{
			&rmsv1.RevokeLicensesResponse{CachedUses: uses("bob@x.org"), CachedUseCount: 1},
			"1 cached use license may still open until 2026-12-03 09:14:03Z (bob@x.org).",
		},
		{
			&rmsv1.RevokeLicensesResponse{CachedUses: uses("bob@x.org", "bob@x.org", "service:dms"), CachedUseCount: 3},
			"3 cached use licenses may still open until 2026-12-03 09:14:03Z (bob@x.org, service:dms, …).",
		},
		{
			&rmsv1.RevokeLicensesResponse{CachedUses: uses("bob@x.org"), CachedUseCount: 1, MoreCachedUses: true},
			"At least 1 cached use license may still open until 2026-12-03 09:14:03Z (bob@x.org, …).",
		},
		{
			&rmsv1.RevokeLicensesResponse{CachedUses: uses("a@x.org", "b@x.org", "c@x.org", "d@x.org", "e@x.org", "f@x.org"), CachedUseCount: 20_000, MoreCachedUses: true},
			"At least 20,000 cached use licenses may still open until 2026-12-03 09:14:03Z (a@x.org, b@x.org, c@x.org, d@x.org, e@x.org, …).",
		},
	} {
		if got := stillOpenAll(c.r); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

// A revocation is described by its conditions, counted as far as is known, and
// the flags that make it again are those it was made with.
func TestRevocationInWords(t *testing.T) {
	now := time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	for _, c := range []struct {
		r           *rmsv1.RevokeLicensesResponse
		want, flags string
	}{
		{
			&rmsv1.RevokeLicensesResponse{LicenseCount: 1, Revocation: &rmsv1.RevocationRule{Owner: "user:bob@x.org", UntilTime: ago(1500 * time.Millisecond)}},
			"1 license: owner bob@x.org, published before 2026-11-26 08:59:58Z.", " --owner bob@x.org --until 2026-11-26T08:59:58.5Z --reason WHY",
		},
		{
			&rmsv1.RevokeLicensesResponse{LicenseCount: 20_000, MoreLicenses: true, Revocation: &rmsv1.RevocationRule{FromTime: ago(time.Hour), UntilTime: ago(-time.Hour)}},
			"at least 20,000 licenses: published from 2026-11-26 08:00:00Z, published before 2026-11-26 10:00:00Z, and what is published later.",
			" --from 2026-11-26T08:00:00Z --until 2026-11-26T10:00:00Z --reason WHY",
		},
		{
			&rmsv1.RevokeLicensesResponse{LicenseCount: 7, Revocation: &rmsv1.RevocationRule{Principal: "group:g@x.org"}},
			"7 licenses for group:g@x.org, and what is published later.", " --principal group:g@x.org --reason WHY",
		},
		{
			&rmsv1.RevokeLicensesResponse{LicenseCount: 2, Revocation: &rmsv1.RevocationRule{
				Principal: "user:eve@x.org", Template: "tenants/t/templates/finance", Lineage: "tenants/t/licenses/019a8c1e-77f1-7a31-8c1e-0123456789ab",
			}},
			"2 licenses for eve@x.org: template finance, made from 019a8c1e-77f1-7a31-8c1e-0123456789ab, and what is published later.",
			" --principal eve@x.org --template finance --lineage 019a8c1e-77f1-7a31-8c1e-0123456789ab --reason WHY",
		},
	} {
		if got := covered(c.r, now); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		if got := undoFlags(c.r.GetRevocation()); got != c.flags {
			t.Errorf("got  %s\nwant %s", got, c.flags)
		}
	}
}
