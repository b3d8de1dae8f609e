package tenant_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// vaulted is a keyring that a person acts on with rights of their own, as on a
// key in Vault: the service can neither rotate nor destroy it.
type vaulted struct {
	keys.Custodian

	mu    sync.Mutex
	facts func(*keys.Facts)
	gone  bool
}

// be changes how it is from now on.
func (v *vaulted) be(fn func(*vaulted)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fn(v)
}

func (v *vaulted) Describe(ctx context.Context) (*keys.Facts, error) {
	v.mu.Lock()
	gone, facts := v.gone, v.facts
	v.mu.Unlock()
	if gone {
		return nil, vocab.Errorf(vocab.ReasonKeyState, "the tenant's key or mount does not exist in Vault")
	}
	f, err := v.Custodian.Describe(ctx)
	if err == nil && facts != nil {
		facts(f)
	}
	return f, err
}

func (v *vaulted) HoldsRoot(context.Context) (bool, string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.gone, "req-holds", nil
}

// vault is a house whose tenant also has a key that a custodian acts on.
type vault struct {
	*house
	ring  *embedded.Keyring // the custodian's own hand on it
	asked *vaulted
}

// inVault is inOffice with a second key custodian, dan, and a second custodian of
// keys, acts, where the key archive is registered.
func inVault(t *testing.T, fn func(t *testing.T, o *vault)) {
	t.Helper()
	inOffice(t, func(t *testing.T, o *house) {
		v := &vault{house: o}
		o.file.Roles[vocab.RoleKeyCustodian] = []vocab.Principal{user("carla"), user("dan"), user("yuri")}
		o.Reconfigure(o.file)
		o.custodians.Add("acts", keys.KindVault, func(id vocab.CustodianID) (keys.Custodian, error) {
			ring, err := o.keyring(id, "acts")
			v.ring = ring
			if v.asked == nil {
				v.asked = &vaulted{}
			}
			v.asked.Custodian = ring
			return v.asked, err
		})
		_, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: "archive", Custodian: "acts"})
		o.check(err)
		fn(t, v)
	})
}

// rotate makes a version of the key archive, and says so.
func (v *vault) rotate() {
	v.t.Helper()
	_, err := v.ring.RotateRoot(v.t.Context())
	v.check(err)
	v.sync("archive")
}

func (o *house) sync(key string) {
	o.t.Helper()
	_, _, err := o.SyncKey(o.t.Context(), person("carla"), key, nil, false)
	o.check(err)
}

// strictly publishes a document with a generation of its own.
func (o *house) strictly() *tenant.Published {
	o.t.Helper()
	if _, err := o.GetTemplate(o.t.Context(), "secret", 0); err != nil {
		o.mustWrite(person("alice"), "secret", o.template("secret", vocab.CustodyStrict, user("bob")))
	}
	return o.publish("alice", "secret")
}

func version(key string, n uint32) tenant.KeyTarget { return tenant.KeyTarget{Key: key, Version: n} }
func generation(n uint32) tenant.KeyTarget          { return tenant.KeyTarget{Generation: n} }

// destroy asks for a destruction as carla.
func (o *house) destroy(d tenant.Destruction) (*tenant.OperationView, error) {
	v, event, err := o.RequestDestroy(o.t.Context(), person("carla"), d)
	if err == nil && event.IsZero() {
		o.t.Error("a request without an event")
	}
	return v, err
}

func (o *house) mustDestroy(d tenant.Destruction) *tenant.OperationView {
	o.t.Helper()
	v, err := o.destroy(d)
	o.check(err)
	return v
}

// refusesDestroy fails the test unless a destruction is refused with every text.
func (o *house) refusesDestroy(d tenant.Destruction, want vocab.Reason, texts ...string) {
	o.t.Helper()
	_, err := o.destroy(d)
	if vocab.ReasonOf(err) != want {
		o.t.Fatalf("destroying %s: %v, want %s", d.Target, err, want)
	}
	for _, s := range texts {
		if !strings.Contains(err.Error(), s) {
			o.t.Errorf("destroying %s: %v, which does not say %q", d.Target, err, s)
		}
	}
}

