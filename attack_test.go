package rms_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

var template = rms.ProtectOptions{Template: "any", Name: "q3.txt"}

// Every answer of a server that holds the tenant's signing keys, except the
// true one, is refused by what the client knows itself.
func TestLyingAcquire(t *testing.T) {
	l := newLiar(t)
	c := dial(t, l.config())
	document, _ := protect(t, c, []byte("the content"), template)
	other, _ := protect(t, c, []byte("another document"), template)
	otherPL := must[*license.PublishingLicense](t)(license.ParsePL(licenseOf(t, other)))
	if got, _, err := open(t, c, document); err != nil || string(got) != "the content" {
		t.Fatalf("honest: %q, %v", got, err)
	}
	strangerKey := must[*license.RecipientKey](t)(license.NewRecipientKey(license.XWing))
	stranger := must[*license.Recipient](t)(license.ParseRecipient(license.XWing, strangerKey.Public(), []license.KEM{license.XWing}))
	otherRoot, unCertified := newKey(t), newKey(t)

	for _, a := range []struct {
		name   string
		ul     func(*ulInput)
		answer func(*rmsv1.AcquireResponse)
		want   rms.Reason
	}{
		{name: "for another principal", ul: func(u *ulInput) { u.principal = canon.PrincipalID(liarIssuer, "bob") }, want: rms.ReasonUseLicenseRejected},
		{name: "for the same subject of another issuer", ul: func(u *ulInput) { u.principal = canon.PrincipalID("https://other.test", liarSubject) }, want: rms.ReasonUseLicenseRejected},
		{name: "for another key", ul: func(u *ulInput) { u.recipient = stranger }, want: rms.ReasonUseLicenseRejected},
		{name: "for another document", ul: func(u *ulInput) {
			u.Content, u.Commitment, u.key = otherPL.Content, otherPL.Commitment, l.keys[otherPL.Content]
		}, want: rms.ReasonUseLicenseRejected},
		{name: "with another content key and its commitment", ul: func(u *ulInput) {
			u.key = vocab.NewSecret()
			u.Commitment = canon.Commitment(u.key, l.tenant, u.Content, u.ContentSuite)
		}, want: rms.ReasonUseLicenseRejected},
		{name: "with another content key and the true commitment", ul: func(u *ulInput) { u.box = vocab.NewSecret() }, want: rms.ReasonUseLicenseRejected},
		{name: "ended", ul: func(u *ulInput) { u.NotBefore, u.NotAfter = l.now.Add(-2*time.Hour), l.now }, want: rms.ReasonUseLicenseRejected},
		{name: "not valid yet", ul: func(u *ulInput) { u.NotBefore = l.now.Add(6 * time.Minute) }, want: rms.ReasonUseLicenseRejected},
		{name: "content expired", ul: func(u *ulInput) { u.ContentNotAfter = l.now.Add(-time.Second) }, want: rms.ReasonLicenseExpired},
		{name: "without the right", ul: func(u *ulInput) { u.Rights = vocab.RightsOf(vocab.RightPrint) }, want: rms.ReasonUseLicenseRejected},
		{name: "signed under a root nobody pinned", ul: func(u *ulInput) {
			u.signer, u.cert = unCertified, l.certify(otherRoot, unCertified, license.UsageUL)
		}, want: rms.ReasonTrustRootMismatch},
		{name: "signed with a key for other things", ul: func(u *ulInput) {
			k := newKey(t)
			// Made for both uses, then shown with a certificate for one.
			u.signer, u.cert = k, l.certify(l.root, k, license.UsageUL)
		}, answer: func(r *rmsv1.AcquireResponse) {
			r.Certificate = l.certify(l.root, unCertified, license.UsagePL).Raw()
		}, want: rms.ReasonUseLicenseRejected},
		{name: "another certificate", answer: func(r *rmsv1.AcquireResponse) { r.Certificate = l.certify(l.root, l.daemon, license.UsageUL).Raw() }, want: rms.ReasonUseLicenseRejected},
		{name: "no certificate", answer: func(r *rmsv1.AcquireResponse) { r.Certificate = nil }, want: rms.ReasonLicenseMalformed},
		{name: "no use license", answer: func(r *rmsv1.AcquireResponse) { r.UseLicense = nil }, want: rms.ReasonLicenseMalformed},
		{name: "a publishing license as use license", answer: func(r *rmsv1.AcquireResponse) { r.UseLicense = licenseOf(t, document) }, want: rms.ReasonLicenseMalformed},
		{name: "no key", answer: func(r *rmsv1.AcquireResponse) { r.ContentKey = nil }, want: rms.ReasonUseLicenseRejected},
		{name: "a key in the clear", answer: func(r *rmsv1.AcquireResponse) {
			r.ContentKey = &rmsv1.DeliveredKey{How: &rmsv1.DeliveredKey_Clear{Clear: make([]byte, 32)}}
		}, want: rms.ReasonUseLicenseRejected},
		{name: "another key agreement", answer: func(r *rmsv1.AcquireResponse) { r.ContentKey.GetSealed().Enc[7] ^= 1 }, want: rms.ReasonUseLicenseRejected},
		{name: "a flipped bit in the signature", answer: func(r *rmsv1.AcquireResponse) { r.UseLicense[len(r.UseLicense)-1] ^= 1 }, want: rms.ReasonLicenseSignature},
	} {
		t.Run(a.name, func(t *testing.T) {
			l.onUL = a.ul
			l.onAcquire = func(_ context.Context, _ *rmsv1.AcquireRequest, r *rmsv1.AcquireResponse) {
				if a.answer != nil {
					a.answer(r)
				}
			}
			defer func() { l.onUL, l.onAcquire = nil, nil }()
			if _, _, err := open(t, c, document); rms.ReasonOf(err) != a.want {
				t.Errorf("%v, want %s", err, a.want)
			}
			var out bytes.Buffer
			if _, err := c.Unprotect(t.Context(), &out, bytes.NewReader(document), int64(len(document))); err == nil || out.Len() != 0 {
				t.Errorf("unprotect: %v, %d bytes written", err, out.Len())
			}
		})
	}
	if got, _, err := open(t, c, document); err != nil || string(got) != "the content" {
		t.Fatalf("honest again: %q, %v", got, err)
	}
}

