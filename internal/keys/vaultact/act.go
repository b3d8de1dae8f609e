package vaultact

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/vocab"
)

// Config is which Vault to act on, and as whom.
type Config struct {
	vault.Endpoint

	// Mount is the tenant's transit mount.
	Mount string
	// Token is the person's own. The caller zeroes it after [Client.Close].
	Token *Token
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Client acts on the keys of one transit mount. It is safe for concurrent use.
type Client struct {
	cfg  Config
	conn *vault.Client
}

// actTimeout is for people: longer than a service waits, for import of a key has
// RSA-4096 in it.
const actTimeout = 15 * time.Second

// Open checks the configuration. It does not talk to Vault yet.
func Open(c Config) (*Client, error) {
	c.Mount = strings.Trim(c.Mount, "/")
	if err := vault.CheckMount(c.Mount); err != nil {
		return nil, err
	}
	if c.Token == nil {
		return nil, vocab.Errorf(vocab.ReasonTokenMissing, "there is no Vault token to act with").WithNext("Log in with `vault login`")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Timeout == 0 {
		c.Timeout = actTimeout
	}
	conn, err := vault.NewClient(c.Endpoint)
	if err != nil {
		return nil, err
	}
	return &Client{c, conn}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.conn.Close() }

// Request is one request Vault carried out.
type Request struct {
	Method, Path string
	// ID is Vault's, which its audit log has too; empty where Vault answers
	// with nothing, as it does to an import.
	ID string
}

// Evidence is what an act leaves to be recorded.
type Evidence struct {
	Address, Namespace, Mount string
	ClusterID, VaultVersion   string
	At                        time.Time // when the act began, by this machine's clock
	Requests                  []Request // in their order
}

// Done is an act and its evidence. Acts return it also with an error as soon as
// they asked anything of Vault: it then says how far they came.
type Done struct {
	Evidence

	// Before is the key as it was, nil if there was none; Key as it is now, nil
	// if there is none or it could not be read.
	Before, Key *keys.KeyFacts
}

// Policies of deploy/vault, for the person whose token lacks something.
const (
	officer   = "custody-officer.hcl"
	destroyer = "destroyer.hcl"
)

// act is one act under way.
type act struct {
	c      *Client
	policy string // which of deploy/vault it needs
	ev     Evidence
}

// begin recognises the cluster: no other one gets to see the token.
func (c *Client) begin(ctx context.Context, policy string) (*act, error) {
	a := &act{c: c, policy: policy, ev: Evidence{Address: c.cfg.Address, Namespace: c.cfg.Namespace, Mount: c.cfg.Mount, At: c.cfg.Now().UTC()}}
	var err error
	a.ev.ClusterID, a.ev.VaultVersion, err = c.conn.Cluster(ctx)
	return a, err
}

// call makes one request below the mount. doing completes "to …".
func (a *act) call(ctx context.Context, method, path string, body any, doing string) (*vault.Answer, error) {
	ans, err := a.c.conn.Call(ctx, method, a.c.cfg.Mount+"/"+path, string(a.c.cfg.Token.b), body)
	a.note(method, path, ans)
	return ans, a.explain(ans, err, method, path, doing)
}

func (a *act) note(method, path string, ans *vault.Answer) {
	if ans != nil {
		a.ev.Requests = append(a.ev.Requests, Request{method, a.c.cfg.Mount + "/" + path, ans.RequestID})
	}
}

// read returns the key, nil if there is none.
func (a *act) read(ctx context.Context, name string) (*keys.KeyFacts, error) {
	k, ans, err := a.c.conn.ReadKey(ctx, string(a.c.cfg.Token.b), a.c.cfg.Mount, name)
	a.note(http.MethodGet, "keys/"+name, ans)
	if r, ok := errors.AsType[*vault.Refused](err); ok && r.Status == http.StatusNotFound && r.Text == "" {
		return nil, nil // no key is an answer, not an error
	}
	return k, a.explain(ans, err, http.MethodGet, "keys/"+name, "read key "+name)
}

// existing returns the key or an error that it does not exist.
func (a *act) existing(ctx context.Context, name string) (*keys.KeyFacts, error) {
	k, err := a.read(ctx, name)
	if err == nil && k == nil {
		return nil, noKey(name)
	}
	return k, err
}

// again reads a key that was just made or changed.
func (a *act) again(ctx context.Context, name string) (*keys.KeyFacts, error) {
	k, err := a.read(ctx, name)
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonOf(err), "Vault did it, but the key cannot be read back: %s", sentence(err)).
			WithNext("Look at key %s in Vault before you use it", name).Because(err)
	}
	if k == nil {
		return nil, keys.Integrity(errors.New("a key that was just made is not there"))
	}
	return k, nil
}

// change is the frame of acts on a key that exists: it reads the key, lets do
// act, and reads it again.
func (c *Client) change(ctx context.Context, policy, name string, do func(a *act, before *keys.KeyFacts) error) (*Done, error) {
	if err := vault.CheckKeyName(name); err != nil {
		return nil, err
	}
	a, err := c.begin(ctx, policy)
	if err != nil {
		return nil, err
	}
	d := &Done{}
	defer func() { d.Evidence = a.ev }()
	if d.Before, err = a.existing(ctx, name); err != nil {
		return d, err
	}
	if err := do(a, d.Before); err != nil {
		return d, err
	}
	d.Key, err = a.again(ctx, name)
	return d, err
}

// ReadKey reads a key as it is. It changes nothing.
func (c *Client) ReadKey(ctx context.Context, name string) (*Done, error) {
	if err := vault.CheckKeyName(name); err != nil {
		return nil, err
	}
	a, err := c.begin(ctx, officer)
	if err != nil {
		return nil, err
	}
	k, err := a.existing(ctx, name)
	return &Done{Evidence: a.ev, Before: k, Key: k}, err
}
