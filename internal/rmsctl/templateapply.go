package rmsctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// step is what apply does with one template.
type step struct {
	wanted *policy.Template
	now    *rmsv1.Template // nil: to be created
	diff   []string
}

// stepLine is a step as it is printed.
type stepLine struct {
	Template string   `json:"template"`
	Action   string   `json:"action"` // create, update, unchanged
	From     uint32   `json:"from_revision,omitempty"`
	Revision uint32   `json:"revision,omitempty"`
	Changes  []string `json:"changes,omitempty"`
}

func (a *app) templateApplyCommand() *cobra.Command {
	var paths []string
	var dryRun, force bool
	var comment string
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR [--dry-run]",
		Short: "Make templates what files say; what is written is in force for the next decision",
		Long: `Make templates what files say. Templates that no file names stay as they are.

Everything is checked before anything is written. If somebody else has changed a
template since you last applied or exported it, nothing is written; look at what
they changed, then export it anew or apply with --force.`,
		Example: `  rmsctl template apply -f templates/ --dry-run
  rmsctl template apply -f templates/finance-internal.yaml --comment "interns until Friday"`,
		Args: cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			wanted, err := readTemplates(paths)
			if err != nil {
				return err
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			steps, err := a.plan(ctx, s, wanted, comment, force)
			if err != nil {
				return err
			}
			return a.applySteps(ctx, s, steps, dryRun)
		}),
	}
	flags := c.Flags()
	flags.StringArrayVarP(&paths, "file", "f", nil, "a file, or a folder of *.yaml files (needed; may be repeated)")
	flags.BoolVar(&dryRun, "dry-run", false, "show what would change and write nothing")
	flags.BoolVar(&force, "force", false, "also over changes of others")
	flags.StringVar(&comment, "comment", "", "why; kept with the revision")
	_ = c.MarkFlagRequired("file")
	return a.formatFlag(c)
}

// readTemplates reads all files before anything is decided.
func readTemplates(paths []string) ([]*policy.Template, error) {
	var files []string
	for _, p := range paths {
		st, err := os.Stat(p) //nolint:gosec // a file that the user named
		if err != nil {
			return nil, err
		}
		if !st.IsDir() {
			files = append(files, p)
			continue
		}
		found, err := filepath.Glob(filepath.Join(p, "*.y*ml"))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, usagef("%s holds no *.yaml files", p)
		}
		files = append(files, found...)
	}
	var all []*policy.Template
	from := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f) //nolint:gosec // a file that the user named
		if err != nil {
			return nil, err
		}
		list, err := templatefile.Parse(b)
		if err != nil {
			if e, ok := errors.AsType[*vocab.Error](err); ok {
				return nil, vocab.Errorf(e.Reason, "%s: %s", f, e.Message).WithNext("%s", e.Next).Because(err)
			}
			return nil, err
		}
		for _, t := range list {
			if other, ok := from[t.Slug]; ok {
				return nil, usagef("template %s is in %s and in %s", t.Slug, other, f)
			}
			from[t.Slug] = f
		}
		all = append(all, list...)
	}
	return all, nil
}

// plan compares files with the server, checks that nobody else's change would
// be lost, and has the server check every write.
func (a *app) plan(ctx context.Context, s *server, wanted []*policy.Template, comment string, force bool) ([]step, error) {
	bases := a.readBases(s)
	var steps []step
	for _, t := range wanted {
		t.Comment = comment
		st := step{wanted: t}
		now, err := getTemplate(ctx, s, t.Slug, 0)
		e := explain(err)
		switch {
		case err == nil:
			st.now = now
		case e != nil && e.Reason == vocab.ReasonResourceNotFound:
			_, err := s.Policy().CreateTemplate(ctx, &rmsv1.CreateTemplateRequest{
				Parent: s.parent(), TemplateId: t.Slug, Template: templateProto("", t), ValidateOnly: true,
			})
			if err != nil {
				return nil, inTemplate(t.Slug, err)
			}
			steps = append(steps, st)
			continue
		default:
			return nil, err
		}
		old, err := templateFrom(now)
		if err != nil {
			return nil, err
		}
		st.diff = templateDiff(old, t)
		steps = append(steps, st)
		if len(st.diff) == 0 {
			continue
		}
		if base, ok := bases[t.Slug]; ok && base != now.GetRevision() && !force {
			return nil, vocab.Errorf(vocab.ReasonEtagMismatch, "conflict: revision %d of %s was written by %s %s, your file is based on %d; nothing written",
				now.GetRevision(), t.Slug, or(now.GetAuthor(), "somebody"), showStamp(now.GetReviseTime()), base).
				WithNext("See: rmsctl template diff %s %d %d", t.Slug, base, now.GetRevision())
		}
		_, err = s.Policy().UpdateTemplate(ctx, &rmsv1.UpdateTemplateRequest{Template: st.update(), ValidateOnly: true})
		if err != nil {
			return nil, inTemplate(t.Slug, err)
		}
	}
	return steps, nil
}

