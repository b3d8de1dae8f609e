package policy_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
)

// decisions is testdata/decisions.yaml.
type decisions struct {
	People map[string]person
	Matrix map[string]struct {
		To     vocab.Principal
		Rights rightsText
		As     string
	}
	Rows []struct {
		Kind, State, Right, Want string
	}
	Cases []decisionCase
}

type person struct {
	Subject, Member, Service, Peer, Actor string
	Addresses, Groups                     []string
	MFA                                   bool
	MoreGroups                            bool `yaml:"more-groups"`
}

type decisionCase struct {
	Name     string
	Template string
	AdHoc    bool `yaml:"ad-hoc"`
	Grants   []struct {
		To       vocab.Principal
		Rights   rightsText
		Until    string
		Login    string
		Networks []netip.Prefix
	}
	Owner              *vocab.Principal
	Issued             string // a service, as "x509/NAME"
	Offline            string
	TenantOffline      string `yaml:"tenant-offline"`
	GuestOffline       string `yaml:"guest-offline"`
	IssuerOpensRevoked *bool  `yaml:"issuer-opens-revoked"`
	Custody            string
	Expires            string
	Revoked            []string
	Disabled, Recovery bool
	As, Right          string
	Want               struct {
		Reason vocab.Reason
		Rights rightsText
		Ends   string
		Kept   bool
	}
}

// rightsText is a level, a mail policy, "all", or a list of rights.
type rightsText vocab.Rights

func (r *rightsText) UnmarshalYAML(n *yaml.Node) error {
	switch n.Value {
	case "all":
		*r = rightsText(vocab.AllRights)
		return nil
	case "do-not-forward":
		*r = rightsText(policy.DoNotForward())
		return nil
	case "encrypt-only":
		*r = rightsText(policy.EncryptOnly())
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		l, err := policy.ParseLevel(n.Value)
		*r = rightsText(l.Rights())
		return err
	}
	for _, e := range n.Content {
		one, err := vocab.ParseRight(e.Value)
		if err != nil {
			return err
		}
		*r |= rightsText(vocab.RightsOf(one))
	}
	return nil
}

