package tenant_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// Which edits of a template alice cannot make alone.
func TestTemplateEditsThatWait(t *testing.T) {
	bob, alice := user("bob"), user("alice")
	finance := vocab.Principal{Kind: vocab.KindGroup, Value: "finance@contoso.test"}
	until := func(d time.Duration) func(*policy.Template) {
		return func(t *policy.Template) {
			for i := range t.Grants {
				t.Grants[i].Until = time.Now().Add(d)
			}
		}
	}
	for _, c := range []struct {
		name      string
		followers bool
		before    []vocab.Principal
		after     []vocab.Principal
		was, is   func(*policy.Template)
		waits     bool
	}{
		{"she names herself", true, []vocab.Principal{bob}, []vocab.Principal{bob, alice}, nil, nil, true},
		{"she names herself, nothing follows it", false, []vocab.Principal{bob}, []vocab.Principal{bob, alice}, nil, nil, false},
		{"she names somebody else", true, []vocab.Principal{bob}, []vocab.Principal{bob, user("carla")}, nil, nil, false},
		{"she names a group of hers in the directory", true, []vocab.Principal{bob}, []vocab.Principal{finance}, nil, nil, true},
		{"she names everybody", true, []vocab.Principal{bob}, []vocab.Principal{{Kind: vocab.KindAnyone}}, nil, nil, true},
		{"she is named already", true, []vocab.Principal{alice}, []vocab.Principal{alice, bob}, nil, nil, false},
		{"she has longer", true, []vocab.Principal{alice}, []vocab.Principal{alice}, until(time.Hour), until(2 * time.Hour), true},
		{"she has less long", true, []vocab.Principal{alice}, []vocab.Principal{alice}, until(2 * time.Hour), until(time.Hour), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				o.group("finance@contoso.test", alice)
				first := o.template("finance", 0, c.before...)
				if c.was != nil {
					c.was(first)
				}
				o.mustWrite(person("grace"), "finance", first)
				if c.followers {
					o.publish("bob", "finance")
				}
				next := o.template("finance", 0, c.after...)
				if c.is != nil {
					c.is(next)
				}
				needed, err := o.NeedsApproval(t.Context(), person("alice").Caller, "finance", next)
				o.check(err)
				if needed != c.waits {
					t.Errorf("asked before, it needs approval: %v, want %v", needed, c.waits)
				}
				_, _, err = o.WriteTemplate(t.Context(), person("alice"), "finance", next, 1, false, true)
				o.check(err) // a check of the edit asks for nothing
				_, _, err = o.WriteTemplate(t.Context(), person("alice"), "finance", next, 1, false, false)
				if !c.waits {
					o.check(err)
					return
				}
				v := o.waits(err)
				if now, _ := o.GetTemplate(t.Context(), "finance", 0); now.Revision != 1 {
					t.Fatalf("revision %d is in force before anybody approved it", now.Revision)
				}
				if _, err := o.approve(person("alice"), v); !errors.Is(err, vocab.ReasonSamePerson) {
					t.Errorf("she approves it herself: %v", err)
				}
				done := o.mustApprove(person("grace"), v)
				if done.State != operation.Succeeded {
					t.Fatalf("it is %s: %s", done.State, done.Message)
				}
				now, err := o.GetTemplate(t.Context(), "finance", 0)
				o.check(err)
				if diff := cmp.Diff(next.Grants, now.Grants, cmp.Comparer(func(a, b time.Time) bool { return a.Truncate(time.Millisecond).Equal(b) })); diff != "" || now.Revision != 2 {
					t.Errorf("revision %d is not what was approved (-want +got):\n%s", now.Revision, diff)
				}
				o.checkStore()
			})
		})
	}
}

// group makes a group of the tenant's directory as the management of people
// would: a resource with its event.
func (o *house) group(address string, members ...vocab.Principal) {
	o.t.Helper()
	body, err := (&record.Group{Members: members}).Encode()
	o.check(err)
	o.check(o.PutResource(o.t.Context(), person("alice"), record.PrefixGroups+address, body))
}

