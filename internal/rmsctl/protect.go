package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

func (a *app) documentCommands() []*cobra.Command {
	return []*cobra.Command{a.protectCommand(), a.openCommand(), a.unprotectCommand(), a.inspectCommand(), a.reprotectCommand()}
}

// policyFlags say under which policy a document is protected.
type policyFlags struct {
	template                  string
	to                        []string
	terms                     termsFlags
	expires, offline          string
	doNotForward, encryptOnly bool
	title                     string
}

func (f *policyFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.template, "template", "", "follow this template")
	flags.StringArrayVar(&f.to, "to", nil, "ad hoc: PRINCIPAL=RIGHTS[,…], like bob@example.org=viewer (may be repeated)")
	f.terms.register(c, "ad hoc: ")
	flags.StringVar(&f.expires, "expires", "", "ad hoc: when the content expires, +30d or an RFC 3339 time")
	flags.StringVar(&f.offline, "offline", "max", "ad hoc: how long an open may be kept for use without the server: 0, a period like 7d, or max")
	flags.BoolVar(&f.doNotForward, "do-not-forward", false, "ad hoc: those of --to may read and answer, not forward, print or copy")
	flags.BoolVar(&f.encryptOnly, "encrypt-only", false, "ad hoc: those of --to may do everything but remove or change the protection")
	flags.StringVar(&f.title, "title", "", "what to call it in the server's record; the file's name is never sent")
}

// none reports whether no policy was named.
func (f *policyFlags) none() bool {
	return f.template == "" && len(f.to) == 0 && !f.terms.given() && f.expires == "" && f.offline == "max" && !f.doNotForward && !f.encryptOnly
}

// options makes the options of a protection.
func (f *policyFlags) options(now time.Time) (rms.ProtectOptions, error) {
	o := rms.ProtectOptions{Template: f.template, Title: f.title}
	if f.template != "" {
		if len(f.to) > 0 || f.terms.given() || f.expires != "" || f.offline != "max" || f.doNotForward || f.encryptOnly {
			return o, usagef("a template says who may open and until when: leave the flags for ad hoc policies out")
		}
		return o, nil
	}
	if len(f.to) == 0 {
		return o, usagef("say who may open it").
			withNext("Either --template NAME (names: rmsctl template list) or --to bob@example.org=viewer")
	}
	var err error
	if o.AdHoc, err = f.adHoc(now); err != nil {
		return o, err
	}
	if f.expires != "" {
		o.ExpireTime, err = parseInstant(f.expires, now)
	}
	if err == nil && f.offline != "max" {
		var d time.Duration
		if d, err = parseDuration(f.offline); err == nil {
			o.AdHoc.Offline = durationpb.New(d)
		}
	}
	return o, err
}

func (f *policyFlags) adHoc(now time.Time) (*rmsv1.AdHocPolicy, error) {
	if f.doNotForward && f.encryptOnly {
		return nil, usagef("--do-not-forward and --encrypt-only exclude each other")
	}
	if f.doNotForward || f.encryptOnly {
		if f.terms.given() {
			return nil, usagef("the recipients have no end and no conditions of their own").withNext("Use --expires to end the content")
		}
		people, err := parsePrincipals(f.to)
		if err != nil {
			return nil, usagef("%v", err).withNext("All recipients have the same rights: write --to without =RIGHTS")
		}
		var names []string
		for _, p := range people {
			names = append(names, p.String())
		}
		if f.doNotForward {
			return rms.DoNotForward(names...), nil
		}
		return rms.EncryptOnly(names...), nil
	}
	grants, err := f.terms.grants(f.to, now)
	if err != nil {
		return nil, err
	}
	p := rms.AdHoc()
	for _, g := range grants {
		p.Grants = append(p.Grants, grantProto(g))
	}
	return p, nil
}

func (a *app) protectCommand() *cobra.Command {
	var f policyFlags
	var out string
	var parents []string
	var remove bool
	c := &cobra.Command{
		Use:   "protect FILE (--template NAME | --to PRINCIPAL=RIGHTS | --parent DOCUMENT)",
		Short: "Encrypt a file so that only those whom a policy names can open it",
		Long: `Encrypt a file so that only those whom a policy names can open it. The content
is encrypted here; the server sees neither it nor the file's name.

--parent names the document that the file was made from, by editing it say. Without
a policy the new document keeps the parent's. Whoever may edit the parent and not
export it can do no more than that, and makes the document for the parent's owner.`,
		Example: `  rmsctl protect q3.pdf --template finance-internal
  rmsctl protect q3.pdf --to bob@fabrikam.com=viewer --until +30d
  rmsctl protect mail.eml --to bob@fabrikam.com --do-not-forward
  rmsctl protect q3-edited.pdf --parent q3.pdf.rms`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			o := rms.ProtectOptions{Title: f.title}
			if !f.none() || len(parents) == 0 {
				var err error
				if o, err = f.options(a.now()); err != nil {
					return err
				}
			}
			for _, p := range parents {
				id, err := contentID(p)
				if err != nil {
					return err
				}
				o.Parents = append(o.Parents, id)
			}
			return a.protect(ctx, args[0], or(out, args[0]+rms.Suffix), o, remove)
		}),
	}
	f.register(c)
	flags := c.Flags()
	flags.StringVarP(&out, "output", "o", "", "the protected file (default: FILE.rms)")
	flags.StringArrayVar(&parents, "parent", nil, "a document this one was made from: its file or its license's ID (may be repeated)")
	flags.BoolVar(&remove, "rm", false, "remove the original afterwards")
	return a.formatFlagLong(c)
}

