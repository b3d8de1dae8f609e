package record

import (
	"fmt"
	"strings"

	"github.com/openrms/rms/internal/canon"
	"github.com/openrms/rms/internal/store"
	"github.com/openrms/rms/internal/vocab"
)

// Prefixes of the names of keys and generations, which are resources too: so
// that a suspension, or the loss of a key, cannot be edited out of the store.
const (
	PrefixKeys        = "keys/"        // by name: [TenantKey]; never deleted
	PrefixGenerations = "generations/" // by number: [Generation]; never deleted
)

// GenerationName is the name of a generation's resource.
func GenerationName(number uint32) string { return fmt.Sprintf("%s%d", PrefixGenerations, number) }

// KeyName is the name of a key's resource.
func KeyName(name string) string { return PrefixKeys + name }

// Generation is a generation of the tenant's: the signed record that never
// changes, and beside it what does.
type Generation struct {
	Number  uint32 `cbor:"1,keyasint"` // from 1, as people say it: g1
	Signed  []byte `cbor:"2,keyasint"`
	Wrap    []byte `cbor:"3,keyasint"`
	State   uint8  `cbor:"4,keyasint"` // of package keys
	Created Millis `cbor:"5,keyasint"`
	// Since is when it came into its state, and Why what its custodian said of
	// that.
	Since Millis `cbor:"6,keyasint"`
	Why   string `cbor:"7,keyasint,omitempty"`
	// MadeBy and MadeVersion are the key and its version that wrapped it first.
	MadeBy      vocab.CustodianID `cbor:"8,keyasint"`
	MadeVersion uint32            `cbor:"9,keyasint"`
	// Canary is 1 if it is kept for rehearsals: nothing is ever published under
	// it.
	Canary uint8 `cbor:"10,keyasint,omitempty"`
}

// Encode returns the stored form.
func (g *Generation) Encode() ([]byte, error) { return encodeBody(g) }

// DecodeGeneration reads the stored form; the error is STORE_DAMAGED.
func DecodeGeneration(b []byte) (*Generation, error) {
	g := new(Generation)
	if err := canon.Unmarshal(b, g); err != nil {
		return nil, damaged(tableResources, err)
	}
	return g, nil
}

// TenantKey is a key at a custodian that is registered as a tenant key: what is
// known of it, and of its versions. The custodian forgets much of it.
type TenantKey struct {
	ID vocab.CustodianID `cbor:"1,keyasint"`
	// Custodian is what the operator's file calls the place where it is, Kind
	// what that is (vault, embedded), Root and Sign the names of the two keys
	// there.
	Custodian string `cbor:"2,keyasint"`
	Kind      string `cbor:"3,keyasint"`
	Root      string `cbor:"4,keyasint"`
	Sign      string `cbor:"5,keyasint"`
	// State is that of package keys: one key is active. Since is when it came
	// into it, Why what its custodian said of that.
	State      uint8  `cbor:"6,keyasint"`
	Since      Millis `cbor:"7,keyasint"`
	Why        string `cbor:"8,keyasint,omitempty"`
	Registered Millis `cbor:"9,keyasint"`
	// The high-water mark of what the custodian said: its identity, the newest
	// version and the oldest still there of both keys, and every public key of
	// the signing key. Cluster is empty until it has answered once.
	Cluster    string              `cbor:"10,keyasint,omitempty"`
	RootLatest uint32              `cbor:"11,keyasint,omitempty"`
	RootMin    uint32              `cbor:"12,keyasint,omitempty"`
	SignLatest uint32              `cbor:"13,keyasint,omitempty"`
	SignMin    uint32              `cbor:"14,keyasint,omitempty"`
	SignKeys   map[uint32][32]byte `cbor:"15,keyasint,omitempty"`
	// Versions are those of the root key that were ever seen, oldest first.
	Versions []KeyVersion `cbor:"16,keyasint,omitempty"`
	// Rotates is how often the custodian rotates the key by itself, in
	// milliseconds, as a key custodian last confirmed it; 0: it does not.
	Rotates Millis `cbor:"17,keyasint,omitempty"`
	// Gone is when the custodian of a destroyed key was seen without it.
	Gone Millis `cbor:"18,keyasint,omitempty"`
	// Deletable is 1 while the log has an alarm that says that the key can be
	// deleted at its custodian.
	Deletable uint8 `cbor:"19,keyasint,omitempty"`
	// Elsewhere is when the tenant left the service at which the key is: nothing
	// can be asked of it here, what it signed stays signed. Zero: it is here.
	Elsewhere Millis `cbor:"32,keyasint,omitempty"`
}

// Origins of a version of a key, as far as the custodian said when the version
// was first seen.
const (
	OriginUnknown   = 0
	OriginGenerated = 1 // by the custodian
	OriginImported  = 2 // brought by its owner
)

