package keys

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// CertificateLife is how long a daemon's signing keys are certified for, and
// so how long a daemon can go on signing licenses without its custodian.
const CertificateLife = 24 * time.Hour

// minCertificateLeft is what a certificate must have left to sign with: what
// is signed now must still verify when it arrives.
const minCertificateLeft = 5 * time.Minute

// ChainConfig is what a [Chain] is made of.
type ChainConfig struct {
	Tenant vocab.TenantID
	// Root returns the tenant's current root signing key, [CurrentRoot]
	// usually. It is asked at every renewal, so that a rotated root takes over.
	Root func(context.Context) (license.Signer, error)
	// Instance names the daemon in its certificates, for people.
	Instance string
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// OnError, if not nil, hears why a renewal in [Chain.Run] failed.
	OnError func(error)
}

// Chain holds a daemon's two signing keys for one tenant, one for licenses and
// templates, one for checkpoints of the log, and the certificates that the
// tenant's root gave them. The keys exist only in memory: new ones are made
// with every renewal, at half life. A certificate is used until its end and not
// a moment longer. It is safe for concurrent use.
type Chain struct {
	cfg   ChainConfig
	renew sync.Mutex // one renewal at a time

	mu          sync.Mutex
	licenses    *Signing
	checkpoints *Signing
	failed      error // of the last renewal
}

// Signing is a certified key, ready to sign.
type Signing struct {
	Signer      license.Signer
	Certificate *license.Certificate
}

// NewChain returns a chain without keys: call [Chain.Renew], or let
// [Chain.Run] do it.
func NewChain(c ChainConfig) *Chain {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OnError == nil {
		c.OnError = func(error) {}
	}
	return &Chain{cfg: c}
}

// Licenses returns the key for publishing licenses, use licenses and templates.
// Without one that is certified for at least five more minutes it fails with
// the reason of the last renewal.
func (c *Chain) Licenses() (*Signing, error) { return c.get(&c.licenses) }

// Checkpoints returns the key for checkpoints of the audit log.
func (c *Chain) Checkpoints() (*Signing, error) { return c.get(&c.checkpoints) }

func (c *Chain) get(which **Signing) (*Signing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, now := *which, c.cfg.Now()
	if s != nil && s.Certificate.Covers(now) && s.Certificate.Covers(now.Add(minCertificateLeft)) {
		return s, nil
	}
	if c.failed != nil {
		return nil, c.failed
	}
	return nil, vocab.Errorf(vocab.ReasonCustodianUnreachable, "the daemon has no certified signing key at the moment").
		WithNext("It gets one from the tenant's custodian; try again when that answers")
}

// Renew makes new keys and has the root certify them: two calls of the
// custodian. On an error the old ones stay, until they end. After a refusal
// they end at once: a tenant that is switched off signs nothing.
func (c *Chain) Renew(ctx context.Context) error {
	c.renew.Lock()
	defer c.renew.Unlock()
	l, k, err := c.certify(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = err
	switch {
	case err == nil:
		c.licenses, c.checkpoints = l, k
	case IsRefusal(err):
		c.licenses, c.checkpoints = nil, nil
	}
	return err
}

func (c *Chain) certify(ctx context.Context) (licenses, checkpoints *Signing, err error) {
	root, err := c.cfg.Root(ctx)
	if err != nil {
		return nil, nil, err
	}
	if licenses, err = c.certifyOne(ctx, root, license.UsagePL|license.UsageUL|license.UsageTemplate); err != nil {
		return nil, nil, err
	}
	checkpoints, err = c.certifyOne(ctx, root, license.UsageCheckpoint)
	return licenses, checkpoints, err
}

func (c *Chain) certifyOne(ctx context.Context, root license.Signer, u license.Usage) (*Signing, error) {
	now := c.cfg.Now().UTC().Truncate(time.Millisecond)
	return Certify(ctx, root, license.Certificate{
		Tenant: c.cfg.Tenant, Usage: u, NotBefore: now, NotAfter: now.Add(CertificateLife), Instance: c.cfg.Instance,
	})
}

// Certify makes a key in memory and has a root certify it as cert says, from
// NotBefore on: one call of the custodian.
func Certify(ctx context.Context, root license.Signer, cert license.Certificate) (*Signing, error) {
	key, err := license.NewDaemonKey()
	if err != nil {
		return nil, err
	}
	cert.NotBefore, cert.NotAfter = cert.NotBefore.UTC().Truncate(time.Millisecond), cert.NotAfter.UTC().Truncate(time.Millisecond)
	cert.IssuedAt, cert.Subject = cert.NotBefore, key.PublicKey()
	issued, err := license.IssueCertificate(ctx, root, cert)
	if err != nil {
		return nil, err
	}
	return &Signing{key, issued}, nil
}

// Run keeps the chain renewed until ctx ends: at half life, and after a failure
// again and again with growing, jittered pauses between one second and one
// minute.
func (c *Chain) Run(ctx context.Context) {
	pause := time.Second
	for {
		wait := c.untilHalfLife()
		if wait <= 0 {
			if err := c.Renew(ctx); err == nil {
				pause = time.Second
				continue
			} else if ctx.Err() == nil {
				c.cfg.OnError(err)
			}
			wait = pause/2 + rand.N(pause/2) //nolint:gosec // jitter, not a secret
			pause = min(2*pause, time.Minute)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

func (c *Chain) untilHalfLife() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.licenses == nil {
		return 0
	}
	cert := c.licenses.Certificate
	return cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2).Sub(c.cfg.Now())
}
