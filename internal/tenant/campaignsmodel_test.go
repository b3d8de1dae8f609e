package tenant_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// robot is a service that is given clear keys, so that they can be compared.
var robot = tenant.Call{Method: "test", Caller: &vocab.Identity{
	Issuer: "x509", Subject: "spiffe://contoso.test/robot", Service: "robot", Certificate: true, Member: "contoso",
}}

// naiveDoc is what a plain mind knows of a document.
type naiveDoc struct {
	content vocab.ContentID
	key     *vocab.Secret
	revoked bool
	edits   int
}

// campaign is a tenant to which anything may happen, and what a plain mind knows
// of it: content keys never change, and a document opens unless it is revoked, or
// what it is under was suspended or compromised, or the custodian is away.
type campaign struct {
	*house
	rand *rand.Rand
	docs []*naiveDoc
	// versions and generations hold the states that somebody set: "suspended"
	// or "compromised".
	versions, generations map[uint32]string
	newest                uint32
	away                  bool
	trace                 []string
}

// TestCampaignsFollowTheModel lets people publish, edit, revoke, rotate, suspend
// and compromise at random, and the daemon die, while rewraps and reseals go on
// beside it. Every document always opens to the same content key, unless the
// model says that it should not; in the end, with everything resumed and resealed,
// everything is under the newest version.
func TestCampaignsFollowTheModel(t *testing.T) {
	seeds := uint64(10)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inOffice(t, func(t *testing.T, o *house) {
				c := &campaign{house: o, rand: rand.New(rand.NewPCG(seed, 4)), versions: map[uint32]string{}, generations: map[uint32]string{}, newest: 1}
				defer func() {
					if t.Failed() {
						t.Log(c.trace)
					}
				}()
				_, _, err := o.UpdateSettings(t.Context(), person("alice"), 0, true, func(s *record.Settings) error {
					s.ClearKeys = policy.ClearKeysMTLS
					return nil
				})
				o.check(err)
				for range 60 {
					c.step()
				}
				c.settleAll()
				o.checkStore()
			})
		})
	}
}

