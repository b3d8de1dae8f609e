// Package rmsd is the rmsd command: its words, its output and its exit codes.
// What it starts and checks is in package daemon.
package rmsd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/vocab"
)

// errUsage says that the words of the command are off.
var errUsage = errors.New("usage")

// Run is rmsd. It returns the exit code: 0 for success, 1 if it failed, 2 if
// the words of the command are off, 8 if a check found damage.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	defer context.AfterFunc(ctx, stop)()
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprint(stderr, root.Long, "\n\n", root.UsageString(), "\nrmsd: try: rmsd dev\n")
		return 2
	}
	fmt.Fprintln(stderr, "rmsd:", err)
	switch vocab.ReasonOf(err) {
	case vocab.ReasonStoreDamaged, vocab.ReasonLogDamaged:
		return 8
	case vocab.ReasonConfigurationInvalid, vocab.ReasonRequestInvalid:
		return 2
	}
	return 1
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "rmsd", Short: "The open rights management service", SilenceUsage: true, SilenceErrors: true, Args: noArguments,
		Long: `rmsd holds keys and policy: it says who may do what with which document, and
hands the content key only to those who may. Content never reaches it.

  rmsd dev                      try it: a daemon with test identities on this machine
  rmsd serve -c rmsd.yaml       serve, as the configuration says
  rmsd check-config -c rmsd.yaml`,
		RunE: func(*cobra.Command, []string) error { return errUsage },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "%s", err).WithNext("See rmsd --help")
	})
	root.AddCommand(serveCommand(), devCommand(), checkCommand(), fsckCommand(), statusCommand(), reloadCommand(),
		backupCommand(), restoreCommand(), importKeyCommand(), importCommand(), versionCommand())
	return root
}

// noArguments refuses words that are neither commands nor flags.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := vocab.Errorf(vocab.ReasonRequestInvalid, "%s: unexpected %q", c.CommandPath(), args[0])
	if s := c.SuggestionsFor(args[0]); len(s) > 0 {
		return err.WithNext("Did you mean %s %s", c.CommandPath(), s[0])
	}
	return err.WithNext("See %s --help", c.CommandPath())
}

func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "/etc/rmsd/rmsd.yaml", "configuration file")
}

func logLevel(c *cobra.Command, level *slog.Level) {
	c.Flags().TextVar(level, "log-level", slog.LevelInfo, "least level to log: debug, info, warn or error")
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), "rmsd", daemon.Version())
			return nil
		},
	}
}
