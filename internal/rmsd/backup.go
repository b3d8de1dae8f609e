package rmsd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/backup"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func backupCommand() *cobra.Command {
	var at place
	var output, keepUntil string
	var recipients []string
	c := &cobra.Command{
		Use: "backup -o FILE --recipient KEY|FILE", Short: "Write an encrypted backup of the store, while it is served or not", Args: noArguments,
		Long: `Write a consistent copy of the store, encrypted to age recipients of the
post-quantum kind (rmsd backup keygen makes one). A running daemon goes on
serving; of one that is stopped the data directory is read. The file appears
under its name only when all of it is on disk and was read back.

Every tenant's log says that there is a backup before the first byte is
written: until you tell it otherwise (rmsd backup forget) its keys count as
needed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, err := readRecipients(recipients)
			if err != nil {
				return err
			}
			if output == "" {
				return vocab.Errorf(vocab.ReasonRequestInvalid, "where the backup goes is missing").WithNext("Add -o FILE")
			}
			until, err := parseUntil(keepUntil, time.Now())
			if err != nil {
				return err
			}
			return at.backup(cmd.Context(), output, to, until, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	at.flags(c)
	c.Flags().StringVarP(&output, "output", "o", "", "the file to write; it must not exist")
	c.Flags().StringArrayVar(&recipients, "recipient", nil, "whom to encrypt to: age1pq1…, or a file with such lines; can be repeated")
	c.Flags().StringVar(&keepUntil, "keep-until", "", "until when copies are kept: a date, or +90d; unset: until it is forgotten")
	c.AddCommand(backupKeygenCommand(), backupVerifyCommand(), backupListCommand(), backupForgetCommand())
	return c
}

// place is where the store is: a configuration's, or a data directory.
type place struct{ config, data string }

func (p *place) flags(c *cobra.Command) {
	configFlag(c, &p.config)
	c.Flags().StringVar(&p.data, "data", "", "the directory of rmsd dev, or a data directory, in place of a configuration")
}

// load returns the configuration, nil for a data directory alone, and the data
// directory.
func (p *place) load() (cfg *config.Config, dir string, err error) {
	path := p.config
	if p.data != "" {
		path = filepath.Join(p.data, "rmsd.yaml")
		if info, _ := os.Stat(path); info == nil {
			dir, _ = daemon.StoreDir(p.data)
			return nil, dir, nil
		}
	}
	if cfg, err = config.Load(path); err != nil {
		return nil, "", err
	}
	return cfg, cfg.DataDir, nil
}

// running calls fn with the client of the daemon that serves the place; if there
// is none, stopped with the data directory.
func (p *place) running(ctx context.Context, fn func(rmsv1.OperatorServiceClient) error, stopped func(dir string) error) error {
	cfg, dir, err := p.load()
	if err != nil {
		return err
	}
	if cfg == nil {
		return stopped(dir)
	}
	client, done, err := clientOf(cfg)
	if err != nil {
		return err
	}
	defer done() //nolint:errcheck // nothing is left to lose
	probe, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := client.Status(probe, &rmsv1.StatusRequest{}); err != nil {
		said := operatorError(err)
		if vocab.ReasonOf(said) != vocab.ReasonServerUnreachable {
			return said
		}
		// Whether really nobody serves it, the store's lock says.
		err := stopped(dir)
		if vocab.ReasonOf(err) == vocab.ReasonConfigurationInvalid {
			return errors.Join(err, said)
		}
		return err
	}
	return fn(client)
}

// quiet is for what a stopped store has to log: nothing anybody waits for.
func quiet(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func readRecipients(words []string) ([]string, error) {
	var all []string
	for _, w := range words {
		if strings.HasPrefix(w, "age1") {
			all = append(all, w)
			continue
		}
		f, err := os.Open(w)
		if err != nil {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "--recipient is neither a key, age1pq1…, nor a file: %w", err)
		}
		more, err := backup.ReadRecipients(f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	_, err := backup.ParseRecipients(all)
	return all, err
}

// parseUntil reads a date, or a number of days from now; "" is the zero time.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	var until time.Time
	if days, ok := strings.CutPrefix(s, "+"); ok {
		n, err := strconv.Atoi(strings.TrimSuffix(days, "d"))
		if err != nil || !strings.HasSuffix(days, "d") || n < 1 || n > 36_500 {
			return until, vocab.Errorf(vocab.ReasonRequestInvalid, "--keep-until: %q is not a number of days such as +90d", s)
		}
		return now.UTC().Truncate(time.Second).AddDate(0, 0, n), nil
	}
	until, err := time.Parse(time.DateOnly, s)
	if err != nil {
		until, err = time.Parse(time.RFC3339, s)
	}
	if err != nil || !until.After(now) {
		return until, vocab.Errorf(vocab.ReasonRequestInvalid, "--keep-until: %q is not a date in the future, such as 2027-01-28 or +90d", s)
	}
	return until.UTC(), nil
}

// backup writes a backup to a file.
func (p *place) backup(ctx context.Context, path string, to []string, until time.Time, out, errs io.Writer) error {
	f, err := newFile(path)
	if err != nil {
		return err
	}
	defer f.discard()
	var made *daemon.BackupResult
	err = p.running(ctx, func(client rmsv1.OperatorServiceClient) (err error) {
		made, err = receive(ctx, client, to, until, f)
		return err
	}, func(dir string) error {
		recipients, err := backup.ParseRecipients(to)
		if err != nil {
			return err
		}
		made, err = daemon.BackupStore(ctx, dir, recipients, until, f, quiet(errs))
		return err
	})
	if err != nil {
		return fullOr(err)
	}
	if err := f.check(made); err != nil {
		return err
	}
	if err := f.keep(); err != nil {
		return err
	}
	fmt.Fprintf(out, "backup %s\n%s  %d bytes, SHA-256 %x, on disk and read back\n", made.ID, path, made.Bytes, made.SHA256)
	for _, line := range made.Tenants {
		fmt.Fprintln(out, "  "+line)
	}
	for _, line := range made.Warnings {
		fmt.Fprintln(out, "WARNING "+line)
	}
	if until.IsZero() {
		fmt.Fprintln(out, "kept until it is forgotten: rmsd backup forget")
	} else {
		fmt.Fprintln(out, "kept to "+until.Format(time.DateOnly))
	}
	p.besides(out)
	fmt.Fprintf(out, "next: try it where the identity is: rmsd backup verify %s --identity FILE\n", path)
	return nil
}

// receive takes a backup from a running daemon.
func receive(ctx context.Context, client rmsv1.OperatorServiceClient, to []string, until time.Time, w io.Writer) (*daemon.BackupResult, error) {
	req := &rmsv1.BackupRequest{Recipients: to}
	if !until.IsZero() {
		req.KeepUntil = timestamppb.New(until)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // of whoever stops taking it
	stream, err := client.Backup(ctx, req)
	if err != nil {
		return nil, operatorError(err)
	}
	id := ""
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, vocab.Errorf(vocab.ReasonServerUnreachable, "the daemon ended the backup before its end")
		}
		if err != nil {
			return nil, operatorError(err)
		}
		switch piece := r.GetPiece().(type) {
		case *rmsv1.BackupResponse_Begin_:
			id = piece.Begin.GetBackup()
		case *rmsv1.BackupResponse_Data:
			if _, err := w.Write(piece.Data); err != nil {
				return nil, err
			}
		case *rmsv1.BackupResponse_End_:
			e := piece.End
			if len(e.GetSha256()) != 32 {
				return nil, vocab.Errorf(vocab.ReasonInternal, "the daemon did not say what it sent")
			}
			return &daemon.BackupResult{ID: id, SHA256: [32]byte(e.GetSha256()), Bytes: e.GetBytes(), Tenants: e.GetTenants(), Warnings: e.GetWarnings()}, nil
		}
	}
}

// besides says what is not in a backup.
func (p *place) besides(out io.Writer) {
	fmt.Fprintln(out, "NOT in it, back it up beside it:")
	cfg, _, err := p.load()
	if err != nil || cfg == nil {
		fmt.Fprintln(out, "  the configuration, the tenants' files, the TLS key and certificate, and what they name: keyrings, secrets")
		return
	}
	fmt.Fprintf(out, "  %s, %s\n  %s, %s\n", cfg.Path, cfg.TenantsDir, cfg.TLS.Certificate, cfg.TLS.Key)
	for _, name := range slices.Sorted(maps.Keys(cfg.Tenants)) {
		for _, line := range keyPlaces(name, cfg.Tenants[name]) {
			fmt.Fprintln(out, "  "+line)
		}
	}
}

// keyPlaces says where what opens a tenant's content is kept.
func keyPlaces(name string, t config.Tenant) (lines []string) {
	for _, custodian := range t.CustodianNames() {
		c := t.Custodians[custodian]
		if e := c.Embedded; e != nil {
			lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s: its keyring %s %s, without which nothing of it ever opens again", name, e.Keyring, e.KeyFile)))
		}
		if v := c.Vault; v != nil {
			lines = append(lines, fmt.Sprintf("%s: its keys, in Vault at %s, mount %s: Vault's own backup", name, v.Address, v.Mount))
		}
	}
	return lines
}

func backupKeygenCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "keygen -o FILE", Short: "Make a key that opens backups, and print its recipient", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return vocab.Errorf(vocab.ReasonRequestInvalid, "where the key goes is missing").WithNext("Add -o FILE")
			}
			f, err := newFile(output)
			if err != nil {
				return err
			}
			defer f.discard()
			text, recipient, fingerprint, err := backup.Keygen()
			if err != nil {
				return err
			}
			defer clear(text)
			if _, err := f.Write(text); err != nil {
				return fullOr(err)
			}
			if err := f.keep(); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), recipient)
			fmt.Fprintf(cmd.ErrOrStderr(), "%s opens what is made for this recipient (%s).\nKeep it, and a copy of it, away from this machine: whoever has it and a backup reads the store.\n", output, fingerprint)
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the file for the key; it must not exist")
	return c
}

// readIdentities reads the file that opens a backup.
func readIdentities(path string) (*backup.Identities, error) {
	if path == "" {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "what opens the backup is missing").WithNext("Add --identity FILE")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the identity: %w", err)
	}
	defer f.Close()
	return backup.ReadIdentities(f)
}

func backupVerifyCommand() *cobra.Command {
	var identity, tmp string
	c := &cobra.Command{
		Use: "verify FILE [--identity FILE]", Short: "Check a backup: restore it aside, run fsck on it, and say what is in it", Args: oneFile,
		Long: `With the identity, the backup is opened and restored into a temporary directory,
which needs the room of the store and is removed again; fsck is run on it. Without
it only the shape and the hash are looked at: compare that with rmsd backup list.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			sealed, err := inspect(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s  %d bytes, %d recipients, SHA-256 %x\n", args[0], sealed.Bytes, sealed.Recipients, sealed.SHA256)
			if identity == "" {
				fmt.Fprintln(out, "not opened: compare the hash with rmsd backup list, or add --identity")
				return nil
			}
			ids, err := readIdentities(identity)
			if err != nil {
				return err
			}
			return daemon.VerifyBackup(cmd.Context(), args[0], ids, tmp, out)
		},
	}
	c.Flags().StringVar(&identity, "identity", "", "the file with the key that opens it")
	c.Flags().StringVar(&tmp, "tmp", os.TempDir(), "where to restore it aside; what is in it is not encrypted")
	return c
}

