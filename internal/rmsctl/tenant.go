package rmsctl

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) tenantCommand() *cobra.Command {
	return noun("tenant", "The tenant's settings, its release after a restore, and its move to another service",
		a.tenantShowCommand(), a.tenantSetCommand(), a.tenantHoldCommand(), a.tenantReleaseCommand(),
		a.tenantExportCommand(), a.tenantThawCommand(), a.tenantResidenceCommand())
}

func (a *app) tenantShowCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "show",
		Short: "Show the tenant's settings",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			settings, err := s.Policy().GetSettings(ctx, &rmsv1.GetSettingsRequest{Name: s.parent() + "/settings"})
			if err != nil {
				return err
			}
			return a.emit(settings, func() { a.showSettings(settings) })
		}),
	})
}

func (a *app) showSettings(s *rmsv1.Settings) {
	all := func(list []string, none string) string {
		if len(list) == 0 {
			return none
		}
		return strings.Join(list, ", ")
	}
	t := newTable(a.stdout)
	t.row("offline-max", showPeriod(s.GetOfflineMax()))
	t.row("issuer-opens-revoked", yesNo(s.GetIssuerOpensRevoked()))
	t.row("guest", all(s.GetGuestDomains(), "none"))
	t.row("publisher", all(s.GetPublishers(), "every member"))
	t.row("clear-keys", strings.ToLower(strings.TrimPrefix(s.GetClearKeys().String(), "CLEAR_KEYS_")))
	t.row("custody", custodyName(s.GetCustodyMode()))
	t.row("cache-ttl", showPeriod(s.GetCacheTtl()))
	t.row("outage-grace", showPeriod(s.GetOutageGrace()))
	t.row("allow-x25519", yesNo(s.GetAllowX25519()))
	t.row("token-age-max", showPeriod(s.GetTokenAgeMax()))
	t.flush()
}

func showPeriod(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	return showDuration(d.AsDuration())
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// settingsFlags are the flags of tenant set.
type settingsFlags struct {
	offlineMax, cacheTTL, outageGrace, tokenAgeMax string
	clearKeys, custody                             string
	issuerOpensRevoked, allowX25519                bool
	guests, noGuests, publishers, noPublishers     []string
}

func (a *app) tenantSetCommand() *cobra.Command {
	var f settingsFlags
	c := &cobra.Command{
		Use:   "set FLAGS",
		Short: "Change the tenant's settings",
		Example: `  rmsctl tenant set --offline-max 14d
  rmsctl tenant set --guest fabrikam.com --publisher group:staff@contoso.com`,
		Args: cobra.NoArgs,
	}
	flags := c.Flags()
	flags.StringVar(&f.offlineMax, "offline-max", "", "the longest a use license may be kept, like 14d")
	flags.BoolVar(&f.issuerOpensRevoked, "issuer-opens-revoked", false, "whether whoever protected a document may open it after it was revoked")
	flags.StringSliceVar(&f.guests, "guest", nil, "let people of this domain open (never protect)")
	flags.StringSliceVar(&f.noGuests, "remove-guest", nil, "no longer let people of this domain open")
	flags.StringSliceVar(&f.publishers, "publisher", nil, "let this principal protect; with none named, every member may")
	flags.StringSliceVar(&f.noPublishers, "remove-publisher", nil, "no longer name this principal among those who may protect")
	flags.StringVar(&f.clearKeys, "clear-keys", "", "who may have content keys in the clear: never or mtls")
	flags.StringVar(&f.custody, "custody", "", "the least custody mode of every document: cached or strict")
	flags.StringVar(&f.cacheTTL, "cache-ttl", "", "how long an unwrapped key is kept, 10s to 1h")
	flags.StringVar(&f.outageGrace, "outage-grace", "", "how much longer while the custodian cannot be reached")
	flags.BoolVar(&f.allowX25519, "allow-x25519", false, "allow X25519 recipient keys beside X-Wing")
	flags.StringVar(&f.tokenAgeMax, "token-age-max", "", "the oldest a token may be; 0: as its provider says")
	c.RunE = a.online(func(ctx context.Context, s *server, _ []string) error {
		settings, err := s.Policy().GetSettings(ctx, &rmsv1.GetSettingsRequest{Name: s.parent() + "/settings"})
		if err != nil {
			return err
		}
		mask, err := f.apply(settings, flags.Changed)
		if err != nil {
			return err
		}
		if len(mask) == 0 {
			return usagef("tenant set needs something to change").withNext("See: rmsctl tenant set --help")
		}
		settings, err = s.Policy().UpdateSettings(ctx, &rmsv1.UpdateSettingsRequest{
			Settings: settings, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask},
		})
		if err != nil {
			return err
		}
		if err := a.emit(settings, func() { a.showSettings(settings) }); err != nil {
			return err
		}
		a.next("in force for the next decision; see: rmsctl tenant show")
		return nil
	})
	return a.formatFlag(c)
}

