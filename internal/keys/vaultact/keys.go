package vaultact

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/vocab"
)

// Kind is which of a tenant's two keys a key is.
type Kind string

// Kinds, in Vault's words.
const (
	Root Kind = "aes256-gcm96" // derived
	Sign Kind = "ed25519"
)

// safe judges a key that is to serve as k.
func (k Kind) safe(f *keys.KeyFacts) error {
	if k == Sign {
		return f.SafeSign()
	}
	return f.SafeRoot()
}

// NewKey is a key to make.
type NewKey struct {
	Name string
	Kind Kind
	// AutoRotate is how often Vault rotates it by itself, 0 for never, else an
	// hour or more in whole seconds.
	AutoRotate time.Duration
	// MayExist accepts a key that is there already and is exactly what making it
	// would give: one version, made in Vault. It finishes what was cut short.
	MayExist bool
}

// Create makes keys, and none of them if one exists that must not, or one name
// is bad. For each it returns what was done, in order; Before is set where a key
// existed. Each is read back, and an error unless it is what was asked for.
func (c *Client) Create(ctx context.Context, ks ...NewKey) ([]*Done, error) {
	names := make(map[string]bool)
	for _, k := range ks {
		if err := vault.CheckKeyName(k.Name); err != nil {
			return nil, err
		}
		if err := checkPeriod(k.AutoRotate); err != nil {
			return nil, err
		}
		if k.Kind != Root && k.Kind != Sign || names[k.Name] {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "key %s cannot be both keys, or another kind of key", k.Name)
		}
		names[k.Name] = true
	}
	var acts []*act
	var done []*Done
	defer func() {
		for i, a := range acts {
			done[i].Evidence = a.ev
		}
	}()
	for _, k := range ks {
		a, err := c.begin(ctx, officer)
		if err != nil {
			return done, err
		}
		d := &Done{}
		acts, done = append(acts, a), append(done, d)
		if d.Before, err = a.read(ctx, k.Name); err != nil {
			return done, err
		}
		if d.Before == nil {
			continue
		}
		if !k.MayExist {
			return done, vocab.Errorf(vocab.ReasonResourceExists, "key %s exists already, of type %s with %d versions; nothing was made", k.Name, d.Before.Type, d.Before.Latest).
				WithNext("Choose another name; if an earlier attempt was cut short, say that it may exist")
		}
		if err := k.fits(d.Before); err != nil {
			return done, err
		}
	}
	for i, k := range ks {
		a, d := acts[i], done[i]
		if d.Before != nil {
			d.Key = d.Before
			continue
		}
		body := map[string]any{"type": k.Kind}
		if k.Kind == Root {
			body["derived"] = true
		}
		if k.AutoRotate != 0 {
			body["auto_rotate_period"] = int64(k.AutoRotate / time.Second)
		}
		_, err := a.call(ctx, http.MethodPost, "keys/"+k.Name, body, "make key "+k.Name)
		if err == nil {
			d.Key, err = a.again(ctx, k.Name)
		}
		if err == nil {
			err = k.fits(d.Key)
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// fits compares every attribute with what was asked for.
func (k NewKey) fits(f *keys.KeyFacts) error {
	if err := k.Kind.safe(f); err != nil {
		return err
	}
	for what, differs := range map[string]bool{
		fmt.Sprintf("is at version %d", f.Latest): f.Latest != 1 || f.MinAvailable > 1 || f.MinDecryption > 1,
		"was imported":   f.Imported,
		"may be deleted": f.DeletionAllowed,
		fmt.Sprintf("rotates by itself every %s", f.AutoRotate): f.AutoRotate != k.AutoRotate,
	} {
		if differs {
			return vocab.Errorf(vocab.ReasonKeyState, "key %s is not the one that was to be made: it %s", k.Name, what).
				WithNext("Somebody else made or changed it; choose another name")
		}
	}
	return nil
}

func checkPeriod(p time.Duration) error {
	if p != 0 && (p < time.Hour || p > 10*365*24*time.Hour || p%time.Second != 0) {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "a key cannot be rotated every %s", p).
			WithNext("Name an hour or more, in whole seconds, or 0 for never")
	}
	return nil
}

// stays refuses what would make Vault generate a version of an imported key,
// unless that is wanted.
func stays(k *keys.KeyFacts, generate bool) error {
	switch {
	case k.Imported && !generate:
		return vocab.Errorf(vocab.ReasonKeyState, "key %s was imported: a version that Vault makes is not yours, and ends imports to this key for ever", k.Name).
			WithNext("Bring the new version (--import FILE), or let Vault make it (--generate-in-vault)")
	case k.Imported && !k.ImportRotates:
		return vocab.Errorf(vocab.ReasonKeyState, "key %s was imported without leave to be rotated", k.Name).
			WithNext("Import a new version of it")
	}
	return nil
}

// Rotate makes a new version of a key in Vault. Of an imported key it does so
// only if generate says that this is meant: Vault then forgets that the key was
// imported and takes no version from outside any more.
func (c *Client) Rotate(ctx context.Context, name string, generate bool) (*Done, error) {
	d, err := c.change(ctx, officer, name, func(a *act, before *keys.KeyFacts) error {
		if err := stays(before, generate); err != nil {
			return err
		}
		_, err := a.call(ctx, http.MethodPost, "keys/"+name+"/rotate", struct{}{}, "rotate key "+name)
		return err
	})
	if err == nil && d.Key.Latest <= d.Before.Latest {
		err = keys.Integrity(errors.New("no new version after a rotation"))
	}
	return d, err
}

// MinVersions are floors; 0 leaves one as it is.
type MinVersions struct {
	// Decryption: older versions open nothing. It can be lowered again until
	// they are trimmed.
	Decryption uint32
	// Encryption: older versions seal nothing.
	Encryption uint32
}

// SetMinVersions sets which versions of a key may be used.
func (c *Client) SetMinVersions(ctx context.Context, name string, m MinVersions) (*Done, error) {
	if m == (MinVersions{}) {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "no version was named").WithNext("Name the lowest version that may open or seal")
	}
	return c.change(ctx, officer, name, func(a *act, _ *keys.KeyFacts) error { return a.floors(ctx, name, m) })
}

