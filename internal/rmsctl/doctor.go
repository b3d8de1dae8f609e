package rmsctl

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/vocab"
)

// check is one thing doctor looked at.
type check struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"`
	exit   int
}

func (a *app) doctorCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "doctor [FILE]",
		Short: "Look for what is wrong: your contexts, the server, your sign-in, and a document",
		Args:  cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			var file string
			if len(args) == 1 {
				file = args[0]
			}
			checks := a.examine(ctx, file)
			worst := exitOK
			err := a.emit(checks, func() {
				for _, c := range checks {
					mark := "✓"
					if !c.OK {
						mark = "✗"
					}
					a.outf("%s %-12s %s", mark, c.What, c.Detail)
					if c.Next != "" {
						a.outf("  %-12s %s", "", c.Next)
					}
				}
			})
			for _, c := range checks {
				if worst == exitOK && !c.OK {
					worst = c.exit
				}
			}
			if err != nil || worst == exitOK {
				return err
			}
			return &exitError{code: worst, err: errors.New("something above is wrong")}
		}),
	})
}

// examine goes from near to far and stops where nothing further can be known.
func (a *app) examine(ctx context.Context, file string) []check {
	var checks []check
	add := func(what string, err error, detail string, args ...any) bool {
		c := check{What: what, OK: err == nil, Detail: fmt.Sprintf(detail, args...)}
		if err != nil {
			f := describe(err)
			c.Detail, c.Next, c.exit = f.Message, f.Next, f.Exit
			if f.Reason != "" {
				c.Detail += " (" + f.Reason + ")"
			}
		}
		checks = append(checks, c)
		return err == nil
	}
	all, err := a.folder.All()
	if !add("contexts", err, "%s in %s", plural(len(all), "context", "contexts"), a.folder.Path()) {
		return checks
	}
	c, err := a.examinedContext(file, add)
	if c == nil {
		if err != nil {
			add("context", err, "")
		}
		return checks
	}
	add("context", nil, "%s: tenant %s (%s) at %s", c.Name, c.Tenant, c.TenantID, c.Server)
	trust, err := fetchTrust(ctx, c)
	version := ""
	if err == nil {
		version = trust.ServerVersion
	}
	if !add("server", err, "answers, version %s", version) {
		return checks
	}
	_, err = adopt(c, trust)
	add("trust", err, "the pinned root %s vouches for the server's keys", c.Roots[0])
	source, err := a.tokenSource(c)
	var token string
	if err == nil {
		token, err = source(ctx)
	}
	var cl claims
	if err == nil {
		cl, err = readClaims(token)
	}
	if err == nil && !cl.expiry().IsZero() && !a.now().Before(cl.expiry()) {
		err = vocab.Errorf(vocab.ReasonTokenExpired, "the token ended %s", showTime(cl.expiry()))
	}
	if !add("sign-in", err, "%s, token %s", cl.name(), a.remaining(cl.expiry())) {
		return checks
	}
	s, err := a.dial(ctx, c)
	if err == nil {
		err = s.tryOut(ctx)
	}
	add("accepted", err, "the server takes the token")
	return checks
}

// examinedContext finds the context to examine: the document's, if there is a
// document.
func (a *app) examinedContext(file string, add func(string, error, string, ...any) bool) (*contexts.Context, error) {
	if file == "" {
		return a.choose()
	}
	st, err := os.Stat(file)
	if err == nil && st.IsDir() {
		err = usagef("%s is a folder", file)
	}
	if err != nil {
		return nil, err
	}
	tenant, content, err := identify(file)
	if !add("document", err, "%s, license %s of tenant %s", file, content, tenant) {
		return nil, nil
	}
	return a.chooseFor(tenant)
}
