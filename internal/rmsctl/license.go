package rmsctl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) licenseCommand() *cobra.Command {
	return noun("license", "The server's record of a document: who may open it, who did, revoke it",
		a.licenseListCommand(), a.licenseShowCommand(), a.licenseShareCommand(), a.licenseUnshareCommand(),
		a.licenseTrackCommand(), a.licenseRevokeCommand(), a.licenseRestoreCommand(), a.licenseTransferCommand())
}

// licenseOf connects to the server of a document, named by its file or by the
// license's ID, and returns the license's resource name.
func (a *app) licenseOf(ctx context.Context, arg string) (*server, string, error) {
	id, err := vocab.ParseContentID(arg)
	if err == nil {
		s, err := a.connect(ctx)
		if err != nil {
			return nil, "", err
		}
		return s, s.parent() + "/licenses/" + id.String(), nil
	}
	if !isFile(arg) {
		return nil, "", vocab.Errorf(vocab.ReasonResourceNotFound, "%s is neither a file nor the ID of a license", arg).
			WithNext("See: rmsctl license list")
	}
	tenant, id, err := identify(arg)
	if err != nil {
		return nil, "", err
	}
	c, err := a.chooseFor(tenant)
	if err != nil {
		return nil, "", err
	}
	s, err := a.dial(ctx, c)
	if err != nil {
		return nil, "", err
	}
	return s, s.parent() + "/licenses/" + id.String(), nil
}

func (a *app) licenseListCommand() *cobra.Command {
	var owner, template, title string
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List licenses, newest first",
		Long:  "List licenses, newest first: your own, or everybody's if you administer policy or audit.",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			req := &rmsv1.ListLicensesRequest{Parent: s.parent(), Title: title}
			if owner != "" {
				p, err := parsePrincipal(owner)
				if err != nil {
					return err
				}
				req.Owner = p.String()
			}
			if template != "" {
				req.Template = templateName(s, template)
			}
			list, more, err := collect(limit, func(size int32, token string) ([]*rmsv1.License, string, error) {
				req.PageSize, req.PageToken = size, token
				page, err := s.Licenses().ListLicenses(ctx, req)
				return page.GetLicenses(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			err = a.emit(messages(list), func() {
				t := newTable(a.stdout, "LICENSE", "PROTECTED", "OWNER", "POLICY", "STATE", "TITLE")
				for _, l := range list {
					t.row(l.GetContentId(), showStamp(l.GetCreateTime()), shortPrincipal(l.GetOwner()), policyName(l), licenseState(l, a.now()), l.GetTitle())
				}
				t.flush()
			})
			if err == nil && more {
				a.sayf("there are more; --limit 0 lists all")
			}
			return err
		}),
	}
	c.Flags().StringVar(&owner, "owner", "", "only those of this owner")
	c.Flags().StringVar(&template, "template", "", "only those that follow this template")
	c.Flags().StringVar(&title, "title", "", "only those whose title contains this")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many; 0: all")
	return a.formatFlag(c)
}

// collect reads pages until there are limit items, or all if limit is 0. more
// says that there would be others.
func collect[T any](limit int, page func(size int32, token string) ([]T, string, error)) (list []T, more bool, err error) {
	const largest = 1000
	if limit < 0 {
		return nil, false, usagef("--limit must not be negative")
	}
	token := ""
	for {
		size := largest
		if limit > 0 {
			size = min(limit-len(list), largest)
		}
		items, next, err := page(int32(size), token)
		if err != nil {
			return nil, false, err
		}
		list = append(list, items...)
		if next == "" {
			return list, false, nil
		}
		if limit > 0 && len(list) >= limit {
			return list, true, nil
		}
		if next == token {
			return nil, false, vocab.Errorf(vocab.ReasonInternal, "the server repeats a page")
		}
		token = next
	}
}

func (a *app) licenseShowCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "show FILE|ID",
		Short: "Show a license",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			s, name, err := a.licenseOf(ctx, args[0])
			if err != nil {
				return err
			}
			l, err := s.Licenses().GetLicense(ctx, &rmsv1.GetLicenseRequest{Name: name})
			if err != nil {
				return err
			}
			return a.emit(l, func() { a.showLicense(l) })
		}),
	})
}

