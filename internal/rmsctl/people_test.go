package rmsctl

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func TestMembershipLines(t *testing.T) {
	const finance = "finance@contoso.test"
	got := membershipLines(finance, &rmsv1.GroupChange{
		Group: &rmsv1.Group{Members: []string{"user:bob@contoso.test", "group:interns@contoso.test", "user:dan@contoso.test", "user:old@contoso.test"}},
		Changes: []*rmsv1.MembershipChange{
			{Principal: "user:bob@contoso.test", Joins: []string{finance}},
			{Principal: "group:interns@contoso.test", Joins: []string{"all@contoso.test", finance, "staff@contoso.test"}},
			{Principal: "user:dan@contoso.test"},
			{Principal: "user:carla@contoso.test", Leaves: []string{finance, "staff@contoso.test"}},
			{Principal: "service:dms", Leaves: []string{finance}},
			{Principal: "user:erin@contoso.test"},
		},
		ChangeCount: 1234,
	})
	if d := cmp.Diff([]string{
		"+ bob@contoso.test joins",
		"+ group:interns@contoso.test joins, and with it all@contoso.test, staff@contoso.test",
		"+ dan@contoso.test joins, and was in it through another group",
		"- carla@contoso.test leaves, and with it staff@contoso.test",
		"- service:dms leaves",
		"- erin@contoso.test leaves, and stays in it through another group",
		"and 1,228 more",
	}, got); d != "" {
		t.Error(d)
	}
}

func TestMayStillOpen(t *testing.T) {
	end := timestamppb.New(time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC))
	use := &rmsv1.PrincipalUse{License: "tenants/contoso/licenses/x", ExpireTime: end}
	for _, c := range []struct {
		count int32
		uses  []*rmsv1.PrincipalUse
		want  string
	}{
		{0, nil, "They hold no use license that could still open anything."},
		{1, []*rmsv1.PrincipalUse{use}, "1 cached use license may still open, the last until 2026-12-01 09:00:00Z:"},
		{1200, []*rmsv1.PrincipalUse{use, use}, "1,200 cached use licenses may still open, the last until 2026-12-01 09:00:00Z; the 2 that end last:"},
	} {
		if got := mayStillOpen(&rmsv1.DisablePrincipalResponse{CachedUseCount: c.count, CachedUses: c.uses}); got != c.want {
			t.Errorf("%d: %s", c.count, got)
		}
	}
}