func (c *campaign) say(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

func (c *campaign) step() {
	switch c.rand.IntN(15) {
	case 0, 1, 2:
		for range 1 + c.rand.IntN(12) {
			c.publishOne()
		}
	case 3, 4:
		c.editOne()
	case 5:
		c.revokeOne()
	case 6:
		c.rotateOne()
	case 7:
		c.suspendOrResume()
	case 8:
		c.compromise()
	case 9:
		if v, _, _, err := c.Rewrap(c.t.Context(), carla, c.rand.Uint32N(3)*20); err == nil && v != nil {
			c.say("rewrap")
		}
	case 10:
		c.resealAny()
	case 11:
		c.away = !c.away
		c.say("away %v", c.away)
		c.custodian.be(func(m *moody) {
			if m.err = nil; c.away {
				m.err = sealed
			}
		})
		time.Sleep(time.Second) // what it said last stands for a moment
	case 12:
		c.say("killed")
		c.store.kill(int64(c.rand.IntN(4)))
		time.Sleep(time.Second)
		// It must be there to start: what happens without it, others test.
		c.away = false
		c.custodian.be(func(m *moody) { m.err = nil })
		c.shut()
		c.reopened()
	case 13:
		if c.rand.IntN(2) == 0 {
			c.say("strict")
			c.custody(vocab.CustodyStrict)
		}
	default:
		c.say("time")
		time.Sleep(time.Duration(c.rand.IntN(4000)) * time.Millisecond)
	}
	if len(c.docs) > 0 {
		for range 3 {
			c.openOne(c.docs[c.rand.IntN(len(c.docs))])
		}
	}
}

func (c *campaign) publishOne() {
	p, err := c.Publish(c.t.Context(), robot, tenant.PublishRequest{AdHoc: &policy.AdHoc{
		Kind: policy.AdHocGrants, Offline: policy.OfflineMax, Grants: []policy.Grant{{To: user("dan"), Rights: vocab.RightsOf(vocab.RightView)}},
	}})
	if err != nil {
		switch vocab.ReasonOf(err) {
		case vocab.ReasonKeySuspended, vocab.ReasonKeyState, vocab.ReasonCustodianSealed:
			return // nothing is sealed that could not be opened
		}
		c.t.Fatalf("publishing: %v", err)
	}
	c.docs = append(c.docs, &naiveDoc{content: p.License.Record.Content, key: p.Clear})
}

func (c *campaign) any() *naiveDoc {
	if len(c.docs) == 0 {
		return nil
	}
	return c.docs[c.rand.IntN(len(c.docs))]
}

// editOne edits a title, or the policy, for which the key box is sealed anew.
func (c *campaign) editOne() {
	d := c.any()
	if d == nil {
		return
	}
	d.edits++
	title := fmt.Sprint("edit ", d.edits)
	edit := tenant.LicenseEdit{Title: &title}
	if c.rand.IntN(2) == 0 {
		ends := time.Now().Add(time.Duration(1000+d.edits) * time.Hour).Truncate(time.Millisecond)
		edit = tenant.LicenseEdit{NotAfter: &ends}
	}
	_, _, err := c.UpdateLicense(c.t.Context(), person("grace"), d.content, 0, true, edit, func(vocab.Principal) error { return nil })
	if err != nil && c.expected(d) == "" {
		c.t.Errorf("editing: %v", err)
	}
}

func (c *campaign) revokeOne() {
	d := c.any()
	if d == nil {
		return
	}
	var err error
	if !d.revoked {
		_, _, err = c.RevokeLicense(c.t.Context(), person("grace"), d.content, "a test", func(vocab.Principal) error { return nil })
	} else {
		_, _, err = c.RestoreLicense(c.t.Context(), person("grace"), d.content, func(vocab.Principal) error { return nil })
	}
	c.check(err)
	d.revoked = !d.revoked
}

func (c *campaign) rotateOne() {
	if c.away {
		return
	}
	c.newVersion()
	c.newest++
	c.say("rotated to v%d", c.newest)
}

// target is a version or a generation, and the states the model keeps of its
// kind.
func (c *campaign) target() (tenant.KeyTarget, map[uint32]string, uint32) {
	if c.rand.IntN(2) == 0 {
		n := 1 + c.rand.Uint32N(c.newest)
		return tenant.KeyTarget{Key: "root", Version: n}, c.versions, n
	}
	n := 1 + c.rand.Uint32N(c.lastGeneration())
	return tenant.KeyTarget{Generation: n}, c.generations, n
}

func (c *campaign) lastGeneration() (last uint32) {
	inv, err := c.Inventory(c.t.Context())
	c.check(err)
	for _, g := range inv.Generations {
		last = max(last, g.Number)
	}
	return last
}

func (c *campaign) suspendOrResume() {
	target, states, n := c.target()
	switch states[n] {
	case "":
		c.set(target, tenant.Suspend)
		states[n] = "suspended"
	case "suspended":
		c.set(target, tenant.Resume)
		delete(states, n)
	default:
		return
	}
	c.say("%s %s", target, states[n])
}

func (c *campaign) compromise() {
	target, states, n := c.target()
	if states[n] == "compromised" || c.rand.IntN(2) == 0 {
		return
	}
	c.set(target, tenant.Compromise)
	states[n] = "compromised"
	c.say("%s compromised", target)
}

func (c *campaign) resealAny() {
	target, _, _ := c.target()
	if v, _, _, err := c.Reseal(c.t.Context(), carla, target, c.rand.Uint32N(3)*20); err == nil && v != nil {
		c.say("reseal away from %s", target)
	}
}

// under is what a document's key is under: a generation's number, 0 for its own,
// and the version that wraps it.
func (c *campaign) under(d *naiveDoc) (generation, version uint32) {
	c.t.Helper()
	l, err := c.GetLicense(c.t.Context(), d.content, func(vocab.Principal) error { return nil })
	c.check(err)
	if len(l.Record.Wrap) > 0 {
		w, err := license.ParseWrap(l.Record.Wrap)
		c.check(err)
		return 0, w.L0Version
	}
	inv, err := c.Inventory(c.t.Context())
	c.check(err)
	for _, g := range inv.Generations {
		if g.ID == l.Record.Generation {
			return g.Number, g.Version
		}
	}
	c.t.Fatalf("a document is under a generation that is not there")
	return 0, 0
}

// expected is what the model says of opening a document; "away" that the
// custodian may have to be asked.
func (c *campaign) expected(d *naiveDoc) string {
	if d.revoked {
		return "revoked"
	}
	generation, version := c.under(d)
	for _, state := range []string{c.generations[generation], c.versions[version]} {
		if state != "" {
			return state
		}
	}
	if c.away {
		return "away"
	}
	return ""
}

// openOne opens a document and compares with the model.
func (c *campaign) openOne(d *naiveDoc) {
	c.t.Helper()
	before := c.expected(d)
	out, err := c.Acquire(c.t.Context(), robot, tenant.Recipient{}, []tenant.AcquireItem{{Content: d.content, Right: vocab.RightView}})
	c.check(err)
	want := c.expected(d) // it may be moved meanwhile
	got := out.Results[0]
	if got.Err == nil && !got.Acquired.Clear.Equal(d.key) {
		c.t.Fatalf("a document opens to another content key")
	}
	reasons := map[string][]vocab.Reason{
		"": {""}, "revoked": {vocab.ReasonLicenseRevoked}, "suspended": {vocab.ReasonKeySuspended, vocab.ReasonKeyState},
		"compromised": {vocab.ReasonKeyState, vocab.ReasonKeySuspended}, "away": {"", vocab.ReasonCustodianSealed},
	}
	for _, r := range append(reasons[before], reasons[want]...) {
		if vocab.ReasonOf(got.Err) == r {
			return
		}
	}
	generation, version := c.under(d)
	c.t.Fatalf("a document under g%d, version %d: %v, the model says %q", generation, version, got.Err, want)
}

// settleAll resumes and reseals everything, and looks that nothing is left.
func (c *campaign) settleAll() {
	c.say("settling")
	c.away = false
	c.custodian.be(func(m *moody) { m.err = nil })
	for n, s := range c.versions {
		if s == "suspended" {
			c.set(tenant.KeyTarget{Key: "root", Version: n}, tenant.Resume)
			delete(c.versions, n)
		}
	}
	for n, s := range c.generations {
		if s == "suspended" {
			c.set(tenant.KeyTarget{Generation: n}, tenant.Resume)
			delete(c.generations, n)
		}
	}
	c.rotateOne()
	c.quiet()
	var targets []tenant.KeyTarget
	for n := range c.versions {
		targets = append(targets, tenant.KeyTarget{Key: "root", Version: n})
	}
	for n := range c.generations {
		targets = append(targets, tenant.KeyTarget{Generation: n})
	}
	for _, target := range targets {
		_, _, _, err := c.Reseal(c.t.Context(), carla, target, 0)
		c.check(err)
	}
	c.quiet()
	if _, _, _, err := c.Rewrap(c.t.Context(), carla, 0); err != nil {
		c.t.Error(err)
	}
	c.quiet()
	for _, d := range c.docs {
		if d.revoked {
			_, _, err := c.RestoreLicense(c.t.Context(), person("grace"), d.content, func(vocab.Principal) error { return nil })
			c.check(err)
			d.revoked = false
		}
		if generation, version := c.under(d); version != c.newest {
			c.t.Errorf("a document is under g%d, version %d, not %d", generation, version, c.newest)
		}
		c.openOne(d)
	}
	for n, licenses := range c.strictUnder() {
		if n != c.newest && licenses != 0 {
			c.t.Errorf("%d strict licenses are left under version %d", licenses, n)
		}
	}
}

// quiet waits until nothing goes on any more.
func (c *campaign) quiet() {
	c.t.Helper()
	for range 1000 {
		list, _, err := c.ListOperations(c.t.Context(), carla.Caller, tenant.OperationFilter{}, vocab.OperationID{}, 1000)
		c.check(err)
		going := 0
		for _, v := range list {
			if !v.State.Ended() {
				going++
			}
		}
		if going == 0 {
			return
		}
		time.Sleep(10 * time.Second)
	}
	c.t.Fatal("something goes on for ever")
}