func TestLyingPublish(t *testing.T) {
	l, stranger := newLiar(t), newLiar(t)
	c := dial(t, l.config())
	var before *rmsv1.PublishResponse
	l.onPublish = func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) { before = r }
	protect(t, c, []byte("x"), template)
	for _, a := range []struct {
		name   string
		answer func(context.Context, *rmsv1.PublishRequest, *rmsv1.PublishResponse)
		want   rms.Reason
	}{
		{"another tenant's license", func(ctx context.Context, q *rmsv1.PublishRequest, r *rmsv1.PublishResponse) {
			foreign := must[*rmsv1.PublishResponse](t)(stranger.Publish(ctx, q))
			r.PublishingLicense, r.ContentKey, r.License = foreign.PublishingLicense, foreign.ContentKey, foreign.License
		}, rms.ReasonLicenseMismatch},
		{"the key of another document", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) {
			r.ContentKey = before.ContentKey
		}, rms.ReasonUseLicenseRejected},
		{"a document that was made before", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) {
			r.PublishingLicense, r.ContentKey, r.License = before.PublishingLicense, before.ContentKey, before.License
		}, rms.ReasonUseLicenseRejected},
		{"the record of another document", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) { r.License = before.License }, rms.ReasonLicenseMismatch},
		{"the record of another tenant", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) {
			r.License.Name = strings.Replace(r.License.Name, "tenants/liar", "tenants/other", 1)
		}, rms.ReasonLicenseMismatch},
		{"no license", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) { r.PublishingLicense = nil }, rms.ReasonLicenseMalformed},
		{"a changed license", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) {
			r.PublishingLicense[len(r.PublishingLicense)-1] ^= 1
		}, rms.ReasonLicenseSignature},
		{"no key", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) { r.ContentKey = nil }, rms.ReasonUseLicenseRejected},
		{"a key in the clear", func(_ context.Context, _ *rmsv1.PublishRequest, r *rmsv1.PublishResponse) {
			r.ContentKey = &rmsv1.DeliveredKey{How: &rmsv1.DeliveredKey_Clear{Clear: make([]byte, 32)}}
		}, rms.ReasonUseLicenseRejected},
	} {
		t.Run(a.name, func(t *testing.T) {
			l.onPublish = a.answer
			var out bytes.Buffer
			made, err := c.Protect(t.Context(), &out, strings.NewReader("secret"), template)
			if rms.ReasonOf(err) != a.want || out.Len() != 0 || made != nil {
				t.Errorf("%v, %d bytes written; want %s", err, out.Len(), a.want)
			}
		})
	}
}