func (o *house) survey() *tenant.Inventory {
	o.t.Helper()
	inv, err := o.Inventory(o.t.Context())
	o.check(err)
	return inv
}

func (o *house) versionLine(key string, n uint32) *tenant.InventoryVersion {
	o.t.Helper()
	for _, v := range o.survey().Versions {
		if v.Key == key && v.Number == n {
			return &v
		}
	}
	o.t.Fatalf("the inventory has no version %d of %s", n, key)
	return nil
}

func (o *house) generationLine(n uint32) *tenant.InventoryGeneration {
	o.t.Helper()
	for _, g := range o.survey().Generations {
		if g.Number == n {
			return &g
		}
	}
	o.t.Fatalf("the inventory has no generation g%d", n)
	return nil
}

// texts are what is in the way of something.
func texts(s tenant.Safety) (out []string) {
	for _, h := range s.Hindrances {
		out = append(out, h.Text)
	}
	return out
}

// idle leaves the house alone for longer than anybody waits.
func (o *house) idle() {
	o.t.Helper()
	o.ahead.Add(int64(tenant.Soak + 24*time.Hour))
	time.Sleep(10 * time.Minute) // signing keys of the day have ended; the next look makes new ones
	synctest.Wait()
}

// emptied makes version 1 of the key archive one that nothing needs: it wrapped
// nothing, and version 2 is there.
func (v *vault) emptied() tenant.Destruction {
	v.t.Helper()
	v.rotate()
	v.idle()
	return tenant.Destruction{Target: version("archive", 1), Reason: "a test"}
}

// What is in the way of a destruction, each by itself and all together.
func TestWhatIsNotDestroyed(t *testing.T) {
	inVault(t, func(t *testing.T, o *vault) {
		o.publish("alice", "", "bob")
		o.refusesDestroy(tenant.Destruction{Target: generation(1)}, vocab.ReasonKeyInUse, "active", "1 license")
		o.refusesDestroy(tenant.Destruction{Target: version("root", 1)}, vocab.ReasonKeyInUse, "active", "1 generation g1 with 1 license")
		o.refusesDestroy(tenant.Destruction{Target: tenant.KeyTarget{Key: "root"}}, vocab.ReasonKeyInUse, "active")
		o.refusesDestroy(tenant.Destruction{Target: version("root", 7)}, vocab.ReasonResourceNotFound)
		o.refusesDestroy(tenant.Destruction{Target: generation(7)}, vocab.ReasonResourceNotFound)
		o.refusesDestroy(tenant.Destruction{Target: version("none", 1)}, vocab.ReasonResourceNotFound)

		// The newest version of a key that is not active goes with the key only.
		o.refusesDestroy(tenant.Destruction{Target: version("archive", 1), DespiteSoak: true}, vocab.ReasonKeyInUse, "newest version")
		// The soak period counts from when it was seen, and can be done without.
		o.refusesDestroy(tenant.Destruction{Target: tenant.KeyTarget{Key: "archive"}}, vocab.ReasonKeyInUse, "soak until")

		// Licenses are never done without. A suspension, which keeps a rewrap from
		// moving them, is no reason for or against.
		o.activate("archive")
		doc := o.strictly()
		_, err := o.SetKeyState(t.Context(), person("carla"), version("archive", 1), tenant.Suspend, "a test")
		o.check(err)
		o.rotate()
		o.settle()
		o.idle()
		o.refusesDestroy(tenant.Destruction{Target: version("archive", 1), DespiteSoak: true, DespiteBackups: true}, vocab.ReasonKeyInUse, "1 license")
		if got := texts(o.versionLine("archive", 1).Safety); len(got) != 2 || got[0] != "1 license" {
			t.Errorf("in the way of a suspended version: %q", got)
		}
		_, err = o.SetKeyState(t.Context(), person("carla"), version("archive", 1), tenant.Resume, "")
		o.check(err)
		o.settle()
		o.opens(person("bob"), item(doc), "")
		o.mustDestroy(tenant.Destruction{Target: version("archive", 1), DespiteSoak: true})
	})
}

