package keys

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// RootKey is one version of a custodian's root signing key as a
// [license.Signer]: each Sign is a call of the custodian, and what comes back
// must verify under the public key that was read before, else it is
// CUSTODY_INTEGRITY.
type RootKey struct {
	custodian Custodian
	version   uint32
	public    ed25519.PublicKey
}

var _ license.Signer = (*RootKey)(nil)

// RootKeyOf returns the signer of a version that facts of c show; 0 is the
// newest. It fails with KEY_STATE if the custodian does not show the version.
func RootKeyOf(c Custodian, f *Facts, version uint32) (*RootKey, error) {
	if version == 0 {
		version = f.Sign.Latest
	}
	public, ok := f.Sign.PublicKey(version)
	if !ok || len(public) != ed25519.PublicKeySize {
		return nil, vocab.Errorf(vocab.ReasonKeyState, "version %d of the root signing key is not there any more", version)
	}
	return &RootKey{c, version, public}, nil
}

// CurrentRoot reads the facts, refuses unsafe ones and returns the newest root
// signing key.
func CurrentRoot(ctx context.Context, c Custodian) (*RootKey, error) {
	f, err := c.Describe(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.Safe(); err != nil {
		return nil, err
	}
	return RootKeyOf(c, f, 0)
}

// PublicKey implements [license.Signer].
func (k *RootKey) PublicKey() ed25519.PublicKey { return k.public }

// Version is the custodian's version of the key.
func (k *RootKey) Version() uint32 { return k.version }

// Sign implements [license.Signer].
func (k *RootKey) Sign(ctx context.Context, message []byte) ([]byte, error) {
	s, err := k.custodian.Sign(ctx, k.version, message)
	if err != nil {
		return nil, err
	}
	if s.Version != k.version {
		return nil, integrity(fmt.Errorf("asked version %d to sign, version %d did", k.version, s.Version))
	}
	if len(s.Bytes) != ed25519.SignatureSize || !ed25519.Verify(k.public, message, s.Bytes) {
		return nil, integrity(errors.New("signature does not verify under the root's public key"))
	}
	return s.Bytes, nil
}

// Roots lists the root keys for a trust bundle: the newest version of the
// facts as current, every older one known from the mark or the facts as
// previous, those in compromised as such. Vault hides old public keys; the
// mark remembers them.
func Roots(f *Facts, m Mark, compromised map[license.KeyID]bool) []license.Root {
	known := f.MarkOf(m).SignKeys
	var roots []license.Root
	for v, key := range known {
		r := license.Root{Key: ed25519.PublicKey(key[:]), Version: v, State: license.RootPrevious}
		switch {
		case compromised[r.ID()]:
			r.State = license.RootCompromised
		case v == f.Sign.Latest:
			r.State = license.RootCurrent
		}
		roots = append(roots, r)
	}
	return roots
}
