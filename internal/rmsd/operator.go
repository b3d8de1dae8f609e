package rmsd

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// operatorClient calls the daemon of a configuration over its socket.
func operatorClient(path, data string) (rmsv1.OperatorServiceClient, func() error, error) {
	if data != "" {
		path = filepath.Join(data, "rmsd.yaml")
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, nil, err
	}
	return clientOf(cfg)
}

// clientOf is operatorClient for a configuration that was read.
func clientOf(cfg *config.Config) (rmsv1.OperatorServiceClient, func() error, error) {
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
				return printJSON(cmd.OutOrStdout(), s)
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
