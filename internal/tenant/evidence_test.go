package tenant_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openrms/rms/internal/audit"
	"github.com/openrms/rms/internal/evidence"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/embedded"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/record"
	"github.com/openrms/rms/internal/tenant"
	"github.com/openrms/rms/internal/vocab"
)

// roots are what a client of the tenant has pinned.
func (o *house) roots() []license.KeyID {
	o.t.Helper()
	trust, err := o.Trust(o.t.Context())
	o.check(err)
	return trust.Roots
}

// evidence makes evidence and verifies it as an auditor does.
func (o *house) evidence(scope tenant.EvidenceScope) *evidence.Verified {
	o.t.Helper()
	b, event, err := o.Evidence(o.t.Context(), person("carla"), scope)
	o.check(err)
	v, err := evidence.Verify(b, o.roots(), nil)
	o.check(err)
	e, err := o.log.Get(o.t.Context(), o.ID(), event)
	o.check(err)
	if e.Event.Kind != audit.KindEvidenceMade || e.Event.Principal.Name != "carla@contoso.test" {
		o.t.Errorf("the event is %s by %s", e.Event.Kind, e.Event.Principal.Name)
	}
	return v
}

// second names another custodian, a keyring whose answers can be changed.
func (o *house) second() *moody {
	o.t.Helper()
	m := new(moody)
	o.custodians.Add("second", keys.KindEmbedded, func(id vocab.CustodianID) (keys.Custodian, error) {
		ring, err := o.keyring(id, "second")
		m.Custodian = ring
		return m, err
	})
	return m
}

// lines are the kinds of a history's lines about something, in order.
func lines(v *evidence.Verified, about string) (out []string) {
	for _, l := range v.History() {
		if strings.HasPrefix(l.About, about) {
			out = append(out, l.Kind)
		}
	}
	return out
}

// live has a tenant do what keys go through: generated, registered, activated,
// rotated, suspended, resumed, compromised, and a role under two people's hands.
func (o *house) live() (recovery *tenant.OperationView) {
	o.t.Helper()
	ctx, carla := o.t.Context(), person("carla")
	p := o.publish("bob", "", "dan")
	o.second()
	_, _, err := o.RegisterKey(ctx, carla, tenant.Registration{
		Name: "hsm", Custodian: "second", Provenance: &record.Provenance{Form: "byok", KCV: "1A2B3C", Proven: 1},
	})
	o.check(err)
	_, err = o.SetKeyState(ctx, carla, tenant.KeyTarget{Key: "root"}, tenant.Suspend, "a drill")
	o.check(err)
	_, err = o.SetKeyState(ctx, carla, tenant.KeyTarget{Key: "root"}, tenant.Resume, "")
	o.check(err)
	_, err = o.custodian.Custodian.(*embedded.Keyring).RotateRoot(ctx)
	o.check(err)
	time.Sleep(time.Minute)
	_, _, err = o.SyncKey(ctx, carla, "root", nil)
	o.check(err)
	_, _, err = o.ActivateKey(ctx, carla, "hsm", false)
	o.check(err)
	_, err = o.SetKeyState(ctx, carla, tenant.KeyTarget{Generation: 1}, tenant.Compromise, "seen in a dump")
	o.check(err)
	o.mustApprove(person("grace"), o.waits(o.grant(person("alice"), vocab.RoleKeyCustodian, user("kim"))))
	recovery = o.mustApprove(person("ron"), o.glass(tenant.RecoveryScope{Owner: user("bob")}, false))
	_, _ = o.acquire(person("mallory"), item(p))
	return recovery
}

