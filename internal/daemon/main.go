package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/identity"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// stopWithin is how long calls under way may take when the daemon stops.
const stopWithin = 20 * time.Second

// errUsage says that the words of the command are off.
var errUsage = errors.New("usage")

// Main is rmsd. It returns the exit code: 0 for success, 1 if it failed, 2 if
// the words of the command are off, 8 if a check found damage.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
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
	root.AddCommand(serveCommand(), devCommand(), checkCommand(), fsckCommand(), statusCommand(), reloadCommand(), versionCommand())
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

func serveCommand() *cobra.Command {
	var path string
	var level slog.Level
	c := &cobra.Command{
		Use: "serve", Short: "Serve, as the configuration says", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			hup := hangups()
			defer signal.Stop(hup)
			d, err := Start(cmd.Context(), cfg, Options{Log: log})
			if err != nil {
				return err
			}
			log.Info("serving", "listen", d.Addr(), "version", Version(), "tenants", len(cfg.Tenants))
			return serveUntilStopped(cmd.Context(), d, d.Close, hup, log)
		},
	}
	configFlag(c, &path)
	logLevel(c, &level)
	return c
}

// hangups receives SIGHUP from now on, so that one that comes during the start
// does not end the process.
func hangups() chan os.Signal {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	return hup
}

// serveUntilStopped waits for the end of ctx or of a listener. A hangup reloads.
func serveUntilStopped(ctx context.Context, d *Daemon, closeAll func(context.Context) error, hup <-chan os.Signal, log *slog.Logger) error {
	var failed error
	for stopped := false; !stopped; {
		select {
		case <-ctx.Done():
			stopped = true
		case failed = <-d.Failed():
			stopped = true
		case <-hup:
			if changes, err := d.Reload(ctx); err != nil {
				log.Error("reload refused, nothing changed", "error", err)
			} else {
				log.Info("reloaded", "changes", changes)
			}
		}
	}
	log.Info("stopping")
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	return errors.Join(failed, closeAll(end))
}