// Whose a version of a key is: whether a key custodian said that it was meant.
const (
	Unclaimed = 0 // nobody did yet
	Claimed   = 1
	Alarmed   = 2 // nobody did in time, and the log says so
)

// KeyVersion is a version of a tenant key.
type KeyVersion struct {
	Number uint32 `cbor:"1,keyasint"`
	// State is one of its own: suspended, compromised, destroyed. 0: it is as
	// the key is, and active if it is the newest of the active one.
	State   uint8  `cbor:"2,keyasint,omitempty"`
	Created Millis `cbor:"3,keyasint,omitempty"` // by the custodian's clock
	Seen    Millis `cbor:"4,keyasint"`           // first, by ours
	Since   Millis `cbor:"5,keyasint,omitempty"` // of State
	Why     string `cbor:"6,keyasint,omitempty"` // of State
	Origin  uint8  `cbor:"7,keyasint,omitempty"`
	Claim   uint8  `cbor:"8,keyasint,omitempty"`
	// ClaimedBy is who, as a person names them.
	ClaimedBy string `cbor:"9,keyasint,omitempty"`
	// Provenance is where it comes from, as its custodian stated; nil if nobody
	// said.
	Provenance *Provenance `cbor:"10,keyasint,omitempty"`
	// Gone is when the custodian was first seen without it, and GoneAlarmed 1 if
	// the log says as an alarm that nobody had destroyed it here.
	Gone        Millis `cbor:"11,keyasint,omitempty"`
	GoneAlarmed uint8  `cbor:"12,keyasint,omitempty"`
}

// Provenance is how a version of a key came to its custodian, by the statement
// of whoever brought it. Nothing in it is secret.
type Provenance struct {
	// Fingerprint and KCV are check values of the key (docs/formats.md §14);
	// empty where only a hardware module knows the key.
	Fingerprint []byte `cbor:"1,keyasint,omitempty"` // 32 bytes
	KCV         string `cbor:"2,keyasint,omitempty"` // 6 hexadecimal digits
	// Form is what was brought: raw, hex, base64, jwk, hsm-blob, byok; or
	// generated.
	Form string `cbor:"3,keyasint,omitempty"`
	// WrappingKey is SHA-256 of the custodian's public wrapping key (SPKI), Blob
	// that of the wrapped key as it was sent.
	WrappingKey []byte `cbor:"4,keyasint,omitempty"`
	Blob        []byte `cbor:"5,keyasint,omitempty"`
	// Requests are the custodian's IDs of what was asked of it, with a space
	// between them: a list would lie too deep in the key's encoding.
	Requests string `cbor:"6,keyasint,omitempty"`
	// At is when, by the clock of whoever did it.
	At Millis `cbor:"7,keyasint,omitempty"`
	// Proven is 1 if the custodian was seen to hold the very key: what it
	// sealed opened with the key at hand.
	Proven uint8 `cbor:"8,keyasint,omitempty"`
}

// Version returns a version of the key, nil if it was never seen.
func (k *TenantKey) Version(number uint32) *KeyVersion {
	for i := range k.Versions {
		if k.Versions[i].Number == number {
			return &k.Versions[i]
		}
	}
	return nil
}

// Encode returns the stored form.
func (k *TenantKey) Encode() ([]byte, error) { return encodeBody(k) }

// DecodeTenantKey reads the stored form; the error is STORE_DAMAGED.
func DecodeTenantKey(b []byte) (*TenantKey, error) {
	k := new(TenantKey)
	if err := canon.Unmarshal(b, k); err != nil {
		return nil, damaged(tableResources, err)
	}
	if k.ID.IsZero() {
		return nil, damaged(tableResources, nil)
	}
	return k, nil
}

// ListKeys calls fn with every registered key and its name.
func ListKeys(r store.Reader, t vocab.TenantID, fn func(name string, k *TenantKey) error) error {
	return ListResources(r, t, PrefixKeys, "", func(s *Resource) (bool, error) {
		k, err := DecodeTenantKey(s.Body)
		if err == nil {
			err = fn(s.ID(), k)
		}
		return true, err
	})
}

// ListGenerations calls fn with every generation, in no order that means
// anything.
func ListGenerations(r store.Reader, t vocab.TenantID, fn func(*Generation) error) error {
	return ListResources(r, t, PrefixGenerations, "", func(s *Resource) (bool, error) {
		g, err := DecodeGeneration(s.Body)
		if err == nil && GenerationName(g.Number) != s.Name {
			err = damaged(tableResources, nil)
		}
		if err == nil {
			err = fn(g)
		}
		return true, err
	})
}

// checkKey reports whether the body of a key or generation is one.
func (s *Resource) checkKey() error {
	if strings.HasPrefix(s.Name, PrefixKeys) {
		_, err := DecodeTenantKey(s.Body)
		return err
	}
	g, err := DecodeGeneration(s.Body)
	if err == nil && GenerationName(g.Number) != s.Name {
		err = damaged(tableResources, nil)
	}
	return err
}
