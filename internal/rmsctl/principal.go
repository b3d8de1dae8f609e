package rmsctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) principalCommand() *cobra.Command {
	return noun("principal", "Users and services: what they are in, and the instant stop",
		a.principalShowCommand(), a.principalListCommand(), a.principalDisableCommand(), a.principalEnableCommand())
}

// onPrincipal is run for work on the principal that the first argument names.
func (a *app) onPrincipal(fn func(ctx context.Context, s *server, name, who string) error) func(*cobra.Command, []string) error {
	return a.run(func(ctx context.Context, args []string) error {
		p, err := parsePrincipal(args[0])
		if err != nil {
			return err
		}
		if p.Kind != vocab.KindUser && p.Kind != vocab.KindService {
			return usagef("%s is neither a user nor a service", p)
		}
		s, err := a.connect(ctx)
		if err != nil {
			return err
		}
		return fn(ctx, s, s.parent()+"/principals/"+p.String(), shortPrincipal(p.String()))
	})
}

func (a *app) principalShowCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "show ADDRESS|service:NAME",
		Short: "Show which groups somebody is in, which roles they hold, and whether they are disabled",
		Args:  cobra.ExactArgs(1),
		RunE: a.onPrincipal(func(ctx context.Context, s *server, name, _ string) error {
			p, err := s.People().GetPrincipal(ctx, &rmsv1.GetPrincipalRequest{Name: name})
			if err != nil {
				return err
			}
			return a.emit(p, func() {
				t := newTable(a.stdout)
				t.row("principal", p.GetPrincipal())
				t.row("state", principalState(p))
				t.row("groups", strings.Join(p.GetGroups(), ", "))
				t.row("roles", roleNames(p.GetRoles()))
				t.flush()
			})
		}),
	})
}

func principalState(p *rmsv1.Principal) string {
	if p.GetState() != rmsv1.Principal_STATE_DISABLED {
		return "not disabled"
	}
	return "disabled " + showStamp(p.GetDisableTime()) + " by " + p.GetDisabledBy() + reasonSuffix(p.GetReason())
}

func roleNames(list []rmsv1.Role) string {
	var out []string
	for _, r := range list {
		out = append(out, strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")), "_", "-"))
	}
	return strings.Join(out, ", ")
}

func (a *app) principalListCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "list",
		Short: "List who is disabled",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			list, _, err := collect(0, func(size int32, token string) ([]*rmsv1.Principal, string, error) {
				page, err := s.People().ListDisabledPrincipals(ctx, &rmsv1.ListDisabledPrincipalsRequest{Parent: s.parent(), PageSize: size, PageToken: token})
				return page.GetPrincipals(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(messages(list), func() {
				t := newTable(a.stdout, "DISABLED", "SINCE", "BY", "REASON")
				for _, p := range list {
					t.row(shortPrincipal(p.GetPrincipal()), showStamp(p.GetDisableTime()), p.GetDisabledBy(), p.GetReason())
				}
				t.flush()
			})
		}),
	})
}

func (a *app) principalDisableCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "disable ADDRESS|service:NAME [--reason WHY]",
		Short: "Stop somebody at once: no call of theirs succeeds any more",
		Long: `Stop a user or a service at once. When this returns no call of theirs succeeds,
whoever calls for them, and what they had running has ended.

Use licenses that were given out to be kept end when they end: the answer says how
many there are, and until when the last one opens. Whoever has several addresses is
stopped by any of them that their identity provider vouches for.`,
		Example: `  rmsctl principal disable bob@contoso.com --reason "laptop stolen"`,
		Args:    cobra.ExactArgs(1),
		RunE: a.onPrincipal(func(ctx context.Context, s *server, name, who string) error {
			r, err := s.People().DisablePrincipal(ctx, &rmsv1.DisablePrincipalRequest{Name: name, Reason: reason})
			if err != nil {
				return err
			}
			if err := a.emit(r, func() {
				a.outf("%s is disabled. %s", who, mayStillOpen(r))
				t := newTable(a.stdout)
				for _, u := range r.GetCachedUses() {
					t.row("  license", lastPart(u.GetLicense()), "until "+showStamp(u.GetExpireTime()))
				}
				t.flush()
			}); err != nil {
				return err
			}
			a.next("undo: rmsctl principal enable %s", who)
			return nil
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why; kept in the record")
	return a.formatFlag(c)
}

// mayStillOpen says what a stop cannot reach.
func mayStillOpen(r *rmsv1.DisablePrincipalResponse) string {
	n := int(r.GetCachedUseCount())
	if n == 0 || len(r.GetCachedUses()) == 0 {
		return "They hold no use license that could still open anything."
	}
	s := fmt.Sprintf("%s may still open, the last until %s", plural(n, "cached use license", "cached use licenses"),
		showStamp(r.GetCachedUses()[0].GetExpireTime()))
	if n > len(r.GetCachedUses()) {
		s += fmt.Sprintf("; the %d that end last:", len(r.GetCachedUses()))
	} else {
		s += ":"
	}
	return s
}

func (a *app) principalEnableCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "enable ADDRESS|service:NAME",
		Short: "Let somebody call again who was disabled",
		Args:  cobra.ExactArgs(1),
		RunE: a.onPrincipal(func(ctx context.Context, s *server, name, who string) error {
			p, err := s.People().EnablePrincipal(ctx, &rmsv1.EnablePrincipalRequest{Name: name})
			if err != nil {
				return err
			}
			if err := a.emit(p, func() { a.outf("%s is enabled again", who) }); err != nil {
				return err
			}
			a.next("undo: rmsctl principal disable %s", who)
			return nil
		}),
	})
}
