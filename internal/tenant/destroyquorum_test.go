package tenant_test

import (
	"testing"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// TestDestroyUnderTwoOfThree destroys a key whose approval takes two signatures
// of carla, dora and emil; fred asks. Each way to get there with less is refused,
// and leaves the key.
func TestDestroyUnderTwoOfThree(t *testing.T) {
	fails := func(why vocab.Reason) func(*house, *tenant.OperationView) {
		return func(o *house, v *tenant.OperationView) {
			if out, err := o.signs("dora", v); err != nil || out.State != operation.Failed || out.Why != why {
				o.t.Errorf("signed: %v, it is %s (%s), want it failed with %s", err, out.State, out.Why, why)
			}
		}
	}
	refused := func(name string, want vocab.Reason) func(*house, *tenant.OperationView) {
		return func(o *house, v *tenant.OperationView) {
			if _, err := o.signs(name, v); vocab.ReasonOf(err) != want {
				o.t.Errorf("%s signs: %v, want %s", name, err, want)
			}
		}
	}
	for name, c := range map[string]struct {
		between func(*house)
		second  func(*house, *tenant.OperationView)
		done    bool
	}{
		"two of three": {second: func(o *house, v *tenant.OperationView) {
			_, err := o.signs("dora", v)
			o.check(err)
			o.eventually(v.ID, operation.Succeeded)
		}, done: true},
		"the same person twice":    {second: refused("carla", vocab.ReasonSamePerson)},
		"the requester":            {second: refused("fred", vocab.ReasonRoleRequired)},
		"somebody without a place": {second: refused("gina", vocab.ReasonRoleRequired)},
		"expired":                  {between: func(o *house) { o.ahead.Add(int64(25 * time.Hour)) }, second: refused("dora", vocab.ReasonOperationState)},
		"without a signature": {second: func(o *house, v *tenant.OperationView) {
			_, err := o.approve(person("dora"), v)
			o.wants(err, vocab.ReasonRequestInvalid)
		}},
		"a signature of another ask": {second: func(o *house, v *tenant.OperationView) {
			other := o.lower(person("alice"), time.Hour)
			_, err := o.hands(person("dora"), v, sign(other, "dora"))
			o.wants(err, vocab.ReasonRequestInvalid, vocab.ReasonEtagMismatch, vocab.ReasonRoleRequired)
		}},
		"an approver removed meanwhile": {
			between: func(o *house) { o.mustSet(quorumOf(2, "dora", "emil", "gina"), "dora", "emil") },
			second: func(o *house, v *tenant.OperationView) {
				if out, err := o.signs("dora", v); err != nil || out.State != operation.AwaitingApproval {
					o.t.Errorf("one signature that counts: %v, it is %s", err, out.State)
				}
			},
		},
		"a license published in between": {
			between: func(o *house) { o.activate("archive"); o.strictly(); o.activate("root") },
			second:  fails(vocab.ReasonInventoryChanged),
		},
		"the requester disabled": {between: func(o *house) { o.disable("fred") }, second: fails(vocab.ReasonPrincipalDisabled)},
	} {
		t.Run(name, func(t *testing.T) {
			inDualControl(t, 2, three, func(t *testing.T, o *house) {
				o.addKeyring("second")
				o.register("archive", "second")
				o.idle()
				v, _, err := o.RequestDestroy(t.Context(), person("fred"), tenant.Destruction{Target: tenant.KeyTarget{Key: "archive"}})
				o.check(err)
				v, err = o.signs("carla", v)
				o.check(err)
				if v.State != operation.AwaitingApproval {
					t.Fatalf("after one signature it is %s", v.State)
				}
				if c.between != nil {
					c.between(o)
				}
				c.second(o, v)
				if gone := o.stateOf(tenant.KeyTarget{Key: "archive"}) == keys.Destroyed; gone != c.done {
					t.Errorf("the key is destroyed: %v, want %v", gone, c.done)
				}
			})
		})
	}
}

// wants fails the test unless an error has one of the reasons.
func (o *house) wants(err error, reasons ...vocab.Reason) {
	o.t.Helper()
	for _, r := range reasons {
		if vocab.ReasonOf(err) == r {
			return
		}
	}
	o.t.Errorf("%v, want %v", err, reasons)
}