func inspect(path string) (*backup.Sealed, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the backup: %w", err)
	}
	defer f.Close()
	return backup.Inspect(f)
}

func backupListCommand() *cobra.Command {
	var at place
	var format string
	c := &cobra.Command{
		Use: "list", Short: "List the backups that were begun and not forgotten, and what they need", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list *rmsv1.ListBackupsResponse
			err := at.running(cmd.Context(), func(client rmsv1.OperatorServiceClient) (err error) {
				if list, err = client.ListBackups(cmd.Context(), &rmsv1.ListBackupsRequest{}); err != nil {
					return operatorError(err)
				}
				return nil
			}, func(dir string) (err error) {
				list, err = daemon.ListBackupsOf(cmd.Context(), dir, quiet(cmd.ErrOrStderr()))
				return err
			})
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), list)
			}
			for _, line := range list.GetWarnings() {
				fmt.Fprintln(cmd.ErrOrStderr(), "WARNING "+line)
			}
			return printBackups(cmd.OutOrStdout(), list.GetBackups())
		},
	}
	at.flags(c)
	c.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return c
}

func printJSON(out io.Writer, m proto.Message) error {
	b, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, string(b))
	return nil
}

func printBackups(out io.Writer, list []*rmsv1.BackupSet) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "BACKUP\tTENANT\tMADE\tKEPT TO\tWHOLE\tEVENTS\tSHA-256\tNEEDS")
	for _, b := range list {
		kept, whole, sum := "forgotten only", "perhaps", "-"
		if b.GetKeepUntil() != nil {
			kept = b.GetKeepUntil().AsTime().Format(time.DateOnly)
		}
		if b.GetComplete() {
			whole, sum = "yes", fmt.Sprintf("%x", b.GetSha256())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", b.GetBackup(), strings.TrimPrefix(b.GetTenant(), "tenants/"),
			b.GetCreateTime().AsTime().Format(time.RFC3339), kept, whole, b.GetLogSize(), sum,
			strings.Join(slices.Concat(b.GetKeyVersions(), b.GetGenerations()), ", "))
	}
	return w.Flush()
}

