package vault

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/openrms/rms/internal/vocab"
)

// Connection is one tenant's way to one transit mount: the address, the cluster
// that must answer there, and one login for all the tenant's keys on the mount.
// A wrapped secret ID is good for one login alone, and a login that was widened
// is found for all keys that share it. It is safe for concurrent use.
//
// Whoever made a Connection closes it, after its keys: closing a key ends that
// key alone, also the last one, so that another can be opened later with the
// secret ID that the first login took out of its wrapping.
type Connection struct {
	cfg     Config
	client  *Client
	session *session
	closed  atomic.Bool
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu      sync.Mutex
	allowed []string // keys of this mount that are registered
	foreign []string // mounts of the same Vault that are other tenants'
	next    int      // of foreign, where the next check begins
}

// maxForeign bounds how many other tenants' mounts one check asks about, so
// that question and answer stay small where thousands of tenants share a Vault.
// The checks that follow ask about the others.
const maxForeign = 256

// Connect checks the configuration and starts keeping a login alive. It does
// not talk to Vault yet: [Key.Check] does, and so does the first call. A Vault
// that is absent now is used when it comes back.
func Connect(cfg Config) (*Connection, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	client, err := NewClient(cfg.endpoint())
	if err != nil {
		return nil, err
	}
	c := &Connection{cfg: cfg, client: client}
	c.session = newSession(c)
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.done.Go(func() { c.session.run(ctx) })
	return c, nil
}

// Key returns the registered key id, made of the mount's keys root and sign. It
// does not talk to Vault. Keys of one Connection share its login and nothing
// else; two of them may have the same signing key.
func (c *Connection) Key(id vocab.CustodianID, root, sign string) (*Key, error) {
	switch {
	case id.IsZero():
		return nil, bad("the key is not registered")
	case root == sign:
		return nil, bad("root key and signing key are the same")
	}
	if err := checkNames(root, sign); err != nil {
		return nil, err
	}
	return &Key{c: c, id: id, root: root, sign: sign}, nil
}

// Allow says which keys of the mount are registered, by their names in Vault:
// the login may use these, and [Key.Check] of one of them does not call the use
// of another too much power. The names replace those given before. What is more
// than use is too much for these keys as well.
func (c *Connection) Allow(keys ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allowed = slices.Clone(keys)
}

// KeepApart says which mounts of the same Vault and namespace belong to other
// tenants: that the login can do anything there is too much power. The mounts
// replace those given before.
func (c *Connection) KeepApart(mounts ...string) error {
	var clean []string
	for _, m := range mounts {
		m = strings.Trim(m, "/")
		if err := checkNames(strings.Split(m, "/")...); err != nil {
			return err
		}
		clean = append(clean, m)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.foreign, c.next = clean, 0
	return nil
}

// bounds returns what Allow said last, and the mounts to ask about now.
func (c *Connection) bounds() (allowed, foreign []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.foreign) <= maxForeign {
		return c.allowed, c.foreign
	}
	for range maxForeign {
		foreign = append(foreign, c.foreign[c.next%len(c.foreign)])
		c.next++
	}
	return c.allowed, foreign
}

// Close ends background work and gives the login up. Calls of its keys fail
// with CUSTODIAN_UNREACHABLE from then on.
func (c *Connection) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.stop()
	c.done.Wait()
	c.session.close()
	c.client.Close()
	return nil
}

func closed() error {
	return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the connection to the tenant's Vault is closed")
}