// While an edit waits, the template may be edited: what was approved then is not
// what was asked for.
func TestAnEditOfWhatHasChangedFails(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob")))
		o.publish("bob", "finance")
		_, _, err := o.WriteTemplate(t.Context(), person("alice"), "finance", o.template("finance", 0, user("bob"), user("alice")), 1, false, false)
		v := o.waits(err)
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob"), user("carla")))
		done := o.mustApprove(person("grace"), v)
		if done.State != operation.Failed || done.Why != vocab.ReasonEtagMismatch {
			t.Errorf("it is %s (%s)", done.State, done.Why)
		}
		if now, _ := o.GetTemplate(t.Context(), "finance", 0); now.Revision != 2 || slices.ContainsFunc(now.Grants, func(g policy.Grant) bool { return g.To == user("alice") }) {
			t.Errorf("revision %d names %v", now.Revision, now.Grants)
		}
		kinds, _ := o.events(v.ID)
		if diff := cmp.Diff([]string{"operation-requested", "operation-failed"}, kinds); diff != "" {
			t.Error(diff)
		}
	})
}

// What happens between the look at an edit and its writing counts: somebody
// protects the first document with the template, or the author gets into a group
// that it names.
func TestAnEditIsLookedAtWhenItIsWritten(t *testing.T) {
	board := vocab.Principal{Kind: vocab.KindGroup, Value: "board@contoso.test"}
	for name, c := range map[string]struct {
		follower  bool
		names     vocab.Principal
		meanwhile func(o *house)
	}{
		"the first follower": {false, user("alice"), func(o *house) { o.publish("bob", "new") }},
		"a group of hers":    {true, board, func(o *house) { o.group(board.Value, user("alice")) }},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				o.mustWrite(person("alice"), "new", o.template("new", 0, user("bob")))
				if c.follower {
					o.publish("bob", "new")
				}
				meanwhile := func() { c.meanwhile(o) }
				o.store.before.Store(&meanwhile)
				_, _, err := o.WriteTemplate(t.Context(), person("alice"), "new", o.template("new", 0, c.names), 1, false, false)
				o.waits(err)
				if now, _ := o.GetTemplate(t.Context(), "new", 0); now.Revision != 1 {
					t.Errorf("revision %d is in force", now.Revision)
				}
			})
		})
	}
}

// A deleted template opens nothing, so restoring one that names her is a gain;
// so is going back to a revision that did.
func TestUndeleteAndRollbackWait(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("alice")))
		p := o.publish("bob", "finance")
		_, _, err := o.DeleteTemplate(t.Context(), person("alice"), "finance", 1, false, true)
		o.check(err) // taking away needs nobody
		o.opens(person("alice"), item(p), vocab.ReasonTemplateDeleted)
		_, _, err = o.UndeleteTemplate(t.Context(), person("alice"), "finance")
		v := o.waits(err)
		o.opens(person("alice"), item(p), vocab.ReasonTemplateDeleted)
		o.mustApprove(person("grace"), v)
		o.opens(person("alice"), item(p), "")
		kinds, _ := o.events(v.ID)
		if !slices.Contains(kinds, "template-undeleted") {
			t.Errorf("events %v", kinds)
		}

		o.mustWrite(person("alice"), "finance", o.template("finance", 0, user("bob")))
		o.opens(person("alice"), item(p), vocab.ReasonNoRights)
		_, _, err = o.WriteTemplate(t.Context(), person("alice"), "finance", o.template("finance", 0, user("alice")), 4, false, false)
		o.waits(err)
		// grace gains nothing by the same.
		o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("alice")))
		o.opens(person("alice"), item(p), "")
	})
}

