package license

import "testing"

func BenchmarkUseLicense(b *testing.B) {
	w := newWorld(b)
	_, public := recipient(b, XWing)
	d := must[*Delivery](b)(NewDelivery(public, w.tenant, bob))
	u := w.useFields(b)
	for b.Loop() {
		if _, err := d.UseLicense(b.Context(), w.daemon, w.cert, u, w.ck); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewDelivery(b *testing.B) {
	w := newWorld(b)
	for _, kem := range []KEM{XWing, X25519} {
		_, public := recipient(b, kem)
		b.Run(kem.String(), func(b *testing.B) {
			for b.Loop() {
				if _, err := NewDelivery(public, w.tenant, bob); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyPL(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		if _, err := w.verifier.VerifyPL(w.pl.Raw()); err != nil {
			b.Fatal(err)
		}
	}
}
