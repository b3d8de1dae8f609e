package tenant_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// keyOf is a person's SSH key, made of its name: a test value.
func keyOf(name string) *sshsig.Signer {
	seed := sha256.Sum256([]byte("a test value: " + name))
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	signer, err := sshsig.NewSigner(s)
	if err != nil {
		panic(err)
	}
	return signer
}

// quorumOf is an approver set of these people, each with the key of the name;
// "carla=new" gives carla the key named new.
func quorumOf(threshold int, names ...string) *operation.ApproverSet {
	s := &operation.ApproverSet{Threshold: uint8(threshold)}
	for _, n := range names {
		who, key, other := strings.Cut(n, "=")
		if !other {
			key = who
		}
		s.Approvers = append(s.Approvers, operation.Approver{
			Principal: user(who).String(), Label: "the " + who, Keys: [][]byte{keyOf(key).Key().Wire()},
		})
	}
	s.Sort()
	return s
}

// staffed has carla, dora, emil, fred and gina keep keys.
func (o *house) staffed() {
	o.holders(vocab.RoleKeyCustodian, user("carla"), user("dora"), user("emil"), user("fred"), user("gina"))
}

// askApprovers asks for an approver set.
func (o *house) askApprovers(c tenant.Call, set *operation.ApproverSet) (*tenant.OperationView, error) {
	o.t.Helper()
	v, _, err := o.UpdateApprovers(o.t.Context(), c, 0, true, set, "", false)
	return v, err
}

// dual is a house with a quorum of 2 of carla, dora and emil, or of others.
func inDualControl(t *testing.T, threshold int, names []string, fn func(t *testing.T, o *house)) {
	t.Helper()
	inOffice(t, func(t *testing.T, o *house) {
		o.staffed()
		v, err := o.askApprovers(person("carla"), quorumOf(threshold, names...))
		o.check(err)
		if v = o.mustApprove(person("alice"), v); v.State != operation.Succeeded {
			t.Fatalf("the first quorum is %s: %s", v.State, v.Message)
		}
		fn(t, o)
	})
}

var three = []string{"carla", "dora", "emil"}

// sign signs what an operation says approvers sign.
func sign(v *tenant.OperationView, key string) []byte {
	s, err := keyOf(key).Sign(operation.ApprovalNamespace, v.Quorum.Signed)
	if err != nil {
		panic(err)
	}
	return s.Armor()
}

// signs approves with the person's own key.
func (o *house) signs(name string, v *tenant.OperationView) (*tenant.OperationView, error) {
	o.t.Helper()
	return o.hands(person(name), v, sign(v, name))
}

// hands approves with a signature.
func (o *house) hands(c tenant.Call, v *tenant.OperationView, signature []byte) (*tenant.OperationView, error) {
	o.t.Helper()
	out, _, err := o.ApproveSigned(o.t.Context(), c, v.ID, v.ParamsHash(), signature)
	return out, err
}

// lower has somebody ask for a longer cache time.
func (o *house) lower(c tenant.Call, ttl time.Duration) *tenant.OperationView {
	o.t.Helper()
	_, _, err := o.UpdateSettings(o.t.Context(), c, 0, true, func(s *record.Settings) error { s.CacheTTL = ttl; return nil })
	return o.waits(err)
}

