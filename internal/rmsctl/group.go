package rmsctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/policy/groupfile"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) groupCommand() *cobra.Command {
	return noun("group", "Groups of the tenant's own directory",
		a.groupListCommand(), a.groupShowCommand(), a.groupApplyCommand(), a.groupExportCommand(), a.groupDeleteCommand())
}

// groupName returns the resource name of a group; address may be written
// group:ADDRESS.
func groupName(s *server, address string) (string, error) {
	address, err := vocab.CanonicalAddress(strings.TrimPrefix(address, "group:"))
	if err != nil {
		return "", usagef("%v", err).withNext("See: rmsctl group list")
	}
	return s.parent() + "/groups/" + address, nil
}

// groupAddress is the reverse.
func groupAddress(s *server, name string) string {
	return strings.TrimPrefix(name, s.parent()+"/groups/")
}

func getGroup(ctx context.Context, s *server, address string) (*rmsv1.Group, error) {
	name, err := groupName(s, address)
	if err != nil {
		return nil, err
	}
	return s.People().GetGroup(ctx, &rmsv1.GetGroupRequest{Name: name})
}

// listGroups reads all groups, or those a principal is in directly.
func listGroups(ctx context.Context, s *server, member string) ([]*rmsv1.Group, error) {
	list, _, err := collect(0, func(size int32, token string) ([]*rmsv1.Group, string, error) {
		page, err := s.People().ListGroups(ctx, &rmsv1.ListGroupsRequest{Parent: s.parent(), PageSize: size, PageToken: token, Member: member})
		return page.GetGroups(), page.GetNextPageToken(), err
	})
	return list, err
}

// fileOf is a group as its file.
func fileOf(s *server, m *rmsv1.Group) (*groupfile.Group, error) {
	g := &groupfile.Group{Address: groupAddress(s, m.GetName()), Description: m.GetDescription()}
	for _, name := range m.GetMembers() {
		p, err := vocab.ParsePrincipal(name)
		if err != nil {
			return nil, vocab.Errorf(vocab.ReasonInternal, "the server named a member that cannot be: %w", err)
		}
		g.Members = append(g.Members, p)
	}
	slices.SortFunc(g.Members, vocab.Principal.Compare)
	return g, nil
}

// groupHead is what a group's file does not hold.
func groupHead(s *server, m *rmsv1.Group) string {
	head := fmt.Sprintf("%s revision %d by %s %s", groupAddress(s, m.GetName()), m.GetRevision(), or(m.GetAuthor(), "somebody"), showStamp(m.GetUpdateTime()))
	if len(m.GetWithin()) > 0 {
		head += ", in " + strings.Join(m.GetWithin(), ", ")
	}
	return head
}

// printGroup prints a group as a file that apply reads.
func (a *app) printGroup(s *server, m *rmsv1.Group) error {
	g, err := fileOf(s, m)
	if err != nil {
		return err
	}
	b, err := groupfile.Format(g)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "# %s\n%s", clean(groupHead(s, m)), b)
	return err
}

func (a *app) groupListCommand() *cobra.Command {
	var member string
	c := &cobra.Command{
		Use:   "list",
		Short: "List groups",
		Args:  cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			if member != "" {
				p, err := parsePrincipal(member)
				if err != nil {
					return err
				}
				member = p.String()
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			list, err := listGroups(ctx, s, member)
			if err != nil {
				return err
			}
			return a.emit(messages(list), func() {
				t := newTable(a.stdout, "GROUP", "MEMBERS", "IN", "REVISION", "BY", "DESCRIPTION")
				for _, m := range list {
					t.row(groupAddress(s, m.GetName()), fmt.Sprint(len(m.GetMembers())), strings.Join(m.GetWithin(), ", "),
						fmt.Sprint(m.GetRevision()), m.GetAuthor(), m.GetDescription())
				}
				t.flush()
			})
		}),
	}
	c.Flags().StringVar(&member, "member", "", "only those somebody is in directly: a principal")
	return a.formatFlag(c)
}

func (a *app) groupShowCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "show ADDRESS",
		Short: "Show a group as its file",
		Args:  cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			m, err := getGroup(ctx, s, args[0])
			if err != nil {
				return err
			}
			if a.format == formatJSON {
				return a.emit(m, nil)
			}
			return a.printGroup(s, m)
		}),
	})
}

func (a *app) groupExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "export [ADDRESS…]",
		Short:   "Write groups as one file that apply reads; all of them if none is named",
		Example: `  rmsctl group export > groups.yaml`,
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			var list []*rmsv1.Group
			for _, address := range args {
				m, err := getGroup(ctx, s, address)
				if err != nil {
					return err
				}
				list = append(list, m)
			}
			if len(args) == 0 {
				var err error
				if list, err = listGroups(ctx, s, ""); err != nil {
					return err
				}
			}
			for i, m := range list {
				if i > 0 {
					fmt.Fprintln(a.stdout, "---")
				}
				if err := a.printGroup(s, m); err != nil {
					return err
				}
				a.rememberGroup(s, m)
			}
			return nil
		}),
	}
}

func (a *app) rememberGroup(s *server, m *rmsv1.Group) {
	a.remember(a.folder.GroupsPath(s.Name), map[string]uint32{groupAddress(s, m.GetName()): m.GetRevision()})
}

func (a *app) groupDeleteCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "delete ADDRESS",
		Short: "Delete a group: where policies, roles or other groups name it, nobody is in it any more",
		Long: `Delete a group. Where policies, roles or other groups name it, nobody is in it
any more but whom an identity provider vouches for. A group of the same address
can be made again.`,
		Args: cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			m, err := getGroup(ctx, s, args[0])
			if err != nil {
				return err
			}
			gone, err := s.People().DeleteGroup(ctx, &rmsv1.DeleteGroupRequest{Name: m.GetName(), Etag: m.GetEtag()})
			if err != nil {
				return err
			}
			a.rememberGroup(s, gone.GetGroup())
			address := groupAddress(s, m.GetName())
			if err := a.emit(gone, func() {
				a.outf("%s  deleted (revision %d)", address, gone.GetGroup().GetRevision())
				a.printDiff(membershipLines(address, gone), "")
			}); err != nil {
				return err
			}
			a.next("make it again with its members: rmsctl group apply -f FILE")
			return nil
		}),
	})
}

// membershipLines say who joins and who leaves a group by an edit, and what else
// that means for them.
func membershipLines(address string, change *rmsv1.GroupChange) []string {
	var lines []string
	others := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(g string) bool { return g == address })
	}
	members := map[string]bool{} // after the edit
	for _, m := range change.GetGroup().GetMembers() {
		members[m] = true
	}
	for _, c := range change.GetChanges() {
		line := "- " + shortPrincipal(c.GetPrincipal()) + " leaves"
		effect, nonetheless := c.GetLeaves(), ", and stays in it through another group"
		if members[c.GetPrincipal()] {
			line = "+ " + shortPrincipal(c.GetPrincipal()) + " joins"
			effect, nonetheless = c.GetJoins(), ", and was in it through another group"
		}
		if !slices.Contains(effect, address) {
			line += nonetheless
		}
		if more := others(effect); len(more) > 0 {
			line += ", and with it " + strings.Join(more, ", ")
		}
		lines = append(lines, line)
	}
	if more := int(change.GetChangeCount()) - len(change.GetChanges()); more > 0 {
		lines = append(lines, fmt.Sprintf("and %s more", group(int64(more))))
	}
	return lines
}
