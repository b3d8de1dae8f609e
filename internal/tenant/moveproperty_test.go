package tenant_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// Whatever happened before it left: everybody is answered at the other service as
// they were before.
func TestAnswersGoAlong(t *testing.T) {
	t.Parallel() // most of it is waiting for the disk
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.SampledFrom([]string{
			"cached", "cached", "strict", "template", "revoke", "restore", "disable", "enable", "rotate", "suspend", "resume", "narrow",
		}), 4, 14).Draw(rt, "steps")
		picks := rapid.SliceOfN(rapid.IntRange(0, 1000), len(steps), len(steps)).Draw(rt, "picks")
		var wrong []string
		synctest.Test(t, func(t *testing.T) { wrong = answersGoAlong(t, steps, picks) })
		if len(wrong) > 0 {
			rt.Fatalf("after %v:\n%s", steps, strings.Join(wrong, "\n"))
		}
	})
}

func answersGoAlong(t *testing.T, steps []string, picks []int) (wrong []string) {
	o := newHouse(t)
	yes := func(vocab.Principal) error { return nil }
	o.mustWrite(person("grace"), "secret", o.template("secret", vocab.CustodyStrict, user("bob"), user("dan")))
	o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob"), user("dan")))
	docs := []*tenant.Published{o.publish("alice", "", "bob"), o.publish("alice", "secret")}
	for i, step := range steps {
		doc := docs[picks[i]%len(docs)]
		content := doc.License.Record.Content
		var err error
		try := func(p *tenant.Published, failed error) {
			if failed == nil {
				docs = append(docs, p)
			}
		}
		publish := func(template string) {
			req := tenant.PublishRequest{Template: template, To: o.to}
			if template == "" {
				req.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: []policy.Grant{{To: user("bob"), Rights: vocab.RightsOf(vocab.RightView)}}}
			}
			try(o.Publish(t.Context(), person("alice"), req))
		}
		switch step {
		case "cached":
			publish("")
		case "strict":
			publish("secret")
		case "template":
			publish("finance")
		case "revoke":
			_, _, err = o.RevokeLicense(t.Context(), person("alice"), content, "", yes)
		case "restore":
			_, _, _ = o.RestoreLicense(t.Context(), person("alice"), content, yes)
		case "disable":
			_, _, err = o.DisablePrincipal(t.Context(), person("alice"), user("dan"), "")
		case "enable":
			_, _, _ = o.EnablePrincipal(t.Context(), person("alice"), user("dan"))
		case "rotate":
			_, _, _ = o.RotateKey(t.Context(), person("carla"), "root", false)
		case "suspend":
			_, _ = o.SetKeyState(t.Context(), person("carla"), tenant.KeyTarget{Generation: uint32(1 + picks[i]%3)}, tenant.Suspend, "")
		case "resume":
			_, _ = o.SetKeyState(t.Context(), person("carla"), tenant.KeyTarget{Generation: uint32(1 + picks[i]%3)}, tenant.Resume, "")
		case "narrow":
			o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob")))
		}
		o.check(err)
	}
	type ask struct {
		who string
		doc int
	}
	want := map[ask]vocab.Reason{}
	for _, who := range []string{"alice", "bob", "dan", "mallory"} {
		for i, d := range docs {
			_, want[ask{who, i}] = o.acquire(person(who), item(d))
		}
	}
	key := newMoveKey(t)
	file, out := o.takeOut(o.freeze(key).ID)
	o.shut()
	n, in := o.moved(file, key, out.Signer)
	for a, reason := range want {
		if _, got := n.acquire(person(a.who), item(docs[a.doc])); got != reason {
			wrong = append(wrong, fmt.Sprintf("%s opening document %d: %q, was %q", a.who, a.doc, got, reason))
		}
	}
	if in.Licenses != int64(len(docs)) || len(in.Closed) != 0 {
		wrong = append(wrong, fmt.Sprintf("%d licenses of %d, %d do not open", in.Licenses, len(docs), len(in.Closed)))
	}
	n.checkStore()
	n.shut()
	return wrong
}
