package policy_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// TestGrantsOfOthersAreNotLookedAt overwrites, in a template that has been
// compiled, every grant that does not name the caller with one that would: who
// looked at a single one of them would decide otherwise. So the cost of a
// decision cannot grow with them.
func TestGrantsOfOthersAreNotLookedAt(t *testing.T) {
	user := func(name string) vocab.Principal {
		return vocab.Principal{Kind: vocab.KindUser, Value: name + "@contoso.com"}
	}
	uid := vocab.NewTemplateUID()
	compile := func(others int) policy.Input {
		var grants []policy.Grant
		for i := range others {
			grants = append(grants, policy.Grant{To: user(fmt.Sprint("other-", i)), Rights: vocab.RightsOf(vocab.RightView)})
		}
		mine := policy.Grant{To: user("bob"), Rights: vocab.RightsOf(vocab.RightView, vocab.RightPrint)}
		tmpl := &policy.Template{UID: uid, Revision: 1, State: policy.StatePublished, Offline: policy.Day, Grants: append(grants, mine)}
		compiled, err := policy.CompileTemplate(tmpl)
		if err != nil {
			t.Fatal(err)
		}
		for i := range others {
			tmpl.Grants[i] = policy.Grant{To: vocab.Principal{Kind: vocab.KindAnyone}, Rights: vocab.AllRights}
		}
		return policy.Input{
			Policy:   &policy.Policy{Owner: user("alice"), Issuer: policy.Issuer{Issuer: "https://idp.contoso.com", Subject: "alice"}, Template: uid},
			Template: compiled, Right: vocab.RightView, Now: t0, Settings: policy.DefaultSettings(), Custody: vocab.CustodyCached,
		}
	}
	alone, among := compile(0), compile(policy.MaxTemplateGrants-1)
	for who, want := range map[string]vocab.Reason{"bob": "", "mallory": vocab.ReasonNoRights} {
		ask := func(in policy.Input) policy.Decision {
			in.Caller = &vocab.Identity{
				Issuer: "https://idp.contoso.com", Subject: who, Addresses: []string{who + "@contoso.com"}, Member: "contoso", Groups: groups,
			}
			d := policy.Evaluate(in)
			for i := range d.Matches {
				d.Matches[i].Grant = 0 // its place in the list may differ
			}
			return d
		}
		got := ask(among)
		if d := cmp.Diff(ask(alone), got); d != "" || got.Reason != want {
			t.Errorf("%s among %d others was answered %q, alone otherwise: %s", who, policy.MaxTemplateGrants-1, got.Reason, d)
		}
		if a, b := testing.AllocsPerRun(10, func() { ask(alone) }), testing.AllocsPerRun(10, func() { ask(among) }); a != b {
			t.Errorf("%s: %v allocations alone, %v among others", who, a, b)
		}
	}
}
