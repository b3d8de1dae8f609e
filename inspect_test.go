package rms_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/openrms/rms"
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

func FuzzInspect(f *testing.F) {
	l := newLiar(f)
	c := dial(f, l.config())
	trust := l.config().Trust
	var b bytes.Buffer
	if _, err := c.Protect(f.Context(), &b, bytes.NewReader([]byte("x")), template); err != nil {
		f.Fatal(err)
	}
	document := b.Bytes()
	f.Add(document)
	f.Add(document[:80])
	f.Add(document[:len(document)-1])
	f.Add(flip(bytes.Clone(document), 40))
	f.Add(flip(bytes.Clone(document), 91))
	f.Add([]byte(nil))
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