// What is wrong with a document shows before anybody is asked.
func TestTamperedDocument(t *testing.T) {
	l := newLiar(t)
	c := dial(t, l.config())
	document, _ := protect(t, c, content(3<<20), template)
	other, _ := protect(t, c, []byte("another"), template)
	foreign, _ := protect(t, dial(t, newLiar(t).config()), []byte("foreign"), template)

	for _, a := range []struct {
		name   string
		change func([]byte) []byte
		want   rms.Reason
	}{
		{"the license of another document", func(b []byte) []byte { return withLicense(t, b, licenseOf(t, other)) }, rms.ReasonLicenseMismatch},
		{"the license of another tenant", func(b []byte) []byte { return withLicense(t, b, licenseOf(t, foreign)) }, rms.ReasonLicenseMismatch},
		{"a changed license", func(b []byte) []byte { return flip(b, bytes.Index(b, licenseOf(t, b))+200) }, ""},
		{"a changed signature", func(b []byte) []byte {
			raw := licenseOf(t, b)
			return flip(b, bytes.Index(b, raw)+len(raw)-1)
		}, rms.ReasonLicenseSignature},
		{"another content ID", func(b []byte) []byte { return flip(b, 47) }, rms.ReasonLicenseMismatch},
		{"another commitment", func(b []byte) []byte { return flip(b, 48) }, rms.ReasonLicenseMismatch},
		{"another tenant ID", func(b []byte) []byte { return flip(b, 16) }, rms.ReasonServerNotConfigured},
		{"another tenant's document", func([]byte) []byte { return foreign }, rms.ReasonServerNotConfigured},
		{"a newer version", func(b []byte) []byte { b[9] = 9; return b }, rms.ReasonLicenseFormatNewer},
		{"not a document", func([]byte) []byte { return []byte("%PDF-1.7") }, rms.ReasonContainerMalformed},
		{"nothing", func([]byte) []byte { return nil }, rms.ReasonContainerMalformed},
		{"half a header", func(b []byte) []byte { return b[:5000] }, rms.ReasonContainerMalformed},
	} {
		t.Run(a.name, func(t *testing.T) {
			asked := l.acquires.Load()
			_, _, err := open(t, c, a.change(bytes.Clone(document)))
			if err == nil || a.want != "" && rms.ReasonOf(err) != a.want {
				t.Errorf("%v, want %s", err, a.want)
			}
			if l.acquires.Load() != asked {
				t.Error("the server was asked")
			}
		})
	}
	if n := l.trusts.Load(); n != 0 {
		t.Errorf("a newer trust bundle was asked for %d times", n)
	}

	// What only the key shows.
	stream := int(must[*container.Header](t)(container.ReadHeader(bytes.NewReader(document))).StreamOffset())
	for _, a := range []struct {
		name   string
		change func([]byte) []byte
		reads  bool // the change is found when reading comes to it
	}{
		{"a changed name", func(b []byte) []byte { return flip(b, 100) }, false},
		{"a changed first byte", func(b []byte) []byte { return flip(b, stream+41) }, true},
		{"a change in the middle", func(b []byte) []byte { return flip(b, stream+3<<19) }, true},
		{"a changed last byte", func(b []byte) []byte { return flip(b, len(b)-1) }, false},
		{"cut by a byte", func(b []byte) []byte { return b[:len(b)-1] }, false},
		{"cut at a segment", func(b []byte) []byte { return b[:stream+2<<20] }, false},
		{"extended", func(b []byte) []byte { return append(b, 0) }, false},
		{"no content", func(b []byte) []byte { return b[:stream] }, false},
	} {
		t.Run(a.name, func(t *testing.T) {
			changed := a.change(bytes.Clone(document))
			d, err := c.Open(t.Context(), bytes.NewReader(changed), int64(len(changed)), rms.RightView)
			if a.reads {
				if err != nil {
					t.Fatal(err)
				}
				var n int64
				n, err = d.WriteTo(io.Discard)
				if n >= d.Size {
					t.Error("everything was served")
				}
			}
			if !errors.Is(err, rms.ReasonContentChanged) {
				t.Errorf("%v, want CONTENT_CHANGED", err)
			}
		})
	}
}

