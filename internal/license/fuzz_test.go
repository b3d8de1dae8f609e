package license

import (
	"bytes"
	"testing"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// seeds returns one valid object of every kind and some that almost are.
func seeds(f *testing.F) (*world, [][]byte) {
	w := newWorld(f)
	key, public := recipient(f, X25519)
	d := must[*Delivery](f)(NewDelivery(public, w.tenant, bob))
	ul := must[*UseLicense](f)(d.UseLicense(f.Context(), w.daemon, w.cert, w.useFields(f), w.ck))
	byTemplate := w.useFields(f)
	byTemplate.Policy.Template = w.template.UID
	ul2 := must[*UseLicense](f)(d.UseLicense(f.Context(), w.daemon, w.cert, byTemplate, w.ck))
	in := w.plInput()
	in.Wrap = w.wrap()
	strict := must[*PublishingLicense](f)(MakePL(f.Context(), w.daemon, w.cert, in, w.secret, w.ck, w.policy))
	next := DaemonKeyFromSeed(testSecret(0x66))
	rotated := w.bundleFields()
	rotated.Roots = []Root{{next.PublicKey(), 2, RootCurrent}, {w.root.PublicKey(), 1, RootPrevious}}
	rotated.RevokedCertificates = []vocab.CertID{{1}, {2}}
	clc := must[*Envelope](f)(seal(f.Context(), KindCLC, []byte{0xa0}, nil, w.daemon))
	bare := must[*Envelope](f)(seal(f.Context(), KindPL, []byte{0xa0}, nil, w.daemon))
	boxed := must[*Envelope](f)(seal(f.Context(), KindBundle, w.bundle.envelope.Header, []byte("x"), w.root))
	out := [][]byte{
		w.pl.Raw(), strict.Raw(), ul.Raw(), ul2.Raw(), w.cert.Raw(), w.bundle.Raw(), clc.raw, bare.raw, boxed.raw,
		must[*Bundle](f)(SignBundle(f.Context(), rotated, next, w.root)).Raw(),
		must[*Generation](f)(SignGeneration(f.Context(), w.root, w.generationFields())).Raw(),
		must[*TemplateRevision](f)(SignTemplate(f.Context(), w.daemon, w.cert, w.template)).Raw(),
		must[[]byte](f)(EncodePolicy(w.policy)), w.wrap().Encode(), key.Public(), {}, {0xd2, 0x84}, {0xd8, 0x62, 0x84},
	}
	for _, b := range [][]byte{w.pl.Raw(), ul.Raw()} {
		out = append(out, b[:len(b)/2], append(bytes.Clone(b), 0))
	}
	return w, out
}

// fuzzParser checks what every parser owes: no panic, a reason for a person in
// each refusal, and for what is read that its bytes are kept as they came.
func fuzzParser[T any](f *testing.F, parse func([]byte) (T, error), raw func(T) ([]byte, error)) {
	_, all := seeds(f)
	for _, b := range all {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parse(b)
		if err != nil {
			switch r := vocab.ReasonOf(err); r {
			case vocab.ReasonLicenseMalformed, vocab.ReasonLicenseFormatNewer, vocab.ReasonSuiteUnsupported, vocab.ReasonRequestInvalid:
			default:
				t.Fatalf("reason %s: %v", r, err)
			}
			return
		}
		again, err := raw(v)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("read %x, written %x (%v)", b, again, err)
		}
	})
}

func FuzzParseEnvelope(f *testing.F) {
	fuzzParser(f, ParseEnvelope, func(e *Envelope) ([]byte, error) { return e.encode(), nil })
}

func FuzzParsePL(f *testing.F) {
	fuzzParser(f, ParsePL, func(p *PublishingLicense) ([]byte, error) { return p.Raw(), nil })
}

func FuzzParseUL(f *testing.F) {
	fuzzParser(f, ParseUL, func(u *UseLicense) ([]byte, error) { return u.Raw(), nil })
}

func FuzzParseCertificate(f *testing.F) {
	fuzzParser(f, ParseCertificate, func(c *Certificate) ([]byte, error) { return c.Raw(), nil })
}

func FuzzParseBundle(f *testing.F) {
	fuzzParser(f, ParseBundle, func(b *Bundle) ([]byte, error) { return b.Raw(), nil })
}

func FuzzParseGeneration(f *testing.F) {
	fuzzParser(f, ParseGeneration, func(g *Generation) ([]byte, error) { return g.Raw(), nil })
}

func FuzzParseTemplate(f *testing.F) {
	fuzzParser(f, ParseTemplate, func(r *TemplateRevision) ([]byte, error) { return r.Raw(), nil })
}

func FuzzParseWrap(f *testing.F) {
	fuzzParser(f, ParseWrap, func(w *Wrap) ([]byte, error) { return w.Encode(), nil })
}

func FuzzDecodePolicy(f *testing.F) {
	w, all := seeds(f)
	p := *w.policy
	p.AdHoc, p.Template = nil, w.template.UID
	f.Add(must[[]byte](f)(EncodePolicy(&p)))
	for _, b := range all {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePolicy(b)
		if err != nil {
			return
		}
		again, err := EncodePolicy(p)
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		if bytes.Equal(again, b) {
			return
		}
		// Only fields a reader may ignore can be lost.
		if len(again) >= len(b) || canon.Check(b) != nil {
			t.Fatalf("read %x, written %x", b, again)
		}
	})
}

func FuzzParseRecipient(f *testing.F) {
	for _, kem := range []KEM{XWing, X25519, 0x10} {
		k := must[*RecipientKey](f)(RecipientKeyFrom(XWing, testSecret(5)))
		f.Add(uint16(kem), k.Public())
		f.Add(uint16(kem), make([]byte, 32))
		f.Add(uint16(kem), k.Public()[:32])
	}
	f.Fuzz(func(t *testing.T, kem uint16, b []byte) {
		r, err := ParseRecipient(KEM(kem), b, []KEM{XWing, X25519})
		if err != nil {
			return
		}
		// Whatever parses can be sealed to.
		if _, err := NewDelivery(r, vocab.TenantID{1}, [32]byte{1}); err != nil {
			t.Fatal(err)
		}
	})
}
