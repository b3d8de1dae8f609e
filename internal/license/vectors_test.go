package license

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/vocab"
)

var update = flag.Bool("update", false, "write the test vectors anew")

// hexBytes are hexadecimal in the vectors.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }
func (b *hexBytes) UnmarshalText(t []byte) (err error) {
	*b, err = hex.DecodeString(string(t))
	return err
}

// vectors is testdata/vectors/v1.json: docs/formats.md §13 explains the fields.
type vectors struct {
	Note string `json:"note"`
	// Keys and identifiers that everything below uses.
	Keys struct {
		RootSeed         hexBytes `json:"root_seed"`
		DaemonSeed       hexBytes `json:"daemon_seed"`
		GenerationSecret hexBytes `json:"generation_secret"`
		ContentKey       hexBytes `json:"content_key"`
		RecipientPrivate hexBytes `json:"recipient_private"`
		RootPublic       hexBytes `json:"root_public"`
		RootKeyID        hexBytes `json:"root_key_id"`
		DaemonPublic     hexBytes `json:"daemon_public"`
		DaemonKeyID      hexBytes `json:"daemon_key_id"`
	} `json:"keys"`
	IDs struct {
		Tenant     hexBytes `json:"tenant_id"`
		Content    hexBytes `json:"content_id"`
		Generation hexBytes `json:"generation_id"`
	} `json:"ids"`
	Derived struct {
		PrincipalIssuer      string   `json:"principal_issuer"`
		PrincipalSubject     string   `json:"principal_subject"`
		PrincipalInput       hexBytes `json:"principal_input"`
		PrincipalID          hexBytes `json:"principal_id"`
		CommitmentInput      hexBytes `json:"commitment_input"`
		Commitment           hexBytes `json:"commitment"`
		StreamKey            hexBytes `json:"stream_key"`
		MetaKey              hexBytes `json:"meta_key"`
		GenerationCommitment hexBytes `json:"generation_commitment"`
		GenerationBinding    hexBytes `json:"generation_binding"`
		ContainerPrefix      hexBytes `json:"container_prefix"`
		LicenseKeyInput      hexBytes `json:"license_key_input"`
		LicenseKey           hexBytes `json:"license_key"`
	} `json:"derived"`
	Policy             hexBytes    `json:"policy"`
	PolicyHash         hexBytes    `json:"policy_hash"`
	Wrap               hexBytes    `json:"wrap"`
	Certificate        hexBytes    `json:"certificate"`
	Bundle             hexBytes    `json:"bundle"`
	Generation         hexBytes    `json:"generation"`
	Template           hexBytes    `json:"template"`
	Evidence           hexBytes    `json:"evidence"`
	PublishingLicense  hexBytes    `json:"publishing_license"`
	PublishingHeader   hexBytes    `json:"publishing_license_header"`
	PublishingBodyText hexBytes    `json:"publishing_license_body_plaintext"`
	RecordAAD          hexBytes    `json:"record_key_box_aad"`
	RecordKeyBox       hexBytes    `json:"record_key_box"`
	UseLicenses        []useVector `json:"use_licenses"`
	// Container is what v1.rms beside this file holds; package container
	// tests it.
	Container struct {
		Name    string   `json:"name"`
		Type    string   `json:"type"`
		Size    uint64   `json:"size"`
		ModTime uint64   `json:"mtime"`
		Content hexBytes `json:"content"`
	} `json:"container"`
}

type useVector struct {
	KEM           uint16   `json:"kem"`
	Public        hexBytes `json:"recipient_public"`
	RecipientHash hexBytes `json:"recipient_hash"`
	Info          hexBytes `json:"hpke_info"`
	Enc           hexBytes `json:"enc"`
	UseLicense    hexBytes `json:"use_license"`
	Context       hexBytes `json:"export_context"`
	Key           hexBytes `json:"exported_key"`
	PublishEnc    hexBytes `json:"publish_enc"`
	PublishBox    hexBytes `json:"publish_box"`
}

func prefixOf(w *world) []byte {
	b := append([]byte("\x89RMS\r\n\x1a\n"), 0, 1, 0, 1, 0, 0, 0, 0)
	b = append(append(b, w.tenant[:]...), w.content[:]...)
	return append(b, w.pl.Commitment[:]...)
}

