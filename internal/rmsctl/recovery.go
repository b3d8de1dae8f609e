package rmsctl

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) recoveryCommand() *cobra.Command {
	return noun("recovery", "Break-glass: open what no policy lets you open, with a second person's approval", a.recoveryRequestCommand())
}

func (a *app) recoveryRequestCommand() *cobra.Command {
	var owner, template, until, ticket, reason string
	var notify bool
	c := &cobra.Command{
		Use:   "request (FILE|ID | --owner PRINCIPAL | --template ID) --until TIME --ticket CASE --reason WHY",
		Short: "Ask to open documents whatever their policies say, until a time",
		Long: `Ask to open documents whatever their policies say: one document, everything of one
owner, or everything that follows a template. It counts once another
recovery-officer or a tenant-admin has approved it, until its end, and only for
commands that name it (open --recovery, unprotect --recovery). Every such open is
marked in the tenant's log; owners see it among the events of their documents.`,
		Example: `  rmsctl recovery request q3.pdf.rms --until +8h --ticket CASE-311 --reason "bob cannot be reached"
  rmsctl recovery request --owner bob@example.org --until +24h --ticket CASE-311 --reason "estate of bob" --notify`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			req := &rmsv1.RequestRecoveryRequest{Reason: reason, Ticket: ticket, Notify: notify}
			end, err := parseInstant(until, a.now())
			if err != nil {
				return err
			}
			req.Until = timestamppb.New(end)
			s, err := a.recoveryScope(ctx, req, args, owner, template)
			if err != nil {
				return err
			}
			req.Parent = s.parent()
			o, err := s.Recovery().RequestRecovery(ctx, req)
			if err != nil {
				return err
			}
			if err := a.emit(o, func() { a.outf("%s  %s", lastPart(o.GetName()), operationWhat(o)) }); err != nil {
				return err
			}
			a.next("once it is approved: rmsctl open FILE --recovery %s", lastPart(o.GetName()))
			if o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL {
				return waitsFor(o)
			}
			return nil
		}),
	}
	flags := c.Flags()
	flags.StringVar(&owner, "owner", "", "everything of this owner")
	flags.StringVar(&template, "template", "", "everything that follows this template")
	flags.StringVar(&until, "until", "", "when it is over: +8h, or an RFC 3339 time, at most 72 hours ahead (needed)")
	flags.StringVar(&ticket, "ticket", "", "the case it belongs to; recorded for ever (needed)")
	flags.StringVar(&reason, "reason", "", "why; recorded for ever (needed)")
	flags.BoolVar(&notify, "notify", false, "also write an event about it on every license it covers")
	for _, f := range []string{"until", "ticket", "reason"} {
		_ = c.MarkFlagRequired(f)
	}
	return a.formatFlag(c)
}

// recoveryScope fills in what shall be opened, and connects to its server.
func (a *app) recoveryScope(ctx context.Context, req *rmsv1.RequestRecoveryRequest, args []string, owner, template string) (*server, error) {
	given := len(args)
	for _, f := range []string{owner, template} {
		if f != "" {
			given++
		}
	}
	if given != 1 {
		return nil, usagef("say what shall be opened: a document, --owner or --template, and one of them only")
	}
	if len(args) == 1 {
		s, name, err := a.licenseOf(ctx, args[0])
		req.Scope = &rmsv1.RequestRecoveryRequest_License{License: name}
		return s, err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	if template != "" {
		if !vocab.ValidSlug(template) {
			return nil, usagef("%q is not the ID of a template", template).withNext("See: rmsctl template list")
		}
		req.Scope = &rmsv1.RequestRecoveryRequest_Template{Template: templateName(s, template)}
		return s, nil
	}
	p, err := parsePrincipal(owner)
	if err != nil {
		return nil, err
	}
	req.Scope = &rmsv1.RequestRecoveryRequest_Owner{Owner: p.String()}
	return s, nil
}

// recoveryFlag lets a command open by a recovery.
func recoveryFlag(c *cobra.Command, id *string) {
	c.Flags().StringVar(id, "recovery", "", "open by this approved recovery, break-glass: see rmsctl recovery request")
}

// recoveryOption reads the flag.
func recoveryOption(id string) ([]rms.OpenOption, error) {
	if id == "" {
		return nil, nil
	}
	operation, err := rms.ParseOperationID(id)
	if err != nil {
		return nil, usagef("--recovery: %q is not the ID of an operation", id).withNext("See: rmsctl operation list --kind recovery")
	}
	return []rms.OpenOption{rms.ByRecovery(operation)}, nil
}
