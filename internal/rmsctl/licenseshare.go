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

func (a *app) licenseShareCommand() *cobra.Command {
	var to []string
	var terms termsFlags
	c := &cobra.Command{
		Use:   "share FILE|ID --to PRINCIPAL=RIGHTS",
		Short: "Give somebody rights on a document whose rights were named when it was protected",
		Long: `Give somebody rights on a document whose rights were named when it was protected,
in place of what they were given by name before. It counts at their next open.`,
		Example: `  rmsctl license share q3.pdf.rms --to eve@example.org=reviewer
  rmsctl license share q3.pdf.rms --to group:board@example.org=VIEW+PRINT --until +30d --login mfa`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			return a.editAdHoc(ctx, args[0], func(now *rmsv1.License, p *rmsv1.AdHocPolicy) (*edit, error) {
				grants, err := sharedWith(p, to, &terms, a.now())
				if err != nil {
					return nil, err
				}
				return a.share(now, p, grants)
			})
		}),
	}
	c.Flags().StringArrayVar(&to, "to", nil, "who, and what they may do (needed; may be repeated)")
	_ = c.MarkFlagRequired("to")
	terms.register(c, "")
	return a.formatFlag(c)
}

// sharedWith reads whom a document is to be shared with: of Do Not Forward and
// Encrypt-Only all recipients have the same.
func sharedWith(p *rmsv1.AdHocPolicy, to []string, terms *termsFlags, now time.Time) ([]policy.Grant, error) {
	if !equalRights(p) {
		return terms.grants(to, now)
	}
	if terms.given() {
		return nil, usagef("the recipients of this document have no end and no conditions of their own: leave --until, --login and --network out")
	}
	people, err := parsePrincipals(to)
	if err != nil {
		return nil, usagef("%v", err).withNext("All recipients of this document have the same rights: write --to alone, without =RIGHTS")
	}
	return policy.RecipientGrants(policy.AdHocKind(p.GetKind()), people), nil
}

// share gives grants in place of those that the same principals have.
func (a *app) share(now *rmsv1.License, p *rmsv1.AdHocPolicy, given []policy.Grant) (*edit, error) {
	all, err := grantsOf(p)
	if err != nil {
		return nil, err
	}
	e := &edit{}
	var back []policy.Grant     // what to give again to undo it
	var fresh []vocab.Principal // what to take away
	for i, g := range given {
		if slices.ContainsFunc(given[:i], func(h policy.Grant) bool { return h.To == g.To }) {
			return nil, usagef("--to names %s twice", shortPrincipal(g.To.String()))
		}
		of := func(h policy.Grant) bool { return h.To == g.To }
		var had []policy.Grant
		for _, h := range all {
			if of(h) {
				had = append(had, h)
			}
		}
		who := shortPrincipal(g.To.String())
		if len(had) == 1 && policy.SameGrant(had[0], g) {
			e.said = append(e.said, who+" is "+a.grantList(had)+" already")
			continue
		}
		e.fields = []string{"ad_hoc"}
		all = append(slices.DeleteFunc(all, of), g)
		switch len(had) {
		case 0:
			fresh = append(fresh, g.To)
			e.said = append(e.said, who+" is "+a.grantList([]policy.Grant{g})+" now")
			continue
		case 1:
			back = append(back, had[0])
		default: // which no one command gives again
			a.sayf("%s had: %s", who, a.grantList(had))
		}
		e.said = append(e.said, fmt.Sprintf("%s: %s → %s", who, a.grantList(had), a.grantList([]policy.Grant{g})))
	}
	e.next = withGrants(p, all)
	if len(fresh) > 0 {
		e.undo = append(e.undo, unshareCommand(now.GetContentId(), fresh))
	}
	e.undo = append(e.undo, shareCommands(now.GetContentId(), equalRights(p), back)...)
	return e, nil
}

func unshareCommand(id string, people []vocab.Principal) string {
	var b strings.Builder
	b.WriteString("rmsctl license unshare " + id)
	for _, p := range people {
		b.WriteString(" --to " + shellWord(shortPrincipal(p.String())))
	}
	return b.String()
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
			return a.editAdHoc(ctx, args[0], func(now *rmsv1.License, p *rmsv1.AdHocPolicy) (*edit, error) {
				return a.unshare(now, p, people)
			})
		}),
	}
	c.Flags().StringArrayVar(&to, "to", nil, "from whom (needed; may be repeated)")
	_ = c.MarkFlagRequired("to")
	return a.formatFlag(c)
}

// unshare takes away all that principals were given by name.
func (a *app) unshare(now *rmsv1.License, p *rmsv1.AdHocPolicy, people []vocab.Principal) (*edit, error) {
	all, err := grantsOf(p)
	if err != nil {
		return nil, err
	}
	e := &edit{fields: []string{"ad_hoc"}}
	var gone []policy.Grant
	for _, who := range people {
		var had []policy.Grant
		all = slices.DeleteFunc(all, func(g policy.Grant) bool {
			if g.To == who {
				had = append(had, g)
			}
			return g.To == who
		})
		if len(had) == 0 {
			return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "%s has no grant on this document", shortPrincipal(who.String())).
				WithNext("See: rmsctl license show %s", now.GetContentId())
		}
		e.said = append(e.said, fmt.Sprintf("no longer shared with %s, who was %s", shortPrincipal(who.String()), a.grantList(had)))
		if len(had) == 1 {
			gone = append(gone, had[0])
		}
	}
	if len(all) == 0 {
		return nil, (&exitError{code: exitConflict, err: fmt.Errorf("a document is shared with somebody, and nobody would be left")}). //nolint:err113 // a sentence for people
																		withNext("Revoke it, so that nobody opens it: rmsctl license revoke %s", now.GetContentId())
	}
	e.next, e.undo = withGrants(p, all), shareCommands(now.GetContentId(), equalRights(p), gone)
	return e, nil
}