// What was approved while the custodian was away is done when it is back, and
// only if it may still be done then.
func TestApprovedWorkWaitsForTheCustodian(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(o *house)
		want      operation.State
		why       vocab.Reason
	}{
		"nothing happens":              {func(*house) {}, operation.Succeeded, ""},
		"the requester loses the role": {func(o *house) { o.policyAdmins("grace") }, operation.Failed, vocab.ReasonRoleRequired},
		"the approver loses the role":  {func(o *house) { o.policyAdmins("alice") }, operation.Failed, vocab.ReasonRoleRequired},
		"the daemon is started anew":   {func(o *house) { o.custodian.be(func(c *moody) { c.err = nil }); o.restart() }, operation.Succeeded, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				_, _, err := o.UpdateSettings(t.Context(), person("alice"), 0, true, func(s *record.Settings) error {
					s.Custody = vocab.CustodyStrict // sealing anew takes the custodian
					return nil
				})
				o.check(err)
				hers := user("alice")
				_, _, err = o.UpdateLicense(t.Context(), person("alice"), o.publish("bob", "").License.Record.Content, 1, false,
					tenant.LicenseEdit{Owner: &hers}, func(vocab.Principal) error { return nil })
				v := o.waits(err)
				o.custodian.be(func(c *moody) { c.err = sealed })
				held := o.mustApprove(person("grace"), v)
				if held.State != operation.Running || vocab.ReasonOf(held.Waiting) != vocab.ReasonCustodianSealed {
					t.Fatalf("without the custodian it is %s, waiting for %v", held.State, held.Waiting)
				}
				time.Sleep(time.Hour)
				c.meanwhile(o)
				o.custodian.be(func(c *moody) { c.err = nil })
				if done := o.eventually(v.ID, c.want); done.Why != c.why {
					t.Errorf("it failed for %q, want %q", done.Why, c.why)
				}
				o.checkStore()
			})
		})
	}
}

// Which changes of somebody else's license alice cannot make alone.
func TestLicenseEditsThatWait(t *testing.T) {
	anyone := func(vocab.Principal) error { return nil }
	grants := func(to ...string) tenant.LicenseEdit {
		a := &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax}
		for _, n := range to {
			a.Grants = append(a.Grants, policy.Grant{To: user(n), Rights: vocab.RightsOf(vocab.RightView)})
		}
		return tenant.LicenseEdit{AdHoc: a}
	}
	owner := func(name string) tenant.LicenseEdit { p := user(name); return tenant.LicenseEdit{Owner: &p} }
	title := "a title"
	for _, c := range []struct {
		name  string
		owner string
		edit  tenant.LicenseEdit
		waits bool
	}{
		{"a grant to herself", "bob", grants("nobody", "alice"), true},
		{"a grant to another", "bob", grants("nobody", "carla"), false},
		{"herself as owner", "bob", owner("alice"), true},
		{"another as owner", "bob", owner("carla"), false},
		{"a title", "bob", tenant.LicenseEdit{Title: &title}, false},
		{"her own document", "alice", grants("alice", "bob"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				p := o.publish(c.owner, "")
				id := p.License.Record.Content
				_, _, err := o.UpdateLicense(t.Context(), person("alice"), id, 1, false, c.edit, anyone)
				if !c.waits {
					o.check(err)
					return
				}
				v := o.waits(err)
				o.opens(person("alice"), item(p), vocab.ReasonNoRights)
				done := o.mustApprove(person("grace"), v)
				if done.State != operation.Succeeded {
					t.Fatalf("it is %s: %s", done.State, done.Message)
				}
				o.opens(person("alice"), item(p), "")
				l, err := o.GetLicense(t.Context(), id, anyone)
				o.check(err)
				if l.Record.Revision != 2 {
					t.Errorf("revision %d, want 2", l.Record.Revision)
				}
				kinds, events := o.events(v.ID)
				if diff := cmp.Diff([]string{"operation-requested", "operation-approved", "license-edited", "operation-succeeded"}, kinds); diff != "" {
					t.Error(diff)
				} else if e := events[2]; e.Content != id || e.Principal.Name != "alice@contoso.test" {
					t.Errorf("the edit is %+v", e)
				}
				o.checkStore()
			})
		})
	}
}

// Who may take back a revocation of bob's document, which alice and carla may
// read and grace may not.
func TestWhoTakesARevocationBack(t *testing.T) {
	anyone := func(vocab.Principal) error { return nil }
	for _, c := range []struct {
		name              string
		revokes, restores string
		want              vocab.Reason
	}{
		{"who could then open it", "bob", "alice", vocab.ReasonSamePerson},
		{"who could then open it, of another administrator's", "grace", "alice", vocab.ReasonSamePerson},
		{"who could not open it", "bob", "grace", ""},
		{"the owner", "grace", "bob", ""},
		{"who revoked it, and could then open it", "alice", "alice", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				p := o.publish("bob", "", "alice", "carla")
				id := p.License.Record.Content
				_, _, err := o.RevokeLicense(t.Context(), person(c.revokes), id, "left on a train", anyone)
				o.check(err)
				// To revoke it again does not make one who did it.
				_, _, err = o.RevokeLicense(t.Context(), person(c.restores), id, "again", anyone)
				o.check(err)
				_, _, err = o.RestoreLicense(t.Context(), person(c.restores), id, anyone)
				if c.want == "" {
					o.check(err)
					o.opens(person("alice"), item(p), "")
					return
				}
				if !errors.Is(err, c.want) {
					t.Errorf("it is restored: %v, want %s", err, c.want)
				}
				o.opens(person("alice"), item(p), vocab.ReasonLicenseRevoked)
			})
		})
	}
}

