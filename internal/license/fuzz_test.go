package license

import (
	"bytes"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/policy"
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
		must[*Archive](f)(SignArchive(f.Context(), w.root, w.archiveFields())).Raw(),
		must[*TemplateRevision](f)(SignTemplate(f.Context(), w.daemon, w.cert, w.template)).Raw(),
		must[[]byte](f)(EncodePolicy(w.policy)), w.wrap().Encode(), key.Public(), {}, {0xd2, 0x84}, {0xd8, 0x62, 0x84},
	}
	rsa, none, keyless := w.wrap(), w.wrap(), w.wrap()
	rsa.L0Type, none.L0Version, keyless.Custodian = L0RSA, 0, vocab.CustodianID{}
	unknown, small := w.wrap(), w.wrap()
	unknown.L0Type, small.Ciphertext = 9, small.Ciphertext[:5]
	for _, x := range []*Wrap{rsa, none, keyless, unknown, small} {
		out = append(out, x.Encode())
	}
	out = append(out, append(w.wrap().Encode(), 0))
	for _, b := range w.otherForms(f) {
		out = append(out, b)
	}
	// A certificate inside a license that is none, or a licensor's.
	var inner map[uint64]any
	if err := canon.Unmarshal(w.pl.envelope.Header, &inner); err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{clc.raw, w.bundle.Raw(), []byte("x")} {
		inner[4] = b
		header := must[[]byte](f)(canon.Marshal(inner))
		out = append(out, must[*Envelope](f)(seal(f.Context(), KindPL, header, w.pl.envelope.Box, w.daemon)).raw)
	}
	out = append(out, must[*Envelope](f)(seal(f.Context(), KindPL, w.pl.envelope.Header, []byte("x"), w.daemon)).raw)
	for _, e := range []*Envelope{w.cert.envelope, ul.envelope, w.bundle.envelope} {
		out = append(out, must[*Envelope](f)(seal(f.Context(), e.Kind, e.Header, []byte("x"), w.daemon)).raw)
	}
	for _, b := range slices.Clone(out) {
		e, err := ParseEnvelope(b)
		if err != nil || e.Kind == KindCLC || len(e.Header) < 40 {
			continue
		}
		var m map[uint64]any
		if err := canon.Unmarshal(e.Header, &m); err != nil {
			f.Fatal(err)
		}
		for header := range mutants(m) {
			b, err := canon.Marshal(header)
			if err != nil {
				continue
			}
			for _, signer := range []Signer{w.daemon, w.root} {
				if (KeyIDOf(signer.PublicKey()) == e.Signers[0]) && len(b)+len(e.Box) < MaxEnvelope/2 {
					out = append(out, must[*Envelope](f)(seal(f.Context(), e.Kind, b, e.Box, signer)).raw)
				}
			}
		}
	}
	for _, b := range [][]byte{w.pl.Raw(), ul.Raw()} {
		out = append(out, b[:len(b)/2], append(bytes.Clone(b), 0))
	}
	return w, out
}

// mutants yields what a decoded value becomes when one thing in it is changed:
// every field and element, at any depth, left out, doubled or replaced. They
// are the seeds that reach the rules behind the encoding.
func mutants(v any) iter.Seq[any] {
	return func(yield func(any) bool) {
		switch v := v.(type) {
		case map[uint64]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				less := maps.Clone(v)
				delete(less, k)
				if !yield(less) {
					return
				}
				for x := range mutants(v[k]) {
					other := maps.Clone(v)
					other[k] = x
					if !yield(other) {
						return
					}
				}
			}
			for _, k := range []uint64{3, 4, 5, 23, 24, 52, 143, 167, 169, 170, 0x9000} {
				more := maps.Clone(v)
				for _, x := range []any{uint64(1), []any{uint64(1)}, []byte{1}} {
					more[k] = x
					if !yield(more) {
						return
					}
				}
			}
		case map[any]any:
			inner := map[uint64]any{}
			for k, x := range v {
				inner[k.(uint64)] = x
			}
			mutants(inner)(yield)
		case []any:
			if !yield([]any{}) || len(v) > 0 && !yield(append(slices.Clone(v), v[len(v)-1])) || !yield(slices.Repeat(v, 1100)) {
				return
			}
			for i := range v {
				for x := range mutants(v[i]) {
					other := slices.Clone(v)
					other[i] = x
					if !yield(other) {
						return
					}
				}
			}
		case uint64:
			for _, x := range []uint64{0, 1, 2, 3, 4, v + 1, v * 2, 0xffff, 1 << 24, 3153600000001, maxMillis + 1, math.MaxUint64} {
				if !yield(x) {
					return
				}
			}
		case []byte:
			for _, x := range [][]byte{{}, {0}, make([]byte, len(v)), make([]byte, len(v)+1), bytes.Repeat([]byte{0x80}, len(v)), bytes.Repeat([]byte{0x70}, len(v))} {
				if !yield(x) {
					return
				}
			}
		case string:
			for _, x := range []string{"", "A", "anyone", "group:a@contoso.com", "10.0.0.1/8", "::ffff:10.0.0.0/104", "b a", strings.Repeat("a", 201), strings.Repeat("a", maxText+1)} {
				if !yield(x) {
					return
				}
			}
		}
	}
}