func (st step) update() *rmsv1.Template {
	m := templateProto(st.now.GetName(), st.wanted)
	m.Etag = st.now.GetEtag()
	return m
}

// inTemplate says in which template the server found something.
func inTemplate(id string, err error) error {
	if e := explain(err); e != nil {
		e.Message = "template " + id + ": " + e.Message
		return e
	}
	return err
}

// applySteps writes, or says what it would write.
func (a *app) applySteps(ctx context.Context, s *server, steps []step, dryRun bool) error {
	var lines []stepLine
	var undo []string
	var failed error
	for _, st := range steps {
		line := stepLine{Template: st.wanted.Slug, Action: "update", Changes: st.diff}
		switch {
		case st.now == nil:
			line.Action, line.Revision = "create", 1
		case len(st.diff) == 0:
			line.Action, line.From, line.Revision = "unchanged", st.now.GetRevision(), st.now.GetRevision()
		default:
			line.From, line.Revision = st.now.GetRevision(), st.now.GetRevision()+1
		}
		if !dryRun && line.Action != "unchanged" {
			written, err := a.write(ctx, s, st)
			if err != nil {
				failed = inTemplate(st.wanted.Slug, err)
				break
			}
			line.Revision = written.GetRevision()
			if st.now != nil {
				undo = append(undo, fmt.Sprintf("rmsctl template rollback %s --to %d", st.wanted.Slug, line.From))
			}
		}
		lines = append(lines, line)
	}
	err := a.emit(lines, func() {
		for _, l := range lines {
			a.outf("%s", l.String())
			if dryRun || l.Action == "update" {
				a.printDiff(l.Changes, "")
			}
		}
	})
	switch {
	case err != nil:
		return err
	case failed != nil && len(lines) > 0:
		a.sayf("stopped; the templates above are in force")
	case failed != nil:
	case dryRun:
		a.sayf("nothing written")
		a.next("the same without --dry-run")
	case len(undo) > 0:
		a.next("undo: %s", strings.Join(undo, "; "))
	}
	return failed
}

func (l stepLine) String() string {
	switch l.Action {
	case "create":
		return l.Template + "  new, revision 1"
	case "unchanged":
		return fmt.Sprintf("%s  revision %d, unchanged", l.Template, l.Revision)
	}
	return fmt.Sprintf("%s  revision %d → %d", l.Template, l.From, l.Revision)
}

func (a *app) write(ctx context.Context, s *server, st step) (m *rmsv1.Template, err error) {
	if st.now == nil {
		m, err = s.Policy().CreateTemplate(ctx, &rmsv1.CreateTemplateRequest{
			Parent: s.parent(), TemplateId: st.wanted.Slug, Template: templateProto("", st.wanted),
		})
	} else {
		m, err = s.Policy().UpdateTemplate(ctx, &rmsv1.UpdateTemplateRequest{Template: st.update()})
	}
	if err == nil {
		a.rememberBase(s, m)
	}
	return m, err
}

// Which revision of a template the user last wrote or exported is remembered
// for each context: files are edited without it, and an edit that others made
// in between must not be lost unseen.

func (a *app) basesPath(s *server) string { return a.folder.TemplatesPath(s.Name) }

// readBases returns the revisions by template. Memory that is not there, or
// cannot be read, protects nothing and hinders nothing.
func (a *app) readBases(s *server) map[string]uint32 {
	bases := map[string]uint32{}
	b, err := os.ReadFile(a.basesPath(s))
	if errors.Is(err, fs.ErrNotExist) {
		return bases
	}
	if err != nil || json.Unmarshal(b, &bases) != nil {
		a.warnf("%s cannot be read: changes of others are not noticed", a.basesPath(s))
		return map[string]uint32{}
	}
	return bases
}

func (a *app) rememberBase(s *server, m *rmsv1.Template) {
	bases := a.readBases(s)
	id := lastPart(m.GetName())
	if bases[id] == m.GetRevision() {
		return
	}
	bases[id] = m.GetRevision()
	b, err := json.MarshalIndent(bases, "", "  ")
	if err == nil {
		err = contexts.WritePrivate(a.basesPath(s), append(b, '\n'))
	}
	if err != nil {
		a.warnf("%v", err)
	}
}