func (a *app) showLicense(l *rmsv1.License) {
	t := newTable(a.stdout)
	t.row("license", l.GetContentId())
	if l.GetTitle() != "" {
		t.row("title", l.GetTitle())
	}
	t.row("state", licenseState(l, a.now()))
	if r := l.GetRevocation(); r != nil {
		t.row("revoked", showStamp(r.GetRevokeTime())+" by "+r.GetRevokedBy()+reasonSuffix(r.GetReason()))
	}
	t.row("owner", l.GetOwner())
	t.row("protected by", l.GetIssuer().GetAddress()+" "+showStamp(l.GetCreateTime()))
	if l.GetTemplate() != "" {
		t.row("template", lastPart(l.GetTemplate()))
	}
	if l.GetExpireTime() != nil {
		t.row("expires", showStamp(l.GetExpireTime()))
	}
	for _, p := range l.GetParents() {
		t.row("made from", lastPart(p))
	}
	t.row("key", "generation "+l.GetGeneration()+", "+custodyName(l.GetCustodyMode()))
	t.row("revision", fmt.Sprint(l.GetRevision()))
	if l.GetContact() != "" {
		t.row("contact", l.GetContact())
	}
	t.flush()
	if adHoc := l.GetAdHoc(); adHoc != nil {
		a.outf("")
		t := newTable(a.stdout, "TO", "RIGHTS", "UNTIL", "CONDITIONS")
		for _, g := range adHoc.GetGrants() {
			t.row(g.GetTo(), policy.Describe(rightsOf(g.GetRights())), showStamp(g.GetUntil()), conditions(g))
		}
		t.flush()
	}
}

func conditions(g *rmsv1.Grant) string {
	var out []string
	if g.GetLogin() == rmsv1.Login_LOGIN_MFA {
		out = append(out, "second factor")
	}
	if len(g.GetNetworks()) > 0 {
		out = append(out, "from "+strings.Join(g.GetNetworks(), ", "))
	}
	return strings.Join(out, ", ")
}

func (a *app) licenseShareCommand() *cobra.Command {
	var to []string
	var until string
	c := &cobra.Command{
		Use:   "share FILE|ID --to PRINCIPAL=RIGHTS",
		Short: "Give somebody rights on a document whose rights were named when it was protected",
		Example: `  rmsctl license share q3.pdf.rms --to eve@example.org=reviewer
  rmsctl license share q3.pdf.rms --to group:board@example.org=VIEW+PRINT --until +30d`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			var end time.Time
			if until != "" {
				var err error
				if end, err = parseInstant(until, a.now()); err != nil {
					return err
				}
			}
			return a.editGrants(ctx, args[0], func(policyNow *rmsv1.AdHocPolicy) (string, error) {
				return share(policyNow, to, end)
			}, "undo: rmsctl license unshare %s"+unshareFlags(to))
		}),
	}
	c.Flags().StringArrayVar(&to, "to", nil, "who, and what they may do (needed; may be repeated)")
	c.Flags().StringVar(&until, "until", "", "until when: +30d or an RFC 3339 time")
	_ = c.MarkFlagRequired("to")
	return a.formatFlag(c)
}

// share adds grants, in place of those the same principals had, and says what
// it did.
func share(p *rmsv1.AdHocPolicy, to []string, until time.Time) (string, error) {
	if p.GetKind() != rmsv1.AdHocPolicy_KIND_GRANTS {
		if !until.IsZero() {
			return "", usagef("the recipients of this document have no end of their own: leave --until out")
		}
		people, err := parsePrincipals(to)
		if err != nil {
			return "", usagef("%v", err).withNext("All recipients of this document have the same rights: write --to alone, without =RIGHTS")
		}
		names := recipients(p)
		for _, who := range people {
			if !slices.Contains(names, who.String()) {
				names = append(names, who.String())
			}
		}
		p.Recipients, p.Grants = names, nil
		return "shared with " + joinPrincipals(people), nil
	}
	grants, err := parseGrants(to, until)
	if err != nil {
		return "", err
	}
	var said []string
	for _, g := range grants {
		p.Grants = slices.DeleteFunc(p.Grants, func(old *rmsv1.Grant) bool { return old.GetTo() == g.To.String() })
		p.Grants = append(p.Grants, grantProto(g))
		said = append(said, shortPrincipal(g.To.String())+" is "+policy.Describe(g.Rights)+" now")
	}
	return strings.Join(said, ", "), nil
}

func grantProto(g policy.Grant) *rmsv1.Grant {
	out := &rmsv1.Grant{To: g.To.String(), Rights: rightsProto(g.Rights)}
	if !g.Until.IsZero() {
		out.Until = timestamppb.New(g.Until)
	}
	if g.Login == policy.LoginMFA {
		out.Login = rmsv1.Login_LOGIN_MFA
	}
	for _, n := range g.Networks {
		out.Networks = append(out.Networks, n.String())
	}
	return out
}