// A document cannot make a client speak to anybody but its own server.
func TestHostileDocumentDialsNobody(t *testing.T) {
	listener := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	var contacts atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			contacts.Add(1)
			conn.Close()
		}
	}()
	trap := listener.Addr().String()
	setTrap := func(in *license.PLInput) {
		in.ServiceHint, in.ContactHint, in.Descriptor = "https://"+trap, "http://"+trap+"/contact", "rms://"+trap
	}
	l, enemy := newLiar(t), newLiar(t)
	l.onPL, enemy.onPL = setTrap, setTrap
	c := dial(t, l.config())
	own, _ := protect(t, c, []byte("x"), template)
	foreign, _ := protect(t, dial(t, enemy.config()), []byte("x"), template)
	asked := enemy.acquires.Load() + enemy.trusts.Load()

	if _, _, err := open(t, c, own); err != nil {
		t.Errorf("a document with hints: %v", err)
	}
	if _, _, err := open(t, c, foreign); !errors.Is(err, rms.ReasonServerNotConfigured) {
		t.Errorf("the enemy's document: %v", err)
	}
	if i, err := rms.Inspect(bytes.NewReader(own), int64(len(own)), nil); err != nil || !strings.Contains(i.Service, trap) {
		t.Errorf("%+v, %v", i, err)
	}
	if l.acquires.Load() != 1 || enemy.acquires.Load()+enemy.trusts.Load() != asked {
		t.Error("the enemy's document was taken to a server")
	}
	listener.Close()
	<-done
	if n := contacts.Load(); n != 0 {
		t.Errorf("%d connections to where the document points", n)
	}
}

func TestClockSetBack(t *testing.T) {
	l := newLiar(t)
	start := l.now
	var clock atomic.Int64 // after start
	config := l.config()
	config.Now = func() time.Time { return start.Add(time.Duration(clock.Load())) }
	c := dial(t, config)
	document, _ := protect(t, c, []byte("x"), template)
	until := func(d time.Duration) func(*ulInput) {
		return func(u *ulInput) { u.NotAfter = start.Add(d) }
	}
	clock.Store(int64(2 * time.Hour))
	l.onUL = until(3 * time.Hour)
	if _, _, err := open(t, c, document); err != nil {
		t.Fatal(err)
	}
	clock.Store(0)
	l.onUL = until(time.Hour)
	if _, _, err := open(t, c, document); !errors.Is(err, rms.ReasonUseLicenseRejected) {
		t.Errorf("a license that had ended, with the clock set back: %v", err)
	}
	// A time the tenant has signed counts like one the clock has shown.
	l.onUL = func(u *ulInput) {
		u.IssuedAt, u.NotBefore, u.NotAfter = start.Add(5*time.Hour), start, start.Add(6*time.Hour)
	}
	if _, _, err := open(t, c, document); err != nil {
		t.Fatal(err)
	}
	l.onUL = until(4 * time.Hour)
	if _, _, err := open(t, c, document); !errors.Is(err, rms.ReasonUseLicenseRejected) {
		t.Errorf("a license that had ended before the last one was signed: %v", err)
	}
}

func TestTrustFollowsRotation(t *testing.T) {
	l := newLiar(t)
	var kept []rms.Trust
	config := l.config()
	config.Trust.Updated = func(t rms.Trust) { kept = append(kept, t) }
	c := dial(t, config)
	old, _ := protect(t, c, []byte("under the first root"), template)

	first := l.root
	l.root, l.daemon = newKey(t), newKey(t)
	l.cert = l.certify(l.root, l.daemon, license.UsagePL|license.UsageUL)
	l.setBundle(6, l.root, first)
	document, _ := protect(t, c, []byte("under the second root"), template)
	for _, d := range [][]byte{old, document} {
		if _, _, err := open(t, c, d); err != nil {
			t.Errorf("after the rotation: %v", err)
		}
	}
	if n := l.trusts.Load(); n != 1 || len(kept) != 1 || kept[0].BundleSeq != 6 || len(kept[0].RootKeyIDs) != 2 {
		t.Fatalf("asked %d times, kept %+v", n, kept)
	}

	// A client that kept what it was told needs only the new root.
	l.setBundle(7, l.root)
	config.Trust, config.Trust.Updated = kept[0], nil
	config.Trust.Bundle = nil
	if _, _, err := open(t, dial(t, config), document); err != nil {
		t.Errorf("with the trust that was kept: %v", err)
	}
	// One that did not keeps to what it pinned.
	config.Trust = l.config().Trust
	config.Trust.RootKeyIDs, config.Trust.Bundle = [][32]byte{license.KeyIDOf(first.PublicKey())}, nil
	if _, err := rms.Dial(t.Context(), config); !errors.Is(err, rms.ReasonTrustRootMismatch) {
		t.Errorf("with the first root alone: %v", err)
	}
}

