package rmsctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) templateCommand() *cobra.Command {
	return noun("template", "Rights policies that documents follow",
		a.templateListCommand(), a.templateShowCommand(), a.templateApplyCommand(), a.templateDiffCommand(),
		a.templateHistoryCommand(), a.templateRollbackCommand(), a.templateArchiveCommand(),
		a.templateDeleteCommand(), a.templateUndeleteCommand(), a.templateExportCommand())
}

func templateName(s *server, id string) string { return s.parent() + "/templates/" + id }

// getTemplate reads a revision of a template, 0 for the current one.
func getTemplate(ctx context.Context, s *server, id string, revision uint32) (*rmsv1.Template, error) {
	if !vocab.ValidSlug(id) {
		return nil, usagef("%q is not the ID of a template", id).withNext("See: rmsctl template list --all")
	}
	return s.Policy().GetTemplate(ctx, &rmsv1.GetTemplateRequest{Name: templateName(s, id), Revision: revision})
}

// templateListCommand lists what the words ask for and nothing more: asking for
// all first, to see whether one may, would leave a refusal in the log of
// everybody who only protects.
func (a *app) templateListCommand() *cobra.Command {
	var all, deleted bool
	var language string
	c := &cobra.Command{
		Use:   "list",
		Short: "List templates: those you may protect with, or all of them",
		Long: `List templates: those you may protect with, or all of them. A name is shown in
your language if the template has one in it, in the nearest of the same language
(pt-br, pt, pt-pt), in English, or in the first it has.`,
		Args: cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			lang, err := languageOf(language)
			if err != nil {
				return err
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			if !all && !deleted {
				return a.listUsable(ctx, s, lang)
			}
			list, _, err := collect(0, func(size int32, token string) ([]*rmsv1.Template, string, error) {
				page, err := s.Policy().ListTemplates(ctx, &rmsv1.ListTemplatesRequest{Parent: s.parent(), PageSize: size, PageToken: token, ShowDeleted: deleted})
				return page.GetTemplates(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(messages(list), func() {
				t := newTable(a.stdout, "TEMPLATE", "STATE", "CUSTODY", "OFFLINE", "REVISION", "NAME")
				for _, m := range list {
					t.row(lastPart(m.GetName()), enumWord(m.GetState().String()), custodyName(m.GetCustodyMode()), offlineWord(m), fmt.Sprint(m.GetRevision()), inLanguage(m.GetDisplayNames(), lang))
				}
				t.flush()
			})
		}),
	}
	c.Flags().BoolVar(&all, "all", false, "every template with its state and revision, if you administer policy or audit")
	c.Flags().BoolVar(&deleted, "deleted", false, "all, and deleted ones, too")
	languageFlag(c, &language)
	return a.formatFlag(c)
}

// listUsable lists what everybody who protects may know.
func (a *app) listUsable(ctx context.Context, s *server, lang string) error {
	r, err := s.Protection().ListUsableTemplates(ctx, &rmsv1.ListUsableTemplatesRequest{Parent: s.parent()})
	if err != nil {
		return err
	}
	return a.emit(messages(r.GetTemplates()), func() {
		t := newTable(a.stdout, "TEMPLATE", "CUSTODY", "OFFLINE", "NAME")
		for _, m := range r.GetTemplates() {
			t.row(lastPart(m.GetName()), custodyName(m.GetCustodyMode()), offlineWord(m), inLanguage(m.GetDisplayNames(), lang))
		}
		t.flush()
	})
}

func offlineWord(m interface{ GetOffline() *durationpb.Duration }) string {
	if m.GetOffline() == nil {
		return "max"
	}
	return showDuration(m.GetOffline().AsDuration())
}

func (a *app) templateShowCommand() *cobra.Command {
	var revision uint32
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show a template as its file, with who wrote it and how many licenses follow it",
		Args:  cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			m, err := getTemplate(ctx, s, args[0], revision)
			if err != nil {
				return err
			}
			if a.format == formatJSON {
				return a.emit(m, nil)
			}
			t, err := templateFrom(m)
			if err != nil {
				return err
			}
			a.showHead(m)
			if t.State == policy.StateDeleted {
				return nil // a file cannot say it, and the lines above did
			}
			b, err := templatefile.Format(t)
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(b)
			return err
		}),
	}
	c.Flags().Uint32Var(&revision, "revision", 0, "an earlier revision")
	return a.formatFlag(c)
}

