package rmsctl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) tenantHoldCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "hold",
		Short: "Show whether the tenant is held after a restore, and what was lost",
		Args:  cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			h, err := s.Holds().GetHold(ctx, &rmsv1.GetHoldRequest{Name: s.parent() + "/hold"})
			if err != nil {
				return err
			}
			return a.emit(h, func() { a.showHold(h) })
		}),
	})
}

func (a *app) showHold(h *rmsv1.Hold) {
	if !h.GetHeld() {
		a.outf("not held")
		return
	}
	t := newTable(a.stdout)
	t.row("HELD", "neither publishes nor opens until it is released")
	t.row("restored", showStamp(h.GetRestoreTime())+", event "+h.GetEvent())
	t.row("backup", h.GetBackup()+" of "+showStamp(h.GetBackupTime())+", "+plural(int(h.GetBackupSize()), "event", "events"))
	lost := "nobody knows how much"
	if h.GetLostSize() > 0 {
		lost = fmt.Sprintf("%s, up to %s", plural(int(h.GetLostSize()-h.GetBackupSize()), "event", "events"), group(h.GetLostSize()))
	}
	t.row("lost", lost)
	if h.GetReason() != "" {
		t.row("accepted", h.GetReason())
	}
	t.flush()
	for _, l := range h.GetReapplied() {
		a.outf("  done again  %s", clean(l))
	}
	for _, l := range h.GetOpen() {
		a.outf("  look at     %s", clean(l))
	}
	if h.GetLeftOut() > 0 {
		a.outf("  and %s more", group(h.GetLeftOut()))
	}
	a.next("do again what is missing, then: rmsctl tenant release --reason WHY")
}

func (a *app) tenantReleaseCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "release --reason WHY",
		Short: "Ask that a tenant that was restored publishes and opens again",
		Long: `Ask that a tenant that was restored from a backup publishes and opens again. It
does once another tenant-admin has approved it. Look at rmsctl tenant hold first:
what was revoked after the backup, and is not revoked again, opens again.`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			o, err := s.Holds().ReleaseTenant(ctx, &rmsv1.ReleaseTenantRequest{Parent: s.parent(), Reason: reason})
			if err != nil {
				return err
			}
			if err := a.emit(o, func() { a.outf("%s  %s", lastPart(o.GetName()), operationWhat(o)) }); err != nil {
				return err
			}
			if o.GetState() == rmsv1.Operation_STATE_AWAITING_APPROVAL {
				return waitsFor(o)
			}
			return nil
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "what was looked at; recorded for ever")
	return a.formatFlag(c)
}

// saidRestored says, as the server does, that its log was restored from a backup:
// then a checkpoint that is newer than the backup never fits it. "" if it does
// not say so. It explains; it proves nothing, and nobody is to trust the log for
// it.
func (a *app) saidRestored(ctx context.Context, s *server) string {
	page, err := s.Audit().ListEvents(ctx, &rmsv1.ListEventsRequest{Parent: s.parent(), PageSize: 1, Filter: &rmsv1.EventFilter{Kinds: []string{"restored"}}})
	if err != nil || len(page.GetEvents()) == 0 {
		return ""
	}
	e := page.GetEvents()[0]
	return fmt.Sprintf(". The server says that it was restored at %s (event %s): %s. A checkpoint that is newer than the backup never fits a restored log",
		showStamp(e.GetTime()), lastPart(e.GetName()), clean(strings.TrimPrefix(e.GetDetail(), "backups/hold ")))
}

// notContinued is the error of a log that does not continue a checkpoint that
// was saved.
func (a *app) notContinued(ctx context.Context, s *server, format string, args ...any) error {
	said := a.saidRestored(ctx, s)
	err := notVerified("%s%s", fmt.Sprintf(format, args...), said)
	if e, ok := err.(*exitError); ok && said != "" { //nolint:errorlint // it was just made
		return e.withNext("If the operator confirms that restore, and you know what was lost (rmsctl tenant hold), keep your checkpoint as evidence and move it away: %s; "+
			"the next verification starts anew. If nobody restored anything, this is what a forgery looks like", a.folder.CheckpointPath(s.Name))
	}
	return err
}