// apply changes settings as the flags say, and returns the mask of what
// changed.
func (f *settingsFlags) apply(s *rmsv1.Settings, changed func(string) bool) ([]string, error) {
	var mask []string
	touch := func(field string) { mask = append(mask, field) }
	for _, p := range []struct {
		flag, field, value string
		set                func(*durationpb.Duration)
	}{
		{"offline-max", "offline_max", f.offlineMax, func(d *durationpb.Duration) { s.OfflineMax = d }},
		{"cache-ttl", "cache_ttl", f.cacheTTL, func(d *durationpb.Duration) { s.CacheTtl = d }},
		{"outage-grace", "outage_grace", f.outageGrace, func(d *durationpb.Duration) { s.OutageGrace = d }},
		{"token-age-max", "token_age_max", f.tokenAgeMax, func(d *durationpb.Duration) { s.TokenAgeMax = d }},
	} {
		if !changed(p.flag) {
			continue
		}
		d, err := parseDuration(p.value)
		if err != nil {
			return nil, err
		}
		if p.flag == "token-age-max" && d == 0 {
			p.set(nil)
		} else {
			p.set(durationpb.New(d.Truncate(time.Millisecond)))
		}
		touch(p.field)
	}
	if changed("issuer-opens-revoked") {
		s.IssuerOpensRevoked = f.issuerOpensRevoked
		touch("issuer_opens_revoked")
	}
	if changed("allow-x25519") {
		s.AllowX25519 = f.allowX25519
		touch("allow_x25519")
	}
	if changed("clear-keys") {
		switch f.clearKeys {
		case "never":
			s.ClearKeys = rmsv1.Settings_CLEAR_KEYS_NEVER
		case "mtls":
			s.ClearKeys = rmsv1.Settings_CLEAR_KEYS_MTLS
		default:
			return nil, usagef("--clear-keys is never or mtls, not %q", f.clearKeys)
		}
		touch("clear_keys")
	}
	if changed("custody") {
		m, err := vocab.ParseCustodyMode(f.custody)
		if err != nil {
			return nil, usagef("--custody: %v", err)
		}
		s.CustodyMode = rmsv1.CustodyMode(m)
		touch("custody_mode")
	}
	if changed("guest") || changed("remove-guest") {
		list, err := edited(s.GetGuestDomains(), f.guests, f.noGuests, vocab.CanonicalDomain)
		if err != nil {
			return nil, err
		}
		s.GuestDomains = list
		touch("guest_domains")
	}
	if changed("publisher") || changed("remove-publisher") {
		list, err := edited(s.GetPublishers(), f.publishers, f.noPublishers, func(v string) (string, error) {
			p, err := parsePrincipal(v)
			return p.String(), err
		})
		if err != nil {
			return nil, err
		}
		s.Publishers = list
		touch("publishers")
	}
	return mask, nil
}

// edited adds to a list and removes from it.
func edited(list, add, remove []string, canonical func(string) (string, error)) ([]string, error) {
	list = slices.Clone(list)
	for _, v := range add {
		c, err := canonical(v)
		if err != nil {
			return nil, usagef("%v", err)
		}
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	for _, v := range remove {
		c, err := canonical(v)
		if err != nil {
			return nil, usagef("%v", err)
		}
		i := slices.Index(list, c)
		if i < 0 {
			return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "%s is not in the list", c).WithNext("See: rmsctl tenant show")
		}
		list = slices.Delete(list, i, i+1)
	}
	return list, nil
}
