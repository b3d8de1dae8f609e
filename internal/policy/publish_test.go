package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func who(s string) vocab.Principal {
	p, err := vocab.ParsePrincipal(s)
	if err != nil {
		panic(err)
	}
	return p
}

func member(name string, groups ...string) *vocab.Identity {
	return &vocab.Identity{Issuer: "https://idp", Subject: name, Member: "contoso", Addresses: []string{name + "@contoso.com"}, Groups: groups}
}

func service(name string) *vocab.Identity {
	return &vocab.Identity{Issuer: "x509", Subject: "spiffe://contoso.com/" + name, Member: "contoso", Service: name}
}

func adHoc(to string, rights vocab.Rights) *policy.AdHoc {
	return &policy.AdHoc{Kind: policy.AdHocGrants, Offline: policy.OfflineMax, Grants: []policy.Grant{{To: who(to), Rights: rights}}}
}

func finance() *policy.Template {
	return &policy.Template{
		UID: someTemplate, Slug: "finance", Revision: 4, State: policy.StatePublished, Custody: vocab.CustodyStrict,
		Names: map[string]string{"en": "Finance"}, Offline: policy.OfflineMax,
		Select: []vocab.Principal{who("group:finance@contoso.com")},
		Grants: []policy.Grant{{To: who("group:finance@contoso.com"), Rights: policy.CoAuthor.Rights()}},
		Expiry: policy.Expiry{Kind: policy.ExpiryAfter, After: 90 * policy.Day},
	}
}

// parent is a license of alice's on which bob has the rights.
func parent(id byte, rights vocab.Rights) policy.Parent {
	in := baseInput()
	in.Policy.AdHoc = adHoc("user:bob@contoso.com", rights)
	in.Policy.NotAfter = t0.Add(time.Hour)
	return policy.Parent{ID: vocab.ContentID{15: id}, License: &in}
}

