package daemon_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openrms/rms/internal/contexts"
	"github.com/openrms/rms/internal/daemon"
	"github.com/openrms/rms/internal/daemon/daemontest"
	"github.com/openrms/rms/internal/login"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// startDev runs a development daemon on a directory until the test, or stop,
// ends it.
func startDev(t *testing.T, dir string) (d *daemon.Dev, stop func()) {
	t.Helper()
	d, err := daemon.StartDev(t.Context(), daemon.DevOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := d.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return d, stop
}

// devDir is a directory for one; a socket's path in it must be short.
func devDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rmsd-dev-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func devClient(t *testing.T, d *daemon.Dev) *daemontest.Client {
	t.Helper()
	b, err := os.ReadFile(d.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	c, err := daemontest.Dial(d.Addr(), daemon.DevTenant, pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// devPerson is a test user with the token that was written for them.
func devPerson(t *testing.T, d *daemon.Dev, name string) daemontest.Who {
	t.Helper()
	c, err := contexts.At(d.ContextsDir()).Read("dev-" + name)
	if err != nil {
		t.Fatal(err)
	}
	if c.Server != d.Addr() || !c.Development || len(c.Roots) == 0 {
		t.Errorf("the context of %s: %+v", name, c)
	}
	b, err := os.ReadFile(c.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	who, err := daemontest.Person(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return who
}

func TestDevKeepsWhatItHas(t *testing.T) {
	dir := devDir(t)
	d, stop := startDev(t, dir)
	c := devClient(t, d)
	doc, err := c.Publish(t.Context(), devPerson(t, d, "alice"), &rmsv1.PublishRequest{Policy: &rmsv1.PublishRequest_Template{Template: "finance-internal"}})
	if err != nil {
		t.Fatal(err)
	}
	policies := rmsv1.NewPolicyServiceClient(c.Conn)
	name := parent + "/templates/board-secret"
	board, err := policies.GetTemplate(t.Context(), &rmsv1.GetTemplateRequest{Name: name}, devPerson(t, d, "alice").As())
	if err != nil {
		t.Fatal(err)
	}
	board.Contact = "somebody-else@contoso.test"
	if board, err = policies.UpdateTemplate(t.Context(), &rmsv1.UpdateTemplateRequest{Template: board}, devPerson(t, d, "alice").As()); err != nil {
		t.Fatal(err)
	}
	stop()

	d, _ = startDev(t, dir)
	c = devClient(t, d)
	got, err := c.Acquire(t.Context(), devPerson(t, d, "bob"), doc.PL, nil) // an intern
	if err != nil || !got.Key.Equal(doc.Key) {
		t.Errorf("after a restart: %v", err)
	}
	_, err = c.Acquire(t.Context(), devPerson(t, d, "mallory"), doc.PL, nil)
	wantReason(t, err, vocab.ReasonNoRights)
	_, err = c.Acquire(t.Context(), devPerson(t, d, "dave"), doc.PL, nil) // of another organisation
	wantReason(t, err, vocab.ReasonAddressNotVerified)
	// What was edited stays edited: the templates are made once.
	again, err := rmsv1.NewPolicyServiceClient(c.Conn).GetTemplate(t.Context(), &rmsv1.GetTemplateRequest{Name: name}, devPerson(t, d, "alice").As())
	if err != nil || again.GetContact() != board.GetContact() || again.GetRevision() != board.GetRevision() {
		t.Errorf("the template after a restart: %v, %v", again, err)
	}
}

// Anybody can be anybody there, so nobody else's machine may reach it.
func TestDevIsForLoopback(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "rms.contoso.com:0", "127.0.0.1", "localhost.contoso.com:0", "127.0.0.1.contoso.com:0"} {
		dir := filepath.Join(devDir(t), "new")
		d, err := daemon.StartDev(t.Context(), daemon.DevOptions{Dir: dir, Listen: listen, Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			_ = d.Close(t.Context())
		}
		if !errors.Is(err, vocab.ReasonConfigurationInvalid) || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("%s: %v", listen, err)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: something was made", listen)
		}
	}
}

// A person signs in as on any machine: the daemon says where, before it knows
// who asks, and takes the token that comes of it.
func TestDevSignIn(t *testing.T) {
	d, _ := startDev(t, devDir(t))
	c := devClient(t, d)
	trust, err := rmsv1.NewProtectionServiceClient(c.Conn).GetTrust(t.Context(), &rmsv1.GetTrustRequest{})
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(trust.GetIdentityProviders(), func(p *rmsv1.IdentityProvider) bool { return !p.GetGuest() })
	provider := trust.GetIdentityProviders()[at]
	client, err := login.Discover(t.Context(), login.Provider{Issuer: provider.GetIssuer(), ClientID: provider.GetClientId(), Scopes: provider.GetScopes()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, signIn := range map[string]func() (*login.Session, error){
		"browser with PKCE": func() (*login.Session, error) {
			return client.Browser(t.Context(), func(url string) error {
				to, err := d.IDP.SignInURL(url, "alice")
				if err != nil {
					return err
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
				if err != nil {
					return err
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					return err
				}
				return resp.Body.Close()
			})
		},
		"device": func() (*login.Session, error) {
			approved := make(chan error, 1)
			s, err := client.Device(t.Context(), func(p login.DevicePrompt) { approved <- d.IDP.ApproveDevice(p.Code, "alice") })
			return s, errors.Join(err, <-approved)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := signIn()
			if err != nil {
				t.Fatal(err)
			}
			who, err := daemontest.Person(s.Token.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			templates, err := rmsv1.NewProtectionServiceClient(c.Conn).ListUsableTemplates(t.Context(), &rmsv1.ListUsableTemplatesRequest{Parent: parent}, who.As())
			if err != nil || len(templates.GetTemplates()) != 2 {
				t.Fatalf("with the token: %v, %v", templates, err)
			}
			doc := publish(t, c, who)
			if e := devEvent(t, d, c, doc.Event); e.GetPrincipal() != "alice@contoso.test" || e.GetIdentity().GetIssuer() != provider.GetIssuer() {
				t.Errorf("recorded as %s of %s", e.GetPrincipal(), e.GetIdentity().GetIssuer())
			}
			// Signed in once, and renewed without a person.
			renewed, err := client.Refresh(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if who, err = daemontest.Person(renewed.Token.Reveal()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Acquire(t.Context(), who, doc.PL, nil); err != nil {
				t.Errorf("with the renewed token: %v", err)
			}
		})
	}
}

func devEvent(t *testing.T, d *daemon.Dev, c *daemontest.Client, id string) *rmsv1.Event {
	t.Helper()
	e, err := rmsv1.NewAuditServiceClient(c.Conn).GetEvent(t.Context(), &rmsv1.GetEventRequest{Name: parent + "/events/" + id}, devPerson(t, d, "erin").As())
	if err != nil {
		t.Fatal(err)
	}
	return e
}
