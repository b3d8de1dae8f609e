package rmsctl

import (
	"context"

	"github.com/spf13/cobra"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) licenseTransferCommand() *cobra.Command {
	var from, to, reason string
	var dryRun, detach bool
	c := &cobra.Command{
		Use:   "transfer --from PRINCIPAL --to PRINCIPAL [--dry-run]",
		Short: "Hand everything one owner has over to another",
		Long: `Hand everything one owner has over to another. It is an operation: it goes on if you
leave, and after a restart of the service. If everything becomes yours, another
policy-admin must approve it first.`,
		Example: `  rmsctl license transfer --from bob@example.org --to carol@example.org --dry-run
  rmsctl license transfer --from bob@example.org --to carol@example.org --reason "bob left"`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			old, err := parsePrincipal(from)
			if err != nil {
				return err
			}
			next, err := parsePrincipal(to)
			if err != nil {
				return err
			}
			r, err := s.Licenses().TransferLicenses(ctx, &rmsv1.TransferLicensesRequest{
				Parent: s.parent(), From: old.String(), To: next.String(), Reason: reason, ValidateOnly: dryRun,
			})
			if err != nil {
				return err
			}
			if err := a.emit(r, func() {
				a.outf("%s of %s to %s", plural(int(r.GetLicenses()), "license", "licenses"), shortPrincipal(old.String()), shortPrincipal(next.String()))
			}); err != nil {
				return err
			}
			switch o := r.GetOperation(); {
			case dryRun:
				a.sayf("nothing written")
				a.next("the same without --dry-run")
			case o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL:
				return waitsFor(o)
			case detach || a.format != formatTable:
				a.next("rmsctl operation watch %s", lastPart(o.GetName()))
			default:
				a.sayf("operation %s; ^C leaves it running: rmsctl operation watch %s", lastPart(o.GetName()), lastPart(o.GetName()))
				return a.watch(ctx, s, o.GetName())
			}
			return nil
		}),
	}
	flags := c.Flags()
	flags.StringVar(&from, "from", "", "whose licenses (needed)")
	flags.StringVar(&to, "to", "", "whose they shall be (needed)")
	flags.StringVar(&reason, "reason", "", "why; recorded")
	flags.BoolVar(&dryRun, "dry-run", false, "say how many there are and change nothing")
	flags.BoolVar(&detach, "detach", false, "do not wait for the end")
	_ = c.MarkFlagRequired("from")
	_ = c.MarkFlagRequired("to")
	return a.formatFlag(c)
}
