package rmsctl

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/policy/groupfile"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// groupStep is what apply does with one group.
type groupStep struct {
	wanted *groupfile.Group
	now    *rmsv1.Group // nil: to be created
	same   bool
	// change is what the server says of the edit: first that it may be made,
	// then what it did.
	change *rmsv1.GroupChange
}

// groupLine is a step as it is printed.
type groupLine struct {
	Group    string   `json:"group"`
	Action   string   `json:"action"` // create, update, unchanged
	From     uint32   `json:"from_revision,omitempty"`
	Revision uint32   `json:"revision,omitempty"`
	Changes  []string `json:"changes,omitempty"`
}

func (a *app) groupApplyCommand() *cobra.Command {
	var paths []string
	var dryRun, force bool
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR [--dry-run]",
		Short: "Make groups what files say; who joins and leaves does so for the next decision",
		Long: `Make groups what files say. Groups that no file names stay as they are.

It says who joins and who leaves, and which other groups they are in or no longer
in by that. Everything is checked before anything is written. If somebody else has
changed a group since you last applied or exported it, nothing is written; look at
what they changed, then export it anew or apply with --force.`,
		Example: `  rmsctl group apply -f groups.yaml --dry-run`,
		Args:    cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			wanted, err := readFiles(paths, "group", groupfile.Parse, func(g *groupfile.Group) string { return g.Address })
			if err != nil {
				return err
			}
			if err := groupfile.CheckApart(wanted); err != nil {
				return err
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			steps, err := a.planGroups(ctx, s, wanted, force)
			if err != nil {
				return err
			}
			return a.applyGroups(ctx, s, steps, dryRun)
		}),
	}
	flags := c.Flags()
	flags.StringArrayVarP(&paths, "file", "f", nil, "a file, or a folder of *.yaml files (needed; may be repeated)")
	flags.BoolVar(&dryRun, "dry-run", false, "show what would change and write nothing")
	flags.BoolVar(&force, "force", false, "also over changes of others")
	_ = c.MarkFlagRequired("file")
	return a.formatFlag(c)
}

// planGroups compares files with the server, checks that nobody else's change
// would be lost, and has the server check every write.
func (a *app) planGroups(ctx context.Context, s *server, wanted []*groupfile.Group, force bool) ([]*groupStep, error) {
	known := a.readBases(a.folder.GroupsPath(s.Name))
	var steps []*groupStep
	for _, g := range wanted {
		st := &groupStep{wanted: g}
		steps = append(steps, st)
		now, err := getGroup(ctx, s, g.Address)
		switch e := explain(err); {
		case err == nil:
			st.now = now
			old, err := fileOf(s, now)
			if err != nil {
				return nil, err
			}
			if st.same = old.Description == g.Description && slices.Equal(old.Members, g.Members); st.same {
				continue
			}
		case e == nil || e.Reason != vocab.ReasonResourceNotFound:
			return nil, err
		}
		if base, ok := known[g.Address]; ok && st.now != nil && base != now.GetRevision() && !force {
			return nil, vocab.Errorf(vocab.ReasonEtagMismatch, "conflict: revision %d of %s was written by %s %s, your file is based on %d; nothing written",
				now.GetRevision(), g.Address, or(now.GetAuthor(), "somebody"), showStamp(now.GetUpdateTime()), base).
				WithNext("See: rmsctl group show %s", g.Address)
		}
		if err := st.write(ctx, s, true); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// write has the server make the edit, or only check it.
func (st *groupStep) write(ctx context.Context, s *server, check bool) (err error) {
	m := &rmsv1.Group{Description: st.wanted.Description}
	for _, p := range st.wanted.Members {
		m.Members = append(m.Members, p.String())
	}
	if st.now == nil {
		st.change, err = s.People().CreateGroup(ctx, &rmsv1.CreateGroupRequest{Parent: s.parent(), GroupId: st.wanted.Address, Group: m, ValidateOnly: check})
	} else {
		m.Name, m.Etag = st.now.GetName(), st.now.GetEtag()
		st.change, err = s.People().UpdateGroup(ctx, &rmsv1.UpdateGroupRequest{Group: m, ValidateOnly: check})
	}
	if e := explain(err); e != nil {
		e.Message = "group " + st.wanted.Address + ": " + e.Message
		return e
	}
	return err
}

// applyGroups writes, or says what it would write.
func (a *app) applyGroups(ctx context.Context, s *server, steps []*groupStep, dryRun bool) error {
	var lines []groupLine
	var failed error
	written := 0
	for _, st := range steps {
		if !dryRun && !st.same {
			if failed = st.write(ctx, s, false); failed != nil {
				break
			}
			a.rememberGroup(s, st.change.GetGroup())
			written++
		}
		lines = append(lines, st.line())
	}
	err := a.emit(lines, func() {
		for _, l := range lines {
			a.outf("%s", l.String())
			a.printDiff(l.Changes, "")
		}
	})
	switch {
	case err != nil:
		return err
	case failed != nil && written > 0:
		a.sayf("stopped; the groups above are in force")
	case failed != nil:
	case dryRun:
		a.sayf("nothing written")
		a.next("the same without --dry-run")
	case written > 0:
		a.next("in force for the next decision; see: rmsctl group list")
	}
	return failed
}

func (st *groupStep) line() groupLine {
	l := groupLine{Group: st.wanted.Address, Action: "update"}
	switch {
	case st.same:
		l.Action, l.From, l.Revision = "unchanged", st.now.GetRevision(), st.now.GetRevision()
		return l
	case st.now == nil:
		l.Action = "create"
	default:
		l.From = st.now.GetRevision()
		if old := st.now.GetDescription(); old != st.wanted.Description {
			l.Changes = append(l.Changes, fmt.Sprintf("~ description: %s → %s", or(old, "none"), or(st.wanted.Description, "none")))
		}
	}
	l.Revision = st.change.GetGroup().GetRevision()
	l.Changes = append(membershipLines(st.wanted.Address, st.change), l.Changes...)
	return l
}

func (l groupLine) String() string {
	switch l.Action {
	case "create":
		return fmt.Sprintf("%s  new, revision %d", l.Group, l.Revision)
	case "unchanged":
		return fmt.Sprintf("%s  revision %d, unchanged", l.Group, l.Revision)
	}
	return fmt.Sprintf("%s  revision %d → %d", l.Group, l.From, l.Revision)
}
