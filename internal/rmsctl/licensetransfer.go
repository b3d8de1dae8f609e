package rmsctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// transfer is what the flags of license transfer say.
type transfer struct {
	from, to, reason string
	dryRun, detach   bool
}

func (a *app) licenseTransferCommand() *cobra.Command {
	var f transfer
	c := &cobra.Command{
		Use:   "transfer (FILE|ID | --from PRINCIPAL) --to PRINCIPAL",
		Short: "Make somebody else the owner of a document, or of all that somebody owns",
		Long: `Make somebody else the owner of a document, or of all that somebody owns: a person or
a service. Owners open it always, and share, extend and revoke it. Whoever was the
owner can do so no longer, and cannot take it back; a policy-admin can. A person who
protected the document still opens it, as its issuer.

With --from everything that owner has is handed over, by a policy-admin. It is an
operation: it goes on if you leave, and after a restart of the service. If everything
becomes yours, another policy-admin must approve it first.`,
		Example: `  rmsctl license transfer q3.pdf.rms --to carol@example.org
  rmsctl license transfer --from bob@example.org --to carol@example.org --dry-run
  rmsctl license transfer --from bob@example.org --to carol@example.org --reason "bob left"`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			to, err := parsePrincipal(f.to)
			switch {
			case err != nil:
				return err
			case len(args) == 1 && f != (transfer{to: f.to}):
				return usagef("--from, --reason, --dry-run and --detach go with everything somebody owns, not with one document")
			case len(args) == 1:
				return a.transferOne(ctx, args[0], to)
			case f.from == "":
				return usagef("name a document, or with --from whose documents")
			}
			return a.transferAll(ctx, &f, to)
		}),
	}
	flags := c.Flags()
	flags.StringVar(&f.to, "to", "", "the new owner (needed)")
	flags.StringVar(&f.from, "from", "", "whose documents, all of them")
	flags.StringVar(&f.reason, "reason", "", "why; recorded")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say how many there are and change nothing")
	flags.BoolVar(&f.detach, "detach", false, "do not wait for the end")
	_ = c.MarkFlagRequired("to")
	return a.formatFlag(c)
}

func (a *app) transferOne(ctx context.Context, document string, owner vocab.Principal) error {
	var issuer string
	err := a.editLicense(ctx, document, func(now *rmsv1.License) (*edit, error) {
		was := shortPrincipal(now.GetOwner())
		if now.GetOwner() == owner.String() {
			return &edit{said: []string{"owned by " + was + " already"}}, nil
		}
		issuer = now.GetIssuer().GetAddress()
		return &edit{
			next: &rmsv1.License{Owner: owner.String()}, fields: []string{"owner"},
			said:   []string{"owned by " + shortPrincipal(owner.String()) + " now, no longer by " + was},
			undo:   []string{"rmsctl license transfer " + now.GetContentId() + " --to " + shellWord(was)},
			undoer: " (as the new owner, or as a policy-admin)",
		}, nil
	})
	if err == nil && issuer != "" && issuer != owner.Value {
		a.sayf("%s protected it and still opens it", issuer)
	}
	return err
}

func (a *app) transferAll(ctx context.Context, f *transfer, owner vocab.Principal) error {
	old, err := parsePrincipal(f.from)
	if err != nil {
		return err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	r, err := s.Licenses().TransferLicenses(ctx, &rmsv1.TransferLicensesRequest{
		Parent: s.parent(), From: old.String(), To: owner.String(), Reason: f.reason, ValidateOnly: f.dryRun,
	})
	if err != nil {
		return err
	}
	if err := a.emit(r, func() {
		a.outf("%s of %s to %s", licenses(r.GetLicenses()), shortPrincipal(old.String()), shortPrincipal(owner.String()))
	}); err != nil {
		return err
	}
	switch o := r.GetOperation(); {
	case f.dryRun:
		a.sayf("nothing written")
		a.next("the same without --dry-run")
	case o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL:
		return waitsFor(o)
	case f.detach || a.format != formatTable:
		a.next("rmsctl operation watch %s", lastPart(o.GetName()))
	default:
		a.sayf("operation %s; ^C leaves it running: rmsctl operation watch %s", lastPart(o.GetName()), lastPart(o.GetName()))
		return a.watch(ctx, s, o.GetName())
	}
	return nil
}