func devCommand() *cobra.Command {
	var o DevOptions
	var level slog.Level
	var custodian string
	c := &cobra.Command{
		Use: "dev", Short: "Run a daemon with test identities on this machine, for trying and developing", Args: noArguments,
		Long: `rmsd dev is the real daemon on loopback, with an embedded keyring, self-signed
TLS, and an OpenID provider whose test users need no password: alice (publishes,
tenant-admin, policy-admin), bob, carla and dan (key custodians), erin (auditor),
mallory. Nothing it protects is protected from anyone on this machine.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Dir == "" {
				dir, err := os.MkdirTemp("", "rmsd-dev-")
				if err != nil {
					return err
				}
				o.Dir = dir
			}
			if custodian != "" {
				var err error
				if o.Custodian, err = readCustodian(custodian); err != nil {
					return err
				}
			}
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			hup := hangups()
			defer signal.Stop(hup)
			d, err := StartDev(cmd.Context(), o)
			if err != nil {
				return err
			}
			kind := "embedded keyring"
			if o.Custodian != nil {
				kind = "keys in Vault"
			}
			fmt.Fprintf(cmd.OutOrStdout(), `DEVELOPMENT  rmsd %s on %s, TLS, %s, test identities: nothing is protected
data         %s
contexts     export RMS_CONFIG_DIR=%s
next         rmsctl -c dev-alice protect FILE --template finance-internal
             rmsctl -c dev-bob open FILE.rms
`, Version(), d.Addr(), kind, d.dir, d.ContextsDir())
			return serveUntilStopped(cmd.Context(), d.Daemon, d.Close, hup, o.Log)
		},
	}
	c.Flags().StringVar(&o.Dir, "data", "", "directory for everything (default: a new temporary one)")
	c.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:0", "loopback address to listen on")
	c.Flags().StringVar(&custodian, "custodian", "", "file with the custodian part of a tenant's file, in place of the embedded keyring")
	c.Flags().DurationVar(&o.SyncEvery, "sync-every", 0, "how often to look at the custodian (default 5m)")
	logLevel(c, &level)
	return c
}

// readCustodian reads the custodian part of a tenant's file.
func readCustodian(path string) (*config.Custodian, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%w", err)
	}
	out := new(config.Custodian)
	if err := yaml.Unmarshal(b, out); err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s: %w", path, err)
	}
	return out, nil
}

func checkCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "check-config", Short: "Check the configuration, and try each identity provider and custodian", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if err := printConfig(cmd.OutOrStdout(), cfg); err != nil {
				return err
			}
			return tryAll(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
	configFlag(c, &path)
	return c
}

// printConfig prints the values in effect: rmsd.yaml and each tenant's file, as
// YAML documents. No file holds a secret, only the paths of some.
func printConfig(out io.Writer, cfg *config.Config) error {
	e := yaml.NewEncoder(out)
	e.SetIndent(2)
	if err := e.Encode(cfg.File); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Tenants)) {
		if err := e.Encode(cfg.Tenants[name]); err != nil {
			return err
		}
	}
	return e.Close()
}

// tryAll tries everything the configuration points at, and reports all that
// fails before it fails.
func tryAll(ctx context.Context, cfg *config.Config, out io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	var all error
	report := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(out, "# FAILED  %s: %v%s\n", what, err, causeOf(err))
			all = errors.Join(all, err)
			return
		}
		fmt.Fprintf(out, "# ok      %s\n", what)
	}
	certs, err := loadCertificates(cfg.TLS, log)
	if err == nil {
		err = certs.covers(cfg.PublicName)
	}
	report("tls", err)
	v, err := identity.NewVerifier(cfg.Identity(), nil, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for _, name := range slices.Sorted(maps.Keys(cfg.IdentityProviders)) {
		report("identity provider "+name, v.Probe(ctx, name))
	}
	d := &Daemon{cfg: cfg, opts: Options{Log: log}}
	for _, name := range slices.Sorted(maps.Keys(cfg.Tenants)) {
		file := cfg.Tenants[name]
		_, _, open := d.custodian(file, cfg.Tenants)
		if e := file.Custodian.Embedded; e != nil {
			// Opening a keyring that is not there would make it.
			if _, err := os.Stat(e.Keyring); errors.Is(err, os.ErrNotExist) {
				fmt.Fprintf(out, "# ok      tenant %s: there is no keyring yet; its first start makes one\n", name)
				continue
			}
		}
		report("tenant "+name+": custodian", func() error {
			if err := readSecrets(file.Custodian, false); err != nil {
				return err
			}
			c, err := open(vocab.NewCustodianID())
			if err != nil {
				return err
			}
			return errors.Join(c.Check(ctx), c.Close())
		}())
	}
	if all != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the configuration does not work").Because(all)
	}
	return nil
}

// causeOf is what is behind an error, which its own sentence does not say.
func causeOf(err error) string {
	e, ok := errors.AsType[*vocab.Error](err)
	if !ok || e.Unwrap() == nil || strings.Contains(e.Message, e.Unwrap().Error()) {
		return ""
	}
	return ": " + e.Unwrap().Error()
}

// readSecrets looks whether the files of a custodian's secrets can be read, and
// not by everyone. At a start they may be absent: a wrapped secret is delivered
// once, and its absence is reported when it is needed.
func readSecrets(c config.Custodian, mayBeAbsent bool) error {
	paths := []string{c.TokenFile}
	if a := c.AppRole; a != nil {
		paths = append(paths, a.SecretIDFile) // a role ID is no secret
	}
	for _, path := range paths {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); mayBeAbsent && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if _, err := config.SecretFile(path); err != nil {
			return err
		}
	}
	return nil
}

func fsckCommand() *cobra.Command {
	var path, data string
	c := &cobra.Command{
		Use: "fsck", Short: "Verify the store, its indexes and every tenant's log, while no rmsd runs on it", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			development := false
			if data == "" {
				cfg, err := config.Load(path)
				if err != nil {
					return err
				}
				data = cfg.DataDir
			} else {
				// The directory of rmsd dev, or the data directory itself.
				if _, err := os.Stat(filepath.Join(data, "data", storeFile)); err == nil {
					data, development = filepath.Join(data, "data"), true
				}
			}
			return fsck(cmd.Context(), data, development, cmd.OutOrStdout())
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&data, "data", "", "the directory of rmsd dev, or a data directory, in place of a configuration")
	return c
}

func fsck(ctx context.Context, dir string, development bool, out io.Writer) error {
	if _, err := os.Stat(filepath.Join(dir, storeFile)); err != nil {
		return vocab.Errorf(vocab.ReasonConfigurationInvalid, "there is no store: %w", err)
	}
	// Whose store it is does not matter for looking at it.
	s, err := openStore(dir, development)
	if err != nil && vocab.ReasonOf(err) == vocab.ReasonConfigurationInvalid {
		if other, otherErr := openStore(dir, !development); otherErr == nil {
			s, err = other, nil
		}
	}
	if err != nil {
		return err
	}
	r, err := checkStore(ctx, s, audit.New(s), filepath.Join(dir, checkpointDir))
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	for _, p := range r.problems {
		fmt.Fprintln(out, p)
	}
	fmt.Fprintf(out, "%d records and %d events read, %d problems\n", r.records, r.events, len(r.problems))
	if len(r.problems) > 0 {
		return vocab.Errorf(vocab.ReasonStoreDamaged, "the store is damaged").WithNext("Keep a copy of it and restore a backup")
	}
	return nil
}

// operatorClient calls the daemon of a configuration over its socket.
func operatorClient(path, data string) (rmsv1.OperatorServiceClient, func() error, error) {
	if data != "" {
		path = filepath.Join(data, "rmsd.yaml")
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient("passthrough:///rmsd", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", cfg.OperatorSocket)
		}))
	if err != nil {
		return nil, nil, err
	}
	return rmsv1.NewOperatorServiceClient(conn), conn.Close, nil
}

// operatorError turns the error of a call over the socket into what the daemon
// said, or that there is none.
func operatorError(err error) error {
	said := status.Convert(err)
	for _, detail := range said.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return vocab.Errorf(vocab.Reason(info.GetReason()), "%s", strings.TrimSuffix(said.Message(), "."))
		}
	}
	return vocab.Errorf(vocab.ReasonServerUnreachable, "no rmsd answers on its operator socket").
		WithNext("Is it running, and may you open the socket? %s", said.Message()).Because(err)
}

func statusCommand() *cobra.Command {
	var path, data, format string
	c := &cobra.Command{
		Use: "status", Short: "Say how the running daemon and its tenants are", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, done, err := operatorClient(path, data)
			if err != nil {
				return err
			}
			defer done() //nolint:errcheck // nothing is left to lose
			ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
			defer cancel()
			s, err := client.Status(ctx, &rmsv1.StatusRequest{})
			if err != nil {
				return operatorError(err)
			}
			if format == "json" {
				b, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(s)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), string(b))
				return nil
			}
			return printStatus(cmd.OutOrStdout(), s)
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&data, "data", "", "the directory of rmsd dev, in place of a configuration")
	c.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return c
}

func printStatus(out io.Writer, s *rmsv1.StatusResponse) error {
	dev := ""
	if s.GetDevelopment() {
		dev = "  DEVELOPMENT"
	}
	fmt.Fprintf(out, "rmsd %s  pid %d  on %s  since %s  store %d MiB%s\n",
		s.GetVersion(), s.GetPid(), s.GetListen(), s.GetStartTime().AsTime().Format(time.RFC3339), s.GetStoreBytes()>>20, dev)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "TENANT\tSERVING\tCUSTODIAN\tLICENSES\tEVENTS\tWHY NOT")
	for _, t := range s.GetTenants() {
		serving := "yes"
		if !t.GetServing() {
			serving = "NO"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", t.GetTenant(), serving, t.GetCustodian(), t.GetLicenses(), t.GetEvents(), t.GetMessage())
	}
	return w.Flush()
}

func reloadCommand() *cobra.Command {
	var path, data string
	c := &cobra.Command{
		Use: "reload", Short: "Have the running daemon read certificates and tenants' files again", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, done, err := operatorClient(path, data)
			if err != nil {
				return err
			}
			defer done() //nolint:errcheck // nothing is left to lose
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			r, err := client.Reload(ctx, &rmsv1.ReloadRequest{})
			if err != nil {
				return operatorError(err)
			}
			for _, line := range r.GetChanges() {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d changes\n", len(r.GetChanges()))
			return nil
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&data, "data", "", "the directory of rmsd dev, in place of a configuration")
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), "rmsd", Version())
			return nil
		},
	}
}
