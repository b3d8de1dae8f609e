package license

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// A changed byte anywhere in an object is noticed, and never gives out a key.
func TestEveryByteFlipped(t *testing.T) {
	w := newWorld(t)
	key, public := recipient(t, X25519)
	d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	ul := must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, w.useFields(t), w.ck))
	tpl := must[*TemplateRevision](t)(SignTemplate(t.Context(), w.daemon, w.cert, w.template))
	pins := []KeyID{KeyIDOf(w.root.PublicKey())}
	for name, c := range map[string]struct {
		raw    []byte
		verify func([]byte) error
	}{
		"pl": {w.pl.Raw(), func(b []byte) error { _, err := w.verifier.VerifyPL(b); return err }},
		"ul": {ul.Raw(), func(b []byte) error {
			_, err := w.verifier.VerifyUL(b, w.cert.Raw(), w.expect(key))
			return err
		}},
		"cert": {w.cert.Raw(), func(b []byte) error {
			_, err := w.verifier.VerifyUL(ul.Raw(), b, w.expect(key))
			return err
		}},
		"bundle":   {w.bundle.Raw(), func(b []byte) error { _, err := VerifyBundle(b, w.tenant, pins, 0); return err }},
		"template": {tpl.Raw(), func(b []byte) error { _, err := w.verifier.VerifyTemplate(b); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.verify(c.raw); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			for i := range c.raw {
				bent := bytes.Clone(c.raw)
				bent[i] ^= 1 << (i % 8)
				if err := c.verify(bent); err == nil {
					t.Errorf("byte %d of %d changed: accepted", i, len(bent))
				} else if vocab.ReasonOf(err) == vocab.ReasonInternal {
					t.Errorf("byte %d changed: %v", i, err)
				}
			}
			for i := range c.raw {
				if c.verify(c.raw[:i]) == nil {
					t.Errorf("cut to %d of %d: accepted", i, len(c.raw))
				}
			}
			if c.verify(append(bytes.Clone(c.raw), 0)) == nil {
				t.Error("a byte appended: accepted")
			}
		})
	}
}

// Whoever could sign cannot make a box open under another header: the keys are
// bound to the header, not only the signature.
func TestTransplantedBody(t *testing.T) {
	w := newWorld(t)
	in := w.plInput()
	in.Content[15]++
	other := must[*PublishingLicense](t)(MakePL(t.Context(), w.daemon, w.cert, in, w.secret, w.ck, w.policy))
	for name, e := range map[string]*Envelope{
		"body of one, header of the other": must[*Envelope](t)(seal(t.Context(), KindPL, other.envelope.Header, w.pl.envelope.Box, w.daemon)),
		"and the other way":                must[*Envelope](t)(seal(t.Context(), KindPL, w.pl.envelope.Header, other.envelope.Box, w.daemon)),
	} {
		pl, err := w.verifier.VerifyPL(e.raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err) // the signature is good
		}
		if _, _, err := pl.OpenBody(w.secret); vocab.ReasonOf(err) != vocab.ReasonLicenseMismatch {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSwappedInsideOneBatch(t *testing.T) {
	w := newWorld(t)
	key, public := recipient(t, XWing)
	d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	a := w.useFields(t)
	b := w.useFields(t)
	b.ID[15]++
	b.Rights = vocab.RightsOf(vocab.RightOwner)
	one := must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, a, w.ck))
	two := must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, b, w.ck))
	foreign := must[*Delivery](t)(NewDelivery(public, w.tenant, canon.PrincipalID("x", "y")))
	three := must[*UseLicense](t)(foreign.UseLicense(t.Context(), w.daemon, w.cert, a, w.ck))
	for name, e := range map[string]*Envelope{
		"boxes swapped":              must[*Envelope](t)(seal(t.Context(), KindUL, two.envelope.Header, one.envelope.Box, w.daemon)),
		"box of another principal's": must[*Envelope](t)(seal(t.Context(), KindUL, one.envelope.Header, three.envelope.Box, w.daemon)),
	} {
		u, err := w.verifier.VerifyUL(e.raw, w.cert.Raw(), w.expect(key))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = key.OpenUL(d.Enc(), u)
		if vocab.ReasonOf(err) != vocab.ReasonUseLicenseRejected {
			t.Errorf("%s: %v", name, err)
		}
	}
	// An enc that does not decapsulate at all.
	u := must[*UseLicense](t)(w.verifier.VerifyUL(one.Raw(), w.cert.Raw(), w.expect(key)))
	for _, enc := range [][]byte{nil, make([]byte, 5), make([]byte, 1120)} {
		forced := *u
		forced.EncHash = canon.Hash(enc)
		_, err := key.OpenUL(enc, &forced)
		wantReason(t, err, vocab.ReasonUseLicenseRejected)
	}
}

