package devidp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// keptKeys is how many keys stay published: the signing one and those before
// it, whose tokens are still about.
const keptKeys = 3

// signingKey implements op.SigningKey; its public half is a publicKey.
type signingKey struct {
	id      string
	private *ecdsa.PrivateKey
}

func newSigningKey() (*signingKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &signingKey{id: uuid.NewString(), private: key}, err
}

func (k *signingKey) ID() string                                  { return k.id }
func (k *signingKey) Key() any                                    { return k.private }
func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.ES256 }

type publicKey struct{ *signingKey }

var _ op.Key = publicKey{}

func (k publicKey) Key() any                           { return k.private.Public() }
func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.ES256 }
func (k publicKey) Use() string                        { return "sig" }

// state is the state file.
type state struct {
	Address string            `json:"address"`
	Keys    []jose.JSONWebKey `json:"keys"` // the signing key first
}

// loadState returns what a state file holds, or a new key if there is none.
func loadState(path string) (keys []*signingKey, address string, err error) {
	var s state
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
		if err == nil {
			if err := json.Unmarshal(b, &s); err != nil {
				return nil, "", fmt.Errorf("%s is not a state file of the development identity provider: %w", path, err)
			}
		}
	}
	for _, k := range s.Keys {
		private, ok := k.Key.(*ecdsa.PrivateKey)
		if !ok {
			return nil, "", fmt.Errorf("%s holds a key that is not a private EC key", path)
		}
		keys = append(keys, &signingKey{id: k.KeyID, private: private})
	}
	if len(keys) == 0 {
		k, err := newSigningKey()
		if err != nil {
			return nil, "", err
		}
		keys = append(keys, k)
	}
	return keys, s.Address, nil
}

// save writes the state file whole or not at all.
func (s *storage) save() error {
	if s.options.StateFile == "" {
		return nil
	}
	st := state{Address: s.options.Address}
	for _, k := range s.keys {
		st.Keys = append(st.Keys, jose.JSONWebKey{Key: k.private, KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig"})
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.options.StateFile), ".devidp-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.options.StateFile)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// RotateKey signs with a new key from now on. The keys before it stay
// published, so that tokens signed by them stay good.
func (p *Provider) RotateKey() error {
	k, err := newSigningKey()
	if err != nil {
		return err
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.store.keys = append([]*signingKey{k}, p.store.keys...)
	if len(p.store.keys) > keptKeys {
		p.store.keys = p.store.keys[:keptKeys]
	}
	return p.store.save()
}

// RetireKeys withdraws every key but the signing one, as after a key was
// stolen: tokens signed by them are good no more.
func (p *Provider) RetireKeys() error {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.store.keys = p.store.keys[:1]
	return p.store.save()
}
