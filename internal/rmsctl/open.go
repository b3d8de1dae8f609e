package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/container"
)

// source is a protected file that is open for reading, and the server of its
// tenant.
type source struct {
	*os.File
	info   os.FileInfo
	server *server
}

// openSource opens a protected file and connects to its tenant's server: the
// one in the user's contexts, wherever the file says it came from.
func (a *app) openSource(ctx context.Context, path string) (*source, error) {
	tenant, _, err := identify(path)
	if err != nil {
		return nil, err
	}
	c, err := a.chooseFor(tenant)
	if err != nil {
		return nil, err
	}
	s, err := a.dial(ctx, c)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &source{f, info, s}, nil
}

// acquire opens the document to exercise a right.
func (s *source) acquire(ctx context.Context, right rms.Right, byID bool, options ...rms.OpenOption) (*rms.Document, error) {
	if byID {
		options = append(options, rms.ByID())
	}
	return s.server.Open(ctx, s, s.info.Size(), right, options...)
}

func byIDFlag(c *cobra.Command, v *bool) {
	c.Flags().BoolVar(v, "by-id", false, "do not look at the license in the file, which may be damaged; the server knows the document by its ID")
}

func (a *app) openCommand() *cobra.Command {
	var with, recovery string
	var byID bool
	c := &cobra.Command{
		Use:   "open FILE [--with PROGRAM]",
		Short: "Show a protected document; no clear copy stays behind",
		Long: `Show a protected document. It is decrypted into a folder only you can enter,
verified to its last byte, shown by a program, and removed when the program ends.
This needs the right VIEW.`,
		Example: `  rmsctl open q3.pdf.rms
  rmsctl open q3.pdf.rms --with okular`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error { return a.open(ctx, args[0], with, recovery, byID) }),
	}
	recoveryFlag(c, &recovery)
	c.Flags().StringVar(&with, "with", "", "the program that shows it; it gets the clear file's path as its last argument")
	byIDFlag(c, &byID)
	return c
}

func (a *app) open(ctx context.Context, path, with, recovery string, byID bool) (err error) {
	options, err := recoveryOption(recovery)
	if err != nil {
		return err
	}
	src, err := a.openSource(ctx, path)
	if err != nil {
		return err
	}
	defer src.Close()
	doc, err := src.acquire(ctx, rms.RightView, byID, options...)
	if err != nil {
		return err
	}
	defer doc.Close() //nolint:errcheck // it never fails
	p, err := a.chooseProgram(with, doc.MediaType)
	if err != nil {
		return err
	}
	folder, err := newPrivateFolder(doc.Size)
	if err != nil {
		return err
	}
	defer func() {
		if e := folder.remove(); e != nil {
			err = errors.Join(err, fmt.Errorf("clear text is left in %s, remove it: %w", folder.path, e))
		}
	}()
	clearText := filepath.Join(folder.path, container.CleanName(doc.Name))
	if err := writeClear(ctx, clearText, doc); err != nil {
		return err
	}
	if doc.LicenseDamaged {
		a.warnf("the license in the file is damaged; the server knew the document all the same")
	}
	if doc.BreakGlass {
		a.sayf("BREAK-GLASS: opened by recovery %s, event %s", recovery, doc.Event)
	} else {
		a.sayf("you have %s on it, event %s", describeRights(doc.Rights), doc.Event)
	}
	return a.show(ctx, p, clearText)
}

// writeClear writes a document for its reader alone.
func writeClear(ctx context.Context, path string, doc io.WriterTo) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the clear text: %w", err)
	}
	_, err = doc.WriteTo(interruptible{ctx, f})
	return errors.Join(err, f.Close())
}

func (a *app) unprotectCommand() *cobra.Command {
	var out, recovery string
	var byID bool
	c := &cobra.Command{
		Use:   "unprotect FILE [-o OUT]",
		Short: "Write a document without its protection",
		Long: `Write a document without its protection. This needs the right EXPORT. The clear
file appears complete or not at all, and never replaces another.`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error { return a.unprotect(ctx, args[0], out, recovery, byID) }),
	}
	recoveryFlag(c, &recovery)
	c.Flags().StringVarP(&out, "output", "o", "", "the clear file (default: FILE without .rms)")
	byIDFlag(c, &byID)
	return a.formatFlagLong(c)
}