// edit re-signs w's publishing license with a header changed field by field.
func (w *world) edit(t *testing.T, change func(map[uint64]any)) []byte {
	t.Helper()
	var m map[uint64]any
	if err := canon.Unmarshal(w.pl.envelope.Header, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	header := must[[]byte](t)(canon.Marshal(m))
	return must[*Envelope](t)(seal(t.Context(), KindPL, header, w.pl.envelope.Box, w.daemon)).raw
}

func TestSignedButWrong(t *testing.T) {
	w := newWorld(t)
	clc := must[*Envelope](t)(seal(t.Context(), KindCLC, []byte{0xa0}, nil, w.daemon))
	other := w.certificate(t)
	other.Tenant[0]++
	otherCert := must[*Certificate](t)(IssueCertificate(t.Context(), w.root, other))
	for name, c := range map[string]struct {
		change func(map[uint64]any)
		want   vocab.Reason
	}{
		"unchanged":                   {func(map[uint64]any) {}, ""},
		"unknown critical field":      {func(m map[uint64]any) { m[24] = uint64(1) }, vocab.ReasonLicenseFormatNewer},
		"unknown field to ignore":     {func(m map[uint64]any) { m[0x8040] = "x" }, ""},
		"second signature required":   {func(m map[uint64]any) { m[1] = []uint64{1, 2} }, vocab.ReasonSuiteUnsupported},
		"another signature required":  {func(m map[uint64]any) { m[1] = []uint64{2} }, vocab.ReasonSuiteUnsupported},
		"no signature required":       {func(m map[uint64]any) { m[1] = []uint64{} }, vocab.ReasonLicenseMalformed},
		"signature required twice":    {func(m map[uint64]any) { m[1] = []uint64{1, 1} }, vocab.ReasonLicenseMalformed},
		"signatures out of order":     {func(m map[uint64]any) { m[1] = []uint64{2, 1} }, vocab.ReasonLicenseMalformed},
		"body suite 2":                {func(m map[uint64]any) { m[20] = uint64(2); m[22] = make([]byte, 1120) }, vocab.ReasonSuiteUnsupported},
		"body suite 0":                {func(m map[uint64]any) { m[20] = uint64(0) }, vocab.ReasonSuiteUnsupported},
		"content suite 2":             {func(m map[uint64]any) { m[18] = uint64(2) }, vocab.ReasonSuiteUnsupported},
		"offline content ID":          {func(m map[uint64]any) { id := w.content; id[6] = 0x80; m[16] = id[:] }, vocab.ReasonSuiteUnsupported},
		"licensor certificate":        {func(m map[uint64]any) { m[4] = clc.raw }, vocab.ReasonSuiteUnsupported},
		"garbage as certificate":      {func(m map[uint64]any) { m[4] = []byte("x") }, vocab.ReasonLicenseMalformed},
		"itself as certificate":       {func(m map[uint64]any) { m[4] = w.bundle.Raw() }, vocab.ReasonLicenseMalformed},
		"another tenant's cert":       {func(m map[uint64]any) { m[4] = otherCert.Raw() }, vocab.ReasonTrustRootMismatch},
		"another tenant":              {func(m map[uint64]any) { m[2] = make([]byte, 15); m[2] = append([]byte{9}, m[2].([]byte)...) }, vocab.ReasonLicenseMismatch},
		"zero tenant":                 {func(m map[uint64]any) { m[2] = make([]byte, 16) }, vocab.ReasonLicenseMalformed},
		"issued before the cert":      {func(m map[uint64]any) { m[3] = uint64(now.Add(-2 * time.Hour).UnixMilli()) }, vocab.ReasonTrustRootMismatch},
		"issued when the cert ended":  {func(m map[uint64]any) { m[3] = uint64(now.Add(23 * time.Hour).UnixMilli()) }, vocab.ReasonTrustRootMismatch},
		"issued in the year 10000":    {func(m map[uint64]any) { m[3] = uint64(maxMillis + 1) }, vocab.ReasonLicenseMalformed},
		"short salt":                  {func(m map[uint64]any) { m[22] = make([]byte, 31) }, vocab.ReasonLicenseMalformed},
		"short commitment":            {func(m map[uint64]any) { m[17] = make([]byte, 31) }, vocab.ReasonLicenseMalformed},
		"RSA wrap":                    {func(m map[uint64]any) { x := w.wrap(); x.L0Type = L0RSA; m[23] = x.Encode() }, vocab.ReasonSuiteUnsupported},
		"hint of 201 bytes":           {func(m map[uint64]any) { m[0x8030] = string(bytes.Repeat([]byte("a"), 201)) }, vocab.ReasonLicenseMalformed},
		"field with the wrong type":   {func(m map[uint64]any) { m[21] = uint64(1) }, vocab.ReasonLicenseMalformed},
		"sequence present but zero":   {func(m map[uint64]any) { m[19] = uint64(0) }, vocab.ReasonLicenseMalformed},
		"signature algorithm 16 bits": {func(m map[uint64]any) { m[1] = []uint64{65537} }, vocab.ReasonLicenseMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.verifier.VerifyPL(w.edit(t, c.change))
			wantReason(t, err, c.want)
		})
	}
	t.Run("signed by another daemon", func(t *testing.T) {
		e := must[*Envelope](t)(seal(t.Context(), KindPL, w.pl.envelope.Header, w.pl.envelope.Box, w.root))
		_, err := w.verifier.VerifyPL(e.raw)
		wantReason(t, err, vocab.ReasonLicenseSignature)
	})
	t.Run("signed as another kind", func(t *testing.T) {
		e := must[*Envelope](t)(seal(t.Context(), KindUL, w.pl.envelope.Header, w.pl.envelope.Box, w.daemon))
		_, err := w.verifier.VerifyPL(e.raw)
		wantReason(t, err, vocab.ReasonLicenseMalformed)
		e.Kind = KindPL // content type replaced after signing
		_, err = w.verifier.VerifyPL(e.encode())
		wantReason(t, err, vocab.ReasonLicenseSignature)
	})
	t.Run("two signatures", func(t *testing.T) {
		e := must[*Envelope](t)(seal(t.Context(), KindPL, w.pl.envelope.Header, w.pl.envelope.Box, w.daemon, w.root))
		_, err := w.verifier.VerifyPL(e.raw)
		wantReason(t, err, vocab.ReasonLicenseMalformed)
	})
	t.Run("oversize", func(t *testing.T) {
		_, err := ParsePL(make([]byte, MaxEnvelope+1))
		wantReason(t, err, vocab.ReasonLicenseMalformed)
		_, err = seal(t.Context(), KindPL, nil, make([]byte, MaxEnvelope), w.daemon)
		wantReason(t, err, vocab.ReasonRequestInvalid)
	})
	t.Run("licensor certificate by itself", func(t *testing.T) {
		_, err := ParseCertificate(clc.raw)
		wantReason(t, err, vocab.ReasonSuiteUnsupported)
	})
}

