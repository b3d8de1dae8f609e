package tenant_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/config"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/operation"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/store/bolt"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/tenant/tenanttest"
	"github.com/openrms/rms/internal/vocab"
)

// moody is a key ring that answers as it is told to.
type moody struct {
	keys.Custodian
	mu    sync.Mutex
	err   error             // what every call fails with
	check error             // what the check fails with, and nothing else
	facts func(*keys.Facts) // what is different about the keys
	asked int               // calls of any kind
	// left, if it is set, is how many more calls are answered before err holds.
	left *int
	lie  func([]keys.UnwrapResult) // about what was unwrapped
}

func (c *moody) be(change func(*moody)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

func (c *moody) mood() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.left != nil {
		if *c.left--; *c.left >= 0 {
			return nil
		}
	}
	return c.err
}

func (c *moody) Rewrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.WrapResult, error) {
	if err := c.mood(); err != nil {
		return nil, err
	}
	return c.Custodian.Rewrap(ctx, items)
}

func (c *moody) Check(ctx context.Context) error {
	if err := c.mood(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.check
}

func (c *moody) Describe(ctx context.Context) (*keys.Facts, error) {
	if err := c.mood(); err != nil {
		return nil, err
	}
	f, err := c.Custodian.Describe(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.facts != nil {
		c.facts(f)
	}
	return f, err
}

func (c *moody) Wrap(ctx context.Context, items []keys.WrapItem) ([]keys.WrapResult, error) {
	if err := c.mood(); err != nil {
		return nil, err
	}
	return c.Custodian.Wrap(ctx, items)
}

func (c *moody) Unwrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.UnwrapResult, error) {
	if err := c.mood(); err != nil {
		return nil, err
	}
	rs, err := c.Custodian.Unwrap(ctx, items)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lie != nil {
		c.lie(rs)
	}
	return rs, err
}

func (c *moody) Sign(ctx context.Context, version uint32, message []byte) (*keys.Signature, error) {
	if err := c.mood(); err != nil {
		return nil, err
	}
	return c.Custodian.Sign(ctx, version, message)
}

// RotateRoot is the keyring's.
func (c *moody) RotateRoot(ctx context.Context) (uint32, error) {
	return c.Custodian.(keys.Rotator).RotateRoot(ctx)
}

// kept is a tenant with a moody custodian.
type kept struct {
	*served
	custodian *moody
	logged    *logged
	store     store.Store
}

// logged is what the tenant wrote to its log of operation.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// keep opens the tenant in a bubble of [synctest]: pauses take no time.
func keep(t *testing.T, first func(*moody)) *kept {
	t.Helper()
	dir := t.TempDir()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(dir, "rms.db"), Stamp: store.Development, Schema: record.Schema, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	k := &kept{custodian: new(moody), logged: new(logged), store: s, served: &served{log: audit.New(s)}}
	k.call = tenant.Call{Method: "test", Caller: &vocab.Identity{
		Issuer: "https://idp.contoso.test", Subject: "alice", Addresses: []string{"alice@contoso.test"}, Member: "contoso",
	}}
	first(k.custodian)
	k.Tenant, err = tenant.Open(t.Context(), tenant.Deps{
		File:  config.Tenant{ID: "contoso", Domains: []string{"contoso.test"}, Admins: []vocab.Principal{user("alice"), user("bob")}},
		Store: s, Log: k.log,
		Custodians: tenanttest.Embedded(func(id vocab.CustodianID) (keys.Custodian, error) {
			ring, err := embedded.Create(embedded.Config{ID: id, Path: filepath.Join(dir, "keyring"), KeyFile: filepath.Join(dir, "keyring.key")})
			k.custodian.Custodian = ring
			return k.custodian, err
		}),
		SyncEvery: 5 * time.Minute,
		Logger:    slog.New(slog.NewTextHandler(k.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return k
}

// publish protects something and returns the reason if that is refused.
func (k *kept) publish(t *testing.T) vocab.Reason {
	t.Helper()
	key, err := license.NewRecipientKey(license.XWing)
	if err != nil {
		t.Fatal(err)
	}
	to, err := license.ParseRecipient(license.XWing, key.Public(), k.AllowedKEMs())
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.Publish(t.Context(), k.call, tenant.PublishRequest{
		AdHoc: &policy.AdHoc{Kind: policy.AdHocGrants, Grants: []policy.Grant{{
			To: vocab.Principal{Kind: vocab.KindUser, Value: "bob@contoso.test"}, Rights: vocab.RightsOf(vocab.RightView),
		}}},
		To: tenant.Recipient{Sealed: to},
	})
	return vocab.ReasonOf(err)
}

// expect publishes and fails the test if that ends otherwise.
func (k *kept) expect(t *testing.T, want vocab.Reason) {
	t.Helper()
	if got := k.publish(t); got != want {
		t.Errorf("publishing gave %q, want %q", got, want)
	}
}

func (k *kept) expectState(t *testing.T, want vocab.Reason) {
	t.Helper()
	synctest.Wait()
	if got := vocab.ReasonOf(k.State().Err); got != want {
		t.Errorf("the tenant's state is %q, want %q", got, want)
	}
}

func quiet(*moody) {}

var (
	sealed  = vocab.Errorf(vocab.ReasonCustodianSealed, "sealed by the test")
	refused = vocab.Errorf(vocab.ReasonCustodianRefused, "switched off by the test")
)

// A key that became unsafe or another ends the use of what was unwrapped with it at the
// next look, though the custodian goes on answering; and it is an alarm, once.
func TestUnsafeKeyIsBarred(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*keys.Facts)
		want   vocab.Reason
	}{
		"root exportable":     {func(f *keys.Facts) { f.Root.Exportable = true }, vocab.ReasonKeyAttributesUnsafe},
		"sign backed up":      {func(f *keys.Facts) { f.Sign.BackedUp = true }, vocab.ReasonKeyAttributesUnsafe},
		"another cluster":     {func(f *keys.Facts) { f.ClusterID = "another" }, vocab.ReasonCustodianChanged},
		"destroyed, and back": {func(f *keys.Facts) { f.Root.MinAvailable = 0 }, vocab.ReasonCustodianChanged},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keep(t, quiet)
				k.expect(t, "")
				k.custodian.be(func(m *moody) { m.facts = c.change })
				time.Sleep(6 * time.Minute)
				k.expectState(t, c.want)
				k.expect(t, c.want)
				time.Sleep(time.Hour)
				if n := k.kinds(t)[audit.KindAlarm]; n != 1 {
					t.Errorf("%d alarms, want 1", n)
				}
				k.custodian.be(func(c *moody) { c.facts = nil })
				time.Sleep(time.Minute)
				k.expectState(t, "")
				k.expect(t, "")
			})
		})
	}
}