// What alice may read only with another sign-in, or from elsewhere, she could read
// the next time she calls: she does not take bob's revocation of it back.
func TestRestoringIsNotJudgedByTheCall(t *testing.T) {
	anyone := func(vocab.Principal) error { return nil }
	for name, condition := range map[string]func(*policy.Grant){
		"always":                func(*policy.Grant) {},
		"with a second factor":  func(g *policy.Grant) { g.Login = policy.LoginMFA },
		"from another network":  func(g *policy.Grant) { g.Networks = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")} },
		"as one of a directory": func(g *policy.Grant) { g.To = vocab.Principal{Kind: vocab.KindGroup, Value: "finance@contoso.test"} },
	} {
		for _, template := range []string{"", "finance"} {
			t.Run(name+" "+template, func(t *testing.T) {
				inOffice(t, func(t *testing.T, o *house) {
					o.group("finance@contoso.test", user("alice"))
					g := policy.Grant{To: user("alice"), Rights: vocab.RightsOf(vocab.RightView)}
					condition(&g)
					req := tenant.PublishRequest{Template: template, To: o.to}
					if template == "" {
						req.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax, Grants: []policy.Grant{g}}
					} else {
						tmpl := o.template(template, 0)
						tmpl.Grants = []policy.Grant{g}
						o.mustWrite(person("grace"), template, tmpl)
					}
					p, err := o.Publish(t.Context(), person("bob"), req)
					o.check(err)
					id := p.License.Record.Content
					_, _, err = o.RevokeLicense(t.Context(), person("bob"), id, "left on a train", anyone)
					o.check(err)
					if _, _, err = o.RestoreLicense(t.Context(), person("alice"), id, anyone); !errors.Is(err, vocab.ReasonSamePerson) {
						t.Errorf("alice: %v, want SAME_PERSON", err)
					}
					_, _, err = o.RestoreLicense(t.Context(), person("grace"), id, anyone)
					o.check(err)
				})
			})
		}
	}
}

// While a change of a license waits, the owner may change it: then it fails.
func TestAChangeOfALicenseThatHasChangedFails(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		anyone := func(vocab.Principal) error { return nil }
		p := o.publish("bob", "")
		id, hers := p.License.Record.Content, user("alice")
		_, _, err := o.UpdateLicense(t.Context(), person("alice"), id, 1, false, tenant.LicenseEdit{Owner: &hers}, anyone)
		v := o.waits(err)
		title := "mine"
		_, _, err = o.UpdateLicense(t.Context(), person("bob"), id, 1, false, tenant.LicenseEdit{Title: &title}, anyone)
		o.check(err)
		if done := o.mustApprove(person("grace"), v); done.State != operation.Failed || done.Why != vocab.ReasonEtagMismatch {
			t.Errorf("it is %s (%s)", done.State, done.Why)
		}
		o.opens(person("alice"), item(p), vocab.ReasonNoRights)
		o.checkStore()
	})
}

