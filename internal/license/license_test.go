package license

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
)

func wantReason(t *testing.T, err error, want vocab.Reason) {
	t.Helper()
	if got := vocab.ReasonOf(err); got != want {
		t.Errorf("reason %q, want %q (%v)", got, want, err)
	}
}

var prefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestPublishThenOpen(t *testing.T) {
	w := newWorld(t)
	for _, kem := range []KEM{XWing, X25519} {
		t.Run(kem.String(), func(t *testing.T) {
			key, public := recipient(t, kem)
			d, err := DeliverPublish(public, bob, w.pl, w.ck)
			if err != nil {
				t.Fatal(err)
			}
			pl, err := w.verifier.VerifyPL(w.pl.Raw())
			if err != nil {
				t.Fatal(err)
			}
			ck, err := key.OpenPublish(d, bob, pl)
			if err != nil || !ck.Equal(w.ck) {
				t.Fatalf("OpenPublish: %v", err)
			}
			alice := canon.PrincipalID("https://idp.contoso.com", "alice")
			_, err = key.OpenPublish(d, alice, pl)
			wantReason(t, err, vocab.ReasonUseLicenseRejected)
			_, err = key.OpenPublish(d, bob, w.pl)
			wantReason(t, err, vocab.ReasonInternal) // not verified
		})
	}
}

func TestManyUseLicensesFromOneAgreement(t *testing.T) {
	w := newWorld(t)
	for _, kem := range []KEM{XWing, X25519} {
		t.Run(kem.String(), func(t *testing.T) {
			key, public := recipient(t, kem)
			d, err := NewDelivery(public, w.tenant, bob)
			if err != nil {
				t.Fatal(err)
			}
			var made []*UseLicense
			for i := range 3 {
				u := w.useFields(t)
				u.ID[15] = byte(i)
				made = append(made, must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, u, w.ck)))
			}
			for _, m := range slices.Backward(made) { // in any order
				u, err := w.verifier.VerifyUL(m.Raw(), w.cert.Raw(), w.expect(key))
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(m, u, cmpopts.IgnoreUnexported(UseLicense{})); d != "" {
					t.Error(d)
				}
				ck, err := key.OpenUL(d.Enc(), u)
				if err != nil || !ck.Equal(w.ck) {
					t.Fatalf("OpenUL: %v", err)
				}
			}
		})
	}
}