func TestCompromisedRoot(t *testing.T) {
	l := newLiar(t)
	var kept rms.Trust
	config := l.config()
	config.Trust.Updated = func(t rms.Trust) { kept = t }
	c := dial(t, config)
	old, _ := protect(t, c, []byte("x"), template)
	first := l.root
	l.root, l.daemon = newKey(t), newKey(t)
	l.cert = l.certify(l.root, l.daemon, license.UsagePL|license.UsageUL)
	l.setBundle(6, l.root, first) // followed first, since a compromised root vouches for nothing
	protect(t, c, []byte("x"), template)
	l.giveOut(must[*license.Bundle](t)(license.SignBundle(t.Context(), license.Bundle{
		Tenant: l.tenant, IssuedAt: l.now, Seq: 7, NextUpdate: l.now.Add(time.Hour), Suites: license.DefaultSuites(),
		Roots: []license.Root{{Key: l.root.PublicKey(), Version: 2, State: license.RootCurrent}, {Key: first.PublicKey(), Version: 1, State: license.RootCompromised}},
	}, l.root)))

	config.Trust, config.Trust.Bundle = kept, nil
	c = dial(t, config)
	if _, _, err := open(t, c, old); !errors.Is(err, rms.ReasonTrustRootMismatch) {
		t.Errorf("a document under the compromised root: %v", err)
	}
	if len(kept.RootKeyIDs) != 1 || kept.RootKeyIDs[0] != license.KeyIDOf(l.root.PublicKey()) {
		t.Errorf("pins that are kept: %x", kept.RootKeyIDs)
	}
	// Whoever has the compromised key cannot win the client back.
	l.setBundle(8, first)
	config.Trust, config.Trust.Bundle = kept, nil
	if _, err := rms.Dial(t.Context(), config); !errors.Is(err, rms.ReasonTrustRootMismatch) {
		t.Errorf("a bundle of the compromised root: %v", err)
	}
}

func TestBundleNeverGoesBack(t *testing.T) {
	l := newLiar(t)
	start := l.now
	config := l.config()
	var clock atomic.Int64
	config.Now = func() time.Time { return start.Add(time.Duration(clock.Load())) }
	c := dial(t, config)
	document, _ := protect(t, c, []byte("x"), template)

	clock.Store(int64(30 * 24 * time.Hour)) // the bundle has ended
	l.now = start.Add(30 * 24 * time.Hour)
	l.cert = l.certify(l.root, l.daemon, license.UsagePL|license.UsageUL)
	l.setBundle(4, l.root)
	if _, _, err := open(t, c, document); !errors.Is(err, rms.ReasonTrustRootMismatch) {
		t.Errorf("with an older bundle: %v", err)
	}
	l.setBundle(6, newKey(t))
	if _, _, err := open(t, c, document); !errors.Is(err, rms.ReasonTrustRootMismatch) {
		t.Errorf("with a bundle of another root: %v", err)
	}
	l.setBundle(6, l.root)
	if _, _, err := open(t, c, document); err != nil {
		t.Errorf("with a newer bundle: %v", err)
	}
}

