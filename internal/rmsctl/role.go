package rmsctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) roleCommand() *cobra.Command {
	return noun("role", "Who may administer what", a.roleListCommand(), a.roleShowCommand(), a.roleGrantCommand(), a.roleRevokeCommand())
}

func roleResource(s *server, arg string) (string, error) {
	role, err := vocab.ParseRole(arg)
	if err != nil {
		return "", usagef("%v", err)
	}
	return s.parent() + "/roles/" + string(role), nil
}

// holdersFrom says who names the holders of a role.
func holdersFrom(r *rmsv1.RoleHolders) string {
	if r.GetSource() == rmsv1.RoleHolders_SOURCE_FILE {
		return "operator's file"
	}
	return fmt.Sprintf("here, revision %d by %s %s", r.GetRevision(), or(r.GetAuthor(), "somebody"), showStamp(r.GetUpdateTime()))
}

func shortPrincipals(list []string) string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = shortPrincipal(p)
	}
	return strings.Join(out, ", ")
}

func (a *app) printRoles(list []*rmsv1.RoleHolders) {
	t := newTable(a.stdout, "ROLE", "HOLDERS", "NAMED")
	for _, r := range list {
		t.row(lastPart(r.GetName()), shortPrincipals(r.GetHolders()), holdersFrom(r))
	}
	t.flush()
}

func (a *app) roleListCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "list",
		Short: "List the roles and who holds them",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			r, err := s.People().ListRoles(ctx, &rmsv1.ListRolesRequest{Parent: s.parent()})
			if err != nil {
				return err
			}
			return a.emit(messages(r.GetRoles()), func() { a.printRoles(r.GetRoles()) })
		}),
	})
}

func (a *app) roleShowCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "show ROLE",
		Short: "Show who holds a role, and who says so",
		Args:  cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			name, err := roleResource(s, args[0])
			if err != nil {
				return err
			}
			r, err := s.People().GetRole(ctx, &rmsv1.GetRoleRequest{Name: name})
			if err != nil {
				return err
			}
			return a.emit(r, func() { a.printRoles([]*rmsv1.RoleHolders{r}) })
		}),
	})
}

func (a *app) roleGrantCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "grant ROLE PRINCIPAL",
		Short: "Give somebody a role, in force for their next call",
		Long: `Give a user, a group or a service a role, in force for their next call.

The first change of a role takes over the holders that the operator's file of the
tenant names; that file does not count for the role from then on. To grant
key-custodian, auditor or recovery-officer needs a second person.`,
		Example: `  rmsctl role grant policy-admin carla@contoso.com`,
		Args:    cobra.ExactArgs(2),
		RunE: a.onRole(func(ctx context.Context, s *server, name, who string) (*rmsv1.RoleChange, error) {
			return s.People().GrantRole(ctx, &rmsv1.GrantRoleRequest{Name: name, Principal: who})
		}, "is %s now", "revoke"),
	})
}

func (a *app) roleRevokeCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "revoke ROLE PRINCIPAL",
		Short: "Take a role from whoever holds it by name, in force for their next call",
		Args:  cobra.ExactArgs(2),
		RunE: a.onRole(func(ctx context.Context, s *server, name, who string) (*rmsv1.RoleChange, error) {
			return s.People().RevokeRole(ctx, &rmsv1.RevokeRoleRequest{Name: name, Principal: who})
		}, "is no longer %s", "grant"),
	})
}

// onRole changes a role and says what became of it.
func (a *app) onRole(change func(ctx context.Context, s *server, name, who string) (*rmsv1.RoleChange, error), said, undo string) func(*cobra.Command, []string) error {
	return a.online(func(ctx context.Context, s *server, args []string) error {
		name, err := roleResource(s, args[0])
		if err != nil {
			return err
		}
		who, err := parsePrincipal(args[1])
		if err != nil {
			return err
		}
		r, err := change(ctx, s, name, who.String())
		if err != nil {
			return err
		}
		if err := a.emit(r, func() {
			a.outf("%s "+said, shortPrincipal(who.String()), args[0])
			if taken := r.GetTakenOver(); len(taken) > 0 {
				a.outf("The operator's file does not count for %s any more; it named %s", args[0], shortPrincipals(taken))
			}
			a.printRoles([]*rmsv1.RoleHolders{r.GetRole()})
		}); err != nil {
			return err
		}
		a.next("undo: rmsctl role %s %s %s", undo, args[0], shortPrincipal(who.String()))
		return nil
	})
}
