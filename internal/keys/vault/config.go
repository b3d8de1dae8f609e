package vault

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/openrms/rms/internal/vocab"
)

// Config is how one tenant reaches one mount of Vault.
type Config struct {
	// Address is https://HOST:PORT. Plain http is accepted on a loopback
	// address only (a Vault Agent).
	Address string
	// CAFile holds the PEM certificates Vault's must chain to; empty is the
	// system's set.
	CAFile string
	// Mount is the tenant's own transit mount.
	Mount string
	// ClusterID pins the Vault cluster; strongly advised.
	ClusterID string
	// Namespace is for Vault Enterprise. Vault's community edition ignores it
	// and would serve the root namespace instead, so it is refused there.
	Namespace string
	// Timeout bounds one request, 3 seconds if zero.
	Timeout time.Duration
	// Exactly one of AppRole and TokenFile.
	AppRole   *AppRole
	TokenFile string
	// Log hears of logins and their failures; nothing secret goes there.
	Log *slog.Logger
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Transport replaces TLS and dialling in tests.
	Transport http.RoundTripper
}

// AppRole is a login by role ID and secret ID. The files are read at each
// login, so that new ones take over without a restart.
type AppRole struct {
	Mount string // "approle" if empty
	// Role is the role's name. If set, a wrapped secret ID must come from it.
	Role                     string
	RoleIDFile, SecretIDFile string
	// Wrapped says that SecretIDFile holds a response-wrapping token instead
	// of the secret ID itself. It is unwrapped once; the secret ID stays in
	// memory for later logins, so the role must allow more than one use.
	Wrapped bool
}

func bad(format string, args ...any) error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "custodian: %s", fmt.Sprintf(format, args...))
}

// checkNames refuses what cannot be the name of a mount's segment or a key.
func checkNames(names ...string) error {
	for _, name := range names {
		if !validName(name) {
			return bad("%q cannot be the name of a mount or key", name)
		}
	}
	return nil
}

func (c *Config) check() error {
	c.Mount = strings.Trim(c.Mount, "/")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	e := c.endpoint()
	if err := e.check(); err != nil {
		return err
	}
	c.Timeout = e.Timeout
	switch {
	case (c.AppRole == nil) == (c.TokenFile == ""):
		return bad("want either approle or token_file")
	}
	if err := checkNames(strings.Split(c.Mount, "/")...); err != nil {
		return err
	}
	if a := c.AppRole; a != nil {
		a.Mount = cmp.Or(strings.Trim(a.Mount, "/"), "approle")
		if a.RoleIDFile == "" || a.SecretIDFile == "" {
			return bad("approle needs role_id_file and secret_id_file")
		}
		if !nameRule.MatchString(a.Mount) || a.Role != "" && !nameRule.MatchString(a.Role) {
			return bad("%q cannot be an auth mount", a.Mount)
		}
	}
	return nil
}

// endpoint is the Vault and how it is recognised.
func (c *Config) endpoint() Endpoint {
	return Endpoint{
		Address: c.Address, CAFile: c.CAFile, Namespace: c.Namespace, ClusterID: c.ClusterID, Timeout: c.Timeout, Transport: c.Transport,
	}
}