// A document whose signer nobody knows makes the client look once, not each
// time.
func TestUnknownSignerAsksOnce(t *testing.T) {
	l := newLiar(t)
	c := dial(t, l.config())
	root, daemon, cert := l.root, l.daemon, l.cert
	l.root, l.daemon = newKey(t), newKey(t)
	l.cert = l.certify(l.root, l.daemon, license.UsagePL)
	resp := must[*rmsv1.PublishResponse](t)(l.Publish(t.Context(), &rmsv1.PublishRequest{Parent: "tenants/liar", Delivery: anyDelivery(t)}))
	pl := must[*license.PublishingLicense](t)(license.ParsePL(resp.PublishingLicense))
	var forged bytes.Buffer
	ck := l.keys[pl.Content]
	w := must[io.WriteCloser](t)(container.Create(&forged, container.NewPrefix(l.tenant, pl.Content, ck), ck, pl.Raw(), container.Meta{Size: -1}))
	w.Close()
	l.root, l.daemon, l.cert = root, daemon, cert

	for range 5 {
		if _, _, err := open(t, c, forged.Bytes()); !errors.Is(err, rms.ReasonTrustRootMismatch) {
			t.Errorf("a license under an unknown root: %v", err)
		}
	}
	if l.trusts.Load() != 1 || l.acquires.Load() != 0 {
		t.Errorf("asked for trust %d times, for the key %d times", l.trusts.Load(), l.acquires.Load())
	}
	if n, _ := l.sent.Load("GetTrust"); n != 0 {
		t.Errorf("%v tokens were sent with a call that needs none", n)
	}
	if n, _ := l.sent.Load("Publish"); n != nil {
		t.Errorf("%v tokens were sent with a call that was none", n)
	}
	protect(t, c, []byte("x"), template)
	if n, _ := l.sent.Load("Publish"); n != 1 {
		t.Errorf("%v tokens were sent with a call that needs one", n)
	}
}

func anyDelivery(t testing.TB) *rmsv1.KeyDelivery {
	k := must[*license.RecipientKey](t)(license.NewRecipientKey(license.XWing))
	return &rmsv1.KeyDelivery{How: &rmsv1.KeyDelivery_Hpke{Hpke: &rmsv1.HpkePublicKey{Kem: uint32(k.KEM()), PublicKey: k.Public()}}}
}

// A document whose license area is damaged opens by its content ID.
func TestDamagedLicense(t *testing.T) {
	l := newLiar(t)
	c := dial(t, l.config())
	document, _ := protect(t, c, []byte("still here"), template)
	torn := bytes.Clone(document)
	copy(torn[88:92], []byte{0, 0, 0, 0}) // no length
	raw := licenseOf(t, document)
	for name, c2 := range map[string]struct {
		document []byte
		options  []rms.OpenOption
		damaged  bool
	}{
		"torn":                 {torn, nil, true},
		"changed, and told so": {flip(bytes.Clone(document), bytes.Index(document, raw)+len(raw)-1), []rms.OpenOption{rms.ByID()}, false},
	} {
		got, d, err := open(t, c, c2.document, c2.options...)
		if err != nil || string(got) != "still here" || d.LicenseDamaged != c2.damaged {
			t.Errorf("%s: %q, %+v, %v", name, got, d, err)
		}
	}
	if len(l.byID) != 2 || !strings.HasPrefix(l.byID[0], "tenants/liar/licenses/") {
		t.Errorf("asked by ID: %q", l.byID)
	}
}

func TestServerSaysNo(t *testing.T) {
	l := newLiar(t)
	c := dial(t, l.config())
	_, err := c.Policy().GetSettings(t.Context(), &rmsv1.GetSettingsRequest{Name: "tenants/liar/settings"})
	if e, ok := errors.AsType[*rms.Error](err); !ok || e.Reason != rms.ReasonInternal || status.Code(err) != codes.Unimplemented {
		t.Errorf("a service that is not there: %#v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Protect(ctx, io.Discard, strings.NewReader("x"), template)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, rms.ReasonServerUnreachable) {
		t.Errorf("cancelled: %v", err)
	}
}

func licenseOf(t testing.TB, document []byte) []byte {
	t.Helper()
	h := must[*container.Header](t)(container.ReadHeader(bytes.NewReader(document)))
	return must[[]byte](t)(h.License())
}

// withLicense puts another license of the same length, or shorter, into a
// document.
func withLicense(t testing.TB, document, raw []byte) []byte {
	t.Helper()
	own := licenseOf(t, document)
	at := bytes.Index(document, own)
	clear(document[at : at+len(own)])
	copy(document[at:], raw)
	document[88], document[89], document[90], document[91] = 0, 0, byte(len(raw)>>8), byte(len(raw))
	return document
}

func flip(b []byte, i int) []byte {
	b[i] ^= 1
	return b
}