// contentID reads the ID of a document from an argument or from its file.
func contentID(arg string) (vocab.ContentID, error) {
	if id, err := vocab.ParseContentID(arg); err == nil {
		return id, nil
	}
	_, id, err := identify(arg)
	return id, err
}

// protection is what was protected, as it is printed.
type protection struct {
	File    string  `json:"file"`
	License string  `json:"license"`
	Event   string  `json:"event"`
	Size    int64   `json:"content_bytes"`
	Written int64   `json:"file_bytes"`
	Seconds float64 `json:"seconds"`
	Removed bool    `json:"original_removed"`
	Parent  string  `json:"parent,omitempty"`
	Owner   string  `json:"owner,omitempty"`
}

func (a *app) protect(ctx context.Context, path, out string, o rms.ProtectOptions, remove bool) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return usagef("%s is not a file", path)
	}
	if _, _, err := identify(path); err == nil {
		return usagef("%s is protected already", path).withNext("To protect it otherwise: rmsctl reprotect %s", path)
	}
	o.Name, o.ModTime, o.Size = filepath.Base(path), st.ModTime(), st.Size()
	if o.MediaType, err = mediaType(path, src); err != nil {
		return err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	dst, err := createOutput(out)
	if err != nil {
		return err
	}
	defer dst.discard()
	start := a.now()
	p, err := s.Protect(ctx, interruptible{ctx, dst}, src, o)
	if err != nil {
		return err
	}
	// What is protected may be read as widely as the original was.
	if err := errors.Join(dst.Chmod(st.Mode().Perm()), dst.keep()); err != nil {
		return err
	}
	done := protection{
		File: out, License: p.License.String(), Event: p.Event.String(), Size: p.Size, Written: p.Written, Seconds: a.now().Sub(start).Seconds(),
	}
	if len(o.Parents) > 0 {
		done.Parent, done.Owner = o.Parents[0].String(), p.Record.GetOwner()
	}
	var kept error
	if remove {
		kept = removeOriginal(path, src, st)
		done.Removed = kept == nil
	}
	err = a.emit(done, func() {
		line := fmt.Sprintf("%s  %s in %.2f s  license %s", out, showSize(p.Written), done.Seconds, done.License)
		if done.Parent != "" {
			line += fmt.Sprintf(", made from %s, %s, owned by %s", done.Parent, policyName(p.Record), shortPrincipal(done.Owner))
		}
		a.outf("%s", line)
	})
	if err != nil || kept != nil {
		return errors.Join(err, kept)
	}
	if !remove {
		a.sayf("%s left in place; --rm removes it", path)
	}
	a.next("see who opens it: rmsctl license track %s", out)
	return nil
}

// removeOriginal removes what was protected, unless it is not what was read.
func removeOriginal(path string, src *os.File, before os.FileInfo) error {
	read, err := src.Stat()
	if err != nil {
		return err
	}
	now, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !os.SameFile(now, read) || read.Size() != before.Size() || !read.ModTime().Equal(before.ModTime()) {
		return &exitError{code: exitConflict, err: fmt.Errorf("%s changed while it was being protected, and was not removed", path)}
	}
	return os.Remove(path)
}

// mediaType guesses by the name, and otherwise by the first bytes.
func mediaType(path string, src io.ReaderAt) (string, error) {
	if t, _, err := mime.ParseMediaType(mime.TypeByExtension(filepath.Ext(path))); err == nil {
		return t, nil
	}
	head := make([]byte, 512) // what DetectContentType looks at
	n, err := src.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	t, _, err := mime.ParseMediaType(http.DetectContentType(head[:n]))
	return t, err
}

// interruptible ends a long write when the user does.
type interruptible struct {
	ctx context.Context
	io.Writer
}

func (w interruptible) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}

// describeRights names what somebody holds.
func describeRights(r vocab.Rights) string {
	if r == vocab.AllRights {
		return "all rights"
	}
	return policy.Describe(r)
}
