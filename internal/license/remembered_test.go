package license

import (
	"crypto/ecdh"
	"slices"
	"testing"

	"github.com/openrms/rms/internal/vocab"
)

// A certificate whose signature was good once is not believed for that: the
// same certificate with another signature is another one, and its period, its
// use and its revocation count at every look.
func TestRememberedCertificateIsStillChecked(t *testing.T) {
	w := newWorld(t)
	v := &Verifier{bundle: w.bundle}
	good := w.cert
	for range 2 {
		if err := v.VerifyCertificate(good, UsagePL, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.signed.set) != 1 {
		t.Fatalf("%d certificates are remembered, want 1", len(v.signed.set))
	}
	raw := slices.Clone(good.Raw())
	raw[len(raw)-1] ^= 1 // of the signature
	forged, err := ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, v.VerifyCertificate(forged, UsagePL, now), vocab.ReasonLicenseSignature)
	wantReason(t, v.VerifyCertificate(good, UsageCheckpoint, now), vocab.ReasonTrustRootMismatch)
	wantReason(t, v.VerifyCertificate(good, UsagePL, good.NotAfter.Add(1)), vocab.ReasonTrustRootMismatch)
	revoking := *w.bundle
	revoking.RevokedCertificates = []vocab.CertID{good.ID}
	v.bundle = &revoking
	wantReason(t, v.VerifyCertificate(good, UsagePL, now), vocab.ReasonTrustRootMismatch)
}

// The list of points of low order is what an agreement refuses: no point more.
func TestSmallOrderPointsAreThoseThatAgreeOnNothing(t *testing.T) {
	key := must[*ecdh.PrivateKey](t)(ecdh.X25519().GenerateKey(nil))
	refused := func(point []byte) bool {
		p, err := ecdh.X25519().NewPublicKey(point)
		if err == nil {
			_, err = key.ECDH(p)
		}
		return err != nil
	}
	for _, base := range smallOrder {
		for _, high := range []byte{0, 0x80} {
			for low := -2; low <= 2; low++ { // and what stands beside it
				point := []byte(base)
				point[31] |= high
				point[0] += byte(low)
				if got, want := checkX25519(point) != nil, refused(point); got != want {
					t.Errorf("%x: refused %t, an agreement says %t", point, got, want)
				}
			}
		}
	}
}
