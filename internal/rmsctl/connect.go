package rmsctl

import (
	"context"
	"crypto/tls"
	"io"
	"os"
	"strings"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/vocab"
)

// choose finds the context a command without a document works in.
func (a *app) choose() (*contexts.Context, error) {
	if a.context != "" {
		c, err := a.folder.Read(a.context)
		if err != nil {
			return nil, err
		}
		if a.tenant != "" && a.tenant != c.Tenant {
			return nil, usagef("context %s is for tenant %s, not %s", c.Name, c.Tenant, a.tenant)
		}
		return c, nil
	}
	current, err := a.folder.Current()
	if err != nil {
		return nil, err
	}
	if a.tenant != "" {
		return a.chooseAmong(current, func(c *contexts.Context) bool { return c.Tenant == a.tenant },
			"there is no context for tenant "+a.tenant)
	}
	if current != "" {
		return a.folder.Read(current)
	}
	names, err := a.folder.Names()
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, vocab.Errorf(vocab.ReasonServerNotConfigured, "you are not signed in to any server").
			WithNext("Sign in: rmsctl login ADDRESS")
	}
	return nil, usagef("there are several contexts and none is chosen: %s", strings.Join(names, ", ")).
		withNext("Name one with -c, or: rmsctl context use NAME")
}

// chooseFor finds the context for a document. The document names only its
// tenant; the address is the context's.
func (a *app) chooseFor(tenant vocab.TenantID) (*contexts.Context, error) {
	if a.context != "" || a.tenant != "" {
		c, err := a.choose()
		if err != nil {
			return nil, err
		}
		if c.TenantID != tenant {
			return nil, vocab.Errorf(vocab.ReasonServerNotConfigured, "the document belongs to tenant %s, context %s is for another", tenant, c.Name).
				WithNext("Leave -c out, or see: rmsctl context list")
		}
		return c, nil
	}
	current, err := a.folder.Current()
	if err != nil {
		return nil, err
	}
	return a.chooseAmong(current, func(c *contexts.Context) bool { return c.TenantID == tenant },
		"none of your contexts is for tenant "+tenant.String()+", to which the document belongs")
}

// chooseAmong prefers the current context, and otherwise takes the only one
// that fits.
func (a *app) chooseAmong(current string, fits func(*contexts.Context) bool, none string) (*contexts.Context, error) {
	all, err := a.folder.All()
	if err != nil {
		return nil, err
	}
	var found []*contexts.Context
	var names []string
	for _, c := range all {
		if fits(c) {
			if c.Name == current {
				return c, nil
			}
			found, names = append(found, c), append(names, c.Name)
		}
	}
	switch len(found) {
	case 0:
		return nil, vocab.Errorf(vocab.ReasonServerNotConfigured, "%s", none).
			WithNext("Ask whoever sent it which server to use, then: rmsctl login ADDRESS")
	case 1:
		return found[0], nil
	}
	return nil, usagef("several contexts fit: %s", strings.Join(names, ", ")).withNext("Name one with -c")
}

// tokenSource returns how the calls of a context authenticate.
func (a *app) tokenSource(c *contexts.Context) (func(context.Context) (string, error), error) {
	switch {
	case c.TokenFile != "":
		return func(context.Context) (string, error) { return readToken(c.TokenPath()) }, nil
	case c.SignIn != nil:
		return a.signIn(c)
	}
	return nil, vocab.Errorf(vocab.ReasonTokenMissing, "context %s says nothing about signing in", c.Name).
		WithNext("Sign in: rmsctl login %s", c.Server)
}

// maxToken bounds a token, in bytes: more does not fit a header.
const maxToken = 16 << 10

func readToken(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // a file that the user named
	if err != nil {
		return "", vocab.Errorf(vocab.ReasonTokenMissing, "the token file cannot be read: %v", err).Because(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	token := strings.TrimSpace(string(b))
	if err != nil || token == "" || len(b) > maxToken || strings.ContainsAny(token, " \t\r\n") {
		return "", vocab.Errorf(vocab.ReasonTokenMissing, "%s does not hold a token", path)
	}
	return token, nil
}

func tlsConfig(c *contexts.Context) (*tls.Config, error) {
	pool, err := c.Authorities()
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// server is a connection in a context. Its calls carry the context's
// identity.
type server struct {
	*contexts.Context
	*rms.Client
}

// parent is the tenant's resource name.
func (s *server) parent() string { return s.Client.Tenant() }

// connect opens the context a command without a document works in.
func (a *app) connect(ctx context.Context) (*server, error) {
	c, err := a.choose()
	if err != nil {
		return nil, err
	}
	return a.dial(ctx, c)
}

// dial connects in a context. What the client learns of the tenant's roots is
// kept in the context.
func (a *app) dial(ctx context.Context, c *contexts.Context) (*server, error) {
	config, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	source, err := a.tokenSource(c)
	if err != nil {
		return nil, err
	}
	trust, err := trustOf(c)
	if err != nil {
		return nil, err
	}
	trust.Updated = func(newer rms.Trust) {
		if err := a.folder.Update(c.Name, func(stored *contexts.Context) error { keepTrust(stored, newer); return nil }); err != nil {
			a.warnf("the newer trust bundle was not kept: %v", err)
		}
	}
	client, err := rms.Dial(ctx, rms.Config{
		Address: c.Server, Tenant: c.Tenant, TLS: config, Token: source, Trust: trust, Product: product(), Now: a.now,
	})
	if err != nil {
		return nil, err
	}
	a.clients = append(a.clients, client)
	return &server{Context: c, Client: client}, nil
}

// product is what the log records of this program.
func product() string {
	const most = 64
	p := "rmsctl/" + Version()
	return p[:min(len(p), most)]
}