// recipients lists whom a policy of equal recipients names.
func recipients(p *rmsv1.AdHocPolicy) []string {
	if len(p.GetRecipients()) > 0 {
		return slices.Clone(p.GetRecipients())
	}
	var out []string
	for _, g := range p.GetGrants() {
		out = append(out, g.GetTo())
	}
	return out
}

func joinPrincipals(list []vocab.Principal) string {
	var out []string
	for _, p := range list {
		out = append(out, shortPrincipal(p.String()))
	}
	return strings.Join(out, ", ")
}

func (a *app) licenseUnshareCommand() *cobra.Command {
	var to []string
	c := &cobra.Command{
		Use:   "unshare FILE|ID --to PRINCIPAL",
		Short: "Take somebody's rights away",
		Long:  "Take away what a principal was given by name. Use licenses they hold already end when they end; they may still hold rights through a group.",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			people, err := parsePrincipals(to)
			if err != nil {
				return err
			}
			return a.editGrants(ctx, args[0], func(p *rmsv1.AdHocPolicy) (string, error) { return unshare(p, people) },
				"see who has opened it: rmsctl license track %s")
		}),
	}
	c.Flags().StringArrayVar(&to, "to", nil, "from whom (needed; may be repeated)")
	_ = c.MarkFlagRequired("to")
	return a.formatFlag(c)
}

// unshareFlags are the flags that take back what PRINCIPAL=RIGHTS gave, as a
// format.
func unshareFlags(to []string) string {
	var flags strings.Builder
	for _, t := range to {
		who, _, _ := strings.Cut(t, "=")
		flags.WriteString(" --to " + strings.ReplaceAll(who, "%", "%%"))
	}
	return flags.String()
}

func unshare(p *rmsv1.AdHocPolicy, people []vocab.Principal) (string, error) {
	equal := p.GetKind() != rmsv1.AdHocPolicy_KIND_GRANTS
	names := recipients(p)
	for _, who := range people {
		var had bool
		if equal {
			had = slices.Contains(names, who.String())
			names = slices.DeleteFunc(names, func(n string) bool { return n == who.String() })
		} else {
			before := len(p.Grants)
			p.Grants = slices.DeleteFunc(p.Grants, func(g *rmsv1.Grant) bool { return g.GetTo() == who.String() })
			had = len(p.Grants) < before
		}
		if !had {
			return "", vocab.Errorf(vocab.ReasonResourceNotFound, "%s has no grant on this document", shortPrincipal(who.String())).
				WithNext("See: rmsctl license show")
		}
	}
	if equal {
		p.Recipients, p.Grants = names, nil
	}
	return "no longer shared with " + joinPrincipals(people), nil
}

// editGrants reads a license, lets edit change its grants, and writes them
// back unless somebody else changed the license in between.
func (a *app) editGrants(ctx context.Context, arg string, edit func(*rmsv1.AdHocPolicy) (string, error), next string) error {
	s, name, err := a.licenseOf(ctx, arg)
	if err != nil {
		return err
	}
	l, err := s.Licenses().GetLicense(ctx, &rmsv1.GetLicenseRequest{Name: name})
	if err != nil {
		return err
	}
	p := l.GetAdHoc()
	if p == nil {
		return &exitError{code: exitConflict, err: fmt.Errorf("the rights on this document are those of template %s", lastPart(l.GetTemplate()))} //nolint:err113 // a sentence for people
	}
	said, err := edit(p)
	if err != nil {
		return err
	}
	l, err = s.Licenses().UpdateLicense(ctx, &rmsv1.UpdateLicenseRequest{
		License:    &rmsv1.License{Name: l.GetName(), Etag: l.GetEtag(), Policy: &rmsv1.License_AdHoc{AdHoc: p}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"ad_hoc"}},
	})
	if err != nil {
		return err
	}
	if err := a.emit(l, func() { a.outf("%s (revision %d of license %s)", said, l.GetRevision(), l.GetContentId()) }); err != nil {
		return err
	}
	a.next(next, arg)
	return nil
}

func (a *app) licenseTrackCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:   "track FILE|ID",
		Short: "Show who opened a document and who was refused, oldest first",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			s, name, err := a.licenseOf(ctx, args[0])
			if err != nil {
				return err
			}
			events, more, err := collect(limit, func(size int32, token string) ([]*rmsv1.Event, string, error) {
				page, err := s.Licenses().ListLicenseEvents(ctx, &rmsv1.ListLicenseEventsRequest{Name: name, PageSize: size, PageToken: token})
				return page.GetEvents(), page.GetNextPageToken(), err
			})
			if err != nil {
				return err
			}
			slices.Reverse(events)
			err = a.emit(messages(events), func() {
				a.eventTable(events)
				a.outf("%s", summary(events))
			})
			if err == nil && more {
				a.sayf("there are older events; --limit 0 shows all")
			}
			return err
		}),
	}
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many of the newest; 0: all")
	return a.formatFlag(c)
}

