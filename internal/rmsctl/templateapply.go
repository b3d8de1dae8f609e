package rmsctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// step is what apply does with one template.
type step struct {
	wanted *policy.Template
	now    *rmsv1.Template // what is in force, without its grants; nil: to be created
	// revision is what the template is at afterwards.
	revision uint32
	changes  []string
	warnings []string
	// approval says that the user gains access by it, so that another
	// policy-admin must approve it.
	approval bool
}

func (st *step) unchanged() bool { return st.now != nil && st.now.GetRevision() == st.revision }

// stepLine is a step as it is printed.
type stepLine struct {
	Template string   `json:"template"`
	Action   string   `json:"action"` // create, update, unchanged; waits: for approval
	From     uint32   `json:"from_revision,omitempty"`
	Revision uint32   `json:"revision,omitempty"`
	Licenses int64    `json:"licenses"` // how many follow the template
	Since    string   `json:"in_force_since,omitempty"`
	Changes  []string `json:"changes,omitempty"`
	// NeedsApproval says that another policy-admin must approve it, Operation is
	// what waits for that.
	NeedsApproval bool `json:"needs_approval,omitempty"`
	// lowers says that it lowers custody, which is under dual control.
	lowers    bool
	Operation string `json:"operation,omitempty"`
}

func (a *app) templateApplyCommand() *cobra.Command {
	var paths []string
	var dryRun, force bool
	var comment string
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR [--dry-run]",
		Short: "Make templates what files say; what is written is in force for the next decision",
		Long: `Make templates what files say. Templates that no file names stay as they are.

--dry-run says who would gain and who would lose which right, and how many licenses
follow each template: all there are, revoked and expired ones too. Everything is checked before anything is written. If somebody else has changed a
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
	return readFiles(paths, "template", templatefile.Parse, func(t *policy.Template) string { return t.Slug })
}

// plan has the server say what each file would change, and checks that nobody
// else's change would be lost.
func (a *app) plan(ctx context.Context, s *server, wanted []*policy.Template, comment string, force bool) ([]step, error) {
	bases := a.readBases(a.folder.TemplatesPath(s.Name))
	steps := make([]step, len(wanted))
	watch := a.progress("%s of %s templates checked", len(wanted))
	err := several(len(wanted), func(i int) (err error) {
		wanted[i].Comment = comment
		steps[i], err = a.preview(ctx, s, wanted[i])
		watch.step()
		return err
	})
	watch.end()
	if err != nil {
		return nil, err
	}
	for _, st := range steps {
		for _, w := range st.warnings {
			a.warnf("template %s: %s", st.wanted.Slug, w)
		}
		base, known := bases[st.wanted.Slug]
		if force || !known || st.now == nil || st.unchanged() || base == st.now.GetRevision() {
			continue
		}
		return nil, vocab.Errorf(vocab.ReasonEtagMismatch, "conflict: revision %d of %s was written by %s %s, your file is based on %d; nothing written",
			st.now.GetRevision(), st.wanted.Slug, or(st.now.GetAuthor(), "somebody"), showStamp(st.now.GetReviseTime()), base).
			WithNext("See: rmsctl template diff %s %d %d", st.wanted.Slug, base, st.now.GetRevision())
	}
	return steps, nil
}

// preview asks what writing a template would change.
func (a *app) preview(ctx context.Context, s *server, wanted *policy.Template) (step, error) {
	st := step{wanted: wanted}
	var answer *rmsv1.PreviewTemplateResponse
	err := patiently(ctx, func() (err error) {
		answer, err = s.Policy().PreviewTemplate(ctx, &rmsv1.PreviewTemplateRequest{Template: templateProto(templateName(s, wanted.Slug), wanted)})
		return err
	})
	if err != nil {
		return st, inTemplate(wanted.Slug, err)
	}
	st.now, st.revision, st.warnings, st.approval = answer.GetCurrent(), answer.GetRevision(), answer.GetWarnings(), answer.GetNeedsApproval()
	old := &policy.Template{Slug: wanted.Slug}
	if st.now != nil {
		if old, err = templateFrom(st.now); err != nil {
			return st, err
		}
	}
	var changes []policy.Change
	for _, c := range answer.GetChanges() {
		change, err := changeFrom(c)
		if err != nil {
			return st, err
		}
		changes = append(changes, change)
	}
	fields := answer.GetFields()
	if st.now == nil {
		fields = nil // of a new template every one of them is new
	}
	st.changes = a.changeLines(changes, fields, old, wanted)
	if n := int(answer.GetChangeCount()) - len(changes); n > 0 {
		st.changes = append(st.changes, fmt.Sprintf("~ and %s more principals", group(int64(n))))
	}
	return st, nil
}

// several does n pieces of work, a few at a time. After an error none is begun;
// the error returned is that of the first piece that has one.
func several(n int, do func(i int) error) error {
	const atOnce = 8
	errs := make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	var all sync.WaitGroup
	for range min(n, atOnce) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && !failed.Load(); i = int(next.Add(1)) - 1 {
				if errs[i] = do(i); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// patiently makes a call again while the server says that it gets too many.
func patiently(ctx context.Context, call func() error) error {
	for {
		err := call()
		if e := explain(err); e == nil || e.Reason != vocab.ReasonRateLimited {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Second):
		}
	}
}

func (st *step) update() *rmsv1.Template {
	m := templateProto(st.now.GetName(), st.wanted)
	m.Etag = st.now.GetEtag()
	return m
}

// inTemplate says in which template the server found something, and what to do
// about it here.
func inTemplate(id string, err error) error {
	e := explain(err)
	if e == nil {
		return err
	}
	if !strings.Contains(e.Message, strconv.Quote(id)) {
		e.Message = "template " + id + ": " + e.Message
	}
	switch e.Reason {
	case vocab.ReasonTemplateDeleted:
		e.Next = "Restore it first: rmsctl template undelete " + id
	case vocab.ReasonEtagMismatch: // somebody was faster, between look and write
		e.Next = "See: rmsctl template history " + id
	}
	return e
}

// applySteps writes, or says what it would write.
func (a *app) applySteps(ctx context.Context, s *server, steps []step, dryRun bool) error {
	var lines []stepLine
	var undo []string
	var written []*rmsv1.Template
	var failed, waits error
	watch := a.progress("%s of %s templates written", len(steps))
	for _, st := range steps {
		line := stepLine{Template: st.wanted.Slug, Action: "update", Revision: st.revision, Changes: st.changes,
			From: st.now.GetRevision(), Licenses: st.now.GetLicenseCount(), NeedsApproval: st.approval}
		line.lowers = st.now.GetCustodyMode() == rmsv1.CustodyMode_CUSTODY_MODE_STRICT && st.wanted.Custody != vocab.CustodyStrict
		switch {
		case st.now == nil:
			line.Action = "create"
		case st.unchanged():
			line.Action = "unchanged"
		}
		if !dryRun && line.Action != "unchanged" {
			m, err := a.write(ctx, s, &st)
			e := explain(err)
			if e != nil && e.Reason == vocab.ReasonApprovalRequired {
				// It waits; the others need not.
				line.Action, line.Operation, line.NeedsApproval = "waits", e.Operation.String(), true
				waits = inTemplate(st.wanted.Slug, err)
				watch.step()
				lines = append(lines, line)
				continue
			}
			if err != nil {
				failed = inTemplate(st.wanted.Slug, err)
				break
			}
			written = append(written, m)
			line.Revision, line.Since = m.GetRevision(), showSince(m)
			a.sayReseal(m)
			if st.now != nil {
				undo = append(undo, fmt.Sprintf("rmsctl template rollback %s --to %d", st.wanted.Slug, line.From))
			} else {
				undo = append(undo, "rmsctl template delete "+st.wanted.Slug)
			}
		}
		watch.step()
		lines = append(lines, line)
	}
	watch.end()
	a.rememberBases(s, written...)
	err := a.emit(lines, func() {
		for _, l := range lines {
			a.outf("%s", l.String())
			if dryRun || l.Action == "update" || l.Action == "waits" {
				a.printDiff(l.Changes, "")
			}
			switch {
			case l.lowers:
				a.outf("  needs approval under dual control: documents may open for longer after the custodian refused")
			case l.NeedsApproval:
				a.outf("  needs approval by another policy-admin: you gain access to documents by it")
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
	case len(undo) > 10:
		a.next("undo: rmsctl template rollback ID --to REVISION for each that was changed, rmsctl template delete ID for each new one")
	case len(undo) > 0:
		a.next("undo: %s", strings.Join(undo, "; "))
	}
	if failed == nil {
		failed = waits
	}
	return failed
}

// sayReseal says that a revision has licenses sealed anew.
func (a *app) sayReseal(m *rmsv1.Template) {
	if op := lastPart(m.GetResealOperation()); op != "" {
		a.sayf("%s of %s %s kept less strictly than it demands now; sealed anew by operation %s",
			plural(int(m.GetBelowFloor()), "license", "licenses"), lastPart(m.GetName()), isAre(m.GetBelowFloor()), op)
	}
}

func isAre(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func (l stepLine) String() string {
	switch {
	case l.Action == "create":
		return l.Template + "  new, revision 1"
	case l.Action == "unchanged":
		return fmt.Sprintf("%s  revision %d, unchanged", l.Template, l.Revision)
	case l.Since != "":
		return fmt.Sprintf("%s  revision %d → %d, in force since %s for %s", l.Template, l.From, l.Revision, l.Since, licenses(l.Licenses))
	case l.Action == "waits":
		return fmt.Sprintf("%s  revision %d, waits as operation %s", l.Template, l.Revision, l.Operation)
	}
	return fmt.Sprintf("%s  revision %d → %d, %s in force", l.Template, l.From, l.Revision, licenses(l.Licenses))
}

// licenses is "1,204 licenses".
func licenses(n int64) string { return plural(int(n), "license", "licenses") }

func (a *app) write(ctx context.Context, s *server, st *step) (m *rmsv1.Template, err error) {
	err = patiently(ctx, func() (err error) {
		if st.now == nil {
			m, err = s.Policy().CreateTemplate(ctx, &rmsv1.CreateTemplateRequest{
				Parent: s.parent(), TemplateId: st.wanted.Slug, Template: templateProto("", st.wanted),
			})
		} else {
			m, err = s.Policy().UpdateTemplate(ctx, &rmsv1.UpdateTemplateRequest{Template: st.update()})
		}
		return err
	})
	return m, err
}

// rememberBases remembers what the user wrote or exported.
func (a *app) rememberBases(s *server, list ...*rmsv1.Template) {
	revisions := map[string]uint32{}
	for _, m := range list {
		revisions[lastPart(m.GetName())] = m.GetRevision()
	}
	a.remember(a.folder.TemplatesPath(s.Name), revisions)
}
