package rmsctl

import (
	"context"

	"github.com/spf13/cobra"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) licenseTransferCommand() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "transfer FILE|ID --to PRINCIPAL",
		Short: "Make somebody else the owner of a document",
		Long: `Make somebody else the owner of a document: a person or a service. Owners open it
always, and share, extend and revoke it. Whoever was the owner can do so no longer,
and cannot take it back; a policy-admin can. A person who protected the document
still opens it, as its issuer.`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			owner, err := parsePrincipal(to)
			if err != nil {
				return err
			}
			var issuer string
			err = a.editLicense(ctx, args[0], func(now *rmsv1.License) (*edit, error) {
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
		}),
	}
	c.Flags().StringVar(&to, "to", "", "the new owner (needed)")
	_ = c.MarkFlagRequired("to")
	return a.formatFlag(c)
}
