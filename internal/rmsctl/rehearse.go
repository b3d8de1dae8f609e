package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) keyRehearseCommand() *cobra.Command {
	var refusal bool
	var key, wait string
	c := &cobra.Command{
		Use:   "rehearse [--vault-refusal]",
		Short: "Try the switch on a canary that nothing depends on",
		Long: `Suspend and resume the tenant's canary, a generation under which nothing was ever
published, and show that it stops at once, that everything else goes on meanwhile,
and that it opens again.

With --vault-refusal the custodian's own switch is tried: the service uses a canary
key, registered and never activated, every second, and shows what it sees while you
take its right to use that key away in Vault. It goes on until the key is refused
and what was held in memory has ended too. docs/custody.md has the commands.

How it went is in the log and in the next evidence. Exit code 9: the switch did not
do what it must, or nobody used it in time.`,
		Args: cobra.NoArgs,
		RunE: a.online(func(ctx context.Context, s *server, _ []string) error {
			d, err := parseDuration(wait)
			if err != nil || d <= 0 || d > 2*time.Hour {
				return usagef("--wait is a time of up to 2h, not %q", wait)
			}
			if refusal {
				return a.rehearseRefusal(ctx, s, key, d)
			}
			return a.rehearseSuspension(ctx, s)
		}),
	}
	c.Flags().BoolVar(&refusal, "vault-refusal", false, "watch the custodian's own switch on a canary key")
	c.Flags().StringVar(&key, "key", "canary", "the canary key's name, for --vault-refusal")
	c.Flags().StringVar(&wait, "wait", "15m", "how long to wait for the refusal, for --vault-refusal")
	return a.formatFlag(c)
}

func (a *app) rehearseSuspension(ctx context.Context, s *server) error {
	r, err := s.Custody().RehearseSuspension(ctx, &rmsv1.RehearseSuspensionRequest{Parent: s.parent()})
	if err != nil {
		return err
	}
	return a.emit(r, func() {
		a.outf("canary g%d suspended: stopped within %s; the active generation and a strict document opened meanwhile", r.GetGeneration(), millis(r.GetStoppedAfter()))
		a.outf("canary g%d resumed: opened within %s ✓", r.GetGeneration(), millis(r.GetOpenedAfter()))
		a.sayf("event %s", r.GetEvent())
	})
}

// millis rounds up, so that nothing is said to have taken less than it did.
func millis(d *durationpb.Duration) time.Duration {
	return (d.AsDuration() + time.Millisecond - 1).Truncate(time.Millisecond)
}

func (a *app) rehearseRefusal(ctx context.Context, s *server, key string, wait time.Duration) error {
	stream, err := s.Custody().RehearseRefusal(ctx, &rmsv1.RehearseRefusalRequest{Name: s.parent() + "/keys/" + key, Wait: durationpb.New(wait)})
	if err != nil {
		return err
	}
	a.sayf("the service uses the key %s every second; take its right to use it away now", key)
	var last *rmsv1.RehearseRefusalResponse
	shown := ""
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		last = r
		// A line for each change; programs get every look.
		if now := looked(r.GetStrict()) + ", in memory " + looked(r.GetCached()); r.GetEvent() == "" && (now != shown || a.format != formatTable) {
			shown = now
			if err := a.line(r, func() { a.outf("%s  at the custodian %s", r.GetTime().AsTime().Format(time.TimeOnly), now) }); err != nil {
				return err
			}
		}
	}
	if last.GetEvent() == "" {
		return rehearsalFailed("the server ended the rehearsal without a result")
	}
	if err := a.line(last, func() { a.sayf("event %s", last.GetEvent()) }); err != nil {
		return err
	}
	switch delay := last.GetCachedDelay(); {
	case last.GetStrict() == "":
		return rehearsalFailed("the custodian did not refuse the key %s within %s", key, wait)
	case delay == nil:
		return rehearsalFailed("what was held in memory still opened when the rehearsal ended")
	case delay.AsDuration() > last.GetPromisedDelay().AsDuration()+time.Second:
		return rehearsalFailed("what was held in memory opened for %s after the refusal, longer than the %s that are promised", millis(delay), last.GetPromisedDelay().AsDuration())
	default:
		a.sayf("refused; held in memory for %s more, at most %s are promised ✓", millis(delay), last.GetPromisedDelay().AsDuration())
		a.next("give the right back, and rehearse again to see that it opens")
	}
	return nil
}

// rehearsalFailed is the error of a switch that did not do what it must.
func rehearsalFailed(format string, args ...any) error {
	return &exitError{code: exitVerification, err: fmt.Errorf(format, args...)}
}

func looked(reason string) string {
	if reason == "" {
		return "opens"
	}
	return reason
}
