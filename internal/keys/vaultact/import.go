package vaultact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/byok"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/vocab"
)

// Brought is a key that somebody brings from outside. The caller zeroes the
// material afterwards.
type Brought struct {
	Material *byok.Material
	// Hash is the hash function of a wrapped key's RSA-OAEP where its form does
	// not say it; SHA256 if empty.
	Hash byok.Hash
	// KCV is the check value that the HSM showed. A key in clear is compared with
	// it; of a wrapped one nobody here can compute it, and it is recorded as
	// claimed. Nil if there is none.
	KCV *byok.KCV
}

// Provenance is what is known of an imported version: where it came from, how it
// is told apart, and what Vault has of it. Vault itself forgets that a key was
// imported at its first rotation, so it must be recorded elsewhere.
type Provenance struct {
	Done

	// Version of the key that was brought.
	Version uint32
	Form    byok.Form
	// Fingerprint in hexadecimal; empty for a wrapped key.
	Fingerprint string
	// KCV; empty if nobody said it. KCVClaimed: it is what the person said.
	KCV        string
	KCVClaimed bool
	// WrappingKey is the fingerprint of Vault's wrapping key, Blob the SHA-256
	// of what was sent under it; both in hexadecimal.
	WrappingKey, Blob string
	Hash              byok.Hash
	// WrappedFor and Generator are what an Azure file says of itself.
	WrappedFor, Generator string
}

// WrappingKey reads the mount's wrapping key, which an HSM wraps under. Vault
// makes it at the first read and never again.
func (c *Client) WrappingKey(ctx context.Context) (*byok.WrappingKey, *Evidence, error) {
	a, err := c.begin(ctx, officer)
	if err != nil {
		return nil, nil, err
	}
	w, err := a.wrappingKey(ctx)
	return w, &a.ev, err
}

func (a *act) wrappingKey(ctx context.Context) (*byok.WrappingKey, error) {
	ans, err := a.call(ctx, http.MethodGet, "wrapping_key", nil, "read the wrapping key")
	if err != nil {
		return nil, err
	}
	return parseWrappingKey(ans.Data)
}

func parseWrappingKey(data []byte) (*byok.WrappingKey, error) {
	var d struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, keys.Integrity(err)
	}
	return byok.ParseWrappingKey([]byte(d.PublicKey))
}

// Import makes a new root key of what was brought: AES-256, derived, not
// exportable, with leave to be rotated. A key in clear is wrapped here and leaves
// this process only so. It is read back, and an error unless it is that.
func (c *Client) Import(ctx context.Context, name string, b Brought) (*Provenance, error) {
	return c.bring(ctx, name, b, false)
}

// ImportVersion adds what was brought as the newest version of a key that was
// imported and never rotated in Vault.
func (c *Client) ImportVersion(ctx context.Context, name string, b Brought) (*Provenance, error) {
	return c.bring(ctx, name, b, true)
}

func (c *Client) bring(ctx context.Context, name string, b Brought, more bool) (*Provenance, error) {
	if err := vault.CheckKeyName(name); err != nil {
		return nil, err
	}
	p, err := b.check()
	if err != nil {
		return nil, err
	}
	a, err := c.begin(ctx, officer)
	if err != nil {
		return nil, err
	}
	defer func() { p.Evidence = a.ev }()
	if p.Before, err = a.read(ctx, name); err != nil {
		return p, err
	}
	if err := takes(name, p.Before, more); err != nil {
		return p, err
	}
	blob, err := p.wrap(ctx, a, b.Material)
	if err != nil {
		return p, err
	}
	defer clear(blob)
	if err := p.send(ctx, a, name, blob, more); err != nil {
		return p, err
	}
	if p.Key, err = a.again(ctx, name); err != nil {
		return p, err
	}
	return p, p.arrived()
}

// check judges what was brought before anybody asks Vault.
func (b Brought) check() (*Provenance, error) {
	m := b.Material
	p := &Provenance{Form: m.Form, Hash: byok.SHA256, WrappedFor: m.WrappedFor, Generator: m.Generator}
	if m.Key == nil {
		switch {
		case m.Hash != "" && b.Hash != "" && m.Hash != b.Hash:
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "%s is made with %s, not with %s", m.Form.Describe(), m.Hash, b.Hash).
				WithNext("Leave the hash function out")
		case m.Hash != "":
			p.Hash = m.Hash
		case b.Hash != "":
			p.Hash = b.Hash
		}
		if b.KCV != nil {
			p.KCV, p.KCVClaimed = b.KCV.String(), true
		}
		return p, nil
	}
	kcv := byok.KCVOf(m.Key)
	p.KCV, p.Fingerprint = kcv.String(), byok.FingerprintOf(m.Key).String()
	if b.KCV != nil && *b.KCV != kcv {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the key's check value is %s, not %s", kcv, b.KCV).
			WithNext("This is another key, or its HSM computes check values by CMAC: compare with the protocol of the key ceremony")
	}
	return p, nil
}