func loadDecisions(t *testing.T) *decisions {
	t.Helper()
	b, err := os.ReadFile("testdata/decisions.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	var d decisions
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return &d
}

func (p person) identity() *vocab.Identity {
	i := strings.LastIndexByte(p.Subject, '/')
	id := &vocab.Identity{Issuer: p.Subject[:i], Subject: p.Subject[i+1:], Member: p.Member, Service: p.Service, Peer: p.Peer,
		Addresses: p.Addresses, Groups: p.Groups, MFA: p.MFA, GroupsIncomplete: p.MoreGroups}
	switch p.Actor {
	case "service":
		id.Actor = &vocab.Identity{Issuer: "x509", Subject: "spiffe://contoso.com/dms", Service: "dms"}
	case "person":
		id.Actor = &vocab.Identity{Issuer: "https://idp", Subject: "mallory", Addresses: []string{"mallory@contoso.com"}}
	}
	return id
}

// at reads a period counted from t0, "" is never.
func at(t *testing.T, s string) time.Time {
	t.Helper()
	if s == "" {
		return time.Time{}
	}
	d, err := templatefile.ParsePeriod(strings.TrimPrefix(s, "-"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(s, "-") {
		d = -d
	}
	return t0.Add(d)
}

func offline(t *testing.T, s string, otherwise time.Duration) time.Duration {
	t.Helper()
	if s == "" {
		return otherwise
	}
	d, err := templatefile.ParseOffline(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func baseInput() policy.Input {
	s := policy.DefaultSettings()
	s.GuestDomains = []string{"fabrikam.com"}
	return policy.Input{
		Policy: &policy.Policy{
			Owner:  vocab.Principal{Kind: vocab.KindUser, Value: "alice@contoso.com"},
			Issuer: policy.Issuer{Issuer: "https://idp", Subject: "alice", Address: "alice@contoso.com"},
		},
		Now: t0, Settings: s, Custody: vocab.CustodyCached,
	}
}

func withTemplate(t *testing.T, in *policy.Input, state string, offline time.Duration, grants []policy.Grant) {
	t.Helper()
	in.Policy.Template = someTemplate
	states := map[string]policy.State{"": policy.StatePublished, "published": policy.StatePublished,
		"archived": policy.StateArchived, "deleted": policy.StateDeleted}
	s, ok := states[state]
	if !ok {
		t.Fatalf("state %q", state)
	}
	c, err := policy.CompileTemplate(&policy.Template{UID: someTemplate, Revision: 3, State: s, Grants: grants, Offline: offline, Contact: "help@contoso.com"})
	if err != nil {
		t.Fatal(err)
	}
	in.Template = c
}

// TestTableMatrix is right × kind of principal × state, every row ruled by
// hand and every combination there exactly once.
func TestTableMatrix(t *testing.T) {
	d := loadDecisions(t)
	seen := make(map[string]bool)
	for _, row := range d.Rows {
		name := row.Kind + " " + row.State + " " + row.Right
		if seen[name] {
			t.Errorf("%s: the row is there twice", name)
		}
		seen[name] = true
		fixture, ok := d.Matrix[row.Kind]
		if !ok {
			t.Fatalf("%s: no such fixture", name)
		}
		right, err := vocab.ParseRight(row.Right)
		if err != nil {
			t.Fatal(err)
		}
		in := baseInput()
		in.Caller, in.Right = d.People[fixture.As].identity(), right
		state := row.State
		if state == "revoked" {
			state = "published"
			in.Revocations = []policy.Revocation{{Scope: policy.RevokedDocument}}
		}
		withTemplate(t, &in, state, policy.OfflineMax, []policy.Grant{{To: fixture.To, Rights: vocab.Rights(fixture.Rights)}})
		got := policy.Evaluate(in)
		want := vocab.Reason(row.Want)
		if row.Want == "yes" {
			want = ""
		}
		if got.Reason != want || got.Allowed != (want == "") {
			t.Errorf("%s: got %v %q, want %s", name, got.Allowed, got.Reason, row.Want)
		}
	}
	if want := len(vocab.AllRights.List()) * 6 * 4; len(seen) != want {
		t.Errorf("%d different rows, want %d", len(seen), want)
	}
}

// TestTableCases is everything that is no matrix: one story each.
func TestTableCases(t *testing.T) {
	d := loadDecisions(t)
	names := make(map[string]bool)
	for _, c := range d.Cases {
		if names[c.Name] {
			t.Errorf("%s: the name is there twice", c.Name)
		}
		names[c.Name] = true
		t.Run(c.Name, func(t *testing.T) { c.check(t, d.People) })
	}
}

func (c *decisionCase) check(t *testing.T, people map[string]person) {
	p, ok := people[c.As]
	if !ok {
		t.Fatalf("nobody is called %q", c.As)
	}
	in := baseInput()
	in.Caller, in.Disabled, in.Recovery = p.identity(), c.Disabled, c.Recovery
	in.Policy.NotAfter = at(t, c.Expires)
	if c.Right != "" {
		r, err := vocab.ParseRight(c.Right)
		if err != nil {
			t.Fatal(err)
		}
		in.Right = r
	}
	if c.Owner != nil {
		in.Policy.Owner = *c.Owner
	}
	if c.Issued != "" {
		i := strings.LastIndexByte(c.Issued, '/')
		in.Policy.Issuer = policy.Issuer{Issuer: c.Issued[:i], Subject: c.Issued[i+1:]}
	}
	if c.Custody != "" {
		m, err := vocab.ParseCustodyMode(c.Custody)
		if err != nil {
			t.Fatal(err)
		}
		in.Custody = m
	}
	in.Settings.MaxOffline = offline(t, c.TenantOffline, in.Settings.MaxOffline)
	in.Settings.GuestMaxOffline = offline(t, c.GuestOffline, in.Settings.GuestMaxOffline)
	if c.IssuerOpensRevoked != nil {
		in.Settings.IssuerOpensRevoked = *c.IssuerOpensRevoked
	}
	scopes := map[string]policy.RevocationScope{"document": policy.RevokedDocument, "lineage": policy.RevokedLineage, "principal": policy.RevokedPrincipal}
	for _, s := range c.Revoked {
		if scopes[s] == 0 {
			t.Fatalf("revoked %q", s)
		}
		in.Revocations = append(in.Revocations, policy.Revocation{Scope: scopes[s]})
	}
	var grants []policy.Grant
	for _, g := range c.Grants {
		out := policy.Grant{To: g.To, Rights: vocab.Rights(g.Rights), Until: at(t, g.Until), Networks: g.Networks}
		if g.Login == "mfa" {
			out.Login = policy.LoginMFA
		}
		grants = append(grants, out)
	}
	switch off := offline(t, c.Offline, policy.OfflineMax); {
	case c.AdHoc:
		in.Policy.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: grants, Offline: off}
	case c.Template == "gone":
		in.Policy.Template = someTemplate
	default:
		withTemplate(t, &in, c.Template, off, grants)
	}

	got := policy.Evaluate(in)
	if got.Reason != c.Want.Reason || got.Allowed != (c.Want.Reason == "") {
		t.Fatalf("got allowed %v, reason %q; want reason %q", got.Allowed, got.Reason, c.Want.Reason)
	}
	describe := func(rights vocab.Rights, ends time.Time, kept bool) string {
		return fmt.Sprintf("%s until %s kept %v", rights, ends.Format(time.RFC3339Nano), kept)
	}
	g := describe(got.Rights, got.NotAfter, got.Cache == policy.CacheStored)
	if w := describe(vocab.Rights(c.Want.Rights), at(t, c.Want.Ends), c.Want.Kept); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}