// deterministic fills in everything that follows from the keys alone; salt is
// the publishing license's.
func deterministic(t *testing.T, w *world, salt [32]byte) vectors {
	var v vectors
	v.Note = "TEST VALUES ONLY: every key in this file is public. All bytes are hexadecimal."
	k := &v.Keys
	k.RootSeed, k.DaemonSeed, k.GenerationSecret = testSecret(0x11).Reveal(), testSecret(0x22).Reveal(), w.secret.Reveal()
	k.ContentKey, k.RecipientPrivate = w.ck.Reveal(), testSecret(0x55).Reveal()
	k.RootPublic, k.DaemonPublic = hexBytes(w.root.PublicKey()), hexBytes(w.daemon.PublicKey())
	rootID, daemonID := KeyIDOf(w.root.PublicKey()), KeyIDOf(w.daemon.PublicKey())
	k.RootKeyID, k.DaemonKeyID = rootID[:], daemonID[:]
	v.IDs.Tenant, v.IDs.Content, v.IDs.Generation = w.tenant[:], w.content[:], w.generation[:]
	d := &v.Derived
	d.PrincipalIssuer, d.PrincipalSubject = "https://idp.contoso.com", "bob"
	d.PrincipalInput = canon.D("rms/v1/principal", canon.Fields{canon.FieldIssuer: d.PrincipalIssuer, canon.FieldSubject: d.PrincipalSubject})
	d.PrincipalID = bob[:]
	d.CommitmentInput = canon.D("rms/v1/ck-commit", canon.Fields{2: w.tenant, 16: w.content, 18: uint16(1)})
	d.Commitment = w.pl.Commitment[:]
	d.StreamKey, d.MetaKey = canon.StreamKey(w.ck).Reveal(), canon.MetaKey(w.ck).Reveal()
	gc := GenerationCommitment(w.secret, w.tenant, w.generation, ScopeTenant, [16]byte{})
	gb := GenerationBinding(w.tenant, w.generation, ScopeTenant, [16]byte{})
	d.GenerationCommitment, d.GenerationBinding = gc[:], gb[:]
	d.ContainerPrefix = prefixOf(w)
	d.LicenseKeyInput = canon.D("rms/v1/license-key", canon.Fields{2: w.tenant, 16: w.content, 21: w.generation, 24: uint64(1)})
	d.LicenseKey = licenseKey(w.secret, salt, w.tenant, w.content, w.generation, purposeLicense).Reveal()
	v.Policy = must[[]byte](t)(EncodePolicy(w.policy))
	h := PolicyHash(v.Policy)
	v.PolicyHash = h[:]
	v.Wrap = w.wrap().Encode()
	v.Certificate, v.Bundle = w.cert.Raw(), w.bundle.Raw()
	v.Generation = must[*Generation](t)(SignGeneration(t.Context(), w.root, w.generationFields())).Raw()
	v.Template = must[*TemplateRevision](t)(SignTemplate(t.Context(), w.daemon, w.cert, w.template)).Raw()
	key, cert := w.evidenceKey(t, nil)
	v.Evidence = must[*Evidence](t)(SignEvidence(t.Context(), key, cert, w.evidenceFields())).Raw()
	fields := must[*policyFields](t)(toPolicyFields(w.policy))
	v.PublishingBodyText = must[[]byte](t)(encodeBody(w.ck, fields))
	c := &v.Container
	c.Name, c.Type, c.ModTime = "Minutes – board.txt", "text/plain", uint64(now.UnixMilli())
	c.Content = []byte("Content of the test container.\n")
	c.Size = uint64(len(c.Content))
	return v
}

