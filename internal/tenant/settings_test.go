package tenant_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// awayCustodian is a key ring that can be away.
type awayCustodian struct {
	keys.Custodian
	away atomic.Bool
}

func (c *awayCustodian) gone() error {
	if c.away.Load() {
		return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the test took the custodian away")
	}
	return nil
}

func (c *awayCustodian) Check(ctx context.Context) error {
	if err := c.gone(); err != nil {
		return err
	}
	return c.Custodian.Check(ctx)
}

func (c *awayCustodian) Sign(ctx context.Context, version uint32, message []byte) (*keys.Signature, error) {
	if err := c.gone(); err != nil {
		return nil, err
	}
	return c.Custodian.Sign(ctx, version, message)
}

// served is a tenant on a store and a key ring of the test's own.
type served struct {
	*tenant.Tenant
	custodian *awayCustodian
	log       *audit.Log
	call      tenant.Call
}

func serve(t testing.TB) *served {
	t.Helper()
	return serveThrough(t, func(s store.Store) store.Store { return s })
}

// serveThrough lets the tenant have its store through something else.
func serveThrough(t testing.TB, through func(store.Store) store.Store) *served {
	t.Helper()
	dir := t.TempDir()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	out := &served{custodian: new(awayCustodian), log: audit.New(s)}
	out.call = tenant.Call{Method: "test", Caller: &vocab.Identity{Issuer: "https://idp.contoso.test", Subject: "alice", Addresses: []string{"alice@contoso.test"}}}
	out.Tenant, err = tenant.Open(t.Context(), tenant.Deps{
		File: config.Tenant{ID: "contoso", Domains: []string{"contoso.test"}}, Store: through(s), Log: out.log,
		Custodians: keyring(func(id vocab.CustodianID) (keys.Custodian, error) {
			ring, err := embedded.Create(embedded.Config{ID: id, Path: filepath.Join(dir, "keyring"), KeyFile: filepath.Join(dir, "keyring.key")})
			out.custodian.Custodian = ring
			return out.custodian, err
		}),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := out.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

// bundle is what clients get now, verified against the roots it came with.
func (s *served) bundle(t *testing.T) *license.Bundle {
	t.Helper()
	trust, err := s.Trust(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, err := license.NewVerifier(trust.Bundle, s.ID(), trust.Roots, 0)
	if err != nil {
		t.Fatal(err)
	}
	return v.Bundle()
}

func (s *served) kinds(t *testing.T) map[audit.Kind]int {
	t.Helper()
	n, err := s.log.Size(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	out := map[audit.Kind]int{}
	for e, err := range s.log.Range(t.Context(), s.ID(), 0, n) {
		if err != nil {
			t.Fatal(err)
		}
		out[e.Event.Kind]++
	}
	return out
}

func allow(x25519 bool) func(*record.Settings) error {
	return func(s *record.Settings) error { s.AllowX25519 = x25519; return nil }
}

func TestAllowedKeysAndBundleChangeTogether(t *testing.T) {
	s := serve(t)
	first := s.bundle(t)
	if d := cmp.Diff([]license.KEM{license.XWing}, first.Suites.KEMs); d != "" {
		t.Fatal(d)
	}
	before := s.kinds(t)

	if _, _, err := s.UpdateSettings(t.Context(), s.call, 0, true, allow(true)); err != nil {
		t.Fatal(err)
	}
	second := s.bundle(t)
	if d := cmp.Diff([]license.KEM{license.X25519, license.XWing}, second.Suites.KEMs); d != "" || second.Seq != first.Seq+1 {
		t.Errorf("bundle %d after %d allows other keys than the settings: %s", second.Seq, first.Seq, d)
	}
	if _, err := license.NewVerifier(second.Raw(), s.ID(), []license.KeyID{first.Roots[0].ID()}, first.Seq); err != nil {
		t.Errorf("who pinned the root does not follow: %v", err)
	}
	after := s.kinds(t)
	if after[audit.KindSettingsChanged] != before[audit.KindSettingsChanged]+1 || after[audit.KindBundlePublished] != before[audit.KindBundlePublished]+1 {
		t.Errorf("events before %v, after %v", before, after)
	}

	// Other settings need no new bundle.
	if _, _, err := s.UpdateSettings(t.Context(), s.call, 1, false, func(s *record.Settings) error {
		s.IssuerOpensRevoked = false
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if b := s.bundle(t); b.Seq != second.Seq {
		t.Errorf("bundle %d for a change it does not speak of", b.Seq)
	}
	if _, _, err := s.UpdateSettings(t.Context(), s.call, 2, false, allow(false)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(first.Suites.KEMs, s.bundle(t).Suites.KEMs); d != "" {
		t.Error(d)
	}
}

// Without the custodian there is no bundle, so the keys stay as they are; what
// the bundle does not speak of can be changed.
func TestAllowedKeysStayWithoutCustodian(t *testing.T) {
	s := serve(t)
	before := s.bundle(t)
	s.custodian.away.Store(true)
	_, _, err := s.UpdateSettings(t.Context(), s.call, 0, true, allow(true))
	if vocab.ReasonOf(err) != vocab.ReasonCustodianUnreachable {
		t.Fatalf("error %v, want CUSTODIAN_UNREACHABLE", err)
	}
	if s.Settings().AllowX25519 || len(s.AllowedKEMs()) != 1 || s.Settings().Revision != 0 {
		t.Errorf("settings changed: %+v", s.Settings())
	}
	if after := s.bundle(t); after.Seq != before.Seq {
		t.Errorf("bundle %d after %d", after.Seq, before.Seq)
	}
	if got := s.kinds(t); got[audit.KindRefused] != 1 || got[audit.KindSettingsChanged] != 0 {
		t.Errorf("events: %v", got)
	}
	if _, _, err := s.UpdateSettings(t.Context(), s.call, 0, false, func(s *record.Settings) error {
		s.IssuerOpensRevoked = false
		return nil
	}); err != nil {
		t.Errorf("a change without a bundle: %v", err)
	}
}

// However changes meet, the last bundle says what the last settings say.
func TestConcurrentSettings(t *testing.T) {
	s := serve(t)
	first := s.bundle(t)
	const n = 16
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var err error
			if i%4 == 0 {
				_, _, err = s.UpdateSettings(t.Context(), s.call, 0, true, func(s *record.Settings) error {
					s.IssuerOpensRevoked = !s.IssuerOpensRevoked
					return nil
				})
			} else {
				_, _, err = s.UpdateSettings(t.Context(), s.call, 0, true, allow(i%2 == 0))
			}
			if err != nil && vocab.ReasonOf(err) != vocab.ReasonOverloaded {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b := s.bundle(t)
	if got := s.AllowedKEMs(); len(got) != len(b.Suites.KEMs) {
		t.Errorf("settings allow %v, bundle %d allows %v", got, b.Seq, b.Suites.KEMs)
	}
	if b.Seq > first.Seq+n {
		t.Errorf("%d bundles for %d changes", b.Seq-first.Seq, n)
	}
}
