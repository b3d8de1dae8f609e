package rmsctl

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/policy/templatefile"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

const never = "never"

func (a *app) licenseExtendCommand() *cobra.Command {
	var expires, until string
	var to []string
	c := &cobra.Command{
		Use:   "extend FILE|ID (--expires WHEN | --until WHEN)",
		Short: "Move the end of a document, or of rights on it",
		Long: `Move the end of a document whose rights were named when it was protected: when its
content expires for everybody but its owner (--expires), or when the rights end that
were given until some time (--until): all of them, or those of --to.`,
		Example: `  rmsctl license extend q3.pdf.rms --expires +90d
  rmsctl license extend q3.pdf.rms --until 2027-01-31T18:00:00+01:00 --to bob@fabrikam.com`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			switch {
			case expires == "" && until == "":
				return usagef("say what to move: --expires for the content, --until for the rights on it")
			case until == "" && len(to) > 0:
				return usagef("--to goes with --until")
			}
			people, err := parsePrincipals(to)
			if err != nil {
				return err
			}
			var content, rights time.Time
			if content, err = a.futureOrNever(expires); err != nil {
				return err
			}
			if rights, err = a.futureOrNever(until); err != nil {
				return err
			}
			return a.editAdHoc(ctx, args[0], func(now *rmsv1.License, p *rmsv1.AdHocPolicy) (*edit, error) {
				e := &edit{next: &rmsv1.License{}}
				if until != "" {
					if err := a.extendRights(e, now, p, rights, people); err != nil {
						return nil, err
					}
				}
				if expires != "" {
					a.extendContent(e, now, content)
				}
				return e, nil
			})
		}),
	}
	flags := c.Flags()
	flags.StringVar(&expires, "expires", "", "when the content expires: +90d, an RFC 3339 time, or never")
	flags.StringVar(&until, "until", "", "when rights that end are to end: +90d, an RFC 3339 time, or never")
	flags.StringArrayVar(&to, "to", nil, "whose rights (default: everybody's that end; may be repeated)")
	return a.formatFlag(c)
}

// futureOrNever reads a new end; zero is never.
func (a *app) futureOrNever(s string) (time.Time, error) {
	if s == "" || s == never {
		return time.Time{}, nil
	}
	at, err := parseInstant(s, a.now())
	if err == nil && !at.After(a.now()) {
		err = usagef("%s is not in the future", s).withNext("To end it now: rmsctl license revoke or unshare")
	}
	return at, err
}

// extendContent moves the expiry of the content.
func (a *app) extendContent(e *edit, now *rmsv1.License, at time.Time) {
	was := time.Time{}
	if now.GetExpireTime() != nil {
		was = now.GetExpireTime().AsTime()
	}
	if was.Equal(at) {
		e.said = append(e.said, "the content expires "+showEnd(at)+" already")
		return
	}
	e.said = append(e.said, "the content expires "+showEnd(was)+" → "+showEnd(at))
	e.fields = append(e.fields, "expire_time")
	if !at.IsZero() {
		e.next.ExpireTime = timestamppb.New(at)
	}
	if !was.IsZero() && !was.After(a.now()) {
		e.undo = append(e.undo, "rmsctl license revoke "+now.GetContentId()) // the past cannot be set
		return
	}
	e.undo = append(e.undo, "rmsctl license extend "+now.GetContentId()+" --expires "+flagEnd(was))
}

// extendRights moves the ends of grants that have one.
func (a *app) extendRights(e *edit, now *rmsv1.License, p *rmsv1.AdHocPolicy, at time.Time, people []vocab.Principal) error {
	if equalRights(p) {
		return usagef("the recipients of this document have no end of their own").withNext("Use --expires to move the end of the content")
	}
	all, err := grantsOf(p)
	if err != nil {
		return err
	}
	was := map[string][]string{} // flags of the undo, by the end that was
	var order []string
	var ended []vocab.Principal
	var back []policy.Grant // to give again: what has no end any more cannot be moved
	met := map[vocab.Principal]bool{}
	count := map[vocab.Principal]int{}
	for _, g := range all {
		count[g.To]++
	}
	oneOfMany := func(p vocab.Principal) bool { return count[p] > 1 }
	for i, g := range all {
		if g.Until.IsZero() || len(people) > 0 && !slices.Contains(people, g.To) {
			continue
		}
		met[g.To] = true
		who := shortPrincipal(g.To.String())
		if g.Until.Equal(at) {
			e.said = append(e.said, who+" is "+a.grantList(all[i:i+1])+" already")
			continue
		}
		moved := g
		moved.Until = at
		e.said = append(e.said, fmt.Sprintf("%s: %s → %s", who, a.grantList(all[i:i+1]), a.grantList([]policy.Grant{moved})))
		e.fields = []string{"ad_hoc"}
		switch end := flagEnd(g.Until); {
		case oneOfMany(g.To): // which no command takes back one by one
		case !g.Until.After(a.now()): // the past cannot be set
			ended = append(ended, g.To)
		case at.IsZero():
			back = append(back, g)
		case was[end] == nil:
			order = append(order, end)
			fallthrough
		default:
			was[end] = append(was[end], " --to "+shellWord(who))
		}
		all[i] = moved
	}
	for _, who := range people {
		if !met[who] {
			return vocab.Errorf(vocab.ReasonResourceNotFound, "%s has no right on this document that ends", shortPrincipal(who.String())).
				WithNext("See: rmsctl license show %s", now.GetContentId())
		}
	}
	if len(met) == 0 {
		return vocab.Errorf(vocab.ReasonResourceNotFound, "no right on this document ends").WithNext("See: rmsctl license show %s", now.GetContentId())
	}
	e.next = withGrants(p, all)
	for _, end := range order {
		e.undo = append(e.undo, fmt.Sprintf("rmsctl license extend %s --until %s%s", now.GetContentId(), end, join(was[end])))
	}
	e.undo = append(e.undo, shareCommands(now.GetContentId(), false, back)...)
	if len(ended) > 0 {
		e.undo = append(e.undo, unshareCommand(now.GetContentId(), ended))
	}
	return nil
}

func join(parts []string) (s string) {
	for _, p := range parts {
		s += p
	}
	return s
}

// showEnd is an end for people, flagEnd for a flag.
func showEnd(t time.Time) string { return or(showTime(t), never) }

func flagEnd(t time.Time) string {
	if t.IsZero() {
		return never
	}
	return templatefile.FormatTime(t)
}
