package server

import (
	"slices"
	"testing"

	"github.com/openrms/rms/internal/decision"
	"github.com/openrms/rms/internal/policy"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Numbers that the contract and the domain share are the same ones.
func TestExplanationNumbers(t *testing.T) {
	for got, want := range map[int32]int32{
		int32(rmsv1.Explanation_QUESTION_OPEN): int32(decision.Acquire), int32(rmsv1.Explanation_QUESTION_PUBLISH): int32(decision.Publish),
		int32(rmsv1.Explanation_QUESTION_REPEAT): int32(decision.Repeat), int32(rmsv1.Explanation_QUESTION_CLEAR_KEY): int32(decision.Deliver),
	} {
		if got != want {
			t.Errorf("a question is %d here and %d there", got, want)
		}
	}
	for got, want := range map[rmsv1.Explanation_Check_Outcome]policy.Outcome{
		rmsv1.Explanation_Check_OUTCOME_PASSED: policy.Passed, rmsv1.Explanation_Check_OUTCOME_FAILED: policy.Failed,
		rmsv1.Explanation_Check_OUTCOME_EXEMPT: policy.Exempt, rmsv1.Explanation_Check_OUTCOME_MOOT: policy.Moot,
	} {
		if int32(got) != int32(want) {
			t.Errorf("%s is %d there", got, want)
		}
	}
	both := []rmsv1.Explanation_RevocationInForce_Scope{rmsv1.Explanation_RevocationInForce_SCOPE_OWNER, rmsv1.Explanation_RevocationInForce_SCOPE_PERIOD}
	if got := protoScopes(policy.RevokedPeriod | policy.RevokedOwner); !slices.Equal(got, both) {
		t.Errorf("two conditions are shown as %v", got)
	}
	if len(scopes) != len(rmsv1.Explanation_RevocationInForce_Scope_name)-1 {
		t.Errorf("%d conditions have a name of %d", len(scopes), len(rmsv1.Explanation_RevocationInForce_Scope_name)-1)
	}
	for got, want := range map[rmsv1.Explanation_Part]policy.Role{
		rmsv1.Explanation_PART_UNSPECIFIED: policy.RoleNone, rmsv1.Explanation_PART_OWNER: policy.RoleOwner, rmsv1.Explanation_PART_ISSUER: policy.RoleIssuer,
	} {
		if int32(got) != int32(want) {
			t.Errorf("%s is %s there", got, want)
		}
	}
}

// Every kind of remedy has a name in the contract, and no two the same.
func TestRemedyKinds(t *testing.T) {
	seen := map[rmsv1.Explanation_Remedy_Kind]bool{}
	for kind, name := range remedyKinds {
		if name == rmsv1.Explanation_Remedy_KIND_UNSPECIFIED || seen[name] {
			t.Errorf("%s is shown as %s", kind, name)
		}
		seen[name] = true
	}
	// All but the resuming of keys, which policy knows nothing of.
	if want := len(rmsv1.Explanation_Remedy_Kind_name) - 2; len(remedyKinds) != want {
		t.Errorf("%d kinds of remedies of %d", len(remedyKinds), want)
	}
}
