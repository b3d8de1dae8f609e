package license

import (
	"bytes"
	"testing"
	"time"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

// evidenceKey is a key certified for evidence, and its certificate.
func (w *world) evidenceKey(t testing.TB, edit func(*Certificate)) (Signer, *Certificate) {
	t.Helper()
	key := DaemonKeyFromSeed(testSecret(0x68))
	c := w.certificate(t)
	c.ID, c.Subject, c.Usage = vocab.CertID{0x68}, key.PublicKey(), UsageEvidence
	if edit != nil {
		edit(&c)
	}
	return key, must[*Certificate](t)(IssueCertificate(t.Context(), w.root, c))
}

func (w *world) evidenceFields() Evidence {
	return Evidence{
		Tenant: w.tenant, IssuedAt: now, Event: vocab.EventID{1}, Since: now.Add(-time.Hour), Key: "root",
		Files: []EvidenceFile{{"facts.bin", 3, canon.Hash([]byte("abc"))}, {"events.bin", 0, canon.Hash(nil)}},
	}
}

func TestEvidence(t *testing.T) {
	w := newWorld(t)
	key, cert := w.evidenceKey(t, nil)
	made := must[*Evidence](t)(SignEvidence(t.Context(), key, cert, w.evidenceFields()))
	v := must[*Verifier](t)(NewVerifier(w.bundle.Raw(), w.tenant, []KeyID{KeyIDOf(w.root.PublicKey())}, 0))
	got := must[*Evidence](t)(v.VerifyEvidence(made.Raw()))
	if got.Key != "root" || !got.Since.Equal(now.Add(-time.Hour)) || len(got.Files) != 2 || got.Files[0].Size != 3 {
		t.Errorf("%+v", got)
	}
	for i := range made.Raw() {
		b := bytes.Clone(made.Raw())
		b[i] ^= 1
		if _, err := v.VerifyEvidence(b); err == nil {
			t.Fatalf("it verifies with byte %d changed", i)
		}
	}
	for name, edit := range map[string]func(*Evidence){
		"no event":             func(e *Evidence) { e.Event = vocab.EventID{} },
		"no files":             func(e *Evidence) { e.Files = nil },
		"a file twice":         func(e *Evidence) { e.Files[1].Name = e.Files[0].Name },
		"a path":               func(e *Evidence) { e.Files[1].Name = "../events.bin" },
		"a key that is none":   func(e *Evidence) { e.Key = "Not A Key" },
		"another tenant":       func(e *Evidence) { e.Tenant = vocab.TenantID{9} },
		"after the key's life": func(e *Evidence) { e.IssuedAt = cert.NotAfter },
	} {
		e := w.evidenceFields()
		edit(&e)
		if _, err := SignEvidence(t.Context(), key, cert, e); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	// The keys of the day sign no evidence, and evidence keys nothing else.
	if _, err := SignEvidence(t.Context(), w.daemon, w.cert, w.evidenceFields()); err == nil {
		t.Error("a key for licenses signed evidence")
	}
	if err := v.VerifyCertificate(cert, UsagePL|UsageUL|UsageTemplate|UsageCheckpoint, now); err == nil {
		t.Error("a key for evidence signs other things")
	}
	// A signature of the tenant's other keys is none of evidence.
	forged := must[*Envelope](t)(seal(t.Context(), KindEvidence, must[*Envelope](t)(ParseEnvelope(made.Raw())).Header, nil, w.daemon))
	_, err := v.VerifyEvidence(forged.raw)
	wantReason(t, err, vocab.ReasonLicenseSignature)
}

func FuzzParseEvidence(f *testing.F) {
	fuzzParser(f, ParseEvidence, func(e *Evidence) ([]byte, error) { return e.Raw(), nil }, otherEvidence)
}

// otherEvidence are a manifest, and signed ones that break a rule.
func otherEvidence(f *testing.F, w *world) (out [][]byte) {
	key, cert := w.evidenceKey(f, nil)
	good := must[*Evidence](f)(SignEvidence(f.Context(), key, cert, w.evidenceFields()))
	out = append(out, good.Raw())
	var m map[uint64]any
	if err := canon.Unmarshal(good.envelope.Header, &m); err != nil {
		f.Fatal(err)
	}
	for header := range mutants(m) {
		if h, err := canon.Marshal(header); err == nil && len(h) < MaxEnvelope-1024 {
			out = append(out, must[*Envelope](f)(seal(f.Context(), KindEvidence, h, nil, key)).raw)
		}
	}
	return out
}
