package rmsctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// whatIf is what explain asks about somebody who did not ask.
type whatIf struct {
	user, template, right, at, from string
	groups                          []string
	mfa, withoutDirectory           bool
}

func (a *app) explainCommand() *cobra.Command {
	var w whatIf
	var all bool
	var limit int
	c := &cobra.Command{
		Use:   "explain EVENT | --user WHO [FILE|ID | --template ID]",
		Short: "Say why somebody was let in or refused, or would be; and what somebody can open",
		Long: `Say how a decision came about: which checks passed, which grants matched and why
the others did not, how long the answer holds, and what would change it.

With an event, the decision is made again from what decided then, however much has
changed since. With --user it is about somebody who did not ask: on a document, on
what a template protects, or, with neither, on everything they can open. It needs
the role policy-admin or auditor.`,
		Example: `  rmsctl explain 019a8c20-77f1-7a31-8c1e-0123456789ab
  rmsctl explain --user bob@contoso.com q3.pdf.rms --right PRINT --at +30d
  rmsctl explain --user bob@contoso.com --template board-secret --group board@contoso.com --mfa
  rmsctl explain --user bob@contoso.com`,
		Args: cobra.MaximumNArgs(1),
	}
	flags := c.Flags()
	flags.BoolVar(&all, "all", false, "list every grant, not only those that name the caller and the nearest")
	flags.StringVar(&w.user, "user", "", "about this person (an address) or service (service:NAME) instead of an event")
	flags.StringVar(&w.template, "template", "", "on a document that somebody else protects with this template")
	flags.StringVar(&w.right, "right", "VIEW", "to exercise this right")
	flags.StringVar(&w.at, "at", "", "at this time: +30d or an RFC 3339 time")
	flags.StringArrayVar(&w.groups, "group", nil, "as a member of this group at the identity provider (may be repeated)")
	flags.BoolVar(&w.mfa, "mfa", false, "signed in with a second factor")
	flags.StringVar(&w.from, "from", "", "from this network address")
	flags.BoolVar(&w.withoutDirectory, "without-directory", false, "without the groups of the tenant's own directory")
	flags.IntVar(&limit, "limit", 100, "of what somebody can open, at most so many; 0: all")
	c.RunE = a.run(func(ctx context.Context, args []string) error {
		switch {
		case w.user == "":
			for _, f := range []string{"template", "right", "at", "group", "mfa", "from", "without-directory", "limit"} {
				if flags.Changed(f) {
					return usagef("--%s goes with --user", f)
				}
			}
			if len(args) == 0 {
				return usagef("explain needs an event, or --user").withNext("See: rmsctl explain --help")
			}
			return a.explainEvent(ctx, args[0], all)
		case len(args) > 0 && w.template != "":
			return usagef("name a document or --template, not both")
		case len(args) > 0 || w.template != "":
			return a.explainAccess(ctx, &w, args, all)
		case flags.Changed("right"):
			return usagef("--right goes with a document or --template").withNext("Without, everything that can be opened is listed")
		}
		return a.listAccess(ctx, &w, limit)
	})
	return a.formatFlag(c)
}

