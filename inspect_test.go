package rms_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/openrms/rms"
	"github.com/openrms/rms/internal/container"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/policy"
	"github.com/openrms/rms/internal/vocab"
	"github.com/openrms/rms/rmstest"
)

func TestInspect(t *testing.T) {
	svc := rmstest.Start(t)
	trust := svc.Trust()
	for _, size := range []int{0, 1, 1<<20 - 56, 1<<20 - 55, 3 << 20} {
		document, made := protect(t, svc.Client("alice"), content(size), rms.ProtectOptions{Template: "board-secret"})
		i, err := rms.Inspect(bytes.NewReader(document), int64(len(document)), &trust)
		if err != nil {
			t.Fatal(err)
		}
		if i.License != made.License || i.TenantID != trust.TenantID || i.ContentSize != int64(size) || i.ContentSuite != 1 || !i.Strict ||
			!i.Verified || i.VerifyError != nil || i.LicenseError != nil || i.RootKeyID != trust.RootKeyIDs[0] || i.Contact != "cosec@contoso.test" {
			t.Errorf("%d bytes: %+v", size, i)
		}
	}
}

func TestInspectTellsClaimedFromVerified(t *testing.T) {
	l := newLiar(t)
	c := dial(t, l.config())
	document, _ := protect(t, c, []byte("x"), template)
	other, _ := protect(t, c, []byte("y"), template)
	stranger := newLiar(t)
	trust, strange := l.config().Trust, stranger.config().Trust
	older := trust
	older.BundleSeq++
	raw := licenseOf(t, document)

	for _, a := range []struct {
		name     string
		document []byte
		trust    *rms.Trust
		verified bool
		verify   rms.Reason // of VerifyError
		license  rms.Reason // of LicenseError
	}{
		{"with its trust", document, &trust, true, "", ""},
		{"without trust", document, nil, false, "", ""},
		{"without a bundle", document, &rms.Trust{TenantID: trust.TenantID, RootKeyIDs: trust.RootKeyIDs}, false, "", ""},
		{"with another tenant's trust", document, &strange, false, rms.ReasonLicenseMismatch, ""},
		{"with an older bundle than seen", document, &older, false, rms.ReasonTrustRootMismatch, ""},
		{"with no tenant", document, &rms.Trust{Bundle: trust.Bundle}, false, rms.ReasonConfigurationInvalid, ""},
		{"a forged signature", flip(bytes.Clone(document), bytes.Index(document, raw)+len(raw)-1), &trust, false, rms.ReasonLicenseSignature, ""},
		{"another document's license", withLicense(t, bytes.Clone(document), licenseOf(t, other)), &trust, false, "", rms.ReasonLicenseMismatch},
		{"a torn license", flip(bytes.Clone(document), 88), &trust, false, "", rms.ReasonLicenseMalformed},
	} {
		t.Run(a.name, func(t *testing.T) {
			asked := l.trusts.Load() + stranger.trusts.Load()
			i, err := rms.Inspect(bytes.NewReader(a.document), int64(len(a.document)), a.trust)
			if err != nil {
				t.Fatal(err)
			}
			if i.Verified != a.verified || rms.ReasonOf(i.VerifyError) != a.verify || rms.ReasonOf(i.LicenseError) != a.license {
				t.Errorf("%+v", i)
			}
			if (i.LicenseError == nil) == i.IssuedAt.IsZero() {
				t.Errorf("license error %v, but issued at %s", i.LicenseError, i.IssuedAt)
			}
			if l.trusts.Load()+stranger.trusts.Load() != asked {
				t.Error("a server was asked")
			}
		})
	}
	if _, err := rms.Inspect(bytes.NewReader([]byte("PK")), 2, nil); !errors.Is(err, rms.ReasonContainerMalformed) {
		t.Errorf("not a document: %v", err)
	}
}

// fixedDocument is a small document of a tenant whose keys are test values, the
// same each time, so that the corpus stays meaningful.
func fixedDocument(t testing.TB) (document []byte, trust rms.Trust) {
	t.Helper()
	seed := func(b byte) *license.DaemonKey {
		return license.DaemonKeyFromSeed(vocab.SecretFrom(bytes.Repeat([]byte{b}, 32)))
	}
	root, daemon, tenant, at := seed(1), seed(2), vocab.TenantID{0: 7, 6: 0x40, 8: 0x80}, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	bundle := must[*license.Bundle](t)(license.SignBundle(t.Context(), license.Bundle{
		Tenant: tenant, IssuedAt: at, Seq: 1, NextUpdate: at.Add(24 * time.Hour), Suites: license.DefaultSuites(),
		Roots: []license.Root{{Key: root.PublicKey(), Version: 1, State: license.RootCurrent}},
	}, root))
	cert := must[*license.Certificate](t)(license.IssueCertificate(t.Context(), root, license.Certificate{
		Tenant: tenant, IssuedAt: at, ID: vocab.CertID{1}, Subject: daemon.PublicKey(), Usage: license.UsagePL, NotBefore: at, NotAfter: at.Add(24 * time.Hour),
	}))
	ck := vocab.SecretFrom(bytes.Repeat([]byte{3}, 32))
	content := vocab.ContentID{6: 0x70, 8: 0x80, 15: 1}
	pl := must[*license.PublishingLicense](t)(license.MakePL(t.Context(), daemon, cert, license.PLInput{
		IssuedAt: at, Content: content, Generation: vocab.GenerationID{1}, Seq: 1, ContactHint: "help@contoso.test",
	}, vocab.SecretFrom(bytes.Repeat([]byte{4}, 32)), ck, &policy.Policy{
		Owner: vocab.Principal{Kind: vocab.KindUser, Value: "alice@contoso.test"}, Issuer: policy.Issuer{Issuer: "i", Subject: "s"}, Template: vocab.TemplateUID{1},
	}))
	var b bytes.Buffer
	w := must[io.WriteCloser](t)(container.Create(&b, container.NewPrefix(tenant, content, ck), ck, pl.Raw(), container.Meta{Size: -1}))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), rms.Trust{TenantID: tenant, RootKeyIDs: [][32]byte{license.KeyIDOf(root.PublicKey())}, Bundle: bundle.Raw(), BundleSeq: 1}
}

func FuzzInspect(f *testing.F) {
	document, trust := fixedDocument(f)
	raw := licenseOf(f, document)
	at := bytes.Index(document, raw)
	f.Add(document)
	for _, n := range []int{0, 7, 80, 95, 96, 4096, len(document) - 1} {
		f.Add(document[:n])
	}
	for _, i := range []int{0, 8, 10, 12, 16, 40, 48, 80, 84, 88, 91, 92, at, at + 20, at + 100, at + 200, at + len(raw) - 1, at + len(raw)} {
		f.Add(flip(bytes.Clone(document), i))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := rms.Inspect(bytes.NewReader(b), int64(len(b)), &trust)
		if err != nil {
			if rms.ReasonOf(err) == rms.ReasonInternal {
				t.Error(err)
			}
			return
		}
		if i.Verified && (i.TenantID != trust.TenantID || i.LicenseError != nil || i.VerifyError != nil) {
			t.Errorf("%+v", i)
		}
	})
}