// takes refuses an import that Vault would refuse, or that would go to another
// kind of key.
func takes(name string, k *keys.KeyFacts, more bool) error {
	switch {
	case !more && k != nil:
		return vocab.Errorf(vocab.ReasonResourceExists, "key %s exists already; nothing was imported", name).
			WithNext("Choose another name; a new version of an imported key is imported as a version")
	case !more:
		return nil
	case k == nil:
		return noKey(name)
	case !k.Imported:
		return vocab.Errorf(vocab.ReasonKeyState, "key %s was made or rotated in Vault, which then takes no version from outside", name).
			WithNext("Import yours under another name, register and activate it")
	}
	return k.SafeRoot()
}

// wrap returns what to send.
func (p *Provenance) wrap(ctx context.Context, a *act, m *byok.Material) ([]byte, error) {
	w, err := a.wrappingKey(ctx)
	if err != nil {
		return nil, err
	}
	p.WrappingKey = w.Fingerprint()
	var blob []byte
	if m.Key != nil {
		if blob, err = w.Wrap(m.Key); err != nil {
			return nil, err
		}
	} else {
		blob = append(blob, m.Blob...)
	}
	sum := sha256.Sum256(blob)
	p.Blob = hex.EncodeToString(sum[:])
	return blob, nil
}

func (p *Provenance) send(ctx context.Context, a *act, name string, blob []byte, more bool) error {
	type version struct {
		Ciphertext []byte    `json:"ciphertext"`
		Hash       byok.Hash `json:"hash_function"`
	}
	v := version{blob, p.Hash}
	if more {
		_, err := a.call(ctx, http.MethodPost, "keys/"+name+"/import_version", v, "import a version of key "+name)
		return p.madeForAzure(err)
	}
	_, err := a.call(ctx, http.MethodPost, "keys/"+name+"/import", struct {
		version

		Type          Kind `json:"type"`
		Derived       bool `json:"derived"`
		AllowRotation bool `json:"allow_rotation"`
	}{v, Root, true, true}, "import key "+name)
	return p.madeForAzure(err)
}

// madeForAzure adds to Vault's refusal what an Azure file says of itself. Which
// key a blob is for cannot be seen in it: Vault finds out.
func (p *Provenance) madeForAzure(err error) error {
	e, ok := errors.AsType[*vocab.Error](err)
	if !ok || p.Form != byok.FormAzure || e.Reason != vocab.ReasonRequestInvalid {
		return err
	}
	return vocab.Errorf(e.Reason, "%s. The file says it was wrapped for %.200q by %.100q", e.Message, p.WrappedFor, p.Generator).
		WithNext("If that is a key of Azure's, only Azure's HSM can open it: run the vendor's BYOK tool again, with this mount's wrapping key as its key exchange key").
		Because(err)
}

// arrived judges the key as it was read back.
func (p *Provenance) arrived() error {
	k := p.Key
	if err := k.SafeRoot(); err != nil {
		return err
	}
	before := uint32(0)
	if p.Before != nil {
		before = p.Before.Latest
	}
	p.Version = before + 1
	switch {
	case !k.Imported:
		return vocab.Errorf(vocab.ReasonKeyState, "key %s is not an imported one any more: somebody rotated it meanwhile", k.Name).
			WithNext("Find out who, before you use it")
	case k.Latest != p.Version:
		return vocab.Errorf(vocab.ReasonKeyState, "key %s is at version %d, and %d was expected: somebody else changes it too, so which version is yours is not known", k.Name, k.Latest, p.Version).
			WithNext("Find out who, before you use it; import under another name if in doubt")
	case p.Before == nil && !k.ImportRotates, k.DeletionAllowed:
		return vocab.Errorf(vocab.ReasonKeyState, "key %s has other attributes than it was imported with", k.Name).
			WithNext("Somebody else changes it: find out who, before you use it")
	}
	return nil
}