// resealWord says what seals the licenses of a template anew.
func resealWord(m *rmsv1.Template) string {
	if m.GetResealOperation() == "" {
		return "; its next revision has them sealed anew"
	}
	return ", and sealed anew by operation " + lastPart(m.GetResealOperation())
}

// showHead prints what a template's file does not hold, as comments of the file.
func (a *app) showHead(m *rmsv1.Template) {
	s := fmt.Sprintf("%s revision %d", lastPart(m.GetName()), m.GetRevision())
	if m.GetAuthor() != "" {
		s += " by " + m.GetAuthor()
	}
	if m.GetReviseTime() != nil {
		s += " " + showStamp(m.GetReviseTime())
	}
	a.outf("# %s%s", s, reasonSuffix(m.GetComment()))
	if m.GetState() == rmsv1.Template_STATE_DELETED {
		a.outf("# deleted: what it protects opens for owner and issuer only")
	}
	a.outf("# %s in force", licenses(m.GetLicenseCount()))
	if n := m.GetBelowFloor(); n > 0 {
		a.outf("# %s kept less strictly than that%s", plural(int(n), "license is", "licenses are"), resealWord(m))
	}
}

func (a *app) templateDiffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff ID OLD NEW",
		Short: "Show who gains and who loses between two revisions",
		Args:  cobra.ExactArgs(3),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			var sides [2]*policy.Template
			for i, arg := range args[1:] {
				n, err := strconv.ParseUint(arg, 10, 32)
				if err != nil || n == 0 {
					return usagef("%q is not the number of a revision", arg).withNext("See: rmsctl template history %s", args[0])
				}
				m, err := getTemplate(ctx, s, args[0], uint32(n))
				if err != nil {
					return err
				}
				if sides[i], err = templateFrom(m); err != nil {
					return err
				}
			}
			a.printDiff(a.templateDiff(sides[0], sides[1]), "no difference")
			return nil
		}),
	}
}

func (a *app) printDiff(lines []string, none string) {
	for _, l := range lines {
		a.outf("  %s", l)
	}
	if len(lines) == 0 && none != "" {
		a.outf("%s", none)
	}
}

func (a *app) templateHistoryCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "history ID",
		Short: "List the revisions of a template, newest first",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if !vocab.ValidSlug(args[0]) {
				return usagef("%q is not the ID of a template", args[0])
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			list, _, err := collect(limit, func(size int32, token string) ([]*rmsv1.Template, string, error) {
				page, err := s.Policy().ListTemplateRevisions(ctx, &rmsv1.ListTemplateRevisionsRequest{Name: templateName(s, args[0]), PageSize: size, PageToken: token})
				return page.GetRevisions(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			return a.emit(messages(list), func() {
				t := newTable(a.stdout, "REVISION", "WRITTEN", "BY", "STATE", "GRANTS", "COMMENT")
				for _, m := range list {
					t.row(fmt.Sprint(m.GetRevision()), showStamp(m.GetReviseTime()), m.GetAuthor(), enumWord(m.GetState().String()), fmt.Sprint(len(m.GetGrants())), m.GetComment())
				}
				t.flush()
			})
		}),
	}
	c.Flags().IntVar(&limit, "limit", 100, "at most so many; 0: all")
	return a.formatFlag(c)
}

// onTemplate is run for work on the template that the first argument names, as
// it is now.
func (a *app) onTemplate(fn func(ctx context.Context, s *server, now *rmsv1.Template, args []string) error) func(*cobra.Command, []string) error {
	return a.online(func(ctx context.Context, s *server, args []string) error {
		now, err := getTemplate(ctx, s, args[0], 0)
		if err != nil {
			return err
		}
		return fn(ctx, s, now, args)
	})
}

