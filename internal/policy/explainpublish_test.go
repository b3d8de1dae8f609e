package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

// checkPublishTrace: the trace says what the decision says, and its reason is
// that of the first check that failed.
func checkPublishTrace(t *testing.T, in policy.PublishInput, want policy.PublishDecision) {
	t.Helper()
	got := policy.ExplainPublish(in)
	if got.Allowed != want.Allowed || got.Reason != want.Reason || !cmp.Equal(got.Policy, want.Policy) {
		t.Errorf("the trace is of another decision: %v %s", got.Allowed, got.Reason)
	}
	var first vocab.Reason
	for _, c := range got.Checks {
		if c.Outcome == policy.Failed && first == "" {
			first = c.Reason
		}
	}
	if first != want.Reason {
		t.Errorf("refused with %q, the checks are: %s", want.Reason, outcomes(got.Checks))
	}
	if want.Allowed && len(got.Remedies) > 0 {
		t.Errorf("remedies of what is allowed: %s", doing(got.Remedies))
	}
}

func TestExplainPublish(t *testing.T) {
	byTemplate := func(change func(*policy.Template)) func(*policy.PublishInput) {
		return func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template = nil, true, finance()
			change(in.Template)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*policy.PublishInput)
		reason vocab.Reason
		checks string
		help   string
	}{
		{
			name: "ad hoc", change: func(*policy.PublishInput) {},
			checks: "+enabled +actor +publisher +owner +request",
		},
		{
			name: "not a publisher, and the template out of scope", change: func(in *policy.PublishInput) {
				byTemplate(func(*policy.Template) {})(in)
				in.Settings.Publishers = []vocab.Principal{who("group:pilots@contoso.com")}
			},
			reason: vocab.ReasonNotAPublisher, checks: "+enabled +actor -publisher +owner +request -scope",
			help: "publisher user:bob@contoso.com, select user:bob@contoso.com",
		},
		{
			name: "a guest", change: func(in *policy.PublishInput) { in.Caller.Member = "" },
			reason: vocab.ReasonNotAPublisher, checks: "+enabled +actor -publisher +owner +request",
		},
		{
			name: "disabled", change: func(in *policy.PublishInput) { in.Disabled = true },
			reason: vocab.ReasonPrincipalDisabled, checks: "-enabled +actor +publisher +owner +request",
			help: "enable user:bob@contoso.com",
		},
		{
			name: "a template that is not there", change: func(in *policy.PublishInput) { in.AdHoc, in.ByTemplate = nil, true },
			reason: vocab.ReasonTemplateNotInScope, checks: "+enabled +actor +publisher +owner +request -scope",
		},
		{
			name: "a deleted template", change: byTemplate(func(t *policy.Template) { t.Select, t.State = nil, policy.StateDeleted }),
			reason: vocab.ReasonTemplateDeleted, checks: "+enabled +actor +publisher +owner +request +scope -template",
			help: "undelete, publish",
		},
		{
			name: "on behalf of somebody", change: func(in *policy.PublishInput) { in.Owner = who("user:alice@contoso.com") },
			reason: vocab.ReasonRoleRequired, checks: "+enabled +actor +publisher -owner +request",
		},
		{
			name: "a viewer's copy", change: func(in *policy.PublishInput) { in.Parents = []policy.Parent{parent(1, policy.Viewer.Rights())} },
			reason: vocab.ReasonRightNotGranted, checks: "+enabled +actor +publisher +owner +request -parents",
			help: "share user:bob@contoso.com=" + policy.Describe(policy.Reviewer.Rights()|vocab.RightsOf(vocab.RightExport)),
		},
		{
			name: "an editor changes the policy", change: func(in *policy.PublishInput) { in.Parents = []policy.Parent{parent(1, policy.Reviewer.Rights())} },
			reason: vocab.ReasonRightNotGranted, checks: "+enabled +actor +publisher +owner +request +parents -terms",
			help: "share user:bob@contoso.com=" + policy.Describe(policy.Reviewer.Rights()|vocab.RightsOf(vocab.RightExport)),
		},
		{
			name: "an editor keeps it", change: func(in *policy.PublishInput) {
				in.AdHoc, in.Parents = nil, []policy.Parent{parent(1, policy.Reviewer.Rights())}
			},
			checks: "+enabled +actor +publisher +owner +request +parents +terms",
		},
		{
			name: "a revoked parent", change: func(in *policy.PublishInput) {
				p := parent(1, policy.CoOwner.Rights())
				p.License.Revocations = []policy.Revocation{{Scope: policy.RevokedDocument}}
				in.Parents = []policy.Parent{parent(2, policy.CoOwner.Rights()), p}
			},
			reason: vocab.ReasonLicenseRevoked, checks: "+enabled +actor +publisher +owner +request -parents",
			help: "restore",
		},
		{
			name: "an unknown parent", change: func(in *policy.PublishInput) { in.Parents = []policy.Parent{{ID: vocab.ContentID{1}}} },
			reason: vocab.ReasonNoRights, checks: "+enabled +actor +publisher +owner +request -parents",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := policy.PublishInput{Caller: member("bob"), Settings: policy.DefaultSettings(), Now: t0,
				AdHoc: adHoc("user:carol@contoso.com", policy.Viewer.Rights())}
			c.change(&in)
			got := policy.ExplainPublish(in)
			if got.Reason != c.reason {
				t.Errorf("reason %q, want %q", got.Reason, c.reason)
			}
			if d := cmp.Diff(c.checks, outcomes(got.Checks)); d != "" {
				t.Errorf("checks: %s", d)
			}
			if d := cmp.Diff(c.help, doing(got.Remedies)); d != "" {
				t.Errorf("remedies: %s", d)
			}
			if len(got.Parents) != len(in.Parents) {
				t.Errorf("%d parents told of", len(got.Parents))
			}
		})
	}
	in := policy.PublishInput{Caller: member("bob"), Settings: policy.DefaultSettings(), Now: t0, Parents: []policy.Parent{
		parent(1, policy.CoOwner.Rights()), parent(2, policy.Reviewer.Rights()), {ID: vocab.ContentID{15: 3}},
	}}
	var told []string
	for _, p := range policy.ExplainPublish(in).Parents {
		switch {
		case p.Free:
			told = append(told, "free")
		case p.Binds:
			told = append(told, "binds")
		case !p.Found:
			told = append(told, "not there")
		}
	}
	if d := cmp.Diff([]string{"free", "binds", "not there"}, told); d != "" {
		t.Error(d)
	}
}
