package keys

import (
	"context"
	"crypto/ed25519"
	"time"

	"github.com/openrms/rms/internal/license"
	"github.com/openrms/rms/internal/vocab"
)

// MaxBatch is the most items one Wrap, Unwrap or Rewrap call takes.
const MaxBatch = 512

// Custodian holds one tenant's root key and root signing key, and does with
// them what it is asked: the keys never come here. It is safe for concurrent
// use. Implementations: keys/vault (HashiCorp Vault transit) and keys/embedded
// (a key ring file); both must pass keys/custodiantest.
//
// # Errors
//
// Every error is a [*vocab.Error] with one of these reasons, or wraps the
// context's own error if the caller gave up:
//
//   - CUSTODIAN_UNREACHABLE, CUSTODIAN_SEALED: not available. Nothing was done,
//     or nothing that matters; the caller may try again later.
//   - CUSTODIAN_REFUSED: the customer's switch. Do not retry.
//   - KEY_ATTRIBUTES_UNSAFE, CUSTODIAN_CHANGED, KEY_STATE: the key is not what
//     it must be (wrong type, exportable, another cluster, version withdrawn).
//   - CUSTODY_INTEGRITY: an answer that cannot be the key. Never retried,
//     always an alarm.
//   - OVERLOADED, INTERNAL: the custodian failed in a way that says nothing
//     about the key. Not an outage in the sense of the outage grace.
//
// Wrap, Unwrap and Rewrap return either an error for the call as a whole and no
// results, or exactly one result per item in the order of the items, each with
// its own Err. No call is repeated by the implementation, with one exception:
// after a refusal it may log in anew and ask once more.
type Custodian interface {
	// ID is the registered key this is: what [license.Wrap].Custodian holds.
	ID() vocab.CustodianID
	// Describe reads the facts about both keys, now, past every cache, and
	// judges nothing: see [Facts.Safe] and [Facts.Since].
	Describe(ctx context.Context) (*Facts, error)
	// Wrap seals each secret with its binding under the newest version of
	// the root key. The caller still owns the secrets.
	Wrap(ctx context.Context, items []WrapItem) ([]WrapResult, error)
	// Unwrap opens each wrap and checks that it was made for its binding.
	// The caller owns and zeroes the secrets. It must still check the
	// commitment: use [Unwrap], the function, not this method.
	Unwrap(ctx context.Context, items []UnwrapItem) ([]UnwrapResult, error)
	// Rewrap moves each wrap to the newest version of the root key. With
	// Vault the plaintext stays there. Running it twice is harmless.
	Rewrap(ctx context.Context, items []UnwrapItem) ([]WrapResult, error)
	// Sign signs message as it is (pure Ed25519) with the given version of
	// the root signing key; version 0 is the newest.
	Sign(ctx context.Context, version uint32, message []byte) (*Signature, error)
	// Check proves that the custodian can be used safely: reachable, the
	// expected one, keys with safe attributes, every capability that is
	// needed and none that is too much. The error names what is wrong.
	Check(ctx context.Context) error
	// Health asks whether the custodian answers, without using a key. It
	// does not need a login and does not prove one.
	Health(ctx context.Context) Health
	// Close ends background work, gives up the login and zeroes what can be
	// zeroed. Calls after it fail with CUSTODIAN_UNREACHABLE.
	Close() error
}

// Rotator is a custodian that makes new versions of its root key itself. Vault
// is none: there a person does it, with rights of their own.
type Rotator interface {
	// RotateRoot adds a version and returns its number when it is durable.
	RotateRoot(ctx context.Context) (uint32, error)
}

// Destroyer is a custodian that destroys its keys itself, when it is told to.
// Vault is none: there a person does it, with rights of their own. Both methods
// are durable when they return nil, and do nothing to what is destroyed already.
type Destroyer interface {
	// DestroyRoot removes a version of the root key for ever. The newest stays:
	// KEY_IN_USE.
	DestroyRoot(ctx context.Context, version uint32) error
	// DestroyAll removes both keys with all their versions.
	DestroyAll(ctx context.Context) error
}

// Holder is a custodian that can say whether it still has its root key, which
// none of the other methods tell from its not being reachable by its name.
type Holder interface {
	// HoldsRoot asks now. Only an answer is one: an outage, or a refusal, is an
	// error. The ID is that of the request, for the custodian's log.
	HoldsRoot(ctx context.Context) (holds bool, requestID string, err error)
}

// WrapItem is a secret to wrap for its binding.
type WrapItem struct {
	Binding Binding
	Secret  *vocab.Secret
}

// WrapResult is a new wrap, or why there is none.
type WrapResult struct {
	Wrap      license.Wrap
	RequestID string // the custodian's own ID of the call, for its audit log
	Err       error
}

// UnwrapItem is a wrap to open or to move, and the binding it must have.
type UnwrapItem struct {
	Binding Binding
	Wrap    license.Wrap
}

// UnwrapResult is an unwrapped secret, or why there is none.
type UnwrapResult struct {
	Secret    *vocab.Secret
	RequestID string
	Err       error
}

// Signature is an Ed25519 signature of the root.
type Signature struct {
	Version   uint32
	Bytes     []byte // 64 bytes
	RequestID string
}

// Health is a moment's answer to "are you there".
type Health struct {
	Reason    vocab.Reason // empty when available, else CUSTODIAN_UNREACHABLE, CUSTODIAN_SEALED or CUSTODIAN_CHANGED
	Message   string       // one sentence for an operator
	ClusterID string
	Version   string // of the custodian's software
	Latency   time.Duration
}

// OK reports whether the custodian is available.
func (h Health) OK() bool { return h.Reason == "" }

// Kind is a kind of custodian.
type Kind string

// The kinds there are.
const (
	KindVault    Kind = "vault"
	KindEmbedded Kind = "embedded"
)

// Facts are what a custodian says about itself and its keys at one time.
type Facts struct {
	Custodian vocab.CustodianID
	Kind      Kind
	Location  string // address and mount, or nothing: for people
	ClusterID string // the identity of the installation: Vault's cluster ID, the key ring's own ID
	Version   string // of the custodian's software
	Root      KeyFacts
	Sign      KeyFacts
	ReadAt    time.Time
	// RequestIDs are the custodian's IDs of the reads, evidence for its log.
	RequestIDs []string
}

// KeyFacts are the attributes of one key as read.
type KeyFacts struct {
	Name            string
	Type            string // aes256-gcm96, ed25519, …, as the custodian names it
	Derived         bool
	Convergent      bool
	Exportable      bool
	PlaintextBackup bool // allow_plaintext_backup
	DeletionAllowed bool
	Imported        bool
	ImportRotates   bool // an imported key that Vault may rotate
	BackedUp        bool // a plaintext backup was taken
	Restored        bool // came from a plaintext backup
	Latest          uint32
	MinDecryption   uint32
	MinEncryption   uint32 // 0: no floor
	MinAvailable    uint32
	AutoRotate      time.Duration
	// Versions holds what the custodian still shows, oldest first. Vault
	// hides versions below MinDecryption.
	Versions []KeyVersion
}

// KeyVersion is one version of a key.
type KeyVersion struct {
	Version   uint32
	Created   time.Time
	PublicKey ed25519.PublicKey // signing keys only
}

// PublicKey returns the public key of a version; 0 is the newest.
func (k *KeyFacts) PublicKey(version uint32) (ed25519.PublicKey, bool) {
	if version == 0 {
		version = k.Latest
	}
	for _, v := range k.Versions {
		if v.Version == version && v.PublicKey != nil {
			return v.PublicKey, true
		}
	}
	return nil, false
}
