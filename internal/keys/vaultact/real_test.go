package vaultact_test

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"hash"
	"net/http"
	"strings"
	"testing"
	"time"

	vaultpolicy "github.com/openrms/rms/deploy/vault"
	"github.com/openrms/rms/internal/keys/byok"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/keys/vaultact"
	"github.com/openrms/rms/internal/vaulttest"
	"github.com/openrms/rms/internal/vaulttest/realvault"
	"github.com/openrms/rms/internal/vocab"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%v)", err, errors.Unwrap(err))
	}
}

// refusedAs wants an error of a reason that says and advises something.
func refusedAs(t *testing.T, err error, reason vocab.Reason, says, advises string) {
	t.Helper()
	e, ok := errors.AsType[*vocab.Error](err)
	if !ok || e.Reason != reason || !strings.Contains(e.Message, says) || !strings.Contains(e.Next, advises) {
		t.Errorf("%v (%v); want %s saying %q and advising %q", err, errors.Unwrap(err), reason, says, advises)
	}
}

// world is a real Vault with a mount and people on it, who have the shipped
// policies and nothing else.
type world struct {
	*realvault.Server

	tenant             *realvault.Tenant
	officer, destroyer *vaultact.Client
}

func newWorld(t *testing.T, s *realvault.Server, name string) *world {
	t.Helper()
	tn, err := s.AddMount(t.Context(), name)
	must(t, err)
	w := &world{Server: s, tenant: tn}
	w.officer = w.as(t, name+"-officer", vaultpolicy.CustodyOfficer(tn.Mount, tn.Policy))
	w.destroyer = w.as(t, name+"-destroyer", vaultpolicy.Destroyer(tn.Mount))
	return w
}

func (w *world) config(t *testing.T, token string) vaultact.Config {
	t.Helper()
	tok, err := vaultact.TokenFrom([]byte(token))
	must(t, err)
	return vaultact.Config{Endpoint: vault.Endpoint{Address: w.Address, CAFile: w.CAFile, ClusterID: w.ClusterID}, Mount: w.tenant.Mount, Token: tok}
}