// The three roles that see or open anything are given by two people. The first
// that is stored begins from whom the operator's file names.
func TestRolesGivenByTwo(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		for _, role := range []vocab.Role{vocab.RoleKeyCustodian, vocab.RoleAuditor, vocab.RoleRecoveryOfficer} {
			dan := person("dan").Caller
			v := o.waits(o.grant(person("alice"), role, user("dan")))
			if o.HoldsRole(dan, role) {
				t.Fatalf("dan holds %s before anybody approved it", role)
			}
			if _, err := o.approve(person("rita"), v); !errors.Is(err, vocab.ReasonRoleRequired) {
				t.Errorf("a recovery-officer approves it: %v", err)
			}
			if done := o.mustApprove(person("grace"), v); done.State != operation.Succeeded {
				t.Fatalf("it is %s: %s", done.State, done.Message)
			}
			if !o.HoldsRole(dan, role) {
				t.Errorf("dan does not hold %s", role)
			}
			kinds, events := o.events(v.ID)
			if diff := cmp.Diff([]string{"operation-requested", "refused", "operation-approved", "role-changed", "operation-succeeded"}, kinds); diff != "" {
				t.Error(diff)
			} else if e := events[3]; e.Target != "roles/"+string(role) || !strings.HasPrefix(e.Detail, "granted to user:dan@contoso.test; from now on the operator's file does not count") || e.Principal.Name != "alice@contoso.test" {
				t.Errorf("the change is %+v", e)
			}
		}
		// Whom the file named holds the roles as before, also after a restart and
		// whatever the file says then.
		o.holders(vocab.RoleAuditor, user("mallory"))
		o.restart()
		for role, names := range map[vocab.Role][]string{
			vocab.RoleKeyCustodian: {"carla", "dan"}, vocab.RoleAuditor: {"erin", "dan"}, vocab.RoleRecoveryOfficer: {"rita", "ron", "dan"},
		} {
			for _, n := range names {
				if !o.HoldsRole(person(n).Caller, role) {
					t.Errorf("%s does not hold %s", n, role)
				}
			}
		}
		if o.HoldsRole(person("mallory").Caller, vocab.RoleAuditor) {
			t.Error("the file still names holders of a role that is in the store")
		}
		o.checkStore()
	})
}

func TestRoleGrantsThatCannotBe(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		for _, p := range []vocab.Principal{{Kind: vocab.KindAnyone}, {Kind: vocab.KindTenant, Value: "contoso"}, {Kind: vocab.KindDomain, Value: "contoso.test"}} {
			if err := o.grant(person("alice"), vocab.RoleAuditor, p); !errors.Is(err, vocab.ReasonRequestInvalid) {
				t.Errorf("%s: %v, want REQUEST_INVALID", p, err)
			}
		}
		// Asked for twice and approved twice, it is given once.
		first := o.waits(o.grant(person("alice"), vocab.RoleAuditor, user("dan")))
		second := o.waits(o.grant(person("grace"), vocab.RoleAuditor, user("dan")))
		o.mustApprove(person("grace"), first)
		done := o.mustApprove(person("alice"), second)
		if done.State != operation.Succeeded || done.Result != "user:dan@contoso.test holds it already" {
			t.Errorf("the second is %s: %s", done.State, done.Result)
		}
	})
}

// The requester who was disabled meanwhile gets nothing.
func TestTheDisabledGetNothing(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		v := o.waits(o.grant(person("alice"), vocab.RoleRecoveryOfficer, user("alice")))
		body, err := (&record.Disabled{By: "grace"}).Encode()
		o.check(err)
		o.check(o.PutResource(t.Context(), person("grace"), record.PrefixPrincipals+user("alice").String(), body))
		if done := o.mustApprove(person("grace"), v); done.State != operation.Failed || done.Why != vocab.ReasonPrincipalDisabled {
			t.Errorf("it is %s (%s)", done.State, done.Why)
		}
	})
}

// An operation whose last step was not durable is done after the restart, once:
// whatever the moment the process died at.
func TestCrashWhileCarryingOut(t *testing.T) {
	for n := range int64(4) {
		inOffice(t, func(t *testing.T, o *house) {
			o.mustWrite(person("grace"), "finance", o.template("finance", 0, user("bob")))
			o.publish("bob", "finance")
			_, _, err := o.WriteTemplate(t.Context(), person("alice"), "finance", o.template("finance", 0, user("alice")), 1, false, false)
			v := o.waits(err)
			o.store.kill(n)
			_, _, err = o.ApproveOperation(t.Context(), person("grace"), v.ID, v.ParamsHash())
			synctest.Wait()
			approved := err == nil
			o.restart()
			if approved {
				o.eventually(v.ID, operation.Succeeded)
			} else if now := o.settled(v.ID); now.State != operation.AwaitingApproval {
				t.Errorf("killed before it was approved: it is %s", now.State)
			}
			tmpl, err := o.GetTemplate(t.Context(), "finance", 0)
			o.check(err)
			if want := map[bool]uint32{true: 2, false: 1}[approved]; tmpl.Revision != want {
				t.Errorf("killed after %d transactions, approved %v: revision %d, want %d", n, approved, tmpl.Revision, want)
			}
			o.checkStore()
		})
	}
}