func TestBackupsKeepAKey(t *testing.T) {
	inVault(t, func(t *testing.T, o *vault) {
		id := o.versionLine("archive", 1).Custodian
		made := time.Now()
		var sets []tenant.BackupNeeds
		o.backups = func(store.Reader, vocab.TenantID) ([]tenant.BackupNeeds, error) { return sets, nil }
		o.restart()
		d := o.emptied()
		needs := []keys.VersionID{{Custodian: id, Version: 1}}
		until := time.Now().Add(time.Duration(o.ahead.Load()) + 10*24*time.Hour)
		sets = []tenant.BackupNeeds{{ID: "b1", Made: made, KeptUntil: until, Versions: needs}, {ID: "b2", Made: made, Versions: []keys.VersionID{{Custodian: id, Version: 2}}}}
		o.refusesDestroy(d, vocab.ReasonKeyInUse, fmt.Sprintf("backup of %s kept to %s", made.UTC().Format(time.DateOnly), until.UTC().Format(time.DateOnly)))
		line := o.versionLine("archive", 1)
		if from := line.Safety.From(); !from.Equal(until) || line.Safety.Safe() {
			t.Errorf("safe from %s, want %s", from, until)
		}

		// It can be given up, which approvers see; and a backup more in between is
		// one that nobody was asked about.
		d.DespiteBackups = true
		v := o.mustDestroy(d)
		p, _, err := tenant.DestructionOf(v.Operation)
		o.check(err)
		if !slices.ContainsFunc(p.Shown, func(s string) bool { return strings.HasPrefix(s, "in spite of: backup of") }) {
			t.Errorf("approvers see %q", p.Shown)
		}
		sets = append(sets, tenant.BackupNeeds{ID: "b3", Made: made, Versions: needs})
		if v = o.mustApprove(person("dan"), v); v.State != operation.Failed || v.Why != vocab.ReasonInventoryChanged {
			t.Fatalf("a backup was made meanwhile: it is %s, %s", v.State, v.Why)
		}
		// Until it is forgotten there is no date.
		if from := o.versionLine("archive", 1).Safety.From(); !from.IsZero() {
			t.Errorf("safe from %s, want never by itself", from)
		}
		// What is kept no longer needs nothing.
		sets = sets[:1]
		d.DespiteBackups = false
		o.ahead.Add(int64(11 * 24 * time.Hour))
		o.mustDestroy(d)
	})
}

