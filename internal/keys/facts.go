package keys

import (
	"fmt"
	"maps"

	"github.com/openrms/rms/internal/vocab"
)

// Safe judges facts by what a tenant key must be: the root key AES-256 and
// derived (Vault ignores the context of a key that is not, and says nothing),
// the signing key Ed25519, neither ever exportable, backed up in clear or
// restored from such a backup. The error is KEY_ATTRIBUTES_UNSAFE and names key
// and attribute.
func (f *Facts) Safe() error {
	rootType, derived := "aes256-gcm96", true
	if f.Kind == KindEmbedded {
		rootType = "embedded"
	}
	if err := f.Root.safe(rootType, derived); err != nil {
		return err
	}
	return f.Sign.SafeSign()
}

// SafeRoot judges a root key in Vault as [Facts.Safe] does.
func (k *KeyFacts) SafeRoot() error { return k.safe("aes256-gcm96", true) }

// SafeSign judges a signing key as [Facts.Safe] does.
func (k *KeyFacts) SafeSign() error { return k.safe("ed25519", false) }

func (k *KeyFacts) safe(wantType string, wantDerived bool) error {
	unsafe := func(format string, args ...any) error {
		return vocab.Errorf(vocab.ReasonKeyAttributesUnsafe, "key %q is %s", k.Name, fmt.Sprintf(format, args...)).
			WithNext("Make a new key as the custody guide says; these attributes cannot be taken back from a key that had them")
	}
	switch {
	case k.Type != wantType:
		return unsafe("of type %q, but must be %q", k.Type, wantType)
	case wantDerived && !k.Derived:
		return unsafe("not derived: its custodian would ignore what a wrapped key is bound to")
	case !wantDerived && k.Derived:
		return unsafe("derived, but a signing key must not be")
	case k.Convergent:
		return unsafe("convergent: equal keys would be seen as equal")
	case k.Exportable:
		return unsafe("exportable")
	case k.PlaintextBackup:
		return unsafe("open to plaintext backup")
	case k.BackedUp:
		return unsafe("copied out by a plaintext backup")
	case k.Restored:
		return unsafe("restored from a plaintext backup")
	case k.Latest == 0:
		return unsafe("without a version")
	}
	return nil
}

// Mark is the high-water mark of a registered key: what was last seen of it,
// and must not go backwards. It is kept with the tenant's records.
type Mark struct {
	Custodian vocab.CustodianID
	ClusterID string
	// Root and Sign versions seen.
	RootLatest, RootMinAvailable uint32
	SignLatest, SignMinAvailable uint32
	// SignKeys are the public keys seen, by version: a version must keep its
	// key, and Vault hides old ones.
	SignKeys map[uint32][32]byte
}

// MarkOf returns the mark that f leaves, on top of what prior already held.
func (f *Facts) MarkOf(prior Mark) Mark {
	m := Mark{
		Custodian: f.Custodian, ClusterID: f.ClusterID,
		RootLatest: f.Root.Latest, RootMinAvailable: f.Root.MinAvailable,
		SignLatest: f.Sign.Latest, SignMinAvailable: f.Sign.MinAvailable,
		SignKeys: make(map[uint32][32]byte),
	}
	maps.Copy(m.SignKeys, prior.SignKeys)
	for _, v := range f.Sign.Versions {
		if len(v.PublicKey) == 32 {
			m.SignKeys[v.Version] = [32]byte(v.PublicKey)
		}
	}
	return m
}

// Since compares facts with an earlier mark. A custodian that became another
// installation, or whose keys lost versions they had, was exchanged or restored
// from an old copy: CUSTODIAN_CHANGED. A zero mark fits everything.
func (f *Facts) Since(m Mark) error {
	changed := func(format string, args ...any) error {
		return vocab.Errorf(vocab.ReasonCustodianChanged, "the custodian is not the one it was: %s", fmt.Sprintf(format, args...)).
			WithNext("If it was moved or restored on purpose, register it anew; otherwise treat it as an attack")
	}
	if m.Custodian.IsZero() {
		return nil
	}
	switch {
	case f.Custodian != m.Custodian:
		return changed("it answers for another registered key")
	case m.ClusterID != "" && f.ClusterID != m.ClusterID:
		return changed("its cluster ID was %s and is %s", m.ClusterID, f.ClusterID)
	case f.Root.Latest < m.RootLatest:
		return changed("key %q had version %d and is now at %d", f.Root.Name, m.RootLatest, f.Root.Latest)
	case f.Sign.Latest < m.SignLatest:
		return changed("key %q had version %d and is now at %d", f.Sign.Name, m.SignLatest, f.Sign.Latest)
	case f.Root.MinAvailable < m.RootMinAvailable:
		return changed("key %q has destroyed versions again", f.Root.Name)
	case f.Sign.MinAvailable < m.SignMinAvailable:
		return changed("key %q has destroyed versions again", f.Sign.Name)
	}
	for _, v := range f.Sign.Versions {
		if old, ok := m.SignKeys[v.Version]; ok && string(old[:]) != string(v.PublicKey) {
			return changed("version %d of key %q is another key", v.Version, f.Sign.Name)
		}
	}
	return nil
}
