package policy_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func TestGrantValidate(t *testing.T) {
	good := func() policy.Grant {
		return policy.Grant{To: who("user:bob@contoso.com"), Rights: policy.Viewer.Rights(), Until: t0, Login: policy.LoginMFA,
			Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*policy.Grant){
		"nobody":         func(g *policy.Grant) { g.To = vocab.Principal{} },
		"not canonical":  func(g *policy.Grant) { g.To.Value = "Bob@contoso.com" },
		"unknown kind":   func(g *policy.Grant) { g.To.Kind = 9 },
		"no right":       func(g *policy.Grant) { g.Rights = 0 },
		"unknown right":  func(g *policy.Grant) { g.Rights |= 1 << 14 },
		"too fine":       func(g *policy.Grant) { g.Until = t0.Add(1) },
		"before 1970":    func(g *policy.Grant) { g.Until = time.Unix(-1, 0) },
		"after 9999":     func(g *policy.Grant) { g.Until = time.Unix(1<<40, 0) },
		"unknown login":  func(g *policy.Grant) { g.Login = 2 },
		"host bits":      func(g *policy.Grant) { g.Networks[0] = netip.PrefixFrom(netip.MustParseAddr("10.0.0.1"), 8) },
		"no network":     func(g *policy.Grant) { g.Networks[0] = netip.Prefix{} },
		"IPv4 in IPv6":   func(g *policy.Grant) { g.Networks[0] = netip.MustParsePrefix("::ffff:10.0.0.0/104") },
		"many networks":  func(g *policy.Grant) { g.Networks = make([]netip.Prefix, policy.MaxNetworks+1) },
		"anyone by name": func(g *policy.Grant) { g.To = vocab.Principal{Kind: vocab.KindAnyone, Value: "x"} },
	} {
		g := good()
		change(&g)
		if err := g.Validate(); !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTemplateValidate(t *testing.T) {
	if err := finance().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*policy.Template){
		"slug":               func(t *policy.Template) { t.Slug = "A" },
		"state":              func(t *policy.Template) { t.State = 0 },
		"unknown state":      func(t *policy.Template) { t.State = 4 },
		"grants":             func(t *policy.Template) { t.Grants = make([]policy.Grant, policy.MaxTemplateGrants+1) },
		"a grant":            func(t *policy.Template) { t.Grants[0].Rights = 0 },
		"offline":            func(t *policy.Template) { t.Offline = -2 },
		"offline too long":   func(t *policy.Template) { t.Offline = policy.MaxPeriod + time.Millisecond },
		"offline too fine":   func(t *policy.Template) { t.Offline = 1 },
		"custody":            func(t *policy.Template) { t.Custody = 3 },
		"no name":            func(t *policy.Template) { t.Names = nil },
		"empty name":         func(t *policy.Template) { t.Names = map[string]string{"en": ""} },
		"name not NFC":       func(t *policy.Template) { t.Names = map[string]string{"en": "a\u0308"} },
		"name not UTF-8":     func(t *policy.Template) { t.Names = map[string]string{"en": "\xff"} },
		"line separator":     func(t *policy.Template) { t.Names = map[string]string{"en": "a\u2028b"} },
		"language":           func(t *policy.Template) { t.Names = map[string]string{"EN": "x"} },
		"description":        func(t *policy.Template) { t.Descriptions = map[string]string{"en": "a\nb"} },
		"comment":            func(t *policy.Template) { t.Comment = strings.Repeat("x", policy.MaxText+1) },
		"expiry kind":        func(t *policy.Template) { t.Expiry.Kind = 3 },
		"expiry without":     func(t *policy.Template) { t.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate} },
		"expiry both":        func(t *policy.Template) { t.Expiry.At = t0 },
		"expiry none":        func(t *policy.Template) { t.Expiry.Kind = policy.ExpiryNever },
		"select":             func(t *policy.Template) { t.Select = []vocab.Principal{{}} },
		"select twice":       func(t *policy.Template) { t.Select = append(t.Select, t.Select...) },
		"select too many":    func(t *policy.Template) { t.Select = make([]vocab.Principal, policy.MaxSelect+1) },
		"contact":            func(t *policy.Template) { t.Contact = "Help@contoso.com" },
		"too many languages": func(t *policy.Template) { t.Names = manyNames(policy.MaxLanguages + 1) },
	} {
		tpl := finance()
		change(tpl)
		if err := tpl.Validate(); !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func manyNames(n int) map[string]string {
	out := make(map[string]string)
	for i := range n {
		out["en-x"+string(rune('a'+i%26))+string(rune('a'+i/26))] = "x"
	}
	return out
}

func TestWarnings(t *testing.T) {
	tpl := finance()
	s := policy.DefaultSettings()
	if w := tpl.Warnings(s); len(w) != 0 {
		t.Error(w)
	}
	tpl.Offline = 90 * policy.Day
	tpl.Grants = []policy.Grant{{To: who("anyone"), Rights: vocab.RightsOf(vocab.RightPrint)}}
	if w := tpl.Warnings(s); len(w) != 2 || !strings.Contains(w[0], "maximum of 30d") || !strings.Contains(w[1], "without VIEW") {
		t.Error(w)
	}
	for len(tpl.Grants) < 30 {
		tpl.Grants = append(tpl.Grants, tpl.Grants[0])
	}
	if w := tpl.Warnings(s); len(w) != 22 || w[21] != "grants: 10 more are without VIEW" {
		t.Errorf("%d warnings, the last %q", len(w), w[len(w)-1])
	}
	tpl.Grants = nil
	s.MaxOffline = 12 * time.Hour
	if w := tpl.Warnings(s); len(w) != 2 || !strings.Contains(w[0], "12h") || !strings.Contains(w[1], "only owner and issuer") {
		t.Error(w)
	}
}

func TestSettingsValidate(t *testing.T) {
	if err := policy.DefaultSettings().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*policy.Settings){
		"negative maximum": func(s *policy.Settings) { s.MaxOffline = -1 },
		"maximum too long": func(s *policy.Settings) { s.MaxOffline = policy.MaxPeriod + 1 },
		"guest maximum":    func(s *policy.Settings) { s.GuestMaxOffline = -2 },
		"clear keys":       func(s *policy.Settings) { s.ClearKeys = 2 },
		"custody":          func(s *policy.Settings) { s.Custody = 0 },
		"guest domain":     func(s *policy.Settings) { s.GuestDomains = []string{"Fabrikam.com"} },
		"many domains":     func(s *policy.Settings) { s.GuestDomains = make([]string, policy.MaxSelect+1) },
		"publishers":       func(s *policy.Settings) { s.Publishers = []vocab.Principal{{}} },
	} {
		s := policy.DefaultSettings()
		change(&s)
		if err := s.Validate(); !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	good := func() *policy.Policy {
		return &policy.Policy{Owner: who("user:a@contoso.com"), Issuer: policy.Issuer{Issuer: "i", Subject: "s"}, Template: someTemplate}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*policy.Policy){
		"owner":    func(p *policy.Policy) { p.Owner = who("anyone") },
		"issuer":   func(p *policy.Policy) { p.Issuer.Subject = "" },
		"neither":  func(p *policy.Policy) { p.Template = vocab.TemplateUID{} },
		"both":     func(p *policy.Policy) { p.AdHoc = adHoc("anyone", policy.Viewer.Rights()) },
		"expiry":   func(p *policy.Policy) { p.NotAfter = t0.Add(1) },
		"parents":  func(p *policy.Policy) { p.Parents = make([]vocab.ContentID, policy.MaxParents+1) },
		"app data": func(p *policy.Policy) { p.AppData = make([]byte, policy.MaxAppData+1) },
		"ad hoc":   func(p *policy.Policy) { p.Template, p.AdHoc = vocab.TemplateUID{}, &policy.AdHoc{} },
		"ad hoc of no kind": func(p *policy.Policy) {
			p.Template, p.AdHoc = vocab.TemplateUID{}, adHoc("anyone", policy.Viewer.Rights())
			p.AdHoc.Kind = 4
		},
		"ad hoc offline": func(p *policy.Policy) {
			p.Template, p.AdHoc = vocab.TemplateUID{}, adHoc("anyone", policy.Viewer.Rights())
			p.AdHoc.Offline = -2
		},
	} {
		p := good()
		change(p)
		if err := p.Validate(); !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDamagedInputGrantsNothing: whatever cannot be understood is refused,
// also for the owner, and nothing panics.
func TestDamagedInputGrantsNothing(t *testing.T) {
	bad := policy.Grant{To: who("user:alice@contoso.com"), Rights: 1 << 20}
	for name, c := range map[string]struct {
		change func(*policy.Input)
		want   vocab.Reason
	}{
		"nothing":             {func(in *policy.Input) { *in = policy.Input{} }, vocab.ReasonInternal},
		"no caller":           {func(in *policy.Input) { in.Caller = nil }, vocab.ReasonInternal},
		"no policy":           {func(in *policy.Input) { in.Policy = nil }, vocab.ReasonInternal},
		"no clock":            {func(in *policy.Input) { in.Now = time.Time{} }, vocab.ReasonInternal},
		"no right":            {func(in *policy.Input) { in.Right = 14 }, vocab.ReasonRequestInvalid},
		"neither":             {func(in *policy.Input) { in.Policy.AdHoc = nil }, vocab.ReasonStoreDamaged},
		"both":                {func(in *policy.Input) { in.Policy.Template = someTemplate }, vocab.ReasonStoreDamaged},
		"unknown rights":      {func(in *policy.Input) { in.Policy.AdHoc.Grants = append(in.Policy.AdHoc.Grants, bad) }, vocab.ReasonStoreDamaged},
		"ad hoc and template": {func(in *policy.Input) { in.Template = &policy.CompiledTemplate{Template: finance()} }, vocab.ReasonInternal},
		"another template": {func(in *policy.Input) {
			in.Policy.AdHoc, in.Policy.Template = nil, vocab.TemplateUID{1}
			in.Template, _ = policy.CompileTemplate(finance())
		}, vocab.ReasonInternal},
		"identity without anything": {func(in *policy.Input) { in.Caller = &vocab.Identity{} }, vocab.ReasonNoRights},
		"issuer without name": {func(in *policy.Input) {
			in.Policy.Issuer = policy.Issuer{}
			in.Caller = &vocab.Identity{Member: "contoso"}
		}, vocab.ReasonNoRights},
		"owner without name": {func(in *policy.Input) {
			in.Policy.Owner = vocab.Principal{Kind: vocab.KindUser}
			in.Caller = &vocab.Identity{Issuer: "x", Subject: "y", Member: "contoso", Addresses: []string{""}}
		}, vocab.ReasonNoRights},
	} {
		in := baseInput()
		in.Caller = member("alice")
		in.Policy.AdHoc = adHoc("user:bob@contoso.com", policy.Viewer.Rights())
		c.change(&in)
		if d := policy.Evaluate(in); d.Allowed || d.Reason != c.want || d.Rights != 0 || d.Err() == nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if _, err := policy.CompileTemplate(&policy.Template{Grants: []policy.Grant{bad}}); err == nil {
		t.Error("a template with unknown rights was compiled")
	}
	if _, err := policy.NewIndex(make([]policy.Grant, policy.MaxTemplateGrants+1)); err == nil {
		t.Error("50,001 grants were indexed")
	}
	// An uncompiled template is not one: nobody but owner and issuer opens.
	in := baseInput()
	in.Caller, in.Policy.Template = member("bob"), finance().UID
	in.Template = &policy.CompiledTemplate{Template: finance()}
	if d := policy.Evaluate(in); d.Reason != vocab.ReasonTemplateDeleted {
		t.Errorf("%+v", d)
	}
}

func TestExpiryNotAfter(t *testing.T) {
	if got := (policy.Expiry{}).NotAfter(t0); !got.IsZero() {
		t.Error(got)
	}
	cet := time.FixedZone("CET", 3600)
	if got := (policy.Expiry{Kind: policy.ExpiryOnDate, At: t0.In(cet)}).NotAfter(t0); got != t0 {
		t.Error(got)
	}
	// 90 days are 2,160 hours, also across the end of summer time.
	if got := (policy.Expiry{Kind: policy.ExpiryAfter, After: 90 * policy.Day}).NotAfter(t0.Add(7)); got != t0.Add(2160*time.Hour) {
		t.Error(got)
	}
}