func (a *app) templateRollbackCommand() *cobra.Command {
	var to uint32
	var dryRun bool
	var comment string
	c := &cobra.Command{
		Use:   "rollback ID --to REVISION",
		Short: "Write an earlier revision again, as a new one",
		Args:  cobra.ExactArgs(1),
		RunE: a.onTemplate(func(ctx context.Context, s *server, now *rmsv1.Template, args []string) error {
			then, err := getTemplate(ctx, s, args[0], to)
			if err != nil {
				return err
			}
			if then.GetState() == rmsv1.Template_STATE_DELETED {
				return usagef("revision %d is the deletion of %s", to, args[0]).withNext("See: rmsctl template history %s", args[0])
			}
			wanted, err := templateFrom(then)
			if err != nil {
				return err
			}
			st, err := a.preview(ctx, s, wanted)
			switch {
			case err != nil:
				return err
			case st.unchanged():
				return a.emit(now, func() {
					a.outf("%s  revision %d, unchanged: it says the same as revision %d", args[0], st.revision, to)
				})
			case dryRun:
				return a.applySteps(ctx, s, []step{st}, true)
			}
			then.Etag = now.GetEtag()
			then.Comment = or(comment, fmt.Sprintf("back to revision %d", to))
			return a.revise(ctx, s, now, then)
		}),
	}
	c.Flags().Uint32Var(&to, "to", 0, "the revision to go back to (needed)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change and write nothing")
	c.Flags().StringVar(&comment, "comment", "", "why; kept with the revision")
	_ = c.MarkFlagRequired("to")
	return a.formatFlag(c)
}

// revise writes a new revision and says what it changed.
func (a *app) revise(ctx context.Context, s *server, now, next *rmsv1.Template) error {
	old, err := templateFrom(now)
	if err != nil {
		return err
	}
	written, err := s.Policy().UpdateTemplate(ctx, &rmsv1.UpdateTemplateRequest{Template: next})
	if err != nil {
		return err
	}
	a.rememberBases(s, written)
	new, err := templateFrom(written)
	if err != nil {
		return err
	}
	err = a.emit(written, func() {
		a.outf("%s for %s", inForce(written), licenses(now.GetLicenseCount()))
		a.printDiff(a.templateDiff(old, new), "")
	})
	if err != nil {
		return err
	}
	a.sayReseal(written)
	a.next("undo: rmsctl template rollback %s --to %d", old.Slug, old.Revision)
	return nil
}

func inForce(m *rmsv1.Template) string {
	s := fmt.Sprintf("%s  revision %d", lastPart(m.GetName()), m.GetRevision())
	if since := showSince(m); since != "" {
		s += ", in force since " + since
	}
	return s
}

// showSince is the time of day from which a revision that was just written is
// in force.
func showSince(m *rmsv1.Template) string {
	if m.GetReviseTime() == nil {
		return ""
	}
	return m.GetReviseTime().AsTime().UTC().Format("15:04:05.000Z")
}

func (a *app) templateArchiveCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "archive ID",
		Short: "Stop a template from being chosen; what it protects still opens",
		Args:  cobra.ExactArgs(1),
		RunE: a.onTemplate(func(ctx context.Context, s *server, m *rmsv1.Template, args []string) error {
			if m.GetState() == rmsv1.Template_STATE_ARCHIVED {
				return a.emit(m, func() { a.outf("%s  revision %d, unchanged: it is archived", args[0], m.GetRevision()) })
			}
			next, _ := proto.Clone(m).(*rmsv1.Template)
			next.State, next.Comment = rmsv1.Template_STATE_ARCHIVED, "archived"
			return a.revise(ctx, s, m, next)
		}),
	})
}

