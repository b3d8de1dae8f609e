package rmsctl

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/login"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// loginFlags are the flags of login.
type loginFlags struct {
	device             bool
	ca, root, provider string
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	c := &cobra.Command{
		Use:   "login [ADDRESS]",
		Short: "Sign in to a server and pin its tenant's signing root",
		Long: `Sign in to a server, and remember it as a context.

The first sign-in pins the tenant's signing root: compare the printed key ID with
the one your administrator published, or give it with --root. From then on, a
server that cannot show that root, or one it vouches for, is refused.

Without an address, sign in again to the current context.`,
		Example: `  rmsctl login rms.contoso.com
  rmsctl login rms.contoso.com --device --root SHA256:hV3k…`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			address := ""
			if len(args) == 1 {
				address = args[0]
			}
			return a.login(ctx, address, f)
		}),
	}
	flags := c.Flags()
	flags.BoolVar(&f.device, "device", false, "sign in with a code in a browser on any device")
	flags.StringVar(&f.ca, "ca", "", "a PEM file with the authority of the server's certificate, if it is not a public one")
	flags.StringVar(&f.root, "root", "", "the key ID the tenant's signing root must have")
	flags.StringVar(&f.provider, "provider", "", "the identity provider, where there are several")
	return c
}

func (a *app) login(ctx context.Context, address string, f loginFlags) error {
	c, known, err := a.loginContext(address, f)
	if err != nil {
		return err
	}
	trust, err := fetchTrust(ctx, c)
	if err != nil {
		return err
	}
	if !known {
		if c, err = a.firstContact(c, trust, f); err != nil {
			return err
		}
	}
	if f.root != "" && !slices.ContainsFunc(c.Roots, func(r contexts.KeyID) bool { return r.String() == f.root }) {
		return vocab.Errorf(vocab.ReasonTrustRootMismatch, "context %s has another root pinned: %s", c.Name, c.Roots[0]).
			WithNext("Do not go on; ask the server's operator")
	}
	if _, err := adopt(c, trust); err != nil {
		return err
	}
	p, err := pickProvider(trust.IdentityProviders, f.provider)
	if err != nil {
		return err
	}
	session, err := a.authenticate(ctx, p, f.device)
	if err != nil {
		return err
	}
	c.TokenFile = ""
	c.Development = trust.Development
	c.SignIn = &contexts.SignIn{
		Provider: p.GetName(), Issuer: p.GetIssuer(), ClientID: p.GetClientId(), Scopes: p.GetScopes(), IDToken: p.GetIdToken(),
		Account: session.Address,
	}
	if err := a.cache(c).Save(session); err != nil {
		return fmt.Errorf("saving the sign-in: %w", err)
	}
	if err := a.folder.Write(c); err != nil {
		return err
	}
	if err := a.folder.Use(c.Name); err != nil {
		return err
	}
	if c.Development {
		a.warnf("this is a development server: its keys protect nothing")
	}
	a.sayf("signed in as %s (%s, %s), tenant %s; root key %s saved in context %s",
		or(session.Address, session.Subject), p.GetName(), a.remaining(session.Expires), c.Tenant, c.Roots[0], c.Name)
	s, err := a.dial(ctx, c)
	if err != nil {
		return err
	}
	if err := s.tryOut(ctx); err != nil {
		return err
	}
	a.next("rmsctl protect FILE --template NAME; names: rmsctl template list")
	return nil
}

// loginContext finds the context to sign in to, or begins one. known says that
// its roots were pinned before.
func (a *app) loginContext(address string, f loginFlags) (c *contexts.Context, known bool, err error) {
	ca := ""
	if f.ca != "" {
		b, err := readSmall(f.ca)
		if err != nil {
			return nil, false, err
		}
		ca = string(b)
	}
	if address == "" {
		c, err := a.choose()
		if err != nil {
			return nil, false, err
		}
		if ca != "" {
			c.CA = ca
		}
		return c, true, nil
	}
	full, err := contexts.Address(address)
	if err != nil {
		return nil, false, err
	}
	c = &contexts.Context{Server: full, CA: ca, Tenant: a.tenant}
	if ca == "" {
		// The authority given for this address before is still the one.
		all, err := a.folder.All()
		if err != nil {
			return nil, false, err
		}
		if i := slices.IndexFunc(all, func(old *contexts.Context) bool { return old.Server == full }); i >= 0 {
			c.CA = all[i].CA
		}
	}
	if _, err := c.Authorities(); err != nil {
		return nil, false, usagef("%s is not a list of certificates in PEM", f.ca)
	}
	return c, false, nil
}