func TestEvidenceTellsTheLifeOfKeys(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		recovery := o.live()
		v := o.evidence(tenant.EvidenceScope{})
		for about, want := range map[string][]string{
			"key root": {"key-registered", "key-noted", "key-suspended", "key-resumed", "key-rotated", "key-claimed", "key-retired"},
			"key hsm":  {"key-registered", "key-activated"},
		} {
			got := slices.DeleteFunc(lines(v, about), func(k string) bool { return k == "signer-certified" || k == "bundle-published" })
			// What comes of a rotation may be noted more than once.
			if got = slices.Compact(got); !subsequence(want, got) {
				t.Errorf("%s went through %v, want %v", about, got, want)
			}
		}
		if got := lines(v, "generation g1"); !subsequence([]string{"generation-created", "key-retired", "key-compromised"}, got) {
			t.Errorf("generation g1 went through %v", got)
		}
		if got := lines(v, "role-grant"); !slices.Equal(got, []string{"operation-requested", "operation-approved", "operation-succeeded"}) {
			t.Errorf("the grant went through %v", got)
		}
		var approved evidence.Line
		for _, l := range v.History() {
			if l.Kind == "operation-approved" {
				approved = l
			}
		}
		if approved.Who != "grace@contoso.test" {
			t.Errorf("approved by %q", approved.Who)
		}
		for _, e := range v.Events {
			if !e.Event.Content.IsZero() || e.Event.Operation == recovery.ID || e.Event.Kind < audit.KindTenantCreated {
				t.Errorf("event %s about documents is in it", e.Event.Kind)
			}
		}
		s := v.Summaries()
		if len(s) != 2 || s[0].Key != "hsm" || s[0].State != "active" || s[1].State != "deactivated" || len(s[1].Versions) != 2 ||
			!strings.Contains(s[0].Versions[0], "stated: byok, KCV 1A2B3C, shown to be this very key") ||
			!strings.Contains(s[1].Versions[1], "claimed by carla@contoso.test") || !strings.Contains(s[1].Custody, "not exportable, as read") {
			t.Errorf("%+v", s)
		}
		if w := v.Warnings(); len(w) != 0 {
			t.Errorf("warnings %q", w)
		}
	})
}

// subsequence reports whether all of part are in whole, in order.
func subsequence(part, whole []string) bool {
	for _, w := range whole {
		if len(part) > 0 && part[0] == w {
			part = part[1:]
		}
	}
	return len(part) == 0
}

func TestEvidenceCanBeNarrowed(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		earlier, err := o.log.Checkpoint(t.Context(), o.ID(), time.Now())
		o.check(err)
		o.live()
		time.Sleep(time.Hour)
		since := time.Now()
		_, err = o.SetKeyState(t.Context(), person("carla"), tenant.KeyTarget{Generation: 2}, tenant.Suspend, "")
		o.check(err)

		one := o.evidence(tenant.EvidenceScope{Key: "root"})
		if len(one.Keys) != 1 || one.Keys["root"] == nil || len(lines(one, "key hsm")) != 0 || len(lines(one, "generation g1")) == 0 {
			t.Errorf("of the key root there are %d keys", len(one.Keys))
		}
		late := o.evidence(tenant.EvidenceScope{Since: since})
		if len(lines(late, "generation g2")) == 0 || len(lines(late, "key root")) != 1 || len(late.Warnings()) == 0 {
			t.Errorf("since an hour ago: %v, warnings %q", lines(late, ""), late.Warnings())
		}
		b, _, err := o.Evidence(t.Context(), person("erin"), tenant.EvidenceScope{From: earlier.Size})
		o.check(err)
		v, err := evidence.Verify(b, o.roots(), &earlier)
		o.check(err)
		if v.Continues != earlier.Size {
			t.Errorf("it continues %d of %d", v.Continues, earlier.Size)
		}
		rewritten := earlier
		rewritten.Root[0] ^= 1
		if _, err := evidence.Verify(b, o.roots(), &rewritten); err == nil {
			t.Error("it continues a log that was another")
		}
		if _, _, err := o.Evidence(t.Context(), person("carla"), tenant.EvidenceScope{Key: "nosuch"}); vocab.ReasonOf(err) != vocab.ReasonResourceNotFound {
			t.Error(err)
		}
		if _, _, err := o.Evidence(t.Context(), person("carla"), tenant.EvidenceScope{From: 1 << 40}); vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Error(err)
		}
	})
}

