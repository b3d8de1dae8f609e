package rmsctl

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/operation/approverfile"
	"github.com/openrms/rms/internal/sshsig"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) approverCommand() *cobra.Command {
	return noun("approver", "Who approves what is under dual control", a.approverListCommand(), a.approverExportCommand(), a.approverSetCommand())
}

func getApprovers(ctx context.Context, s *server) (*rmsv1.Approvers, error) {
	return s.Custody().GetApprovers(ctx, &rmsv1.GetApproversRequest{Name: s.parent() + "/approvers"})
}

func (a *app) approverListCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "list",
		Short: "List the approvers, their keys, and how many of them must sign",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			m, err := getApprovers(ctx, s)
			if err != nil {
				return err
			}
			if err := a.emit(m, func() { a.showApprovers(m) }); err != nil {
				return err
			}
			switch {
			case m.GetThreshold() == 0:
				a.next("name some: rmsctl approver set -f FILE")
			case m.GetAble() < m.GetThreshold():
				a.sayf("ALARM: %d approvers can act, and %d are needed: nothing under dual control can be done", m.GetAble(), m.GetThreshold())
			}
			return nil
		}),
	})
}

func (a *app) approverExportCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "export",
		Short:   "Write the approvers as a file that approver set takes",
		Example: `  rmsctl approver export > approvers.yaml`,
		Args:    cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			m, err := getApprovers(ctx, s)
			if err != nil {
				return err
			}
			if m.GetThreshold() == 0 {
				return vocab.Errorf(vocab.ReasonResourceNotFound, "there are no approvers").WithNext("Name some: rmsctl approver set -f FILE")
			}
			set, err := approversFrom(m)
			if err != nil {
				return err
			}
			b, err := approverfile.Format(set)
			if err == nil {
				_, err = a.stdout.Write(b)
			}
			return err
		}),
	}
}

func (a *app) showApprovers(m *rmsv1.Approvers) {
	if m.GetThreshold() == 0 {
		a.outf("no approvers: another person who holds the role approves what is under dual control")
		return
	}
	a.outf("%d of %d must sign; revision %s of %s, asked for by %s", m.GetThreshold(), len(m.GetApprovers()), m.GetEtag(), showStamp(m.GetUpdateTime()), m.GetAuthor())
	t := newTable(a.stdout, "APPROVER", "LABEL", "CAN ACT", "KEY", "FINGERPRINT")
	for _, p := range m.GetApprovers() {
		who, label, can := shortPrincipal(p.GetPrincipal()), p.GetLabel(), or(p.GetCannotAct(), "yes")
		for _, line := range p.GetKeys() {
			kind, fingerprint := line, ""
			if k, err := sshsig.ParseAuthorizedKey(line); err == nil {
				kind, fingerprint = k.Type(), k.Fingerprint()
			}
			t.row(who, label, can, kind, fingerprint)
			who, label, can = "", "", ""
		}
	}
	t.flush()
}

// approversFrom reads an approver set as the service shows it.
func approversFrom(m *rmsv1.Approvers) (*operation.ApproverSet, error) {
	s := &operation.ApproverSet{Threshold: uint8(m.GetThreshold())}
	for _, p := range m.GetApprovers() {
		a := operation.Approver{Principal: p.GetPrincipal(), Label: p.GetLabel()}
		for _, line := range p.GetKeys() {
			k, err := sshsig.ParseAuthorizedKey(line)
			if err != nil {
				return nil, err
			}
			a.Keys = append(a.Keys, k.Wire())
		}
		s.Approvers = append(s.Approvers, a)
	}
	s.Sort()
	return s, s.Validate()
}

func (a *app) approverSetCommand() *cobra.Command {
	var path, reason string
	var dryRun bool
	c := &cobra.Command{
		Use:   "set -f FILE [--dry-run]",
		Short: "Ask for other approvers, or another number of them",
		Long: `Ask for the approvers to be what a file says. It is an operation: the first ones a
second person approves, and from then on the approvers that there are. Nobody is taken
out silently: it says who comes and goes, and whether the quorum is lowered. The number
of signatures never changes but by the file's threshold, and approvers are never removed
altogether.

The file names each person with one to four SSH public keys of their own:

  kind: Approvers
  threshold: 2
  approvers:
    - who: anna@contoso.com
      label: Anna, security
      keys: [ssh-ed25519 AAAA…]`,
		Example: `  rmsctl approver export > approvers.yaml
  rmsctl approver set -f approvers.yaml --dry-run`,
		Args: cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			wanted, err := approverfile.Parse(b)
			if err != nil {
				return err
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			now, err := getApprovers(ctx, s)
			if err != nil {
				return err
			}
			next := protoApprovers(wanted)
			next.Name, next.Etag = now.GetName(), now.GetEtag()
			o, err := s.Custody().UpdateApprovers(ctx, &rmsv1.UpdateApproversRequest{Approvers: next, Reason: reason, ValidateOnly: dryRun})
			if err != nil {
				return err
			}
			if err := a.emit(o, func() {
				for _, line := range o.GetApproversUpdate().GetChanges() {
					a.outf("%s", line)
				}
			}); err != nil {
				return err
			}
			if int(wanted.Threshold) == len(wanted.Approvers) {
				a.sayf("all of them must sign, so none of them can ask for anything: whoever asks cannot approve")
			}
			if !dryRun {
				return waitsFor(o)
			}
			a.sayf("nothing written; it needs %s", neededWord(o))
			a.next("the same without --dry-run")
			return nil
		}),
	}
	flags := c.Flags()
	flags.StringVarP(&path, "file", "f", "", "the file (needed)")
	flags.StringVar(&reason, "reason", "", "why; recorded, and shown to those who approve")
	flags.BoolVar(&dryRun, "dry-run", false, "say what would change and ask for nothing")
	_ = c.MarkFlagRequired("file")
	return a.formatFlag(c)
}

func protoApprovers(s *operation.ApproverSet) *rmsv1.Approvers {
	out := &rmsv1.Approvers{Threshold: int32(s.Threshold)}
	for _, p := range s.Approvers {
		m := &rmsv1.Approvers_Approver{Principal: p.Principal, Label: p.Label}
		for _, wire := range p.Keys {
			if k, err := sshsig.ParseKey(wire); err == nil { // the file's are checked
				m.Keys = append(m.Keys, k.String())
			}
		}
		out.Approvers = append(out.Approvers, m)
	}
	return out
}