// firstContact makes a context of what a server claims, or finds the one in
// which its tenant was pinned before.
func (a *app) firstContact(c *contexts.Context, trust *rms.TrustInfo, f loginFlags) (*contexts.Context, error) {
	id := trust.TenantID
	c.Tenant, c.TenantID = trust.Tenant, id
	c.Name = or(a.context, c.Tenant)
	old, err := a.folder.Read(c.Name)
	switch {
	case err == nil && old.TenantID == id:
		old.Server = c.Server
		if f.ca != "" {
			old.CA = c.CA
		}
		return old, nil
	case err == nil:
		return nil, vocab.Errorf(vocab.ReasonResourceExists, "context %s is for tenant %s (%s) at %s", old.Name, old.Tenant, old.TenantID, old.Server).
			WithNext("If this is another one, choose a name: rmsctl -c NAME login …; if you know why it changed: rmsctl context delete %s", old.Name)
	case vocab.ReasonOf(err) != vocab.ReasonResourceNotFound:
		return nil, err
	}
	// One root is what a person can compare, so one is pinned. A list whose
	// first is genuine could hide another behind it; what the pinned root
	// itself vouches for is added afterwards.
	if len(trust.RootKeyIDs) > 0 {
		c.Roots = []contexts.KeyID{trust.RootKeyIDs[0]}
	}
	if f.root != "" {
		want, err := contexts.ParseKeyID(f.root)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(trust.RootKeyIDs, [32]byte(want)) {
			return nil, vocab.Errorf(vocab.ReasonTrustRootMismatch, "the server's signing root is %s, not the one you named", c.Roots[0]).
				WithNext("Do not go on; ask its operator")
		}
		c.Roots = []contexts.KeyID{want}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// pickProvider chooses where to sign in: where named, otherwise the only one
// for the tenant's own people, otherwise the only one.
func pickProvider(list []*rmsv1.IdentityProvider, name string) (*rmsv1.IdentityProvider, error) {
	var usable, own []*rmsv1.IdentityProvider
	var names []string
	for _, p := range list {
		if p.GetClientId() == "" || name != "" && p.GetName() != name {
			continue
		}
		usable, names = append(usable, p), append(names, p.GetName())
		if !p.GetGuest() {
			own = append(own, p)
		}
	}
	switch {
	case len(own) == 1:
		return own[0], nil
	case len(own) == 0 && len(usable) == 1:
		return usable[0], nil
	case len(usable) == 0 && name != "":
		return nil, vocab.Errorf(vocab.ReasonResourceNotFound, "the tenant has no identity provider %q for command lines", name)
	case len(usable) == 0:
		return nil, vocab.Errorf(vocab.ReasonConfigurationInvalid, "the tenant has no identity provider for command lines").
			WithNext("Ask its operator to set cli_client_id")
	}
	return nil, usagef("there are several identity providers: %s", strings.Join(names, ", ")).withNext("Name one with --provider")
}

// authenticate signs in at an identity provider.
func (a *app) authenticate(ctx context.Context, p *rmsv1.IdentityProvider, device bool) (*login.Session, error) {
	client, err := login.Discover(ctx, login.Provider{Issuer: p.GetIssuer(), ClientID: p.GetClientId(), Scopes: p.GetScopes(), UseIDToken: p.GetIdToken()}, nil)
	if err != nil {
		return nil, err
	}
	if device || !canOpenBrowser() {
		return client.Device(ctx, func(d login.DevicePrompt) {
			fmt.Fprintf(a.stderr, "open %s and enter the code %s (good for %s)\n", clean(d.URL), clean(d.Code), a.remaining(d.Expires))
			if d.CompleteURL != "" {
				fmt.Fprintf(a.stderr, "or open %s\n", clean(d.CompleteURL))
			}
		})
	}
	return client.Browser(ctx, func(url string) error {
		fmt.Fprintf(a.stderr, "signing in with your browser; if it does not open, go to\n  %s\n", clean(url))
		_ = openBrowser(url) // the address above remains
		return nil
	})
}

// canOpenBrowser says whether a browser of this session would be the user's.
func canOpenBrowser() bool {
	if os.Getenv("BROWSER") != "" {
		return true
	}
	if os.Getenv("SSH_CONNECTION") != "" {
		return false
	}
	return runtime.GOOS == "darwin" || os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
}

func openBrowser(url string) error {
	program := os.Getenv("BROWSER")
	switch {
	case program != "":
	case runtime.GOOS == "darwin":
		program = "open"
	default:
		program = "xdg-open"
	}
	cmd := exec.CommandContext(context.Background(), program, url) //nolint:gosec // the user's own browser, which stays
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

// tryOut asks the server once as the person who signed in, so that a token it
// does not take shows now. Whoever may not protect is signed in all the same.
func (s *server) tryOut(ctx context.Context) error {
	_, err := s.Protection().ListUsableTemplates(ctx, &rmsv1.ListUsableTemplatesRequest{Parent: s.parent()})
	if err != nil && describe(err).Exit == exitRefused {
		return nil
	}
	return err
}

func (a *app) cache(c *contexts.Context) *login.Cache {
	return &login.Cache{Path: a.folder.SignInPath(c.Name), Now: a.now}
}

// signIn authenticates the calls of a context somebody signed in to.
func (a *app) signIn(c *contexts.Context) (func(context.Context) (string, error), error) {
	cache := a.cache(c)
	return func(ctx context.Context) (string, error) {
		token, err := cache.Token(ctx)
		if err != nil {
			if e := explain(err); e != nil && exits[e.Reason] == exitSignIn {
				e.Next = "Sign in: rmsctl -c " + c.Name + " login"
			}
			return "", err
		}
		return token.Reveal(), nil
	}, nil
}

// remaining is how long something still lasts.
func (a *app) remaining(t time.Time) string {
	d := t.Sub(a.now()).Round(time.Second)
	switch {
	case t.IsZero():
		return "no end"
	case d <= 0:
		return "ended"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Forget your sign-in; the server and its pinned root stay known",
		Args:  cobra.NoArgs,
		RunE: a.run(func(context.Context, []string) error {
			c, err := a.choose()
			if err != nil {
				return err
			}
			if c.TokenFile != "" {
				return usagef("context %s uses the token in %s, which is not rmsctl's to remove", c.Name, c.TokenPath())
			}
			if err := a.cache(c).Delete(); err != nil {
				return err
			}
			a.sayf("signed out of context %s", c.Name)
			a.next("sign in again: rmsctl -c %s login", c.Name)
			return nil
		}),
	}
}

// identity is who the user is in a context, as far as the token says.
type identity struct {
	Context  string     `json:"context"`
	Server   string     `json:"server"`
	Tenant   string     `json:"tenant"`
	Account  string     `json:"account"`
	Provider string     `json:"provider,omitempty"`
	Issuer   string     `json:"issuer"`
	Subject  string     `json:"subject"`
	Expires  *time.Time `json:"expires,omitempty"`
}

func (a *app) whoamiCommand() *cobra.Command {
	return a.formatFlag(&cobra.Command{
		Use:   "whoami",
		Short: "Show who you are, where",
		Args:  cobra.NoArgs,
		RunE: a.run(func(ctx context.Context, _ []string) error {
			c, err := a.choose()
			if err != nil {
				return err
			}
			source, err := a.tokenSource(c)
			if err != nil {
				return err
			}
			token, err := source(ctx)
			if err != nil {
				return err
			}
			cl, err := readClaims(token)
			if err != nil {
				return err
			}
			id := identity{Context: c.Name, Server: c.Server, Tenant: c.Tenant, Account: cl.name(), Issuer: cl.Issuer, Subject: cl.Subject}
			if c.SignIn != nil {
				id.Provider = c.SignIn.Provider
				id.Account = or(c.SignIn.Account, id.Account)
			}
			if e := cl.expiry(); !e.IsZero() {
				id.Expires = &e
			}
			return a.emit(id, func() {
				line := fmt.Sprintf("%s (%s), tenant %s at %s, context %s", id.Account, or(id.Provider, id.Issuer), id.Tenant, id.Server, id.Context)
				if id.Expires != nil {
					line += ", token " + a.remaining(*id.Expires)
				}
				a.outf("%s", line)
			})
		}),
	})
}

// readSmall reads a file that a person made, such as a certificate.
func readSmall(path string) ([]byte, error) {
	const most = 1 << 20
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if len(b) > most {
		return nil, usagef("%s is larger than %d bytes", path, most)
	}
	return b, nil
}