// A login that may do more than use its keys is an alarm each time that begins,
// also where a login with too little power is what it was before; the tenant
// goes on with what the custodian lets it do.
func TestTooMuchPowerIsAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, quiet)
		lacks := vocab.Errorf(vocab.ReasonConfigurationInvalid, "the login lacks update on a")
		exceeds := func(what string) error {
			return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the login may do too much: %s", what).Because(keys.ErrTooMuchPower)
		}
		for _, step := range []struct {
			name   string
			check  error
			alarms int
		}{
			{"too little", lacks, 0},
			{"too much", exceeds("trim"), 1},
			{"more of it", exceeds("rotate; trim"), 1},
			{"as it should be", nil, 1},
			{"too much again", exceeds("trim"), 2},
		} {
			k.custodian.be(func(c *moody) { c.check = step.check })
			time.Sleep(6 * time.Minute)
			synctest.Wait()
			if n := k.kinds(t)[audit.KindAlarm]; n != step.alarms {
				t.Errorf("%s: %d alarms, want %d", step.name, n, step.alarms)
			}
			if got := k.State().Err; (got == nil) != (step.check == nil) || got != nil && got.Error() != step.check.Error() {
				t.Errorf("%s: the state is %v", step.name, got)
			}
			k.expect(t, "")
		}
	})
}