// fuzzParser checks what every parser owes: no panic, a reason for a person in
// each refusal, and for what is read that its bytes are kept as they came.
func fuzzParser[T any](f *testing.F, parse func([]byte) (T, error), raw func(T) ([]byte, error), further ...func(*testing.F, *world) [][]byte) {
	w, all := seeds(f)
	for _, more := range further {
		all = append(all, more(f, w)...)
	}
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
	fuzzParser(f, ParseEnvelope, func(e *Envelope) ([]byte, error) { return e.encode(), nil }, bentHeaders)
}

// bentHeaders are a license and a bundle with two signatures whose protected
// headers are well-formed and wrong: each byte of them is another one.
func bentHeaders(f *testing.F, w *world) (out [][]byte) {
	next := DaemonKeyFromSeed(testSecret(0x66))
	fields := w.bundleFields()
	fields.Roots = []Root{{next.PublicKey(), 2, RootCurrent}, {w.root.PublicKey(), 1, RootPrevious}}
	both := must[*Bundle](f)(SignBundle(f.Context(), fields, next, w.root))
	for raw, headers := range map[string][][]byte{
		string(w.pl.Raw()): {protectedSign1(KindPL, KeyIDOf(w.daemon.PublicKey()))},
		string(both.Raw()): {protectedBody(KindBundle), protectedSignature(KeyIDOf(next.PublicKey()))},
	} {
		for _, h := range headers {
			for i := range min(len(h), 48) {
				for _, x := range []byte{1, 2, 4, 0x20} {
					bent := bytes.Clone(h)
					bent[i] ^= x
					out = append(out, bytes.Replace([]byte(raw), h, bent, 1))
				}
			}
		}
	}
	// A signature without an algorithm, and one whose key ID is short.
	signature := protectedSignature(KeyIDOf(next.PublicKey()))
	for _, other := range [][]byte{{}, {0xa1, 0x01, 0x27}, {0xa2, 0x01, 0x27, 0x04, 0x41, 0x01}} {
		b := bytes.Replace(both.Raw(), appendString(nil, cborBytes, signature), appendString(nil, cborBytes, other), 1)
		out = append(out, b)
	}
	return out
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
	fuzzParser(f, ParseBundle, func(b *Bundle) ([]byte, error) { return b.Raw(), nil }, otherBundles)
}

// otherBundles are signed bundles that break a rule about revoked certificates
// or about who signs.
func otherBundles(f *testing.F, w *world) (out [][]byte) {
	next, stranger := DaemonKeyFromSeed(testSecret(0x66)), DaemonKeyFromSeed(testSecret(0x67))
	revoking, rotated := w.bundleFields(), w.bundleFields()
	revoking.RevokedCertificates = []vocab.CertID{{1}, {2}}
	rotated.Roots = []Root{{next.PublicKey(), 2, RootCurrent}, {w.root.PublicKey(), 1, RootPrevious}}
	for _, c := range []struct {
		fields  Bundle
		signers []Signer
	}{{revoking, []Signer{w.root}}, {rotated, []Signer{next, w.root}}} {
		b := must[*Bundle](f)(SignBundle(f.Context(), c.fields, c.signers[0], c.signers[1:]...))
		out = append(out, b.Raw())
		var m map[uint64]any
		if err := canon.Unmarshal(b.envelope.Header, &m); err != nil {
			f.Fatal(err)
		}
		for header := range mutants(m) {
			if h, err := canon.Marshal(header); err == nil && len(h) < MaxEnvelope-1024 {
				out = append(out, must[*Envelope](f)(seal(f.Context(), KindBundle, h, nil, c.signers...)).raw)
			}
		}
		// Signed by somebody who is no root, or twice by the same.
		for _, second := range []Signer{stranger, c.signers[0]} {
			out = append(out, must[*Envelope](f)(seal(f.Context(), KindBundle, b.envelope.Header, nil, c.signers[0], second)).raw)
		}
	}
	return out
}

func FuzzParseGeneration(f *testing.F) {
	fuzzParser(f, ParseGeneration, func(g *Generation) ([]byte, error) { return g.Raw(), nil })
}

func FuzzParseArchive(f *testing.F) {
	fuzzParser(f, ParseArchive, func(a *Archive) ([]byte, error) { return a.Raw(), nil })
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
	for _, p := range []*policy.Policy{w.policy, &p} {
		var m map[uint64]any
		if err := canon.Unmarshal(must[[]byte](f)(EncodePolicy(p)), &m); err != nil {
			f.Fatal(err)
		}
		for x := range mutants(m) {
			if b, err := canon.Marshal(x); err == nil {
				f.Add(b)
			}
		}
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
		f.Add(uint16(kem), append(k.Public()[:1184], make([]byte, 32)...))
		f.Add(uint16(kem), bytes.Repeat([]byte{0xff}, 1216))
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
