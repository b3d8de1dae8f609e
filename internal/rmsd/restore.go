package rmsd

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/vocab"
)

func restoreCommand() *cobra.Command {
	var path, data, identity string
	o := daemon.RestoreOptions{Now: time.Now}
	c := &cobra.Command{
		Use: "restore FILE --identity FILE --data DIR", Short: "Make a data directory of a backup: whole and checked, or not at all", Args: oneFile,
		Long: `Restore a backup into a data directory that is not there or is empty. It is made
aside, checked as fsck does, and moved to its place.

A backup is older than what was lost. What was revoked, disabled or deleted since
must not come back in silence, so the logs are compared with the newest exported
checkpoints you have: --checkpoints DIR, the directory "checkpoints" of the old
data directory, or a copy of it. If events are missing,

  --events FILE         exported events (rmsctl audit export) that lead from the
                        backup to the checkpoint: what they took away is taken
                        away again, as far as they say enough
  --accept-loss REASON  what is missing is lost; the reason is recorded

and in both cases the tenant is held: it neither publishes nor opens until one
tenant-admin asks for its release and another approves.`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if data == "" {
				cfg, err := config.Load(path)
				if err != nil {
					return err
				}
				data = cfg.DataDir
			}
			if o.Identities, err = readIdentities(identity); err != nil {
				return err
			}
			if cmd.Flags().Changed("accept-loss") && o.AcceptLoss == "" {
				return vocab.Errorf(vocab.ReasonRequestInvalid, "--accept-loss needs a reason")
			}
			o.File, o.DataDir, o.Out, o.Log = args[0], data, cmd.OutOrStdout(), quiet(cmd.ErrOrStderr())
			return daemon.Restore(cmd.Context(), o)
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&data, "data", "", "the data directory to make, in place of the configuration's")
	c.Flags().StringVar(&identity, "identity", "", "the file with the key that opens the backup")
	c.Flags().StringVar(&o.Checkpoints, "checkpoints", "", "a directory of exported checkpoints that is newer than the backup")
	c.Flags().StringArrayVar(&o.Events, "events", nil, "a file of exported events; can be repeated")
	c.Flags().StringVar(&o.AcceptLoss, "accept-loss", "", "why what is missing may be missing")
	return c
}