func TestMayPublish(t *testing.T) {
	bobs := adHoc("user:carol@contoso.com", policy.Viewer.Rights())
	compiled, err := policy.CompileTemplate(finance())
	if err != nil {
		t.Fatal(err)
	}
	byTemplate := func(state policy.State) policy.Parent {
		in := baseInput()
		in.Policy.Template = someTemplate
		archived := *compiled.Template
		archived.State = state
		c, err := policy.CompileTemplate(&archived)
		if err != nil {
			t.Fatal(err)
		}
		in.Template = c
		return policy.Parent{ID: vocab.ContentID{15: 9}, License: &in}
	}
	for _, c := range []struct {
		name   string
		change func(*policy.PublishInput)
		want   vocab.Reason
		check  func(*testing.T, policy.PublishDecision)
	}{
		{name: "ad hoc, caller is issuer and owner", change: func(in *policy.PublishInput) { in.NotAfter = t0.Add(time.Hour); in.AppData = []byte("x") },
			check: func(t *testing.T, d policy.PublishDecision) {
				want := &policy.Policy{Owner: who("user:bob@contoso.com"), Issuer: policy.Issuer{Issuer: "https://idp", Subject: "bob", Address: "bob@contoso.com"},
					AdHoc: bobs, NotAfter: t0.Add(time.Hour), AppData: []byte("x")}
				if diff := cmp.Diff(want, d.Policy); diff != "" {
					t.Error(diff)
				}
				if d.Custody != vocab.CustodyCached || d.Revision != 0 || d.Derived {
					t.Errorf("%+v", d)
				}
			}},
		{name: "no caller", change: func(in *policy.PublishInput) { in.Caller = nil }, want: vocab.ReasonInternal},
		{name: "no clock", change: func(in *policy.PublishInput) { in.Now = time.Time{} }, want: vocab.ReasonInternal},
		{name: "disabled", change: func(in *policy.PublishInput) { in.Disabled = true }, want: vocab.ReasonPrincipalDisabled},
		{name: "a person acts for another", change: func(in *policy.PublishInput) { in.Caller.Actor = member("mallory") }, want: vocab.ReasonRoleRequired},
		{name: "a guest never publishes", change: func(in *policy.PublishInput) {
			in.Caller.Member = ""
			in.Settings.GuestDomains = []string{"contoso.com"}
		}, want: vocab.ReasonNotAPublisher},
		{name: "a member without address has nothing to own by", change: func(in *policy.PublishInput) { in.Caller.Addresses = nil }, want: vocab.ReasonAddressNotVerified},

		{name: "onboarding control: not among them", change: func(in *policy.PublishInput) {
			in.Settings.Publishers = []vocab.Principal{who("group:pilots@contoso.com")}
		}, want: vocab.ReasonNotAPublisher},
		{name: "onboarding control: groups held back", change: func(in *policy.PublishInput) {
			in.Settings.Publishers = []vocab.Principal{who("group:pilots@contoso.com")}
			in.Caller.GroupsIncomplete = true
		}, want: vocab.ReasonGroupsIncomplete},
		{name: "onboarding control: by group", change: func(in *policy.PublishInput) {
			in.Settings.Publishers = []vocab.Principal{who("group:pilots@contoso.com")}
			in.Caller.Groups = []string{"pilots@contoso.com"}
		}},
		{name: "onboarding control: it binds services too", change: func(in *policy.PublishInput) {
			in.Settings.Publishers = []vocab.Principal{who("tenant:contoso")}
			in.Caller = service("dms")
		}, want: vocab.ReasonNotAPublisher},

		{name: "a service owns by its name", change: func(in *policy.PublishInput) { in.Caller = service("dms") },
			check: func(t *testing.T, d policy.PublishDecision) {
				if d.Policy.Owner != who("service:dms") || d.Policy.Issuer.Address != "" {
					t.Errorf("%+v", d.Policy)
				}
			}},
		{name: "a service publishes on behalf", change: func(in *policy.PublishInput) { in.Caller, in.Owner = service("dms"), who("user:alice@contoso.com") },
			check: func(t *testing.T, d policy.PublishDecision) {
				if d.Policy.Owner != who("user:alice@contoso.com") || d.Policy.Issuer.Subject != "spiffe://contoso.com/dms" {
					t.Errorf("%+v", d.Policy)
				}
			}},
		{name: "a person does not", change: func(in *policy.PublishInput) { in.Owner = who("user:alice@contoso.com") }, want: vocab.ReasonRoleRequired},
		{name: "a person names a second address", change: func(in *policy.PublishInput) {
			in.Caller.Addresses = append(in.Caller.Addresses, "robert@contoso.com")
			in.Owner = who("user:robert@contoso.com")
		}},
		{name: "a group cannot own", change: func(in *policy.PublishInput) { in.Caller, in.Owner = service("dms"), who("group:finance@contoso.com") }, want: vocab.ReasonRequestInvalid},

		{name: "neither template nor grants", change: func(in *policy.PublishInput) { in.AdHoc = nil }, want: vocab.ReasonRequestInvalid},
		{name: "both", change: func(in *policy.PublishInput) { in.ByTemplate = true }, want: vocab.ReasonRequestInvalid},
		{name: "no grants", change: func(in *policy.PublishInput) { in.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants} }, want: vocab.ReasonRequestInvalid},
		{name: "1,001 grants", change: func(in *policy.PublishInput) {
			in.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: make([]policy.Grant, 1001)}
		}, want: vocab.ReasonRequestInvalid},
		{name: "expiry now", change: func(in *policy.PublishInput) { in.NotAfter = t0 }, want: vocab.ReasonRequestInvalid},
		{name: "expiry past", change: func(in *policy.PublishInput) { in.NotAfter = t0.Add(-time.Hour) }, want: vocab.ReasonRequestInvalid},
		{name: "expiry with a template", change: func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template, in.NotAfter = nil, true, finance(), t0.Add(time.Hour)
		}, want: vocab.ReasonRequestInvalid},
		{name: "too much application data", change: func(in *policy.PublishInput) { in.AppData = make([]byte, policy.MaxAppData+1) }, want: vocab.ReasonRequestInvalid},
		{name: "a Do Not Forward grant with PRINT", change: func(in *policy.PublishInput) {
			in.AdHoc.Kind = policy.AdHocDoNotForward
			in.AdHoc.Grants[0].Rights = policy.DoNotForward() | vocab.RightsOf(vocab.RightPrint)
		}, want: vocab.ReasonRequestInvalid},

		{name: "template", change: func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template = nil, true, finance()
			in.Caller.Groups = []string{"finance@contoso.com"}
		}, check: func(t *testing.T, d policy.PublishDecision) {
			if d.Policy.Template != someTemplate || d.Policy.AdHoc != nil || !d.Policy.NotAfter.Equal(t0.Add(90*policy.Day)) || d.Revision != 4 || d.Custody != vocab.CustodyStrict {
				t.Errorf("%+v %+v", d, d.Policy)
			}
		}},
		{name: "template out of scope", change: func(in *policy.PublishInput) { in.AdHoc, in.ByTemplate, in.Template = nil, true, finance() }, want: vocab.ReasonTemplateNotInScope},
		{name: "unknown template, the same answer", change: func(in *policy.PublishInput) { in.AdHoc, in.ByTemplate = nil, true }, want: vocab.ReasonTemplateNotInScope},
		{name: "template out of scope, groups held back", change: func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template = nil, true, finance()
			in.Caller.GroupsIncomplete = true
		}, want: vocab.ReasonGroupsIncomplete},
		{name: "template archived", change: func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template = nil, true, finance()
			in.Template.State, in.Template.Select = policy.StateArchived, nil
		}, want: vocab.ReasonTemplateArchived},
		{name: "template deleted", change: func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template = nil, true, finance()
			in.Template.State, in.Template.Select = policy.StateDeleted, nil
		}, want: vocab.ReasonTemplateDeleted},
		{name: "template archived and out of scope does not show", change: func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template = nil, true, finance()
			in.Template.State = policy.StateArchived
		}, want: vocab.ReasonTemplateNotInScope},
		{name: "template whose date passed", change: func(in *policy.PublishInput) {
			in.AdHoc, in.ByTemplate, in.Template = nil, true, finance()
			in.Template.Select, in.Template.Expiry = nil, policy.Expiry{Kind: policy.ExpiryOnDate, At: t0}
		}, want: vocab.ReasonRequestInvalid},

		{name: "unknown parent", change: func(in *policy.PublishInput) { in.Parents = []policy.Parent{{ID: vocab.ContentID{1}}} }, want: vocab.ReasonNoRights},
		{name: "parent without rights", change: func(in *policy.PublishInput) {
			p := parent(1, policy.CoOwner.Rights())
			p.License.Policy.AdHoc = adHoc("user:carol@contoso.com", policy.CoOwner.Rights())
			in.Parents = []policy.Parent{p}
		}, want: vocab.ReasonNoRights},
		{name: "revoked parent", change: func(in *policy.PublishInput) {
			p := parent(1, policy.CoOwner.Rights())
			p.License.Revocations = []policy.Revocation{{Scope: policy.RevokedDocument}}
			in.Parents = []policy.Parent{p}
		}, want: vocab.ReasonLicenseRevoked},
		{name: "revoked parent of the issuer's own", change: func(in *policy.PublishInput) {
			p := parent(1, policy.CoOwner.Rights())
			p.License.Revocations = []policy.Revocation{{Scope: policy.RevokedDocument}}
			in.Parents, in.Caller = []policy.Parent{p}, member("alice")
		}, want: vocab.ReasonLicenseRevoked},
		{name: "parent revoked by a rule", change: func(in *policy.PublishInput) {
			p := parent(1, policy.CoOwner.Rights())
			p.License.Revocations = []policy.Revocation{{Scope: policy.RevokedOwner | policy.RevokedPeriod}}
			in.Parents = []policy.Parent{p}
		}, want: vocab.ReasonLicenseRevoked},
		{name: "a viewer's copy", change: func(in *policy.PublishInput) { in.Parents = []policy.Parent{parent(1, policy.Viewer.Rights())} }, want: vocab.ReasonRightNotGranted},
		{name: "a parent twice", change: func(in *policy.PublishInput) {
			in.Parents = []policy.Parent{parent(1, policy.CoOwner.Rights()), parent(1, policy.CoOwner.Rights())}
		}, want: vocab.ReasonRequestInvalid},
		{name: "17 parents", change: func(in *policy.PublishInput) {
			for i := range byte(17) {
				in.Parents = append(in.Parents, parent(i, policy.CoOwner.Rights()))
			}
		}, want: vocab.ReasonRequestInvalid},
		{name: "EXPORT re-protects as it likes", change: func(in *policy.PublishInput) {
			in.Parents = []policy.Parent{parent(1, vocab.RightsOf(vocab.RightView, vocab.RightExport))}
		}, check: func(t *testing.T, d policy.PublishDecision) {
			if d.Derived || d.Policy.Owner != who("user:bob@contoso.com") || !cmp.Equal(d.Policy.Parents, []vocab.ContentID{{15: 1}}) {
				t.Errorf("%+v %+v", d, d.Policy)
			}
		}},
		{name: "an editor changes the policy", change: func(in *policy.PublishInput) {
			in.Parents = []policy.Parent{parent(1, policy.CoAuthor.Rights())}
		}, want: vocab.ReasonRightNotGranted},
		{name: "an editor takes the ownership", change: func(in *policy.PublishInput) {
			in.AdHoc, in.Owner, in.Parents = nil, who("user:bob@contoso.com"), []policy.Parent{parent(1, policy.CoAuthor.Rights())}
		}, want: vocab.ReasonRightNotGranted},
		{name: "an editor lifts the expiry", change: func(in *policy.PublishInput) {
			p := parent(1, policy.CoAuthor.Rights())
			in.AdHoc, in.NotAfter, in.Parents = p.License.Policy.AdHoc, t0.Add(2*time.Hour), []policy.Parent{p}
		}, want: vocab.ReasonRightNotGranted},
		{name: "an editor saves under the old terms", change: func(in *policy.PublishInput) {
			in.AdHoc, in.Parents = nil, []policy.Parent{parent(1, policy.CoAuthor.Rights())}
		}, check: func(t *testing.T, d policy.PublishDecision) {
			p := d.Policy
			if !d.Derived || p.Owner != who("user:alice@contoso.com") || p.Issuer.Subject != "alice" || !p.NotAfter.Equal(t0.Add(time.Hour)) || p.AdHoc == nil {
				t.Errorf("%+v %+v", d, p)
			}
		}},
		{name: "an editor names the old terms", change: func(in *policy.PublishInput) {
			p := parent(1, policy.CoAuthor.Rights())
			in.AdHoc, in.NotAfter, in.Parents = adHoc("user:bob@contoso.com", policy.CoAuthor.Rights()), t0.Add(time.Hour), []policy.Parent{p}
		}},
		{name: "an editor joins two of the same terms", change: func(in *policy.PublishInput) {
			in.AdHoc, in.Parents = nil, []policy.Parent{parent(1, policy.CoAuthor.Rights()), parent(2, policy.CoAuthor.Rights())}
		}},
		{name: "an editor joins two of different terms", change: func(in *policy.PublishInput) {
			in.AdHoc, in.Parents = nil, []policy.Parent{parent(1, policy.CoAuthor.Rights()), parent(2, policy.Reviewer.Rights())}
		}, want: vocab.ReasonRightNotGranted},
		{name: "the stricter parent binds, whatever the order", change: func(in *policy.PublishInput) {
			in.Parents = []policy.Parent{parent(1, policy.CoOwner.Rights()), parent(2, policy.CoAuthor.Rights())}
		}, want: vocab.ReasonRightNotGranted},
		{name: "an editor saves under an archived template out of scope", change: func(in *policy.PublishInput) {
			in.AdHoc, in.Parents = nil, []policy.Parent{byTemplate(policy.StateArchived)}
			in.Caller.Groups = []string{"finance@contoso.com"}
		}, check: func(t *testing.T, d policy.PublishDecision) {
			if !d.Derived || d.Revision != 4 || d.Custody != vocab.CustodyStrict || d.Policy.Owner != who("user:alice@contoso.com") {
				t.Errorf("%+v", d)
			}
		}},
		{name: "the owner takes an archived template over: a choice like any other", change: func(in *policy.PublishInput) {
			in.AdHoc, in.Parents = nil, []policy.Parent{byTemplate(policy.StateArchived)}
			in.Caller = member("alice", "finance@contoso.com")
		}, want: vocab.ReasonTemplateArchived},
		{name: "the owner takes the policy over", change: func(in *policy.PublishInput) {
			in.AdHoc, in.Parents = nil, []policy.Parent{byTemplate(policy.StatePublished)}
			in.Caller = member("alice", "finance@contoso.com")
		}, check: func(t *testing.T, d policy.PublishDecision) {
			if d.Derived || d.Policy.Template != someTemplate || !d.Policy.NotAfter.Equal(t0.Add(90*policy.Day)) {
				t.Errorf("%+v %+v", d, d.Policy)
			}
		}},
		{name: "the owner takes an expired policy over", change: func(in *policy.PublishInput) {
			p := parent(1, policy.CoOwner.Rights())
			p.License.Policy.NotAfter = t0.Add(-time.Hour)
			in.AdHoc, in.Parents, in.Caller = nil, []policy.Parent{p}, member("alice")
		}, want: vocab.ReasonRequestInvalid},
		{name: "tenant custody strict", change: func(in *policy.PublishInput) { in.Settings.Custody = vocab.CustodyStrict },
			check: func(t *testing.T, d policy.PublishDecision) {
				if d.Custody != vocab.CustodyStrict {
					t.Error(d.Custody)
				}
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := policy.PublishInput{Caller: member("bob"), Settings: policy.DefaultSettings(), Now: t0,
				AdHoc: adHoc("user:carol@contoso.com", policy.Viewer.Rights())}
			c.change(&in)
			got := policy.MayPublish(in)
			if got.Reason != c.want || got.Allowed != (c.want == "") || vocab.ReasonOf(got.Err()) != c.want {
				t.Fatalf("got %v %q (%v), want %q", got.Allowed, got.Reason, got.Err(), c.want)
			}
			if got.Allowed {
				if err := got.Policy.Validate(); err != nil {
					t.Error(err)
				}
			} else if got.Policy != nil {
				t.Error("a refusal carries a policy")
			}
			if c.check != nil {
				c.check(t, got)
			}
			checkPublishTrace(t, in, got)
		})
	}
}

