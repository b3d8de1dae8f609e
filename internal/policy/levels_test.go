package policy_test

import (
	"testing"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// TestLevels spells every set out by its encoded names, in bit order.
func TestLevels(t *testing.T) {
	for _, c := range []struct {
		name string
		got  vocab.Rights
		want string
	}{
		{"viewer", policy.Viewer.Rights(), "VIEW VIEWRIGHTSDATA OBJMODEL"},
		{"reviewer", policy.Reviewer.Rights(), "VIEW DOCEDIT EDIT FORWARD REPLY REPLYALL VIEWRIGHTSDATA OBJMODEL"},
		{"co-author", policy.CoAuthor.Rights(), "VIEW DOCEDIT EDIT FORWARD PRINT REPLY REPLYALL EXTRACT VIEWRIGHTSDATA OBJMODEL"},
		{"co-owner", policy.CoOwner.Rights(), "VIEW DOCEDIT EDIT EXPORT FORWARD OWNER PRINT REPLY REPLYALL EXTRACT VIEWRIGHTSDATA EDITRIGHTSDATA OBJMODEL"},
		{"do not forward", policy.DoNotForward(), "VIEW DOCEDIT EDIT REPLY REPLYALL VIEWRIGHTSDATA OBJMODEL"},
		{"encrypt only", policy.EncryptOnly(), "VIEW DOCEDIT EDIT COMMENT FORWARD PRINT REPLY REPLYALL EXTRACT VIEWRIGHTSDATA OBJMODEL"},
	} {
		if c.got.String() != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, c.got, c.want)
		}
	}
	for _, l := range policy.Levels() {
		if back, ok := policy.LevelOf(l.Rights()); !ok || back != l || policy.Describe(l.Rights()) != string(l) {
			t.Errorf("%s is not found by its rights", l)
		}
		if p, err := policy.ParseLevel(string(l)); err != nil || p != l {
			t.Errorf("%s: %v", l, err)
		}
	}
	if _, ok := policy.LevelOf(policy.DoNotForward()); ok {
		t.Error("Do Not Forward is no level")
	}
	if got := policy.Describe(vocab.RightsOf(vocab.RightView, vocab.RightPrint)); got != "VIEW PRINT" {
		t.Errorf("%q", got)
	}
	for _, s := range []string{"", "Viewer", "editor"} {
		if _, err := policy.ParseLevel(s); err == nil {
			t.Errorf("%q is no level", s)
		}
	}
}

func TestRecipientGrants(t *testing.T) {
	to := []vocab.Principal{who("user:a@contoso.com"), who("group:b@contoso.com"), who("user:a@contoso.com")}
	for kind, want := range map[policy.AdHocKind]vocab.Rights{
		policy.AdHocDoNotForward: policy.DoNotForward(),
		policy.AdHocEncryptOnly:  policy.EncryptOnly(),
	} {
		got := &policy.AdHoc{Kind: kind, Grants: policy.RecipientGrants(kind, to)}
		if len(got.Grants) != 2 || got.Grants[0].To != to[0] || got.Grants[1].To != to[1] || got.Grants[0].Rights != want {
			t.Errorf("%v", got)
		}
		if err := got.Validate(); err != nil {
			t.Error(err)
		}
	}
	if policy.RecipientGrants(policy.AdHocGrants, to) != nil {
		t.Error("a list of grants is not made from recipients")
	}
}