// The whole way for a key that a person has to act on.
func TestDestroyAVersionThatAPersonTrims(t *testing.T) {
	inVault(t, func(t *testing.T, o *vault) {
		d := o.emptied()
		if line := o.versionLine("archive", 1); !line.Safety.Safe() {
			t.Fatalf("in the way: %q", texts(line.Safety))
		}
		v := o.mustDestroy(d)
		if v.State != operation.AwaitingApproval {
			t.Fatalf("it is %s", v.State)
		}
		o.mustApprove(person("dan"), v)
		v = o.settled(v.ID)
		if v.State != operation.Running || vocab.ReasonOf(v.Waiting) != vocab.ReasonCustodianActs {
			t.Fatalf("it is %s, waits for %v, want it to wait for the destroyer", v.State, v.Waiting)
		}
		if s := o.versionLine("archive", 1).State; s != keys.Destroyed {
			t.Fatalf("the version is %s before its custodian acted, want destroyed", s)
		}
		if _, _, err := o.CancelOperation(t.Context(), person("carla"), v.ID, ""); !errors.Is(err, vocab.ReasonOperationState) {
			t.Errorf("cancelled after the mark: %v", err)
		}
		o.refusesDestroy(d, vocab.ReasonKeyState, "destroyed already")
		for _, m := range []tenant.Move{tenant.Suspend, tenant.Resume, tenant.Compromise} {
			if _, err := o.SetKeyState(t.Context(), person("carla"), d.Target, m, ""); !errors.Is(err, vocab.ReasonKeyState) {
				t.Errorf("move %d of a destroyed version: %v", m, err)
			}
		}

		// Told too early, and of something else.
		if _, _, err := o.FinishDestroy(t.Context(), person("carla"), v.ID, nil); !errors.Is(err, vocab.ReasonCustodianActs) {
			t.Errorf("finished before the act: %v", err)
		}
		o.check(o.ring.Destroy(t.Context(), 1))
		done, event, err := o.FinishDestroy(t.Context(), person("carla"), v.ID, []string{"req-1", "req-2"})
		o.check(err)
		if done.State != operation.Succeeded || event.IsZero() || !strings.Contains(done.Result, "req-2") {
			t.Errorf("finished: %s %q", done.State, done.Result)
		}
		if line := o.versionLine("archive", 1); line.Gone == 0 || line.State != keys.Destroyed {
			t.Errorf("afterwards it is %s, gone %d", line.State, line.Gone)
		}
		if again, _, err := o.FinishDestroy(t.Context(), person("dan"), v.ID, nil); err != nil || again.Result != done.Result {
			t.Errorf("finished again: %v", err)
		}
		kinds, all := o.events(v.ID)
		want := []string{"operation-requested", "operation-approved", "key-destroyed", "refused", "refused", "operation-succeeded"}
		if kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == "read" }); !slices.Equal(kinds, want) {
			t.Errorf("events %q, want %q", kinds, want)
		}
		for _, e := range all {
			if e.Kind == audit.KindKeyDestroyed && (e.Principal.Name != "carla@contoso.test" || !strings.Contains(e.Detail, "inventory ")) {
				t.Errorf("key-destroyed by %q: %q", e.Principal.Name, e.Detail)
			}
		}
		if key, err := o.Key(t.Context(), "archive"); err != nil || key.Fault != nil {
			t.Errorf("the key: %v, fault %v", err, key.Fault)
		}
		o.checkStore()
	})
}

// A generation goes with its wrap, in one transaction.
func TestDestroyAGeneration(t *testing.T) {
	inVault(t, func(t *testing.T, o *vault) {
		_, _, err := o.ActivateKey(t.Context(), person("carla"), "archive", false, true) // g2; g1 stays
		o.check(err)
		o.idle()
		v := o.mustDestroy(tenant.Destruction{Target: generation(1), Reason: "a test"})
		v = o.mustApprove(person("dan"), v)
		if v.State != operation.Succeeded {
			t.Fatalf("it is %s %s", v.State, v.Message)
		}
		if g := o.generationLine(1); g.State != keys.Destroyed || g.Version != 0 {
			t.Errorf("afterwards: %+v", g)
		}
		if got := o.versionLine("root", 1); len(got.Generations) != 0 {
			t.Errorf("version 1 of root still wraps %d", got.Generations)
		}
		// Its version was left just now.
		o.refusesDestroy(tenant.Destruction{Target: tenant.KeyTarget{Key: "root"}}, vocab.ReasonKeyInUse, "soak until")
		o.restart()
		o.opens(person("bob"), item(o.publish("alice", "", "bob")), "")
		if g := o.generationLine(1); g.State != keys.Destroyed {
			t.Errorf("after a restart it is %s", g.State)
		}
		o.checkStore()
	})
}

