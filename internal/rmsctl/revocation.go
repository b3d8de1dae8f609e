package rmsctl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// ruleFlags are the conditions of a revocation of more than one license.
type ruleFlags struct {
	principal, owner, template, from, until, lineage string
}

func (f *ruleFlags) any() bool { return *f != ruleFlags{} }

func (a *app) licenseRevokeCommand() *cobra.Command {
	var rule ruleFlags
	var reason string
	var dryRun bool
	c := &cobra.Command{
		Use:   "revoke FILE|ID | CONDITIONS --reason WHY",
		Short: "Stop every further open of a document, or of all documents that meet conditions",
		Long: `Stop every further open of a document, or of all documents that meet every
condition given: whose they are, the template they follow, when they were
published, what they were made from. With --principal they stay open for
everybody else.

Conditions hold from the next open on, also for what is published later, until
the revocation is taken back. Use licenses that were given out already end when
they end; the answer says whose there are, and until when.`,
		Example: `  rmsctl license revoke q3.pdf.rms --reason "wrong version"
  rmsctl license revoke --owner bob@contoso.com --from 7d --reason "account was taken over"
  rmsctl license revoke --principal mallory@contoso.com --reason "left the project"
  rmsctl license revoke --lineage q3.pdf.rms --reason "leaked" --dry-run`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			switch {
			case len(args) == 1 && rule.any():
				return usagef("a document and conditions are two different things to revoke").
					withNext("To revoke a document with all that was made from it: --lineage %s", args[0])
			case len(args) == 1 && dryRun:
				return usagef("--dry-run goes with conditions, not with a document")
			case len(args) == 1:
				return a.revokeOne(ctx, args[0], reason)
			case !rule.any():
				return usagef("revoke needs a document or a condition").withNext("See: rmsctl license revoke --help")
			case reason == "":
				return usagef("revoking by conditions needs a --reason")
			}
			return a.revokeMany(ctx, &rule, reason, dryRun)
		}),
	}
	flags := c.Flags()
	flags.StringVar(&reason, "reason", "", "why; kept in the record (needed with conditions)")
	flags.StringVar(&rule.owner, "owner", "", "all that this person or service owns")
	flags.StringVar(&rule.template, "template", "", "all that follow this template")
	flags.StringVar(&rule.principal, "principal", "", "for this user, service, group or domain alone")
	flags.StringVar(&rule.from, "from", "", "all published since: 7d (ago) or an RFC 3339 time")
	flags.StringVar(&rule.until, "until", "", "all published before: 7d (ago) or an RFC 3339 time")
	flags.StringVar(&rule.lineage, "lineage", "", "this document and all made from it: its file or its license's ID")
	flags.BoolVar(&dryRun, "dry-run", false, "show what conditions cover and revoke nothing")
	return a.formatFlag(c)
}

// revokeOne revokes a document.
func (a *app) revokeOne(ctx context.Context, arg, reason string) error {
	s, name, err := a.licenseOf(ctx, arg)
	if err != nil {
		return err
	}
	r, err := s.Licenses().RevokeLicense(ctx, &rmsv1.RevokeLicenseRequest{Name: name, Reason: reason})
	if err != nil {
		return err
	}
	if err := a.emit(r, func() { a.outf("revoked. %s", stillOpen(r.GetCachedUses(), r.GetCachedUseCount(), false)) }); err != nil {
		return err
	}
	a.next("undo: rmsctl license restore %s", r.GetLicense().GetContentId())
	return nil
}

// revokeMany revokes all that meets conditions. It says first how many that
// are, and asks.
func (a *app) revokeMany(ctx context.Context, rule *ruleFlags, reason string, dryRun bool) error {
	s, req, err := a.ruleRequest(ctx, rule)
	if err != nil {
		return err
	}
	req.Reason = reason
	if dryRun || !a.yes {
		req.ValidateOnly = true
		would, err := s.Licenses().RevokeLicenses(ctx, req)
		if err != nil {
			return err
		}
		if dryRun {
			if err := a.emit(would, func() { a.outf("would revoke %s\n%s", covered(would, a.now()), stillOpenAll(would)) }); err != nil {
				return err
			}
			a.sayf("nothing revoked")
			a.next("the same without --dry-run")
			return nil
		}
		if err := a.confirm("Revoke %s", countedFor(would)); err != nil {
			return err
		}
		req.ValidateOnly = false
	}
	r, err := s.Licenses().RevokeLicenses(ctx, req)
	if err != nil {
		return err
	}
	if err := a.emit(r, func() { a.outf("revoked %s\n%s", covered(r, a.now()), stillOpenAll(r)) }); err != nil {
		return err
	}
	a.next("undo: rmsctl license restore revocations/%s", lastPart(r.GetRevocation().GetName()))
	return nil
}