func (a *app) templateDeleteCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "delete ID",
		Short: "Delete a template; with --force although documents follow it, which then open for owner and issuer only",
		Args:  cobra.ExactArgs(1),
		RunE: a.onTemplate(func(ctx context.Context, s *server, m *rmsv1.Template, args []string) error {
			if force {
				if err := a.confirm("Delete %s, so that what it protects (%s) opens for owner and issuer only", args[0], licenses(m.GetLicenseCount())); err != nil {
					return err
				}
			}
			gone, err := s.Policy().DeleteTemplate(ctx, &rmsv1.DeleteTemplateRequest{Name: m.GetName(), Etag: m.GetEtag(), Force: force})
			if err != nil {
				return err
			}
			a.rememberBases(s, gone)
			if err := a.emit(gone, func() { a.outf("%s  deleted (revision %d); its ID stays taken", args[0], gone.GetRevision()) }); err != nil {
				return err
			}
			a.next("undo: rmsctl template undelete %s", args[0])
			return nil
		}),
	}
	c.Flags().BoolVar(&force, "force", false, "although documents follow it")
	return a.formatFlag(c)
}

func (a *app) templateUndeleteCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "undelete ID",
		Short: "Restore a deleted template, archived",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if !vocab.ValidSlug(args[0]) {
				return usagef("%q is not the ID of a template", args[0])
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			m, err := s.Policy().UndeleteTemplate(ctx, &rmsv1.UndeleteTemplateRequest{Name: templateName(s, args[0])})
			if err != nil {
				return err
			}
			a.rememberBases(s, m)
			if err := a.emit(m, func() { a.outf("%s (archived)", inForce(m)) }); err != nil {
				return err
			}
			// Two revisions back is what was deleted.
			if before, err := getTemplate(ctx, s, args[0], m.GetRevision()-2); err == nil && before.GetState() == rmsv1.Template_STATE_PUBLISHED {
				a.next("let it be chosen again: rmsctl template rollback %s --to %d", args[0], before.GetRevision())
				return nil
			}
			a.next("undo: rmsctl template delete %s", args[0])
			return nil
		}),
	})
}

func (a *app) templateExportCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "export [ID…]",
		Short: "Write templates as files that apply reads",
		Long: `Write templates as files that apply reads: all that are not deleted, or those
named. The same templates give the same bytes, at any server, and applying what was
exported changes nothing.`,
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			list, err := a.exported(ctx, s, args)
			if err != nil {
				return err
			}
			templates := make([]*policy.Template, len(list))
			for i, m := range list {
				if templates[i], err = templateFrom(m); err != nil {
					return err
				}
			}
			if dir == "" {
				b, err := templatefile.Format(templates...)
				if err == nil {
					_, err = a.stdout.Write(b)
				}
				if err != nil {
					return err
				}
			}
			for _, t := range templates {
				if dir == "" {
					break
				}
				b, err := templatefile.Format(t)
				if err != nil {
					return err
				}
				if err := writeTemplateFile(filepath.Join(dir, t.Slug+".yaml"), b); err != nil {
					return err
				}
			}
			a.rememberBases(s, list...)
			if dir != "" {
				a.next("edit them, then: rmsctl template apply -f %s --dry-run", dir)
			}
			return nil
		}),
	}
	c.Flags().StringVar(&dir, "dir", "", "write one file for each into this folder")
	return c
}

// exported reads the templates to export: those named, otherwise all that are
// not deleted.
func (a *app) exported(ctx context.Context, s *server, ids []string) ([]*rmsv1.Template, error) {
	if len(ids) == 0 {
		list, _, err := collect(0, func(size int32, token string) ([]*rmsv1.Template, string, error) {
			page, err := s.Policy().ListTemplates(ctx, &rmsv1.ListTemplatesRequest{Parent: s.parent(), PageSize: size, PageToken: token})
			return page.GetTemplates(), page.GetNextPageToken(), err
		})
		return list, err
	}
	var list []*rmsv1.Template
	for _, id := range ids {
		m, err := getTemplate(ctx, s, id, 0)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// writeTemplateFile replaces a template's file, which has its history in the
// server, but not one that holds something else.
func writeTemplateFile(path string, b []byte) error {
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err == nil {
		if _, parseErr := templatefile.Parse(old); parseErr != nil {
			return outputExists(path)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // templates are for sharing
		return err
	}
	return os.WriteFile(path, b, 0o644) //nolint:gosec // templates are for sharing
}