// What is approved is what was shown, by two people, with what it rests on.
func TestADestructionIsBound(t *testing.T) {
	for name, c := range map[string]struct {
		between func(t *testing.T, o *vault, v *tenant.OperationView)
		by      tenant.Call
		want    vocab.Reason // of the approval; "" if it is taken and the operation fails
		why     vocab.Reason
	}{
		"the requester":        {by: person("carla"), want: vocab.ReasonSamePerson},
		"no custodian of keys": {by: person("rita"), want: vocab.ReasonRoleRequired},
		"a service":            {by: tenant.Call{Method: "test", Caller: &vocab.Identity{Issuer: contosoIDP, Subject: "robot", Service: "robot", Member: "contoso"}}, want: vocab.ReasonRoleRequired},
		"expired": {
			between: func(_ *testing.T, o *vault, _ *tenant.OperationView) { o.ahead.Add(int64(25 * time.Hour)) },
			by:      person("dan"), want: vocab.ReasonOperationState,
		},
		"other parameters": {
			between: func(_ *testing.T, _ *vault, v *tenant.OperationView) { v.Params = append(slices.Clone(v.Params), 0) },
			by:      person("dan"), want: vocab.ReasonEtagMismatch,
		},
		"one license published in between": {
			between: func(_ *testing.T, o *vault, _ *tenant.OperationView) {
				o.activate("archive")
				o.strictly()
				o.activate("root")
			},
			by: person("dan"), why: vocab.ReasonInventoryChanged,
		},
		"compromised in between": {
			between: func(_ *testing.T, o *vault, _ *tenant.OperationView) {
				_, err := o.SetKeyState(o.t.Context(), person("dan"), version("archive", 1), tenant.Compromise, "a test")
				o.check(err)
			},
			by: person("dan"), why: vocab.ReasonInventoryChanged,
		},
		"the requester lost the role": {
			between: func(_ *testing.T, o *vault, _ *tenant.OperationView) {
				o.holders(vocab.RoleKeyCustodian, user("dan"), user("yuri"))
			},
			by: person("dan"), why: vocab.ReasonRoleRequired,
		},
		"the approver was disabled": {
			between: func(_ *testing.T, o *vault, _ *tenant.OperationView) {
				_, _, err := o.Tenant.DisablePrincipal(o.t.Context(), person("alice"), user("carla"), "a test")
				o.check(err)
			},
			by: person("dan"), why: vocab.ReasonPrincipalDisabled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			inVault(t, func(t *testing.T, o *vault) {
				o.idle()
				v := o.mustDestroy(tenant.Destruction{Target: tenant.KeyTarget{Key: "archive"}})
				if c.between != nil {
					c.between(t, o, v)
				}
				got, err := o.approve(c.by, v)
				if vocab.ReasonOf(err) != c.want {
					t.Fatalf("approving: %v, want %q", err, c.want)
				}
				if c.want == "" && (got.State != operation.Failed || got.Why != c.why) {
					t.Errorf("approved, it is %s: %s, want it failed with %s", got.State, got.Why, c.why)
				}
				if k, err := o.Key(t.Context(), "archive"); err != nil || keys.State(k.State) == keys.Destroyed {
					t.Errorf("the key is destroyed: %v", err)
				}
			})
		})
	}
}

// The look before the mark is the last one: what changes between the approval
// and the mark stops it too.
func TestADestructionLooksInItsOwnTransaction(t *testing.T) {
	inVault(t, func(t *testing.T, o *vault) {
		d := o.emptied()
		v := o.mustDestroy(d)
		var sets []tenant.BackupNeeds
		id := o.versionLine("archive", 1).Custodian
		o.backups = func(store.Reader, vocab.TenantID) ([]tenant.BackupNeeds, error) { return sets, nil }
		o.restart()
		// The approval is one transaction, the mark the next.
		synctest.Wait()
		steal := func() {
			next := func() {
				sets = []tenant.BackupNeeds{{ID: "b1", Made: time.Now(), Versions: []keys.VersionID{{Custodian: id, Version: 1}}}}
			}
			o.store.before.Store(&next)
		}
		o.store.before.Store(&steal)
		if _, err := o.approve(person("dan"), v); err != nil {
			t.Fatal(err)
		}
		v = o.eventually(v.ID, operation.Failed)
		if v.Why != vocab.ReasonInventoryChanged || o.versionLine("archive", 1).State == keys.Destroyed {
			t.Errorf("it failed with %s", v.Why)
		}
	})
}

