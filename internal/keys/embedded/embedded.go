package embedded

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/keys"
	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// Config says where a key ring lies.
type Config struct {
	// ID is the registered key.
	ID vocab.CustodianID
	// Path is the key ring, KeyFile the 32 bytes it is encrypted under.
	Path, KeyFile string
	// Now is the clock for creation times, time.Now if nil.
	Now func() time.Time
}

// Keyring is a [keys.Custodian] on a key ring file. Only one process may use a
// key ring: the store's lock sees to that. Its calls do no I/O except those
// that change the file.
type Keyring struct {
	cfg Config

	mu      sync.RWMutex
	ring    *ring // nil after Close
	fileKey *vocab.Secret
}

var (
	_ keys.Custodian = (*Keyring)(nil)
	_ keys.Rotator   = (*Keyring)(nil)
	_ keys.Destroyer = (*Keyring)(nil)
	_ keys.Holder    = (*Keyring)(nil)
)

// Create makes a new key ring with version 1 of both keys, and the key file if
// there is none, durably. It never overwrites a key ring.
func Create(c Config) (*Keyring, error) {
	if err := makeFileKey(c.KeyFile); err != nil {
		return nil, unusable(c, err)
	}
	fileKey, err := readFileKey(c.KeyFile)
	if err != nil {
		return nil, unusable(c, err)
	}
	now := clock(c)()
	r := &ring{ID: uuid.New(), Root: []version{newVersion(1, now)}, Sign: []version{newVersion(1, now)}}
	b, err := encode(r, fileKey)
	if err == nil {
		err = writePrivate(c.Path, b, true)
	}
	if err != nil {
		r.zero()
		fileKey.Zero()
		if errors.Is(err, fs.ErrExist) {
			return nil, vocab.Errorf(vocab.ReasonResourceExists, "there is a key ring already").Because(err)
		}
		return nil, unusable(c, err)
	}
	return &Keyring{cfg: c, ring: r, fileKey: fileKey}, nil
}

// Open reads a key ring.
func Open(c Config) (*Keyring, error) {
	fileKey, err := readFileKey(c.KeyFile)
	if err != nil {
		return nil, unusable(c, err)
	}
	b, err := readPrivate(c.Path, maxFile)
	if err != nil {
		fileKey.Zero()
		return nil, unusable(c, err)
	}
	r, err := decode(b, fileKey)
	if err != nil {
		fileKey.Zero()
		return nil, unusable(c, fmt.Errorf("%s: %w", c.Path, err))
	}
	return &Keyring{cfg: c, ring: r, fileKey: fileKey}, nil
}

func unusable(c Config, err error) error {
	return vocab.Errorf(vocab.ReasonConfigurationInvalid, "the embedded key ring cannot be used: %v", err).
		WithNext("Check keyring and key_file of the tenant").Because(err)
}

func clock(c Config) func() time.Time {
	if c.Now != nil {
		return c.Now
	}
	return time.Now
}

// begin guards a call: the caller holds a read lock until end.
func (k *Keyring) begin(ctx context.Context) (r *ring, end func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	k.mu.RLock()
	if k.ring == nil {
		k.mu.RUnlock()
		return nil, nil, closed()
	}
	if k.ring.destroyed() {
		k.mu.RUnlock()
		return nil, nil, gone()
	}
	return k.ring, k.mu.RUnlock, nil
}

func gone() error {
	return vocab.Errorf(vocab.ReasonKeyState, "the keys of this key ring were destroyed").
		WithNext("Take the key ring out of the tenant's file")
}

func closed() error {
	return vocab.Errorf(vocab.ReasonCustodianUnreachable, "the embedded key ring is closed")
}

// ID implements [keys.Custodian].
func (k *Keyring) ID() vocab.CustodianID { return k.cfg.ID }

// Describe implements [keys.Custodian].
func (k *Keyring) Describe(ctx context.Context) (*keys.Facts, error) {
	r, end, err := k.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	f := &keys.Facts{
		Custodian: k.cfg.ID, Kind: keys.KindEmbedded, ClusterID: uuid.UUID(r.ID).String(), ReadAt: clock(k.cfg)().UTC(),
		Root: describe("root", "embedded", r.Root), Sign: describe("sign", "ed25519", r.Sign),
	}
	f.Root.Derived = true // every wrap has a key of its own, derived from its binding
	for i, v := range r.Sign {
		f.Sign.Versions[i].PublicKey = v.private().Public().(ed25519.PublicKey)
	}
	return f, nil
}

