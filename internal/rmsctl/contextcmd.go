package rmsctl

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/contexts"
)

func (a *app) contextCommand() *cobra.Command {
	return noun("context", "The servers and tenants you signed in to",
		a.contextListCommand(), a.contextUseCommand(), a.contextDeleteCommand())
}

// contextLine is a context as it is listed.
type contextLine struct {
	Name        string           `json:"name"`
	Current     bool             `json:"current"`
	Server      string           `json:"server"`
	Tenant      string           `json:"tenant"`
	TenantID    string           `json:"tenant_id"`
	Account     string           `json:"account,omitempty"`
	Roots       []contexts.KeyID `json:"roots"`
	Development bool             `json:"development,omitempty"`
}

func (a *app) contextListCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "list",
		Short: "List contexts; * marks the current one",
		Args:  cobra.NoArgs,
		RunE: a.run(func(context.Context, []string) error {
			all, err := a.folder.All()
			if err != nil {
				return err
			}
			current, err := a.folder.Current()
			if err != nil {
				return err
			}
			lines := make([]contextLine, 0, len(all))
			for _, c := range all {
				lines = append(lines, contextLine{
					Name: c.Name, Current: c.Name == current, Server: c.Server, Tenant: c.Tenant, TenantID: c.TenantID.String(),
					Account: account(c), Roots: c.Roots, Development: c.Development,
				})
			}
			return a.emit(lines, func() {
				t := newTable(a.stdout, "", "CONTEXT", "SERVER", "TENANT", "ACCOUNT")
				for _, l := range lines {
					mark := " "
					if l.Current {
						mark = "*"
					}
					t.row(mark, l.Name, l.Server, l.Tenant, l.Account)
				}
				t.flush()
				if len(lines) == 0 {
					a.next("sign in: rmsctl login ADDRESS")
				}
			})
		}),
	})
}

// account is who a context acts as, as far as is known without asking.
func account(c *contexts.Context) string {
	if c.SignIn != nil {
		return c.SignIn.Account
	}
	if c.TokenFile == "" {
		return ""
	}
	token, err := readToken(c.TokenPath())
	if err != nil {
		return "no token"
	}
	claims, err := readClaims(token)
	if err != nil {
		return "unreadable token"
	}
	return claims.name()
}

func (a *app) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Choose the context for commands that name none",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContexts,
		RunE: a.run(func(_ context.Context, args []string) error {
			c, err := a.folder.Read(args[0])
			if err != nil {
				return err
			}
			if err := a.folder.Use(c.Name); err != nil {
				return err
			}
			a.sayf("using context %s: tenant %s at %s", c.Name, c.Tenant, c.Server)
			return nil
		}),
	}
}

func (a *app) contextDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "delete NAME",
		Short:             "Forget a server: its address, its pinned roots, your sign-in and the last log checkpoint",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContexts,
		RunE: a.run(func(_ context.Context, args []string) error {
			c, err := a.folder.Read(args[0])
			if err != nil {
				return err
			}
			if err := a.confirm("Forget context %s with its pinned roots", c.Name); err != nil {
				return err
			}
			if err := a.folder.Delete(c.Name); err != nil {
				return err
			}
			a.sayf("forgot context %s", c.Name)
			a.next("sign in again: rmsctl login %s", c.Server)
			return nil
		}),
	}
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	folder, err := contexts.Default()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, _ := folder.Names()
	return names, cobra.ShellCompDirectiveNoFileComp
}

// confirm asks before something that cannot be taken back. Where nobody can
// answer, --yes must have been given.
func (a *app) confirm(format string, args ...any) error {
	if a.yes {
		return nil
	}
	question := fmt.Sprintf(format, cleanAll(args)...)
	if !isTerminal(a.stdin) {
		return usagef("this needs a yes: %s", question).withNext("Add --yes")
	}
	fmt.Fprintf(a.stderr, "%s? [y/N] ", question)
	line, _ := bufio.NewReader(a.stdin).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return usagef("nothing was changed")
	}
	return nil
}