// ruleRequest connects, to the server of the document if one is named, and
// makes the request of the conditions.
func (a *app) ruleRequest(ctx context.Context, f *ruleFlags) (*server, *rmsv1.RevokeLicensesRequest, error) {
	req := &rmsv1.RevokeLicensesRequest{}
	for _, p := range []struct {
		text string
		into *string
	}{{f.principal, &req.Principal}, {f.owner, &req.Owner}} {
		if p.text == "" {
			continue
		}
		who, err := parsePrincipal(p.text)
		if err != nil {
			return nil, nil, err
		}
		*p.into = who.String()
	}
	for _, p := range []struct {
		text string
		into **timestamppb.Timestamp
	}{{f.from, &req.FromTime}, {f.until, &req.UntilTime}} {
		if p.text == "" {
			continue
		}
		at, err := parseSince(p.text, a.now())
		if err != nil {
			return nil, nil, err
		}
		*p.into = timestamppb.New(at.Truncate(time.Millisecond))
	}
	if f.template != "" && !vocab.ValidSlug(f.template) {
		return nil, nil, usagef("%q is not the ID of a template", f.template).withNext("See: rmsctl template list")
	}
	var s *server
	var err error
	if f.lineage != "" {
		s, req.Lineage, err = a.licenseOf(ctx, f.lineage)
	} else {
		s, err = a.connect(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	req.Parent = s.parent()
	if f.template != "" {
		req.Template = templateName(s, f.template)
	}
	return s, req, nil
}

// counted is how many licenses a revocation covers, as far as is known.
func counted(r *rmsv1.RevokeLicensesResponse) string {
	n := plural(int(r.GetLicenseCount()), "license", "licenses")
	if r.GetMoreLicenses() {
		return "at least " + n
	}
	return n
}

// countedFor is counted, with for whom and the conditions.
func countedFor(r *rmsv1.RevokeLicensesResponse) string {
	out := counted(r)
	if p := r.GetRevocation().GetPrincipal(); p != "" {
		out += " for " + shortPrincipal(p)
	}
	if words := ruleWords(r.GetRevocation(), false); words != "" {
		out += ": " + words
	}
	return out
}

// covered is countedFor as a sentence, which goes on if the rule does.
func covered(r *rmsv1.RevokeLicensesResponse, now time.Time) string {
	if until := r.GetRevocation().GetUntilTime(); until == nil || until.AsTime().After(now) {
		return countedFor(r) + ", and what is published later."
	}
	return countedFor(r) + "."
}

// ruleWords are the conditions of a revocation.
func ruleWords(r *rmsv1.RevocationRule, withPrincipal bool) string {
	var words []string
	if withPrincipal && r.GetPrincipal() != "" {
		words = append(words, "for "+shortPrincipal(r.GetPrincipal()))
	}
	if r.GetOwner() != "" {
		words = append(words, "owner "+shortPrincipal(r.GetOwner()))
	}
	if r.GetTemplate() != "" {
		words = append(words, "template "+lastPart(r.GetTemplate()))
	}
	if r.GetFromTime() != nil {
		words = append(words, "published from "+showStamp(r.GetFromTime()))
	}
	if r.GetUntilTime() != nil {
		words = append(words, "published before "+showStamp(r.GetUntilTime()))
	}
	if r.GetLineage() != "" {
		words = append(words, "made from "+lastPart(r.GetLineage()))
	}
	return strings.Join(words, ", ")
}

// stillOpen says what the revocation of a document cannot reach.
func stillOpen(uses []*rmsv1.CachedUse, n int32, more bool) string {
	if n == 0 || len(uses) == 0 {
		return "Nobody holds a use license that could still open it."
	}
	var who []string
	for _, u := range uses {
		if name := shortPrincipal(u.GetPrincipal()); !slices.Contains(who, name) && len(who) < 5 {
			who = append(who, name)
		}
	}
	if int(n) > len(who) || more {
		who = append(who, "…")
	}
	return fmt.Sprintf("%s may still open until %s (%s).", plural(int(n), "cached use license", "cached use licenses"),
		showStamp(uses[0].GetExpireTime()), strings.Join(who, ", "))
}

// stillOpenAll is stillOpen for a revocation of more than one.
func stillOpenAll(r *rmsv1.RevokeLicensesResponse) string {
	n, more := r.GetCachedUseCount(), r.GetMoreCachedUses()
	switch {
	case n == 0 && more:
		return "No use license is known that could still open one, but there may be some."
	case n == 0:
		return "Nobody holds a use license that could still open one."
	case more:
		return "At least " + stillOpen(r.GetCachedUses(), n, more)
	}
	return stillOpen(r.GetCachedUses(), n, more)
}

func (a *app) licenseRevocationsCommand() *cobra.Command {
	var owner string
	var limit int
	c := &cobra.Command{
		Use:   "revocations",
		Short: "List what was revoked by conditions and is in force, newest first",
		Long: `List what was revoked by conditions and is in force, newest first: all of it if
you administer policy or audit, otherwise what you revoked of your own. Documents
that were revoked one by one are not among it: see rmsctl license list.`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			req := &rmsv1.ListRevocationsRequest{Parent: s.parent()}
			if owner != "" {
				p, err := parsePrincipal(owner)
				if err != nil {
					return err
				}
				req.Owner = p.String()
			}
			list, more, err := collect(limit, func(size int32, token string) ([]*rmsv1.RevocationRule, string, error) {
				req.PageSize, req.PageToken = size, token
				page, err := s.Licenses().ListRevocations(ctx, req)
				return page.GetRevocations(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			err = a.emit(messages(list), func() {
				t := newTable(a.stdout, "REVOCATION", "SINCE", "BY", "WHAT", "REASON")
				for _, r := range list {
					t.row("revocations/"+lastPart(r.GetName()), showStamp(r.GetCreateTime()), r.GetCreatedBy(), ruleWords(r, true), r.GetReason())
				}
				t.flush()
			})
			if err == nil && more {
				a.sayf("there are more; --limit 0 lists all")
			}
			return err
		}),
	}
	c.Flags().StringVar(&owner, "owner", "", "only those with this owner as a condition")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many; 0: all")
	return a.formatFlag(c)
}

func (a *app) licenseRestoreCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "restore FILE|ID|revocations/ID",
		Short: "Take a revocation back: of a document, or by conditions",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			if id, ok := strings.CutPrefix(args[0], "revocations/"); ok && !isFile(args[0]) {
				event, err := vocab.ParseEventID(id)
				if err != nil {
					return usagef("%v", err).withNext("See: rmsctl license revocations")
				}
				s, err := a.connect(ctx)
				if err != nil {
					return err
				}
				return a.restoreMany(ctx, s, event)
			}
			s, name, err := a.licenseOf(ctx, args[0])
			if err != nil {
				return err
			}
			l, err := s.Licenses().RestoreLicense(ctx, &rmsv1.RestoreLicenseRequest{Name: name})
			if err == nil {
				return a.restored(l)
			}
			// An ID alone may be a revocation's: they look alike.
			event, notID := vocab.ParseEventID(args[0])
			if e := explain(err); notID == nil && e != nil && e.Reason == vocab.ReasonNoRights && a.restoreMany(ctx, s, event) == nil {
				return nil
			}
			return err
		}),
	})
}