// The switch is in force at the next look even where nobody opens anything,
// and what was unwrapped before it is gone.
func TestSwitchDropsWhatWasUnwrapped(t *testing.T) {
	for name, throw := range map[string]func(*moody){
		"everything refused": func(c *moody) { c.err = refused },
		"only the check":     func(c *moody) { c.check = refused },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keep(t, func(c *moody) {})
				k.expect(t, "")
				_, _, err := k.UpdateSettings(t.Context(), k.call, 0, true, func(s *record.Settings) error {
					s.CacheTTL = time.Hour
					return nil
				})
				// An hour is longer than usual: a second person approves it.
				waits, ok := errors.AsType[*vocab.Error](err)
				if !ok || waits.Reason != vocab.ReasonApprovalRequired {
					t.Fatal(err)
				}
				v, err := k.GetOperation(t.Context(), k.call.Caller, waits.Operation)
				if err != nil {
					t.Fatal(err)
				}
				if v, _, err = k.ApproveOperation(t.Context(), person("bob"), v.ID, v.ParamsHash()); err != nil || v.State != operation.Succeeded {
					t.Fatalf("%v, it is %s", err, v.State)
				}
				k.custodian.be(throw)
				k.expect(t, "") // still held
				time.Sleep(6 * time.Minute)
				k.expectState(t, vocab.ReasonCustodianRefused)
				var before int
				k.custodian.be(func(c *moody) { before, c.check, c.err = c.asked, nil, refused })
				k.expect(t, vocab.ReasonCustodianRefused)
				if k.custodian.asked == before {
					t.Error("the custodian was not asked: an old copy was used")
				}
			})
		})
	}
}

// A tenant whose first look found the custodian away or unsafe gives nothing
// out, and serves seconds after that has ended.
func TestServesSoonAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, func(c *moody) { c.err = sealed })
		k.expectState(t, vocab.ReasonCustodianSealed)
		k.expect(t, vocab.ReasonCustodianSealed)
		time.Sleep(10 * time.Hour)
		k.expectState(t, vocab.ReasonCustodianSealed)
		if n := strings.Count(k.logged.String(), "the tenant cannot serve"); n != 1 {
			t.Errorf("an outage of hours was logged %d times, want once", n)
		}
		k.custodian.be(func(c *moody) { c.err = nil })
		time.Sleep(5 * time.Second)
		k.expectState(t, "")
		k.expect(t, "")
	})
}

// A call that finds the custodian away says so to the tenant: its state does
// not wait for the next look to be due; nor does a call that finds it back.
func TestStateFollowsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, quiet)
		if _, _, err := k.UpdateSettings(t.Context(), k.call, 0, true, func(s *record.Settings) error {
			s.Custody = vocab.CustodyStrict
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		k.expect(t, "")
		k.custodian.be(func(c *moody) { c.err = sealed })
		for range 100 {
			k.expect(t, vocab.ReasonCustodianSealed)
		}
		time.Sleep(2 * time.Second)
		k.expectState(t, vocab.ReasonCustodianSealed)
		k.custodian.be(func(c *moody) { c.err = nil })
		k.expect(t, "") // asked at once, whatever the last look found
		time.Sleep(2 * time.Second)
		k.expectState(t, "")
	})
}

// Every call of the custodian is in the daemon's log with the custodian's own
// ID of it; an answer that cannot be the key is an error there and an alarm in
// the tenant's log, also where no caller waits for it.
func TestRefreshThatCannotBeTheKeyIsAnAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, quiet)
		k.expect(t, "")
		if s := k.logged.String(); !strings.Contains(s, `level=DEBUG msg="custodian call" tenant=contoso op=wrap`) {
			t.Errorf("calls are not logged:\n%s", s)
		}
		time.Sleep(record.DefaultCacheTTL * 9 / 10) // it is time for a refresh
		k.custodian.be(func(c *moody) { c.err = keys.Integrity(nil) })
		k.publish(t) // sets the refresh off; whether it is refused itself is a matter of who is first
		synctest.Wait()
		if n := k.kinds(t)[audit.KindAlarm]; n != 1 {
			t.Errorf("%d alarms, want 1", n)
		}
		if s := k.logged.String(); !strings.Contains(s, `level=ERROR msg="custodian call" tenant=contoso op=refresh`) {
			t.Errorf("the alarm is not logged:\n%s", s)
		}
		k.expect(t, vocab.ReasonCustodyIntegrity)
	})
}
