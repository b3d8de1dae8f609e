package rmsd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/vocab"
)

func importKeyCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "import-key -o FILE", Short: "Make the key that a tenant is sent to here, and print its public half", Args: noArguments,
		Long: `Make a key for one move of a tenant to this service. The file opens what is
sealed to it and stays here, readable by you alone; what is printed goes to the
source, where rmsctl tenant export takes it with --to. Compare the fingerprint
with whoever approves the export, on another way than the file went.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return vocab.Errorf(vocab.ReasonRequestInvalid, "where the key goes is missing").WithNext("Add -o FILE")
			}
			secret, public, fingerprint, err := daemon.NewImportKey()
			if err != nil {
				return err
			}
			defer clear(secret)
			if err := writeNew(output, secret); err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), public)
			fmt.Fprintf(cmd.ErrOrStderr(), "fingerprint %x\n%s opens what is sealed to it: keep it to yourself, and destroy it after the import\n", fingerprint, output)
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the file for the key; it must not exist")
	return c
}

// writeNew writes a file that must not exist, for its owner alone, durably.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "%s exists and is not overwritten", path).WithNext("Choose another name")
	}
	if err != nil {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "%w", err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		var d *os.File
		if d, err = os.Open(filepath.Dir(path)); err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
	}
	if err != nil {
		return vocab.Errorf(vocab.ReasonStoreFull, "%s was not written: %w", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}

func importCommand() *cobra.Command {
	var path, root string
	o := daemon.ImportOptions{}
	c := &cobra.Command{
		Use: "import FILE --tenant NAME --key FILE --root KEYID", Short: "Bring a tenant here from an archive of another service, while no rmsd runs", Args: oneArchive,
		Long: `Bring a tenant here that was exported elsewhere with rmsctl tenant export. Its
file must be in tenants_dir, with the name it had, and name the custodian whose
keys root and sign are the tenant's from now on. All of the archive is read and
verified before anything is written; an import that is broken off leaves nothing
that is served, and is simply run again.

Nothing here can tell whether the source was thawed since. Ask its auditor for
the events after the one that is printed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if o.Root, err = parseKeyID(root); err != nil {
				return err
			}
			if o.Key == "" {
				return vocab.Errorf(vocab.ReasonRequestInvalid, "what opens the archive is missing").WithNext("Add --key FILE")
			}
			o.Archive = args[0]
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			o.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
			out, err := daemon.Import(cmd.Context(), cfg, o)
			if out != nil {
				printImported(cmd.OutOrStdout(), o.Tenant, o.Key, out)
			}
			return err
		},
	}
	configFlag(c, &path)
	c.Flags().StringVar(&o.Tenant, "tenant", "", "the tenant's name, as it was and stays (needed)")
	c.Flags().StringVar(&o.Key, "key", "", "the file that rmsd import-key made (needed)")
	c.Flags().StringVar(&root, "root", "", "the key ID of the source's root, as its people tell it (needed)")
	c.Flags().StringVar(&o.Custodian, "custodian", "", "which custodian of the tenant's file, if it names several")
	return c
}

// oneArchive wants exactly one argument.
func oneArchive(c *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return vocab.Errorf(vocab.ReasonRequestInvalid, "%s needs the archive's file", c.CommandPath()).WithNext("See %s --help", c.CommandPath())
}

// parseKeyID reads a root's key ID as rmsctl login and rmsctl tenant export show
// it.
func parseKeyID(s string) (id [32]byte, err error) {
	text, ok := strings.CutPrefix(s, "SHA256:")
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(b) != len(id) {
		return id, vocab.Errorf(vocab.ReasonRequestInvalid, "--root is the key ID of the source's root: SHA256: and 43 characters of base64").
			WithNext("rmsctl login shows it there")
	}
	return [32]byte(b), nil
}

func printImported(out io.Writer, name, keyFile string, i *daemon.Imported) {
	fmt.Fprintf(out, "tenant %s (%s) is here\n", name, i.Tenant)
	fmt.Fprintf(out, "archive %s  %d bytes, SHA-256 %x, from %q\n", i.Archive, i.Bytes, i.SHA256, i.Source)
	fmt.Fprintf(out, "log of %d events, root %x; it goes on with event %s\n", i.Size, i.Root, i.Event)
	fmt.Fprintf(out, "%d licenses, %d keys of generations under the key here\n", i.Licenses, i.Secrets)
	if i.Lost > 0 {
		fmt.Fprintf(out, "WARNING %d keys of generations were not in the archive: what is under them does not open, as at the source\n", i.Lost)
	}
	for _, c := range i.Closed {
		fmt.Fprintf(out, "WARNING license %s does not open; it did not at the source either\n", c)
	}
	if i.ClosedMore > 0 {
		fmt.Fprintf(out, "WARNING nor do %d more\n", i.ClosedMore)
	}
	fmt.Fprintf(out, "whether the source was thawed since is not known here: ask for its events after %s\n", i.Frozen)
	fmt.Fprintf(out, "next: start rmsd; people sign in anew with rmsctl login; destroy %s\n", keyFile)
}