// restored says how a document is after its revocation was taken back.
func (a *app) restored(l *rmsv1.License) error {
	with := l.GetRevocations()
	if err := a.emit(l, func() {
		if len(with) > 0 {
			a.outf("restored, but license %s is still revoked with others", l.GetContentId())
			return
		}
		a.outf("restored: license %s opens again for whom its policy allows", l.GetContentId())
	}); err != nil {
		return err
	}
	if len(with) > 0 {
		a.next("see what else is revoked with it: rmsctl license revocations; take it back: rmsctl license restore revocations/%s", lastPart(with[0]))
		return nil
	}
	a.next("undo: rmsctl license revoke %s", l.GetContentId())
	return nil
}

// restoreMany takes a revocation by conditions back.
func (a *app) restoreMany(ctx context.Context, s *server, id vocab.EventID) error {
	r, err := s.Licenses().RestoreLicenses(ctx, &rmsv1.RestoreLicensesRequest{Name: s.parent() + "/revocations/" + id.String()})
	if err != nil {
		return err
	}
	if err := a.emit(r, func() {
		a.outf("restored: what was revoked (%s) opens again for whom its policy allows, unless it is revoked otherwise", ruleWords(r, true))
	}); err != nil {
		return err
	}
	a.next("undo: rmsctl license revoke%s", undoFlags(r))
	return nil
}

// undoFlags are the flags that make a revocation again.
func undoFlags(r *rmsv1.RevocationRule) string {
	var out strings.Builder
	for _, f := range []struct{ flag, value string }{
		{"principal", shortPrincipal(r.GetPrincipal())}, {"owner", shortPrincipal(r.GetOwner())}, {"template", lastPart(r.GetTemplate())},
		{"from", exactStamp(r.GetFromTime())}, {"until", exactStamp(r.GetUntilTime())}, {"lineage", lastPart(r.GetLineage())},
	} {
		if f.value != "" {
			out.WriteString(" --" + f.flag + " " + f.value)
		}
	}
	return out.String() + " --reason WHY"
}

func exactStamp(ts *timestamppb.Timestamp) string {
	if ts == nil {
		return ""
	}
	return ts.AsTime().UTC().Format(time.RFC3339Nano)
}