func (w *world) as(t *testing.T, policy, text string) *vaultact.Client {
	t.Helper()
	must(t, w.Request(t.Context(), http.MethodPut, "sys/policies/acl/"+policy, map[string]string{"policy": text}, nil))
	var out struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	must(t, w.Request(t.Context(), http.MethodPost, "auth/token/create", map[string]any{"policies": []string{policy}, "no_default_policy": true}, &out))
	c, err := vaultact.Open(w.config(t, out.Auth.Token))
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// holds asks Vault to encrypt, and shows here that it did it under key.
func (w *world) holds(t *testing.T, name string, version uint32, key []byte) error {
	t.Helper()
	context, plaintext := []byte("a context of a test"), []byte("known text")
	var out struct {
		Data struct{ Ciphertext string }
	}
	must(t, w.Request(t.Context(), http.MethodPost, w.tenant.Mount+"/encrypt/"+name,
		map[string]any{"plaintext": plaintext, "context": context, "key_version": version}, &out))
	parts := strings.Split(out.Data.Ciphertext, ":")
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	must(t, err)
	return byok.Verify(vocab.SecretFrom(key), raw, context, plaintext)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// hsm wraps as an HSM does with CKM_RSA_AES_KEY_WRAP; its AES-KWP is the text of
// RFC 5649, independent of the one under test.
func hsm(t *testing.T, public *rsa.PublicKey, h hash.Hash, key []byte) []byte {
	t.Helper()
	temporary := random(32)
	blob, err := rsa.EncryptOAEP(h, rand.Reader, public, temporary, nil)
	must(t, err)
	block, err := aes.NewCipher(temporary)
	must(t, err)
	n := len(key) / 8
	a := append([]byte{0xa6, 0x59, 0x59, 0xa6}, binary.BigEndian.AppendUint32(nil, uint32(len(key)))...)
	r := append([]byte(nil), key...)
	for j := range 6 {
		for i := range n {
			b := append(append([]byte(nil), a...), r[8*i:8*i+8]...)
			block.Encrypt(b, b)
			a = binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(b)^uint64(n*j+i+1))
			copy(r[8*i:], b[8:])
		}
	}
	return append(append(blob, a...), r...)
}

func (w *world) public(t *testing.T) *rsa.PublicKey {
	t.Helper()
	var out struct {
		Data struct {
			PublicKey string `json:"public_key"`
		}
	}
	must(t, w.Request(t.Context(), http.MethodGet, w.tenant.Mount+"/wrapping_key", nil, &out))
	block, _ := pem.Decode([]byte(out.Data.PublicKey))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	must(t, err)
	return key.(*rsa.PublicKey)
}

func azureFile(blob []byte) []byte {
	b, _ := json.Marshal(map[string]any{
		"schema_version": "1.0.0", "generator": "Tool; 1", "ciphertext": base64.RawURLEncoding.EncodeToString(blob),
		"header": map[string]string{"kid": "https://v.vault.azure.net/keys/KEK/0011", "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"},
	})
	return b
}

func brought(t *testing.T, file []byte) vaultact.Brought {
	t.Helper()
	m, err := byok.Parse(file)
	must(t, err)
	return vaultact.Brought{Material: m}
}

// TestRealVault is the life of keys on an unmodified Vault, with the shipped
// policies.
func TestRealVault(t *testing.T) {
	s := vaulttest.Start(t)

	t.Run("Create", func(t *testing.T) {
		w := newWorld(t, s, "create")
		pair := []vaultact.NewKey{{Name: "root", Kind: vaultact.Root, AutoRotate: 720 * time.Hour}, {Name: "sign", Kind: vaultact.Sign}}
		done, err := w.officer.Create(t.Context(), pair...)
		must(t, err)
		for i, d := range done {
			if d.Before != nil || d.Key == nil || d.Key.Latest != 1 || d.Key.Type != string(pair[i].Kind) || d.Key.AutoRotate != pair[i].AutoRotate {
				t.Errorf("%+v", d.Key)
			}
			if d.ClusterID != s.ClusterID || d.Mount != w.tenant.Mount || d.Address != s.Address || d.VaultVersion == "" || time.Since(d.At) > time.Hour {
				t.Errorf("%+v", d.Evidence)
			}
			// Looked for, made, read back. The first has an error body, without an ID.
			if len(d.Requests) != 2 || d.Requests[0].Method != http.MethodPost || d.Requests[0].ID == "" || d.Requests[1].ID == "" {
				t.Errorf("%+v", d.Requests)
			}
		}
		w.inAudit(t, done[0].Requests...)

		done, err = w.officer.Create(t.Context(), vaultact.NewKey{Name: "third", Kind: vaultact.Root}, pair[1])
		refusedAs(t, err, vocab.ReasonResourceExists, "sign exists already", "another name")
		_, err = w.officer.ReadKey(t.Context(), "third")
		refusedAs(t, err, vocab.ReasonKeyState, "no key third", "make the key first")
		if done[1].Before == nil {
			t.Error("what exists is not shown")
		}
		for i := range pair {
			pair[i].MayExist = true
		}
		done, err = w.officer.Create(t.Context(), append(pair, vaultact.NewKey{Name: "third", Kind: vaultact.Root, MayExist: true})...)
		must(t, err)
		if done[0].Before == nil || done[2].Before != nil || done[2].Key == nil {
			t.Error("an earlier attempt is not finished")
		}

		for name, c := range map[string]struct {
			params map[string]any
			want   vaultact.NewKey
			reason vocab.Reason
		}{
			"not-derived": {map[string]any{"type": "aes256-gcm96"}, vaultact.NewKey{Kind: vaultact.Root}, vocab.ReasonKeyAttributesUnsafe},
			"exportable":  {map[string]any{"type": "ed25519", "exportable": true}, vaultact.NewKey{Kind: vaultact.Sign}, vocab.ReasonKeyAttributesUnsafe},
			"other-kind":  {map[string]any{"type": "ed25519"}, vaultact.NewKey{Kind: vaultact.Root}, vocab.ReasonKeyAttributesUnsafe},
			"rotates":     {map[string]any{"type": "ed25519", "auto_rotate_period": "1h"}, vaultact.NewKey{Kind: vaultact.Sign}, vocab.ReasonKeyState},
		} {
			must(t, w.tenant.CreateKey(t.Context(), name, c.params))
			c.want.Name, c.want.MayExist = name, true
			_, err := w.officer.Create(t.Context(), c.want)
			refusedAs(t, err, c.reason, name, "")
		}
		for _, k := range []vaultact.NewKey{{Name: "../x", Kind: vaultact.Root}, {Name: "x", Kind: "rsa-2048"}, {Name: "x", Kind: vaultact.Root, AutoRotate: time.Minute}} {
			_, err := w.officer.Create(t.Context(), k)
			refusedAs(t, err, vocab.ReasonRequestInvalid, "", "")
		}
		_, err = w.officer.Create(t.Context(), vaultact.NewKey{Name: "x", Kind: vaultact.Root}, vaultact.NewKey{Name: "x", Kind: vaultact.Sign})
		refusedAs(t, err, vocab.ReasonRequestInvalid, "both keys", "")
	})

	t.Run("Import", func(t *testing.T) {
		w := newWorld(t, s, "import")
		wrapping, ev, err := w.officer.WrappingKey(t.Context())
		must(t, err)
		if len(ev.Requests) != 1 || ev.Requests[0].ID == "" {
			t.Errorf("%+v", ev.Requests)
		}
		public := w.public(t)
		key := random(32)
		for name, file := range map[string][]byte{
			"raw": key, "hex": []byte(hex.EncodeToString(key)), "jwk": []byte(`{"kty":"oct","k":"` + base64.RawURLEncoding.EncodeToString(key) + `"}`),
			"hsm": hsm(t, public, sha256.New(), key), "azure": azureFile(hsm(t, public, sha1.New(), key)),
		} {
			b := brought(t, file)
			kcv := byok.KCVOf(vocab.SecretFrom(key))
			b.KCV = &kcv
			p, err := w.officer.Import(t.Context(), name, b)
			must(t, err)
			if err := w.holds(t, name, 1, key); err != nil {
				t.Errorf("%s: Vault holds another key: %v", name, err)
			}
			k := p.Key
			if !k.Imported || !k.ImportRotates || !k.Derived || k.Exportable || k.DeletionAllowed || k.Latest != 1 || p.Version != 1 || p.Before != nil {
				t.Errorf("%s: %+v", name, k)
			}
			clear := b.Material.Key != nil
			if p.KCV != kcv.String() || p.KCVClaimed == clear || (p.Fingerprint == byok.FingerprintOf(vocab.SecretFrom(key)).String()) != clear {
				t.Errorf("%s: KCV %s (claimed %t), fingerprint %q", name, p.KCV, p.KCVClaimed, p.Fingerprint)
			}
			if p.WrappingKey != wrapping.Fingerprint() || len(p.Blob) != 64 || (p.Hash == byok.SHA1) != (name == "azure") || p.Form != b.Material.Form {
				t.Errorf("%s: %+v", name, p)
			}
			if !clear {
				if sum := sha256.Sum256(b.Material.Blob); p.Blob != hex.EncodeToString(sum[:]) {
					t.Errorf("%s: hash of another blob", name)
				}
			}
			// The import itself has no ID; the reads around it enclose it.
			if n := len(p.Requests); n != 3 || p.Requests[0].ID == "" || p.Requests[1].ID != "" || p.Requests[2].ID == "" {
				t.Errorf("%s: %+v", name, p.Requests)
			}
			w.inAudit(t, p.Requests...)
		}

		b := brought(t, hsm(t, public, sha512.New(), key))
		b.Hash = byok.SHA512
		_, err = w.officer.Import(t.Context(), "sha512", b)
		must(t, err)

		other, err := rsa.GenerateKey(rand.Reader, 4096)
		must(t, err)
		spoilt := hsm(t, public, sha256.New(), key)
		spoilt[530] ^= 1
		for name, c := range map[string]struct {
			file          []byte
			says, advises string
		}{
			"for another wrapping key": {hsm(t, &other.PublicKey, sha256.New(), key), "cannot open", "fingerprint"},
			"with another hash":        {hsm(t, public, sha1.New(), key), "cannot open", "hash function"},
			"spoilt":                   {spoilt, "not what follows", "RFC 5649"},
			"made for Azure":           {azureFile(hsm(t, &other.PublicKey, sha1.New(), key)), "https://v.vault.azure.net/keys/KEK/0011", "BYOK tool again"},
		} {
			p, err := w.officer.Import(t.Context(), "new", brought(t, c.file))
			refusedAs(t, err, vocab.ReasonRequestInvalid, c.says, c.advises)
			if p.Key != nil || p.WrappingKey == "" {
				t.Errorf("%s: %+v", name, p)
			}
		}
		_, err = w.officer.Import(t.Context(), "raw", brought(t, key))
		refusedAs(t, err, vocab.ReasonResourceExists, "raw exists already", "another name")
		b = brought(t, key)
		b.KCV = &byok.KCV{1, 2, 3}
		_, err = w.officer.Import(t.Context(), "new", b)
		refusedAs(t, err, vocab.ReasonRequestInvalid, "check value", "CMAC")
		b = brought(t, azureFile(hsm(t, public, sha1.New(), key)))
		b.Hash = byok.SHA256
		_, err = w.officer.Import(t.Context(), "new", b)
		refusedAs(t, err, vocab.ReasonRequestInvalid, "SHA1", "out")
	})

	t.Run("Versions", func(t *testing.T) {
		w := newWorld(t, s, "versions")
		one, two := random(32), random(32)
		_, err := w.officer.Import(t.Context(), "k", brought(t, one))
		must(t, err)
		p, err := w.officer.ImportVersion(t.Context(), "k", brought(t, two))
		must(t, err)
		if p.Version != 2 || p.Before.Latest != 1 || p.Key.Latest != 2 || !p.Key.Imported {
			t.Errorf("%+v", p)
		}
		for v, key := range map[uint32][]byte{1: one, 2: two} {
			must(t, w.holds(t, "k", v, key))
		}
		if err := w.holds(t, "k", 2, one); !errors.Is(err, vocab.ReasonCustodyIntegrity) {
			t.Errorf("version 2 opens under the key of version 1: %v", err)
		}
		_, err = w.officer.ImportVersion(t.Context(), "none", brought(t, one))
		refusedAs(t, err, vocab.ReasonKeyState, "no key none", "")

		_, err = w.officer.Rotate(t.Context(), "k", false)
		refusedAs(t, err, vocab.ReasonKeyState, "not yours", "Bring the new version")
		_, err = w.officer.SetAutoRotate(t.Context(), "k", time.Hour, false)
		refusedAs(t, err, vocab.ReasonKeyState, "not yours", "Bring the new version")
		d, err := w.officer.Rotate(t.Context(), "k", true)
		must(t, err)
		if !d.Before.Imported || d.Key.Imported || d.Key.Latest != 3 || len(d.Requests) != 3 {
			t.Errorf("%+v", d)
		}
		_, err = w.officer.ImportVersion(t.Context(), "k", brought(t, one))
		refusedAs(t, err, vocab.ReasonKeyState, "made or rotated in Vault", "another name")

		d, err = w.officer.SetAutoRotate(t.Context(), "k", 2*time.Hour, false)
		must(t, err)
		if d.Before.AutoRotate != 0 || d.Key.AutoRotate != 2*time.Hour {
			t.Errorf("%+v", d)
		}
		_, err = w.officer.SetAutoRotate(t.Context(), "k", 0, false)
		must(t, err)

		d, err = w.officer.SetMinVersions(t.Context(), "k", vaultact.MinVersions{Decryption: 2, Encryption: 3})
		must(t, err)
		if d.Key.MinDecryption != 2 || d.Key.MinEncryption != 3 || len(d.Key.Versions) != 2 || len(d.Before.Versions) != 3 {
			t.Errorf("%+v", d.Key)
		}
		d, err = w.officer.SetMinVersions(t.Context(), "k", vaultact.MinVersions{Decryption: 1})
		must(t, err)
		if d.Key.MinDecryption != 1 || d.Key.MinEncryption != 3 {
			t.Errorf("%+v", d.Key)
		}
		_, err = w.officer.SetMinVersions(t.Context(), "k", vaultact.MinVersions{Decryption: 9})
		refusedAs(t, err, vocab.ReasonRequestInvalid, "latest key version is 3", "")
		_, err = w.officer.SetMinVersions(t.Context(), "k", vaultact.MinVersions{})
		refusedAs(t, err, vocab.ReasonRequestInvalid, "no version", "")

		for _, below := range []uint32{0, 1, 4} {
			_, err = w.destroyer.Trim(t.Context(), "k", below)
			refusedAs(t, err, vocab.ReasonRequestInvalid, "versions 1 to 3", "lowest version that stays")
		}
		d, err = w.destroyer.Trim(t.Context(), "k", 2)
		must(t, err)
		if d.Key.MinAvailable != 2 || d.Key.MinDecryption != 2 || d.Key.MinEncryption != 3 {
			t.Errorf("%+v", d.Key)
		}
		w.inAudit(t, d.Requests...)
		_, err = w.destroyer.Trim(t.Context(), "k", 2)
		refusedAs(t, err, vocab.ReasonRequestInvalid, "versions 2 to 3", "")
		_, err = w.officer.SetMinVersions(t.Context(), "k", vaultact.MinVersions{Decryption: 1})
		refusedAs(t, err, vocab.ReasonRequestInvalid, "min available version", "")

		d, err = w.destroyer.Delete(t.Context(), "k")
		must(t, err)
		if d.Before == nil || d.Key != nil {
			t.Errorf("%+v", d)
		}
		_, err = w.destroyer.Delete(t.Context(), "k")
		refusedAs(t, err, vocab.ReasonKeyState, "no key k", "")
	})

	t.Run("Refusals", func(t *testing.T) {
		w := newWorld(t, s, "refusals")
		_, err := w.officer.Create(t.Context(), vaultact.NewKey{Name: "root", Kind: vaultact.Root})
		must(t, err)
		_, err = w.officer.Trim(t.Context(), "root", 2)
		refusedAs(t, err, vocab.ReasonRequestInvalid, "versions 1 to 1", "")
		_, err = w.officer.Rotate(t.Context(), "root", false)
		must(t, err)
		_, err = w.officer.Trim(t.Context(), "root", 2)
		refusedAs(t, err, vocab.ReasonCustodianRefused, "may not destroy versions of key root", w.tenant.Mount+`/keys/+/trim" { capabilities = ["update"] }`)
		_, err = w.officer.Delete(t.Context(), "root")
		refusedAs(t, err, vocab.ReasonCustodianRefused, "may not let key root be deleted", `destroyer.hcl: path "`+w.tenant.Mount+`/keys/+/config" { capabilities = ["update"] }`)
		_, err = w.destroyer.Rotate(t.Context(), "root", false)
		refusedAs(t, err, vocab.ReasonCustodianRefused, "may not rotate key root", `custody-officer.hcl: path "`+w.tenant.Mount+`/keys/+/rotate"`)
		_, err = w.destroyer.Create(t.Context(), vaultact.NewKey{Name: "new", Kind: vaultact.Root})
		refusedAs(t, err, vocab.ReasonCustodianRefused, "may not make key new", `/keys/+" { capabilities = ["update"] }`)

		// Who may delete but not take the leave back, and the reverse.
		half := w.as(t, "refusals-half", strings.Replace(vaultpolicy.Destroyer(w.tenant.Mount), `["read", "delete"]`, `["read"]`, 1))
		d, err := half.Delete(t.Context(), "root")
		refusedAs(t, err, vocab.ReasonCustodianRefused, "may not delete key root", `capabilities = ["delete"]`)
		if d.Before == nil {
			t.Error("what was there is not shown")
		}
		d, err = w.officer.ReadKey(t.Context(), "root")
		must(t, err)
		if d.Key.DeletionAllowed {
			t.Error("the leave to delete was not taken back")
		}

		c := w.config(t, "hvs.a-token-of-nobody")
		stranger, err := vaultact.Open(c)
		must(t, err)
		defer stranger.Close()
		_, err = stranger.ReadKey(t.Context(), "root")
		refusedAs(t, err, vocab.ReasonCustodianRefused, "does not know your token", "vault login")

		c = w.config(t, "hvs.a-token-of-nobody")
		c.ClusterID = "another"
		astray, err := vaultact.Open(c)
		must(t, err)
		defer astray.Close()
		_, err = astray.Rotate(t.Context(), "root", false)
		refusedAs(t, err, vocab.ReasonCustodianChanged, "another cluster", "")

		c.ClusterID, c.Namespace = s.ClusterID, "contoso"
		spaced, err := vaultact.Open(c)
		must(t, err)
		defer spaced.Close()
		_, err = spaced.Rotate(t.Context(), "root", false)
		refusedAs(t, err, vocab.ReasonConfigurationInvalid, "namespace", "")
	})
}

// inAudit looks each request up in Vault's own log.
func (w *world) inAudit(t *testing.T, requests ...vaultact.Request) {
	t.Helper()
	entries, err := w.ReadAudit()
	must(t, err)
	paths := map[string]string{}
	for _, e := range entries {
		paths[e.Request.ID] = e.Request.Path
	}
	for _, r := range requests {
		if r.ID != "" && paths[r.ID] != r.Path {
			t.Errorf("request %s %s has ID %s, which in Vault's log is %q", r.Method, r.Path, r.ID, paths[r.ID])
		}
	}
}