func describe(name, kind string, vs []version) keys.KeyFacts {
	f := keys.KeyFacts{Name: name, Type: kind, Latest: vs[len(vs)-1].Number, MinDecryption: vs[0].Number, MinAvailable: vs[0].Number}
	for _, v := range vs {
		f.Versions = append(f.Versions, keys.KeyVersion{Version: v.Number, Created: v.created()})
	}
	return f
}

// bound is the key of one wrap, KDF(root, ∅, D("rms/v1/embedded", B)).
func bound(v *version, sum [keys.BindingSize]byte) *vocab.Secret {
	root := v.secret()
	defer root.Zero()
	return canon.KDF(root, nil, canon.D("rms/v1/embedded", canon.Fields{canon.FieldBinding: sum}))
}

// each does one item after the other with the ring as it is at the beginning.
func each[In, Out any](ctx context.Context, k *Keyring, items []In, do func(*ring, In) Out) ([]Out, error) {
	if err := keys.CheckBatch(len(items)); err != nil {
		return nil, err
	}
	r, end, err := k.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	out := make([]Out, len(items))
	for i, it := range items {
		out[i] = do(r, it)
	}
	return out, nil
}

// Wrap implements [keys.Custodian].
func (k *Keyring) Wrap(ctx context.Context, items []keys.WrapItem) ([]keys.WrapResult, error) {
	return each(ctx, k, items, func(r *ring, it keys.WrapItem) keys.WrapResult {
		return keys.WrapResult{Wrap: k.seal(find(r.Root, 0), it.Binding, it.Secret)}
	})
}

func (k *Keyring) seal(v *version, b keys.Binding, secret *vocab.Secret) license.Wrap {
	sum := b.Sum()
	key := bound(v, sum)
	defer key.Zero()
	payload := b.Payload(secret)
	defer clear(payload)
	return license.Wrap{Custodian: k.cfg.ID, L0Type: license.L0Embedded, L0Version: v.Number, Ciphertext: canon.Seal(key, sum[:], payload)}
}

// Unwrap implements [keys.Custodian].
func (k *Keyring) Unwrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.UnwrapResult, error) {
	return each(ctx, k, items, func(r *ring, it keys.UnwrapItem) (out keys.UnwrapResult) {
		out.Secret, out.Err = k.open(r, it)
		return out
	})
}

func (k *Keyring) open(r *ring, it keys.UnwrapItem) (*vocab.Secret, error) {
	if err := keys.CheckWrap(it.Wrap, k.cfg.ID, license.L0Embedded); err != nil {
		return nil, err
	}
	v := find(r.Root, it.Wrap.L0Version)
	switch {
	case it.Wrap.L0Version > find(r.Root, 0).Number:
		return nil, keys.VersionTooNew(it.Wrap.L0Version)
	case v == nil:
		return nil, keys.VersionGone(it.Wrap.L0Version)
	}
	sum := it.Binding.Sum()
	key := bound(v, sum)
	defer key.Zero()
	payload, err := canon.Open(key, sum[:], it.Wrap.Ciphertext)
	if err != nil {
		return nil, keys.Integrity(err)
	}
	return it.Binding.OpenPayload(payload)
}

// Rewrap implements [keys.Custodian].
func (k *Keyring) Rewrap(ctx context.Context, items []keys.UnwrapItem) ([]keys.WrapResult, error) {
	return each(ctx, k, items, func(r *ring, it keys.UnwrapItem) keys.WrapResult {
		secret, err := k.open(r, it)
		if err != nil {
			return keys.WrapResult{Err: err}
		}
		defer secret.Zero()
		return keys.WrapResult{Wrap: k.seal(find(r.Root, 0), it.Binding, secret)}
	})
}

// Sign implements [keys.Custodian].
func (k *Keyring) Sign(ctx context.Context, number uint32, message []byte) (*keys.Signature, error) {
	r, end, err := k.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	v := find(r.Sign, number)
	if v == nil {
		return nil, keys.VersionGone(number)
	}
	return &keys.Signature{Version: v.Number, Bytes: ed25519.Sign(v.private(), message)}, nil
}

// Check implements [keys.Custodian]: the file on disk is still the ring in
// memory.
func (k *Keyring) Check(ctx context.Context) error {
	r, end, err := k.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	b, err := readPrivate(k.cfg.Path, maxFile)
	if err != nil {
		return unusable(k.cfg, err)
	}
	disk, err := decode(b, k.fileKey)
	if err != nil {
		return unusable(k.cfg, fmt.Errorf("%s: %w", k.cfg.Path, err))
	}
	defer disk.zero()
	if disk.ID != r.ID || !slices.Equal(disk.Root, r.Root) || !slices.Equal(disk.Sign, r.Sign) {
		return vocab.Errorf(vocab.ReasonCustodianChanged, "the key ring on disk is not the one in use").
			WithNext("Restart rmsd if it was restored on purpose")
	}
	return nil
}