// What is wrong with a key is in the evidence, as loud as can be; a tenant that
// is switched off makes none.
func TestEvidenceOfWhatIsWrong(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		second := o.second()
		_, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: "hsm", Custodian: "second"})
		o.check(err)
		second.be(func(m *moody) { m.facts = func(f *keys.Facts) { f.Root.Exportable = true } })
		_, err = o.custodian.Custodian.(*embedded.Keyring).RotateRoot(t.Context())
		o.check(err)
		v := o.evidence(tenant.EvidenceScope{})
		w := strings.Join(v.Warnings(), "\n")
		for _, want := range []string{"version 2 of the key root appeared", "KEY_ATTRIBUTES_UNSAFE"} {
			if !strings.Contains(w, want) {
				t.Errorf("%q is not in the warnings: %s", want, w)
			}
		}
		if v.Facts[0].Root.Attributes&evidence.Exportable == 0 {
			t.Error("what was read is not in it")
		}
		again := o.evidence(tenant.EvidenceScope{})
		if s := again.Summaries()[0]; !strings.Contains(s.Custody, "not in order") {
			t.Errorf("the key is said to be %s", s.Custody)
		}
		alarms := 0
		for _, l := range again.History() {
			if l.Alarm && l.Reason == string(vocab.ReasonKeyAttributesUnsafe) {
				alarms++
			}
		}
		if alarms != 1 {
			t.Errorf("there are %d alarms", alarms)
		}
		o.custodian.be(func(m *moody) { m.err = vocab.Errorf(vocab.ReasonCustodianRefused, "no") })
		_, _, err = o.Evidence(t.Context(), person("carla"), tenant.EvidenceScope{})
		if e, ok := errors.AsType[*vocab.Error](err); !ok || e.Reason != vocab.ReasonCustodianRefused || e.Event.IsZero() {
			t.Errorf("a tenant that is switched off: %v", err)
		}
	})
}

// A store that was changed behind the service's back makes no evidence.
func TestEvidenceDoesNotTrustTheStore(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		o.live()
		o.check(o.ChangeInStore(t.Context(), record.KeyName("hsm"), func(b []byte) []byte {
			k, err := record.DecodeTenantKey(b)
			o.check(err)
			k.Versions[0].Provenance.KCV = "000000"
			b, err = k.Encode()
			o.check(err)
			return b
		}))
		_, _, err := o.Evidence(t.Context(), person("carla"), tenant.EvidenceScope{})
		if vocab.ReasonOf(err) != vocab.ReasonLogDamaged || !strings.Contains(err.Error(), "keys/hsm is not what the log says") {
			t.Errorf("%v", err)
		}
	})
}

// Whoever pinned a tenant's first root can verify evidence after every change of
// it.
func TestEvidenceIsVerifiedByTheFirstRoot(t *testing.T) {
	inOffice(t, func(t *testing.T, o *house) {
		first := o.roots()[:1]
		for _, name := range []string{"second", "third"} {
			o.custodians.Add(name, keys.KindEmbedded, func(id vocab.CustodianID) (keys.Custodian, error) { return o.keyring(id, name) })
			_, _, err := o.RegisterKey(t.Context(), person("carla"), tenant.Registration{Name: name, Custodian: name})
			o.check(err)
			_, _, err = o.ActivateKey(t.Context(), person("carla"), name, false)
			o.check(err)
		}
		time.Sleep(13 * time.Hour) // the keys of the day follow the new root
		b, _, err := o.Evidence(t.Context(), person("carla"), tenant.EvidenceScope{})
		o.check(err)
		v, err := evidence.Verify(b, first, nil)
		o.check(err)
		if v.Root == first[0] {
			t.Error("the root did not change")
		}
		if _, err := evidence.Verify(b, []license.KeyID{{1}}, nil); err == nil {
			t.Error("it verifies under a root that never was the tenant's")
		}
	})
}

// What is under dual control is in the evidence by itself: the approvers, and who
// signed what.
func TestEvidenceOfDualControl(t *testing.T) {
	inDualControl(t, 2, []string{"carla", "dora", "emil"}, func(t *testing.T, o *house) {
		v := o.evidence(tenant.EvidenceScope{})
		want := []string{"operation-requested", "operation-approved", "approvers-changed", "operation-succeeded"}
		if got := lines(v, "approvers"); !slices.Equal(got, want) {
			t.Errorf("the approvers went through %v", got)
		}
	})
}
