package keys_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

func newChain(c *moody) *keys.Chain {
	return keys.NewChain(keys.ChainConfig{
		Tenant: tenant, Instance: "rmsd-test",
		Root: func(ctx context.Context) (license.Signer, error) { return keys.CurrentRoot(ctx, c) },
	})
}

func TestChainCertifiesTwoKeys(t *testing.T) {
	c := newCustodian(t)
	chain := newChain(c)
	if _, err := chain.Licenses(); !errors.Is(err, vocab.ReasonCustodianUnreachable) {
		t.Errorf("before the first renewal: %v", err)
	}
	if err := chain.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := chain.Licenses()
	if err != nil {
		t.Fatal(err)
	}
	k, err := chain.Checkpoints()
	if err != nil {
		t.Fatal(err)
	}
	root, _ := keys.CurrentRoot(t.Context(), c)
	for _, s := range []*keys.Signing{l, k} {
		cert := s.Certificate
		if !s.Signer.PublicKey().Equal(cert.Subject) || cert.Root != license.KeyIDOf(root.PublicKey()) || cert.Tenant != tenant ||
			cert.NotAfter.Sub(cert.NotBefore) != keys.CertificateLife {
			t.Errorf("certificate %+v", cert)
		}
	}
	if l.Certificate.Usage&license.UsageCheckpoint != 0 || k.Certificate.Usage != license.UsageCheckpoint || l.Signer.PublicKey().Equal(k.Signer.PublicKey()) {
		t.Error("licenses and checkpoints share a key")
	}
}

func TestChainOutlivesAnOutageUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCustodian(t)
		chain := newChain(c)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go chain.Run(ctx)
		synctest.Wait()
		first, err := chain.Licenses()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(12*time.Hour + time.Second)
		synctest.Wait()
		second, err := chain.Licenses()
		if err != nil || second.Certificate.ID == first.Certificate.ID || second.Signer.PublicKey().Equal(first.Signer.PublicKey()) {
			t.Errorf("not renewed at half life: %v", err)
		}
		c.set(sealed)
		end := second.Certificate.NotAfter
		time.Sleep(time.Until(end) - 5*time.Minute - time.Millisecond)
		if s, err := chain.Licenses(); err != nil || s != second {
			t.Errorf("during the outage: %v", err)
		}
		time.Sleep(time.Millisecond)
		if _, err := chain.Licenses(); !errors.Is(err, vocab.ReasonCustodianSealed) {
			t.Errorf("at the end: %v", err)
		}
		c.set(nil)
		time.Sleep(time.Minute) // the longest pause between attempts
		synctest.Wait()
		if _, err := chain.Licenses(); err != nil {
			t.Errorf("after the outage: %v", err)
		}
	})
}

func TestChainEndsAtARefusal(t *testing.T) {
	c := newCustodian(t)
	chain := newChain(c)
	if err := chain.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.set(switchOff)
	if err := chain.Renew(t.Context()); !errors.Is(err, vocab.ReasonCustodianRefused) {
		t.Fatalf("got %v", err)
	}
	if _, err := chain.Checkpoints(); !errors.Is(err, vocab.ReasonCustodianRefused) {
		t.Errorf("after the refusal: %v", err)
	}
}

func TestBundleFollowsTheRoots(t *testing.T) {
	c := newCustodian(t)
	now := time.UnixMilli(1_790_000_000_000)
	var mark keys.Mark
	var prior *license.Bundle
	build := func(cust *moody, previous license.Signer) *license.Bundle {
		t.Helper()
		f, err := cust.Describe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seq := uint64(1)
		if prior != nil {
			seq = prior.Seq + 1
		}
		b, err := keys.NewBundle(t.Context(), cust, f, mark, license.Bundle{Tenant: tenant, Seq: seq, Suites: license.DefaultSuites()}, prior, previous, now)
		if err != nil {
			t.Fatal(err)
		}
		if cust == c {
			mark = f.MarkOf(mark)
		}
		if prior != nil {
			if _, err := license.VerifyBundle(b.Raw(), tenant, prior.Signers()[:1], prior.Seq); err != nil {
				t.Errorf("a client that pinned the root before does not follow: %v", err)
			}
		}
		prior = b
		return b
	}
	states := func(b *license.Bundle) (out []license.RootState) {
		for _, r := range b.Roots {
			out = append(out, r.State)
		}
		slices.Sort(out)
		return out
	}
	if b := build(c, nil); !slices.Equal(states(b), []license.RootState{license.RootCurrent}) {
		t.Errorf("first: %v", states(b))
	}
	if _, err := c.Rotate(t.Context(), "sign"); err != nil {
		t.Fatal(err)
	}
	if b := build(c, nil); !slices.Equal(states(b), []license.RootState{license.RootCurrent, license.RootPrevious}) || len(b.Signers()) != 2 {
		t.Errorf("after a rotation: %v, %d signers", states(b), len(b.Signers()))
	}
	next := newCustodian(t)
	old, _ := keys.CurrentRoot(t.Context(), c)
	mark = keys.Mark{}
	if b := build(next, old); !slices.Equal(states(b), []license.RootState{license.RootCurrent, license.RootPrevious, license.RootPrevious}) {
		t.Errorf("after a move: %v", states(b))
	}
}
