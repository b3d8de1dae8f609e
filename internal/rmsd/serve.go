package rmsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/vocab"
)

// stopWithin is how long calls under way may take when the daemon stops.
const stopWithin = 20 * time.Second

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
			d, err := daemon.Start(cmd.Context(), cfg, daemon.Options{Log: log})
			if err != nil {
				return err
			}
			log.Info("serving", "listen", d.Addr(), "version", daemon.Version(), "tenants", len(cfg.Tenants))
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
func serveUntilStopped(ctx context.Context, d *daemon.Daemon, closeAll func(context.Context) error, hup <-chan os.Signal, log *slog.Logger) error {
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
	var o daemon.DevOptions
	var level slog.Level
	var custodians string
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
			if custodians != "" {
				var err error
				if o.Custodians, err = readCustodians(custodians); err != nil {
					return err
				}
			}
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			hup := hangups()
			defer signal.Stop(hup)
			d, err := daemon.StartDev(cmd.Context(), o)
			if err != nil {
				return err
			}
			kind := "embedded keyring"
			if o.Custodians != nil {
				kind = "keys in Vault"
			}
			fmt.Fprintf(cmd.OutOrStdout(), `DEVELOPMENT  rmsd %s on %s, TLS, %s, test identities: nothing is protected
data         %s
contexts     export RMS_CONFIG_DIR=%s
next         rmsctl -c dev-alice protect FILE --template finance-internal
             rmsctl -c dev-bob open FILE.rms
`, daemon.Version(), d.Addr(), kind, d.Dir(), d.ContextsDir())
			return serveUntilStopped(cmd.Context(), d.Daemon, d.Close, hup, o.Log)
		},
	}
	c.Flags().StringVar(&o.Dir, "data", "", "directory for everything (default: a new temporary one)")
	c.Flags().StringVar(&o.Listen, "listen", "127.0.0.1:0", "loopback address to listen on")
	c.Flags().StringVar(&custodians, "custodians", "", "file with what stands under custodians in a tenant's file, in place of the embedded keyring")
	c.Flags().DurationVar(&o.SyncEvery, "sync-every", 0, "how often to look at the custodian (default 5m)")
	logLevel(c, &level)
	return c
}

// readCustodians reads what stands under custodians in a tenant's file.
func readCustodians(path string) (map[string]config.Custodian, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%w", err)
	}
	out := map[string]config.Custodian{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&out); err == nil && len(out) == 0 {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s names no custodian", path)
	} else if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "%s: %w", path, err)
	}
	return out, nil
}