// TestUnknownAndForeignTemplateLookAlike: whoever may not choose a template
// cannot find out that it exists.
func TestUnknownAndForeignTemplateLookAlike(t *testing.T) {
	in := policy.PublishInput{Caller: member("bob"), Settings: policy.DefaultSettings(), Now: t0, ByTemplate: true}
	unknown := policy.MayPublish(in)
	in.Template = finance()
	foreign := policy.MayPublish(in)
	if unknown.Err().Error() != foreign.Err().Error() {
		t.Errorf("%v\n%v", unknown.Err(), foreign.Err())
	}
}

func TestMayChoose(t *testing.T) {
	bob, carol := member("bob"), member("carol", "finance@contoso.com")
	guest := member("frank", "finance@contoso.com")
	guest.Member = ""
	archived, open := finance(), finance()
	archived.State, open.Select = policy.StateArchived, nil
	for _, c := range []struct {
		name string
		t    *policy.Template
		id   *vocab.Identity
		want bool
	}{
		{"in scope", finance(), carol, true},
		{"out of scope", finance(), bob, false},
		{"no scope", open, bob, true},
		{"archived", archived, carol, false},
		{"guest", finance(), guest, false},
		{"no template", nil, bob, false},
		{"nobody", finance(), nil, false},
	} {
		if got := policy.MayChoose(c.t, c.id); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestRefusalSaysNothingOfOthers: whoever is refused sees no name, group,
// right or network of a grant.
func TestRefusalSaysNothingOfOthers(t *testing.T) {
	d := loadDecisions(t)
	for _, c := range d.Cases {
		in := baseInput()
		in.Caller = d.People[c.As].identity()
		var grants []policy.Grant
		for _, g := range c.Grants {
			grants = append(grants, policy.Grant{To: g.To, Rights: vocab.Rights(g.Rights), Networks: g.Networks})
		}
		withTemplate(t, &in, "published", 0, grants)
		err := policy.Evaluate(in).Err()
		if err == nil {
			continue
		}
		for _, secret := range []string{"finance@", "bob@", "frank@", "dlp", "10.20", "co-owner", "alice@"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
	}
}
