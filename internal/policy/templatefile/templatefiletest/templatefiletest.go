// Package templatefiletest makes random templates, for tests of everything that
// carries them: files, the contract, the store.
package templatefiletest

import (
	"net/netip"
	"time"

	"pgregory.net/rapid"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

var (
	text     = rapid.StringMatching(`[ -~äß–漢🔒"'#:&*!|>%@{}\[\]]{1,60}`)
	language = rapid.SampledFrom([]string{"en", "de", "no", "pt-br", "zh-hant"})
	networks = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.7.0/24"),
		netip.MustParsePrefix("9.9.9.9/32"), netip.MustParsePrefix("2001:db8::/32"),
	}
	instant = rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMilli(rapid.Int64Range(1, 253402300799999).Draw(t, "ms")).UTC()
	})
	principal = rapid.SampledFrom([]vocab.Principal{
		{Kind: vocab.KindAnyone},
		{Kind: vocab.KindUser, Value: "{x}&y@contoso.com"},
		{Kind: vocab.KindGroup, Value: "f@contoso.com"},
		{Kind: vocab.KindDomain, Value: "contoso.com"},
		{Kind: vocab.KindTenant, Value: "contoso"},
		{Kind: vocab.KindService, Value: "dlp"},
	})
)

// Draw makes a template that is valid and not deleted, with any of the values a
// file can give it. Lists are in any order.
func Draw(t *rapid.T) *policy.Template {
	tpl := &policy.Template{
		Slug:  rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?`).Draw(t, "slug"),
		Names: rapid.MapOfN(language, text, 1, 3).Draw(t, "names"),
		State: rapid.SampledFrom([]policy.State{policy.StatePublished, policy.StateArchived}).Draw(t, "state"),
		Offline: rapid.SampledFrom([]time.Duration{
			policy.OfflineMax, 0, 1e6, time.Second, 90 * time.Minute, 12 * time.Hour, 7 * policy.Day, policy.MaxPeriod,
		}).Draw(t, "offline"),
		Contact: rapid.SampledFrom([]string{"", "help@contoso.com", "o'brien+x@contoso.com"}).Draw(t, "contact"),
		Custody: vocab.CustodyMode(rapid.IntRange(0, 2).Draw(t, "custody")),
		Select:  rapid.SliceOfNDistinct(principal, 0, 3, rapid.ID).Draw(t, "select"),
	}
	if rapid.Bool().Draw(t, "described") {
		tpl.Descriptions = rapid.MapOfN(language, text, 1, 2).Draw(t, "descriptions")
	}
	switch rapid.IntRange(0, 2).Draw(t, "expiry") {
	case 1:
		tpl.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate, At: instant.Draw(t, "at")}
	case 2:
		after := rapid.Int64Range(1, int64(policy.MaxPeriod/time.Millisecond)).Draw(t, "after")
		tpl.Expiry = policy.Expiry{Kind: policy.ExpiryAfter, After: time.Duration(after) * time.Millisecond}
	}
	for range rapid.IntRange(0, 4).Draw(t, "grants") {
		tpl.Grants = append(tpl.Grants, grant(t))
	}
	return tpl
}

func grant(t *rapid.T) policy.Grant {
	g := policy.Grant{
		To: principal.Draw(t, "to"), Rights: vocab.Rights(rapid.Uint32Range(1, uint32(vocab.AllRights)).Draw(t, "rights")),
		Login:    policy.Login(rapid.IntRange(0, 1).Draw(t, "login")),
		Networks: rapid.SliceOfNDistinct(rapid.SampledFrom(networks), 0, 3, rapid.ID).Draw(t, "networks"),
	}
	if rapid.Bool().Draw(t, "level") {
		g.Rights = rapid.SampledFrom(policy.Levels()).Draw(t, "of").Rights()
	}
	if rapid.Bool().Draw(t, "ends") {
		g.Until = instant.Draw(t, "until")
	}
	return g
}