// floors sends floors, reads the key and compares.
func (a *act) floors(ctx context.Context, name string, m MinVersions) error {
	body := map[string]any{}
	if m.Decryption != 0 {
		body["min_decryption_version"] = m.Decryption
	}
	if m.Encryption != 0 {
		body["min_encryption_version"] = m.Encryption
	}
	return a.configure(ctx, name, body, "set the lowest versions of key "+name, func(k *keys.KeyFacts) bool {
		return (m.Decryption == 0 || k.MinDecryption == m.Decryption) && (m.Encryption == 0 || k.MinEncryption == m.Encryption)
	})
}

// configure changes a key's configuration and finds out whether it did.
func (a *act) configure(ctx context.Context, name string, body map[string]any, doing string, did func(*keys.KeyFacts) bool) error {
	if _, err := a.call(ctx, http.MethodPost, "keys/"+name+"/config", body, doing); err != nil {
		return err
	}
	k, err := a.again(ctx, name)
	if err == nil && !did(k) {
		err = vocab.Errorf(vocab.ReasonCustodyIntegrity, "Vault accepted to %s and did not", doing).
			WithNext("Somebody else may change the key at the same time: look at it before you try again")
	}
	return err
}

// SetAutoRotate sets how often Vault rotates a key by itself; 0 ends that. For
// an imported key generate must say that it is meant, as for [Client.Rotate].
func (c *Client) SetAutoRotate(ctx context.Context, name string, period time.Duration, generate bool) (*Done, error) {
	if err := checkPeriod(period); err != nil {
		return nil, err
	}
	return c.change(ctx, officer, name, func(a *act, before *keys.KeyFacts) error {
		if period != 0 {
			if err := stays(before, generate); err != nil {
				return err
			}
		}
		return a.configure(ctx, name, map[string]any{"auto_rotate_period": int64(period / time.Second)}, "set how often key "+name+" is rotated",
			func(k *keys.KeyFacts) bool { return k.AutoRotate == period })
	})
}

// Trim destroys the versions of a key below the version named, for ever, in this
// Vault; its snapshots keep them until they are destroyed. Floors are raised
// first where they must be. Which versions nothing depends on any more, and who
// must agree, is the caller's to know. It needs the destroyer's token.
func (c *Client) Trim(ctx context.Context, name string, below uint32) (*Done, error) {
	d, err := c.change(ctx, destroyer, name, func(a *act, k *keys.KeyFacts) error {
		if below < 2 || below > k.Latest || below <= k.MinAvailable {
			return vocab.Errorf(vocab.ReasonRequestInvalid, "key %s has versions %d to %d: there is none below %d to destroy, or it would be the newest",
				name, max(k.MinAvailable, 1), k.Latest, below).
				WithNext("Name the lowest version that stays; the newest can only go with the whole key")
		}
		m := MinVersions{}
		if k.MinDecryption < below {
			m.Decryption = below
		}
		if k.MinEncryption < below {
			m.Encryption = below
		}
		if m != (MinVersions{}) {
			if err := a.floors(ctx, name, m); err != nil {
				return err
			}
		}
		_, err := a.call(ctx, http.MethodPost, "keys/"+name+"/trim", map[string]any{"min_available_version": below}, "destroy versions of key "+name)
		return err
	})
	if err == nil && d.Key.MinAvailable != below {
		err = keys.Integrity(fmt.Errorf("trimmed to %d, found %d", below, d.Key.MinAvailable))
	}
	return d, err
}

// Delete destroys a key with all its versions, for ever, in this Vault. As for
// [Client.Trim], the caller knows that it may, and the token is the destroyer's.
// If Vault refuses, the leave to delete is taken back.
func (c *Client) Delete(ctx context.Context, name string) (*Done, error) {
	if err := vault.CheckKeyName(name); err != nil {
		return nil, err
	}
	a, err := c.begin(ctx, destroyer)
	if err != nil {
		return nil, err
	}
	d := &Done{}
	defer func() { d.Evidence = a.ev }()
	if d.Before, err = a.existing(ctx, name); err != nil {
		return d, err
	}
	allow := func(ctx context.Context, yes bool) error {
		return a.configure(ctx, name, map[string]any{"deletion_allowed": yes}, "let key "+name+" be deleted",
			func(k *keys.KeyFacts) bool { return k.DeletionAllowed == yes })
	}
	if !d.Before.DeletionAllowed {
		if err := allow(ctx, true); err != nil {
			return d, err
		}
	}
	if _, err := a.call(ctx, http.MethodDelete, "keys/"+name, nil, "delete key "+name); err != nil {
		if _, refused := errors.AsType[*vault.Refused](err); refused && !d.Before.DeletionAllowed {
			if undone := allow(ctx, false); undone != nil {
				return d, vocab.Errorf(vocab.ReasonOf(err), "%s; and now anybody who may delete keys can delete this one", sentence(err)).
					WithNext("Set deletion_allowed=false on key %s", name).Because(errors.Join(err, undone))
			}
		}
		return d, err
	}
	d.Key, err = a.read(ctx, name)
	if err == nil && d.Key != nil {
		err = keys.Integrity(errors.New("a key that was just deleted is there"))
	}
	return d, err
}