func TestVectors(t *testing.T) {
	file := filepath.Join("testdata", "vectors", "v1.json")
	w := newWorld(t)
	if *update {
		writeVectors(t, w, file)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}

	pl, err := w.verifier.VerifyPL(v.PublishingLicense)
	if err != nil {
		t.Fatal(err)
	}
	// Everything without randomness comes out again, byte for byte; Ed25519
	// signatures included (RFC 8032).
	again := deterministic(t, w, pl.Salt)
	again.PublishingLicense, again.PublishingHeader = v.PublishingLicense, pl.envelope.Header
	again.RecordAAD, again.RecordKeyBox, again.UseLicenses = pl.KeyBox([32]byte(v.PolicyHash)).aad(), v.RecordKeyBox, v.UseLicenses
	if got := encode(t, again); !bytes.Equal(got, b) {
		t.Errorf("the vectors changed: formats are for ever\ngot  %s\nwant %s", got, b)
	}
	// The rest opens, and signing the sealed parts again gives the same bytes.
	signed := must[*Envelope](t)(seal(t.Context(), KindPL, pl.envelope.Header, pl.envelope.Box, w.daemon))
	if !bytes.Equal(signed.raw, v.PublishingLicense) {
		t.Error("publishing license signs differently")
	}
	plain, err := canon.Open(vocab.SecretFrom(v.Derived.LicenseKey), v.PublishingHeader, pl.envelope.Box)
	if err != nil || !bytes.Equal(plain, v.PublishingBodyText) {
		t.Errorf("publishing license body: %v", err)
	}
	if ck, err := pl.KeyBox([32]byte(v.PolicyHash)).Open(w.secret, v.RecordKeyBox); err != nil || !ck.Equal(w.ck) {
		t.Errorf("record key box: %v", err)
	}
	for _, c := range v.UseLicenses {
		t.Run(KEM(c.KEM).String(), func(t *testing.T) {
			key, _ := recipient(t, KEM(c.KEM))
			want := w.expect(key)
			if h := key.Hash(); !bytes.Equal(key.Public(), c.Public) || !bytes.Equal(h[:], c.RecipientHash) {
				t.Error("recipient key differs")
			}
			u, err := w.verifier.VerifyUL(c.UseLicense, v.Certificate, want)
			if err != nil {
				t.Fatal(err)
			}
			if ck, err := key.OpenUL(c.Enc, u); err != nil || !ck.Equal(w.ck) {
				t.Errorf("use license: %v", err)
			}
			if got := deliveryInfo(labelUL, w.tenant, bob, key.kem, key.Hash()); !bytes.Equal(got, c.Info) {
				t.Errorf("info %x", got)
			}
			if got := exportContext(contextUL, u.envelope.Header); got != string(c.Context) {
				t.Errorf("context %x", got)
			}
			exportedKey, err := key.export(labelUL, w.tenant, bob, c.Enc, string(c.Context))
			if err != nil || !bytes.Equal(exportedKey.Reveal(), c.Key) {
				t.Errorf("exported key: %v", err)
			}
			if ck, err := key.OpenPublish(PublishDelivery{c.PublishEnc, c.PublishBox}, bob, pl); err != nil || !ck.Equal(w.ck) {
				t.Errorf("publish delivery: %v", err)
			}
		})
	}
}

func writeVectors(t *testing.T, w *world, file string) {
	v := deterministic(t, w, w.pl.Salt)
	v.PublishingLicense, v.PublishingHeader = w.pl.Raw(), w.pl.envelope.Header
	box := w.pl.KeyBox([32]byte(v.PolicyHash))
	v.RecordAAD, v.RecordKeyBox = box.aad(), must[[]byte](t)(box.Seal(w.secret, w.ck))
	for _, kem := range []KEM{XWing, X25519} {
		key, public := recipient(t, kem)
		d := must[*Delivery](t)(NewDelivery(public, w.tenant, bob))
		u := must[*UseLicense](t)(d.UseLicense(t.Context(), w.daemon, w.cert, w.useFields(t), w.ck))
		h := key.Hash()
		c := useVector{
			KEM: uint16(kem), Public: key.Public(), RecipientHash: h[:], Info: deliveryInfo(labelUL, w.tenant, bob, kem, h),
			Enc: d.Enc(), UseLicense: u.Raw(), Context: hexBytes(exportContext(contextUL, u.envelope.Header)),
		}
		c.Key = must[*vocab.Secret](t)(key.export(labelUL, w.tenant, bob, d.enc, string(c.Context))).Reveal()
		p := must[PublishDelivery](t)(DeliverPublish(public, bob, w.pl, w.ck))
		c.PublishEnc, c.PublishBox = p.Enc, p.Box
		v.UseLicenses = append(v.UseLicenses, c)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, encode(t, v), 0o644); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, v vectors) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// A second implementation, written from docs/formats.md, agrees.
func TestVectorsInPython(t *testing.T) {
	// Debian's own python3 has Debian's packages; another one on the PATH may
	// not.
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import cryptography").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s with the package cryptography is needed: %v\n%s", python, err, out)
		}
		t.Skipf("no %s with the package cryptography: the second implementation was not run", python)
	}
	out, err := exec.CommandContext(t.Context(), python, "-B", filepath.Join("testdata", "vectors", "verify.py")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
