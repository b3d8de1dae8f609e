package rmsctl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) licenseCommand() *cobra.Command {
	return noun("license", "The server's record of a document: who may open it, who did, revoke it",
		a.licenseListCommand(), a.licenseShowCommand(), a.licenseShareCommand(), a.licenseUnshareCommand(),
		a.licenseExtendCommand(), a.licenseTransferCommand(), a.licenseTrackCommand(), a.licenseRevokeCommand(),
		a.licenseRevocationsCommand(), a.licenseRestoreCommand())
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
	for _, r := range l.GetRevocations() {
		t.row("revoked with others", "revocations/"+lastPart(r))
	}
	t.row("owner", l.GetOwner())
	t.row("protected by", issuerName(l.GetIssuer())+" "+showStamp(l.GetCreateTime()))
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

// issuerName is who protected a document: a person's address, or a service by
// what it signed in with.
func issuerName(i *rmsv1.Issuer) string {
	return or(i.GetAddress(), "service "+i.GetSubject())
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
				a.eventTable(events, false)
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
