package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/contexts"
)

// app is one run of the command line.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
	folder         contexts.Folder

	// Global flags.
	context string
	tenant  string
	format  string
	yes     bool

	// started says that arguments and flags were understood: an error from
	// here on is the command's, before it the user's.
	started bool
	// note is the checkpoint the run verified last, as it was signed.
	note string
	// clients are the connections this run opened, closed at its end.
	clients []io.Closer
}

// Run runs one command line, without the program's name, and returns the exit
// code. It ends cleanly on SIGINT, SIGTERM and SIGHUP: what was begun is taken
// back, no clear text is left behind.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	return a.main(ctx, args)
}

func (a *app) main(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	for _, c := range a.clients {
		_ = c.Close()
	}
	if err == nil {
		return exitOK
	}
	if !a.started {
		if _, ok := errors.AsType[*exitError](err); !ok {
			err = usagef("%s", strings.TrimSuffix(err.Error(), "\n"))
		}
	}
	if ctx.Err() != nil {
		err = &exitError{code: exitInternal, err: errors.New("interrupted")}
	}
	return a.fail(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "rmsctl",
		Short: "Protect documents, open them, and manage who may",
		Long: `rmsctl protects documents, opens them, and manages who may.

Sign in once, then protect and open files:

  rmsctl login rms.example.com
  rmsctl protect report.pdf --template finance-internal
  rmsctl open report.pdf.rms

A document never says where to connect: rmsctl talks only to servers you
signed in to.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	choose(root)
	flags := root.PersistentFlags()
	flags.StringVarP(&a.context, "context", "c", "", "the context to use (default: the current one, or the document's)")
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts)
	flags.StringVar(&a.tenant, "tenant", "", "the tenant, where contexts of several tenants are there")
	flags.BoolVar(&a.yes, "yes", false, "do not ask before something that cannot be taken back")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v", err).withNext("See: %s --help", cmd.CommandPath())
	})
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true, GroupID: "you"})
	root.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		if a.format != "" && a.format != formatTable && a.format != formatJSON && a.format != formatYAML {
			return usagef("%q is not an output format", a.format).withNext("Use table, json or yaml")
		}
		if a.folder == (contexts.Folder{}) {
			a.folder, err = contexts.Default()
		}
		return err
	}
	root.AddGroup(
		&cobra.Group{ID: "documents", Title: "Documents:"},
		&cobra.Group{ID: "manage", Title: "Managing:"},
		&cobra.Group{ID: "you", Title: "You and this machine:"},
	)
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
		}
		root.AddCommand(cmds...)
	}
	group("documents", a.documentCommands()...)
	group("manage", a.licenseCommand(), a.templateCommand(), a.explainCommand(), a.policyCommand(), a.groupCommand(), a.roleCommand(),
		a.principalCommand(), a.tenantCommand(), a.keyCommand(), a.approverCommand(), a.operationCommand(), a.recoveryCommand(), a.auditCommand())
	group("you", a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.contextCommand(), a.doctorCommand(),
		a.completionCommand(), a.versionCommand())
	return root
}

// run adapts a command's work to cobra.
func (a *app) run(fn func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		return fn(cmd.Context(), args)
	}
}

// online is run for work at the server of the chosen context.
func (a *app) online(fn func(ctx context.Context, s *server, args []string) error) func(*cobra.Command, []string) error {
	return a.run(func(ctx context.Context, args []string) error {
		s, err := a.connect(ctx)
		if err != nil {
			return err
		}
		return fn(ctx, s, args)
	})
}

// noun is a command that only has others under it.
func noun(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	choose(c)
	c.AddCommand(subs...)
	return c
}

// choose makes a command that needs a further word say so, where cobra would
// print its help and succeed.
func choose(c *cobra.Command) {
	// A word that is wrong matters more than a flag that belongs to the
	// right one.
	c.FParseErrWhitelist.UnknownFlags = true
	c.SuggestionsMinimumDistance = 2
	c.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		e := usagef("there is no command %q", cmd.CommandPath()+" "+args[0])
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			return e.withNext("Did you mean: %s %s", cmd.CommandPath(), s[0])
		}
		return e.withNext("See: %s --help", cmd.CommandPath())
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cmd.SetOut(cmd.ErrOrStderr())
		_ = cmd.Help()
		fmt.Fprintln(cmd.ErrOrStderr())
		return usagef("%s needs a command", cmd.CommandPath())
	}
}

// formatFlag gives a command the choice of how it prints. Commands that write
// a file keep -o for the file.
func (a *app) formatFlag(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&a.format, "format", "o", formatTable, "how to print: table, json or yaml")
	return c
}

func (a *app) formatFlagLong(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.format, "format", formatTable, "how to print: table, json or yaml")
	return c
}