// exported is a clear file, as it is printed.
type exported struct {
	File  string `json:"file"`
	Size  int64  `json:"bytes"`
	Name  string `json:"original_name"`
	Type  string `json:"media_type"`
	Event string `json:"event"`
}

func (a *app) unprotect(ctx context.Context, path, out, recovery string, byID bool) error {
	options, err := recoveryOption(recovery)
	if err != nil {
		return err
	}
	if out == "" {
		bare, ok := strings.CutSuffix(path, rms.Suffix)
		if !ok || filepath.Base(bare) == "" || strings.HasSuffix(bare, string(filepath.Separator)) {
			return usagef("%s does not end with %s", path, rms.Suffix).withNext("Name the clear file with -o")
		}
		out = bare
	}
	src, err := a.openSource(ctx, path)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := createOutput(out)
	if err != nil {
		return err
	}
	defer dst.discard()
	doc, err := src.acquire(ctx, rms.RightExport, byID, options...)
	if err != nil {
		return err
	}
	defer doc.Close() //nolint:errcheck // it never fails
	if doc.BreakGlass {
		a.sayf("BREAK-GLASS: opened by recovery %s, event %s", recovery, doc.Event)
	}
	if _, err := doc.WriteTo(interruptible{ctx, dst}); err != nil {
		return err
	}
	if !doc.ModTime.IsZero() {
		_ = os.Chtimes(dst.Name(), doc.ModTime, doc.ModTime) // as it was, if it can be
	}
	if err := dst.keep(); err != nil {
		return err
	}
	done := exported{File: out, Size: doc.Size, Name: doc.Name, Type: doc.MediaType, Event: doc.Event.String()}
	if err := a.emit(done, func() { a.outf("%s  %s  event %s", out, showSize(doc.Size), doc.Event) }); err != nil {
		return err
	}
	a.next("what is in it is not protected any more; protect it again: rmsctl protect %s", out)
	return nil
}

func (a *app) reprotectCommand() *cobra.Command {
	var f policyFlags
	var out string
	var byID bool
	c := &cobra.Command{
		Use:   "reprotect FILE (--template NAME | --to PRINCIPAL=RIGHTS)",
		Short: "Protect a document anew: new policy, new license, new key, the old document as its parent",
		Long: `Protect a document anew, under another policy and a new key; the record names the
old document as its parent. This needs the right EXPORT. No clear text touches the
disk. Copies of the old file still open under the old license until that is revoked.`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			o, err := f.options(a.now())
			if err != nil {
				return err
			}
			return a.reprotect(ctx, args[0], out, o, byID)
		}),
	}
	f.register(c)
	c.Flags().StringVarP(&out, "output", "o", "", "the new file (default: in place of FILE)")
	byIDFlag(c, &byID)
	return a.formatFlagLong(c)
}

func (a *app) reprotect(ctx context.Context, path, out string, o rms.ProtectOptions, byID bool) error {
	src, err := a.openSource(ctx, path)
	if err != nil {
		return err
	}
	defer src.Close()
	var dst *output
	if out == "" {
		out = path
		dst, err = replaceOutput(path)
	} else {
		dst, err = createOutput(out)
	}
	if err != nil {
		return err
	}
	defer dst.discard()
	start := a.now()
	doc, err := src.acquire(ctx, rms.RightExport, byID)
	if err != nil {
		return err
	}
	defer doc.Close() //nolint:errcheck // it never fails
	o.Name, o.MediaType, o.ModTime, o.Size = doc.Name, doc.MediaType, doc.ModTime, doc.Size
	o.Parents = []rms.ContentID{doc.License}
	p, err := src.server.Protect(ctx, interruptible{ctx, dst}, io.NewSectionReader(doc, 0, doc.Size), o)
	if err != nil {
		return err
	}
	if err := errors.Join(dst.Chmod(src.info.Mode().Perm()), dst.keep()); err != nil {
		return err
	}
	done := protection{
		File: out, License: p.License.String(), Event: p.Event.String(), Size: p.Size, Written: p.Written,
		Seconds: a.now().Sub(start).Seconds(), Parent: doc.License.String(),
	}
	err = a.emit(done, func() {
		a.outf("%s  %s in %.2f s  license %s, made from %s", out, showSize(p.Written), done.Seconds, done.License, done.Parent)
	})
	if err != nil {
		return err
	}
	a.next("end the old one, copies of which still open: rmsctl license revoke %s", doc.License)
	return nil
}