// The library reads more forms of COSE than the one that is written.
func TestOnlyOneFormOfCOSE(t *testing.T) {
	for name, b := range newWorld(t).otherForms(t) {
		if _, err := ParseEnvelope(b); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// otherForms are what COSE allows or nearly allows and we do not write.
func (w *world) otherForms(t testing.TB) map[string][]byte {
	raw := w.pl.Raw()
	p := protectedSign1(KindPL, KeyIDOf(w.daemon.PublicKey()))
	at := bytes.Index(raw, p) + len(p) // the unprotected header
	if raw[at] != 0xa0 {
		t.Fatal("no unprotected header where it should be")
	}
	replace := func(old, new []byte) []byte { return bytes.Replace(raw, old, new, 1) }
	return map[string][]byte{
		"untagged":                raw[1:],
		"unprotected header":      slices.Concat(raw[:at], []byte{0xa1, 0x18, 0x63, 0x01}, raw[at+1:]),
		"kid unprotected":         slices.Concat(raw[:at], []byte{0xa1, 0x04, 0x41, 0x01}, raw[at+1:]),
		"length in a longer form": slices.Concat(raw[:2], []byte{0x59, 0x00, raw[3]}, raw[4:]),
		"indefinite array":        slices.Concat([]byte{0xd2, 0x9f}, raw[2:], []byte{0xff}),
		"payload missing":         {0xd2, 0x84, 0x40, 0xa0, 0xf6, 0x41, 0x00},
		"no algorithm":            slices.Concat([]byte{0xd2, 0x84, 0x40, 0xa0, 0x40, 0x41, 0x00}),
		"another content type":    replace([]byte("vnd.rms.pl"), []byte("vnd.rmz.pl")),
		"unknown kind":            replace([]byte("vnd.rms.pl"), []byte("vnd.rms.xx")),
		"algorithm ES256":         replace([]byte{0xa3, 0x01, 0x27}, []byte{0xa3, 0x01, 0x26}),
		"kid of 31 bytes":         replace([]byte{0x04, 0x58, 0x20}, []byte{0x04, 0x58, 0x1f}),
		"kid as number":           slices.Concat([]byte{0xd2, 0x84, 0x58, byte(len(p) - 33)}, p[:len(p)-34], []byte{0x01}, raw[at:]),
		"larger than the limit":   make([]byte, MaxEnvelope+1),
		"payload not an array":    envelopeOf(w, []byte{0xa0}),
		"payload not our CBOR":    envelopeOf(w, []byte{0xf6}),
		"three parts":             envelopeOf(w, []byte{0x83, 0x40, 0x40, 0x40}),
		"COSE_Sign with one signature": func() []byte {
			b := appendString(slices.Clone(coseSign), cborBytes, protectedBody(KindBundle))
			b = appendString(append(b, 0xa0), cborBytes, w.bundle.envelope.payload)
			b = appendString(append(b, 0x81, 0x83), cborBytes, protectedSignature(w.bundle.envelope.Signers[0]))
			return appendString(append(b, 0xa0), cborBytes, make([]byte, 64))
		}(),
	}
}

// envelopeOf returns w's publishing license with another payload.
func envelopeOf(w *world, payload []byte) []byte {
	e := *w.pl.envelope
	e.payload = payload
	return e.encode()
}

func TestBundleRules(t *testing.T) {
	w := newWorld(t)
	next := DaemonKeyFromSeed(testSecret(0x66))
	pins := []KeyID{KeyIDOf(w.root.PublicKey())}

	// After a rotation both roots sign, and who pinned the old one follows.
	rotated := w.bundleFields()
	rotated.Seq = 6
	rotated.Roots = []Root{{next.PublicKey(), 2, RootCurrent}, {w.root.PublicKey(), 1, RootPrevious}}
	both := must[*Bundle](t)(SignBundle(t.Context(), rotated, next, w.root))
	v := must[*Verifier](t)(NewVerifier(both.Raw(), w.tenant, pins, 5))
	if _, err := v.VerifyPL(w.pl.Raw()); err != nil {
		t.Errorf("license under the previous root: %v", err)
	}
	if got := v.Bundle().Signers(); len(got) != 2 || got[0] != KeyIDOf(next.PublicKey()) {
		t.Errorf("signers %x", got)
	}
	// The second signature cannot be left out.
	stripped := must[*Envelope](t)(seal(t.Context(), KindBundle, both.envelope.Header, nil, next))
	_, err := ParseBundle(stripped.raw)
	wantReason(t, err, vocab.ReasonLicenseMalformed)
	// Nor be somebody else's.
	forged := *both.envelope
	forged.signatures = slices.Clone(forged.signatures)
	forged.signatures[1] = must[[]byte](t)(next.Sign(t.Context(), []byte("x")))
	_, err = VerifyBundle(forged.encode(), w.tenant, pins, 0)
	wantReason(t, err, vocab.ReasonLicenseSignature)

	_, err = VerifyBundle(w.bundle.Raw(), w.tenant, pins, 6)
	wantReason(t, err, vocab.ReasonTrustRootMismatch) // seq went back
	_, err = VerifyBundle(w.bundle.Raw(), vocab.TenantID{1}, pins, 0)
	wantReason(t, err, vocab.ReasonTrustRootMismatch)
	_, err = VerifyBundle(w.bundle.Raw(), w.tenant, []KeyID{KeyIDOf(next.PublicKey())}, 0)
	wantReason(t, err, vocab.ReasonTrustRootMismatch)
	_, err = VerifyBundle(w.bundle.Raw(), w.tenant, nil, 0)
	wantReason(t, err, vocab.ReasonTrustRootMismatch)

	compromised := rotated
	compromised.Roots = []Root{{next.PublicKey(), 2, RootCurrent}, {w.root.PublicKey(), 1, RootCompromised}}
	v = must[*Verifier](t)(NewVerifier(must[*Bundle](t)(SignBundle(t.Context(), compromised, next)).Raw(), w.tenant, []KeyID{KeyIDOf(next.PublicKey())}, 0))
	_, err = v.VerifyPL(w.pl.Raw())
	wantReason(t, err, vocab.ReasonTrustRootMismatch)

	revoked := w.bundleFields()
	revoked.RevokedCertificates = []vocab.CertID{w.cert.ID, {1}, w.cert.ID}
	v = must[*Verifier](t)(NewVerifier(must[*Bundle](t)(SignBundle(t.Context(), revoked, w.root)).Raw(), w.tenant, pins, 0))
	_, err = v.VerifyPL(w.pl.Raw())
	wantReason(t, err, vocab.ReasonTrustRootMismatch)

	gone := rotated
	gone.Roots = gone.Roots[:1]
	v = must[*Verifier](t)(NewVerifier(must[*Bundle](t)(SignBundle(t.Context(), gone, next)).Raw(), w.tenant, []KeyID{KeyIDOf(next.PublicKey())}, 0))
	_, err = v.VerifyPL(w.pl.Raw())
	wantReason(t, err, vocab.ReasonTrustRootMismatch)

	least := w.bundleFields()
	least.Suites.Body = 2
	v = must[*Verifier](t)(NewVerifier(must[*Bundle](t)(SignBundle(t.Context(), least, w.root)).Raw(), w.tenant, pins, 0))
	_, err = v.VerifyPL(w.pl.Raw())
	wantReason(t, err, vocab.ReasonSuiteUnsupported)

	for name, edit := range map[string]func(*Bundle){
		"no roots":          func(b *Bundle) { b.Roots = nil },
		"no current root":   func(b *Bundle) { b.Roots[0].State = RootPrevious },
		"unknown state":     func(b *Bundle) { b.Roots[0].State = 4 },
		"same root twice":   func(b *Bundle) { b.Roots = append(b.Roots, b.Roots[0]) },
		"two current roots": func(b *Bundle) { b.Roots = append(b.Roots, Root{next.PublicKey(), 2, RootCurrent}) },
		"short root key":    func(b *Bundle) { b.Roots[0].Key = b.Roots[0].Key[:31] },
		"seventeen roots":   func(b *Bundle) { b.Roots = make([]Root, 17) },
		"no seq":            func(b *Bundle) { b.Seq = 0 },
		"no KEM":            func(b *Bundle) { b.Suites.KEMs = nil },
		"31 days":           func(b *Bundle) { b.NextUpdate = b.IssuedAt.Add(31 * 24 * time.Hour) },
		"already over":      func(b *Bundle) { b.NextUpdate = b.IssuedAt },
		"many revoked":      func(b *Bundle) { b.RevokedCertificates = make([]vocab.CertID, 1); b.RevokedCertificates = manyCerts() },
	} {
		b := w.bundleFields()
		edit(&b)
		if _, err := SignBundle(t.Context(), b, w.root); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := SignBundle(t.Context(), w.bundleFields(), w.root, w.root); err == nil {
		t.Error("signed twice by one root")
	}
	if _, err := SignBundle(t.Context(), w.bundleFields(), w.root, next); err == nil {
		t.Error("signed by a root it does not list")
	}
	if d := DefaultSuites(); !slices.Equal(d.KEMs, []KEM{XWing}) {
		t.Error("X25519 by default")
	}
}

func manyCerts() []vocab.CertID {
	out := make([]vocab.CertID, maxRevoked+1)
	for i := range out {
		out[i] = vocab.CertID{1, byte(i), byte(i >> 8)}
	}
	return out
}

// A forged header never yields a key even where the chain is not at hand: the
// key itself is bound to the header.
func TestHeaderIsBoundToKey(t *testing.T) {
	w := newWorld(t)
	key, public := recipient(t, XWing)
	d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	u := must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, w.useFields(t), w.ck))
	forged := w.useFields(t)
	forged.Tenant, forged.Principal, forged.KEM, forged.Recipient, forged.EncHash, forged.Certificate = u.Tenant, u.Principal, u.KEM, u.Recipient, u.EncHash, u.Certificate
	for name, edit := range map[string]func(*UseLicense){
		"rights":   func(u *UseLicense) { u.Rights = vocab.AllRights },
		"longer":   func(u *UseLicense) { u.NotAfter = u.NotAfter.Add(time.Hour) },
		"no flags": func(u *UseLicense) { u.Flags = FlagBreakGlass },
		"tenant":   func(u *UseLicense) { u.Tenant[0]++ },
		"receipt":  func(u *UseLicense) { u.Leaf[0]++ },
	} {
		f := forged
		edit(&f)
		e := must[*Envelope](t)(seal(t.Context(), KindUL, must[[]byte](t)(f.header()), u.envelope.Box, w.daemon))
		got := must[*UseLicense](t)(ParseUL(e.raw))
		got.verified = true // suppose that nobody checked
		_, err := key.OpenUL(d.Enc(), got)
		if vocab.ReasonOf(err) != vocab.ReasonUseLicenseRejected {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBatchIsSafeForConcurrentUse(t *testing.T) {
	w := newWorld(t)
	key, public := recipient(t, XWing)
	d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
	results := make(chan error)
	for i := range 16 {
		go func() {
			u := w.useFields(t)
			u.ID[15] = byte(i)
			made, err := d.UseLicense(t.Context(), w.daemon, w.cert, u, w.ck)
			if err == nil {
				made, err = w.verifier.VerifyUL(made.Raw(), w.cert.Raw(), w.expect(key))
			}
			if err == nil {
				_, err = key.OpenUL(d.Enc(), made)
			}
			results <- err
		}()
	}
	for range 16 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
