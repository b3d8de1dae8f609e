package rmsd

import (
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
)

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
			return daemon.Try(cmd.Context(), cfg, cmd.OutOrStdout())
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
				data, development = daemon.StoreDir(data)
			}
			return daemon.Fsck(cmd.Context(), data, development, cmd.OutOrStdout())
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&data, "data", "", "the directory of rmsd dev, or a data directory, in place of a configuration")
	return c
}