// Killed after any number of transactions, a destruction in a keyring is done
// once at the end, marked before it is removed.
func TestCrashesWhileDestroying(t *testing.T) {
	for _, whole := range []bool{false, true} {
		for n := int64(0); ; n++ {
			finished := false
			t.Run(fmt.Sprintf("whole %v after %d", whole, n), func(t *testing.T) {
				inOffice(t, func(t *testing.T, o *house) {
					o.file.Roles[vocab.RoleKeyCustodian] = []vocab.Principal{user("carla"), user("dan")}
					o.Reconfigure(o.file)
					var ring *embedded.Keyring
					o.custodians.Add("second", keys.KindEmbedded, func(id vocab.CustodianID) (keys.Custodian, error) {
						var err error
						ring, err = o.keyring(id, "second")
						return ring, err
					})
					_, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: "archive", Custodian: "second"})
					o.check(err)
					_, _, err = o.RotateKey(t.Context(), person("carla"), "archive", false)
					o.check(err)
					o.idle()
					d := tenant.Destruction{Target: version("archive", 1)}
					if whole {
						d.Target.Version = 0
					}
					v := o.mustDestroy(d)
					before, err := os.ReadFile(filepath.Join(o.dir, "second"))
					o.check(err)

					o.store.kill(n)
					_, _, _ = o.ApproveOperation(t.Context(), person("dan"), v.ID, v.ParamsHash())
					synctest.Wait()
					finished = o.store.left.Load() >= 0
					left, err := os.ReadFile(filepath.Join(o.dir, "second"))
					o.check(err)
					removed := !bytes.Equal(before, left)
					o.restart() // from what is durable
					state := o.look(v.ID)
					if removed && o.stateOf(d.Target) != keys.Destroyed {
						t.Error("the keyring lost what was not marked destroyed")
					}
					if state.State == operation.AwaitingApproval {
						o.mustApprove(person("dan"), state)
					}
					o.eventually(v.ID, operation.Succeeded)
					line := o.versionLine("archive", 1)
					if line.State != keys.Destroyed || line.Gone == 0 {
						t.Errorf("at the end it is %s, gone %d", line.State, line.Gone)
					}
					now, err := os.ReadFile(filepath.Join(o.dir, "second"))
					o.check(err)
					if bytes.Equal(before, now) {
						t.Error("the keyring has it still")
					}
					o.restart()
					o.checkStore()
					o.opens(person("bob"), item(o.publish("alice", "", "bob")), "")
				})
			})
			if finished || t.Failed() {
				break
			}
			if n > 40 {
				t.Fatal("it never ends")
			}
		}
	}
}

func (o *house) stateOf(k tenant.KeyTarget) keys.State {
	o.t.Helper()
	v, err := o.Key(o.t.Context(), k.Key)
	o.check(err)
	if k.Version == 0 {
		return keys.State(v.State)
	}
	return v.VersionState(k.Version)
}

// A key that is destroyed as a whole is gone when its custodian says so, and its
// name leads nowhere.
func TestDestroyAKeyThatAPersonDeletes(t *testing.T) {
	inVault(t, func(t *testing.T, o *vault) {
		o.activate("archive")
		doc := o.publish("alice", "", "bob")
		o.activate("root")
		o.idle()
		d := tenant.Destruction{Target: tenant.KeyTarget{Key: "archive"}}
		o.settle() // the activation moved what was under it
		o.refusesDestroy(d, vocab.ReasonKeyInUse, "soak until")
		o.idle()
		v := o.mustApprove(person("dan"), o.mustDestroy(d))
		v = o.settled(v.ID)
		if v.State != operation.Running || o.stateOf(d.Target) != keys.Destroyed {
			t.Fatalf("it is %s, the key %s", v.State, o.stateOf(d.Target))
		}
		o.opens(person("bob"), item(doc), "")
		o.restart() // and it is not forgotten that the custodian has it still
		o.asked.be(func(v *vaulted) { v.gone = true })
		v, _, err := o.FinishDestroy(t.Context(), person("dan"), v.ID, []string{"req-1"})
		o.check(err)
		if v.State != operation.Succeeded {
			t.Fatalf("it is %s", v.State)
		}
		o.restart()
		o.opens(person("bob"), item(doc), "")
		if k, err := o.Key(t.Context(), "archive"); err != nil || k.Fault != nil || k.Gone == 0 {
			t.Errorf("afterwards: %v, fault %v", err, k.Fault)
		}
		o.checkStore()
	})
}