// summary counts events in the order in which they first happened.
func summary(events []*rmsv1.Event) string {
	var order []string
	count := map[string]int{}
	for _, e := range events {
		word := eventWord(e)
		if count[word] == 0 {
			order = append(order, word)
		}
		count[word]++
	}
	var parts []string
	for _, word := range order {
		parts = append(parts, group(int64(count[word]))+" "+strings.ToLower(word))
	}
	if len(parts) == 0 {
		return "nothing happened to it yet"
	}
	return strings.Join(parts, ", ")
}

func (a *app) licenseRevokeCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "revoke FILE|ID [--reason WHY]",
		Short: "Stop every further open of a document",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			s, name, err := a.licenseOf(ctx, args[0])
			if err != nil {
				return err
			}
			r, err := s.Licenses().RevokeLicense(ctx, &rmsv1.RevokeLicenseRequest{Name: name, Reason: reason})
			if err != nil {
				return err
			}
			if err := a.emit(r, func() { a.outf("revoked. %s", stillOpen(r)) }); err != nil {
				return err
			}
			a.next("undo: rmsctl license restore %s", r.GetLicense().GetContentId())
			return nil
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why; kept in the record")
	return a.formatFlag(c)
}

// stillOpen says what a revocation cannot reach.
func stillOpen(r *rmsv1.RevokeLicenseResponse) string {
	n := int(r.GetCachedUseCount())
	if n == 0 || len(r.GetCachedUses()) == 0 {
		return "Nobody holds a use license that could still open it."
	}
	var who []string
	for _, u := range r.GetCachedUses() {
		if name := shortPrincipal(u.GetPrincipal()); !slices.Contains(who, name) && len(who) < 5 {
			who = append(who, name)
		}
	}
	if n > len(who) {
		who = append(who, "…")
	}
	return fmt.Sprintf("%s may still open until %s (%s).", plural(n, "cached use license", "cached use licenses"),
		showStamp(r.GetCachedUses()[0].GetExpireTime()), strings.Join(who, ", "))
}

func (a *app) licenseRestoreCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "restore FILE|ID",
		Short: "Take a revocation back",
		Args:  cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			s, name, err := a.licenseOf(ctx, args[0])
			if err != nil {
				return err
			}
			l, err := s.Licenses().RestoreLicense(ctx, &rmsv1.RestoreLicenseRequest{Name: name})
			if err != nil {
				return err
			}
			if err := a.emit(l, func() { a.outf("restored: license %s opens again for whom its policy allows", l.GetContentId()) }); err != nil {
				return err
			}
			a.next("undo: rmsctl license revoke %s", l.GetContentId())
			return nil
		}),
	})
}

func licenseState(l *rmsv1.License, now time.Time) string {
	switch {
	case l.GetState() == rmsv1.License_STATE_REVOKED:
		return "revoked"
	case l.GetExpireTime() != nil && !now.Before(l.GetExpireTime().AsTime()):
		return "expired"
	case l.GetState() == rmsv1.License_STATE_ACTIVE:
		return "active"
	}
	return "unknown"
}

func policyName(l *rmsv1.License) string {
	switch l.GetAdHoc().GetKind() {
	case rmsv1.AdHocPolicy_KIND_GRANTS:
		return "ad hoc"
	case rmsv1.AdHocPolicy_KIND_DO_NOT_FORWARD:
		return "do not forward"
	case rmsv1.AdHocPolicy_KIND_ENCRYPT_ONLY:
		return "encrypt only"
	case rmsv1.AdHocPolicy_KIND_UNSPECIFIED: // no ad hoc policy
	}
	return lastPart(l.GetTemplate())
}

func custodyName(m rmsv1.CustodyMode) string {
	switch m {
	case rmsv1.CustodyMode_CUSTODY_MODE_CACHED:
		return vocab.CustodyCached.String()
	case rmsv1.CustodyMode_CUSTODY_MODE_STRICT:
		return vocab.CustodyStrict.String()
	case rmsv1.CustodyMode_CUSTODY_MODE_UNSPECIFIED: // the tenant's
	}
	return ""
}

// shortPrincipal leaves out what goes without saying.
func shortPrincipal(s string) string { return strings.TrimPrefix(s, "user:") }

func reasonSuffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