func TestUseLicenseIsOnlyForItsRecipient(t *testing.T) {
	w := newWorld(t)
	key, public := recipient(t, XWing)
	d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	made := must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, w.useFields(t), w.ck))
	other := must[*RecipientKey](t)(NewRecipientKey(XWing))
	foreign := w.certificate(t)
	foreign.ID = vocab.CertID{9}
	otherCert := must[*Certificate](t)(IssueCertificate(t.Context(), w.root, foreign))
	noUL := w.certificate(t)
	noUL.Usage = UsagePL
	noULCert := must[*Certificate](t)(IssueCertificate(t.Context(), w.root, noUL))
	early := w.certificate(t)
	early.NotAfter = now
	earlyCert := must[*Certificate](t)(IssueCertificate(t.Context(), w.root, early))

	for _, c := range []struct {
		name string
		cert *Certificate
		edit func(*Expect)
		want vocab.Reason
	}{
		{"as it should be", w.cert, func(*Expect) {}, ""},
		{"other principal", w.cert, func(e *Expect) { e.Principal[0]++ }, vocab.ReasonUseLicenseRejected},
		{"no principal", w.cert, func(e *Expect) { e.Principal = [32]byte{} }, vocab.ReasonUseLicenseRejected},
		{"other key", w.cert, func(e *Expect) { e.Recipient = other.Hash() }, vocab.ReasonUseLicenseRejected},
		{"other document", w.cert, func(e *Expect) { e.Content[15]++ }, vocab.ReasonUseLicenseRejected},
		{"other commitment", w.cert, func(e *Expect) { e.Commitment[0]++ }, vocab.ReasonUseLicenseRejected},
		{"other suite", w.cert, func(e *Expect) { e.ContentSuite = 2 }, vocab.ReasonUseLicenseRejected},
		{"the millisecond it ends", w.cert, func(e *Expect) { e.Now = now.Add(time.Hour) }, vocab.ReasonUseLicenseRejected},
		{"just before its end", w.cert, func(e *Expect) { e.Now = now.Add(time.Hour - time.Millisecond) }, ""},
		{"clock a little behind", w.cert, func(e *Expect) { e.Now = now.Add(-MaxClockSkew) }, ""},
		{"clock far behind", w.cert, func(e *Expect) { e.Now = now.Add(-MaxClockSkew - time.Millisecond) }, vocab.ReasonUseLicenseRejected},
		{"bundle out of date", w.cert, func(e *Expect) { e.Now = now.Add(7 * 24 * time.Hour) }, vocab.ReasonTrustRootMismatch},
		{"another certificate", otherCert, func(*Expect) {}, vocab.ReasonUseLicenseRejected},
		{"certificate without the usage", noULCert, func(*Expect) {}, vocab.ReasonTrustRootMismatch},
		{"certificate that had ended", earlyCert, func(*Expect) {}, vocab.ReasonTrustRootMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := w.expect(key)
			c.edit(&want)
			_, err := w.verifier.VerifyUL(made.Raw(), c.cert.Raw(), want)
			wantReason(t, err, c.want)
		})
	}

	u := must[*UseLicense](t)(w.verifier.VerifyUL(made.Raw(), w.cert.Raw(), w.expect(key)))
	_, err := other.OpenUL(d.Enc(), u)
	wantReason(t, err, vocab.ReasonUseLicenseRejected)
	again := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	_, err = key.OpenUL(again.Enc(), u)
	wantReason(t, err, vocab.ReasonUseLicenseRejected)
	_, err = key.OpenUL(d.Enc(), must[*UseLicense](t)(ParseUL(made.Raw())))
	wantReason(t, err, vocab.ReasonInternal)
}

func TestContentExpiryBindsUseLicense(t *testing.T) {
	w := newWorld(t)
	key, public := recipient(t, XWing)
	d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	for _, c := range []struct {
		flags Flags
		want  vocab.Reason
	}{{0, vocab.ReasonLicenseExpired}, {FlagExpiryExempt, ""}} {
		u := w.useFields(t)
		u.ContentNotAfter, u.Flags = now, c.flags
		made := must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, u, w.ck))
		_, err := w.verifier.VerifyUL(made.Raw(), w.cert.Raw(), w.expect(key))
		wantReason(t, err, c.want)
	}
}