func backupForgetCommand() *cobra.Command {
	var at place
	var reason string
	c := &cobra.Command{
		Use: "forget BACKUP --reason WHY", Short: "Say that no copy of a backup is left: its keys are then not needed for it", Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			var done *rmsv1.ForgetBackupResponse
			err := at.running(cmd.Context(), func(client rmsv1.OperatorServiceClient) (err error) {
				if done, err = client.ForgetBackup(cmd.Context(), &rmsv1.ForgetBackupRequest{Backup: args[0], Reason: reason}); err != nil {
					return operatorError(err)
				}
				return nil
			}, func(dir string) (err error) {
				done, err = daemon.ForgetBackupOf(cmd.Context(), dir, args[0], reason, quiet(cmd.ErrOrStderr()))
				return err
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "forgotten in %d tenants\n", len(done.GetTenants()))
			return nil
		},
	}
	at.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why nothing is left of it; recorded for ever")
	return c
}

// oneFile asks for exactly one word.
func oneFile(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return vocab.Errorf(vocab.ReasonRequestInvalid, "%s takes one word, not %d", c.CommandPath(), len(args)).WithNext("See %s --help", c.CommandPath())
}

// check reads a file back and compares it with what was sent.
func (f *file) check(made *daemon.BackupResult) error {
	if err := f.Sync(); err != nil {
		return fullOr(err)
	}
	sealed, err := inspect(f.Name())
	if err != nil {
		return err
	}
	if sealed.Bytes != made.Bytes || !bytes.Equal(sealed.SHA256[:], made.SHA256[:]) {
		return vocab.Errorf(vocab.ReasonStoreDamaged, "what was read back is not what was written").WithNext("Look at the disk, and write to another")
	}
	return nil
}