// Health implements [keys.Custodian].
func (k *Keyring) Health(ctx context.Context) keys.Health {
	r, end, err := k.begin(ctx)
	if err != nil {
		return keys.Health{Reason: vocab.ReasonCustodianUnreachable, Message: err.Error()}
	}
	defer end()
	return keys.Health{ClusterID: uuid.UUID(r.ID).String()}
}

// Close implements [keys.Custodian].
func (k *Keyring) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring != nil {
		k.ring.zero()
		k.fileKey.Zero()
		k.ring = nil
	}
	return nil
}

// Key is one of a ring's two keys.
type Key string

// The keys of a ring.
const (
	Root Key = "root" // wraps generations
	Sign Key = "sign" // signs certificates, generations and the trust bundle
)

// Rotate adds a version to a key and returns its number, when it is durable.
func (k *Keyring) Rotate(ctx context.Context, key Key) (uint32, error) {
	var number uint32
	err := k.change(ctx, func(r *ring) error {
		vs := &r.Root
		if key == Sign {
			vs = &r.Sign
		}
		number = find(*vs, 0).Number + 1
		*vs = append(*vs, newVersion(number, clock(k.cfg)()))
		return nil
	})
	return number, err
}

// RotateRoot implements [keys.Rotator].
func (k *Keyring) RotateRoot(ctx context.Context) (uint32, error) { return k.Rotate(ctx, Root) }

// Destroy removes a version of the root key for ever: whatever is wrapped by it
// and not rewrapped is lost. The newest version stays (KEY_IN_USE). The old
// file's blocks are the file system's to forget.
func (k *Keyring) Destroy(ctx context.Context, number uint32) error {
	return k.change(ctx, func(r *ring) error {
		v := find(r.Root, cmp.Or(number, find(r.Root, 0).Number))
		switch {
		case v == nil:
			return vocab.Errorf(vocab.ReasonResourceNotFound, "the key ring has no version %d", number)
		case v == find(r.Root, 0):
			return vocab.Errorf(vocab.ReasonKeyInUse, "version %d is the newest and wraps what is new", v.Number).WithNext("Rotate first")
		}
		r.Root = slices.DeleteFunc(r.Root, func(v version) bool { return v.Number == number })
		return nil
	})
}

// DestroyRoot implements [keys.Destroyer].
func (k *Keyring) DestroyRoot(ctx context.Context, number uint32) error {
	if number == 0 {
		return vocab.Errorf(vocab.ReasonRequestInvalid, "no version of the key was named")
	}
	if holds, _, err := k.HoldsRoot(ctx); err != nil || !holds {
		return err
	}
	err := k.Destroy(ctx, number)
	if vocab.ReasonOf(err) == vocab.ReasonResourceNotFound {
		return nil
	}
	return err
}

// DestroyAll implements [keys.Destroyer]. What is left is the key ring's ID, so
// that a ring that was destroyed is not taken for one that is lost.
func (k *Keyring) DestroyAll(ctx context.Context) error {
	if holds, _, err := k.HoldsRoot(ctx); err != nil || !holds {
		return err
	}
	return k.change(ctx, func(r *ring) error {
		r.zero()
		r.Root, r.Sign = nil, nil
		return nil
	})
}

// HoldsRoot implements [keys.Holder].
func (k *Keyring) HoldsRoot(ctx context.Context) (holds bool, requestID string, err error) {
	if err := context.Cause(ctx); err != nil {
		return false, "", err
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.ring == nil {
		return false, "", closed()
	}
	return !k.ring.destroyed(), "", nil
}

// change edits a copy, writes it durably and only then uses it.
func (k *Keyring) change(ctx context.Context, edit func(*ring) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring == nil {
		return closed()
	}
	if k.ring.destroyed() {
		return gone()
	}
	next := k.ring.clone()
	if err := edit(next); err != nil {
		next.zero()
		return err
	}
	b, err := encode(next, k.fileKey)
	if err == nil {
		err = writePrivate(k.cfg.Path, b, false)
	}
	if err != nil {
		next.zero()
		return unusable(k.cfg, err)
	}
	k.ring.zero()
	k.ring = next
	return nil
}
