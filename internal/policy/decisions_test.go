package policy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
	Name               string
	Template           string
	AdHoc              bool `yaml:"ad-hoc"`
	Grants             []grantText
	Publishers, Select []vocab.Principal
	Now                string
	Issuer             string
	Owner              *vocab.Principal
	Offline            string
	TenantOffline      string    `yaml:"tenant-offline"`
	GuestOffline       string    `yaml:"guest-offline"`
	GuestDomains       *[]string `yaml:"guest-domains"`
	IssuerOpensRevoked *bool     `yaml:"issuer-opens-revoked"`
	Custody            string
	Expires            string
	Revoked            []string
	Disabled, Recovery bool
	As, Right          string
	Want               decisionWant
}

type grantText struct {
	To       vocab.Principal
	Rights   rightsText
	Until    string
	Login    string
	Networks []netip.Prefix
}

// decisionWant is the answer; what limits the validity may be left out.
type decisionWant struct {
	Reason vocab.Reason
	Rights rightsText
	Ends   string
	Kept   bool
	Limit  policy.Limit
	Marked bool // as a recovery
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

// load reads a file of test data, one YAML document without unknown keys.
func load[T any](t *testing.T, path string) *T {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	v := new(T)
	if err := dec.Decode(v); err != nil {
		t.Fatal(err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Fatalf("%s goes on after its first document: %v", path, err)
	}
	return v
}

func loadDecisions(t *testing.T) *decisions {
	t.Helper()
	return load[decisions](t, "testdata/decisions.yaml")
}

// splitSubject cuts ISSUER/SUBJECT in two.
func splitSubject(s string) (issuer, subject string) {
	i := strings.LastIndexByte(s, '/')
	return s[:i], s[i+1:]
}

func (p person) identity() *vocab.Identity {
	issuer, subject := splitSubject(p.Subject)
	id := &vocab.Identity{Issuer: issuer, Subject: subject, Member: p.Member, Service: p.Service, Peer: p.Peer,
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

var templateStates = map[string]policy.State{
	"published": policy.StatePublished, "archived": policy.StateArchived, "deleted": policy.StateDeleted,
}

func withTemplate(t *testing.T, in *policy.Input, state string, offline time.Duration, grants []policy.Grant) {
	t.Helper()
	in.Policy.Template = someTemplate
	if state == "" {
		state = "published"
	}
	s, ok := templateStates[state]
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
	if diff := c.Want.differs(t, policy.Evaluate(c.input(t, people))); diff != "" {
		t.Error(diff)
	}
}

// input is what the evaluator is asked.
func (c *decisionCase) input(t *testing.T, people map[string]person) policy.Input {
	t.Helper()
	p, ok := people[c.As]
	if !ok {
		t.Fatalf("%s: nobody is called %q", c.Name, c.As)
	}
	in := baseInput()
	in.Caller, in.Disabled, in.Recovery = p.identity(), c.Disabled, c.Recovery
	in.Policy.NotAfter = at(t, c.Expires)
	if c.Now != "" {
		in.Now = at(t, c.Now)
	}
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
	if c.Issuer != "" {
		in.Policy.Issuer.Issuer, in.Policy.Issuer.Subject = splitSubject(c.Issuer)
		if in.Policy.Issuer.Issuer == "x509" {
			in.Policy.Issuer.Address = "" // a service, which has none
		}
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
	if c.GuestDomains != nil {
		in.Settings.GuestDomains = *c.GuestDomains
	}
	in.Settings.Publishers = c.Publishers
	if c.IssuerOpensRevoked != nil {
		in.Settings.IssuerOpensRevoked = *c.IssuerOpensRevoked
	}
	for _, s := range c.Revoked {
		scope, ok := revocationScopes[s]
		if !ok {
			t.Fatalf("%s: revoked %q", c.Name, s)
		}
		in.Revocations = append(in.Revocations, policy.Revocation{Scope: scope, GroupsUnknown: s == "a group"})
	}
	grants := grantsOf(t, c.Grants)
	switch off := offline(t, c.Offline, policy.OfflineMax); {
	case c.AdHoc:
		in.Policy.AdHoc = &policy.AdHoc{Kind: policy.AdHocGrants, Grants: grants, Offline: off}
	case c.Template == "gone":
		in.Policy.Template = someTemplate
	default:
		withTemplate(t, &in, c.Template, off, grants)
		in.Template.Select = c.Select
	}
	return in
}

var revocationScopes = map[string]policy.RevocationScope{
	"document": policy.RevokedDocument, "lineage": policy.RevokedLineage, "template": policy.RevokedTemplate, "owner": policy.RevokedOwner,
	"principal": policy.RevokedPrincipal, "device": policy.RevokedDevice, "period": policy.RevokedPeriod,
	"owner, period": policy.RevokedOwner | policy.RevokedPeriod,
	"a group":       policy.RevokedPrincipal, // which only a group that was held back might be
}

func grantsOf(t *testing.T, texts []grantText) (out []policy.Grant) {
	t.Helper()
	logins := map[string]policy.Login{"": policy.LoginAny, "mfa": policy.LoginMFA}
	for _, g := range texts {
		login, ok := logins[g.Login]
		if !ok {
			t.Fatalf("login %q", g.Login)
		}
		out = append(out, policy.Grant{To: g.To, Rights: vocab.Rights(g.Rights), Until: at(t, g.Until), Login: login, Networks: g.Networks})
	}
	return out
}

// differs compares the answer with what is wanted; "" is agreement.
func (w *decisionWant) differs(t *testing.T, got policy.Decision) string {
	t.Helper()
	if got.Reason != w.Reason || got.Allowed != (w.Reason == "") {
		return fmt.Sprintf("got allowed %v, reason %q; want reason %q", got.Allowed, got.Reason, w.Reason)
	}
	describe := func(rights vocab.Rights, ends time.Time, kept bool, limit policy.Limit) string {
		if w.Limit == "" {
			limit = "not looked at"
		}
		return fmt.Sprintf("%s until %s kept %v limit %s", rights, ends.Format(time.RFC3339Nano), kept, limit)
	}
	g := describe(got.Rights, got.NotAfter, got.Cache == policy.CacheStored, got.Limit)
	if want := describe(vocab.Rights(w.Rights), at(t, w.Ends), w.Kept, w.Limit); g != want {
		return fmt.Sprintf("got  %s\nwant %s", g, want)
	}
	return ""
}