func TestMakingRefuses(t *testing.T) {
	w := newWorld(t)
	_, public := recipient(t, XWing)
	d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	for name, edit := range map[string]func(*UseLicense){
		"no rights":            func(u *UseLicense) { u.Rights = 0 },
		"unknown right":        func(u *UseLicense) { u.Rights |= 1 << 14 },
		"empty period":         func(u *UseLicense) { u.NotAfter = u.NotBefore },
		"unsorted app rights":  func(u *UseLicense) { u.ApplicationRights = []string{"B", "A"} },
		"unknown flag":         func(u *UseLicense) { u.Flags = 4 },
		"unknown cache rule":   func(u *UseLicense) { u.Cache = 2 },
		"no custody mode":      func(u *UseLicense) { u.Custody.Mode = 0 },
		"half a second":        func(u *UseLicense) { u.MaxStaleness = time.Second / 2 },
		"negative delay":       func(u *UseLicense) { u.Custody.Delay = -time.Second },
		"no policy revision":   func(u *UseLicense) { u.Policy.Revision = 0 },
		"ID that is not v7":    func(u *UseLicense) { u.ID = vocab.EventID{} },
		"another commitment":   func(u *UseLicense) { u.Commitment[0]++ },
		"before 1970":          func(u *UseLicense) { u.NotBefore = time.Unix(-5, 0) },
		"outside certificate":  func(u *UseLicense) { u.IssuedAt = now.Add(48 * time.Hour) },
		"year 10000":           func(u *UseLicense) { u.NotAfter = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"staleness of a life":  func(u *UseLicense) { u.MaxStaleness = 11 * 365 * policy.Day },
		"empty app right":      func(u *UseLicense) { u.ApplicationRights = []string{""} },
		"content suite 2":      func(u *UseLicense) { u.ContentSuite = 2 },
		"no time of issue":     func(u *UseLicense) { u.IssuedAt = time.Time{} },
		"content ends in 1969": func(u *UseLicense) { u.ContentNotAfter = time.Unix(-5, 0) },
	} {
		u := w.useFields(t)
		edit(&u)
		if _, err := d.UseLicense(t.Context(), w.daemon, w.cert, u, w.ck); err == nil {
			t.Errorf("%s: made", name)
		}
	}
	if _, err := d.UseLicense(t.Context(), w.root, w.cert, w.useFields(t), w.ck); err == nil {
		t.Error("signed by a key that is not the certificate's")
	}
	for name, edit := range map[string]func(*PLInput){
		"offline ID":       func(in *PLInput) { in.Content[6] = 0x80 },
		"random ID":        func(in *PLInput) { in.Content[6] = 0x40 },
		"no generation":    func(in *PLInput) { in.Generation = vocab.GenerationID{} },
		"long hint":        func(in *PLInput) { in.ServiceHint = string(make([]byte, 201)) },
		"control in hint":  func(in *PLInput) { in.Descriptor = "a\nb" },
		"RSA wrap":         func(in *PLInput) { in.Wrap = w.wrap(); in.Wrap.L0Type = L0RSA },
		"no time of issue": func(in *PLInput) { in.IssuedAt = time.Time{} },
	} {
		in := w.plInput()
		edit(&in)
		if _, err := MakePL(t.Context(), w.daemon, w.cert, in, w.secret, w.ck, w.policy); err == nil {
			t.Errorf("%s: made", name)
		}
	}
	if _, err := NewDelivery(public, vocab.TenantID{}, bob); err == nil {
		t.Error("delivery without tenant")
	}
	if _, err := NewDelivery(public, w.tenant, [32]byte{}); err == nil {
		t.Error("delivery without principal")
	}
	if _, err := DeliverPublish(public, bob, w.pl, testSecret(1)); err == nil {
		t.Error("delivered another document's key")
	}
}

func TestBodyIsARecoveryCopy(t *testing.T) {
	w := newWorld(t)
	for n := range 300 { // every length of padding
		w.policy.AppData = make([]byte, n)
		pl := must[*PublishingLicense](t)(MakePL(t.Context(), w.daemon, w.cert, w.plInput(), w.secret, w.ck, w.policy))
		ck, pol, err := pl.OpenBody(w.secret)
		if err != nil || !ck.Equal(w.ck) {
			t.Fatalf("%d bytes of application data: %v", n, err)
		}
		if d := cmp.Diff(w.policy, pol, prefixes, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	}
	_, _, err := w.pl.OpenBody(testSecret(1))
	wantReason(t, err, vocab.ReasonLicenseMismatch)
}

func TestStrictWrapTravelsInTheLicense(t *testing.T) {
	w := newWorld(t)
	in := w.plInput()
	in.Wrap = w.wrap()
	pl := must[*PublishingLicense](t)(MakePL(t.Context(), w.daemon, w.cert, in, w.secret, w.ck, w.policy))
	if d := cmp.Diff(in.Wrap, pl.Wrap); d != "" {
		t.Fatal(d)
	}
	if got := len(pl.Wrap.Encode()); got != 115 {
		t.Errorf("wrap of %d bytes, want 115", got)
	}
}

func TestKeyBoxIsBoundToEverything(t *testing.T) {
	w := newWorld(t)
	encoded := must[[]byte](t)(EncodePolicy(w.policy))
	k := w.pl.KeyBox(PolicyHash(encoded))
	box, err := k.Seal(w.secret, w.ck)
	if err != nil {
		t.Fatal(err)
	}
	ck, err := k.Open(w.secret, box)
	if err != nil || !ck.Equal(w.ck) {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*KeyBox){
		"tenant":     func(k *KeyBox) { k.Tenant[0]++ },
		"content":    func(k *KeyBox) { k.Content[0]++ },
		"suite":      func(k *KeyBox) { k.ContentSuite++ },
		"commitment": func(k *KeyBox) { k.Commitment[0]++ },
		"generation": func(k *KeyBox) { k.Generation[0]++ },
		"salt":       func(k *KeyBox) { k.Salt[0]++ },
		"policy":     func(k *KeyBox) { k.PolicyHash[0]++ },
	} {
		other := *k
		edit(&other)
		_, err := other.Open(w.secret, box)
		wantReason(t, err, vocab.ReasonStoreDamaged)
		if _, err := other.Seal(w.secret, w.ck); err == nil && name != "generation" && name != "salt" && name != "policy" {
			t.Errorf("%s changed: sealed a key that is not the commitment's", name)
		}
	}
	_, err = k.Open(testSecret(1), box)
	wantReason(t, err, vocab.ReasonStoreDamaged)
	// The body of the license is no key box, although the key is the same generation's.
	_, err = k.Open(w.secret, w.pl.envelope.Box)
	wantReason(t, err, vocab.ReasonStoreDamaged)
}

func TestGenerationRecord(t *testing.T) {
	w := newWorld(t)
	g := must[*Generation](t)(SignGeneration(t.Context(), w.root, w.generationFields()))
	got := must[*Generation](t)(VerifyGeneration(g.Raw(), w.tenant, w.daemon.PublicKey(), w.root.PublicKey()))
	if d := cmp.Diff(w.generationFields(), *got, cmpopts.IgnoreUnexported(Generation{})); d != "" {
		t.Error(d)
	}
	if !got.Matches(w.secret) || got.Matches(w.ck) {
		t.Error("Matches is wrong")
	}
	_, err := VerifyGeneration(g.Raw(), vocab.TenantID{1}, w.root.PublicKey())
	wantReason(t, err, vocab.ReasonStoreDamaged)
	_, err = VerifyGeneration(g.Raw(), w.tenant, w.daemon.PublicKey())
	wantReason(t, err, vocab.ReasonStoreDamaged)
	_, err = VerifyGeneration(nil, w.tenant, w.root.PublicKey())
	wantReason(t, err, vocab.ReasonStoreDamaged)
	bent := append([]byte(nil), g.Raw()...)
	bent[len(bent)-1] ^= 1
	_, err = VerifyGeneration(bent, w.tenant, w.root.PublicKey())
	wantReason(t, err, vocab.ReasonStoreDamaged)
	for name, c := range map[string]struct {
		edit func(*Generation)
		want vocab.Reason
	}{
		"licensing":    {func(g *Generation) { g.Scope = ScopeLicensing }, vocab.ReasonSuiteUnsupported},
		"document":     {func(g *Generation) { g.Scope = ScopeDocument }, vocab.ReasonLicenseMalformed},
		"no ID":        {func(g *Generation) { g.ID = vocab.GenerationID{} }, vocab.ReasonLicenseMalformed},
		"no beginning": {func(g *Generation) { g.UsableFrom = time.Time{} }, vocab.ReasonLicenseMalformed},
		"ends first":   {func(g *Generation) { g.UsableUntil = g.UsableFrom }, vocab.ReasonLicenseMalformed},
	} {
		g := w.generationFields()
		c.edit(&g)
		_, err := SignGeneration(t.Context(), w.root, g)
		if vocab.ReasonOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// otherHand signs with another key than it says.
type otherHand struct{ Signer }

func (o otherHand) Sign(ctx context.Context, m []byte) ([]byte, error) {
	return DaemonKeyFromSeed(testSecret(0x99)).Sign(ctx, m)
}

type failing struct{ Signer }

var errCustodian = errors.New("custodian is away")

func (failing) Sign(context.Context, []byte) ([]byte, error) { return nil, errCustodian }

type short struct{ Signer }

func (short) Sign(context.Context, []byte) ([]byte, error) { return make([]byte, 63), nil }

func TestRootThatSignsWrongly(t *testing.T) {
	w := newWorld(t)
	sign := map[string]func(Signer) error{
		"certificate": func(s Signer) error { _, err := IssueCertificate(t.Context(), s, w.certificate(t)); return err },
		"generation":  func(s Signer) error { _, err := SignGeneration(t.Context(), s, w.generationFields()); return err },
		"bundle":      func(s Signer) error { _, err := SignBundle(t.Context(), w.bundleFields(), s); return err },
	}
	for name, f := range sign {
		t.Run(name, func(t *testing.T) {
			wantReason(t, f(otherHand{w.root}), vocab.ReasonCustodyIntegrity)
			wantReason(t, f(short{w.root}), vocab.ReasonInternal)
			if err := f(failing{w.root}); !errors.Is(err, errCustodian) {
				t.Errorf("error %v, want the custodian's own", err)
			}
		})
	}
}

func TestTemplateRevision(t *testing.T) {
	w := newWorld(t)
	r := must[*TemplateRevision](t)(SignTemplate(t.Context(), w.daemon, w.cert, w.template))
	got := must[*TemplateRevision](t)(w.verifier.VerifyTemplate(r.Raw()))
	if d := cmp.Diff(w.template, got.Template, prefixes, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	bent := append([]byte(nil), r.Raw()...)
	bent[len(bent)-1] ^= 1
	_, err := w.verifier.VerifyTemplate(bent)
	wantReason(t, err, vocab.ReasonLicenseSignature)
	for name, edit := range map[string]func(*policy.Template){
		"no UID":         func(t *policy.Template) { t.UID = vocab.TemplateUID{} },
		"no revision":    func(t *policy.Template) { t.Revision = 0 },
		"bad slug":       func(t *policy.Template) { t.Slug = "A" },
		"state":          func(t *policy.Template) { t.State = 4 },
		"custody":        func(t *policy.Template) { t.Custody = 3 },
		"expiry kind":    func(t *policy.Template) { t.Expiry.Kind = 3 },
		"expiry no date": func(t *policy.Template) { t.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate} },
		"expiry no time": func(t *policy.Template) { t.Expiry = policy.Expiry{Kind: policy.ExpiryAfter} },
		"microseconds":   func(t *policy.Template) { t.Offline = time.Microsecond },
		"long comment":   func(t *policy.Template) { t.Comment = string(make([]byte, maxText+1)) },
		"language":       func(t *policy.Template) { t.Names = map[string]string{"": "x"} },
		"selector":       func(t *policy.Template) { t.Select = []vocab.Principal{{}} },
		"not NFC":        func(t *policy.Template) { t.Comment = "e\u0301" },
		"rights":         func(t *policy.Template) { t.Grants = []policy.Grant{{To: vocab.Principal{Kind: vocab.KindAnyone}}} },
	} {
		tpl := *w.template
		edit(&tpl)
		if _, err := SignTemplate(t.Context(), w.daemon, w.cert, &tpl); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	dated := *w.template
	dated.Expiry = policy.Expiry{Kind: policy.ExpiryOnDate, At: now.Add(time.Hour)}
	got = must[*TemplateRevision](t)(SignTemplate(t.Context(), w.daemon, w.cert, &dated))
	if d := cmp.Diff(dated.Expiry, got.Template.Expiry); d != "" {
		t.Error(d)
	}
}

func TestPolicyEncoding(t *testing.T) {
	w := newWorld(t)
	byTemplate := *w.policy
	byTemplate.AdHoc, byTemplate.Template, byTemplate.NotAfter = nil, w.template.UID, time.Time{}
	for name, p := range map[string]*policy.Policy{"ad hoc": w.policy, "template": &byTemplate} {
		b := must[[]byte](t)(EncodePolicy(p))
		got := must[*policy.Policy](t)(DecodePolicy(b))
		if d := cmp.Diff(p, got, prefixes, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for name, edit := range map[string]func(*policy.Policy){
		"no owner":       func(p *policy.Policy) { p.Owner = vocab.Principal{} },
		"group as owner": func(p *policy.Policy) { p.Owner = vocab.Principal{Kind: vocab.KindGroup, Value: "a@contoso.com"} },
		"no issuer":      func(p *policy.Policy) { p.Issuer = policy.Issuer{} },
		"both":           func(p *policy.Policy) { p.Template = vocab.TemplateUID{1} },
		"neither":        func(p *policy.Policy) { p.AdHoc = nil },
		"kind":           func(p *policy.Policy) { p.AdHoc.Kind = 4 },
		"login":          func(p *policy.Policy) { p.AdHoc.Grants[0].Login = 2 },
		"rights":         func(p *policy.Policy) { p.AdHoc.Grants[0].Rights = 1 << 20 },
		"principal":      func(p *policy.Policy) { p.AdHoc.Grants[0].To.Value = "BOB@contoso.com" },
		"host bits": func(p *policy.Policy) {
			p.AdHoc.Grants[0].Networks = []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}
		},
		"4 in 6": func(p *policy.Policy) {
			p.AdHoc.Grants[0].Networks = []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/96")}
		},
		"many grants":   func(p *policy.Policy) { p.AdHoc.Grants = make([]policy.Grant, MaxGrants+1) },
		"much app data": func(p *policy.Policy) { p.AppData = make([]byte, MaxAppData+1) },
		"many parents": func(p *policy.Policy) {
			for i := range MaxParents {
				p.Parents = append(p.Parents, vocab.ContentID{1, byte(i)})
			}
		},
		"sub-millisecond":    func(p *policy.Policy) { p.AdHoc.Offline = 1 },
		"expired in 1969":    func(p *policy.Policy) { p.NotAfter = time.Unix(-9, 0) },
		"control in subject": func(p *policy.Policy) { p.Issuer.Subject = "a\x00" },
	} {
		w := newWorld(t)
		edit(w.policy)
		if _, err := EncodePolicy(w.policy); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func TestWrap(t *testing.T) {
	w := newWorld(t)
	good := w.wrap().Encode()
	if _, err := ParseWrap(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit func([]byte) []byte
		want vocab.Reason
	}{
		"short":        {func(b []byte) []byte { return b[:len(b)-1] }, vocab.ReasonLicenseMalformed},
		"long":         {func(b []byte) []byte { return append(b, 0) }, vocab.ReasonLicenseMalformed},
		"empty":        {func([]byte) []byte { return nil }, vocab.ReasonLicenseMalformed},
		"head only":    {func(b []byte) []byte { b[21], b[22] = 0, 0; return b[:wrapHead] }, vocab.ReasonLicenseMalformed},
		"oversize":     {func([]byte) []byte { return make([]byte, 5000) }, vocab.ReasonLicenseMalformed},
		"RSA":          {func(b []byte) []byte { b[16] = L0RSA; return b }, vocab.ReasonSuiteUnsupported},
		"unknown type": {func(b []byte) []byte { b[16] = 9; return b }, vocab.ReasonSuiteUnsupported},
		"no version":   {func(b []byte) []byte { clear(b[17:21]); return b }, vocab.ReasonLicenseMalformed},
		"no custodian": {func(b []byte) []byte { clear(b[:16]); return b }, vocab.ReasonLicenseMalformed},
	} {
		_, err := ParseWrap(c.edit(append([]byte(nil), good...)))
		if vocab.ReasonOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecipientKeys(t *testing.T) {
	both := []KEM{XWing, X25519}
	for _, kem := range both {
		k := must[*RecipientKey](t)(NewRecipientKey(kem))
		s := must[*vocab.Secret](t)(k.Secret())
		again := must[*RecipientKey](t)(RecipientKeyFrom(kem, s))
		if again.Hash() != k.Hash() {
			t.Errorf("%s: key changed in storage", kem)
		}
		r := must[*Recipient](t)(ParseRecipient(kem, k.Public(), both))
		if r.Hash() != k.Hash() || r.KEM() != k.KEM() {
			t.Errorf("%s: hashes differ", kem)
		}
		_, err := ParseRecipient(kem, k.Public(), nil)
		wantReason(t, err, vocab.ReasonSuiteUnsupported)
		_, err = ParseRecipient(kem, k.Public()[1:], both)
		wantReason(t, err, vocab.ReasonRequestInvalid)
	}
	for _, kem := range []KEM{0, 0x0010, 0x0041, 0x0050, 0xffff} {
		_, err := ParseRecipient(kem, make([]byte, 32), []KEM{kem})
		wantReason(t, err, vocab.ReasonSuiteUnsupported)
		_, err = NewRecipientKey(kem)
		wantReason(t, err, vocab.ReasonSuiteUnsupported)
	}
	xwing := must[*RecipientKey](t)(NewRecipientKey(XWing)).Public()
	for name, point := range lowOrder(t) {
		_, err := ParseRecipient(X25519, point, both)
		if vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Errorf("X25519 %s: %v", name, err)
		}
		_, err = ParseRecipient(XWing, append(append([]byte(nil), xwing[:1184]...), point...), both)
		if vocab.ReasonOf(err) != vocab.ReasonRequestInvalid {
			t.Errorf("X-Wing %s: %v", name, err)
		}
	}
	// An ML-KEM coefficient above the modulus.
	bad := append([]byte(nil), xwing...)
	bad[0], bad[1] = 0xff, 0xff
	_, err := ParseRecipient(XWing, bad, both)
	wantReason(t, err, vocab.ReasonRequestInvalid)
}

func TestCertificateRefuses(t *testing.T) {
	w := newWorld(t)
	for name, edit := range map[string]func(*Certificate){
		"no tenant":     func(c *Certificate) { c.Tenant = vocab.TenantID{} },
		"no time":       func(c *Certificate) { c.IssuedAt = time.Time{} },
		"no key":        func(c *Certificate) { c.Subject = nil },
		"no usage":      func(c *Certificate) { c.Usage = 0 },
		"unknown usage": func(c *Certificate) { c.Usage = 1 << 6 },
		"eight days":    func(c *Certificate) { c.NotAfter = c.NotBefore.Add(8 * 24 * time.Hour) },
		"ten years":     func(c *Certificate) { c.NotAfter = c.NotBefore.AddDate(10, 0, 0) },
		"backwards":     func(c *Certificate) { c.NotAfter = c.NotBefore.Add(-time.Hour) },
		"long instance": func(c *Certificate) { c.Instance = string(make([]byte, 201)) },
	} {
		c := w.certificate(t)
		edit(&c)
		if _, err := IssueCertificate(t.Context(), w.root, c); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	c := w.certificate(t)
	c.ID = vocab.CertID{}
	if got := must[*Certificate](t)(IssueCertificate(t.Context(), w.root, c)); got.ID.IsZero() {
		t.Error("no ID made")
	}
}

func TestKeyIDsDiffer(t *testing.T) {
	a, b := DaemonKeyFromSeed(testSecret(1)), must[*DaemonKey](t)(NewDaemonKey())
	if KeyIDOf(a.PublicKey()) == KeyIDOf(b.PublicKey()) || len(a.PublicKey()) != ed25519.PublicKeySize {
		t.Error("key IDs collide")
	}
	if PrincipalOf(&vocab.Identity{Issuer: "https://idp.contoso.com", Subject: "bob"}) != bob {
		t.Error("PrincipalOf differs from PrincipalID")
	}
}

// lowOrder returns the encodings of X25519's points of low order (RFC 7748 §6.1
// and the list of Bernstein, "Curve25519", validating public keys).
func lowOrder(t *testing.T) map[string][]byte {
	t.Helper()
	out := map[string][]byte{"zero": make([]byte, 32), "one": append([]byte{1}, make([]byte, 31)...)}
	for name, first := range map[string]byte{"p-1": 0xec, "p": 0xed, "p+1": 0xee} {
		b := make([]byte, 32)
		for i := range b {
			b[i] = 0xff
		}
		b[0], b[31] = first, 0x7f
		out[name] = b
		high := append([]byte(nil), b...)
		high[31] = 0xff
		out[name+" with the high bit"] = high
	}
	out["order 8 (a)"] = unhex(t, "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
	out["order 8 (b)"] = unhex(t, "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")
	return out
}