func (a *app) explainEvent(ctx context.Context, arg string, all bool) error {
	id, err := vocab.ParseEventID(lastPart(arg))
	if err != nil {
		return usagef("%q is not the ID of an event", arg).withNext("It is in the refusal, and in: rmsctl license track FILE")
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	var out *rmsv1.ExplainEventResponse
	grants, err := collectGrants(all, func(size int32, token string) ([]*rmsv1.Explanation_ListedGrant, string, error) {
		page, err := s.Policy().ExplainEvent(ctx, &rmsv1.ExplainEventRequest{
			Name: s.parent() + "/events/" + id.String(), All: all, PageSize: size, PageToken: token,
		})
		if out == nil {
			out = page
		}
		return page.GetGrants(), page.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	out.Grants, out.NextPageToken = grants, ""
	x := out.GetExplanation()
	if err := a.emit(out, func() { a.showEventExplained(out, all) }); err != nil {
		return err
	}
	if x.GetContradiction() != "" {
		return &exitError{code: exitDamaged, err: fmt.Errorf("event %s does not tell what happened, or the store was changed: %s", id, x.GetContradiction()), //nolint:err113 // a sentence for people
			next: "Stop the daemon, keep a copy of its data, and run rmsd fsck; the alarm is event " + lastPart(x.GetAlarm())}
	}
	return nil
}

// collectGrants reads the listing of grants: all pages of all, or the one page
// of those that matter.
func collectGrants(all bool, page func(size int32, token string) ([]*rmsv1.Explanation_ListedGrant, string, error)) ([]*rmsv1.Explanation_ListedGrant, error) {
	if !all {
		list, _, err := page(0, "")
		return list, err
	}
	list, _, err := collect(0, page)
	return list, err
}

// caller is who the question is about.
func (w *whatIf) caller() (*rmsv1.SupposedCaller, error) {
	who, err := parsePrincipal(w.user)
	if err != nil {
		return nil, err
	}
	if who.Kind != vocab.KindUser && who.Kind != vocab.KindService {
		return nil, usagef("%s cannot open anything: name a person or a service", who).withNext("For a group: --user SOMEBODY --group %s", who.Value)
	}
	c := &rmsv1.SupposedCaller{Principal: who.String(), Mfa: w.mfa, WithoutDirectory: w.withoutDirectory, Peer: w.from}
	if w.from != "" && !policy.ValidPeer(w.from) {
		return nil, usagef("%q is not a network address", w.from).withNext("Write one like 10.20.0.7")
	}
	for _, g := range splitList(w.groups) {
		address, err := vocab.CanonicalAddress(strings.TrimPrefix(g, "group:"))
		if err != nil {
			return nil, usagef("--group: %v", err)
		}
		c.Groups = append(c.Groups, address)
	}
	return c, nil
}

// time is the instant the question is about; nil is now.
func (w *whatIf) time(a *app) (*timestamppb.Timestamp, error) {
	if w.at == "" {
		return nil, nil
	}
	at, err := parseInstant(w.at, a.now())
	if err != nil {
		return nil, err
	}
	return timestamppb.New(at), nil
}

func (a *app) explainAccess(ctx context.Context, w *whatIf, args []string, all bool) error {
	caller, err := w.caller()
	if err != nil {
		return err
	}
	right, err := vocab.ParseRight(w.right)
	if err != nil {
		return usagef("--right: %v", err)
	}
	at, err := w.time(a)
	if err != nil {
		return err
	}
	req := &rmsv1.EvaluateAccessRequest{Caller: caller, Right: rmsv1.Right(right) + 1, Time: at, All: all}
	var s *server
	if len(args) > 0 {
		var name string
		if s, name, err = a.licenseOf(ctx, args[0]); err != nil {
			return err
		}
		req.Document = &rmsv1.EvaluateAccessRequest_License{License: name}
	} else {
		if !vocab.ValidSlug(w.template) {
			return usagef("%q is not the ID of a template", w.template).withNext("See: rmsctl template list")
		}
		if s, err = a.connect(ctx); err != nil {
			return err
		}
		req.Document = &rmsv1.EvaluateAccessRequest_Template{Template: templateName(s, w.template)}
	}
	out, err := evaluateAccess(ctx, s, req)
	if err != nil {
		return err
	}
	return a.emit(out, func() { a.showSupposed(out, all) })
}

// evaluateAccess asks a what-if, with all pages of its grants.
func evaluateAccess(ctx context.Context, s *server, req *rmsv1.EvaluateAccessRequest) (*rmsv1.EvaluateAccessResponse, error) {
	req.Parent = s.parent()
	var out *rmsv1.EvaluateAccessResponse
	grants, err := collectGrants(req.GetAll(), func(size int32, token string) ([]*rmsv1.Explanation_ListedGrant, string, error) {
		req.PageSize, req.PageToken = size, token
		page, err := s.Policy().EvaluateAccess(ctx, req)
		if out == nil {
			out = page
		}
		return page.GetGrants(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, err
	}
	out.Grants, out.NextPageToken = grants, ""
	return out, nil
}

func (a *app) listAccess(ctx context.Context, w *whatIf, limit int) error {
	caller, err := w.caller()
	if err != nil {
		return err
	}
	at, err := w.time(a)
	if err != nil {
		return err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	var assumed []rmsv1.Explanation_Supposition
	list, more, err := collect(limit, func(size int32, token string) ([]*rmsv1.AccessEntry, string, error) {
		page, err := s.Policy().ListAccess(ctx, &rmsv1.ListAccessRequest{Parent: s.parent(), Caller: caller, Time: at, PageSize: size, PageToken: token})
		assumed = page.GetSuppositions()
		return page.GetAccess(), page.GetNextPageToken(), err
	})
	if err != nil {
		return err
	}
	err = a.emit(&rmsv1.ListAccessResponse{Access: list, Suppositions: assumed}, func() {
		if len(list) == 0 {
			a.outf("%s can open nothing", shortPrincipal(caller.GetPrincipal()))
		} else {
			t := newTable(a.stdout, "WHAT", "RIGHTS", "UNTIL", "LICENSES", "OWNER", "TITLE")
			for _, e := range list {
				t.row(accessCells(e)...)
			}
			t.flush()
		}
		a.showSuppositions(assumed)
	})
	if err == nil && more {
		a.sayf("there is more; --limit 0 lists all")
	}
	return err
}

// accessCells is a row of what somebody can open.
func accessCells(e *rmsv1.AccessEntry) []string {
	rights := showRights(e.GetRights())
	if e.GetReason() != "" {
		rights = e.GetReason()
	}
	if e.GetTemplate() != "" {
		return []string{"template " + lastPart(e.GetTemplate()), rights, showStamp(e.GetExpireTime()), group(e.GetFollowerCount()), "", ""}
	}
	l := e.GetLicense()
	return []string{"license " + l.GetContentId(), rights, showStamp(e.GetExpireTime()), "1", shortPrincipal(l.GetOwner()), l.GetTitle()}
}