// Approvals that must not count, each with what it is told, and that nothing
// came of it.
func TestDualControlCheats(t *testing.T) {
	other := []byte("what approvers of something else signed")
	signed := func(key, namespace string, message []byte) []byte {
		s, err := keyOf(key).Sign(namespace, message)
		if err != nil {
			panic(err)
		}
		return s.Bytes()
	}
	asService := person("carla")
	asService.Caller.Actor = &vocab.Identity{Service: "robot"}
	secondAccount := tenant.Call{Method: "test", Caller: &vocab.Identity{
		Issuer: "https://other.contoso.test", Subject: "9", Addresses: []string{"carla@contoso.test"}, Member: "contoso",
	}}
	for _, c := range []struct {
		name    string
		ask     string // who asks; alice if empty
		prepare func(o *house, v *tenant.OperationView)
		by      tenant.Call
		sig     func(o *house, v *tenant.OperationView) []byte
		want    vocab.Reason
	}{
		{"an approver", "", nil, person("carla"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, ""},
		{"without a signature", "", nil, person("carla"), func(*house, *tenant.OperationView) []byte { return nil }, vocab.ReasonRequestInvalid},
		{"something that is none", "", nil, person("carla"), func(*house, *tenant.OperationView) []byte { return []byte("SSHSIG") }, vocab.ReasonRequestInvalid},
		{"a bit of it changed", "", nil, person("carla"), func(_ *house, v *tenant.OperationView) []byte {
			b := signed("carla", operation.ApprovalNamespace, v.Quorum.Signed)
			b[len(b)-1] ^= 1
			return b
		}, vocab.ReasonEtagMismatch},
		{"of other bytes", "", nil, person("carla"), func(*house, *tenant.OperationView) []byte { return signed("carla", operation.ApprovalNamespace, other) }, vocab.ReasonEtagMismatch},
		{"for another namespace", "", nil, person("carla"), func(_ *house, v *tenant.OperationView) []byte { return signed("carla", "git", v.Quorum.Signed) }, vocab.ReasonEtagMismatch},
		{"of another operation of the same kind", "", nil, person("carla"), func(o *house, _ *tenant.OperationView) []byte {
			return sign(o.lower(person("alice"), 59*time.Minute), "carla")
		}, vocab.ReasonEtagMismatch},
		{"of an operation with the same parameters that somebody else asked for", "", nil, person("carla"), func(o *house, _ *tenant.OperationView) []byte {
			return sign(o.lower(person("grace"), time.Hour), "carla")
		}, vocab.ReasonEtagMismatch},
		{"of the very same, which was asked for and cancelled in the same instant", "", nil, person("carla"), func(o *house, v *tenant.OperationView) []byte {
			// The test's clock stands still: only the IDs differ.
			first := o.look(o.cancelled)
			if first.ParamsHash() != v.ParamsHash() || first.Created != v.Created || first.Expires != v.Expires {
				panic("they differ in more")
			}
			return sign(first, "carla")
		}, vocab.ReasonEtagMismatch},
		{"of an operation of another kind", "", nil, person("carla"), func(o *house, _ *tenant.OperationView) []byte {
			v, err := o.askApprovers(person("alice"), quorumOf(2, "carla", "dora"))
			o.check(err)
			return sign(v, "carla")
		}, vocab.ReasonEtagMismatch},
		{"as if of another tenant", "", nil, person("carla"), func(_ *house, v *tenant.OperationView) []byte {
			s, err := operation.StatementOf(vocab.NewTenantID(), v.ID, v.Operation, v.Quorum.Set)
			if err != nil {
				panic(err)
			}
			return signed("carla", operation.ApprovalNamespace, s.Bytes())
		}, vocab.ReasonEtagMismatch},
		{"with another key", "", nil, person("carla"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "a key of nobody's") }, vocab.ReasonRoleRequired},
		{"with another approver's key", "", nil, person("carla"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "dora") }, vocab.ReasonRoleRequired},
		{"by one who is no approver, with an approver's key", "", nil, person("fred"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonRoleRequired},
		{"by a tenant-admin who is no approver", "", nil, person("grace"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "grace") }, vocab.ReasonRoleRequired},
		{"by a service for an approver", "", nil, asService, func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonRoleRequired},
		{"by an approver who lost the role", "", func(o *house, _ *tenant.OperationView) {
			o.holders(vocab.RoleKeyCustodian, user("dora"), user("emil"))
		}, person("carla"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonRoleRequired},
		{"twice", "", func(o *house, v *tenant.OperationView) { _, err := o.signs("carla", v); o.check(err) },
			person("carla"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonSamePerson},
		{"twice, from a second account", "", func(o *house, v *tenant.OperationView) { _, err := o.signs("carla", v); o.check(err) },
			secondAccount, func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonSamePerson},
		{"the requester, who is an approver", "dora", nil, person("dora"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "dora") }, vocab.ReasonSamePerson},
		{"the requester's second account", "carla", nil, secondAccount, func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonSamePerson},
		{"after its time", "", func(*house, *tenant.OperationView) { time.Sleep(24 * time.Hour) },
			person("carla"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonOperationState},
		{"after a rejection", "", func(o *house, v *tenant.OperationView) {
			_, _, err := o.RejectOperation(o.t.Context(), person("dora"), v.ID, "no")
			o.check(err)
		}, person("carla"), func(_ *house, v *tenant.OperationView) []byte { return sign(v, "carla") }, vocab.ReasonOperationState},
	} {
		t.Run(c.name, func(t *testing.T) {
			inDualControl(t, 2, three, func(t *testing.T, o *house) {
				var v *tenant.OperationView
				if c.ask == "" {
					o.cancelled = o.lower(person("alice"), time.Hour).ID
					_, _, err := o.CancelOperation(t.Context(), person("alice"), o.cancelled, "")
					o.check(err)
					v = o.lower(person("alice"), time.Hour)
				} else {
					var err error
					v, err = o.askApprovers(person(c.ask), quorumOf(3, three...))
					o.check(err)
				}
				if c.prepare != nil {
					c.prepare(o, v)
				}
				before := o.look(v.ID)
				_, err := o.hands(c.by, v, c.sig(o, v))
				if vocab.ReasonOf(err) != c.want {
					t.Errorf("%v, want %q", err, c.want)
				}
				after := o.settled(v.ID)
				if got := len(after.Approvals) > len(before.Approvals); got != (c.want == "") {
					t.Errorf("the approval was kept: %v", got)
				}
				if after.State != before.State {
					t.Errorf("it is %s after %s", after.State, before.State)
				}
				if got := o.Settings().CacheTTL; got != record.DefaultCacheTTL {
					t.Errorf("the cache time is %s", got)
				}
				o.checkStore()
			})
		})
	}
}

// With the last approval that the quorum takes it is done, with signatures that
// prove themselves by what the operation holds.
func TestTheQuorumActs(t *testing.T) {
	inDualControl(t, 2, three, func(t *testing.T, o *house) {
		v := o.lower(person("alice"), time.Hour)
		if v.Needed != 2 || v.Dual == nil || cmp.Diff([]string{"user:carla@contoso.test", "user:dora@contoso.test", "user:emil@contoso.test"}, v.Dual.Left) != "" {
			t.Errorf("it needs %d; left are %+v", v.Needed, v.Dual)
		}
		first, err := o.signs("carla", v)
		o.check(err)
		if first.State != operation.AwaitingApproval || first.Dual.Now != (operation.Count{Have: 1, Need: 2}) || len(first.Dual.Left) != 2 {
			t.Errorf("after one of two it is %s, %+v", first.State, first.Dual)
		}
		if got := o.Settings().CacheTTL; got != record.DefaultCacheTTL {
			t.Fatalf("after one of two the cache time is %s", got)
		}
		o.restart() // what was given is durable
		o.staffed()
		done, err := o.signs("emil", v)
		o.check(err)
		if done.State != operation.Succeeded || o.Settings().CacheTTL != time.Hour {
			t.Fatalf("it is %s (%s), the cache time is %s", done.State, done.Message, o.Settings().CacheTTL)
		}
		kinds, events := o.events(v.ID)
		if diff := cmp.Diff([]string{"operation-requested", "operation-approved", "operation-approved", "settings-changed", "operation-succeeded"}, kinds); diff != "" {
			t.Error(diff)
		}
		if !strings.Contains(events[0].Detail, "cache_ttl from 5m0s to 1h0m0s") || !strings.Contains(events[1].Detail, "SHA256:") {
			t.Errorf("the log says %q and %q", events[0].Detail, events[1].Detail)
		}
		// Who leaves afterwards has approved it all the same.
		o.disable("carla")
		if v := o.look(v.ID); v.Dual.Now != (operation.Count{Have: 2, Need: 2}) || v.Dual.Why[0] != nil {
			t.Errorf("of what was done %+v count", v.Dual.Tally)
		}
		for _, a := range done.Approvals {
			s, err := sshsig.Parse(a.Signature)
			if err != nil || s.Verify(operation.ApprovalNamespace, done.Quorum.Signed) != nil || !bytes.Equal(s.Key().Wire(), a.Key()) {
				t.Errorf("the signature of %s does not prove itself: %v", a.Name, err)
			}
		}
		o.checkStore()
	})
}

// Whoever approved must still stand when it is done; else it goes on waiting, or
// fails, and nothing is done.
func TestApproversAreJudgedAgain(t *testing.T) {
	lost := func(names ...vocab.Principal) func(*house) {
		return func(o *house) { o.holders(vocab.RoleKeyCustodian, names...) }
	}
	for name, c := range map[string]struct {
		change func(o *house)
		counts bool
	}{
		"nothing":             {func(*house) {}, true},
		"carla lost the role": {lost(user("dora"), user("emil")), false},
		"carla was disabled":  {func(o *house) { o.disable("carla") }, false},
		"carla is admin now": {func(o *house) {
			lost(user("dora"), user("emil"))(o)
			o.file.Admins = append(o.file.Admins, user("carla"))
			o.Reconfigure(o.file)
		}, true},
		"carla was taken out":   {func(o *house) { o.mustSet(quorumOf(2, "dora", "emil", "fred"), "dora", "emil") }, false},
		"carla got another key": {func(o *house) { o.mustSet(quorumOf(2, "carla=new", "dora", "emil"), "dora", "emil") }, false},
		"carla's key is fred's": {func(o *house) { o.mustSet(quorumOf(2, "fred=carla", "dora", "emil"), "dora", "emil") }, false},
	} {
		t.Run(name+", before the last approval", func(t *testing.T) {
			inDualControl(t, 2, three, func(t *testing.T, o *house) {
				v := o.lower(person("alice"), time.Hour)
				_, err := o.signs("carla", v)
				o.check(err)
				c.change(o)
				out, err := o.signs("dora", v)
				o.check(err)
				if want := map[bool]operation.State{true: operation.Succeeded, false: operation.AwaitingApproval}[c.counts]; out.State != want {
					t.Fatalf("it is %s, want %s", out.State, want)
				}
				if !c.counts {
					if out.Dual.Why[0] == nil || out.Dual.Now.Have != 1 {
						t.Errorf("carla's approval counts: %+v", out.Dual.Tally)
					}
					// Another approver makes the quorum.
					if out, err = o.signs("emil", v); err != nil || out.State != operation.Succeeded {
						t.Errorf("with emil's it is %s: %v", out.State, err)
					}
				}
				o.checkStore()
			})
		})
	}
	t.Run("after the last approval, before it is done", func(t *testing.T) {
		inDualControl(t, 2, three, func(t *testing.T, o *house) {
			v := o.lower(person("alice"), time.Hour)
			_, err := o.signs("carla", v)
			o.check(err)
			meanwhile := func() { o.holders(vocab.RoleKeyCustodian, user("dora"), user("emil")) }
			approving := func() { o.store.before.Store(&meanwhile) }
			o.store.before.Store(&approving)
			out, err := o.signs("dora", v)
			o.check(err)
			if out.State != operation.Failed || out.Why != vocab.ReasonApprovalRequired || o.Settings().CacheTTL != record.DefaultCacheTTL {
				t.Errorf("it is %s (%s %s), the cache time is %s", out.State, out.Why, out.Message, o.Settings().CacheTTL)
			}
			o.checkStore()
		})
	})
	t.Run("the requester lost the role", func(t *testing.T) {
		inDualControl(t, 2, three, func(t *testing.T, o *house) {
			v := o.lower(person("alice"), time.Hour)
			_, err := o.signs("carla", v)
			o.check(err)
			o.file.Admins = []vocab.Principal{user("grace")}
			o.policyAdmins("grace")
			out, err := o.signs("dora", v)
			o.check(err)
			if out.State != operation.Failed || out.Why != vocab.ReasonRoleRequired {
				t.Errorf("it is %s (%s)", out.State, out.Why)
			}
		})
	})
}

func (o *house) disable(name string) {
	o.t.Helper()
	_, _, err := o.DisablePrincipal(o.t.Context(), person("grace"), user(name), "")
	o.check(err)
}

// mustSet has the approvers changed, by these of them.
func (o *house) mustSet(set *operation.ApproverSet, by ...string) {
	o.t.Helper()
	v, err := o.askApprovers(person("alice"), set)
	o.check(err)
	for _, name := range by {
		v, err = o.signs(name, v)
		o.check(err)
	}
	if v.State != operation.Succeeded {
		o.t.Fatalf("the change of approvers is %s: %s %s", v.State, v.Why, v.Message)
	}
}

// What it rests on has changed: nothing is done, whoever approved.
func TestInventoryChanged(t *testing.T) {
	for name, c := range map[string]struct {
		ask    func(o *house) *tenant.OperationView
		change func(o *house)
	}{
		"the settings": {
			func(o *house) *tenant.OperationView { return o.lower(person("alice"), time.Hour) },
			func(o *house) {
				_, _, err := o.UpdateSettings(o.t.Context(), person("grace"), 0, true, func(s *record.Settings) error { s.MaxOffline -= time.Hour; return nil })
				o.check(err)
			},
		},
		"the template": {
			func(o *house) *tenant.OperationView {
				o.mustWrite(person("alice"), "plans", o.template("plans", vocab.CustodyStrict, user("bob")))
				_, _, err := o.WriteTemplate(o.t.Context(), person("alice"), "plans", o.template("plans", 0, user("bob")), 1, false, false)
				return o.waits(err)
			},
			func(o *house) {
				o.mustWrite(person("alice"), "plans", o.template("plans", vocab.CustodyStrict, user("bob"), user("dan")))
			},
		},
		"the approvers": {
			func(o *house) *tenant.OperationView {
				v, err := o.askApprovers(person("alice"), quorumOf(2, "carla", "dora", "emil", "fred"))
				o.check(err)
				return v
			},
			func(o *house) { o.mustSet(quorumOf(3, three...), "dora", "emil") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			inDualControl(t, 2, three, func(t *testing.T, o *house) {
				v := c.ask(o)
				_, err := o.signs("carla", v)
				o.check(err)
				c.change(o)
				before := o.Settings()
				out, err := o.signs("dora", v)
				o.check(err)
				if out.State != operation.Failed || out.Why != vocab.ReasonInventoryChanged || len(out.Approvals) != 1 {
					t.Errorf("it is %s (%s) with %d approvals", out.State, out.Why, len(out.Approvals))
				}
				if diff := cmp.Diff(before, o.Settings()); diff != "" {
					t.Error(diff)
				}
				o.checkStore()
			})
		})
	}
	t.Run("after the last approval, before it is done", func(t *testing.T) {
		inDualControl(t, 2, three, func(t *testing.T, o *house) {
			v := o.lower(person("alice"), time.Hour)
			_, err := o.signs("carla", v)
			o.check(err)
			meanwhile := func() {
				_, _, err := o.UpdateSettings(o.t.Context(), person("grace"), 0, true, func(s *record.Settings) error { s.MaxOffline -= time.Hour; return nil })
				o.check(err)
			}
			approving := func() { o.store.before.Store(&meanwhile) }
			o.store.before.Store(&approving)
			out, err := o.signs("dora", v)
			o.check(err)
			if out.State != operation.Failed || out.Why != vocab.ReasonInventoryChanged || o.Settings().CacheTTL != record.DefaultCacheTTL {
				t.Errorf("it is %s (%s), the cache time is %s", out.State, out.Why, o.Settings().CacheTTL)
			}
		})
	})
}

// The quorum that was in force when something was asked for and the one in force
// now are both needed: lowering it lowers it for what comes afterwards.
func TestALoweredQuorumLowersNothingThatWaits(t *testing.T) {
	five := []string{"carla", "dora", "emil", "fred", "gina"}
	inDualControl(t, 3, five, func(t *testing.T, o *house) {
		v := o.lower(person("alice"), time.Hour)
		o.mustSet(quorumOf(2, "carla", "dora", "emil", "fred"), "carla", "dora", "emil")
		for i, name := range []string{"carla", "dora"} {
			out, err := o.signs(name, v)
			o.check(err)
			if out.State != operation.AwaitingApproval || out.Dual.Now != (operation.Count{Have: i + 1, Need: 2}) || out.Dual.Asked != (operation.Count{Have: i + 1, Need: 3}) {
				t.Errorf("after %s it is %s, %+v", name, out.State, out.Dual.Tally)
			}
		}
		if _, err := o.signs("gina", v); !errors.Is(err, vocab.ReasonRoleRequired) {
			t.Errorf("gina, who is no approver any more: %v", err)
		}
		out, err := o.signs("emil", v)
		o.check(err)
		if out.State != operation.Succeeded || len(out.Quorum.Then) == 0 {
			t.Errorf("with three it is %s", out.State)
		}
	})
	// Raised meanwhile, the higher one counts.
	inDualControl(t, 2, []string{"carla", "dora"}, func(t *testing.T, o *house) {
		v := o.lower(person("alice"), time.Hour)
		o.mustSet(quorumOf(3, "carla", "dora", "emil"), "carla", "dora")
		for _, name := range []string{"carla", "dora"} {
			if out, err := o.signs(name, v); err != nil || out.State != operation.AwaitingApproval {
				t.Errorf("after %s it is %s: %v", name, out.State, err)
			}
		}
		if out, err := o.signs("emil", v); err != nil || out.State != operation.Succeeded {
			t.Errorf("with three it is %s: %v", out.State, err)
		}
	})
	// Both count; who came later counts for it, and
	// not for the older.
	inDualControl(t, 2, []string{"carla", "dora"}, func(t *testing.T, o *house) {
		v := o.lower(person("alice"), time.Hour)
		o.mustSet(quorumOf(3, "carla", "dora", "emil", "fred"), "carla", "dora")
		for _, name := range []string{"emil", "fred", "carla"} {
			out, err := o.signs(name, v)
			o.check(err)
			if out.State != operation.AwaitingApproval {
				t.Errorf("after %s it is %s: %+v", name, out.State, out.Dual.Tally)
			}
		}
		out, err := o.signs("dora", v)
		o.check(err)
		if out.State != operation.Succeeded {
			t.Errorf("it is %s: %+v", out.State, out.Dual.Tally)
		}
		o.checkStore()
	})
}
